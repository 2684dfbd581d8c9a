/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory of what lies below DRAM: one rule a test, and what a million blocks cost.
 * test/unit/directory_model.c has the random operations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/directory.h"

#define BLOCKS 4096
#define BYTES 1000u
#define NVME 0
#define S3 1
#define ALL WF_DIRECTORY_DOMAINS_ALL

struct world {
    struct wf_directory *directory;
    char log[512]; /* "5>0 ": key 5 is shown on tier 0; "5x1 ": dropped from tier 1 */
};

/* Keys are numbers, written into the first bytes. */
static void key_of(uint32_t number, uint8_t key[32])
{
    random_key(7, key);
    memcpy(key, &number, sizeof number);
}

static void log_event(struct world *w, const uint8_t key[32], char what, int tier)
{
    uint32_t number;
    size_t used = strlen(w->log);
    memcpy(&number, key, sizeof number);
    if (used + 16 < sizeof w->log)
        snprintf(w->log + used, sizeof w->log - used, "%u%c%d ", number, what, tier);
}

static void shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality)
{
    (void)quality;
    (void)domain;
    log_event(context, key, '>', tier);
}

static void dropped(void *context, const struct wf_directory_dropped *block)
{
    assert_int_equal(block->bytes, BYTES);
    assert_int_equal(block->parent != NULL, block->depth > 0);
    log_event(context, block->key, 'x', (int)block->tier);
}

static void open_world(struct world *w, uint32_t blocks_max)
{
    struct wf_directory_env env = {.context = w, .shown = shown, .dropped = dropped};
    assert_int_equal(wf_directory_create(blocks_max, 42, &env, &w->directory), WEFT_OK);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    open_world(w, BLOCKS);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    wf_directory_verify(w->directory);
    wf_directory_destroy(w->directory);
    free(w);
    return 0;
}

/* What happened since the last look. */
#define HAPPENED(w, text)                    \
    do {                                     \
        assert_string_equal((w)->log, text); \
        (w)->log[0] = '\0';                  \
    } while (0)

static struct wf_directory_add adding(uint32_t number, uint32_t parent, uint32_t depth,
                                      unsigned tier)
{
    struct wf_directory_add add = {.has_parent = depth > 0,
                                   .bytes = BYTES,
                                   .parent_bytes = BYTES,
                                   .depth = depth,
                                   .tier = tier};
    key_of(number, add.key);
    key_of(parent, add.parent);
    return add;
}

static uint32_t put(struct world *w, const struct wf_directory_add *add)
{
    uint32_t entry;
    assert_int_equal(wf_directory_add(w->directory, add, &entry), WEFT_OK);
    return entry;
}

/* Blocks first … last, each extending the one before, on `tier`. */
static uint32_t put_chain(struct world *w, uint32_t first, uint32_t last, unsigned tier)
{
    uint32_t entry = WF_DIRECTORY_NONE;
    for (uint32_t i = first; i <= last; i++) {
        struct wf_directory_add add = adding(i, i - 1, i - first, tier);
        entry = put(w, &add);
    }
    return entry;
}

static uint32_t entry_of(const struct world *w, uint32_t number)
{
    uint8_t key[32];
    key_of(number, key);
    return wf_directory_find(w->directory, key);
}

static struct wf_directory_block block_of(const struct world *w, uint32_t number)
{
    struct wf_directory_block block;
    wf_directory_read(w->directory, entry_of(w, number), &block);
    return block;
}

/* The number of whom the directory would evict; UINT32_MAX: nobody. */
static uint32_t victim(struct world *w, unsigned tier, uint16_t domain)
{
    struct wf_directory_block block;
    uint32_t number, entry = wf_directory_victim(w->directory, tier, domain);
    if (entry == WF_DIRECTORY_NONE)
        return UINT32_MAX;
    wf_directory_read(w->directory, entry, &block);
    memcpy(&number, block.key, sizeof number);
    return number;
}

static void evict(struct world *w, unsigned tier, uint32_t expected)
{
    assert_int_equal(victim(w, tier, ALL), expected);
    wf_directory_lose(w->directory, entry_of(w, expected), tier);
    wf_directory_verify(w->directory);
}

/* ------------------------------------------------------------------------------- chains */

