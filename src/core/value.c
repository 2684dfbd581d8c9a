/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction by value: what goes next is what gives the fewest hits for the room that it holds.
 *
 * This is the policy as policy.h wants it; value.h says how it is built.  64 bytes a slot, and what
 * does not depend on slots: the model, the guard's sample, the buffer of the request that is open.
 * O(log n) a call, O(length) once a request, and a bounded number of segments that grow older once
 * a tick; when another order comes to stand, O(n), at most once in as many uses of blocks as there
 * are blocks.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "core/value.h"

/* A pool has slots for the smallest blocks that it expects, and most are never taken: their memory
 * is not written before they are. */
static struct seat *seat_known(struct wf_policy *p, uint32_t slot)
{
    for (; p->seats_known <= slot; p->seats_known++)
        p->seats[p->seats_known].segment = NONE;
    return &p->seats[slot];
}

static uint32_t segment_of(const struct wf_policy *p, uint32_t slot)
{
    return slot < p->seats_known ? p->seats[slot].segment : NONE;
}

static void cost_told(struct wf_policy *p, const struct wf_policy_use *use)
{
    unsigned cost = wf_value_cost_code(use->cost_s_gib);
    struct seat *seat = &p->seats[use->slot];
    p->cost = cost ? cost : p->cost;
    if (cost || seat->segment == NONE)
        seat->cost = p->cost & (COST_CODES - 1);
}

static void value_used(struct wf_policy *p, const struct wf_policy_use *use)
{
    struct seat *seat = seat_known(p, use->slot);
    cost_told(p, use);
    wf_value_advance(p, use->now_us);
    uint32_t end = p->open.count ? p->open.slots[p->open.count - 1] : NONE;
    p->uses++;
    if (use->slot == end) {
        p->open.uses = (uint32_t)p->uses;
        return;
    }
    if (p->open.count &&
        (use->parent != end || use->reader != p->open.reader || p->open.count == OPEN_BLOCKS_MAX))
        wf_value_judge(p);
    if (!p->open.count) {
        p->open.reader = use->reader;
        p->open.parent = use->parent;
    }
    p->open.uses = (uint32_t)p->uses;
    p->open.slots[p->open.count] = use->slot;
    p->open.keys[p->open.count++] = use->key;
    if (seat->segment == NONE) {
        seat->segment = OPEN;
        p->held++;
    }
}

/* It is its segment's age that goes on, and the model learns of it what it would have learned of
 * what is not there. */
static void value_brought(struct wf_policy *p, const struct wf_policy_use *use)
{
    struct seat *seat = seat_known(p, use->slot);
    cost_told(p, use);
    if (seat->segment == NONE) {
        wf_value_seat_bring(p, use->slot, use->parent, use->key);
        p->held++;
    }
    if (seat->segment == OPEN) /* somebody has come for it */
        return;
    struct segment *s = &p->segments[seat->segment];
    if (s->bucket == WF_VALUE_BUCKETS) /* it gets no older, and would stay for ever */
        return;
    wf_value_worth_set(p, seat->segment, INFINITY);
    s->brought = 1;
}

/* In what it takes to have the block again, as it was told of the last. */
static void weight_set(struct wf_policy *p, uint32_t slot, float weight)
{
    uint32_t number = p->seats[slot].segment;
    bool plain = weight == 1 && !p->cost;
    unsigned code = plain ? 0 : wf_value_cost_code(weight * wf_value_cost(p->cost));
    p->seats[slot].cost = code & (COST_CODES - 1);
    if (p->segments[number].entered == slot)
        wf_value_cost_set(p, number, code);
}

static void value_hint(struct wf_policy *p, const struct wf_policy_hint *hint)
{
    wf_value_judge(p);
    uint32_t number = segment_of(p, hint->slot);
    if (number >= OPEN)
        return;
    if (hint->kind == WF_POLICY_WEIGHS) {
        weight_set(p, hint->slot, hint->weight);
        return;
    }
    struct segment *s = &p->segments[number];
    struct wf_value_kind kind = wf_value_kind_of(s);
    unsigned says = hint->kind == WF_POLICY_WANTED ? 1 : 2;
    if (hint->kind == WF_POLICY_OUTPUT) {
        kind.bin[WF_VALUE_OUTPUT] = wf_value_octave(hint->output_tokens);
        wf_value_bins_set(s, &kind);
    } else if (s->hint != says) {
        s->hint = says & 3;
    } else {
        return;
    }
    wf_value_changed(p, number);
}

