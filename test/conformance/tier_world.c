/* SPDX-License-Identifier: Apache-2.0 */
#include "tier_world.h"

int world_setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->backend = *state; /* its initial one */
    w->ops = w->backend->ops;
    w->random = random_seeded(w->backend->name);
    w->memory = aligned_alloc(WF_TIER_ALIGN, (size_t)SLOTS * SLOT_BYTES);
    assert_non_null(w->memory);
    w->backend->prepare(w->path, sizeof w->path);
    w->options = (struct wf_tier_options){
        .path = w->path,
        .capacity_bytes = w->backend->capacity_bytes,
        .queue_depth = 16,
        .seed = random_next(&w->random),
        .buffers = w->memory,
        .buffers_bytes = (size_t)SLOTS * SLOT_BYTES,
        .coded = w->backend->coded,
    };
    *state = w;
    enum weft_status status = w->ops->open(&w->options, &w->tier);
    if (status != WEFT_OK)
        print_error("open: %s\n", wf_last_error());
    else
        w->forgets = stats_of(w).forgets;
    return status != WEFT_OK;
}

int world_teardown(void **state)
{
    struct world *w = *state;
    if (w->tier)
        w->ops->close(w->tier);
    w->backend->dispose(w->path);
    free(w->memory);
    free(w);
    return 0;
}

void world_reopen(struct world *w)
{
    if (w->tier)
        w->ops->close(w->tier);
    w->tier = NULL;
    w->options.seed = random_next(&w->random);
    assert_int_equal(w->ops->open(&w->options, &w->tier), WEFT_OK);
}

void world_crash(struct world *w)
{
    if (w->backend->crash) {
        w->backend->crash(w->tier);
        w->tier = NULL;
    }
    world_reopen(w);
}

struct wf_tier_block block_of(uint64_t number, uint64_t parent, uint64_t bytes, uint32_t part_bytes)
{
    struct wf_tier_block block = {.bytes = bytes, .part_bytes = part_bytes};
    random_key(number, block.key);
    if (parent) {
        random_key(parent, block.parent);
        block.depth = (uint32_t)(number & 0xffff);
    }
    random_key(number ^ 0xf0f0, block.format);
    return block;
}

/* Bytes `from` to `end` of the payload; each follows from the key and its place alone.  As bf16
 * they are numbers of like size, as KV is, so that a tier that codes has something to do.  Eight at
 * a time, and compared by memcmp: under a sanitizer single bytes take minutes. */
static void payload_bytes(const uint8_t key[32], uint64_t from, uint64_t end, uint8_t *out)
{
    uint64_t parts[4];
    memcpy(parts, key, sizeof parts);
    uint64_t base = parts[0] ^ parts[1] * 3 ^ parts[2] * 5 ^ parts[3] * 7;
    for (uint64_t at = from; at < end;) {
        struct random_source r = {base + at / 8 * RANDOM_STEP};
        uint64_t word = (random_next(&r) & UINT64_C(0x80ff80ff80ff80ff)) |
                        UINT64_C(0x3f003f003f003f00);
        uint64_t skip = at % 8;
        uint64_t bytes = end - at < 8 - skip ? end - at : 8 - skip;
        memcpy(out, (const uint8_t *)&word + skip, bytes);
        out += bytes;
        at += bytes;
    }
}

static struct wf_tier_request *clear_request(struct world *w, uint32_t slot, enum wf_tier_op op)
{
    assert_true(slot < SLOTS);
    struct wf_tier_request *r = &w->requests[slot];
    *r = (struct wf_tier_request){.op = op, .data = w->memory + (size_t)slot * SLOT_BYTES};
    return r;
}

/* As KV: so many layers that its parts are planes, where they can be. */
static bool layout_of(const struct wf_tier_block *block, struct wf_layout *out)
{
    uint32_t part = block->part_bytes ? block->part_bytes : 1;
    uint32_t layers = (uint32_t)(block->bytes / part / 2);
    if (layers && block->bytes == (uint64_t)layers * 2 * part && part % 2 == 0)
        return wf_layout_of(WEFT_BF16, layers, part / 2, 1, 1, out);
    return wf_layout_opaque(WEFT_BF16, block->bytes, out);
}

struct wf_tier_request *write_request(struct world *w, uint32_t slot,
                                      const struct wf_tier_block *block)
{
    struct wf_tier_request *r = clear_request(w, slot, WF_TIER_WRITE);
    r->block = *block;
    w->plans[slot] = (struct wf_coded_plan){0};
    r->plan = layout_of(block, &w->plans[slot].layout) ? &w->plans[slot] : NULL;
    payload_bytes(block->key, 0, block->bytes, r->data);
    return r;
}

