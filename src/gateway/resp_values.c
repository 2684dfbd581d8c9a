/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands about values: GET, SET and their kin.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/resp_inner.h"

#define PINS_HERE 8 /* of a value of few pieces; others want memory */

/* ----------------------------------------------------------------------------------------- read */

/* TOLD_NOT: it is there and cannot be had now, which the caller says. */
enum told { TOLD, TOLD_WAIT, TOLD_NOT };

/* The pins of a value that is all in DRAM, or was brought there for us; else why not.
 * WEFT_E_BUSY: the node says that it is there, and it did not come up from below. */
static enum weft_status value_hold(const struct wf_resp_call *call, struct wf_resp_entry *entry,
                                   struct weft_pin *pins)
{
    struct wf_resp_blob *blob = entry->blob;
    struct weft_pin *loaded = wf_resp_load_take(call->conn, blob);
    if (loaded) {
        memcpy(pins, loaded, blob->count * sizeof *pins);
        wf_resp_load_forget(call->conn);
        return WEFT_OK;
    }
    enum weft_status status = wf_resp_blob_pin(call->store->pool, blob, pins);
    if (status == WEFT_PENDING && wf_resp_load_failed(call->conn, blob))
        status = WEFT_E_BUSY;
    return status;
}

/* Answer with the value of an entry whose blocks may be anywhere.  The caller holds the lock. */
static enum told blob_tell(const struct wf_resp_call *call, struct wf_resp_entry *entry)
{
    struct weft_pin here[PINS_HERE], *pins = here;
    struct wf_resp_blob *blob = entry->blob;
    if (blob->count > PINS_HERE)
        pins = calloc(blob->count, sizeof *pins);
    enum weft_status status = pins ? value_hold(call, entry, pins) : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK)
        wf_resp_pinned(call->conn, blob, call->store->pool, pins);
    if (pins != here)
        free(pins);
    if (status == WEFT_OK) {
        wf_resp_count(&call->conn->lane->resp->tally.hits, 1);
        return TOLD;
    }
    if (status == WEFT_PENDING && wf_resp_load_submit(call->conn, blob))
        return TOLD_WAIT;
    wf_resp_load_forget(call->conn);
    if (status != WEFT_MISS)
        return TOLD_NOT;
    wf_resp_count(&call->store->counters->lost, 1);
    wf_resp_remove(call->store, entry);
    wf_resp_nil(call->conn);
    return TOLD;
}

/* Its key stays: what did not come may come the next time.  Who reads answers by the byte
 * (LMCache's native client) takes no error for a value, so it is nil but for who would rather hear
 * it. */
static void not_now(const struct wf_resp_call *call)
{
    if (call->conn->lane->resp->options.strict)
        wf_resp_error(call->conn,
                      "ERR the value is there, but could not be read from the tiers below now; "
                      "ask again");
    else
        wf_resp_nil(call->conn);
}

/* Answer with the value of a key, or nil.  The caller holds the lock. */
static enum told value_tell(const struct wf_resp_call *call, const struct wf_resp_key *key)
{
    struct wf_resp_conn *conn = call->conn;
    struct wf_resp_entry *entry = wf_resp_find(call->store, key, conn->lane->unix_ms);
    if (!entry) {
        wf_resp_nil(conn);
        return TOLD;
    }
    entry->used = true;
    if (entry->blob)
        return blob_tell(call, entry);
    wf_resp_count(&conn->lane->resp->tally.hits, 1);
    wf_resp_bulk(conn, wf_resp_value(entry), entry->value_bytes);
    return TOLD;
}

