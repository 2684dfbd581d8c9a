/* SPDX-License-Identifier: Apache-2.0
 *
 * Planes of at most a KiB, most of which have the small head, in every dtype: whichever kernels
 * encoded them, all decode them; and with each byte changed in turn, and cut everywhere, they are
 * told, or are what they were: never other bytes, and none read or written outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "codec/frame.h"
#include "codec/lossless.h"

#define PLANE_MAX 1024u
#define ROUNDS 3

static const enum weft_dtype dtypes[] = {WEFT_F32,      WEFT_F16,      WEFT_BF16,
                                         WEFT_FP8_E4M3, WEFT_FP8_E5M2, WEFT_INT8};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

/* Tokens, heads, head_dim: of one element, of one group and a bit, of odd numbers of channels. */
static const uint32_t shapes[][3] = {{1, 1, 1},  {1, 1, 3},  {16, 1, 3},  {17, 1, 5}, {1, 1, 80},
                                     {16, 2, 4}, {65, 1, 1}, {33, 1, 7},  {16, 4, 4}, {16, 1, 15},
                                     {3, 1, 80}, {16, 1, 1}, {127, 1, 2}, {32, 1, 8}};
#define SHAPES (sizeof shapes / sizeof shapes[0])

/* A kind of KV each, of which the exponent of the element number i is made. */
enum content { TOGETHER, APART, RARE, ONE_ALL_OVER, ANYTHING, LEAST, MOST, CONTENTS };

static void fill(enum weft_dtype dtype, uint32_t channels, size_t elements, enum content content,
                 struct random_source *r, uint8_t *out)
{
    /* Where the exponent begins, how many bits it has, and which it has most of the time. */
    unsigned at = dtype == WEFT_F32        ? 23
                  : dtype == WEFT_F16      ? 10
                  : dtype == WEFT_BF16     ? 7
                  : dtype == WEFT_FP8_E5M2 ? 2
                  : dtype == WEFT_FP8_E4M3 ? 3
                                           : 4;
    uint32_t most = dtype == WEFT_F32 || dtype == WEFT_BF16       ? 255
                    : dtype == WEFT_F16 || dtype == WEFT_FP8_E5M2 ? 31
                                                                  : 15;
    size_t size = weft_dtype_bytes(dtype);
    uint64_t same = random_next(r);
    for (size_t i = 0; i < elements; i++) {
        uint64_t any = random_next(r);
        uint32_t exponent = most / 2 + random_below(r, 3);
        if (content == APART)
            exponent = most / 4 + (uint32_t)(i % channels * 7 % 11) % (most / 2) + any % 2;
        if (content == RARE && any % 29 == 0)
            exponent = (uint32_t)(any >> 32);
        exponent = content == LEAST ? 0 : content == MOST ? most : exponent & most;
        uint64_t element = (any & ~((uint64_t)most << at)) | (uint64_t)exponent << at;
        element = content == ANYTHING ? any : content == ONE_ALL_OVER ? same : element;
        memcpy(out + i * size, &element, size);
    }
}

static void *exactly(size_t bytes, const void *from)
{
    void *memory = malloc(bytes ? bytes : 1);
    assert_non_null(memory);
    if (from)
        memcpy(memory, from, bytes);
    return memory;
}

static void *scratch_of(size_t bytes)
{
    void *scratch = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    assert_non_null(scratch);
    memset(scratch, 0xee, bytes);
    return scratch;
}

/* By all kernels the same: an error, or the same elements. */
static void all_agree(const struct wf_plane *plane, const uint8_t *coded, size_t bytes,
                      void *scratch)
{
    size_t size = wf_plane_bytes(plane);
    enum weft_status told = WEFT_OK;
    uint8_t *in = exactly(bytes, coded), *first = exactly(size, NULL), *back = exactly(size, NULL);
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        enum weft_status status =
            wf_lossless_decode_by(wf_lossless_kernels_of((enum wf_codec_isa)isa), plane, in, bytes,
                                  isa == WF_CODEC_SCALAR ? first : back, scratch);
        assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
        if (isa == WF_CODEC_SCALAR)
            told = status;
        assert_int_equal(status, told);
        if (status == WEFT_OK && isa != WF_CODEC_SCALAR)
            assert_memory_equal(back, first, size);
    }
    free(in);
    free(first);
    free(back);
}

/* Each of them encodes, each of them decodes; then each byte is another, and each end too early.
 * Returns whether it has the small head. */
