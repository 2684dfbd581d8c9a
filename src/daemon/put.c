/* SPDX-License-Identifier: Apache-2.0
 *
 * RESERVE, COMMIT, ABORT.
 *
 * Where a domain trusts its clients (`writes: direct`) they have written into the pool when they
 * commit, and committing is metadata alone.  Where it does not (`writes: copied`) the payload lies
 * in the client's staging segment: workers copy it, take its checksum from the copy, and the owner
 * publishes what matches the checksum that the client gave.  Until then the client waits for its
 * answer, and sends nothing else.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/size.h"
#include "base/sum.h"
#include "daemon/below.h"
#include "daemon/described.h"
#include "daemon/fabric.h"
#include "daemon/node.h"
#include "daemon/push.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define WAIT_NS 3000000000u /* for blocks to be written below, or to come from there */

static const struct wf_format_entry *format_of(struct wf_client *client, uint32_t format)
{
    struct wf_node *node = client->node;
    if (format >= node->format_count || node->formats[format].domain != client->domain->id)
        return NULL;
    return &node->formats[format];
}

/* Of what it puts. */
static enum weft_quality quality_of(const struct wf_reserve *request)
{
    return request->flags & WEFT_LOST_ECONOMY       ? WEFT_ECONOMY
           : request->flags & WEFT_LOST_TRANSPARENT ? WEFT_TRANSPARENT
                                                    : WEFT_LOSSLESS;
}

