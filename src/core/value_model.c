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
#define SMOOTH_EVERY 256u
#define AHEAD 8u       /* buckets that a value looks ahead: sixteen times the age */
#define STRIDE 8u      /* buckets at once */
#define LOOK_LEAST 26u /* but to an age of an hour and a half in any case */
#define ROWS_MAX 8u
#define TERMS_MAX 20u /* two a row and two of the age, in whole vectors */

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
static const uint8_t of_own[] = {WF_VALUE_TURN,  WF_VALUE_LENGTH, WF_VALUE_OUTPUT, WF_VALUE_GAP,
                                 WF_VALUE_FRESH, WF_VALUE_SHARED, WF_VALUE_LEFT};
static const uint8_t of_shared[] = {WF_VALUE_SHARED, WF_VALUE_SHARED_GAP, WF_VALUE_SHARED_USES,
                                    WF_VALUE_LEFT};

/* The rows of what is known of it. */
static unsigned rows_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                        const struct wf_value_row *out[ROWS_MAX])
{
    bool shared = kind->bin[WF_VALUE_SHARED] != 0;
    const uint8_t *features = shared ? of_shared : of_own;
    unsigned count = shared ? sizeof of_shared : sizeof of_own;
    for (unsigned i = 0; i < count; i++)
        out[i] = &model->feature[features[i]][kind->bin[features[i]]];
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

/* Those that an example touches, side by side, so that loops over them become vector code. */
struct terms {
    float weight[TERMS_MAX], squares[TERMS_MAX];
};

static unsigned gather(const struct wf_value_row *const rows[ROWS_MAX], unsigned count,
                       unsigned phase, struct terms *out)
{
    for (unsigned i = 0; i < count; i++) {
        out->weight[2 * i] = rows[i]->weight[phase];
        out->weight[2 * i + 1] = rows[i]->weight[WF_VALUE_ALL_AGES];
        out->squares[2 * i] = rows[i]->squares[phase];
        out->squares[2 * i + 1] = rows[i]->squares[WF_VALUE_ALL_AGES];
    }
    return 2 * count;
}

/* AdaGrad's. */
static void step(struct terms *terms, float gradient)
{
    for (unsigned i = 0; i < TERMS_MAX; i++) {
        terms->squares[i] += gradient * gradient;
        terms->weight[i] -= RATE * gradient / sqrtf(terms->squares[i] + 1e-8f);
    }
}

void wf_value_learn(struct wf_value_model *model, const struct wf_value_kind *kind, unsigned bucket,
                    bool used)
{
    const struct wf_value_row *rows[ROWS_MAX];
    struct terms terms;
    unsigned phase = model->phase[bucket], shared = kind->bin[WF_VALUE_SHARED];
    unsigned count = rows_of(model, kind, rows), in_rows = gather(rows, count, phase, &terms);
    struct wf_value_weight *age = &model->age[bucket], *own = &model->shared_age[shared][bucket];
    terms.weight[in_rows] = age->weight;
    terms.squares[in_rows] = age->squares;
    terms.weight[in_rows + 1] = own->weight;
    terms.squares[in_rows + 1] = own->squares;
    for (unsigned i = in_rows + 2; i < TERMS_MAX; i++)
        terms.weight[i] = terms.squares[i] = 0;
    float z = 0;
    for (unsigned i = 0; i < TERMS_MAX; i++)
        z += terms.weight[i];
    model->seen[shared][bucket] += 1;
    if (++model->learned >= SMOOTH_EVERY)
        ages_smooth(model);
    step(&terms, logistic(z) - (used ? 1 : 0));
    for (unsigned i = 0; i < count; i++) {
        struct wf_value_row *row = (struct wf_value_row *)(uintptr_t)rows[i];
        row->weight[phase] = terms.weight[2 * i];
        row->weight[WF_VALUE_ALL_AGES] = terms.weight[2 * i + 1];
        row->squares[phase] = terms.squares[2 * i];
        row->squares[WF_VALUE_ALL_AGES] = terms.squares[2 * i + 1];
    }
    *age = (struct wf_value_weight){terms.weight[in_rows], terms.squares[in_rows]};
    *own = (struct wf_value_weight){terms.weight[in_rows + 1], terms.squares[in_rows + 1]};
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

/* The chance of a use in each of STRIDE buckets from `first` on, if there was none before it. */
static void chances(const struct wf_value_model *model, const struct wf_value_kind *kind,
                    const float odds[WF_VALUE_ROW], unsigned first, float out[STRIDE])
{
    const float *by_age = model->by_age[kind->bin[WF_VALUE_SHARED]] + first;
    float z[STRIDE];
    for (unsigned i = 0; i < STRIDE; i++)
        z[i] = odds[model->phase[first + i]] + by_age[i];
    for (unsigned i = 0; i < STRIDE; i++)
        out[i] = logistic(z[i]);
}

/* It looks no further than more hits could still raise the rate. */
float wf_value_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                  unsigned bucket, float age_s)
{
    float odds[WF_VALUE_ROW], chance[STRIDE], unused = 1, hits = 0, held_s = 0, best = 0;
    unsigned end = bucket + AHEAD < LOOK_LEAST ? LOOK_LEAST : bucket + AHEAD;
    end = end < WF_VALUE_BUCKETS ? end : WF_VALUE_BUCKETS;
    by_phase(model, kind, odds);
    for (unsigned first = bucket; first < end; first += STRIDE) {
        unsigned from = first + STRIDE < WF_VALUE_BUCKETS ? first : WF_VALUE_BUCKETS - STRIDE;
        chances(model, kind, odds, from, chance);
        for (unsigned i = first; i < end && i < first + STRIDE; i++) {
            float whole = model->edge[i + 1] - model->edge[i], length = whole;
            float here = chance[i - from];
            if (i == bucket && age_s > model->edge[i]) {
                length = model->edge[i + 1] > age_s ? model->edge[i + 1] - age_s : 0;
                here *= length / whole;
            }
            hits += unused * here;
            held_s += unused * (1 - here / 2) * length;
            unused *= 1 - here;
            best = hits > best * held_s ? hits / held_s : best;
        }
        if (hits + unused <= best * held_s)
            break;
    }
    return best;
}

float wf_value_chance(const struct wf_value_model *model, const struct wf_value_kind *kind,
                      unsigned bucket)
{
    float odds[WF_VALUE_ROW], unused = 1;
    const float *by_age = model->by_age[kind->bin[WF_VALUE_SHARED]];
    by_phase(model, kind, odds);
    for (unsigned i = bucket; i < WF_VALUE_BUCKETS; i++)
        unused *= 1 - logistic(odds[model->phase[i]] + by_age[i]);
    return 1 - unused;
}
