/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "member/etcd_inner.h"
#include "sys/clock.h"

#define BACKOFF_MS 100u /* after all endpoints have failed; doubles */
#define BACKOFF_MAX_MS 1000u
#define LOGIN_MS 10000u       /* for a password to be checked, where no lease waits for us */
#define LOGIN_BACKOFF_MS 250u /* after a login that failed; doubles */
#define LOGIN_BACKOFF_MAX_MS 30000u

void wf_etcd_ring(const struct wf_members *m)
{
    (void)eventfd_write(m->event, 1);
}

uint32_t wf_etcd_ask_ms(const struct wf_members *m)
{
    uint32_t ms = m->lease_s * 1000 / 4;
    return ms < 3000 ? ms : 3000;
}

void wf_etcd_why(struct wf_members *m, const char *why)
{
    pthread_mutex_lock(&m->lock);
    bool other = strncmp(m->lease.why, why, sizeof m->lease.why - 1) != 0;
    snprintf(m->lease.why, sizeof m->lease.why, "%s", why);
    pthread_mutex_unlock(&m->lock);
    if (other)
        wf_etcd_ring(m);
}

void wf_etcd_amiss(struct wf_members *m, const char *what)
{
    pthread_mutex_lock(&m->lock);
    bool other = strncmp(m->lease.amiss, what, sizeof m->lease.amiss - 1) != 0;
    snprintf(m->lease.amiss, sizeof m->lease.amiss, "%s", what);
    pthread_mutex_unlock(&m->lock);
    if (other && what[0] && m->lease_id) /* of who is not let in that is said already */
        wf_warn("member", "%s", what);
    if (other)
        wf_etcd_ring(m);
}

/* ------------------------------------------------------------------------ asking a question */

void wf_etcd_failed(struct wf_members *m)
{
    uint32_t round = m->failures++ / m->target.count;
    wf_etcd_why(m, wf_last_error());
    if (m->failures == 1)
        wf_warn("member", "%s", wf_last_error());
    wf_etcd_http_stream_end(&m->http);
    m->watch_ns = 0;
    wf_etcd_http_next(&m->http);
    if (m->failures % m->target.count != 0)
        return;
    uint32_t ms = round < 4 ? BACKOFF_MS << round : BACKOFF_MAX_MS;
    if (ms > m->lease_s * 1000 / 8)
        ms = m->lease_s * 1000 / 8;
    /* Not all nodes at once. */
    ms += (uint32_t)(wf_now_ns() >> 10) % (ms / 2 + 1);
    m->again_ns = wf_now_ns() + ms * 1000000u;
}

static bool has(const char *text, const char *words)
{
    return strstr(text, words) != NULL;
}

/* What it means that etcd says no. */
static enum weft_status refusal(const struct wf_members *m, long code)
{
    const char *error = m->answer.error, *endpoint = wf_etcd_http_endpoint(&m->http);
    if (has(error, "lease not found"))
        return wf_fail(WEFT_E_NOT_FOUND, "etcd at %s knows the lease no more", endpoint);
    if (has(error, "has been compacted"))
        return wf_fail(WEFT_E_LIMIT, "etcd at %s has forgotten that revision", endpoint);
    if (has(error, "database space exceeded"))
        return wf_fail(WEFT_E_DENIED,
                       "etcd at %s is full (database space exceeded) and takes nothing new; "
                       "compact and defragment it, and disarm its alarm (etcdctl compact, defrag, "
                       "alarm disarm)",
                       endpoint);
    if (has(error, "user name is empty") && !m->user)
        return wf_fail(WEFT_E_DENIED,
                       "etcd at %s asks for a user and a password; set fabric.registry_user and "
                       "fabric.registry_password",
                       endpoint);
    if (has(error, "authentication failed"))
        return wf_fail(WEFT_E_DENIED,
                       "etcd at %s does not know the user %s by this password: %s; see to "
                       "fabric.registry_user and fabric.registry_password",
                       endpoint, m->user ? m->user : "", error);
    if (code == 403 || has(error, "permission denied"))
        return wf_fail(WEFT_E_DENIED,
                       "etcd at %s does not let %s%s do that: %s; give it a role that reads and "
                       "writes /weft/%s/",
                       endpoint, m->user ? "the user " : "anybody", m->user ? m->user : "", error,
                       m->target.cluster);
    if (!error[0])
        return wf_fail(WEFT_E_NODE,
                       "what answers at %s says nothing that an etcd says (HTTP %ld); is it one of "
                       "version 3.4 or later, and no proxy (http_proxy)?",
                       endpoint, code);
    return wf_fail(WEFT_E_NODE, "etcd at %s says: %s (HTTP %ld)", endpoint, error, code);
}

