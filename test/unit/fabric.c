/* SPDX-License-Identifier: Apache-2.0
 *
 * The fabric between a few nodes in virtual time (net/sim.h): what one has the others hear of, and
 * fetch; what one lends the others use.
 */
#include "fabric/peers.h"
#include "fabric/remote.h"

#include "fabric_world.h"

#define NODES 3
#define BLOCKS_MAX 4096
#define PART 4096u

/* A block's bytes are a function of its key. */
static void content(const uint8_t key[32], uint8_t *out, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(key[i % 32] + i / 32);
}

struct block {
    struct wf_fabric_event event;
    uint8_t *data;
    bool here;
};

struct known {
    uint8_t key[32];
    bool there;
    bool lent;
};

struct node {
    struct wf_fabric *fabric;
    struct block blocks[BLOCKS_MAX];
    uint32_t count, held;
    struct known known[BLOCKS_MAX];
    uint32_t known_count;
    uint32_t offered; /* chains that were handed over to it */
    char said[4096];  /* for people, a line each */
    bool deaf;        /* takes no news */
    bool busy;        /* gives no blocks */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};
static const uint8_t secret[32] = "everybody's domain has this one";

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    if (n->busy)
        return WEFT_E_BUSY;
    for (uint32_t i = 0; i < n->count; i++) {
        struct block *b = &n->blocks[i];
        if (!b->here || b->event.domain != domain || memcmp(b->event.key, key, 32) != 0)
            continue;
        if (b->event.bytes != bytes)
            return WEFT_MISS;
        *out = (struct wf_fabric_held){.data = b->data, .bytes = bytes};
        n->held++;
        return WEFT_OK;
    }
    return WEFT_MISS;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    struct node *n = context;
    assert_non_null(held->data);
    n->held--;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    uint64_t end = *cursor + 7 < n->count ? *cursor + 7 : n->count;
    for (; *cursor < end; (*cursor)++)
        if (n->blocks[*cursor].here && n->blocks[*cursor].event.domain == domain)
            found(to, &n->blocks[*cursor].event);
    return *cursor < n->count;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    struct node *n = context;
    uint32_t i = 0;
    (void)from;
    if (n->deaf)
        return false;
    while (i < n->known_count && memcmp(n->known[i].key, block->key, 32) != 0)
        i++;
    if (i == n->known_count)
        n->known_count++;
    memcpy(n->known[i].key, block->key, 32);
    n->known[i].there = block->kind == WF_FABRIC_HERE;
    n->known[i].lent = block->where == WF_FABRIC_IN_LENT;
    return true;
}

static bool knows(const struct node *n, const uint8_t key[32])
{
    for (uint32_t i = 0; i < n->known_count; i++)
        if (memcmp(n->known[i].key, key, 32) == 0)
            return n->known[i].there && wf_fabric_elsewhere(n->fabric, key);
    return false;
}

static void told(void *context, const char *sentence)
{
    struct node *n = context;
    size_t length = strlen(n->said);
    snprintf(n->said + length, sizeof n->said - length, "%s\n", sentence);
}

static uint32_t times(const struct node *n, const char *words)
{
    uint32_t count = 0;
    for (const char *at = strstr(n->said, words); at; at = strstr(at + 1, words))
        count++;
    return count;
}

struct spec {
    const uint8_t *secret;
    const char *name; /* NULL: its own */
    uint64_t lend;
};

static void offered(void *context, const char *from, uint32_t domain, const uint8_t tip[32])
{
    (void)from, (void)domain, (void)tip;
    ((struct node *)context)->offered++;
}

static void node_begin(int i, const struct spec *spec)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    struct wf_fabric_domain domain = {.secret_bytes = 32};
    memcpy(domain.secret, spec && spec->secret ? spec->secret : secret, 32);
    options.domains = &domain;
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.each = each;
    options.host.news = news;
    options.host.told = told;
    options.host.offered = offered;
    if (spec && spec->name)
        options.name = spec->name;
    options.lend_bytes = spec ? spec->lend : 0;
    world_node(i, &options);
}

