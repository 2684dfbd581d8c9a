/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes as people write them.
 */
#ifndef WF_BASE_SIZE_H
#define WF_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* "10GB", "1.5 GiB", "512m", "4096" → bytes.  K, M, G, T are powers of 1024, with or without
 * B or iB. */
enum weft_status wf_size_parse(const char *text, uint64_t *out_bytes);

/* Bytes as "1.5 GiB" into `buffer` (at least 16 bytes); returns `buffer`. */
char *wf_size_format(uint64_t bytes, char *buffer, size_t capacity);

#endif
