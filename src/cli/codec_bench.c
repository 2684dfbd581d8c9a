/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec list and bench: which codecs there are, and what each makes of KV, beside what
 * everybody has.
 *
 * One thread.  What is timed is what a node does: frames are encoded and decoded as it has them,
 * checksums taken and verified.
 *
 * memcpy is the yardstick, and must have no better and no worse a time than the codecs.  So the
 * working set goes by in parts: one is copied, then one is encoded that lies a third of the set
 * behind, then one decoded that lies two thirds behind.  Noise hits all three alike, and what a
 * part's turn finds in a cache is what the two others leave of it, which is nothing where the set
 * is larger than the cache.  Of each part the best round counts, for all three.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/codec_bench.h"
#include "codec/convert.h"
#include "codec/isa.h"

#define WAYS_MAX 64
#define ROUNDS_MAX 1000
#define WAY_SECONDS 60.0 /* after which no new round of it begins */
#define PARTS_MOST 32u
#define PART_BYTES (4ull << 20) /* and more */

/* ----------------------------------------------------------------------------------------- list */

int wf_cli_codec_list(struct cli *cli)
{
    json_t *list = json_array();
    const struct wf_codec *codec;
    for (unsigned i = 0; (codec = wf_codec_each(i)); i++) {
        json_t *row = json_object();
        wf_cli_json_set(row, "codec", json_string(codec->name));
        wf_cli_json_set(row, "lossless", json_boolean(codec->lossless));
        wf_cli_json_set(row, "calibrated", json_boolean(codec->profiled));
        wf_cli_json_set(row, "says", json_string(codec->says));
        json_array_append_new(list, row);
    }
    if (cli->json) {
        wf_cli_json_print(list);
        return CLI_OK;
    }
    for (unsigned i = 0; (codec = wf_codec_each(i)); i++)
        printf("%-18s %-9s %s%s\n", codec->name, codec->lossless ? "lossless" : "lossy",
               codec->says, codec->profiled ? " (calibrated)" : "");
    printf("\nqualities, for a model or with its profile: transparent (answers as exact as --kl "
           "says), economy (perplexity up to --ppl-pct)\n");
    printf("vectors here: %s; zstd-1, zstd-3 and lz4 are beside them in weft codec bench\n",
           wf_codec_isa_name(wf_codec_isa_best()));
    json_decref(list);
    return CLI_OK;
}

/* ----------------------------------------------------------------------------------------- ways */

static bool add_yardstick(const char *name, struct codec_way *out)
{
    const struct codec_yardstick *y;
    for (unsigned i = 0; (y = wf_cli_codec_yardstick(i)); i++) {
        if (strcmp(wf_cli_codec_yardstick_name(y), name) == 0) {
            *out = (struct codec_way){.unit = "block", .lossless = true, .theirs = y};
            snprintf(out->name, sizeof out->name, "%s", name);
            return true;
        }
    }
    return false;
}

static bool is_quality(const char *name)
{
    return strcmp(name, "transparent") == 0 || strcmp(name, "economy") == 0;
}

static int add_way(struct cli *cli, struct codec_set *set, const char *name, struct codec_way *out)
{
    if (add_yardstick(name, out))
        return CLI_OK;
    *out = (struct codec_way){.unit = "plane"};
    snprintf(out->name, sizeof out->name, "%s", name);
    return wf_cli_codec_plan(cli, set && set->has_subject ? &set->subject : NULL,
                             set ? &set->layout : NULL, name, &out->plan);
}

