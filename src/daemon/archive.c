/* SPDX-License-Identifier: Apache-2.0
 *
 * The archives that a node keeps: found again at a start, watched, replaced, removed.
 */
#include "daemon/archive.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/profiles.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define CHECK_NS 1000000000u    /* one archive is looked at in so much */
#define READ_TRIES 5u           /* of a manifest, while its device gives errors, */
#define READ_REST_NS 100000000u /* with so long between the first two, and doubled each time */

/* Manifests that were found and are still to be read. */
struct found {
    struct wf_lower *lower;
    uint8_t key[32];
    uint32_t bytes, tries;
};

struct read {
    struct wf_mover_job job; /* first member */
    struct wf_archives *archives;
    struct wf_lower *lower;
    uint32_t tries; /* before this one */
    void *buffer;   /* NULL: this place is free */
};

struct wf_archive_reads {
    struct found *found;
    uint32_t count, capacity, in_flight;
    uint64_t rest_ns; /* a device gave an error: none is read before that */
    struct read all[WF_ARCHIVE_JOBS_MAX];
};

static void reads_run(struct wf_archives *archives);

enum weft_status wf_archives_create(struct wf_below *below)
{
    struct wf_archives *archives = wf_calloc(1, sizeof *archives, "the table of archives");
    if (!archives)
        return WEFT_E_NO_MEMORY;
    below->archives = archives;
    archives->below = below;
    archives->waiting = true;
    wf_archive_tag(archives->tag);
    archives->reads = wf_calloc(1, sizeof *archives->reads, "the table of archives");
    enum weft_status status = archives->reads ? wf_archive_leaves_create(archives)
                                              : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK)
        status = wf_archive_spares_create(archives);
    return status == WEFT_OK ? wf_archive_runs_create(archives) : status;
}

void wf_archives_destroy(struct wf_below *below)
{
    struct wf_archives *archives = below->archives;
    if (!archives)
        return;
    wf_archive_runs_destroy(archives);
    wf_archive_leaves_destroy(archives);
    wf_archive_spares_destroy(archives);
    for (uint32_t i = 0; i < archives->count; i++) {
        free(archives->kept[i]->raw);
        free(archives->kept[i]);
    }
    for (uint32_t i = 0; archives->reads && i < WF_ARCHIVE_JOBS_MAX; i++)
        free(archives->reads->all[i].buffer);
    if (archives->reads)
        free(archives->reads->found);
    free(archives->reads);
    free(archives);
    below->archives = NULL;
}

uint8_t wf_archive_tiers(const struct wf_below *below)
{
    uint8_t tiers = 0;
    for (uint32_t i = 0; i < below->count; i++)
        if (below->tiers[i].durable && below->tiers[i].config->archive)
            tiers |= (uint8_t)(1u << i);
    return tiers;
}

bool wf_archived(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return false;
    wf_directory_read(below->directory, entry, &block);
    return block.archives > 0;
}

/* ---------------------------------------------------------------------------------- one of them */

/* Of two of one name: a whole one, and of such the newer. */
static bool counts_before(const struct wf_archive_kept *a, const struct wf_archive_kept *b)
{
    return a->whole != b->whole ? a->whole : a->created_ms > b->created_ms;
}

struct wf_archive_kept *wf_archive_find(struct wf_archives *archives,
                                        const struct wf_domain *domain, const char *name)
{
    struct wf_archive_kept *found = NULL;
    for (uint32_t i = 0; i < archives->count; i++) {
        struct wf_archive_kept *kept = archives->kept[i];
        if (kept->domain == domain && strcmp(kept->name, name) == 0 &&
            (!found || counts_before(kept, found)))
            found = kept;
    }
    return found;
}

bool wf_archives_waiting(const struct wf_below *below)
{
    return below->archives->waiting;
}

void wf_archives_wait(struct wf_below *below)
{
    below->archives->waiting = true;
}

static void stuck_say(const struct wf_archives *archives)
{
    const struct wf_below *below = archives->below;
    uint32_t i = 0;
    while (i + 1 < below->count && (below->tiers[i].complete || !below->tiers[i].durable ||
                                    !below->tiers[i].config->archive))
        i++;
    wf_warn("archive",
            "tier %s does not work, and archives may have a part there: until it does, or is taken "
            "out of `tiers`, the other tiers that may hold archives let nothing go",
            below->tiers[i].config->name);
    wf_telemetry_event(below->node, NULL, "archive_waits",
                       "tier %s does not work: what may belong to archives stays on the others, "
                       "which let nothing go",
                       below->tiers[i].config->name);
}

