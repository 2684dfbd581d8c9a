/* SPDX-License-Identifier: Apache-2.0
 *
 * What a net promises (net/net.h), in a simulated network where everything goes wrong by a seed.
 *
 * Hosts talk to each other at random.  Payloads lie in memory that is poisoned and freed as soon as
 * it is its owner's again, on both sides, so that whoever reads or writes it too long is caught
 * here or by ASan.  And: the same seed makes the same history.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/random.h"
#include "net/sim.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define HOSTS 30u
#define LINKS 8u /* that a host would like to have */
#define BYTES_MAX 300000u
#define SHOWN 4096u

/* What a message says of itself. */
struct head {
    uint64_t sequence, seed, bytes;
};

struct host;

/* One end, as its host knows it. */
struct end {
    struct end *next;
    struct host *host;
    struct wf_net_link *link;
    uint64_t sent, heard;
    uint32_t under_way, receiving;
    bool up, down;
    bool can_read; /* the other side's handle was in its hello */
    struct wf_net_handle shown;
};

struct letter {
    struct wf_net_message message;
    struct head head;
    struct iovec pieces[2];
    struct end *end;
    uint8_t *data;
};

struct parcel {
    struct end *end;
    struct head head;
    struct iovec pieces[2];
};

struct look {
    struct wf_net_access access;
    struct iovec piece;
    struct end *end;
    uint8_t *data;
};

struct host {
    struct world *world;
    uint32_t number;
    char name[16];
    struct wf_net *net; /* NULL: it was killed */
    struct end *ends;
    uint32_t end_count;
    struct wf_vtime_event next;
    uint8_t *shown; /* exposed to all: bytes that are its number */
    struct wf_net_handle handle;
};

struct world {
    struct wf_vtime *time;
    struct wf_net_sim_world *net;
    struct host hosts[HOSTS];
    uint64_t random;
    uint64_t sent, unsent, arrived, failed, wrong, ups, downs, looks, missed, kills;
    uint32_t letters, parcels, under_look;
};

static const struct wf_net_ops *const ops = &wf_net_sim;

static uint64_t chance(struct world *w, uint64_t below)
{
    return wf_random_below(&w->random, below);
}

/* Byte `i` of what has this seed. */
static uint8_t byte_of(uint64_t seed, uint64_t i)
{
    return (uint8_t)(seed + i * 31 + (i >> 8) * 17);
}

static bool filled(const uint8_t *data, uint64_t first, uint64_t bytes, uint64_t seed)
{
    for (uint64_t i = 0; i < bytes; i++)
        if (data[i] != byte_of(seed, first + i))
            return false;
    return true;
}

static uint8_t *room(uint64_t bytes)
{
    uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    memset(data, 0xee, bytes);
    return data;
}

static void let_go(uint8_t *data, uint64_t bytes)
{
    memset(data, 0xdd, bytes);
    free(data);
}

static struct end *end_of(struct host *host, struct wf_net_link *link)
{
    struct end *end = ops->user(link);
    assert_non_null(end);
    assert_ptr_equal(end->host, host);
    assert_ptr_equal(end->link, link);
    assert_false(end->down);
    return end;
}

static struct end *end_new(struct host *host)
{
    struct end *end = calloc(1, sizeof *end);
    assert_non_null(end);
    end->host = host;
    end->next = host->ends;
    host->ends = end;
    host->end_count++;
    return end;
}

