/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/kvengines_table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

#define NONE UINT32_MAX
#define PLACES_MIN 1024u
#define PLACES_MAX (1u << 24)
#define PLACE_BYTES_GUESSED 128u /* with what the block stands for, to have places enough */

static_assert(WF_KV_ELSEWHERE * WF_KV_GROUPS <= 32, "a bit for each medium and group");

enum weft_status wf_kv_table_init(struct wf_kv_table *table, uint64_t bytes_max, uint64_t seed)
{
    uint64_t places = bytes_max / PLACE_BYTES_GUESSED;
    places = places < PLACES_MIN ? PLACES_MIN : places > PLACES_MAX ? PLACES_MAX : places;
    *table = (struct wf_kv_table){.first_free = NONE, .bytes_max = bytes_max};
    table->items = wf_calloc(places, sizeof *table->items, "blocks of an engine");
    const struct wf_table_items items = {.first = table->items,
                                         .max = (uint32_t)places,
                                         .bytes = sizeof *table->items,
                                         .key_offset = offsetof(struct wf_kv_place, key),
                                         .next_offset = offsetof(struct wf_kv_place,
                                                                 next_in_table)};
    if (!table->items)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = wf_table_init(&table->table, &items, seed);
    if (status != WEFT_OK) {
        free(table->items);
        table->items = NULL;
    }
    return status;
}

void wf_kv_table_fini(struct wf_kv_table *table)
{
    if (!table->items)
        return;
    while (wf_kv_table_clear(table, UINT32_MAX))
        ;
    wf_table_fini(&table->table);
    free(table->items);
    table->items = NULL;
}

static void key_of(const uint8_t *hash, size_t bytes, uint8_t out[32])
{
    uint64_t number = wf_kv_hash_number(hash, bytes);
    memset(out, 0, 32);
    memcpy(out, &number, sizeof number);
}

static uint32_t bit_of(enum wf_kv_medium medium, uint32_t group)
{
    /* Who does not say where it is, says so of its HBM: vLLM before it knew other places. */
    uint32_t place = medium == WF_KV_NOWHERE ? WF_KV_GPU : (uint32_t)medium;
    group = group < WF_KV_GROUPS ? group : WF_KV_GROUPS - 1;
    return 1u << ((place - 1) * WF_KV_GROUPS + group);
}

bool wf_kv_place_on(const struct wf_kv_place *place, enum wf_kv_medium medium)
{
    return place->places & (((1u << WF_KV_GROUPS) - 1) << (((uint32_t)medium - 1) * WF_KV_GROUPS));
}

static uint32_t find(const struct wf_kv_table *table, const uint8_t *hash, size_t bytes)
{
    uint8_t key[32];
    key_of(hash, bytes, key);
    return wf_table_find(&table->table, key);
}

const struct wf_kv_place *wf_kv_table_find(const struct wf_kv_table *table, const uint8_t *hash,
                                           size_t hash_bytes)
{
    uint32_t i = find(table, hash, hash_bytes);
    if (i == WF_TABLE_NONE)
        return NULL;
    /* Both know all of it: then all of it is compared. */
    const struct wf_kv_block *block = table->items[i].block;
    bool same = block->hash_bytes != hash_bytes ||
                memcmp(wf_kv_block_hash(block), hash, hash_bytes) == 0;
    return same ? &table->items[i] : NULL;
}

static void forget(struct wf_kv_table *table, uint32_t i)
{
    struct wf_kv_place *place = &table->items[i];
    wf_table_remove(&table->table, i);
    table->bytes -= sizeof *place + wf_kv_block_bytes(place->block);
    wf_kv_block_put(place->block);
    *place = (struct wf_kv_place){.next_in_table = table->first_free};
    table->first_free = i;
}

/* The place of a new block, or NONE: there is no room for it. */
static uint32_t enter(struct wf_kv_table *table, const struct wf_kv_heard *heard)
{
    struct wf_kv_meaning meaning = heard->meaning;
    bool plain = heard->plain && meaning.token_count;
    if (plain && meaning.parent_bytes) {
        uint32_t parent = find(table, meaning.parent, meaning.parent_bytes);
        plain = parent != WF_TABLE_NONE && table->items[parent].plain;
    }
    if (!plain)
        meaning.token_count = 0; /* nothing could be made of them: they say less than the hash */
    struct wf_kv_block *block = wf_kv_block_create(&meaning);
    uint32_t i = table->first_free;
    bool room = block && (i != NONE || table->used < table->table.items.max) &&
                table->bytes + sizeof table->items[0] + wf_kv_block_bytes(block) <=
                    table->bytes_max;
    if (!room) {
        wf_kv_block_put(block);
        return NONE;
    }
    if (i != NONE)
        table->first_free = table->items[i].next_in_table;
    else
        i = table->used++;
    table->items[i] = (struct wf_kv_place){.plain = plain, .block = block};
    key_of(meaning.hash, meaning.hash_bytes, table->items[i].key);
    table->bytes += sizeof table->items[i] + wf_kv_block_bytes(block);
    wf_table_insert(&table->table, i);
    return i;
}

void wf_kv_table_hear(struct wf_kv_table *table, const struct wf_kv_heard *heard)
{
    bool comes = heard->kind == WF_KV_STORED;
    uint32_t i = find(table, heard->meaning.hash, heard->meaning.hash_bytes);
    table->stored += comes;
    table->removed += !comes;
    if (comes && i == WF_TABLE_NONE) {
        i = enter(table, heard);
        table->dropped += i == NONE;
    }
    if (i == WF_TABLE_NONE)
        return;
    struct wf_kv_place *place = &table->items[i];
    uint32_t bit = bit_of(heard->medium, heard->group);
    bool was = wf_kv_place_on(place, WF_KV_GPU);
    place->places = comes ? place->places | bit : place->places & ~bit;
    bool is = wf_kv_place_on(place, WF_KV_GPU);
    table->on_gpu = table->on_gpu + is - was;
    if (!place->places)
        forget(table, i);
}

bool wf_kv_table_clear(struct wf_kv_table *table, uint32_t most)
{
    while (table->used && most--) {
        uint32_t i = table->used - 1;
        if (table->items[i].block)
            forget(table, i);
        table->used--;
    }
    if (table->used)
        return true;
    table->first_free = NONE; /* all of it is behind `used` */
    table->on_gpu = 0;
    return false;
}
