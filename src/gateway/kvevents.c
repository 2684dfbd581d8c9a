/* SPDX-License-Identifier: Apache-2.0
 *
 * The publisher's thread: it owns the sockets and what is kept for replay; the queue and the
 * figures are shared with the owner's, the queue under a lock that is held for copies of a few
 * words.
 */
#include "gateway/kvevents.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "base/log.h"
#include "gateway/zmq_message.h"
#include "sys/memory.h"

#define BATCH_MAX 1024u  /* blocks in a batch */
#define MESSAGE_MAX 1024 /* bytes of what peers send: subscriptions, and where to begin */
#define BACKLOG 100000   /* batches that wait for one slow subscriber, as in vLLM */
#define LINGER_MS 200
#define ENDPOINT_MAX 128

struct kept {
    uint64_t number;
    zmq_msg_t batch;
};

struct tally {
    _Atomic uint64_t stored, removed, cleared, batches, bytes, dropped, replays, replayed, nonsense,
        topics, kept;
};

struct wf_kvevents {
    struct wf_kv_style style;
    char topic[256];
    void *context, *publisher, *router;
    uint16_t port, replay_port;
    int wake;
    pthread_t thread;
    bool runs;
    atomic_bool stopping, anew;
    pthread_mutex_t lock;
    struct wf_kv_said *queue; /* [WF_KVEVENTS_QUEUE], under lock, as are the two below */
    uint32_t queue_first, queue_count;
    /* Of the thread: */
    struct wf_kv_said taken[BATCH_MAX];
    struct wf_kv_bytes bytes;
    struct kept *kept; /* a ring */
    uint32_t kept_max, kept_first, kept_count;
    uint64_t kept_bytes, kept_bytes_max;
    uint64_t number;
    struct tally tally;
};

static void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------- publish */

static void forget_oldest(struct wf_kvevents *events)
{
    struct kept *oldest = &events->kept[events->kept_first];
    events->kept_bytes -= zmq_msg_size(&oldest->batch);
    zmq_msg_close(&oldest->batch);
    events->kept_first = (events->kept_first + 1) % events->kept_max;
    events->kept_count--;
}

/* Keep a batch that was told; it takes `batch` over. */
static void keep(struct wf_kvevents *events, uint64_t number, zmq_msg_t *batch)
{
    size_t bytes = zmq_msg_size(batch);
    while (events->kept_count && (events->kept_count == events->kept_max ||
                                  events->kept_bytes + bytes > events->kept_bytes_max))
        forget_oldest(events);
    if (!events->kept_max || bytes > events->kept_bytes_max) {
        zmq_msg_close(batch);
        return;
    }
    struct kept *place =
        &events->kept[(events->kept_first + events->kept_count) % events->kept_max];
    place->number = number;
    zmq_msg_init(&place->batch);
    zmq_msg_move(&place->batch, batch);
    events->kept_bytes += bytes;
    events->kept_count++;
    atomic_store_explicit(&events->tally.kept, events->kept_count, memory_order_relaxed);
}

static void number_write(uint8_t out[8], uint64_t number)
{
    for (int i = 8; i-- > 0; number >>= 8)
        out[i] = (uint8_t)number;
}

