/* SPDX-License-Identifier: Apache-2.0 */
#include "core/value_guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "core/value.h"

#define CHAINS (WF_GUARD_SAMPLES * 2) /* of the table by key; a power of two */
#define WINDOW 16u /* times what the small caches hold: sampled blocks until one counts 1/e */
#define CALM 8u    /* times as many sampled blocks, at least, from one change to the next */
#define MARGIN                                                                                \
    0.003f         /* of the blocks in the window: so many hits more, and an order takes over \
                    */
#define DOUBT 0.5f /* and so many deviations of the difference more, as if requests were apart */
#define STEPS 64u  /* of LFU-DA's inflation that are remembered */

struct entry { /* a sampled block in a small cache */
    uint32_t key, chain_next;
    uint32_t parent;   /* the sampled block before it in its chain, or NONE */
    uint32_t children; /* in this cache */
    uint32_t place;    /* in the heap + 1; 0: not in, for it is no leaf, or its request runs */
    uint32_t stamp;    /* of its last use */
    float worth;
    uint32_t uses;
    uint32_t segment;        /* of its last use: whose kind it has */
    uint32_t previous, next; /* in the list of its bucket */
    uint32_t ticks;
    uint8_t generation, bucket, cost;
};

struct shadow {
    enum wf_guard_order order;
    struct entry *entries; /* [size] */
    uint32_t *heap;        /* [size] the least worth first */
    uint32_t *table;       /* [CHAINS] the first entry, or NONE */
    uint32_t count, heap_count, free;
    struct list age[WF_VALUE_BUCKETS]; /* of WF_GUARD_VALUE alone */
    float inflation;                   /* of WF_GUARD_COUNT: the worth of what went last */
    float hits;                        /* in the window, each at its cost */
};

struct sampled {
    uint32_t key, entry;
    uint32_t of; /* its slot; or, of what was refused, its segment */
    uint8_t generation, cost;
    bool refused;
};

struct wf_guard {
    struct shadow shadows[WF_GUARD_ORDERS];
    struct sampled *run;  /* [size] of the request that was added and may go on */
    struct sampled *tail; /* [size] of what was refused of it: it comes behind */
    uint32_t run_count, tail_count, request;
    uint32_t from;           /* the key of the sampled block on which they go on, or 0 */
    uint32_t size, capacity; /* capacity: in sampled blocks; size: none is known yet */
    uint32_t held;           /* while room was wanted last; 0: never */
    uint32_t held_most;      /* at any time that room was wanted since requests were weighed */
    unsigned shift;          /* one of 2^shift blocks is sampled */
    uint32_t stamp;
    float seen;                   /* blocks in the window, each at its cost */
    float apart[WF_GUARD_ORDERS]; /* of each two orders: the squares of how much their hits
                                     of a request differ, in the window; i and k at i + k - 1 */
    uint32_t calm; /* sampled blocks since another order came to stand, or something like it */
    enum wf_guard_order stands;
    struct {
        uint32_t ticks;
        float inflation;
    } steps[STEPS]; /* a ring */
    uint32_t step_count;
};

/* ------------------------------------------------------------------------------ a small cache */

static bool before(const struct shadow *c, uint32_t a, uint32_t b)
{
    const struct entry *x = &c->entries[a], *y = &c->entries[b];
    return x->worth < y->worth || (!(y->worth < x->worth) && (int32_t)(x->stamp - y->stamp) < 0);
}

static void put(struct shadow *c, uint32_t at, uint32_t entry)
{
    c->heap[at] = entry;
    c->entries[entry].place = at + 1;
}

