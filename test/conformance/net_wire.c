/* SPDX-License-Identifier: Apache-2.0
 *
 * What strangers and bad wires do: bytes that are no net's, proofs that are none, connections that
 * say nothing, that stop, that change bits, that break, that carry hardly anything, that take
 * nothing.
 *
 * A proxy between two nodes, in the same thread, carries their bytes until it is told otherwise.
 */
#include "net_world.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/address.h"
#include "net/hello.h"

#define OPS(world) ((world)->backend->ops)
#define WIRES 64

struct wire {
    int ends[2]; /* 0: who connected, 1: where it goes; -1: closed */
    uint8_t bytes[2][65536];
    size_t count[2], at[2]; /* from that end, not yet at the other */
};

struct proxy {
    struct wf_net_address to;
    int listener;
    char address[WF_NET_ADDRESS_MAX];
    struct wire wires[WIRES];
    uint32_t wire_count;
    bool stopped;     /* nothing is carried */
    bool deaf;        /* … of who connected */
    uint64_t drip_ms; /* of who connected a byte is carried, then; 0: as much as there is */
    uint64_t carried; /* bytes, both ways, from when `counts` */
    bool counts;
    uint64_t flip_at; /* a bit of that byte is another */
    uint64_t cut_at;  /* … and there all is closed */
    uint8_t flip;
};

static int socket_to(const struct wf_net_address *address)
{
    int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address->socket, address->length), 0);
    return fd;
}

static void nonblocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

static void wire_close(struct wire *wire)
{
    for (int i = 0; i < 2; i++) {
        if (wire->ends[i] >= 0)
            close(wire->ends[i]);
        wire->ends[i] = -1;
    }
}

static void carry(struct proxy *proxy, struct wire *wire, int from)
{
    int in = wire->ends[from], out = wire->ends[!from];
    if (in < 0 || out < 0 || (from == 0 && proxy->deaf))
        return;
    if (from == 0 && proxy->drip_ms && world_now_ms() < proxy->drip_ms)
        return;
    if (!wire->count[from]) {
        ssize_t got = recv(in, wire->bytes[from], sizeof wire->bytes[from], 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) {
            wire_close(wire);
            return;
        }
        wire->count[from] = got > 0 ? (size_t)got : 0;
        wire->at[from] = 0;
        if (proxy->counts && got > 0) {
            if (proxy->flip_at >= proxy->carried && proxy->flip_at < proxy->carried + (uint64_t)got)
                wire->bytes[from][proxy->flip_at - proxy->carried] ^= proxy->flip;
            proxy->carried += (uint64_t)got;
            if (proxy->cut_at && proxy->carried >= proxy->cut_at)
                for (uint32_t i = 0; i < proxy->wire_count; i++)
                    wire_close(&proxy->wires[i]);
        }
    }
    while (wire->count[from] && wire->ends[!from] >= 0) {
        bool drips = from == 0 && proxy->drip_ms;
        ssize_t gone = send(out, wire->bytes[from] + wire->at[from], drips ? 1 : wire->count[from],
                            MSG_NOSIGNAL);
        if (gone < 0 && errno != EAGAIN)
            wire_close(wire);
        if (gone <= 0)
            break;
        wire->at[from] += (size_t)gone;
        wire->count[from] -= (size_t)gone;
        if (drips) {
            proxy->drip_ms = world_now_ms() + 5;
            break;
        }
    }
}

