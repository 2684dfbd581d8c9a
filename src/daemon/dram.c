/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory is measured as the movers measure a tier: reads of 16 KiB one by one for the latency, and
 * copies of 512 KiB for the rates.  Each figure is the median of many short runs over pages that
 * were touched before, so that a busy machine, which takes the processor away for milliseconds at a
 * time, is not taken for slow memory.  What is copied is thrown out of the caches first, where the
 * processor can; where it cannot, the figures flatter.
 *
 * Called once, by the owner thread, before the node answers anyone.
 */
#include "daemon/dram.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sys/clock.h"
#include "sys/lines.h"
#include "sys/memory.h"

#define BYTES ((size_t)8 << 20)
#define READ_BYTES ((size_t)16 << 10)
#define READS 9u
#define RUN_BYTES ((size_t)512 << 10)
#define RUNS (BYTES / RUN_BYTES)
#define PAGE 4096u

/* How long a copy takes whose both ends are in no cache. */
static double copy_ns(uint8_t *to, const uint8_t *from, size_t bytes)
{
    if (wf_lines_able()) {
        wf_lines_invalidate(from, bytes);
        wf_lines_invalidate(to, bytes);
        wf_lines_fence();
    }
    uint64_t begun_ns = wf_now_ns();
    memcpy(to, from, bytes);
    /* The compiler must not see that nobody reads the copy. */
    __asm__ volatile("" : : "r"(to) : "memory");
    uint64_t ns = wf_now_ns() - begun_ns;
    return ns ? (double)ns : 1;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of copies of `bytes`, `step` apart, in nanoseconds. */
static double median_ns(uint8_t *to, const uint8_t *from, size_t bytes, size_t step, size_t runs)
{
    double ns[RUNS > READS ? RUNS : READS];
    for (size_t i = 0; i < runs; i++)
        ns[i] = copy_ns(to + i * step, from + i * step, bytes);
    qsort(ns, runs, sizeof ns[0], compare);
    return ns[runs / 2];
}

void wf_dram_measure(int numa_node, struct wf_dram_speed *out)
{
    *out = (struct wf_dram_speed){0};
    uint8_t *memory = wf_calloc(1, 2 * BYTES + PAGE, "memory to measure");
    if (!memory)
        return;
    uint8_t *pool = memory + (PAGE - (uintptr_t)memory % PAGE) % PAGE, *own = pool + BYTES;
    if (numa_node < 0 || wf_bind_node(pool, BYTES, numa_node) == WEFT_OK) {
        memset(pool, 1, 2 * BYTES); /* pages that are there, and not all one */
        out->read_latency_us = median_ns(own, pool, READ_BYTES, 2 * READ_BYTES, READS) / 1e3;
        out->read_mbps = RUN_BYTES / median_ns(own, pool, RUN_BYTES, RUN_BYTES, RUNS) * 1e3;
        out->write_mbps = RUN_BYTES / median_ns(pool, own, RUN_BYTES, RUN_BYTES, RUNS) * 1e3;
    }
    free(memory);
}
