/* SPDX-License-Identifier: Apache-2.0
 *
 * A flash tier and a block whose figures can be computed by hand.
 */
#ifndef TEST_PLACEMENT_WORLD_H
#define TEST_PLACEMENT_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../support/random.h"
#include "core/placement.h"

#define MB 1e6
#define GB 1e9

static inline void near(double got, double want)
{
    assert_true(fabs(got - want) <= 1e-6 * fabs(want) + 1e-12);
}

static inline double part(struct random_source *random)
{
    return (double)(random_next(random) >> 11) * 0x1p-53;
}

/* Between least and most, evenly in its logarithm. */
static inline double some(struct random_source *random, double least, double most)
{
    return least * pow(most / least, part(random));
}

static const struct wf_place flash = {.latency_s = 1e-4,
                                      .read_bytes_s = 5 * GB,
                                      .write_bytes_s = 2 * GB,
                                      .busy = 0.5,
                                      .stay_s = INFINITY,
                                      .open = true};
/* Reading takes 100 µs + 2 ms; a tenth of a second would be saved. */
static const struct wf_candidate block = {.reuse = {.chance = 0.5, .rate = 0.01},
                                          .uses = 2,
                                          .bytes = 10 * MB,
                                          .recompute_s = 0.1021,
                                          .run_blocks = 1};

#endif
