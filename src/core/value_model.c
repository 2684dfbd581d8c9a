/* SPDX-License-Identifier: Apache-2.0 */
#include "core/value_model.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define FIRST_EDGE_S 0.25f
#define RATE 0.1f
#define ODDS_AT_FIRST -3.0f /* of a use in half an octave of age, before anything was seen */
#define HINT_AT_FIRST 1.0f
#define TERMS_MAX (2u + 2u * (WF_VALUE_FEATURES + 1u))

uint8_t wf_value_octave(double x)
{
    if (!(x >= 1))
        return 0;
    int exponent;
    (void)frexp(x, &exponent); /* x = m · 2^exponent, m in [1/2, 1) */
    return (uint8_t)(exponent < (int)WF_VALUE_BINS ? exponent : (int)WF_VALUE_BINS - 1);
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

static float logistic(float z)
{
    return 1 / (1 + expf(-z));
}

void wf_value_learn(struct wf_value_model *model, const struct wf_value_kind *kind, unsigned bucket,
                    bool used)
{
    struct wf_value_weight *term[TERMS_MAX];
    unsigned count = terms(model, kind, bucket, term);
    float z = 0;
    for (unsigned i = 0; i < count; i++)
        z += term[i]->weight;
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

float wf_value_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                  unsigned bucket, float age_s)
{
    float odds[WF_VALUE_PHASES], unused = 1, hits = 0, held_s = 0, best = 0;
    const struct wf_value_weight *shared_age = model->shared_age[kind->bin[WF_VALUE_SHARED]];
    by_phase(model, kind, model->phase[bucket], odds);
    for (unsigned i = bucket; i < WF_VALUE_BUCKETS && unused > 1e-3f; i++) {
        float whole = model->edge[i + 1] - model->edge[i];
        float length = i == bucket && age_s > model->edge[i] ? model->edge[i + 1] - age_s : whole;
        if (length <= 0)
            continue;
        float chance = logistic(odds[model->phase[i]] + model->age[i].weight +
                                shared_age[i].weight);
        chance *= length / whole;
        hits += unused * chance;
        held_s += unused * (1 - chance / 2) * length;
        unused *= 1 - chance;
        best = hits > best * held_s ? hits / held_s : best;
    }
    return best;
}

float wf_value_chance(const struct wf_value_model *model, const struct wf_value_kind *kind,
                      unsigned bucket)
{
    float odds[WF_VALUE_PHASES], unused = 1;
    const struct wf_value_weight *shared_age = model->shared_age[kind->bin[WF_VALUE_SHARED]];
    by_phase(model, kind, model->phase[bucket], odds);
    for (unsigned i = bucket; i < WF_VALUE_BUCKETS; i++)
        unused *= 1 - logistic(odds[model->phase[i]] + model->age[i].weight + shared_age[i].weight);
    return 1 - unused;
}
