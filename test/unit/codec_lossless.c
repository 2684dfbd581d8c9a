/* SPDX-License-Identifier: Apache-2.0
 *
 * The lossless codec: every set of kernels writes the same bytes and reads the same elements, over
 * planes like KV, planes like none, and bytes that nobody encoded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/random.h"
#include "codec/lossless.h"

static const enum weft_dtype dtypes[] = {WEFT_F32,      WEFT_F16,      WEFT_BF16,
                                         WEFT_FP8_E4M3, WEFT_FP8_E5M2, WEFT_INT8};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

enum content {
    LIKE_KV,     /* normal, channels of keys apart */
    NOISE,       /* any bytes */
    ZEROS,       /* all of them */
    PADDED,      /* like KV, and zeros from the middle on */
    ONE_VALUE,   /* the same element all over */
    RARE,        /* one element in 50 is anything */
    ALTERNATE,   /* two far apart */
    HALVES,      /* each element's upper byte is its number */
    FEW_TO_MANY, /* a new exponent from group to group */
    CONTENTS
};

static double normal(struct random_source *r)
{
    double u = (random_below(r, 1u << 30) + 1.0) / (double)(1u << 30);
    double v = random_below(r, 1u << 30) / (double)(1u << 30);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static uint16_t to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    int e = (int)(bits >> 23 & 255) - 127 + 15;
    if (e < 1)
        return (uint16_t)(bits >> 16 & 0x8000);
    e = e > 30 ? 30 : e;
    return (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)e << 10 | (bits >> 13 & 0x3ff));
}

static void store(enum weft_dtype dtype, float x, uint8_t *out)
{
    uint32_t bits;
    uint16_t half = to_f16(x);
    memcpy(&bits, &x, 4);
    uint16_t brain = (uint16_t)(bits >> 16);
    switch (dtype) {
    case WEFT_F32: memcpy(out, &bits, 4); break;
    case WEFT_F16: memcpy(out, &half, 2); break;
    case WEFT_BF16: memcpy(out, &brain, 2); break;
    case WEFT_FP8_E5M2: *out = (uint8_t)(half >> 8); break;
    case WEFT_FP8_E4M3: *out = (uint8_t)((half >> 8 & 0x80) | (half >> 7 & 0x7f)); break;
    case WEFT_INT8: *out = (uint8_t)(int8_t)(x * 25 > 127 ? 127 : x * 25 < -127 ? -127 : x * 25);
    }
}

static void fill(const struct wf_plane *plane, enum content content, struct random_source *r,
                 uint8_t *out)
{
    size_t n = wf_plane_elements(plane), size = weft_dtype_bytes(plane->dtype);
    size_t channels = (size_t)plane->heads * plane->head_dim;
    uint64_t one = random_next(r);
    memset(out, 0, n * size);
    for (size_t i = 0; i < n && content != ZEROS; i++) {
        uint8_t *at = out + i * size;
        uint64_t any = random_next(r);
        double scale = plane->value ? 1 : exp2((double)(i % channels * 7 % 9) - 4);
        float x = (float)(normal(r) * scale);
        switch (content) {
        case NOISE: memcpy(at, &any, size); break;
        case PADDED:
            if (i < n / 2)
                store(plane->dtype, x, at);
            break;
        case ONE_VALUE: memcpy(at, &one, size); break;
        case RARE:
            store(plane->dtype, x, at);
            if (any % 50 == 0)
                memcpy(at, &one, size), one = any;
            break;
        case ALTERNATE: store(plane->dtype, i / 3 % 2 ? 1e-12f : 3e12f, at); break;
        case HALVES: at[size - 1] = (uint8_t)i; break;
        case FEW_TO_MANY: store(plane->dtype, (float)exp2((double)(i / 64 % 60) - 30), at); break;
        default: store(plane->dtype, x, at);
        }
    }
}

