/* SPDX-License-Identifier: Apache-2.0
 *
 * Calibration with a model at hand: windows of a text go in, a profile comes out, with settings for
 * each quality and what they were seen to cost.
 *
 * Most windows make the bases (codec/calibrate.h).  The rest, which the bases have not seen, and
 * where windows are few the last of the others tell what errors cost: first each plane alone, coded
 * at a step of its own while all others stay exact; then all together, at a range of settings.  The
 * setting for a quality is read off that curve.
 *
 * A quality that none of these settings reaches, and one by which KV would be no smaller than
 * lossless makes it, gets none: its parameter is 0, and who reads the profile takes a better one.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/codec.h"
#include "cli/file.h"
#include "codec/calibrate.h"
#include "codec/choice.h"
#include "codec/transform.h"
#include "llama/say.h"

#define DESIGN_WINDOWS_MAX 24u
#define HELD_WINDOWS_MAX 5u
#define SINKS 1u
/* What one plane loses when it is measured alone, as a part of all that it has. */
#define ALONE_PART 0.02
/* The cost that the steps of a profile are predicted to have at WF_TRANSFORM_UNIT. */
#define UNIT_KL 1e-3
/* Settings that are tried: from and to, around WF_TRANSFORM_UNIT. */
#define TRY_FROM (-72)
#define TRY_TO 56
#define TRY_BY 8
#define TRIES ((TRY_TO - TRY_FROM) / TRY_BY + 1)
/* What may be lost where nothing is said, and how many times smaller KV is to be for it. */
static const struct wf_wanted transparent_wanted = {1e-3, 3.6, 4, 2};
static const struct wf_wanted economy_wanted = {0.00995033, 6.2, 8, 1}; /* 1 % of perplexity */

struct work {
    struct cli *cli;
    const struct codec_subject *subject;
    struct wf_calibration *c;
    uint32_t design_end, held_end; /* windows 0 … design_end − 1 make bases, */
    uint32_t held_first;           /* held_first … held_end − 1 are measured */

    /* A window on its way in: [layers][length][…] */
    float *keys, *values, *queries;
    uint32_t computed; /* tokens of it whose blocks are complete */
    uint32_t length;
    bool observing;
    struct codec_passage exact; /* what lossless makes of the blocks that settings are tried on */
    float *block;               /* [layout.bytes]: a copy of one, for that */

    struct cli_progress progress;
    double done, share; /* parts of all: before this run, and of it */

    struct wf_profile *profile;
};

/* What a quality is given. */
struct setting {
    struct wf_choice choice;
    double most;
    bool smaller; /* than lossless.  Else, and where the choice is not met, it is not for use */
};

struct trial {
    struct wf_frame_plan plan;
    uint32_t plane;                  /* sensitivity: this one alone */
    struct wf_frame_choice *choices; /* then: of all planes */
    struct codec_passage passage;
    uint64_t bytes, encoded; /* that went through it */
    struct wf_eval_result result;
};

static bool failed(void)
{
    return wf_say_failed("%s", wf_last_error());
}

static bool on_progress(void *context, double part)
{
    struct work *w = context;
    wf_cli_progress_step(&w->progress, w->done + w->share * part, "");
    return true;
}

/* -------------------------------------------------------------------------- bases: what goes in */

static size_t kv_row(const struct work *w)
{
    return w->subject->model.kv_dim;
}

static bool window_in(struct work *w)
{
    const struct wf_model_shape *s = &w->subject->model.shape;
    for (uint32_t layer = 0; layer < s->layers && w->computed; layer++) {
        size_t at = (size_t)layer * w->length;
        if (wf_calibration_add(w->c, layer, w->computed, w->keys + at * kv_row(w),
                               w->values + at * kv_row(w), w->queries + at * s->dim) != WEFT_OK)
            return failed();
    }
    w->computed = 0;
    return true;
}

static void on_queries(void *context, uint32_t layer, uint32_t first, uint32_t count,
                       const float *queries)
{
    struct work *w = context;
    size_t dim = w->subject->model.shape.dim;
    memcpy(w->queries + ((size_t)layer * w->length + first) * dim, queries,
           count * dim * sizeof *queries);
}

