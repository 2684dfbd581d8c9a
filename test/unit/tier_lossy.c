/* SPDX-License-Identifier: Apache-2.0
 *
 * Lossy qualities through a tier that codes: what is read is what the codec alone makes of a block,
 * in whole and in parts; its quality is told everywhere; a profile that is not here loses nothing;
 * a frame moves as it is stored; and what was damaged is told, never handed out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../support/cxl_medium.h"
#include "../support/medium.h"
#include "../support/random.h"
#include "codec/calibrate.h"
#include "codec/convert.h"
#include "codec/frame.h"
#include "codec/profile.h"
#include "tier/coded.h"
#include "tier/sim.h"

#define LAYERS 4u
#define HEADS 2u
#define DIM 16u
#define ROW (HEADS * DIM)
#define TOKENS 64u
#define PLANE (TOKENS * ROW * 2)
#define BLOCK (2 * LAYERS * PLANE)
#define SINKS 2u
#define MANY 12u

/* Settings of a test's own; what a profile would say is calibration's. */
#define TRANSPARENT_AT 1000u
#define ECONOMY_AT 1024u

struct medium {
    const char *name;
    const struct wf_tier_ops *behind;
    uint32_t workers;
    bool lasts; /* outlives close */
};

struct world {
    const struct medium *medium;
    const struct wf_tier_ops *ops;
    struct wf_tier *tier;
    struct wf_coded_options coded;
    char path[200];
    uint8_t *memory; /* [MANY] payloads, then [MANY] of what is read */
    uint8_t *expected, *frame;
    uint64_t frame_bytes;
    void *scratch;
    struct random_source random;
};

static struct wf_profile *profile, *shallow;  /* of all layers; of all but the last */
static const struct wf_profile *_Atomic here; /* what a tier is given, whatever it asks for */

/* ------------------------------------------------------------------------------------- profiles */

static float gaussian(struct random_source *r)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)random_below(r, 65536) / 65536.0f;
    return sum - 6.0f;
}

/* Channels that hang together. */
static void draw(struct random_source *r, float *rows, uint32_t tokens, uint32_t channels)
{
    for (uint32_t t = 0; t < tokens; t++) {
        float common = gaussian(r);
        for (uint32_t i = 0; i < channels; i++)
            rows[t * channels + i] = 0.1f * (float)(i % 5) + common * (float)(i % 3 + 1) +
                                     0.2f * gaussian(r);
    }
}

static struct wf_profile *calibrated(uint32_t layers)
{
    static const struct wf_profile_point points[WF_PROFILE_POINTS];
    static float keys[TOKENS * ROW], values[TOKENS * ROW], queries[TOKENS * ROW];
    struct random_source r = {layers};
    struct wf_calibration *c;
    struct wf_profile *out;
    void *file;
    size_t bytes;
    struct wf_calibration_shape shape = {
        .layers = layers,
        .query_heads = HEADS,
        .heads = HEADS,
        .head_dim = DIM,
        .sinks = SINKS,
        .dtype = WEFT_BF16,
        .rope_pairing = WF_ROPE_HALVES,
        .rope_dims = DIM,
        .rope_theta = 10000,
        .model = "test",
    };
    assert_int_equal(wf_calibration_create(&shape, &c), WEFT_OK);
    for (uint32_t layer = 0; layer < layers; layer++) {
        draw(&r, keys, TOKENS, ROW);
        draw(&r, values, TOKENS, ROW);
        draw(&r, queries, TOKENS, ROW);
        assert_int_equal(wf_calibration_add(c, layer, TOKENS, keys, values, queries), WEFT_OK);
    }
    assert_int_equal(wf_calibration_design(c), WEFT_OK);
    for (uint32_t p = 0; p < 2 * layers; p++) {
        draw(&r, keys, TOKENS, ROW);
        wf_calibration_observe(c, p / 2, p % 2, 0, TOKENS, keys);
        wf_calibration_sensitivity(c, p / 2, p % 2, 1);
    }
    wf_calibration_steps(c, 0.5);
    assert_int_equal(wf_calibration_file(c, points, &file, &bytes), WEFT_OK);
    assert_int_equal(wf_profile_parse(file, bytes, &out), WEFT_OK);
    free(file);
    wf_calibration_destroy(c);
    return out;
}

