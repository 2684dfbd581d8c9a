/* SPDX-License-Identifier: Apache-2.0
 *
 * A push from one node to another in virtual time: what is published there is whole, right, and was
 * committed here, whatever the network, the two nodes and their hosts do meanwhile; as it is, and
 * again encoded.
 */
#include "base/sum.h"
#include "fabric/inner.h"

#include "fabric_world.h"

#define LAYERS 8u
#define LAYER_BYTES 24576u
#define BYTES ((uint64_t)LAYERS * LAYER_BYTES)
#define BLOCKS 12u

static struct wf_fabric *fabrics[2];

/* The receiving host. */
static struct {
    bool late;                /* answers when it is told to */
    enum weft_status refuses; /* WEFT_OK: it does not */
    uint64_t has;             /* a bit a block */
    uint8_t *memory[BLOCKS];  /* reserved */
    uint8_t *blocks[BLOCKS];  /* published */
    struct wf_fabric_pushed *asked;
    uint32_t rooms, ends, existing;
    uint8_t quality[BLOCKS]; /* as it was told */
    uint64_t profile;
} host;

static bool coded;      /* the nodes encode what goes from one to the other, */
static uint8_t demands; /* and ask for that */

/* The sending one. */
static struct wf_fabric_push push;
static uint8_t *sources[BLOCKS];

static uint8_t byte_of(uint32_t block, uint64_t at)
{
    /* As numbers are: of few sizes. */
    return (uint8_t)(at % 2 ? 0x3c + (block + at / 2) % 3
                            : block * 31 + at / LAYER_BYTES * 7 + at % 251);
}

static void room_give(struct wf_fabric_pushed *pushed)
{
    pushed->status = host.refuses;
    for (uint32_t i = 0; i < pushed->count && host.refuses == WEFT_OK; i++) {
        if (host.has >> i & 1)
            continue;
        host.quality[i] = pushed->blocks[i].quality;
        host.profile = pushed->profile;
        host.memory[i] = calloc(1, pushed->bytes);
        pushed->data[i] = host.memory[i];
    }
    wf_fabric_pushed_answer(fabrics[1], pushed);
}

static void push_room(void *context, struct wf_fabric_pushed *pushed)
{
    (void)context;
    host.rooms++;
    host.asked = pushed;
    if (!host.late)
        room_give(pushed);
}

static void push_end(void *context, struct wf_fabric_pushed *pushed)
{
    (void)context;
    host.ends++;
    for (uint32_t i = 0; i < pushed->count; i++) {
        bool wanted = host.memory[i] != NULL;
        if (wanted && wf_bit(pushed->keep, i)) {
            host.blocks[i] = host.memory[i];
            pushed->published++;
        } else if (wanted) {
            free(host.memory[i]);
            pushed->missing += wf_bit(pushed->committed, i);
        } else {
            pushed->existing += wf_bit(pushed->committed, i);
        }
        host.memory[i] = NULL;
    }
    host.existing = pushed->existing;
    wf_fabric_pushed_answer(fabrics[1], pushed);
}

/* A clock that moves while a node does something, as clocks do. */
static uint64_t now(void *context)
{
    static uint64_t looks;
    return wf_vtime_now(context) + ++looks;
}

static bool layout(void *context, uint32_t domain, uint64_t bytes, struct wf_layout *out)
{
    (void)context, (void)domain;
    return wf_layout_opaque(WEFT_BF16, bytes, out);
}

static void node_begin(int i)
{
    static const char *const names[2] = {"sim:a", "sim:b"};
    const struct wf_fabric_domain domain = {.secret = "one for all",
                                            .secret_bytes = 32,
                                            .quality = i == 1 ? demands : WEFT_ECONOMY};
    struct wf_fabric_options options = world_options(names, 2, i);
    options.domains = &domain;
    options.host.layout = layout;
    options.codec = coded ? WF_FABRIC_CODEC_LOSSLESS : WF_FABRIC_CODEC_NONE;
    options.host.push_room = push_room;
    options.host.push_end = push_end;
    options.replica_copies = 1024;
    options.show_ms = 50;
    options.now_ns = now;
    world_node(i, &options);
}

