/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/trace.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define INPUT_BYTES (256u << 10) /* of the file at a time */

bool wf_trace_format_of(const char *name, enum trace_format *out)
{
    if (strcmp(name, "mooncake") == 0)
        *out = TRACE_MOONCAKE;
    else if (strcmp(name, "qwen") == 0)
        *out = TRACE_QWEN;
    else
        return false;
    return true;
}

uint32_t wf_trace_block_tokens(enum trace_format format)
{
    return format == TRACE_QWEN ? 16 : 512;
}

static const char *format_name(enum trace_format format)
{
    return format == TRACE_QWEN ? "qwen" : "mooncake";
}

static enum trace_result bad(struct trace_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static enum trace_result bad(struct trace_reader *reader, const char *format, ...)
{
    const char *name = strrchr(reader->path, '/') ? strrchr(reader->path, '/') + 1 : reader->path;
    int used = snprintf(reader->error, sizeof reader->error, "%.80s:%llu: ", name,
                        (unsigned long long)reader->line_number);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reader->error + used, sizeof reader->error - (size_t)used, format, arguments);
    va_end(arguments);
    return TRACE_BAD;
}

/* All that stdin has, as a file that can be read from its beginning again: -1 with errno. */
static int stdin_keep(void)
{
    static char part[INPUT_BYTES];
    int to = memfd_create("trace", MFD_CLOEXEC);
    uint64_t all = 0;
    size_t bytes;
    bool good = to >= 0;
    while (good && (bytes = fread(part, 1, sizeof part, stdin)) > 0) {
        all += bytes;
        good = all <= TRACE_STDIN_MAX;
        errno = good ? errno : EFBIG;
        for (size_t done = 0; good && done < bytes;) {
            ssize_t put = write(to, part + done, bytes - done);
            good = put > 0;
            done += good ? (size_t)put : 0;
        }
    }
    if (good && !ferror(stdin) && lseek(to, 0, SEEK_SET) == 0)
        return to;
    int code = errno;
    if (to >= 0)
        close(to);
    errno = code;
    return -1;
}

bool wf_trace_open(struct trace_reader *reader, const char *path, enum trace_format format)
{
    memset(reader, 0, sizeof *reader);
    reader->format_said = format != TRACE_UNSAID;
    reader->format = reader->format_said ? format : TRACE_MOONCAKE;
    bool piped = strcmp(path, "-") == 0;
    reader->path = strdup(piped ? "stdin" : path);
    reader->line = malloc(TRACE_LINE_MAX + 1);
    reader->hash_ids = malloc(TRACE_HASH_IDS_MAX * sizeof *reader->hash_ids);
    if (!reader->path || !reader->line || !reader->hash_ids) {
        snprintf(reader->error, sizeof reader->error, "no memory to read %.80s", path);
        return false;
    }
    struct stat about;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) {
        snprintf(reader->error, sizeof reader->error,
                 "cannot read %.160s: it is a directory; name a file", path);
        return false;
    }
    errno = 0;
    int fd = piped ? stdin_keep() : -1;
    if (!piped)
        reader->file = gzopen(path, "rbe");
    else if (fd >= 0)
        reader->file = gzdopen(fd, "rbe");
    if (!reader->file) {
        snprintf(reader->error, sizeof reader->error, "cannot read %.160s: %s", reader->path,
                 errno ? strerror(errno) : "no memory");
        if (fd >= 0)
            close(fd);
        return false;
    }
    gzbuffer(reader->file, INPUT_BYTES);
    return true;
}

void wf_trace_close(struct trace_reader *reader)
{
    if (reader->file)
        gzclose_r(reader->file);
    free(reader->path);
    free(reader->line);
    free(reader->hash_ids);
    memset(reader, 0, sizeof *reader);
}

