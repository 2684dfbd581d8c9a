/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench restart: how soon a node serves again what it had below, and what knowing of it costs.
 *
 * A node is filled with small blocks in sessions' chains, each moved below while the next ones are
 * put.  When all are there, and nothing was flushed for the occasion, it is killed and started
 * again; then it is stopped in order and started once more.  A start is timed from the fork of the
 * process:
 *
 *   first hit    some chain's first block is readable, and every byte of it is right
 *   full index   every chain matches whole
 *
 * Blocks from all over the log are asked for in turn, so that the first hit does not depend on the
 * luck of one.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench.h"

#define CHAIN 512u
#define AHEAD 16u /* chains put and not yet demoted */
#define ASKED 16u /* blocks that a first hit may be of */
#define PATIENCE_S 20.0
#define POLL_US 1000

struct start {
    double first_s, full_s;
    uint64_t resident_bytes;
};

struct bench {
    struct cli *cli;
    struct cli_node *node;
    struct weft_format *format;
    struct weft_session *ahead[AHEAD];
    struct weft_key *keys;
    uint64_t block_bytes;
    size_t chain_count, blocks; /* the last chain has what is left */
    uint64_t empty_bytes;
    const char *last; /* what was done to the node */
    double fill_s;
};

static uint32_t length_of(const struct bench *bench, size_t chain)
{
    size_t left = bench->blocks - chain * CHAIN;
    return left < CHAIN ? (uint32_t)left : CHAIN;
}

/* -------------------------------------------------------------------------------------- filling */

static int format_open(struct bench *bench)
{
    struct weft_format_spec spec = {.model = "weft-bench-restart@1",
                                    .layers = 1,
                                    .kv_heads = 1,
                                    .head_dim = 1,
                                    .dtype = WEFT_INT8,
                                    .block_tokens = 1,
                                    .block_bytes = bench->block_bytes};
    enum weft_status status = weft_format_open(bench->cli->weft, &spec, &bench->format);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(bench->cli, status, "format");
}

static int ahead_finish(struct bench *bench, struct weft_session **at)
{
    double until = wf_cli_now_s() + PATIENCE_S;
    enum weft_status status = WEFT_OK;
    while (*at && (status = weft_demote(*at)) == WEFT_PENDING && wf_cli_now_s() < until)
        usleep(POLL_US);
    weft_session_close(*at);
    *at = NULL;
    if (status == WEFT_PENDING)
        return wf_cli_fail(bench->cli, CLI_REFUSED,
                           "blocks do not go below within %.0f s; say fewer --blocks or a larger "
                           "--tier-size",
                           PATIENCE_S);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(bench->cli, status, "demote");
}

static int chain_put(struct bench *bench, size_t number)
{
    struct weft_session **at = &bench->ahead[number % AHEAD];
    struct weft_key *keys = bench->keys + number * CHAIN;
    uint32_t tokens[CHAIN], count = length_of(bench, number);
    struct weft_fill fill;
    int code = ahead_finish(bench, at);
    if (code != CLI_OK)
        return code;
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i ? i : (uint32_t)number;
    enum weft_status status = weft_keys_from_tokens(bench->format, NULL, tokens, count, NULL, keys);
    if (status == WEFT_OK)
        status = weft_session_open(bench->format, NULL, at);
    if (status == WEFT_OK)
        status = weft_reserve(*at, tokens, 0, count, &fill);
    if (status == WEFT_OK && fill.reserved != count) {
        weft_abort(&fill);
        status = WEFT_FULL;
    }
    if (status == WEFT_OK) {
        for (uint32_t i = 0; i < count; i++)
            wf_cli_payload_fill(fill.slots[i].data, bench->block_bytes, &keys[i], i);
        status = weft_commit(&fill);
    }
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(bench->cli, status, "put");
}

static int fill_up(struct bench *bench)
{
    struct cli_progress progress;
    double begin_s = wf_cli_now_s();
    int code = CLI_OK;
    wf_cli_progress_init(&progress, "filling");
    for (size_t i = 0; code == CLI_OK && i < bench->chain_count; i++) {
        wf_cli_progress_step(&progress, (double)i / (double)bench->chain_count, "");
        code = chain_put(bench, i);
    }
    for (size_t i = 0; i < AHEAD; i++) {
        int last = ahead_finish(bench, &bench->ahead[i]);
        code = code == CLI_OK ? last : code;
    }
    wf_cli_progress_fini(&progress);
    bench->fill_s = wf_cli_now_s() - begin_s;
    return code;
}

/* ------------------------------------------------------------------------------------- starting */

static void close_all(struct bench *bench)
{
    if (bench->format)
        weft_format_close(bench->format);
    weft_close(bench->cli->weft);
    bench->format = NULL;
    bench->cli->weft = NULL;
}

