/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier under test: its backend, its medium, and requests with memory of their own.
 */
#ifndef TEST_CONFORMANCE_TIER_WORLD_H
#define TEST_CONFORMANCE_TIER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "tier/coded.h"
#include "tier/tier.h"

#define SLOTS 64u               /* requests that a test can have at once */
#define SLOT_BYTES (256u << 10) /* memory of each */
#define BLOCK_BYTES_MAX (200u << 10)
#define GUARD 0x5au /* what memory holds that nobody was asked to write */

struct backend {
    const struct wf_tier_ops *ops;
    uint64_t capacity_bytes;                        /* of a small medium: a few hundred blocks */
    void (*prepare)(char *path, size_t path_bytes); /* name a medium that is empty; may skip() */
    void (*dispose)(const char *path);
    void (*crash)(struct wf_tier *tier); /* NULL: close is as near as a test can come */
    void (*rot)(struct wf_tier *tier, const char *path, const struct wf_tier_block *block);
    const struct wf_coded_options *coded; /* how it codes; NULL: it does not */
    const char *name;                     /* of what `ops` are a part; NULL: theirs */
    uint32_t steps; /* of random operations; 0: STEPS.  Fewer where each costs milliseconds */
};

struct world {
    const struct backend *backend;
    const struct wf_tier_ops *ops;
    struct wf_tier *tier;
    struct wf_tier_options options;
    char path[200];
    uint8_t *memory;
    struct wf_tier_request requests[SLOTS];
    struct wf_coded_plan plans[SLOTS];
    struct random_source random;
    bool forgets; /* nothing of it outlives close, by its own word */
};

/* *state: the backend at first, the world then. */
int world_setup(void **state);
int world_teardown(void **state);

/* Open again, with w->options. */
void world_reopen(struct world *w);
void world_crash(struct world *w);

/* Block `number`: its key, and a payload that follows from the key.  parent 0: the first of its
 * chain. */
struct wf_tier_block block_of(uint64_t number, uint64_t parent, uint64_t bytes,
                              uint32_t part_bytes);

/* Request `slot` made ready in its own memory: a write with the payload, a read into guard bytes.
 */
struct wf_tier_request *write_request(struct world *w, uint32_t slot,
                                      const struct wf_tier_block *block);
struct wf_tier_request *read_request(struct world *w, uint32_t slot,
                                     const struct wf_tier_block *block, uint32_t first,
                                     uint32_t count);
struct wf_tier_request *flush_request(struct world *w, uint32_t slot);

/* One that has finished; fails the test when none does for seconds. */
struct wf_tier_request *reap_one(struct world *w);

/* Submit, and wait for that request, which must be the only one. */
enum weft_status outcome(struct world *w, struct wf_tier_request *r);
enum weft_status write_block(struct world *w, const struct wf_tier_block *block);
/* Of a tier that forgets: WEFT_OK, after it has refused it. */
enum weft_status flush(struct world *w);

/* What a read that is WEFT_OK brought is the block's, and nothing beyond was touched. */
void assert_read_right(const struct wf_tier_request *r, const struct wf_tier_block *block);
void assert_whole(struct world *w, const struct wf_tier_block *block);
void assert_absent(struct world *w, const struct wf_tier_block *block);
void assert_same_block(const struct wf_tier_block *a, const struct wf_tier_block *b);
/* As find gives it, which may be without its parent. */
void assert_found(const struct wf_tier_block *found, const struct wf_tier_block *block);
struct wf_tier_stats stats_of(const struct world *w);
/* It is WEFT_E_INVALID, with a sentence. */
void assert_refused(struct world *w, struct wf_tier_request *r);
/* Do such blocks take less room than their payloads? */
bool shrinks(const struct world *w);

#define TEST(name)                                     \
    {                                                  \
#name, name, world_setup, world_teardown, NULL \
    }

/* tier_backends.c: the simulated one is the first */
extern struct backend backends[];
extern const size_t backend_count;
/* Once, before they are used. */
void backends_begin(void);

/* tier_sim.c */
extern const struct CMUnitTest sim_tests[];
extern const size_t sim_test_count;

/* tier_stored.c */
void test_what_it_decodes_to_is_kept(void **state);
void test_what_is_stored_can_be_moved(void **state);
void test_a_codec_is_not_tried_in_vain(void **state);

/* tier_model.c */
void test_random_operations(void **state);
void test_random_operations_with_faults(void **state);

#endif