static int begin(void **state)
{
    (void)state;
    memset(&host, 0, sizeof host);
    ended = false;
    world_begin(fabrics, sizeof fabrics[0], 2, &(struct wf_net_sim_options){.seed = 11});
    for (uint32_t i = 0; i < BLOCKS; i++)
        sources[i] = calloc(1, BYTES);
    node_begin(0);
    node_begin(1);
    pass(1500);
    return 0;
}

static int begin_coded(void **state)
{
    coded = true;
    return begin(state);
}

static int begin_lossy(void **state)
{
    demands = WEFT_TRANSPARENT;
    return begin_coded(state);
}

static int end(void **state)
{
    (void)state;
    coded = false;
    demands = 0;
    world_end();
    for (uint32_t i = 0; i < BLOCKS; i++) {
        free(sources[i]);
        free(host.memory[i]);
        free(host.blocks[i]);
    }
    return 0;
}

static void done(struct wf_fabric_push *of, enum weft_status status)
{
    assert_ptr_equal(of, &push);
    over(status);
}

/* Of its blocks the last are of that quality. */
static void push_it_as(uint8_t quality)
{
    memset(&push, 0, sizeof push);
    push.profile = quality ? 0x1234567890abcdef : 0;
    memcpy(push.to, "b", 2);
    push.count = BLOCKS;
    push.layers = LAYERS;
    push.done = done;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        push.blocks[i] = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                  .quality = i < BLOCKS / 2 ? 0 : quality,
                                                  .depth = i,
                                                  .bytes = BYTES,
                                                  .key = {(uint8_t)(i + 1)},
                                                  .parent = {(uint8_t)i}};
        push.data[i] = sources[i];
    }
    assert_int_equal(wf_fabric_push(fabrics[0], &push), WEFT_OK);
}

static void push_it(void)
{
    push_it_as(0);
}

/* Layers are written as an engine does it, one after the other; so many milliseconds each. */
static void write_layers(uint32_t from, uint32_t to, uint64_t ms)
{
    for (uint32_t layer = from; layer < to; layer++) {
        for (uint32_t i = 0; i < BLOCKS; i++)
            for (uint64_t at = layer * LAYER_BYTES; at < (layer + 1) * LAYER_BYTES; at++)
                sources[i][at] = byte_of(i, at);
        wf_fabric_push_written(fabrics[0], &push, layer + 1);
        pass(ms);
    }
}

static void commit(uint64_t keep)
{
    push.keep[0] = keep;
    wf_fabric_push_end(fabrics[0], &push, true);
}

#define ALL ((1ull << BLOCKS) - 1)

/* What is published is right, and is among these. */
static uint32_t check(uint64_t may)
{
    uint32_t published = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (!host.blocks[i])
            continue;
        published++;
        assert_true(may >> i & 1);
        for (uint64_t at = 0; at < BYTES; at++)
            assert_int_equal(host.blocks[i][at], byte_of(i, at));
    }
    return published;
}

/* --------------------------------------------------------------------------------------- tests */

static void layers_go_while_the_next_is_written(void **state)
{
    (void)state;
    push_it();
    write_layers(0, LAYERS, 5);
    assert_int_equal(push.sent_bytes, BLOCKS * BYTES); /* before anything was committed */
    pass(100);
    assert_int_equal(check(0), 0);
    assert_int_equal(host.ends, 0);
    commit(ALL);
    pass(2);
    assert_int_equal(check(ALL), BLOCKS);
    pass(100);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_OK);
    assert_int_equal(push.published, BLOCKS);
}

static void a_commit_says_that_all_is_written(void **state)
{
    (void)state;
    push_it();
    write_layers(0, LAYERS, 0);
    commit(ALL & ~1ull << 3);
    pass(200);
    assert_int_equal(check(ALL & ~1ull << 3), BLOCKS - 4);
    assert_int_equal(outcome, WEFT_OK);
}

