/* SPDX-License-Identifier: Apache-2.0
 *
 * What strangers may send: nonsense in every field, other people's handles, floods, scribbles.
 *
 * Around every test the same two promises are checked: a well-behaved client is served as before,
 * and nothing leaks: the node has as many clients, sessions, regions, reserved blocks and open
 * descriptors as it had.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/raw.h"

#define BLOCK_BYTES 16384
#define CLIENTS_MAX 32

static const char *const settings[] = {
    "pool.size=8MB",         "pool.size_max=8MB",          "staging=1MB",
    "limits.clients=32",     "limits.pins=1024",           "limits.reserved=256",
    "domains=default,guest", "domain.guest.writes=copied", NULL};

static const uint16_t fixed[WF_OP_COUNT] = {
    [WF_OP_HELLO] = sizeof(struct wf_hello),
    [WF_OP_FORMAT_OPEN] = sizeof(struct wf_format_open),
    [WF_OP_SESSION_OPEN] = sizeof(struct wf_session_open),
    [WF_OP_SESSION_CLOSE] = sizeof(struct wf_session_close),
    [WF_OP_SESSION_HINT] = sizeof(struct wf_session_hint),
    [WF_OP_RESERVE] = sizeof(struct wf_reserve),
    [WF_OP_COMMIT] = sizeof(struct wf_commit),
    [WF_OP_ABORT] = sizeof(struct wf_commit),
    [WF_OP_REMOVE] = sizeof(struct wf_remove),
    [WF_OP_REGION_CREATE] = sizeof(struct wf_region_create),
    [WF_OP_REGION_OPEN] = sizeof(struct wf_region_open),
    [WF_OP_REGION_RELEASE] = sizeof(struct wf_region_release),
    [WF_OP_LEND] = sizeof(struct wf_lend),
    [WF_OP_RECLAIM] = sizeof(struct wf_lend),
    [WF_OP_QUERY] = sizeof(struct wf_query),
    [WF_OP_CORRUPT] = sizeof(struct wf_corrupt),
    [WF_OP_LOAD] = sizeof(struct wf_load),
    [WF_OP_DEMOTE] = sizeof(struct wf_demote),
    [WF_OP_ARCHIVE] = sizeof(struct wf_archive),
    [WF_OP_FENCE] = sizeof(struct wf_fence),
    [WF_OP_DESCRIBE] = sizeof(struct wf_describe),
    [WF_OP_FABRIC] = sizeof(struct wf_fabric_say_message),
    [WF_OP_ROUTE] = sizeof(struct wf_routing),
    [WF_OP_PUSH] = sizeof(struct wf_push_message),
    [WF_OP_REMOVE_EVERYWHERE] = sizeof(struct wf_remove),
};

/* The node, a good client of it, and what the node had before the test. */
struct stage {
    struct weftd node;
    struct weft *good;
    struct weft_format *format;
    uint64_t serial;
    int descriptors;
};

static int descriptors_of(const struct weftd *node)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)node->pid);
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

/* Put and get a block, as ever. */
static void served(struct stage *s)
{
    struct weft_key key;
    struct weft_slot slot;
    struct weft_pin pin;
    uint64_t name = ++s->serial;
    assert_int_equal(weft_key_from_bytes(s->format, &name, sizeof name, &key), WEFT_OK);
    assert_int_equal(weft_reserve_keys(s->format, NULL, &key, 1, 0, &slot), WEFT_OK);
    assert_int_equal(slot.status, WEFT_OK);
    payload_fill(slot.data, BLOCK_BYTES, key.bytes);
    assert_int_equal(weft_commit_slots(s->format, &slot, 1), WEFT_OK);
    assert_int_equal(slot.status, WEFT_OK);
    assert_int_equal(weft_pin(s->format, &key, &pin), WEFT_OK);
    assert_true(payload_right(pin.data, BLOCK_BYTES, key.bytes));
    weft_unpin(&pin);
}

static void no_leak(struct stage *s)
{
    assert_true(weftd_settles(s->good, NULL, "clients", 1));
    assert_int_equal(weftd_number(s->good, NULL, "sessions"), 0);
    for (int d = 0; d < 2; d++) {
        const char *domain = d ? "guest" : "default";
        assert_int_equal(weftd_number(s->good, domain, "blocks_reserved"), 0);
        assert_int_equal(weftd_number(s->good, domain, "regions"), 0);
        assert_int_equal(weftd_number(s->good, domain, "sessions"), 0);
        assert_int_equal(weftd_number(s->good, domain, "clients"), !d);
    }
    assert_int_equal(descriptors_of(&s->node), s->descriptors);
}