static const struct wf_plane shapes[] = {
    {.tokens = 64, .heads = 2, .head_dim = 64},  {.tokens = 64, .heads = 4, .head_dim = 8},
    {.tokens = 16, .heads = 1, .head_dim = 128}, {.tokens = 1, .heads = 1, .head_dim = 1},
    {.tokens = 1, .heads = 1, .head_dim = 63},   {.tokens = 1, .heads = 1, .head_dim = 65},
    {.tokens = 17, .heads = 3, .head_dim = 5},   {.tokens = 33, .heads = 1, .head_dim = 2},
    {.tokens = 100, .heads = 3, .head_dim = 80}, {.tokens = 4097, .heads = 1, .head_dim = 1},
    {.tokens = 300, .heads = 1, .head_dim = 96},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])

#define GUARD 64

/* Memory of exactly so many bytes, the guard behind included by the allocator or by us. */
struct room {
    uint8_t *bytes;
    size_t size;
};

static struct room room_of(size_t size)
{
    struct room room = {.bytes = malloc(size + GUARD), .size = size};
    assert_non_null(room.bytes);
    memset(room.bytes, 0x5a, size + GUARD);
    return room;
}

static void free_room(struct room *room)
{
    for (size_t i = 0; i < GUARD; i++)
        assert_int_equal(room->bytes[room->size + i], 0x5a);
    free(room->bytes);
}

static void *scratch_of(const struct wf_plane *plane)
{
    size_t size = (wf_codec_lossless.scratch(plane) + 63) & ~(size_t)63;
    void *scratch = aligned_alloc(64, size);
    assert_non_null(scratch);
    memset(scratch, 0xee, size);
    return scratch;
}

/* Encoded by the scalar kernels; by all others the same; decoded by all of them. */
static void there_and_back(const struct wf_plane *plane, enum wf_lossless_mode mode,
                           const uint8_t *plain)
{
    size_t size = wf_plane_bytes(plane), first_bytes = 0;
    enum weft_status first_status = WEFT_OK;
    struct room first = room_of(size);
    void *scratch = scratch_of(plane);
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        const struct wf_lossless_kernels *kernels = wf_lossless_kernels_of((enum wf_codec_isa)isa);
        struct room out = room_of(size);
        size_t bytes = 0;
        enum weft_status status = wf_lossless_encode_by(kernels, plane, mode, plain, out.bytes,
                                                        &bytes, scratch);
        if (isa == WF_CODEC_SCALAR) {
            first_status = status;
            first_bytes = bytes;
            memcpy(first.bytes, out.bytes, size);
        }
        assert_int_equal(status, first_status);
        assert_int_equal(bytes, first_bytes);
        if (status == WEFT_OK) {
            assert_true(bytes <= size);
            assert_memory_equal(out.bytes, first.bytes, bytes);
            struct room in = room_of(bytes), back = room_of(size);
            memcpy(in.bytes, out.bytes, bytes);
            assert_int_equal(wf_lossless_decode_by(kernels, plane, in.bytes, bytes, back.bytes,
                                                   scratch),
                             WEFT_OK);
            assert_memory_equal(back.bytes, plain, size);
            free_room(&in);
            free_room(&back);
        } else {
            assert_int_equal(status, WEFT_MISS);
        }
        free_room(&out);
    }
    free(scratch);
    free_room(&first);
}

static void test_kernels_agree(void **state)
{
    (void)state;
    struct random_source r = random_seeded("lossless");
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            fprintf(stderr, "# skipped: this processor has no %s\n",
                    wf_codec_isa_name((enum wf_codec_isa)isa));
    }
    for (size_t d = 0; d < DTYPES; d++) {
        for (size_t s = 0; s < SHAPES; s++) {
            for (int content = 0; content < CONTENTS; content++) {
                struct wf_plane plane = shapes[s];
                plane.dtype = dtypes[d];
                plane.value = random_below(&r, 2);
                struct room plain = room_of(wf_plane_bytes(&plane));
                fill(&plane, (enum content)content, &r, plain.bytes);
                for (int mode = 0; mode <= WF_LOSSLESS_ENTROPY; mode++)
                    there_and_back(&plane, (enum wf_lossless_mode)mode, plain.bytes);
                free_room(&plain);
            }
        }
    }
}