/* Why no more bytes came, where that was not the end of a whole file; else NULL. */
static const char *read_error(struct trace_reader *reader)
{
    int code;
    const char *text = gzerror(reader->file, &code);
    if (code == Z_ERRNO)
        return strerror(errno);
    if (code == Z_BUF_ERROR)
        return "the compressed file ends before its data do; fetch it again";
    return code < 0 ? text : NULL;
}

enum trace_result wf_trace_line(struct trace_reader *reader)
{
    size_t bytes = 0, dropped = 0;
    int c;
    while ((c = gzgetc(reader->file)) != -1 && c != '\n') {
        if (bytes < TRACE_LINE_MAX)
            reader->line[bytes++] = (char)c;
        else
            dropped++;
    }
    const char *why = c == -1 ? read_error(reader) : NULL;
    if (why) {
        snprintf(reader->error, sizeof reader->error,
                 "cannot read on behind line %llu of %.80s: %.120s",
                 (unsigned long long)reader->line_number, reader->path, why);
        return TRACE_FAILED;
    }
    if (c == -1 && !bytes)
        return TRACE_END;
    reader->line[bytes] = '\0';
    reader->line_bytes = bytes;
    reader->too_long = dropped > 0;
    reader->offset = gzdirect(reader->file) ? reader->offset + bytes + dropped + 1
                                            : (uint64_t)gzoffset(reader->file);
    reader->line_number++;
    return TRACE_OK;
}

static enum trace_result length_read(struct trace_reader *reader, const json_t *root,
                                     const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(root, name);
    if (!value)
        return bad(reader, "\"%s\" is missing", name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return bad(reader, "\"%s\" is not a number of tokens; write an integer, 0 or more", name);
    *out = (uint64_t)json_integer_value(value);
    return TRACE_OK;
}

static enum trace_result ids_read(struct trace_reader *reader, const json_t *root,
                                  struct trace_request *out)
{
    const json_t *ids = json_object_get(root, "hash_ids");
    if (!json_is_array(ids))
        return bad(reader, "\"hash_ids\" is %s; write a list of integers",
                   ids ? "no list" : "missing");
    if (json_array_size(ids) > TRACE_HASH_IDS_MAX)
        return bad(reader, "\"hash_ids\" has %zu entries; %d is the most", json_array_size(ids),
                   TRACE_HASH_IDS_MAX);
    out->hash_count = json_array_size(ids);
    out->hash_ids = reader->hash_ids;
    for (size_t i = 0; i < out->hash_count; i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id))
            return bad(reader, "\"hash_ids\"[%zu] is no integer", i);
        reader->hash_ids[i] = (uint64_t)json_integer_value(id);
    }
    return TRACE_OK;
}

/* Other tools' files may have something else of that name: what is no hint is none. */
static enum trace_hint hint_read(const json_t *root)
{
    const char *text = json_string_value(json_object_get(root, "hint"));
    if (text && strcmp(text, "wanted") == 0)
        return TRACE_HINT_WANTED;
    return text && strcmp(text, "done") == 0 ? TRACE_HINT_DONE : TRACE_HINT_NONE;
}

#define RETURNS_IN_S_MAX 1e9
#define TRACE_PRIORITY_MAX 1000u

static double returns_read(const json_t *root)
{
    double seconds = json_number_value(json_object_get(root, "returns_in"));
    return seconds > 0 && seconds < RETURNS_IN_S_MAX ? seconds : 0;
}

/* Other tools' files may have something else of these names: what fits is taken. */
static void domain_read(const json_t *root, struct trace_request *out)
{
    const char *name = json_string_value(json_object_get(root, "domain"));
    const json_t *priority = json_object_get(root, "priority");
    if (name && strlen(name) < sizeof out->domain)
        snprintf(out->domain, sizeof out->domain, "%s", name);
    if (json_is_integer(priority) && json_integer_value(priority) > 0)
        out->priority = json_integer_value(priority) < TRACE_PRIORITY_MAX
                            ? (uint32_t)json_integer_value(priority)
                            : TRACE_PRIORITY_MAX;
}

