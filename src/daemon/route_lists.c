/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/route_lists.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static const char *skip(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

/* `at`: behind an element.  At the next one, or at the bracket that ends the list; NULL: neither.
 */
static const char *next(const char *at, const char *end)
{
    at = skip(at, end);
    if (at < end && *at == ']')
        return at;
    if (at == end || *at != ',')
        return NULL;
    at = skip(at + 1, end);
    return at < end && *at != ']' ? at : NULL;
}

/* ----------------------------------------------------------------------------------- both lists */

/* From behind the opening bracket to the closing one; NULL: it is no such list. */
static const char *tokens_read(const char *at, const char *end, struct wf_route_lists *out)
{
    at = skip(at, end);
    while (at && at < end && *at != ']') {
        uint64_t value = 0;
        if (!is_digit(*at) || (*at == '0' && at + 1 < end && is_digit(at[1])))
            return NULL;
        for (; at < end && is_digit(*at) && value <= UINT32_MAX; at++)
            value = 10 * value + (uint64_t)(*at - '0');
        if (value > UINT32_MAX || out->token_count == WF_ROUTE_TOKENS_MAX)
            return NULL;
        out->tokens[out->token_count++] = (uint32_t)value;
        at = next(at, end);
    }
    return at && at < end ? at : NULL;
}

/* Of each byte, 16 more than what it is as a digit; 0: it is none. */
static const uint8_t hex_digits[256] = {
    ['0'] = 16, ['1'] = 17, ['2'] = 18, ['3'] = 19, ['4'] = 20, ['5'] = 21, ['6'] = 22, ['7'] = 23,
    ['8'] = 24, ['9'] = 25, ['a'] = 26, ['b'] = 27, ['c'] = 28, ['d'] = 29, ['e'] = 30, ['f'] = 31,
    ['A'] = 26, ['B'] = 27, ['C'] = 28, ['D'] = 29, ['E'] = 30, ['F'] = 31,
};

static bool key_read(const char *at, uint8_t key[32])
{
    uint8_t all = 16;
    for (int i = 0; i < 32; i++, at += 2) {
        uint8_t high = hex_digits[(uint8_t)at[0]], low = hex_digits[(uint8_t)at[1]];
        all &= high & low;
        key[i] = (uint8_t)(high << 4 | (low & 15));
    }
    return all == 16;
}

static const char *keys_read(const char *at, const char *end, struct wf_route_lists *out)
{
    at = skip(at, end);
    while (at && at < end && *at != ']') {
        if (end - at < 66 || at[0] != '"' || at[65] != '"' ||
            !key_read(at + 1, out->keys[out->key_count]))
            return NULL;
        out->key_count++;
        at = next(at + 66, end);
    }
    return at && at < end ? at : NULL;
}

/* ------------------------------------------------------------------------------------- the text */

static enum weft_status keep(struct wf_route_lists *out, const char *from, const char *to)
{
    size_t bytes = (size_t)(to - from);
    if (bytes > WF_ROUTE_REST_MAX - out->rest_bytes)
        return wf_fail(WEFT_E_INVALID,
                       "the body: besides `tokens` and `keys` it has more than 48 KiB; send fewer "
                       "candidates");
    memcpy(out->rest + out->rest_bytes, from, bytes);
    out->rest_bytes += bytes;
    return WEFT_OK;
}

/* `at`: behind the opening quote.  The closing one, or the end. */
static const char *string_end(const char *at, const char *end)
{
    for (; at < end && *at != '"'; at++)
        if (*at == '\\' && end - at > 1)
            at++;
    return at;
}

/* Behind the bracket, when a list follows a member's name; else NULL. */
static const char *list_after(const char *at, const char *end)
{
    at = skip(at, end);
    if (at == end || *at != ':')
        return NULL;
    at = skip(at + 1, end);
    return at < end && *at == '[' ? at + 1 : NULL;
}

static bool named(const char *name, const char *end, const char *wanted)
{
    size_t length = strlen(wanted);
    return (size_t)(end - name) == length && memcmp(name, wanted, length) == 0;
}

/* One whose name was seen; `*list` goes to its end.  A second of the same name is left for the
 * parser, which refuses it, and `*list` becomes NULL, as with what is none of both. */
static enum weft_status list_read(const char *name, const char *name_end, const char *end,
                                  const char **list, struct wf_route_lists *out)
{
    size_t bytes = (size_t)(end - *list);
    if (named(name, name_end, "tokens") && !out->tokens) {
        size_t most = bytes / 2 < WF_ROUTE_TOKENS_MAX ? bytes / 2 : WF_ROUTE_TOKENS_MAX;
        out->tokens = wf_calloc(most + 1, sizeof *out->tokens, "tokens");
        if (!out->tokens)
            return WEFT_E_NO_MEMORY;
        *list = tokens_read(*list, end, out);
        if (!*list)
            return wf_fail(
                WEFT_E_INVALID,
                "tokens: give a list of up to 131072 whole numbers below 2^32; of a longer "
                "prompt give the keys of its blocks");
    } else if (named(name, name_end, "keys") && !out->keys) {
        out->keys = wf_calloc(bytes / 66 + 1, sizeof *out->keys, "keys");
        if (!out->keys)
            return WEFT_E_NO_MEMORY;
        *list = keys_read(*list, end, out);
        if (!*list)
            return wf_fail(WEFT_E_INVALID, "keys: give a list of strings of 64 hex digits each");
    } else {
        *list = NULL;
    }
    return WEFT_OK;
}

enum weft_status wf_route_lists_read(const char *text, size_t bytes, struct wf_route_lists *out)
{
    const char *at = text, *kept = text, *end = text + bytes;
    enum weft_status status = WEFT_OK;
    uint32_t depth = 0;
    char before = 0; /* what is no space */
    *out = (struct wf_route_lists){0};
    out->rest = wf_calloc(1, bytes < WF_ROUTE_REST_MAX ? bytes + 1 : WF_ROUTE_REST_MAX, "JSON");
    if (!out->rest)
        return WEFT_E_NO_MEMORY;
    while (status == WEFT_OK && at < end) {
        char c = *at++;
        if (c == '"') {
            const char *name = at, *name_end = string_end(at, end);
            at = name_end < end ? name_end + 1 : end;
            bool member = depth == 1 && (before == '{' || before == ',');
            const char *begin = member ? list_after(at, end) : NULL, *list = begin;
            if (list)
                status = list_read(name, name_end, end, &list, out);
            if (status == WEFT_OK && list) {
                status = keep(out, kept, begin);
                kept = list;
                at = list + 1;
            }
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
        if (!is_space(c))
            before = c;
    }
    return status == WEFT_OK ? keep(out, kept, end) : status;
}

void wf_route_lists_free(struct wf_route_lists *lists)
{
    free(lists->tokens);
    free(lists->keys);
    free(lists->rest);
    *lists = (struct wf_route_lists){0};
}