static size_t encoded_bytes(const struct wf_plane *plane, enum wf_lossless_mode mode,
                            const uint8_t *plain)
{
    size_t bytes = 0;
    uint8_t *out = malloc(wf_plane_bytes(plane));
    void *scratch = scratch_of(plane);
    assert_non_null(out);
    enum weft_status status = wf_lossless_encode_by(wf_lossless_kernels_of(wf_codec_isa_best()),
                                                    plane, mode, plain, out, &bytes, scratch);
    free(out);
    free(scratch);
    return status == WEFT_OK ? bytes : wf_plane_bytes(plane);
}

static void test_what_it_saves(void **state)
{
    (void)state;
    struct random_source r = {17};
    struct wf_plane plane = {
        .dtype = WEFT_BF16, .tokens = 64, .heads = 2, .head_dim = 64, .value = true};
    size_t size = wf_plane_bytes(&plane);
    uint8_t *plain = malloc(size);
    assert_non_null(plain);
    /* The exponent of a normal number has about 2.6 bits. */
    fill(&plane, LIKE_KV, &r, plain);
    assert_true(encoded_bytes(&plane, WF_LOSSLESS_ENTROPY, plain) < size * 100 / 147);
    assert_true(encoded_bytes(&plane, WF_LOSSLESS_FIXED, plain) < size * 100 / 142);
    assert_true(encoded_bytes(&plane, 0, plain) < size * 100 / 145);
    /* Channels of different size cost their bases alone. */
    plane.value = false;
    fill(&plane, LIKE_KV, &r, plain);
    assert_true(encoded_bytes(&plane, 0, plain) < size * 100 / 144);
    fill(&plane, ZEROS, &r, plain);
    assert_true(encoded_bytes(&plane, 0, plain) < size / 14);
    /* Zeros have a code like others. */
    plane.value = true;
    fill(&plane, PADDED, &r, plain);
    assert_true(encoded_bytes(&plane, 0, plain) < size * 100 / 144);
    fill(&plane, NOISE, &r, plain);
    assert_int_equal(encoded_bytes(&plane, 0, plain), size);
    free(plain);
}

/* Small planes whose symbols lie together have three bytes for head and tables, and bases of three
 * bits where these do; all others have what they had. */
