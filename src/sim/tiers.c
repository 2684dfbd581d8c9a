/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/tiers.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/ahead.h"
#include "sim/heap.h"
#include "sim/tiers_state.h"

#define BUSY_OVER_S 60.0      /* how busy a tier is, is seen over so long */
#define WRITES_QUEUE_MAX 1024 /* blocks on their way down, as in weftd */

/* CXL: D. D. Sharma, "Compute Express Link", IEEE Micro 2023, and H. Li et al., "Pond", ASPLOS
 * 2023: about 200 ns a line, and a x8 link of PCIe 5.0.  NVMe: Samsung PM1743, 3.84 TB, data sheet:
 * 14 and 6 GB/s.  QLC: Solidigm D5-P5336, 30.72 TB, data sheet: 7 and 3.3 GB/s.  S3: first byte
 * after 100 to 200 ms (AWS, "Best practices design patterns: optimizing Amazon S3 performance"),
 * over a link of 25 Gbit/s.  Writes are not counted, as weftd does not count them. */
const struct wf_sim_tier wf_sim_tier_kinds[] = {
    {"cxl", 0, 1e-6, 26e9, 22e9, 0},
    {"nvme", 0, 90e-6, 14e9, 6e9, 0},
    {"qlc", 0, 110e-6, 7e9, 3.3e9, 0},
    {"s3", 0, 150e-3, 3.1e9, 3.1e9, 0},
    {""},
};

const struct wf_sim_tier *wf_sim_tier_kind(const char *name)
{
    for (const struct wf_sim_tier *kind = wf_sim_tier_kinds; kind->name[0]; kind++)
        if (strcmp(kind->name, name) == 0)
            return kind;
    return NULL;
}

/* -------------------------------------------------------------------------------- what is known */

static double at_s(const struct wf_sim_below *below, uint32_t request)
{
    return (double)below->plan.trace->requests[request].at_us * 1e-6;
}

double wf_sim_below_recompute_s(const struct wf_sim_below *below, uint32_t block)
{
    double tokens = below->plan.trace->block_tokens;
    return wf_prefill_s(below->prefill, tokens * below->plan.trace->depth[block], tokens);
}

/* What blocks with as many uses did so far; one more of each than there was, so that nothing is
 * certain. */
static struct wf_reuse counted(const struct wf_sim_below *below, uint32_t block)
{
    const struct tier_uses *uses = &below->uses[below->blocks[block].uses];
    double chance = (uses->again + 1) / (uses->seen + 2);
    double gap_s = uses->again > 0 ? uses->gap_s / uses->again : below->now_s + 1;
    return wf_reuse_aged((struct wf_reuse){chance, chance / fmax(gap_s, 1e-3)},
                         below->now_s - at_s(below, below->blocks[block].last));
}

static void busy_add(struct tier_state *tier, double now_s, double seconds)
{
    tier->busy_s = tier->busy_s * exp((tier->busy_at_s - now_s) / BUSY_OVER_S) + seconds;
    tier->busy_at_s = now_s;
}

static double writes_disturb(const struct tier_state *tier, double now_s, double write_s)
{
    double faded_s = tier->busy_s * exp((tier->busy_at_s - now_s) / BUSY_OVER_S);
    double read_s = tier->reads > 0 ? tier->read_s / tier->reads : 0;
    return wf_place_busy(faded_s / BUSY_OVER_S, read_s, write_s);
}

void wf_sim_below_place(const struct wf_sim_below *below, int number, struct wf_place *out)
{
    const struct tier_state *tier = &below->tiers[number];
    const struct wf_sim_tier *spec = tier->spec;
    double now_s = below->now_s, write_s = below->block_bytes / spec->write_bytes_s;
    bool full = tier->heap.count == spec->capacity;
    *out = (struct wf_place){
        .latency_s = spec->latency_s,
        .read_bytes_s = spec->read_bytes_s,
        .write_bytes_s = spec->write_bytes_s,
        .read_queue_s = fmax(0, tier->read_until_s - now_s),
        .write_queue_s = fmax(0, tier->write_until_s - now_s),
        .busy = writes_disturb(tier, now_s, write_s),
        .stay_s = INFINITY,
    };
    out->open = out->write_queue_s < WRITES_QUEUE_MAX * write_s;
    if (full)
        out->stay_s = now_s - at_s(below, below->blocks[tier->heap.items[0].block].last);
}

