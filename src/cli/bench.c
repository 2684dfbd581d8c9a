/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench: the options of all benchmarks, and their clock.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/commands.h"

#define CALIBRATE_S 0.02
#define EMPTY_READS 20001

#define UNSAID                                                                           \
    {                                                                                    \
        .block_bytes = BENCH_UNSAID, .blocks = BENCH_UNSAID, .tier_bytes = BENCH_UNSAID, \
        .nodes = BENCH_UNSAID, .seconds = BENCH_UNSAID, .layers = BENCH_UNSAID,          \
        .layer_ms = BENCH_UNSAID, .mbit = BENCH_UNSAID, .rounds = 5, .readers = 1,       \
        .records = 20000, .depth = 32, .dir = folder                                     \
    }
static const char folder[] = "/var/tmp";
struct bench_options wf_bench_options = UNSAID;
static const struct bench_options unsaid = UNSAID;

static const struct cli_word words[] = {
    {"local", "pin, put, get, match and key derivation against a node on this host"},
    {"watch", "publishing a record to readers in other processes, spinning and sleeping"},
    {"nvme", "moving blocks below to a file of NVMe and getting them back, with fio beside it"},
    {"restart", "a node stopped, and killed, with a million blocks below: how soon it serves them"},
    {"overlap", "an engine's time to the first token with its KV in DRAM, and below it"},
    {"resp", "SET and GET over RESP, against weftd and a redis-server"},
    {"cluster", "a trace on nodes with a part of the memory each: alone, as a fabric, as one node"},
    {"net", "blocks between two hosts that are network namespaces, with iperf3 beside it"},
    {"hand-over", "from a prefill's end on one node until another has its chain"},
    {NULL},
};

static const struct cli_option options[] = {
    {"block-bytes", CLI_SIZE, "SIZE", &wf_bench_options.block_bytes,
     "payload of a block (local 2 MiB, nvme and net 1 MiB, restart 4 KiB)"},
    {"blocks", CLI_NUMBER, "N", &wf_bench_options.blocks,
     "blocks in the working set (1024; nvme 1 GiB of them; restart 1000000)"},
    {"rounds", CLI_NUMBER, "N", &wf_bench_options.rounds, "rounds over the working set (5)"},
    {"pool", CLI_SIZE, "SIZE", &wf_bench_options.pool_bytes,
     "the pool of the node that it starts (what the working set needs)"},
    {"dir", CLI_TEXT, "DIR", &wf_bench_options.dir,
     "nvme, restart, overlap: where the tier's file is made, and fio's (/var/tmp)"},
    {"tier-size", CLI_SIZE, "SIZE", &wf_bench_options.tier_bytes,
     "their size of the tier (4 GiB, what the blocks need, 2 GiB)"},
    {"depth", CLI_NUMBER, "N", &wf_bench_options.depth, "nvme: requests in flight (32)"},
    {"model", CLI_TEXT, "FILE", &wf_bench_options.model, "overlap: tinyllm's (a random one)"},
    {"shape", CLI_TEXT, "LIST", &wf_bench_options.shape,
     "overlap: the random one's, see tinyllm(1)"},
    {"readers", CLI_NUMBER, "N", &wf_bench_options.readers, "watch: reading processes (1)"},
    {"nodes", CLI_NUMBER, "N", &wf_bench_options.nodes, "cluster: nodes (4); net: 2"},
    {"trace", CLI_TEXT, "FILE", &wf_bench_options.trace,
     "cluster: the requests, as weft replay has them (mooncake_conversation.jsonl in this folder)"},
    {"policy", CLI_TEXT, "weft|lru", &wf_bench_options.policy,
     "cluster: what lets blocks go (lru: what weft weighs are hours, and here they are seconds)"},
    {"requests", CLI_NUMBER, "N", &wf_bench_options.requests, "cluster: the first so many (all)"},
    {"seconds", CLI_NUMBER, "N", &wf_bench_options.seconds, "net: of each figure in a round (2)"},
    {"layers", CLI_NUMBER, "N", &wf_bench_options.layers, "hand-over: of a block (32)"},
    {"layer-ms", CLI_NUMBER, "MS", &wf_bench_options.layer_ms,
     "hand-over: so long a layer of all blocks is computed (10)"},
    {"mbit", CLI_NUMBER, "N", &wf_bench_options.mbit, "hand-over: the link's Mbit/s (2500)"},
    {"records", CLI_NUMBER, "N", &wf_bench_options.records, "watch: records in each way (20000)"},
    {NULL},
};

static const char *const examples[] = {
    "the figures of docs/PERFORMANCE.md",
    "weft bench local --json --block-bytes 2097152 --blocks 1024",
    "small blocks, against a node that runs",
    "weft bench local --block-bytes 64KiB --blocks 8192 --socket /run/weft/weftd.sock",
    "the NVMe tier on the device that /srv is on, 3 GiB of blocks of 1 MiB",
    "weft bench nvme --dir /srv --block-bytes 1MiB --blocks 3072",
    "how soon a node serves a million blocks again",
    "weft bench restart --json --blocks 1000000",
    "what it costs an engine that its KV is on NVMe",
    "weft bench overlap",
    "how fast a record reaches three other processes",
    "weft bench watch --readers 3",
    "the RESP gateway beside Redis",
    "weft bench resp --json",
    "does a fabric of four nodes hit like one node with all their memory?",
    "weft bench cluster --json --nodes 4",
    "how soon a decode node has what a prefill node computed",
    "weft bench hand-over --json",
    "blocks over TCP beside iperf3",
    "weft bench net --json --nodes 2",
    NULL,
};