/* WEFT_MISS: not yet. */
static enum weft_status hit(const struct bench *bench, size_t chain, bool *out_right)
{
    const struct weft_key *key = &bench->keys[chain * CHAIN];
    struct weft_pins pins;
    enum weft_status status = weft_get_keys(bench->format, key, 1, WEFT_BLOCK_ORDER, &pins);
    if (status != WEFT_OK)
        return status;
    status = pins.blocks ? weft_wait_block(&pins, 0) : WEFT_MISS;
    if (status == WEFT_OK)
        *out_right = wf_cli_payload_wrong(pins.data[0], bench->block_bytes, key, 0) == 0;
    weft_pins_release(&pins);
    return status;
}

static int first_hit(struct bench *bench, double *out_s)
{
    double until = wf_cli_now_s() + PATIENCE_S;
    bool right = false;
    for (size_t i = 0; wf_cli_now_s() < until; i++) {
        size_t chain = i % ASKED * bench->chain_count / ASKED;
        enum weft_status status = hit(bench, chain, &right);
        if (status < 0)
            return wf_cli_fail_status(bench->cli, status, "get");
        if (status == WEFT_OK) {
            *out_s = wf_cli_now_s() - bench->node->started_s;
            return right ? CLI_OK : wf_cli_fail(bench->cli, CLI_WRONG, "a block came back wrong");
        }
        if (i % ASKED == ASKED - 1)
            usleep(POLL_US);
    }
    return wf_cli_fail(bench->cli, CLI_MISS, "no block was found again within %.0f s", PATIENCE_S);
}

static int full_index(struct bench *bench, double *out_s)
{
    double until = wf_cli_now_s() + PATIENCE_S;
    size_t chain = 0, present = 0;
    while (chain < bench->chain_count && wf_cli_now_s() < until) {
        enum weft_status status = weft_match_keys(bench->format, bench->keys + chain * CHAIN,
                                                  length_of(bench, chain), &present);
        if (status < 0)
            return wf_cli_fail_status(bench->cli, status, "match");
        if (present == length_of(bench, chain))
            chain++;
        else
            usleep(POLL_US);
    }
    *out_s = wf_cli_now_s() - bench->node->started_s;
    if (chain == bench->chain_count)
        return CLI_OK;
    return wf_cli_fail(
        bench->cli, CLI_MISS,
        "chain %zu has %zu of %u blocks %.0f s after the node was %s; blocks were lost", chain,
        present, length_of(bench, chain), PATIENCE_S, bench->last);
}

/* Of the node's process, without the pool: how much of that is resident is no matter of the index.
 */
static uint64_t resident_bytes(const struct bench *bench)
{
    char path[64], line[4096 + 128];
    unsigned long long kib, at, end, all = 0;
    bool pool = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)bench->node->pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx ", &at, &end) == 2) /* a mapping begins */
            pool = strstr(line, "memfd:weft-pool") != NULL;
        else if (!pool && sscanf(line, "Rss: %llu", &kib) == 1)
            all += kib;
    }
    if (file)
        fclose(file);
    return all * 1024;
}

static int start_again(struct bench *bench, int number, struct start *out)
{
    close_all(bench);
    wf_cli_node_halt(bench->node, number);
    bench->last = number == SIGKILL ? "killed" : "stopped";
    int code = wf_cli_node_again(bench->cli, bench->node);
    if (code == CLI_OK)
        code = format_open(bench);
    if (code == CLI_OK)
        code = first_hit(bench, &out->first_s);
    if (code == CLI_OK)
        code = full_index(bench, &out->full_s);
    out->resident_bytes = resident_bytes(bench);
    return code;
}