struct wf_tier_request *read_request(struct world *w, uint32_t slot,
                                     const struct wf_tier_block *block, uint32_t first,
                                     uint32_t count)
{
    struct wf_tier_request *r = clear_request(w, slot, WF_TIER_READ);
    memcpy(r->block.key, block->key, sizeof r->block.key);
    r->first_part = first;
    r->part_count = count;
    memset(r->data, GUARD, SLOT_BYTES);
    return r;
}

struct wf_tier_request *flush_request(struct world *w, uint32_t slot)
{
    return clear_request(w, slot, WF_TIER_FLUSH);
}

struct wf_tier_request *reap_one(struct world *w)
{
    struct wf_tier_request *r = NULL;
    for (int tries = 0; tries < 100; tries++) {
        uint32_t count = w->ops->reap(w->tier, &r, 1, 100);
        assert_in_range(count, 0, 1);
        if (count)
            return r;
    }
    fail_msg("nothing was reaped for 10 s");
    return NULL;
}

enum weft_status outcome(struct world *w, struct wf_tier_request *r)
{
    enum weft_status status = w->ops->submit(w->tier, r);
    if (status != WEFT_OK)
        return status;
    assert_ptr_equal(reap_one(w), r);
    return r->status;
}

enum weft_status write_block(struct world *w, const struct wf_tier_block *block)
{
    struct wf_tier_request *r = write_request(w, 0, block);
    enum weft_status status = outcome(w, r);
    if (status == WEFT_OK)
        assert_int_equal(r->bytes, block->bytes);
    return status;
}

enum weft_status flush(struct world *w)
{
    enum weft_status status = outcome(w, flush_request(w, 0));
    if (!w->forgets)
        return status;
    assert_int_equal(status, WEFT_E_INVALID);
    return WEFT_OK;
}

void assert_read_right(const struct wf_tier_request *r, const struct wf_tier_block *block)
{
    static uint8_t right[SLOT_BYTES];
    uint64_t from = (uint64_t)r->first_part * block->part_bytes;
    uint64_t end = from + (uint64_t)r->part_count * block->part_bytes;
    if (r->part_count == 0 || end > block->bytes)
        end = block->bytes;
    assert_int_equal(r->bytes, end - from);
    assert_true(end - from <= SLOT_BYTES);
    memset(right, GUARD, sizeof right);
    payload_bytes(block->key, from, end, right);
    const uint8_t *data = r->data;
    uint64_t at = 0;
    if (memcmp(data, right, SLOT_BYTES) == 0)
        return;
    while (data[at] == right[at])
        at++;
    fail_msg("a read of %llu bytes: byte %llu is %s", (unsigned long long)(end - from),
             (unsigned long long)at, at < end - from ? "wrong" : "not the read's to write");
}

void assert_same_block(const struct wf_tier_block *a, const struct wf_tier_block *b)
{
    assert_memory_equal(a->key, b->key, sizeof a->key);
    assert_memory_equal(a->parent, b->parent, sizeof a->parent);
    assert_memory_equal(a->format, b->format, sizeof a->format);
    assert_int_equal(a->depth, b->depth);
    assert_int_equal(a->part_bytes, b->part_bytes);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->plain_bytes, b->plain_bytes);
    assert_int_equal(a->plain_part_bytes, b->plain_part_bytes);
    assert_int_equal(a->plain_quality, b->plain_quality);
}

void assert_found(const struct wf_tier_block *found, const struct wf_tier_block *block)
{
    static const uint8_t none[32];
    struct wf_tier_block told = *found;
    if (!memcmp(told.parent, none, 32))
        memcpy(told.parent, block->parent, 32);
    assert_same_block(&told, block);
}

void assert_whole(struct world *w, const struct wf_tier_block *block)
{
    struct wf_tier_block found;
    assert_true(w->ops->find(w->tier, block->key, &found));
    assert_found(&found, block);
    struct wf_tier_request *r = read_request(w, 0, block, 0, 0);
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_read_right(r, block);
}

void assert_absent(struct world *w, const struct wf_tier_block *block)
{
    struct wf_tier_block found;
    assert_false(w->ops->find(w->tier, block->key, &found));
    assert_int_equal(outcome(w, read_request(w, 0, block, 0, 0)), WEFT_MISS);
}

struct wf_tier_stats stats_of(const struct world *w)
{
    struct wf_tier_stats stats;
    memset(&stats, 0xee, sizeof stats); /* every field must be set */
    w->ops->stats(w->tier, &stats);
    return stats;
}

void assert_refused(struct world *w, struct wf_tier_request *r)
{
    wf_fail_keep("%s", "");
    assert_int_equal(w->ops->submit(w->tier, r), WEFT_E_INVALID);
    assert_true(strlen(wf_last_error()) > 20);
    struct wf_tier_request *out;
    assert_int_equal(w->ops->reap(w->tier, &out, 1, 0), 0);
}

bool shrinks(const struct world *w)
{
    return w->backend->coded && w->backend->coded->codec;
}
