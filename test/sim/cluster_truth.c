/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node knows of the others, copy by copy, against what they have: in their stores, and in
 * the memory that they lend.  This looks into the fabric, which tells nobody else that much.
 */
#include "cluster.h"

#include "core/shard.h"
#include "fabric/inner.h"

struct node *node_of_fabric(const void *fabric)
{
    return ((const struct wf_fabric *)fabric)->options.host.context;
}

uint64_t moved_by(const struct node *node)
{
    return node->fabric ? node->fabric->figures.moved : 0;
}

uint64_t corrupt_at(const struct node *node)
{
    uint64_t corrupt = 0;
    for (uint32_t i = 0; node->fabric && i < node->fabric->peer_count; i++)
        corrupt += node->fabric->peers[i].read_corrupt;
    return corrupt;
}

uint32_t serving_of(const struct node *node)
{
    return node->fabric ? node->fabric->serving : 0;
}

uint32_t fetching_of(const struct node *node)
{
    return node->fabric ? WF_FETCHES_MAX - node->fabric->fetch_free_count : 0;
}

void waits_check(const struct node *node)
{
    const struct wf_fabric *f = node->fabric;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        const struct wf_peer_node *peer = &f->peers[i];
        if (!peer->link && (peer->asked || peer->asked_bytes || peer->putting))
            failed(node->cluster, "%s waits for an answer of %s, to which it has no link",
                   node->name, peer->name);
        if (!peer->asked && peer->asked_bytes)
            failed(node->cluster, "%s waits for nothing of %s, and that has %llu bytes", node->name,
                   peer->name, (unsigned long long)peer->asked_bytes);
    }
}

uint64_t lookups_of(const struct node *node)
{
    return node->fabric ? node->fabric->figures.lookups : 0;
}

uint64_t lookup_misses_of(const struct node *node)
{
    return node->fabric ? node->fabric->figures.lookup_misses : 0;
}

struct lent {
    const struct cluster *cluster;
    bool *there; /* by index */
};

static void found(void *to, const struct wf_fabric_event *block)
{
    struct lent *lent = to;
    uint32_t index = index_of(lent->cluster, block->key);
    if (index == lent->cluster->indices)
        failed(lent->cluster, "a block is lent that is none");
    lent->there[index] = true;
}

void lent_of(const struct node *node, bool *out)
{
    const struct cluster *c = node->cluster;
    struct lent lent = {c, out};
    memset(out, 0, c->indices * sizeof *out);
    for (uint32_t domain = 0; node->fabric->lent && domain < DOMAINS; domain++) {
        uint64_t cursor = 0;
        while (wf_lent_each(node->fabric->lent, domain, &cursor, 1024, found, &lent))
            ;
    }
}

/* What there is, of all nodes, with as much about a node as one look at `a` needs. */
struct truth {
    bool *there;              /* [nodes] of one block */
    uint32_t *number_of;      /* [WF_FABRIC_PEERS_MAX] by `a`'s place for it; UINT32_MAX: none */
    bool *lent;               /* [nodes][indices] */
    struct wf_shards *shards; /* NULL: each node knows all */
    uint16_t *holders;        /* [nodes] */
};

static bool is_linked(const struct node *a, const struct node *b, uint32_t *number_of, char *out,
                      size_t out_bytes)
{
    const struct wf_peer_node *peer = wf_peer_find(a->fabric, b->name);
    if (peer && peer->link && peer->registered) {
        number_of[peer->number] = b->number;
        return true;
    }
    (void)snprintf(out, out_bytes, "%s has no link to %s (%s)", a->name, b->name,
                   peer ? peer->why : "it never heard of it");
    return false;
}

/* What it was told last is so: in parts, if it was told that it is there. */
static bool was_told(const struct node *a, uint32_t index, bool any, char *out, size_t out_bytes)
{
    if (a->told[index] == any || (a->cluster->config.parts && any))
        return true;
    (void)snprintf(out, out_bytes, "%s was told last that %s has block %u", a->name,
                   any ? "nobody" : "somebody", index);
    return false;
}

/* When all of some node was forgotten, whoever keeps what was told asks again, as fabric.h has it.
 */
static void ask_again(struct node *a)
{
    uint64_t forgotten = wf_fabric_forgotten(a->fabric);
    for (uint32_t i = 0; i < a->cluster->indices && forgotten != a->forgotten; i++)
        if (a->told[i])
            a->told[i] = wf_fabric_elsewhere(a->fabric, a->cluster->keys[i]);
    a->forgotten = forgotten;
}

