/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction by value: what goes next is what gives the fewest hits for the room that it holds.
 *
 * The unit is the segment: the run of blocks that one request touched last and that are shared
 * alike.  A request that uses a part of it takes that part into segments of its own; the rest keeps
 * its age.  A segment is a stretch of one chain, so at most one of its blocks is a leaf, and the
 * heap of those that may go holds segments, by value.  Values change when a segment comes into the
 * next bucket of age (value_model.h): each bucket is a list in the order in which they leave it.
 *
 * A request is put together from `used` calls and is judged when it is over: when another one's
 * come, or somebody asks for a victim.  If it goes on after that (room is made for what it is about
 * to add, or its answer grows), it is judged as the longer request that it is then.
 *
 * Blocks that went stay known, as many as there are slots, by a part of their keys: as members of
 * their segment, which is a ghost when it has no others, until they come back or are forgotten, the
 * oldest of a line of the table first.  So the model also learns from what was evicted, and a chain
 * that comes back knows its turn and where others branched off.  To take another block for one of
 * them costs a wrong example, and nothing else.
 *
 * 64 to 72 bytes a slot (the table of those that went has a power of two), and the buffer of the
 * request that is open.  O(log n) a call, and O(length) once a request.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "core/policy.h"
#include "core/value_model.h"

#define NONE UINT32_MAX
#define OPEN (UINT32_MAX - 1) /* for a slot's segment: it is new in the request that is open */

#define TICKS_PER_S 64u        /* 777 days in 32 bits */
#define OPEN_BLOCKS_MAX 65536u /* a longer request is judged in parts */
#define RECENT 64u             /* requests that may go on */
#define RECENT_TICKS (60 * TICKS_PER_S)
#define TURN_MAX 6u
#define FAN_HUB                                                                      \
    10u /* more chains than that branch off: no chain's end, but what all begin with \
         */

struct seat { /* of a slot */
    uint32_t segment;
    uint16_t uses;
    uint8_t fan; /* chains that extend it */
    uint8_t gap; /* octave of the time between its last two uses, in quarters of a second */
};

#define BLOCKS_MAX ((1u << 20) - 1) /* in a segment */

struct segment {
    uint32_t ticks; /* of its last use */
    union {
        float value;
        uint32_t newer; /* of ghosts: which became one after it */
    };
    union {
        uint32_t uses;  /* of all blocks, at its last use */
        uint32_t older; /* of ghosts: which became one before it */
    };
    union {
        uint32_t entered;   /* its slot that may go */
        uint32_t free_next; /* of free ones */
    };
    uint32_t place;          /* in the heap + 1; 0: not in */
    uint32_t previous, next; /* in the list of its bucket */
    uint32_t blocks : 20;    /* slots that belong to it; 0: a ghost, or free */
    uint32_t bucket : 6;     /* WF_VALUE_BUCKETS: it is older than all, and in no list */
    uint32_t generation : 4; /* of its number: what the table of those that went is checked by */
    uint32_t hint : 2;
    uint16_t missing; /* blocks that went and are known; UINT16_MAX: that, or more */
    uint8_t bin[WF_VALUE_FEATURES];
};
static_assert(sizeof(struct segment) == 44, "the budget of metadata");

/* A block that went. */
struct ghost {
    uint32_t key : 24, fan : 4, generation : 4; /* fan, and one more: 0: an empty place */
    uint32_t segment;
};
#define LINE 8u     /* ghosts in a line of the table: 64 bytes */
#define FAN_MAX 14u /* that a ghost remembers */

struct list {
    uint32_t first, last;
};

struct request { /* that was judged */
    uint32_t reader, last, segment, ticks;
    uint32_t count, fresh; /* blocks, and those that were new */
    uint32_t turn;
    uint8_t gap; /* its bin */
    uint8_t learned_generation;
    uint32_t learned; /* the segment that learned last that it is used */
};

