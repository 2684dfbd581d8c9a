/* SPDX-License-Identifier: Apache-2.0
 *
 * A result of an archive that nobody took is not the answer to who asks later: what became of the
 * archive meanwhile counts.
 */
#include "corners_world.h"

#include <unistd.h>

static const char *const one_tier[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "tiers=disk",
                                       "tier.disk.kind=nvme",
                                       "tier.disk.path=%d/disk",
                                       "tier.disk.size=64MB",
                                       "tier.disk.admit=always",
                                       NULL};

static char hold[160], hold_at[192];

static void open_world(struct world *w)
{
    static const char *variables[2];
    begin(w, one_tier);
    snprintf(hold, sizeof hold, "%s/hold", w->node.directory);
    snprintf(hold_at, sizeof hold_at, "WEFT_NVME_HOLD=%s", hold);
    variables[0] = hold_at;
    start(w, variables);
}

/* Ask, and do not wait for what comes of it. */
static void ask(const struct world *w, uint64_t chain)
{
    FILE *file = fopen(hold, "we");
    assert_non_null(file);
    fputs("300", file);
    fclose(file);
    struct weft_key keys[DEPTH];
    struct weft_archived out;
    char name[24];
    chain_keys(w, chain, keys);
    snprintf(name, sizeof name, "s%u", (unsigned)chain);
    assert_int_equal(weft_archive_keys(w->f, name, &keys[DEPTH - 1], 0, &out), WEFT_PENDING);
    unlink(hold);
}

static void removed_meanwhile(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_int_equal(put(&w, 1), DEPTH);
    ask(&w, 1);
    assert_true(archives_settle(&w, "ok", 1));
    assert_int_equal(weft_archive_remove(w.w, "s1"), WEFT_OK);
    assert_int_equal(archives(&w, "ok"), 0);
    /* The chain is still there; so it is archived anew. */
    assert_int_equal(archive(&w, 's', 1, DEPTH), WEFT_OK);
    assert_int_equal(archives(&w, "ok"), 1);
    end(&w);
}

static void chain_removed_meanwhile(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    size_t removed;
    open_world(&w);
    assert_int_equal(put(&w, 1), DEPTH);
    ask(&w, 1);
    assert_true(archives_settle(&w, "ok", 1));
    assert_int_equal(weft_archive_remove(w.w, "s1"), WEFT_OK);
    chain_keys(&w, 1, keys);
    assert_int_equal(weft_remove(w.f, &keys[0], &removed), WEFT_OK);
    assert_int_equal(archive(&w, 's', 1, DEPTH), WEFT_E_NOT_FOUND);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removed_meanwhile),
        cmocka_unit_test(chain_removed_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
