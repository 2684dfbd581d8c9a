/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/s3_http.h"

#include <errno.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/s3_xml.h"

enum { FREE, IDLE, RUNNING, WAITING };

#define RECEIVE_BYTES (256L << 10)
#define SEND_BYTES (512L << 10)
#define CONNECT_MS 5000L
#define IMPATIENT_MS 1000L

uint64_t wf_s3_random(struct wf_s3_http *http)
{
    uint64_t z = http->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---------------------------------------------------------- what an answer amounts to */

static bool one_of(const char *code, const char *const *codes)
{
    while (*codes && strcmp(code, *codes) != 0)
        codes++;
    return *codes != NULL;
}

enum wf_s3_outcome wf_s3_judge(long status, const char *code, bool *out_again)
{
    static const char *const passing[] = {"RequestTimeout",
                                          "SlowDown",
                                          "InternalError",
                                          "ServiceUnavailable",
                                          "Throttling",
                                          "TooManyRequests",
                                          "OperationAborted",
                                          "ConditionalRequestConflict",
                                          "XAmzContentSHA256Mismatch",
                                          "BadDigest",
                                          "IncompleteBody",
                                          NULL};
    static const char *const stale[] = {"ExpiredToken", "ExpiredTokenException", NULL};
    *out_again = (status >= 500 && status != 501) || status == 408 || status == 429 ||
                 one_of(code, passing) || one_of(code, stale);
    if (*out_again)
        return one_of(code, stale) ? WF_S3_GONE : WF_S3_BROKEN;
    if (status >= 200 && status < 300)
        return WF_S3_DONE;
    if (status == 404)
        return strcmp(code, "NoSuchBucket") == 0 ? WF_S3_GONE : WF_S3_MISSING;
    if (status == 412)
        return WF_S3_THERE;
    if (status == 301 || status == 307 || status == 401 || status == 403 ||
        !strcmp(code, "InvalidToken") || !strcmp(code, "AuthorizationHeaderMalformed"))
        return WF_S3_GONE;
    return WF_S3_BROKEN;
}

/* ----------------------------------------------------------------- libcurl's callbacks */

static size_t on_data(char *data, size_t one, size_t bytes, void *user)
{
    struct wf_s3_call *call = user;
    (void)one;
    if (call->status == 0)
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
    if (call->status < 200 || call->status >= 300) {
        size_t room = sizeof call->said - call->said_bytes;
        size_t kept = bytes < room ? bytes : room;
        memcpy(call->said + call->said_bytes, data, kept);
        call->said_bytes += (uint32_t)kept;
        return bytes;
    }
    /* A server that overlooks the range would send an object where a part was asked. */
    if (call->bytes && (call->status != 206 || bytes > call->bytes - call->got))
        return 0;
    if (call->take) {
        if (!call->take(call, (const uint8_t *)data, bytes))
            return 0;
    } else {
        if (bytes > call->room_bytes - call->got)
            return 0;
        memcpy(call->room + call->got, data, bytes);
    }
    call->got += bytes;
    call->http->got_bytes += bytes;
    return bytes;
}

static size_t on_header(char *line, size_t one, size_t bytes, void *user)
{
    struct wf_s3_call *call = user;
    char text[256];
    (void)one;
    size_t length = bytes < sizeof text ? bytes : sizeof text - 1;
    memcpy(text, line, length);
    while (length && (text[length - 1] == '\r' || text[length - 1] == '\n'))
        length--;
    text[length] = '\0';
    char *value = strchr(text, ':');
    if (!value)
        return bytes;
    *value++ = '\0';
    value += strspn(value, " ");
    if (!strcasecmp(text, "etag"))
        snprintf(call->etag, sizeof call->etag, "%s", value);
    else if (!strcasecmp(text, "date"))
        call->date = curl_getdate(value, NULL);
    else if (!strcasecmp(text, "last-modified"))
        call->modified = curl_getdate(value, NULL);
    else if (!strcasecmp(text, "retry-after"))
        call->retry_after_ms = strtoull(value, NULL, 10) * 1000;
    return bytes;
}

static size_t on_read(char *data, size_t one, size_t bytes, void *user)
{
    struct wf_s3_call *call = user;
    uint64_t left = call->body_bytes - call->sent;
    bytes *= one;
    if (bytes > left)
        bytes = (size_t)left;
    memcpy(data, (const uint8_t *)call->body + call->sent, bytes);
    call->sent += bytes;
    return bytes;
}

static int on_seek(void *user, curl_off_t offset, int origin)
{
    struct wf_s3_call *call = user;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > call->body_bytes)
        return CURL_SEEKFUNC_FAIL;
    call->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    struct wf_s3_http *http = user;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(http->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event event = {.data.fd = fd};
    if (what & CURL_POLL_IN)
        event.events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        event.events |= EPOLLOUT;
    int result = epoll_ctl(http->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    if (result != 0 && errno == EEXIST)
        result = epoll_ctl(http->epoll, EPOLL_CTL_MOD, fd, &event);
    else if (result != 0 && errno == ENOENT)
        result = epoll_ctl(http->epoll, EPOLL_CTL_ADD, fd, &event);
    curl_multi_assign(http->multi, fd, http);
    return result;
}

static int on_timer(CURLM *multi, long ms, void *user)
{
    struct wf_s3_http *http = user;
    (void)multi;
    http->curl_at = ms < 0 ? 0 : wf_now_ms() + (uint64_t)ms;
    return 0;
}

/* ---------------------------------------------------------------------- one try of many */

static void hash_body(struct wf_s3_call *call)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(call->body ? call->body : "", call->body_bytes, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        call->hash[2 * i] = digits[digest[i] >> 4];
        call->hash[2 * i + 1] = digits[digest[i] & 15];
    }
    call->hash[64] = '\0';
}

static bool add_header(struct wf_s3_call *call, const char *line)
{
    struct curl_slist *longer = curl_slist_append(call->list, line);
    if (longer)
        call->list = longer;
    return longer != NULL;
}

static bool set_signed(struct wf_s3_http *http, struct wf_s3_call *call)
{
    char url[WF_S3_URL_MAX], line[WF_S3_TOKEN_MAX + 64];
    const struct wf_s3_credentials *who = &http->credentials;
    if (!wf_s3_target_url(&http->target, call->name[0] ? call->name : NULL,
                          call->query[0] ? call->query : NULL, url, sizeof url))
        return false;
    if (!call->hash[0])
        hash_body(call);
    snprintf(line, sizeof line, "x-amz-content-sha256: %s", call->hash);
    bool good = add_header(call, line);
    if (who->token[0]) {
        snprintf(line, sizeof line, "x-amz-security-token: %s", who->token);
        good = good && add_header(call, line);
    }
    if (call->new)
        good = good && add_header(call, "If-None-Match: *");
    if (call->method == WF_S3_POST)
        good = good && add_header(call, "Content-Type: application/xml");
    CURL *e = call->easy;
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_AWS_SIGV4, http->provider);
    curl_easy_setopt(e, CURLOPT_USERNAME, who->access);
    curl_easy_setopt(e, CURLOPT_PASSWORD, who->secret);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, http->target.plain ? "http" : "https");
    if (http->target.loopback)
        curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    return good;
}

