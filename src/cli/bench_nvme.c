/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench nvme: what a node's NVMe tier gives end to end, through the public API, with fio
 * beside it on the same file system.
 *
 * Blocks are put as sessions' chains of CHAIN blocks, each chain's tokens new in every round, so
 * that the tier fills up, lets go of its oldest blocks and reclaims their room while it is
 * measured.  The first round is for warmth and for truth: every byte is made, moved below, brought
 * back and compared. In the others a block carries a stamp in each of its pages, since an engine's
 * blocks come from a GPU and cost the processor nothing; the node takes checksums of all bytes as
 * ever.
 *
 *   write   first reserve … all chains are below and fdatasync() has returned
 *   read    chains in random order, WINDOW of them asked for ahead, until the last block is
 * readable get     one cold block whose parents are held: weft_get_keys … weft_wait_block layers  a
 * cold chain in WEFT_LAYER_ORDER: weft_get_keys … weft_wait_layer(0), and the last
 *
 * fio and the node take turns within a round.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench.h"

#define CHAIN 32u /* blocks in a chain */
#define WINDOW 3u /* chains that are asked for at a time */
#define BLOCK_TOKENS 16u
#define LAYERS 16u
#define STAMP_STEP 4096u
#define PATIENCE_S 60.0
#define GETS_MAX 128u   /* cold single blocks a round */
#define LAYERED_MAX 16u /* cold chains in layer order a round */

struct chain {
    struct weft_session *session;
    struct weft_key keys[CHAIN];
};

struct stamp {
    uint8_t key[32];
    uint64_t at, round;
};

struct bench {
    struct cli *cli;
    struct cli_node *node;
    struct weft_format *format;
    struct chain *chains;
    size_t chain_count;
    uint64_t block_bytes, round, random;
    bool layered, direct, no_fio;
    uint64_t written_bytes, device_bytes, verified_bytes;
    struct bench_series write, read, fio_write, fio_read, write_ratio, read_ratio;
    struct bench_series get_us, fio_us, fio_us_p99, first_us, all_us;
};

static int refused(struct bench *bench, enum weft_status status, const char *what)
{
    if (status == WEFT_MISS || status == WEFT_PENDING || status == WEFT_FULL)
        return wf_cli_fail(bench->cli, CLI_REFUSED,
                           "%s: %s; say fewer --blocks, a larger --tier-size or a larger --pool",
                           what, weft_status_name(status));
    return wf_cli_fail_status(bench->cli, status, what);
}

/* ----------------------------------------------------------------------------- what a block has */

static void stamps_set(const struct bench *bench, uint8_t *data, const struct weft_key *key)
{
    struct stamp stamp = {.round = bench->round};
    memcpy(stamp.key, key->bytes, sizeof stamp.key);
    for (uint64_t at = 0; at + sizeof stamp <= bench->block_bytes; at += STAMP_STEP) {
        stamp.at = at;
        memcpy(data + at, &stamp, sizeof stamp);
    }
}

static bool stamps_right(const struct bench *bench, const uint8_t *data, const struct weft_key *key)
{
    struct stamp stamp = {.round = bench->round};
    memcpy(stamp.key, key->bytes, sizeof stamp.key);
    for (uint64_t at = 0; at + sizeof stamp <= bench->block_bytes; at += STAMP_STEP) {
        stamp.at = at;
        if (memcmp(data + at, &stamp, sizeof stamp) != 0)
            return false;
    }
    return true;
}

/* Of round 0 every byte, of others every stamp. */
static int block_check(struct bench *bench, const uint8_t *data, const struct chain *chain,
                       uint32_t block)
{
    const struct weft_key *key = &chain->keys[block];
    bool whole = bench->round == 0;
    bool right = whole ? wf_cli_payload_wrong(data, bench->block_bytes, key, block) == 0
                       : stamps_right(bench, data, key);
    bench->verified_bytes += whole && right ? bench->block_bytes : 0;
    return right ? CLI_OK
                 : wf_cli_fail(bench->cli, CLI_WRONG, "block %u of a chain came back wrong", block);
}

/* ---------------------------------------------------------------------------------------- write */

