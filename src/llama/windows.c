/* SPDX-License-Identifier: Apache-2.0
 *
 * A text is read and encoded piece by piece, so that a long one costs the memory of its tokens
 * alone.  A piece ends before a space that follows a word: no token of a vocabulary that splits at
 * spaces, as these do, reaches across.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama/eval.h"
#include "llama/say.h"

#define PIECE_BYTES 65536

struct reader {
    const char *path;
    FILE *file;
    char bytes[PIECE_BYTES + 1];
    size_t held; /* of a piece that may go on */
    bool ended, begun;
};

/* Where a piece of `held` bytes can be cut; all of it at the end of the text, or when it is one
 * word. */
static size_t cut_of(const struct reader *r)
{
    for (size_t i = r->held; !r->ended && i > 1; i--)
        if (r->bytes[i - 1] == ' ' && r->bytes[i - 2] != ' ')
            return i - 1;
    return r->held;
}

static bool fill(struct reader *r)
{
    size_t wanted = PIECE_BYTES - r->held;
    size_t got = fread(r->bytes + r->held, 1, wanted, r->file);
    if (ferror(r->file))
        return wf_say_failed("cannot read the text %s: %s", r->path, strerror(errno));
    if (memchr(r->bytes + r->held, 0, got))
        return wf_say_failed("%s is no text: it has a zero byte; give a file in UTF-8", r->path);
    r->held += got;
    r->ended = got < wanted;
    return true;
}

/* Add the tokens of the next piece. */
static bool piece(struct reader *r, const struct wf_tokenizer *t, uint32_t *tokens,
                  uint32_t tokens_max, struct wf_windows *out)
{
    if (!fill(r))
        return false;
    size_t length = cut_of(r), skipped = r->begun ? 0 : 1;
    char kept = r->bytes[length];
    r->bytes[length] = '\0';
    uint32_t *work = malloc((length + 2) * sizeof(*work));
    size_t count = work ? wf_tokenizer_encode(t, r->bytes, !r->begun, work, length + 2) : 0;
    r->bytes[length] = kept;
    if (length && !count) {
        free(work);
        return wf_say_failed("no memory for the tokens of %s", r->path);
    }
    size_t room = tokens_max - out->count, added = count - (count ? skipped : 0);
    out->cut = added > room;
    added = added < room ? added : room;
    if (added)
        memcpy(tokens + out->count, work + skipped, added * sizeof(*tokens));
    out->count += (uint32_t)added;
    free(work);
    r->begun = true;
    r->held -= length;
    memmove(r->bytes, r->bytes + length, r->held);
    return true;
}

/* The text's first tokens_max tokens, for free(). */
static uint32_t *read_tokens(struct reader *r, const struct wf_tokenizer *t, uint32_t tokens_max,
                             struct wf_windows *out)
{
    uint32_t *tokens = NULL, capacity = 0;
    while (!out->cut && !(r->ended && r->held == 0)) {
        if (capacity < tokens_max && capacity - out->count < PIECE_BYTES + 2) {
            uint32_t more = 2 * capacity + PIECE_BYTES + 2;
            capacity = more < tokens_max ? more : tokens_max;
            uint32_t *grown = realloc(tokens, capacity * sizeof(*tokens));
            if (!grown) {
                wf_say_keep("no memory for %u tokens of %s", capacity, r->path);
                goto fail;
            }
            tokens = grown;
        }
        if (!piece(r, t, tokens, tokens_max, out))
            goto fail;
    }
    return tokens;

fail:
    free(tokens);
    return NULL;
}

/* `cut`: the text goes on. */
static bool windows_of(const char *name, uint32_t *tokens, uint32_t count, uint32_t length,
                       bool cut, struct wf_windows *out)
{
    if (length < 2)
        return wf_say_failed("a window of %u tokens predicts nothing: 2 is the least", length);
    uint64_t windows = ((uint64_t)count + length - 2) / (length - 1);
    unsigned long long least = (unsigned long long)(WF_WINDOWS_MIN - 1) * (length - 1) + 1;
    if (windows < WF_WINDOWS_MIN && cut)
        return wf_say_failed("%u tokens of %s were asked for, and %u windows of %u take %llu: ask "
                             "for more tokens, or for shorter windows",
                             count, name, WF_WINDOWS_MIN, length - 1, least);
    if (windows < WF_WINDOWS_MIN)
        return wf_say_failed("%s has %u tokens, and %u windows of %u take %llu: give a longer "
                             "text, or shorter windows",
                             name, count, WF_WINDOWS_MIN, length - 1, least);
    *out = (struct wf_windows){
        .tokens = tokens,
        .count = count,
        .length = length,
        .windows = (uint32_t)windows,
        .calibration = (uint32_t)windows / 4,
        .cut = cut,
    };
    return true;
}

bool wf_windows_of(const char *name, uint32_t *tokens, uint32_t count, uint32_t length,
                   struct wf_windows *out)
{
    return windows_of(name, tokens, count, length, false, out);
}

/* Of so many tokens, the longest windows from `least` to `length` that are WF_WINDOWS_MIN. */
static uint32_t length_for(uint32_t count, uint32_t length, uint32_t least)
{
    uint32_t longest = count ? (count - 1) / (WF_WINDOWS_MIN - 1) + 1 : 0;
    return longest >= length ? length : longest > least ? longest : least;
}

bool wf_windows_read(const char *path, const struct wf_tokenizer *tokenizer, uint32_t length,
                     uint32_t length_least, uint32_t tokens_max, struct wf_windows *out)
{
    struct wf_windows w = {0};
    if (tokens_max == 0 || tokens_max > WF_WINDOWS_TOKENS_MAX)
        return wf_say_failed("%u tokens of a text are not between 1 and %u", tokens_max,
                             WF_WINDOWS_TOKENS_MAX);
    struct reader *r = calloc(1, sizeof(*r));
    if (!r)
        return wf_say_failed("no memory to read %s", path);
    r->path = path;
    r->file = fopen(path, "rbe");
    bool ok = r->file || wf_say_failed("cannot open the text %s: %s", path, strerror(errno));
    uint32_t *tokens = ok ? read_tokens(r, tokenizer, tokens_max, &w) : NULL;
    ok = ok && tokens &&
         windows_of(path, tokens, w.count, length_for(w.count, length, length_least), w.cut, out);
    if (!ok)
        free(tokens);
    if (r->file)
        fclose(r->file);
    free(r);
    return ok;
}

void wf_windows_free(struct wf_windows *windows)
{
    free(windows->tokens);
    *windows = (struct wf_windows){0};
}

uint32_t wf_windows_get(const struct wf_windows *windows, uint32_t index, uint32_t *out)
{
    uint32_t each = windows->length - 1, start = index * each, left = windows->count - start;
    uint32_t count = left < each ? left : each;
    out[0] = WF_TOKEN_BEGIN;
    memcpy(out + 1, windows->tokens + start, count * sizeof(*out));
    return count + 1;
}