/* Blocks that must be written behind tier `from` (-1: the pool) for this one to be of use there:
 * those before it that are not there, nor lead to what is.  What lies on a tier without a budget
 * before the first with one goes on to that when it must, and counts.  More than any budget there
 * has are not counted one by one, and where there is none it is one. */
static double way_of(const struct wf_sim_below *below, int from, uint32_t block)
{
    const struct wf_sim_trace *trace = below->plan.trace;
    uint32_t looked = 0, before = trace->parent[block];
    int first = below->plan.count;
    double most_bytes = 0;
    for (int i = below->plan.count - 1; i > from; i--) {
        if (!(below->tiers[i].wear.bytes_s > 0))
            continue;
        most_bytes = fmax(most_bytes, below->tiers[i].wear.bytes);
        first = i;
    }
    if (first == below->plan.count)
        return 1;
    while (before != WF_SIM_NONE && looked < WF_WAY_LOOKS &&
           looked * below->block_bytes <= most_bytes) {
        const struct tier_block *state = &below->blocks[before];
        if (state->tiers >> first || (state->children > 0 && state->leads >> first))
            return 1 + looked;
        looked++;
        before = trace->parent[before];
    }
    return 1 + trace->depth[block];
}

static struct wf_candidate candidate_of(const struct wf_sim_below *below, uint32_t block)
{
    const struct tier_block *state = &below->blocks[block];
    return (struct wf_candidate){
        .reuse = state->reuse,
        .uses = state->uses,
        .bytes = below->block_bytes,
        .recompute_s = wf_sim_below_recompute_s(below, block),
        .run_blocks = below->plan.trace->depth[block] + 1,
        .extended = state->children > 0,
    };
}

/* All behind tier `from`, and what their room costs.  How many. */
static int places_behind(struct wf_sim_below *below, int from, struct wf_place *places)
{
    int count = below->plan.count - from - 1;
    for (int i = count - 1; i >= 0; i--) {
        struct tier_state *tier = &below->tiers[from + 1 + i];
        wf_sim_below_place(below, from + 1 + i, &places[i]);
        places[i].wear_s_byte = wf_wear_price(&tier->wear, below->block_bytes, below->block_bytes,
                                              below->now_s);
        places[i].owes = wf_wear_owes(&tier->wear, below->block_bytes, below->now_s);
        if (isinf(places[i].stay_s))
            continue;
        uint32_t coldest = tier->heap.items[0].block;
        struct wf_candidate goes = candidate_of(below, coldest);
        wf_place_full(&places[i], i + 1 < count ? &places[i + 1] : NULL, &goes,
                      below->now_s - below->blocks[coldest].left_s);
    }
    return count;
}

static void note(struct wf_sim_below *below, struct wf_sim_event *event)
{
    event->number = below->left;
    event->request = below->request;
    event->now_s = below->now_s;
    if (below->log.note)
        below->log.note(below->log.context, event);
}

/* ----------------------------------------------------------------------------------------- down */

static void demote(struct wf_sim_below *below, int from, uint32_t block);

static void lose(struct wf_sim_below *below, int number, uint32_t block)
{
    struct tier_block *state = &below->blocks[block];
    uint32_t parent = below->plan.trace->parent[block];
    wf_sim_heap_remove(&below->tiers[number].heap, block);
    state->tiers &= (uint8_t) ~(1u << number);
    if (!state->tiers && parent != WF_SIM_NONE)
        below->blocks[parent].children--;
}

