/* SPDX-License-Identifier: Apache-2.0
 *
 * A request is put together from `used` calls and is judged when it is over: when another one's
 * come, or somebody asks for a victim.  If it goes on after that (room is made for what it is about
 * to add, or its answer grows), it is judged as the longer request that it is then.
 */
#include <string.h>

#include "core/value.h"

#define RECENT_TICKS (60 * TICKS_PER_S)
#define AGAIN_TICKS TICKS_PER_S /* to ask for the rest of what found no room */
#define TURN_MAX 6u
#define FAN_HUB                                                                      \
    10u /* more chains than that branch off: no chain's end, but what all begin with \
         */

struct past {       /* what is known of a request's chain from before */
    uint32_t known; /* blocks from its beginning on */
    uint32_t turn;  /* requests that it had */
    uint32_t ticks; /* of the last */
    bool any;
    uint8_t learned_generation;
    uint32_t learned;
};

static unsigned class_of(uint8_t fan)
{
    return fan <= 1 ? 0 : fan <= 3 ? 1 : fan <= FAN_HUB ? 2 : 3;
}

/* What this request does not take of it is the beginning of nothing that goes on. */
static void leave_behind(struct segment *s)
{
    struct wf_value_kind kind = wf_value_kind_of(s);
    kind.bin[WF_VALUE_LEFT] = 1;
    wf_value_bins_set(s, &kind);
}

/* Those whose blocks are used learn that they are, once each.  What was evicted and comes back is
 * not new. */
static struct past look_back(struct wf_policy *p, const struct request *before)
{
    struct past past = {.any = false, .learned = NONE};
    uint32_t last = NONE;
    uint8_t gap = 0;
    if (before && before->learned != NONE &&
        p->segments[before->learned].generation == before->learned_generation) {
        past.learned = last = before->learned;
        past.learned_generation = before->learned_generation;
    }
    for (uint32_t i = 0; i < p->open.count; i++) {
        struct seat *seat = &p->seats[p->open.slots[i]];
        uint32_t number = seat->segment;
        struct ghost ghost = {.fan = 0};
        if (number >= OPEN) {
            ghost = wf_value_ghost_take(p, p->open.keys[i]);
            if (!ghost.fan)
                continue;
            number = ghost.segment;
            seat->fan = (ghost.fan - 1) & 15;
            seat->uses = seat->fan;
        }
        struct segment *s = &p->segments[number];
        if (s->unknown)
            continue; /* it is as new as if it had not been brought up */
        if (number != last || !past.any)
            gap = (uint8_t)(1 + wf_value_octave((double)(p->now - s->ticks) * 4 / TICKS_PER_S));
        seat->gap = (uint16_t)(gap & 31u);
        past.any = true;
        past.known = i + 1;
        past.ticks = s->ticks;
        past.turn = seat->fan > FAN_HUB ? 0 : wf_value_kind_of(s).bin[WF_VALUE_TURN] + 1u;
        if (number != last) {
            wf_value_learn_use(p, s);
            leave_behind(s);
        }
        past.learned = last = number;
        past.learned_generation = s->generation;
        if (ghost.fan)
            wf_value_missing_less(p, &ghost);
    }
    return past;
}

static void branches(struct seat *parent)
{
    parent->fan = (parent->fan + (parent->fan < FAN_MAX ? 1u : 0u)) & 15u;
}

/* Count the uses, and leave the segments of before. */
static void take_out(struct wf_policy *p, uint32_t known)
{
    if (known == 0 && p->open.parent < p->seats_known)
        branches(&p->seats[p->open.parent]);
    for (uint32_t i = 0; i < p->open.count; i++) {
        struct seat *seat = &p->seats[p->open.slots[i]];
        if (i >= known && i > 0)
            branches(&p->seats[p->open.slots[i - 1]]);
        if (seat->uses < USES_MAX)
            seat->uses++;
        uint32_t number = seat->segment;
        if (number < OPEN)
            wf_value_seat_leave(p, p->open.slots[i]);
        seat->segment = NONE;
        bool last = i + 1 == p->open.count || p->seats[p->open.slots[i + 1]].segment != number;
        if (number < OPEN && last && p->segments[number].blocks)
            wf_value_changed(p, number);
    }
}

