/* SPDX-License-Identifier: Apache-2.0
 *
 * What a real weftd makes of what an engine says of its HBM: it is listed, a key's engines are
 * found, and blocks that somebody gave keys without tokens are told of with the engine's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include <cmocka.h>

#include "../support/kvpublisher.h"
#include "../support/weftd.h"

#define BLOCK_TOKENS 4
#define BLOCK_BYTES 4096
#define BLOCKS 3
#define MODEL "vllm-block:maker/tiny@f00d"

static struct weftd node;
static void *context;
static struct kvpublisher engine;

/* ------------------------------------------------------------------------------------- support */

static json_t *ask(struct weft *w, const char *question)
{
    char *text = NULL;
    assert_int_equal(weft_query(w, question, 0, &text), WEFT_OK);
    json_t *answer = json_loads(text, 0, NULL);
    assert_non_null(answer);
    weft_text_free(text);
    return answer;
}

static json_int_t figure(struct weft *w, const char *name)
{
    kvpublisher_serve(&engine);
    json_t *answer = ask(w, "engines"),
           *row = json_array_get(json_object_get(answer, "engines"), 0);
    assert_non_null(row);
    json_int_t value = json_integer_value(json_object_get(row, name));
    json_decref(answer);
    return value;
}

static bool is_live(struct weft *w)
{
    kvpublisher_serve(&engine);
    json_t *answer = ask(w, "engines"),
           *row = json_array_get(json_object_get(answer, "engines"), 0);
    bool live = strcmp(json_string_value(json_object_get(row, "state")), "live") == 0;
    json_decref(answer);
    return live;
}

