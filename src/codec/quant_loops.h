/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of quant_kernel.h for one vector width.  quant_kernel.c includes it once a width, with
 *
 *   WIDTH    names what comes out: load_WIDTH and so on
 *   TARGET   the function attribute that allows the instructions, or nothing
 *
 * and with what differs between the widths before it: from_f16, to_f16, to_bf16, restore,
 * transpose_16, gather, plane_of, codes_of.
 *
 * Plain loops along the lanes, which compilers make vector code of.
 */
#define PASTE2(name, width) name##_##width
#define PASTE(name, width) PASTE2(name, width)
#define NAME(name) PASTE(name, WIDTH)
#define INLINE static inline __attribute__((always_inline)) TARGET

TARGET static void NAME(load)(enum weft_dtype dtype, const void *from, size_t count,
                              float *restrict out, float *highest)
{
    if (dtype == WEFT_BF16) {
        const uint16_t *halves = from;
        for (size_t i = 0; i < count; i++)
            out[i] = wf_bf16_float(halves[i]);
    } else if (dtype == WEFT_F16) {
        NAME(from_f16)(from, count, out);
    } else if (dtype == WEFT_FP8_E4M3) {
        const uint8_t *bytes = from;
        for (size_t i = 0; i < count; i++) {
            uint32_t rest = bytes[i] & 0x7f, sign = (uint32_t)(bytes[i] & 0x80) << 24;
            /* Exponents differ by 120, subnormals or not. */
            uint32_t bits = wf_float_bits(wf_bits_float(rest << 20) * 0x1p120f);
            out[i] = wf_bits_float((rest == 0x7f ? 0x7fc00000 : bits) | sign);
        }
    } else {
        wf_floats_of(dtype, from, count, out);
    }
    uint32_t most = 0; /* of magnitudes, which are in order as numbers are */
    for (size_t i = 0; i < count; i++) {
        uint32_t magnitude = wf_float_bits(out[i]) & 0x7fffffff;
        most = magnitude > most ? magnitude : most;
    }
    most = most > 0x7f800000 ? 0x7f800000 : most;
    if (wf_bits_float(most) > *highest)
        *highest = wf_bits_float(most);
}

INLINE float NAME(clamp)(float value, float limit)
{
    value = value < limit ? value : limit;
    return value > -limit ? value : -limit;
}

/* Of magnitudes up to 448. */
INLINE void NAME(to_e4m3)(const float *restrict from, size_t count, uint8_t *restrict bytes)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = wf_float_bits(from[i]), rest = bits & 0x7fffffff;
        uint32_t normal = (rest - (120u << 23) + 0x7ffff + (rest >> 20 & 1)) >> 20;
        /* 2^14 has its last bit where e4m3's subnormals have it. */
        uint32_t small = wf_float_bits(wf_bits_float(rest) + 0x1p14f) - wf_float_bits(0x1p14f);
        bytes[i] = (uint8_t)((rest < 121u << 23 ? small : normal) | (bits >> 24 & 0x80));
    }
}

TARGET static void NAME(store)(enum weft_dtype dtype, const float *restrict from, size_t count,
                               float scale, void *restrict out)
{
    if (dtype == WEFT_BF16) {
        NAME(to_bf16)(from, count, scale, out);
        return;
    }
    float limit = dtype == WEFT_F32        ? 0x1.fffffep127f
                  : dtype == WEFT_F16      ? 65504.0f
                  : dtype == WEFT_FP8_E4M3 ? 448.0f
                                           : 57344.0f;
    size_t size = weft_dtype_bytes(dtype);
    for (size_t begin = 0; begin < count; begin += WF_CELL_LANES) {
        size_t some = count - begin < WF_CELL_LANES ? count - begin : WF_CELL_LANES;
        float scaled[WF_CELL_LANES];
        for (size_t i = 0; i < some; i++)
            scaled[i] = NAME(clamp)(from[begin + i] * scale, limit);
        void *to = (uint8_t *)out + begin * size;
        if (dtype == WEFT_F16)
            NAME(to_f16)(scaled, some, to);
        else if (dtype == WEFT_FP8_E4M3)
            NAME(to_e4m3)(scaled, some, to);
        else
            wf_floats_to(dtype, scaled, some, to);
    }
}