static void end_free(struct end *end)
{
    struct end **at = &end->host->ends;
    while (*at != end)
        at = &(*at)->next;
    *at = end->next;
    end->host->end_count--;
    free(end);
}

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    struct host *host = context;
    (void)name;
    struct end *end = ops->user(link);
    if (!end) {
        end = end_new(host);
        end->link = link;
        ops->set_user(link, end);
    }
    assert_false(end->up);
    assert_false(end->down);
    assert_int_equal(hello_bytes, sizeof end->shown);
    memcpy(&end->shown, hello, sizeof end->shown);
    end->up = end->can_read = true;
    host->world->ups++;
    assert_int_equal(ops->grant(link, host->handle), WEFT_OK);
    return chance(host->world, 50) != 0;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    struct host *host = context;
    struct end *end = end_of(host, link);
    assert_true(strlen(sentence) > 5);
    (void)status;
    assert_int_equal(end->under_way, 0);
    assert_int_equal(end->receiving, 0);
    end->down = true;
    host->world->downs++;
    end_free(end);
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *header,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    struct host *host = context;
    struct world *w = host->world;
    struct end *end = end_of(host, link);
    struct head head;
    assert_true(end->up);
    assert_int_equal(header_bytes, sizeof head);
    memcpy(&head, header, sizeof head);
    assert_int_equal(head.sequence, end->heard);
    assert_int_equal(head.bytes, payload_bytes);
    assert_int_equal(end->receiving, 0);
    end->heard++;
    if (!payload_bytes || chance(w, 20) == 0)
        return 0;
    struct parcel *parcel = malloc(sizeof *parcel);
    assert_non_null(parcel);
    uint64_t cut = chance(w, payload_bytes);
    *parcel = (struct parcel){end, head, {{room(cut), cut}, {room(payload_bytes - cut), 0}}};
    parcel->pieces[1].iov_len = payload_bytes - cut;
    memcpy(out, parcel->pieces, sizeof parcel->pieces);
    *out_token = parcel;
    end->receiving++;
    w->parcels++;
    return 2;
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    struct host *host = context;
    struct world *w = host->world;
    struct parcel *p = token;
    assert_ptr_equal(end_of(host, link), p->end);
    assert_int_equal(p->end->receiving, 1);
    p->end->receiving = 0;
    if (status == WEFT_OK) {
        w->arrived++;
        w->wrong += !filled(p->pieces[0].iov_base, 0, p->pieces[0].iov_len, p->head.seed) ||
                    !filled(p->pieces[1].iov_base, p->pieces[0].iov_len, p->pieces[1].iov_len,
                            p->head.seed);
    } else {
        w->failed++;
    }
    let_go(p->pieces[0].iov_base, p->pieces[0].iov_len);
    let_go(p->pieces[1].iov_base, p->pieces[1].iov_len);
    free(p);
    w->parcels--;
}

static void on_progress(void *context, struct wf_net_link *link, void *token, uint64_t bytes)
{
    const struct parcel *p = token;
    assert_ptr_equal(end_of(context, link), p->end);
    assert_in_range(bytes, 1, p->head.bytes - 1);
    /* For good: it may be used now.  (A bit may have changed on the way.) */
    uint64_t first = bytes < p->pieces[0].iov_len ? bytes : p->pieces[0].iov_len;
    p->end->host->world->wrong += !filled(p->pieces[0].iov_base, 0, first, p->head.seed) ||
                                  !filled(p->pieces[1].iov_base, p->pieces[0].iov_len,
                                          bytes - first, p->head.seed);
}

static void on_sent(struct wf_net_message *message, enum weft_status status)
{
    struct letter *letter = (struct letter *)message;
    struct world *w = letter->end->host->world;
    *(status == WEFT_OK ? &w->sent : &w->unsent) += 1;
    assert_true(letter->end->under_way > 0);
    letter->end->under_way--;
    w->letters--;
    let_go(letter->data, letter->head.bytes);
    let_go((uint8_t *)letter, sizeof *letter);
}

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    struct look *look = (struct look *)access;
    struct end *end = look->end;
    struct world *w = end->host->world;
    if (status == WEFT_OK && !access->write)
        for (uint64_t i = 1; i < look->piece.iov_len; i++)
            w->wrong += look->data[i] != look->data[0];
    *(status == WEFT_OK ? &w->looks : &w->missed) += 1;
    assert_true(end->under_way > 0);
    end->under_way--;
    w->under_look--;
    let_go(look->data, look->piece.iov_len);
    let_go((uint8_t *)look, sizeof *look);
}

static void write_letter(struct end *end)
{
    struct world *w = end->host->world;
    uint64_t kind = chance(w, 50), bytes = kind < 25 ? 0 : chance(w, kind < 49 ? 3000 : BYTES_MAX);
    struct letter *letter = calloc(1, sizeof *letter);
    assert_non_null(letter);
    letter->data = room(bytes);
    letter->end = end;
    letter->head = (struct head){end->sent, wf_random(&w->random), bytes};
    for (uint64_t i = 0; i < bytes; i++)
        letter->data[i] = byte_of(letter->head.seed, i);
    uint64_t cut = chance(w, bytes + 1);
    letter->pieces[0] = (struct iovec){letter->data, cut};
    letter->pieces[1] = (struct iovec){letter->data + cut, bytes - cut};
    letter->message.header = &letter->head;
    letter->message.header_bytes = sizeof letter->head;
    letter->message.pieces = letter->pieces;
    letter->message.piece_count = bytes ? 2 : 0;
    letter->message.sent = on_sent;
    enum weft_status status = ops->send(end->link, &letter->message);
    if (status != WEFT_OK) {
        assert_true(status == WEFT_PENDING || status == WEFT_E_NODE);
        free(letter->data);
        free(letter);
        return;
    }
    end->sent++;
    end->under_way++;
    w->letters++;
}

