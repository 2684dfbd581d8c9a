/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench hand-over: from the end of a prefill on one node until a decode on another has it all.
 *
 * Two nodes are in network namespaces with a veth pair between them, whose rate is held down by tc,
 * so that the link is what a transfer takes time for; an emulated network, and no engine: a prefill
 * is blocks whose layers are written one after the other, each for so long.  Three ways take turns:
 * layers are pushed while the next is written; the chain is handed over when it is committed; or
 * the other node hears of it then, and fetches it when it is asked for.  Who may make no namespaces
 * has the nodes on Unix sockets, with no rate, and is told so.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_fabric.h"
#include "cli/bench_net.h"

#define MODEL "weft-bench-hand-over@1"
#define BLOCKS_MAX 512u
#define JOIN_S 60.0
#define CHAIN_S 20
#define TRIES 3u

enum way { PUSHED = 0, HANDED_OVER, FETCHED, WAYS };
static const char *const way_names[WAYS] = {"push", "hand_over", "fetch"};
static const char *const way_words[WAYS] = {"pushed", "handed over", "fetched"};

struct seat {
    struct cli cli;
    struct cli_node node;
    struct weft_format *format;
};

struct bench {
    struct bench_net_bed bed;
    struct seat seats[2];
    struct bench_fabric fabric;
    uint64_t blocks, block_bytes, layers, layer_ms, mbit;
    uint64_t serial, wrong, fails, lost;
    uint8_t *content; /* a whole chain */
    struct weft_key keys[BLOCKS_MAX];
    struct weft_slot slots[BLOCKS_MAX];
    struct bench_series ms[WAYS];
};

/* --------------------------------------------------------------------------------------- nodes */

/* Hold the link down; false: there is no tc, or it cannot. */
static bool rate_set(const struct bench *b)
{
    char rate[32], path[256];
    if (!wf_cli_program_find("tc", path, sizeof path))
        return false;
    snprintf(rate, sizeof rate, "%llumbit", (unsigned long long)b->mbit);
    char *words[] = {path,
                     (char *)"qdisc",
                     (char *)"add",
                     (char *)"dev",
                     (char *)"wf0",
                     (char *)"root",
                     (char *)"tbf",
                     (char *)"rate",
                     rate,
                     (char *)"burst",
                     (char *)"256kb",
                     (char *)"latency",
                     (char *)"20ms",
                     NULL};
    return wf_bench_net_exec(&b->bed, 0, words, NULL, 0) == 0 &&
           wf_bench_net_exec(&b->bed, 1, words, NULL, 0) == 0;
}

static int seat_open(struct cli *cli, struct bench *b, int number)
{
    static char room[5][256];
    const char *settings[] = {room[0], room[1], room[2], room[3], room[4], NULL};
    struct seat *seat = &b->seats[number];
    uint64_t chain = b->blocks * b->block_bytes;
    for (int i = 0; i < 2; i++) { /* where it listens, and the other */
        int of = i == 0 ? number : 1 - number;
        const char *key = i == 0 ? "fabric.listen" : "fabric.join";
        if (b->bed.emulated)
            snprintf(room[i], sizeof room[i], "%s=tcp:%s:7420", key, b->bed.addresses[of]);
        else
            snprintf(room[i], sizeof room[i], "%s=unix:%s/n%d", key, b->fabric.folder, of);
    }
    snprintf(room[2], sizeof room[2], "fabric.name=n%d", number);
    snprintf(room[3], sizeof room[3], "fabric.secret_file=%s/secret", b->fabric.folder);
    snprintf(room[4], sizeof room[4], "fabric.push_max=%llu", (unsigned long long)(2 * chain));
    const struct cli_node_plan plan = {.pool_bytes = 8 * chain + (64u << 20), .settings = settings};
    seat->cli = *cli;
    seat->cli.weft = NULL;
    /* The node begins where this process is at that moment; its clients reach it from anywhere. */
    int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    bool there = !b->bed.emulated || (here >= 0 && setns(b->bed.spaces[number], CLONE_NEWNET) == 0);
    int code = there ? wf_cli_node_start(&seat->cli, &plan, &seat->node) : CLI_SYSTEM;
    if (b->bed.emulated && here >= 0 && setns(here, CLONE_NEWNET) != 0)
        code = CLI_SYSTEM;
    if (here >= 0)
        close(here);
    if (code != CLI_OK)
        return code;
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = (uint32_t)b->layers,
                                          .kv_heads = 1,
                                          .head_dim = 1,
                                          .dtype = WEFT_INT8,
                                          .block_tokens = 16,
                                          .block_bytes = b->block_bytes};
    enum weft_status status = weft_format_open(seat->cli.weft, &spec, &seat->format);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the format is refused");
}

