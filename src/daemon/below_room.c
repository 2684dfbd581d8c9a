/* SPDX-License-Identifier: Apache-2.0
 *
 * Room on a tier: how much there is, whose block goes when there is too little, and where to.
 *
 * Domains share tiers as they share the pool (core/share.h), but that floors are of DRAM: each is
 * due its part by weight, and what one of them does not use, others may.  When room is needed it
 * comes from who has more than its part, so no domain can push out what another has within its own.
 * An archive is never pushed out; so nobody may archive more than its part.
 */
#include "daemon/archive.h"
#include "daemon/below.h"

#include "base/hooks.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define VICTIMS_MAX 64u                   /* let go for one block's room */
#define FULL_PERCENT 92u                  /* a log needs room to move in, */
#define SPARE_BYTES ((uint64_t)512 << 20) /* and some segments in any case */
#define LENT_SPARE_PART \
    32u /* what others lend has nothing to move; how much it is, is a moment old */
#define EXPANSION_BYTES_LEAST (1u << 20)
#define EXPANSION_MOST 64.0
#define EXPANSION_LEAST (1 / 64.0) /* blocks may lie there encoded */

uint64_t wf_lower_capacity(const struct wf_lower *lower)
{
    uint64_t capacity = lower->stats.tier.capacity_bytes;
    return capacity ? capacity : UINT64_MAX;
}

bool wf_lower_fits(const struct wf_lower *lower, uint64_t bytes)
{
    uint64_t most = lower->stats.tier.block_bytes_max; /* 0: it has not said yet */
    return !most || bytes <= most;
}

uint64_t wf_lower_most_bytes(const struct wf_lower *lower)
{
    uint64_t capacity = wf_lower_capacity(lower);
    if (capacity == UINT64_MAX)
        return capacity;
    if (lower->config->remote)
        return capacity - capacity / LENT_SPARE_PART;
    uint64_t spare = capacity / 8 < SPARE_BYTES ? capacity / 8 : SPARE_BYTES;
    return capacity / 100 * FULL_PERCENT - spare;
}

/* Blocks are decoded to go to memory that others lend: not what lost something by a profile that is
 * not here. */
static bool may_go_there(const struct wf_lower *lower, const struct wf_directory_block *block,
                         const struct wf_lower *next)
{
    bool lossy = wf_directory_quality(block, lower->number) > WEFT_LOSSLESS;
    return !next->config->remote || !lossy || block->good >> lower->number & 1;
}

/* The next tier down that takes what this one lets go. */
static struct wf_lower *next_of(struct wf_lower *lower, const struct wf_directory_block *block)
{
    struct wf_below *below = lower->below;
    const struct wf_domain *domain = &below->node->domains[block->domain];
    uint64_t bytes = block->bytes;
    bool after = false;
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *next = &below->tiers[below->order[i]];
        if (after && wf_lower_usable(next) && next->config->admit != WF_ADMIT_NEVER &&
            wf_lower_fits(next, bytes) && next->full_until_ns < wf_now_ns() &&
            may_go_there(lower, block, next) && wf_lower_wants(next, block) &&
            wf_lower_room(next, domain, bytes))
            return next;
        after |= next == lower;
    }
    return NULL;
}

/* What so many bytes of payload take there, with headers and padding, and encoded if blocks are. */
static uint64_t taken(const struct wf_lower *lower, uint64_t bytes)
{
    return (uint64_t)((double)bytes * lower->expansion);
}

/* Whose room it is for; bytes 0: it is entries that are missing, not bytes. */
struct wish {
    const struct wf_domain *domain;
    uint64_t bytes;
};

/* Whose block goes: who has more than its part there, with what is to come.  UINT16_MAX: nobody
 * has.  False: nobody's goes for this. */
