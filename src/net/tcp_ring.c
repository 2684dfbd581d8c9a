/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine that nets use where they can: io_uring.
 *
 * Operations are submitted by wait(), or by flush() after a call from outside of it; their
 * completions are taken out of the ring into a queue and dispatched from there, so that settle()
 * may take some out while another is being dispatched.  The ring belongs to the thread that calls
 * first, and completes work in its calls alone (DEFER_TASKRUN), where the kernel has that.
 */
#include "net/tcp_inner.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define SUBMISSIONS 256u
#define COMPLETIONS 4096u
#define AT_ONCE 64u

/* Linux 6.2, newer than Debian 12's headers: the notification says whether it was copied. */
#ifndef IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE (1U << 3)
#define IORING_NOTIF_USAGE_ZC_COPIED (1U << 31)
#endif

enum kind { KIND_RECEIVE = 1, KIND_SEND, KIND_WATCH, KIND_ZERO_COPY, KIND_WAKE, KIND_CANCEL };
#define KIND_MASK 7u

struct done {
    uint64_t data;
    int32_t result;
    uint32_t flags;
};

struct ring_engine {
    struct io_uring ring;
    bool made, enabled, zero_copy, wake_armed;
    struct done *queue; /* of queue_max, from `first`, `count` of them */
    uint32_t queue_max, first, count;
    int event, bell, timer; /* for event(): an epoll of the other two; -1: it is not used */
};

static struct ring_engine *engine_of(struct tcp_net *net)
{
    return net->engine_state;
}

static void fd_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void ring_stop(struct tcp_net *net)
{
    struct ring_engine *engine = engine_of(net);
    if (!engine)
        return;
    if (engine->made)
        io_uring_queue_exit(&engine->ring);
    fd_close(engine->event);
    fd_close(engine->bell);
    fd_close(engine->timer);
    free(engine->queue);
    free(engine);
    net->engine_state = NULL;
}

static enum weft_status ring_make(struct ring_engine *engine)
{
    static const unsigned tries[] = {
        IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
            IORING_SETUP_R_DISABLED,
        IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
    };
    static const int needed[] = {IORING_OP_SENDMSG, IORING_OP_RECVMSG,  IORING_OP_SEND,
                                 IORING_OP_RECV,    IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};
    int error = -EINVAL;
    for (size_t i = 0; i < sizeof tries / sizeof tries[0] && error == -EINVAL; i++) {
        struct io_uring_params params = {.flags = tries[i], .cq_entries = COMPLETIONS};
        error = io_uring_queue_init_params(SUBMISSIONS, &engine->ring, &params);
    }
    if (error)
        return wf_fail(WEFT_E_SYSTEM, "no io_uring for a net: %s", strerror(-error));
    engine->made = true;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&engine->ring);
    bool all = probe != NULL;
    for (size_t i = 0; all && i < sizeof needed / sizeof needed[0]; i++)
        all = io_uring_opcode_supported(probe, needed[i]);
    engine->zero_copy = all && io_uring_opcode_supported(probe, IORING_OP_SENDMSG_ZC);
    io_uring_free_probe(probe);
    if (!all)
        return wf_fail(WEFT_E_SYSTEM, "this kernel's io_uring can not send and receive");
    return WEFT_OK;
}

static enum weft_status ring_start(struct tcp_net *net)
{
    struct ring_engine *engine = wf_calloc(1, sizeof *engine, "a net's engine");
    if (!engine)
        return WEFT_E_NO_MEMORY;
    engine->event = engine->bell = engine->timer = -1;
    engine->queue_max = COMPLETIONS;
    net->engine_state = engine;
    engine->queue = wf_calloc(engine->queue_max, sizeof *engine->queue, "a net's completions");
    enum weft_status status = engine->queue ? ring_make(engine) : WEFT_E_NO_MEMORY;
    if (status != WEFT_OK)
        ring_stop(net);
    return status;
}

static bool enable(struct ring_engine *engine)
{
    /* liburing 2.3 has a name for this, and does not export it. */
    if (!engine->enabled && syscall(__NR_io_uring_register, engine->ring.ring_fd,
                                    IORING_REGISTER_ENABLE_RINGS, NULL, 0) == 0)
        engine->enabled = true;
    return engine->enabled;
}

