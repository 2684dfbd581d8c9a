/* SPDX-License-Identifier: Apache-2.0
 *
 * An archive is asked for: its chain is found, a tier chosen, a run begun; or one that is under way
 * or has ended answers.
 *
 * A client waits by being parked (server.c) a moment at a time.  Who asks again while a run is
 * under way, or has ended and nobody took its result, gets that one's.  So a call that gave up
 * waiting, or a client that died, costs nothing but the work.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "base/text.h"
#include "daemon/archive_run.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define PARK_NS 100000000u /* then the client is told how far it is */

/* ------------------------------------------------------------------------------------ its begin */

/* The chain's keys from its root to its tip, and its deepest block in DRAM. */
static enum weft_status chain_find(struct wf_archive_run *run)
{
    struct wf_directory *directory = run->archives->below->directory;
    struct wf_store *store = &run->domain->store;
    struct wf_directory_block block;
    uint32_t count = 0, entry = WF_DIRECTORY_NONE;
    uint32_t slot = wf_store_find(store, run->tip);
    if (slot == WF_SLOT_NONE)
        entry = wf_below_find(run->domain, run->tip);
    if (entry != WF_DIRECTORY_NONE) {
        wf_directory_read(directory, entry, &block);
        count = block.depth + 1;
    } else if (slot != WF_SLOT_NONE) {
        count = wf_word_depth(
                    atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed)) +
                1;
    }
    if (count == 0)
        return wf_fail(
            WEFT_E_NOT_FOUND,
            "the chain's last block is neither in DRAM nor on a tier; it was evicted, or "
            "never put here");
    if (count > WF_ARCHIVE_BLOCKS_MAX)
        return wf_fail(WEFT_E_LIMIT, "a chain of %u blocks; an archive may have %u", count,
                       WF_ARCHIVE_BLOCKS_MAX);
    run->steps = wf_calloc(count, sizeof *run->steps, "an archive's chain");
    if (!run->steps)
        return WEFT_E_NO_MEMORY;
    run->count = count;
    for (uint32_t i = 0; i < count; i++)
        run->steps[i].entry = WF_DIRECTORY_NONE;
    uint32_t at = count;
    for (; at && entry != WF_DIRECTORY_NONE; at--) {
        wf_directory_read(directory, entry, &block);
        slot = wf_store_find(store, block.key);
        if (slot != WF_SLOT_NONE)
            break;
        memcpy(run->steps[at - 1].key, block.key, 32);
        entry = block.parent;
    }
    if (slot != WF_SLOT_NONE) {
        wf_store_hold(store, slot);
        run->slot = slot;
    }
    for (; at && slot != WF_SLOT_NONE; at--) {
        wf_desc_key_read(&store->index.desc[slot], run->steps[at - 1].key);
        slot = atomic_load_explicit(&store->index.desc[slot].parent, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < count && !at; i++)
        wf_archive_step_hold(run, &run->steps[i], &block);
    return at ? wf_fail(WEFT_E_NOT_FOUND, "the chain's first %u blocks are not there", at)
              : WEFT_OK;
}

/* What fills the tier that has the most room for archives, and what frees it. */
static enum weft_status no_room(uint64_t needed, uint64_t most, const struct wf_lower *lower)
{
    char needs[32], has[32], others[32], kept[32];
    uint64_t capacity = wf_lower_capacity(lower), usable = wf_lower_most_bytes(lower);
    wf_size_format(needed, needs, sizeof needs);
    wf_size_format(most, has, sizeof has);
    if (lower->foreign_bytes > usable / 2)
        return wf_fail(WEFT_FULL,
                       "the archive needs %s, and tier %s has room for %s: %s of blocks there "
                       "belong to domains that this node does not have, by their secrets; start it "
                       "with the secret_file that they were written with and remove them, or give "
                       "the tier another, empty path",
                       needs, lower->config->name, has,
                       wf_size_format(lower->foreign_bytes, others, sizeof others));
    return wf_fail(WEFT_FULL,
                   "the archive needs %s, and beside other archives tier %s has room for %s (%s of "
                   "it are kept free to work in); enlarge it or remove archives",
                   needs, lower->config->name, has,
                   wf_size_format(capacity - usable, kept, sizeof kept));
}