static bool on_block(void *context, const float *block, uint32_t position)
{
    struct work *w = context;
    const struct wf_layout *layout = &w->subject->layout;
    size_t plane = layout->tokens * kv_row(w);
    for (uint32_t p = 0; p < layout->planes; p++) {
        const float *rows = block + p * plane;
        float *to = (p % 2 ? w->values : w->keys) +
                    ((size_t)(p / 2) * w->length + position) * kv_row(w);
        if (w->observing)
            wf_calibration_observe(w->c, p / 2, p % 2, position, layout->tokens, rows);
        else
            memcpy(to, rows, plane * sizeof *rows);
    }
    w->computed = position + layout->tokens;
    if (!w->observing)
        return true;
    memcpy(w->block, block, layout->planes * plane * sizeof *block);
    return wf_cli_codec_pass(&w->exact, w->block, position);
}

static bool run(struct work *w, uint32_t first, uint32_t end, bool look,
                const struct wf_eval_variant *variants, uint32_t count,
                struct wf_eval_result *results)
{
    struct wf_eval_plan plan;
    wf_cli_codec_evaluation(w->subject, &plan);
    plan.apart = true;
    plan.context = w;
    plan.progress = on_progress;
    plan.block = look ? on_block : NULL;
    plan.queries = look && !w->observing ? on_queries : NULL;
    return wf_eval_run(&plan, &w->subject->windows, first, end, variants, count, results);
}

static bool bases(struct work *w)
{
    const struct wf_model *m = &w->subject->model;
    for (uint32_t layer = 0; layer < m->shape.layers; layer++)
        wf_calibration_mixing(w->c, layer, m->wo + (size_t)layer * m->shape.dim * m->shape.dim,
                              m->shape.dim);
    w->share = 0.4 / w->design_end;
    for (uint32_t i = 0; i < w->design_end; i++, w->done += w->share) {
        if (!run(w, i, i + 1, true, NULL, 0, NULL) || !window_in(w))
            return false;
    }
    return wf_calibration_design(w->c) == WEFT_OK || failed();
}

/* ----------------------------------------------------------------------------- what errors cost */

static bool profile_made(struct work *w, const struct wf_profile_point *points, void **out_file,
                         size_t *out_bytes)
{
    void *file;
    size_t bytes;
    wf_profile_destroy(w->profile);
    w->profile = NULL;
    if (wf_calibration_file(w->c, points, &file, &bytes) != WEFT_OK)
        return failed();
    bool ok = wf_profile_parse(file, bytes, &w->profile) == WEFT_OK || failed();
    if (ok && out_file) {
        *out_file = file;
        *out_bytes = bytes;
    } else {
        free(file);
    }
    return ok;
}

/* Trials are on threads of their own, with buffers of their own. */
static bool try_some(struct work *w, struct trial *trials, uint32_t count, bool look)
{
    struct wf_eval_variant variants[WF_EVAL_VARIANTS_MAX];
    struct wf_eval_result results[WF_EVAL_VARIANTS_MAX];
    bool ok = true;
    for (uint32_t i = 0; i < count; i++) {
        struct trial *t = &trials[i];
        variants[i] = (struct wf_eval_variant){&t->passage, wf_cli_codec_pass};
        ok = ok && wf_cli_codec_passage_init(w->cli, &w->subject->layout, &t->plan, &t->passage) ==
                       CLI_OK;
    }
    ok = ok && run(w, w->held_first, w->held_end, look, variants, count, results);
    for (uint32_t i = 0; i < count; i++) {
        struct trial *t = &trials[i];
        t->bytes = t->passage.bytes;
        t->encoded = t->passage.encoded;
        wf_cli_codec_passage_fini(&t->passage);
        if (ok)
            t->result = results[i];
    }
    return ok;
}

static bool try_all(struct work *w, struct trial *trials, uint32_t count, double share, bool look)
{
    for (uint32_t at = 0; at < count; at += WF_EVAL_VARIANTS_MAX) {
        uint32_t some = count - at < WF_EVAL_VARIANTS_MAX ? count - at
                                                          : (uint32_t)WF_EVAL_VARIANTS_MAX;
        w->share = share * some / count;
        if (!try_some(w, trials + at, some, look && at == 0))
            return false;
        w->done += w->share;
    }
    return true;
}