static const struct wf_profile *give_profile(void *profiles, uint64_t id)
{
    (void)id;
    return atomic_load((const struct wf_profile *_Atomic *)profiles);
}

static int group_setup(void **state)
{
    (void)state;
    profile = calibrated(LAYERS);
    shallow = calibrated(LAYERS - 1);
    return profile->id == shallow->id;
}

static int group_teardown(void **state)
{
    (void)state;
    wf_profile_destroy(profile);
    wf_profile_destroy(shallow);
    return 0;
}

/* ---------------------------------------------------------------------------------------- tiers */

static void open_tier(struct world *w)
{
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = 32 << 20,
                                      .queue_depth = 2 * MANY,
                                      .seed = random_next(&w->random),
                                      .buffers = w->memory,
                                      .buffers_bytes = 2 * MANY * BLOCK,
                                      .coded = &w->coded};
    if (w->ops->open(&options, &w->tier) != WEFT_OK)
        fail_msg("open: %s", wf_last_error());
}

static void reopen(struct world *w)
{
    w->ops->close(w->tier);
    w->tier = NULL;
    open_tier(w);
}

static void name_medium(struct world *w)
{
    if (w->medium->behind == &wf_tier_nvme && !medium_has_ring()) {
        print_message("# io_uring is missing\n");
        skip();
    }
    if (w->medium->behind == &wf_tier_nvme)
        assert_true(medium_name(w->path, sizeof w->path));
    else if (w->medium->behind == &wf_tier_cxl)
        assert_true(cxl_medium_name(w->path, sizeof w->path));
    else
        snprintf(w->path, sizeof w->path, "lossy");
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct wf_layout layout;
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, DIM, &layout));
    assert_int_equal(layout.bytes, BLOCK);
    w->medium = *state;
    w->random = random_seeded(w->medium->name);
    w->memory = aligned_alloc(WF_TIER_ALIGN, 2 * MANY * BLOCK);
    w->expected = malloc(BLOCK);
    w->frame = malloc(wf_frame_bound(&layout));
    w->scratch = aligned_alloc(64, (wf_frame_scratch(&layout) + 63) / 64 * 64);
    w->coded = (struct wf_coded_options){.ops = w->medium->behind,
                                         .codec = &wf_codec_lossless,
                                         .workers = w->medium->workers,
                                         .memory_bytes = 1 << 20,
                                         .part_bytes = 4096,
                                         .profile = give_profile,
                                         .profiles = (void *)&here};
    w->ops = wf_tier_coded_over(w->coded.ops);
    atomic_store(&here, profile);
    name_medium(w);
    *state = w;
    open_tier(w);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    if (w->tier)
        w->ops->close(w->tier);
    if (w->medium->behind == &wf_tier_sim)
        assert_true(wf_tier_sim_forget(w->path));
    else if (w->medium->behind == &wf_tier_nvme)
        unlink(w->path);
    else if (w->medium->behind == &wf_tier_cxl)
        unlink(w->path + strlen(CXL_FILE_PREFIX));
    free(w->memory);
    free(w->expected);
    free(w->frame);
    free(w->scratch);
    free(w);
    return 0;
}

static enum weft_status outcome(const struct wf_tier_ops *ops, struct wf_tier *tier,
                                struct wf_tier_request *r)
{
    struct wf_tier_request *out = NULL;
    enum weft_status status = ops->submit(tier, r);
    if (status != WEFT_OK)
        return status;
    for (int tries = 0; tries < 100 && !out; tries++)
        ops->reap(tier, &out, 1, 100);
    assert_ptr_equal(out, r);
    return r->status;
}

static uint8_t *payload_at(const struct world *w, uint32_t slot)
{
    return w->memory + (size_t)slot * BLOCK;
}

static uint8_t *room_at(const struct world *w, uint32_t slot)
{
    return w->memory + (size_t)(MANY + slot) * BLOCK;
}

/* --------------------------------------------------------------------------------------- blocks */

static struct wf_tier_block block_of(uint64_t number, uint32_t part_bytes)
{
    struct wf_tier_block block = {.bytes = BLOCK, .part_bytes = part_bytes};
    random_key(number, block.key);
    return block;
}

