/* SPDX-License-Identifier: Apache-2.0
 *
 * Room won back in the NVMe tier's log: ahead of need, out of the way of reads, and from the
 * segment whose choice costs least.
 */
#include "../support/nvme_world.h"

#include <time.h>

#include "sys/clock.h"
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

static bool reclaim_rests(const struct wf_nvme *t)
{
    return t->reclaim.step == WF_NVME_IDLE;
}

static void room_is_made_before_it_is_asked_for(void **state)
{
    struct world *w = *state;
    uint64_t n = full_of_holes(w);
    assert_int_equal(stats(w).moved_bytes, 0);
    const struct wf_nvme *t = (const struct wf_nvme *)(const void *)w->tier;
    for (uint32_t waited = 0; waited < 100000 && (t->reclaim.look || !reclaim_rests(t)); waited++) {
        idle(w, 1);
        if (t->free_count >= 2 && reclaim_rests(t)) /* as many as are kept free of so few */
            break;
    }
    uint64_t moved = stats(w).moved_bytes;
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

#define HELD_MS_LEAST 250u
#define HELD_MS_MOST 16000u
#define PACE_MS 20u /* nvme_reclaim.c's */
#define PACED 3u

/* A read that takes long, and what the tier reads of its own meanwhile. */
struct held {
    struct wf_nvme_hooks hooks;
    uint32_t held_ms;
    uint32_t moves, under_way, most; /* at a time */
};

static int held_before(void *context, const struct wf_nvme_call *call)
{
    struct held *h = context;
    if (call->kind == WF_NVME_IO_MOVE_READ) {
        h->moves++;
        h->under_way++;
        h->most = h->under_way > h->most ? h->under_way : h->most;
    }
    return call->kind == WF_NVME_IO_READ ? (int)h->held_ms * 1000 : 0;
}

static int held_after(void *context, const struct wf_nvme_call *call, int result)
{
    struct held *h = context;
    h->under_way -= call->kind == WF_NVME_IO_MOVE_READ;
    return result;
}

/* A read, until PACED records were moved beside it; false: it was quicker than that. */
static bool moved_beside(struct world *w, struct held *h)
{
    struct wf_tier_request request = {.op = WF_TIER_READ, .block = block_of(5), .data = w->data};
    struct wf_tier_request *done;
    uint64_t from_ms = wf_now_ms();
    uint32_t ended, moves;
    h->moves = h->most = 0;
    assert_int_equal(ops->submit(w->tier, &request), WEFT_OK);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        moves = h->moves;
        ended = (uint32_t)ops->reap(w->tier, &done, 1, 0);
    } while (!ended && moves < PACED);
    if (!ended) {
        assert_in_range(h->moves, PACED, (wf_now_ms() - from_ms) / PACE_MS + 2);
        assert_int_equal(h->most, 1);
        for (uint32_t tries = 0; tries < 100 && !ended; tries++)
            ended = (uint32_t)ops->reap(w->tier, &done, 1, 1000);
        assert_int_equal(ended, 1);
        assert_int_equal(request.status, WEFT_OK);
        return true;
    }
    assert_int_equal(request.status, WEFT_OK);
    return false;
}

/* Beside a read one record moves at a time, and seldom; without one, many do. */
static void reads_have_the_way(void **state)
{
    struct world *w = *state;
    struct held h = {.hooks = {&h, held_before, held_after}, .held_ms = HELD_MS_LEAST};
    full_of_holes(w);
    wf_nvme_hooks = &h.hooks;
    while (!moved_beside(w, &h)) { /* the machine is slow: once more, with all to be moved */
        close_it(w);
        assert_int_equal(truncate(w->path, 0), 0);
        h.held_ms *= 2;
        assert_true(h.held_ms <= HELD_MS_MOST);
        full_of_holes(w);
    }
    for (uint32_t waited = 0; waited < 500 && h.most <= 1; waited++)
        idle(w, 5);
    assert_true(h.most > 1);
    wf_nvme_hooks = NULL;
    close_it(w);
}

#endif

/* -------------------------------------------------------------------------------- which segment */

