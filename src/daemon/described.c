/* SPDX-License-Identifier: Apache-2.0
 *
 * What blocks stand for outside, and who was told.
 *
 * Nothing here remembers changes: `told` is compared with where the block is now, whenever someone
 * says that it may have changed, and for all of them in turn.  So no order of events can leave a
 * subscriber with something else than what is so; late at worst.
 *
 * What a subscriber was told of a chain begins with its first block: readers of events drop a block
 * whose parent they do not know.  Descriptions are kept in the order in which they came, a chain's
 * first before what extends it, and are told anew in that order.
 */
#include "daemon/described.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/table.h"
#include "core/directory.h"
#include "daemon/below.h"
#include "daemon/engines.h"
#include "sys/memory.h"

#define NONE UINT32_MAX
#define BYTES_GUESSED 256u /* of a description, to have places enough */
#define PLACES_MIN 1024u
#define PLACES_MAX (1u << 24)
#define LOOKS 4096u       /* a tick */
#define LOOKS_ANEW 16384u /* while all is told anew */
#define LOOKS_FOR_ROOM 256u

enum { CPU = 1, STORAGE = 2 };

struct place {
    uint8_t key[32];
    uint32_t next_in_table; /* the table's; of a free place: the next free one */
    uint32_t before, after; /* in the order in which they came */
    uint8_t told;           /* CPU, STORAGE */
    uint32_t format;        /* of which it was described; the node's number */
    struct wf_kv_block *block;
};

struct wf_described {
    struct wf_node *node;
    struct wf_domain *domain;
    struct wf_kvevents *events;
    struct place *places;
    struct wf_table table;
    uint32_t first_free, used; /* used: places that ever were */
    uint32_t oldest, newest;
    uint32_t looked, room_looked; /* which are looked at next; NONE: the oldest */
    bool lost;                    /* something could not be told: tell all anew */
    bool anew;                    /* it is being done */
    uint64_t bytes, bytes_max, refused, held, filled;
};

/* --------------------------------------------------------------------------------------- table */

enum weft_status wf_described_create(struct wf_node *node, struct wf_domain *domain,
                                     struct wf_kvevents *events, uint64_t bytes_max,
                                     struct wf_described **out)
{
    uint64_t places = bytes_max / BYTES_GUESSED;
    places = places < PLACES_MIN ? PLACES_MIN : places > PLACES_MAX ? PLACES_MAX : places;
    struct wf_described *described = wf_calloc(1, sizeof *described, "descriptions of blocks");
    if (!described)
        return WEFT_E_NO_MEMORY;
    *described = (struct wf_described){.node = node,
                                       .domain = domain,
                                       .events = events,
                                       .bytes_max = bytes_max,
                                       .first_free = NONE,
                                       .oldest = NONE,
                                       .newest = NONE,
                                       .looked = NONE,
                                       .room_looked = NONE};
    described->places = wf_calloc(places, sizeof *described->places, "descriptions of blocks");
    const struct wf_table_items items = {.first = described->places,
                                         .max = (uint32_t)places,
                                         .bytes = sizeof *described->places,
                                         .key_offset = offsetof(struct place, key),
                                         .next_offset = offsetof(struct place, next_in_table)};
    enum weft_status status = described->places ? wf_table_init(&described->table, &items,
                                                                node->epoch ^ (uintptr_t)described)
                                                : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK) {
        *out = described;
    } else {
        free(described->places);
        free(described);
    }
    return status;
}

void wf_described_destroy(struct wf_described *described)
{
    if (!described)
        return;
    for (uint32_t i = described->oldest; i != NONE; i = described->places[i].after)
        wf_kv_block_put(described->places[i].block);
    wf_table_fini(&described->table);
    free(described->places);
    free(described);
}

static void forget(struct wf_described *described, uint32_t i)
{
    struct place *place = &described->places[i];
    wf_table_remove(&described->table, i);
    if (place->before == NONE)
        described->oldest = place->after;
    else
        described->places[place->before].after = place->after;
    if (place->after == NONE)
        described->newest = place->before;
    else
        described->places[place->after].before = place->before;
    if (described->looked == i)
        described->looked = place->after;
    if (described->room_looked == i)
        described->room_looked = place->after;
    described->bytes -= wf_kv_block_bytes(place->block);
    described->held -= !place->block->token_count;
    wf_kv_block_put(place->block);
    place->block = NULL;
    place->next_in_table = described->first_free;
    described->first_free = i;
}