static void test_small_planes(void **state)
{
    (void)state;
    struct random_source r = {23};
    struct wf_plane plane = {.dtype = WEFT_BF16, .tokens = 16, .heads = 4, .head_dim = 8};
    uint8_t plain[1024], coded[1024 + GUARD], back[1024];
    void *scratch = scratch_of(&plane);
    static const unsigned aparts[] = {1, 4, 11};
    for (size_t a = 0; a < sizeof aparts / sizeof aparts[0]; a++) {
        unsigned apart = aparts[a];
        size_t bytes = 0, seconds = 0, escaped = 0;
        for (uint32_t i = 0; i < 512; i++) {
            /* Of 64, 6 beside the three that have codes of their own, on both sides; at last one
             * is far away. */
            static const int of[] = {-2, 2, -3, 3, 4, -4};
            int place = i % 64 < 6 ? of[i % 64] : (int)(i % 3) - 1;
            int base = 120 + (int)(i % 32 * apart / 31);
            bool far = apart == 11 && i == 0;
            uint32_t element = (random_next(&r) & 0x807fu) | (uint32_t)(far ? 200 : base + place)
                                                                 << 7;
            memcpy(plain + 2 * i, &element, 2);
        }
        for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
            if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
                continue;
            const struct wf_lossless_kernels *k = wf_lossless_kernels_of((enum wf_codec_isa)isa);
            assert_int_equal(wf_lossless_encode_by(k, &plane, WF_LOSSLESS_FIXED, plain, coded,
                                                   &bytes, scratch),
                             WEFT_OK);
            assert_true(coded[0] & WF_LOSSLESS_SMALL);
            memset(back, 0, sizeof back);
            assert_int_equal(wf_lossless_decode_by(k, &plane, coded, bytes, back, scratch),
                             WEFT_OK);
            assert_memory_equal(back, plain, sizeof plain);
        }
        struct wf_small small;
        assert_true(wf_small_get(coded, &small));
        escaped = small.escaped ? 3 : 0;
        size_t bases = wf_small_bases_bytes(32, small.bases_bits);
        seconds = bytes - WF_SMALL_BYTES - bases - 64 * small.width - escaped - 512;
        assert_int_equal(small.bases_bits, apart == 1 ? 0 : apart == 4 ? 3 : 4);
        assert_true(small.escaped == (apart == 11) && seconds <= 512 / 2);
    }
    /* Those with codes apart from each other have the whole head. */
    for (uint32_t i = 0; i < 512; i++)
        plain[2 * i + 1] = (uint8_t)(40 + 5 * (i % 3));
    size_t bytes = 0;
    assert_int_equal(wf_lossless_encode_by(&wf_lossless_scalar, &plane, WF_LOSSLESS_FIXED, plain,
                                           coded, &bytes, scratch),
                     WEFT_OK);
    assert_int_equal(coded[0], WF_LOSSLESS_FIXED);
    free(scratch);
}

/* Damaged and made-up bytes: an error or some plane, the same from all kernels, and not a byte
 * beyond. */
static void hostile(const struct wf_plane *plane, const uint8_t *bytes, size_t count)
{
    size_t size = wf_plane_bytes(plane);
    struct room first = room_of(size);
    enum weft_status first_status = WEFT_OK;
    void *scratch = scratch_of(plane);
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        struct room back = room_of(size);
        uint8_t *exact = malloc(count ? count : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, count);
        enum weft_status status =
            wf_lossless_decode_by(wf_lossless_kernels_of((enum wf_codec_isa)isa), plane, exact,
                                  count, back.bytes, scratch);
        if (isa == WF_CODEC_SCALAR) {
            first_status = status;
            memcpy(first.bytes, back.bytes, size);
        }
        assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
        assert_int_equal(status, first_status);
        if (status == WEFT_OK)
            assert_memory_equal(back.bytes, first.bytes, size);
        free(exact);
        free_room(&back);
    }
    free(scratch);
    free_room(&first);
}

static void test_hostile_bytes(void **state)
{
    (void)state;
    struct random_source r = random_seeded("lossless hostile");
    for (int round = 0; round < 120; round++) {
        struct wf_plane plane = shapes[random_below(&r, SHAPES)];
        plane.dtype = dtypes[random_below(&r, DTYPES)];
        size_t size = wf_plane_bytes(&plane), bytes = 0;
        uint8_t *plain = malloc(size), *coded = malloc(size + GUARD);
        void *scratch = scratch_of(&plane);
        assert_true(plain && coded);
        fill(&plane, round % 3 ? LIKE_KV : PADDED, &r, plain);
        if (wf_lossless_encode_by(&wf_lossless_scalar, &plane, 1 + random_below(&r, 2), plain,
                                  coded, &bytes, scratch) == WEFT_OK) {
            hostile(&plane, coded, random_below(&r, (uint32_t)bytes));
            for (int i = 0; i < 60; i++) {
                /* The head and the tables most of all. */
                uint32_t below = random_below(&r, 3) ? 48 : (uint32_t)bytes;
                uint32_t at = random_below(&r, below < bytes ? below : (uint32_t)bytes);
                uint8_t was = coded[at];
                coded[at] = (uint8_t)(random_below(&r, 2) ? random_next(&r) : was ^ 1u << i % 8);
                hostile(&plane, coded, bytes);
                if (random_below(&r, 4))
                    coded[at] = was;
            }
        }
        for (size_t i = 0; i < size; i++)
            coded[i] = (uint8_t)random_next(&r);
        coded[0] = (uint8_t)(random_below(&r, 3) ? 1 + random_below(&r, 2)
                                                 : WF_LOSSLESS_SMALL | random_next(&r));
        hostile(&plane, coded, size);
        free(plain);
        free(coded);
        free(scratch);
    }
}