static void touch(struct wf_sim_below *below, int number, uint32_t block)
{
    wf_sim_heap_set(&below->tiers[number].heap, block, below->blocks[block].last,
                    UINT64_MAX - below->plan.trace->depth[block]);
}

static void put(struct wf_sim_below *below, int number, uint32_t block)
{
    struct tier_state *tier = &below->tiers[number];
    struct tier_block *state = &below->blocks[block];
    uint32_t parent = below->plan.trace->parent[block];
    assert(number >= 0 && number < WF_SIM_TIERS_MAX);
    double write_s = below->block_bytes / tier->spec->write_bytes_s;
    if (tier->heap.count == tier->spec->capacity) {
        uint32_t coldest = tier->heap.items[0].block;
        lose(below, number, coldest);
        tier->result.blocks_evicted += below->counted;
        note(below, &(struct wf_sim_event){.kind = WF_SIM_DROPPED,
                                           .block = coldest,
                                           .from = number,
                                           .place = -1,
                                           .reuse = below->blocks[coldest].reuse});
        bool last = !below->blocks[coldest].tiers && !below->in_pool(below->pool, coldest);
        if (last && number + 1 < below->plan.count)
            demote(below, number, coldest);
    }
    if (!state->tiers && parent != WF_SIM_NONE) {
        if (!below->blocks[parent].children++)
            below->blocks[parent].leads = 0;
    }
    if (parent != WF_SIM_NONE)
        below->blocks[parent].leads |= (uint8_t)(1u << number);
    state->tiers |= (uint8_t)(1u << number);
    touch(below, number, block);
    wf_wear_spend(&tier->wear, below->block_bytes, below->now_s);
    tier->write_until_s = fmax(tier->write_until_s, below->now_s) + write_s;
    tier->result.blocks_written += below->counted;
}

/* What admission is compared with: all that the device takes. */
static void first_open(const struct wf_candidate *block, const struct wf_place *places, int count,
                       struct wf_admission *out)
{
    *out = (struct wf_admission){.rule = WF_REFUSED_CLOSED, .place = -1};
    for (int i = 0; i < count; i++) {
        if (!places[i].open)
            continue;
        bool kept = block->extended && !places[i].owes;
        out->rule = kept                           ? WF_ADMITTED_CHAIN
                    : isinf(places[i].wear_s_byte) ? WF_REFUSED_WEAR
                                                   : WF_ADMITTED;
        out->wear_s = places[i].wear_s_byte;
        if (out->rule <= WF_ADMITTED_CHAIN) {
            out->place = i;
            return;
        }
    }
}

/* It has left tier `from` (-1: the pool): to one of those behind, or nowhere. */
static void demote(struct wf_sim_below *below, int from, uint32_t block)
{
    const struct tier_block *state = &below->blocks[block];
    struct wf_sim_event event = {.kind = WF_SIM_REFUSED,
                                 .block = block,
                                 .from = from,
                                 .reuse = state->reuse};
    struct wf_candidate candidate = candidate_of(below, block);
    candidate.reuse = wf_reuse_aged(state->reuse, below->now_s - state->left_s);
    struct wf_place places[WF_SIM_TIERS_MAX];
    struct wf_wear *wears[WF_SIM_TIERS_MAX];
    int count = places_behind(below, from, places);
    candidate.way_bytes = way_of(below, from, block) * below->block_bytes;
    candidate.leads = state->leads ? (uint32_t)state->leads >> (from + 1) | WF_LEADS_ELSEWHERE : 0;
    for (int i = 0; i < count; i++) {
        places[i].open |= candidate.extended; /* it waits for its turn */
        wears[i] = &below->tiers[from + 1 + i].wear;
    }
    wf_place_offer(&candidate, places, wears, count, below->now_s, &event.admission);
    if (below->plan.always)
        first_open(&candidate, places, count, &event.admission);
    below->result.decided[event.admission.rule] += below->counted;
    if (from < 0) {
        below->offered++;
        below->placed += event.admission.place >= 0;
    }
    event.place = event.admission.place < 0 ? -1 : from + 1 + event.admission.place;
    if (event.place >= 0)
        event.kind = WF_SIM_PLACED;
    note(below, &event);
    if (event.place < 0)
        return;
    if (wf_place_led(&candidate, event.admission.place))
        wf_wear_redeem(wears[event.admission.place], below->block_bytes);
    else
        wf_wear_promise(wears[event.admission.place], candidate.way_bytes - below->block_bytes);
    put(below, event.place, block);
}