static void test_chain_comes_and_goes(void **state)
{
    struct world *w = *state;
    uint32_t chain[8];
    put_chain(w, 1, 3, NVME);
    HAPPENED(w, "1>0 2>0 3>0 ");
    assert_int_equal(wf_directory_entries(w->directory), 3);
    assert_int_equal(wf_directory_chain(w->directory, entry_of(w, 3), chain, 8), 3);
    assert_int_equal(chain[0], entry_of(w, 3));
    assert_int_equal(chain[2], entry_of(w, 1));
    assert_int_equal(wf_directory_chain(w->directory, entry_of(w, 3), chain, 2), 2);
    evict(w, NVME, 3);
    evict(w, NVME, 2);
    evict(w, NVME, 1);
    HAPPENED(w, "3>-1 2>-1 1>-1 ");
    assert_int_equal(victim(w, NVME, ALL), UINT32_MAX);
    assert_int_equal(wf_directory_entries(w->directory), 0);
}

/* Demoted from DRAM leaf first, a chain is complete at every step. */
static void test_bridges(void **state)
{
    struct world *w = *state;
    struct wf_directory_add add = adding(3, 2, 2, NVME);
    uint32_t entry;
    assert_int_equal(wf_directory_add(w->directory, &add, &entry), WEFT_E_PARENT);
    assert_int_equal(wf_directory_entries(w->directory), 0);
    add.in_dram = add.parent_in_dram = true;
    put(w, &add);
    HAPPENED(w, "3>0 ");
    assert_int_equal(block_of(w, 2).tiers, 0);
    assert_true(block_of(w, 2).in_dram);
    assert_int_equal(block_of(w, 2).parent, WF_DIRECTORY_NONE);
    wf_directory_leave_dram(w->directory, entry_of(w, 3));
    HAPPENED(w, "");
    add = adding(2, 1, 1, NVME);
    add.in_dram = add.parent_in_dram = true;
    put(w, &add);
    assert_int_equal(block_of(w, 2).parent, entry_of(w, 1));
    wf_directory_leave_dram(w->directory, entry_of(w, 2));
    HAPPENED(w, "2>0 ");
    evict(w, NVME, 3); /* 2 has no other place, and is a leaf only now */
    evict(w, NVME, 2); /* 1 is in DRAM, and leads nowhere then */
    HAPPENED(w, "3>-1 2>-1 ");
    assert_int_equal(wf_directory_entries(w->directory), 0);
}

/* A bridge that leaves DRAM without having been written takes all along that extends it. */
static void test_bridge_breaks(void **state)
{
    struct world *w = *state;
    struct wf_directory_add add = adding(2, 1, 1, NVME);
    add.parent_in_dram = true;
    put(w, &add);
    add = adding(3, 2, 2, S3);
    put(w, &add);
    HAPPENED(w, "2>0 3>1 ");
    wf_directory_leave_dram(w->directory, entry_of(w, 1));
    HAPPENED(w, "3>-1 3x1 2>-1 2x0 ");
    assert_int_equal(wf_directory_entries(w->directory), 0);
}

static void test_lost_in_the_middle(void **state)
{
    struct world *w = *state;
    put_chain(w, 1, 4, NVME);
    struct wf_directory_add add = adding(3, 2, 2, S3);
    put(w, &add);
    HAPPENED(w, "1>0 2>0 3>0 4>0 ");
    wf_directory_lose(w->directory, entry_of(w, 3), NVME); /* it is on another tier */
    HAPPENED(w, "3>1 ");
    wf_directory_lose(w->directory, entry_of(w, 3), NVME); /* said twice */
    HAPPENED(w, "");
    wf_directory_lose(w->directory, entry_of(w, 2), NVME); /* of this copy the caller knows */
    HAPPENED(w, "4>-1 4x0 3>-1 3x1 2>-1 ");
    wf_directory_remove(w->directory, entry_of(w, 1));
    HAPPENED(w, "1>-1 1x0 ");
}

static void test_lost_tier(void **state)
{
    struct world *w = *state;
    put_chain(w, 1, 3, NVME);
    struct wf_directory_add add = adding(1, 0, 0, S3);
    put(w, &add);
    add = adding(4, 2, 2, S3); /* extends what is on the other tier alone */
    put(w, &add);
    wf_directory_enter_dram(w->directory, entry_of(w, 3), true);
    w->log[0] = '\0';
    wf_directory_lose_tier(w->directory, NVME);
    HAPPENED(w, "4>-1 4x1 3>-1 2>-1 1>1 ");
    wf_directory_verify(w->directory);
    assert_int_equal(wf_directory_entries(w->directory), 1);
    wf_directory_enter_dram(w->directory, entry_of(w, 1), true);
    wf_directory_lose_tier(w->directory, S3);
    HAPPENED(w, "1>-1 "); /* in DRAM alone, and nothing extends it: no entry */
    assert_int_equal(wf_directory_entries(w->directory), 0);
}

