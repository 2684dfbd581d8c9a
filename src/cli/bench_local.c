/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench local: the data path of one node, each figure with its yardstick in the same run.
 *
 * A working set of `blocks` unchained blocks stays in the pool.  A round goes through it in chunks
 * of 128 MiB; per chunk, measure and yardstick take turns on the same memory, each after an untimed
 * pass that brings caches to the same state:
 *
 *   get   pin + memcpy + unpin of the chunk        yardstick: the same memcpy from pins held
 *   put   reserve + memcpy + commit of the chunk   yardstick: the same memcpy into a reservation,
 *         (dropped before, untimed)                           which is given back (untimed)
 *
 * After a put the bench waits, untimed, until the node has taken the chunk's checksums, so that the
 * node's work for the last put does not slow the next yardstick and flatter the ratio.
 */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/bench.h"

#define CHUNK_BYTES ((size_t)128 << 20)
#define BUFFER_CHUNKS 2
#define PIN_SINGLES 20000 /* a round */
#define PIN_BATCH 64
#define PIN_BATCHES 400 /* a round */
#define MATCH_KEYS 8192
#define MATCH_BLOCK_BYTES 16384
#define MATCHES 400             /* a round */
#define KEY_TOKENS 131072       /* as many as the chain to match has */
#define KEY_SAMPLE_TOKENS 16384 /* short samples: other work seldom falls into one */
#define KEY_SAMPLES 40          /* a round */
#define REDIS_GETS 40           /* a round */
#define REDIS_KEYS_MAX 64
#define SETTLE_S 0.5

struct bench {
    struct cli *cli;
    struct bench_clock clock;
    struct bench_redis redis;
    struct weft_format *format, *match_format, *key_format_16, *key_format_256;
    struct weft_key *keys, *chain; /* chain: MATCH_KEYS present, then as many absent */
    uint32_t *tokens;
    uint8_t *buffer;
    EVP_MD *sha256; /* fetched once: OpenSSL looks a name up for every digest otherwise */
    size_t block_bytes, blocks, chunk, redis_keys;
    uint64_t random;
    uint64_t pool_bytes; /* that the working set needs */
    bool settles;
    double first_put_gbps;
    struct bench_series get, get_copy, get_ratio, put, put_copy, put_ratio, copy;
    struct bench_series pin_single, pin_batch, match, probe, redis_get;
    struct bench_series keys_16, keys_256, sha_16, sha_256;
};

static double elapsed_ns(const struct bench *bench, uint64_t begin, uint64_t end)
{
    return (double)(end - begin) * bench->clock.ns_per_tick;
}

static uint8_t *buffer_at(const struct bench *bench, size_t first)
{
    return bench->buffer + first / bench->chunk % BUFFER_CHUNKS * bench->chunk * bench->block_bytes;
}

static size_t chunk_count(const struct bench *bench, size_t first)
{
    return bench->blocks - first < bench->chunk ? bench->blocks - first : bench->chunk;
}

static int refused(struct bench *bench, enum weft_status status, const char *what)
{
    char size[32];
    if (status == WEFT_MISS || status == WEFT_FULL || status == WEFT_E_PARENT)
        return wf_cli_fail(
            bench->cli, CLI_REFUSED,
            "%s: a block of the working set went: all of it and what others keep there do not fit; "
            "give the node %s, or say fewer --blocks",
            what, wf_cli_size(bench->pool_bytes, size, sizeof size));
    return wf_cli_fail_status(bench->cli, status, what);
}

/* ---------------------------------------------------------------------------------- copy paths */

static int get_chunk(struct bench *bench, size_t first, double *out_ns)
{
    uint8_t *to = buffer_at(bench, first);
    size_t count = chunk_count(bench, first);
    uint64_t begin = wf_bench_ticks_begin();
    for (size_t i = 0; i < count; i++) {
        struct weft_pin pin;
        enum weft_status status = weft_pin(bench->format, &bench->keys[first + i], &pin);
        if (status != WEFT_OK)
            return refused(bench, status, "get");
        memcpy(to + i * bench->block_bytes, pin.data, bench->block_bytes);
        weft_unpin(&pin);
    }
    *out_ns = elapsed_ns(bench, begin, wf_bench_ticks_end());
    return CLI_OK;
}

