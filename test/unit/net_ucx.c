/* SPDX-License-Identifier: Apache-2.0
 *
 * What UCX has of its own, over the transports that every machine has: net_ucx tcp|shm; or over
 * WEFT_TEST_UCX_TLS and WEFT_TEST_UCX_DEVICES (test/rdma): net_ucx rdma
 *
 * The promises of net.h are for test/conformance/net.c; here are peers that die or stop in the
 * middle of payloads, memory that is withdrawn under them, and what of the process UCX must leave
 * alone.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <signal.h>

#include "base/log.h"
#include "base/random.h"
#include "net/net.h"
#include "sys/clock.h"

#define OPERATIONS 24

static const struct wf_net_ops *const ops = &wf_net_ucx;
static uint32_t seed;
/* Verbs that a processor emulates in a processor that another emulates are slow. */
static size_t exposed = (size_t)32 << 20;
static uint32_t patience_ms = 10000, soon_ms = 8000, connect_ms = 4000, dead_ms = 2500;

struct side {
    struct wf_net *net;
    struct wf_net_link *link;
    struct wf_net_handle handle; /* what the other side's hello said */
    uint32_t ups, downs, begun, arrived, cut, sent, unsent, done, missed, failed;
    enum weft_status down_status;
    char sentence[256];
    uint8_t *memory;
};

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    struct side *side = context;
    (void)name;
    side->ups++;
    side->link = link;
    if (hello_bytes == sizeof side->handle)
        memcpy(&side->handle, hello, sizeof side->handle);
    else if (hello_bytes)
        return false;
    return true;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    struct side *side = context;
    (void)link;
    side->downs++;
    side->down_status = status;
    side->link = NULL;
    snprintf(side->sentence, sizeof side->sentence, "%s", sentence);
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *header,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    struct side *side = context;
    (void)link, (void)header, (void)header_bytes, (void)out_token;
    if (!payload_bytes)
        return 0;
    side->begun++;
    out[0] = (struct iovec){side->memory, payload_bytes};
    return 1;
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    struct side *side = context;
    (void)link, (void)token;
    if (status == WEFT_OK)
        side->arrived++;
    else
        side->cut++;
}

static struct wf_net_options options_of(struct side *side)
{
    struct wf_net_options options = {
        .security = {.proof = WF_NET_PROOF_SECRET, .secret = "a secret of tests"},
        .dead_ms = dead_ms, /* a sanitizer looks at 32 MiB in between */
        .connect_ms = connect_ms,
        .events = {side, on_up, on_down, on_begun, NULL, on_arrived},
    };
    return options;
}

