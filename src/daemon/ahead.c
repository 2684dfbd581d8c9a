/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions that said when they come back: whether they do, and when their chains are brought up.
 *
 * When, and whether at all, is core/placement.h's decision, the same that the simulator takes; here
 * are its numbers: the tiers' measured times, what sessions of the domain did after such words
 * (core/ahead.h), and what was worth least of the blocks that left DRAM.  It is looked at half-way
 * to the time first, for what lies below is known only when the chain has left DRAM.  What the
 * decision came to is an event, also when it is no.
 *
 * A word is kept when the session goes on: it says so, waits for blocks, or puts some.  It is
 * broken when the session ends before, or is later than nearly all others.  Owner thread.
 */
#include <math.h>
#include <string.h>

#include "daemon/ahead.h"
#include "daemon/below.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define TIMES_MEASURED 2.0 /* others may be read meanwhile */
#define MARGIN_S 0.03      /* of the owner, and of what is asked for first */
#define LOOK_LEAST_S 0.02
#define WAKES_NS 2000000u /* then others have their turn: a look is O(its chain) */
#define KEPT_PART 0.4     /* of its age: less than a bucket of value_model.h */
#define THERE_LOOKS 4096u /* blocks of a chain in DRAM whose sizes are looked at */

/* ----------------------------------------------------------------------------- where a chain is */

static const struct wf_lower *nearest(const struct wf_below *below, unsigned tiers)
{
    for (uint32_t i = 0; i < below->count; i++) {
        const struct wf_lower *lower = &below->tiers[below->order[i]];
        if (tiers >> lower->number & 1 && wf_lower_usable(lower))
            return lower;
    }
    return NULL;
}

static double read_s(const struct wf_lower *lower, double bytes, double blocks)
{
    double latency_s = lower->stats.read_latency_us * 1e-6, bytes_s = lower->stats.read_mbps * 1e6;
    return bytes_s > 0 ? latency_s + bytes / bytes_s : latency_s * blocks;
}

static void turn_round(uint32_t *entries, uint32_t count)
{
    for (uint32_t i = 0; i < count / 2; i++) {
        uint32_t entry = entries[i];
        entries[i] = entries[count - 1 - i];
        entries[count - 1 - i] = entry;
    }
}

uint32_t wf_chain_absent(struct wf_domain *domain, const uint8_t tip[32], uint32_t *out,
                         uint32_t max)
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t absent = 0, at = 0; /* at: where the next one goes */
    uint32_t entry = wf_below_find(domain, tip);
    for (; entry != WF_DIRECTORY_NONE; entry = block.parent, absent++) {
        wf_directory_read(below->directory, entry, &block);
        if (block.in_dram) /* and so are all before it */
            break;
        /* Of more, those that come first: without them the rest could not be loaded. */
        at = at == max ? 0 : at;
        out[at++] = entry;
    }
    if (absent <= max)
        return absent;
    turn_round(out, at); /* what came last goes behind what came before it */
    turn_round(out + at, max - at);
    turn_round(out, max);
    return max;
}

/* What of it is in DRAM: all up to its end.  Of a long chain the blocks before the last ones count
 * as large as these are. */
static void there_look(const struct wf_store *store, struct wf_chain *out)
{
    uint32_t looked = 0;
    if (out->end == WF_SLOT_NONE)
        return;
    out->there = wf_store_depth(store, out->end) + 1;
    for (uint32_t slot = out->end; slot != WF_SLOT_NONE && looked < THERE_LOOKS; looked++) {
        const struct wf_desc *desc = &store->index.desc[slot];
        out->there_bytes += atomic_load_explicit(&desc->bytes, memory_order_relaxed);
        slot = atomic_load_explicit(&desc->parent, memory_order_relaxed);
    }
    if (out->there > looked)
        out->there_bytes += out->there_bytes / looked * (out->there - looked);
}

