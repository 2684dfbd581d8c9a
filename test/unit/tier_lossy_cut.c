/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies on a tier encoded is given as cuts of its frame (codec/frame_cut.h) to who decodes such
 * elsewhere: any range, on each medium, without the profile; and a cut that was changed decodes to
 * the range or to nothing, and writes nowhere else.
 */
#include "lossy_world.h"

#include "codec/frame_cut.h"

#define PART 1024u /* a fourth of a plane: most ranges begin and end within one */
#define PARTS (BLOCK / PART)
#define GUARD 64u

static enum weft_status get_cut(struct world *w, const struct wf_tier_block *block, uint32_t first,
                                uint32_t count, uint64_t profiles, struct wf_tier_request *out)
{
    *out = (struct wf_tier_request){.op = WF_TIER_READ,
                                    .block = *block,
                                    .data = room_at(w, 0),
                                    .first_part = first,
                                    .part_count = count,
                                    .as_cut = true,
                                    .cut_profiles = profiles};
    return outcome(w->ops, w->tier, out);
}

/* As who has been sent a cut: it lies at the end of the range's memory. */
static enum weft_status decode(const struct world *w, const uint8_t *cut_bytes, uint64_t bytes,
                               uint64_t from, uint64_t to, const struct wf_profile *with,
                               uint8_t *range)
{
    static uint8_t lead[8192], aside[2 * PLANE];
    struct wf_frame frame;
    struct wf_frame_cut cut;
    uint64_t lead_bytes = wf_frame_lead(cut_bytes, bytes);
    if (lead_bytes > bytes || lead_bytes > sizeof lead)
        return WEFT_E_CORRUPT;
    memcpy(lead, cut_bytes, lead_bytes);
    if (wf_frame_open(lead, lead_bytes, &frame) != WEFT_OK || frame.layout.bytes != BLOCK ||
        !wf_frame_cut_of(&frame, from, to, &cut) || cut.bytes != bytes)
        return WEFT_E_CORRUPT;
    memmove(range + (to - from) - bytes, cut_bytes, bytes);
    return wf_frame_cut_decode(&frame, &cut, with, range, aside, w->scratch);
}

static void check_range(struct world *w, const struct wf_tier_block *block, uint32_t first,
                        uint32_t count, uint32_t quality, uint32_t *cuts)
{
    static uint8_t range[BLOCK + 2 * GUARD];
    uint64_t from = (uint64_t)first * PART, bytes = (uint64_t)count * PART;
    struct wf_tier_request r;
    memset(range, 0xa5, sizeof range);
    assert_int_equal(get_cut(w, block, first, count, UINT64_MAX, &r), WEFT_OK);
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.lost, quality);
    if (!r.cut_bytes) {
        assert_memory_equal(r.data, w->expected + from, bytes);
        return;
    }
    ++*cuts;
    assert_true(r.cut_bytes < bytes);
    assert_true(!r.profile == !quality);
    assert_int_equal(decode(w, r.data, r.cut_bytes, from, from + bytes, quality ? profile : NULL,
                            range + GUARD),
                     WEFT_OK);
    assert_memory_equal(range + GUARD, w->expected + from, bytes);
    for (uint32_t i = 0; i < GUARD; i++)
        assert_true(range[i] == 0xa5 && range[GUARD + bytes + i] == 0xa5);
}

static void any_range_is_given_as_a_cut(void **state)
{
    struct world *w = *state;
    for (uint32_t lossy = 0; lossy < 2; lossy++) {
        const struct wf_codec *codec = lossy ? &wf_codec_transform : &wf_codec_lossless;
        struct wf_coded_plan plan = plan_of(codec, lossy ? WEFT_ECONOMY : WEFT_LOSSLESS);
        struct wf_tier_block block = block_of(1 + lossy, PART);
        uint32_t cuts = 0, quality = lossy ? WEFT_ECONOMY : 0;
        plan.position = 256;
        fill(w, payload_at(w, 0));
        expect(w, &plan, payload_at(w, 0));
        assert_int_equal(put(w, &block, &plan, payload_at(w, 0)), WEFT_OK);
        for (uint32_t first = 0; first < PARTS; first++)
            for (uint32_t count = 1; first + count <= PARTS; count += 1 + first % 3)
                check_range(w, &block, first, count, quality, &cuts);
        print_message("%s: %u cuts, %llu bytes of %u\n", codec->name, cuts,
                      (unsigned long long)w->frame_bytes, BLOCK);
        assert_true(cuts > 50);
        check_range(w, &block, 0, PARTS, quality, &cuts);
    }
}

