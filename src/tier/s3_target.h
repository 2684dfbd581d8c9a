/* SPDX-License-Identifier: Apache-2.0
 *
 * Where an object store is and how its URLs are written: canonical from the start (every byte that
 * is not unreserved encoded, query sorted by the caller), so that whatever version of libcurl signs
 * them, it signs what the server will see.
 */
#ifndef WF_TIER_S3_TARGET_H
#define WF_TIER_S3_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "tier/tier.h"

#define WF_S3_PREFIX_MAX 512u
#define WF_S3_URL_MAX 8192u
#define WF_S3_QUERY_MAX 4096u

struct wf_s3_target {
    char bucket[64];
    char prefix[WF_S3_PREFIX_MAX]; /* "" or "some/where/": names are appended to it */
    char region[64];
    char base[512]; /* URL of the bucket, without a slash at its end */
    bool loopback, plain;
};

/* From "s3://bucket/prefix", the options and the usual places.  WEFT_E_INVALID names what is
 * wrong. */
enum weft_status wf_s3_target_read(const struct wf_tier_options *options, struct wf_s3_target *out);

/* The URL of object `name` below the prefix, or of the bucket for NULL.  `query` is canonical or
 * NULL.  False: it does not fit. */
bool wf_s3_target_url(const struct wf_s3_target *target, const char *name, const char *query,
                      char *out, size_t room);

/* RFC 3986: everything but unreserved characters as %XX; a slash stays when `path`.  False: it does
 * not fit. */
bool wf_s3_encode(const char *text, bool path, char *out, size_t room);

#endif