/* Where the symbol of each dtype lies, how many bits above and below it part 0 of the rest has, and
 * the bytes below these. */
static const struct cut {
    enum weft_dtype dtype;
    uint32_t shift, mask, sign, top, lows;
} cuts[] = {
    {WEFT_F32, 23, 255, 1, 7, 2},    {WEFT_F16, 10, 31, 1, 2, 1},     {WEFT_BF16, 7, 255, 1, 7, 0},
    {WEFT_FP8_E4M3, 3, 15, 1, 3, 0}, {WEFT_FP8_E5M2, 2, 31, 1, 2, 0}, {WEFT_INT8, 4, 15, 0, 4, 0},
};
static_assert(sizeof cuts / sizeof cuts[0] == DTYPES, "a cut for each");

static uint32_t element_at(const struct cut *cut, const uint8_t *plain, size_t i)
{
    uint32_t element = 0;
    size_t size = weft_dtype_bytes(cut->dtype);
    memcpy(&element, plain + i * size, size);
    return element;
}

/* Part 0 of an element's rest. */
static uint32_t top_of(const struct cut *cut, uint32_t element)
{
    uint32_t mantissa = element >> 8 * cut->lows & ((1u << cut->top) - 1);
    uint32_t sign = element >> (8 * weft_dtype_bytes(cut->dtype) - 1);
    return mantissa | (cut->sign ? sign << cut->top : 0);
}

static void check_split(const struct wf_lossless_kernels *kernels, const struct cut *cut,
                        size_t groups, const uint8_t *plain)
{
    size_t n = groups * WF_GROUP;
    uint32_t bits = cut->top + cut->sign;
    struct room symbols = room_of(n), top = room_of(n / 8 * bits), low = room_of(n),
                middle = room_of(n);
    uint8_t *const parts[WF_PARTS_MAX] = {top.bytes, low.bytes, middle.bytes};
    kernels->symbols(cut->dtype, groups, plain, symbols.bytes);
    kernels->rest(cut->dtype, groups, plain, parts);
    for (size_t i = 0; i < n; i++) {
        uint32_t element = element_at(cut, plain, i), got = bits == 8 ? top.bytes[i] : 0;
        for (uint32_t bit = 0; bit < bits && bits < 8; bit++)
            got |= (top.bytes[(i / 64 * bits + bit) * 8 + i % 64 / 8] >> i % 8 & 1u) << bit;
        assert_int_equal(symbols.bytes[i], element >> cut->shift & cut->mask);
        assert_int_equal(got, top_of(cut, element));
        for (uint32_t byte = 0; byte < cut->lows && byte + 1 < WF_PARTS_MAX; byte++)
            assert_int_equal(parts[1 + byte][i], element >> 8 * byte & 255);
    }
    free_room(&symbols);
    free_room(&top);
    free_room(&low);
    free_room(&middle);
}

/* Elements fall into the parts that the format has, whatever cuts them. */
static void test_splits(void **state)
{
    (void)state;
    struct random_source r = random_seeded("splits");
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        const struct wf_lossless_kernels *kernels = wf_lossless_kernels_of((enum wf_codec_isa)isa);
        for (size_t d = 0; d < DTYPES; d++) {
            for (size_t groups = 0; groups < 8; groups++) {
                size_t size = groups * WF_GROUP * weft_dtype_bytes(cuts[d].dtype);
                struct room plain = room_of(size);
                for (size_t i = 0; i < size; i++)
                    plain.bytes[i] = (uint8_t)random_next(&r);
                check_split(kernels, &cuts[d], groups, plain.bytes);
                free_room(&plain);
            }
        }
    }
}

