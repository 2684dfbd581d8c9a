/* SPDX-License-Identifier: Apache-2.0
 *
 * The UCX transport's net: UCX's worker, the one place that waits, and the clock.  ucx.h says what
 * the whole is and draws what crosses.
 *
 * poll() drives UCX, reads the links' connections, and then goes over the links for which something
 * was noted: that is where all callbacks come from.  Before it waits it arms UCX's worker, which
 * refuses as long as there is something to be driven, so that nothing slips in between.  Sends that
 * UCX has put off because a peer's shared memory is full are announced by nobody; so while UCX has
 * requests, the wait is cut into steps of PENDING_MS.
 *
 * Where it has to look again and again (sends that are put off can not be waited for), or does so
 * for a moment after UCX had something to do (to sleep and be woken takes longer than most
 * answers), it offers its processor to others in between: the other side may be waiting for just
 * that one, and would otherwise get it when this side's slice of time ends.
 *
 * RDMA with UCX up to 1.13 only where UCX_TLS names it (ucx_verbs.h).
 *
 * event() is one epoll over everything; from the first time that it is asked for, every poll leaves
 * UCX armed, or event() readable for the next look, and whatever is noted between polls makes it
 * readable.
 */
#include "net/ucx.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "net/ucx_verbs.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define PENDING_MS 10u
#define PROGRESS_MAX 64u /* rounds of UCX before callbacks are called */
#define DESTROY_MS 3000u
/* For so long after UCX had something to do it is looked at again and again: while it has requests,
 * and while it has none.  A full half of a peer's shared memory, of which UCX tells when all of it
 * was read, is 1 MiB or some 100 us. */
#define LINGER_BUSY_NS 200000u
#define LINGER_NS 50000u

/* Tags of descriptors in the epoll; a link's are its generation and its number. */
enum { TAG_WAKE = 1, TAG_LISTENER, TAG_UCX, TAG_TIMER, TAGS };

/* ----------------------------------------------------------------------------------------- UCX */

/* UCX's own settings, where its variables do not say otherwise. */
static void config_default(const struct wf_ucx_lib *lib, ucp_config_t *config, const char *name,
                           const char *variable, const char *value)
{
    if (!getenv(variable))
        (void)lib->ucp_config_modify(config, name, value);
}

static enum weft_status refused(const struct wf_net *net, const char *what, ucs_status_t status)
{
    return wf_fail(WEFT_E_SYSTEM, "UCX gives no %s: %s", what, net->lib->ucs_status_string(status));
}

/* UCX's own TCP (1.13), which is there for machines without better devices.  No puts: one goes on
 * writing into the peer's memory after its endpoint was closed by force.  Nothing is sent from the
 * caller's memory: what is in the middle of that when its connection breaks UCX completes twice,
 * and the second time one of its assertions ends the process.  What it sends from buffers of its
 * own is whole, and placed only as long as somebody waits for it; ucx_drain.c sees to the end of
 * that. */
static void config_tcp(const struct wf_ucx_lib *lib, ucp_config_t *config)
{
    config_default(lib, config, "PUT_ENABLE", "UCX_TCP_PUT_ENABLE", "n");
    config_default(lib, config, "ZCOPY_THRESH", "UCX_ZCOPY_THRESH", "inf");
    config_default(lib, config, "TX_SEG_SIZE", "UCX_TCP_TX_SEG_SIZE", "256k");
    config_default(lib, config, "RX_SEG_SIZE", "UCX_TCP_RX_SEG_SIZE", "256k");
}

/* Is RDMA to be chosen where nothing is said of it? */
static bool verbs_trusted(const struct wf_ucx_lib *lib, const char *named)
{
    struct wf_ucx_version version;
    char sentence[512];
    lib->ucp_get_version(&version.major, &version.minor, &version.release);
    bool cards = access("/sys/class/infiniband", F_OK) == 0;
    bool trusted = wf_ucx_verbs_trusted(&version, cards, named, sentence, sizeof sentence);
    if (sentence[0])
        wf_warn("ucx", "%s", sentence);
    return trusted;
}