struct wf_policy {
    uint32_t slots_max, count;
    struct seat *seats;       /* [slots_max] */
    uint8_t *in;              /* a bit a slot: it may go */
    struct segment *segments; /* [slots_max] */
    uint32_t segments_used, free;
    uint32_t *heap; /* [slots_max] segments with an entered slot, the least value first */
    uint32_t heap_count;
    struct ghost (*ghosts)[LINE]; /* [ghost_mask + 1] the newest of each first */
    uint32_t ghost_mask;
    struct list age[WF_VALUE_BUCKETS];   /* ghosts among the others */
    struct list dead;                    /* ghosts, in the order in which they became that */
    uint32_t edge[WF_VALUE_BUCKETS + 1]; /* ticks */
    uint64_t uses;
    uint32_t now; /* ticks */
    uint64_t first_us;
    struct { /* the request that is open */
        uint32_t *slots;
        uint64_t *keys;
        uint32_t count, reader, parent;
        uint32_t uses; /* of all blocks, at its last */
    } open;
    struct request recent[RECENT];
    uint32_t recent_next;
    struct wf_value_model model;
};

/* ------------------------------------------------------------------------------------- the heap */

static bool before(const struct wf_policy *p, uint32_t a, uint32_t b)
{
    const struct segment *x = &p->segments[a], *y = &p->segments[b];
    return x->value < y->value || (!(y->value < x->value) && p->now - x->ticks > p->now - y->ticks);
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

static void value_set(struct wf_policy *p, uint32_t number, float value)
{
    struct segment *s = &p->segments[number];
    s->value = value;
    if (s->blocks && s->place) {
        sift_down(p, s->place - 1);
        sift_up(p, s->place - 1);
    }
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

static struct wf_value_kind kind_of(const struct segment *s)
{
    struct wf_value_kind kind = {.hint = (uint8_t)s->hint};
    memcpy(kind.bin, s->bin, sizeof kind.bin);
    return kind;
}

static void segment_free(struct wf_policy *p, uint32_t number)
{
    struct segment *s = &p->segments[number];
    if (s->bucket < WF_VALUE_BUCKETS)
        list_remove(p, &p->age[s->bucket], number);
    s->generation++;
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

static void ghost_free(struct wf_policy *p, uint32_t number)
{
    const struct segment *s = &p->segments[number];
    *(s->older == NONE ? &p->dead.first : &p->segments[s->older].newer) = s->newer;
    *(s->newer == NONE ? &p->dead.last : &p->segments[s->newer].older) = s->older;
    segment_free(p, number);
}

/* One of those that went is known no more. */
static void missing_less(struct wf_policy *p, const struct ghost *ghost)
{
    struct segment *s = &p->segments[ghost->segment];
    if (s->generation != ghost->generation || s->missing == 0 || s->missing == UINT16_MAX)
        return;
    if (--s->missing == 0 && s->blocks == 0)
        ghost_free(p, ghost->segment);
}

static struct ghost *line_of(const struct wf_policy *p, uint64_t key)
{
    return p->ghosts[(uint32_t)(key >> 32) & p->ghost_mask];
}

static void ghost_add(struct wf_policy *p, uint64_t key, uint32_t number, unsigned fan)
{
    struct ghost *line = line_of(p, key), last = line[LINE - 1];
    struct segment *s = &p->segments[number];
    memmove(line + 1, line, (LINE - 1) * sizeof *line);
    line[0] = (struct ghost){.key = key & 0xffffff,
                             .fan = (1 + (fan < FAN_MAX ? fan : FAN_MAX)) & 15,
                             .generation = s->generation,
                             .segment = number};
    s->missing = (uint16_t)(s->missing + (s->missing < UINT16_MAX));
    if (last.fan)
        missing_less(p, &last);
}

/* What is known of a block that went; it is there again, and so no ghost any more.  `fan` 0: it is
 * not known. */
static struct ghost ghost_take(struct wf_policy *p, uint64_t key)
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

/* There are as many segments as slots, and each that is alive has a slot: either one is free, or
 * one is a ghost. */
static uint32_t segment_new(struct wf_policy *p, const struct wf_value_kind *kind)
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
                          .hint = (unsigned)kind->hint & 3u};
    memcpy(s->bin, kind->bin, sizeof s->bin);
    list_add(p, &p->age[0], number);
    s->value = wf_value_of(&p->model, kind, 0, 0);
    return number;
}

static float age_s(const struct wf_policy *p, const struct segment *s)
{
    return (float)(p->now - s->ticks) / TICKS_PER_S;
}

/* The first of this bucket is through with it. */
static void grow_older(struct wf_policy *p, unsigned bucket)
{
    uint32_t number = p->age[bucket].first;
    struct segment *s = &p->segments[number];
    struct wf_value_kind kind = kind_of(s);
    wf_value_learn(&p->model, &kind, bucket, false);
    if (bucket + 1 == WF_VALUE_BUCKETS && !s->blocks) {
        ghost_free(p, number);
        return;
    }
    list_remove(p, &p->age[bucket], number);
    s->bucket = (bucket + 1) & 63;
    if (bucket + 1 < WF_VALUE_BUCKETS)
        list_add(p, &p->age[bucket + 1], number);
    if (s->blocks && s->value >= 0) /* below: it was cooled */
        value_set(p, number,
                  bucket + 1 < WF_VALUE_BUCKETS
                      ? wf_value_of(&p->model, &kind, bucket + 1, age_s(p, s))
                      : 0);
}

/* Youngest buckets first: what passes through several at once is seen in each. */
static void advance(struct wf_policy *p, uint64_t now_us)
{
    if (p->first_us == 0)
        p->first_us = now_us;
    uint32_t now = now_us < p->first_us
                       ? 0
                       : (uint32_t)((now_us - p->first_us) / (1000000 / TICKS_PER_S));
    if (now == p->now || now - p->now > INT32_MAX) /* the same, or a clock that went back */
        return;
    p->now = now;
    for (unsigned bucket = 0; bucket < WF_VALUE_BUCKETS; bucket++)
        while (p->age[bucket].first != NONE &&
               p->now - p->segments[p->age[bucket].first].ticks >= p->edge[bucket + 1])
            grow_older(p, bucket);
}

/* A slot no longer belongs to its segment.  What has none left is a ghost if blocks of it are known
 * that went, and free otherwise. */
static void seat_leave(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = p->seats[slot].segment;
    struct segment *s = &p->segments[number];
    p->seats[slot].segment = NONE;
    if (s->entered == slot) {
        heap_remove(p, number);
        s->entered = NONE;
    }
    if (--s->blocks)
        return;
    if (s->missing && s->bucket < WF_VALUE_BUCKETS)
        ghost_make(p, number);
    else
        segment_free(p, number);
}

static bool may_go(const struct wf_policy *p, uint32_t slot)
{
    return p->in[slot / 8] >> (slot % 8) & 1;
}

static void seat_take(struct wf_policy *p, uint32_t slot, uint32_t number)
{
    p->seats[slot].segment = number;
    p->segments[number].blocks++;
}

/* A segment is a stretch of a chain, so only one of its slots is ever a leaf.  Should another be
 * offered all the same, it gets a segment of its own. */
static void seat_enter(struct wf_policy *p, uint32_t slot)
{
    uint32_t number = p->seats[slot].segment;
    struct segment *s = &p->segments[number];
    if (s->entered != NONE) {
        struct wf_value_kind kind = kind_of(s);
        seat_leave(p, slot);
        number = segment_new(p, &kind);
        seat_take(p, slot, number);
        s = &p->segments[number];
    }
    s->entered = slot;
    heap_add(p, number);
}

/* -------------------------------------------------------------------------- a request is judged */

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

/* Those whose blocks are used learn that they are, once each.  What was evicted and comes back is
 * not new. */
static struct past look_back(struct wf_policy *p, const struct request *before)
{
    struct past past = {.any = false, .learned = NONE};
    uint32_t last = NONE;
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
            ghost = ghost_take(p, p->open.keys[i]);
            if (!ghost.fan)
                continue;
            number = ghost.segment;
            seat->fan = (uint8_t)(ghost.fan - 1);
            seat->uses = seat->fan;
        }
        struct segment *s = &p->segments[number];
        seat->gap = (uint8_t)(1 + wf_value_octave((double)(p->now - s->ticks) * 4 / TICKS_PER_S));
        past.any = true;
        past.known = i + 1;
        past.ticks = s->ticks;
        past.turn = seat->fan > FAN_HUB ? 0 : s->bin[WF_VALUE_TURN] + 1u;
        if (number != last && s->bucket < WF_VALUE_BUCKETS) {
            struct wf_value_kind kind = kind_of(s);
            wf_value_learn(&p->model, &kind, s->bucket, true);
        }
        past.learned = last = number;
        past.learned_generation = s->generation;
        if (ghost.fan)
            missing_less(p, &ghost);
    }
    return past;
}

