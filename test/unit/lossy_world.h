/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier that codes with loss, for tests: on each medium, with a profile of a small model, blocks
 * that it fits, and what the codec alone makes of them.
 */
#ifndef TEST_LOSSY_WORLD_H
#define TEST_LOSSY_WORLD_H

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
#include "codec/convert.h"
#include "codec/frame.h"
#include "lossy_profile.h"
#include "tier/coded.h"
#include "tier/sim.h"

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

static inline const struct wf_profile *give_profile(void *profiles, uint64_t id)
{
    (void)id;
    return atomic_load((const struct wf_profile *_Atomic *)profiles);
}

static inline int group_setup(void **state)
{
    (void)state;
    profile = calibrated(LAYERS);
    shallow = calibrated(LAYERS - 1);
    return profile->id == shallow->id;
}

static inline int group_teardown(void **state)
{
    (void)state;
    wf_profile_destroy(profile);
    wf_profile_destroy(shallow);
    return 0;
}

/* ---------------------------------------------------------------------------------------- tiers */

static inline void open_tier(struct world *w)
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

static inline void name_medium(struct world *w)
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

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline enum weft_status outcome(const struct wf_tier_ops *ops, struct wf_tier *tier,
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

static inline uint8_t *payload_at(const struct world *w, uint32_t slot)
{
    return w->memory + (size_t)slot * BLOCK;
}

static inline uint8_t *room_at(const struct world *w, uint32_t slot)
{
    return w->memory + (size_t)(MANY + slot) * BLOCK;
}

/* --------------------------------------------------------------------------------------- blocks */

static inline struct wf_tier_block block_of(uint64_t number, uint32_t part_bytes)
{
    struct wf_tier_block block = {.bytes = BLOCK, .part_bytes = part_bytes};
    random_key(number, block.key);
    return block;
}

static inline struct wf_coded_plan plan_of(const struct wf_codec *codec, uint8_t quality)
{
    struct wf_coded_plan plan = {.codec = codec, .quality = quality};
    if (codec == &wf_codec_transform) {
        plan.profile = profile;
        plan.parameter = quality == WEFT_ECONOMY ? ECONOMY_AT : TRANSPARENT_AT;
    }
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, DIM, &plan.layout));
    return plan;
}

static inline void fill(struct world *w, uint8_t *payload)
{
    static float rows[2 * LAYERS * TOKENS * ROW];
    draw(&w->random, rows, 2 * LAYERS * TOKENS, ROW);
    wf_floats_to(WEFT_BF16, rows, sizeof rows / sizeof rows[0], payload);
}

/* What a codec alone makes of a payload, to w->expected. */
static inline void expect(struct world *w, const struct wf_coded_plan *plan, const uint8_t *payload)
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

static inline enum weft_status put(struct world *w, const struct wf_tier_block *block,
                                   const struct wf_coded_plan *plan, uint8_t *payload)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE, .block = *block, .data = payload};
    r.plan = plan;
    return outcome(w->ops, w->tier, &r);
}

static inline enum weft_status get(struct world *w, const struct wf_tier_block *block,
                                   uint32_t first, uint32_t count)
{
    struct wf_tier_request r = {.op = WF_TIER_READ, .block = *block, .data = room_at(w, 0)};
    r.first_part = first;
    r.part_count = count;
    return outcome(w->ops, w->tier, &r);
}

static inline struct wf_tier_stats stats_of(const struct world *w)
{
    struct wf_tier_stats stats;
    w->ops->stats(w->tier, &stats);
    return stats;
}

static inline void assert_quality(const struct world *w, const struct wf_tier_block *block,
                                  uint32_t quality)
{
    struct wf_tier_block told;
    assert_true(w->ops->find(w->tier, block->key, &told));
    assert_int_equal(told.plain_quality, quality);
    assert_int_equal(told.bytes, block->bytes);
    assert_int_equal(told.part_bytes, block->part_bytes);
    assert_int_equal(told.plain_bytes, 0);
}

/* ------------------------------------------------------------------------------------ all media */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TESTS_MAX 16u

/* Each test on each medium. */
static inline int on_all_media(const char *group, const struct CMUnitTest *tests, size_t count)
{
    static const struct medium media[] = {
        {"sim", &wf_tier_sim, 0, true},
        {"dram", &wf_tier_dram, 3, false},
        {"nvme", &wf_tier_nvme, 2, true},
        {"cxl", &wf_tier_cxl, 2, true},
    };
    enum { MEDIA = sizeof media / sizeof media[0] };
    static struct CMUnitTest all[MEDIA * TESTS_MAX];
    static char names[MEDIA * TESTS_MAX][80];
    if (count > TESTS_MAX)
        return 1;
    for (size_t i = 0; i < MEDIA * count; i++) {
        all[i] = tests[i % count];
        snprintf(names[i], sizeof names[i], "%s: %s", media[i / count].name, all[i].name);
        all[i].name = names[i];
        all[i].initial_state = (void *)(uintptr_t)&media[i / count];
    }
    return _cmocka_run_group_tests(group, all, MEDIA * count, group_setup, group_teardown);
}

#endif
