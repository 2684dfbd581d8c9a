/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/events.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"
#include "sys/clock.h"
#include "sys/memory.h"

struct entry {
    struct wf_event event;
    uint64_t sequence; /* among all of the node, from 1: orders the rings */
    int64_t time_ms;   /* since 1970 */
};

struct ring {
    char name[WF_DOMAIN_NAME_MAX + 1];
    struct entry *entries;
    uint64_t
        added; /* the newest has this number in its ring; the oldest kept, added - capacity + 1 */
};

struct wf_events {
    uint32_t ring_count; /* domains and the node's, which is the last */
    uint32_t ring_capacity;
    uint64_t added;
    struct entry *entries;
    struct ring rings[WF_DOMAINS_MAX + 1];
};

enum weft_status wf_events_create(uint32_t capacity, const char *const *domains,
                                  uint32_t domain_count, struct wf_events **out)
{
    if (domain_count > WF_DOMAINS_MAX)
        return wf_fail(WEFT_E_LIMIT, "events of %u domains; at most %d", domain_count,
                       WF_DOMAINS_MAX);
    struct wf_events *events = wf_calloc(1, sizeof *events, "an event ring");
    if (!events)
        return WEFT_E_NO_MEMORY;
    events->ring_count = domain_count + 1;
    events->ring_capacity = capacity / events->ring_count ? capacity / events->ring_count : 1;
    size_t count = (size_t)events->ring_capacity * events->ring_count;
    events->entries = wf_calloc(count, sizeof events->entries[0], "events");
    if (!events->entries) {
        free(events);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for %zu events; set `events` lower", count);
    }
    for (uint32_t i = 0; i < events->ring_count; i++) {
        struct ring *ring = &events->rings[i];
        ring->entries = events->entries + (size_t)i * events->ring_capacity;
        if (i < domain_count)
            snprintf(ring->name, sizeof ring->name, "%s", domains[i]);
    }
    *out = events;
    return WEFT_OK;
}

void wf_events_destroy(struct wf_events *events)
{
    if (events)
        free(events->entries);
    free(events);
}

static uint32_t ring_of(const struct wf_events *events, uint32_t domain)
{
    assert(domain == WF_EVENTS_NODE || domain < events->ring_count - 1);
    return domain == WF_EVENTS_NODE ? events->ring_count - 1 : domain;
}

void wf_events_add(struct wf_events *events, const struct wf_event *event)
{
    assert(event->what);
    struct ring *ring = &events->rings[ring_of(events, event->domain)];
    ring->entries[ring->added++ % events->ring_capacity] = (struct entry){
        .event = *event,
        .sequence = ++events->added,
        .time_ms = wf_unix_ms(),
    };
}

uint64_t wf_events_total(const struct wf_events *events, uint32_t domain)
{
    return domain == WF_EVENTS_NODE ? events->added : events->rings[ring_of(events, domain)].added;
}

/* ---------------------------------------------------------------------------------------- JSON */

static bool put(json_t *object, const char *name, json_t *value)
{
    return json_object_set_new(object, name, value) == 0;
}

static bool put_number(json_t *object, const char *name, uint64_t value)
{
    return put(object, name, json_integer((json_int_t)value));
}

/* Whom the room was for: a reader that is one domain learns only whether it was itself. */
static const char *beneficiary(const struct wf_events *events, const struct wf_event *event,
                               uint32_t reader)
{
    if (event->for_domain >= events->ring_count - 1)
        return "the host";
    bool named = reader == WF_EVENTS_NODE || reader == event->for_domain;
    return named ? events->rings[event->for_domain].name : "another domain";
}

/* What the host has free, and what lies on its tiers, is other domains' doing: a reader that is one
 * of several learns nothing that tells of it. */
static bool sees_all(const struct wf_events *events, uint32_t reader)
{
    return reader == WF_EVENTS_NODE || events->ring_count <= 2; /* one domain's, and the node's */
}

static bool put_word(json_t *object, const char *name, const char *word)
{
    return !word || put(object, name, json_string(word));
}

