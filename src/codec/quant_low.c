/* SPDX-License-Identifier: Apache-2.0
 *
 * int4 and int2: few bits an element, without calibration.
 *
 * After KIVI (arXiv 2402.02750) keys are cut along the channels: each channel of up to 64 tokens
 * is a lane with a zero and a step of its own, because the channels of keys differ and those with
 * outliers keep being the same.  Values are cut along the tokens, and turned first: a Hadamard
 * transform of the channels of a head (QuaRot, arXiv 2404.00456) spreads what sticks out, so that
 * each lane is close to Gaussian and needs no zero.  Which of the two ways a plane goes is decided
 * by the error that is to be expected of each for the same bits; what is K and what is V does not
 * matter.  Lanes get more or fewer bits as they need them (quant_cell.h).
 *
 *     0   +--------------------------------------------------------------+
 *         | view, 1 byte                                                 |
 *         +--------------------------------------------------------------+
 *         | the sinks as they are                                        |
 *         +--------------------------------------------------------------+
 *         | cells: per chunk of up to 64 tokens, strip after strip       |
 *         +--------------------------------------------------------------+
 *
 * The parameter: its lowest 8 bits are the bits an element may have, in sixteenths, all told (0:
 * the default; at most 136); bits 8 … 11 are as quant_part.h says; bits 12 and 13 are the view (0:
 * the better one, 1: channels, 2: turned).
 *
 * A plane with an infinity or a NaN is not taken: WEFT_MISS.  The error of an element is at most
 * the range of its lane, and the squared error of the cell about what its bits allow.
 */
#include <string.h>

#include "base/status.h"
#include "codec/codec.h"
#include "codec/quant_cell.h"
#include "codec/quant_part.h"

#define BUDGET_MAX 136u
#define SAMPLED 2u   /* strips of which one is looked at to choose the view */
#define TURN_MIN 16u /* channels that are turned together, and at most WF_CELL_SAMPLES */

enum view {
    VIEW_CHANNELS = 1,
    VIEW_TURNED = 2,
};

/* A plane on its way. */
struct job {
    const struct wf_plane *plane;
    const struct wf_quant_kernel *kernel;
    struct wf_cell *cell;
    enum view view;
    size_t size;     /* of an element */
    size_t row;      /* elements of a token */
    uint32_t sinks;  /* tokens that stay */
    uint32_t turned; /* channels that are turned together; 0: none can be */
    uint32_t sixteenths;
};

struct cursor {
    uint32_t chunk, strip;
};

static uint32_t turned_together(const struct wf_plane *plane)
{
    size_t row = (size_t)plane->heads * plane->head_dim;
    uint32_t own = plane->head_dim & -plane->head_dim;
    if (own < TURN_MIN) /* small heads are turned with their neighbours */
        own = (uint32_t)(row & -row);
    if (own > WF_CELL_SAMPLES)
        own = WF_CELL_SAMPLES;
    return own < TURN_MIN ? 0 : own;
}

static void start(const struct wf_plane *plane, uint32_t parameter, uint32_t sixteenths,
                  void *scratch, struct job *job)
{
    if ((parameter & 255) != 0)
        sixteenths = parameter & 255;
    *job = (struct job){
        .plane = plane,
        .kernel = wf_quant_kernel_widest(),
        .cell = scratch,
        .size = weft_dtype_bytes(plane->dtype),
        .row = (size_t)plane->heads * plane->head_dim,
        .sinks = wf_sinks_of(plane, parameter),
        .turned = turned_together(plane),
        .sixteenths = sixteenths < BUDGET_MAX ? sixteenths : BUDGET_MAX,
    };
}

/* The channels of a strip at the most. */
static uint32_t widest_of(const struct job *job, uint32_t tokens)
{
    bool turned = job->view == VIEW_TURNED && tokens > 0;
    return turned ? WF_CELL_LANES / tokens * job->turned : WF_CELL_LANES;
}

/* The next part in the order in which they are kept; false: that was the last one. */
static bool next_part(const struct job *job, struct cursor *cursor, struct wf_part *part)
{
    uint32_t unit = job->view == VIEW_TURNED ? job->turned : 1;
    while (wf_part_chunk(job->plane, job->sinks, cursor->chunk, part)) {
        if (wf_part_strip(job->plane, unit, widest_of(job, part->tokens), cursor->strip++, part))
            return true;
        cursor->chunk++;
        cursor->strip = 0;
    }
    return false;
}

static struct wf_cell_shape shape_of(const struct job *job, const struct wf_part *part)
{
    uint32_t elements = part->tokens * part->channels;
    struct wf_cell_shape shape = {
        .samples = part->tokens,
        .lanes = part->channels,
        .centred = true,
        .budget = elements * job->sixteenths / 16,
        .gain = 1,
    };
    if (job->view == VIEW_TURNED) {
        shape.samples = job->turned;
        shape.lanes = elements / job->turned;
        shape.centred = false;
        shape.gain = 1.0f / (float)job->turned; /* a power of two */
    }
    return shape;
}

