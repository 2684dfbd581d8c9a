/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/hooks.h"
#include "daemon/store_inner.h"

/* Backed memory grows in pieces of this size, so that the budget is not asked for every block. */
#define BACK_STEP_BYTES ((uint64_t)64 << 20)

/* Victims that one scan of the pin tables decides about. */
#define BATCH 64

/* Blocks that one call of wf_store_look_ahead() looks at. */
#define LOOKS 1024u

/* One that another node has, too, goes before up to so many that nobody else has: where losing it
 * costs no more than this part of computing it.  A victim earns LOOKS_EACH looks for one. */
#define NEXT 256u
#define LOOKS_EACH 32u
#define CHEAP 0.75f

struct batch {
    uint32_t slot[BATCH];
    bool pinned[BATCH];
    bool elsewhere[BATCH]; /* it is there for that alone */
    uint32_t count;
    enum wf_choice choice;
    int16_t place[4 * BATCH]; /* open addressing: index + 1 in slot[] */
};

static uint32_t batch_home(uint32_t slot)
{
    return (slot * 2654435761u) >> 24;
}

static void batch_add(struct batch *batch, uint32_t slot)
{
    static_assert(4 * BATCH == 256, "batch_home gives 8 bits");
    uint32_t at = batch_home(slot);
    while (batch->place[at])
        at = (at + 1) % (4 * BATCH);
    batch->slot[batch->count] = slot;
    batch->elsewhere[batch->count++] = false;
    batch->place[at] = (int16_t)batch->count;
}

static void batch_seen(void *context, uint32_t slot)
{
    struct batch *batch = context;
    for (uint32_t at = batch_home(slot); batch->place[at]; at = (at + 1) % (4 * BATCH))
        if (batch->slot[batch->place[at] - 1] == slot)
            batch->pinned[batch->place[at] - 1] = true;
}

struct wf_gone wf_store_gone(const struct wf_store *store, uint32_t slot,
                             enum wf_evict_reason reason, enum wf_choice choice)
{
    struct wf_gone gone = {
        .bytes = atomic_load_explicit(&store->index.desc[slot].bytes, memory_order_relaxed),
        .age = store->policy_ops->age(store->policy, slot),
        .reason = reason,
        .candidates = store->policy_ops->candidates(store->policy) + 1,
    };
    uint32_t parent = parent_of(store, slot);
    if (parent != WF_SLOT_NONE) { /* it goes after what extends it, so its key is there yet */
        uint8_t key[32];
        wf_desc_key_read(&store->index.desc[parent], key);
        memcpy(gone.parent, key, sizeof gone.parent);
    }
    if (choice == WF_CHOICE_POLICY || choice == WF_CHOICE_ELSEWHERE)
        store->policy_ops->explain(store->policy, slot, &gone.why);
    else if (choice == WF_CHOICE_BESIDE)
        gone.why.rule = WF_GONE_BESIDE;
    return gone;
}

void wf_store_drop(struct wf_store *store, uint32_t slot, enum wf_evict_reason reason,
                   enum wf_choice choice)
{
    uint8_t key[32];
    wf_desc_key_read(&store->index.desc[slot], key);
    struct wf_gone gone = wf_store_gone(store, slot, reason, choice);
    gone.why.elsewhere = choice == WF_CHOICE_ELSEWHERE;
    store->elsewhere += gone.why.elsewhere;
    store->policy_ops->gone(store->policy, slot, name_of(store, slot));
    wf_index_remove(&store->index, slot);
    WF_CRASH("store.evict.unindexed");
    store->blocks--;
    release(store, slot);
    store->env.gone(store->env.context, key, &gone);
}

/* Take a candidate, which has left the policy, into the batch. */
static void batch_take(struct wf_store *store, struct batch *batch, uint32_t slot)
{
    assert(evictable(store, slot));
    /* seq_cst: the store half of the owner's store-then-load (index.h). */
    state_set(store, slot, WF_SLOT_EVICTING, memory_order_seq_cst);
    batch_add(batch, slot);
    child_unlink(store, parent_of(store, slot), slot);
}