/* Without the profile nothing can be decoded here: who has it decodes it there. */
static void whose_profile_is_not_here_goes_as_it_lies(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_TRANSPARENT);
    struct wf_tier_block block = block_of(1, PART);
    struct wf_tier_request r;
    uint32_t cuts = 0;
    uint64_t bit = 1ull << (profile->id % 64);
    fill(w, payload_at(w, 0));
    expect(w, &plan, payload_at(w, 0));
    assert_int_equal(put(w, &block, &plan, payload_at(w, 0)), WEFT_OK);
    assert_int_equal(get_cut(w, &block, 0, PARTS, ~bit, &r), WEFT_OK); /* who asks has it not */
    assert_int_equal(r.cut_bytes, 0);
    assert_memory_equal(r.data, w->expected, BLOCK);
    atomic_store(&here, NULL);
    assert_int_equal(get(w, &block, 0, 0), WEFT_E_NOT_FOUND);
    assert_int_equal(get_cut(w, &block, 0, PARTS, ~bit, &r), WEFT_E_NOT_FOUND);
    assert_int_equal(get_cut(w, &block, 0, PARTS, bit, &r), WEFT_OK);
    assert_true(r.cut_bytes > 0 && r.profile == profile->id);
    check_range(w, &block, 3, 13, WEFT_TRANSPARENT, &cuts);
    assert_int_equal(cuts, 1);
    assert_int_equal(stats_of(w).corrupt, 0);
}

static void what_is_no_frame_is_given_as_it_is(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, PART);
    struct wf_tier_request r;
    fill(w, payload_at(w, 0));
    assert_int_equal(put(w, &block, NULL, payload_at(w, 0)), WEFT_OK);
    assert_int_equal(get_cut(w, &block, 2, 9, UINT64_MAX, &r), WEFT_OK);
    assert_true(r.cut_bytes == 0 && r.bytes == 9 * PART);
    assert_memory_equal(r.data, payload_at(w, 0) + 2 * PART, 9 * PART);
}

static void a_cut_that_was_changed_gives_the_range_or_nothing(void **state)
{
    struct world *w = *state;
    static uint8_t range[BLOCK + 2 * GUARD], cut[BLOCK];
    struct wf_tier_request r;
    uint32_t right = 0;
    for (uint32_t round = 0; round < 1200; round++) {
        bool lossy = round % 2;
        if (round < 2) {
            struct wf_coded_plan plan = plan_of(lossy ? &wf_codec_transform : &wf_codec_lossless,
                                                lossy ? WEFT_ECONOMY : WEFT_LOSSLESS);
            fill(w, payload_at(w, round));
            struct wf_tier_block block = block_of(1 + round, PART);
            assert_int_equal(put(w, &block, &plan, payload_at(w, round)), WEFT_OK);
        }
        struct wf_tier_block block = block_of(1 + lossy, PART);
        uint32_t first = random_below(&w->random, PARTS - 8);
        uint32_t count = 8 + random_below(&w->random, PARTS - 8 - first + 1);
        uint64_t from = (uint64_t)first * PART, to = from + (uint64_t)count * PART;
        assert_int_equal(get(w, &block, first, count), WEFT_OK);
        memcpy(w->expected, room_at(w, 0), to - from);
        assert_int_equal(get_cut(w, &block, first, count, UINT64_MAX, &r), WEFT_OK);
        if (!r.cut_bytes)
            continue;
        memcpy(cut, r.data, r.cut_bytes);
        uint32_t flips = random_below(&w->random, 4);
        for (uint32_t k = 0; k < flips; k++)
            cut[random_below(&w->random, (uint32_t)(k % 2 ? 128 : r.cut_bytes))] ^=
                (uint8_t)(1u << random_below(&w->random, 8));
        memset(range, 0xa5, sizeof range);
        enum weft_status status = decode(w, cut, r.cut_bytes, from, to, profile, range + GUARD);
        right += status == WEFT_OK;
        if (status == WEFT_OK)
            assert_memory_equal(range + GUARD, w->expected, to - from);
        else
            assert_int_equal(status, WEFT_E_CORRUPT);
        if (flips == 0)
            assert_int_equal(status, WEFT_OK);
        for (uint32_t k = 0; k < GUARD; k++)
            assert_true(range[k] == 0xa5 && range[GUARD + (to - from) + k] == 0xa5);
    }
    assert_in_range(right, 50, 600);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(any_range_is_given_as_a_cut),
        TEST(whose_profile_is_not_here_goes_as_it_lies),
        TEST(what_is_no_frame_is_given_as_it_is),
        TEST(a_cut_that_was_changed_gives_the_range_or_nothing),
    };
    return on_all_media("tier_lossy_cut", tests, sizeof tests / sizeof tests[0]);
}
