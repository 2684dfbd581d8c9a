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

static void lent_of(const struct node *node, bool *out)
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

/* What `a` knows of one block. */
static bool knows(const struct node *a, uint32_t index, struct truth *t, char *out,
                  size_t out_bytes)
{
    const struct cluster *c = a->cluster;
    const struct wf_fabric *f = a->fabric;
    uint32_t nodes = c->config.nodes;
    for (uint32_t b = 0; b < nodes; b++) {
        const struct node *other = &c->nodes[b];
        bool shared = domain_of(c, index) == 0 || (a->has_both && other->has_both);
        t->there[b] = b != a->number && other->fabric && shared &&
                      (other->blocks[index] || t->lent[(size_t)b * c->indices + index]);
    }
    uint32_t count = wf_places_holders(f->places, c->keys[index], WF_PLACES_CLASS_MAX, t->holders,
                                       nodes),
             wrong = nodes;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t peer = f->peer_of[t->holders[i]];
        uint32_t b = peer < WF_FABRIC_PEERS_MAX ? t->number_of[peer] : UINT32_MAX;
        if (b == UINT32_MAX || t->there[b])
            t->there[b == UINT32_MAX ? a->number : b] = false;
        else
            wrong = b;
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

static bool truth_is_known(const struct node *a, struct truth *t, char *out, size_t out_bytes)
{
    const struct cluster *c = a->cluster;
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
static void shards_make(const struct cluster *c, struct truth *t)
{
    uint64_t *members = malloc(c->config.nodes * sizeof *members);
    uint32_t count = 0;
    for (uint32_t i = 0; members && i < c->config.nodes; i++)
        if (c->nodes[i].fabric)
            members[count++] = wf_shard_member(c->nodes[i].name);
    if (!members || wf_shards_create(0, &t->shards) != WEFT_OK ||
        wf_shards_set(t->shards, members, count) != WEFT_OK)
        failed(c, "%s", wf_last_error());
    free(members);
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
        shards_make(c, &t);
    for (uint32_t i = 0; right && i < nodes; i += step)
        right = truth_is_known(&c->nodes[i], &t, out, out_bytes);
    wf_shards_destroy(t.shards);
    free(t.there);
    free(t.number_of);
    free(t.lent);
    free(t.holders);
    return right;
}

/* ----------------------------------------------------------------------------------- archives */

struct archive {
    const struct cluster *cluster;
    bool *lent;       /* [nodes][indices] */
    uint32_t *wanted; /* [indices]: copies that there are to be; 0: it is not lent */
};

static void wants(void *to, const struct wf_lent_found *found)
{
    struct archive *archive = to;
    uint32_t index = index_of(archive->cluster, found->block.key);
    uint32_t *wanted = &archive->wanted[index];
    *wanted = found->copies > *wanted ? found->copies : *wanted;
}

/* Who lends has it, or could: one that is nearly full takes no more of who has his due. */
static bool is_short(const struct archive *a, uint32_t index, uint32_t *out_copies)
{
    const struct cluster *c = a->cluster;
    bool room = false;
    *out_copies = 0;
    for (uint32_t i = 0; i < c->config.nodes; i++) {
        const struct node *node = &c->nodes[i];
        struct wf_lent_stats stats;
        if (!node->fabric || !node->fabric->lent || (domain_of(c, index) == 1 && !node->has_both))
            continue;
        bool has = node->blocks[index] || a->lent[(size_t)i * c->indices + index];
        *out_copies += has;
        wf_lent_stats(node->fabric->lent, &stats);
        room |= !has && stats.used_bytes < stats.bytes / 4 * 3;
    }
    return room && *out_copies < a->wanted[index];
}

bool all_are_copied(const struct cluster *c, uint64_t *out_blocks, char *out, size_t out_bytes)
{
    uint32_t nodes = c->config.nodes, copies;
    struct archive a = {.cluster = c,
                        .lent = malloc((size_t)nodes * c->indices * sizeof *a.lent),
                        .wanted = calloc(c->indices, sizeof *a.wanted)};
    bool right = true;
    if (!a.lent || !a.wanted)
        failed(c, "out of memory");
    memset(a.lent, 0, (size_t)nodes * c->indices * sizeof *a.lent);
    for (uint32_t i = 0; i < nodes; i++) {
        uint64_t cursor = 0;
        if (!c->nodes[i].fabric)
            continue;
        lent_of(&c->nodes[i], a.lent + (size_t)i * c->indices);
        while (c->nodes[i].fabric->lent &&
               wf_lent_all(c->nodes[i].fabric->lent, &cursor, 1024, wants, &a))
            ;
    }
    *out_blocks = 0;
    for (uint32_t i = 0; right && i < c->indices; i++) {
        *out_blocks += a.wanted[i] > 1;
        right = a.wanted[i] < 2 || !is_short(&a, i, &copies);
        if (!right)
            (void)snprintf(out, out_bytes, "there are %u copies of block %u, and %u should be",
                           copies, i, a.wanted[i]);
    }
    free(a.lent);
    free(a.wanted);
    return right;
}
