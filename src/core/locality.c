/* SPDX-License-Identifier: Apache-2.0 */
#include "core/locality.h"

#include <stdbool.h>
#include <string.h>

enum weft_status wf_locality_check(const char *path)
{
    uint32_t levels = 0;
    if (strlen(path) > WF_LOCALITY_MAX)
        return wf_fail(WEFT_E_INVALID, "'%.40s…' has more than %u bytes", path, WF_LOCALITY_MAX);
    for (const char *word = path; *path; word += *word == '/') {
        size_t length = strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789._-");
        if (word[length] != '/' && word[length] != '\0')
            return wf_fail(WEFT_E_INVALID,
                           "'%s' has '%c'; write words of a-z, 0-9, dot, underscore and hyphen "
                           "with '/' between, from the top down, like rack12/switch3/host7",
                           path, word[length]);
        if (length == 0)
            return wf_fail(WEFT_E_INVALID,
                           "'%s' has a level without a name; write words with one '/' between, "
                           "like rack12/switch3/host7",
                           path);
        if (++levels > WF_LOCALITY_LEVELS)
            return wf_fail(WEFT_E_INVALID, "'%s' has more than %u levels", path,
                           WF_LOCALITY_LEVELS);
        word += length;
        if (*word == '\0')
            break;
    }
    return WEFT_OK;
}

static uint32_t levels_of(const char *path)
{
    uint32_t levels = 1;
    for (; *path; path++)
        levels += *path == '/';
    return levels;
}

uint32_t wf_locality_distance(const char *one, const char *other)
{
    uint32_t common = 0;
    if (!*one || !*other)
        return WF_LOCALITY_UNKNOWN;
    uint32_t n = levels_of(one), m = levels_of(other), most = n > m ? n : m;
    for (;;) {
        size_t length = strcspn(one, "/");
        if (length != strcspn(other, "/") || memcmp(one, other, length) != 0)
            return most - common;
        common++;
        if (!one[length] || !other[length])
            return most - common;
        one += length + 1;
        other += length + 1;
    }
}
