/* SPDX-License-Identifier: Apache-2.0 */
#include "member/etcd_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "member/checks.h"
#include "sys/memory.h"

#define ROOT "/weft/"
#define NUMBER_MAX ((uint64_t)INT64_MAX)

static const char *const part_names[] = {"nodes", "epochs", "settings"};

/* -------------------------------------------------------------------------------- base64 */

/* RFC 4648, padded.  A value that is no base64 or longer than `room` is refused. */
static bool base64_read(const char *text, size_t length, char *out, size_t room, size_t *out_bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t used = 0;
    uint32_t bits = 0;
    if (length % 4 != 0 || length / 4 * 3 > room + 2)
        return false;
    size_t padding = length && text[length - 1] == '=' ? 1 + (text[length - 2] == '=') : 0;
    for (size_t i = 0; i < length - padding; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit)
            return false;
        bits = bits << 6 | (uint32_t)(digit - digits);
        if (i % 4 == 0)
            continue;
        if (used == room)
            return false;
        out[used++] = (char)(bits >> (6 - i % 4 * 2));
    }
    *out_bytes = used;
    return true;
}

static json_t *base64_json(const char *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = wf_calloc(count / 3 + 1, 4, "a request to etcd");
    size_t used = 0;
    if (!text)
        return NULL;
    for (size_t i = 0; i < count; i += 3) {
        uint32_t left = count - i < 3 ? (uint32_t)(count - i) : 3, bits = 0;
        for (uint32_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < left ? (uint8_t)bytes[i + j] : 0);
        for (uint32_t j = 0; j < 4; j++)
            text[used++] = j <= left ? digits[bits >> (18 - 6 * j) & 63] : '=';
    }
    json_t *json = json_stringn(text, used);
    free(text);
    return json;
}

static json_t *bytes_json(const char *text)
{
    return base64_json(text, strlen(text));
}

static json_t *number_json(uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return json_string(text);
}

/* ------------------------------------------------------------------------------- answers */

static enum weft_status nonsense(const char *what)
{
    return wf_fail(WEFT_E_PROTOCOL, "its answer has %s", what);
}

/* Digits in a string, or a number; nothing is 0. */
static bool number_of(const json_t *object, const char *field, uint64_t *out)
{
    const json_t *value = json_object_get(object, field);
    *out = 0;
    if (!value)
        return true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *out = (uint64_t)json_integer_value(value);
        return true;
    }
    const char *text = json_string_value(value);
    if (!text || !*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0 && *out <= NUMBER_MAX;
}

static bool flag_of(const json_t *object, const char *field)
{
    return json_is_true(json_object_get(object, field));
}

/* The room for what one answer's keys hold, one at a time. */
struct reading {
    wf_etcd_take *take;
    void *context;
    char *value; /* WF_ETCD_VALUE_MAX + 1 bytes */
    char key[WF_ETCD_KEY_MAX + 1];
};

static enum weft_status read_kv(struct reading *reading, const json_t *json, uint32_t response,
                                bool deleted)
{
    struct wf_etcd_kv kv = {.key = reading->key, .response = response, .deleted = deleted};
    const json_t *key = json_object_get(json, "key"), *value = json_object_get(json, "value");
    size_t bytes = 0;
    if (!json_is_string(key) || (value && !json_is_string(value)))
        return nonsense("a key that is none");
    if (!number_of(json, "mod_revision", &kv.mod) || !number_of(json, "lease", &kv.lease))
        return nonsense("a key whose numbers are none");
    /* Who may write there can write keys that are none of ours. */
    if (!base64_read(json_string_value(key), json_string_length(key), reading->key, WF_ETCD_KEY_MAX,
                     &bytes) ||
        memchr(reading->key, '\0', bytes))
        bytes = 0;
    reading->key[bytes] = '\0';
    bytes = 0;
    if (!value || base64_read(json_string_value(value), json_string_length(value), reading->value,
                              WF_ETCD_VALUE_MAX, &bytes)) {
        reading->value[bytes] = '\0';
        kv.value = memchr(reading->value, '\0', bytes) ? NULL : reading->value;
    }
    reading->take(reading->context, &kv);
    return WEFT_OK;
}

static enum weft_status read_kvs(struct reading *reading, const json_t *kvs, uint32_t response)
{
    enum weft_status status = WEFT_OK;
    if (kvs && !json_is_array(kvs))
        return nonsense("keys that are no list");
    for (size_t i = 0; status == WEFT_OK && reading->take && i < json_array_size(kvs); i++)
        status = read_kv(reading, json_array_get(kvs, i), response, false);
    return status;
}