static void branches(struct seat *parent)
{
    parent->fan = (uint8_t)(parent->fan + (parent->fan < UINT8_MAX));
}

/* Count the uses, and leave the segments of before. */
static void take_out(struct wf_policy *p, uint32_t known)
{
    if (known == 0 && p->open.parent < p->slots_max)
        branches(&p->seats[p->open.parent]);
    for (uint32_t i = 0; i < p->open.count; i++) {
        struct seat *seat = &p->seats[p->open.slots[i]];
        if (i >= known && i > 0)
            branches(&p->seats[p->open.slots[i - 1]]);
        seat->uses = (uint16_t)(seat->uses + (seat->uses < UINT16_MAX));
        if (seat->segment < OPEN)
            seat_leave(p, p->open.slots[i]);
        seat->segment = NONE;
    }
}

static void seated(struct wf_policy *p, uint32_t slot, uint32_t number)
{
    if (p->seats[slot].segment != NONE)
        return; /* it is named twice in one request */
    seat_take(p, slot, number);
    if (may_go(p, slot))
        seat_enter(p, slot);
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
    struct segment *s = &p->segments[number];
    const struct wf_value_kind now = kind_in(request);
    const uint8_t output = s->bin[WF_VALUE_OUTPUT];
    if (s->bucket < WF_VALUE_BUCKETS)
        list_remove(p, &p->age[s->bucket], number);
    s->bucket = 0;
    s->ticks = p->now;
    s->uses = p->open.uses;
    list_add(p, &p->age[0], number);
    memcpy(s->bin, now.bin, sizeof s->bin);
    s->bin[WF_VALUE_OUTPUT] = output;
    for (uint32_t i = 0; i < p->open.count; i++)
        seated(p, p->open.slots[i], number);
    struct wf_value_kind kind = kind_of(s);
    value_set(p, number, wf_value_of(&p->model, &kind, 0, 0));
}

