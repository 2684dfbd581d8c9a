/* SPDX-License-Identifier: Apache-2.0
 *
 * A member that asks without end: others are served between its questions, whatever these are, and
 * one that takes no answers has no more of what answers are made of than is left for others.
 *
 * What one turn takes of a link is bounded by the net, so that part is over TCP, on the real clock,
 * and counts turns; the rest is in virtual time.
 */
#include "fabric/inner.h"
#include "fabric_stranger.h"
#include "sys/clock.h"

#define NODES 2
#define TURN_BYTES (256u << 10) /* of what one link sends, taken in a turn: less than that */
#define TURNS_MAX 16u           /* from a question to its answer, whoever else asks */
#define QUEUED 1000u
#define POLLS 64u
#define ROUNDS 40u
#define PATIENCE_MS 20000u

struct node {
    struct wf_fabric *fabric;
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b"};
static const char *const secrets[1] = {"one for all"};

/* -------------------------------------------------------------------------------- over TCP */

/* Somebody with a proof of the domain, and what it says without end; NULL: nothing. */
struct asker {
    struct wf_net *net;
    struct wf_net_link *link;
    uint8_t their_nonce[32];
    const void *flood;
    uint32_t flood_bytes, queued, pongs, up;
};

static bool asker_up(void *context, struct wf_net_link *link, const void *hello, uint32_t bytes,
                     const char *name)
{
    struct asker *asker = context;
    (void)hello, (void)bytes, (void)name;
    asker->link = link;
    return true;
}

static void asker_down(void *context, struct wf_net_link *link, enum weft_status status,
                       const char *sentence)
{
    struct asker *asker = context;
    (void)link, (void)status, (void)sentence;
    asker->link = NULL;
}

static uint32_t asker_begun(void *context, struct wf_net_link *link, const void *header,
                            uint32_t bytes, uint64_t payload_bytes, struct iovec *out, void **token)
{
    struct asker *asker = context;
    struct wf_fabric_head head;
    (void)link, (void)payload_bytes, (void)out, (void)token;
    assert_true(bytes >= sizeof head);
    memcpy(&head, header, sizeof head);
    asker->pongs += head.kind == WF_FABRIC_PONG;
    asker->up += head.kind == WF_FABRIC_JOIN;
    if (head.kind == WF_FABRIC_IDENT)
        memcpy(asker->their_nonce,
               (const uint8_t *)header + offsetof(struct wf_fabric_ident, nonce), 32);
    return 0;
}

static void asker_arrived(void *context, struct wf_net_link *link, void *token,
                          enum weft_status status)
{
    (void)context, (void)link, (void)token, (void)status;
}

static void asker_sent(struct wf_net_message *message, enum weft_status status)
{
    (void)status;
    ((struct asker *)message->user)->queued--;
    free(message);
}

static void asker_says(struct asker *asker, const void *header, uint32_t bytes)
{
    struct wf_net_message *message = calloc(1, sizeof *message + bytes);
    assert_non_null(message);
    memcpy(message + 1, header, bytes);
    *message = (struct wf_net_message){.header = message + 1,
                                       .header_bytes = bytes,
                                       .sent = asker_sent,
                                       .user = asker};
    asker->queued++;
    assert_int_equal(wf_net_tcp.send(asker->link, message), WEFT_OK);
}

/* Whoever floods says more between two turns than one of them takes. */
static void asker_polls(struct asker *asker)
{
    for (uint32_t i = 0; i < (asker->flood ? POLLS : 1); i++) {
        assert_int_equal(wf_net_tcp.poll(asker->net, 0), WEFT_OK);
        while (asker->flood && asker->link && asker->queued < QUEUED)
            asker_says(asker, asker->flood, asker->flood_bytes);
    }
}

static struct wf_fabric *a_over_tcp;

/* What came in one turn of a's, in bytes of headers. */
static uint64_t turn(struct asker *askers, uint32_t count)
{
    struct wf_net_stats before, after;
    for (uint32_t i = 0; i < count; i++)
        asker_polls(&askers[i]);
    wf_nets_stats(a_over_tcp, &before);
    assert_int_equal(wf_fabric_poll(a_over_tcp, 0), WEFT_OK);
    wf_nets_stats(a_over_tcp, &after);
    return after.received_bytes - before.received_bytes;
}

static void asker_begin(struct asker *askers, uint32_t i, const char *name)
{
    struct asker *asker = &askers[i];
    const struct wf_net_options options = {.hello = "weft",
                                           .hello_bytes = 5,
                                           .events = {asker, asker_up, asker_down, asker_begun,
                                                      NULL, asker_arrived}};
    struct wf_fabric_ident ident = stranger_ident(name);
    struct {
        struct wf_fabric_join join;
        uint8_t proof[32];
    } m = {.join = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_JOIN}, .count = 1}};
    char address[WF_NET_ADDRESS_MAX];
    const uint8_t none[32] = {0};
    struct wf_net_link *link;
    uint64_t end = wf_now_ms() + PATIENCE_MS;
    *asker = (struct asker){0};
    ident.epoch = i + 1;
    wf_nets_address(a_over_tcp, address, sizeof address);
    if (wf_net_tcp.create(&options, &asker->net) != WEFT_OK ||
        wf_net_tcp.connect(asker->net, address, NULL, &link) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    while (!asker->link && wf_now_ms() < end)
        (void)turn(askers, i + 1);
    assert_non_null(asker->link);
    asker_says(asker, &ident, sizeof ident);
    while (memcmp(asker->their_nonce, none, 32) == 0 && wf_now_ms() < end)
        (void)turn(askers, i + 1);
    stranger_proves(secrets[0], asker->their_nonce, m.proof);
    asker_says(asker, &m, sizeof m);
    while (!asker->up && wf_now_ms() < end)
        (void)turn(askers, i + 1);
    assert_int_equal(asker->up, 1);
}