static int get_yardstick(struct bench *bench, size_t first, double *out_ns)
{
    uint8_t *to = buffer_at(bench, first);
    size_t count = chunk_count(bench, first), held = 0;
    struct weft_pin *pins = wf_cli_alloc(count * sizeof *pins);
    int code = CLI_OK;
    for (; held < count && code == CLI_OK; held++) {
        enum weft_status status = weft_pin(bench->format, &bench->keys[first + held], &pins[held]);
        if (status != WEFT_OK)
            code = refused(bench, status, "get");
    }
    uint64_t begin = wf_bench_ticks_begin();
    for (size_t i = 0; i < count && code == CLI_OK; i++)
        memcpy(to + i * bench->block_bytes, pins[i].data, bench->block_bytes);
    *out_ns = elapsed_ns(bench, begin, wf_bench_ticks_end());
    for (size_t i = 0; i < count; i++)
        weft_unpin(&pins[i]);
    free(pins);
    return code;
}

static int reserve(struct bench *bench, size_t first, size_t count, struct weft_slot *slots)
{
    enum weft_status status = weft_reserve_keys(bench->format, NULL, &bench->keys[first], count, 0,
                                                slots);
    if (status != WEFT_OK)
        return refused(bench, status, "put");
    for (size_t i = 0; i < count; i++)
        if (slots[i].status != WEFT_OK) {
            weft_abort_slots(bench->format, slots, count);
            return wf_cli_fail(bench->cli, CLI_REFUSED,
                               "put: block %zu is %s; give the node a larger pool, or say --pool",
                               first + i, weft_status_name(slots[i].status));
        }
    return CLI_OK;
}

static int put_chunk(struct bench *bench, size_t first, double *out_ns)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    const uint8_t *from = buffer_at(bench, first);
    size_t count = chunk_count(bench, first);
    uint64_t begin = wf_bench_ticks_begin();
    int code = reserve(bench, first, count, slots);
    if (code != CLI_OK)
        return code;
    for (size_t i = 0; i < count; i++)
        memcpy(slots[i].data, from + i * bench->block_bytes, bench->block_bytes);
    enum weft_status status = weft_commit_slots(bench->format, slots, count);
    *out_ns = elapsed_ns(bench, begin, wf_bench_ticks_end());
    return status == WEFT_OK ? CLI_OK : refused(bench, status, "commit");
}

static int put_yardstick(struct bench *bench, size_t first, double *out_ns)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    const uint8_t *from = buffer_at(bench, first);
    size_t count = chunk_count(bench, first);
    int code = reserve(bench, first, count, slots);
    if (code != CLI_OK)
        return code;
    uint64_t begin = wf_bench_ticks_begin();
    for (size_t i = 0; i < count; i++)
        memcpy(slots[i].data, from + i * bench->block_bytes, bench->block_bytes);
    *out_ns = elapsed_ns(bench, begin, wf_bench_ticks_end());
    weft_abort_slots(bench->format, slots, count);
    return CLI_OK;
}

static int drop_chunk(struct bench *bench, size_t first)
{
    for (size_t i = 0; i < chunk_count(bench, first); i++) {
        size_t removed;
        enum weft_status status = weft_remove(bench->format, &bench->keys[first + i], &removed);
        /* The node may still be taking the checksum of what was just put. */
        for (int tries = 0; status == WEFT_E_BUSY && tries < 1000; tries++) {
            usleep(500);
            status = weft_remove(bench->format, &bench->keys[first + i], &removed);
        }
        if (status != WEFT_OK)
            return refused(bench, status, "drop");
    }
    return CLI_OK;
}

/* Wait until the node has taken the checksums of a chunk; a node that takes none is not waited for
 * again. */
static void settle(struct bench *bench, size_t first)
{
    double until = wf_cli_now_s() + SETTLE_S;
    for (size_t i = 0; bench->settles && i < chunk_count(bench, first);) {
        struct weft_pin pin;
        if (weft_pin(bench->format, &bench->keys[first + i], &pin) != WEFT_OK)
            return;
        if (pin.checksum)
            i++;
        weft_unpin(&pin);
        if (!pin.checksum && wf_cli_now_s() > until)
            bench->settles = false;
        else if (i < chunk_count(bench, first) && !pin.checksum)
            usleep(200);
    }
}