static int chain_put(struct bench *bench, struct chain *chain, size_t number)
{
    uint32_t tokens[CHAIN * BLOCK_TOKENS];
    struct weft_fill fill;
    for (uint32_t i = 0; i < CHAIN * BLOCK_TOKENS; i++)
        tokens[i] = i < BLOCK_TOKENS ? (uint32_t)(bench->round << 20 | number) : i;
    enum weft_status status = weft_keys_from_tokens(bench->format, NULL, tokens,
                                                    CHAIN * BLOCK_TOKENS, NULL, chain->keys);
    if (status == WEFT_OK)
        status = weft_session_open(bench->format, NULL, &chain->session);
    if (status == WEFT_OK)
        status = weft_reserve(chain->session, tokens, 0, CHAIN * BLOCK_TOKENS, &fill);
    if (status != WEFT_OK)
        return refused(bench, status, "put");
    if (fill.reserved != CHAIN) {
        weft_abort(&fill);
        return refused(bench, WEFT_FULL, "put");
    }
    for (uint32_t i = 0; i < CHAIN; i++) {
        if (bench->round == 0)
            wf_cli_payload_fill(fill.slots[i].data, bench->block_bytes, &chain->keys[i], i);
        else
            stamps_set(bench, fill.slots[i].data, &chain->keys[i]);
    }
    status = weft_commit(&fill);
    return status == WEFT_OK ? CLI_OK : refused(bench, status, "put");
}

/* Everything is below, and nothing of it in DRAM. */
static int chains_demote(struct bench *bench)
{
    double until = wf_cli_now_s() + PATIENCE_S;
    for (size_t i = 0; i < bench->chain_count; i++) {
        enum weft_status status;
        while ((status = weft_demote(bench->chains[i].session)) == WEFT_PENDING &&
               wf_cli_now_s() < until)
            usleep(500);
        if (status != WEFT_OK)
            return refused(bench, status, "demote");
    }
    return CLI_OK;
}

static void chains_forget(struct bench *bench)
{
    for (size_t i = 0; i < bench->chain_count; i++)
        if (bench->chains[i].session)
            weft_session_close(bench->chains[i].session);
    memset(bench->chains, 0, bench->chain_count * sizeof *bench->chains);
}

static int tier_sync(struct bench *bench)
{
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/nvme.weft", bench->node->below);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool synced = fd >= 0 && fdatasync(fd) == 0;
    int code = synced ? CLI_OK
                      : wf_cli_fail(bench->cli, CLI_SYSTEM, "cannot sync %s: %s", path,
                                    strerror(errno));
    if (fd >= 0)
        close(fd);
    return code;
}

static int round_write(struct bench *bench, double *out_s)
{
    chains_forget(bench);
    double begin_s = wf_cli_now_s();
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < bench->chain_count; i++)
        code = chain_put(bench, &bench->chains[i], i);
    if (code == CLI_OK)
        code = chains_demote(bench);
    if (code == CLI_OK)
        code = tier_sync(bench);
    *out_s = wf_cli_now_s() - begin_s;
    return code;
}

/* ----------------------------------------------------------------------------------------- read */

