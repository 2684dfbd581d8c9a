/* SPDX-License-Identifier: Apache-2.0 */
#include "values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t magic[8] = {'w', 'e', 'f', 't', 'v', 'a', 'l', '1'};

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)value);
    put_u32(at + 4, (uint32_t)(value >> 32));
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get_u64(const uint8_t *at)
{
    return get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

/* Remember the first error, with libweft's sentence or with one of ours. */
static enum weft_status failed(struct values_error *error, enum weft_status status,
                               const char *sentence)
{
    if ((status < 0 || status == WEFT_FULL) && error->status == WEFT_OK) {
        error->status = status;
        snprintf(error->sentence, sizeof error->sentence, "%s",
                 sentence ? sentence : weft_last_error());
    }
    return status;
}

/* -------------------------------------------------------------------------------------- formats */

static enum weft_status open_format(struct values *store, uint64_t bytes, struct weft_format **out)
{
    const struct weft_format_spec spec = {.model = store->model,
                                          .layers = 1,
                                          .kv_heads = 1,
                                          .head_dim = 1,
                                          .dtype = WEFT_INT8,
                                          .block_tokens = 1,
                                          .block_bytes = bytes,
                                          /* a chunk may be anything: never with loss */
                                          .quality = WEFT_LOSSLESS};
    return weft_format_open(store->weft, &spec, out);
}

static enum weft_status format_of(struct values *store, uint64_t bytes, struct weft_format **out,
                                  struct values_error *error)
{
    enum weft_status status = WEFT_OK;
    pthread_mutex_lock(&store->lock);
    uint32_t low = 0, high = store->size_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (store->sizes[middle].bytes < bytes)
            low = middle + 1;
        else
            high = middle;
    }
    struct values_size *at = &store->sizes[low];
    bool there = low < store->size_count && at->bytes == bytes;
    if (!there && store->size_count == VALUES_SIZES_MAX) {
        status = failed(error, WEFT_E_LIMIT,
                        "this connector has values of 512 sizes already; give chunks one size, or "
                        "use a connector of its own for others");
    } else if (!there) {
        struct weft_format *format;
        status = failed(error, open_format(store, bytes, &format), NULL);
        if (status == WEFT_OK) {
            memmove(at + 1, at, (store->size_count - low) * sizeof *at);
            store->size_count++;
            *at = (struct values_size){bytes, format};
        }
    }
    if (status == WEFT_OK)
        *out = at->format;
    pthread_mutex_unlock(&store->lock);
    return status;
}

enum weft_status values_init(struct values *store, struct weft *weft, const char *model)
{
    memset(store, 0, sizeof *store);
    store->weft = weft;
    store->model = strdup(model);
    if (!store->model)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = open_format(store, VALUES_RECORD_BYTES, &store->records);
    if (status != WEFT_OK) {
        free(store->model);
        return status;
    }
    pthread_mutex_init(&store->lock, NULL);
    return WEFT_OK;
}

void values_fini(struct values *store)
{
    for (uint32_t i = 0; i < store->size_count; i++)
        weft_format_close(store->sizes[i].format);
    weft_format_close(store->records);
    pthread_mutex_destroy(&store->lock);
    free(store->model);
}

/* ----------------------------------------------------------------------------------------- keys */

static size_t field(uint8_t *at, char id, const void *bytes, uint32_t length)
{
    at[0] = (uint8_t)id;
    put_u32(at + 1, length);
    if (length)
        memcpy(at + 5, bytes, length);
    return 5 + (size_t)length;
}

/* Every field has a tag and a length, so that no two names share bytes. */
static enum weft_status derive(struct values *store, struct weft_format *format,
                               const struct value *v, char kind, struct weft_key *out)
{
    uint8_t identity[64 + VALUES_TEXT_MAX], bytes[8];
    size_t length = sizeof magic;
    memcpy(identity, magic, sizeof magic);
    length += field(identity + length, kind, NULL, 0);
    length += field(identity + length, 'N', v->name, v->name_bytes);
    if (kind == 'P') {
        put_u64(bytes, v->bytes);
        length += field(identity + length, 'M', v->meta, v->meta_bytes);
        length += field(identity + length, 'L', bytes, sizeof bytes);
    }
    (void)store;
    return weft_key_from_bytes(format, identity, length, out);
}

