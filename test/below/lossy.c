/* SPDX-License-Identifier: Apache-2.0
 *
 * A domain that asks for a quality: its blocks come back from below as the profile has them, to the
 * bit, and everyone who matches them hears it; who asks for better, or for what the domain asks
 * since, never gets one of them; and what cannot be read for want of its profile is there again
 * with it.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lossy_world.h"

#define CHAINS 12u

/* To which blocks go only as they are, or as they lie on the first. */
static const char *const with_an_exact[] = {"pool.size=8MB",
                                            "pool.size_max=8MB",
                                            "pool.policy=lru",
                                            "drain=30s",
                                            "workers=2",
                                            "log.level=info",
                                            "profiles=%d/profiles",
                                            "domain.default.quality=economy",
                                            "tiers=nvme0,nvme1",
                                            "tier.nvme0.path=%d/nvme0",
                                            "tier.nvme0.size=64MB",
                                            "tier.nvme0.admit=always",
                                            "tier.nvme0.archive=false",
                                            "tier.nvme1.path=%d/nvme1",
                                            "tier.nvme1.size=64MB",
                                            "tier.nvme1.admit=never",
                                            "tier.nvme1.codec=lossless",
                                            NULL};

/* Not even by the key of another format, which nobody who keeps to his own keys has. */
static void no_stricter_format_has(const struct lossy *l, uint64_t chain)
{
    struct weft_format *strict = format_of(l, WEFT_LOSSLESS);
    struct weft_key keys[LINKS];
    struct weft_pin pin;
    struct weft_pins pins;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_pin(l->f, &keys[0], &pin), WEFT_OK);
    weft_unpin(&pin);
    assert_int_equal(weft_pin(strict, &keys[0], &pin), WEFT_MISS);
    assert_int_equal(weft_get_keys(strict, keys, LINKS, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, 0);
    weft_pins_release(&pins);
    weft_format_close(strict);
}

/* Nor of blocks that nobody knows to have lost anything as long as they are on their way, be it
 * only the strict one that waits for them, or another that may have them, too. */
static void no_stricter_format_waits_for(const struct lossy *l, uint64_t chain, bool together)
{
    struct weft_format *strict = format_of(l, WEFT_LOSSLESS);
    struct weft_key keys[LINKS];
    struct weft_pins pins, may = {.blocks = 0};
    keys_of(l->f, chain, LINKS, keys);
    if (together)
        assert_int_equal(weft_get_keys(l->f, keys, LINKS, WEFT_LAYER_ORDER, &may), WEFT_OK);
    assert_int_equal(weft_get_keys(strict, keys, LINKS, WEFT_LAYER_ORDER, &pins), WEFT_OK);
    /* Nothing of them can have come before the answer; of the other's, it may have. */
    if (!together)
        assert_int_equal(pins.blocks, LINKS);
    assert_int_equal(pins.loading, 0);
    if (pins.blocks) {
        assert_int_equal(weft_wait_layer(&pins, 0), WEFT_MISS);
        assert_int_equal(weft_wait_layer(&pins, PROFILE_LAYERS - 1), WEFT_MISS);
    }
    for (uint32_t i = 0; i < pins.blocks; i++)
        assert_int_equal(weft_wait_block(&pins, i), WEFT_MISS);
    for (uint32_t i = 0; i < may.blocks; i++)
        assert_int_equal(weft_wait_block(&may, i), WEFT_OK);
    assert_int_equal(may.blocks, together ? LINKS : 0);
    weft_pins_release(&may);
    weft_pins_release(&pins);
    weft_format_close(strict);
}

static void what_is_stored_says_what_it_lost(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    up(l);
    assert_int_equal(weft_format_quality(l->f), WEFT_TRANSPARENT);
    assert_true(told(&l->w, "tiers", "\"written_as_is\":0")); /* nor is the mover's own told */
    for (uint64_t c = 1; c <= CHAINS; c++) {
        assert_int_equal(put_chain(l, c), LINKS);
        assert_int_equal(get_chain(l, c, WEFT_LOSSLESS), LINKS); /* it is in DRAM still */
    }
    assert_int_equal(matched(l, 1, &quality), LINKS);
    assert_int_equal(quality, WEFT_LOSSLESS);
    down_and_up(l);

    for (uint64_t c = 1; c <= CHAINS; c++) {
        assert_int_equal(matched(l, c, &quality), LINKS);
        assert_int_equal(quality, WEFT_TRANSPARENT);
        assert_int_equal(get_chain(l, c, WEFT_TRANSPARENT), LINKS);
        assert_int_equal(matched(l, c, &quality), LINKS);
        assert_int_equal(quality, WEFT_TRANSPARENT);
        assert_int_equal(put_chain(l, c), 0); /* it will do */
    }
    assert_true((double)tier_number(&l->w, "nvme0", "used_bytes") <
                0.6 * CHAINS * LINKS * PROFILE_BLOCK_BYTES);
    no_stricter_format_has(l, CHAINS);
    down_and_up(l);
    no_stricter_format_waits_for(l, 1, false);
    no_stricter_format_waits_for(l, 2, true);

    /* Up, down and up again: it has lost nothing more. */
    for (int round = 0; round < 2; round++) {
        down_and_up(l);
        for (uint64_t c = 1; c <= CHAINS; c++)
            assert_int_equal(get_chain(l, c, WEFT_TRANSPARENT), LINKS);
    }
}

