/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "resp_client.h"

#define WAIT_MS 20000

struct weftd node;
uint16_t port;

/* --------------------------------------------------------------------------------- raw client */

static uint16_t port_find(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
    return fd;
}

void say_bytes(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        assert_true(sent > 0);
        at += sent;
        length -= (size_t)sent;
    }
}

void say(int fd, const char *text)
{
    say_bytes(fd, text, strlen(text));
}

/* As many bytes as that; fewer when the other side hangs up. */
size_t hear(int fd, void *out, size_t length)
{
    size_t got = 0;
    while (got < length) {
        struct pollfd there = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&there, 1, WAIT_MS), 1);
        ssize_t n = recv(fd, (char *)out + got, length - got, 0);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    return got;
}

void expect(int fd, const char *answer)
{
    char got[4096] = "";
    size_t length = strlen(answer);
    assert_true(length < sizeof got);
    size_t heard = hear(fd, got, length);
    got[heard] = '\0';
    assert_string_equal(got, answer);
}

void ask(int fd, const char *request, const char *answer)
{
    say(fd, request);
    expect(fd, answer);
}

/* The other side says this and hangs up. */
void expect_end(int fd, const char *answer)
{
    char more;
    expect(fd, answer);
    assert_int_equal(hear(fd, &more, 1), 0);
    close(fd);
}

uint8_t *value_make(size_t length, unsigned seed)
{
    uint8_t *value = malloc(length + 1);
    assert_non_null(value);
    for (size_t i = 0; i < length; i++)
        value[i] = (uint8_t)((i * 2654435761u + seed) >> 7);
    return value;
}

void set_say(int fd, const char *key, const uint8_t *value, size_t length)
{
    char head[128];
    snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(key), key,
             length);
    say(fd, head);
    say_bytes(fd, value, length);
    say(fd, "\r\n");
}

void get_expect(int fd, const uint8_t *value, size_t length)
{
    char head[32];
    snprintf(head, sizeof head, "$%zu\r\n", length);
    expect(fd, head);
    uint8_t *got = malloc(length + 1);
    assert_non_null(got);
    assert_int_equal(hear(fd, got, length), length);
    assert_memory_equal(got, value, length);
    free(got);
    expect(fd, "\r\n");
}

/* ----------------------------------------------------------------------------------- the node */

void node_run_with(const char *const *more, const char *const *variables)
{
    static char listen[64];
    const char *settings[16] = {listen, "pool.size=64MB", "pool.size_max=64MB"};
    size_t count = 3;
    port = port_find();
    snprintf(listen, sizeof listen, "resp.listen=127.0.0.1:%u", port);
    for (; more && *more; more++)
        settings[count++] = *more;
    settings[count] = NULL;
    memset(&node, 0, sizeof node);
    weftd_prepare(&node);
    assert_true(weftd_start(&node, settings, variables));
}

void node_run(const char *const *more)
{
    node_run_with(more, NULL);
}

void node_end(void)
{
    bool ended = weftd_stop(&node);
    if (!ended)
        weftd_show_log(&node);
    weftd_clean(&node);
    assert_true(ended);
}

/* Nothing is reserved for anybody once all is quiet. */
void nothing_reserved(void)
{
    struct weft *w = weftd_connect(&node, "default");
    assert_non_null(w);
    assert_true(weftd_settles(w, "default", "blocks_reserved", 0));
    weft_close(w);
}
