/* SPDX-License-Identifier: Apache-2.0
 *
 * What lists in answers to queries are made of: rows, in pages that fit one message.
 */
#ifndef WF_DAEMON_QUERY_H
#define WF_DAEMON_QUERY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/node.h"
#include "shm/control.h"

#define WF_PAGE_ROWS 128
#define WF_PAGE_BYTES ((size_t)WF_MESSAGE_MAX - 512) /* the rest is for what is around the rows */

/* Writes 2 × count digits and a zero. */
void wf_query_hex(const uint8_t *bytes, size_t count, char *out);
/* A row for a page that has `room` bytes left; false, and not taken, when that is too little. */
bool wf_query_row(json_t *rows, size_t *room, json_t *row);
/* A layout in full, for who wants to open it. */
json_t *wf_query_format(const struct wf_format_open *format);
/* {name: rows, "next": next} as text, for free(); takes the rows.  NULL: no memory. */
char *wf_query_page(const char *name, json_t *rows, uint64_t next);

/* query_tiers.c: answers, as text for free().  NULL: no memory, or wf_query_below() did not
 * understand `words`, and says so in *out_status. */
char *wf_query_tiers(struct wf_node *node);
char *wf_query_below(const struct wf_domain *domain, const char *words, uint64_t cursor,
                     enum weft_status *out_status);

/* query_session.c: the session of that number or name, and a part of its chain; WEFT_E_NOT_FOUND.
 */
char *wf_query_session(const struct wf_domain *domain, const char *word, uint64_t cursor,
                       enum weft_status *status);

#endif
