/* SPDX-License-Identifier: Apache-2.0
 *
 * Somebody who has a domain's secret, and so is believed what it tells, and lies: blocks of sizes
 * that nobody has, answers to what was never asked, words of other domains, events without end and
 * without sense.  The node that it has a link to goes on: its clients put and read their own, the
 * next one who asks is served, and what it keeps of all that is bounded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"
#include "base/status.h"
#include "fabric/wire.h"
#include "net/net.h"

#define BLOCK_BYTES 65536u
#define PART_BYTES 65536u
#define WAIT_MS 15000

struct liar {
    struct wf_net *net;
    struct wf_net_link *link;
    bool down, joined, pong;
    uint8_t their_nonce[32];
    struct wf_fabric_data data; /* the last */
    uint32_t datas;
    uint8_t payload[BLOCK_BYTES];
    bool arrived;
};

struct stage {
    struct weftd node;
    struct weft *w;
    struct weft_format *format;
    char address[128];
};

static struct liar liar;

/* ------------------------------------------------------------------------------------ the liar */

static bool up(void *context, struct wf_net_link *link, const void *hello, uint32_t bytes,
               const char *name)
{
    (void)hello, (void)bytes, (void)name;
    ((struct liar *)context)->link = link;
    return true;
}

static void down(void *context, struct wf_net_link *link, enum weft_status status,
                 const char *sentence)
{
    struct liar *l = context;
    (void)link, (void)status, (void)sentence;
    l->link = NULL;
    l->down = true;
}

static uint32_t begun(void *context, struct wf_net_link *link, const void *header, uint32_t bytes,
                      uint64_t payload_bytes, struct iovec *out, void **out_token)
{
    struct liar *l = context;
    struct wf_fabric_head head;
    (void)link;
    memcpy(&head, header, sizeof head);
    if (head.kind == WF_FABRIC_IDENT)
        memcpy(l->their_nonce, (const uint8_t *)header + offsetof(struct wf_fabric_ident, nonce),
               32);
    l->joined |= head.kind == WF_FABRIC_JOIN;
    l->pong |= head.kind == WF_FABRIC_PONG;
    if (head.kind != WF_FABRIC_DATA || bytes < sizeof l->data)
        return 0;
    memcpy(&l->data, header, sizeof l->data);
    l->datas++;
    if (payload_bytes != BLOCK_BYTES)
        return 0;
    out[0] = (struct iovec){l->payload, BLOCK_BYTES};
    *out_token = l;
    return 1;
}

static void arrived(void *context, struct wf_net_link *link, void *token, enum weft_status status)
{
    (void)link, (void)token;
    ((struct liar *)context)->arrived = status == WEFT_OK;
}

static void said(struct wf_net_message *message, enum weft_status status)
{
    (void)status;
    free(message->user);
    free(message);
}

static void turn(void)
{
    assert_int_equal(wf_net_tcp.poll(liar.net, 5), WEFT_OK);
}

/* False: the link is gone. */
static bool say(const void *header, uint32_t bytes)
{
    struct wf_net_message *message = calloc(1, sizeof *message);
    assert_non_null(message);
    message->user = malloc(bytes);
    assert_non_null(message->user);
    memcpy(message->user, header, bytes);
    message->header = message->user;
    message->header_bytes = bytes;
    message->sent = said;
    enum weft_status status = WEFT_PENDING;
    for (int i = 0; i < WAIT_MS / 5 && liar.link && status == WEFT_PENDING; i++) {
        status = wf_net_tcp.send(liar.link, message);
        if (status == WEFT_PENDING)
            turn();
    }
    if (status != WEFT_OK)
        said(message, status);
    return status == WEFT_OK;
}

#define LIAR_UNTIL(condition)                                \
    do {                                                     \
        time_t end_ = time(NULL) + WAIT_MS / 1000;           \
        while (!(condition)) {                               \
            turn();                                          \
            if (time(NULL) > end_)                           \
                fail_msg("%s: it did not come", #condition); \
        }                                                    \
    } while (0)

/* All that was said before has been heard by the node, which still has the link. */
static bool is_heard(void)
{
    const struct wf_fabric_ping ping = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PING, 0}};
    liar.pong = false;
    if (!say(&ping, sizeof ping))
        return false;
    LIAR_UNTIL(liar.pong || liar.down);
    return !liar.down;
}