static void side_open(struct side *side, const struct wf_net_options *options)
{
    if (ops->create(options, &side->net) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    side->memory = calloc(1, exposed);
    assert_non_null(side->memory);
}

static void side_close(struct side *side)
{
    ops->destroy(side->net);
    free(side->memory);
}

/* Byte i is what byte i - `period` is, and the first ones count up.  By memcmp: a sanitizer that
 * looks at each byte by itself takes longer than a link lives without a poll. */
static bool repeats(const uint8_t *at, size_t bytes, size_t period)
{
    for (size_t i = 1; i < period; i++)
        if (at[i] != at[0] + i)
            return false;
    return !memcmp(at, at + period, bytes - period);
}

/* Poll until `counter` is `target`, or as long as patience lasts. */
static void until(struct side *side, const uint32_t *counter, uint32_t target)
{
    uint64_t end = wf_now_ms() + patience_ms;
    while (*counter < target && wf_now_ms() < end)
        assert_int_equal(ops->poll(side->net, 20), WEFT_OK);
    if (*counter != target)
        fail_msg("there were %u and not %u: %s", *counter, target, side->sentence);
}

/* ----------------------------------------------------------------------------- another process */

struct other {
    pid_t pid;
    char address[WF_NET_ADDRESS_MAX];
};

static bool other_up(void *context, struct wf_net_link *link, const void *hello,
                     uint32_t hello_bytes, const char *name)
{
    struct side *side = context;
    (void)hello, (void)hello_bytes, (void)name;
    return ops->grant(link, side->handle) == WEFT_OK;
}

/* It listens, exposes memory of which byte i is i % 251, and serves whoever comes. */
static void other_run(int tell)
{
    static struct side side;
    struct wf_net_options options = options_of(&side);
    side.handle = (struct wf_net_handle){0, 1};
    options.listen = "ucx:127.0.0.1:0";
    options.hello = &side.handle;
    options.hello_bytes = sizeof side.handle;
    options.events.up = other_up;
    if (ops->create(&options, &side.net) != WEFT_OK)
        _exit(1);
    side.memory = malloc(exposed);
    for (size_t i = 0; side.memory && i < exposed; i++)
        side.memory[i] = (uint8_t)(i % 251);
    if (!side.memory || ops->expose(side.net, side.memory, exposed, WF_NET_READ | WF_NET_WRITE,
                                    &side.handle) != WEFT_OK)
        _exit(1);
    if (write(tell, ops->address(side.net), WF_NET_ADDRESS_MAX) != WF_NET_ADDRESS_MAX)
        _exit(1);
    while (ops->poll(side.net, 1000) == WEFT_OK) {}
    _exit(1);
}

static void other_start(struct other *other)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    other->pid = fork();
    assert_true(other->pid >= 0);
    if (!other->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        other_run(ends[1]);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], other->address, sizeof other->address), sizeof other->address);
    close(ends[0]);
}

static void other_end(struct other *other)
{
    kill(other->pid, SIGKILL);
    waitpid(other->pid, NULL, 0);
}

/* ---------------------------------------------------------------------------------- operations */

struct operation {
    struct side *side;
    struct wf_net_access access;
    struct wf_net_message message;
    struct iovec piece;
};

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    struct operation *operation = access->user;
    operation->side->done++;
    if (status == WEFT_MISS)
        operation->side->missed++;
    else if (status != WEFT_OK)
        operation->side->failed++;
}

static void on_sent(struct wf_net_message *message, enum weft_status status)
{
    struct operation *operation = message->user;
    operation->side->sent++;
    if (status != WEFT_OK)
        operation->side->unsent++;
}

/* A third of them each: reads, writes, messages. */
static void operations_start(struct side *side, struct operation *operations)
{
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        struct operation *o = &operations[i];
        size_t bytes = (size_t)1 << (10 + i / 3 * 2);
        bytes = bytes > exposed / 2 ? exposed / 2 : bytes;
        *o = (struct operation){.side = side, .piece = {side->memory, bytes}};
        o->access = (struct wf_net_access){.handle = side->handle,
                                           .write = i % 3 == 1,
                                           .piece_count = 1,
                                           .pieces = &o->piece,
                                           .offset = exposed / 2,
                                           .done = on_done,
                                           .user = o};
        o->message = (struct wf_net_message){.header = "payload",
                                             .header_bytes = 7,
                                             .piece_count = 1,
                                             .pieces = &o->piece,
                                             .sent = on_sent,
                                             .user = o};
        if (i % 3 == 2)
            assert_int_equal(ops->send(side->link, &o->message), WEFT_OK);
        else
            assert_int_equal(ops->access(side->link, &o->access), WEFT_OK);
    }
}

static void linked(struct side *side, struct other *other)
{
    struct wf_net_options options = options_of(side);
    struct wf_net_link *link;
    *side = (struct side){0};
    other_start(other);
    side_open(side, &options);
    assert_int_equal(ops->connect(side->net, other->address, NULL, &link), WEFT_OK);
    until(side, &side->ups, 1);
}

