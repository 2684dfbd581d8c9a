/* SPDX-License-Identifier: Apache-2.0
 *
 * What a RESP client says, taken apart: RESP2 and RESP3 requests are the same, arrays of bulk
 * strings, and a line of words for people with telnet.
 *
 *     *3\r\n $3\r\nSET\r\n $5\r\nhello\r\n $1048576\r\n <1 MiB> \r\n
 *     \___/ \________/   \__________/     \_________/ \______/
 *     count   argument     argument       a long one: WF_RESP_LONG, its bytes are the caller's
 *
 * The parser does no I/O and owns no bytes.  It is given the bytes of one command from its first
 * on, and again with more behind them as they arrive; what it has seen it does not look at twice. A
 * bulk longer than `bulk_inline` is not waited for here: the caller takes its bytes where it wants
 * them (a block of the pool), and the command goes on behind it as if it were not there.
 *
 * One thread a parser.
 */
#ifndef WF_GATEWAY_RESP_PARSE_H
#define WF_GATEWAY_RESP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_RESP_ARGUMENTS_MAX 65536u
#define WF_RESP_LINE_MAX 65536u                /* of an inline command, or of a header */
#define WF_RESP_BULK_MAX ((uint64_t)512 << 20) /* of one argument */

enum wf_resp_parsed {
    WF_RESP_MORE,    /* the command goes on behind what there is */
    WF_RESP_COMMAND, /* whole: `arguments`; it ends before `at` (0 arguments: an empty line) */
    WF_RESP_LONG,    /* a bulk of `long_bytes` begins at `at` */
    WF_RESP_BROKEN,  /* `error` is what Redis says to that; nothing behind it means anything */
};

struct wf_resp_argument {
    uint32_t at, length; /* in the command's bytes; of a long one that was taken away: its number */
    bool away;
};

struct wf_resp_parser {
    struct wf_resp_argument *arguments;
    uint32_t count, room;
    uint32_t expected;    /* 0: the command's first bytes have not been read */
    uint32_t bulk_inline; /* longer ones are the caller's */
    uint32_t aways;       /* arguments taken away so far */
    uint64_t bulk; /* of the argument that is read now, with its end; 0: its header is next */
    uint64_t long_bytes;
    size_t at;            /* what is before it was read */
    size_t looked;        /* no end of line before it */
    bool unauthenticated; /* as long as nobody said who they are: few and short ones only */
    const char *error;
};

void wf_resp_parser_init(struct wf_resp_parser *parser, uint32_t bulk_inline);
void wf_resp_parser_fini(struct wf_resp_parser *parser);

/* The next command.  `arguments` of the last one are gone. */
void wf_resp_parser_next(struct wf_resp_parser *parser);

/* `bytes` are the command's from its first; those of a line are rewritten, where it has quotes. */
enum wf_resp_parsed wf_resp_parse(struct wf_resp_parser *parser, uint8_t *bytes, size_t length);

/* After WF_RESP_LONG: its bytes and the end of line behind them were taken elsewhere … */
void wf_resp_long_away(struct wf_resp_parser *parser);
/* … or it is to be read like a short one. */
void wf_resp_long_inline(struct wf_resp_parser *parser);

/* A decimal number, all of `bytes`. */
bool wf_resp_number(const uint8_t *bytes, size_t length, int64_t *out);

#endif
