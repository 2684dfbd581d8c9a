/* SPDX-License-Identifier: Apache-2.0 */
#include "core/placement.h"

#include <math.h>
#include <stdio.h>

#include "core/policy.h"

#define DAY_S 86400.0
#define SPREADS                                                                       \
    2.0 /* of log worth, below and above the mean: least and most of what comes along \
         */
#define OFFERS_REMEMBERED 1000.0
#define MOVE_BUSY_LEAST 0.01 /* to move a block is never for nothing */

/* -------------------------------------------------------------------------------------- numbers */

double wf_reuse_hits(struct wf_reuse reuse, double stay_s)
{
    if (!(reuse.chance > 0) || !(reuse.rate > 0) || !(stay_s > 0))
        return 0;
    return -reuse.chance * expm1(-reuse.rate * stay_s / reuse.chance);
}

bool wf_reuse_told(const struct wf_policy_reason *why, double speed, struct wf_reuse *out)
{
    bool known = why->knows && why->chance > 0 && why->value > 0 && isfinite(why->value);
    *out = (struct wf_reuse){0};
    if (known) /* where costs are told of, they are in the weight */
        *out = (struct wf_reuse){why->chance, why->value / speed,
                                 why->cost_s_gib > 0 ? 0 : why->weight};
    return known;
}

struct wf_reuse wf_reuse_aged(struct wf_reuse reuse, double unused_s)
{
    if (!(reuse.chance > 0) || !(unused_s > 0))
        return reuse;
    double speed = reuse.rate / reuse.chance, left = reuse.chance * exp(-speed * unused_s);
    double chance = left / (1 - reuse.chance + left);
    if (!(left > 0)) /* certain to come, and never came: as good as over */
        chance = 0;
    return (struct wf_reuse){chance, chance * speed, reuse.weight};
}

double wf_prefill_s(struct wf_prefill prefill, double first_token, double tokens)
{
    /* Token i attends to i others. */
    return prefill.token_s * tokens + prefill.attended_s * tokens * (first_token + tokens / 2);
}

double wf_place_busy(double reading, double read_s, double write_s)
{
    double busy = fmin(1, reading);
    return read_s > write_s / 2 ? busy * (write_s / 2) / read_s : busy;
}

static double read_s(const struct wf_place *place, double bytes, double run_blocks)
{
    return place->latency_s / fmax(1, run_blocks) + bytes / place->read_bytes_s;
}

double wf_prefill_guess_s(double bytes, double run_blocks, const struct wf_place *places, int count)
{
    double slowest_s = 0;
    for (int i = 0; i < count; i++)
        slowest_s = fmax(slowest_s, read_s(&places[i], bytes, run_blocks));
    return fmax(WF_PREFILL_S_BYTE * bytes, 2 * slowest_s);
}

/* ----------------------------------------------------------------------------------------- wear */

void wf_wear_init(struct wf_wear *wear, double capacity_bytes, double drive_writes, double now_s)
{
    double bytes_s = drive_writes > 0 ? capacity_bytes * drive_writes / DAY_S : 0;
    *wear = (struct wf_wear){.bytes_s = bytes_s, .at_s = now_s};
    wear->most_bytes = bytes_s * WF_WEAR_BURST_S;
}

/* A bucket that is smaller than a block would never have one, however long it fills. */
static void wear_hold(struct wf_wear *wear, double bytes)
{
    wear->most_bytes = fmax(wear->most_bytes, fmin(bytes, wear->bytes_s * WF_WEAR_MOST_S));
}

void wf_wear_resume(struct wf_wear *wear, double bytes, double most_bytes, double ago_s)
{
    wear_hold(wear, most_bytes);
    wear->bytes = fmin(wear->most_bytes, bytes + wear->bytes_s * fmax(0, ago_s));
}

static void wear_fill(struct wf_wear *wear, double now_s)
{
    if (now_s > wear->at_s) {
        wear->bytes = fmin(wear->most_bytes, wear->bytes + wear->bytes_s * (now_s - wear->at_s));
        wear->promised *= exp((wear->at_s - now_s) / WF_WEAR_BURST_S);
        wear->at_s = now_s;
    }
}