/* Each timed pass comes after a pass of the same kind over the same memory, so that caches favour
 * none. */
static int get_round(struct bench *bench, size_t first, bool flip, double *yard_ns)
{
    double ns = 0, unused;
    int code = get_yardstick(bench, first, &unused);
    for (int i = 0; i < 2 && code == CLI_OK; i++)
        code = (i == 0) == flip ? get_yardstick(bench, first, yard_ns)
                                : get_chunk(bench, first, &ns);
    if (code != CLI_OK)
        return code;
    double bytes = (double)(chunk_count(bench, first) * bench->block_bytes);
    wf_bench_add(&bench->get, bytes / ns);
    wf_bench_add(&bench->get_copy, bytes / *yard_ns);
    wf_bench_add(&bench->get_ratio, *yard_ns / ns);
    return CLI_OK;
}

static int put_round(struct bench *bench, size_t first, double *yard_ns)
{
    double ns = 0, unused;
    int code = drop_chunk(bench, first);
    if (code == CLI_OK)
        code = put_yardstick(bench, first, &unused);
    if (code == CLI_OK)
        code = put_yardstick(bench, first, yard_ns);
    if (code == CLI_OK)
        code = put_chunk(bench, first, &ns);
    if (code != CLI_OK)
        return code;
    settle(bench, first);
    double bytes = (double)(chunk_count(bench, first) * bench->block_bytes);
    wf_bench_add(&bench->put, bytes / ns);
    wf_bench_add(&bench->put_copy, bytes / *yard_ns);
    wf_bench_add(&bench->put_ratio, *yard_ns / ns);
    return CLI_OK;
}

static int chunk_round(struct bench *bench, size_t first, bool flip)
{
    double get_yard_ns = 0, put_yard_ns = 0;
    int code = get_round(bench, first, flip, &get_yard_ns);
    if (code == CLI_OK)
        code = put_round(bench, first, &put_yard_ns);
    if (code == CLI_OK)
        wf_bench_add(&bench->copy, 2 * (double)(chunk_count(bench, first) * bench->block_bytes) /
                                       (get_yard_ns + put_yard_ns));
    return code;
}

/* ------------------------------------------------------------------------------ metadata paths */

static int pin_round(struct bench *bench)
{
    struct weft_pin pin;
    for (int i = 0; i < PIN_SINGLES; i++) {
        const struct weft_key *key = &bench->keys[wf_cli_random(&bench->random) % bench->blocks];
        uint64_t begin = wf_bench_ticks_begin();
        enum weft_status status = weft_pin(bench->format, key, &pin);
        if (status != WEFT_OK)
            return refused(bench, status, "pin");
        weft_unpin(&pin);
        double ns = elapsed_ns(bench, begin, wf_bench_ticks_end()) - bench->clock.overhead_ns;
        wf_bench_add(&bench->pin_single, ns > 0 ? ns : 0);
    }
    for (int i = 0; i < PIN_BATCHES; i++) {
        const struct weft_key *keys[PIN_BATCH];
        for (int j = 0; j < PIN_BATCH; j++)
            keys[j] = &bench->keys[wf_cli_random(&bench->random) % bench->blocks];
        uint64_t begin = wf_bench_ticks_begin();
        for (int j = 0; j < PIN_BATCH; j++) {
            enum weft_status status = weft_pin(bench->format, keys[j], &pin);
            if (status != WEFT_OK)
                return refused(bench, status, "pin");
            weft_unpin(&pin);
        }
        wf_bench_add(&bench->pin_batch, elapsed_ns(bench, begin, wf_bench_ticks_end()) / PIN_BATCH);
    }
    return CLI_OK;
}

