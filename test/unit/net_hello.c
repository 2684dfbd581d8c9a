/* SPDX-License-Identifier: Apache-2.0
 *
 * The handshake without a wire: it agrees however its bytes are torn, and no bit of it can be
 * another without one side saying no.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/hello.h"

static const uint8_t secret[32] = "thirty-two bytes that are secret";
static const uint8_t other[32] = "thirty-two bytes that are wrong!";

struct pair {
    struct wf_net_hello c, a;
    enum weft_status said_c, said_a;
    char why_c[512], why_a[512];
    /* A fault: the byte of this number, counted over all that crosses, gets `flip`. */
    size_t crossed, fault;
    uint8_t flip;
    bool refuse;
    enum wf_net_refusal refusal;
};

static struct pair *pair_make(const struct wf_net_hello_self *c, const struct wf_net_hello_self *a)
{
    struct pair *pair = calloc(1, sizeof *pair);
    assert_non_null(pair);
    assert_int_equal(wf_net_hello_begin(&pair->c, c), WEFT_OK);
    assert_int_equal(wf_net_hello_begin(&pair->a, a), WEFT_OK);
    pair->said_c = pair->said_a = WEFT_PENDING;
    pair->fault = SIZE_MAX;
    return pair;
}

static struct wf_net_hello_self self(enum wf_net_hello_role role)
{
    return (struct wf_net_hello_self){
        .role = role,
        .proof = WF_NET_PROOF_SECRET,
        .secret = secret,
        .transport = {'t', 'c', 'p', 0},
        .streams = 4,
        .dead_ms = 5000,
        .numbers = {7, 8},
        .hello = role == WF_NET_CONNECTOR ? "I am c" : "I am a",
        .hello_bytes = 6,
        .bytes = "where",
        .byte_count = 5,
    };
}

/* Up to `step` bytes from one to the other; whether there were any. */
static bool carry(struct pair *pair, struct wf_net_hello *from, struct wf_net_hello *to,
                  enum weft_status *said, char *why, size_t step)
{
    uint8_t bytes[16384];
    size_t count;
    const void *out = wf_net_hello_out(from, &count);
    size_t wants = wf_net_hello_wants(to);
    if (count > step)
        count = step;
    if (!wants || *said < 0) { /* it reads no more */
        wf_net_hello_sent(from, count);
        return count > 0;
    }
    if (count > wants)
        count = wants;
    if (!count)
        return false;
    memcpy(bytes, out, count);
    if (pair->fault >= pair->crossed && pair->fault < pair->crossed + count)
        bytes[pair->fault - pair->crossed] ^= pair->flip;
    pair->crossed += count;
    wf_net_hello_sent(from, count);
    *said = wf_net_hello_take(to, bytes, count);
    if (*said < 0)
        snprintf(why, WF_ERROR_MAX, "%s", wf_last_error());
    return true;
}

static void meet(struct pair *pair, size_t step)
{
    static const uint8_t link[WF_NET_LINK_ID_BYTES] = "a link's own id";
    bool went = true;
    while (went) {
        went = carry(pair, &pair->c, &pair->a, &pair->said_a, pair->why_a, step);
        if (pair->a.state == WF_NET_HELLO_DECIDE) {
            if (pair->refuse)
                wf_net_hello_refuse(&pair->a, pair->refusal);
            else
                wf_net_hello_admit(&pair->a, link, 3);
        }
        went |= carry(pair, &pair->a, &pair->c, &pair->said_c, pair->why_c, step);
        if (pair->c.state == WF_NET_HELLO_PROVEN) {
            wf_net_hello_ready(&pair->c);
            went = true;
        }
    }
}

static bool both_done(const struct pair *pair)
{
    return pair->c.state == WF_NET_HELLO_DONE && pair->a.state == WF_NET_HELLO_DONE;
}

static void pair_free(struct pair *pair)
{
    wf_net_hello_end(&pair->c);
    wf_net_hello_end(&pair->a);
    free(pair);
}