static void waiting_look(struct wf_archives *archives)
{
    const struct wf_below *below = archives->below;
    uint8_t tiers = wf_archive_tiers(below);
    bool waiting = !wf_archives_settled(below);
    for (uint32_t i = 0; i < below->count; i++) /* whose manifests nobody has seen */
        waiting |= tiers >> i & 1 && !below->tiers[i].known;
    for (uint32_t i = 0; !waiting && i < archives->count; i++)
        waiting = wf_archive_waits(archives, archives->kept[i]) != 0;
    archives->waiting = waiting;
    bool stuck = waiting && wf_archives_settled(below);
    if (stuck && !archives->stuck)
        stuck_say(archives);
    archives->stuck = stuck;
}

/* ------------------------------------------------------------------------ what is to be undone */

static struct wf_archive_undone *undone_find(struct wf_archives *archives,
                                             const struct wf_lower *lower, const uint8_t key[32])
{
    for (uint32_t i = 0; i < WF_ARCHIVE_UNDONE_MAX; i++) {
        struct wf_archive_undone *undone = &archives->undone[i];
        if (undone->lower == lower && memcmp(undone->key, key, 32) == 0)
            return undone;
    }
    return NULL;
}

void wf_archive_undo(struct wf_archives *archives, struct wf_lower *lower, const uint8_t key[32])
{
    wf_lower_remove(lower, key);
    if (undone_find(archives, lower, key))
        return;
    struct wf_archive_undone *undone = &archives->undone[archives->undone_next];
    archives->undone_next = (archives->undone_next + 1) % WF_ARCHIVE_UNDONE_MAX;
    undone->lower = lower;
    memcpy(undone->key, key, sizeof undone->key);
}

void wf_archive_redo(struct wf_archives *archives, const struct wf_lower *lower,
                     const uint8_t key[32])
{
    struct wf_archive_undone *undone = undone_find(archives, lower, key);
    if (undone)
        undone->lower = NULL;
}

/* ----------------------------------------------------------------------------- whole or damaged */

/* Are all copies there of no use now, for want of the profile that they were stored by?  It is told
 * of a block that a load failed for that, and holds until other profiles come; and nothing lossy of
 * a format can be read by no profile. */
static bool block_unread(const struct wf_archive_kept *kept, const struct wf_directory_block *block,
                         uint8_t tiers, bool profile)
{
    const struct wf_profiles *profiles = kept->domain->node->profiles;
    bool told = kept->domain->unread == 1 + wf_profiles_generation(profiles);
    if (!(block->tiers & tiers))
        return false;
    for (unsigned left = block->tiers & tiers; left; left &= left - 1) {
        unsigned tier = (unsigned)__builtin_ctz(left);
        if (wf_directory_quality(block, tier) == WEFT_LOSSLESS ||
            (profile && !(told && block->fit & ~block->good & 1u << tier)))
            return false;
    }
    return true;
}

/* What cannot be read makes way for what was put anew: it is there again in a moment. */
static bool is_written(const struct wf_below *below, uint8_t tiers, const uint8_t key[32])
{
    bool written = false;
    for (uint32_t i = 0; i < below->count; i++)
        written |= (tiers >> i & 1) && wf_demote_writes(&below->tiers[i], key);
    return written;
}

/* Is every block of the chain where archives may lie?  Then ->on and ->unread are set, too.
 * O(blocks). */
static bool chain_whole(const struct wf_below *below, struct wf_archive_kept *kept)
{
    struct wf_manifest manifest;
    uint8_t tiers = wf_archive_tiers(below), on = 0;
    uint32_t count = 0, tip = kept->entry;
    bool unread = false,
         profile = wf_manifest_read(kept->raw, kept->raw_bytes, &manifest) == WEFT_OK &&
                   wf_profiles_for(below->node->profiles, &manifest.format);
    while (tip != WF_DIRECTORY_NONE && count <= kept->blocks) {
        struct wf_directory_block block;
        wf_directory_read(below->directory, tip, &block);
        if (!(block.tiers & tiers) && !is_written(below, tiers, block.key))
            return false;
        unread |= block_unread(kept, &block, tiers, profile);
        on |= block.tiers & tiers;
        tip = block.parent;
        count++;
    }
    if (count != kept->blocks)
        return false;
    kept->on = on;
    kept->unread = unread;
    return true;
}

