/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resp_parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

#define ROOM_FIRST 8u
#define UNAUTHENTICATED_ARGUMENTS 10u /* as Redis has it: nobody unknown fills our memory */
#define UNAUTHENTICATED_BULK 16384u

void wf_resp_parser_init(struct wf_resp_parser *parser, uint32_t bulk_inline)
{
    *parser = (struct wf_resp_parser){.bulk_inline = bulk_inline};
}

void wf_resp_parser_fini(struct wf_resp_parser *parser)
{
    free(parser->arguments);
    memset(parser, 0, sizeof *parser);
}

void wf_resp_parser_next(struct wf_resp_parser *parser)
{
    parser->count = parser->expected = parser->aways = 0;
    parser->bulk = parser->long_bytes = 0;
    parser->at = parser->looked = 0;
}

bool wf_resp_number(const uint8_t *bytes, size_t length, int64_t *out)
{
    bool negative = length && bytes[0] == '-';
    uint64_t value = 0, most = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;
    size_t i = negative;
    if (i == length || length > 20 || (bytes[i] == '0' && length > 1))
        return false;
    for (; i < length; i++) {
        unsigned digit = (unsigned)bytes[i] - '0';
        if (digit > 9 || value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

static enum wf_resp_parsed broken(struct wf_resp_parser *parser, const char *error)
{
    parser->error = error;
    return WF_RESP_BROKEN;
}

/* Room for one more argument. */
static bool room_make(struct wf_resp_parser *parser)
{
    if (parser->count < parser->room)
        return true;
    uint32_t room = parser->room ? 2 * parser->room : ROOM_FIRST;
    void *more = wf_realloc(parser->arguments, room * sizeof *parser->arguments,
                            "a command's arguments");
    if (!more)
        return false;
    parser->arguments = more;
    parser->room = room;
    return true;
}

static bool argument_add(struct wf_resp_parser *parser, struct wf_resp_argument argument)
{
    if (!room_make(parser))
        return false;
    parser->arguments[parser->count++] = argument;
    return true;
}

/* The line from `at` on, without its end; false: it is not all there.  A bare \n ends one only
 * where people type. */
static bool line_take(struct wf_resp_parser *parser, const uint8_t *bytes, size_t length,
                      size_t *out_length)
{
    size_t from = parser->looked > parser->at ? parser->looked : parser->at;
    const uint8_t *end = memchr(bytes + from, '\n', length - from);
    if (!end) {
        parser->looked = length;
        return false;
    }
    *out_length = (size_t)(end - bytes) - parser->at;
    return true;
}

/* ------------------------------------------------------------------------------------- a line */

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One character behind a backslash in "…"; returns how many were read. */
static size_t unescape(const uint8_t *from, const uint8_t *end, uint8_t *out)
{
    static const char letters[] = "nrtba", means[] = "\n\r\t\b\a";
    if (end - from >= 3 && from[0] == 'x' && hex(from[1]) >= 0 && hex(from[2]) >= 0) {
        *out = (uint8_t)(hex(from[1]) * 16 + hex(from[2]));
        return 3;
    }
    const char *letter = from[0] ? strchr(letters, from[0]) : NULL;
    *out = letter ? (uint8_t)means[letter - letters] : from[0];
    return 1;
}

/* One word, quotes undone in place; NULL: the quotes do not match. */
static uint8_t *word_take(uint8_t *from, uint8_t *end, uint8_t **out_end)
{
    uint8_t *out = from, quote = 0;
    while (from < end && (quote || !isspace(*from))) {
        if (quote == '"' && *from == '\\' && end - from > 1) {
            from += 1 + unescape(from + 1, end, out++);
        } else if (quote == '\'' && *from == '\\' && end - from > 1 && from[1] == '\'') {
            *out++ = '\'';
            from += 2;
        } else if (quote && *from == quote) {
            quote = 0;
            from++;
            if (from < end && !isspace(*from))
                return NULL;
        } else if (!quote && (*from == '"' || *from == '\'')) {
            quote = *from++;
        } else {
            *out++ = *from++;
        }
    }
    *out_end = out;
    return quote ? NULL : from;
}

static enum wf_resp_parsed parse_line(struct wf_resp_parser *parser, uint8_t *bytes, size_t length)
{
    size_t line;
    if (!line_take(parser, bytes, length, &line))
        return length > WF_RESP_LINE_MAX
                   ? broken(parser, "ERR Protocol error: too big inline request")
                   : WF_RESP_MORE;
    uint8_t *from = bytes, *end = bytes + line;
    if (end > from && end[-1] == '\r')
        end--;
    for (;;) {
        while (from < end && isspace(*from))
            from++;
        if (from == end)
            break;
        uint8_t *word = from, *word_end;
        from = word_take(word, end, &word_end);
        if (!from)
            return broken(parser, "ERR Protocol error: unbalanced quotes in request");
        if (!argument_add(parser, (struct wf_resp_argument){
                                      .at = (uint32_t)(word - bytes),
                                      .length = (uint32_t)(word_end - word),
                                  }))
            return broken(parser, "ERR no memory for this command");
    }
    parser->at = line + 1;
    return WF_RESP_COMMAND;
}

/* ------------------------------------------------------------------------------------ an array */

/* "*3" or "$5": the number behind the first character. */
static enum wf_resp_parsed header_take(struct wf_resp_parser *parser, const uint8_t *bytes,
                                       size_t length, const char *too_long, int64_t *out)
{
    size_t line;
    if (!line_take(parser, bytes, length, &line))
        return length - parser->at > WF_RESP_LINE_MAX ? broken(parser, too_long) : WF_RESP_MORE;
    const uint8_t *from = bytes + parser->at;
    size_t digits = line > 0 && from[line - 1] == '\r' ? line - 1 : 0;
    parser->at += line + 1;
    if (digits < 2 || !wf_resp_number(from + 1, digits - 1, out))
        *out = INT64_MIN;
    return WF_RESP_COMMAND;
}

static enum wf_resp_parsed count_take(struct wf_resp_parser *parser, const uint8_t *bytes,
                                      size_t length)
{
    int64_t count;
    enum wf_resp_parsed parsed = header_take(parser, bytes, length,
                                             "ERR Protocol error: too big mbulk count string",
                                             &count);
    if (parsed != WF_RESP_COMMAND)
        return parsed;
    if (count == INT64_MIN || count > WF_RESP_ARGUMENTS_MAX)
        return broken(parser, "ERR Protocol error: invalid multibulk length");
    if (parser->unauthenticated && count > UNAUTHENTICATED_ARGUMENTS)
        return broken(parser, "ERR Protocol error: unauthenticated multibulk length");
    parser->expected = count > 0 ? (uint32_t)count : 0;
    return count > 0 ? WF_RESP_MORE : WF_RESP_COMMAND;
}

static enum wf_resp_parsed bulk_begin(struct wf_resp_parser *parser, const uint8_t *bytes,
                                      size_t length)
{
    static _Thread_local char expected[] = "ERR Protocol error: expected '$', got ' '";
    int64_t bulk;
    if (bytes[parser->at] != '$') {
        uint8_t got = bytes[parser->at];
        expected[sizeof expected - 3] = (char)(isprint(got) ? got : '?');
        return broken(parser, expected);
    }
    enum wf_resp_parsed parsed =
        header_take(parser, bytes, length, "ERR Protocol error: too big bulk count string", &bulk);
    if (parsed != WF_RESP_COMMAND)
        return parsed;
    if (bulk < 0 || (uint64_t)bulk > WF_RESP_BULK_MAX)
        return broken(parser, "ERR Protocol error: invalid bulk length");
    if (parser->unauthenticated && bulk > UNAUTHENTICATED_BULK)
        return broken(parser, "ERR Protocol error: unauthenticated bulk length");
    parser->bulk = (uint64_t)bulk + 2;
    if ((uint64_t)bulk <= parser->bulk_inline)
        return WF_RESP_MORE;
    if (!room_make(parser))
        return broken(parser, "ERR no memory for this command");
    parser->long_bytes = (uint64_t)bulk;
    return WF_RESP_LONG;
}

/* The bytes of the argument that is read now, when they are all there. */
static enum wf_resp_parsed bulk_take(struct wf_resp_parser *parser, const uint8_t *bytes)
{
    struct wf_resp_argument argument = {.at = (uint32_t)parser->at,
                                        .length = (uint32_t)(parser->bulk - 2)};
    const uint8_t *end = bytes + parser->at + argument.length;
    if (end[0] != '\r' || end[1] != '\n')
        return broken(parser, "ERR Protocol error: expected CRLF behind a bulk string");
    if (!argument_add(parser, argument))
        return broken(parser, "ERR no memory for this command");
    parser->at += parser->bulk;
    parser->bulk = 0;
    return WF_RESP_MORE;
}

enum wf_resp_parsed wf_resp_parse(struct wf_resp_parser *parser, uint8_t *bytes, size_t length)
{
    if (!parser->expected) {
        if (length == 0)
            return WF_RESP_MORE;
        if (bytes[0] != '*')
            return parse_line(parser, bytes, length);
        enum wf_resp_parsed parsed = count_take(parser, bytes, length);
        if (parsed != WF_RESP_MORE || !parser->expected)
            return parsed;
    }
    while (parser->count < parser->expected) {
        enum wf_resp_parsed parsed;
        if (!parser->bulk) {
            if (parser->at >= length)
                return WF_RESP_MORE;
            parsed = bulk_begin(parser, bytes, length);
            if (parsed != WF_RESP_MORE || !parser->bulk)
                return parsed;
        }
        if (parser->bulk > length - parser->at)
            return WF_RESP_MORE;
        parsed = bulk_take(parser, bytes);
        if (parsed != WF_RESP_MORE)
            return parsed;
    }
    return WF_RESP_COMMAND;
}

void wf_resp_long_away(struct wf_resp_parser *parser)
{
    /* bulk_begin() has made room for it. */
    parser->arguments[parser->count++] = (struct wf_resp_argument){.at = parser->aways++,
                                                                   .away = true};
    parser->bulk = 0;
}

void wf_resp_long_inline(struct wf_resp_parser *parser)
{
    parser->long_bytes = 0;
}
