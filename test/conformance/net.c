/* SPDX-License-Identifier: Apache-2.0
 *
 * The suite of transports: every promise of net.h, against every backend.  What needs a socket in
 * between is in net_wire.c, one-sided access in net_access.c.
 */
#include "net_world.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>

#include "base/log.h"

#define OPS(world) ((world)->backend->ops)

/* ------------------------------------------------------------------------------------ messages */

static void test_meet(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    struct wf_net_stats stats;
    world_meet(a, b, &ab, &ba);
    assert_string_equal(ab->hello, "node 1");
    assert_string_equal(ba->hello, "node 0");
    if (ab->name[0]) {
        assert_string_equal(ab->name, "node-1.test");
        assert_string_equal(ba->name, "node-0.test");
    }
    OPS(world)->stats(a->net, &stats);
    assert_int_equal(stats.links, 1);
    OPS(world)->close(ab->link);
    UNTIL(world, ab->down && ba->down);
    assert_int_equal(a->ups + b->ups, 2);
}

/* Each way at once, as fast as the queues allow: every byte, in order, once. */
static void test_order(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    uint64_t count = world->backend->slow ? 900 / SLOWER : 900, next_ab = 0, next_ba = 0;
    struct wf_net_stats stats;
    world->plan = (struct plan){.seed = random_next(&world->random),
                                .header_max = 3000,
                                .pieces_max = 40,
                                .payload_max = 400000,
                                .drop_one_in = 50};
    world_meet(a, b, &ab, &ba);
    while (ab->begun < count || ba->begun < count || world->out) {
        while (next_ab < count && world_send(ab, next_ab))
            next_ab++;
        while (next_ba < count && world_send(ba, next_ba))
            next_ba++;
        world_step(world);
        assert_false(ab->down || ba->down);
    }
    UNTIL(world, !ab->open && !ba->open);
    world_settle(world);
    assert_int_equal(ab->begun, count);
    assert_int_equal(ab->failed + ba->failed, 0);
    OPS(world)->stats(a->net, &stats);
    assert_int_equal(stats.sent, count);
    assert_int_equal(stats.received, count);
    for (struct parcel *parcel = world->parcels; parcel; parcel = parcel->next)
        assert_int_equal(parcel->status, WEFT_OK);
}

/* At and beside every size at which something changes. */
static void test_sizes(void **state)
{
    static const uint64_t edges[] = {0,       1,      4096,    65536,           131072,
                                     262144,  524288, 1 << 20, (4 << 20) - 100, 4 << 20,
                                     5 << 20, 9 << 20};
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    uint64_t number = 0;
    world->plan.pieces_max = WF_NET_PIECES_MAX;
    world_meet(a, b, &ab, &ba);
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        for (int beside = -1; beside <= 1; beside++) {
            if (beside < 0 && !edges[i])
                continue;
            uint64_t bytes = edges[i] + (uint64_t)(int64_t)beside;
            uint32_t header = 1 + random_below(&world->random, WF_NET_HEADER_MAX);
            uint32_t pieces = 1 + random_below(&world->random, WF_NET_PIECES_MAX);
            assert_int_equal(world_send_sized(ab, number++, header, bytes, bytes ? pieces : 0),
                             WEFT_OK);
        }
    assert_int_equal(world_send_sized(ab, number++, WF_NET_HEADER_MAX, 1000, WF_NET_PIECES_MAX),
                     WEFT_OK);
    UNTIL(world, (ba->arrived == number && !world->out) || ba->down);
    assert_false(ba->down);
}

/* One at a time: nothing comes after it that would wake who waits for more than there is. */
static void test_alone(void **state)
{
    static const uint64_t edges[] = {65536,  131072, 196608,  262144,  300000,  327680,
                                     524288, 600000, 1 << 20, 1500000, 4 << 20, (4 << 20) + 70000};
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    uint64_t number = 0;
    world_meet(a, b, &ab, &ba);
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        for (int beside = -1; beside <= 1; beside++) {
            uint64_t bytes = edges[i] + (uint64_t)(int64_t)beside;
            uint32_t pieces = 1 + random_below(&world->random, 3);
            assert_int_equal(world_send_sized(ab, number++, 64, bytes, pieces), WEFT_OK);
            UNTIL(world, (ba->arrived == number && !world->out) || ba->down);
            assert_false(ba->down);
        }
}