static struct io_uring_sqe *sqe_get(struct ring_engine *engine)
{
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&engine->ring))) {
        enable(engine);
        io_uring_submit(&engine->ring);
    }
    return sqe;
}

static void sqe_mark(struct io_uring_sqe *sqe, void *of, enum kind kind)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)of | kind);
}

/* ----------------------------------------------------------------------------------- beginning */

static void ring_adopt(struct tcp_stream *stream)
{
    /* Of a socket that may not wait, io_uring does not wait for it either. */
    int flags = fcntl(stream->fd, F_GETFL);
    if (stream->phase != TCP_LISTENS && flags >= 0)
        fcntl(stream->fd, F_SETFL, flags & ~O_NONBLOCK);
}

static void ring_forget(struct tcp_stream *stream)
{
    (void)stream;
}

static void ring_watch(struct tcp_stream *stream, uint32_t events)
{
    struct io_uring_sqe *sqe = sqe_get(engine_of(stream->net));
    io_uring_prep_poll_add(sqe, stream->fd, events);
    sqe_mark(sqe, stream, KIND_WATCH);
    stream->watching = true;
    stream->operations++;
}

/* Of what is long and surely comes, be woken once, when all of it is there: else the kernel wakes
 * this side for each packet or two, to copy so little.  What is waited for may not be more than
 * what comes, or nobody wakes this side again: so it is set anew for each receive, which then
 * waits first and ends with what there is.  True: this one waits so. */
static bool low_water(struct tcp_stream *stream)
{
    uint32_t least = stream->receive_least < TCP_LOW_WATER_MIN ? 1 : stream->receive_least;
    if (stream->low_water && stream->low_water != least) {
        int bytes = (int)least;
        if (setsockopt(stream->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes) != 0)
            return false;
        stream->low_water = least;
    }
    return stream->low_water > 1;
}

static void ring_receive(struct tcp_stream *stream)
{
    struct io_uring_sqe *sqe = sqe_get(engine_of(stream->net));
    bool waits = low_water(stream);
    int flags = stream->receive_all && !waits ? MSG_WAITALL : 0;
    if (stream->in.msg_iovlen == 1)
        io_uring_prep_recv(sqe, stream->fd, stream->in.msg_iov->iov_base,
                           stream->in.msg_iov->iov_len, flags);
    else
        io_uring_prep_recvmsg(sqe, stream->fd, &stream->in, (unsigned)flags);
    if (waits)
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
    sqe_mark(sqe, stream, KIND_RECEIVE);
    stream->kernel_receives = true;
    stream->operations++;
}

static void ring_send(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct ring_engine *engine = engine_of(stream->net);
    struct io_uring_sqe *sqe = sqe_get(engine);
    int flags = MSG_NOSIGNAL | MSG_WAITALL;
    if (batch && !engine->zero_copy) {
        batch->zero_copy = false;
        batch = NULL;
    }
    if (batch) {
        io_uring_prep_sendmsg_zc(sqe, stream->fd, &stream->out, (unsigned)flags);
        sqe->ioprio |= IORING_SEND_ZC_REPORT_USAGE;
        sqe_mark(sqe, batch, KIND_ZERO_COPY);
    } else {
        if (stream->out.msg_iovlen == 1)
            io_uring_prep_send(sqe, stream->fd, stream->out.msg_iov->iov_base,
                               stream->out.msg_iov->iov_len, flags);
        else
            io_uring_prep_sendmsg(sqe, stream->fd, &stream->out, (unsigned)flags);
        sqe_mark(sqe, stream, KIND_SEND);
    }
    stream->kernel_sends = true;
    stream->operations++;
}

static void cancel(struct ring_engine *engine, void *of, enum kind kind)
{
    struct io_uring_sqe *sqe = sqe_get(engine);
    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)of | kind, 0);
    sqe_mark(sqe, NULL, KIND_CANCEL);
}

static void ring_cancel(struct tcp_stream *stream)
{
    struct ring_engine *engine = engine_of(stream->net);
    if (stream->kernel_receives)
        cancel(engine, stream, KIND_RECEIVE);
    if (stream->watching)
        cancel(engine, stream, KIND_WATCH);
    if (stream->kernel_sends) {
        cancel(engine, stream, KIND_SEND);
        if (stream->current && stream->current->zero_copy)
            cancel(engine, stream->current, KIND_ZERO_COPY);
    }
}