/* Count the archive on its chain no more; what is gone counts nothing. */
static void unprotect(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    struct wf_directory *directory = archives->below->directory;
    struct wf_directory_block block;
    if (kept->entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(directory, kept->entry, &block);
    if (block.tiers || block.in_dram)
        wf_directory_archive(directory, kept->entry, false);
    wf_directory_unhold(directory, kept->entry);
    kept->entry = WF_DIRECTORY_NONE;
}

uint8_t wf_archive_waits(const struct wf_archives *archives, const struct wf_archive_kept *kept)
{
    const struct wf_below *below = archives->below;
    uint8_t may = kept->on ? kept->on : wf_archive_tiers(below), waits = 0;
    may |= wf_archive_on(kept);
    for (uint32_t i = 0; i < below->count && !kept->whole; i++)
        if (may >> i & 1 && !below->tiers[i].complete)
            waits |= (uint8_t)(1u << i);
    return waits;
}

uint8_t wf_archive_on(const struct wf_archive_kept *kept)
{
    return kept->on | (uint8_t)(1u << kept->lower->number);
}

static void missed_say(const struct wf_archives *archives, struct wf_archive_kept *kept,
                       uint8_t waits)
{
    const char *tier = archives->below->tiers[__builtin_ctz(waits)].config->name;
    kept->missed = true;
    wf_warn("archive", "%s of domain %s is not whole as long as tier %s does not work", kept->name,
            kept->domain->config->name, tier);
    wf_telemetry_event(archives->below->node, kept->domain, "archive_waits",
                       "archive %.64s is not whole as long as tier %s does not work", kept->name,
                       tier);
}

void wf_archive_check(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    struct wf_below *below = archives->below;
    struct wf_directory_block block;
    if (kept->entry != WF_DIRECTORY_NONE) {
        wf_directory_read(below->directory, kept->entry, &block);
        if (!block.tiers && !block.in_dram)
            unprotect(archives, kept);
    }
    if (kept->entry == WF_DIRECTORY_NONE) {
        uint32_t entry = wf_below_find(kept->domain, kept->tip);
        if (entry != WF_DIRECTORY_NONE) {
            wf_directory_archive(below->directory, entry, true);
            wf_directory_hold(below->directory, entry);
            kept->entry = entry;
        }
    }
    kept->unread = false;
    kept->whole = kept->entry != WF_DIRECTORY_NONE && chain_whole(below, kept);
    kept->durable &= kept->whole;
    if (kept->whole || !wf_archives_settled(below)) {
        kept->told &= !kept->whole;
        kept->missed &= !kept->whole;
        return;
    }
    uint8_t waits = wf_archive_waits(archives, kept);
    if (waits && !kept->missed)
        missed_say(archives, kept, waits);
    if (waits || kept->told)
        return;
    kept->told = true;
    archives->lost++;
    wf_error("archive",
             "%s of domain %s is damaged: some of its %u blocks are on no tier that may "
             "hold archives",
             kept->name, kept->domain->config->name, kept->blocks);
    wf_telemetry_event(below->node, kept->domain, "archive_lost",
                       "archive %.64s is damaged: not all of its %u blocks are there", kept->name,
                       kept->blocks);
}

static void kept_free(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    uint32_t at = 0;
    unprotect(archives, kept);
    kept->lower->manifests -= !kept->gone;
    while (archives->kept[at] != kept)
        at++;
    archives->kept[at] = archives->kept[--archives->count];
    free(kept->raw);
    free(kept);
}

void wf_archive_forget(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    kept->lower->aside_bytes -= kept->raw_bytes;
    kept_free(archives, kept);
}

void wf_archive_drop(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    wf_archive_undo(archives, kept->lower, kept->key); /* also if that one is away now */
    wf_archive_forget(archives, kept);
}

static struct wf_domain *domain_of(struct wf_node *node, const uint8_t tag[32])
{
    for (uint32_t i = 0; i < node->domain_count; i++)
        if (memcmp(node->domains[i].tag, tag, 32) == 0)
            return &node->domains[i];
    return NULL;
}

static struct wf_archive_kept *kept_make(struct wf_lower *lower, const struct wf_manifest *manifest,
                                         const void *raw, size_t raw_bytes)
{
    struct wf_archive_kept *kept = wf_calloc(1, sizeof *kept, "an archive");
    uint8_t *copy = wf_calloc(1, raw_bytes, "an archive");
    if (!kept || !copy) {
        free(kept);
        free(copy);
        return NULL;
    }
    memcpy(copy, raw, raw_bytes);
    *kept = (struct wf_archive_kept){
        .lower = lower,
        .raw = copy,
        .raw_bytes = (uint32_t)raw_bytes,
        .blocks = manifest->blocks,
        .bytes = manifest->payload_bytes,
        .created_ms = manifest->created_ms,
        .domain = domain_of(lower->below->node, manifest->domain),
        .entry = WF_DIRECTORY_NONE,
    };
    memcpy(kept->name, manifest->name, sizeof kept->name);
    memcpy(kept->tip, manifest->tip, sizeof kept->tip);
    wf_manifest_key(manifest->domain, manifest->name, manifest->tip, kept->key);
    return kept;
}

static struct wf_archive_kept *kept_on(struct wf_archives *archives, const struct wf_lower *lower,
                                       const uint8_t key[32])
{
    for (uint32_t i = 0; i < archives->count; i++)
        if (archives->kept[i]->lower == lower && memcmp(archives->kept[i]->key, key, 32) == 0)
            return archives->kept[i];
    return NULL;
}

enum weft_status wf_archive_keep(struct wf_archives *archives, struct wf_lower *lower,
                                 const void *raw, size_t raw_bytes)
{
    struct wf_manifest manifest;
    enum weft_status status = wf_manifest_read(raw, raw_bytes, &manifest);
    if (status != WEFT_OK)
        return status;
    struct wf_domain *domain = domain_of(archives->below->node, manifest.domain);
    if (!domain)
        return wf_fail(WEFT_E_NOT_FOUND, "the archive is of a domain that this node does not have");
    const struct wf_archive_kept *other = wf_archive_find(archives, domain, manifest.name);
    if (archives->count >= WF_ARCHIVES_MAX + (other != NULL))
        return wf_fail(WEFT_E_LIMIT,
                       "the node keeps %u archives, which is all that it may; remove "
                       "some",
                       archives->count);
    struct wf_archive_kept *kept = kept_make(lower, &manifest, raw, raw_bytes);
    if (!kept)
        return WEFT_E_NO_MEMORY;
    lower->aside_bytes += raw_bytes;
    lower->manifests++;
    struct wf_archive_kept *same = kept_on(archives, lower, kept->key);
    if (same) { /* the same block of the tier, told again */
        lower->aside_bytes -= same->raw_bytes;
        lower->manifests -= !same->gone;
        unprotect(archives, same);
        free(same->raw);
        *same = *kept;
        free(kept);
        kept = same;
    } else {
        archives->doubles |= other != NULL;
        archives->kept[archives->count++] = kept;
    }
    wf_archive_check(archives, kept);
    return WEFT_OK;
}

static struct wf_archive_kept *double_of(const struct wf_archives *archives,
                                         const struct wf_archive_kept *kept)
{
    for (uint32_t i = 0; i < archives->count; i++) {
        struct wf_archive_kept *other = archives->kept[i];
        if (other != kept && other->domain == kept->domain && strcmp(other->name, kept->name) == 0)
            return other;
    }
    return NULL;
}

void wf_archive_alone(struct wf_archives *archives, const struct wf_archive_kept *kept)
{
    struct wf_archive_kept *other;
    while ((other = double_of(archives, kept)))
        wf_archive_drop(archives, other);
}

/* It is known by now which of those of one name are whole. */
static void doubles_end(struct wf_archives *archives)
{
    for (uint32_t i = 0; i < archives->count; i++) {
        const struct wf_archive_kept *kept = archives->kept[i];
        if (!double_of(archives, kept))
            continue;
        wf_archive_alone(archives, wf_archive_find(archives, kept->domain, kept->name));
        i = UINT32_MAX; /* places have changed: from the first on */
    }
    archives->doubles = false;
}

/* ----------------------------------------------------------------------------- found at a start */

bool wf_archives_found(struct wf_lower *lower, const struct wf_tier_block *block)
{
    struct wf_archives *archives = lower->below->archives;
    struct wf_archive_reads *reads = archives->reads;
    if (memcmp(block->format, archives->tag, 32) != 0)
        return false;
    if (!domain_of(lower->below->node, block->parent)) { /* somebody else's: left alone */
        lower->left_alone++;
        lower->foreign_bytes += block->bytes;
        return true;
    }
    if (undone_find(archives, lower, block->key)) {
        wf_lower_remove(lower, block->key);
        return true;
    }
    struct wf_archive_kept *kept = kept_on(archives, lower, block->key);
    if (kept) { /* a tier that failed is back */
        kept->unseen = false;
        return true;
    }
    if (reads->count == reads->capacity) {
        uint32_t capacity = reads->capacity ? 2 * reads->capacity : 64;
        struct found *grown = capacity > 2 * WF_ARCHIVES_MAX
                                  ? NULL
                                  : wf_realloc(reads->found, capacity * sizeof *grown,
                                               "manifests to be read");
        if (!grown) {
            archives->lost++;
            wf_error("archive",
                     "tier %s has more manifests than a node may keep; one was left "
                     "unread",
                     lower->config->name);
            return true;
        }
        reads->found = grown;
        reads->capacity = capacity;
    }
    struct found *found = &reads->found[reads->count++];
    found->lower = lower;
    found->tries = 0;
    memcpy(found->key, block->key, 32);
    found->bytes = block->bytes <= WF_ARCHIVE_BYTES_MAX ? (uint32_t)block->bytes : 0;
    return true;
}

static void unreadable(struct wf_archives *archives, const struct wf_lower *lower,
                       const uint8_t key[32], const char *sentence)
{
    archives->lost++;
    wf_error("archive", "manifest %02x%02x%02x%02x… on tier %s cannot be used: %s", key[0], key[1],
             key[2], key[3], lower->config->name, sentence);
    wf_telemetry_event(archives->below->node, NULL, "archive_lost",
                       "manifest %02x%02x%02x%02x… on tier %s cannot be used: %.100s", key[0],
                       key[1], key[2], key[3], lower->config->name, sentence);
}

/* Its device gave an error, which says nothing of the manifest: it is read again, for without it
 * the archive's blocks would be let go of.  Or its tier failed: that one tells of it again.  False:
 * it cannot be read. */
static bool read_again(const struct read *read, enum weft_status status)
{
    struct wf_archive_reads *reads = read->archives->reads;
    const struct wf_tier_block *block = &read->job.job.request.block;
    if (status == WEFT_OK || status == WEFT_MISS || status == WEFT_E_CORRUPT)
        return false;
    if (!read->lower->opened || read->archives->below->stopping) {
        read->lower->known = false;
        return true;
    }
    if (read->tries + 1 == READ_TRIES || reads->count == reads->capacity)
        return false;
    struct found *found = &reads->found[reads->count++];
    *found = (struct found){.lower = read->lower,
                            .bytes = (uint32_t)block->bytes,
                            .tries = read->tries + 1};
    memcpy(found->key, block->key, 32);
    reads->rest_ns = wf_now_ns() + ((uint64_t)READ_REST_NS << read->tries);
    return true;
}

static void read_done(struct wf_mover_job *job)
{
    struct read *read = (struct read *)job;
    struct wf_archives *archives = read->archives;
    const struct wf_tier_request *request = &job->job.request;
    enum weft_status status = request->status;
    bool again = read_again(read, status);
    if (status == WEFT_OK)
        status = wf_archive_keep(archives, read->lower, read->buffer, (size_t)request->block.bytes);
    if (status != WEFT_OK && !again)
        unreadable(archives, read->lower, request->block.key,
                   status == WEFT_MISS ? "the tier has it no more" : wf_last_error());
    free(read->buffer);
    read->buffer = NULL;
    archives->reads->in_flight--;
    reads_run(archives);
    if (wf_archives_settled(archives->below))
        wf_archives_opened(archives->below);
}

/* Read the next manifests. */
static void reads_run(struct wf_archives *archives)
{
    struct wf_archive_reads *reads = archives->reads;
    if (reads->count && wf_now_ns() < reads->rest_ns)
        return; /* at a tick */
    for (uint32_t i = 0; i < WF_ARCHIVE_JOBS_MAX && reads->count; i++) {
        struct read *read = &reads->all[i];
        if (read->buffer)
            continue;
        struct found found = reads->found[--reads->count];
        if (!found.bytes) {
            unreadable(archives, found.lower, found.key, "it is larger than one can be");
            continue;
        }
        memset(read, 0, sizeof *read);
        size_t room = (found.bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
        read->archives = archives;
        read->lower = found.lower;
        read->tries = found.tries;
        read->buffer = aligned_alloc(WF_TIER_ALIGN, room);
        read->job.kind = WF_MOVE_READ;
        read->job.done = read_done;
        read->job.job.class = WF_TIER_WAITED;
        memcpy(read->job.job.request.block.key, found.key, 32);
        memcpy(read->job.job.request.block.format, archives->tag, 32);
        read->job.job.request.block.bytes = found.bytes;
        read->job.job.request.block.part_bytes = wf_below_part_bytes(found.bytes);
        read->job.job.request.data = read->buffer;
        if (!read->buffer || wf_mover_submit(found.lower->mover, &read->job) != WEFT_OK) {
            free(read->buffer);
            read->buffer = NULL;
            reads->found[reads->count++] = found; /* at the next tick */
            return;
        }
        reads->in_flight++;
    }
}

bool wf_archives_settled(const struct wf_below *below)
{
    const struct wf_archive_reads *reads = below->archives->reads;
    bool all = reads->count == 0 && reads->in_flight == 0;
    for (uint32_t i = 0; i < below->count; i++)
        all &= below->tiers[i].complete || below->tiers[i].stats.state == WF_MOVER_FAILED;
    return all;
}

/* Its blocks may all be there, but who starts the node again will not know of it. */
static void gone_say(const struct wf_archives *archives, struct wf_archive_kept *kept)
{
    kept->unseen = false;
    kept->lower->manifests -= !kept->gone;
    kept->gone = true;
    wf_error("archive", "%s of domain %s: tier %s came back without its manifest; archive it again",
             kept->name, kept->domain->config->name, kept->lower->config->name);
    wf_telemetry_event(archives->below->node, kept->domain, "archive_lost",
                       "archive %.64s: tier %s came back without its manifest; archive it again",
                       kept->name, kept->lower->config->name);
}

void wf_archives_opened(struct wf_below *below)
{
    struct wf_archives *archives = below->archives;
    reads_run(archives);
    for (uint32_t i = 0; i < archives->count; i++)
        if (archives->kept[i]->unseen && archives->kept[i]->lower->complete)
            gone_say(archives, archives->kept[i]);
    if (!wf_archives_settled(below))
        return;
    for (uint32_t i = 0; i < archives->count; i++)
        if (!archives->kept[i]->whole)
            wf_archive_check(archives, archives->kept[i]);
    waiting_look(archives);
}

/* Those of a tier that failed: until it tells of them again, it has archives that nobody knows. */
static void reads_forget(struct wf_archive_reads *reads, struct wf_lower *lower)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < reads->count; i++)
        if (reads->found[i].lower != lower)
            reads->found[kept++] = reads->found[i];
    lower->known &= kept == reads->count;
    reads->count = kept;
}

void wf_archives_failed(struct wf_lower *lower)
{
    struct wf_archives *archives = lower->below->archives;
    wf_archive_spares_forget(archives);
    reads_forget(archives->reads, lower);
    for (uint32_t i = 0; i < archives->count; i++) {
        struct wf_archive_kept *kept = archives->kept[i];
        kept->unseen |= kept->lower == lower;
        kept->durable &= !kept->unseen;
        if (kept->whole)
            wf_archive_check(archives, kept);
    }
}

void wf_archives_tick(struct wf_below *below)
{
    struct wf_archives *archives = below->archives;
    uint64_t now_ns = wf_now_ns();
    reads_run(archives);
    wf_archive_runs_tick(archives);
    wf_archive_leaves_tick(archives);
    waiting_look(archives);
    if (archives->doubles && !archives->waiting)
        doubles_end(archives);
    if (archives->count == 0 || now_ns - archives->checked_ns < CHECK_NS)
        return;
    archives->checked_ns = now_ns;
    archives->check_at = (archives->check_at + 1) % archives->count;
    wf_archive_check(archives, archives->kept[archives->check_at]);
}