static bool sensitivities(struct work *w, struct trial *trials)
{
    static const struct wf_profile_point none[WF_PROFILE_POINTS];
    uint32_t planes = w->subject->layout.planes;
    for (uint32_t p = 0; p < planes; p++)
        wf_calibration_step(w->c, p / 2, p % 2,
                            wf_calibration_step_of(w->c, p / 2, p % 2, ALONE_PART));
    if (!profile_made(w, none, NULL, NULL))
        return false;
    for (uint32_t p = 0; p < planes; p++) {
        struct wf_frame_choice *choices = wf_cli_alloc(planes * sizeof *choices);
        for (uint32_t i = 0; i < planes; i++)
            choices[i] = (struct wf_frame_choice){&wf_codec_raw, 0};
        choices[p] = (struct wf_frame_choice){&wf_codec_transform, WF_TRANSFORM_UNIT};
        trials[p] = (struct trial){.plane = p, .choices = choices};
        trials[p].plan = (struct wf_frame_plan){.planes = choices, .profile = w->profile};
    }
    w->observing = true;
    if (!try_all(w, trials, planes, 0.35, true))
        return false;
    for (uint32_t p = 0; p < planes; p++) {
        double step = wf_calibration_step_of(w->c, p / 2, p % 2, ALONE_PART);
        double error = wf_calibration_error(w->c, p / 2, p % 2, step);
        wf_calibration_sensitivity(w->c, p / 2, p % 2, error > 0 ? trials[p].result.kl / error : 0);
    }
    wf_calibration_steps(w->c, UNIT_KL);
    return true;
}

/* ------------------------------------------------------------------------------- what is chosen */

static double pct_of(const struct trial *t)
{
    return 100 * expm1(t->result.nll - t->result.nll_exact);
}

static double pct_error_of(const struct trial *t)
{
    return 100 * exp(t->result.nll - t->result.nll_exact) * t->result.nll_error;
}

static double ratio_of(const struct trial *t)
{
    return t->encoded ? (double)t->bytes / (double)t->encoded : 0;
}

static double lossless_ratio(const struct work *w)
{
    return w->exact.encoded ? (double)w->exact.bytes / (double)w->exact.encoded : 0;
}

static struct setting setting_for(const struct work *w, const struct trial *trials,
                                  struct wf_wanted wanted, double most)
{
    struct wf_tried tried[TRIES];
    wanted.most = most > 0 ? most : wanted.most;
    for (uint32_t i = 0; i < TRIES; i++) {
        const struct wf_eval_result *r = &trials[i].result;
        tried[i] = (struct wf_tried){
            .parameter = trials[i].plan.all.parameter,
            .kl = r->kl,
            .kl_error = r->kl_error,
            .loss = r->nll - r->nll_exact,
            .loss_error = r->nll_error,
            .ratio = ratio_of(&trials[i]),
        };
    }
    struct setting s = {.choice = wf_choice_of(tried, TRIES, &wanted), .most = wanted.most};
    s.smaller = s.choice.setting.ratio > lossless_ratio(w);
    return s;
}

static bool usable(const struct setting *s)
{
    return s->choice.met && s->smaller;
}

static double setting_pct(const struct setting *s)
{
    return 100 * expm1(s->choice.setting.loss);
}

static struct wf_profile_point point_of(const struct setting *s)
{
    const struct wf_tried *t = &s->choice.setting;
    return (struct wf_profile_point){
        .parameter = (uint16_t)t->parameter,
        .kl = (float)t->kl,
        .ppl_pct = (float)setting_pct(s),
        .ratio = (float)t->ratio,
    };
}

/* Why a quality is not in the profile. */
static void warn(const struct work *w, const struct setting *s, enum weft_quality quality,
                 const char *option, double given, const char *instead)
{
    const char *name = weft_quality_name(quality);
    if (usable(s))
        return;
    if (!s->choice.met)
        fprintf(stderr,
                "weft codec: %s is not calibrated: the finest setting that is tried costs a KL of "
                "%.2g nats a token (%.2g to be on the safe side) and %+.2g %% of perplexity, and "
                "--%s %g allows a KL of %.2g; what asks for it is stored %s; allow more, or give a "
                "longer text\n",
                name, s->choice.setting.kl, s->choice.cost, setting_pct(s), option, given, s->most,
                instead);
    else
        fprintf(stderr,
                "weft codec: %s is not calibrated: KV would be %.2f times smaller, and lossless "
                "makes it %.2f times smaller; what asks for it is stored %s\n",
                name, s->choice.setting.ratio, lossless_ratio(w), instead);
}