void wf_wear_offer(struct wf_wear *wear, double worth_s_byte)
{
    if (!(wear->bytes_s > 0) || !(worth_s_byte > 0))
        return;
    double x = log(worth_s_byte);
    wear->offers = fmin(wear->offers + 1, OFFERS_REMEMBERED);
    double step = 1 / wear->offers, off = wear->offers > 1 ? x - wear->log_mean : 0;
    wear->log_mean = wear->offers > 1 ? wear->log_mean : x;
    wear->log_mean += step * off;
    wear->log_spread += step * (fabs(off) - wear->log_spread);
}

double wf_wear_price(struct wf_wear *wear, double bytes, double way_bytes, double now_s)
{
    if (!(wear->bytes_s > 0))
        return 0;
    wear_fill(wear, now_s);
    wear_hold(wear, bytes);
    double left = wear->bytes - (way_bytes > 0 ? wear->promised : 0);
    if (left < fmax(bytes, way_bytes))
        return INFINITY;
    if (wear->offers < 1)
        return 0;
    double spent = 1 - left / wear->most_bytes;
    double least = wear->log_mean - SPREADS * wear->log_spread;
    /* least ÷ e · (e · most ÷ least) ^ spent */
    return exp(least - 1 + spent * (1 + 2 * SPREADS * wear->log_spread));
}

bool wf_wear_never(const struct wf_wear *wear, double bytes)
{
    return wear->bytes_s > 0 && bytes > wear->bytes_s * WF_WEAR_MOST_S;
}

bool wf_wear_owes(struct wf_wear *wear, double bytes, double now_s)
{
    if (!(wear->bytes_s > 0))
        return false;
    wear_fill(wear, now_s);
    wear_hold(wear, bytes);
    return wear->bytes - bytes < -WF_WEAR_OWED * wear->most_bytes;
}

void wf_wear_spend(struct wf_wear *wear, double bytes, double now_s)
{
    wear_fill(wear, now_s);
    wear->bytes -= bytes;
}

void wf_wear_promise(struct wf_wear *wear, double bytes)
{
    wear->promised += fmax(0, bytes);
}

void wf_wear_redeem(struct wf_wear *wear, double bytes)
{
    wear->promised = fmax(0, wear->promised - bytes);
}

/* ------------------------------------------------------------------------------------ admission */

static double written(const struct wf_place *place, double bytes)
{
    return bytes * fmax(1, place->expansion);
}

static double weighed(const struct wf_candidate *block, double saved_s)
{
    return fmax(0, saved_s) * (block->reuse.weight > 0 ? block->reuse.weight : 1);
}

void wf_admit(const struct wf_candidate *block, const struct wf_place *place,
              struct wf_admission *out)
{
    const struct wf_place *next = place->next;
    double write_s = block->bytes / place->write_bytes_s * place->busy;
    struct wf_admission said = {
        .hits = wf_reuse_hits(block->reuse, place->stay_s),
        .saved_s = weighed(block,
                           block->recompute_s - read_s(place, block->bytes, block->run_blocks)),
        .write_s = block->guessed ? 0 : write_s,
        .wear_s = written(place, block->bytes) * place->wear_s_byte,
        .room_s = block->bytes * place->room_s_byte,
    };
    said.gain_s = said.hits * said.saved_s;
    if (next) { /* it goes on there */
        double more = wf_reuse_hits(block->reuse, place->stay_s + next->stay_s) - said.hits;
        said.hits += more;
        said.gain_s += more * weighed(block, block->recompute_s -
                                                 read_s(next, block->bytes, block->run_blocks));
    }
    said.net_s = said.gain_s - said.write_s - said.wear_s - said.room_s;
    if (!place->open)
        said.rule = WF_REFUSED_CLOSED;
    else if (block->asked || (block->extended && !place->owes))
        said.rule = WF_ADMITTED_CHAIN;
    else if (place->owes)
        said.rule = WF_REFUSED_WEAR;
    else if (block->uses <= 1 && block->reuse.chance < WF_ONCE_CHANCE &&
             (said.wear_s > 0 || said.room_s > 0))
        said.rule = WF_REFUSED_ONCE;
    else if (!(said.saved_s > 0))
        said.rule = WF_REFUSED_SLOWER;
    else if (said.gain_s <= said.write_s)
        said.rule = WF_REFUSED_WRITE;
    else if (said.gain_s <= said.write_s + said.wear_s)
        said.rule = WF_REFUSED_WEAR;
    else if (said.net_s <= 0)
        said.rule = WF_REFUSED_ROOM;
    said.place = said.rule <= WF_ADMITTED_CHAIN ? 0 : -1;
    *out = said;
}

