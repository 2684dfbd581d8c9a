/* SPDX-License-Identifier: Apache-2.0 */
#include "core/directory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/reserve.h"
#include "core/directory_state.h"

/* How far from either end of its queue an entry that comes back is put in order. */
#define ORDER_STEPS 32

/* How many entries one search for a second copy looks at. */
#define HAND_STEPS 4096

/* Powers of two that a weight may have, about WEIGHT_USUAL. */
#define WEIGHT_USUAL 6
#define WEIGHT_STEPS_DOWN 5
#define WEIGHT_STEPS_UP 4

static_assert(WF_DIRECTORY_NONE == WF_TABLE_NONE, "one word for nobody");

static uint8_t bit_of(unsigned tier)
{
    assert(tier < WF_DIRECTORY_TIERS_MAX);
    return (uint8_t)(1u << tier);
}

static struct entry *live(const struct wf_directory *d, uint32_t at)
{
    assert(at < d->entries_used && d->entries[at].live);
    return &d->entries[at];
}

enum weft_status wf_directory_create(uint32_t blocks_max, uint64_t seed,
                                     const struct wf_directory_env *env, struct wf_directory **out)
{
    if (blocks_max == 0 || blocks_max == WF_DIRECTORY_NONE)
        return wf_fail(WEFT_E_INVALID,
                       "a directory of %u blocks cannot be; ask for 1 to 4294967294", blocks_max);
    struct wf_directory *d = WF_FAILS("calloc") ? NULL : calloc(1, sizeof *d);
    if (!d)
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for the directory of tiers");
    d->env = *env;
    d->entries_max = blocks_max;
    d->unused = WF_DIRECTORY_NONE;
    for (unsigned t = 0; t < WF_DIRECTORY_TIERS_MAX; t++)
        memset(d->tiers[t].queue, 0xff, sizeof d->tiers[t].queue);
    d->entries = wf_reserve((uint64_t)blocks_max * sizeof *d->entries, "the directory of tiers",
                            "give the tiers fewer blocks");
    struct wf_table_items items = {
        .first = d->entries,
        .max = blocks_max,
        .bytes = sizeof *d->entries,
        .key_offset = offsetof(struct entry, key),
        .next_offset = offsetof(struct entry, hash_next),
    };
    if (!d->entries || wf_table_init(&d->table, &items, seed) != WEFT_OK) {
        wf_directory_destroy(d);
        return WEFT_E_NO_MEMORY;
    }
    *out = d;
    return WEFT_OK;
}

void wf_directory_destroy(struct wf_directory *d)
{
    if (!d)
        return;
    wf_table_fini(&d->table);
    wf_unreserve(d->entries, (uint64_t)d->entries_max * sizeof *d->entries);
    free(d);
}

/* -------------------------------------------------------------------------- queues and sums */

/* The clock wraps: what was not used for 2^31 uses of others may be taken for recent. */
static bool used_before(const struct entry *a, const struct entry *b)
{
    return (int32_t)(a->used - b->used) < 0;
}

static void queue_put(struct wf_directory *d, struct queue *q, uint32_t at, uint32_t colder,
                      uint32_t warmer)
{
    struct entry *e = &d->entries[at];
    e->colder = colder;
    e->warmer = warmer;
    *(colder != WF_DIRECTORY_NONE ? &d->entries[colder].warmer : &q->coldest) = at;
    *(warmer != WF_DIRECTORY_NONE ? &d->entries[warmer].colder : &q->warmest) = at;
}

static void queue_remove(struct wf_directory *d, struct queue *q, uint32_t at)
{
    const struct entry *e = &d->entries[at];
    *(e->colder != WF_DIRECTORY_NONE ? &d->entries[e->colder].warmer : &q->coldest) = e->warmer;
    *(e->warmer != WF_DIRECTORY_NONE ? &d->entries[e->warmer].colder : &q->warmest) = e->colder;
}

/* In the order of `used`: what was just used finds its place at once.  Others are looked for from
 * both ends, a bounded way; when neither search ends, the end that is nearer in time is taken. */
