/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm's answers do not depend on Weft.  Here Weft is a double, which does what weft.h allows at
 * the worst moment: evicts between any two calls, is full, forgets, loses its node.  What is not
 * held is overwritten with NaN at once, so that a read of memory that is no longer ours shows in
 * the logits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "llama/tokenizer.h"
#include "serve.h"

/* ---------------------------------------------------------------------------------- the double */

#define BLOCKS_MAX 256
#define PREFIX_MAX 256

struct block {
    bool present;
    uint32_t pins, count; /* count: tokens from the first to this block's last, which name it */
    uint32_t tokens[PREFIX_MAX];
    uint8_t *data;
};

struct weft {
    int unused;
};
struct weft_format {
    struct weft_format_spec spec;
    size_t layer_bytes, block_bytes;
};
struct weft_session {
    struct weft_format *format;
    const uint32_t *matched, *reserved; /* the tokens of the last match, of the last reserve */
};

static struct {
    struct weft weft;
    struct weft_format format;
    struct block blocks[BLOCKS_MAX];
    uint64_t random;
    uint32_t trouble_percent; /* how often a call goes wrong */
    uint32_t evict_percent;   /* how often a block goes between two calls */
    uint32_t hits, evictions, troubles;
    int held; /* pins, fills and sessions that were not given back */
} fake;

static bool chance(uint32_t percent)
{
    fake.random = fake.random * 6364136223846793005u + 1442695040888963407u;
    return (fake.random >> 33) % 100 < percent;
}

static void poison(void *data, size_t bytes)
{
    memset(data, 0xff, bytes); /* a NaN in every float */
}

static bool extends(const struct block *block, const struct block *parent)
{
    return block->present && block->count > parent->count &&
           memcmp(block->tokens, parent->tokens, parent->count * sizeof(uint32_t)) == 0;
}

/* Leaf first, never pinned: invariant 2 holds for a double, too. */
static void maybe_evict(void)
{
    for (uint32_t i = 0; i < BLOCKS_MAX; i++) {
        struct block *block = &fake.blocks[i];
        bool leaf = block->present && block->pins == 0;
        for (uint32_t j = 0; j < BLOCKS_MAX && leaf; j++)
            leaf = !extends(&fake.blocks[j], block);
        if (leaf && chance(fake.evict_percent)) {
            poison(block->data, fake.format.block_bytes);
            free(block->data);
            block->present = false;
            fake.evictions++;
        }
    }
}

static enum weft_status maybe_fail(void)
{
    maybe_evict();
    if (!chance(fake.trouble_percent))
        return WEFT_OK;
    fake.troubles++;
    return chance(50) ? WEFT_E_NODE : WEFT_FULL;
}

static struct block *find(const uint32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < BLOCKS_MAX; i++)
        if (fake.blocks[i].present && fake.blocks[i].count == count &&
            memcmp(fake.blocks[i].tokens, tokens, count * sizeof(*tokens)) == 0)
            return &fake.blocks[i];
    return NULL;
}

const char *weft_last_error(void)
{
    return "the double was told to fail";
}

enum weft_status weft_connect(const struct weft_connect_options *options, struct weft **out)
{
    (void)options;
    *out = &fake.weft;
    return WEFT_OK;
}

void weft_close(struct weft *w)
{
    (void)w;
}

enum weft_status weft_format_open(struct weft *w, const struct weft_format_spec *spec,
                                  struct weft_format **out)
{
    (void)w;
    fake.format.spec = *spec;
    fake.format.layer_bytes = (size_t)spec->block_tokens * spec->kv_heads * spec->head_dim *
                              sizeof(float);
    fake.format.block_bytes = 2 * spec->layers * fake.format.layer_bytes;
    *out = &fake.format;
    return WEFT_OK;
}

void weft_format_close(struct weft_format *f)
{
    (void)f;
}

enum weft_status weft_session_open(struct weft_format *f, const struct weft_session_spec *spec,
                                   struct weft_session **out)
{
    (void)spec;
    enum weft_status status = maybe_fail();
    if (status != WEFT_OK)
        return status;
    *out = calloc(1, sizeof(**out));
    (*out)->format = f;
    fake.held++;
    return WEFT_OK;
}

enum weft_status weft_session_fork(struct weft_session *s, const struct weft_session_spec *spec,
                                   struct weft_session **out)
{
    return weft_session_open(s->format, spec, out);
}

void weft_session_close(struct weft_session *s)
{
    free(s);
    fake.held--;
}

enum weft_status weft_session_hint(struct weft_session *s, enum weft_session_state state,
                                   const struct weft_hint *hint)
{
    (void)s, (void)state, (void)hint;
    return maybe_fail();
}

enum weft_status weft_match(struct weft_session *s, const uint32_t *tokens, size_t token_count,
                            struct weft_match *out)
{
    enum weft_status status = maybe_fail();
    uint32_t size = s->format->spec.block_tokens, blocks = 0;
    if (status != WEFT_OK)
        return status;
    while ((blocks + 1) * size < token_count && find(tokens, (blocks + 1) * size))
        blocks++;
    *out = (struct weft_match){.blocks = blocks, .tokens = blocks * size};
    s->matched = tokens;
    return WEFT_OK;
}