static bool over_part(const struct wf_lower *lower, const struct wish *wish, uint16_t *who)
{
    const struct wf_node *node = lower->below->node;
    struct wf_share shares[WF_DOMAINS_MAX];
    uint64_t due[WF_DOMAINS_MAX], used = 0;
    bool of_blocks = wish->bytes == 0;
    double most = of_blocks ? node->config.below_max : (double)wf_lower_most_bytes(lower);
    uint64_t wanted = of_blocks ? 1 : taken(lower, wish->bytes);
    *who = UINT16_MAX;
    if (node->domain_count == 1)
        return true;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        struct wf_directory_sum sum;
        wf_directory_sum(lower->below->directory, lower->number, (uint16_t)i, &sum);
        sum.bytes += lower->writing_of[i];
        due[i] = (uint64_t)(most * node->domains[i].part);
        shares[i] = (struct wf_share){.used = of_blocks ? sum.blocks : taken(lower, sum.bytes),
                                      .ceiling = UINT64_MAX,
                                      .class = node->domains[i].config->priority,
                                      .hurried = node->domains[i].hurried > 0,
                                      .gives = sum.blocks > sum.archived_blocks};
        used += shares[i].used;
    }
    struct wf_share_verdict said;
    wf_share_decide(shares, due, node->domain_count, used, wish->domain->id, wanted, &said);
    bool over = said.rule == WF_SHARE_BORROWED ||
                (said.rule == WF_SHARE_OWN && said.used + wanted > said.due);
    if (over)
        *who = (uint16_t)said.who;
    return said.rule != WF_SHARE_REFUSED;
}

/* The block that goes; WF_DIRECTORY_NONE: none.  Who has more than its part and nothing that may go
 * now, as it is all under way, has to wait, and takes nobody else's; nor does who asks for room
 * take that of a third, but its own. */
static uint32_t victim_of(const struct wf_lower *lower, const struct wish *wish)
{
    struct wf_directory *directory = lower->below->directory;
    uint16_t who;
    if (!over_part(lower, wish, &who))
        return WF_DIRECTORY_NONE;
    uint32_t entry = wf_directory_victim(directory, lower->number, who);
    if (entry == WF_DIRECTORY_NONE && who != wish->domain->id)
        entry = wf_directory_victim(directory, lower->number, (uint16_t)wish->domain->id);
    return entry;
}

bool wf_lower_may_archive(const struct wf_lower *lower, const struct wf_domain *domain,
                          uint32_t blocks, uint64_t bytes)
{
    struct wf_directory_sum sum;
    double part = domain->part;
    if (domain->node->domain_count == 1)
        return true;
    wf_directory_sum(lower->below->directory, lower->number, (uint16_t)domain->id, &sum);
    return (double)taken(lower, sum.archived_bytes + bytes) <=
               part * (double)wf_lower_most_bytes(lower) &&
           (double)(sum.archived_blocks + blocks) <= part * domain->node->config.below_max;
}

uint64_t wf_lower_archive_room(const struct wf_lower *lower)
{
    struct wf_directory_sum sum;
    uint64_t capacity = wf_lower_most_bytes(lower);
    wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    uint64_t stays = taken(lower, sum.archived_bytes + lower->foreign_bytes) + lower->aside_bytes;
    return capacity > stays ? (uint64_t)((double)(capacity - stays) / lower->expansion) : 0;
}

/* Does it extend the block that somebody asked to go down?  Its own chain makes no room for that,
 * but by going further down: from the end on it would leave DRAM, and then the tier, until all of
 * it had gone. */
static bool extends_asked(struct wf_below *below, uint32_t entry)
{
    const struct wf_domain *domain = below->asked_of;
    const struct wf_desc *desc = domain ? domain->store.index.desc : NULL;
    struct wf_directory_block block;
    uint32_t slot = WF_SLOT_NONE;
    for (; domain && slot == WF_SLOT_NONE && entry != WF_DIRECTORY_NONE; entry = block.parent) {
        wf_directory_read(below->directory, entry, &block);
        if (block.domain != domain->id)
            return false;
        if (block.in_dram)
            slot = wf_store_find(&domain->store, block.key);
    }
    while (slot != WF_SLOT_NONE && slot != below->asked)
        slot = atomic_load_explicit(&desc[slot].parent, memory_order_relaxed);
    below->asked_full |= slot != WF_SLOT_NONE;
    return slot != WF_SLOT_NONE;
}