static int match_round(struct bench *bench)
{
    for (int i = 0; i < MATCHES; i++) {
        size_t cut = i % 2 ? wf_cli_random(&bench->random) % MATCH_KEYS : 0, present = 0;
        uint64_t begin = wf_bench_ticks_begin();
        enum weft_status status = weft_match_keys(bench->match_format, bench->chain + cut,
                                                  MATCH_KEYS, &present);
        double ns = elapsed_ns(bench, begin, wf_bench_ticks_end()) - bench->clock.overhead_ns;
        if (status < 0)
            return refused(bench, status, "match");
        if (present != MATCH_KEYS - cut)
            return wf_cli_fail(
                bench->cli, CLI_WRONG,
                "match found %zu of %zu keys; give the node a larger pool, or say --pool", present,
                MATCH_KEYS - cut);
        wf_bench_add(&bench->match, ns / 1e3);
    }
    size_t found = 0;
    uint64_t begin = wf_bench_ticks_begin();
    for (size_t i = 0; i < MATCH_KEYS; i++) {
        size_t one = 0;
        if (weft_match_keys(bench->match_format, &bench->chain[i], 1, &one) == WEFT_OK)
            found += one;
    }
    double ns = elapsed_ns(bench, begin, wf_bench_ticks_end());
    if (found == MATCH_KEYS)
        wf_bench_add(&bench->probe, ns / 1e3);
    return CLI_OK;
}

static int keys_once(struct bench *bench, struct weft_format *format, size_t block_tokens,
                     struct bench_series *rate, struct bench_series *sha)
{
    size_t count = KEY_SAMPLE_TOKENS / block_tokens;
    struct weft_key *out = wf_cli_alloc(count * sizeof *out);
    uint64_t begin = wf_bench_ticks_begin();
    enum weft_status status = weft_keys_from_tokens(format, NULL, bench->tokens, KEY_SAMPLE_TOKENS,
                                                    NULL, out);
    wf_bench_add(rate, 1e3 * KEY_SAMPLE_TOKENS / elapsed_ns(bench, begin, wf_bench_ticks_end()));
    /* The yardstick: SHA-256 of parent and tokens alone, one digest a block, chained likewise. */
    uint8_t message[32 + 4 * 256] = {0};
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    begin = wf_bench_ticks_begin();
    for (size_t i = 0; i < count; i++) {
        memcpy(message + 32, bench->tokens + i * block_tokens, 4 * block_tokens);
        EVP_DigestInit_ex(context, bench->sha256, NULL);
        EVP_DigestUpdate(context, message, 32 + 4 * block_tokens);
        EVP_DigestFinal_ex(context, message, NULL);
    }
    wf_bench_add(sha, 1e3 * KEY_SAMPLE_TOKENS / elapsed_ns(bench, begin, wf_bench_ticks_end()));
    EVP_MD_CTX_free(context);
    free(out);
    return status == WEFT_OK ? CLI_OK : refused(bench, status, "keys");
}

static int redis_round(struct bench *bench)
{
    for (int i = 0; bench->redis_keys && i < REDIS_GETS; i++) {
        uint64_t key = wf_cli_random(&bench->random) % bench->redis_keys;
        uint64_t begin = wf_bench_ticks_begin();
        if (!wf_bench_redis_get(&bench->redis, key, bench->buffer, bench->block_bytes))
            return wf_cli_fail(bench->cli, CLI_SYSTEM, "redis-server does not give a block back");
        wf_bench_add(&bench->redis_get, elapsed_ns(bench, begin, wf_bench_ticks_end()) / 1e3);
    }
    return CLI_OK;
}

/* ------------------------------------------------------------------------------ set up, report */

static int format_open(struct bench *bench, const char *model, uint32_t block_tokens,
                       uint64_t bytes, struct weft_format **out)
{
    enum weft_status status =
        weft_format_open(bench->cli->weft,
                         &(struct weft_format_spec){.model = model,
                                                    .layers = 1,
                                                    .kv_heads = 1,
                                                    .head_dim = 1,
                                                    .dtype = WEFT_INT8,
                                                    .block_tokens = block_tokens,
                                                    .block_bytes = bytes},
                         out);
    return status == WEFT_OK ? CLI_OK : refused(bench, status, "format");
}

static int formats_open(struct bench *bench)
{
    char model[64]; /* of this run alone: nothing from an earlier one is found */
    snprintf(model, sizeof model, "weft-bench@%d-%.6f", getpid(), wf_cli_now_s());
    int code = format_open(bench, model, 16, bench->block_bytes, &bench->format);
    if (code == CLI_OK)
        code = format_open(bench, model, 16, MATCH_BLOCK_BYTES, &bench->match_format);
    if (code == CLI_OK)
        code = format_open(bench, model, 16, MATCH_BLOCK_BYTES, &bench->key_format_16);
    return code == CLI_OK
               ? format_open(bench, model, 256, MATCH_BLOCK_BYTES, &bench->key_format_256)
               : code;
}

