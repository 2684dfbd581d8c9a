/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a request should run, by what the fabric of each of a few nodes in virtual time knows.
 *
 * With --measure N K L it prints instead what an answer takes, of N nodes and a chain of K blocks:
 * L 0: of which each node has more from the first on than the one before; else the first L lend
 * memory, and have them in turns.
 */
#include "sys/clock.h"

#include "fabric_world.h"

#define NODES_MAX 32
#define BLOCKS_MAX 2048

struct node {
    struct wf_fabric *fabric;
    char address[16];
    uint8_t keys[BLOCKS_MAX][32];
    uint32_t count;
    uint32_t near, held; /* of whatever chain it is asked about itself */
};

static struct node nodes[NODES_MAX];
static int node_count, lenders; /* the first of them lend memory */
static uint8_t chain[BLOCKS_MAX][32];
static struct wf_routes_answer answer;

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    (void)context, (void)domain, (void)key, (void)bytes, (void)out;
    return WEFT_MISS;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)context, (void)held;
}

static struct wf_fabric_event event_of(const uint8_t key[32])
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = 1 << 20};
    memcpy(event.key, key, 32);
    return event;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    (void)domain;
    for (; *cursor < n->count; (*cursor)++) {
        struct wf_fabric_event event = event_of(n->keys[*cursor]);
        found(to, &event);
    }
    return false;
}

static void own(void *context, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                struct wf_routes_own *out)
{
    const struct node *n = context;
    (void)domain, (void)keys;
    out->near_blocks = n->near < count ? n->near : count;
    out->held_blocks = n->held < count ? n->held : count;
    if (out->held_blocks < out->near_blocks)
        out->held_blocks = out->near_blocks;
    out->below = (struct wf_route_way){.latency_s = 1e-4, .bytes_s = 1e9};
}

static void node_begin(int i, const char *secret)
{
    const char *names[NODES_MAX];
    for (int k = 0; k < node_count; k++)
        names[k] = nodes[k].address;
    struct wf_fabric_options options = world_options(names, node_count, i);
    struct wf_fabric_domain domain = {.secret_bytes = 32};
    snprintf((char *)domain.secret, sizeof domain.secret, "%s", secret);
    options.domains = &domain;
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.each = each;
    options.host.own = own;
    options.replica_copies = 65536;
    options.show_ms = 100;
    options.seed = 5;
    options.lend_bytes = i < lenders ? 1 << 20 : 0;
    world_node(i, &options);
}

/* `last_secret`: of the last node's domain. */
static void begin_with(int count, const char *last_secret)
{
    node_count = count;
    world_begin(nodes, sizeof nodes[0], NODES_MAX, &(struct wf_net_sim_options){.seed = 7});
    for (int i = 0; i < count; i++)
        snprintf(nodes[i].address, sizeof nodes[i].address, "sim:%c%d", 'a' + i, i);
    for (int i = 0; i < count; i++)
        node_begin(i, i == count - 1 ? last_secret : "one for all");
    for (uint32_t i = 0; i < BLOCKS_MAX; i++)
        for (uint32_t b = 0; b < 32; b++)
            chain[i][b] = (uint8_t)(((i + 1) * 2654435761u) >> (b % 4 * 8)) ^ (uint8_t)(b * 37);
    pass(2500);
}

static void begin(void)
{
    begin_with(3, "one for all");
}

static void begin_lenders(void)
{
    lenders = 2;
    begin_with(4, "one for all");
    lenders = 0;
}

/* It has the first `blocks` of the chain. */
static void have(int i, uint32_t blocks)
{
    struct node *n = &nodes[i];
    for (; n->count < blocks; n->count++) {
        memcpy(n->keys[n->count], chain[n->count], 32);
        struct wf_fabric_event event = event_of(chain[n->count]);
        wf_fabric_tell(n->fabric, &event);
    }
    n->near = blocks;
    pass(200);
}

/* It has one block of `every`, from `first` on, of those below `end`. */
static void have_some(int i, uint32_t first, uint32_t every, uint32_t end)
{
    struct node *n = &nodes[i];
    for (uint32_t block = first; block < end; block += every) {
        memcpy(n->keys[n->count++], chain[block], 32);
        struct wf_fabric_event event = event_of(chain[block]);
        wf_fabric_tell(n->fabric, &event);
    }
    pass(200);
}