static void queue_insert(struct wf_directory *d, struct queue *q, uint32_t at)
{
    const struct entry *e = &d->entries[at];
    uint32_t below = q->warmest, above = q->coldest; /* it goes after `below` or before `above` */
    for (int i = 0; i < ORDER_STEPS; i++) {
        if (below == WF_DIRECTORY_NONE || used_before(&d->entries[below], e)) {
            queue_put(d, q, at, below,
                      below != WF_DIRECTORY_NONE ? d->entries[below].warmer : q->coldest);
            return;
        }
        if (used_before(e, &d->entries[above])) {
            queue_put(d, q, at, d->entries[above].colder, above);
            return;
        }
        below = d->entries[below].colder;
        above = d->entries[above].warmer;
    }
    uint32_t age = d->entries[q->warmest].used - e->used;
    uint32_t youth = e->used - d->entries[q->coldest].used;
    if (age < youth)
        queue_put(d, q, at, below,
                  below != WF_DIRECTORY_NONE ? d->entries[below].warmer : q->coldest);
    else
        queue_put(d, q, at, above != WF_DIRECTORY_NONE ? d->entries[above].colder : q->warmest,
                  above);
}

/* Add what an entry amounts to on its tiers, or take it off. */
static void account(struct wf_directory *d, const struct entry *e, bool add)
{
    uint64_t one = add ? 1 : UINT64_MAX, bytes = add ? e->bytes : 0 - (uint64_t)e->bytes;
    bool spare = false; /* of the nearest tier never: that copy is in a queue */
    for (unsigned left = e->tiers; left; left &= left - 1) {
        struct tier_state *t = &d->tiers[__builtin_ctz(left)];
        struct wf_directory_sum *sum = &t->sum[e->domain];
        sum->blocks += one;
        sum->bytes += bytes;
        if (e->archives) {
            sum->archived_blocks += one;
            sum->archived_bytes += bytes;
        }
        if (spare)
            t->spare[e->domain] += (uint32_t)one;
        spare = e->holds == 0 && e->archives == 0;
    }
}

/* A change of an entry: before() … after() with what before() gave.  An entry that stays in its
 * queue keeps its place there. */
static struct queue *before(struct wf_directory *d, uint32_t at)
{
    account(d, &d->entries[at], false);
    return queue_of(d, &d->entries[at]);
}

static void after(struct wf_directory *d, uint32_t at, struct queue *was)
{
    account(d, &d->entries[at], true);
    struct queue *is = queue_of(d, &d->entries[at]);
    if (is == was)
        return;
    if (was)
        queue_remove(d, was, at);
    if (is)
        queue_insert(d, is, at);
}

/* The same, and from now on it is the most recently used. */
static void after_use(struct wf_directory *d, uint32_t at, struct queue *was)
{
    account(d, &d->entries[at], true);
    if (was)
        queue_remove(d, was, at);
    d->entries[at].used = ++d->clock;
    d->entries[at].when = d->now_ds;
    struct queue *is = queue_of(d, &d->entries[at]);
    if (is)
        queue_put(d, is, at, is->warmest, WF_DIRECTORY_NONE);
}

/* Of two bits. */
static enum weft_quality quality_named(unsigned bits)
{
    return (bits & 3u) > WEFT_LOSSLESS ? (enum weft_quality)(bits & 3u) : WEFT_LOSSLESS;
}

static void quality_set(struct entry *e, unsigned tier, enum weft_quality quality)
{
    unsigned bits = quality > WEFT_LOSSLESS ? (unsigned)quality & 3u : 0;
    e->qualities = (uint16_t)((e->qualities & ~(3u << (2 * tier))) | bits << (2 * tier));
}

/* What is shown of an entry. */
struct showing {
    int tier;
    enum weft_quality quality;
    uint8_t tiers;
    uint16_t qualities;
};

static struct showing showing_of(const struct wf_directory *d, const struct entry *e)
{
    struct showing showing = {-1, WEFT_LOSSLESS, e->tiers, e->qualities};
    uint8_t fit = fit_tiers(d, e);
    for (unsigned left = fit; e->qualities && left; left &= left - 1) {
        enum weft_quality quality = (enum weft_quality)quality_on(e, (unsigned)__builtin_ctz(left));
        showing.quality = quality > showing.quality ? quality : showing.quality;
    }
    if (fit)
        showing.tier = __builtin_ctz(fit);
    return showing;
}