/* What a tier must have for a chain, and what it adds to what the domain has archived. */
struct needs {
    uint64_t bytes, largest, grows;
    uint32_t grows_blocks;
    uint8_t tip; /* where the tip is, if it is only the manifest that is missing */
};

static struct needs needs_of(struct wf_archive_run *run)
{
    struct needs needs = {.bytes = WF_ARCHIVE_BYTES_MAX};
    for (uint32_t i = 0; i < run->count; i++) {
        struct wf_directory_block block;
        wf_archive_step_hold(run, &run->steps[i], &block);
        uint32_t slot = wf_store_find(&run->domain->store, run->steps[i].key);
        uint64_t bytes = slot == WF_SLOT_NONE
                             ? block.bytes
                             : atomic_load_explicit(&run->domain->store.index.desc[slot].bytes,
                                                    memory_order_relaxed);
        needs.grows += block.archives ? 0 : bytes;
        needs.grows_blocks += block.archives == 0;
        needs.tip = wf_archive_step_there(run, &run->steps[i], &block);
        if (needs.tip)
            continue;
        needs.bytes += bytes;
        needs.largest = bytes > needs.largest ? bytes : needs.largest;
    }
    if (needs.largest)
        needs.tip = 0;
    return needs;
}

enum weft_status wf_archive_tier_choose(struct wf_archive_run *run)
{
    struct wf_below *below = run->archives->below;
    uint8_t tiers = wf_archive_tiers(below);
    uint64_t most = 0;
    const char *narrow = "", *beyond = "";
    const struct wf_lower *widest = NULL; /* of those that had too little room */
    char size[32];
    if (!tiers)
        return wf_fail(WEFT_E_INVALID,
                       "the node has no tier that may hold archives; give it one that is durable "
                       "and has archive: true in `tiers`");
    const struct needs needs = needs_of(run);
    for (uint32_t i = 0; i < 2 * below->count; i++) {
        bool first = i < below->count;
        struct wf_lower *lower = &below->tiers[below->order[first ? i : i - below->count]];
        uint8_t may = (first ? needs.tip : tiers) & (uint8_t)~run->tried;
        if (!(may >> lower->number & 1) || !wf_lower_usable(lower))
            continue;
        if (!wf_lower_fits(lower, needs.largest)) {
            narrow = lower->config->name;
            continue;
        }
        if (!wf_lower_may_archive(lower, run->domain, needs.grows_blocks, needs.grows)) {
            beyond = lower->config->name;
            continue;
        }
        uint64_t left = wf_lower_archive_room(lower);
        if (left >= needs.bytes) {
            run->to = lower;
            return WEFT_OK;
        }
        if (!widest || left > most) {
            most = left;
            widest = lower;
        }
    }
    if (!widest && narrow[0])
        return wf_fail(WEFT_E_INVALID,
                       "a block of %s is larger than tier %s takes; make blocks smaller, or the "
                       "tier larger",
                       wf_size_format(needs.largest, size, sizeof size), narrow);
    if (!widest && beyond[0])
        return wf_fail(
            WEFT_FULL,
            "domain %s may archive no more on tier %s, which others have a part of, too; "
            "remove archives, enlarge the tier or raise the domain's quota",
            run->domain->config->name, beyond);
    if (!widest)
        return wf_fail(WEFT_E_SYSTEM, "no tier that may hold archives works now; see `weft status` "
                                      "and the node's log");
    return no_room(needs.bytes, most, widest);
}

