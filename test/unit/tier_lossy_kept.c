/* SPDX-License-Identifier: Apache-2.0
 *
 * Lossy qualities on a tier that codes, once they are there: the quality is told everywhere and
 * outlives the node; a profile that is not here loses nothing; a frame moves as it is stored; and
 * what was damaged is told, never handed out.
 */
#include "lossy_world.h"

static void reopen(struct world *w)
{
    w->ops->close(w->tier);
    w->tier = NULL;
    open_tier(w);
}

/* Its frame, to room 1; *out is what a write of it takes. */
static void get_stored(struct world *w, const struct wf_tier_block *block,
                       struct wf_tier_request *out)
{
    struct wf_tier_block told;
    assert_true(w->ops->find(w->tier, block->key, &told));
    *out = (struct wf_tier_request){.op = WF_TIER_READ,
                                    .block = *block,
                                    .data = room_at(w, 1),
                                    .as_stored = true};
    out->block.bytes = told.stored_bytes;
    assert_int_equal(outcome(w->ops, w->tier, out), WEFT_OK);
    assert_int_equal(out->bytes, told.stored_bytes);
    assert_int_equal(out->block.plain_bytes, BLOCK);
    assert_int_equal(out->block.plain_quality, told.plain_quality);
    out->op = WF_TIER_WRITE;
}

static void no_profile_loses_no_block(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_TRANSPARENT);
    struct wf_tier_block block = block_of(1, PLANE);
    struct wf_tier_request stored;
    char id[20];
    uint8_t *payload = payload_at(w, 0);
    fill(w, payload);
    expect(w, &plan, payload);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    snprintf(id, sizeof id, "%016llx", (unsigned long long)profile->id);
    for (uint32_t i = 0; i < 4; i++) {
        atomic_store(&here, i % 2 ? shallow : NULL); /* none, or another than was asked for */
        wf_fail_keep("%s", "");
        assert_int_equal(get(w, &block, i, i > 0), WEFT_E_NOT_FOUND); /* all of it, or a part */
        assert_non_null(strstr(wf_last_error(), id));
        assert_quality(w, &block, WEFT_TRANSPARENT);
        get_stored(w, &block, &stored); /* and its bytes are whole, as a scrub may see */
    }
    assert_int_equal(stats_of(w).corrupt + stats_of(w).errors, 0);
    atomic_store(&here, profile);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), w->expected, BLOCK);
    assert_int_equal(stats_of(w).coded.all.blocks, 1);
}

struct told {
    const struct wf_tier_block *blocks;
    uint32_t seen;
};

static void tell(void *context, const struct wf_tier_block *block)
{
    struct told *told = context;
    for (uint32_t i = 0; i < 3; i++) {
        if (memcmp(block->key, told->blocks[i].key, 32) != 0)
            continue;
        assert_int_equal(block->plain_quality, i ? i + 1 : 0);
        assert_int_equal(block->bytes, BLOCK);
        told->seen |= 1u << i;
    }
}

/* By find and each, before and after the tier was closed. */
static void quality_is_kept(void **state)
{
    struct world *w = *state;
    struct wf_tier_block blocks[3];
    uint8_t *payload = payload_at(w, 0);
    fill(w, payload);
    for (uint32_t i = 0; i < 3; i++) {
        struct wf_coded_plan plan = plan_of(i ? &wf_codec_transform : NULL, (uint8_t)(i + 1));
        blocks[i] = block_of(i + 1, PLANE);
        assert_int_equal(put(w, &blocks[i], &plan, payload), WEFT_OK);
    }
    for (uint32_t round = 0; round <= w->medium->lasts; round++) {
        struct told told = {.blocks = blocks};
        if (round) {
            struct wf_tier_request flush = {.op = WF_TIER_FLUSH};
            assert_int_equal(outcome(w->ops, w->tier, &flush), WEFT_OK);
            reopen(w);
        }
        w->ops->each(w->tier, tell, &told);
        assert_int_equal(told.seen, 7);
        for (uint32_t i = 0; i < 3; i++) {
            assert_quality(w, &blocks[i], i ? i + 1 : 0);
            assert_int_equal(get(w, &blocks[i], 0, 0), WEFT_OK);
            struct wf_coded_plan plan = plan_of(&wf_codec_transform, (uint8_t)(i + 1));
            expect(w, &plan, payload);
            assert_memory_equal(room_at(w, 0), i ? w->expected : payload, BLOCK);
        }
    }
}

