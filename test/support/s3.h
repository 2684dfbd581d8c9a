/* SPDX-License-Identifier: Apache-2.0
 *
 * A real S3 server on loopback (OpenStack Swift, see test/s3/server.py), and a plain client to look
 * into its buckets and to change objects behind a tier's back.
 */
#ifndef TEST_SUPPORT_S3_H
#define TEST_SUPPORT_S3_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tier/s3_store.h"

#define S3_KEY "test:tester"
#define S3_SECRET "testing"

/* Start it when it is not running, and have the environment name it as the endpoint, with its
 * user's keys.  NULL: it runs, and its port is in *port; else why it does not. */
const char *s3_server(uint16_t *port);
void s3_server_stop(void);

/* One request below "s3://bucket/prefix", waited for; returns HTTP's status, 0 when there was no
 * answer.  `room` may be NULL. */
long s3_ask(const char *path, enum wf_s3_method method, const char *name, const char *query,
            const void *body, size_t bytes, void *room, size_t room_bytes, size_t *got);

/* Names below the prefix that begin with `kind` ("p", "i"); the first of them into `first` (64). */
unsigned s3_count(const char *path, char kind, char *first);

/* Flip a bit of payload byte `at` of a block, in part 0, in its pack in the bucket. */
bool s3_flip(struct wf_tier *tier, const char *path, const uint8_t key[32], uint64_t at);

#endif