/* --------------------------------------------------------------------------------------- a run */

static enum weft_status keys_make(struct bench *b)
{
    uint64_t identity[2] = {++b->serial, 0};
    enum weft_status status = WEFT_OK;
    for (uint64_t i = 0; i < b->blocks && status == WEFT_OK; i++) {
        identity[1] = i;
        status = weft_key_from_bytes(b->seats[0].format, identity, sizeof identity, &b->keys[i]);
        wf_cli_payload_fill(b->content + i * b->block_bytes, b->block_bytes, &b->keys[i], i);
    }
    return status;
}

/* Layer after layer, each for as long as an engine would compute it. */
static enum weft_status prefill(struct bench *b, struct weft_push *push)
{
    uint64_t bytes = b->block_bytes / b->layers;
    double at = wf_cli_now_s();
    bool pushing = push != NULL;
    for (uint64_t layer = 0; layer < b->layers; layer++) {
        for (uint64_t i = 0; i < b->blocks; i++)
            memcpy((uint8_t *)b->slots[i].data + layer * bytes,
                   b->content + i * b->block_bytes + layer * bytes, bytes);
        at += (double)b->layer_ms * 1e-3;
        double left = at - wf_cli_now_s();
        if (left > 0)
            usleep((useconds_t)(left * 1e6));
        enum weft_status status = pushing ? weft_push_layers(push, (uint32_t)layer + 1) : WEFT_OK;
        if (status < 0)
            return status;
        if (status == WEFT_MISS) { /* what that was for is not what is measured */
            pushing = false;
            b->fails++;
        }
    }
    return WEFT_OK;
}

/* Until the other node has all of it in DRAM, and none of it is wrong. */
static enum weft_status have_all(struct bench *b, enum way way, double *out_s)
{
    struct weft_format *format = b->seats[1].format;
    double until = wf_cli_now_s() + CHAIN_S;
    for (uint64_t i = 0; i < b->blocks;) {
        struct weft_pin pin;
        enum weft_status status = weft_pin(format, &b->keys[i], &pin);
        if (status == WEFT_OK) {
            weft_unpin(&pin);
            i++;
            continue;
        }
        if (status == WEFT_MISS && wf_cli_now_s() > until)
            return wf_fail(WEFT_E_TIMEOUT,
                           "node n1 did not have all of a chain that was %s in %d s, %u times; on "
                           "a busy machine, try again when it is quieter",
                           way_words[way], CHAIN_S, TRIES);
        if (status != WEFT_MISS)
            return status;
        struct weft_pins pins;
        size_t present = 0;
        if (way == FETCHED &&
            (weft_match_keys(format, b->keys, b->blocks, &present) != WEFT_OK ||
             present == b->blocks) &&
            weft_get_keys(format, b->keys, b->blocks, WEFT_BLOCK_ORDER, &pins) == WEFT_OK) {
            for (uint32_t k = 0; k < pins.blocks; k++)
                if (weft_wait_block(&pins, k) != WEFT_OK)
                    break;
            weft_pins_release(&pins);
        } else {
            usleep(100);
        }
    }
    *out_s = wf_cli_now_s();
    for (uint64_t i = 0; i < b->blocks; i++) {
        struct weft_pin pin;
        enum weft_status status = weft_pin(format, &b->keys[i], &pin);
        if (status != WEFT_OK)
            return status;
        b->wrong += wf_cli_payload_wrong(pin.data, b->block_bytes, &b->keys[i], i);
        weft_unpin(&pin);
    }
    return WEFT_OK;
}

