/* SPDX-License-Identifier: Apache-2.0
 *
 * The lossless codec: how a plane lies in its bytes, and what its kernels do.
 *
 * Of a float of KV, sign and mantissa are noise, and the exponent is one of a few.  So each element
 * is cut into a *symbol* (the exponent; of bytes, the upper half) and the *rest*, and the rest is
 * stored as it is.  Of the symbols the most frequent have a code each and all others are escaped:
 *
 *   fixed    codes of 1 to 4 bits, as bit planes; what is escaped follows as four bits for the
 *            next 15 symbols, also as bit planes, or these and a byte
 *   entropy  prefix codes of 1 to 6 bits (D. Huffman, 1952) for up to 15 symbols; what is escaped
 *            follows as a byte
 *
 * Where the channels of a plane differ, which those of keys do, a symbol is what is left after the
 * channel's own base was taken off, modulo 256.
 *
 *     0   +--------------------------------------------------------------+
 *         | struct wf_lossless_head, 12 bytes                            |
 *         +--------------------------------------------------------------+
 *         | value of each symbol with a code, from the most frequent     |
 *         +--------------------------------------------------------------+
 *         | entropy: lengths of the codes and of the escape, 4 bits each |
 *         +--------------------------------------------------------------+
 *         | bases: the least one, then 4 bits a channel over it          |
 *         +--------------------------------------------------------------+
 *         | entropy: 16 lanes' first states, 32 bits each; words, 16 bits|
 *         | fixed: of each 64 elements `width` bit planes of 64 bits;    |
 *         |        then of each 64, of which n were escaped, 4 of n bits |
 *         +--------------------------------------------------------------+
 *         | escaped symbols, a byte each                                 |
 *         +--------------------------------------------------------------+
 *         | the rest of each element: bit planes or bytes (wf_split)     |
 *         +--------------------------------------------------------------+
 *
 * Entropy: 16 lanes read one stream of words, so that a vector decodes 16 symbols at once.  Of each
 * 64 elements lane l has numbers 4l … 4l+3.  A lane's state holds its next bits below a one that
 * marks their end; a code is read from the low end.  After two symbols, at most 12 bits, each lane
 * whose state is below 2^16 shifts in the next word, in the order of the lanes.  Encoding runs all
 * of that backwards, from the last element to the first, as in ANS (J. Duda, 2013; interleaved: F.
 * Giesen, arXiv:1402.3392) of which this is the case where every frequency is a power of two: a
 * table of 64 entries lies in four registers, and no load depends on what was decoded.  The last
 * states are 2^16.
 *
 * Numbers are little-endian.  The last group of 64 is filled up with a symbol that has a code.
 *
 * Of a small plane the head and the tables would be a thirtieth.  Where the symbols lie together,
 * as exponents do, fixed needs three bytes of them (lossless_small.c): codes are those of a window
 * of values, and what else the head says follows from how long the plane is.
 *
 *     0   +--------------------------------------------------------------+
 *         | 1, bits of a code − 1 (2 bits), 0, escapes there, an odd     |
 *         |   number of second codes, bases of 3 bits, bases; from bit 7 |
 *         | the window's least value, the least base added               |
 *         | 0, WF_LOSSLESS_SAME of part 2, 1, 0; how many values of the  |
 *         |   window lie below those that have a code of their own       |
 *         +--------------------------------------------------------------+
 *         | bases: 3 or 4 bits a channel over the least                  |
 *         +--------------------------------------------------------------+
 *         | bit planes, second codes, escaped symbols, rest: as above    |
 *         +--------------------------------------------------------------+
 *         | where there are escapes: how many bytes, 16 bits             |
 *         +--------------------------------------------------------------+
 */
#ifndef WF_CODEC_LOSSLESS_H
#define WF_CODEC_LOSSLESS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"
#include "codec/isa.h"

enum wf_lossless_mode {
    WF_LOSSLESS_FIXED = 1,
    WF_LOSSLESS_ENTROPY = 2,
};

enum wf_lossless_flags {
    WF_LOSSLESS_BASES = 1,
    WF_LOSSLESS_SAME = 2, /* << part: all bytes of this part of the rest are the same, and one is
                             stored */
};