/* One key of a request.  Returns what the next key's parent is to be. */
static void reserve_one(struct wf_client *client, const struct wf_reserve *request, uint32_t i,
                        const struct wf_format_entry *format, float bar, struct wf_parent *parent,
                        struct wf_reserved *out)
{
    struct wf_store *store = &client->domain->store;
    uint32_t slot = WF_SLOT_NONE;
    *out = (struct wf_reserved){.entry = UINT32_MAX};
    enum weft_status status = wf_store_reserve(store, client->id, &client->reserved,
                                               request->keys[i], (uint32_t)format->block_bytes,
                                               parent, bar, &slot);
    out->status = status;
    out->slot = slot;
    if (status == WEFT_EXISTS) {
        out->generation = wf_store_generation(store, slot);
        wf_pins_place(&client->pins, &client->place_cursor, slot, out->generation, &out->entry);
        client->domain->deduplicated++;
        client->domain->deduplicated_bytes += format->block_bytes;
        client->domain->used_again[slot / 8] |= (uint8_t)(1u << (slot % 8));
    } else if (status == WEFT_OK) {
        out->generation = wf_store_generation(store, slot);
        out->offset = atomic_load_explicit(&store->index.desc[slot].offset, memory_order_relaxed);
    } else if (status == WEFT_FULL) {
        client->domain->fulls++;
    }
    if (status == WEFT_OK) { /* what is said of a slot was of the block before */
        wf_store_worsen(store, slot, quality_of(request));
        client->domain->format_of[slot] = (uint16_t)(request->format + 1);
        client->domain->profile_of[slot] = 0;
        client->domain->used_again[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
        client->domain->key_taken[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
        client->domain->refused[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
    }
    if ((request->flags & WEFT_CHAINED) && (status == WEFT_OK || status == WEFT_EXISTS)) {
        uint64_t word = atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed);
        *parent = (struct wf_parent){.slot = slot, .depth = wf_word_depth(word)};
    }
}

/* What of a request's blocks is new, and what may go for it. */
struct wanted {
    struct wf_store_ask ask;
    uint32_t first; /* `count` of the request: nothing was asked */
};

/* How much may go for this key.  Where it goes below, nothing is lost; and of keys that are no
 * chain's, each is a request of its own. */
static float bar_for(struct wf_client *client, const struct wf_reserve *request, uint32_t i,
                     const struct wf_parent *parent, struct wanted *wanted)
{
    struct wf_store *store = &client->domain->store;
    bool insists = request->flags & WEFT_INSIST;
    bool loses = (request->flags & WEFT_CHAINED) && !insists && !client->node->below;
    if (loses && wanted->first == request->count &&
        wf_store_find(store, request->keys[i]) == WF_SLOT_NONE) {
        wanted->first = i;
        wf_store_ask(store, client->id, &request->keys[i], request->count - i, parent->slot,
                     &wanted->ask);
    }
    return i < wanted->first ? WF_POLICY_ANY : wanted->ask.bars[i - wanted->first];
}

static void full_tell(struct wf_client *client, const struct wf_reserve *request,
                      const struct wf_reserve_answer *answer, uint64_t bytes, bool worth_more)
{
    char size[32], text[WF_SHARES_WHY_MAX + 64],
        why[WF_SHARES_WHY_MAX] = "what would have to go was wanted again before, and is "
                                 "worth more than half as much";
    struct wf_block_refusal refusal = {.bytes = bytes, .text = text};
    for (uint32_t i = 0; i < request->count; i++) {
        if (answer->blocks[i].status == WEFT_OK || answer->blocks[i].status == WEFT_EXISTS)
            continue;
        refusal.first = refusal.blocks++ ? refusal.first : request->keys[i];
        refusal.last = request->keys[i];
    }
    if (!worth_more)
        wf_shares_why(client->domain, bytes, why);
    refusal.reason = worth_more ? "worth" : "room";
    snprintf(text, sizeof text, "no room for a block of %s: %s",
             wf_size_format(bytes, size, sizeof size), why);
    wf_telemetry_refused(client->domain, &refusal);
}

/* Undo what was reserved and held for the first blocks of a request. */
static void give_back(struct wf_client *client, const struct wf_reserved *blocks, uint32_t count)
{
    while (count-- > 0) {
        if (blocks[count].status == WEFT_OK)
            wf_store_abort(&client->domain->store, &client->reserved, blocks[count].slot);
        else if (blocks[count].entry != UINT32_MAX)
            wf_pins_clear(&client->pins, blocks[count].entry);
    }
}

/* May this be done, and on which parent?  WEFT_PENDING: later; the client waits. */
static enum weft_status reserve_check(struct wf_client *client, const struct wf_reserve *request,
                                      struct wf_parent *parent)
{
    const struct wf_message *to = &request->message;
    struct wf_node *node = client->node;
    struct wf_store *store = &client->domain->store;
    uint32_t count = request->count;
    if (!format_of(client, request->format))
        return wf_fail(WEFT_E_INVALID, "format %u is not registered in this domain",
                       request->format);
    if (count == 0 || count > WEFT_BATCH_MAX ||
        to->bytes < sizeof *request + (uint64_t)count * sizeof request->keys[0])
        return wf_fail(WEFT_E_INVALID, "a reserve of %u keys in %u bytes; give 1 to %u keys", count,
                       to->bytes, WEFT_BATCH_MAX);
    if (request->flags & ~(uint32_t)WF_RESERVE_FLAGS)
        return wf_fail(WEFT_E_INVALID,
                       "reserve flags 0x%x; those that there are (weft_reserve_flags) end at 0x%x",
                       request->flags, WF_RESERVE_FLAGS);
    enum weft_quality quality = quality_of(request), least = node->formats[request->format].quality;
    if (quality > least)
        return wf_fail(WEFT_E_INVALID,
                       "blocks that were stored at quality %s cannot be put into a format of "
                       "quality %s; compute them anew, or let the domain's `quality` allow it",
                       weft_quality_name(quality), weft_quality_name(least));
    if (client->reserved.count + count > node->config.reserved_max)
        return wf_fail(WEFT_E_LIMIT,
                       "%u blocks are reserved and %u more are asked for, of %u that a client "
                       "may hold; commit or abort some, or raise limits.reserved",
                       client->reserved.count, count, node->config.reserved_max);
    switch (request->parent_kind) {
    case WF_PARENT_NONE: return WEFT_OK;
    case WF_PARENT_KEY:
        /* What is on its way up is worth waiting for. */
        if (node->below &&
            wf_load_slot(node->below, client->domain, request->parent) != WF_SLOT_NONE &&
            wf_client_park(client, to, WAIT_NS))
            return WEFT_PENDING;
        return wf_store_parent_by_key(store, request->parent, parent);
    case WF_PARENT_SLOT:
        return wf_store_parent_by_slot(store, client->id, request->parent_slot,
                                       request->parent_generation, parent);
    default: return wf_fail(WEFT_E_INVALID, "parent kind %u", request->parent_kind);
    }
}

void wf_handle_reserve(struct wf_client *client, const struct wf_reserve *request)
{
    const struct wf_message *to = &request->message;
    struct wf_node *node = client->node;
    const struct wf_format_entry *format = format_of(client, request->format);
    uint32_t count = request->count;
    struct wf_parent parent = {.slot = WF_SLOT_NONE};
    enum weft_status status = reserve_check(client, request, &parent);
    if (status == WEFT_PENDING)
        return;
    if (status != WEFT_OK) {
        wf_answer_failure(client, to, status);
        return;
    }
    node->busy_ns = wf_now_ns();
    wf_node_touches_drain(node, client->domain);
    struct wf_reserve_answer *answer = (struct wf_reserve_answer *)(void *)node->answer;
    answer->count = count;
    answer->reserved = 0;
    struct wanted wanted = {.first = count};
    uint64_t worth_more = client->domain->store.worth_more, fulls = client->domain->fulls;
    bool full = false;
    for (uint32_t i = 0; i < count; i++) {
        /* A chain with a hole in it would be of no use: after the first refusal all others are
         * refused. */
        if (full && (request->flags & WEFT_CHAINED)) {
            answer->blocks[i] = (struct wf_reserved){.status = WEFT_FULL, .entry = UINT32_MAX};
            client->domain->fulls++;
            continue;
        }
        float bar = bar_for(client, request, i, &parent, &wanted);
        reserve_one(client, request, i, format, bar, &parent, &answer->blocks[i]);
        full |= answer->blocks[i].status != WEFT_OK && answer->blocks[i].status != WEFT_EXISTS;
        bool refused = worth_more != client->domain->store.worth_more; /* and waits for nothing */
        if (answer->blocks[i].status == WEFT_FULL && !refused && wf_node_busy(node) &&
            wf_client_park(client, to, WAIT_NS)) {
            give_back(client, answer->blocks, i);
            client->domain->fulls--;
            return;
        }
        if (answer->blocks[i].status == WEFT_FULL && i >= wanted.first)
            wf_store_refused(&client->domain->store, &wanted.ask, i - wanted.first);
    }
    if (node->below)
        wf_demote_ahead(node->below);
    bool for_worth = worth_more != client->domain->store.worth_more;
    if (for_worth)
        client->domain->fulls_for_worth += client->domain->fulls - fulls;
    if (full)
        full_tell(client, request, answer, format->block_bytes, for_worth);
    WF_CRASH("put.reserve.before_answer");
    wf_answer(client, to, WEFT_OK, sizeof *answer + count * sizeof answer->blocks[0], NULL, 0);
}

/* -------------------------------------------------------------------------------------- commit */

struct copy_block {
    struct wf_commit_block asked;
    uint64_t offset, bytes;
    enum weft_status status;
};

/* A commit on its way.  For direct writes it lives on the owner's stack of calls, for copied ones
 * in a job. */
struct commit_job {
    struct wf_job job;
    struct wf_client *client;
    struct wf_message to;
    uint64_t started_ns;
    uint64_t session;
    bool has_tip;
    uint8_t tip[32];
    uint32_t count;
    struct copy_block blocks[WEFT_BATCH_MAX];
};

static void publish(struct commit_job *commit)
{
    struct wf_client *client = commit->client;
    struct wf_domain *domain = client->domain;
    struct wf_store *store = &domain->store;
    struct wf_commit_answer *answer = (struct wf_commit_answer *)(void *)client->node->answer;
    answer->count = commit->count;
    answer->reserved = 0;
    for (uint32_t i = 0; i < commit->count; i++) {
        struct copy_block *block = &commit->blocks[i];
        uint32_t slot = block->asked.slot;
        if (!wf_store_is_reserved(store, client->id, slot, block->asked.generation)) {
            answer->status[i] = wf_fail(WEFT_E_INVALID, "slot %u is not reserved by this client",
                                        slot);
            continue;
        }
        if (block->status != WEFT_OK) {
            wf_store_abort(store, &client->reserved, slot);
            /* WEFT_PENDING: the node stops and never came to copy it. */
            answer->status[i] = block->status == WEFT_PENDING ? WEFT_E_NODE : block->status;
            domain->corrupt += block->status == WEFT_E_CORRUPT;
            continue;
        }
        atomic_store_explicit(&store->index.desc[slot].checksum, block->asked.checksum,
                              memory_order_relaxed);
        enum weft_status status = wf_store_commit(store, &client->reserved, &slot);
        answer->status[i] = status;
        wf_push_settled(client, block->asked.slot, block->asked.generation,
                        status == WEFT_OK || status == WEFT_EXISTS);
        if (status == WEFT_OK) {
            uint8_t key[32];
            wf_desc_key_read(&store->index.desc[slot], key);
            wf_below_entered(domain, key, false);
            wf_described_changed(domain, key);
            wf_node_fabric_here(domain, slot);
            domain->puts++;
            domain->put_bytes += atomic_load_explicit(&store->index.desc[slot].bytes,
                                                      memory_order_relaxed);
        } else if (status == WEFT_EXISTS) {
            domain->deduplicated++;
            domain->deduplicated_bytes += atomic_load_explicit(&store->index.desc[slot].bytes,
                                                               memory_order_relaxed);
        }
    }
    if (commit->session && commit->has_tip)
        wf_session_advance(client, commit->session, commit->tip);
    WF_CRASH("put.commit.before_answer");
    wf_answer(client, &commit->to, WEFT_OK,
              sizeof *answer + commit->count * sizeof answer->status[0], NULL, 0);
}

static void copy_run(struct wf_job *job)
{
    struct commit_job *commit = (struct commit_job *)job;
    const char *staging = commit->client->staging.memory;
    char *pool = commit->client->domain->pool.memory;
    for (uint32_t i = 0; i < commit->count; i++) {
        struct copy_block *block = &commit->blocks[i];
        if (block->status != WEFT_PENDING)
            continue;
        /* The client may go on writing there; what counts is what the copy has. */
        memcpy(pool + block->offset, staging + block->asked.staging, block->bytes);
        bool right = wf_sum64(pool + block->offset, block->bytes) == block->asked.checksum;
        block->status = right ? WEFT_OK : WEFT_E_CORRUPT;
    }
}

static void copy_done(struct wf_job *job)
{
    struct commit_job *commit = (struct commit_job *)job;
    struct wf_client *client = commit->client;
    WF_CRASH("put.copied");
    publish(commit);
    wf_telemetry_op(client->node, client->domain, WF_OP_COMMIT, WEFT_OK,
                    wf_now_ns() - commit->started_ns);
    wf_client_resume(client);
    free(commit);
}

/* Where the payload of the i-th copied write is, checked against the staging segment. WEFT_PENDING:
 * it can be copied.  A slot that is named twice would be overwritten after its checksum was taken.
 */
static enum weft_status staged(struct wf_client *client, struct commit_job *commit, uint32_t i)
{
    const struct wf_store *store = &client->domain->store;
    struct copy_block *block = &commit->blocks[i];
    if (!wf_store_is_reserved(store, client->id, block->asked.slot, block->asked.generation))
        return WEFT_E_INVALID;
    for (uint32_t before = 0; before < i; before++)
        if (commit->blocks[before].asked.slot == block->asked.slot)
            return WEFT_E_INVALID;
    const struct wf_desc *desc = &store->index.desc[block->asked.slot];
    block->offset = atomic_load_explicit(&desc->offset, memory_order_relaxed);
    block->bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    if (block->bytes > client->staging.bytes ||
        block->asked.staging > client->staging.bytes - block->bytes)
        return WEFT_E_INVALID;
    return WEFT_PENDING;
}

void wf_handle_commit(struct wf_client *client, const struct wf_commit *request)
{
    const struct wf_message *to = &request->message;
    uint32_t count = request->count;
    if (count > WEFT_BATCH_MAX ||
        to->bytes < sizeof *request + (uint64_t)count * sizeof request->blocks[0]) {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_INVALID,
                                  "a commit of %u blocks in %u bytes; give up to %u", count,
                                  to->bytes, WEFT_BATCH_MAX));
        return;
    }
    client->node->busy_ns = wf_now_ns();
    static struct commit_job direct; /* owner thread only: the usual path allocates nothing */
    bool copied = client->domain->config->writes == WF_WRITES_COPIED && count > 0;
    struct commit_job *commit = copied ? wf_calloc(1, sizeof *commit, "a commit") : &direct;
    if (!commit) {
        wf_answer_failure(client, to, WEFT_E_NO_MEMORY);
        return;
    }
    commit->client = client;
    commit->to = *to;
    commit->started_ns = wf_now_ns();
    commit->session = request->session;
    commit->has_tip = request->has_tip != 0;
    memcpy(commit->tip, request->tip, sizeof commit->tip);
    commit->count = count;
    for (uint32_t i = 0; i < count; i++) {
        commit->blocks[i] = (struct copy_block){.asked = request->blocks[i], .status = WEFT_OK};
        if (copied)
            commit->blocks[i].status = staged(client, commit, i);
        else
            commit->blocks[i].asked.checksum = 0;
    }
    WF_CRASH("put.commit.received");
    commit->job.run = copy_run;
    commit->job.done = copy_done;
    if (!copied) {
        publish(commit);
    } else if (wf_workers_submit(client->node->workers, &commit->job)) {
        wf_client_pause(client); /* until then it cannot abort what is being written */
    } else {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_BUSY,
                                  "the data threads have all they can hold; try again"));
        free(commit);
    }
}

void wf_handle_abort(struct wf_client *client, const struct wf_commit *request)
{
    const struct wf_message *to = &request->message;
    struct wf_store *store = &client->domain->store;
    uint32_t count = request->count;
    if (count > WEFT_BATCH_MAX ||
        to->bytes < sizeof *request + (uint64_t)count * sizeof request->blocks[0]) {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_INVALID,
                                  "an abort of %u blocks in %u bytes; give up to %u", count,
                                  to->bytes, WEFT_BATCH_MAX));
        return;
    }
    /* Children before parents, so that no slot has to wait for another. */
    for (uint32_t i = count; i-- > 0;) {
        const struct wf_commit_block *block = &request->blocks[i];
        if (!wf_store_is_reserved(store, client->id, block->slot, block->generation))
            continue;
        wf_store_abort(store, &client->reserved, block->slot);
        wf_push_settled(client, block->slot, block->generation, false);
    }
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)client->node->answer;
    answer->count = count;
    wf_answer(client, to, WEFT_OK, sizeof *answer, NULL, 0);
}
