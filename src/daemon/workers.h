/* SPDX-License-Identifier: Apache-2.0
 *
 * Data threads: what moves or reads payload happens here, never on the owner thread.
 *
 * The owner submits a job; a worker runs it; the owner, woken through wf_workers_fd(), runs what is
 * to be done with the result.  A job is owned by whoever runs it at the moment.  The queue has a
 * cap: beyond it submit says no, and the owner does without (for housekeeping) or answers
 * WEFT_E_BUSY (for clients).
 */
#ifndef WF_DAEMON_WORKERS_H
#define WF_DAEMON_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct wf_job {
    void (*run)(struct wf_job *job);  /* on a worker */
    void (*done)(struct wf_job *job); /* on the owner thread; frees the job */
    struct wf_job *next;
};

struct wf_workers;

enum weft_status wf_workers_create(uint32_t threads, uint32_t jobs_max, struct wf_workers **out);

/* Waits for running jobs; those that never ran and results nobody took are passed to `done`. */
void wf_workers_destroy(struct wf_workers *workers);

bool wf_workers_submit(struct wf_workers *workers, struct wf_job *job);

/* Readable when there are results. */
int wf_workers_fd(const struct wf_workers *workers);

/* Run `done` of every finished job. */
void wf_workers_reap(struct wf_workers *workers);

#endif
