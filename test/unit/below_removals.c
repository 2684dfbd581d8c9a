/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys that a tier is to forget: when it does not come to it, so many wait and then nobody begins
 * to let go of more; and when it does, it is told of all of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/below.h"
#include "mover_world.h"

#define BLOCKS 300u
#define MANY 200000u

struct stage {
    struct world *world;
    struct wf_below below;
    struct wf_lower lower;
};

static struct wf_node node; /* of which there is no more than what is asked of it here */

static int before(void **state)
{
    static struct stage stage;
    struct stage *s = &stage;
    void *world = NULL;
    memset(s, 0, sizeof *s);
    if (world_setup(&world) != 0)
        return 1;
    s->world = world;
    s->world->options.jobs_max = 1024;
    memset(&node, 0, sizeof node);
    node.config.below_max = 1u << 20;
    static const struct wf_tier_config config = {.name = "test0"};
    s->below.node = &node;
    s->lower.below = &s->below;
    s->lower.config = &config;
    *state = s;
    return wf_lower_removals_create(&s->lower) != WEFT_OK;
}

static int after(void **state)
{
    struct stage *s = *state;
    void *world = s->world;
    s->below.stopping = true;
    int failed = world_teardown(&world);
    wf_lower_removals_destroy(&s->lower);
    return failed;
}

static void opens(bool opens)
{
    pthread_mutex_lock(&gate.lock);
    gate.open_shut = !opens;
    pthread_mutex_unlock(&gate.lock);
}

/* A tier with some blocks, that does not come to be open. */
static void shut(struct stage *s)
{
    struct world *w = s->world;
    world_open(w);
    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_int_equal(world_run(w, WF_MOVE_WRITE, i), WEFT_OK);
    assert_true(wf_mover_destroy(w->mover, 10000));
    opens(false);
    w->changes = 0;
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    s->lower.mover = w->mover;
}

static void forget_blocks(struct stage *s)
{
    for (uint64_t i = 0; i < BLOCKS; i++)
        wf_lower_remove(&s->lower, world_block(i).key);
}

/* More of them, until the tier has enough.  How many. */
static uint32_t forget_until_full(struct stage *s)
{
    uint32_t count = 0;
    for (; count < MANY && wf_lower_may_remove(&s->lower); count++) {
        uint8_t key[32];
        random_key(1000000 + count, key);
        wf_lower_remove(&s->lower, key);
    }
    return count;
}

/* It is open at last, and is told of what waits. */
static void tell_all(struct stage *s)
{
    struct world *w = s->world;
    opens(true);
    world_state(w, WF_MOVER_OK);
    uint64_t until = wf_now_ms() + 20000;
    while (!wf_lower_quiet(&s->lower) && wf_now_ms() < until) {
        struct pollfd fd = {.fd = wf_mover_fd(w->mover), .events = POLLIN};
        poll(&fd, 1, 100);
        wf_mover_reap(w->mover);
    }
    assert_true(wf_lower_quiet(&s->lower));
}

static void so_many_wait_and_none_is_forgotten(void **state)
{
    struct stage *s = *state;
    struct world *w = s->world;
    shut(s);
    uint32_t count = forget_until_full(s);
    assert_in_range(count, 10000, MANY - 1);
    /* What extends the last of them goes along. */
    forget_blocks(s);
    assert_false(wf_lower_may_remove(&s->lower));
    assert_false(wf_lower_quiet(&s->lower));
    assert_false(node.unpark);
    tell_all(s);
    assert_true(wf_lower_may_remove(&s->lower));
    assert_true(node.unpark); /* who waited to remove something may try again */
    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_int_equal(world_run(w, WF_MOVE_READ, i), WEFT_MISS);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_OK);
}

/* All of the directory may go at once, and then some; beyond that nothing is kept in mind. */
static void there_is_an_end_to_what_waits(void **state)
{
    struct stage *s = *state;
    struct world *w = s->world;
    node.config.below_max = 1024;
    shut(s);
    uint32_t full = forget_until_full(s);
    for (uint32_t i = 0; i < 4096; i++) {
        uint8_t key[32];
        random_key(9000000 + i, key);
        wf_lower_remove(&s->lower, key);
    }
    forget_blocks(s); /* too late */
    assert_in_range(full, 10000, MANY - 1);
    tell_all(s);
    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_int_equal(world_run(w, WF_MOVE_READ, i), WEFT_OK);
}

/* The tier failed: it tells of what it has when it is back. */
static void what_failed_is_told_nothing(void **state)
{
    struct stage *s = *state;
    struct world *w = s->world;
    shut(s);
    (void)forget_until_full(s);
    forget_blocks(s);
    wf_lower_removals_forget(&s->lower);
    assert_true(wf_lower_quiet(&s->lower));
    opens(true);
    world_state(w, WF_MOVER_OK);
    for (uint64_t i = 0; i < BLOCKS; i++)
        assert_int_equal(world_run(w, WF_MOVE_READ, i), WEFT_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(so_many_wait_and_none_is_forgotten),
        TEST(there_is_an_end_to_what_waits),
        TEST(what_failed_is_told_nothing),
    };
    return cmocka_run_group_tests_name("below_removals", tests, NULL, NULL);
}