static int before(void **state)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    weftd_run(&s.node, settings);
    s.good = weftd_connect(&s.node, "default");
    assert_non_null(s.good);
    s.format = weftd_format(s.good, "good", BLOCK_BYTES);
    assert_non_null(s.format);
    served(&s);
    assert_true(weftd_settles(s.good, NULL, "clients", 1));
    s.descriptors = descriptors_of(&s.node);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    served(s);
    no_leak(s);
    weft_format_close(s->format);
    weft_close(s->good);
    bool ended = weftd_stop(&s->node);
    if (!ended)
        weftd_show_log(&s->node);
    weftd_clean(&s->node);
    return ended ? 0 : 1;
}

/* ----------------------------------------------------------------------------- broken messages */

static void test_every_op_at_every_length(void **state)
{
    struct stage *s = *state;
    static uint8_t message[WF_MESSAGE_MAX];
    struct random_source r = random_seeded("every length");
    for (uint16_t op = 1; op < WF_OP_COUNT; op++) {
        for (size_t bytes = 0; bytes < fixed[op]; bytes += bytes < 96 ? 5 : 331) {
            struct raw raw;
            assert_int_equal(raw_hello(&raw, &s->node, op % 2 ? "default" : "guest"), WEFT_OK);
            for (size_t i = 0; i < sizeof message; i += 8)
                *(uint64_t *)(void *)(message + i) = random_next(&r);
            *(struct wf_message *)(void *)message = (struct wf_message){
                .magic = WF_CONTROL_MAGIC,
                .op = op,
                .version = WF_CONTROL_VERSION,
                .bytes = (uint32_t)bytes,
            };
            /* An empty datagram is the end of the connection; any other gets a last word. */
            assert_true(raw_send(&raw, message, bytes));
            if (bytes) {
                assert_true(raw_receive(&raw));
                assert_int_equal(raw.answer.head.status, WEFT_E_PROTOCOL);
                assert_true(raw.answer_bytes > sizeof raw.answer.head);
            }
            assert_false(raw_receive(&raw));
            raw_close(&raw);
        }
    }
}

static void test_broken_headers(void **state)
{
    struct stage *s = *state;
    static const struct wf_message heads[] = {
        {.magic = 0,
         .op = WF_OP_QUERY,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query)},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_QUERY,
         .version = 0,
         .bytes = sizeof(struct wf_query)},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_QUERY,
         .version = WF_CONTROL_VERSION + 1,
         .bytes = sizeof(struct wf_query)},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_QUERY,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query) - 1},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_QUERY,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query) + 1},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_QUERY,
         .version = WF_CONTROL_VERSION,
         .bytes = UINT32_MAX},
        {.magic = WF_CONTROL_MAGIC,
         .op = 0,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query)},
        {.magic = WF_CONTROL_MAGIC,
         .op = WF_OP_COUNT,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query)},
        {.magic = WF_CONTROL_MAGIC,
         .op = UINT16_MAX,
         .version = WF_CONTROL_VERSION,
         .bytes = sizeof(struct wf_query)},
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct raw raw;
        struct wf_query query = {.message = heads[i], .what = "status"};
        assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
        assert_true(raw_send(&raw, &query, sizeof query));
        assert_true(raw_receive(&raw));
        assert_int_equal(raw.answer.head.status, WEFT_E_PROTOCOL);
        assert_false(raw_receive(&raw));
        raw_close(&raw);
    }
    static uint8_t large[2 * WF_MESSAGE_MAX];
    struct raw raw;
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    assert_true(raw_send(&raw, large, sizeof large));
    assert_true(raw_receive(&raw));
    assert_int_equal(raw.answer.head.status, WEFT_E_PROTOCOL);
    raw_close(&raw);
}

