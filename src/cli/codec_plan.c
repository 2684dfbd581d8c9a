/* SPDX-License-Identifier: Apache-2.0
 *
 * What a codec's name, or a quality, means: which codec each plane of a block is given to.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/codec.h"

/* Qualities first; `lossless` is a codec's name too. */
static const char *const qualities[] = {"transparent", "economy"};
#define QUALITIES (int)(sizeof qualities / sizeof qualities[0])

static const char *name_at(void *context, int index)
{
    (void)context;
    if (index < QUALITIES)
        return qualities[index];
    const struct wf_codec *codec = wf_codec_each((unsigned)(index - QUALITIES));
    return codec ? codec->name : NULL;
}

/* A model's name is what a node goes by; what was calibrated with --name has the engine's. */
static void compare_names(const struct codec_subject *subject, const char *path,
                          const struct wf_profile *profile)
{
    char name[WF_PROFILE_MODEL_BYTES];
    wf_cli_codec_name(subject, name, sizeof name);
    if (strcmp(name, profile->head.model) != 0)
        fprintf(stderr,
                "weft codec: %s is a profile of model %s, and this one is %s; figures are of what "
                "it would do, but a node uses it for models of its own name alone\n",
                path, profile->head.model, name);
}

static int profiled_plan(struct cli *cli, const struct codec_subject *subject,
                         const struct wf_layout *layout, const char *name,
                         enum weft_quality quality, struct codec_plan *out)
{
    const char *path = wf_cli_codec_options.profile;
    if (path && (wf_cli_codec_options.kl > 0 || wf_cli_codec_options.ppl_pct > 0))
        return wf_cli_fail(
            cli, CLI_USAGE,
            "--profile has its settings already; say --kl and --ppl-pct to weft codec "
            "calibrate, or leave out --profile");
    if (!path && !subject)
        return wf_cli_fail(
            cli, CLI_USAGE,
            "%s is calibrated with a model: give --model and --text, not --input, or "
            "a --profile from weft codec calibrate",
            name);
    int code = path ? wf_cli_codec_profile_read(cli, path, layout, &out->profile)
                    : wf_cli_codec_calibration(cli, subject, subject->windows.calibration,
                                               &out->profile);
    if (code != CLI_OK)
        return code;
    const struct wf_profile *profile = out->profile.profile;
    if (path && subject)
        compare_names(subject, path, profile);
    if (quality == WEFT_LOSSLESS) /* the codec's own name */
        quality = WEFT_TRANSPARENT;
    enum weft_quality asked = quality;
    while (quality > WEFT_LOSSLESS && !profile->head.points[quality].parameter)
        quality--;
    if (quality != asked) {
        out->instead = quality;
        fprintf(stderr,
                "weft codec: %s has no setting of its own in the profile; all figures are of %s, "
                "by which a node stores such blocks\n",
                weft_quality_name(asked), weft_quality_name(quality));
    }
    if (quality == WEFT_LOSSLESS) {
        out->frame.all.codec = &wf_codec_lossless;
        return CLI_OK;
    }
    out->frame.profile = profile;
    out->frame.quality = (uint8_t)quality;
    out->frame.all = (struct wf_frame_choice){&wf_codec_transform,
                                              profile->head.points[quality].parameter};
    return CLI_OK;
}

int wf_cli_codec_plan(struct cli *cli, const struct codec_subject *subject,
                      const struct wf_layout *layout, const char *name, struct codec_plan *out)
{
    *out = (struct codec_plan){0};
    const struct wf_codec *codec = wf_codec_by_name(strcmp(name, "none") == 0 ? "raw" : name);
    enum weft_quality quality = strcmp(name, "transparent") == 0 ? WEFT_TRANSPARENT
                                : strcmp(name, "economy") == 0   ? WEFT_ECONOMY
                                                                 : WEFT_LOSSLESS;
    if (quality != WEFT_LOSSLESS || (codec && codec->profiled))
        return profiled_plan(cli, subject, layout, name, quality, out);
    if (!codec) {
        const char *nearest = wf_cli_nearest(name, name_at, NULL);
        char list[256] = "";
        for (int i = 0; name_at(NULL, i); i++) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", name_at(NULL, i));
        }
        return wf_cli_fail(cli, CLI_USAGE,
                           "there is no codec '%s'%s%s%s: %s; in weft codec bench zstd-1, zstd-3 "
                           "and lz4 too",
                           name, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                           nearest ? "'?  There is" : "; there is", list);
    }
    out->frame.all.codec = codec;
    return CLI_OK;
}

void wf_cli_codec_plan_free(struct codec_plan *plan)
{
    wf_cli_codec_profile_free(&plan->profile);
    *plan = (struct codec_plan){0};
}
