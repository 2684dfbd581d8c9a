/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread that hears engines.
 *
 * It owns all sockets; nobody else changes a table.  A table and its figures are read by the owner
 * under the engine's lock, which the thread takes for one block's change at a time.
 *
 * A number says where a batch stands among its publisher's, and nothing says which publisher's life
 * it is of.  Two things tell lives apart: the monitor of the SUB, which says when a connection was
 * made or lost, and numbers on the SUB that do not grow.  With a new connection all that is still
 * queued is thrown away, since it may be of the life before.
 */
#include "gateway/kvengines.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "base/log.h"
#include "gateway/kvengines_table.h"
#include "gateway/zmq_message.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define BATCHES_A_TURN 64
#define CLEAR_AT_ONCE 1024u
#define PATIENCE_MS 5000u
#define REPLAY_NS 60000000000u /* no answer takes longer */
#define ALIVE_MS 5000          /* a peer that vanished without a word is found so */
#define FRAMES 4

struct engine {
    struct wf_kvengines *all;
    struct wf_kvengine_options options;
    void *sub, *monitor, *dealer; /* dealer: while ASKING */
    uint32_t opened;              /* times */
    uint64_t away_ns;             /* since when; or when it was opened anew */
    bool connected;
    uint64_t next, heard; /* the number that is due; the last one on the SUB */
    bool has_next, has_heard;
    bool filling;                 /* ASKING for what a gap left out, not for the beginning */
    uint64_t asked_ns, answer_ns; /* when; and its last word */
    zmq_msg_t pending;            /* the batch that showed the gap */
    uint64_t pending_number;
    bool has_pending;
    pthread_mutex_t lock;
    struct wf_kv_table table;           /* under lock, as is the next; only the thread writes */
    struct wf_kvengine_figures figures; /* without what the table counts */
};

struct wf_kvengines {
    void *context;
    int wake;
    pthread_t thread;
    bool runs;
    atomic_bool stopping;
    uint32_t count;
    struct engine engine[WF_KVENGINES_MAX];
};

static bool patience_ends(const struct engine *e, uint64_t since_ns)
{
    uint64_t ms = e->options.patience_ms ? e->options.patience_ms : PATIENCE_MS;
    return wf_now_ns() - since_ns > ms * 1000000;
}

static void set_state(struct engine *e, enum wf_kvengine_state state)
{
    pthread_mutex_lock(&e->lock);
    e->figures.state = state;
    pthread_mutex_unlock(&e->lock);
}

#define COUNT(e, name, more)              \
    do {                                  \
        pthread_mutex_lock(&(e)->lock);   \
        (e)->figures.name += (more);      \
        pthread_mutex_unlock(&(e)->lock); \
    } while (0)

/* ----------------------------------------------------------------------------------- the table */

static void clear(struct engine *e)
{
    bool more = true;
    while (more) {
        pthread_mutex_lock(&e->lock);
        more = wf_kv_table_clear(&e->table, CLEAR_AT_ONCE);
        pthread_mutex_unlock(&e->lock);
    }
}

/* What is known of the engine is in doubt. */
static void doubt(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    enum wf_kvengine_state state = e->figures.state;
    e->figures.forgotten += e->table.table.count != 0;
    e->figures.state = WF_KVENGINE_ASKING; /* nobody is told of what is half gone */
    pthread_mutex_unlock(&e->lock);
    clear(e);
    set_state(e, state);
}

static void hear(void *context, const struct wf_kv_heard *heard)
{
    struct engine *e = context;
    if (heard->kind == WF_KV_CLEARED) {
        clear(e);
        COUNT(e, cleared, 1);
        return;
    }
    pthread_mutex_lock(&e->lock);
    wf_kv_table_hear(&e->table, heard);
    pthread_mutex_unlock(&e->lock);
}

static void apply(struct engine *e, uint64_t number, zmq_msg_t *batch)
{
    size_t bytes = zmq_msg_size(batch);
    bool good = wf_kv_decode(zmq_msg_data(batch), bytes, hear, e) == WEFT_OK;
    pthread_mutex_lock(&e->lock);
    e->figures.batches += good;
    e->figures.refused += !good;
    e->figures.batch_bytes += bytes;
    e->figures.heard_ns = wf_now_ns();
    pthread_mutex_unlock(&e->lock);
    if (!good) /* what went by it is not known */
        doubt(e);
    e->next = number + 1;
    e->has_next = true;
}

