/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives while a tier that has a part of them does not work: what the others have of them stays,
 * whatever else wants their room; and when the tier is back, they are whole.  And names whose
 * manifest is gone, or was written by an archive that failed: what was said to be durable counts.
 */
#include "corners_world.h"

#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARCHIVES 4u
#define FILLERS_AT 100u
#define PRESSURE_AT 1000u

static uint32_t fillers;
static char refuse[160], refuse_at[192], hold[160], hold_at[192];
static const char *variables[] = {refuse_at, hold_at, NULL};

static void trouble(const char *file, uint32_t number, const struct world *w, const char *tier)
{
    char name[192];
    snprintf(name, sizeof name, "%s.new", file);
    FILE *out = fopen(name, "we");
    assert_non_null(out);
    fprintf(out, "%u %s/%s", number, w->node.directory, tier);
    fclose(out);
    assert_int_equal(rename(name, file), 0);
}

static void begin_here(struct world *w)
{
    begin(w, two_tiers);
    snprintf(refuse, sizeof refuse, "%s/refuse", w->node.directory);
    snprintf(refuse_at, sizeof refuse_at, "WEFT_NVME_REFUSE=%s", refuse);
    snprintf(hold, sizeof hold, "%s/hold", w->node.directory);
    snprintf(hold_at, sizeof hold_at, "WEFT_NVME_HOLD=%s", hold);
}

static void let_go_of(const struct world *w, char letter, uint64_t chain)
{
    char name[24];
    snprintf(name, sizeof name, "%c%u", letter, (unsigned)chain);
    assert_int_equal(weft_archive_remove(w->w, name), WEFT_OK);
}

/* Archives whose first half is on nvme0 and whose second is on nvme1, and nothing else counts. */
static void halves(struct world *w)
{
    /* Where the halves lie must not hang on how much smaller blocks become, nor on how fast. */
    set(w, "tier.nvme0.codec=none");
    set(w, "tier.nvme1.codec=none");
    set(w, "tier.nvme1.archive=false");
    start(w, variables);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++) {
        assert_int_equal(put_some(w, chain, DEPTH / 2), DEPTH / 2);
        assert_int_equal(archive(w, 'p', chain, DEPTH / 2), WEFT_OK);
    }
    enum weft_status status = WEFT_OK;
    for (fillers = 0; status == WEFT_OK; fillers += status == WEFT_OK) {
        assert_int_equal(put(w, FILLERS_AT + fillers), DEPTH);
        status = archive(w, 'f', FILLERS_AT + fillers, DEPTH);
    }
    assert_int_equal(status, WEFT_FULL);
    set(w, "tier.nvme1.archive=true");
    stop(w);
    start(w, variables);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++) {
        assert_int_equal(put(w, chain), DEPTH);
        assert_int_equal(archive(w, 'a', chain, DEPTH), WEFT_OK);
    }
    for (uint64_t chain = 0; chain < ARCHIVES; chain++)
        let_go_of(w, 'p', chain);
    for (uint64_t chain = 0; chain < fillers; chain++)
        let_go_of(w, 'f', FILLERS_AT + chain);
    assert_true(archives_settle(w, "ok", ARCHIVES));
}

/* Chains that want room, more than there is: those from the one to before the other. */
static void pressure(const struct world *w, uint64_t from, uint64_t to, int rest_ms)
{
    for (uint64_t chain = PRESSURE_AT + from; chain < PRESSURE_AT + to; chain++) {
        (void)put(w, chain);
        weftd_sleep_ms(rest_ms);
    }
}

/* The tier that failed works again: nothing of the archives went meanwhile. */
static void back_whole(struct world *w)
{
    unlink(refuse);
    assert_true(archives_settle(w, "ok", ARCHIVES));
    assert_int_equal(get_all(w, 0, ARCHIVES), ARCHIVES * DEPTH);
    end(w);
}

/* nvme1 fails while the node runs; nvme0 gets more than it has room for; nvme1 is back. */
static void test_pressure_while_the_other_is_away(void **state)
{
    (void)state;
    struct world w;
    begin_here(&w);
    halves(&w);
    trouble(refuse, 19, &w, "nvme1");
    pressure(&w, 0, 60, 0);
    assert_true(told(&w, "events", "tier_lost"));
    pressure(&w, 60, 120, 10);
    assert_true(archives(&w, "unavailable") > 0);
    back_whole(&w);
}

