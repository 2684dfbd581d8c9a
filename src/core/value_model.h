/* SPDX-License-Identifier: Apache-2.0
 *
 * When will this be wanted again?  A model that learns from each answer.
 *
 * What one request touched last lives or dies together, so what is predicted is a run of blocks (a
 * segment) and not a block.  Ages are cut into buckets, two an octave.  For each bucket the model
 * gives the odds that the segment is used while its age is in there, if it was not before: a
 * logistic hazard (D. R. Cox, "Regression models and life-tables", 1972, in discrete time) whose
 * terms are the bucket itself, and of each feature a weight for all ages and one for each phase of
 * two octaves' age.  The weights are learned online by gradient steps with AdaGrad's rates (Duchi
 * et al., 2011): a segment that leaves a bucket unused is an example of no, a use one of yes.
 * Features are few and coarse and their weights begin at nothing, so that a kind of which little
 * was seen is taken to be like the others.
 *
 * The value of a segment is the best rate of hits that keeping it can give: over all horizons
 * ahead, the chance of a use before it, over the time that the blocks are held until the use or the
 * horizon.  (Hit density: N. Beckmann et al., "LHD", NSDI 2018; the best stopping time: J. C.
 * Gittins, 1979.)
 *
 * No I/O, no clock.  One thread.  All arithmetic is in float, in a fixed order.
 */
#ifndef WF_CORE_VALUE_MODEL_H
#define WF_CORE_VALUE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define WF_VALUE_BUCKETS 36u /* up to two days */
#define WF_VALUE_PHASES 9u

/* A segment's features, each a small number: which bin of its kind it falls into. */
enum wf_value_feature {
    WF_VALUE_TURN = 0, /* requests that the chain had before: 0 to 6 and more */
    WF_VALUE_LENGTH,   /* blocks of the chain, by octaves */
    WF_VALUE_OUTPUT,   /* tokens that the request made, by octaves; 0: not known */
    WF_VALUE_GAP,      /* since the request before it in the chain, by octaves; 0: there is none */
    WF_VALUE_FRESH,    /* blocks that were new, by octaves */
    WF_VALUE_SHARED,   /* chains that branch off here: none, up to 3, up to 10, more */
    WF_VALUE_SHARED_GAP, /* of what is shared: since its use before, by octaves */
    WF_VALUE_SHARED_USES,
    WF_VALUE_LEFT, /* a request used its beginning and went on elsewhere: 1 */
    WF_VALUE_FEATURES,
};
#define WF_VALUE_BINS 24u
#define WF_VALUE_BITS 36u /* in which all of a kind's bins fit */
#define WF_VALUE_HINTS 3u /* none, wanted, done */

struct wf_value_kind {
    uint8_t bin[WF_VALUE_FEATURES];
    uint8_t hint;
};

/* The weights of one thing that is known of a segment: a weight for each phase of its age, and one
 * for all ages. */
#define WF_VALUE_ALL_AGES WF_VALUE_PHASES
#define WF_VALUE_ROW 12u /* so that rows are whole vectors */
struct wf_value_row {
    float weight[WF_VALUE_ROW], squares[WF_VALUE_ROW]; /* squares: of the gradients so far */
};

struct wf_value_weight {
    float weight, squares;
};

struct wf_value_model {
    float edge[WF_VALUE_BUCKETS + 1]; /* seconds; bucket i is edge[i] to edge[i + 1] */
    uint8_t phase[WF_VALUE_BUCKETS];
    struct wf_value_weight age[WF_VALUE_BUCKETS];
    struct wf_value_weight shared_age[4][WF_VALUE_BUCKETS];
    float seen[4][WF_VALUE_BUCKETS];   /* examples, by how many share */
    float by_age[4][WF_VALUE_BUCKETS]; /* both weights of age; where little was seen, those of the
                                          younger */
    uint32_t learned;                  /* examples since by_age was made */
    struct wf_value_row feature[WF_VALUE_FEATURES][WF_VALUE_BINS];
    struct wf_value_row hint[2][WF_VALUE_HINTS]; /* of what is not shared, and of what is */
};

#define WF_VALUE_ODDS_AT_FIRST \
    (-3.0f) /* of a use in half an octave of age, before anything was seen */
#define WF_VALUE_PRIOR_PARTS 16
extern const int8_t wf_value_prior_age[5][WF_VALUE_BUCKETS]; /* all, and by how many share */
extern const uint8_t wf_value_prior_seen[4][WF_VALUE_BUCKETS];
extern const int8_t wf_value_prior_feature[WF_VALUE_FEATURES][WF_VALUE_BINS][WF_VALUE_PHASES + 1];

/* A model that knows nothing, and one that knows what another trace taught (value_prior.c), as if
 * it had seen it once or twice. */
void wf_value_model_init(struct wf_value_model *model);
void wf_value_model_init_known(struct wf_value_model *model);

/* A segment of this kind was, or was not, used while its age was in `bucket`. */
void wf_value_learn(struct wf_value_model *model, const struct wf_value_kind *kind, unsigned bucket,
                    bool used);

/* Its value at an age in `bucket`: expected hits a second for each of its blocks. */
float wf_value_of(const struct wf_value_model *model, const struct wf_value_kind *kind,
                  unsigned bucket, float age_s);

/* The chance that it is used again before its last bucket ends. */
float wf_value_chance(const struct wf_value_model *model, const struct wf_value_kind *kind,
                      unsigned bucket);

/* The bin of a count or of seconds by octaves: 0 below 1, 1 up to 2, 2 up to 4 ... */
uint8_t wf_value_octave(double x);

#endif
