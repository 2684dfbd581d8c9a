/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary positions (RoFormer, arXiv 2104.09864) put on rows of floats, and taken off again.
 *
 * Keys are kept by engines with their positions turned into them.  A key without its position is
 * much more like its neighbours, so a codec may take the rotation off before it looks at keys,
 * and put it back after decoding.
 *
 * The angle position × frequency is formed and reduced in double, so that it is right to a float's
 * precision at position 10^6 and beyond; the turn itself is in float.  What comes out is the same
 * on every machine: sine and cosine are our own, and nothing is fused.
 *
 * Pure; any thread.
 */
#ifndef WF_CODEC_ROPE_H
#define WF_CODEC_ROPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_ROPE_DIMS_MAX 4096u
#define WF_ROPE_POSITION_MAX (UINT64_C(1) << 40) /* more accurate than floats up to 2^24 */

/* Which two channels turn together, as frequency i turns them. */
enum wf_rope_pairing {
    WF_ROPE_INTERLEAVED, /* 2i and 2i + 1: llama2.c, GPT-J, GGUF of Llama */
    WF_ROPE_HALVES,      /* i and i + dims / 2: GPT-NeoX, Hugging Face */
};

/* Turns the first `dims` channels of a head and leaves the others alone. */
struct wf_rope {
    enum wf_rope_pairing pairing;
    uint32_t dims;             /* even, ≤ head_dim and WF_ROPE_DIMS_MAX; 0: turns nothing */
    const double *frequencies; /* [dims / 2], radians a token, −1 … 1: finite */
};

/* The table of a model without scaling: theta^(−2i / dims), each rounded to float, as engines keep
 * it.  Scaling by position interpolation ("linear"), or "llama3", is another table. */
void wf_rope_frequencies(double theta, uint32_t dims, double *frequencies);

/* Turn rows [tokens][heads][head_dim] as at positions first, first + 1 …, which stay below
 * WF_ROPE_POSITION_MAX; undo() turns them back. */
void wf_rope_redo(const struct wf_rope *rope, uint64_t first, float *rows, uint32_t tokens,
                  uint32_t heads, uint32_t head_dim);
void wf_rope_undo(const struct wf_rope *rope, uint64_t first, float *rows, uint32_t tokens,
                  uint32_t heads, uint32_t head_dim);

/* The sines and cosines of position × frequencies[0 … count − 1]. */
void wf_rope_angles(const double *frequencies, size_t count, uint64_t position, float *cosine,
                    float *sine);

/* The sines and cosines of 16 positions from `first` on: [dims / 2][16] each.  The sines have the
 * sign with which a turn is undone, or done again. */
#define WF_ROPE_LANES 16u
void wf_rope_lanes(const struct wf_rope *rope, bool undo, uint64_t first, float *cosine,
                   float *sine);

/* For tests: as undo and redo, made for a vector width of 4 or 8 floats; false: not here. */
bool wf_rope_turn_width(unsigned width, const struct wf_rope *rope, bool undo, uint64_t first,
                        float *rows, uint32_t tokens, uint32_t heads, uint32_t head_dim);

#endif