static bool set_plain(struct wf_s3_call *call)
{
    bool good = true;
    for (int i = 0; i < 2; i++)
        good = good && (!call->headers[i] || add_header(call, call->headers[i]));
    curl_easy_setopt(call->easy, CURLOPT_URL, call->url);
    curl_easy_setopt(call->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(call->easy, CURLOPT_NOPROXY, "*");
    return good;
}

static void set_method(struct wf_s3_call *call)
{
    CURL *e = call->easy;
    char range[64];
    switch (call->method) {
    case WF_S3_GET:
        if (call->bytes) {
            snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)call->from,
                     (unsigned long long)(call->from + call->bytes - 1));
            curl_easy_setopt(e, CURLOPT_RANGE, range);
        }
        break;
    case WF_S3_PUT:
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->body_bytes);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(e, CURLOPT_READDATA, call);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, call);
        curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BYTES);
        break;
    case WF_S3_POST:
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body ? call->body : "");
        break;
    case WF_S3_DELETE: curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, "DELETE"); break;
    }
}

static bool try_start(struct wf_s3_http *http, struct wf_s3_call *call)
{
    CURL *e = call->easy;
    const char *bundle = getenv("AWS_CA_BUNDLE");
    call->status = 0;
    call->sent = call->got = call->retry_after_ms = 0;
    call->said_bytes = 0;
    call->etag[0] = '\0';
    call->date = call->modified = 0;
    if (call->restart)
        call->restart(call);
    curl_easy_reset(e);
    curl_easy_setopt(e, CURLOPT_PRIVATE, call);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, call->impatient ? IMPATIENT_MS : CONNECT_MS);
    if (call->impatient)
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, 2 * IMPATIENT_MS);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1024L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)http->stall_seconds);
    if (bundle && *bundle)
        curl_easy_setopt(e, CURLOPT_CAINFO, bundle);
    set_method(call);
    bool good = call->url ? set_plain(call) : set_signed(http, call);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->list);
    call->state = RUNNING;
    return good && curl_multi_add_handle(http->multi, e) == CURLM_OK;
}

static void end(struct wf_s3_http *http, struct wf_s3_call *call, enum wf_s3_outcome outcome)
{
    call->outcome = outcome;
    call->state = IDLE;
    if (outcome == WF_S3_DONE)
        http->body_bytes += call->body_bytes;
    call->done(http->context, call);
    if (call->state == IDLE)
        wf_s3_http_give(http, call);
}

