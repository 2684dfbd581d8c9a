/* SPDX-License-Identifier: Apache-2.0
 *
 * Which setting a quality is given: choice.h has the rule.
 */
#include "codec/choice.h"

#include <math.h>

struct wf_growth wf_choice_growth(const struct wf_tried *tried, uint32_t count, double most)
{
    double above = 0, below = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct wf_tried *t = &tried[i];
        if (!(t->kl >= most / WF_CHOICE_LESS && t->kl <= most * WF_CHOICE_MORE &&
              t->loss_error > 0))
            continue;
        above += t->loss * t->kl / (t->loss_error * t->loss_error);
        below += t->kl * t->kl / (t->loss_error * t->loss_error);
    }
    return below > 0 ? (struct wf_growth){above / below, 1 / sqrt(below)}
                     : (struct wf_growth){1, 0};
}

static double cost_of(const struct wf_tried *t)
{
    return t->kl + WF_CHOICE_ERRORS * (t->kl_error > 0 ? t->kl_error : WF_CHOICE_ALONE * t->kl);
}

/* By logarithms, where both have one. */
static double along(double a, double b, double part)
{
    return a > 0 && b > 0 ? a * pow(b / a, part) : fmax(a, b);
}

struct wf_tried wf_choice_between(const struct wf_tried *tried, uint32_t count, uint32_t parameter)
{
    uint32_t i = 0;
    while (i + 1 < count && tried[i + 1].parameter <= parameter)
        i++;
    const struct wf_tried *a = &tried[i], *b = &tried[i + 1 < count ? i + 1 : i];
    double part = a == b ? 0 : (double)(parameter - a->parameter) / (b->parameter - a->parameter);
    struct wf_tried t = {
        .parameter = parameter,
        .kl = along(a->kl, b->kl, part),
        .loss = a->loss + part * (b->loss - a->loss),
        .loss_error = a->loss_error + part * (b->loss_error - a->loss_error),
        .ratio = a->ratio + part * (b->ratio - a->ratio),
    };
    /* What KL is with its errors lies between what it is at both. */
    double cost = along(cost_of(a), cost_of(b), part);
    t.kl_error = a->kl_error > 0 || b->kl_error > 0 ? fmax(cost - t.kl, 0) / WF_CHOICE_ERRORS : 0;
    return t;
}

/* What a setting may cost where `ratio` is had already. */
static bool met(const struct wf_tried *t, const struct wf_growth *growth, double ratio,
                const struct wf_wanted *wanted)
{
    double part = 1, sure = growth->mean - WF_CHOICE_ERRORS * growth->error, doubtful = sure;
    if (ratio >= wanted->enough) {
        part = WF_CHOICE_EASILY * sqrt(wanted->enough / ratio);
        doubtful = growth->mean + WF_CHOICE_ERRORS * growth->error;
    } else if (ratio >= wanted->least) {
        part = WF_CHOICE_MARGIN;
        doubtful = growth->mean;
    }
    return fmax(cost_of(t), sure * t->kl) <= part * wanted->most &&
           doubtful * t->kl <= fmax(part, WF_CHOICE_MARGIN) * wanted->most &&
           t->loss - wanted->errors * t->loss_error <= wanted->most;
}

struct wf_choice wf_choice_of(const struct wf_tried *tried, uint32_t count,
                              const struct wf_wanted *wanted)
{
    struct wf_choice chosen = {.setting = tried[0],
                               .cost = cost_of(&tried[0]),
                               .growth = wf_choice_growth(tried, count, wanted->most)};
    double ratio = 0;
    for (uint32_t p = tried[0].parameter; p <= tried[count - 1].parameter; p++) {
        struct wf_tried next = wf_choice_between(tried, count, p);
        if (!met(&next, &chosen.growth, ratio, wanted))
            break;
        chosen.setting = next;
        chosen.cost = cost_of(&next);
        chosen.met = true;
        ratio = next.ratio;
    }
    return chosen;
}
