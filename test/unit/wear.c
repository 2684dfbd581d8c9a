/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier's budget of writes (core/placement.h): prices, chains that are begun and ended, what is
 * owed, and what of it admission makes.
 */
#include "placement_world.h"

static void writes_keep_to_their_budget(void **state)
{
    (void)state;
    struct wf_wear wear;
    wf_wear_init(&wear, 864 * GB, 0, 0); /* no limit */
    wf_wear_spend(&wear, 1e15, 0);
    assert_true(wf_wear_price(&wear, GB, GB, 0) == 0);
    wf_wear_init(&wear, 864 * GB, 1, 0); /* 10 MB a second, and an hour of it at once */
    near(wear.bytes_s, 10 * MB);
    assert_true(wf_wear_price(&wear, MB, MB, 0) == INFINITY);
    assert_true(wf_wear_price(&wear, MB, MB, 1) == 0); /* nothing to compare with as yet */
    assert_true(wf_wear_price(&wear, MB, 37 * GB, 4000) == INFINITY);
    assert_true(wf_wear_price(&wear, MB, 35 * GB, 4000) == 0);
    for (int i = 0; i < 100; i++)
        wf_wear_offer(&wear, 1e-9);
    near(wf_wear_price(&wear, MB, MB, 4000), 1e-9 / exp(1));
    wf_wear_spend(&wear, 18 * GB, 4000);
    near(wf_wear_price(&wear, MB, MB, 4000), 1e-9 / exp(0.5));
    wf_wear_spend(&wear, 20 * GB, 4000); /* 2 GB are owed: 200 s */
    assert_true(wf_wear_price(&wear, MB, MB, 4200) == INFINITY);
    assert_true(wf_wear_price(&wear, MB, MB, 4201) < INFINITY);
    near(wf_wear_price(&wear, MB, 36 * GB, 1e6), 1e-9 / exp(1)); /* and it is full again */
}

/* A block that is more than an hour's is written when so much has come in, and one that is more
 * than a day's never. */
static void a_bucket_holds_a_block(void **state)
{
    (void)state;
    struct wf_wear wear, none;
    wf_wear_init(&none, 864 * MB, 0, 0);
    assert_false(wf_wear_never(&none, 1e15));
    wf_wear_init(&wear, 864 * MB, 1, 0); /* 10 kB a second: 36 MB an hour */
    assert_true(wf_wear_price(&wear, 100 * MB, 100 * MB, 0) == INFINITY);
    assert_true(wf_wear_price(&wear, 100 * MB, 100 * MB, 9999) == INFINITY);
    assert_true(wf_wear_price(&wear, 100 * MB, 100 * MB, 10001) < INFINITY);
    wf_wear_spend(&wear, 100 * MB, 10001);
    assert_true(wf_wear_price(&wear, 100 * MB, 100 * MB, 20000) == INFINITY);
    assert_true(wf_wear_price(&wear, 100 * MB, 100 * MB, 20002) < INFINITY);
    assert_true(wf_wear_price(&wear, 100 * MB, 101 * MB, 1e6) == INFINITY); /* it is no way's */
    assert_false(wf_wear_never(&wear, 864 * MB));
    assert_true(wf_wear_never(&wear, 865 * MB));
    assert_true(wf_wear_price(&wear, 865 * MB, 865 * MB, 1e9) == INFINITY);
    assert_true(wear.bytes <= 864 * MB);
}

static void a_budget_goes_on_from_what_it_had(void **state)
{
    (void)state;
    struct wf_wear wear;
    wf_wear_init(&wear, 864 * GB, 1, 0); /* 10 MB a second */
    wf_wear_resume(&wear, 5 * MB, 36 * GB, 10);
    near(wear.bytes, 105 * MB);
    wf_wear_resume(&wear, 5 * MB, 36 * GB, -1e9); /* the clock was set back */
    near(wear.bytes, 5 * MB);
    wf_wear_resume(&wear, -500 * MB, 36 * GB, 10);
    near(wear.bytes, -400 * MB);
    wf_wear_resume(&wear, 1e17, 0, 1e12); /* never more than the bucket holds, */
    near(wear.bytes, 36 * GB);
    wf_wear_resume(&wear, 1e17, 1e17, 1e12); /* which is a day's at most */
    near(wear.bytes, 864 * GB);
}

static void the_price_rises_as_writes_run_short(void **state)
{
    (void)state;
    struct wf_wear wear;
    struct random_source random = {2};
    wf_wear_init(&wear, 864 * GB, 1, 0);
    /* Worths over two decades, far more of them than may be written: what is taken is above the
     * middle of what comes, and all in all no more than the bucket and what comes in. */
    double written = 0, worth_all = 0, worth_taken = 0, taken = 0, before = 0;
    for (int i = 0; i < 20000; i++) {
        double worth = some(&random, 1e-10, 1e-8), now_s = i;
        wf_wear_offer(&wear, worth);
        double price = wf_wear_price(&wear, 100 * MB, 100 * MB, now_s);
        worth_all += log(worth) / 20000;
        if (worth <= price)
            continue;
        wf_wear_spend(&wear, 100 * MB, now_s);
        if (wear.offers == before)
            assert_true(wf_wear_price(&wear, MB, MB, now_s) >= price);
        before = wear.offers;
        written += 100 * MB;
        worth_taken += log(worth);
        taken++;
    }
    assert_true(written <= 10 * MB * 20000);
    assert_true(written >= 0.8 * 10 * MB * 20000);
    assert_true(worth_taken / taken > worth_all + 1);
}

