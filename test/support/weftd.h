/* SPDX-License-Identifier: Apache-2.0
 *
 * A weftd for a test: started in a directory of its own, ended with the test, however that ends.
 *
 * What fails here prints a sentence and ends the process: a test without its node has nothing to
 * say.
 */
#ifndef TEST_SUPPORT_WEFTD_H
#define TEST_SUPPORT_WEFTD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "weft/weft.h"

struct weftd {
    pid_t pid; /* 0: not running */
    char directory[64], socket[96], secret[96], log[96];
    uint32_t open_files; /* RLIMIT_NOFILE of the node; 0: as it is */
};

/* Make the directory and the secret.  The node uses the secret for domain `default`, so that keys
 * are the same after a restart. */
void weftd_prepare(struct weftd *node);

/* Start it with settings ("pool.size=64MB", up to NULL) and variables ("WEFT_CRASH_AT=name", up to
 * NULL), both may be NULL.  Returns when it answers; false when it died before. */
bool weftd_start(struct weftd *node, const char *const *settings, const char *const *variables);

/* The two halves of it: begin, and wait until it answers. */
void weftd_spawn(struct weftd *node, const char *const *settings, const char *const *variables);
bool weftd_answers(struct weftd *node);

/* prepare and start; failure ends the test. */
void weftd_run(struct weftd *node, const char *const *settings);

/* How it ended: waits up to `ms`; -1 when it lives on, else the status as of waitpid(2). */
int weftd_wait(struct weftd *node, int ms);

/* SIGTERM and wait; true when it ended with status 0.  A sanitizer's report makes that false. */
bool weftd_stop(struct weftd *node);
void weftd_kill(struct weftd *node);

/* Remove the directory and all in it; stops the node when it runs. */
void weftd_clean(struct weftd *node);

/* Print what the node said, for a test that failed. */
void weftd_show_log(const struct weftd *node);

/* A connection to `domain`; NULL leaves weft_last_error(). */
struct weft *weftd_connect(const struct weftd *node, const char *domain);

/* A number from the status of `domain` ("blocks_reserved"), or of the node when `domain` is NULL
 * ("pool.unassigned_bytes", "clients"). */
int64_t weftd_number(struct weft *w, const char *domain, const char *name);
/* Has an event that is kept such a text in its JSON?  It waits for one that long. */
bool weftd_told(struct weft *w, const char *text, int wait_ms);

/* Wait until that number has this value, up to 10 s. */
bool weftd_settles(struct weft *w, const char *domain, const char *name, int64_t value);

/* An opaque format of `block_bytes`. */
struct weft_format *weftd_format(struct weft *w, const char *model, uint64_t block_bytes);

void weftd_sleep_ms(int ms);

#endif
