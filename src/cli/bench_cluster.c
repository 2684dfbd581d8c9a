/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench cluster: a trace on several nodes with a part of the memory each.
 *
 * The same requests again and again, in the trace's order, and as much memory in all: on nodes that
 * know nothing of each other; on the same nodes as one fabric, to which requests come in turn, or
 * are sent where weft_route() says; and on one node that has it all.  Nothing is computed here, so
 * what an engine's load would be is modelled for the router, on the trace's clock: the tokens that
 * were no hits, worked off at PREFILL_TOKENS_S.  Each request matches
 * its chain on the node that it comes to, reads what is there, checking every byte, and puts the
 * rest.  Nodes are processes of this host, joined by Unix sockets: hit rates are those of any
 * network, times are not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/bench_fabric.h"
#include "sim/trace.h"

#define MODEL "weft-bench-cluster@1"
#define NODES_MAX BENCH_FABRIC_NODES_MAX
#define BLOCK_BYTES 4096u
#define BLOCKS 24000u /* of memory in all, unless said */
#define JOIN_S 20.0
#define PREFILL_TOKENS_S 14000.0 /* of one engine */

enum mode { ISOLATED = 0, IN_TURN, FABRIC, ONE, MODES };
static const char *const mode_names[MODES] = {"isolated", "fabric, in turn", "fabric",
                                              "one_big_node"};

struct seat { /* a node, and a client there */
    struct cli cli;
    struct cli_node node;
    struct weft_format *format;
    double queued_tokens, queued_at_s; /* as modelled, at that time of the trace */
};

struct result {
    uint64_t requests, blocks, hits, remote, wrong, vanished;
    uint64_t at[NODES_MAX], most; /* requests that ran on each; on which there were most */
    double seconds;
};

struct cluster {
    struct seat seats[NODES_MAX];
    uint32_t count, block_tokens;
    struct bench_fabric fabric;
    struct weft_key *keys;
    struct weft_slot slots[WEFT_BATCH_MAX];
    struct bench_series route_us;
    struct cli_progress progress;
};

/* -------------------------------------------------------------------------------------- nodes */

/* What node `number` of `count` is told; NULL behind the last. */
static void settings_make(const struct cluster *c, enum mode mode, uint32_t number, uint32_t count,
                          char (*room)[2048], const char **out)
{
    int n = 0;
    snprintf(room[n], sizeof room[n], "pool.block_bytes_min=%u", BLOCK_BYTES);
    out[n] = room[n], n++;
    snprintf(room[n], sizeof room[n], "pool.policy=%s", wf_bench_options.policy);
    out[n] = room[n], n++;
    if (mode == FABRIC || mode == IN_TURN) {
        char others[1600] = "";
        for (uint32_t i = 0; i < count; i++)
            if (i != number)
                snprintf(others + strlen(others), sizeof others - strlen(others), "%sunix:%s/n%u",
                         others[0] ? "," : "", c->fabric.folder, i);
        snprintf(room[n], sizeof room[n], "fabric.join=%s", others);
        out[n] = room[n], n++;
        snprintf(room[n], sizeof room[n], "fabric.listen=unix:%s/n%u", c->fabric.folder, number);
        out[n] = room[n], n++;
        snprintf(room[n], sizeof room[n], "fabric.name=n%u", number);
        out[n] = room[n], n++;
        snprintf(room[n], sizeof room[n], "fabric.secret_file=%s/secret", c->fabric.folder);
        out[n] = room[n], n++;
    }
    out[n] = NULL;
}

static int seat_open(struct cli *cli, struct cluster *c, struct seat *seat, enum mode mode,
                     uint32_t number, uint32_t count, uint64_t pool_bytes)
{
    static char room[8][2048];
    const char *settings[9];
    settings_make(c, mode, number, count, room, settings);
    const struct cli_node_plan plan = {.pool_bytes = pool_bytes, .settings = settings};
    seat->cli = *cli;
    seat->cli.weft = NULL;
    int code = wf_cli_node_start(&seat->cli, &plan, &seat->node);
    if (code != CLI_OK)
        return code;
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = 1,
                                          .kv_heads = 1,
                                          .head_dim = 1,
                                          .dtype = WEFT_INT8,
                                          .block_tokens = c->block_tokens,
                                          .block_bytes = BLOCK_BYTES};
    enum weft_status status = weft_format_open(seat->cli.weft, &spec, &seat->format);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the format is refused");
}

