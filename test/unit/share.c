/* SPDX-License-Identifier: Apache-2.0
 *
 * Whose block goes among domains: by hand, and over a long run of wants by chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "../support/random.h"
#include "core/share.h"

#define NO_CEILING UINT64_MAX

static void due_is_floors_and_weights(void **state)
{
    (void)state;
    uint64_t due[3];
    const struct wf_share plain[] = {{.weight = 1, .ceiling = NO_CEILING},
                                     {.weight = 3, .ceiling = NO_CEILING}};
    wf_share_due(plain, 2, 100, due);
    assert_true(due[0] == 25 && due[1] == 75);
    const struct wf_share all[] = {{.weight = 1, .floor = 20, .ceiling = NO_CEILING},
                                   {.weight = 2, .ceiling = 30},
                                   {.weight = 1, .floor = 20, .ceiling = NO_CEILING}};
    /* 60 by weight: 15, 30, 15. */
    wf_share_due(all, 3, 100, due);
    assert_true(due[0] == 35 && due[1] == 30 && due[2] == 35);
    /* 160: 40, 80, 40; but the second has enough with 30. */
    wf_share_due(all, 3, 200, due);
    assert_true(due[0] == 85 && due[1] == 30 && due[2] == 85);
    /* Less than the floors: in proportion. */
    wf_share_due(all, 3, 20, due);
    assert_true(due[0] == 10 && due[1] == 0 && due[2] == 10);
    const struct wf_share none[] = {{.ceiling = NO_CEILING}, {.ceiling = NO_CEILING}};
    wf_share_due(none, 2, 100, due);
    assert_true(due[0] == 50 && due[1] == 50);
}

static struct wf_share_verdict decide(const struct wf_share *shares, uint32_t count, uint64_t total,
                                      uint32_t wanting, uint64_t wanted)
{
    uint64_t due[8];
    struct wf_share_verdict said;
    wf_share_due(shares, count, total, due);
    wf_share_decide(shares, due, count, total, wanting, wanted, &said);
    return said;
}

static void what_is_lent_goes_first(void **state)
{
    (void)state;
    struct wf_share all[] = {{.used = 10, .weight = 1, .ceiling = NO_CEILING, .gives = true},
                             {.used = 60, .weight = 1, .ceiling = NO_CEILING, .gives = true},
                             {.used = 50, .weight = 1, .ceiling = NO_CEILING, .gives = true}};
    /* 40 each. */
    struct wf_share_verdict said = decide(all, 3, 120, 0, 5);
    assert_int_equal(said.rule, WF_SHARE_BORROWED);
    assert_int_equal(said.who, 1);
    assert_int_equal(said.most, 20);
    assert_int_equal(said.due, 40);
    /* A lower class gives first, though it has borrowed less. */
    all[1].class = 1;
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 2);
    /* A deadline counts as a class; then it is who has borrowed most. */
    all[2].hurried = true;
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 1);
    /* Who has nothing that may go is not asked. */
    all[1].gives = false;
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 2);
    /* A borrower takes from its own, or from a lower class. */
    all[1].gives = true;
    all[2].hurried = false;
    said = decide(all, 3, 120, 2, 5);
    assert_int_equal(said.rule, WF_SHARE_OWN);
    assert_int_equal(said.who, 2);
    said = decide(all, 3, 120, 1, 5);
    assert_int_equal(said.rule, WF_SHARE_BORROWED);
    assert_int_equal(said.who, 2);
    assert_int_equal(said.most, 10);
}

static void class_breaks_ties(void **state)
{
    (void)state;
    struct wf_share all[] = {{.used = 0, .weight = 1, .ceiling = NO_CEILING},
                             {.used = 60, .weight = 1, .ceiling = NO_CEILING, .gives = true},
                             {.used = 60, .weight = 1, .ceiling = NO_CEILING, .gives = true}};
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 1);
    all[1].class = 1;
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 2);
    all[2].class = 2;
    assert_int_equal(decide(all, 3, 120, 0, 5).who, 1);
}