static void over_tcp_begin(void)
{
    struct wf_fabric_options options = world_options(names, NODES, 0);
    options.listen = "tcp:127.0.0.1:0";
    options.registry = "tcp:127.0.0.1:1"; /* nobody is there */
    options.net = NULL;
    options.net_world = NULL;
    options.now_ns = NULL;
    if (wf_fabric_create(&options, &a_over_tcp) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static union {
    struct wf_fabric_head head;
    struct wf_fabric_ping ping;
    struct wf_fabric_lookup lookup;
    struct wf_fabric_copies copies;
    struct wf_fabric_offer offer;
    uint8_t bytes[WF_NET_HEADER_MAX];
} m;

/* A question of `count` keys, or what there is without. */
static uint32_t question(enum wf_fabric_kind kind, uint32_t count)
{
    memset(&m, 0, sizeof m);
    m.head = (struct wf_fabric_head){.magic = WF_FABRIC_MAGIC, .kind = (uint16_t)kind};
    for (uint32_t i = 0; kind == WF_FABRIC_OFFER && i < count; i++)
        m.offer.events[i] = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                     .bytes = 100,
                                                     .key = {(uint8_t)i, (uint8_t)(i >> 8), 1}};
    switch (kind) {
    case WF_FABRIC_LOOKUP:
        m.lookup.count = (uint16_t)count;
        return (uint32_t)(sizeof m.lookup + count * 32);
    case WF_FABRIC_COPIES:
        m.copies.count = (uint16_t)count;
        return (uint32_t)(sizeof m.copies + count * sizeof m.copies.keys[0]);
    case WF_FABRIC_OFFER:
        m.offer.count = count;
        m.offer.flags = WF_FABRIC_LAST;
        return (uint32_t)(sizeof m.offer + count * sizeof m.offer.events[0]);
    default: return sizeof m.ping;
    }
}

static void others_are_served(enum wf_fabric_kind kind, uint32_t count)
{
    const struct wf_fabric_ping ping = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PING}};
    struct asker askers[2];
    uint64_t most = 0, came = 0;
    uint32_t turns_most = 0;
    over_tcp_begin();
    asker_begin(askers, 0, "x");
    asker_begin(askers, 1, "y");
    askers[0].flood_bytes = question(kind, count);
    askers[0].flood = &m;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t turns = 0, pongs = askers[1].pongs;
        asker_says(&askers[1], &ping, sizeof ping);
        while (askers[1].pongs == pongs && turns < 1000) {
            uint64_t bytes = turn(askers, 2);
            came += bytes;
            most = bytes > most ? bytes : most;
            turns++;
        }
        turns_most = turns > turns_most ? turns : turns_most;
    }
    assert_true(turns_most <= TURNS_MAX);
    assert_true(most <= TURN_BYTES);
    assert_true(came > ROUNDS * askers[0].flood_bytes); /* it was a flood */
    askers[0].flood = NULL;
    for (int i = 0; i < 2; i++)
        wf_net_tcp.destroy(askers[i].net);
    wf_fabric_destroy(a_over_tcp, 0);
}