/* A plane's worth of groups in codes of one width. */
struct coded {
    struct wf_symbols symbols;
    size_t groups;
    uint8_t codes[8 * 32], seconds[16 * WF_GROUP], escapes[16 * WF_GROUP];
    uint64_t second;
    uint32_t escaped;
};

static void code_fixed(const struct wf_lossless_kernels *kernels, const uint8_t *symbols,
                       struct coded *c)
{
    struct wf_writer w = {.symbols = &c->symbols,
                          .codes = c->codes,
                          .seconds = c->seconds,
                          .escapes = c->escapes,
                          .ahead = symbols,
                          .ahead_lines = 1};
    memset(c->seconds, 0, sizeof c->seconds);
    kernels->fixed_encode(&w, c->groups, symbols);
    c->second = w.second;
    c->escaped = w.escaped;
}

static void decode_fixed(const struct wf_lossless_kernels *kernels, const struct coded *c,
                         const struct wf_rest *rest, const uint8_t *plain)
{
    static const uint8_t no_base[2 * WF_GROUP];
    size_t planes = c->groups * 8 * c->symbols.width;
    struct room out = room_of(c->groups * WF_GROUP * weft_dtype_bytes(rest->dtype));
    struct wf_reader r = {
        .symbols = &c->symbols,
        .tile = {.base = no_base, .channels = WF_GROUP},
        .codes = c->codes,
        .codes_end = c->codes + planes,
        .limit = c->seconds + sizeof c->seconds,
        .seconds = c->seconds,
        .seconds_end = c->second,
        .escapes = c->escapes,
        .escapes_left = c->escaped,
    };
    assert_int_equal(kernels->fixed_decode(&r, c->groups, rest, out.bytes), c->groups);
    assert_false(r.damaged);
    assert_int_equal(r.escapes_left, 0);
    assert_int_equal(r.second, r.seconds_end);
    assert_memory_equal(out.bytes, plain, out.size);
    free_room(&out);
}

/* Codes of a width, whether or not a plane would choose it: with few and many second codes, and
 * bytes behind these. */
static void every_width(const struct cut *cut, size_t groups, enum content content,
                        struct random_source *r)
{
    struct wf_plane plane = {.dtype = cut->dtype,
                             .tokens = (uint32_t)groups,
                             .heads = 1,
                             .head_dim = WF_GROUP};
    size_t size = wf_plane_bytes(&plane), n = groups * WF_GROUP;
    struct room plain = room_of(size), symbols = room_of(n), top = room_of(n), low = room_of(n),
                middle = room_of(n);
    uint8_t *const parts[WF_PARTS_MAX] = {top.bytes, low.bytes, middle.bytes};
    struct wf_rest rest = {cut->dtype, {top.bytes, low.bytes, middle.bytes}};
    fill(&plane, content, r, plain.bytes);
    wf_lossless_scalar.symbols(cut->dtype, groups, plain.bytes, symbols.bytes);
    wf_lossless_scalar.rest(cut->dtype, groups, plain.bytes, parts);
    uint16_t histogram[256] = {0};
    for (size_t i = 0; i < n; i++)
        histogram[symbols.bytes[i]]++;
    struct wf_counts counts;
    struct wf_ranking ranking;
    wf_symbols_count(histogram, &counts);
    wf_symbols_rank(&counts, &ranking);
    ranking.found = ranking.found > 16 ? 16 : ranking.found; /* what the least width can have */
    for (uint32_t width = 1; width <= 4; width++) {
        struct coded first = {.groups = groups};
        wf_symbols_fixed(&ranking, &first.symbols);
        first.symbols.width = width;
        struct coded other = first;
        code_fixed(&wf_lossless_scalar, symbols.bytes, &first);
        for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
            if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
                continue;
            const struct wf_lossless_kernels *kernels = wf_lossless_kernels_of(
                (enum wf_codec_isa)isa);
            code_fixed(kernels, symbols.bytes, &other);
            assert_int_equal(other.second, first.second);
            assert_int_equal(other.escaped, first.escaped);
            assert_memory_equal(other.codes, first.codes, groups * 8 * width);
            assert_memory_equal(other.seconds, first.seconds, (first.second + 7) / 8);
            assert_memory_equal(other.escapes, first.escapes, first.escaped);
            decode_fixed(kernels, &first, &rest, plain.bytes);
        }
    }
    free_room(&plain);
    free_room(&symbols);
    free_room(&top);
    free_room(&low);
    free_room(&middle);
}