/* What `a` knows of one block. */
static bool knows(const struct node *a, uint32_t index, struct truth *t, char *out,
                  size_t out_bytes)
{
    const struct cluster *c = a->cluster;
    const struct wf_fabric *f = a->fabric;
    uint32_t nodes = c->config.nodes;
    bool any = false;
    for (uint32_t b = 0; b < nodes; b++) {
        const struct node *other = &c->nodes[b];
        bool has = t->lent[(size_t)b * c->indices + index] ||
                   (b != a->number && other->blocks[index]);
        t->there[b] = has && other->fabric && may_have(a, index) && may_have(other, index);
        any |= t->there[b];
    }
    if (!was_told(a, index, any, out, out_bytes))
        return false;
    uint32_t count = wf_places_holders(f->places, c->keys[index], WF_PLACES_CLASS_MAX, t->holders,
                                       nodes),
             wrong = nodes;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t peer = f->peer_of[t->holders[i]];
        uint32_t b = peer == WF_PLACE_OWN         ? a->number
                     : peer < WF_FABRIC_PEERS_MAX ? t->number_of[peer]
                                                  : UINT32_MAX;
        if (b == UINT32_MAX)
            continue;
        wrong = t->there[b] ? wrong : b;
        t->there[b] = false;
    }
    bool believes = wrong < nodes, owns = true;
    if (t->shards)
        owns = wf_shards_owns(t->shards, wf_shard_of(c->keys[index]), wf_shard_member(a->name));
    for (uint32_t b = 0; b < nodes && owns && !believes; b++)
        wrong = t->there[b] ? b : wrong;
    if (wrong == nodes)
        return true;
    (void)snprintf(out, out_bytes, "%s %s that %s has block %u (%s)", a->name,
                   believes ? "believes" : "does not know", c->nodes[wrong].name, index,
                   c->nodes[wrong].blocks[index]                 ? "in its store"
                   : t->lent[(size_t)wrong * c->indices + index] ? "lent"
                                                                 : "which it has not");
    return false;
}

static bool truth_is_known(struct node *a, struct truth *t, char *out, size_t out_bytes)
{
    const struct cluster *c = a->cluster;
    ask_again(a);
    memset(t->number_of, 0xff, WF_FABRIC_PEERS_MAX * sizeof *t->number_of);
    for (uint32_t b = 0; b < c->config.nodes; b++)
        if (b != a->number && c->nodes[b].fabric &&
            !is_linked(a, &c->nodes[b], t->number_of, out, out_bytes))
            return false;
    for (uint32_t i = 0; i < c->indices; i++)
        if (!knows(a, i, t, out, out_bytes))
            return false;
    return true;
}

/* Who is there owns them. */
static struct wf_shards *shards_make(const struct cluster *c)
{
    struct wf_shards *shards;
    uint64_t *members = malloc(c->config.nodes * sizeof *members);
    uint32_t count = 0;
    for (uint32_t i = 0; members && i < c->config.nodes; i++)
        if (c->nodes[i].fabric)
            members[count++] = wf_shard_member(c->nodes[i].name);
    if (!members || wf_shards_create(0, &shards) != WEFT_OK ||
        wf_shards_set(shards, members, count) != WEFT_OK)
        failed(c, "%s", wf_last_error());
    free(members);
    return shards;
}

void findable(const struct cluster *c, bool *out)
{
    struct wf_shards *shards = c->config.parts ? shards_make(c) : NULL;
    for (uint32_t i = 0; i < c->indices; i++) {
        uint32_t shard = wf_shard_of(c->keys[i]);
        out[i] = !shards || domain_of(c, i) == 0;
        for (uint32_t b = 0; b < c->config.nodes && !out[i]; b += 2) /* who has both domains */
            out[i] = wf_shards_owns(shards, shard, wf_shard_member(c->nodes[b].name));
    }
    wf_shards_destroy(shards);
}

bool all_know_truth(const struct cluster *c, uint32_t step, char *out, size_t out_bytes)
{
    uint32_t nodes = c->config.nodes;
    struct truth t = {.there = malloc(nodes * sizeof *t.there),
                      .number_of = malloc(WF_FABRIC_PEERS_MAX * sizeof *t.number_of),
                      .lent = malloc((size_t)nodes * c->indices * sizeof *t.lent),
                      .holders = malloc(nodes * sizeof *t.holders)};
    if (!t.there || !t.number_of || !t.lent || !t.holders)
        failed(c, "out of memory");
    for (uint32_t i = 0; i < nodes; i++)
        if (c->nodes[i].fabric)
            lent_of(&c->nodes[i], t.lent + (size_t)i * c->indices);
    bool right = true;
    if (c->config.parts)
        t.shards = shards_make(c);
    for (uint32_t i = 0; right && i < nodes; i += step)
        right = !c->nodes[i].fabric || truth_is_known(&c->nodes[i], &t, out, out_bytes);
    wf_shards_destroy(t.shards);
    free(t.there);
    free(t.number_of);
    free(t.lent);
    free(t.holders);
    return right;
}

