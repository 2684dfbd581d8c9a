/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a tier's file while no node runs: in `make crash` by seed, and in the test of
 * lost writes (below/archive_lost.c).
 */
#ifndef TEST_CRASH_CYCLES_DAMAGE_H
#define TEST_CRASH_CYCLES_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "../support/random.h"

/* The tier's file, and the journal that its nodes write (tier/nvme_tests.h). */
void damage_begin(const char *tier, const char *journal);

/* A node has died: take in what it wrote to the journal, and empty that. */
void damage_node_died(void);

/* Undo all that no sync made durable.  How many writes. */
uint64_t damage_lose(void);

/* Undo what no sync made durable, whole writes, or pieces of 512 bytes or 4 KiB, or turn them into
 * zeros, by seed.  How many pieces. */
uint64_t damage_tear(struct random_source *r);

/* Flip bits: in blocks, in their headers, and anywhere.  How many. */
uint32_t damage_flip(struct random_source *r);

/* Was a bit flipped in a copy of this block, or in what says that the place where it lies is in
 * use?  Until it is known to be right again. */
bool damage_hit(const uint8_t key[32]);
/* Was one in the manifest of an archive that ends with this block? */
bool damage_hit_manifest(const uint8_t tip[32]);
void damage_healed(const uint8_t key[32]);

#endif
