/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks and what is said of them, and a batch of that in MessagePack, to the byte as msgspec
 * writes it.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/kvevents_codec.h"

/* -------------------------------------------------------------------------------------- blocks */

struct wf_kv_block *wf_kv_block_create(const struct wf_kv_meaning *meaning)
{
    size_t tokens = meaning->token_count * sizeof(uint32_t);
    struct wf_kv_block *block = malloc(sizeof *block + tokens + meaning->hash_bytes +
                                       meaning->parent_bytes + meaning->lora_bytes);
    if (!block)
        return NULL;
    *block = (struct wf_kv_block){.references = 1,
                                  .token_count = (uint32_t)meaning->token_count,
                                  .hash_bytes = (uint8_t)meaning->hash_bytes,
                                  .parent_bytes = (uint8_t)meaning->parent_bytes,
                                  .lora_bytes = (uint8_t)meaning->lora_bytes};
    uint8_t *at = (uint8_t *)(block->tokens + meaning->token_count);
    if (tokens)
        memcpy(block->tokens, meaning->tokens, tokens);
    memcpy(at, meaning->hash, meaning->hash_bytes);
    if (meaning->parent_bytes)
        memcpy(at + meaning->hash_bytes, meaning->parent, meaning->parent_bytes);
    if (meaning->lora_bytes)
        memcpy(at + meaning->hash_bytes + meaning->parent_bytes, meaning->lora,
               meaning->lora_bytes);
    return block;
}

struct wf_kv_block *wf_kv_block_get(struct wf_kv_block *block)
{
    atomic_fetch_add_explicit(&block->references, 1, memory_order_relaxed);
    return block;
}

void wf_kv_block_put(struct wf_kv_block *block)
{
    /* Acquire and release: whoever frees it does so after all others have read it. */
    if (block && atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) == 1)
        free(block);
}

size_t wf_kv_block_bytes(const struct wf_kv_block *block)
{
    return sizeof *block + block->token_count * sizeof block->tokens[0] + block->hash_bytes +
           block->parent_bytes + block->lora_bytes;
}

const uint8_t *wf_kv_block_hash(const struct wf_kv_block *block)
{
    return (const uint8_t *)(block->tokens + block->token_count);
}

const uint8_t *wf_kv_block_parent(const struct wf_kv_block *block)
{
    return wf_kv_block_hash(block) + block->hash_bytes;
}

const char *wf_kv_block_lora(const struct wf_kv_block *block)
{
    return (const char *)wf_kv_block_parent(block) + block->parent_bytes;
}

bool wf_kv_block_same(const struct wf_kv_block *a, const struct wf_kv_block *b)
{
    return a->token_count == b->token_count && a->hash_bytes == b->hash_bytes &&
           a->parent_bytes == b->parent_bytes && a->lora_bytes == b->lora_bytes &&
           memcmp(a->tokens, b->tokens, wf_kv_block_bytes(a) - sizeof *a) == 0;
}

uint64_t wf_kv_hash_number(const uint8_t *hash, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = bytes > 8 ? bytes - 8 : 0; i < bytes; i++)
        number = number << 8 | hash[i];
    return number;
}

const char *wf_kv_medium_name(enum wf_kv_medium medium)
{
    static const char *const names[] = {
        [WF_KV_GPU] = "GPU", [WF_KV_CPU] = "CPU", [WF_KV_STORAGE] = "STORAGE"};
    return medium < sizeof names / sizeof names[0] ? names[medium] : NULL;
}

/* ------------------------------------------------------------------------------------- writing */

static uint8_t *more(struct wf_kv_bytes *out, size_t bytes)
{
    if (!out->failed && bytes > out->capacity - out->bytes) {
        size_t capacity = 2 * out->capacity + bytes + 256;
        uint8_t *grown = realloc(out->data, capacity);
        out->failed = !grown;
        if (grown) {
            out->data = grown;
            out->capacity = capacity;
        }
    }
    if (out->failed)
        return NULL;
    out->bytes += bytes;
    return out->data + out->bytes - bytes;
}

/* A byte that says what it is, and a number of `width` bytes, most significant first. */
static void head(struct wf_kv_bytes *out, uint8_t what, uint64_t number, size_t width)
{
    uint8_t *at = more(out, 1 + width);
    if (!at)
        return;
    *at = what;
    for (size_t i = width; i > 0; i--, number >>= 8)
        at[i] = (uint8_t)number;
}

static void write_nil(struct wf_kv_bytes *out)
{
    head(out, 0xc0, 0, 0);
}

static void write_number(struct wf_kv_bytes *out, uint64_t number)
{
    if (number < 128)
        head(out, (uint8_t)number, 0, 0);
    else if (number <= UINT8_MAX)
        head(out, 0xcc, number, 1);
    else if (number <= UINT16_MAX)
        head(out, 0xcd, number, 2);
    else if (number <= UINT32_MAX)
        head(out, 0xce, number, 4);
    else
        head(out, 0xcf, number, 8);
}

static void write_array(struct wf_kv_bytes *out, uint64_t count)
{
    if (count < 16)
        head(out, (uint8_t)(0x90 | count), 0, 0);
    else if (count <= UINT16_MAX)
        head(out, 0xdc, count, 2);
    else
        head(out, 0xdd, count, 4);
}

/* `most`: fields that it has in vLLM, whose encoder chooses the head by these. */
static void write_map(struct wf_kv_bytes *out, uint8_t count, uint8_t most)
{
    if (most < 16)
        head(out, (uint8_t)(0x80 | count), 0, 0);
    else
        head(out, 0xde, count, 2);
}

