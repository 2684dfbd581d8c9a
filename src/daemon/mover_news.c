/* SPDX-License-Identifier: Apache-2.0
 *
 * A medium that other hosts write to: what came and went there goes to the owner in batches, as
 * what was found at the start did, and the mover waits when the owner does not keep up.
 *
 * Looking is bounded: a step of a tier's news() at a time, and a pause behind it, a long one when
 * there was nothing more to look at.
 */
#include <string.h>

#include "base/log.h"
#include "daemon/mover_inner.h"
#include "sys/clock.h"

#define NEWS_MS 100u /* between two looks */
#define MORE_MS 10u  /* when the last did not come to an end */
#define HOSTS_MS 1000u
#define FENCE_MS 2000u

struct telling {
    struct wf_mover *m;
    struct wf_mover_notice *batch;
};

static void send(struct telling *t)
{
    if (t->batch)
        wf_mover_send(t->m, t->batch);
    t->batch = NULL;
}

static void told(void *context, const struct wf_tier_block *block, bool there)
{
    struct telling *t = context;
    enum wf_mover_what what = there ? WF_NOTICE_FOUND : WF_NOTICE_GONE;
    /* Another host's mover measures. */
    if (there && memcmp(block->format, WF_MOVER_PROBE, sizeof block->format) == 0)
        return;
    if (there && t->m->sample.bytes == 0 && block->bytes <= t->m->buffer_bytes)
        t->m->sample = *block;
    if (t->batch && t->batch->what != what)
        send(t);
    if (!t->batch)
        t->batch = wf_mover_notice(t->m, what);
    if (!t->batch)
        return;
    t->batch->blocks[t->batch->count++] = *block;
    if (t->batch->count == WF_MOVER_BATCH)
        send(t);
}

static enum weft_status look(struct wf_mover *m)
{
    struct telling telling = {.m = m};
    enum weft_status status = m->ops->news(m->tier, told, &telling);
    send(&telling);
    return status;
}

static void look_at_hosts(struct wf_mover *m)
{
    static _Thread_local struct wf_tier_host hosts[WF_TIER_HOSTS_MAX];
    uint32_t count = m->ops->hosts(m->tier, hosts, WF_TIER_HOSTS_MAX);
    pthread_mutex_lock(&m->lock);
    memcpy(m->hosts, hosts, count * sizeof hosts[0]);
    m->host_count = count;
    pthread_mutex_unlock(&m->lock);
}

void wf_mover_news(struct wf_mover *m)
{
    uint64_t now_ms = wf_now_ms();
    bool rung = m->rung && m->ops->news_rings;
    if (!m->ops->news || (now_ms < m->news_ms && !rung))
        return;
    m->news_ms = now_ms + (look(m) == WEFT_PENDING ? MORE_MS : NEWS_MS);
    if (!m->ops->hosts || now_ms < m->hosts_ms)
        return;
    m->hosts_ms = now_ms + HOSTS_MS;
    look_at_hosts(m);
}

void wf_mover_news_first(struct wf_mover *m)
{
    m->sample.bytes = 0;
    m->news_ms = m->hosts_ms = 0;
    while (m->ops->news && !wf_mover_stopping(m) && look(m) == WEFT_PENDING)
        ;
}

int wf_mover_news_wait(const struct wf_mover *m)
{
    uint64_t now_ms = wf_now_ms();
    if (!m->tier || !m->ops->news)
        return -1;
    return m->news_ms > now_ms ? (int)(m->news_ms - now_ms) : 0;
}

uint32_t wf_mover_hosts(struct wf_mover *m, struct wf_tier_host *out, uint32_t max)
{
    pthread_mutex_lock(&m->lock);
    uint32_t count = m->host_count < max ? m->host_count : max;
    memcpy(out, m->hosts, count * sizeof *out);
    pthread_mutex_unlock(&m->lock);
    return count;
}

static void each(void *context, const struct wf_tier_block *block)
{
    told(context, block, true);
}

enum weft_status wf_mover_fence(struct wf_mover *m, const struct wf_mover_job *job)
{
    struct telling telling = {.m = m};
    uint32_t host = job->job.request.block.depth;
    if (!m->ops->fence || host == 0 || host > WF_TIER_HOSTS_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: no host %u shares it", m->name, host);
    enum weft_status status = m->ops->fence(m->tier, (uint8_t)host, FENCE_MS);
    if (status != WEFT_OK)
        return status;
    m->ops->each(m->tier, each, &telling);
    send(&telling);
    return WEFT_OK;
}
