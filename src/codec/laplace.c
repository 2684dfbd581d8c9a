/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables of rounded Laplace distributions.  Only + − × ÷ and square roots of doubles are used,
 * which IEEE 754 rounds alike everywhere, and nothing is fused: exp() of a library may differ in
 * its last bit from another's, and one differing frequency would turn all that follows to garbage.
 */
#include "codec/laplace.h"

#include <assert.h>
#include <string.h>

/* e^x for 0 ≤ x ≤ 32: the series of e^(x / 1024), squared ten times. */
static double exponential(double x)
{
    double small = x / 1024, term = 1, sum = 1;
    for (int i = 1; i <= 12; i++) {
        term = term * small / i;
        sum += term;
    }
    for (int i = 0; i < 10; i++)
        sum *= sum;
    return sum;
}

/* The width in the middle of a class. */
static double middle(unsigned class)
{
    double octave = 1.0 / 16;
    for (unsigned i = 0; i < class / 4; i++)
        octave *= 2;
    return octave * (1 + (class % 4 + 0.5) / 4);
}

/* Probabilities to frequencies: each at least 1, the largest takes what rounding left. */
static void fill(struct wf_laplace_table *table, const double *probability, unsigned count)
{
    uint32_t frequency[WF_LAPLACE_SYMBOLS], sum = 0, largest = 0;
    assert(count >= 1 && count <= WF_LAPLACE_SYMBOLS);
    for (unsigned i = 0; i < count; i++) {
        frequency[i] = (uint32_t)(probability[i] * WF_LAPLACE_TOTAL + 0.5);
        if (frequency[i] < 1)
            frequency[i] = 1;
        sum += frequency[i];
        if (frequency[i] > frequency[largest])
            largest = i;
    }
    frequency[largest] = frequency[largest] + WF_LAPLACE_TOTAL - sum;
    uint32_t at = 0;
    for (unsigned i = 0; i < WF_LAPLACE_SYMBOLS; i++) {
        uint32_t f = i < count ? frequency[i] : 0;
        table->start[i] = at;
        table->frequency[i] = f;
        table->reciprocal[i] = f > 1 ? (uint32_t)((UINT64_C(1) << 32) / f) : f ? UINT32_MAX : 0;
        memset(table->symbol + at, (int)i, f);
        at += f;
    }
    assert(at == WF_LAPLACE_TOTAL);
    table->last = count - 1;
}

/* zero, first, and from there on each `decay` times the one before; the last symbol has all the
 * rest.  What is less likely than 2^-10 needs no symbol, but for the first. */
static void geometric(struct wf_laplace_table *table, double zero, double first, double decay)
{
    double probability[WF_LAPLACE_SYMBOLS] = {zero}, left = 1 - zero, next = first;
    unsigned count = 1;
    while (count < WF_LAPLACE_SYMBOLS - 1 && (left - next > 1.0 / 1024 || count < 2)) {
        probability[count++] = next;
        left -= next;
        next *= decay;
    }
    probability[count++] = left;
    fill(table, probability, count);
}

void wf_laplace_init(struct wf_laplace *out)
{
    for (unsigned class = 0; class < WF_LAPLACE_CLASSES; class ++) {
        double rate = 1 / middle(class);
        double root = 1 / exponential(rate / 2); /* P(|y| > half a step) */
        double decay = root * root;
        geometric(&out->table[class], 1 - root, root * (1 - decay), decay);
        /* The mean of an exponential between −½ and ½ of a step. */
        double toward = 0.5 - 1 / rate + 1 / (exponential(rate) - 1);
        out->toward_zero[class] = (float)(toward < WF_LAPLACE_TOWARD_MAX ? toward
                                                                         : WF_LAPLACE_TOWARD_MAX);
    }
}