#define UNTIL(condition)                             \
    do {                                             \
        for (int waits = 0; !(condition); waits++) { \
            if (waits == 1000)                       \
                fail_msg("not so: %s", #condition);  \
            weftd_sleep_ms(10);                      \
        }                                            \
    } while (0)

struct prompt {
    uint32_t tokens[BLOCKS * BLOCK_TOKENS];
    struct weft_key keys[BLOCKS];
    uint8_t hashes[BLOCKS][32];
};

static struct weft_format *format_open(struct weft *w)
{
    const struct weft_format_spec spec = {.model = MODEL,
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

static struct prompt prompt_make(struct weft_format *f, uint32_t seed)
{
    struct prompt p;
    for (uint32_t i = 0; i < BLOCKS * BLOCK_TOKENS; i++)
        p.tokens[i] = seed * 100 + i;
    for (uint32_t i = 0; i < BLOCKS; i++)
        memset(p.hashes[i], (int)(seed * 16 + i), 32);
    assert_int_equal(weft_keys_from_tokens(f, NULL, p.tokens, BLOCKS * BLOCK_TOKENS, NULL, p.keys),
                     WEFT_OK);
    return p;
}

static void put(struct weft_format *f, const struct prompt *p)
{
    struct weft_slot slots[BLOCKS];
    assert_int_equal(weft_reserve_keys(f, NULL, p->keys, BLOCKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (slots[i].status == WEFT_OK)
            memset(slots[i].data, 1, BLOCK_BYTES);
    assert_int_equal(weft_commit_slots(f, slots, BLOCKS), WEFT_OK);
}

static void describe(struct weft_format *f, const struct prompt *p, bool bare)
{
    size_t taken = 0;
    const struct weft_description what = {.hashes = p->hashes,
                                          .hash_bytes = 32,
                                          .tokens = bare ? NULL : p->tokens};
    assert_int_equal(weft_describe(f, p->keys, BLOCKS, &what, &taken), WEFT_OK);
    assert_int_equal(taken, BLOCKS);
}

/* The engine says it of the prompt's blocks, as one event. */
static void say(enum wf_kv_kind kind, enum wf_kv_medium medium, const struct prompt *p)
{
    struct wf_kv_said said[BLOCKS];
    for (uint32_t i = 0; i < BLOCKS; i++) {
        const struct wf_kv_meaning meaning = {.hash = p->hashes[i],
                                              .hash_bytes = 32,
                                              .parent = i ? p->hashes[i - 1] : NULL,
                                              .parent_bytes = i ? 32 : 0,
                                              .tokens = p->tokens + i * BLOCK_TOKENS,
                                              .token_count = BLOCK_TOKENS};
        said[i] = (struct wf_kv_said){kind, medium, wf_kv_block_create(&meaning)};
    }
    kvpublisher_say(&engine, said, BLOCKS, false);
    for (uint32_t i = 0; i < BLOCKS; i++)
        wf_kv_block_put(said[i].block);
}

/* "GPU,CPU" of the first engine that has it; "": none. */
static const char *where(struct weft *w, const struct weft_key *key)
{
    static char text[64];
    char question[96] = "engines key=";
    for (int i = 0; i < 32; i++)
        snprintf(question + strlen(question), 3, "%02x", key->bytes[i]);
    json_t *answer = ask(w, question), *row = json_array_get(json_object_get(answer, "engines"), 0),
           *medium;
    size_t index;
    text[0] = '\0';
    if (row)
        assert_string_equal(json_string_value(json_object_get(row, "engine")), "vllm0");
    json_array_foreach (json_object_get(row, "media"), index, medium)
        snprintf(text + strlen(text), 16, "%s%s", index ? "," : "", json_string_value(medium));
    json_decref(answer);
    return text;
}

static struct weft *begin(const char *model, bool out)
{
    char endpoint[160], replay[160], said[80];
    kvpublisher_open(&engine, context, NULL, NULL);
    engine.style.numbers = true; /* as vLLM does by default */
    snprintf(endpoint, sizeof endpoint, "kv_events.engine.vllm0.endpoint=%s", engine.endpoint);
    snprintf(replay, sizeof replay, "kv_events.engine.vllm0.replay=%s", engine.replay);
    snprintf(said, sizeof said, "kv_events.engine.vllm0.model=%s", model);
    const char *const settings[] = {"pool.size=16MB",
                                    "kv_events.engines=vllm0",
                                    endpoint,
                                    replay,
                                    said,
                                    out ? "kv_events.listen=127.0.0.1:0" : NULL,
                                    NULL};
    weftd_prepare(&node);
    assert_true(weftd_start(&node, settings, NULL));
    assert_true(kvpublisher_subscribed(&engine));
    struct weft *w = weftd_connect(&node, "default");
    UNTIL(is_live(w));
    return w;
}

static void end(struct weft *w)
{
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
    kvpublisher_close(&engine);
}

/* --------------------------------------------------------------------------------------- tests */

/* A node that tells nobody hears all the same. */
static void finds_the_engine_of_a_key(void **state)
{
    (void)state;
    struct weft *w = begin("maker/tiny", false);
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 1), other = prompt_make(f, 2);
    say(WF_KV_STORED, WF_KV_GPU, &p);
    UNTIL(figure(w, "hbm_blocks") == BLOCKS);
    assert_string_equal(where(w, &p.keys[0]), ""); /* nobody said which key that is */
    describe(f, &p, true);
    describe(f, &other, false);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_string_equal(where(w, &p.keys[i]), "GPU");
        assert_string_equal(where(w, &other.keys[i]), "");
    }
    say(WF_KV_STORED, WF_KV_CPU, &p);
    UNTIL(figure(w, "batches") == 2);
    assert_string_equal(where(w, &p.keys[1]), "GPU,CPU");
    say(WF_KV_REMOVED, WF_KV_GPU, &p);
    UNTIL(figure(w, "batches") == 3);
    assert_string_equal(where(w, &p.keys[1]), "CPU");
    char *text = NULL;
    assert_true(weft_query(w, "engines key=12", 0, &text) < 0);
    weft_format_close(f);
    end(w);
}

/* A hash says nothing of the model: another's blocks are not taken for ours. */
static void keeps_models_apart(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        bool ours;
    } models[] = {{MODEL, true},    {"maker/tiny", true},        {"vllm-block:maker/tiny", true},
                  {"tiny", false},  {"maker/tiny@f00d", false},  {"maker/tin", false},
                  {"maker", false}, {"vllm-block:maker", false}, {"", false},
                  {"other", false}};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        struct weft *w = begin(models[i].model, false);
        struct weft_format *f = format_open(w);
        struct prompt p = prompt_make(f, 1);
        say(WF_KV_STORED, WF_KV_GPU, &p);
        UNTIL(figure(w, "hbm_blocks") == BLOCKS);
        describe(f, &p, false);
        assert_string_equal(where(w, &p.keys[0]), models[i].ours ? "GPU" : "");
        weft_format_close(f);
        end(w);
    }
}

static uint32_t told;
static uint64_t told_tokens;

static void hear(void *unused, const struct wf_kv_heard *event)
{
    (void)unused;
    if (event->kind != WF_KV_STORED)
        return;
    told++;
    for (size_t i = 0; i < event->meaning.token_count; i++)
        told_tokens += event->meaning.tokens[i];
}

/* Described bare, put, and made whole by what the engine says, before and after. */
static void engines_fill_descriptions(void **state)
{
    (void)state;
    struct weft *w = begin("maker/tiny", true);
    struct weft_format *f = format_open(w);
    char endpoint[64];
    int wait = 20000, none = 0;
    void *router = zmq_socket(context, ZMQ_SUB);
    zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait, sizeof wait);
    zmq_setsockopt(router, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(router, ZMQ_SUBSCRIBE, "", 0);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d",
             (int)weftd_number(w, NULL, "kv_events.port"));
    assert_int_equal(zmq_connect(router, endpoint), 0);
    assert_true(weftd_settles(w, NULL, "kv_events.subscriptions", 1));
    struct prompt first = prompt_make(f, 1), second = prompt_make(f, 2), odd = prompt_make(f, 3);
    describe(f, &first, true);
    put(f, &first);
    assert_int_equal(weftd_number(w, NULL, "kv_events.held"), BLOCKS);
    say(WF_KV_STORED, WF_KV_GPU, &first);
    assert_true(weftd_settles(w, NULL, "kv_events.filled", BLOCKS));
    say(WF_KV_STORED, WF_KV_GPU, &second);
    UNTIL(figure(w, "hbm_blocks") == 2 * BLOCKS);
    describe(f, &second, true);
    put(f, &second);
    assert_int_equal(weftd_number(w, NULL, "kv_events.held"), 0);
    assert_int_equal(weftd_number(w, NULL, "kv_events.filled"), 2 * BLOCKS);
    /* An engine that says another parent than who described is not believed. */
    struct prompt lie = odd;
    memset(lie.hashes[0], 0x77, 32);
    describe(f, &odd, true);
    put(f, &odd);
    say(WF_KV_STORED, WF_KV_GPU, &lie);
    UNTIL(figure(w, "hbm_blocks") == 3 * BLOCKS);
    assert_true(weftd_settles(w, NULL, "kv_events.filled", 2 * BLOCKS + 1)); /* its third only */
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < BLOCKS * BLOCK_TOKENS; i++)
        tokens += first.tokens[i] + second.tokens[i] +
                  (i >= (BLOCKS - 1) * BLOCK_TOKENS ? odd.tokens[i] : 0);
    while (told < 2 * BLOCKS + 1) {
        uint8_t frame[65536];
        assert_true(zmq_recv(router, frame, sizeof frame, 0) >= 0);
        assert_int_equal(zmq_recv(router, frame, sizeof frame, 0), 8);
        int bytes = zmq_recv(router, frame, sizeof frame, 0);
        assert_true(bytes > 0);
        assert_int_equal(wf_kv_decode(frame, (size_t)bytes, hear, NULL), WEFT_OK);
    }
    assert_int_equal(told, 2 * BLOCKS + 1);
    assert_true(told_tokens == tokens);
    zmq_close(router);
    weft_format_close(f);
    end(w);
}