static json_t *setting_json(const struct setting *s)
{
    const struct wf_tried *t = &s->choice.setting;
    json_t *a = json_object();
    wf_cli_json_set(a, "parameter", json_integer(usable(s) ? t->parameter : 0));
    wf_cli_json_set(a, "met", json_boolean(s->choice.met));
    wf_cli_json_set(a, "smaller_than_lossless", json_boolean(s->smaller));
    wf_cli_json_set(a, "kl", wf_cli_json_real(t->kl, 9));
    wf_cli_json_set(a, "kl_error", wf_cli_codec_error(t->kl_error, t->kl, 9));
    wf_cli_json_set(a, "ppl_delta_pct", wf_cli_json_real(setting_pct(s), 4));
    wf_cli_json_set(a, "ppl_delta_pct_error",
                    wf_cli_codec_error(100 * exp(t->loss) * t->loss_error, t->kl, 4));
    wf_cli_json_set(a, "ratio", wf_cli_json_real(t->ratio, 3));
    wf_cli_json_set(a, "likelihood_per_kl", wf_cli_json_real(s->choice.growth.mean, 3));
    wf_cli_json_set(a, "likelihood_per_kl_error", wf_cli_json_real(s->choice.growth.error, 3));
    return a;
}

static json_t *plane_json(const struct work *w, const struct trial *t)
{
    const struct wf_profile_group *g = wf_profile_group_of(w->profile, t->plane / 2, t->plane % 2,
                                                           0);
    json_t *a = json_object();
    wf_cli_json_set(a, "layer", json_integer(t->plane / 2));
    wf_cli_json_set(a, "kv", json_string(t->plane % 2 ? "v" : "k"));
    wf_cli_json_set(a, "kl_alone", wf_cli_json_real(t->result.kl, 9));
    wf_cli_json_set(a, "ppl_delta_pct_alone", wf_cli_json_real(pct_of(t), 5));
    wf_cli_json_set(a, "sensitivity", json_real((double)g->sensitivity));
    wf_cli_json_set(a, "step", json_real((double)g->step));
    return a;
}

static json_t *curve_json(const struct work *w, const struct trial *trials)
{
    json_t *curve = json_array();
    for (uint32_t i = 0; i < TRIES; i++) {
        double kl, bits;
        uint32_t parameter = trials[i].plan.all.parameter;
        wf_calibration_predict(w->c, parameter, &kl, &bits);
        json_t *a = json_object();
        wf_cli_json_set(a, "parameter", json_integer(parameter));
        wf_cli_json_set(a, "kl", wf_cli_json_real(trials[i].result.kl, 7));
        wf_cli_json_set(a, "kl_error",
                        wf_cli_codec_error(trials[i].result.kl_error, trials[i].result.kl, 7));
        wf_cli_json_set(a, "kl_predicted", wf_cli_json_real(kl, 7));
        wf_cli_json_set(a, "ppl_delta_pct", wf_cli_json_real(pct_of(&trials[i]), 4));
        wf_cli_json_set(a, "ppl_delta_pct_error",
                        wf_cli_codec_error(pct_error_of(&trials[i]), trials[i].result.kl, 4));
        wf_cli_json_set(a, "ratio", wf_cli_json_real(ratio_of(&trials[i]), 3));
        wf_cli_json_set(
            a, "ratio_predicted",
            wf_cli_json_real(8 * (double)weft_dtype_bytes(w->subject->layout.dtype) / bits, 3));
        json_array_append_new(curve, a);
    }
    return curve;
}

static json_t *says(const struct work *w, const struct trial *alone, const struct trial *trials,
                    const struct setting *transparent, const struct setting *economy)
{
    json_t *a = json_object(), *planes = json_array();
    uint32_t latest = w->held_first > w->design_end ? w->held_first : w->design_end;
    wf_cli_json_set(a, "design_windows", json_integer(w->design_end));
    wf_cli_json_set(a, "held_windows", json_integer(w->held_end - w->held_first));
    wf_cli_json_set(a, "held_apart", json_boolean(w->held_first >= w->design_end));
    wf_cli_json_set(a, "held_apart_windows", json_integer(w->held_end - latest));
    wf_cli_json_set(a, "lossless_ratio", wf_cli_json_real(lossless_ratio(w), 3));
    wf_cli_json_set(a, "transparent", setting_json(transparent));
    wf_cli_json_set(a, "economy", setting_json(economy));
    wf_cli_json_set(a, "curve", curve_json(w, trials));
    for (uint32_t p = 0; p < w->subject->layout.planes; p++)
        json_array_append_new(planes, plane_json(w, &alone[p]));
    wf_cli_json_set(a, "planes", planes);
    return a;
}

