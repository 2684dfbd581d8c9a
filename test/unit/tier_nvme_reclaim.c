/* SPDX-License-Identifier: Apache-2.0
 *
 * Room won back in the NVMe tier's log: ahead of need, out of the way of reads, and from the
 * segment whose choice costs least.
 */
#include "../support/nvme_world.h"

#include <time.h>

#include "tier/nvme_hooks.h"
#include "tier/nvme_log.h"

/* ------------------------------------------------------------------------------- ahead of need */

static void idle(struct world *w, uint32_t ms)
{
    struct wf_tier_request *none;
    for (uint32_t i = 0; i < ms; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_int_equal(ops->reap(w->tier, &none, 1, 0), 0);
    }
}

/* Full, and then of every five blocks one lives on. */
static uint64_t full_of_holes(struct world *w)
{
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    for (uint64_t i = 1; i < n; i++)
        if (i % 5)
            assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    return n;
}

static void room_is_made_before_it_is_asked_for(void **state)
{
    struct world *w = *state;
    uint64_t n = full_of_holes(w);
    assert_int_equal(stats(w).moved_bytes, 0);
    uint64_t moved = 0;
    for (uint32_t waited = 0; waited < 100 && (!moved || moved != stats(w).moved_bytes); waited++) {
        moved = stats(w).moved_bytes;
        idle(w, 50);
    }
    assert_true(moved > 0);
    for (uint64_t written = 0; written < 2 << 20; n++) {
        assert_int_equal(put(w, n), WEFT_OK);
        written += block_of(n).bytes;
    }
    assert_int_equal(stats(w).moved_bytes, moved); /* nothing of that had to wait for room */
    assert_int_equal(flush(w), WEFT_OK);
    copy_file(w->path, w->copy);
    close_it(w);
    open_at(w, w->copy, CAPACITY);
    for (uint64_t i = 5; i < n; i += 5)
        assert_int_equal(get(w, i), WEFT_OK);
    assert_int_equal(stats(w).corrupt, 0);
}

/* What is more than half alive is not worth it before someone waits. */
static void little_room_is_left_where_it_is(void **state)
{
    struct world *w = *state;
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    for (uint64_t i = 1; i < n; i += 5)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    idle(w, 200);
    assert_int_equal(stats(w).moved_bytes, 0);
    for (uint64_t i = n; i < n + 10; i++)
        assert_int_equal(put(w, i), WEFT_OK);
    assert_true(stats(w).moved_bytes > 0);
}

#if WF_TEST_HOOKS

#define HELD_MS 300u

/* A read that takes long, and what the tier reads of its own meanwhile. */
struct held {
    struct wf_nvme_hooks hooks;
    uint32_t moves;
};

static int held_before(void *context, const struct wf_nvme_call *call)
{
    struct held *h = context;
    h->moves += call->kind == WF_NVME_IO_MOVE_READ;
    return call->kind == WF_NVME_IO_READ ? (int)HELD_MS * 1000 : 0;
}

static int held_after(void *context, const struct wf_nvme_call *call, int result)
{
    (void)context;
    (void)call;
    return result;
}

static void reads_have_the_way(void **state)
{
    struct world *w = *state;
    struct held h = {.hooks = {&h, held_before, held_after}};
    struct wf_tier_request request = {.op = WF_TIER_READ, .block = block_of(5), .data = w->data};
    struct wf_tier_request *done;
    full_of_holes(w);
    wf_nvme_hooks = &h.hooks;
    assert_int_equal(ops->submit(w->tier, &request), WEFT_OK);
    for (uint32_t i = 0; i < HELD_MS / 2; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_int_equal(ops->reap(w->tier, &done, 1, 0), 0);
    }
    uint32_t beside = h.moves; /* one each 20 ms, and time may pass between two looks at it */
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_int_equal(request.status, WEFT_OK);
    assert_in_range(beside, 1, 1 + HELD_MS / 20);
    for (uint32_t waited = 0; waited < 100 && h.moves < 2 * beside + 10; waited++)
        idle(w, 20);
    assert_true(h.moves >= 2 * beside + 10);
    wf_nvme_hooks = NULL;
    close_it(w);
}

#endif

/* -------------------------------------------------------------------------------- which segment */

#define SEGMENTS 128u
#define RECORDS 64u /* of a segment, all of one size */
#define MOST (SEGMENTS * RECORDS)

enum removals { LEAST_RECENT, HOT_AND_COLD, ANY };