static void proxy_step(struct world *world)
{
    struct proxy *proxy = world->each_context;
    int fd;
    if (proxy->stopped)
        return;
    while ((fd = accept4(proxy->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        assert_true(proxy->wire_count < WIRES);
        struct wire *wire = &proxy->wires[proxy->wire_count++];
        wire->ends[0] = fd;
        wire->ends[1] = socket_to(&proxy->to);
        nonblocking(wire->ends[1]);
    }
    for (uint32_t i = 0; i < proxy->wire_count; i++)
        for (int from = 0; from < 2; from++)
            carry(proxy, &proxy->wires[i], from);
}

static struct proxy *proxy_begin(struct world *world, struct node *to)
{
    struct proxy *proxy = calloc(1, sizeof *proxy);
    struct wf_net_address at;
    struct sockaddr_storage got = {0};
    socklen_t length = sizeof got;
    assert_non_null(proxy);
    proxy->flip_at = UINT64_MAX;
    assert_int_equal(wf_net_address_parse(OPS(world)->address(to->net), &proxy->to), WEFT_OK);
    at = proxy->to;
    if (at.scheme == WF_NET_SCHEME_UNIX) {
        char path[64];
        snprintf(path, sizeof path, "unix:/tmp/weft-net-proxy-%d", getpid());
        assert_int_equal(wf_net_address_parse(path, &at), WEFT_OK);
        unlink(at.name);
    } else {
        assert_int_equal(wf_net_address_parse("tcp:127.0.0.1:0", &at), WEFT_OK);
    }
    proxy->listener = socket(at.socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(proxy->listener, (struct sockaddr *)&at.socket, at.length), 0);
    assert_int_equal(listen(proxy->listener, 64), 0);
    assert_int_equal(getsockname(proxy->listener, (struct sockaddr *)&got, &length), 0);
    wf_net_address_format(at.scheme, &got, length, proxy->address);
    world->each = proxy_step;
    world->each_context = proxy;
    return proxy;
}

static void proxy_end(struct world *world)
{
    struct proxy *proxy = world->each_context;
    for (uint32_t i = 0; i < proxy->wire_count; i++)
        wire_close(&proxy->wires[i]);
    close(proxy->listener);
    if (!strncmp(proxy->address, "unix:", 5))
        unlink(proxy->address + 5);
    free(proxy);
    world->each = NULL;
}

static void meet_through(struct world *world, struct proxy *proxy, struct node *a, struct node *b,
                         struct end **out_a, struct end **out_b)
{
    uint32_t before = b->end_count;
    (void)world;
    *out_a = world_connect(a, proxy->address);
    UNTIL(world, (*out_a)->down || ((*out_a)->up && b->end_count > before));
    if ((*out_a)->down)
        fail_msg("it did not come up: %s", (*out_a)->sentence);
    *out_b = &b->ends[before];
}

/* --------------------------------------------------------------------------------- bad wires */

static void soon(struct wf_net_options *options)
{
    options->dead_ms = 2500; /* a slow machine says nothing for long */
}

/* The wire carries nothing any more, and nobody closes it. */
static void test_silence(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, soon), *b = world_node(world, soon);
    struct proxy *proxy = proxy_begin(world, b);
    struct end *ab, *ba;
    meet_through(world, proxy, a, b, &ab, &ba);
    assert_int_equal(world_send_sized(ab, 0, 100, 4 << 20, 3), WEFT_OK);
    UNTIL(world, ba->begun);
    proxy->stopped = true;
    assert_int_equal(world_send_sized(ba, 0, 100, 100, 1), WEFT_OK);
    UNTIL(world, ab->down && ba->down);
    assert_int_equal(ab->status, WEFT_E_NODE);
    assert_int_equal(ba->status, WEFT_E_NODE);
    assert_int_equal(world->out, 0);
    proxy_end(world);
}

/* A machine that says nothing for longer ends the link, too, and that is all that is asked. */
static void at_once(struct wf_net_options *options)
{
    options->dead_ms = 800;
}

static void patient(struct wf_net_options *options)
{
    options->dead_ms = 4 * PATIENCE_MS;
}

/* What has begun comes a byte at a time, so there is no silence: the memory that it is to go to is
 * not waited for as long as the other side likes. */
static void test_drips(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, patient), *b = world_node(world, at_once);
    struct proxy *proxy = proxy_begin(world, b);
    struct end *ab, *ba;
    meet_through(world, proxy, a, b, &ab, &ba);
    assert_int_equal(world_send_sized(ab, 0, 100, 4 << 20, 3), WEFT_OK);
    UNTIL(world, ba->begun);
    proxy->drip_ms = 1;
    UNTIL(world, ba->down);
    assert_int_equal(ba->status, WEFT_E_NODE);
    assert_int_equal(ba->failed, 1);
    UNTIL(world, ab->down);
    assert_int_equal(world->out, 0);
    proxy_end(world);
}

