/* SPDX-License-Identifier: Apache-2.0
 *
 * Values: text → member, member → text, member → JSON.  A reader that refuses says what would be
 * right; wf_value_set() puts place, key and value before it.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/size.h"
#include "daemon/config_fields.h"

#define MEND_MAX 256

/* A reader answers false and leaves in `mend` what the value should have been. */
typedef bool value_reader(const struct wf_field *field, void *member, const char *text, char *mend);

static bool read_text(const struct wf_field *field, void *member, const char *text, char *mend,
                      bool (*good)(unsigned char), const char *what)
{
    size_t length = strlen(text);
    if (length < field->min) {
        snprintf(mend, MEND_MAX, "is empty; write %s", what);
        return false;
    }
    if (length > field->max) {
        snprintf(mend, MEND_MAX, "is %zu bytes long; at most %" PRIu64 " fit", length, field->max);
        return false;
    }
    for (size_t i = 0; i < length; i++)
        if (!good((unsigned char)text[i])) {
            snprintf(mend, MEND_MAX, "has a character that may not be there; use %s", what);
            return false;
        }
    memcpy(member, text, length + 1);
    return true;
}

static bool is_path_character(unsigned char c)
{
    return c >= 0x20 && c != 0x7f;
}

static bool is_token_character(unsigned char c)
{
    return c > 0x20 && c < 0x7f;
}

static bool is_name_character(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static bool read_path(const struct wf_field *field, void *member, const char *text, char *mend)
{
    return read_text(field, member, text, mend, is_path_character,
                     "a path without control characters");
}

static bool read_token(const struct wf_field *field, void *member, const char *text, char *mend)
{
    return read_text(field, member, text, mend, is_token_character,
                     "printable ASCII without spaces");
}

static bool read_name(const struct wf_field *field, void *member, const char *text, char *mend)
{
    return read_text(field, member, text, mend, is_name_character,
                     "a-z, 0-9, dot, underscore, hyphen");
}

static bool is_member_character(unsigned char c)
{
    return c != '_' && is_name_character(c);
}

/* Of a node of a cluster. */
static bool read_member(const struct wf_field *field, void *member, const char *text, char *mend)
{
    if (!read_text(field, member, text, mend, is_member_character, "a-z, 0-9, dot, hyphen"))
        return false;
    size_t length = strlen(text);
    if (!length || (isalnum((unsigned char)text[0]) && isalnum((unsigned char)text[length - 1])))
        return true;
    snprintf(mend, MEND_MAX, "is no node's name; let a letter or a digit be first and last");
    return false;
}

/* Who is behind a name is looked up in wf_config_finish(); here only the form counts. */
static bool read_allow(const struct wf_field *field, void *member, const char *text, char *mend)
{
    unsigned entries = *text != '\0';
    for (const char *p = text; *p; p++) {
        if (*p == ',') {
            entries++;
            if (p == text || p[1] == '\0' || p[1] == ',') {
                snprintf(mend, MEND_MAX,
                         "has an empty entry; write any, or uids and user names like 1000,alice");
                return false;
            }
        }
    }
    if (entries > WF_ALLOW_MAX) {
        snprintf(mend, MEND_MAX, "has %u entries; at most %d fit, or write any and ask for a token",
                 entries, WF_ALLOW_MAX);
        return false;
    }
    return read_text(field, member, text, mend, is_token_character,
                     "any, or uids and user names like 1000,alice");
}

static bool read_listen(const struct wf_field *field, void *member, const char *text, char *mend)
{
    char *address_at = member;
    uint16_t *port_at = (uint16_t *)(void *)((char *)member + (field->min - field->offset));
    if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0) { /* YAML 1.1 people expect both */
        address_at[0] = '\0';
        return true;
    }
    if (strncmp(text, "tcp://", 6) == 0) /* as ZeroMQ people write it */
        text += 6;
    const char *colon = strrchr(text, ':');
    char address[WF_ADDRESS_BYTES];
    size_t length = colon ? (size_t)(colon - text) : 0;
    const char *start = text;
    if (length >= 2 && text[0] == '[' && colon[-1] == ']') {
        start++;
        length -= 2;
    }
    if (!colon || !length || length >= sizeof address || colon[1] < '0' || colon[1] > '9') {
        snprintf(
            mend, MEND_MAX,
            "is not an address and a port; write it like 127.0.0.1:9464 or [::1]:9464, or off");
        return false;
    }
    memcpy(address, start, length);
    address[length] = '\0';
    if (strcmp(address, "localhost") == 0)
        snprintf(address, sizeof address, "127.0.0.1");
    struct in6_addr parsed; /* room for either family */
    bool v6 = start != text;
    if (inet_pton(v6 ? AF_INET6 : AF_INET, address, &parsed) != 1) {
        snprintf(mend, MEND_MAX,
                 "has no numeric address; write it like 127.0.0.1:9464 or [::1]:9464, or off");
        return false;
    }
    char *end;
    errno = 0;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end || errno || port > UINT16_MAX) {
        snprintf(mend, MEND_MAX, "has no port; write one of 0 to 65535 after the last colon");
        return false;
    }
    memcpy(address_at, address, sizeof address);
    *port_at = (uint16_t)port;
    return true;
}