static void test_limits(void **state)
{
    (void)state;
    struct world w = {0};
    struct wf_directory_env env = {0};
    uint32_t entry;
    assert_int_equal(wf_directory_create(0, 1, &env, &w.directory), WEFT_E_INVALID);
    assert_int_equal(wf_directory_create(UINT32_MAX, 1, &env, &w.directory), WEFT_E_INVALID);
    open_world(&w, 3);
    put_chain(&w, 1, 2, NVME);
    struct wf_directory_add add = adding(9, 8, 1, NVME);
    add.parent_in_dram = true; /* needs two */
    assert_int_equal(wf_directory_add(w.directory, &add, &entry), WEFT_E_LIMIT);
    assert_int_equal(wf_directory_entries(w.directory), 2);
    put_chain(&w, 7, 7, NVME);
    add = adding(8, 7, 1, NVME);
    assert_int_equal(wf_directory_add(w.directory, &add, &entry), WEFT_E_LIMIT);
    add = adding(7, 0, 0, S3); /* known already */
    put(&w, &add);
    wf_directory_remove(w.directory, entry_of(&w, 7));
    put_chain(&w, 7, 7, NVME);
    wf_directory_verify(w.directory);
    wf_directory_destroy(w.directory);
}

static void test_contradictions(void **state)
{
    struct world *w = *state;
    put_chain(w, 1, 3, NVME);
    put_chain(w, 11, 11, NVME);
    struct wf_directory_add adds[10];
    for (int i = 0; i < 10; i++)
        adds[i] = adding(3, 2, 2, S3);
    adds[0].tier = WF_DIRECTORY_TIERS_MAX;
    adds[1].domain = WF_DIRECTORY_DOMAINS_MAX;
    adds[2].domain = 1;
    adds[3].bytes++;
    adds[4].depth++;
    adds[5].has_parent = false;
    key_of(11, adds[6].parent);
    adds[7] = adding(4, 3, 4, S3); /* the parent is at depth 2 */
    adds[8] = adding(4, 3, 0, S3);
    adds[8].has_parent = true;
    adds[9] = adding(1, 3, 0, S3); /* a ring */
    adds[9].has_parent = true;
    w->log[0] = '\0';
    for (int i = 0; i < 10; i++) {
        uint32_t entry;
        assert_int_equal(wf_directory_add(w->directory, &adds[i], &entry), WEFT_E_INVALID);
        assert_string_not_equal(weft_last_error(), "");
        wf_directory_verify(w->directory);
    }
    HAPPENED(w, "");
    struct wf_directory_add right = adding(3, 2, 2, S3);
    put(w, &right);
    HAPPENED(w, "");
    assert_int_equal(block_of(w, 3).tiers, 1 << NVME | 1 << S3);
}

/* ------------------------------------------------------------------------------ victims */

static void test_order_of_victims(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 1; i <= 6; i++)
        put_chain(w, 10 * i, 10 * i, S3);
    struct wf_directory_add add = adding(10, 0, 0, NVME); /* 10: here it is the second copy */
    put(w, &add);
    wf_directory_enter_dram(w->directory, entry_of(w, 40), true);
    wf_directory_enter_dram(w->directory, entry_of(w, 20), false); /* put anew, not read here */
    wf_directory_enter_dram(w->directory, entry_of(w, 60), true);
    wf_directory_touch(w->directory, entry_of(w, 30));
    evict(w, S3, 40);
    evict(w, S3, 60);
    evict(w, S3, 20);
    evict(w, S3, 50);
    evict(w, S3, 30);
    evict(w, S3, 10);
    assert_int_equal(block_of(w, 10).tiers, 1 << NVME);
    assert_int_equal(victim(w, S3, ALL), UINT32_MAX);
    assert_int_equal(victim(w, NVME, ALL), 10);
}

/* What leaves DRAM was used there: it is the last to go here. */
static void test_leaving_dram_is_a_use(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 1; i <= 3; i++)
        put_chain(w, 10 * i, 10 * i, NVME);
    wf_directory_enter_dram(w->directory, entry_of(w, 10), true);
    assert_int_equal(victim(w, NVME, ALL), 10);
    wf_directory_leave_dram(w->directory, entry_of(w, 10));
    evict(w, NVME, 20);
    evict(w, NVME, 30);
    evict(w, NVME, 10);
}

