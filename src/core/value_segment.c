/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments: their heap, their ages, and those of which no block is left.
 */
#include <math.h>
#include <string.h>

#include "core/value.h"

static_assert(WF_VALUE_BINS <= 1u << 5, "five bits a bin, where less is not said");
static const uint8_t bits[WF_VALUE_FEATURES] = {
    [WF_VALUE_TURN] = 3,       [WF_VALUE_LENGTH] = 5, [WF_VALUE_OUTPUT] = 5,
    [WF_VALUE_GAP] = 5,        [WF_VALUE_FRESH] = 5,  [WF_VALUE_SHARED] = 2,
    [WF_VALUE_SHARED_GAP] = 5, [WF_VALUE_LEFT] = 1,   [WF_VALUE_SHARED_USES] = 5,
};
static_assert(3 + 5 + 5 + 5 + 5 + 2 + 5 + 1 + 5 == WF_VALUE_BITS, "as many as a segment has");

struct wf_value_kind wf_value_kind_of(const struct segment *s)
{
    struct wf_value_kind kind = {.hint = (uint8_t)s->hint};
    uint64_t bins = s->bins;
    for (unsigned i = 0; i < WF_VALUE_FEATURES; i++) {
        kind.bin[i] = (uint8_t)(bins & ((1u << bits[i]) - 1));
        bins >>= bits[i];
    }
    return kind;
}

bool wf_value_wanted_again(const struct segment *s)
{
    struct wf_value_kind kind = wf_value_kind_of(s);
    return kind.bin[WF_VALUE_TURN] > 0 || kind.bin[WF_VALUE_SHARED] > 0;
}

void wf_value_bins_set(struct segment *s, const struct wf_value_kind *kind)
{
    uint64_t bins = 0;
    for (unsigned i = WF_VALUE_FEATURES; i-- > 0;)
        bins = bins << bits[i] | kind->bin[i];
    s->bins = bins & (((uint64_t)1 << WF_VALUE_BITS) - 1);
}

/* ------------------------------------------------------------------------------------- the heap */

/* Of equal worth, what was used longer ago goes first. */
static bool before(const struct wf_policy *p, uint32_t a, uint32_t b)
{
    const struct segment *x = &p->segments[a], *y = &p->segments[b];
    uint32_t uses = (uint32_t)p->uses;
    return x->worth < y->worth || (!(y->worth < x->worth) && uses - x->uses > uses - y->uses);
}

static void put(struct wf_policy *p, uint32_t at, uint32_t segment)
{
    p->heap[at] = segment;
    p->segments[segment].place = at + 1;
}

static void sift_up(struct wf_policy *p, uint32_t at)
{
    uint32_t segment = p->heap[at];
    while (at > 0 && before(p, segment, p->heap[(at - 1) / 2])) {
        put(p, at, p->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(p, at, segment);
}

static void sift_down(struct wf_policy *p, uint32_t at)
{
    uint32_t segment = p->heap[at];
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below >= p->heap_count)
            break;
        if (below + 1 < p->heap_count && before(p, p->heap[below + 1], p->heap[below]))
            below++;
        if (!before(p, p->heap[below], segment))
            break;
        put(p, at, p->heap[below]);
        at = below;
    }
    put(p, at, segment);
}

static void heap_remove(struct wf_policy *p, uint32_t segment)
{
    uint32_t at = p->segments[segment].place;
    if (!at--)
        return;
    p->segments[segment].place = 0;
    uint32_t moved = p->heap[--p->heap_count];
    if (at == p->heap_count)
        return;
    put(p, at, moved);
    sift_down(p, at);
    sift_up(p, p->segments[moved].place - 1);
}

static void heap_add(struct wf_policy *p, uint32_t segment)
{
    p->heap[p->heap_count] = segment;
    p->heap_count++;
    sift_up(p, p->heap_count - 1);
}

