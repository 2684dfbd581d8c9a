/* SPDX-License-Identifier: Apache-2.0
 *
 * Joining: a lease, then the node's key and its epoch in one transaction.
 *
 *     look      the node's key, which must not be there, and the epoch's, whose revision is R
 *     grant     a lease, which is counted from before this is asked
 *     join      if there is no node's key and the epoch's still has revision R:
 *               node's key = epoch + 1, leased; epoch's key = epoch + 1; this node's own last
 *               epoch instead, if that was higher
 *
 * So two who join at once do not get the same epoch, and of one name only one is in.  When the
 * answer to `join` is lost nobody knows whether it happened: the lease is given back before another
 * is asked for, and with it goes whatever hung on it.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "member/etcd_inner.h"
#include "sys/clock.h"

#define AGAIN_NS 1000000000u /* after a refusal, at most */
#define BETWEEN_NS 50000000u /* between two tries, whatever became of the first */

/* What `look` finds. */
struct looked {
    const char *cluster;
    bool taken, leased, damaged;
    char by[WF_MEMBER_ADDRESSES_MAX];
    uint64_t node_epoch;
    uint64_t epoch, epoch_mod;
    const char *name;
};

static void take_look(void *context, const struct wf_etcd_kv *kv)
{
    struct looked *looked = context;
    const char *name;
    switch (wf_etcd_part_of(looked->cluster, kv->key, &name)) {
    case WF_ETCD_NODES: {
        struct wf_member member;
        looked->taken = true;
        looked->leased = kv->lease != 0;
        if (kv->value && wf_etcd_node_read(looked->name, kv->value, &member) == WEFT_OK) {
            looked->node_epoch = member.epoch;
            memcpy(looked->by, member.addresses, sizeof looked->by);
        }
        break;
    }
    case WF_ETCD_EPOCHS:
        looked->epoch_mod = kv->mod;
        looked->damaged = wf_etcd_epoch_read(kv->value, &looked->epoch) != WEFT_OK;
        break;
    default: break;
    }
}

/* It is not let in for now: a sentence, and again after a while. */
static void refused(struct wf_members *m)
{
    uint64_t again = (uint64_t)m->lease_s * 1000000000u / 4;
    pthread_mutex_lock(&m->lock);
    bool new = m->lease.otherwise != WF_STANDING_REFUSED;
    m->lease.otherwise = WF_STANDING_REFUSED;
    snprintf(m->lease.why, sizeof m->lease.why, "%s", wf_last_error());
    pthread_mutex_unlock(&m->lock);
    m->join_ns = wf_now_ns() + (again < AGAIN_NS ? again : AGAIN_NS);
    if (new)
        wf_warn("member", "%s", wf_last_error());
    wf_etcd_ring(m);
}

static bool may_join(const struct wf_members *m, const struct looked *looked, const char *name)
{
    if (looked->taken && looked->leased)
        wf_fail_keep("the name '%s' is taken by a node at '%.100s' (epoch %llu); give this one "
                     "another, or wait for that one's lease to end",
                     name, looked->by, (unsigned long long)looked->node_epoch);
    else if (looked->taken)
        wf_fail_keep("the key /weft/%s/nodes/%s has no lease, so somebody wrote it by hand; remove "
                     "it (etcdctl del)",
                     m->target.cluster, name);
    else if (looked->damaged || looked->epoch >= (uint64_t)1 << 60)
        wf_fail_keep("the key /weft/%s/epochs/%s holds no epoch; write the last one there, in "
                     "digits (etcdctl put)",
                     m->target.cluster, name);
    else
        return true;
    return false;
}

/* The lease that we had, or may have, ends now. */
static bool give_back(struct wf_members *m)
{
    if (!m->old_lease_id)
        return true;
    enum weft_status status = wf_etcd_talk(m, "/v3/lease/revoke",
                                           wf_etcd_say_lease(m->old_lease_id), NULL, NULL);
    if (status == WEFT_E_DENIED)
        refused(m);
    if (status != WEFT_OK && status != WEFT_E_NOT_FOUND)
        return false;
    m->old_lease_id = 0;
    return true;
}

/* A third of a lease has gone by then, with what the answer takes, if that is as long as the last
 * one took: half of it is never over where etcd is no slower than a sixth. */
static uint64_t renewal_ns(uint64_t asked_ns, uint64_t length_ns)
{
    uint64_t took_ns = wf_now_ns() - asked_ns, most_ns = length_ns / 6;
    return asked_ns + length_ns / 3 - (took_ns < most_ns ? took_ns : most_ns);
}

static void joined(struct wf_members *m, const struct wf_lease *lease, uint64_t lease_id,
                   uint64_t asked_ns, uint64_t self_version)
{
    pthread_mutex_lock(&m->lock);
    m->lease = *lease;
    pthread_mutex_unlock(&m->lock);
    m->lease_id = lease_id;
    m->renew_ns = renewal_ns(asked_ns, lease->length_ns);
    m->joined_revision = m->answer.revision;
    m->published_version = self_version;
    m->erased = false;
    wf_etcd_ring(m);
}

