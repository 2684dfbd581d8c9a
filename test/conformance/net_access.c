/* SPDX-License-Identifier: Apache-2.0
 *
 * One-sided access: what may be reached is reached, what may not is not, and what was withdrawn is
 * left alone from that moment on.
 */
#include "net_world.h"

#include <stdio.h>

#define OPS(world) ((world)->backend->ops)
#define REGION ((size_t)1 << 20)
#define SHARE ((size_t)1 << 20)
#define SHARES 8
#define LARGE (SHARES * SHARE)

struct probe {
    struct wf_net_access access;
    struct iovec pieces[WF_NET_PIECES_MAX];
    uint32_t done;
    enum weft_status status;
    uint8_t *memory;
    uint64_t bytes;
};

static uint32_t probes_out;

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    struct probe *probe = access->user;
    assert_int_equal(probe->done, 0);
    probe->done = 1;
    probe->status = status;
    probes_out--;
}

static enum weft_status ask(struct end *end, struct probe *probe, struct wf_net_handle handle,
                            bool write, uint64_t offset, uint32_t pieces)
{
    uint64_t left = probe->bytes, at = 0;
    for (uint32_t i = 0; i < pieces; i++) {
        uint64_t some = i + 1 == pieces ? left : left / (pieces - i) * (i % 3) / 2;
        probe->pieces[i] = (struct iovec){probe->memory + at, some};
        at += some;
        left -= some;
    }
    probe->done = 0;
    probe->access = (struct wf_net_access){.handle = handle,
                                           .write = write,
                                           .piece_count = pieces,
                                           .pieces = probe->pieces,
                                           .offset = offset,
                                           .done = on_done,
                                           .user = probe};
    enum weft_status status = OPS(end->node->world)->access(end->link, &probe->access);
    probes_out += status == WEFT_OK;
    return status;
}

static enum weft_status asked(struct end *end, struct probe *probe, struct wf_net_handle handle,
                              bool write, uint64_t offset, uint32_t pieces)
{
    assert_int_equal(ask(end, probe, handle, write, offset, pieces), WEFT_OK);
    UNTIL(end->node->world, probe->done);
    return probe->status;
}

static void fill(uint8_t *memory, size_t bytes, uint32_t salt)
{
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)((i * 2654435761u + salt) >> 13);
}

static uint8_t *memory_of(size_t bytes, uint32_t salt)
{
    uint8_t *memory = malloc(bytes);
    assert_non_null(memory);
    fill(memory, bytes, salt);
    return memory;
}

struct pair {
    struct node *a, *b;
    struct end *ab, *ba;
    uint8_t *region; /* b's */
    size_t bytes;
    struct wf_net_handle handle;
};

static struct pair pair_make(struct world *world, size_t bytes, enum wf_net_rights rights,
                             void (*change)(struct wf_net_options *))
{
    struct pair pair = {.a = world_node(world, change), .b = world_node(world, change)};
    world_meet(pair.a, pair.b, &pair.ab, &pair.ba);
    probes_out = 0;
    pair.bytes = bytes;
    pair.region = memory_of(bytes, 1);
    OPS(world)->memory(pair.b->net, pair.region, bytes);
    assert_int_equal(OPS(world)->expose(pair.b->net, pair.region, bytes, rights, &pair.handle),
                     WEFT_OK);
    assert_int_equal(OPS(world)->grant(pair.ba->link, pair.handle), WEFT_OK);
    return pair;
}

static void pair_end(struct world *world, struct pair *pair)
{
    OPS(world)->withdraw(pair->b->net, pair->handle);
    OPS(world)->destroy(pair->b->net);
    pair->b->net = NULL;
    free(pair->region);
}

