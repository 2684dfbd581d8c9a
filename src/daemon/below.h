/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node does with the tiers below its DRAM pool.
 *
 *   below.c         the tiers themselves: opened, ranked, failed
 *   below_found.c   what is found on them when they open
 *   below_room.c    how full they are, and whose block goes
 *   below_scrub.c   blocks checked in the background
 *   admit.c         which blocks are written below, and to which tier
 *   budget.c        what a budget of writes has left, across starts (budget.h)
 *   demote.c        down: a block is written below before it leaves DRAM
 *   demote_chain.c  a whole chain, because someone asked
 *   archive.c       archives: chains that stay there (archive.h)
 *   ahead.c         when a chain is brought up before somebody comes for it (ahead.h)
 *   load.c          up: blocks are read into DRAM
 *   load_asked.c    because someone waits for them, or soon will
 *   others.c        what other hosts have on a tier that they share with this one
 *
 * All of it is the owner thread's.  Movers do the I/O; what they finish comes back through
 * wf_below_run().  A block that is below and in DRAM is *clean*: it may leave DRAM at once.
 *
 * While a block is written or read, its slot in DRAM is held (store.h), so the memory that a device
 * works on never changes hands, also when the client that asked for it dies.
 */
#ifndef WF_DAEMON_BELOW_H
#define WF_DAEMON_BELOW_H

#include "core/directory.h"
#include "core/placement.h"
#include "daemon/budget.h"
#include "daemon/coding.h"
#include "daemon/mover.h"
#include "daemon/node.h"
#include "daemon/volumes.h"

#define WF_LOADS_MAX 4096u  /* blocks on their way up at a time */
#define WF_READS_MAX 4096u  /* reads for them */
#define WF_RESTS_MAX 64u    /* prefetches that wait for room */
#define WF_WRITES_MAX 1024u /* blocks on their way down, or from tier to tier */

/* How much a tier reads, by the counters of its mover. */
struct wf_lower_meter {
    uint64_t reads, read_bytes; /* as of the last look */
    double busy_s;              /* of reading, fading */
    double read_s;              /* that one takes */
    double wear_capacity;       /* what the budget of writes is of; 0: that is not known yet */
};

/* Blocks that went a way, and their payload. */
struct wf_passed {
    uint64_t blocks, bytes;
};

/* A tier of this node. */
struct wf_lower {
    struct wf_below *below;
    const struct wf_tier_config *config;
    char path[WF_PATH_MAX];   /* the configured one, or what `auto` found */
    unsigned number;          /* in the directory and the far table */
    struct wf_others *others; /* of a tier of other hosts' blocks, or other nodes'; else NULL */
    struct wf_lower *own;     /* of one of other hosts: this host's on the same device; else NULL */
    enum weft_tier kind;      /* as clients are told */
    const char *kind_name;    /* "nvme" and the like: what it really is */
    bool durable, emulated;
    struct wf_mover *mover;
    bool opened;         /* blocks are being found there, and may be read */
    bool complete;       /* all that it had is in the directory */
    bool known;          /* so it was once since the start */
    uint64_t opening_ns; /* since when it is being opened; 0: it is not, or not seen at it yet */
    struct wf_volume volume; /* as it is written down */
    uint64_t full_until_ns;  /* it said so: nothing is written there before */
    /* Blocks there that were not taken up, and stay: of domains that this node does not have, with
     * so many bytes, or beyond limits.below. */
    uint64_t left_alone, foreign_bytes;
    uint64_t orphan_bytes;  /* there, and waiting for what they extend to be found */
    uint32_t orphans_end;   /* in the list: behind it there are none of this tier's */
    uint64_t leaving_bytes; /* on their way from it to the next */
    uint64_t writing_bytes; /* on their way to it; and by domain */
    uint64_t writing_of[WF_DIRECTORY_DOMAINS_MAX];
    uint64_t claimed_bytes; /* that archives wait for */
    uint64_t aside_bytes;   /* manifests of archives, which are not in the directory; */
    uint32_t manifests;     /* how many of these it has, as far as is known */
    struct wf_mover_stats stats;
    struct wf_coding coding;
    double expansion;         /* bytes that a byte of payload takes there, as measured */
    enum wf_mover_state told; /* the last that was told of */
    struct wf_removals *removals;
    struct wf_wear wear; /* writes that it may have; nothing is counted without tiers[].dwpd */
    struct wf_budget_kept kept;
    bool never_told; /* that a block is more than these are in a day */
    struct wf_lower_meter meter;
    double scrub_credit;  /* bytes that the background check may read */
    uint64_t scrub_wants; /* a block is larger than it may ever be otherwise; 0: none */
    uint32_t scrub_at;    /* cursor in the directory, among blocks of scrub_domain */
    uint16_t scrub_domain;
    bool scrubbing;
    uint64_t demoted, promoted, moved, evicted, lost;
    struct wf_passed written[WEFT_ECONOMY + 1], read[WEFT_ECONOMY + 1]; /* by quality */
};

