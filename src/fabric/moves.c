/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that go from this node to memory that others lend: what a node that drains has and nobody
 * else, what was to have more copies than it has since a lender is gone, and what lies in more than
 * its share of the lenders' memory.
 *
 * Rounds: all that is here is looked at, a step a tick, and what is to be moved becomes a job of
 * core/keep.h, up to JOBS_MAX; then the jobs are carried out, the most urgent first, at
 * options.move_bytes_s; then the next round begins.  So a job is never there twice, and what a full
 * queue has no room for is found again.  A job is looked at again when its turn comes: who has the
 * block may be another by then.
 *
 * A move is a put (put.c): the other side compares every part with the sum that was taken when the
 * block came here, or is taken now.  Only what lay beyond this node's share leaves it then, when
 * the other has said that it has it.  So whatever ends half-way leaves two copies at worst.
 *
 * Of the lenders that have a block which wants for copies, the one whose name comes first copies
 * it; it has the bytes, and the node that put them need not be there any more.  That one may have
 * it in its pool alone, which nobody else can tell, or have been told of fewer copies: so when the
 * next one finds it wanting still, a round later in which nobody came or went, that one copies it.
 *
 * There may be more copies than were asked for, as when a lender comes back that was taken to be
 * gone: those whose names come after enough others go.  Each of these others is asked whether it
 * has one in memory that it lends (copies.c), so that none goes for a copy in somebody's pool; and
 * since none goes but after those that stay, two lenders do not let go of the same one for each
 * other.  That is when nobody came or went for BEYOND rounds.
 *
 * Where this node keeps a part of the directory it does not know who else has a block: before it
 * judges, the owners of the shard are asked (copies.c), as many blocks at a time as there is room
 * for questions, and again when a job's turn comes and what they said is older than STALE_NS.  When
 * no owner is sure, as just after a node went, the block is the next round's; after UNSURE_NS of
 * that it is judged by what is known.  Since all of it is messages, rounds are rarer there.
 *
 * The fabric's thread.  Nothing allocates after create.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "core/keep.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define JOBS_MAX 65536u
#define LOOKS 8192u /* at blocks, a step */
#define HOST_STEPS 16u
#define MOVES_MAX 16u
#define HOLDERS_MAX 32u
#define NAMED_MAX 16u        /* by the replica */
#define ROUND_NS 500000000u  /* at least, from one to the next */
#define QUIET_NS 5000000000u /* where the last found nothing, and no node has gone */
#define FULL_NS 1000000000u  /* nobody has room: that is asked again */
#define BURST_S 0.25
#define PARTS_TIMES 4u       /* so much rarer in parts, */
#define PARTS_QUIET_TIMES 6u /* and those that find nothing */
#define HOST_ROOM 256u       /* questions that a step of the host's may be */
#define STALE_NS 3000000000u
#define AGAIN_MAX 64u
#define UNSURE_NS 10000000000u
#define FULLS_MAX 32u    /* of a domain that nobody has room for: its others find none either */
#define PASSED_MAX 256u  /* jobs that come to nothing, in one run */
#define BEYOND 2u        /* rounds without a change, until copies that are too many go */
#define PUSHES 8u        /* rounds in which a copy that is made again may push others out */
#define SHARE_SLACK 0.05 /* of a lender's memory, beyond the mean of all, that is let be */

/* A block that is to be moved, or may be: what there is to a job of core/keep.h. */
struct job {
    struct wf_lent_found found; /* owner WF_LENT_NONE: it is the host's */
    struct wf_copies_known known;
    enum wf_keep_rule rule;
    bool share, again; /* again: it was judged before, and counted */
    bool beyond;       /* there may be copies enough without this one */
    uint32_t next;     /* free ones */
};

struct move {
    struct wf_fabric_store store; /* first */
    struct move *next;
    struct wf_fabric *fabric;
    struct wf_fabric_held held; /* of the host's */
    uint32_t entry;             /* of what is lent; WF_LENT_NONE */
    enum wf_keep_rule rule;
};

