/* SPDX-License-Identifier: Apache-2.0
 *
 * A profile's file taken apart.  Nothing in it is believed before it was looked at: whoever decodes
 * with a profile indexes by its numbers.
 */
#include "codec/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "base/text.h"
#include "codec/laplace.h"

#define GROUP_HEAD_FLOATS 4u

struct kept {
    struct wf_profile profile;
    struct wf_laplace laplace;
};

static uint32_t groups_of(const struct wf_profile_head *head)
{
    return (head->heads + head->group_heads - 1) / head->group_heads;
}

static uint64_t group_floats(uint64_t dims)
{
    return GROUP_HEAD_FLOATS + 2 * dims + 2 * dims * dims;
}

/* Floats of the groups of a plane before number `index`, or of all of them. */
static uint64_t floats_before(const struct wf_profile_head *head, uint32_t index)
{
    uint32_t full = head->heads / head->group_heads;
    uint64_t whole = group_floats((uint64_t)head->group_heads * head->head_dim);
    if (index <= full)
        return index * whole;
    return full * whole +
           group_floats((uint64_t)(head->heads % head->group_heads) * head->head_dim);
}

static bool shape_sound(const struct wf_profile_head *head)
{
    return head->layers >= 1 && head->layers <= WF_PROFILE_LAYERS_MAX && head->heads >= 1 &&
           head->heads <= WF_PROFILE_HEADS_MAX && head->head_dim >= 1 &&
           head->head_dim <= WF_PROFILE_DIMS_MAX && head->group_heads >= 1 &&
           head->group_heads <= head->heads &&
           head->group_heads <= WF_PROFILE_DIMS_MAX / head->head_dim &&
           head->rope_dims <= head->head_dim && head->rope_dims % 2 == 0 &&
           head->sinks <= WF_PROFILE_SINKS_MAX;
}

uint64_t wf_profile_group_offset(const struct wf_profile_head *head, uint32_t layer, bool value,
                                 uint32_t index)
{
    uint64_t plane = floats_before(head, groups_of(head));
    uint64_t floats = ((uint64_t)layer * 2 + value) * plane + floats_before(head, index);
    return sizeof *head + head->rope_dims / 2 * sizeof(double) + floats * sizeof(float);
}

uint64_t wf_profile_file_bytes(const struct wf_profile_head *head)
{
    if (!shape_sound(head))
        return 0;
    uint64_t bytes = wf_profile_group_offset(head, head->layers, false, 0);
    return bytes <= WF_PROFILE_BYTES_MAX ? bytes : 0;
}

static uint64_t checksum_of(const void *file, uint64_t bytes)
{
    struct wf_profile_head head;
    memcpy(&head, file, sizeof head);
    head.checksum = 0;
    uint64_t sum = wf_sum64(&head, sizeof head);
    return wf_sum64_seeded((const uint8_t *)file + sizeof head, bytes - sizeof head, sum);
}

uint64_t wf_profile_seal(void *file, uint64_t bytes)
{
    struct wf_profile_head *head = file;
    head->magic = WF_PROFILE_MAGIC;
    head->bytes = bytes;
    head->checksum = checksum_of(file, bytes);
    return head->checksum;
}

enum weft_status wf_profile_model_check(const char *what, const char *model)
{
    return wf_text_check(what, model, WF_PROFILE_MODEL_BYTES - 1, false);
}

static enum weft_status check_head(const struct wf_profile_head *head, uint64_t count)
{
    if (head->magic != WF_PROFILE_MAGIC)
        return wf_fail(WEFT_E_INVALID,
                       "this is no profile: its first bytes are another file's; make one with weft "
                       "codec calibrate");
    uint64_t bytes = wf_profile_file_bytes(head);
    if (!bytes || weft_dtype_bytes((enum weft_dtype)head->dtype) == 0 ||
        !memchr(head->model, 0, sizeof head->model) || head->reserved ||
        (head->rope_pairing == WF_PROFILE_NO_ROPE ? head->rope_dims != 0
                                                  : head->rope_pairing > WF_ROPE_HALVES))
        return wf_fail(WEFT_E_CORRUPT,
                       "the profile's head makes no sense (layers %u, heads %u, head_dim %u, "
                       "group_heads %u); make it anew",
                       head->layers, head->heads, head->head_dim, head->group_heads);
    if (head->bytes != bytes || count != bytes)
        return wf_fail(WEFT_E_CORRUPT,
                       "the profile has %llu bytes, and its shape needs %llu; copy it again",
                       (unsigned long long)count, (unsigned long long)bytes);
    /* It is shown to people, and only equal to the name of a format, which is text. */
    return wf_profile_model_check("the profile's model", head->model);
}

enum weft_status wf_profile_begins(const void *begin, uint64_t bytes)
{
    struct wf_profile_head head;
    if (bytes < sizeof head)
        return wf_fail(WEFT_E_INVALID,
                       "this is no profile: it has %llu bytes, and the head alone has %zu",
                       (unsigned long long)bytes, sizeof head);
    memcpy(&head, begin, sizeof head);
    return check_head(&head, bytes);
}

static bool all_finite(const float *numbers, size_t count)
{
    bool finite = true;
    for (size_t i = 0; i < count; i++)
        finite &= numbers[i] >= -3e38f && numbers[i] <= 3e38f;
    return finite;
}

