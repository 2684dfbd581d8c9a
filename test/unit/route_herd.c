/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing in whole clusters, simulated: engines that serve one prefill after the other, prefixes
 * that are asked for more often than one of them can serve, links that are busy, reports that are
 * late, events of who holds what that are later.  The router's model and what really happens differ
 * by chance, up to a quarter.  Times are simulated.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../support/random.h"
#include "core/route.h"

#define NODES 16u
#define BLOCK_TOKENS 100.0
#define BLOCK_BYTES 13e6
#define LAYERS 32u
#define TOKENS_S 10000.0
#define LINK_S 12e9 /* bytes */
#define LINK_LATENCY_S 2e-4
#define HOST_S 50e9
#define CHAIN_MAX 400u
#define PREFIXES_MAX 400u
#define REQUESTS_MAX 40000u
#define LATE_MAX 65536u /* things that are on their way */

enum how { AFFINITY, IDLEST, BY_LOT, MODEL, HOWS };
static const char *const names[] = {"affinity alone", "least load alone", "by lot", "by model"};

struct plan {
    const char *what;
    uint64_t seed;
    uint32_t prefixes, requests;
    double zipf; /* the exponent by which prefixes are wanted */
    double rate; /* requests a second */
    double prefix_tokens_min, prefix_tokens_max, own_tokens;
    double report_s, report_late_s, event_late_s;
    double work_price;
    bool first_on_one; /* the first prefix is on node 0 to begin with */
};

/* Something that somebody is told later: a block range of a prefix at a node, or a report. */
struct late {
    double at_s, taken_s;
    struct wf_route_load load;
    uint32_t prefix;
    uint16_t node;
};

struct world {
    struct plan plan;
    struct random_source r;
    struct wf_route *route;
    struct wf_places *places;
    struct late late[LATE_MAX];
    uint32_t late_count;
    uint32_t blocks[PREFIXES_MAX];
    double weight[PREFIXES_MAX], weights;
    bool holds[PREFIXES_MAX][NODES];
    double free_s[NODES], link_free_s[NODES], tick_s[NODES];
    double said_s[NODES]; /* the queue, as it was reported */
    uint32_t served[NODES];
    double ttft[REQUESTS_MAX];
    double prefill_s, fetched_s; /* of all */
    uint32_t fetches;
};
static struct world w;
static uint8_t keys[CHAIN_MAX][32];

struct outcome {
    double p50, p99, mean, prefill_s;
    uint32_t copies, busiest, fetches;
};

static double part(void)
{
    return (double)(random_next(&w.r) >> 11) * 0x1p-53;
}

static void keys_of(uint32_t prefix)
{
    for (uint32_t k = 0; k < w.blocks[prefix]; k++)
        random_key((uint64_t)prefix * CHAIN_MAX + k, keys[k]);
}

static void know(uint32_t prefix, uint16_t node)
{
    keys_of(prefix);
    for (uint32_t k = 0; k < w.blocks[prefix]; k++)
        assert_true(wf_places_add(w.places, keys[k], node));
}

static void later(struct late late)
{
    assert_true(w.late_count < LATE_MAX);
    w.late[w.late_count++] = late;
}