static struct wf_archive_run *run_take(struct wf_archives *archives)
{
    struct wf_archive_run *oldest = NULL;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (run->phase == WF_ARCHIVE_UNUSED)
            return run;
        if (run->phase == WF_ARCHIVE_ENDED && (!oldest || run->moved_ns < oldest->moved_ns))
            oldest = run;
    }
    return oldest;
}

static void begin(struct wf_archive_run *run, struct wf_client *client,
                  const struct wf_archive *request)
{
    struct wf_archives *archives = run->archives;
    *run = (struct wf_archive_run){
        .archives = archives,
        .domain = client->domain,
        .phase = WF_ARCHIVE_WRITE,
        .slot = WF_SLOT_NONE,
        .moved_ns = wf_now_ns(),
        .format = *client->node->formats[request->format].request,
        .status = WEFT_PENDING,
    };
    memcpy(run->name, request->name, strlen(request->name) + 1);
    memcpy(run->tip, request->tip, sizeof run->tip);
    const struct wf_archive_kept *kept = wf_archive_find(archives, run->domain, run->name);
    run->doubted = kept && !kept->durable && memcmp(kept->tip, run->tip, sizeof run->tip) == 0;
    enum weft_status status = chain_find(run);
    if (status == WEFT_OK)
        status = wf_archive_tier_choose(run);
    if (status == WEFT_OK && archives->count == WF_ARCHIVES_MAX && !kept)
        status = wf_fail(WEFT_E_LIMIT,
                         "the node keeps %u archives, which is all that it may; remove some",
                         archives->count);
    if (status != WEFT_OK)
        wf_archive_fail(run, status);
    wf_archive_advance(run);
}

/* ---------------------------------------------------------------------------- asked by a client */

static enum weft_status request_check(const struct wf_client *client,
                                      const struct wf_archive *request)
{
    const struct wf_node *node = client->node;
    if (!memchr(request->name, 0, sizeof request->name))
        return wf_fail(WEFT_E_PROTOCOL, "ARCHIVE: a name without an end");
    if (!request->name[0])
        return wf_fail(WEFT_E_INVALID, "an archive needs a name");
    enum weft_status status = wf_text_check("an archive's name", request->name, WF_ARCHIVE_NAME_MAX,
                                            false);
    if (status != WEFT_OK)
        return status;
    if (!node->below)
        return wf_fail(WEFT_E_INVALID, "the node has no tier that may hold archives; name one in "
                                       "`tiers`, durable and with archive: true");
    if (!(request->flags & WF_ARCHIVE_REMOVE) &&
        (request->format >= node->format_count ||
         node->formats[request->format].domain != client->domain->id))
        return wf_fail(WEFT_E_INVALID, "format %u is not registered in this domain",
                       request->format);
    return WEFT_OK;
}

static void answer(struct wf_client *client, const struct wf_archive *request,
                   enum weft_status status, uint32_t blocks, uint32_t written_blocks,
                   uint64_t bytes, const char *tier, const char *sentence)
{
    struct wf_archive_answer *out = (struct wf_archive_answer *)(void *)client->node->answer;
    memset(out, 0, sizeof *out);
    out->blocks = blocks;
    out->written = written_blocks;
    out->bytes = bytes;
    memcpy(out->name, request->name, strlen(request->name));
    memcpy(out->tier, tier, strnlen(tier, sizeof out->tier - 1));
    memcpy(out->sentence, sentence, strnlen(sentence, sizeof out->sentence - 1));
    wf_answer(client, &request->message, status, sizeof *out, NULL, 0);
}

/* The run of this archive: under way, or ended and its result not taken. */
static struct wf_archive_run *run_of(struct wf_archives *archives, const struct wf_domain *domain,
                                     const char *name)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (run->phase != WF_ARCHIVE_UNUSED && run->domain == domain &&
            strcmp(run->name, name) == 0)
            return run;
    }
    return NULL;
}

