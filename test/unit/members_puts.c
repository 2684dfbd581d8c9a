/* SPDX-License-Identifier: Apache-2.0
 *
 * What a member may do in another's name with memory that is lent, between nodes in virtual time
 * and somebody who is one of them by every proof: fill its own allotment, and nobody else's.
 */
#include "base/sum.h"
#include "fabric/inner.h"
#include "fabric_stranger.h"

#define NODES 3
#define PART 4096u
#define LENT (1u << 20)
#define BLOCK (64u << 10)

struct node {
    struct wf_fabric *fabric;
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};
static const char *const secrets[1] = {"one for all"};
static struct stranger x;
static uint8_t bytes_of_all[BLOCK];

/* None of them has a block of its own. */
static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    (void)context, (void)domain, (void)key, (void)bytes, (void)out;
    return WEFT_MISS;
}

/* a lends, b has blocks to put, c is called by nobody until a test begins it. */
static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 7});
    memset(bytes_of_all, 'b', sizeof bytes_of_all);
    for (int i = 0; i < 2; i++) {
        struct wf_fabric_options options = world_options(names, NODES, i);
        options.lend_bytes = i == 0 ? LENT : 0;
        options.host.hold = hold;
        world_node(i, &options);
    }
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    wf_lent_verify(nodes[0].fabric->lent);
    world_end();
    return 0;
}

static void comes_in(struct stranger *s, const char *name)
{
    struct wf_fabric_ident ident = stranger_ident(name);
    ident.epoch = 1;
    stranger_begin(s, NULL, names[0]);
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 10);
    stranger_joins(s, secrets, 1);
    stranger_waits(s, 10);
    assert_false(s->down);
    pass(200); /* a counts who is here now and then */
}

static struct wf_fabric_event block(uint8_t number)
{
    return (struct wf_fabric_event){.kind = WF_FABRIC_HERE, .bytes = BLOCK, .key = {number, 1}};
}

/* A message and its payload, which are read until it has been sent. */
struct put {
    struct wf_net_message message; /* first */
    struct iovec piece;
    struct {
        struct wf_fabric_put put;
        uint64_t sums[BLOCK / PART];
    } header;
};

static void put_sent(struct wf_net_message *message, enum weft_status status)
{
    (void)status;
    free(message);
}

static void puts_for(struct stranger *s, uint8_t number, const char *owner)
{
    struct put *put = calloc(1, sizeof *put);
    assert_non_null(put);
    put->header.put = (struct wf_fabric_put){.head = {.magic = WF_FABRIC_MAGIC,
                                                      .kind = WF_FABRIC_PUT},
                                             .request = number,
                                             .part_bytes = PART,
                                             .part_count = BLOCK / PART,
                                             .copies = 1,
                                             .block = block(number)};
    snprintf(put->header.put.owner, sizeof put->header.put.owner, "%s", owner);
    for (uint32_t i = 0; i < BLOCK / PART; i++)
        put->header.sums[i] = wf_sum64(bytes_of_all + i * PART, PART);
    put->piece = (struct iovec){.iov_base = bytes_of_all, .iov_len = BLOCK};
    put->message = (struct wf_net_message){.header = &put->header,
                                           .header_bytes = sizeof put->header,
                                           .pieces = &put->piece,
                                           .piece_count = 1,
                                           .sent = put_sent};
    assert_int_equal(wf_net_sim.send(s->link, &put->message), WEFT_OK);
    stranger_waits(s, 20);
}

static bool is_lent(uint8_t number)
{
    return wf_lent_has(nodes[0].fabric->lent, 0, block(number).key, NULL);
}

static struct wf_lent_owner account(const char *name)
{
    struct wf_lent_owner owner = {.blocks = 0};
    const struct wf_peer_node *peer = wf_peer_find(nodes[0].fabric, name);
    assert_non_null(peer);
    wf_lent_owner(nodes[0].fabric->lent, peer->number, &owner);
    return owner;
}

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    over(status);
}

static enum weft_status b_puts(uint8_t number)
{
    struct wf_fabric_store store = {.block = block(number),
                                    .part_bytes = PART,
                                    .data = bytes_of_all,
                                    .done = stored};
    ended = false;
    wf_fabric_store(nodes[1].fabric, &store);
    return until_over(20000, 20);
}

static void what_is_put_for_another_is_of_who_puts_it(void **state)
{
    (void)state;
    comes_in(&x, "x");
    puts_for(&x, 1, "b");
    assert_true(is_lent(1));
    assert_int_equal(account("b").blocks, 0);
    assert_int_equal(account("b").bytes, 0);
    assert_int_equal(account("x").blocks, 1);
    /* Whom it is for may have it dropped, and nobody else. */
    struct wf_fabric_drop drop = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_DROP}};
    memcpy(drop.key, block(1).key, 32);
    struct stranger y;
    comes_in(&y, "y");
    stranger_says(&y, &drop, sizeof drop);
    stranger_waits(&y, 20);
    assert_true(is_lent(1));
    /* Nor who put it there, who has no use of its own for it. */
    stranger_says(&x, &drop, sizeof drop);
    stranger_waits(&x, 20);
    assert_true(is_lent(1));
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, block(1).key));
    wf_fabric_drop(nodes[1].fabric, block(1).key);
    pass(50);
    assert_false(is_lent(1));
    puts_for(&x, 1, "");
    assert_true(is_lent(1));
    stranger_says(&x, &drop, sizeof drop);
    stranger_waits(&x, 20);
    assert_false(is_lent(1));
    stranger_end(&y);
    stranger_end(&x);
}

/* Whatever somebody puts in its name, a node has as much room as without. */
static void nobody_fills_what_another_is_due(void **state)
{
    (void)state;
    comes_in(&x, "x");
    for (uint8_t i = 1; i < 40 && !x.down; i++)
        puts_for(&x, i, "b");
    struct wf_lent_owner of_x = account("x"), of_b = account("b");
    assert_int_equal(of_b.blocks, 0);
    assert_true(of_x.blocks > LENT / BLOCK / 2);
    uint64_t fits = of_b.due_bytes / wf_lent_takes(BLOCK, PART);
    assert_true(fits >= 4);
    for (uint8_t i = 0; i < fits; i++)
        assert_int_equal(b_puts((uint8_t)(100 + i)), WEFT_OK);
    assert_int_equal(account("b").blocks, fits);
    stranger_end(&x);
}

/* A node that has gone left blocks there: they are its own again when it is back, and never those
 * of another that came meanwhile. */
static void what_a_node_left_is_not_the_next_ones(void **state)
{
    (void)state;
    comes_in(&x, "x");
    puts_for(&x, 1, "");
    assert_int_equal(account("x").blocks, 1);
    stranger_end(&x);
    pass(200);
    assert_null(wf_peer_find(nodes[0].fabric, "x"));
    assert_true(is_lent(1));
    struct stranger y;
    comes_in(&y, "y");
    assert_int_equal(account("y").blocks, 0);
    comes_in(&x, "x");
    assert_int_equal(account("x").blocks, 1);
    assert_int_equal(account("y").blocks, 0);
    stranger_end(&y);
    stranger_end(&x);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_put_for_another_is_of_who_puts_it),
        TEST(nobody_fills_what_another_is_due),
        TEST(what_a_node_left_is_not_the_next_ones),
    };
    return cmocka_run_group_tests_name("puts in another's name", tests, NULL, NULL);
}
