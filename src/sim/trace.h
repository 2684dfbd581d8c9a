/* SPDX-License-Identifier: Apache-2.0
 *
 * Request traces: one JSON object a line, plain or compressed by gzip(1).
 *
 *   mooncake   {"timestamp": ms, "input_length", "output_length", "hash_ids": [...]}
 *              512 tokens a block
 *   qwen       the same with "timestamp" in seconds, and more fields
 *              16 tokens a block
 *
 * A line may say what its session will do: "hint": "wanted" or "done", and after how many seconds,
 * in either format: "returns_in"; and whose it is: "domain", a name, and that one's "priority", a
 * number.  A hash id names one block
 * of the prompt; requests that begin with the same ids share a prefix. The reader keeps one line at
 * a time.  Lines come from files that anyone may have written: a line that is too long, no JSON, or
 * short of a field is reported with its number, and reading goes on behind it.
 */
#ifndef WF_SIM_TRACE_H
#define WF_SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gzFile_s;

#define TRACE_LINE_MAX ((size_t)1 << 20)
#define TRACE_HASH_IDS_MAX 65536
#define TRACE_STDIN_MAX ((uint64_t)4 << 30) /* bytes, which memory holds; more is a file's */
#define TRACE_ERROR_MAX 256
#define TRACE_DOMAIN_MAX 32 /* with its end */

enum trace_format { TRACE_MOONCAKE, TRACE_QWEN, TRACE_UNSAID };

enum trace_hint { TRACE_HINT_NONE, TRACE_HINT_WANTED, TRACE_HINT_DONE };

struct trace_request {
    double timestamp_s;
    uint64_t input_length, output_length;
    uint64_t *hash_ids; /* [hash_count]; the reader's, until its next line */
    size_t hash_count;
    enum trace_hint hint;
    double returns_in_s;           /* 0: nothing is said */
    char domain[TRACE_DOMAIN_MAX]; /* whose it is; "": nothing is said */
    uint32_t priority;             /* of its domain, the higher the more */
};

struct trace_reader {
    struct gzFile_s *file;
    char *path;
    enum trace_format format;
    bool format_said; /* else wf_trace_settle() finds it */
    char *line;
    size_t line_bytes;
    uint64_t line_number; /* of the line that was read last, from 1 */
    uint64_t offset;      /* bytes of the file read so far, as they lie there */
    bool too_long;        /* the line that was read last had more than TRACE_LINE_MAX bytes */
    uint64_t *hash_ids;
    char error[TRACE_ERROR_MAX]; /* "file:line: sentence", after TRACE_BAD or a failed open */
};

enum trace_result {
    TRACE_END = 0,
    TRACE_OK = 1,
    TRACE_BLANK = 2,   /* an empty line: no request, no mistake */
    TRACE_BAD = -1,    /* this line; the next may be good */
    TRACE_FAILED = -2, /* the file cannot be read any further */
};

/* "-": stdin, once in a process.  TRACE_UNSAID: mooncake, until it is settled.  false:
 * reader->error has a sentence.  Give it to wf_trace_close() in either case. */
bool wf_trace_open(struct trace_reader *reader, const char *path, enum trace_format format);
void wf_trace_close(struct trace_reader *reader);

/* Right behind wf_trace_open(): how many ids its first lines have for their tokens says which
 * format it is.  Where none was said it becomes the reader's; false: another was said, and
 * reader->error has a sentence.  The reader stands at the beginning again. */
bool wf_trace_settle(struct trace_reader *reader);

/* Step to the next line, without looking into it: TRACE_OK, TRACE_END or TRACE_FAILED. */
enum trace_result wf_trace_line(struct trace_reader *reader);

/* What the line holds: TRACE_OK, TRACE_BLANK or TRACE_BAD. */
enum trace_result wf_trace_parse(struct trace_reader *reader, struct trace_request *out);

/* "mooncake", "qwen"; false for another name.  The second: tokens that one hash id stands for. */
bool wf_trace_format_of(const char *name, enum trace_format *out);
uint32_t wf_trace_block_tokens(enum trace_format format);

#endif
