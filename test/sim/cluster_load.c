/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests.  A node wants a chain: it fetches what others have of it, computes what nobody has, and
 * keeps both.  Few chains are wanted by many, and many by few.
 */
#include "cluster.h"

/* A chain that is wanted: over when all its errands are. */
struct get {
    struct node *node;
    uint32_t chain, pending;
    bool computes;
    bool came[DEPTH];
};

static struct errand *errand_new(struct node *node, uint32_t index)
{
    struct errand *e = calloc(1, sizeof *e);
    if (!e)
        failed(node->cluster, "out of memory");
    e->node = node;
    e->index = index;
    e->began_ns = now(node->cluster);
    e->next = node->errands;
    e->back = &node->errands;
    if (e->next)
        e->next->back = &e->next;
    node->errands = e;
    return e;
}

static void errand_free(struct errand *e)
{
    *e->back = e->next;
    if (e->next)
        e->next->back = e->back;
    if (e->data)
        poison_and_free(e->data, e->data_bytes);
    memset(e, 0xdd, sizeof *e);
    free(e);
}

/* What came is kept as far as it reaches, and the rest computed, perhaps. */
static void get_over(struct get *get)
{
    struct node *node = get->node;
    struct cluster *c = node->cluster;
    uint32_t d = 0;
    for (; d < DEPTH && node->fabric; d++) {
        uint32_t index = get->chain * DEPTH + d;
        if (node->blocks[index])
            continue;
        if (!get->came[d] && !get->computes)
            break;
        c->counts.computed += !get->came[d];
        store_add(node, index);
    }
    free(get);
}

static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct errand *e = fetch->user;
    struct cluster *c = e->node->cluster;
    struct get *get = e->get;
    switch (status) {
    case WEFT_OK: c->counts.hits++; break;
    case WEFT_MISS: c->counts.misses++; break;
    case WEFT_E_CORRUPT: c->counts.corrupt++; break;
    default: c->counts.timeouts++;
    }
    if (status == WEFT_OK && !content_right(c, e->index, e->data, e->from, e->data_bytes)) {
        c->counts.wrong++;
        failed(c, "%s was given wrong bytes of block %u", e->node->name, e->index);
    }
    if (get)
        get->came[e->index % DEPTH] = status == WEFT_OK;
    if (e->came)
        *e->came = status;
    errand_free(e);
    if (get && --get->pending == 0)
        get_over(get);
}

/* All of a block, or, for nobody's use, some parts of it. */
static void fetch(struct node *node, uint32_t index, struct get *get, enum weft_status *came)
{
    struct cluster *c = node->cluster;
    struct errand *e = errand_new(node, index);
    uint64_t bytes = bytes_of(c, index);
    uint32_t parts = (uint32_t)((bytes + PART - 1) / PART), first = 0, count = 0;
    e->get = get;
    e->came = came;
    if (!get && !came && chance(c, 2)) {
        first = (uint32_t)chance(c, parts);
        count = 1 + (uint32_t)chance(c, parts - first);
    }
    uint64_t end = count ? (uint64_t)(first + count) * PART : bytes;
    e->from = (uint64_t)first * PART;
    e->data_bytes = (end < bytes ? end : bytes) - e->from;
    e->data = malloc(e->data_bytes);
    if (!e->data)
        failed(c, "out of memory");
    e->fetch = (struct wf_fabric_fetch){.domain = domain_of(c, index),
                                        .bytes = bytes,
                                        .part_bytes = PART,
                                        .first_part = first,
                                        .part_count = count,
                                        .data = e->data,
                                        .done = fetched,
                                        .user = e};
    memcpy(e->fetch.key, c->keys[index], 32);
    c->counts.fetches++;
    if (get)
        get->pending++;
    wf_fabric_fetch(node->fabric, &e->fetch);
    node_wake(node);
}

void fetch_proof(struct node *node, uint32_t index, enum weft_status *came)
{
    *came = WEFT_PENDING;
    fetch(node, index, NULL, came);
}

/* In parts: who has the chain is asked, as by a prefetch, and nobody waits for that. */
static void look_for(struct node *node, uint32_t chain)
{
    struct cluster *c = node->cluster;
    struct wf_fabric_event events[DEPTH];
    for (uint32_t d = 0; d < DEPTH; d++)
        events[d] = event_of(c, chain * DEPTH + d, WF_FABRIC_HERE);
    enum weft_status status = wf_fabric_look(node->fabric, events, DEPTH);
    if (status != WEFT_OK && status != WEFT_E_BUSY)
        failed(c, "%s cannot look for a chain: %s", node->name, wf_last_error());
    node_wake(node);
}

