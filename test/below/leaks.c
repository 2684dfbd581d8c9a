/* SPDX-License-Identifier: Apache-2.0
 *
 * A node that works for long does not grow: some hundred times blocks are put, written below, read
 * back, archived and let go of, by clients that come and go.  The second half of that takes no more
 * memory of the node's own, and no more descriptors, than the first half did.
 */
#include "corners_world.h"

#include <dirent.h>

#define CYCLES 400u
#define CHAINS 24u /* three times the pool */
/* What an allocator may keep of what it was given back.  A cycle that leaks 0.7 KiB is seen. */
#define SLACK_KIB 128

static int64_t own_kib(const struct world *w)
{
    char path[48], line[128];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)w->node.pid);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (kib < 0 && fgets(line, sizeof line, file))
        (void)!sscanf(line, "RssAnon: %ld kB", &kib);
    fclose(file);
    assert_true(kib > 0);
    return kib;
}

static uint32_t descriptors(const struct world *w)
{
    char path[48];
    uint32_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)w->node.pid);
    DIR *open = opendir(path);
    assert_non_null(open);
    while (readdir(open))
        count++;
    closedir(open);
    return count;
}

static void cycle(struct world *w, uint64_t n)
{
    struct weft_key keys[DEPTH];
    struct weft_session *session;
    uint64_t chain = n % CHAINS;
    size_t removed;
    char name[24];
    if (n % 4 == 0) { /* another client in its place */
        detach(w);
        attach(w);
    }
    assert_int_equal(put(w, chain), DEPTH);
    assert_int_equal(archive(w, 'a', chain, DEPTH), WEFT_OK);
    uint32_t found = get(w, (chain + 7) % CHAINS);
    assert_int_equal(found, n < CHAINS && chain + 7 < CHAINS ? 0 : DEPTH);
    assert_int_equal(weft_session_open(w->f, NULL, &session), WEFT_OK);
    weft_session_close(session);
    uint64_t old = (n + 3) % CHAINS;
    if (n < CHAINS || n % 3)
        return;
    snprintf(name, sizeof name, "a%u", (unsigned)old);
    assert_int_equal(weft_archive_remove(w->w, name), WEFT_OK);
    chain_keys(w, old, keys);
    assert_int_equal(weft_remove(w->f, &keys[0], &removed), WEFT_OK);
    assert_int_equal(removed, DEPTH);
    assert_int_equal(put(w, old), DEPTH);
    assert_int_equal(archive(w, 'a', old, DEPTH), WEFT_OK);
}

static void test_it_does_not_grow(void **state)
{
    (void)state;
    struct world w;
    static const char *const settings[] = {"pool.size=8MB",
                                           "pool.size_max=8MB",
                                           "pool.policy=lru",
                                           "log.level=info",
                                           "events=1024", /* their ring fills soon */
                                           "tiers=nvme0",
                                           "tier.nvme0.path=%d/nvme0",
                                           "tier.nvme0.size=256MB",
                                           "tier.nvme0.admit=always",
                                           NULL};
    int64_t half_kib = 0;
    uint32_t half_descriptors = 0;
    begin(&w, settings);
    start(&w, NULL);
    for (uint64_t n = 0; n < CYCLES; n++) {
        cycle(&w, n);
        if (n + 1 != CYCLES / 2)
            continue;
        assert_true(weftd_settles(w.w, NULL, "clients", 1));
        half_kib = own_kib(&w);
        half_descriptors = descriptors(&w);
    }
    assert_true(weftd_settles(w.w, NULL, "clients", 1));
    assert_int_equal(weftd_number(w.w, "default", "blocks_reserved"), 0);
    print_message("# the node's own memory: %lld KiB after %u cycles, %lld after %u; %u and %u "
                  "descriptors\n",
                  (long long)half_kib, CYCLES / 2, (long long)own_kib(&w), CYCLES, half_descriptors,
                  descriptors(&w));
    assert_int_equal(descriptors(&w), half_descriptors);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(own_kib(&w) <= half_kib + SLACK_KIB); /* a sanitizer keeps what was freed */
#endif
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_it_does_not_grow)};
    return cmocka_run_group_tests_name("leaks", tests, NULL, NULL);
}