static bool plane_of(const struct wf_plane *plane, enum wf_lossless_mode mode, const uint8_t *plain,
                     struct random_source *r)
{
    size_t size = wf_plane_bytes(plane), bytes = 0, before = 0;
    enum weft_status told = WEFT_OK;
    void *scratch = scratch_of(wf_codec_lossless.scratch(plane));
    uint8_t *coded = exactly(size, NULL), *first = exactly(size, NULL), *back = exactly(size, NULL);
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        enum weft_status status =
            wf_lossless_encode_by(wf_lossless_kernels_of((enum wf_codec_isa)isa), plane, mode,
                                  plain, coded, &bytes, scratch);
        assert_true(status == WEFT_OK || status == WEFT_MISS);
        if (isa == WF_CODEC_SCALAR) {
            told = status;
            before = bytes;
            memcpy(first, coded, status == WEFT_OK ? bytes : 0);
        }
        assert_int_equal(status, told);
        assert_int_equal(bytes, before);
        for (int by = 0; status == WEFT_OK && by < WF_CODEC_ISA_COUNT; by++) {
            if (!wf_codec_isa_usable((enum wf_codec_isa)by))
                continue;
            assert_memory_equal(coded, first, bytes);
            memset(back, 0x5a, size);
            uint8_t *in = exactly(bytes, coded);
            assert_int_equal(wf_lossless_decode_by(wf_lossless_kernels_of((enum wf_codec_isa)by),
                                                   plane, in, bytes, back, scratch),
                             WEFT_OK);
            assert_memory_equal(back, plain, size);
            free(in);
        }
    }
    bool small = told == WEFT_OK && first[0] & WF_LOSSLESS_SMALL;
    for (size_t i = 0; told == WEFT_OK && i < bytes; i++) {
        uint8_t was = first[i];
        first[i] = (uint8_t)(was + 1 + random_below(r, 255));
        all_agree(plane, first, bytes, scratch);
        first[i] = was;
        all_agree(plane, first, i, scratch);
    }
    free(coded);
    free(first);
    free(back);
    free(scratch);
    return small;
}

static void test_planes(void **state)
{
    (void)state;
    struct random_source r = random_seeded("small planes");
    uint8_t plain[PLANE_MAX];
    uint32_t small[DTYPES] = {0};
    for (size_t d = 0; d < DTYPES; d++) {
        for (size_t s = 0; s < SHAPES; s++) {
            struct wf_plane plane = {.dtype = dtypes[d],
                                     .tokens = shapes[s][0],
                                     .heads = shapes[s][1],
                                     .head_dim = shapes[s][2]};
            assert_true(wf_plane_bytes(&plane) <= PLANE_MAX);
            for (int content = 0; content < CONTENTS; content++) {
                fill(plane.dtype, plane.heads * plane.head_dim, wf_plane_elements(&plane),
                     (enum content)content, &r, plain);
                for (int mode = 0; mode <= WF_LOSSLESS_ENTROPY; mode++)
                    small[d] += plane_of(&plane, (enum wf_lossless_mode)mode, plain, &r);
            }
        }
        assert_true(small[d] > SHAPES); /* else this tests nothing */
    }
}

static enum weft_status decoded(const struct wf_layout *layout, const uint8_t *bytes, size_t count,
                                uint8_t *back, void *scratch)
{
    struct wf_frame frame;
    uint8_t *in = exactly(count, bytes);
    enum weft_status status = wf_frame_open(in, count, &frame);
    if (status == WEFT_OK)
        status = frame.head.encoded != count || frame.layout.bytes != layout->bytes
                     ? WEFT_E_CORRUPT
                     : wf_frame_decode(&frame, in, 0, frame.head.planes, NULL, back, scratch);
    free(in);
    return status;
}

/* Changed twice, once in its planes' bytes: the checksum of what was decoded tells. */
static void frame_of(const struct wf_layout *layout, const uint8_t *block, struct random_source *r)
{
    uint64_t bytes = 0;
    void *scratch = scratch_of(wf_frame_scratch(layout) + 64);
    uint8_t *coded = exactly(wf_frame_bound(layout), NULL), *back = exactly(layout->bytes, NULL);
    struct wf_frame_plan plan = {.all = {.codec = &wf_codec_lossless}};
    assert_int_equal(wf_frame_encode(layout, &plan, 0, block, coded, &bytes, scratch), WEFT_OK);
    assert_true(bytes <= layout->bytes + sizeof(struct wf_frame_head));
    assert_int_equal(decoded(layout, coded, bytes, back, scratch), WEFT_OK);
    assert_memory_equal(back, block, layout->bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        for (int round = 0; round < ROUNDS; round++) {
            uint64_t other = random_below(r, (uint32_t)bytes);
            uint8_t was = coded[i], other_was = coded[other];
            coded[i] = (uint8_t)(was ^ (round == 0 ? 255u : 1u << random_below(r, 8)));
            if (round == 2 && other != i)
                coded[other] = (uint8_t)random_next(r);
            memset(back, 0x5a, layout->bytes);
            enum weft_status status = decoded(layout, coded, bytes, back, scratch);
            assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
            if (status == WEFT_OK)
                assert_memory_equal(back, block, layout->bytes);
            coded[other] = other_was;
            coded[i] = was;
        }
        assert_int_not_equal(decoded(layout, coded, i, back, scratch), WEFT_OK);
    }
    free(coded);
    free(back);
    free(scratch);
}

static void test_frames(void **state)
{
    (void)state;
    struct random_source r = random_seeded("small frames");
    uint8_t block[4 * PLANE_MAX];
    for (size_t d = 0; d < DTYPES; d++) {
        for (size_t s = 0; s < SHAPES; s++) {
            struct wf_layout layout;
            uint32_t layers = 1 + (uint32_t)(s % 2);
            assert_true(
                wf_layout_of(dtypes[d], layers, shapes[s][0], shapes[s][1], shapes[s][2], &layout));
            fill(dtypes[d], shapes[s][1] * shapes[s][2], layout.bytes / weft_dtype_bytes(dtypes[d]),
                 (enum content)random_below(&r, CONTENTS), &r, block);
            frame_of(&layout, block, &r);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planes),
        cmocka_unit_test(test_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
