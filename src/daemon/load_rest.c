/* SPDX-License-Identifier: Apache-2.0
 *
 * The rest of prefetches that found no room: what is cold is being written below for them, and they
 * go on as it leaves.
 *
 * Who asked has its answer, and does not wait here; what is kept of it is the end of its chain, and
 * the time.  A rest is given up when nothing is under way that room could come of, when its time is
 * over, and when as much was begun for it as was asked for: two that push each other out end.
 * Owner thread; a crash loses them, and nothing else.
 */
#include <math.h>
#include <string.h>

#include "daemon/ahead.h"
#include "daemon/below.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define LOOK_NS 5000000u                  /* between two looks at them: each is O(its chain) */
#define ROOM_NS 10000000000u              /* of one that is to be there by no time */
#define DOMAIN_MAX (WF_RESTS_MAX / 4 * 3) /* one domain's, when there are others */

static struct wf_rest *rest_of(struct wf_below *below, const struct wf_domain *domain,
                               const uint8_t tip[32])
{
    for (uint32_t i = 0; i < below->rest_count; i++)
        if (below->rests[i].domain == domain && memcmp(below->rests[i].tip, tip, 32) == 0)
            return &below->rests[i];
    return NULL;
}

static struct wf_rest *rest_new(struct wf_below *below, struct wf_domain *domain)
{
    uint32_t of_domain = 0;
    for (uint32_t i = 0; i < below->rest_count; i++)
        of_domain += below->rests[i].domain == domain;
    if (below->rest_count == WF_RESTS_MAX ||
        (of_domain >= DOMAIN_MAX && below->node->domain_count > 1))
        return NULL;
    struct wf_rest *rest = &below->rests[below->rest_count++];
    *rest = (struct wf_rest){.domain = domain};
    return rest;
}

/* The one that ends where the block's chain came from: an earlier part of the same request. */
static struct wf_rest *rest_before(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block block, parent;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return NULL;
    wf_directory_read(below->directory, entry, &block);
    if (block.parent == WF_DIRECTORY_NONE)
        return NULL;
    wf_directory_read(below->directory, block.parent, &parent);
    return rest_of(below, domain, parent.key);
}

void wf_rest_keep(struct wf_domain *domain, const struct wf_load *request, uint32_t first,
                  struct wf_load_answer *answer, struct wf_ahead_asked *asked)
{
    struct wf_below *below = domain->node->below;
    struct wf_rest *rest = asked->full ? NULL : rest_before(domain, request->keys[first]);
    if (!asked->full && !rest)
        return; /* it is a miss for another reason */
    uint32_t end = first;
    uint64_t bytes = 0;
    for (uint32_t entry; end < request->count; end++) {
        struct wf_directory_block block;
        entry = wf_below_find(domain, request->keys[end]);
        if (entry == WF_DIRECTORY_NONE)
            break;
        wf_directory_read(below->directory, entry, &block);
        bytes += block.bytes;
    }
    if (end == first)
        return;
    const uint8_t *tip = request->keys[end - 1];
    asked->blocks = asked->begun + end - first;
    asked->last = end - 1;
    asked->rest_bytes = bytes;
    if (!rest) {
        rest = rest_of(below, domain, tip);
        asked->again = rest != NULL;
    }
    if (!rest && wf_below_busy(below))
        rest = rest_new(below, domain);
    if (!rest)
        return;
    uint64_t now_ns = wf_now_ns(), within_ns = request->within_ms * 1000000ull;
    memcpy(rest->tip, tip, sizeof rest->tip);
    rest->until_ns = now_ns + (within_ns ? within_ns : ROOM_NS);
    rest->deadline_us = (now_ns + within_ns) / 1000;
    rest->left = asked->again ? end - first : rest->left + end - first;
    asked->full = false;
    for (uint32_t i = first; i < end; i++)
        answer->blocks[i].status = WEFT_PENDING;
}

/* What it did not come to. */
static void tell(const struct wf_rest *rest, const struct wf_fetched *fetched)
{
    struct wf_event_prefetch told = {.rule = "room",
                                     .due_s = INFINITY,
                                     .chance = 1,
                                     .blocks = fetched->blocks,
                                     .begun = fetched->begun};
    wf_telemetry_prefetch(rest->domain, rest->tip, fetched->bytes, &told);
}

/* Go on with one.  False: that was all that is done for it. */
static bool go_on(struct wf_below *below, struct wf_rest *rest, uint64_t now_ns)
{
    struct wf_fetched fetched;
    wf_telemetry_serve(below->node, rest->domain);
    wf_prefetch_chain(rest->domain, rest->tip, rest->deadline_us, "prefetch", &fetched);
    wf_telemetry_serve(below->node, NULL);
    rest->left -= fetched.fresh < rest->left ? fetched.fresh : rest->left;
    if (fetched.begun == fetched.blocks)
        return false;
    if (fetched.status == WEFT_FULL && rest->left && now_ns < rest->until_ns &&
        wf_below_busy(below))
        return true;
    tell(rest, &fetched);
    return false;
}

void wf_rests_run(struct wf_below *below)
{
    uint64_t now_ns = wf_now_ns();
    uint32_t kept = 0;
    if (!below->rest_count || below->stopping || now_ns - below->rests_ns < LOOK_NS)
        return;
    below->rests_ns = now_ns;
    for (uint32_t i = 0; i < below->rest_count; i++) /* who asked first has the room first */
        if (go_on(below, &below->rests[i], now_ns))
            below->rests[kept++] = below->rests[i];
    below->rest_count = kept;
}