static void test_before_hello_and_twice(void **state)
{
    struct stage *s = *state;
    static uint8_t message[WF_MESSAGE_MAX];
    struct raw raw;
    for (uint16_t op = 2; op < WF_OP_COUNT; op++) {
        assert_true(raw_connect(&raw, &s->node));
        memset(message, 0, sizeof message);
        assert_int_equal(raw_ask(&raw, message, op, fixed[op]), WEFT_E_PROTOCOL);
        assert_false(raw_receive(&raw));
        raw_close(&raw);
    }
    struct wf_hello hello = {.domain = "guest"};
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    assert_int_equal(raw_ask(&raw, &hello, WF_OP_HELLO, sizeof hello), WEFT_E_PROTOCOL);
    assert_int_equal(raw.received_count, 0);
    raw_close(&raw);
    assert_int_equal(raw_hello(&raw, &s->node, "nowhere"), WEFT_E_NOT_FOUND);
    raw_close(&raw);
}

/* A copied domain has room for a few staging segments; who is refused leaves nothing behind,
 * however often it asks. */
static void test_refused_hellos_leak_nothing(void **state)
{
    struct stage *s = *state;
    struct raw full[CLIENTS_MAX], raw;
    struct wf_hello hello = {.domain = "guest"};
    size_t count = 0;
    while (count < 20 && raw_hello(&full[count], &s->node, "guest") == WEFT_OK)
        count++;
    assert_in_range(count, 2, 12);
    assert_int_equal(full[count].answer.head.status, WEFT_E_QUOTA);
    raw = full[count];
    int descriptors = descriptors_of(&s->node);
    for (int i = 0; i < 100; i++) {
        int32_t status = raw_ask(&raw, &hello, WF_OP_HELLO, sizeof hello);
        assert_true(status == WEFT_E_QUOTA || status == INT32_MIN); /* or cut off at once */
    }
    assert_true(descriptors_of(&s->node) <= descriptors);
    raw_close(&raw);
    while (count)
        raw_close(&full[--count]);
}

/* ------------------------------------------------------------------------------ lying contents */

static void test_counts(void **state)
{
    struct stage *s = *state;
    static const uint32_t counts[] = {0, 2, 513, 65536, 1u << 27, 1u << 31, UINT32_MAX};
    struct raw raw;
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    uint32_t format = raw_format(&raw, "counts", BLOCK_BYTES);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        union raw_reserve reserve = {.head = {.format = format, .count = counts[i]}};
        assert_int_equal(raw_ask(&raw, &reserve, WF_OP_RESERVE, sizeof reserve), WEFT_E_INVALID);
        union raw_commit commit = {.head = {.count = counts[i]}};
        for (uint16_t op = WF_OP_COMMIT; op <= WF_OP_ABORT; op++)
            assert_int_equal(raw_ask(&raw, &commit, op, RAW_COMMIT_BYTES(1)),
                             counts[i] ? WEFT_E_INVALID : WEFT_OK);
    }
    /* More than a client may hold reserved. */
    assert_int_equal(raw_reserve(&raw, format, 1000, 257), WEFT_E_LIMIT);
    struct wf_reserve odd = {.format = format, .count = 1, .parent_kind = 3};
    uint8_t message[sizeof odd + 32] = {0};
    for (uint32_t kind = 1; kind < 5; kind++) {
        odd.parent_kind = kind;
        odd.parent_slot = kind * 0x3fffffffu;
        memcpy(message, &odd, sizeof odd);
        assert_in_range(-raw_ask(&raw, message, WF_OP_RESERVE, sizeof message), 1, 30);
    }
    raw_close(&raw);
}

