/* SPDX-License-Identifier: Apache-2.0
 *
 * The two inner loops, for one vector width.  kernel.c includes it once a width, with
 *
 *   WIDTH   floats in a vector: 4, 8 or 16
 *   TILE    vectors x that share one pass over a row; as many as the registers hold
 *   TARGET  the function attribute that allows those instructions, or nothing
 *
 * and takes what it leaves: the functions multiply_WIDTH and weigh_WIDTH.
 */
#define PASTE2(name, width) name##_##width
#define PASTE(name, width) PASTE2(name, width)
#define NAME(name) PASTE(name, WIDTH)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define PARTS (WF_KERNEL_LANES / WIDTH)

/* Only as aligned as a float is: rows start where the model's shape puts them. */
typedef float NAME(vector) __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

/* The tree: lane i takes lane i + 8, then i + 4, then i + 2, then i + 1. */
INLINE float NAME(fold)(NAME(vector) * sum)
{
    for (size_t half = PARTS / 2; half > 0; half /= 2)
        for (size_t p = 0; p < half; p++)
            sum[p] += sum[p + half];
    float lane[WIDTH];
    memcpy(lane, sum, sizeof(lane));
    for (size_t half = WIDTH / 2; half > 4; half /= 2)
        for (size_t i = 0; i < half; i++)
            lane[i] += lane[i + half];
#if WIDTH > 4
    *(vector_4 *)lane += *(const vector_4 *)(lane + 4);
#endif
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* Fewer floats than a vector holds, and zeros. */
INLINE NAME(vector) NAME(load_some)(const float *data, size_t count)
{
    float padded[WIDTH] = {0};
    for (size_t i = 0; i < count; i++)
        padded[i] = data[i];
    return *(const NAME(vector) *)padded;
}

/* `tile` is a constant wherever this is inlined, so that the sums live in registers. */
INLINE void NAME(multiply_tile)(float *const *out, const float *x, size_t x_stride,
                                const float *row, size_t columns, size_t r, const size_t tile)
{
    NAME(vector) sum[TILE][PARTS];
    for (size_t t = 0; t < tile; t++)
        for (size_t p = 0; p < PARTS; p++)
            sum[t][p] = (NAME(vector)){0};

    size_t c = 0;
    for (; c + WF_KERNEL_LANES <= columns; c += WF_KERNEL_LANES)
        for (size_t p = 0; p < PARTS; p++) {
            NAME(vector) weight = *(const NAME(vector) *)(row + c + p * WIDTH);
            for (size_t t = 0; t < tile; t++)
                sum[t][p] += weight * *(const NAME(vector) *)(x + t * x_stride + c + p * WIDTH);
        }
    for (size_t p = 0; p < PARTS && c < columns; p++, c += WIDTH) {
        size_t rest = columns - c;
        for (size_t t = 0; t < tile; t++) {
            const float *from = x + t * x_stride + c;
            if (rest >= WIDTH)
                sum[t][p] += *(const NAME(vector) *)(row + c) * *(const NAME(vector) *)from;
            else
                sum[t][p] += NAME(load_some)(row + c, rest) * NAME(load_some)(from, rest);
        }
    }
    for (size_t t = 0; t < tile; t++)
        out[t][r] = NAME(fold)(sum[t]);
}

static TARGET void NAME(multiply)(float *const *out, const float *x, size_t x_stride, size_t count,
                                  const struct wf_kernel_rows *rows, size_t first, size_t end)
{
    for (size_t r = first; r < end; r++) {
        const float *row = rows->data + r * rows->stride;
        size_t t = 0;
        for (; t + TILE <= count; t += TILE)
            NAME(multiply_tile)
        (out + t, x + t * x_stride, x_stride, row, rows->columns, r, TILE);
        for (; t < count; t++)
            NAME(multiply_tile)(out + t, x + t * x_stride, x_stride, row, rows->columns, r, 1);
    }
}

/* `parts` vectors of columns at once, each with its own chain of additions. */
INLINE void NAME(weigh_parts)(float *out, const float *weights, const float *data, size_t stride,
                              size_t count, const size_t parts)
{
    NAME(vector) sum[4];
    for (size_t p = 0; p < parts; p++)
        sum[p] = *(const NAME(vector) *)(out + p * WIDTH);
    for (size_t r = 0; r < count; r++)
        for (size_t p = 0; p < parts; p++)
            sum[p] += weights[r] * *(const NAME(vector) *)(data + r * stride + p * WIDTH);
    for (size_t p = 0; p < parts; p++)
        *(NAME(vector) *)(out + p * WIDTH) = sum[p];
}

/* Columns are independent, so a vector of them is as good as one after the other. */
static TARGET void NAME(weigh)(float *out, const float *weights, const struct wf_kernel_rows *rows,
                               size_t count)
{
    size_t c = 0;
    for (; c + 4 * WIDTH <= rows->columns; c += 4 * WIDTH)
        NAME(weigh_parts)(out + c, weights, rows->data + c, rows->stride, count, 4);
    for (; c + WIDTH <= rows->columns; c += WIDTH)
        NAME(weigh_parts)(out + c, weights, rows->data + c, rows->stride, count, 1);
    for (; c < rows->columns; c++)
        for (size_t r = 0; r < count; r++)
            out[c] += weights[r] * rows->data[r * rows->stride + c];
}

#undef PARTS
#undef INLINE
#undef NAME
#undef PASTE
#undef PASTE2
#undef WIDTH
#undef TILE
#undef TARGET
