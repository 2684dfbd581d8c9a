/* SPDX-License-Identifier: Apache-2.0 */
#include "core/value_model.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define FIRST_EDGE_S 1.0f
#define RATE 0.1f
#define HINT_AT_FIRST 2.0f
#define SEEN_LITTLE 20.0f /* examples */
#define DECLINE 0.7f /* of the odds, from one bucket to the next, as long as nothing is known */
#define SMOOTH_EVERY 64u
#define AHEAD 8u       /* buckets that a value looks ahead: sixteen times the age */
#define LOOK_LEAST 26u /* but to an age of an hour and a half in any case */
#define ROWS_MAX (WF_VALUE_FEATURES + 1u)

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
        float before = WF_VALUE_ODDS_AT_FIRST;
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
        model->age[i].weight = WF_VALUE_ODDS_AT_FIRST;
    }
    for (unsigned shared = 0; shared < 2; shared++) {
        model->hint[shared][1].weight[WF_VALUE_ALL_AGES] = HINT_AT_FIRST;
        model->hint[shared][2].weight[WF_VALUE_ALL_AGES] = -HINT_AT_FIRST;
    }
    ages_smooth(model);
}

static struct wf_value_weight known(int8_t parts)
{
    return (struct wf_value_weight){(float)parts / WF_VALUE_PRIOR_PARTS, parts ? 1 : 0};
}

void wf_value_model_init_known(struct wf_value_model *model)
{
    wf_value_model_init(model);
    for (unsigned i = 0; i < WF_VALUE_BUCKETS; i++) {
        model->age[i] = known(wf_value_prior_age[0][i]);
        model->age[i].weight += WF_VALUE_ODDS_AT_FIRST;
        for (unsigned shared = 0; shared < 4; shared++) {
            model->shared_age[shared][i] = known(wf_value_prior_age[shared + 1][i]);
            model->seen[shared][i] = wf_value_prior_seen[shared][i];
        }
    }
    for (unsigned f = 0; f < WF_VALUE_FEATURES; f++)
        for (unsigned bin = 0; bin < WF_VALUE_BINS; bin++)
            for (unsigned k = 0; k <= WF_VALUE_ALL_AGES; k++) {
                struct wf_value_weight w = known(wf_value_prior_feature[f][bin][k]);
                model->feature[f][bin].weight[k] = w.weight;
                model->feature[f][bin].squares[k] = w.squares;
            }
    ages_smooth(model);
}

/* What is said of a chain's end says little of what many chains share. */
static bool tells(bool shared, unsigned feature)
{
    bool of_shared = feature == WF_VALUE_SHARED_GAP || feature == WF_VALUE_SHARED_USES;
    return feature == WF_VALUE_SHARED || feature == WF_VALUE_LEFT || of_shared == shared;
}

/* The rows of what is known of it. */
static unsigned rows_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                        const struct wf_value_row *out[ROWS_MAX])
{
    unsigned count = 0;
    bool shared = kind->bin[WF_VALUE_SHARED] != 0;
    for (unsigned i = 0; i < WF_VALUE_FEATURES; i++)
        if (tells(shared, i))
            out[count++] = &model->feature[i][kind->bin[i]];
    if (kind->hint)
        out[count++] = &model->hint[shared][kind->hint];
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

/* 1 / sqrt(x) to a part of 600: by the bits of x, and one step of Newton's. */
static inline float inverse_root(float x)
{
    union {
        float value;
        uint32_t bits;
    } guess = {.value = x};
    guess.bits = 0x5f3759df - (guess.bits >> 1);
    return guess.value * (1.5f - 0.5f * x * guess.value * guess.value);
}

static inline void step(float *weight, float *squares, float gradient, float rate)
{
    *squares += gradient * gradient;
    *weight -= rate * gradient * inverse_root(*squares + 1e-8f);
}

void wf_value_learn(struct wf_value_model *model, const struct wf_value_kind *kind, unsigned bucket,
                    bool used)
{
    const struct wf_value_row *found[ROWS_MAX];
    unsigned phase = model->phase[bucket], shared = kind->bin[WF_VALUE_SHARED];
    unsigned count = rows_of(model, kind, found);
    struct wf_value_weight *age = &model->age[bucket], *own = &model->shared_age[shared][bucket];
    float z = age->weight + own->weight;
    for (unsigned i = 0; i < count; i++)
        z += found[i]->weight[phase] + found[i]->weight[WF_VALUE_ALL_AGES];
    model->seen[shared][bucket] += 1;
    if (++model->learned >= SMOOTH_EVERY)
        ages_smooth(model);
    float gradient = logistic(z) - (used ? 1 : 0);
    step(&age->weight, &age->squares, gradient, RATE);
    step(&own->weight, &own->squares, gradient, RATE);
    for (unsigned i = 0; i < count; i++) {
        struct wf_value_row *row = (struct wf_value_row *)(uintptr_t)found[i];
        step(&row->weight[phase], &row->squares[phase], gradient, RATE);
        step(&row->weight[WF_VALUE_ALL_AGES], &row->squares[WF_VALUE_ALL_AGES], gradient, RATE);
    }
}

/* The part of the odds that does not depend on the bucket but for its phase, a phase. */
static void by_phase(const struct wf_value_model *model, const struct wf_value_kind *kind,
                     float out[WF_VALUE_ROW])
{
    const struct wf_value_row *row[ROWS_MAX];
    unsigned count = rows_of(model, kind, row);
    memcpy(out, row[0]->weight, sizeof row[0]->weight);
    for (unsigned i = 1; i < count; i++)
        for (unsigned k = 0; k < WF_VALUE_ROW; k++)
            out[k] += row[i]->weight[k];
    for (unsigned k = 0; k < WF_VALUE_PHASES; k++)
        out[k] += out[WF_VALUE_ALL_AGES];
}

/* The chance of a use in each bucket from `first` to before `end`, if there was none before it. */
static void chances(const struct wf_value_model *model, const struct wf_value_kind *kind,
                    unsigned first, unsigned end, float out[WF_VALUE_BUCKETS])
{
    float odds[WF_VALUE_ROW];
    const float *by_age = model->by_age[kind->bin[WF_VALUE_SHARED]];
    by_phase(model, kind, odds);
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
