/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory is measured as the movers measure a tier: reads of 16 KiB one by one for the latency, and
 * one long copy for the rates.  What is copied is thrown out of the caches first, where the
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

void wf_dram_measure(int numa_node, struct wf_dram_speed *out)
{
    *out = (struct wf_dram_speed){0};
    uint8_t *memory = wf_calloc(1, 2 * BYTES + PAGE, "memory to measure");
    if (!memory)
        return;
    uint8_t *pool = memory + (PAGE - (uintptr_t)memory % PAGE) % PAGE, *own = pool + BYTES;
    double ns[READS];
    if (numa_node < 0 || wf_bind_node(pool, BYTES, numa_node) == WEFT_OK) {
        memset(pool, 1, 2 * BYTES); /* pages that are there, and not all one */
        for (unsigned i = 0; i < READS; i++)
            ns[i] = copy_ns(own, pool + i * 2 * READ_BYTES, READ_BYTES);
        qsort(ns, READS, sizeof ns[0], compare);
        out->read_latency_us = ns[READS / 2] / 1e3;
        out->read_mbps = (double)BYTES / copy_ns(own, pool, BYTES) * 1e3;
        out->write_mbps = (double)BYTES / copy_ns(pool, own, BYTES) * 1e3;
    }
    free(memory);
}