static void a_chain_is_begun_if_it_can_be_ended(void **state)
{
    (void)state;
    struct wf_wear wear;
    wf_wear_init(&wear, 864 * GB, 1, 0); /* 10 MB a second */
    assert_true(wf_wear_price(&wear, MB, 101 * MB, 10) == INFINITY);
    assert_true(wf_wear_price(&wear, MB, 100 * MB, 10) == 0);
    wf_wear_spend(&wear, MB, 10);
    wf_wear_promise(&wear, 98 * MB);
    /* What is promised is not for others, and there for who was promised it. */
    assert_true(wf_wear_price(&wear, 2 * MB, 2 * MB, 10) == INFINITY);
    assert_true(wf_wear_price(&wear, MB, MB, 10) == 0);
    assert_true(wf_wear_price(&wear, 99 * MB, 0, 10) == 0);
    wf_wear_spend(&wear, 48 * MB, 10);
    wf_wear_redeem(&wear, 48 * MB);
    near(wear.promised, 50 * MB);
    assert_true(wf_wear_price(&wear, 2 * MB, 2 * MB, 10) == INFINITY);
    /* What nobody claims fades. */
    (void)wf_wear_price(&wear, MB, MB, 10 + 3600);
    near(wear.promised, 50 * MB / exp(1));
    wf_wear_redeem(&wear, GB);
    assert_true(wear.promised == 0);
    wf_wear_promise(&wear, -GB);
    assert_true(wear.promised == 0);
}

/* What leads to blocks of one place was promised nothing at another: there it begins anew. */
static void a_promise_is_of_its_place(void **state)
{
    (void)state;
    struct wf_wear none, wear;
    struct wf_wear *const wears[] = {&none, &wear};
    struct wf_place places[] = {flash, flash};
    struct wf_candidate chain = block;
    struct wf_admission said;
    wf_wear_init(&none, 864 * GB, 0, 0);
    wf_wear_init(&wear, 864 * GB, 1, 0);
    wear.bytes = 100 * MB;
    wf_wear_promise(&wear, 95 * MB);
    chain.extended = true;
    chain.way_bytes = 3 * chain.bytes;
    chain.leads = 1u << 0;
    places[0].open = false;
    assert_true(wf_place_led(&chain, 0) && !wf_place_led(&chain, 1));
    wf_place_offer(&chain, places, wears, 2, 0, &said);
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    wear.promised = 75 * MB; /* not for all of its way */
    wf_place_offer(&chain, places, wears, 2, 0, &said);
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    wear.promised = 65 * MB;
    wf_place_offer(&chain, places, wears, 2, 0, &said);
    assert_true(said.rule == WF_ADMITTED_CHAIN && said.place == 1);
    wear.promised = 95 * MB;
    for (int known = 0; known < 2; known++) { /* it leads to what lies there, or may */
        chain.leads = known ? 1u << 1 : 0;
        wf_place_offer(&chain, places, wears, 2, 0, &said);
        assert_true(said.rule == WF_ADMITTED_CHAIN && said.place == 1);
    }
}

static void what_is_owed_is_bounded(void **state)
{
    (void)state;
    struct wf_wear wear, none;
    wf_wear_init(&none, 864 * GB, 0, 0);
    wf_wear_init(&wear, 864 * GB, 1, 0); /* 36 GB an hour */
    assert_false(wf_wear_owes(&none, 1e15, 0));
    assert_false(wf_wear_owes(&wear, 8.9 * GB, 0));
    assert_true(wf_wear_owes(&wear, 9.1 * GB, 0));
    struct wf_wear *const wears[] = {&wear};
    struct wf_place place = flash;
    struct wf_admission said;
    struct wf_candidate chain = block;
    chain.extended = true;
    int written = 0;
    for (; written < 2000; written++) {
        wf_place_offer(&chain, &place, wears, 1, 0, &said);
        if (said.place < 0)
            break;
        assert_int_equal(said.rule, WF_ADMITTED_CHAIN);
        wf_wear_spend(&wear, chain.bytes, 0);
    }
    assert_int_equal(written, 900); /* 9 GB: a quarter of an hour's */
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    chain.asked = true; /* it is owed all the same */
    wf_place_offer(&chain, &place, wears, 1, 0, &said);
    assert_int_equal(said.rule, WF_ADMITTED_CHAIN);
}

/* Chains of 1 to 300 blocks that leave from their ends, many at a time, some of which never leave
 * to their beginnings: in no span of time is more written than the law says. */