/* Let one block go, to the next tier or for good.  False: none may, or not now. */
static bool let_go(struct wf_lower *lower, const struct wish *wish)
{
    struct wf_below *below = lower->below;
    struct wf_directory_block block;
    if (!wf_archives_settled(below)) /* it is not known yet what may go */
        return false;
    if (!wf_lower_may_remove(lower))
        return false;
    if (wf_archives_waiting(below) && wf_archive_tiers(below) >> lower->number & 1)
        return false;
    if (wish->bytes && wf_below_orphan_go(lower))
        return true;
    uint32_t entry = victim_of(lower, wish);
    if (entry == WF_DIRECTORY_NONE)
        entry = wf_archive_spare(lower);
    if (entry == WF_DIRECTORY_NONE)
        return false;
    wf_directory_read(below->directory, entry, &block);
    /* Blocks of DRAM would push out each other, and in the end the ends of chains their beginnings.
     */
    if (block.in_dram && below->node->draining && wf_demote_swept(below))
        return false;
    /* A node that stops takes no comfort from what DRAM has. */
    bool last = block.tiers == 1u << lower->number && (!block.in_dram || below->node->draining);
    struct wf_lower *next = last ? next_of(lower, &block) : NULL;
    if (next)
        return wf_move_down(lower, next, entry);
    if (extends_asked(below, entry))
        return false;
    if (last && wf_below_opening(below)) /* who knows what can be moved where in a moment */
        return false;
    struct wf_block_move move = {.what = "let_go",
                                 .reason = last ? "cold" : "spare",
                                 .tier = lower->config->name,
                                 .bytes = block.bytes};
    wf_telemetry_moved(&below->node->domains[block.domain], block.key, &move);
    lower->evicted++;
    below->dropping = "parent";
    wf_lower_remove(lower, block.key);
    WF_CRASH("below.let_go");
    wf_directory_lose(below->directory, entry, lower->number);
    return true;
}

/* As the tier has it, of all that it holds now but manifests.  How many blocks those are is its own
 * count, too: it hears later than the directory what is to go, and what has come it knows before.
 */
void wf_lower_measure(struct wf_lower *lower)
{
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, UINT16_MAX, &sum);
    const struct wf_tier_stats *tier = &lower->stats.tier;
    if (sum.bytes < EXPANSION_BYTES_LEAST || tier->blocks <= lower->manifests ||
        tier->used_bytes <= lower->aside_bytes)
        return;
    double blocks = (double)(tier->blocks - lower->manifests);
    double payload = (double)sum.bytes / (double)sum.blocks * blocks;
    double expansion = (double)(tier->used_bytes - lower->aside_bytes) / payload;
    lower->expansion = expansion < EXPANSION_LEAST  ? EXPANSION_LEAST
                       : expansion > EXPANSION_MOST ? EXPANSION_MOST
                                                    : expansion;
}

/* Each block on its way needs an entry, and at times one for its parent. */
static bool entries_full(const struct wf_below *below)
{
    uint32_t coming = 2 * wf_demotes_busy(below) + 2;
    return wf_directory_entries(below->directory) + coming > below->node->config.below_max;
}

/* What would be taken there with so many bytes more. */
static uint64_t taken_with(const struct wf_lower *lower, uint64_t bytes)
{
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, UINT16_MAX, &sum);
    return taken(lower, sum.bytes + lower->foreign_bytes + lower->orphan_bytes +
                            lower->writing_bytes + bytes) +
           lower->aside_bytes;
}