/* A log of records that move and die, with a segment table that the tier's own choice looks at. */
struct log {
    struct wf_nvme t;
    struct wf_nvme_seg segment[SEGMENTS];
    uint32_t used[SEGMENTS], at[SEGMENTS][RECORDS], active, live;
    uint64_t closed[SEGMENTS]; /* when: counted in writes */
    uint32_t place[4 * MOST];  /* of a block; WF_NVME_NONE: it is not there */
    uint32_t newer[4 * MOST], older[4 * MOST], newest, oldest;
    uint64_t written, moved;
    bool by_benefit;
    struct random_source random;
};

static uint32_t by_benefit(const struct log *l)
{
    uint32_t victim = WF_NVME_NONE;
    double most = -1;
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        double u = (double)l->segment[i].live_bytes / RECORDS;
        double age = (double)(l->written - l->closed[i]) + 1;
        if (l->segment[i].state != WF_NVME_SEGMENT_CLOSED || (1 - u) * age / (1 + u) <= most)
            continue;
        most = (1 - u) * age / (1 + u);
        victim = i;
    }
    return victim;
}

static void place(struct log *l, uint32_t block)
{
    if (l->active == WF_NVME_NONE || l->used[l->active] == RECORDS) {
        if (l->active != WF_NVME_NONE) {
            l->segment[l->active].state = WF_NVME_SEGMENT_CLOSED;
            l->closed[l->active] = l->written;
        }
        l->active = 0;
        while (l->segment[l->active].state != WF_NVME_SEGMENT_FREE)
            l->active++;
        l->segment[l->active].state = WF_NVME_SEGMENT_OPEN;
        l->used[l->active] = 0;
        l->t.free_count--;
    }
    l->at[l->active][l->used[l->active]] = block;
    l->place[block] = l->active * RECORDS + l->used[l->active]++;
    l->segment[l->active].live_bytes++;
}

static void empty(struct log *l)
{
    uint32_t victim = l->by_benefit ? by_benefit(l) : wf_nvme_reclaim_victim(&l->t);
    assert_true(victim != WF_NVME_NONE && l->segment[victim].live_bytes < RECORDS);
    l->segment[victim].state = WF_NVME_SEGMENT_VICTIM;
    for (uint32_t i = 0; i < RECORDS; i++) {
        if (l->place[l->at[victim][i]] != victim * RECORDS + i)
            continue;
        place(l, l->at[victim][i]);
        l->moved++;
    }
    l->segment[victim] = (struct wf_nvme_seg){.state = WF_NVME_SEGMENT_FREE};
    l->t.free_count++;
}

static void drop(struct log *l, uint32_t block)
{
    l->segment[l->place[block] / RECORDS].live_bytes--;
    l->place[block] = WF_NVME_NONE;
    l->live--;
}

static void write_one(struct log *l, uint32_t block)
{
    while (l->t.free_count <= 1 && l->used[l->active] == RECORDS)
        empty(l);
    l->written++;
    l->live++;
    place(l, block);
}

/* Out of the order of use, and in again as the newest. */
static void use(struct log *l, uint32_t block, bool there)
{
    if (there) {
        uint32_t newer = l->newer[block], older = l->older[block];
        *(newer == WF_NVME_NONE ? &l->newest : &l->older[newer]) = older;
        *(older == WF_NVME_NONE ? &l->oldest : &l->newer[older]) = newer;
    }
    l->newer[block] = WF_NVME_NONE;
    l->older[block] = l->newest;
    *(l->newest == WF_NVME_NONE ? &l->oldest : &l->newer[l->newest]) = block;
    l->newest = block;
}

static double chance(struct log *l)
{
    return (double)(random_next(&l->random) >> 11) * 0x1p-53;
}

/* A cache: what was not used for longest makes room for what is missed, out of four times as many.
 */
static void step_recent(struct log *l, uint32_t blocks)
{
    double x = chance(l);
    uint32_t block = (uint32_t)(x * x * x * 4 * blocks);
    bool there = l->place[block] != WF_NVME_NONE;
    if (!there && l->live == blocks) {
        uint32_t victim = l->oldest;
        l->oldest = l->newer[victim];
        l->older[l->oldest] = WF_NVME_NONE;
        drop(l, victim);
    }
    if (!there)
        write_one(l, block);
    use(l, block, there);
}