static void chains_keep_to_the_budget(void **state)
{
    (void)state;
    enum { CHAINS = 50, STEPS = 40000 };
    struct random_source random = {7};
    struct wf_wear wear;
    struct wf_wear *const wears[] = {&wear};
    struct {
        uint32_t left;
        bool begun, stays;
    } chains[CHAINS] = {{0}};
    double owed_most = 0, written = 0, ended = 0, cut = 0;
    wf_wear_init(&wear, 86.4 * GB, 1, 0); /* 1 MB a second: a block in ten; 360 blocks an hour */
    double least = INFINITY; /* of written less earned: every span is held against its best begin */
    for (int i = 0; i < STEPS; i++) {
        uint32_t at = (uint32_t)(random_next(&random) % CHAINS);
        double now_s = i;
        struct wf_place place = flash;
        struct wf_admission said;
        if (!chains[at].left || chains[at].stays) {
            chains[at].left = 1 + (uint32_t)(random_next(&random) % 300);
            chains[at].begun = chains[at].stays = false;
        }
        struct wf_candidate one = block;
        one.extended = chains[at].begun;
        one.way_bytes = chains[at].left * one.bytes;
        wf_place_offer(&one, &place, wears, 1, now_s, &said);
        chains[at].left--;
        if (said.place >= 0) {
            least = fmin(least, written - now_s * MB);
            wf_wear_spend(&wear, one.bytes, now_s);
            written += one.bytes;
            if (one.extended)
                wf_wear_redeem(&wear, one.bytes);
            else
                wf_wear_promise(&wear, one.way_bytes - one.bytes);
            chains[at].begun = true;
            ended += !chains[at].left;
            chains[at].stays = random_next(&random) % 500 == 0;
        } else {
            cut += chains[at].begun;
            chains[at].begun = false; /* what was below of it is lost */
        }
        owed_most = fmax(owed_most, -wear.bytes);
        assert_true(written - now_s * MB - least <= (1 + WF_WEAR_OWED) * 3600 * MB + block.bytes);
    }
    assert_true(written >= 0.6 * STEPS * MB); /* and it is used */
    assert_true(owed_most <= WF_WEAR_OWED * 3600 * MB);
    assert_true(ended > 100 && cut < ended / 10);
}

/* What is offered to several tiers is offered to each one's budget, at its price. */
static void an_offer_is_counted_by_every_budget(void **state)
{
    (void)state;
    struct wf_wear tight, loose, none;
    wf_wear_init(&tight, 86.4 * MB, 1, 0); /* 3.6 MB an hour */
    wf_wear_init(&loose, 864 * GB, 10, 0);
    wf_wear_init(&none, 864 * GB, 0, 0);
    struct wf_wear *const wears[] = {&tight, &loose, &none};
    struct wf_place places[] = {flash, flash, flash};
    struct wf_admission said;
    wf_place_offer(&block, places, wears, 2, 4000, &said);
    assert_true(places[0].wear_s_byte == INFINITY);
    assert_true(places[1].wear_s_byte > 0 && places[1].wear_s_byte < INFINITY);
    assert_int_equal(said.rule, WF_ADMITTED);
    assert_int_equal(said.place, 1);
    assert_true(tight.offers == 1 && loose.offers == 1);
    places[0] = places[1] = flash;
    wf_place_offer(&block, places, wears, 3, 4000, &said);
    assert_int_equal(said.place, 2); /* the most is left where writes cost nothing */
    places[0] = flash;
    wf_place_offer(&block, places, wears, 1, 4000, &said);
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    assert_int_equal(said.place, -1);
}

/* What the device is really written is what counts, padding and all. */
static void wear_is_of_what_is_really_written(void **state)
{
    (void)state;
    struct wf_wear wear;
    struct wf_wear *const wears[] = {&wear};
    struct wf_place place = flash;
    struct wf_admission plain, padded;
    wf_wear_init(&wear, 360 * MB, 1, 0);
    wf_place_offer(&block, &place, wears, 1, 3600, &plain); /* 15 MB are there, and it has 10 */
    assert_int_equal(plain.rule, WF_ADMITTED);
    place.expansion = 1.6;
    wf_place_offer(&block, &place, wears, 1, 3600, &padded);
    assert_int_equal(padded.rule, WF_REFUSED_WEAR);
    place.wear_s_byte = 1e-9;
    wf_admit(&block, &place, &padded);
    near(padded.wear_s, 1.6e-9 * block.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_keep_to_their_budget),
        cmocka_unit_test(a_bucket_holds_a_block),
        cmocka_unit_test(a_budget_goes_on_from_what_it_had),
        cmocka_unit_test(the_price_rises_as_writes_run_short),
        cmocka_unit_test(a_chain_is_begun_if_it_can_be_ended),
        cmocka_unit_test(a_promise_is_of_its_place),
        cmocka_unit_test(what_is_owed_is_bounded),
        cmocka_unit_test(chains_keep_to_the_budget),
        cmocka_unit_test(an_offer_is_counted_by_every_budget),
        cmocka_unit_test(wear_is_of_what_is_really_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
