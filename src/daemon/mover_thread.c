/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a mover's thread: open the tier, tell what it has, measure it, serve it; when it
 * fails, end all jobs, close it, wait, and open it again; until it is told to stop.
 */
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/hooks.h"
#include "base/log.h"
#include "daemon/mover_inner.h"
#include "sys/clock.h"

#define ERRORS_MAX 8u /* one after the other: the medium is given up */
#define RETRY_GROWTH 60u
#define TICK_MS 10   /* while jobs are there: for what expires, or stalls */
#define LOOK_MS 1000 /* while there are none: a tier looks at its medium when it reaps */
#define BLIND_MS 1u  /* for a tier that cannot say when something can be reaped */

/* ----------------------------------------------------------------------------------- opening */

struct finding {
    struct wf_mover *m;
    struct wf_mover_notice *batch;
    struct wf_tier_block known; /* one that the probe can read; bytes 0: none */
    uint32_t leftovers;
    uint8_t leftover[WF_MOVER_LEFTOVERS_MAX][32];
};

static void found(void *context, const struct wf_tier_block *block)
{
    struct finding *f = context;
    if (memcmp(block->format, WF_MOVER_PROBE, sizeof block->format) == 0) {
        if (f->leftovers < WF_MOVER_LEFTOVERS_MAX)
            memcpy(f->leftover[f->leftovers++], block->key, 32);
        return;
    }
    if (f->known.bytes == 0 && block->bytes <= f->m->buffer_bytes)
        f->known = *block;
    if (!f->batch)
        f->batch = wf_mover_notice(f->m, WF_NOTICE_FOUND);
    if (!f->batch)
        return;
    f->batch->blocks[f->batch->count++] = *block;
    if (f->batch->count == WF_MOVER_BATCH) {
        wf_mover_send(f->m, f->batch);
        f->batch = NULL;
    }
}

static void tell_opened(struct wf_mover *m, enum weft_status status, const char *sentence)
{
    struct wf_mover_notice *n = wf_mover_notice(m, WF_NOTICE_OPENED);
    if (!n)
        return;
    n->status = status;
    snprintf(n->sentence, sizeof n->sentence, "%s", sentence);
    wf_mover_send(m, n);
}

static void publish(struct wf_mover *m, const struct wf_tier_stats *stats)
{
    pthread_mutex_lock(&m->lock);
    m->stats.tier = *stats;
    m->stats.tier.coded.as_is -= m->probe_as_is;
    m->stats.tier.coded.as_is_bytes -= m->probe_as_is_bytes;
    wf_mover_publish(m);
    pthread_mutex_unlock(&m->lock);
}

static void take_in(struct wf_mover *m)
{
    struct finding finding = {.m = m};
    struct wf_tier_stats stats;
    m->probe_as_is = m->probe_as_is_bytes = 0;
    m->ops->each(m->tier, found, &finding);
    if (finding.batch)
        wf_mover_send(m, finding.batch);
    WF_CRASH("mover.found");
    wf_mover_news_first(m);
    for (uint32_t i = 0; i < finding.leftovers; i++)
        (void)m->ops->remove(m->tier, finding.leftover[i]);
    if (!wf_mover_stopping(m))
        wf_mover_probe(m, finding.known.bytes ? &finding.known
                          : m->sample.bytes   ? &m->sample
                                              : NULL);
    m->ops->stats(m->tier, &stats);
    m->held = stats.claim;
    m->probe_as_is = stats.coded.as_is; /* nothing else was written yet */
    m->probe_as_is_bytes = stats.coded.as_is_bytes;
    publish(m, &stats);
}

static bool open_tier(struct wf_mover *m)
{
    bool first = !m->tried;
    m->tried = true;
    struct wf_tier_options options = m->options.tier;
    if (m->held)
        options.held = m->held;
    enum weft_status status = m->ops->open(&options, &m->tier);
    if (status != WEFT_OK) {
        m->tier = NULL;
        snprintf(m->last_error, sizeof m->last_error, "%s", wf_last_error());
        if (first) {
            wf_error("mover", "tier %s cannot be opened: %s", m->name, m->last_error);
            tell_opened(m, status, m->last_error);
        }
        wf_mover_state_set(m, WF_MOVER_FAILED, m->last_error);
        return false;
    }
    m->ending = WF_ENDING_NOT;
    m->served = false;
    m->errors_in_row = 0;
    m->last_error[0] = '\0';
    wf_mover_state_set(m, WF_MOVER_OPENING,
                       "what it has is taken into the node's index, and it is measured");
    take_in(m);
    tell_opened(m, WEFT_OK, "");
    wf_mover_state_set(m, WF_MOVER_OK, "");
    wf_info("mover", "tier %s is open", m->name);
    return true;
}

/* ----------------------------------------------------------------------------------- serving */

/* Sleeps until there is something to do; returns how long a reap may wait. */
static uint32_t wait_for_work(struct wf_mover *m)
{
    int event = m->tier ? m->ops->event(m->tier) : -1;
    struct pollfd fds[2] = {{.fd = m->inbox_event, .events = POLLIN},
                            {.fd = event, .events = POLLIN}};
    int timeout_ms = m->tier ? LOOK_MS : -1;
    bool at_once = m->ready.first || m->summed_bytes >= WF_MOVER_SUM_BYTES;
    if (at_once || (event < 0 && m->in_flight))
        timeout_ms = 0;
    else if (m->scheduled)
        timeout_ms = event < 0 ? (int)BLIND_MS : TICK_MS;
    int news_ms = wf_mover_news_wait(m);
    if (news_ms >= 0 && (timeout_ms < 0 || news_ms < timeout_ms))
        timeout_ms = news_ms;
    int ready = poll(fds, event < 0 ? 1 : 2, timeout_ms);
    m->rung = ready > 0 && event >= 0 && fds[1].revents;
    return event < 0 && ready == 0 && !at_once ? BLIND_MS : 0;
}