static int names_make(struct bench *bench)
{
    bench->keys = wf_cli_alloc(bench->blocks * sizeof *bench->keys);
    bench->chain = wf_cli_alloc(2 * MATCH_KEYS * sizeof *bench->chain);
    bench->tokens = wf_cli_alloc(KEY_TOKENS * sizeof *bench->tokens);
    enum weft_status status = WEFT_OK;
    for (uint64_t i = 0; i < bench->blocks && status == WEFT_OK; i++)
        status = weft_key_from_bytes(bench->format, &i, sizeof i, &bench->keys[i]);
    for (size_t i = 0; i < KEY_TOKENS; i++)
        bench->tokens[i] = (uint32_t)wf_cli_random(&bench->random) % 128000;
    if (status == WEFT_OK)
        status = weft_keys_from_tokens(bench->match_format, NULL, bench->tokens, MATCH_KEYS * 16,
                                       NULL, bench->chain);
    for (uint64_t i = 0; i < MATCH_KEYS && status == WEFT_OK; i++)
        status = weft_key_from_bytes(bench->match_format, &i, sizeof i,
                                     &bench->chain[MATCH_KEYS + i]);
    return status == WEFT_OK ? CLI_OK : refused(bench, status, "keys");
}

static int chain_put(struct bench *bench)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    for (size_t at = 0; at < MATCH_KEYS; at += WEFT_BATCH_MAX) {
        enum weft_status status = weft_reserve_keys(bench->match_format,
                                                    at ? &bench->chain[at - 1] : NULL,
                                                    &bench->chain[at], WEFT_BATCH_MAX, WEFT_CHAINED,
                                                    slots);
        if (status != WEFT_OK)
            return refused(bench, status, "put");
        for (int i = 0; i < WEFT_BATCH_MAX; i++)
            if (slots[i].status == WEFT_OK)
                wf_cli_payload_fill(slots[i].data, MATCH_BLOCK_BYTES, &bench->chain[at + (size_t)i],
                                    at);
        status = weft_commit_slots(bench->match_format, slots, WEFT_BATCH_MAX);
        if (status != WEFT_OK)
            return refused(bench, status, "commit");
    }
    return CLI_OK;
}

/* Where clients' writes are copied, a batch is no larger than the staging memory. */
static void chunk_fit(struct bench *bench)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    for (bool fits = false; !fits && bench->chunk > 1;
         bench->chunk -= fits ? 0 : bench->chunk / 2) {
        size_t count = chunk_count(bench, 0);
        if (weft_reserve_keys(bench->format, NULL, bench->keys, count, 0, slots) != WEFT_OK)
            return; /* the put itself says why */
        fits = slots[count - 1].status != WEFT_FULL;
        weft_abort_slots(bench->format, slots, count);
    }
}

/* Fill the pool once; what it costs is the "first put". */
static int working_set_put(struct bench *bench)
{
    chunk_fit(bench);
    size_t buffer_bytes = BUFFER_CHUNKS * bench->chunk * bench->block_bytes;
    bench->buffer = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);
    if (bench->buffer == MAP_FAILED)
        return wf_cli_fail(bench->cli, CLI_SYSTEM, "no memory for a buffer of %zu bytes",
                           buffer_bytes);
    for (size_t at = 0; at + 8 <= buffer_bytes; at += 8) {
        uint64_t word = wf_cli_random(&bench->random);
        memcpy(bench->buffer + at, &word, 8);
    }
    double ns = 0, part = 0;
    int code = CLI_OK;
    for (size_t at = 0; code == CLI_OK && at < bench->blocks; at += bench->chunk) {
        code = put_chunk(bench, at, &part);
        ns += part;
    }
    bench->first_put_gbps = (double)(bench->blocks * bench->block_bytes) / ns;
    return code;
}

