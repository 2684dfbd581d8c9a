/* SPDX-License-Identifier: Apache-2.0 */
#include "core/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "core/places.h"

#define OWNERS 2u

struct wf_shards {
    uint32_t owners, count;                         /* count: members */
    uint64_t owner[WF_SHARDS][WF_SHARD_OWNERS_MAX]; /* 0: none */
    uint64_t members[WF_SHARD_MEMBERS_MAX];         /* in order; next: while it is looked at */
    uint64_t next[WF_SHARD_MEMBERS_MAX];
};

enum weft_status wf_shards_create(uint32_t owners, struct wf_shards **out)
{
    if (owners > WF_SHARD_OWNERS_MAX)
        return wf_fail(WEFT_E_INVALID, "%u owners of each shard; it takes 1 to %u", owners,
                       WF_SHARD_OWNERS_MAX);
    struct wf_shards *shards = WF_FAILS("calloc") ? NULL : calloc(1, sizeof *shards);
    if (!shards)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a map of shards");
    shards->owners = owners ? owners : OWNERS;
    *out = shards;
    return WEFT_OK;
}

void wf_shards_destroy(struct wf_shards *shards)
{
    free(shards);
}

/* The finalizer of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* FNV-1a, and mixed: what is the same on all machines, whatever they are built with. */
uint64_t wf_shard_member(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 0x100000001b3u;
    hash = mix(hash);
    return hash ? hash : 1;
}

uint32_t wf_shard_of(const uint8_t key[32])
{
    return ((uint32_t)key[16] << 8 | key[17]) % WF_SHARDS;
}

static uint64_t lot(uint64_t member, uint32_t shard)
{
    return mix(member + mix(shard + 0x9e3779b97f4a7c15u));
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of these, who keeps the shard: the highest lots, in their order; equal ones go by the member.
 * `anew`: of these alone; otherwise of those that keep it, too. */
static void draw(struct wf_shards *shards, uint32_t shard, const uint64_t *members, uint32_t count,
                 bool anew)
{
    uint64_t lots[WF_SHARD_OWNERS_MAX] = {0}, *owner = shards->owner[shard];
    uint32_t found = 0;
    if (anew)
        memset(owner, 0, sizeof shards->owner[shard]);
    for (; found < shards->owners && owner[found]; found++)
        lots[found] = lot(owner[found], shard);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t its = lot(members[i], shard);
        uint32_t at = found < shards->owners ? found++ : found;
        for (; at > 0; at--) {
            if (lots[at - 1] > its || (lots[at - 1] == its && owner[at - 1] < members[i]))
                break;
            if (at < shards->owners) {
                lots[at] = lots[at - 1];
                owner[at] = owner[at - 1];
            }
        }
        if (at < shards->owners) {
            lots[at] = its;
            owner[at] = members[i];
        }
    }
}

/* Of two lists in order, what `a` has and `b` has not.  Returns how many. */
static uint32_t less(const uint64_t *a, uint32_t a_count, const uint64_t *b, uint32_t b_count,
                     uint64_t *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0, k = 0; i < a_count; i++) {
        while (k < b_count && b[k] < a[i])
            k++;
        if (k == b_count || b[k] != a[i])
            out[count++] = a[i];
    }
    return count;
}

static bool has_owner_of(const struct wf_shards *shards, uint32_t shard, const uint64_t *members,
                         uint32_t count)
{
    const uint64_t *owner = shards->owner[shard];
    bool any = false;
    for (uint32_t i = 0; i < shards->owners && owner[i] && count && !any; i++)
        any = bsearch(&owner[i], members, count, sizeof *members, by_number);
    return any;
}

enum weft_status wf_shards_set(struct wf_shards *shards, const uint64_t *members, uint32_t count)
{
    if (count > WF_SHARD_MEMBERS_MAX)
        return wf_fail(WEFT_E_LIMIT, "%u members; shards go by up to %u", count,
                       WF_SHARD_MEMBERS_MAX);
    uint64_t *next = shards->next;
    memcpy(next, members, count * sizeof *members);
    qsort(next, count, sizeof *next, by_number);
    for (uint32_t i = 0; i < count; i++) {
        if (!next[i] || (i && next[i] == next[i - 1]))
            return wf_fail(WEFT_E_INVALID, "a member twice, or none; each is there once");
    }
    uint64_t came[WF_SHARD_MEMBERS_MAX], went[WF_SHARD_MEMBERS_MAX];
    uint32_t came_count = less(next, count, shards->members, shards->count, came);
    uint32_t went_count = less(shards->members, shards->count, next, count, went);
    memcpy(shards->members, next, count * sizeof *next);
    shards->count = count;
    for (uint32_t shard = 0; shard < WF_SHARDS; shard++) {
        if (has_owner_of(shards, shard, went, went_count))
            draw(shards, shard, shards->members, count, true);
        else
            draw(shards, shard, came, came_count, false);
    }
    return WEFT_OK;
}

