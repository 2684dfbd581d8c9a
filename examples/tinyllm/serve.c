/* SPDX-License-Identifier: Apache-2.0
 *
 * One turn, as an engine lives it:
 *
 *   match, get      what of the history is there: read in place from now on
 *   reserve         slots of the pool for the full blocks that are not: computed straight into them
 *   forward         everything after the hit; the last token's logits are the first token's time
 *   commit, get     the slots become everybody's, and we hold them as any reader does
 *   decode          token by token, into private memory, since a block's key needs all of its
 * tokens reserve, copy,  the blocks that decoding filled commit
 *
 * Between commit and the get that follows it, the node may evict what we just gave, or be gone.  A
 * block that cannot be pinned again is computed again, into private memory.
 */
#include "serve.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "llama/say.h"
#include "llama/tokenizer.h"

/* What a turn holds of Weft. */
struct hold {
    struct weft_pins prefix;    /* what was there */
    struct weft_fill fill;      /* what we compute for all */
    struct weft_pins published; /* what we have given, held again */
    bool has_prefix, has_fill, has_published;
};

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* True when Weft did its part.  Otherwise remember why; the engine does without. */
static bool served(struct server *server, enum weft_status status)
{
    if (status == WEFT_OK)
        return true;
    if (status < 0) {
        server->trouble_count++;
        snprintf(server->trouble, sizeof(server->trouble), "%s", weft_last_error());
    }
    return false;
}

/* ----------------------------------------------------------------------------- server and chat */

bool server_open(const struct wf_model *model, uint32_t block_tokens, unsigned threads,
                 struct server *out)
{
    struct server server = {.model = model};
    if (!wf_kv_init(&server.kv, model, block_tokens))
        return false;
    server.engine = wf_engine_create(model, threads);
    server.logits = malloc(model->shape.vocab * sizeof(float));
    if (server.engine && server.logits) {
        *out = server;
        return true;
    }
    server_close(&server);
    return wf_say_failed("no memory for an engine of dim %u and context %u", model->shape.dim,
                         model->shape.context);
}

bool server_attach(struct server *server, const struct weft_connect_options *options)
{
    const struct wf_model *m = server->model;
    if (weft_connect(options, &server->weft) != WEFT_OK)
        return wf_say_failed("%s", weft_last_error());

    /* The name says whose arithmetic it is, since other engines round differently. */
    char name[64];
    snprintf(name, sizeof(name), "tinyllm-1@%s", m->digest);
    struct weft_format_spec spec = {
        .model = name,
        .layers = m->shape.layers,
        .kv_heads = m->shape.kv_heads,
        .head_dim = m->head_dim,
        .dtype = WEFT_F32,
        .block_tokens = server->kv.block_tokens,
        .rope_theta = WF_MODEL_ROPE_THETA,
    };
    if (weft_format_open(server->weft, &spec, &server->format) == WEFT_OK)
        return true;
    wf_say_keep("%s", weft_last_error());
    weft_close(server->weft);
    server->weft = NULL;
    return false;
}

void server_close(struct server *server)
{
    if (server->format)
        weft_format_close(server->format);
    weft_close(server->weft);
    wf_engine_destroy(server->engine);
    wf_kv_fini(&server->kv);
    free(server->logits);
    *server = (struct server){0};
}

/* A chat that has no session yet, or lost it with its node, gets one when that is possible. */
static void session_need(struct chat *chat)
{
    struct server *server = chat->server;
    if (!server->weft || chat->session)
        return;
    struct weft_session_spec spec = {.name = chat->name, .priority = 5};
    struct weft_session *session;
    if (served(server, weft_session_open(server->format, &spec, &session)))
        chat->session = session;
}

static bool chat_make(struct server *server, const char *name, struct chat *out)
{
    *out = (struct chat){.server = server};
    snprintf(out->name, sizeof(out->name), "%s", name);
    out->tokens = malloc(server->model->shape.context * sizeof(*out->tokens));
    return out->tokens ||
           wf_say_failed("no memory for a chat of %u tokens", server->model->shape.context);
}

bool chat_open(struct server *server, const char *name, struct chat *out)
{
    if (!chat_make(server, name, out))
        return false;
    session_need(out);
    return true;
}

bool chat_fork(struct chat *from, const char *name, struct chat *out)
{
    if (!chat_make(from->server, name, out))
        return false;
    memcpy(out->tokens, from->tokens, from->count * sizeof(*from->tokens));
    out->count = from->count;
    struct weft_session_spec spec = {.name = out->name, .priority = 5};
    struct weft_session *session;
    if (from->session && served(from->server, weft_session_fork(from->session, &spec, &session)))
        out->session = session;
    else
        session_need(out);
    return true;
}

