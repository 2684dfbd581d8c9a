/* SPDX-License-Identifier: Apache-2.0
 *
 * Profiles: what was learned of a model's KV, so that a codec may spend bits where they count.
 *
 * A plane's heads are taken in groups of `group_heads`, and the channels of a group together are
 * one vector x of `dims` a token (keys with their rotary positions taken off).  For each group of
 * each plane a profile has a mean, a basis, the typical magnitude of each coefficient in that
 * basis, and a step: the coefficient's error that costs the model's answers as much as any other
 * group's step does (calibrate.h says how that is found).  A profile belongs to a model, not to a
 * domain: it holds averages over a text, and nothing of anyone's tokens.
 *
 * The file, little-endian:
 *
 *     0    +------------------------------------------------------------------+
 *          | struct wf_profile_head, 1024 bytes                               |
 *     1024 +------------------------------------------------------------------+
 *          | frequencies: double [rope_dims / 2]                              |
 *          +------------------------------------------------------------------+
 *          | group 0 of K of layer 0, group 1 …, groups of V of layer 0, …    |
 *          |   step, sensitivity, 0, 0: float [4] | mean: float [dims]        |
 *          |   scale: float [dims] | forward: float [dims][dims]              |
 *          |   inverse: float [dims][dims]                                    |
 *          +------------------------------------------------------------------+
 *
 * A profile in memory does not change; any number of threads may read it.
 */
#ifndef WF_CODEC_PROFILE_H
#define WF_CODEC_PROFILE_H

#include <assert.h>

#include "codec/codec.h"
#include "codec/rope.h"

#define WF_PROFILE_MAGIC UINT64_C(0x3146525054464557) /* "WEFTPRF1" */
#define WF_PROFILE_DIMS_MAX 256u
#define WF_PROFILE_LAYERS_MAX 1024u
#define WF_PROFILE_HEADS_MAX 4096u
#define WF_PROFILE_BYTES_MAX (UINT64_C(1) << 32)
#define WF_PROFILE_SINKS_MAX 64u
#define WF_PROFILE_MODEL_BYTES 512u
#define WF_PROFILE_POINTS 4u /* by enum weft_quality; the first two are not used */

/* Keys of which nobody said how they are turned are taken as they come. */
#define WF_PROFILE_NO_ROPE 255u

/* A setting that was chosen for a quality, and what it was predicted, or seen, to cost on the text
 * of the calibration. */
struct wf_profile_point {
    uint16_t parameter; /* for wf_codec_transform; 0: this quality was not calibrated */
    uint16_t reserved;
    float kl;      /* mean Kullback-Leibler divergence from the exact model, nats a token */
    float ppl_pct; /* change of perplexity, per cent */
    float ratio;
};
static_assert(sizeof(struct wf_profile_point) == 16, "profile format");

struct wf_profile_head {
    uint64_t magic;
    uint64_t checksum; /* XXH3-64 of the file, this field 0; a profile's id */
    uint64_t bytes;    /* of the file */
    uint32_t layers, heads, head_dim, group_heads;
    uint32_t rope_dims;   /* ≤ head_dim; 0 when rope_pairing is WF_PROFILE_NO_ROPE */
    uint8_t rope_pairing; /* enum wf_rope_pairing, or WF_PROFILE_NO_ROPE */
    uint8_t dtype;        /* of the KV that it was made from; bf16, f16 and f32 serve each other */
    uint8_t sinks;        /* so many tokens at the beginning of a sequence are stored exactly */
    uint8_t reserved;
    uint64_t tokens; /* that it was made from */
    struct wf_profile_point points[WF_PROFILE_POINTS];
    char model[WF_PROFILE_MODEL_BYTES]; /* whose it is, as in weft_format_spec; ends in a zero */
    uint8_t zeros[392];
};
static_assert(sizeof(struct wf_profile_head) == 1024, "profile format");