#define SEGMENTS 128u
#define RECORDS 64u /* of a segment, all of one size */
#define RECORD_BYTES (64u << 10)
#define MOST (SEGMENTS * RECORDS)
#define OLD 3u
#define YOUNG 7u

enum removals { LEAST_RECENT, HOT_AND_COLD, ANY };

/* The tier's own way; and what it is measured against: the segment with the least that lives, with
 * one segment open for all records, or with another one for those that move. */
enum way { AS_IT_IS, LEAST_TOGETHER, LEAST_APART };

/* A log of records that move and die, with a segment table that the tier's own choice looks at. */
struct log {
    struct wf_nvme t;
    struct wf_nvme_seg segment[SEGMENTS];
    uint32_t used[SEGMENTS], at[SEGMENTS][RECORDS], active[WF_NVME_STREAMS], live;
    uint32_t place[4 * MOST]; /* of a block; WF_NVME_NONE: it is not there */
    uint32_t newer[4 * MOST], older[4 * MOST], newest, oldest;
    uint64_t written, moved;
    enum way way;
    struct random_source random;
};

static uint32_t least(const struct log *l)
{
    uint32_t victim = WF_NVME_NONE;
    for (uint32_t i = 0; i < SEGMENTS; i++)
        if (l->segment[i].state == WF_NVME_SEGMENT_CLOSED &&
            (victim == WF_NVME_NONE || l->segment[i].live_bytes < l->segment[victim].live_bytes))
            victim = i;
    return victim;
}

static void close_segment(struct log *l, uint32_t segment)
{
    l->segment[segment].state = WF_NVME_SEGMENT_CLOSED;
    l->segment[segment].entries = RECORDS;
    l->segment[segment].closed = ++l->t.closed_count;
}

static void place(struct log *l, uint32_t block, bool moving)
{
    uint32_t *active =
        &l->active[l->way == LEAST_TOGETHER ? WF_NVME_NEW : wf_nvme_stream_of(&l->t, moving)];
    if (*active == WF_NVME_NONE || l->used[*active] == RECORDS) {
        if (*active != WF_NVME_NONE)
            close_segment(l, *active);
        *active = 0;
        while (l->segment[*active].state != WF_NVME_SEGMENT_FREE)
            ++*active;
        l->segment[*active].state = WF_NVME_SEGMENT_OPEN;
        l->used[*active] = 0;
        l->t.free_count--;
    }
    l->at[*active][l->used[*active]] = block;
    l->place[block] = *active * RECORDS + l->used[*active]++;
    l->segment[*active].live_bytes += RECORD_BYTES;
}

static void empty(struct log *l)
{
    uint32_t victim = l->way == AS_IT_IS ? wf_nvme_reclaim_victim(&l->t, RECORD_BYTES) : least(l);
    assert_true(victim != WF_NVME_NONE);
    assert_true(l->segment[victim].live_bytes < RECORDS * RECORD_BYTES);
    l->segment[victim].state = WF_NVME_SEGMENT_VICTIM;
    for (uint32_t i = 0; i < RECORDS; i++) {
        if (l->place[l->at[victim][i]] != victim * RECORDS + i)
            continue;
        place(l, l->at[victim][i], true);
        l->moved++;
    }
    l->segment[victim] = (struct wf_nvme_seg){.state = WF_NVME_SEGMENT_FREE};
    l->t.free_count++;
}

static void drop(struct log *l, uint32_t block)
{
    l->segment[l->place[block] / RECORDS].live_bytes -= RECORD_BYTES;
    l->place[block] = WF_NVME_NONE;
    l->live--;
}

