/* SPDX-License-Identifier: Apache-2.0
 *
 * The few answers in XML that an S3 server gives, read with expat: lists of objects and of
 * uploads, an upload's beginning and end, errors.  What does not fit its field, nests deeper than
 * any answer does or has a DOCTYPE is refused as a whole.
 */
#ifndef WF_TIER_S3_XML_H
#define WF_TIER_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_S3_KEY_MAX 1025u /* S3's own bound on a key, and the end */
#define WF_S3_UPLOAD_MAX 1025u

/* One <Contents> or <Upload>. */
struct wf_s3_found {
    char key[WF_S3_KEY_MAX];
    char upload[WF_S3_UPLOAD_MAX];
    uint64_t bytes;
};

struct wf_s3_answer {
    char root[64]; /* the outermost element: "Error", "ListBucketResult" … */
    char code[64]; /* of an error; "" otherwise */
    char message[256];
    char upload[WF_S3_UPLOAD_MAX];
    char next[WF_S3_KEY_MAX]; /* token, or key, from which a truncated list goes on */
    char next_upload[WF_S3_UPLOAD_MAX];
    bool truncated;
};

/* False: no such XML, and nothing of `out` is to be believed.  `found` may be NULL. */
bool wf_s3_xml_read(const void *data, size_t bytes, struct wf_s3_answer *out,
                    void (*found)(void *context, const struct wf_s3_found *found), void *context);

#endif