struct wf_profile_group {
    float step;           /* at WF_TRANSFORM_UNIT; > 0 */
    float sensitivity;    /* KL for each unit of squared error; 0: it was not measured */
    const float *mean;    /* [dims] */
    const float *scale;   /* [dims]: mean magnitude of each coefficient; the largest come first */
    const float *forward; /* the coefficients are Σ (x − mean)[i] × row i of it */
    const float *inverse; /* x is mean + Σ coefficient i × row i of it */
};

/* In memory the means, and the columns of matrices, are as many as whole tiles have, the last ones
 * 0; a matrix is tile after tile, each [dims][16].  So whoever forms 16 sums reads one cache line
 * after the other. */
#define WF_PROFILE_TILE 16u

static inline uint32_t wf_profile_padded(uint32_t dims)
{
    return (dims + WF_PROFILE_TILE - 1) / WF_PROFILE_TILE * WF_PROFILE_TILE;
}

/* Floats of a group: mean and scale, and the two matrices.  Groups follow each other in the order
 * of the file, so that so much further is the same of the next one, if it is as large. */
static inline size_t wf_profile_group_floats(uint32_t dims)
{
    return 2 * (size_t)wf_profile_padded(dims) * (1 + dims);
}

static inline float wf_profile_entry(const float *matrix, uint32_t dims, uint32_t row,
                                     uint32_t column)
{
    size_t tile = column / WF_PROFILE_TILE;
    return matrix[(tile * dims + row) * WF_PROFILE_TILE + column % WF_PROFILE_TILE];
}

struct wf_profile {
    struct wf_profile_head head;
    struct wf_rope rope;                  /* .dims 0: none */
    uint32_t groups;                      /* of a plane */
    const struct wf_profile_group *group; /* [layers × 2 × groups] */
    const struct wf_laplace *laplace;     /* the entropy coder's tables (laplace.h) */
    uint64_t id;
    void *memory; /* of frequencies and groups */
};

/* Channels of group `index` of a plane: the last group may have fewer heads. */
static inline uint32_t wf_profile_dims(const struct wf_profile *p, uint32_t index)
{
    uint32_t first = index * p->head.group_heads, left = p->head.heads - first;
    return (left < p->head.group_heads ? left : p->head.group_heads) * p->head.head_dim;
}

static inline const struct wf_profile_group *
wf_profile_group_of(const struct wf_profile *p, uint32_t layer, bool value, uint32_t index)
{
    return &p->group[((size_t)layer * 2 + value) * p->groups + index];
}

/* Can a file of so many bytes, which begins with these, be a profile?  `begin` has the file's first
 * sizeof(struct wf_profile_head) bytes, or all of them when it has less.  Asked before a file is
 * read whole, so that only what can be one takes memory.  Statuses like wf_profile_parse()'s. */
enum weft_status wf_profile_begins(const void *begin, uint64_t bytes);
/* Take a file's bytes, which are copied.  WEFT_E_CORRUPT or WEFT_E_INVALID with a sentence: every
 * size and every number in it is checked. */
enum weft_status wf_profile_parse(const void *bytes, size_t count, struct wf_profile **out);
void wf_profile_destroy(struct wf_profile *profile);

/* Bytes of the file of such a profile; 0: no such profile can be. */
uint64_t wf_profile_file_bytes(const struct wf_profile_head *head);
/* Fill in checksum and bytes, after the rest was written; returns the id. */
uint64_t wf_profile_seal(void *file, uint64_t bytes);
/* Where the numbers of a group lie in a file, in the order drawn above. */
uint64_t wf_profile_group_offset(const struct wf_profile_head *head, uint32_t layer, bool value,
                                 uint32_t index);

/* Text that may be shown, and not too long; WEFT_E_INVALID leaves a sentence that starts with
 * `what`. */
enum weft_status wf_profile_model_check(const char *what, const char *model);

/* May planes of such blocks be coded by it? */
bool wf_profile_fits(const struct wf_profile *profile, const struct wf_plane *plane);
/* Does its bound hold for numbers of `dtype`?  What was rounded to fewer bits than the calibration
 * saw is not within it any more. */
bool wf_profile_rounds_alike(const struct wf_profile_head *head, uint32_t dtype);

#endif
