/* SPDX-License-Identifier: Apache-2.0
 *
 * Profiles as files: read for another subcommand, and weft codec show, which says what one is for.
 *
 * Nothing is shown of a file that is not whole: wf_profile_parse() has seen all of it before.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/codec.h"
#include "codec/calibrate.h"

void wf_cli_codec_profile_free(struct codec_profile *profile)
{
    wf_profile_destroy(profile->profile);
    free(profile->file);
    json_decref(profile->says);
    *profile = (struct codec_profile){0};
}

/* NULL, or why it is none.  Only what its head says it must be is read whole. */
static const char *file_read(FILE *file, uint64_t bytes, struct codec_profile *out)
{
    struct wf_profile_head head;
    size_t first = bytes < sizeof head ? (size_t)bytes : sizeof head;
    if (fread(&head, 1, first, file) != first)
        return "it cannot be read to its end";
    if (wf_profile_begins(&head, bytes) != WEFT_OK)
        return wf_last_error();
    out->bytes = (size_t)bytes;
    out->file = wf_cli_alloc(out->bytes);
    memcpy(out->file, &head, first);
    if (fread((uint8_t *)out->file + first, 1, out->bytes - first, file) != out->bytes - first)
        return "it cannot be read to its end";
    return wf_profile_parse(out->file, out->bytes, &out->profile) == WEFT_OK ? NULL
                                                                             : wf_last_error();
}

/* `option` is what stands before the path in sentences: "--profile ", or nothing. */
static int load(struct cli *cli, const char *option, const char *path, struct codec_profile *out)
{
    struct stat about;
    *out = (struct codec_profile){0};
    FILE *file = stat(path, &about) == 0 ? fopen(path, "rbe") : NULL;
    if (!file)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s%s: %s", option, path, strerror(errno));
    const char *why = S_ISREG(about.st_mode) ? file_read(file, (uint64_t)about.st_size, out)
                                             : "this is no file; give a profile's";
    fclose(file);
    if (!why)
        return CLI_OK;
    wf_cli_fail(cli, CLI_USAGE, "%s%s: %s", option, path, why);
    wf_cli_codec_profile_free(out);
    return CLI_USAGE;
}

int wf_cli_codec_profile_read(struct cli *cli, const char *path, const struct wf_layout *layout,
                              struct codec_profile *out)
{
    struct wf_plane plane;
    int code = load(cli, "--profile ", path, out);
    if (code != CLI_OK || !out->profile)
        return code;
    const struct wf_profile_head *head = &out->profile->head;
    wf_layout_plane(layout, 0, 0, NULL, &plane);
    bool shaped = head->layers * 2 == layout->planes && wf_profile_fits(out->profile, &plane);
    if (shaped && wf_profile_rounds_alike(head, layout->dtype))
        return CLI_OK;
    if (shaped)
        code = wf_cli_fail(cli, CLI_USAGE,
                           "--profile %s is of KV in %s, whose settings are not for %s: a node "
                           "stores that losslessly; calibrate with --dtype %s, or leave out "
                           "--profile",
                           path, wf_cli_dtype_name((enum weft_dtype)head->dtype),
                           wf_cli_dtype_name(layout->dtype), wf_cli_dtype_name(layout->dtype));
    else
        code =
            wf_cli_fail(cli, CLI_USAGE,
                        "--profile %s is of a model of %u layers of %u heads of %u elements, and "
                        "this one has %u of %u of %u; calibrate this one",
                        path, head->layers, head->heads, head->head_dim, layout->planes / 2,
                        layout->heads, layout->head_dim);
    wf_cli_codec_profile_free(out);
    return code;
}

int wf_cli_codec_profile_load(struct cli *cli, const char *path, struct codec_profile *out)
{
    return load(cli, "", path, out);
}

/* ---------------------------------------------------------------------------------------- show */

