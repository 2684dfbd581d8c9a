/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of weft explain share.
 */
#ifndef WF_CLI_EXPLAIN_H
#define WF_CLI_EXPLAIN_H

#include "cli/cli.h"

#define KEY_DIGITS 16 /* of a key, that an event says */

/* A member of an event; 0 or "" where it has none. */
static inline uint64_t number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static inline const char *word(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static inline double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* explain.c: one event of a block or a chain, as a line; `more`: so many others that are of its
 * kind and have its reason, up to `last`. */
void wf_explain_story(const json_t *event, size_t more, const json_t *last);

/* explain_prefetch.c: why a chain is brought up, or not, as a part of a sentence: an event's, or
 * what would be done now. */
void wf_explain_prefetch(const json_t *said);

/* explain_session.c: the story of a session, by its number or name.  CLI_MISS with *out_known
 * false, and nothing said: there is no such session.  `events`: the answer to "events". */
int wf_explain_session(struct cli *cli, const json_t *events, const char *which, bool *out_known);

#endif