/* -------------------------------------------------------------------------------- planes, cells */

/* A part of the plane into the tile, normalised and turned.  False: something in it is not
 * finite. */
static bool load_part(const struct job *job, const struct wf_part *part, const uint8_t *plain,
                      int *exponent)
{
    struct wf_cell *cell = job->cell;
    struct wf_cell_shape shape = shape_of(job, part);
    float highest = 0;
    if (shape.lanes % 64 != 0)
        memset(cell->tile, 0, sizeof(float) * shape.samples * WF_TILE_STRIDE);
    for (uint32_t t = 0; t < part->tokens; t++) {
        const uint8_t *from = plain + wf_part_place(job->plane, part, t);
        float *to = job->view == VIEW_TURNED ? cell->rows + (size_t)t * part->channels
                                             : cell->tile + (size_t)t * WF_TILE_STRIDE;
        job->kernel->load(job->plane->dtype, from, part->channels, to, &highest);
    }
    if (!(highest <= 0x1.fffffep127f))
        return false;
    for (uint32_t c = 0; job->view == VIEW_TURNED && c < part->channels; c += job->turned)
        job->kernel->transpose(cell->rows + c, part->channels, part->tokens, job->turned,
                               cell->tile + c / job->turned * part->tokens, WF_TILE_STRIDE);
    *exponent = highest > 0 ? wf_cell_normalise(cell, shape.samples, shape.lanes, highest) : 0;
    if (job->view == VIEW_TURNED)
        job->kernel->hadamard(cell->tile, shape.samples, (shape.lanes + 63) & ~63u);
    return true;
}

static void emit_channels(const struct job *job, const struct wf_part *part, float scale,
                          uint8_t *plain)
{
    for (uint32_t t = 0; t < part->tokens; t++)
        job->kernel->emit(job->plane->dtype, job->cell->codes + (size_t)t * WF_CELL_LANES,
                          part->channels, &job->cell->steps, scale,
                          plain + wf_part_place(job->plane, part, t));
}

/* Lane group × tokens + token is `turned` channels of a token. */
static void emit_turned(const struct job *job, const struct wf_part *part, float scale,
                        uint8_t *plain)
{
    struct wf_cell *cell = job->cell;
    uint32_t lanes = part->tokens * part->channels / job->turned, token = 0;
    size_t group = 0; /* bytes before it in the part's row */
    for (uint32_t first = 0; first < lanes; first += WF_TURN_LANES) {
        job->kernel->turn_out(cell->codes, job->turned, &cell->steps, first, cell->rows);
        for (uint32_t l = first; l < first + WF_TURN_LANES && l < lanes; l++) {
            job->kernel->store(job->plane->dtype, cell->rows + (l - first) * WF_CELL_SAMPLES,
                               job->turned, scale,
                               plain + wf_part_place(job->plane, part, token) + group);
            if (++token == part->tokens) {
                token = 0;
                group += job->turned * job->size;
            }
        }
    }
}

/* The mean squared error to be expected of a view, from one strip of SAMPLED; negative: something
 * is not finite. */
static double expect(struct job *job, enum view view, const uint8_t *plain)
{
    double error = 0;
    size_t elements = 0;
    job->view = view;
    struct cursor cursor = {0};
    struct wf_part part;
    while (next_part(job, &cursor, &part)) {
        int exponent;
        if (!load_part(job, &part, plain, &exponent))
            return -1;
        cursor.strip += SAMPLED - 1;
        struct wf_cell_shape shape = shape_of(job, &part);
        double own = wf_cell_expect(job->kernel, job->cell, &shape);
        error += __builtin_ldexp(own * (double)shape.gain, 2 * exponent);
        elements += shape.samples * shape.lanes;
    }
    return elements ? error / (double)elements : 0;
}

static bool choose_view(struct job *job, uint32_t parameter, const uint8_t *plain)
{
    unsigned asked = parameter >> 12 & 3;
    if (job->turned == 0 || asked == VIEW_CHANNELS) {
        job->view = VIEW_CHANNELS;
        return true;
    }
    job->view = VIEW_TURNED;
    if (asked == VIEW_TURNED)
        return true;
    double channels = expect(job, VIEW_CHANNELS, plain);
    if (channels < 0)
        return false;
    double turned = expect(job, VIEW_TURNED, plain);
    job->view = turned < channels ? VIEW_TURNED : VIEW_CHANNELS;
    return true;
}

/* ------------------------------------------------------------------------------------ the codec */

static bool takes(const struct wf_plane *plane)
{
    /* A row of fewer elements is no row of a head, and may be an engine's own bytes. */
    return plane->dtype >= WEFT_F32 && plane->dtype <= WEFT_FP8_E5M2 &&
           (size_t)plane->heads * plane->head_dim >= 8;
}

