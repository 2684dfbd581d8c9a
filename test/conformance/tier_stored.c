/* SPDX-License-Identifier: Apache-2.0
 *
 * Payloads that somebody has encoded: a tier keeps what they decode to by its word, and one that
 * codes moves them as they are, and does not try in vain.
 */
#include "tier_world.h"

/* What somebody made of a payload before it came here, the tier keeps by its word, and gives back
 * with it; a tier that codes gives out what it decodes to. */
void test_what_it_decodes_to_is_kept(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 20000, 4096), told, plain = block;
    block.plain_bytes = 50000;
    block.plain_part_bytes = 777;
    block.plain_quality = 3;
    if (w->backend->coded) {
        plain.bytes = block.plain_bytes;
        plain.part_bytes = block.plain_part_bytes;
        plain.plain_quality = block.plain_quality;
    } else {
        plain = block;
    }
    struct wf_tier_request *r = write_request(w, 0, &block);
    assert_refused(w, r); /* nobody takes a frame for a payload */
    r->as_stored = true;
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_true(w->ops->find(w->tier, block.key, &told));
    assert_found(&told, &plain);
    assert_int_equal(told.stored_bytes, w->backend->coded ? block.bytes : 0);
    if (w->backend->coded) { /* it is no frame, whoever said so */
        assert_int_equal(outcome(w, read_request(w, 0, &plain, 0, 1)), WEFT_E_CORRUPT);
        assert_absent(w, &plain);
        return;
    }
    assert_whole(w, &block);
    if (w->forgets)
        return;
    assert_int_equal(flush(w), WEFT_OK);
    world_crash(w);
    assert_whole(w, &block);
    world_reopen(w);
    assert_whole(w, &block);
    block.plain_part_bytes = 1; /* more parts than a block has */
    block.key[5] ^= 1;
    r = write_request(w, 0, &block);
    r->as_stored = true;
    assert_refused(w, r);
}

static struct wf_tier_request *stored_request(struct world *w, uint32_t slot,
                                              const struct wf_tier_block *block, uint64_t room)
{
    struct wf_tier_request *r = read_request(w, slot, block, 0, 0);
    r->as_stored = true;
    r->block.bytes = room;
    return r;
}

/* Read as it is stored and written so again, a block is the same, whoever encoded it. */
void test_what_is_stored_can_be_moved(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 16 * 6000 - 1000, 6000), told;
    assert_int_equal(outcome(w, stored_request(w, 0, &block, SLOT_BYTES)), WEFT_MISS);
    assert_int_equal(write_block(w, &block), WEFT_OK);
    assert_true(w->ops->find(w->tier, block.key, &told));
    uint64_t stored = told.stored_bytes ? told.stored_bytes : block.bytes;
    assert_int_equal(stored < block.bytes, shrinks(w));
    assert_refused(w, stored_request(w, 1, &block, stored - 1));
    struct wf_tier_request *r = stored_request(w, 1, &block, stored);
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_int_equal(r->bytes, stored);
    if (!w->backend->coded)
        r->block = told;
    assert_int_equal(r->block.bytes, stored);
    assert_int_equal(r->block.plain_bytes, shrinks(w) ? block.bytes : 0);
    assert_int_equal(r->block.plain_part_bytes, shrinks(w) ? block.part_bytes : 0);
    assert_int_equal(!memcmp(r->data, "WFKR", 4), shrinks(w));
    for (uint64_t at = stored; at < SLOT_BYTES; at++)
        assert_int_equal(((const uint8_t *)r->data)[at], GUARD);

    struct wf_tier_request *part = stored_request(w, 2, &block, r->block.part_bytes);
    part->first_part = part->part_count = 1;
    assert_int_equal(outcome(w, part), WEFT_OK);
    assert_memory_equal(part->data, (uint8_t *)r->data + r->block.part_bytes, part->bytes);
    assert_refused(w, stored_request(w, 2, &block, r->block.part_bytes));
    uint64_t last = (stored - 1) / r->block.part_bytes; /* shorter than the others */
    part = stored_request(w, 2, &block, stored - last * r->block.part_bytes);
    part->first_part = (uint32_t)last;
    part->part_count = 1;
    assert_int_equal(outcome(w, part), WEFT_OK);
    assert_int_equal(part->bytes, stored - last * r->block.part_bytes);

    assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_OK);
    r->op = WF_TIER_WRITE;
    memcpy(r->block.format, block.format, sizeof r->block.format);
    r->block.depth = block.depth;
    r->block.stored_bytes = 0;
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_whole(w, &block);
    struct wf_tier_block other = block_of(2, 0, 16 * 6000, 6000); /* a lead of which is not kept */
    assert_int_equal(write_block(w, &other), WEFT_OK);
    assert_whole(w, &other);
    if (w->forgets)
        return;
    assert_int_equal(flush(w), WEFT_OK);
    world_reopen(w);
    assert_whole(w, &block);
}

/* What does not become smaller is not tried each time, and what does is, again, soon after. */
void test_a_codec_is_not_tried_in_vain(void **state)
{
    struct world *w = *state;
    enum { NOISE = 40, MORE = 20 };
    if (!shrinks(w))
        skip();
    for (uint32_t i = 0; i < NOISE + MORE; i++) {
        struct wf_tier_block block = block_of(i + 1, i, 20000, 10000);
        struct wf_tier_request *r = write_request(w, 0, &block);
        uint8_t *data = r->data;
        for (uint64_t at = 0; i < NOISE && at < block.bytes; at++)
            data[at] = (uint8_t)random_next(&w->random);
        assert_int_equal(outcome(w, r), WEFT_OK);
        if (i == NOISE - 1) {
            assert_int_equal(stats_of(w).coded.all.encoded, 0);
            assert_int_equal(stats_of(w).coded.as_is, NOISE);
            assert_int_equal(stats_of(w).coded.all.tried_bytes, (8 + 2) * block.bytes);
        }
    }
    assert_in_range(stats_of(w).coded.all.encoded, MORE - 16, MORE);
}