void wf_sim_below_full(struct wf_sim_below *below, uint32_t count, float bar)
{
    struct wf_sim_event event = {.kind = WF_SIM_FULL,
                                 .block = WF_SIM_NONE,
                                 .blocks = count,
                                 .bar = bar};
    note(below, &event);
}

void wf_sim_below_gave(struct wf_sim_below *below, const struct wf_share_verdict *verdict)
{
    struct wf_sim_event event = {
        .kind = WF_SIM_SHARED, .block = WF_SIM_NONE, .from = -1, .place = -1, .verdict = *verdict};
    below->left++; /* it is about the block that leaves next */
    note(below, &event);
    below->left--;
}

void wf_sim_below_gone(struct wf_sim_below *below, uint32_t block,
                       const struct wf_policy_reason *why)
{
    struct tier_block *state = &below->blocks[block];
    struct wf_sim_event event = {.kind = WF_SIM_EVICTED, .block = block, .from = -1, .place = -1};
    below->left++;
    if (!why || !wf_reuse_told(why, below->plan.speed, &state->reuse))
        state->reuse = counted(below, block);
    state->left_s = below->now_s;
    if (why) {
        event.has_why = true;
        event.why = *why;
    }
    event.reuse = state->reuse;
    note(below, &event);
    if (!below->plan.count)
        return;
    wf_sim_ahead_cheapest(below, block);
    if (state->tiers) {
        event.kind = WF_SIM_CLEAN;
        below->result.clean += below->counted;
        note(below, &event);
    } else {
        demote(below, -1, block);
    }
}

/* ------------------------------------------------------------------------------------------- up */

int wf_sim_below_where(const struct wf_sim_below *below, uint32_t block)
{
    uint8_t tiers = below->blocks[block].tiers;
    return tiers ? __builtin_ctz(tiers) : -1;
}

static void read_count(struct wf_sim_below *below, struct tier_state *tier, uint32_t blocks,
                       double read_s)
{
    busy_add(tier, below->now_s, read_s);
    tier->result.bytes_read += below->counted ? (uint64_t)(blocks * below->block_bytes) : 0;
}

/* Somebody waits: nothing but those who came before is before it, and what is fetched ahead gets
 * the device later by as much. */
static void read_now(struct wf_sim_below *below, int number, uint32_t blocks)
{
    struct tier_state *tier = &below->tiers[number];
    double read_s = blocks * below->block_bytes / tier->spec->read_bytes_s;
    tier->read_until_s = fmax(tier->read_until_s, below->now_s) + read_s;
    if (tier->ahead_until_s > below->now_s)
        tier->ahead_until_s += read_s;
    tier->reads++;
    tier->read_s += read_s;
    read_count(below, tier, blocks, read_s);
}

double wf_sim_below_read_ahead(struct wf_sim_below *below, int number)
{
    struct tier_state *tier = &below->tiers[number];
    double read_s = below->block_bytes / tier->spec->read_bytes_s;
    double begin_s = fmax(below->now_s, fmax(tier->ahead_until_s, tier->read_until_s));
    tier->ahead_until_s = begin_s + read_s;
    read_count(below, tier, 1, read_s);
    return tier->ahead_until_s + tier->spec->latency_s;
}

/* A read is of all of a chain, so that its blocks share the latency.  What has no copy yet gets
 * one, in the nearest tier, as often as others did. */