static void begin(const struct spec *specs)
{
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 7});
    for (int i = 0; i < NODES; i++)
        node_begin(i, specs ? &specs[i] : NULL);
    pass(1500);
}

static void end(void)
{
    world_end();
    for (int i = 0; i < NODES; i++) {
        assert_int_equal(nodes[i].held, 0);
        for (uint32_t b = 0; b < nodes[i].count; b++)
            free(nodes[i].blocks[b].data);
    }
}

static struct wf_fabric_event event_of(uint32_t number, uint64_t bytes)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = number, .bytes = bytes};
    for (int i = 0; i < 32; i++)
        event.key[i] = (uint8_t)((number * 2654435761u) >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    return event;
}

static const uint8_t *have(struct node *n, uint32_t number, uint64_t bytes, bool tell)
{
    struct block *b = &n->blocks[n->count++];
    b->event = event_of(number, bytes);
    b->data = malloc(bytes);
    b->here = true;
    content(b->event.key, b->data, bytes);
    if (tell)
        wf_fabric_tell(n->fabric, &b->event);
    return b->event.key;
}

static void lose(struct node *n, uint32_t at)
{
    n->blocks[at].here = false;
    struct wf_fabric_event event = n->blocks[at].event;
    event.kind = WF_FABRIC_GONE;
    wf_fabric_tell(n->fabric, &event);
}

static enum weft_status fetch_parts(struct node *n, const uint8_t key[32], uint64_t bytes,
                                    uint32_t first, uint32_t count, uint8_t *data)
{
    struct wf_fabric_fetch fetch = {.bytes = bytes,
                                    .part_bytes = PART,
                                    .first_part = first,
                                    .part_count = count,
                                    .data = data,
                                    .done = fetched};
    memcpy(fetch.key, key, 32);
    ended = false;
    wf_fabric_fetch(n->fabric, &fetch);
    return until_over(20000, 500);
}

static enum weft_status fetch(struct node *n, const uint8_t key[32], uint64_t bytes)
{
    uint8_t *data = calloc(1, bytes), *right = malloc(bytes);
    enum weft_status status = fetch_parts(n, key, bytes, 0, 0, data);
    content(key, right, bytes);
    if (status == WEFT_OK)
        assert_memory_equal(data, right, bytes);
    free(data);
    free(right);
    return status;
}

/* --------------------------------------------------------------------------------------- tests */

static void what_one_has_the_others_fetch(void **state)
{
    (void)state;
    begin(NULL);
    const uint8_t *key = have(&nodes[0], 1, 100000, true);
    pass(100);
    assert_true(knows(&nodes[1], key));
    assert_true(knows(&nodes[2], key));
    assert_false(knows(&nodes[0], key));
    assert_int_equal(fetch(&nodes[1], key, 100000), WEFT_OK);
    uint8_t data[2 * PART], right[100000];
    content(key, right, sizeof right);
    assert_int_equal(fetch_parts(&nodes[2], key, 100000, 3, 2, data), WEFT_OK);
    assert_memory_equal(data, right + 3 * PART, sizeof data);
    assert_int_equal(fetch_parts(&nodes[2], key, 100000, 24, 1, data), WEFT_OK);
    assert_memory_equal(data, right + 24 * PART, 100000 - 24 * PART);
    end();
}

static void what_was_there_before_is_told(void **state)
{
    (void)state;
    begin(NULL);
    wf_fabric_destroy(nodes[2].fabric, 0);
    nodes[2].fabric = NULL;
    for (uint32_t i = 0; i < 2000; i++)
        have(&nodes[0], i, 5000, true);
    pass(1000);
    node_begin(2, NULL);
    pass(4000);
    for (uint32_t i = 0; i < 2000; i++) {
        assert_true(knows(&nodes[1], nodes[0].blocks[i].event.key));
        assert_true(knows(&nodes[2], nodes[0].blocks[i].event.key));
    }
    assert_int_equal(fetch(&nodes[2], nodes[0].blocks[1999].event.key, 5000), WEFT_OK);
    end();
}