/* The other side talks and takes nothing: what is to be sent there is not kept for it for ever. */
static void test_deaf(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, at_once), *b = world_node(world, patient);
    struct proxy *proxy = proxy_begin(world, b);
    struct end *ab, *ba;
    meet_through(world, proxy, a, b, &ab, &ba);
    proxy->deaf = true;
    for (uint64_t number = 0; number < 8; number++)
        assert_int_equal(world_send_sized(ab, number, 100, 4 << 20, 3), WEFT_OK);
    UNTIL(world, ab->down);
    assert_int_equal(ab->status, WEFT_E_NODE);
    assert_int_equal(world->out, 0);
    proxy->deaf = false;
    UNTIL(world, ba->down);
    proxy_end(world);
}

/* It breaks at some byte of many messages: what had begun has not arrived, and both know. */
static void test_broken(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    for (int round = 0; round < 8; round++) {
        struct proxy *proxy = proxy_begin(world, b);
        struct end *ab, *ba;
        meet_through(world, proxy, a, b, &ab, &ba);
        proxy->counts = true;
        proxy->cut_at = 1 + random_below(&world->random, 6 << 20);
        for (uint64_t number = 0; number < 8; number++)
            assert_int_equal(world_send_sized(ab, number, 3000, 1 << 20, 5), WEFT_OK);
        UNTIL(world, ab->down && ba->down);
        assert_int_equal(world->out, 0);
        assert_int_equal(ba->arrived + ba->failed, ba->begun);
        proxy_end(world);
    }
}

/* A bit changes on the way: in a header it ends the link, under TLS anywhere.  Nothing else may
 * happen, whatever it is a bit of. */
static void test_changed(void **state)
{
    struct world *world = *state;
    struct node *a = world_node(world, soon), *b = world_node(world, soon);
    uint32_t ended = 0;
    for (int round = 0; round < 24; round++) {
        struct proxy *proxy = proxy_begin(world, b);
        struct end *ab, *ba;
        meet_through(world, proxy, a, b, &ab, &ba);
        world_settle(world);
        proxy->counts = true;
        proxy->flip_at = random_below(&world->random, 4000);
        proxy->flip = (uint8_t)(1 << random_below(&world->random, 8));
        /* All of it is frames and headers. */
        for (uint64_t number = 0; number < 20 && ab->link; number++)
            if (world_send_sized(ab, number, 300, 0, 0) < 0)
                break;
        UNTIL(world, (ab->down && ba->down) || ba->arrived == 20);
        ended += ab->down;
        if (ab->link)
            OPS(world)->close(ab->link);
        UNTIL(world, ab->down && ba->down);
        proxy_end(world);
    }
    assert_int_equal(ended, 24);
}

/* ---------------------------------------------------------------------------------- strangers */

static void hurried(struct wf_net_options *options)
{
    options->connect_ms = 300;
}

static int stranger_to(struct world *world, struct node *node)
{
    struct wf_net_address address;
    assert_int_equal(wf_net_address_parse(OPS(world)->address(node->net), &address), WEFT_OK);
    int fd = socket_to(&address);
    nonblocking(fd);
    return fd;
}

/* Whether the other side has closed it; what it said goes to `heard`. */
static bool closed(int fd, uint8_t *heard, size_t *count)
{
    uint8_t bytes[4096];
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got > 0 && heard && *count + (size_t)got <= 16384) {
        memcpy(heard + *count, bytes, (size_t)got);
        *count += (size_t)got;
    }
    return got == 0 || (got < 0 && errno != EAGAIN);
}

static void test_garbage(void **state)
{
    struct world *world = *state;
    struct node *b = world_node(world, hurried);
    struct wf_net_stats stats;
    for (int round = 0; round < 60; round++) {
        uint8_t bytes[2000];
        int fd = stranger_to(world, b);
        size_t count = 1 + random_below(&world->random, sizeof bytes);
        for (size_t i = 0; i < count; i++)
            bytes[i] = (uint8_t)random_next(&world->random);
        if (round % 3 == 0 && count > 16) /* further in */
            memcpy(bytes, "weft-net\x01\x00\x01\x00\x60\x00\x00\x00", 16);
        if (round % 3 == 1 && count > 5)
            memcpy(bytes, "\x16\x03\x01\x01\x00", 5);
        assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), count);
        UNTIL(world, closed(fd, NULL, NULL));
        close(fd);
    }
    OPS(world)->stats(b->net, &stats);
    assert_int_equal(stats.refused, 60);
    assert_int_equal(b->ups, 0);
}

