/* SPDX-License-Identifier: Apache-2.0
 *
 * What other hosts have on a tier that they share with this one, and what other nodes of the fabric
 * have: in the directory like blocks of our own, so that clients match it and loads read it, and
 * yet nobody's here to move or to drop.
 *
 * Another host writes a block below when it must, the end of a chain first; so a block may be there
 * long before its parent is, or while its parent is in that host's DRAM alone.  Such a block waits
 * here, and is tried again and again, until its parent is below or in this host's DRAM.  What is
 * remembered is a hint: a read finds out whether the block is there still.
 *
 * A fence makes a dead host's blocks this host's own.  They are found on our own tier then, and
 * gone from this one; what is told as gone meanwhile is kept until the first is done, so that
 * nothing that extends such a block is dropped in between.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/below.h"
#include "daemon/telemetry.h"
#include "fabric/fabric.h"
#include "sys/memory.h"

#define WAITING_MAX 65536u
#define TRIES 1024u        /* a tick */
#define FORGET_LOOKS 4096u /* more than that are not searched for one that went */

#define SWEEPS 1024u /* blocks a tick whose nodes may have gone */

#define FENCE_NS 8000000000u
#define ALIVE_MS 5000u /* who was silent for less is not dead by just any word */
#define LATER_MAX (1u << 20)

struct fence {
    struct wf_mover_job job; /* first member */
    struct wf_lower *lower;
    uint32_t client; /* who asked; 0: nobody */
    uint64_t sequence;
    uint32_t host;
    bool busy, done;
    enum weft_status status;
};

struct wf_others {
    struct fence fence;
    struct wf_tier_block *later; /* gone, when the fence is done */
    uint32_t later_count, later_capacity;
    struct wf_tier_block *waiting; /* for their parents, or for room in the directory */
    uint32_t count, at, oldest;
    uint64_t forgotten; /* of other nodes: how often all of one was, at the last look, */
    uint32_t swept;     /* and a cursor in the directory; 0: it has seen all */
};