static void test_read_write(void **state)
{
    static const uint64_t sizes[] = {1, 7, 4096, 65536, 262144, REGION - 1, REGION};
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ | WF_NET_WRITE, NULL);
    struct probe probe = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t offset = random_below(&world->random, (uint32_t)(REGION - sizes[i] + 1));
        uint32_t pieces = 1 + random_below(&world->random, WF_NET_PIECES_MAX);
        probe.bytes = sizes[i];
        probe.memory = memory_of(sizes[i], 99);
        assert_int_equal(asked(pair.ab, &probe, pair.handle, false, offset, pieces), WEFT_OK);
        assert_memory_equal(probe.memory, pair.region + offset, sizes[i]);
        fill(probe.memory, sizes[i], (uint32_t)i + 1000);
        assert_int_equal(asked(pair.ab, &probe, pair.handle, true, offset, pieces), WEFT_OK);
        assert_memory_equal(probe.memory, pair.region + offset, sizes[i]);
        free(probe.memory);
    }
    pair_end(world, &pair);
}

/* Every way of asking for what is not one's own: MISS, and no byte moves on either side. */
static void test_misses(void **state)
{
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ, NULL);
    struct node *c = world_node(world, NULL);
    struct end *cb, *bc;
    struct wf_net_handle own, write_only, stale = pair.handle, none = pair.handle;
    uint8_t *other = memory_of(5000, 3), *before = memory_of(5000, 3),
            *region = memory_of(REGION, 1);
    struct probe probe = {.memory = memory_of(1000, 7), .bytes = 1000};
    world_meet(c, pair.b, &cb, &bc);
    assert_int_equal(OPS(world)->expose(pair.b->net, other, 5000, WF_NET_READ | WF_NET_WRITE, &own),
                     WEFT_OK);
    assert_int_equal(OPS(world)->expose(pair.b->net, other, 5000, WF_NET_WRITE, &write_only),
                     WEFT_OK);
    assert_int_equal(OPS(world)->grant(bc->link, own), WEFT_OK);
    assert_int_equal(OPS(world)->grant(pair.ba->link, write_only), WEFT_OK);
    stale.generation++;
    none.number += 100000;
    const struct {
        struct wf_net_handle handle;
        bool write;
        uint64_t offset;
    } asks[] = {
        {own, false, 0}, /* granted to another link */
        {own, true, 0},
        {write_only, false, 0}, /* rights */
        {pair.handle, true, 0},
        {pair.handle, false, REGION - 999}, /* a byte too far */
        {pair.handle, false, REGION},
        {pair.handle, false, UINT64_MAX}, /* so far that it wraps */
        {pair.handle, false, UINT64_MAX - 999},
        {stale, false, 0},
        {none, false, 0},
        {none, true, 0},
    };
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        enum weft_status status = asked(pair.ab, &probe, asks[i].handle, asks[i].write,
                                        asks[i].offset, 3);
        if (status != WEFT_MISS)
            fail_msg("ask %zu: %d", i, status);
        uint8_t *as_was = memory_of(1000, 7);
        assert_memory_equal(probe.memory, as_was, 1000);
        free(as_was);
    }
    assert_memory_equal(other, before, 5000);
    assert_memory_equal(pair.region, region, REGION);
    /* The last byte is still in it; and the link lives. */
    assert_int_equal(asked(pair.ab, &probe, pair.handle, false, REGION - 1000, 3), WEFT_OK);
    assert_int_equal(asked(cb, &probe, own, false, 0, 1), WEFT_OK);
    free(probe.memory);
    free(before);
    free(region);
    OPS(world)->withdraw(pair.b->net, own);
    OPS(world)->withdraw(pair.b->net, write_only);
    pair_end(world, &pair);
    free(other);
}

