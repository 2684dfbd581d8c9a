/* SPDX-License-Identifier: Apache-2.0
 *
 * Which blocks of DRAM are written below, and to which tier.
 *
 * Tiers of `admit: auto` are asked what a block is worth to them (core/placement.h): how likely the
 * eviction policy finds another use, what that would save, how long it would stay, what the writing
 * takes from reads, from the device's budget and from what must go for it.  Where the policy has no
 * estimate (`pool.policy: lru`), what was used again is written, and the rest as long as the device
 * keeps up.  What was asked for is written in any case; what leads to blocks below as long as the
 * budget owes no more than it may; what a session that waits is about to leave as long as the
 * budget has what all of its chain would take.
 *
 * Why a block was refused is remembered for the event of its end.  Owner thread only; what survives
 * it is what a budget of writes has left (budget.c).
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "core/keep.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "sys/clock.h"

#define WEIGHT_LEAST 0x1p-5 /* of priorities 0 */
#define WEIGHT_MOST 0x1p4   /* and 9 */
#define READING_OVER_S 60.0 /* how busy a tier is with reads, is seen over so long */

/* ----------------------------------------------------------------------------- what is measured */

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

void wf_lower_meter(struct wf_lower *lower, uint64_t elapsed_ns)
{
    const struct wf_tier_stats *tier = &lower->stats.tier;
    struct wf_lower_meter *meter = &lower->meter;
    double capacity = (double)tier->capacity_bytes;
    double fade = exp(-seconds(elapsed_ns) / READING_OVER_S);
    uint64_t reads = tier->reads - meter->reads, bytes = tier->read_bytes - meter->read_bytes;
    bool again = tier->reads < meter->reads; /* opened again, it counts from the beginning */
    meter->reads = tier->reads;
    meter->read_bytes = tier->read_bytes;
    meter->busy_s *= fade;
    if (!again && reads && lower->stats.read_mbps > 0) {
        double busy_s = (double)bytes / (lower->stats.read_mbps * 1e6);
        meter->busy_s += fmin(busy_s, seconds(elapsed_ns));
        meter->read_s = busy_s / (double)reads;
    }
    if (lower->config->drive_writes > 0 && capacity > 0 && capacity != meter->wear_capacity) {
        wf_budget_end(lower); /* of another size: it goes on from what it has */
        wf_wear_init(&lower->wear, capacity, lower->config->drive_writes, seconds(wf_now_ns()));
        meter->wear_capacity = capacity;
        wf_budget_begin(lower);
    }
}

void wf_lower_written(struct wf_lower *lower, uint64_t bytes)
{
    double taken = (double)bytes * lower->expansion;
    if (!(lower->wear.bytes_s > 0))
        return;
    wf_wear_spend(&lower->wear, taken, seconds(wf_now_ns()));
    wf_budget_spent(lower, taken);
}

bool wf_lower_budget(struct wf_lower *lower, double *out_bytes, double *out_day_bytes)
{
    if (!(lower->wear.bytes_s > 0))
        return false;
    (void)wf_wear_price(&lower->wear, 0, 0, seconds(wf_now_ns())); /* what has come in since */
    *out_bytes = lower->wear.bytes;
    *out_day_bytes = lower->wear.bytes_s * 86400;
    return true;
}

/* Has it less than a block and its way (placement.h) would take? */
static bool is_short(struct wf_lower *lower, uint64_t bytes, uint64_t way_bytes)
{
    return isinf(wf_wear_price(&lower->wear, (double)bytes * lower->expansion,
                               (double)way_bytes * lower->expansion, seconds(wf_now_ns())));
}

bool wf_lower_worn(struct wf_lower *lower, uint64_t bytes)
{
    return is_short(lower, bytes, bytes);
}

/* Does it owe so much that nothing else is owed? */
static bool owes(struct wf_lower *lower, uint64_t bytes)
{
    return wf_wear_owes(&lower->wear, (double)bytes * lower->expansion, seconds(wf_now_ns()));
}