static void test_other_process(void **state)
{
    static struct operation operations[OPERATIONS];
    struct side side;
    struct other other;
    (void)state;
    linked(&side, &other);
    struct operation read = {.side = &side, .piece = {side.memory, exposed}};
    read.access = (struct wf_net_access){.handle = side.handle,
                                         .piece_count = 1,
                                         .pieces = &read.piece,
                                         .done = on_done,
                                         .user = &read};
    assert_int_equal(ops->access(side.link, &read.access), WEFT_OK);
    until(&side, &side.done, 1);
    assert_int_equal(side.failed + side.missed, 0);
    assert_int_equal(side.memory[0], 0);
    assert_true(repeats(side.memory, exposed, 251));
    operations_start(&side, operations);
    until(&side, &side.done, 1 + OPERATIONS / 3 * 2);
    until(&side, &side.sent, OPERATIONS / 3);
    if (side.failed + side.missed + side.unsent)
        fail_msg("%u failed, %u missed, %u were not sent: %s", side.failed, side.missed,
                 side.unsent, side.sentence);
    other_end(&other);
    side_close(&side);
}

/* Killed at any point of many transfers: everything is told, once, and soon. */
static void test_killed(void **state)
{
    static struct operation operations[OPERATIONS];
    (void)state;
    uint64_t random = seed;
    for (uint32_t round = 0; round < 8; round++) {
        struct side side;
        struct other other;
        linked(&side, &other);
        operations_start(&side, operations);
        for (int polls = (int)wf_random_below(&random, 200); polls > 0 && side.downs == 0; polls--)
            ops->poll(side.net, 0);
        uint64_t began = wf_now_ms();
        other_end(&other);
        until(&side, &side.downs, 1);
        assert_true(wf_now_ms() - began < soon_ms);
        assert_int_equal(side.done, OPERATIONS / 3 * 2);
        assert_int_equal(side.sent, OPERATIONS / 3);
        assert_true(strlen(side.sentence) > 10);
        memset(side.memory, 0x5a, exposed);
        ops->poll(side.net, 10);
        assert_int_equal(side.memory[0], 0x5a); /* nothing was written after all was over */
        assert_true(repeats(side.memory, exposed, 1));
        side_close(&side);
    }
}

/* Stopped, which no connection tells: after dead_ms it is as if it had died. */
static void test_stopped(void **state)
{
    static struct operation operations[OPERATIONS];
    struct side side;
    struct other other;
    (void)state;
    linked(&side, &other);
    kill(other.pid, SIGSTOP);
    operations_start(&side, operations);
    uint64_t began = wf_now_ms();
    until(&side, &side.downs, 1);
    assert_true(wf_now_ms() - began < soon_ms);
    assert_int_equal(side.down_status, WEFT_E_NODE);
    assert_non_null(strstr(side.sentence, "nothing was heard"));
    assert_int_equal(side.done, OPERATIONS / 3 * 2);
    assert_int_equal(side.sent, OPERATIONS / 3);
    other_end(&other);
    side_close(&side);
}

#define MOVED ((size_t)1 << 20)

static void moved(struct side *side, bool write, uint8_t *at)
{
    struct operation one = {.side = side, .piece = {at, MOVED}};
    one.access = (struct wf_net_access){.handle = side->handle,
                                        .write = write,
                                        .piece_count = 1,
                                        .pieces = &one.piece,
                                        .done = on_done,
                                        .user = &one};
    side->done = side->failed = side->missed = 0;
    assert_int_equal(ops->access(side->link, &one.access), WEFT_OK);
    until(side, &side->done, 1);
    if (side->failed + side->missed)
        fail_msg("what was %s failed: %s", write ? "written" : "read", side->sentence);
}

/* All of it is `value`; a poll every MiB, since whoever is not heard of for dead_ms is dead. */
static void all_is(struct side *side, uint8_t value)
{
    for (size_t at = 0; at < exposed; at += MOVED) {
        assert_int_equal(side->memory[at], value);
        assert_true(repeats(side->memory + at, MOVED, 1));
        ops->poll(side->net, 0);
    }
}

