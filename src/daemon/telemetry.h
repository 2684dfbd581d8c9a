/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node tells about itself: metrics, events, HTTP.  The rest of the daemon calls these few
 * functions and knows nothing of how it is kept or served.
 */
#ifndef WF_DAEMON_TELEMETRY_H
#define WF_DAEMON_TELEMETRY_H

#include "daemon/metrics.h"
#include "daemon/node.h"

enum weft_status wf_telemetry_create(struct wf_node *node);
void wf_telemetry_destroy(struct wf_node *node);

/* For the owner's epoll: readable when HTTP wants to run; -1: HTTP is off. */
int wf_telemetry_fd(const struct wf_node *node);
/* At every tick, and when the descriptor is readable. */
void wf_telemetry_run(struct wf_node *node);
/* How long HTTP can wait for its next run, at most `limit_ms`. */
int wf_telemetry_wait_ms(const struct wf_node *node, int limit_ms);

/* What follows is done for `domain`, until wf_telemetry_op(): for it others may have to make room.
 */
void wf_telemetry_serve(struct wf_node *node, const struct wf_domain *domain);

/* An op was answered; `domain` NULL before HELLO. */
void wf_telemetry_op(struct wf_node *node, const struct wf_domain *domain, unsigned op,
                     enum weft_status status, uint64_t ns);

/* A block has gone, and why. */
void wf_telemetry_gone(struct wf_domain *domain, const uint8_t key[32], const struct wf_gone *gone);

struct wf_lower;
/* A block was read from below: how long after its request the first of it was readable, and all. */
void wf_telemetry_load(const struct wf_lower *lower, enum wf_load_why why, uint64_t first_ns,
                       uint64_t whole_ns);

/* What happened to a block below DRAM; see struct wf_event for the members. */
struct wf_block_move {
    const char *what, *reason, *tier, *from, *text;
    uint64_t bytes, took_us;
    enum weft_quality quality; /* that it has there now, or came with; a default: not said */
};
void wf_telemetry_moved(const struct wf_domain *domain, const uint8_t key[32],
                        const struct wf_block_move *move);

/* Blocks of one request found no room: the first and the last of so many, of `bytes` each. */
struct wf_block_refusal {
    const uint8_t *first, *last; /* keys */
    uint32_t blocks;
    uint64_t bytes;
    const char *reason, *text; /* a literal; a sentence */
};
void wf_telemetry_refused(const struct wf_domain *domain, const struct wf_block_refusal *refusal);

struct wf_event_prefetch;
/* The chain that ends at `tip` is brought up for a session, or not; so many bytes of it. */
void wf_telemetry_prefetch(const struct wf_domain *domain, const uint8_t tip[32], uint64_t bytes,
                           const struct wf_event_prefetch *said);

/* Something else that someone will want to know afterwards: `kind` is a word, the rest a sentence.
 */
void wf_telemetry_event(struct wf_node *node, const struct wf_domain *domain, const char *kind,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Events from `cursor` on as JSON that fits an answer, those of `only` (NULL: all); caller frees.
 */
char *wf_telemetry_events(struct wf_node *node, const struct wf_domain *only, uint64_t cursor);

#endif