static void never_sent(struct wf_net_message *message, enum weft_status status)
{
    (void)message;
    fail_msg("sent was called, with %d", status);
}

static void test_wrongly_put(void **state)
{
    static char header[WF_NET_HEADER_MAX + 1];
    static struct iovec pieces[WF_NET_PIECES_MAX + 1];
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    world_meet(a, b, &ab, &ba);
    struct wf_net_message good = {.header = header,
                                  .header_bytes = 32,
                                  .pieces = pieces,
                                  .sent = never_sent};
    struct wf_net_message bad[5] = {good, good, good, good, good};
    bad[0].header_bytes = 0;
    bad[1].header_bytes = WF_NET_HEADER_MAX + 1;
    bad[2].piece_count = WF_NET_PIECES_MAX + 1;
    struct iovec long_one = {header, (size_t)WF_NET_PAYLOAD_MAX + 1};
    bad[3].piece_count = 1;
    bad[3].pieces = &long_one;
    /* 4 GiB and a byte in two pieces whose lengths wrap to little. */
    struct iovec wraps[2] = {{header, SIZE_MAX}, {header, 2}};
    bad[4].piece_count = 2;
    bad[4].pieces = wraps;
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(OPS(world)->send(ab->link, &bad[i]), WEFT_E_INVALID);
    world_settle(world);
    assert_false(ab->down || ba->down);
}

static void small_queue(struct wf_net_options *options)
{
    options->queue_max = 8;
    options->dead_ms = 120000; /* who is held says nothing */
}

/* Who is not read is not sent to without end; when it is read again, all of it comes. */
static void test_queue(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, small_queue), *b = world_node(world, small_queue);
    struct end *ab, *ba;
    uint64_t number = 0;
    world_meet(a, b, &ab, &ba);
    b->hold = true;
    for (int round = 0; round < 100; round++) {
        while (world_send_sized(ab, number, 100, 1 << 20, 3) == WEFT_OK)
            number++;
        assert_true(world->out <= 8);
        OPS(world)->poll(a->net, 0);
        if (round == 0)
            assert_int_equal(number, 8);
    }
    assert_int_equal(world->out, 8);
    assert_true(number < 100);
    b->hold = false;
    UNTIL(world, (ba->arrived == number && !world->out) || ab->down);
    assert_false(ab->down || ba->down);
}

/* ---------------------------------------------------------------------------- ends of links */

static void test_unwanted(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    b->unwanted = true;
    struct end *ab = world_connect(a, OPS(world)->address(b->net));
    UNTIL(world, ab->down && b->downs == 1);
    assert_int_equal(b->ups, 1);
    world_settle(world);
    assert_int_equal(a->downs, 1);

    /* And the other way round. */
    a->unwanted = true;
    b->unwanted = false;
    struct end *again = world_connect(a, OPS(world)->address(b->net));
    UNTIL(world, again->down && b->ups == b->downs);
    assert_int_equal(a->downs, 2);
}

static void test_close_early(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    for (int steps = 0; steps < 12; steps++) {
        struct end *end = world_connect(a, OPS(world)->address(b->net));
        for (int i = 0; i < steps && !end->down; i++)
            OPS(world)->poll((i % 2 ? a : b)->net, 1);
        if (!end->down) {
            OPS(world)->close(end->link);
            assert_false(end->down); /* not from within close */
        }
        UNTIL(world, end->down && b->ups == b->downs);
        assert_int_equal(a->downs, (uint32_t)steps + 1);
    }
    struct end *end = world_connect(a, OPS(world)->address(b->net));
    end->close_in_up = true;
    UNTIL(world, end->down && b->ups == b->downs);
}

static void close_it(struct end *end)
{
    OPS(end->node->world)->close(end->link);
}