static void what_went_is_a_miss(void **state)
{
    (void)state;
    begin(NULL);
    const uint8_t *key = have(&nodes[0], 1, 50000, true);
    pass(100);
    nodes[0].blocks[0].here = false; /* without a word: the hint is stale */
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_MISS);
    assert_false(knows(&nodes[1], key));
    assert_true(knows(&nodes[2], key));
    lose(&nodes[0], 0);
    pass(400);
    assert_false(knows(&nodes[2], key));
    assert_int_equal(fetch(&nodes[2], key, 50000), WEFT_MISS);
    end();
}

static void another_holder_is_asked(void **state)
{
    (void)state;
    begin(NULL);
    const uint8_t *key = have(&nodes[0], 1, 50000, true);
    have(&nodes[2], 1, 50000, true);
    pass(100);
    nodes[0].blocks[0].here = false;
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_OK);
    nodes[0].blocks[0].here = true;
    lose(&nodes[2], 0);
    wf_fabric_tell(nodes[0].fabric, &nodes[0].blocks[0].event);
    pass(100);
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_OK);
    end();
}

static void what_comes_wrong_is_not_handed_out(void **state)
{
    (void)state;
    begin(NULL);
    const uint8_t *key = have(&nodes[0], 1, 1000000, true);
    pass(100);
    wf_net_sim_corrupt(world, "b", 1000000);
    assert_int_equal(fetch(&nodes[1], key, 1000000), WEFT_E_CORRUPT);
    wf_net_sim_corrupt(world, "b", 0);
    wf_fabric_tell(nodes[0].fabric, &nodes[0].blocks[0].event);
    pass(100);
    assert_int_equal(fetch(&nodes[1], key, 1000000), WEFT_OK);
    assert_int_equal(figures_of(1).fetch_corrupt, 1);
    end();
}

static void a_node_that_goes_is_forgotten(void **state)
{
    (void)state;
    begin(NULL);
    uint8_t key[32];
    memcpy(key, have(&nodes[0], 1, 50000, true), 32);
    pass(100);
    uint64_t before = wf_fabric_forgotten(nodes[1].fabric);
    wf_net_sim_kill(world, "a", true); /* its host, so that nobody is told */
    wf_fabric_destroy(nodes[0].fabric, 0);
    nodes[0].fabric = NULL;
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_E_TIMEOUT);
    pass(6000);
    assert_true(wf_fabric_forgotten(nodes[1].fabric) > before);
    assert_false(wf_fabric_elsewhere(nodes[1].fabric, key));
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_MISS);
    node_begin(0, NULL);
    pass(8000);
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, key));
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_OK);
    end();
}

/* In a list nobody has a name but by his own word: who is away keeps the one that he had. */
static void who_comes_and_goes_is_told_by_name(void **state)
{
    (void)state;
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = PART};
    begin(NULL);
    assert_int_equal(times(&nodes[0], "b is there, at"), 1);
    assert_int_equal(times(&nodes[0], "c is there, at"), 1);
    assert_true(peer_of(0, "b").up);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "a", &event, 1), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "a is this node"));
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "d", &event, 1), WEFT_E_NOT_FOUND);
    for (int round = 1; round <= 2; round++) {
        world_node_end(1);
        pass(8000);
        assert_int_equal(times(&nodes[0], "no link to b: "), round);
        assert_false(peer_of(0, "b").up);
        node_begin(1, NULL);
        pass(8000);
        assert_int_equal(times(&nodes[0], "b is there, at"), round + 1);
        assert_true(peer_of(0, "b").up);
    }
    static struct wf_fabric_peer peers[WF_FABRIC_PEERS_MAX];
    assert_int_equal(wf_fabric_peers(nodes[0].fabric, peers, WF_FABRIC_PEERS_MAX), 2);
    assert_int_equal(times(&nodes[0], "c is there, at"), 1);
    end();
}