static void remove_one(struct wf_client *client, const struct wf_archive *request)
{
    struct wf_archives *archives = client->node->below->archives;
    struct wf_archive_left left = {.tier = ""};
    const struct wf_archive_run *run = run_of(archives, client->domain, request->name);
    if (run && wf_archive_active(run) &&
        !wf_archive_leaves(archives, client->domain, request->name)) {
        /* or it might be kept without a manifest */
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_BUSY, "archive '%s' is being made; wait for that",
                                  request->name));
        return;
    }
    enum weft_status status = wf_archive_leave(archives, client->domain, request->name, &left);
    if (status < 0)
        wf_answer_failure(client, &request->message, status);
    else if (status != WEFT_PENDING || !wf_client_park(client, &request->message, PARK_NS))
        answer(client, request, status, left.blocks, 0, left.bytes, left.tier, "");
}

static void result_give(struct wf_client *client, const struct wf_archive *request,
                        struct wf_archive_run *run)
{
    if (run->status < 0) {
        wf_fail_keep("%s", run->sentence);
        wf_answer_failure(client, &request->message, run->status);
    } else {
        answer(client, request, run->status, run->count, run->written, run->bytes,
               run->to ? run->to->config->name : "", run->sentence);
    }
    run->phase = WF_ARCHIVE_UNUSED;
}

/* Has a run ended well, and is what it made not there any more?  Nobody may have taken its result,
 * and the archive was let go of meanwhile, or its tier lost some of it. */
static bool is_stale(struct wf_archives *archives, const struct wf_archive_run *run,
                     struct wf_archive_kept *kept)
{
    if (run->phase != WF_ARCHIVE_ENDED || run->status != WEFT_OK)
        return false;
    if (!kept || memcmp(kept->tip, run->tip, sizeof kept->tip) != 0)
        return true;
    wf_archive_check(archives, kept);
    return !kept->durable;
}

void wf_handle_archive(struct wf_client *client, const struct wf_archive *request)
{
    enum weft_status status = request_check(client, request);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    if (request->flags & WF_ARCHIVE_REMOVE) {
        remove_one(client, request);
        return;
    }
    struct wf_archives *archives = client->node->below->archives;
    struct wf_archive_run *run = run_of(archives, client->domain, request->name);
    struct wf_archive_kept *kept = wf_archive_find(archives, client->domain, request->name);
    bool same = run && memcmp(run->tip, request->tip, sizeof run->tip) == 0;
    if (same && is_stale(archives, run, kept)) {
        run->phase = WF_ARCHIVE_UNUSED;
        run = NULL;
        same = false;
    }
    if (run && !same && wf_archive_active(run)) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_BUSY,
                                  "archive '%s' is being made of another chain; wait for that",
                                  request->name));
        return;
    }
    if (!run && kept && memcmp(kept->tip, request->tip, sizeof kept->tip) == 0) {
        wf_archive_check(archives, kept);
        /* As it was asked for.  Whole alone is not enough: what it lacked may have been written
         * below a moment ago, and not flushed. */
        if (kept->durable) {
            answer(client, request, WEFT_OK, kept->blocks, 0, kept->bytes,
                   kept->lower->config->name, "");
            return;
        }
    }
    if (run && !same)
        run->phase = WF_ARCHIVE_UNUSED; /* nobody will ask for that result */
    if (!same) {
        /* The one that leaves may have the same manifest; its removal comes first. */
        bool may = wf_archives_settled(archives->below) &&
                   !wf_archive_leaving(archives, client->domain, request->name);
        run = may ? run_take(archives) : NULL;
        if (run)
            begin(run, client, request);
    }
    if (run && run->phase == WF_ARCHIVE_ENDED)
        result_give(client, request, run);
    else if (!wf_client_park(client, &request->message, PARK_NS))
        answer(client, request, WEFT_PENDING, run ? run->count : 0, run ? run->written : 0,
               run ? run->bytes : 0, run && run->to ? run->to->config->name : "", "");
}
