/* SPDX-License-Identifier: Apache-2.0
 *
 * What the vector kernels share: numbers of each type to lanes and back, and what of the coder is
 * left to plain C.  Who includes this has included transform_loops.h and has defined
 *
 *     FLOATS, WIDE               a register of so many floats: 16 lanes are one of them, or two
 *     floats_none()              all 0
 *     floats_at(p), floats_put(p, v)
 *     floats_within(v, most)     −most … most
 *     floats_of(dtype, from), floats_to(dtype, v, to)
 *                                from and to so many bf16, f16 or f32; to: of finite numbers, as
 *                                wf_floats_to() has it
 *     floats_transpose(r)        rows to columns, of WIDE × WIDE
 *     encode_16(…), decode_16(…) as wf_lanes_kernels has encode and decode, of 16 states
 */

INLINE void load_as(enum weft_dtype dtype, const uint8_t *plain, size_t stride, unsigned lanes,
                    uint32_t count, float *out)
{
    uint32_t i = 0;
    size_t size = weft_dtype_bytes(dtype);
    for (; i + WIDE <= count; i += WIDE)
        for (unsigned first = 0; first < WF_CODER_LANES; first += WIDE) {
            FLOATS r[WIDE];
            for (unsigned l = 0; l < WIDE; l++)
                r[l] = first + l < lanes
                           ? floats_of(dtype, plain + ((first + l) * stride + i) * size)
                           : floats_none();
            floats_transpose(r);
            for (unsigned c = 0; c < WIDE; c++)
                floats_put(ROW(out, i + c) + first, r[c]);
        }
    load_few(dtype, plain, stride, lanes, i, count, out);
}

INLINE void store_as(enum weft_dtype dtype, const float *in, size_t stride, unsigned lanes,
                     uint32_t count, uint8_t *plain)
{
    uint32_t i = 0;
    size_t size = weft_dtype_bytes(dtype);
    for (; i + WIDE <= count; i += WIDE)
        for (unsigned first = 0; first < lanes; first += WIDE) {
            FLOATS r[WIDE];
            for (unsigned c = 0; c < WIDE; c++)
                r[c] = floats_within(floats_at(ROW(in, i + c) + first), most_of(dtype));
            floats_transpose(r);
            for (unsigned l = 0; l < WIDE && first + l < lanes; l++)
                floats_to(dtype, r[l], plain + ((first + l) * stride + i) * size);
        }
    store_few(dtype, in, stride, lanes, i, count, plain);
}

/* A loop for each type that has vector code, so that it asks for the type once. */
TARGET static void load(enum weft_dtype dtype, const void *plain, size_t stride, unsigned lanes,
                        uint32_t count, float *out)
{
    if (dtype == WEFT_BF16)
        load_as(WEFT_BF16, plain, stride, lanes, count, out);
    else if (dtype == WEFT_F16)
        load_as(WEFT_F16, plain, stride, lanes, count, out);
    else if (dtype == WEFT_F32)
        load_as(WEFT_F32, plain, stride, lanes, count, out);
    else
        load_few(dtype, plain, stride, lanes, 0, count, out);
}

TARGET static void store(enum weft_dtype dtype, const float *in, size_t stride, unsigned lanes,
                         uint32_t count, void *plain)
{
    if (dtype == WEFT_BF16)
        store_as(WEFT_BF16, in, stride, lanes, count, plain);
    else if (dtype == WEFT_F16)
        store_as(WEFT_F16, in, stride, lanes, count, plain);
    else if (dtype == WEFT_F32)
        store_as(WEFT_F32, in, stride, lanes, count, plain);
    else
        store_few(dtype, in, stride, lanes, 0, count, plain);
}

/* Small planes have fewer states, and are over soon. */
TARGET static uint8_t *encode(const struct wf_laplace *laplace, const uint8_t *classes,
                              size_t steps, unsigned lanes, const uint8_t *symbols, unsigned states,
                              uint32_t *state, uint8_t *word, const uint8_t *least)
{
    if (states != WF_CODER_LANES)
        return wf_coder_encode(laplace, classes, steps, lanes, symbols, states, state, word, least);
    return encode_16(laplace, classes, steps, lanes, symbols, state, word, least);
}

TARGET static const uint8_t *decode(const struct wf_laplace *laplace, const uint8_t *classes,
                                    size_t steps, unsigned lanes, uint8_t *symbols, unsigned states,
                                    uint32_t *state, const uint8_t *word, const uint8_t *end)
{
    if (states != WF_CODER_LANES)
        return wf_coder_decode(laplace, classes, steps, lanes, symbols, states, state, word, end);
    return decode_16(laplace, classes, steps, lanes, symbols, state, word, end);
}