/* Those of --codec, parted by commas.  `set` NULL: look only whether there are such. */
static int add_named(struct cli *cli, struct codec_set *set, const char *names,
                     struct codec_way *ways, unsigned *count)
{
    *count = 0;
    while (*names) {
        size_t length = strcspn(names, ",");
        char name[64];
        if (length == 0 || length >= sizeof name)
            return wf_cli_fail(cli, CLI_USAGE, "--codec wants names, parted by commas");
        if (*count == WAYS_MAX)
            return wf_cli_fail(cli, CLI_USAGE, "--codec has more than %d names", WAYS_MAX);
        memcpy(name, names, length);
        name[length] = '\0';
        bool there = wf_codec_by_name(name) || is_quality(name);
        int code = set || !there ? add_way(cli, set, name, &ways[*count]) : CLI_OK;
        if (code != CLI_OK)
            return code;
        ++*count;
        names += length + (names[length] == ',');
    }
    return CLI_OK;
}

/* All that can be done with this KV without calibrating first. */
static int add_all(struct cli *cli, struct codec_set *set, struct codec_way *ways, unsigned *count)
{
    const struct wf_codec *codec;
    const struct codec_yardstick *y;
    for (unsigned i = 0; (codec = wf_codec_each(i)) && *count < WAYS_MAX; i++) {
        if (codec->profiled && !wf_cli_codec_options.profile)
            continue;
        int code = add_way(cli, set, codec->name, &ways[*count]);
        if (code != CLI_OK)
            return code;
        ++*count;
    }
    for (unsigned i = 0; (y = wf_cli_codec_yardstick(i)) && *count < WAYS_MAX; i++) {
        add_yardstick(wf_cli_codec_yardstick_name(y), &ways[*count]);
        ++*count;
    }
    return CLI_OK;
}

/* -------------------------------------------------------------------------------------- measure */

enum step { COPY, ENCODE, DECODE, STEPS };

struct result {
    double best_s[STEPS][PARTS_MOST], seconds[STEPS]; /* of each part; all parts together */
    unsigned rounds;
    uint64_t encoded, k_encoded, v_encoded;
    double max_abs, mean_abs, relative; /* relative: root of the squared errors over that of the
                                           squares */
    bool lossless;
};

static bool encode_one(struct codec_set *set, const struct codec_way *way, uint64_t block)
{
    if (way->theirs)
        return wf_cli_codec_yardstick_encode(way->theirs, set, block);
    return wf_frame_encode(&set->layout, &way->plan.frame, wf_cli_codec_position(set, block),
                           set->plain + block * set->layout.bytes,
                           set->frames + block * set->stride, &set->encoded[block],
                           set->scratch) == WEFT_OK;
}

static bool decode_one(struct codec_set *set, const struct codec_way *way, uint64_t block)
{
    const uint8_t *bytes = set->frames + block * set->stride;
    struct wf_frame frame;
    if (way->theirs)
        return wf_cli_codec_yardstick_decode(way->theirs, set, block);
    return wf_frame_open(bytes, set->encoded[block], &frame) == WEFT_OK &&
           wf_frame_decode(&frame, bytes, 0, set->layout.planes, way->plan.frame.profile,
                           set->back + block * set->layout.bytes, set->scratch) == WEFT_OK;
}

static bool copy_one(struct codec_set *set, const struct codec_way *way, uint64_t block)
{
    (void)way;
    uint64_t bytes = set->layout.bytes;
    memcpy(set->back + block * bytes, set->plain + block * bytes, bytes);
    return true;
}

/* One step of one part, and how long it took. */
static bool take_part(struct codec_set *set, const struct codec_way *way, enum step step,
                      unsigned part, unsigned parts, double *out_s)
{
    static bool (*const steps[STEPS])(struct codec_set *, const struct codec_way *,
                                      uint64_t) = {copy_one, encode_one, decode_one};
    uint64_t block = set->blocks * part / parts, end = set->blocks * (part + 1) / parts;
    bool ok = true;
    double start = wf_cli_now_s();
    for (; block < end && ok; block++)
        ok = steps[step](set, way, block);
    *out_s = wf_cli_now_s() - start;
    return ok;
}