/* Why a block was not written below; the last of those whose keys begin alike. */
struct wf_refusal {
    uint8_t key[8];
    bool told; /* there is one */
    enum wf_not_below why;
    bool by_tier;  /* one could have taken it */
    bool by_worth; /* what follows says something */
    struct wf_reuse reuse;
    struct wf_admission said;
};
#define WF_REFUSALS 256u

struct wf_others;
struct wf_loads;
struct wf_demotes;
struct wf_archives;

/* A chain whose prefetch found no room for all of it yet. */
struct wf_rest {
    struct wf_domain *domain;
    uint8_t tip[32];
    uint64_t until_ns, deadline_us; /* it is given up; its reads are due */
    uint32_t left;                  /* blocks that may yet be begun for it */
};

/* Blocks that were removed, and that other nodes have. */
struct wf_removed_far {
    uint8_t (*keys)[32];
    uint32_t count, room;
};

struct wf_below {
    struct wf_node *node;
    uint32_t count;
    struct wf_lower tiers[WF_DIRECTORY_TIERS_MAX];
    unsigned order[WF_DIRECTORY_TIERS_MAX]; /* numbers of tiers, nearest first, as measured */
    struct wf_directory *directory;
    /* For events: why blocks are written, and dropped, at this moment. */
    const char *writing, *dropping;
    struct wf_removed_far *removed_far; /* NULL, or what is removed now is to be noted here */
    bool node_went;                     /* and only it had what is dropped */
    const struct wf_domain *asked_of;   /* NULL, or somebody asked for a block of it to go down, */
    uint32_t asked;                     /* which is in this slot, */
    bool asked_full;                    /* and there is no room but that of its own chain */
    bool ahead;                         /* blocks are looked at that need not leave yet */
    struct wf_refusal refusals[WF_REFUSALS]; /* by the first byte of the key */
    struct wf_loads *loads;
    struct wf_rest rests[WF_RESTS_MAX];
    uint32_t rest_count;
    uint64_t rests_ns; /* they were looked at last */
    struct wf_demotes *demotes;
    struct wf_archives *archives;
    struct wf_tier_block *orphans; /* found before their parents, which may be on another tier */
    uint32_t orphan_count, orphan_capacity;
    uint32_t orphans_told; /* so many of them stay, after all tiers have told; 0: that is not so */
    bool limited;          /* limits.below left no entry for some of what was found */
    const struct wf_lower *losing; /* the directory is being told that it failed; NULL: none */
    bool stopping;                 /* movers are being destroyed: nothing more is submitted */
    uint64_t measured_ns;          /* when the order was looked at last */
};

/* below.c */
enum weft_status wf_below_create(struct wf_node *node, struct wf_below **out);
/* Flushes and closes the tiers.  False: a device did not come to an end, and may yet write to the
 * pools, which must stay mapped. */