static void value_cool(struct wf_policy *p, uint32_t slot)
{
    wf_value_judge(p);
    uint32_t number = segment_of(p, slot);
    if (number >= OPEN)
        return;
    p->segments[number].brought = 0;
    wf_value_worth_set(p, number, -1);
}

static void value_enter(struct wf_policy *p, uint32_t slot)
{
    struct seat *seat = seat_known(p, slot);
    if (seat->in)
        return;
    seat->in = 1;
    p->count++;
    if (seat->segment == OPEN)
        return; /* when its request is judged */
    if (seat->segment == NONE) {
        struct wf_value_kind kind = {.hint = 0};
        p->held++;
        wf_value_seat_take(p, slot, wf_value_segment_new(p, &kind));
    }
    wf_value_seat_enter(p, slot);
}

static void value_leave(struct wf_policy *p, uint32_t slot)
{
    if (!p->seats[slot].in)
        return;
    p->seats[slot].in = 0;
    p->count--;
    wf_value_seat_withdraw(p, slot);
}

static bool value_holds(const struct wf_policy *p, uint32_t slot)
{
    return p->seats[slot].in;
}

static void value_ask(struct wf_policy *p, const struct wf_policy_ask *ask, float *bars)
{
    wf_value_judge(p);
    wf_value_advance(p, ask->now_us);
    wf_value_ask(p, ask, bars);
}

static uint32_t value_victim(struct wf_policy *p, uint64_t now_us, float bar)
{
    wf_value_judge(p);
    wf_value_advance(p, now_us);
    wf_guard_full(p->guard, p->held);
    if (!p->heap_count)
        return WF_POLICY_NONE;
    const struct segment *next = &p->segments[p->heap[0]];
    /* When all that is left was set aside, that says nothing of what it is worth. */
    float worth = next->worth;
    if (isinf(worth) && bar < WF_POLICY_ANY)
        worth = wf_value_worth(p, p->heap[0], WF_GUARD_VALUE);
    if (bar < WF_POLICY_ANY)
        worth = wf_value_at_bar(worth, next->cost, p->asked.cost);
    bool above = worth > bar && wf_guard_stands(p->guard) == WF_GUARD_VALUE;
    if (above && wf_value_wanted_again(next))
        return WF_POLICY_NONE;
    uint32_t slot = next->entered;
    value_leave(p, slot);
    return slot;
}

static void value_spared(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = segment_of(p, slot);
    if (number < OPEN)
        wf_value_worth_set(p, number, INFINITY); /* until it is older */
}

static void value_gone(struct wf_policy *p, uint32_t slot, uint64_t key)
{
    wf_value_judge(p);
    value_leave(p, slot);
    struct seat *seat = seat_known(p, slot);
    if (seat->segment < OPEN) {
        if (!p->segments[seat->segment].unknown)
            wf_value_ghost_add(p, key, seat->segment, seat->fan);
        wf_value_seat_leave(p, slot);
        p->held--;
    }
    *seat = (struct seat){.segment = NONE};
}

static uint32_t value_candidates(const struct wf_policy *p)
{
    return p->count;
}

static uint64_t value_uses(const struct wf_policy *p)
{
    return p->uses;
}

static uint64_t value_age(const struct wf_policy *p, uint32_t slot)
{
    uint32_t number = segment_of(p, slot);
    bool last = p->open.count && p->open.slots[p->open.count - 1] == slot;
    uint32_t uses = number < OPEN && !last ? p->segments[number].uses : p->open.uses;
    return (uint32_t)p->uses - uses;
}

static const char *const rules[WF_GUARD_ORDERS] = {"weft", "lru_leaf", "lfuda"};

static bool told_before(const struct wf_policy *p, uint32_t number)
{
    const struct segment *s = &p->segments[number];
    return p->told.number == number && p->told.generation == s->generation &&
           p->told.uses == s->uses && p->told.ticks == p->now;
}