static unsigned parts_of(const struct codec_set *set)
{
    uint64_t parts = set->blocks * set->layout.bytes / PART_BYTES;
    parts = parts < set->blocks ? parts : set->blocks;
    return parts < 1 ? 1 : parts < PARTS_MOST ? (unsigned)parts : PARTS_MOST;
}

/* Bytes of K and of V, of one block's frame. */
static void add_planes(const struct codec_set *set, uint64_t block, struct result *out)
{
    const uint8_t *bytes = set->frames + block * set->stride;
    struct wf_frame frame;
    if (wf_frame_open(bytes, set->encoded[block], &frame) != WEFT_OK)
        return;
    out->lossless = out->lossless && !(frame.head.flags & WF_FRAME_LOSSY);
    uint64_t stored = set->layout.bytes / set->layout.planes;
    for (uint32_t i = 0; i < set->layout.planes; i++)
        *(i % 2 ? &out->v_encoded : &out->k_encoded) += frame.table ? frame.table[i].bytes : stored;
}

static void add_errors(const struct codec_set *set, uint64_t block, double sums[3], double *most)
{
    size_t size = weft_dtype_bytes(set->layout.dtype), count = set->layout.bytes / size;
    const uint8_t *plain = set->plain + block * set->layout.bytes;
    const uint8_t *back = set->back + block * set->layout.bytes;
    float exact[64], got[64];
    for (size_t i = 0; i < count; i += 64) {
        size_t some = count - i < 64 ? count - i : 64;
        wf_floats_of(set->layout.dtype, plain + i * size, some, exact);
        wf_floats_of(set->layout.dtype, back + i * size, some, got);
        for (size_t k = 0; k < some; k++) {
            if (!isfinite(exact[k])) /* which codecs leave alone */
                continue;
            double error = fabs((double)exact[k] - got[k]);
            *most = error > *most ? error : *most;
            sums[0] += error;
            sums[1] += error * error;
            sums[2] += (double)exact[k] * exact[k];
        }
    }
}

static void look(struct codec_set *set, const struct codec_way *way, struct result *out)
{
    double sums[3] = {0};
    size_t count = set->layout.bytes / weft_dtype_bytes(set->layout.dtype);
    out->lossless = true;
    for (uint64_t i = 0; i < set->distinct; i++) {
        out->encoded += set->encoded[i];
        if (!way->theirs)
            add_planes(set, i, out);
        if (!out->lossless)
            add_errors(set, i, sums, &out->max_abs);
    }
    out->mean_abs = sums[0] / ((double)set->distinct * (double)count);
    out->relative = sums[2] > 0 ? sqrt(sums[1] / sums[2]) : 0;
}

/* Where a bar stands: so many ways of how many are done. */
struct standing {
    struct cli_progress progress;
    unsigned way, ways;
};

static bool run_round(struct codec_set *set, const struct codec_way *way, struct standing *standing,
                      struct result *out)
{
    unsigned parts = parts_of(set), behind = parts / 3;
    for (unsigned at = 0; at < parts + 2 * behind; at++) {
        for (unsigned step = COPY; step < STEPS; step++) {
            unsigned part = at - step * behind;
            double took;
            if (part >= parts) /* or below 0 */
                continue;
            if (!take_part(set, way, (enum step)step, part, parts, &took))
                return false;
            double *best = &out->best_s[step][part];
            *best = out->rounds == 0 || took < *best ? took : *best;
        }
        double round = (double)at / (parts + 2 * behind);
        wf_cli_progress_step(&standing->progress,
                             (standing->way +
                              (out->rounds + round) / (double)wf_cli_codec_options.rounds) /
                                 standing->ways,
                             way->name);
    }
    return true;
}

/* What decodes to what it was, with nothing there that could pass for it. */
static bool reads_back(struct codec_set *set, const struct codec_way *way)
{
    bool ok = true;
    memset(set->back, 0x5a, set->distinct * set->layout.bytes);
    for (uint64_t i = 0; i < set->distinct && ok; i++)
        ok = decode_one(set, way, i);
    return ok && memcmp(set->plain, set->back, set->distinct * set->layout.bytes) == 0;
}