/* Of the record.  WEFT_OK: it may be looked for. */
static enum weft_status named(struct values *store, struct value *v, struct values_error *error)
{
    if (v->name_bytes == 0 || v->name_bytes > VALUES_TEXT_MAX ||
        v->meta_bytes > VALUES_TEXT_MAX - v->name_bytes)
        return failed(error, WEFT_E_INVALID,
                      "a name and its metadata have more than 2024 bytes, or the name has none");
    return failed(error, derive(store, store->records, v, 'R', &v->record_key), NULL);
}

/* Of the payload, once meta and length are known. */
static enum weft_status placed(struct values *store, struct value *v, struct weft_format **out,
                               struct values_error *error)
{
    if (v->bytes == 0)
        return failed(error, WEFT_E_INVALID, "a value of no bytes cannot be stored");
    enum weft_status status = format_of(store, v->bytes, out, error);
    return status == WEFT_OK ? failed(error, derive(store, *out, v, 'P', &v->payload_key), NULL)
                             : status;
}

/* ----------------------------------------------------------------------------------------- read */

struct held {
    struct weft_pins pins;
    bool is; /* there is something to let go of */
};

/* Hold a block, and begin to bring it up when it is below. */
static enum weft_status hold(struct weft_format *format, const struct weft_key *key,
                             struct held *out)
{
    memset(out, 0, sizeof *out);
    enum weft_status status = weft_get_keys(format, key, 1, WEFT_BLOCK_ORDER, &out->pins);
    if (status != WEFT_OK)
        return status;
    out->is = true;
    return out->pins.blocks == 1 ? WEFT_OK : WEFT_MISS;
}

static enum weft_status read_held(struct held *held, void *destination, uint64_t bytes)
{
    enum weft_status status = WEFT_OK;
    if (held->pins.loading == 0)
        status = weft_wait_block(&held->pins, 0);
    return status == WEFT_OK ? weft_pin_read(&held->pins.pins[0], destination, bytes) : status;
}

static void let_go(struct held *held)
{
    if (held->is)
        weft_pins_release(&held->pins);
    held->is = false;
}

/* A doubt about a block is a miss; what is wrong with the node or this process is an error. */
static enum weft_status missed(enum weft_status status, struct values_error *error)
{
    if (status == WEFT_E_CORRUPT || status == WEFT_E_TIMEOUT || status == WEFT_E_NOT_FOUND)
        return WEFT_MISS;
    return failed(error, status, NULL);
}

/* Is this the record of v's name? */
static bool is_of(const uint8_t *record, const struct value *v)
{
    uint32_t name_bytes = get_u32(record + 8), meta_bytes = get_u32(record + 12);
    return memcmp(record, magic, sizeof magic) == 0 && name_bytes == v->name_bytes &&
           meta_bytes <= VALUES_TEXT_MAX - name_bytes && get_u64(record + 16) > 0 &&
           memcmp(record + VALUES_RECORD_HEAD, v->name, name_bytes) == 0;
}

static bool says(const uint8_t *record, const struct value *v)
{
    return is_of(record, v) && get_u32(record + 12) == v->meta_bytes &&
           get_u64(record + 16) == v->bytes &&
           (v->meta_bytes == 0 ||
            memcmp(record + VALUES_RECORD_HEAD + v->name_bytes, v->meta, v->meta_bytes) == 0);
}

/* Read the records of all, and call `take` on each that is there.  Those below are brought up side
 * by side. */
static void read_records(struct values *store, struct value *v, uint32_t count,
                         void (*take)(struct value *v, const uint8_t *record),
                         struct values_error *error)
{
    struct held held[VALUES_GROUP];
    uint8_t record[VALUES_RECORD_BYTES];
    memset(held, 0, sizeof held);
    for (uint32_t i = 0; i < count; i++) {
        v[i].recorded = v[i].differs = false;
        v[i].status = named(store, &v[i], error);
        if (v[i].status == WEFT_OK)
            v[i].status = missed(hold(store->records, &v[i].record_key, &held[i]), error);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].status == WEFT_OK)
            v[i].status = missed(read_held(&held[i], record, sizeof record), error);
        let_go(&held[i]);
        if (v[i].status == WEFT_OK) {
            v[i].status = WEFT_MISS;
            take(&v[i], record);
        }
    }
}

static void take_same(struct value *v, const uint8_t *record)
{
    v->recorded = says(record, v);
    v->differs = !v->recorded;
    if (v->recorded)
        v->status = WEFT_OK;
}

/* Meta and length as the record has them. */
static void take_all(struct value *v, const uint8_t *record)
{
    if (!is_of(record, v))
        return;
    memcpy(v->record, record, VALUES_RECORD_BYTES);
    v->meta = v->record + VALUES_RECORD_HEAD + v->name_bytes;
    v->meta_bytes = get_u32(record + 12);
    v->bytes = get_u64(record + 16);
    v->status = WEFT_OK;
}

