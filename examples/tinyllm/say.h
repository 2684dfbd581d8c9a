/* SPDX-License-Identifier: Apache-2.0
 *
 * How a failure leaves its sentence: the first to notice says what, which value, and the mend;
 * everyone above only passes `false` on, and the command prints it once.
 */
#ifndef TINYLLM_SAY_H
#define TINYLLM_SAY_H

#include <stdbool.h>

void say_keep(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Keep the sentence; false, so that a failing function ends in `return say_failed(…)`. */
#define say_failed(...) (say_keep(__VA_ARGS__), false)

/* The sentence kept last; "" when there was none. */
const char *say_last(void);

#endif