static void redis_fill(struct bench *bench)
{
    size_t count = bench->blocks < REDIS_KEYS_MAX ? bench->blocks : REDIS_KEYS_MAX;
    wf_bench_redis_start(&bench->redis, 2 * count * bench->block_bytes + (64 << 20), 0);
    for (size_t i = 0; bench->redis.fd >= 0 && i < count; i++)
        if (wf_bench_redis_set(&bench->redis, i, bench->buffer, bench->block_bytes))
            bench->redis_keys = i + 1;
}

static int rounds_run(struct bench *bench)
{
    size_t chunks = (bench->blocks + bench->chunk - 1) / bench->chunk;
    uint64_t steps = wf_bench_options.rounds * chunks, step = 0;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "bench");
    int code = CLI_OK;
    for (uint64_t round = 0; code == CLI_OK && round < wf_bench_options.rounds; round++) {
        for (size_t i = 0; code == CLI_OK && i < chunks; i++, step++) {
            code = chunk_round(bench, i * bench->chunk, (round + i) % 2);
            wf_cli_progress_step(&progress, (double)step / (double)steps, "");
        }
        if (code == CLI_OK)
            code = pin_round(bench);
        if (code == CLI_OK)
            code = match_round(bench);
        for (int i = 0; code == CLI_OK && i < KEY_SAMPLES; i++) {
            code = keys_once(bench, bench->key_format_16, 16, &bench->keys_16, &bench->sha_16);
            if (code == CLI_OK)
                code = keys_once(bench, bench->key_format_256, 256, &bench->keys_256,
                                 &bench->sha_256);
        }
        if (code == CLI_OK)
            code = redis_round(bench);
    }
    wf_cli_progress_fini(&progress);
    return code;
}

static void report_json(struct bench *bench)
{
    json_t *out = json_object();
    wf_cli_json_set(out, "pin_ns_p50", wf_cli_json_real(wf_bench_at(&bench->pin_single, 0.5), 1));
    wf_cli_json_set(out, "pin_ns_p99", wf_cli_json_real(wf_bench_at(&bench->pin_single, 0.99), 1));
    wf_cli_json_set(out, "get_gbps", wf_cli_json_real(wf_bench_at(&bench->get, 0.5), 3));
    wf_cli_json_set(out, "put_gbps", wf_cli_json_real(wf_bench_at(&bench->put, 0.5), 3));
    wf_cli_json_set(out, "memcpy_gbps", wf_cli_json_real(wf_bench_at(&bench->copy, 0.5), 3));
    wf_cli_json_set(out, "match_8192_us_p50", wf_cli_json_real(wf_bench_at(&bench->match, 0.5), 3));
    wf_cli_json_set(out, "keys_mtokens_per_s_16",
                    wf_cli_json_real(wf_bench_at(&bench->keys_16, 0.5), 2));
    wf_cli_json_set(out, "keys_mtokens_per_s_256",
                    wf_cli_json_real(wf_bench_at(&bench->keys_256, 0.5), 2));
    wf_cli_json_set(out, "redis_get_us_p50",
                    bench->redis_get.count
                        ? wf_cli_json_real(wf_bench_at(&bench->redis_get, 0.5), 1)
                        : json_null());
    wf_cli_json_print(out);
}

static void row(const char *what, double value, const char *unit, const char *yardstick,
                double ratio, const char *budget, bool ok)
{
    char ratio_text[32] = "";
    if (ratio > 0)
        snprintf(ratio_text, sizeof ratio_text, ratio < 10 ? "%.3f ×" : "%.0f ×", ratio);
    printf("%-22s %10.4g %-8s %-34s %8s  %-20s %s\n", what, value, unit, yardstick, ratio_text,
           budget,
           !*budget ? ""
           : ok     ? "ok"
                    : "OVER");
}

