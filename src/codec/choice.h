/* SPDX-License-Identifier: Apache-2.0
 *
 * Which setting of a profile a quality is given, by what settings were seen to cost.
 *
 * Calibration tries settings from the finest to the coarsest on a few windows of a text, and the
 * quality is promised for the rest of it, and for other texts.  So what was seen counts with its
 * standard errors; and how much of what a quality allows is used depends on what it buys:
 *
 *     times smaller            KL with its errors, and what   likelihood may lose
 *                              likelihood surely loses
 *     up to `least`            all that is allowed            –
 *     up to `enough`           WF_CHOICE_MARGIN of it         MARGIN, as is expected
 *     beyond                   WF_CHOICE_EASILY of it, times  MARGIN, at the worst that errors
 *                              √(enough / times smaller)      leave possible
 *
 * Quality comes first where ratio is easily had: there a doubt about likelihood is held against a
 * setting.  Where KV would otherwise be hardly smaller, only what is sure is.
 *
 * Pure: any thread, no memory of its own.
 */
#ifndef WF_CODEC_CHOICE_H
#define WF_CODEC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#define WF_CHOICE_MARGIN 0.75
#define WF_CHOICE_EASILY 0.15
/* Standard errors on top of what was measured: another text costs more or less than this one. */
#define WF_CHOICE_ERRORS 2
/* What has no error is of a window that is hardly longer than a block: as if it had this part. */
#define WF_CHOICE_ALONE 0.25
/* Settings tell what likelihood goes with KL that cost so many times less, up to so many times
 * more, than what is allowed. */
#define WF_CHOICE_LESS 8
#define WF_CHOICE_MORE 4

/* What a setting was seen to cost, and to give. */
struct wf_tried {
    uint32_t parameter; /* of wf_codec_transform; ascending in a list */
    double kl, kl_error;
    double loss, loss_error; /* of likelihood: nats a token, negative where it grew */
    double ratio;
};

struct wf_wanted {
    double most;          /* KL, and likelihood, that may be lost */
    double least, enough; /* times smaller */
    double errors;        /* standard errors by which a setting's own likelihood may be off */
};

/* Nats of likelihood that are lost for a nat of KL: one where a model is as sure as it should be;
 * on a text that it does not know several, by the curvature of the loss on that text. */
struct wf_growth {
    double mean, error;
};

struct wf_choice {
    struct wf_tried setting; /* or, where none is met, the finest */
    double cost;             /* KL with its errors */
    struct wf_growth growth;
    bool met;
};

/* What one setting shows of it is mostly noise, so all tell of it that cost about as much as
 * `most`, each as much as its error allows.  1 ± 0 where none does. */
struct wf_growth wf_choice_growth(const struct wf_tried *tried, uint32_t count, double most);

/* The setting `parameter`, which was tried or lies between two that were: logarithms of what they
 * cost are interpolated. */
struct wf_tried wf_choice_between(const struct wf_tried *tried, uint32_t count, uint32_t parameter);

/* The coarsest setting that is met, all finer ones being met too; `count` ≥ 1. */
struct wf_choice wf_choice_of(const struct wf_tried *tried, uint32_t count,
                              const struct wf_wanted *wanted);

#endif