static void test_agree(void **state)
{
    static const size_t steps[] = {1, 2, 7, 63, 64, 65, 1000, 16384};
    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
        struct pair *pair = pair_make(&c, &a);
        uint8_t key_c[32], key_a[32];
        meet(pair, steps[i]);
        assert_true(both_done(pair));
        assert_int_equal(pair->c.streams, 3);
        assert_memory_equal(pair->c.link, pair->a.link, WF_NET_LINK_ID_BYTES);
        assert_int_equal(pair->a.peer.hello_bytes, 6);
        assert_memory_equal(pair->a.peer.hello, "I am c", 6);
        assert_memory_equal(pair->c.peer.hello, "I am a", 6);
        assert_int_equal(pair->c.peer.byte_count, 5);
        assert_memory_equal(pair->c.peer.bytes, "where", 5);
        assert_int_equal(pair->c.peer.numbers[1], 8);
        wf_net_hello_key(&pair->c, key_c);
        wf_net_hello_key(&pair->a, key_a);
        assert_memory_equal(key_c, key_a, 32);
        pair_free(pair);
    }
}

/* Whichever bit of whichever byte is another: not both are done.  Both have proved themselves
 * before either is, so nobody believes a changed hello. */
static void test_changed(void **state)
{
    (void)state;
    struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
    struct pair *pair = pair_make(&c, &a);
    meet(pair, 16384);
    size_t all = pair->crossed;
    pair_free(pair);
    assert_int_equal(all, 2 * (WF_NET_GREETING_BYTES + 11) + 3 * WF_NET_PROOF_BYTES);
    for (size_t at = 0; at < all; at++)
        for (int bit = 0; bit < 8; bit++) {
            pair = pair_make(&c, &a);
            pair->fault = at;
            pair->flip = (uint8_t)(1 << bit);
            meet(pair, 16384);
            if (both_done(pair) || pair->a.state == WF_NET_HELLO_DONE)
                fail_msg("bit %d of byte %zu was changed, and the acceptor is content", bit, at);
            pair_free(pair);
        }
}

static void test_secret(void **state)
{
    (void)state;
    struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
    c.secret = other;
    struct pair *pair = pair_make(&c, &a);
    meet(pair, 100);
    assert_int_equal(pair->said_a, WEFT_E_DENIED);
    assert_int_equal(pair->said_c, WEFT_E_DENIED);
    assert_non_null(strstr(pair->why_c, "another secret"));
    pair_free(pair);
}

/* An attacker that knows no secret answers a connector with what the connector says. */
static void test_reflection(void **state)
{
    (void)state;
    struct wf_net_hello_self me = self(WF_NET_CONNECTOR);
    struct pair *pair = pair_make(&me, &me);
    size_t count;
    const void *out = wf_net_hello_out(&pair->c, &count);
    assert_int_equal(wf_net_hello_take(&pair->c, out, count), WEFT_E_PROTOCOL);
    assert_non_null(strstr(wf_last_error(), "says back"));
    pair_free(pair);

    /* The greeting made to look like an acceptor's; then the proof said back. */
    uint8_t bytes[16384];
    struct wf_net_hello_self a = self(WF_NET_ACCEPTOR);
    a.secret = other;
    pair = pair_make(&me, &a);
    out = wf_net_hello_out(&pair->c, &count);
    assert_int_equal(wf_net_hello_take(&pair->a, out, count), WEFT_PENDING);
    wf_net_hello_sent(&pair->c, count);
    out = wf_net_hello_out(&pair->a, &count);
    memcpy(bytes, out, count);
    assert_int_equal(wf_net_hello_take(&pair->c, bytes, count), WEFT_PENDING);
    out = wf_net_hello_out(&pair->c, &count);
    assert_int_equal(count, WF_NET_PROOF_BYTES);
    memcpy(bytes, out, count);
    assert_int_equal(wf_net_hello_take(&pair->c, bytes, count), WEFT_E_DENIED);
    pair_free(pair);
}

