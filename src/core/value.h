/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of eviction by value: what value.c, value_request.c, value_segment.c and value_guard.c
 * know of each other.  Nobody else includes this.
 *
 * The unit is the segment: the run of blocks that one request touched last and that are shared
 * alike.  A request that uses a part of it takes that part into segments of its own; the rest keeps
 * its age.  A segment is a stretch of one chain, so at most one of its blocks is a leaf, and the
 * heap of those that may go holds segments, by what they are worth in the order that stands
 * (value_guard.h).  Values change when a segment comes into the next bucket of age (value_model.h):
 * each bucket is a list in the order in which they leave it.
 *
 * What it takes to have a block again, a code of seven bits, is the block's; a segment has that of
 * its block that may go, so that its worth is the value of its kind times that.
 *
 * Blocks that went stay known, half as many again as there are slots, by a part of their keys: as
 * members of their segment, which is a ghost when it has no others, until they come back or are
 * forgotten, the oldest of a line of the table first.  So the model also learns from what was
 * evicted, and a chain that comes back knows its turn and where others branched off.  To take
 * another block for one of them costs a wrong example, and nothing else.
 *
 * One thread.
 */
#ifndef WF_CORE_VALUE_H
#define WF_CORE_VALUE_H

#include <assert.h>

#include "core/policy.h"
#include "core/value_guard.h"
#include "core/value_model.h"

#define NONE UINT32_MAX
#define OPEN (UINT32_MAX - 1) /* for a slot's segment: it is new in the request that is open */

#define TICKS_PER_S 64u        /* 777 days in 32 bits */
#define OPEN_BLOCKS_MAX 65536u /* a longer request is judged in parts */
#define RECENT 64u             /* requests that may go on */
#define USES_MAX ((1u << 15) - 1)
#define BLOCKS_MAX ((1u << 20) - 1) /* in a segment */
#define MISSING_MAX ((1u << 16) - 1)

/* Steps from one bucket of age to the next for which there is time in one tick.  After a pause a
 * whole pool is older at once; what had no step yet counts as young as it was until it has. */
#define STEPS_A_TICK 16384u

struct seat { /* of a slot */
    uint32_t segment;
    uint16_t uses : 15;
    uint16_t in : 1;   /* it may go */
    uint16_t fan : 4;  /* chains that extend it, up to FAN_MAX */
    uint16_t gap : 5;  /* octave of the time between its last two uses, in quarters of a second */
    uint16_t cost : 7; /* wf_value_cost() */
};
#define FAN_MAX 14u /* a ghost's is one more */

struct segment {
    uint32_t ticks; /* of its last use */
    union {
        float worth;    /* below 0: it was cooled */
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
    uint32_t stale : 1;      /* its worth is to be found when it comes into the heap */
    uint32_t
        brought : 1; /* up, for somebody who is to come: kept until it is older, and once more */
    uint64_t bins : WF_VALUE_BITS;
    uint64_t hint : 2;
    uint64_t missing : 16; /* blocks that went and are known; MISSING_MAX: that, or more */
    uint64_t unknown : 1;  /* it was brought up and nothing is known of it: it teaches nothing */
    uint64_t cost : 7;     /* in its worth */
};

/* A block that went. */
struct ghost {
    uint32_t key : 24, fan : 4, generation : 4; /* fan, and one more: 0: an empty place */
    uint32_t segment;
};
#define LINE 8u /* ghosts in a line of the table: 64 bytes */

/* A place in the heap goes with each segment, and there are as many segments as slots. */
#define GHOST_LINES(slots) ((slots) / 2 * 3 / LINE + 1)
static_assert(sizeof(struct seat) + sizeof(struct segment) + sizeof(uint32_t) +
                      sizeof(struct ghost) * 3 / 2 <=
                  64,
              "the budget of metadata a slot");

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
    struct wf_guard_end end;
};

struct refusal {        /* of a request, or of what was left of it */
    uint64_t key, last; /* of those that found no room, the first and the last */
    uint32_t reader, ticks;
    bool any;
    struct wf_value_kind kind; /* of the request, as one segment */
};

struct wf_policy {
    uint32_t slots_max, count, held; /* candidates; slots that have a block */
    struct seat *seats;              /* [slots_max] */
    uint32_t seats_known;            /* those before it are set; the rest was never touched */
    struct segment *segments;        /* [slots_max] */
    uint32_t segments_used, free;
    uint32_t *heap; /* [slots_max] segments with an entered slot, the least worth first */
    uint32_t heap_count;
    struct ghost (*ghosts)[LINE]; /* [ghost_lines] the newest of each first */
    uint32_t ghost_lines;
    struct list age[WF_VALUE_BUCKETS];   /* ghosts among the others */
    struct list dead;                    /* ghosts, in the order in which they became that */
    uint32_t edge[WF_VALUE_BUCKETS + 1]; /* ticks */
    uint64_t uses;
    uint32_t now;    /* ticks */
    unsigned behind; /* the bucket from which on some may wait to grow older */
    uint64_t first_us;
    struct { /* the request that is open */
        uint32_t *slots;
        uint64_t *keys;
        uint32_t count, reader, parent;
        uint32_t uses; /* of all blocks, at its last */
    } open;
    struct request recent[RECENT];
    struct { /* what was asked for last, as one segment */
        struct wf_value_kind kind;
        bool ever;
        uint8_t cost;
        struct refusal *again; /* it is asked for again what found no room a moment ago */
    } asked;
    struct refusal refusals[RECENT]; /* a ring */
    uint32_t refusals_next;
    unsigned cost; /* the code of what was told of last */
    uint32_t recent_next;
    struct { /* the segment that was explained last: its blocks go one after the other */
        uint32_t number, uses, ticks;
        uint8_t generation;
        struct wf_policy_reason reason;
    } told;
    struct wf_value_model model;
    struct wf_guard *guard;
};