static uint32_t enter(struct wf_described *described, const uint8_t key[32],
                      struct wf_kv_block *block)
{
    uint32_t i = described->first_free;
    if (i != NONE)
        described->first_free = described->places[i].next_in_table;
    else if (described->used < described->table.items.max)
        i = described->used++;
    else
        return NONE;
    struct place *place = &described->places[i];
    *place = (struct place){.before = described->newest, .after = NONE, .block = block};
    memcpy(place->key, key, 32);
    if (described->newest == NONE)
        described->oldest = i;
    else
        described->places[described->newest].after = i;
    described->newest = i;
    described->bytes += wf_kv_block_bytes(block);
    described->held += !block->token_count;
    wf_table_insert(&described->table, i);
    return i;
}

/* -------------------------------------------------------------------------------------- telling */

static uint8_t where(const struct wf_described *described, const uint8_t key[32])
{
    uint8_t there = wf_store_find(&described->domain->store, key) == WF_SLOT_NONE ? 0 : CPU;
    uint32_t entry = wf_below_find(described->domain, key);
    if (entry != WF_DIRECTORY_NONE) {
        struct wf_directory_block block;
        wf_directory_read(described->node->below->directory, entry, &block);
        there |= block.tiers ? STORAGE : 0;
    }
    return there;
}

static bool tell(struct wf_described *described, enum wf_kv_kind kind, uint8_t where_bit,
                 struct wf_kv_block *block)
{
    const struct wf_kv_said said = {.kind = kind,
                                    .medium = where_bit == CPU       ? WF_KV_CPU
                                              : where_bit == STORAGE ? WF_KV_STORAGE
                                                                     : WF_KV_NOWHERE,
                                    .block = block};
    if (!described->lost)
        described->lost = !wf_kvevents_tell(described->events, &said);
    return !described->lost;
}

/* Tell what is not as it was told: where it came to first, then where it went from. */
static void settle(struct wf_described *described, struct place *place, uint8_t there)
{
    for (uint8_t bit = CPU; bit <= STORAGE; bit <<= 1)
        if ((there & bit) && !(place->told & bit) &&
            tell(described, WF_KV_STORED, bit, place->block))
            place->told |= bit;
    for (uint8_t bit = CPU; bit <= STORAGE; bit <<= 1)
        if (!(there & bit) && (place->told & bit) &&
            tell(described, WF_KV_REMOVED, bit, place->block))
            place->told &= (uint8_t)~bit;
}

/* Who describes bare may not know of a parent; the engine's is taken then, if it says as much of it
 * as is told of it. */
static bool parents_agree(const struct wf_node *node, const struct wf_kv_block *ours,
                          const struct wf_kv_block *engines)
{
    if (!ours->parent_bytes)
        return !engines->parent_bytes || engines->parent_bytes == ours->hash_bytes ||
               node->config.events_hashes == WF_EVENTS_NUMBERS;
    return engines->parent_bytes &&
           wf_kv_hash_number(wf_kv_block_parent(ours), ours->parent_bytes) ==
               wf_kv_hash_number(wf_kv_block_parent(engines), engines->parent_bytes);
}

static bool adapters_agree(const struct wf_kv_block *ours, const struct wf_kv_block *engines)
{
    return !ours->lora_bytes ||
           (ours->lora_bytes == engines->lora_bytes &&
            memcmp(wf_kv_block_lora(ours), wf_kv_block_lora(engines), ours->lora_bytes) == 0);
}

/* What was described without tokens becomes whole by what an engine said of that hash.  The hash
 * stays ours, which may be all of what the engine says a part of. */
