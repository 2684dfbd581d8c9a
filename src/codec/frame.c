/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: written from a block and a plan, read from bytes that nobody vouches for.  The format is
 * drawn in frame.h.
 *
 * Pure and without state: any thread, each with scratch of its own.  A frame that was cut or
 * changed, in whatever way, is WEFT_E_CORRUPT: the head's checksum covers head and table, the
 * table's checksums cover the planes.
 */
#include "codec/frame.h"

#include <string.h>

#include "base/status.h"
#include "base/sum.h"
#include "codec/profile.h"

#define OPAQUE_PLANE_BYTES (1u << 20)

#define TOKENS_MAX 65536u
#define HEADS_MAX 4096u
#define HEAD_DIM_MAX 4096u

/* -------------------------------------------------------------------------------------- layouts */

bool wf_layout_of(enum weft_dtype dtype, uint32_t layers, uint32_t tokens, uint32_t heads,
                  uint32_t head_dim, struct wf_layout *out)
{
    if (layers < 1 || layers > WF_FRAME_PLANES_MAX / 2 || tokens < 1 || tokens > TOKENS_MAX ||
        heads < 1 || heads > HEADS_MAX || head_dim < 1 || head_dim > HEAD_DIM_MAX)
        return false;
    uint64_t plane_bytes = (uint64_t)tokens * heads * head_dim * weft_dtype_bytes(dtype);
    if (plane_bytes == 0 || plane_bytes > WF_CODEC_PLANE_BYTES_MAX)
        return false;
    *out = (struct wf_layout){
        .dtype = dtype,
        .planes = 2 * layers,
        .tokens = tokens,
        .heads = heads,
        .head_dim = head_dim,
        .bytes = 2 * layers * plane_bytes,
    };
    return true;
}

bool wf_layout_opaque(enum weft_dtype dtype, uint64_t bytes, struct wf_layout *out)
{
    if (bytes < 1 || bytes > (uint64_t)WF_FRAME_PLANES_MAX * OPAQUE_PLANE_BYTES ||
        weft_dtype_bytes(dtype) == 0)
        return false;
    /* What is no whole number of elements is bytes. */
    if (bytes % weft_dtype_bytes(dtype) != 0)
        dtype = WEFT_INT8;
    uint64_t piece = bytes < OPAQUE_PLANE_BYTES ? bytes : OPAQUE_PLANE_BYTES;
    *out = (struct wf_layout){
        .dtype = dtype,
        .planes = (uint32_t)((bytes + piece - 1) / piece),
        .tokens = (uint32_t)(piece / weft_dtype_bytes(dtype)),
        .heads = 1,
        .head_dim = 1,
        .bytes = bytes,
        .opaque = true,
    };
    return true;
}

static size_t plane_stride(const struct wf_layout *layout)
{
    return (size_t)layout->tokens * layout->heads * layout->head_dim *
           weft_dtype_bytes(layout->dtype);
}

void wf_layout_plane(const struct wf_layout *layout, uint32_t index, uint64_t position,
                     const struct wf_profile *profile, struct wf_plane *out)
{
    *out = (struct wf_plane){
        .dtype = layout->dtype,
        .tokens = layout->tokens,
        .heads = layout->heads,
        .head_dim = layout->head_dim,
        .layer = layout->opaque ? index : index / 2,
        .value = !layout->opaque && index % 2 == 1,
        .position = position,
        .profile = profile,
    };
    uint64_t rest = layout->bytes - (uint64_t)index * plane_stride(layout);
    if (layout->opaque && rest < plane_stride(layout))
        out->tokens = (uint32_t)(rest / weft_dtype_bytes(layout->dtype));
}

uint64_t wf_frame_bound(const struct wf_layout *layout)
{
    return layout->bytes + sizeof(struct wf_frame_head);
}

static size_t round_64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* The codec's own scratch, and behind it room for a plane that may become larger before it is known
 * that it does not become smaller. */
