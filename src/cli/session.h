/* SPDX-License-Identifier: Apache-2.0
 *
 * What the parts of `weft session` share.
 */
#ifndef WF_CLI_SESSION_H
#define WF_CLI_SESSION_H

#include "cli/cli.h"
#include "cli/session_file.h"

#define SESSION_WINDOW_BYTES (8u << 20) /* of blocks held or reserved at a time */
#define SESSION_WINDOW_MAX 64u
#define SESSION_TIERS_TEXT 320 /* the names of all tiers, for wf_session_tiers_text() */

/* How many blocks of that size. */
static inline size_t session_window(uint64_t block_bytes)
{
    uint64_t count = block_bytes ? SESSION_WINDOW_BYTES / block_bytes : 1;
    return count > SESSION_WINDOW_MAX ? SESSION_WINDOW_MAX : count ? (size_t)count : 1;
}

/* A key in 64 digits. */
bool wf_session_key_take(const json_t *value, struct weft_key *out);

/* The format that a query's answer describes, into `head`: texts and spec.  False: it is not. */
bool wf_session_format_take(const json_t *format, struct session_head *head);

/* What tells apart two domains, and two formats, without saying their root. */
int wf_session_root(struct cli *cli, struct weft_format *format, struct weft_key *out);

/* Archive and wait for it, with a bar. */
int wf_session_archive(struct cli *cli, struct weft_format *format, const char *name,
                       const struct weft_key *tip, struct weft_archived *out);

/* What `weft session hint` says of a session of its own. */
struct session_said {
    const char *name, *state; /* "prefill", "decoding", "idle", "waiting", "done" */
    double returns_s;         /* 0: not known */
    double keep_s;            /* 0: until interrupted */
    uint64_t blocks;          /* of its chain */
};
/* Open it, with the chain that ends with `tip`, and keep it. */
int wf_session_hint(struct cli *cli, struct weft_format *format, const struct weft_key *tip,
                    const struct session_said *said);

int wf_session_export(struct cli *cli, const char *name, const char *output);
int wf_session_import(struct cli *cli, const char *file, const char *name);

/* The tiers that hold some of the archive, a new reference: as the node says, or the one that
 * `archived` names where it does not. */
json_t *wf_session_tiers(struct cli *cli, const struct weft_archived *archived);
/* "nvme0, s3". */
const char *wf_session_tiers_text(const json_t *tiers, char *out, size_t capacity);

#endif
