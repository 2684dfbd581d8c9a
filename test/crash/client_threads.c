/* SPDX-License-Identifier: Apache-2.0
 *
 * One handle, many threads, and a node that is killed and started again under them.
 *
 * Threads pin, put, match, count and ask at once, while the connection is poisoned, replaced and
 * drained.  No call may answer anything but success, a miss, or that the node is away; no pinned
 * byte may be wrong; and once the node stays, all go on.  ThreadSanitizer watches libweft from
 * inside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAYLOAD_ORDERED_ELSEWHERE
#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 16384
#define KEYS 64
#define THREADS 6
#define DEATHS 5

static const char *const settings[] = {"pool.size=2MB", "pool.size_max=2MB", "limits.pins=256",
                                       NULL};

struct shared {
    struct weft *w;
    struct weft_format *f;
    _Atomic bool stop;
    _Atomic uint64_t hits, puts, away, wrong, odd;
    _Atomic int odd_status;
};

/* Note an answer; true when it was success. */
static bool fine(struct shared *s, enum weft_status status)
{
    if (status == WEFT_E_NODE)
        atomic_fetch_add(&s->away, 1);
    else if (status < 0) {
        atomic_store(&s->odd_status, status);
        atomic_fetch_add(&s->odd, 1);
    }
    return status == WEFT_OK;
}

static void pin_some(struct shared *s, struct random_source *r)
{
    struct weft_pin pins[4];
    struct weft_key keys[4];
    int held = 0;
    for (int i = 0; i < 4; i++) {
        random_key(random_below(r, KEYS), keys[held].bytes);
        held += fine(s, weft_pin(s->f, &keys[held], &pins[held]));
    }
    for (int i = 0; i < held; i++) {
        if (!payload_right(pins[i].data, BLOCK_BYTES, keys[i].bytes))
            atomic_fetch_add(&s->wrong, 1);
        weft_unpin(&pins[i]);
    }
    atomic_fetch_add(&s->hits, (uint64_t)held);
    if (!held)
        weftd_sleep_ms(1);
}

static void put_some(struct shared *s, struct random_source *r)
{
    struct weft_key keys[3];
    struct weft_slot slots[3];
    uint32_t first = random_below(r, KEYS);
    for (uint32_t i = 0; i < 3; i++)
        random_key((first + i) % KEYS, keys[i].bytes);
    if (!fine(s, weft_reserve_keys(s->f, NULL, keys, 3, 0, slots))) {
        weftd_sleep_ms(1);
        return;
    }
    for (uint32_t i = 0; i < 3; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, BLOCK_BYTES, keys[i].bytes);
    if (random_below(r, 8) == 0)
        weft_abort_slots(s->f, slots, 3);
    else
        atomic_fetch_add(&s->puts, fine(s, weft_commit_slots(s->f, slots, 3)));
}

static void ask_some(struct shared *s, struct random_source *r)
{
    struct weft_key key;
    struct weft_counters counters;
    char *text;
    size_t n;
    random_key(random_below(r, KEYS), key.bytes);
    fine(s, weft_match_keys(s->f, &key, 1, &n));
    weft_counters_read(s->w, &counters);
    if (fine(s, weft_query(s->w, "status", 0, &text)))
        weft_text_free(text);
    else
        weftd_sleep_ms(1);
}

/* Sessions are one thread's; what they do to the handle is not. */
static void converse(struct shared *s, struct weft_session *session, struct random_source *r)
{
    uint32_t tokens[9] = {random_below(r, 8)};
    struct weft_match match;
    if (!session || !fine(s, weft_match(session, tokens, 9, &match)))
        weftd_sleep_ms(1);
    else
        fine(s, weft_session_hint(session, random_below(r, 2) ? WEFT_DECODING : WEFT_IDLE, NULL));
}

struct thread {
    struct shared *shared;
    int number;
};