/* Show what has changed since `was`. */
static void show(const struct wf_directory *d, const struct entry *e, const struct showing *was)
{
    struct showing is = showing_of(d, e);
    if (is.tier != was->tier || is.quality != was->quality)
        d->env.shown(d->env.context, e->domain, e->key, is.tier, is.quality);
    if (!d->env.moved || (is.tiers == was->tiers && is.qualities == was->qualities))
        return;
    const struct wf_directory_moved moved = {
        .key = e->key,
        .parent = e->parent != WF_DIRECTORY_NONE ? d->entries[e->parent].key : NULL,
        .domain = e->domain,
        .bytes = e->bytes,
        .depth = e->depth,
        .tiers = is.tiers,
        .tiers_were = was->tiers,
        .qualities = is.qualities,
        .qualities_were = was->qualities,
    };
    d->env.moved(d->env.context, &moved);
}

/* -------------------------------------------------------------------------------- the tree */

static void unlink_child(struct wf_directory *d, uint32_t child)
{
    const struct entry *c = &d->entries[child];
    if (c->parent == WF_DIRECTORY_NONE)
        return;
    struct queue *was = before(d, c->parent);
    *(c->younger != WF_DIRECTORY_NONE ? &d->entries[c->younger].elder
                                      : &d->entries[c->parent].child) = c->elder;
    if (c->elder != WF_DIRECTORY_NONE)
        d->entries[c->elder].younger = c->younger;
    after(d, c->parent, was);
}

static uint32_t entry_new(struct wf_directory *d, const uint8_t key[32], uint16_t domain,
                          uint32_t bytes, uint32_t depth, bool in_dram)
{
    uint32_t at = d->unused;
    if (at != WF_DIRECTORY_NONE)
        d->unused = d->entries[at].hash_next;
    else
        at = d->entries_used++;
    d->taken++;
    d->entries[at] = (struct entry){
        .parent = WF_DIRECTORY_NONE,
        .child = WF_DIRECTORY_NONE,
        .elder = WF_DIRECTORY_NONE,
        .younger = WF_DIRECTORY_NONE,
        .used = ++d->clock,
        .when = d->now_ds,
        .bytes = bytes,
        .depth = depth & WF_DIRECTORY_DEPTH_MAX,
        .live = true,
        .in_dram = in_dram,
        .domain = (uint8_t)domain,
    };
    memcpy(d->entries[at].key, key, 32);
    wf_table_insert(&d->table, at);
    if (domain >= d->domains)
        d->domains = domain + 1u;
    return at;
}

static void entry_free(struct wf_directory *d, uint32_t at)
{
    d->entries[at].hash_next = d->unused;
    d->unused = at;
    d->taken--;
}

static void archives_change(struct wf_directory *d, uint32_t at, uint32_t count, bool add)
{
    for (; at != WF_DIRECTORY_NONE; at = d->entries[at].parent) {
        struct entry *e = &d->entries[at];
        struct queue *was = before(d, at);
        assert(add ? count + e->archives <= WF_DIRECTORY_ARCHIVES_MAX : e->archives >= count);
        e->archives = (uint16_t)(add ? e->archives + count : e->archives - count);
        after(d, at, was);
    }
}

/* Archives that the child belongs to reach to the root now. */
static void link_child(struct wf_directory *d, uint32_t parent, uint32_t child)
{
    struct entry *p = &d->entries[parent], *c = &d->entries[child];
    struct queue *was = before(d, parent);
    c->parent = parent;
    c->younger = WF_DIRECTORY_NONE;
    c->elder = p->child;
    if (c->elder != WF_DIRECTORY_NONE)
        d->entries[c->elder].younger = child;
    p->child = child;
    after(d, parent, was);
    if (c->archives)
        archives_change(d, parent, c->archives, true);
}

/* An entry that nothing extends goes.  Of the tiers in `told` the caller knows. */
static void erase(struct wf_directory *d, uint32_t at, uint8_t told)
{
    struct entry *e = &d->entries[at];
    uint8_t tiers = e->tiers;
    unsigned qualities = e->qualities;
    struct showing was_shown = showing_of(d, e);
    struct wf_directory_dropped gone = {
        .key = e->key,
        .parent = e->parent != WF_DIRECTORY_NONE ? d->entries[e->parent].key : NULL,
        .domain = e->domain,
        .bytes = e->bytes,
        .depth = e->depth,
        .tiers = tiers,
    };
    assert(e->child == WF_DIRECTORY_NONE);
    /* Archives that it belongs to, and no child of it did, end with it. */
    if (e->archives)
        archives_change(d, at, e->archives, false);
    struct queue *was = before(d, at);
    e->tiers = 0;
    e->qualities = 0;
    e->in_dram = e->promoted = false;
    after(d, at, was);
    unlink_child(d, at);
    wf_table_remove(&d->table, at);
    e->parent = WF_DIRECTORY_NONE;
    e->live = false;
    show(d, e, &was_shown);
    for (unsigned left = tiers & ~(unsigned)told; left; left &= left - 1) {
        gone.tier = (unsigned)__builtin_ctz(left);
        gone.quality = quality_named(qualities >> (2 * gone.tier));
        d->env.dropped(d->env.context, &gone);
    }
    if (e->holds == 0)
        entry_free(d, at);
}

