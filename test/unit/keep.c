/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies: what they are worth, by hand; and nodes that leave and are lost, in a simulated cluster.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../support/random.h"
#include "core/keep.h"

static void the_last_copy_costs_most(void **state)
{
    (void)state;
    struct wf_keep_copy copy = {.others = 0, .stays = 0.9, .transfer_s = 0.1, .recompute_s = 2};
    assert_true(fabs(wf_keep_cost_s(&copy) - 2) < 1e-9);
    copy.others = 1;
    assert_true(fabs(wf_keep_cost_s(&copy) - (0.9 * 0.1 + 0.1 * 2)) < 1e-9);
    copy.others = 3;
    assert_true(fabs(wf_keep_cost_s(&copy) - (0.999 * 0.1 + 0.001 * 2)) < 1e-9);
    copy.transfer_s = 5; /* nobody fetches that */
    assert_true(fabs(wf_keep_cost_s(&copy) - 2) < 1e-9);
}

static struct wf_keep *mover(uint32_t jobs, double bytes_s)
{
    struct wf_keep *keep;
    const struct wf_keep_options options = {jobs, bytes_s, 0};
    assert_int_equal(wf_keep_create(&options, 0, &keep), WEFT_OK);
    return keep;
}

static void what_is_urgent_goes_first(void **state)
{
    (void)state;
    struct wf_keep *keep = mover(8, 100);
    struct wf_keep_job out;
    double at_s = 0;
    const struct wf_keep_job jobs[] = {
        {.number = 1, .copies = 1, .wanted = 1, .bytes = 50, .worth_s = 99},
        {.number = 2, .copies = 1, .wanted = 2, .bytes = 50, .worth_s = 9},
        {.number = 3, .copies = 0, .wanted = 1, .bytes = 50, .worth_s = 1},
        {.number = 4, .copies = 0, .wanted = 1, .bytes = 25, .worth_s = 1},
        {.number = 5, .copies = 2, .wanted = 1, .bytes = 50, .worth_s = 1, .share = true},
        {.number = 6, .copies = 0, .wanted = 1, .bytes = 50, .worth_s = 1, .depth = 1},
    };
    static const uint32_t order[] = {4, 3, 6, 2, 5};
    for (int i = 0; i < 6; i++)
        assert_true(wf_keep_add(keep, &jobs[i]));
    assert_true(fabs(wf_keep_left_s(keep, 0) - 2.25) < 1e-9);
    assert_int_equal(wf_keep_next(keep, 0, &out, &at_s), WEFT_PENDING);
    assert_true(fabs(at_s - 0.25) < 1e-9);
    for (int i = 0; i < 5; i++) {
        if (wf_keep_next(keep, at_s, &out, &at_s) == WEFT_PENDING)
            assert_int_equal(wf_keep_next(keep, at_s + 1e-9, &out, &at_s), WEFT_OK);
        assert_int_equal(out.number, order[i]);
    }
    assert_true(fabs(at_s - 2.25) < 1e-6);
    assert_int_equal(wf_keep_next(keep, 99, &out, &at_s), WEFT_MISS);
    wf_keep_destroy(keep);
    wf_keep_destroy(NULL);
}

static void there_is_a_cap(void **state)
{
    (void)state;
    struct wf_keep *keep = mover(2, 1);
    struct wf_keep_stats stats;
    struct wf_keep_job job = {.number = 1, .wanted = 2, .copies = 1, .bytes = 1, .worth_s = 5};
    assert_true(wf_keep_add(keep, &job));
    job.copies = 0;
    assert_true(wf_keep_add(keep, &job));
    assert_false(wf_keep_add(keep, &job));
    wf_keep_stats(keep, &stats);
    assert_true(stats.jobs == 2 && fabs(stats.bytes - 2) < 1e-9 &&
                fabs(stats.last_bytes - 1) < 1e-9);
    wf_keep_clear(keep);
    wf_keep_stats(keep, &stats);
    assert_true(stats.jobs == 0 && fabs(stats.bytes) < 1e-9 && fabs(stats.last_bytes) < 1e-9);
    wf_keep_destroy(keep);
    const struct wf_keep_options none = {0, 1, 0};
    assert_int_equal(wf_keep_create(&none, 0, &keep), WEFT_E_INVALID);
}

