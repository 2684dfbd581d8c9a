/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives are let go of while the tier with their manifest does not work: what the node says of
 * each is what becomes of it when the tier is back.
 */
#include "corners_world.h"

#include <unistd.h>

#define ARCHIVES 3u

static const char *const one_tier[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "drain=30s",
                                       "log.level=info",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=16MB",
                                       "tier.nvme0.admit=always",
                                       NULL};

static void archive_all(const struct world *w)
{
    for (uint64_t chain = 0; chain < ARCHIVES; chain++) {
        assert_int_equal(put(w, chain), DEPTH);
        assert_int_equal(archive(w, 'a', chain, DEPTH), WEFT_OK);
    }
}

/* Its file is away, and the node knows: they stay, and are as they were when it is back. */
static void test_a_tier_that_has_failed_keeps_its_archives(void **state)
{
    char path[192], away[200];
    struct world w;
    (void)state;
    begin(&w, one_tier);
    start(&w, NULL);
    archive_all(&w);
    snprintf(path, sizeof path, "%s/nvme0", w.node.directory);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    assert_true(told(&w, "tiers", "put it back"));
    for (uint32_t tries = 0; tries < 2; tries++) {
        assert_int_equal(weft_archive_remove(w.w, "a1"), WEFT_E_SYSTEM);
        assert_non_null(strstr(weft_last_error(), "'a1' stays"));
    }
    assert_int_equal(rename(away, path), 0);
    assert_true(archives_settle(&w, "ok", ARCHIVES));
    assert_int_equal(weft_archive_remove(w.w, "a1"), WEFT_OK);
    stop(&w);
    start(&w, NULL);
    assert_true(archives_settle(&w, "ok", ARCHIVES - 1));
    assert_int_equal(weft_archive_remove(w.w, "a1"), WEFT_E_NOT_FOUND);
    end(&w);
}

/* Its device gives errors from now on, which the removal is the first to meet. */
/* In any state: it may change between two looks. */
static uint32_t archives_all(const struct world *w)
{
    char *text;
    uint32_t count = 0;
    assert_int_equal(weft_query(w->w, "archives", 0, &text), WEFT_OK);
    for (const char *at = text; (at = strstr(at, "\"state\":\"")); at++)
        count++;
    weft_text_free(text);
    return count;
}

static void test_a_tier_that_fails_at_it(void **state)
{
    char refuse[160], variable[192];
    const char *const variables[] = {variable, NULL};
    struct world w;
    (void)state;
    begin(&w, one_tier);
    snprintf(refuse, sizeof refuse, "%s/refuse", w.node.directory);
    snprintf(variable, sizeof variable, "WEFT_NVME_REFUSE=%s", refuse);
    start(&w, variables);
    archive_all(&w);
    FILE *file = fopen(refuse, "we");
    assert_non_null(file);
    fprintf(file, "19 %s/nvme0", w.node.directory);
    fclose(file);
    assert_int_equal(weft_archive_remove(w.w, "a1"), WEFT_E_SYSTEM);
    bool stays = strstr(weft_last_error(), "'a1' stays") != NULL;
    assert_true(stays || strstr(weft_last_error(), "removed when the tier is back"));
    fprintf(stderr, "# the tier had failed %s\n", stays ? "before" : "at it");
    assert_int_equal(archives_all(&w), stays ? ARCHIVES : ARCHIVES - 1);
    assert_true(told(&w, "events", "tier_lost"));
    unlink(refuse);
    assert_true(told(&w, "tiers", "\"state\":\"ok\",\"emulated\":false,\"durable\":true"));
    assert_true(archives_settle(&w, "ok", stays ? ARCHIVES : ARCHIVES - 1));
    stop(&w);
    start(&w, variables);
    assert_true(archives_settle(&w, "ok", stays ? ARCHIVES : ARCHIVES - 1));
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tier_that_has_failed_keeps_its_archives),
        cmocka_unit_test(test_a_tier_that_fails_at_it),
    };
    return cmocka_run_group_tests_name("archive_leave", tests, NULL, NULL);
}