enum weft_status weft_get(struct weft_session *s, const struct weft_match *m, enum weft_order order,
                          struct weft_pins *out)
{
    enum weft_status status = maybe_fail();
    (void)order;
    if (status != WEFT_OK)
        return status;
    uint32_t size = s->format->spec.block_tokens;
    *out = (struct weft_pins){.layer_bytes = s->format->layer_bytes, .format = s->format};
    out->data = calloc(m->blocks + 1, sizeof(*out->data));
    for (; out->blocks < m->blocks; out->blocks++) {
        struct block *block = find(s->matched, (out->blocks + 1) * size);
        if (!block) /* it went in between */
            break;
        block->pins++;
        out->data[out->blocks] = block->data;
    }
    out->tokens = out->blocks * size;
    fake.hits += out->blocks;
    fake.held++;
    return WEFT_OK;
}

enum weft_status weft_wait_layer(const struct weft_pins *pins, uint32_t layer)
{
    (void)pins, (void)layer;
    return maybe_fail();
}

enum weft_status weft_wait_block(const struct weft_pins *pins, uint32_t block)
{
    (void)pins, (void)block;
    return maybe_fail();
}

void weft_pins_release(struct weft_pins *pins)
{
    for (uint32_t i = 0; i < pins->blocks; i++)
        for (uint32_t j = 0; j < BLOCKS_MAX; j++)
            if (fake.blocks[j].present && fake.blocks[j].data == pins->data[i])
                fake.blocks[j].pins--;
    free(pins->data);
    fake.held--;
    *pins = (struct weft_pins){0};
}

static void fill_end(struct weft_fill *fill)
{
    for (uint32_t i = 0; i < fill->blocks; i++)
        if (fill->slots[i].data) {
            poison(fill->slots[i].data, fake.format.block_bytes);
            free(fill->slots[i].data);
        }
    free(fill->slots);
    fake.held--;
    *fill = (struct weft_fill){0};
}

enum weft_status weft_reserve(struct weft_session *s, const uint32_t *tokens, size_t from_token,
                              size_t token_count, struct weft_fill *out)
{
    enum weft_status status = maybe_fail();
    uint32_t size = s->format->spec.block_tokens;
    if (status != WEFT_OK)
        return status;
    assert_int_equal(from_token % size, 0);
    assert_true(token_count >= from_token);
    uint32_t blocks = (uint32_t)(token_count / size - from_token / size);
    *out = (struct weft_fill){.blocks = blocks,
                              .first_block = (uint32_t)from_token / size,
                              .layer_bytes = s->format->layer_bytes,
                              .session = s};
    out->slots = calloc(blocks + 1, sizeof(*out->slots));
    bool full = false;
    for (uint32_t i = 0; i < blocks; i++) {
        struct weft_slot *slot = &out->slots[i];
        full = full || chance(fake.trouble_percent);
        slot->status = find(tokens, (out->first_block + i + 1) * size) ? WEFT_EXISTS
                       : full                                          ? WEFT_FULL
                                                                       : WEFT_OK;
        if (slot->status == WEFT_OK) {
            slot->data = malloc(s->format->block_bytes);
            poison(slot->data, s->format->block_bytes);
        }
    }
    s->reserved = tokens;
    fake.held++;
    return WEFT_OK;
}

void weft_abort(struct weft_fill *fill)
{
    fill_end(fill);
}

enum weft_status weft_commit(struct weft_fill *fill)
{
    enum weft_status status = maybe_fail();
    uint32_t size = fill->session->format->spec.block_tokens;
    for (uint32_t i = 0; i < fill->blocks && status == WEFT_OK; i++) {
        const uint32_t *tokens = fill->session->reserved;
        uint32_t count = (fill->first_block + i + 1) * size, free_at = 0;
        bool parent = count == size || find(tokens, count - size);
        while (free_at < BLOCKS_MAX && fake.blocks[free_at].present)
            free_at++;
        if (fill->slots[i].status != WEFT_OK || !parent || free_at == BLOCKS_MAX ||
            find(tokens, count))
            continue;
        struct block *block = &fake.blocks[free_at];
        *block = (struct block){.present = true, .count = count};
        memcpy(block->tokens, tokens, count * sizeof(*tokens));
        block->data = malloc(fake.format.block_bytes); /* a slot's address is not a reader's */
        memcpy(block->data, fill->slots[i].data, fake.format.block_bytes);
    }
    fill_end(fill);
    maybe_evict();
    return status;
}

/* --------------------------------------------------------------------------------------- tests */

#define CHATS 3
#define TURNS 5
#define ANSWER 9

static const struct wf_model_shape shape = {
    .dim = 32,
    .hidden_dim = 48,
    .layers = 3,
    .heads = 4,
    .kv_heads = 2,
    .vocab = 300,
    .context = 192,
};

/* Every row of logits of every turn of every chat, and of a fork. */
struct transcript {
    float rows[(CHATS + 1) * TURNS][ANSWER][300];
    uint32_t turn, row;
};