enum weft_status wf_others_create(struct wf_lower *lower, struct wf_lower *own)
{
    struct wf_others *others = wf_calloc(1, sizeof *others, "what other hosts have");
    if (!others)
        return WEFT_E_NO_MEMORY;
    lower->others = others;
    lower->own = own;
    others->waiting = wf_calloc(WAITING_MAX, sizeof *others->waiting, "what other hosts have");
    return others->waiting ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_others_destroy(struct wf_lower *lower)
{
    if (lower->others) {
        free(lower->others->waiting);
        free(lower->others->later);
    }
    free(lower->others);
    lower->others = NULL;
}

/* Blocks of our own are not to want for entries: an eighth is theirs alone. */
static bool has_room(const struct wf_below *below)
{
    uint32_t most = below->node->config.below_max;
    return wf_directory_entries(below->directory) < most - most / 8;
}

/* False: not now. */
static bool take_up(struct wf_lower *lower, const struct wf_tier_block *block)
{
    if (!has_room(lower->below))
        return false;
    enum weft_status status = wf_lower_enter(lower, block);
    return status != WEFT_E_PARENT && status != WEFT_E_LIMIT;
}

/* The oldest one gives way. */
static void wait(struct wf_others *others, const struct wf_tier_block *block)
{
    if (others->count < WAITING_MAX)
        others->waiting[others->count++] = *block;
    else
        others->waiting[others->oldest++ % WAITING_MAX] = *block;
}

/* Has another node a copy that the block's domain takes? */
static bool is_elsewhere(const struct wf_node *node, uint32_t domain, const uint8_t key[32],
                         enum weft_quality *out_best)
{
    *out_best = wf_fabric_best(node->fabric, key);
    return *out_best != WEFT_QUALITY_DEFAULT &&
           *out_best <= wf_domain_quality(node->domains[domain].config);
}

bool wf_others_keep(struct wf_lower *lower, const struct wf_directory_dropped *dropped)
{
    const struct wf_node *node = lower->below->node;
    enum weft_quality best;
    struct wf_tier_block block = {.bytes = dropped->bytes,
                                  .part_bytes = wf_below_part_bytes(dropped->bytes),
                                  .depth = dropped->depth};
    if (!node->fabric || !is_elsewhere(node, dropped->domain, dropped->key, &best))
        return false;
    block.plain_quality = best;
    memcpy(block.key, dropped->key, 32);
    if (dropped->parent)
        memcpy(block.parent, dropped->parent, 32);
    memcpy(block.format, node->domains[dropped->domain].tag, 32);
    wait(lower->others, &block);
    return true;
}

/* What is there is so exact now. */
static void is_now(struct wf_lower *lower, uint32_t entry, uint32_t quality)
{
    struct wf_directory *directory = lower->below->directory;
    struct wf_directory_block known, parent;
    wf_directory_read(directory, entry, &known);
    struct wf_tier_block block = {.bytes = known.bytes,
                                  .part_bytes = wf_below_part_bytes(known.bytes),
                                  .depth = known.depth,
                                  .plain_quality = quality};
    memcpy(block.key, known.key, 32);
    memcpy(block.format, lower->below->node->domains[known.domain].tag, 32);
    if (known.parent != WF_DIRECTORY_NONE) {
        wf_directory_read(directory, known.parent, &parent);
        memcpy(block.parent, parent.key, 32);
    }
    if (known.tiers >> lower->number & 1)
        (void)wf_lower_enter(lower, &block);
}

void wf_others_found(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    lower->opened = true;
    for (uint32_t i = 0; i < count; i++)
        if (!blocks[i].bytes) {
            uint32_t entry = wf_directory_find(lower->below->directory, blocks[i].key);
            if (entry != WF_DIRECTORY_NONE)
                is_now(lower, entry, blocks[i].plain_quality);
        } else if (!take_up(lower, &blocks[i]))
            wait(lower->others, &blocks[i]);
}

static void wait_no_more(struct wf_others *others, const uint8_t key[32])
{
    for (uint32_t i = 0; others->count <= FORGET_LOOKS && i < others->count; i++)
        if (memcmp(others->waiting[i].key, key, 32) == 0) {
            others->waiting[i] = others->waiting[--others->count];
            return;
        }
}

static bool keep_for_later(struct wf_others *others, const struct wf_tier_block *blocks,
                           uint32_t count)
{
    if (others->later_count + count > others->later_capacity) {
        uint32_t capacity = 2 * (others->later_capacity + count);
        struct wf_tier_block *grown = capacity > LATER_MAX
                                          ? NULL
                                          : wf_realloc(others->later, capacity * sizeof *grown,
                                                       "blocks of a host that is fenced");
        if (!grown)
            return false;
        others->later = grown;
        others->later_capacity = capacity;
    }
    memcpy(others->later + others->later_count, blocks, count * sizeof *blocks);
    others->later_count += count;
    return true;
}

static void lose(struct wf_lower *lower, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_below *below = lower->below;
    below->dropping = "parent";
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = wf_directory_find(below->directory, blocks[i].key);
        wait_no_more(lower->others, blocks[i].key);
        if (entry == WF_DIRECTORY_NONE)
            continue;
        wf_directory_lose(below->directory, entry, lower->number);
        lower->lost++;
    }
}

void wf_others_gone(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    if (!lower->others->fence.busy || !keep_for_later(lower->others, blocks, count))
        lose(lower, blocks, count);
}

void wf_others_lost(struct wf_lower *lower)
{
    lower->others->count = lower->others->at = 0;
}

static void try_again(struct wf_lower *lower)
{
    struct wf_others *others = lower->others;
    for (uint32_t i = 0; i < TRIES && i < others->count; i++) {
        if (others->at >= others->count)
            others->at = 0;
        struct wf_tier_block block = others->waiting[others->at];
        if (take_up(lower, &block))
            others->waiting[others->at] = others->waiting[--others->count];
        else
            others->at++;
    }
}

