/* SPDX-License-Identifier: Apache-2.0
 *
 * An archive that was replaced by one of another chain, whose manifest lies on another tier, and
 * then let go of: when the node is killed after that was said, neither is there again.
 */
#include "corners_world.h"

static const char *const far_only[] = {
    "pool.size=8MB",        "pool.size_max=8MB",  "tiers=n,f",
    "tier.n.kind=nvme",     "tier.n.path=%d/n",   "tier.n.size=32MB",
    "tier.n.archive=false", "tier.n.admit=never", "tier.f.kind=nvme",
    "tier.f.path=%d/f",     "tier.f.size=32MB",   NULL};
static const char *const near_only[] = {"pool.size=8MB",       "pool.size_max=8MB",
                                        "tiers=n,f",           "tier.n.kind=nvme",
                                        "tier.n.path=%d/n",    "tier.n.size=32MB",
                                        "tier.n.admit=always", "tier.f.kind=nvme",
                                        "tier.f.path=%d/f",    "tier.f.size=32MB",
                                        "tier.f.admit=never",  NULL};

static enum weft_status archive_as(const struct world *w, const char *name, uint64_t chain)
{
    struct weft_key keys[DEPTH];
    struct weft_archived out;
    chain_keys(w, chain, keys);
    enum weft_status status = weft_archive_keys(w->f, name, &keys[DEPTH - 1], ARCHIVE_MS, &out);
    fprintf(stderr, "# %s of chain %u: %s\n", name, (unsigned)chain, out.tier);
    return status;
}

static void replaced_and_let_go_of(void **state)
{
    (void)state;
    struct world w;
    begin(&w, far_only);
    start(&w, NULL);
    assert_int_equal(put(&w, 1), DEPTH);
    assert_int_equal(archive_as(&w, "x", 1), WEFT_OK);
    stop(&w);
    set_all(&w, near_only);
    start(&w, NULL);
    assert_int_equal(put(&w, 2), DEPTH);
    assert_int_equal(archive_as(&w, "x", 2), WEFT_OK);
    assert_int_equal(weft_archive_remove(w.w, "x"), WEFT_OK);
    detach(&w);
    weftd_kill(&w.node);
    start(&w, NULL);
    weftd_sleep_ms(300);
    assert_int_equal(archives(&w, "ok"), 0);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replaced_and_let_go_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