size_t wf_frame_scratch(const struct wf_layout *layout)
{
    struct wf_plane plane;
    wf_layout_plane(layout, 0, 0, NULL, &plane);
    size_t scratch = 0, bound = 0;
    const struct wf_codec *codec;
    for (unsigned i = 0; (codec = wf_codec_each(i)); i++) {
        size_t own = codec->scratch(&plane), most = codec->bound(&plane);
        scratch = own > scratch ? own : scratch;
        bound = most > bound ? most : bound;
    }
    return round_64(scratch) + round_64(bound);
}

static size_t codecs_scratch(const struct wf_plane *plane)
{
    size_t scratch = 0;
    const struct wf_codec *codec;
    for (unsigned i = 0; (codec = wf_codec_each(i)); i++) {
        size_t own = codec->scratch(plane);
        scratch = own > scratch ? own : scratch;
    }
    return round_64(scratch);
}

/* ------------------------------------------------------------------------------------- encoding */

static uint64_t frame_sum(const struct wf_frame_head *head, const void *rest, size_t bytes)
{
    struct wf_frame_head plain = *head;
    plain.checksum = 0;
    return wf_sum64_seeded(rest, bytes, wf_sum64(&plain, sizeof plain));
}

static void store(struct wf_frame_head *head, const void *block, uint8_t *out, uint64_t *out_bytes)
{
    head->flags = (uint8_t)((head->flags & WF_FRAME_OPAQUE) | WF_FRAME_STORED);
    head->quality = 0;
    head->profile = 0;
    head->encoded = head->bytes + sizeof *head;
    memcpy(out + sizeof *head, block, head->bytes);
    head->checksum = frame_sum(head, out + sizeof *head, head->bytes);
    memcpy(out, head, sizeof *head);
    *out_bytes = head->encoded;
}

static uint8_t version_of(const struct wf_codec *codec)
{
    return (uint8_t)(1 + codec->revision);
}

/* WEFT_MISS: the codec does not make it smaller.  WEFT_FULL: there is no room for what it made. */
static enum weft_status encode_by(const struct wf_codec *codec, uint32_t parameter,
                                  const struct wf_plane *plane, const uint8_t *plain, uint8_t *out,
                                  size_t room, uint8_t *scratch, struct wf_frame_plane *entry)
{
    size_t size = wf_plane_bytes(plane), encoded = 0;
    if (!codec || codec == &wf_codec_raw || !codec->takes(plane))
        return WEFT_MISS;
    size_t bound = codec->bound(plane);
    uint8_t *to = bound <= room ? out : scratch + codecs_scratch(plane);
    if (codec->encode(plane, parameter, plain, to, bound, &encoded, scratch) != WEFT_OK ||
        encoded >= size)
        return WEFT_MISS;
    if (encoded > room)
        return WEFT_FULL;
    if (to != out)
        memcpy(out, to, encoded);
    entry->codec = codec->id;
    entry->version = version_of(codec);
    entry->parameter = (uint16_t)parameter;
    entry->bytes = (uint32_t)encoded;
    entry->checksum = codec->lossless ? wf_sum64(plain, size) : wf_sum64(out, encoded);
    return WEFT_OK;
}

/* One plane to `out`, where `room` bytes are left.  False: there is no room for it. */
static bool encode_plane(const struct wf_plane *plane, const struct wf_frame_choice *choice,
                         const struct wf_codec *otherwise, const uint8_t *plain, uint8_t *out,
                         size_t room, uint8_t *scratch, struct wf_frame_plane *entry)
{
    size_t size = wf_plane_bytes(plane);
    memset(entry, 0, sizeof *entry);
    entry->version = version_of(&wf_codec_raw);
    enum weft_status status = encode_by(choice->codec, choice->parameter, plane, plain, out, room,
                                        scratch, entry);
    if (status == WEFT_MISS)
        status = encode_by(otherwise, 0, plane, plain, out, room, scratch, entry);
    if (status != WEFT_MISS)
        return status == WEFT_OK;
    if (size > room)
        return false;
    memcpy(out, plain, size);
    entry->codec = WF_CODEC_RAW;
    entry->bytes = (uint32_t)size;
    entry->checksum = wf_sum64(plain, size);
    return true;
}

