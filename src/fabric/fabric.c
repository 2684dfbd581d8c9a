/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/fabric.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "fabric/inner.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define TICK_NS 20000000u
#define MOVE_BYTES_S 125000000u
#define SAID_BYTES_MAX ((uint64_t)1 << 50) /* of one node */
#define COPIES_DEFAULT ((uint64_t)4 << 20)

static uint64_t clock_now(void *context)
{
    (void)context;
    return wf_now_ns();
}

/* ------------------------------------------------------------------------------------ messages */

static uint64_t least_of(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* What it says of itself.  False: it is not believed.  What there cannot be is made less, so that
 * what all say can be added up. */
static bool says(struct wf_link *link, const struct wf_fabric_ping *what)
{
    struct wf_peer_node *peer = link->peer;
    if (!wf_link_proven(link) || peer->link != link)
        return false;
    struct wf_fabric_ping *said = &peer->said;
    *said = *what;
    said->pool_bytes = least_of(said->pool_bytes, SAID_BYTES_MAX);
    said->free_bytes = least_of(said->free_bytes, said->pool_bytes);
    said->lent_bytes = least_of(said->lent_bytes, SAID_BYTES_MAX);
    said->lent_free_bytes = least_of(said->lent_free_bytes, said->lent_bytes);
    said->lends_bytes = least_of(said->lends_bytes, SAID_BYTES_MAX);
    said->lends_used_bytes = least_of(said->lends_used_bytes, SAID_BYTES_MAX);
    said->left_bytes = least_of(said->left_bytes, SAID_BYTES_MAX);
    peer->draining = (what->flags & WF_FABRIC_DRAINING) != 0;
    return true;
}

static bool is_pong(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_ping *pong = header;
    if (bytes != sizeof *pong || link->state != WF_LINK_JOINED || pong->sent_ns > wf_fabric_now(f))
        return false;
    struct wf_peer_node *peer = link->peer;
    uint64_t us = (wf_fabric_now(f) - pong->sent_ns) / 1000;
    wf_link_alive(link);
    if (says(link, pong))
        peer->rtt_us = peer->rtt_us ? (3 * peer->rtt_us + us) / 4 : us;
    return true;
}

void wf_link_self(const struct wf_link *link, struct wf_fabric_ping *out)
{
    const struct wf_fabric *f = link->fabric;
    if (f->options.host.say)
        f->options.host.say(f->options.host.context, out);
    if (atomic_load_explicit(&f->draining, memory_order_relaxed))
        out->flags |= WF_FABRIC_DRAINING;
    out->left_bytes = wf_moves_left(f);
    if (!f->lent)
        return;
    struct wf_lent_stats lent; /* what this one may have of it */
    struct wf_lent_owner owner;
    wf_lent_stats(f->lent, &lent);
    wf_lent_owner(f->lent, link->peer->number, &owner);
    uint64_t most = owner.limit_bytes ? owner.limit_bytes : lent.bytes;
    uint64_t unused = lent.bytes > lent.used_bytes ? lent.bytes - lent.used_bytes : 0;
    uint64_t due = owner.due_bytes > owner.bytes ? owner.due_bytes - owner.bytes : 0;
    out->lends_bytes = lent.bytes;
    out->lends_used_bytes = lent.used_bytes;
    out->lent_bytes = most;
    out->lent_free_bytes = unused > due ? unused : due;
    if (owner.bytes + out->lent_free_bytes > most)
        out->lent_free_bytes = most > owner.bytes ? most - owner.bytes : 0;
}

static bool is_ping(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric_ping pong;
    if (bytes != sizeof pong || link->state != WF_LINK_JOINED)
        return false;
    memcpy(&pong, header, sizeof pong);
    (void)says(link, &pong);
    uint64_t sent_ns = pong.sent_ns;
    memset(&pong, 0, sizeof pong);
    pong.head = (struct wf_fabric_head){.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PONG};
    pong.sent_ns = sent_ns;
    wf_link_self(link, &pong);
    (void)wf_link_say(link, &pong, sizeof pong);
    return true;
}

/* A net has a header where it came to lie; what is read here as a struct of 8-byte fields lies as
 * these have to. */
static const void *aligned(struct wf_fabric *f, const void *header, uint32_t bytes)
{
    if ((uintptr_t)header % _Alignof(uint64_t) == 0 || bytes > sizeof f->header)
        return header;
    return memcpy(f->header, header, bytes);
}

static uint32_t begun(void *of, struct wf_net_link *net, const void *said, uint32_t header_bytes,
                      uint64_t payload_bytes, struct iovec *out, void **out_token)
{
    const struct wf_fabric_net *over = of;
    struct wf_fabric *f = over->fabric;
    struct wf_link *link = over->ops->user(net);
    const void *header = aligned(f, said, header_bytes);
    const struct wf_fabric_head *head = header;
    bool sane = false;
    uint32_t pieces = 0;
    if (!link || link->closing)
        return 0;
    unsigned kind = header_bytes >= sizeof *head && head->magic == WF_FABRIC_MAGIC ? head->kind : 0;
    if (link->refused && kind != WF_FABRIC_REFUSED)
        return 0;
    if (payload_bytes && kind != WF_FABRIC_DATA && kind != WF_FABRIC_PUT &&
        kind != WF_FABRIC_PROBED && kind != WF_FABRIC_LAYER)
        kind = 0;
    switch (kind) {
    case WF_FABRIC_IDENT: sane = wf_link_ident(link, header, header_bytes); break;
    case WF_FABRIC_JOIN: sane = wf_link_join(link, header, header_bytes); break;
    case WF_FABRIC_REFUSED: sane = wf_link_refused(link, header, header_bytes); break;
    case WF_FABRIC_EVENTS: sane = wf_stream_heard(link, header, header_bytes); break;
    case WF_FABRIC_AGAIN: sane = wf_stream_again(link, header, header_bytes); break;
    case WF_FABRIC_GET: sane = wf_serve_get(link, header, header_bytes); break;
    case WF_FABRIC_DATA:
        pieces = wf_fetch_begun(link, header, header_bytes, payload_bytes, out, out_token, &sane);
        break;
    case WF_FABRIC_PUT:
        pieces = wf_put_begun(link, header, header_bytes, payload_bytes, out, out_token, &sane);
        break;
    case WF_FABRIC_PLACED: sane = wf_put_placed(link, header, header_bytes); break;
    case WF_FABRIC_OFFER: sane = wf_offer_heard(link, header, header_bytes); break;
    case WF_FABRIC_FORGET: sane = wf_forget_heard(link, header, header_bytes); break;
    case WF_FABRIC_PUSH: sane = wf_reception_push(link, header, header_bytes); break;
    case WF_FABRIC_ROOM: sane = wf_push_room(link, header, header_bytes); break;
    case WF_FABRIC_LAYER:
        pieces = wf_reception_begun(link, header, header_bytes, payload_bytes, out, out_token,
                                    &sane);
        break;
    case WF_FABRIC_PUSH_END: sane = wf_reception_end(link, header, header_bytes); break;
    case WF_FABRIC_PUSHED: sane = wf_push_pushed(link, header, header_bytes); break;
    case WF_FABRIC_DROP: sane = wf_put_drop(link, header, header_bytes); break;
    case WF_FABRIC_WANT: sane = wf_want_heard(link, header, header_bytes); break;
    case WF_FABRIC_LOOKUP: sane = wf_lookup_heard(link, header, header_bytes); break;
    case WF_FABRIC_FOUND: sane = wf_found_heard(link, header, header_bytes); break;
    case WF_FABRIC_COPIES: sane = wf_copies_heard(link, header, header_bytes); break;
    case WF_FABRIC_COPIED: sane = wf_copied_heard(link, header, header_bytes); break;
    case WF_FABRIC_PING: sane = is_ping(link, header, header_bytes); break;
    case WF_FABRIC_PONG: sane = is_pong(link, header, header_bytes); break;
    case WF_FABRIC_PROBE: sane = wf_way_probe(link, header, header_bytes); break;
    case WF_FABRIC_PROBED:
        pieces = wf_way_probed(link, header, header_bytes, payload_bytes, out, out_token, &sane);
        break;
    default: break;
    }
    if (!sane) {
        f->nonsense++;
        wf_link_close(link, "%s sent nonsense (a message of kind %u, %u bytes)",
                      link->peer ? link->peer->name : "somebody", kind, header_bytes);
    }
    return sane ? pieces : 0;
}

static void progress(void *of, struct wf_net_link *net, void *token, uint64_t bytes)
{
    struct wf_fabric *f = ((const struct wf_fabric_net *)of)->fabric;
    if (wf_put_is(f, token))
        wf_put_progress(token, bytes);
    else if (wf_reception_is(f, token))
        wf_reception_progress(token, bytes);
    else if (token != &f->trial)
        wf_fetch_progress(f, net, token, bytes);
}

static void arrived(void *of, struct wf_net_link *net, void *token, enum weft_status status)
{
    const struct wf_fabric_net *over = of;
    struct wf_fabric *f = over->fabric;
    if (wf_put_is(f, token))
        wf_put_arrived(f, token, status);
    else if (wf_reception_is(f, token))
        wf_reception_arrived(f, token, status);
    else if (token == &f->trial)
        wf_way_arrived(over->ops->user(net), status);
    else
        wf_fetch_arrived(f, net, token, status);
}

/* ------------------------------------------------------------------------------------ registry */

void wf_fabric_say(struct wf_fabric *f, const char *format, ...)
{
    char sentence[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    wf_info("fabric", "%s", sentence);
    if (f->options.host.told)
        f->options.host.told(f->options.host.context, sentence);
}

/* What an operator who looks at events afterwards wants to know of it. */
static void standing_tell(const struct wf_fabric *f)
{
    static const char *const words[] = {[WF_STANDING_JOINING] = NULL,
                                        [WF_STANDING_MEMBER] = "is a member",
                                        [WF_STANDING_DOUBTFUL] = "is in doubt",
                                        [WF_STANDING_LOST] = "is no member any more",
                                        [WF_STANDING_REFUSED] = "is refused"};
    char sentence[256];
    const char *word = words[f->standing.state];
    if (!word || !f->options.host.told)
        return;
    if (f->standing.state == WF_STANDING_MEMBER)
        snprintf(sentence, sizeof sentence, "this node %s, epoch %llu", word,
                 (unsigned long long)f->standing.epoch);
    else
        snprintf(sentence, sizeof sentence, "this node %s: %.200s", word, f->standing.why);
    f->options.host.told(f->options.host.context, sentence);
}

static void standing_changed(void *fabric, const struct wf_standing *standing)
{
    struct wf_fabric *f = fabric;
    uint64_t before = f->standing.epoch;
    bool other = standing->state != f->standing.state || standing->epoch != before;
    f->standing = *standing;
    /* Why a name is refused, and that etcd does not answer, has been said by who asked it. */
    if (other && (standing->state == WF_STANDING_DOUBTFUL || standing->state == WF_STANDING_LOST))
        wf_warn("fabric", "%s: %s", f->name, standing->why);
    if (other)
        standing_tell(f);
    if (standing->epoch != before) {
        f->dial_ns = 0; /* who was never a member began no link */
        wf_links_say_again(f);
    }
}

/* ------------------------------------------------------------------------------ create, destroy */

static bool notes_make(struct wf_note_pool *pool, uint32_t max, size_t header_bytes)
{
    pool->max = max;
    pool->each = (sizeof(struct wf_note) + header_bytes + 15) / 16 * 16;
    pool->memory = wf_calloc(max, pool->each, "messages");
    return pool->memory != NULL;
}

static enum weft_status memory_make(struct wf_fabric *f)
{
    f->peers = wf_calloc(WF_FABRIC_PEERS_MAX, sizeof *f->peers, "other nodes");
    f->shown = wf_calloc(WF_FABRIC_PEERS_MAX, sizeof *f->shown, "other nodes");
    f->log = wf_calloc(WF_LOG_MAX, sizeof *f->log, "what is told to other nodes");
    f->going = wf_calloc(WF_GOING_MAX, sizeof *f->going, "what other nodes let go");
    f->inbox = wf_calloc(WF_INBOX_MAX, sizeof *f->inbox, "what is told to other nodes");
    f->sums = wf_calloc(WF_FETCHES_MAX, sizeof *f->sums, "blocks from other nodes");
    f->setting_text = wf_calloc(1, WF_SETTING_MAX + 1, "settings");
    f->by_name = wf_calloc(WF_NAMES, sizeof *f->by_name, "other nodes");
    f->trial.out = wf_calloc(1, WF_FABRIC_PROBE_BYTES, "measuring links");
    f->trial.in = wf_calloc(1, WF_FABRIC_PROBE_BYTES, "measuring links");
    if (!f->setting_text || !f->trial.out || !f->trial.in || !f->peers || !f->shown || !f->going ||
        !f->log || !f->inbox || !f->sums || !f->by_name ||
        !notes_make(&f->small, WF_NOTES_SMALL, WF_NOTE_SMALL) ||
        !notes_make(&f->large, WF_NOTES_LARGE, WF_NOTE_LARGE))
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_FETCHES_MAX; i++)
        f->fetch_free[f->fetch_free_count++] = WF_FETCHES_MAX - 1 - i;
    memset(f->peer_of, 0xff, sizeof f->peer_of); /* WF_PLACE_FREE */
    memset(f->place_of, 0xff, sizeof f->place_of);
    enum weft_status status = wf_frames_create(f);
    if (status == WEFT_OK)
        status = wf_parts_create(f);
    if (status == WEFT_OK)
        status = wf_serves_create(f);
    if (status == WEFT_OK)
        status = wf_pushes_create(f);
    if (status == WEFT_OK)
        status = wf_receptions_create(f);
    if (status == WEFT_OK)
        status = wf_puts_create(f);
    return status == WEFT_OK ? wf_moves_create(f) : status;
}

static enum weft_status watch(struct wf_fabric *f, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0 || epoll_ctl(f->epoll, EPOLL_CTL_ADD, fd, &event) == 0)
        return WEFT_OK;
    return wf_fail(WEFT_E_SYSTEM, "the fabric cannot wait for its events: %s", strerror(errno));
}

