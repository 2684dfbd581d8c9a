/* SPDX-License-Identifier: Apache-2.0
 *
 * Who gets how much of a link: blocks that leave this node, for others or into their memory.
 *
 * The net is given no more of a link's blocks than keep it busy (WINDOW_BYTES, WINDOW_MESSAGES);
 * the rest waits here, in a line a domain, so that what comes next can be chosen:
 *
 *     link ── demand ───── domain 0  ▢▢▢▢▢        what somebody waits for goes first; what nobody
 *        │             └── domain 1  ▢            waits for has one byte of BACKGROUND_PART then
 *        └─── background ─ domain 1  ▢▢▢
 *
 * Between domains it is start-time fair queueing (P. Goyal, H. Vin, H. Cheng, 1996): each line has
 * a tag, which grows by what it sent over its share, and the least goes next; one that was empty
 * begins at the tag of what was sent last, so that who was idle has saved nothing up.
 *
 * A link, and a domain on all links together, may have a most in bytes a second: a bucket of tokens
 * that may be overdrawn by the last message, so that any size of block goes through, and what is
 * sent in the long run is exact.
 *
 * What waits is bounded by what may be in hand at all (WF_SERVES_MAX, WF_PUTS_MAX); a link may have
 * as much of that as is left for others, so that slow ones do not have it all.  What has waited
 * for longer than anybody waits for it ends as WEFT_E_BUSY.  How long that is follows the bounds:
 * what would wait for its tokens is told when these will be there (wf_link_due), so that a bound
 * makes slow, and what it would make hopeless is refused at once.
 *
 * On the fabric's thread.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/inner.h"
#include "member/checks.h"

#define WINDOW_BYTES (16u << 20)
#define WINDOW_MESSAGES 256u
#define WINDOW_LEAST 2u /* messages, however large */
#define BACKGROUND_PART 16u
#define METERS_NS 1000000000u
#define BURST_PART 20u /* of a second */
#define BURST_LEAST 65536.0

/* ------------------------------------------------------------------------------------- buckets */

static void bucket_fill(struct wf_bucket *bucket, uint64_t now_ns)
{
    if (now_ns <= bucket->filled_ns) /* a poll's beginning may be earlier than what came in it */
        return;
    double burst = (double)bucket->bytes_s / BURST_PART + BURST_LEAST;
    bucket->tokens += (double)bucket->bytes_s * (double)(now_ns - bucket->filled_ns) / 1e9;
    bucket->tokens = bucket->tokens < burst ? bucket->tokens : burst;
    bucket->filled_ns = now_ns;
}

static bool bucket_open(const struct wf_bucket *bucket)
{
    return bucket->bytes_s == 0 || bucket->tokens > 0;
}

static void bucket_set(struct wf_bucket *bucket, uint64_t bytes_s, uint64_t now_ns)
{
    *bucket = (struct wf_bucket){.bytes_s = bytes_s, .filled_ns = now_ns};
}

/* --------------------------------------------------------------------------------------- lines */

static void waits(struct wf_link *link, const struct wf_sending *s)
{
    link->sends.waiting++;
    link->sends.waiting_bytes[s->class] += s->bytes;
    link->fabric->send_domains[s->domain].waiting_bytes[s->class] += s->bytes;
    link->fabric->sends_waiting++;
}

static void waits_no_more(struct wf_link *link, const struct wf_sending *s)
{
    link->sends.waiting--;
    link->sends.waiting_bytes[s->class] -= s->bytes;
    link->fabric->send_domains[s->domain].waiting_bytes[s->class] -= s->bytes;
    link->fabric->sends_waiting--;
}

static void line_add(struct wf_link *link, struct wf_sending *s)
{
    struct wf_sends *sends = &link->sends;
    struct wf_send_line *line = &sends->lines[s->class][s->domain];
    if (!line->first) {
        line->last = s;
        line->tag = line->tag > sends->virtual[s->class] ? line->tag : sends->virtual[s->class];
        sends->some[s->class] |= 1ull << s->domain;
    } else {
        line->last->next = s;
        line->last = s;
    }
    line->first = line->first ? line->first : s;
    waits(link, s);
}

