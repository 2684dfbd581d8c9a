/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events of a real weftd, heard by a subscriber of libzmq as a router's would be: put, evicted,
 * written below, weftd started again, missed batches asked for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include <cmocka.h>

#include "../support/weftd.h"
#include "gateway/kvevents_codec.h"

#define WAIT_MS 20000
#define BLOCK_TOKENS 4
#define BLOCK_BYTES (64 << 10)
#define HEARD_MAX 4096
#define TOPIC "kv@here@tiny"

static struct weftd node;
static uint16_t port, replay_port;
static void *context;

/* ---------------------------------------------------------------------------------- subscriber */

struct heard {
    void *socket;
    int64_t number; /* of the last batch; -1: none */
    uint32_t count;
    struct {
        enum wf_kv_kind kind;
        enum wf_kv_medium medium;
        uint64_t hash, parent;
        uint32_t token_count, first_token;
    } event[HEARD_MAX];
};
static struct heard heard;

static void take(void *to, const struct wf_kv_heard *event)
{
    struct heard *all = to;
    const struct wf_kv_meaning *m = &event->meaning;
    assert_true(all->count < HEARD_MAX);
    all->event[all->count].kind = event->kind;
    all->event[all->count].medium = event->medium;
    all->event[all->count].hash = wf_kv_hash_number(m->hash, m->hash_bytes);
    all->event[all->count].parent = wf_kv_hash_number(m->parent, m->parent_bytes);
    all->event[all->count].token_count = (uint32_t)m->token_count;
    all->event[all->count].first_token = m->token_count ? m->tokens[0] : 0;
    all->count++;
}

static void *open_socket(int type, uint16_t at)
{
    char endpoint[64];
    int linger = 0, wait = WAIT_MS;
    void *socket = zmq_socket(context, type);
    assert_non_null(socket);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", at);
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &wait, sizeof wait);
    assert_int_equal(zmq_connect(socket, endpoint), 0);
    return socket;
}

/* The one subscriber: weftd has seen the last one go, so that this one is told all anew. */
static void subscribe(void)
{
    struct weft *w = weftd_connect(&node, "default");
    assert_true(weftd_settles(w, NULL, "kv_events.subscriptions", 0));
    weft_close(w);
    memset(&heard, 0, sizeof heard);
    heard.number = -1;
    heard.socket = open_socket(ZMQ_SUB, port);
    assert_int_equal(zmq_setsockopt(heard.socket, ZMQ_SUBSCRIBE, TOPIC, strlen(TOPIC)), 0);
}

/* [topic, number, batch] from `socket`; returns the number, UINT64_MAX at the end of a replay. */
static uint64_t receive(void *socket, struct heard *to)
{
    static uint8_t batch[1 << 22];
    uint8_t topic[64], frame[8];
    int bytes = zmq_recv(socket, topic, sizeof topic, 0);
    assert_true(bytes >= 0);
    assert_int_equal(zmq_recv(socket, frame, sizeof frame, 0), 8);
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number = number << 8 | frame[i];
    int length = zmq_recv(socket, batch, sizeof batch, 0);
    assert_true(length >= 0 && length <= (int)sizeof batch);
    if (number == UINT64_MAX) {
        assert_int_equal(bytes, 0);
        assert_int_equal(length, 0);
        return number;
    }
    assert_int_equal(bytes, strlen(TOPIC));
    assert_memory_equal(topic, TOPIC, strlen(TOPIC));
    assert_int_equal(wf_kv_decode(batch, (size_t)length, take, to), WEFT_OK);
    return number;
}

/* Hear on until so many events were heard in all, or more. */
static void hear_more(uint32_t count)
{
    while (heard.count < count) {
        uint64_t number = receive(heard.socket, &heard);
        assert_true(heard.number < 0 || number == (uint64_t)heard.number + 1);
        heard.number = (int64_t)number;
    }
}

static void hear_until(uint32_t count)
{
    hear_more(count);
    assert_int_equal(heard.count, count);
}

static void expect(uint32_t at, enum wf_kv_kind kind, enum wf_kv_medium medium, uint64_t hash)
{
    assert_true(at < heard.count);
    assert_int_equal(heard.event[at].kind, kind);
    assert_int_equal(heard.event[at].medium, medium);
    assert_true(heard.event[at].hash == hash);
}

/* --------------------------------------------------------------------------------------- blocks */

/* A prompt of `count` blocks, and what an engine would call them. */
struct prompt {
    uint32_t count;
    uint32_t tokens[64 * BLOCK_TOKENS];
    struct weft_key keys[64];
    uint64_t hashes[64]; /* big-endian, so that the last 8 bytes are the number below */
    uint64_t numbers[64];
};