/* What became of it can be read afterwards. */
static void tells_of_engines(void **state)
{
    (void)state;
    struct weft *w = begin("maker/tiny", false);
    struct weft_format *f = format_open(w);
    struct prompt p = prompt_make(f, 1);
    assert_true(weftd_told(w, "engine 'vllm0' is heard", 10000));
    say(WF_KV_STORED, WF_KV_GPU, &p);
    UNTIL(figure(w, "hbm_blocks") == BLOCKS);
    engine.number += 3;
    engine.kept_from = engine.number;
    say(WF_KV_STORED, WF_KV_GPU, &p);
    UNTIL(figure(w, "forgotten") == 1 && figure(w, "missed") == 3);
    assert_true(weftd_told(w, "engine 'vllm0': what it held was in doubt", 10000));
    void *pub = engine.pub;
    engine.pub = NULL;
    zmq_close(pub);
    assert_true(weftd_told(w, "engine 'vllm0' is away", 10000));
    assert_int_equal(figure(w, "blocks"), 0);
    engine.pub = zmq_socket(context, ZMQ_XPUB);
    weft_format_close(f);
    end(w);
}

static int all_start(void **state)
{
    (void)state;
    context = zmq_ctx_new();
    return context ? 0 : -1;
}

static int all_stop(void **state)
{
    (void)state;
    zmq_ctx_term(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_engine_of_a_key),
        cmocka_unit_test(keeps_models_apart),
        cmocka_unit_test(engines_fill_descriptions),
        cmocka_unit_test(tells_of_engines),
    };
    return cmocka_run_group_tests(tests, all_start, all_stop);
}