/* A number that is used again is another handle; and a link that comes again has no rights. */
static void test_generations(void **state)
{
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ, NULL);
    struct probe probe = {.memory = memory_of(1000, 7), .bytes = 1000};
    struct wf_net_handle old = pair.handle, kept[64];
    OPS(world)->withdraw(pair.b->net, old);
    assert_int_equal(asked(pair.ab, &probe, old, false, 0, 1), WEFT_MISS);
    assert_int_equal(OPS(world)->grant(pair.ba->link, old), WEFT_E_INVALID);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 64; i++) {
            assert_int_equal(OPS(world)->expose(pair.b->net, pair.region, REGION, WF_NET_READ,
                                                &kept[i]),
                             WEFT_OK);
            assert_false(kept[i].number == old.number && kept[i].generation == old.generation);
            assert_int_equal(OPS(world)->grant(pair.ba->link, kept[i]), WEFT_OK);
        }
        assert_int_equal(asked(pair.ab, &probe, old, false, 0, 1), WEFT_MISS);
        for (int i = 0; i < 64; i++)
            OPS(world)->withdraw(pair.b->net, kept[i]);
    }
    assert_int_equal(OPS(world)->expose(pair.b->net, pair.region, REGION, WF_NET_READ,
                                        &pair.handle),
                     WEFT_OK);
    assert_int_equal(OPS(world)->grant(pair.ba->link, pair.handle), WEFT_OK);
    assert_int_equal(asked(pair.ab, &probe, pair.handle, false, 0, 1), WEFT_OK);
    OPS(world)->close(pair.ab->link);
    UNTIL(world, pair.ab->down && pair.ba->down);
    world_meet(pair.a, pair.b, &pair.ab, &pair.ba);
    assert_int_equal(asked(pair.ab, &probe, pair.handle, false, 0, 1), WEFT_MISS);
    free(probe.memory);
    pair_end(world, &pair);
}

/* While it is being read: what is answered with OK was all read before, and nothing is read after,
 * when the owner has it for something else. */
/* A transport whose devices do not let go of memory while the other side does not go on ends that
 * link, so that nobody uses the memory; here both sides are one thread, and the other cannot. */
static bool may_cut(const struct world *world)
{
    return strcmp(OPS(world)->name, "ucx") == 0;
}

static bool was_cut(const struct pair *pair)
{
    return pair->ab->down || pair->ba->down;
}

static void test_withdraw_reads(void **state)
{
    struct world *world = *state;
    for (int round = 0; round < 4; round++) {
        struct pair pair = pair_make(world, LARGE, WF_NET_READ, NULL);
        struct probe probes[SHARES] = {0};
        uint32_t steps = random_below(&world->random, 12);
        for (int i = 0; i < SHARES; i++) {
            probes[i].bytes = SHARE;
            probes[i].memory = memory_of(SHARE, 7);
            assert_int_equal(ask(pair.ab, &probes[i], pair.handle, false, (uint64_t)i * SHARE, 5),
                             WEFT_OK);
        }
        while (steps--)
            world_step(world);
        OPS(world)->withdraw(pair.b->net, pair.handle);
        uint8_t *as_was = memory_of(LARGE, 1);
        memset(pair.region, 0xaa, LARGE);
        UNTIL(world, !probes_out);
        for (int i = 0; i < SHARES; i++) {
            if (probes[i].status == WEFT_OK)
                assert_memory_equal(probes[i].memory, as_was + ((size_t)i * SHARE), SHARE);
            else if (probes[i].status != WEFT_MISS)
                assert_true(may_cut(world) && probes[i].status == WEFT_E_NODE);
            for (size_t k = 0, run = 0; k < SHARE; k++) {
                run = probes[i].memory[k] == 0xaa ? run + 1 : 0;
                if (run == 16)
                    fail_msg("byte %zu is what lay there after it was withdrawn", k);
            }
            free(probes[i].memory);
        }
        free(as_was);
        assert_false(was_cut(&pair) && !may_cut(world));
        pair_end(world, &pair);
        OPS(world)->destroy(pair.a->net);
        pair.a->net = NULL;
        world->node_count = 0;
        memset(world->nodes, 0, sizeof world->nodes);
    }
}

