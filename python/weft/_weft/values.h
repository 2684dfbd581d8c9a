/* SPDX-License-Identifier: Apache-2.0
 *
 * Values: payloads of any length under names that an engine made.  Nothing of Python in here.
 *
 * A block's size is its format's, and an engine's chunks have many sizes; who asks whether a name
 * is there does not know the size.  So each value is two blocks:
 *
 *     record   RECORD_BYTES, by the name alone      payload   exactly `bytes`, by all of the record
 *     ┌──────────┬──────┬──────┬───────┬──────┐     ┌───────────────────────────┐
 *     │ weftval1 │ name │ meta │ bytes │ name │     │ as it was given           │
 *     │ 8        │ u32  │ u32  │ u64   │ meta │     │                           │
 *     └──────────┴──────┴──────┴───────┴──────┘     └───────────────────────────┘
 *
 * What is asked for must be what the record says, byte for byte, name, meta and length, and the
 * payload's key has all three in it; whatever differs is a miss.  Room for both is reserved before
 * either is committed, so that making room for one never takes the other: a value that has not both
 * is not stored, and its put says so.  The payload is committed before its record: a writer that
 * dies in between leaves nothing that anybody finds.  Later either may be evicted by itself, which
 * is a miss.
 *
 * Any thread may use a store; up to VALUES_GROUP values a call.
 */
#ifndef WEFT_PYTHON_VALUES_H
#define WEFT_PYTHON_VALUES_H

#include <pthread.h>
#include <stdbool.h>

#include "weft/weft.h"

#define VALUES_GROUP 16u
#define VALUES_RECORD_BYTES 2048u
#define VALUES_RECORD_HEAD 24u
#define VALUES_TEXT_MAX (VALUES_RECORD_BYTES - VALUES_RECORD_HEAD) /* name and meta together */
#define VALUES_SIZES_MAX 512u /* payload sizes of one store; each is a format of the node's */

struct values {
    struct weft *weft;
    char *model;
    struct weft_format *records;
    pthread_mutex_t lock; /* guards what follows */
    struct values_size {
        uint64_t bytes;
        struct weft_format *format;
    } sizes[VALUES_SIZES_MAX]; /* in order of bytes */
    uint32_t size_count;
};

struct value {
    const uint8_t *name, *meta;
    uint32_t name_bytes, meta_bytes;
    uint8_t *data; /* to read from, or to write to */
    uint64_t bytes;
    /* WEFT_OK: it is there, as asked.  WEFT_MISS.  WEFT_FULL: no room.  Else an error */
    enum weft_status status;
    uint8_t *record; /* for look: VALUES_RECORD_BYTES */
    /* private */
    struct weft_key record_key, payload_key;
    bool recorded, differs;
};

/* The sentence of the first error of a call. */
struct values_error {
    enum weft_status status;
    char sentence[320];
};

/* `model` is part of every key. */
enum weft_status values_init(struct values *store, struct weft *weft, const char *model);
void values_fini(struct values *store);

/* Each sets every value's status. */
void values_put(struct values *store, struct value *v, uint32_t count, struct values_error *error);
/* Copies whole and verified payloads; what `data` has after a status other than WEFT_OK is nothing
 * to be used. */
void values_get(struct values *store, struct value *v, uint32_t count, struct values_error *error);
/* Of the name; `meta` and `bytes` are not looked at. */
void values_exist(struct values *store, struct value *v, uint32_t count,
                  struct values_error *error);
/* The same, and points `meta` and sets `bytes` of what is there; `meta` points into `record`. */
void values_look(struct values *store, struct value *v, uint32_t count, struct values_error *error);
/* Of the name, whatever its meta and length.  WEFT_MISS: was not there.  WEFT_E_BUSY: somebody
 * reads it now. */
void values_remove(struct values *store, struct value *v, uint32_t count,
                   struct values_error *error);

#endif
