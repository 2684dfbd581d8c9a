/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual time against a list that is searched in full for what is next.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/vtime.h"

#define EVENTS 200u

struct thing {
    struct wf_vtime_event event; /* first: an event is its thing */
    uint64_t at_ns, order;       /* 0: not set */
    struct world *world;
};

struct world {
    struct wf_vtime *time;
    struct thing things[EVENTS], *happened;
    uint64_t orders, seed;
    bool again;
};

static struct thing *soonest(struct world *w)
{
    struct thing *best = NULL;
    for (uint32_t i = 0; i < EVENTS; i++) {
        struct thing *thing = &w->things[i];
        if (thing->order && (!best || thing->at_ns < best->at_ns ||
                             (thing->at_ns == best->at_ns && thing->order < best->order)))
            best = thing;
    }
    return best;
}

static void set(struct world *w, struct thing *thing)
{
    uint64_t now = wf_vtime_now(w->time), at = now + wf_random_below(&w->seed, 50);
    if (wf_random_below(&w->seed, 20) == 0)
        at = now / 2; /* that is over: now */
    thing->at_ns = at < now ? now : at;
    thing->order = ++w->orders;
    wf_vtime_at(w->time, &thing->event, at);
}

static void happens(struct wf_vtime_event *event)
{
    struct thing *thing = (struct thing *)event;
    assert_int_equal(event->place, 0);
    assert_int_equal(wf_vtime_now(thing->world->time), thing->at_ns);
    thing->world->happened = thing;
    thing->order = 0;
    if (wf_random_below(&thing->world->seed, 4) == 0)
        set(thing->world, thing);
}

static int begin(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->seed = 7;
    assert_int_equal(wf_vtime_create(&w->time), WEFT_OK);
    for (uint32_t i = 0; i < EVENTS; i++)
        w->things[i] = (struct thing){.event.happens = happens, .world = w};
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    wf_vtime_destroy(w->time);
    free(w);
    return 0;
}

static void step(struct world *w)
{
    struct thing *next = soonest(w);
    assert_true(wf_vtime_next(w->time) == (next ? next->at_ns : WF_VTIME_NEVER));
    uint64_t until = wf_vtime_now(w->time) + wf_random_below(&w->seed, 40);
    bool due = next && next->at_ns <= until;
    w->happened = NULL;
    bool any = wf_vtime_step(w->time, until);
    assert_int_equal(any, due);
    assert_ptr_equal(w->happened, any ? next : NULL);
    if (!any)
        assert_int_equal(wf_vtime_now(w->time), until);
}

static void test_the_soonest_first_and_the_first_set_of_those(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 200000; i++) {
        struct thing *thing = &w->things[wf_random_below(&w->seed, EVENTS)];
        switch (wf_random_below(&w->seed, 4)) {
        case 0:
            thing->order = 0;
            wf_vtime_clear(w->time, &thing->event);
            break;
        case 1:
        case 2: set(w, thing); break;
        default: step(w);
        }
        assert_int_equal(thing->event.place != 0, thing->order != 0);
    }
    while (soonest(w))
        step(w);
    assert_true(wf_vtime_next(w->time) == WF_VTIME_NEVER);
    assert_true(wf_vtime_count(w->time) > 1000);
}

static void test_without_events_time_goes_only_as_far_as_told(void **state)
{
    struct world *w = *state;
    uint64_t began = wf_vtime_now(w->time);
    assert_int_equal(began, 1000000000u);
    assert_false(wf_vtime_step(w->time, WF_VTIME_NEVER));
    assert_int_equal(wf_vtime_now(w->time), began);
    assert_false(wf_vtime_step(w->time, began + 5));
    assert_false(wf_vtime_step(w->time, began));
    assert_int_equal(wf_vtime_now(w->time), began + 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_soonest_first_and_the_first_set_of_those, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_without_events_time_goes_only_as_far_as_told, begin,
                                        end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