/* Once.  WEFT_E_TIMEOUT: it did not come. */
static enum weft_status try_one(struct bench *b, enum way way)
{
    struct weft_push push;
    double done_s = 0;
    enum weft_status status = keys_make(b);
    if (status == WEFT_OK)
        status = weft_reserve_keys(b->seats[0].format, NULL, b->keys, b->blocks, WEFT_CHAINED,
                                   b->slots);
    for (uint64_t i = 0; i < b->blocks && status == WEFT_OK; i++)
        status = b->slots[i].status;
    if (status == WEFT_OK && way == PUSHED)
        status = weft_push_begin(b->seats[0].format, b->slots, b->blocks, "n1", &push);
    if (status == WEFT_OK)
        status = prefill(b, way == PUSHED ? &push : NULL);
    double end_s = wf_cli_now_s();
    if (status == WEFT_OK)
        status = weft_commit_slots(b->seats[0].format, b->slots, b->blocks);
    if (status == WEFT_OK && way == HANDED_OVER)
        status = weft_hand_over(b->seats[0].cli.weft, &b->keys[b->blocks - 1], "n1");
    if (status == WEFT_OK)
        status = have_all(b, way, &done_s);
    if (status == WEFT_OK)
        wf_bench_add(&b->ms[way], (done_s - end_s) * 1e3);
    return status;
}

/* Pushes and hand-overs are hints, and a fetch may be too late: what came to nothing is counted,
 * and made again. */
static enum weft_status run_one(struct bench *b, enum way way)
{
    enum weft_status status = WEFT_E_TIMEOUT;
    for (unsigned i = 0; i < TRIES && status == WEFT_E_TIMEOUT; i++) {
        status = try_one(b, way);
        b->lost += status == WEFT_E_TIMEOUT;
    }
    return status;
}

/* -------------------------------------------------------------------------------------- report */

static void report(struct cli *cli, struct bench *b)
{
    double gbps = (double)b->mbit / 8e3, chain = (double)(b->blocks * b->block_bytes);
    double ideal_ms = chain / gbps * 1e-6;
    if (cli->json) {
        json_t *out = json_object();
        wf_cli_json_set(out, "network", json_string(b->bed.emulated ? "veth, held down" : "unix"));
        wf_cli_json_set(out, "link_mbit",
                        b->bed.emulated ? json_integer((json_int_t)b->mbit) : json_null());
        wf_cli_json_set(out, "blocks", json_integer((json_int_t)b->blocks));
        wf_cli_json_set(out, "block_bytes", json_integer((json_int_t)b->block_bytes));
        wf_cli_json_set(out, "layers", json_integer((json_int_t)b->layers));
        wf_cli_json_set(out, "layer_ms", json_integer((json_int_t)b->layer_ms));
        for (int way = 0; way < WAYS; way++) {
            char name[32];
            snprintf(name, sizeof name, "%s_ms", way_names[way]);
            wf_cli_json_set(out, name, wf_cli_json_real(wf_bench_at(&b->ms[way], .5), 2));
        }
        wf_cli_json_set(out, "chain_on_link_ms",
                        b->bed.emulated ? wf_cli_json_real(ideal_ms, 2) : json_null());
        wf_cli_json_set(out, "layer_on_link_ms",
                        b->bed.emulated ? wf_cli_json_real(ideal_ms / (double)b->layers, 2)
                                        : json_null());
        wf_cli_json_set(out, "push_fails", json_integer((json_int_t)b->fails));
        wf_cli_json_set(out, "lost", json_integer((json_int_t)b->lost));
        wf_cli_json_set(out, "wrong_bytes", json_integer((json_int_t)b->wrong));
        wf_cli_json_print(out);
        return;
    }
    printf(
        "%llu blocks of %llu bytes, %llu layers of %llu ms each; until the other node has all:\n",
        (unsigned long long)b->blocks, (unsigned long long)b->block_bytes,
        (unsigned long long)b->layers, (unsigned long long)b->layer_ms);
    printf("pushed by layer   %9.2f ms after the prefill's end\nhanded over       %9.2f ms\n"
           "fetched           %9.2f ms\n",
           wf_bench_at(&b->ms[PUSHED], .5), wf_bench_at(&b->ms[HANDED_OVER], .5),
           wf_bench_at(&b->ms[FETCHED], .5));
    if (b->bed.emulated)
        printf("the link alone    %9.2f ms for the chain, %.2f ms for a layer, at %llu Mbit/s "
               "(emulated: a veth pair, held down)\n",
               ideal_ms, ideal_ms / (double)b->layers, (unsigned long long)b->mbit);
    else
        printf("the nodes are on Unix sockets, and no link holds them down: %s\n", b->bed.why);
    printf("%llu wrong bytes; %llu pushes went no further, %llu chains did not come and were sent "
           "again\n",
           (unsigned long long)b->wrong, (unsigned long long)b->fails, (unsigned long long)b->lost);
}

