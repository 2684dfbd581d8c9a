/* SPDX-License-Identifier: Apache-2.0
 *
 * Lossy qualities through a tier that codes: what is read is what the codec alone makes of a block,
 * in whole and in parts; what does not fit is exact; and what has lost something is said to.
 */
#include "lossy_world.h"

/* How much of a payload is error. */
static double error_of(const uint8_t *payload, const uint8_t *back)
{
    static float a[BLOCK / 2], b[BLOCK / 2];
    double error = 0, all = 0;
    wf_floats_of(WEFT_BF16, payload, BLOCK / 2, a);
    wf_floats_of(WEFT_BF16, back, BLOCK / 2, b);
    for (size_t i = 0; i < BLOCK / 2; i++) {
        error += (double)((a[i] - b[i]) * (a[i] - b[i]));
        all += (double)(a[i] * a[i]);
    }
    return error / all;
}

/* In whole and every range of parts, whether they are layers, planes or neither. */
static void it_is_what_the_codec_makes_of_it(void **state)
{
    struct world *w = *state;
    static const uint32_t parts[] = {BLOCK, 2 * PLANE, PLANE, 3000};
    uint64_t bytes[2][4] = {{0}};
    uint8_t *payload = payload_at(w, 0);
    for (uint32_t n = 0; n < 8; n++) {
        uint8_t quality = n % 2 ? WEFT_ECONOMY : WEFT_TRANSPARENT;
        struct wf_coded_plan plan = plan_of(&wf_codec_transform, quality);
        struct wf_tier_block block = block_of(n + 1, parts[n / 2]), told;
        fill(w, payload);
        expect(w, &plan, payload);
        assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
        assert_quality(w, &block, quality);
        assert_true(w->ops->find(w->tier, block.key, &told));
        assert_int_equal(told.stored_bytes, w->frame_bytes);
        bytes[n % 2][n / 2] = told.stored_bytes;
        double error = error_of(payload, w->expected);
        assert_true(error > 0 && error < 0.1);
        uint32_t count = (BLOCK + block.part_bytes - 1) / block.part_bytes;
        for (uint32_t first = 0; first < count; first++) {
            for (uint32_t many = 1; many <= count - first; many++) {
                uint64_t from = (uint64_t)first * block.part_bytes;
                uint64_t to = from + (uint64_t)many * block.part_bytes;
                assert_int_equal(get(w, &block, first, many), WEFT_OK);
                assert_memory_equal(room_at(w, 0), w->expected + from,
                                    (to < BLOCK ? to : BLOCK) - from);
            }
        }
    }
    for (uint32_t i = 0; i < 4; i++)
        assert_true(bytes[1][i] < bytes[0][i] && bytes[0][i] < BLOCK / 2);
    struct wf_coded_stats coded = stats_of(w).coded;
    const struct wf_coded_sum *transparent = &coded.quality[WEFT_TRANSPARENT];
    const struct wf_coded_sum *economy = &coded.quality[WEFT_ECONOMY];
    assert_int_equal(coded.all.encoded, 8);
    assert_int_equal(transparent->blocks, 4);
    assert_int_equal(economy->blocks, 4);
    assert_int_equal(coded.quality[WEFT_LOSSLESS].blocks, 0);
    assert_int_equal(transparent->plain_bytes, economy->plain_bytes);
    assert_true(economy->stored_bytes < transparent->stored_bytes);
    assert_int_equal(economy->tried_bytes, (uint64_t)4 * BLOCK);
    assert_true(economy->decoded_bytes >= (uint64_t)4 * BLOCK && economy->decode_ns > 0);
    assert_int_equal(coded.quality[WEFT_LOSSLESS].decoded_bytes, 0);
}

/* The first tokens of a sequence are exact, and keys are turned by where they stand. */
static void positions_count(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_TRANSPARENT);
    uint8_t *payload = payload_at(w, 0), *first = payload_at(w, 1);
    fill(w, payload);
    for (uint32_t n = 0; n < 3; n++) {
        struct wf_tier_block block = block_of(n + 1, PLANE);
        plan.position = n * 7777;
        expect(w, &plan, payload);
        assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
        assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
        assert_memory_equal(room_at(w, 0), w->expected, BLOCK);
        for (uint32_t p = 0; p < 2 * LAYERS; p++)
            assert_int_equal(!memcmp(room_at(w, 0) + p * PLANE, payload + p * PLANE,
                                     SINKS * ROW * 2),
                             n == 0);
        if (n == 1)
            memcpy(first, w->expected, BLOCK);
        else if (n == 2) /* keys; values do not know where they are */
            assert_true(memcmp(first, w->expected, PLANE) != 0 &&
                        !memcmp(first + PLANE, w->expected + PLANE, PLANE));
    }
}

