/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec ppl: perplexity and KL of a model whose KV goes through frames.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/codec.h"
#include "codec/convert.h"
#include "llama/say.h"

/* ---------------------------------------------------------------------------- the passage */

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

int wf_cli_codec_passage_init(struct cli *cli, const struct wf_layout *layout,
                              const struct wf_frame_plan *plan, struct codec_passage *out)
{
    *out = (struct codec_passage){.layout = layout, .plan = plan};
    out->block = aligned(layout->bytes);
    out->back = aligned(layout->bytes);
    out->frame = aligned(wf_frame_bound(layout));
    out->scratch = aligned(wf_frame_scratch(layout));
    out->plane_bytes = calloc(layout->planes, sizeof *out->plane_bytes);
    if (out->block && out->back && out->frame && out->scratch && out->plane_bytes)
        return CLI_OK;
    return wf_cli_fail(cli, CLI_SYSTEM, "no memory for frames of blocks of %llu bytes",
                       (unsigned long long)layout->bytes);
}

void wf_cli_codec_passage_fini(struct codec_passage *passage)
{
    free(passage->block);
    free(passage->back);
    free(passage->frame);
    free(passage->scratch);
    free(passage->plane_bytes);
    *passage = (struct codec_passage){0};
}

bool wf_cli_codec_pass(void *context, float *block, uint32_t position)
{
    struct codec_passage *p = context;
    const struct wf_layout *layout = p->layout;
    size_t elements = layout->bytes / weft_dtype_bytes(layout->dtype);
    struct wf_frame frame;
    uint64_t encoded;
    wf_floats_to(layout->dtype, block, elements, p->block);
    if (wf_frame_encode(layout, p->plan, position, p->block, p->frame, &encoded, p->scratch) !=
            WEFT_OK ||
        wf_frame_open(p->frame, encoded, &frame) != WEFT_OK ||
        wf_frame_decode(&frame, p->frame, 0, layout->planes, p->plan->profile, p->back,
                        p->scratch) != WEFT_OK)
        return wf_say_failed("a block does not come through its frame: %s", wf_last_error());
    wf_floats_of(layout->dtype, p->back, elements, block);
    p->blocks++;
    p->bytes += layout->bytes;
    p->encoded += encoded;
    for (uint32_t i = 0; i < layout->planes; i++)
        p->plane_bytes[i] += frame.table ? frame.table[i].bytes : layout->bytes / layout->planes;
    return true;
}

/* ---------------------------------------------------------------------------------- the command */

struct ppl {
    struct codec_subject subject;
    struct codec_plan plan;
    struct codec_passage passage;
    struct wf_eval_result result;
    double seconds;
};

static bool on_progress(void *context, double part)
{
    wf_cli_progress_step(context, part, "");
    return true;
}

static int evaluate(struct cli *cli, struct ppl *ppl)
{
    const struct wf_windows *windows = &ppl->subject.windows;
    struct wf_eval_variant variant = {&ppl->passage, wf_cli_codec_pass};
    struct wf_eval_plan plan;
    struct cli_progress progress;
    wf_cli_codec_evaluation(&ppl->subject, &plan);
    plan.context = &progress;
    plan.progress = on_progress;
    plan.apart = true;
    double started_s = wf_cli_now_s();
    wf_cli_progress_init(&progress, "codec ppl");
    bool ok = wf_eval_run(&plan, windows, windows->calibration, windows->windows, &variant, 1,
                          &ppl->result);
    wf_cli_progress_fini(&progress);
    ppl->seconds = wf_cli_now_s() - started_s;
    if (ok && !(isfinite(exp(ppl->result.nll)) && isfinite(exp(ppl->result.nll_exact))))
        return wf_cli_fail(cli, CLI_WRONG,
                           "what the model answers has no perplexity (%g nats a token, %g exact); "
                           "its weights are damaged, or the codec is",
                           ppl->result.nll, ppl->result.nll_exact);
    return ok ? CLI_OK : wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_say_last());
}

json_t *wf_cli_codec_error(double error, double kl, int decimals)
{
    return wf_cli_json_real(error > 0 || kl <= 0 ? error : NAN, decimals);
}

static json_t *ratios(const struct ppl *ppl, uint32_t first)
{
    const struct codec_passage *p = &ppl->passage;
    double plain = (double)p->bytes / p->layout->planes;
    json_t *list = json_array();
    for (uint32_t i = first; i < p->layout->planes; i += 2)
        json_array_append_new(list, wf_cli_json_real(plain / (double)p->plane_bytes[i], 3));
    return list;
}

