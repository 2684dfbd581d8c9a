/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands about keys: whether they are there, for how long, which ones there are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/resp_inner.h"

#define SCAN_COUNT_MAX 10000

static struct wf_resp_entry *find(const struct wf_resp_call *call, uint32_t index)
{
    const struct wf_resp_key key = wf_resp_key(call, index);
    struct wf_resp_entry *entry = wf_resp_find(call->store, &key, call->conn->lane->unix_ms);
    return entry && wf_resp_there(call->store, entry) ? entry : NULL;
}

static enum wf_resp_done count_there(struct wf_resp_call *call, bool remove)
{
    int64_t there = 0;
    pthread_mutex_lock(&call->store->lock);
    for (uint32_t i = 1; i < call->count; i++) {
        struct wf_resp_entry *entry = find(call, i);
        there += entry != NULL;
        if (entry && remove)
            wf_resp_remove(call->store, entry);
        else if (entry)
            entry->used = true;
    }
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_integer(call->conn, there);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_exists(struct wf_resp_call *call)
{
    return count_there(call, false);
}

enum wf_resp_done wf_resp_touch(struct wf_resp_call *call)
{
    return count_there(call, false);
}

enum wf_resp_done wf_resp_del(struct wf_resp_call *call)
{
    return count_there(call, true);
}

enum wf_resp_done wf_resp_type(struct wf_resp_call *call)
{
    pthread_mutex_lock(&call->store->lock);
    bool there = find(call, 1) != NULL;
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_text(call->conn, there ? "+string" : "+none");
    return WF_RESP_DONE;
}

/* ----------------------------------------------------------------------------------------- time */

static enum wf_resp_done time_left(struct wf_resp_call *call, uint64_t unit)
{
    int64_t left = -2;
    pthread_mutex_lock(&call->store->lock);
    const struct wf_resp_entry *entry = find(call, 1);
    if (entry)
        left = entry->expires_ms
                   ? (int64_t)((entry->expires_ms - call->conn->lane->unix_ms + unit / 2) / unit)
                   : -1;
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_integer(call->conn, left);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_ttl(struct wf_resp_call *call)
{
    return time_left(call, 1000);
}

enum wf_resp_done wf_resp_pttl(struct wf_resp_call *call)
{
    return time_left(call, 1);
}

/* NX, XX, GT and LT: may `entry` expire at `at_ms`?  No expiry counts as for ever. */
static bool expire_allowed(const struct wf_resp_call *call, const struct wf_resp_entry *entry,
                           uint64_t at_ms, bool *out_known)
{
    uint64_t now = entry->expires_ms ? entry->expires_ms : UINT64_MAX;
    *out_known = true;
    bool allowed = true;
    for (uint32_t i = 3; i < call->count; i++) {
        if (wf_resp_argument_is(call, i, "nx"))
            allowed &= entry->expires_ms == 0;
        else if (wf_resp_argument_is(call, i, "xx"))
            allowed &= entry->expires_ms != 0;
        else if (wf_resp_argument_is(call, i, "gt"))
            allowed &= at_ms > now;
        else if (wf_resp_argument_is(call, i, "lt"))
            allowed &= at_ms < now;
        else
            *out_known = false;
    }
    return allowed;
}

static enum wf_resp_done expire(struct wf_resp_call *call, int64_t unit, bool from_now)
{
    int64_t value, now = (int64_t)call->conn->lane->unix_ms;
    if (!wf_resp_argument_number(call, 2, &value) || value > (INT64_MAX - now) / unit ||
        value < -(INT64_MAX - now) / unit) {
        wf_resp_error(call->conn, "ERR value is not an integer or out of range");
        return WF_RESP_DONE;
    }
    int64_t at_ms = value * unit + (from_now ? now : 0);
    bool known = true, done = false;
    pthread_mutex_lock(&call->store->lock);
    struct wf_resp_entry *entry = find(call, 1);
    if (entry && expire_allowed(call, entry, at_ms > 0 ? (uint64_t)at_ms : 0, &known) && known) {
        done = true;
        if (at_ms <= now)
            wf_resp_remove(call->store, entry);
        else
            wf_resp_expire(call->store, entry, (uint64_t)at_ms);
    }
    pthread_mutex_unlock(&call->store->lock);
    if (known)
        wf_resp_integer(call->conn, done);
    else
        wf_resp_error(call->conn, "ERR Unsupported option; there are NX, XX, GT and LT");
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_expire_in(struct wf_resp_call *call)
{
    return expire(call, 1000, true);
}

enum wf_resp_done wf_resp_pexpire_in(struct wf_resp_call *call)
{
    return expire(call, 1, true);
}

enum wf_resp_done wf_resp_expire_at(struct wf_resp_call *call)
{
    return expire(call, 1000, false);
}

enum wf_resp_done wf_resp_pexpire_at(struct wf_resp_call *call)
{
    return expire(call, 1, false);
}

enum wf_resp_done wf_resp_persist(struct wf_resp_call *call)
{
    pthread_mutex_lock(&call->store->lock);
    struct wf_resp_entry *entry = find(call, 1);
    bool had = entry && entry->expires_ms;
    if (had)
        wf_resp_expire(call->store, entry, 0);
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_integer(call->conn, had);
    return WF_RESP_DONE;
}

/* ------------------------------------------------------------------------------ which there are */

struct class
{
    bool matches;
    size_t length; /* of the pattern's part */
};

/* "[a-c]", "[^x]": whether `c` is of it. */
static struct class class_match(const uint8_t *pattern, size_t length, uint8_t c)
{
    size_t i = 1;
    bool not = i < length && pattern[i] == '^', found = false;
    i += not ;
    for (; i < length && pattern[i] != ']'; i++) {
        if (pattern[i] == '\\' && i + 1 < length)
            i++;
        uint8_t low = pattern[i], high = low;
        if (i + 2 < length && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
            high = pattern[i + 2];
            i += 2;
        }
        found |= (low <= c && c <= high) || (high <= c && c <= low);
    }
    return (struct class){found != not, i < length ? i + 1 : length};
}

/* Redis's patterns: * ? [a-z] [^a] \x.  Goes back to the last * alone, so that no pattern takes
 * more than pattern × text steps. */
static bool glob(const uint8_t *pattern, size_t pattern_length, const uint8_t *text, size_t length)
{
    size_t p = 0, t = 0, star = SIZE_MAX, star_t = 0;
    while (t < length) {
        size_t taken = 0;
        if (p < pattern_length && pattern[p] == '*') {
            star = p++;
            star_t = t;
            continue;
        }
        if (p < pattern_length && pattern[p] == '[') {
            struct class class = class_match(pattern + p, pattern_length - p, text[t]);
            taken = class.matches ? class.length : 0;
        } else if (p < pattern_length) {
            bool escaped = pattern[p] == '\\' && p + 1 < pattern_length;
            bool same = pattern[p + escaped] == text[t] || (!escaped && pattern[p] == '?');
            taken = same ? 1u + escaped : 0;
        }
        if (taken) {
            p += taken;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_t;
        } else {
            return false;
        }
    }
    while (p < pattern_length && pattern[p] == '*')
        p++;
    return p == pattern_length;
}

struct listing {
    const uint8_t *pattern;
    uint32_t pattern_bytes;
    const struct wf_resp_entry **entries;
    uint32_t count, room;
};

static void listing_add(void *context, const struct wf_resp_entry *entry)
{
    struct listing *listing = context;
    if (listing->pattern &&
        !glob(listing->pattern, listing->pattern_bytes, entry->bytes, entry->key_bytes))
        return;
    if (listing->count == listing->room) {
        uint32_t room = listing->room ? 2 * listing->room : 64;
        void *more = realloc(listing->entries, room * sizeof *listing->entries);
        if (!more)
            return; /* a scan promises no more than that it tries */
        listing->entries = more;
        listing->room = room;
    }
    listing->entries[listing->count++] = entry;
}

/* The words behind SCAN's cursor.  False: an error was answered. */
static bool scan_options(const struct wf_resp_call *call, struct listing *listing, int64_t *count,
                         bool *strings)
{
    for (uint32_t i = 2; i < call->count; i += 2) {
        if (i + 1 == call->count) {
            wf_resp_error(call->conn, "ERR syntax error");
            return false;
        }
        if (wf_resp_argument_is(call, i, "match")) {
            listing->pattern = wf_resp_argument(call, i + 1);
            listing->pattern_bytes = wf_resp_argument_bytes(call, i + 1);
        } else if (wf_resp_argument_is(call, i, "type")) {
            *strings = wf_resp_argument_is(call, i + 1, "string");
        } else if (!wf_resp_argument_is(call, i, "count")) {
            wf_resp_error(call->conn, "ERR syntax error");
            return false;
        } else if (!wf_resp_argument_number(call, i + 1, count) || *count < 1) {
            wf_resp_error(call->conn, "ERR value is not an integer or out of range");
            return false;
        }
    }
    return true;
}

enum wf_resp_done wf_resp_scan_run(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    struct listing listing = {0};
    int64_t cursor, count = 10;
    bool strings = true;
    char next[24];
    if (!wf_resp_argument_number(call, 1, &cursor) || cursor < 0) {
        wf_resp_error(conn, "ERR invalid cursor");
        return WF_RESP_DONE;
    }
    if (!scan_options(call, &listing, &count, &strings))
        return WF_RESP_DONE;
    count = count < SCAN_COUNT_MAX ? count : SCAN_COUNT_MAX;
    pthread_mutex_lock(&call->store->lock);
    uint64_t at = wf_resp_scan(call->store, conn->database, (uint64_t)cursor, (uint32_t)count,
                               conn->lane->unix_ms, listing_add, &listing);
    wf_resp_array(conn, 2);
    snprintf(next, sizeof next, "%llu", (unsigned long long)at);
    wf_resp_word(conn, next);
    wf_resp_array(conn, strings ? listing.count : 0);
    for (uint32_t i = 0; strings && i < listing.count; i++)
        wf_resp_bulk(conn, listing.entries[i]->bytes, listing.entries[i]->key_bytes);
    pthread_mutex_unlock(&call->store->lock);
    free(listing.entries);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_keys(struct wf_resp_call *call)
{
    wf_resp_error(call->conn, "ERR KEYS would hold up everybody else; use SCAN 0 MATCH pattern");
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_dbsize(struct wf_resp_call *call)
{
    pthread_mutex_lock(&call->store->lock);
    uint64_t keys = call->store->in_database[call->conn->database];
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_integer(call->conn, (int64_t)keys);
    return WF_RESP_DONE;
}

static enum wf_resp_done flush(struct wf_resp_call *call, int database)
{
    if (call->count > 2 || (call->count == 2 && !wf_resp_argument_is(call, 1, "async") &&
                            !wf_resp_argument_is(call, 1, "sync"))) {
        wf_resp_error(call->conn, "ERR syntax error");
        return WF_RESP_DONE;
    }
    pthread_mutex_lock(&call->store->lock);
    wf_resp_flush(call->store, database);
    pthread_mutex_unlock(&call->store->lock);
    wf_resp_ok(call->conn);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_flushdb(struct wf_resp_call *call)
{
    return flush(call, call->conn->database);
}

enum wf_resp_done wf_resp_flushall(struct wf_resp_call *call)
{
    return flush(call, -1);
}

/* MEMORY USAGE key [SAMPLES n] */
enum wf_resp_done wf_resp_memory(struct wf_resp_call *call)
{
    if (call->count < 3 || !wf_resp_argument_is(call, 1, "usage")) {
        wf_resp_error(call->conn, "ERR only MEMORY USAGE key is known here");
        return WF_RESP_DONE;
    }
    pthread_mutex_lock(&call->store->lock);
    const struct wf_resp_entry *entry = find(call, 2);
    uint64_t bytes = entry ? sizeof *entry + entry->key_bytes + wf_resp_length(entry) : 0;
    pthread_mutex_unlock(&call->store->lock);
    if (entry)
        wf_resp_integer(call->conn, (int64_t)bytes);
    else
        wf_resp_nil(call->conn);
    return WF_RESP_DONE;
}

/* OBJECT ENCODING key, which tools ask for. */
enum wf_resp_done wf_resp_object(struct wf_resp_call *call)
{
    if (call->count != 3 || !wf_resp_argument_is(call, 1, "encoding")) {
        wf_resp_error(call->conn, "ERR only OBJECT ENCODING key is known here");
        return WF_RESP_DONE;
    }
    pthread_mutex_lock(&call->store->lock);
    bool there = find(call, 2) != NULL;
    pthread_mutex_unlock(&call->store->lock);
    if (there)
        wf_resp_word(call->conn, "raw");
    else
        wf_resp_error(call->conn, "ERR no such key");
    return WF_RESP_DONE;
}