/* May UCX use its TCP, as its variable has it?  Left out it may not, see below. */
static bool tcp_named(const char *named)
{
    if (!named)
        return false;
    if (named[0] == '^')
        return !strstr(named, "tcp");
    return strstr(named, "tcp") || strstr(named, "all");
}

static enum weft_status context_open(struct wf_net *net)
{
    const struct wf_ucx_lib *lib = net->lib;
    ucp_config_t *config;
    ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME,
        .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
        .name = "weft",
    };
    ucs_status_t status = lib->ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK)
        return refused(net, "configuration", status);
    const char *transports = getenv("UCX_TLS");
    config_default(lib, config, "TLS", "UCX_TLS",
                   verbs_trusted(lib, transports) ? "^tcp" : "^tcp,ib");
    if (tcp_named(transports)) {
        net->drains = wf_ucx_drain_works();
        config_tcp(lib, config);
    }
    /* Shared memory tells of a peer that died only when it is asked to. */
    config_default(lib, config, "MM_ERROR_HANDLING", "UCX_POSIX_ERROR_HANDLING", "y");
    /* Copied in and out in pieces that the caches of both sides still have, and in fewer of them
     * than with UCX's own 8 KiB. */
    config_default(lib, config, "MM_SEG_SIZE", "UCX_POSIX_SEG_SIZE", "32k");
    config_default(lib, config, "WARN_INVALID_CONFIG", "UCX_WARN_INVALID_CONFIG", "n");
    status = lib->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &net->context);
    lib->ucp_config_release(config);
    return status == UCS_OK ? WEFT_OK : refused(net, "context", status);
}

static enum weft_status worker_open(struct wf_net *net)
{
    const struct wf_ucx_lib *lib = net->lib;
    ucp_worker_params_t params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_FLAGS,
        .thread_mode = UCS_THREAD_MODE_SERIALIZED,
        .flags = UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK,
    };
    ucp_worker_attr_t attributes = {
        .field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER | UCP_WORKER_ATTR_FIELD_ADDRESS,
    };
    ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = 0,
        .flags = UCP_AM_FLAG_WHOLE_MSG | UCP_AM_FLAG_PERSISTENT_DATA,
        .cb = wf_ucx_arrived,
        .arg = net,
    };
    ucs_status_t status = lib->ucp_worker_create(net->context, &params, &net->worker);
    if (status != UCS_OK)
        return refused(net, "worker", status);
    status = lib->ucp_worker_query(net->worker, &attributes);
    if (status != UCS_OK)
        return refused(net, "address", status);
    net->worker_address = attributes.address;
    net->worker_address_bytes = attributes.address_length;
    if (attributes.max_am_header < sizeof(struct wf_ucx_frame) + WF_UCX_BODY_MAX ||
        attributes.address_length > WF_NET_TRANSPORT_MAX)
        return wf_fail(WEFT_E_SYSTEM,
                       "UCX's devices take headers of %zu bytes and have an address of %zu; %zu "
                       "and up to %u are needed; let UCX_TLS and UCX_NET_DEVICES choose others",
                       attributes.max_am_header, attributes.address_length,
                       sizeof(struct wf_ucx_frame) + WF_UCX_BODY_MAX, WF_NET_TRANSPORT_MAX);
    status = lib->ucp_worker_set_am_recv_handler(net->worker, &handler);
    if (status != UCS_OK)
        return refused(net, "active messages", status);
    status = lib->ucp_worker_get_efd(net->worker, &net->ucx_event);
    return status == UCS_OK ? WEFT_OK : refused(net, "event to wait for", status);
}

/* ------------------------------------------------------------------------------------- the net */

static void timer_set(struct wf_net *net, uint32_t ms)
{
    struct timespec every = {ms / 1000, ms % 1000 * 1000000L};
    if (net->timer_ms == ms)
        return;
    net->timer_ms = ms;
    timerfd_settime(net->timer, 0, &(struct itimerspec){every, every}, NULL);
}

