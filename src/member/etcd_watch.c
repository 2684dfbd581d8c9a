/* SPDX-License-Identifier: Apache-2.0
 *
 * What changes in the cluster: read once, in pages of one revision, and watched from the next on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "member/checks.h"
#include "member/etcd_inner.h"
#include "sys/clock.h"

/* Whose pages stay well below WF_ETCD_ANSWER_MAX, whatever is in them. */
#define NODES_A_PAGE 128u
#define SETTINGS_A_PAGE 32u
#define AGAIN_NS 250000000u /* before a watch is begun anew that ended at once */
#define WARNINGS_MAX 16u    /* about keys that are not understood */

/* ------------------------------------------------------------------- keys into what is known */

static void complain(struct wf_members *m, const char *key)
{
    m->strangers = true;
    if (m->warnings++ < WARNINGS_MAX)
        wf_warn("member", "the key '%.80s' in etcd is passed over: %s",
                wf_text_check("it", key, WF_ETCD_KEY_MAX, false) == WEFT_OK ? key : "?",
                wf_last_error());
}

static void take_node(struct wf_members *m, struct wf_etcd_view *view, const char *name,
                      const struct wf_etcd_kv *kv)
{
    struct wf_member member;
    bool good = false;
    if (!kv->deleted && kv->value)
        good = wf_etcd_node_read(name, kv->value, &member) == WEFT_OK &&
               wf_roster_put(&view->members, &member) == WEFT_OK;
    else if (!kv->deleted)
        wf_fail_keep("it is too long, or no text");
    if (!good)
        free(wf_roster_take(&view->members, name));
    if (!good && !kv->deleted)
        complain(m, kv->key);
}

static void take_setting(struct wf_members *m, struct wf_etcd_view *view, const char *name,
                         const struct wf_etcd_kv *kv)
{
    bool good = false;
    if (!kv->deleted && kv->value)
        good = wf_setting_check(name, kv->value) == WEFT_OK &&
               wf_settings_put(&view->settings, name, kv->value, kv->mod) == WEFT_OK;
    else if (!kv->deleted)
        wf_fail_keep("it is too long, or no text");
    if (!good)
        wf_settings_remove(&view->settings, name);
    if (!good && !kv->deleted)
        complain(m, kv->key);
}

/* Under the lock, if the view is the shared one. */
static void take_key(struct wf_members *m, struct wf_etcd_view *view, const struct wf_etcd_kv *kv)
{
    const char *name;
    enum wf_etcd_part part = wf_etcd_part_of(m->target.cluster, kv->key, &name);
    if (part != WF_ETCD_NODES && part != WF_ETCD_SETTINGS)
        return;
    if (kv->mod > m->newest && !kv->deleted)
        m->newest = kv->mod;
    if (wf_member_name_check("its name", name) != WEFT_OK) {
        if (!kv->deleted)
            complain(m, kv->key);
        return;
    }
    view->version++;
    if (part == WF_ETCD_SETTINGS) {
        take_setting(m, view, name, kv);
        return;
    }
    /* Older news of ourselves are of a lease that we have not any more. */
    if (strcmp(name, m->self.name) == 0 && m->lease_id && kv->mod > m->joined_revision)
        m->erased = kv->deleted || kv->lease != m->lease_id;
    take_node(m, view, name, kv);
}

/* ---------------------------------------------------------------------------- reading it all */

struct page {
    struct wf_members *m;
    struct wf_etcd_view *view;
    char last[WF_ETCD_KEY_MAX + 1];
};

static void take_paged(void *context, const struct wf_etcd_kv *kv)
{
    struct page *page = context;
    if (kv->key[0])
        memcpy(page->last, kv->key, strlen(kv->key) + 1);
    take_key(page->m, page->view, kv);
}

static void view_fini(struct wf_etcd_view *view)
{
    wf_roster_fini(&view->members);
    wf_settings_fini(&view->settings);
}

/* A lease does not wait until all is read. */
static bool renewed(struct wf_members *m)
{
    const uint32_t failures = m->failures;
    if (m->lease_id && wf_now_ns() >= m->renew_ns)
        wf_etcd_renew(m);
    return m->failures <= failures;
}

static enum weft_status read_part(struct wf_members *m, enum wf_etcd_part part,
                                  struct wf_etcd_view *view, uint64_t *revision)
{
    const uint32_t limit = part == WF_ETCD_NODES ? NODES_A_PAGE : SETTINGS_A_PAGE;
    struct page page = {.m = m, .view = view};
    char before[sizeof page.last] = "";
    enum weft_status status;
    do {
        char *body = wf_etcd_say_page(m->target.cluster, part, before[0] ? before : NULL, limit,
                                      *revision);
        status = wf_etcd_talk(m, "/v3/kv/range", body, take_paged, &page);
        if (status != WEFT_OK)
            return status;
        if (*revision == 0) {
            *revision = m->answer.revision;
            m->cluster = m->answer.cluster;
        }
        bool more = m->answer.more;
        if (*revision == 0 || (more && strcmp(page.last, before) <= 0)) {
            wf_fail_keep("etcd at %s answers with pages that make no sense",
                         wf_etcd_http_endpoint(&m->http));
            wf_etcd_failed(m);
            return WEFT_E_NODE;
        }
        if (!more)
            return WEFT_OK;
        memcpy(before, page.last, sizeof before);
    } while (renewed(m));
    return WEFT_E_NODE;
}

