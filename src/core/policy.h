/* SPDX-License-Identifier: Apache-2.0
 *
 * Which block goes next: the interface of an eviction policy.
 *
 * A policy is told of blocks by slot number and answers with slot numbers; it does no I/O and takes
 * no time of its own.  The hard rules stand above it: it is only ever offered blocks that may go
 * (`enter`: a leaf of its chain, of no decoding session), and whoever asks for a victim still
 * checks that nobody holds it.
 *
 * All calls are O(log n) or better in the blocks held.  One thread.
 */
#ifndef WF_CORE_POLICY_H
#define WF_CORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_POLICY_NONE UINT32_MAX

struct wf_policy;

struct wf_policy_ops {
    const char *name;
    enum weft_status (*create)(uint32_t slots_max, struct wf_policy **out);
    void (*destroy)(struct wf_policy *policy);

    void (*used)(struct wf_policy *policy, uint32_t slot);  /* new, or read */
    void (*cool)(struct wf_policy *policy, uint32_t slot);  /* not wanted for a while: goes first */
    void (*enter)(struct wf_policy *policy, uint32_t slot); /* may go from now on */
    void (*leave)(struct wf_policy *policy, uint32_t slot); /* may not; no-op when it was not in */
    bool (*holds)(const struct wf_policy *policy, uint32_t slot); /* entered and not left? */
    /* The one to go; it has left.  WF_POLICY_NONE: none. */
    uint32_t (*victim)(struct wf_policy *policy);
    uint32_t (*candidates)(const struct wf_policy *policy);

    /* Uses of all blocks so far, and uses of others since this one's last. */
    uint64_t (*uses)(const struct wf_policy *policy);
    uint64_t (*age)(const struct wf_policy *policy, uint32_t slot);
};

extern const struct wf_policy_ops wf_policy_lru;

#endif