static void report_people(struct bench *bench)
{
    char yard[64], size[32];
    double p50 = wf_bench_at(&bench->pin_single, 0.5), p99 = wf_bench_at(&bench->pin_single, 0.99);
    wf_cli_node_print(bench->cli, stdout);
    printf(
        "%zu block%s of %s, %llu round%s; timer overhead %.1f ns, subtracted from single calls\n\n",
        bench->blocks, wf_cli_s(bench->blocks), wf_cli_size(bench->block_bytes, size, sizeof size),
        (unsigned long long)wf_bench_options.rounds, wf_cli_s(wf_bench_options.rounds),
        bench->clock.overhead_ns);
    printf("%-22s %10s %-8s %-34s %8s  %-20s\n", "", "median", "", "yardstick", "ratio", "budget");
    double redis_us = bench->redis_get.count ? wf_bench_at(&bench->redis_get, 0.5) : 0;
    snprintf(yard, sizeof yard, redis_us > 0 ? "Redis GET %.0f us" : "no redis-server", redis_us);
    row("pin + unpin", p50, "ns", yard, redis_us * 1e3 / p50, "p50 <= 150 ns", p50 <= 150);
    row("pin + unpin, p99", p99, "ns", "", 0, "p99 <= 1000 ns", p99 <= 1000);
    row("pin + unpin, of 64", wf_bench_at(&bench->pin_batch, 0.5), "ns", "", 0, "", true);
    double get_ratio = wf_bench_at(&bench->get_ratio, 0.5),
           put_ratio = wf_bench_at(&bench->put_ratio, 0.5);
    snprintf(yard, sizeof yard, "memcpy from pool %.2f GB/s", wf_bench_at(&bench->get_copy, 0.5));
    row("get with copy", wf_bench_at(&bench->get, 0.5), "GB/s", yard, get_ratio,
        ">= 0.95 of memcpy", get_ratio >= 0.95);
    snprintf(yard, sizeof yard, "memcpy to pool %.2f GB/s", wf_bench_at(&bench->put_copy, 0.5));
    row("put", wf_bench_at(&bench->put, 0.5), "GB/s", yard, put_ratio, ">= 0.95 of memcpy",
        put_ratio >= 0.95);
    row("first put", bench->first_put_gbps, "GB/s", "page faults of first use", 0, "", true);
    double match_us = wf_bench_at(&bench->match, 0.5), probe_us = wf_bench_at(&bench->probe, 0.5);
    snprintf(yard, sizeof yard, "one probe a key %.0f us", probe_us);
    row("match of 8192 keys", match_us, "us", yard, probe_us / match_us, "p50 <= 5 us",
        match_us <= 5);
    double keys_16 = wf_bench_at(&bench->keys_16, 0.5),
           keys_256 = wf_bench_at(&bench->keys_256, 0.5);
    double sha_16 = wf_bench_at(&bench->sha_16, 0.5), sha_256 = wf_bench_at(&bench->sha_256, 0.5);
    snprintf(yard, sizeof yard, "SHA-256 alone %.1f Mtokens/s", sha_16);
    row("keys, 16 a block", keys_16, "Mtok/s", yard, keys_16 / sha_16, ">= 50 Mtokens/s",
        keys_16 >= 50);
    snprintf(yard, sizeof yard, "SHA-256 alone %.1f Mtokens/s", sha_256);
    row("keys, 256 a block", keys_256, "Mtok/s", yard, keys_256 / sha_256, ">= 200 Mtokens/s",
        keys_256 >= 200);
    puts(
        "\nThe ratio of get and put is the median over the pairs of measure and memcpy that follow "
        "each\nother; it is not the quotient of the two medians beside it.");
}

static void bench_fini(struct bench *bench)
{
    struct bench_series *all[] = {&bench->get,     &bench->get_copy,   &bench->get_ratio,
                                  &bench->put,     &bench->put_copy,   &bench->put_ratio,
                                  &bench->copy,    &bench->pin_single, &bench->pin_batch,
                                  &bench->match,   &bench->probe,      &bench->redis_get,
                                  &bench->keys_16, &bench->keys_256,   &bench->sha_16,
                                  &bench->sha_256};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]->values);
    size_t removed;
    for (size_t i = 0; bench->keys && bench->cli->weft && i < bench->blocks; i++)
        if (weft_remove(bench->format, &bench->keys[i], &removed) < 0)
            break;
    if (bench->chain && bench->cli->weft &&
        weft_remove(bench->match_format, &bench->chain[0], &removed) < 0)
        removed = 0; /* a node that is gone has dropped it too */
    wf_bench_redis_stop(&bench->redis);
    EVP_MD_free(bench->sha256);
    if (bench->buffer && bench->buffer != MAP_FAILED)
        munmap(bench->buffer, BUFFER_CHUNKS * bench->chunk * bench->block_bytes);
    free(bench->keys);
    free(bench->chain);
    free(bench->tokens);
    struct weft_format *formats[] = {bench->format, bench->match_format, bench->key_format_16,
                                     bench->key_format_256};
    for (size_t i = 0; i < 4; i++)
        if (formats[i])
            weft_format_close(formats[i]);
}

