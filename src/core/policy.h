/* SPDX-License-Identifier: Apache-2.0
 *
 * Which block goes next: the interface of an eviction policy.
 *
 * A policy is told of blocks by slot number and answers with slot numbers; it does no I/O and takes
 * no time of its own: the clock is what it is told.  The hard rules stand above it: it is only ever
 * offered blocks that may go (`enter`: a leaf of its chain, of no decoding session), and whoever
 * asks for a victim still checks that nobody holds it.
 *
 * The daemon and the simulator call the same object in the same order: a request is its blocks'
 * `used`, from the beginning of the chain on, those that were there and those that are new alike.
 *
 * All calls are O(log n) or better in the blocks held.  One thread.
 */
#ifndef WF_CORE_POLICY_H
#define WF_CORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_POLICY_NONE UINT32_MAX
#define WF_POLICY_LOOKS 65536u

struct wf_policy;

/* A block is new, or was read; or it was brought up, and then nobody is the reader. */
struct wf_policy_use {
    uint32_t slot, parent; /* parent: WF_POLICY_NONE when it begins a chain */
    uint32_t reader;       /* whose request: uses of one reader along a chain are one */
    uint64_t key;          /* a part of the block's key: what it is known by when it is gone */
    uint64_t now_us;
    /* Seconds that it takes to have it again once it went (computed where it stands, or read from
     * below, where a copy lies or will), for each GiB of its size.  0: as it was, of what is new as
     * of the block that was told of before it; while nobody says anything, all are alike. */
    float cost_s_gib;
};

/* Room is wanted for blocks that are new, a part of one chain, in its order. */
struct wf_policy_ask {
    uint32_t parent, reader; /* as they are to be in the use of the first */
    uint32_t count;
    const uint64_t *keys;
    uint64_t now_us;
};
#define WF_POLICY_ANY __builtin_inff() /* for a bar: whatever is next may go */

/* What somebody says of a chain; how far it is believed is the policy's business. */
enum wf_policy_hint_kind {
    WF_POLICY_OUTPUT = 0, /* its last request made so many tokens */
    WF_POLICY_WANTED,     /* it will be wanted again while that is worth the room */
    WF_POLICY_DONE,       /* it will not */
    WF_POLICY_WEIGHS,     /* waiting for this block counts that much; no matter of belief */
};
struct wf_policy_hint {
    enum wf_policy_hint_kind kind;
    uint32_t
        slot; /* the end of the chain; what is said of all of it is said of each of its blocks */
    uint32_t output_tokens;
    float weight; /* above 0; 1: what it counts when nobody says so */
};

/* Why a block is where it is in the order. */
struct wf_policy_reason {
    const char *rule;  /* which order stands: a policy's name */
    bool knows;        /* what follows; an order without a model of uses does not */
    double value;      /* expected hits a block-second, on the horizon that makes most of it */
    double cost_s_gib; /* to have it again, about as it was told; 0: it was not */
    double chance;     /* that it is wanted again at all, as far ahead as the policy looks */
    double age_s;      /* since its last use */
    uint32_t turn;     /* requests that this chain had before */
    double weight;     /* of its waiting, as somebody said; 1 as a rule */
    int hint;          /* -1: none; else enum wf_policy_hint_kind */
    int aside;         /* below 0: cooled, and first to go; above: last, until it is older */
    bool elsewhere;    /* who asked for a victim took it for that: another node has it, too, and
                          nobody else has what would have gone */
};

struct wf_policy_ops {
    const char *name;
    enum weft_status (*create)(uint32_t slots_max, struct wf_policy **out);
    void (*destroy)(struct wf_policy *policy);

    void (*used)(struct wf_policy *policy, const struct wf_policy_use *use);
    void (*hint)(struct wf_policy *policy, const struct wf_policy_hint *hint);
    /* It is in this slot again, or was there, because somebody is to come for it: that is no use,
     * neither now nor for what is learned, and the chain is no request older.  It is not the next
     * to go before it is older. */
    void (*brought)(struct wf_policy *policy, const struct wf_policy_use *use);
    void (*cool)(struct wf_policy *policy, uint32_t slot);  /* not wanted for a while: goes first */
    void (*enter)(struct wf_policy *policy, uint32_t slot); /* may go from now on */
    void (*leave)(struct wf_policy *policy, uint32_t slot); /* may not; no-op when it was not in */
    bool (*holds)(const struct wf_policy *policy, uint32_t slot); /* entered and not left? */
    /* How far up the order room may be made for each of these: a bar for victim().  For a host that
     * loses what it lets go; where that lies below, nothing is lost that is worth a refusal. */
    void (*ask)(struct wf_policy *policy, const struct wf_policy_ask *ask, float *bars);
    /* Of what was asked for just now, all from `first` on found no room: it is known as if it had
     * been there and gone. */
    void (*refused)(struct wf_policy *policy, const struct wf_policy_ask *ask, uint32_t first);
    /* The one to go; it has left.  WF_POLICY_NONE: none, or the next is above the bar. */
    uint32_t (*victim)(struct wf_policy *policy, uint64_t now_us, float bar);
    /* It was a victim and turned out to be held: not again soon. */
    void (*spared)(struct wf_policy *policy, uint32_t slot);
    /* Its block is no more; the slot may be another's soon.  `key` as it was used. */
    void (*gone)(struct wf_policy *policy, uint32_t slot, uint64_t key);
    uint32_t (*candidates)(const struct wf_policy *policy);

    /* Uses of all blocks so far, and uses of others since this one's last. */
    uint64_t (*uses)(const struct wf_policy *policy);
    uint64_t (*age)(const struct wf_policy *policy, uint32_t slot);
    void (*explain)(struct wf_policy *policy, uint32_t slot, struct wf_policy_reason *out);
    /* About so many of those that may go would go before it; WF_POLICY_NONE: it may not itself.
     * O(candidates), but no more than WF_POLICY_LOOKS. */
    uint32_t (*before)(const struct wf_policy *policy, uint32_t slot);
};

extern const struct wf_policy_ops wf_policy_lru;
extern const struct wf_policy_ops wf_policy_value; /* "weft" */

#endif