static bool token_is_old(const struct wf_members *m, long code)
{
    const char *error = m->answer.error;
    return m->user && (code == 401 || has(error, "invalid auth token") ||
                       has(error, "user name is empty") || has(error, "auth store is old"));
}

/* One question, without regard to who asks. */
static enum weft_status ask(struct wf_members *m, const char *path, const char *body, uint32_t ms,
                            wf_etcd_take *take, void *context, long *out_code)
{
    if (m->leaving) {
        uint64_t now = wf_now_ns();
        uint64_t left = m->leave_until_ns > now ? (m->leave_until_ns - now) / 1000000 : 0;
        ms = left < ms ? (uint32_t)left : ms;
        m->http.hurry = true;
    }
    enum weft_status status = wf_etcd_http_ask(&m->http, path, body, m->token, ms, out_code);
    if (status == WEFT_OK)
        status = wf_etcd_read(m->http.answer.bytes ? m->http.answer.bytes : "", m->http.answer.used,
                              &m->answer, *out_code == 200 ? take : NULL, context);
    if (status == WEFT_E_PROTOCOL && *out_code != 200)
        status = WEFT_OK; /* the code says it: a proxy's page */
    if (status == WEFT_E_PROTOCOL) {
        char why[200];
        snprintf(why, sizeof why, "%s", wf_last_error());
        return wf_fail(WEFT_E_NODE, "what answers at %s is not to be understood: %s",
                       wf_etcd_http_endpoint(&m->http), why);
    }
    if (status == WEFT_OK && *out_code == 200 && m->answer.error[0])
        *out_code = 500; /* of a stream that has answered one line */
    return status;
}

/* etcd takes long to check a password, on purpose, and goes on with it though nobody waits for the
 * answer any more: whoever asks again at once makes it slower for all.  So it gets all the time
 * that there is until the lease wants to be renewed, and after a failure a pause that grows. */
static uint32_t login_ms(const struct wf_members *m)
{
    uint64_t now = wf_now_ns(), least = wf_etcd_ask_ms(m);
    uint64_t left = m->renew_ns > now ? (m->renew_ns - now) / 1000000 : 0;
    if (!m->lease_id)
        return LOGIN_MS;
    return (uint32_t)(left < least ? least : left);
}

static void pause_login(struct wf_members *m)
{
    uint32_t ms = LOGIN_BACKOFF_MAX_MS;
    if (m->login_failures < 7)
        ms = LOGIN_BACKOFF_MS << m->login_failures;
    m->login_failures++;
    ms = ms / 2 + (uint32_t)(wf_now_ns() >> 10) % (ms / 2 + 1); /* not all nodes at once */
    m->quiet_ns = wf_now_ns() + (uint64_t)ms * 1000000u;
}

static enum weft_status login(struct wf_members *m)
{
    long code = 0;
    char *body = wf_etcd_say_login(m->user, m->password ? m->password : "");
    m->token[0] = '\0';
    enum weft_status status = WEFT_E_NO_MEMORY;
    if (body)
        status = ask(m, "/v3/auth/authenticate", body, login_ms(m), NULL, NULL, &code);
    free(body);
    if (status == WEFT_OK && code == 200 && m->answer.token[0])
        memcpy(m->token, m->answer.token, sizeof m->token);
    else if (status == WEFT_OK && has(m->answer.error, "authentication is not enabled"))
        m->open_to_all = true;
    else if (status == WEFT_OK)
        status = refusal(m, code);
    if (status == WEFT_OK)
        m->login_failures = 0;
    else if (status != WEFT_PENDING)
        pause_login(m);
    return status;
}

/* A lease may be renewed by whoever knows it, and must not wait for a password: when etcd was
 * restarted it has forgotten all tokens, and all nodes send theirs. */
static bool needs_token(const char *path)
{
    return strcmp(path, "/v3/lease/keepalive") != 0;
}

enum weft_status wf_etcd_talk(struct wf_members *m, const char *path, char *body,
                              wf_etcd_take *take, void *context)
{
    enum weft_status status = body ? WEFT_OK : WEFT_E_NO_MEMORY;
    for (int tries = 0; status == WEFT_OK; tries++) {
        long code = 0;
        if (m->user && !m->token[0] && !m->open_to_all && (needs_token(path) || tries))
            status = login(m);
        if (status == WEFT_OK)
            status = ask(m, path, body, wf_etcd_ask_ms(m), take, context, &code);
        if (status != WEFT_OK || code == 200)
            break;
        if (token_is_old(m, code) && tries == 0) {
            m->token[0] = '\0';
            m->open_to_all = false;
            continue;
        }
        status = refusal(m, code);
    }
    free(body);
    if (status == WEFT_OK && m->failures) {
        wf_info("member", "etcd at %s answers", wf_etcd_http_endpoint(&m->http));
        m->failures = 0;
    }
    if (status == WEFT_E_NODE || status == WEFT_E_NO_MEMORY) {
        wf_etcd_failed(m);
        status = WEFT_E_NODE;
    }
    return status;
}

