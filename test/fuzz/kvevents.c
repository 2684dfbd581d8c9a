/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch of KV events: no bytes make the reader look beyond them; what it heard is in its bounds,
 * and written out again and read, says the same.  The table of an engine that says so keeps to its
 * room, and knows of what it counts.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/kvengines_table.h"
#include "gateway/kvevents_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SAID_MAX 256
#define TABLE_BYTES (64u << 10)

struct heard {
    uint64_t events, sum;
    struct wf_kv_said said[SAID_MAX];
    size_t said_count;
    struct wf_kv_table *table; /* NULL: none listens */
};

static uint64_t mix(uint64_t sum, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum = sum * 31 + ((const uint8_t *)bytes)[i];
    return sum;
}

static void hear(void *context, const struct wf_kv_heard *event)
{
    struct heard *heard = context;
    const struct wf_kv_meaning *meaning = &event->meaning;
    if (meaning->hash_bytes > WF_KV_HASH_MAX || meaning->parent_bytes > WF_KV_HASH_MAX ||
        meaning->lora_bytes > WF_KV_LORA_MAX || meaning->token_count > WF_KV_TOKENS_MAX ||
        (event->kind != WF_KV_CLEARED && !meaning->hash_bytes))
        abort();
    heard->events++;
    if (heard->table && event->kind == WF_KV_CLEARED)
        while (wf_kv_table_clear(heard->table, 16))
            ;
    else if (heard->table)
        wf_kv_table_hear(heard->table, event);
    heard->sum = mix(heard->sum, meaning->hash, meaning->hash_bytes);
    if (event->kind == WF_KV_STORED) {
        heard->sum = mix(heard->sum, meaning->tokens, meaning->token_count * sizeof(uint32_t));
        heard->sum = mix(heard->sum, meaning->parent, meaning->parent_bytes);
        heard->sum = mix(heard->sum, meaning->lora, meaning->lora_bytes);
    }
    if (heard->said_count < SAID_MAX)
        heard->said[heard->said_count++] =
            (struct wf_kv_said){event->kind, event->medium,
                                event->kind == WF_KV_CLEARED ? NULL : wf_kv_block_create(meaning)};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct heard first, again;
    memset(&first, 0, sizeof first);
    memset(&again, 0, sizeof again);
    struct wf_kv_table table;
    if (wf_kv_table_init(&table, TABLE_BYTES, 1) != WEFT_OK)
        abort();
    first.table = &table;
    enum weft_status status = wf_kv_decode(data, size, hear, &first);
    if (table.bytes > TABLE_BYTES || table.on_gpu > table.table.count ||
        (table.table.count == 0) != (table.bytes == 0))
        abort();
    wf_kv_table_fini(&table);
    if (table.bytes)
        abort();
    if (status != WEFT_OK) {
        if (first.events)
            abort();
        return 0;
    }
    const struct wf_kv_style style = {.arrays = size % 2};
    struct wf_kv_bytes out = {0};
    if (first.events <= SAID_MAX) {
        if (wf_kv_encode(&style, 0, first.said, first.said_count, &out) != WEFT_OK ||
            wf_kv_decode(out.data, out.bytes, hear, &again) != WEFT_OK ||
            again.events != first.events || again.sum != first.sum)
            abort();
    }
    for (size_t i = 0; i < first.said_count; i++)
        wf_kv_block_put(first.said[i].block);
    for (size_t i = 0; i < again.said_count; i++)
        wf_kv_block_put(again.said[i].block);
    free(out.data);
    return 0;
}
