/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's HTTP over a real socket: what it says, to whom, and that half requests, floods and
 * nonsense leave it answering.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "daemon/http.h"

#define TOKEN "correct-horse-battery-staple"
#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n"
#define END "Connection: close\r\n\r\n"

struct node {
    struct wf_http *http;
    pthread_t thread;
    atomic_bool stop, draining, no_memory;
};

static struct node node;

static char *text_of(const char *format, uint64_t number)
{
    char text[64];
    snprintf(text, sizeof text, format, (unsigned long long)number);
    return atomic_load(&node.no_memory) ? NULL : strdup(text);
}

static char *metrics_text(void *context)
{
    (void)context;
    return text_of("weft_test %llu\n", 1);
}

static char *status_json(void *context)
{
    (void)context;
    return text_of("{\"status\": %llu}", 2);
}

static char *events_json(void *context, uint64_t cursor)
{
    (void)context;
    return text_of("{\"cursor\": %llu}", cursor);
}

static bool draining(void *context)
{
    (void)context;
    return atomic_load(&node.draining);
}

/* It says how long the body was, and what it began with. */
static char *route_json(void *context, const char *body, size_t bytes, unsigned *out_status)
{
    char text[96];
    (void)context;
    *out_status = bytes ? 200 : 400;
    snprintf(text, sizeof text, "{\"bytes\": %zu, \"first\": %d}", bytes, bytes ? body[0] : -1);
    return atomic_load(&node.no_memory) ? NULL : strdup(text);
}

static struct wf_http_handlers handlers = {.route_json = route_json,
                                           .metrics_text = metrics_text,
                                           .status_json = status_json,
                                           .events_json = events_json,
                                           .draining = draining};

/* What the owner's loop does. */
static void *run_loop(void *unused)
{
    while (!atomic_load(&node.stop)) {
        struct pollfd ready = {.fd = wf_http_epoll_fd(node.http), .events = POLLIN};
        int wait = wf_http_timeout_ms(node.http);
        poll(&ready, 1, wait < 0 || wait > 20 ? 20 : wait);
        wf_http_run(node.http);
    }
    return unused;
}

static int start_with(const char *address, const char *token)
{
    atomic_store(&node.stop, false);
    atomic_store(&node.draining, false);
    atomic_store(&node.no_memory, false);
    if (wf_http_start(address, 0, token, &handlers, &node.http) != WEFT_OK)
        return -1;
    return pthread_create(&node.thread, NULL, run_loop, NULL);
}

static int start_open(void **state)
{
    (void)state;
    return start_with("127.0.0.1", "");
}

static int start_with_token(void **state)
{
    (void)state;
    return start_with("127.0.0.1", TOKEN);
}

static int start_private(void **state)
{
    (void)state;
    handlers.private_pages = true;
    int result = start_with("127.0.0.1", "");
    handlers.private_pages = false;
    return result;
}

static int start_private_with_token(void **state)
{
    (void)state;
    handlers.private_pages = true;
    int result = start_with("127.0.0.1", TOKEN);
    handlers.private_pages = false;
    return result;
}