/* In the midst of large payloads, from every callback, on either side. */
static void test_close_in(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    for (int where = 0; where < 7; where++) {
        struct end *ab, *ba;
        uint64_t number = 0;
        world_meet(a, b, &ab, &ba);
        if (where == 0)
            b->in_begun = close_it;
        else if (where == 1)
            b->in_arrived = close_it;
        else if (where == 2)
            b->in_progress = close_it;
        else if (where == 3)
            a->in_sent = close_it;
        while (number < 6 && world_send_sized(ab, number, 5000, 3 << 20, 7) == WEFT_OK)
            number++;
        for (uint32_t i = random_below(&world->random, 6); i && where > 3; i--)
            world_step(world);
        if (where > 3 && (where == 4 ? ab : ba)->link)
            close_it(where == 4 ? ab : ba);
        if (where == 6) /* twice is once */
            OPS(world)->close(ba->link ? ba->link : ab->link);
        UNTIL(world, ab->down && ba->down && !world->out);
        assert_int_equal(ba->arrived + ba->failed, ba->begun);
        b->in_begun = b->in_arrived = b->in_progress = a->in_sent = NULL;
    }
    world_settle(world);
    assert_int_equal(a->ups, a->downs);
    assert_int_equal(b->ups, b->downs);
}

static void test_send_when_down(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab = world_connect(a, OPS(world)->address(b->net));
    assert_int_equal(world_send_sized(ab, 0, 50, 0, 0), WEFT_E_NODE);
    UNTIL(world, ab->up);
    assert_int_equal(world_send_sized(ab, 0, 50, 0, 0), WEFT_OK);
    OPS(world)->close(ab->link);
    assert_int_equal(world_send_sized(ab, 1, 50, 0, 0), WEFT_E_NODE);
    UNTIL(world, ab->down);
}

/* Its messages end first, its links go without a word; the other side hears. */
static void test_destroy(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    world_meet(a, b, &ab, &ba);
    for (uint64_t number = 0; number < 5; number++)
        assert_int_equal(world_send_sized(ab, number, 100, 2 << 20, 3), WEFT_OK);
    world_step(world);
    OPS(world)->destroy(a->net);
    a->net = NULL;
    assert_int_equal(world->out, 0);
    assert_false(ab->down);
    UNTIL(world, ba->down);
    assert_int_equal(ba->arrived + ba->failed, ba->begun);
    assert_true(ba->status < 0);

    /* And with a payload half arrived. */
    struct node *c = world_node(world, NULL);
    struct end *cb, *bc;
    world_meet(c, b, &cb, &bc);
    assert_int_equal(world_send_sized(cb, 0, 100, 8 << 20, 3), WEFT_OK);
    UNTIL(world, bc->begun);
    uint64_t open = bc->open;
    OPS(world)->destroy(b->net);
    b->net = NULL;
    assert_int_equal(bc->failed, open);
    assert_false(bc->down);
    UNTIL(world, cb->down && !world->out);
}

static void few_links(struct wf_net_options *options)
{
    options->links_max = 3;
}

static void test_links_max(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, few_links);
    struct end *ends[3], *theirs[3];
    for (int i = 0; i < 3; i++)
        world_meet(a, b, &ends[i], &theirs[i]);
    struct end *fourth = world_connect(a, OPS(world)->address(b->net));
    UNTIL(world, fourth->down);
    assert_false(fourth->up);
    assert_true(fourth->status < 0);
    assert_int_equal(b->ups, 3);
    struct wf_net_link *link;
    assert_int_equal(OPS(world)->connect(b->net, OPS(world)->address(a->net), NULL, &link),
                     WEFT_E_LIMIT);
    OPS(world)->close(theirs[1]->link);
    UNTIL(world, ends[1]->down && theirs[1]->down);
    struct end *more, *more_b;
    world_meet(a, b, &more, &more_b);
}

static void test_bad_addresses(void **state)
{
    static const char *const bad[] = {"", "tcp", "tcp:127.0.0.1", "carrier:pigeon", "tcp:x:1"};
    struct world *world = *state;
    struct node *a = world_node(world, NULL);
    struct wf_net_link *link = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(OPS(world)->connect(a->net, bad[i], NULL, &link), WEFT_E_INVALID);
    assert_null(link);
    world_settle(world);
    assert_int_equal(a->downs, 0);
}

static void test_nobody(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    char address[WF_NET_ADDRESS_MAX];
    snprintf(address, sizeof address, "%s", OPS(world)->address(b->net));
    OPS(world)->destroy(b->net);
    b->net = NULL;
    struct end *end = world_connect(a, address);
    UNTIL(world, end->down);
    assert_false(end->up);
    assert_true(end->status < 0);
}

static void deaf(struct wf_net_options *options)
{
    options->listen = NULL;
}