/* The same, and the node is started while nvme1 does not open. */
static void test_pressure_when_started_without(void **state)
{
    (void)state;
    struct world w;
    begin_here(&w);
    halves(&w);
    stop(&w);
    trouble(refuse, 19, &w, "nvme1");
    start(&w, variables);
    pressure(&w, 0, 60, 10);
    back_whole(&w);
}

/* All blocks on nvme1, the manifest on nvme0, which does not open for a while. */
static void test_the_manifest_is_away(void **state)
{
    (void)state;
    struct world w;
    begin_here(&w);
    set(&w, "tier.nvme0.admit=never");
    set(&w, "tier.nvme0.archive=false");
    start(&w, variables);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++) {
        assert_int_equal(put(&w, chain), DEPTH);
        assert_int_equal(archive(&w, 'p', chain, DEPTH), WEFT_OK);
    }
    set(&w, "tier.nvme0.archive=true");
    stop(&w);
    trouble(hold, 20, &w, "nvme1"); /* so that it is measured to be the farther one */
    start(&w, variables);
    unlink(hold);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++)
        assert_int_equal(archive(&w, 'a', chain, DEPTH), WEFT_OK);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++)
        let_go_of(&w, 'p', chain);
    assert_true(archives_settle(&w, "ok", ARCHIVES));
    stop(&w);
    trouble(refuse, 19, &w, "nvme0");
    start(&w, variables);
    pressure(&w, 0, 120, 10);
    back_whole(&w);
}

/* While the node opens its tiers it does not know its archives yet: a removal waits, or is
 * refused. */
static void test_removal_while_opening(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    size_t removed = 0;
    begin_here(&w);
    halves(&w);
    stop(&w);
    trouble(hold, 1500, &w, "nvme1");
    if (!weftd_start(&w.node, w.settings, variables))
        fail_msg("the node did not start");
    attach(&w);
    weftd_sleep_ms(300);
    chain_keys(&w, 0, keys);
    enum weft_status status = weft_remove(w.f, &keys[0], &removed);
    assert_int_equal(status, WEFT_E_BUSY);
    unlink(hold);
    opened(&w);
    assert_true(archives_settle(&w, "ok", ARCHIVES));
    end(&w);
}

/* A removal while the tier with the rest is away. */
static void test_removal_while_away(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    size_t removed = 0;
    begin_here(&w);
    halves(&w);
    trouble(refuse, 19, &w, "nvme1");
    pressure(&w, 0, 60, 0);
    assert_true(told(&w, "events", "tier_lost"));
    chain_keys(&w, 0, keys);
    enum weft_status status = weft_remove(w.f, &keys[0], &removed);
    assert_int_equal(status, WEFT_E_BUSY);
    unlink(refuse);
    assert_true(archives_settle(&w, "ok", ARCHIVES));
    end(&w);
}

/* The first half of the chains is in DRAM, too, when its tier fails, and leaves DRAM when no tier
 * takes it: that is no reason to remove the second half from a tier that works. */
static void test_the_beginning_leaves_dram(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    struct weft_pins pins[ARCHIVES];
    begin_here(&w);
    set(&w, "tier.nvme1.admit=never"); /* or full, or busy; it may hold archives */
    halves(&w);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++) {
        chain_keys(&w, chain, keys);
        assert_int_equal(weft_get_keys(w.f, keys, DEPTH, WEFT_BLOCK_ORDER, &pins[chain]), WEFT_OK);
        assert_int_equal(pins[chain].blocks, DEPTH);
        for (uint32_t i = 0; i < DEPTH; i++)
            assert_int_equal(weft_wait_block(&pins[chain], i), WEFT_OK);
    }
    trouble(refuse, 19, &w, "nvme0");
    pressure(&w, 0, 30, 0);
    assert_true(told(&w, "events", "tier_lost"));
    int64_t before = tier_number(&w, "nvme1", "blocks");
    for (uint64_t chain = 0; chain < ARCHIVES; chain++)
        weft_pins_release(&pins[chain]);
    pressure(&w, 30, 60, 5);
    fprintf(stderr, "# blocks on nvme1: %lld, then %lld\n", (long long)before,
            (long long)tier_number(&w, "nvme1", "blocks"));
    back_whole(&w);
}