static void shuffle(struct bench *bench, struct chain **order)
{
    for (size_t i = 0; i < bench->chain_count; i++)
        order[i] = &bench->chains[i];
    for (size_t i = bench->chain_count; i > 1; i--) {
        size_t k = wf_cli_random(&bench->random) % i;
        struct chain *swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
}

static int chain_finish(struct bench *bench, const struct chain *chain, struct weft_pins *pins)
{
    int code = pins->blocks == CHAIN ? CLI_OK : refused(bench, WEFT_MISS, "get");
    for (uint32_t i = 0; code == CLI_OK && i < CHAIN; i++) {
        enum weft_status status = weft_wait_block(pins, i);
        code = status == WEFT_OK ? block_check(bench, pins->data[i], chain, i)
                                 : refused(bench, status, "get");
    }
    weft_pins_release(pins);
    return code;
}

static int round_read(struct bench *bench, double *out_s)
{
    struct chain **order = wf_cli_alloc(bench->chain_count * sizeof(struct chain *));
    struct weft_pins pins[WINDOW] = {0};
    int code = CLI_OK;
    shuffle(bench, order);
    double begin_s = wf_cli_now_s();
    for (size_t i = 0; code == CLI_OK && i < bench->chain_count + WINDOW; i++) {
        if (i >= WINDOW)
            code = chain_finish(bench, order[i - WINDOW], &pins[i % WINDOW]);
        if (code != CLI_OK || i >= bench->chain_count)
            continue;
        enum weft_status status = weft_get_keys(bench->format, order[i]->keys, CHAIN,
                                                WEFT_BLOCK_ORDER, &pins[i % WINDOW]);
        code = status == WEFT_OK ? CLI_OK : refused(bench, status, "get");
    }
    *out_s = wf_cli_now_s() - begin_s;
    for (size_t i = 0; i < WINDOW; i++)
        weft_pins_release(&pins[i]);
    free(order);
    return code;
}

/* Cold blocks one at a time, each a chain's next, from random chains. */
static int round_gets(struct bench *bench)
{
    struct chain **order = wf_cli_alloc(bench->chain_count * sizeof(struct chain *));
    uint32_t gets = 0, gets_max = (uint32_t)(bench->node->plan.pool_bytes / bench->block_bytes / 2);
    gets_max = gets_max < GETS_MAX ? gets_max : GETS_MAX;
    shuffle(bench, order);
    int code = chains_demote(bench);
    for (uint32_t depth = 0; depth < CHAIN; depth++)
        for (size_t i = 0; code == CLI_OK && gets < gets_max && i < bench->chain_count; i++) {
            struct weft_pins pins = {0};
            double begin_s = wf_cli_now_s();
            enum weft_status status = weft_get_keys(bench->format, order[i]->keys, depth + 1,
                                                    WEFT_BLOCK_ORDER, &pins);
            if (status == WEFT_OK)
                status = weft_wait_block(&pins, depth);
            double end_s = wf_cli_now_s();
            if (status != WEFT_OK)
                code = refused(bench, status, "get");
            else
                code = block_check(bench, pins.data[depth], order[i], depth);
            if (pins.loading == depth) /* and nothing but it was on its way */
                wf_bench_add(&bench->get_us, (end_s - begin_s) * 1e6);
            weft_pins_release(&pins);
            gets++;
        }
    free(order);
    return code;
}

static int round_layers(struct bench *bench)
{
    struct chain **order = wf_cli_alloc(bench->chain_count * sizeof(struct chain *));
    size_t count = bench->chain_count < LAYERED_MAX ? bench->chain_count : LAYERED_MAX;
    shuffle(bench, order);
    int code = chains_demote(bench);
    for (size_t i = 0; code == CLI_OK && i < count; i++) {
        struct weft_pins pins = {0};
        double begin_s = wf_cli_now_s(), first_s = 0;
        enum weft_status status = weft_get_keys(bench->format, order[i]->keys, CHAIN,
                                                WEFT_LAYER_ORDER, &pins);
        if (status == WEFT_OK)
            status = weft_wait_layer(&pins, 0);
        first_s = wf_cli_now_s();
        if (status == WEFT_OK)
            status = weft_wait_layer(&pins, LAYERS - 1);
        double end_s = wf_cli_now_s();
        if (status != WEFT_OK)
            code = refused(bench, status, "get");
        else if (pins.blocks == CHAIN && pins.loading == 0) {
            wf_bench_add(&bench->first_us, (first_s - begin_s) * 1e6);
            wf_bench_add(&bench->all_us, (end_s - begin_s) * 1e6);
        }
        for (uint32_t k = 0; code == CLI_OK && k < pins.blocks; k++)
            code = block_check(bench, pins.data[k], order[i], k);
        weft_pins_release(&pins);
    }
    free(order);
    return code;
}

/* ------------------------------------------------------------------------------- of the process */

/* Bytes that the node's process caused to be written to a device, as the kernel counts them. */
static uint64_t device_bytes(const struct bench *bench)
{
    char path[64], line[128];
    unsigned long long bytes = 0;
    snprintf(path, sizeof path, "/proc/%d/io", (int)bench->node->pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "write_bytes: %llu", &bytes) == 1)
            break;
    if (file)
        fclose(file);
    return bytes;
}

/* Has the node a descriptor of the tier's file with O_DIRECT? */
static bool tier_direct(const struct bench *bench)
{
    char link[64], target[PATH_MAX], line[128];
    bool direct = false;
    for (int fd = 0; fd < 256 && !direct; fd++) {
        snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)bench->node->pid, fd);
        ssize_t length = readlink(link, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        const char *name = strrchr(target, '/');
        if (!name || strcmp(name, "/nvme.weft") != 0)
            continue;
        snprintf(link, sizeof link, "/proc/%d/fdinfo/%d", (int)bench->node->pid, fd);
        FILE *file = fopen(link, "r");
        unsigned int flags = 0;
        while (file && fgets(line, sizeof line, file))
            if (sscanf(line, "flags: %o", &flags) == 1)
                break;
        direct = flags & O_DIRECT;
        if (file)
            fclose(file);
    }
    return direct;
}