/* A lossy block never goes for an exact one: what the medium says of it is what its frame says. */
static void qualities_agree_or_it_is_corrupt(void **state)
{
    struct world *w = *state;
    struct wf_tier_request stored;
    uint8_t *payload = payload_at(w, 0);
    fill(w, payload);
    for (uint32_t is = 0; is < 4; is++) {
        struct wf_coded_plan plan = plan_of(is > 1 ? &wf_codec_transform : NULL, (uint8_t)is);
        struct wf_tier_block block = block_of(100 + is, PLANE);
        assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
        get_stored(w, &block, &stored);
        for (uint32_t says = 0; says < 5; says++) {
            uint32_t right = is > 1 ? is : 0;
            block = block_of(10 * is + says + 1, PLANE);
            memcpy(stored.block.key, block.key, 32);
            stored.block.plain_quality = says;
            stored.op = WF_TIER_WRITE;
            assert_int_equal(outcome(w->ops, w->tier, &stored), WEFT_OK);
            assert_quality(w, &block, says);
            assert_int_equal(get(w, &block, 0, 0), says == right ? WEFT_OK : WEFT_E_CORRUPT);
            assert_int_equal(w->ops->remove(w->tier, block.key),
                             says == right ? WEFT_OK : WEFT_MISS);
        }
    }
}

/* From this tier to one in memory: neither needs the profile for that. */
static void a_frame_moves_as_it_is(void **state)
{
    struct world *w = *state;
    struct world other = *w;
    struct wf_tier_request stored;
    uint8_t *payload = payload_at(w, 0);
    static const struct medium memory = {"other", &wf_tier_dram, 1, false};
    other.medium = &memory;
    other.coded.ops = memory.behind;
    other.coded.codec = NULL; /* it reads all the same */
    other.ops = wf_tier_coded_over(memory.behind);
    other.tier = NULL;
    snprintf(other.path, sizeof other.path, "other");
    open_tier(&other);
    fill(w, payload);
    for (uint32_t quality = WEFT_LOSSLESS; quality <= WEFT_ECONOMY; quality++) {
        bool lossy = quality > WEFT_LOSSLESS;
        struct wf_coded_plan plan = plan_of(lossy ? &wf_codec_transform : NULL, (uint8_t)quality);
        struct wf_tier_block block = block_of(quality, 3000);
        plan.position = 128;
        assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
        atomic_store(&here, NULL);
        get_stored(w, &block, &stored);
        assert_int_equal(outcome(other.ops, other.tier, &stored), WEFT_OK);
        assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_OK);
        assert_quality(&other, &block, lossy ? quality : 0);
        atomic_store(&here, profile);
        plan.codec = &wf_codec_transform;
        plan.profile = profile;
        expect(w, &plan, payload);
        assert_int_equal(get(&other, &block, 0, 0), WEFT_OK);
        assert_memory_equal(room_at(w, 0), lossy ? w->expected : payload, BLOCK);
    }
    assert_int_equal(stats_of(&other).coded.all.blocks, 3);
    other.ops->close(other.tier);
}

/* Bytes that are what their checksum on the medium says and were wrong before: of any place. */
static void damage_is_told(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    struct wf_tier_block block = block_of(1, PLANE);
    struct wf_tier_request stored;
    uint8_t *payload = payload_at(w, 0);
    uint64_t tried = 0;
    fill(w, payload);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    get_stored(w, &block, &stored);
    uint8_t *frame = stored.data;
    for (uint64_t at = 0; at < stored.block.bytes; at += at < 200 ? 1 : 61) {
        block = block_of(2 + at, PLANE);
        memcpy(stored.block.key, block.key, 32);
        uint8_t bit = (uint8_t)(1u << random_below(&w->random, 8));
        frame[at] ^= bit;
        stored.op = WF_TIER_WRITE;
        assert_int_equal(outcome(w->ops, w->tier, &stored), WEFT_OK);
        assert_int_equal(get(w, &block, 0, 0), WEFT_E_CORRUPT);
        assert_int_equal(get(w, &block, 0, 0), WEFT_MISS);
        frame[at] ^= bit;
        tried++;
    }
    assert_int_equal(stats_of(w).corrupt, tried);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(no_profile_loses_no_block),
        TEST(quality_is_kept),
        TEST(qualities_agree_or_it_is_corrupt),
        TEST(a_frame_moves_as_it_is),
        TEST(damage_is_told),
    };
    return on_all_media("tier_lossy_kept", tests, sizeof tests / sizeof tests[0]);
}