static void proof_make(const struct stage *s, const uint8_t nonce[32], uint8_t out[32])
{
    static const char tag[] = "weft fabric domain 1";
    uint8_t text[sizeof tag - 1 + 64], secret[256];
    FILE *file = fopen(s->node.secret, "re");
    assert_non_null(file);
    size_t bytes = fread(secret, 1, sizeof secret, file);
    fclose(file);
    memcpy(text, tag, sizeof tag - 1);
    memcpy(text + sizeof tag - 1, nonce, 32);
    memcpy(text + sizeof tag - 1 + 32, liar.their_nonce, 32);
    HMAC(EVP_sha256(), secret, (int)bytes, text, sizeof text, out, NULL);
}

static void liar_begin(const struct stage *s, const char *name)
{
    const struct wf_net_options options = {.hello = "weft",
                                           .hello_bytes = 5,
                                           .events = {&liar, up, down, begun, NULL, arrived}};
    struct wf_fabric_ident ident = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_IDENT, 0},
                                    .version = WF_FABRIC_VERSION,
                                    .epoch = 1,
                                    .nonce = "a number used once"};
    struct {
        struct wf_fabric_join join;
        uint8_t proof[1][32];
    } m = {.join = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_JOIN, 0}, .count = 1}};
    struct wf_net_link *link;
    static const uint8_t none[32];
    memset(&liar, 0, sizeof liar);
    snprintf(ident.name, sizeof ident.name, "%s", name);
    if (wf_net_tcp.create(&options, &liar.net) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(wf_net_tcp.connect(liar.net, s->address, NULL, &link), WEFT_OK);
    LIAR_UNTIL(liar.link && memcmp(liar.their_nonce, none, 32) != 0);
    assert_true(say(&ident, sizeof ident));
    proof_make(s, ident.nonce, m.proof[0]);
    assert_true(say(&m, sizeof m));
    LIAR_UNTIL(liar.joined);
    assert_true(is_heard());
}

static void liar_end(void)
{
    wf_net_tcp.destroy(liar.net);
}

/* ------------------------------------------------------------------------------------- the node */

static int before(void **state)
{
    static struct stage s;
    static const char *const settings[] = {"pool.size=16MB", "fabric.listen=tcp:127.0.0.1:0",
                                           "fabric.name=honest", "fabric.lend=4MB", NULL};
    memset(&s, 0, sizeof s);
    weftd_run(&s.node, settings);
    s.w = weftd_connect(&s.node, "default");
    assert_non_null(s.w);
    s.format = weftd_format(s.w, "liar", BLOCK_BYTES);
    assert_non_null(s.format);
    /* Figures are made when they are asked for, and known a moment later. */
    for (int waited = 0; !s.address[0] && waited < WAIT_MS; waited += 20) {
        char *text;
        assert_int_equal(weft_query(s.w, "fabric", 0, &text), WEFT_OK);
        const char *at = strstr(text, "\"address\":\"");
        assert_non_null(at);
        at += strlen("\"address\":\"");
        snprintf(s.address, sizeof s.address, "%.*s", (int)strcspn(at, "\""), at);
        weft_text_free(text);
        weftd_sleep_ms(20);
    }
    assert_true(s.address[0]);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    weft_format_close(s->format);
    weft_close(s->w);
    bool ended = weftd_stop(&s->node);
    if (!ended)
        weftd_show_log(&s->node);
    weftd_clean(&s->node);
    return ended ? 0 : 1;
}

static void key_of(const struct stage *s, uint64_t number, struct weft_key *out)
{
    assert_int_equal(weft_key_from_bytes(s->format, &number, sizeof number, out), WEFT_OK);
}

static void put(const struct stage *s, uint64_t number)
{
    struct weft_key key;
    struct weft_slot slot;
    key_of(s, number, &key);
    assert_int_equal(weft_reserve_keys(s->format, NULL, &key, 1, 0, &slot), WEFT_OK);
    assert_int_equal(slot.status, WEFT_OK);
    payload_fill(slot.data, BLOCK_BYTES, key.bytes);
    assert_int_equal(weft_commit_slots(s->format, &slot, 1), WEFT_OK);
}

