/* SPDX-License-Identifier: Apache-2.0
 *
 * When nothing goes wrong any more, and nobody wants anything: what is promised for then is tried,
 * and each of these ends the program where it does not hold.
 */
#include "cluster.h"

#define QUIET_NS (60 * SECOND) /* what is being moved meanwhile is held */
#define READS 2000u            /* by chance; and up to so many of blocks that are lent */
#define AT_ONCE 256u
#define TRIES 5u /* of a block that moves from one lender to another at that moment */
#define DRAIN_NS (200 * SECOND)

/* --------------------------------------------------------------------------------------- quiet */

static bool is_quiet(const struct cluster *c, char *out, size_t out_bytes)
{
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < c->config.nodes; i++) {
        const struct node *node = &c->nodes[i];
        const char *what = node->errands ? "waits for a block" : NULL;
        for (uint32_t index = 0; index < c->indices; index++)
            if (node->blocks[index] && node->blocks[index]->holds)
                what = "holds a block";
        what = serving_of(node) ? "sends a block" : what;
        what = fetching_of(node) ? "asks for a block" : what;
        if (what) {
            (void)snprintf(out, out_bytes, "%s still %s, and nobody wants anything", node->name,
                           what);
            return false;
        }
        blocks += node->count;
    }
    (void)snprintf(out, out_bytes, "%llu blocks that went are held",
                   (unsigned long long)(c->blocks - blocks));
    return blocks == c->blocks;
}

void prove_quiet(struct cluster *c)
{
    char why[256] = "";
    uint64_t began = now(c);
    while (!is_quiet(c, why, sizeof why)) {
        if (now(c) - began > QUIET_NS)
            failed(c, "%.0f s after the last request %s", (double)QUIET_NS / (double)SECOND, why);
        run(c, 100 * MS);
    }
}

/* --------------------------------------------------------------------------------------- reads */

struct read {
    uint32_t node, index;
    enum weft_status came;
    bool right;
};

static uint32_t reads_choose(struct cluster *c, struct read *reads)
{
    uint32_t count = 0;
    bool *found = malloc(c->indices * sizeof *found);
    if (!found)
        failed(c, "out of memory");
    findable(c, found);
    for (uint32_t i = 0; i < READS + c->indices && count < 2 * READS; i++) {
        uint32_t index = i < READS ? (uint32_t)chance(c, c->indices) : i - READS;
        if (found[index] && (i < READS || copies_lent(c, index)))
            reads[count++] = (struct read){.node = (uint32_t)chance(c, c->config.nodes),
                                           .index = index};
    }
    free(found);
    return count;
}

/* How many were not as they are to be. */
static uint32_t reads_try(struct cluster *c, struct read *reads, uint32_t count)
{
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct node *node = &c->nodes[reads[i].node];
        if (reads[i].right)
            continue;
        if (!may_have(node, reads[i].index) || has_block(node, reads[i].index))
            reads[i].right = true; /* it has it itself, or may not */
        else
            fetch_proof(node, reads[i].index, &reads[i].came);
    }
    bool pending = true;
    while (pending) { /* or one hangs, which the watchdog tells */
        run(c, 5 * MS);
        pending = false;
        for (uint32_t i = 0; i < count; i++)
            pending |= !reads[i].right && reads[i].came == WEFT_PENDING;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (reads[i].right)
            continue;
        bool there = is_found(&c->nodes[reads[i].node], reads[i].index);
        reads[i].right = reads[i].came == (there ? WEFT_OK : WEFT_MISS);
        c->counts.reads += reads[i].right;
        wrong += !reads[i].right;
    }
    return wrong;
}

void prove_reads(struct cluster *c)
{
    struct read *reads = calloc(2 * (size_t)READS, sizeof *reads);
    if (!reads)
        failed(c, "out of memory");
    uint32_t count = reads_choose(c, reads);
    c->proving = true;
    for (uint32_t tries = 0, wrong = count; wrong && tries < TRIES; tries++) {
        if (tries)
            run(c, SECOND);
        wrong = 0;
        for (uint32_t i = 0; i < count; i += AT_ONCE)
            wrong += reads_try(c, reads + i, count - i < AT_ONCE ? count - i : AT_ONCE);
    }
    c->proving = false;
    for (uint32_t i = 0; i < count; i++) {
        const struct node *node = &c->nodes[reads[i].node];
        if (!reads[i].right)
            failed(c, "%s wants block %u, which %s has, and that ends in status %d", node->name,
                   reads[i].index, is_found(node, reads[i].index) ? "somebody" : "nobody",
                   (int)reads[i].came);
    }
    free(reads);
}

/* -------------------------------------------------------------------------------------- drains */

