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

/* What the format says; 0: nothing. */
static uint64_t number_of(const json_t *format, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(format, name));
    return value > 0 ? (uint64_t)value : 0;
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
    const char *key;
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
    return CLI_OK;
}

/* A value of the wrong kind, or out of bounds, is named as it is written there. */
static int refuse_value(struct cli *cli, const char *path, const char *key, const json_t *value,
                        const char *wanted)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    int code = wf_cli_fail(cli, CLI_USAGE, "the format %s has \"%s\": %.64s; give %s", path, key,
                           text ? text : "?", wanted);
    free(text);
    return code;
}

static int check_numbers(struct cli *cli, const char *path, const json_t *format)
{
    static const struct {
        const char *key, *what;
        json_int_t most;
        bool needed;
    } numbers[] = {{"layers", "a number from 1 to 2048", WF_FRAME_PLANES_MAX / 2, true},
                   {"kv_heads", "a number from 1 to 4096", 4096, true},
                   {"head_dim", "a number from 1 to 4096", 4096, true},
                   {"block_tokens", "a number from 1 to 65536", 65536, true},
                   {"block_bytes", "the bytes of a block, or leave it out", INT64_MAX, false},
                   {"blocks", "how many there are, or leave it out", INT64_MAX, false},
                   {"blocks_per_sequence", "a number of 1 or more, or leave it out", UINT32_MAX,
                    false}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const char *key = numbers[i].key;
        const json_t *value = json_object_get(format, key);
        json_int_t number = json_integer_value(value);
        if (!value && numbers[i].needed)
            return wf_cli_fail(cli, CLI_USAGE, "the format %s has no %s; give %s", path, key,
                               numbers[i].what);
        if (value && (!json_is_integer(value) || number < 1 || number > numbers[i].most))
            return refuse_value(cli, path, key, value, numbers[i].what);
    }
    return CLI_OK;
}

/* Of a file that does not say it, and an option that does not either, nobody can tell. */
static int check_dtype(struct cli *cli, const char *path, const json_t *format)
{
    const json_t *value = json_object_get(format, "dtype");
    const char *name = json_string_value(value);
    if (!value && !wf_cli_codec_options.dtype_given)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s has no dtype; give one, like \"dtype\": \"bf16\", or say "
                           "--dtype bf16",
                           path);
    if (value && wf_cli_dtype(name, (enum weft_dtype)0) == (enum weft_dtype)0)
        return refuse_value(cli, path, "dtype", value,
                            "f32, f16, bf16, fp8_e4m3, fp8_e5m2 or int8");
    if (value && wf_cli_codec_options.dtype_given && strcmp(name, wf_cli_codec_options.dtype) != 0)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s says that its KV is %s; leave out --dtype %s", path, name,
                           wf_cli_codec_options.dtype);
    return CLI_OK;
}

/* The layout, which is to be of what the file says a block takes. */
static int layout_of(struct cli *cli, const char *path, const json_t *format, struct wf_layout *out)
{
    const char *dtype = json_string_value(json_object_get(format, "dtype"));
    dtype = dtype ? dtype : wf_cli_codec_options.dtype;
    uint32_t layers = (uint32_t)number_of(format, "layers"),
             tokens = (uint32_t)number_of(format, "block_tokens"),
             heads = (uint32_t)number_of(format, "kv_heads"),
             head_dim = (uint32_t)number_of(format, "head_dim");
    uint64_t said = number_of(format, "block_bytes");
    if (!wf_layout_of(wf_cli_dtype(dtype, (enum weft_dtype)0), layers, tokens, heads, head_dim,
                      out))
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s is of no block: a plane of %u tokens × %u heads × %u %s "
                           "is more than %llu MiB",
                           path, tokens, heads, head_dim, dtype,
                           (unsigned long long)(WF_CODEC_PLANE_BYTES_MAX >> 20));
    if (said && said != out->bytes)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the format %s contradicts itself: %u layers × (K, V) × %u tokens × %u "
                           "heads × %u %s are blocks of %llu bytes, and its block_bytes is %llu; "
                           "give the file that was written with the blocks, as it was",
                           path, layers, tokens, heads, head_dim, dtype,
                           (unsigned long long)out->bytes, (unsigned long long)said);
    return CLI_OK;
}