static void fill(struct wf_described *described, struct place *place)
{
    struct wf_kv_block *ours = place->block,
                       *engines = wf_engines_meaning(described->node,
                                                     &described->node->formats[place->format],
                                                     wf_kv_block_hash(ours), ours->hash_bytes);
    if (!engines)
        return;
    struct wf_kv_meaning meaning = {.hash = wf_kv_block_hash(ours),
                                    .hash_bytes = ours->hash_bytes,
                                    .parent = wf_kv_block_parent(ours),
                                    .parent_bytes = ours->parent_bytes,
                                    .lora = wf_kv_block_lora(engines),
                                    .lora_bytes = engines->lora_bytes,
                                    .tokens = engines->tokens,
                                    .token_count = engines->token_count};
    if (!ours->parent_bytes && engines->parent_bytes) {
        meaning.parent = wf_kv_block_parent(engines);
        meaning.parent_bytes = engines->parent_bytes;
    }
    uint64_t bytes = described->bytes - wf_kv_block_bytes(ours);
    bool agree = parents_agree(described->node, ours, engines) && adapters_agree(ours, engines);
    struct wf_kv_block *whole = agree ? wf_kv_block_create(&meaning) : NULL;
    if (whole && bytes + wf_kv_block_bytes(whole) <= described->bytes_max) {
        described->bytes = bytes + wf_kv_block_bytes(whole);
        described->held--;
        described->filled++;
        place->block = whole;
        whole = ours;
    }
    wf_kv_block_put(whole);
    wf_kv_block_put(engines);
}

static void look(struct wf_described *described, uint32_t i)
{
    struct place *place = &described->places[i];
    if (!described->events)
        return;
    if (!place->block->token_count)
        fill(described, place);
    /* Without tokens an event says nothing that a router can match a prompt with, and one of block
     * size 0 may break it: such a block is held back until somebody describes it with them. */
    if (place->block->token_count)
        settle(described, place, where(described, place->key));
}

void wf_described_changed(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_described *described = domain->node->described;
    if (!described || described->domain != domain || described->oldest == NONE)
        return;
    uint32_t i = wf_table_find(&described->table, key);
    /* While all is told anew, what has not had its turn waits for it, behind its parent. */
    if (i != WF_TABLE_NONE && !(described->anew && !described->places[i].told))
        look(described, i);
}

static void begin_anew(struct wf_described *described)
{
    if (!wf_kvevents_room(described->events, 1))
        return;
    described->lost = false;
    for (uint32_t i = described->oldest; i != NONE; i = described->places[i].after)
        described->places[i].told = 0;
    (void)tell(described, WF_KV_CLEARED, 0, NULL);
    described->looked = described->oldest;
    described->anew = true;
}

void wf_described_tick(struct wf_described *described)
{
    if (!described || !described->events)
        return;
    if (wf_kvevents_anew(described->events) || described->lost)
        begin_anew(described);
    uint32_t looks = described->anew ? LOOKS_ANEW : LOOKS;
    if (described->lost ||
        !wf_kvevents_room(described->events,
                          4 * looks < WF_KVEVENTS_QUEUE ? 4 * looks : WF_KVEVENTS_QUEUE / 2))
        return;
    if (described->looked == NONE)
        described->looked = described->oldest;
    while (described->looked != NONE && looks-- && !described->lost) {
        uint32_t i = described->looked;
        described->looked = described->places[i].after;
        look(described, i);
    }
    described->anew &= described->looked != NONE;
}

/* ------------------------------------------------------------------------------------- describe */

/* Let go of descriptions of blocks that are nowhere, until there is room for so many bytes. */
static bool make_room(struct wf_described *described, size_t bytes)
{
    for (uint32_t looks = 0; looks < LOOKS_FOR_ROOM; looks++) {
        bool place = described->first_free != NONE || described->used < described->table.items.max;
        if (place && described->bytes + bytes <= described->bytes_max)
            return true;
        if (described->room_looked == NONE)
            described->room_looked = described->oldest;
        uint32_t i = described->room_looked;
        if (i == NONE)
            return false;
        described->room_looked = described->places[i].after;
        if (!described->places[i].told && !where(described, described->places[i].key))
            forget(described, i);
    }
    return false;
}

/* Whether what is known says all that `said` does: what comes without tokens takes none away. */
static bool adds_nothing(const struct wf_kv_block *known, const struct wf_kv_block *said)
{
    return wf_kv_block_same(known, said) ||
           (!said->token_count && known->hash_bytes == said->hash_bytes &&
            memcmp(wf_kv_block_hash(known), wf_kv_block_hash(said), said->hash_bytes) == 0);
}