static size_t bound(const struct wf_plane *plane)
{
    size_t row = (size_t)plane->heads * plane->head_dim;
    size_t chunks = wf_chunks_of(plane->tokens);
    size_t lanes = chunks * row; /* turned ones have not more */
    size_t cells = chunks * (row / TURN_MIN + 1);
    return 1 + WF_SINKS_MAX * row * weft_dtype_bytes(plane->dtype) + wf_plane_elements(plane) +
           3 * lanes + wf_plane_elements(plane) / TURN_MIN + cells * sizeof(struct wf_cell_head) +
           WF_PACK_SLACK;
}

static size_t scratch_bytes(const struct wf_plane *plane)
{
    (void)plane;
    return sizeof(struct wf_cell);
}

static enum weft_status encode(const struct wf_plane *plane, uint32_t parameter,
                               uint32_t sixteenths, const void *plain, void *out, size_t *out_bytes,
                               void *scratch)
{
    struct job job;
    start(plane, parameter, sixteenths, scratch, &job);
    if (!choose_view(&job, parameter, plain))
        return WEFT_MISS;
    uint8_t *at = out;
    *at++ = (uint8_t)job.view;
    size_t kept = job.sinks * job.row * job.size;
    memcpy(at, plain, kept);
    at += kept;
    struct cursor cursor = {0};
    struct wf_part part;
    while (next_part(&job, &cursor, &part)) {
        int exponent;
        if (!load_part(&job, &part, plain, &exponent))
            return WEFT_MISS;
        struct wf_cell_shape shape = shape_of(&job, &part);
        at += wf_cell_encode(job.kernel, job.cell, &shape, exponent, at);
    }
    size_t bytes = (size_t)(at - (uint8_t *)out);
    if (bytes >= wf_plane_bytes(plane))
        return WEFT_MISS;
    *out_bytes = bytes;
    return WEFT_OK;
}

static enum weft_status corrupt(const char *what)
{
    return wf_fail(WEFT_E_CORRUPT,
                   "a quantised plane is damaged: %s; the block has to be computed anew", what);
}

static enum weft_status decode(const struct wf_plane *plane, uint32_t parameter, const void *in,
                               size_t bytes, void *plain, void *scratch)
{
    struct job job;
    start(plane, parameter, 0, scratch, &job);
    const uint8_t *at = in, *end = at + bytes;
    size_t kept = job.sinks * job.row * job.size;
    if (bytes < 1 + kept)
        return corrupt("it ends in its first tokens");
    job.view = *at++;
    if (job.view != VIEW_CHANNELS && (job.view != VIEW_TURNED || job.turned == 0))
        return corrupt("it is cut in no known way");
    memcpy(plain, at, kept);
    at += kept;
    struct cursor cursor = {0};
    struct wf_part part;
    while (next_part(&job, &cursor, &part)) {
        struct wf_cell_shape shape = shape_of(&job, &part);
        float scale;
        size_t used = wf_cell_decode(job.kernel, job.cell, &shape, at, (size_t)(end - at), &scale);
        if (used == 0)
            return corrupt("a cell of it is none");
        at += used;
        if (job.view == VIEW_TURNED)
            emit_turned(&job, &part, scale, plain);
        else
            emit_channels(&job, &part, scale, plain);
    }
    return at == end ? WEFT_OK : corrupt("it does not end where its cells do");
}

#define INT4_SIXTEENTHS 68u
#define INT2_SIXTEENTHS 39u

static enum weft_status encode_int4(const struct wf_plane *plane, uint32_t parameter,
                                    const void *plain, void *out, size_t capacity,
                                    size_t *out_bytes, void *scratch)
{
    (void)capacity;
    return encode(plane, parameter, INT4_SIXTEENTHS, plain, out, out_bytes, scratch);
}

static enum weft_status encode_int2(const struct wf_plane *plane, uint32_t parameter,
                                    const void *plain, void *out, size_t capacity,
                                    size_t *out_bytes, void *scratch)
{
    (void)capacity;
    return encode(plane, parameter, INT2_SIXTEENTHS, plain, out, out_bytes, scratch);
}

const struct wf_codec wf_codec_int4 = {
    .name = "int4",
    .says = "4.25 bits an element in all, dealt out by channel or token",
    .id = WF_CODEC_INT4,
    .takes = takes,
    .bound = bound,
    .scratch = scratch_bytes,
    .encode = encode_int4,
    .decode = decode,
};

const struct wf_codec wf_codec_int2 = {
    .name = "int2",
    .says = "2.4375 bits an element in all, dealt out by channel or token",
    .id = WF_CODEC_INT2,
    .takes = takes,
    .bound = bound,
    .scratch = scratch_bytes,
    .encode = encode_int2,
    .decode = decode,
};
