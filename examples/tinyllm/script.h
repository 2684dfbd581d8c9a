/* SPDX-License-Identifier: Apache-2.0
 *
 * The conversations that demo and bench hold: several users who share a system prompt, take turns,
 * and sometimes go two ways from one point.  Played twice, with and without Weft, every logit is
 * compared.
 */
#ifndef TINYLLM_SCRIPT_H
#define TINYLLM_SCRIPT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "llama/tokenizer.h"
#include "serve.h"

#define SCRIPT_USERS_MAX 8
#define SCRIPT_TURNS_MAX 3

struct script {
    uint32_t users, turns, forks; /* so many users' chats go two ways at the last turn */
    uint32_t answer_max;
    uint32_t *system; /* the shared prompt, from WF_TOKEN_BEGIN */
    uint32_t system_count;
    struct {
        uint32_t *tokens;
        uint32_t count;
    } questions[SCRIPT_USERS_MAX][SCRIPT_TURNS_MAX + 1]; /* [turns]: the fork's */
};

/* Sized so that a whole conversation fits into the model's context. */
bool script_make(const struct wf_tokenizer *tokenizer, const struct wf_model_shape *shape,
                 uint32_t users, uint32_t turns, uint32_t forks, struct script *out);
void script_free(struct script *script);

/* What one turn said, and what it cost. */
struct record {
    uint32_t user, turn; /* turn = script.turns: the fork's */
    struct turn_result result;
    uint32_t count;     /* rows below; one more than `answered` when an end token was chosen */
    uint32_t *chosen;   /* [answer_max] */
    float *logits;      /* [answer_max][vocab] */
    uint32_t differing; /* rows that are not, bit for bit, what the record compared with has */
};

struct play {
    const struct script *script;
    struct server *server;
    uint32_t turn_first, turn_end; /* of the script's; forks are part of the last */
    const struct play *compare;    /* a play of the same turns that went before; NULL: none */
    void (*progress)(void *context, const struct record *record, uint32_t done, uint32_t total);
    void *context;                            /* of progress; both may be NULL */
    const volatile sig_atomic_t *interrupted; /* stops between tokens when it becomes true */

    struct record *records; /* in the order played */
    uint32_t count, total;
    struct chat chats[2 * SCRIPT_USERS_MAX]; /* users, then forks; as they stand at the end */
};

/* Play the turns.  Turns before turn_first are taken as said in `compare`: a chat is its tokens, so
 * it can go on with a server, or a process, that it has never seen.  False: a failure that Weft has
 * no part in, or interrupted. */
bool play_run(struct play *play);
void play_free(struct play *play);

/* The median time to the first token, over the turns that `as` played too. */
double play_ttft_ms_median(const struct play *play, const struct play *as);

/* Tokens whose KV was there / tokens that had to be known. */
double play_hit_rate(const struct play *play);
uint64_t play_differing(const struct play *play);

/* How many blocks of the chats' histories are in Weft now, counted once a chat and once altogether.
 */
struct storage {
    uint64_t logical_blocks, stored_blocks, block_bytes;
};
bool play_storage(const struct play *play, struct storage *out);

#endif