void chat_close(struct chat *chat)
{
    if (chat->session)
        weft_session_close(chat->session);
    free(chat->tokens);
    *chat = (struct chat){0};
}

/* ----------------------------------------------------------------- a turn's dealings with Weft */

static void hint(struct chat *chat, enum weft_session_state state)
{
    if (chat->session)
        served(chat->server, weft_session_hint(chat->session, state, NULL));
}

/* Hold the longest prefix of `count` tokens that is there. */
static bool hold_prefix(struct chat *chat, uint32_t count, struct weft_pins *out)
{
    struct weft_match match;
    if (!chat->session ||
        !served(chat->server, weft_match(chat->session, chat->tokens, count, &match)))
        return false;
    if (match.blocks == 0)
        return false;
    if (!served(chat->server, weft_get(chat->session, &match, WEFT_LAYER_ORDER, out)))
        return false;
    for (uint32_t i = 0; chat->server->waits_whole && i < out->blocks; i++)
        if (!served(chat->server, weft_wait_block(out, i))) {
            weft_pins_release(out);
            return false;
        }
    return true;
}

static void hold_release(struct hold *hold)
{
    if (hold->has_fill)
        weft_abort(&hold->fill);
    if (hold->has_published)
        weft_pins_release(&hold->published);
    if (hold->has_prefix)
        weft_pins_release(&hold->prefix);
    *hold = (struct hold){0};
}

/* Find a place for the KV of every token of the history, and say how many need not be computed. */
static bool place(struct chat *chat, struct hold *hold, uint32_t *out_hit)
{
    struct wf_kv *kv = &chat->server->kv;
    uint32_t hit = 0, blocks = (chat->count + kv->block_tokens - 1) / kv->block_tokens;
    wf_kv_reset(kv);
    hold->has_prefix = hold_prefix(chat, chat->count, &hold->prefix);
    if (hold->has_prefix) {
        wf_kv_use_pins(kv, &hold->prefix, 0);
        hit = hold->prefix.tokens;
    }
    if (chat->session && chat->count - hit >= kv->block_tokens)
        hold->has_fill = served(chat->server, weft_reserve(chat->session, chat->tokens, hit,
                                                           chat->count, &hold->fill));
    if (hold->has_fill)
        wf_kv_use_fill(kv, &hold->fill);
    *out_hit = hit;
    return wf_kv_use_private(kv, 0, blocks, false);
}

static bool prefill(struct chat *chat, struct hold *hold, uint32_t *out_hit)
{
    struct server *server = chat->server;
    struct wf_kv *kv = &server->kv;
    if (!place(chat, hold, out_hit))
        return false;
    const struct weft_pins *pins = hold->has_prefix ? &hold->prefix : NULL;
    if (served(server, wf_engine_forward(server->engine, kv, pins, chat->tokens, *out_hit,
                                         chat->count, server->logits)))
        return true;

    /* A layer that was promised never came.  Let go of everything and compute from the first token.
     */
    hold_release(hold);
    wf_kv_reset(kv);
    *out_hit = 0;
    return wf_kv_use_private(kv, 0, (chat->count + kv->block_tokens - 1) / kv->block_tokens,
                             false) &&
           wf_engine_forward(server->engine, kv, NULL, chat->tokens, 0, chat->count,
                             server->logits) == WEFT_OK;
}

/* Hold what we have just given.  Its layers are all there, or we do not believe in it. */
static bool hold_published(struct chat *chat, struct weft_pins *out)
{
    if (!hold_prefix(chat, chat->count, out))
        return false;
    for (uint32_t layer = 0; layer < chat->server->kv.layers; layer++)
        if (!served(chat->server, weft_wait_layer(out, layer))) {
            weft_pins_release(out);
            return false;
        }
    return true;
}

/* Give what was computed into reserved slots to everyone, and go on reading it as everyone does.
 * `computed` is how many tokens have KV; the chat has one more by now, so a match covers every full
 * block of them. */