uint32_t wf_shards_owners(const struct wf_shards *shards, uint32_t shard,
                          uint64_t out[WF_SHARD_OWNERS_MAX])
{
    uint32_t count = 0;
    for (; count < shards->owners && shards->owner[shard % WF_SHARDS][count]; count++)
        out[count] = shards->owner[shard % WF_SHARDS][count];
    return count;
}

bool wf_shards_owns(const struct wf_shards *shards, uint32_t shard, uint64_t member)
{
    for (uint32_t i = 0; i < shards->owners; i++) {
        if (member && shards->owner[shard % WF_SHARDS][i] == member)
            return true;
    }
    return false;
}

void wf_shards_moved(const struct wf_shards *before, const struct wf_shards *after, uint64_t member,
                     struct wf_shards_moved *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t shard = 0; shard < WF_SHARDS; shard++) {
        bool had = before && wf_shards_owns(before, shard, member);
        bool has = wf_shards_owns(after, shard, member);
        if (has && !had) {
            out->gained[shard / 64] |= (uint64_t)1 << shard % 64;
            out->gained_count++;
        } else if (had && !has) {
            out->lost[shard / 64] |= (uint64_t)1 << shard % 64;
            out->lost_count++;
        }
    }
}

/* ----------------------------------------------------------------------------- which of the two */

static uint64_t part_of(double all, const struct wf_shard_need *need)
{
    uint32_t owners = need->owners ? need->owners : OWNERS;
    double part = need->members > owners ? (double)owners / need->members : 1;
    return (uint64_t)(all * part);
}

void wf_shard_decide(const struct wf_shard_need *need, struct wf_shard_size *out)
{
    *out = (struct wf_shard_size){.full_bytes = wf_places_bytes(need->copies),
                                  .full_bytes_s = need->changes_s * WF_SHARD_CHANGE_BYTES};
    out->part_bytes = wf_places_bytes(part_of((double)need->copies, need));
    out->part_bytes_s = (double)part_of(out->full_bytes_s, need);
    out->copies_max = (uint64_t)((double)need->budget_bytes * (double)need->copies /
                                 (double)(out->full_bytes ? out->full_bytes : 1));
    bool network = need->budget_bytes_s > 0;
    if (out->part_bytes > need->budget_bytes ||
        (network && out->part_bytes_s > need->budget_bytes_s))
        out->rule = WF_SHARD_TOO_MUCH;
    else if (out->full_bytes > need->budget_bytes)
        out->rule = WF_SHARD_MEMORY;
    else if (network && out->full_bytes_s > need->budget_bytes_s)
        out->rule = WF_SHARD_NETWORK;
}

int wf_shard_say(const struct wf_shard_need *need, const struct wf_shard_size *size, char *out,
                 size_t bytes)
{
    double mib = 0x1p20;
    const char *what = size->rule == WF_SHARD_FULL ? "each node knows all copies"
                                                   : "each node knows a part of all copies";
    const char *why = size->rule == WF_SHARD_FULL       ? "within"
                      : size->rule == WF_SHARD_NETWORK  ? "for the network; within"
                      : size->rule == WF_SHARD_TOO_MUCH ? "and that is more than is allowed, too;"
                                                        : "more than";
    return snprintf(out, bytes,
                    "%s: %llu copies take %.1f MiB and %.2f MB/s on each of %u nodes whole, %.1f "
                    "MiB and %.2f MB/s in parts; whole is %s %.1f MiB",
                    what, (unsigned long long)need->copies, (double)size->full_bytes / mib,
                    size->full_bytes_s * 1e-6, need->members, (double)size->part_bytes / mib,
                    size->part_bytes_s * 1e-6, why, (double)need->budget_bytes / mib);
}