void wf_value_worth_set(struct wf_policy *p, uint32_t number, float worth)
{
    struct segment *s = &p->segments[number];
    s->worth = worth;
    if (s->blocks && s->place) {
        sift_down(p, s->place - 1);
        sift_up(p, s->place - 1);
    }
}

float wf_value_age_s(const struct wf_policy *p, const struct segment *s)
{
    return (float)(p->now - s->ticks) / TICKS_PER_S;
}

unsigned wf_value_cost_code(float cost)
{
    if (!(cost > 0))
        return 0;
    float code = 1 + roundf(COST_STEPS * log2f(cost / COST_LEAST));
    return code < 1 ? 1 : code < COST_CODES ? (unsigned)code : COST_CODES - 1;
}

float wf_value_cost(unsigned code)
{
    return code ? COST_LEAST * exp2f((float)(code - 1) / COST_STEPS) : 1;
}

float wf_value_density(const struct wf_policy *p, uint32_t number)
{
    const struct segment *s = &p->segments[number];
    if (s->bucket == WF_VALUE_BUCKETS)
        return 0;
    struct wf_value_kind kind = wf_value_kind_of(s);
    return wf_value_of(&p->model, &kind, s->bucket, wf_value_age_s(p, s));
}

float wf_value_worth(const struct wf_policy *p, uint32_t number, enum wf_guard_order order)
{
    const struct segment *s = &p->segments[number];
    if (order == WF_GUARD_RECENT)
        return 0; /* so that the last use decides */
    if (order == WF_GUARD_COUNT)
        return wf_guard_inflation(p->guard, s->ticks) +
               (s->blocks && s->entered != NONE ? (float)p->seats[s->entered].uses : 0);
    return wf_value_density(p, number) * wf_value_cost(s->cost);
}

/* Where it is not known any more, or another order stands, there is nothing to scale. */
void wf_value_cost_set(struct wf_policy *p, uint32_t number, unsigned code)
{
    struct segment *s = &p->segments[number];
    unsigned before = s->cost;
    s->cost = code & (COST_CODES - 1);
    bool known = !s->stale && s->worth > 0 && !isinf(s->worth);
    if (before != code && known && wf_guard_stands(p->guard) == WF_GUARD_VALUE)
        wf_value_worth_set(p, number, s->worth * (wf_value_cost(code) / wf_value_cost(before)));
}

void wf_value_changed(struct wf_policy *p, uint32_t number)
{
    struct segment *s = &p->segments[number];
    if (s->worth < 0 || s->brought)
        return;
    if (s->place)
        wf_value_worth_set(p, number, wf_value_worth(p, number, wf_guard_stands(p->guard)));
    else
        s->worth = 0;
    s->stale = s->place == 0;
}

/* What was cooled or spared stays so. */
void wf_value_heap_rebuild(struct wf_policy *p)
{
    enum wf_guard_order order = wf_guard_stands(p->guard);
    for (uint32_t number = 0; number < p->segments_used; number++) {
        struct segment *s = &p->segments[number];
        if (!s->blocks || s->worth < 0 || isinf(s->worth))
            continue;
        s->stale = s->place == 0;
        if (s->place)
            s->worth = wf_value_worth(p, number, order);
    }
    for (uint32_t at = p->heap_count / 2; at-- > 0;)
        sift_down(p, at);
}

/* ----------------------------------------------------------------------- segments, ages, ghosts */

static void list_add(struct wf_policy *p, struct list *list, uint32_t number)
{
    struct segment *s = &p->segments[number];
    s->previous = list->last;
    s->next = NONE;
    *(list->last == NONE ? &list->first : &p->segments[list->last].next) = number;
    list->last = number;
}

static void list_remove(struct wf_policy *p, struct list *list, uint32_t number)
{
    struct segment *s = &p->segments[number];
    *(s->previous == NONE ? &list->first : &p->segments[s->previous].next) = s->next;
    *(s->next == NONE ? &list->last : &p->segments[s->next].previous) = s->previous;
}

