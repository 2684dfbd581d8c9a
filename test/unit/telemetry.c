/* SPDX-License-Identifier: Apache-2.0
 *
 * A node at work tells the truth: a client fills a small pool until blocks are evicted, and
 * metrics, events and status say what was done, to whom and why; a second domain learns nothing of
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/node.h"
#include "weft/weft.h"

enum { BLOCK_BYTES = 1 << 20, POOL_BLOCKS = 8, PUTS = 20 };

static struct wf_config config;
static struct wf_node *node;
static pthread_t owner;
static char socket_path[64];
static uint16_t http_port;

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void *serve(void *unused)
{
    if (wf_server_run(node) != WEFT_OK)
        fprintf(stderr, "# the node stopped: %s\n", wf_last_error());
    return unused;
}

static int start(void **state)
{
    (void)state;
    char flags[4][128];
    int listener, lock;
    const char *overrides[7];
    http_port = free_port();
    snprintf(socket_path, sizeof socket_path, "/tmp/weft-telemetry-%d.sock", (int)getpid());
    snprintf(flags[0], sizeof flags[0], "socket=%s", socket_path);
    snprintf(flags[1], sizeof flags[1], "http.listen=127.0.0.1:%u", http_port);
    snprintf(flags[2], sizeof flags[2], "pool.size=%dMB", POOL_BLOCKS);
    snprintf(flags[3], sizeof flags[3], "pool.size_max=%dMB", POOL_BLOCKS);
    for (size_t i = 0; i < 4; i++)
        overrides[i] = flags[i];
    overrides[4] = "domains=alice,bob";
    overrides[5] = "http.token=open-the-pages-please";
    overrides[6] = "log.level=off";
    if (wf_config_load("/dev/null", overrides, 7, &config) != WEFT_OK ||
        wf_socket_listen(socket_path, 0600, &listener, &lock) != WEFT_OK ||
        wf_node_create(&config, &node) != WEFT_OK ||
        wf_server_start(node, listener, lock) != WEFT_OK) {
        fprintf(stderr, "# %s\n", wf_last_error());
        return -1;
    }
    return pthread_create(&owner, NULL, serve, NULL);
}

static int stop(void **state)
{
    (void)state;
    kill(getpid(), SIGTERM); /* the node's signalfd takes it, as in weftd */
    pthread_join(owner, NULL);
    wf_server_stop(node);
    wf_node_destroy(node);
    char lock_path[sizeof socket_path + 8];
    snprintf(lock_path, sizeof lock_path, "%s.lock", socket_path);
    unlink(lock_path);
    return 0;
}

static struct weft *attach(const char *domain, struct weft_format **out_format)
{
    struct weft *weft = NULL;
    const struct weft_connect_options options = {.socket = socket_path, .domain = domain};
    const struct weft_format_spec spec = {.model = "telemetry",
                                          .layers = 1,
                                          .kv_heads = 1,
                                          .head_dim = 1,
                                          .dtype = WEFT_F32,
                                          .block_tokens = 1,
                                          .block_bytes = BLOCK_BYTES - 4096};
    if (weft_connect(&options, &weft) != WEFT_OK ||
        weft_format_open(weft, &spec, out_format) != WEFT_OK)
        fail_msg("%s", weft_last_error());
    return weft;
}

/* Block `number`: a chain of its own, so that any of them may be evicted. */
static void put(struct weft_format *format, uint32_t number)
{
    struct weft_key key;
    struct weft_slot slot;
    assert_int_equal(weft_key_from_bytes(format, &number, sizeof number, &key), WEFT_OK);
    if (weft_reserve_keys(format, NULL, &key, 1, 0, &slot) != WEFT_OK)
        fail_msg("%s", weft_last_error());
    if (slot.status == WEFT_EXISTS) {
        weft_abort_slots(format, &slot, 1);
        return;
    }
    assert_int_equal(slot.status, WEFT_OK);
    memset(slot.data, (int)number, BLOCK_BYTES - 4096);
    assert_int_equal(weft_commit_slots(format, &slot, 1), WEFT_OK);
    assert_int_equal(slot.status, WEFT_OK);
}

/* The body of a page; caller frees. */
static char *page(const char *path)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char request[256];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                          "Authorization: Bearer open-the-pages-please\r\n\r\n",
                          path);
    size_t capacity = 1 << 20, used = 0;
    char *answer = malloc(capacity);
    assert_non_null(answer);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, request, (size_t)length, MSG_NOSIGNAL), length);
    for (ssize_t got; (got = recv(fd, answer + used, capacity - 1 - used, 0)) > 0;)
        used += (size_t)got;
    close(fd);
    answer[used] = '\0';
    if (strncmp(answer, "HTTP/1.1 200", 12) != 0)
        fail_msg("%s: %.300s", path, answer);
    char *body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    memmove(answer, body + 4, strlen(body + 4) + 1);
    return answer;
}