/* Another chain begins at the end of what was judged: it may be shared otherwise than the rest of
 * its segment now, and has one of its own then. */
static void split_off(struct wf_policy *p, uint32_t slot)
{
    const struct seat *seat = &p->seats[slot];
    struct wf_value_kind kind = kind_of(&p->segments[seat->segment]);
    if (kind.bin[WF_VALUE_SHARED] == class_of(seat->fan))
        return;
    shared_as(&kind, seat);
    seat_leave(p, slot);
    seated(p, slot, segment_new(p, &kind));
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
        number = segment_new(p, &kind);
        for (uint32_t k = i; k < end; k++)
            seated(p, p->open.slots[k], number);
    }
    return number;
}

/* The request of this reader's that ended with `parent` a moment ago. */
static struct request *extended(struct wf_policy *p, uint32_t parent, uint32_t reader)
{
    if (parent >= p->slots_max || p->seats[parent].segment >= OPEN)
        return NULL;
    for (uint32_t i = 0; i < RECENT; i++) {
        struct request *recent = &p->recent[i];
        if (recent->last == parent && recent->reader == reader &&
            recent->segment == p->seats[parent].segment && p->now - recent->ticks < RECENT_TICKS)
            return recent;
    }
    return NULL;
}

static void judge(struct wf_policy *p)
{
    if (!p->open.count)
        return;
    struct request *before = extended(p, p->open.parent, p->open.reader);
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
    if (there && p->segments[number].bin[WF_VALUE_SHARED] == 0 &&
        p->segments[number].blocks + p->open.count <= BLOCKS_MAX)
        join(p, number, &request);
    else
        number = divide(p, &request);
    request.segment = number;
    if (before) {
        *before = request;
    } else {
        p->recent[p->recent_next] = request;
        p->recent_next = (p->recent_next + 1) % RECENT;
    }
    p->open.count = 0;
}

