/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: what goes in comes out, whatever the codec; a frame never grows by more than its head;
 * and one that was cut, changed or lies about itself is told, with no byte touched outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "base/sum.h"
#include "codec/frame.h"

#define GUARD 64
#define GUARD_BYTE 0xa5

/* A block, its frame and what comes back, each with a guard behind it. */
struct world {
    struct wf_layout layout;
    uint8_t *block, *frame, *back;
    void *scratch;
    uint64_t frame_bytes;
};

static void *guarded(uint64_t bytes)
{
    uint8_t *memory = malloc(bytes + GUARD);
    assert_non_null(memory);
    memset(memory, GUARD_BYTE, bytes + GUARD);
    return memory;
}

static void guard_holds(const uint8_t *memory, uint64_t bytes)
{
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(memory[bytes + (uint64_t)i], GUARD_BYTE);
}

static void open_world(struct world *w, const struct wf_layout *layout, struct random_source *r)
{
    w->layout = *layout;
    w->block = guarded(layout->bytes);
    w->back = guarded(layout->bytes);
    w->frame = guarded(wf_frame_bound(layout));
    size_t scratch = wf_frame_scratch(layout);
    assert_int_equal(scratch % 64, 0);
    w->scratch = aligned_alloc(64, scratch + 64);
    assert_non_null(w->scratch);
    /* Like KV: half of the bytes even, of the others few. */
    for (uint64_t i = 0; i < layout->bytes; i++)
        w->block[i] = (uint8_t)(i % 2 ? 0x3c + random_below(r, 4) : random_next(r));
}

static void close_world(struct world *w)
{
    guard_holds(w->block, w->layout.bytes);
    guard_holds(w->back, w->layout.bytes);
    guard_holds(w->frame, wf_frame_bound(&w->layout));
    free(w->block);
    free(w->back);
    free(w->frame);
    free(w->scratch);
}

static void encode(struct world *w, const struct wf_codec *codec)
{
    struct wf_frame_plan plan = {.all = {.codec = codec}};
    assert_int_equal(wf_frame_encode(&w->layout, &plan, 128, w->block, w->frame, &w->frame_bytes,
                                     w->scratch),
                     WEFT_OK);
    assert_true(w->frame_bytes <= wf_frame_bound(&w->layout));
    assert_int_equal(wf_frame_bound(&w->layout), w->layout.bytes + 64);
}

/* Through memory of exactly the frame's size, so that a sanitizer sees the first byte beyond. */
static enum weft_status decode(struct world *w, uint64_t bytes, struct wf_frame *frame)
{
    uint8_t *exact = malloc(bytes ? bytes : 1);
    assert_non_null(exact);
    memcpy(exact, w->frame, bytes);
    enum weft_status status = wf_frame_open(exact, bytes, frame);
    if (status == WEFT_OK && frame->head.encoded != bytes)
        status = WEFT_E_CORRUPT; /* as a caller sees that knows how much it has */
    if (status == WEFT_OK && frame->layout.bytes <= w->layout.bytes)
        status = wf_frame_decode(frame, exact, 0, frame->head.planes, NULL, w->back, w->scratch);
    free(exact);
    return status;
}

static void layouts_of(struct wf_layout out[5])
{
    assert_true(wf_layout_of(WEFT_BF16, 3, 16, 2, 64, &out[0]));
    assert_true(wf_layout_of(WEFT_BF16, 1, 1, 1, 1, &out[1]));
    assert_true(wf_layout_of(WEFT_F32, 2, 7, 3, 5, &out[2]));
    assert_true(wf_layout_opaque(WEFT_BF16, 2 * (1 << 20) + 4098, &out[3]));
    assert_true(wf_layout_opaque(WEFT_BF16, 333, &out[4]));
}

static void test_layouts(void **state)
{
    (void)state;
    struct wf_layout l;
    struct wf_plane plane;
    assert_true(wf_layout_of(WEFT_BF16, 2, 16, 4, 64, &l));
    assert_int_equal(l.planes, 4);
    assert_int_equal(l.bytes, 4 * 16 * 4 * 64 * 2);
    wf_layout_plane(&l, 3, 32, NULL, &plane);
    assert_true(plane.value && plane.layer == 1 && plane.position == 32);
    assert_int_equal(wf_plane_bytes(&plane), 16 * 4 * 64 * 2);

    assert_true(wf_layout_opaque(WEFT_BF16, (1 << 20) + 6, &l));
    assert_int_equal(l.planes, 2);
    wf_layout_plane(&l, 0, 0, NULL, &plane);
    assert_int_equal(wf_plane_bytes(&plane), 1 << 20);
    wf_layout_plane(&l, 1, 0, NULL, &plane);
    assert_int_equal(wf_plane_bytes(&plane), 6);
    assert_true(wf_layout_opaque(WEFT_BF16, 7, &l));
    assert_int_equal(l.dtype, WEFT_INT8);

    assert_false(wf_layout_of(WEFT_BF16, 0, 16, 4, 64, &l));
    assert_false(wf_layout_of(WEFT_BF16, 2049, 16, 4, 64, &l));
    assert_false(wf_layout_of(99, 2, 16, 4, 64, &l));
    assert_false(wf_layout_of(WEFT_F32, 2, 65536, 4096, 4096, &l));
    assert_false(wf_layout_opaque(WEFT_BF16, 0, &l));
    assert_false(wf_layout_opaque(WEFT_BF16, (4096ull << 20) + 1, &l));
}