bool wf_below_destroy(struct wf_below *below);
/* Tell `watch` the descriptors to wait for, and which tier each is of. */
int wf_below_fd(const struct wf_below *below, uint32_t tier);
/* A tier has something for us. */
void wf_below_run(struct wf_below *below, uint32_t tier);
void wf_below_tick(struct wf_below *below);
/* Is what the tier has still being found? */
bool wf_lower_opening(const struct wf_lower *lower);
/* Is there a tier of which it will be known in a moment whether it can be used?  What takes longer
 * to open than a request to it may is as good as one that does not work. */
bool wf_below_opening(const struct wf_below *below);
/* Will room in DRAM come of what is under way? */
bool wf_below_busy(const struct wf_below *below);
/* When the node stops: true when nothing is left that could be written below. */
bool wf_below_settled(struct wf_below *below);

/* The directory's entry of a block of this domain; WF_DIRECTORY_NONE: it is not below.  A key that
 * another domain has below is not, for this one. */
uint32_t wf_below_find(const struct wf_domain *domain, const uint8_t key[32]);

/* DRAM's side of things.  `domain` and key of a block that was committed; that has gone. */
void wf_below_entered(struct wf_domain *domain, const uint8_t key[32], bool promoted);
/* A block of the domain's could not be read for want of its profile: as long as no other profile
 * comes, what is put there counts as not written yet where it lies with loss. */
void wf_below_unread(struct wf_domain *domain, const uint8_t key[32]);
void wf_below_gone(struct wf_domain *domain, const uint8_t key[32], const struct wf_gone *gone);
/* Copies of a block of DRAM that are worse than its domain asks for now, or cannot be read for want
 * of their profile, leave their tiers, so that it can be written there.  False: not now, or not as
 * long as it is part of an archive. */
bool wf_below_replace(struct wf_domain *domain, const uint8_t key[32]);
/* Those of them that only their profile could read, though it is held, or part of an archive: what
 * DRAM has is about to be written where archives may lie.  Only then, since their profile may be
 * back.  False: not now. */
bool wf_below_make_way(struct wf_domain *domain, const uint8_t key[32]);
/* Has it such copies alone? */
static inline bool wf_below_makes_way(const struct wf_directory_block *block)
{
    return block->fit && block->fit == block->tiers && !block->good;
}
/* The tiers, a bit each, that are what other nodes have. */
uint8_t wf_below_peers(const struct wf_below *below);
/* The nearest tier that has the block, by name; NULL: none. */
const char *wf_below_where(const struct wf_domain *domain, const uint8_t key[32]);
/* Someone asked to drop the block: out of all tiers, with what extends it.  How many. */
uint64_t wf_below_remove(struct wf_domain *domain, const uint8_t key[32]);

/* One more block went there, or came from there, at that quality. */
static inline void wf_lower_passed(struct wf_lower *lower, bool written, enum weft_quality quality,
                                   uint64_t bytes)
{
    struct wf_passed *passed = written ? &lower->written[quality] : &lower->read[quality];
    passed->blocks++;
    passed->bytes += bytes;
}
/* Is the tier fit to be written to, or read from? */
bool wf_lower_usable(const struct wf_lower *lower);
uint64_t wf_lower_capacity(const struct wf_lower *lower);
/* What of that blocks may take. */
uint64_t wf_lower_most_bytes(const struct wf_lower *lower);
/* It says that it is full, though it should not be: so much of what is coldest there goes. */
void wf_lower_make_room(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes);
/* Does it take blocks of that size at all? */
bool wf_lower_fits(const struct wf_lower *lower, uint64_t bytes);
/* Make room for `bytes` of a domain by letting go of what is cold there.  False: there is none to
 * be had.  What archives wait for is left to them; wf_lower_room_claimed() is for these. */
bool wf_lower_room(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes);
bool wf_lower_room_claimed(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes);
/* May the domain archive so much more there?  Only up to its part, when others have parts. */
bool wf_lower_may_archive(const struct wf_lower *lower, const struct wf_domain *domain,
                          uint32_t blocks, uint64_t bytes);
/* So many bytes of payload more may archives have there, if all that may go went. */
uint64_t wf_lower_archive_room(const struct wf_lower *lower);
/* What goes there first so that `bytes` of the domain fit; WF_DIRECTORY_NONE: nothing has to, or
 * nothing may. */
