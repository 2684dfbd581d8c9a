/* SPDX-License-Identifier: Apache-2.0
 *
 * The KV that `weft codec bench` works on: blocks of a file, of a model and a text, or of made-up
 * weights, repeated until they are far more than a processor's caches hold.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "cli/codec_bench.h"
#include "llama/say.h"

#define HUGE_PAGE (2ull << 20)
#define SET_BYTES_MAX (4ull << 30)
#define MODEL_TOKENS 8192 /* that a model computes where --tokens does not say */

uint8_t *wf_cli_codec_room(uint64_t bytes)
{
    uint64_t whole = (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    uint8_t *room = aligned_alloc(HUGE_PAGE, whole);
    if (!room)
        return wf_cli_alloc(SIZE_MAX / 2); /* which ends the program with its sentence */
    (void)madvise(room, whole, MADV_HUGEPAGE);
    memset(room, 1, whole);
    return room;
}

uint64_t wf_cli_codec_position(const struct codec_set *set, uint64_t block)
{
    uint64_t number = block % set->distinct;
    return (set->in_sequence ? number % set->in_sequence : number) * set->layout.tokens;
}

/* ---------------------------------------------------------------------------------------- files */

static uint32_t number_of(const json_t *format, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(format, name));
    return value > 0 && value <= UINT32_MAX ? (uint32_t)value : 0;
}

/* What a format file may say; also of kv, and of people, who mistype. */
static const char *const format_keys[] = {"model",
                                          "layers",
                                          "kv_heads",
                                          "head_dim",
                                          "dtype",
                                          "block_tokens",
                                          "rope_theta",
                                          "rope_pairing",
                                          "block_bytes",
                                          "blocks",
                                          "blocks_per_sequence",
                                          "made_up",
                                          NULL};

static const char *format_key(void *context, int index)
{
    (void)context;
    return format_keys[index];
}

static int check_format(struct cli *cli, const char *path, const json_t *format)
{
    const char *dtype = json_string_value(json_object_get(format, "dtype")), *key;
    json_t *value;
    if (!json_is_object(format))
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s is no JSON object, like {\"layers\": 6, …}", path);
    json_object_foreach ((json_t *)(uintptr_t)format, key, value) {
        int i = 0;
        while (format_keys[i] && strcmp(format_keys[i], key) != 0)
            i++;
        const char *nearest = format_keys[i] ? NULL : wf_cli_nearest(key, format_key, NULL);
        if (!format_keys[i])
            return wf_cli_fail(cli, CLI_USAGE, "the format %s has an unknown key '%.64s'%s%s%s",
                               path, key, nearest ? "; did you mean '" : "; leave it out",
                               nearest ? nearest : "", nearest ? "'?" : "");
    }
    if (wf_cli_codec_options.dtype_given && dtype && strcmp(dtype, wf_cli_codec_options.dtype) != 0)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s says that its KV is %s; leave out --dtype %s", path,
                           dtype, wf_cli_codec_options.dtype);
    return CLI_OK;
}

static int read_format(struct cli *cli, const char *path, struct codec_set *out)
{
    static const char *const wanted[] = {"layers", "kv_heads", "head_dim", "block_tokens"};
    json_error_t error;
    int code = wf_cli_codec_readable(cli, "format", path);
    if (code != CLI_OK)
        return code;
    json_t *format = json_load_file(path, 0, &error);
    if (!format)
        return wf_cli_fail(cli, CLI_USAGE, "cannot read the format %s: %s", path, error.text);
    const char *dtype = json_string_value(json_object_get(format, "dtype"));
    code = check_format(cli, path, format);
    for (unsigned i = 0; i < 4 && code == CLI_OK; i++) {
        if (number_of(format, wanted[i]) == 0)
            code = wf_cli_fail(cli, CLI_USAGE,
                               "the format %s has no %s; give a number of 1 or more", path,
                               wanted[i]);
    }
    dtype = dtype ? dtype : wf_cli_codec_options.dtype;
    if (code == CLI_OK &&
        !wf_layout_of(wf_cli_dtype(dtype, (enum weft_dtype)0), number_of(format, "layers"),
                      number_of(format, "block_tokens"), number_of(format, "kv_heads"),
                      number_of(format, "head_dim"), &out->layout))
        code = wf_cli_fail(cli, CLI_USAGE,
                           "the format %s is of no block: layers go to 2048, block_tokens to "
                           "65536, kv_heads and head_dim to 4096, dtype is f32, f16, bf16, "
                           "fp8_e4m3, fp8_e5m2 or int8",
                           path);
    const char *model = json_string_value(json_object_get(format, "model"));
    wf_cli_json_set(out->about, "model", model ? json_string(model) : json_null());
    wf_cli_json_set(out->about, "dtype", json_string(dtype));
    out->in_sequence = number_of(format, "blocks_per_sequence");
    wf_cli_json_set(out->about, "made_up",
                    json_boolean(json_is_true(json_object_get(format, "made_up"))));
    json_decref(format);
    return code;
}

static uint64_t blocks_wanted(uint64_t distinct, uint64_t bytes)
{
    uint64_t set = wf_cli_codec_options.working_set;
    uint64_t least = (set + bytes - 1) / bytes;
    return distinct > least ? distinct : least;
}