void wf_chain_look(struct wf_domain *domain, const uint8_t tip[32], struct wf_chain *out)
{
    const struct wf_store *store = &domain->store;
    struct wf_below *below = domain->node->below;
    uint32_t entries[WF_LOADS_MAX];
    double bytes[WF_DIRECTORY_TIERS_MAX] = {0}, blocks[WF_DIRECTORY_TIERS_MAX] = {0};
    uint8_t key[32];
    memcpy(key, tip, sizeof key);
    *out = (struct wf_chain){.end = wf_store_find(store, tip)};
    uint32_t count = below ? wf_chain_absent(domain, tip, entries, WF_LOADS_MAX) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct wf_directory_block block;
        wf_directory_read(below->directory, entries[i], &block);
        const struct wf_lower *lower = nearest(below, block.tiers);
        out->absent_bytes += block.bytes;
        out->absent++;
        if (lower) {
            bytes[lower->number] += block.bytes;
            blocks[lower->number]++;
        }
        if (i + 1 == count && block.parent != WF_DIRECTORY_NONE) {
            wf_directory_read(below->directory, block.parent, &block);
            out->end = wf_store_find(store, block.key);
        }
    }
    there_look(store, out);
    /* What may leave DRAM would be read from where it would go to. */
    const struct wf_lower *first = below && !out->absent ? nearest(below, UINT8_MAX) : NULL;
    if (first)
        out->read_s = read_s(first, (double)out->there_bytes, out->there);
    for (uint32_t i = 0; below && i < below->count; i++)
        if (blocks[i] > 0)
            out->read_s = fmax(out->read_s, read_s(&below->tiers[i], bytes[i], blocks[i]));
}

double wf_chain_again_s(const struct wf_chain *chain)
{
    double bytes = (double)(chain->there_bytes + chain->absent_bytes);
    return fmax(TIMES_MEASURED * chain->read_s + MARGIN_S, bytes * WF_PREFILL_S_BYTE);
}

/* Of so many bytes more in DRAM, what others have to leave for. */
static uint64_t pushed_bytes(const struct wf_domain *domain, uint64_t bytes)
{
    const struct wf_store *store = &domain->store;
    uint64_t held = store->used_bytes + store->other_bytes;
    uint64_t quota = store->quota_bytes > held ? store->quota_bytes - held : 0;
    uint64_t room = store->arena.backed.granules * WF_GRANULE + domain->node->budget_free;
    room = room < quota ? room : quota;
    return bytes > room ? bytes - room : 0;
}

/* ------------------------------------------------------------------------------------- deciding */

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static double left_s(const struct wf_session_entry *session, uint64_t now_ns)
{
    return session->due_ns > now_ns ? seconds(session->due_ns - now_ns)
                                    : -seconds(now_ns - session->due_ns);
}

void wf_ahead_decide(struct wf_node *node, const struct wf_session_entry *session, uint64_t now_ns,
                     struct wf_ahead_decision *out)
{
    struct wf_domain *domain = &node->domains[session->domain];
    const struct wf_ahead *known = &domain->ahead;
    memset(out, 0, sizeof *out);
    struct wf_chain *chain = &out->chain;
    wf_chain_look(domain, session->tip, chain);
    uint64_t bytes = chain->absent ? chain->absent_bytes : chain->there_bytes;
    uint64_t pushed = pushed_bytes(domain, chain->absent_bytes);
    const struct wf_return back = wf_ahead_return(known, left_s(session, now_ns),
                                                  session->returns_in_ms * 1e-3);
    struct wf_fetch fetch = {.load_s = TIMES_MEASURED * chain->read_s + MARGIN_S,
                             .saved_s = chain->read_s,
                             .bytes = (double)bytes};
    if (pushed && bytes)
        fetch.room_s_byte_s = known->room * (double)pushed / (double)bytes;
    wf_prefetch_decide(&back, &fetch, 0, &out->said);
    out->told = (struct wf_event_prefetch){.rule = wf_prefetch_rule_name(out->said.rule),
                                           .session = session->id,
                                           .due_s = back.due_s,
                                           .begin_s = out->said.begin_s,
                                           .ready_s = out->said.ready_s,
                                           .load_s = fetch.load_s,
                                           .quantile = out->said.quantile,
                                           .chance = back.reuse.chance,
                                           .spread_s = back.spread_s,
                                           .saved_s = out->said.gain_s,
                                           .room_s = out->said.hold_s,
                                           .pushed_bytes = pushed,
                                           .blocks = chain->absent};
}