double wf_sim_below_again_s(const struct wf_sim_below *below, uint32_t block)
{
    double compute_s = wf_sim_below_recompute_s(below, block);
    int number = wf_sim_below_where(below, block);
    double copied = 1;
    if (!below->plan.count)
        return compute_s;
    if (number < 0) {
        number = 0;
        copied = (below->placed + 1) / (below->offered + 2);
    }
    const struct wf_sim_tier *tier = below->tiers[number].spec;
    double chain = below->plan.trace->depth[block] + 1;
    double read_s = fmin(compute_s,
                         tier->latency_s / chain + below->block_bytes / tier->read_bytes_s);
    return copied * read_s + (1 - copied) * compute_s;
}

/* Runs of blocks that lie at one place, from the first on: 0 is the pool, tiers follow. */
static uint32_t runs_of(struct wf_sim_below *below, const struct wf_sim_request *asked,
                        uint32_t hits)
{
    uint32_t count = 0, found = 0;
    for (; found < asked->count; found++) {
        uint32_t block = below->plan.trace->blocks[asked->first + found];
        int place = found < hits || wf_sim_ahead_ready(below, block)
                        ? 0
                        : 1 + wf_sim_below_where(below, block);
        if (place == 0 && found >= hits && !wf_sim_ahead_ready(below, block))
            break;
        if (!count || below->runs[count - 1].place != place)
            below->runs[count++] = (struct wf_run){0, place};
        below->runs[count - 1].blocks++;
    }
    below->found = found;
    return count;
}

static void uses_count(struct wf_sim_below *below, const struct wf_sim_request *asked, uint32_t r)
{
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t block = below->plan.trace->blocks[asked->first + i];
        struct tier_block *state = &below->blocks[block];
        if (state->uses) {
            wf_sim_ahead_back(below, block);
            below->uses[state->uses].again++;
            below->uses[state->uses].gap_s += below->now_s - at_s(below, state->last);
        }
        state->uses = (uint8_t)(state->uses < TIER_USES_MAX ? state->uses + 1 : TIER_USES_MAX);
        below->uses[state->uses].seen++;
        state->last = r;
        for (uint8_t left = state->tiers; left; left &= (uint8_t)(left - 1))
            touch(below, __builtin_ctz(left), block);
    }
}

/* What is loaded is read; what is not, is computed again. */
static void load(struct wf_sim_below *below, const struct wf_sim_request *asked, uint32_t hits,
                 uint32_t run_count, const struct wf_cut *cut)
{
    uint32_t done = 0;
    for (uint32_t i = 0; i < run_count && done < cut->load_blocks; i++) {
        uint32_t blocks = below->runs[i].blocks, left = cut->load_blocks - done;
        blocks = blocks < left ? blocks : left;
        done += blocks;
        if (below->runs[i].place == 0) {
            below->result.pool_hit += below->counted ? blocks : 0;
            continue;
        }
        read_now(below, below->runs[i].place - 1, blocks);
        below->tiers[below->runs[i].place - 1].result.blocks_hit += below->counted ? blocks : 0;
    }
    for (uint32_t i = hits; i < asked->count; i++)
        wf_sim_ahead_used(below, below->plan.trace->blocks[asked->first + i], i < cut->load_blocks);
    below->result.computed += below->counted ? below->found - cut->load_blocks : 0;
}

