/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier with an archive fails, the archive's blocks are put again and written to another tier, and
 * then the first is back: each block is on two tiers, durably on the first alone.  When that needs
 * room, its copies do not go before the other tier was flushed.
 *
 * The farther tier holds back what it is given, a flush too, for longer than the test looks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chains.h"
#include "../support/tiers.h"
#include "../support/weftd.h"
#include "sys/clock.h"

#define BLOCK_BYTES 65536
#define CHAIN 12u
#define CHAINS_MAX 60u
#define HOLD_MS 60000u
#define LOOK_MS 8000u /* most of it until room is short: moves to the farther one are held, too */
#define WAIT_MS 30000
#define NEARLY (9 << 20) /* archived there, and hardly room for more */

struct stage {
    struct weftd node;
    char near[128], far[128], near_at[160], far_at[160];
    char hold[160], hold_at[192], refuse[160], refuse_at[192];
    struct weft *w;
    struct weft_format *f;
};

/* What a tier of that path does from now on: WEFT_NVME_HOLD, WEFT_NVME_REFUSE. */
static void trouble(const char *file, uint32_t number, const char *path)
{
    char name[192];
    snprintf(name, sizeof name, "%s.new", file);
    FILE *out = fopen(name, "we");
    assert_non_null(out);
    fprintf(out, "%u %s", number, path);
    fclose(out);
    assert_int_equal(rename(name, file), 0);
}

/* How often the node's answer to a query has `what`. */
static int said(const struct stage *s, const char *query, const char *what)
{
    char *text;
    int times = 0;
    if (weft_query(s->w, query, 0, &text) != WEFT_OK)
        return 0;
    for (const char *at = text; (at = strstr(at, what)); at++)
        times++;
    weft_text_free(text);
    return times;
}

static void wait_said(const struct stage *s, const char *query, const char *what, int times)
{
    for (int waited = 0; said(s, query, what) < times; waited += 5) {
        if (waited > WAIT_MS)
            fail_msg("%s never said %s %d times", query, what, times);
        weftd_sleep_ms(5);
    }
}

static void stage_open(struct stage *s)
{
    memset(s, 0, sizeof *s);
    weftd_prepare(&s->node);
    snprintf(s->near, sizeof s->near, "%s/near", s->node.directory);
    snprintf(s->far, sizeof s->far, "%s/far", s->node.directory);
    snprintf(s->near_at, sizeof s->near_at, "tier.near.path=%s", s->near);
    snprintf(s->far_at, sizeof s->far_at, "tier.far.path=%s", s->far);
    snprintf(s->hold, sizeof s->hold, "%s/hold", s->node.directory);
    snprintf(s->hold_at, sizeof s->hold_at, "WEFT_NVME_HOLD=%s", s->hold);
    snprintf(s->refuse, sizeof s->refuse, "%s/refuse", s->node.directory);
    snprintf(s->refuse_at, sizeof s->refuse_at, "WEFT_NVME_REFUSE=%s", s->refuse);
    trouble(s->hold, 20, s->far); /* so that it is measured to be the farther one */
    const char *const settings[] = {"pool.size=2MB",
                                    "pool.size_max=2MB",
                                    "pool.policy=lru",
                                    "staging=1MB",
                                    "tiers=near,far",
                                    "tier.near.kind=nvme",
                                    "tier.near.size=24MB",
                                    "tier.near.admit=always",
                                    "tier.near.timeout=60s",
                                    s->near_at,
                                    "tier.far.kind=nvme",
                                    "tier.far.size=64MB",
                                    "tier.far.admit=always",
                                    "tier.far.timeout=60s",
                                    s->far_at,
                                    NULL};
    const char *const variables[] = {s->hold_at, s->refuse_at, NULL};
    if (!weftd_start(&s->node, settings, variables)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not start");
    }
    s->w = weftd_connect(&s->node, "default");
    s->f = s->w ? weftd_format(s->w, "spare", BLOCK_BYTES) : NULL;
    assert_non_null(s->f);
    wait_said(s, "events", "tier_open", 2);
    unlink(s->hold);
}

