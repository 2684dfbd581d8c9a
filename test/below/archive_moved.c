/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a chain while it becomes an archive.  Its blocks are on their way from a tier
 * that may hold archives to one that may not: what is archived stays where it is, however the moves
 * end. Or somebody removes one of them: not before that is over, and then it belongs to an archive.
 *
 * The tier holds back what it is given, so that it is all under way for seconds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chains.h"
#include "../support/tiers.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 65536
#define CHAIN 12u
#define CHAINS_MAX 60u
#define HOLD_MS "6000" /* longer than a reserve waits for room */
#define HOLD_ARCHIVE_MS "300"
#define WAIT_MS 30000

struct stage {
    struct weftd node;
    char near[128], far[160], near_at[160], far_at[192], hold[160], hold_at[192];
    struct weft *w;
    struct weft_format *f;
};

static void hold(const struct stage *s, const char *ms, const char *tier)
{
    FILE *file = fopen(s->hold, "we");
    assert_non_null(file);
    fprintf(file, "%s %s", ms, tier);
    fclose(file);
}

static void wait_open(const struct stage *s, int tiers)
{
    int open = 0;
    for (int waited = 0; open < tiers && waited < WAIT_MS; waited += 5) {
        char *text;
        assert_int_equal(weft_query(s->w, "events", 0, &text), WEFT_OK);
        open = 0;
        for (const char *at = text; (at = strstr(at, "tier_open")); at++)
            open++;
        weft_text_free(text);
        weftd_sleep_ms(5);
    }
    assert_int_equal(open, tiers);
}

static void stage_open(struct stage *s, bool both)
{
    const char *const settings[] = {"pool.size=2MB",
                                    "pool.size_max=2MB",
                                    "pool.policy=lru",
                                    "staging=1MB",
                                    both ? "tiers=near,far" : "tiers=near",
                                    "tier.near.kind=nvme",
                                    "tier.near.size=24MB",
                                    "tier.near.admit=always",
                                    "tier.near.timeout=60s",
                                    s->near_at,
                                    both ? "tier.far.kind=nvme" : NULL,
                                    "tier.far.size=64MB",
                                    "tier.far.admit=always",
                                    "tier.far.timeout=60s",
                                    "tier.far.archive=false",
                                    s->far_at,
                                    NULL};
    const char *const variables[] = {s->hold_at, NULL};
    if (!weftd_start(&s->node, settings, variables)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not start");
    }
    s->w = weftd_connect(&s->node, "default");
    s->f = s->w ? weftd_format(s->w, "moved", BLOCK_BYTES) : NULL;
    assert_non_null(s->f);
    wait_open(s, both ? 2 : 1);
}

static void stage_stop(struct stage *s)
{
    weft_format_close(s->f);
    weft_close(s->w);
    if (!weftd_stop(&s->node)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not end well");
    }
}

static void stage_prepare(struct stage *s)
{
    memset(s, 0, sizeof *s);
    weftd_prepare(&s->node);
    snprintf(s->near, sizeof s->near, "%s/near", s->node.directory);
    snprintf(s->far, sizeof s->far, "%s/far", s->node.directory);
    snprintf(s->near_at, sizeof s->near_at, "tier.near.path=%s", s->near);
    snprintf(s->far_at, sizeof s->far_at, "tier.far.path=%s", s->far);
    snprintf(s->hold, sizeof s->hold, "%s/hold", s->node.directory);
    snprintf(s->hold_at, sizeof s->hold_at, "WEFT_NVME_HOLD=%s", s->hold);
}

/* The first chain is an archive, and whole. */
static void check_archive(const struct stage *s)
{
    char *text;
    assert_int_equal(weft_query(s->w, "archive moved", 0, &text), WEFT_OK);
    assert_non_null(strstr(text, "\"state\":\"ok\""));
    weft_text_free(text);
    assert_int_equal(chain_get(s->f, 1, CHAIN), CHAIN);
}

static void test_archived_on_the_way(void **state)
{
    struct stage s;
    struct weft_key keys[CHAIN];
    struct weft_archived got;
    (void)state;
    stage_prepare(&s);
    hold(&s, "20", s.far); /* so that it is measured to be the farther one */
    stage_open(&s, true);
    hold(&s, HOLD_MS, s.far);
    /* Until there is no room before something has moved: the first chain is the coldest, and the
     * first to go. */
    uint64_t chain = 1;
    while (chain_put(s.f, chain, CHAIN) == CHAIN && chain < CHAINS_MAX)
        chain++;
    assert_in_range(chain, 2, CHAINS_MAX - 1);
    assert_int_equal(tier_number_of(s.w, "far", "blocks"), 0);
    keys_of(s.f, 1, CHAIN, keys);
    assert_int_equal(weft_archive_keys(s.f, "moved", &keys[CHAIN - 1], WAIT_MS, &got), WEFT_OK);
    assert_string_equal(got.tier, "near");
    unlink(s.hold);
    for (int waited = 0; tier_number_of(s.w, "far", "blocks") == 0 && waited < WAIT_MS;
         waited += 10)
        weftd_sleep_ms(10);
    assert_true(tier_number_of(s.w, "far", "blocks") > 0);
    stage_stop(&s);
    stage_open(&s, false);
    check_archive(&s);
    stage_stop(&s);
    weftd_clean(&s.node);
}

static void test_removed_on_the_way(void **state)
{
    struct stage s;
    struct weft_key keys[CHAIN];
    struct weft_archived got;
    size_t removed;
    uint64_t chain = 1;
    (void)state;
    stage_prepare(&s);
    stage_open(&s, false);
    for (; chain < 8; chain++) /* so that the first is on the tier alone */
        assert_int_equal(chain_put(s.f, chain, CHAIN), CHAIN);
    keys_of(s.f, 1, CHAIN, keys);
    assert_true(tier_number_of(s.w, "near", "blocks") >= CHAIN);
    hold(&s, HOLD_ARCHIVE_MS, s.near);
    assert_int_equal(weft_archive_keys(s.f, "moved", &keys[CHAIN - 1], 50, &got), WEFT_PENDING);
    assert_int_equal(weft_remove(s.f, &keys[CHAIN - 1], &removed), WEFT_E_BUSY);
    assert_int_equal(weft_archive_keys(s.f, "moved", &keys[CHAIN - 1], WAIT_MS, &got), WEFT_OK);
    unlink(s.hold);
    check_archive(&s);
    stage_stop(&s);
    weftd_clean(&s.node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archived_on_the_way),
        cmocka_unit_test(test_removed_on_the_way),
    };
    return cmocka_run_group_tests_name("archive_moved", tests, NULL, NULL);
}