static void ring_flush(struct tcp_net *net)
{
    struct ring_engine *engine = engine_of(net);
    if (io_uring_sq_ready(&engine->ring) && enable(engine))
        io_uring_submit(&engine->ring);
}

/* ---------------------------------------------------------------------------------- completions */

static void wake_arm(struct tcp_net *net)
{
    struct ring_engine *engine = engine_of(net);
    struct io_uring_sqe *sqe = sqe_get(engine);
    io_uring_prep_poll_add(sqe, net->wake_fd, POLLIN);
    sqe_mark(sqe, NULL, KIND_WAKE);
    engine->wake_armed = true;
}

static struct tcp_stream *done_stream(const struct done *done)
{
    void *of = (void *)(uintptr_t)(done->data & ~(uint64_t)KIND_MASK);
    return (done->data & KIND_MASK) == KIND_ZERO_COPY ? ((struct tcp_batch *)of)->stream : of;
}

/* What is in the ring, into the queue.  False: there is no memory for it. */
static bool pull(struct ring_engine *engine)
{
    struct io_uring_cqe *cqes[AT_ONCE];
    unsigned got;
    while ((got = io_uring_peek_batch_cqe(&engine->ring, cqes, AT_ONCE)) > 0) {
        if (engine->count + got > engine->queue_max) {
            struct done *more = wf_calloc(2 * engine->queue_max, sizeof *more, "completions");
            if (!more)
                return false;
            for (uint32_t i = 0; i < engine->count; i++)
                more[i] = engine->queue[(engine->first + i) % engine->queue_max];
            free(engine->queue);
            engine->queue = more;
            engine->queue_max *= 2;
            engine->first = 0;
        }
        for (unsigned i = 0; i < got; i++) {
            struct done done = {cqes[i]->user_data, cqes[i]->res, cqes[i]->flags};
            uint32_t kind = done.data & KIND_MASK;
            if (kind == KIND_RECEIVE)
                done_stream(&done)->kernel_receives = false;
            else if (kind == KIND_SEND ||
                     (kind == KIND_ZERO_COPY && !(done.flags & IORING_CQE_F_NOTIF)))
                done_stream(&done)->kernel_sends = false;
            engine->queue[(engine->first + engine->count++) % engine->queue_max] = done;
        }
        io_uring_cq_advance(&engine->ring, got);
    }
    return true;
}

static void zero_copy_done(struct ring_engine *engine, const struct done *done)
{
    struct tcp_batch *batch = (struct tcp_batch *)(uintptr_t)(done->data & ~(uint64_t)KIND_MASK);
    struct tcp_stream *stream = batch->stream;
    int32_t result = done->result;
    if (done->flags & IORING_CQE_F_NOTIF) {
        stream->operations--;
        wf_tcp_released(batch, (uint32_t)result & IORING_NOTIF_USAGE_ZC_COPIED);
        return;
    }
    if (done->flags & IORING_CQE_F_MORE)
        batch->waits++;
    else
        stream->operations--;
    if (result == -EINVAL || result == -EOPNOTSUPP) {
        /* A kernel that does not know all of it, or a socket of a kind that can not. */
        engine->zero_copy = result != -EINVAL && engine->zero_copy;
        stream->link->zero_copy = batch->zero_copy = false;
        result = -EAGAIN;
    }
    wf_tcp_sent(stream, result);
}

static void dispatch(struct tcp_net *net, const struct done *done)
{
    struct ring_engine *engine = engine_of(net);
    uint64_t drained;
    enum kind kind = (enum kind)(done->data & KIND_MASK);
    if (kind == KIND_WAKE) {
        if (read(net->wake_fd, &drained, sizeof drained) > 0)
            net->completed = true;
        engine->wake_armed = false;
    } else if (kind == KIND_ZERO_COPY) {
        zero_copy_done(engine, done);
    } else if (kind != KIND_CANCEL) {
        struct tcp_stream *stream = done_stream(done);
        stream->operations--;
        if (kind == KIND_RECEIVE)
            wf_tcp_received(stream, done->result);
        else if (kind == KIND_SEND)
            wf_tcp_sent(stream, done->result);
        else
            wf_tcp_watched(stream, done->result);
    }
}

