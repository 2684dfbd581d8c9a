/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated network: that time, shares of a card and every fault are what sim.h says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/sim.h"

#define MS UINT64_C(1000000)
#define BUFFER ((size_t)8 << 20)

struct node {
    struct wf_net *net;
    struct wf_net_link *link; /* its first */
    char name[16];
    uint32_t ups, downs, begun, arrived, failed, sent, unsent;
    uint64_t up_ns, down_ns, arrived_ns;
    enum weft_status down_status;
    uint8_t *into;
};

struct world {
    struct wf_vtime *time;
    struct wf_net_sim_world *net;
    struct node nodes[4];
};

static struct world *the;
static const struct wf_net_ops *const ops = &wf_net_sim;

static uint64_t now(void)
{
    return wf_vtime_now(the->time);
}

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    struct node *n = context;
    assert_int_equal(hello_bytes, 5);
    assert_memory_equal(hello, "hello", 5);
    assert_string_equal(name, "");
    n->ups++;
    n->up_ns = now();
    if (!n->link)
        n->link = link;
    return true;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    struct node *n = context;
    assert_true(strlen(sentence) > 5);
    n->downs++;
    n->down_ns = now();
    n->down_status = status;
    if (n->link == link)
        n->link = NULL;
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *header,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    struct node *n = context;
    (void)link, (void)header, (void)header_bytes;
    n->begun++;
    n->arrived_ns = now();
    *out_token = n;
    out[0] = (struct iovec){n->into, payload_bytes / 3};
    out[1] = (struct iovec){n->into + payload_bytes / 3, payload_bytes - payload_bytes / 3};
    return payload_bytes ? 2 : 0;
}

static void on_progress(void *context, struct wf_net_link *link, void *token, uint64_t bytes)
{
    struct node *n = context;
    (void)link;
    assert_ptr_equal(token, n);
    assert_in_range(bytes, 1, BUFFER - 1);
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    struct node *n = context;
    (void)link;
    assert_ptr_equal(token, n);
    n->arrived += status == WEFT_OK;
    n->failed += status != WEFT_OK;
    n->arrived_ns = now();
}

static void on_sent(struct wf_net_message *message, enum weft_status status)
{
    struct node *n = message->user;
    n->sent += status == WEFT_OK;
    n->unsent += status != WEFT_OK;
}

static void start(struct node *n)
{
    char listen[32];
    (void)snprintf(listen, sizeof listen, "sim:%s", n->name);
    struct wf_net_options options = {
        .listen = listen,
        .hello = "hello",
        .hello_bytes = 5,
        .dead_ms = 1000,
        .connect_ms = 500,
        .events = {n, on_up, on_down, on_begun, on_progress, on_arrived},
        .world = the->net,
    };
    assert_int_equal(ops->create(&options, &n->net), WEFT_OK);
    assert_string_equal(ops->address(n->net), listen);
}

static void stop(struct node *n)
{
    ops->destroy(n->net);
    n->net = NULL;
}

static int begin(void **state)
{
    static struct world w;
    memset(&w, 0, sizeof w);
    the = &w;
    *state = &w;
    assert_int_equal(wf_vtime_create(&w.time), WEFT_OK);
    struct wf_net_sim_options options = {.time = w.time,
                                         .seed = 42,
                                         .latency_ns = 10000,
                                         .jitter_ns = 1000,
                                         .bandwidth = UINT64_C(1000000000)};
    assert_int_equal(wf_net_sim_world_create(&options, &w.net), WEFT_OK);
    for (uint32_t i = 0; i < 4; i++) {
        w.nodes[i].into = calloc(1, BUFFER);
        assert_non_null(w.nodes[i].into);
        (void)snprintf(w.nodes[i].name, sizeof w.nodes[i].name, "n%u", i);
        start(&w.nodes[i]);
    }
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 4; i++) {
        if (w->nodes[i].net)
            stop(&w->nodes[i]);
        free(w->nodes[i].into);
    }
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(w->net, &stats);
    assert_int_equal(stats.wires, 0);
    wf_net_sim_world_destroy(w->net);
    wf_vtime_destroy(w->time);
    return 0;
}