/* -------------------------------------------------------------------------------------- frames */

static bool number_of(zmq_msg_t *frame, uint64_t *out)
{
    const uint8_t *data = zmq_msg_data(frame);
    if (zmq_msg_size(frame) != 8)
        return false;
    *out = wf_kv_hash_number(data, 8);
    return true;
}

static void drop_pending(struct engine *e)
{
    if (e->has_pending)
        zmq_msg_close(&e->pending);
    e->has_pending = false;
}

static void keep_pending(struct engine *e, uint64_t number, zmq_msg_t *batch)
{
    drop_pending(e);
    zmq_msg_init(&e->pending);
    zmq_msg_move(&e->pending, batch);
    e->pending_number = number;
    e->has_pending = true;
}

/* -------------------------------------------------------------------------------------- replay */

static void end_replay(struct engine *e)
{
    if (e->dealer)
        zmq_close(e->dealer);
    e->dealer = NULL;
}

/* The answer is all here, or is not to be expected: go on with the batch that showed the gap. */
static void settle(struct engine *e)
{
    end_replay(e);
    if (e->has_pending && !(e->has_next && e->pending_number < e->next)) {
        if (e->filling && e->pending_number != e->next)
            doubt(e);
        apply(e, e->pending_number, &e->pending);
    }
    drop_pending(e);
    set_state(e, WF_KVENGINE_LIVE);
}