static const struct wf_frame_choice *choice_of(const struct wf_frame_plan *plan, uint32_t index)
{
    return plan->planes ? &plan->planes[index] : &plan->all;
}

static enum weft_status check_plan(const struct wf_layout *layout, const struct wf_frame_plan *plan)
{
    if (plan->otherwise && !plan->otherwise->lossless)
        return wf_fail(
            WEFT_E_INVALID,
            "codec %s is lossy, and what another does not take is not to be lost; give a "
            "lossless one",
            plan->otherwise->name);
    for (uint32_t i = 0; i < (plan->planes ? layout->planes : 1); i++) {
        const struct wf_frame_choice *choice = choice_of(plan, i);
        if (!choice->codec)
            return wf_fail(WEFT_E_INVALID, "plane %u has no codec in the plan; give raw", i);
        if (choice->parameter > UINT16_MAX)
            return wf_fail(WEFT_E_INVALID, "parameter %u of codec %s is too large; give up to %u",
                           choice->parameter, choice->codec->name, UINT16_MAX);
        if (choice->codec->profiled && !plan->profile)
            return wf_fail(WEFT_E_INVALID,
                           "codec %s works from a profile and the plan has none; "
                           "calibrate one or take another codec",
                           choice->codec->name);
    }
    return WEFT_OK;
}