static void look_there(struct end *end)
{
    struct world *w = end->host->world;
    struct look *look = calloc(1, sizeof *look);
    assert_non_null(look);
    uint64_t bytes = 1 + chance(w, SHOWN);
    look->data = room(bytes);
    look->end = end;
    look->piece = (struct iovec){look->data, bytes};
    look->access = (struct wf_net_access){.handle = end->shown,
                                          .write = false,
                                          .piece_count = 1,
                                          .pieces = &look->piece,
                                          .offset = chance(w, 10) ? SHOWN - bytes : SHOWN,
                                          .done = on_done};
    if (ops->access(end->link, &look->access) != WEFT_OK) {
        free(look->data);
        free(look);
        return;
    }
    end->under_way++;
    w->under_look++;
}

static void connect_somewhere(struct host *host)
{
    struct world *w = host->world;
    char address[32];
    (void)snprintf(address, sizeof address, "sim:h%u", (unsigned)chance(w, HOSTS));
    struct end *end = end_new(host);
    assert_int_equal(ops->connect(host->net, address, end, &end->link), WEFT_OK);
}

/* A host does something. */
static void on_turn(struct wf_vtime_event *event)
{
    struct host *host = (struct host *)((char *)event - offsetof(struct host, next));
    struct world *w = host->world;
    wf_vtime_at(w->time, event, wf_vtime_now(w->time) + 1 + chance(w, 4 * MS));
    if (!host->net)
        return;
    if (host->end_count < LINKS && chance(w, 10) == 0)
        connect_somewhere(host);
    uint64_t which = host->end_count ? chance(w, host->end_count) : 0;
    struct end *end = host->ends;
    while (end && which--)
        end = end->next;
    if (!end || !end->up)
        return;
    switch (chance(w, 40)) {
    case 0: ops->close(end->link); break;
    case 1:
    case 2:
    case 3: look_there(end); break;
    default: write_letter(end);
    }
}

static void start(struct host *host)
{
    char listen[32];
    (void)snprintf(listen, sizeof listen, "sim:%s", host->name);
    host->shown = room(SHOWN);
    memset(host->shown, (int)host->number, SHOWN);
    /* What it will show is known before it is there: it is the first. */
    struct wf_net_handle first = {0, 1};
    struct wf_net_options options = {
        .listen = listen,
        .hello = &first,
        .hello_bytes = sizeof first,
        .links_max = 2 * LINKS,
        .queue_max = 16,
        .dead_ms = 300,
        .connect_ms = 200,
        .events = {host, on_up, on_down, on_begun, on_progress, on_arrived},
        .world = host->world->net,
    };
    assert_int_equal(ops->create(&options, &host->net), WEFT_OK);
    assert_int_equal(ops->expose(host->net, host->shown, SHOWN, WF_NET_READ, &host->handle),
                     WEFT_OK);
    assert_memory_equal(&host->handle, &first, sizeof first);
}

static void stop(struct host *host)
{
    ops->destroy(host->net);
    host->net = NULL;
    while (host->ends) {
        assert_int_equal(host->ends->under_way, 0); /* NOLINT: end_free() takes it out */
        assert_int_equal(host->ends->receiving, 0);
        end_free(host->ends);
    }
    let_go(host->shown, SHOWN);
}

static void acts(void *context, enum wf_net_sim_fault fault, uint32_t number, bool begins)
{
    struct world *w = context;
    struct host *host = &w->hosts[number];
    if (fault != WF_SIM_KILL && fault != WF_SIM_KILL_DARK)
        return;
    if (!begins) {
        start(host);
        return;
    }
    w->kills++;
    wf_net_sim_kill(w->net, host->name, fault == WF_SIM_KILL_DARK);
    stop(host);
}

static void run(struct world *w, uint64_t ns)
{
    uint64_t until = wf_vtime_now(w->time) + ns;
    do {
        struct wf_net *net;
        void *context;
        while ((net = wf_net_sim_next(w->net, &context)))
            assert_int_equal(ops->poll(net, 0), WEFT_OK);
    } while (wf_vtime_step(w->time, until));
}

struct outcome {
    uint64_t digest, arrived, wrong, corrupted, events;
};

static void world_begin(struct world *w, uint64_t seed)
{
    *w = (struct world){.random = seed};
    assert_int_equal(wf_vtime_create(&w->time), WEFT_OK);
    struct wf_net_sim_options options = {.time = w->time, .seed = seed, .window_bytes = 256u << 10};
    assert_int_equal(wf_net_sim_world_create(&options, &w->net), WEFT_OK);
    for (uint32_t i = 0; i < HOSTS; i++) {
        struct host *host = &w->hosts[i];
        host->world = w;
        host->number = i;
        (void)snprintf(host->name, sizeof host->name, "h%u", i);
        host->next.happens = on_turn;
        wf_vtime_at(w->time, &host->next, wf_vtime_now(w->time) + chance(w, MS));
        start(host);
    }
}

