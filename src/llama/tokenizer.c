/* SPDX-License-Identifier: Apache-2.0
 *
 * Merging keeps, for each adjacent pair, the token it would become, and the pairs in a heap: a long
 * text costs n log n.
 */
#include "llama/tokenizer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama/say.h"

#define FILE_BYTES_MAX (1L << 30)
#define LONGEST_MAX 4096
#define NO_TOKEN UINT32_MAX

static int compare_bytes(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_tokens(const void *a, const void *b, void *tokens)
{
    const struct wf_token_text *x = (const struct wf_token_text *)tokens + *(const uint32_t *)a;
    const struct wf_token_text *y = (const struct wf_token_text *)tokens + *(const uint32_t *)b;
    return compare_bytes(x->bytes, x->length, y->bytes, y->length);
}

/* The token that is exactly these bytes, or NO_TOKEN. */
static uint32_t find(const struct wf_tokenizer *t, const char *bytes, size_t length)
{
    uint32_t low = 0, high = t->vocab - WF_TOKEN_SPECIAL;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2, token = t->sorted[middle];
        int order = compare_bytes(bytes, length, t->tokens[token].bytes, t->tokens[token].length);
        if (order == 0)
            return token;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NO_TOKEN;
}

/* Tables for `vocab` tokens and `text_bytes` of their text.  The special ones get their bytes here;
 * in a file they carry names like "<0x0A>", which are for people and must never match what a user
 * types. */
static bool tables_create(struct wf_tokenizer *t, uint32_t vocab, size_t text_bytes)
{
    if (vocab < WF_TOKEN_SPECIAL)
        return wf_say_failed("a vocabulary of %u is too small: bytes and marks alone are %d tokens",
                             vocab, WF_TOKEN_SPECIAL);
    *t = (struct wf_tokenizer){.vocab = vocab};
    t->tokens = calloc(vocab, sizeof(*t->tokens));
    t->sorted = calloc(vocab, sizeof(*t->sorted));
    t->memory = calloc(1, 512 + text_bytes);
    if (!t->tokens || !t->sorted || !t->memory) {
        wf_tokenizer_free(t);
        return wf_say_failed("no memory for a vocabulary of %u", vocab);
    }
    for (uint32_t token = 0; token < vocab; token++)
        t->tokens[token].bytes = "";
    for (uint32_t byte = 0; byte < 256; byte++) {
        t->memory[2 * byte] = (char)byte;
        t->tokens[WF_TOKEN_BYTES + byte] = (struct wf_token_text){&t->memory[2 * byte], 1, 0.0f};
    }
    return true;
}

static void tables_sort(struct wf_tokenizer *t)
{
    uint32_t count = t->vocab - WF_TOKEN_SPECIAL;
    for (uint32_t i = 0; i < count; i++)
        t->sorted[i] = WF_TOKEN_SPECIAL + i;
    qsort_r(t->sorted, count, sizeof(*t->sorted), compare_tokens, t->tokens);
}

bool wf_tokenizer_bytes(uint32_t vocab, struct wf_tokenizer *out)
{
    struct wf_tokenizer t;
    if (!tables_create(&t, vocab, 0))
        return false;
    tables_sort(&t);
    *out = t;
    return true;
}

/* The whole file in memory; *out_bytes long, for free(). */
static char *read_file(const char *path, size_t *out_bytes)
{
    FILE *file = fopen(path, "rbe");
    char *data = NULL;
    long bytes = -1;
    if (file && fseek(file, 0, SEEK_END) == 0)
        bytes = ftell(file);
    if (bytes == 0 || bytes > FILE_BYTES_MAX) { /* a directory says that it is very long */
        fclose(file);
        wf_say_keep("%s is not a llama2.c tokenizer: it has %s", path,
                    bytes ? "more bytes than any" : "no bytes");
        return NULL;
    }
    if (bytes > 0 && fseek(file, 0, SEEK_SET) == 0)
        data = malloc((size_t)bytes);
    if (data && fread(data, 1, (size_t)bytes, file) != (size_t)bytes) {
        free(data);
        data = NULL;
    }
    if (!data)
        wf_say_keep("cannot read the tokenizer %s: %s", path, strerror(errno));
    else
        *out_bytes = (size_t)bytes;
    if (file)
        fclose(file);
    return data;
}

static bool parse(struct wf_tokenizer *t, const char *data, size_t bytes, const char *path)
{
    size_t at = sizeof(int32_t); /* past `longest`: each length below is checked by itself */
    char *text = t->memory + 512;
    for (uint32_t token = 0; token < t->vocab; token++) {
        float score;
        int32_t length;
        if (at + 8 > bytes)
            return wf_say_failed("%s ends after %u of %u tokens: it belongs to another model", path,
                                 token, t->vocab);
        memcpy(&score, data + at, 4);
        memcpy(&length, data + at + 4, 4);
        at += 8;
        if (length < 0 || length > LONGEST_MAX || (size_t)length > bytes - at || !isfinite(score))
            return wf_say_failed(
                "%s is not a llama2.c tokenizer: token %u has a length of %d and a "
                "score of %g",
                path, token, length, (double)score);
        if (token >= WF_TOKEN_SPECIAL) {
            memcpy(text, data + at, (size_t)length);
            t->tokens[token] = (struct wf_token_text){text, (uint32_t)length, score};
            text += length + 1;
        }
        at += (size_t)length;
    }
    return at == bytes ||
           wf_say_failed("%s has more than %u tokens: it belongs to another model", path, t->vocab);
}

bool wf_tokenizer_load(const char *path, uint32_t vocab, struct wf_tokenizer *out)
{
    size_t bytes;
    char *data = read_file(path, &bytes);
    if (!data)
        return false;
    struct wf_tokenizer t;
    bool ok = tables_create(&t, vocab, bytes + vocab);
    if (ok && !parse(&t, data, bytes, path)) {
        wf_tokenizer_free(&t);
        ok = false;
    }
    if (ok) {
        tables_sort(&t);
        *out = t;
    }
    free(data);
    return ok;
}

void wf_tokenizer_free(struct wf_tokenizer *t)
{
    free(t->tokens);
    free(t->sorted);
    free(t->memory);
    *t = (struct wf_tokenizer){0};
}

/* What two tokens side by side would become. */
static uint32_t merged(const struct wf_tokenizer *t, uint32_t first, uint32_t second)
{
    const struct wf_token_text *a = &t->tokens[first], *b = &t->tokens[second];
    char joined[2 * LONGEST_MAX];
    memcpy(joined, a->bytes, a->length);
    memcpy(joined + a->length, b->bytes, b->length);
    return find(t, joined, a->length + b->length);
}

/* A text as it is merged: what is left of it is a list, in the order of the text.  A symbol that
 * went into the one before it is no longer in the list. */
struct symbol {
    uint32_t token, next; /* next: NO_SYMBOL at the end */
    uint32_t before;
    uint32_t pair; /* the token that this and the next would be, or NO_TOKEN */
};

/* What could be merged, the best first: by score, then by its place. */
struct merge {
    float score;
    uint32_t at, next, token;
};

struct merging {
    const struct wf_tokenizer *tokenizer;
    struct symbol *symbols;
    struct merge *heap; /* [3 × symbols]: each merge adds at most two */
    size_t heap_count;
};

#define NO_SYMBOL UINT32_MAX

static bool goes_first(const struct merge *a, const struct merge *b)
{
    return a->score > b->score || (!(a->score < b->score) && a->at < b->at);
}

static void heap_push(struct merging *m, struct merge merge)
{
    size_t at = m->heap_count++;
    for (; at > 0 && goes_first(&merge, &m->heap[(at - 1) / 2]); at = (at - 1) / 2)
        m->heap[at] = m->heap[(at - 1) / 2];
    m->heap[at] = merge;
}

static struct merge heap_pop(struct merging *m)
{
    struct merge first = m->heap[0], last = m->heap[--m->heap_count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < m->heap_count) {
        if (child + 1 < m->heap_count && goes_first(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!goes_first(&m->heap[child], &last))
            break;
        m->heap[at] = m->heap[child];
        at = child;
    }
    m->heap[at] = last;
    return first;
}

/* What the symbol `at` and the next one would be. */
static void pair_look(struct merging *m, uint32_t at)
{
    struct symbol *s = &m->symbols[at];
    s->pair = NO_TOKEN;
    if (s->next == NO_SYMBOL)
        return;
    s->pair = merged(m->tokenizer, s->token, m->symbols[s->next].token);
    if (s->pair != NO_TOKEN)
        heap_push(m, (struct merge){m->tokenizer->tokens[s->pair].score, at, s->next, s->pair});
}

/* Join the best-scoring pair, the first of equals, until no pair is a token.  What the heap has of
 * a pair that is none any more is left there, and known by that. */
static void merge_all(struct merging *m, size_t count)
{
    for (uint32_t i = 0; i < count; i++)
        pair_look(m, i);
    while (m->heap_count > 0) {
        struct merge best = heap_pop(m);
        struct symbol *s = &m->symbols[best.at];
        if (s->next != best.next || s->pair != best.token)
            continue;
        struct symbol *gone = &m->symbols[best.next];
        s->token = best.token;
        s->next = gone->next;
        *gone = (struct symbol){NO_TOKEN, NO_SYMBOL, NO_SYMBOL, NO_TOKEN};
        if (s->next != NO_SYMBOL)
            m->symbols[s->next].before = best.at;
        pair_look(m, best.at);
        if (s->before != NO_SYMBOL)
            pair_look(m, s->before);
    }
}

/* One token a character, or one a byte for characters that the vocabulary lacks. */
static size_t split(const struct wf_tokenizer *t, const char *text, uint32_t *out)
{
    size_t count = 0;
    while (*text) {
        size_t length = 1;
        while (length < 4 && ((unsigned char)text[length] & 0xc0) == 0x80)
            length++;
        uint32_t token = find(t, text, length);
        if (token != NO_TOKEN)
            out[count++] = token;
        else
            for (size_t i = 0; i < length; i++)
                out[count++] = WF_TOKEN_BYTES + (unsigned char)text[i];
        text += length;
    }
    return count;
}

size_t wf_tokenizer_encode(const struct wf_tokenizer *t, const char *text, bool begin,
                           uint32_t *out, size_t capacity)
{
    size_t length = strlen(text), count = 0, most = length + 2;
    if (most > UINT32_MAX / 4)
        return 0;
    uint32_t *work = malloc(most * sizeof(*work));
    struct merging m = {
        .tokenizer = t,
        .symbols = malloc(most * sizeof(*m.symbols)),
        .heap = malloc(3 * most * sizeof(*m.heap)),
    };
    size_t kept = 0;
    if (!work || !m.symbols || !m.heap)
        goto out;
    /* sentencepiece puts a space before the first word, so that it is the same token as in mid-text
     */
    if (begin && length)
        count = split(t, " ", work);
    count += split(t, text, work + count);
    for (uint32_t i = 0; i < count; i++)
        m.symbols[i] = (struct symbol){work[i], i + 1 < count ? i + 1 : NO_SYMBOL,
                                       i ? i - 1 : NO_SYMBOL, NO_TOKEN};
    merge_all(&m, count);
    if (begin && capacity)
        out[kept++] = WF_TOKEN_BEGIN;
    for (uint32_t i = 0; count && i != NO_SYMBOL && kept < capacity; i = m.symbols[i].next)
        out[kept++] = m.symbols[i].token;

out:
    free(work);
    free(m.symbols);
    free(m.heap);
    return kept;
}

const char *wf_tokenizer_decode(const struct wf_tokenizer *t, uint32_t previous, uint32_t token,
                                size_t *out_length)
{
    if (token >= t->vocab) {
        *out_length = 0;
        return "";
    }
    const struct wf_token_text *text = &t->tokens[token];
    size_t skipped = previous == WF_TOKEN_BEGIN && text->length && text->bytes[0] == ' ';
    *out_length = text->length - skipped;
    return text->bytes + skipped;
}