struct wf_moves {
    struct wf_keep *keep;
    struct job *jobs; /* [JOBS_MAX] by the job's number */
    uint32_t job_free, jobs_used;
    struct move moves[MOVES_MAX], *free;
    uint32_t moving;
    enum { IDLE = 0, LOOKING_LENT, LOOKING_HOST, MOVING } state;
    uint64_t cursor;
    uint32_t domain;
    uint64_t since_ns, full_ns; /* of the round; nobody had room, for FULLS_MAX of a domain */
    uint32_t fulls[WF_FABRIC_DOMAINS_MAX], nobody; /* nobody: there was no lender to ask */
    uint64_t changes;                              /* of who is there, when it began, */
    uint32_t stood;                /* and how many rounds before it began with the same */
    uint32_t asking, again;        /* questions that are not answered; those of jobs */
    bool unsure;                   /* of some block no owner knew */
    uint64_t unsure_ns;            /* since when that is so; 0: it is not */
    uint64_t bytes[WF_KEEP_RULES]; /* found in it, by rule, */
    uint64_t full_bytes;           /* and that no lender had room for, while this node drains */
    uint32_t took, refused;        /* moves of the round that others took, and had no room for */
    double excess;                 /* bytes beyond the share, not found yet */
    double mean;                   /* of all lenders, how full they are */
    bool draining;                 /* it is a round of that */
};

/* ---------------------------------------------- who else has it, no less exact than this one is */

struct copies {
    uint32_t others;  /* nodes that have it and stay, */
    uint32_t lenders; /* and of these, in memory that they lend, as it seems */
    uint32_t rank;    /* of these, whose names come before this one's, */
    uint16_t before[HOLDERS_MAX];
    uint16_t holders[HOLDERS_MAX]; /* of all */
    uint32_t count;
};

static bool is_draining(const struct wf_fabric *f)
{
    return atomic_load_explicit(&f->draining, memory_order_relaxed);
}

static void holder_add(struct wf_fabric *f, struct copies *copies, uint32_t number)
{
    for (uint32_t i = 0; i < copies->count; i++)
        if (copies->holders[i] == number)
            return;
    if (number >= f->peer_count || copies->count == HOLDERS_MAX)
        return;
    const struct wf_peer_node *peer = &f->peers[number];
    copies->holders[copies->count++] = (uint16_t)number;
    if (!peer->used || !peer->link || peer->draining || !wf_peer_believed(f, peer))
        return;
    copies->others++;
    copies->lenders += peer->said.lends_bytes > 0;
    if (peer->said.lends_bytes > 0 && strcmp(f->name, peer->name) > 0)
        copies->before[copies->rank++] = (uint16_t)number;
}

/* As this node knows, and as owners of its shard said.  Of a shard that it does not own it knows
 * what it found or put there within the last seconds, of which it does not hear when it goes: where
 * an owner is sure, that counts alone. */
static void copies_count(struct wf_fabric *f, const struct job *job, struct copies *out)
{
    const struct wf_fabric_event *block = &job->found.block;
    uint16_t holders[NAMED_MAX];
    uint32_t count = 0;
    *out = (struct copies){.rank = 0};
    if (!job->known.sure || wf_parts_owns(f, block->key))
        count = wf_peer_holders(f, block->key, wf_quality_class(block->quality), holders,
                                NAMED_MAX);
    for (uint32_t i = 0; i < count; i++)
        holder_add(f, out, holders[i]);
    for (uint32_t i = 0; i < job->known.count; i++)
        holder_add(f, out, job->known.holders[i]);
}

/* ------------------------------------------------------------------------------------ the share */

/* How full this lender is, and how full all of them are. */
static double fill_of(const struct wf_fabric *f, double *out_mean)
{
    struct wf_lent_stats lent = {.bytes = 0};
    if (f->lent)
        wf_lent_stats(f->lent, &lent);
    double used = (double)lent.used_bytes, bytes = (double)lent.bytes;
    double fill = bytes > 0 ? used / bytes : 1;
    uint32_t lenders = 0;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        const struct wf_peer_node *peer = &f->peers[i];
        if (!peer->used || !peer->link || peer->draining || !wf_peer_believed(f, peer) ||
            peer->said.lends_bytes == 0)
            continue;
        used += (double)peer->said.lends_used_bytes;
        bytes += (double)peer->said.lends_bytes;
        lenders++;
    }
    *out_mean = lenders && bytes > 0 ? used / bytes : 1;
    return f->lent && lenders ? fill : 0;
}

double wf_moves_fill(const struct wf_peer_node *peer)
{
    return peer->said.lends_bytes
               ? (double)peer->said.lends_used_bytes / (double)peer->said.lends_bytes
               : 1;
}

/* -------------------------------------------------------------------------------------- looking */