uint32_t wf_lower_coldest(const struct wf_lower *lower, const struct wf_domain *domain,
                          uint64_t bytes);
/* See what a byte takes there. */
void wf_lower_measure(struct wf_lower *lower);
/* The block is not there any more (WEFT_MISS), or not as it was (WEFT_E_CORRUPT); the directory
 * forgets it on that tier. */
void wf_lower_lost(struct wf_lower *lower, const struct wf_domain *domain, const uint8_t key[32],
                   enum weft_status status);
/* Have the tier forget it; best effort, in the background. */
void wf_lower_remove(struct wf_lower *lower, const uint8_t key[32]);
/* Has the tier been told of all that it is to forget?  Before that nothing is written there, or a
 * removal could meet a block that was written anew. */
bool wf_lower_quiet(struct wf_lower *lower);
/* May somebody begin to let go of more there?  Not when too many keys wait already. */
bool wf_lower_may_remove(struct wf_lower *lower);
/* The tier failed: what it is not told stays there, and comes back with it. */
void wf_lower_removals_forget(struct wf_lower *lower);
enum weft_status wf_lower_removals_create(struct wf_lower *lower);
void wf_lower_removals_destroy(struct wf_lower *lower);

/* below_found.c */
/* wf_mover_options.found, of a tier of the node's own. */
void wf_lower_found(void *context, const struct wf_tier_block *blocks, uint32_t count);
/* wf_mover_options.gone: they left the tier without this node's doing. */
void wf_lower_gone(void *context, const struct wf_tier_block *blocks, uint32_t count);
/* One whose parent is not known (yet) waits for it. */
void wf_below_orphan_keep(struct wf_lower *lower, const struct wf_tier_block *block);
/* Those of one tier, which tells of them again when it is back. */
void wf_below_orphans_forget(struct wf_lower *lower);
/* Blocks that were found before their parents are tried again; when every tier has told all that it
 * has, those that are left have none: they go, or stay on a tier of archives. */
void wf_below_orphans_settle(struct wf_below *below);
/* One of those that were left there without a beginning goes, for its room.  False: there is none
 * that may. */
bool wf_below_orphan_go(struct wf_lower *lower);
/* A block was found on the tier: it is in the directory now, or why not.  WEFT_E_NOT_FOUND: no
 * domain of this node's.  WEFT_E_INVALID: it was written by other rules, or contradicts what is
 * known.  WEFT_EXISTS: another domain's block has its key.  WEFT_E_PARENT, WEFT_E_LIMIT. */
enum weft_status wf_lower_enter(struct wf_lower *lower, const struct wf_tier_block *block);

/* What a tier says of a block's quality (plain_quality), which may be anything. */
static inline enum weft_quality wf_quality_told(uint32_t quality)
{
    return quality <= WEFT_LOSSLESS ? WEFT_LOSSLESS
           : quality > WEFT_ECONOMY ? WEFT_ECONOMY
                                    : (enum weft_quality)quality;
}

/* Parts that blocks are written in: what a checksum covers and the least that is read. */
uint32_t wf_below_part_bytes(uint64_t bytes);

/* admit.c */
struct wf_below_ask {
    uint32_t slot; /* in DRAM */
    uint32_t depth;
    uint64_t bytes;
    uint64_t way_bytes; /* wf_below_way_bytes(); 0: its own */
    bool must;          /* whatever it is worth: somebody asked for it to be there */
    bool extended;      /* what extends it is below, or on its way there, and lost without it */
    uint8_t leads;      /* on which tiers, a bit each; 0: that is not known */
    bool hinted; /* whatever it is worth, as long as the budget of writes has what its way takes */
    bool ahead;  /* it need not leave yet, and will be asked about again */
};
/* The tier that takes the block, and has room for it now; NULL: none, and why.  The same decision
 * as the simulator's, from the same calls (src/sim/tiers.c). */
struct wf_lower *wf_below_choose(struct wf_domain *domain, const struct wf_below_ask *ask,
                                 struct wf_refusal *refusal);
