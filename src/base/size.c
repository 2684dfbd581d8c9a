/* SPDX-License-Identifier: Apache-2.0 */
#include "base/size.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MEND "write a number with K, M, G or T, like 10GB"

enum weft_status wf_size_parse(const char *text, uint64_t *out_bytes)
{
    if (!text || !*text)
        return wf_fail(WEFT_E_INVALID, "a size is empty; " MEND);
    const char *p = text;
    while (isspace((unsigned char)*p))
        p++;
    if (!isdigit((unsigned char)*p) && *p != '.')
        return wf_fail(WEFT_E_INVALID, "'%.64s' is not a size; " MEND, text);
    /* By hand: strtod() depends on the locale, and takes "0x10", "1e3" and "inf" besides. */
    const char *end = p;
    double value = 0, place = 1;
    while (isdigit((unsigned char)*end))
        value = value * 10 + (*end++ - '0');
    if (*end == '.')
        for (end++; isdigit((unsigned char)*end); end++)
            value += (*end - '0') * (place /= 10);
    if (end == p + 1 && *p == '.')
        return wf_fail(WEFT_E_INVALID, "'%.64s' is not a size; " MEND, text);
    while (isspace((unsigned char)*end))
        end++;
    double unit = 1;
    switch (toupper((unsigned char)*end)) {
    case 'T': unit *= 1024; /* fall through */
    case 'G': unit *= 1024; /* fall through */
    case 'M': unit *= 1024; /* fall through */
    case 'K':
        unit *= 1024;
        end++;
        break;
    default: break;
    }
    if (unit > 1 && *end == 'i' && toupper((unsigned char)end[1]) == 'B')
        end += 2;
    else if (toupper((unsigned char)*end) == 'B')
        end++;
    while (isspace((unsigned char)*end))
        end++;
    if (*end)
        return wf_fail(WEFT_E_INVALID, "'%.64s' is not a size; " MEND, text);
    if (value * unit >= 9.2e18)
        return wf_fail(WEFT_E_INVALID, "'%.64s' is more than any memory holds; " MEND, text);
    *out_bytes = (uint64_t)(value * unit);
    return WEFT_OK;
}

char *wf_size_format(uint64_t bytes, char *buffer, size_t capacity)
{
    /* No unit that wf_size_parse() does not read. */
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof names / sizeof names[0]) {
        value /= 1024;
        unit++;
    }
    bool whole = value >= 100 || value == (double)(uint64_t)value;
    snprintf(buffer, capacity, whole ? "%.0f %s" : "%.1f %s", value, names[unit]);
    return buffer;
}