void values_get(struct values *store, struct value *v, uint32_t count, struct values_error *error)
{
    struct held held[VALUES_GROUP];
    struct weft_format *format;
    memset(held, 0, sizeof held);
    read_records(store, v, count, take_same, error);
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].status == WEFT_OK)
            v[i].status = placed(store, &v[i], &format, error);
        if (v[i].status == WEFT_OK)
            v[i].status = missed(hold(format, &v[i].payload_key, &held[i]), error);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].status == WEFT_OK)
            v[i].status = missed(read_held(&held[i], v[i].data, v[i].bytes), error);
        let_go(&held[i]);
    }
}

void values_look(struct values *store, struct value *v, uint32_t count, struct values_error *error)
{
    struct weft_format *format;
    read_records(store, v, count, take_all, error);
    for (uint32_t i = 0; i < count; i++) {
        size_t present = 0;
        if (v[i].status == WEFT_OK)
            v[i].status = placed(store, &v[i], &format, error);
        if (v[i].status == WEFT_OK)
            v[i].status = missed(weft_match_keys(format, &v[i].payload_key, 1, &present), error);
        if (v[i].status == WEFT_OK && !present)
            v[i].status = WEFT_MISS;
    }
}

void values_exist(struct values *store, struct value *v, uint32_t count, struct values_error *error)
{
    uint8_t record[VALUES_RECORD_BYTES];
    for (uint32_t i = 0; i < count; i++) { /* one record after the other: room for one is enough */
        v[i].record = record;
        values_look(store, &v[i], 1, error);
        v[i].record = NULL;
        v[i].meta = NULL;
        v[i].meta_bytes = 0;
    }
}

/* -------------------------------------------------------------------------------- put, remove */

/* One block of each value that is put: its payload, or its record. */
struct putting {
    struct weft_format *formats[VALUES_GROUP];
    struct weft_key keys[VALUES_GROUP];
    struct weft_slot slots[VALUES_GROUP];
};

static void write_record(uint8_t *record, const struct value *v)
{
    memset(record, 0, VALUES_RECORD_BYTES);
    memcpy(record, magic, sizeof magic);
    put_u32(record + 8, v->name_bytes);
    put_u32(record + 12, v->meta_bytes);
    put_u64(record + 16, v->bytes);
    memcpy(record + VALUES_RECORD_HEAD, v->name, v->name_bytes);
    if (v->meta_bytes)
        memcpy(record + VALUES_RECORD_HEAD + v->name_bytes, v->meta, v->meta_bytes);
}

static bool holds(const struct weft_slot *slot)
{
    return slot->status == WEFT_OK || slot->status == WEFT_EXISTS;
}

/* The next run, behind *end, of values that are `wanted` and whose blocks have one format. */
static bool next_run(const struct putting *blocks, const bool *wanted, uint32_t count,
                     uint32_t *first, uint32_t *end)
{
    for (*first = *end; *first < count && !wanted[*first];)
        ++*first;
    for (*end = *first; *end < count && wanted[*end];) {
        if (blocks->formats[*end] != blocks->formats[*first])
            break;
        ++*end;
    }
    return *first < count;
}

/* Ask room for a block of each value that is `wanted`.  Who gets none is not stored. */
static void reserve(struct putting *blocks, struct value *v, const bool *wanted, uint32_t count,
                    struct values_error *error)
{
    for (uint32_t first = 0, end = 0; next_run(blocks, wanted, count, &first, &end);) {
        enum weft_status status = failed(error,
                                         weft_reserve_keys(blocks->formats[first], NULL,
                                                           blocks->keys + first, end - first, 0,
                                                           blocks->slots + first),
                                         NULL);
        for (uint32_t i = first; i < end; i++) {
            if (status != WEFT_OK)
                blocks->slots[i] = (struct weft_slot){.status = status};
            if (holds(&blocks->slots[i]))
                continue;
            v[i].status = failed(error, blocks->slots[i].status,
                                 "the node has no room for it now: what could go is in use or "
                                 "worth more");
        }
    }
}

/* Give back what is held for values that are not stored after all. */
static void give_up(struct putting *blocks, const struct value *v, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct weft_slot *slot = &blocks->slots[i];
        if (v[i].status != WEFT_OK && holds(slot)) {
            weft_abort_slots(blocks->formats[i], slot, 1);
            *slot = (struct weft_slot){.status = WEFT_MISS};
        }
    }
}

