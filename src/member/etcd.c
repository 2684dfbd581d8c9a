/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's side of the etcd registry: what wf_member_ops has.  See etcd_inner.h for the whole.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/text.h"
#include "member/checks.h"
#include "member/etcd_inner.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define LEASE_MS 5000u
#define LEASE_MS_MIN 2000u
#define LEASE_MS_MAX 600000u
#define SET_NS_MIN 5000000000u

/* -------------------------------------------------------------------------- open and close */

static void release(struct wf_members *m)
{
    wf_etcd_http_close(&m->http);
    wf_etcd_sets_free(&m->asked);
    wf_etcd_sets_free(&m->answered);
    wf_roster_fini(&m->view.members);
    wf_settings_fini(&m->view.settings);
    wf_roster_fini(&m->told.members);
    wf_settings_fini(&m->told.settings);
    pthread_mutex_destroy(&m->lock);
    if (m->event >= 0)
        close(m->event);
    if (m->password)
        explicit_bzero(m->password, strlen(m->password));
    explicit_bzero(m->token, sizeof m->token);
    free(m->user);
    free(m->password);
    free(m->ca);
    free(m->certificate);
    free(m->key);
    free(m);
}

static bool copy(const char *text, char **out)
{
    *out = text ? wf_strdup(text, "the registry's options") : NULL;
    return !text || *out;
}

static enum weft_status take_options(struct wf_members *m, const struct wf_member_options *options)
{
    const char *files[][2] = {{"ca", options->ca},
                              {"certificate", options->certificate},
                              {"key", options->key}};
    uint32_t lease_ms = options->lease_ms ? options->lease_ms : LEASE_MS;
    enum weft_status status = wf_etcd_target_read(options->registry, &m->target);
    if (status == WEFT_OK)
        status = wf_member_make(options->name, options->addresses, options->details, &m->self);
    if (status != WEFT_OK)
        return status;
    if (lease_ms < LEASE_MS_MIN || lease_ms > LEASE_MS_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "a lease of %u ms is not to be had from etcd; it can be %u to %u", lease_ms,
                       LEASE_MS_MIN, LEASE_MS_MAX);
    m->lease_s = (lease_ms + 999) / 1000;
    if (options->password && !options->user)
        return wf_fail(WEFT_E_INVALID, "there is a password for etcd, and no user");
    for (size_t i = 0; i < 3; i++) {
        if (files[i][1] && !m->target.tls)
            return wf_fail(WEFT_E_INVALID,
                           "%s '%s' is given for a registry without TLS; write it as etcds://",
                           files[i][0], files[i][1]);
        if (files[i][1] && access(files[i][1], R_OK) != 0)
            return wf_fail(WEFT_E_INVALID, "cannot read %s '%s': %s", files[i][0], files[i][1],
                           strerror(errno));
    }
    if (!options->certificate != !options->key)
        return wf_fail(WEFT_E_INVALID,
                       "for etcd a certificate and its key go together; %s is "
                       "missing",
                       options->key ? "the certificate" : "the key");
    m->events = options->events;
    if (!copy(options->user, &m->user) || !copy(options->password, &m->password) ||
        !copy(options->ca, &m->ca) || !copy(options->certificate, &m->certificate) ||
        !copy(options->key, &m->key))
        return WEFT_E_NO_MEMORY;
    return WEFT_OK;
}

/* Signals are the program's; none is for this thread. */
static enum weft_status start(struct wf_members *m)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&m->thread, NULL, wf_etcd_run, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return wf_fail(WEFT_E_SYSTEM, "no thread for the registry: %s", strerror(error));
    (void)pthread_setname_np(m->thread, "weft-etcd");
    return WEFT_OK;
}

static enum weft_status etcd_open(const struct wf_member_options *options, struct wf_members **out)
{
    struct wf_members *m = wf_calloc(1, sizeof *m, "the registry");
    if (!m)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&m->lock, NULL);
    m->asked.end = &m->asked.first;
    m->answered.end = &m->answered.first;
    m->event = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    enum weft_status status = m->event >= 0
                                  ? take_options(m, options)
                                  : wf_fail(WEFT_E_SYSTEM, "no descriptor for the registry: %s",
                                            strerror(errno));
    if (status == WEFT_OK) {
        m->http.target = &m->target;
        m->http.ca = m->ca;
        m->http.certificate = m->certificate;
        m->http.key = m->key;
        status = wf_etcd_http_open(&m->http);
    }
    if (status == WEFT_OK)
        status = start(m);
    if (status != WEFT_OK) {
        release(m);
        return status;
    }
    *out = m;
    return WEFT_OK;
}

static void etcd_close(struct wf_members *m, uint32_t leave_ms)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->closing = true;
    m->leave_until_ns = wf_now_ns() + (uint64_t)leave_ms * 1000000u;
    pthread_mutex_unlock(&m->lock);
    wf_etcd_http_wake(&m->http);
    pthread_join(m->thread, NULL);
    release(m);
}