static void layers_cross_encoded(void **state)
{
    (void)state;
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(world, &stats);
    uint64_t before = stats.bytes;
    push_it();
    write_layers(0, LAYERS, 5);
    commit(ALL);
    pass(200);
    assert_int_equal(outcome, WEFT_OK);
    assert_int_equal(check(ALL), BLOCKS);
    assert_int_equal(push.sent_bytes, BLOCKS * BYTES);
    wf_net_sim_world_stats(world, &stats);
    print_message("%llu bytes crossed as %llu\n", (unsigned long long)(BLOCKS * BYTES),
                  (unsigned long long)(stats.bytes - before));
    assert_true((stats.bytes - before) * 5 < BLOCKS * BYTES * 4);
    struct wf_fabric_figures out = figures_of(0), in = figures_of(1);
    assert_int_equal(out.frames_out, BLOCKS * LAYERS);
    assert_int_equal(in.frames_in, BLOCKS * LAYERS);
    assert_int_equal(in.frames_in_plain, BLOCKS * BYTES);
    assert_int_equal(in.frames_in_bytes, out.frames_out_bytes);
    assert_int_equal(wf_coder_busy(fabrics[0]->coder), 0);
}

/* Who asks for better is not sent a byte of it. */
static void what_lost_something_goes_to_who_takes_it(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 2; round++) {
        uint8_t worst = round ? WEFT_TRANSPARENT : WEFT_ECONOMY;
        ended = false;
        push_it_as(worst);
        write_layers(0, LAYERS, 5);
        if (!ended)
            commit(ALL);
        pass(200);
        assert_true(ended);
        assert_int_equal(outcome, round ? WEFT_OK : WEFT_E_BUSY);
        assert_int_equal(push.sent_bytes, round ? BLOCKS * BYTES : 0);
        assert_int_equal(check(ALL), round ? BLOCKS : 0);
        assert_int_equal(host.rooms, round);
    }
    assert_int_equal(host.quality[0], 0);
    assert_int_equal(host.quality[BLOCKS - 1], WEFT_TRANSPARENT);
    assert_true(host.profile == 0x1234567890abcdef);
}

/* A bound of the link holds for layers, too. */
static void layers_take_their_turn(void **state)
{
    (void)state;
    assert_int_equal(wf_fabric_limit(fabrics[0], WF_FABRIC_LIMIT_LINK, "b", 0, 2000000), WEFT_OK);
    pass(10);
    push_it();
    write_layers(0, LAYERS, 5);
    commit(ALL);
    pass(460);
    assert_in_range(push.sent_bytes, 800000, 1400000);
    assert_false(ended);
    assert_int_equal(check(0), 0);
    pass(1000);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_OK);
    assert_int_equal(check(ALL), BLOCKS);
}

/* What is in line of one that is given up is not sent, and its memory is free at once. */
static void what_waits_is_withdrawn(void **state)
{
    (void)state;
    assert_int_equal(wf_fabric_limit(fabrics[0], WF_FABRIC_LIMIT_LINK, "b", 0, 2000000), WEFT_OK);
    pass(10);
    push_it();
    write_layers(0, LAYERS, 5);
    pass(160);
    wf_fabric_push_end(fabrics[0], &push, false);
    pass(50);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_MISS);
    assert_int_equal(host.ends, 1);
    assert_in_range(push.sent_bytes, 200000, 900000);
    ended = false;
    assert_int_equal(wf_fabric_limit(fabrics[0], WF_FABRIC_LIMIT_LINK, "b", 0, 0), WEFT_OK);
    push_it(); /* the link is as it was */
    write_layers(0, LAYERS, 5);
    commit(ALL);
    pass(100);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_OK);
    assert_int_equal(check(ALL), BLOCKS);
}

static void what_was_not_committed_is_not_published(void **state)
{
    (void)state;
    push_it();
    write_layers(0, LAYERS, 5);
    wf_fabric_push_end(fabrics[0], &push, false);
    pass(200);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_MISS);
    assert_int_equal(host.ends, 1);
    assert_int_equal(check(0), 0);
}

static void loss_and_delay_change_nothing(void **state)
{
    (void)state;
    wf_net_sim_loss(world, "b", 200000);
    wf_net_sim_delay(world, "a", 3 * MS);
    push_it();
    write_layers(0, LAYERS, 20);
    commit(ALL);
    pass(4000);
    assert_int_equal(check(ALL), BLOCKS);
    assert_int_equal(outcome, WEFT_OK);
}

