/* SPDX-License-Identifier: Apache-2.0
 *
 * What lenders keep, looked at every second, whatever goes wrong meanwhile.
 *
 * Each block there is one of the cluster's, of a domain that its lender has, with all its bytes and
 * with their sums: what came was compared, and nobody writes there afterwards.  And none goes from
 * there by itself: its owner dropped it, or its lender counts it as one that had to make room, or
 * as one that another lender has now; which that one has, unless it made room or died since.
 */
#include "cluster.h"

#include "base/sum.h"
#include "fabric/inner.h"

#define DROPS_NS (60 * SECOND) /* a word that a block is not wanted may take so long */

void lent_init(struct node *node)
{
    struct cluster *c = node->cluster;
    if (node->number % 5)
        return;
    node->keeping.there = calloc(c->indices, sizeof *node->keeping.there);
    if (!node->keeping.there)
        failed(c, "out of memory");
}

/* By those who live. */
static void count(const struct cluster *c, uint64_t *out_evicted, uint64_t *out_given)
{
    *out_evicted = *out_given = 0;
    for (uint32_t i = 0; i < c->config.nodes; i += 5) {
        struct wf_lent_stats stats;
        if (!c->nodes[i].fabric)
            continue;
        wf_lent_stats(c->nodes[i].fabric->lent, &stats);
        *out_evicted += stats.evicted;
        *out_given += stats.given;
    }
}

uint64_t lent_evicted(const struct cluster *c)
{
    uint64_t evicted, given;
    count(c, &evicted, &given);
    return evicted;
}

uint64_t lent_losses(const struct cluster *c)
{
    uint64_t evicted, given;
    count(c, &evicted, &given);
    return evicted + given + c->deaths + c->losses_of_dead;
}

void lent_died(const struct node *node)
{
    struct cluster *c = node->cluster;
    struct wf_lent_stats stats;
    if (node->number % 5 || !node->fabric)
        return;
    wf_lent_stats(node->fabric->lent, &stats);
    c->losses_of_dead += stats.evicted + stats.given;
    c->deaths++;
}

bool dropped_lately(const struct cluster *c, uint32_t index)
{
    return c->dropped[index] && now(c) - c->dropped[index] < DROPS_NS;
}

static bool sums_right(const struct wf_lent_block *block)
{
    bool right = true;
    for (uint64_t at = 0, part = 0; at < block->bytes; at += block->part_bytes, part++) {
        uint64_t left = block->bytes - at;
        uint64_t bytes = left < block->part_bytes ? left : block->part_bytes;
        right &= wf_sum64(block->data + at, bytes) == block->sums[part];
    }
    return right;
}

/* Each byte of it. */
static void look(const struct node *node, uint32_t index)
{
    struct cluster *c = node->cluster;
    struct wf_lent_block block;
    uint32_t entry = wf_lent_keep(node->fabric->lent, domain_of(c, index), c->keys[index], &block);
    if (entry == WF_LENT_NONE)
        failed(c, "%s lists block %u among what it lends, and has it not", node->name, index);
    bool right = may_have(node, index) && block.bytes == bytes_of(c, index) &&
                 content_right(c, index, block.data, 0, block.bytes);
    if (!right || !sums_right(&block)) {
        c->counts.wrong++;
        failed(c, "%s lends block %u, and %s wrong", node->name, index,
               right ? "its sums are" : "it is");
    }
    wf_lent_let_go(node->fabric->lent, entry);
    c->counts.looks++;
}

/* What went from there since the last look, and not because it was dropped: it is counted there.
 * *last: one of these. */
static uint32_t went_from(const struct node *node, const bool *there, uint32_t *last)
{
    const struct cluster *c = node->cluster;
    uint32_t went = 0;
    for (uint32_t i = 0; i < c->indices; i++) {
        if (node->keeping.there[i] && !there[i] && !dropped_lately(c, i)) {
            *last = i;
            went++;
        }
    }
    return went;
}

/* Nobody had to make room, and no lender died: what one gave another has. */
static void given_are_there(const struct node *node, const bool *there)
{
    struct cluster *c = node->cluster;
    for (uint32_t i = 0; i < c->indices; i++)
        if (node->keeping.there[i] && !there[i] && !dropped_lately(c, i) && !copies_lent(c, i))
            failed(c, "%s gave block %u to another lender, and nobody has it", node->name, i);
}

void lent_watch(struct cluster *c)
{
    uint64_t evicted = lent_evicted(c);
    bool *there = malloc(c->indices * sizeof *there);
    if (!there)
        failed(c, "out of memory");
    bool still = evicted == c->evicted_seen && c->deaths == c->deaths_seen;
    for (uint32_t i = 0; i < c->config.nodes; i += 5) {
        struct node *node = &c->nodes[i];
        struct keeping *k = &node->keeping;
        struct wf_lent_stats stats;
        uint32_t last = 0;
        if (!node->fabric)
            continue;
        wf_lent_stats(node->fabric->lent, &stats);
        lent_of(node, there);
        uint32_t went = k->lives == node->lives ? went_from(node, there, &last) : 0;
        if (went > stats.evicted - k->evicted + stats.given - k->given)
            failed(c,
                   "%u blocks went from what %s lends, like %u; it let go of %llu, and gave %llu",
                   went, node->name, last, (unsigned long long)(stats.evicted - k->evicted),
                   (unsigned long long)(stats.given - k->given));
        if (went && still)
            given_are_there(node, there);
        for (uint32_t index = 0; index < c->indices; index++)
            if (there[index])
                look(node, index);
        memcpy(k->there, there, c->indices * sizeof *there);
        k->lives = node->lives;
        k->evicted = stats.evicted;
        k->given = stats.given;
    }
    c->evicted_seen = evicted;
    c->deaths_seen = c->deaths;
    free(there);
}