/* Ask for a lease and for membership with it.  False: not now. */
static bool ask_to_join(struct wf_members *m, struct wf_member *self, uint64_t self_version,
                        const struct looked *looked)
{
    struct wf_lease lease = {.held = true, .otherwise = WF_STANDING_LOST};
    struct wf_moment asked = wf_moment_now();
    enum weft_status status = wf_etcd_talk(m, "/v3/lease/grant", wf_etcd_say_grant(m->lease_s),
                                           NULL, NULL);
    if (status == WEFT_E_DENIED)
        refused(m);
    if (status != WEFT_OK)
        return false;
    uint64_t id = m->answer.lease, ttl_s = m->answer.ttl_s;
    if (!id || !ttl_s || ttl_s > UINT32_MAX) {
        wf_fail_keep("etcd at %s grants a lease that is none", wf_etcd_http_endpoint(&m->http));
        wf_etcd_failed(m);
        return false;
    }
    /* A longer one than was asked for would keep the name of a dead node taken for longer; it is
     * not to be had otherwise. */
    wf_lease_count(&lease, asked, ttl_s * 1000000000u);
    /* An etcd that was restored from a backup has an older one; this node knows its last. */
    uint64_t last = looked->epoch > m->lease.epoch ? looked->epoch : m->lease.epoch;
    lease.epoch = self->epoch = last + 1;
    m->old_lease_id = id;
    status = wf_etcd_talk(m, "/v3/kv/txn",
                          wf_etcd_say_join(m->target.cluster, self, id, looked->epoch_mod), NULL,
                          NULL);
    if (status == WEFT_E_DENIED)
        refused(m);
    if (status != WEFT_OK || !m->answer.succeeded || !wf_lease_good(&lease, wf_moment_now()))
        return false;
    m->old_lease_id = 0;
    joined(m, &lease, id, asked.ns, self_version);
    return true;
}

void wf_etcd_join(struct wf_members *m)
{
    struct wf_member self;
    struct looked looked = {.cluster = m->target.cluster, .name = self.name};
    m->join_ns = wf_now_ns() + BETWEEN_NS;
    if (!give_back(m))
        return;
    pthread_mutex_lock(&m->lock);
    self = m->self;
    uint64_t version = m->self_version;
    pthread_mutex_unlock(&m->lock);
    enum weft_status status = wf_etcd_talk(m, "/v3/kv/txn",
                                           wf_etcd_say_look(m->target.cluster, self.name),
                                           take_look, &looked);
    if (status == WEFT_E_DENIED || (status == WEFT_OK && !may_join(m, &looked, self.name))) {
        refused(m);
        return;
    }
    if (status != WEFT_OK)
        return;
    if (ask_to_join(m, &self, version, &looked))
        wf_info("member", "node %s is a member of cluster %s, epoch %llu", self.name,
                m->target.cluster, (unsigned long long)self.epoch);
}

void wf_etcd_lose(struct wf_members *m, const char *why)
{
    pthread_mutex_lock(&m->lock);
    m->lease.held = false;
    m->lease.otherwise = WF_STANDING_LOST;
    if (!m->lease.why[0])
        snprintf(m->lease.why, sizeof m->lease.why, "%s", why);
    pthread_mutex_unlock(&m->lock);
    wf_warn("member", "this node is no member any more: %s", why);
    m->old_lease_id = m->lease_id;
    m->lease_id = 0;
    m->join_ns = 0;
    wf_etcd_ring(m);
}

void wf_etcd_renew(struct wf_members *m)
{
    struct wf_moment asked = wf_moment_now();
    enum weft_status status = wf_etcd_talk(m, "/v3/lease/keepalive", wf_etcd_say_lease(m->lease_id),
                                           NULL, NULL);
    uint64_t ttl_s = status == WEFT_OK ? m->answer.ttl_s : 0;
    if (status == WEFT_E_DENIED || status == WEFT_E_LIMIT)
        wf_etcd_failed(m);
    if (status != WEFT_OK && status != WEFT_E_NOT_FOUND)
        return;
    if (ttl_s == 0 || ttl_s > UINT32_MAX) {
        wf_etcd_lose(m, "etcd says that the lease is over");
        return;
    }
    pthread_mutex_lock(&m->lock);
    /* It may be alive there; here it has been said that it is over. */
    bool good = wf_lease_good(&m->lease, wf_moment_now());
    if (good) {
        wf_lease_count(&m->lease, asked, ttl_s * 1000000000u);
        m->lease.why[0] = '\0';
        m->renew_ns = renewal_ns(asked.ns, m->lease.length_ns);
    }
    pthread_mutex_unlock(&m->lock);
    if (!good)
        wf_etcd_lose(m, "the lease ended before it was renewed");
    wf_etcd_ring(m);
}

void wf_etcd_publish(struct wf_members *m)
{
    struct wf_member self;
    pthread_mutex_lock(&m->lock);
    bool due = m->lease_id && m->self_version != m->published_version &&
               wf_now_ns() >= m->publish_ns;
    uint64_t version = m->self_version;
    self = m->self;
    self.epoch = m->lease.epoch;
    pthread_mutex_unlock(&m->lock);
    if (!due)
        return;
    enum weft_status status =
        wf_etcd_talk(m, "/v3/kv/txn", wf_etcd_say_publish(m->target.cluster, &self, m->lease_id),
                     NULL, NULL);
    if (status == WEFT_OK && m->answer.succeeded)
        m->published_version = version;
    else if (status == WEFT_OK || status == WEFT_E_NOT_FOUND)
        m->erased = true;
    else if (status == WEFT_E_LIMIT)
        wf_etcd_failed(m);
    m->publish_ns = status == WEFT_E_DENIED ? wf_now_ns() + AGAIN_NS : 0;
}

void wf_etcd_leave(struct wf_members *m)
{
    uint64_t leases[] = {m->lease_id, m->old_lease_id};
    for (size_t i = 0; i < 2; i++) {
        enum weft_status status = leases[i] ? WEFT_E_NODE : WEFT_OK;
        for (uint32_t n = 0; status == WEFT_E_NODE && n < m->target.count; n++)
            if (wf_now_ns() < m->leave_until_ns)
                status = wf_etcd_talk(m, "/v3/lease/revoke", wf_etcd_say_lease(leases[i]), NULL,
                                      NULL);
    }
}