/* All that happens in the next `ns`. */
static void pass(uint64_t ns)
{
    uint64_t until = now() + ns;
    do {
        struct wf_net *net;
        void *context;
        while ((net = wf_net_sim_next(the->net, &context))) {
            assert_ptr_equal(((struct node *)context)->net, net);
            assert_int_equal(ops->poll(net, 0), WEFT_OK);
        }
    } while (wf_vtime_step(the->time, until));
}

static struct node *node(uint32_t i)
{
    return &the->nodes[i];
}

static void join(uint32_t a, uint32_t b)
{
    char address[32];
    struct wf_net_link *link;
    uint32_t ups = node(b)->ups;
    (void)snprintf(address, sizeof address, "sim:%s", node(b)->name);
    assert_int_equal(ops->connect(node(a)->net, address, NULL, &link), WEFT_OK);
    assert_string_equal(ops->peer(link), node(b)->name);
    pass(MS);
    assert_int_equal(node(b)->ups, ups + 1);
    assert_non_null(node(a)->link);
}

struct mail {
    struct wf_net_message message;
    struct iovec piece;
};

static enum weft_status post(struct node *from, struct mail *mail, void *data, uint64_t bytes)
{
    mail->piece = (struct iovec){data, bytes};
    mail->message = (struct wf_net_message){.header = "head",
                                            .header_bytes = 4,
                                            .piece_count = bytes ? 1 : 0,
                                            .pieces = &mail->piece,
                                            .sent = on_sent,
                                            .user = from};
    return ops->send(from->link, &mail->message);
}

static void test_a_message_takes_the_latency_and_both_cards(void **state)
{
    (void)state;
    join(0, 1);
    struct mail mail;
    uint64_t began = now();
    assert_int_equal(post(node(0), &mail, NULL, 0), WEFT_OK);
    pass(MS);
    assert_int_equal(node(1)->begun, 1);
    assert_int_equal(node(0)->sent, 1);
    assert_in_range(node(1)->arrived_ns - began, 10000, 12000);

    uint8_t *data = malloc(BUFFER);
    assert_non_null(data);
    for (size_t i = 0; i < BUFFER; i++)
        data[i] = (uint8_t)(i * 7 >> 3);
    began = now();
    assert_int_equal(post(node(0), &mail, data, BUFFER), WEFT_OK);
    pass(20 * MS);
    assert_int_equal(node(1)->arrived, 1);
    assert_memory_equal(node(1)->into, data, BUFFER);
    /* 8 MiB at 1 GB/s, and the last piece in through the other card. */
    assert_in_range(node(1)->arrived_ns - began, 8388608, 8388608 + 400000);
    free(data);
}

static void test_links_of_a_host_share_its_card(void **state)
{
    (void)state;
    join(1, 0);
    join(2, 0);
    join(3, 0);
    uint8_t *data = calloc(1, BUFFER);
    assert_non_null(data);
    struct mail mail[4];
    uint64_t began = now();
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(post(node(i), &mail[i], data, BUFFER), WEFT_OK);
    pass(60 * MS);
    assert_int_equal(node(0)->arrived, 3);
    assert_in_range(node(0)->arrived_ns - began, 3 * 8388608, 3 * 8388608 + 1000000);
    free(data);
}

static void test_who_does_not_read_makes_the_sender_wait(void **state)
{
    (void)state;
    join(0, 1);
    uint8_t *data = calloc(1, BUFFER);
    assert_non_null(data);
    struct mail mail;
    struct wf_net_sim_stats before, after;
    wf_net_sim_world_stats(the->net, &before);
    wf_net_sim_pause(the->net, "n1", true);
    assert_int_equal(post(node(0), &mail, data, BUFFER), WEFT_OK);
    pass(500 * MS);
    wf_net_sim_world_stats(the->net, &after);
    assert_true(after.bytes - before.bytes <= (1u << 20));
    wf_net_sim_pause(the->net, "n1", false);
    pass(100 * MS);
    assert_int_equal(node(1)->arrived, 1);
    assert_int_equal(node(0)->sent, 1);
    /* Paused for longer, it is dead to others. */
    wf_net_sim_pause(the->net, "n1", true);
    pass(2000 * MS);
    assert_int_equal(node(0)->downs, 1);
    assert_int_equal(node(1)->downs, 0);
    wf_net_sim_pause(the->net, "n1", false);
    pass(1 * MS);
    assert_int_equal(node(1)->downs, 1);
    free(data);
}