/* All of it, in the place of what was known. */
static enum weft_status read_all(struct wf_members *m)
{
    struct wf_etcd_view view = {0};
    uint64_t revision = 0;
    m->newest = 0;
    m->strangers = false;
    enum weft_status status = read_part(m, WF_ETCD_NODES, &view, &revision);
    if (status == WEFT_OK)
        status = renewed(m) ? read_part(m, WF_ETCD_SETTINGS, &view, &revision) : WEFT_E_NODE;
    if (status != WEFT_OK) {
        view_fini(&view);
        return status;
    }
    pthread_mutex_lock(&m->lock);
    struct wf_etcd_view old = m->view;
    view.version = old.version + 1;
    m->view = view;
    if (m->lease_id && revision >= m->joined_revision &&
        !wf_roster_find(&view.members, m->self.name))
        m->erased = true;
    pthread_mutex_unlock(&m->lock);
    view_fini(&old);
    m->seen_revision = revision;
    wf_etcd_ring(m);
    return WEFT_OK;
}

void wf_etcd_follow(struct wf_members *m)
{
    enum weft_status status = WEFT_OK;
    if (!m->seen_revision)
        status = read_all(m);
    else if (m->user) /* a watch whose token is old gets no answer at all: anything else does */
        status = wf_etcd_talk(m, "/v3/kv/txn", wf_etcd_say_newest(m->target.cluster), NULL, NULL);
    m->watch_ns = wf_now_ns() + AGAIN_NS; /* if this one ends */
    if (status == WEFT_E_DENIED) {
        wf_etcd_why(m, wf_last_error());
        wf_etcd_amiss(m, wf_last_error());
        m->watch_ns += 3 * AGAIN_NS;
    }
    if (status != WEFT_OK)
        return;
    wf_etcd_amiss(m, "");
    char *body = wf_etcd_say_watch(m->target.cluster, m->seen_revision + 1);
    m->watch_created = false;
    m->watch_by_ns = wf_now_ns() + (uint64_t)wf_etcd_ask_ms(m) * 2000000u; /* it connects first */
    m->check_ns = m->watch_by_ns + (uint64_t)m->lease_s * 2000000000u;
    m->checked_revision = 0;
    if (body)
        (void)wf_etcd_http_stream(&m->http, "/v3/watch", body, m->token, wf_etcd_ask_ms(m));
    free(body);
}

/* ------------------------------------------------------------------------------- the stream */

struct line {
    struct wf_members *m;
    uint64_t last; /* revision among its events */
};

static void take_event(void *context, const struct wf_etcd_kv *kv)
{
    struct line *line = context;
    pthread_mutex_lock(&line->m->lock);
    take_key(line->m, &line->m->view, kv);
    pthread_mutex_unlock(&line->m->lock);
    if (kv->mod > line->last)
        line->last = kv->mod;
}

/* The stream ends, and all is read again. */
static bool begin_anew(struct wf_members *m, const char *why)
{
    wf_debug("member", "the cluster is read anew: %s", why);
    m->seen_revision = 0;
    return false;
}

bool wf_etcd_line(void *members, const char *text, size_t bytes)
{
    struct wf_members *m = members;
    struct wf_etcd_answer answer;
    struct line line = {.m = m};
    uint64_t version = m->view.version;
    if (wf_etcd_read(text, bytes, &answer, take_event, &line) != WEFT_OK)
        return begin_anew(m, wf_last_error());
    if (m->view.version != version)
        wf_etcd_ring(m);
    if (answer.cluster && m->cluster && answer.cluster != m->cluster)
        return begin_anew(m, "it is another etcd");
    if (answer.cancelled || answer.error[0])
        return begin_anew(m, answer.error[0] ? answer.error : "what was missed is compacted");
    if (answer.created) {
        m->watch_created = true;
        if (answer.revision && answer.revision < m->seen_revision)
            return begin_anew(m, "etcd has an older state than it had");
    }
    /* The other fragments may have events of the same revision. */
    if (!answer.fragment && line.last > m->seen_revision)
        m->seen_revision = line.last;
    return true;
}

/* ----------------------------------------------------------------------------- is it right? */

static void take_newest(void *context, const struct wf_etcd_kv *kv)
{
    uint64_t *newest = context;
    if (kv->mod > *newest)
        *newest = kv->mod;
}

void wf_etcd_check(struct wf_members *m)
{
    const uint64_t length_ns = (uint64_t)m->lease_s * 1000000000u;
    uint64_t newest = 0;
    if (!m->http.streaming || !m->watch_created || wf_now_ns() < m->check_ns)
        return;
    m->check_ns = wf_now_ns() + 2 * length_ns;
    enum weft_status status = wf_etcd_talk(m, "/v3/kv/txn", wf_etcd_say_newest(m->target.cluster),
                                           take_newest, &newest);
    if (status == WEFT_E_DENIED) /* what the watch brings, it brings still */
        wf_etcd_amiss(m, wf_last_error());
    if (status != WEFT_OK)
        return;
    wf_etcd_amiss(m, "");
    const struct wf_etcd_view *view = &m->view;
    bool same = newest <= m->newest &&
                (m->strangers || (m->answer.counts[0] == view->members.count &&
                                  m->answer.counts[1] == view->settings.count));
    /* What the watch has yet to bring looks the same as what it will never bring, for a while. */
    bool silent = !same && m->checked_revision == m->seen_revision;
    m->checked_revision = same ? 0 : m->seen_revision;
    if (!same)
        m->check_ns = wf_now_ns() + length_ns / 4;
    if (!silent)
        return;
    wf_warn("member", "etcd at %s is silent about what changes; all is read again",
            wf_etcd_http_endpoint(&m->http));
    wf_etcd_http_stream_end(&m->http);
    (void)begin_anew(m, "the watch is silent");
}