static void of_two_nodes_of_one_name_one_has_it(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {[2] = {.name = "a"}};
    begin(specs);
    uint8_t key[32];
    memcpy(key, have(&nodes[2], 1, 50000, true), 32);
    pass(10000);
    assert_int_equal(times(&nodes[1], "two nodes call themselves a"), 1);
    assert_true(knows(&nodes[1], key));
    uint64_t forgotten = wf_fabric_forgotten(nodes[1].fabric);
    pass(20000);
    assert_int_equal(wf_fabric_forgotten(nodes[1].fabric), forgotten);
    assert_int_equal(fetch(&nodes[1], key, 50000), WEFT_OK);
    assert_int_equal(times(&nodes[1], "two nodes call themselves a"), 1);
    world_node_end(2); /* and when that is gone, the other */
    memcpy(key, have(&nodes[0], 2, 50000, true), 32);
    pass(10000);
    assert_true(knows(&nodes[1], key));
    end();
}

/* A chain that cannot be told of is no secret: it is counted, and told of once. */
static void a_chain_that_cannot_be_handed_over_is_told_of(void **state)
{
    (void)state;
    begin(NULL);
    const uint8_t *key = have(&nodes[0], 1, 50000, true);
    struct wf_fabric_event event = event_of(1, 50000);
    assert_memory_equal(event.key, key, 32);
    (void)peer_of(0, "b"); /* so that it is shown */
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(100);
    assert_int_equal(figures_of(0).offers, 1);
    assert_int_equal(figures_of(0).offers_lost, 0);
    wf_net_sim_group(world, "b", 1);
    pass(12000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(100);
    assert_int_equal(figures_of(0).offers, 1);
    assert_int_equal(figures_of(0).offers_lost, 3);
    assert_int_equal(times(&nodes[0],
                           "a chain of 1 block is not handed over to b: there is no link"),
                     1);
    end();
}

/* What it took would have to go again; who does not know that yet may offer it all the same. */
static void who_drains_is_handed_nothing(void **state)
{
    (void)state;
    begin(NULL);
    (void)have(&nodes[0], 1, 50000, true);
    struct wf_fabric_event event = event_of(1, 50000);
    (void)peer_of(0, "b");
    wf_fabric_drain(nodes[1].fabric, true);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(3000);
    assert_int_equal(nodes[1].offered, 0);
    assert_true(peer_of(0, "b").draining);
    uint64_t lost = figures_of(0).offers_lost;
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(100);
    assert_int_equal(figures_of(0).offers_lost, lost + 1);
    assert_int_equal(nodes[1].offered, 0);
    wf_fabric_drain(nodes[1].fabric, false);
    pass(3000);
    assert_false(peer_of(0, "b").draining);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(100);
    assert_int_equal(nodes[1].offered, 1);
    end();
}

static void domains_with_another_secret_see_nothing(void **state)
{
    (void)state;
    static const uint8_t other[32] = "this one nobody else has at all";
    const struct spec specs[NODES] = {[2] = {.secret = other}};
    begin(specs);
    const uint8_t *key = have(&nodes[0], 1, 5000, true);
    pass(200);
    assert_true(knows(&nodes[1], key));
    assert_false(knows(&nodes[2], key));
    assert_int_equal(nodes[2].known_count, 0);
    assert_int_equal(fetch(&nodes[2], key, 5000), WEFT_MISS);
    end();
}

static void who_had_no_room_hears_it_again(void **state)
{
    (void)state;
    begin(NULL);
    nodes[1].deaf = true;
    const uint8_t *key = have(&nodes[0], 1, 5000, true);
    pass(200);
    assert_false(knows(&nodes[1], key));
    nodes[1].deaf = false;
    wf_fabric_room_again(nodes[1].fabric);
    pass(500);
    assert_true(knows(&nodes[1], key));
    end();
}

static void more_changes_than_the_log_holds_are_told_anew(void **state)
{
    (void)state;
    begin(NULL);
    for (uint32_t i = 0; i < 3000; i++)
        have(&nodes[0], i, 100, false);
    for (uint32_t i = 0; i < 100000; i++) /* 65,536 fit */
        wf_fabric_tell(nodes[0].fabric, &nodes[0].blocks[i % 3000].event);
    pass(3000);
    for (uint32_t i = 0; i < 3000; i++)
        assert_true(knows(&nodes[1], nodes[0].blocks[i].event.key));
    end();
}

/* ---------------------------------------------------------------------------------------- lent */

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    over(status);
}