static json_t *answer(const struct ppl *ppl)
{
    const struct codec_options *given = &wf_cli_codec_options;
    const struct wf_eval_result *r = &ppl->result;
    const struct wf_windows *windows = &ppl->subject.windows;
    double apart = r->nll - r->nll_exact;
    json_t *a = json_object();
    wf_cli_json_set(a, "codec", json_string(given->codec));
    if (ppl->plan.instead)
        wf_cli_json_set(a, "stored_as", json_string(weft_quality_name(ppl->plan.instead)));
    wf_cli_json_set(a, "ratio",
                    wf_cli_json_real((double)ppl->passage.bytes / (double)ppl->passage.encoded, 4));
    wf_cli_json_set(a, "ppl_exact", wf_cli_json_real(exp(r->nll_exact), 6));
    wf_cli_json_set(a, "ppl", wf_cli_json_real(exp(r->nll), 6));
    wf_cli_json_set(a, "ppl_delta_pct", wf_cli_json_real(100 * expm1(apart), 6));
    wf_cli_json_set(a, "ppl_delta_pct_error",
                    wf_cli_codec_error(100 * exp(apart) * r->nll_error, r->kl, 6));
    wf_cli_json_set(a, "kl_mean", wf_cli_json_real(r->kl, 9));
    wf_cli_json_set(a, "kl_error", wf_cli_codec_error(r->kl_error, r->kl, 9));
    wf_cli_json_set(a, "tokens", json_integer((json_int_t)r->tokens));
    wf_cli_json_set(a, "calibration_tokens",
                    json_integer((json_int_t)windows->calibration * (windows->length - 1)));
    wf_cli_json_set(a, "text_cut", json_boolean(windows->cut));
    wf_cli_json_set(a, "window", json_integer(windows->length));
    wf_cli_json_set(a, "windows", json_integer(windows->windows - windows->calibration));
    wf_cli_json_set(a, "dtype", json_string(given->dtype));
    wf_cli_json_set(a, "block_tokens", json_integer(ppl->subject.layout.tokens));
    wf_cli_json_set(a, "blocks", json_integer((json_int_t)ppl->passage.blocks));
    wf_cli_json_set(a, "ratio_k", ratios(ppl, 0));
    wf_cli_json_set(a, "ratio_v", ratios(ppl, 1));
    wf_cli_json_set(a, "seconds", wf_cli_json_real(ppl->seconds, 2));
    wf_cli_json_set(a, "model", wf_cli_codec_shape(&ppl->subject));
    if (ppl->plan.profile.says)
        wf_cli_json_set(a, "calibration", json_incref(ppl->plan.profile.says));
    else if (ppl->plan.profile.profile) {
        const struct wf_profile_head *head = &ppl->plan.profile.profile->head;
        wf_cli_json_set(a, "profile_tokens", json_integer((json_int_t)head->tokens));
        wf_cli_json_set(a, "profile_model", json_string(head->model));
    }
    return a;
}

static void print(const struct ppl *ppl)
{
    const struct wf_eval_result *r = &ppl->result;
    const struct wf_windows *windows = &ppl->subject.windows;
    double apart = r->nll - r->nll_exact;
    bool other = ppl->plan.instead != WEFT_QUALITY_DEFAULT;
    printf("%s%s%s: %.2f times smaller than %s, perplexity %.4f (exact %.4f)\n",
           wf_cli_codec_options.codec, other ? ", stored as " : "",
           other ? weft_quality_name(ppl->plan.instead) : "",
           (double)ppl->passage.bytes / (double)ppl->passage.encoded, wf_cli_codec_options.dtype,
           exp(r->nll), exp(r->nll_exact));
    if (r->kl_error > 0 || r->kl <= 0)
        printf("  %+.4f %% of perplexity, standard error %.4f %%; KL %.3g nats a token, standard "
               "error %.1g\n",
               100 * expm1(apart), 100 * exp(apart) * r->nll_error, r->kl, r->kl_error);
    else
        printf("  %+.4f %% of perplexity; KL %.3g nats a token; no standard errors, for these are "
               "of one window: give a longer text\n",
               100 * expm1(apart), r->kl);
    printf("  over %llu tokens in windows of %u, blocks of %u tokens; the first %u windows are for "
           "calibration%s\n",
           (unsigned long long)r->tokens, windows->length, ppl->subject.layout.tokens,
           windows->calibration, windows->cut ? "; the text goes on (--tokens)" : "");
    const struct codec_profile *profile = &ppl->plan.profile;
    if (ppl->plan.frame.profile && !profile->says)
        printf("  by a profile of %llu tokens: if these are of this text, all figures flatter\n",
               (unsigned long long)profile->profile->head.tokens);
}

int wf_cli_codec_ppl(struct cli *cli)
{
    struct ppl ppl = {0};
    if (!wf_cli_codec_options.codec)
        wf_cli_codec_options.codec = "lossless";
    int code = wf_cli_codec_open(cli, false, &ppl.subject);
    if (code != CLI_OK)
        return code;
    code = wf_cli_codec_plan(cli, &ppl.subject, &ppl.subject.layout, wf_cli_codec_options.codec,
                             &ppl.plan);
    if (code == CLI_OK && wf_cli_codec_options.profile && !ppl.plan.profile.profile)
        code = wf_cli_fail(cli, CLI_USAGE, "%s does not go by a profile; leave out --profile",
                           wf_cli_codec_options.codec);
    if (code == CLI_OK)
        code = wf_cli_codec_passage_init(cli, &ppl.subject.layout, &ppl.plan.frame, &ppl.passage);
    if (code == CLI_OK)
        code = evaluate(cli, &ppl);
    if (code == CLI_OK && cli->json)
        wf_cli_json_print(answer(&ppl));
    else if (code == CLI_OK)
        print(&ppl);
    wf_cli_codec_passage_fini(&ppl.passage);
    wf_cli_codec_plan_free(&ppl.plan);
    wf_cli_codec_close(&ppl.subject);
    return code;
}