/* False: there was no room. */
static bool describe(struct wf_described *described, const uint8_t key[32], uint32_t format,
                     const struct wf_kv_meaning *meaning)
{
    struct wf_kv_block *block = wf_kv_block_create(meaning);
    if (!block)
        return false;
    uint32_t i = wf_table_find(&described->table, key);
    if (i != WF_TABLE_NONE && !adds_nothing(described->places[i].block, block)) {
        settle(described, &described->places[i], 0); /* it is not what it was said to be */
        forget(described, i);
        i = WF_TABLE_NONE;
    }
    if (i != WF_TABLE_NONE) {
        wf_kv_block_put(block);
    } else {
        i = make_room(described, wf_kv_block_bytes(block)) ? enter(described, key, block) : NONE;
        if (i == NONE) {
            described->refused++;
            wf_kv_block_put(block);
            return false;
        }
        described->places[i].format = format;
    }
    if (!described->anew || described->places[i].told)
        look(described, i);
    return true;
}

static enum weft_status check(const struct wf_client *client, const struct wf_describe *request,
                              const struct wf_format_entry **out)
{
    const struct wf_node *node = client->node;
    uint64_t tokens = request->block_tokens, count = request->count;
    if (request->format >= node->format_count ||
        node->formats[request->format].domain != client->domain->id)
        return wf_fail(WEFT_E_INVALID, "format %u is not registered in this domain",
                       request->format);
    if (!count || count > WEFT_BATCH_MAX || !request->hash_bytes ||
        request->hash_bytes > WEFT_ENGINE_HASH_MAX ||
        (request->parent_bytes && request->parent_bytes != request->hash_bytes) ||
        request->lora_bytes > WEFT_LORA_NAME_MAX ||
        (tokens && tokens != node->formats[request->format].block_tokens) ||
        request->message.bytes !=
            sizeof *request + count * (32 + tokens * sizeof(uint32_t) + request->hash_bytes))
        return wf_fail(WEFT_E_PROTOCOL, "DESCRIBE: %u blocks in %u bytes do not fit each other",
                       request->count, request->message.bytes);
    *out = &node->formats[request->format];
    return WEFT_OK;
}

void wf_handle_describe(struct wf_client *client, const struct wf_describe *request)
{
    struct wf_described *described = client->node->described;
    const struct wf_format_entry *format;
    enum weft_status status = check(client, request, &format);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)client->node->answer;
    const uint8_t *keys = request->body, *tokens = keys + (size_t)request->count * 32,
                  *hashes = tokens + (size_t)request->count * request->block_tokens * 4;
    struct wf_kv_meaning meaning = {.parent = request->parent,
                                    .parent_bytes = request->parent_bytes,
                                    .lora = request->lora,
                                    .lora_bytes = request->lora_bytes,
                                    .hash_bytes = request->hash_bytes,
                                    .token_count = request->block_tokens};
    bool ours = described && described->domain == client->domain, full = false;
    answer->count = 0;
    for (uint32_t i = 0; ours && !full && i < request->count; i++) {
        meaning.hash = hashes + (size_t)i * request->hash_bytes;
        meaning.tokens = (const uint32_t *)(const void *)(tokens +
                                                          (size_t)i * request->block_tokens * 4);
        full = !describe(described, keys + (size_t)i * 32, request->format, &meaning);
        answer->count += !full;
        meaning.parent = meaning.hash;
        meaning.parent_bytes = request->hash_bytes;
    }
    wf_answer(client, &request->message, WEFT_OK, sizeof *answer, NULL, 0);
}

const struct wf_kv_block *wf_described_find(const struct wf_domain *domain, const uint8_t key[32],
                                            const struct wf_format_entry **out_format)
{
    const struct wf_node *node = domain->node;
    const struct wf_described *described = node->described;
    if (!described || described->domain != domain)
        return NULL;
    uint32_t i = wf_table_find(&described->table, key);
    if (i == WF_TABLE_NONE)
        return NULL;
    *out_format = &node->formats[described->places[i].format];
    return described->places[i].block;
}

void wf_described_figures(const struct wf_described *described, struct wf_described_figures *out)
{
    *out = (struct wf_described_figures){.blocks = described->table.count,
                                         .bytes = described->bytes,
                                         .held = described->held,
                                         .filled = described->filled,
                                         .refused = described->refused};
}