/* All of a subtree, children first.  The caller knows of its top's tiers in `told_top`, and of all
 * others' in `told`. */
static void erase_subtree(struct wf_directory *d, uint32_t top, uint8_t told_top, uint8_t told)
{
    uint32_t at = top;
    for (;;) {
        while (d->entries[at].child != WF_DIRECTORY_NONE)
            at = d->entries[at].child;
        if (at == top)
            break;
        uint32_t parent = d->entries[at].parent;
        erase(d, at, told);
        at = parent;
    }
    erase(d, top, told_top);
}

/* Bridges that lead nowhere any more go. */
static void prune(struct wf_directory *d, uint32_t at)
{
    while (at != WF_DIRECTORY_NONE && !d->entries[at].tiers &&
           d->entries[at].child == WF_DIRECTORY_NONE) {
        uint32_t parent = d->entries[at].parent;
        erase(d, at, 0);
        at = parent;
    }
}

/* -------------------------------------------------------------------------- what is told */

uint32_t wf_directory_find(const struct wf_directory *d, const uint8_t key[32])
{
    return wf_table_find(&d->table, key);
}

static float rate_of(const struct entry *e)
{
    uint32_t bits = (uint32_t)e->rate << 16;
    float rate;
    memcpy(&rate, &bits, sizeof rate);
    return rate;
}

static float weight_of(const struct entry *e)
{
    return e->weight ? ldexpf(1, (int)e->weight - WEIGHT_USUAL) : 1;
}

static void judge(struct entry *e, float chance, float rate, float weight)
{
    uint32_t bits;
    memcpy(&bits, &rate, sizeof bits);
    bool known = chance > 0 && rate > 0;
    float part = chance < 1 ? chance : 1;
    e->chance = known ? (uint16_t)(part * UINT16_MAX) : 0;
    e->rate = known ? (uint16_t)(bits >> 16) : 0;
    int step = weight > 0 && isfinite(weight) ? (int)lroundf(log2f(weight)) : 0;
    step = step < -WEIGHT_STEPS_DOWN ? -WEIGHT_STEPS_DOWN
           : step > WEIGHT_STEPS_UP  ? WEIGHT_STEPS_UP
                                     : step;
    e->weight = (uint32_t)(WEIGHT_USUAL + step) & 15u;
}

void wf_directory_read(const struct wf_directory *d, uint32_t at, struct wf_directory_block *out)
{
    assert(at < d->entries_used && (d->entries[at].live || d->entries[at].holds));
    const struct entry *e = &d->entries[at];
    *out = (struct wf_directory_block){
        .parent = e->parent,
        .bytes = e->bytes,
        .depth = e->depth,
        .domain = e->domain,
        .tiers = e->tiers,
        .fit = fit_tiers(d, e),
        .good = good_tiers(d, e),
        .qualities = e->qualities,
        .leads = e->child == WF_DIRECTORY_NONE ? 0 : d->entries[e->child].tiers,
        .in_dram = e->in_dram,
        .archives = e->archives,
        .holds = e->holds,
        .chance = (float)e->chance / UINT16_MAX,
        .rate = rate_of(e),
        .weight = weight_of(e),
        .idle_ds = d->now_ds - e->when,
    };
    memcpy(out->key, e->key, 32);
}

static enum weft_status contradiction(const struct wf_directory_add *add, const char *what)
{
    return wf_fail(
        WEFT_E_INVALID,
        "a block of domain %u with %u bytes at depth %u contradicts what is known of %s; "
        "it must not be taken from tier %u",
        add->domain, add->bytes, add->depth, what, add->tier);
}