static void wrong_bytes_are_not_published(void **state)
{
    (void)state;
    wf_net_sim_corrupt(world, "b", 100000);
    push_it();
    write_layers(0, LAYERS, 20);
    commit(ALL);
    pass(2000);
    uint32_t published = check(ALL);
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(world, &stats);
    assert_true(stats.corrupted > 0);
    assert_true(published < BLOCKS);
    assert_int_equal(outcome, WEFT_MISS);
    assert_int_equal(push.published, published);
    assert_int_equal(host.ends, 1);
}

/* The process of A is killed while a layer is on its way. */
static void a_sender_that_dies_leaves_nothing(void **state)
{
    (void)state;
    wf_net_sim_bandwidth(world, "a", 20000000); /* a layer takes some 15 ms */
    push_it();
    write_layers(0, 3, 10);
    assert_int_equal(host.rooms, 1);
    wf_net_sim_kill(world, "a", false);
    wf_fabric_destroy(fabrics[0], 0);
    fabrics[0] = NULL;
    assert_true(ended); /* its memory is its own again */
    pass(200);
    assert_int_equal(host.ends, 1);
    assert_int_equal(check(0), 0);
}

static void a_receiver_that_is_cut_off_is_given_up(void **state)
{
    (void)state;
    push_it();
    write_layers(0, 3, 5);
    wf_net_sim_group(world, "b", 1);
    write_layers(3, LAYERS, 5);
    commit(ALL);
    pass(12000);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_E_NODE);
    assert_int_equal(push.flight, 0);
    assert_int_equal(host.ends, 1); /* it noticed, too */
    assert_int_equal(check(0), 0);
}

static void what_is_there_is_not_sent(void **state)
{
    (void)state;
    host.has = ALL & ~0xf0ull;
    push_it();
    write_layers(0, LAYERS, 5);
    commit(ALL);
    pass(200);
    assert_int_equal(push.sent_bytes, 4 * BYTES);
    assert_int_equal(check(0xf0), 4);
    assert_int_equal(host.existing, BLOCKS - 4);
    assert_int_equal(outcome, WEFT_OK);
}

static void refusals_end_it(void **state)
{
    (void)state;
    static const struct {
        enum weft_status refuses, ends;
    } cases[] = {{WEFT_EXISTS, WEFT_OK}, {WEFT_FULL, WEFT_FULL}, {WEFT_E_PARENT, WEFT_E_BUSY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ended = false;
        host.refuses = cases[i].refuses;
        push_it();
        write_layers(0, 2, 50);
        assert_true(ended);
        assert_int_equal(outcome, cases[i].ends);
        assert_int_equal(push.sent_bytes, 0);
        assert_int_equal(host.ends, 0);
    }
    wf_fabric_drain(fabrics[1], true);
    ended = false;
    push_it();
    pass(50);
    assert_true(ended);
    assert_int_equal(host.rooms, 3); /* it was not even asked */
}

static void room_that_comes_late_is_given_back(void **state)
{
    (void)state;
    host.late = true;
    push_it();
    write_layers(0, 2, 10);
    assert_int_equal(host.rooms, 1);
    wf_fabric_push_end(fabrics[0], &push, false);
    pass(100);
    assert_true(ended);
    assert_int_equal(host.ends, 0);
    room_give(host.asked);
    pass(100);
    assert_int_equal(host.ends, 1);
}

static void room_is_given_back_when_the_link_went_meanwhile(void **state)
{
    (void)state;
    host.late = true;
    push_it();
    pass(100);
    wf_net_sim_break(world, "a", "b", 0);
    pass(100);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_E_NODE);
    room_give(host.asked);
    pass(100);
    assert_int_equal(host.ends, 1);
    assert_int_equal(check(0), 0);
}

/* The second so much later; the first has just heard of it. */
static void begin_anew(uint64_t later_ms)
{
    world_node_end(0);
    world_node_end(1);
    pass(500);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        free(host.blocks[i]);
        host.blocks[i] = NULL;
    }
    ended = false;
    node_begin(0);
    pass(later_ms);
    node_begin(1);
    for (int ms = 0; ms < 1000 && !wf_fabric_is_known(fabrics[0], "b"); ms++)
        pass(1);
}

