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

#include "../support/profile.h"
#include "corners_world.h"

#define MODEL "small@1"
#define CHAINS 12u
#define LINKS 6u /* blocks of a chain */

static const char *const one_tier[] = {"pool.size=8MB",
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

struct lossy {
    struct world w;
    struct weft_format *f; /* while the node runs: of what the domain asks for, mostly */
    char folder[96], file[128];
    struct wf_profile *profile;
    uint32_t times; /* that blocks were stored */
};

static struct weft_format *format_of(const struct lossy *l, enum weft_quality quality)
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

static void ask_for(struct lossy *l, enum weft_quality quality)
{
    weft_format_close(l->f);
    l->f = format_of(l, quality);
}

static void up(struct lossy *l)
{
    start(&l->w, NULL);
    ask_for(l, WEFT_QUALITY_DEFAULT);
}

/* What is in DRAM is stored. */
static void down(struct lossy *l)
{
    weft_format_close(l->f);
    l->f = NULL;
    stop(&l->w);
}

static void down_and_up(struct lossy *l)
{
    down(l);
    up(l);
}

/* *state: settings at first, then a node with a profile that was not started. */
static int setup(void **state)
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

static int teardown(void **state)
{
    struct lossy *l = *state;
    weft_format_close(l->f);
    end(&l->w);
    wf_profile_destroy(l->profile);
    free(l);
    return 0;
}

static uint32_t number_of(uint64_t chain, uint32_t link)
{
    return (uint32_t)(chain * 1000 + link);
}

/* How many of its blocks are new. */
static uint32_t put_chain(const struct lossy *l, uint64_t chain)
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
static uint32_t get_chain(const struct lossy *l, uint64_t chain, enum weft_quality quality)
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

static size_t matched(const struct lossy *l, uint64_t chain, enum weft_quality *out)
{
    struct weft_key keys[LINKS];
    size_t present;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_match_keys(l->f, keys, LINKS, &present), WEFT_OK);
    assert_int_equal(weft_quality_keys(l->f, keys, LINKS, out), WEFT_OK);
    return present;
}

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

static enum weft_status archive_chain(const struct lossy *l, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_archived out;
    keys_of(l->f, chain, LINKS, keys);
    return weft_archive_keys(l->f, "lossy", &keys[LINKS - 1], ARCHIVE_MS, &out);
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

/* A block too small to be encoded cannot say below that it has lost something: so it is not there,
 * and nobody takes it for exact later. */
static void what_cannot_say_that_it_lost_is_not_stored(void **state)
{
    struct lossy *l = *state;
    struct weft_key keys[2];
    struct weft_slot slots[2];
    size_t present;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = 1};
    for (int i = 0; i < 2; i++) {
        start(&l->w, NULL);
        assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
        keys_of(l->f, 1, 2, keys);
        assert_int_equal(weft_match_keys(l->f, keys, 2, &present), WEFT_OK);
        assert_int_equal(present, i); /* what was put exactly is there, and exact */
        for (uint32_t j = 0; i == 0 && j < 2; j++) {
            uint32_t lost = j == 1 ? WEFT_LOST_TRANSPARENT : 0;
            assert_int_equal(weft_reserve_keys(l->f, j ? &keys[0] : NULL, &keys[j], 1,
                                               WEFT_CHAINED | lost, &slots[j]),
                             WEFT_OK);
            memset(slots[j].data, 1, weft_format_block_bytes(l->f));
            assert_int_equal(weft_commit_slots(l->f, &slots[j], 1), WEFT_OK);
        }
        if (i == 0)
            down(l);
        set(&l->w, "domain.default.quality=lossless");
    }
}

/* And that is why, in words, when it goes from DRAM. */
static void why_it_is_not_stored_is_said(void **state)
{
    struct lossy *l = *state;
    struct weft_key key;
    struct weft_slot slot;
    struct weft_format *small;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = 1};
    up(l);
    assert_int_equal(weft_format_open(l->w.w, &spec, &small), WEFT_OK);
    keys_of(small, 1000, 1, &key);
    assert_int_equal(weft_reserve_keys(small, NULL, &key, 1, WEFT_CHAINED | WEFT_LOST_TRANSPARENT,
                                       &slot),
                     WEFT_OK);
    memset(slot.data, 1, weft_format_block_bytes(small));
    assert_int_equal(weft_commit_slots(small, &slot, 1), WEFT_OK);
    for (uint64_t c = 1; c <= 60; c++) /* more than DRAM has room for */
        assert_int_equal(put_chain(l, c), LINKS);
    assert_true(told(&l->w, "events", "\"not_below\":\"lossy before\""));
    assert_false(weftd_told(l->w.w, "\"not_below\":\"key taken\"", 0));
    weft_format_close(small);
}

static uint32_t times_in(const char *text, const char *word)
{
    uint32_t times = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        times++;
    return times;
}

/* Lines of a level that have the word. */
static uint32_t logged_at(const struct lossy *l, const char *level, const char *word)
{
    char line[2048];
    uint32_t times = 0;
    FILE *log = fopen(l->w.node.log, "re");
    assert_non_null(log);
    while (fgets(line, sizeof line, log))
        times += strstr(line, level) && strstr(line, word);
    fclose(log);
    return times;
}