static struct wf_sending *line_take(struct wf_link *link, uint32_t class, uint32_t domain)
{
    struct wf_sends *sends = &link->sends;
    struct wf_send_line *line = &sends->lines[class][domain];
    struct wf_sending *s = line->first;
    line->first = s->next;
    if (!line->first)
        sends->some[class] &= ~(1ull << domain);
    s->next = NULL;
    waits_no_more(link, s);
    return s;
}

/* The net had no room: it is the first again, and nothing was sent. */
static void line_return(struct wf_link *link, struct wf_sending *s)
{
    struct wf_send_line *line = &link->sends.lines[s->class][s->domain];
    s->next = line->first;
    if (!line->first)
        line->last = s;
    line->first = s;
    link->sends.some[s->class] |= 1ull << s->domain;
    waits(link, s);
}

/* The domain whose turn it is; -1: none that may send now. */
static int domain_choose(const struct wf_link *link, uint32_t class)
{
    const struct wf_sends *sends = &link->sends;
    int best = -1;
    for (uint64_t left = sends->some[class]; left; left &= left - 1) {
        int d = __builtin_ctzll(left);
        if (bucket_open(&link->fabric->send_domains[d].bucket) &&
            (best < 0 || sends->lines[class][d].tag < sends->lines[class][best].tag))
            best = d;
    }
    return best;
}

/* NULL: nothing may be sent now. */
static struct wf_sending *choose(struct wf_link *link)
{
    struct wf_sends *sends = &link->sends;
    int demand = domain_choose(link, WF_SEND_DEMAND);
    int background = domain_choose(link, WF_SEND_BACKGROUND);
    if (demand < 0 && background < 0)
        return NULL;
    bool owed = background >= 0 && sends->owed >= 0;
    if (demand < 0 || owed)
        return line_take(link, WF_SEND_BACKGROUND, (uint32_t)background);
    return line_take(link, WF_SEND_DEMAND, (uint32_t)demand);
}

/* --------------------------------------------------------------------------------- to the net */

static double share_of(const struct wf_fabric *f, uint32_t domain)
{
    uint32_t share = f->send_domains[domain].share;
    return share ? share : 1;
}

static void charge(struct wf_link *link, const struct wf_sending *s, double bytes)
{
    struct wf_sends *sends = &link->sends;
    struct wf_send_line *line = &sends->lines[s->class][s->domain];
    if (bytes > 0 && line->tag > sends->virtual[s->class])
        sends->virtual[s->class] = line->tag;
    line->tag += bytes / share_of(link->fabric, s->domain);
    if (s->class == WF_SEND_BACKGROUND)
        sends->owed = sends->some[WF_SEND_DEMAND] ? sends->owed - bytes * (BACKGROUND_PART - 1) : 0;
    else if (sends->some[WF_SEND_BACKGROUND])
        sends->owed += bytes;
    sends->bucket.tokens -= bytes;
    link->fabric->send_domains[s->domain].bucket.tokens -= bytes;
}

static void waited(struct wf_link *link, const struct wf_sending *s, uint64_t now_ns)
{
    struct wf_send_domain *domain = &link->fabric->send_domains[s->domain];
    uint64_t us = now_ns > s->since_ns ? (now_ns - s->since_ns) / 1000 : 0;
    link->sends.meter.waits++;
    link->sends.meter.wait_us += us;
    domain->meter.waits++;
    domain->meter.wait_us += us;
}

static void pump(struct wf_link *link, uint64_t now_ns);

static void sent(struct wf_net_message *message, enum weft_status status)
{
    struct wf_sending *s = (struct wf_sending *)message;
    struct wf_link *link = s->link;
    struct wf_fabric *f = link->fabric;
    uint64_t bytes = s->bytes;
    link->sends.flying--;
    link->sends.flying_bytes -= bytes;
    if (status == WEFT_OK) {
        link->sends.meter.bytes += bytes;
        f->send_domains[s->domain].meter.bytes += bytes;
    }
    s->done(message, status);
    if (link->sends.waiting)
        pump(link, wf_fabric_now(f));
}

static bool window_open(const struct wf_sends *sends)
{
    return sends->flying < WINDOW_LEAST ||
           (sends->flying < WINDOW_MESSAGES && sends->flying_bytes < WINDOW_BYTES);
}

