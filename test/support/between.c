/* SPDX-License-Identifier: Apache-2.0 */
#include "between.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS_MAX 32
#define HEAD_MAX 4096

struct pair {
    int near, far; /* the node's side, etcd's; -1: none */
    bool watch;    /* a watch was asked for on it */
    bool begun;    /* and etcd has said that it is */
    char head[HEAD_MAX];
    size_t head_bytes;
};

struct between {
    pthread_t thread;
    pthread_mutex_t lock;
    int listen, wake;
    uint16_t to, port;
    /* Under the lock: */
    enum between_mode mode;
    const char *fake;
    size_t fake_bytes;
    uint64_t answered;
    bool ends;
    /* The thread's: */
    struct pair pairs[PAIRS_MAX];
};

static void pair_close(struct pair *pair)
{
    if (pair->near >= 0)
        close(pair->near);
    if (pair->far >= 0)
        close(pair->far);
    *pair = (struct pair){.near = -1, .far = -1};
}

static int to_etcd(const struct between *b)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(b->to),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void take_new(struct between *b, enum between_mode mode)
{
    int fd = accept4(b->listen, NULL, NULL, SOCK_CLOEXEC);
    struct pair *pair = NULL;
    for (int i = 0; i < PAIRS_MAX && !pair; i++)
        if (b->pairs[i].near < 0)
            pair = &b->pairs[i];
    if (fd >= 0 && (!pair || mode == BETWEEN_CUT)) {
        close(fd);
        return;
    }
    if (fd < 0)
        return;
    pair->near = fd;
    if (mode != BETWEEN_FAKE && mode != BETWEEN_DEAF)
        pair->far = to_etcd(b);
    if (mode != BETWEEN_FAKE && mode != BETWEEN_DEAF && pair->far < 0)
        pair_close(pair);
}

static bool whole_request(const struct pair *pair)
{
    const char *end = strstr(pair->head, "\r\n\r\n");
    const char *length = strcasestr(pair->head, "content-length:");
    if (!end || !length)
        return false;
    size_t body = strtoul(length + strlen("content-length:"), NULL, 10);
    return pair->head_bytes >= (size_t)(end + 4 - pair->head) + body;
}

/* What the node says: kept, as far as it fits, to know what it asks for. */
static void remember(struct pair *pair, const char *data, size_t bytes)
{
    if (bytes > HEAD_MAX - 1 - pair->head_bytes)
        bytes = HEAD_MAX - 1 - pair->head_bytes;
    memcpy(pair->head + pair->head_bytes, data, bytes);
    pair->head_bytes += bytes;
    pair->head[pair->head_bytes] = '\0';
    if (strstr(pair->head, "POST /v3/watch"))
        pair->watch = true;
}

static bool answer_fake(struct between *b, struct pair *pair)
{
    if (!whole_request(pair))
        return true;
    pthread_mutex_lock(&b->lock);
    const char *fake = b->fake;
    size_t left = b->fake_bytes;
    b->answered++;
    pthread_mutex_unlock(&b->lock);
    while (left) {
        ssize_t sent = send(pair->near, fake, left, MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        fake += sent;
        left -= (size_t)sent;
    }
    return false;
}

static bool carry(struct between *b, struct pair *pair, bool back, enum between_mode mode)
{
    char data[65536];
    ssize_t got = recv(back ? pair->far : pair->near, data, sizeof data, 0);
    if (got <= 0)
        return false;
    if (!back) {
        if (pair->far >= 0)
            pair->head_bytes = 0;
        remember(pair, data, (size_t)got);
    }
    if (mode == BETWEEN_FAKE)
        return back || answer_fake(b, pair);
    if (pair->far < 0)
        return false;
    if (back && pair->watch && pair->begun && mode == BETWEEN_NO_STREAM)
        return true;
    if (back && pair->watch && memmem(data, (size_t)got, "\"created\"", strlen("\"created\"")))
        pair->begun = true;
    return send(back ? pair->near : pair->far, data, (size_t)got, MSG_NOSIGNAL) == got;
}

static void turn(struct between *b, enum between_mode mode)
{
    struct pollfd wait[2 + 2 * PAIRS_MAX] = {{.fd = b->wake, .events = POLLIN},
                                             {.fd = b->listen, .events = POLLIN}};
    for (int i = 0; i < PAIRS_MAX; i++) {
        struct pair *pair = &b->pairs[i];
        if (mode == BETWEEN_CUT && pair->near >= 0)
            pair_close(pair);
        bool deaf = mode == BETWEEN_DEAF;
        wait[2 + 2 * i] = (struct pollfd){.fd = deaf ? -1 : pair->near, .events = POLLIN};
        wait[3 + 2 * i] = (struct pollfd){.fd = deaf ? -1 : pair->far, .events = POLLIN};
    }
    (void)poll(wait, 2 + 2 * PAIRS_MAX, 1000);
    eventfd_t woken;
    if (wait[0].revents)
        (void)eventfd_read(b->wake, &woken);
    for (int i = 0; i < PAIRS_MAX; i++)
        for (int back = 0; back < 2; back++)
            if (wait[2 + 2 * i + back].revents && b->pairs[i].near >= 0 &&
                !carry(b, &b->pairs[i], back == 1, mode))
                pair_close(&b->pairs[i]);
    if (wait[1].revents)
        take_new(b, mode);
}

static void *run(void *between)
{
    struct between *b = between;
    for (;;) {
        pthread_mutex_lock(&b->lock);
        enum between_mode mode = b->mode;
        bool ends = b->ends;
        pthread_mutex_unlock(&b->lock);
        if (ends)
            return NULL;
        turn(b, mode);
    }
}

struct between *between_begin(uint16_t to)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    struct between *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->to = to;
    pthread_mutex_init(&b->lock, NULL);
    for (int i = 0; i < PAIRS_MAX; i++)
        b->pairs[i].near = b->pairs[i].far = -1;
    b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    b->listen = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (b->wake < 0 || b->listen < 0 || bind(b->listen, (struct sockaddr *)&address, bytes) != 0 ||
        listen(b->listen, 64) != 0 ||
        getsockname(b->listen, (struct sockaddr *)&address, &bytes) != 0 ||
        pthread_create(&b->thread, NULL, run, b) != 0)
        abort();
    b->port = ntohs(address.sin_port);
    return b;
}

void between_end(struct between *b)
{
    pthread_mutex_lock(&b->lock);
    b->ends = true;
    pthread_mutex_unlock(&b->lock);
    (void)eventfd_write(b->wake, 1);
    pthread_join(b->thread, NULL);
    for (int i = 0; i < PAIRS_MAX; i++)
        pair_close(&b->pairs[i]);
    close(b->listen);
    close(b->wake);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

uint16_t between_port(const struct between *b)
{
    return b->port;
}

void between_set(struct between *b, enum between_mode mode)
{
    pthread_mutex_lock(&b->lock);
    b->mode = mode;
    pthread_mutex_unlock(&b->lock);
    (void)eventfd_write(b->wake, 1);
}

void between_fake(struct between *b, const char *bytes, size_t count)
{
    pthread_mutex_lock(&b->lock);
    b->fake = bytes;
    b->fake_bytes = count;
    b->mode = BETWEEN_FAKE;
    pthread_mutex_unlock(&b->lock);
    (void)eventfd_write(b->wake, 1);
}

uint64_t between_answered(struct between *b)
{
    pthread_mutex_lock(&b->lock);
    uint64_t answered = b->answered;
    pthread_mutex_unlock(&b->lock);
    return answered;
}