/* ------------------------------------------------------------------------------- questions */

static enum weft_status etcd_publish(struct wf_members *m, const char *addresses,
                                     const char *details)
{
    struct wf_member made;
    enum weft_status status = wf_member_make(m->self.name, addresses, details, &made);
    if (status != WEFT_OK)
        return status;
    pthread_mutex_lock(&m->lock);
    memcpy(m->self.addresses, made.addresses, sizeof made.addresses);
    memcpy(m->self.details, made.details, sizeof made.details);
    m->self_version++;
    pthread_mutex_unlock(&m->lock);
    wf_etcd_http_wake(&m->http);
    return WEFT_OK;
}

static void etcd_standing(const struct wf_members *members, struct wf_standing *out)
{
    struct wf_members *m = (struct wf_members *)(uintptr_t)members; /* for its lock alone */
    pthread_mutex_lock(&m->lock);
    wf_lease_standing(&m->lease, wf_moment_now(), out);
    pthread_mutex_unlock(&m->lock);
}

static uint32_t etcd_list(const struct wf_members *m, struct wf_member *out, uint32_t max)
{
    return wf_roster_list(&m->told.members, out, max);
}

static enum weft_status etcd_setting(const struct wf_members *m, const char *name, char *out,
                                     size_t out_bytes, uint64_t *out_revision)
{
    return wf_settings_read(&m->told.settings, name, out, out_bytes, out_revision);
}

static enum weft_status etcd_set(struct wf_members *m, const char *name, const char *value,
                                 uint64_t revision,
                                 void (*done)(void *context, enum weft_status status),
                                 void *context)
{
    enum weft_status status = wf_setting_check(name, value);
    if (status != WEFT_OK)
        return status;
    if (value && !revision && m->told.settings.count == WF_SETTINGS_MAX)
        return wf_fail(WEFT_E_LIMIT, "there are %u settings, and no room for '%s'; remove one",
                       WF_SETTINGS_MAX, name);
    struct wf_etcd_set *set = wf_calloc(1, sizeof *set, "a change of a setting");
    if (!set || !copy(value, &set->value)) {
        free(set);
        return WEFT_E_NO_MEMORY;
    }
    uint64_t patience_ns = (uint64_t)m->lease_s * 1000000000u;
    snprintf(set->name, sizeof set->name, "%s", name);
    set->revision = revision;
    set->done = done;
    set->context = context;
    set->until_ns = wf_now_ns() + (patience_ns > SET_NS_MIN ? patience_ns : SET_NS_MIN);
    pthread_mutex_lock(&m->lock);
    bool room = m->sets_count < WF_ETCD_SETS_MAX;
    if (room) {
        m->sets_count++;
        *m->asked.end = set;
        m->asked.end = &set->next;
    }
    pthread_mutex_unlock(&m->lock);
    if (!room) {
        free(set->value);
        free(set);
        return wf_fail(WEFT_E_LIMIT, "%u settings are being changed; wait for one of them",
                       WF_ETCD_SETS_MAX);
    }
    wf_etcd_http_wake(&m->http);
    return WEFT_OK;
}

static int etcd_event(const struct wf_members *m)
{
    return m->event;
}

/* -------------------------------------------------------------------------- what has changed */

static bool same_standing(const struct wf_standing *a, const struct wf_standing *b)
{
    return a->state == b->state && a->epoch == b->epoch && a->until_ns == b->until_ns &&
           strcmp(a->why, b->why) == 0;
}

static void tell_standing(struct wf_members *m, const struct wf_standing *standing)
{
    m->told_standing = *standing;
    m->told_any = true;
    if (m->events.standing)
        m->events.standing(m->events.context, standing);
}

static void tell_standings(struct wf_members *m)
{
    struct wf_standing now, before = m->told_standing;
    etcd_standing(m, &now);
    bool was_in = before.state == WF_STANDING_MEMBER || before.state == WF_STANDING_DOUBTFUL;
    if (m->told_any && was_in && now.epoch != before.epoch) {
        before.state = WF_STANDING_LOST;
        snprintf(before.why, sizeof before.why, "the lease ended, and there is another by now");
        tell_standing(m, &before);
    }
    if (!m->told_any || !same_standing(&now, &m->told_standing))
        tell_standing(m, &now);
}

/* The difference between what was told and what is known, taken while nothing changes. */
struct news {
    struct wf_roster left, joined;
    struct wf_settings removed, set;
};

static void news_fini(struct news *news)
{
    wf_roster_fini(&news->left);
    wf_roster_fini(&news->joined);
    wf_settings_fini(&news->removed);
    wf_settings_fini(&news->set);
}