/* Publish the blocks of the values that are still to be stored. */
static void commit(struct putting *blocks, struct value *v, uint32_t count,
                   struct values_error *error)
{
    bool wanted[VALUES_GROUP] = {false};
    give_up(blocks, v, count);
    for (uint32_t i = 0; i < count; i++)
        wanted[i] = v[i].status == WEFT_OK;
    for (uint32_t first = 0, end = 0; next_run(blocks, wanted, count, &first, &end);) {
        enum weft_status status = failed(error,
                                         weft_commit_slots(blocks->formats[first],
                                                           blocks->slots + first, end - first),
                                         NULL);
        for (uint32_t i = first; i < end; i++) {
            if (status != WEFT_OK)
                v[i].status = status;
            else if (!holds(&blocks->slots[i]))
                v[i].status = failed(error, blocks->slots[i].status,
                                     "the node did not take a block");
        }
    }
}

/* Room for both blocks of each, before one of them is there: a block that is reserved, or was there
 * and is to be put, stays; one that was just committed may be what goes for the other.  Records
 * first, since in a domain whose writes are copied payloads may take all of the staging memory; but
 * one that says something else goes only when the payload has its room. */
static void reserve_both(struct values *store, struct putting *records, struct putting *payloads,
                         struct value *v, uint32_t count, struct values_error *error)
{
    bool wanted[VALUES_GROUP] = {false};
    for (uint32_t i = 0; i < count; i++)
        wanted[i] = v[i].status == WEFT_OK && !v[i].differs;
    reserve(records, v, wanted, count, error);
    for (uint32_t i = 0; i < count; i++)
        wanted[i] = v[i].status == WEFT_OK;
    reserve(payloads, v, wanted, count, error);
    for (uint32_t i = 0; i < count; i++) {
        size_t removed;
        wanted[i] = v[i].status == WEFT_OK && v[i].differs;
        enum weft_status gone = wanted[i] ? weft_remove(store->records, &v[i].record_key, &removed)
                                          : WEFT_OK;
        if (gone < 0 && gone != WEFT_E_NOT_FOUND) {
            v[i].status = failed(error, gone, NULL);
            wanted[i] = false;
        }
    }
    reserve(records, v, wanted, count, error);
    give_up(payloads, v, count);
}

void values_put(struct values *store, struct value *v, uint32_t count, struct values_error *error)
{
    struct putting records, payloads;
    read_records(store, v, count, take_same, error);
    for (uint32_t i = 0; i < count; i++) {
        records.slots[i] = payloads.slots[i] = (struct weft_slot){.status = WEFT_MISS};
        if (v[i].status >= 0)
            v[i].status = placed(store, &v[i], &payloads.formats[i], error);
        records.formats[i] = store->records;
        records.keys[i] = v[i].record_key;
        payloads.keys[i] = v[i].payload_key;
    }
    reserve_both(store, &records, &payloads, v, count, error);
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].status == WEFT_OK && payloads.slots[i].status == WEFT_OK)
            memcpy(payloads.slots[i].data, v[i].data, v[i].bytes);
        if (v[i].status == WEFT_OK && records.slots[i].status == WEFT_OK)
            write_record(records.slots[i].data, &v[i]);
    }
    commit(&payloads, v, count, error);
    commit(&records, v, count, error);
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].status != WEFT_OK || v[i].recorded || records.slots[i].status != WEFT_EXISTS)
            continue;
        read_records(store, &v[i], 1, take_same, error); /* somebody was faster: is it the same? */
        if (v[i].status == WEFT_MISS)
            v[i].status = failed(error, WEFT_E_BUSY,
                                 "another value is being stored under the same name");
    }
}

void values_remove(struct values *store, struct value *v, uint32_t count,
                   struct values_error *error)
{
    uint8_t record[VALUES_RECORD_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        struct weft_format *format;
        size_t removed;
        v[i].record = record;
        read_records(store, &v[i], 1, take_all, error);
        if (v[i].status == WEFT_OK) {
            v[i].status = missed(weft_remove(store->records, &v[i].record_key, &removed), error);
            /* The name is free now; a payload that somebody still reads goes by itself. */
            if (v[i].status == WEFT_OK && placed(store, &v[i], &format, error) == WEFT_OK &&
                weft_remove(format, &v[i].payload_key, &removed) != WEFT_OK)
                v[i].status = WEFT_OK;
        }
        v[i].record = NULL;
        v[i].meta = NULL;
        v[i].meta_bytes = 0;
    }
}
