/* SPDX-License-Identifier: Apache-2.0
 *
 * The histogram against a sorted list of the same values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hist.h"

static struct wf_hist hist;

static int empty_it(void **state)
{
    (void)state;
    memset(&hist, 0, sizeof hist);
    return 0;
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13; /* xorshift64, G. Marsaglia 2003 */
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void close_to(uint64_t got, uint64_t exact)
{
    uint64_t error = got > exact ? got - exact : exact - got;
    if ((double)error > 0.0157 * (double)exact)
        fail_msg("%llu is not %llu within 1/64", (unsigned long long)got,
                 (unsigned long long)exact);
}

static void quantiles_are_those_of_a_sorted_list(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static uint64_t values[COUNT];
    uint64_t seed = 42, sum = 0;
    for (size_t i = 0; i < COUNT; i++) {
        /* all magnitudes alike, as durations are */
        values[i] = next_random(&seed) >> (22 + next_random(&seed) % 42);
        sum += values[i];
        wf_hist_record(&hist, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], by_value);
    static const double shares[] = {0.0001, 0.01, 0.1,   0.25,   0.5, 0.75,
                                    0.9,    0.99, 0.999, 0.9999, 1};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        size_t rank = (size_t)(shares[i] * COUNT + 0.999999);
        close_to(wf_hist_quantile(&hist, shares[i]), values[rank - 1]);
    }
    assert_int_equal(wf_hist_count(&hist), COUNT);
    assert_int_equal(wf_hist_sum(&hist), sum);
    assert_int_equal(wf_hist_max(&hist), values[COUNT - 1]);
    for (unsigned bits = 0; bits <= WF_HIST_VALUE_BITS; bits++) {
        uint64_t below = 0;
        while (below < COUNT && values[below] < 1ULL << bits)
            below++;
        assert_int_equal(wf_hist_count_below(&hist, bits), below);
    }
}

static void every_single_value_is_known_closely(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < WF_HIST_VALUE_BITS; bits++) {
        for (int64_t around = -1; around <= 1; around++) {
            uint64_t value = (uint64_t)((int64_t)(1ULL << bits) + around);
            /* A larger one beside it, so that the bucket's own value is answered and not the
             * maximum. */
            empty_it(NULL);
            wf_hist_record(&hist, value);
            wf_hist_record(&hist, WF_HIST_VALUE_MAX);
            close_to(wf_hist_quantile(&hist, 0.5), value);
        }
    }
}

static void extremes_are_kept(void **state)
{
    (void)state;
    assert_int_equal(wf_hist_quantile(&hist, 0.5), 0);
    wf_hist_record(&hist, UINT64_MAX / 2);
    assert_int_equal(wf_hist_count(&hist), 1);
    assert_int_equal(wf_hist_max(&hist), UINT64_MAX / 2);
    close_to(wf_hist_quantile(&hist, 1), WF_HIST_VALUE_MAX);
    wf_hist_record(&hist, 0);
    assert_int_equal(wf_hist_quantile(&hist, 0), 0);
    assert_int_equal(wf_hist_quantile(&hist, -3), 0);
    close_to(wf_hist_quantile(&hist, 17), WF_HIST_VALUE_MAX);
}

static void merging_adds(void **state)
{
    (void)state;
    static struct wf_hist other;
    wf_hist_record(&hist, 10);
    wf_hist_record(&other, 30);
    wf_hist_record(&other, 20);
    wf_hist_merge(&hist, &other);
    assert_int_equal(wf_hist_count(&hist), 3);
    assert_int_equal(wf_hist_sum(&hist), 60);
    assert_int_equal(wf_hist_max(&hist), 30);
    assert_int_equal(wf_hist_quantile(&hist, 0.5), 20);
}

enum { THREADS = 4, EACH = 20000 };

static void *record_many(void *unused)
{
    for (uint64_t i = 1; i <= EACH; i++)
        wf_hist_record(&hist, i);
    return unused;
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, record_many, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(wf_hist_count(&hist), THREADS * EACH);
    assert_int_equal(wf_hist_sum(&hist), (uint64_t)THREADS * EACH * (EACH + 1) / 2);
    assert_int_equal(wf_hist_max(&hist), EACH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(quantiles_are_those_of_a_sorted_list, empty_it),
        cmocka_unit_test_setup(every_single_value_is_known_closely, empty_it),
        cmocka_unit_test_setup(extremes_are_kept, empty_it),
        cmocka_unit_test_setup(merging_adds, empty_it),
        cmocka_unit_test_setup(threads_lose_nothing, empty_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
