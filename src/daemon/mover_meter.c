/* SPDX-License-Identifier: Apache-2.0
 *
 * The tier behind a mover, timed: what the scheduler submits and reaps goes through here.
 *
 * While requests are with the tier, the time that passes is divided among reads and writes by the
 * bytes that each has there, so that a mixed load gives both rates.  Small requests are left out
 * of them, as they show the latency; reads that were alone with the tier all the while give that.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hooks.h"
#include "daemon/mover_inner.h"
#include "sys/clock.h"
#include "tier/check.h"

#define SMALL_BYTES (256u << 10)
#define SAMPLE_BYTES (4u << 20) /* a rate is taken of as much */
#define SAMPLE_NS 1e8           /* or after so long, of any number of bytes */
#define RATE_KEPT 0.875
#define LATENCY_WEIGHT 0.0625

#define PROBE_BYTES (1u << 20)
#define PROBE_BYTES_LEAST (64u << 10)
#define PROBE_PARTS 64u
#define PROBE_READS 9u
#define PROBE_AT_ONCE 4u
#define SLOW_US 10000 /* each request costs, in time and perhaps in money */
#define PROBE_NS 1e8  /* no more of a kind begins after this; the first always does */

static struct wf_mover *of(const struct wf_tier *tier)
{
    return (struct wf_mover *)(uintptr_t)tier;
}

/* One that took a hundred times as long, because the machine was busy elsewhere, counts as twice.
 */
static void mix_latency(double *mean, double us)
{
    double most = *mean * 2, least = *mean / 2;
    if (*mean <= 0)
        *mean = us;
    else
        *mean += LATENCY_WEIGHT * ((us > most ? most : us < least ? least : us) - *mean);
}

/* ------------------------------------------------------------------------------------- rates */

static struct wf_mover_rate *rate_of(struct wf_mover *m, const struct wf_mover_job *job)
{
    if (job->job.cost_bytes < SMALL_BYTES)
        return NULL;
    switch (job->job.request.op) {
    case WF_TIER_READ: return &m->reads;
    case WF_TIER_WRITE: return &m->writing;
    case WF_TIER_FLUSH: break;
    }
    return NULL;
}

/* Time has passed with what is there now. */
static void pass(struct wf_mover *m, uint64_t now_ns)
{
    double bytes = (double)(m->reads.flying_bytes + m->writing.flying_bytes);
    double ns = (double)(now_ns - m->metered_ns);
    m->metered_ns = now_ns;
    if (bytes > 0) {
        m->reads.busy_ns += ns * (double)m->reads.flying_bytes / bytes;
        m->writing.busy_ns += ns * (double)m->writing.flying_bytes / bytes;
    }
}

static void add(struct wf_mover_rate *rate, double bytes, double ns)
{
    rate->past_bytes = rate->past_bytes * RATE_KEPT + bytes;
    rate->past_ns = rate->past_ns * RATE_KEPT + ns;
    if (rate->past_ns > 0)
        rate->mbps = rate->past_bytes / rate->past_ns * 1e3;
}

static void sample(struct wf_mover_rate *rate)
{
    if (rate->bytes <= 0 || (rate->bytes < SAMPLE_BYTES && rate->busy_ns < SAMPLE_NS))
        return;
    add(rate, rate->bytes, rate->busy_ns);
    rate->bytes = rate->busy_ns = 0;
}

/* --------------------------------------------------------------------------- what is in flight */

static void begin(struct wf_mover *m, struct wf_mover_job *job, uint64_t begun_ns)
{
    struct wf_mover_rate *rate = rate_of(m, job);
    pass(m, begun_ns);
    job->begun_ns = begun_ns;
    job->alone = m->in_flight == 0;
    if (m->oldest)
        m->oldest->alone = false; /* only the first of all can have been */
    job->flight_next = NULL;
    job->flight_prev = m->youngest;
    *(m->youngest ? &m->youngest->flight_next : &m->oldest) = job;
    m->youngest = job;
    m->in_flight++;
    if (rate)
        rate->flying_bytes += job->job.cost_bytes;
}

static void end(struct wf_mover *m, struct wf_mover_job *job, uint64_t now_ns)
{
    struct wf_mover_rate *rate = rate_of(m, job);
    const struct wf_tier_request *request = &job->job.request;
    *(job->flight_prev ? &job->flight_prev->flight_next : &m->oldest) = job->flight_next;
    *(job->flight_next ? &job->flight_next->flight_prev : &m->youngest) = job->flight_prev;
    m->in_flight--;
    if (rate) {
        rate->flying_bytes -= job->job.cost_bytes;
        rate->bytes += request->status == WEFT_OK ? (double)request->bytes : 0;
    }
    if (job->alone && request->op == WF_TIER_READ && request->status == WEFT_OK &&
        request->bytes <= SMALL_BYTES)
        mix_latency(&m->read_latency_us, (double)(now_ns - job->begun_ns) / 1e3);
}