/* What a round of eviction came to. */
struct round {
    uint64_t freed;       /* granules */
    uint64_t later;       /* granules that come free when they are written below */
    uint32_t passed_over; /* leaves that turned out to be pinned */
    bool stuck;           /* nothing more can be begun now */
    uint64_t keep;        /* of used_bytes; what goes, goes for another domain */
    bool kept;            /* the next victim would have left less */
    float bar;            /* for the policy's victim() */
};

/* May a block go that nobody holds?  What has children again may not, but is asked about all the
 * same, so that a chain is written below at once and not a block at a time. */
static bool may_go(struct wf_store *store, uint32_t slot, struct round *round)
{
    enum wf_leave leave = WF_LEAVE_NOW;
    if (round->stuck)
        return false;
    if (store->env.leave)
        leave = store->env.leave(store->env.context, slot);
    if (leave == WF_LEAVE_LATER)
        round->later += store->slots[slot].count;
    round->stuck = leave == WF_LEAVE_NOT;
    return leave == WF_LEAVE_NOW;
}

/* Look at the pin tables once and decide about the batch. */
static void batch_settle(struct wf_store *store, struct batch *batch, enum wf_evict_reason reason,
                         struct round *round)
{
    WF_CRASH("store.evict.marked");
    store->env.scan_pins(store->env.context, batch_seen, batch);
    for (uint32_t i = 0; i < batch->count; i++) {
        uint32_t slot = batch->slot[i];
        bool leaf = store->slots[slot].child == WF_SLOT_NONE;
        bool go = !batch->pinned[i] && may_go(store, slot, round) && leaf;
        if (go) {
            round->freed += store->slots[slot].count;
            wf_store_drop(store, slot, reason,
                          batch->elsewhere[i] ? WF_CHOICE_ELSEWHERE : batch->choice);
            continue;
        }
        round->passed_over += leaf && batch->pinned[i];
        state_set(store, slot, WF_SLOT_COMMITTED, memory_order_seq_cst);
        child_link(store, parent_of(store, slot), slot);
        if (batch->pinned[i])
            store->policy_ops->spared(store->policy, slot);
        offer(store, slot);
    }
}

/* The policy's next ones that nobody else has, in its order: they wait while there may be one
 * behind them that another node has, too, which is cheaper to lose. */
struct last_ones {
    uint32_t slot[BATCH + NEXT];
    uint32_t first, count; /* first: the next that goes of those that wait */
};

static bool is_cheap(const struct wf_store *store, uint32_t slot)
{
    return store->env.lose_part && store->env.lose_part(store->env.context, slot) <= CHEAP;
}

/* What the last one that went for being elsewhere extended goes for the same reason, when nothing
 * else extends it and it was not used since.  WF_SLOT_NONE: it is none such. */
static uint32_t chain_goes_on(struct wf_store *store)
{
    uint32_t slot = store->goes_on.slot;
    store->goes_on.slot = WF_SLOT_NONE;
    if (slot == WF_SLOT_NONE || wf_store_generation(store, slot) != store->goes_on.generation ||
        !store->policy_ops->holds(store->policy, slot) ||
        store->policy_ops->age(store->policy, slot) < store->goes_on.age || !is_cheap(store, slot))
        return WF_SLOT_NONE;
    store->policy_ops->leave(store->policy, slot);
    return slot;
}

static void chain_note(struct wf_store *store, uint32_t slot)
{
    uint32_t parent = parent_of(store, slot);
    store->goes_on.slot = parent;
    if (parent == WF_SLOT_NONE)
        return;
    store->goes_on.generation = wf_store_generation(store, parent);
    store->goes_on.age = store->policy_ops->age(store->policy, slot);
}

