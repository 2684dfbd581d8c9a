/* SPDX-License-Identifier: Apache-2.0
 *
 * What the node says of its tiers.
 */
#ifndef TEST_SUPPORT_TIERS_H
#define TEST_SUPPORT_TIERS_H

#include <jansson.h>
#include <stdint.h>
#include <string.h>

#include "weft/weft.h"

/* A number of a tier, as `weft ls tiers` has it; INT64_MIN: there is no such tier. */
static inline int64_t tier_number_of(struct weft *w, const char *tier, const char *name)
{
    char *text;
    size_t i;
    int64_t number = INT64_MIN;
    const json_t *row;
    assert_int_equal(weft_query(w, "tiers", 0, &text), WEFT_OK);
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(all, "tiers"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), tier) == 0)
            number = json_integer_value(json_object_get(row, name));
    json_decref(all);
    return number;
}

#endif