/* ----------------------------------------------------------------------------------- all rounds */

static bool fio(struct bench *bench, bool write, uint32_t depth, uint64_t blocks,
                struct bench_fio *out)
{
    char path[PATH_MAX + 16];
    uint64_t bytes = bench->chain_count * CHAIN * bench->block_bytes;
    snprintf(path, sizeof path, "%s/%s", bench->node->below, CLI_YARDSTICK);
    struct bench_fio_job job = {.path = path,
                                .file_bytes = bytes,
                                .bytes = blocks * bench->block_bytes,
                                .block_bytes = bench->block_bytes,
                                .depth = depth,
                                .run = depth == 1 ? 1 : CHAIN,
                                .write = write};
    if (!bench->no_fio && !wf_bench_fio(&job, out))
        bench->no_fio = true;
    return !bench->no_fio;
}

static int round_run(struct bench *bench)
{
    uint64_t blocks = bench->chain_count * CHAIN;
    double bytes = (double)(blocks * bench->block_bytes), write_s, read_s;
    uint32_t depth = (uint32_t)wf_bench_options.depth;
    struct bench_fio yard = {0};
    if (fio(bench, true, depth, blocks, &yard))
        wf_bench_add(&bench->fio_write, yard.gbps);
    uint64_t device_before = device_bytes(bench);
    int code = round_write(bench, &write_s);
    if (code != CLI_OK)
        return code;
    wf_bench_add(&bench->write, bytes / write_s / 1e9);
    if (yard.gbps > 0)
        wf_bench_add(&bench->write_ratio, bytes / write_s / 1e9 / yard.gbps);
    if (fio(bench, false, depth, blocks, &yard))
        wf_bench_add(&bench->fio_read, yard.gbps);
    code = round_read(bench, &read_s);
    if (code != CLI_OK)
        return code;
    wf_bench_add(&bench->read, bytes / read_s / 1e9);
    if (yard.gbps > 0)
        wf_bench_add(&bench->read_ratio, bytes / read_s / 1e9 / yard.gbps);
    if (fio(bench, false, 1, GETS_MAX, &yard)) {
        wf_bench_add(&bench->fio_us, yard.us_p50);
        wf_bench_add(&bench->fio_us_p99, yard.us_p99);
    }
    code = round_gets(bench);
    if (code == CLI_OK && bench->layered)
        code = round_layers(bench);
    bench->written_bytes += (uint64_t)bytes;
    bench->device_bytes += device_bytes(bench) - device_before;
    return code;
}

static int rounds_run(struct bench *bench)
{
    double seconds;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "bench nvme");
    int code = round_write(bench, &seconds);
    if (code == CLI_OK)
        code = round_read(bench, &seconds);
    for (uint64_t i = 0; code == CLI_OK && i < wf_bench_options.rounds; i++) {
        wf_cli_progress_step(&progress, (double)i / (double)wf_bench_options.rounds, "");
        bench->round = i + 1;
        code = round_run(bench);
    }
    wf_cli_progress_fini(&progress);
    return code;
}

/* --------------------------------------------------------------------------------------- report */

static json_t *figure(struct bench_series *series, double part, int decimals)
{
    return series->count ? wf_cli_json_real(wf_bench_at(series, part), decimals) : json_null();
}