static void test_withdraw_writes(void **state)
{
    struct world *world = *state;
    for (int round = 0; round < 4; round++) {
        struct pair pair = pair_make(world, LARGE, WF_NET_WRITE, NULL);
        struct probe probes[SHARES] = {0};
        uint32_t steps = 1 + random_below(&world->random, 12);
        for (int i = 0; i < SHARES; i++) {
            probes[i].bytes = SHARE;
            probes[i].memory = memory_of(SHARE, 7);
            assert_int_equal(ask(pair.ab, &probes[i], pair.handle, true, (uint64_t)i * SHARE, 5),
                             WEFT_OK);
        }
        while (steps--)
            world_step(world);
        OPS(world)->withdraw(pair.b->net, pair.handle);
        memset(pair.region, 0xaa, LARGE);
        UNTIL(world, !probes_out);
        for (size_t i = 0; i < LARGE; i++)
            if (pair.region[i] != 0xaa)
                fail_msg("byte %zu was written after it was withdrawn", i);
        for (int i = 0; i < SHARES; i++) {
            bool ended = probes[i].status == WEFT_E_NODE && may_cut(world);
            assert_true(probes[i].status == WEFT_OK || probes[i].status == WEFT_MISS || ended);
            free(probes[i].memory);
        }
        assert_false(was_cut(&pair) && !may_cut(world));
        pair_end(world, &pair);
        OPS(world)->destroy(pair.a->net);
        pair.a->net = NULL;
        world->node_count = 0;
        memset(world->nodes, 0, sizeof world->nodes);
    }
}

static void small_queue(struct wf_net_options *options)
{
    options->queue_max = 16;
}

static void test_access_queue(void **state)
{
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ, small_queue);
    struct probe probes[17] = {0};
    enum weft_status status = WEFT_OK;
    uint32_t count = 0;
    pair.b->hold = !OPS(world)->one_sided;
    while (count < 17 && status == WEFT_OK) {
        probes[count].bytes = 1000;
        probes[count].memory = memory_of(1000, 7);
        status = ask(pair.ab, &probes[count], pair.handle, false, 5, 2);
        count++;
    }
    assert_int_equal(status, WEFT_PENDING);
    assert_int_equal(count, 17);
    pair.b->hold = false;
    UNTIL(world, !probes_out);
    assert_int_equal(asked(pair.ab, &probes[0], pair.handle, false, 5, 2), WEFT_OK);
    for (int i = 0; i < 17; i++)
        free(probes[i].memory);
    pair_end(world, &pair);
}

static void test_link_ends(void **state)
{
    struct world *world = *state;
    for (int who = 0; who < 3; who++) {
        struct pair pair = pair_make(world, LARGE, WF_NET_READ | WF_NET_WRITE, NULL);
        struct probe probes[8] = {0};
        for (int i = 0; i < 8; i++) {
            probes[i].bytes = SHARE;
            probes[i].memory = memory_of(SHARE, 7);
            assert_int_equal(ask(pair.ab, &probes[i], pair.handle, i % 2, (uint64_t)i * SHARE, 3),
                             WEFT_OK);
        }
        for (int i = 0; i < 2; i++)
            world_step(world);
        if (who < 2) {
            OPS(world)->close((who ? pair.ba : pair.ab)->link);
            UNTIL(world, pair.ab->down && pair.ba->down);
        } else {
            OPS(world)->destroy(pair.a->net);
            pair.a->net = NULL;
        }
        assert_int_equal(probes_out, 0);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(probes[i].done, 1);
            free(probes[i].memory);
        }
        pair_end(world, &pair);
        if (pair.a->net)
            OPS(world)->destroy(pair.a->net);
        world->node_count = 0;
        memset(world->nodes, 0, sizeof world->nodes);
    }
}