/* ----------------------------------------------------------------------------------- archives */

struct wanting {
    const struct cluster *cluster;
    uint32_t *wanted, *least;
};

static void wants(void *to, const struct wf_lent_found *found)
{
    struct wanting *w = to;
    uint32_t index = index_of(w->cluster, found->block.key), *wanted = &w->wanted[index];
    *wanted = found->copies > *wanted ? found->copies : *wanted;
    if (w->least && (!w->least[index] || found->copies < w->least[index]))
        w->least[index] = found->copies;
}

void wanted_add(const struct cluster *c, uint32_t *wanted, uint32_t *least)
{
    struct wanting w = {c, wanted, least};
    for (uint32_t i = 0; i < c->config.nodes; i++) {
        uint64_t cursor = 0;
        const struct wf_fabric *f = c->nodes[i].fabric;
        while (f && f->lent && wf_lent_all(f->lent, &cursor, 1024, wants, &w))
            ;
    }
}

static bool lends(const struct node *node, uint32_t index)
{
    const struct wf_fabric *f = node->fabric;
    return f && f->lent &&
           wf_lent_has(f->lent, domain_of(node->cluster, index), node->cluster->keys[index], NULL);
}

struct looking_for {
    const struct wf_fabric *lender;
    const char *name;
    const uint8_t *key;
    bool found;
};

static void look_for(void *to, const struct wf_lent_found *found)
{
    struct looking_for *l = to;
    l->found |= memcmp(found->block.key, l->key, 32) == 0 &&
                strcmp(l->lender->peers[found->whose].name, l->name) == 0;
}

bool is_lent_for(const struct node *node, uint32_t index)
{
    const struct cluster *c = node->cluster;
    struct looking_for l = {NULL, node->name, c->keys[index], false};
    for (uint32_t i = 0; i < c->config.nodes && !l.found; i++) {
        uint64_t cursor = 0;
        if (!lends(&c->nodes[i], index))
            continue;
        l.lender = c->nodes[i].fabric;
        while (wf_lent_all(l.lender->lent, &cursor, 1024, look_for, &l))
            ;
    }
    return l.found;
}

uint32_t copies_lent(const struct cluster *c, uint32_t index)
{
    uint32_t copies = 0;
    for (uint32_t i = 0; i < c->config.nodes; i++)
        copies += lends(&c->nodes[i], index);
    return copies;
}

bool has_block(const struct node *node, uint32_t index)
{
    return node->fabric && (node->blocks[index] || lends(node, index));
}

bool others_have(const struct node *node, uint32_t index)
{
    const struct cluster *c = node->cluster;
    bool any = false;
    for (uint32_t i = 0; i < c->config.nodes && !any; i++)
        any = i != node->number && has_block(&c->nodes[i], index) &&
              may_have(&c->nodes[i], index) && may_have(node, index);
    return any;
}

bool is_found(const struct node *node, uint32_t index)
{
    return others_have(node, index) || (lends(node, index) && may_have(node, index));
}

/* One that is nearly full takes no more of who has his due. */
bool have_room(const struct cluster *c, const struct node *node, uint32_t index)
{
    bool room = false;
    for (uint32_t i = 0; i < c->config.nodes && !room; i++) {
        const struct node *other = &c->nodes[i];
        struct wf_lent_stats stats;
        if (other == node || !other->fabric || !other->fabric->lent || !may_have(other, index))
            continue;
        wf_lent_stats(other->fabric->lent, &stats);
        room = !has_block(other, index) && stats.used_bytes < stats.bytes / 4 * 3;
    }
    return room;
}

/* Who lends has it, in that memory or in its own. */
static bool is_short(const struct cluster *c, uint32_t index, uint32_t wanted, uint32_t *out_copies)
{
    *out_copies = 0;
    for (uint32_t i = 0; i < c->config.nodes; i++)
        *out_copies += c->nodes[i].fabric && c->nodes[i].fabric->lent &&
                       has_block(&c->nodes[i], index);
    return *out_copies < wanted && have_room(c, NULL, index);
}

bool all_are_copied(const struct cluster *c, const uint32_t *wanted, uint64_t *out_blocks,
                    char *out, size_t out_bytes)
{
    uint32_t copies;
    *out_blocks = 0;
    for (uint32_t i = 0; i < c->indices; i++) {
        *out_blocks += wanted[i] > 1;
        if (wanted[i] < 2 || !is_short(c, i, wanted[i], &copies))
            continue;
        (void)snprintf(out, out_bytes, "there are %u copies of block %u, and %u should be", copies,
                       i, wanted[i]);
        return false;
    }
    return true;
}

bool is_drained(const struct node *node)
{
    return node->fabric->figures.drained;
}
