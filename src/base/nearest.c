/* SPDX-License-Identifier: Apache-2.0 */
#include "base/nearest.h"

#include <string.h>

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned wf_nearest_distance(const char *a, const char *b)
{
    size_t a_length = strnlen(a, WF_NEAREST_WORD_MAX + 1);
    size_t b_length = strnlen(b, WF_NEAREST_WORD_MAX + 1);
    if (a_length > WF_NEAREST_WORD_MAX || b_length > WF_NEAREST_WORD_MAX)
        return WF_NEAREST_WORD_MAX + 1;
    /* Three rows of the usual table are enough: a swap looks two rows back. */
    unsigned rows[3][WF_NEAREST_WORD_MAX + 1];
    for (size_t j = 0; j <= b_length; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_length; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *two_above = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_length; j++) {
            unsigned change = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = least(change, least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], two_above[j - 2] + 1);
        }
    }
    return rows[a_length % 3][b_length];
}

void wf_nearest_init(struct wf_nearest *search, const char *word)
{
    /* A third of the letters may be wrong, two in a short word; beyond that a suggestion is a
     * guess. */
    size_t length = strnlen(word, WF_NEAREST_WORD_MAX + 1);
    unsigned allowed = length < 6 ? 2 : (unsigned)(length / 3);
    *search = (struct wf_nearest){.word = word, .distance = allowed + 1};
}

/* "fabric.secret" is "fabric.secret_file" but for a word. */
static unsigned distance_to(const char *word, const char *candidate)
{
    unsigned distance = wf_nearest_distance(word, candidate);
    char begins[WF_NEAREST_WORD_MAX + 1];
    for (const char *at = strchr(candidate, '_'); at; at = strchr(at + 1, '_')) {
        size_t length = (size_t)(at - candidate);
        if (length > WF_NEAREST_WORD_MAX)
            break;
        memcpy(begins, candidate, length);
        begins[length] = 0;
        distance = least(distance, wf_nearest_distance(word, begins) + 1);
    }
    return distance;
}

void wf_nearest_offer(struct wf_nearest *search, const char *candidate)
{
    unsigned distance = distance_to(search->word, candidate);
    if (distance < search->distance) {
        search->distance = distance;
        search->best = candidate;
    }
}