static void *run(void *context)
{
    struct thread *t = context;
    struct shared *s = t->shared;
    struct random_source r = {(uint64_t)t->number + 1};
    struct weft_session *session = NULL;
    while (!atomic_load(&s->stop)) {
        switch (t->number % THREADS) {
        case 0:
        case 1: pin_some(s, &r); break;
        case 2:
        case 3: put_some(s, &r); break;
        case 4: ask_some(s, &r); break;
        default:
            if (!session && weft_session_open(s->f, NULL, &session) != WEFT_OK)
                session = NULL;
            converse(s, session, &r);
        }
    }
    weft_session_close(session);
    return NULL;
}

/* Wait until there are more of both than there were. */
static bool goes_on(struct shared *s)
{
    uint64_t hits = s->hits, puts = s->puts;
    for (int waited = 0; waited < 30000; waited += 10) {
        weftd_sleep_ms(10);
        if (s->hits > hits && s->puts > puts)
            return true;
    }
    return false;
}

static void test_threads(void **state)
{
    (void)state;
    static struct shared s;
    struct weftd node;
    pthread_t threads[THREADS];
    struct thread contexts[THREADS];
    struct random_source r = random_seeded("client_threads");
    weftd_run(&node, settings);
    s.w = weftd_connect(&node, "default");
    assert_non_null(s.w);
    s.f = weftd_format(s.w, "threads", BLOCK_BYTES);
    assert_non_null(s.f);
    for (int i = 0; i < THREADS; i++) {
        contexts[i] = (struct thread){.shared = &s, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &contexts[i]), 0);
    }
    bool well = goes_on(&s);
    for (int death = 0; death < DEATHS && well; death++) {
        weftd_sleep_ms((int)random_below(&r, 60));
        if (death % 2)
            well = weftd_stop(&node); /* in order, with clients at work */
        else
            weftd_kill(&node);
        weftd_sleep_ms((int)random_below(&r, 30));
        well = well && weftd_start(&node, settings, NULL) && goes_on(&s);
    }
    atomic_store(&s.stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    struct weft_counters counters;
    weft_counters_read(s.w, &counters);
    print_message("# %llu hits, %llu puts, %llu times away, %llu reconnects\n",
                  (unsigned long long)s.hits, (unsigned long long)s.puts,
                  (unsigned long long)s.away, (unsigned long long)counters.reconnects);
    if (!well)
        weftd_show_log(&node);
    assert_true(well);
    assert_int_equal(s.wrong, 0);
    if (s.odd)
        fail_msg("%llu odd answers, the last %s", (unsigned long long)s.odd,
                 weft_status_name((enum weft_status)s.odd_status));
    assert_true(counters.reconnects >= DEATHS);
    weft_format_close(s.f);
    weft_close(s.w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* A handle that has just found no node finds the one that has come since. */
static void test_the_first_call_after_a_start_succeeds(void **state)
{
    (void)state;
    struct weftd node;
    struct weft *other = NULL;
    char *text = NULL;
    weftd_prepare(&node);
    assert_true(weftd_start(&node, settings, NULL));
    struct weft *w = weftd_connect(&node, "default");
    assert_non_null(w);
    for (int death = 0; death < 3; death++) {
        weftd_kill(&node);
        assert_int_equal(weft_query(w, "status", 0, &text), WEFT_E_NODE);
        weftd_spawn(&node, settings, NULL);
        /* Ours looks all the time, and as soon as another handle finds it, ours must. */
        enum weft_status status = WEFT_E_NODE;
        for (int tries = 0; tries < 20000 && status == WEFT_E_NODE && !other; tries++) {
            weftd_sleep_ms(1);
            status = weft_query(w, "status", 0, &text);
            other = status == WEFT_E_NODE ? weftd_connect(&node, "default") : NULL;
        }
        if (other)
            status = weft_query(w, "status", 0, &text);
        assert_int_equal(status, WEFT_OK);
        weft_text_free(text);
        weft_close(other);
        other = NULL;
    }
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_the_first_call_after_a_start_succeeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
