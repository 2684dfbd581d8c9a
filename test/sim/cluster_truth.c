/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node knows of the others, copy by copy, against what they have: in their stores, and in
 * the memory that they lend.  This looks into the fabric, which tells nobody else that much.
 */
#include "cluster.h"

#include "fabric/inner.h"

struct node *node_of_fabric(const void *fabric)
{
    return ((const struct wf_fabric *)fabric)->options.host.context;
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

static const struct wf_peer_node *peer_of(const struct node *a, const struct node *b)
{
    for (uint32_t i = 0; i < a->fabric->peer_count; i++)
        if (a->fabric->peers[i].used && !strcmp(a->fabric->peers[i].name, b->name))
            return &a->fabric->peers[i];
    return NULL;
}

/* What `a` knows of `b`. */
static bool knows(const struct node *a, const struct node *b, const bool *lent, char *out,
                  size_t out_bytes)
{
    const struct cluster *c = a->cluster;
    const struct wf_peer_node *peer = peer_of(a, b);
    if (!peer || !peer->link || !peer->registered) {
        (void)snprintf(out, out_bytes, "%s has no link to %s (%s)", a->name, b->name,
                       peer ? peer->why : "it never heard of it");
        return false;
    }
    for (uint32_t i = 0; i < c->indices; i++) {
        bool shared = domain_of(c, i) == 0 || (a->has_both && b->has_both);
        bool there = shared && (b->blocks[i] || lent[i]);
        bool known = peer->place != WF_PLACE_NONE &&
                     wf_places_holds(a->fabric->places, c->keys[i], (uint16_t)peer->place);
        if (there == known)
            continue;
        (void)snprintf(out, out_bytes, "%s %s that %s has block %u (%s)", a->name,
                       known ? "believes" : "does not know", b->name, i,
                       b->blocks[i] ? "in its store"
                       : lent[i]    ? "lent"
                                    : "which it has not");
        return false;
    }
    return true;
}

bool knows_truth(const struct node *a, char *out, size_t out_bytes)
{
    const struct cluster *c = a->cluster;
    bool *lent = malloc(c->indices * sizeof *lent), right = true;
    if (!lent)
        failed(c, "out of memory");
    for (uint32_t i = 0; right && i < c->config.nodes; i++) {
        const struct node *b = &c->nodes[i];
        if (a == b || !b->fabric)
            continue;
        lent_of(b, lent);
        right = knows(a, b, lent, out, out_bytes);
    }
    free(lent);
    return right;
}