/* Stopped at any point, and given up, and then it goes on: what is left of the old link, on either
 * side, ends without harm, while a new one is made and used. */
static void test_resumed(void **state)
{
    static struct operation operations[OPERATIONS];
    struct side side;
    struct other other;
    struct wf_net_link *link;
    (void)state;
    uint64_t random = seed;
    if (exposed < 4 * MOVED)
        skip(); /* over emulated verbs it has not been tried */
    linked(&side, &other);
    for (uint32_t round = 1; round <= 4; round++) {
        side.done = side.sent = 0;
        operations_start(&side, operations);
        for (int polls = (int)wf_random_below(&random, 60); polls >= 0; polls--)
            ops->poll(side.net, 0);
        kill(other.pid, SIGSTOP);
        for (int polls = (int)wf_random_below(&random, 20); polls >= 0; polls--)
            ops->poll(side.net, 0);
        ops->close(side.link);
        until(&side, &side.downs, round);
        assert_int_equal(side.done, OPERATIONS / 3 * 2);
        assert_int_equal(side.sent, OPERATIONS / 3);
        memset(side.memory, 0x5a, exposed);
        kill(other.pid, SIGCONT);
        assert_int_equal(ops->connect(side.net, other.address, NULL, &link), WEFT_OK);
        until(&side, &side.ups, round + 1);
        all_is(&side, 0x5a); /* nothing was written after all was over */
        for (uint32_t i = 0; i < 8; i++) {
            memset(side.memory, (int)(round * 8 + i), MOVED);
            moved(&side, true, side.memory);
            moved(&side, false, side.memory + MOVED);
            assert_memory_equal(side.memory, side.memory + MOVED, MOVED);
        }
    }
    other_end(&other);
    side_close(&side);
}

/* How long a link may take to come up counts from its beginning, and not from the last poll. */
static void test_connected_late(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    struct side side = {0};
    struct wf_net_options options = options_of(&side);
    struct wf_net_link *link;
    char address[WF_NET_ADDRESS_MAX];
    (void)state;
    options.connect_ms = 300;
    side_open(&side, &options);
    int silent = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(silent, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(silent, 1), 0);
    assert_int_equal(getsockname(silent, (struct sockaddr *)&at, &bytes), 0);
    snprintf(address, sizeof address, "ucx:127.0.0.1:%u", ntohs(at.sin_port));
    ops->poll(side.net, 0);
    for (uint64_t end = wf_now_ms() + 350; wf_now_ms() < end;)
        usleep(1000);
    uint64_t began = wf_now_ms();
    assert_int_equal(ops->connect(side.net, address, NULL, &link), WEFT_OK);
    until(&side, &side.downs, 1);
    assert_non_null(strstr(side.sentence, "did not answer in 300 ms"));
    assert_true(wf_now_ms() - began >= 300);
    close(silent);
    side_close(&side);
}

/* What is left of a link when the net goes: its callbacks, but no `down`. */
static void test_destroyed(void **state)
{
    static struct operation operations[OPERATIONS];
    struct side side;
    struct other other;
    (void)state;
    linked(&side, &other);
    operations_start(&side, operations);
    ops->poll(side.net, 0);
    side_close(&side);
    assert_int_equal(side.done, OPERATIONS / 3 * 2);
    assert_int_equal(side.sent, OPERATIONS / 3);
    assert_int_equal(side.downs, 0);
    other_end(&other);
}

/* ---------------------------------------------------------------------------- two in a process */

struct pair {
    struct side a, b; /* b listens and has exposed its memory */
};

static void pair_poll(struct pair *pair)
{
    ops->poll(pair->a.net, 0);
    ops->poll(pair->b.net, 0);
}