static void jobs_reset(struct wf_moves *m)
{
    wf_keep_clear(m->keep);
    m->jobs_used = 0;
    m->job_free = WF_LENT_NONE;
}

static uint32_t job_take(struct wf_moves *m)
{
    uint32_t number = m->job_free;
    if (number != WF_LENT_NONE)
        m->job_free = m->jobs[number].next;
    else if (m->jobs_used < JOBS_MAX)
        number = m->jobs_used++;
    return number;
}

static void job_give(struct wf_moves *m, uint32_t number)
{
    m->jobs[number].next = m->job_free;
    m->job_free = number;
}

/* How many there are and should be.  Who drains sees to it that one stays; where a lender has one,
 * that sees to the others, and of a pool's, where none has, who else has it.  What was used last is
 * worth most, and beginnings are used whenever what extends them is. */
static void judge(struct wf_fabric *f, const struct job *job, bool share,
                  const struct copies *copies, struct wf_keep_job *out)
{
    const struct wf_lent_found *found = &job->found;
    *out = (struct wf_keep_job){.depth = found->block.depth,
                                .bytes = (double)found->block.bytes,
                                .worth_s = (double)found->used * (double)found->block.bytes,
                                .share = share};
    if (is_draining(f)) {
        out->copies = copies->others;
        out->wanted = copies->lenders || found->owner == WF_LENT_NONE ? 1 : found->copies;
    } else {
        out->copies = 1 + copies->lenders;
        out->wanted = copies->rank <= f->moves->stood ? found->copies : 0;
    }
}

/* There seem to be enough in lenders' memory whose names come before: which of them has one?  True:
 * they are asked. */
static bool beyond_ask(struct wf_fabric *f, const struct job *job, const struct copies *copies,
                       uint32_t number)
{
    struct wf_moves *m = f->moves;
    const struct wf_lent_found *found = &job->found;
    if (found->owner == WF_LENT_NONE || found->copies < 2 || copies->rank < found->copies ||
        is_draining(f) || m->stood < BEYOND || !wf_copies_room(f))
        return false;
    number = number == WF_LENT_NONE ? job_take(m) : number;
    if (number == WF_LENT_NONE)
        return false;
    m->jobs[number] = *job;
    m->jobs[number].beyond = true;
    m->jobs[number].again = false;
    (void)wf_copies_ask_lent(f, &found->block, number, copies->before, copies->rank);
    m->asking++;
    return true;
}

/* What is there of it is known: it is a job, or there is nothing to be done.  `number` has it, or
 * is WF_LENT_NONE. */
static void job_judge(struct wf_fabric *f, const struct job *job, uint32_t number)
{
    struct wf_moves *m = f->moves;
    struct wf_keep_job judged;
    struct copies copies;
    copies_count(f, job, &copies);
    judge(f, job, job->share, &copies, &judged);
    enum wf_keep_rule rule = wf_keep_judge(&judged);
    m->bytes[rule] += job->again ? 0 : job->found.block.bytes;
    bool wanted = rule != WF_KEEP_ENOUGH && (rule != WF_KEEP_SHARE || job->again || m->excess > 0);
    if (!wanted && beyond_ask(f, job, &copies, number))
        return;
    if (!wanted && number != WF_LENT_NONE)
        job_give(m, number);
    else if (wanted && number == WF_LENT_NONE)
        number = job_take(m);
    if (!wanted || number == WF_LENT_NONE)
        return; /* or it is the next round's */
    if (rule == WF_KEEP_SHARE && !job->again)
        m->excess -= (double)job->found.block.bytes;
    struct job *is = &m->jobs[number];
    *is = *job;
    is->rule = rule;
    is->again = true;
    judged.number = number;
    wf_keep_add(m->keep, &judged);
}

/* Is it to be known of all copies, and is not? */
static bool is_to_be_asked(const struct wf_fabric *f, const struct wf_lent_found *found)
{
    return wf_parts_on(f) && (f->moves->draining || found->copies > 1);
}

static void job_add(struct wf_fabric *f, const struct wf_lent_found *found, bool share)
{
    struct wf_moves *m = f->moves;
    const struct job job = {.found = *found, .share = share};
    if (!is_to_be_asked(f, found)) {
        job_judge(f, &job, WF_LENT_NONE);
        return;
    }
    uint32_t number = wf_copies_room(f) ? job_take(m) : WF_LENT_NONE;
    if (number == WF_LENT_NONE) {
        m->unsure = true; /* the next round's */
        return;
    }
    m->jobs[number] = job;
    (void)wf_copies_ask(f, &found->block, number);
    m->asking++;
}