static void test_strings(void **state)
{
    struct stage *s = *state;
    struct raw raw;
    struct wf_hello hello;
    memset(&hello, 'x', sizeof hello);
    assert_true(raw_connect(&raw, &s->node));
    assert_int_equal(raw_ask(&raw, &hello, WF_OP_HELLO, sizeof hello), WEFT_E_PROTOCOL);
    raw_close(&raw);

    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    uint32_t format = raw_format(&raw, "strings", BLOCK_BYTES);
    struct wf_region_create create = {.size = 4096};
    memset(create.name, 'x', sizeof create.name);
    assert_int_equal(raw_ask(&raw, &create, WF_OP_REGION_CREATE, sizeof create), WEFT_E_INVALID);
    struct wf_region_open open;
    memset(&open, 'x', sizeof open);
    assert_int_equal(raw_ask(&raw, &open, WF_OP_REGION_OPEN, sizeof open), WEFT_E_INVALID);
    struct wf_query query;
    memset(&query, 'x', sizeof query);
    assert_int_equal(raw_ask(&raw, &query, WF_OP_QUERY, sizeof query), WEFT_E_INVALID);
    struct wf_session_open session = {.format = format, .priority = 5};
    memset(session.name, 'x', sizeof session.name);
    assert_int_equal(raw_ask(&raw, &session, WF_OP_SESSION_OPEN, sizeof session), WEFT_E_INVALID);
    memset(session.name, 0, sizeof session.name);
    session.salt_bytes = 257;
    assert_int_equal(raw_ask(&raw, &session, WF_OP_SESSION_OPEN, sizeof session), WEFT_E_INVALID);
    /* Names that are no text at all. */
    memset(session.name, 0xff, 64);
    session.salt_bytes = 0;
    assert_int_equal(raw_ask(&raw, &session, WF_OP_SESSION_OPEN, sizeof session), WEFT_E_INVALID);
    memset(create.name, 0xff, sizeof create.name - 1);
    create.name[sizeof create.name - 1] = '\0';
    assert_int_equal(raw_ask(&raw, &create, WF_OP_REGION_CREATE, sizeof create), WEFT_E_INVALID);
    raw_close(&raw);
}

static void test_formats(void **state)
{
    struct stage *s = *state;
    struct raw raw;
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    static const struct wf_format_open usual = {.layers = 2,
                                                .kv_heads = 2,
                                                .head_dim = 8,
                                                .dtype = WEFT_F16,
                                                .block_tokens = 4,
                                                .model = "m",
                                                .model_bytes = 1};
    struct wf_format_open open = usual;
#define LIE(field, value)                                                   \
    do {                                                                    \
        open = usual;                                                       \
        open.field = (value);                                               \
        int32_t got = raw_ask(&raw, &open, WF_OP_FORMAT_OPEN, sizeof open); \
        assert_true(got == WEFT_E_INVALID || got == WEFT_E_PROTOCOL);       \
    } while (0)
    LIE(model_bytes, 0);
    LIE(model_bytes, 2);
    LIE(model_bytes, 520);
    LIE(model_bytes, UINT32_MAX);
    LIE(scaling_bytes, 1);
    LIE(scaling_bytes, 4104);
    LIE(scaling_bytes, UINT32_MAX);
    LIE(adapter_bytes, 257);
    LIE(adapter_bytes, UINT32_MAX);
    LIE(salt_bytes, 257);
    LIE(layers, 0);
    LIE(layers, UINT32_MAX);
    LIE(kv_heads, UINT32_MAX);
    LIE(head_dim, UINT32_MAX);
    LIE(dtype, 77);
    LIE(block_tokens, UINT32_MAX);
    LIE(tp_rank, 5);
    LIE(rope_theta, -1.0);
    LIE(block_bytes, (uint64_t)1 << 32);
    LIE(block_bytes, UINT64_MAX);
#undef LIE
    /* Blocks as large as the field allows find no room, rather than none being needed. */
    for (uint64_t below = 1; below < 3 * 4096; below += 1000) {
        uint32_t format = raw_format(&raw, "large", UINT32_MAX - below + 1);
        assert_int_not_equal(format, UINT32_MAX);
        assert_int_equal(raw_reserve(&raw, format, 5000 + below, 1), WEFT_OK);
        assert_int_equal(raw.answer.reserve.blocks[0].status, WEFT_E_QUOTA);
    }
    raw_close(&raw);
}