static void report_json(struct bench *bench)
{
    json_t *out = json_object();
    double amplification = (double)bench->device_bytes / (double)bench->written_bytes;
    wf_cli_json_set(out, "read_gbps", figure(&bench->read, 0.5, 3));
    wf_cli_json_set(out, "write_gbps", figure(&bench->write, 0.5, 3));
    wf_cli_json_set(out, "fio_read_gbps", figure(&bench->fio_read, 0.5, 3));
    wf_cli_json_set(out, "fio_write_gbps", figure(&bench->fio_write, 0.5, 3));
    wf_cli_json_set(out, "read_of_fio", figure(&bench->read_ratio, 0.5, 4));
    wf_cli_json_set(out, "write_of_fio", figure(&bench->write_ratio, 0.5, 4));
    wf_cli_json_set(out, "write_amplification", wf_cli_json_real(amplification, 4));
    wf_cli_json_set(out, "get_us_p50", figure(&bench->get_us, 0.5, 1));
    wf_cli_json_set(out, "get_us_p99", figure(&bench->get_us, 0.99, 1));
    wf_cli_json_set(out, "fio_get_us_p50", figure(&bench->fio_us, 0.5, 1));
    wf_cli_json_set(out, "fio_get_us_p99", figure(&bench->fio_us_p99, 0.5, 1));
    wf_cli_json_set(out, "first_layer_us_p50", figure(&bench->first_us, 0.5, 1));
    wf_cli_json_set(out, "all_layers_us_p50", figure(&bench->all_us, 0.5, 1));
    wf_cli_json_set(out, "direct", json_boolean(bench->direct));
    wf_cli_json_set(out, "verified_bytes", json_integer((json_int_t)bench->verified_bytes));
    wf_cli_json_set(out, "block_bytes", json_integer((json_int_t)bench->block_bytes));
    wf_cli_json_set(out, "blocks", json_integer((json_int_t)(bench->chain_count * CHAIN)));
    wf_cli_json_set(out, "chain_blocks", json_integer(CHAIN));
    wf_cli_json_set(out, "depth", json_integer((json_int_t)wf_bench_options.depth));
    wf_cli_json_set(out, "runs", json_integer((json_int_t)wf_bench_options.rounds));
    wf_cli_json_print(out);
}

static void line(const char *what, double value, const char *unit, double yard, double ratio)
{
    printf("%-14s %10.3f %-5s", what, value, unit);
    if (yard > 0)
        printf("   fio %10.3f %-5s  %5.1f %%", yard, unit, 100 * ratio);
    putchar('\n');
}

static void report_people(struct bench *bench)
{
    char size[32], all[32];
    line("read", wf_bench_at(&bench->read, 0.5), "GB/s", wf_bench_at(&bench->fio_read, 0.5),
         wf_bench_at(&bench->read_ratio, 0.5));
    line("write", wf_bench_at(&bench->write, 0.5), "GB/s", wf_bench_at(&bench->fio_write, 0.5),
         wf_bench_at(&bench->write_ratio, 0.5));
    double get = wf_bench_at(&bench->get_us, 0.5), yard = wf_bench_at(&bench->fio_us, 0.5);
    line("get p50", get, "us", yard, yard > 0 ? get / yard : 0);
    get = wf_bench_at(&bench->get_us, 0.99), yard = wf_bench_at(&bench->fio_us_p99, 0.5);
    line("get p99", get, "us", yard, yard > 0 ? get / yard : 0);
    if (bench->layered) {
        line("first layer", wf_bench_at(&bench->first_us, 0.5), "us", 0, 0);
        line("all layers", wf_bench_at(&bench->all_us, 0.5), "us", 0, 0);
    }
    printf("%-14s %10.3f\n\n", "amplification",
           (double)bench->device_bytes / (double)bench->written_bytes);
    wf_cli_node_print(bench->cli, stdout);
    printf("%zu blocks of %s in chains of %u, %llu runs, %llu in flight; %s verified\n",
           bench->chain_count * CHAIN, wf_cli_size(bench->block_bytes, size, sizeof size), CHAIN,
           (unsigned long long)wf_bench_options.rounds, (unsigned long long)wf_bench_options.depth,
           wf_cli_size(bench->verified_bytes, all, sizeof all));
}

/* ---------------------------------------------------------------------------------------- begin */

/* A model of LAYERS layers where the size allows it, else an opaque payload. */
static int format_open(struct bench *bench)
{
    struct weft_format_spec spec = {.model = "weft-bench-nvme@1", .block_tokens = BLOCK_TOKENS};
    uint64_t per_layer = 2 * LAYERS * BLOCK_TOKENS * weft_dtype_bytes(WEFT_BF16);
    uint64_t elements = bench->block_bytes % per_layer ? 0 : bench->block_bytes / per_layer;
    uint64_t head_dim = elements % 128 == 0 ? 128 : elements % 8 == 0 ? 8 : 1;
    bench->layered = elements && elements / head_dim <= 4096;
    spec.dtype = WEFT_BF16;
    spec.layers = LAYERS;
    spec.kv_heads = bench->layered ? (uint32_t)(elements / head_dim) : 1;
    spec.head_dim = bench->layered ? (uint32_t)head_dim : 1;
    spec.block_bytes = bench->layered ? 0 : bench->block_bytes;
    enum weft_status status = weft_format_open(bench->cli->weft, &spec, &bench->format);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(bench->cli, status, "format");
}