static bool publish_prefill(struct chat *chat, struct hold *hold, uint32_t computed, bool more)
{
    struct server *server = chat->server;
    struct wf_kv *kv = &server->kv;
    if (!hold->has_fill)
        return true;
    hold->has_fill = false;
    uint32_t first = hold->fill.first_block;
    bool given = served(server, weft_commit(&hold->fill));
    if (!more)
        return true;
    hold->has_published = given && hold_published(chat, &hold->published);
    if (hold->has_published)
        wf_kv_use_pins(kv, &hold->published, first);

    uint32_t lost = first, end = (computed + kv->block_tokens - 1) / kv->block_tokens;
    while (lost < end && kv->home[lost] != WF_KV_RESERVED)
        lost++;
    return lost == end || (wf_kv_use_private(kv, lost, end, true) &&
                           wf_engine_forward(server->engine, kv, NULL, chat->tokens,
                                             lost * kv->block_tokens, computed, NULL) == WEFT_OK);
}

/* Give the blocks that decoding filled.  They lie in private memory and are copied: the only copy
 * there is. */
static void publish_answer(struct chat *chat, struct hold *hold, uint32_t computed)
{
    struct server *server = chat->server;
    uint32_t stored = hold->has_published ? hold->published.tokens
                      : hold->has_prefix  ? hold->prefix.tokens
                                          : 0;
    if (!chat->session || computed < stored + server->kv.block_tokens)
        return;
    struct weft_fill fill;
    if (!served(server, weft_reserve(chat->session, chat->tokens, stored, computed, &fill)))
        return;
    for (uint32_t i = 0; i < fill.blocks; i++)
        if (weft_fill_k(&fill, i, 0))
            wf_kv_copy_out(&server->kv, fill.first_block + i, &fill, i);
    served(server, weft_commit(&fill));
}

/* -------------------------------------------------------------------------------------- a turn */

static bool append(struct chat *chat, const struct turn_request *request)
{
    const struct wf_model_shape *shape = &chat->server->model->shape;
    for (uint32_t i = 0; i < request->prompt_count; i++)
        if (request->prompt[i] >= shape->vocab)
            return wf_say_failed(
                "token %u is not one of the model's %u: use the model's own tokenizer",
                request->prompt[i], shape->vocab);
    if (chat->count + request->prompt_count == 0)
        return wf_say_failed("a turn needs at least one token");
    if (chat->count + (uint64_t)request->prompt_count + request->answer_max > shape->context)
        return wf_say_failed(
            "%u tokens before it, %u in the prompt and %u to answer are more than the "
            "model's context of %u: shorten one of them",
            chat->count, request->prompt_count, request->answer_max, shape->context);
    memcpy(chat->tokens + chat->count, request->prompt, request->prompt_count * sizeof(uint32_t));
    chat->count += request->prompt_count;
    return true;
}

/* Choose the next token from the logits and append it; false ends the turn. */
static bool next_token(struct chat *chat, const struct turn_request *request, uint32_t *answered)
{
    struct server *server = chat->server;
    uint32_t token = request->choose(request->context, server->logits, server->model->shape.vocab);
    bool wanted = !request->listen || request->listen(request->context, token, server->logits);
    if (token == WF_TOKEN_BEGIN || token == WF_TOKEN_END)
        return false;
    chat->tokens[chat->count++] = token;
    *answered += 1;
    return wanted && *answered < request->answer_max;
}

static bool decode(struct chat *chat, const struct turn_request *request, uint32_t *answered)
{
    struct server *server = chat->server;
    struct wf_kv *kv = &server->kv;
    do {
        uint32_t last = chat->count - 1, block = last / kv->block_tokens;
        if (!wf_kv_use_private(kv, block, block + 1, false) ||
            wf_engine_forward(server->engine, kv, NULL, chat->tokens, last, last + 1,
                              server->logits) != WEFT_OK)
            return false;
    } while (next_token(chat, request, answered));
    return true;
}

uint32_t choose_greedy(void *context, const float *logits, uint32_t vocab)
{
    (void)context;
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

bool chat_turn(struct chat *chat, const struct turn_request *request, struct turn_result *out)
{
    struct hold hold = {0};
    struct turn_result result = {0};
    uint64_t start = now_us();
    if (!append(chat, request))
        return false;
    session_need(chat);
    hint(chat, WEFT_PREFILL);

    uint32_t computed = chat->count;
    result.history = computed;
    bool ok = prefill(chat, &hold, &result.hit);
    result.ttft_us = now_us() - start;
    if (ok) {
        hint(chat, WEFT_DECODING);
        bool more = next_token(chat, request, &result.answered);
        ok = publish_prefill(chat, &hold, computed, more);
        if (ok && more) {
            ok = decode(chat, request, &result.answered);
            /* The last token was chosen, not computed: its KV is the next turn's business. */
            if (ok)
                publish_answer(chat, &hold, chat->count - 1);
        }
    }
    hold_release(&hold);
    hint(chat, WEFT_IDLE);
    if (ok)
        *out = result;
    return ok;
}