static bool rope_sound(const struct wf_rope *rope)
{
    for (uint32_t i = 0; i < rope->dims / 2; i++) {
        if (!(rope->frequencies[i] >= -1 && rope->frequencies[i] <= 1))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------ in memory */

static size_t kept_bytes(const struct wf_profile *p)
{
    size_t plane = (p->groups - 1) * wf_profile_group_floats(wf_profile_dims(p, 0)) +
                   wf_profile_group_floats(wf_profile_dims(p, p->groups - 1));
    return WF_PROFILE_DIMS_MAX / 2 * sizeof(double) +
           2 * (size_t)p->head.layers * plane * sizeof(float);
}

static void take_matrix(const uint8_t *from, uint32_t dims, float *to)
{
    for (uint32_t j = 0; j < dims; j += WF_PROFILE_TILE) {
        uint32_t columns = dims - j < WF_PROFILE_TILE ? dims - j : WF_PROFILE_TILE;
        for (uint32_t i = 0; i < dims; i++, to += WF_PROFILE_TILE)
            memcpy(to, from + ((size_t)i * dims + j) * sizeof(float), columns * sizeof(float));
    }
}

/* A group's numbers out of the file to `to`, where everything is 0. */
static void take_group(const uint8_t *from, uint32_t dims, float *to, struct wf_profile_group *out)
{
    float head[GROUP_HEAD_FLOATS];
    size_t padded = wf_profile_padded(dims), bytes = dims * sizeof(float);
    memcpy(head, from, sizeof head);
    from += sizeof head;
    memcpy(to, from, bytes);
    memcpy(to + padded, from + bytes, bytes);
    take_matrix(from + 2 * bytes, dims, to + 2 * padded);
    take_matrix(from + 2 * bytes + dims * bytes, dims, to + (2 + dims) * padded);
    *out = (struct wf_profile_group){
        .step = head[0],
        .sensitivity = head[1],
        .mean = to,
        .scale = to + padded,
        .forward = to + 2 * padded,
        .inverse = to + (2 + dims) * padded,
    };
}

/* False: a number that a codec could not work with. */
static bool take_groups(const struct wf_profile *p, const uint8_t *file, float *to,
                        struct wf_profile_group *group)
{
    const struct wf_profile_head *head = &p->head;
    for (uint32_t plane = 0; plane < 2 * head->layers; plane++) {
        for (uint32_t i = 0; i < p->groups; i++, group++) {
            uint32_t dims = wf_profile_dims(p, i);
            take_group(file + wf_profile_group_offset(head, plane / 2, plane % 2, i), dims, to,
                       group);
            if (!all_finite(to, wf_profile_group_floats(dims)) || !(group->step > 1e-30f) ||
                !(group->step <= 3e38f) || !all_finite(&group->sensitivity, 1))
                return false;
            for (size_t j = 0; j < dims; j++) {
                if (!(group->scale[j] >= 0))
                    return false;
            }
            to += wf_profile_group_floats(dims);
        }
    }
    return true;
}

enum weft_status wf_profile_parse(const void *bytes, size_t count, struct wf_profile **out)
{
    struct wf_profile_head head;
    enum weft_status status = wf_profile_begins(bytes, count);
    if (status != WEFT_OK)
        return status;
    memcpy(&head, bytes, sizeof head);
    struct kept *kept = calloc(1, sizeof *kept);
    struct wf_profile_group *group = calloc((size_t)head.layers * 2 * groups_of(&head),
                                            sizeof *group);
    uint8_t *memory = NULL;
    if (!kept || !group)
        goto no_memory;
    struct wf_profile *p = &kept->profile;
    p->head = head;
    p->id = head.checksum;
    p->groups = groups_of(&head);
    p->group = group;
    size_t kept_size = (kept_bytes(p) + 63) / 64 * 64;
    memory = aligned_alloc(64, kept_size);
    if (!memory)
        goto no_memory;
    memset(memory, 0, kept_size);
    memcpy(memory, (const uint8_t *)bytes + sizeof head, head.rope_dims / 2 * sizeof(double));
    p->memory = memory;
    p->rope = (struct wf_rope){.pairing = head.rope_dims ? (enum wf_rope_pairing)head.rope_pairing
                                                         : WF_ROPE_INTERLEAVED,
                               .dims = head.rope_dims,
                               .frequencies = (const void *)memory};
    float *numbers = (void *)(memory + WF_PROFILE_DIMS_MAX / 2 * sizeof(double));
    if (checksum_of(bytes, count) != head.checksum || !rope_sound(&p->rope) ||
        !take_groups(p, bytes, numbers, group)) {
        status = wf_fail(WEFT_E_CORRUPT,
                         "the profile's bytes are not what its checksum says, or no "
                         "numbers; copy it again or make it anew");
        goto fail;
    }
    wf_laplace_init(&kept->laplace);
    p->laplace = &kept->laplace;
    *out = p;
    return WEFT_OK;

no_memory:
    status = wf_fail(WEFT_E_NO_MEMORY, "no memory for a profile of %zu bytes", count);
fail:
    free(memory);
    free(group);
    free(kept);
    return status;
}

void wf_profile_destroy(struct wf_profile *profile)
{
    if (!profile)
        return;
    free(profile->memory);
    free((void *)(uintptr_t)profile->group);
    free(profile); /* the first member of what was allocated */
}

static bool is_wide(uint32_t dtype)
{
    return dtype == WEFT_BF16 || dtype == WEFT_F16 || dtype == WEFT_F32;
}

bool wf_profile_rounds_alike(const struct wf_profile_head *head, uint32_t dtype)
{
    return head->dtype == dtype || (is_wide(head->dtype) && is_wide(dtype));
}

bool wf_profile_fits(const struct wf_profile *profile, const struct wf_plane *plane)
{
    return plane->layer < profile->head.layers && plane->heads == profile->head.heads &&
           plane->head_dim == profile->head.head_dim;
}