/* The tier of the archives fails, and an empty one is there in its place: they are damaged, and
 * asked for again, they are not said to be durable before they have a manifest again. */
static void test_the_manifest_is_gone(void **state)
{
    (void)state;
    struct world w;
    char path[192];
    begin_here(&w);
    set(&w, "tiers=nvme0");
    start(&w, variables);
    for (uint64_t chain = 0; chain < 2; chain++) {
        assert_int_equal(put(&w, chain), DEPTH);
        assert_int_equal(archive(&w, 'a', chain, DEPTH), WEFT_OK);
    }
    trouble(refuse, 19, &w, "nvme0");
    assert_int_equal(put(&w, 50), DEPTH);
    (void)archive(&w, 'x', 50, DEPTH); /* so that it is noticed */
    assert_true(told(&w, "events", "tier_lost"));
    snprintf(path, sizeof path, "%s/nvme0", w.node.directory);
    assert_int_equal(truncate(path, 0), 0);
    unlink(refuse);
    assert_true(told(&w, "events", "came back without its manifest"));
    assert_true(archives_settle(&w, "damaged", 2));
    uint32_t again = 0;
    for (uint64_t chain = 0; chain < 2; chain++) {
        (void)put(&w, chain);
        again += archive(&w, 'a', chain, DEPTH) == WEFT_OK;
    }
    assert_int_equal(again, 2);
    stop(&w);
    start(&w, variables);
    assert_true(archives_settle(&w, "ok", 2));
    end(&w);
}

static bool name_is(const struct world *w, const char *name, const struct weft_key *tip)
{
    char query[64], hex[65], *text;
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", tip->bytes[i]);
    snprintf(query, sizeof query, "archive %s", name);
    if (weft_query(w->w, query, 0, &text) != WEFT_OK)
        return false;
    bool is = strstr(text, hex) != NULL && strstr(text, "\"state\":\"ok\"") != NULL;
    weft_text_free(text);
    return is;
}

/* A name's old archive, and a new one of that name that fails when its manifest may be written
 * already: its writes and syncs are held back, and from some moment on refused.  The old one counts
 * until the new one is said to be durable. */
static void test_a_name_whose_second_archive_failed(void **state)
{
    (void)state;
    struct world w;
    struct weft_key one[DEPTH], two[DEPTH];
    struct weft_archived out;
    begin_here(&w);
    set(&w, "tiers=nvme0");
    start(&w, variables);
    chain_keys(&w, 1, one);
    assert_int_equal(put(&w, 1), DEPTH);
    assert_int_equal(weft_archive_keys(w.f, "n", &one[DEPTH - 1], ARCHIVE_MS, &out), WEFT_OK);
    for (uint64_t turn = 0; turn < 6; turn++) {
        chain_keys(&w, 2 + turn, two);
        assert_int_equal(put(&w, 2 + turn), DEPTH);
        trouble(hold, 100, &w, "nvme0");
        enum weft_status status = WEFT_E_SYSTEM; /* until the tier works again */
        for (int waited = 0; status == WEFT_E_SYSTEM && waited < 10000; waited += 50) {
            status = weft_archive_keys(w.f, "n", &two[DEPTH - 1], 0, &out);
            weftd_sleep_ms(status == WEFT_E_SYSTEM ? 50 : 0);
        }
        assert_int_equal(status, WEFT_PENDING);
        weftd_sleep_ms(400 + 100 * (int)turn);
        trouble(refuse, 19, &w, "nvme0");
        unlink(hold);
        status = weft_archive_keys(w.f, "n", &two[DEPTH - 1], ARCHIVE_MS, &out);
        unlink(refuse);
        if (status == WEFT_OK)
            break;
        bool old = false; /* it takes the node a moment to open the tier again */
        for (int waited = 0; !old && waited < 10000; waited += 50) {
            old = name_is(&w, "n", &one[DEPTH - 1]);
            weftd_sleep_ms(old ? 0 : 50);
        }
        assert_true(old);
    }
    end(&w);
}