static void ring_settle(struct tcp_stream *stream)
{
    struct ring_engine *engine = engine_of(stream->net);
    while ((stream->kernel_receives || stream->kernel_sends) && enable(engine)) {
        int error = io_uring_submit_and_wait(&engine->ring, 1);
        if (!pull(engine) || (error < 0 && error != -EINTR && error != -EBUSY && error != -EAGAIN))
            break;
    }
}

static void timer_set(struct tcp_net *net)
{
    struct ring_engine *engine = engine_of(net);
    uint64_t now = net->now_ms, wait = net->tick_ms > now ? net->tick_ms - now : 1;
    struct itimerspec at = {0};
    if (net->link_count || net->handshake_count)
        at.it_value = (struct timespec){.tv_sec = (time_t)(wait / 1000),
                                        .tv_nsec = (long)(wait % 1000) * 1000000};
    timerfd_settime(engine->timer, 0, &at, NULL);
}

static enum weft_status ring_wait(struct tcp_net *net, uint32_t timeout_ms)
{
    struct ring_engine *engine = engine_of(net);
    struct __kernel_timespec timeout = {.tv_sec = timeout_ms / 1000,
                                        .tv_nsec = (long long)(timeout_ms % 1000) * 1000000};
    struct io_uring_cqe *cqe;
    uint64_t drained;
    int error;
    if (!enable(engine))
        return wf_fail(WEFT_E_SYSTEM, "a net's io_uring is not its thread's");
    if (!engine->wake_armed)
        wake_arm(net);
    if (engine->bell >= 0 && read(engine->bell, &drained, sizeof drained) < 0 && errno != EAGAIN)
        return wf_fail(WEFT_E_SYSTEM, "a net's eventfd fails: %s", strerror(errno));
    if (timeout_ms && !engine->count)
        error = io_uring_submit_and_wait_timeout(&engine->ring, &cqe, 1, &timeout, NULL);
    else
        error = io_uring_submit_and_get_events(&engine->ring);
    if (error < 0 && error != -ETIME && error != -EINTR && error != -EBUSY && error != -EAGAIN)
        return wf_fail(WEFT_E_SYSTEM, "io_uring fails: %s", strerror(-error));
    net->now_ms = wf_now_ms();
    if (!pull(engine))
        return WEFT_E_NO_MEMORY;
    for (uint32_t left = engine->count; left && engine->count; left--) {
        struct done done = engine->queue[engine->first];
        engine->first = (engine->first + 1) % engine->queue_max;
        engine->count--;
        dispatch(net, &done);
    }
    if (engine->timer >= 0)
        timer_set(net);
    return WEFT_OK;
}

static int ring_event(struct tcp_net *net)
{
    struct ring_engine *engine = engine_of(net);
    if (engine->event >= 0)
        return engine->event;
    struct epoll_event in = {.events = EPOLLIN};
    engine->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    engine->event = epoll_create1(EPOLL_CLOEXEC);
    if (engine->bell < 0 || engine->timer < 0 || engine->event < 0 || !enable(engine) ||
        epoll_ctl(engine->event, EPOLL_CTL_ADD, engine->bell, &in) != 0 ||
        epoll_ctl(engine->event, EPOLL_CTL_ADD, engine->timer, &in) != 0 ||
        io_uring_register_eventfd(&engine->ring, engine->bell) != 0) {
        wf_error("net", "no event for a net: %s", strerror(errno));
        return -1;
    }
    /* What happened before anybody could hear the bell. */
    wf_tcp_wake(net);
    if (!engine->wake_armed)
        wake_arm(net);
    ring_flush(net);
    timer_set(net);
    return engine->event;
}

const struct tcp_engine wf_tcp_ring = {
    .name = "io_uring",
    .start = ring_start,
    .stop = ring_stop,
    .adopt = ring_adopt,
    .forget = ring_forget,
    .watch = ring_watch,
    .receive = ring_receive,
    .send = ring_send,
    .cancel = ring_cancel,
    .settle = ring_settle,
    .flush = ring_flush,
    .wait = ring_wait,
    .event = ring_event,
};