static enum weft_status read_responses(struct reading *reading, const json_t *responses,
                                       struct wf_etcd_answer *out)
{
    enum weft_status status = WEFT_OK;
    if (responses && !json_is_array(responses))
        return nonsense("responses that are no list");
    for (size_t i = 0; status == WEFT_OK && i < json_array_size(responses); i++) {
        const json_t *range = json_object_get(json_array_get(responses, i), "response_range");
        uint64_t count;
        if (!number_of(range, "count", &count))
            return nonsense("a count that is none");
        if (i < 2)
            out->counts[i] = count;
        status = read_kvs(reading, json_object_get(range, "kvs"), (uint32_t)i);
    }
    return status;
}

static enum weft_status read_events(struct reading *reading, const json_t *events)
{
    enum weft_status status = WEFT_OK;
    if (events && !json_is_array(events))
        return nonsense("events that are no list");
    for (size_t i = 0; status == WEFT_OK && reading->take && i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        const char *type = json_string_value(json_object_get(event, "type"));
        status = read_kv(reading, json_object_get(event, "kv"), 0,
                         type && strcmp(type, "DELETE") == 0);
    }
    return status;
}

/* What it is to be shown as: no control characters, whoever wrote it. */
static void copy_shown(const char *text, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (; *text && used + 1 < out_bytes; text++)
        out[used++] = (unsigned char)*text < ' ' || (unsigned char)*text > '~' ? '?' : *text;
    out[used] = '\0';
}

static void read_error(const json_t *root, struct wf_etcd_answer *out)
{
    const json_t *error = json_object_get(root, "error");
    const char *text = json_string_value(json_is_object(error) ? json_object_get(error, "message")
                                                               : error);
    if (!text)
        text = json_string_value(json_object_get(root, "message"));
    if (error || text)
        copy_shown(text && *text ? text : "an error without words", out->error, sizeof out->error);
}

static enum weft_status read_fields(struct reading *reading, const json_t *body,
                                    struct wf_etcd_answer *out)
{
    const json_t *header = json_object_get(body, "header");
    const char *token = json_string_value(json_object_get(body, "token"));
    const char *reason = json_string_value(json_object_get(body, "cancel_reason"));
    const json_t *cluster = json_object_get(header, "cluster_id");
    /* An unsigned one, which is only ever compared. */
    out->cluster = json_is_string(cluster) ? strtoull(json_string_value(cluster), NULL, 10) : 0;
    if (!number_of(header, "revision", &out->revision) || !number_of(body, "ID", &out->lease) ||
        !number_of(body, "TTL", &out->ttl_s) || !number_of(body, "count", &out->count) ||
        !number_of(body, "compact_revision", &out->compact_revision))
        return nonsense("a number that is none");
    out->succeeded = flag_of(body, "succeeded");
    out->more = flag_of(body, "more");
    out->created = flag_of(body, "created");
    out->cancelled = flag_of(body, "canceled");
    out->fragment = flag_of(body, "fragment");
    if (token && strlen(token) <= WF_ETCD_TOKEN_MAX) {
        copy_shown(token, out->token, sizeof out->token);
        if (strcmp(token, out->token) != 0) /* it becomes a line of a header */
            return nonsense("a token that is none");
    } else if (token) {
        return nonsense("a token that is too long");
    }
    if (reason)
        copy_shown(reason, out->error, sizeof out->error);
    enum weft_status status = read_kvs(reading, json_object_get(body, "kvs"), 0);
    if (status == WEFT_OK)
        status = read_responses(reading, json_object_get(body, "responses"), out);
    if (status == WEFT_OK)
        status = read_events(reading, json_object_get(body, "events"));
    return status;
}

enum weft_status wf_etcd_read(const char *text, size_t bytes, struct wf_etcd_answer *out,
                              wf_etcd_take *take, void *context)
{
    struct reading reading = {.take = take, .context = context};
    json_error_t error;
    memset(out, 0, sizeof *out);
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return wf_fail(WEFT_E_PROTOCOL, "its answer is not JSON; is it an etcd, or is a proxy "
                                        "before it?");
    }
    enum weft_status status = WEFT_E_NO_MEMORY;
    reading.value = take ? wf_calloc(1, WF_ETCD_VALUE_MAX + 1, "etcd's answer") : NULL;
    if (!take || reading.value) {
        const json_t *result = json_object_get(root, "result");
        read_error(root, out);
        status = read_fields(&reading, result ? result : root, out);
    }
    free(reading.value);
    json_decref(root);
    return status;
}