static void world_end(struct world *w)
{
    for (uint32_t i = 0; i < HOSTS; i++) {
        wf_vtime_clear(w->time, &w->hosts[i].next);
        stop(&w->hosts[i]);
    }
    assert_int_equal(w->letters, 0);
    assert_int_equal(w->parcels, 0);
    assert_int_equal(w->under_look, 0);
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(w->net, &stats);
    assert_int_equal(stats.wires, 0);
    wf_net_sim_world_destroy(w->net);
    wf_vtime_destroy(w->time);
}

static void storm(uint64_t seed, bool corrupts, struct outcome *out)
{
    static struct world w;
    const char *names[HOSTS];
    world_begin(&w, seed);
    for (uint32_t i = 0; i < HOSTS; i++)
        names[i] = w.hosts[i].name;
    struct wf_net_sim_storm_options options = {.seed = seed,
                                               .gap_ns = 20 * MS,
                                               .least_ns = 5 * MS,
                                               .most_ns = 700 * MS,
                                               .hosts = names,
                                               .host_count = HOSTS,
                                               .at_once_max = 6,
                                               .acts = acts,
                                               .context = &w};
    for (uint32_t i = 0; i < WF_SIM_FAULTS; i++)
        options.weights[i] = i == WF_SIM_CORRUPT && !corrupts ? 0 : 1;
    struct wf_net_sim_storm *s;
    assert_int_equal(wf_net_sim_storm_begin(w.net, &options, &s), WEFT_OK);
    run(&w, 6 * SECOND);
    uint64_t counts[WF_SIM_FAULTS], faults = 0;
    wf_net_sim_storm_counts(s, counts);
    for (uint32_t i = 0; i < WF_SIM_FAULTS; i++) {
        assert_true(counts[i] > 0 || (i == WF_SIM_CORRUPT && !corrupts));
        faults += counts[i];
    }
    wf_net_sim_storm_end(s);
    for (uint32_t i = 0; i < HOSTS; i++)
        wf_vtime_clear(w.time, &w.hosts[i].next);
    run(&w, 2 * SECOND);
    /* Nothing hangs: all that was under way has ended, one way or the other. */
    assert_int_equal(w.letters, 0);
    assert_int_equal(w.parcels, 0);
    assert_int_equal(w.under_look, 0);
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(w.net, &stats);
    assert_true(stats.held > 0 && stats.silent > 0 && stats.broken > 0 && stats.lost > 0);
    assert_true(w.arrived > 1000 && w.failed > 0 && w.unsent > 0 && w.looks > 100 && w.missed > 0);
    *out = (struct outcome){wf_net_sim_digest(w.net), w.arrived, w.wrong, stats.corrupted,
                            wf_vtime_count(w.time)};
    printf("# seed %llu: %llu faults, %llu kills; %llu sent, %llu unsent, %llu arrived, %llu cut "
           "off, %llu wrong, %llu read; %llu events\n",
           (unsigned long long)seed, (unsigned long long)faults, (unsigned long long)w.kills,
           (unsigned long long)w.sent, (unsigned long long)w.unsent, (unsigned long long)w.arrived,
           (unsigned long long)w.failed, (unsigned long long)w.wrong, (unsigned long long)w.looks,
           (unsigned long long)out->events);
    world_end(&w);
}

static uint64_t first_seed(void)
{
    const char *given = getenv("WEFT_TEST_SEED");
    return given ? strtoull(given, NULL, 0) : 1;
}

static void test_promises_hold_in_a_storm(void **state)
{
    (void)state;
    for (uint64_t seed = first_seed(); seed < first_seed() + 3; seed++) {
        struct outcome o;
        storm(seed, false, &o);
        assert_int_equal(o.wrong, 0);
        assert_int_equal(o.corrupted, 0);
    }
}

static void test_corruption_is_delivered(void **state)
{
    (void)state;
    struct outcome o;
    storm(first_seed() + 100, true, &o);
    assert_true(o.corrupted > 0);
    assert_true(o.wrong > 0);
}

static void test_the_same_seed_makes_the_same_history(void **state)
{
    (void)state;
    struct outcome a, b, c;
    storm(first_seed() + 200, true, &a);
    storm(first_seed() + 200, true, &b);
    storm(first_seed() + 201, true, &c);
    assert_memory_equal(&a, &b, sizeof a);
    assert_true(a.digest != c.digest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_promises_hold_in_a_storm),
        cmocka_unit_test(test_corruption_is_delivered),
        cmocka_unit_test(test_the_same_seed_makes_the_same_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
