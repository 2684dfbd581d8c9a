/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside libweft.
 *
 * An *attachment* is one connection with the segments that came over it.  When the node goes away,
 * or an exchange with it fails, the attachment is poisoned and a new one takes its place at the
 * next call.  A poisoned one keeps its socket (so that a node that still lives honours its pins)
 * and its pool mapping until nothing is pinned or reserved in it any more; index and pin table,
 * which lock-free readers may still be looking at, stay mapped until weft_close().
 *
 * Formats and sessions are bound to an attachment anew when they are first used on it.  A binding,
 * once made, is never changed or freed before its handle is closed, so that readers need no lock.
 *
 * Locks: `weft.lock` is held for an exchange, for reconnecting and for binding.  Pin, unpin and
 * match take none.
 */
#ifndef WF_CLIENT_CLIENT_H
#define WF_CLIENT_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/status.h"
#include "shm/control.h"
#include "shm/index.h"
#include "shm/pins.h"
#include "sys/socket.h"

struct attachment {
    struct attachment *next;
    uint64_t epoch; /* of this attachment, in this process; never 0 */
    int fd;
    bool copied;
    _Atomic bool poisoned;
    bool drained;          /* under lock: socket closed, pool unmapped */
    _Atomic uint64_t busy; /* blocks reserved and neither committed nor aborted */
    struct wf_index index;
    struct wf_pins pins;
    void *index_memory, *pins_memory;
    uint8_t *pool, *staging;
    uint64_t index_bytes, pins_bytes, pool_bytes, staging_bytes;
    uint8_t *staged; /* under lock: one byte a granule of staging that is taken */
};

struct binding {
    struct binding *next;
    const struct attachment *attachment;
    uint64_t id; /* the node's number for this format or session */
    uint8_t root[32];
    enum weft_quality quality; /* of a format: at least so exactly its blocks come back */
};

struct weft {
    pthread_mutex_t lock;
    struct wf_message *request, *answer; /* WF_MESSAGE_MAX each; under lock */
    char *socket, *domain, *token;
    bool search; /* nobody named a socket: the host's node will do, and a stranger's will not */
    uint32_t timeout_ms;
    uint32_t fork_generation;
    uint64_t sequence;                    /* under lock */
    bool silent;                          /* under lock: a node let an exchange time out */
    uint64_t last_silence_ms;             /* under lock: when one that was connected to did */
    uint64_t epochs;                      /* under lock */
    struct attachment *attachments;       /* under lock: newest first */
    _Atomic(struct attachment *) current; /* NULL: none */
    _Atomic uint64_t blocks_put, bytes_put, reconnects;
};

struct weft_format {
    struct weft *weft;
    struct wf_format_open request; /* as sent, again after a reconnect */
    uint64_t block_bytes, layer_bytes;
    _Atomic(struct binding *) binding; /* newest; older ones behind it */
};

/* Has a slot of that word lost more than readers by this format allow? */
static inline bool wf_client_worse(const struct weft_format *f, uint64_t word)
{
    enum weft_quality quality = wf_word_quality(word);
    return quality > WEFT_LOSSLESS && quality > weft_format_quality(f);
}

/* connect.c */

/* The attachment to use now: connects anew when there is none that is good.  NULL leaves a
 * sentence. */
struct attachment *wf_client_attach_anew(struct weft *w, enum weft_status *status);

/* Is it good for new pins?  seq_cst throughout: see weft_pin(). */
static inline bool wf_attachment_good(const struct attachment *a)
{
    return !atomic_load_explicit(&a->poisoned, memory_order_seq_cst) && wf_index_alive(&a->index) &&
           atomic_load_explicit(&a->pins.header->closed, memory_order_seq_cst) == 0;
}

extern _Atomic uint32_t wf_client_forks; /* fork()s that this process is the child of */

static inline bool wf_client_forked(const struct weft *w)
{
    return w->fork_generation != atomic_load_explicit(&wf_client_forks, memory_order_relaxed);
}

