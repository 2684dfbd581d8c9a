/* SPDX-License-Identifier: Apache-2.0
 *
 * Names that strangers give and people read.
 */
#ifndef WF_BASE_TEXT_H
#define WF_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Whether `text` may be shown on a terminal and written into JSON: UTF-8 (RFC 3629) of up to
 * `bytes_max` bytes, without control characters (C0, DEL, C1) and without those that turn the
 * direction of writing. `lines` also allows tabs and line ends.  WEFT_E_INVALID leaves a sentence
 * that starts with `what`. */
enum weft_status wf_text_check(const char *what, const char *text, size_t bytes_max, bool lines);

#endif