/* The next to go; it has left the policy.  What is looked at is earned by those that go, so that it
 * costs LOOKS_EACH a victim, as a mean, however few there are to be found. */
static uint32_t victim_next(struct wf_store *store, uint64_t now_us, float bar,
                            struct last_ones *last, bool *out_elsewhere)
{
    uint32_t goes_on = chain_goes_on(store);
    *out_elsewhere = goes_on != WF_SLOT_NONE;
    if (*out_elsewhere) {
        chain_note(store, goes_on);
        return goes_on;
    }
    store->looks += store->looks < NEXT ? LOOKS_EACH : 0;
    while (last->first == last->count || (store->looks && last->count - last->first < NEXT)) {
        uint32_t slot = last->count < BATCH + NEXT
                            ? store->policy_ops->victim(store->policy, now_us, bar)
                            : WF_POLICY_NONE;
        if (slot == WF_POLICY_NONE)
            break;
        store->looks -= store->looks > 0;
        if (is_cheap(store, slot)) {
            *out_elsewhere = last->count > last->first;
            chain_note(store, slot);
            return slot;
        }
        last->slot[last->count++] = slot;
        if (!store->env.lose_part)
            break;
    }
    return last->first < last->count ? last->slot[last->first++] : WF_POLICY_NONE;
}

/* Evict up to `granules` worth of blocks with one look at the pin tables.  False: nobody may go.
 *
 * Chains go from their ends, also inside one batch: taking a leaf may make its parent the next
 * victim.  When the leaf then turns out to be pinned, the parent has a child again and stays too.
 */
static bool evict_batch(struct wf_store *store, uint64_t granules, enum wf_evict_reason reason,
                        struct round *round)
{
    struct batch batch = {.choice = WF_CHOICE_POLICY};
    struct last_ones last = {.count = 0};
    uint64_t chosen = 0, now_us = clock_of(store);
    while (batch.count < BATCH && chosen < granules) {
        bool elsewhere;
        uint32_t slot = victim_next(store, now_us, round->bar, &last, &elsewhere);
        if (slot == WF_POLICY_NONE)
            break;
        uint64_t goes = (chosen + store->slots[slot].count) * WF_GRANULE;
        round->kept = round->keep && round->keep + goes > store->used_bytes;
        if (round->kept) {
            offer(store, slot);
            break;
        }
        chosen += store->slots[slot].count;
        batch_take(store, &batch, slot);
        batch.elsewhere[batch.count - 1] = elsewhere;
    }
    while (last.first < last.count)
        offer(store, last.slot[last.first++]);
    if (batch.count)
        batch_settle(store, &batch, reason, round);
    return batch.count > 0;
}

/* Evict a committed block with all that extends it, children first.  False when one of them has to
 * stay, or when they are more than a batch: some of them may have gone then. */
static bool evict_subtree(struct wf_store *store, uint32_t root)
{
    struct batch batch = {.choice = WF_CHOICE_BESIDE};
    uint32_t taken = WF_SLOT_NONE;
    while (taken != root && batch.count < BATCH) {
        uint32_t leaf = root;
        while (store->slots[leaf].child != WF_SLOT_NONE)
            leaf = store->slots[leaf].child;
        if (!evictable(store, leaf))
            break;
        store->policy_ops->leave(store->policy, leaf);
        batch_take(store, &batch, leaf);
        taken = leaf;
    }
    struct round round = {.freed = 0};
    batch_settle(store, &batch, WF_EVICT_ROOM, &round);
    return taken == root && state_of(store, root) == WF_SLOT_FREE;
}

/* Enough is free, but nowhere in one piece: evict what lies beside the range that came free last,
 * one block after the other, until `granules` are free together.  It costs blocks that were not the
 * policy's choice, but about as many bytes as are needed; going on in the policy's order might cost
 * all. */