static bool listen(void *context, uint32_t token, const float *logits)
{
    struct transcript *transcript = context;
    (void)token;
    assert_true(transcript->row < ANSWER);
    memcpy(transcript->rows[transcript->turn][transcript->row++], logits,
           shape.vocab * sizeof(float));
    return true;
}

static void take_turn(struct chat *chat, uint32_t who, uint32_t turn, struct transcript *transcript)
{
    uint32_t prompt[24], count = 0;
    if (turn == 0)
        while (count < 19)
            prompt[count] = 3 + count * 7, count++;
    for (uint32_t i = 0; i < 5; i++)
        prompt[count++] = 3 + who * 50 + turn * 7 + i;
    struct turn_result result;
    struct turn_request request = {prompt,        count,  1 + (who + turn) % ANSWER,
                                   choose_greedy, listen, transcript};
    transcript->row = 0;
    assert_true(chat_turn(chat, &request, &result));
    transcript->turn++;
}

static void converse(struct server *server, struct transcript *transcript)
{
    struct chat chats[CHATS + 1];
    for (uint32_t who = 0; who < CHATS; who++)
        assert_true(chat_open(server, "chat", &chats[who]));
    for (uint32_t turn = 0; turn < TURNS - 1; turn++)
        for (uint32_t who = 0; who < CHATS; who++)
            take_turn(&chats[who], who, turn, transcript);
    assert_true(chat_fork(&chats[0], "fork", &chats[CHATS]));
    for (uint32_t who = 0; who <= CHATS; who++)
        take_turn(&chats[who], who, TURNS - 1, transcript);
    for (uint32_t who = 0; who <= CHATS; who++)
        chat_close(&chats[who]);
}

static struct wf_model model;
static struct transcript expected;

static int make_model(void **state)
{
    struct server server;
    (void)state;
    if (!wf_model_random(&shape, 7, &model) || !server_open(&model, 8, 1, &server))
        return -1;
    converse(&server, &expected);
    server_close(&server);
    return 0;
}

static int free_model(void **state)
{
    (void)state;
    wf_model_free(&model);
    return 0;
}

/* The bits, not the numbers: -0 is not 0 here, and a NaN is itself. */
static bool same_bits(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

static void converse_with(uint64_t seed, uint32_t trouble_percent, uint32_t evict_percent)
{
    static struct transcript got;
    struct server server;
    memset(&got, 0, sizeof(got));
    memset(&fake, 0, sizeof(fake));
    fake.random = seed;
    fake.trouble_percent = trouble_percent;
    fake.evict_percent = evict_percent;
    assert_true(server_open(&model, 8, 1, &server));
    assert_true(server_attach(&server, NULL));
    converse(&server, &got);
    server_close(&server);
    if (!same_bits(&got, &expected, sizeof(got)))
        fail_msg("seed %llu, trouble %u %%, eviction %u %%: logits differ from those without Weft",
                 (unsigned long long)seed, trouble_percent, evict_percent);
    assert_int_equal(fake.held, 0);
    for (uint32_t i = 0; i < BLOCKS_MAX; i++)
        if (fake.blocks[i].present) {
            assert_int_equal(fake.blocks[i].pins, 0);
            free(fake.blocks[i].data);
        }
}

static void a_good_store_changes_nothing(void **state)
{
    (void)state;
    converse_with(1, 0, 0);
    assert_true(fake.hits >
                100); /* the shared prompt, the turns before and the fork were all found */
    assert_int_equal(fake.troubles, 0);
}

static void eviction_at_any_moment_changes_nothing(void **state)
{
    (void)state;
    uint32_t evictions = 0, hits = 0;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        converse_with(seed, 0, seed % 2 ? 3 : 40);
        evictions += fake.evictions;
        hits += fake.hits;
    }
    assert_true(evictions > 100 && hits > 100);
}

static void failing_calls_change_nothing(void **state)
{
    (void)state;
    uint32_t troubles = 0, hits = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        converse_with(seed, seed % 3 ? 5 : 40, seed % 2 ? 0 : 5);
        troubles += fake.troubles;
        hits += fake.hits;
    }
    converse_with(61, 100, 0);
    assert_true(troubles > 100 && hits > 100);
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct server server;
    struct chat chat;
    struct turn_result result;
    uint32_t bad = shape.vocab, good = 5;
    struct turn_request request = {&bad, 1, 1, choose_greedy, NULL, NULL};
    assert_true(server_open(&model, 8, 1, &server));
    assert_true(chat_open(&server, "chat", &chat));
    assert_false(chat_turn(&chat, &request, &result)); /* no such token */
    request.prompt = &good;
    request.answer_max = shape.context;
    assert_false(chat_turn(&chat, &request, &result)); /* longer than the context */
    request.answer_max = shape.context - 1;
    assert_true(chat_turn(&chat, &request, &result));
    assert_int_equal(result.answered, shape.context - 1);
    assert_int_equal(chat.count, shape.context);
    chat_close(&chat);
    server_close(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_store_changes_nothing),
        cmocka_unit_test(eviction_at_any_moment_changes_nothing),
        cmocka_unit_test(failing_calls_change_nothing),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
