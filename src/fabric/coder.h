/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that encode what goes to other nodes, and decode what comes from them.
 *
 * The fabric's thread gives a job away and has it back, done, in wf_coder_reap(); in between it is
 * a worker's, with all that it points to.  What is encoded needs memory for the frame, which is set
 * aside at the start: who gets none does without.  What comes is decoded where it is: a frame is
 * received into the end of the memory that its block is to have, and decoded from the front,
 *
 *     |                 | head, table | plane 0 | plane 1 | plane 2 |      as it came
 *     | plane 0, decoded  | plane 1, decoded  | plane 2             |      as it is to be
 *
 * each plane moved out of the way first; it is a cut of the whole of that frame
 * (codec/frame_cut.h).  What is a cut of the frame that a block lies in on a tier elsewhere is
 * decoded likewise.
 *
 * Without threads (a simulation) reap does the work.
 */
#ifndef WF_FABRIC_CODER_H
#define WF_FABRIC_CODER_H

#include "codec/frame_cut.h"

#define WF_CODER_THREADS_MAX 64u
#define WF_CODER_BYTES_LEAST 16384u /* nothing is gained by what is smaller */

struct wf_coder;

struct wf_coder_job {
    struct wf_coder_job *next;
    struct wf_coder_job *after; /* whose frame lies behind its own */
    bool encode;
    uint8_t *plain; /* encode: the payload; decode: where it is to be, and the frame at its end */
    uint64_t plain_bytes;
    uint32_t part_bytes, part_count;
    uint64_t *sums; /* of the parts of the payload: encode makes them (NULL: it need not), decode
                       compares; of a cut, those of its own bytes in parts as long */
    /* decode a cut, for the range from byte `from` on of a block of block_bytes (0: it is a frame
     * of its own, and exact), which was made for `quality` and by `profile`; 0: exact. */
    uint64_t block_bytes, from, profile;
    uint8_t quality;
    /* encode */
    struct wf_layout layout; /* .bytes is plain_bytes */
    uint8_t *frame;          /* NULL: it has no memory */
    uint64_t frame_memory;
    /* encode: WEFT_OK, or WEFT_MISS: it does not become smaller, and the sums are made all the
     * same.  decode: WEFT_OK, or WEFT_E_CORRUPT; WEFT_E_NOT_FOUND: its profile is not here. */
    enum weft_status result;
    uint64_t frame_bytes;
    void (*done)(struct wf_coder_job *job); /* in reap */
    void *done_for;
};

struct wf_coder_options {
    uint32_t threads;      /* 0: none */
    uint64_t memory_bytes; /* for frames that go out */
    /* As in struct wf_coded_options. */
    const struct wf_profile *(*profile)(void *profiles, uint64_t id);
    void *profiles;
    void (*wake)(void *context);
    void *context;
};

enum weft_status wf_coder_create(const struct wf_coder_options *options, struct wf_coder **out);
/* No worker has anything after it, and `done` of what was under way is not called any more. */
void wf_coder_stop(struct wf_coder *coder);
void wf_coder_destroy(struct wf_coder *coder);

/* The layout of `bytes` from byte `from` on of a block, as wf_coder takes it.  False: such are not
 * encoded. */
bool wf_coder_layout(const struct wf_layout *block, uint64_t from, uint64_t bytes,
                     struct wf_layout *out);
/* Memory for the frame that job->layout may become; false: not now, or never, if can() says so. */
bool wf_coder_memory_take(struct wf_coder *coder, struct wf_coder_job *job);
void wf_coder_memory_give(struct wf_coder *coder, struct wf_coder_job *job);
/* How much of that there is in all. */
uint64_t wf_coder_memory(const struct wf_coder *coder);
bool wf_coder_memory_can(const struct wf_coder *coder, const struct wf_layout *layout);

void wf_coder_submit(struct wf_coder *coder, struct wf_coder_job *job);
/* Calls `done` of all that was done since. */
void wf_coder_reap(struct wf_coder *coder);
/* Jobs that were submitted and not reaped. */
uint32_t wf_coder_busy(const struct wf_coder *coder);

#endif