static bool widen(struct wf_store *store, uint32_t granules)
{
    uint32_t range = store->freed_last;
    while (store->slots[range].count < granules) {
        uint32_t sides[2] = {store->slots[range].address_next,
                             store->slots[range].address_previous};
        bool wider = false;
        for (int i = 0; i < 2 && !wider; i++) {
            wider = sides[i] != WF_SLOT_NONE && state_of(store, sides[i]) == WF_SLOT_COMMITTED &&
                    evict_subtree(store, sides[i]);
            range = wf_arena_joined(&store->arena, range);
        }
        if (!wider)
            return false;
    }
    return true;
}

/* Evict at least one block, better `granules` worth.  Pinned ones among the candidates become the
 * most recently used and are passed over, each at most once: a batch that frees nothing, and begins
 * nothing, has met at least one of them, and only they count, not the chains above them.  Blocks
 * that have to be written below first are enough when they are as much as was asked for: then there
 * is nothing to do but wait. */
static bool evict_round(struct wf_store *store, uint64_t granules, enum wf_evict_reason reason,
                        struct round *round)
{
    uint32_t limit = store->policy_ops->candidates(store->policy);
    while (round->passed_over < limit && !round->stuck && round->later < granules) {
        if (!evict_batch(store, granules, reason, round))
            break;
        if (round->freed > 0)
            return true;
    }
    return false;
}

static bool evict_some(struct wf_store *store, uint64_t granules, enum wf_evict_reason reason,
                       float bar)
{
    struct round round = {.bar = bar};
    return evict_round(store, granules, reason, &round);
}

struct ahead {
    uint64_t granules; /* still to be looked at */
    uint32_t looks, begun;
    struct round round;
};

/* Ask env.leave about a leaf and then about what it alone extends, for these are the next to go. */
static void look_up_chain(struct wf_store *store, uint32_t slot, struct ahead *ahead)
{
    while (slot != WF_SLOT_NONE && ahead->looks > 0 && ahead->granules > 0) {
        uint64_t later = ahead->round.later;
        if (state_of(store, slot) == WF_SLOT_COMMITTED && store->slots[slot].holds == 0)
            (void)may_go(store, slot, &ahead->round);
        if (ahead->round.stuck)
            return;
        ahead->begun += ahead->round.later != later;
        ahead->looks--;
        ahead->granules -= ahead->granules < store->slots[slot].count ? ahead->granules
                                                                      : store->slots[slot].count;
        slot = parent_of(store, slot);
        if (slot != WF_SLOT_NONE &&
            store->slots[store->slots[slot].child].next != WF_SLOT_NONE) /* others extend it, too */
            return;
    }
}

uint32_t wf_store_look_ahead(struct wf_store *store, uint64_t bytes)
{
    uint32_t leaves[BATCH], count = 0;
    struct ahead ahead = {.granules = granules_for(bytes), .looks = LOOKS};
    uint64_t now_us = clock_of(store);
    while (count < BATCH && ahead.granules > 0 && ahead.looks > 0 && !ahead.round.stuck) {
        uint32_t slot = store->policy_ops->victim(store->policy, now_us, WF_POLICY_ANY);
        if (slot == WF_POLICY_NONE)
            break;
        leaves[count++] = slot;
        look_up_chain(store, slot, &ahead);
    }
    for (uint32_t i = 0; i < count; i++)
        offer(store, leaves[i]);
    return ahead.begun;
}

void wf_store_leaving(struct wf_store *store, uint32_t slot)
{
    store->leaving++;
    wf_store_hold(store, slot);
}

void wf_store_left(struct wf_store *store, uint32_t slot)
{
    store->leaving--;
    wf_store_unhold(store, slot);
}

bool wf_store_evict(struct wf_store *store, uint32_t slot, enum wf_evict_reason reason)
{
    struct batch batch = {.count = 0};
    struct round round = {.freed = 0};
    if (!evictable(store, slot))
        return false;
    store->policy_ops->leave(store->policy, slot);
    batch_take(store, &batch, slot);
    batch_settle(store, &batch, reason, &round);
    return round.freed > 0;
}

