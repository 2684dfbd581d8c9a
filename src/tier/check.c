/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/check.h"

enum weft_status wf_tier_check_options(const struct wf_tier_options *options)
{
    if (!options->path || !options->path[0])
        return wf_fail(WEFT_E_INVALID, "the tier has no path; name its file, directory or device");
    if (options->queue_depth < 1 || options->queue_depth > WF_TIER_QUEUE_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: queue depth %u is not within 1 to %u; 64 is usual",
                       options->path, options->queue_depth, WF_TIER_QUEUE_MAX);
    if (!options->buffers != !options->buffers_bytes)
        return wf_fail(WEFT_E_INVALID, "tier %s: buffers of %zu bytes at %p; give both, or neither",
                       options->path, options->buffers_bytes, options->buffers);
    return WEFT_OK;
}

static enum weft_status check_block(const struct wf_tier_request *request)
{
    const struct wf_tier_block *block = &request->block;
    if (block->bytes == 0)
        return wf_fail(WEFT_E_INVALID, "a block of 0 bytes cannot be written; give its payload");
    if (block->part_bytes < 1 || block->part_bytes > WF_TIER_PART_BYTES_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "parts of %u bytes are not within 1 to %u; one layer is "
                       "usual",
                       block->part_bytes, WF_TIER_PART_BYTES_MAX);
    if ((block->bytes - 1) / block->part_bytes >= WF_TIER_PARTS_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "%llu bytes in parts of %u are more than %d parts; make the parts larger",
                       (unsigned long long)block->bytes, block->part_bytes, WF_TIER_PARTS_MAX);
    if (!wf_tier_plain_right(block))
        return wf_fail(WEFT_E_INVALID,
                       "%llu plain bytes in parts of %u cannot be what a frame decodes to; give "
                       "less than 2^32 in %d parts at most, or 0 and 0",
                       (unsigned long long)block->plain_bytes, block->plain_part_bytes,
                       WF_TIER_PARTS_MAX);
    if (block->plain_bytes && !request->as_stored)
        return wf_fail(WEFT_E_INVALID,
                       "a block that decodes to %llu bytes was to be written as if it were plain; "
                       "write it as stored, or what it decodes to",
                       (unsigned long long)block->plain_bytes);
    return WEFT_OK;
}

static enum weft_status check_room(const struct wf_tier_request *request,
                                   const struct wf_tier_block *there)
{
    uint64_t from = (uint64_t)request->first_part * there->part_bytes;
    uint64_t bytes = (uint64_t)request->part_count * there->part_bytes;
    if (request->part_count == 0 || bytes > there->bytes - from)
        bytes = there->bytes - from;
    if (request->as_stored && bytes > request->block.bytes)
        return wf_fail(WEFT_E_INVALID,
                       "%llu bytes lie there, and the request has room for %llu; look the block up "
                       "and give as much as it takes",
                       (unsigned long long)bytes, (unsigned long long)request->block.bytes);
    return WEFT_OK;
}

static enum weft_status check_range(const struct wf_tier_request *request,
                                    const struct wf_tier_block *there)
{
    uint32_t parts = wf_tier_parts(there);
    if (request->part_count == 0
            ? request->first_part != 0
            : request->first_part >= parts || request->part_count > parts - request->first_part)
        return wf_fail(WEFT_E_INVALID,
                       "%u parts from part %u were asked of a block that has %u; 0 from 0 is all",
                       request->part_count, request->first_part, parts);
    return check_room(request, there);
}

enum weft_status wf_tier_check_request(const struct wf_tier_request *request,
                                       const struct wf_tier_block *there)
{
    if (request->op == WF_TIER_FLUSH)
        return WEFT_OK;
    if (request->op != WF_TIER_WRITE && request->op != WF_TIER_READ)
        return wf_fail(WEFT_E_INVALID,
                       "operation %d is none that a tier knows; use write, read "
                       "or flush",
                       (int)request->op);
    if (!request->data || (uintptr_t)request->data % WF_TIER_ALIGN != 0)
        return wf_fail(WEFT_E_INVALID,
                       "the data of a request is at %p; it must lie at a multiple "
                       "of %u",
                       request->data, WF_TIER_ALIGN);
    if (request->op == WF_TIER_WRITE)
        return check_block(request);
    return there ? check_range(request, there) : WEFT_OK;
}