static void ask(struct engine *e, uint64_t from, bool filling)
{
    static const int none = 0,
                     waiting = WF_KVENGINES_WAITING_MAX; /* the rest waits at the ROUTER */
    static const int64_t most = WF_KVENGINES_MESSAGE_MAX;
    uint8_t first[8];
    for (int i = 8; i-- > 0; from >>= 8)
        first[i] = (uint8_t)from;
    end_replay(e);
    e->filling = filling;
    e->asked_ns = e->answer_ns = wf_now_ns();
    set_state(e, WF_KVENGINE_ASKING);
    COUNT(e, replays, 1);
    e->dealer = zmq_socket(e->all->context, ZMQ_DEALER);
    if (!e->dealer || zmq_setsockopt(e->dealer, ZMQ_LINGER, &none, sizeof none) ||
        zmq_setsockopt(e->dealer, ZMQ_RCVHWM, &waiting, sizeof waiting) ||
        zmq_setsockopt(e->dealer, ZMQ_MAXMSGSIZE, &most, sizeof most) ||
        zmq_connect(e->dealer, e->options.replay) ||
        zmq_send(e->dealer, "", 0, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0 ||
        zmq_send(e->dealer, first, sizeof first, ZMQ_DONTWAIT) < 0) {
        wf_warn("gateway", "engine '%s': cannot ask %s for missed events: %s", e->options.name,
                e->options.replay, zmq_strerror(zmq_errno()));
        settle(e);
    }
}

static void replayed(struct engine *e, uint64_t number, zmq_msg_t *batch)
{
    if (e->has_next && number < e->next)
        return;
    if (e->has_next && number > e->next) /* it does not have all that misses */
        doubt(e);
    COUNT(e, replayed, 1);
    apply(e, number, batch);
}

/* ["", topic, number, batch], the last with number −1; before vLLM 0.32 without the topic. */
static bool replay_run(struct engine *e)
{
    zmq_msg_t frames[FRAMES];
    uint64_t number = 0;
    int had = wf_zmq_receive(e->dealer, frames, FRAMES);
    int at = had == FRAMES ? 2 : 1;
    if ((had == FRAMES || had == FRAMES - 1) && number_of(&frames[at], &number)) {
        e->answer_ns = wf_now_ns();
        if (number == UINT64_MAX) {
            if (!e->has_next) /* nothing was published yet */
                e->next = 0;
            e->has_next = true;
            settle(e);
        } else {
            replayed(e, number, &frames[at + 1]);
        }
    } else if (had) {
        COUNT(e, refused, 1);
    }
    wf_zmq_release(frames, FRAMES);
    return had > 0;
}

static void replay_watch(struct engine *e)
{
    if (!patience_ends(e, e->answer_ns) && wf_now_ns() - e->asked_ns < REPLAY_NS)
        return;
    wf_warn("gateway",
            "engine '%s': %s does not answer what was missed; is it the engine's "
            "replay_endpoint?",
            e->options.name, e->options.replay);
    settle(e);
}

/* ------------------------------------------------------------------------------- what is heard */

/* From the beginning: nothing is known of the engine, and nothing is due. */
static void begin(struct engine *e, zmq_msg_t *batch, uint64_t number)
{
    doubt(e);
    e->has_next = false;
    drop_pending(e);
    if (e->options.replay[0]) {
        if (batch)
            keep_pending(e, number, batch);
        ask(e, 0, false);
        return;
    }
    set_state(e, WF_KVENGINE_LIVE);
    if (batch)
        apply(e, number, batch);
}

static void batch_came(struct engine *e, uint64_t number, zmq_msg_t *batch)
{
    bool back = e->has_heard && number <= e->heard;
    e->heard = number;
    e->has_heard = true;
    if (back) {
        COUNT(e, restarts, 1);
        begin(e, batch, number);
        return;
    }
    if (e->has_next && number < e->next) /* it was replayed */
        return;
    if (e->has_next && number > e->next) {
        pthread_mutex_lock(&e->lock);
        e->figures.gaps++;
        e->figures.missed += number - e->next;
        pthread_mutex_unlock(&e->lock);
        if (e->options.replay[0]) {
            keep_pending(e, number, batch);
            ask(e, e->next, true);
            return;
        }
        doubt(e);
    }
    apply(e, number, batch);
}

/* [topic, number, batch] */
static bool sub_run(struct engine *e)
{
    zmq_msg_t frames[FRAMES];
    uint64_t number = 0;
    int had = wf_zmq_receive(e->sub, frames, FRAMES);
    if (had == 3 && number_of(&frames[1], &number) && number != UINT64_MAX)
        batch_came(e, number, &frames[2]);
    else if (had)
        COUNT(e, refused, 1);
    wf_zmq_release(frames, FRAMES);
    return had > 0;
}

/* What is queued may be of a life before. */
static void drain(struct engine *e)
{
    zmq_msg_t frames[FRAMES];
    for (int had = 1, i = 0; had && i < 2 * WF_KVENGINES_WAITING_MAX; i++) {
        had = wf_zmq_receive(e->sub, frames, FRAMES);
        wf_zmq_release(frames, FRAMES);
    }
}

/* u16 event, u32 value; then the address, as a frame of its own. */
static void monitor_run(struct engine *e)
{
    zmq_msg_t frames[FRAMES];
    for (;;) {
        int had = wf_zmq_receive(e->monitor, frames, FRAMES);
        uint16_t event = 0;
        if (had && zmq_msg_size(&frames[0]) >= sizeof event)
            memcpy(&event, zmq_msg_data(&frames[0]), sizeof event);
        wf_zmq_release(frames, FRAMES);
        if (!had)
            return;
        if (event == ZMQ_EVENT_DISCONNECTED && e->connected) {
            e->connected = e->has_heard = e->has_next = false;
            e->away_ns = wf_now_ns();
            end_replay(e);
            drop_pending(e);
            doubt(e);
            set_state(e, WF_KVENGINE_AWAY);
        } else if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            drain(e);
            e->connected = true;
            e->has_heard = false;
            COUNT(e, connections, 1);
            begin(e, NULL, 0);
        }
    }
}

static void close_engine(struct engine *e)
{
    drop_pending(e);
    end_replay(e);
    if (e->monitor)
        zmq_close(e->monitor);
    if (e->sub)
        zmq_close(e->sub);
    e->monitor = e->sub = NULL;
}