static const enum weft_quality qualities[] = {WEFT_TRANSPARENT, WEFT_ECONOMY};
#define QUALITIES (sizeof qualities / sizeof qualities[0])

static json_t *format_json(const struct wf_profile *p)
{
    static const char *const pairings[] = {
        [WF_ROPE_INTERLEAVED] = "interleaved", [WF_ROPE_HALVES] = "halves"};
    const struct wf_profile_head *head = &p->head;
    bool turned = p->rope.dims > 0;
    json_t *a = json_object();
    wf_cli_json_set(a, "layers", json_integer(head->layers));
    wf_cli_json_set(a, "kv_heads", json_integer(head->heads));
    wf_cli_json_set(a, "head_dim", json_integer(head->head_dim));
    wf_cli_json_set(a, "dtype", json_string(wf_cli_dtype_name((enum weft_dtype)head->dtype)));
    wf_cli_json_set(a, "rope_dims", json_integer(p->rope.dims));
    wf_cli_json_set(a, "rope_pairing",
                    turned ? json_string(pairings[head->rope_pairing]) : json_null());
    wf_cli_json_set(a, "rope_theta",
                    wf_cli_json_real(p->rope.dims < 4
                                         ? NAN
                                         : pow(p->rope.frequencies[1], -0.5 * p->rope.dims),
                                     0));
    return a;
}

/* The quality that blocks are stored at where this one is asked for. */
static enum weft_quality stored_as(const struct wf_profile *p, enum weft_quality quality)
{
    while (quality > WEFT_LOSSLESS && !p->head.points[quality].parameter)
        quality--;
    return quality;
}

static json_t *quality_json(const struct wf_profile *p, enum weft_quality quality)
{
    const struct wf_profile_point *point = &p->head.points[quality];
    bool met = point->parameter != 0;
    json_t *a = json_object();
    wf_cli_json_set(a, "met", json_boolean(met));
    wf_cli_json_set(a, "parameter", json_integer(point->parameter));
    wf_cli_json_set(a, "stored_as", json_string(weft_quality_name(stored_as(p, quality))));
    wf_cli_json_set(a, "kl", wf_cli_json_real(met ? (double)point->kl : NAN, 7));
    wf_cli_json_set(a, "ppl_delta_pct", wf_cli_json_real(met ? (double)point->ppl_pct : NAN, 4));
    wf_cli_json_set(a, "ratio", wf_cli_json_real(met ? (double)point->ratio : NAN, 3));
    return a;
}

/* NaN, and so null: there is no such setting. */
static double bits_of(const struct wf_profile *p, uint32_t plane, enum weft_quality quality)
{
    uint32_t parameter = p->head.points[quality].parameter;
    return parameter ? wf_calibration_bits(p, plane / 2, plane % 2, parameter) : NAN;
}

static json_t *plane_json(const struct wf_profile *p, uint32_t plane)
{
    const struct wf_profile_group *group = wf_profile_group_of(p, plane / 2, plane % 2, 0);
    json_t *a = json_object(), *bits = json_object();
    for (size_t i = 0; i < QUALITIES; i++)
        wf_cli_json_set(bits, weft_quality_name(qualities[i]),
                        wf_cli_json_real(bits_of(p, plane, qualities[i]), 3));
    wf_cli_json_set(a, "layer", json_integer(plane / 2));
    wf_cli_json_set(a, "kv", json_string(plane % 2 ? "v" : "k"));
    wf_cli_json_set(a, "bits", bits);
    wf_cli_json_set(a, "sensitivity", json_real((double)group->sensitivity));
    wf_cli_json_set(a, "step", json_real((double)group->step));
    return a;
}