static void test_every_width(void **state)
{
    (void)state;
    struct random_source r = random_seeded("widths");
    for (size_t d = 0; d < DTYPES; d++) {
        for (size_t groups = 1; groups <= 7; groups++) {
            for (int content = 0; content < CONTENTS; content++)
                every_width(&cuts[d], groups, (enum content)content, &r);
        }
    }
}

/* Planes are kept on disks for years: what was written once is written for ever, bit for bit. */
static void test_the_stream_stays(void **state)
{
    (void)state;
    static const uint64_t known[DTYPES] = {0x1772839e41271788u, 0x693d243496191435u,
                                           0xe2559e792af7d251u, 0x91a392f73a085d5fu,
                                           0xa5845742cf9f5caeu, 0x88ddc6a6bde76934u};
    bool same = true;
    for (size_t d = 0; d < DTYPES; d++) {
        struct random_source r = {1 + d};
        uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
        for (size_t s = 0; s < SHAPES; s++) {
            struct wf_plane plane = shapes[s];
            plane.dtype = dtypes[d];
            size_t size = weft_dtype_bytes(plane.dtype), n = wf_plane_elements(&plane), bytes = 0;
            uint8_t *plain = malloc(n * size), *coded = malloc(n * size);
            void *scratch = scratch_of(&plane);
            assert_true(plain && coded);
            for (size_t i = 0; i < n; i++) {
                /* Each binade half as likely as the next; channels apart; no floating point. */
                uint64_t any = random_next(&r);
                uint32_t symbol = 12 - (uint32_t)__builtin_ctzll(any | 64) - (uint32_t)(i % 3);
                uint32_t element = (uint32_t)(any >> 16) & ~(cuts[d].mask << cuts[d].shift);
                element |= (symbol & cuts[d].mask) << cuts[d].shift;
                memcpy(plain + i * size, &element, size);
            }
            for (int mode = 0; mode <= WF_LOSSLESS_ENTROPY; mode++) {
                if (wf_lossless_encode_by(&wf_lossless_scalar, &plane, (enum wf_lossless_mode)mode,
                                          plain, coded, &bytes, scratch) != WEFT_OK)
                    bytes = 0;
                for (size_t i = 0; i < bytes; i++)
                    hash = (hash ^ coded[i]) * 0x100000001b3u;
            }
            free(plain);
            free(coded);
            free(scratch);
        }
        if (hash != known[d])
            fprintf(stderr, "# dtype %zu: 0x%016llx\n", d, (unsigned long long)hash);
        same = same && hash == known[d];
    }
    assert_true(same);
}

static void test_bit_planes(void **state)
{
    (void)state;
    struct random_source r = random_seeded("bit planes");
    uint8_t bytes[128], packed[128], back[128];
    for (uint32_t bits = 1; bits < 8; bits++) {
        for (int i = 0; i < 128; i++)
            bytes[i] = (uint8_t)random_below(&r, 1u << bits);
        wf_bits_pack(bits, 2, bytes, packed);
        wf_bits_unpack(bits, 2, packed, back);
        assert_memory_equal(back, bytes, 128);
        for (int i = 0; i < 128; i++)
            assert_int_equal(packed[i / 64 * 8 * (int)bits + i % 64 / 8] >> i % 8 & 1,
                             bytes[i] & 1);
    }
}

