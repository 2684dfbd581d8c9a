/* SPDX-License-Identifier: Apache-2.0
 *
 * What is rarely done to a node with tiers: started again with less memory, or with its tiers in
 * another order, or without one of them, or with one more; memory taken back while blocks come and
 * go; a flipped byte; a stop that has no time.
 */
#include "corners_world.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARCHIVES 4u
#define CHAINS 20u /* the archived ones first */
#define FILLERS_AT 100u

/* ------------------------------------------------------------------------------- started again */

static uint32_t fillers;

static void again(struct world *w)
{
    stop(w);
    assert_int_equal(truncate(w->node.log, 0), 0);
    start(w, NULL);
}

/* Chains that are archived, their first half on the one tier, which is then full of archives, their
 * second on the other; beside them, the same again under another name. */
static void fill(struct world *w)
{
    set(w, "tier.nvme1.archive=false");
    start(w, NULL);
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
    assert_true(fillers > ARCHIVES);
    set(w, "tier.nvme1.archive=true");
    again(w);
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(w, chain), DEPTH);
    for (uint64_t chain = 0; chain < ARCHIVES; chain++)
        for (char letter = 'a'; letter <= 'b'; letter++)
            assert_int_equal(archive(w, letter, chain, DEPTH), WEFT_OK);
    int64_t all = (int64_t)((ARCHIVES + fillers) * CHAIN_BYTES), half = ARCHIVES * CHAIN_BYTES / 2;
    int64_t second = tier_number(w, "nvme1", "archived_bytes");
    assert_int_equal(second + tier_number(w, "nvme0", "archived_bytes"), all);
    /* Some found room on the first, which has more of it when blocks lie there encoded. */
    assert_in_range(second, half / 8, half);
}

static void all_is_there(const struct world *w)
{
    assert_true(archives_settle(w, "ok", 3 * ARCHIVES + fillers));
    assert_int_equal(get_all(w, 0, CHAINS), CHAINS * DEPTH);
    assert_int_equal(get_all(w, FILLERS_AT, fillers), fillers * DEPTH);
}

static void test_less_memory_and_another_order(void **state)
{
    (void)state;
    struct world w;
    begin(&w, two_tiers);
    fill(&w);
    set(&w, "pool.size=3MB");
    set(&w, "pool.size_max=3MB");
    again(&w);
    all_is_there(&w);
    set(&w, "tiers=nvme1,nvme0");
    again(&w);
    all_is_there(&w);
    end(&w);
}

static void test_a_tier_more(void **state)
{
    (void)state;
    struct world w;
    begin(&w, two_tiers);
    fill(&w);
    set(&w, "tiers=cxl0,nvme0,nvme1");
    set(&w, "tier.cxl0.kind=cxl");
    set(&w, "tier.cxl0.path=file-emulation:%d/cxl0");
    set(&w, "tier.cxl0.size=16MB");
    set(&w, "tier.cxl0.admit=always");
    again(&w);
    all_is_there(&w);
    end(&w);
}

/* Without the tier where its chains begin a node does not find the rest of them; nothing of that is
 * lost, unless its room is needed. */
static void test_a_tier_less(void **state)
{
    (void)state;
    static const char *const second[] = {"pool.size=8MB",
                                         "pool.size_max=8MB",
                                         "pool.policy=lru",
                                         "drain=30s",
                                         "log.level=info",
                                         "tiers=nvme1",
                                         "tier.nvme1.path=%d/nvme1",
                                         "tier.nvme1.size=64MB",
                                         "tier.nvme1.admit=always",
                                         NULL};
    struct world w;
    begin(&w, two_tiers);
    fill(&w);
    for (uint32_t turn = 0; turn < 2; turn++) {
        set_all(&w, second);
        again(&w);
        assert_int_equal(get_all(&w, 0, ARCHIVES), 0);
        assert_int_equal(archives(&w, "ok"), 0);
        assert_true(logged_soon(&w, "begin on no tier of this node"));
        for (uint64_t chain = 1000; turn && chain < 1080; chain++)
            assert_int_equal(put(&w, chain), DEPTH);
        set_all(&w, two_tiers);
        again(&w);
        if (turn == 0) {
            assert_true(archives_settle(&w, "ok", 3 * ARCHIVES + fillers));
            assert_int_equal(get_all(&w, 0, ARCHIVES), ARCHIVES * DEPTH);
        }
        assert_int_equal(get_all(&w, FILLERS_AT, fillers), fillers * DEPTH);
        for (int waited = 0; turn && waited < 5000 && !archives(&w, "damaged"); waited += 10)
            weftd_sleep_ms(10);
        assert_true(!turn || archives(&w, "damaged") > 0); /* it went, for what was put */
    }
    end(&w);
}