/* Somebody moves the tier's file away while the node runs, and puts it back; then it is deleted. */
static void test_the_file_is_gone(void **state)
{
    char path[192], away[200];
    (void)state;
    struct world w;
    begin_here(&w);
    set(&w, "tiers=nvme0");
    start(&w, variables);
    snprintf(path, sizeof path, "%s/nvme0", w.node.directory);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(put(&w, 0), DEPTH);
    assert_int_equal(archive(&w, 'a', 0, DEPTH), WEFT_OK);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(put(&w, 1), DEPTH);
    assert_int_not_equal(archive(&w, 'a', 1, DEPTH), WEFT_OK);
    assert_true(told(&w, "tiers", "put it back"));
    assert_int_equal(rename(away, path), 0);
    assert_true(archives_settle(&w, "ok", 1));
    assert_int_equal(archive(&w, 'a', 1, DEPTH), WEFT_OK);
    assert_int_equal(unlink(path), 0);
    assert_true(told(&w, "tiers", "put it back"));
    assert_int_not_equal(access(path, F_OK), 0);
    FILE *empty = fopen(path, "we");
    assert_non_null(empty);
    fclose(empty);
    assert_true(archives_settle(&w, "damaged", 2));
    assert_int_equal(put(&w, 2), DEPTH);
    assert_int_equal(archive(&w, 'a', 2, DEPTH), WEFT_OK);
    end(&w);
}

/* Its file is missing when the node starts: with archives no other is made in its place, without
 * them it is. */
static void test_the_file_is_missing(void **state)
{
    char path[192], away[200];
    (void)state;
    struct world w;
    begin_here(&w);
    set(&w, "tiers=nvme0");
    start(&w, variables);
    snprintf(path, sizeof path, "%s/nvme0", w.node.directory);
    snprintf(away, sizeof away, "%s.away", path);
    stop(&w);
    assert_int_equal(unlink(path), 0);
    start(&w, variables);
    assert_true(logged(&w, "is not the volume that was there last"));
    assert_int_equal(put(&w, 0), DEPTH);
    assert_int_equal(archive(&w, 'a', 0, DEPTH), WEFT_OK);
    stop(&w);
    assert_int_equal(rename(path, away), 0);
    start(&w, variables);
    assert_true(told(&w, "tiers", "put it back"));
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(rename(away, path), 0);
    assert_true(archives_settle(&w, "ok", 1));
    assert_int_equal(get(&w, 0), DEPTH);
    end(&w);
}

/* While manifests are still being read nobody knows of archives, and it stays written down that
 * there were some: a node that is killed then knows it at the next start. */
static void test_what_is_remembered_stays(void **state)
{
    char pattern[192];
    glob_t remembered;
    struct stat before, after;
    (void)state;
    struct world w;
    begin_here(&w);
    set(&w, "tiers=nvme0");
    set(&w, "state_dir=%d/state");
    start(&w, variables);
    snprintf(pattern, sizeof pattern, "%s/state/nvme0-*.tier", w.node.directory);
    assert_int_equal(put(&w, 0), DEPTH);
    assert_int_equal(archive(&w, 'a', 0, DEPTH), WEFT_OK);
    stop(&w);
    assert_int_equal(glob(pattern, 0, NULL, &remembered), 0);
    assert_int_equal(remembered.gl_pathc, 1);
    assert_int_equal(stat(remembered.gl_pathv[0], &before), 0);
    start(&w, variables);
    assert_true(archives_settle(&w, "ok", 1));
    assert_int_equal(stat(remembered.gl_pathv[0], &after), 0);
    globfree(&remembered);
    assert_true(before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
                before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pressure_while_the_other_is_away),
        cmocka_unit_test(test_pressure_when_started_without),
        cmocka_unit_test(test_the_manifest_is_away),
        cmocka_unit_test(test_removal_while_opening),
        cmocka_unit_test(test_removal_while_away),
        cmocka_unit_test(test_the_beginning_leaves_dram),
        cmocka_unit_test(test_the_manifest_is_gone),
        cmocka_unit_test(test_a_name_whose_second_archive_failed),
        cmocka_unit_test(test_the_file_is_gone),
        cmocka_unit_test(test_the_file_is_missing),
        cmocka_unit_test(test_what_is_remembered_stays),
    };
    return cmocka_run_group_tests_name("archive_away", tests, NULL, NULL);
}
