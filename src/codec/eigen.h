/* SPDX-License-Identifier: Apache-2.0
 *
 * Eigenvectors of small symmetric matrices, for bases (calibrate.h).
 */
#ifndef WF_CODEC_EIGEN_H
#define WF_CODEC_EIGEN_H

#include <stdbool.h>
#include <stddef.h>

/* `matrix` [n][n], symmetric, becomes its orthonormal eigenvectors, one a row; values[n] get their
 * eigenvalues, largest first.  `spare` [n].  Householder's reduction, then QL with implicit shifts
 * (EISPACK tred2 and tql2; J. Wilkinson, C. Reinsch, Linear Algebra, 1971, II/2 and II/4).  False:
 * it did not converge, which numbers that are not finite may cause. */
bool wf_eigen(double *matrix, size_t n, double *values, double *spare);

#endif