/* What the medium says of itself by a result: OK that it works, WEFT_E_SYSTEM that it does not. */
static void judge(struct wf_mover *m, enum weft_status status)
{
    if (status == WEFT_E_SYSTEM) {
        m->errors_in_row++;
        return;
    }
    if (status == WEFT_OK) {
        m->errors_in_row = 0;
        m->served = true;
    }
}

/* ----------------------------------------------------------------------------- the metered tier */

/* The sum of the whole and those of its parts in one pass through memory: each part is still in the
 * cache when it is looked at for the second time. */
static uint64_t sum_payload(struct wf_mover *m, const struct wf_mover_job *job)
{
    const struct wf_tier_block *block = &job->job.request.block;
    const uint8_t *data = job->job.request.data;
    m->sums_of = job;
    if (wf_tier_parts(block) == 1)
        return m->sums[0] = wf_sum64(data, block->bytes);
    XXH3_64bits_reset(m->sum);
    for (uint32_t i = 0; i < wf_tier_parts(block); i++) {
        const uint8_t *part = data + (uint64_t)i * block->part_bytes;
        XXH3_64bits_update(m->sum, part, wf_tier_part_bytes(block, i));
        m->sums[i] = wf_sum64(part, wf_tier_part_bytes(block, i));
    }
    return XXH3_64bits_digest(m->sum);
}

static enum weft_status check_payload(struct wf_mover *m, struct wf_mover_job *job)
{
    const struct wf_tier_request *request = &job->job.request;
    if (request->op != WF_TIER_WRITE || job->summed)
        return WEFT_OK;
    if (m->summed_bytes >= WF_MOVER_SUM_BYTES)
        return WEFT_PENDING;
    m->summed_bytes += request->block.bytes;
    uint64_t checksum = sum_payload(m, job);
    if (job->checksum && job->checksum != checksum)
        return wf_fail(WEFT_E_CORRUPT,
                       "tier %s: a block of %llu bytes does not match its checksum before it is "
                       "written; it was left out",
                       m->name, (unsigned long long)request->block.bytes);
    job->checksum = checksum;
    job->summed = true;
    return WEFT_OK;
}

static enum weft_status metered_submit(struct wf_tier *tier, struct wf_tier_request *request)
{
    struct wf_mover *m = of(tier);
    struct wf_mover_job *job = (struct wf_mover_job *)request; /* first member of the first */
    enum weft_status status = check_payload(m, job);
    if (status != WEFT_OK)
        return status;
    uint64_t now_ns = wf_now_ns();
    request->sums = m->sums_of == job ? m->sums : NULL;
    status = m->ops->submit(m->tier, request);
    request->sums = NULL;
    if (status != WEFT_PENDING)
        m->sums_of = NULL;
    if (status == WEFT_OK)
        begin(m, job, now_ns);
    else
        judge(m, status);
    return status;
}

static uint32_t metered_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                             uint32_t timeout_ms)
{
    struct wf_mover *m = of(tier);
    uint32_t count = m->ops->reap(m->tier, out, max, timeout_ms);
    uint64_t now_ns = count ? wf_now_ns() : 0;
    if (count)
        pass(m, now_ns);
    for (uint32_t i = 0; i < count; i++) {
        end(m, (struct wf_mover_job *)out[i], now_ns);
        judge(m, out[i]->status);
    }
    sample(&m->reads);
    sample(&m->writing);
    return count;
}

static void metered_cancel(struct wf_tier *tier, struct wf_tier_request *request)
{
    of(tier)->ops->cancel(of(tier)->tier, request);
}

static int metered_event(const struct wf_tier *tier)
{
    return of(tier)->ops->event(of(tier)->tier);
}

static bool metered_find(const struct wf_tier *tier, const uint8_t key[32],
                         struct wf_tier_block *out)
{
    return of(tier)->ops->find(of(tier)->tier, key, out);
}

static enum weft_status metered_remove(struct wf_tier *tier, const uint8_t key[32])
{
    return of(tier)->ops->remove(of(tier)->tier, key);
}

static void metered_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    of(tier)->ops->stats(of(tier)->tier, out);
}

/* It is opened, closed and listed by the mover itself. */
const struct wf_tier_ops wf_mover_metered = {
    .name = "metered",
    .submit = metered_submit,
    .reap = metered_reap,
    .cancel = metered_cancel,
    .event = metered_event,
    .find = metered_find,
    .remove = metered_remove,
    .stats = metered_stats,
};

/* ------------------------------------------------------------------------------------ the probe */

void wf_mover_run_alone(struct wf_mover *m, struct wf_tier_request *requests, uint32_t count,
                        uint32_t timeout_ms)
{
    struct wf_tier_request *out[PROBE_AT_ONCE];
    uint64_t until = wf_now_ns() + (uint64_t)timeout_ms * 1000000u;
    uint32_t there = 0;
    bool cancelled = false;
    for (uint32_t i = 0; i < count; i++) {
        requests[i].status = WEFT_PENDING;
        enum weft_status status = m->ops->submit(m->tier, &requests[i]);
        there += status == WEFT_OK;
        if (status != WEFT_OK)
            requests[i].status = status == WEFT_PENDING ? WEFT_E_BUSY : status;
    }
    while (there) {
        there -= m->ops->reap(m->tier, out, PROBE_AT_ONCE, 10);
        if (cancelled || !there || wf_now_ns() < until)
            continue;
        cancelled = true;
        wf_mover_state_set(m, WF_MOVER_STALLED, "a request of the mover's own takes too long");
        for (uint32_t i = 0; i < count; i++) {
            if (requests[i].status == WEFT_PENDING)
                m->ops->cancel(m->tier, &requests[i]);
        }
    }
}