uint64_t wf_below_way_bytes(const struct wf_domain *domain, uint32_t slot)
{
    struct wf_below *below = domain->node->below;
    const struct wf_desc *desc = domain->store.index.desc;
    double most_bytes = -INFINITY, has_bytes, day_bytes;
    for (uint32_t i = 0; i < below->count; i++)
        if (wf_lower_budget(&below->tiers[i], &has_bytes, &day_bytes))
            most_bytes = fmax(most_bytes, has_bytes);
    uint32_t bytes = atomic_load_explicit(&desc[slot].bytes, memory_order_relaxed);
    uint32_t depth = wf_word_depth(atomic_load_explicit(&desc[slot].word, memory_order_relaxed));
    uint64_t way_bytes = bytes;
    uint8_t key[32];
    for (uint32_t looked = 0; !isinf(most_bytes) && depth > 0; looked++, depth--) {
        if (looked == WF_WAY_LOOKS || (double)way_bytes > most_bytes)
            return way_bytes + (uint64_t)depth * bytes;
        slot = atomic_load_explicit(&desc[slot].parent, memory_order_relaxed);
        if (slot == WF_SLOT_NONE)
            break;
        wf_desc_key_read(&desc[slot], key);
        if (wf_below_find(domain, key) != WF_DIRECTORY_NONE)
            break; /* on a tier, or a bridge, whose way was promised */
        way_bytes += atomic_load_explicit(&desc[slot].bytes, memory_order_relaxed);
    }
    return way_bytes;
}

void wf_lower_begun(struct wf_lower *lower, const struct wf_below_ask *ask)
{
    bool led = ask->extended && (!ask->leads || ask->leads >> lower->number & 1);
    if (led)
        wf_wear_redeem(&lower->wear, (double)ask->bytes * lower->expansion);
    else if (ask->way_bytes > ask->bytes && !ask->must)
        wf_wear_promise(&lower->wear, (double)(ask->way_bytes - ask->bytes) * lower->expansion);
}

/* ------------------------------------------------------------------------------ what is offered */

/* A block, and the tiers that are asked what it is worth to them, nearest first. */
struct offer {
    struct wf_domain *domain;
    const struct wf_below_ask *ask;
    struct wf_candidate block;
    struct wf_lower *lowers[WF_DIRECTORY_TIERS_MAX];
    struct wf_place places[WF_DIRECTORY_TIERS_MAX];
    struct wf_wear budgets[WF_DIRECTORY_TIERS_MAX];
    int count;
    bool full; /* one would take it and has no room to be had */
};

/* Tokens of a block of so many bytes; 0: that is not known. */
static uint32_t tokens_of(const struct wf_domain *domain, uint64_t bytes)
{
    const struct wf_node *node = domain->node;
    for (uint32_t i = 0; i < node->format_count; i++)
        if (node->formats[i].domain == domain->id && node->formats[i].block_bytes == bytes)
            return node->formats[i].block_tokens;
    return 0;
}

/* 0: nobody said how fast engines are, or what format it is of. */
static double compute_s(const struct wf_domain *domain, uint64_t bytes, uint32_t depth)
{
    double speed = domain->node->config.prefill_tokens_s;
    double tokens = speed > 0 ? tokens_of(domain, bytes) : 0;
    if (!(tokens > 0))
        return 0;
    struct wf_prefill prefill = {1 / speed, WF_PREFILL_ATTENDED / speed};
    return wf_prefill_s(prefill, depth * tokens, tokens);
}

/* What it costs to compute the block; false: that is a guess. */
static bool recompute(const struct offer *offer, const struct wf_domain *domain, uint32_t depth,
                      struct wf_candidate *block)
{
    block->run_blocks = depth + 1.0;
    block->recompute_s = compute_s(domain, (uint64_t)block->bytes, depth);
    block->guessed = !(block->recompute_s > 0);
    if (block->guessed)
        block->recompute_s = wf_prefill_guess_s(block->bytes, block->run_blocks, offer->places,
                                                offer->count);
    return !block->guessed;
}

/* A node that stops has nobody who waits for it: all that fits is written before it ends. */
static bool is_behind(const struct wf_lower *lower)
{
    return lower->stats.queued >= WF_WRITES_MAX / 2 && !lower->below->node->draining;
}

/* What is known of the tier, but for its room. */
static void place_of(const struct wf_lower *lower, double bytes, struct wf_place *out)
{
    const struct wf_mover_stats *stats = &lower->stats;
    double write_bytes_s = stats->write_mbps > 0 ? stats->write_mbps * 1e6 : INFINITY;
    *out = (struct wf_place){
        .latency_s = stats->read_latency_us * 1e-6,
        .read_bytes_s = stats->read_mbps > 0 ? stats->read_mbps * 1e6 : INFINITY,
        .write_bytes_s = write_bytes_s,
        .write_queue_s = stats->queued * bytes / write_bytes_s,
        .busy = wf_place_busy(lower->meter.busy_s / READING_OVER_S, lower->meter.read_s,
                              bytes / write_bytes_s),
        .stay_s = INFINITY,
        .expansion = lower->expansion,
        .open = !is_behind(lower),
    };
}