/* --------------------------------------------------------------------------------------- report */

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void report(struct bench *bench, const struct start *killed, const struct start *stopped)
{
    uint64_t blocks = bench->blocks;
    uint64_t resident = killed->resident_bytes > stopped->resident_bytes ? killed->resident_bytes
                                                                         : stopped->resident_bytes;
    uint64_t index = resident > bench->empty_bytes ? resident - bench->empty_bytes : 0;
    double each = (double)index / (double)blocks;
    double first = larger(killed->first_s, stopped->first_s);
    double full = larger(killed->full_s, stopped->full_s);
    if (bench->cli->json) {
        json_t *out = json_object();
        wf_cli_json_set(out, "seconds_to_first_hit", wf_cli_json_real(first, 4));
        wf_cli_json_set(out, "seconds_to_full_index", wf_cli_json_real(full, 4));
        wf_cli_json_set(out, "bytes_of_index_per_block", wf_cli_json_real(each, 1));
        wf_cli_json_set(out, "killed_first_hit_s", wf_cli_json_real(killed->first_s, 4));
        wf_cli_json_set(out, "killed_full_index_s", wf_cli_json_real(killed->full_s, 4));
        wf_cli_json_set(out, "stopped_first_hit_s", wf_cli_json_real(stopped->first_s, 4));
        wf_cli_json_set(out, "stopped_full_index_s", wf_cli_json_real(stopped->full_s, 4));
        wf_cli_json_set(out, "blocks", json_integer((json_int_t)blocks));
        wf_cli_json_set(out, "block_bytes", json_integer((json_int_t)bench->block_bytes));
        wf_cli_json_set(out, "tier_file_bytes",
                        json_integer((json_int_t)bench->node->plan.tier_bytes));
        wf_cli_json_set(out, "fill_s", wf_cli_json_real(bench->fill_s, 1));
        wf_cli_json_print(out);
        return;
    }
    char size[32];
    printf("                 killed   stopped\n");
    printf("first hit    %8.3f s %8.3f s\n", killed->first_s, stopped->first_s);
    printf("full index   %8.3f s %8.3f s\n", killed->full_s, stopped->full_s);
    printf("index        %8.1f bytes a block\n\n", each);
    wf_cli_node_print(bench->cli, stdout);
    printf("%llu blocks of %s, put in %.1f s\n", (unsigned long long)blocks,
           wf_cli_size(bench->block_bytes, size, sizeof size), bench->fill_s);
}

/* ---------------------------------------------------------------------------------------- begin */

static int options_check(struct cli *cli)
{
    struct bench_options *given = &wf_bench_options;
    wf_bench_default(&given->block_bytes, 4096);
    wf_bench_default(&given->blocks, 1000000);
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE,
                           "bench restart kills a node of its own; leave --socket out");
    if (given->block_bytes < 1 || given->block_bytes > (64u << 20) || given->blocks < CHAIN ||
        given->blocks > (1u << 26))
        return wf_cli_fail(cli, CLI_USAGE,
                           "a block has 1 byte to 64 MiB, and there are %u to 2^26 of them", CHAIN);
    /* A record is a page of its own and the payload in whole pages; a log needs room to move. */
    uint64_t record = (given->block_bytes + 4095) / 4096 * 4096 + 4096;
    wf_bench_default(&given->tier_bytes, given->blocks * record / 4 * 5 + (64u << 20));
    return CLI_OK;
}

static int run(struct bench *bench)
{
    struct start killed = {0}, stopped = {0};
    double filled_s;
    bench->empty_bytes = resident_bytes(bench);
    int code = format_open(bench);
    if (code == CLI_OK)
        code = fill_up(bench);
    if (code == CLI_OK)
        code = full_index(bench, &filled_s);
    if (code == CLI_OK)
        code = start_again(bench, SIGKILL, &killed);
    if (code == CLI_OK)
        code = start_again(bench, SIGTERM, &stopped);
    if (code == CLI_OK)
        report(bench, &killed, &stopped);
    return code;
}

int wf_bench_restart(struct cli *cli)
{
    const struct bench_options *given = &wf_bench_options;
    struct bench bench = {.cli = cli, .last = "filled"};
    struct cli_node node;
    int code = options_check(cli);
    if (code != CLI_OK)
        return code;
    char below[48], least[48];
    bench.block_bytes = given->block_bytes;
    bench.blocks = given->blocks;
    bench.chain_count = (given->blocks + CHAIN - 1) / CHAIN;
    snprintf(below, sizeof below, "limits.below=%llu", (unsigned long long)(given->blocks + 65536));
    snprintf(least, sizeof least, "pool.block_bytes_min=%llu",
             (unsigned long long)(given->block_bytes < 4096 ? 4096 : given->block_bytes));
    const char *const settings[] = {below, least, "tier.nvme0.admit=always", NULL};
    uint64_t pool_bytes = 2 * (AHEAD + 2) * CHAIN * ((given->block_bytes + 4095) / 4096 * 4096);
    struct cli_node_plan plan = {
        .pool_bytes = given->pool_bytes ? given->pool_bytes : pool_bytes,
        .tier_dir = given->dir,
        .tier_bytes = given->tier_bytes,
        .settings = settings,
    };
    code = wf_cli_node_start(cli, &plan, &node);
    if (code != CLI_OK)
        return code;
    bench.node = &node;
    bench.keys = wf_cli_alloc(bench.chain_count * CHAIN * sizeof *bench.keys);
    code = run(&bench);
    for (size_t i = 0; i < AHEAD; i++)
        weft_session_close(bench.ahead[i]);
    close_all(&bench);
    free(bench.keys);
    wf_cli_node_stop(&node);
    return code;
}