/* [topic, number, batch], the last by reference: libzmq counts those of a large message. */
static bool send_batch(void *socket, const char *topic, uint64_t number, zmq_msg_t *batch)
{
    uint8_t frame[8];
    zmq_msg_t copy;
    number_write(frame, number);
    zmq_msg_init(&copy);
    if (batch)
        zmq_msg_copy(&copy, batch);
    bool ok = zmq_send(socket, topic, strlen(topic), ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
              zmq_send(socket, frame, sizeof frame, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0 &&
              zmq_msg_send(&copy, socket, ZMQ_DONTWAIT) >= 0;
    zmq_msg_close(&copy);
    return ok;
}

static void publish(struct wf_kvevents *events, uint32_t taken)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    events->bytes.bytes = 0;
    events->bytes.failed = false;
    zmq_msg_t batch;
    enum weft_status status = wf_kv_encode(&events->style,
                                           (double)now.tv_sec + (double)now.tv_nsec * 1e-9,
                                           events->taken, taken, &events->bytes);
    if (status == WEFT_OK && zmq_msg_init_size(&batch, events->bytes.bytes) == 0) {
        memcpy(zmq_msg_data(&batch), events->bytes.data, events->bytes.bytes);
        uint64_t number = events->number++;
        send_batch(events->publisher, events->topic, number, &batch);
        count(&events->tally.batches, 1);
        count(&events->tally.bytes, events->bytes.bytes);
        keep(events, number, &batch);
    } else { /* a number that nobody gets: subscribers see the gap, and that replay has no such */
        events->number++;
        count(&events->tally.dropped, taken);
    }
    for (uint32_t i = 0; i < taken; i++) {
        enum wf_kv_kind kind = events->taken[i].kind;
        count(kind == WF_KV_STORED    ? &events->tally.stored
              : kind == WF_KV_REMOVED ? &events->tally.removed
                                      : &events->tally.cleared,
              1);
        wf_kv_block_put(events->taken[i].block);
    }
}

/* True: there may be more. */
static bool queue_run(struct wf_kvevents *events)
{
    pthread_mutex_lock(&events->lock);
    uint32_t taken = events->queue_count < BATCH_MAX ? events->queue_count : BATCH_MAX;
    for (uint32_t i = 0; i < taken; i++)
        events->taken[i] = events->queue[(events->queue_first + i) % WF_KVEVENTS_QUEUE];
    events->queue_first = (events->queue_first + taken) % WF_KVEVENTS_QUEUE;
    events->queue_count -= taken;
    pthread_mutex_unlock(&events->lock);
    if (taken)
        publish(events, taken);
    return taken == BATCH_MAX;
}

/* ------------------------------------------------------------------------------- what peers say */

/* A byte, 1 to subscribe and 0 to end that, and what topics begin with. */
static bool subscriptions_run(struct wf_kvevents *events)
{
    zmq_msg_t frame;
    int had = wf_zmq_receive(events->publisher, &frame, 1);
    if (had == 1 && zmq_msg_size(&frame) >= 1) {
        size_t bytes = zmq_msg_size(&frame) - 1;
        const char *data = zmq_msg_data(&frame);
        bool ours = bytes <= strlen(events->topic) && memcmp(data + 1, events->topic, bytes) == 0;
        if (ours && data[0] == 1) {
            uint64_t before = atomic_fetch_add(&events->tally.topics, 1);
            if (before == 0)
                atomic_store(&events->anew, true);
        } else if (ours && data[0] == 0 && atomic_load(&events->tally.topics)) {
            atomic_fetch_sub(&events->tally.topics, 1);
        }
    }
    wf_zmq_release(&frame, 1);
    return had > 0;
}

static void replay(struct wf_kvevents *events, zmq_msg_t *who, const uint8_t from[8])
{
    uint64_t first = 0;
    for (int i = 0; i < 8; i++)
        first = first << 8 | from[i];
    count(&events->tally.replays, 1);
    for (uint32_t i = 0; i <= events->kept_count; i++) {
        bool end = i == events->kept_count;
        struct kept *kept = end ? NULL : &events->kept[(events->kept_first + i) % events->kept_max];
        if (kept && kept->number < first)
            continue;
        if (zmq_send(events->router, zmq_msg_data(who), zmq_msg_size(who),
                     ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
            zmq_send(events->router, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
            return;
        if (!send_batch(events->router, kept ? events->topic : "", kept ? kept->number : UINT64_MAX,
                        kept ? &kept->batch : NULL))
            return;
        count(&events->tally.replayed, !end);
    }
}

/* [who, "", first] */
static bool replays_run(struct wf_kvevents *events)
{
    zmq_msg_t frames[3];
    if (!events->router)
        return false;
    int had = wf_zmq_receive(events->router, frames, 3);
    if (had == 3 && zmq_msg_size(&frames[1]) == 0 && zmq_msg_size(&frames[2]) == 8)
        replay(events, &frames[0], zmq_msg_data(&frames[2]));
    else if (had)
        count(&events->tally.nonsense, 1);
    wf_zmq_release(frames, 3);
    return had > 0;
}

static void *run(void *context)
{
    struct wf_kvevents *events = context;
    bool more = false;
    while (!atomic_load(&events->stopping)) {
        zmq_pollitem_t items[] = {{.fd = events->wake, .events = ZMQ_POLLIN},
                                  {.socket = events->publisher, .events = ZMQ_POLLIN},
                                  {.socket = events->router, .events = ZMQ_POLLIN}};
        if (zmq_poll(items, events->router ? 3 : 2, more ? 0 : 1000) < 0 && errno != EINTR)
            break;
        uint64_t woken;
        ssize_t rc = read(events->wake, &woken, sizeof woken);
        (void)rc;
        more = subscriptions_run(events);
        more |= queue_run(events);
        more |= replays_run(events); /* one a round: what is told goes first */
    }
    while (queue_run(events))
        ;
    return NULL;
}

/* -------------------------------------------------------------------------------- start and end */

static enum weft_status bind_socket(struct wf_kvevents *events, int type, const char *what,
                                    const char *address, uint16_t port, int backlog,
                                    void **out_socket, uint16_t *out_port)
{
    char endpoint[ENDPOINT_MAX], at[32];
    bool v6 = strchr(address, ':') != NULL;
    int linger = LINGER_MS, on = 1;
    int64_t most = MESSAGE_MAX;
    size_t bytes = sizeof endpoint;
    snprintf(at, sizeof at, port ? "%u" : "*", port);
    snprintf(endpoint, sizeof endpoint, "tcp://%s%s%s:%s", v6 ? "[" : "", address, v6 ? "]" : "",
             at);
    void *socket = zmq_socket(events->context, type);
    if (!socket || zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &most, sizeof most) ||
        zmq_setsockopt(socket, ZMQ_SNDHWM, &backlog, sizeof backlog) ||
        (v6 && zmq_setsockopt(socket, ZMQ_IPV6, &on, sizeof on)) || zmq_bind(socket, endpoint) ||
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, endpoint, &bytes)) {
        enum weft_status status =
            wf_fail(WEFT_E_SYSTEM, "%s: cannot listen on %s: %s; is another weftd or engine there?",
                    what, endpoint, zmq_strerror(zmq_errno()));
        if (socket)
            zmq_close(socket);
        return status;
    }
    const char *colon = strrchr(endpoint, ':');
    *out_port = colon ? (uint16_t)strtoul(colon + 1, NULL, 10) : port;
    *out_socket = socket;
    return WEFT_OK;
}

static enum weft_status open_all(struct wf_kvevents *events,
                                 const struct wf_kvevents_options *options)
{
    events->queue = wf_calloc(WF_KVEVENTS_QUEUE, sizeof *events->queue, "KV events to tell");
    if (!events->queue)
        return WEFT_E_NO_MEMORY;
    if (options->replay_address[0]) {
        events->kept = wf_calloc(options->replay_batches, sizeof *events->kept, "KV events told");
        if (!events->kept)
            return WEFT_E_NO_MEMORY;
        events->kept_max = options->replay_batches;
    }
    events->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    events->context = zmq_ctx_new();
    if (events->wake < 0 || !events->context)
        return wf_fail(WEFT_E_SYSTEM, "events: no sockets: %s", strerror(errno));
    enum weft_status status = bind_socket(events, ZMQ_XPUB, "kv_events.listen", options->address,
                                          options->port, BACKLOG, &events->publisher,
                                          &events->port);
    if (status == WEFT_OK && options->replay_address[0])
        status = bind_socket(events, ZMQ_ROUTER, "kv_events.replay", options->replay_address,
                             options->replay_port, (int)(2 * (options->replay_batches + 1)),
                             &events->router, &events->replay_port);
    return status;
}

enum weft_status wf_kvevents_start(const struct wf_kvevents_options *options,
                                   struct wf_kvevents **out)
{
    struct wf_kvevents *events = wf_calloc(1, sizeof *events, "KV events");
    if (!events)
        return WEFT_E_NO_MEMORY;
    events->wake = -1;
    events->style = options->style;
    events->kept_bytes_max = options->replay_bytes;
    snprintf(events->topic, sizeof events->topic, "%s", options->topic);
    pthread_mutex_init(&events->lock, NULL);
    enum weft_status status = open_all(events, options);
    if (status == WEFT_OK) {
        events->runs = pthread_create(&events->thread, NULL, run, events) == 0;
        if (!events->runs)
            status = wf_fail(WEFT_E_SYSTEM, "events: no thread: %s", strerror(errno));
    }
    if (status == WEFT_OK)
        *out = events;
    else
        wf_kvevents_stop(events);
    return status;
}

static void wake(struct wf_kvevents *events)
{
    uint64_t one = 1;
    ssize_t rc = write(events->wake, &one, sizeof one);
    (void)rc;
}

void wf_kvevents_stop(struct wf_kvevents *events)
{
    if (!events)
        return;
    if (events->runs) {
        atomic_store(&events->stopping, true);
        wake(events);
        pthread_join(events->thread, NULL);
    }
    while (events->kept_count)
        forget_oldest(events);
    for (uint32_t i = 0; i < events->queue_count; i++)
        wf_kv_block_put(events->queue[(events->queue_first + i) % WF_KVEVENTS_QUEUE].block);
    if (events->publisher)
        zmq_close(events->publisher);
    if (events->router)
        zmq_close(events->router);
    if (events->context)
        zmq_ctx_term(events->context);
    if (events->wake >= 0)
        close(events->wake);
    pthread_mutex_destroy(&events->lock);
    free(events->bytes.data);
    free(events->kept);
    free(events->queue);
    free(events);
}

/* -------------------------------------------------------------------------------- for the owner */

bool wf_kvevents_room(struct wf_kvevents *events, uint32_t wanted)
{
    pthread_mutex_lock(&events->lock);
    bool room = WF_KVEVENTS_QUEUE - events->queue_count >= wanted;
    pthread_mutex_unlock(&events->lock);
    return room;
}

bool wf_kvevents_tell(struct wf_kvevents *events, const struct wf_kv_said *said)
{
    pthread_mutex_lock(&events->lock);
    bool room = events->queue_count < WF_KVEVENTS_QUEUE, first = events->queue_count == 0;
    if (room) {
        events->queue[(events->queue_first + events->queue_count++) % WF_KVEVENTS_QUEUE] = *said;
        if (said->block)
            wf_kv_block_get(said->block);
    }
    pthread_mutex_unlock(&events->lock);
    if (!room)
        count(&events->tally.dropped, 1);
    else if (first)
        wake(events);
    return room;
}

bool wf_kvevents_anew(struct wf_kvevents *events)
{
    return atomic_exchange(&events->anew, false);
}

uint16_t wf_kvevents_port(const struct wf_kvevents *events)
{
    return events->port;
}

uint16_t wf_kvevents_replay_port(const struct wf_kvevents *events)
{
    return events->replay_port;
}

void wf_kvevents_figures(struct wf_kvevents *events, struct wf_kvevents_figures *out)
{
#define READ(name) .name = atomic_load_explicit(&events->tally.name, memory_order_relaxed)
    *out = (struct wf_kvevents_figures){READ(stored),  READ(removed),  READ(cleared),
                                        READ(batches), READ(bytes),    READ(dropped),
                                        READ(replays), READ(replayed), READ(nonsense),
                                        READ(topics),  READ(kept)};
#undef READ
    pthread_mutex_lock(&events->lock);
    out->queued = events->queue_count;
    pthread_mutex_unlock(&events->lock);
}