/* What must go for it, if something must: a copy that is not the last goes for nothing. */
static void room_of(struct offer *offer, int number)
{
    struct wf_lower *lower = offer->lowers[number];
    struct wf_below *below = lower->below;
    struct wf_directory_block coldest;
    uint32_t entry = wf_lower_coldest(lower, offer->domain, offer->ask->bytes);
    if (entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(below->directory, entry, &coldest);
    if (coldest.tiers != 1u << lower->number || coldest.in_dram)
        return;
    struct wf_place *place = &offer->places[number];
    struct wf_candidate goes = {.reuse = {coldest.chance, coldest.rate, coldest.weight},
                                .uses = 2, /* what goes on to the next tier is not asked for more */
                                .bytes = coldest.bytes};
    double idle_s = coldest.idle_ds * 0.1;
    recompute(offer, &below->node->domains[coldest.domain], coldest.depth, &goes);
    place->stay_s = idle_s;
    wf_place_full(place, number + 1 < offer->count ? &offer->places[number + 1] : NULL, &goes,
                  idle_s);
}

/* The tier that takes it, by worth; NULL: none does.  In `said`, why. */
static struct wf_lower *take_offer(struct offer *offer, struct wf_admission *said)
{
    struct wf_wear *budgets[WF_DIRECTORY_TIERS_MAX];
    const struct wf_below_ask *ask = offer->ask;
    double now_s = seconds(wf_now_ns());
    /* What is likely to be wanted again waits for a device that is behind, and so do puts. */
    bool waits = offer->block.asked || offer->block.extended || offer->block.uses > 1 ||
                 offer->block.reuse.chance >= WF_ONCE_CHANCE;
    if (!offer->count)
        return NULL;
    for (int i = 0; i < offer->count; i++)
        place_of(offer->lowers[i], (double)ask->bytes, &offer->places[i]);
    recompute(offer, offer->domain, ask->depth, &offer->block);
    assert(offer->count > 0 && offer->count <= (int)WF_DIRECTORY_TIERS_MAX);
    offer->block.leads = ask->leads ? WF_LEADS_ELSEWHERE : 0;
    for (int i = offer->count - 1; i >= 0; i--) {
        struct wf_lower *lower = offer->lowers[i];
        offer->block.leads |= (uint32_t)(ask->leads >> lower->number & 1) << i;
        offer->budgets[i] = lower->wear;
        budgets[i] = &offer->budgets[i];
        double taken = (double)ask->bytes * lower->expansion;
        offer->places[i].wear_s_byte = wf_wear_price(budgets[i], taken, taken, now_s);
        room_of(offer, i);
        offer->places[i].open |= waits;
    }
    wf_place_offer(&offer->block, offer->places, budgets, offer->count, now_s, said);
    /* What is asked about again and again ahead of need counts once: when it is written, or goes.
     */
    for (int i = 0; i < offer->count && (said->place >= 0 || !ask->ahead); i++)
        offer->lowers[i]->wear = offer->budgets[i];
    while (said->place >= 0) {
        struct wf_lower *to = offer->lowers[said->place];
        if (wf_lower_room(to, offer->domain, ask->bytes))
            return to;
        offer->full = true;
        offer->places[said->place].open = false;
        wf_place_choose(&offer->block, offer->places, offer->count, said);
    }
    return NULL;
}

bool wf_lower_wants(struct wf_lower *lower, const struct wf_directory_block *block)
{
    struct wf_domain *domain = &lower->below->node->domains[block->domain];
    const struct wf_below_ask ask = {.bytes = block->bytes, .depth = block->depth};
    struct offer offer = {.domain = domain,
                          .ask = &ask,
                          .block = {.uses = 2, .bytes = block->bytes},
                          .lowers = {lower},
                          .count = 1};
    struct wf_reuse reuse = {block->chance, block->rate, block->weight};
    struct wf_admission said;
    if (wf_lower_worn(lower, block->bytes))
        return false;
    if (lower->config->admit != WF_ADMIT_AUTO || !(block->chance > 0))
        return true;
    offer.block.reuse = wf_reuse_aged(reuse, block->idle_ds * 0.1);
    place_of(lower, block->bytes, &offer.places[0]);
    recompute(&offer, domain, block->depth, &offer.block);
    double taken = block->bytes * lower->expansion;
    offer.places[0].wear_s_byte = wf_wear_price(&lower->wear, taken, taken, seconds(wf_now_ns()));
    offer.places[0].open = true; /* it has its turn, one after the other */
    room_of(&offer, 0);
    wf_admit(&offer.block, &offer.places[0], &said);
    return said.place == 0;
}

/* ----------------------------------------------------------------- what it takes to have again */

/* Reading what lies below; INFINITY: nothing does. */
static double read_again_s(const struct wf_domain *domain, const uint8_t key[32], double bytes,
                           double chain)
{
    struct wf_directory_block block;
    struct wf_place place;
    const struct wf_below *below = domain->node->below;
    uint32_t entry = below ? wf_below_find(domain, key) : WF_DIRECTORY_NONE;
    double least_s = INFINITY;
    if (entry == WF_DIRECTORY_NONE)
        return least_s;
    wf_directory_read(below->directory, entry, &block);
    for (uint32_t i = 0; i < below->count; i++) {
        if (!(block.tiers >> below->tiers[i].number & 1))
            continue;
        place_of(&below->tiers[i], bytes, &place);
        least_s = fmin(least_s, place.latency_s / chain + bytes / place.read_bytes_s);
    }
    return least_s;
}

/* 0: that is not known. */
static double cost_s_gib(const struct wf_domain *domain, const uint8_t key[32], uint32_t bytes,
                         uint32_t depth)
{
    double again_s = bytes ? compute_s(domain, bytes, depth) : 0;
    if (!(again_s > 0))
        return 0;
    return fmin(again_s, read_again_s(domain, key, bytes, depth + 1.0)) / bytes * 0x1p30;
}

static void block_of(const struct wf_domain *domain, uint32_t slot, struct wf_directory_block *out)
{
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    *out = (struct wf_directory_block){
        .bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed),
        .depth = wf_word_depth(atomic_load_explicit(&desc->word, memory_order_relaxed)),
    };
    wf_desc_key_read(desc, out->key);
}

