/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to the node that nobody has to wait for: a thread that reserves blocks before they are
 * wanted, and commits values behind their answers.
 *
 * It has one job of each kind at a time: one batch of blocks for each size, and one list of values.
 * What belongs to a job is the thread's own until the job is done.  It takes no lock of anybody
 * else's, so that who waits for a job may hold the store's.
 */
#ifndef WF_GATEWAY_RESP_MAKER_H
#define WF_GATEWAY_RESP_MAKER_H

#include "gateway/resp_pool.h"

#define WF_RESP_AHEAD_MAX 32u /* blocks of one batch */

struct wf_resp_maker;

/* Blocks of one size, whose keys are made of a nonce and numbers from `serial` on. */
struct wf_resp_batch {
    struct weft_format *format;
    uint8_t nonce[16];
    uint64_t serial;
    uint32_t count; /* asked for; then, of those, how many were got, the first ones */
    struct wf_resp_piece pieces[WF_RESP_AHEAD_MAX];
};

/* Reserves what a batch asks for, here and now. */
void wf_resp_batch_reserve(struct wf_resp_batch *batch);
/* Commits all blocks of the values in a list, and says in each value what became of it. */
void wf_resp_blobs_commit(struct weft_format *const formats[], struct wf_resp_blob *first);

enum weft_status wf_resp_maker_create(struct weft_format *const formats[],
                                      struct wf_resp_maker **out);
void wf_resp_maker_destroy(struct wf_resp_maker *maker);

/* A batch of blocks of a size for which none is asked for yet. */
void wf_resp_maker_reserve(struct wf_resp_maker *maker, unsigned class,
                           const struct wf_resp_batch *batch);
/* What was asked for last for that size: false when nothing was, or, unless it may `wait`, when it
 * is not done. */
bool wf_resp_maker_take(struct wf_resp_maker *maker, unsigned class, bool wait,
                        struct wf_resp_batch *out);

/* Values whose state is told afterwards; none are being committed. */
void wf_resp_maker_commit(struct wf_resp_maker *maker, struct wf_resp_blob *first);
/* True when no values are being committed, any more. */
bool wf_resp_maker_committed(struct wf_resp_maker *maker, bool wait);

#endif