/* Only a node that went had it. */
static void went_with_node(struct wf_lower *lower, const struct wf_directory_block *block)
{
    struct wf_block_move lost = {.what = "missing",
                                 .reason = "node",
                                 .tier = lower->config->name,
                                 .bytes = block->bytes};
    if (!block->in_dram && block->tiers == 1u << lower->number)
        wf_telemetry_moved(&lower->below->node->domains[block->domain], block->key, &lost);
}

/* Another node went, and what only it had is nowhere now: it need not say so. */
static void sweep(struct wf_lower *lower)
{
    struct wf_below *below = lower->below;
    struct wf_others *others = lower->others;
    struct wf_fabric *fabric = below->node->fabric;
    uint64_t forgotten = fabric ? wf_fabric_forgotten(fabric) : 0;
    if (!fabric || (others->forgotten == forgotten && others->swept == 0))
        return;
    if (others->swept == 0) /* else the next round is for that: each comes to its end */
        others->forgotten = forgotten;
    below->dropping = "parent";
    for (uint32_t i = 0; i < SWEEPS; i++) {
        struct wf_directory_block block;
        uint32_t entry = wf_directory_next(below->directory, lower->number, &others->swept);
        if (entry == WF_DIRECTORY_NONE)
            return; /* a whole round */
        wf_directory_read(below->directory, entry, &block);
        enum weft_quality best;
        if (is_elsewhere(below->node, block.domain, block.key, &best)) {
            if (best != wf_directory_quality(&block, lower->number))
                is_now(lower, entry, best);
            continue;
        }
        went_with_node(lower, &block);
        below->node_went = true;
        wf_directory_lose(below->directory, entry, lower->number);
        below->node_went = false;
        lower->lost++;
    }
}

void wf_others_tick(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++)
        if (below->tiers[i].others && wf_lower_usable(&below->tiers[i])) {
            try_again(&below->tiers[i]);
            if (below->tiers[i].config->peers)
                sweep(&below->tiers[i]);
        }
}