static struct weft_format *format_open(struct weft *w)
{
    const struct weft_format_spec spec = {.model = "tiny",
                                          .layers = 2,
                                          .kv_heads = 2,
                                          .head_dim = 8,
                                          .dtype = WEFT_F16,
                                          .block_tokens = BLOCK_TOKENS,
                                          .block_bytes = BLOCK_BYTES};
    struct weft_format *f = NULL;
    assert_int_equal(weft_format_open(w, &spec, &f), WEFT_OK);
    return f;
}

static struct prompt prompt_make(struct weft_format *f, uint32_t count, uint32_t seed)
{
    static struct prompt p;
    memset(&p, 0, sizeof p);
    p.count = count;
    for (uint32_t i = 0; i < count * BLOCK_TOKENS; i++)
        p.tokens[i] = seed * 1000 + i;
    assert_int_equal(weft_keys_from_tokens(f, NULL, p.tokens, count * BLOCK_TOKENS, NULL, p.keys),
                     WEFT_OK);
    for (uint32_t i = 0; i < count; i++) {
        p.numbers[i] = ((uint64_t)seed << 32) + i + 1;
        p.hashes[i] = __builtin_bswap64(p.numbers[i]);
    }
    return p;
}

static size_t describe(struct weft_format *f, const struct prompt *p)
{
    size_t taken = 0;
    const struct weft_description what = {.hashes = p->hashes,
                                          .hash_bytes = sizeof p->hashes[0],
                                          .tokens = p->tokens};
    assert_int_equal(weft_describe(f, p->keys, p->count, &what, &taken), WEFT_OK);
    return taken;
}

static void put(struct weft_format *f, const struct prompt *p)
{
    struct weft_slot slots[64];
    assert_int_equal(weft_reserve_keys(f, NULL, p->keys, p->count, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < p->count; i++)
        if (slots[i].status == WEFT_OK)
            memset(slots[i].data, (int)i + 1, BLOCK_BYTES);
    assert_int_equal(weft_commit_slots(f, slots, p->count), WEFT_OK);
}

/* ---------------------------------------------------------------------------------------- tests */

static int64_t event_figure(struct weft *w, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "kv_events.%s", name);
    return weftd_number(w, NULL, path);
}

static bool start(const char *more)
{
    const char *const settings[] = {"pool.size=64MB",
                                    "pool.policy=lru",
                                    "kv_events.listen=tcp://127.0.0.1:0",
                                    "kv_events.replay=127.0.0.1:0",
                                    "kv_events.topic=" TOPIC,
                                    more,
                                    NULL};
    if (!weftd_start(&node, settings, NULL))
        return false;
    struct weft *w = weftd_connect(&node, "default");
    port = (uint16_t)event_figure(w, "port");
    replay_port = (uint16_t)event_figure(w, "replay_port");
    weft_close(w);
    return port && replay_port;
}

static void tells_what_is_described(void **state)
{
    (void)state;
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 3, 1);
    subscribe();
    hear_until(1); /* the first to come is told all, of which there is nothing yet */
    expect(0, WF_KV_CLEARED, WF_KV_NOWHERE, 0);
    assert_int_equal(describe(f, &p), 3);
    put(f, &p);
    hear_until(4);
    for (uint32_t i = 0; i < 3; i++) {
        expect(1 + i, WF_KV_STORED, WF_KV_CPU, p.numbers[i]);
        assert_true(heard.event[1 + i].parent == (i ? p.numbers[i - 1] : 0));
        assert_int_equal(heard.event[1 + i].token_count, BLOCK_TOKENS);
        assert_int_equal(heard.event[1 + i].first_token, p.tokens[i * BLOCK_TOKENS]);
    }
    /* Put first and described then; what nobody described is not told. */
    struct prompt silent = prompt_make(f, 2, 2);
    put(f, &silent);
    struct prompt late = prompt_make(f, 2, 3);
    put(f, &late);
    assert_int_equal(describe(f, &late), 2);
    assert_int_equal(describe(f, &late), 2); /* once is enough */
    hear_until(6);
    expect(4, WF_KV_STORED, WF_KV_CPU, late.numbers[0]);
    expect(5, WF_KV_STORED, WF_KV_CPU, late.numbers[1]);
    /* Gone: what extends it first. */
    size_t removed = 0;
    assert_int_equal(weft_remove(f, &late.keys[0], &removed), WEFT_OK);
    hear_until(8);
    expect(6, WF_KV_REMOVED, WF_KV_CPU, late.numbers[1]);
    expect(7, WF_KV_REMOVED, WF_KV_CPU, late.numbers[0]);
    /* And here again, without being described anew. */
    put(f, &late);
    hear_until(10);
    expect(8, WF_KV_STORED, WF_KV_CPU, late.numbers[0]);
    zmq_close(heard.socket);
    weft_format_close(f);
    weft_close(w);
}

