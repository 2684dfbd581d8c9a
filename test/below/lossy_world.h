/* SPDX-License-Identifier: Apache-2.0
 *
 * A node whose domain asks for a quality, with a profile for its model: what the tests of what is
 * stored with loss share.
 */
#ifndef TEST_BELOW_LOSSY_WORLD_H
#define TEST_BELOW_LOSSY_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../support/profile.h"
#include "corners_world.h"

#define MODEL "small@1"
#define LINKS 6u /* blocks of a chain */

static const char *const one_tier[] __attribute__((unused)) = {"pool.size=8MB",
                                                               "pool.size_max=8MB",
                                                               "pool.policy=lru",
                                                               "drain=30s",
                                                               "workers=2",
                                                               "log.level=info",
                                                               "profiles=%d/profiles",
                                                               "domain.default.quality=transparent",
                                                               "tiers=nvme0",
                                                               "tier.nvme0.path=%d/nvme0",
                                                               "tier.nvme0.size=64MB",
                                                               "tier.nvme0.admit=always",
                                                               NULL};

struct lossy {
    struct world w;
    struct weft_format *f; /* while the node runs: of what the domain asks for, mostly */
    char folder[96], file[128];
    struct wf_profile *profile;
    uint32_t times; /* that blocks were stored */
};

static inline struct weft_format *format_of(const struct lossy *l, enum weft_quality quality)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS,
                                    .quality = quality};
    assert_int_equal(weft_format_open(l->w.w, &spec, &f), WEFT_OK);
    assert_int_equal(weft_format_block_bytes(f), PROFILE_BLOCK_BYTES);
    return f;
}

static inline void ask_for(struct lossy *l, enum weft_quality quality)
{
    weft_format_close(l->f);
    l->f = format_of(l, quality);
}

static inline void up(struct lossy *l)
{
    start(&l->w, NULL);
    ask_for(l, WEFT_QUALITY_DEFAULT);
}

/* What is in DRAM is stored. */
static inline void down(struct lossy *l)
{
    weft_format_close(l->f);
    l->f = NULL;
    stop(&l->w);
}

static inline void down_and_up(struct lossy *l)
{
    down(l);
    up(l);
}

/* *state: settings at first, then a node with a profile that was not started. */
static inline int setup(void **state)
{
    struct lossy *l = calloc(1, sizeof *l);
    assert_non_null(l);
    begin(&l->w, *state);
    snprintf(l->folder, sizeof l->folder, "%s/profiles", l->w.node.directory);
    snprintf(l->file, sizeof l->file, "%s/small.wfprofile", l->folder);
    assert_int_equal(mkdir(l->folder, 0700), 0);
    profile_make(MODEL, 0, l->file);
    l->profile = profile_read(l->file);
    l->times = 1;
    *state = l;
    return 0;
}

static inline int teardown(void **state)
{
    struct lossy *l = *state;
    weft_format_close(l->f);
    end(&l->w);
    wf_profile_destroy(l->profile);
    free(l);
    return 0;
}

static inline uint32_t number_of(uint64_t chain, uint32_t link)
{
    return (uint32_t)(chain * 1000 + link);
}

/* How many of its blocks are new. */
static inline uint32_t put_chain(const struct lossy *l, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    uint32_t fresh = 0;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        fresh += slots[i].status == WEFT_OK;
        if (slots[i].status == WEFT_OK)
            profile_block(number_of(chain, i), slots[i].data);
    }
    assert_int_equal(weft_commit_slots(l->f, slots, LINKS), WEFT_OK);
    return fresh;
}

/* How many come, each as `quality` has it; they were in DRAM all the time if that is 0. */
static inline uint32_t get_chain(const struct lossy *l, uint64_t chain, enum weft_quality quality)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_get_keys(l->f, keys, LINKS, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    for (uint32_t i = 0; i < pins.blocks; i++) {
        enum weft_status status = weft_wait_block(&pins, i);
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        profile_block(number_of(chain, i), plain);
        for (uint32_t j = 0; quality > WEFT_LOSSLESS && j < l->times; j++) {
            profile_back(l->profile, quality, i, plain, back);
            assert_true(j > 0 || memcmp(plain, back, sizeof plain) != 0);
            memcpy(plain, back, sizeof plain);
        }
        assert_memory_equal(pins.data[i], plain, sizeof plain);
        assert_int_equal(weft_pin_quality(&pins.pins[i]), quality);
        found++;
    }
    weft_pins_release(&pins);
    return found;
}

static inline size_t matched(const struct lossy *l, uint64_t chain, enum weft_quality *out)
{
    struct weft_key keys[LINKS];
    size_t present;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_match_keys(l->f, keys, LINKS, &present), WEFT_OK);
    assert_int_equal(weft_quality_keys(l->f, keys, LINKS, out), WEFT_OK);
    return present;
}

static inline enum weft_status archive_chain(const struct lossy *l, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_archived out;
    keys_of(l->f, chain, LINKS, keys);
    return weft_archive_keys(l->f, "lossy", &keys[LINKS - 1], ARCHIVE_MS, &out);
}

#define TEST(test, settings) \
    cmocka_unit_test_prestate_setup_teardown(test, setup, teardown, (void *)(uintptr_t)(settings))

#endif