/* ------------------------------------------------------------------------------ the thread */

static bool closing(struct wf_members *m)
{
    pthread_mutex_lock(&m->lock);
    bool is = m->closing;
    pthread_mutex_unlock(&m->lock);
    return is;
}

/* The owner is to hear of a standing that changed by the clock alone. */
static bool tick(void *context)
{
    struct wf_members *m = context;
    struct wf_standing standing;
    pthread_mutex_lock(&m->lock);
    bool is_closing = m->closing;
    wf_lease_standing(&m->lease, wf_moment_now(), &standing);
    pthread_mutex_unlock(&m->lock);
    if (standing.state != m->rung.state)
        wf_etcd_ring(m);
    m->rung = standing;
    return m->leaving || !is_closing;
}

static uint64_t tick_at(void *context)
{
    struct wf_members *m = context;
    pthread_mutex_lock(&m->lock);
    uint64_t at = wf_lease_edge(&m->lease, wf_moment_now());
    pthread_mutex_unlock(&m->lock);
    return at;
}

static void notice_the_end(struct wf_members *m)
{
    pthread_mutex_lock(&m->lock);
    bool over = m->lease.held && !wf_lease_good(&m->lease, wf_moment_now());
    pthread_mutex_unlock(&m->lock);
    if (over)
        wf_etcd_lose(m, "the lease ended before it was renewed");
    else if (m->erased && m->lease_id)
        wf_etcd_lose(m, "this node's key was removed from the registry");
    m->erased = false;
}

/* Whether it may go on to the next thing that is due: nothing has failed since. */
static bool may_ask(const struct wf_members *m, uint32_t failures)
{
    return m->failures <= failures && wf_now_ns() >= m->again_ns && wf_now_ns() >= m->quiet_ns;
}

static void step(struct wf_members *m)
{
    const uint32_t failures = m->failures;
    notice_the_end(m);
    if (wf_now_ns() < m->again_ns)
        return;
    if (m->lease_id && wf_now_ns() >= m->renew_ns)
        wf_etcd_renew(m);
    if (may_ask(m, failures) && !m->lease_id && wf_now_ns() >= m->join_ns)
        wf_etcd_join(m);
    if (m->lease_id && wf_now_ns() >= m->renew_ns) /* to join has taken that long */
        wf_etcd_renew(m);
    if (may_ask(m, failures) && !m->http.streaming && wf_now_ns() >= m->watch_ns)
        wf_etcd_follow(m);
    if (may_ask(m, failures))
        wf_etcd_publish(m);
    if (may_ask(m, failures))
        wf_etcd_check(m);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something is to be done again, whatever the watch brings. */
static uint64_t due(struct wf_members *m)
{
    uint64_t at = m->http.streaming ? m->check_ns : m->watch_ns;
    if (m->http.streaming && !m->watch_created)
        at = sooner(at, m->watch_by_ns);
    if (!m->lease_id)
        at = sooner(at, m->join_ns);
    pthread_mutex_lock(&m->lock);
    bool sets = m->asked.first != NULL;
    bool publishes = m->lease_id && m->self_version != m->published_version;
    uint64_t set_ends = m->asked.first ? m->asked.first->until_ns : UINT64_MAX;
    bool stops = m->closing;
    pthread_mutex_unlock(&m->lock);
    if (publishes)
        at = sooner(at, m->publish_ns);
    if (sets)
        at = 0;
    if (at < m->quiet_ns)
        at = m->quiet_ns;
    if (m->lease_id)
        at = m->erased ? 0 : sooner(at, m->renew_ns);
    if (at < m->again_ns)
        at = m->again_ns;
    /* A set that gets no answer in time is told so all the same. */
    return stops ? 0 : sooner(at, set_ends);
}

void *wf_etcd_run(void *members)
{
    struct wf_members *m = members;
    m->http.context = m;
    m->http.tick = tick;
    m->http.tick_at = tick_at;
    m->http.line_read = wf_etcd_line;
    while (!closing(m)) {
        step(m);
        wf_etcd_set_all(m);
        uint64_t now = wf_now_ns(), at = due(m);
        if (at > now)
            wf_etcd_http_wait(&m->http, at - now);
        if (m->http.streaming && !m->watch_created && wf_now_ns() >= m->watch_by_ns) {
            wf_fail_keep("etcd at %s does not begin the watch", wf_etcd_http_endpoint(&m->http));
            wf_etcd_failed(m);
        }
    }
    m->leaving = true;
    wf_etcd_leave(m);
    return NULL;
}