/* What the profile or the codec does not take is exact. */
static void what_does_not_fit_is_exact(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    struct wf_tier_block block = block_of(1, PLANE), told;
    uint8_t *payload = payload_at(w, 0);
    uint64_t deep = BLOCK - 2 * PLANE;
    fill(w, payload);
    plan.profile = shallow;
    atomic_store(&here, shallow);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, WEFT_ECONOMY);
    assert_true(w->ops->find(w->tier, block.key, &told));
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0) + deep, payload + deep, 2 * PLANE);
    for (uint64_t at = 0; at < deep; at += PLANE)
        assert_memory_not_equal(room_at(w, 0) + at, payload + at, PLANE);
    expect(w, &plan, payload);
    assert_int_equal(told.stored_bytes, w->frame_bytes); /* the last layer is no larger than that */

    /* No plane fits. */
    block = block_of(2, PLANE);
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS * 2, DIM / 2, &plan.layout));
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, 0);
    assert_true(w->ops->find(w->tier, block.key, &told));
    assert_in_range(told.stored_bytes, 1, BLOCK - 4096);
    atomic_store(&here, NULL);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), payload, BLOCK);

    /* Nor does the payload, by what its frame would take. */
    atomic_store(&here, profile);
    plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    expect(w, &plan, payload);
    plan.bytes_most = w->frame_bytes;
    block = block_of(5, PLANE);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, WEFT_ECONOMY);
    plan.bytes_most--;
    block = block_of(6, PLANE);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, 0);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), payload, BLOCK);
    atomic_store(&here, NULL);

    /* Nobody knows what is in there. */
    block = block_of(3, PLANE);
    plan = plan_of(&wf_codec_int8, WEFT_TRANSPARENT);
    assert_true(wf_layout_opaque(WEFT_BF16, BLOCK, &plan.layout));
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, 0);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), payload, BLOCK);
    assert_int_equal(stats_of(w).coded.all.encoded, 5);

    /* No codec makes it smaller. */
    block = block_of(4, PLANE);
    plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS * 2, DIM / 2, &plan.layout));
    for (uint64_t i = 0; i < BLOCK; i++)
        payload[i] = (uint8_t)random_next(&w->random);
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, 0);
    assert_int_equal(stats_of(w).coded.as_is, 1);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), payload, BLOCK);
}

static void codecs_without_a_profile_need_none(void **state)
{
    struct world *w = *state;
    static const struct wf_codec *const codecs[] = {&wf_codec_int8, &wf_codec_fp8, &wf_codec_int4};
    uint8_t *payload = payload_at(w, 0);
    atomic_store(&here, NULL);
    fill(w, payload);
    for (uint32_t n = 0; n < 3; n++) {
        struct wf_coded_plan plan = plan_of(codecs[n], WEFT_TRANSPARENT);
        struct wf_tier_block block = block_of(n + 1, PLANE);
        expect(w, &plan, payload);
        assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
        assert_quality(w, &block, WEFT_TRANSPARENT);
        assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
        assert_memory_equal(room_at(w, 0), w->expected, BLOCK);
        assert_memory_not_equal(w->expected, payload, BLOCK);
    }
}

/* A lossy codec for a quality that is none, or without what it works from. */
static void senseless_plans_are_refused(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, PLANE);
    struct wf_coded_plan good = plan_of(&wf_codec_transform, WEFT_TRANSPARENT), plan = good;
    uint8_t *payload = payload_at(w, 0);
    fill(w, payload);
    static const uint8_t qualities[] = {WEFT_QUALITY_DEFAULT, WEFT_LOSSLESS, WEFT_ECONOMY + 1};
    for (uint32_t i = 0; i < 3; i++) {
        plan.quality = qualities[i];
        assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    }
    plan = good;
    plan.profile = NULL;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    plan = good;
    plan.parameter = 65536;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    plan = good;
    plan.codec = &wf_codec_lossless; /* and that is exact, whatever was asked for */
    plan.parameter = 0;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, 0);
    assert_int_equal(get(w, &block, 0, 0), WEFT_OK);
    assert_memory_equal(room_at(w, 0), payload, BLOCK);
    assert_int_equal(stats_of(w).in_flight, 0);
}

