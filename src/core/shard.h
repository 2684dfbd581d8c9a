/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory of who holds what in parts: which member keeps which shard of it.
 *
 * Where every node knows all copies (core/places.h) an answer costs no message, and each node pays
 * for all copies in memory and for all changes on the wire.  Past the size at which that stops
 * paying, the directory is cut into WF_SHARDS by the key, and each shard is kept by a few members.
 *
 * Who keeps it follows from the members' names alone, by rendezvous hashing (D. Thaler and C.
 * Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 1998): each member
 * draws a lot for each shard, and the highest lots keep it.  So nobody has to agree on anything but
 * the list of members, and when one of n comes or goes, a share of owners ÷ n moves and nothing
 * else.
 *
 * One thread; nothing allocates after create.  wf_shards_set() draws for those members that the
 * list before had not, O(WF_SHARDS) each, and anew where an owner went, which is a share of owners
 * ÷ members of all shards for each that did: O(WF_SHARDS) as well.
 */
#ifndef WF_CORE_SHARD_H
#define WF_CORE_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_SHARDS 4096u
#define WF_SHARD_WORDS (WF_SHARDS / 64) /* of a bitmap of shards */
#define WF_SHARD_OWNERS_MAX 4u
#define WF_SHARD_MEMBERS_MAX 4096u

struct wf_shards;

/* `owners` of each shard: 1 … WF_SHARD_OWNERS_MAX; 0: 2. */
enum weft_status wf_shards_create(uint32_t owners, struct wf_shards **out);
/* NULL: nothing. */
void wf_shards_destroy(struct wf_shards *shards);

/* What a member is known by here, from its name; never 0. */
uint64_t wf_shard_member(const char *name);
/* The shard of a key. */
uint32_t wf_shard_of(const uint8_t key[32]);

/* These are the members, in any order.  WEFT_E_LIMIT: more than WF_SHARD_MEMBERS_MAX;
 * WEFT_E_INVALID: one of them twice; then all is as it was. */
enum weft_status wf_shards_set(struct wf_shards *shards, const uint64_t *members, uint32_t count);

/* Who keeps a shard, the first to ask first.  Returns how many: all members, where there are fewer
 * than owners. */
uint32_t wf_shards_owners(const struct wf_shards *shards, uint32_t shard,
                          uint64_t out[WF_SHARD_OWNERS_MAX]);
bool wf_shards_owns(const struct wf_shards *shards, uint32_t shard, uint64_t member);

/* From one list of members to another: what a member keeps now and did not keep, and the other way
 * round; bitmaps.  `before` NULL: there was none. */
struct wf_shards_moved {
    uint64_t gained[WF_SHARD_WORDS], lost[WF_SHARD_WORDS];
    uint32_t gained_count, lost_count;
};
void wf_shards_moved(const struct wf_shards *before, const struct wf_shards *after, uint64_t member,
                     struct wf_shards_moved *out);

/* -------------------------------------------------------------------------- which of the two
 *
 * All on each node costs its bytes for each copy and each change; in parts it is owners ÷ members
 * of that, and a message to an owner for each chain that is asked about. */
struct wf_shard_need {
    uint64_t copies;  /* in the whole cluster */
    double changes_s; /* copies that come and go, a second, in the whole cluster */
    uint32_t members, owners;
    uint64_t budget_bytes; /* of memory, on a node */
    double budget_bytes_s; /* of its network, for changes; 0: no limit */
};

enum wf_shard_rule {
    WF_SHARD_FULL = 0, /* each node knows all */
    WF_SHARD_MEMORY,   /* in parts: all is more than its memory may be */
    WF_SHARD_NETWORK,  /* in parts: all changes are more than may come in */
    WF_SHARD_TOO_MUCH, /* in parts, and they are more than the budget, too */
};

#define WF_SHARD_CHANGE_BYTES 40u /* of a change on the wire: a key, a node, what happened */

struct wf_shard_size {
    enum wf_shard_rule rule;
    uint64_t full_bytes, part_bytes; /* on a node */
    double full_bytes_s, part_bytes_s;
    uint64_t copies_max; /* so many fit when each node knows all */
};

void wf_shard_decide(const struct wf_shard_need *need, struct wf_shard_size *out);
/* In one sentence, without a full stop; as snprintf. */
int wf_shard_say(const struct wf_shard_need *need, const struct wf_shard_size *size, char *out,
                 size_t bytes);

#endif