static int options_check(struct cli *cli)
{
    const struct bench_options *given = &wf_bench_options;
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE,
                           "bench nvme measures a node of its own; leave --socket out");
    if (given->block_bytes < 4096 || given->block_bytes > (64u << 20) ||
        given->block_bytes % 4096 || !given->rounds || given->rounds > 1000 || !given->depth ||
        given->depth > 1024 || given->blocks < CHAIN || given->blocks > (1u << 24))
        return wf_cli_fail(cli, CLI_USAGE,
                           "a block has 4 KiB to 64 MiB in steps of 4 KiB, there are %u to 2^24 of "
                           "them, 1 to 1000 rounds, and a --depth of 1 to 1024",
                           CHAIN);
    uint64_t bytes = given->blocks * given->block_bytes;
    if (bytes > given->tier_bytes / 10 * 8)
        return wf_cli_fail(cli, CLI_USAGE,
                           "%llu blocks of %llu bytes do not fit a tier of %llu with a fifth of it "
                           "left to move in; say fewer --blocks or a larger --tier-size",
                           (unsigned long long)given->blocks,
                           (unsigned long long)given->block_bytes,
                           (unsigned long long)given->tier_bytes);
    return CLI_OK;
}

static void bench_fini(struct bench *bench)
{
    struct bench_series *all[] = {&bench->write,      &bench->read,   &bench->fio_write,
                                  &bench->fio_read,   &bench->get_us, &bench->write_ratio,
                                  &bench->read_ratio, &bench->fio_us, &bench->fio_us_p99,
                                  &bench->first_us,   &bench->all_us};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        wf_bench_forget(all[i]);
    chains_forget(bench);
    free(bench->chains);
    if (bench->format)
        weft_format_close(bench->format);
    weft_close(bench->cli->weft);
    bench->cli->weft = NULL;
}

int wf_bench_nvme(struct cli *cli)
{
    struct bench_options *given = &wf_bench_options;
    wf_bench_default(&given->block_bytes, 1 << 20);
    /* As many bytes a round whatever the size of a block, so that what a round begins and ends with
     * weighs the same. */
    uint64_t blocks = given->block_bytes ? ((uint64_t)1 << 30) / given->block_bytes : 0;
    wf_bench_default(&given->blocks, blocks > CHAIN ? blocks : CHAIN);
    wf_bench_default(&given->tier_bytes, (uint64_t)4 << 30);
    struct bench bench = {.cli = cli, .random = 1, .block_bytes = given->block_bytes};
    struct cli_node node;
    int code = options_check(cli);
    if (code != CLI_OK)
        return code;
    char depth[48], least[48];
    snprintf(depth, sizeof depth, "tier.nvme0.queue_depth=%llu", (unsigned long long)given->depth);
    snprintf(least, sizeof least, "pool.block_bytes_min=%llu",
             (unsigned long long)(given->block_bytes < 16384 ? given->block_bytes : 16384));
    const char *const settings[] = {depth, least, "tier.nvme0.admit=always", NULL};
    uint64_t pool_bytes = 8 * CHAIN * given->block_bytes;
    if (pool_bytes < 256u << 20)
        pool_bytes = 256u << 20;
    bench.chain_count = given->blocks / CHAIN;
    struct cli_node_plan plan = {
        .pool_bytes = given->pool_bytes ? given->pool_bytes : pool_bytes,
        .tier_dir = given->dir,
        .tier_bytes = given->tier_bytes,
        .room_bytes = bench.chain_count * CHAIN * given->block_bytes,
        .settings = settings,
    };
    code = wf_cli_node_start(cli, &plan, &node);
    if (code != CLI_OK)
        return code;
    bench.node = &node;
    bench.chains = wf_cli_alloc(bench.chain_count * sizeof *bench.chains);
    bench.direct = tier_direct(&bench);
    code = format_open(&bench);
    if (code == CLI_OK)
        code = rounds_run(&bench);
    if (code == CLI_OK)
        (cli->json ? report_json : report_people)(&bench);
    if (bench.no_fio)
        fputs("weft bench: there is no fio, or it failed here; its figures are left out\n", stderr);
    if (!bench.direct)
        fprintf(stderr,
                "weft bench: the file system of %s takes no O_DIRECT; these figures are the page "
                "cache's\n",
                given->dir);
    bench_fini(&bench);
    wf_cli_node_stop(&node);
    return code;
}