static int compare_ticks(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void wf_bench_clock_init(struct bench_clock *clock)
{
#if defined(__x86_64__)
    double begin_s = wf_cli_now_s(), end_s;
    uint64_t begin = wf_bench_ticks_begin();
    do
        end_s = wf_cli_now_s();
    while (end_s - begin_s < CALIBRATE_S);
    clock->ns_per_tick = (end_s - begin_s) * 1e9 / (double)(wf_bench_ticks_end() - begin);
#else
    clock->ns_per_tick = 1;
#endif
    uint64_t *empty = wf_cli_alloc(EMPTY_READS * sizeof *empty);
    for (int i = 0; i < EMPTY_READS; i++) {
        uint64_t at = wf_bench_ticks_begin();
        empty[i] = wf_bench_ticks_end() - at;
    }
    qsort(empty, EMPTY_READS, sizeof *empty, compare_ticks);
    uint64_t median = empty[EMPTY_READS / 2];
    clock->overhead_ns = (double)median * clock->ns_per_tick;
    free(empty);
}

void wf_bench_default(uint64_t *option, uint64_t value)
{
    if (*option == BENCH_UNSAID)
        *option = value;
}

void wf_bench_add(struct bench_series *series, double value)
{
    if (series->count == series->capacity) {
        size_t capacity = series->capacity ? 2 * series->capacity : 1024;
        double *values = wf_cli_alloc(capacity * sizeof *values);
        if (series->count)
            memcpy(values, series->values, series->count * sizeof *values);
        free(series->values);
        series->values = values;
        series->capacity = capacity;
    }
    series->values[series->count++] = value;
}

double wf_bench_at(struct bench_series *series, double part)
{
    return wf_cli_percentile(series->values, series->count, part);
}

void wf_bench_forget(struct bench_series *series)
{
    free(series->values);
    *series = (struct bench_series){0};
}

/* "nvme, restart, overlap: where ...; net: 2": is it for this word? */
static bool is_for(const char *help, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = help; (at = strstr(at, word)); at += length)
        if ((at == help || at[-1] == ' ') && (at[length] == ':' || at[length] == ','))
            return true;
    return false;
}

/* An option that says of which benchmarks it is, is refused where it has no effect. */
static int options_check(struct cli *cli, int which)
{
    for (const struct cli_option *option = options; option->name; option++) {
        size_t at = (size_t)((const char *)option->to - (const char *)&wf_bench_options);
        bool said = memcmp(option->to, (const char *)&unsaid + at, sizeof(uint64_t)) != 0;
        bool all = true;
        for (const struct cli_word *word = words; word->name; word++) {
            size_t length = strlen(word->name);
            all &= strncmp(option->help, word->name, length) != 0 ||
                   (option->help[length] != ':' && option->help[length] != ',');
        }
        if (said && !all && !is_for(option->help, words[which].name))
            return wf_cli_fail(cli, CLI_USAGE,
                               "--%s has no effect on %s, but on %.*s; leave it out", option->name,
                               words[which].name, (int)strcspn(option->help, ":"), option->help);
    }
    return CLI_OK;
}

static int run(struct cli *cli)
{
    static int (*const runs[])(
        struct cli *) = {wf_bench_local,   wf_bench_watch,   wf_bench_nvme,
                         wf_bench_restart, wf_bench_overlap, wf_bench_resp,
                         wf_bench_cluster, wf_bench_net,     wf_bench_hand_over};
    int which = wf_cli_choose(cli);
    if (which < 0 || options_check(cli, which) != CLI_OK)
        return CLI_USAGE;
    return wf_cli_run_word(cli, runs);
}