enum weft_status wf_frame_encode(const struct wf_layout *layout, const struct wf_frame_plan *plan,
                                 uint64_t position, const void *block, void *out,
                                 uint64_t *out_bytes, void *scratch)
{
    enum weft_status status = check_plan(layout, plan);
    if (status != WEFT_OK)
        return status;
    struct wf_frame_head head = {
        .magic = WF_FRAME_MAGIC,
        .version = WF_FRAME_VERSION,
        .flags = layout->opaque ? WF_FRAME_OPAQUE : 0,
        .dtype = (uint8_t)layout->dtype,
        .planes = layout->planes,
        .tokens = layout->tokens,
        .heads = layout->heads,
        .head_dim = layout->head_dim,
        .position = position,
        .bytes = layout->bytes,
    };
    uint8_t *frame = out;
    uint64_t table = sizeof head, stride = plane_stride(layout);
    uint64_t at = table + layout->planes * sizeof(struct wf_frame_plane);
    uint64_t bound = wf_frame_bound(layout);
    for (uint32_t i = 0; i < layout->planes; i++) {
        struct wf_plane plane;
        struct wf_frame_plane entry;
        wf_layout_plane(layout, i, position, plan->profile, &plane);
        if (at >= bound || !encode_plane(&plane, choice_of(plan, i), plan->otherwise,
                                         (const uint8_t *)block + i * stride, frame + at,
                                         bound - at, scratch, &entry)) {
            store(&head, block, frame, out_bytes);
            return WEFT_OK;
        }
        memcpy(frame + table + i * sizeof entry, &entry, sizeof entry);
        at += entry.bytes;
        const struct wf_codec *codec = wf_codec_by_id(entry.codec);
        if (!codec->lossless) {
            head.flags |= WF_FRAME_LOSSY;
            head.quality = plan->quality;
        }
        if (codec->profiled)
            head.profile = plan->profile->id;
    }
    head.encoded = at;
    head.checksum = frame_sum(&head, frame + table, layout->planes * sizeof(struct wf_frame_plane));
    memcpy(frame, &head, sizeof head);
    *out_bytes = at;
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------- decoding */

uint64_t wf_frame_lead(const void *frame, size_t bytes)
{
    struct wf_frame_head head;
    if (bytes < sizeof head)
        return sizeof head;
    memcpy(&head, frame, sizeof head);
    if (head.magic != WF_FRAME_MAGIC || (head.flags & WF_FRAME_STORED) != 0 ||
        head.planes > WF_FRAME_PLANES_MAX)
        return sizeof head;
    return sizeof head + head.planes * sizeof(struct wf_frame_plane);
}

static enum weft_status corrupt(const char *what)
{
    return wf_fail(WEFT_E_CORRUPT, "a compressed block is damaged: %s; it has to be computed anew",
                   what);
}

/* The layout that the head tells, if there is such a one. */
static bool layout_of_head(const struct wf_frame_head *head, struct wf_layout *out)
{
    bool opaque = (head->flags & WF_FRAME_OPAQUE) != 0;
    bool is = opaque ? wf_layout_opaque(head->dtype, head->bytes, out)
                     : head->planes % 2 == 0 &&
                           wf_layout_of(head->dtype, head->planes / 2, head->tokens, head->heads,
                                        head->head_dim, out);
    return is && out->dtype == head->dtype && out->planes == head->planes &&
           out->tokens == head->tokens && out->heads == head->heads &&
           out->head_dim == head->head_dim && out->bytes == head->bytes;
}

static enum weft_status check_table(const struct wf_frame *frame)
{
    const struct wf_frame_head *head = &frame->head;
    uint64_t at = sizeof *head + head->planes * sizeof(struct wf_frame_plane);
    bool lossy = false, profiled = false;
    for (uint32_t i = 0; i < head->planes; i++) {
        struct wf_frame_plane entry;
        memcpy(&entry, (const uint8_t *)frame->table + i * sizeof entry, sizeof entry);
        const struct wf_codec *codec = wf_codec_by_id(entry.codec);
        if (!codec || entry.version != version_of(codec))
            return wf_fail(WEFT_E_CORRUPT,
                           "plane %u of a compressed block is of codec %u, version "
                           "%u, which this build does not have; use the one that wrote it",
                           i, entry.codec, entry.version);
        at += entry.bytes;
        lossy = lossy || !codec->lossless;
        profiled = profiled || codec->profiled;
    }
    if (at != head->encoded)
        return corrupt("its planes are not as long as its head says");
    if (lossy != ((head->flags & WF_FRAME_LOSSY) != 0) || profiled != (head->profile != 0))
        return corrupt("its head contradicts its planes");
    return WEFT_OK;
}

enum weft_status wf_frame_open(const void *bytes_of_frame, size_t bytes, struct wf_frame *out)
{
    struct wf_frame frame = {0};
    struct wf_frame_head *head = &frame.head;
    if (bytes < sizeof *head)
        return WEFT_PENDING;
    memcpy(head, bytes_of_frame, sizeof *head);
    if (head->magic != WF_FRAME_MAGIC)
        return corrupt("it does not begin as a frame does");
    if (head->version != WF_FRAME_VERSION)
        return wf_fail(WEFT_E_CORRUPT,
                       "a compressed block has format %u and this build reads %u; "
                       "use the one that wrote it",
                       head->version, WF_FRAME_VERSION);
    if ((head->flags & ~(WF_FRAME_STORED | WF_FRAME_OPAQUE | WF_FRAME_LOSSY)) != 0 ||
        !layout_of_head(head, &frame.layout))
        return corrupt("its head names no layout that there is");
    if (head->encoded > wf_frame_bound(&frame.layout))
        return corrupt("its head says that it is longer than any can be");
    if (head->flags & WF_FRAME_STORED) {
        if ((head->flags & WF_FRAME_LOSSY) != 0 || head->profile != 0 ||
            head->encoded != wf_frame_bound(&frame.layout))
            return corrupt("its head contradicts itself");
        *out = frame;
        return WEFT_OK;
    }
    uint64_t table_bytes = head->planes * sizeof(struct wf_frame_plane);
    if (head->encoded < sizeof *head + table_bytes)
        return corrupt("its head says that it is shorter than its table");
    if (bytes < sizeof *head + table_bytes)
        return WEFT_PENDING;
    frame.table = (const struct wf_frame_plane *)((const uint8_t *)bytes_of_frame + sizeof *head);
    if (frame_sum(head, frame.table, table_bytes) != head->checksum)
        return corrupt("head and table do not have their checksum");
    enum weft_status status = check_table(&frame);
    if (status == WEFT_OK)
        *out = frame;
    return status;
}

static struct wf_frame_plane entry_of(const struct wf_frame *frame, uint32_t index)
{
    struct wf_frame_plane entry;
    memcpy(&entry, (const uint8_t *)frame->table + index * sizeof entry, sizeof entry);
    return entry;
}

uint32_t wf_frame_planes_within(const struct wf_frame *frame, uint64_t bytes)
{
    if (!frame->table)
        return bytes >= frame->head.encoded ? frame->head.planes : 0;
    uint64_t at = sizeof frame->head + frame->head.planes * sizeof(struct wf_frame_plane);
    uint32_t planes = 0;
    while (planes < frame->head.planes) {
        at += entry_of(frame, planes).bytes;
        if (at > bytes)
            break;
        planes++;
    }
    return planes;
}

static enum weft_status decode_stored(const struct wf_frame *frame, const uint8_t *bytes,
                                      uint32_t first, uint32_t end, void *block)
{
    const struct wf_frame_head *head = &frame->head;
    if (first != 0 || end != head->planes)
        return wf_fail(WEFT_E_INVALID,
                       "planes %u to %u were asked of a block that is stored as it "
                       "is; ask for all %u",
                       first, end, head->planes);
    memcpy(block, bytes + sizeof *head, head->bytes);
    if (frame_sum(head, block, head->bytes) != head->checksum)
        return corrupt("it does not have its checksum");
    return WEFT_OK;
}

static enum weft_status decode_plane(const struct wf_plane *plane,
                                     const struct wf_frame_plane *entry, const uint8_t *in,
                                     uint8_t *out, void *scratch)
{
    const struct wf_codec *codec = wf_codec_by_id(entry->codec);
    if (!codec || !codec->takes(plane))
        return corrupt("a plane is of a codec that does not take such");
    if (!codec->lossless && wf_sum64(in, entry->bytes) != entry->checksum)
        return corrupt("a plane does not have its checksum");
    enum weft_status status = codec->decode(plane, entry->parameter, in, entry->bytes, out,
                                            scratch);
    if (status != WEFT_OK)
        return status;
    if (codec->lossless && wf_sum64(out, wf_plane_bytes(plane)) != entry->checksum)
        return corrupt("a plane does not have its checksum");
    return WEFT_OK;
}

enum weft_status wf_frame_decode(const struct wf_frame *frame, const void *bytes, uint32_t first,
                                 uint32_t end, const struct wf_profile *profile, void *block,
                                 void *scratch)
{
    const struct wf_frame_head *head = &frame->head;
    if (first > end || end > head->planes)
        return wf_fail(WEFT_E_INVALID, "planes %u to %u were asked of a block that has %u", first,
                       end, head->planes);
    if (!frame->table)
        return decode_stored(frame, bytes, first, end, block);
    if (head->profile != 0 && !profile)
        return wf_fail(WEFT_E_NOT_FOUND,
                       "a block was compressed with profile %016llx, which is not "
                       "here; bring the profile",
                       (unsigned long long)head->profile);
    uint64_t stride = plane_stride(&frame->layout);
    uint64_t at = sizeof *head + head->planes * sizeof(struct wf_frame_plane);
    for (uint32_t i = 0; i < end; i++) {
        struct wf_frame_plane entry = entry_of(frame, i);
        if (entry.bytes > head->encoded - at)
            return corrupt("a plane is longer than the block");
        if (i >= first) {
            struct wf_plane plane;
            wf_layout_plane(&frame->layout, i, head->position, profile, &plane);
            enum weft_status status = decode_plane(&plane, &entry, (const uint8_t *)bytes + at,
                                                   (uint8_t *)block + i * stride, scratch);
            if (status != WEFT_OK)
                return status;
        }
        at += entry.bytes;
    }
    return WEFT_OK;
}

uint64_t wf_frame_checksum(const void *bytes, size_t count)
{
    return wf_sum64(bytes, count);
}
