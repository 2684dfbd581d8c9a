/* SPDX-License-Identifier: Apache-2.0
 *
 * An archive that is being made, as its two files see it: archive_begin.c, where it is asked for
 * and begun, and archive_run.c, which carries it through.
 */
#ifndef WF_DAEMON_ARCHIVE_RUN_H
#define WF_DAEMON_ARCHIVE_RUN_H

#include "daemon/archive.h"

enum wf_archive_phase {
    WF_ARCHIVE_UNUSED,
    WF_ARCHIVE_WRITE,
    WF_ARCHIVE_FLUSH,
    WF_ARCHIVE_VERIFY,
    WF_ARCHIVE_MANIFEST,
    WF_ARCHIVE_SETTLE,
    WF_ARCHIVE_CHECK,
    WF_ARCHIVE_ENDED
};

struct wf_archive_step {
    uint8_t key[32];
    uint32_t entry; /* held; WF_DIRECTORY_NONE: not below yet */
    bool verify;    /* not known to be right where it is */
};

/* One block's write or check. */
struct wf_archive_task {
    struct wf_mover_job job; /* first member; of a check */
    struct wf_archive_run *run;
    uint32_t step;
    struct wf_lower *at;
    bool busy;
};

struct wf_archive_run {
    struct wf_archives *archives;
    enum wf_archive_phase phase;
    struct wf_domain *domain;
    char name[WF_ARCHIVE_NAME_MAX + 1];
    uint8_t tip[32];
    struct wf_format_open format;
    struct wf_archive_step *steps; /* from the chain's root to its tip */
    uint32_t count, next, in_flight, round;
    struct wf_archive_task tasks[WF_ARCHIVE_JOBS_MAX];
    struct wf_lower *to;
    uint8_t tried;    /* tiers that had no room after all */
    uint64_t claimed; /* of to->claimed_bytes */
    uint32_t slot;    /* held; WF_SLOT_NONE */
    uint8_t unflushed;
    bool again;              /* this round left something to do */
    bool doubted;            /* it is kept, and what it had may have been written anew since */
    bool refused;            /* by its tier, which is full although it seemed to have the room */
    bool missed;             /* a tier lost one of its blocks since they were flushed */
    struct wf_mover_job job; /* flushes and the manifest */
    struct wf_lower *job_at;
    void *manifest;
    size_t manifest_bytes;
    bool manifest_there;
    uint64_t moved_ns;
    /* What came of it: */
    enum weft_status status; /* WEFT_PENDING until it ends or fails */
    char sentence[WF_ERROR_MAX];
    uint32_t written;
    uint64_t bytes;
};

/* Do what can be done now: after it was begun, whenever something ended, and at every tick. */
void wf_archive_advance(struct wf_archive_run *run);
/* Where it goes: the nearest tier that may hold archives, was not tried, and has the room for what
 * is not on one; when all is, the one that has the tip. */
enum weft_status wf_archive_tier_choose(struct wf_archive_run *run);
/* It has failed; it ends when what is in flight has come back.  The first reason counts. */
void wf_archive_fail(struct wf_archive_run *run, enum weft_status status);
bool wf_archive_active(const struct wf_archive_run *run);
/* Hold the entry that a block has by now. */
void wf_archive_step_hold(struct wf_archive_run *run, struct wf_archive_step *step,
                          struct wf_directory_block *out);
uint8_t wf_archive_step_there(const struct wf_archive_run *run, const struct wf_archive_step *step,
                              const struct wf_directory_block *block);

#endif