static void get_says(const struct stage *s, uint64_t number, uint64_t bytes, uint64_t request)
{
    struct weft_key key;
    struct wf_fabric_get get = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_GET, 0},
                                .request = request,
                                .part_count = 1,
                                .part_bytes = (uint32_t)bytes,
                                .bytes = bytes};
    key_of(s, number, &key);
    memcpy(get.key, key.bytes, 32);
    assert_true(say(&get, sizeof get));
}

static void is_served(const struct stage *s, uint64_t number)
{
    struct weft_key key;
    key_of(s, number, &key);
    for (int tries = 0; tries < 100; tries++) { /* a node that has much to do may say so */
        uint32_t before = liar.datas;
        liar.arrived = false;
        get_says(s, number, BLOCK_BYTES, number);
        LIAR_UNTIL(liar.datas > before || liar.down);
        assert_false(liar.down);
        assert_int_equal(liar.data.request, number);
        if (liar.data.status == WEFT_E_BUSY)
            continue;
        assert_int_equal(liar.data.status, WEFT_OK);
        LIAR_UNTIL(liar.arrived || liar.down);
        assert_true(payload_right(liar.payload, BLOCK_BYTES, key.bytes));
        return;
    }
    fail_msg("it was busy all the time");
}

static void node_is_well(const struct stage *s, uint64_t number)
{
    struct weft_key key;
    struct weft_pin pin;
    put(s, number);
    key_of(s, number, &key);
    assert_int_equal(weft_pin(s->format, &key, &pin), WEFT_OK);
    assert_true(payload_right(pin.data, BLOCK_BYTES, key.bytes));
    weft_unpin(&pin);
}

/* ---------------------------------------------------------------------------------------- lies */

/* Blocks of a hundred sizes, which nobody has: that costs the next who asks nothing. */
static void test_sizes(void **state)
{
    const struct stage *s = *state;
    liar_begin(s, "sizes");
    put(s, 1);
    for (uint64_t i = 0; i < 100; i++)
        get_says(s, 1000 + i, 4096 + 64 * i, i); /* of no such block */
    for (uint64_t i = 0; i < 100; i++)
        get_says(s, 1, 4096 + 64 * i, i); /* and of one that is another */
    LIAR_UNTIL(liar.datas == 200);
    is_served(s, 1);
    node_is_well(s, 2);
    liar_end();
}

/* To what nobody asked, with numbers of every place and some generations. */
static void test_answers(void **state)
{
    const struct stage *s = *state;
    liar_begin(s, "answers");
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t request = (i % 5) << 32 | i / 5 * 7 % 1100;
        const struct wf_fabric_placed placed = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PLACED, 0},
                                                .request = request,
                                                .arrives_mbps = UINT32_MAX};
        const struct wf_fabric_data data = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_DATA, 0},
                                            .request = request,
                                            .status = i % 2 ? WEFT_MISS : WEFT_E_BUSY};
        const struct wf_fabric_room room = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_ROOM, 0},
                                            .request = request,
                                            .handle = request + 1};
        const struct wf_fabric_pushed_said pushed = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PUSHED, 0},
                                                     .request = request};
        struct {
            struct wf_fabric_found found;
            uint64_t members[WF_FABRIC_FOUND_MAX];
        } found = {.found = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_FOUND, 0},
                             .request = request | (i % 2 ? 0x10000 : 0),
                             .count = WF_FABRIC_FOUND_MAX,
                             .blocks = UINT16_MAX,
                             .qualities = UINT32_MAX}};
        const struct wf_fabric_push_end end = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PUSH_END, 0},
                                               .handle = request};
        const struct wf_fabric_drop drop = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_DROP, 0},
                                            .key = {(uint8_t)i}};
        assert_true(say(&placed, sizeof placed) && say(&data, sizeof data) &&
                    say(&room, sizeof room) && say(&pushed, sizeof pushed) &&
                    say(&found, sizeof found) && say(&end, sizeof end) && say(&drop, sizeof drop));
        turn();
    }
    assert_true(is_heard());
    put(s, 10);
    is_served(s, 10);
    node_is_well(s, 11);
    liar_end();
}