static void test_what_waits_is_bounded(void **state)
{
    (void)state;
    join(0, 1);
    static struct mail mail[1100];
    uint32_t taken = 0;
    wf_net_sim_pause(the->net, "n0", true); /* nothing is told as sent */
    while (taken < 1100 && post(node(0), &mail[taken], NULL, 0) == WEFT_OK)
        taken++;
    assert_int_equal(taken, 1024);
    assert_int_equal(post(node(0), &mail[1099], NULL, 0), WEFT_PENDING);
    wf_net_sim_pause(the->net, "n0", false);
    pass(MS);
    assert_int_equal(node(0)->sent, 1024);
    assert_int_equal(node(1)->begun, 1024);
}

static void test_a_short_partition_is_a_delay_and_a_long_one_the_end(void **state)
{
    (void)state;
    join(0, 1);
    struct mail mail;
    wf_net_sim_group(the->net, "n1", 1);
    assert_int_equal(post(node(0), &mail, NULL, 0), WEFT_OK);
    pass(300 * MS);
    assert_int_equal(node(1)->begun, 0);
    wf_net_sim_group(the->net, "n1", 0);
    pass(500 * MS);
    assert_int_equal(node(1)->begun, 1);
    assert_int_equal(node(0)->downs + node(1)->downs, 0);

    uint64_t began = now();
    wf_net_sim_group(the->net, "n1", 1);
    pass(3000 * MS);
    assert_int_equal(node(0)->downs, 1);
    assert_int_equal(node(1)->downs, 1);
    assert_in_range(node(0)->down_ns - began, 700 * MS, 1500 * MS);
    assert_in_range(node(1)->down_ns - began, 700 * MS, 1500 * MS);
    assert_true(node(0)->down_status < 0);
    /* And nobody is reached. */
    struct wf_net_link *link;
    assert_int_equal(ops->connect(node(0)->net, "sim:n1", NULL, &link), WEFT_OK);
    pass(600 * MS);
    assert_int_equal(node(0)->downs, 2);
    assert_int_equal(node(0)->ups, 1);
}

static void test_one_way_deaf_both_ends_hear_of_it(void **state)
{
    (void)state;
    join(0, 1);
    join(2, 3);
    uint64_t began = now();
    wf_net_sim_block(the->net, "n0", "n1", true);
    wf_net_sim_mute(the->net, "n2", false, true);
    pass(1700 * MS);
    assert_int_equal(node(1)->downs, 1); /* hears nothing */
    assert_int_equal(node(0)->downs, 1); /* is told so */
    assert_true(node(1)->down_ns <= node(0)->down_ns);
    assert_int_equal(node(2)->downs, 1);
    assert_int_equal(node(3)->downs, 1);
    assert_in_range(node(0)->down_ns - began, 700 * MS, 1600 * MS);
    wf_net_sim_block(the->net, "n0", "n1", false);
    wf_net_sim_mute(the->net, "n2", false, false);
    node(0)->link = node(2)->link = NULL;
    join(0, 1);
    join(2, 3);
}

static void test_a_break_is_seen_on_one_side_sooner(void **state)
{
    (void)state;
    join(0, 1);
    uint64_t began = now();
    assert_int_equal(wf_net_sim_break(the->net, "n0", "n1", 100 * MS), 1);
    pass(200 * MS);
    assert_int_equal(node(0)->downs, 1);
    assert_int_equal(node(1)->downs, 1);
    uint64_t a = node(0)->down_ns - began, b = node(1)->down_ns - began;
    assert_true((a < b ? a : b) == 0);
    assert_true((a < b ? b : a) > 0);
}