/* A list comes in pages that fit a message, also when every name needs escaping. */
static void test_lists_fit_a_message(void **state)
{
    struct stage *s = *state;
    struct raw raw;
    uint32_t formats = 0, sessions = 0;
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    for (uint32_t i = 0; i < 130; i++) {
        char model[512];
        snprintf(model, sizeof model, "%u", i);
        memset(model + strlen(model), '"', sizeof model - 1 - strlen(model));
        model[sizeof model - 1] = '\0';
        formats += raw_format(&raw, model, BLOCK_BYTES) != UINT32_MAX;
        struct wf_session_open session = {.format = 0, .priority = 5};
        memset(session.name, '"', 64);
        sessions += raw_ask(&raw, &session, WF_OP_SESSION_OPEN, sizeof session) == WEFT_OK;
    }
    assert_int_equal(formats, 130);
    assert_int_equal(sessions, 130);
    for (int i = 0; i < 2; i++) {
        uint64_t cursor = 0;
        uint32_t seen = 0;
        do {
            struct wf_query query = {.cursor = cursor};
            snprintf(query.what, sizeof query.what, i ? "sessions" : "formats");
            assert_int_equal(raw_ask(&raw, &query, WF_OP_QUERY, sizeof query), WEFT_OK);
            raw.answer.bytes[raw.answer_bytes] = '\0';
            const char *text = raw.answer.text.text, *mark = i ? "\"session\"" : "\"format\"";
            for (const char *at = text; (at = strstr(at, mark)); at++)
                seen++;
            const char *next = strstr(text, "\"next\":");
            assert_non_null(next);
            cursor = (uint64_t)strtoull(next + 7, NULL, 10);
        } while (cursor);
        assert_true(seen >= 130);
    }
    raw_close(&raw);
}

/* Random bodies for every op, with the lengths right: nothing but answers. */
static void test_random_bodies(void **state)
{
    struct stage *s = *state;
    static uint8_t message[WF_MESSAGE_MAX];
    struct random_source r = random_seeded("random bodies");
    struct raw raw = {.fd = -1};
    for (int i = 0; i < 4000; i++) {
        uint16_t op = (uint16_t)(1 + random_below(&r, WF_OP_COUNT - 1));
        size_t bytes = fixed[op] + random_below(&r, 3) * random_below(&r, 500);
        if (raw.fd < 0)
            assert_int_equal(raw_hello(&raw, &s->node, i % 2 ? "default" : "guest"), WEFT_OK);
        for (size_t at = 0; at < bytes; at += 4) {
            uint32_t word = (uint32_t)random_next(&r);
            if (random_below(&r, 2)) /* small numbers reach further than large ones */
                word &= 0x3;
            memcpy(message + at, &word, 4);
        }
        if (op == WF_OP_RECLAIM) { /* all within no time: the pool must stay for the others */
            struct wf_lend *lend = (struct wf_lend *)(void *)message;
            lend->size = UINT64_MAX;
        }
        if (raw_ask(&raw, message, op, bytes) == INT32_MIN)
            raw_close(&raw);
    }
    raw_close(&raw);
}

/* ----------------------------------------------------------------------------- others' handles */

/* By number and by name; `b` is of the owner's domain, `c` of another. */
static void regions_of_others(struct raw *a, struct raw *b, struct raw *c)
{
    struct wf_region_create create = {.size = 4096, .share = WEFT_SHARE_READ, .name = "theirs"};
    assert_int_equal(raw_ask(a, &create, WF_OP_REGION_CREATE, sizeof create), WEFT_OK);
    struct wf_region_release release = {.region = a->answer.region.region};
    struct wf_region_open open = {.name = "theirs"};
    assert_int_equal(raw_ask(b, &release, WF_OP_REGION_RELEASE, sizeof release), WEFT_E_NOT_FOUND);
    assert_int_equal(raw_ask(c, &release, WF_OP_REGION_RELEASE, sizeof release), WEFT_E_NOT_FOUND);
    assert_int_equal(raw_ask(c, &open, WF_OP_REGION_OPEN, sizeof open), WEFT_E_NOT_FOUND);
    assert_int_equal(raw_ask(b, &open, WF_OP_REGION_OPEN, sizeof open), WEFT_OK);
    assert_false(b->answer.region.writable);
}