/* Of two places that refuse it: where wear is all that counts against it, as it does for one whose
 * bucket is empty, that is what it was refused for. */
static double without_wear(const struct wf_admission *said)
{
    return said->gain_s - said->write_s - said->room_s;
}

void wf_place_choose(const struct wf_candidate *block, const struct wf_place *places, int count,
                     struct wf_admission *out)
{
    struct wf_admission best = {.rule = WF_REFUSED_CLOSED, .place = -1, .net_s = -INFINITY};
    for (int i = 0; i < count; i++) {
        struct wf_admission one;
        wf_admit(block, &places[i], &one);
        bool taken = one.place == 0;
        bool better = taken ? one.net_s > best.net_s : without_wear(&one) > without_wear(&best);
        bool closed = one.rule == WF_REFUSED_CLOSED, none = best.rule == WF_REFUSED_CLOSED;
        one.place = taken ? i : -1;
        if (best.place >= 0 ? taken && better : taken || (!closed && (none || better)))
            best = one;
    }
    if (best.rule == WF_REFUSED_CLOSED)
        best.net_s = 0;
    *out = best;
}

void wf_place_full(struct wf_place *place, const struct wf_place *next,
                   const struct wf_candidate *coldest, double unused_s)
{
    struct wf_candidate aged = *coldest;
    struct wf_admission said = {.place = -1};
    aged.reuse = wf_reuse_aged(coldest->reuse, unused_s);
    double hits = wf_reuse_hits(aged.reuse, unused_s), bytes = aged.bytes;
    double saved_s = weighed(coldest, aged.recompute_s - bytes / place->read_bytes_s);
    place->next = NULL;
    place->room_s_byte = hits * saved_s / bytes;
    if (next)
        wf_admit(&aged, next, &said);
    if (said.place < 0)
        return;
    double slower_s = weighed(coldest, bytes / next->read_bytes_s - bytes / place->read_bytes_s);
    double way_s_byte = fmax(next->busy, MOVE_BUSY_LEAST) / next->write_bytes_s +
                        fmax(1, next->expansion) * next->wear_s_byte + next->room_s_byte;
    place->next = next;
    place->room_s_byte = fmin(place->room_s_byte,
                              hits * fmin(saved_s, slower_s) / bytes + way_s_byte);
}

bool wf_place_led(const struct wf_candidate *block, int place)
{
    return block->extended && (!block->leads || block->leads >> place & 1);
}

void wf_place_offer(const struct wf_candidate *block, struct wf_place *places,
                    struct wf_wear *const *wears, int count, double now_s, struct wf_admission *out)
{
    for (int i = 0; i < count; i++) {
        struct wf_admission free_of_wear;
        bool led = wf_place_led(block, i);
        double bytes = written(&places[i], block->bytes);
        double way_bytes = led ? 0 : written(&places[i], fmax(block->bytes, block->way_bytes));
        places[i].wear_s_byte = 0;
        places[i].owes = wf_wear_owes(wears[i], bytes, now_s);
        wf_admit(block, &places[i], &free_of_wear);
        wf_wear_offer(wears[i], free_of_wear.gain_s / bytes);
        places[i].wear_s_byte = wf_wear_price(wears[i], bytes, way_bytes, now_s);
        places[i].owes |= !led && isinf(places[i].wear_s_byte);
    }
    wf_place_choose(block, places, count, out);
}

const char *wf_admit_rule_name(enum wf_admit_rule rule)
{
    static const char *const names[WF_ADMIT_RULES] = {
        [WF_ADMITTED] = "admitted",     [WF_ADMITTED_CHAIN] = "chain",  [WF_REFUSED_ONCE] = "once",
        [WF_REFUSED_SLOWER] = "slower", [WF_REFUSED_WRITE] = "write",   [WF_REFUSED_WEAR] = "wear",
        [WF_REFUSED_ROOM] = "room",     [WF_REFUSED_CLOSED] = "closed",
    };
    return names[rule];
}