static bool settings(struct work *w, const struct trial *alone, struct codec_profile *out)
{
    const struct codec_options *given = &wf_cli_codec_options;
    struct wf_profile_point points[WF_PROFILE_POINTS] = {{0}};
    struct trial trials[TRIES];
    if (!profile_made(w, points, NULL, NULL))
        return false;
    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t parameter = WF_TRANSFORM_UNIT + (uint32_t)(TRY_FROM + (int32_t)i * TRY_BY);
        trials[i] = (struct trial){0};
        trials[i].plan = (struct wf_frame_plan){
            .all = {&wf_codec_transform, parameter},
            .profile = w->profile,
        };
    }
    w->observing = false;
    if (!try_all(w, trials, TRIES, 0.25, false))
        return false;
    struct setting transparent = setting_for(w, trials, transparent_wanted, given->kl);
    struct setting economy = setting_for(w, trials, economy_wanted, log1p(given->ppl_pct / 100));
    if (usable(&transparent))
        points[WEFT_TRANSPARENT] = point_of(&transparent);
    if (usable(&economy))
        points[WEFT_ECONOMY] = point_of(&economy);
    warn(w, &transparent, WEFT_TRANSPARENT, "kl", transparent.most, "losslessly");
    warn(w, &economy, WEFT_ECONOMY, "ppl-pct", 100 * expm1(economy.most),
         usable(&transparent) ? "as transparent is" : "losslessly");
    out->says = says(w, alone, trials, &transparent, &economy);
    return profile_made(w, points, &out->file, &out->bytes);
}

/* ------------------------------------------------------------------------------------ the whole */

static bool create(struct work *w)
{
    const struct codec_subject *subject = w->subject;
    const struct wf_model_shape *s = &subject->model.shape;
    char name[WF_PROFILE_MODEL_BYTES];
    wf_cli_codec_name(subject, name, sizeof name);
    if (wf_cli_codec_options.name)
        snprintf(name, sizeof name, "%s", wf_cli_codec_options.name);
    struct wf_calibration_shape shape = {
        .layers = s->layers,
        .query_heads = s->heads,
        .heads = s->kv_heads,
        .head_dim = subject->model.head_dim,
        .sinks = SINKS,
        .dtype = subject->layout.dtype,
        .rope_pairing = WF_MODEL_ROPE_PAIRED ? WF_ROPE_INTERLEAVED : WF_ROPE_HALVES,
        .rope_dims = subject->model.head_dim,
        .rope_theta = WF_MODEL_ROPE_THETA,
        .model = name,
    };
    w->length = subject->windows.length;
    size_t rows = (size_t)s->layers * w->length;
    w->keys = wf_cli_alloc(rows * kv_row(w) * sizeof(float));
    w->values = wf_cli_alloc(rows * kv_row(w) * sizeof(float));
    w->queries = wf_cli_alloc(rows * s->dim * sizeof(float));
    w->block = wf_cli_alloc(subject->layout.planes * subject->layout.tokens * kv_row(w) *
                            sizeof(float));
    return wf_calibration_create(&shape, &w->c) == WEFT_OK || failed();
}

/* Where windows are few, some that the bases have seen are measured too: what that flatters is less
 * than what one window or two are off. */
static void windows_of(struct work *w, uint32_t windows)
{
    uint32_t most = HELD_WINDOWS_MAX;
    uint32_t apart = (windows + 2) / 3 < most ? (windows + 2) / 3 : most;
    w->held_end = windows;
    w->held_first = windows < most ? 0 : windows - most;
    w->design_end = windows - apart < 1 ? 1 : windows - apart;
    if (w->design_end > DESIGN_WINDOWS_MAX)
        w->design_end = DESIGN_WINDOWS_MAX;
}