static void pump(struct wf_link *link, uint64_t now_ns)
{
    struct wf_fabric *f = link->fabric;
    struct wf_sends *sends = &link->sends;
    struct wf_sending *s;
    if (sends->pumping || f->sends_ended || link->closing)
        return;
    sends->pumping = true; /* a net may say that a message was sent while it takes it */
    bucket_fill(&sends->bucket, now_ns);
    for (uint32_t d = 0; d < f->domain_count; d++)
        if (f->send_domains[d].bucket.bytes_s)
            bucket_fill(&f->send_domains[d].bucket, now_ns);
    while (sends->waiting && window_open(sends) && bucket_open(&sends->bucket) &&
           (s = choose(link))) {
        uint64_t bytes = s->bytes;
        bool late = s->late;
        sends->flying++;
        sends->flying_bytes += bytes;
        charge(link, s, (double)bytes);
        struct wf_sending as = *s; /* it may be gone by then */
        enum weft_status status = link->ops->send(link->net, &s->message);
        if (status == WEFT_OK) {
            if (late)
                waited(link, &as, now_ns);
            f->sends_turn = link->next;
            continue;
        }
        sends->flying--;
        sends->flying_bytes -= bytes;
        charge(link, s, -(double)bytes);
        if (status == WEFT_PENDING) {
            line_return(link, s);
            break;
        }
        s->done(&s->message, status);
    }
    sends->pumping = false;
}

void wf_link_send(struct wf_link *link, struct wf_sending *s, uint32_t domain,
                  enum wf_send_class class, uint64_t until_ns)
{
    uint64_t now_ns = wf_fabric_now(link->fabric);
    s->message.sent = sent;
    s->bytes = 0;
    for (uint32_t i = 0; i < s->message.piece_count; i++)
        s->bytes += s->message.pieces[i].iov_len;
    s->link = link;
    s->next = NULL;
    s->domain = (uint8_t)domain;
    s->class = (uint8_t) class;
    s->since_ns = now_ns;
    s->until_ns = until_ns;
    s->late = false;
    line_add(link, s);
    pump(link, now_ns);
    const struct wf_send_line *line = &link->sends.lines[class][domain];
    if (line->first && line->last == s)
        s->late = true;
}

/* ---------------------------------------------------------------------------- when its turn is */

/* Of a class the others have a part of what there is at most, and what somebody waits for does not
 * wait for what nobody does. */
static uint64_t before(const uint64_t waiting_bytes[WF_SEND_CLASSES], enum wf_send_class class)
{
    uint64_t demand = waiting_bytes[WF_SEND_DEMAND];
    if (class == WF_SEND_DEMAND)
        return demand + demand / (BACKGROUND_PART - 1);
    return demand + waiting_bytes[WF_SEND_BACKGROUND];
}

static void due_by(struct wf_send_due *due, enum wf_fabric_limited by, struct wf_bucket *bucket,
                   uint64_t waiting_bytes, uint64_t now_ns)
{
    if (!bucket->bytes_s)
        return;
    bucket_fill(bucket, now_ns);
    double bytes = (double)waiting_bytes - bucket->tokens;
    uint64_t ns = bytes > 0 ? (uint64_t)(bytes * 1e9 / (double)bucket->bytes_s) : 0;
    if (!due->by || ns > due->ns)
        *due = (struct wf_send_due){.by = by, .bytes_s = bucket->bytes_s, .ns = ns};
}

struct wf_send_due wf_link_due(struct wf_link *link, uint32_t domain, enum wf_send_class class)
{
    struct wf_send_due due = {.by = 0};
    struct wf_send_domain *d = &link->fabric->send_domains[domain];
    uint64_t now_ns = wf_fabric_now(link->fabric);
    due_by(&due, WF_FABRIC_LIMITED_LINK, &link->sends.bucket,
           before(link->sends.waiting_bytes, class), now_ns);
    due_by(&due, WF_FABRIC_LIMITED_DOMAIN, &d->bucket, before(d->waiting_bytes, class), now_ns);
    return due;
}