static struct wf_routes_question question_of(uint32_t blocks)
{
    return (struct wf_routes_question){
        .keys = (const uint8_t(*)[32])chain,
        .count = blocks,
        .request = {.tokens = blocks * 16.0,
                    .block_tokens = 16,
                    .block_bytes = 2 << 20,
                    .layers = 32,
                    .prefill = {.token_s = 1e-4, .attended_s = 1e-9}},
    };
}

static struct wf_routes_candidate candidate(int i, double queued_tokens)
{
    struct wf_routes_candidate out = {.loaded = true,
                                      .load = {.queued_tokens = queued_tokens, .tokens_s = 10000}};
    memcpy(out.name, nodes[i].address + 4, sizeof nodes[i].address - 4);
    return out;
}

static void route(int i, const struct wf_routes_question *question)
{
    if (wf_fabric_route(nodes[i].fabric, question, &answer) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static const struct wf_routes_term *chosen(void)
{
    assert_true(answer.chosen < answer.count);
    return &answer.terms[answer.chosen];
}

static const struct wf_routes_term *term_of(int i)
{
    for (uint32_t k = 0; k < answer.count + answer.others; k++)
        if (strcmp(answer.terms[k].name, nodes[i].address + 4) == 0)
            return &answer.terms[k];
    fail_msg("there is no %s", nodes[i].address + 4);
    return NULL;
}

/* --------------------------------------------------------------------------------------- tests */

static void a_node_alone_is_the_answer(void **state)
{
    (void)state;
    struct node one = {.near = 8, .held = 12};
    const struct wf_routes_options options = {.name = "one", .context = &one, .own = own};
    struct wf_routes *routes;
    char say[256];
    assert_int_equal(wf_routes_create(&options, &routes), WEFT_OK);
    struct wf_routes_question q = question_of(20);
    assert_int_equal(wf_routes_ask(routes, 1000 * MS, &q, &answer), WEFT_OK);
    assert_string_equal(chosen()->name, "one");
    assert_int_equal(answer.count, 1);
    assert_int_equal(chosen()->near_blocks, 8);
    assert_int_equal(chosen()->held_blocks, 12);
    assert_int_equal(chosen()->term.action, WF_ROUTE_LOCAL);
    assert_true(chosen()->term.hit_tokens >= 8 * 16 && chosen()->term.hit_tokens <= 12 * 16);
    assert_true(wf_routes_say(&answer, answer.chosen, say, sizeof say) > 0);
    assert_non_null(strstr(say, "of 320 tokens"));
    q.closed = true;
    assert_int_equal(wf_routes_ask(routes, 1000 * MS, &q, &answer), WEFT_OK);
    assert_int_equal(answer.chosen, WF_ROUTE_NONE);
    wf_routes_destroy(routes);
}

static void it_runs_where_its_blocks_are(void **state)
{
    (void)state;
    begin();
    have(0, 64);
    struct wf_routes_question q = question_of(64);
    for (int i = 0; i < 3; i++) {
        q.asks_only = true;
        route(i, &q);
        assert_int_equal(answer.count, 3);
        assert_string_equal(chosen()->name, nodes[0].address + 4);
        assert_int_equal(chosen()->term.action, WF_ROUTE_LOCAL);
        assert_int_equal(chosen()->term.load_blocks, 64);
        assert_int_equal(term_of(1)->held_blocks, 0);
    }
    world_end();
}

static void blocks_go_where_the_request_does(void **state)
{
    (void)state;
    char say[256];
    begin();
    have(0, 64);
    const struct wf_routes_candidate busy[] = {candidate(0, 500000), candidate(1, 0)};
    struct wf_routes_question q = question_of(64);
    q.candidates = busy;
    q.candidate_count = 2;
    route(2, &q);
    assert_int_equal(answer.chosen, 1);
    assert_int_equal(chosen()->term.action, WF_ROUTE_FETCH);
    assert_int_equal(chosen()->term.source, 0);
    assert_int_equal(chosen()->term.fetch_blocks, 64);
    assert_true(chosen()->term.ttft_s < term_of(0)->term.ttft_s);
    assert_true(wf_routes_say(&answer, 1, say, sizeof say) > 0);
    assert_non_null(strstr(say, "from elsewhere: a0"));
    /* Who has it need not be a candidate. */
    q.candidates = &busy[1];
    q.candidate_count = 1;
    q.asks_only = true;
    pass(60000); /* what is on its way from the first question is forgotten */
    route(2, &q);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(chosen()->term.action, WF_ROUTE_FETCH);
    assert_true(chosen()->term.source >= answer.count);
    assert_string_equal(answer.terms[chosen()->term.source].name, "a0");
    world_end();
}

/* As lenders do that get blocks as they have room. */
static void several_have_it_between_them(void **state)
{
    (void)state;
    char say[256];
    begin_lenders();
    have_some(0, 0, 2, 900);
    have_some(1, 1, 2, 900);
    const struct wf_routes_candidate idle[] = {candidate(2, 0), candidate(3, 0)};
    struct wf_routes_question q = question_of(64);
    q.candidates = idle;
    q.candidate_count = 2;
    route(2, &q);
    assert_int_equal(chosen()->held_blocks, 0);
    assert_int_equal(chosen()->term.action, WF_ROUTE_FETCH);
    assert_int_equal(chosen()->term.fetch_blocks, 64);
    assert_string_equal(answer.terms[chosen()->term.source].name, "several nodes");
    assert_true(wf_routes_say(&answer, answer.chosen, say, sizeof say) > 0);
    assert_non_null(strstr(say, "64 of them from elsewhere: several nodes"));
    /* To its end, wherever that is; who has some of it gets the rest. */
    q = question_of(1000);
    q.candidates = idle;
    q.candidate_count = 2;
    q.asks_only = true;
    pass(60000);
    route(3, &q);
    assert_int_equal(chosen()->term.load_blocks, 900);
    const struct wf_routes_candidate one = candidate(0, 0);
    q.candidates = &one;
    q.candidate_count = 1;
    route(3, &q);
    assert_int_equal(chosen()->held_blocks, 1);
    assert_int_equal(chosen()->term.load_blocks, 900);
    assert_int_equal(chosen()->term.fetch_blocks, 899);
    /* Nobody is called that; and who has all is a better source. */
    struct wf_routes_candidate none = candidate(0, 0);
    snprintf(none.name, sizeof none.name, "several nodes");
    q.candidates = &none;
    route(3, &q);
    assert_int_equal(answer.terms[0].why, WF_ROUTES_UNKNOWN);
    have(2, 1000);
    const struct wf_routes_candidate last = candidate(3, 0);
    q.candidates = &last;
    route(3, &q);
    assert_int_equal(chosen()->term.load_blocks, 1000);
    assert_string_equal(answer.terms[chosen()->term.source].name, "c2");
    world_end();
}

/* How much longer a second fetch of a chain that several have takes than the first, elsewhere. */
static double second_to_first(uint32_t blocks)
{
    double fetch_s[2];
    for (int i = 0; i < 2; i++) {
        const struct wf_routes_candidate idle = candidate(2 + i, 0);
        struct wf_routes_question q = question_of(blocks);
        q.candidates = &idle;
        q.candidate_count = 1;
        q.request.id = (uint64_t)i;
        route(2, &q);
        assert_string_equal(answer.terms[chosen()->term.source].name, "several nodes");
        assert_int_equal(chosen()->term.fetch_blocks, blocks);
        fetch_s[i] = chosen()->term.fetch_s;
    }
    assert_true(fetch_s[0] > 0);
    return fetch_s[1] / fetch_s[0];
}

/* With a link each they give more than one of them would: none waits for another's. */
static void what_several_have_is_no_queue(void **state)
{
    (void)state;
    begin_lenders();
    have_some(0, 0, 2, 64);
    have_some(1, 1, 2, 64);
    assert_true(second_to_first(64) < 1.9);
    world_end();
}

/* Of what comes from one, but for an end that lies elsewhere, one fetch waits for another. */
static void a_stray_end_is_no_way_round_a_queue(void **state)
{
    (void)state;
    begin_lenders();
    have(0, 60);
    have_some(1, 60, 2, 62);
    assert_true(second_to_first(61) > 1.9);
    world_end();
}

static void who_only_asks_says_nothing_of_loads(void **state)
{
    (void)state;
    begin();
    have(0, 64);
    struct wf_routes_candidate c[] = {candidate(0, 500000), candidate(1, 0), candidate(0, 900000)};
    struct wf_routes_question q = question_of(64);
    q.candidates = c;
    q.candidate_count = 3;
    q.asks_only = true;
    route(2, &q);
    assert_int_equal(answer.chosen, 1);
    assert_true(term_of(0)->term.queue_s > 1);
    c[0].loaded = c[1].loaded = c[2].loaded = false;
    route(2, &q);
    assert_int_equal(answer.chosen, 0);
    assert_true(term_of(0)->term.queue_s <= 0);
    /* What a request that goes somewhere says is kept, also when somebody asks meanwhile. */
    c[0].loaded = true;
    q.candidate_count = 2;
    q.asks_only = false;
    route(2, &q);
    c[0].load.queued_tokens = 0;
    q.asks_only = true;
    route(2, &q);
    assert_true(term_of(0)->term.queue_s <= 0);
    c[0].loaded = false;
    route(2, &q);
    assert_int_equal(answer.chosen, 1);
    assert_true(term_of(0)->term.queue_s > 1);
    world_end();
}

static void nobody_becomes_a_hot_spot(void **state)
{
    (void)state;
    uint32_t sent[3] = {0};
    begin();
    have(0, 64);
    struct wf_routes_question q = question_of(64);
    q.request.tokens += 4000; /* that nobody has */
    for (uint64_t i = 0; i < 300; i++) {
        q.request.id = i;
        route(1, &q);
        for (uint32_t k = 0; k < 3; k++)
            sent[k] += strcmp(chosen()->name, nodes[k].address + 4) == 0;
        pass(20);
    }
    for (int k = 0; k < 3; k++)
        assert_true(sent[k] >= 60);
    world_end();
}

static void who_cannot_serve_says_why(void **state)
{
    (void)state;
    begin();
    have(0, 64);
    struct wf_routes_candidate c[4] = {candidate(0, 0), candidate(1, 0), candidate(1, 0),
                                       candidate(2, 0)};
    snprintf(c[3].name, sizeof c[3].name, "nobody");
    c[1].load.closed = true;
    struct wf_routes_question q = question_of(64);
    q.candidates = c;
    q.candidate_count = 4;
    q.asks_only = true;
    route(2, &q);
    assert_string_equal(chosen()->name, "a0");
    assert_int_equal(answer.terms[1].why, WF_ROUTES_CLOSED);
    assert_int_equal(answer.terms[2].why, WF_ROUTES_NOT_ASKED);
    assert_int_equal(answer.terms[3].why, WF_ROUTES_UNKNOWN);
    wf_fabric_drain(nodes[0].fabric, true);
    pass(2000);
    for (int asked = 0; asked < 3; asked += 2) { /* itself says of itself what others do */
        route(asked, &q);
        assert_int_equal(term_of(0)->why, WF_ROUTES_DRAINING);
    }
    wf_fabric_drain(nodes[0].fabric, false);
    pass(2000);
    route(0, &q);
    assert_string_equal(chosen()->name, "a0");
    wf_net_sim_kill(world, "a0", true);
    wf_fabric_destroy(nodes[0].fabric, 0);
    nodes[0].fabric = NULL;
    pass(7000);
    c[1].load.closed = false;
    route(2, &q);
    enum wf_routes_why why = term_of(0)->why; /* without a registry its name goes with its link */
    assert_true(why == WF_ROUTES_AWAY || why == WF_ROUTES_UNKNOWN);
    assert_string_equal(chosen()->name, "b1");
    assert_int_equal(chosen()->term.action, WF_ROUTE_RECOMPUTE);
    node_begin(0, "one for all"); /* it has another number in the replica from now on */
    pass(9000);
    route(2, &q);
    assert_string_equal(chosen()->name, "a0");
    assert_int_equal(chosen()->held_blocks, 64);
    world_end();
}

static void every_fourth_key_will_do(void **state)
{
    (void)state;
    static uint8_t some[16][32];
    begin();
    have(0, 50);
    for (int i = 0; i < 16; i++)
        memcpy(some[i], chain[4 * i + 3], 32);
    struct wf_routes_question q = question_of(64);
    q.keys = (const uint8_t(*)[32])some;
    q.count = 16;
    q.stride = 4;
    route(1, &q);
    assert_string_equal(chosen()->name, "a0");
    assert_int_equal(chosen()->held_blocks, 48);
    assert_int_equal(chosen()->term.load_blocks, 48);
    assert_true(chosen()->term.hit_tokens == 48 * 16);
    world_end();
}

static void a_domain_of_another_secret_is_no_source(void **state)
{
    (void)state;
    begin_with(3, "another one");
    have(0, 64);
    const struct wf_routes_candidate c[] = {candidate(0, 1e6), candidate(2, 0)};
    struct wf_routes_question q = question_of(64);
    q.candidates = c;
    q.candidate_count = 2;
    q.asks_only = true;
    route(1, &q);
    assert_string_equal(chosen()->name, "c2");
    assert_int_equal(chosen()->term.action, WF_ROUTE_RECOMPUTE);
    route(2, &q); /* nor does it hear of it */
    assert_int_equal(term_of(0)->held_blocks, 0);
    world_end();
}

static void too_much_is_refused(void **state)
{
    (void)state;
    begin();
    struct wf_routes_question q = question_of(WF_ROUTES_KEYS_MAX + 1);
    assert_int_equal(wf_fabric_route(nodes[0].fabric, &q, &answer), WEFT_E_LIMIT);
    q = question_of(1);
    q.candidate_count = WF_ROUTES_CANDIDATES_MAX + 1;
    assert_int_equal(wf_fabric_route(nodes[0].fabric, &q, &answer), WEFT_E_LIMIT);
    q = question_of(1);
    q.domain = WF_FABRIC_DOMAINS_MAX;
    assert_int_equal(wf_fabric_route(nodes[0].fabric, &q, &answer), WEFT_E_INVALID);
    q = question_of(0);
    q.request.tokens = 100;
    route(0, &q);
    assert_int_equal(chosen()->term.action, WF_ROUTE_RECOMPUTE);
    world_end();
}

/* ---------------------------------------------------------------------------------- measurement */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int measure(int count, uint32_t blocks, int lend)
{
    enum { ROUNDS = 20000 };
    static uint64_t ns[ROUNDS];
    static struct wf_routes_candidate candidates[NODES_MAX];
    if (count < 1 || count > NODES_MAX || blocks < 1 || blocks > WF_ROUTES_KEYS_MAX || lend < 0 ||
        lend > count)
        return 2;
    lenders = lend;
    begin_with(count, "one for all");
    for (int i = 0; i < count; i++) {
        if (i < lend)
            have_some(i, (uint32_t)i, (uint32_t)lend, blocks);
        else if (!lend)
            have(i, blocks * (uint32_t)(i + 1) / (uint32_t)count);
        candidates[i] = candidate(i, 1000.0 * i);
    }
    struct wf_routes_question q = question_of(blocks);
    q.candidates = candidates;
    q.candidate_count = (uint32_t)count;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t began_ns = wf_now_ns();
        q.request.id = (uint64_t)i;
        route(0, &q);
        ns[i] = wf_now_ns() - began_ns;
    }
    qsort(ns, ROUNDS, sizeof ns[0], compare);
    const uint64_t p50_ns = ns[ROUNDS / 2], p99_ns = ns[ROUNDS - ROUNDS / 100];
    printf("{\"nodes\": %d, \"blocks\": %u, \"lenders\": %d, \"route_us_p50\": %.2f, "
           "\"route_us_p99\": %.2f}\n",
           count, blocks, lend, (double)p50_ns / 1e3, (double)p99_ns / 1e3);
    world_end();
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_alone_is_the_answer),
        cmocka_unit_test(it_runs_where_its_blocks_are),
        cmocka_unit_test(blocks_go_where_the_request_does),
        cmocka_unit_test(several_have_it_between_them),
        cmocka_unit_test(what_several_have_is_no_queue),
        cmocka_unit_test(a_stray_end_is_no_way_round_a_queue),
        cmocka_unit_test(who_only_asks_says_nothing_of_loads),
        cmocka_unit_test(nobody_becomes_a_hot_spot),
        cmocka_unit_test(who_cannot_serve_says_why),
        cmocka_unit_test(every_fourth_key_will_do),
        cmocka_unit_test(a_domain_of_another_secret_is_no_source),
        cmocka_unit_test(too_much_is_refused),
    };
    if (argc == 5 && strcmp(argv[1], "--measure") == 0)
        return measure((int)strtol(argv[2], NULL, 10), (uint32_t)strtoul(argv[3], NULL, 10),
                       (int)strtol(argv[4], NULL, 10));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