float wf_below_cost_s_gib(void *context, uint32_t slot)
{
    struct wf_directory_block block;
    block_of(context, slot, &block);
    return (float)cost_s_gib(context, block.key, block.bytes, block.depth);
}

/* The other node may let its copy go before it is wanted here. */
#define STAYS 0.9

float wf_below_lose_part(void *context, uint32_t slot)
{
    const struct wf_domain *domain = context;
    const struct wf_below *below = domain->node->below;
    struct wf_directory_block block, found;
    struct wf_place place;
    uint8_t peers = below ? wf_below_peers(below) : 0;
    block_of(domain, slot, &block);
    uint32_t entry = peers ? wf_below_find(domain, block.key) : WF_DIRECTORY_NONE;
    if (entry == WF_DIRECTORY_NONE)
        return 1;
    wf_directory_read(below->directory, entry, &found);
    if (!(found.good & peers))
        return 1;
    place_of(&below->tiers[__builtin_ctz(peers)], block.bytes, &place);
    struct wf_keep_copy copy = {.others = 1,
                                .stays = STAYS,
                                .transfer_s = place.latency_s / (block.depth + 1.0) +
                                              block.bytes / place.read_bytes_s,
                                .recompute_s = compute_s(domain, block.bytes, block.depth)};
    if (!(copy.recompute_s > 0))
        copy.recompute_s = wf_prefill_guess_s(block.bytes, block.depth + 1.0, &place, 1);
    return (float)(wf_keep_cost_s(&copy) / copy.recompute_s);
}

/* --------------------------------------------------------------------------------- who is asked */

/* With pool.objective: ttft the policy has a block's weight in what it costs. */
static bool in_cost(const struct wf_domain *domain, const struct wf_policy_reason *why)
{
    return why->cost_s_gib > 0 && domain->weighed;
}