enum wf_resp_done wf_resp_get(struct wf_resp_call *call)
{
    const struct wf_resp_key key = wf_resp_key(call, 1);
    pthread_mutex_lock(&call->store->lock);
    enum told told = value_tell(call, &key);
    pthread_mutex_unlock(&call->store->lock);
    if (told == TOLD_WAIT)
        return WF_RESP_WAIT;
    if (told == TOLD_NOT)
        not_now(call);
    wf_resp_count(&call->conn->lane->resp->tally.gets, 1);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_getdel(struct wf_resp_call *call)
{
    const struct wf_resp_key key = wf_resp_key(call, 1);
    pthread_mutex_lock(&call->store->lock);
    enum told told = value_tell(call, &key);
    struct wf_resp_entry *entry = told == TOLD
                                      ? wf_resp_find(call->store, &key, call->conn->lane->unix_ms)
                                      : NULL;
    if (entry)
        wf_resp_remove(call->store, entry); /* what is being sent stays until it is */
    pthread_mutex_unlock(&call->store->lock);
    if (told == TOLD_WAIT)
        return WF_RESP_WAIT;
    if (told == TOLD_NOT)
        not_now(call);
    wf_resp_count(&call->conn->lane->resp->tally.gets, 1);
    return WF_RESP_DONE;
}

/* `progress` is how many keys were answered for, and one more.  What cannot be had now is nil, as
 * no client looks for an error inside of the answer; its key stays. */
enum wf_resp_done wf_resp_mget(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    if (!conn->progress) {
        wf_resp_array(conn, call->count - 1);
        conn->progress = 1;
    }
    enum told told = TOLD;
    pthread_mutex_lock(&call->store->lock);
    while (conn->progress < call->count && !wf_resp_out_full(&conn->out)) {
        const struct wf_resp_key key = wf_resp_key(call, conn->progress);
        told = value_tell(call, &key);
        if (told == TOLD_WAIT)
            break;
        if (told == TOLD_NOT)
            wf_resp_nil(conn);
        conn->progress++;
        wf_resp_count(&conn->lane->resp->tally.gets, 1);
    }
    pthread_mutex_unlock(&call->store->lock);
    return told == TOLD_WAIT              ? WF_RESP_WAIT
           : conn->progress < call->count ? WF_RESP_AGAIN
                                          : WF_RESP_DONE;
}

enum wf_resp_done wf_resp_strlen(struct wf_resp_call *call)
{
    const struct wf_resp_key key = wf_resp_key(call, 1);
    pthread_mutex_lock(&call->store->lock);
    struct wf_resp_entry *entry = wf_resp_find(call->store, &key, call->conn->lane->unix_ms);
    uint64_t length = entry && wf_resp_there(call->store, entry) ? wf_resp_length(entry) : 0;
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_integer(call->conn, (int64_t)length);
    return WF_RESP_DONE;
}

/* ---------------------------------------------------------------------------------------- write */

struct put {
    struct wf_resp_key key;
    uint32_t value; /* argument */
    uint64_t expires_ms;
    bool keep_ttl, only_new, only_there, get;
};

/* What a long argument was read into, ours from now on; NULL: there was no room for it. */
static struct wf_resp_blob *away_take(const struct wf_resp_call *call, uint32_t index)
{
    uint32_t number = call->arguments[index].at;
    if (number >= call->conn->away_count)
        return NULL;
    struct wf_resp_blob *blob = call->conn->aways[number];
    call->conn->aways[number] = NULL;
    return blob;
}

static bool key_fits(const struct wf_resp_call *call, uint32_t index)
{
    return !call->arguments[index].away && call->arguments[index].length <= WF_RESP_KEY_MAX;
}

/* A value takes the place of what was there.  Without room for it, what was there goes all the
 * same, or else an old value would be read for a new one.  The caller holds the lock.  False: it
 * was not stored. */
static bool value_put(const struct wf_resp_call *call, const struct put *put)
{
    const struct wf_resp_argument *argument = &call->arguments[put->value];
    struct wf_resp_blob *blob = argument->away ? away_take(call, put->value) : NULL;
    wf_resp_count(&call->conn->lane->resp->tally.sets, 1);
    if (argument->away && !blob) {
        struct wf_resp_entry *old = wf_resp_find(call->store, &put->key, 0);
        if (old)
            wf_resp_remove(call->store, old);
        wf_resp_count(&call->conn->lane->resp->tally.dropped, 1);
        return false;
    }
    if (blob)
        wf_resp_blob_end(call->store->pool, blob);
    return wf_resp_put(call->store, &put->key, blob ? NULL : wf_resp_argument(call, put->value),
                       blob ? 0 : argument->length, blob, put->expires_ms);
}

static bool no_room(const struct wf_resp_call *call, uint32_t value)
{
    uint32_t number = call->arguments[value].at;
    return call->arguments[value].away &&
           (number >= call->conn->away_count || !call->conn->aways[number]);
}

static void out_of_memory(const struct wf_resp_call *call)
{
    wf_resp_count(&call->conn->lane->resp->tally.dropped, 1);
    wf_resp_error(call->conn, "OOM command not allowed: the pool has no room for this value now");
}

/* What GET says of what was there goes before; if it cannot be said, nothing is stored. */
static enum wf_resp_done put_run(const struct wf_resp_call *call, struct put *put)
{
    struct wf_resp_conn *conn = call->conn;
    struct wf_resp_store *store = call->store;
    if (!key_fits(call, 1)) {
        wf_resp_error(conn, "ERR a key of more than %u bytes", WF_RESP_KEY_MAX);
        return WF_RESP_DONE;
    }
    put->key = wf_resp_key(call, 1);
    pthread_mutex_lock(&store->lock);
    enum told told = put->get ? value_tell(call, &put->key) : TOLD;
    if (told != TOLD) {
        pthread_mutex_unlock(&store->lock);
        if (told == TOLD_NOT)
            not_now(call);
        return told == TOLD_WAIT ? WF_RESP_WAIT : WF_RESP_DONE;
    }
    struct wf_resp_entry *old = wf_resp_find(store, &put->key, conn->lane->unix_ms);
    if (old && (put->only_new || put->only_there) && !wf_resp_there(store, old))
        old = NULL;
    bool wanted = !(put->only_new && old) && !(put->only_there && !old);
    bool refused = wanted && conn->lane->resp->options.strict && no_room(call, put->value);
    if (wanted && !refused) {
        if (put->keep_ttl && old)
            put->expires_ms = old->expires_ms;
        (void)value_put(call, put);
    }
    pthread_mutex_unlock(&store->lock);
    if (put->get)
        return WF_RESP_DONE;
    if (refused)
        out_of_memory(call);
    else if (wanted)
        wf_resp_ok(conn);
    else
        wf_resp_nil(conn);
    return WF_RESP_DONE;
}

/* Seconds or milliseconds from now on or of Unix time, as Redis checks them. */
static bool expiry_read(const struct wf_resp_call *call, uint32_t index, int64_t unit,
                        bool from_now, const char *name, uint64_t *out_ms)
{
    int64_t value, now = (int64_t)call->conn->lane->unix_ms;
    if (!wf_resp_argument_number(call, index, &value)) {
        wf_resp_error(call->conn, "ERR value is not an integer or out of range");
        return false;
    }
    if (value <= 0 || value > (INT64_MAX - now) / unit) {
        wf_resp_error(call->conn, "ERR invalid expire time in '%s' command", name);
        return false;
    }
    *out_ms = (uint64_t)(value * unit + (from_now ? now : 0));
    return true;
}

/* One of SET's options at *index.  False: an error was answered. */
static bool option_read(const struct wf_resp_call *call, uint32_t *index, struct put *put)
{
    static const struct {
        const char *word;
        int64_t unit;
        bool from_now;
    } times[] = {{"ex", 1000, true}, {"px", 1, true}, {"exat", 1000, false}, {"pxat", 1, false}};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        if (!wf_resp_argument_is(call, *index, times[i].word))
            continue;
        if (*index + 1 == call->count || put->expires_ms || put->keep_ttl)
            break;
        ++*index;
        return expiry_read(call, *index, times[i].unit, times[i].from_now, "set", &put->expires_ms);
    }
    if (wf_resp_argument_is(call, *index, "keepttl") && !put->expires_ms)
        return put->keep_ttl = true;
    if (wf_resp_argument_is(call, *index, "nx") && !put->only_there)
        return put->only_new = true;
    if (wf_resp_argument_is(call, *index, "xx") && !put->only_new)
        return put->only_there = true;
    if (wf_resp_argument_is(call, *index, "get"))
        return put->get = true;
    wf_resp_error(call->conn, "ERR syntax error");
    return false;
}