/* In virtual time there is nothing to wait for. */
static enum weft_status events_watch(struct wf_fabric *f)
{
    if (f->nets[0].ops->event(f->nets[0].net) < 0)
        return WEFT_OK;
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    f->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (f->epoll < 0 || f->wake < 0)
        return wf_fail(WEFT_E_SYSTEM, "no descriptor for the fabric: %s", strerror(errno));
    enum weft_status status = watch(f, f->wake);
    for (uint32_t i = 0; i < f->net_count && status == WEFT_OK; i++)
        status = watch(f, f->nets[i].ops->event(f->nets[i].net));
    return status == WEFT_OK ? watch(f, f->member_ops->event(f->members)) : status;
}

static enum weft_status member_open(struct wf_fabric *f)
{
    const struct wf_fabric_options *o = &f->options;
    wf_nets_address(f, f->addresses, sizeof f->addresses);
    if (o->advertise)
        snprintf(f->addresses, sizeof f->addresses, "%s", o->advertise);
    for (char *at = f->addresses; *at; at++)
        *at = *at == ',' ? ' ' : *at;
    f->member_ops = o->member ? o->member : wf_member_by_registry(o->registry);
    if (!f->member_ops)
        return wf_fail(WEFT_E_INVALID,
                       "fabric.join: '%s' is no registry; write etcd://HOST:PORT/CLUSTER, or the "
                       "other host's address, like tcp:10.0.0.2:7420",
                       o->registry);
    f->strict = f->member_ops != &wf_member_static;
    const struct wf_member_options options = {
        .registry = o->registry,
        .name = f->name,
        .addresses = f->addresses,
        .details = "{}",
        .lease_ms = o->lease_ms,
        .user = o->user,
        .password = o->password,
        .ca = o->ca,
        .certificate = o->certificate,
        .key = o->key,
        .state_dir = o->state_dir,
        .events = {.context = f,
                   .joined = wf_peer_joined,
                   .left = wf_peer_left,
                   .standing = standing_changed,
                   .setting = wf_allot_heard},
        .world = o->member_world,
    };
    enum weft_status status = f->member_ops->open(&options, &f->members);
    if (status != WEFT_OK)
        return status;
    f->member_ops->standing(f->members, &f->standing);
    return WEFT_OK;
}

