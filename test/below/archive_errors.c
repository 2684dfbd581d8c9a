/* SPDX-License-Identifier: Apache-2.0
 *
 * A read that fails once while a node starts, and never again: what is archived is not let go of
 * for that, and is there when the tier answers.
 */
#include "corners_world.h"

#include <sys/wait.h>
#include <unistd.h>

static const char *const one_tier[] = {
    "pool.size=4MB",          "pool.size_max=4MB",      "tiers=disk",
    "tier.disk.kind=nvme",    "tier.disk.path=%d/disk", "tier.disk.size=48MB",
    "tier.disk.admit=always", "pool.policy=lru",        NULL};

static char refuse[160], refuse_at[192], disk[160];
static const char *variables[2] = {refuse_at, NULL};

static void world_begin(struct world *w)
{
    begin(w, one_tier);
    snprintf(refuse, sizeof refuse, "%s/refuse", w->node.directory);
    snprintf(refuse_at, sizeof refuse_at, "WEFT_NVME_REFUSE=%s", refuse);
    snprintf(disk, sizeof disk, "%s/disk", w->node.directory);
}

static void refuse_range(uint64_t from, uint64_t to)
{
    FILE *file = fopen(refuse, "we");
    assert_non_null(file);
    fprintf(file, "5 %s %llu %llu", disk, (unsigned long long)from, (unsigned long long)to);
    fclose(file);
}

/* Where on the tier the words are, the last time. */
static uint64_t place_of(const char *words)
{
    static char bytes[48 << 20];
    FILE *file = fopen(disk, "re");
    size_t got = fread(bytes, 1, sizeof bytes, file), length = strlen(words);
    uint64_t at = 0;
    fclose(file);
    for (size_t i = 0; i + length <= got; i++)
        if (memcmp(bytes + i, words, length) == 0)
            at = i;
    assert_true(at);
    return at;
}

/* More than the tier takes. */
static void fill(struct world *w)
{
    for (uint64_t chain = 100; chain < 180; chain++)
        for (int tries = 0; put(w, chain) < DEPTH && tries < 200; tries++)
            weftd_sleep_ms(10);
}

/* Whatever wants its room, the first chain's archive is whole, also at the next start. */
static void filled_and_whole(struct world *w)
{
    fill(w);
    stop(w);
    start(w, variables);
    assert_true(archives_settle(w, "ok", 1));
    assert_int_equal(get(w, 1), DEPTH);
    end(w);
}

static void manifest_read_fails(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    start(&w, variables);
    assert_int_equal(put(&w, 1), DEPTH);
    assert_int_equal(archive(&w, 'm', 1, DEPTH), WEFT_OK);
    stop(&w);
    uint64_t at = place_of("WFARCHIV");
    refuse_range(at, at + 1);
    start(&w, variables);
    weftd_sleep_ms(500);
    unlink(refuse);
    filled_and_whole(&w);
}

/* The manifest's segment cannot be read, and that of the blocks can. */
static void segment_read_fails(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    world_begin(&w);
    start(&w, variables);
    assert_int_equal(put(&w, 1), DEPTH);
    assert_int_equal(archive(&w, 'm', 1, DEPTH), WEFT_OK); /* written to the first segment, */
    for (uint64_t chain = 2; chain < 10; chain++) {
        assert_int_equal(put(&w, chain), DEPTH);
        assert_int_equal(archive(&w, 'x', chain, DEPTH), WEFT_OK);
    }
    chain_keys(&w, 1, keys);
    struct weft_archived out;
    assert_int_equal(weft_archive_remove(w.w, "m1"), WEFT_OK);
    assert_int_equal(weft_archive_keys(w.f, "late", &keys[DEPTH - 1], ARCHIVE_MS, &out), WEFT_OK);
    for (uint64_t chain = 2; chain < 10; chain++) {
        char name[8];
        snprintf(name, sizeof name, "x%u", (unsigned)chain);
        assert_int_equal(weft_archive_remove(w.w, name), WEFT_OK);
    }
    stop(&w);
    uint64_t at = place_of("late"); /* and the manifest to a later one */
    at -= at % (4u << 20);
    refuse_range(at + (64u << 10), at + (4u << 20));
    pid_t child = fork();
    if (child == 0) {
        weftd_sleep_ms(300);
        unlink(refuse);
        _exit(0);
    }
    start(&w, variables);
    waitpid(child, NULL, 0);
    filled_and_whole(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(manifest_read_fails),
        cmocka_unit_test(segment_read_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