struct wf_lossless_head {
    uint8_t mode;     /* enum wf_lossless_mode */
    uint8_t flags;    /* enum wf_lossless_flags */
    uint8_t symbols;  /* that have a value below */
    uint8_t width;    /* fixed: bits of a code */
    uint32_t words;   /* entropy: of 16 bits; fixed: escaped symbols, 4 bits each */
    uint32_t escapes; /* bytes */
};
static_assert(sizeof(struct wf_lossless_head) == 12, "plane format");

/* The first byte of a small plane, of which the others' modes are none. */
#define WF_LOSSLESS_SMALL 0x80u
#define WF_SMALL_ELEMENTS_MAX 32768u

#define WF_LANES 16
#define WF_GROUP 64u
#define WF_PARTS_MAX 3u
#define WF_CODE_BITS 6
#define WF_CODE_ENTRIES (1u << WF_CODE_BITS)
#define WF_STATE_LEAST 65536u
#define WF_SYMBOLS_MAX 30
#define WF_ENTROPY_SYMBOLS_MAX 15
#define WF_SECOND_RAW 15
#define WF_WINDOW 32u
#define WF_WINDOW_BELOW 20u /* of them lie below its middle */
#define WF_SAMPLE_GROUPS 32u
#define WF_COUNT_GROUPS 4u
#define WF_CHANNELS_MAX 16384u

/* How symbols are coded. */
struct wf_symbols {
    uint32_t symbols;             /* with a rank: 0 … symbols − 1 */
    uint32_t width;               /* fixed */
    uint8_t value[32];            /* of each rank; 0 beyond */
    uint8_t rank[WF_WINDOW];      /* of the values from `window` on; `symbols` where it is none */
    uint8_t window, zero;         /* zero: the rank of 0, which may lie outside */
    uint8_t length[16], code[16]; /* entropy, by rank; [symbols]: the escape */
    uint8_t decode[WF_CODE_ENTRIES]; /* entropy: length | rank << 4, by the next 6 bits */
};

/* Bases of the channels, tiled so that 64 can be read from any channel on. */
struct wf_tile {
    const uint8_t *base;     /* [channels + 64] */
    uint32_t channels, step; /* step: 64 % channels */
    uint32_t at;             /* the channel of the next group's first element */
};

static inline const uint8_t *wf_tile_next(struct wf_tile *tile)
{
    const uint8_t *base = tile->base + tile->at;
    tile->at += tile->step;
    if (tile->at >= tile->channels)
        tile->at -= tile->channels;
    return base;
}

/* What is being decoded.  Kernels take it from one call to the next. */
struct wf_reader {
    const struct wf_symbols *symbols;
    struct wf_tile tile;
    const uint8_t *codes, *codes_end; /* words or bit planes; the end of them */
    const uint8_t *limit;             /* what may be read at all ends here */
    uint32_t state[WF_LANES];
    const uint8_t *seconds; /* fixed: the codes of what was escaped; at which bit, and how many */
    uint64_t second, seconds_end;
    const uint8_t *escapes;
    uint32_t escapes_left;
    bool damaged; /* more was escaped than is there */
};

/* What is being encoded: entropy from the last group to the first, writing downwards; fixed the
 * other way. */
struct wf_writer {
    const struct wf_symbols *symbols;
    uint8_t *codes; /* entropy: where the words begin that are written; 32 bytes below may be
                       written too */
    uint32_t state[WF_LANES];
    uint8_t *seconds; /* fixed: as above; 8 bytes from the one that holds the next bit are this
                         writer's */
    uint64_t second;
    uint8_t *escapes; /* the end of those written; entropy: their begin */
    uint32_t escaped;
    const uint8_t *ahead; /* what is likely to be encoded next, and may be fetched: so many lines
                             of 64 bytes a group; nothing needs to be there */
    uint32_t ahead_lines;
};

/* Of the symbols of some tokens: their sums over the tokens, one for each channel, divided by the
 * number of tokens, and added up. */