static enum weft_status compare_members(const struct wf_roster *told, const struct wf_roster *now,
                                        struct news *news)
{
    enum weft_status status = WEFT_OK;
    uint32_t a = 0, b = 0;
    while (status == WEFT_OK && (a < told->count || b < now->count)) {
        const struct wf_member *old = a < told->count ? told->members[a] : NULL;
        const struct wf_member *new = b < now->count ? now->members[b] : NULL;
        int order = !old ? 1 : !new ? -1 : strcmp(old->name, new->name);
        a += order <= 0;
        b += order >= 0;
        if (order < 0 || (order == 0 && old->epoch != new->epoch))
            status = wf_roster_put(&news->left, old);
        if (status == WEFT_OK && (order > 0 || (order == 0 && !wf_member_same(old, new))))
            status = wf_roster_put(&news->joined, new);
    }
    return status;
}

static enum weft_status compare_settings(const struct wf_settings *told,
                                         const struct wf_settings *now, struct news *news)
{
    enum weft_status status = WEFT_OK;
    for (uint32_t i = 0; status == WEFT_OK && i < told->count; i++)
        if (!wf_settings_find(now, told->items[i].name))
            status = wf_settings_put(&news->removed, told->items[i].name, "", 0);
    for (uint32_t i = 0; status == WEFT_OK && i < now->count; i++) {
        const struct wf_setting *new = &now->items[i];
        const struct wf_setting *old = wf_settings_find(told, new->name);
        if (!old || old->revision != new->revision)
            status = wf_settings_put(&news->set, new->name, new->value, new->revision);
    }
    return status;
}

/* False: no memory to remember it; what was not told is told next time. */
static bool tell_members(struct wf_members *m, const struct news *news)
{
    for (uint32_t i = 0; i < news->left.count; i++) {
        free(wf_roster_take(&m->told.members, news->left.members[i]->name));
        if (m->events.left)
            m->events.left(m->events.context, news->left.members[i]);
    }
    for (uint32_t i = 0; i < news->joined.count; i++) {
        if (wf_roster_put(&m->told.members, news->joined.members[i]) != WEFT_OK)
            return false;
        if (m->events.joined)
            m->events.joined(m->events.context, news->joined.members[i]);
    }
    return true;
}

static bool tell_settings(struct wf_members *m, const struct news *news)
{
    for (uint32_t i = 0; i < news->removed.count; i++) {
        wf_settings_remove(&m->told.settings, news->removed.items[i].name);
        if (m->events.setting)
            m->events.setting(m->events.context, news->removed.items[i].name, NULL, 0);
    }
    for (uint32_t i = 0; i < news->set.count; i++) {
        const struct wf_setting *set = &news->set.items[i];
        if (wf_settings_put(&m->told.settings, set->name, set->value, set->revision) != WEFT_OK)
            return false;
        if (m->events.setting)
            m->events.setting(m->events.context, set->name, set->value, set->revision);
    }
    return true;
}

static void tell_changes(struct wf_members *m)
{
    struct news news = {0};
    pthread_mutex_lock(&m->lock);
    uint64_t version = m->view.version;
    enum weft_status status = WEFT_OK;
    if (version != m->told.version)
        status = compare_members(&m->told.members, &m->view.members, &news);
    if (version != m->told.version && status == WEFT_OK)
        status = compare_settings(&m->told.settings, &m->view.settings, &news);
    pthread_mutex_unlock(&m->lock);
    if (status == WEFT_OK && tell_members(m, &news) && tell_settings(m, &news))
        m->told.version = version;
    else
        wf_etcd_ring(m);
    news_fini(&news);
}

static void tell_sets(struct wf_members *m)
{
    pthread_mutex_lock(&m->lock);
    struct wf_etcd_sets answered = m->answered;
    m->answered = (struct wf_etcd_sets){.end = &m->answered.first};
    for (const struct wf_etcd_set *set = answered.first; set; set = set->next)
        m->sets_count--;
    pthread_mutex_unlock(&m->lock);
    for (const struct wf_etcd_set *set = answered.first; set; set = set->next) {
        if (set->status < 0 && set->status != WEFT_E_BUSY)
            wf_fail_keep("%s", set->why[0] ? set->why : "etcd does not answer");
        if (set->done)
            set->done(set->context, set->status);
    }
    wf_etcd_sets_free(&answered);
}

static void etcd_poll(struct wf_members *m, uint32_t timeout_ms)
{
    eventfd_t rung;
    struct pollfd wait = {.fd = m->event, .events = POLLIN};
    (void)poll(&wait, 1, timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms);
    (void)eventfd_read(m->event, &rung);
    tell_standings(m);
    tell_changes(m);
    tell_sets(m);
}

const struct wf_member_ops wf_member_etcd = {
    .name = "etcd",
    .open = etcd_open,
    .close = etcd_close,
    .publish = etcd_publish,
    .standing = etcd_standing,
    .list = etcd_list,
    .setting = etcd_setting,
    .set = etcd_set,
    .event = etcd_event,
    .poll = etcd_poll,
};
