/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes: no text crashes the reader, and what it reads, it can write and read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    uint64_t bytes, again;
    if (wf_size_parse(text, &bytes) == WEFT_OK && bytes < 1ULL << 62) { /* rounding has room */
        char written[16];
        wf_size_format(bytes, written, sizeof written);
        if (wf_size_parse(written, &again) != WEFT_OK)
            abort();
        /* One digit after the point is kept: a twentieth of a unit may be lost, and no more. */
        double lost = (double)bytes > (double)again ? (double)bytes - (double)again
                                                    : (double)again - (double)bytes;
        if (lost > (double)bytes / 20)
            abort();
    }
    free(text);
    return 0;
}