/* A job that came to nothing leaves its bytes to the next. */
static void what_was_not_moved_is_not_spent(void **state)
{
    (void)state;
    struct wf_keep *keep = mover(4, 100);
    struct wf_keep_job job = {.number = 1, .wanted = 1, .bytes = 100, .worth_s = 1}, out;
    double at_s = 0;
    assert_true(wf_keep_add(keep, &job));
    job.number = 2;
    assert_true(wf_keep_add(keep, &job));
    assert_int_equal(wf_keep_next(keep, 1, &out, &at_s), WEFT_OK);
    wf_keep_unspent(keep, &out);
    assert_int_equal(wf_keep_next(keep, 1, &out, &at_s), WEFT_OK);
    struct wf_keep_stats stats;
    wf_keep_stats(keep, &stats);
    assert_true(stats.moved == 1 && fabs(stats.moved_bytes - 100) < 1e-9);
    wf_keep_destroy(keep);
}

/* ------------------------------------------------------------ a cluster that loses nodes */

#define NODES 8u
#define BLOCKS 2000u

struct cluster {
    bool holds[BLOCKS][NODES];
    uint32_t wanted[BLOCKS];
    double bytes[BLOCKS], worth_s[BLOCKS];
};

static uint32_t copies_of(const struct cluster *c, uint32_t block, uint32_t but)
{
    uint32_t copies = 0;
    for (uint32_t n = 0; n < NODES; n++)
        copies += n != but && c->holds[block][n];
    return copies;
}

/* One node leaves, or was lost; the rest has copies made until then. */
static void nodes_leave_and_are_lost(void **state)
{
    (void)state;
    struct random_source r = random_seeded("keep");
    static struct cluster c;
    for (int round = 0; round < 40; round++) {
        bool lost = round % 2, hurried = round % 4 >= 2;
        struct wf_keep *keep = mover(BLOCKS, 1e6);
        double last_bytes = 0, moved = 0, at_s = 0, next_s, began_s = 0;
        uint32_t gone = random_below(&r, NODES);
        for (uint32_t b = 0; b < BLOCKS; b++) {
            c.bytes[b] = 1000 + random_below(&r, 20000);
            c.worth_s[b] = 0.001 * random_below(&r, 1000);
            c.wanted[b] = 1 + random_below(&r, 2);
            for (uint32_t n = 0; n < NODES; n++)
                c.holds[b][n] = random_below(&r, 6) == 0;
            if (!c.holds[b][gone])
                continue;
            const struct wf_keep_job job = {.number = b,
                                            .copies = copies_of(&c, b, gone),
                                            .wanted = c.wanted[b],
                                            .bytes = c.bytes[b],
                                            .worth_s = c.worth_s[b]};
            /* What has no other copy is lost with a node that is. */
            if (lost && job.copies == 0)
                continue;
            last_bytes += job.copies == 0 ? job.bytes : 0;
            assert_true(wf_keep_add(keep, &job));
        }
        double end_s = hurried ? 0.5 * last_bytes / 1e6 + 0.2 : INFINITY;
        struct wf_keep_job job, before = {.wanted = 1, .worth_s = INFINITY, .bytes = 1};
        for (enum weft_status status; at_s < end_s; at_s = next_s) { /* NOLINT: it is told when */
            next_s = at_s;
            status = wf_keep_next(keep, at_s, &job, &next_s);
            if (status == WEFT_MISS)
                break;
            if (status == WEFT_PENDING) {
                assert_true(next_s > at_s);
                continue;
            }
            moved += job.bytes;
            /* Never faster than it may, in any span from the beginning on. */
            assert_true(moved <= 1e6 * (at_s - began_s) + 1);
            assert_true(wf_keep_judge(&job) >= wf_keep_judge(&before));
            if (wf_keep_judge(&job) == wf_keep_judge(&before))
                assert_true(job.worth_s * before.bytes <= before.worth_s * job.bytes * (1 + 1e-9));
            before = job;
            uint32_t to = (gone + 1) % NODES;
            while (c.holds[job.number][to] || to == gone)
                to = (to + 1) % NODES;
            c.holds[job.number][to] = true;
        }
        for (uint32_t b = 0; b < BLOCKS && !hurried; b++) {
            uint32_t copies = copies_of(&c, b, gone);
            if (c.holds[b][gone] && !(lost && copies == 0))
                assert_true(copies >= c.wanted[b] || copies >= 1);
            if (c.holds[b][gone] && !lost)
                assert_true(copies >= 1);
        }
        wf_keep_destroy(keep);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_copy_costs_most),
        cmocka_unit_test(what_was_not_moved_is_not_spent),
        cmocka_unit_test(what_is_urgent_goes_first),
        cmocka_unit_test(there_is_a_cap),
        cmocka_unit_test(nodes_leave_and_are_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