/* ----------------------------------------------------------------------------------- the policy */

static void value_used(struct wf_policy *p, const struct wf_policy_use *use)
{
    advance(p, use->now_us);
    uint32_t end = p->open.count ? p->open.slots[p->open.count - 1] : NONE;
    p->uses++;
    if (use->slot == end) {
        p->open.uses = (uint32_t)p->uses;
        return;
    }
    if (p->open.count &&
        (use->parent != end || use->reader != p->open.reader || p->open.count == OPEN_BLOCKS_MAX))
        judge(p);
    if (!p->open.count) {
        p->open.reader = use->reader;
        p->open.parent = use->parent;
    }
    p->open.uses = (uint32_t)p->uses;
    p->open.slots[p->open.count] = use->slot;
    p->open.keys[p->open.count++] = use->key;
    if (p->seats[use->slot].segment == NONE)
        p->seats[use->slot].segment = OPEN;
}

static void value_hint(struct wf_policy *p, const struct wf_policy_hint *hint)
{
    judge(p);
    uint32_t number = p->seats[hint->slot].segment;
    if (number >= OPEN)
        return;
    struct segment *s = &p->segments[number];
    unsigned says = hint->kind == WF_POLICY_WANTED ? 1 : 2;
    if (hint->kind != WF_POLICY_OUTPUT && s->hint == says)
        return;
    if (hint->kind == WF_POLICY_OUTPUT)
        s->bin[WF_VALUE_OUTPUT] = wf_value_octave(hint->output_tokens);
    else
        s->hint = says & 3;
    struct wf_value_kind kind = kind_of(s);
    if (s->bucket < WF_VALUE_BUCKETS && s->value >= 0)
        value_set(p, number, wf_value_of(&p->model, &kind, s->bucket, age_s(p, s)));
}

static void value_cool(struct wf_policy *p, uint32_t slot)
{
    judge(p);
    if (p->seats[slot].segment < OPEN)
        value_set(p, p->seats[slot].segment, -1);
}

static void value_enter(struct wf_policy *p, uint32_t slot)
{
    if (may_go(p, slot))
        return;
    p->in[slot / 8] = (uint8_t)(p->in[slot / 8] | 1u << (slot % 8));
    p->count++;
    if (p->seats[slot].segment == OPEN)
        return; /* when its request is judged */
    if (p->seats[slot].segment == NONE) {
        struct wf_value_kind kind = {.hint = 0};
        seat_take(p, slot, segment_new(p, &kind));
    }
    seat_enter(p, slot);
}

static void value_leave(struct wf_policy *p, uint32_t slot)
{
    if (!may_go(p, slot))
        return;
    p->in[slot / 8] = (uint8_t)(p->in[slot / 8] & ~(1u << (slot % 8)));
    p->count--;
    uint32_t number = p->seats[slot].segment;
    if (number < OPEN && p->segments[number].entered == slot) {
        heap_remove(p, number);
        p->segments[number].entered = NONE;
    }
}

static bool value_holds(const struct wf_policy *p, uint32_t slot)
{
    return may_go(p, slot);
}