/* Without tokens nobody could match a prompt with it: it waits until somebody says them. */
static void holds_back_without_tokens(void **state)
{
    (void)state;
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = format_open(w);
    struct prompt bare = prompt_make(f, 2, 5), whole = prompt_make(f, 2, 6);
    const struct weft_description what = {.hashes = bare.hashes,
                                          .hash_bytes = sizeof bare.hashes[0]};
    size_t taken = 0;
    int64_t held = event_figure(w, "held");
    assert_int_equal(weft_describe(f, bare.keys, bare.count, &what, &taken), WEFT_OK);
    assert_int_equal(taken, 2);
    assert_int_equal(event_figure(w, "held"), held + 2);
    put(f, &bare);
    subscribe();
    hear_more(1); /* all anew, without them */
    assert_int_equal(describe(f, &whole), 2);
    put(f, &whole);
    for (uint32_t at = 0;; at++) {
        hear_more(at + 1);
        for (uint32_t i = 0; i < 2; i++)
            assert_true(heard.event[at].hash != bare.numbers[i]);
        if (heard.event[at].hash == whole.numbers[1])
            break;
    }
    uint32_t before = heard.count;
    assert_int_equal(describe(f, &bare), 2);
    hear_until(before + 2);
    for (uint32_t i = 0; i < 2; i++) {
        expect(before + i, WF_KV_STORED, WF_KV_CPU, bare.numbers[i]);
        assert_int_equal(heard.event[before + i].token_count, BLOCK_TOKENS);
    }
    assert_int_equal(event_figure(w, "held"), held);
    /* And who does not know them takes nothing from what is known. */
    assert_int_equal(weft_describe(f, bare.keys, bare.count, &what, &taken), WEFT_OK);
    assert_int_equal(taken, 2);
    assert_int_equal(event_figure(w, "held"), held);
    struct prompt last = prompt_make(f, 1, 7);
    assert_int_equal(describe(f, &last), 1);
    put(f, &last);
    hear_until(before + 3);
    expect(before + 2, WF_KV_STORED, WF_KV_CPU, last.numbers[0]);
    zmq_close(heard.socket);
    weft_format_close(f);
    weft_close(w);
}

static void tells_of_eviction(void **state)
{
    (void)state;
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 4, 10);
    subscribe();
    assert_int_equal(describe(f, &p), 4);
    put(f, &p);
    /* More than the pool holds, of which nobody speaks. */
    for (uint32_t i = 0; i < 40; i++) {
        struct prompt other = prompt_make(f, 64, 100 + i);
        put(f, &other);
    }
    int64_t gone = 0;
    for (int waits = 0; gone < 4 && waits < 100; waits++) {
        gone = event_figure(w, "removed");
        weftd_sleep_ms(50);
    }
    assert_true(gone >= 4);
    uint32_t went = 0;
    for (uint32_t at = 0; went < 4; at++) {
        if (at == heard.count)
            hear_more(heard.count + 1);
        for (uint32_t i = 0; i < 4; i++)
            went += heard.event[at].kind == WF_KV_REMOVED && heard.event[at].hash == p.numbers[i];
    }
    zmq_close(heard.socket);
    weft_format_close(f);
    weft_close(w);
}

static void replays(void **state)
{
    (void)state;
    static struct heard again;
    struct weft *w = weftd_connect(&node, "default");
    int64_t batches = event_figure(w, "batches");
    assert_true(batches >= 3);
    void *socket = open_socket(ZMQ_REQ, replay_port);
    for (int64_t first = 0; first <= batches; first += batches) {
        uint8_t from[8] = {0};
        for (int i = 0; i < 8; i++)
            from[7 - i] = (uint8_t)(first >> (8 * i));
        /* As vLLM's clients have it: a DEALER says the empty frame itself, a REQ takes one answer.
         */
        void *dealer = open_socket(ZMQ_DEALER, replay_port);
        assert_int_equal(zmq_send(dealer, "", 0, ZMQ_SNDMORE), 0);
        assert_int_equal(zmq_send(dealer, from, 8, 0), 8);
        memset(&again, 0, sizeof again);
        for (int64_t expected = first;; expected++) {
            char empty;
            assert_int_equal(zmq_recv(dealer, &empty, 1, 0), 0);
            uint64_t number = receive(dealer, &again);
            if (number == UINT64_MAX) {
                assert_true(expected >= batches);
                break;
            }
            assert_true(number == (uint64_t)expected);
        }
        zmq_close(dealer);
        if (first == 0)
            assert_true(again.count > 10 && again.event[0].kind == WF_KV_CLEARED);
    }
    /* Nonsense is not answered, and counted. */
    int64_t nonsense = event_figure(w, "replay_errors");
    assert_int_equal(zmq_send(socket, "seven b", 7, 0), 7);
    for (int waits = 0; event_figure(w, "replay_errors") == nonsense && waits < 100; waits++)
        weftd_sleep_ms(50);
    assert_int_equal(event_figure(w, "replay_errors"), nonsense + 1);
    zmq_close(socket);
    weft_close(w);
}