static bool put_hex(json_t *object, const char *name, const uint8_t key[WF_EVENT_KEY_BYTES])
{
    char hex[2 * WF_EVENT_KEY_BYTES + 1];
    for (size_t i = 0; i < WF_EVENT_KEY_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", key[i]);
    return put(object, name, json_string(hex));
}

static bool put_key(json_t *object, const struct wf_event *event)
{
    return put_hex(object, "key", event->key) && put_number(object, "bytes", event->bytes);
}

static bool put_parent(json_t *object, const struct wf_event *event)
{
    static const uint8_t none[WF_EVENT_KEY_BYTES];
    return memcmp(event->parent, none, sizeof none) == 0 ||
           put_hex(object, "parent", event->parent);
}

static bool put_move(json_t *object, const struct wf_event *event)
{
    return put_key(object, event) && put_word(object, "reason", event->reason) &&
           put_word(object, "tier", event->tier) && put_word(object, "from", event->from) &&
           (event->took_us == 0 || put_number(object, "took_us", event->took_us)) &&
           (event->quality == WEFT_QUALITY_DEFAULT ||
            put_word(object, "quality", weft_quality_name(event->quality)));
}

static bool put_real(json_t *object, const char *name, double value)
{
    json_t *number = json_real(value); /* NULL for what is no number to JSON */
    return put(object, name, number ? number : json_null());
}

/* What the policy said: an order that knows no value says only its name. */
static bool put_why(json_t *object, const struct wf_event *event)
{
    static const char *const hints[] = {
        [WF_POLICY_OUTPUT] = NULL, [WF_POLICY_WANTED] = "wanted", [WF_POLICY_DONE] = "done"};
    const struct wf_policy_reason *why = &event->why;
    if (!why->rule)
        return true;
    json_t *out = json_object();
    bool good = out && put(out, "rule", json_string(why->rule));
    if (good && why->knows) {
        const char *hint = why->hint > 0 && why->hint <= WF_POLICY_DONE ? hints[why->hint] : NULL;
        good = put_real(out, "value", why->value) && put_real(out, "chance", why->chance) &&
               put_real(out, "age_s", why->age_s) &&
               put_number(out, "turn", (uint64_t)why->turn + 1) &&
               put(out, "hint", hint ? json_string(hint) : json_null());
    }
    good = good && put_number(out, "candidates", event->candidates);
    if (good && why->elsewhere)
        good = put(out, "elsewhere", json_true());
    if (good)
        return put(object, "why", out);
    json_decref(out);
    return false;
}

/* What it was worth to a tier that did not take it; `all`: also by what the tier has of others. */
static bool put_refusal(json_t *object, const struct wf_event_refusal *refusal, bool all)
{
    if (!refusal->rule)
        return true;
    json_t *out = json_object();
    bool good = out && put(out, "rule", json_string(refusal->rule)) &&
                put_real(out, "chance", refusal->chance) && put_real(out, "rate", refusal->rate) &&
                put_real(out, "saved_s", refusal->saved_s) &&
                put_real(out, "write_s", refusal->write_s) &&
                put_real(out, "wear_s", refusal->wear_s);
    if (good && all)
        good = put_real(out, "hits", refusal->hits) && put_real(out, "room_s", refusal->room_s);
    if (good)
        return put(object, "refusal", out);
    json_decref(out);
    return false;
}

static bool put_eviction(json_t *object, const struct wf_events *events,
                         const struct wf_event *event, uint32_t reader)
{
    return put_key(object, event) && put_number(object, "age_ms", event->age_ms) &&
           put(object, "reason", json_string(event->reason)) &&
           put(object, "for", json_string(beneficiary(events, event, reader))) &&
           put_word(object, "tier", event->tier) &&
           put_word(object, "not_below", event->not_below) &&
           put_refusal(object, &event->refusal, sees_all(events, reader)) &&
           put_parent(object, event) && put_why(object, event);
}

/* What is never is null. */
static bool put_ms(json_t *object, const char *name, double seconds)
{
    return put_real(object, name, 1e3 * seconds);
}

bool wf_event_prefetch_put(json_t *object, const struct wf_event_prefetch *said, bool all)
{
    if (all && !(put_ms(object, "room_ms", said->room_s) &&
                 put_number(object, "pushed_bytes", said->pushed_bytes)))
        return false;
    return put(object, "reason", json_string(said->rule)) &&
           put_number(object, "session", said->session) &&
           put_ms(object, "due_in_ms", said->due_s) &&
           put_ms(object, "begin_in_ms", said->begin_s) &&
           put_ms(object, "ready_in_ms", said->ready_s) &&
           put_ms(object, "load_ms", said->load_s) &&
           put_real(object, "quantile", said->quantile) &&
           put_real(object, "chance", said->chance) &&
           put_ms(object, "spread_ms", said->spread_s) &&
           put_ms(object, "saved_ms", said->saved_s) &&
           put_number(object, "blocks", said->blocks) && put_number(object, "begun", said->begun);
}

static json_t *entry_json(const struct wf_events *events, const struct entry *entry,
                          uint64_t sequence, uint32_t reader)
{
    const struct wf_event *event = &entry->event;
    json_t *object = json_object();
    bool good = object && put_number(object, "sequence", sequence) &&
                put(object, "time_ms", json_integer(entry->time_ms)) &&
                put(object, "what", json_string(event->what));
    if (good && event->domain != WF_EVENTS_NODE)
        good = put(object, "domain", json_string(events->rings[event->domain].name));
    if (good && event->evicted)
        good = put_eviction(object, events, event, reader);
    else if (good && event->refused)
        good = put_key(object, event) && put_hex(object, "last", event->last) &&
               put_number(object, "blocks", event->blocks) &&
               put_word(object, "reason", event->reason);
    else if (good && event->moved)
        good = put_move(object, event);
    else if (good && event->fetched)
        good = put_key(object, event) &&
               wf_event_prefetch_put(object, &event->prefetch, sees_all(events, reader));
    if (good && !event->evicted && !event->fetched && event->text[0]) {
        json_t *text = json_string(event->text);
        good = put(object, "text", text ? text : json_string("(not UTF-8)"));
    }
    if (good)
        return object;
    json_decref(object);
    return NULL;
}

/* Numbers of a ring's entries run from oldest() to ring->added. */
static uint64_t oldest(const struct wf_events *events, const struct ring *ring)
{
    return ring->added > events->ring_capacity ? ring->added - events->ring_capacity + 1 : 1;
}

static const struct entry *entry_at(const struct wf_events *events, const struct ring *ring,
                                    uint64_t number)
{
    return &ring->entries[(number - 1) % events->ring_capacity];
}

struct page {
    json_t *list;
    size_t bytes_left;
    uint64_t last, lost;
    bool more, failed;
};

/* What the members around the list take, at most. */
#define PAGE_FRAME_BYTES 128

/* False: the page is full, or there is no memory. */
static bool append(struct page *page, const struct wf_events *events, const struct entry *entry,
                   uint64_t sequence, uint32_t reader)
{
    json_t *object = entry_json(events, entry, sequence, reader);
    size_t bytes = object ? json_dumpb(object, NULL, 0, JSON_COMPACT) + 1 : 0;
    page->failed = !object;
    page->more = object && bytes > page->bytes_left;
    if (page->failed || page->more) {
        json_decref(object);
        return false;
    }
    page->failed = json_array_append_new(page->list, object) != 0;
    page->bytes_left -= bytes;
    page->last = sequence;
    return !page->failed;
}

/* One domain's own: its ring's numbers are the cursor. */
static void page_of_domain(const struct wf_events *events, uint32_t domain, uint64_t cursor,
                           struct page *page)
{
    const struct ring *ring = &events->rings[ring_of(events, domain)];
    uint64_t first = oldest(events, ring), number = cursor + 1;
    if (number < first) {
        page->lost = first - number;
        number = first;
    }
    page->last = cursor < ring->added ? cursor : ring->added;
    while (number <= ring->added &&
           append(page, events, entry_at(events, ring, number), number, domain))
        number++;
}

/* The first number in `ring` whose entry comes after `cursor` in the node's order; added + 1 when
 * none does. */
static uint64_t first_after(const struct wf_events *events, const struct ring *ring,
                            uint64_t cursor)
{
    uint64_t low = oldest(events, ring), high = ring->added + 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (entry_at(events, ring, middle)->sequence > cursor)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* All rings merged by the node's numbers. */
static void page_of_node(const struct wf_events *events, uint64_t cursor, struct page *page)
{
    uint64_t number[WF_DOMAINS_MAX + 1], kept_after = 0;
    page->last = cursor < events->added ? cursor : events->added;
    for (uint32_t i = 0; i < events->ring_count; i++) {
        number[i] = first_after(events, &events->rings[i], cursor);
        kept_after += events->rings[i].added + 1 - number[i];
    }
    page->lost = events->added - page->last - kept_after;
    for (;;) {
        uint32_t next = events->ring_count;
        uint64_t least = UINT64_MAX;
        for (uint32_t i = 0; i < events->ring_count; i++) {
            const struct ring *ring = &events->rings[i];
            if (number[i] <= ring->added && entry_at(events, ring, number[i])->sequence < least) {
                least = entry_at(events, ring, number[i])->sequence;
                next = i;
            }
        }
        if (next == events->ring_count ||
            !append(page, events, entry_at(events, &events->rings[next], number[next]), least,
                    WF_EVENTS_NODE))
            return;
        number[next]++;
    }
}

char *wf_events_json(const struct wf_events *events, uint32_t domain, uint64_t cursor,
                     size_t bytes_max)
{
    assert(bytes_max >= WF_EVENTS_JSON_MIN);
    char *text = NULL;
    struct page page = {.list = json_array(), .bytes_left = bytes_max - PAGE_FRAME_BYTES};
    if (!page.list)
        return NULL;
    if (cursor == UINT64_MAX)
        cursor--; /* so that cursor + 1 is a number; both are beyond the newest */
    if (domain == WF_EVENTS_NODE)
        page_of_node(events, cursor, &page);
    else
        page_of_domain(events, domain, cursor, &page);
    json_t *root = json_pack("{s:o, s:I, s:I, s:I}", "events", page.list, "next",
                             (json_int_t)(page.more ? page.last : 0), "last", (json_int_t)page.last,
                             "lost", (json_int_t)page.lost);
    if (root && !page.failed)
        text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text;
}
