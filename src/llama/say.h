/* SPDX-License-Identifier: Apache-2.0
 *
 * How a failure leaves its sentence: the first to notice says what, which value, and the mend;
 * everyone above only passes `false` on, and the command prints it once.
 */
#ifndef WF_LLAMA_SAY_H
#define WF_LLAMA_SAY_H

#include <stdbool.h>

void wf_say_keep(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Keep the sentence; false, so that a failing function ends in `return wf_say_failed(…)`. */
#define wf_say_failed(...) (wf_say_keep(__VA_ARGS__), false)

/* The sentence kept last; "" when there was none. */
const char *wf_say_last(void);

#endif