static bool watch(struct wf_net *net, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    return epoll_ctl(net->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static enum weft_status events_open(struct wf_net *net)
{
    net->epoll = epoll_create1(EPOLL_CLOEXEC);
    net->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    net->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (net->epoll < 0 || net->wake < 0 || net->timer < 0 || !watch(net, net->wake, TAG_WAKE) ||
        !watch(net, net->timer, TAG_TIMER) || !watch(net, net->ucx_event, TAG_UCX) ||
        (net->listener >= 0 && !watch(net, net->listener, TAG_LISTENER)))
        return wf_fail(WEFT_E_SYSTEM, "there is nothing to wait with: %s", strerror(errno));
    uint32_t every = net->options.dead_ms < net->options.connect_ms ? net->options.dead_ms
                                                                    : net->options.connect_ms;
    net->tick_every_ms = every / 16 ? every / 16 : 1;
    if (net->tick_every_ms > 250)
        net->tick_every_ms = 250;
    timer_set(net, net->tick_every_ms);
    return WEFT_OK;
}

static void net_free(struct wf_net *net)
{
    if (net->worker_address)
        net->lib->ucp_worker_release_address(net->worker, net->worker_address);
    if (net->worker)
        net->lib->ucp_worker_destroy(net->worker);
    for (uint32_t i = 0; net->links && i < net->link_slots; i++)
        free(net->links[i]);
    if (net->context) {
        wf_ucx_access_fini(net);
        net->lib->ucp_cleanup(net->context);
    }
    if (net->listener >= 0)
        close(net->listener);
    if (net->timer >= 0)
        close(net->timer);
    if (net->wake >= 0)
        close(net->wake);
    if (net->epoll >= 0)
        close(net->epoll);
    explicit_bzero(&net->options.security, sizeof net->options.security);
    free(net->links);
    free(net);
}

static enum weft_status options_take(struct wf_net *net, const struct wf_net_options *options)
{
    enum wf_net_proof proof = options->security.proof;
    if (proof != WF_NET_PROOF_NONE && proof != WF_NET_PROOF_SECRET)
        return wf_fail(
            WEFT_E_INVALID,
            "UCX encrypts nothing, so it can not do what TLS is asked for; use tcp, or a "
            "secret on a fabric that only nodes reach");
    if (options->hello_bytes > WF_NET_HELLO_MAX)
        return wf_fail(WEFT_E_INVALID, "a hello has up to %u bytes, not %u", WF_NET_HELLO_MAX,
                       options->hello_bytes);
    net->options = *options;
    if (options->hello_bytes)
        memcpy(net->hello, options->hello, options->hello_bytes);
    net->options.hello = net->hello;
#define DEFAULT(field, value) \
    if (!net->options.field)  \
    net->options.field = value
    DEFAULT(links_max, 1024);
    DEFAULT(queue_max, 1024);
    DEFAULT(dead_ms, 5000);
    DEFAULT(connect_ms, 5000);
#undef DEFAULT
    net->link_slots = net->options.links_max + WF_UCX_STRANGERS_MAX;
    net->links = wf_calloc(net->link_slots, sizeof(struct wf_net_link *), "links");
    return net->links ? WEFT_OK : WEFT_E_NO_MEMORY;
}

static enum weft_status net_create(const struct wf_net_options *options, struct wf_net **out)
{
    struct wf_net *net = wf_calloc(1, sizeof *net, "a net");
    if (!net)
        return WEFT_E_NO_MEMORY;
    net->epoll = net->wake = net->timer = net->listener = net->ucx_event = -1;
    net->todo_tail = &net->todo_head;
    net->now_ms = wf_now_ms();
    enum weft_status status = options_take(net, options);
    if (status == WEFT_OK)
        status = wf_ucx_lib_load(&net->lib);
    if (status == WEFT_OK)
        status = context_open(net);
    if (status == WEFT_OK)
        status = worker_open(net);
    if (status == WEFT_OK && options->listen)
        status = wf_ucx_listen(net);
    if (status == WEFT_OK)
        status = events_open(net);
    if (status != WEFT_OK) {
        net_free(net);
        return status;
    }
    *out = net;
    return WEFT_OK;
}

static void work(struct wf_net *net);

static void net_destroy(struct wf_net *net)
{
    uint64_t until = wf_now_ms() + DESTROY_MS;
    bool left = true;
    if (!net)
        return;
    net->destroying = true;
    for (uint32_t i = 0; i < net->link_slots; i++)
        if (net->links[i]) {
            wf_ucx_close(net->links[i]);
            wf_ucx_todo(net->links[i]);
        }
    while (left && wf_now_ms() < until) {
        net->lib->ucp_worker_progress(net->worker);
        work(net);
        left = false;
        for (uint32_t i = 0; i < net->link_slots; i++)
            left = left || net->links[i];
    }
    if (left)
        wf_error("ucx", "UCX holds on to a link that has ended");
    net_free(net);
}

static const char *net_address(const struct wf_net *net)
{
    return net->address;
}

/* ---------------------------------------------------------------------------------------- poll */

void wf_ucx_todo(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    if (link->in_todo)
        return;
    link->in_todo = true;
    link->next = NULL;
    if (net->watched && !net->polling)
        eventfd_write(net->wake, 1);
    *net->todo_tail = link;
    net->todo_tail = &link->next;
}

static void go_up(struct wf_net_link *link)
{
    const struct wf_net_events *events = &link->net->options.events;
    link->state = WF_UCX_UP;
    link->announced = true;
    link->heard_ms = link->net->now_ms;
    link->net->stats.links++;
    if (!events->up(events->context, link, link->peer_hello, link->peer_hello_bytes, ""))
        wf_ucx_close(link);
}

/* Of every link for which something was noted up to now; what is noted meanwhile is for the next
 * time. */
static void work(struct wf_net *net)
{
    struct wf_net_link *link = net->todo_head, *next;
    net->todo_head = NULL;
    net->todo_tail = &net->todo_head;
    for (; link; link = next) {
        next = link->next;
        link->in_todo = false;
        if (link->state == WF_UCX_WIRING && !net->destroying && wf_ucx_link_wired(link))
            go_up(link);
        if (link->state == WF_UCX_UP) {
            wf_ucx_message_work(link);
            wf_ucx_access_work(link);
        }
        /* One that is to come again is not ended here: it is in the list.  From now on it can not
         * get into it, and when UCX still has something of it, it comes again with that. */
        if (link->state == WF_UCX_ENDING && !link->in_todo) {
            link->in_todo = true;
            if (!wf_ucx_link_end(link))
                link->in_todo = false;
        }
    }
}

static void tick(struct wf_net *net)
{
    if (net->now_ms < net->tick_ms)
        return;
    net->tick_ms = net->now_ms + net->tick_every_ms;
    for (uint32_t i = 0; i < net->link_slots; i++)
        if (net->links[i])
            wf_ucx_link_tick(net->links[i]);
}

/* Wait, and read what there is on descriptors.  True: poll was woken. */
static bool wait_for(struct wf_net *net, uint32_t ms)
{
    struct epoll_event events[64];
    uint64_t count;
    bool woken = false;
    int n = epoll_wait(net->epoll, events, 64, (int)ms);
    net->now_ms = net->looked_ms = wf_now_ms();
    for (int i = 0; i < n; i++) {
        uint64_t tag = events[i].data.u64;
        uint32_t number = (uint32_t)tag;
        if (tag == TAG_WAKE) {
            woken = read(net->wake, &count, sizeof count) > 0;
        } else if (tag == TAG_TIMER) {
            (void)!read(net->timer, &count, sizeof count);
        } else if (tag == TAG_LISTENER) {
            wf_ucx_accept(net);
        } else if (tag != TAG_UCX) {
            struct wf_net_link *link = net->links[number];
            if (link && link->generation == tag >> 32)
                wf_ucx_link_ready(link, events[i].events);
        }
    }
    return woken;
}

static uint32_t progress(struct wf_net *net)
{
    uint32_t rounds = 0;
    while (rounds < PROGRESS_MAX && net->lib->ucp_worker_progress(net->worker))
        rounds++;
    if (rounds)
        net->fruitful_ns = wf_now_ns();
    return rounds;
}

/* The next thing to do is microseconds away, and whoever sleeps then is late for it. */
static bool is_soon(const struct wf_net *net, uint64_t now_ns)
{
    return now_ns - net->fruitful_ns < (net->in_flight ? LINGER_BUSY_NS : LINGER_NS);
}

/* The processor is offered to others after each look that found nothing: the other side may be
 * among them. */
static bool linger(struct wf_net *net, uint32_t rounds, uint64_t until_ms)
{
    if (net->now_ms >= until_ms)
        return false;
    if (!rounds)
        sched_yield();
    uint64_t now_ns = wf_now_ns();
    net->now_ms = now_ns / 1000000;
    return is_soon(net, now_ns);
}

/* Somebody waits for event() next.  Until then everything is done that there is; or, when more is
 * soon to come, they are woken at once, to look again.  `idle`: this look found nothing. */
static void leave_armed(struct wf_net *net, bool idle)
{
    ucs_status_t status = UCS_ERR_BUSY;
    bool soon = is_soon(net, wf_now_ns());
    if (soon && idle)
        sched_yield();
    for (uint32_t i = 0; i < PROGRESS_MAX && status == UCS_ERR_BUSY && !net->todo_head && !soon;
         i++) {
        status = net->lib->ucp_worker_arm(net->worker);
        if (status == UCS_ERR_BUSY && !net->lib->ucp_worker_progress(net->worker))
            sched_yield();
    }
    timer_set(net, net->in_flight || net->lingering ? PENDING_MS : net->tick_every_ms);
    net->again = status != UCS_OK;
    if (net->again)
        eventfd_write(net->wake, 1);
}

static enum weft_status net_poll(struct wf_net *net, uint32_t timeout_ms)
{
    uint64_t until = (net->now_ms = wf_now_ms()) + timeout_ms;
    bool woken = false, worked = false, waited = !timeout_ms, idle = false;
    net->polling = true;
    for (;;) {
        uint32_t rounds = progress(net);
        idle = rounds == 0;
        if (net->now_ms != net->looked_ms || net->again)
            woken = wait_for(net, 0);
        net->again = false;
        tick(net);
        if (net->todo_head) {
            work(net);
            worked = true;
        }
        if (woken || worked || (net->now_ms >= until && waited))
            break;
        if (linger(net, rounds, until))
            continue;
        ucs_status_t status = net->lib->ucp_worker_arm(net->worker);
        if (status == UCS_OK) {
            uint64_t ms = until > net->now_ms ? until - net->now_ms : 0;
            uint32_t most = net->in_flight || net->lingering ? PENDING_MS : net->tick_every_ms;
            woken = wait_for(net, ms < most ? (uint32_t)ms : most);
            waited = true;
        } else if (status != UCS_ERR_BUSY) {
            net->polling = false;
            return wf_fail(WEFT_E_SYSTEM, "UCX can not be waited for: %s",
                           net->lib->ucs_status_string(status));
        } else {
            /* UCX has things to do, be it only to try again to reach a peer. */
            sched_yield();
            net->now_ms = wf_now_ms();
            waited = true;
        }
    }
    if (net->watched)
        leave_armed(net, idle);
    net->polling = false;
    return WEFT_OK;
}

static int net_event(const struct wf_net *net)
{
    /* It is somebody who waits now: what the net knows of itself, not what it promises. */
    struct wf_net *self = (struct wf_net *)(uintptr_t)net;
    if (!self->watched) {
        self->watched = true;
        leave_armed(self, false);
    }
    return net->epoll;
}

static void net_wake(struct wf_net *net)
{
    eventfd_write(net->wake, 1);
}

static void net_stats(const struct wf_net *net, struct wf_net_stats *out)
{
    *out = net->stats;
}

static void link_set_user(struct wf_net_link *link, void *user)
{
    link->user = user;
}

static void *link_user(const struct wf_net_link *link)
{
    return link->user;
}

static const char *link_peer(const struct wf_net_link *link)
{
    return link->peer;
}

const struct wf_net_ops wf_net_ucx = {
    .name = "ucx",
    .one_sided = false,
    .create = net_create,
    .destroy = net_destroy,
    .address = net_address,
    .connect = wf_ucx_connect,
    .close = wf_ucx_close,
    .set_user = link_set_user,
    .user = link_user,
    .peer = link_peer,
    .send = wf_ucx_send,
    .memory = wf_ucx_memory,
    .expose = wf_ucx_expose,
    .grant = wf_ucx_grant,
    .withdraw = wf_ucx_withdraw,
    .access = wf_ucx_access,
    .event = net_event,
    .poll = net_poll,
    .wake = net_wake,
    .stats = net_stats,
};
