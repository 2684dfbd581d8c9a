/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events in: what engines say that they hold, heard as vLLM's publisher tells it.
 *
 *     engine   PUB     ── [topic, u64be number, batch] ──▶ SUB     ┐
 *              ROUTER  ◀─ ["", u64be first] ────────────── DEALER  ├─ thread ── table ── owner
 *                      ── ["", topic, number, batch] … ──▶         ┘
 *                         ["", "", −1, ""] at the end
 *
 * Each engine is in one of three states:
 *
 *     AWAY  ──connected──▶  ASKING, from 0
 *     ASKING  ──the end of what is replayed, or no answer──▶  LIVE
 *     LIVE  ──a gap──▶  ASKING, from what is missing
 *     ASKING, LIVE  ──disconnected──▶  AWAY
 *
 * Without a replay endpoint LIVE comes at once.  While ASKING, the SUB is not read: libzmq keeps
 * what comes, and what was replayed meanwhile is passed over by its number.
 *
 * What is held is a hint and is trusted as long as nothing is in doubt: a gap that replay does not
 * fill, a batch that cannot be read, a number that goes back (the engine was started again), a lost
 * connection: each of them clears the table of that engine.  Only LIVE tables answer where blocks
 * are.
 *
 * One thread hears all engines, in turn, so many batches each.  The owner may ask at any time, and
 * waits for one block's change at the most.
 */
#ifndef WF_GATEWAY_KVENGINES_H
#define WF_GATEWAY_KVENGINES_H

#include "gateway/kvevents_codec.h"

#define WF_KVENGINES_MAX 16u
#define WF_KVENGINES_MESSAGE_MAX (4u << 20) /* bytes of a batch; libzmq hangs up on longer ones */
#define WF_KVENGINES_WAITING_MAX 256        /* batches that libzmq keeps for us */

struct wf_kvengine_options {
    const char *name;     /* for sentences */
    const char *endpoint; /* tcp://HOST:PORT or ipc://PATH */
    const char *replay;   /* the same; "": none */
    const char *topic;    /* what topics begin with */
    uint32_t patience_ms; /* with a replay that says nothing, or nobody there; 0: 5000 */
};

struct wf_kvengines;

/* `memory` is for each engine's table.  What options point to is borrowed until stop. */
enum weft_status wf_kvengines_start(const struct wf_kvengine_options *options, uint32_t count,
                                    uint64_t memory, struct wf_kvengines **out);
void wf_kvengines_stop(struct wf_kvengines *engines); /* NULL is allowed */

enum wf_kvengine_state { WF_KVENGINE_AWAY = 0, WF_KVENGINE_ASKING, WF_KVENGINE_LIVE };
const char *wf_kvengine_state_name(enum wf_kvengine_state state);

struct wf_kvengine_figures {
    enum wf_kvengine_state state;
    uint64_t blocks, hbm_blocks, bytes;
    uint64_t batches, batch_bytes, stored, removed, cleared;
    uint64_t gaps, missed;      /* missed: batches, as their numbers say */
    uint64_t replays, replayed; /* asked for; batches that came so */
    uint64_t connections, restarts;
    uint64_t forgotten; /* times that all known of it was in doubt, and cleared */
    uint64_t dropped;   /* blocks that the table had no room for */
    uint64_t refused;   /* messages and batches that are none */
    uint64_t heard_ns;  /* wf_now_ns() of the last batch; 0: there was none */
};
void wf_kvengines_figures(struct wf_kvengines *engines, uint32_t engine,
                          struct wf_kvengine_figures *out);

/* Is the block of that hash there, as far as that engine said?  A mask of 1 << medium; 0 when the
 * engine is not LIVE. */
uint32_t wf_kvengines_where(struct wf_kvengines *engines, uint32_t engine, const uint8_t *hash,
                            size_t hash_bytes);
/* What the engine said that the hash stands for, with tokens: a reference that the caller has.
 * NULL: it did not, or other things than tokens and adapter went into it. */
struct wf_kv_block *wf_kvengines_meaning(struct wf_kvengines *engines, uint32_t engine,
                                         const uint8_t *hash, size_t hash_bytes);

#endif