static enum weft_status open_engine(struct engine *e)
{
    static const int none = 0, waiting = WF_KVENGINES_WAITING_MAX, alive = ALIVE_MS,
                     dead = 3 * ALIVE_MS, again = 100, again_max = 2000, on = 1;
    static const int64_t most = WF_KVENGINES_MESSAGE_MAX;
    char monitor[64];
    snprintf(monitor, sizeof monitor, "inproc://engine-%p-%u", (void *)e, e->opened++);
    e->away_ns = wf_now_ns();
    e->sub = zmq_socket(e->all->context, ZMQ_SUB);
    e->monitor = zmq_socket(e->all->context, ZMQ_PAIR);
    if (!e->sub || !e->monitor || zmq_setsockopt(e->sub, ZMQ_LINGER, &none, sizeof none) ||
        zmq_setsockopt(e->monitor, ZMQ_LINGER, &none, sizeof none) ||
        zmq_setsockopt(e->sub, ZMQ_RCVHWM, &waiting, sizeof waiting) ||
        zmq_setsockopt(e->sub, ZMQ_MAXMSGSIZE, &most, sizeof most) ||
        zmq_setsockopt(e->sub, ZMQ_HEARTBEAT_IVL, &alive, sizeof alive) ||
        zmq_setsockopt(e->sub, ZMQ_HEARTBEAT_TIMEOUT, &dead, sizeof dead) ||
        zmq_setsockopt(e->sub, ZMQ_RECONNECT_IVL, &again, sizeof again) ||
        zmq_setsockopt(e->sub, ZMQ_RECONNECT_IVL_MAX, &again_max, sizeof again_max) ||
        zmq_setsockopt(e->sub, ZMQ_IPV6, &on, sizeof on) ||
        zmq_setsockopt(e->sub, ZMQ_SUBSCRIBE, e->options.topic, strlen(e->options.topic)) ||
        zmq_socket_monitor(e->sub, monitor,
                           ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED) < 0 ||
        zmq_connect(e->monitor, monitor) || zmq_connect(e->sub, e->options.endpoint))
        return wf_fail(WEFT_E_SYSTEM, "kv_events.engines: '%s': cannot subscribe to %s: %s",
                       e->options.name, e->options.endpoint, zmq_strerror(zmq_errno()));
    return WEFT_OK;
}

/* libzmq connects anew by itself, but not to who broke its protocol or sent what is too large. */
static void open_anew(struct engine *e)
{
    close_engine(e);
    if (open_engine(e) != WEFT_OK)
        wf_warn("gateway", "%s", wf_last_error());
}

/* True: there may be more. */
static bool engine_run(struct engine *e)
{
    bool more = true;
    if (!e->connected && patience_ends(e, e->away_ns))
        open_anew(e);
    if (!e->sub || !e->monitor)
        return false;
    monitor_run(e);
    if (!e->connected) {
        drain(e);
        return false;
    }
    for (int i = 0; more && i < BATCHES_A_TURN; i++)
        more = e->dealer ? replay_run(e) : sub_run(e);
    if (e->dealer)
        replay_watch(e);
    return more;
}

static void *run(void *context)
{
    struct wf_kvengines *all = context;
    bool more = false;
    pthread_setname_np(pthread_self(), "weft-engines");
    while (!atomic_load(&all->stopping)) {
        zmq_pollitem_t items[1 + 2 * WF_KVENGINES_MAX] = {{.fd = all->wake, .events = ZMQ_POLLIN}};
        int count = 1;
        for (uint32_t i = 0; i < all->count; i++) {
            const struct engine *e = &all->engine[i];
            if (!e->sub || !e->monitor)
                continue;
            items[count++] = (zmq_pollitem_t){.socket = e->monitor, .events = ZMQ_POLLIN};
            items[count++] = (zmq_pollitem_t){.socket = e->dealer ? e->dealer : e->sub,
                                              .events = ZMQ_POLLIN};
        }
        if (zmq_poll(items, count, more ? 0 : 1000) < 0 && errno != EINTR)
            break;
        more = false;
        for (uint32_t i = 0; i < all->count; i++)
            more |= engine_run(&all->engine[i]);
    }
    return NULL;
}

/* -------------------------------------------------------------------------------- start and end */