void wf_lower_make_room(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes)
{
    const struct wish wish = {.domain = domain, .bytes = bytes};
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, UINT16_MAX, &sum);
    uint64_t least = sum.bytes > bytes ? sum.bytes - bytes : 0;
    for (uint32_t i = 0; i < VICTIMS_MAX && sum.bytes > least && let_go(lower, &wish); i++)
        wf_directory_sum(lower->below->directory, lower->number, UINT16_MAX, &sum);
}

uint32_t wf_lower_coldest(const struct wf_lower *lower, const struct wf_domain *domain,
                          uint64_t bytes)
{
    struct wish wish = {.domain = domain};
    if (!entries_full(lower->below)) {
        uint64_t wanted = taken_with(lower, bytes + lower->claimed_bytes);
        if (wanted <= wf_lower_most_bytes(lower))
            return WF_DIRECTORY_NONE;
        wish.bytes = bytes;
        if (lower->orphan_bytes && lower->below->orphans_told) /* these go first */
            return WF_DIRECTORY_NONE;
    }
    return victim_of(lower, &wish);
}

bool wf_lower_room(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes)
{
    return wf_lower_room_claimed(lower, domain, bytes + lower->claimed_bytes);
}

bool wf_lower_room_claimed(struct wf_lower *lower, const struct wf_domain *domain, uint64_t bytes)
{
    const struct wish entry = {.domain = domain}, room = {.domain = domain, .bytes = bytes};
    uint64_t capacity = wf_lower_most_bytes(lower);
    for (uint32_t i = 0; entries_full(lower->below); i++)
        if (i == VICTIMS_MAX || !let_go(lower, &entry))
            return false;
    if (capacity == UINT64_MAX)
        return true;
    for (uint32_t i = 0; i <= VICTIMS_MAX; i++) {
        uint64_t wanted = taken_with(lower, bytes);
        if (wanted <= capacity)
            return true;
        /* What is on its way to the next tier makes room when it is there, and not before. */
        if (wanted <= capacity + taken(lower, lower->leaving_bytes) || i == VICTIMS_MAX ||
            !let_go(lower, &room))
            return false;
    }
    return false;
}

/* Its copies on those tiers go.  False: not all of them now. */
static bool replace_on(struct wf_domain *domain, const uint8_t key[32], uint32_t entry,
                       const struct wf_directory_block *block, unsigned tiers)
{
    struct wf_below *below = domain->node->below;
    for (; tiers; tiers &= tiers - 1) {
        struct wf_lower *lower = &below->tiers[__builtin_ctz(tiers)];
        const char *why = block->fit >> lower->number & 1 ? "profile" : "quality";
        if (!wf_lower_may_remove(lower))
            return false;
        struct wf_block_move move = {.what = "let_go",
                                     .reason = why,
                                     .tier = lower->config->name,
                                     .bytes = block->bytes};
        wf_telemetry_moved(domain, key, &move);
        below->dropping = why;
        wf_directory_lose(below->directory, entry, lower->number);
        wf_lower_remove(lower, key);
        if (wf_below_find(domain, key) == WF_DIRECTORY_NONE)
            break; /* that was its last place, and nothing extends it */
    }
    return true;
}

bool wf_below_replace(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return true;
    wf_directory_read(domain->node->below->directory, entry, &block);
    unsigned unfit = block.tiers & ~(unsigned)block.good;
    if (unfit && (block.archives || block.holds || !block.in_dram))
        return false;
    return replace_on(domain, key, entry, &block, unfit);
}

bool wf_below_make_way(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return true;
    wf_directory_read(below->directory, entry, &block);
    unsigned unread = block.fit & ~(unsigned)block.good;
    if (!block.in_dram || !unread)
        return true;
    wf_archive_missed(below, domain, entry); /* what was flushed of it is not what will be there */
    return replace_on(domain, key, entry, &block, unread);
}