/* Of a domain that it has not proved: that is nonsense, or nobody's, and says nothing. */
static void test_other_domains(void **state)
{
    const struct stage *s = *state;
    struct weft_key key;
    put(s, 20);
    key_of(s, 20, &key);
    for (uint32_t domain = 1; domain < 70; domain += 23) {
        struct wf_fabric_get get = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_GET, 0},
                                    .domain = (uint16_t)domain,
                                    .part_count = 1,
                                    .part_bytes = PART_BYTES,
                                    .bytes = BLOCK_BYTES};
        struct wf_fabric_forget forget = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_FORGET, 0},
                                          .domain = domain};
        memcpy(get.key, key.bytes, 32);
        memcpy(forget.key, key.bytes, 32);
        liar_begin(s, "domains");
        (void)say(&forget, sizeof forget);
        (void)is_heard();
        if (!liar.down)
            (void)say(&get, sizeof get);
        LIAR_UNTIL(liar.down);
        assert_int_equal(liar.datas, 0);
        liar_end();
    }
    liar_begin(s, "domains");
    is_served(s, 20); /* nobody has removed it */
    liar_end();
}

/* Blocks without end: children of nobody, each other's parents, of any size and depth. */
static void test_events(void **state)
{
    const struct stage *s = *state;
    static struct {
        struct wf_fabric_events said;
        struct wf_fabric_event events[WF_FABRIC_EVENTS_MAX];
    } m;
    static const uint64_t sizes[] = {1, BLOCK_BYTES, UINT32_MAX, 1ull << 60, UINT64_MAX};
    static const uint32_t depths[] = {0, 1, 0xffffff, UINT32_MAX};
    uint64_t number = 0;
    liar_begin(s, "events");
    for (uint32_t round = 0; round < 300 && liar.link; round++) {
        m.said = (struct wf_fabric_events){.head = {WF_FABRIC_MAGIC, WF_FABRIC_EVENTS, 0},
                                           .count = WF_FABRIC_EVENTS_MAX,
                                           .flags = round == 0 ? WF_FABRIC_RESET : 0,
                                           .from = number,
                                           .to = number + WF_FABRIC_EVENTS_MAX,
                                           .age_us = round % 2 ? UINT64_MAX / 2 : 0};
        for (uint32_t i = 0; i < WF_FABRIC_EVENTS_MAX; i++, number++) {
            struct wf_fabric_event *e = &m.events[i];
            uint64_t parent = number % 3 ? number ^ 1 : number; /* of two each the other's */
            *e = (struct wf_fabric_event){.kind = number % 7 == 6 ? WF_FABRIC_GONE : WF_FABRIC_HERE,
                                          .where = (uint8_t)(number % 3),
                                          .depth = depths[number / 4 % 4],
                                          .bytes = sizes[number % 5]};
            memcpy(e->key, &number, sizeof number);
            e->key[31] = 1;
            memcpy(e->parent, &parent, sizeof parent);
            e->parent[31] = 1;
        }
        assert_true(say(&m, sizeof m));
        turn();
    }
    assert_true(is_heard());
    node_is_well(s, 30);
    is_served(s, 30);
    liar_end();
    node_is_well(s, 31);
}

/* It lends more than there is, and is nearer and faster than anybody; and takes nothing. */
static void test_riches(void **state)
{
    const struct stage *s = *state;
    const struct wf_fabric_ping ping = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PING, 0},
                                        .pool_bytes = UINT64_MAX,
                                        .free_bytes = UINT64_MAX,
                                        .lent_bytes = UINT64_MAX,
                                        .lent_free_bytes = UINT64_MAX,
                                        .busy = UINT32_MAX,
                                        .below_latency_us = UINT32_MAX,
                                        .below_mbps = 1,
                                        .lends_bytes = UINT64_MAX,
                                        .lends_used_bytes = 0,
                                        .left_bytes = UINT64_MAX};
    struct wf_fabric_ping pong = ping;
    liar_begin(s, "riches");
    pong.head.kind = WF_FABRIC_PONG;
    for (int i = 0; i < 20; i++) {
        assert_true(say(&ping, sizeof ping));
        assert_true(say(&pong, sizeof pong)); /* as if it had been asked when time began */
        assert_true(is_heard());
    }
    for (uint64_t i = 0; i < 400; i++) /* more than the pool: blocks go down, or try to */
        put(s, 5000 + i);
    assert_true(is_heard());
    node_is_well(s, 40);
    liar_end();
    node_is_well(s, 41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),         cmocka_unit_test(test_answers),
        cmocka_unit_test(test_other_domains), cmocka_unit_test(test_events),
        cmocka_unit_test(test_riches),
    };
    return cmocka_run_group_tests_name("a node that lies", tests, before, after);
}