static void look_in(struct wf_node *node, const struct wf_session_entry *session, double in_s)
{
    uint64_t ns = in_s > 0 ? (uint64_t)(fmin(in_s, 1e9) * 1e9) : 0;
    wf_timers_set(&node->wakes, (uint32_t)(session - node->sessions),
                  wf_now_ns() + (ns > 1000000 ? ns : 1000000));
}

/* It is decided, and who is not back after a while will not have kept its word.  Until then, what
 * is up for it is to stay: a policy keeps what was brought up until it is older by a part, so it is
 * told again before. */
static void wait_on(struct wf_node *node, struct wf_session_entry *session)
{
    struct wf_ahead *known = &node->domains[session->domain].ahead;
    uint64_t now_ns = wf_now_ns();
    double late_s = left_s(session, now_ns) +
                    wf_ahead_patience_s(known, session->returns_in_ms * 1e-3);
    if (late_s <= 0) {
        wf_ahead_said(known);
        session->back = WF_BACK_LATE;
        return;
    }
    double again_s = KEPT_PART * seconds(now_ns - session->hinted_ns);
    bool up = session->back == WF_BACK_UP;
    look_in(node, session, up ? fmin(late_s, fmax(LOOK_LEAST_S, again_s)) : late_s);
}

static void settle(struct wf_node *node, struct wf_session_entry *session, bool up)
{
    session->back = up ? WF_BACK_UP : WF_BACK_DECIDED;
    wait_on(node, session);
}

static void keep(struct wf_node *node, const struct wf_session_entry *session)
{
    struct wf_domain *domain = &node->domains[session->domain];
    struct wf_chain chain;
    wf_chain_look(domain, session->tip, &chain);
    if (chain.end != WF_SLOT_NONE)
        wf_store_keep(&domain->store, chain.end);
}

static void tell(struct wf_node *node, const struct wf_session_entry *session,
                 const struct wf_ahead_decision *decision)
{
    const struct wf_chain *chain = &decision->chain;
    wf_telemetry_prefetch(&node->domains[session->domain], session->tip,
                          chain->absent ? chain->absent_bytes : chain->there_bytes,
                          &decision->told);
}

/* What is there stays, and what is not comes up. */
static void bring(struct wf_node *node, struct wf_session_entry *session,
                  struct wf_ahead_decision *decision)
{
    struct wf_domain *domain = &node->domains[session->domain];
    struct wf_event_prefetch *told = &decision->told;
    struct wf_fetched fetched = {.begun = 0};
    bool crowded = session->crowded;
    if (decision->chain.end != WF_SLOT_NONE)
        wf_store_keep(&domain->store, decision->chain.end);
    if (decision->chain.absent)
        wf_prefetch_chain(domain, session->tip, session->due_ns / 1000, "hint", &fetched);
    told->begun = fetched.begun;
    session->crowded = told->begun < told->blocks && told->due_s > LOOK_LEAST_S;
    told->rule = told->begun < told->blocks    ? "room"
                 : !told->blocks               ? "kept"
                 : told->ready_s > told->due_s ? "late"
                                               : "now";
    /* Of many that find no room one is told, and what was begun at last. */
    if (!crowded || told->begun)
        tell(node, session, decision);
    if (session->crowded)
        look_in(node, session, told->due_s / 2);
    else
        settle(node, session, true);
}

static void look(struct wf_node *node, struct wf_session_entry *session)
{
    struct wf_ahead_decision decision;
    wf_ahead_decide(node, session, wf_now_ns(), &decision);
    struct wf_event_prefetch *told = &decision.told;
    bool any = decision.chain.absent || decision.chain.there;
    if (!any && told->due_s > LOOK_LEAST_S && wf_below_opening(node->below)) {
        look_in(node, session, told->due_s / 2); /* it may yet be found */
        return;
    }
    switch (decision.said.rule) {
    case WF_PREFETCH_NOW: bring(node, session, &decision); return;
    case WF_PREFETCH_LATER: look_in(node, session, decision.said.begin_s); return;
    case WF_PREFETCH_NOT_WORTH: break;
    case WF_PREFETCH_NOTHING: told->rule = any ? told->rule : "gone"; break;
    }
    tell(node, session, &decision);
    settle(node, session, false);
}