static int measure(struct cli *cli, struct codec_set *set, const struct codec_way *way,
                   struct standing *standing, struct result *out)
{
    *out = (struct result){0};
    double began = wf_cli_now_s();
    while (out->rounds < wf_cli_codec_options.rounds &&
           (out->rounds == 0 || wf_cli_now_s() - began < WAY_SECONDS)) {
        if (!run_round(set, way, standing, out))
            return wf_cli_fail(cli, CLI_WRONG, "%s does not read back what it wrote", way->name);
        out->rounds++;
    }
    for (unsigned step = COPY; step < STEPS; step++) {
        for (unsigned part = 0; part < parts_of(set); part++)
            out->seconds[step] += out->best_s[step][part];
    }
    look(set, way, out);
    if (out->lossless && !reads_back(set, way))
        return wf_cli_fail(cli, CLI_WRONG, "%s gives other bytes than it was given", way->name);
    return CLI_OK;
}

/* --------------------------------------------------------------------------------------- answer */

static json_t *answer_of(const struct codec_set *set, const struct codec_way *way, struct result *r)
{
    double bytes = (double)(set->blocks * set->layout.bytes) / 1e9;
    double encode = bytes / r->seconds[ENCODE], decode = bytes / r->seconds[DECODE];
    double copy = bytes / r->seconds[COPY];
    double plain = (double)(set->distinct * set->layout.bytes);
    json_t *a = json_object();
    wf_cli_json_set(a, "codec", json_string(way->name));
    wf_cli_json_set(a, "lossless", json_boolean(r->lossless));
    wf_cli_json_set(a, "ratio", wf_cli_json_real(plain / (double)r->encoded, 4));
    wf_cli_json_set(a, "encode_gbps", wf_cli_json_real(encode, 3));
    wf_cli_json_set(a, "decode_gbps", wf_cli_json_real(decode, 3));
    wf_cli_json_set(a, "memcpy_gbps", wf_cli_json_real(copy, 3));
    wf_cli_json_set(a, "encode_of_memcpy", wf_cli_json_real(encode / copy, 3));
    wf_cli_json_set(a, "decode_of_memcpy", wf_cli_json_real(decode / copy, 3));
    wf_cli_json_set(a, "max_abs_err", json_real(r->max_abs));
    wf_cli_json_set(a, "mean_abs_err", json_real(r->mean_abs));
    wf_cli_json_set(a, "rms_rel_err", json_real(r->relative));
    bool ours = !way->theirs && r->k_encoded && r->v_encoded;
    wf_cli_json_set(a, "ratio_k",
                    ours ? wf_cli_json_real(plain / 2 / (double)r->k_encoded, 4) : json_null());
    wf_cli_json_set(a, "ratio_v",
                    ours ? wf_cli_json_real(plain / 2 / (double)r->v_encoded, 4) : json_null());
    wf_cli_json_set(a, "unit", json_string(way->unit));
    wf_cli_json_set(a, "rounds", json_integer(r->rounds));
    wf_cli_json_set(a, "threads", json_integer(1));
    wf_cli_json_set(a, "working_set_bytes",
                    json_integer((json_int_t)(set->blocks * set->layout.bytes)));
    wf_cli_json_set(a, "vectors", json_string(wf_codec_isa_name(wf_codec_isa_best())));
    if (wf_cli_build_is_slow())
        wf_cli_json_set(a, "test_build", json_true());
    json_object_update(a, set->about);
    return a;
}

static double number(const json_t *row, const char *name)
{
    return json_number_value(json_object_get(row, name));
}