static void seats_close(struct cluster *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct seat *seat = &c->seats[i];
        weft_format_close(seat->format);
        weft_close(seat->cli.weft);
        wf_cli_node_stop(&seat->node);
        memset(seat, 0, sizeof *seat);
    }
    c->count = 0;
}

static int seats_open(struct cli *cli, struct cluster *c, enum mode mode, uint32_t nodes)
{
    uint32_t count = mode == ONE ? 1 : nodes;
    uint64_t pool_bytes = wf_bench_options.blocks * BLOCK_BYTES / count;
    int code = CLI_OK;
    while (code == CLI_OK && c->count < count) {
        code = seat_open(cli, c, &c->seats[c->count], mode, c->count, count, pool_bytes);
        c->count++;
    }
    struct cli *clis[NODES_MAX];
    for (uint32_t i = 0; i < c->count; i++)
        clis[i] = &c->seats[i].cli;
    bool joined = mode == FABRIC || mode == IN_TURN;
    return code == CLI_OK && joined ? wf_bench_fabric_join(cli, clis, c->count, JOIN_S) : code;
}

/* ----------------------------------------------------------------------------------- a request */

static enum weft_status keys_make(struct cluster *c, const struct seat *seat,
                                  const struct trace_request *request)
{
    uint8_t identity[40] = {0};
    for (size_t i = 0; i < request->hash_count; i++) {
        if (i)
            memcpy(identity, c->keys[i - 1].bytes, 32);
        memcpy(identity + 32, &request->hash_ids[i], 8);
        enum weft_status status = weft_key_from_bytes(seat->format, identity, sizeof identity,
                                                      &c->keys[i]);
        if (status != WEFT_OK)
            return status;
    }
    return WEFT_OK;
}

static enum weft_status hits_read(struct cluster *c, struct seat *seat, size_t count,
                                  struct result *result, size_t *out_hit, struct weft_pins *pins)
{
    size_t present = 0, hit = 0;
    enum weft_status status = weft_match_keys(seat->format, c->keys, count, &present);
    if (status < 0)
        return status;
    status = weft_get_keys(seat->format, c->keys, present, WEFT_BLOCK_ORDER, pins);
    if (status != WEFT_OK)
        return status;
    while (hit < pins->blocks && weft_wait_block(pins, (uint32_t)hit) == WEFT_OK) {
        const struct weft_pin *pin = &pins->pins[hit];
        result->wrong += pin->bytes == BLOCK_BYTES
                             ? wf_cli_payload_wrong(pin->data, pin->bytes, &c->keys[hit], hit)
                             : BLOCK_BYTES;
        hit++;
    }
    result->remote += hit > pins->loading ? hit - pins->loading : 0;
    result->vanished += present - hit;
    *out_hit = hit;
    return WEFT_OK;
}

static enum weft_status rest_write(struct cluster *c, struct seat *seat, size_t first, size_t count)
{
    for (size_t at = first, part; at < count; at += part) {
        part = count - at < WEFT_BATCH_MAX ? count - at : WEFT_BATCH_MAX;
        enum weft_status status = weft_reserve_keys(seat->format, at ? &c->keys[at - 1] : NULL,
                                                    &c->keys[at], part, WEFT_CHAINED, c->slots);
        if (status == WEFT_E_PARENT || status == WEFT_FULL || status == WEFT_E_QUOTA)
            return WEFT_OK; /* no room for more of it now */
        if (status != WEFT_OK)
            return status;
        bool all = true;
        for (size_t i = 0; i < part; i++) {
            all &= c->slots[i].status == WEFT_OK || c->slots[i].status == WEFT_EXISTS;
            if (c->slots[i].status == WEFT_OK)
                wf_cli_payload_fill(c->slots[i].data, BLOCK_BYTES, &c->keys[at + i], at + i);
        }
        status = weft_commit_slots(seat->format, c->slots, part);
        if (status != WEFT_OK || !all)
            return status == WEFT_OK || status == WEFT_E_PARENT ? WEFT_OK : status;
    }
    return WEFT_OK;
}

/* It computes until that time. */
static void seat_work(struct seat *seat, double now_s)
{
    double done = (now_s - seat->queued_at_s) * PREFILL_TOKENS_S;
    seat->queued_tokens = done < seat->queued_tokens ? seat->queued_tokens - done : 0;
    seat->queued_at_s = now_s;
}