static void seated(struct wf_policy *p, uint32_t slot, uint32_t number)
{
    if (p->seats[slot].segment != NONE)
        return; /* it is named twice in one request */
    wf_value_seat_take(p, slot, number);
    if (p->seats[slot].in)
        wf_value_seat_enter(p, slot);
}

static uint8_t bin(unsigned n)
{
    return (uint8_t)(n < WF_VALUE_BINS ? n : WF_VALUE_BINS - 1);
}

static struct wf_value_kind kind_in(const struct request *request)
{
    struct wf_value_kind kind = {.hint = 0};
    kind.bin[WF_VALUE_TURN] = (uint8_t)(request->turn < TURN_MAX ? request->turn : TURN_MAX);
    kind.bin[WF_VALUE_LENGTH] = wf_value_octave(request->count);
    kind.bin[WF_VALUE_FRESH] = wf_value_octave(request->fresh);
    kind.bin[WF_VALUE_GAP] = request->gap;
    return kind;
}

static void shared_as(struct wf_value_kind *kind, const struct seat *seat)
{
    kind->bin[WF_VALUE_SHARED] = (uint8_t)class_of(seat->fan);
    kind->bin[WF_VALUE_SHARED_GAP] = bin(seat->gap);
    kind->bin[WF_VALUE_SHARED_USES] = wf_value_octave(seat->uses);
}

/* It went on: what came joins the segment at its end, which was used just now. */
static void join(struct wf_policy *p, uint32_t number, const struct request *request)
{
    struct wf_value_kind kind = kind_in(request);
    kind.bin[WF_VALUE_OUTPUT] = wf_value_kind_of(&p->segments[number]).bin[WF_VALUE_OUTPUT];
    for (uint32_t i = 0; i < p->open.count; i++)
        seated(p, p->open.slots[i], number);
    wf_value_segment_renew(p, number, &kind);
}

/* Another chain begins at the end of what was judged: it may be shared otherwise than the rest of
 * its segment now, and has one of its own then. */
static void split_off(struct wf_policy *p, uint32_t slot)
{
    const struct seat *seat = &p->seats[slot];
    struct wf_value_kind kind = wf_value_kind_of(&p->segments[seat->segment]);
    if (kind.bin[WF_VALUE_SHARED] == class_of(seat->fan))
        return;
    shared_as(&kind, seat);
    wf_value_seat_leave(p, slot);
    seated(p, slot, wf_value_segment_new(p, &kind));
}

static uint32_t divide(struct wf_policy *p, const struct request *request)
{
    uint32_t count = p->open.count, number = NONE;
    struct wf_value_kind kind = kind_in(request);
    for (uint32_t i = 0, end; i < count; i = end) {
        const struct seat *first = &p->seats[p->open.slots[i]];
        for (end = i + 1; end < count; end++)
            if (class_of(p->seats[p->open.slots[end]].fan) != class_of(first->fan))
                break;
        shared_as(&kind, first);
        number = wf_value_segment_new(p, &kind);
        for (uint32_t k = i; k < end; k++)
            seated(p, p->open.slots[k], number);
    }
    return number;
}

/* The request of this reader's that ended with `parent` a moment ago. */
static struct request *extended(struct wf_policy *p, uint32_t parent, uint32_t reader)
{
    if (parent >= p->seats_known || p->seats[parent].segment >= OPEN)
        return NULL;
    for (uint32_t i = 0; i < RECENT; i++) {
        struct request *recent = &p->recent[i];
        if (recent->last == parent && recent->reader == reader &&
            recent->segment == p->seats[parent].segment && p->now - recent->ticks < RECENT_TICKS)
            return recent;
    }
    return NULL;
}