static inline struct attachment *wf_client_attach(struct weft *w, enum weft_status *status)
{
    struct attachment *a = atomic_load_explicit(&w->current, memory_order_acquire);
    if (__builtin_expect(a && !wf_client_forked(w) && wf_attachment_good(a), 1)) {
        *status = WEFT_OK;
        return a;
    }
    return wf_client_attach_anew(w, status);
}

/* One exchange on `a`: sends w->request (header is completed; `bytes` in all), fills w->answer. The
 * caller holds the lock.  A status < 0 from the node comes back with its sentence; a transport
 * failure poisons `a` and is WEFT_E_NODE.  `answer_least` is the fixed part that a good answer must
 * have. */
enum weft_status wf_client_exchange(struct weft *w, struct attachment *a, enum wf_op op,
                                    size_t bytes, size_t answer_least, int *fds, size_t *fd_count);

/* As weft_remove(): REMOVE, or REMOVE_EVERYWHERE. */
enum weft_status wf_client_remove(struct weft_format *f, const struct weft_key *key, enum wf_op op,
                                  size_t *out_removed);

/* Give back what poisoned attachments no longer need.  The first takes the lock. */
void wf_client_drain(struct weft *w);
void wf_client_drain_locked(struct weft *w);

/* format.c */

/* The binding of `f` to attachment `a`, made if need be; NULL leaves a sentence. */
const struct binding *wf_format_bind(struct weft_format *f, struct attachment *a,
                                     enum weft_status *status);

/* Find or make a binding: `ask` does the exchange, under the lock, and fills id and root. */
const struct binding *
wf_binding_get(struct weft *w, _Atomic(struct binding *) *list, struct attachment *a,
               enum weft_status (*ask)(void *context, struct attachment *a, struct binding *out),
               void *context, enum weft_status *status);
void wf_bindings_free(struct binding *list);

/* session.c */

/* What an archive of a session needs: the last key of its chain (false: it has none), its name (""
 * when it has none) and its format. */
bool wf_session_tip(const struct weft_session *s, struct weft_key *out);
const char *wf_session_name(const struct weft_session *s);
struct weft_format *wf_session_format(const struct weft_session *s);

/* get.c */

/* How many keys of a chain are there, and how many of them in DRAM, from the first; and the worst
 * quality among them.  Nothing is counted. */
size_t wf_client_present(const struct attachment *a, const struct weft_key *chain, size_t count,
                         size_t *out_near, enum weft_quality *out_worst);
/* weft_match_keys(), and the worst quality among those that are there. */
enum weft_status wf_client_match(struct weft_format *f, const struct weft_key *chain, size_t count,
                                 size_t *out_present, enum weft_quality *out_worst);
/* Where the first `present` keys of a chain are, which a match found, and what loading them would
 * take.  Returns how many of them are still there. */
size_t wf_client_tiers(const struct weft_format *f, const struct attachment *a,
                       const struct weft_key *keys, size_t present, uint8_t *tiers,
                       uint32_t *out_load_us);

/* weft_get_keys() for a session, whose priority and deadline count; NULL: no one's. */
enum weft_status wf_client_get(struct weft_format *f, const struct binding *session,
                               const struct weft_key *chain, size_t count, enum weft_order order,
                               struct weft_pins *out);

/* put.c */

/* weft_commit_slots() for a session: the chain of `session` ends with `tip` afterwards. */
enum weft_status wf_client_commit(struct weft_format *f, struct weft_slot *slots, size_t count,
                                  const struct binding *session, const struct weft_key *tip);
/* weft_reserve_keys() after a block that this process reserved and has not committed yet. */
enum weft_status wf_client_reserve(struct weft_format *f, const struct weft_key *parent,
                                   const struct weft_slot *parent_slot, const struct weft_key *keys,
                                   size_t count, uint32_t flags, struct weft_slot *slots);

#endif
