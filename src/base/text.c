/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at `p` (shortest form, no surrogates) and what it stands for, or 0
 * when there is none. */
static size_t utf8_sequence(const uint8_t *p, uint32_t *out_code)
{
    uint32_t code = p[0];
    size_t length = 1;
    if (p[0] >= 0x80) {
        length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
        uint32_t low = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
        if (p[0] < 0xc2 || p[0] > 0xf4)
            return 0;
        code = p[0] & (0x7fu >> length);
        for (size_t i = 1; i < length; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (p[i] & 0x3fu);
        }
        if (code < low || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return 0;
    }
    *out_code = code;
    return length;
}

/* What moves a terminal's cursor, or makes text look like other text. */
static bool is_control(uint32_t code, bool lines)
{
    if (lines && (code == '\t' || code == '\n'))
        return false;
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x202a && code <= 0x202e) ||
           (code >= 0x2066 && code <= 0x2069);
}

enum weft_status wf_text_check(const char *what, const char *text, size_t bytes_max, bool lines)
{
    size_t length = strnlen(text, bytes_max + 1);
    if (length > bytes_max)
        return wf_fail(WEFT_E_INVALID, "%s is longer than %zu bytes; shorten it", what, bytes_max);
    for (size_t i = 0, step; i < length; i += step) {
        uint32_t code = 0;
        step = utf8_sequence((const uint8_t *)text + i, &code);
        if (!step)
            return wf_fail(WEFT_E_INVALID,
                           "%s is not UTF-8 at byte %zu (0x%02x); encode it as UTF-8", what, i,
                           (uint8_t)text[i]);
        if (is_control(code, lines))
            return wf_fail(WEFT_E_INVALID,
                           "%s has the control character 0x%02x at byte %zu; remove it", what, code,
                           i);
    }
    return WEFT_OK;
}
