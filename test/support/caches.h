/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that several hosts see each through caches of its own that nothing keeps coherent, and
 * that a power failure leaves as it is while the caches are lost.
 *
 * Each host has the medium mapped from a file of its own: that mapping is what it sees, its caches
 * and the memory behind them.  sys/lines.h tells here what the host forces:
 *
 *   streamed, written back   the lines are on their way; they arrive at the next fence of that
 *                            host, or before, one by one, in any order
 *   invalidated              the host sees memory again, dirty lines arrive first
 *
 * Whatever a host has not forced it never sees and never shows, which is the worst that the
 * hardware may do; now and then something happens by itself, which is the rest of what it may do.
 * A mutation makes it deaf to one kind of force on one part of the medium, as if the call were
 * missing.
 */
#ifndef TEST_SUPPORT_CACHES_H
#define TEST_SUPPORT_CACHES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "random.h"

#define CACHES_HOSTS 3u
#define CACHES_BYTES ((size_t)16 << 20)

enum caches_part { PART_SUPER, PART_ROWS, PART_TABLE, PART_DIRECTORIES, PART_DATA, PARTS };
enum caches_force {
    FORCE_NONE,
    FORCE_STREAM,
    FORCE_WRITE_BACK,
    FORCE_INVALIDATE,
    FORCE_FENCE,
    FORCE_STREAM_FENCE
};

struct caches {
    uint8_t *memory;
    struct {
        uint8_t *view;     /* NULL: not open */
        uint8_t *base;     /* what its lines held when they were loaded: what differs is dirty */
        uint8_t *on_way;   /* a byte a line */
        bool only_streams; /* on their way, since the last fence */
    } host[CACHES_HOSTS + 1];
    struct random_source random;
    enum caches_force deaf;
    enum caches_part deaf_part;
    uint64_t forces;     /* told so far */
    void (*event)(void); /* called in the middle of what a host does, after each force */
    bool inside;
    bool is_commit; /* what was forced last is a word of a directory, on its way */
};

extern struct caches caches;

void caches_start(uint64_t seed);
void caches_end(void);

/* The path that a tier of that host opens; all of them see memory at first. */
void caches_path(uint32_t host, char *path, size_t bytes);

/* The host stops: what was not forced is lost, or some of it is not. */
void caches_lose(uint32_t host);

/* The host has closed its tier. */
void caches_closed(uint32_t host);

/* Some of these lines are thrown out of the host's caches, and loaded anew when they are used. */
void caches_evict_some(const void *memory, size_t bytes);

/* Memory as it would be if all power failed now. */
void caches_image(uint8_t *out);

#endif