static void who_asks_for_better_has_it(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    set(&l->w, "domain.default.quality=economy");
    up(l);
    static const enum weft_quality asked[] = {WEFT_ECONOMY, WEFT_TRANSPARENT, WEFT_LOSSLESS,
                                              WEFT_QUALITY_DEFAULT};
    static const enum weft_quality is[] = {WEFT_ECONOMY, WEFT_TRANSPARENT, WEFT_LOSSLESS,
                                           WEFT_ECONOMY};
    for (int i = 0; i < 4; i++) {
        ask_for(l, asked[i]);
        assert_int_equal(weft_format_quality(l->f), is[i]);
        /* The last asks for what the first did. */
        assert_int_equal(matched(l, 1, &quality), i < 3 ? 0 : LINKS);
        assert_int_equal(put_chain(l, 1), i < 3 ? LINKS : 0);
    }
    down_and_up(l);
    for (int i = 0; i < 4; i++) {
        ask_for(l, asked[i]);
        assert_int_equal(matched(l, 1, &quality), LINKS);
        assert_int_equal(quality, is[i]);
        assert_int_equal(get_chain(l, 1, is[i]), LINKS);
    }
}

static void who_asks_for_more_since_is_not_answered_with_less(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(put_chain(l, 2), LINKS);
    down(l);

    set(&l->w, "domain.default.quality=lossless");
    up(l);
    for (uint64_t c = 1; c <= 2; c++) {
        assert_int_equal(matched(l, c, &quality), 0);
        assert_int_equal(get_chain(l, c, WEFT_LOSSLESS), 0);
    }
    assert_int_equal(put_chain(l, 1), LINKS); /* anew */
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
    down_and_up(l);
    assert_int_equal(matched(l, 1, &quality), LINKS);
    assert_int_equal(quality, WEFT_LOSSLESS);
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
    assert_int_equal(matched(l, 2, &quality), 0);
    down(l);

    /* Back: what is better than it must be will do, and what was left alone is found again. */
    set(&l->w, "domain.default.quality=transparent");
    up(l);
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
    assert_int_equal(get_chain(l, 2, WEFT_TRANSPARENT), LINKS);
}

static void without_its_profile_it_waits(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    char aside[160];
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down(l);

    snprintf(aside, sizeof aside, "%s.aside", l->file);
    assert_int_equal(rename(l->file, aside), 0);
    up(l);
    assert_int_equal(matched(l, 1, &quality), LINKS);
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), 0);
    assert_true(told(&l->w, "events", "\"reason\":\"profile\""));
    assert_int_equal(matched(l, 1, &quality), LINKS); /* it is there still */
    assert_int_equal(put_chain(l, 2), LINKS);
    down_and_up(l);
    assert_int_equal(get_chain(l, 2, WEFT_LOSSLESS), LINKS); /* there was no profile */
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), 0);

    assert_int_equal(rename(aside, l->file), 0); /* while it runs */
    assert_true(told(&l->w, "events", " was read, for KV of " MODEL));
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
    assert_int_equal(put_chain(l, 3), LINKS);
    down_and_up(l);
    assert_int_equal(get_chain(l, 3, WEFT_TRANSPARENT), LINKS);
    assert_true(told(&l->w, "events", " was read, for KV of " MODEL));

    /* What goes is told, and so is each of those that are none. */
    for (char name = 'x'; name <= 'y'; name++) {
        snprintf(aside, sizeof aside, "%s/%c.wfprofile", l->folder, name);
        FILE *file = fopen(aside, "wbe");
        assert_non_null(file);
        assert_int_equal(fclose(file), 0);
    }
    assert_int_equal(unlink(l->file), 0);
    assert_true(told(&l->w, "events", "profile small.wfprofile is gone"));
    assert_true(told(&l->w, "events", "profile x.wfprofile is not used"));
    assert_true(told(&l->w, "events", "profile y.wfprofile is not used"));
}

/* What is put again meanwhile takes the place of what cannot be read, whether a load found that out
 * (chain 1), or nobody asked (2), or there is another profile by now (3). */