/* What the policy said of a block, of which key, size and depth are looked at where costs are told
 * of.  False: it does not know. */
bool wf_below_reuse(const struct wf_domain *domain, const struct wf_policy_reason *why,
                    const struct wf_directory_block *block, struct wf_reuse *out);
/* What it expects of a block of DRAM. */
bool wf_below_estimate(const struct wf_domain *domain, uint32_t slot, struct wf_reuse *out);
/* wf_store_env.lose_part: as wf_keep_cost_s() has it of a block that another node has, too. */
float wf_below_lose_part(void *context, uint32_t slot);
/* wf_store_env.cost_s_gib: to compute it, or to read it from the nearest tier that has a copy, if
 * that is sooner.  0: nobody said how fast engines are, or what format it is of. */
float wf_below_cost_s_gib(void *context, uint32_t slot);
/* Remember why, for the event that tells of the block's end; NULL: it is not known. */
void wf_below_refused(struct wf_below *below, const uint8_t key[32],
                      const struct wf_refusal *refusal);
const struct wf_refusal *wf_below_refusal(const struct wf_domain *domain, const uint8_t key[32]);
const char *wf_not_below_name(enum wf_not_below why);
/* See how busy it is with reads, and how much it may be written. */
void wf_lower_meter(struct wf_lower *lower, uint64_t elapsed_ns);
/* So many bytes of payload are on their way there. */
void wf_lower_written(struct wf_lower *lower, uint64_t bytes);
/* Is what another tier lets go worth its way there? */
bool wf_lower_wants(struct wf_lower *lower, const struct wf_directory_block *block);
/* What of its budget of writes is there now, in bytes (below 0: owed), and comes in a day.  False:
 * it has none. */
bool wf_lower_budget(struct wf_lower *lower, double *out_bytes, double *out_day_bytes);
/* Bytes of a block of DRAM and of those before it that are neither below nor lead to what is: to
 * be written if it is.  No more than WF_WAY_LOOKS are looked at, nor more than the budgets have.
 * Where no tier has one: its own. */
uint64_t wf_below_way_bytes(const struct wf_domain *domain, uint32_t slot);
/* The block is on its way there: the rest of its chain is promised its part of the budget, or it
 * had been. */
void wf_lower_begun(struct wf_lower *lower, const struct wf_below_ask *ask);
/* Has it been written as much as it may, for now? */
bool wf_lower_worn(struct wf_lower *lower, uint64_t bytes);

/* demote.c */
/* Who wants to know how a write ended; call NULL: nobody. */
struct wf_ended {
    void (*call)(void *context, enum weft_status status);
    void *context;
};
enum weft_status wf_demotes_create(struct wf_below *below);
void wf_demotes_destroy(struct wf_below *below);
/* wf_store_env.leave */
enum wf_leave wf_demote_leave(void *context, uint32_t slot);
/* The same for a block that a client wants below: WF_LEAVE_NOW only when it is there. */
enum wf_leave wf_demote_asked(struct wf_domain *domain, uint32_t slot);
/* The same for one whose session waits; `on`: what extends it is on its way. */
enum wf_leave wf_demote_hinted(struct wf_domain *domain, uint32_t slot, bool on);
/* Write cold blocks below before their room is needed. */
void wf_demote_ahead(struct wf_below *below);
/* A step of writing every block of DRAM that is not below; true after a whole round that found
 * nothing to write. */
bool wf_demote_sweep(struct wf_below *below);
/* Has that gone round once, so that what tiers have of what DRAM has is what it chose? */
bool wf_demote_swept(const struct wf_below *below);
/* How many blocks of DRAM, and bytes in them, are on no tier, though there is one that takes such:
 * what a stop loses. */
uint64_t wf_demote_unwritten(const struct wf_below *below, uint64_t *out_bytes);
/* Copy a block from one tier to the other and let go of it there.  False: not now. */
bool wf_move_down(struct wf_lower *from, struct wf_lower *to, uint32_t entry);
/* Write a block of DRAM to `to`, or copy one that is on `from`, whatever is there already; it is in
 * the directory when `ended` is told WEFT_OK or WEFT_EXISTS.  False: not now. */