/* Costs (seconds a GiB) are told apart by steps of a fifth of an octave: up to an hour. */
#define COST_LEAST 1e-4f
#define COST_STEPS 5
#define COST_CODES 128u
unsigned wf_value_cost_code(float cost);
/* 1 of code 0, which is that of blocks whose cost nobody said. */
float wf_value_cost(unsigned code);

/* value_segment.c */
struct wf_value_kind wf_value_kind_of(const struct segment *s);
void wf_value_bins_set(struct segment *s, const struct wf_value_kind *kind);
/* Its chain had a request before its last, or others begin with it: a bar may stand before it. */
bool wf_value_wanted_again(const struct segment *s);
float wf_value_age_s(const struct wf_policy *p, const struct segment *s);
/* Expected hits a block-second. */
float wf_value_density(const struct wf_policy *p, uint32_t number);
/* What it is worth now in that order. */
float wf_value_worth(const struct wf_policy *p, uint32_t number, enum wf_guard_order order);
/* Its worth is from now on at this cost. */
void wf_value_cost_set(struct wf_policy *p, uint32_t number, unsigned code);
void wf_value_worth_set(struct wf_policy *p, uint32_t number, float worth);
/* Something that its worth depends on is not what it was. */
void wf_value_changed(struct wf_policy *p, uint32_t number);
/* Another order stands. */
void wf_value_heap_rebuild(struct wf_policy *p);
void wf_value_advance(struct wf_policy *p, uint64_t now_us);
/* Is there one to be had? */
bool wf_value_segment_free(const struct wf_policy *p);
uint32_t wf_value_segment_new(struct wf_policy *p, const struct wf_value_kind *kind);
/* It was used just now, as a whole. */
void wf_value_segment_renew(struct wf_policy *p, uint32_t number, const struct wf_value_kind *kind);
void wf_value_seat_take(struct wf_policy *p, uint32_t slot, uint32_t number);
void wf_value_seat_enter(struct wf_policy *p, uint32_t slot);
/* What went is in this slot again, and in the segment that it was of; of what is not known a new
 * one, or its parent's.  It was not used. */
void wf_value_seat_bring(struct wf_policy *p, uint32_t slot, uint32_t parent, uint64_t key);
/* Segments in the heap that would go before this one, as far as a sample tells. */
uint32_t wf_value_before(const struct wf_policy *p, uint32_t number);
/* It is used: an example of yes for its age, unless that is not what its bucket says yet. */
void wf_value_learn_use(struct wf_policy *p, const struct segment *s);
/* Its slot may not go any more. */
void wf_value_seat_withdraw(struct wf_policy *p, uint32_t slot);
void wf_value_seat_leave(struct wf_policy *p, uint32_t slot);
void wf_value_ghost_add(struct wf_policy *p, uint64_t key, uint32_t number, unsigned fan);
/* What is known of a block that went; it is there again, and so no ghost any more.  `fan` 0: it is
 * not known. */
struct ghost wf_value_ghost_find(const struct wf_policy *p, uint64_t key);
/* Of this segment nothing is held after all: it is a ghost, if blocks of it are known. */
void wf_value_ghost_only(struct wf_policy *p, uint32_t number);
struct ghost wf_value_ghost_take(struct wf_policy *p, uint64_t key);
/* One of those that went is known no more. */
void wf_value_missing_less(struct wf_policy *p, const struct ghost *ghost);

/* value_request.c: the request that is open is over, as far as anybody knows. */
void wf_value_judge(struct wf_policy *p);
/* What may go for it, when nothing is open; policy.h has both. */
void wf_value_ask(struct wf_policy *p, const struct wf_policy_ask *ask, float *bars);
void wf_value_refused(struct wf_policy *p, const struct wf_policy_ask *ask, uint32_t first);

/* A request that adds no more than one of so many blocks that are held may have what is next. */
#define ASK_PART 12u
/* The cost of what is held, and so the weight that its session's priority gives it, counts before a
 * bar up to so many times that of what asks, whose own priority nobody has said yet: four times and
 * a chain that nobody wants any more is out of the way in a minute or two, sixteen times and it is
 * half an hour. */
#define BAR_COST_MAX 4.0f
float wf_value_at_bar(float worth, unsigned cost, unsigned cost_of_new);
/* What has to be worth less for a block of this kind, which is new, to come in. */
float wf_value_bar(const struct wf_value_model *model, const struct wf_value_kind *kind);

#endif