enum weft_status wf_fabric_create(const struct wf_fabric_options *options, struct wf_fabric **out)
{
    struct wf_fabric *f = wf_calloc(1, sizeof *f, "the fabric");
    if (!f)
        return WEFT_E_NO_MEMORY;
    f->options = *options;
    f->options.now_ns = options->now_ns ? options->now_ns : clock_now;
    f->options.fetch_ms = options->fetch_ms ? options->fetch_ms : 1000;
    f->options.copies = options->copies ? options->copies : 1;
    f->options.move_bytes_s = options->move_bytes_s ? options->move_bytes_s : MOVE_BYTES_S;
    f->options.dead_ms = options->dead_ms ? options->dead_ms : 5000;
    snprintf(f->name, sizeof f->name, "%s", options->name);
    snprintf(f->locality, sizeof f->locality, "%s", options->locality ? options->locality : "");
    snprintf(f->figures.registry, sizeof f->figures.registry, "%s",
             options->registry ? options->registry : "");
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&f->shown_anew, &monotonic);
    pthread_condattr_destroy(&monotonic);
    f->asked_end = &f->asked;
    f->waiting_end = &f->waiting;
    f->read_end = &f->read;
    f->reads_end = &f->reads;
    f->orders_end = &f->orders;
    f->ping_last = &f->ping_first;
    f->domain_count = options->domain_count;
    for (uint32_t i = 0; i < f->domain_count && i < WF_FABRIC_DOMAINS_MAX; i++)
        f->domains[i] = options->domains[i];
    f->epoll = f->wake = -1;
    wf_sends_create(f);
    enum weft_status status = f->domain_count <= WF_FABRIC_DOMAINS_MAX
                                  ? WEFT_OK
                                  : wf_fail(WEFT_E_LIMIT, "a fabric knows %u domains, not %u",
                                            WF_FABRIC_DOMAINS_MAX, f->domain_count);
    if (status == WEFT_OK)
        status = memory_make(f);
    uint64_t copies = options->replica_copies ? options->replica_copies : COPIES_DEFAULT;
    if (status == WEFT_OK)
        status = wf_places_create(&(struct wf_places_options){.copies_max = copies,
                                                              .nodes_max = WF_PLACES_USED,
                                                              .seed = options->seed},
                                  &f->places);
    if (status == WEFT_OK)
        status = wf_places_create(&(struct wf_places_options){.copies_max = copies / 2 + 1,
                                                              .nodes_max = WF_PLACES_USED,
                                                              .seed = options->seed},
                                  &f->below);
    if (status == WEFT_OK)
        status = wf_nets_open(f, &(struct wf_net_events){.up = wf_link_up,
                                                         .down = wf_link_down,
                                                         .begun = begun,
                                                         .progress = progress,
                                                         .arrived = arrived});
    if (status == WEFT_OK)
        status = member_open(f);
    if (status == WEFT_OK)
        status = wf_parts_begin(f);
    if (status == WEFT_OK)
        status = events_watch(f);
    if (status == WEFT_OK) {
        *out = f;
        return WEFT_OK;
    }
    char sentence[WF_ERROR_MAX];
    snprintf(sentence, sizeof sentence, "%s", wf_last_error());
    wf_fabric_destroy(f, 0);
    return wf_fail(status, "%s", sentence);
}