enum trace_result wf_trace_parse(struct trace_reader *reader, struct trace_request *out)
{
    if (reader->too_long)
        return bad(reader, "the line has more than %zu bytes, which is the most", TRACE_LINE_MAX);
    if (strspn(reader->line, " \t\r") == reader->line_bytes)
        return TRACE_BLANK;
    json_error_t error;
    json_t *root = json_loadb(reader->line, reader->line_bytes, 0, &error);
    if (!root)
        return bad(reader, "no JSON: %.120s at column %d", error.text, error.column);
    struct trace_request request = {0};
    enum trace_result result = TRACE_OK;
    const json_t *timestamp = json_object_get(root, "timestamp");
    if (!json_is_object(root))
        result = bad(reader, "not an object; write {\"timestamp\": 0, \"input_length\": …}");
    else if (!json_is_number(timestamp))
        result = bad(reader, "\"timestamp\" is %s", timestamp ? "no number" : "missing");
    else if (!(json_number_value(timestamp) >= 0) || json_number_value(timestamp) > 1e15)
        result = bad(reader, "\"timestamp\" is %g; it is 0 or more", json_number_value(timestamp));
    if (result == TRACE_OK) {
        double unit = reader->format == TRACE_QWEN ? 1 : 1e-3;
        request.timestamp_s = json_number_value(timestamp) * unit;
        result = length_read(reader, root, "input_length", &request.input_length);
    }
    if (result == TRACE_OK)
        result = length_read(reader, root, "output_length", &request.output_length);
    if (result == TRACE_OK)
        result = ids_read(reader, root, &request);
    request.hint = hint_read(root);
    request.returns_in_s = returns_read(root);
    domain_read(root, &request);
    json_decref(root);
    if (result == TRACE_OK)
        *out = request;
    return result;
}

#define SETTLE_LINES 64       /* with two blocks or more, which tell */
#define SETTLE_LINES_MOST 512 /* looked at in all */

/* The last block may not be full, and some leave it out. */
static bool fits(const struct trace_request *request, enum trace_format format)
{
    uint64_t block = wf_trace_block_tokens(format), tokens = request->input_length;
    return tokens > block * (request->hash_count - 1) && tokens < block * (request->hash_count + 1);
}

bool wf_trace_settle(struct trace_reader *reader)
{
    struct trace_request request = {0};
    uint32_t fitting[] = {[TRACE_MOONCAKE] = 0, [TRACE_QWEN] = 0}, told = 0;
    while (told < SETTLE_LINES && reader->line_number < SETTLE_LINES_MOST &&
           wf_trace_line(reader) == TRACE_OK) {
        if (wf_trace_parse(reader, &request) != TRACE_OK || request.hash_count < 2)
            continue;
        told++;
        fitting[TRACE_MOONCAKE] += fits(&request, TRACE_MOONCAKE);
        fitting[TRACE_QWEN] += fits(&request, TRACE_QWEN);
    }
    /* One that cannot be read from its beginning again is not read on either, and says why. */
    if (gzrewind(reader->file) == 0)
        reader->line_number = reader->offset = 0;
    enum trace_format looks = fitting[TRACE_QWEN] > fitting[TRACE_MOONCAKE] ? TRACE_QWEN
                                                                            : TRACE_MOONCAKE;
    bool sure = 2 * fitting[looks] > told &&
                !fitting[looks == TRACE_QWEN ? TRACE_MOONCAKE : TRACE_QWEN];
    if (sure && !reader->format_said)
        reader->format = looks;
    if (!sure || reader->format == looks)
        return true;
    const char *slash = strrchr(reader->path, '/');
    snprintf(reader->error, sizeof reader->error,
             "%.80s has an id for each %u tokens, as %s has: give --format %s, or leave --format "
             "out",
             slash ? slash + 1 : reader->path, wf_trace_block_tokens(looks), format_name(looks),
             format_name(looks));
    return false;
}