void wf_value_judge(struct wf_policy *p)
{
    if (!p->open.count)
        return;
    struct request *before = extended(p, p->open.parent, p->open.reader);
    if (wf_guard_flush_but(p->guard, p, before ? &before->end : NULL))
        wf_value_heap_rebuild(p);
    struct past past = look_back(p, before);
    struct request request = {.reader = p->open.reader,
                              .last = p->open.slots[p->open.count - 1],
                              .ticks = p->now,
                              .count = p->open.count,
                              .learned = past.learned,
                              .learned_generation = past.learned_generation,
                              .fresh = p->open.count - past.known};
    if (past.any && past.turn) {
        request.turn = past.turn;
        request.gap = bin(1u + wf_value_octave((double)(p->now - past.ticks) / TICKS_PER_S));
    } else if (before) {
        request.turn = before->turn;
        request.gap = before->gap;
    }
    if (before) {
        request.count += before->count;
        request.fresh += before->fresh;
    }
    take_out(p, past.known);
    /* Its end may be a part of this, if parents were not told rightly. */
    bool there = before && p->seats[p->open.parent].segment < OPEN;
    if (there)
        split_off(p, p->open.parent);
    uint32_t number = there ? p->seats[p->open.parent].segment : NONE;
    if (there && wf_value_kind_of(&p->segments[number]).bin[WF_VALUE_SHARED] == 0 &&
        p->segments[number].blocks + p->open.count <= BLOCKS_MAX)
        join(p, number, &request);
    else
        number = divide(p, &request);
    request.segment = number;
    wf_guard_add(p->guard, p, before ? &before->end : NULL, &request.end);
    if (before) {
        *before = request;
    } else {
        p->recent[p->recent_next] = request;
        p->recent_next = (p->recent_next + 1) % RECENT;
    }
    p->open.count = 0;
}

/* ------------------------------------------------------------------- what may go for a request */

#define ONCE 0.5f /* of its worth counts: most of what was wanted once never is again */

float wf_value_bar(const struct wf_value_model *model, const struct wf_value_kind *kind)
{
    float worth = wf_value_of(model, kind, 0, 0);
    bool again = kind->bin[WF_VALUE_TURN] || kind->bin[WF_VALUE_SHARED];
    return again ? worth : worth * ONCE;
}

float wf_value_at_bar(float worth, unsigned cost, unsigned cost_of_new)
{
    float most = BAR_COST_MAX * wf_value_cost(cost_of_new), its = wf_value_cost(cost);
    return its > most ? worth / its * most : worth;
}

/* The request as it would be judged if all of it came, and none of it were known. */
static struct request foresee(struct wf_policy *p, const struct wf_policy_ask *ask)
{
    const struct request *before = extended(p, ask->parent, ask->reader);
    struct request request = {.count = ask->count, .fresh = ask->count};
    if (before) {
        request.turn = before->turn;
        request.gap = before->gap;
        request.count += before->count;
        request.fresh += before->fresh;
    }
    return request;
}

/* How many of its blocks, from the first on, went and are known: its turn is theirs, and one more.
 */
static uint32_t known_of(const struct wf_policy *p, const struct wf_policy_ask *ask,
                         struct request *request)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < ask->count; i++) {
        struct ghost ghost = wf_value_ghost_find(p, ask->keys[i]);
        if (!ghost.fan)
            continue;
        const struct segment *s = &p->segments[ghost.segment];
        known = i + 1;
        if (ghost.fan - 1u > FAN_HUB)
            continue;
        request->turn = wf_value_kind_of(s).bin[WF_VALUE_TURN] + 1u;
        request->gap = bin(1u + wf_value_octave((double)(p->now - s->ticks) / TICKS_PER_S));
    }
    request->fresh -= known;
    return known;
}

/* Who is told that there is no room may ask once more, for the rest at once or for all of it within
 * a minute: that is the same request, and what it wants was not wanted for a second time. */
static struct refusal *again(struct wf_policy *p, const struct wf_policy_ask *ask)
{
    for (uint32_t i = 0; i < RECENT; i++) {
        struct refusal *refusal = &p->refusals[i];
        uint32_t ticks = p->now - refusal->ticks;
        bool rest = refusal->reader == ask->reader && ticks < AGAIN_TICKS;
        bool same = refusal->last == ask->keys[ask->count - 1] && ticks < RECENT_TICKS;
        if (refusal->any && refusal->key == ask->keys[0] && (rest || same))
            return refusal;
    }
    return NULL;
}

/* So that it is as new as it was then, if it finds room now.  What others begin with stays known.
 */
static void forget(struct wf_policy *p, const struct wf_policy_ask *ask)
{
    for (uint32_t i = 0; i < ask->count; i++) {
        struct ghost ghost = wf_value_ghost_find(p, ask->keys[i]);
        if (ghost.fan != 1)
            continue;
        ghost = wf_value_ghost_take(p, ask->keys[i]);
        if (ghost.fan)
            wf_value_missing_less(p, &ghost);
    }
}