static void kill_one(bool dark)
{
    join(0, 1);
    join(1, 2);
    struct mail mail;
    uint8_t *data = calloc(1, BUFFER);
    assert_non_null(data);
    assert_int_equal(post(node(1), &mail, data, BUFFER), WEFT_OK);
    pass(MS);
    uint64_t began = now();
    wf_net_sim_kill(the->net, "n1", dark);
    memset(data, 0xff, BUFFER); /* it was the process's */
    stop(node(1));
    node(1)->link = NULL;
    assert_int_equal(node(1)->sent, 0);
    assert_int_equal(node(1)->unsent, 1);
    free(data);
    pass(2000 * MS);
    assert_int_equal(node(0)->downs, 1);
    assert_int_equal(node(2)->downs, 1);
    assert_int_equal(node(1)->downs, 0);
    assert_int_equal(node(0)->arrived, 0);
    assert_int_equal(node(0)->failed, node(0)->begun);
    if (dark)
        assert_in_range(node(2)->down_ns - began, 700 * MS, 1500 * MS);
    else
        assert_in_range(node(2)->down_ns - began, 1, MS);
    struct wf_net_link *link;
    began = now();
    assert_int_equal(ops->connect(node(2)->net, "sim:n1", NULL, &link), WEFT_OK);
    pass(1000 * MS);
    assert_int_equal(node(2)->downs, 2);
    assert_in_range(node(2)->down_ns - began, dark ? 500 * MS : 1, dark ? 501 * MS : MS);
    start(node(1));
    join(2, 1);
}

static void test_who_is_killed_is_told_of_by_its_kernel(void **state)
{
    (void)state;
    kill_one(false);
}

static void test_who_loses_power_is_missed_after_dead_ms(void **state)
{
    (void)state;
    kill_one(true);
}

static void test_a_bit_that_changes_on_the_way_is_delivered(void **state)
{
    (void)state;
    join(0, 1);
    uint8_t *data = calloc(1, BUFFER);
    assert_non_null(data);
    struct mail mail;
    wf_net_sim_corrupt(the->net, "n1", 1000000);
    assert_int_equal(post(node(0), &mail, data, 1000), WEFT_OK);
    pass(MS);
    assert_int_equal(node(1)->arrived, 1);
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 1000; i++)
        bits += (uint32_t)__builtin_popcount(node(1)->into[i]);
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(the->net, &stats);
    assert_true(bits > 0);
    assert_int_equal(stats.corrupted, bits);
    free(data);
}

static void test_delay_loss_and_slowness_are_time(void **state)
{
    (void)state;
    join(0, 1);
    struct mail mail;
    uint64_t began = now();
    wf_net_sim_delay(the->net, "n1", 5 * MS);
    assert_int_equal(post(node(0), &mail, NULL, 0), WEFT_OK);
    pass(20 * MS);
    assert_in_range(node(1)->arrived_ns - began, 5 * MS, 6 * MS);
    wf_net_sim_delay(the->net, "n1", 0);
    wf_net_sim_loss(the->net, "n1", 1000000);
    began = now();
    assert_int_equal(post(node(0), &mail, NULL, 0), WEFT_OK);
    pass(300 * MS);
    assert_in_range(node(1)->arrived_ns - began, 30000, 201 * MS);
    wf_net_sim_loss(the->net, "n1", 0);
    wf_net_sim_slow(the->net, "n1", 50 * MS);
    began = now();
    assert_int_equal(post(node(0), &mail, NULL, 0), WEFT_OK);
    pass(200 * MS);
    assert_int_equal(node(1)->begun, 3);
    assert_in_range(node(1)->arrived_ns - began, 12000, 101 * MS);
}

struct touch {
    struct wf_net_access access;
    struct iovec piece;
    enum weft_status status;
    uint32_t done;
};

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    struct touch *t = access->user;
    t->status = status;
    t->done++;
}

static enum weft_status touch(struct node *n, struct touch *t, struct wf_net_handle handle,
                              bool write, void *data, size_t bytes, uint64_t offset)
{
    t->piece = (struct iovec){data, bytes};
    t->done = 0;
    t->access = (struct wf_net_access){.handle = handle,
                                       .write = write,
                                       .piece_count = 1,
                                       .pieces = &t->piece,
                                       .offset = offset,
                                       .done = on_done,
                                       .user = t};
    enum weft_status status = ops->access(n->link, &t->access);
    if (status != WEFT_OK)
        return status;
    pass(20 * MS);
    assert_int_equal(t->done, 1);
    return t->status;
}