static bool read_size(const struct wf_field *field, void *member, const char *text, char *mend)
{
    uint64_t bytes;
    char low[24], high[24];
    if (wf_size_parse(text, &bytes) != WEFT_OK) {
        snprintf(mend, MEND_MAX, "is not a size; write a number with K, M, G or T, like 4GB");
        return false;
    }
    if (bytes < field->min || bytes > field->max) {
        snprintf(mend, MEND_MAX, "is out of range; write a size from %s to %s",
                 wf_size_format(field->min, low, sizeof low),
                 wf_size_format(field->max, high, sizeof high));
        return false;
    }
    *(uint64_t *)member = bytes;
    return true;
}

static bool read_number(const char *text, int base, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    if (*end || errno || value < min || value > max)
        return false;
    *out = value;
    return true;
}

static bool read_count(const struct wf_field *field, void *member, const char *text, char *mend)
{
    uint64_t value;
    if (!read_number(text, 10, field->min, field->max, &value)) {
        snprintf(mend, MEND_MAX, "is not a whole number from %" PRIu64 " to %" PRIu64 "; write one",
                 field->min, field->max);
        return false;
    }
    *(uint32_t *)member = (uint32_t)value;
    return true;
}

static bool read_decimal(const struct wf_field *field, void *member, const char *text, char *mend)
{
    char *end = NULL;
    bool plain = text[0] && strspn(text, "0123456789.") == strlen(text);
    double value = plain ? strtod(text, &end) : -1;
    if (!end || *end || value < (double)field->min || value > (double)field->max) {
        snprintf(mend, MEND_MAX,
                 "is not a number from %" PRIu64 " to %" PRIu64 "; write one like 0.3 or 2",
                 field->min, field->max);
        return false;
    }
    *(double *)member = value;
    return true;
}

static bool read_mode(const struct wf_field *field, void *member, const char *text, char *mend)
{
    uint64_t value;
    const char *digits = strncmp(text, "0o", 2) == 0 ? text + 2 : text;
    if (!read_number(digits, 8, field->min, field->max, &value)) {
        snprintf(mend, MEND_MAX, "is not an octal mode; write one like 0600 or 0666");
        return false;
    }
    *(uint32_t *)member = (uint32_t)value;
    return true;
}

static bool read_duration(const struct wf_field *field, void *member, const char *text, char *mend)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end = NULL;
    double value = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
    for (size_t i = 0; end && i < sizeof units / sizeof units[0]; i++) {
        double ms = value * units[i].ms;
        if (strcmp(end, units[i].unit) == 0 && ms >= (double)field->min &&
            ms <= (double)field->max) {
            *(uint32_t *)member = (uint32_t)ms;
            return true;
        }
    }
    if (field->min)
        snprintf(mend, MEND_MAX,
                 "is not a time from %" PRIu64 " ms to %" PRIu64
                 " s; write it like 500ms, 5s or 2m",
                 field->min, field->max / 1000);
    else
        snprintf(mend, MEND_MAX,
                 "is not a time of at most %" PRIu64 " s; write it like 500ms, 5s or 2m",
                 field->max / 1000);
    return false;
}

static bool read_node(const struct wf_field *field, void *member, const char *text, char *mend)
{
    uint64_t value = 0;
    bool any = strcmp(text, "any") == 0 || strcmp(text, "-1") == 0;
    if (!any && !read_number(text, 10, field->min, field->max, &value)) {
        snprintf(mend, MEND_MAX, "is not a NUMA node; write its number, or any");
        return false;
    }
    *(int32_t *)member = any ? -1 : (int32_t)value;
    return true;
}

static bool read_bool(const struct wf_field *field, void *member, const char *text, char *mend)
{
    (void)field;
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no",
                                                                                "off", "0"};
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *(bool *)member = strcasecmp(text, yes[i]) == 0;
            return true;
        }
    }
    snprintf(mend, MEND_MAX, "is neither true nor false; write one of them");
    return false;
}

static bool read_choice(const struct wf_field *field, void *member, const char *text, char *mend)
{
    for (int i = 0; field->choices[i]; i++)
        if (strcmp(field->choices[i], text) == 0) {
            *(int *)member = i;
            return true;
        }
    size_t used = (size_t)snprintf(mend, MEND_MAX, "is none of its values; write one of");
    for (int i = 0; field->choices[i] && used < MEND_MAX; i++)
        used += (size_t)snprintf(mend + used, MEND_MAX - used, "%s %s", i ? "," : "",
                                 field->choices[i]);
    return false;
}

static value_reader *const readers[] = {
    [WF_VALUE_PATH] = read_path,     [WF_VALUE_TOKEN] = read_token,
    [WF_VALUE_WORD] = read_token,    [WF_VALUE_NAME] = read_name,
    [WF_VALUE_ALLOW] = read_allow,   [WF_VALUE_LISTEN] = read_listen,
    [WF_VALUE_SIZE] = read_size,     [WF_VALUE_COUNT] = read_count,
    [WF_VALUE_MODE] = read_mode,     [WF_VALUE_DURATION] = read_duration,
    [WF_VALUE_NODE] = read_node,     [WF_VALUE_BOOL] = read_bool,
    [WF_VALUE_CHOICE] = read_choice, [WF_VALUE_DECIMAL] = read_decimal,
    [WF_VALUE_MEMBER] = read_member,
};

