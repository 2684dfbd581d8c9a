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

#include <unistd.h>

#include "../support/s3.h"
#include "lossy_world.h"

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

static int setup_bucket(void **state)
{
    int failed = setup(state);
    (void)s3_ask("s3://weft-lossy", WF_S3_PUT, "", NULL, NULL, 0, NULL, 0, NULL);
    return failed;
}

static void without_its_profile_it_waits_in_the_bucket(void **state)
{
    struct lossy *l = *state;
    enum weft_quality quality;
    char aside[160];
    up(l);
    assert_int_equal(put_chain(l, 1), LINKS);
    down(l);
    snprintf(aside, sizeof aside, "%s.aside", l->file);
    assert_int_equal(rename(l->file, aside), 0);
    for (int time = 0; time < 2; time++) { /* a second start has it as the first had */
        up(l);
        assert_int_equal(matched(l, 1, &quality), LINKS);
        assert_int_equal(get_chain(l, 1, WEFT_ECONOMY), 0);
        assert_true(told(&l->w, "events", "\"reason\":\"profile\""));
        assert_int_equal(matched(l, 1, &quality), LINKS); /* it is there still */
        assert_int_equal(tier_number(&l->w, "bucket", "blocks"), LINKS);
        if (time == 0)
            down(l);
    }
    assert_int_equal(rename(aside, l->file), 0); /* while it runs */
    assert_true(told(&l->w, "events", " was read, for KV of " MODEL));
    assert_int_equal(get_chain(l, 1, WEFT_ECONOMY), LINKS);
    down(l);
    up(l);
    assert_int_equal(get_chain(l, 1, WEFT_ECONOMY), LINKS);
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
        cmocka_unit_test_prestate_setup_teardown(without_its_profile_it_waits_in_the_bucket,
                                                 setup_bucket, teardown,
                                                 (void *)(uintptr_t)settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