void wf_sessions_wake(struct wf_node *node)
{
    uint64_t begun_ns = wf_now_ns();
    for (uint64_t now_ns = begun_ns; now_ns - begun_ns < WAKES_NS; now_ns = wf_now_ns()) {
        uint32_t number = wf_timers_pop(&node->wakes, now_ns);
        if (number == WF_TIMERS_NONE)
            return;
        struct wf_session_entry *session = &node->sessions[number];
        if (session->back == WF_BACK_SAID && node->below && session->has_tip) {
            look(node, session);
        } else if (session->back == WF_BACK_SAID) {
            settle(node, session, false);
        } else {
            if (session->back == WF_BACK_UP)
                keep(node, session);
            wait_on(node, session);
        }
    }
}

/* -------------------------------------------------------------------------- words, and who kept */

void wf_session_says(struct wf_node *node, struct wf_session_entry *session)
{
    bool away = session->state == WEFT_WAITING || session->state == WEFT_IDLE;
    wf_timers_cancel(&node->wakes, (uint32_t)(session - node->sessions));
    session->back = WF_BACK_NONE;
    session->crowded = false;
    if (!away || !session->returns_in_ms)
        return;
    session->back = WF_BACK_SAID;
    session->due_ns = session->hinted_ns + session->returns_in_ms * 1000000ull;
    look_in(node, session, left_s(session, wf_now_ns()) / 2);
}

void wf_session_returns(struct wf_node *node, struct wf_session_entry *session)
{
    struct wf_ahead *known = &node->domains[session->domain].ahead;
    if (session->back == WF_BACK_NONE)
        return;
    if (session->back != WF_BACK_LATE)
        wf_ahead_said(known);
    wf_ahead_came(known);
    wf_ahead_off(known, session->returns_in_ms * 1e-3, left_s(session, wf_now_ns()));
    session->back = WF_BACK_NONE;
    wf_timers_cancel(&node->wakes, (uint32_t)(session - node->sessions));
}

void wf_session_ends(struct wf_node *node, struct wf_session_entry *session)
{
    if (session->back != WF_BACK_NONE && session->back != WF_BACK_LATE)
        wf_ahead_said(&node->domains[session->domain].ahead);
    session->back = WF_BACK_NONE;
    wf_timers_cancel(&node->wakes, (uint32_t)(session - node->sessions));
}

void wf_ahead_gone(struct wf_domain *domain, const struct wf_gone *gone)
{
    const struct wf_below *below = domain->node->below;
    bool pushed = gone->reason == WF_EVICT_ROOM || gone->reason == WF_EVICT_QUOTA ||
                  gone->reason == WF_EVICT_RECLAIM || gone->reason == WF_EVICT_LENT;
    const struct wf_lower *lower = below && pushed ? nearest(below, UINT8_MAX) : NULL;
    if (!lower || !gone->why.knows || !(lower->stats.read_mbps > 0))
        return;
    double bytes = (double)gone->bytes;
    /* What was cooled is not wanted for a while, whatever is known of it. */
    wf_ahead_went(&domain->ahead, gone->why.aside < 0 ? 0 : gone->why.value,
                  bytes / (lower->stats.read_mbps * 1e6), bytes);
}

void wf_ahead_asked(const struct wf_client *client, const struct wf_load *request,
                    const struct wf_ahead_asked *asked)
{
    struct wf_domain *domain = client->domain;
    if (!asked->blocks || asked->again) /* no tiers, nothing of it is below alone; or was told */
        return;
    const struct wf_lower *lower = nearest(domain->node->below, UINT8_MAX);
    double load_s = lower ? read_s(lower, (double)asked->bytes, asked->begun) : 0;
    double within_s = request->within_ms ? request->within_ms * 1e-3 : INFINITY;
    uint64_t session = wf_session_is_of(client, request->session) ? request->session : 0;
    struct wf_event_prefetch told = {.rule = asked->full         ? "room"
                                             : load_s > within_s ? "late"
                                                                 : "asked",
                                     .session = session,
                                     .due_s = within_s,
                                     .ready_s = load_s,
                                     .load_s = load_s,
                                     .chance = 1,
                                     .saved_s = load_s,
                                     .pushed_bytes = pushed_bytes(domain, asked->rest_bytes),
                                     .blocks = asked->blocks,
                                     .begun = asked->begun};
    wf_telemetry_prefetch(domain, request->keys[asked->last], asked->bytes, &told);
}
