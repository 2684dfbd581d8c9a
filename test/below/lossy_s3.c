/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that an object store holds with loss, and a node that starts without the profile that
 * they were stored by: they are misses, it says why, and nothing is lost; with the profile they are
 * there again.  The server is real, on loopback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/stat.h>
#include <unistd.h>

#include "../support/profile.h"
#include "../support/s3.h"
#include "corners_world.h"

#define MODEL "small@1"
#define LINKS 6u

static const char *const settings[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "pool.policy=lru",
                                       "drain=30s",
                                       "log.level=info",
                                       "profiles=%d/profiles",
                                       "domain.default.quality=economy",
                                       "tiers=bucket",
                                       "tier.bucket.kind=s3",
                                       "tier.bucket.path=s3://weft-lossy/node",
                                       "tier.bucket.size=64MB",
                                       "tier.bucket.admit=always",
                                       NULL};

struct lossy {
    struct world w;
    struct weft_format *f;
    char file[128];
    struct wf_profile *profile;
};

static void up(struct lossy *l)
{
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = PROFILE_LAYERS,
                                          .kv_heads = PROFILE_HEADS,
                                          .head_dim = PROFILE_DIM,
                                          .dtype = WEFT_BF16,
                                          .block_tokens = PROFILE_TOKENS};
    start(&l->w, NULL);
    assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
}

static void down(struct lossy *l)
{
    weft_format_close(l->f);
    l->f = NULL;
    stop(&l->w);
}

static int setup(void **state)
{
    char folder[96];
    struct lossy *l = calloc(1, sizeof *l);
    assert_non_null(l);
    begin(&l->w, settings);
    snprintf(folder, sizeof folder, "%s/profiles", l->w.node.directory);
    snprintf(l->file, sizeof l->file, "%s/small.wfprofile", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    profile_make(MODEL, 0, l->file);
    l->profile = profile_read(l->file);
    (void)s3_ask("s3://weft-lossy", WF_S3_PUT, "", NULL, NULL, 0, NULL, 0, NULL);
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

static void put_chain(const struct lossy *l)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    keys_of(l->f, 1, LINKS, keys);
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        assert_int_equal(slots[i].status, WEFT_OK);
        profile_block(i, slots[i].data);
    }
    assert_int_equal(weft_commit_slots(l->f, slots, LINKS), WEFT_OK);
}

/* How many come, each as the profile has it; a miss is the only other answer. */
static uint32_t get_chain(const struct lossy *l)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    keys_of(l->f, 1, LINKS, keys);
    assert_int_equal(weft_get_keys(l->f, keys, LINKS, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    for (; found < pins.blocks; found++) {
        enum weft_status status = weft_wait_block(&pins, found);
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        profile_block(found, plain);
        profile_back(l->profile, WEFT_ECONOMY, found, plain, back);
        assert_memory_equal(pins.data[found], back, sizeof plain);
        assert_int_equal(weft_pin_quality(&pins.pins[found]), WEFT_ECONOMY);
    }
    weft_pins_release(&pins);
    return found;
}

static size_t matched(const struct lossy *l)
{
    struct weft_key keys[LINKS];
    size_t present;
    keys_of(l->f, 1, LINKS, keys);
    assert_int_equal(weft_match_keys(l->f, keys, LINKS, &present), WEFT_OK);
    return present;
}

static void without_its_profile_it_waits_in_the_bucket(void **state)
{
    struct lossy *l = *state;
    char aside[160];
    up(l);
    put_chain(l);
    down(l);
    snprintf(aside, sizeof aside, "%s.aside", l->file);
    assert_int_equal(rename(l->file, aside), 0);
    for (int time = 0; time < 2; time++) { /* a second start has it as the first had */
        up(l);
        assert_int_equal(matched(l), LINKS);
        assert_int_equal(get_chain(l), 0);
        assert_true(told(&l->w, "events", "\"reason\":\"profile\""));
        assert_int_equal(matched(l), LINKS); /* it is there still */
        assert_int_equal(tier_number(&l->w, "bucket", "blocks"), LINKS);
        if (time == 0)
            down(l);
    }
    assert_int_equal(rename(aside, l->file), 0); /* while it runs */
    assert_true(told(&l->w, "events", " was read, for KV of " MODEL));
    assert_int_equal(get_chain(l), LINKS);
    down(l);
    up(l);
    assert_int_equal(get_chain(l), LINKS);
}

int main(void)
{
    uint16_t port;
    const char *why = s3_server(&port);
    if (why) {
        printf("1..0 # SKIP no object store: %s\n", why);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_its_profile_it_waits_in_the_bucket, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
