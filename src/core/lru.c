/* SPDX-License-Identifier: Apache-2.0
 *
 * Least recently used, among the blocks that may go.
 *
 * A list would do if blocks became evictable in the order of their use.  They do not: a parent
 * becomes a leaf when its last child goes, with a last use long past.  So: a binary heap by last
 * use, and each slot's place in it.  16 bytes a slot.
 */
#include <stdlib.h>

#include "base/hooks.h"
#include "core/policy.h"

struct wf_policy {
    uint64_t clock;
    uint32_t slots_max, count;
    uint64_t *last;  /* [slots_max] clock at last use */
    uint32_t *place; /* [slots_max] index in heap + 1; 0: not in */
    uint32_t *heap;  /* [slots_max] slots, oldest first */
};

static void put(struct wf_policy *policy, uint32_t at, uint32_t slot)
{
    policy->heap[at] = slot;
    policy->place[slot] = at + 1;
}

static void sift_up(struct wf_policy *policy, uint32_t at)
{
    uint32_t slot = policy->heap[at];
    while (at > 0) {
        uint32_t above = (at - 1) / 2;
        if (policy->last[policy->heap[above]] <= policy->last[slot])
            break;
        put(policy, at, policy->heap[above]);
        at = above;
    }
    put(policy, at, slot);
}

static void sift_down(struct wf_policy *policy, uint32_t at)
{
    uint32_t slot = policy->heap[at];
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below >= policy->count)
            break;
        if (below + 1 < policy->count &&
            policy->last[policy->heap[below + 1]] < policy->last[policy->heap[below]])
            below++;
        if (policy->last[policy->heap[below]] >= policy->last[slot])
            break;
        put(policy, at, policy->heap[below]);
        at = below;
    }
    put(policy, at, slot);
}

static void lru_destroy(struct wf_policy *policy)
{
    if (!policy)
        return;
    free(policy->last);
    free(policy->place);
    free(policy->heap);
    free(policy);
}

static void *table(size_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

static enum weft_status lru_create(uint32_t slots_max, struct wf_policy **out)
{
    struct wf_policy *policy = table(1, sizeof *policy);
    if (policy) {
        policy->slots_max = slots_max;
        policy->last = table(slots_max, sizeof *policy->last);
        policy->place = table(slots_max, sizeof *policy->place);
        policy->heap = table(slots_max, sizeof *policy->heap);
    }
    if (!policy || !policy->last || !policy->place || !policy->heap) {
        lru_destroy(policy);
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for the eviction policy of %u blocks",
                       slots_max);
    }
    *out = policy;
    return WEFT_OK;
}

static void use(struct wf_policy *policy, uint32_t slot)
{
    policy->last[slot] = ++policy->clock;
    if (policy->place[slot])
        sift_down(policy, policy->place[slot] - 1);
}

static void lru_used(struct wf_policy *policy, const struct wf_policy_use *given)
{
    use(policy, given->slot);
}

/* As young as the last use. */
static void lru_brought(struct wf_policy *policy, const struct wf_policy_use *given)
{
    policy->last[given->slot] = policy->clock;
    if (policy->place[given->slot])
        sift_down(policy, policy->place[given->slot] - 1);
}

static void lru_hint(struct wf_policy *policy, const struct wf_policy_hint *hint)
{
    (void)policy;
    (void)hint;
}

static void lru_cool(struct wf_policy *policy, uint32_t slot)
{
    policy->last[slot] = 0;
    if (policy->place[slot])
        sift_up(policy, policy->place[slot] - 1);
}

static void lru_enter(struct wf_policy *policy, uint32_t slot)
{
    if (policy->place[slot])
        return;
    policy->heap[policy->count] = slot;
    policy->count++;
    sift_up(policy, policy->count - 1);
}

static void lru_leave(struct wf_policy *policy, uint32_t slot)
{
    if (!policy->place[slot])
        return;
    uint32_t at = policy->place[slot] - 1;
    policy->place[slot] = 0;
    uint32_t moved = policy->heap[--policy->count];
    if (at == policy->count)
        return;
    put(policy, at, moved);
    sift_down(policy, at);
    sift_up(policy, policy->place[moved] - 1);
}

static bool lru_holds(const struct wf_policy *policy, uint32_t slot)
{
    return policy->place[slot] != 0;
}

/* What is new was used last of all. */
static void lru_ask(struct wf_policy *policy, const struct wf_policy_ask *ask, float *bars)
{
    (void)policy;
    for (uint32_t i = 0; i < ask->count; i++)
        bars[i] = WF_POLICY_ANY;
}

static void lru_refused(struct wf_policy *policy, const struct wf_policy_ask *ask, uint32_t first)
{
    (void)policy;
    (void)ask;
    (void)first;
}

static uint32_t lru_victim(struct wf_policy *policy, uint64_t now_us, float bar)
{
    (void)now_us;
    (void)bar;
    if (policy->count == 0)
        return WF_POLICY_NONE;
    uint32_t slot = policy->heap[0];
    lru_leave(policy, slot);
    return slot;
}

static void lru_gone(struct wf_policy *policy, uint32_t slot, uint64_t key)
{
    (void)policy;
    (void)slot;
    (void)key;
}

static uint32_t lru_candidates(const struct wf_policy *policy)
{
    return policy->count;
}

static uint64_t lru_uses(const struct wf_policy *policy)
{
    return policy->clock;
}

static uint64_t lru_age(const struct wf_policy *policy, uint32_t slot)
{
    return policy->clock - policy->last[slot];
}

static void lru_explain(struct wf_policy *policy, uint32_t slot, struct wf_policy_reason *out)
{
    (void)policy;
    (void)slot;
    *out = (struct wf_policy_reason){.rule = "lru_leaf", .hint = -1};
}

static uint32_t lru_before(const struct wf_policy *policy, uint32_t slot)
{
    uint32_t step = policy->count / WF_POLICY_LOOKS + 1, count = 0, looks = 0;
    if (!policy->count || !policy->place[slot])
        return WF_POLICY_NONE;
    for (uint32_t at = 0; at < policy->count; at += step, looks++)
        count += policy->last[policy->heap[at]] < policy->last[slot];
    return (uint32_t)((uint64_t)count * policy->count / looks);
}

const struct wf_policy_ops wf_policy_lru = {
    .name = "lru_leaf",
    .create = lru_create,
    .destroy = lru_destroy,
    .used = lru_used,
    .hint = lru_hint,
    .brought = lru_brought,
    .cool = lru_cool,
    .enter = lru_enter,
    .leave = lru_leave,
    .holds = lru_holds,
    .ask = lru_ask,
    .refused = lru_refused,
    .victim = lru_victim,
    .spared = use,
    .gone = lru_gone,
    .candidates = lru_candidates,
    .uses = lru_uses,
    .age = lru_age,
    .explain = lru_explain,
    .before = lru_before,
};