static int stop(void **state)
{
    (void)state;
    atomic_store(&node.stop, true);
    pthread_join(node.thread, NULL);
    wf_http_stop(node.http);
    return 0;
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(wf_http_port(node.http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* A server that refuses may close before it has read all: what could not be sent is no failure of
 * the test. */
static void send_text(int fd, const char *text, size_t length)
{
    while (length) {
        ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        length -= (size_t)sent;
    }
}

/* All that comes until the other side closes. */
static const char *read_all(int fd)
{
    static char answer[65536];
    size_t used = 0;
    ssize_t got;
    while (used < sizeof answer - 1 &&
           (got = recv(fd, answer + used, sizeof answer - 1 - used, 0)) > 0)
        used += (size_t)got;
    answer[used] = '\0';
    return answer;
}

static const char *ask(const char *request)
{
    int fd = dial();
    send_text(fd, request, strlen(request));
    const char *answer = read_all(fd);
    close(fd);
    return answer;
}

static void says(const char *answer, const char *part)
{
    if (!strstr(answer, part))
        fail_msg("without '%s': %.2000s", part, answer);
}

static void pages_are_served(void **state)
{
    (void)state;
    const char *answer = ask(GET("/metrics") END);
    says(answer, "HTTP/1.1 200");
    says(answer, "Content-Type: text/plain; version=0.0.4");
    says(answer, "\r\n\r\nweft_test 1\n");
    answer = ask(GET("/v1/status") END);
    says(answer, "Content-Type: application/json");
    says(answer, "{\"status\": 2}");
    says(ask(GET("/v1/events") END), "{\"cursor\": 0}");
    says(ask(GET("/v1/events?cursor=18446744073709551615") END),
         "{\"cursor\": 18446744073709551615}");
    answer = ask("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n" END);
    says(answer, "HTTP/1.1 200");
    assert_null(strstr(answer, "weft_test"));
}

static void health_says_when_it_drains(void **state)
{
    (void)state;
    const char *answer = ask(GET("/healthz") END);
    says(answer, "HTTP/1.1 200");
    says(answer, "\r\n\r\nok\n");
    atomic_store(&node.draining, true);
    answer = ask(GET("/healthz") END);
    says(answer, "HTTP/1.1 503");
    says(answer, "\r\n\r\ndraining\n");
}

static void what_is_not_there_gets_a_sentence(void **state)
{
    (void)state;
    const char *answer = ask(GET("/nothing") END);
    says(answer, "HTTP/1.1 404");
    says(answer, "{\"error\":\"there is no such page");
    answer = ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n" END);
    says(answer, "HTTP/1.1 405");
    says(answer, "Allow: GET, HEAD");
    says(answer, "{\"error\":");
    says(ask("DELETE /v1/status HTTP/1.1\r\nHost: localhost\r\n" END), "HTTP/1.1 405");
    static const char *const cursors[] = {"-1", "x", "1x", "", "18446744073709551616", "%00"};
    for (size_t i = 0; i < sizeof cursors / sizeof cursors[0]; i++) {
        char request[128];
        snprintf(request, sizeof request,
                 "GET /v1/events?cursor=%s HTTP/1.1\r\nHost: localhost\r\n" END, cursors[i]);
        says(ask(request), "HTTP/1.1 400");
    }
    atomic_store(&node.no_memory, true);
    answer = ask(GET("/metrics") END);
    says(answer, "HTTP/1.1 500");
    says(answer, "no memory");
}

#define POST(length)                                                                   \
    "POST /v1/route HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" \
    "Content-Length: " length "\r\n" END

static void a_body_is_taken_up_to_its_limit(void **state)
{
    (void)state;
    static char large[WF_HTTP_BODY_MAX + 1024];
    says(ask(POST("2") "{}"), "{\"bytes\": 2, \"first\": 123}");
    says(ask(POST("0")), "HTTP/1.1 400");
    says(ask(POST("1048577") "{"), "HTTP/1.1 413");
    says(ask(POST("99999999999999999999") "{"), "HTTP/1.1 4");
    says(ask("POST /v1/route HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n" END "{}"),
         "HTTP/1.1 415");
    says(ask("POST /v1/route HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
             "Content-Length: 2\r\n" END "{}"),
         "HTTP/1.1 415");
    const char *answer = ask(GET("/v1/route") END);
    says(answer, "HTTP/1.1 405");
    says(answer, "Allow: POST");
    int fd = dial();
    memset(large, ' ', sizeof large);
    send_text(fd, POST("1048576"), strlen(POST("1048576")));
    send_text(fd, large, WF_HTTP_BODY_MAX);
    says(read_all(fd), "{\"bytes\": 1048576, \"first\": 32}");
    close(fd);
    /* One that does not say how long it is gets no further than that, either. */
    fd = dial();
    static const char chunked[] =
        "POST /v1/route HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n";
    send_text(fd, chunked, strlen(chunked));
    send_text(fd, large, sizeof large);
    assert_null(strstr(read_all(fd), "HTTP/1.1 200"));
    close(fd);
    /* Who goes away in the middle leaves nothing. */
    fd = dial();
    send_text(fd, POST("1048576"), strlen(POST("1048576")));
    send_text(fd, large, 100000);
    close(fd);
    atomic_store(&node.no_memory, true);
    says(ask(POST("2") "{}"), "HTTP/1.1 500");
}

static void a_connection_serves_many_requests(void **state)
{
    (void)state;
    int fd = dial();
    for (int i = 0; i < 20; i++) {
        char answer[1024];
        size_t used = 0;
        send_text(fd, GET("/metrics") "\r\n", strlen(GET("/metrics") "\r\n"));
        do {
            ssize_t got = recv(fd, answer + used, sizeof answer - 1 - used, 0);
            if (got <= 0)
                fail_msg("the connection ended at request %d", i);
            used += (size_t)got;
            answer[used] = '\0';
        } while (!strstr(answer, "weft_test 1\n"));
    }
    close(fd);
}

static void a_token_is_asked_for_on_every_page(void **state)
{
    (void)state;
    static const char *const pages[] = {"/metrics", "/healthz", "/v1/status", "/v1/events",
                                        "/nothing"};
    static const char *const wrong[] = {"",
                                        "Authorization: Bearer\r\n",
                                        "Authorization: Bearer \r\n",
                                        "Authorization: Bearer correct-horse-battery-stapl\r\n",
                                        "Authorization: Bearer " TOKEN "x\r\n",
                                        "Authorization: Bearer  " TOKEN "\r\n",
                                        "Authorization: Basic " TOKEN "\r\n",
                                        "Authorization: " TOKEN "\r\n"};
    char request[512];
    for (size_t p = 0; p < sizeof pages / sizeof pages[0]; p++)
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s" END,
                     pages[p], wrong[i]);
            const char *answer = ask(request);
            says(answer, "HTTP/1.1 401");
            says(answer, "WWW-Authenticate: Bearer");
            assert_null(strstr(answer, "correct-horse"));
        }
    says(ask(GET("/metrics") "Authorization: Bearer " TOKEN "\r\n" END), "HTTP/1.1 200");
    says(ask("GET /metrics HTTP/1.1\r\nHost: example.org\r\nAuthorization: bearer " TOKEN
             "\r\n" END),
         "HTTP/1.1 200");
}

static void several_domains_need_a_token(void **state)
{
    (void)state;
    says(ask(GET("/healthz") END), "HTTP/1.1 200");
    static const char *const pages[] = {"/metrics", "/v1/status", "/v1/events"};
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        char request[128];
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n" END, pages[i]);
        const char *answer = ask(request);
        says(answer, "HTTP/1.1 403");
        says(answer, "set http.token");
    }
}

