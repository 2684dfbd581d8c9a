/* SPDX-License-Identifier: Apache-2.0
 *
 * The two inner loops, for one vector width.  kernel.c includes it once a width, with
 *
 *   WIDTH   floats in a vector: 4, 8 or 16
 *   ROWS    rows, and
 *   TILE    vectors x, that share one pass; as many sums as the registers hold
 *   ALONE   rows that share one pass of a vector x by itself
 *   TARGET  the function attribute that allows those instructions, or nothing
 *
 * and takes what it leaves: the functions multiply_WIDTH and weigh_WIDTH.
 */
#define PASTE2(name, width) name##_##width
#define PASTE(name, width) PASTE2(name, width)
#define NAME(name) PASTE(name, WIDTH)
#define INLINE static inline __attribute__((always_inline)) TARGET
#define PARTS (WF_KERNEL_LANES / WIDTH)

/* The tree's first steps: lane i takes lane i + 8, then i + 4. */
INLINE vector_4 NAME(fold_to_4)(const NAME(vector) * sum)
{
#if WIDTH == 16
    vector_8 half = __builtin_shufflevector(*sum, *sum, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(*sum, *sum, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
           __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif WIDTH == 8
    vector_8 half = sum[0] + sum[1];
    return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
           __builtin_shufflevector(half, half, 4, 5, 6, 7);
#else
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
#endif
}

/* A vector; zeros stand for what is beyond `count`. */
INLINE NAME(vector) NAME(load_some)(const float *data, size_t count)
{
    float padded[WIDTH] = {0};
    if (count >= WIDTH)
        return *(const NAME(vector) *)data;
    for (size_t i = 0; i < count; i++)
        padded[i] = data[i];
    return *(const NAME(vector) *)padded;
}

/* rows × tile dot products.  Both are constants wherever this is inlined, so that the sums live in
 * registers. */
INLINE void NAME(multiply_tile)(float *const *out, const float *x, size_t x_stride,
                                const struct wf_kernel_rows *matrix, size_t r, const size_t rows,
                                const size_t tile)
{
    const float *row = matrix->data + r * matrix->stride;
    size_t columns = matrix->columns, row_stride = matrix->stride;
    NAME(vector) sum[TILE * ROWS > ALONE ? TILE * ROWS : ALONE][PARTS];
    for (size_t i = 0; i < rows * tile; i++)
        for (size_t p = 0; p < PARTS; p++)
            sum[i][p] = (NAME(vector)){0};

    size_t c = 0;
    for (; c + WF_KERNEL_LANES <= columns; c += WF_KERNEL_LANES)
        for (size_t p = 0; p < PARTS; p++) {
            NAME(vector) weight[ROWS > ALONE ? ROWS : ALONE];
            for (size_t i = 0; i < rows; i++)
                weight[i] = *(const NAME(vector) *)(row + i * row_stride + c + p * WIDTH);
            for (size_t t = 0; t < tile; t++) {
                NAME(vector) from = *(const NAME(vector) *)(x + t * x_stride + c + p * WIDTH);
                for (size_t i = 0; i < rows; i++)
                    sum[i * tile + t][p] += weight[i] * from;
            }
        }
    for (size_t p = 0; p < PARTS && c < columns; p++, c += WIDTH)
        for (size_t i = 0; i < rows * tile; i++)
            sum[i][p] += NAME(load_some)(row + i / tile * row_stride + c, columns - c) *
                         NAME(load_some)(x + i % tile * x_stride + c, columns - c);
    for (size_t i = 0; i < rows * tile; i += 4) {
        vector_4 four = fold_four(NAME(fold_to_4)(sum[i]), NAME(fold_to_4)(sum[i + 1]),
                                  NAME(fold_to_4)(sum[i + 2]), NAME(fold_to_4)(sum[i + 3]));
        for (size_t j = i; j < i + 4; j++)
            out[j % tile][r + j / tile] = four[j - i];
    }
}

/* One by itself, where rows or vectors are left over. */
INLINE void NAME(multiply_one)(float *out, const float *x, const float *row, size_t columns)
{
    NAME(vector) sum[PARTS] = {0};
    size_t c = 0;
    for (; c + WF_KERNEL_LANES <= columns; c += WF_KERNEL_LANES)
        for (size_t p = 0; p < PARTS; p++)
            sum[p] += *(const NAME(vector) *)(row + c + p * WIDTH) *
                      *(const NAME(vector) *)(x + c + p * WIDTH);
    for (size_t p = 0; p < PARTS && c < columns; p++, c += WIDTH)
        sum[p] += NAME(load_some)(row + c, columns - c) * NAME(load_some)(x + c, columns - c);
    vector_4 four = NAME(fold_to_4)(sum);
    *out = (four[0] + four[2]) + (four[1] + four[3]);
}

static TARGET void NAME(multiply)(float *const *out, const float *x, size_t x_stride, size_t count,
                                  const struct wf_kernel_rows *rows, size_t first, size_t end)
{
    size_t tiled = count - count % TILE, r = first;
    for (; r + ROWS <= end; r += ROWS) {
        /* The next rows come from memory while these are worked on. */
        for (size_t i = 0; i < ROWS && tiled && r + ROWS + i < end; i++)
            for (size_t c = 0; c < rows->columns; c += 16)
                __builtin_prefetch(rows->data + (r + ROWS + i) * rows->stride + c);
        for (size_t t = 0; t < tiled; t += TILE)
            NAME(multiply_tile)(out + t, x + t * x_stride, x_stride, rows, r, ROWS, TILE);
    }
    for (; r < end; r++)
        for (size_t t = 0; t < tiled; t++)
            NAME(multiply_one)
    (out[t] + r, x + t * x_stride, rows->data + r * rows->stride, rows->columns);

    for (r = first; r + ALONE <= end; r += ALONE)
        for (size_t t = tiled; t < count; t++)
            NAME(multiply_tile)(out + t, x + t * x_stride, x_stride, rows, r, ALONE, 1);
    for (; r < end; r++)
        for (size_t t = tiled; t < count; t++)
            NAME(multiply_one)
    (out[t] + r, x + t * x_stride, rows->data + r * rows->stride, rows->columns);
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
#undef ROWS
#undef TILE
#undef ALONE
#undef TARGET
