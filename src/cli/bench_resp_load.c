/* SPDX-License-Identifier: Apache-2.0
 *
 * A client that loads a RESP server: one thread, epoll, and as little work a command as it takes.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cli/bench.h"

#define KEY_BYTES 16
#define HEAD_MAX 96
#define STUCK_MS 20000

struct load;

struct connection {
    int fd;
    uint32_t asked; /* commands sent and not answered */
    uint64_t *keys; /* of them */
    uint8_t *request, *answer;
    size_t request_bytes, sent, answer_bytes, got;
    bool writing; /* epoll watches for room */
};

struct load {
    const struct bench_load *plan;
    int epoll;
    struct connection *connections;
    uint8_t *value;
    uint64_t issued, answered;
    char head[32]; /* of each answer */
    size_t head_bytes, answer_bytes;
    char *why;
    size_t why_bytes;
};

static bool fail(struct load *load, const char *what)
{
    snprintf(load->why, load->why_bytes, "port %u: %s", load->plan->port, what);
    return false;
}

/* Every key once before any comes again, and neighbours far apart. */
static uint64_t key_at(const struct bench_load *plan, uint64_t number)
{
    return number % plan->keys * 2654435761u % plan->keys;
}

static size_t command_write(const struct load *load, uint64_t key, uint8_t *out)
{
    const struct bench_load *plan = load->plan;
    size_t used = (size_t)snprintf((char *)out, HEAD_MAX,
                                   plan->get ? "*2\r\n$3\r\nGET\r\n$16\r\n%016llx\r\n"
                                             : "*3\r\n$3\r\nSET\r\n$16\r\n%016llx\r\n$%zu\r\n",
                                   (unsigned long long)key, plan->value_bytes);
    if (plan->get)
        return used;
    memcpy(out + used, load->value, plan->value_bytes);
    memcpy(out + used, &key, sizeof key);
    used += plan->value_bytes;
    memcpy(out + used, "\r\n", 2);
    return used + 2;
}

/* Send what is left of the commands. */
static bool push(struct load *load, struct connection *c)
{
    while (c->sent < c->request_bytes) {
        ssize_t sent = send(c->fd, c->request + c->sent, c->request_bytes - c->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent <= 0)
            return fail(load, "the server hung up on a command");
        c->sent += (size_t)sent;
    }
    bool writing = c->sent < c->request_bytes;
    if (writing != c->writing) {
        struct epoll_event event = {.events = writing ? EPOLLIN | EPOLLOUT : EPOLLIN,
                                    .data.ptr = c};
        epoll_ctl(load->epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->writing = writing;
    }
    return true;
}

static bool issue(struct load *load, struct connection *c)
{
    const struct bench_load *plan = load->plan;
    c->asked = 0;
    c->request_bytes = c->sent = c->got = 0;
    while (c->asked < plan->depth && load->issued < plan->commands) {
        uint64_t key = key_at(plan, load->issued++);
        c->keys[c->asked++] = key;
        if (plan->depth == 1 && !plan->get && c->answer_bytes) {
            /* The value lies there already; its key and the command's change. */
            char text[KEY_BYTES + 1];
            snprintf(text, sizeof text, "%016llx", (unsigned long long)key);
            memcpy(c->request + strlen("*3\r\n$3\r\nSET\r\n$16\r\n"), text, KEY_BYTES);
            c->request_bytes = c->answer_bytes;
            memcpy(c->request + c->request_bytes - plan->value_bytes - 2, &key, sizeof key);
            break;
        }
        c->request_bytes += command_write(load, key, c->request + c->request_bytes);
    }
    if (plan->depth == 1 && !plan->get)
        c->answer_bytes = c->request_bytes;
    return c->asked == 0 || push(load, c);
}

static bool answers_right(const struct load *load, const struct connection *c)
{
    const struct bench_load *plan = load->plan;
    for (uint32_t i = 0; i < c->asked; i++) {
        const uint8_t *answer = c->answer + i * load->answer_bytes;
        if (memcmp(answer, load->head, load->head_bytes) != 0)
            return false;
        if (plan->get && (memcmp(answer + load->head_bytes, &c->keys[i], sizeof c->keys[i]) != 0 ||
                          memcmp(answer + load->answer_bytes - 2, "\r\n", 2) != 0))
            return false;
    }
    return true;
}

static bool pull(struct load *load, struct connection *c)
{
    size_t all = c->asked * load->answer_bytes;
    while (c->got < all) {
        ssize_t got = recv(c->fd, c->answer + c->got, all - c->got, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) {
            /* What is not as long as it must be is no value. */
            if (c->got >= 3 && memcmp(c->answer, load->head, 3) != 0)
                return fail(load, "an answer is not what was asked for (evicted, or an error)");
            return true;
        }
        if (got <= 0)
            return fail(load, "the server hung up");
        c->got += (size_t)got;
    }
    if (!answers_right(load, c))
        return fail(load, "an answer is not what was put");
    load->answered += c->asked;
    return issue(load, c);
}

static bool open_one(struct load *load, struct connection *c)
{
    const struct bench_load *plan = load->plan;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(plan->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
        return fail(load, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    size_t request = plan->depth * (HEAD_MAX + (plan->get ? 0 : plan->value_bytes + 2));
    c->keys = wf_cli_alloc(plan->depth * sizeof *c->keys);
    c->request = wf_cli_alloc(request);
    c->answer = wf_cli_alloc(plan->depth * load->answer_bytes);
    memset(c->answer, 0, plan->depth * load->answer_bytes); /* no page faults while it is timed */
    memset(c->request, 0, request);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    return epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event) == 0 || fail(load, strerror(errno));
}

static bool run(struct load *load)
{
    const struct bench_load *plan = load->plan;
    struct epoll_event events[64];
    for (uint32_t i = 0; i < plan->connections; i++)
        if (!issue(load, &load->connections[i]))
            return false;
    while (load->answered < plan->commands) {
        int count = epoll_wait(load->epoll, events, 64, STUCK_MS);
        if (count == 0)
            return fail(load, "no answer within 20 s");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (((events[i].events & EPOLLOUT) && !push(load, c)) ||
                ((events[i].events & ~(uint32_t)EPOLLOUT) && !pull(load, c)))
                return false;
        }
    }
    return true;
}

double wf_bench_load(const struct bench_load *plan, char *why, size_t why_bytes)
{
    struct load load = {.plan = plan, .why = why, .why_bytes = why_bytes};
    load.head_bytes = (size_t)(plan->get ? snprintf(load.head, sizeof load.head, "$%zu\r\n",
                                                    plan->value_bytes)
                                         : snprintf(load.head, sizeof load.head, "+OK\r\n"));
    load.answer_bytes = load.head_bytes + (plan->get ? plan->value_bytes + 2 : 0);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.connections = calloc(plan->connections, sizeof *load.connections);
    load.value = wf_cli_alloc(plan->value_bytes);
    memset(load.value, 'w', plan->value_bytes);
    bool good = load.connections && load.epoll >= 0;
    for (uint32_t i = 0; good && i < plan->connections; i++)
        good = open_one(&load, &load.connections[i]);
    double begin_s = wf_cli_now_s();
    good = good && run(&load);
    double took_s = wf_cli_now_s() - begin_s;
    for (uint32_t i = 0; load.connections && i < plan->connections; i++) {
        struct connection *c = &load.connections[i];
        if (c->keys)
            close(c->fd);
        free(c->keys);
        free(c->request);
        free(c->answer);
    }
    close(load.epoll);
    free(load.connections);
    free(load.value);
    return good ? took_s : -1;
}