/* What was made for the model and is not used, and what is gone, is more than something to know. */
static void a_profile_that_is_not_used_is_warned_of(void **state)
{
    struct lossy *l = *state;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS,
                                    .rope_theta = 4321};
    start(&l->w, NULL);
    assert_true(told(&l->w, "events", "profile small.wfprofile was read, for KV of " MODEL ": "));
    assert_false(weftd_told(l->w.w, "is used for", 0));
    assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
    assert_true(told(&l->w, "tiers", "\"lossy\":\"transform\""));
    assert_true(told(&l->w, "events", "no profile for " MODEL ": small.wfprofile is for"));
    assert_int_equal(logged_at(l, "warn", "no profile fits this format of model " MODEL), 1);
    assert_int_equal(unlink(l->file), 0);
    assert_true(told(&l->w, "events", "profile small.wfprofile is gone"));
    assert_int_equal(logged_at(l, "warn", "that profile is not there any more"), 1);
}

/* An event for each format that has no profile, and one line of the log for all of them. */
static void formats_without_profiles_are_told_once(void **state)
{
    static const char *const models[] = {"one@1", "two@1", "three@1"};
    struct lossy *l = *state;
    start(&l->w, NULL);
    for (size_t i = 0; i < 3; i++) {
        struct weft_format_spec spec = {.model = models[i],
                                        .layers = PROFILE_LAYERS,
                                        .kv_heads = PROFILE_HEADS,
                                        .head_dim = PROFILE_DIM,
                                        .dtype = WEFT_BF16,
                                        .block_tokens = PROFILE_TOKENS};
        assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
        assert_int_equal(put_chain(l, 1), LINKS);
        assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
        assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
        weft_format_close(l->f);
        l->f = NULL;
        char word[64], *events;
        snprintf(word, sizeof word, "no profile for %s", models[i]);
        assert_true(told(&l->w, "events", word));
        assert_int_equal(weft_query(l->w.w, "events", 0, &events), WEFT_OK);
        assert_int_equal(times_in(events, models[i]), 1);
        weft_text_free(events);
    }
    assert_int_equal(logged_at(l, "info", "no profile fits this format"), 1);
}

/* KV that no profile is made for: by it, it would not become small. */
static void put_noise(const struct lossy *l, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    uint32_t state = 12345;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        uint16_t *numbers = slots[i].data;
        assert_int_equal(slots[i].status, WEFT_OK);
        for (size_t at = 0; at < PROFILE_BLOCK_BYTES / sizeof *numbers; at++) {
            uint32_t bits;
            state = state * 1664525 + 1013904223;
            float number = 1e4f * ((float)(state >> 8) / (float)(1u << 23) - 1);
            memcpy(&bits, &number, sizeof bits);
            numbers[at] = (uint16_t)(bits >> 16);
        }
    }
    assert_int_equal(weft_commit_slots(l->f, slots, LINKS), WEFT_OK);
}

/* It is stored exactly, which is counted, and told once. */
static void what_its_profile_is_not_for_is_told(void **state)
{
    struct lossy *l = *state;
    char word[64], *events;
    up(l);
    assert_false(told(&l->w, "formats", "\"declined\":1"));
    put_noise(l, 1);
    assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
    snprintf(word, sizeof word, "\"declined\":%d}", LINKS);
    assert_true(told(&l->w, "formats", word));
    assert_int_equal(weft_query(l->w.w, "events", 0, &events), WEFT_OK);
    assert_int_equal(times_in(events, "small.wfprofile, for " MODEL ": a block is stored exactly"),
                     1);
    weft_text_free(events);
    assert_int_equal(logged_at(l, "info", "is stored exactly: its frame"), 1);
    put_chain(l, 2); /* its own goes as ever */
    assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
    assert_int_equal(archive_chain(l, 2), WEFT_OK);
    assert_true(told(&l->w, "formats", word));
}

/* Who asks for a loss and has no profile hears of it before a block is written, and where. */
static void a_folder_without_profiles_is_told_at_the_start(void **state)
{
    struct lossy *l = *state;
    assert_int_equal(unlink(l->file), 0);
    up(l);
    assert_int_equal(logged_at(l, "info", "asks for transparent, and there is no profile in "), 1);
    assert_true(told(&l->w, "profiles", "\"profiles\":[]"));
    assert_true(told(&l->w, "formats", "\"profile_why\":\"none names that model\""));
    profile_make(MODEL, 0, l->file);
    assert_true(told(&l->w, "profiles", "\"file\":\"small.wfprofile\",\"model\":\"" MODEL "\""));
    assert_true(told(&l->w, "formats", "\"profile_why\":null"));
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

#define TEST(test, settings) \
    cmocka_unit_test_prestate_setup_teardown(test, setup, teardown, (void *)(uintptr_t)(settings))

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
        TEST(what_cannot_say_that_it_lost_is_not_stored, one_tier),
        TEST(domains_side_by_side_have_their_own, one_tier),
        TEST(an_archive_without_its_profile_is_made_anew, one_tier),
        TEST(an_archive_without_its_profile_is_not_said_to_be_well, one_tier),
        TEST(why_it_is_not_stored_is_said, one_tier),
        TEST(formats_without_profiles_are_told_once, one_tier),
        TEST(a_profile_that_is_not_used_is_warned_of, one_tier),
        TEST(what_its_profile_is_not_for_is_told, one_tier),
        TEST(a_folder_without_profiles_is_told_at_the_start, one_tier),
    };
    return cmocka_run_group_tests_name("lossy", tests, NULL, NULL);
}
