/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether a block is worth its way down, where to, what of a chain is loaded and what computed, and
 * when to fetch ahead: decisions from numbers alone.
 *
 * Everything is in one unit: seconds of prefill that are saved.  A tier is what was measured of it;
 * a block is what it costs to compute and how likely it is wanted.  Each decision comes back with
 * its reason and the numbers that made it.  No state but a tier's budget of writes, no I/O, no
 * clock; any thread, each struct one at a time.
 */
#ifndef WF_CORE_PLACEMENT_H
#define WF_CORE_PLACEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --------------------------------------------------------------------------------------- numbers
 *
 * A use that is to come: with `chance` there is one; if so, it comes at the rate `rate ÷ chance`,
 * so that `rate` is hits a second now (struct wf_policy_reason's value). */
struct wf_reuse {
    double chance, rate;
    double weight; /* of waiting for it (WF_POLICY_WEIGHS); 0: what is usual, 1 */
};

/* The hits that holding it for so long brings: chance · (1 − e^(−rate·stay ÷ chance)).  Never more
 * than chance, never more than rate · stay. */
double wf_reuse_hits(struct wf_reuse reuse, double stay_s);
/* What a policy says of a block, whose clock runs `speed` times as fast as ours.  False: it does
 * not know. */
struct wf_policy_reason;
bool wf_reuse_told(const struct wf_policy_reason *why, double speed, struct wf_reuse *out);
/* The same block after it was not used for that long: what was never to come gets likelier. */
struct wf_reuse wf_reuse_aged(struct wf_reuse reuse, double unused_s);

/* What prefill costs: a token, and each token that it attends to.  The cost of a block grows with
 * its position. */
struct wf_prefill {
    double token_s, attended_s;
};
double wf_prefill_s(struct wf_prefill prefill, double first_token, double tokens);
/* Where nobody says it.  Of published shapes on the GPUs that they are commonly run on
 * (src/sim/engine.c), the longest time for a byte of KV; and the most that attending to one token
 * adds to what a token costs, in parts of it.  A test holds both against the shapes. */
#define WF_PREFILL_S_BYTE 6.8e-10
#define WF_PREFILL_ATTENDED 6.8e-5

/* A tier as it is now. */
struct wf_place {
    const struct wf_place *next; /* takes what this one lets go; NULL: that is lost */
    double latency_s;            /* of a read that nobody is before */
    double read_bytes_s, write_bytes_s;
    double read_queue_s;  /* until a read that comes now would begin */
    double write_queue_s; /* the same of a write */
    double busy;          /* what a second of writing takes from reads; 0: there are none */
    double stay_s;        /* how long what is written stays; INFINITY: it has room */
    double wear_s_byte;   /* the price of a byte written: wf_wear_price() */
    double expansion;     /* bytes that it is written for a byte of a block; below 1: 1 */
    double room_s_byte;   /* what the bytes that must go for it are worth; 0: none must */
    bool open;            /* it takes writes */
    bool owes; /* it owes so much of its budget that not even what leads to others is written */
};

/* What a second of writing takes from reads, where reading has the device for that part of the time
 * and a read takes read_s.  Reads go before writes, so that one waits for no more than the rest of
 * the write that runs: half of it, if it comes while it runs. */
double wf_place_busy(double reading, double read_s, double write_s);
/* What a block costs to compute, where nobody says it: by its bytes, and at least twice what it
 * takes to read from any of the places, since they are there to be read. */
double wf_prefill_guess_s(double bytes, double run_blocks, const struct wf_place *places,
                          int count);

/* ---------------------------------------------------------------------------------------- wear
 *
 * A tier's budget of writes: so many drive writes a day, as a bucket of tokens that fills evenly.
 * The price of a byte rises as the bucket empties, between 1/e of the least worth that comes along
 * and the most: what is then bought is within a constant factor (1 + ln(most ÷ least)) of the best
 * that somebody could buy who knows all that is to come (Y. Zhou, D. Chakrabarty, R. Lukose,
 * "Budget constrained bidding in keyword auctions and online knapsack problems", WINE 2008).  Least
 * and most are taken from what was offered: a mean of logarithms and its spread.  That flash caches
 * need such a gate, and one that looks at what will be read: A. Eisenman et al., "Flashield", NSDI
 * 2019; S. McAllister et al., "Kangaroo", SOSP 2021; B. Berg et al., "The CacheLib caching engine",
 * OSDI 2020.
 *
 * Blocks leave a pool from the ends of their chains, and one is of no use without those before it.
 * So whoever begins a chain will write all of its way: it is begun only if the bucket has that, and
 * what is still to come of it is promised, and of no use to others.  Where the bucket has less,
 * a shorter beginning of the chain is begun, when its turn comes.  A promise that nobody redeems
 * (the end of the chain is gone, or its beginning stays) fades, as long as an hour takes to come
 * in.  What was promised once and comes late may be owed, a part of the bucket at most: in no span
 * of time is more written than comes in, the bucket, WF_WEAR_OWED of it and a block.
 */
struct wf_wear {
    double bytes_s, most_bytes; /* bytes_s 0: nothing is counted, and every price is 0 */
    double bytes;               /* in the bucket */
    double promised;            /* of these; or of what is to come */
    double at_s;
    double log_mean, log_spread; /* of worth a byte, of what was offered */
    double offers;
};
#define WF_WEAR_BURST_S 3600.0 /* the bucket holds what comes in so long, */
#define WF_WEAR_MOST_S 86400.0 /* or, if that is less than a block, so long */
#define WF_WEAR_OWED 0.25      /* of the bucket, may be owed by what leads to others */

/* capacity_bytes · drive_writes a day.  drive_writes 0: no limit.  The bucket is empty at first: no
 * day has more writes than a day's. */
void wf_wear_init(struct wf_wear *wear, double capacity_bytes, double drive_writes, double now_s);
/* It had so much, of so much that it held, that long ago: it has that and what came in since. */
void wf_wear_resume(struct wf_wear *wear, double bytes, double most_bytes, double ago_s);
/* Something worth that much a byte was offered; before it is asked for its price. */
void wf_wear_offer(struct wf_wear *wear, double worth_s_byte);
/* Seconds a byte of a block of `bytes`, with which `way_bytes` have to be written, its own
 * included; INFINITY when that is more than is there and not promised.  way_bytes 0: it is what was
 * promised. */
double wf_wear_price(struct wf_wear *wear, double bytes, double way_bytes, double now_s);
/* Is a block more than may be written in a day?  The bucket never has it. */
bool wf_wear_never(const struct wf_wear *wear, double bytes);
/* May no more be owed for what leads to others? */
bool wf_wear_owes(struct wf_wear *wear, double bytes, double now_s);
/* What must be written may be more than there is: it is owed. */
void wf_wear_spend(struct wf_wear *wear, double bytes, double now_s);
/* A chain is begun, and so much of its way is to come; and that much of some chain's came. */
void wf_wear_promise(struct wf_wear *wear, double bytes);
void wf_wear_redeem(struct wf_wear *wear, double bytes);

/* --------------------------------------------------------------------------------- admission */

struct wf_candidate {
    struct wf_reuse reuse;
    uint32_t uses; /* requests that wanted it so far, the first included */
    double bytes;
    double recompute_s; /* wf_prefill_s() of its tokens where they stand */
    /* recompute_s is wf_prefill_guess_s(): good to compare blocks by, and not with what writing
     * takes from reads. */
    bool guessed;
    double run_blocks; /* blocks that would be read along with it: they share the latency */
    bool extended;     /* what extends it is below already: without it that is lost */
    bool asked;        /* somebody asked for it to be there: it is written, whatever that costs */
    uint32_t leads;    /* to blocks of which places, a bit each; 0: that is not known, */
#define WF_LEADS_ELSEWHERE (1u << 31) /* or of others */
    /* Of it and of those before it that are not below yet, nor lead to what is. */
    double way_bytes;
};
/* To find way_bytes, look at so many blocks before it, and take those before to be missing. */
#define WF_WAY_LOOKS 256u

enum wf_admit_rule {
    WF_ADMITTED = 0,
    WF_ADMITTED_CHAIN, /* what extends it is below, or somebody asked for it */
    WF_REFUSED_ONCE,   /* wanted once, and little likely to be wanted again */
    WF_REFUSED_SLOWER, /* computing it is sooner than reading it from there */
    WF_REFUSED_WRITE,  /* what writing takes from others is more than it is worth */
    WF_REFUSED_WEAR,   /* it is not worth its part of the writes that the device may take */
    WF_REFUSED_ROOM,   /* what must go for it is worth more */
    WF_REFUSED_CLOSED, /* nothing takes writes */
    WF_ADMIT_RULES,
};

/* A block wanted once must be at least that likely to be wanted again, where writes or room are
 * short.  (The doorkeeper of G. Einziger et al., "TinyLFU", ACM ToS 2017, refuses all of them; here
 * a new turn of a chat that goes on is no one-hit wonder.) */
#define WF_ONCE_CHANCE 0.1

struct wf_admission {
    enum wf_admit_rule rule;
    int place;                      /* which; -1: none */
    double hits;                    /* expected while it stays, there or on the tiers behind */
    double saved_s;                 /* by one hit there, by what waiting for it counts */
    double gain_s;                  /* by all of them */
    double write_s, wear_s, room_s; /* what it costs */
    double net_s;                   /* gain less costs */
};

/* To this tier, or not. */
void wf_admit(const struct wf_candidate *block, const struct wf_place *place,
              struct wf_admission *out);
/* To which of several: where the most is left of its gain.  Refused by all: the reason of the one
 * that would be best if its writes cost no wear, so that a budget that is used up is named. */
void wf_place_choose(const struct wf_candidate *block, const struct wf_place *places, int count,
                     struct wf_admission *out);
/* It has room only if `coldest` goes, which was not wanted for that long since its reuse was what
 * it says.  What that is worth to who would push it out, looked ahead as far as it has waited, is
 * room_s_byte: all that it may save, or, if `next` would take it (NULL: none would), what it saves
 * less there, and its way. */
void wf_place_full(struct wf_place *place, const struct wf_place *next,
                   const struct wf_candidate *coldest, double unused_s);
/* Does it lead to what lies at that place, and was promised its part of its budget? */
bool wf_place_led(const struct wf_candidate *block, int place);
/* wf_place_choose() of tiers that have budgets, one each: it is offered to all of them, and their
 * prices are set.  What leads to others elsewhere begins anew, and is not owed. */
void wf_place_offer(const struct wf_candidate *block, struct wf_place *places,
                    struct wf_wear *const *wears, int count, double now_s,
                    struct wf_admission *out);
const char *wf_admit_rule_name(enum wf_admit_rule rule);

/* ----------------------------------------------------------------------------- compute or load
 *
 * A chain's first blocks lie in runs on several tiers; the rest of the request has to be computed.
 * Layer i of prefill needs layer i of what is loaded, and layers come in order, so with D the time
 * of all loads, C that of the computation, L layers and `ahead` by which loading begins before it,
 *
 *   done = max(C, latency − ahead + D/L + C, latency − ahead + D + C/L)
 *
 * (layer-wise pre-loading: B. Gao et al., "CachedAttention", USENIX ATC 2024).  Tiers read at the
 * same time; all of it passes the link to the engine.  Every cut is looked at: O(blocks). */
struct wf_run {
    uint32_t blocks;
    int place; /* into the places */
};

struct wf_cut_load {
    struct wf_prefill prefill;
    double block_tokens, tokens; /* tokens: of the whole request, loaded and computed */
    double block_bytes;
    double link_bytes_s;
    double layers;  /* 1: computation waits for all of it */
    double ahead_s; /* until computation can begin: a queue, say */
};

enum wf_cut_rule {
    WF_CUT_LOAD = 0, /* all that is there is loaded */
    WF_CUT_PART,     /* a beginning of it; computing the rest is sooner */
    WF_CUT_COMPUTE,  /* nothing */
};

struct wf_cut {
    enum wf_cut_rule rule;
    uint32_t load_blocks; /* the first so many */
    double done_s;        /* from when computation could begin */
    double latency_s;     /* of what is loaded: from its begin to the first byte, */
    double data_s;        /* and from there to the last */
    double prefill_s;     /* of the rest */
    double all_s, none_s; /* done_s, if all were loaded, and if nothing */
};

/* The formula: `late_s` is the latency less `ahead`. */
double wf_overlap_s(double late_s, double data_s, double prefill_s, double layers);

#define WF_CUT_PLACES_MAX 16
/* run[i].place below place_count, which is at most WF_CUT_PLACES_MAX. */
void wf_cut(const struct wf_cut_load *load, const struct wf_place *places, int place_count,
            const struct wf_run *runs, uint32_t run_count, struct wf_cut *out);

/* ------------------------------------------------------------------------------------ prefetch
 *
 * A session's blocks lie below and it is said, or likely, to come back.  Fetched too early they
 * hold room that others would use; too late, somebody waits: a second for each, but no longer than
 * it takes without.  With the return at `due_s` give or take (a logistic distribution F of scale
 * spread_s), a moment earlier costs hold · (1 − F(t)) and saves chance · (F(t) − F(t − saved)). The
 * two are equal where the odds that it is not back yet, (1 − F) ÷ F, are
 *
 *   chance ÷ hold · (1 − w) − w      with w = e^(−saved ÷ spread)
 *
 * If a load takes long, measured by how well the return is known, that is the newsvendor's quantile
 * hold ÷ (hold + chance) (K. Arrow, T. Harris, J. Marschak, "Optimal inventory policy",
 * Econometrica 1951); if not, hold · spread ÷ (chance · saved): as early as the rate at which it
 * comes pays for the room.  If the odds are below 0, at no time.
 * Look-ahead to what is to run: CachedAttention; fetching before a request is placed: R. Qin et
 * al., "Mooncake", FAST 2025. */
struct wf_return {
    bool known;             /* due_s is; else the rate of `reuse` speaks */
    double due_s, spread_s; /* when, on the clock of now_s */
    struct wf_reuse reuse;  /* chance: that it comes back at all */
};

struct wf_fetch {
    double load_s;  /* to bring it up, queue and latency included */
    double saved_s; /* what somebody waits less when it is up: load_s, if nothing hides it */
    double bytes;
    double room_s_byte_s; /* what DRAM's least valuable bytes save: seconds a byte and second */
};

enum wf_prefetch_rule {
    WF_PREFETCH_NOW = 0,
    WF_PREFETCH_LATER,     /* at begin_s */
    WF_PREFETCH_NOT_WORTH, /* the room is worth more than the wait */
    WF_PREFETCH_NOTHING,   /* nobody waits less for it */
};

struct wf_prefetch {
    enum wf_prefetch_rule rule;
    double begin_s, ready_s; /* ready_s: when it is up then, at the soonest */
    double quantile;         /* of the return, at which it is to be up; of an unknown one: 0 */
    double gain_s; /* what is waited less; of an unknown return: for a second of holding it */
    double hold_s; /* what its room costs until the return; of an unknown return: a second's */
};

void wf_prefetch_decide(const struct wf_return *back, const struct wf_fetch *fetch, double now_s,
                        struct wf_prefetch *out);
const char *wf_prefetch_rule_name(enum wf_prefetch_rule rule);

/* Each decision in one sentence, without a full stop; as snprintf. */
int wf_admission_say(const struct wf_admission *said, const char *place, char *out, size_t size);
int wf_cut_say(const struct wf_cut *said, uint32_t blocks, char *out, size_t size);
int wf_prefetch_say(const struct wf_prefetch *said, double now_s, char *out, size_t size);

#endif