static void test_listens_nowhere(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, deaf), *b = world_node(world, NULL);
    struct end *ab, *ba;
    assert_string_equal(OPS(world)->address(a->net), "");
    world_meet(a, b, &ab, &ba);
    assert_int_equal(world_send_sized(ba, 0, 100, 1000, 2), WEFT_OK);
    UNTIL(world, ab->arrived == 1);
}

/* ----------------------------------------------------------------------------------- time */

static void impatient(struct wf_net_options *options)
{
    options->dead_ms = 1200; /* a machine that is busy may give this process no turn for long */
}

/* Nobody has anything to say, and everybody is there. */
static void test_idle(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, impatient), *b = world_node(world, NULL);
    struct end *ab, *ba;
    world_meet(a, b, &ab, &ba);
    uint64_t began = world_now_ms();
    for (int i = 0; i < 1500 && (world->backend->wire ? world_now_ms() - began < 1600 : true); i++)
        world_step(world);
    assert_false(ab->down || ba->down);
    assert_int_equal(world_send_sized(ab, 0, 100, 1000, 2), WEFT_OK);
    UNTIL(world, ba->arrived == 1);
}

/* One who reads nothing for longer than dead_ms, and says nothing, is gone. */
static void test_stuck(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, impatient), *b = world_node(world, NULL);
    struct end *ab, *ba;
    world_meet(a, b, &ab, &ba);
    assert_int_equal(world_send_sized(ab, 0, 100, 8 << 20, 2), WEFT_OK);
    if (!OPS(world)->one_sided || world->backend->wire) {
        b->hold = true;
        UNTIL(world, ab->down);
        assert_int_equal(ab->status, WEFT_E_NODE);
        assert_int_equal(world->out, 0);
        b->hold = false;
        UNTIL(world, ba->down);
    }
}

/* ------------------------------------------------------------------------------- wake, event */

static void *waker(void *of)
{
    struct node *node = of;
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    OPS(node->world)->wake(node->net);
    return NULL;
}

static void test_wake(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL);
    pthread_t thread;
    if (world->backend->simulated)
        skip();
    for (int i = 0; i < 3; i++) {
        uint64_t began = world_now_ms();
        assert_int_equal(pthread_create(&thread, NULL, waker, a), 0);
        assert_int_equal(OPS(world)->poll(a->net, 20000), WEFT_OK);
        assert_true(world_now_ms() - began < 15000);
        pthread_join(thread, NULL);
    }
    /* One before the poll counts, too. */
    OPS(world)->wake(a->net);
    uint64_t began = world_now_ms();
    assert_int_equal(OPS(world)->poll(a->net, 20000), WEFT_OK);
    assert_true(world_now_ms() - began < 15000);
}

/* With words now and then.  Both ends are of one process, which a busy machine gives no turn. */
static void regular(struct wf_net_options *options)
{
    options->dead_ms = 8000;
}

/* With nothing but event() to say when to poll, everything still happens. */
static void test_event(void **state)
{
    struct world *world = *state;
    struct node *nodes[2] = {world_node(world, regular), world_node(world, regular)};
    struct pollfd waits[2];
    struct end *end = NULL;
    uint64_t sent = 0, began = world_now_ms();
    if (world->backend->simulated)
        skip();
    for (int i = 0; i < 2; i++)
        waits[i] = (struct pollfd){.fd = OPS(world)->event(nodes[i]->net), .events = POLLIN};
    end = world_connect(nodes[0], OPS(world)->address(nodes[1]->net));
    while (!nodes[1]->end_count || nodes[1]->ends[0].arrived < 300 ||
           world_now_ms() - began < 500) {
        assert_true(poll(waits, 2, (int)PATIENCE_MS) > 0);
        for (int i = 0; i < 2; i++)
            if (waits[i].revents)
                assert_int_equal(OPS(world)->poll(nodes[i]->net, 0), WEFT_OK);
        if (end->down)
            fail_msg("it went down: %s", end->sentence);
        /* From outside of poll, and one at a time. */
        if (end->up && sent < 300 && !world->out &&
            world_send_sized(end, sent, 200, sent % 3 * 300000, sent % 3 ? 5 : 0) == WEFT_OK)
            sent++;
    }
    assert_int_equal(nodes[1]->ends[0].arrived, 300);
}

/* --------------------------------------------------------------------------------------- many */