bool wf_below_reuse(const struct wf_domain *domain, const struct wf_policy_reason *why,
                    const struct wf_directory_block *block, struct wf_reuse *out)
{
    if (!wf_reuse_told(why, 1, out))
        return false;
    if (in_cost(domain, why)) {
        double own = cost_s_gib(domain, block->key, block->bytes, block->depth);
        out->weight = own > 0 ? fmax(WEIGHT_LEAST, fmin(why->cost_s_gib / own, WEIGHT_MOST)) : 0;
    }
    return true;
}

bool wf_below_estimate(const struct wf_domain *domain, uint32_t slot, struct wf_reuse *out)
{
    const struct wf_store *store = &domain->store;
    struct wf_policy_reason why;
    struct wf_directory_block block = {.bytes = 0};
    store->policy_ops->explain(store->policy, slot, &why);
    if (in_cost(domain, &why))
        block_of(domain, slot, &block);
    return wf_below_reuse(domain, &why, &block, out);
}

static bool used_again(const struct wf_domain *domain, uint32_t slot)
{
    return domain->used_again[slot / 8] >> (slot % 8) & 1;
}

/* What its way takes, at least itself. */
static uint64_t way_bytes_of(const struct wf_below_ask *ask)
{
    return ask->way_bytes > ask->bytes ? ask->way_bytes : ask->bytes;
}

/* Does it take the block without looking at its worth?  If not, why. */
static bool takes(struct wf_lower *lower, const struct offer *offer, enum wf_not_below *why)
{
    bool again = offer->block.uses > 1, behind = is_behind(lower);
    enum wf_not_below no = WF_NOT_BELOW_REASONS;
    const struct wf_below_ask *ask = offer->ask;
    if (ask->must)
        return true;
    if (ask->extended || ask->hinted)
        no = ask->extended && owes(lower, ask->bytes) ? WF_NOT_WEAR : no;
    else if (lower->config->admit == WF_ADMIT_REUSED && !again)
        no = WF_NOT_REUSED;
    else if (lower->config->admit == WF_ADMIT_AUTO && !again && behind)
        no = WF_NOT_BUSY;
    else if (is_short(lower, ask->bytes, way_bytes_of(ask)))
        no = WF_NOT_WEAR;
    if (no != WF_NOT_BELOW_REASONS)
        *why = no;
    return no == WF_NOT_BELOW_REASONS;
}

static enum wf_not_below reason_of(enum wf_admit_rule rule)
{
    switch (rule) {
    case WF_REFUSED_ONCE: return WF_NOT_ONCE;
    case WF_REFUSED_SLOWER: return WF_NOT_SLOWER;
    case WF_REFUSED_WRITE: return WF_NOT_WRITE;
    case WF_REFUSED_WEAR: return WF_NOT_WEAR;
    case WF_REFUSED_ROOM: return WF_NOT_ROOM;
    default: return WF_NOT_BUSY;
    }
}

/* No tier was even asked: which of them could have been? */
static enum wf_not_below nobody_asked(const struct wf_below *below, uint64_t bytes)
{
    bool usable = false, admits = false, fits = false;
    for (uint32_t i = 0; i < below->count; i++) {
        bool open = wf_lower_usable(&below->tiers[i]);
        usable |= open;
        open = open && below->tiers[i].config->admit != WF_ADMIT_NEVER;
        admits |= open;
        fits |= open && wf_lower_fits(&below->tiers[i], bytes);
    }
    if (!usable)
        return WF_NOT_USABLE;
    return !admits ? WF_NOT_ADMITTED : fits ? WF_NOT_FULL : WF_NOT_LARGE;
}

/* May anything be written there now? */
static bool open_to(const struct wf_lower *lower, const struct wf_below_ask *ask)
{
    return wf_lower_usable(lower) && lower->config->admit != WF_ADMIT_NEVER &&
           wf_lower_fits(lower, ask->bytes) && lower->full_until_ns < wf_now_ns();
}

/* What no patience helps against is said, once. */
static void tell_never(struct wf_lower *lower, uint64_t bytes)
{
    double taken = (double)bytes * lower->expansion;
    char block[16], day[16];
    if (lower->never_told || !wf_wear_never(&lower->wear, taken))
        return;
    lower->never_told = true;
    wf_warn("tier",
            "%s: a block takes %s there, and dwpd %g lets %s be written in a day: no such block is "
            "written there; raise dwpd, if the device's data sheet has more, or the tier's size",
            lower->config->name, wf_size_format((uint64_t)taken, block, sizeof block),
            lower->config->drive_writes,
            wf_size_format((uint64_t)(lower->wear.bytes_s * WF_WEAR_MOST_S), day, sizeof day));
}

