/* SPDX-License-Identifier: Apache-2.0
 *
 * The public status codes, and how a failure leaves its sentence.
 *
 * The first to detect a failure calls wf_fail(); callers propagate the status.  The sentence is
 * kept per thread, so that weft_last_error() answers without a lock, and never printed here.
 */
#ifndef WF_BASE_STATUS_H
#define WF_BASE_STATUS_H

#include "weft/weft.h"

#define WF_ERROR_MAX 512

/* Keep the sentence (the thing, the value, the mend) for this thread and return `status`.  The
 * status goes through in the open, so that a compiler knows which way a caller turns. */
#define wf_fail(status, ...) (wf_fail_keep(__VA_ARGS__), wf_fail_status(status))

void wf_fail_keep(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline enum weft_status wf_fail_status(enum weft_status status)
{
    return status;
}

/* The sentence kept last in this thread; "" when there was none. */
const char *wf_last_error(void);

#endif