static void wait_for_again(struct wf_s3_http *http, struct wf_s3_call *call)
{
    uint64_t most = (uint64_t)WF_S3_BACKOFF_MS << (call->tries - 1);
    if (most > WF_S3_BACKOFF_MAX)
        most = WF_S3_BACKOFF_MAX;
    uint64_t ms = wf_s3_random(http) % (most + 1);
    if (ms < call->retry_after_ms)
        ms = call->retry_after_ms < WF_S3_BACKOFF_MAX ? call->retry_after_ms : WF_S3_BACKOFF_MAX;
    http->retries++;
    call->again_ms = wf_now_ms() + ms;
    call->state = WAITING;
    call->next = http->waiting;
    http->waiting = call;
}

static void drop_list(struct wf_s3_call *call)
{
    curl_slist_free_all(call->list);
    call->list = NULL;
}

/* curl says that the request was carried through, or why not. */
static void try_end(struct wf_s3_http *http, struct wf_s3_call *call, CURLcode result)
{
    bool again = true;
    enum wf_s3_outcome outcome = WF_S3_BROKEN;
    struct wf_s3_answer answer = {.code = ""};
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &call->status);
    drop_list(call);
    if (result == CURLE_OK) {
        if (call->said_bytes && !wf_s3_xml_read(call->said, call->said_bytes, &answer, NULL, NULL))
            answer.code[0] = answer.message[0] = '\0';
        outcome = wf_s3_judge(call->status, answer.code, &again);
        if (outcome == WF_S3_DONE && call->bytes && call->got != call->bytes) {
            outcome = WF_S3_BROKEN;
            again = true;
        }
        snprintf(call->error, sizeof call->error, "HTTP %ld%s%s", call->status,
                 answer.code[0] ? " " : "", answer.code);
        http->stale = http->stale || !strncmp(answer.code, "ExpiredToken", 12);
    } else {
        snprintf(call->error, sizeof call->error, "%s", curl_easy_strerror(result));
        if (result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE) {
            outcome = WF_S3_GONE;
            again = false;
        }
    }
    if (again && !call->impatient && ++call->tries < WF_S3_TRIES)
        wait_for_again(http, call);
    else
        end(http, call, outcome);
}

/* ------------------------------------------------------------------------- the interface */

struct wf_s3_call *wf_s3_http_take(struct wf_s3_http *http)
{
    struct wf_s3_call *call = http->free;
    if (!call)
        return NULL;
    CURL *easy = call->easy;
    http->free = call->next;
    memset(call, 0, sizeof *call);
    call->easy = easy;
    call->http = http;
    call->state = IDLE;
    http->calls_used++;
    return call;
}

void wf_s3_http_give(struct wf_s3_http *http, struct wf_s3_call *call)
{
    call->state = FREE;
    call->next = http->free;
    http->free = call;
    http->calls_used--;
}

/* The first try is put off to the next run, so that no `done` comes from here. */
void wf_s3_http_start(struct wf_s3_http *http, struct wf_s3_call *call)
{
    call->tries = 0;
    call->hash[0] = '\0';
    if (try_start(http, call))
        return;
    drop_list(call);
    snprintf(call->error, sizeof call->error, "the request could not be made");
    call->tries = 1;
    wait_for_again(http, call);
}

static void unlink_waiting(struct wf_s3_http *http, struct wf_s3_call *call)
{
    struct wf_s3_call **link = &http->waiting;
    while (*link && *link != call)
        link = &(*link)->next;
    if (*link)
        *link = call->next;
}

void wf_s3_http_cancel(struct wf_s3_http *http, struct wf_s3_call *call)
{
    if (call->state == RUNNING) {
        curl_multi_remove_handle(http->multi, call->easy);
        drop_list(call);
    } else if (call->state == WAITING) {
        unlink_waiting(http, call);
    } else {
        return;
    }
    end(http, call, WF_S3_CANCELLED);
}

void wf_s3_http_cancel_all(struct wf_s3_http *http, const char *why)
{
    for (uint32_t i = 0; i < http->calls_count; i++) {
        struct wf_s3_call *call = &http->calls[i];
        if (call->state != RUNNING && call->state != WAITING)
            continue;
        snprintf(call->error, sizeof call->error, "%s", why);
        wf_s3_http_cancel(http, call);
    }
}

