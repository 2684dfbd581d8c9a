/* SPDX-License-Identifier: Apache-2.0 */
#include "s3_faults.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 16384
#define RULES_MAX 8

static struct {
    pthread_mutex_t mutex;
    pthread_t thread;
    struct s3_rule rules[RULES_MAX];
    unsigned count, met;
    int listener;
    uint16_t server;
} proxy = {.mutex = PTHREAD_MUTEX_INITIALIZER, .listener = -1};

/* A head (request or answer) with what came of the body behind it. */
struct head {
    char text[HEAD_MAX + 1];
    size_t bytes, body_at;
};

static bool send_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes) {
        ssize_t sent = send(fd, at, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static bool read_head(int fd, struct head *h)
{
    h->bytes = 0;
    for (;;) {
        ssize_t got = recv(fd, h->text + h->bytes, HEAD_MAX - h->bytes, 0);
        if (got <= 0)
            return false;
        h->bytes += (size_t)got;
        h->text[h->bytes] = '\0';
        const char *end = strstr(h->text, "\r\n\r\n");
        if (end) {
            h->body_at = (size_t)(end - h->text) + 4;
            return true;
        }
        if (h->bytes == HEAD_MAX)
            return false;
    }
}

/* The line of a header in a head, and its end; NULL: there is none. */
static char *header(struct head *h, const char *name, char **end)
{
    char *at = strcasestr(h->text, name);
    if (!at || at >= h->text + h->body_at)
        return NULL;
    *end = strstr(at, "\r\n") + 2;
    return at;
}

static void drop_header(struct head *h, const char *name)
{
    char *end, *at = header(h, name, &end);
    if (!at)
        return;
    memmove(at, end, h->bytes - (size_t)(end - h->text) + 1);
    h->bytes -= (size_t)(end - at);
    h->body_at -= (size_t)(end - at);
}

static uint64_t body_bytes(struct head *h)
{
    char *end, *at = header(h, "\r\nContent-Length:", &end);
    return at ? strtoull(at + 17, NULL, 10) : 0;
}

/* The body of a head from one side to the other (-1: nowhere), changed by `fault`. */
static bool pass(int from, int to, struct head *h, int fault)
{
    char buffer[65536];
    uint64_t left = body_bytes(h), all = left, done = h->bytes - h->body_at;
    if (to >= 0 && !send_all(to, h->text, h->body_at))
        return false;
    memcpy(buffer, h->text + h->body_at, (size_t)done);
    for (size_t got = (size_t)done;; got = 0) {
        if (!got && left) {
            ssize_t more = recv(from, buffer, sizeof buffer, 0);
            if (more <= 0)
                return false;
            got = (size_t)more;
        }
        uint64_t at = all - left, middle = all / 2;
        if (fault == S3_CUT && at + got > middle) {
            (void)send_all(to, buffer, (size_t)(middle - at));
            return false;
        }
        if (fault == S3_FLIP && at <= middle && at + got > middle)
            buffer[middle - at] ^= 4;
        if (to >= 0 && got && !send_all(to, buffer, got))
            return false;
        left -= got < left ? got : left;
        if (!left)
            return true;
    }
}

static int rule_for(const char *line, struct s3_rule *out)
{
    int fault = -1;
    pthread_mutex_lock(&proxy.mutex);
    for (unsigned i = 0; i < proxy.count && fault < 0; i++) {
        struct s3_rule *rule = &proxy.rules[i];
        if (!rule->times || strncmp(line, rule->begins, strlen(rule->begins)) != 0 ||
            (rule->contains && !strstr(line, rule->contains)))
            continue;
        rule->times--;
        proxy.met++;
        *out = *rule;
        fault = (int)rule->fault;
    }
    pthread_mutex_unlock(&proxy.mutex);
    return fault;
}

static bool answer(int client, const struct s3_rule *rule)
{
    char text[4096];
    const char *body = rule->body ? rule->body : "";
    int bytes = snprintf(text, sizeof text,
                         "HTTP/1.1 %d Told\r\nContent-Length: %zu\r\nETag: \"none\"\r\n\r\n%s",
                         rule->status, strlen(body), body);
    return send_all(client, text, (size_t)bytes);
}

static void stall(int client)
{
    char byte;
    struct pollfd poll_for = {.fd = client, .events = POLLIN | POLLRDHUP};
    while (poll(&poll_for, 1, 10000) > 0 && recv(client, &byte, 1, 0) > 0)
        ;
}

/* Fast enough that no rule for stalls sees anything in it. */
static void drip(int client, const struct s3_rule *rule)
{
    char text[4096];
    struct pollfd poll_for = {.fd = client, .events = POLLRDHUP};
    int bytes = snprintf(text, sizeof text, "HTTP/1.1 %d Told\r\nContent-Length: %u\r\n\r\n",
                         rule->status, 1u << 30);
    if (!send_all(client, text, (size_t)bytes))
        return;
    memset(text, ' ', sizeof text);
    while (poll(&poll_for, 1, 20) == 0 && send_all(client, text, sizeof text))
        ;
}

static int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* False: this connection has come to its end. */
static bool one_request(int client, int server, struct head *h)
{
    struct s3_rule rule = {.times = 0};
    char line[2048], *end;
    if (!read_head(client, h))
        return false;
    snprintf(line, sizeof line, "%.*s", (int)strcspn(h->text, "\r"), h->text);
    if (header(h, "\r\nExpect:", &end)) {
        drop_header(h, "Expect:");
        if (!send_all(client, "HTTP/1.1 100 Continue\r\n\r\n", 25))
            return false;
    }
    int fault = rule_for(line, &rule);
    if (fault == S3_ANSWER)
        return pass(client, -1, h, -1) && answer(client, &rule);
    if (fault == S3_DRIP) {
        drip(client, &rule);
        return false;
    }
    if (fault == S3_RESET || fault == S3_STALL) {
        struct linger hard = {1, 0};
        (void)setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        if (fault == S3_STALL)
            stall(client);
        return false;
    }
    if (fault == S3_UNRANGED)
        drop_header(h, "Range:");
    return server >= 0 && pass(client, server, h, -1) && read_head(server, h) &&
           pass(server, client, h, fault);
}

static void *serve(void *user)
{
    int client = (int)(intptr_t)user, server = connect_to(proxy.server), one = 1;
    struct head *h = malloc(sizeof *h);
    (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (h && one_request(client, server, h))
        ;
    free(h);
    if (server >= 0)
        close(server);
    close(client);
    return NULL;
}

static void *accept_all(void *user)
{
    int client;
    while ((client = accept4(proxy.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)client) == 0)
            pthread_detach(thread);
        else
            close(client);
    }
    return user;
}

uint16_t s3_faults_start(uint16_t server)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    proxy.server = server;
    proxy.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (proxy.listener < 0 || bind(proxy.listener, (struct sockaddr *)&at, bytes) != 0 ||
        listen(proxy.listener, 64) != 0 ||
        getsockname(proxy.listener, (struct sockaddr *)&at, &bytes) != 0 ||
        pthread_create(&proxy.thread, NULL, accept_all, NULL) != 0)
        return 0;
    return ntohs(at.sin_port);
}

void s3_faults_stop(void)
{
    (void)shutdown(proxy.listener, SHUT_RDWR);
    pthread_join(proxy.thread, NULL);
    close(proxy.listener);
    proxy.listener = -1;
}

void s3_faults_add(struct s3_rule rule)
{
    pthread_mutex_lock(&proxy.mutex);
    if (proxy.count == RULES_MAX)
        abort();
    proxy.rules[proxy.count++] = rule;
    pthread_mutex_unlock(&proxy.mutex);
}

void s3_faults_clear(void)
{
    pthread_mutex_lock(&proxy.mutex);
    proxy.count = proxy.met = 0;
    pthread_mutex_unlock(&proxy.mutex);
}

unsigned s3_faults_met(void)
{
    pthread_mutex_lock(&proxy.mutex);
    unsigned met = proxy.met;
    pthread_mutex_unlock(&proxy.mutex);
    return met;
}