static void pair_until(struct pair *pair, const uint32_t *counter, uint32_t target)
{
    uint64_t end = wf_now_ms() + patience_ms;
    while (*counter < target && wf_now_ms() < end)
        pair_poll(pair);
    assert_int_equal(*counter, target);
}

static void pair_open(struct pair *pair)
{
    struct wf_net_options options = options_of(&pair->a);
    struct wf_net_link *link;
    memset(pair, 0, sizeof *pair);
    side_open(&pair->a, &options);
    options = options_of(&pair->b);
    options.listen = "ucx:127.0.0.1:0";
    side_open(&pair->b, &options);
    assert_int_equal(ops->connect(pair->a.net, ops->address(pair->b.net), NULL, &link), WEFT_OK);
    pair_until(pair, &pair->a.ups, 1);
    pair_until(pair, &pair->b.ups, 1);
    assert_int_equal(ops->expose(pair->b.net, pair->b.memory, exposed, WF_NET_READ | WF_NET_WRITE,
                                 &pair->a.handle),
                     WEFT_OK);
    assert_int_equal(ops->grant(pair->b.link, pair->a.handle), WEFT_OK);
}

static void pair_close(struct pair *pair)
{
    side_close(&pair->a);
    side_close(&pair->b);
}

/* Memory is withdrawn while it is read and written, and its owner writes into it at once: nothing
 * of that is seen by a read that went well, and no write touches it any more. */
static void test_withdrawn(void **state)
{
    static struct operation operations[OPERATIONS];
    struct pair pair;
    (void)state;
    uint64_t random = seed;
    for (uint32_t round = 0; round < 12; round++) {
        pair_open(&pair);
        operations_start(&pair.a, operations);
        for (int polls = (int)wf_random_below(&random, 60); polls > 0; polls--)
            pair_poll(&pair);
        uint64_t began = wf_now_ms();
        ops->withdraw(pair.b.net, pair.a.handle);
        assert_true(wf_now_ms() - began < soon_ms);
        memset(pair.b.memory, 0x5a, exposed);
        memset(pair.b.memory, 0, exposed / 2); /* messages arrive there */
        pair_until(&pair, &pair.a.done, OPERATIONS / 3 * 2);
        assert_int_equal(pair.b.memory[exposed / 2], 0x5a); /* nothing was after the withdrawal */
        assert_true(repeats(pair.b.memory + exposed / 2, exposed / 2, 1));
        pair_close(&pair);
    }
}

/* Each begins a link to the other at once; when one of the two ends, the other goes on. */
static void test_crossed(void **state)
{
    static struct operation operations[OPERATIONS];
    struct pair pair = {0};
    struct wf_net_link *ab, *ba;
    (void)state;
    struct wf_net_options options = options_of(&pair.a);
    options.listen = "ucx:127.0.0.1:0";
    side_open(&pair.a, &options);
    options = options_of(&pair.b);
    options.listen = "ucx:127.0.0.1:0";
    side_open(&pair.b, &options);
    assert_int_equal(ops->connect(pair.a.net, ops->address(pair.b.net), NULL, &ab), WEFT_OK);
    assert_int_equal(ops->connect(pair.b.net, ops->address(pair.a.net), NULL, &ba), WEFT_OK);
    pair_until(&pair, &pair.a.ups, 2);
    pair_until(&pair, &pair.b.ups, 2);
    ops->close(ab);
    pair_until(&pair, &pair.a.downs, 1);
    pair_until(&pair, &pair.b.downs, 1);
    pair.b.link = ba;
    pair.b.handle = (struct wf_net_handle){0, 1}; /* none: they miss, by an answer */
    operations_start(&pair.b, operations);
    pair_until(&pair, &pair.b.done, OPERATIONS / 3 * 2);
    pair_until(&pair, &pair.b.sent, OPERATIONS / 3);
    for (int i = 0; i < 1000; i++)
        pair_poll(&pair);
    if (pair.a.downs + pair.b.downs != 2)
        fail_msg("the other link went too: %s; %s", pair.a.sentence, pair.b.sentence);
    assert_int_equal(pair.b.missed, OPERATIONS / 3 * 2);
    assert_int_equal(pair.b.unsent, 0);
    pair_close(&pair);
}