/* ------------------------------------------------------------------------------ compute or load */

double wf_overlap_s(double late_s, double data_s, double prefill_s, double layers)
{
    double first = late_s + data_s / layers + prefill_s;
    double last = late_s + data_s + prefill_s / layers;
    return fmax(prefill_s, fmax(first, last));
}

void wf_cut(const struct wf_cut_load *load, const struct wf_place *places, int place_count,
            const struct wf_run *runs, uint32_t run_count, struct wf_cut *out)
{
    double bytes[WF_CUT_PLACES_MAX] = {0}, latency_s = 0, data_s = 0;
    uint32_t loaded = 0;
    double none_s = wf_prefill_s(load->prefill, 0, load->tokens);
    struct wf_cut best = {.rule = WF_CUT_COMPUTE, .done_s = none_s, .prefill_s = none_s};
    double all_s = none_s;
    for (uint32_t r = 0; r < run_count; r++) {
        const struct wf_place *place = &places[runs[r].place];
        if (runs[r].place < 0 || runs[r].place >= place_count)
            break;
        for (uint32_t i = 0; i < runs[r].blocks; i++) {
            bytes[runs[r].place] += load->block_bytes;
            loaded++;
            /* What is slowest to begin, and then what is slowest to flow. */
            latency_s = fmax(latency_s, place->read_queue_s + place->latency_s);
            data_s = fmax(data_s, bytes[runs[r].place] / place->read_bytes_s);
            data_s = fmax(data_s, loaded * load->block_bytes / load->link_bytes_s);
            /* The last token is computed in any case: its output comes first. */
            double first = fmin(loaded * load->block_tokens, fmax(0, load->tokens - 1));
            double prefill_s = wf_prefill_s(load->prefill, first, load->tokens - first);
            all_s = wf_overlap_s(latency_s - load->ahead_s, data_s, prefill_s,
                                 fmax(1, load->layers));
            if (all_s <= best.done_s) {
                best.done_s = all_s;
                best.load_blocks = loaded;
                best.latency_s = latency_s;
                best.data_s = data_s;
                best.prefill_s = prefill_s;
            }
        }
    }
    best.all_s = all_s;
    best.none_s = none_s;
    best.rule = best.load_blocks == loaded && loaded ? WF_CUT_LOAD
                : best.load_blocks                   ? WF_CUT_PART
                                                     : WF_CUT_COMPUTE;
    *out = best;
}

/* ------------------------------------------------------------------------------------- prefetch */

/* E[max(0, X)] of a logistic X about x_s: spread · ln(1 + e^(x ÷ spread)). */
static double beyond_s(double x_s, double spread_s)
{
    if (!(spread_s > 0))
        return fmax(0, x_s);
    return fmax(0, x_s) + spread_s * log1p(exp(-fabs(x_s) / spread_s));
}

void wf_prefetch_decide(const struct wf_return *back, const struct wf_fetch *fetch, double now_s,
                        struct wf_prefetch *out)
{
    struct wf_prefetch said = {.rule = WF_PREFETCH_NOTHING,
                               .begin_s = INFINITY,
                               .ready_s = INFINITY};
    double hold_s_s = fetch->room_s_byte_s * fetch->bytes; /* a second of holding it */
    double chance = back->reuse.chance;
    *out = said;
    if (!(fetch->saved_s > 0) || !(chance > 0))
        return;
    if (!back->known) {
        /* Nobody says when: it is up to the rate at which it comes, now. */
        said.gain_s = back->reuse.rate * fetch->saved_s;
        said.hold_s = hold_s_s;
        said.rule = said.gain_s > said.hold_s ? WF_PREFETCH_NOW : WF_PREFETCH_NOT_WORTH;
        said.begin_s = said.rule == WF_PREFETCH_NOW ? now_s : INFINITY;
        said.ready_s = said.begin_s + fetch->load_s;
        *out = said;
        return;
    }
    /* A second too late costs a second, up to saved_s, if it comes at all. */
    double spread_s = back->spread_s, within = spread_s > 0 ? exp(-fetch->saved_s / spread_s) : 0;
    double odds = hold_s_s > 0 ? chance * (1 - within) / hold_s_s - within : INFINITY;
    double ready_s = spread_s > 0 && odds > 0 ? back->due_s - spread_s * log(odds) : back->due_s;
    said.quantile = odds > 0 ? 1 / (1 + odds) : 1;
    said.begin_s = fmax(now_s, ready_s - fetch->load_s);
    said.ready_s = said.begin_s + fetch->load_s;
    double late_s = said.ready_s - back->due_s;
    double waits_s = beyond_s(late_s, spread_s) - beyond_s(late_s - fetch->saved_s, spread_s);
    said.gain_s = chance * (fetch->saved_s - waits_s);
    said.hold_s = hold_s_s * (fetch->load_s + beyond_s(-late_s, spread_s));
    if (odds <= 0 || said.gain_s <= said.hold_s) {
        said.rule = WF_PREFETCH_NOT_WORTH;
        said.begin_s = said.ready_s = INFINITY;
    } else {
        said.rule = said.begin_s <= now_s ? WF_PREFETCH_NOW : WF_PREFETCH_LATER;
    }
    *out = said;
}