/* That exact ones were in vain says nothing of lossy ones, nor these of those. */
static void lossy_is_always_tried(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan exact = plan_of(NULL, WEFT_LOSSLESS);
    struct wf_coded_plan lossy = plan_of(&wf_codec_int8, WEFT_TRANSPARENT);
    uint8_t *payload = payload_at(w, 0);
    for (uint64_t i = 0; i < BLOCK; i++)
        payload[i] = (uint8_t)random_next(&w->random);
    for (uint32_t n = 0; n < 20; n++) {
        struct wf_tier_block block = block_of(n + 1, PLANE);
        assert_int_equal(put(w, &block, &exact, payload), WEFT_OK);
    }
    uint64_t tried = stats_of(w).coded.all.tried_bytes;
    assert_true(tried < 15 * BLOCK);
    assert_int_equal(stats_of(w).coded.all.encoded, 0);
    fill(w, payload_at(w, 1));
    for (uint32_t n = 0; n < 5; n++) {
        struct wf_tier_block block = block_of(100 + n, PLANE);
        assert_int_equal(put(w, &block, &lossy, payload_at(w, 1)), WEFT_OK);
    }
    assert_int_equal(stats_of(w).coded.all.encoded, 5);
    struct wf_tier_block block = block_of(200, PLANE);
    assert_int_equal(put(w, &block, &exact, payload), WEFT_OK);
    assert_int_equal(stats_of(w).coded.all.tried_bytes, tried + 5 * BLOCK);
}

static void reap_all(struct world *w, uint32_t count)
{
    struct wf_tier_request *out[MANY];
    for (uint32_t done = 0, tries = 0; done < count; tries++) {
        assert_true(tries < 1000);
        uint32_t got = w->ops->reap(w->tier, out, MANY, 100);
        for (uint32_t i = 0; i < got; i++)
            assert_int_equal(out[i]->status, WEFT_OK);
        done += got;
    }
}

/* Plans are copied by submit; workers ask for profiles at the same time. */
static void many_at_once(void **state)
{
    struct world *w = *state;
    struct wf_tier_request r[MANY];
    for (uint32_t n = 0; n < MANY; n++) {
        struct wf_coded_plan plan = plan_of(&wf_codec_transform,
                                            n % 2 ? WEFT_ECONOMY : WEFT_TRANSPARENT);
        plan.position = n;
        fill(w, payload_at(w, n));
        r[n] = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                        .block = block_of(n + 1, 2 * PLANE),
                                        .data = payload_at(w, n),
                                        .plan = &plan};
        assert_int_equal(w->ops->submit(w->tier, &r[n]), WEFT_OK);
        memset(&plan, 0, sizeof plan);
    }
    reap_all(w, MANY);
    for (uint32_t n = 0; n < MANY; n++) {
        r[n].op = WF_TIER_READ;
        r[n].data = room_at(w, n);
        assert_int_equal(w->ops->submit(w->tier, &r[n]), WEFT_OK);
    }
    reap_all(w, MANY);
    for (uint32_t n = 0; n < MANY; n++) {
        struct wf_coded_plan plan = plan_of(&wf_codec_transform,
                                            n % 2 ? WEFT_ECONOMY : WEFT_TRANSPARENT);
        plan.position = n;
        expect(w, &plan, payload_at(w, n));
        assert_memory_equal(room_at(w, n), w->expected, BLOCK);
    }
}

/* What has lost something is written as that, or not at all. */
static void what_was_lost_is_said(void **state)
{
    struct world *w = *state;
    struct wf_coded_plan plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    struct wf_tier_block block = block_of(1, PLANE);
    uint8_t *payload = payload_at(w, 0);
    fill(w, payload);
    plan.lost = true;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_OK);
    assert_quality(w, &block, WEFT_ECONOMY);

    block = block_of(2, PLANE);
    plan.codec = &wf_codec_lossless;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    plan.codec = NULL;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    plan = plan_of(&wf_codec_transform, WEFT_ECONOMY);
    plan.lost = true;
    plan.bytes_most = 1;
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID);
    plan.bytes_most = 0;
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS * 2, DIM / 2, &plan.layout));
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID); /* no plane fits */
    assert_true(wf_layout_of(WEFT_BF16, 1, 1, HEADS, DIM, &plan.layout));
    assert_int_equal(put(w, &block, &plan, payload), WEFT_E_INVALID); /* another block's layout */
    assert_int_equal(stats_of(w).blocks, 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(it_is_what_the_codec_makes_of_it),
        TEST(positions_count),
        TEST(what_does_not_fit_is_exact),
        TEST(what_was_lost_is_said),
        TEST(codecs_without_a_profile_need_none),
        TEST(senseless_plans_are_refused),
        TEST(lossy_is_always_tried),
        TEST(many_at_once),
    };
    return on_all_media("tier_lossy", tests, sizeof tests / sizeof tests[0]);
}
