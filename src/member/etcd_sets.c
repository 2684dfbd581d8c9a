/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings that are to be changed: asked for by the owner, carried out by the thread in their
 * order, told by the owner's poll.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "member/etcd_inner.h"
#include "sys/clock.h"

void wf_etcd_sets_free(struct wf_etcd_sets *sets)
{
    while (sets->first) {
        struct wf_etcd_set *set = sets->first;
        sets->first = set->next;
        free(set->value);
        free(set);
    }
    sets->end = &sets->first;
}

/* What there is instead is what was wanted. */
struct found {
    const struct wf_etcd_set *set;
    bool there, same;
};

static void take_found(void *context, const struct wf_etcd_kv *kv)
{
    struct found *found = context;
    found->there = true;
    found->same = found->set->value && kv->value && kv->mod > found->set->revision &&
                  strcmp(kv->value, found->set->value) == 0;
}

/* WEFT_PENDING: not yet. */
static enum weft_status try_it(struct wf_members *m, struct wf_etcd_set *set)
{
    struct found found = {.set = set};
    if (wf_now_ns() >= set->until_ns)
        return WEFT_E_NODE;
    if (wf_now_ns() < m->again_ns || wf_now_ns() < m->quiet_ns)
        return WEFT_PENDING;
    set->why[0] = '\0';
    enum weft_status status = wf_etcd_talk(m, "/v3/kv/txn",
                                           wf_etcd_say_set(m->target.cluster, set->name, set->value,
                                                           set->revision),
                                           take_found, &found);
    if (status == WEFT_OK && !m->answer.succeeded) {
        /* After a request whose answer was lost, the change may be our own. */
        bool ours = set->unsure && (set->value ? found.same : !found.there);
        return ours ? WEFT_OK : WEFT_E_BUSY;
    }
    if (status < 0)
        snprintf(set->why, sizeof set->why, "%s", wf_last_error());
    set->unsure = set->unsure || status == WEFT_E_NODE;
    if (status == WEFT_E_NODE)
        return WEFT_PENDING;
    return status == WEFT_E_NOT_FOUND || status == WEFT_E_LIMIT ? WEFT_E_NODE : status;
}

void wf_etcd_set_all(struct wf_members *m)
{
    for (;;) {
        pthread_mutex_lock(&m->lock);
        struct wf_etcd_set *set = m->asked.first;
        pthread_mutex_unlock(&m->lock);
        enum weft_status status = set ? try_it(m, set) : WEFT_PENDING;
        if (status == WEFT_PENDING)
            return;
        set->status = status;
        pthread_mutex_lock(&m->lock);
        m->asked.first = set->next;
        if (!set->next)
            m->asked.end = &m->asked.first;
        set->next = NULL;
        *m->answered.end = set;
        m->answered.end = &set->next;
        pthread_mutex_unlock(&m->lock);
        wf_etcd_ring(m);
    }
}