uint64_t wf_send_until(const struct wf_send_due *due, uint64_t now_ns, uint64_t patience_ns)
{
    uint64_t ns = 2 * due->ns + patience_ns;
    return now_ns + (ns < WF_SEND_WAIT_NS ? ns : WF_SEND_WAIT_NS);
}

/* ------------------------------------------------------------------------------- as time goes */

/* Out of the line, in its order: those whose time is over, first to last. */
static struct wf_sending *late_take(struct wf_link *link, struct wf_send_line *line,
                                    uint64_t now_ns)
{
    struct wf_sending *late = NULL, **late_end = &late, *last = NULL, *s;
    for (struct wf_sending **at = &line->first; (s = *at);) {
        if (s->until_ns > now_ns) {
            last = s;
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->next = NULL;
        *late_end = s;
        late_end = &s->next;
        waits_no_more(link, s);
    }
    line->last = last;
    return late;
}

static void expire(struct wf_link *link, uint64_t now_ns)
{
    for (uint32_t class = 0; class < WF_SEND_CLASSES; class ++)
        for (uint64_t left = link->sends.some[class]; left; left &= left - 1) {
            uint32_t d = (uint32_t)__builtin_ctzll(left);
            struct wf_send_line *line = &link->sends.lines[class][d];
            struct wf_sending *late = late_take(link, line, now_ns), *next;
            if (!line->first)
                link->sends.some[class] &= ~(1ull << d);
            for (; late; late = next) {
                next = late->next;
                link->sends.meter.late += late->until_ns > 0;
                link->fabric->send_domains[d].meter.late += late->until_ns > 0;
                late->done(&late->message, WEFT_E_BUSY);
            }
        }
}

static void meter_tick(struct wf_send_meter *meter, uint64_t now_ns)
{
    uint64_t ns = now_ns - meter->since_ns;
    meter->bytes_s = meter->since_ns
                         ? (uint64_t)((double)(meter->bytes - meter->before) * 1e9 / (double)ns)
                         : 0;
    meter->before = meter->bytes;
    meter->since_ns = now_ns;
}

void wf_sends_tick(struct wf_fabric *f, uint64_t now_ns)
{
    bool measure = now_ns - f->meters_ns >= METERS_NS;
    if (!measure && !f->sends_waiting)
        return;
    for (struct wf_link *link = f->links; link; link = link->next) {
        if (measure)
            meter_tick(&link->sends.meter, now_ns);
        if (link->sends.waiting)
            expire(link, now_ns);
    }
    for (uint32_t d = 0; measure && d < f->domain_count; d++)
        meter_tick(&f->send_domains[d].meter, now_ns);
    f->meters_ns = measure ? now_ns : f->meters_ns;
}

/* ------------------------------------------------------------------------------------- limits */

/* The lock is held. */
static uint64_t most_of(const struct wf_fabric *f, const char *name)
{
    for (uint32_t i = 0; i < f->limits.link_count; i++)
        if (strcmp(f->limits.links[i].name, name) == 0)
            return f->limits.links[i].bytes_s;
    return f->limits.link_bytes_s;
}

/* The lock is held.  False: there is no room for another name. */
static bool link_limit(struct wf_send_limits *limits, const char *name, uint64_t bytes_s)
{
    uint32_t i = 0;
    if (!name[0]) {
        limits->link_bytes_s = bytes_s;
        return true;
    }
    while (i < limits->link_count && strcmp(limits->links[i].name, name) != 0)
        i++;
    if (bytes_s == WF_FABRIC_LIMIT_AS_ALL) {
        if (i < limits->link_count)
            limits->links[i] = limits->links[--limits->link_count];
        return true;
    }
    if (i == WF_FABRIC_LINKS_NAMED)
        return false;
    snprintf(limits->links[i].name, sizeof limits->links[i].name, "%s", name);
    limits->links[i].bytes_s = bytes_s;
    limits->link_count = i < limits->link_count ? limits->link_count : i + 1;
    return true;
}

enum weft_status wf_fabric_limit(struct wf_fabric *f, enum wf_fabric_limit what, const char *name,
                                 uint32_t domain, uint64_t value)
{
    bool room = true;
    if (what == WF_FABRIC_LIMIT_LINK && strcmp(name, f->name) == 0)
        return wf_fail(WEFT_E_INVALID,
                       "%.63s is this node, which sends itself nothing; name another, as weft "
                       "fabric lists them",
                       name);
    if (what == WF_FABRIC_LIMIT_LINK && name[0]) {
        enum weft_status status = wf_member_name_check("a node's name", name);
        if (status != WEFT_OK)
            return status;
    }
    pthread_mutex_lock(&f->lock);
    if (what == WF_FABRIC_LIMIT_LINK)
        room = link_limit(&f->limits, name, value);
    else if (what == WF_FABRIC_LIMIT_DOMAIN)
        f->limits.bytes_s[domain] = value;
    else
        f->limits.share[domain] = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
    f->limits.changed = true;
    pthread_mutex_unlock(&f->lock);
    if (!room)
        return wf_fail(WEFT_E_LIMIT,
                       "%u nodes have a bound of their own already; set one for "
                       "every node instead",
                       WF_FABRIC_LINKS_NAMED);
    wf_figures_change(f);
    wf_fabric_wake(f);
    return WEFT_OK;
}

static void limits_apply(struct wf_fabric *f, uint64_t now_ns)
{
    pthread_mutex_lock(&f->lock);
    bool changed = f->limits.changed;
    f->limits.changed = false;
    for (uint32_t d = 0; changed && d < f->domain_count; d++) {
        f->send_domains[d].share = f->limits.share[d];
        if (f->send_domains[d].bucket.bytes_s != f->limits.bytes_s[d])
            bucket_set(&f->send_domains[d].bucket, f->limits.bytes_s[d], now_ns);
    }
    for (struct wf_link *link = f->links; changed && link; link = link->next) {
        uint64_t most = link->peer ? most_of(f, link->peer->name) : 0;
        if (link->sends.bucket.bytes_s != most)
            bucket_set(&link->sends.bucket, most, now_ns);
    }
    pthread_mutex_unlock(&f->lock);
}

void wf_sends_run(struct wf_fabric *f, uint64_t now_ns)
{
    limits_apply(f, now_ns);
    if (!f->sends_waiting)
        return;
    /* Another link begins each time: of a domain's tokens the first one takes what there is. */
    struct wf_link *from = f->sends_turn ? f->sends_turn : f->links;
    for (struct wf_link *link = from; link; link = link->next)
        if (link->sends.waiting)
            pump(link, now_ns);
    for (struct wf_link *link = f->links; link && link != from; link = link->next)
        if (link->sends.waiting)
            pump(link, now_ns);
}

/* ------------------------------------------------------------------------------- begin and end */

void wf_sends_begin(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    pthread_mutex_lock(&f->lock);
    bucket_set(&link->sends.bucket, most_of(f, link->peer->name), wf_fabric_now(f));
    pthread_mutex_unlock(&f->lock);
}

void wf_sends_lost(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    link->sends.pumping = true; /* nothing goes there any more */
    for (uint32_t class = 0; class < WF_SEND_CLASSES; class ++)
        while (link->sends.some[class]) {
            uint32_t d = (uint32_t)__builtin_ctzll(link->sends.some[class]);
            struct wf_sending *s = line_take(link, class, d);
            s->done(&s->message, WEFT_E_NODE);
        }
    if (f->sends_turn == link)
        f->sends_turn = link->next;
}

void wf_sends_end(struct wf_fabric *f)
{
    f->sends_ended = true;
    for (struct wf_link *link = f->links; link; link = link->next)
        wf_sends_lost(link);
}

void wf_sends_create(struct wf_fabric *f)
{
    const struct wf_fabric_options *o = &f->options;
    for (uint32_t d = 0; d < f->domain_count && d < WF_FABRIC_DOMAINS_MAX; d++) {
        f->limits.share[d] = o->domains[d].share;
        f->limits.bytes_s[d] = o->domains[d].max_bytes_s;
    }
    f->limits.link_bytes_s = o->link_bytes_s;
    for (uint32_t i = 0; i < o->link_count && i < WF_FABRIC_LINKS_NAMED; i++)
        (void)link_limit(&f->limits, o->links[i].name, o->links[i].bytes_s);
    f->limits.changed = true;
}
