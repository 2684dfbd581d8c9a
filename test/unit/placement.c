/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission, placement, compute or load, prefetch: cases that can be computed by hand, and what
 * must hold whatever the numbers are.
 */
#include "core/policy.h"
#include "placement_world.h"

/* -------------------------------------------------------------------------------------- numbers */

static void hits_are_bounded_by_both(void **state)
{
    (void)state;
    near(wf_reuse_hits((struct wf_reuse){0.5, 0.01}, INFINITY), 0.5);
    near(wf_reuse_hits((struct wf_reuse){0.5, 0.01}, 50), 0.5 * (1 - exp(-1)));
    assert_true(wf_reuse_hits((struct wf_reuse){0.5, 0.01}, 0) == 0);
    assert_true(wf_reuse_hits((struct wf_reuse){0, 0}, 10) == 0);
    /* Half of those that come at 1/s ÷ ln 2 are there after a second: of 1 and 1, 2/3 never come.
     */
    struct wf_reuse aged = wf_reuse_aged((struct wf_reuse){0.5, 0.5 * log(2)}, 1);
    near(aged.chance, 0.25 / 0.75);
    near(aged.rate, aged.chance * log(2));
    aged = wf_reuse_aged((struct wf_reuse){1, 1}, 1e6);
    assert_true(aged.chance == 0 && aged.rate == 0);
    struct random_source random = {1};
    for (int i = 0; i < 10000; i++) {
        struct wf_reuse reuse = {part(&random), some(&random, 1e-5, 10)}, more = reuse;
        double stay_s = some(&random, 0.01, 1e6), hits = wf_reuse_hits(reuse, stay_s);
        assert_true(hits <= reuse.chance && hits <= reuse.rate * stay_s * (1 + 1e-12));
        assert_true(wf_reuse_hits(reuse, 2 * stay_s) >= hits);
        more.rate *= 1.5;
        assert_true(wf_reuse_hits(more, stay_s) >= hits);
        more = reuse;
        more.chance = fmin(1, 1.5 * more.chance);
        assert_true(wf_reuse_hits(more, stay_s) >= hits * (1 - 1e-12));
        assert_true(wf_reuse_aged(reuse, stay_s).chance <= reuse.chance * (1 + 1e-12));
    }
}

static void prefill_grows_with_position(void **state)
{
    (void)state;
    struct wf_prefill prefill = {.token_s = 1e-5, .attended_s = 1e-9};
    near(wf_prefill_s(prefill, 0, 1000), 0.01 + 1e-9 * 1000 * 500);
    near(wf_prefill_s(prefill, 1000, 1000), 0.01 + 1e-9 * 1000 * 1500);
    near(wf_prefill_s(prefill, 0, 500) + wf_prefill_s(prefill, 500, 500),
         wf_prefill_s(prefill, 0, 1000));
}

/* ------------------------------------------------------------------------------------ admission */