static double time_run(struct wf_mover *m, struct wf_tier_request *requests, uint32_t count)
{
    uint64_t before = wf_now_ns();
    wf_mover_run_alone(m, requests, count, m->options.timeout_ms);
    uint64_t ns = wf_now_ns() - before;
    for (uint32_t i = 0; i < count; i++) {
        if (requests[i].status != WEFT_OK)
            return 0;
    }
    return (double)(ns ? ns : 1);
}

static bool probe_write(struct wf_mover *m, struct wf_tier_block *block)
{
    *block = (struct wf_tier_block){.bytes = PROBE_BYTES};
    memcpy(block->format, WF_MOVER_PROBE, sizeof block->format);
    if (block->bytes > m->buffer_bytes)
        block->bytes = m->buffer_bytes;
    for (; block->bytes >= PROBE_BYTES_LEAST || block->bytes == m->buffer_bytes;
         block->bytes /= 4) {
        block->part_bytes = (uint32_t)((block->bytes + PROBE_PARTS - 1) / PROBE_PARTS);
        if (getrandom(block->key, sizeof block->key, 0) != (ssize_t)sizeof block->key ||
            getrandom(m->buffer, block->bytes, 0) < 1)
            return false;
        struct wf_tier_request write = {.op = WF_TIER_WRITE, .block = *block, .data = m->buffer};
        struct wf_tier_request flush = {.op = WF_TIER_FLUSH};
        double ns = time_run(m, &write, 1);
        if (ns > 0) {
            /* Until then it may lie in memory that the tier gathers writes in, and reads of it
             * would measure that. */
            double flush_ns = time_run(m, &flush, 1);
            if (flush_ns > 0)
                add(&m->writing, (double)block->bytes, ns + flush_ns);
            return true;
        }
        if (write.status != WEFT_FULL && write.status != WEFT_E_INVALID)
            return false;
    }
    return false;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Single parts, one after the other: the median. */
static void probe_latency(struct wf_mover *m, const struct wf_tier_block *block)
{
    double taken[PROBE_READS], spent = 0;
    uint32_t count = 0,
             parts = (uint32_t)((block->bytes + block->part_bytes - 1) / block->part_bytes);
    while (count < PROBE_READS && spent < PROBE_NS) {
        struct wf_tier_request read = {.op = WF_TIER_READ,
                                       .block = *block,
                                       .data = m->buffer,
                                       .first_part = count * 7 % parts,
                                       .part_count = 1};
        taken[count] = time_run(m, &read, 1);
        if (taken[count] <= 0)
            return;
        spent += taken[count++];
    }
    qsort(taken, count, sizeof taken[0], by_size);
    m->read_latency_us = taken[count / 2] / 1e3;
}

/* The whole block, a few at once where that takes no time to speak of. */
static void probe_bandwidth(struct wf_mover *m, const struct wf_tier_block *block)
{
    uint64_t room = (block->bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    uint32_t at_once = PROBE_AT_ONCE, depth = m->options.tier.queue_depth;
    struct wf_tier_request reads[PROBE_AT_ONCE];
    double spent = 0;
    if (at_once > depth)
        at_once = depth;
    if (at_once > m->buffer_bytes / room)
        at_once = (uint32_t)(m->buffer_bytes / room);
    if (m->read_latency_us > SLOW_US)
        at_once = 1;
    for (uint32_t round = 0; round < 2 && spent < PROBE_NS; round++) {
        for (uint32_t i = 0; i < at_once; i++)
            reads[i] = (struct wf_tier_request){.op = WF_TIER_READ,
                                                .block = *block,
                                                .data = m->buffer + i * room};
        double ns = time_run(m, reads, at_once);
        if (ns <= 0)
            return;
        spent += ns;
        add(&m->reads, (double)block->bytes * at_once, ns);
    }
}

void wf_mover_probe(struct wf_mover *m, const struct wf_tier_block *known)
{
    struct wf_tier_block block;
    m->reads = m->writing = (struct wf_mover_rate){0};
    m->read_latency_us = 0;
    bool own = probe_write(m, &block);
    WF_CRASH("mover.probing");
    if (!own && (!known || known->bytes > m->buffer_bytes))
        return;
    if (!own)
        block = *known;
    if (block.part_bytes <= SMALL_BYTES)
        probe_latency(m, &block);
    probe_bandwidth(m, &block);
    if (own)
        (void)m->ops->remove(m->tier, block.key);
}
