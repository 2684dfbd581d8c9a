/* SPDX-License-Identifier: Apache-2.0 */
#include "core/value_model.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define FIRST_EDGE_S 1.0f
#define RATE 0.1f
#define ODDS_AT_FIRST (-3.0f) /* of a use in half an octave of age, before anything was seen */
#define HINT_AT_FIRST 1.0f
#define SEEN_LITTLE 20.0f /* examples */
#define DECLINE 0.7f /* of the odds, from one bucket to the next, as long as nothing is known */
#define SMOOTH_EVERY 64u
#define AHEAD 8u       /* buckets that a value looks ahead: sixteen times the age */
#define LOOK_LEAST 26u /* but to an age of an hour and a half in any case */
#define TERMS_MAX (2u + 2u * (WF_VALUE_FEATURES + 1u))

uint8_t wf_value_octave(double x)
{
    if (!(x >= 1))
        return 0;
    int exponent;
    (void)frexp(x, &exponent); /* x = m · 2^exponent, m in [1/2, 1) */
    return (uint8_t)(exponent < (int)WF_VALUE_BINS ? exponent : (int)WF_VALUE_BINS - 1);
}

/* An age that was never seen is taken to be like the one before it: the same odds in an octave
 * twice as long, so that, with nothing else known, what was used last is worth most. */
static void ages_smooth(struct wf_value_model *model)
{
    for (unsigned shared = 0; shared < 4; shared++) {
        float before = ODDS_AT_FIRST;
        for (unsigned i = 0; i < WF_VALUE_BUCKETS; i++) {
            float own = model->age[i].weight + model->shared_age[shared][i].weight;
            float seen = model->seen[shared][i];
            before = (seen * own + SEEN_LITTLE * (before - DECLINE)) / (seen + SEEN_LITTLE);
            model->by_age[shared][i] = before;
        }
    }
    model->learned = 0;
}

void wf_value_model_init(struct wf_value_model *model)
{
    memset(model, 0, sizeof *model);
    for (unsigned i = 1; i <= WF_VALUE_BUCKETS; i++)
        model->edge[i] = FIRST_EDGE_S * exp2f((float)(i - 1) / 2);
    for (unsigned i = 0; i < WF_VALUE_BUCKETS; i++) {
        model->phase[i] = (uint8_t)(log2f(model->edge[i] + 1) / 2);
        model->age[i].weight = ODDS_AT_FIRST;
    }
    for (unsigned shared = 0; shared < 2; shared++) {
        model->hint[shared][1].weight = HINT_AT_FIRST;
        model->hint[shared][2].weight = -HINT_AT_FIRST;
    }
    ages_smooth(model);
}

/* What is said of a chain's end says little of what many chains share. */
static bool tells(const struct wf_value_kind *kind, unsigned feature)
{
    bool of_shared = feature == WF_VALUE_SHARED_GAP || feature == WF_VALUE_SHARED_USES;
    return feature == WF_VALUE_SHARED || of_shared == (kind->bin[WF_VALUE_SHARED] != 0);
}

static unsigned terms(struct wf_value_model *model, const struct wf_value_kind *kind,
                      unsigned bucket, struct wf_value_weight *out[TERMS_MAX])
{
    unsigned count = 0, phase = model->phase[bucket], shared = kind->bin[WF_VALUE_SHARED];
    out[count++] = &model->age[bucket];
    out[count++] = &model->shared_age[shared][bucket];
    for (unsigned i = 0; i < WF_VALUE_FEATURES; i++) {
        if (!tells(kind, i))
            continue;
        out[count++] = &model->feature[i][kind->bin[i]];
        out[count++] = &model->phased[i][kind->bin[i]][phase];
    }
    if (kind->hint) {
        out[count++] = &model->hint[shared != 0][kind->hint];
        out[count++] = &model->hint_phased[shared != 0][kind->hint][phase];
    }
    return count;
}

/* 1 / (1 + e^-z), to 2e-4 of it: 2^x by the bits of its whole part and a cubic for the rest, so
 * that a loop of it becomes vector code. */