/* Two nodes that begin at once both begin a link, and one of these goes a moment later: the push
 * that is on it goes on over the other. */
static void a_link_that_another_takes_the_place_of_takes_no_push_along(void **state)
{
    (void)state;
    uint32_t replaced = 0;
    for (uint64_t later_ms = 5; later_ms <= 105; later_ms += 10) {
        begin_anew(later_ms);
        push_it();
        write_layers(0, LAYERS, later_ms % 30 + 5);
        commit(ALL);
        pass(1500);
        assert_true(ended);
        replaced += push.agains > 0;
        assert_int_equal(outcome, WEFT_OK);
        assert_int_equal(check(ALL), BLOCKS);
    }
    assert_true(replaced > 0);
}

/* And its room there may be looked for until long after the link went: no more is asked for before
 * that was given back, for it would seem to be on its way. */
static void a_push_waits_for_the_room_that_it_had_before_its_link_was_replaced(void **state)
{
    (void)state;
    uint32_t replaced = 0;
    wf_net_sim_delay(world, "b", 3 * MS);
    for (uint64_t later_ms = 5; later_ms <= 105; later_ms += 10) {
        uint32_t rooms = host.rooms;
        host.asked = NULL;
        host.late = true;
        begin_anew(later_ms);
        push_it();
        for (int ms = 0; ms < 50 && !host.asked; ms++)
            pass(1);
        uint32_t before = push.agains; /* when its room was asked for at first */
        write_layers(0, LAYERS, 1);
        commit(ALL);
        pass(1000);
        assert_false(ended);
        assert_int_equal(host.rooms, rooms + 1);
        replaced += push.agains > before;
        host.late = false;
        room_give(host.asked);
        pass(1000);
        assert_true(ended);
        assert_int_equal(outcome, WEFT_OK);
        assert_int_equal(check(ALL), BLOCKS);
    }
    assert_true(replaced > 0);
}

static void who_says_nothing_loses_its_room(void **state)
{
    (void)state;
    push_it();
    write_layers(0, 2, 10);
    pass(29000);
    assert_int_equal(host.ends, 0);
    pass(2000);
    assert_int_equal(host.ends, 1);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_MISS);
}

/* The word that it has no room any more, and the one that all of it was committed, cross. */
static void an_end_that_comes_too_late_publishes_nothing(void **state)
{
    (void)state;
    push_it();
    write_layers(0, LAYERS, 10);
    pass(29000);
    wf_net_sim_delay(world, "b", 30 * MS);
    for (int ms = 0; ms < 2000 && host.ends == 0; ms++)
        pass(1);
    assert_int_equal(host.ends, 1);
    assert_false(ended);
    commit(ALL);
    pass(200);
    assert_true(ended);
    assert_int_equal(outcome, WEFT_MISS); /* so the chain is handed over */
    assert_int_equal(check(ALL), 0);
    wf_net_sim_delay(world, "b", 0);
}

/* ------------------------------------------------------------------- what nobody should send */

struct any {
    struct wf_fabric_push_said said;
    struct wf_fabric_event blocks[2];
};

static struct any good(void)
{
    struct any any = {.said = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUSH},
                               .request = 5,
                               .count = 2,
                               .layers = 4}};
    for (uint32_t i = 0; i < 2; i++)
        any.blocks[i] = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                 .bytes = 4096,
                                                 .key = {(uint8_t)(i + 9)}};
    return any;
}

static void a_push_that_is_nonsense_is_none(void **state)
{
    (void)state;
    struct wf_link *link = wf_peer_find(fabrics[1], "a")->link;
    struct any any = good();
    const uint32_t bytes = sizeof any;
    assert_false(wf_reception_push(link, &any, bytes - 1));
    assert_false(wf_reception_push(link, &any, bytes - 80));
    assert_false(wf_reception_push(link, &any, 8));
#define BREAK(what) \
    any = good();   \
    what;           \
    assert_false(wf_reception_push(link, &any, bytes))
    BREAK(any.said.count = 0);
    BREAK(any.said.count = WF_FABRIC_PUSH_BLOCKS_MAX + 1);
    BREAK(any.said.layers = 0);
    BREAK(any.said.layers = 3); /* which do not divide it */
    BREAK(any.said.layers = WF_FABRIC_PUSH_LAYERS_MAX * 2);
    BREAK(any.blocks[1].bytes = 8192);
    BREAK(any.blocks[0].bytes = any.blocks[1].bytes = 0);
    BREAK(any.blocks[0].bytes = any.blocks[1].bytes = WF_NET_PAYLOAD_MAX * 4);
    BREAK(any.blocks[1].kind = WF_FABRIC_GONE);
    BREAK(any.blocks[0].domain = any.blocks[1].domain = 200);
    BREAK(any.blocks[0].domain = any.blocks[1].domain = 1); /* not in common */
#undef BREAK
    assert_int_equal(host.rooms, 0);
}

