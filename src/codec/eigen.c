/* SPDX-License-Identifier: Apache-2.0
 *
 * See eigen.h.  The work is done with eigenvectors in columns, as the algorithms are written, but
 * on the transpose, so that a column is contiguous.
 */
#include "codec/eigen.h"

#include <float.h>
#include <math.h>

#define ROUNDS_MAX 60

/* The element in row r, column c of what the algorithms call V. */
#define V(r, c) v[(c)*n + (r)]

/* One column's reflection; d has the column, e gets what is beside the diagonal. */
static void reflect(double *v, size_t n, double *d, double *e, size_t i)
{
    double scale = 0, h = 0;
    for (size_t k = 0; k < i; k++)
        scale += fabs(d[k]);
    if (scale == 0) {
        e[i] = d[i - 1];
        for (size_t j = 0; j < i; j++) {
            d[j] = V(i - 1, j);
            V(i, j) = 0;
            V(j, i) = 0;
        }
        d[i] = 0;
        return;
    }
    for (size_t k = 0; k < i; k++) {
        d[k] /= scale;
        h += d[k] * d[k];
    }
    double f = d[i - 1], g = f > 0 ? -sqrt(h) : sqrt(h);
    e[i] = scale * g;
    h -= f * g;
    d[i - 1] = f - g;
    for (size_t j = 0; j < i; j++)
        e[j] = 0;
    for (size_t j = 0; j < i; j++) {
        f = d[j];
        V(j, i) = f;
        g = e[j] + V(j, j) * f;
        for (size_t k = j + 1; k < i; k++) {
            g += V(k, j) * d[k];
            e[k] += V(k, j) * f;
        }
        e[j] = g;
    }
    f = 0;
    for (size_t j = 0; j < i; j++) {
        e[j] /= h;
        f += e[j] * d[j];
    }
    double half = f / (h + h);
    for (size_t j = 0; j < i; j++)
        e[j] -= half * d[j];
    for (size_t j = 0; j < i; j++) {
        f = d[j];
        g = e[j];
        for (size_t k = j; k < i; k++)
            V(k, j) -= f * e[k] + g * d[k];
        d[j] = V(i - 1, j);
        V(i, j) = 0;
    }
    d[i] = h;
}

static void reduce(double *v, size_t n, double *d, double *e)
{
    for (size_t j = 0; j < n; j++)
        d[j] = V(n - 1, j);
    for (size_t i = n - 1; i > 0; i--)
        reflect(v, n, d, e, i);
    for (size_t i = 0; i + 1 < n; i++) {
        V(n - 1, i) = V(i, i);
        V(i, i) = 1;
        double h = d[i + 1];
        if (h != 0) {
            for (size_t k = 0; k <= i; k++)
                d[k] = V(k, i + 1) / h;
            for (size_t j = 0; j <= i; j++) {
                double g = 0;
                for (size_t k = 0; k <= i; k++)
                    g += V(k, i + 1) * V(k, j);
                for (size_t k = 0; k <= i; k++)
                    V(k, j) -= g * d[k];
            }
        }
        for (size_t k = 0; k <= i; k++)
            V(k, i + 1) = 0;
    }
    for (size_t j = 0; j < n; j++) {
        d[j] = V(n - 1, j);
        V(n - 1, j) = 0;
    }
    V(n - 1, n - 1) = 1;
    e[0] = 0;
}

/* One QL step from m up to l. */
static void chase(double *v, size_t n, double *d, double *e, size_t l, size_t m, double following)
{
    double p = d[m], c = 1, c2 = 1, c3 = 1, s = 0, s2 = 0, beside = e[l + 1];
    for (size_t i = m; i-- > l;) {
        c3 = c2;
        c2 = c;
        s2 = s;
        double g = c * e[i], h = c * p, r = hypot(p, e[i]);
        e[i + 1] = s * r;
        s = e[i] / r;
        c = p / r;
        p = c * d[i] - s * g;
        d[i + 1] = h + s * (c * g + s * d[i]);
        for (size_t k = 0; k < n; k++) {
            double x = V(k, i + 1), y = V(k, i);
            V(k, i + 1) = s * y + c * x;
            V(k, i) = c * y - s * x;
        }
    }
    p = -s * s2 * c3 * beside * e[l] / following;
    e[l] = s * p;
    d[l] = c * p;
}

static bool diagonalise(double *v, size_t n, double *d, double *e)
{
    double shifted = 0, largest = 0;
    for (size_t i = 1; i < n; i++)
        e[i - 1] = e[i];
    e[n - 1] = 0;
    for (size_t l = 0; l < n; l++) {
        double size = fabs(d[l]) + fabs(e[l]);
        largest = size > largest ? size : largest;
        size_t m = l;
        while (m < n - 1 && fabs(e[m]) > DBL_EPSILON * largest)
            m++;
        for (int round = 0; m > l && fabs(e[l]) > DBL_EPSILON * largest; round++) {
            if (round == ROUNDS_MAX || !isfinite(e[l]))
                return false;
            double g = d[l], p = (d[l + 1] - g) / (2 * e[l]);
            double r = p < 0 ? -hypot(p, 1) : hypot(p, 1);
            d[l] = e[l] / (p + r);
            d[l + 1] = e[l] * (p + r);
            double following = d[l + 1], h = g - d[l];
            for (size_t i = l + 2; i < n; i++)
                d[i] -= h;
            shifted += h;
            chase(v, n, d, e, l, m, following);
        }
        d[l] += shifted;
        e[l] = 0;
    }
    return true;
}

bool wf_eigen(double *v, size_t n, double *d, double *e)
{
    for (size_t i = 0; i < n * n; i++) {
        if (!isfinite(v[i]))
            return false;
    }
    reduce(v, n, d, e);
    if (!diagonalise(v, n, d, e))
        return false;
    for (size_t i = 0; i + 1 < n; i++) {
        size_t best = i;
        for (size_t j = i + 1; j < n; j++)
            best = d[j] > d[best] ? j : best;
        if (best == i)
            continue;
        double value = d[i];
        d[i] = d[best];
        d[best] = value;
        for (size_t k = 0; k < n; k++) {
            double x = V(k, i);
            V(k, i) = V(k, best);
            V(k, best) = x;
        }
    }
    return true;
}