static enum weft_status store(struct node *n, uint32_t number, uint64_t bytes)
{
    uint8_t *data = malloc(bytes);
    struct wf_fabric_store s = {.block = event_of(number, bytes),
                                .part_bytes = PART,
                                .data = data,
                                .done = stored};
    content(s.block.key, data, bytes);
    ended = false;
    wf_fabric_store(n->fabric, &s);
    (void)until_over(10000, 100);
    free(data);
    return outcome;
}

static void counted(struct wf_fabric_store *store, enum weft_status status)
{
    *(enum weft_status *)store->user = status;
}

/* One that waits for an answer that does not come, and one that was asked for just then. */
static void what_is_cancelled_takes_nothing_else_along(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {[1] = {.lend = 16 << 20}};
    static uint8_t data[2][5000];
    enum weft_status ends[2] = {WEFT_PENDING, WEFT_PENDING};
    struct wf_fabric_store stores[2];
    begin(specs);
    for (uint32_t i = 0; i < 2; i++) {
        stores[i] = (struct wf_fabric_store){.block = event_of(i, sizeof data[i]),
                                             .part_bytes = PART,
                                             .data = data[i],
                                             .done = counted,
                                             .user = &ends[i]};
        content(stores[i].block.key, data[i], sizeof data[i]);
    }
    pass(500);
    wf_net_sim_block(world, "b", "a", true);
    wf_fabric_store(nodes[0].fabric, &stores[0]);
    pass(50);
    assert_int_equal(ends[0], WEFT_PENDING);
    wf_fabric_store(nodes[0].fabric, &stores[1]);
    wf_fabric_store_cancel(nodes[0].fabric, &stores[0]);
    pass(50);
    assert_int_equal(ends[0], WEFT_E_TIMEOUT);
    wf_net_sim_block(world, "b", "a", false);
    pass(60000);
    assert_int_not_equal(ends[1], WEFT_PENDING);
    end();
}

static void memory_that_is_lent_is_everybodys(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {[1] = {.lend = 16 << 20}};
    begin(specs);
    struct wf_fabric_event event = event_of(5, 123456);
    assert_int_equal(store(&nodes[0], 5, 123456), WEFT_OK);
    assert_int_equal(store(&nodes[2], 5, 123456), WEFT_EXISTS);
    pass(200);
    assert_true(knows(&nodes[2], event.key));
    assert_int_equal(fetch(&nodes[0], event.key, 123456), WEFT_OK);
    assert_int_equal(fetch(&nodes[2], event.key, 123456), WEFT_OK);
    wf_fabric_drop(nodes[2].fabric, event.key); /* it is not its own */
    pass(200);
    assert_int_equal(fetch(&nodes[2], event.key, 123456), WEFT_OK);
    wf_fabric_drop(nodes[0].fabric, event.key);
    pass(200);
    assert_int_equal(fetch(&nodes[2], event.key, 123456), WEFT_MISS);
    end();
}

static void what_is_lent_is_shared_when_it_is_short(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {[1] = {.lend = 16 << 20}};
    begin(specs);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < 40; i++) /* a MiB each; all of it is free */
        kept += store(&nodes[0], i, 1 << 20) == WEFT_OK;
    assert_in_range(kept, 14, 15);
    for (uint32_t i = 100; i < 140; i++)
        kept += store(&nodes[2], i, 1 << 20) == WEFT_OK;
    pass(500);
    uint32_t first = 0, second = 0;
    for (uint32_t i = 0; i < 40; i++)
        first += knows(&nodes[1], event_of(i, 1).key) || knows(&nodes[2], event_of(i, 1).key);
    for (uint32_t i = 100; i < 140; i++)
        second += knows(&nodes[0], event_of(i, 1).key);
    assert_in_range(first, 6, 9);
    assert_in_range(second, 6, 9);
    end();
}