enum wf_resp_done wf_resp_set(struct wf_resp_call *call)
{
    struct put put = {.value = 2};
    for (uint32_t i = 3; i < call->count; i++)
        if (!option_read(call, &i, &put))
            return WF_RESP_DONE;
    return put_run(call, &put);
}

static enum wf_resp_done set_for(struct wf_resp_call *call, int64_t unit, const char *name)
{
    struct put put = {.value = 3};
    if (!expiry_read(call, 2, unit, true, name, &put.expires_ms))
        return WF_RESP_DONE;
    return put_run(call, &put);
}

enum wf_resp_done wf_resp_setex(struct wf_resp_call *call)
{
    return set_for(call, 1000, "setex");
}

enum wf_resp_done wf_resp_psetex(struct wf_resp_call *call)
{
    return set_for(call, 1, "psetex");
}

enum wf_resp_done wf_resp_getset(struct wf_resp_call *call)
{
    struct put put = {.value = 2, .get = true};
    return put_run(call, &put);
}

enum wf_resp_done wf_resp_setnx(struct wf_resp_call *call)
{
    if (!key_fits(call, 1)) {
        wf_resp_error(call->conn, "ERR a key of more than %u bytes", WF_RESP_KEY_MAX);
        return WF_RESP_DONE;
    }
    struct put put = {.value = 2, .key = wf_resp_key(call, 1)};
    pthread_mutex_lock(&call->store->lock);
    struct wf_resp_entry *old = wf_resp_find(call->store, &put.key, call->conn->lane->unix_ms);
    bool wanted = !old || !wf_resp_there(call->store, old);
    bool refused = wanted && call->conn->lane->resp->options.strict && no_room(call, 2);
    if (wanted && !refused)
        (void)value_put(call, &put);
    pthread_mutex_unlock(&call->store->lock);
    if (refused)
        out_of_memory(call);
    else
        wf_resp_integer(call->conn, wanted);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_mset(struct wf_resp_call *call)
{
    if (call->count % 2 == 0) {
        wf_resp_error(call->conn, "ERR wrong number of arguments for 'mset' command");
        return WF_RESP_DONE;
    }
    for (uint32_t i = 1; i < call->count; i += 2) {
        if (!key_fits(call, i)) {
            wf_resp_error(call->conn, "ERR a key of more than %u bytes", WF_RESP_KEY_MAX);
            return WF_RESP_DONE;
        }
        if (call->conn->lane->resp->options.strict && no_room(call, i + 1)) {
            out_of_memory(call);
            return WF_RESP_DONE;
        }
    }
    pthread_mutex_lock(&call->store->lock);
    for (uint32_t i = 1; i < call->count; i += 2) {
        struct put put = {.value = i + 1, .key = wf_resp_key(call, i)};
        (void)value_put(call, &put);
    }
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_ok(call->conn);
    return WF_RESP_DONE;
}
