/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine of hosts where io_uring may not be used: epoll, and the plain calls.
 *
 * What is begun is tried when wait() runs and the socket may be ready, and completes there; so no
 * memory is touched between waits, and there is nothing to cancel.
 */
#include "net/tcp_inner.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"

#define EVENTS_AT_ONCE 64

struct epoll_engine {
    int fd, timer;
    bool asked; /* event() is used */
    struct tcp_stream *ready, *last_ready;
};

static struct epoll_engine *engine_of(struct tcp_net *net)
{
    return net->engine_state;
}

static void epoll_stop(struct tcp_net *net)
{
    struct epoll_engine *engine = engine_of(net);
    if (!engine)
        return;
    if (engine->fd >= 0)
        close(engine->fd);
    if (engine->timer >= 0)
        close(engine->timer);
    free(engine);
    net->engine_state = NULL;
}

static enum weft_status epoll_start(struct tcp_net *net)
{
    struct epoll_engine *engine = wf_calloc(1, sizeof *engine, "a net's engine");
    if (!engine)
        return WEFT_E_NO_MEMORY;
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = engine};
    engine->fd = epoll_create1(EPOLL_CLOEXEC);
    engine->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    net->engine_state = engine;
    if (engine->fd < 0 || engine->timer < 0 ||
        epoll_ctl(engine->fd, EPOLL_CTL_ADD, net->wake_fd, &wake) != 0 ||
        epoll_ctl(engine->fd, EPOLL_CTL_ADD, engine->timer, &timer) != 0) {
        epoll_stop(net);
        return wf_fail(WEFT_E_SYSTEM, "no epoll for a net: %s", strerror(errno));
    }
    return WEFT_OK;
}

/* Whether an operation can be tried now. */
static bool due(const struct tcp_stream *stream)
{
    return stream->cancelled
               ? stream->operations > 0
               : (stream->receiving && stream->readable) || (stream->sending && stream->writable) ||
                     (stream->watching &&
                      (stream->watch_events == POLLIN ? stream->readable : stream->writable));
}

static void ready_add(struct tcp_stream *stream)
{
    struct epoll_engine *engine = engine_of(stream->net);
    if (stream->on_ready || !due(stream))
        return;
    stream->on_ready = true;
    stream->ready_next = NULL;
    *(engine->last_ready ? &engine->last_ready->ready_next : &engine->ready) = stream;
    engine->last_ready = stream;
}

static void ready_remove(struct tcp_stream *stream)
{
    struct epoll_engine *engine = engine_of(stream->net);
    struct tcp_stream *before = NULL;
    if (!stream->on_ready)
        return;
    for (struct tcp_stream *at = engine->ready; at != stream; at = at->ready_next)
        before = at;
    *(before ? &before->ready_next : &engine->ready) = stream->ready_next;
    if (engine->last_ready == stream)
        engine->last_ready = before;
    stream->on_ready = false;
}

static void epoll_adopt(struct tcp_stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = stream};
    stream->readable = stream->writable = false; /* the first wait says which it is */
    stream->in_epoll = epoll_ctl(engine_of(stream->net)->fd, EPOLL_CTL_ADD, stream->fd, &event) ==
                       0;
}

static void epoll_forget(struct tcp_stream *stream)
{
    ready_remove(stream);
    if (stream->in_epoll)
        epoll_ctl(engine_of(stream->net)->fd, EPOLL_CTL_DEL, stream->fd, NULL);
    stream->in_epoll = false;
}

static void begin(struct tcp_stream *stream)
{
    stream->operations++;
    /* A socket that could not be added is one whose operations fail at once, by themselves. */
    if (!stream->in_epoll)
        stream->readable = stream->writable = true;
    ready_add(stream);
}

static void epoll_watch(struct tcp_stream *stream, uint32_t events)
{
    stream->watch_events = events;
    stream->watching = true;
    begin(stream);
}

static void epoll_receive(struct tcp_stream *stream)
{
    begin(stream);
}

static void epoll_send(struct tcp_stream *stream, struct tcp_batch *batch)
{
    if (batch)
        batch->zero_copy = false;
    begin(stream);
}

static void epoll_cancel(struct tcp_stream *stream)
{
    ready_add(stream);
}

/* Memory was named, and has not been touched; now it will not be. */
static void epoll_settle(struct tcp_stream *stream)
{
    stream->settled = true;
    ready_add(stream);
}

static void epoll_flush(struct tcp_net *net)
{
    if (engine_of(net)->ready && (engine_of(net)->asked || !net->polling))
        wf_tcp_wake(net);
}