static json_t *profile_json(const struct codec_profile *read, const char *path)
{
    const struct wf_profile *p = read->profile;
    json_t *a = json_object(), *planes = json_array();
    char id[20];
    snprintf(id, sizeof id, "%016llx", (unsigned long long)p->id);
    wf_cli_json_set(a, "file", json_string(path));
    wf_cli_json_set(a, "model", json_string(p->head.model));
    wf_cli_json_set(a, "id", json_string(id));
    wf_cli_json_set(a, "bytes", json_integer((json_int_t)read->bytes));
    wf_cli_json_set(a, "tokens", json_integer((json_int_t)p->head.tokens));
    wf_cli_json_set(a, "first_tokens_exact", json_integer(p->head.sinks));
    wf_cli_json_set(a, "format", format_json(p));
    for (size_t i = 0; i < QUALITIES; i++)
        wf_cli_json_set(a, weft_quality_name(qualities[i]), quality_json(p, qualities[i]));
    for (uint32_t plane = 0; plane < 2 * p->head.layers; plane++)
        json_array_append_new(planes, plane_json(p, plane));
    wf_cli_json_set(a, "planes", planes);
    return a;
}

static void print_rope(const struct wf_profile *p)
{
    if (!p->rope.dims) {
        printf("; keys as they come\n");
        return;
    }
    printf("; keys turned in pairs of %s",
           p->head.rope_pairing == WF_ROPE_HALVES ? "halves of a head" : "neighbours");
    if (p->rope.dims >= 4)
        printf(", base %.6g", pow(p->rope.frequencies[1], -0.5 * p->rope.dims));
    printf("\n");
}

static void print_profile(const struct codec_profile *read, const char *path)
{
    const struct wf_profile *p = read->profile;
    const struct wf_profile_head *head = &p->head;
    json_t *rows = json_array();
    char size[32];
    printf("%s: a profile of model %s\n", path, head->model);
    printf("  %u layer%s of %u KV head%s of %u channels, %s", head->layers, wf_cli_s(head->layers),
           head->heads, wf_cli_s(head->heads), head->head_dim,
           wf_cli_dtype_name((enum weft_dtype)head->dtype));
    print_rope(p);
    printf("  made from %llu tokens, %s, id %016llx\n", (unsigned long long)head->tokens,
           wf_cli_size(read->bytes, size, sizeof size), (unsigned long long)p->id);
    for (size_t i = 0; i < QUALITIES; i++) {
        const struct wf_profile_point *point = &head->points[qualities[i]];
        const char *name = weft_quality_name(qualities[i]);
        if (point->parameter)
            printf("  %-12s %5.2f times smaller, KL %.2g nats a token, perplexity %+.3f %%\n", name,
                   (double)point->ratio, (double)point->kl, (double)point->ppl_pct);
        else
            printf("  %-12s has no setting; blocks are stored as %s\n", name,
                   weft_quality_name(stored_as(p, qualities[i])));
    }
    printf("bits an element, as predicted:\n");
    for (uint32_t layer = 0; layer < head->layers; layer++) {
        json_t *row = json_object();
        wf_cli_json_set(row, "layer", json_integer(layer));
        for (size_t i = 0; i < 2 * QUALITIES; i++) {
            char name[32];
            snprintf(name, sizeof name, "%s_%s", weft_quality_name(qualities[i / 2]),
                     i % 2 ? "v" : "k");
            wf_cli_json_set(
                row, name,
                wf_cli_json_real(bits_of(p, 2 * layer + (uint32_t)(i % 2), qualities[i / 2]), 2));
        }
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
}

int wf_cli_codec_show(struct cli *cli)
{
    struct codec_profile read;
    if (cli->word_count < 2)
        return wf_cli_fail(cli, CLI_USAGE, "say which profile: weft codec show FILE");
    if (cli->word_count > 2)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[2]);
    int code = load(cli, "", cli->words[1], &read);
    if (code != CLI_OK || !read.profile)
        return code;
    if (cli->json)
        wf_cli_json_print(profile_json(&read, cli->words[1]));
    else
        print_profile(&read, cli->words[1]);
    wf_cli_codec_profile_free(&read);
    return CLI_OK;
}