static void beyond_known(struct wf_fabric *f, const struct wf_lent_found *found,
                         const struct wf_copies_known *known)
{
    const struct wf_fabric_event *block = &found->block;
    uint8_t is;
    if (known->count >= found->copies && !is_draining(f) &&
        wf_lent_has(f->lent, block->domain, block->key, &is) && is == block->quality)
        wf_lent_give(f->lent, block->key);
}

void wf_moves_known(struct wf_fabric *f, uint32_t number, const struct wf_copies_known *known)
{
    struct wf_moves *m = f->moves;
    struct job *job = &m->jobs[number];
    bool overdue = m->unsure_ns && known->at_ns - m->unsure_ns > UNSURE_NS;
    m->asking--;
    if (job->beyond) {
        beyond_known(f, &job->found, known);
        job_give(m, number);
        return;
    }
    job->known = *known;
    m->again -= job->again;
    if (known->sure || overdue) {
        const struct job is = *job;
        job_judge(f, &is, number);
        return;
    }
    m->unsure = true;
    job_give(m, number);
}

static void lent_found(void *to, const struct wf_lent_found *found)
{
    struct wf_fabric *f = to;
    bool share = !f->moves->draining && f->moves->excess > 0;
    if (f->moves->draining || share || found->copies > 1)
        job_add(f, found, share);
}

struct looking {
    struct wf_fabric *fabric;
    uint32_t domain;
    bool below; /* the pool's have all been found */
};

static void host_found(void *to, const struct wf_fabric_event *block)
{
    struct looking *looking = to;
    struct wf_fabric *f = looking->fabric;
    if (block->where != WF_FABRIC_IN_POOL) { /* what is below stays there when the node ends */
        looking->below = true;
        return;
    }
    uint8_t lent;
    if (f->lent && wf_lent_has(f->lent, looking->domain, block->key, &lent) &&
        lent <= wf_quality_class(block->quality))
        return;
    struct wf_lent_found found = {.block = *block,
                                  .owner = WF_LENT_NONE,
                                  .whose = WF_LENT_NONE,
                                  .part_bytes = f->options.host.part_bytes(block->bytes),
                                  .copies = f->options.copies};
    found.block.domain = (uint8_t)looking->domain;
    job_add(f, &found, false);
}

static bool put_since(struct wf_fabric *f)
{
    pthread_mutex_lock(&f->lock);
    bool put = f->put_since;
    pthread_mutex_unlock(&f->lock);
    return put;
}

/* All was looked at: that is what there is to be moved. */
static void looked(struct wf_fabric *f)
{
    struct wf_moves *m = f->moves;
    m->state = MOVING;
    if (!m->unsure)
        m->unsure_ns = 0;
    else if (!m->unsure_ns)
        m->unsure_ns = wf_fabric_now(f);
    f->figures.move_last_bytes = m->bytes[WF_KEEP_LAST];
    f->figures.move_few_bytes = m->bytes[WF_KEEP_FEW];
    f->figures.move_share_bytes = m->bytes[WF_KEEP_SHARE];
    if (!m->bytes[WF_KEEP_LAST] && !m->bytes[WF_KEEP_FEW])
        f->figures.move_full_bytes = 0;
    bool drained = m->draining && !m->bytes[WF_KEEP_LAST] && !m->bytes[WF_KEEP_FEW] && !m->moving &&
                   !m->unsure && !put_since(f);
    if (drained && !f->figures.drained)
        wf_fabric_say(f, "this node is drained, and may be stopped");
    f->figures.drained = drained;
}

static void look_lent(struct wf_fabric *f)
{
    struct wf_moves *m = f->moves;
    uint32_t room = wf_parts_on(f) ? wf_copies_room(f) : LOOKS;
    if (f->lent && (room == 0 || wf_lent_all(f->lent, &m->cursor, room, lent_found, f)))
        return;
    m->cursor = m->domain = 0;
    m->state = LOOKING_HOST;
}