static bool layer_begins(struct wf_link *link, uint64_t handle, uint32_t layer, uint32_t first,
                         uint32_t second, uint64_t payload, uint32_t *out_pieces, void **token)
{
    struct {
        struct wf_fabric_layer layer;
        struct wf_fabric_layer_piece pieces[2];
    } m = {.layer = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_LAYER},
                     .handle = handle,
                     .layer = layer,
                     .count = 2},
           .pieces = {{.block = first, .bytes = 1024},
                      {.block = second, .bytes = payload == 2047 ? 1023 : 1024}}};
    struct iovec out[WF_NET_PIECES_MAX];
    bool sane = false;
    *out_pieces = wf_reception_begun(link, &m, sizeof m, payload, out, token, &sane);
    return sane;
}

static void a_layer_that_is_nonsense_is_none(void **state)
{
    (void)state;
    struct wf_link *link = wf_peer_find(fabrics[1], "a")->link;
    struct any any = good();
    uint32_t pieces = 0;
    void *token = NULL;
    host.has = 0;
    assert_true(wf_reception_push(link, &any, sizeof any));
    assert_int_equal(host.rooms, 1);
    uint64_t handle = (uint64_t)host.asked->generation << 32 | host.asked->number;
    /* Before it is open, under another handle, or another generation: nobody waits for it. */
    assert_true(layer_begins(link, handle, 0, 0, 1, 2048, &pieces, &token));
    assert_int_equal(pieces, 0);
    wf_receptions_run(fabrics[1], wf_vtime_now(vtime));
    assert_true(layer_begins(link, handle + (1ull << 32), 0, 0, 1, 2048, &pieces, &token));
    assert_int_equal(pieces, 0);
    assert_true(layer_begins(link, UINT64_MAX, 0, 0, 1, 2048, &pieces, &token));
    assert_int_equal(pieces, 0);
    assert_false(layer_begins(link, handle, 0, 0, 1, 2047, &pieces, &token));
    assert_false(layer_begins(link, handle, 0, 0, 1, 8192, &pieces, &token));
    assert_false(layer_begins(link, handle, 0, 1, 0, 2048, &pieces, &token));
    assert_false(layer_begins(link, handle, 0, 1, 1, 2048, &pieces, &token));
    assert_false(layer_begins(link, handle, 0, 0, 2, 2048, &pieces, &token));
    assert_false(layer_begins(link, handle, 0, 0, UINT32_MAX, 2048, &pieces, &token));
    assert_false(layer_begins(link, handle, 1, 0, 1, 2048, &pieces, &token)); /* out of turn */
    assert_false(layer_begins(link, handle, 4, 0, 1, 2048, &pieces, &token));
    assert_false(layer_begins(link, handle, UINT32_MAX, 0, 1, 2048, &pieces, &token));
    assert_true(layer_begins(link, handle, 0, 0, 1, 2048, &pieces, &token));
    assert_int_equal(pieces, 2);
    wf_reception_arrived(fabrics[1], token, WEFT_OK); /* whose sums are wrong */
    assert_false(layer_begins(link, handle, 4, 0, 1, 2048, &pieces, &token));
    /* An end that keeps what is none of it; and one that keeps what is not whole. */
    struct wf_fabric_push_end end = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUSH_END},
                                     .handle = handle,
                                     .keep = {7}};
    assert_false(wf_reception_end(link, &end, sizeof end));
    assert_false(wf_reception_end(link, &end, sizeof end - 8));
    end.keep[0] = 3;
    assert_true(wf_reception_end(link, &end, sizeof end));
    assert_int_equal(host.ends, 1);
    assert_null(host.blocks[0]);
    assert_null(host.blocks[1]);
}