static int read_blocks(struct cli *cli, const char *path, struct codec_set *out)
{
    uint64_t bytes = out->layout.bytes;
    struct stat file_stat;
    FILE *file = fopen(path, "rbe");
    if (!file || fstat(fileno(file), &file_stat) != 0) {
        int why = errno;
        if (file)
            (void)fclose(file);
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", path, strerror(why));
    }
    uint64_t size = (uint64_t)file_stat.st_size;
    int code = CLI_OK;
    if (size < bytes || size % bytes != 0)
        code = wf_cli_fail(cli, CLI_USAGE,
                           "%s has %llu bytes, which is no whole number of blocks of %llu as the "
                           "format has them; give the format that it was written with",
                           path, (unsigned long long)size, (unsigned long long)bytes);
    else if (size > SET_BYTES_MAX)
        code = wf_cli_fail(cli, CLI_USAGE, "%s has %llu bytes; give up to 4 GiB", path,
                           (unsigned long long)size);
    if (code == CLI_OK) {
        out->distinct = size / bytes;
        out->blocks = blocks_wanted(out->distinct, bytes);
        out->plain = wf_cli_codec_room(out->blocks * bytes);
        if (fread(out->plain, 1, size, file) != size)
            code = wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", path, strerror(errno));
    }
    (void)fclose(file);
    wf_cli_json_set(out->about, "input", json_string(path));
    return code;
}

/* --------------------------------------------------------------------------------------- models */

struct taking {
    struct codec_set *set;
    struct cli_progress progress;
    uint64_t count; /* that there will be */
};

static bool take_block(void *context, const struct codec_block *block)
{
    struct taking *t = context;
    struct codec_set *set = t->set;
    if (set->distinct == set->blocks)
        return false;
    memcpy(set->plain + set->distinct * set->layout.bytes, block->data, set->layout.bytes);
    set->distinct++;
    wf_cli_progress_step(&t->progress, (double)set->distinct / (double)t->count,
                         "the model computes its KV");
    return true;
}

static int compute_blocks(struct cli *cli, struct codec_set *out)
{
    struct codec_options *given = &wf_cli_codec_options;
    char name[64];
    given->tokens = given->tokens || !given->model ? given->tokens : MODEL_TOKENS;
    int code = wf_cli_codec_open(cli, true, &out->subject);
    if (code != CLI_OK)
        return code;
    out->has_subject = true;
    out->layout = out->subject.layout;
    struct taking taking = {.set = out, .count = wf_cli_codec_block_count(&out->subject)};
    out->blocks = blocks_wanted(taking.count, out->layout.bytes);
    out->in_sequence = (out->subject.windows.length - 1) / out->layout.tokens;
    out->plain = wf_cli_codec_room(out->blocks * out->layout.bytes);
    wf_cli_progress_init(&taking.progress, "codec bench");
    bool computed = wf_cli_codec_blocks(&out->subject, 0, take_block, &taking);
    wf_cli_progress_fini(&taking.progress);
    if (!computed || out->distinct == 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_say_last());
    wf_cli_codec_name(&out->subject, name, sizeof name);
    wf_cli_json_set(out->about, "model", json_string(name));
    wf_cli_json_set(out->about, "dtype", json_string(given->dtype));
    wf_cli_json_set(out->about, "made_up", json_boolean(out->subject.made_up));
    wf_cli_json_set(out->about, "input", given->text ? json_string(given->text) : json_null());
    if (out->subject.made_up)
        fprintf(stderr, "weft codec: this KV is of MADE-UP weights and tokens: no model's is like "
                        "it; give --model and --text, or --input\n");
    return CLI_OK;
}

/* ------------------------------------------------------------------------------------------ all */

int wf_cli_codec_set_open(struct cli *cli, struct codec_set *out)
{
    const struct codec_options *given = &wf_cli_codec_options;
    *out = (struct codec_set){.about = json_object()};
    if (given->input && (given->model || given->text))
        return wf_cli_fail(cli, CLI_USAGE, "--input has KV already; leave out --model and --text");
    if (!given->input != !given->format)
        return wf_cli_fail(cli, CLI_USAGE,
                           "KV of a file needs both: --input FILE, the blocks, and --format FILE, "
                           "what they are");
    int code = given->input ? read_format(cli, given->format, out) : compute_blocks(cli, out);
    if (code == CLI_OK && given->input)
        code = read_blocks(cli, given->input, out);
    if (code != CLI_OK)
        return code;
    uint64_t bytes = out->layout.bytes, bound = wf_frame_bound(&out->layout);
    for (uint64_t i = out->distinct; i < out->blocks; i++)
        memcpy(out->plain + i * bytes, out->plain + i % out->distinct * bytes, bytes);
    uint64_t theirs = wf_cli_codec_yardstick_bound(bytes);
    out->stride = ((bound > theirs ? bound : theirs) + 63) & ~63ull;
    out->back = wf_cli_codec_room(out->blocks * bytes);
    out->frames = wf_cli_codec_room(out->blocks * out->stride);
    out->encoded = wf_cli_alloc(out->blocks * sizeof *out->encoded);
    out->sums = wf_cli_alloc(out->blocks * sizeof *out->sums);
    out->scratch = wf_cli_codec_room(wf_frame_scratch(&out->layout) + 64);
    wf_cli_json_set(out->about, "layers", json_integer(out->layout.planes / 2));
    wf_cli_json_set(out->about, "kv_heads", json_integer(out->layout.heads));
    wf_cli_json_set(out->about, "head_dim", json_integer(out->layout.head_dim));
    wf_cli_json_set(out->about, "block_tokens", json_integer(out->layout.tokens));
    wf_cli_json_set(out->about, "block_bytes", json_integer((json_int_t)bytes));
    wf_cli_json_set(out->about, "blocks", json_integer((json_int_t)out->distinct));
    return CLI_OK;
}

void wf_cli_codec_set_close(struct codec_set *set)
{
    free(set->plain);
    free(set->back);
    free(set->frames);
    free(set->encoded);
    free(set->sums);
    free(set->scratch);
    json_decref(set->about);
    if (set->has_subject)
        wf_cli_codec_close(&set->subject);
}
