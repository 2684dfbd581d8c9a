/* SPDX-License-Identifier: Apache-2.0
 *
 * What this machine's loopback carries: a server that keeps nothing.
 *
 * It receives each value into memory as large as the working set and says OK, and sends each from
 * there, with one call of the kernel a command and nothing between: no server that has values of
 * that size in memory is faster for this client but by the caches.  It understands the commands of
 * wf_bench_load() alone, for values of one length.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench.h"

#define GET_BYTES 36u /* "*2", "GET" and a key of 16 letters, with their ends */
#define KEY_AT 18u
#define HEAD_MAX 64u
#define CALLERS_MAX 64u

struct caller {
    int fd; /* 0: nobody */
    uint8_t head[HEAD_MAX];
    size_t got, sent; /* of the command; of the answer */
    uint8_t *value;
    bool sending;
};

struct sink {
    int epoll, listener;
    size_t value_bytes, head_bytes; /* of a SET up to its value */
    uint64_t slots, next;
    uint8_t *memory;
    char prefix[32]; /* of an answer to GET */
    size_t prefix_bytes;
    struct caller callers[CALLERS_MAX];
};

static void caller_next(struct sink *sink, struct caller *caller)
{
    caller->got = caller->sent = 0;
    caller->sending = false;
    caller->value = sink->memory + sink->next++ % sink->slots * sink->value_bytes;
}

/* What of three pieces is left behind `done` bytes. */
static size_t left_of(struct iovec pieces[3], size_t done, struct iovec out[3])
{
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t skip = done < pieces[i].iov_len ? done : pieces[i].iov_len;
        done -= skip;
        if (skip < pieces[i].iov_len)
            out[count++] = (struct iovec){(uint8_t *)pieces[i].iov_base + skip,
                                          pieces[i].iov_len - skip};
    }
    return count;
}

/* True: the whole answer is away. */
static bool answer(struct sink *sink, struct caller *caller)
{
    struct iovec pieces[3] = {{sink->prefix, sink->prefix_bytes},
                              {caller->value, sink->value_bytes},
                              {"\r\n", 2}};
    size_t all = sink->prefix_bytes + sink->value_bytes + 2;
    while (caller->sent < all) {
        struct iovec left[3];
        struct msghdr message = {.msg_iov = left,
                                 .msg_iovlen = left_of(pieces, caller->sent, left)};
        ssize_t sent = sendmsg(caller->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            return false;
        caller->sent += (size_t)sent;
    }
    return true;
}

static void answer_begin(struct sink *sink, struct caller *caller)
{
    char key[17] = "";
    memcpy(key, caller->head + KEY_AT, 16);
    uint64_t number = strtoull(key, NULL, 16);
    memcpy(caller->value, &number, sizeof number); /* by this the client knows it */
    caller->sending = true;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = caller};
    if (answer(sink, caller))
        caller_next(sink, caller);
    else
        epoll_ctl(sink->epoll, EPOLL_CTL_MOD, caller->fd, &event);
}

/* False: it hung up. */
static bool hear(struct sink *sink, struct caller *caller)
{
    struct iovec pieces[3] = {{caller->head, sink->head_bytes},
                              {caller->value, sink->value_bytes},
                              {caller->head + sink->head_bytes, 2}};
    struct iovec left[3];
    struct msghdr message = {.msg_iov = left, .msg_iovlen = left_of(pieces, caller->got, left)};
    ssize_t got = recvmsg(caller->fd, &message, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got <= 0)
        return false;
    caller->got += (size_t)got;
    if (caller->got == sink->head_bytes + sink->value_bytes + 2) {
        (void)!send(caller->fd, "+OK\r\n", 5, MSG_NOSIGNAL | MSG_DONTWAIT);
        caller_next(sink, caller);
    } else if (caller->got == GET_BYTES && caller->head[1] == '2') {
        answer_begin(sink, caller);
    }
    return true;
}

static void caller_run(struct sink *sink, struct caller *caller)
{
    bool alive = true;
    if (!caller->sending) {
        alive = hear(sink, caller);
    } else if (answer(sink, caller)) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
        epoll_ctl(sink->epoll, EPOLL_CTL_MOD, caller->fd, &event);
        caller_next(sink, caller);
    } else {
        alive = errno == EAGAIN;
    }
    if (!alive) {
        close(caller->fd);
        caller->fd = 0;
    }
}

static void accept_one(struct sink *sink)
{
    struct caller *caller = sink->callers;
    int on = 1, fd = accept4(sink->listener, NULL, NULL, SOCK_CLOEXEC);
    while (caller < sink->callers + CALLERS_MAX - 1 && caller->fd)
        caller++;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = caller};
    if (fd < 0)
        return;
    if (caller->fd || epoll_ctl(sink->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    caller->fd = fd;
    caller_next(sink, caller);
}

static void child_run(struct sink *sink, uint64_t memory_bytes, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    sink->memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);
    sink->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (sink->memory == MAP_FAILED ||
        epoll_ctl(sink->epoll, EPOLL_CTL_ADD, sink->listener, &event) != 0)
        _exit(1);
    madvise(sink->memory, memory_bytes, MADV_HUGEPAGE);
    memset(sink->memory, 'w', memory_bytes);
    for (;;) {
        struct epoll_event events[16];
        int count = epoll_wait(sink->epoll, events, 16, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                caller_run(sink, events[i].data.ptr);
            else
                accept_one(sink);
        }
    }
}

void wf_bench_limit_start(struct bench_limit *limit, size_t value_bytes, uint64_t memory_bytes)
{
    struct sink sink = {.value_bytes = value_bytes, .slots = memory_bytes / value_bytes};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char head[32];
    *limit = (struct bench_limit){.pid = -1};
    sink.head_bytes = GET_BYTES + (size_t)snprintf(head, sizeof head, "$%zu\r\n", value_bytes);
    sink.prefix_bytes = (size_t)snprintf(sink.prefix, sizeof sink.prefix, "$%zu\r\n", value_bytes);
    sink.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool listens = sink.listener >= 0 &&
                   bind(sink.listener, (struct sockaddr *)&address, length) == 0 &&
                   listen(sink.listener, 16) == 0 &&
                   getsockname(sink.listener, (struct sockaddr *)&address, &length) == 0;
    pid_t parent = getpid();
    if (listens)
        limit->pid = fork();
    if (limit->pid == 0)
        child_run(&sink, memory_bytes, parent);
    if (limit->pid > 0)
        limit->port = ntohs(address.sin_port);
    if (sink.listener >= 0)
        close(sink.listener);
}

void wf_bench_limit_stop(struct bench_limit *limit)
{
    if (limit->pid > 0) {
        kill(limit->pid, SIGKILL);
        waitpid(limit->pid, NULL, 0);
    }
    *limit = (struct bench_limit){.pid = -1};
}