/* Whatever was begun completes as cancelled. */
static void complete_cancelled(struct tcp_stream *stream)
{
    bool receiving = stream->receiving, sending = stream->sending, watching = stream->watching;
    stream->operations = 0;
    if (receiving)
        wf_tcp_received(stream, -ECANCELED);
    if (sending)
        wf_tcp_sent(stream, -ECANCELED);
    if (watching)
        wf_tcp_watched(stream, -ECANCELED);
}

static void try_receive(struct tcp_stream *stream)
{
    ssize_t got = recvmsg(stream->fd, &stream->in, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        stream->readable = errno == EINTR;
        return;
    }
    stream->operations--;
    wf_tcp_received(stream, got < 0 ? -errno : got);
}

static void try_send(struct tcp_stream *stream)
{
    ssize_t gone = sendmsg(stream->fd, &stream->out, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (gone < 0 && (errno == EAGAIN || errno == EINTR)) {
        stream->writable = errno == EINTR;
        return;
    }
    stream->operations--;
    wf_tcp_sent(stream, gone < 0 ? -errno : gone);
}

/* A stream is freed in wf_tcp_attend() alone, never here. */
static void try_all(struct tcp_stream *stream)
{
    if (stream->cancelled || stream->settled) {
        stream->settled = false;
        complete_cancelled(stream);
        ready_add(stream);
        return;
    }
    if (stream->sending && stream->writable)
        try_send(stream);
    if (stream->receiving && stream->readable && !stream->cancelled)
        try_receive(stream);
    if (stream->watching && !stream->cancelled &&
        (stream->watch_events == POLLIN ? stream->readable : stream->writable)) {
        stream->operations--;
        wf_tcp_watched(stream, 0);
    }
    ready_add(stream);
}

static void ready_run(struct epoll_engine *engine)
{
    struct tcp_stream *last = engine->last_ready, *stream;
    do {
        stream = engine->ready;
        if (!stream)
            return;
        engine->ready = stream->ready_next;
        if (!engine->ready)
            engine->last_ready = NULL;
        stream->on_ready = false;
        try_all(stream);
    } while (stream != last);
}

static void timer_set(struct tcp_net *net)
{
    struct epoll_engine *engine = engine_of(net);
    uint64_t now = net->now_ms, wait = net->tick_ms > now ? net->tick_ms - now : 1;
    bool needed = net->link_count || net->handshake_count;
    struct itimerspec at = {0};
    if (needed)
        at.it_value = (struct timespec){.tv_sec = (time_t)(wait / 1000),
                                        .tv_nsec = (long)(wait % 1000) * 1000000};
    timerfd_settime(engine->timer, 0, &at, NULL);
}

static enum weft_status epoll_wait_for(struct tcp_net *net, uint32_t timeout_ms)
{
    struct epoll_engine *engine = engine_of(net);
    struct epoll_event events[EVENTS_AT_ONCE];
    uint64_t drained;
    int count, wait = engine->ready ? 0 : timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms;
    do {
        count = epoll_wait(engine->fd, events, EVENTS_AT_ONCE, wait);
        if (count < 0 && errno != EINTR)
            return wf_fail(WEFT_E_SYSTEM, "epoll fails: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            struct tcp_stream *stream = events[i].data.ptr;
            if (!stream || events[i].data.ptr == engine) {
                if (read(stream ? engine->timer : net->wake_fd, &drained, sizeof drained) > 0 &&
                    !stream)
                    net->completed = true;
                continue;
            }
            bool over = events[i].events & (EPOLLERR | EPOLLHUP);
            stream->readable |= over || events[i].events & (EPOLLIN | EPOLLRDHUP);
            stream->writable |= over || events[i].events & EPOLLOUT;
            ready_add(stream);
        }
        wait = 0;
    } while (count == EVENTS_AT_ONCE);
    net->now_ms = wf_now_ms();
    ready_run(engine);
    if (engine->asked)
        timer_set(net);
    return WEFT_OK;
}

static int epoll_event(struct tcp_net *net)
{
    struct epoll_engine *engine = engine_of(net);
    if (!engine->asked) {
        engine->asked = true;
        timer_set(net);
    }
    return engine->fd;
}

const struct tcp_engine wf_tcp_epoll = {
    .name = "epoll",
    .start = epoll_start,
    .stop = epoll_stop,
    .adopt = epoll_adopt,
    .forget = epoll_forget,
    .watch = epoll_watch,
    .receive = epoll_receive,
    .send = epoll_send,
    .cancel = epoll_cancel,
    .settle = epoll_settle,
    .flush = epoll_flush,
    .wait = epoll_wait_for,
    .event = epoll_event,
};