static void print_table(const struct codec_set *set, const json_t *list)
{
    const struct wf_layout *l = &set->layout;
    const char *model = json_string_value(json_object_get(set->about, "model"));
    char block[32], all[32];
    printf("KV of %s: %llu blocks of %s, each %u layers × (K, V) × %u tokens × %u heads × %u %s\n",
           json_is_true(json_object_get(set->about, "made_up")) ? "MADE-UP weights"
           : model                                              ? model
                                                                : "a file",
           (unsigned long long)set->distinct, wf_cli_size(l->bytes, block, sizeof block),
           l->planes / 2, l->tokens, l->heads, l->head_dim,
           json_string_value(json_object_get(set->about, "dtype")));
    printf("one core (%s), working set %s, checksums taken and verified; GB/s of plain bytes, and "
           "how much that is of memcpy's in the same rounds\n\n",
           wf_codec_isa_name(wf_codec_isa_best()),
           wf_cli_size(set->blocks * l->bytes, all, sizeof all));
    printf("%-18s %7s %16s %16s %7s %12s %10s\n", "codec", "ratio", "encode", "decode", "memcpy",
           "max error", "each");
    size_t i;
    json_t *row;
    json_array_foreach (list, i, row)
        printf("%-18s %7.3f %7.2f (%4.0f %%) %7.2f (%4.0f %%) %7.2f %12.5g %10s\n",
               json_string_value(json_object_get(row, "codec")), number(row, "ratio"),
               number(row, "encode_gbps"), 100 * number(row, "encode_of_memcpy"),
               number(row, "decode_gbps"), 100 * number(row, "decode_of_memcpy"),
               number(row, "memcpy_gbps"), number(row, "max_abs_err"),
               json_string_value(json_object_get(row, "unit")));
}

static int measure_all(struct cli *cli, struct codec_set *set, struct codec_way *ways,
                       unsigned count, json_t *list)
{
    struct result *result = wf_cli_alloc(sizeof *result);
    struct standing standing = {.ways = count};
    int code = CLI_OK;
    wf_cli_progress_init(&standing.progress, "codec bench");
    for (; standing.way < count && code == CLI_OK; standing.way++) {
        const struct codec_way *way = &ways[standing.way];
        code = measure(cli, set, way, &standing, result);
        if (code == CLI_OK)
            json_array_append_new(list, answer_of(set, way, result));
    }
    wf_cli_progress_fini(&standing.progress);
    free(result);
    return code;
}

int wf_cli_codec_bench(struct cli *cli)
{
    const struct codec_options *given = &wf_cli_codec_options;
    static struct codec_way ways[WAYS_MAX];
    unsigned count = 0;
    struct codec_set set;
    if (given->rounds < 1 || given->rounds > ROUNDS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--rounds is %llu; give 1 to %d",
                           (unsigned long long)given->rounds, ROUNDS_MAX);
    if (given->working_set > 4ull << 30)
        return wf_cli_fail(cli, CLI_USAGE, "--working-set is more than 4 GiB");
    /* A name that is none is told before a model computes for a minute. */
    int code = given->codec ? add_named(cli, NULL, given->codec, ways, &count) : CLI_OK;
    if (code != CLI_OK)
        return code;
    count = 0;
    code = wf_cli_codec_set_open(cli, &set);
    if (code == CLI_OK)
        code = given->codec ? add_named(cli, &set, given->codec, ways, &count)
                            : add_all(cli, &set, ways, &count);
    json_t *list = json_array();
    if (code == CLI_OK)
        wf_cli_build_print(stderr);
    if (code == CLI_OK)
        code = measure_all(cli, &set, ways, count, list);
    if (code == CLI_OK && cli->json)
        wf_cli_json_print(json_incref(list));
    else if (code == CLI_OK)
        print_table(&set, list);
    json_decref(list);
    for (unsigned i = 0; i < count; i++)
        wf_cli_codec_plan_free(&ways[i].plan);
    wf_cli_codec_set_close(&set);
    return code;
}