static void answers_that_are_nonsense_are_none(void **state)
{
    (void)state;
    struct wf_link *link = wf_peer_find(fabrics[0], "b")->link;
    struct wf_fabric_room room = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_ROOM},
                                  .request = UINT64_MAX,
                                  .handle = 0,
                                  .status = WEFT_OK};
    assert_false(wf_push_room(link, &room, sizeof room));
    assert_false(wf_push_room(link, &room, sizeof room - 8));
    room.handle = 77;
    assert_true(wf_push_room(link, &room, sizeof room)); /* nobody waits for it */
    room.status = WEFT_FULL;
    assert_false(wf_push_room(link, &room, sizeof room));
    struct wf_fabric_pushed_said said = {.request = 3};
    assert_false(wf_push_pushed(link, &said, sizeof said - 1));
    assert_true(wf_push_pushed(link, &said, sizeof said));
    pass(100);
    assert_non_null(wf_peer_find(fabrics[0], "b")->link);
}

static void what_cannot_be_pushed_is_refused(void **state)
{
    (void)state;
    memset(&push, 0, sizeof push);
    push.count = 1;
    push.layers = 4;
    push.blocks[0].bytes = 4096;
    memcpy(push.to, "nobody", 7);
    assert_int_equal(wf_fabric_push(fabrics[0], &push), WEFT_E_NOT_FOUND);
    memcpy(push.to, "b", 2);
    push.layers = 3;
    assert_int_equal(wf_fabric_push(fabrics[0], &push), WEFT_E_INVALID);
    push.layers = 4;
    push.count = 0;
    assert_int_equal(wf_fabric_push(fabrics[0], &push), WEFT_E_INVALID);
    push.count = WF_FABRIC_PUSH_BLOCKS_MAX + 1;
    assert_int_equal(wf_fabric_push(fabrics[0], &push), WEFT_E_INVALID);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define CODED(name)                                     \
    {                                                   \
        "encoded: " #name, name, begin_coded, end, NULL \
    }
    const struct CMUnitTest tests[] = {
        TEST(layers_go_while_the_next_is_written),
        TEST(a_commit_says_that_all_is_written),
        TEST(layers_take_their_turn),
        TEST(what_waits_is_withdrawn),
        TEST(what_was_not_committed_is_not_published),
        TEST(loss_and_delay_change_nothing),
        TEST(wrong_bytes_are_not_published),
        TEST(a_sender_that_dies_leaves_nothing),
        TEST(a_receiver_that_is_cut_off_is_given_up),
        TEST(what_is_there_is_not_sent),
        TEST(refusals_end_it),
        TEST(room_that_comes_late_is_given_back),
        TEST(room_is_given_back_when_the_link_went_meanwhile),
        TEST(a_link_that_another_takes_the_place_of_takes_no_push_along),
        TEST(a_push_waits_for_the_room_that_it_had_before_its_link_was_replaced),
        TEST(who_says_nothing_loses_its_room),
        TEST(an_end_that_comes_too_late_publishes_nothing),
        TEST(a_push_that_is_nonsense_is_none),
        TEST(a_layer_that_is_nonsense_is_none),
        TEST(answers_that_are_nonsense_are_none),
        TEST(what_cannot_be_pushed_is_refused),
        CODED(layers_cross_encoded),
        CODED(a_commit_says_that_all_is_written),
        CODED(what_waits_is_withdrawn),
        CODED(what_was_not_committed_is_not_published),
        CODED(loss_and_delay_change_nothing),
        CODED(wrong_bytes_are_not_published),
        CODED(a_sender_that_dies_leaves_nothing),
        CODED(a_receiver_that_is_cut_off_is_given_up),
        CODED(what_is_there_is_not_sent),
        CODED(a_link_that_another_takes_the_place_of_takes_no_push_along),
        cmocka_unit_test_setup_teardown(what_lost_something_goes_to_who_takes_it, begin_lossy, end),
    };
    return cmocka_run_group_tests_name("fabric_push", tests, NULL, NULL);
}
