/* SPDX-License-Identifier: Apache-2.0
 *
 * Another program fills the disk that a tier's file lies on, while blocks are on their way there
 * from the tier before it: what was said to be durable is, what was on its way is where it was, who
 * asked hears of it, and when there is room again it goes on.
 */
#include "corners_world.h"

#include <errno.h>
#include <unistd.h>

#define CHAINS 40u
#define BEFORE 14u      /* the first of them have left DRAM, which has room for 8 */
#define FREE (7u << 20) /* of the second tier's 64 MiB, from where on there is no room */

static char refuse[160], refuse_at[192], hold[160], hold_at[192];
static const char *variables[] = {refuse_at, hold_at, NULL};

static void does(const char *file, int number, const struct world *w, uint64_t from)
{
    FILE *out = fopen(file, "we");
    assert_non_null(out);
    fprintf(out, "%d %s/nvme1 %llu %llu", number, w->node.directory, (unsigned long long)from,
            1ull << 40);
    fclose(out);
}

static void disk_fills_from(const struct world *w, uint64_t offset)
{
    does(refuse, ENOSPC, w, offset);
}

/* Archives may lie on the second tier, and a third, but not on the first: what is to be one is
 * copied from there. */
static void world_begin(struct world *w)
{
    begin(w, two_tiers);
    set(w, "tier.nvme0.archive=false");
    snprintf(refuse, sizeof refuse, "%s/refuse", w->node.directory);
    snprintf(refuse_at, sizeof refuse_at, "WEFT_NVME_REFUSE=%s", refuse);
    snprintf(hold, sizeof hold, "%s/hold", w->node.directory);
    snprintf(hold_at, sizeof hold_at, "WEFT_NVME_HOLD=%s", hold);
}

static void world_start(struct world *w)
{
    does(hold, 20, w, 0); /* so that it is measured to be the farther one */
    start(w, variables);
    unlink(hold);
}

/* One after the other, until one finds no room; which one that is. */
static uint64_t archive_until_full(struct world *w)
{
    enum weft_status status = WEFT_OK;
    uint64_t chain = 0;
    for (; chain < BEFORE; chain++)
        for (int tries = 0; put(w, chain) < DEPTH && tries < 200; tries++)
            weftd_sleep_ms(10);
    for (chain = 0; status == WEFT_OK; chain++) {
        assert_in_range(chain, 0, BEFORE - 8);
        status = archive(w, 'a', chain, DEPTH);
    }
    print_message("# archive %u: %s\n", (unsigned)chain - 1, weft_last_error());
    assert_int_equal(status, WEFT_FULL);
    return chain - 1;
}

static void test_archives_on_their_way(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_start(&w);
    disk_fills_from(&w, FREE);
    uint64_t full = archive_until_full(&w);
    assert_in_range(full, 1, BEFORE - 9);
    assert_true(strstr(weft_last_error(), "nvme1") != NULL);
    /* Nothing of it is lost for that, and those before it are whole. */
    assert_int_equal(get(&w, full), DEPTH);
    assert_int_equal(archives(&w, "ok"), full);
    assert_int_equal(archives(&w, "damaged"), 0);
    assert_int_equal(get_all(&w, 0, full), full * DEPTH);
    assert_true(logged(&w, "the file system is full; nothing is lost"));
    /* A stop writes there as well; and a tier that cannot be written is not opened, which is said.
     */
    stop(&w);
    start(&w, variables);
    assert_true(told(&w, "events", "tier nvme1 cannot be opened"));
    assert_int_equal(archives(&w, "damaged"), 0);
    unlink(refuse);
    assert_true(archives_settle(&w, "ok", (uint32_t)full));
    assert_int_equal(get_all(&w, 0, full), full * DEPTH);
    disk_fills_from(&w, FREE);
    assert_int_equal(put(&w, full), DEPTH);
    assert_int_equal(archive(&w, 'a', full, DEPTH), WEFT_FULL);
    detach(&w);
    weftd_kill(&w.node);
    unlink(refuse);
    start(&w, variables);
    assert_true(archives_settle(&w, "ok", (uint32_t)full));
    assert_int_equal(get_all(&w, 0, full), full * DEPTH);
    assert_int_equal(put(&w, full), DEPTH);
    assert_int_equal(archive(&w, 'a', full, DEPTH), WEFT_OK);
    stop(&w);
    start(&w, variables);
    assert_true(archives_settle(&w, "ok", (uint32_t)full + 1));
    assert_int_equal(get_all(&w, 0, full + 1), (full + 1) * DEPTH);
    end(&w);
}

/* Blocks that are cold move from the first tier to the second: those that do not fit there stay, or
 * go when their room is needed, and each that is found is right. */
static void test_cold_blocks_on_their_way(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    world_start(&w);
    disk_fills_from(&w, FREE);
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        for (int tries = 0; put(&w, chain) < DEPTH && tries < 200; tries++)
            weftd_sleep_ms(10);
    int64_t moved = tier_number(&w, "nvme1", "blocks");
    assert_true(moved > 0);
    assert_true(get_all(&w, 0, CHAINS) >= DEPTH);
    assert_true(told(&w, "tiers", "\"state\":\"ok\""));
    unlink(refuse);
    uint64_t chain = CHAINS;
    for (int waited = 0; tier_number(&w, "nvme1", "blocks") <= moved; waited += 10) {
        assert_in_range(waited, 0, 20000);
        (void)put(&w, chain++);
        weftd_sleep_ms(10);
    }
    (void)get_all(&w, 0, chain);
    end(&w);
}

/* With room on a third tier, that takes it. */
static void test_another_tier_has_room(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    set(&w, "tiers=nvme0,nvme1,nvme2");
    set(&w, "tier.nvme2.path=%d/nvme2");
    set(&w, "tier.nvme2.size=64MB");
    start(&w, variables);
    disk_fills_from(&w, 0);
    for (uint64_t chain = 0; chain < 4; chain++) {
        assert_int_equal(put(&w, chain), DEPTH);
        assert_int_equal(archive(&w, 'a', chain, DEPTH), WEFT_OK);
    }
    assert_true(tier_number(&w, "nvme2", "archived_bytes") == 4 * (int64_t)CHAIN_BYTES);
    assert_int_equal(archives(&w, "ok"), 4);
    unlink(refuse);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archives_on_their_way),
        cmocka_unit_test(test_another_tier_has_room),
        cmocka_unit_test(test_cold_blocks_on_their_way),
    };
    return cmocka_run_group_tests_name("archive_full", tests, NULL, NULL);
}