/* Nothing is missing from it any more: a generation comes round after sixteen, and what is still
 * in the table of those that went must not free it again. */
static void segment_free(struct wf_policy *p, uint32_t number)
{
    struct segment *s = &p->segments[number];
    if (s->bucket < WF_VALUE_BUCKETS)
        list_remove(p, &p->age[s->bucket], number);
    s->generation++;
    s->blocks = 0;
    s->missing = 0;
    s->free_next = p->free;
    p->free = number;
}

static void ghost_make(struct wf_policy *p, uint32_t number)
{
    struct segment *s = &p->segments[number];
    s->older = p->dead.last;
    s->newer = NONE;
    *(s->older == NONE ? &p->dead.first : &p->segments[s->older].newer) = number;
    p->dead.last = number;
}

static void dead_remove(struct wf_policy *p, uint32_t number)
{
    const struct segment *s = &p->segments[number];
    *(s->older == NONE ? &p->dead.first : &p->segments[s->older].newer) = s->newer;
    *(s->newer == NONE ? &p->dead.last : &p->segments[s->newer].older) = s->older;
}

static void ghost_free(struct wf_policy *p, uint32_t number)
{
    dead_remove(p, number);
    segment_free(p, number);
}

void wf_value_missing_less(struct wf_policy *p, const struct ghost *ghost)
{
    struct segment *s = &p->segments[ghost->segment];
    if (s->generation != ghost->generation || s->missing == 0 || s->missing == MISSING_MAX)
        return;
    if (--s->missing == 0 && s->blocks == 0)
        ghost_free(p, ghost->segment);
}

static struct ghost *line_of(const struct wf_policy *p, uint64_t key)
{
    return p->ghosts[((key >> 32) * p->ghost_lines) >> 32];
}

void wf_value_ghost_add(struct wf_policy *p, uint64_t key, uint32_t number, unsigned fan)
{
    struct ghost *line = line_of(p, key), last = line[LINE - 1];
    struct segment *s = &p->segments[number];
    memmove(line + 1, line, (LINE - 1) * sizeof *line);
    line[0] = (struct ghost){.key = key & 0xffffff,
                             .fan = (1 + (fan < FAN_MAX ? fan : FAN_MAX)) & 15,
                             .generation = s->generation,
                             .segment = number};
    if (s->missing < MISSING_MAX)
        s->missing++;
    if (last.fan)
        wf_value_missing_less(p, &last);
}

void wf_value_ghost_only(struct wf_policy *p, uint32_t number)
{
    p->segments[number].blocks = 0;
    if (p->segments[number].missing)
        ghost_make(p, number);
    else
        segment_free(p, number);
}

struct ghost wf_value_ghost_find(const struct wf_policy *p, uint64_t key)
{
    const struct ghost *line = line_of(p, key);
    for (unsigned i = 0; i < LINE; i++)
        if (line[i].fan && line[i].key == (key & 0xffffff))
            return p->segments[line[i].segment].generation == line[i].generation
                       ? line[i]
                       : (struct ghost){.fan = 0};
    return (struct ghost){.fan = 0};
}

struct ghost wf_value_ghost_take(struct wf_policy *p, uint64_t key)
{
    struct ghost *line = line_of(p, key), found;
    for (unsigned i = 0; i < LINE; i++) {
        if (!line[i].fan || line[i].key != (key & 0xffffff))
            continue;
        found = line[i];
        memmove(line + i, line + i + 1, (LINE - 1 - i) * sizeof *line);
        line[LINE - 1] = (struct ghost){.fan = 0};
        if (p->segments[found.segment].generation == found.generation)
            return found;
        break;
    }
    return (struct ghost){.fan = 0};
}

bool wf_value_segment_free(const struct wf_policy *p)
{
    return p->free != NONE || p->segments_used < p->slots_max || p->dead.first != NONE;
}

/* There are as many segments as slots, and each that is alive has a slot: either one is free, or
 * one is a ghost. */
