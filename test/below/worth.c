/* SPDX-License-Identifier: Apache-2.0
 *
 * A node whose tiers go by worth: with room and writes to spare it keeps all; where the drive may
 * be written no more it refuses, and says why, and what was promised is kept all the same.
 */
#include "corners_world.h"

#define CHAINS 24u /* three times what DRAM holds */

static const char *const by_worth[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "log.level=info",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=64MB",
                                       "tier.nvme0.scrub=0",
                                       NULL};

/* The figures of the last refusal by that rule (NULL: any) among the events, to be let go of; NULL:
 * there is none. */
static json_t *refusal(const struct world *w, const char *rule)
{
    char *text;
    size_t i;
    json_t *event, *found = NULL;
    assert_int_equal(weft_query(w->w, "events", 0, &text), WEFT_OK);
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(all, "events"), i, event) {
        json_t *said = json_object_get(event, "refusal");
        const char *is = json_string_value(json_object_get(said, "rule"));
        if (!is || (rule && strcmp(is, rule) != 0))
            continue;
        json_decref(found);
        found = json_incref(said);
    }
    json_decref(all);
    return found;
}

static void test_with_room_all_is_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w, by_worth);
    start(&w, NULL);
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(get_all(&w, 0, CHAINS), CHAINS * DEPTH);
    json_t *said = refusal(&w, NULL);
    assert_null(said);
    end(&w);
}

static void test_a_drive_that_may_not_be_written(void **state)
{
    (void)state;
    struct world w;
    begin(&w, by_worth);
    set(&w, "tier.nvme0.dwpd=0.001");
    start(&w, NULL);
    assert_int_equal(put(&w, 1000), DEPTH);
    assert_int_equal(archive(&w, 'a', 1000, DEPTH), WEFT_OK); /* a promise, which is owed */
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(tier_number(&w, "nvme0", "blocks"), DEPTH);
    assert_true(get_all(&w, 0, CHAINS) < CHAINS * DEPTH);
    assert_int_equal(get_all(&w, 1000, 1), DEPTH);
    json_t *said = refusal(&w, "wear");
    assert_non_null(said);
    double chance = json_number_value(json_object_get(said, "chance"));
    assert_true(chance > 0 && chance <= 1);
    assert_true(json_number_value(json_object_get(said, "rate")) > 0);
    assert_true(json_number_value(json_object_get(said, "hits")) > 0);
    assert_true(json_number_value(json_object_get(said, "saved_s")) > 0);
    assert_true(json_is_null(json_object_get(said, "wear_s"))); /* there is no price */
    json_decref(said);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_room_all_is_kept),
        cmocka_unit_test(test_a_drive_that_may_not_be_written),
    };
    return cmocka_run_group_tests_name("worth", tests, NULL, NULL);
}