static void fail(struct wf_mover *m, const char *sentence)
{
    wf_error("mover", "tier %s is out of use: %s", m->name, sentence);
    m->ending = WF_ENDING_FAILED;
    wf_mover_state_set(m, WF_MOVER_FAILED, sentence);
}

/* With the last request's sentence: both have their part of the room. */
static void fail_with_last(struct wf_mover *m, const char *what)
{
    char sentence[sizeof m->stats.reason];
    const char *last = m->last_error;
    snprintf(sentence, sizeof sentence, "%.50s%s%.200s", what, last[0] ? ": " : "", last);
    fail(m, sentence);
}

static void look_for_stall(struct wf_mover *m)
{
    char sentence[sizeof m->stats.reason];
    bool stalled = m->stats.state == WF_MOVER_STALLED; /* only this thread writes it */
    uint64_t age_ms = m->oldest ? (wf_now_ns() - m->oldest->begun_ns) / 1000000u : 0;
    bool overdue = age_ms > m->options.timeout_ms && !m->stats.tier.waits;
    if (overdue && !stalled) {
        bool link = strcmp(m->name, "remote") == 0 || strcmp(m->name, "peers") == 0;
        snprintf(sentence, sizeof sentence,
                 "a request has been with the %s for %llu ms; look at %s",
                 link ? "other node" : "device", (unsigned long long)age_ms,
                 link ? "it, and at what bounds the link to it (weft fabric limit)" : "the device");
        wf_warn("mover", "tier %s stalls: %s", m->name, sentence);
        wf_mover_state_set(m, WF_MOVER_STALLED, sentence);
    } else if (!overdue && stalled) {
        wf_info("mover", "tier %s answers again", m->name);
        wf_mover_state_set(m, WF_MOVER_OK, "");
    }
}

static void serve(struct wf_mover *m)
{
    struct wf_tier_stats stats;
    while (m->ending == WF_ENDING_NOT && !wf_mover_stopping(m)) {
        wf_mover_round(m, wait_for_work(m));
        wf_mover_news(m);
        m->ops->stats(m->tier, &stats);
        publish(m, &stats);
        if (stats.failed && stats.why[0])
            fail(m, stats.why);
        else if (stats.failed)
            fail_with_last(m, "the device is gone");
        else if (m->errors_in_row >= ERRORS_MAX)
            fail_with_last(m, "one request after the other failed");
        else
            look_for_stall(m);
    }
}

/* -------------------------------------------------------------------------------------- ending */

static void close_tier(struct wf_mover *m)
{
    struct wf_tier_stats stats;
    m->ops->stats(m->tier, &stats);
    m->ops->close(m->tier);
    m->tier = NULL;
    stats.in_flight = 0;
    publish(m, &stats);
}

static void end_failed(struct wf_mover *m)
{
    wf_mover_cancel_all(m, true);
    while (!wf_mover_idle(m))
        wf_mover_round(m, wait_for_work(m));
    close_tier(m);
}

/* In FAILED no job gets here, so only a stop, or the cancellation of what was just done, wakes it.
 */
static void pause_for(struct wf_mover *m, uint64_t ms)
{
    struct pollfd fd = {.fd = m->inbox_event, .events = POLLIN};
    uint64_t until = wf_now_ms() + ms, now;
    while (!wf_mover_stopping(m) && (now = wf_now_ms()) < until) {
        (void)poll(&fd, 1, (int)(until - now));
        const struct wf_mover_job *none = wf_mover_take(m);
        assert(!none);
        (void)none;
    }
}

static void stop(struct wf_mover *m)
{
    uint64_t patience_ns = (uint64_t)m->options.timeout_ms * 500000u, begun_ns = wf_now_ns();
    bool forced = false;
    m->ending = WF_ENDING_STOPPED;
    wf_mover_cancel_all(m, false);
    wf_mover_round(m, 0);
    while (!wf_mover_idle(m)) {
        if (!forced && wf_now_ns() - begun_ns > patience_ns) {
            forced = true;
            wf_mover_cancel_all(m, true);
        }
        wf_mover_round(m, wait_for_work(m));
    }
    if (!m->tier)
        return;
    struct wf_tier_request flush = {.op = WF_TIER_FLUSH};
    /* Unchanged since `stopping` was seen under the lock. */
    bool flushes = m->flush_ms && !m->stats.tier.forgets;
    if (flushes)
        wf_mover_run_alone(m, &flush, 1, m->flush_ms);
    if (flushes && flush.status != WEFT_OK)
        wf_warn("mover",
                "tier %s: what was written last may be lost, as its last flush did not end "
                "well: %s",
                m->name, weft_status_name(flush.status));
    WF_CRASH("mover.flushed");
    close_tier(m);
}

void *wf_mover_run(void *context)
{
    struct wf_mover *m = context;
    uint64_t pause_ms = m->options.retry_ms, pause_ms_max = pause_ms * RETRY_GROWTH;
    char name[16];
    snprintf(name, sizeof name, "weft-%s", m->name);
    pthread_setname_np(pthread_self(), name);
    while (!wf_mover_stopping(m)) {
        if (open_tier(m)) {
            serve(m);
            if (m->ending == WF_ENDING_NOT)
                break;
            if (m->served)
                pause_ms = m->options.retry_ms;
            end_failed(m);
        }
        pause_for(m, pause_ms);
        pause_ms = pause_ms * 2 < pause_ms_max ? pause_ms * 2 : pause_ms_max;
    }
    stop(m);
    wf_mover_exit(m);
    return NULL;
}