const char *wf_value_named(const char *where, const char *shown, char out[WF_NAMED_MAX])
{
    size_t length = strlen(where), end = strlen(shown);
    bool named = end < length && strcmp(where + length - end, shown) == 0 &&
                 strchr(" .", where[length - end - 1]);
    if (named)
        return where;
    snprintf(out, WF_NAMED_MAX, "%s: %s", where, shown);
    return out;
}

enum weft_status wf_value_set(const struct wf_field *field, void *base, const char *text,
                              const char *where, const char *shown)
{
    char mend[MEND_MAX], named[WF_NAMED_MAX];
    if (readers[field->type](field, (char *)base + field->offset, text, mend))
        return WEFT_OK;
    if (field->type == WF_VALUE_TOKEN) /* a token belongs into no log, not even a wrong one */
        return wf_fail(WEFT_E_INVALID, "%s: the token %s", wf_value_named(where, shown, named),
                       mend);
    return wf_fail(WEFT_E_INVALID, "%s: '%.96s' %s", wf_value_named(where, shown, named), text,
                   mend);
}

/* A size that reads back exactly: the largest unit that divides it. */
static void size_text(uint64_t bytes, char *out, size_t capacity)
{
    static const char *const units[] = {"", "KB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes && bytes % 1024 == 0 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, capacity, "%" PRIu64 "%s", bytes, units[unit]);
}

static void duration_text(uint32_t ms, char *out, size_t capacity)
{
    if (ms && ms % 1000 == 0)
        snprintf(out, capacity, "%us", ms / 1000);
    else
        snprintf(out, capacity, "%ums", ms);
}

static void listen_text(const char *address, uint16_t port, char *out, size_t capacity)
{
    if (!address[0])
        snprintf(out, capacity, "off");
    else if (strchr(address, ':'))
        snprintf(out, capacity, "[%s]:%u", address, port);
    else
        snprintf(out, capacity, "%s:%u", address, port);
}

char *wf_value_text(const struct wf_field *field, const void *base, char *out, size_t capacity)
{
    const void *member = (const char *)base + field->offset;
    switch (field->type) {
    case WF_VALUE_PATH:
    case WF_VALUE_TOKEN:
    case WF_VALUE_WORD:
    case WF_VALUE_NAME:
    case WF_VALUE_MEMBER:
    case WF_VALUE_ALLOW: snprintf(out, capacity, "%s", (const char *)member); break;
    case WF_VALUE_LISTEN:
        listen_text(member, *(const uint16_t *)(const void *)((const char *)base + field->min), out,
                    capacity);
        break;
    case WF_VALUE_SIZE: size_text(*(const uint64_t *)member, out, capacity); break;
    case WF_VALUE_COUNT: snprintf(out, capacity, "%u", *(const uint32_t *)member); break;
    case WF_VALUE_DECIMAL: snprintf(out, capacity, "%.10g", *(const double *)member); break;
    case WF_VALUE_MODE: snprintf(out, capacity, "%04o", *(const uint32_t *)member); break;
    case WF_VALUE_DURATION: duration_text(*(const uint32_t *)member, out, capacity); break;
    case WF_VALUE_NODE:
        if (*(const int32_t *)member < 0)
            snprintf(out, capacity, "any");
        else
            snprintf(out, capacity, "%d", *(const int32_t *)member);
        break;
    case WF_VALUE_BOOL:
        snprintf(out, capacity, "%s", *(const bool *)member ? "true" : "false");
        break;
    case WF_VALUE_CHOICE:
        snprintf(out, capacity, "%s", field->choices[*(const int *)member]);
        break;
    }
    return out;
}

json_t *wf_value_json(const struct wf_field *field, const void *base)
{
    char text[WF_CONFIG_VALUE_MAX];
    const void *member = (const char *)base + field->offset;
    switch (field->type) {
    case WF_VALUE_SIZE: return json_integer((json_int_t) * (const uint64_t *)member);
    case WF_VALUE_COUNT:
    case WF_VALUE_DURATION: return json_integer(*(const uint32_t *)member);
    case WF_VALUE_DECIMAL: return json_real(*(const double *)member);
    case WF_VALUE_BOOL: return json_boolean(*(const bool *)member);
    case WF_VALUE_TOKEN: return *(const char *)member ? json_string("***") : json_null();
    case WF_VALUE_NODE:
        if (*(const int32_t *)member >= 0)
            return json_integer(*(const int32_t *)member);
        break;
    default: break;
    }
    json_t *value = json_string(wf_value_text(field, base, text, sizeof text));
    return value ? value : json_string("(not UTF-8)"); /* a path may be any bytes, JSON may not */
}

bool wf_config_is_loopback(const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, address, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == 127;
    return inet_pton(AF_INET6, address, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}
