/* SPDX-License-Identifier: Apache-2.0
 *
 * An archive whose profile is gone, and whose chain is put anew: what is put takes the place of
 * what nobody can read, whether it is archived again or has to leave DRAM, and whether there is no
 * profile at all or another one by now.  What is not put anew stays as it is, for the day that its
 * profile is back.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "../support/profile.h"
#include "corners_world.h"

#define MODEL "small@1"
#define LINKS 6u

static const char *const settings[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "pool.policy=lru",
                                       "drain=30s",
                                       "workers=2",
                                       "profiles=%d/profiles",
                                       "domain.default.quality=transparent",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=64MB",
                                       "tier.nvme0.admit=always",
                                       NULL};

struct unread {
    struct world w;
    struct weft_format *f;
    char file[128], aside[160];
    struct wf_profile *profile; /* of the first file */
};

static void up(struct unread *u)
{
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS};
    start(&u->w, NULL);
    assert_int_equal(weft_format_open(u->w.w, &spec, &u->f), WEFT_OK);
}

static void down(struct unread *u)
{
    weft_format_close(u->f);
    u->f = NULL;
    stop(&u->w);
}

static int setup(void **state)
{
    struct unread *u = calloc(1, sizeof *u);
    char folder[96];
    assert_non_null(u);
    begin(&u->w, settings);
    snprintf(folder, sizeof folder, "%s/profiles", u->w.node.directory);
    snprintf(u->file, sizeof u->file, "%s/small.wfprofile", folder);
    snprintf(u->aside, sizeof u->aside, "%s.aside", u->file);
    assert_int_equal(mkdir(folder, 0700), 0);
    profile_make(MODEL, 0, u->file);
    u->profile = profile_read(u->file);
    *state = u;
    return 0;
}

static int teardown(void **state)
{
    struct unread *u = *state;
    weft_format_close(u->f);
    end(&u->w);
    wf_profile_destroy(u->profile);
    free(u);
    return 0;
}

static void put_chain(const struct unread *u, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    keys_of(u->f, chain, LINKS, keys);
    assert_int_equal(weft_reserve_keys(u->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++)
        if (slots[i].status == WEFT_OK)
            profile_block((uint32_t)chain * 1000 + i, slots[i].data);
    assert_int_equal(weft_commit_slots(u->f, slots, LINKS), WEFT_OK);
}

/* How many of its blocks come, each of that quality and to the bit, from `profile` if it has lost
 * something. */
static uint32_t get_chain(const struct unread *u, uint64_t chain, enum weft_quality quality,
                          const struct wf_profile *profile)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    keys_of(u->f, chain, LINKS, keys);
    assert_int_equal(weft_get_keys(u->f, keys, LINKS, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    while (found < pins.blocks && weft_wait_block(&pins, found) == WEFT_OK) {
        profile_block((uint32_t)chain * 1000 + found, plain);
        if (quality > WEFT_LOSSLESS)
            profile_back(profile, quality, found, plain, back);
        assert_memory_equal(pins.data[found], quality > WEFT_LOSSLESS ? back : plain, sizeof plain);
        assert_int_equal(weft_pin_quality(&pins.pins[found]), quality);
        found++;
    }
    weft_pins_release(&pins);
    return found;
}

static enum weft_status archive_chain(const struct unread *u, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_archived out;
    char name[16];
    snprintf(name, sizeof name, "a%u", (unsigned)chain);
    keys_of(u->f, chain, LINKS, keys);
    return weft_archive_keys(u->f, name, &keys[LINKS - 1], ARCHIVE_MS, &out);
}

/* Chain 1 is archived with loss, and nothing of it is in DRAM. */
static void archived_with_loss(struct unread *u)
{
    up(u);
    put_chain(u, 1);
    down(u);
    up(u);
    assert_int_equal(archive_chain(u, 1), WEFT_OK);
    down(u);
}

static void archived_again_it_is_replaced(void **state)
{
    struct unread *u = *state;
    archived_with_loss(u);
    assert_int_equal(unlink(u->file), 0);
    up(u);
    assert_true(archives_settle(&u->w, "unreadable", 1));
    put_chain(u, 1);
    assert_int_equal(archive_chain(u, 1), WEFT_OK);
    assert_int_equal(archives(&u->w, "ok"), 1);
    detach(&u->w);
    weft_format_close(u->f);
    u->f = NULL;
    weftd_kill(&u->w.node); /* it was said to be durable */
    up(u);
    assert_true(archives_settle(&u->w, "ok", 1));
    assert_int_equal(get_chain(u, 1, WEFT_LOSSLESS, NULL), LINKS);
}

/* Nobody archives it again: it is there when it left DRAM. */
static void put_anew_it_is_replaced_when_it_leaves(void **state)
{
    struct unread *u = *state;
    archived_with_loss(u);
    assert_int_equal(unlink(u->file), 0);
    up(u);
    assert_int_equal(get_chain(u, 1, WEFT_TRANSPARENT, u->profile), 0);
    put_chain(u, 1);
    down(u);
    up(u);
    assert_true(archives_settle(&u->w, "ok", 1));
    assert_int_equal(get_chain(u, 1, WEFT_LOSSLESS, NULL), LINKS);
}

/* Another profile is there, and nobody has tried to read what the first one stored. */
static void with_another_profile_it_is_stored_by_that(void **state)
{
    struct unread *u = *state;
    archived_with_loss(u);
    profile_make(MODEL, 1, u->file);
    struct wf_profile *other = profile_read(u->file);
    up(u);
    put_chain(u, 1);
    assert_int_equal(archive_chain(u, 1), WEFT_OK);
    down(u);
    up(u);
    assert_true(archives_settle(&u->w, "ok", 1));
    assert_int_equal(get_chain(u, 1, WEFT_TRANSPARENT, other), LINKS);
    wf_profile_destroy(other);
}

/* What was not put anew is neither lost nor called well. */
static void what_is_not_put_anew_waits(void **state)
{
    struct unread *u = *state;
    archived_with_loss(u);
    assert_int_equal(rename(u->file, u->aside), 0);
    up(u);
    assert_int_equal(archive_chain(u, 1), WEFT_OK); /* it is whole as it lies */
    assert_int_equal(archives(&u->w, "unreadable"), 1);
    for (uint64_t c = 2; c <= 60; c++) /* more than DRAM has room for */
        put_chain(u, c);
    down(u);
    assert_int_equal(rename(u->aside, u->file), 0);
    up(u);
    assert_true(archives_settle(&u->w, "ok", 1));
    assert_int_equal(get_chain(u, 1, WEFT_TRANSPARENT, u->profile), LINKS);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(archived_again_it_is_replaced),
        TEST(put_anew_it_is_replaced_when_it_leaves),
        TEST(with_another_profile_it_is_stored_by_that),
        TEST(what_is_not_put_anew_waits),
    };
    return cmocka_run_group_tests_name("archive_unread", tests, NULL, NULL);
}