static void step_replaced(struct log *l, uint32_t blocks, enum removals which)
{
    double x = chance(l);
    uint32_t hot = blocks / 10;
    uint32_t block = which == ANY      ? (uint32_t)(x * blocks)
                     : chance(l) < 0.9 ? (uint32_t)(x * hot)
                                       : hot + (uint32_t)(x * (blocks - hot));
    drop(l, block);
    write_one(l, block);
}

/* Device writes a write, once the log has settled. */
static double amplification(enum removals which, double live, bool benefit)
{
    static struct log l;
    memset(&l, 0, sizeof l);
    memset(l.place, 0xff, sizeof l.place);
    l.t.segment = l.segment;
    l.t.segments = l.t.free_count = SEGMENTS;
    l.active = l.newest = l.oldest = WF_NVME_NONE;
    l.by_benefit = benefit;
    l.random.state = 42; /* the same steps for both, on every run */
    uint32_t blocks = (uint32_t)(live * (SEGMENTS - 1) * RECORDS);
    uint64_t written = 0, moved = 0, steps = 40ull * blocks;
    place(&l, 0);
    drop(&l, 0);
    l.live = 0;
    for (uint32_t i = 0; which != LEAST_RECENT && i < blocks; i++)
        write_one(&l, i);
    for (uint64_t i = 0; i < steps; i++) {
        if (i == steps / 2) {
            written = l.written;
            moved = l.moved;
        }
        if (which == LEAST_RECENT)
            step_recent(&l, blocks);
        else
            step_replaced(&l, blocks, which);
    }
    return 1 + (double)(l.moved - moved) / (double)(l.written - written);
}

/* The choice that the tier makes is the better one, or as good, in all of them. */
static void the_choice_of_segments_is_the_cheaper_one(void **state)
{
    (void)state;
    static const char *const names[] = {"least recently used", "hot and cold", "any"};
    static const double live[] = {0.75, 0.85, 0.92};
    for (enum removals which = LEAST_RECENT; which <= ANY; which++) {
        for (int i = 0; i < 3; i++) {
            double greedy = amplification(which, live[i], false);
            double benefit = amplification(which, live[i], true);
            print_message("# %s, %.0f %% live: amplification %.2f, by cost and benefit %.2f\n",
                          names[which], live[i] * 100, greedy, benefit);
            assert_true(greedy >= 1 && greedy < 12);
            assert_true(greedy <= benefit * 1.05);
        }
    }
}

static int teardown_hooks(void **state)
{
#if WF_TEST_HOOKS
    wf_nvme_hooks = NULL;
#endif
    return teardown(state);
}

/* --------------------------------------------------------------------- nothing is won by moving */

static enum weft_status put_sized(struct world *w, uint64_t n, uint64_t bytes)
{
    struct wf_tier_request request = {.op = WF_TIER_WRITE, .data = w->data};
    request.block = (struct wf_tier_block){.bytes = bytes, .part_bytes = WF_NVME_PAGE * 64};
    random_key(n, request.block.key);
    fill(n, bytes, w->data);
    return run(w, &request);
}

/* Segments full of blocks of a page have footers of many pages.  What would fit behind their blocks
 * alone, and does not fit with the footer, finds the tier full; moving them would win nothing,
 * however often it is done. */
static void what_wins_no_room_is_not_moved(void **state)
{
    struct world *w = *state;
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put_sized(w, n, WF_NVME_PAGE) == WEFT_OK)
        n++;
    assert_true(n > 1000);
    for (uint64_t bytes = WF_NVME_PAGE; bytes <= 20 * WF_NVME_PAGE; bytes += WF_NVME_PAGE)
        assert_int_equal(put_sized(w, n + bytes, bytes), WEFT_FULL);
    assert_int_equal(stats(w).moved_bytes, 0);
    for (uint64_t i = 1; i <= 20; i++) {
        struct wf_tier_block gone;
        random_key(i, gone.key);
        assert_int_equal(ops->remove(w->tier, gone.key), WEFT_OK);
    }
    assert_int_equal(put_sized(w, n, 10 * WF_NVME_PAGE), WEFT_OK);
    assert_int_equal(put_sized(w, n + 1, 10 * WF_NVME_PAGE), WEFT_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_hooks)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(room_is_made_before_it_is_asked_for),
        TEST(little_room_is_left_where_it_is),
#if WF_TEST_HOOKS
        TEST(reads_have_the_way),
#endif
        TEST(what_wins_no_room_is_not_moved),
        cmocka_unit_test(the_choice_of_segments_is_the_cheaper_one),
    };
    return cmocka_run_group_tests_name("tier_nvme_reclaim", tests, NULL, NULL);
}