struct wf_means {
    uint8_t *mean;         /* [channels + 64], rounded */
    uint64_t sum, squares; /* of the sums */
    uint8_t least, most;   /* of the means */
};

/* What is not coded of the elements of whole groups: the parts as they are stored (wf_split). */
struct wf_rest {
    enum weft_dtype dtype;
    const uint8_t *part[WF_PARTS_MAX];
};

/* One instruction set's.  All answer the same. */
struct wf_lossless_kernels {
    /* Both answer how many groups they decoded: fewer where the codes do not suffice, or come too
     * near to the limit for vectors.  `rest` NULL: `out` gets the symbols, a byte each; else the
     * elements made of both. */
    size_t (*entropy_decode)(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                             uint8_t *out);
    size_t (*fixed_decode)(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                           uint8_t *out);
    /* Of symbols without their bases. */
    void (*entropy_encode)(struct wf_writer *w, size_t groups, const uint8_t *symbols);
    void (*fixed_encode)(struct wf_writer *w, size_t groups, const uint8_t *symbols);
    /* Of groups of elements the symbols, a byte each, or the rest as it is stored. */
    void (*symbols)(enum weft_dtype dtype, size_t groups, const uint8_t *plain, uint8_t *out);
    void (*rest)(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                 uint8_t *const parts[WF_PARTS_MAX]);
    /* Takes each channel's base off. */
    void (*subtract)(const struct wf_tile *tile, size_t groups, uint8_t *symbols);
    /* Of 2^shift tokens, which lie evenly in the plane. */
    void (*means)(const struct wf_plane *plane, const uint8_t *symbols, unsigned shift,
                  struct wf_means *out);
    /* How often each value of a window is among groups, which begin at places[] and are a multiple
     * of WF_COUNT_GROUPS and at most WF_SAMPLE_GROUPS; from its middle outwards, as wf_window_at()
     * goes, until all were seen, and then what is left counts 0.  Answers how many were seen. */
    uint32_t (*count)(size_t groups, const uint32_t *places, const uint8_t *symbols, uint8_t window,
                      uint16_t counts[WF_WINDOW]);
};

/* The places of a window from its middle outwards: below and above by turns, then the rest. */
static inline uint32_t wf_window_at(uint32_t step)
{
    uint32_t above = WF_WINDOW - WF_WINDOW_BELOW, apart = (step + 1) / 2;
    if (step >= 2 * above - 1)
        return WF_WINDOW - 1 - step;
    return step % 2 ? WF_WINDOW_BELOW - apart : WF_WINDOW_BELOW + apart;
}

extern const struct wf_lossless_kernels wf_lossless_scalar, wf_lossless_avx2, wf_lossless_avx512;

/* Of an instruction set that is usable. */
const struct wf_lossless_kernels *wf_lossless_kernels_of(enum wf_codec_isa isa);

/* The codec by given kernels: `mode` 0 chooses. */
enum weft_status wf_lossless_encode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, enum wf_lossless_mode mode,
                                       const void *plain, void *out, size_t *out_bytes,
                                       void *scratch);
enum weft_status wf_lossless_decode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, const void *in, size_t bytes,
                                       void *plain, void *scratch);

/* ---------------------------------------------------------------------------- what was measured */

/* How often values are among some of a plane's symbols. */
struct wf_counts {
    uint16_t count[WF_WINDOW]; /* of the values from `window` on */
    uint16_t zeros;            /* 0, where it lies outside */
    uint8_t window;
    uint32_t total; /* of these and all others; up to WF_SAMPLE_GROUPS groups */
};

/* The symbols that may have a code, from the most frequent. */
struct wf_ranking {
    uint32_t found, total;
    uint32_t count[WF_SYMBOLS_MAX];
    uint8_t value[WF_SYMBOLS_MAX], window;
};

/* The window about the most frequent of all values but 0. */
void wf_symbols_count(const uint16_t histogram[256], struct wf_counts *out);
void wf_symbols_rank(const struct wf_counts *counts, struct wf_ranking *out);
/* Codes for symbols like these, and the bits an element that they take, in 1/256.  entropy():
 * UINT32_MAX where it has none. */