static void test_refused(void **state)
{
    struct pair pair = {0};
    struct wf_net_options options = options_of(&pair.a);
    struct wf_net_link *link;
    (void)state;
    options.security.proof = WF_NET_PROOF_TLS_SECRET;
    assert_int_equal(ops->create(&options, &pair.a.net), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "UCX encrypts nothing"));
    options = options_of(&pair.a);
    options.security.secret[0] ^= 1;
    side_open(&pair.a, &options);
    options = options_of(&pair.b);
    options.listen = "ucx:127.0.0.1:0";
    side_open(&pair.b, &options);
    assert_int_equal(ops->connect(pair.a.net, "tcp:127.0.0.1:1", NULL, &link), WEFT_E_INVALID);
    assert_int_equal(ops->connect(pair.a.net, ops->address(pair.b.net), NULL, &link), WEFT_OK);
    pair_until(&pair, &pair.a.downs, 1);
    assert_int_equal(pair.a.down_status, WEFT_E_DENIED);
    assert_int_equal(pair.a.ups + pair.b.ups + pair.b.downs, 0);
    struct wf_net_stats stats;
    ops->stats(pair.b.net, &stats);
    assert_int_equal(stats.refused, 1);
    pair_close(&pair);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_process), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_stopped),       cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_destroyed),     cmocka_unit_test(test_connected_late),
        cmocka_unit_test(test_withdrawn),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_crossed),
    };
    struct side side = {0};
    struct wf_net_options options = options_of(&side);
    const char *from = getenv("NET_UCX_SEED");
    seed = from ? (uint32_t)strtoul(from, NULL, 10) : 20261122u;
    printf("# NET_UCX_SEED=%u\n", seed);
    fflush(stdout);
    if (getenv("WEFT_TEST_LOG"))
        wf_log_level_set(WF_LOG_DEBUG);
    const char *which = argc > 1 ? argv[1] : "tcp", *named = getenv("WEFT_TEST_UCX_TLS"),
               *devices = getenv("WEFT_TEST_UCX_DEVICES");
    bool rdma = !strcmp(which, "rdma") && named && devices;
    if (rdma) {
        exposed = (size_t)2 << 20;
        patience_ms = 60000;
        soon_ms = connect_ms = 30000;
        dead_ms = 12000; /* one call of UCX may take seconds there */
    }
    setenv("UCX_TLS", rdma ? named : strcmp(which, "shm") ? "tcp,self" : "posix,sysv,cma,self", 1);
    setenv("UCX_NET_DEVICES", rdma ? devices : "lo", 1);
    pid_t pid = fork();
    if (pid == 0) {
        /* Not in this process: what is forked from one that has UCX has half of it. */
        static const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
        struct sigaction before[4], after;
        for (size_t i = 0; i < 4; i++)
            sigaction(signals[i], NULL, &before[i]);
        bool works = ops->create(&options, &side.net) == WEFT_OK, kept = true;
        for (size_t i = 0; i < 4; i++) {
            sigaction(signals[i], NULL, &after);
            kept = kept && after.sa_sigaction == before[i].sa_sigaction;
        }
        if (!works)
            printf("# %s\n", wf_last_error());
        fflush(stdout);
        _exit(!kept ? 1 : works ? 0 : 77);
    }
    int status;
    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) == 1) {
        printf("1..1\nnot ok 1 - loading UCX leaves the handlers of signals to whoever set them\n");
        return 1;
    }
    if (WEXITSTATUS(status) != 0) {
        printf("1..0 # SKIP UCX does not work here, so its transport was not tried\n");
        return 77;
    }
    return cmocka_run_group_tests_name(which, tests, NULL, NULL);
}