static void what_is_put_anew_without_its_profile_is_stored(void **state)
{
    struct lossy *l = *state;
    up(l);
    for (uint64_t c = 1; c <= 3; c++)
        assert_int_equal(put_chain(l, c), LINKS);
    down(l);

    assert_int_equal(unlink(l->file), 0);
    up(l);
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), 0);
    assert_true(told(&l->w, "events", "\"reason\":\"profile\""));
    for (uint64_t c = 1; c <= 2; c++)
        assert_int_equal(put_chain(l, c), LINKS);
    down(l);

    wf_profile_destroy(l->profile);
    profile_make(MODEL, 1, l->file);
    l->profile = profile_read(l->file);
    up(l);
    for (uint64_t c = 1; c <= 2; c++)
        assert_int_equal(get_chain(l, c, WEFT_LOSSLESS), LINKS);
    assert_int_equal(get_chain(l, 3, WEFT_TRANSPARENT), 0);
    assert_int_equal(put_chain(l, 3), LINKS);
    down_and_up(l);
    assert_int_equal(get_chain(l, 3, WEFT_TRANSPARENT), LINKS);
}

/* To a tier that stores nothing with loss itself: what is there is what it was, also alone; whether
 * it is whole is seen without its profile. */
static void from_tier_to_tier_it_stays_what_it_is(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(put_chain(l, 2), LINKS);
    assert_int_equal(archive_chain(l, 2), WEFT_OK); /* from DRAM: exact there */
    assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
    down(l);
    assert_int_equal(unlink(l->file), 0);
    up(l);
    assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it was read back, as it lies */
    down(l);

    profile_make(MODEL, 0, l->file);
    set(&l->w, "tiers=nvme1");
    up(l);
    assert_true(archives_settle(&l->w, "ok", 1));
    assert_int_equal(matched(l, 1, &quality), LINKS);
    assert_int_equal(quality, WEFT_ECONOMY);
    assert_int_equal(get_chain(l, 1, WEFT_ECONOMY), LINKS);
    assert_int_equal(get_chain(l, 2, WEFT_LOSSLESS), LINKS);
}

/* What lost something elsewhere is put as what it is, where that is allowed. */
static void what_was_lost_elsewhere_can_be_put(void **state)
{
    struct lossy *l = *state;
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    uint8_t plain[PROFILE_BLOCK_BYTES];
    up(l);
    keys_of(l->f, 1, LINKS, keys);
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS, WEFT_CHAINED | WEFT_LOST_ECONOMY,
                                       slots),
                     WEFT_E_INVALID);
    assert_non_null(strstr(weft_last_error(), "economy"));
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS,
                                       WEFT_CHAINED | WEFT_LOST_TRANSPARENT, slots),
                     WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        profile_block(number_of(1, i), plain);
        profile_back(l->profile, WEFT_TRANSPARENT, i, plain, slots[i].data);
    }
    assert_int_equal(weft_commit_slots(l->f, slots, LINKS), WEFT_OK);
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
    down_and_up(l);
    l->times = 2;
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
}

/* An archive keeps what it was made of.  Its blocks cannot be another's that is to be more exact,
 * and what is not durable is not said to be. */
static void what_an_archive_keeps_is_no_better_for_another(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down_and_up(l);
    assert_int_equal(archive_chain(l, 1), WEFT_OK);
    down(l);

    set(&l->w, "domain.default.quality=lossless");
    up(l);
    assert_true(archives_settle(&l->w, "ok", 1));
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(archive_chain(l, 1), WEFT_E_BUSY);
    assert_non_null(strstr(weft_last_error(), "session rm"));
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
    assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
    assert_int_equal(archive_chain(l, 1), WEFT_OK);
    down_and_up(l);
    assert_int_equal(matched(l, 1, &quality), LINKS);
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
}

/* Its copy below goes while it is in DRAM: it is stored again as what it is, by the profile that it
 * was stored by, be there a newer, and loses nothing more by that. */
static void what_is_stored_twice_loses_once(void **state)
{
    struct lossy *l = *state;
    char tier[96], newer[160];
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down(l);
    snprintf(newer, sizeof newer, "%s/newer.wfprofile", l->folder);
    profile_make(MODEL, 9, newer);
    up(l);
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
    snprintf(tier, sizeof tier, "%s/nvme0", l->w.node.directory);
    assert_int_equal(unlink(tier), 0);
    assert_true(told(&l->w, "tiers", "\"failed\""));
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS); /* DRAM has it */
    int fd = open(tier, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);  /* begin anew */
    assert_true(fd >= 0);
    close(fd);
    assert_true(told(&l->w, "events", "is open; 0 blocks"));
    down_and_up(l);
    assert_int_equal(tier_number(&l->w, "nvme0", "blocks"), LINKS);
    l->times = 2; /* which is the same but for what rounding to bf16 does */
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
}

static void as_domain(struct lossy *l, struct weft *w)
{
    weft_format_close(l->f);
    l->w.w = w;
    l->f = format_of(l, WEFT_QUALITY_DEFAULT);
}