static struct wf_coded_plan plan_of(const struct wf_codec *codec, uint8_t quality)
{
    struct wf_coded_plan plan = {.codec = codec, .quality = quality};
    if (codec == &wf_codec_transform) {
        plan.profile = profile;
        plan.parameter = quality == WEFT_ECONOMY ? ECONOMY_AT : TRANSPARENT_AT;
    }
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, DIM, &plan.layout));
    return plan;
}

static void fill(struct world *w, uint8_t *payload)
{
    static float rows[2 * LAYERS * TOKENS * ROW];
    draw(&w->random, rows, 2 * LAYERS * TOKENS, ROW);
    wf_floats_to(WEFT_BF16, rows, sizeof rows / sizeof rows[0], payload);
}

/* What a codec alone makes of a payload, to w->expected. */
static void expect(struct world *w, const struct wf_coded_plan *plan, const uint8_t *payload)
{
    struct wf_frame frame;
    struct wf_frame_plan of_frame = {.all = {plan->codec, plan->parameter},
                                     .otherwise = &wf_codec_lossless,
                                     .profile = plan->profile,
                                     .quality = plan->quality};
    assert_int_equal(wf_frame_encode(&plan->layout, &of_frame, plan->position, payload, w->frame,
                                     &w->frame_bytes, w->scratch),
                     WEFT_OK);
    assert_int_equal(wf_frame_open(w->frame, w->frame_bytes, &frame), WEFT_OK);
    assert_int_equal(wf_frame_decode(&frame, w->frame, 0, plan->layout.planes, plan->profile,
                                     w->expected, w->scratch),
                     WEFT_OK);
}

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

static enum weft_status put(struct world *w, const struct wf_tier_block *block,
                            const struct wf_coded_plan *plan, uint8_t *payload)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE, .block = *block, .data = payload};
    r.plan = plan;
    return outcome(w->ops, w->tier, &r);
}

static enum weft_status get(struct world *w, const struct wf_tier_block *block, uint32_t first,
                            uint32_t count)
{
    struct wf_tier_request r = {.op = WF_TIER_READ, .block = *block, .data = room_at(w, 0)};
    r.first_part = first;
    r.part_count = count;
    return outcome(w->ops, w->tier, &r);
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

static struct wf_tier_stats stats_of(const struct world *w)
{
    struct wf_tier_stats stats;
    w->ops->stats(w->tier, &stats);
    return stats;
}

static void assert_quality(const struct world *w, const struct wf_tier_block *block,
                           uint32_t quality)
{
    struct wf_tier_block told;
    assert_true(w->ops->find(w->tier, block->key, &told));
    assert_int_equal(told.plain_quality, quality);
    assert_int_equal(told.bytes, block->bytes);
    assert_int_equal(told.part_bytes, block->part_bytes);
    assert_int_equal(told.plain_bytes, 0);
}

/* ---------------------------------------------------------------------------------------- tests */

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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
    TEST(it_is_what_the_codec_makes_of_it),
    TEST(positions_count),
    TEST(what_does_not_fit_is_exact),
    TEST(what_was_lost_is_said),
    TEST(codecs_without_a_profile_need_none),
    TEST(senseless_plans_are_refused),
    TEST(no_profile_loses_no_block),
    TEST(quality_is_kept),
    TEST(qualities_agree_or_it_is_corrupt),
    TEST(a_frame_moves_as_it_is),
    TEST(damage_is_told),
    TEST(lossy_is_always_tried),
    TEST(many_at_once),
};

#define TESTS (sizeof tests / sizeof tests[0])

int main(void)
{
    static const struct medium media[] = {
        {"sim", &wf_tier_sim, 0, true},
        {"dram", &wf_tier_dram, 3, false},
        {"nvme", &wf_tier_nvme, 2, true},
        {"cxl", &wf_tier_cxl, 2, true},
    };
    enum { MEDIA = sizeof media / sizeof media[0] };
    static struct CMUnitTest all[MEDIA * TESTS];
    static char names[MEDIA * TESTS][80];
    for (size_t i = 0; i < MEDIA * TESTS; i++) {
        all[i] = tests[i % TESTS];
        snprintf(names[i], sizeof names[i], "%s: %s", media[i / TESTS].name, all[i].name);
        all[i].name = names[i];
        all[i].initial_state = (void *)(uintptr_t)&media[i / TESTS];
    }
    return _cmocka_run_group_tests("tier_lossy", all, MEDIA * TESTS, group_setup, group_teardown);
}