bool wf_demote_to(struct wf_domain *domain, uint32_t slot, struct wf_lower *to,
                  const struct wf_ended *ended);
bool wf_copy_down(struct wf_lower *from, struct wf_lower *to, uint32_t entry,
                  const struct wf_ended *ended);
uint32_t wf_demotes_busy(const struct wf_below *below);
/* Is the block on its way there? */
bool wf_demote_writes(const struct wf_lower *to, const uint8_t key[32]);

/* below_scrub.c: check the next block of a tier, as far as its rate allows; one round a second at
 * most.  The rate is bytes a second of a tier that has `held_bytes` of blocks. */
double wf_tier_scrub_rate(const struct wf_tier_config *tier, uint64_t held_bytes);
void wf_lower_scrub(struct wf_lower *lower, uint64_t elapsed_ns);

/* others.c: `lower` is a tier of other hosts' blocks */
enum weft_status wf_others_create(struct wf_lower *lower, struct wf_lower *own);
void wf_others_destroy(struct wf_lower *lower);
/* What came and what went there; wf_mover_options. */
void wf_others_found(void *lower, const struct wf_tier_block *blocks, uint32_t count);
void wf_others_gone(void *lower, const struct wf_tier_block *blocks, uint32_t count);
/* The directory let go of one for want of what it extends: it waits, when another node has it;
 * else false. */
bool wf_others_keep(struct wf_lower *lower, const struct wf_directory_dropped *block);
/* The tier failed: all of it will be told again. */
void wf_others_lost(struct wf_lower *lower);
void wf_others_tick(struct wf_below *below);
void wf_handle_fence(struct wf_client *client, const struct wf_fence *request);
/* Forget one, to have room in the directory for blocks of our own.  False: there is none. */
bool wf_others_yield(struct wf_below *below);

/* demote_chain.c */
void wf_handle_demote(struct wf_client *client, const struct wf_demote *request);
/* Write what of the chain is only in DRAM below, and let it be the first to leave. */
void wf_chain_cool(struct wf_domain *domain, const uint8_t tip[32]);

/* load.c */
enum weft_status wf_loads_create(struct wf_below *below);
void wf_loads_destroy(struct wf_below *below);
/* Submit what could not be submitted before. */
void wf_loads_run(struct wf_below *below);
/* The slot that `key` is arriving in; WF_SLOT_NONE when it is not. */
uint32_t wf_load_slot(const struct wf_below *below, const struct wf_domain *domain,
                      const uint8_t key[32]);
/* The block was removed: what is on its way of it arrives nowhere. */
void wf_load_forget(struct wf_below *below, const struct wf_domain *domain, const uint8_t key[32]);
uint32_t wf_loads_busy(const struct wf_below *below);

/* load_asked.c */
void wf_handle_load(struct wf_client *client, const struct wf_load *request);
/* What came of bringing a chain up. */
struct wf_fetched {
    uint32_t blocks, begun, fresh; /* not in DRAM; on their way now; since this call */
    uint64_t bytes;                /* of those on their way */
    enum weft_status status;       /* of the first that is not: WEFT_FULL, or WEFT_MISS */
};
/* Bring a chain up, from its root to `tip`, by `deadline_us` (0: when there is nothing better to
 * do); `why` is a literal, for the event. */
void wf_prefetch_chain(struct wf_domain *domain, const uint8_t tip[32], uint64_t deadline_us,
                       const char *why, struct wf_fetched *out);

/* load_rest.c: a prefetch got as far as the key at `first`, since there was no room for it, or
 * since there was none for what it extends.  What is kept is WEFT_PENDING in the answer. */
struct wf_ahead_asked;
void wf_rest_keep(struct wf_domain *domain, const struct wf_load *request, uint32_t first,
                  struct wf_load_answer *answer, struct wf_ahead_asked *asked);
/* Go on with what is kept, as there is room now. */
void wf_rests_run(struct wf_below *below);

#endif