static void look_host(struct wf_fabric *f)
{
    struct wf_moves *m = f->moves;
    const struct wf_fabric_host *host = &f->options.host;
    bool any = m->draining && host->part_bytes;
    for (uint32_t i = 0; any && i < HOST_STEPS && m->domain < f->domain_count; i++) {
        struct looking looking = {f, m->domain, false};
        if (wf_parts_on(f) && wf_copies_room(f) < HOST_ROOM)
            break;
        if (host->each(host->context, m->domain, &m->cursor, host_found, &looking) &&
            !looking.below)
            continue;
        m->domain++;
        m->cursor = 0;
    }
    if ((!any || m->domain == f->domain_count) && m->asking == 0)
        looked(f);
}

/* --------------------------------------------------------------------------------------- moving */

/* There was no room for it.  A share may stay. */
static void found_full(struct wf_moves *m, const struct wf_fabric_event *block)
{
    m->full_bytes += m->draining ? block->bytes : 0;
}

static void less(uint64_t *left, uint64_t bytes)
{
    *left -= bytes < *left ? bytes : *left;
}

static void moved(struct wf_fabric_store *store, enum weft_status status)
{
    struct move *move = (struct move *)store;
    struct wf_fabric *f = move->fabric;
    struct wf_moves *m = f->moves;
    bool there = status == WEFT_OK || status == WEFT_EXISTS, share = move->rule == WF_KEEP_SHARE;
    f->figures.moved += status == WEFT_OK;
    f->figures.moved_bytes += status == WEFT_OK ? store->block.bytes : 0;
    f->figures.move_fails += !there;
    uint32_t *fulls = &m->fulls[store->block.domain];
    *fulls += status == WEFT_FULL;
    m->took += there;
    m->refused += status == WEFT_FULL;
    if (*fulls >= FULLS_MAX)
        m->full_ns = wf_fabric_now(f);
    if (status == WEFT_FULL)
        found_full(m, &store->block);
    if (there)
        less(share                        ? &f->figures.move_share_bytes
             : move->rule == WF_KEEP_LAST ? &f->figures.move_last_bytes
                                          : &f->figures.move_few_bytes,
             store->block.bytes);
    if (move->entry != WF_LENT_NONE)
        wf_lent_let_go(f->lent, move->entry);
    else
        f->options.host.let_go(f->options.host.context, &move->held);
    /* Who had it already counts as another copy, as does the one here. */
    if (share && (status == WEFT_OK || (there && store->copies == 1)))
        wf_lent_give(f->lent, store->block.key);
    move->next = m->free;
    m->free = move;
    m->moving--;
}

/* Hold its bytes.  False: it is gone, or cannot be had now. */
static bool hold(struct wf_fabric *f, const struct job *job, struct move *move)
{
    const struct wf_fabric_host *host = &f->options.host;
    const struct wf_fabric_event *block = &job->found.block;
    struct wf_lent_block lent;
    move->entry = WF_LENT_NONE;
    if (job->found.owner == WF_LENT_NONE) {
        bool held = host->hold(host->context, block->domain, block->key, block->bytes,
                               &move->held) == WEFT_OK;
        move->store.data = held ? move->held.data : NULL;
        move->store.profile = held ? move->held.profile : 0;
        if (held && wf_quality_class(move->held.quality) != wf_quality_class(block->quality)) {
            host->let_go(host->context, &move->held); /* another copy, by now: the next round's */
            return false;
        }
        return held;
    }
    move->entry = wf_lent_keep(f->lent, block->domain, block->key, &lent);
    if (move->entry == WF_LENT_NONE)
        return false;
    move->store.data = lent.data;
    move->store.sums = lent.sums;
    move->store.profile = lent.profile;
    if (lent.quality == wf_quality_class(block->quality))
        return true;
    wf_lent_let_go(f->lent, move->entry);
    return false;
}

/* How full a lender may be that takes it; 0: that does not matter.  Copies that are wanted again
 * push out what was used longest ago, as every put does; but where all together are more than there
 * is room for, that would never end, each pushing out what another is to copy again. */
static double fill_max_of(const struct wf_fabric *f, enum wf_keep_rule rule)
{
    const struct wf_moves *m = f->moves;
    if (rule == WF_KEEP_SHARE)
        return m->mean;
    return rule == WF_KEEP_FEW && !m->draining && m->stood >= PUSHES ? 1 - SHARE_SLACK : 0;
}

