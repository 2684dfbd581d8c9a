/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands between a node and its etcd, on a loopback port of its own: a proxy that can be cut
 * or go deaf, or a server that answers nonsense.  A thread of its own; the rest is the test's.
 */
#ifndef TEST_SUPPORT_BETWEEN_H
#define TEST_SUPPORT_BETWEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum between_mode {
    BETWEEN_PASS,      /* bytes go through */
    BETWEEN_DEAF,      /* nothing goes through, and nobody hears that */
    BETWEEN_CUT,       /* connections are closed, and new ones at once */
    BETWEEN_NO_STREAM, /* what a watch brings once it has begun is lost */
    BETWEEN_FAKE,      /* no etcd: each request is answered with what `fake` has */
};

struct between;

/* Towards a port on loopback.  NULL: the system has nothing left. */
struct between *between_begin(uint16_t to);
void between_end(struct between *between);
uint16_t between_port(const struct between *between);
/* Connections that there are go by it, too. */
void between_set(struct between *between, enum between_mode mode);
/* BETWEEN_FAKE: raw bytes, HTTP's head and all, borrowed. */
void between_fake(struct between *between, const char *bytes, size_t count);
/* Requests that the fake has answered. */
uint64_t between_answered(struct between *between);

#endif