TARGET static void NAME(measure)(const float *restrict tile, size_t samples, size_t lanes,
                                 bool centred, struct wf_lane_stats *restrict stats)
{
    for (size_t l = 0; l < lanes; l++) {
        stats->low[l] = stats->high[l] = tile[l];
        stats->mean[l] = stats->variance[l] = 0;
    }
    for (size_t s = 0; s < samples; s++) {
        const float *row = tile + s * WF_TILE_STRIDE;
        for (size_t l = 0; l < lanes; l++) {
            float x = row[l];
            stats->low[l] = x < stats->low[l] ? x : stats->low[l];
            stats->high[l] = x > stats->high[l] ? x : stats->high[l];
            stats->mean[l] += x;
        }
    }
    float each = centred ? 1.0f / (float)samples : 0.0f;
    for (size_t l = 0; l < lanes; l++)
        stats->mean[l] *= each;
    for (size_t s = 0; s < samples; s++) {
        const float *row = tile + s * WF_TILE_STRIDE;
        for (size_t l = 0; l < lanes; l++) {
            float off = row[l] - stats->mean[l];
            stats->variance[l] += off * off;
        }
    }
    each = 1.0f / (float)samples;
    for (size_t l = 0; l < lanes; l++)
        stats->variance[l] *= each;
}

TARGET static uint32_t NAME(count_reached)(const float *restrict variance, size_t lanes,
                                           const float *restrict thresholds,
                                           uint8_t *restrict counts)
{
    uint32_t sum = 0;
    for (size_t begin = 0; begin < lanes; begin += 64) {
        uint32_t reached[64] = {0};
        for (unsigned k = 0; k < WF_CELL_WIDTH_MAX; k++)
            for (size_t l = 0; l < 64; l++)
                reached[l] += variance[begin + l] >= thresholds[k];
        for (size_t l = 0; l < 64; l++) {
            counts[begin + l] = (uint8_t)reached[l];
            sum += reached[l];
        }
    }
    return sum;
}

/* The nearest code, as a float. */
INLINE float NAME(code_of)(float x, float base, float inverse, float most)
{
    float place = (x - base) * inverse;
    place = place > 0.0f ? place : 0.0f;
    place = place < most ? place : most;
    return (place + WHOLE) - WHOLE;
}

INLINE void NAME(inverses)(const struct wf_lane_steps *steps, size_t lanes, float *inverse)
{
    for (size_t l = 0; l < lanes; l++)
        inverse[l] = 1.0f / steps->step[l];
}

TARGET static void NAME(try_steps)(const float *restrict tile, size_t samples, size_t lanes,
                                   const struct wf_lane_steps *restrict steps,
                                   float *restrict square, float *restrict sum)
{
    float inverse[WF_CELL_LANES];
    NAME(inverses)(steps, lanes, inverse);
    for (size_t l = 0; l < lanes; l++)
        square[l] = sum[l] = 0.0f;
    for (size_t s = 0; s < samples; s++) {
        const float *row = tile + s * WF_TILE_STRIDE;
        for (size_t l = 0; l < lanes; l++) {
            float code = NAME(code_of)(row[l], steps->base[l], inverse[l], steps->most[l]);
            float error = row[l] - (steps->base[l] + code * steps->step[l]);
            square[l] += error * error;
            sum[l] += error;
        }
    }
}

TARGET static void NAME(set_steps)(const struct wf_lane_fit *restrict fit, size_t lanes,
                                   struct wf_lane_steps *restrict steps)
{
    for (size_t l = 0; l < lanes; l++) {
        steps->step[l] = fit->finest * fit->notches[fit->notch[l]];
        steps->base[l] = fit->zero[l] - 0.5f * steps->most[l] * steps->step[l];
    }
}

/* The notches from which a step of most codes spans the range. */
INLINE void NAME(spanning)(const struct wf_lane_fit *restrict fit, size_t lanes,
                           const float *restrict most, int32_t *restrict notch)
{
    for (size_t l = 0; l < lanes; l++)
        notch[l] = 0;
    for (size_t n = 0; n < WF_NOTCHES - 1; n++) {
        float step = fit->finest * fit->notches[n];
        for (size_t l = 0; l < lanes; l++)
            notch[l] += most[l] > 0 && step * most[l] < fit->range[l];
    }
}

