/* SPDX-License-Identifier: Apache-2.0
 *
 * Who we are to an object store, from the places where its other clients look, in their order:
 *
 *   1. AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 *   2. AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials), then AWS_CONFIG_FILE (~/.aws/config), in
 *      the section that AWS_PROFILE names ("default")
 *   3. AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or …_FULL_URI, with its authorization token
 *   4. the instance's metadata service (IMDSv2), unless AWS_EC2_METADATA_DISABLED is "true"
 *
 * The first two are read here, the others fetched by s3_fetch.c.  credential_process, single
 * sign-on and the assuming of roles are not known.  Nothing here is ever logged or put into a
 * sentence but the name of a file or variable.
 */
#ifndef WF_TIER_S3_CREDENTIALS_H
#define WF_TIER_S3_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_S3_SECRET_MAX 256u
#define WF_S3_TOKEN_MAX 4096u
#define WF_S3_INI_BYTES_MAX (1u << 20)

struct wf_s3_credentials {
    char access[WF_S3_SECRET_MAX];
    char secret[WF_S3_SECRET_MAX];
    char token[WF_S3_TOKEN_MAX]; /* "": none */
    uint64_t expires;            /* seconds since 1970; 0: never */
};

/* The value of `key` in [section] of an INI file's text; false when it is not there or does not
 * fit.  Nested values (indented lines) are passed over. */
bool wf_s3_ini_find(const char *text, size_t bytes, const char *section, const char *key, char *out,
                    size_t room);

/* {"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …} */
bool wf_s3_credentials_json(const void *data, size_t bytes, struct wf_s3_credentials *out);

/* "2026-11-21T03:01:02Z" → seconds since 1970; false for anything else. */
bool wf_s3_time_read(const char *text, uint64_t *out);

/* From the environment or files.  WEFT_MISS: there are none.  WEFT_E_INVALID: half of one. */
enum weft_status wf_s3_credentials_local(struct wf_s3_credentials *out);

/* `key` of the profile's section in the config file ("region", "endpoint_url"). */
bool wf_s3_profile_setting(const char *key, char *out, size_t room);

#endif
