/* SPDX-License-Identifier: Apache-2.0
 *
 * What a byte of payload takes on a tier, as the node measures it: of what the tier says that it
 * holds, whatever the directory has forgotten by then or not heard of yet.  And how fast the
 * background check reads of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "daemon/below.h"

#define BLOCK_BYTES 131072u
#define TAKES 135168u /* with a header of a page */
#define BLOCKS 64u

static void shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality)
{
    (void)quality;
    (void)context, (void)domain, (void)key, (void)tier;
}

static void dropped(void *context, const struct wf_directory_dropped *block)
{
    (void)context, (void)block;
}

struct stage {
    struct wf_below below;
    struct wf_lower lower;
    uint32_t entries[BLOCKS];
};

static int before(void **state)
{
    static struct stage s;
    const struct wf_directory_env env = {.context = &s, .shown = shown, .dropped = dropped};
    memset(&s, 0, sizeof s);
    assert_int_equal(wf_directory_create(1024, 7, &env, &s.below.directory), WEFT_OK);
    s.lower.below = &s.below;
    s.lower.expansion = 1;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct wf_directory_add add = {.bytes = BLOCK_BYTES, .tier = 0};
        random_key(i + 1, add.key);
        assert_int_equal(wf_directory_add(s.below.directory, &add, &s.entries[i]), WEFT_OK);
    }
    s.lower.stats.tier.blocks = BLOCKS;
    s.lower.stats.tier.used_bytes = (uint64_t)BLOCKS * TAKES;
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    wf_directory_destroy(s->below.directory);
    return 0;
}

static void assert_measured(struct stage *s, double expected)
{
    wf_lower_measure(&s->lower);
    double is = s->lower.expansion;
    if (is < expected * 0.999 || is > expected * 1.001)
        fail_msg("%f and not %f", is, expected);
}

static void what_headers_cost_is_measured(void **state)
{
    assert_measured(*state, (double)TAKES / BLOCK_BYTES);
}

/* The directory forgets at once what a tier is still to remove: that makes no block larger. */
static void what_is_to_be_removed_does_not_count(void **state)
{
    struct stage *s = *state;
    for (uint32_t i = 0; i < BLOCKS - 16; i++) {
        wf_directory_lose(s->below.directory, s->entries[i], 0);
        assert_measured(s, (double)TAKES / BLOCK_BYTES);
    }
    s->lower.stats.tier.blocks = 16; /* and now it has removed them */
    s->lower.stats.tier.used_bytes = 16ull * TAKES;
    assert_measured(s, (double)TAKES / BLOCK_BYTES);
}

/* What has come is the tier's before it is the directory's: that makes no block smaller. */
static void what_has_just_come_does_not_count(void **state)
{
    struct stage *s = *state;
    s->lower.stats.tier.blocks = 2 * BLOCKS;
    s->lower.stats.tier.used_bytes = 2ull * BLOCKS * TAKES;
    assert_measured(s, (double)TAKES / BLOCK_BYTES);
}

static void what_cannot_be_is_not_believed(void **state)
{
    struct stage *s = *state;
    s->lower.stats.tier.used_bytes = 1;
    assert_measured(s, 1 / 64.0);
    s->lower.stats.tier.used_bytes = UINT64_MAX / 2;
    assert_measured(s, 64);
    s->lower.expansion = 1.5;
    s->lower.stats.tier.blocks = 0; /* it has not said yet */
    assert_measured(s, 1.5);
    s->lower.stats.tier.blocks = BLOCKS;
    for (uint32_t i = 4; i < BLOCKS; i++)
        wf_directory_lose(s->below.directory, s->entries[i], 0);
    assert_measured(s, 1.5); /* too little to go by */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

/* --------------------------------------------------------------------- the background check */

/* Unless a rate is said, a pass takes an hour, and of a bucket, which is paid for, a month. */
static void the_check_has_a_pace(void **state)
{
    (void)state;
    static struct wf_config config;
    static const char *const said[] = {"tiers=a,b",         "tier.a.path=/a",
                                       "tier.b.kind=s3",    "tier.b.path=s3://abc/b",
                                       "tier.a.scrub=32MB", "tier.b.scrub=1MB"};
    const double day = 86400, mib = 1 << 20, gib = 1 << 30;
    assert_int_equal(wf_config_load("/dev/null", said, 4, &config), WEFT_OK);
    const struct wf_tier_config *file = &config.tiers[0], *bucket = &config.tiers[1];
    assert_true(wf_tier_scrub_rate(file, 0) < 1);
    assert_true(wf_tier_scrub_rate(file, 3600u * 1000u) <= 1000);
    assert_true(wf_tier_scrub_rate(file, 1ull << 50) == 32 * mib);
    assert_true(wf_tier_scrub_rate(bucket, 1ull << 50) * day <= gib);
    assert_true(wf_tier_scrub_rate(bucket, 15ull << 30) * day * 30 <= 15 * gib + 1);
    assert_true(wf_tier_scrub_rate(bucket, 15ull << 30) * day * 30 >= 15 * gib - 1);
    assert_true(wf_tier_scrub_rate(bucket, 1ull << 30) * day >= 64 * mib - 1);
    assert_true(wf_tier_scrub_rate(bucket, 3600) <= 1);
    assert_int_equal(wf_config_load("/dev/null", said, 6, &config), WEFT_OK);
    assert_true(wf_tier_scrub_rate(file, 4096) == 32 * mib);
    assert_true(wf_tier_scrub_rate(bucket, 4096) == mib);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_headers_cost_is_measured),     TEST(what_is_to_be_removed_does_not_count),
        TEST(what_has_just_come_does_not_count), TEST(what_cannot_be_is_not_believed),
        cmocka_unit_test(the_check_has_a_pace),
    };
    return cmocka_run_group_tests_name("below_room", tests, NULL, NULL);
}