int wf_cli_codec_calibration(struct cli *cli, const struct codec_subject *subject, uint32_t windows,
                             struct codec_profile *out)
{
    static const struct wf_frame_plan lossless = {.all = {&wf_codec_lossless, 0}};
    struct work w = {.cli = cli, .subject = subject};
    struct trial *alone = wf_cli_alloc(subject->layout.planes * sizeof *alone);
    *out = (struct codec_profile){0};
    windows_of(&w, windows);
    int code = wf_cli_codec_passage_init(cli, &subject->layout, &lossless, &w.exact);
    if (code != CLI_OK) {
        wf_cli_codec_passage_fini(&w.exact);
        free(alone);
        return code;
    }
    wf_cli_progress_init(&w.progress, "codec calibrate");
    bool ok = create(&w) && bases(&w) && sensitivities(&w, alone) && settings(&w, alone, out);
    wf_cli_progress_fini(&w.progress);
    wf_calibration_destroy(w.c);
    wf_cli_codec_passage_fini(&w.exact);
    free(w.block);
    free(w.keys);
    free(w.values);
    free(w.queries);
    for (uint32_t p = 0; p < subject->layout.planes; p++)
        free(alone[p].choices);
    free(alone);
    out->profile = w.profile;
    if (ok)
        return CLI_OK;
    wf_cli_codec_profile_free(out);
    return wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_say_last());
}

/* ---------------------------------------------------------------------------------- the command */

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

/* One standard error, where there is one. */
static void print_error(const json_t *object, const char *name, const char *form)
{
    if (!json_is_null(json_object_get(object, name)))
        printf(form, number(object, name));
}

static void print(const struct codec_profile *made, const char *path)
{
    static const char *const qualities[] = {"transparent", "economy"};
    printf("%s: %zu bytes, of %llu tokens\n", path, made->bytes,
           (unsigned long long)made->profile->head.tokens);
    for (size_t i = 0; i < sizeof qualities / sizeof qualities[0]; i++) {
        const json_t *point = json_object_get(made->says, qualities[i]);
        if (json_integer_value(json_object_get(point, "parameter")) == 0) {
            printf("  %-12s not calibrated\n", qualities[i]);
            continue;
        }
        printf("  %-12s %5.2f times smaller, KL %.2g", qualities[i], number(point, "ratio"),
               number(point, "kl"));
        print_error(point, "kl_error", " ± %.1g");
        printf(" nats a token, perplexity %+.3f", number(point, "ppl_delta_pct"));
        print_error(point, "ppl_delta_pct_error", " ± %.3f");
        printf(" %%\n");
    }
    printf("for KV of model %s; to use it: weft codec install %s\n", made->profile->head.model,
           path);
}

int wf_cli_codec_calibrate(struct cli *cli)
{
    const char *path = wf_cli_codec_options.output;
    struct codec_subject subject;
    struct codec_profile made;
    if (!path)
        return wf_cli_fail(cli, CLI_USAGE, "say where the profile goes: --output FILE");
    const char *name = wf_cli_codec_options.name;
    if (name && (!*name || strlen(name) >= WF_PROFILE_MODEL_BYTES))
        return wf_cli_fail(cli, CLI_USAGE, "--name has %zu bytes; a model's has 1 to %u",
                           strlen(name), WF_PROFILE_MODEL_BYTES - 1);
    if (name && wf_profile_model_check("--name", name) != WEFT_OK)
        return wf_cli_fail(cli, CLI_USAGE, "%s", wf_last_error());
    int code = wf_cli_codec_open(cli, false, &subject);
    if (code != CLI_OK)
        return code;
    struct cli_file file = {.path = path, .sync = true};
    code = wf_cli_file_begin(cli, &file); /* before minutes are spent in vain */
    if (code == CLI_OK)
        code = wf_cli_codec_calibration(cli, &subject, subject.windows.windows, &made);
    if (code == CLI_OK) {
        code = wf_cli_file_write(cli, &file, made.file, made.bytes);
        if (code == CLI_OK)
            code = wf_cli_file_end(cli, &file);
        if (code == CLI_OK && cli->json)
            wf_cli_json_print(json_incref(made.says));
        else if (code == CLI_OK)
            print(&made, path);
        wf_cli_codec_profile_free(&made);
    }
    wf_cli_file_drop(&file);
    wf_cli_codec_close(&subject);
    return code;
}