static void test_every_codec_there_and_back(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame");
    struct wf_layout layouts[5];
    layouts_of(layouts);
    for (int i = 0; i < 5; i++) {
        const struct wf_codec *codec;
        for (unsigned c = 0; (codec = wf_codec_each(c)); c++) {
            if (codec->profiled)
                continue;
            struct world w;
            struct wf_frame frame;
            open_world(&w, &layouts[i], &r);
            encode(&w, codec);
            assert_int_equal(decode(&w, w.frame_bytes, &frame), WEFT_OK);
            assert_int_equal(frame.head.position, 128);
            if (!(frame.head.flags & WF_FRAME_LOSSY))
                assert_memory_equal(w.back, w.block, w.layout.bytes);
            assert_true(!codec->lossless || !(frame.head.flags & WF_FRAME_LOSSY));
            close_world(&w);
        }
    }
}

static void test_noise_grows_by_64_bytes(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame noise");
    struct wf_layout l;
    assert_true(wf_layout_of(WEFT_BF16, 2, 16, 2, 64, &l));
    const struct wf_codec *codec;
    for (unsigned c = 0; (codec = wf_codec_each(c)); c++) {
        if (!codec->lossless)
            continue;
        struct world w;
        struct wf_frame frame;
        open_world(&w, &l, &r);
        for (uint64_t i = 0; i < l.bytes; i++)
            w.block[i] = (uint8_t)random_next(&r);
        encode(&w, codec);
        assert_int_equal(w.frame_bytes, l.bytes + 64);
        assert_int_equal(decode(&w, w.frame_bytes, &frame), WEFT_OK);
        assert_true(frame.head.flags & WF_FRAME_STORED);
        assert_memory_equal(w.back, w.block, l.bytes);
        assert_int_equal(wf_frame_planes_within(&frame, w.frame_bytes - 1), 0);
        assert_int_equal(wf_frame_planes_within(&frame, w.frame_bytes), l.planes);
        close_world(&w);
    }
}

static void test_every_flip_is_told(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame flips");
    struct wf_layout l;
    assert_true(wf_layout_of(WEFT_BF16, 2, 4, 2, 16, &l));
    const struct wf_codec *codec;
    for (unsigned c = 0; (codec = wf_codec_each(c)); c++) {
        if (codec->profiled)
            continue;
        struct world w;
        struct wf_frame frame;
        open_world(&w, &l, &r);
        encode(&w, codec);
        for (uint64_t i = 0; i < w.frame_bytes * 8; i++) {
            w.frame[i / 8] ^= (uint8_t)(1u << i % 8);
            enum weft_status status = decode(&w, w.frame_bytes, &frame);
            /* A bit that no decoder reads may differ: what comes back is right all the same. */
            if (status == WEFT_OK)
                assert_memory_equal(w.back, w.block, l.bytes);
            else
                assert_int_equal(status, WEFT_E_CORRUPT);
            w.frame[i / 8] ^= (uint8_t)(1u << i % 8);
        }
        for (uint64_t bytes = 0; bytes < w.frame_bytes; bytes++)
            assert_int_not_equal(decode(&w, bytes, &frame), WEFT_OK);
        close_world(&w);
    }
}

/* Whoever forges a checksum still finds every length and name looked at. */
static void test_lies_with_a_right_checksum(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame lies");
    struct wf_layout l;
    assert_true(wf_layout_of(WEFT_BF16, 2, 16, 2, 16, &l));
    const struct wf_codec *codec;
    for (unsigned c = 0; (codec = wf_codec_each(c)); c++) {
        if (codec->profiled)
            continue;
        struct world w;
        struct wf_frame frame;
        open_world(&w, &l, &r);
        encode(&w, codec);
        uint8_t *good = malloc(w.frame_bytes);
        assert_non_null(good);
        memcpy(good, w.frame, w.frame_bytes);
        for (int i = 0; i < 20000; i++) {
            memcpy(w.frame, good, w.frame_bytes);
            for (uint32_t n = 1 + random_below(&r, 3); n; n--) {
                bool front = random_below(&r, 2);
                uint32_t at = random_below(&r, front ? 128 : (uint32_t)w.frame_bytes);
                w.frame[at] = (uint8_t)random_next(&r);
            }
            struct wf_frame_head head;
            memcpy(&head, w.frame, sizeof head);
            head.checksum = 0;
            uint64_t seed = wf_sum64(&head, sizeof head);
            bool stored = head.flags & WF_FRAME_STORED;
            head.checksum = wf_sum64_seeded(w.frame + 64, stored ? w.frame_bytes - 64 : 4 * 16,
                                            seed);
            memcpy(w.frame, &head, sizeof head);
            (void)!decode(&w, w.frame_bytes, &frame);
        }
        free(good);
        close_world(&w);
    }
}

