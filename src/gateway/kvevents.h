/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events out: what is told here of blocks goes to whoever subscribed, as vLLM's own publisher
 * tells it (kvevents_codec.h has the format, vllm/distributed/kv_events.py the protocol), so that
 * the routers of Dynamo and llm-d know what Weft holds.
 *
 *     owner ── queue ── thread ┬─ PUB     [topic, u64be number, batch]
 *                              └─ ROUTER  [u64be first] → [topic, number, batch] …, ["", −1, ""]
 *
 * The owner's thread only appends to the queue, and never waits.  When the queue is full it says so
 * by returning false; it is then for the owner to say that all is gone, and to tell all anew.
 *
 * The socket is an XPUB, which to subscribers is a PUB: it says when the first one comes, who knows
 * of nothing that was told before (wf_kvevents_anew()).
 */
#ifndef WF_GATEWAY_KVEVENTS_H
#define WF_GATEWAY_KVEVENTS_H

#include "gateway/kvevents_codec.h"

struct wf_kvevents_options {
    const char *address;        /* numeric */
    uint16_t port;              /* 0: any free one */
    const char *replay_address; /* "": no replay */
    uint16_t replay_port;
    const char *topic;
    struct wf_kv_style style;
    uint32_t replay_batches; /* kept for that, and no more than replay_bytes of them */
    uint64_t replay_bytes;
};

struct wf_kvevents;

enum weft_status wf_kvevents_start(const struct wf_kvevents_options *options,
                                   struct wf_kvevents **out);
/* Ends its thread; what is queued is told first, as far as sockets take it.  NULL is allowed. */
void wf_kvevents_stop(struct wf_kvevents *events);

/* Takes a reference of its own.  One thread.  False: the queue is full, and it was not taken. */
bool wf_kvevents_tell(struct wf_kvevents *events, const struct wf_kv_said *said);
/* Is there room for so many? */
bool wf_kvevents_room(struct wf_kvevents *events, uint32_t count);
#define WF_KVEVENTS_QUEUE 65536u

/* Somebody subscribed when nobody had: all is to be told anew.  Says so once. */
bool wf_kvevents_anew(struct wf_kvevents *events);

struct wf_kvevents_figures {
    uint64_t stored, removed, cleared, batches, bytes, dropped, replays, replayed, nonsense;
    uint64_t topics, queued, kept; /* topics: that somebody subscribed to */
};
void wf_kvevents_figures(struct wf_kvevents *events, struct wf_kvevents_figures *out);
uint16_t wf_kvevents_port(const struct wf_kvevents *events);
uint16_t wf_kvevents_replay_port(const struct wf_kvevents *events);

#endif