static void start_due(struct wf_s3_http *http)
{
    uint64_t now = wf_now_ms();
    struct wf_s3_call *due = NULL, **link = &http->waiting;
    while (*link) {
        struct wf_s3_call *call = *link;
        if (call->again_ms > now) {
            link = &call->next;
            continue;
        }
        *link = call->next;
        call->next = due;
        due = call;
    }
    while (due) {
        struct wf_s3_call *call = due;
        due = call->next;
        if (try_start(http, call))
            continue;
        drop_list(call);
        if (++call->tries < WF_S3_TRIES)
            wait_for_again(http, call);
        else
            end(http, call, WF_S3_BROKEN);
    }
}

static uint64_t next_time(const struct wf_s3_http *http)
{
    uint64_t at = http->curl_at;
    if (http->wake_at && (!at || http->wake_at < at))
        at = http->wake_at;
    for (const struct wf_s3_call *call = http->waiting; call; call = call->next)
        if (!at || call->again_ms < at)
            at = call->again_ms;
    return at;
}

static void arm(struct wf_s3_http *http)
{
    uint64_t at = next_time(http);
    struct itimerspec time = {.it_value = {(time_t)(at / 1000), (long)(at % 1000) * 1000000}};
    (void)timerfd_settime(http->timer, TFD_TIMER_ABSTIME, &time, NULL);
}

void wf_s3_http_wake_at(struct wf_s3_http *http, uint64_t at_ms)
{
    http->wake_at = at_ms;
    arm(http);
}

void wf_s3_http_run(struct wf_s3_http *http, uint32_t timeout_ms)
{
    struct epoll_event events[64];
    int running, left;
    arm(http);
    int count = epoll_wait(http->epoll, events, 64, (int)timeout_ms);
    for (int i = 0; i < count; i++) {
        uint64_t times;
        int flags = 0;
        if (events[i].data.fd == http->timer) {
            (void)!read(http->timer, &times, sizeof times);
            continue;
        }
        if (events[i].events & EPOLLIN)
            flags |= CURL_CSELECT_IN;
        if (events[i].events & EPOLLOUT)
            flags |= CURL_CSELECT_OUT;
        if (events[i].events & (EPOLLERR | EPOLLHUP))
            flags |= CURL_CSELECT_ERR;
        (void)curl_multi_socket_action(http->multi, events[i].data.fd, flags, &running);
    }
    if (http->curl_at && http->curl_at <= wf_now_ms()) {
        http->curl_at = 0;
        (void)curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        struct wf_s3_call *call = NULL;
        CURL *easy = message->easy_handle;
        CURLcode result = message->data.result;
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
        curl_multi_remove_handle(http->multi, easy);
        try_end(http, call, result);
    }
    start_due(http);
    arm(http);
}

static CURLcode curl_ready;
static void make_curl_ready(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_ALL);
}

enum weft_status wf_s3_http_open(struct wf_s3_http *http, uint32_t calls, void *context)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    http->context = context;
    http->epoll = epoll_create1(EPOLL_CLOEXEC);
    http->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (http->epoll < 0 || http->timer < 0)
        return wf_fail(WEFT_E_SYSTEM, "no descriptors for an object store: %s; allow more",
                       strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.fd = http->timer};
    (void)epoll_ctl(http->epoll, EPOLL_CTL_ADD, http->timer, &event);
    (void)pthread_once(&once, make_curl_ready);
    if (curl_ready != CURLE_OK || !(http->multi = curl_multi_init()))
        return wf_fail(WEFT_E_SYSTEM, "libcurl could not be started: %s; look at its version",
                       curl_easy_strerror(curl_ready));
    if (getrandom(&http->random, sizeof http->random, 0) != sizeof http->random)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    snprintf(http->provider, sizeof http->provider, "aws:amz:%s:s3", http->target.region);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)calls);
    http->calls = wf_calloc(calls, sizeof *http->calls, "requests to an object store");
    if (!http->calls)
        return WEFT_E_NO_MEMORY;
    http->calls_count = calls;
    for (uint32_t i = calls; i-- > 0;) {
        struct wf_s3_call *call = &http->calls[i];
        if (!(call->easy = curl_easy_init()))
            return wf_fail(WEFT_E_NO_MEMORY, "no memory for a request to an object store");
        call->next = http->free;
        http->free = call;
    }
    return WEFT_OK;
}

/* What is under way is dropped without a word to anyone. */
void wf_s3_http_close(struct wf_s3_http *http)
{
    for (uint32_t i = 0; i < http->calls_count; i++) {
        struct wf_s3_call *call = &http->calls[i];
        if (call->state == RUNNING)
            curl_multi_remove_handle(http->multi, call->easy);
        drop_list(call);
        if (call->easy)
            curl_easy_cleanup(call->easy);
    }
    if (http->multi)
        curl_multi_cleanup(http->multi);
    free(http->calls);
    if (http->timer >= 0)
        close(http->timer);
    if (http->epoll >= 0)
        close(http->epoll);
    explicit_bzero(&http->credentials, sizeof http->credentials);
}