static void write_one(struct log *l, uint32_t block)
{
    while (l->t.free_count <= 1 && l->used[l->active[WF_NVME_NEW]] == RECORDS)
        empty(l);
    l->written++;
    l->live++;
    place(l, block, false);
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
static double amplification(enum removals which, double live, enum way way)
{
    static struct log l;
    memset(&l, 0, sizeof l);
    memset(l.place, 0xff, sizeof l.place);
    l.t.segment = l.segment;
    l.t.segments = l.t.free_count = SEGMENTS;
    l.t.segment_bytes = WF_NVME_RECORDS_AT + RECORDS * RECORD_BYTES + wf_nvme_footer_bytes(RECORDS);
    l.active[WF_NVME_NEW] = l.active[WF_NVME_MOVED] = l.newest = l.oldest = WF_NVME_NONE;
    l.way = way;
    l.random.state = 42; /* the same steps for all, on every run */
    uint32_t blocks = (uint32_t)(live * (SEGMENTS - 1) * RECORDS);
    uint64_t written = 0, moved = 0, steps = 40ull * blocks;
    place(&l, 0, false);
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

/* To keep apart what moves, and to choose by age, pays where blocks differ in how long they live,
 * as in a cache; where they do not it costs little. */
static void what_moves_is_worth_a_segment_of_its_own(void **state)
{
    (void)state;
    static const char *const names[] = {"least recently used", "hot and cold", "any"};
    static const double live[] = {0.75, 0.85, 0.92};
    for (enum removals which = LEAST_RECENT; which <= ANY; which++) {
        for (int i = 0; i < 3; i++) {
            double now = amplification(which, live[i], AS_IT_IS);
            double together = amplification(which, live[i], LEAST_TOGETHER);
            double apart = amplification(which, live[i], LEAST_APART);
            print_message("# %s, %.0f %% live: amplification %.2f; of the least alive %.2f, with "
                          "what moves apart %.2f\n",
                          names[which], live[i] * 100, now, together, apart);
            assert_true(now >= 1 && now < 7);
            assert_true(which == HOT_AND_COLD ? now < together * 0.7 : now < together * 1.07);
            assert_true(which != HOT_AND_COLD || now < apart * 0.8);
            assert_true(which != LEAST_RECENT || live[i] < 0.9 || now < together * 0.7);
        }
    }
}

/* An old segment with more that lives, and a young one with less. */
static uint32_t victim_of_two(struct log *l, uint32_t segments, uint32_t free_count)
{
    memset(l, 0, sizeof *l);
    l->t.segment = l->segment;
    l->t.segments = segments;
    l->t.free_count = free_count;
    l->t.segment_bytes = WF_NVME_RECORDS_AT + RECORDS * RECORD_BYTES +
                         wf_nvme_footer_bytes(RECORDS);
    close_segment(l, OLD);
    l->segment[OLD].live_bytes = RECORDS / 2 * RECORD_BYTES;
    l->t.closed_count += 50;
    close_segment(l, YOUNG);
    l->segment[YOUNG].live_bytes = RECORDS / 4 * RECORD_BYTES;
    return wf_nvme_reclaim_victim(&l->t, RECORD_BYTES);
}

/* Age counts where what moves is kept apart and has a segment to go to.  Without a free one it must
 * fit into what is open, which the least that lives does; the old one's may not, and then nothing
 * would be won for whoever waits. */
static void without_a_free_segment_the_least_alive_is_emptied(void **state)
{
    (void)state;
    static struct log l;
    assert_int_equal(victim_of_two(&l, SEGMENTS, 2), OLD);
    assert_int_equal(victim_of_two(&l, SEGMENTS, 1), OLD);
    assert_int_equal(victim_of_two(&l, SEGMENTS, 0), YOUNG);
    assert_int_equal(victim_of_two(&l, WF_NVME_APART_LEAST - 1, 2), YOUNG);
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

/* ---------------------------------------------------------------------- what moves, kept apart */

#define CHURN_BYTES (28u << 10) /* 32 KiB with its header */
#define CHURN_SEGMENT (1u << 20)
#define CHURN_BLOCKS 2048u

static void churn_remove(struct world *w, uint64_t n)
{
    struct wf_tier_block gone;
    random_key(n, gone.key);
    assert_int_equal(ops->remove(w->tier, gone.key), WEFT_OK);
}

/* Bytes moved a byte of records written, once the log has settled; nine of ten blocks that go, and
 * come anew, are of one tenth of all. */
static double churn(struct world *w, uint32_t segments, uint32_t blocks)
{
    static uint64_t number[CHURN_BLOCKS];
    struct random_source random = {42};
    uint64_t next = 1, before = 0, moved;
    uint32_t hot = blocks / 10, before_steps = 3 * blocks, steps = 2 * before_steps;
    assert_true(blocks <= CHURN_BLOCKS);
    open_at(w, w->path, format(w->path, segments, CHURN_SEGMENT));
    for (uint32_t i = 0; i < blocks; i++) {
        number[i] = next++;
        assert_int_equal(put_sized(w, number[i], CHURN_BYTES), WEFT_OK);
    }
    for (uint32_t i = 0; i < steps; i++) {
        uint64_t at = random_below(&random, 10) ? random_below(&random, hot)
                                                : hot + random_below(&random, blocks - hot);
        if (i == before_steps)
            before = stats(w).moved_bytes;
        churn_remove(w, number[at]);
        number[at] = next++;
        assert_int_equal(put_sized(w, number[at], CHURN_BYTES), WEFT_OK);
    }
    moved = stats(w).moved_bytes - before;
    assert_int_equal(stats(w).blocks, blocks);
    assert_int_equal(stats(w).corrupt, 0);
    close_it(w);
    assert_int_equal(unlink(w->path), 0);
    return (double)moved / ((double)(steps - before_steps) * (CHURN_BYTES + WF_NVME_PAGE));
}

/* The same blocks, in a tier with one segment less than it takes to keep apart what moves. */
static void a_tier_that_keeps_apart_what_moves_moves_less(void **state)
{
    struct world *w = *state;
    const uint32_t blocks = (WF_NVME_APART_LEAST - 2) * 31 * 85 / 100;
    double together = churn(w, WF_NVME_APART_LEAST - 1, blocks);
    double apart = churn(w, WF_NVME_APART_LEAST, blocks);
    print_message("# moved a byte written: %.2f, and %.2f kept apart\n", together, apart);
    assert_true(apart > 0 && apart < together * 0.7);
}

/* Two open segments take no room from what the tier has: it is full when all but the reserve is,
 * and goes on then with what is removed, one block or many. */
static void the_room_for_moves_is_not_lost_to_a_full_tier(void **state)
{
    struct world *w = *state;
    const uint64_t each = 256u << 10, records = 7; /* a segment, besides its pages and footer */
    uint64_t all = (WF_NVME_APART_LEAST - 1) * records, next = 0;
    static uint64_t number[WF_NVME_APART_LEAST * 7];
    open_at(w, w->path, format(w->path, WF_NVME_APART_LEAST, each));
    for (; next < all; next++) {
        number[next] = next + 1;
        assert_int_equal(put_sized(w, number[next], CHURN_BYTES), WEFT_OK);
    }
    assert_int_equal(put_sized(w, next + 1, CHURN_BYTES), WEFT_FULL);
    for (uint32_t many = 1; many <= 64; many *= 2) {
        for (uint32_t round = 0; round < 12; round++) {
            uint64_t first = random_below(&w->random, (uint32_t)all);
            for (uint32_t i = 0; i < many; i++)
                churn_remove(w, number[(first + i * 37) % all]);
            for (uint32_t i = 0; i < many; i++) {
                number[(first + i * 37) % all] = ++next;
                assert_int_equal(put_sized(w, next, CHURN_BYTES), WEFT_OK);
            }
            assert_int_equal(put_sized(w, next + 1, CHURN_BYTES), WEFT_FULL);
        }
        close_it(w);
        open_at(w, w->path, 0);
        assert_int_equal(stats(w).blocks, all);
    }
    assert_int_equal(stats(w).corrupt, 0);
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
        TEST(a_tier_that_keeps_apart_what_moves_moves_less),
        TEST(the_room_for_moves_is_not_lost_to_a_full_tier),
        cmocka_unit_test(what_moves_is_worth_a_segment_of_its_own),
        cmocka_unit_test(without_a_free_segment_the_least_alive_is_emptied),
    };
    return cmocka_run_group_tests_name("tier_nvme_reclaim", tests, NULL, NULL);
}