enum weft_status wf_kvengines_start(const struct wf_kvengine_options *options, uint32_t count,
                                    uint64_t memory, struct wf_kvengines **out)
{
    struct wf_kvengines *all = wf_calloc(1, sizeof *all, "engines");
    enum weft_status status = WEFT_OK;
    if (!all)
        return WEFT_E_NO_MEMORY;
    all->count = count < WF_KVENGINES_MAX ? count : WF_KVENGINES_MAX;
    for (uint32_t i = 0; i < all->count; i++) {
        all->engine[i].all = all;
        all->engine[i].options = options[i];
        pthread_mutex_init(&all->engine[i].lock, NULL);
    }
    all->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    all->context = zmq_ctx_new();
    if (all->wake < 0 || !all->context)
        status = wf_fail(WEFT_E_SYSTEM, "kv_events.engines: no sockets: %s", strerror(errno));
    for (uint32_t i = 0; status == WEFT_OK && i < all->count; i++) {
        struct engine *e = &all->engine[i];
        status = wf_kv_table_init(&e->table, memory, wf_now_ns() ^ (uintptr_t)&e->table);
        if (status == WEFT_OK)
            status = open_engine(e);
    }
    if (status == WEFT_OK) {
        all->runs = pthread_create(&all->thread, NULL, run, all) == 0;
        if (!all->runs)
            status = wf_fail(WEFT_E_SYSTEM, "kv_events.engines: no thread: %s", strerror(errno));
    }
    if (status == WEFT_OK)
        *out = all;
    else
        wf_kvengines_stop(all);
    return status;
}

void wf_kvengines_stop(struct wf_kvengines *all)
{
    if (!all)
        return;
    if (all->runs) {
        uint64_t one = 1;
        atomic_store(&all->stopping, true);
        ssize_t rc = write(all->wake, &one, sizeof one);
        (void)rc;
        pthread_join(all->thread, NULL);
    }
    for (uint32_t i = 0; i < all->count; i++) {
        struct engine *e = &all->engine[i];
        close_engine(e);
        wf_kv_table_fini(&e->table);
        pthread_mutex_destroy(&e->lock);
    }
    if (all->context)
        zmq_ctx_term(all->context);
    if (all->wake >= 0)
        close(all->wake);
    free(all);
}

/* -------------------------------------------------------------------------------- for the owner */

const char *wf_kvengine_state_name(enum wf_kvengine_state state)
{
    static const char *const names[] = {"away", "asking", "live"};
    return names[state];
}

void wf_kvengines_figures(struct wf_kvengines *all, uint32_t engine,
                          struct wf_kvengine_figures *out)
{
    struct engine *e = &all->engine[engine];
    pthread_mutex_lock(&e->lock);
    *out = e->figures;
    out->blocks = e->table.table.count;
    out->hbm_blocks = e->table.on_gpu;
    out->bytes = e->table.bytes;
    out->stored = e->table.stored;
    out->removed = e->table.removed;
    out->dropped = e->table.dropped;
    pthread_mutex_unlock(&e->lock);
}

uint32_t wf_kvengines_where(struct wf_kvengines *all, uint32_t engine, const uint8_t *hash,
                            size_t hash_bytes)
{
    struct engine *e = &all->engine[engine];
    uint32_t media = 0;
    pthread_mutex_lock(&e->lock);
    const struct wf_kv_place *place = e->figures.state == WF_KVENGINE_LIVE
                                          ? wf_kv_table_find(&e->table, hash, hash_bytes)
                                          : NULL;
    for (enum wf_kv_medium medium = WF_KV_GPU; place && medium <= WF_KV_ELSEWHERE; medium++)
        media |= wf_kv_place_on(place, medium) ? 1u << medium : 0;
    pthread_mutex_unlock(&e->lock);
    return media;
}

struct wf_kv_block *wf_kvengines_meaning(struct wf_kvengines *all, uint32_t engine,
                                         const uint8_t *hash, size_t hash_bytes)
{
    struct engine *e = &all->engine[engine];
    pthread_mutex_lock(&e->lock);
    const struct wf_kv_place *place = wf_kv_table_find(&e->table, hash, hash_bytes);
    struct wf_kv_block *block = place && place->plain ? wf_kv_block_get(place->block) : NULL;
    pthread_mutex_unlock(&e->lock);
    return block;
}