static void append(struct wf_kv_bytes *out, const void *bytes, size_t count)
{
    uint8_t *at = more(out, count);
    if (at && count)
        memcpy(at, bytes, count);
}

static void write_text(struct wf_kv_bytes *out, const char *text, size_t bytes)
{
    if (bytes < 32)
        head(out, (uint8_t)(0xa0 | bytes), 0, 0);
    else
        head(out, 0xd9, bytes, 1); /* ours have less than 256 */
    append(out, text, bytes);
}

static void write_hash(struct wf_kv_bytes *out, const struct wf_kv_style *style,
                       const uint8_t *hash, size_t bytes)
{
    if (style->numbers) {
        write_number(out, wf_kv_hash_number(hash, bytes));
        return;
    }
    head(out, 0xc4, bytes, 1);
    append(out, hash, bytes);
}

/* ------------------------------------------------------------------------------------- batches */

/* Can what is said last be told together with what is said now? */
static bool goes_on(const struct wf_kv_said *last, const struct wf_kv_said *now)
{
    if (last->kind != now->kind || last->medium != now->medium || now->kind == WF_KV_CLEARED)
        return false;
    if (now->kind == WF_KV_REMOVED)
        return true;
    const struct wf_kv_block *a = last->block, *b = now->block;
    return a->token_count == b->token_count && a->lora_bytes == b->lora_bytes &&
           a->hash_bytes == b->parent_bytes &&
           memcmp(wf_kv_block_hash(a), wf_kv_block_parent(b), a->hash_bytes) == 0 &&
           memcmp(wf_kv_block_lora(a), wf_kv_block_lora(b), a->lora_bytes) == 0;
}

static size_t run_of(const struct wf_kv_said *said, size_t count)
{
    size_t run = 1;
    while (run < count && run < WF_KV_HASHES_MAX && goes_on(&said[run - 1], &said[run]))
        run++;
    return run;
}

static void write_name(struct wf_kv_bytes *out, const struct wf_kv_style *style, const char *name)
{
    if (!style->arrays)
        write_text(out, name, strlen(name));
}

static void write_hashes(struct wf_kv_bytes *out, const struct wf_kv_style *style,
                         const struct wf_kv_said *said, size_t run)
{
    write_name(out, style, "block_hashes");
    write_array(out, run);
    for (size_t i = 0; i < run; i++)
        write_hash(out, style, wf_kv_block_hash(said[i].block), said[i].block->hash_bytes);
}

static void write_medium(struct wf_kv_bytes *out, const struct wf_kv_style *style,
                         enum wf_kv_medium medium)
{
    const char *name = wf_kv_medium_name(medium);
    write_name(out, style, "medium");
    if (name)
        write_text(out, name, strlen(name));
    else
        write_nil(out);
}

static void write_stored(struct wf_kv_bytes *out, const struct wf_kv_style *style,
                         const struct wf_kv_said *said, size_t run)
{
    const struct wf_kv_block *first = said->block;
    write_hashes(out, style, said, run);
    write_name(out, style, "parent_block_hash");
    if (first->parent_bytes)
        write_hash(out, style, wf_kv_block_parent(first), first->parent_bytes);
    else
        write_nil(out);
    write_name(out, style, "token_ids");
    write_array(out, run * first->token_count);
    for (size_t i = 0; i < run; i++)
        for (uint32_t t = 0; t < first->token_count; t++)
            write_number(out, said[i].block->tokens[t]);
    write_name(out, style, "block_size");
    write_number(out, first->token_count);
    write_name(out, style, "lora_id");
    write_nil(out);
    write_medium(out, style, said->medium);
    write_name(out, style, "lora_name");
    if (first->lora_bytes)
        write_text(out, wf_kv_block_lora(first), first->lora_bytes);
    else
        write_nil(out);
}

static void write_event(struct wf_kv_bytes *out, const struct wf_kv_style *style,
                        const struct wf_kv_said *said, size_t run)
{
    static const struct {
        const char *name;
        uint8_t fields, most;
    } kinds[] = {[WF_KV_STORED] = {"BlockStored", 8, 16},
                 [WF_KV_REMOVED] = {"BlockRemoved", 3, 6},
                 [WF_KV_CLEARED] = {"AllBlocksCleared", 1, 1}};
    if (style->arrays)
        write_array(out, kinds[said->kind].fields);
    else
        write_map(out, kinds[said->kind].fields, kinds[said->kind].most);
    write_name(out, style, "type");
    write_text(out, kinds[said->kind].name, strlen(kinds[said->kind].name));
    if (said->kind == WF_KV_STORED) {
        write_stored(out, style, said, run);
    } else if (said->kind == WF_KV_REMOVED) {
        write_hashes(out, style, said, run);
        write_medium(out, style, said->medium);
    }
}

enum weft_status wf_kv_encode(const struct wf_kv_style *style, double ts,
                              const struct wf_kv_said *said, size_t count, struct wf_kv_bytes *out)
{
    uint64_t events = 0, bits;
    for (size_t i = 0; i < count; events++)
        i += run_of(said + i, count - i);
    memcpy(&bits, &ts, sizeof bits);
    write_array(out, 3);
    head(out, 0xcb, bits, 8);
    write_array(out, events);
    for (size_t i = 0, run; i < count && !out->failed; i += run) {
        run = run_of(said + i, count - i);
        write_event(out, style, said + i, run);
    }
    write_number(out, style->rank);
    return out->failed ? wf_fail(WEFT_E_NO_MEMORY, "no memory for a batch of KV events") : WEFT_OK;
}