static void test_handles_of_others(void **state)
{
    struct stage *s = *state;
    struct raw a, b, c;
    assert_int_equal(raw_hello(&a, &s->node, "default"), WEFT_OK);
    assert_int_equal(raw_hello(&b, &s->node, "default"), WEFT_OK);
    assert_int_equal(raw_hello(&c, &s->node, "guest"), WEFT_OK);
    uint32_t format = raw_format(&a, "others", BLOCK_BYTES);
    uint32_t foreign = raw_format(&c, "others", BLOCK_BYTES);
    assert_int_not_equal(format, foreign);

    /* Formats: reserve and session under another domain's number. */
    assert_int_equal(raw_reserve(&a, foreign, 1, 1), WEFT_E_INVALID);
    assert_int_equal(raw_reserve(&c, format, 1, 1), WEFT_E_INVALID);
    assert_int_equal(raw_reserve(&a, UINT32_MAX, 1, 1), WEFT_E_INVALID);
    struct wf_session_open session = {.format = format, .priority = 5};
    assert_int_equal(raw_ask(&c, &session, WF_OP_SESSION_OPEN, sizeof session), WEFT_E_INVALID);
    assert_int_equal(raw_ask(&a, &session, WF_OP_SESSION_OPEN, sizeof session), WEFT_OK);
    uint64_t id = a.answer.session.session;

    /* Sessions. */
    struct wf_session_close bye = {.session = id};
    struct wf_session_hint hint = {.session = id, .state = WEFT_DECODING};
    session.fork_of = id;
    for (int i = 0; i < 2; i++) {
        struct raw *other = i ? &c : &b;
        session.format = i ? foreign : format;
        assert_int_equal(raw_ask(other, &bye, WF_OP_SESSION_CLOSE, sizeof bye), WEFT_E_NOT_FOUND);
        assert_int_equal(raw_ask(other, &hint, WF_OP_SESSION_HINT, sizeof hint), WEFT_E_NOT_FOUND);
        assert_int_equal(raw_ask(other, &session, WF_OP_SESSION_OPEN, sizeof session),
                         WEFT_E_NOT_FOUND);
    }

    /* Reserved slots: commit, abort, and as a parent. */
    assert_int_equal(raw_reserve(&a, format, 1, 1), WEFT_OK);
    struct wf_reserved mine = a.answer.reserve.blocks[0];
    assert_int_equal(mine.status, WEFT_OK);
    union raw_commit commit = {.head = {.count = 1}};
    commit.head.blocks[0] = (struct wf_commit_block){.slot = mine.slot,
                                                     .generation = mine.generation};
    union raw_reserve child = {.head = {.format = format,
                                        .count = 1,
                                        .parent_kind = WF_PARENT_SLOT,
                                        .parent_slot = mine.slot,
                                        .parent_generation = mine.generation}};
    assert_int_equal(raw_ask(&b, &child, WF_OP_RESERVE, sizeof child), WEFT_E_PARENT);
    for (int i = 0; i < 2; i++) {
        struct raw *other = i ? &c : &b;
        assert_int_equal(raw_ask(other, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)), WEFT_OK);
        assert_int_equal(other->answer.commit.status[0], WEFT_E_INVALID);
        assert_int_equal(raw_ask(other, &commit, WF_OP_ABORT, RAW_COMMIT_BYTES(1)), WEFT_OK);
    }
    assert_int_equal(weftd_number(s->good, "default", "blocks_reserved"), 1);
    commit.head.blocks[0].generation++;
    assert_int_equal(raw_ask(&a, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)), WEFT_OK);
    assert_int_equal(a.answer.commit.status[0], WEFT_E_INVALID);
    commit.head.blocks[0].generation--;
    assert_int_equal(raw_ask(&a, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)), WEFT_OK);
    assert_int_equal(a.answer.commit.status[0], WEFT_OK);
    assert_int_equal(raw_ask(&a, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)),
                     WEFT_OK); /* once only */
    assert_int_equal(a.answer.commit.status[0], WEFT_E_INVALID);

    regions_of_others(&a, &b, &c);
    raw_close(&a);
    raw_close(&b);
    raw_close(&c);
}

/* -------------------------------------------------------------------------------------- floods */

static void test_flood_without_reading(void **state)
{
    struct stage *s = *state;
    struct raw raw;
    struct wf_query query = {.message = {.magic = WF_CONTROL_MAGIC,
                                         .op = WF_OP_QUERY,
                                         .version = WF_CONTROL_VERSION,
                                         .bytes = sizeof query},
                             .what = "status"};
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    int sent = 0;
    while (sent < 200000 && raw_send(&raw, &query, sizeof query))
        sent++;
    assert_true(sent < 200000); /* cut off */
    served(s);
    raw_close(&raw);
}