static void test_planes_by_themselves(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame planes");
    struct wf_layout l;
    assert_true(wf_layout_of(WEFT_BF16, 4, 64, 2, 64, &l));
    const struct wf_codec *codec;
    for (unsigned c = 0; (codec = wf_codec_each(c)); c++) {
        if (codec->profiled || codec == &wf_codec_raw)
            continue;
        struct world w;
        struct wf_frame frame;
        open_world(&w, &l, &r);
        encode(&w, codec);
        assert_int_equal(wf_frame_lead(w.frame, 10), 64);
        assert_int_equal(wf_frame_lead(w.frame, 64), 64 + 8 * 16);
        assert_int_equal(wf_frame_open(w.frame, 64, &frame), WEFT_PENDING);
        assert_int_equal(wf_frame_open(w.frame, 64 + 8 * 16, &frame), WEFT_OK);
        uint64_t stride = l.bytes / l.planes;
        uint32_t had = 0;
        assert_int_equal(wf_frame_decode(&frame, w.frame, 0, 8, NULL, w.back, w.scratch), WEFT_OK);
        uint8_t *whole = malloc(l.bytes);
        assert_non_null(whole);
        memcpy(whole, w.back, l.bytes);
        for (uint64_t bytes = 0; bytes <= w.frame_bytes; bytes += 97) {
            uint32_t planes = wf_frame_planes_within(&frame, bytes);
            assert_true(planes >= had && planes <= 8);
            for (; had < planes; had++) {
                memset(w.back, 0, l.bytes);
                uint8_t *front = malloc(bytes ? bytes : 1);
                assert_non_null(front);
                memcpy(front, w.frame, bytes);
                assert_int_equal(wf_frame_decode(&frame, front, had, had + 1, NULL, w.back,
                                                 w.scratch),
                                 WEFT_OK);
                assert_memory_equal(w.back + had * stride, whole + had * stride, stride);
                free(front);
            }
        }
        assert_int_equal(wf_frame_planes_within(&frame, w.frame_bytes), 8);
        assert_int_equal(wf_frame_decode(&frame, w.frame, 0, 9, NULL, w.back, w.scratch),
                         WEFT_E_INVALID);
        free(whole);
        close_world(&w);
    }
}

static void test_plans(void **state)
{
    (void)state;
    struct random_source r = random_seeded("frame plans");
    struct wf_layout l;
    assert_true(wf_layout_of(WEFT_BF16, 1, 4, 1, 4, &l));
    struct world w;
    open_world(&w, &l, &r);
    struct wf_frame_choice choices[2] = {{.codec = &wf_codec_raw}, {.codec = NULL}};
    struct wf_frame_plan plan = {.planes = choices};
    assert_int_equal(wf_frame_encode(&l, &plan, 0, w.block, w.frame, &w.frame_bytes, w.scratch),
                     WEFT_E_INVALID);
    choices[1] = (struct wf_frame_choice){.codec = &wf_codec_raw, .parameter = 65536};
    assert_int_equal(wf_frame_encode(&l, &plan, 0, w.block, w.frame, &w.frame_bytes, w.scratch),
                     WEFT_E_INVALID);
    close_world(&w);
}

static void test_registry(void **state)
{
    (void)state;
    const struct wf_codec *codec;
    unsigned count = 0;
    for (; (codec = wf_codec_each(count)); count++) {
        assert_ptr_equal(wf_codec_by_id(codec->id), codec);
        assert_ptr_equal(wf_codec_by_name(codec->name), codec);
        assert_true(strlen(codec->says) > 0);
    }
    assert_true(count >= 1);
    assert_null(wf_codec_by_id(255));
    assert_null(wf_codec_by_name("gzip"));
    assert_ptr_equal(wf_codec_by_id(0), &wf_codec_raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_every_codec_there_and_back),
        cmocka_unit_test(test_noise_grows_by_64_bytes),
        cmocka_unit_test(test_every_flip_is_told),
        cmocka_unit_test(test_lies_with_a_right_checksum),
        cmocka_unit_test(test_planes_by_themselves),
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