/* Those that go by worth are asked; why they do not take it goes to `refusal`. */
static struct wf_lower *by_worth(struct offer *offer, struct wf_refusal *refusal)
{
    struct wf_admission said = {.place = -1};
    struct wf_lower *to = take_offer(offer, &said);
    if (!to && offer->count && !offer->full) {
        refusal->by_tier = true;
        refusal->by_worth = said.rule != WF_REFUSED_CLOSED;
        refusal->why = reason_of(said.rule);
        refusal->reuse = offer->block.reuse;
        refusal->said = said;
    }
    offer->count = 0;
    offer->full = false;
    return to;
}

struct wf_lower *wf_below_choose(struct wf_domain *domain, const struct wf_below_ask *ask,
                                 struct wf_refusal *refusal)
{
    struct wf_below *below = domain->node->below;
    struct offer offer = {.domain = domain,
                          .ask = ask,
                          .block = {.uses = used_again(domain, ask->slot) ? 2 : 1,
                                    .bytes = (double)ask->bytes,
                                    .asked = ask->must || (ask->hinted && !ask->extended),
                                    .extended = ask->extended,
                                    .way_bytes = (double)way_bytes_of(ask)}};
    bool asked = false, known = false;
    *refusal = (struct wf_refusal){.why = nobody_asked(below, ask->bytes)};
    wf_directory_clock(below->directory, (uint32_t)(wf_now_ns() / 100000000));
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[below->order[i]], *to;
        if (!open_to(lower, ask))
            continue;
        tell_never(lower, ask->bytes);
        if (ask->hinted && !ask->must && !ask->extended &&
            is_short(lower, ask->bytes, way_bytes_of(ask))) {
            refusal->why = WF_NOT_WEAR;
            refusal->by_tier = true;
            continue;
        }
        if (lower->config->admit == WF_ADMIT_AUTO && !asked) {
            known = wf_below_estimate(domain, ask->slot, &offer.block.reuse);
            asked = true;
        }
        if (lower->config->admit == WF_ADMIT_AUTO && known) {
            offer.lowers[offer.count++] = lower;
            continue;
        }
        /* A tier that does not look at worth comes after those nearer that do. */
        to = by_worth(&offer, refusal);
        if (to)
            return to;
        enum wf_not_below why = refusal->why;
        if (!takes(lower, &offer, &why)) {
            /* What a nearer tier said, which looked at its worth, stands. */
            refusal->why = refusal->by_worth ? refusal->why : why;
            refusal->by_tier = true;
        } else if (wf_lower_room(lower, domain, ask->bytes)) {
            return lower;
        }
    }
    return by_worth(&offer, refusal);
}

/* ------------------------------------------------------------------------- what was not written */

const char *wf_not_below_name(enum wf_not_below why)
{
    static const char *const names[WF_NOT_BELOW_REASONS] = {
        [WF_NOT_KEY] = "key taken",
        [WF_NOT_REUSED] = "not used again",
        [WF_NOT_BUSY] = "tier busy",
        [WF_NOT_USABLE] = "tiers unusable",
        [WF_NOT_ADMITTED] = "not admitted",
        [WF_NOT_FULL] = "tiers full",
        [WF_NOT_LARGE] = "too large",
        [WF_NOT_EXACT] = "lossy before",
        [WF_NOT_ONCE] = "once",
        [WF_NOT_SLOWER] = "slower",
        [WF_NOT_WRITE] = "write",
        [WF_NOT_WEAR] = "wear",
        [WF_NOT_ROOM] = "room below",
    };
    return names[why];
}

void wf_below_refused(struct wf_below *below, const uint8_t key[32],
                      const struct wf_refusal *refusal)
{
    struct wf_refusal *kept = &below->refusals[key[0] % WF_REFUSALS];
    *kept = *refusal;
    kept->told = true;
    memcpy(kept->key, key, sizeof kept->key);
}

const struct wf_refusal *wf_below_refusal(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_below *below = domain->node->below;
    const struct wf_refusal *refusal = below ? &below->refusals[key[0] % WF_REFUSALS] : NULL;
    bool ours = refusal && refusal->told && memcmp(refusal->key, key, sizeof refusal->key) == 0;
    return ours ? refusal : NULL;
}