/* Reports are made, and what was on its way arrives. */
static void go_on(double now_s)
{
    for (uint16_t n = 0; n < NODES; n++) {
        for (; w.tick_s[n] <= now_s; w.tick_s[n] += w.plan.report_s) {
            double queue_s = fmax(0, w.free_s[n] - w.tick_s[n]);
            later(
                (struct late){.at_s = w.tick_s[n] + w.plan.report_late_s,
                              .taken_s = w.tick_s[n],
                              .node = n,
                              .prefix = UINT32_MAX,
                              .load = {.queued_tokens = queue_s * TOKENS_S, .tokens_s = TOKENS_S}});
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w.late_count; i++) {
        struct late *late = &w.late[i];
        if (late->at_s > now_s) {
            w.late[kept++] = *late;
        } else if (late->prefix == UINT32_MAX) {
            wf_route_report(w.route, late->node, &late->load, late->taken_s);
            w.said_s[late->node] = late->load.queued_tokens / TOKENS_S;
        } else {
            know(late->prefix, late->node);
        }
    }
    w.late_count = kept;
}

static struct wf_route_way link_way(void *context, uint32_t from, uint32_t to)
{
    (void)context;
    (void)from;
    (void)to;
    return (struct wf_route_way){LINK_LATENCY_S, LINK_S, 0};
}

/* Where it goes, by the rules that have no model; what is not there is computed. */
static uint32_t by_rule(enum how how, const struct wf_route_node *nodes)
{
    uint32_t best = random_below(&w.r, NODES), ties = 1;
    for (uint32_t n = 0; n < NODES && how != BY_LOT; n++) {
        double ahead = how == AFFINITY ? (double)nodes[n].held_blocks - nodes[best].held_blocks
                                       : w.said_s[best] - w.said_s[n];
        if (ahead > 0)
            ties = 1;
        if (ahead > 0 || (!(ahead < 0) && random_below(&w.r, ++ties) == 0))
            best = n;
    }
    return best;
}

/* What really happens there.  Returns the time to the first token. */
static double serve(uint32_t node, const struct wf_route_request *request, uint32_t prefix,
                    uint32_t source, uint32_t load_blocks, uint32_t fetch_blocks, double now_s)
{
    double slower = 0.8 + 0.45 * part();
    double hit = fmin(load_blocks * BLOCK_TOKENS, request->tokens - 1);
    double prefill_s = slower * wf_prefill_s(request->prefill, hit, request->tokens - hit);
    double begin_s = fmax(now_s, w.free_s[node]), late_s = 0;
    double data_s = load_blocks * BLOCK_BYTES / HOST_S;
    if (fetch_blocks) {
        double fetch_s = fetch_blocks * BLOCK_BYTES / LINK_S;
        double link_s = fmax(now_s, fmax(w.link_free_s[source], w.link_free_s[node]));
        late_s = link_s - now_s + LINK_LATENCY_S;
        data_s = fmax(data_s, fetch_s);
        w.link_free_s[source] = w.link_free_s[node] = link_s + fetch_s;
        w.fetches++;
        w.fetched_s += fetch_s;
    }
    /* An engine goes on with others while it waits for a load. */
    double done_s = wf_overlap_s(late_s - (begin_s - now_s), data_s, prefill_s, LAYERS);
    w.free_s[node] = begin_s + prefill_s;
    w.served[node]++;
    w.prefill_s += prefill_s;
    if (!w.holds[prefix][node]) {
        w.holds[prefix][node] = true;
        later((struct late){.at_s = begin_s + done_s + w.plan.event_late_s,
                            .prefix = prefix,
                            .node = (uint16_t)node});
    }
    return begin_s + done_s - now_s;
}

static uint32_t wanted(void)
{
    double at = part() * w.weights;
    uint32_t prefix = 0;
    while (prefix + 1 < w.plan.prefixes && at >= w.weight[prefix])
        at -= w.weight[prefix++];
    return prefix;
}

static double one(enum how how, uint64_t id, double now_s)
{
    uint32_t prefix = wanted();
    double own = w.plan.own_tokens * (0.5 + part());
    struct wf_route_node nodes[NODES] = {{0}};
    struct wf_route_term terms[NODES];
    struct wf_route_answer answer;
    const struct wf_route_links links = {link_way, NULL};
    const struct wf_route_request request = {.id = id,
                                             .tokens = w.blocks[prefix] * BLOCK_TOKENS + own,
                                             .block_tokens = BLOCK_TOKENS,
                                             .block_bytes = BLOCK_BYTES,
                                             .layers = LAYERS,
                                             .prefill = {1 / TOKENS_S, 0}};
    for (uint16_t n = 0; n < NODES; n++)
        nodes[n] = (struct wf_route_node){.node = n, .serves = true, .host = {0, HOST_S, 0}};
    keys_of(prefix);
    wf_route_look(w.route, w.places, NULL, keys, w.blocks[prefix], nodes, NODES);
    if (how != MODEL) {
        uint32_t node = by_rule(how, nodes);
        return serve(node, &request, prefix, 0, nodes[node].held_blocks, 0, now_s);
    }
    wf_route_choose(w.route, &request, nodes, NODES, &links, now_s, terms, &answer);
    wf_route_sent(w.route, nodes, &answer, keys, w.blocks[prefix], now_s);
    return serve(answer.chosen, &request, prefix, answer.term.source, answer.term.load_blocks,
                 answer.term.fetch_blocks, now_s);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct outcome simulate(enum how how, const struct plan *plan)
{
    struct outcome out = {0};
    memset(&w, 0, sizeof w);
    w.plan = *plan;
    w.r.state = plan->seed;
    const struct wf_route_options route = {.nodes_max = NODES,
                                           .seed = plan->seed,
                                           .work_price = plan->work_price,
                                           .tie_part = -1,
                                           .coming_s = -1,
                                           .home_price = -1,
                                           .tokens_s = TOKENS_S};
    const struct wf_places_options places = {PREFIXES_MAX * CHAIN_MAX * NODES, NODES, plan->seed};
    assert_int_equal(wf_route_create(&route, &w.route), WEFT_OK);
    assert_int_equal(wf_places_create(&places, &w.places), WEFT_OK);
    for (uint32_t p = 0; p < plan->prefixes; p++) {
        double tokens = plan->prefix_tokens_min *
                        pow(plan->prefix_tokens_max / plan->prefix_tokens_min, part());
        w.blocks[p] = (uint32_t)(tokens / BLOCK_TOKENS);
        w.weight[p] = pow(p + 1, -plan->zipf);
        w.weights += w.weight[p];
    }
    for (uint16_t n = 0; n < NODES; n++)
        w.tick_s[n] = plan->report_s * part();
    if (plan->first_on_one) {
        w.holds[0][0] = true;
        know(0, 0);
    }
    double now_s = 0;
    for (uint32_t i = 0; i < plan->requests; i++) {
        now_s -= log(1 - part()) / plan->rate;
        go_on(now_s);
        w.ttft[i] = one(how, i, now_s);
        out.mean += w.ttft[i] / plan->requests;
    }
    qsort(w.ttft, plan->requests, sizeof *w.ttft, by_value);
    out.p50 = w.ttft[plan->requests / 2];
    out.p99 = w.ttft[plan->requests * 99 / 100];
    out.prefill_s = w.prefill_s;
    out.fetches = w.fetches;
    for (uint32_t n = 0; n < NODES; n++) {
        out.copies += w.holds[0][n];
        out.busiest = w.served[n] > out.busiest ? w.served[n] : out.busiest;
    }
    wf_route_destroy(w.route);
    wf_places_destroy(w.places);
    return out;
}

static void compare(const struct plan *plan, struct outcome out[HOWS])
{
    print_message("# %s (seed %llu):\n", plan->what, (unsigned long long)plan->seed);
    for (int how = 0; how < HOWS; how++) {
        out[how] = simulate((enum how)how, plan);
        print_message("#   %-17s ttft p50 %7.3f s, p99 %7.3f s, mean %7.3f s; prefill %6.0f s, "
                      "%u fetches, busiest %.1f of the mean, %u copies of the first\n",
                      names[how], out[how].p50, out[how].p99, out[how].mean, out[how].prefill_s,
                      out[how].fetches, (double)out[how].busiest * NODES / plan->requests,
                      out[how].copies);
    }
}

/* What all want is on one node, which can serve a tenth of them. */
static void a_hot_prefix_spreads(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        const struct plan plan = {.what = "one prefix, ten times what a node can do",
                                  .seed = seed,
                                  .prefixes = 1,
                                  .requests = 6000,
                                  .rate = 200,
                                  .prefix_tokens_min = 8000,
                                  .prefix_tokens_max = 8000,
                                  .own_tokens = 500,
                                  .report_s = 0.1,
                                  .report_late_s = 0.05,
                                  .event_late_s = 0.02,
                                  .work_price = -1,
                                  .first_on_one = true};
        struct outcome out[HOWS];
        compare(&plan, out);
        assert_int_equal(out[MODEL].copies, NODES);
        assert_true((double)out[MODEL].busiest * NODES < 1.5 * plan.requests);
        assert_true(out[MODEL].p99 < 0.05 * out[AFFINITY].p99);
        assert_true(out[MODEL].p99 < 0.5 && out[MODEL].p50 < 0.15);
    }
}

/* Many prefixes, some far more wanted than others. */
static void no_herd_among_many(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        const struct plan plan = {.what =
                                      "300 prefixes by Zipf, none of them anywhere to begin with",
                                  .seed = seed,
                                  .prefixes = 300,
                                  .requests = 12000,
                                  .zipf = 1,
                                  .rate = 130,
                                  .prefix_tokens_min = 2000,
                                  .prefix_tokens_max = 16000,
                                  .own_tokens = 500,
                                  .report_s = 0.5,
                                  .report_late_s = 0.1,
                                  .event_late_s = 0.05,
                                  .work_price = -1};
        struct outcome out[HOWS];
        compare(&plan, out);
        for (int how = 0; how < HOWS; how++) {
            if (how == MODEL)
                continue;
            assert_true(out[MODEL].p99 < 0.5 * out[how].p99);
            assert_true(out[MODEL].mean < 0.2 * out[how].mean);
            assert_true(out[MODEL].prefill_s < out[how].prefill_s);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hot_prefix_spreads),
        cmocka_unit_test(no_herd_among_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