/* The value of a series of /metrics. */
static double metric(const char *text, const char *series)
{
    const char *at = strstr(text, series);
    if (!at)
        fail_msg("there is no %s", series);
    return strtod(at + strlen(series), NULL);
}

/* How many there were, all of alice's blocks for alice's. */
static size_t evictions_told(void)
{
    char *events = page("/v1/events");
    json_t *root = json_loads(events, 0, NULL), *event;
    size_t index, evictions = 0;
    assert_non_null(root);
    json_array_foreach (json_object_get(root, "events"), index, event) {
        const char *what = NULL, *whose = NULL, *name = NULL, *reason = NULL, *whom = NULL;
        json_int_t bytes = 0;
        assert_int_equal(json_unpack(event, "{s:s}", "what", &what), 0);
        if (strcmp(what, "evict") != 0)
            continue;
        assert_int_equal(json_unpack(event, "{s:s, s:s, s:s, s:s, s:I}", "domain", &whose, "key",
                                     &name, "reason", &reason, "for", &whom, "bytes", &bytes),
                         0);
        assert_string_equal(whose, "alice");
        assert_string_equal(whom, "alice");
        assert_int_equal(strlen(name), 16);
        assert_true(strcmp(reason, "room") == 0 || strcmp(reason, "quota") == 0);
        assert_true(bytes >= BLOCK_BYTES - 4096);
        evictions++;
    }
    json_decref(root);
    free(events);
    return evictions;
}

static void metrics_and_events_say_what_was_done(void **state)
{
    (void)state;
    struct weft_format *format = NULL;
    struct weft *weft = attach("alice", &format);
    for (uint32_t i = 0; i < PUTS; i++)
        put(format, i);
    put(format, PUTS - 1); /* exists */
    struct weft_key key;
    struct weft_pin pin;
    uint32_t last = PUTS - 1, unknown = 1000;
    assert_int_equal(weft_key_from_bytes(format, &last, sizeof last, &key), WEFT_OK);
    assert_int_equal(weft_pin(format, &key, &pin), WEFT_OK);
    weft_unpin(&pin);
    assert_int_equal(weft_key_from_bytes(format, &unknown, sizeof unknown, &key), WEFT_OK);
    assert_int_equal(weft_pin(format, &key, &pin), WEFT_MISS);

    char *text = page("/metrics");
    double blocks = metric(text, "weft_blocks{domain=\"alice\"} ");
    double evicted = metric(text, "weft_blocks_evicted_total{domain=\"alice\",pool=\"dram0\"} ");
    assert_true(evicted >= PUTS - POOL_BLOCKS);
    assert_true(blocks + evicted == PUTS);
    assert_true(metric(text, "weft_blocks_put_total{domain=\"alice\",pool=\"dram0\"} ") == PUTS);
    assert_true(metric(text, "weft_put_bytes_total{domain=\"alice\",pool=\"dram0\"} ") ==
                PUTS * (BLOCK_BYTES - 4096.0));
    assert_true(metric(text, "weft_blocks_deduplicated_total{domain=\"alice\",pool=\"dram0\"} ") ==
                1);
    assert_true(metric(text, "weft_deduplicated_bytes_total{domain=\"alice\",pool=\"dram0\"} ") ==
                BLOCK_BYTES - 4096);
    assert_true(metric(text, "weft_pins_total{domain=\"alice\"} ") == 1);
    assert_true(metric(text, "weft_pin_misses_total{domain=\"alice\"} ") == 1);
    assert_true(metric(text, "weft_clients{domain=\"alice\"} ") == 1);
    assert_true(
        metric(text, "weft_operation_duration_seconds_count{domain=\"alice\",op=\"reserve\"} ") ==
        PUTS + 1);
    assert_true(
        metric(text, "weft_operations_total{domain=\"alice\",op=\"hello\",outcome=\"ok\"} ") == 1);
    double total = metric(text, "weft_pool_bytes{pool=\"dram0\"} ");
    assert_true(total == (double)POOL_BLOCKS * BLOCK_BYTES);
    assert_true(metric(text, "weft_pool_used_bytes{pool=\"dram0\"} ") +
                    metric(text, "weft_pool_free_bytes{pool=\"dram0\"} ") ==
                total);
    assert_true(metric(text, "weft_pool_used_bytes{pool=\"dram0\"} ") >=
                blocks * (BLOCK_BYTES - 4096));
    free(text);

    assert_true((double)evictions_told() == evicted);
    weft_format_close(format);
    weft_close(weft);
}