/* It is told of again when its extent changes. */
bool wf_others_yield(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[i];
        uint32_t entry = lower->others ? wf_directory_victim(below->directory, lower->number,
                                                             WF_DIRECTORY_DOMAINS_ALL)
                                       : WF_DIRECTORY_NONE;
        if (entry == WF_DIRECTORY_NONE)
            continue;
        below->dropping = "parent";
        wf_directory_lose(below->directory, entry, lower->number);
        lower->evicted++;
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------------------------------- fence */

static void fenced(struct wf_mover_job *job)
{
    struct fence *fence = (struct fence *)job;
    struct wf_lower *lower = fence->lower;
    struct wf_others *others = lower->others;
    struct wf_below *below = lower->below;
    fence->busy = false;
    fence->done = true;
    fence->status = job->job.request.status;
    if (below->stopping)
        return;
    wf_below_orphans_settle(below);
    lose(lower, others->later, others->later_count);
    free(others->later);
    others->later = NULL;
    others->later_count = others->later_capacity = 0;
    if (fence->status == WEFT_OK)
        wf_telemetry_event(below->node, NULL, "host_fenced",
                           "host %u of tier %s was declared dead; what it had there is this "
                           "node's",
                           fence->host, lower->own->config->name);
    wf_clients_unpark(below->node);
}

static struct wf_lower *shared_tier(struct wf_below *below, const char *name)
{
    for (uint32_t i = 0; below && i < below->count; i++)
        if (below->tiers[i].own && strcmp(below->tiers[i].own->config->name, name) == 0)
            return &below->tiers[i];
    return NULL;
}

/* May that host be called dead? */
static enum weft_status judge(struct wf_lower *lower, const struct wf_fence *request)
{
    static struct wf_tier_host hosts[WF_TIER_HOSTS_MAX];
    const char *name = lower->own->config->name;
    uint32_t count = wf_mover_hosts(lower->mover, hosts, WF_TIER_HOSTS_MAX);
    if (request->host == lower->own->config->host)
        return wf_fail(WEFT_E_INVALID, "host %u of tier %s is this node itself; name another",
                       request->host, name);
    for (uint32_t i = 0; i < count; i++) {
        const struct wf_tier_host *h = &hosts[i];
        if (h->host != request->host)
            continue;
        if (h->here && !h->fenced && h->silent_ms < ALIVE_MS && !(request->flags & WF_FENCE_FORCE))
            return wf_fail(WEFT_E_BUSY,
                           "host %u of tier %s gave a sign of life %llu ms ago; stop it first, or "
                           "wait %u s; --force takes its memory from under it",
                           request->host, name, (unsigned long long)h->silent_ms, ALIVE_MS / 1000);
        return WEFT_OK;
    }
    return wf_fail(WEFT_E_NOT_FOUND, "host %u was never on tier %s; weft ls tiers shows who was",
                   request->host, name);
}

static enum weft_status begin(struct wf_client *client, struct wf_lower *lower,
                              const struct wf_fence *request)
{
    struct fence *fence = &lower->others->fence;
    if (fence->busy)
        return wf_fail(WEFT_E_BUSY, "another fence on tier %s is under way; try again",
                       request->tier);
    enum weft_status status = judge(lower, request);
    if (status != WEFT_OK)
        return status;
    memset(fence, 0, sizeof *fence);
    fence->lower = lower;
    fence->client = client->id;
    fence->sequence = request->message.sequence;
    fence->host = request->host;
    fence->job.kind = WF_MOVE_FENCE;
    fence->job.done = fenced;
    fence->job.job.class = WF_TIER_WAITED;
    fence->job.job.request.block.depth = request->host;
    status = wf_mover_submit(lower->own->mover, &fence->job);
    fence->busy = status == WEFT_OK;
    return status == WEFT_PENDING
               ? wf_fail(WEFT_E_BUSY, "tier %s has no room for another job; try again",
                         request->tier)
               : status;
}

/* What the mover's log has more of. */
static enum weft_status ended(const struct fence *fence, const char *tier)
{
    if (fence->status == WEFT_E_TIMEOUT)
        return wf_fail(WEFT_E_BUSY,
                       "a third host of tier %s holds its lock and does not go on; fence that one "
                       "too if it is dead, or try again; the node's log names it",
                       tier);
    return fence->status == WEFT_OK
               ? WEFT_OK
               : wf_fail(fence->status,
                         "host %u of tier %s could not be fenced; see the node's log", fence->host,
                         tier);
}

void wf_handle_fence(struct wf_client *client, const struct wf_fence *request)
{
    struct wf_node *node = client->node;
    enum weft_status status = WEFT_OK;
    bool owner = client->peer.uid == 0 || client->peer.uid == node->owner_uid;
    bool named = memchr(request->tier, 0, sizeof request->tier) != NULL;
    struct wf_lower *lower = named ? shared_tier(node->below, request->tier) : NULL;
    if (!owner)
        status = wf_fail(WEFT_E_DENIED, "only the node's own user may call another host dead");
    else if (!lower)
        status = wf_fail(WEFT_E_NOT_FOUND,
                         "the node has no tier '%.31s' that hosts share; weft ls tiers lists them",
                         named ? request->tier : "");
    struct fence *fence = lower ? &lower->others->fence : NULL;
    bool ours = status == WEFT_OK && fence->client == client->id &&
                fence->sequence == request->message.sequence;
    if (status == WEFT_OK && !ours)
        status = begin(client, lower, request);
    if (status == WEFT_OK && !fence->done) {
        if (wf_client_park(client, &request->message, FENCE_NS))
            return;
        status = wf_fail(WEFT_E_BUSY, "tier %s takes its time; the fence goes on", request->tier);
    } else if (status == WEFT_OK) {
        fence->client = 0;
        status = ended(fence, request->tier);
    }
    if (status == WEFT_OK)
        wf_answer(client, &request->message, WEFT_OK, sizeof(struct wf_message), NULL, 0);
    else
        wf_answer_failure(client, &request->message, status);
}