static void test_inner_blocks_with_another_place_may_go(void **state)
{
    struct world *w = *state;
    put_chain(w, 1, 2, NVME);
    assert_int_equal(victim(w, NVME, ALL), 2);
    wf_directory_enter_dram(w->directory, entry_of(w, 1), true);
    evict(w, NVME, 1); /* a bridge now */
    assert_int_equal(block_of(w, 1).tiers, 0);
    struct wf_directory_add add = adding(1, 0, 0, NVME);
    put(w, &add);
    add.tier = S3;
    put(w, &add);
    wf_directory_leave_dram(w->directory, entry_of(w, 1));
    wf_directory_touch(w->directory, entry_of(w, 2));
    evict(w, NVME, 1);                                /* on the other tier still */
    assert_int_equal(victim(w, S3, ALL), UINT32_MAX); /* and its last place there */
    evict(w, NVME, 2);
    evict(w, S3, 1);
}

static void test_domains(void **state)
{
    struct world *w = *state;
    struct wf_directory_sum sum;
    for (uint32_t i = 0; i < 12; i++) {
        struct wf_directory_add add = adding(100 + i, 0, 0, NVME);
        add.domain = i % 3 ? 63 : 5;
        put(w, &add);
    }
    assert_int_equal(victim(w, NVME, 5), 100);
    assert_int_equal(victim(w, NVME, 63), 101);
    assert_int_equal(victim(w, NVME, 6), UINT32_MAX);
    assert_int_equal(victim(w, NVME, ALL), 100);
    wf_directory_touch(w->directory, entry_of(w, 100));
    assert_int_equal(victim(w, NVME, 5), 103);
    assert_int_equal(victim(w, NVME, ALL), 101);
    wf_directory_sum(w->directory, NVME, 5, &sum);
    assert_int_equal(sum.blocks, 4);
    assert_int_equal(sum.bytes, 4 * BYTES);
    wf_directory_sum(w->directory, NVME, ALL, &sum);
    assert_int_equal(sum.blocks, 12);
    wf_directory_sum(w->directory, S3, ALL, &sum);
    assert_int_equal(sum.blocks, 0);
}

static void test_held_and_gone(void **state)
{
    struct world *w = *state;
    struct wf_directory_block block;
    uint32_t held = put_chain(w, 1, 2, NVME);
    wf_directory_hold(w->directory, held);
    wf_directory_hold(w->directory, held);
    assert_int_equal(victim(w, NVME, ALL), UINT32_MAX);
    wf_directory_lose_tier(w->directory, NVME);
    wf_directory_verify(w->directory);
    assert_int_equal(entry_of(w, 2), WF_DIRECTORY_NONE);
    wf_directory_read(w->directory, held, &block);
    assert_int_equal(block.tiers, 0);
    assert_false(block.in_dram);
    assert_int_equal(wf_directory_entries(w->directory), 0);
    wf_directory_unhold(w->directory, held);
    put_chain(w, 1, 2, NVME); /* another number: that one is taken */
    assert_int_not_equal(entry_of(w, 2), held);
    assert_int_not_equal(entry_of(w, 1), held);
    wf_directory_unhold(w->directory, held);
    wf_directory_verify(w->directory);
    assert_int_equal(put_chain(w, 20, 20, NVME), held);
    assert_int_equal(victim(w, NVME, ALL), 2);
}

static void test_archives(void **state)
{
    struct world *w = *state;
    struct wf_directory_sum sum;
    put_chain(w, 1, 4, NVME);
    struct wf_directory_add fork = adding(5, 2, 2, NVME); /* 1 2 3 4, 1 2 5 */
    put(w, &fork);
    wf_directory_archive(w->directory, entry_of(w, 3), true);
    wf_directory_archive(w->directory, entry_of(w, 5), true);
    assert_int_equal(block_of(w, 2).archives, 2);
    wf_directory_sum(w->directory, NVME, ALL, &sum);
    assert_int_equal(sum.archived_blocks, 4);
    assert_int_equal(sum.archived_bytes, 4 * BYTES);
    wf_directory_enter_dram(w->directory, entry_of(w, 1), true); /* no victim even so */
    evict(w, NVME, 4);
    assert_int_equal(victim(w, NVME, ALL), UINT32_MAX);
    wf_directory_archive(w->directory, entry_of(w, 3), false);
    evict(w, NVME, 3);
    assert_int_equal(victim(w, NVME, ALL), UINT32_MAX);
    wf_directory_remove(w->directory, entry_of(w, 5)); /* the archive ends with its tip */
    assert_int_equal(block_of(w, 1).archives, 0);
    evict(w, NVME, 1);
    evict(w, NVME, 2);
    wf_directory_sum(w->directory, NVME, ALL, &sum);
    assert_int_equal(sum.blocks + sum.bytes + sum.archived_blocks + sum.archived_bytes, 0);
}