static void the_room_for_another_domain_is_accounted_for(void **state)
{
    (void)state;
    struct weft_format *alices = NULL, *bobs = NULL;
    struct weft *alice = attach("alice", &alices), *bob = attach("bob", &bobs);
    for (uint32_t i = 100; i < 100 + POOL_BLOCKS; i++)
        put(alices, i);
    char *text = page("/metrics");
    double before = metric(text, "weft_blocks_evicted_total{domain=\"alice\",pool=\"dram0\"} ");
    free(text);
    put(bobs, 1);
    text = page("/metrics");
    assert_true(metric(text, "weft_blocks_evicted_total{domain=\"alice\",pool=\"dram0\"} ") >
                before);
    assert_true(metric(text, "weft_blocks_put_total{domain=\"bob\",pool=\"dram0\"} ") == 1);
    free(text);
    char *events = page("/v1/events");
    json_t *root = json_loads(events, 0, NULL);
    json_t *list = json_object_get(root, "events"),
           *last = json_array_get(list, json_array_size(list) - 1);
    const char *whom = NULL, *whose = NULL, *reason = NULL;
    assert_int_equal(json_unpack(last, "{s:s, s:s, s:s}", "domain", &whose, "for", &whom, "reason",
                                 &reason),
                     0);
    assert_string_equal(whose, "alice");
    assert_string_equal(whom, "bob");
    assert_string_equal(reason, "lent");
    json_decref(root);
    free(events);
    weft_format_close(alices);
    weft_format_close(bobs);
    weft_close(alice);
    weft_close(bob);
}

static void a_victim_says_how_long_it_was_idle(void **state)
{
    (void)state;
    struct weft_format *format = NULL;
    struct weft *weft = attach("alice", &format);
    for (uint32_t i = 200; i < 200 + POOL_BLOCKS; i++)
        put(format, i);
    usleep(500000);
    put(format, 300);
    char *events = page("/v1/events");
    json_t *root = json_loads(events, 0, NULL);
    json_t *list = json_object_get(root, "events");
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    json_int_t age_ms = json_integer_value(json_object_get(last, "age_ms"));
    assert_in_range(age_ms, 250, 10000); /* half a second, a tick or two less, or a slow machine */
    json_decref(root);
    free(events);
    weft_format_close(format);
    weft_close(weft);
}

static void the_socket_answers_what_http_does(void **state)
{
    (void)state;
    struct weft_format *format = NULL;
    struct weft *weft = attach("bob", &format);
    char *text = NULL, *http = page("/v1/events");
    if (weft_query(weft, "events", 0, &text) != WEFT_OK)
        fail_msg("%s", weft_last_error());
    json_t *asked = json_loads(text, 0, NULL), *served = json_loads(http, 0, NULL);
    assert_non_null(asked);
    assert_true(json_equal(asked, served)); /* this user is the node's own, who sees all */
    json_decref(asked);
    json_decref(served);
    weft_text_free(text);
    free(http);
    weft_format_close(format);
    weft_close(weft);
}

static void nonsense_is_counted(void **state)
{
    (void)state;
    struct sockaddr_un {
        sa_family_t family;
        char path[108];
    } address = {.family = AF_UNIX};
    snprintf(address.path, sizeof address.path, "%s", socket_path);
    char *text = page("/metrics");
    bool none = !strstr(text, "weft_protocol_errors_total{domain=\"\"}");
    free(text);
    assert_true(none);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    char nonsense[64] = "this is no message of weft", answer[1024];
    assert_int_equal(send(fd, nonsense, sizeof nonsense, MSG_NOSIGNAL), sizeof nonsense);
    while (recv(fd, answer, sizeof answer, 0) > 0)
        ;
    close(fd);
    text = page("/metrics");
    assert_true(metric(text, "weft_protocol_errors_total{domain=\"\"} ") == 1);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_and_events_say_what_was_done),
        cmocka_unit_test(the_room_for_another_domain_is_accounted_for),
        cmocka_unit_test(a_victim_says_how_long_it_was_idle),
        cmocka_unit_test(the_socket_answers_what_http_does),
        cmocka_unit_test(nonsense_is_counted),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