/* False: it is not to be moved any more, or cannot be. */
static bool begin(struct wf_fabric *f, const struct job *job)
{
    struct wf_moves *m = f->moves;
    struct move *move = m->free;
    struct wf_fabric_store *store = &move->store;
    struct wf_keep_job judged;
    struct copies copies;
    copies_count(f, job, &copies);
    judge(f, job, job->rule == WF_KEEP_SHARE, &copies, &judged);
    if (wf_keep_judge(&judged) == WF_KEEP_ENOUGH)
        return false;
    *store = (struct wf_fabric_store){.block = job->found.block,
                                      .part_bytes = job->found.part_bytes,
                                      .done = moved,
                                      .copies = job->found.copies,
                                      .wanted = 1,
                                      .fill_max = fill_max_of(f, job->rule),
                                      .worst = WEFT_FULL};
    /* Not to who has it, of those that lend; when that are more than can be named, to nobody. */
    uint32_t most = sizeof store->tried / sizeof store->tried[0];
    for (uint32_t i = 0; i < copies.count && store->tried_count < most; i++)
        if (f->peers[copies.holders[i]].said.lends_bytes)
            store->tried[store->tried_count++] = copies.holders[i];
    if (store->tried_count == most)
        return false;
    if (!wf_put_could(f, store)) { /* it keeps no other from being moved, and takes no time */
        m->refused++;
        if (++m->nobody == FULLS_MAX)
            m->full_ns = wf_fabric_now(f);
        found_full(m, &job->found.block);
        return false;
    }
    if (!hold(f, job, move))
        return false;
    uint32_t whose = job->found.whose;
    if (whose != WF_LENT_NONE && f->peers[whose].used)
        memcpy(store->owner, f->peers[whose].name, sizeof store->owner);
    m->free = move->next;
    m->moving++;
    move->rule = job->rule;
    wf_put_move(f, store);
    return true;
}

/* What was said of it is old by now: it is asked about, and a job again when that is answered.
 * False: it is not, or that many are. */
static bool ask_again(struct wf_fabric *f, uint32_t number, uint64_t now_ns)
{
    struct wf_moves *m = f->moves;
    const struct job *job = &m->jobs[number];
    if (!job->known.at_ns || now_ns - job->known.at_ns <= STALE_NS || m->again == AGAIN_MAX ||
        !wf_copies_ask(f, &job->found.block, number))
        return false;
    m->asking++;
    m->again++;
    return true;
}

static void round_end(struct wf_fabric *f)
{
    struct wf_moves *m = f->moves;
    char size[16];
    if (m->full_bytes && !f->figures.move_full_bytes)
        wf_fabric_say(f, "this node drains, and of what only it has no lender has room for %s",
                      wf_size_format(m->full_bytes, size, sizeof size));
    f->figures.move_full_bytes = m->full_bytes;
    jobs_reset(m);
    m->state = IDLE;
}

void wf_moves_run(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_moves *m = f->moves;
    struct wf_keep_job next;
    enum weft_status status = WEFT_OK;
    double at_s;
    if (!m || m->state != MOVING)
        return;
    for (uint32_t passed = 0; m->free && passed < PASSED_MAX && status == WEFT_OK;) {
        status = wf_keep_next(m->keep, (double)now_ns * 1e-9, &next, &at_s);
        if (status != WEFT_OK)
            break;
        const struct job job = m->jobs[next.number];
        bool full = m->fulls[job.found.block.domain] >= FULLS_MAX;
        bool asked = !full && ask_again(f, next.number, now_ns);
        if (!asked)
            job_give(m, next.number);
        if (full)
            found_full(m, &job.found.block);
        if (full || asked || !begin(f, &job)) {
            wf_keep_unspent(m->keep, &next);
            passed++;
        }
    }
    if (status == WEFT_MISS && !m->moving && !m->asking)
        round_end(f);
}

/* -------------------------------------------------------------------------------- as time goes */

/* Less is lent from now on, and what lies beyond goes elsewhere first, for as long as that goes on:
 * then it goes at once. */
static void shrink(struct wf_fabric *f, double fill)
{
    struct wf_moves *m = f->moves;
    struct wf_lent_stats lent;
    wf_lent_stats(f->lent, &lent);
    bool nobody = m->full_ns || (m->refused && !m->took);
    if (lent.used_bytes <= lent.bytes || is_draining(f) || nobody || fill <= m->mean + SHARE_SLACK)
        wf_allot_resize(f, lent.bytes);
}

/* How often somebody went, or the directory was cut anew. */
static uint64_t changes_of(const struct wf_fabric *f)
{
    return atomic_load_explicit(&f->forgotten, memory_order_relaxed) + wf_parts_maps(f);
}