static uint32_t value_victim(struct wf_policy *p, uint64_t now_us)
{
    judge(p);
    advance(p, now_us);
    if (!p->heap_count)
        return WF_POLICY_NONE;
    uint32_t slot = p->segments[p->heap[0]].entered;
    value_leave(p, slot);
    return slot;
}

static void value_spared(struct wf_policy *p, uint32_t slot)
{
    if (p->seats[slot].segment < OPEN)
        value_set(p, p->seats[slot].segment, INFINITY); /* until it is older */
}

static void value_gone(struct wf_policy *p, uint32_t slot, uint64_t key)
{
    judge(p);
    value_leave(p, slot);
    if (p->seats[slot].segment < OPEN) {
        ghost_add(p, key, p->seats[slot].segment, p->seats[slot].fan);
        seat_leave(p, slot);
    }
    p->seats[slot] = (struct seat){.segment = NONE};
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
    uint32_t number = p->seats[slot].segment;
    bool last = p->open.count && p->open.slots[p->open.count - 1] == slot;
    uint32_t uses = number < OPEN && !last ? p->segments[number].uses : p->open.uses;
    return (uint32_t)p->uses - uses;
}

static void value_explain(const struct wf_policy *p, uint32_t slot, struct wf_policy_reason *out)
{
    uint32_t number = p->seats[slot].segment;
    *out = (struct wf_policy_reason){.rule = "weft", .hint = -1};
    if (number >= OPEN)
        return;
    const struct segment *s = &p->segments[number];
    out->value = (double)s->value;
    out->age_s = (double)age_s(p, s);
    out->turn = s->bin[WF_VALUE_TURN];
    out->hint = s->hint == 1 ? WF_POLICY_WANTED : s->hint == 2 ? WF_POLICY_DONE : -1;
    struct wf_value_kind kind = kind_of(s);
    if (s->bucket < WF_VALUE_BUCKETS)
        out->chance = (double)wf_value_chance(&p->model, &kind, s->bucket);
}

static void value_destroy(struct wf_policy *p)
{
    if (!p)
        return;
    free(p->seats);
    free(p->in);
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

static enum weft_status value_create(uint32_t slots_max, struct wf_policy **out)
{
    struct wf_policy *p = table(1, sizeof *p);
    uint32_t lines = 1, open = slots_max < OPEN_BLOCKS_MAX ? slots_max : OPEN_BLOCKS_MAX;
    while (lines * LINE < slots_max)
        lines *= 2;
    if (p) {
        p->seats = table(slots_max, sizeof *p->seats);
        p->in = table(slots_max / 8 + 1, 1);
        p->segments = table(slots_max, sizeof *p->segments);
        p->heap = table(slots_max, sizeof *p->heap);
        p->ghosts = table(lines, sizeof *p->ghosts);
        p->open.slots = table(open, sizeof *p->open.slots);
        p->open.keys = table(open, sizeof *p->open.keys);
    }
    if (!p || !p->seats || !p->in || !p->segments || !p->heap || !p->ghosts || !p->open.slots ||
        !p->open.keys) {
        value_destroy(p);
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for the eviction policy of %u blocks",
                       slots_max);
    }
    p->slots_max = slots_max;
    p->ghost_mask = lines - 1;
    p->free = NONE;
    memset(p->age, 0xff, sizeof p->age);
    memset(&p->dead, 0xff, sizeof p->dead);
    for (uint32_t i = 0; i < slots_max; i++)
        p->seats[i].segment = NONE;
    for (uint32_t i = 0; i < RECENT; i++)
        p->recent[i].segment = NONE;
    wf_value_model_init(&p->model);
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
    .cool = value_cool,
    .enter = value_enter,
    .leave = value_leave,
    .holds = value_holds,
    .victim = value_victim,
    .spared = value_spared,
    .gone = value_gone,
    .candidates = value_candidates,
    .uses = value_uses,
    .age = value_age,
    .explain = value_explain,
};