/* May it be added to what is there?  `at`, `parent`: its entry and its parent's, if any. */
static enum weft_status check_add(const struct wf_directory *d, const struct wf_directory_add *add,
                                  uint32_t at, uint32_t parent)
{
    if (add->tier >= WF_DIRECTORY_TIERS_MAX || add->domain >= WF_DIRECTORY_DOMAINS_MAX ||
        add->depth > WF_DIRECTORY_DEPTH_MAX || (add->has_parent && add->depth == 0) ||
        (add->has_parent && memcmp(add->key, add->parent, 32) == 0))
        return contradiction(add, "all blocks");
    if (at != WF_DIRECTORY_NONE) {
        const struct entry *e = &d->entries[at];
        /* What has a parent has no other; of a bridge it is not known. */
        if (e->domain != add->domain || e->bytes != add->bytes || e->depth != add->depth ||
            (e->parent != WF_DIRECTORY_NONE && e->parent != parent))
            return contradiction(add, "the block");
    }
    /* Depths that rise along a chain also keep chains from being rings. */
    if (parent != WF_DIRECTORY_NONE &&
        (d->entries[parent].domain != add->domain || d->entries[parent].depth + 1u != add->depth))
        return contradiction(add, "its parent");
    bool bridge = add->has_parent && parent == WF_DIRECTORY_NONE;
    if (bridge && !add->parent_in_dram)
        return wf_fail(WEFT_E_PARENT,
                       "a block at depth %u is on tier %u, but its parent is nowhere; remove it",
                       add->depth, add->tier);
    uint32_t wanted = (at == WF_DIRECTORY_NONE) + (bridge ? 1u : 0u);
    if (wanted > d->entries_max - d->taken)
        return wf_fail(WEFT_E_LIMIT, "the tiers hold as many blocks as they may (%u)",
                       d->entries_max);
    return WEFT_OK;
}

enum weft_status wf_directory_would_add(const struct wf_directory *d,
                                        const struct wf_directory_add *add)
{
    uint32_t at = wf_table_find(&d->table, add->key);
    uint32_t parent = add->has_parent ? wf_table_find(&d->table, add->parent) : WF_DIRECTORY_NONE;
    return check_add(d, add, at, parent);
}

enum weft_status wf_directory_add(struct wf_directory *d, const struct wf_directory_add *add,
                                  uint32_t *out_entry)
{
    uint32_t at = wf_table_find(&d->table, add->key);
    uint32_t parent = add->has_parent ? wf_table_find(&d->table, add->parent) : WF_DIRECTORY_NONE;
    enum weft_status status = check_add(d, add, at, parent);
    if (status != WEFT_OK)
        return status;
    if (add->has_parent && parent == WF_DIRECTORY_NONE)
        parent = entry_new(d, add->parent, add->domain, add->parent_bytes, add->depth - 1, true);
    if (at == WF_DIRECTORY_NONE)
        at = entry_new(d, add->key, add->domain, add->bytes, add->depth, add->in_dram);
    struct entry *e = &d->entries[at];
    if (parent != WF_DIRECTORY_NONE && e->parent == WF_DIRECTORY_NONE)
        link_child(d, parent, at);
    struct showing was_shown = showing_of(d, e);
    struct queue *was = before(d, at);
    uint32_t when = e->when;
    e->tiers |= bit_of(add->tier);
    quality_set(e, add->tier, add->quality);
    e->unread = false;
    e->in_dram |= add->in_dram;
    after_use(d, at, was);
    if (add->chance > 0)
        judge(e, add->chance, add->rate, add->weight);
    else
        e->when = when; /* what was expected is as old as before */
    show(d, e, &was_shown);
    *out_entry = at;
    return WEFT_OK;
}

/* Has the entry no other place? */
static bool only_on(const struct entry *e, uint8_t bit)
{
    return e->tiers == bit && !e->in_dram;
}

/* It has another place. */
static void leave_tier(struct wf_directory *d, uint32_t at, uint8_t bit)
{
    struct entry *e = &d->entries[at];
    struct showing was_shown = showing_of(d, e);
    if (!(e->tiers & bit))
        return;
    struct queue *was = before(d, at);
    e->tiers &= (uint8_t)~bit;
    quality_set(e, (unsigned)__builtin_ctz(bit), WEFT_LOSSLESS);
    after(d, at, was);
    show(d, e, &was_shown);
}