uint64_t wf_store_make_free(struct wf_store *store, uint64_t bytes, enum wf_evict_reason reason)
{
    while (store->arena.backed.granules * WF_GRANULE < bytes)
        if (!evict_some(store, granules_for(bytes) - store->arena.backed.granules, reason,
                        WF_POLICY_ANY))
            break;
    return store->arena.backed.granules * WF_GRANULE;
}

bool wf_store_give(struct wf_store *store, uint64_t bytes, uint64_t keep,
                   enum wf_evict_reason reason)
{
    while (store->arena.backed.granules * WF_GRANULE < bytes) {
        struct round round = {.keep = keep, .bar = WF_POLICY_ANY};
        uint64_t missing = granules_for(bytes) - store->arena.backed.granules;
        if (!evict_round(store, missing, reason, &round))
            return !round.kept;
    }
    return true;
}

/* More backed memory from the node, for at least `granules` in one piece. */
static bool grow(struct wf_store *store, uint32_t granules)
{
    uint64_t least = (uint64_t)granules * WF_GRANULE;
    uint64_t wanted = least > BACK_STEP_BYTES ? least : BACK_STEP_BYTES;
    uint64_t got = store->env.budget_take(store->env.context, least, wanted);
    if (got < least) {
        if (got)
            store->env.budget_give(store->env.context, got);
        return false;
    }
    uint32_t first = 0,
             count = wf_arena_back(&store->arena, granules, (uint32_t)(got / WF_GRANULE), &first);
    uint64_t backed = (uint64_t)count * WF_GRANULE;
    if (backed < got)
        store->env.budget_give(store->env.context, got - backed);
    store->backed_bytes += backed;
    if (count && store->env.backed)
        store->env.backed(store->env.context, first, count);
    return backed > 0;
}

/* Has the memory of a block that nobody finds any more come free, since nobody holds it? */
static bool bury_some(struct wf_store *store)
{
    uint64_t used = store->used_bytes;
    wf_store_bury(store);
    return store->used_bytes < used;
}

/* Is it the bar alone that keeps what could go? */
static enum weft_status full(struct wf_store *store, float bar)
{
    store->worth_more += bar < WF_POLICY_ANY && store->policy_ops->candidates(store->policy) > 0;
    return WEFT_FULL;
}

enum weft_status wf_store_make_room(struct wf_store *store, uint32_t granules, float bar,
                                    uint32_t *out_slot)
{
    uint64_t bytes = (uint64_t)granules * WF_GRANULE;
    if (bytes > store->quota_bytes || bytes > store->arena.granules * WF_GRANULE)
        return wf_fail(WEFT_E_QUOTA,
                       "a block of %llu bytes is more than the domain's quota of %llu; "
                       "raise domains[].quota",
                       (unsigned long long)bytes, (unsigned long long)store->quota_bytes);
    uint64_t others = store->other_bytes + bytes;
    while (store->used_bytes + others > store->quota_bytes) {
        uint64_t over = store->used_bytes + others - store->quota_bytes;
        if (!evict_some(store, granules_for(over), WF_EVICT_QUOTA, bar) && !bury_some(store))
            return full(store, bar);
    }
    for (bool evicted = false;;) {
        *out_slot = wf_arena_alloc(&store->arena, granules);
        if (*out_slot != WF_SLOT_NONE)
            return WEFT_OK;
        /* Neither more memory nor a larger piece is of use when it is slots that are missing. */
        bool nameable = wf_arena_has_slot(&store->arena);
        if (nameable && grow(store, granules))
            continue;
        /* freed_last is a free range only right after an eviction. */
        if (evicted && nameable && store->arena.backed.granules >= 2 * (uint64_t)granules &&
            widen(store, granules))
            continue;
        evicted = evict_some(store, granules, WF_EVICT_ROOM, bar);
        if (!evicted && !bury_some(store))
            return full(store, bar);
    }
}