uint32_t wf_symbols_entropy(const struct wf_ranking *ranking, struct wf_symbols *out);
uint32_t wf_symbols_fixed(const struct wf_ranking *ranking, struct wf_symbols *out);
/* What fixed() would say, and the width that it would choose. */
uint32_t wf_symbols_fixed_bits(const struct wf_ranking *ranking, uint32_t *out_width);
/* No more than entropy() would say, at a small part of its cost. */
uint32_t wf_symbols_entropy_least(const struct wf_ranking *ranking);
/* The same by a window of values, for small planes: false where those that would have a code of
 * their own do not lie side by side, or more than a few of `elements` would be escaped.  `below`:
 * how many values of the window lie below them. */
bool wf_symbols_window(const struct wf_ranking *ranking, uint32_t width, size_t elements,
                       struct wf_symbols *out, uint32_t *below);
void wf_symbols_of_window(uint32_t width, uint8_t first, uint32_t below, struct wf_symbols *out);
/* code[] from length[], and decode[] if it is wanted; false: these are no lengths of a full prefix
 * code. */
bool wf_symbols_codes(struct wf_symbols *s, bool decode);

/* --------------------------------------------------------------------------------- small planes */

/* What the first three bytes of one say, and its bases. */
struct wf_small {
    uint32_t width, first, below; /* of the window; `first` is that of the symbols as they are */
    uint32_t bases_bits;          /* 0: none */
    uint32_t same;                /* one bit a part of the rest */
    bool odd, escaped;
};
#define WF_SMALL_BYTES 3u

void wf_small_put(const struct wf_small *small, uint8_t out[WF_SMALL_BYTES]);
/* False: no small plane begins so. */
bool wf_small_get(const uint8_t in[WF_SMALL_BYTES], struct wf_small *out);
static inline size_t wf_small_bases_bytes(uint32_t channels, uint32_t bits)
{
    return ((size_t)channels * bits + 7) / 8;
}
/* Of 4 bits a channel 3, in place.  Up to 3 bytes behind the last may be written. */
void wf_small_bases_pack(uint32_t channels, uint8_t *bases);
/* A byte a channel; up to 8 bytes behind the last may be written. */
void wf_small_bases_unpack(uint32_t channels, uint32_t bits, const uint8_t *in, uint8_t *out);

/* --------------------------------------------------------------------------------------- splits */

/* How elements of a dtype are cut.  Part 0 of the rest has `bits` of each element (8: bytes, else
 * bit planes), parts 1 … bytes of its low end. */
struct wf_split {
    uint32_t bits, lows;
};

struct wf_split wf_split_of(enum weft_dtype dtype);

/* Bytes of a part of so many groups. */
static inline size_t wf_split_bytes(struct wf_split split, uint32_t part, size_t groups)
{
    return groups * WF_GROUP / 8 * (part == 0 ? split.bits : 8);
}

/* The rest from a group on. */
static inline struct wf_rest wf_rest_from(const struct wf_rest *rest, size_t group)
{
    struct wf_split split = wf_split_of(rest->dtype);
    struct wf_rest from = *rest;
    for (uint32_t part = 0; part <= split.lows; part++)
        from.part[part] += wf_split_bytes(split, part, group);
    return from;
}

void wf_split_symbols(enum weft_dtype dtype, size_t elements, const uint8_t *plain,
                      uint8_t *symbols);
void wf_split_top(enum weft_dtype dtype, size_t elements, const uint8_t *plain, uint8_t *top);
void wf_split_low(enum weft_dtype dtype, uint32_t low, size_t elements, const uint8_t *plain,
                  uint8_t *out);
/* Up to a group; the rest is that of a whole one. */
void wf_merge(const struct wf_rest *rest, size_t elements, const uint8_t *symbols, uint8_t *plain);
/* Low `bits` of each byte as bit planes of 64; the bytes are a whole number of groups. */
void wf_bits_pack(uint32_t bits, size_t groups, const uint8_t *bytes, uint8_t *out);
void wf_bits_unpack(uint32_t bits, size_t groups, const uint8_t *in, uint8_t *bytes);

#endif
