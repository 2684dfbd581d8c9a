/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TABLE_FIRST 4096

const char *wf_sim_error(void)
{
    return wf_last_error();
}

static enum weft_status no_memory(void)
{
    return wf_fail(WEFT_E_NO_MEMORY, "no memory for the trace; give a shorter one");
}

static uint64_t mix(uint32_t parent, uint64_t id)
{
    uint64_t x = id + 0x9e3779b97f4a7c15u * ((uint64_t)parent + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Have room for `wanted` items of `bytes`. */
static bool grow(void **items, uint64_t *room, uint64_t wanted, size_t bytes)
{
    if (*items && wanted <= *room)
        return true;
    uint64_t more = *room ? *room : 1024;
    while (more < wanted)
        more *= 2;
    void *moved = realloc(*items, more * bytes);
    if (!moved)
        return false;
    *items = moved;
    *room = more;
    return true;
}

static void table_put(struct wf_sim_trace *trace, uint32_t block)
{
    uint64_t mask = trace->table_size - 1;
    uint64_t at = mix(trace->parent[block], trace->hash_ids[block]) & mask;
    while (trace->table[at])
        at = (at + 1) & mask;
    trace->table[at] = block + 1;
}

static bool table_grow(struct wf_sim_trace *trace)
{
    uint64_t size = trace->table_size ? 2 * trace->table_size : TABLE_FIRST;
    uint32_t *table = calloc(size, sizeof *table);
    if (!table)
        return false;
    free(trace->table);
    trace->table = table;
    trace->table_size = size;
    for (uint32_t block = 0; block < trace->block_count; block++)
        table_put(trace, block);
    return true;
}

/* parent, depth and hash id of blocks grow together. */
static bool blocks_grow(struct wf_sim_trace *trace)
{
    uint64_t wanted = (uint64_t)trace->block_count + 1;
    uint64_t rooms[3] = {trace->block_room, trace->block_room, trace->block_room};
    if (!grow((void **)&trace->parent, &rooms[0], wanted, sizeof *trace->parent) ||
        !grow((void **)&trace->depth, &rooms[1], wanted, sizeof *trace->depth) ||
        !grow((void **)&trace->hash_ids, &rooms[2], wanted, sizeof *trace->hash_ids))
        return false;
    trace->block_room = rooms[0];
    return true;
}

/* The number of the block that `id` names behind `parent`; WF_SIM_NONE: no memory. */
static uint32_t block_of(struct wf_sim_trace *trace, uint32_t parent, uint64_t id)
{
    if (2 * (uint64_t)trace->block_count >= trace->table_size && !table_grow(trace))
        return WF_SIM_NONE;
    uint64_t mask = trace->table_size - 1;
    for (uint64_t at = mix(parent, id) & mask; trace->table[at]; at = (at + 1) & mask) {
        uint32_t block = trace->table[at] - 1;
        if (trace->parent[block] == parent && trace->hash_ids[block] == id)
            return block;
    }
    if (!blocks_grow(trace))
        return WF_SIM_NONE;
    uint32_t block = trace->block_count++;
    trace->parent[block] = parent;
    trace->depth[block] = parent == WF_SIM_NONE ? 0 : trace->depth[parent] + 1;
    trace->hash_ids[block] = id;
    table_put(trace, block);
    return block;
}

enum weft_status wf_sim_trace_init(struct wf_sim_trace *trace, uint32_t block_tokens)
{
    memset(trace, 0, sizeof *trace);
    trace->block_tokens = block_tokens;
    return table_grow(trace) && blocks_grow(trace) ? WEFT_OK : no_memory();
}

void wf_sim_trace_fini(struct wf_sim_trace *trace)
{
    free(trace->requests);
    free(trace->blocks);
    free(trace->parent);
    free(trace->depth);
    free(trace->next);
    free(trace->table);
    free(trace->hash_ids);
    memset(trace, 0, sizeof *trace);
}

/* The number of a domain; WF_SIM_DOMAINS_MAX: there are too many. */
static uint32_t domain_of(struct wf_sim_trace *trace, const struct trace_request *request)
{
    const char *name = request->domain[0] ? request->domain : "default";
    uint32_t i = 0;
    while (i < trace->domain_count && strcmp(trace->domains[i].name, name) != 0)
        i++;
    if (i == WF_SIM_DOMAINS_MAX)
        return i;
    if (i == trace->domain_count)
        snprintf(trace->domains[trace->domain_count++].name, sizeof trace->domains[i].name, "%s",
                 name);
    if (request->priority > trace->domains[i].priority)
        trace->domains[i].priority = request->priority;
    return i;
}

enum weft_status wf_sim_trace_add(struct wf_sim_trace *trace, const struct trace_request *request)
{
    uint64_t references = trace->reference_count + request->hash_count;
    if (trace->request_count >= WF_SIM_REQUESTS_MAX || references > WF_SIM_BLOCKS_MAX)
        return wf_fail(
            WEFT_E_LIMIT,
            "the trace has more than %u requests or %u blocks, which is the most; cut it",
            WF_SIM_REQUESTS_MAX, WF_SIM_BLOCKS_MAX);
    if (!grow((void **)&trace->requests, &trace->request_room, (uint64_t)trace->request_count + 1,
              sizeof *trace->requests) ||
        !grow((void **)&trace->blocks, &trace->reference_room, references, sizeof *trace->blocks))
        return no_memory();
    uint64_t at_us = (uint64_t)(request->timestamp_s * 1e6);
    uint64_t before_us = trace->request_count ? trace->requests[trace->request_count - 1].at_us : 0;
    trace->lines_early += at_us < before_us;
    uint32_t parent = WF_SIM_NONE, domain = domain_of(trace, request);
    if (domain == WF_SIM_DOMAINS_MAX)
        return wf_fail(WEFT_E_LIMIT, "the trace has more than %d domains, which is the most",
                       WF_SIM_DOMAINS_MAX);
    for (size_t i = 0; i < request->hash_count; i++) {
        /* What begins a chain is its domain's own, and so is all that follows. */
        uint64_t own = i ? 0 : domain * 0x9e3779b97f4a7c15u;
        parent = block_of(trace, parent, request->hash_ids[i] ^ own);
        if (parent == WF_SIM_NONE)
            return no_memory();
        trace->blocks[trace->reference_count + i] = parent;
    }
    uint64_t output = request->output_length;
    trace->requests[trace->request_count++] = (struct wf_sim_request){
        .at_us = at_us < before_us ? before_us : at_us,
        .first = trace->reference_count,
        .input_tokens = request->input_length,
        .count = (uint32_t)request->hash_count,
        .output_tokens = output > UINT32_MAX ? UINT32_MAX : (uint32_t)output,
        .hint = request->hint,
        .domain = domain,
        .returns_in_us = (uint64_t)(request->returns_in_s * 1e6),
    };
    trace->hints += request->hint != TRACE_HINT_NONE;
    trace->reference_count = references;
    if (request->hash_count > trace->chain_max)
        trace->chain_max = (uint32_t)request->hash_count;
    return WEFT_OK;
}

enum weft_status wf_sim_trace_finish(struct wf_sim_trace *trace)
{
    free(trace->table);
    free(trace->hash_ids);
    trace->table = NULL;
    trace->hash_ids = NULL;
    uint32_t *later = malloc(((uint64_t)trace->block_count + 1) * sizeof *later);
    trace->next = malloc((trace->reference_count + 1) * sizeof *trace->next);
    if (!later || !trace->next) {
        free(later);
        return no_memory();
    }
    memset(later, 0xff, (size_t)trace->block_count * sizeof *later);
    for (uint32_t r = trace->request_count; r-- > 0;) {
        const struct wf_sim_request *request = &trace->requests[r];
        for (uint64_t at = request->first; at < request->first + request->count; at++) {
            trace->next[at] = later[trace->blocks[at]];
            later[trace->blocks[at]] = r;
        }
    }
    free(later);
    return WEFT_OK;
}

/* One line into the trace. */
static enum weft_status line_add(struct wf_sim_trace *trace, struct trace_reader *reader,
                                 bool strict)
{
    struct trace_request request = {0};
    switch (wf_trace_parse(reader, &request)) {
    case TRACE_OK: return wf_sim_trace_add(trace, &request);
    case TRACE_BAD:
        if (strict)
            return wf_fail(WEFT_E_INVALID, "%s", reader->error);
        if (trace->lines_malformed++ == 0)
            memcpy(trace->first_error, reader->error, sizeof trace->first_error);
        return WEFT_OK;
    default: return WEFT_OK;
    }
}

enum weft_status wf_sim_trace_load(const char *path, enum trace_format format, bool strict,
                                   uint64_t requests_max, const struct wf_sim_progress *progress,
                                   struct wf_sim_trace *out)
{
    struct wf_sim_trace trace;
    struct trace_reader reader;
    struct stat about = {0};
    enum weft_status status = wf_sim_trace_init(&trace, wf_trace_block_tokens(format));
    bool opened = wf_trace_open(&reader, path, format);
    if (status == WEFT_OK && !opened)
        status = wf_fail(WEFT_E_SYSTEM, "%s", reader.error);
    if (status == WEFT_OK && !wf_trace_settle(&reader))
        status = wf_fail(WEFT_E_INVALID, "%s", reader.error);
    trace.block_tokens = wf_trace_block_tokens(reader.format);
    double bytes = stat(path, &about) == 0 && about.st_size > 0 ? (double)about.st_size : INFINITY;
    enum trace_result result = TRACE_END;
    while (status == WEFT_OK && trace.request_count < requests_max &&
           (result = wf_trace_line(&reader)) == TRACE_OK) {
        status = line_add(&trace, &reader, strict);
        if (progress && progress->step && reader.line_number % 256 == 0)
            progress->step(progress->context, (double)reader.offset / bytes);
    }
    if (status == WEFT_OK && result == TRACE_FAILED)
        status = wf_fail(WEFT_E_SYSTEM, "%s", reader.error);
    if (status == WEFT_OK && !trace.reference_count)
        status = wf_fail(WEFT_E_INVALID, "%.160s has no request with blocks%s%.256s",
                         strcmp(path, "-") == 0 ? "stdin" : path,
                         trace.lines_malformed ? "; its first malformed line: " : "",
                         trace.first_error);
    if (status == WEFT_OK)
        status = wf_sim_trace_finish(&trace);
    wf_trace_close(&reader);
    if (status == WEFT_OK)
        *out = trace;
    else
        wf_sim_trace_fini(&trace);
    return status;
}