static int read_format(struct cli *cli, const char *path, struct codec_set *out)
{
    json_error_t error;
    int code = wf_cli_codec_readable(cli, "format", path);
    if (code != CLI_OK)
        return code;
    json_t *format = json_load_file(path, 0, &error);
    if (!format)
        return wf_cli_fail(cli, CLI_USAGE, "cannot read the format %s: %s", path, error.text);
    code = check_format(cli, path, format);
    if (code == CLI_OK)
        code = check_numbers(cli, path, format);
    if (code == CLI_OK)
        code = check_dtype(cli, path, format);
    if (code == CLI_OK)
        code = layout_of(cli, path, format, &out->layout);
    const char *model = json_string_value(json_object_get(format, "model"));
    wf_cli_json_set(out->about, "model", model ? json_string(model) : json_null());
    wf_cli_json_set(out->about, "dtype", json_string(wf_cli_dtype_name(out->layout.dtype)));
    out->said_blocks = number_of(format, "blocks");
    out->in_sequence = number_of(format, "blocks_per_sequence");
    wf_cli_json_set(out->about, "made_up",
                    json_boolean(json_is_true(json_object_get(format, "made_up"))));
    json_decref(format);
    return code;
}

/* Of smaller blocks so many would take minutes, and their frames many times the set: what there is
 * beside a block's bytes takes as much room and time. */
#define BLOCK_COUNTS_LEAST 256u

static uint64_t blocks_wanted(uint64_t distinct, uint64_t bytes)
{
    uint64_t set = wf_cli_codec_options.working_set;
    bytes = bytes > BLOCK_COUNTS_LEAST ? bytes : BLOCK_COUNTS_LEAST;
    uint64_t least = (set + bytes - 1) / bytes;
    return distinct > least ? distinct : least;
}

/* Are there as many blocks as the format says, and whole ones? */
static int check_size(struct cli *cli, const char *path, uint64_t size, const struct codec_set *set)
{
    unsigned long long bytes = set->layout.bytes, blocks = set->said_blocks;
    if (size == 0)
        return wf_cli_fail(cli, CLI_USAGE, "%s is empty; write its blocks again", path);
    if (blocks && (size / bytes != blocks || size % bytes != 0))
        return wf_cli_fail(cli, CLI_USAGE,
                           "%s has %llu bytes, and the format says %llu blocks of %llu; give the "
                           "format that it was written with, or, where the file %s, write both "
                           "again",
                           path, (unsigned long long)size, blocks, bytes,
                           size / bytes < blocks ? "is cut" : "has grown");
    if (size % bytes != 0)
        return wf_cli_fail(cli, CLI_USAGE,
                           "%s has %llu bytes, which is no whole number of blocks of %llu as the "
                           "format has them; give the format that it was written with, or, where "
                           "the file is cut, write it again",
                           path, (unsigned long long)size, bytes);
    if (size > SET_BYTES_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "%s has %llu bytes; give up to 4 GiB", path,
                           (unsigned long long)size);
    return CLI_OK;
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
    int code = check_size(cli, path, size, out);
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
    uint32_t most = out->subject.made_up ? out->subject.windows.length
                                         : out->subject.model.shape.context;
    if (given->window > most)
        fprintf(stderr,
                "weft codec: --window %llu is more than the %u tokens that %s; windows are of %u\n",
                (unsigned long long)given->window, most,
                out->subject.made_up ? "a made-up window has at most" : "the model's context has",
                most);
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
    if (given->working_set < out->distinct * bytes && given->working_set != CODEC_WORKING_SET) {
        char asked[32], all[32];
        fprintf(stderr,
                "weft codec: --working-set %s is less than the KV itself, which is %s; that is the "
                "working set\n",
                wf_cli_size(given->working_set, asked, sizeof asked),
                wf_cli_size(out->distinct * bytes, all, sizeof all));
    }
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