static void allotted(struct node *lender, const char *name, uint64_t most, uint64_t least)
{
    while (wf_fabric_allot(lender->fabric, NULL, name, most, least) == WEFT_PENDING)
        pass(20);
    pass(1000);
}

static void lends(struct node *lender, uint64_t bytes)
{
    while (wf_fabric_lend(lender->fabric, NULL, bytes) == WEFT_PENDING)
        pass(20);
    pass(1000);
}

/* What goes may be the last copies: the lender says how many, and nothing where nothing changed. */
static void an_order_says_what_went_for_it(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {[1] = {.lend = 16 << 20}};
    begin(specs);
    struct node *b = &nodes[1];
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(store(&nodes[0], i, (1 << 20) - 8192), WEFT_OK);
    assert_int_equal(times(b, "of what this node lends"), 0);
    assert_int_equal(times(b, "this node lends"), 0);
    allotted(b, "a", 9 << 20, 0);
    assert_int_equal(times(b, "a may have 9 MiB of what this node lends; 3 blocks, "), 1);
    allotted(b, "a", 9 << 20, 0);
    assert_int_equal(times(b, "a may have"), 1);
    allotted(b, "a", 0, 1 << 20);
    assert_int_equal(
        times(b, "a may have its part of what this node lends, and is due 1 MiB at least\n"), 1);
    lends(b, 8 << 20);
    assert_int_equal(times(b, "this node lends 8 MiB from now on; 1 block, "), 1);
    lends(b, 8 << 20);
    lends(b, 16 << 20);
    assert_int_equal(times(b, "this node lends 8 MiB"), 1);
    assert_int_equal(times(b, "this node lends 16 MiB from now on\n"), 1);
    end();
}

static uint32_t parts(uint64_t block_bytes)
{
    (void)block_bytes;
    return PART;
}

/* Who reads the tier says what its sentence is: never that of something else that went wrong. */
static void a_node_that_cannot_give_now_is_named_as_that(void **state)
{
    (void)state;
    static _Alignas(4096) uint8_t data[13 * PART];
    const uint8_t tags[1][32] = {"the domain"};
    struct wf_peers *peers;
    struct wf_tier *tier;
    struct wf_tier_request read = {.op = WF_TIER_READ,
                                   .block = {.bytes = sizeof data, .part_bytes = PART},
                                   .data = data},
                           *done;
    begin(NULL);
    memcpy(read.block.key, have(&nodes[0], 1, sizeof data, true), 32);
    memcpy(read.block.format, tags[0], 32);
    pass(100);
    assert_int_equal(wf_peers_create(tags, NULL, 1, parts, &peers), WEFT_OK);
    wf_peers_attach(peers, nodes[1].fabric);
    const struct wf_tier_options options = {.path = "peers", .queue_depth = 1, .peers = peers};
    assert_int_equal(wf_tier_peers.open(&options, &tier), WEFT_OK);
    nodes[0].busy = true;
    (void)wf_fail(WEFT_E_INVALID, "something else");
    assert_int_equal(wf_tier_peers.submit(tier, &read), WEFT_OK);
    pass(2000);
    assert_int_equal(wf_tier_peers.reap(tier, &done, 1, 0), 1);
    assert_int_equal(done->status, WEFT_E_BUSY);
    assert_non_null(strstr(wf_last_error(), "cannot give it now"));
    wf_tier_peers.close(tier);
    wf_peers_attach(peers, NULL);
    end();
    wf_peers_destroy(peers);
}

static uint64_t capacity(const struct wf_tier *tier)
{
    struct wf_tier_stats stats;
    wf_tier_remote.stats(tier, &stats);
    return stats.capacity_bytes;
}