static void sift(struct shadow *c, uint32_t at)
{
    uint32_t entry = c->heap[at];
    while (at > 0 && before(c, entry, c->heap[(at - 1) / 2])) {
        put(c, at, c->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (uint32_t below = 2 * at + 1; below < c->heap_count; below = 2 * at + 1) {
        if (below + 1 < c->heap_count && before(c, c->heap[below + 1], c->heap[below]))
            below++;
        if (!before(c, c->heap[below], entry))
            break;
        put(c, at, c->heap[below]);
        at = below;
    }
    put(c, at, entry);
}

static void heap_add(struct shadow *c, uint32_t entry)
{
    put(c, c->heap_count++, entry);
    sift(c, c->heap_count - 1);
}

static void heap_remove(struct shadow *c, uint32_t entry)
{
    uint32_t at = c->entries[entry].place;
    if (!at--)
        return;
    c->entries[entry].place = 0;
    uint32_t moved = c->heap[--c->heap_count];
    if (at == c->heap_count)
        return;
    put(c, at, moved);
    sift(c, at);
}

static uint32_t find(const struct shadow *c, uint32_t key)
{
    uint32_t entry = c->table[key & (CHAINS - 1)];
    while (entry != NONE && c->entries[entry].key != key)
        entry = c->entries[entry].chain_next;
    return entry;
}

static void age_add(struct shadow *c, uint32_t entry, unsigned bucket)
{
    struct entry *e = &c->entries[entry];
    e->bucket = (uint8_t)bucket;
    if (bucket == WF_VALUE_BUCKETS)
        return;
    struct list *list = &c->age[bucket];
    e->previous = list->last;
    e->next = NONE;
    *(list->last == NONE ? &list->first : &c->entries[list->last].next) = entry;
    list->last = entry;
}

static void age_remove(struct shadow *c, uint32_t entry)
{
    const struct entry *e = &c->entries[entry];
    if (e->bucket == WF_VALUE_BUCKETS)
        return;
    struct list *list = &c->age[e->bucket];
    *(e->previous == NONE ? &list->first : &c->entries[e->previous].next) = e->next;
    *(e->next == NONE ? &list->last : &c->entries[e->next].previous) = e->previous;
}

/* By its segment in the real cache, with which it shares what was computed. */
static float value_of(const struct wf_guard *g, struct wf_policy *p, const struct entry *e)
{
    struct segment *s = &p->segments[e->segment];
    if (e->segment == NONE || s->generation != e->generation || e->bucket == WF_VALUE_BUCKETS)
        return 0;
    struct wf_value_kind kind = wf_value_kind_of(s);
    bool same = g->stands == WF_GUARD_VALUE && s->blocks && s->bucket == e->bucket &&
                s->worth >= 0 && !isinf(s->worth);
    float own = 1, its = 1;
    if (e->cost != s->cost) {
        own = wf_value_cost(e->cost);
        its = wf_value_cost(s->cost);
    }
    if (same && !s->stale)
        return own == its ? s->worth : s->worth / its * own;
    float density = wf_value_of(&p->model, &kind, e->bucket,
                                (float)(p->now - e->ticks) / TICKS_PER_S);
    float value = density * wf_value_cost(e->cost);
    if (same) {
        s->worth = own == its ? value : density * its;
        s->stale = 0;
    }
    return value;
}

static void leaf_add(const struct wf_guard *g, struct wf_policy *p, struct shadow *c,
                     uint32_t entry)
{
    if (c->order == WF_GUARD_VALUE)
        c->entries[entry].worth = value_of(g, p, &c->entries[entry]);
    heap_add(c, entry);
}

static void entry_free(struct shadow *c, uint32_t entry)
{
    uint32_t *at = &c->table[c->entries[entry].key & (CHAINS - 1)];
    while (*at != entry)
        at = &c->entries[*at].chain_next;
    *at = c->entries[entry].chain_next;
    if (c->order == WF_GUARD_VALUE)
        age_remove(c, entry);
    c->entries[entry].chain_next = c->free;
    c->free = entry;
    c->count--;
}

static void inflate(struct wf_guard *g, struct wf_policy *p, struct shadow *c, float to)
{
    if (!(to > c->inflation))
        return;
    c->inflation = to;
    g->steps[g->step_count % STEPS].ticks = p->now;
    g->steps[g->step_count++ % STEPS].inflation = to;
}

/* False: all leaves belong to the request that runs. */
static bool evict(struct wf_guard *g, struct wf_policy *p, struct shadow *c)
{
    if (!c->heap_count)
        return false;
    uint32_t entry = c->heap[0], parent = c->entries[entry].parent;
    if (c->order == WF_GUARD_COUNT)
        inflate(g, p, c, c->entries[entry].worth);
    heap_remove(c, entry);
    entry_free(c, entry);
    if (parent != NONE && --c->entries[parent].children == 0 &&
        c->entries[parent].stamp != g->stamp)
        leaf_add(g, p, c, parent);
    return true;
}

static uint32_t entry_new(struct wf_guard *g, struct wf_policy *p, struct shadow *c, uint32_t key,
                          uint32_t parent)
{
    while (c->count >= g->capacity)
        if (!evict(g, p, c))
            return NONE;
    uint32_t entry = c->free;
    c->free = c->entries[entry].chain_next;
    c->count++;
    c->entries[entry] = (struct entry){.key = key,
                                       .parent = parent,
                                       .chain_next = c->table[key & (CHAINS - 1)],
                                       .bucket = WF_VALUE_BUCKETS};
    c->table[key & (CHAINS - 1)] = entry;
    if (parent != NONE)
        c->entries[parent].children++;
    return entry;
}

/* ----------------------------------------------------------------------------------- the sample */

static uint32_t hash_of(uint64_t key)
{
    uint32_t hash = (uint32_t)((key ^ key >> 29) * 0xbf58476d1ce4e5b9u >> 32);
    return hash ? hash : 1;
}

/* The table by key goes by the other end of the hash. */
static bool sampled(const struct wf_guard *g, uint32_t hash)
{
    return g->shift == 0 || hash >> (32 - g->shift) == 0;
}

/* Those that are sampled no more leave; their children become children of what stood before. */
static void shadow_thin(const struct wf_guard *g, struct wf_policy *p, struct shadow *c)
{
    for (uint32_t i = 0; i < c->heap_count; i++)
        c->entries[c->heap[i]].place = 0;
    c->heap_count = 0;
    for (uint32_t k = 0; k < CHAINS; k++)
        for (uint32_t i = c->table[k]; i != NONE; i = c->entries[i].chain_next) {
            struct entry *e = &c->entries[i];
            e->children = 0;
            while (e->parent != NONE && !sampled(g, c->entries[e->parent].key))
                e->parent = c->entries[e->parent].parent;
        }
    for (uint32_t k = 0; k < CHAINS; k++)
        for (uint32_t i = c->table[k], next; i != NONE; i = next) {
            next = c->entries[i].chain_next;
            if (!sampled(g, c->entries[i].key))
                entry_free(c, i);
            else if (c->entries[i].parent != NONE)
                c->entries[c->entries[i].parent].children++;
        }
    for (uint32_t k = 0; k < CHAINS; k++)
        for (uint32_t i = c->table[k]; i != NONE; i = c->entries[i].chain_next)
            if (!c->entries[i].children)
                leaf_add(g, p, c, i);
}

static void thin(struct wf_guard *g, struct wf_policy *p)
{
    g->shift++;
    g->seen /= 2;
    g->calm /= 2;
    for (unsigned i = 0; i < WF_GUARD_ORDERS; i++) {
        g->shadows[i].hits /= 2;
        shadow_thin(g, p, &g->shadows[i]);
    }
}

static void capacity_set(struct wf_guard *g)
{
    uint32_t share = g->held >> g->shift;
    g->capacity = g->held == 0 || share > g->size ? g->size : share ? share : 1;
}

/* So that the sample has room for all that is held, or, while nobody ever wanted room, for all that
 * it was shown. */
static void room_make(struct wf_guard *g, struct wf_policy *p)
{
    for (;;) {
        uint32_t most = 0;
        for (unsigned i = 0; i < WF_GUARD_ORDERS; i++)
            most = g->shadows[i].count > most ? g->shadows[i].count : most;
        bool bounded = g->held && g->held >> g->shift <= g->size;
        if (bounded || most + g->run_count <= g->size || g->shift == 31)
            break;
        thin(g, p);
        uint32_t kept = 0;
        for (uint32_t i = 0; i < g->run_count; i++)
            if (sampled(g, g->run[i].key))
                g->run[kept++] = g->run[i];
        g->run_count = kept;
    }
    capacity_set(g);
}

/* --------------------------------------------------------------------------------- the requests */

/* The hits of the run in this cache, up to the first hole. */
static float hits_of(const struct wf_guard *g, const struct shadow *c)
{
    float hits = 0;
    for (uint32_t i = 0; i < g->run_count && find(c, g->run[i].key) != NONE; i++)
        hits += wf_value_cost(g->run[i].cost);
    return hits;
}

static void segment_find(const struct wf_policy *p, const struct sampled *block, struct entry *out)
{
    uint32_t segment = block->refused ? block->of : p->seats[block->of].segment;
    out->segment = segment < OPEN ? segment : NONE;
    out->generation = block->generation;
    if (segment < OPEN && !block->refused)
        out->generation = p->segments[segment].generation;
}

static void entry_used(const struct wf_guard *g, struct wf_policy *p, struct shadow *c,
                       uint32_t entry, const struct sampled *block)
{
    struct entry *e = &c->entries[entry];
    e->stamp = g->stamp;
    e->ticks = p->now;
    e->cost = block->cost;
    e->uses++;
    if (c->order == WF_GUARD_COUNT) {
        e->worth = c->inflation + (float)e->uses;
    } else if (c->order == WF_GUARD_VALUE) {
        segment_find(p, block, e);
        age_remove(c, entry);
        age_add(c, entry, 0);
    }
}

/* As wf_value_ask() would have it here, of a block that is one of so many new ones. */
static bool refuses(const struct wf_guard *g, struct wf_policy *p, const struct shadow *c,
                    const struct sampled *block, uint32_t fresh)
{
    bool room = c->count < g->capacity || !c->heap_count;
    if (c->order != WF_GUARD_VALUE || !p->asked.ever || room ||
        (uint64_t)fresh * ASK_PART <= g->capacity)
        return false;
    struct entry as;
    segment_find(p, block, &as);
    if (as.segment == NONE || p->segments[as.segment].generation != as.generation)
        return false;
    struct wf_value_kind kind = wf_value_kind_of(&p->segments[as.segment]);
    float bar = wf_value_bar(&p->model, &kind) * wf_value_cost(block->cost);
    const struct entry *top = &c->entries[c->heap[0]];
    return wf_value_at_bar(top->worth, top->cost, block->cost) > bar && top->segment != NONE &&
           p->segments[top->segment].generation == top->generation &&
           wf_value_wanted_again(&p->segments[top->segment]);
}

/* Takes the run in.  Its blocks stay out of the heap until they are all there. */
static void shadow_request(struct wf_guard *g, struct wf_policy *p, struct shadow *c)
{
    uint32_t taken = 0, hits = g->run_count, from = g->from ? find(c, g->from) : NONE,
             parent = from;
    if (from != NONE) {
        heap_remove(c, from);
        c->entries[from].stamp = g->stamp;
    }
    for (; taken < g->run_count; taken++) {
        uint32_t entry = find(c, g->run[taken].key);
        if (entry == NONE && hits > taken)
            hits = taken;
        if (entry != NONE)
            heap_remove(c, entry);
        else if (!refuses(g, p, c, &g->run[taken], g->run_count - hits))
            entry = entry_new(g, p, c, g->run[taken].key, parent);
        if (entry == NONE)
            break;
        entry_used(g, p, c, entry, &g->run[taken]);
        g->run[taken].entry = parent = entry;
    }
    for (uint32_t i = 0; i < taken; i++)
        if (!c->entries[g->run[i].entry].children && !c->entries[g->run[i].entry].place)
            leaf_add(g, p, c, g->run[i].entry);
    if (from != NONE && !c->entries[from].children && !c->entries[from].place)
        leaf_add(g, p, c, from);
}

/* Does another order stand now? */
static bool weigh(struct wf_guard *g)
{
    enum wf_guard_order best = g->stands;
    for (unsigned i = 0; i < WF_GUARD_ORDERS; i++)
        if (g->shadows[i].hits > g->shadows[best].hits)
            best = (enum wf_guard_order)i;
    if (best == g->stands || g->calm < CALM * g->capacity)
        return false;
    float more = g->shadows[best].hits - g->shadows[g->stands].hits;
    float chance = sqrtf(g->apart[best + g->stands - 1]);
    if (more <= MARGIN * g->seen + DOUBT * chance)
        return false;
    g->stands = best;
    g->calm = 0;
    return true;
}

void wf_guard_add(struct wf_guard *g, struct wf_policy *p, const struct wf_guard_end *from,
                  struct wf_guard_end *out)
{
    if (!g->run_count) {
        g->request++;
        g->from = from ? from->key : 0;
    }
    for (uint32_t i = 0; i < p->open.count && g->run_count < g->size; i++) {
        uint32_t key = hash_of(p->open.keys[i]);
        if (!sampled(g, key))
            continue;
        g->run[g->run_count++] = (struct sampled){.key = key,
                                                  .of = p->open.slots[i],
                                                  .cost = p->seats[p->open.slots[i]].cost};
    }
    out->key = g->run_count ? g->run[g->run_count - 1].key : g->from;
    out->request = g->request;
}

bool wf_guard_flush_but(struct wf_guard *g, struct wf_policy *p, const struct wf_guard_end *from)
{
    return (!from || from->request != g->request) && wf_guard_flush(g, p);
}

void wf_guard_refused(struct wf_guard *g, const struct wf_policy *p, uint64_t key, uint32_t segment)
{
    uint32_t hash = hash_of(key);
    if (!sampled(g, hash) || g->tail_count == g->size)
        return;
    if (!g->run_count && !g->tail_count) {
        g->request++;
        g->from = 0;
    }
    g->tail[g->tail_count++] = (struct sampled){.key = hash,
                                                .of = segment,
                                                .refused = true,
                                                .generation = p->segments[segment].generation,
                                                .cost = p->cost & (COST_CODES - 1)};
}

bool wf_guard_flush(struct wf_guard *g, struct wf_policy *p)
{
    for (uint32_t i = 0; i < g->tail_count && g->run_count < g->size; i++)
        g->run[g->run_count++] = g->tail[i];
    g->tail_count = 0;
    if (!g->run_count)
        return false;
    if (g->held_most)
        g->held = g->held_most;
    g->held_most = 0;
    room_make(g, p);
    g->stamp++;
    float window = WINDOW * (float)g->capacity, keep = window / (window + (float)g->run_count);
    float hits[WF_GUARD_ORDERS];
    for (unsigned i = 0; i < WF_GUARD_ORDERS; i++) {
        struct shadow *c = &g->shadows[i];
        hits[i] = hits_of(g, c);
        c->hits = c->hits * keep + hits[i];
        for (unsigned k = 0; k < i; k++) {
            float apart = hits[i] - hits[k];
            g->apart[i + k - 1] = g->apart[i + k - 1] * keep + apart * apart;
        }
        shadow_request(g, p, c);
    }
    g->seen *= keep;
    for (uint32_t i = 0; i < g->run_count; i++)
        g->seen += wf_value_cost(g->run[i].cost);
    g->calm += g->run_count;
    g->run_count = 0;
    return weigh(g);
}

void wf_guard_advance(struct wf_guard *g, struct wf_policy *p)
{
    struct shadow *c = &g->shadows[WF_GUARD_VALUE];
    for (unsigned bucket = 0; bucket < WF_VALUE_BUCKETS; bucket++) {
        uint32_t entry;
        while ((entry = c->age[bucket].first) != NONE &&
               p->now - c->entries[entry].ticks >= p->edge[bucket + 1]) {
            age_remove(c, entry);
            age_add(c, entry, bucket + 1);
            bool further = bucket + 1 < WF_VALUE_BUCKETS &&
                           p->now - c->entries[entry].ticks >= p->edge[bucket + 2];
            if (!c->entries[entry].place || further)
                continue;
            c->entries[entry].worth = value_of(g, p, &c->entries[entry]);
            sift(c, c->entries[entry].place - 1);
        }
    }
}

/* A batch that is reserved is not held before it is used, and the pool is no smaller meanwhile. The
 * small caches let nothing go yet, since what they would let go may be the open request's own. */
void wf_guard_full(struct wf_guard *g, uint32_t held)
{
    if (held > g->held_most)
        g->held_most = held;
}

/* -------------------------------------------------------------------------------- all the rest */

enum wf_guard_order wf_guard_stands(const struct wf_guard *guard)
{
    return guard->stands;
}

float wf_guard_inflation(const struct wf_guard *g, uint32_t ticks)
{
    uint32_t most = g->step_count < STEPS ? g->step_count : STEPS;
    float found = 0;
    uint32_t low = g->step_count - most, high = g->step_count; /* the first step after it */
    if (g->step_count > STEPS)
        found = g->steps[low % STEPS].inflation;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((int32_t)(g->steps[middle % STEPS].ticks - ticks) <= 0) {
            found = g->steps[middle % STEPS].inflation;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return found;
}

double wf_guard_hit_rate(const struct wf_guard *g, enum wf_guard_order order)
{
    return g->seen > 0 ? (double)(g->shadows[order].hits / g->seen) : 0;
}

void wf_guard_destroy(struct wf_guard *g)
{
    for (unsigned i = 0; g && i < WF_GUARD_ORDERS; i++) {
        free(g->shadows[i].entries);
        free(g->shadows[i].heap);
        free(g->shadows[i].table);
    }
    if (g) {
        free(g->run);
        free(g->tail);
    }
    free(g);
}

static void *table(size_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

static bool shadow_init(struct shadow *c, uint32_t size)
{
    c->entries = table(size, sizeof *c->entries);
    c->heap = table(size, sizeof *c->heap);
    c->table = table(CHAINS, sizeof *c->table);
    if (!c->entries || !c->heap || !c->table)
        return false;
    memset(c->table, 0xff, CHAINS * sizeof *c->table);
    memset(c->age, 0xff, sizeof c->age);
    for (uint32_t i = 0; i < size; i++)
        c->entries[i].chain_next = i + 1 < size ? i + 1 : NONE;
    return true;
}

struct wf_guard *wf_guard_create(uint32_t slots_max)
{
    struct wf_guard *g = table(1, sizeof *g);
    if (!g)
        return NULL;
    g->size = g->capacity = slots_max < WF_GUARD_SAMPLES ? slots_max : WF_GUARD_SAMPLES;
    g->run = table(g->size, sizeof *g->run);
    g->tail = table(g->size, sizeof *g->tail);
    bool made = g->run && g->tail;
    for (unsigned i = 0; i < WF_GUARD_ORDERS; i++) {
        g->shadows[i].order = (enum wf_guard_order)i;
        made = shadow_init(&g->shadows[i], g->size) && made;
    }
    if (made)
        return g;
    wf_guard_destroy(g);
    return NULL;
}