static void test_one_sided_access_needs_a_grant_and_no_processor(void **state)
{
    (void)state;
    join(0, 1);
    join(2, 1);
    uint8_t there[100], here[100];
    for (uint32_t i = 0; i < 100; i++)
        there[i] = (uint8_t)i;
    struct wf_net_handle both, read;
    struct touch t;
    assert_int_equal(ops->expose(node(1)->net, there, 100, WF_NET_READ | WF_NET_WRITE, &both),
                     WEFT_OK);
    assert_int_equal(ops->expose(node(1)->net, there, 50, WF_NET_READ, &read), WEFT_OK);
    assert_int_equal(touch(node(0), &t, both, false, here, 10, 0), WEFT_MISS);
    assert_int_equal(ops->grant(node(1)->link, both), WEFT_OK);
    assert_int_equal(ops->grant(node(1)->link, read), WEFT_OK);
    assert_int_equal(touch(node(2), &t, both, false, here, 10, 0), WEFT_MISS); /* not its link */
    wf_net_sim_pause(the->net, "n1", true);
    assert_int_equal(touch(node(0), &t, both, false, here, 10, 90), WEFT_OK);
    assert_memory_equal(here, there + 90, 10);
    memset(here, 0xee, sizeof here);
    assert_int_equal(touch(node(0), &t, both, true, here, 30, 60), WEFT_OK);
    assert_memory_equal(here, there + 60, 30);
    assert_int_equal(there[59], 59);
    assert_int_equal(there[90], 90);
    wf_net_sim_pause(the->net, "n1", false);
    assert_int_equal(touch(node(0), &t, both, false, here, 11, 90), WEFT_MISS);
    assert_int_equal(touch(node(0), &t, both, false, here, 1, UINT64_MAX), WEFT_MISS);
    assert_int_equal(touch(node(0), &t, read, false, here, 50, 0), WEFT_OK);
    assert_int_equal(touch(node(0), &t, read, true, here, 1, 0), WEFT_MISS);
    ops->withdraw(node(1)->net, both);
    memset(there, 0, sizeof there);
    assert_int_equal(touch(node(0), &t, both, true, here, 100, 0), WEFT_MISS);
    assert_int_equal(there[0], 0);
    assert_int_equal(ops->expose(node(1)->net, there, 100, WF_NET_READ, &both), WEFT_OK);
    assert_int_equal(ops->access(node(0)->link, &(struct wf_net_access){.done = on_done}),
                     WEFT_E_INVALID);
}

static void test_a_waiting_poll_has_time_pass(void **state)
{
    (void)state;
    struct wf_net_link *link;
    assert_int_equal(ops->connect(node(0)->net, "sim:n1", NULL, &link), WEFT_OK);
    for (uint32_t i = 0; i < 10 && !node(0)->ups; i++) {
        assert_int_equal(ops->poll(node(1)->net, 1), WEFT_OK);
        assert_int_equal(ops->poll(node(0)->net, 1), WEFT_OK);
    }
    assert_int_equal(node(0)->ups, 1);
    uint64_t began = now();
    assert_int_equal(ops->poll(node(2)->net, 70), WEFT_OK);
    assert_int_equal(now() - began, 70 * MS);
    ops->wake(node(2)->net);
    assert_int_equal(ops->poll(node(2)->net, 70), WEFT_OK);
    assert_int_equal(now() - began, 70 * MS);
}

#define T(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_a_message_takes_the_latency_and_both_cards),
        T(test_links_of_a_host_share_its_card),
        T(test_who_does_not_read_makes_the_sender_wait),
        T(test_what_waits_is_bounded),
        T(test_a_short_partition_is_a_delay_and_a_long_one_the_end),
        T(test_one_way_deaf_both_ends_hear_of_it),
        T(test_a_break_is_seen_on_one_side_sooner),
        T(test_who_is_killed_is_told_of_by_its_kernel),
        T(test_who_loses_power_is_missed_after_dead_ms),
        T(test_a_bit_that_changes_on_the_way_is_delivered),
        T(test_delay_loss_and_slowness_are_time),
        T(test_one_sided_access_needs_a_grant_and_no_processor),
        T(test_a_waiting_poll_has_time_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