void wf_directory_lose(struct wf_directory *d, uint32_t at, unsigned tier)
{
    const struct entry *e = live(d, at);
    uint8_t bit = bit_of(tier);
    if (only_on(e, bit)) {
        uint32_t parent = e->parent;
        erase_subtree(d, at, bit, 0);
        prune(d, parent);
        return;
    }
    leave_tier(d, at, bit);
    prune(d, at);
}

/* One tree of the forest: on the way down, what has no other place goes with all that extends it;
 * on the way up, the others leave the tier.  So children are told of before their parents. */
static void lose_tier_in(struct wf_directory *d, uint32_t root, uint8_t bit)
{
    uint32_t at = root;
    bool down = true;
    for (;;) {
        const struct entry *e = &d->entries[at];
        bool goes = down && only_on(e, bit);
        if (down && !goes && e->child != WF_DIRECTORY_NONE) {
            at = e->child;
            continue;
        }
        uint32_t next = e->elder, parent = e->parent;
        if (goes) {
            erase_subtree(d, at, bit, bit);
        } else {
            leave_tier(d, at, bit);
            if (!e->tiers && e->child == WF_DIRECTORY_NONE)
                erase(d, at, 0);
        }
        down = next != WF_DIRECTORY_NONE;
        at = down ? next : parent;
        if (at == WF_DIRECTORY_NONE)
            return;
    }
}

void wf_directory_lose_tier(struct wf_directory *d, unsigned tier)
{
    uint8_t bit = bit_of(tier);
    for (uint32_t at = 0; at < d->entries_used; at++)
        if (d->entries[at].live && d->entries[at].parent == WF_DIRECTORY_NONE)
            lose_tier_in(d, at, bit);
}

void wf_directory_enter_dram(struct wf_directory *d, uint32_t at, bool promoted)
{
    struct entry *e = live(d, at);
    struct queue *was = before(d, at);
    e->in_dram = true;
    e->promoted |= promoted;
    if (promoted)
        after_use(d, at, was);
    else
        after(d, at, was);
}

void wf_directory_leave_dram(struct wf_directory *d, uint32_t at)
{
    struct entry *e = live(d, at);
    if (!e->in_dram)
        return;
    if (e->tiers) {
        struct queue *was = before(d, at);
        e->in_dram = e->promoted = false;
        after_use(d, at, was);
        return;
    }
    uint32_t parent = e->parent;
    erase_subtree(d, at, 0, 0);
    prune(d, parent);
}

void wf_directory_remove(struct wf_directory *d, uint32_t at)
{
    uint32_t parent = live(d, at)->parent;
    erase_subtree(d, at, 0, 0);
    prune(d, parent);
}

void wf_directory_touch(struct wf_directory *d, uint32_t at)
{
    (void)live(d, at);
    after_use(d, at, before(d, at));
}

void wf_directory_judge(struct wf_directory *d, uint32_t at, float chance, float rate, float weight)
{
    struct entry *e = &d->entries[at];
    (void)live(d, at);
    judge(e, chance, rate, weight);
    e->when = d->now_ds;
}

void wf_directory_unread(struct wf_directory *d, uint32_t at, bool unread)
{
    live(d, at)->unread = unread;
}

void wf_directory_demand(struct wf_directory *d, uint16_t domain, enum weft_quality quality)
{
    assert(domain < WF_DIRECTORY_DOMAINS_MAX && d->taken == 0);
    d->demand[domain] = (uint8_t)quality;
}

void wf_directory_clock(struct wf_directory *d, uint32_t now_ds)
{
    d->now_ds = now_ds;
}

void wf_directory_hold(struct wf_directory *d, uint32_t at)
{
    struct entry *e = live(d, at);
    assert(e->holds < WF_DIRECTORY_HOLDS_MAX);
    struct queue *was = before(d, at);
    e->holds++;
    after(d, at, was);
}

void wf_directory_unhold(struct wf_directory *d, uint32_t at)
{
    assert(at < d->entries_used && d->entries[at].holds > 0);
    struct entry *e = &d->entries[at];
    struct queue *was = before(d, at);
    e->holds--;
    after(d, at, was);
    if (!e->live && e->holds == 0)
        entry_free(d, at);
}

void wf_directory_archive(struct wf_directory *d, uint32_t tip, bool add)
{
    (void)live(d, tip);
    archives_change(d, tip, 1, add);
}

/* ------------------------------------------------------------------------ what is answered */