/* Room in others' memory is as of their last word.  Who drops a block for room, and takes what it
 * held to be gone with it, drops the next one for the same, and so on. */
static void what_is_dropped_is_room_before_the_lender_says_so(void **state)
{
    (void)state;
    enum { BLOCKS = 64, BYTES = 16 * PART };
    static _Alignas(4096) uint8_t data[BYTES];
    struct spec specs[NODES] = {{0}, {.lend = (uint64_t)2 * BLOCKS * BYTES}, {0}};
    const uint8_t tags[1][32] = {"the domain"};
    struct wf_peers *peers;
    struct wf_tier *tier;
    struct wf_tier_request write[BLOCKS], *done;
    begin(specs);
    assert_int_equal(wf_peers_create(tags, NULL, 1, parts, &peers), WEFT_OK);
    wf_peers_attach(peers, nodes[0].fabric);
    const struct wf_tier_options options = {.path = "remote",
                                            .queue_depth = BLOCKS,
                                            .peers = peers};
    assert_int_equal(wf_tier_remote.open(&options, &tier), WEFT_OK);
    pass(1500);
    uint64_t room = capacity(tier);
    assert_int_equal(room, 2 * BLOCKS * BYTES);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        write[i] = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                            .block = {.bytes = BYTES, .part_bytes = PART},
                                            .data = data};
        write[i].block.key[0] = (uint8_t)i;
        memcpy(write[i].block.format, tags[0], 32);
        assert_int_equal(wf_tier_remote.submit(tier, &write[i]), WEFT_OK);
        assert_int_equal(capacity(tier), room); /* neither is what is put there twice */
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        while (wf_tier_remote.reap(tier, &done, 1, 0) == 0)
            pass(1);
        assert_int_equal(done->status, WEFT_OK);
        assert_int_equal(capacity(tier), room); /* neither is what is put there twice */
    }
    pass(20000); /* what may have been counted twice on its way is not for ever */
    (void)capacity(tier);
    pass(20000);
    assert_in_range(capacity(tier), room - (uint64_t)BLOCKS * 4096, room); /* with sums */
    room = capacity(tier);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(wf_tier_remote.remove(tier, write[i].block.key), WEFT_OK);
        assert_int_equal(capacity(tier), room);
    }
    world_node_end(1); /* with what it lent */
    pass(20000);
    (void)capacity(tier);
    pass(20000);
    assert_int_equal(capacity(tier), 0);
    wf_tier_remote.close(tier);
    wf_peers_attach(peers, NULL);
    end();
    wf_peers_destroy(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_has_the_others_fetch),
        cmocka_unit_test(what_was_there_before_is_told),
        cmocka_unit_test(what_went_is_a_miss),
        cmocka_unit_test(another_holder_is_asked),
        cmocka_unit_test(what_comes_wrong_is_not_handed_out),
        cmocka_unit_test(a_node_that_goes_is_forgotten),
        cmocka_unit_test(who_comes_and_goes_is_told_by_name),
        cmocka_unit_test(of_two_nodes_of_one_name_one_has_it),
        cmocka_unit_test(a_node_that_cannot_give_now_is_named_as_that),
        cmocka_unit_test(a_chain_that_cannot_be_handed_over_is_told_of),
        cmocka_unit_test(who_drains_is_handed_nothing),
        cmocka_unit_test(domains_with_another_secret_see_nothing),
        cmocka_unit_test(who_had_no_room_hears_it_again),
        cmocka_unit_test(more_changes_than_the_log_holds_are_told_anew),
        cmocka_unit_test(what_is_cancelled_takes_nothing_else_along),
        cmocka_unit_test(memory_that_is_lent_is_everybodys),
        cmocka_unit_test(what_is_lent_is_shared_when_it_is_short),
        cmocka_unit_test(an_order_says_what_went_for_it),
        cmocka_unit_test(what_is_dropped_is_room_before_the_lender_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
