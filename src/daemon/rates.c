/* SPDX-License-Identifier: Apache-2.0
 *
 * A codec's speed, as blocks will have it.
 *
 * A block that goes below DRAM was written a while ago, and one that comes back was just read from
 * a device: neither lies in a cache of the core that works on it.  A block measured over and over
 * does, and a codec seems twice as fast on it.  So a set of blocks is measured that is far more
 * than a core's own caches hold, a part of it at a time: one is encoded, then one decoded that was
 * encoded half a set before.  Of each step the best part counts, in time that this thread had: on a
 * host that is busy when the node starts, the rest is somebody else's, and says nothing of the
 * codec.
 *
 * What is in the blocks matters as much.  Their numbers have what codecs find in KV: a channel has
 * a range of its own, those of keys further apart than those of values, some channels of keys are
 * far from zero, and within that numbers are near a normal distribution.
 */
#include "daemon/rates.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/frame.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define LAYERS 4u /* 128 KiB a block, 16 KiB a plane */
#define TOKENS 16u
#define HEADS 4u
#define HEAD_DIM 128u
#define PARTS 32u
#define PART_BLOCKS 8u
#define BLOCKS (PARTS * PART_BLOCKS)
#define BEHIND (PARTS / 2)
#define SPENT_NS_MAX 80000000u /* after which no new part begins */

struct set {
    const struct wf_codec *codec;
    struct wf_layout layout;
    uint64_t stride;        /* of a frame */
    uint8_t *plain, *frame; /* [BLOCKS] of each */
    uint64_t encoded[BLOCKS];
    void *scratch;
};

/* -------------------------------------------------------------------------------------- made up */

/* From -0.5 to 0.5. */
static float draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (float)(*state >> 40) / (float)(1 << 24) - 0.5f;
}

static void fill_plane(uint16_t *out, bool keys, uint64_t *state)
{
    float scale[HEADS * HEAD_DIM], mean[HEADS * HEAD_DIM];
    for (unsigned c = 0; c < HEADS * HEAD_DIM; c++) {
        scale[c] = exp2f((keys ? 3.0f : 1.0f) * draw(state));
        mean[c] = keys && c % 8 == 0 ? 4 * draw(state) : 0;
    }
    for (unsigned i = 0; i < TOKENS * HEADS * HEAD_DIM; i++) {
        unsigned c = i % (HEADS * HEAD_DIM);
        float normal = draw(state) + draw(state) + draw(state) + draw(state);
        float value = scale[c] * (mean[c] + normal);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        out[i] = (uint16_t)(bits >> 16);
    }
}

static void fill(struct set *set)
{
    uint64_t state = 88172645463325252u, bytes = set->layout.bytes;
    uint64_t plane_bytes = bytes / set->layout.planes;
    for (unsigned i = 0; i < set->layout.planes; i++)
        fill_plane((uint16_t *)(void *)(set->plain + i * plane_bytes), i % 2 == 0, &state);
    for (unsigned i = 1; i < BLOCKS; i++)
        memcpy(set->plain + i * bytes, set->plain, bytes);
}

/* ------------------------------------------------------------------------------------- measured */

static uint64_t thread_ns(void)
{
    struct timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0)
        return wf_now_ns();
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static bool encode(struct set *set, unsigned block)
{
    struct wf_frame_plan plan = {.all.codec = set->codec};
    return wf_frame_encode(&set->layout, &plan, 0, set->plain + block * set->layout.bytes,
                           set->frame + block * set->stride, &set->encoded[block],
                           set->scratch) == WEFT_OK;
}

static bool decode(struct set *set, unsigned block)
{
    const uint8_t *frame = set->frame + block * set->stride;
    struct wf_frame head;
    return wf_frame_open(frame, set->encoded[block], &head) == WEFT_OK &&
           wf_frame_decode(&head, frame, 0, set->layout.planes, NULL,
                           set->plain + block * set->layout.bytes, set->scratch) == WEFT_OK;
}

/* One part, and *best_ns if no part before was so fast. */
static bool step(struct set *set, bool (*one)(struct set *, unsigned), unsigned part,
                 uint64_t *best_ns)
{
    uint64_t begun_ns = thread_ns();
    for (unsigned i = 0; i < PART_BLOCKS; i++)
        if (!one(set, part * PART_BLOCKS + i))
            return false;
    uint64_t ns = thread_ns() - begun_ns;
    *best_ns = ns < *best_ns ? ns : *best_ns;
    return true;
}

static struct wf_rates run(struct set *set, uint64_t begun_ns)
{
    uint64_t encode_ns = UINT64_MAX, decode_ns = UINT64_MAX;
    unsigned encoded = 0, decoded = 0;
    bool over = false;
    while (decoded < PARTS && (decoded == 0 || !over)) {
        if (encoded < PARTS && (encoded == 0 || !over) && !step(set, encode, encoded++, &encode_ns))
            return (struct wf_rates){0};
        over = thread_ns() - begun_ns > SPENT_NS_MAX;
        bool behind = encoded - decoded > BEHIND || encoded == PARTS || over;
        if (behind && !step(set, decode, decoded++, &decode_ns))
            return (struct wf_rates){0};
    }
    double bytes = (double)(PART_BLOCKS * set->layout.bytes);
    return (struct wf_rates){
        .encode_mbps = bytes / (double)(encode_ns ? encode_ns : 1) * 1e3,
        .decode_mbps = bytes / (double)(decode_ns ? decode_ns : 1) * 1e3,
        .ratio = (double)set->layout.bytes / (double)set->encoded[0],
    };
}

static void *room(uint64_t bytes)
{
    uint64_t whole = (bytes + WF_HUGE_BYTES - 1) / WF_HUGE_BYTES * WF_HUGE_BYTES;
    void *out = aligned_alloc(WF_HUGE_BYTES, whole);
    if (out)
        wf_advise_huge(out, whole);
    return out;
}

struct wf_rates wf_rates_measure(const struct wf_codec *codec)
{
    struct set set = {.codec = codec};
    struct wf_rates rates = {0};
    uint64_t begun_ns = thread_ns();
    if (!wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, HEAD_DIM, &set.layout))
        return rates;
    set.stride = (wf_frame_bound(&set.layout) + 4095) / 4096 * 4096;
    set.plain = room(BLOCKS * set.layout.bytes);
    set.frame = room(BLOCKS * set.stride);
    set.scratch = aligned_alloc(64, (wf_frame_scratch(&set.layout) + 63) / 64 * 64 + 64);
    if (set.plain && set.frame && set.scratch) {
        fill(&set);
        rates = run(&set, begun_ns);
    }
    free(set.plain);
    free(set.frame);
    free(set.scratch);
    return rates;
}