TARGET static void NAME(fit_steps)(const float *restrict tile, size_t samples, size_t lanes,
                                   struct wf_lane_fit *restrict fit,
                                   struct wf_lane_steps *restrict steps)
{
    int32_t widest[WF_CELL_LANES], best[WF_CELL_LANES];
    float square[WF_CELL_LANES], sum[WF_CELL_LANES];
    NAME(spanning)(fit, lanes, steps->most, widest);
    for (size_t k = 0; k < CANDIDATES; k++) {
        for (size_t l = 0; l < lanes; l++) {
            int32_t below = steps->most[l] <= 1   ? tried[0][k]
                            : steps->most[l] <= 7 ? tried[1][k]
                                                  : tried[2][k];
            fit->notch[l] = widest[l] > below ? widest[l] - below : 0;
        }
        NAME(set_steps)(fit, lanes, steps);
        NAME(try_steps)(tile, samples, lanes, steps, square, sum);
        for (size_t l = 0; l < lanes; l++) {
            bool better = k == 0 || square[l] < fit->square[l];
            fit->square[l] = better ? square[l] : fit->square[l];
            fit->sum[l] = better ? sum[l] : fit->sum[l];
            best[l] = better ? fit->notch[l] : best[l];
        }
    }
    memcpy(fit->notch, best, lanes * sizeof best[0]);
    NAME(set_steps)(fit, lanes, steps);
}

TARGET static void NAME(quantise)(const float *restrict tile, size_t samples, size_t lanes,
                                  const struct wf_lane_steps *restrict steps,
                                  uint8_t *restrict codes)
{
    float inverse[WF_CELL_LANES];
    NAME(inverses)(steps, lanes, inverse);
    for (size_t s = 0; s < samples; s++) {
        const float *row = tile + s * WF_TILE_STRIDE;
        uint8_t *out = codes + s * WF_CELL_LANES;
        for (size_t l = 0; l < lanes; l++)
            out[l] = (uint8_t)(int)NAME(code_of)(row[l], steps->base[l], inverse[l],
                                                 steps->most[l]);
    }
}

/* A row of codes becomes elements at once. */
TARGET static void NAME(emit)(enum weft_dtype dtype, const uint8_t *restrict codes, size_t count,
                              const struct wf_lane_steps *restrict steps, float scale,
                              void *restrict out)
{
    float row[WF_CELL_LANES] __attribute__((aligned(64)));
    NAME(restore)(codes, (count + 15) & ~(size_t)15, steps->base, steps->step, row);
    NAME(store)(dtype, row, count, scale, out);
}

/* Rows a and b, `half` apart, and those a quarter on, through two stages. */
INLINE void NAME(two_stages)(float *restrict a, float *restrict b, float *restrict c,
                             float *restrict d, size_t lanes)
{
    for (size_t l = 0; l < lanes; l++) {
        float ab = a[l] + b[l], a_b = a[l] - b[l], cd = c[l] + d[l], c_d = c[l] - d[l];
        a[l] = ab + cd;
        b[l] = a_b + c_d;
        c[l] = ab - cd;
        d[l] = a_b - c_d;
    }
}

/* `lanes` and `stride` are constants wherever this is inlined. */
INLINE void NAME(turn)(float *tile, size_t samples, size_t lanes, const size_t stride)
{
    size_t near = 1;
    for (; near * 4 <= samples; near *= 4)
        for (size_t block = 0; block < samples; block += 4 * near)
            for (size_t s = block; s < block + near; s++) {
                float *row = tile + s * stride;
                NAME(two_stages)
                (row, row + near * stride, row + 2 * near * stride, row + 3 * near * stride, lanes);
            }
    for (size_t s = 0; near < samples && s < near; s++) {
        float *restrict a = tile + s * stride, *restrict b = a + near * stride;
        for (size_t l = 0; l < lanes; l++) {
            float x = a[l], y = b[l];
            a[l] = x + y;
            b[l] = x - y;
        }
    }
}

TARGET static void NAME(hadamard)(float *tile, size_t samples, size_t lanes)
{
    NAME(turn)(tile, samples, lanes, WF_TILE_STRIDE);
}