/* Where the fabric says that it should run; the first node is asked. */
static enum weft_status seat_route(struct cluster *c, const struct trace_request *request,
                                   uint64_t number, uint32_t *out)
{
    struct weft_candidate candidates[NODES_MAX];
    char names[NODES_MAX][8];
    for (uint32_t i = 0; i < c->count; i++) {
        snprintf(names[i], sizeof names[i], "n%u", i);
        seat_work(&c->seats[i], request->timestamp_s);
        candidates[i] = (struct weft_candidate){.node = names[i],
                                                .loaded = 1,
                                                .queued_tokens = c->seats[i].queued_tokens,
                                                .tokens_s = PREFILL_TOKENS_S};
    }
    const struct weft_route_question question = {.keys = c->keys,
                                                 .count = request->hash_count,
                                                 .tokens = (double)request->input_length,
                                                 .output_tokens = (double)request->output_length,
                                                 .candidates = candidates,
                                                 .candidate_count = c->count,
                                                 .id = number};
    struct weft_routed routed;
    double began_s = wf_cli_now_s();
    enum weft_status status = weft_route(c->seats[0].format, &question, &routed, NULL, 0);
    wf_bench_add(&c->route_us, 1e6 * (wf_cli_now_s() - began_s));
    *out = status == WEFT_OK && routed.chosen < c->count ? (uint32_t)routed.chosen
                                                         : (uint32_t)(number % c->count);
    return status;
}

static enum weft_status request_run(struct cluster *c, enum mode mode,
                                    const struct trace_request *request, struct result *result)
{
    uint32_t number = (uint32_t)(result->requests % c->count); /* NOLINT: one at least */
    struct weft_pins pins = {0};
    size_t hit = 0;
    enum weft_status status = keys_make(c, &c->seats[0], request);
    if (status == WEFT_OK && mode == FABRIC)
        status = seat_route(c, request, result->requests, &number);
    struct seat *seat = &c->seats[number];
    result->most = result->at[number]++ < result->most ? result->most : result->at[number];
    if (status == WEFT_OK && mode == ISOLATED)
        status = keys_make(c, seat, request);
    if (status >= 0)
        status = hits_read(c, seat, request->hash_count, result, &hit, &pins);
    if (status == WEFT_OK)
        status = rest_write(c, seat, hit, request->hash_count);
    weft_pins_release(&pins);
    result->requests++;
    result->blocks += request->hash_count;
    result->hits += hit;
    double missed = (double)request->input_length - (double)hit * c->block_tokens;
    seat->queued_tokens += missed > 0 ? missed : 0;
    return status;
}

/* ------------------------------------------------------------------------------------ the trace */