/* Any block for which there was room elsewhere is elsewhere. */
static uint32_t kept_elsewhere(struct cluster *c, const struct node *node, const bool *had,
                               bool may_lack_room)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->indices; i++) {
        if (!had[i])
            continue;
        if (others_have(node, i))
            count++;
        else if (!may_lack_room || have_room(c, node, i))
            failed(c, "%s was drained, and block %u, which it had, is nowhere else", node->name, i);
    }
    return count;
}

static void drain(struct cluster *c, struct node *node)
{
    bool *had = calloc(c->indices, sizeof *had), room = false;
    uint64_t began = now(c);
    if (!had)
        failed(c, "out of memory");
    wf_fabric_drain(node->fabric, true);
    node_wake(node);
    while (!is_drained(node) && now(c) - began < DRAIN_NS)
        run(c, SECOND);
    for (uint32_t i = 0; i < c->indices; i++) {
        had[i] = has_block(node, i);
        room |= had[i] && !others_have(node, i) && have_room(c, node, i);
    }
    if (!is_drained(node) && room)
        failed(c, "%s drains for %.0f s, others have room, and it is not drained", node->name,
               (double)DRAIN_NS / (double)SECOND);
    c->counts.undrained += !is_drained(node);
    c->counts.drained += kept_elsewhere(c, node, had, !is_drained(node));
    free(had);
    node_stop(node, false, true);
    (void)settle(c);
    node_start(node);
    (void)settle(c);
}

static bool has_any(struct cluster *c, const struct node *node)
{
    for (uint32_t i = 0; i < c->indices; i++)
        if (has_block(node, i))
            return true;
    return false;
}

/* Of a thousand nodes that were asked for little many have nothing that a drain would move. */
void prove_drains(struct cluster *c)
{
    uint32_t lender = (uint32_t)chance(c, c->config.nodes) / 10 * 10;
    for (uint32_t n = 0; n < c->config.nodes && !has_any(c, &c->nodes[lender]); n += 10)
        lender = lender + 10 < c->config.nodes ? lender + 10 : 0;
    drain(c, &c->nodes[lender]);
    if (c->config.nodes <= 200)
        drain(c, &c->nodes[(lender + 1 + chance(c, 4)) % c->config.nodes]);
}

/* ------------------------------------------------------------------------------------ archives */

static struct node *greatest_lender(struct cluster *c)
{
    struct node *greatest = &c->nodes[0];
    uint32_t most = 0;
    bool *there = calloc(c->indices, sizeof *there);
    if (!there)
        failed(c, "out of memory");
    for (uint32_t i = 0; i < c->config.nodes; i += 5) {
        uint32_t count = 0;
        lent_of(&c->nodes[i], there);
        for (uint32_t index = 0; index < c->indices; index++)
            count += there[index];
        if (count > most) {
            greatest = &c->nodes[i];
            most = count;
        }
    }
    free(there);
    return greatest;
}

/* Where lenders are full no copy can be asked for: most of what they have is dropped. */
static void make_room(struct cluster *c)
{
    for (uint32_t i = 0; i < c->indices; i++) {
        for (uint32_t n = 0; i % 3 && n < c->config.nodes; n++) {
            struct node *node = &c->nodes[n];
            if (c->config.nodes > 200 && !node->lent_out[i])
                continue; /* it is none that was moved, most likely */
            c->dropped[i] = now(c);
            wf_fabric_drop(node->fabric, c->keys[i]);
            node_wake(node);
        }
        if (i % 16 == 0)
            run(c, 10 * MS);
    }
    (void)settle(c);
}

void prove_archives(struct cluster *c)
{
    make_room(c);
    struct node *node = greatest_lender(c);
    uint32_t *wanted = calloc(c->indices, sizeof *wanted);
    uint32_t *least = calloc(c->indices, sizeof *least);
    uint32_t *copies = calloc(c->indices, sizeof *copies);
    uint64_t blocks;
    if (!wanted || !least || !copies)
        failed(c, "out of memory");
    wanted_add(c, wanted, least);
    for (uint32_t i = 0; i < c->indices; i++) {
        copies[i] = copies_lent(c, i);
        wanted[i] = wanted[i] == least[i] ? wanted[i] : 0; /* or nobody may know who is left */
    }
    node_stop(node, true, false);
    uint64_t evicted = lent_evicted(c);
    (void)settle(c);
    bool pushed_out = lent_evicted(c) != evicted;
    for (uint32_t i = 0; i < c->indices; i++) {
        bool there = copies_lent(c, i) > 0;
        if (copies[i] > 1 && !there && !pushed_out)
            failed(c,
                   "a lost archive: of block %u there were %u copies, %s died, and now there is "
                   "none",
                   i, copies[i], node->name);
        c->counts.survived += copies[i] > 1 && there;
        c->counts.pushed_out += copies[i] > 1 && !there;
    }
    (void)archives_settle(c, wanted, &blocks);
    node_start(node);
    (void)settle(c);
    free(wanted);
    free(least);
    free(copies);
}