/* A byte now and then is not a handshake; and who says nothing at all is shown out, too. */
static void test_slow(void **state)
{
    struct world *world = *state;
    struct node *b = world_node(world, hurried);
    int slow = stranger_to(world, b), mute = stranger_to(world, b);
    uint64_t began = world_now_ms(), next = 0;
    bool slow_closed = false, mute_closed = false;
    while (!slow_closed || !mute_closed) {
        if (world_now_ms() >= next && !slow_closed) {
            (void)!send(slow, "w", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            next = world_now_ms() + 40;
        }
        slow_closed |= closed(slow, NULL, NULL);
        mute_closed |= closed(mute, NULL, NULL);
        world_step(world);
        if (world_now_ms() - began > PATIENCE_MS)
            fail_msg("they were still there");
    }
    close(slow);
    close(mute);
}

/* More of them than may be: the one that can prove itself comes in. */
static void test_flood(void **state)
{
    static int fds[400];
    struct world *world = *state;
    struct node *a = world_node(world, NULL), *b = world_node(world, NULL);
    struct end *ab, *ba;
    for (int i = 0; i < 400; i++) {
        fds[i] = stranger_to(world, b);
        if (i % 16 == 0)
            world_step(world);
    }
    world_meet(a, b, &ab, &ba);
    for (int i = 0; i < 400; i++)
        close(fds[i]);
}

/* Both sides are to know why. */
static void test_versions(void **state)
{
    struct world *world = *state;
    struct node *b = world_node(world, NULL);
    uint8_t heard[16384];
    size_t count = 0;
    if (!world->backend->clear)
        skip();
    uint8_t greeting[WF_NET_GREETING_BYTES] = "weft-net\x07\x00\x09\x00\x58\x00\x00\x00\x01";
    int fd = stranger_to(world, b);
    assert_int_equal(send(fd, greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
    UNTIL(world, closed(fd, heard, &count));
    assert_true(count >= 16);
    assert_memory_equal(heard, "weft-net\x01\x00\x01\x00", 12);
    close(fd);
}

static void wrong(struct wf_net_options *options)
{
    options->security.secret[7] ^= 1;
    if (options->security.proof == WF_NET_PROOF_TLS)
        options->security.ca = pki_stranger();
    options->connect_ms = 3000;
}

static void unproven(struct wf_net_options *options)
{
    options->security.proof = WF_NET_PROOF_NONE;
    options->connect_ms = 1000;
}

/* Nobody is up with one who proves another thing, or nothing, whoever connects. */
static void test_proofs(void **state)
{
    struct world *world = *state;
    if (!world->backend->proves)
        skip();
    struct node *good = world_node(world, soon), *bad = world_node(world, wrong),
                *none = world_node(world, unproven);
    struct node *pairs[4][2] = {{bad, good}, {good, bad}, {none, good}, {good, none}};
    for (int i = 0; i < 4; i++) {
        struct end *end = world_connect(pairs[i][0], OPS(world)->address(pairs[i][1]->net));
        UNTIL(world, end->down);
        assert_false(end->up);
        assert_true(end->status < 0);
    }
    assert_int_equal(good->ups + bad->ups + none->ups, 0);
}

#define TEST(name)  \
    {               \
#name, name \
    }
static const struct {
    const char *name;
    CMUnitTestFunction run;
} tests[] = {
    TEST(test_silence), TEST(test_drips), TEST(test_deaf),  TEST(test_broken),   TEST(test_changed),
    TEST(test_garbage), TEST(test_slow),  TEST(test_flood), TEST(test_versions), TEST(test_proofs),
};

size_t net_wire_tests(const struct backend *backend, struct CMUnitTest *out, char (*names)[80])
{
    size_t count = backend->wire ? sizeof tests / sizeof tests[0] : 0;
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "%s: %s", backend->name,
                 tests[i].name + strlen("test_"));
        out[i] = (struct CMUnitTest){names[i], tests[i].run, world_setup, world_teardown,
                                     (void *)backend};
    }
    return count;
}