const char *wf_prefetch_rule_name(enum wf_prefetch_rule rule)
{
    static const char *const names[] = {"now", "later", "not worth", "nothing"};
    return names[rule];
}

/* ---------------------------------------------------------------------------------------- words */

int wf_admission_say(const struct wf_admission *said, const char *place, char *out, size_t size)
{
    const double ms = 1e3;
    switch (said->rule) {
    case WF_ADMITTED:
        return snprintf(out, size,
                        "written to %s: %.3f hits expected, each saves %.3g ms, and it costs "
                        "%.3g ms of writing, %.3g of wear, %.3g of room",
                        place, said->hits, ms * said->saved_s, ms * said->write_s,
                        ms * said->wear_s, ms * said->room_s);
    case WF_ADMITTED_CHAIN:
        return snprintf(out, size, "written to %s: what extends it is below, and lost without it",
                        place);
    case WF_REFUSED_ONCE:
        return snprintf(out, size,
                        "not written: wanted once, and %.3f hits expected while it would stay",
                        said->hits);
    case WF_REFUSED_SLOWER:
        return snprintf(out, size, "not written: to compute it is sooner than to read it");
    case WF_REFUSED_WRITE:
        return snprintf(out, size,
                        "not written: %.3g ms of gain expected, and %.3g ms taken from reads",
                        ms * said->gain_s, ms * said->write_s);
    case WF_REFUSED_WEAR:
        if (isinf(said->wear_s))
            return snprintf(out, size,
                            "not written: the drive's write budget has too little for now for it "
                            "and what leads to it");
        return snprintf(out, size,
                        "not written: %.3g ms of gain expected; its writes are worth %.3g ms to "
                        "others",
                        ms * said->gain_s, ms * said->wear_s);
    case WF_REFUSED_ROOM:
        return snprintf(out, size,
                        "not written: %.3g ms of gain expected; what must go for it is worth "
                        "%.3g ms",
                        ms * said->gain_s, ms * said->room_s);
    default: return snprintf(out, size, "not written: no tier takes writes now");
    }
}

int wf_cut_say(const struct wf_cut *said, uint32_t blocks, char *out, size_t size)
{
    return snprintf(out, size,
                    "%u of %u blocks loaded: done after %.3g ms; with all of them %.3g, with none "
                    "%.3g",
                    said->load_blocks, blocks, 1e3 * said->done_s, 1e3 * said->all_s,
                    1e3 * said->none_s);
}

int wf_prefetch_say(const struct wf_prefetch *said, double now_s, char *out, size_t size)
{
    switch (said->rule) {
    case WF_PREFETCH_NOW:
    case WF_PREFETCH_LATER:
        return snprintf(out, size,
                        "fetched ahead in %.3g s: %.3g ms of waiting saved, %.3g ms for the room",
                        said->begin_s - now_s, 1e3 * said->gain_s, 1e3 * said->hold_s);
    case WF_PREFETCH_NOT_WORTH:
        return snprintf(out, size,
                        "not fetched ahead: %.3g ms of waiting saved, %.3g ms for the room",
                        1e3 * said->gain_s, 1e3 * said->hold_s);
    default: return snprintf(out, size, "not fetched ahead: nobody would wait less");
    }
}