static const char *trace_find(void)
{
    static const char *const places[] = {"mooncake_conversation.jsonl",
                                         "../shared/data/traces/mooncake_conversation.jsonl"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (access(places[i], R_OK) == 0)
            return places[i];
    return NULL;
}

static int trace_run(struct cli *cli, struct cluster *c, enum mode mode, struct result *result)
{
    struct trace_reader reader = {0};
    struct stat about;
    int code = CLI_OK;
    double started_s = wf_cli_now_s();
    const char *path = wf_bench_options.trace;
    double size = stat(path, &about) == 0 && about.st_size ? (double)about.st_size : 1;
    if (!wf_trace_open(&reader, path, TRACE_UNSAID) || !wf_trace_settle(&reader))
        code = wf_cli_fail(cli, CLI_SYSTEM, "%s", reader.error);
    double before = (double)mode / MODES;
    while (code == CLI_OK) {
        struct trace_request request = {0};
        enum trace_result read = wf_trace_line(&reader);
        if (read == TRACE_OK)
            read = wf_trace_parse(&reader, &request);
        if (read == TRACE_END ||
            (wf_bench_options.requests && result->requests >= wf_bench_options.requests))
            break;
        if (read == TRACE_BLANK)
            continue;
        if (read != TRACE_OK) {
            code = wf_cli_fail(cli, CLI_USAGE, "%s", reader.error);
            break;
        }
        enum weft_status status = request_run(c, mode, &request, result);
        if (status < 0)
            code = wf_cli_fail_status(cli, status, "a request cannot be run");
        if (result->requests % 64 == 0)
            wf_cli_progress_step(&c->progress, before + (double)reader.offset / size / MODES,
                                 mode_names[mode]);
    }
    wf_trace_close(&reader);
    result->seconds = wf_cli_now_s() - started_s;
    return code;
}

static double rate(const struct result *result)
{
    return result->blocks ? (double)result->hits / (double)result->blocks : 0;
}

static void report(struct cli *cli, struct cluster *c, const struct result *results, uint32_t nodes)
{
    double route_us = wf_bench_at(&c->route_us, .5);
    uint64_t wrong = 0;
    for (int i = 0; i < MODES; i++)
        wrong += results[i].wrong;
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "trace", json_string(wf_bench_options.trace));
        wf_cli_json_set(answer, "nodes", json_integer(nodes));
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)wf_bench_options.blocks));
        wf_cli_json_set(answer, "requests", json_integer((json_int_t)results[ONE].requests));
        wf_cli_json_set(answer, "hit_rate_isolated", json_real(rate(&results[ISOLATED])));
        wf_cli_json_set(answer, "hit_rate_fabric_in_turn", json_real(rate(&results[IN_TURN])));
        wf_cli_json_set(answer, "hit_rate_fabric", json_real(rate(&results[FABRIC])));
        wf_cli_json_set(answer, "hit_rate_one_big_node", json_real(rate(&results[ONE])));
        wf_cli_json_set(answer, "route_us_p50",
                        c->route_us.count ? json_real(route_us) : json_null());
        wf_cli_json_set(answer, "fabric_remote_hits",
                        json_integer((json_int_t)results[FABRIC].remote));
        wf_cli_json_set(answer, "busiest_node_part",
                        json_real(
                            (double)results[FABRIC].most /
                            (double)(results[FABRIC].requests ? results[FABRIC].requests : 1)));
        wf_cli_json_set(answer, "fabric_vanished",
                        json_integer((json_int_t)results[FABRIC].vanished));
        wf_cli_json_set(answer, "wrong_bytes", json_integer((json_int_t)wrong));
        wf_cli_json_print(answer);
        return;
    }
    printf("%llu requests of %s on %u nodes with %llu blocks in all\n",
           (unsigned long long)results[ONE].requests, wf_bench_options.trace, nodes,
           (unsigned long long)wf_bench_options.blocks);
    for (int i = 0; i < MODES; i++)
        printf("%-16s hit rate %6.2f %%   %8.1f s\n", mode_names[i], 100 * rate(&results[i]),
               results[i].seconds);
    printf("a route took %.0f us (p50); the busiest node ran %.0f %% of the requests\n", route_us,
           results[FABRIC].requests
               ? 100.0 * (double)results[FABRIC].most / (double)results[FABRIC].requests
               : 0);
    printf("of the fabric's hits %llu came from another node, and %llu went in between; %llu wrong "
           "bytes\n",
           (unsigned long long)results[FABRIC].remote, (unsigned long long)results[FABRIC].vanished,
           (unsigned long long)wrong);
}

int wf_bench_cluster(struct cli *cli)
{
    static struct cluster cluster;
    struct cluster *c = &cluster;
    struct result results[MODES] = {{0}};
    uint32_t nodes = wf_bench_options.nodes == BENCH_UNSAID ? 4 : (uint32_t)wf_bench_options.nodes;
    wf_bench_default(&wf_bench_options.blocks, BLOCKS);
    wf_bench_default(&wf_bench_options.requests, 0);
    if (!wf_bench_options.policy)
        wf_bench_options.policy = "lru";
    if (nodes < 2 || nodes > NODES_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--nodes is %u; give 2 to %u", nodes, NODES_MAX);
    if (wf_bench_options.blocks * BLOCK_BYTES / nodes < (4 << 20))
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; a node has 1,024 at the least",
                           (unsigned long long)wf_bench_options.blocks);
    if (!wf_bench_options.trace)
        wf_bench_options.trace = trace_find();
    if (!wf_bench_options.trace)
        return wf_cli_fail(cli, CLI_USAGE,
                           "which trace?  There is no mooncake_conversation.jsonl in this folder; "
                           "say --trace FILE, of any that weft replay reads: weft sim gen makes "
                           "one");
    c->block_tokens = 512;
    c->keys = wf_cli_alloc(TRACE_HASH_IDS_MAX * sizeof *c->keys);
    wf_cli_progress_init(&c->progress, "bench cluster");
    int code = wf_bench_fabric_make(cli, &c->fabric);
    for (int mode = 0; mode < MODES && code == CLI_OK; mode++) {
        code = seats_open(cli, c, (enum mode)mode, nodes);
        if (code == CLI_OK)
            code = trace_run(cli, c, (enum mode)mode, &results[mode]);
        seats_close(c);
    }
    wf_cli_progress_fini(&c->progress);
    if (code == CLI_OK)
        report(cli, c, results, nodes);
    for (int mode = 0; mode < MODES && code == CLI_OK; mode++)
        code = results[mode].wrong ? CLI_WRONG : CLI_OK;
    wf_bench_forget(&c->route_us);
    free(c->keys);
    wf_bench_fabric_remove(&c->fabric);
    return code;
}