static void want(struct node *node)
{
    struct cluster *c = node->cluster;
    double part = wf_random_part(&c->random);
    uint32_t chain = (uint32_t)((double)c->config.chains * part * part * part);
    if (!may_have(node, chain * DEPTH))
        return;
    if (c->config.parts && chance(c, 4) == 0)
        look_for(node, chain);
    struct get *get = calloc(1, sizeof *get);
    if (!get)
        failed(c, "out of memory");
    get->node = node;
    get->chain = chain;
    get->computes = chance(c, 4) != 0;
    get->pending = 1; /* this one, who asks */
    c->counts.gets++;
    uint32_t depth = 1 + (uint32_t)chance(c, DEPTH);
    for (uint32_t d = 0; d < depth; d++) {
        uint32_t index = chain * DEPTH + d;
        if (!node->blocks[index] && (wf_fabric_elsewhere(node->fabric, c->keys[index]) ||
                                     c->config.parts || chance(c, 20) == 0))
            fetch(node, index, get, NULL);
    }
    if (--get->pending == 0)
        get_over(get);
}

/* ---------------------------------------------------------------------------------------- lend */

/* What was said to be kept is, unless some lender has let go of something since, or has died. */
static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    struct errand *e = store->user;
    struct cluster *c = e->node->cluster;
    bool sure = status == WEFT_OK && e->losses == lent_losses(c) && !dropped_lately(c, e->index);
    c->counts.stored += status == WEFT_OK;
    c->counts.stores_seen += sure;
    if (!c->config.parts && (status == WEFT_OK || status == WEFT_EXISTS)) /* nobody says so again */
        e->node->told[e->index] = wf_fabric_elsewhere(e->node->fabric, c->keys[e->index]);
    if (sure && !copies_lent(c, e->index))
        failed(c, "%s was told that block %u is kept, and nobody has it", e->node->name, e->index);
    block_let_go(e->block);
    errand_free(e);
}

void lend_out(struct node *node, struct block *block)
{
    struct cluster *c = node->cluster;
    struct errand *e = errand_new(node, block->index);
    block->holds++;
    e->is_store = true;
    e->block = block;
    e->losses = lent_losses(c);
    node->lent_out[block->index] = true;
    e->store = (struct wf_fabric_store){.block = event_of(c, block->index, WF_FABRIC_HERE),
                                        .part_bytes = PART,
                                        .data = block->data,
                                        .done = stored,
                                        .user = e};
    c->counts.stores++;
    wf_fabric_store(node->fabric, &e->store);
    node_wake(node);
}

/* ---------------------------------------------------------------------------------------- work */

/* Often one that it has lent out. */
static void drop_one(struct node *node, uint32_t index)
{
    struct cluster *c = node->cluster;
    bool aimed = chance(c, 4) == 0;
    for (uint32_t i = 0; aimed && i < c->indices && !node->lent_out[index]; i++)
        index = (index + 1) % c->indices;
    c->counts.drops++;
    /* A node that was killed, or was not told that it is there, has it lent all the same. */
    if (node->lent_out[index] || is_lent_for(node, index))
        c->dropped[index] = now(c);
    wf_fabric_drop(node->fabric, c->keys[index]);
    node_wake(node);
}

static void cancel_one(struct node *node)
{
    struct errand *e = node->errands;
    if (!e || e->is_store)
        return;
    node->cluster->counts.cancels++;
    wf_fabric_cancel(node->fabric, &e->fetch);
    node_wake(node);
}

static void work(struct wf_vtime_event *event)
{
    struct node *node = (struct node *)((char *)event - offsetof(struct node, work));
    struct cluster *c = node->cluster;
    wf_vtime_at(c->time, event, now(c) + 1 + chance(c, 2 * c->config.request_ns));
    if (!node->fabric || node->paused || !c->working)
        return;
    uint32_t index = (uint32_t)chance(c, c->indices);
    switch (chance(c, 32)) {
    case 0: store_evict(node); break;
    case 1: cancel_one(node); break;
    case 2: drop_one(node, index); break;
    case 3:
    case 4:
        if (may_have(node, index))
            fetch(node, index, NULL, NULL);
        break;
    default: want(node);
    }
}

void work_begin(struct node *node)
{
    struct cluster *c = node->cluster;
    node->work.happens = work;
    wf_vtime_at(c->time, &node->work, now(c) + chance(c, 2 * c->config.request_ns));
}

void errands_check(struct node *node)
{
    struct cluster *c = node->cluster;
    for (const struct errand *e = node->errands; e; e = e->next) {
        uint64_t since = e->began_ns > node->resumed_ns ? e->began_ns : node->resumed_ns;
        if (node->paused || now(c) - since < ENDS_NS)
            continue;
        c->counts.hangs++;
        failed(c, "%s waits for %s block %u since %.3f s (%u tried)", node->name,
               e->is_store ? "the keeping of" : "", e->index,
               (double)(now(c) - e->began_ns) / (double)SECOND,
               e->is_store ? e->store.tried_count : e->fetch.tried_count);
    }
}