const struct cli_command wf_cmd_bench = {
    .name = "bench",
    .summary = "measure a node against its yardsticks",
    .synopsis = "local|watch|nvme|restart|overlap|resp|cluster|net|hand-over",
    .about =
        "Measures, and runs the yardstick beside each figure in the same run: memcpy for put and "
        "get, one probe a key for match, SHA-256 for keys, a Redis GET of the same block for pin.  "
        "It starts a weftd of its own and stops it at the end, unless --socket names one that runs "
        "($WEFT_SOCKET does not); there the working set takes the room of others' blocks.  GB "
        "are 10^9 bytes; every figure is a median over rounds, in which measure and yardstick take "
        "turns, so that noise hits both.\n\n"
        "pin_ns_p50 and pin_ns_p99 are of single calls, weft_pin followed by weft_unpin of a "
        "random block of the working set, timed with fenced time-stamp reads; the median time of "
        "two reads with nothing between them is subtracted, which makes the result at worst too "
        "large by the fences' own stalls. The batch figure beside it times 64 pairs between two "
        "reads and needs no subtraction; the two bound the truth from both sides.  The node is "
        "another process by nature.\n\n"
        "get is weft_pin, memcpy, weft_unpin.  put is weft_reserve_keys, memcpy, weft_commit_slots "
        "in batches, onto memory that was used before; the first use of the pool's pages, which "
        "costs page faults, is told apart as \"first put\".  memcpy_gbps is the same copies "
        "between the same pool memory and the same private buffer, both directions in equal "
        "shares; the table compares get and put with their own direction.  match_8192_us_p50 "
        "matches 8,192 keys, half the time all present, else up to a random place.  "
        "redis_get_us_p50 is null when no redis-server is installed.\n\n"
        "nvme moves blocks below and gets them back through the public interface, while fio does "
        "the same bytes on a file beside the tier's, with io_uring, O_DIRECT, the same block size "
        "and depth; they take turns.  write ends when all blocks are below, none is left in DRAM "
        "and fdatasync has returned, as fio's does.  read asks for three chains of 32 blocks "
        "ahead, in random order, and checks a stamp in each page; every byte is compared in a "
        "first round that is not timed.  get is one cold block from the call until it is readable; "
        "first_layer_us_p50 the first layer of a cold chain of 32 blocks.  write_amplification is "
        "what the kernel says that the node's process wrote, divided by what was put.  read_of_fio "
        "and write_of_fio are the medians of the rounds' own ratios, each of a round's figure to "
        "that of fio in the same round, and so not the quotients of the medians beside them.  "
        "direct is false where the file system refuses O_DIRECT; then the figures are the page "
        "cache's.  "
        "fio's are null when it is not installed.\n\n"
        "restart fills a tier with small blocks, kills the node once all are there, starts it "
        "again, stops it in order and starts it once more.  seconds_to_first_hit is from the start "
        "of the process until one of the blocks is readable and every byte of it right; "
        "seconds_to_full_index until the last is matched; each the worse of the two starts.  "
        "bytes_of_index_per_block is the resident memory of the node with the full index, but for "
        "the pool, less that of the same node with an empty tier.\n\n"
        "overlap has tinyllm(1) ask a question behind a prompt that fills its context.  The "
        "prompt's KV is computed (cold), read from NVMe before anything is computed (nvme), read "
        "by layers while they are computed (overlap), brought up for the time that the session's "
        "hint said (prefetched), or in DRAM; each after the same pause, and every logit compared."
        "\n\n"
        "resp starts a redis-server that keeps nothing on disk, and a weftd with its gateway, and "
        "has the same client send the same commands to both over 127.0.0.1, by turns: SET and GET "
        "of values of 64 KiB, 1 MiB and 16 MiB on 4 connections (GB of payload a second), and of "
        "64 bytes on 50 connections, one command at a time and 16 (commands a second).  A figure "
        "is the median of the rounds.  Without a redis-server its figures are null.  limit is a "
        "server that keeps nothing: it receives values into memory and sends them from there, with "
        "one call of the kernel a command.\n\n"
        "cluster plays a trace four times: on nodes that know nothing of each other, in turn; on "
        "the same nodes as one fabric, in turn and where weft_route(3) says (hit_rate_fabric; as "
        "nothing is computed, engines are taken to work off what was no hit, at 14,000 tokens a "
        "second of the trace's time); and on one node with all their memory "
        "(--blocks of 4 KiB in all, 24000 unless said).  Requests run one after the other, and "
        "every byte that is a hit is checked.  route_us_p50 is of the call, answered by a node in "
        "another process.  The nodes are processes of this host, joined by Unix "
        "sockets, so that hit rates count and times do not.\n\n"
        "net makes two network namespaces with a veth pair between them (an emulated network: it "
        "needs root and ip, and says so and uses loopback where it has them not), and moves blocks "
        "between a process in each, over the tcp transport with a secret, 8 at a time, from 256 "
        "MiB of memory to as much of the other's.  A block is summed where it arrives and compared "
        "with the sum that its sender has beside it.  get asks for blocks and put sends them; "
        "iperf3 runs on the same path by turns, and get_of_iperf and put_of_iperf are the medians "
        "of the rounds' own ratios.  Of up to 8 CPUs each of the two hosts has half, whichever "
        "program runs there.  get_64k is one block of 64 KiB from the request until it was "
        "found right, ping a message there and one back.  Figures of what is missing are null.  "
        "With UCX and its ucx_perftest here it takes some three minutes, by --rounds and --seconds "
        "less or more, and where stderr is no terminal it says there which part has begun.\n\n"
        "hand-over has two nodes in such namespaces, with the link held to --mbit by tc, and a "
        "prefill of which each layer of all --blocks takes --layer-ms.  push_ms, hand_over_ms and "
        "fetch_ms are from its end until the other node has every block in DRAM: pushed layer by "
        "layer (weft_push_begin(3)), handed over when it is committed (weft_hand_over(3)), or "
        "fetched once it is told of.  chain_on_link_ms and layer_on_link_ms are what the link "
        "alone would take.  A chain that does not come in 20 s is sent again, up to twice, and "
        "counted in lost.  Every byte is compared.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