static void test_descriptors_unasked(void **state)
{
    struct stage *s = *state;
    for (size_t count = 1; count <= 8; count++) {
        struct raw raw;
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int) * 8)];
        } control = {.bytes = {0}};
        struct wf_query query = {.message = {.magic = WF_CONTROL_MAGIC,
                                             .op = WF_OP_QUERY,
                                             .version = WF_CONTROL_VERSION,
                                             .bytes = sizeof query},
                                 .what = "status"};
        struct iovec part = {.iov_base = &query, .iov_len = sizeof query};
        struct msghdr header = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = control.bytes,
                                .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * count);
        assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
        for (size_t i = 0; i < count; i++)
            memcpy(CMSG_DATA(rights) + i * sizeof(int), &raw.fd, sizeof(int));
        assert_int_equal(sendmsg(raw.fd, &header, MSG_NOSIGNAL), sizeof query);
        assert_true(raw_receive(&raw));
        assert_int_equal(raw.answer.head.status, WEFT_E_PROTOCOL);
        raw_close(&raw);
    }
}

static void test_connect_flood(void **state)
{
    struct stage *s = *state;
    static struct raw raw[CLIENTS_MAX + 20];
    uint32_t in = 0;
    for (uint32_t i = 0; i < CLIENTS_MAX + 20; i++) {
        int32_t status = raw_hello(&raw[i], &s->node, "default");
        in += status == WEFT_OK;
        assert_true(status == WEFT_OK || status == WEFT_E_LIMIT || status == INT32_MIN);
    }
    assert_int_equal(in, CLIENTS_MAX - 1);
    served(s);
    struct weft *beyond;
    struct weft_connect_options options = {.socket = s->node.socket, .domain = "default"};
    assert_int_equal(weft_connect(&options, &beyond), WEFT_E_LIMIT); /* and says so */
    assert_non_null(strstr(weft_last_error(), "limits.clients"));
    for (uint32_t i = 0; i < CLIENTS_MAX + 20; i++)
        raw_close(&raw[i]);
    assert_true(weftd_settles(s->good, NULL, "clients", 1));
    struct weft *again = weftd_connect(&s->node, "default");
    assert_non_null(again);
    weft_close(again);
}

static uint64_t cpu_ticks_of(const struct weftd *node)
{
    char path[64], text[1024];
    unsigned long long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)node->pid);
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[got] = '\0';
    const char *after_name = strrchr(text, ')');
    assert_non_null(after_name);
    assert_int_equal(sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                            &user, &kernel),
                     2);
    return user + kernel;
}

/* No descriptor left for one more connection: those who knock are turned away, and the node neither
 * spins nor stops serving. */
static void test_out_of_descriptors(void **state)
{
    struct stage *s = *state;
    struct weftd small;
    static struct raw raw[64];
    weftd_prepare(&small);
    small.open_files = 48;
    assert_true(weftd_start(&small, settings, NULL));
    struct weft *w = weftd_connect(&small, "default");
    assert_non_null(w);
    size_t count = 0;
    while (count < 30 && raw_hello(&raw[count], &small, "default") == WEFT_OK)
        count++;
    for (size_t i = count + 1; i < count + 20; i++)
        assert_true(raw_connect(&raw[i], &small));
    weftd_sleep_ms(50);
    uint64_t ticks = cpu_ticks_of(&small);
    weftd_sleep_ms(1000);
    ticks = cpu_ticks_of(&small) - ticks;
    if (ticks > (uint64_t)sysconf(_SC_CLK_TCK) / 4)
        fail_msg("%llu ticks in a second without work", (unsigned long long)ticks);
    assert_int_equal(weftd_number(w, "default", "blocks"), 0);
    for (size_t i = 0; i < count + 20; i++)
        raw_close(&raw[i]);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    struct weft *again = weftd_connect(&small, "default");
    assert_non_null(again);
    weft_close(again);
    weft_close(w);
    assert_true(weftd_stop(&small));
    weftd_clean(&small);
    served(s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_every_op_at_every_length),
        TEST(test_broken_headers),
        TEST(test_before_hello_and_twice),
        TEST(test_refused_hellos_leak_nothing),
        TEST(test_counts),
        TEST(test_strings),
        TEST(test_formats),
        TEST(test_lists_fit_a_message),
        TEST(test_random_bodies),
        TEST(test_handles_of_others),
        TEST(test_flood_without_reading),
        TEST(test_descriptors_unasked),
        TEST(test_connect_flood),
        TEST(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