/* Who was there before hears that all is gone, and what is here since. */
static void starts_again(void **state)
{
    (void)state;
    char listen[64];
    subscribe();
    hear_more(1);
    uint32_t before = heard.count;
    snprintf(listen, sizeof listen, "kv_events.listen=127.0.0.1:%u", port);
    assert_true(weftd_stop(&node));
    assert_true(start(listen));
    heard.number = -1;
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 2, 50);
    assert_int_equal(describe(f, &p), 2);
    put(f, &p);
    uint32_t stored = 0;
    bool cleared = false;
    for (uint32_t at = before; stored < 2; at++) {
        while (at >= heard.count)
            heard.number = (int64_t)receive(heard.socket, &heard);
        cleared |= heard.event[at].kind == WF_KV_CLEARED;
        stored += cleared && heard.event[at].kind == WF_KV_STORED;
    }
    assert_true(cleared);
    zmq_close(heard.socket);
    weft_format_close(f);
    weft_close(w);
}

/* A block on a tier and in DRAM is told twice, each with its place. */
static void tells_of_tiers(void **state)
{
    (void)state;
    char tier[160];
    assert_true(weftd_stop(&node));
    snprintf(tier, sizeof tier, "tier.nvme0.path=%s/tier", node.directory);
    const char *const settings[] = {
        "pool.size=16MB",        "kv_events.listen=127.0.0.1:0", "kv_events.topic=" TOPIC,
        "tiers=nvme0",           "tier.nvme0.kind=nvme",         tier,
        "tier.nvme0.size=256MB", "tier.nvme0.admit=always",      NULL};
    assert_true(weftd_start(&node, settings, NULL));
    struct weft *w = weftd_connect(&node, "default");
    port = (uint16_t)event_figure(w, "port");
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 8, 60);
    subscribe();
    assert_int_equal(describe(f, &p), 8);
    put(f, &p);
    for (uint32_t i = 0; i < 12; i++) {
        struct prompt other = prompt_make(f, 64, 200 + i);
        put(f, &other);
        weftd_sleep_ms(50);
    }
    uint32_t below = 0, left = 0;
    for (uint32_t at = 0; below < 8 || left < 8; at++) {
        while (at >= heard.count)
            hear_more(heard.count + 1);
        below += heard.event[at].kind == WF_KV_STORED && heard.event[at].medium == WF_KV_STORAGE;
        left += heard.event[at].kind == WF_KV_REMOVED && heard.event[at].medium == WF_KV_CPU;
    }
    zmq_close(heard.socket);
    weft_format_close(f);
    weft_close(w);
}

/* A node without events takes descriptions, and says that it has no use for them. */
static void off_is_no_error(void **state)
{
    (void)state;
    assert_true(weftd_stop(&node));
    const char *const settings[] = {"pool.size=16MB", NULL};
    assert_true(weftd_start(&node, settings, NULL));
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 2, 70);
    assert_int_equal(describe(f, &p), 0);
    const char *const exposed[] = {"kv_events.listen=0.0.0.0:0", NULL};
    struct weftd other = {0};
    weftd_prepare(&other);
    assert_false(weftd_start(&other, exposed, NULL)); /* tokens are for this host, unless told */
    weftd_clean(&other);
    weft_format_close(f);
    weft_close(w);
}

static int all_start(void **state)
{
    (void)state;
    context = zmq_ctx_new();
    weftd_prepare(&node);
    return start(NULL) ? 0 : -1;
}

static int all_stop(void **state)
{
    (void)state;
    weftd_clean(&node);
    zmq_ctx_term(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_what_is_described),
        cmocka_unit_test(holds_back_without_tokens),
        cmocka_unit_test(tells_of_eviction),
        cmocka_unit_test(replays),
        cmocka_unit_test(starts_again),
        cmocka_unit_test(tells_of_tiers),
        cmocka_unit_test(off_is_no_error),
    };
    return cmocka_run_group_tests(tests, all_start, all_stop);
}
