/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/s3_target.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tier/s3_credentials.h"

bool wf_s3_encode(const char *text, bool path, char *out, size_t room)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t at = 0;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) || (path && c == '/');
        if (at + 4 > room)
            return false;
        if (plain) {
            out[at++] = (char)c;
        } else {
            out[at++] = '%';
            out[at++] = digits[c >> 4];
            out[at++] = digits[c & 15];
        }
    }
    if (at >= room)
        return false;
    out[at] = '\0';
    return true;
}

bool wf_s3_target_url(const struct wf_s3_target *target, const char *name, const char *query,
                      char *out, size_t room)
{
    char key[WF_S3_PREFIX_MAX + 256], encoded[3 * sizeof key];
    int length = snprintf(key, sizeof key, "%s%s", target->prefix, name ? name : "");
    if (length < 0 || (size_t)length >= sizeof key ||
        !wf_s3_encode(name ? key : "", true, encoded, sizeof encoded))
        return false;
    length = snprintf(out, room, "%s/%s%s%s", target->base, encoded, query ? "?" : "",
                      query ? query : "");
    return length > 0 && (size_t)length < room;
}

static enum weft_status read_path(const char *path, struct wf_s3_target *out)
{
    if (strncmp(path, "s3://", 5) != 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: is no bucket's name; write s3://bucket/prefix",
                       path);
    const char *bucket = path + 5, *prefix = bucket + strcspn(bucket, "/");
    size_t length = (size_t)(prefix - bucket);
    bool good = length >= 3 && length < sizeof out->bucket && isalnum((unsigned char)bucket[0]);
    for (size_t i = 0; good && i < length; i++)
        good = islower((unsigned char)bucket[i]) || isdigit((unsigned char)bucket[i]) ||
               bucket[i] == '-' || (bucket[i] == '.' && bucket[i - 1] != '.');
    if (!good)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a bucket's name has 3 to 63 small letters, digits, dots and "
                       "dashes; write s3://bucket/prefix",
                       path);
    memcpy(out->bucket, bucket, length);
    prefix += strspn(prefix, "/");
    size_t bytes = strlen(prefix);
    while (bytes && prefix[bytes - 1] == '/')
        bytes--;
    good = bytes + 2 <= sizeof out->prefix;
    for (size_t i = 0; good && i < bytes; i++)
        good = !iscntrl((unsigned char)prefix[i]) && !(prefix[i] == '/' && prefix[i + 1] == '/');
    if (good)
        snprintf(out->prefix, sizeof out->prefix, "%.*s%s", (int)bytes, prefix, bytes ? "/" : "");
    /* A "." or ".." between slashes is a place to some servers and proxies, and a name to others.
     */
    char around[sizeof out->prefix + 2];
    snprintf(around, sizeof around, "/%s", out->prefix);
    if (!good || strstr(around, "/./") || strstr(around, "/../"))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: the prefix is too long, or has control characters, empty parts or "
                       "dots for parts; write s3://bucket/some/where",
                       path);
    return WEFT_OK;
}

/* The option, else the first variable that is set, else the profile's setting. */
static bool usual(const char *option, const char *first, const char *second, const char *key,
                  char *out, size_t room)
{
    const char *value = option;
    if (!value || !*value)
        value = getenv(first);
    if (!value || !*value)
        value = getenv(second);
    if (value && *value)
        return snprintf(out, room, "%s", value) < (int)room;
    return wf_s3_profile_setting(key, out, room);
}

static bool is_loopback(const char *host, size_t length)
{
    char name[64];
    struct in_addr four;
    if (length >= sizeof name)
        return false;
    memcpy(name, host, length);
    name[length] = '\0';
    return !strcmp(name, "localhost") || !strcmp(name, "[::1]") ||
           (inet_pton(AF_INET, name, &four) == 1 && ntohl(four.s_addr) >> 24 == 127);
}

static enum weft_status read_endpoint(const char *endpoint, const struct wf_tier_options *options,
                                      struct wf_s3_target *out)
{
    const char *host = strstr(endpoint, "://");
    out->plain = !strncmp(endpoint, "http://", 7);
    size_t length = strlen(endpoint);
    while (length && endpoint[length - 1] == '/')
        length--;
    if (!host || (!out->plain && strncmp(endpoint, "https://", 8) != 0))
        return wf_fail(WEFT_E_INVALID, "tier %s: endpoint %s has no scheme; write https://host",
                       options->path, endpoint);
    host += 3;
    const char *end = host[0] == '[' ? host + strcspn(host, "]") + 1 : host + strcspn(host, ":/");
    if (end <= host || end > endpoint + length || strpbrk(host, "@?# \t\r\n"))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: endpoint %s is none; write https://host or https://host:port",
                       options->path, endpoint);
    out->loopback = is_loopback(host, (size_t)(end - host));
    if (out->plain && !out->loopback && !options->plain_http)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: endpoint %s would carry blocks in the open; use https, or allow "
                       "plain http",
                       options->path, endpoint);
    int written = snprintf(out->base, sizeof out->base, "%.*s/%s", (int)length, endpoint,
                           out->bucket);
    if (written < 0 || (size_t)written >= sizeof out->base)
        return wf_fail(WEFT_E_INVALID, "tier %s: endpoint %s is too long", options->path, endpoint);
    return WEFT_OK;
}

enum weft_status wf_s3_target_read(const struct wf_tier_options *options, struct wf_s3_target *out)
{
    char endpoint[400];
    memset(out, 0, sizeof *out);
    enum weft_status status = read_path(options->path, out);
    if (status != WEFT_OK)
        return status;
    if (!usual(options->region, "AWS_REGION", "AWS_DEFAULT_REGION", "region", out->region,
               sizeof out->region))
        snprintf(out->region, sizeof out->region, "%s", "us-east-1");
    for (const char *c = out->region; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            return wf_fail(WEFT_E_INVALID, "tier %s: %s is no region; us-east-1 is one",
                           options->path, out->region);
    if (usual(options->endpoint, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "endpoint_url",
              endpoint, sizeof endpoint))
        return read_endpoint(endpoint, options, out);
    /* A dot in a bucket's name would not match the certificate of *.s3.REGION. */
    if (strchr(out->bucket, '.'))
        snprintf(out->base, sizeof out->base, "https://s3.%s.amazonaws.com/%s", out->region,
                 out->bucket);
    else
        snprintf(out->base, sizeof out->base, "https://%s.s3.%s.amazonaws.com", out->bucket,
                 out->region);
    return WEFT_OK;
}