uint32_t wf_value_segment_new(struct wf_policy *p, const struct wf_value_kind *kind)
{
    if (p->free == NONE && p->segments_used == p->slots_max)
        ghost_free(p, p->dead.first);
    uint32_t number = p->free;
    if (number != NONE)
        p->free = p->segments[number].free_next;
    else
        number = p->segments_used++;
    struct segment *s = &p->segments[number];
    *s = (struct segment){.ticks = p->now,
                          .uses = p->open.uses,
                          .entered = NONE,
                          .generation = s->generation,
                          .stale = 1,
                          .hint = kind->hint & 3u};
    wf_value_bins_set(s, kind);
    list_add(p, &p->age[0], number);
    return number;
}

void wf_value_segment_renew(struct wf_policy *p, uint32_t number, const struct wf_value_kind *kind)
{
    struct segment *s = &p->segments[number];
    if (s->bucket < WF_VALUE_BUCKETS)
        list_remove(p, &p->age[s->bucket], number);
    s->bucket = 0;
    s->ticks = p->now;
    s->uses = p->open.uses;
    list_add(p, &p->age[0], number);
    wf_value_bins_set(s, kind);
    s->brought = s->unknown = 0;
    s->worth = 0;
    wf_value_changed(p, number);
}

/* Is its age beyond this bucket? */
static bool through(const struct wf_policy *p, const struct segment *s, unsigned bucket)
{
    return bucket < WF_VALUE_BUCKETS && p->now - s->ticks >= p->edge[bucket + 1];
}

void wf_value_learn_use(struct wf_policy *p, const struct segment *s)
{
    if (s->unknown || s->bucket == WF_VALUE_BUCKETS || through(p, s, s->bucket))
        return;
    struct wf_value_kind kind = wf_value_kind_of(s);
    wf_value_learn(&p->model, &kind, s->bucket, true);
}

/* The first of this bucket is through with it.  What it is worth on the way is not asked. */
static void grow_older(struct wf_policy *p, unsigned bucket)
{
    uint32_t number = p->age[bucket].first;
    struct segment *s = &p->segments[number];
    struct wf_value_kind kind = wf_value_kind_of(s);
    if (!s->unknown)
        wf_value_learn(&p->model, &kind, bucket, false);
    if (bucket + 1 == WF_VALUE_BUCKETS && !s->blocks) {
        ghost_free(p, number);
        return;
    }
    list_remove(p, &p->age[bucket], number);
    s->bucket = (bucket + 1) & 63;
    if (bucket + 1 < WF_VALUE_BUCKETS)
        list_add(p, &p->age[bucket + 1], number);
    if (s->blocks && !s->brought && !through(p, s, bucket + 1))
        wf_value_changed(p, number);
    s->brought = 0;
}

/* Youngest buckets first: what passes through several at once is seen in each. */
static void all_grow_older(struct wf_policy *p)
{
    uint32_t steps = 0;
    for (unsigned i = 0, bucket = p->behind; i < WF_VALUE_BUCKETS; i++, bucket++) {
        bucket %= WF_VALUE_BUCKETS;
        p->behind = 0;
        while (p->age[bucket].first != NONE &&
               through(p, &p->segments[p->age[bucket].first], bucket)) {
            if (steps++ == STEPS_A_TICK) {
                p->behind = bucket;
                return;
            }
            grow_older(p, bucket);
        }
    }
}

void wf_value_advance(struct wf_policy *p, uint64_t now_us)
{
    if (p->first_us == 0)
        p->first_us = now_us;
    uint32_t now = now_us < p->first_us
                       ? 0
                       : (uint32_t)((now_us - p->first_us) / (1000000 / TICKS_PER_S));
    if (now == p->now || now - p->now > INT32_MAX) /* the same, or a clock that went back */
        return;
    if (wf_guard_flush(p->guard, p))
        wf_value_heap_rebuild(p);
    p->now = now;
    all_grow_older(p);
    wf_guard_advance(p->guard, p);
}