/* Sixty links that meet at once, with TLS, take their time on a busy machine. */
static void patient(struct wf_net_options *options)
{
    options->connect_ms = 4 * PATIENCE_MS;
}

static void test_many(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, patient), *b = world_node(world, patient);
    struct end *ends[60];
    uint64_t sent[60] = {0}, count = 30, done = 0;
    world->plan = (struct plan){.seed = 5, .header_max = 500, .pieces_max = 5, .payload_max = 9000};
    for (int i = 0; i < 60; i++)
        ends[i] = world_connect(i % 2 ? a : b, OPS(world)->address((i % 2 ? b : a)->net));
    UNTIL(world, a->ups == 60 && b->ups == 60);
    while (done < 60 * count) {
        for (int i = 0; i < 60; i++)
            while (sent[i] < count && world_send(ends[i], sent[i]))
                sent[i]++;
        world_step(world);
        done = 0;
        for (uint32_t i = 0; i < a->end_count; i++)
            done += a->ends[i].arrived;
        for (uint32_t i = 0; i < b->end_count; i++)
            done += b->ends[i].arrived;
        assert_int_equal(a->downs + b->downs, 0);
    }
    UNTIL(world, !world->out);
}

/* A callback that uses the net: a message goes back and forth, each time from within `begun`. */
static void reply(struct end *end)
{
    struct node *node = end->node;
    if (end->begun < 200)
        node->in_begun = reply;
    assert_int_equal(world_send_sized(end, end->begun - 1, 64, 0, 0), WEFT_OK);
}

static void test_reentry(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    world_meet(a, b, &ab, &ba);
    b->in_begun = reply;
    for (uint64_t number = 0; number < 200; number++) {
        assert_int_equal(world_send_sized(ab, number, 64, 0, 0), WEFT_OK);
        UNTIL(world, ab->arrived == number + 1);
    }
}

#define TESTS_MAX 2048
#define TESTS_OF_ONE_MAX 64

#define TEST(name)  \
    {               \
#name, name \
    }
static const struct {
    const char *name;
    CMUnitTestFunction run;
} tests[] = {
    TEST(test_meet),           TEST(test_order),       TEST(test_sizes),
    TEST(test_alone),          TEST(test_wrongly_put), TEST(test_queue),
    TEST(test_unwanted),       TEST(test_close_early), TEST(test_close_in),
    TEST(test_send_when_down), TEST(test_destroy),     TEST(test_links_max),
    TEST(test_bad_addresses),  TEST(test_nobody),      TEST(test_listens_nowhere),
    TEST(test_idle),           TEST(test_stuck),       TEST(test_wake),
    TEST(test_event),          TEST(test_many),        TEST(test_reentry),
};

/* "@tcp", "@tls", "@ucx", "@rdma": those whose names begin so; "@others": those of none of these.
 * So most of the time, in which something is waited for, is that of several processes at once. */
static bool is_of(const char *group, const char *backend)
{
    static const char *const groups[] = {"tcp", "tls", "ucx", "rdma"};
    bool others = strcmp(group, "@others") == 0;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (strncmp(backend, groups[i], strlen(groups[i])) == 0)
            return strcmp(group + 1, groups[i]) == 0;
    return others;
}

int main(int argc, char **argv)
{
    const char *group = argc > 1 && argv[1][0] == '@' ? argv[1] : NULL;
    static struct CMUnitTest all[TESTS_MAX];
    static char names[TESTS_MAX][80];
    size_t count = 0;
    for (uint32_t i = 0; i < backend_count; i++) {
        if (group && !is_of(group, backends[i].name))
            continue;
        assert_true(count + TESTS_OF_ONE_MAX <= TESTS_MAX);
        for (size_t k = 0; k < sizeof tests / sizeof tests[0]; k++, count++) {
            snprintf(names[count], sizeof names[count], "%s: %s", backends[i].name,
                     tests[k].name + strlen("test_"));
            all[count] = (struct CMUnitTest){names[count], tests[k].run, world_setup,
                                             world_teardown, (void *)&backends[i]};
        }
        count += net_wire_tests(&backends[i], all + count, names + count);
        count += net_access_tests(&backends[i], all + count, names + count);
    }
    if (getenv("WEFT_TEST_LOG"))
        wf_log_level_set(WF_LOG_DEBUG);
    if (argc > 1 && !group)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("net", all, count, NULL, NULL);
}