static void corners(void **state)
{
    (void)state;
    struct wf_share all[] = {{.used = 30, .floor = 30, .ceiling = 40, .gives = true},
                             {.used = 70, .floor = 60, .ceiling = NO_CEILING, .gives = true}};
    assert_int_equal(decide(all, 2, 110, 0, 10).rule, WF_SHARE_FREE);
    struct wf_share_verdict said = decide(all, 2, 200, 0, 11);
    assert_int_equal(said.rule, WF_SHARE_CEILING); /* however much is free */
    assert_int_equal(said.who, 0);
    assert_int_equal(decide(all, 2, 200, 0, 41).rule, WF_SHARE_REFUSED);
    all[0].gives = false;
    assert_int_equal(decide(all, 2, 200, 0, 11).rule, WF_SHARE_REFUSED);
    /* The host may have what is above floors, and no more. */
    said = decide(all, 2, 100, WF_SHARE_NONE, 10);
    assert_true(said.rule == WF_SHARE_BORROWED || said.rule == WF_SHARE_ABOVE);
    assert_int_equal(said.who, 1);
    assert_true(said.most <= 10);
    all[1].used = 60;
    said = decide(all, 2, 90, WF_SHARE_NONE, 10);
    assert_int_equal(said.rule, WF_SHARE_REFUSED);
    assert_int_equal(said.who, WF_SHARE_NONE);
    assert_string_equal(wf_share_rule_name(said.rule), "refused");
}

/* Domains take and give by chance, by the rule alone. */
static void it_holds_whatever_comes(void **state)
{
    (void)state;
    enum { DOMAINS = 5, TOTAL = 1000 };
    struct wf_share all[DOMAINS] = {
        {.weight = 1, .floor = 200, .ceiling = NO_CEILING, .class = 1},
        {.weight = 4, .floor = 0, .ceiling = 500},
        {.weight = 0, .floor = 100, .ceiling = NO_CEILING},
        {.weight = 2, .floor = 50, .ceiling = 60, .class = 2},
        {.weight = 1, .floor = 0, .ceiling = NO_CEILING, .class = 2},
    };
    struct random_source random = {6};
    uint64_t due[DOMAINS], used = 0, full = 0, refused = 0;
    wf_share_due(all, DOMAINS, TOTAL, due);
    for (int step = 0; step < 200000; step++) {
        uint32_t wanting = (uint32_t)(random_next(&random) % DOMAINS);
        uint64_t wanted = 1 + random_next(&random) % 20;
        all[random_next(&random) % DOMAINS].hurried = random_next(&random) % 4 == 0;
        if (random_next(&random) % 50 == 0) { /* it has no more use for some of it */
            uint64_t less = random_next(&random) % (all[wanting].used + 1);
            all[wanting].used -= less;
            used -= less;
        }
        for (int rounds = 0;; rounds++) {
            struct wf_share_verdict said;
            assert_true(rounds < 2 * DOMAINS + 2);
            for (uint32_t i = 0; i < DOMAINS; i++)
                all[i].gives = all[i].used > 0;
            wf_share_decide(all, due, DOMAINS, TOTAL, wanting, wanted, &said);
            if (said.rule == WF_SHARE_FREE) {
                assert_true(used + wanted <= TOTAL);
                all[wanting].used += wanted;
                used += wanted;
                break;
            }
            /* Nothing goes while there is room, but for one's own ceiling. */
            bool room = used + wanted <= TOTAL;
            assert_true(!room || all[wanting].used + wanted > all[wanting].ceiling);
            if (said.rule == WF_SHARE_REFUSED) {
                refused++;
                assert_true(wanted > all[wanting].ceiling || all[wanting].used == 0);
                break;
            }
            full++;
            assert_true(said.most > 0 && said.most <= all[said.who].used);
            uint64_t less = said.most < wanted ? said.most : wanted;
            if (said.who != wanting) {
                /* Neither its floor nor what it is due. */
                assert_true(all[said.who].used - said.most >= all[said.who].floor);
                assert_true(all[said.who].used - said.most >= due[said.who]);
                for (uint32_t i = 0; i < DOMAINS; i++) /* nobody lower had borrowed */
                    assert_true(i == wanting || all[i].used <= due[i] ||
                                all[i].class + all[i].hurried >= said.class);
            } else {
                assert_true(all[wanting].used + wanted > due[wanting]);
            }
            all[said.who].used -= less;
            used -= less;
        }
        for (uint32_t i = 0; i < DOMAINS; i++)
            assert_true(all[i].used <= all[i].ceiling);
        assert_true(used <= TOTAL);
    }
    assert_true(full > 10000 && refused < 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(due_is_floors_and_weights), cmocka_unit_test(what_is_lent_goes_first),
        cmocka_unit_test(class_breaks_ties),         cmocka_unit_test(corners),
        cmocka_unit_test(it_holds_whatever_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