static void test_wrongly_asked(void **state)
{
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ, NULL);
    struct probe probe = {.memory = memory_of(64, 7)};
    struct wf_net_handle handle;
    assert_int_equal(ask(pair.ab, &probe, pair.handle, false, 0, 1), WEFT_E_INVALID);
    struct iovec wraps[2] = {{probe.memory, SIZE_MAX}, {probe.memory, 65}};
    probe.access = (struct wf_net_access){
        .handle = pair.handle, .piece_count = 2, .pieces = wraps, .done = on_done, .user = &probe};
    assert_int_equal(OPS(world)->access(pair.ab->link, &probe.access), WEFT_E_INVALID);
    assert_int_equal(OPS(world)->expose(pair.b->net, probe.memory, 0, WF_NET_READ, &handle),
                     WEFT_E_INVALID);
    assert_int_equal(OPS(world)->expose(pair.b->net, probe.memory, 64, (enum wf_net_rights)0,
                                        &handle),
                     WEFT_E_INVALID);
    free(probe.memory);
    pair_end(world, &pair);
}

/* Accesses each way among messages each way: all of them end, and nothing is mixed up. */
static void test_traffic(void **state)
{
    struct world *world = *state;
    struct pair pair = pair_make(world, REGION, WF_NET_READ, NULL);
    uint8_t *back = memory_of(REGION, 5);
    struct wf_net_handle handle_back;
    struct probe probes[40] = {0};
    uint64_t sent_ab = 0, sent_ba = 0, count = world->backend->slow ? 200 / SLOWER : 200, asks = 0;
    assert_int_equal(OPS(world)->expose(pair.a->net, back, REGION, WF_NET_READ | WF_NET_WRITE,
                                        &handle_back),
                     WEFT_OK);
    assert_int_equal(OPS(world)->grant(pair.ab->link, handle_back), WEFT_OK);
    for (int i = 0; i < 40; i++) {
        probes[i].done = 1;
        probes[i].bytes = 1 + random_below(&world->random, 400000);
        probes[i].memory = malloc(probes[i].bytes);
        assert_non_null(probes[i].memory);
    }
    while (pair.ab->begun < count || pair.ba->begun < count || probes_out || world->out) {
        while (sent_ab < count && world_send(pair.ab, sent_ab))
            sent_ab++;
        while (sent_ba < count && world_send(pair.ba, sent_ba))
            sent_ba++;
        for (int i = 0; i < 40; i++) {
            struct end *end = i % 2 ? pair.ab : pair.ba;
            uint64_t offset = random_below(&world->random, (uint32_t)(REGION - probes[i].bytes));
            if (!probes[i].done || asks > 400)
                continue;
            asks++;
            if (probes[i].access.user)
                assert_int_equal(probes[i].status, WEFT_OK);
            assert_int_equal(ask(end, &probes[i], i % 2 ? pair.handle : handle_back, i % 4 == 2,
                                 i % 4 == 2 ? 0 : offset, 4),
                             WEFT_OK);
        }
        world_step(world);
        assert_false(pair.ab->down || pair.ba->down);
    }
    for (int i = 0; i < 40; i++)
        free(probes[i].memory);
    OPS(world)->withdraw(pair.a->net, handle_back);
    free(back);
    pair_end(world, &pair);
}

#define TEST(name)  \
    {               \
#name, name \
    }
static const struct {
    const char *name;
    CMUnitTestFunction run;
} tests[] = {
    TEST(test_read_write),     TEST(test_misses),          TEST(test_generations),
    TEST(test_withdraw_reads), TEST(test_withdraw_writes), TEST(test_access_queue),
    TEST(test_link_ends),      TEST(test_wrongly_asked),   TEST(test_traffic),
};

size_t net_access_tests(const struct backend *backend, struct CMUnitTest *out, char (*names)[80])
{
    size_t count = sizeof tests / sizeof tests[0];
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "%s: %s", backend->name,
                 tests[i].name + strlen("test_"));
        out[i] = (struct CMUnitTest){names[i], tests[i].run, world_setup, world_teardown,
                                     (void *)backend};
    }
    return count;
}
