/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node has.  Chains are kept without holes: a block comes when its parent is here, and the
 * last one goes first.
 */
#include "cluster.h"

#define EACH_STEP 64u

void keys_make(struct cluster *c)
{
    for (uint32_t i = 0; i < c->indices; i++) {
        uint64_t state = c->config.seed * 0x2545f4914f6cdd1du + i;
        for (uint32_t w = 0; w < 4; w++) {
            uint64_t word = wf_random(&state);
            memcpy(c->keys[i] + 8 * (size_t)w, &word, 8);
        }
        memcpy(c->keys[i] + 28, &i, 4);
    }
}

uint32_t index_of(const struct cluster *c, const uint8_t key[32])
{
    uint32_t index;
    memcpy(&index, key + 28, 4);
    return index < c->indices && !memcmp(c->keys[index], key, 32) ? index : c->indices;
}

uint64_t bytes_of(const struct cluster *c, uint32_t index)
{
    return (1 + c->keys[index][1] % 4) * (uint64_t)PART + (c->keys[index][2] % 2) * 8;
}

uint32_t domain_of(const struct cluster *c, uint32_t index)
{
    (void)c;
    return index / DEPTH % 4 == 3 ? 1 : 0;
}

bool may_have(const struct node *node, uint32_t index)
{
    return domain_of(node->cluster, index) == 0 || node->has_both;
}

struct wf_fabric_event event_of(const struct cluster *c, uint32_t index,
                                enum wf_fabric_event_kind kind)
{
    struct wf_fabric_event event = {.kind = (uint8_t)kind,
                                    .domain = (uint8_t)domain_of(c, index),
                                    .depth = index % DEPTH,
                                    .bytes = bytes_of(c, index)};
    memcpy(event.key, c->keys[index], 32);
    if (event.depth)
        memcpy(event.parent, c->keys[index - 1], 32);
    return event;
}

static uint64_t word_of(const struct cluster *c, uint32_t index, uint64_t at)
{
    uint64_t state;
    memcpy(&state, c->keys[index], 8);
    state += at * 0x9e3779b97f4a7c15u;
    return wf_random(&state);
}

void content_fill(const struct cluster *c, uint32_t index, uint8_t *out)
{
    uint64_t words = bytes_of(c, index) / 8;
    for (uint64_t i = 0; i < words; i++) {
        uint64_t word = word_of(c, index, i);
        memcpy(out + 8 * i, &word, 8);
    }
}

bool content_right(const struct cluster *c, uint32_t index, const uint8_t *data, uint64_t from,
                   uint64_t bytes)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes / 8; i++) {
        uint64_t word;
        memcpy(&word, data + 8 * i, 8);
        wrong |= word ^ word_of(c, index, from / 8 + i);
    }
    return !wrong;
}

void poison_and_free(uint8_t *data, uint64_t bytes)
{
    memset(data, 0xdd, bytes);
    free(data);
}

/* --------------------------------------------------------------------------------------- store */

void store_init(struct node *node)
{
    const struct cluster *c = node->cluster;
    node->blocks = calloc(c->indices, sizeof(struct block *));
    node->have = calloc(c->config.chains, 1);
    node->changed_ns = calloc(c->indices, sizeof *node->changed_ns);
    node->told = calloc(c->indices, sizeof *node->told);
    node->lent_out = calloc(c->indices, sizeof *node->lent_out);
    if (!node->blocks || !node->have || !node->changed_ns || !node->told || !node->lent_out)
        failed(c, "out of memory");
}

static void block_free(struct block *block)
{
    block->cluster->blocks--;
    poison_and_free(block->data, block->bytes);
    free(block);
}

void block_let_go(struct block *block)
{
    if (--block->holds == 0 && block->gone)
        block_free(block);
}