static int check(struct cli *cli, struct bench *b)
{
    struct bench_options *o = &wf_bench_options;
    wf_bench_default(&o->blocks, 64);
    wf_bench_default(&o->block_bytes, 1 << 20);
    wf_bench_default(&o->layers, 32);
    wf_bench_default(&o->layer_ms, 10);
    wf_bench_default(&o->mbit, 2500);
    *b = (struct bench){.blocks = o->blocks,
                        .block_bytes = o->block_bytes,
                        .layers = o->layers,
                        .layer_ms = o->layer_ms,
                        .mbit = o->mbit};
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE,
                           "bench hand-over has two nodes of its own; leave --socket out");
    if (!b->blocks || b->blocks > BLOCKS_MAX || !b->layers || b->layers > 1024 ||
        b->block_bytes < 4096 || b->block_bytes > (64u << 20) || b->block_bytes % b->layers)
        return wf_cli_fail(cli, CLI_USAGE,
                           "1 to %u --blocks of 4KiB to 64MiB, which --layers (1 to 1024) divide "
                           "evenly, can be handed over",
                           BLOCKS_MAX);
    if (!b->mbit || b->mbit > 1000000 || !o->rounds || o->rounds > 1000 || b->layer_ms > 10000)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--mbit is 1 to 1000000, --rounds 1 to 1000, "
                           "--layer-ms up to 10000");
    return CLI_OK;
}

int wf_bench_hand_over(struct cli *cli)
{
    static struct bench bench;
    struct bench *b = &bench;
    struct cli_progress progress;
    int code = check(cli, b);
    if (code != CLI_OK)
        return code;
    wf_bench_net_bed_make(&b->bed);
    if (b->bed.emulated && !rate_set(b)) {
        wf_bench_net_bed_end(&b->bed);
        b->bed.emulated = false;
        snprintf(b->bed.why, sizeof b->bed.why,
                 "tc cannot hold a link down here (Debian: iproute2)");
    }
    b->content = wf_cli_alloc(b->blocks * b->block_bytes);
    code = wf_bench_fabric_make(cli, &b->fabric);
    for (int i = 0; i < 2 && code == CLI_OK; i++)
        code = seat_open(cli, b, i);
    if (code == CLI_OK)
        code = wf_bench_fabric_join(cli, (struct cli *[]){&b->seats[0].cli, &b->seats[1].cli}, 2,
                                    JOIN_S);
    wf_cli_progress_init(&progress, "bench hand-over");
    for (uint64_t round = 0; round < wf_bench_options.rounds && code == CLI_OK; round++)
        for (int way = 0; way < WAYS && code == CLI_OK; way++) {
            wf_cli_progress_step(&progress, (double)round / (double)wf_bench_options.rounds,
                                 way_names[way]);
            enum weft_status status = run_one(b, (enum way)way);
            if (status != WEFT_OK)
                code = wf_cli_fail_status(cli, status, "a chain did not get there");
        }
    wf_cli_progress_fini(&progress);
    if (code == CLI_OK) {
        report(cli, b);
        code = b->wrong ? CLI_WRONG : CLI_OK;
    }
    for (int i = 0; i < 2; i++) {
        weft_format_close(b->seats[i].format);
        weft_close(b->seats[i].cli.weft);
        wf_cli_node_stop(&b->seats[i].node);
    }
    for (int way = 0; way < WAYS; way++)
        wf_bench_forget(&b->ms[way]);
    wf_bench_net_bed_end(&b->bed);
    wf_bench_fabric_remove(&b->fabric);
    free(b->content);
    return code;
}