/* ---------------------------------------------------------------------------------- keys */

/* A whole key, or with no name where its part begins. */
static json_t *key_json(const char *cluster, enum wf_etcd_part part, const char *name)
{
    char key[sizeof ROOT + 2 * WF_MEMBER_NAME_MAX + 16];
    snprintf(key, sizeof key, ROOT "%s/%s/%s", cluster, part_names[part], name);
    return bytes_json(key);
}

/* The first key behind a part: '0' comes after '/'. */
static json_t *end_json(const char *cluster, enum wf_etcd_part part)
{
    char key[sizeof ROOT + WF_MEMBER_NAME_MAX + 16];
    snprintf(key, sizeof key, ROOT "%s/%s0", cluster, part_names[part]);
    return bytes_json(key);
}

enum wf_etcd_part wf_etcd_part_of(const char *cluster, const char *key, const char **out_name)
{
    size_t length = strlen(cluster);
    if (strncmp(key, ROOT, strlen(ROOT)) != 0)
        return WF_ETCD_OTHER;
    key += strlen(ROOT);
    if (strncmp(key, cluster, length) != 0 || key[length] != '/')
        return WF_ETCD_OTHER;
    key += length + 1;
    for (int i = 0; i < WF_ETCD_OTHER; i++) {
        length = strlen(part_names[i]);
        if (strncmp(key, part_names[i], length) == 0 && key[length] == '/') {
            *out_name = key + length + 1;
            return (enum wf_etcd_part)i;
        }
    }
    return WF_ETCD_OTHER;
}

enum weft_status wf_etcd_node_read(const char *name, const char *value, struct wf_member *out)
{
    json_t *json = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
    const json_t *epoch = json_object_get(json, "epoch");
    const char *addresses = json_string_value(json_object_get(json, "addresses"));
    const char *details = json_string_value(json_object_get(json, "details"));
    enum weft_status status = WEFT_E_PROTOCOL;
    if (!json_is_integer(epoch) || json_integer_value(epoch) < 1 || !addresses || !details)
        wf_fail_keep("it is no JSON with an epoch, addresses and details");
    else if (wf_member_make(name, addresses, details, out) == WEFT_OK) {
        out->epoch = (uint64_t)json_integer_value(epoch);
        status = WEFT_OK;
    }
    json_decref(json);
    return status;
}

enum weft_status wf_etcd_epoch_read(const char *value, uint64_t *out)
{
    size_t length = value ? strlen(value) : 0;
    uint64_t epoch = 0;
    if (length && length < 19 && strspn(value, "0123456789") == length)
        epoch = strtoull(value, NULL, 10);
    if (!epoch)
        return wf_fail(WEFT_E_PROTOCOL, "it is no number from 1");
    *out = epoch;
    return WEFT_OK;
}

static json_t *node_json(const struct wf_member *self)
{
    json_t *json = json_pack("{s:I, s:s, s:s}", "epoch", (json_int_t)self->epoch, "addresses",
                             self->addresses, "details", self->details);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_t *value = text ? bytes_json(text) : NULL;
    free(text);
    json_decref(json);
    return value;
}

/* ------------------------------------------------------------------------------ requests */

static char *said(json_t *json)
{
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!text)
        wf_fail_keep("no memory for a request to etcd");
    return text;
}

char *wf_etcd_say_login(const char *user, const char *password)
{
    return said(json_pack("{s:s, s:s}", "name", user, "password", password));
}

char *wf_etcd_say_grant(uint32_t ttl_s)
{
    return said(json_pack("{s:o}", "TTL", number_json(ttl_s)));
}

char *wf_etcd_say_lease(uint64_t lease)
{
    return said(json_pack("{s:o}", "ID", number_json(lease)));
}

static json_t *get_json(const char *cluster, enum wf_etcd_part part, const char *name)
{
    return json_pack("{s:{s:o}}", "request_range", "key", key_json(cluster, part, name));
}

char *wf_etcd_say_look(const char *cluster, const char *name)
{
    return said(json_pack("{s:[], s:[o, o]}", "compare", "success",
                          get_json(cluster, WF_ETCD_NODES, name),
                          get_json(cluster, WF_ETCD_EPOCHS, name)));
}