void wf_value_seat_withdraw(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = p->seats[slot].segment;
    if (number < OPEN && p->segments[number].entered == slot) {
        heap_remove(p, number);
        p->segments[number].entered = NONE;
    }
}

/* A slot no longer belongs to its segment.  What has none left is a ghost if blocks of it are known
 * that went, and free otherwise. */
void wf_value_seat_leave(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = p->seats[slot].segment;
    struct segment *s = &p->segments[number];
    wf_value_seat_withdraw(p, slot);
    p->seats[slot].segment = NONE;
    if (--s->blocks)
        return;
    if (s->missing && s->bucket < WF_VALUE_BUCKETS)
        ghost_make(p, number);
    else
        segment_free(p, number);
}

void wf_value_seat_take(struct wf_policy *p, uint32_t slot, uint32_t number)
{
    p->seats[slot].segment = number;
    p->segments[number].blocks++;
}

/* Of the dead, one that has a block again: when it was used is known by its age alone. */
static void ghost_wake(struct wf_policy *p, uint32_t number)
{
    struct segment *s = &p->segments[number];
    dead_remove(p, number);
    s->worth = 0;
    s->uses = (uint32_t)p->uses;
    s->entered = NONE;
    s->place = 0;
    s->stale = 1;
}

void wf_value_seat_bring(struct wf_policy *p, uint32_t slot, uint32_t parent, uint64_t key)
{
    struct seat *seat = &p->seats[slot];
    struct ghost ghost = wf_value_ghost_take(p, key);
    uint32_t above = parent < p->seats_known ? p->seats[parent].segment : NONE;
    /* Its number may be free again: generations come round. */
    if (ghost.fan && (p->segments[ghost.segment].blocks || p->segments[ghost.segment].missing)) {
        seat->fan = (ghost.fan - 1u) & 15u;
        seat->uses = seat->fan;
        if (!p->segments[ghost.segment].blocks)
            ghost_wake(p, ghost.segment);
        wf_value_seat_take(p, slot, ghost.segment);
        wf_value_missing_less(p, &ghost);
        return;
    }
    if (above >= OPEN || !p->segments[above].unknown || p->segments[above].blocks == BLOCKS_MAX) {
        const struct wf_value_kind kind = {.hint = 0};
        above = wf_value_segment_new(p, &kind);
        p->segments[above].unknown = 1;
    }
    wf_value_seat_take(p, slot, above);
}

uint32_t wf_value_before(const struct wf_policy *p, uint32_t number)
{
    uint32_t step = p->heap_count / WF_POLICY_LOOKS + 1, count = 0, looks = 0;
    for (uint32_t at = 0; at < p->heap_count; at += step, looks++)
        count += before(p, p->heap[at], number);
    return looks ? (uint32_t)((uint64_t)count * p->heap_count / looks) : 0;
}

/* A segment is a stretch of a chain, so only one of its slots is ever a leaf.  Should another be
 * offered all the same, it gets a segment of its own. */
void wf_value_seat_enter(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = p->seats[slot].segment;
    struct segment *s = &p->segments[number];
    if (s->entered != NONE) {
        struct wf_value_kind kind = wf_value_kind_of(s);
        wf_value_seat_leave(p, slot);
        uint64_t unknown = s->unknown;
        number = wf_value_segment_new(p, &kind);
        wf_value_seat_take(p, slot, number);
        s = &p->segments[number];
        s->unknown = unknown & 1;
    }
    s->entered = slot;
    wf_value_cost_set(p, number, p->seats[slot].cost);
    enum wf_guard_order order = wf_guard_stands(p->guard);
    if (s->worth >= 0 && !isinf(s->worth) && (s->stale || order == WF_GUARD_COUNT))
        s->worth = wf_value_worth(p, number, order);
    s->stale = 0;
    heap_add(p, number);
}