static void others_are_served_between_questions(void **state)
{
    (void)state;
    others_are_served(WF_FABRIC_PING, 0);
    others_are_served(WF_FABRIC_LOOKUP, 1);
    others_are_served(WF_FABRIC_LOOKUP, WF_FABRIC_LOOKUP_MAX);
    others_are_served(WF_FABRIC_COPIES, WF_FABRIC_COPIES_MAX);
    others_are_served(WF_FABRIC_OFFER, 1);
    others_are_served(WF_FABRIC_OFFER, WF_FABRIC_EVENTS_MAX);
}

/* ----------------------------------------------------------------------------- in virtual time */

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES,
                &(struct wf_net_sim_options){.seed = 3, .window_bytes = 4096});
    for (int i = 0; i < NODES; i++) {
        const struct wf_fabric_options options = world_options(names, NODES, i);
        world_node(i, &options);
    }
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    return 0;
}

static void comes_in(struct stranger *s, const char *name)
{
    struct wf_fabric_ident ident = stranger_ident(name);
    ident.epoch = 1;
    stranger_begin(s, NULL, names[0]);
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 10);
    stranger_joins(s, secrets, 1);
    stranger_waits(s, 10);
    assert_false(s->down);
}

/* So many blocks that they are more than one small message. */
static void a_tells_b(uint8_t first)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = 100};
    for (uint8_t i = 0; i < 100; i++) {
        event.key[0] = first;
        event.key[1] = i;
        wf_fabric_tell(nodes[0].fabric, &event);
    }
    pass(200);
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, event.key));
}

/* It asks, and does not look at what comes: its net is not polled. */
static void who_takes_no_answers(enum wf_fabric_kind kind, uint32_t count, bool large)
{
    static struct stranger crowd[40];
    const struct wf_note_pool *pool = large ? &nodes[0].fabric->large : &nodes[0].fabric->small;
    uint32_t bytes = question(kind, count), before = pool->out, some = large ? 1 : 40;
    for (uint32_t i = 0; i < some; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%u", i);
        comes_in(&crowd[i], name);
        for (uint32_t k = 0; k < 1000; k++)
            stranger_says(&crowd[i], &m, bytes);
        pass(20);
    }
    pass(100);
    assert_true(pool->out > before); /* they wait */
    uint32_t few = large ? 0 : 4 * nodes[0].fabric->link_count;
    assert_true(pool->max - pool->out + few >= pool->max / 4);
    a_tells_b((uint8_t)(large ? 1 : 2));
    struct stranger y; /* and whoever comes now is let in */
    comes_in(&y, "y");
    assert_non_null(wf_peer_find(nodes[0].fabric, "y")->link);
    stranger_end(&y);
    for (uint32_t i = 0; i < some; i++)
        stranger_end(&crowd[i]);
    pass(200);
    assert_true(pool->out <= before);
}

static void who_takes_no_long_answers_leaves_room_for_others(void **state)
{
    (void)state;
    who_takes_no_answers(WF_FABRIC_COPIES, 8, true);
}

static void who_take_no_short_answers_leave_room_for_others(void **state)
{
    (void)state;
    who_takes_no_answers(WF_FABRIC_PING, 0, false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_are_served_between_questions),
        TEST(who_takes_no_long_answers_leaves_room_for_others),
        TEST(who_take_no_short_answers_leave_room_for_others),
    };
    return cmocka_run_group_tests_name("a member that asks without end", tests, NULL, NULL);
}