static json_t *put_json(const char *cluster, enum wf_etcd_part part, const char *name,
                        json_t *value, uint64_t lease)
{
    return json_pack("{s:{s:o, s:o, s:o}}", "request_put", "key", key_json(cluster, part, name),
                     "value", value, "lease", number_json(lease));
}

/* `what` of a key is that number: CREATE, MOD, LEASE. */
static json_t *compare_json(json_t *key, const char *what, const char *field, uint64_t number)
{
    return json_pack("{s:o, s:s, s:s, s:o}", "key", key, "target", what, "result", "EQUAL", field,
                     number_json(number));
}

char *wf_etcd_say_join(const char *cluster, const struct wf_member *self, uint64_t lease,
                       uint64_t epoch_mod)
{
    char epoch[24];
    snprintf(epoch, sizeof epoch, "%llu", (unsigned long long)self->epoch);
    return said(json_pack("{s:[o, o], s:[o, o]}", "compare",
                          compare_json(key_json(cluster, WF_ETCD_NODES, self->name), "CREATE",
                                       "create_revision", 0),
                          compare_json(key_json(cluster, WF_ETCD_EPOCHS, self->name), "MOD",
                                       "mod_revision", epoch_mod),
                          "success",
                          put_json(cluster, WF_ETCD_NODES, self->name, node_json(self), lease),
                          put_json(cluster, WF_ETCD_EPOCHS, self->name, bytes_json(epoch), 0)));
}

char *wf_etcd_say_publish(const char *cluster, const struct wf_member *self, uint64_t lease)
{
    return said(json_pack("{s:[o], s:[o]}", "compare",
                          compare_json(key_json(cluster, WF_ETCD_NODES, self->name), "LEASE",
                                       "lease", lease),
                          "success",
                          put_json(cluster, WF_ETCD_NODES, self->name, node_json(self), lease)));
}

char *wf_etcd_say_set(const char *cluster, const char *name, const char *value, uint64_t revision)
{
    json_t *change = value ? put_json(cluster, WF_ETCD_SETTINGS, name, bytes_json(value), 0)
                           : json_pack("{s:{s:o}}", "request_delete_range", "key",
                                       key_json(cluster, WF_ETCD_SETTINGS, name));
    return said(json_pack("{s:[o], s:[o], s:[o]}", "compare",
                          compare_json(key_json(cluster, WF_ETCD_SETTINGS, name), "MOD",
                                       "mod_revision", revision),
                          "success", change, "failure", get_json(cluster, WF_ETCD_SETTINGS, name)));
}

char *wf_etcd_say_page(const char *cluster, enum wf_etcd_part part, const char *after,
                       uint32_t limit, uint64_t revision)
{
    /* The least key that is more than `after` has a NUL behind it. */
    json_t *from = after ? base64_json(after, strlen(after) + 1) : key_json(cluster, part, "");
    return said(json_pack("{s:o, s:o, s:o, s:o}", "key", from, "range_end", end_json(cluster, part),
                          "limit", number_json(limit), "revision", number_json(revision)));
}

static json_t *newest_json(const char *cluster, enum wf_etcd_part part)
{
    return json_pack("{s:{s:o, s:o, s:o, s:s, s:s, s:b}}", "request_range", "key",
                     key_json(cluster, part, ""), "range_end", end_json(cluster, part), "limit",
                     number_json(1), "sort_target", "MOD", "sort_order", "DESCEND", "keys_only", 1);
}

char *wf_etcd_say_newest(const char *cluster)
{
    return said(json_pack("{s:[], s:[o, o]}", "compare", "success",
                          newest_json(cluster, WF_ETCD_NODES),
                          newest_json(cluster, WF_ETCD_SETTINGS)));
}

char *wf_etcd_say_watch(const char *cluster, uint64_t revision)
{
    char from[sizeof ROOT + WF_MEMBER_NAME_MAX + 2], to[sizeof from];
    snprintf(from, sizeof from, ROOT "%s/", cluster);
    snprintf(to, sizeof to, ROOT "%s0", cluster);
    return said(json_pack("{s:{s:o, s:o, s:o, s:b}}", "create_request", "key", bytes_json(from),
                          "range_end", bytes_json(to), "start_revision", number_json(revision),
                          "fragment", 1));
}