/* Any counts give a full prefix code, and the most frequent symbols the shortest ones. */
static void test_codes(void **state)
{
    (void)state;
    struct random_source r = random_seeded("codes");
    for (int round = 0; round < 20000; round++) {
        uint16_t histogram[256] = {0};
        struct wf_counts counts;
        struct wf_ranking ranking;
        struct wf_symbols s;
        uint32_t kinds = 1 + random_below(&r, 40), steep = random_below(&r, 12);
        for (uint32_t i = 0; i < kinds; i++) {
            uint32_t at = random_below(&r, 4) ? 100 + i : random_below(&r, 256);
            uint32_t shift = i * steep / 4 < 10 ? i * steep / 4 : 10;
            histogram[at] = (uint16_t)(histogram[at] + 1 + (random_below(&r, 1u << 10) >> shift));
        }
        wf_symbols_count(histogram, &counts);
        wf_symbols_rank(&counts, &ranking);
        for (uint32_t i = 1; i < ranking.found; i++)
            assert_true(ranking.count[i] <= ranking.count[i - 1]);
        uint32_t bits = wf_symbols_entropy(&ranking, &s);
        assert_int_not_equal(bits, UINT32_MAX);
        assert_true(wf_symbols_entropy_least(&ranking) <= bits);
        uint32_t used = 0;
        for (uint32_t i = 0; i <= s.symbols; i++)
            used += 64u >> s.length[i];
        assert_int_equal(used, 64);
        for (uint32_t i = 1; i < s.symbols; i++)
            assert_true(s.length[i] >= s.length[i - 1]);
        for (uint32_t i = 0; i < s.symbols; i++)
            assert_int_equal(s.value[i] == 0 ? s.zero : s.rank[(uint8_t)(s.value[i] - s.window)],
                             i);
    }
}

/* What is encoded lies at the very end of memory that may be read. */
static void test_nothing_is_read_beyond(void **state)
{
    (void)state;
    struct random_source r = random_seeded("beyond");
    static const enum content contents[] = {LIKE_KV, ZEROS, ONE_VALUE, RARE, HALVES};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                          0);
    assert_ptr_not_equal(pages, MAP_FAILED);
    assert_int_equal(mprotect(pages + page, page, PROT_NONE), 0);
    for (unsigned i = 0; i < DTYPES * 200 * 5; i++) {
        struct wf_plane plane = {.dtype = dtypes[i % DTYPES],
                                 .tokens = 1 + i / DTYPES % 200,
                                 .heads = 1,
                                 .head_dim = 1};
        size_t size = wf_plane_bytes(&plane), bytes;
        uint8_t plain[800], coded[800], back[800];
        void *scratch = scratch_of(&plane);
        fill(&plane, contents[i / (DTYPES * 200)], &r, plain);
        for (int mode = 0; mode <= WF_LOSSLESS_ENTROPY; mode++) {
            if (wf_lossless_encode_by(&wf_lossless_scalar, &plane, (enum wf_lossless_mode)mode,
                                      plain, coded, &bytes, scratch) != WEFT_OK)
                continue;
            memcpy(pages + page - bytes, coded, bytes);
            for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
                if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
                    continue;
                assert_int_equal(
                    wf_lossless_decode_by(wf_lossless_kernels_of((enum wf_codec_isa)isa), &plane,
                                          pages + page - bytes, bytes, back, scratch),
                    WEFT_OK);
                assert_memory_equal(back, plain, size);
            }
        }
        free(scratch);
    }
    assert_int_equal(munmap(pages, 2 * page), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_agree),
        cmocka_unit_test(test_what_it_saves),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_bit_planes),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_nothing_is_read_beyond),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_every_width),
        cmocka_unit_test(test_the_stream_stays),
        cmocka_unit_test(test_small_planes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
