/* SPDX-License-Identifier: Apache-2.0
 *
 * The scrubber: while no client moves data, workers take the checksum of each committed block, and
 * later, round after round, check it again.
 *
 * It finds what no index can: a client of a `writes: direct` domain that wrote past its own block,
 * and memory that lost a bit.  A block that does not match is condemned together with what extends
 * it.  Its rate is bounded (STEP_BYTES a tick), and a busy node is left alone.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/sum.h"
#include "daemon/node.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define STEP_BYTES ((uint64_t)32 << 20) /* a tick of 100 ms: 320 MB/s at most */
#define STEP_SLOTS 4096                 /* looked at in one tick */
#define STEP_SHARE 8                    /* of a domain's bytes at most */
#define QUIET_NS 1000000000u

struct scrub_job {
    struct wf_job job;
    struct wf_domain *domain;
    uint32_t slot, generation;
    const void *data;
    uint64_t bytes, checksum;
    bool ran; /* false: the node stopped before */
};

static const void *data_of(const struct wf_domain *domain, uint32_t slot, uint64_t *bytes)
{
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    *bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    return (const char *)domain->pool.memory +
           atomic_load_explicit(&desc->offset, memory_order_relaxed);
}

/* The checksum of a committed block is known: keep it, or compare it with the one that is kept. */
static enum weft_status judge(struct wf_domain *domain, uint32_t slot, uint64_t checksum,
                              uint64_t *removed)
{
    struct wf_desc *desc = &domain->store.index.desc[slot];
    uint64_t kept = atomic_load_explicit(&desc->checksum, memory_order_relaxed);
    if (kept == 0)
        atomic_store_explicit(&desc->checksum, checksum, memory_order_release);
    if (kept == 0 || kept == checksum)
        return WEFT_OK;
    uint8_t key[32];
    wf_desc_key_read(desc, key);
    domain->corrupt++;
    wf_telemetry_event(
        domain->node, domain, "corrupt",
        "block %02x%02x%02x%02x… no longer matches its checksum: someone wrote into committed "
        "memory, or it lost a bit; it and what extends it was dropped",
        key[0], key[1], key[2], key[3]);
    wf_error("scrub", "domain %s: block %02x%02x%02x%02x… does not match its checksum; dropped",
             domain->config->name, key[0], key[1], key[2], key[3]);
    wf_store_remove(&domain->store, slot, true, removed);
    return wf_fail(WEFT_E_CORRUPT, "the block did not match its checksum and was dropped");
}

static void scrub_run(struct wf_job *job)
{
    struct scrub_job *scrub = (struct scrub_job *)job;
    scrub->checksum = wf_sum64(scrub->data, scrub->bytes);
    scrub->ran = true;
}

static void scrub_done(struct wf_job *job)
{
    struct scrub_job *scrub = (struct scrub_job *)job;
    struct wf_store *store = &scrub->domain->store;
    uint64_t removed = 0;
    uint64_t word = atomic_load_explicit(&store->index.desc[scrub->slot].word,
                                         memory_order_relaxed);
    wf_store_unhold(store, scrub->slot);
    scrub->domain->node->scrubs--;
    wf_clients_unpark(scrub->domain->node);
    if (scrub->ran && wf_word_generation(word) == scrub->generation &&
        wf_word_state(word) == WF_SLOT_COMMITTED &&
        judge(scrub->domain, scrub->slot, scrub->checksum, &removed) != WEFT_OK)
        wf_warn("scrub", "%llu blocks dropped", (unsigned long long)removed);
    free(scrub);
}

/* Held while a worker reads it: its memory does not change hands meanwhile. */
static bool scrub_submit(struct wf_domain *domain, uint32_t slot, uint64_t word, uint64_t *bytes)
{
    struct scrub_job *scrub = wf_calloc(1, sizeof *scrub, "a check");
    if (!scrub)
        return false;
    *scrub = (struct scrub_job){
        .job = {.run = scrub_run, .done = scrub_done},
        .domain = domain,
        .slot = slot,
        .generation = wf_word_generation(word),
    };
    scrub->data = data_of(domain, slot, &scrub->bytes);
    *bytes += scrub->bytes;
    wf_store_hold(&domain->store, slot);
    domain->node->scrubs++;
    if (wf_workers_submit(domain->node->workers, &scrub->job))
        return true;
    domain->node->scrubs--;
    wf_store_unhold(&domain->store, slot);
    free(scrub);
    return false;
}

bool wf_scrub_soon(struct wf_domain *domain, uint32_t slot, uint32_t generation)
{
    if (slot >= wf_arena_slots_used(&domain->store.arena))
        return false;
    uint64_t bytes = 0;
    uint64_t word = atomic_load_explicit(&domain->store.index.desc[slot].word,
                                         memory_order_relaxed);
    return wf_word_state(word) == WF_SLOT_COMMITTED && wf_word_generation(word) == generation &&
           scrub_submit(domain, slot, word, &bytes);
}

void wf_scrub_step(struct wf_node *node)
{
    if (wf_now_ns() - node->busy_ns < QUIET_NS)
        return;
    uint64_t bytes = 0;
    for (uint32_t d = 0; d < node->domain_count; d++) {
        struct wf_domain *domain = &node->domains[d];
        struct wf_store *store = &domain->store;
        /* Once around at most: a small store is not checked over and over in one tick. */
        uint32_t used = wf_arena_slots_used(&store->arena);
        uint32_t most = used < STEP_SLOTS ? used : STEP_SLOTS;
        /* What is checked is held: there must be enough left to make room of. */
        uint64_t until = bytes + store->quota_bytes / STEP_SHARE;
        until = until < STEP_BYTES ? until : STEP_BYTES;
        for (uint32_t looked = 0; store->blocks && looked < most && bytes < until; looked++) {
            if (domain->scrub_at >= wf_arena_slots_used(&store->arena))
                domain->scrub_at = 0;
            uint32_t slot = (uint32_t)domain->scrub_at++;
            uint64_t word = atomic_load_explicit(&store->index.desc[slot].word,
                                                 memory_order_relaxed);
            if (wf_word_state(word) == WF_SLOT_COMMITTED &&
                !scrub_submit(domain, slot, word, &bytes))
                return;
        }
    }
}