/* What a first packet can be that is no greeting; the sentence says what it looks like. */
static void test_strangers(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *sentence;
        bool answered;
    } strangers[] = {
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03QQQQQ", 16, "speaks TLS", false},
        {"GET / HTTP/1.1\r\n", 16, "does not speak", false},
        {"weft-net\x02\x00\x03\x00\x58\x00\x00\x00", 16, "versions 2 to 3", true},
        {"weft-net\x02\x00\x01\x00\x58\x00\x00\x00", 16, "versions 2 to 1", true},
        {"weft-net\x00\x00\x01\x00\x58\x00\x00\x00", 16, "versions 0 to 1", true},
        {"weft-net\x01\x00\x01\x00\x57\x00\x00\x00", 16, "87 bytes", true},
        {"weft-net\x01\x00\x01\x00\xff\xff\xff\xff", 16, "4294967295 bytes", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        struct wf_net_hello_self a = self(WF_NET_ACCEPTOR);
        struct pair *pair = pair_make(&a, &a);
        size_t count;
        assert_int_equal(wf_net_hello_take(&pair->a, strangers[i].bytes, strangers[i].count),
                         WEFT_E_PROTOCOL);
        assert_non_null(strstr(wf_last_error(), strangers[i].sentence));
        wf_net_hello_out(&pair->a, &count);
        assert_int_equal(count > 0, strangers[i].answered);
        assert_int_equal(wf_net_hello_wants(&pair->a), 0);
        assert_int_equal(wf_net_hello_take(&pair->a, "x", 1), WEFT_E_PROTOCOL);
        pair_free(pair);
    }
}

static void test_differ(void **state)
{
    (void)state;
    struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
    c.proof = WF_NET_PROOF_NONE;
    struct pair *pair = pair_make(&c, &a);
    meet(pair, 16384);
    assert_int_equal(pair->said_a, WEFT_E_DENIED);
    assert_non_null(strstr(pair->why_c, "by a secret and this one by nothing"));
    pair_free(pair);

    c = self(WF_NET_CONNECTOR);
    memcpy(c.transport, "ucx", 4);
    pair = pair_make(&c, &a);
    meet(pair, 16384);
    assert_int_equal(pair->said_a, WEFT_E_PROTOCOL);
    assert_int_equal(pair->said_c, WEFT_E_PROTOCOL);
    pair_free(pair);

    static const uint8_t bad[][3] = {{0, 0, 0}, {17, 0, 0}, {4, 4, 1}, {4, 1, 0}, {4, 0, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        c = self(WF_NET_CONNECTOR);
        c.streams = bad[i][0];
        c.stream = bad[i][1];
        c.link[3] = bad[i][2];
        pair = pair_make(&c, &a);
        meet(pair, 16384);
        assert_int_equal(pair->said_a, WEFT_E_PROTOCOL);
        pair_free(pair);
    }
}

static void test_refused(void **state)
{
    (void)state;
    for (int refusal = 1; refusal < WF_NET_REFUSALS; refusal++) {
        struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
        struct pair *pair = pair_make(&c, &a);
        pair->refuse = true;
        pair->refusal = (enum wf_net_refusal)refusal;
        meet(pair, 16384);
        assert_int_equal(pair->said_c, WEFT_E_DENIED);
        assert_non_null(strstr(pair->why_c, "the other side refuses: it"));
        assert_int_equal(pair->a.state, WF_NET_HELLO_FAILED);
        pair_free(pair);
    }
}

/* At every length that may be said, and no further. */
static void test_longest(void **state)
{
    static uint8_t much[WF_NET_TRANSPORT_MAX + 1];
    (void)state;
    struct wf_net_hello_self c = self(WF_NET_CONNECTOR), a = self(WF_NET_ACCEPTOR);
    c.hello = a.hello = c.bytes = a.bytes = much;
    c.hello_bytes = a.hello_bytes = WF_NET_HELLO_MAX;
    c.byte_count = a.byte_count = WF_NET_TRANSPORT_MAX;
    struct pair *pair = pair_make(&c, &a);
    meet(pair, 16384);
    assert_true(both_done(pair));
    c.byte_count++;
    assert_int_equal(wf_net_hello_begin(&pair->c, &c), WEFT_E_INVALID);
    c.byte_count--;
    c.hello_bytes++;
    assert_int_equal(wf_net_hello_begin(&pair->c, &c), WEFT_E_INVALID);
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agree),     cmocka_unit_test(test_changed),
        cmocka_unit_test(test_secret),    cmocka_unit_test(test_reflection),
        cmocka_unit_test(test_strangers), cmocka_unit_test(test_differ),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