/* An archive of what hangs on a bridge reaches what the bridge is linked to later. */
static void test_archive_through_a_bridge(void **state)
{
    struct world *w = *state;
    struct wf_directory_add add = adding(2, 1, 1, NVME);
    add.parent_in_dram = true;
    put(w, &add);
    wf_directory_archive(w->directory, entry_of(w, 2), true);
    add = adding(1, 0, 0, NVME);
    put(w, &add);
    assert_int_equal(block_of(w, 1).archives, 1);
    add = adding(13, 12, 3, NVME);
    add.parent_in_dram = true;
    put(w, &add);
    wf_directory_archive(w->directory, entry_of(w, 13), true);
    add = adding(12, 11, 2, NVME);
    add.parent_in_dram = true;
    put(w, &add);
    assert_int_equal(block_of(w, 11).archives, 1);
}

/* Who comes back among many has nearly its old place: neither first nor last. */
static void test_place_of_who_comes_back(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 1000; i++)
        put_chain(w, 1000 + i, 1000 + i, NVME);
    static const uint32_t at[] = {3, 300, 700, 990};
    for (int i = 0; i < 4; i++) {
        wf_directory_hold(w->directory, entry_of(w, 1000 + at[i]));
        wf_directory_unhold(w->directory, entry_of(w, 1000 + at[i]));
    }
    static uint32_t order[1000];
    for (uint32_t i = 0; i < 1000; i++) {
        order[i] = victim(w, NVME, ALL);
        wf_directory_lose(w->directory, entry_of(w, order[i]), NVME);
    }
    assert_int_equal(order[3], 1003); /* near an end, the place is exact */
    assert_int_equal(order[990], 1990);
    assert_int_not_equal(order[0], 1300); /* else behind a few of that end */
    assert_int_not_equal(order[999], 1700);
    for (uint32_t i = 1, last = 1000; i < 1000; i++) { /* all others in their order */
        if (order[i] == 1300 || order[i] == 1700)
            continue;
        assert_true(order[i] > last);
        last = order[i];
    }
}

static void test_next(void **state)
{
    struct world *w = *state;
    uint32_t cursor = 0, seen = 0, entry;
    put_chain(w, 1, 5, NVME);
    put_chain(w, 11, 13, S3);
    while ((entry = wf_directory_next(w->directory, S3, &cursor)) != WF_DIRECTORY_NONE)
        seen |= 1u << (entry - entry_of(w, 11));
    assert_int_equal(seen, 7);
    assert_int_equal(cursor, 0);
}

/* ------------------------------------------------------------------------------ a million */

#define MANY 1000000u
#define CHAIN 50u

static void nobody_shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                         enum weft_quality quality)
{
    (void)quality;
    (void)context, (void)domain, (void)key, (void)tier;
}

static void nobody_dropped(void *context, const struct wf_directory_dropped *block)
{
    (void)context, (void)block;
}

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%lu %lu", &pages, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The tool that runs the test has memory of its own for each byte that the test touches. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RESIDENT_IS_OURS false
#elif defined(__has_feature)
#define RESIDENT_IS_OURS !(__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define RESIDENT_IS_OURS true
#endif

