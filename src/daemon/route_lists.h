/* SPDX-License-Identifier: Apache-2.0
 *
 * The long lists of a question in JSON, `tokens` and `keys`, taken out of its text.
 *
 * A tree of a prompt's tokens costs the thread that builds it ten times what all else of the
 * question does.  So both lists are read as they stand in the text, at the top of its object, and
 * what is left, with empty lists there, is for a parser.  That one decides whether it is JSON:
 * nothing here is believed before it has.  Any thread; strangers' bytes.
 */
#ifndef WF_DAEMON_ROUTE_LISTS_H
#define WF_DAEMON_ROUTE_LISTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_ROUTE_TOKENS_MAX 131072u /* whose keys take some 3 ms */
/* Of what is left, which a parser takes 5 ms for. */
#define WF_ROUTE_REST_MAX (48u * 1024u)

struct wf_route_lists {
    uint32_t *tokens;    /* NULL: no such list was found */
    uint8_t (*keys)[32]; /* NULL: likewise */
    size_t token_count, key_count;
    char *rest; /* the text with "[]" for each */
    size_t rest_bytes;
};

/* WEFT_E_INVALID, with a sentence: a list has what does not belong there, or too much is left.
 * wf_route_lists_free() afterwards, whatever came. */
enum weft_status wf_route_lists_read(const char *text, size_t bytes, struct wf_route_lists *out);

void wf_route_lists_free(struct wf_route_lists *lists);

#endif