/* On one node and one tier, of the same model and the same tokens: each has its own quality, and
 * one's loss is none of the other's, whichever was put first, or has changed since. */
static void domains_side_by_side_have_their_own(void **state)
{
    static const enum weft_quality mine[] = {WEFT_TRANSPARENT, WEFT_TRANSPARENT};
    static const enum weft_quality theirs[] = {WEFT_LOSSLESS, WEFT_ECONOMY};
    struct lossy *l = *state;
    char secret[160];
    snprintf(secret, sizeof secret, "%s/guest", l->w.node.directory);
    FILE *file = fopen(secret, "wxe");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    fputs("another secret of more than thirty-two bytes, for tests alone", file);
    assert_int_equal(fclose(file), 0);
    set(&l->w, "domains=default,guest");
    set(&l->w, "domain.guest.secret_file=%d/guest");
    for (int round = 0; round < 2; round++) {
        uint64_t chain = 1 + (uint64_t)round;
        enum weft_quality quality;
        set(&l->w, round ? "domain.guest.quality=economy" : "domain.guest.quality=lossless");
        for (int time = 0; time < 2; time++) { /* when it is put, and from below */
            up(l);
            struct weft *own = l->w.w, *guest = weftd_connect(&l->w.node, "guest");
            assert_non_null(guest);
            for (int who = 0; who < 2; who++) {
                enum weft_quality has = who == round ? mine[round] : theirs[round];
                as_domain(l, who == round ? own : guest);
                assert_int_equal(matched(l, chain, &quality), time ? LINKS : 0);
                if (time)
                    assert_int_equal(quality, has);
                if (time == 0)
                    assert_int_equal(put_chain(l, chain), LINKS);
                assert_int_equal(get_chain(l, chain, time ? has : WEFT_LOSSLESS), LINKS);
            }
            /* What the other stored exactly will do for one that asks for less now. */
            as_domain(l, guest);
            if (round && time)
                assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
            as_domain(l, own);
            weft_close(guest);
            if (!round || !time)
                down(l);
        }
    }
}

/* What an archive keeps waits for its profile, too; or it is removed, put and archived anew. */
static void an_archive_without_its_profile_is_made_anew(void **state)
{
    struct lossy *l = *state;
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down_and_up(l);
    assert_int_equal(archive_chain(l, 1), WEFT_OK);
    down(l);
    assert_int_equal(unlink(l->file), 0);
    up(l);
    assert_true(archives_settle(&l->w, "unreadable", 1));
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), 0);
    assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(archive_chain(l, 1), WEFT_OK);
    down_and_up(l);
    assert_true(archives_settle(&l->w, "ok", 1));
    assert_int_equal(get_chain(l, 1, WEFT_LOSSLESS), LINKS);
}

/* It is not said to be well while it cannot be read: without any profile, by a look alone; by
 * another one, as soon as somebody has tried; and is well again with its own. */
static void an_archive_without_its_profile_is_not_said_to_be_well(void **state)
{
    struct lossy *l = *state;
    char aside[160];
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down_and_up(l);
    assert_int_equal(archive_chain(l, 1), WEFT_OK);
    assert_true(archives_settle(&l->w, "ok", 1));
    down(l);
    snprintf(aside, sizeof aside, "%s.aside", l->file);
    assert_int_equal(rename(l->file, aside), 0);
    up(l);
    assert_true(archives_settle(&l->w, "unreadable", 1));
    down(l);
    profile_make(MODEL, 1, l->file);
    up(l);
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), 0);
    assert_true(archives_settle(&l->w, "unreadable", 1));
    assert_int_equal(rename(aside, l->file), 0); /* while it runs */
    assert_true(archives_settle(&l->w, "ok", 1));
    assert_int_equal(get_chain(l, 1, WEFT_TRANSPARENT), LINKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_stored_says_what_it_lost, one_tier),
        TEST(who_asks_for_better_has_it, one_tier),
        TEST(who_asks_for_more_since_is_not_answered_with_less, one_tier),
        TEST(without_its_profile_it_waits, one_tier),
        TEST(what_is_put_anew_without_its_profile_is_stored, one_tier),
        TEST(from_tier_to_tier_it_stays_what_it_is, with_an_exact),
        TEST(what_an_archive_keeps_is_no_better_for_another, one_tier),
        TEST(what_is_stored_twice_loses_once, one_tier),
        TEST(what_was_lost_elsewhere_can_be_put, one_tier),
        TEST(domains_side_by_side_have_their_own, one_tier),
        TEST(an_archive_without_its_profile_is_made_anew, one_tier),
        TEST(an_archive_without_its_profile_is_not_said_to_be_well, one_tier),
    };
    return cmocka_run_group_tests_name("lossy", tests, NULL, NULL);
}