static void several_domains_with_a_token_are_shown(void **state)
{
    (void)state;
    says(ask(GET("/metrics") "Authorization: Bearer " TOKEN "\r\n" END), "HTTP/1.1 200");
    says(ask(GET("/metrics") END), "HTTP/1.1 401");
}

static void without_a_token_only_loopback_listens(void **state)
{
    (void)state;
    struct wf_http *http = NULL;
    static const char *const reachable[] = {"0.0.0.0", "::", "192.0.2.1", "localhost", ""};
    for (size_t i = 0; i < sizeof reachable / sizeof reachable[0]; i++) {
        assert_int_equal(wf_http_start(reachable[i], 0, "", &handlers, &http), WEFT_E_DENIED);
        assert_int_equal(wf_http_start(reachable[i], 0, NULL, &handlers, &http), WEFT_E_DENIED);
    }
    assert_int_equal(wf_http_start("localhost", 0, TOKEN, &handlers, &http), WEFT_E_INVALID);
    assert_null(http);
    assert_int_equal(wf_http_start("0.0.0.0", 0, TOKEN, &handlers, &http), WEFT_OK);
    assert_true(wf_http_port(http) > 0);
    wf_http_stop(http);
}

static void another_name_for_this_host_is_refused(void **state)
{
    (void)state;
    static const char *const strangers[] = {"example.org",
                                            "example.org:9464",
                                            "127.0.0.1.example.org",
                                            "10.0.0.1",
                                            "localhost.example.org",
                                            "[2001:db8::1]",
                                            ""};
    static const char *const friends[] = {"localhost", "LOCALHOST:9464", "127.0.0.1", "127.0.0.1:1",
                                          "[::1]:9464"};
    char request[256];
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        snprintf(request, sizeof request, "GET /metrics HTTP/1.1\r\nHost: %s\r\n" END,
                 strangers[i]);
        says(ask(request), "HTTP/1.1 403");
    }
    for (size_t i = 0; i < sizeof friends / sizeof friends[0]; i++) {
        snprintf(request, sizeof request, "GET /metrics HTTP/1.1\r\nHost: %s\r\n" END, friends[i]);
        says(ask(request), "HTTP/1.1 200");
    }
}

static void the_port_may_be_taken(void **state)
{
    (void)state;
    struct wf_http *second = NULL;
    assert_int_equal(wf_http_start("127.0.0.1", wf_http_port(node.http), "", &handlers, &second),
                     WEFT_E_SYSTEM);
    says(wf_last_error(), "http.listen");
    assert_null(second);
}