static bool is_due(const struct wf_fabric *f, uint64_t now_ns)
{
    const struct wf_moves *m = f->moves;
    bool some = m->draining || m->bytes[WF_KEEP_FEW] || m->unsure || m->changes != changes_of(f);
    uint64_t wait_ns = m->full_ns ? FULL_NS : some ? ROUND_NS : QUIET_NS;
    if (wf_parts_on(f))
        wait_ns *= some || m->full_ns ? PARTS_TIMES : PARTS_QUIET_TIMES;
    return now_ns - m->since_ns >= wait_ns;
}

static void round_begin(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_moves *m = f->moves;
    struct wf_lent_stats lent = {.bytes = 0};
    double fill = fill_of(f, &m->mean);
    if (f->lent)
        wf_lent_stats(f->lent, &lent);
    if (f->lent && wf_lent_shrinks(f->lent))
        shrink(f, fill);
    bool over = !m->draining && fill > m->mean + SHARE_SLACK;
    m->since_ns = now_ns;
    pthread_mutex_lock(&f->lock);
    f->figures.drained &= !f->put_since;
    f->put_since = false;
    pthread_mutex_unlock(&f->lock);
    m->full_ns = 0;
    memset(m->fulls, 0, sizeof m->fulls);
    m->nobody = m->took = m->refused = 0;
    m->stood = m->changes == changes_of(f) ? m->stood + 1 : 0;
    m->changes = changes_of(f);
    m->unsure = false;
    m->excess = over ? (fill - m->mean) * (double)lent.bytes : 0;
    memset(m->bytes, 0, sizeof m->bytes);
    m->full_bytes = 0;
    m->cursor = 0;
    m->state = LOOKING_LENT;
    if (!m->draining && !over && lent.many == 0) { /* there is nothing to look for */
        looked(f);
        m->state = IDLE;
    }
}

void wf_moves_tick(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_moves *m = f->moves;
    if (!m)
        return;
    if (m->draining != is_draining(f) && m->moving == 0 && m->asking == 0) {
        m->draining = is_draining(f);
        f->figures.drained = false;
        f->figures.move_last_bytes = f->figures.move_few_bytes = f->figures.move_share_bytes = 0;
        m->full_ns = m->since_ns = m->full_bytes = 0;
        round_end(f);
    }
    if (m->state == IDLE && (m->since_ns == 0 || is_due(f, now_ns)))
        round_begin(f, now_ns);
    if (m->state == LOOKING_LENT)
        look_lent(f);
    else if (m->state == LOOKING_HOST)
        look_host(f);
}

void wf_moves_soon(struct wf_fabric *f)
{
    if (f->moves && f->moves->state == IDLE)
        f->moves->since_ns = 0;
}

uint64_t wf_moves_left(const struct wf_fabric *f)
{
    const struct wf_fabric_figures *figures = &f->figures;
    return figures->move_last_bytes + figures->move_few_bytes + figures->move_share_bytes;
}

/* -------------------------------------------------------------------------------- begin and end */

enum weft_status wf_moves_create(struct wf_fabric *f)
{
    struct wf_moves *m = wf_calloc(1, sizeof *m, "blocks that go to other nodes");
    if (!m)
        return WEFT_E_NO_MEMORY;
    f->moves = m;
    m->jobs = wf_calloc(JOBS_MAX, sizeof *m->jobs, "blocks that go to other nodes");
    if (!m->jobs)
        return WEFT_E_NO_MEMORY;
    const struct wf_keep_options options = {.jobs_max = JOBS_MAX,
                                            .bytes_s = (double)f->options.move_bytes_s,
                                            .burst_s = BURST_S};
    enum weft_status status = wf_keep_create(&options, (double)wf_fabric_now(f) * 1e-9, &m->keep);
    if (status != WEFT_OK)
        return status;
    jobs_reset(m);
    for (uint32_t i = MOVES_MAX; i-- > 0;) {
        m->moves[i].fabric = f;
        m->moves[i].next = m->free;
        m->free = &m->moves[i];
    }
    return WEFT_OK;
}

void wf_moves_destroy(struct wf_fabric *f)
{
    if (!f->moves)
        return;
    wf_keep_destroy(f->moves->keep);
    free(f->moves->jobs);
    free(f->moves);
    f->moves = NULL;
}