/* What a tier holds back would keep an orderly stop waiting. */
static void stage_end(struct stage *s)
{
    weftd_kill(&s->node);
    weft_format_close(s->f);
    weft_close(s->w);
    weftd_clean(&s->node);
}

static enum weft_status archive(const struct stage *s, uint64_t chain, uint32_t wait_ms)
{
    char name[32];
    struct weft_key keys[CHAIN];
    struct weft_archived got;
    snprintf(name, sizeof name, "of%u", (unsigned)chain);
    keys_of(s->f, chain, CHAIN, keys);
    return weft_archive_keys(s->f, name, &keys[CHAIN - 1], wait_ms, &got);
}

/* How many blocks of the first chain are on both tiers. */
static uint32_t on_both(const struct stage *s)
{
    struct weft_key keys[CHAIN];
    uint32_t both = 0;
    keys_of(s->f, 1, CHAIN, keys);
    for (uint32_t i = 0; i < CHAIN; i++) {
        char query[32] = "below key=";
        for (uint32_t at = 0; at < 8; at++)
            snprintf(query + 10 + 2 * at, 3, "%02x", keys[i].bytes[at]);
        both += said(s, query, "\"near\"") && said(s, query, "\"far\"");
    }
    return both;
}

static void spare(bool held)
{
    struct stage s;
    uint64_t chain = 2;
    stage_open(&s);
    (void)chain_put(s.f, 1, CHAIN);
    assert_int_equal(archive(&s, 1, WAIT_MS), WEFT_OK);
    assert_int_equal(tier_number_of(s.w, "near", "archived_bytes"), CHAIN * BLOCK_BYTES);
    trouble(s.refuse, 19, s.near); /* ENODEV */
    for (; said(&s, "events", "tier_lost") == 0 && chain < CHAINS_MAX; chain++)
        (void)chain_put(s.f, chain, CHAIN);
    (void)chain_put(s.f, 1, CHAIN);
    assert_int_equal(archive(&s, 1, WAIT_MS), WEFT_OK);
    assert_int_equal(tier_number_of(s.w, "far", "archived_bytes"), CHAIN * BLOCK_BYTES);
    unlink(s.refuse);
    wait_said(&s, "events", "tier_open", 3);
    for (int waited = 0; on_both(&s) < CHAIN; waited += 20) {
        assert_in_range(waited, 0, WAIT_MS);
        weftd_sleep_ms(20);
    }
    while (tier_number_of(s.w, "near", "archived_bytes") < NEARLY && chain < CHAINS_MAX) {
        (void)chain_put(s.f, ++chain, CHAIN);
        assert_int_equal(archive(&s, chain, WAIT_MS), WEFT_OK);
    }
    assert_int_equal(on_both(&s), CHAIN);
    if (held)
        trouble(s.hold, HOLD_MS, s.far);
    uint64_t from_ms = wf_now_ms();
    while (on_both(&s) == CHAIN && wf_now_ms() - from_ms < (held ? LOOK_MS : WAIT_MS)) {
        (void)chain_put(s.f, ++chain, CHAIN);
        (void)!archive(&s, chain, 0); /* by and by, and when there is no room nearer, farther */
        weftd_sleep_ms(50);
    }
    print_message("# %u on both after %u ms\n", on_both(&s), (unsigned)(wf_now_ms() - from_ms));
    if (held)
        assert_int_equal(on_both(&s), CHAIN);
    else
        assert_true(on_both(&s) < CHAIN);
    stage_end(&s);
}

static void test_a_spare_copy_goes(void **state)
{
    (void)state;
    spare(false);
}

static void test_not_before_the_other_is_flushed(void **state)
{
    (void)state;
    spare(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_spare_copy_goes),
        cmocka_unit_test(test_not_before_the_other_is_flushed),
    };
    return cmocka_run_group_tests_name("archive_spare", tests, NULL, NULL);
}