static void admission_is_gain_less_costs(void **state)
{
    (void)state;
    struct wf_admission said;
    struct wf_place place = flash;
    wf_admit(&block, &place, &said);
    assert_int_equal(said.rule, WF_ADMITTED);
    near(said.saved_s, 0.1);
    near(said.gain_s, 0.05);
    near(said.write_s, 0.0025); /* 5 ms, at half of the time taken from reads */
    near(said.net_s, 0.0475);
    place.wear_s_byte = 4e-9;
    wf_admit(&block, &place, &said);
    near(said.net_s, 0.0075);
    assert_int_equal(said.rule, WF_ADMITTED);
    place.room_s_byte = 1e-9;
    wf_admit(&block, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_ROOM);
    place.wear_s_byte = 5e-9;
    wf_admit(&block, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    place.write_bytes_s = 0.1 * GB;
    wf_admit(&block, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_WRITE);
    place.read_bytes_s = 0.09 * GB;
    wf_admit(&block, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_SLOWER);
    struct wf_candidate once = block;
    once.uses = 1;
    once.reuse.chance = 0.09;
    wf_admit(&once, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_ONCE);
    assert_int_equal(said.place, -1);
    once.extended = true; /* what costs more than it saves is kept for what hangs on it */
    wf_admit(&once, &place, &said);
    assert_int_equal(said.rule, WF_ADMITTED_CHAIN);
    place.open = false;
    wf_admit(&once, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_CLOSED);
}

/* What waiting for it counts is a factor of what is saved, of what comes and of what would go. */
static void waiting_counts_by_its_weight(void **state)
{
    (void)state;
    struct wf_admission usual, heavy;
    struct wf_place place = flash, next = flash, full = flash;
    struct wf_candidate one = block;
    place.stay_s = 10;
    place.next = &next;
    wf_admit(&one, &place, &usual);
    one.reuse.weight = 1;
    wf_admit(&one, &place, &heavy);
    near(heavy.gain_s, usual.gain_s);
    one.reuse.weight = 4;
    wf_admit(&one, &place, &heavy);
    near(heavy.saved_s, 4 * usual.saved_s);
    near(heavy.gain_s, 4 * usual.gain_s);
    near(heavy.write_s, usual.write_s);
    near(wf_reuse_aged(one.reuse, 10).weight, 4);
    wf_place_full(&full, NULL, &block, 100);
    double room_s_byte = full.room_s_byte;
    wf_place_full(&full, NULL, &one, 100);
    near(full.room_s_byte, 4 * room_s_byte);
    /* A policy that is told of costs has it in these. */
    struct wf_policy_reason why = {.knows = true, .value = 0.1, .chance = 0.5, .weight = 8};
    struct wf_reuse reuse;
    assert_true(wf_reuse_told(&why, 1, &reuse) && reuse.weight == 8);
    why.cost_s_gib = 2;
    assert_true(wf_reuse_told(&why, 1, &reuse) && reuse.weight == 0);
}

static void admission_goes_up_with_worth_and_down_with_cost(void **state)
{
    (void)state;
    struct random_source random = {3};
    for (int i = 0; i < 20000; i++) {
        struct wf_candidate one = {.reuse = {part(&random), some(&random, 1e-5, 1)},
                                   .uses = 1 + (uint32_t)(random_next(&random) % 3),
                                   .bytes = some(&random, 1e5, 1e8),
                                   .recompute_s = some(&random, 1e-4, 1),
                                   .run_blocks = 1 + (double)(random_next(&random) % 9)};
        struct wf_place place = {.latency_s = some(&random, 1e-6, 1e-2),
                                 .read_bytes_s = some(&random, 1e8, 1e11),
                                 .write_bytes_s = some(&random, 1e8, 1e11),
                                 .busy = part(&random),
                                 .stay_s = some(&random, 1, 1e5),
                                 .wear_s_byte = some(&random, 1e-12, 1e-8),
                                 .room_s_byte = some(&random, 1e-12, 1e-8),
                                 .open = true};
        struct wf_admission said, other;
        wf_admit(&one, &place, &said);
        struct wf_candidate better[] = {one, one, one, one};
        better[0].reuse.chance = fmin(1, 1.3 * one.reuse.chance);
        better[1].reuse.rate *= 1.3;
        better[2].recompute_s *= 1.3;
        better[3].run_blocks *= 1.3;
        for (size_t k = 0; k < 4; k++) {
            wf_admit(&better[k], &place, &other);
            assert_true(other.net_s >= said.net_s - 1e-12);
            assert_true(said.place < 0 || other.place == 0);
        }
        struct wf_place worse[] = {place, place, place, place, place, place};
        worse[0].latency_s *= 1.3;
        worse[1].read_bytes_s /= 1.3;
        worse[2].write_bytes_s /= 1.3;
        worse[3].stay_s /= 1.3;
        worse[4].wear_s_byte *= 1.3;
        worse[5].room_s_byte *= 1.3;
        for (size_t k = 0; k < 6; k++) {
            wf_admit(&one, &worse[k], &other);
            assert_true(other.net_s <= said.net_s + 1e-12);
            assert_true(said.place == 0 || other.place < 0);
        }
    }
}

static void a_block_goes_where_most_is_left(void **state)
{
    (void)state;
    struct wf_admission said;
    struct wf_place places[3] = {flash, flash, flash};
    places[0].open = false;
    places[1].room_s_byte = 1e-9; /* nearer, and full of what is worth something */
    places[1].read_bytes_s = 50 * GB;
    places[2].write_bytes_s = 20 * GB;
    wf_place_choose(&block, places, 3, &said);
    assert_int_equal(said.place, 2);
    places[1].room_s_byte = 0;
    places[1].write_bytes_s = 20 * GB;
    wf_place_choose(&block, places, 3, &said);
    assert_int_equal(said.place, 1);
    /* Refused by all: the reason of who would be best, but for wear, */
    places[1].room_s_byte = 1e-8;
    places[2].wear_s_byte = INFINITY;
    wf_place_choose(&block, places, 3, &said);
    assert_int_equal(said.place, -1);
    assert_int_equal(said.rule, WF_REFUSED_WEAR);
    places[1].room_s_byte = 6e-9;
    places[2].write_bytes_s = 0.1 * GB; /* less than nothing would be left there */
    places[2].busy = 1;
    places[2].wear_s_byte = 0;
    wf_place_choose(&block, places, 3, &said);
    assert_int_equal(said.rule, WF_REFUSED_ROOM);
    /* and not of one too slow to be read, which asks nothing for it. */
    places[2] = flash;
    places[2].wear_s_byte = INFINITY;
    places[1] = flash;
    places[1].read_bytes_s = 0.09 * GB;
    for (int i = 0; i < 2; i++) {
        struct wf_place swapped = places[1];
        places[1] = places[2];
        places[2] = swapped;
        wf_place_choose(&block, places, 3, &said);
        assert_int_equal(said.rule, WF_REFUSED_WEAR);
    }
    wf_place_choose(&block, places, 1, &said);
    assert_int_equal(said.rule, WF_REFUSED_CLOSED);
    wf_place_choose(&block, places, 0, &said);
    assert_int_equal(said.rule, WF_REFUSED_CLOSED);
}

/* Where nothing is short, nothing that may be wanted is refused; where the cost of prefill is a
 * guess, nothing is refused that only the guess speaks against. */
static void what_costs_nothing_is_taken(void **state)
{
    (void)state;
    struct wf_admission said;
    struct wf_place place = flash;
    struct wf_candidate once = block;
    once.uses = 1;
    once.reuse.chance = 0.01;
    place.busy = 0;
    wf_admit(&once, &place, &said);
    assert_int_equal(said.rule, WF_ADMITTED);
    place.room_s_byte = 1e-30;
    wf_admit(&once, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_ONCE);
    struct wf_candidate guess = block;
    place = flash;
    place.read_bytes_s = 1 * MB;
    place.write_bytes_s = 1 * MB;
    wf_admit(&guess, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_SLOWER);
    guess.guessed = true;
    guess.recompute_s = wf_prefill_guess_s(guess.bytes, 1, &place, 1);
    near(guess.recompute_s, 20.0002);
    wf_admit(&guess, &place, &said);
    assert_int_equal(said.rule, WF_ADMITTED);
    near(wf_prefill_guess_s(guess.bytes, 1, &flash, 1), 6.8e-3);
    place.room_s_byte = said.gain_s / guess.bytes;
    wf_admit(&guess, &place, &said);
    assert_int_equal(said.rule, WF_REFUSED_ROOM);
}

/* What a nearer tier has no room for long is found on the next one then. */
static void what_is_let_go_goes_on(void **state)
{
    (void)state;
    struct wf_admission alone, linked;
    struct wf_place place = flash, next = flash;
    place.stay_s = 10;
    wf_admit(&block, &place, &alone);
    place.next = &next;
    next.read_bytes_s = 0.5 * GB;
    wf_admit(&block, &place, &linked);
    near(linked.hits, 0.5);
    near(linked.gain_s, alone.gain_s + (0.5 - alone.hits) * (0.1021 - 0.0001 - 0.02));
    struct wf_place places[] = {place, next};
    places[0].next = &places[1];
    struct wf_admission said;
    wf_place_choose(&block, places, 2, &said);
    assert_int_equal(said.place, 0);
}

static void room_is_worth_what_lies_there(void **state)
{
    (void)state;
    struct wf_place place = flash, next = flash;
    struct wf_candidate coldest = {.reuse = {.chance = 0.5, .rate = 0.01},
                                   .uses = 2,
                                   .recompute_s = 0.102,
                                   .bytes = 10 * MB};
    double hits = wf_reuse_hits(wf_reuse_aged(coldest.reuse, 100), 100);
    wf_place_full(&place, NULL, &coldest, 100);
    near(place.room_s_byte, hits * 1e-8);
    next.read_bytes_s = 2.5 * GB; /* 2 ms more of reading, and 5 ms of writing, half of the time */
    wf_place_full(&place, &next, &coldest, 100);
    near(place.room_s_byte, hits * 2e-10 + 2.5e-10);
    assert_true(place.next == &next);
    next.room_s_byte = 2e-10;
    next.wear_s_byte = 3e-10;
    wf_place_full(&place, &next, &coldest, 100);
    near(place.room_s_byte, hits * 2e-10 + 7.5e-10);
    next.wear_s_byte = INFINITY; /* it would not take it */
    wf_place_full(&place, &next, &coldest, 100);
    near(place.room_s_byte, hits * 1e-8);
    assert_true(place.next == NULL);
    coldest.recompute_s = 0.001;
    wf_place_full(&place, NULL, &coldest, 100);
    assert_true(place.room_s_byte == 0);
    coldest = (struct wf_candidate){.recompute_s = 1, .bytes = MB}; /* nothing is known of it */
    wf_place_full(&place, NULL, &coldest, 100);
    assert_true(place.room_s_byte == 0);
    near(wf_place_busy(0.5, 0.001, 0.1), 0.5); /* reads are shorter than half a write */
    near(wf_place_busy(0.5, 0.1, 0.02), 0.05);
    near(wf_place_busy(7, 0, 0), 1);
}

/* ------------------------------------------------------------------------------ compute or load */

/* 100 tokens a block and 10 µs a token: 1 ms to compute, a block. */
static const struct wf_cut_load load = {.prefill = {.token_s = 1e-5},
                                        .block_tokens = 100,
                                        .tokens = 1000,
                                        .block_bytes = 1 * MB,
                                        .link_bytes_s = 1000 * GB,
                                        .layers = 1};

static void what_is_sooner_is_done(void **state)
{
    (void)state;
    struct wf_cut cut;
    /* 0.2 ms a block: all eight are loaded, 1.6 + 0.1 ms, and then 2 ms computed. */
    struct wf_place place = flash;
    const struct wf_run runs[] = {{8, 0}};
    wf_cut(&load, &place, 1, runs, 1, &cut);
    assert_int_equal(cut.rule, WF_CUT_LOAD);
    assert_int_equal(cut.load_blocks, 8);
    near(cut.done_s, 0.0037);
    near(cut.none_s, 0.01);
    /* With 4 layers that overlap: 0.1 + 1.6 ÷ 4 + 2 or 0.1 + 1.6 + 2 ÷ 4, whichever is later. */
    struct wf_cut_load layered = load;
    layered.layers = 4;
    wf_cut(&layered, &place, 1, runs, 1, &cut);
    near(cut.done_s, 0.0025);
    /* And it began a millisecond before. */
    layered.ahead_s = 0.001;
    wf_cut(&layered, &place, 1, runs, 1, &cut);
    near(cut.done_s, 0.002);
    /* 2 ms a block is slower than computing. */
    place.read_bytes_s = 0.5 * GB;
    wf_cut(&load, &place, 1, runs, 1, &cut);
    assert_int_equal(cut.rule, WF_CUT_COMPUTE);
    assert_int_equal(cut.load_blocks, 0);
    near(cut.done_s, 0.01);
    /* But 40 layers of both at once: three blocks are loaded while seven are computed.
     * 0.1 + 6 ÷ 40 + 7 = 7.25 ms, and 0.1 + 6 + 7 ÷ 40 = 6.275; four: 0.1 + 8 + 6 ÷ 40 = 8.25. */
    layered.layers = 40;
    layered.ahead_s = 0;
    wf_cut(&layered, &place, 1, runs, 1, &cut);
    assert_int_equal(cut.rule, WF_CUT_PART);
    assert_int_equal(cut.load_blocks, 3);
    near(cut.done_s, 0.00725);
    /* All of the request is there: its last token is computed. */
    const struct wf_run whole[] = {{10, 0}};
    place = flash;
    wf_cut(&load, &place, 1, whole, 1, &cut);
    near(cut.prefill_s, 1e-5);
    assert_int_equal(cut.load_blocks, 10);
}

static void tiers_read_at_the_same_time(void **state)
{
    (void)state;
    struct wf_cut cut;
    struct wf_place places[2] = {flash, flash};
    places[1].read_bytes_s = 1 * GB;
    places[1].read_queue_s = 0.001;
    const struct wf_run runs[] = {{4, 0}, {2, 1}, {2, 0}};
    /* 6 blocks of the one in 1.2 ms, 2 of the other in 2 ms, 1.1 ms after they were asked for. */
    wf_cut(&load, places, 2, runs, 3, &cut);
    assert_int_equal(cut.load_blocks, 8);
    near(cut.latency_s + cut.data_s, 0.0031);
    near(cut.done_s, 0.0051);
    places[1].read_queue_s = 1;
    wf_cut(&load, places, 2, runs, 3, &cut); /* what stands behind a hole is of no use */
    assert_int_equal(cut.load_blocks, 4);
    assert_int_equal(cut.rule, WF_CUT_PART);
    struct wf_cut_load linked = load;
    linked.link_bytes_s = 2 * GB;
    wf_cut(&linked, places, 1, runs, 1, &cut);
    near(cut.latency_s + cut.data_s, 0.0021);
}

static void no_other_cut_is_sooner(void **state)
{
    (void)state;
    struct random_source random = {4};
    for (int i = 0; i < 2000; i++) {
        struct wf_place place = {.latency_s = some(&random, 1e-6, 1e-2),
                                 .read_bytes_s = some(&random, 1e8, 1e10)};
        struct wf_cut_load one = {.prefill = {some(&random, 1e-6, 1e-4),
                                              some(&random, 1e-11, 1e-8)},
                                  .block_tokens = 64,
                                  .tokens = 64 * 40,
                                  .block_bytes = 4 * MB,
                                  .link_bytes_s = 100 * GB,
                                  .layers = 1 + (double)(random_next(&random) % 60),
                                  .ahead_s = part(&random) < 0.5 ? 0 : 0.01 * part(&random)};
        uint32_t there = (uint32_t)(random_next(&random) % 40);
        struct wf_cut best, slower, faster;
        wf_cut(&one, &place, 1, &(struct wf_run){there, 0}, 1, &best);
        assert_true(best.done_s <= best.none_s && best.done_s <= best.all_s);
        for (uint32_t k = 0; k < there; k++) {
            struct wf_cut cut;
            wf_cut(&one, &place, 1, &(struct wf_run){k, 0}, 1, &cut);
            assert_true(best.done_s <= cut.all_s * (1 + 1e-12));
        }
        struct wf_place far = place, near_by = place;
        far.latency_s *= 2;
        near_by.read_bytes_s *= 2;
        wf_cut(&one, &far, 1, &(struct wf_run){there, 0}, 1, &slower);
        wf_cut(&one, &near_by, 1, &(struct wf_run){there, 0}, 1, &faster);
        assert_true(slower.done_s >= best.done_s && faster.done_s <= best.done_s);
        assert_true(slower.load_blocks <= best.load_blocks || slower.done_s == best.done_s);
    }
}

/* ------------------------------------------------------------------------------------- prefetch */

static void prefetch_is_there_when_it_is_due(void **state)
{
    (void)state;
    struct wf_prefetch said;
    struct wf_return back = {.known = true, .due_s = 110, .reuse = {.chance = 1}};
    struct wf_fetch fetch = {.load_s = 2, .saved_s = 2, .bytes = GB, .room_s_byte_s = 1e-10};
    wf_prefetch_decide(&back, &fetch, 100, &said);
    assert_int_equal(said.rule, WF_PREFETCH_LATER);
    near(said.begin_s, 108);
    near(said.ready_s, 110);
    near(said.quantile, 0.1 / 1.1);
    near(said.gain_s, 2);
    near(said.hold_s, 0.2); /* a tenth of a second each second, for the two that it takes */
    wf_prefetch_decide(&back, &fetch, 109, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOW);
    near(said.begin_s, 109);
    near(said.gain_s, 1); /* of two that are saved, one is waited */
    /* Give or take: holding costs a tenth of being late. */
    back.spread_s = 1;
    wf_prefetch_decide(&back, &fetch, 100, &said);
    double odds = 10 * (1 - exp(-2)) - exp(-2), late_s = -log(odds);
    near(said.begin_s, 108 - log(odds));
    near(said.quantile, 1 / (1 + odds));
    near(said.hold_s, 0.1 * (2 + log(1 + odds)));
    near(said.gain_s, 2 - (log1p(exp(late_s)) - log1p(exp(late_s - 2))));
    /* Who knows nearly to the second has the newsvendor's: early by spread · ln 10. */
    back.spread_s = 0.01;
    wf_prefetch_decide(&back, &fetch, 100, &said);
    near(said.begin_s, 108 - 0.01 * log(10));
    near(said.quantile, 0.1 / 1.1);
    /* Who does not, waits until it is nearly sure to come: spread · hold ÷ saved. */
    back.spread_s = 1000;
    fetch.room_s_byte_s = 1e-12;
    wf_prefetch_decide(&back, &fetch, -9000, &said);
    assert_true(fabs(said.quantile - 0.5) < 1e-3);
    fetch.room_s_byte_s = 2.1e-12; /* at no time it comes fast enough to pay for the room */
    wf_prefetch_decide(&back, &fetch, -9000, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOT_WORTH);
    near(said.quantile, 1);
    back.spread_s = 1;
    /* The room is worth more. */
    fetch.room_s_byte_s = 1e-8;
    wf_prefetch_decide(&back, &fetch, 100, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOT_WORTH);
    fetch.saved_s = 0;
    wf_prefetch_decide(&back, &fetch, 100, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOTHING);
}

/* No other moment is better, whatever the numbers. */
static void prefetch_begins_at_the_best_moment(void **state)
{
    (void)state;
    struct random_source random = {11};
    for (int i = 0; i < 5; i++) {
        struct wf_return back = {.known = true,
                                 .due_s = some(&random, 1, 1000),
                                 .spread_s = some(&random, 0.01, 100),
                                 .reuse = {.chance = part(&random)}};
        struct wf_fetch fetch = {.load_s = some(&random, 0.01, 10),
                                 .bytes = 1e6,
                                 .room_s_byte_s = some(&random, 1e-12, 1e-6)};
        fetch.saved_s = fetch.load_s * part(&random);
        double hold = fetch.bytes * fetch.room_s_byte_s;
        struct wf_prefetch said;
        wf_prefetch_decide(&back, &fetch, 0, &said);
        double best = said.rule == WF_PREFETCH_NOT_WORTH ? 0 : said.gain_s - said.hold_s;
        double latest = back.due_s + 20 * back.spread_s;
        int moments = (int)((latest - fetch.load_s) / (0.25 * back.spread_s));
        for (int moment = 0; moment < moments; moment++) {
            /* By adding up small slices of when it comes. */
            double ready = fetch.load_s + 0.25 * back.spread_s * moment;
            double gain = 0, held = fetch.load_s, step = 0.02 * back.spread_s;
            for (int slice = -750; slice < 750; slice++) {
                double r = back.due_s + step * slice;
                double f = exp(-fabs(r - back.due_s) / back.spread_s);
                double part_of = step / back.spread_s * f / ((1 + f) * (1 + f));
                gain += part_of * (fetch.saved_s - fmin(fetch.saved_s, fmax(0, ready - r)));
                held += part_of * fmax(0, r - ready);
            }
            assert_true(back.reuse.chance * gain - hold * held <=
                        best + 1e-3 * (fetch.saved_s + hold * held));
        }
    }
}

static void prefetch_without_a_word_goes_by_rate(void **state)
{
    (void)state;
    struct wf_prefetch said;
    struct wf_return back = {.reuse = {.chance = 0.4, .rate = 0.01}};
    struct wf_fetch fetch = {.load_s = 1, .saved_s = 1, .bytes = GB, .room_s_byte_s = 9e-12};
    wf_prefetch_decide(&back, &fetch, 5, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOW);
    near(said.gain_s, 0.01);
    near(said.hold_s, 0.009);
    fetch.room_s_byte_s = 11e-12;
    wf_prefetch_decide(&back, &fetch, 5, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOT_WORTH);
}

static void prefetch_begins_the_sooner_the_likelier(void **state)
{
    (void)state;
    struct random_source random = {5};
    for (int i = 0; i < 10000; i++) {
        struct wf_return back = {.known = true,
                                 .due_s = 100 + some(&random, 1, 1000),
                                 .spread_s = some(&random, 0.1, 100),
                                 .reuse = {.chance = part(&random)}};
        struct wf_fetch fetch = {.load_s = some(&random, 0.01, 10),
                                 .bytes = some(&random, 1e6, 1e10),
                                 .room_s_byte_s = some(&random, 1e-13, 1e-9)};
        fetch.saved_s = fetch.load_s;
        struct wf_prefetch said, other;
        wf_prefetch_decide(&back, &fetch, 100, &said);
        assert_true(said.begin_s >= 100);
        struct wf_return likelier = back;
        likelier.reuse.chance = fmin(1, 1.3 * back.reuse.chance);
        wf_prefetch_decide(&likelier, &fetch, 100, &other);
        assert_true(other.begin_s <= said.begin_s);
        struct wf_fetch dearer = fetch;
        dearer.room_s_byte_s *= 1.3;
        wf_prefetch_decide(&back, &dearer, 100, &other);
        assert_true(other.begin_s >= said.begin_s);
        assert_true(said.rule != WF_PREFETCH_NOT_WORTH || other.rule == WF_PREFETCH_NOT_WORTH);
    }
}

static void reasons_are_words(void **state)
{
    (void)state;
    char words[256];
    struct wf_admission admission;
    struct wf_place place = flash;
    wf_admit(&block, &place, &admission);
    assert_true(wf_admission_say(&admission, "nvme", words, sizeof words) < (int)sizeof words);
    assert_non_null(strstr(words, "written to nvme: 0.500 hits expected, each saves 100 ms"));
    place.wear_s_byte = INFINITY;
    wf_admit(&block, &place, &admission);
    assert_string_equal(wf_admit_rule_name(admission.rule), "wear");
    assert_true(wf_admission_say(&admission, "nvme", words, sizeof words) > 0);
    assert_non_null(strstr(words, "not written"));
    struct wf_cut cut;
    wf_cut(&load, &flash, 1, &(struct wf_run){8, 0}, 1, &cut);
    assert_true(wf_cut_say(&cut, 8, words, sizeof words) > 0);
    assert_string_equal(
        words, "8 of 8 blocks loaded: done after 3.7 ms; with all of them 3.7, with none 10");
    struct wf_prefetch prefetch;
    wf_prefetch_decide(&(struct wf_return){.known = true, .due_s = 9, .reuse = {.chance = 1}},
                       &(struct wf_fetch){.load_s = 2, .saved_s = 2, .bytes = 1}, 5, &prefetch);
    assert_true(wf_prefetch_say(&prefetch, 5, words, sizeof words) > 0);
    assert_string_equal(words,
                        "fetched ahead in 2 s: 2e+03 ms of waiting saved, 0 ms for the room");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hits_are_bounded_by_both),
        cmocka_unit_test(prefill_grows_with_position),
        cmocka_unit_test(admission_is_gain_less_costs),
        cmocka_unit_test(waiting_counts_by_its_weight),
        cmocka_unit_test(admission_goes_up_with_worth_and_down_with_cost),
        cmocka_unit_test(a_block_goes_where_most_is_left),
        cmocka_unit_test(what_costs_nothing_is_taken),
        cmocka_unit_test(what_is_let_go_goes_on),
        cmocka_unit_test(room_is_worth_what_lies_there),
        cmocka_unit_test(what_is_sooner_is_done),
        cmocka_unit_test(tiers_read_at_the_same_time),
        cmocka_unit_test(no_other_cut_is_sooner),
        cmocka_unit_test(prefetch_is_there_when_it_is_due),
        cmocka_unit_test(prefetch_begins_at_the_best_moment),
        cmocka_unit_test(prefetch_without_a_word_goes_by_rate),
        cmocka_unit_test(prefetch_begins_the_sooner_the_likelier),
        cmocka_unit_test(reasons_are_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
