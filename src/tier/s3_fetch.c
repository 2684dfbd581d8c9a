/* SPDX-License-Identifier: Apache-2.0
 *
 * Credentials that a service near us gives and renews: a container's endpoint, or the metadata
 * service of an instance (IMDSv2: a token first, then the role's name, then its keys).  They are
 * fetched again some minutes before they expire, while requests go on with the old ones.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sys/clock.h"
#include "tier/s3_store.h"

#define EARLY_SECONDS 300
#define AGAIN_MS 30000

enum { NONE, CONTAINER, TOKEN, ROLE, KEYS };

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static void fetched(void *context, struct wf_s3_call *call);

static bool ask(struct wf_s3 *t, int step, enum wf_s3_method method, const char *header)
{
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return false;
    t->fetch.step = step;
    t->fetch.busy = true;
    call->method = method;
    call->url = t->fetch.url;
    call->headers[0] = header && *header ? header : NULL;
    call->impatient = true;
    call->room = t->fetch.answer;
    call->room_bytes = sizeof t->fetch.answer - 1;
    call->done = fetched;
    wf_s3_http_start(&t->http, call);
    return true;
}

/* Credentials go in the open only to this host and to the addresses that containers have for it. */
static bool container_url_good(const char *url)
{
    static const char *const open[] = {"http://127.0.0.1", "http://localhost", "http://[::1]",
                                       "http://169.254.170.2", "http://169.254.170.23"};
    if (!strncmp(url, "https://", 8))
        return true;
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        size_t length = strlen(open[i]);
        if (!strncmp(url, open[i], length) && (!url[length] || strchr(":/?", url[length])))
            return true;
    }
    return false;
}

static bool container_authorization(struct wf_s3 *t)
{
    const char *token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    const char *path = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    char text[1024] = "";
    t->fetch.authorization[0] = '\0';
    if (path) {
        FILE *file = fopen(path, "re");
        if (!file)
            return false;
        size_t bytes = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[bytes] = '\0';
        text[strcspn(text, "\r\n")] = '\0';
        token = text;
    }
    if (token && strlen(token) < sizeof text)
        snprintf(t->fetch.authorization, sizeof t->fetch.authorization, "Authorization: %s", token);
    return true;
}

static bool begin(struct wf_s3 *t)
{
    const char *relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *off = environment("AWS_EC2_METADATA_DISABLED");
    const char *base = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    size_t room = sizeof t->fetch.url;
    if (relative || full) {
        int length = relative ? snprintf(t->fetch.url, room, "http://169.254.170.2%s", relative)
                              : snprintf(t->fetch.url, room, "%s", full);
        return length < (int)room && container_url_good(t->fetch.url) &&
               container_authorization(t) && ask(t, CONTAINER, WF_S3_GET, t->fetch.authorization);
    }
    if (off && !strcasecmp(off, "true"))
        return false;
    if (!base)
        base = "http://169.254.169.254";
    size_t length = strlen(base);
    while (length && base[length - 1] == '/')
        length--;
    if (length + 100 > sizeof t->fetch.base)
        return false;
    snprintf(t->fetch.base, sizeof t->fetch.base, "%.*s", (int)length, base);
    snprintf(t->fetch.url, room, "%s/latest/api/token", t->fetch.base);
    return ask(t, TOKEN, WF_S3_PUT, "X-aws-ec2-metadata-token-ttl-seconds: 21600");
}

static bool one_line(const uint8_t *answer, uint64_t bytes, char *out, size_t room)
{
    size_t length = strcspn((const char *)answer, "\r\n");
    if (length == 0 || length >= room || length > bytes)
        return false;
    for (size_t i = 0; i < length; i++)
        if (answer[i] <= ' ' || answer[i] > '~')
            return false;
    memcpy(out, answer, length);
    out[length] = '\0';
    return true;
}

static bool next(struct wf_s3 *t, uint64_t bytes)
{
    static const char at[] = "/latest/meta-data/iam/security-credentials/";
    char line[1024], role[256];
    int length;
    switch (t->fetch.step) {
    case TOKEN:
        if (!one_line(t->fetch.answer, bytes, line, sizeof line))
            return false;
        snprintf(t->fetch.token, sizeof t->fetch.token, "X-aws-ec2-metadata-token: %s", line);
        snprintf(t->fetch.url, sizeof t->fetch.url, "%s%s", t->fetch.base, at);
        return ask(t, ROLE, WF_S3_GET, t->fetch.token);
    case ROLE:
        if (!one_line(t->fetch.answer, bytes, line, sizeof line) ||
            !wf_s3_encode(line, false, role, sizeof role))
            return false;
        length = snprintf(t->fetch.url, sizeof t->fetch.url, "%s%s%s", t->fetch.base, at, role);
        return length < (int)sizeof t->fetch.url && ask(t, KEYS, WF_S3_GET, t->fetch.token);
    default:
        if (!wf_s3_credentials_json(t->fetch.answer, bytes, &t->http.credentials))
            return false;
        t->http.stale = false;
        return true;
    }
}

static void fetched(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    uint64_t bytes = call->outcome == WF_S3_DONE ? call->got : 0;
    t->fetch.busy = false;
    t->fetch.answer[bytes] = '\0';
    if (call->outcome != WF_S3_DONE || !next(t, bytes))
        t->fetch.again_ms = wf_now_ms() + AGAIN_MS;
    if (!t->fetch.busy)
        explicit_bzero(t->fetch.answer, sizeof t->fetch.answer);
}

enum weft_status wf_s3_credentials_begin(struct wf_s3 *t)
{
    struct wf_s3_credentials found;
    if (t->fetch.busy)
        return WEFT_PENDING;
    enum weft_status status = wf_s3_credentials_local(&found);
    if (status == WEFT_OK) {
        t->http.credentials = found;
        t->http.stale = t->fetch.remote = false;
        explicit_bzero(&found, sizeof found);
    } else if (status == WEFT_MISS) {
        t->fetch.remote = true;
        if (begin(t))
            return WEFT_PENDING;
    }
    return status;
}

void wf_s3_fetch_step(struct wf_s3 *t, uint64_t now)
{
    uint64_t expires = t->http.credentials.expires;
    if (!t->fetch.remote || t->fetch.busy || now < t->fetch.again_ms)
        return;
    if (t->http.stale || (expires && (uint64_t)time(NULL) + EARLY_SECONDS >= expires)) {
        t->fetch.again_ms = now + AGAIN_MS;
        (void)begin(t);
    }
}