static bool is_spare(const struct entry *e, unsigned tier, uint16_t domain)
{
    return e->live && (e->tiers & bit_of(tier)) && nearest_tier(e) < tier && e->holds == 0 &&
           e->archives == 0 && (domain == WF_DIRECTORY_DOMAINS_ALL || e->domain == domain);
}

static uint32_t find_spare(struct wf_directory *d, unsigned tier, uint16_t domain)
{
    struct tier_state *t = &d->tiers[tier];
    for (uint32_t i = 0; i < HAND_STEPS && i < d->entries_used; i++) {
        uint32_t at = t->hand < d->entries_used ? t->hand : 0;
        t->hand = at + 1;
        if (is_spare(&d->entries[at], tier, domain))
            return at;
    }
    return WF_DIRECTORY_NONE;
}

uint32_t wf_directory_victim(struct wf_directory *d, unsigned tier, uint16_t domain)
{
    bool all = domain == WF_DIRECTORY_DOMAINS_ALL;
    uint32_t first = all ? 0 : domain, end = all ? d->domains : domain + 1u;
    uint32_t victim = WF_DIRECTORY_NONE;
    uint64_t spare = 0;
    assert(tier < WF_DIRECTORY_TIERS_MAX && end <= WF_DIRECTORY_DOMAINS_MAX);
    const struct tier_state *t = &d->tiers[tier];
    for (int kind = 0; kind < QUEUE_KINDS && victim == WF_DIRECTORY_NONE; kind++)
        for (uint32_t i = first; i < end; i++) {
            uint32_t at = t->queue[kind][i].coldest;
            if (at != WF_DIRECTORY_NONE &&
                (victim == WF_DIRECTORY_NONE || used_before(&d->entries[at], &d->entries[victim])))
                victim = at;
        }
    for (uint32_t i = first; i < end; i++)
        spare += t->spare[i];
    return victim != WF_DIRECTORY_NONE || spare == 0 ? victim : find_spare(d, tier, domain);
}

uint32_t wf_directory_chain(const struct wf_directory *d, uint32_t tip, uint32_t *out, uint32_t max)
{
    uint32_t count = 0;
    (void)live(d, tip);
    for (uint32_t at = tip; at != WF_DIRECTORY_NONE && count < max; at = d->entries[at].parent)
        out[count++] = at;
    return count;
}

uint32_t wf_directory_next(const struct wf_directory *d, unsigned tier, uint32_t *cursor)
{
    uint8_t bit = bit_of(tier);
    for (uint32_t at = *cursor; at < d->entries_used; at++)
        if (d->entries[at].tiers & bit) {
            *cursor = at + 1;
            return at;
        }
    *cursor = 0;
    return WF_DIRECTORY_NONE;
}

uint32_t wf_directory_scan(const struct wf_directory *d, uint8_t tiers, uint16_t domain,
                           uint32_t looks, uint32_t *cursor)
{
    uint32_t at = *cursor;
    for (; at < d->entries_used && looks > 0; at++, looks--)
        if (d->entries[at].live && d->entries[at].domain == domain &&
            (d->entries[at].tiers & tiers)) {
            *cursor = at + 1;
            return at;
        }
    *cursor = at < d->entries_used ? at : 0;
    return WF_DIRECTORY_NONE;
}

void wf_directory_sum(const struct wf_directory *d, unsigned tier, uint16_t domain,
                      struct wf_directory_sum *out)
{
    bool all = domain == WF_DIRECTORY_DOMAINS_ALL;
    uint32_t first = all ? 0 : domain, end = all ? d->domains : domain + 1u;
    assert(tier < WF_DIRECTORY_TIERS_MAX && end <= WF_DIRECTORY_DOMAINS_MAX);
    *out = (struct wf_directory_sum){0};
    for (uint32_t i = first; i < end; i++) {
        const struct wf_directory_sum *sum = &d->tiers[tier].sum[i];
        out->blocks += sum->blocks;
        out->bytes += sum->bytes;
        out->archived_blocks += sum->archived_blocks;
        out->archived_bytes += sum->archived_bytes;
    }
}

uint32_t wf_directory_entries(const struct wf_directory *d)
{
    return d->table.count;
}

uint64_t wf_directory_memory(const struct wf_directory *d)
{
    return sizeof *d + (uint64_t)d->entries_used * sizeof *d->entries +
           (uint64_t)d->table.bucket_count * sizeof *d->table.buckets;
}