void wf_fabric_destroy(struct wf_fabric *f, uint32_t leave_ms)
{
    if (!f)
        return;
    if (f->members)
        f->member_ops->close(f->members, leave_ms);
    wf_sends_end(f);
    wf_nets_close(f); /* ends what is placing, and what is sent */
    wf_coder_stop(f->coder);
    wf_fetches_end(f);
    wf_serves_end(f);
    wf_pushes_end(f);
    wf_puts_end(f);
    wf_moves_destroy(f);
    wf_orders_end(f);
    while (f->links) {
        struct wf_link *link = f->links;
        f->links = link->next;
        free(link);
    }
    wf_serves_destroy(f);
    wf_receptions_destroy(f);
    wf_frames_destroy(f);
    wf_parts_destroy(f);
    wf_places_destroy(f->places);
    wf_places_destroy(f->below);
    wf_routes_destroy(f->routes);
    free(f->peers);
    free(f->shown);
    free(f->log);
    free(f->going);
    free(f->inbox);
    free(f->sums);
    free(f->small.memory);
    free(f->large.memory);
    free(f->by_name);
    wf_allots_destroy(f);
    free(f->trial.out);
    free(f->trial.in);
    if (f->epoll >= 0)
        close(f->epoll);
    if (f->wake >= 0)
        close(f->wake);
    pthread_cond_destroy(&f->shown_anew);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ---------------------------------------------------------------------------------------- poll */

int wf_fabric_event(const struct wf_fabric *f)
{
    return f->epoll;
}

void wf_fabric_wake(struct wf_fabric *f)
{
    if (f->wake >= 0)
        (void)!eventfd_write(f->wake, 1);
}

void wf_fabric_room_again(struct wf_fabric *f)
{
    pthread_mutex_lock(&f->lock);
    f->room_again = true;
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
}

/* The host missed something: who told that is asked for it again. */
static void catch_up(struct wf_fabric *f)
{
    pthread_mutex_lock(&f->lock);
    bool again = f->room_again;
    f->room_again = false;
    pthread_mutex_unlock(&f->lock);
    if (again)
        wf_stream_room(f);
}

/* Without threads of its own the coder works here, twice: what came, and what goes. */
static void frames_reap(struct wf_fabric *f)
{
    if (f->coder)
        wf_coder_reap(f->coder);
}

enum weft_status wf_fabric_poll(struct wf_fabric *f, uint32_t timeout_ms)
{
    struct epoll_event events[4];
    eventfd_t ignored;
    if (f->epoll >= 0) {
        uint32_t most_ms = f->own_more ? 0 : f->waiting || f->sends_waiting ? 1 : 20;
        int wait_ms = (int)(timeout_ms < most_ms ? timeout_ms : most_ms);
        (void)epoll_wait(f->epoll, events, 4, wait_ms);
        (void)eventfd_read(f->wake, &ignored);
    }
    enum weft_status status = wf_nets_poll(f);
    f->member_ops->poll(f->members, 0);
    uint64_t changes = atomic_load_explicit(&f->show_changes, memory_order_acquire);
    bool settles = atomic_load_explicit(&f->settling, memory_order_relaxed) &&
                   changes != f->shown_changes;
    uint64_t now_ns = wf_fabric_now(f);
    wf_pushes_run(f, now_ns); /* first: an engine computes meanwhile, and another waits */
    wf_receptions_run(f, now_ns);
    frames_reap(f);
    wf_fetches_run(f, now_ns);
    wf_serves_run(f, now_ns);
    wf_moves_run(f, now_ns);
    wf_puts_run(f, now_ns);
    frames_reap(f);
    wf_sends_run(f, now_ns);
    wf_orders_run(f);
    wf_allots_run(f, now_ns);
    catch_up(f);
    if (now_ns - f->tick_ns >= TICK_NS || f->tick_ns == 0 || settles) {
        f->tick_ns = now_ns;
        wf_links_tick(f, now_ns);
        wf_ways_tick(f, now_ns);
        wf_stream_tick(f);
        wf_parts_tick(f, now_ns);
        wf_puts_tick(f, now_ns);
        wf_moves_tick(f, now_ns);
        wf_sends_tick(f, now_ns);
        wf_figures_tick(f, now_ns, changes, settles);
    }
    wf_stream_run(f);
    return status;
}
