/* SPDX-License-Identifier: Apache-2.0
 *
 * An NVMe tier under test, on a file, with blocks whose every byte follows from their number.
 *
 * A crash is a copy of the file taken while the tier has it open: what the process had in memory is
 * not in it.
 */
#ifndef TEST_SUPPORT_NVME_WORLD_H
#define TEST_SUPPORT_NVME_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "medium.h"
#include "random.h"
#include "tier/nvme_format.h"
#include "tier/tier.h"

#define CAPACITY ((uint64_t)20 << 20) /* four segments of 4 MiB */
#define DEPTH 16u
#define ROOM (512u << 10)
#define BLOCKS_MAX 4096u

static const struct wf_tier_ops *const ops = &wf_tier_nvme;

struct world {
    char path[200], copy[220];
    struct wf_tier *tier;
    struct random_source random;
    uint8_t *data;
};

static inline int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    w->random = random_seeded("tier_nvme");
    w->data = aligned_alloc(WF_TIER_ALIGN, ROOM);
    *state = w;
    if (!medium_has_ring())
        return 0;
    if (!medium_name(w->path, sizeof w->path))
        return 1;
    snprintf(w->copy, sizeof w->copy, "%s.copy", w->path);
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;
    if (w->tier)
        ops->close(w->tier);
    if (w->path[0])
        unlink(w->path);
    unlink(w->copy);
    free(w->data);
    free(w);
    return 0;
}

static inline void open_at(struct world *w, const char *path, uint64_t capacity)
{
    if (!w->path[0]) {
        print_message("# io_uring is missing\n");
        skip();
    }
    struct wf_tier_options options = {.path = path,
                                      .capacity_bytes = capacity,
                                      .queue_depth = DEPTH,
                                      .buffers = w->data,
                                      .buffers_bytes = ROOM};
    enum weft_status status = ops->open(&options, &w->tier);
    if (status != WEFT_OK)
        fail_msg("open: %s", wf_last_error());
}

/* A medium with segments of a size that only larger ones would be given. */
static inline uint64_t format(const char *path, uint32_t segments, uint64_t segment_bytes)
{
    struct wf_nvme_super super = {.segment_bytes = segment_bytes, .segments = segments};
    wf_nvme_seal(&super, WF_NVME_SUPER_MAGIC, sizeof super, 4711);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, &super, sizeof super, 0), sizeof super);
    close(fd);
    return WF_NVME_SEGMENTS_AT + segments * segment_bytes;
}

static inline void close_it(struct world *w)
{
    ops->close(w->tier);
    w->tier = NULL;
}

/* Block n: size and bytes follow from n. */
static inline struct wf_tier_block block_of(uint64_t n)
{
    struct random_source r = {n * 77 + 5};
    struct wf_tier_block block = {.bytes = 1 + random_below(&r, 100000), .depth = (uint32_t)n};
    block.part_bytes = (uint32_t)block.bytes / (1 + random_below(&r, 8)) + 1;
    random_key(n, block.key);
    if (n / 3)
        random_key(n / 3, block.parent);
    random_key(7, block.format);
    return block;
}

static inline void fill(uint64_t n, uint64_t bytes, uint8_t *out)
{
    struct random_source r = {n};
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = random_next(&r);
        memcpy(out + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

static inline enum weft_status run(struct world *w, struct wf_tier_request *request)
{
    struct wf_tier_request *done = NULL;
    enum weft_status status = ops->submit(w->tier, request);
    if (status != WEFT_OK)
        return status;
    for (int i = 0; i < 100 && !done; i++)
        if (ops->reap(w->tier, &done, 1, 100) == 0)
            done = NULL;
    assert_ptr_equal(done, request);
    return request->status;
}

static inline enum weft_status put(struct world *w, uint64_t n)
{
    struct wf_tier_request request = {.op = WF_TIER_WRITE, .block = block_of(n), .data = w->data};
    fill(n, request.block.bytes, w->data);
    return run(w, &request);
}

static inline enum weft_status flush(struct world *w)
{
    struct wf_tier_request request = {.op = WF_TIER_FLUSH};
    return run(w, &request);
}

/* A read that is WEFT_OK gave the right bytes: anything else fails the test. */
static inline enum weft_status get(struct world *w, uint64_t n)
{
    static uint8_t right[ROOM];
    struct wf_tier_request request = {.op = WF_TIER_READ, .block = block_of(n), .data = w->data};
    memset(w->data, 0x5a, ROOM);
    enum weft_status status = run(w, &request);
    if (status == WEFT_OK) {
        fill(n, request.block.bytes, right);
        assert_int_equal(request.bytes, request.block.bytes);
        assert_memory_equal(w->data, right, request.block.bytes);
    }
    return status;
}

static inline void copy_file(const char *from, const char *to)
{
    static uint8_t buffer[1 << 20];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n;
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        assert_int_equal(write(out, buffer, (size_t)n), n);
    close(in);
    close(out);
}

static inline struct wf_tier_stats stats(struct world *w)
{
    struct wf_tier_stats stats;
    ops->stats(w->tier, &stats);
    return stats;
}

struct told {
    uint64_t count;
    bool seen[BLOCKS_MAX];
};

static inline void tell(void *context, const struct wf_tier_block *block)
{
    struct told *told = context;
    struct wf_tier_block right = block_of(block->depth);
    assert_true(block->depth < BLOCKS_MAX && !told->seen[block->depth]);
    assert_memory_equal(block, &right, sizeof right);
    told->seen[block->depth] = true;
    told->count++;
}

/* Each block is told of once, as it was written. */
static inline void assert_told(struct world *w)
{
    static struct told told;
    memset(&told, 0, sizeof told);
    ops->each(w->tier, tell, &told);
    assert_int_equal(told.count, stats(w).blocks);
}

#endif