/* Full of what begins nowhere, a tier is as good as empty: all of that goes before anything that is
 * written, also while more is being written. */
static void test_a_tier_full_of_what_begins_nowhere(void **state)
{
    (void)state;
    static const char *const second[] = {"pool.size=8MB",
                                         "pool.size_max=8MB",
                                         "pool.policy=lru",
                                         "drain=30s",
                                         "log.level=info",
                                         "tiers=nvme1",
                                         "tier.nvme1.path=%d/nvme1",
                                         "tier.nvme1.size=32MB",
                                         "tier.nvme1.admit=always",
                                         NULL};
    struct world w;
    begin(&w, second);
    set(&w, "tiers=nvme0,nvme1");
    set(&w, "tier.nvme0.path=%d/nvme0");
    set(&w, "tier.nvme0.size=16MB");
    set(&w, "tier.nvme0.admit=always");
    set(&w, "tier.nvme1.archive=false");
    start(&w, NULL);
    uint64_t chains = 0;
    while (chains < 22 && put_some(&w, chains, 1) == 1 && archive(&w, 'p', chains, 1) == WEFT_OK)
        chains++;
    assert_int_equal(chains, 22);
    stop(&w);
    set(&w, "tier.nvme0.archive=false");
    set(&w, "tier.nvme0.admit=never");
    set(&w, "tier.nvme1.archive=true");
    start(&w, NULL);
    for (uint64_t chain = 0; chain < chains; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    stop(&w);
    set_all(&w, second);
    start(&w, NULL);
    assert_true(logged_soon(&w, "begin on no tier of this node"));
    const uint64_t many = 24;
    for (uint64_t chain = 1000; chain < 1000 + many; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    uint32_t found = get_all(&w, 1000, many);
    print_message("# %u of %u blocks were kept\n", found, (unsigned)many * DEPTH);
    assert_true(found >= many * DEPTH * 3 / 4); /* a tier may be full for a moment */
    end(&w);
}

/* A tier that cannot become so small is out of use, with a word, until it may be as large again. */
static void test_a_smaller_tier(void **state)
{
    (void)state;
    struct world w;
    begin(&w, two_tiers);
    fill(&w);
    set(&w, "tier.nvme1.size=32MB");
    again(&w);
    assert_true(told(&w, "events", "cannot shrink"));
    /* What lies there is not to be had, and that is some. */
    assert_in_range(get_all(&w, 0, ARCHIVES), ARCHIVES * DEPTH / 2, ARCHIVES * DEPTH - 1);
    assert_int_equal(archives(&w, "ok"), ARCHIVES + fillers);
    set(&w, "tier.nvme1.size=64MB");
    again(&w);
    all_is_there(&w);
    end(&w);
}

/* ---------------------------------------------------------------------- a stop without the time */

static const char *const one_tier[] = {"pool.size=16MB",        "pool.size_max=32MB",
                                       "pool.policy=lru",       "log.level=info",
                                       "tiers=nvme0",           "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=256MB", "tier.nvme0.admit=always",
                                       "tier.nvme0.scrub=0",    NULL};

static void test_a_stop_without_the_time(void **state)
{
    (void)state;
    enum { PUT = 8 };
    struct world w;
    char hold[96], variable[128], line[512] = "";
    unsigned blocks = 0, after = 0;
    begin(&w, one_tier);
    set(&w, "drain=300ms");
    snprintf(hold, sizeof hold, "%s/hold", w.node.directory);
    snprintf(variable, sizeof variable, "WEFT_NVME_HOLD=%s", hold);
    start(&w, (const char *const[]){variable, NULL});
    for (uint64_t chain = 0; chain < PUT; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    FILE *file = fopen(hold, "we");
    assert_non_null(file);
    fputs("1000", file);
    fclose(file);
    stop(&w);
    unlink(hold);
    FILE *log = fopen(w.node.log, "re");
    assert_non_null(log);
    while (!blocks && fgets(line, sizeof line, log)) {
        const char *at = strstr(line, "stopped with ");
        if (at)
            assert_int_equal(sscanf(at, "stopped with %u blocks (%*[^)]) not written below: the %u",
                                    &blocks, &after),
                             2);
    }
    fclose(log);
    if (!blocks)
        weftd_show_log(&w.node);
    assert_in_range(blocks, 1, PUT * DEPTH);
    assert_int_equal(after, 300);
    assert_non_null(strstr(line, "MiB)"));
    /* What it does not name is there; and with the time nothing is said. */
    assert_int_equal(truncate(w.node.log, 0), 0);
    set(&w, "drain=30s");
    start(&w, NULL);
    assert_true(get_all(&w, 0, PUT) >= PUT * DEPTH - blocks);
    for (uint64_t chain = 0; chain < PUT; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    again(&w);
    assert_int_equal(get_all(&w, 0, PUT), PUT * DEPTH);
    assert_false(logged(&w, "stopped with"));
    end(&w);
}

/* ------------------------------------------------------------------------------------------ rot */

/* Flip a byte of the payload of the chain's last block, as it lies on the tier's file. */
static void flip(const struct world *w, const struct weft_key *key)
{
    char path[128];
    uint8_t page[4096], byte;
    struct stat there = {.st_size = 0};
    bool found = false;
    snprintf(path, sizeof path, "%s/nvme0", w->node.directory);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &there) == 0);
    for (off_t at = 1 << 20; !found && at < there.st_size; at += (off_t)sizeof page) {
        assert_int_equal(pread(fd, page, sizeof page, at), sizeof page);
        if (memcmp(page, "WEFBBLK1", 8) != 0 || memcmp(page + 64, key->bytes, 32) != 0)
            continue; /* src/tier/nvme_format.h draws it */
        assert_int_equal(pread(fd, &byte, 1, at + 4096 + 77777), 1);
        byte ^= 4;
        assert_int_equal(pwrite(fd, &byte, 1, at + 4096 + 77777), 1);
        found = true;
    }
    close(fd);
    assert_true(found);
}

enum { ROTTEN = 3, ROTTEN_OF = 6 };

static void rot(struct world *w)
{
    struct weft_key keys[ROTTEN][DEPTH];
    for (uint64_t chain = 0; chain < ROTTEN_OF; chain++)
        assert_int_equal(put(w, chain), DEPTH);
    for (uint64_t chain = 0; chain < ROTTEN; chain++)
        chain_keys(w, chain, keys[chain]);
    stop(w);
    for (uint32_t chain = 0; chain < ROTTEN; chain++)
        flip(w, &keys[chain][DEPTH - 1]);
}

static void test_rot_is_counted_once(void **state)
{
    (void)state;
    struct world w;
    begin(&w, one_tier);
    start(&w, NULL);
    rot(&w);
    start(&w, NULL);
    assert_int_equal(tier_number(&w, "nvme0", "corrupt"), 0);
    for (uint32_t turn = 0; turn < 2; turn++) {
        assert_int_equal(get_all(&w, 0, ROTTEN), ROTTEN * (DEPTH - 1));
        assert_int_equal(get_all(&w, ROTTEN, ROTTEN), ROTTEN * DEPTH);
        assert_int_equal(tier_number(&w, "nvme0", "corrupt"), ROTTEN);
        assert_int_equal(tier_number(&w, "nvme0", "errors"), 0);
        assert_int_equal(tier_number(&w, "nvme0", "blocks"), ROTTEN_OF * DEPTH - ROTTEN);
        assert_int_equal(weftd_number(w.w, "default", "below.loads_lost"), ROTTEN);
        assert_int_equal(weftd_number(w.w, "default", "corrupt"), 0); /* of DRAM */
    }
    assert_true(told(&w, "events", "corrupt"));
    bool named = false; /* a line a second, of one of them */
    for (uint32_t chain = 0; chain < ROTTEN; chain++) {
        struct weft_key keys[DEPTH];
        char text[64];
        chain_keys(&w, chain, keys);
        const uint8_t *key = keys[DEPTH - 1].bytes;
        snprintf(text, sizeof text, "tier nvme0: block %02x%02x%02x%02x…: ", key[0], key[1], key[2],
                 key[3]);
        named |= logged(&w, text);
    }
    assert_true(named);
    for (uint64_t chain = 0; chain < ROTTEN; chain++) /* and it can be put again */
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(get_all(&w, 0, ROTTEN_OF), ROTTEN_OF * DEPTH);
    end(&w);
}

/* A tier that is small is not read over and over, unless a rate is asked for. */
static void test_a_small_tier_is_left_in_peace(void **state)
{
    (void)state;
    static const char *const unsaid[] = {"pool.size=16MB",           "pool.size_max=32MB",
                                         "pool.policy=lru",          "tiers=nvme0",
                                         "tier.nvme0.path=%d/nvme0", "tier.nvme0.size=256MB",
                                         "tier.nvme0.admit=always",  NULL};
    struct world w;
    begin(&w, unsaid);
    start(&w, NULL);
    assert_int_equal(put(&w, 1), DEPTH);
    stop(&w);
    start(&w, NULL);
    assert_int_equal(tier_number(&w, "nvme0", "blocks"), DEPTH);
    int64_t before = tier_number(&w, "nvme0", "reads");
    weftd_sleep_ms(2500); /* two rounds of the check */
    assert_int_equal(tier_number(&w, "nvme0", "reads"), before);
    end(&w);
}

/* Nobody reads: the background check finds it. */
static void test_rot_is_found_unasked(void **state)
{
    (void)state;
    struct world w;
    begin(&w, one_tier);
    set(&w, "tier.nvme0.scrub=1GB");
    start(&w, NULL);
    rot(&w);
    start(&w, NULL);
    bool found = false;
    for (int waited = 0; !found && waited < 20000; waited += 100) {
        found = tier_number(&w, "nvme0", "corrupt") == ROTTEN;
        weftd_sleep_ms(100);
    }
    assert_true(found);
    assert_true(tier_settles(&w, "nvme0", "blocks", ROTTEN_OF * DEPTH - ROTTEN));
    assert_int_equal(weftd_number(w.w, "default", "below.loads_lost"), 0);
    assert_int_equal(get_all(&w, 0, ROTTEN), ROTTEN * (DEPTH - 1));
    assert_int_equal(tier_number(&w, "nvme0", "corrupt"), ROTTEN);
    end(&w);
}

/* Also of a block that is larger than what a second's rate and some more would be. */
static void test_rot_of_a_large_block_is_found(void **state)
{
    (void)state;
    enum { LARGE = 28 << 20 };
    struct weft_key key;
    struct weft_slot slot;
    struct world w;
    const uint64_t name = 1;
    begin(&w, one_tier);
    set(&w, "pool.size=64MB");
    set(&w, "pool.size_max=64MB");
    set(&w, "tier.nvme0.size=2GB");
    set(&w, "tier.nvme0.scrub=8MB");
    start(&w, NULL);
    struct weft_format *large = weftd_format(w.w, "large", LARGE);
    assert_non_null(large);
    assert_int_equal(weft_key_from_bytes(large, &name, sizeof name, &key), WEFT_OK);
    assert_int_equal(weft_reserve_keys(large, NULL, &key, 1, WEFT_CHAINED, &slot), WEFT_OK);
    assert_int_equal(slot.status, WEFT_OK);
    payload_fill(slot.data, LARGE, key.bytes);
    assert_int_equal(weft_commit_slots(large, &slot, 1), WEFT_OK);
    weft_format_close(large);
    stop(&w);
    flip(&w, &key);
    start(&w, NULL);
    assert_int_equal(tier_number(&w, "nvme0", "blocks"), 1);
    assert_true(tier_settles(&w, "nvme0", "corrupt", 1));
    assert_true(tier_settles(&w, "nvme0", "blocks", 0));
    end(&w);
}

/* ---------------------------------------------------------------------------- memory taken back */

enum { READERS = 2, MOVING = 48, TURNS = 12 };

struct reader {
    const struct world *world;
    pthread_t thread;
    _Atomic bool *stop;
    uint64_t at, gets;
};

static void *come_and_go(void *context)
{
    struct reader *r = context;
    struct world own = *r->world;
    attach(&own);
    while (!atomic_load(r->stop)) {
        uint64_t chain = r->at++ * 5 % MOVING;
        (void)get(&own, chain); /* what it gives is right */
        (void)put(&own, chain); /* what it does not find */
        r->gets++;
    }
    detach(&own);
    return NULL;
}

static void reclaim_and_lend(bool prefault)
{
    struct world w;
    struct reader readers[READERS];
    _Atomic bool done = false;
    uint64_t got, pool, taken = 0;
    begin(&w, one_tier);
    set(&w, prefault ? "pool.prefault=true" : "pool.prefault=false");
    start(&w, NULL);
    for (uint64_t chain = 0; chain < MOVING; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    for (uint32_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.world = &w, .stop = &done, .at = i * 7};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, come_and_go, &readers[i]), 0);
    }
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        enum weft_status status = weft_reclaim(w.w, turn % 3 ? "8MB" : "12MB", 3000, &got);
        assert_true(status == WEFT_OK || status == WEFT_PENDING);
        taken += got;
        weftd_sleep_ms(30);
        char size[32];
        snprintf(size, sizeof size, "%llu", (unsigned long long)got);
        if (got)
            assert_int_equal(weft_lend(w.w, size, &pool), WEFT_OK);
        assert_true(!got || pool == 16 << 20);
    }
    atomic_store(&done, true);
    for (uint32_t i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].gets > 0);
    }
    assert_true(taken >= TURNS * (4u << 20));
    assert_int_equal(get_all(&w, 0, MOVING), MOVING * DEPTH);
    assert_int_equal(weftd_number(w.w, "default", "blocks_reserved"), 0);
    assert_int_equal(weftd_number(w.w, "default", "below.loads_lost"), 0);
    assert_int_equal(weftd_number(w.w, NULL, "pool.bytes"), 16 << 20);
    assert_int_equal(tier_number(&w, "nvme0", "corrupt") + tier_number(&w, "nvme0", "errors"), 0);
    again(&w);
    assert_int_equal(get_all(&w, 0, MOVING), MOVING * DEPTH);
    end(&w);
}

static void test_memory_is_taken_back_while_blocks_move(void **state)
{
    (void)state;
    reclaim_and_lend(false);
}

static void test_memory_that_is_backed_at_once_is_taken_back(void **state)
{
    (void)state;
    reclaim_and_lend(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_memory_and_another_order),
        cmocka_unit_test(test_a_tier_more),
        cmocka_unit_test(test_a_tier_less),
        cmocka_unit_test(test_a_tier_full_of_what_begins_nowhere),
        cmocka_unit_test(test_a_smaller_tier),
        cmocka_unit_test(test_a_stop_without_the_time),
        cmocka_unit_test(test_rot_is_counted_once),
        cmocka_unit_test(test_a_small_tier_is_left_in_peace),
        cmocka_unit_test(test_rot_is_found_unasked),
        cmocka_unit_test(test_rot_of_a_large_block_is_found),
        cmocka_unit_test(test_memory_is_taken_back_while_blocks_move),
        cmocka_unit_test(test_memory_that_is_backed_at_once_is_taken_back),
    };
    return cmocka_run_group_tests_name("corners", tests, NULL, NULL);
}