/* As a seat has it, of a block that went: for its kind. */
static struct seat seat_of(const struct wf_policy *p, const struct ghost *ghost, bool branches_here)
{
    struct seat seat = {.segment = NONE};
    if (!ghost->fan)
        return seat;
    const struct segment *s = &p->segments[ghost->segment];
    seat.fan = (ghost->fan - 1u) & 15u;
    if (branches_here)
        branches(&seat);
    seat.uses = (seat.fan + 1u) & USES_MAX;
    seat.gap = (1u + wf_value_octave((double)(p->now - s->ticks) * 4 / TICKS_PER_S)) & 31u;
    return seat;
}

void wf_value_ask(struct wf_policy *p, const struct wf_policy_ask *ask, float *bars)
{
    struct request request = foresee(p, ask);
    p->asked.again = again(p, ask);
    if (p->asked.again)
        forget(p, ask);
    bool small = !p->asked.again && (uint64_t)request.fresh * ASK_PART <= p->held;
    uint32_t known = small || p->asked.again ? 0 : known_of(p, ask, &request);
    struct wf_value_kind kind = p->asked.again ? p->asked.again->kind : kind_in(&request);
    p->asked.kind = kind;
    p->asked.ever = true;
    for (uint32_t i = 0; i < ask->count; i++)
        bars[i] = WF_POLICY_ANY;
    if (small || wf_guard_stands(p->guard) != WF_GUARD_VALUE)
        return;
    unsigned cost = ask->parent < p->seats_known ? p->seats[ask->parent].cost : p->cost;
    p->asked.cost = (uint8_t)(cost & (COST_CODES - 1));
    float own = wf_value_bar(&p->model, &kind), shared = 0;
    uint64_t bins_before = 0;
    for (uint32_t i = 0; i < ask->count; i++) {
        struct ghost ghost = wf_value_ghost_find(p, ask->keys[i]);
        struct seat seat = seat_of(p, &ghost, i + 1 == known && known < ask->count);
        struct segment as = {.hint = 0};
        shared_as(&kind, &seat);
        wf_value_bins_set(&as, &kind);
        if (class_of(seat.fan) && as.bins != bins_before)
            shared = wf_value_bar(&p->model, &kind);
        bins_before = class_of(seat.fan) ? as.bins : bins_before;
        bars[i] = (class_of(seat.fan) ? shared : own) * wf_value_cost(cost);
    }
}

static void refusal_note(struct wf_policy *p, const struct wf_policy_ask *ask, uint32_t first)
{
    struct refusal *refusal = p->asked.again;
    /* The minute is that of the first time: what is wanted all the time was wanted again. */
    uint32_t ticks = refusal ? refusal->ticks : p->now;
    if (!refusal) {
        refusal = &p->refusals[p->refusals_next];
        p->refusals_next = (p->refusals_next + 1) % RECENT;
    }
    *refusal = (struct refusal){.key = ask->keys[first],
                                .last = ask->keys[ask->count - 1],
                                .reader = ask->reader,
                                .ticks = ticks,
                                .any = true,
                                .kind = p->asked.kind};
}

void wf_value_refused(struct wf_policy *p, const struct wf_policy_ask *ask, uint32_t first)
{
    struct wf_value_kind kind = p->asked.kind;
    bool learns = !p->asked.again;
    refusal_note(p, ask, first);
    uint32_t number = NONE, learned = NONE;
    unsigned class = 0;
    for (uint32_t i = first; i < ask->count; i++) {
        struct ghost ghost = wf_value_ghost_find(p, ask->keys[i]);
        if (ghost.fan && ghost.segment == number)
            continue; /* it is named twice */
        ghost = wf_value_ghost_take(p, ask->keys[i]);
        struct seat seat = seat_of(p, &ghost, false);
        if (ghost.fan) {
            if (learns && ghost.segment != learned)
                wf_value_learn_use(p, &p->segments[ghost.segment]);
            learned = ghost.segment;
            wf_value_missing_less(p, &ghost);
        }
        if (number == NONE || class_of(seat.fan) != class) {
            if (number != NONE)
                wf_value_ghost_only(p, number);
            if (!wf_value_segment_free(p))
                return;
            class = class_of(seat.fan);
            shared_as(&kind, &seat);
            number = wf_value_segment_new(p, &kind);
            p->segments[number].blocks = 1; /* so that it stays while it is put together */
        }
        wf_value_ghost_add(p, ask->keys[i], number, seat.fan);
        wf_guard_refused(p->guard, p, ask->keys[i], number);
    }
    if (number != NONE)
        wf_value_ghost_only(p, number);
}