TARGET static void NAME(transpose)(const float *restrict from, size_t from_stride, size_t rows,
                                   size_t columns, float *restrict to, size_t to_stride)
{
    size_t whole_rows = rows & ~(size_t)15, whole_columns = columns & ~(size_t)15;
    for (size_t r = 0; r < whole_rows; r += 16)
        for (size_t c = 0; c < whole_columns; c += 16)
            NAME(transpose_16)
    (from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = r < whole_rows ? whole_columns : 0; c < columns; c++)
            to[c * to_stride + r] = from[r * from_stride + c];
}

TARGET static void NAME(turn_out)(const uint8_t *restrict codes, size_t samples,
                                  const struct wf_lane_steps *restrict steps, size_t lane,
                                  float *restrict out)
{
    float tile[WF_CELL_SAMPLES * WF_TURN_LANES] __attribute__((aligned(64)));
    for (size_t s = 0; s < samples; s++)
        NAME(restore)
    (codes + s * WF_CELL_LANES + lane, WF_TURN_LANES, steps->base + lane, steps->step + lane,
     tile + s * WF_TURN_LANES);
    NAME(turn)(tile, samples, WF_TURN_LANES, WF_TURN_LANES);
    for (size_t s = 0; s < samples; s += 16)
        NAME(transpose_16)(tile + s * WF_TURN_LANES, WF_TURN_LANES, out + s, WF_CELL_SAMPLES);
}

TARGET static void NAME(pack)(const uint8_t *codes, size_t samples, const struct wf_cell_bits *bits,
                              uint8_t *out)
{
    struct bit_writer writer = {out, 0, 0};
    for (size_t s = 0; s < samples; s++)
        for (size_t w = 0; w < WF_CELL_WORDS; w++)
            for (unsigned p = 0; p < bits->planes[w]; p++) {
                uint64_t mask = bits->mask[w][p];
                uint64_t plane = NAME(plane_of)(codes + s * WF_CELL_LANES + 64 * w, p);
                put_bits(&writer, NAME(gather)(plane, mask), popcount(mask));
            }
    put_rest(&writer);
}

TARGET static void NAME(unpack)(const uint8_t *in, size_t samples, size_t lanes,
                                const struct wf_cell_bits *bits, uint8_t *codes)
{
    size_t bytes = wf_cell_bits_bytes(bits, samples);
    uint8_t tail[WF_CELL_LANES + 32] = {0};
    for (size_t s = 0; s < samples; s++) {
        size_t at = s * bits->row, row_bytes = (at % 8 + bits->row + 7) / 8;
        const uint8_t *row = in + at / 8;
        /* Reads go up to nine bytes on from the byte of a bit: the last rows from a copy. */
        if (bytes - at / 8 < row_bytes + 16) {
            memcpy(tail, row, row_bytes);
            row = tail;
        }
        for (size_t w = 0; w < lanes / 64; w++)
            NAME(codes_of)
        (row, at % 8, bits->at[w], bits->mask[w], bits->planes[w],
         codes + s * WF_CELL_LANES + 64 * w);
    }
}

TARGET static void NAME(scale_signed)(const int8_t *restrict codes, const float *restrict steps,
                                      size_t count, float *restrict out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (float)codes[i] * steps[i];
}

TARGET static void NAME(round_signed)(const float *restrict from, const float *restrict inverse,
                                      size_t count, int8_t *restrict codes)
{
    for (size_t i = 0; i < count; i++) {
        float place = NAME(clamp)(from[i] * inverse[i], 127.0f);
        codes[i] = (int8_t)(int)((place + WHOLE) - WHOLE);
    }
}

static const struct wf_quant_kernel NAME(kernel) = {
    .width = WIDTH,
    .load = NAME(load),
    .store = NAME(store),
    .count_reached = NAME(count_reached),
    .measure = NAME(measure),
    .try_steps = NAME(try_steps),
    .set_steps = NAME(set_steps),
    .fit_steps = NAME(fit_steps),
    .quantise = NAME(quantise),
    .emit = NAME(emit),
    .hadamard = NAME(hadamard),
    .turn_out = NAME(turn_out),
    .transpose = NAME(transpose),
    .pack = NAME(pack),
    .unpack = NAME(unpack),
    .scale_signed = NAME(scale_signed),
    .round_signed = NAME(round_signed),
};

#undef PASTE2
#undef PASTE
#undef NAME
#undef INLINE
#undef WIDTH
#undef TARGET