/* The working set, the chain to match, an eighth for what is beside the blocks in a node. */
static void pool_needed(struct bench *bench)
{
    bench->pool_bytes =
        (bench->blocks * bench->block_bytes + (uint64_t)MATCH_KEYS * MATCH_BLOCK_BYTES) * 9 / 8 +
        ((uint64_t)16 << 20);
}

static int pool_check(struct bench *bench, uint64_t bytes, const char *what)
{
    char needed[32], size[32], there[32];
    if (bytes >= bench->pool_bytes)
        return CLI_OK;
    return wf_cli_fail(bench->cli, CLI_REFUSED,
                       "%s %s, and %zu blocks of %s with %d of 16 KiB to match need a pool of %s; "
                       "say a larger one, or fewer or smaller --blocks",
                       what, wf_cli_size(bytes, there, sizeof there), bench->blocks,
                       wf_cli_size(bench->block_bytes, size, sizeof size), MATCH_KEYS,
                       wf_cli_size(bench->pool_bytes, needed, sizeof needed));
}

/* A node that runs tells its own user how large its pool is. */
static int served_check(struct bench *bench)
{
    json_t *status;
    int code = wf_cli_query(bench->cli, "status", 0, 0, &status);
    if (code != CLI_OK)
        return code;
    const json_t *pool = json_object_get(status, "pool");
    if (pool)
        code = pool_check(bench, (uint64_t)json_integer_value(json_object_get(pool, "bytes")),
                          "the node's pool is");
    json_decref(status);
    return code;
}

int wf_bench_local(struct cli *cli)
{
    struct bench_options *given = &wf_bench_options;
    wf_bench_default(&given->block_bytes, 2 << 20);
    wf_bench_default(&given->blocks, 1024);
    if (given->block_bytes < 1 || given->block_bytes > (64u << 20) || !given->blocks ||
        given->blocks > (1u << 24) || !given->rounds || given->rounds > 1000)
        return wf_cli_fail(
            cli, CLI_USAGE,
            "a block has 1 byte to 64 MiB, there are 1 to 2^24 of them and 1 to 1000 rounds");
    struct bench bench = {.cli = cli, .redis.fd = -1, .random = 1, .settles = true};
    bench.block_bytes = given->block_bytes;
    bench.blocks = given->blocks;
    bench.chunk = CHUNK_BYTES / bench.block_bytes;
    bench.chunk = bench.chunk < 1 ? 1 : bench.chunk > WEFT_BATCH_MAX ? WEFT_BATCH_MAX : bench.chunk;
    struct cli_node node;
    pool_needed(&bench);
    uint64_t pool_bytes = given->pool_bytes ? given->pool_bytes : bench.pool_bytes;
    int code = given->pool_bytes && !cli->socket
                   ? pool_check(&bench, given->pool_bytes, "--pool is")
                   : CLI_OK;
    if (code == CLI_OK)
        code = wf_cli_node_reach(cli, given->pool_bytes != 0,
                                 &(struct cli_node_plan){.pool_bytes = pool_bytes}, &node);
    if (code != CLI_OK)
        return code;
    if (cli->socket && !cli->own_node)
        code = served_check(&bench);
    wf_bench_clock_init(&bench.clock);
    bench.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (code == CLI_OK)
        code = formats_open(&bench);
    if (code == CLI_OK)
        code = names_make(&bench);
    if (code == CLI_OK)
        code = chain_put(&bench);
    if (code == CLI_OK)
        code = working_set_put(&bench);
    if (code == CLI_OK) {
        redis_fill(&bench);
        code = rounds_run(&bench);
    }
    if (code == CLI_OK)
        (cli->json ? report_json : report_people)(&bench);
    bench_fini(&bench);
    weft_close(cli->weft);
    cli->weft = NULL;
    wf_cli_node_stop(&node);
    return code;
}