void store_clear(struct node *node)
{
    const struct cluster *c = node->cluster;
    for (uint32_t i = 0; i < c->indices; i++) {
        if (!node->blocks[i])
            continue;
        if (node->blocks[i]->holds)
            failed(c, "%s is dead, and its block %u is held", node->name, i);
        block_free(node->blocks[i]);
        node->blocks[i] = NULL;
    }
    memset(node->have, 0, c->config.chains);
    memset(node->told, 0, c->indices * sizeof *node->told);
    node->forgotten = 0;
    node->count = 0;
}

static void tell(struct node *node, uint32_t index, enum wf_fabric_event_kind kind)
{
    struct wf_fabric_event event = event_of(node->cluster, index, kind);
    node->changed_ns[index] = now(node->cluster);
    wf_fabric_tell(node->fabric, &event);
    node_wake(node);
}

void store_add(struct node *node, uint32_t index)
{
    struct cluster *c = node->cluster;
    if (node->blocks[index] || node->have[index / DEPTH] != index % DEPTH)
        return; /* it came another way, or its parent went */
    while (node->count >= c->config.node_blocks)
        store_evict(node);
    if (node->have[index / DEPTH] != index % DEPTH)
        return;
    struct block *block = calloc(1, sizeof *block);
    uint8_t *data = malloc(bytes_of(c, index));
    if (!block || !data)
        failed(c, "out of memory");
    *block =
        (struct block){.cluster = c, .index = index, .bytes = bytes_of(c, index), .data = data};
    c->blocks++;
    content_fill(c, index, data);
    node->blocks[index] = block;
    node->have[index / DEPTH]++;
    node->count++;
    tell(node, index, WF_FABRIC_HERE);
}

void store_evict(struct node *node)
{
    struct cluster *c = node->cluster;
    uint32_t chain = (uint32_t)chance(c, c->config.chains);
    if (!node->count)
        return;
    while (!node->have[chain])
        chain = (chain + 1) % c->config.chains;
    uint32_t index = chain * DEPTH + node->have[chain] - 1;
    struct block *block = node->blocks[index];
    node->blocks[index] = NULL;
    node->have[chain]--;
    node->count--;
    c->counts.evicted++;
    tell(node, index, WF_FABRIC_GONE);
    block->gone = true;
    block->holds++;
    if (chance(c, 4) == 0)
        lend_out(node, block);
    block_let_go(block);
}

/* ----------------------------------------------------------------------- as the fabric's host */

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *node = context;
    struct cluster *c = node->cluster;
    uint32_t index = index_of(c, key);
    if (index == c->indices || domain_of(c, index) != domain || !node->blocks[index] ||
        bytes != bytes_of(c, index))
        return WEFT_MISS;
    if (!c->proving && chance(c, 100) == 0)
        return WEFT_E_BUSY;
    struct block *block = node->blocks[index];
    block->holds++;
    *out = (struct wf_fabric_held){.data = block->data, .bytes = block->bytes};
    out->user[0] = block;
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)context;
    block_let_go(held->user[0]);
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *node = context;
    const struct cluster *c = node->cluster;
    uint64_t end = *cursor + EACH_STEP < c->indices ? *cursor + EACH_STEP : c->indices;
    for (; *cursor < end; ++*cursor) {
        uint32_t index = (uint32_t)*cursor;
        if (!node->blocks[index] || domain_of(c, index) != domain)
            continue;
        struct wf_fabric_event event = event_of(c, index, WF_FABRIC_HERE);
        found(to, &event);
    }
    return end < c->indices;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    struct node *node = context;
    const struct cluster *c = node->cluster;
    uint32_t index = index_of(c, block->key);
    (void)from;
    if (index == c->indices || block->domain != domain_of(c, index) || !may_have(node, index))
        failed(c, "%s is told of a block that it can not know", node->name);
    node->told[index] = block->kind == WF_FABRIC_HERE;
    return true;
}

static uint32_t part_bytes(uint64_t bytes)
{
    (void)bytes;
    return PART;
}

struct wf_fabric_host store_host(struct node *node)
{
    return (struct wf_fabric_host){.context = node,
                                   .hold = hold,
                                   .let_go = let_go,
                                   .each = each,
                                   .news = news,
                                   .part_bytes = part_bytes};
}