static inline float logistic(float z)
{
    float x = -z * 1.442695f;
    x = x > 30 ? 30 : x < -30 ? -30 : x;
    int32_t whole = (int32_t)(x + 64) - 64; /* rounds down: x + 64 is positive */
    float rest = x - (float)whole;
    float power = 1 + rest * (0.6951864f + rest * (0.2273464f + rest * 0.0774672f));
    union {
        int32_t bits;
        float scale;
    } two = {.bits = (whole + 127) * (1 << 23)};
    return 1 / (1 + power * two.scale);
}

void wf_value_learn(struct wf_value_model *model, const struct wf_value_kind *kind, unsigned bucket,
                    bool used)
{
    struct wf_value_weight *term[TERMS_MAX];
    unsigned count = terms(model, kind, bucket, term);
    float z = 0;
    for (unsigned i = 0; i < count; i++)
        z += term[i]->weight;
    model->seen[kind->bin[WF_VALUE_SHARED]][bucket] += 1;
    if (++model->learned >= SMOOTH_EVERY)
        ages_smooth(model);
    float gradient = logistic(z) - (used ? 1 : 0);
    for (unsigned i = 0; i < count; i++) {
        term[i]->squares += gradient * gradient;
        term[i]->weight -= RATE * gradient / sqrtf(term[i]->squares + 1e-8f);
    }
}

/* The part of the odds that does not depend on the bucket but for its phase, a phase. */
static void by_phase(const struct wf_value_model *model, const struct wf_value_kind *kind,
                     unsigned first, float out[WF_VALUE_PHASES])
{
    unsigned shared = kind->bin[WF_VALUE_SHARED] != 0;
    float all = kind->hint ? model->hint[shared][kind->hint].weight : 0;
    for (unsigned i = 0; i < WF_VALUE_FEATURES; i++)
        if (tells(kind, i))
            all += model->feature[i][kind->bin[i]].weight;
    for (unsigned phase = first; phase < WF_VALUE_PHASES; phase++) {
        out[phase] = all + (kind->hint ? model->hint_phased[shared][kind->hint][phase].weight : 0);
        for (unsigned i = 0; i < WF_VALUE_FEATURES; i++)
            if (tells(kind, i))
                out[phase] += model->phased[i][kind->bin[i]][phase].weight;
    }
}

/* The chance of a use in each bucket from `first` to before `end`, if there was none before it. */
static void chances(const struct wf_value_model *model, const struct wf_value_kind *kind,
                    unsigned first, unsigned end, float out[WF_VALUE_BUCKETS])
{
    float odds[WF_VALUE_PHASES];
    const float *by_age = model->by_age[kind->bin[WF_VALUE_SHARED]];
    by_phase(model, kind, model->phase[first], odds);
    for (unsigned i = first; i < end; i++)
        out[i] = odds[model->phase[i]] + by_age[i];
    for (unsigned i = first; i < end; i++)
        out[i] = logistic(out[i]);
}

float wf_value_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                  unsigned bucket, float age_s)
{
    float chance[WF_VALUE_BUCKETS], unused = 1, hits = 0, held_s = 0, best = 0;
    unsigned end = bucket + AHEAD < LOOK_LEAST ? LOOK_LEAST : bucket + AHEAD;
    end = end < WF_VALUE_BUCKETS ? end : WF_VALUE_BUCKETS;
    chances(model, kind, bucket, end, chance);
    for (unsigned i = bucket; i < end; i++) {
        float whole = model->edge[i + 1] - model->edge[i], length = whole, here = chance[i];
        if (i == bucket && age_s > model->edge[i]) {
            length = model->edge[i + 1] > age_s ? model->edge[i + 1] - age_s : 0;
            here *= length / whole;
        }
        hits += unused * here;
        held_s += unused * (1 - here / 2) * length;
        unused *= 1 - here;
        best = hits > best * held_s ? hits / held_s : best;
    }
    return best;
}

float wf_value_chance(const struct wf_value_model *model, const struct wf_value_kind *kind,
                      unsigned bucket)
{
    float chance[WF_VALUE_BUCKETS], unused = 1;
    chances(model, kind, bucket, WF_VALUE_BUCKETS, chance);
    for (unsigned i = bucket; i < WF_VALUE_BUCKETS; i++)
        unused *= 1 - chance[i];
    return 1 - unused;
}