static void value_explain(struct wf_policy *p, uint32_t slot, struct wf_policy_reason *out)
{
    uint32_t number = segment_of(p, slot);
    *out = (struct wf_policy_reason){.rule = rules[wf_guard_stands(p->guard)], .hint = -1};
    if (number >= OPEN)
        return;
    const struct segment *s = &p->segments[number];
    if (told_before(p, number)) {
        *out = p->told.reason;
    } else {
        struct wf_value_kind kind = wf_value_kind_of(s);
        out->knows = true;
        out->value = (double)wf_value_density(p, number);
        out->age_s = (double)wf_value_age_s(p, s);
        out->turn = kind.bin[WF_VALUE_TURN];
        if (s->bucket < WF_VALUE_BUCKETS)
            out->chance = (double)wf_value_chance(&p->model, &kind, s->bucket);
        p->told.number = number;
        p->told.generation = s->generation;
        p->told.uses = s->uses;
        p->told.ticks = p->now;
        p->told.reason = *out;
    }
    out->aside = s->worth < 0 ? -1 : isinf(s->worth) ? 1 : 0;
    unsigned cost = p->seats[slot].cost;
    out->cost_s_gib = p->cost ? (double)wf_value_cost(cost) : 0;
    out->weight = (double)(wf_value_cost(cost) / wf_value_cost(p->cost));
    out->hint = s->hint == 1 ? WF_POLICY_WANTED : s->hint == 2 ? WF_POLICY_DONE : -1;
}

static uint32_t value_before(const struct wf_policy *p, uint32_t slot)
{
    uint32_t number = segment_of(p, slot);
    if (number >= OPEN || p->segments[number].entered != slot)
        return WF_POLICY_NONE;
    return wf_value_before(p, number);
}

static void value_destroy(struct wf_policy *p)
{
    if (!p)
        return;
    wf_guard_destroy(p->guard);
    free(p->seats);
    free(p->segments);
    free(p->heap);
    free(p->ghosts);
    free(p->open.slots);
    free(p->open.keys);
    free(p);
}

static void *table(size_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

static bool tables_make(struct wf_policy *p)
{
    uint32_t open = p->slots_max < OPEN_BLOCKS_MAX ? p->slots_max : OPEN_BLOCKS_MAX;
    p->seats = table(p->slots_max, sizeof *p->seats);
    p->segments = table(p->slots_max, sizeof *p->segments);
    p->heap = table(p->slots_max, sizeof *p->heap);
    p->ghosts = table(p->ghost_lines, sizeof *p->ghosts);
    p->open.slots = table(open, sizeof *p->open.slots);
    p->open.keys = table(open, sizeof *p->open.keys);
    p->guard = wf_guard_create(p->slots_max);
    return p->seats && p->segments && p->heap && p->ghosts && p->open.slots && p->open.keys &&
           p->guard;
}

static enum weft_status value_create(uint32_t slots_max, struct wf_policy **out)
{
    struct wf_policy *p = table(1, sizeof *p);
    if (p) {
        p->slots_max = slots_max;
        p->ghost_lines = GHOST_LINES(slots_max);
    }
    if (!p || !tables_make(p)) {
        value_destroy(p);
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for the eviction policy of %u blocks",
                       slots_max);
    }
    p->free = NONE;
    p->told.number = NONE;
    memset(p->age, 0xff, sizeof p->age);
    memset(&p->dead, 0xff, sizeof p->dead);
    for (uint32_t i = 0; i < RECENT; i++)
        p->recent[i].segment = NONE;
    wf_value_model_init_known(&p->model);
    for (unsigned i = 0; i <= WF_VALUE_BUCKETS; i++)
        p->edge[i] = (uint32_t)((double)p->model.edge[i] * TICKS_PER_S + 0.5);
    *out = p;
    return WEFT_OK;
}

const struct wf_policy_ops wf_policy_value = {
    .name = "weft",
    .create = value_create,
    .destroy = value_destroy,
    .used = value_used,
    .hint = value_hint,
    .brought = value_brought,
    .cool = value_cool,
    .enter = value_enter,
    .leave = value_leave,
    .holds = value_holds,
    .ask = value_ask,
    .refused = wf_value_refused,
    .victim = value_victim,
    .spared = value_spared,
    .gone = value_gone,
    .candidates = value_candidates,
    .uses = value_uses,
    .age = value_age,
    .explain = value_explain,
    .before = value_before,
};