void wf_sim_below_request(struct wf_sim_below *below, uint32_t r, uint32_t hits, double queue_s,
                          struct wf_cut *out)
{
    const struct wf_sim_trace *trace = below->plan.trace;
    const struct wf_sim_request *asked = &trace->requests[r];
    struct wf_place places[WF_CUT_PLACES_MAX] = {{.read_bytes_s = below->link_bytes_s}};
    wf_sim_ahead_run(below, at_s(below, r));
    below->now_s = at_s(below, r);
    below->request = r;
    uint32_t run_count = runs_of(below, asked, hits);
    for (int i = 0; i < below->plan.count; i++)
        wf_sim_below_place(below, i, &places[1 + i]);
    struct wf_cut_load ask = {.prefill = below->prefill,
                              .block_tokens = trace->block_tokens,
                              .tokens = (double)asked->input_tokens,
                              .block_bytes = below->block_bytes,
                              .link_bytes_s = below->link_bytes_s,
                              .layers = below->plan.model->layers,
                              .ahead_s = queue_s};
    wf_cut(&ask, places, 1 + below->plan.count, below->runs, run_count, out);
    if (below->found > hits)
        note(below, &(struct wf_sim_event){.kind = WF_SIM_CUT,
                                           .block = WF_SIM_NONE,
                                           .blocks = below->found,
                                           .from = -1,
                                           .place = -1,
                                           .cut = *out});
    load(below, asked, hits, run_count, out);
    uses_count(below, asked, r);
}

void wf_sim_below_served(struct wf_sim_below *below, uint32_t r)
{
    wf_sim_ahead_plan(below, r);
}

/* --------------------------------------------------------------------------------- life, result */

void wf_sim_below_destroy(struct wf_sim_below *below)
{
    if (!below)
        return;
    for (int i = 0; i < below->plan.count; i++)
        wf_sim_heap_fini(&below->tiers[i].heap);
    wf_sim_ahead_fini(below);
    free(below->blocks);
    free(below->runs);
    free(below);
}

struct wf_sim_below *wf_sim_below_create(const struct wf_sim_below_plan *plan,
                                         const struct wf_sim_log *log)
{
    struct wf_sim_below *below = calloc(1, sizeof *below);
    if (!below)
        return NULL;
    const struct wf_sim_trace *trace = plan->trace;
    double first_s = trace->request_count ? (double)trace->requests[0].at_us * 1e-6 : 0;
    below->plan = *plan;
    below->log = log ? *log : (struct wf_sim_log){0};
    below->block_bytes = (double)(wf_sim_model_kv_bytes(plan->model) * trace->block_tokens);
    below->prefill = wf_sim_model_prefill(plan->model);
    below->link_bytes_s = wf_sim_model_link(plan->model);
    below->counted_from_s = first_s;
    below->blocks = calloc((size_t)trace->block_count + 1, sizeof *below->blocks);
    below->runs = calloc((size_t)trace->chain_max + 1, sizeof *below->runs);
    bool made = below->blocks && below->runs && wf_sim_ahead_init(below);
    for (int i = 0; i < plan->count; i++) {
        struct tier_state *tier = &below->tiers[i];
        tier->spec = &plan->tiers[i];
        wf_wear_init(&tier->wear, below->block_bytes * tier->spec->capacity,
                     tier->spec->drive_writes, first_s);
        made = made && wf_sim_heap_init(&tier->heap, tier->spec->capacity, trace->block_count);
    }
    if (made)
        return below;
    wf_sim_below_destroy(below);
    return NULL;
}

void wf_sim_below_pool(struct wf_sim_below *below, const struct wf_sim_cache *pool,
                       bool (*holds)(const struct wf_sim_cache *cache, uint32_t block))
{
    below->pool = pool;
    below->in_pool = holds;
}

void wf_sim_below_count(struct wf_sim_below *below, bool counted_now)
{
    if (counted_now && !below->counted)
        below->counted_from_s = below->now_s;
    below->counted = counted_now;
}

void wf_sim_below_result(const struct wf_sim_below *below, struct wf_sim_below_result *out)
{
    *out = below->result;
    double days = (below->now_s - below->counted_from_s) / 86400;
    for (int i = 0; i < below->plan.count; i++) {
        struct wf_sim_tier_result *tier = &out->tier[i];
        *tier = below->tiers[i].result;
        tier->bytes_written = (uint64_t)((double)tier->blocks_written * below->block_bytes);
        tier->written_a_day = days > 0 ? (double)tier->bytes_written / days : 0;
        tier->budget_a_day = below->tiers[i].wear.bytes_s * 86400;
    }
}
