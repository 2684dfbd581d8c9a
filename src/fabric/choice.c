/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/choice.h"

#include <math.h>

#define GAIN_ON 1.1 /* sooner by a tenth: encode from now on */
#define GAIN_OFF 1.0
#define RATIO_GUESS 1.3 /* of KV, before any was encoded */
#define FADE 0.125

#define ALONE_BYTES (128u << 10) /* a message alone says nothing of the link if it is smaller, */
#define SAMPLE_BYTES (1u << 20)  /* and no mean is taken of less than this */

/* Of so many, the last few go the other way. */
#define ROUND 256u
#define ROUND_OTHERS 8u

static double faded(double mean, double seen)
{
    return mean > 0 ? mean + FADE * (seen - mean) : seen;
}

void wf_line_begun(struct wf_line *line, uint64_t now_ns)
{
    if (line->arriving++ == 0)
        line->since_ns = line->close ? line->last_ns : now_ns;
}

void wf_line_arrived(struct wf_line *line, uint64_t now_ns, uint64_t bytes, bool close)
{
    bool alone = !line->close;
    if (line->arriving > 0)
        line->arriving--;
    if (!alone || bytes >= ALONE_BYTES) {
        line->bytes += bytes;
        line->ns += now_ns - line->since_ns;
    }
    line->since_ns = line->last_ns = now_ns;
    line->close = close;
    if (line->bytes < SAMPLE_BYTES)
        return;
    line->mbps = faded(line->mbps, (double)line->bytes * 1e3 / (double)(line->ns ? line->ns : 1));
    line->bytes = line->ns = 0;
}

void wf_line_cut(struct wf_line *line)
{
    line->arriving = 0;
    line->bytes = line->ns = 0;
    line->close = false;
}

void wf_choice_seen(struct wf_choice *choice, uint64_t plain_bytes, uint64_t frame_bytes)
{
    choice->ratio = faded(choice->ratio,
                          (double)plain_bytes / (double)(frame_bytes ? frame_bytes : 1));
    if (frame_bytes >= plain_bytes)
        return;
    choice->frames++;
    choice->plain_bytes += plain_bytes;
    choice->frame_bytes += frame_bytes;
}

bool wf_choice_next(struct wf_choice *choice, enum wf_fabric_codec codec,
                    const struct wf_codec_speed *speed, double link_mbps, uint32_t waiting)
{
    if (codec != WF_FABRIC_CODEC_AUTO) {
        choice->on = codec == WF_FABRIC_CODEC_LOSSLESS;
        return choice->on;
    }
    choice->waiting = faded(choice->waiting, waiting > 0 ? waiting : 1);
    double blocks = fmax(choice->waiting, 1);
    double ratio = choice->ratio > 0 ? choice->ratio : RATIO_GUESS;
    choice->gain = wf_codec_gain(speed, link_mbps, ratio, blocks);
    bool on = choice->gain >= (choice->on ? GAIN_OFF : GAIN_ON);
    if (on != choice->on) {
        choice->on = on;
        choice->asked = 0;
    }
    bool other = choice->asked++ % ROUND >= ROUND - ROUND_OTHERS;
    if (on || !other)
        return on && !other;
    /* Such blocks do not become smaller, it seems; those of now may. */
    return wf_codec_gain(speed, link_mbps, RATIO_GUESS, blocks) >= GAIN_ON;
}