/* ------------------------------------------------------------------------------------- hostile */

static void nonsense_leaves_it_answering(void **state)
{
    (void)state;
    static const char *const nonsense[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "GET /metrics HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02",
        "GET /metrics HTTP/1.1\r\nHost\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZZ\r\n",
        "POST /metrics HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    };
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
        int fd = dial();
        send_text(fd, nonsense[i], strlen(nonsense[i]));
        shutdown(fd, SHUT_WR);
        struct timeval brief = {.tv_usec = 100000}; /* some wait for more until they idle out */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
        read_all(fd);
        close(fd);
        says(ask(GET("/healthz") END), "HTTP/1.1 200");
    }
}

static void headers_are_bounded(void **state)
{
    (void)state;
    enum { LENGTH = 1 << 20 };
    static const char *const starts[] = {"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ", "GET /",
                                         ""};
    char *flood = malloc(LENGTH);
    assert_non_null(flood);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        memset(flood, 'a', LENGTH);
        memcpy(flood, starts[i], strlen(starts[i]));
        int fd = dial();
        send_text(fd, flood, LENGTH);
        const char *answer = read_all(
            fd); /* ends: the server closed without waiting for the end of the line */
        if (answer[0])
            assert_null(strstr(answer, " 200 "));
        close(fd);
        says(ask(GET("/healthz") END), "HTTP/1.1 200");
    }
    free(flood);
}

static void half_requests_are_no_obstacle(void **state)
{
    (void)state;
    static const char half[] = "GET /metrics HTTP/1.1\r\nHost: loc";
    int fds[WF_HTTP_CONNECTIONS_MAX + 8];
    /* Half the connections that there are, each with half a request: others are still served. */
    for (int i = 0; i < WF_HTTP_CONNECTIONS_MAX / 2; i++) {
        fds[i] = dial();
        send_text(fds[i], half, strlen(half));
    }
    says(ask(GET("/healthz") END), "HTTP/1.1 200");
    /* All of them, and more: nobody new is served, nothing breaks … */
    for (int i = WF_HTTP_CONNECTIONS_MAX / 2; i < WF_HTTP_CONNECTIONS_MAX + 8; i++) {
        fds[i] = dial();
        send_text(fds[i], half, strlen(half));
    }
    for (int i = 0; i < WF_HTTP_CONNECTIONS_MAX + 8; i++)
        close(fds[i]);
    /* … and when they go, their places are free again. */
    says(ask(GET("/healthz") END), "HTTP/1.1 200");
}

static void a_client_that_does_not_read_is_no_obstacle(void **state)
{
    (void)state;
    int fd = dial(), small = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    for (int i = 0; i < 200; i++)
        if (send(fd, GET("/metrics") "\r\n", strlen(GET("/metrics") "\r\n"),
                 MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
    says(ask(GET("/healthz") END), "HTTP/1.1 200");
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    says(ask(GET("/healthz") END), "HTTP/1.1 200");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages_are_served, start_open, stop),
        cmocka_unit_test_setup_teardown(health_says_when_it_drains, start_open, stop),
        cmocka_unit_test_setup_teardown(a_body_is_taken_up_to_its_limit, start_open, stop),
        cmocka_unit_test_setup_teardown(what_is_not_there_gets_a_sentence, start_open, stop),
        cmocka_unit_test_setup_teardown(a_connection_serves_many_requests, start_open, stop),
        cmocka_unit_test_setup_teardown(a_token_is_asked_for_on_every_page, start_with_token, stop),
        cmocka_unit_test_setup_teardown(several_domains_need_a_token, start_private, stop),
        cmocka_unit_test_setup_teardown(several_domains_with_a_token_are_shown,
                                        start_private_with_token, stop),
        cmocka_unit_test(without_a_token_only_loopback_listens),
        cmocka_unit_test_setup_teardown(another_name_for_this_host_is_refused, start_open, stop),
        cmocka_unit_test_setup_teardown(the_port_may_be_taken, start_open, stop),
        cmocka_unit_test_setup_teardown(nonsense_leaves_it_answering, start_open, stop),
        cmocka_unit_test_setup_teardown(headers_are_bounded, start_open, stop),
        cmocka_unit_test_setup_teardown(half_requests_are_no_obstacle, start_open, stop),
        cmocka_unit_test_setup_teardown(a_client_that_does_not_read_is_no_obstacle, start_open,
                                        stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