static void test_a_million(void **state)
{
    (void)state;
    struct world w = {0};
    struct wf_directory_env env = {.shown = nobody_shown, .dropped = nobody_dropped};
    uint64_t before = resident_bytes();
    uint32_t entry = WF_DIRECTORY_NONE, evicted = 0;
    assert_int_equal(wf_directory_create(64 * MANY, 42, &env, &w.directory), WEFT_OK);
    double start = seconds();
    for (uint32_t i = 0; i < MANY; i++) {
        struct wf_directory_add add = adding(i, i - 1, i % CHAIN, NVME);
        entry = put(&w, &add);
        if (i % CHAIN == CHAIN - 1 && i / CHAIN % 2 == 0)
            wf_directory_archive(w.directory, entry, true);
    }
    double added = seconds();
    uint64_t memory = wf_directory_memory(w.directory), resident = resident_bytes() - before;
    while ((entry = wf_directory_victim(w.directory, NVME, ALL)) != WF_DIRECTORY_NONE) {
        wf_directory_lose(w.directory, entry, NVME);
        evicted++;
    }
    double gone = seconds();
    print_message(
        "# %u blocks: %.1f bytes each, %.1f resident; %.2f M adds/s, %.2f M evictions/s\n", MANY,
        (double)memory / MANY, (double)resident / MANY, 1e-6 * MANY / (added - start),
        1e-6 * evicted / (gone - added));
    assert_true(memory <= 92ull * MANY + (64u << 10));
    if (RESIDENT_IS_OURS)
        assert_true(resident <= 92ull * MANY + (1u << 20));
    assert_int_equal(evicted, MANY / 2); /* the other half is archived */
    assert_int_equal(wf_directory_entries(w.directory), MANY / 2);
    wf_directory_verify(w.directory);
    wf_directory_destroy(w.directory);
}

static void add_at(struct world *w, uint32_t number, uint32_t depth, unsigned tier,
                   enum weft_quality quality)
{
    struct wf_directory_add add = adding(number, number - 1, depth, tier);
    add.quality = quality;
    put(w, &add);
}

static void looks(const struct world *w, uint32_t number, uint8_t tiers, uint8_t fit,
                  enum weft_quality on_nvme, enum weft_quality on_s3)
{
    struct wf_directory_block block;
    wf_directory_read(w->directory, entry_of(w, number), &block);
    assert_int_equal(block.tiers, tiers);
    assert_int_equal(block.fit, fit);
    if (tiers & 1u << NVME)
        assert_int_equal(wf_directory_quality(&block, NVME), on_nvme);
    if (tiers & 1u << S3)
        assert_int_equal(wf_directory_quality(&block, S3), on_s3);
}

/* What is worse than its domain asks for is there, and is not shown. */
static void test_quality(void **state)
{
    struct world *w = *state;
    wf_directory_demand(w->directory, 0, WEFT_TRANSPARENT);
    add_at(w, 1, 0, NVME, WEFT_TRANSPARENT);
    HAPPENED(w, "1>0 ");
    add_at(w, 1, 0, S3, WEFT_LOSSLESS);
    HAPPENED(w, ""); /* the worse of the two is told already */
    looks(w, 1, 3, 3, WEFT_TRANSPARENT, WEFT_LOSSLESS);
    add_at(w, 2, 1, NVME, WEFT_ECONOMY);
    HAPPENED(w, "");
    looks(w, 2, 1, 0, WEFT_ECONOMY, WEFT_LOSSLESS);
    add_at(w, 2, 1, S3, WEFT_TRANSPARENT);
    HAPPENED(w, "2>1 ");
    looks(w, 2, 3, 2, WEFT_ECONOMY, WEFT_TRANSPARENT);
    wf_directory_lose(w->directory, entry_of(w, 1), NVME);
    HAPPENED(w, "1>1 ");
    looks(w, 1, 2, 2, WEFT_LOSSLESS, WEFT_LOSSLESS);
    wf_directory_lose(w->directory, entry_of(w, 2), S3);
    HAPPENED(w, "2>-1 ");
    wf_directory_lose(w->directory, entry_of(w, 2), NVME);
    HAPPENED(w, ""); /* its last place, where nobody saw it */
    assert_int_equal(entry_of(w, 2), WF_DIRECTORY_NONE);
    add_at(w, 2, 1, NVME, WEFT_QUALITY_DEFAULT);
    HAPPENED(w, "2>0 ");
    looks(w, 2, 1, 1, WEFT_LOSSLESS, WEFT_LOSSLESS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chain_comes_and_goes),
        TEST(test_bridges),
        TEST(test_quality),
        TEST(test_bridge_breaks),
        TEST(test_lost_in_the_middle),
        TEST(test_lost_tier),
        cmocka_unit_test(test_limits),
        TEST(test_contradictions),
        TEST(test_order_of_victims),
        TEST(test_leaving_dram_is_a_use),
        TEST(test_inner_blocks_with_another_place_may_go),
        TEST(test_domains),
        TEST(test_held_and_gone),
        TEST(test_archives),
        TEST(test_archive_through_a_bridge),
        TEST(test_place_of_who_comes_back),
        TEST(test_next),
        cmocka_unit_test(test_a_million),
    };
    return cmocka_run_group_tests_name("directory", tests, NULL, NULL);
}
