/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that is lent, and puts that do not come to an end: nobody is told that a block is here
 * before it is, what is here is not given up for what may never come, and a domain learns nothing
 * of another's blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fabric/lent.h"

#define BYTES 4096u

static struct wf_lent *lent;
static uint32_t gone;
static const uint64_t sums[1] = {7};

static void went(void *context, const struct wf_fabric_event *block)
{
    (void)context;
    assert_int_equal(block->kind, WF_FABRIC_GONE);
    gone++;
}

static int begin(void **state)
{
    (void)state;
    gone = 0;
    assert_int_equal(wf_lent_create(&(struct wf_lent_options){.bytes = 1 << 20, .gone = went},
                                    &lent),
                     WEFT_OK);
    for (uint32_t owner = 0; owner < 3; owner++)
        wf_lent_owner_here(lent, owner, true);
    return 0;
}

static int end(void **state)
{
    (void)state;
    wf_lent_verify(lent);
    wf_lent_destroy(lent);
    return 0;
}

static enum weft_status put_begins(uint32_t owner, uint8_t domain, uint8_t quality, uint32_t *entry)
{
    const struct wf_fabric_event block = {
        .kind = WF_FABRIC_HERE, .domain = domain, .quality = quality, .bytes = BYTES, .key = {1}};
    void *data;
    enum weft_status status = wf_lent_begin(lent, owner, &block, 0, BYTES, 1, entry, &data);
    if (status == WEFT_OK)
        memset(data, (int)(owner + 1), BYTES);
    wf_lent_verify(lent);
    return status;
}

static void is_of(uint32_t owner, uint8_t quality)
{
    struct wf_lent_block block;
    uint32_t entry = wf_lent_hold(lent, 0, (const uint8_t[32]){1}, &block);
    assert_int_not_equal(entry, WF_LENT_NONE);
    assert_int_equal(block.quality, quality);
    for (uint32_t i = 0; i < BYTES; i++)
        assert_int_equal(block.data[i], owner + 1);
    wf_lent_let_go(lent, entry);
}

static void what_is_coming_is_not_here(void **state)
{
    (void)state;
    uint32_t one, other;
    assert_int_equal(put_begins(0, 0, 0, &one), WEFT_OK);
    assert_int_equal(put_begins(1, 0, 0, &other), WEFT_E_BUSY);
    (void)wf_lent_end(lent, one, NULL);
    assert_int_equal(put_begins(1, 0, 0, &other), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, other, sums), WEFT_OK);
    is_of(1, 0);
    assert_int_equal(put_begins(0, 0, 0, &one), WEFT_EXISTS);
}

/* A better copy is begun, and breaks off: the one that is here stays. */
static void what_is_here_waits_for_what_is_better(void **state)
{
    (void)state;
    uint32_t worse, better;
    assert_int_equal(put_begins(0, 0, WEFT_ECONOMY, &worse), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, worse, sums), WEFT_OK);
    assert_int_equal(put_begins(1, 0, 0, &better), WEFT_OK);
    is_of(0, WEFT_ECONOMY);
    assert_int_equal(gone, 0);
    (void)wf_lent_end(lent, better, NULL);
    is_of(0, WEFT_ECONOMY);
    assert_int_equal(put_begins(1, 0, 0, &better), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, better, sums), WEFT_OK);
    is_of(1, 0);
    assert_int_equal(gone, 1);
}

/* Two better ones at once: the first to be there stays unless the second is better still. */
static void of_two_that_come_the_better_stays(void **state)
{
    (void)state;
    uint32_t worst, one, other, third;
    assert_int_equal(put_begins(0, 0, WEFT_ECONOMY, &worst), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, worst, sums), WEFT_OK);
    assert_int_equal(put_begins(0, 0, WEFT_TRANSPARENT, &third), WEFT_OK);
    assert_int_equal(put_begins(1, 0, 0, &one), WEFT_OK);
    assert_int_equal(put_begins(2, 0, 0, &other), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, one, sums), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, other, sums), WEFT_EXISTS);
    assert_int_equal(wf_lent_end(lent, third, sums), WEFT_EXISTS);
    is_of(1, 0);
    assert_true(wf_lent_drop(lent, 1, (const uint8_t[32]){1}));
    struct wf_lent_stats stats;
    wf_lent_stats(lent, &stats);
    assert_int_equal(stats.used_bytes, 0);
    assert_int_equal(stats.blocks, 0);
}

/* The one that was here goes meanwhile: what comes has its place. */
static void what_comes_does_not_need_what_was_here(void **state)
{
    (void)state;
    uint32_t worse, better, again;
    assert_int_equal(put_begins(0, 0, WEFT_ECONOMY, &worse), WEFT_OK);
    assert_int_equal(wf_lent_end(lent, worse, sums), WEFT_OK);
    assert_int_equal(put_begins(1, 0, 0, &better), WEFT_OK);
    assert_true(wf_lent_drop(lent, 0, (const uint8_t[32]){1}));
    assert_int_equal(put_begins(2, 0, 0, &again), WEFT_OK); /* of it nobody knows */
    assert_int_equal(wf_lent_end(lent, better, sums), WEFT_EXISTS);
    assert_int_equal(wf_lent_end(lent, again, sums), WEFT_OK);
    is_of(2, 0);
}

/* As if there were no room: neither is it here nor does it say that somebody has it. */
static void another_domains_block_is_not_told_of(void **state)
{
    (void)state;
    uint32_t one, other;
    assert_int_equal(put_begins(0, 0, 0, &one), WEFT_OK);
    assert_int_equal(put_begins(1, 1, 0, &other), WEFT_FULL);
    assert_int_equal(wf_lent_end(lent, one, sums), WEFT_OK);
    assert_int_equal(put_begins(1, 1, 0, &other), WEFT_FULL);
    is_of(0, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_coming_is_not_here),           TEST(what_is_here_waits_for_what_is_better),
        TEST(of_two_that_come_the_better_stays),    TEST(what_comes_does_not_need_what_was_here),
        TEST(another_domains_block_is_not_told_of),
    };
    return cmocka_run_group_tests_name("puts that break off", tests, NULL, NULL);
}
