/* SPDX-License-Identifier: Apache-2.0
 *
 * Many conversations on one engine, their KV kept in Weft.
 *
 * A chat is its tokens.  Between turns it holds no KV at all: at the next turn it asks Weft how
 * much of its history is still there, reads that in place, and computes the rest.  A shared system
 * prompt, an earlier turn and a fork's common part are found that way without anyone having planned
 * it.
 *
 * Weft is never needed for an answer.  Whatever it says (no room, no node, an error, half a
 * prefix), what is not there is computed, and the answer is the same to the last bit.
 */
#ifndef TINYLLM_SERVE_H
#define TINYLLM_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "llama/engine.h"
#include "weft/weft.h"

struct server {
    const struct wf_model *model;
    struct wf_engine *engine;
    struct wf_kv kv; /* of the chat that is being served */
    float *logits;

    struct weft *weft; /* NULL: without Weft */
    struct weft_format *format;
    bool waits_whole; /* for comparison: a prefix from below is waited for before any is used */
    uint64_t trouble_count; /* calls to Weft that failed, and were done without */
    char trouble[512];      /* what the last of them said */
};

/* A server that computes everything.  `threads` 0: as many as suit this machine. */
bool server_open(const struct wf_model *model, uint32_t block_tokens, unsigned threads,
                 struct server *out);

/* From now on, use Weft; `options` as weft_connect() takes them.  Not reaching the node is a
 * failure here, for the caller to decide on; later it never is. */
bool server_attach(struct server *server, const struct weft_connect_options *options);
void server_close(struct server *server);

struct chat {
    struct server *server;
    struct weft_session *session; /* NULL: without Weft, or not reachable now */
    char name[32];
    uint32_t *tokens; /* [context] */
    uint32_t count;
};

/* A chat must not outlive its server.  `name` shows in `weft ls sessions`. */
bool chat_open(struct server *server, const char *name, struct chat *out);

/* A second chat with the same past. */
bool chat_fork(struct chat *from, const char *name, struct chat *out);
void chat_close(struct chat *chat);

struct turn_request {
    const uint32_t *prompt; /* appended to the chat */
    uint32_t prompt_count;
    uint32_t answer_max; /* ≥ 1: tokens to generate, unless one is WF_TOKEN_BEGIN or WF_TOKEN_END */

    /* The token to go on with, given the logits. */
    uint32_t (*choose)(void *context, const float *logits, uint32_t vocab);
    /* Called with each token and the logits it was chosen from; false ends the turn.  NULL: nobody
     * listens. */
    bool (*listen)(void *context, uint32_t token, const float *logits);
    void *context; /* of both */
};

struct turn_result {
    uint32_t history;  /* tokens that had to be known before the first answer token: all that went
                          before */
    uint32_t hit;      /* of these, the ones whose KV Weft had */
    uint32_t answered; /* tokens generated, now part of the chat */
    uint64_t ttft_us;  /* from the call to the first token's logits */
};

/* The most likely token.  A `choose` whose context is not used. */
uint32_t choose_greedy(void *context, const float *logits, uint32_t vocab);

/* Take the user's turn and answer it.  Fails only for what Weft has no part in: a context that is
 * full, a token that the model does not have, no memory. */
bool chat_turn(struct chat *chat, const struct turn_request *request, struct turn_result *out);

#endif
