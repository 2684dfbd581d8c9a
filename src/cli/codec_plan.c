/* SPDX-License-Identifier: Apache-2.0
 *
 * What a codec's name, or a quality, means: which codec each plane of a block is given to.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/codec.h"

static const char *codec_name_at(void *context, int index)
{
    (void)context;
    const struct wf_codec *codec = wf_codec_each((unsigned)index);
    return codec ? codec->name : NULL;
}

int wf_cli_codec_plan(struct cli *cli, const struct codec_subject *subject, const char *name,
                      struct codec_plan *out)
{
    (void)subject;
    *out = (struct codec_plan){0};
    const struct wf_codec *codec = wf_codec_by_name(strcmp(name, "none") == 0 ? "raw" : name);
    bool quality = strcmp(name, "transparent") == 0 || strcmp(name, "economy") == 0;
    if (quality || (codec && codec->profiled))
        return wf_cli_fail(cli, CLI_REFUSED,
                           "%s must be calibrated, and this build does not calibrate yet; name a "
                           "codec that needs no profile",
                           name);
    if (!codec) {
        const char *nearest = wf_cli_nearest(name, codec_name_at, NULL);
        char list[256] = "";
        for (unsigned i = 0; wf_codec_each(i); i++) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                     wf_codec_each(i)->name);
        }
        return wf_cli_fail(cli, CLI_USAGE, "there is no codec '%s'%s%s%s: %s", name,
                           nearest ? "; did you mean '" : "", nearest ? nearest : "",
                           nearest ? "'?  There is" : "; there is", list);
    }
    out->frame.all.codec = codec;
    return CLI_OK;
}

void wf_cli_codec_plan_free(struct codec_plan *plan)
{
    free(plan->choices);
    json_decref(plan->says);
    *plan = (struct codec_plan){0};
}
