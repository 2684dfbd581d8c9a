/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives on a device that loses its write cache: what weft_archive() said is durable is there
 * after a SIGKILL and the loss of every write that no sync covers, also when the archive had been
 * damaged, its blocks were put and demoted again, and it only looked as if nothing was left to do.
 *
 * The node's journal (tier/nvme_tests.h) says which writes those are; they are undone while no node
 * runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../crash/cycles_damage.h"
#include "../support/medium.h"
#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 65536
#define CHAIN 6u
#define TOKENS ((size_t)CHAIN * 4) /* weftd_format() has 4 a block */
#define ROTTEN 2u                  /* which block of the chain */
#define WAIT_MS 30000
#define NAME "lost"

struct stage {
    struct weftd node;
    char tier[128], path[160], journal[128], variable[160];
    struct weft *w;
    struct weft_format *f;
    struct weft_session *s;
    uint32_t tokens[TOKENS + 1]; /* one more, as a match leaves a token to compute */
    struct weft_key keys[CHAIN];
};

/* Until `what` is in the node's answer to a query. */
static void wait_said(struct stage *s, const char *query, const char *what)
{
    bool there = false;
    for (int waited = 0; !there && waited < WAIT_MS; waited += 5) {
        char *text;
        if (weft_query(s->w, query, 0, &text) == WEFT_OK) {
            there = strstr(text, what) != NULL;
            weft_text_free(text);
        }
        if (!there)
            weftd_sleep_ms(5);
    }
    if (!there)
        fail_msg("%s never said %s", query, what);
}

static void stage_open(struct stage *s)
{
    const char *const settings[] = {"pool.size=8MB",
                                    "pool.size_max=8MB",
                                    "pool.policy=lru",
                                    "staging=1MB",
                                    "tiers=nvme0",
                                    "tier.nvme0.size=64MB",
                                    "tier.nvme0.admit=always",
                                    "tier.nvme0.scrub=0", /* it would find the rot before us */
                                    s->path,
                                    NULL};
    const char *const variables[] = {s->variable, NULL};
    struct weft_session_spec spec = {.name = NAME};
    if (!weftd_start(&s->node, settings, variables)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not start");
    }
    s->w = weftd_connect(&s->node, "default");
    s->f = s->w ? weftd_format(s->w, "archive", BLOCK_BYTES) : NULL;
    assert_non_null(s->f);
    assert_int_equal(weft_session_open(s->f, &spec, &s->s), WEFT_OK);
    wait_said(s, "events", "tier_open");
}

static void stage_close(struct stage *s)
{
    weft_session_close(s->s);
    weft_format_close(s->f);
    weft_close(s->w);
}

static void stage_begin(struct stage *s)
{
    memset(s, 0, sizeof *s);
    weftd_prepare(&s->node);
    snprintf(s->tier, sizeof s->tier, "%s/tier", s->node.directory);
    snprintf(s->path, sizeof s->path, "tier.nvme0.path=%s", s->tier);
    snprintf(s->journal, sizeof s->journal, "%s/journal", s->node.directory);
    snprintf(s->variable, sizeof s->variable, "WEFT_NVME_JOURNAL=%s", s->journal);
    damage_begin(s->tier, s->journal);
    stage_open(s);
    for (uint32_t i = 0; i <= TOKENS; i++)
        s->tokens[i] = i;
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, s->tokens, TOKENS, NULL, s->keys), WEFT_OK);
}

static void stage_end(struct stage *s)
{
    stage_close(s);
    if (!weftd_stop(&s->node)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not end well");
    }
    damage_node_died();
    (void)damage_lose(); /* lets go of what it knows of this file */
    weftd_clean(&s->node);
}

/* SIGKILL, the writes that no sync covers are lost, and another node in its place. */
static void power_fails(struct stage *s)
{
    weftd_kill(&s->node);
    stage_close(s);
    damage_node_died();
    uint64_t lost = damage_lose();
    print_message("# %llu writes were lost\n", (unsigned long long)lost);
    stage_open(s);
}

/* All of the chain is in DRAM; what was there already is not written. */
static void put(struct stage *s)
{
    struct weft_slot slots[CHAIN];
    assert_int_equal(weft_reserve_keys(s->f, NULL, s->keys, CHAIN, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < CHAIN; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, BLOCK_BYTES, s->keys[i].bytes);
        else
            assert_int_equal(slots[i].status, WEFT_EXISTS);
    assert_int_equal(weft_commit_slots(s->f, slots, CHAIN), WEFT_OK);
}

/* The chain is below, and in DRAM no more. */
static void demote(struct stage *s)
{
    struct weft_match match;
    struct weft_pin pin;
    enum weft_status status;
    assert_int_equal(weft_match(s->s, s->tokens, TOKENS + 1, &match), WEFT_OK);
    assert_int_equal(match.blocks, CHAIN);
    while ((status = weft_demote(s->s)) == WEFT_PENDING)
        weftd_sleep_ms(1);
    assert_int_equal(status, WEFT_OK);
    for (uint32_t i = 0; i < CHAIN; i++)
        assert_int_equal(weft_pin(s->f, &s->keys[i], &pin), WEFT_MISS);
}

/* How many blocks of the chain can be read, from the first; every byte of them is right. */
static uint32_t verify(struct stage *s)
{
    struct weft_pins pins;
    uint32_t right = 0;
    assert_int_equal(weft_get_keys(s->f, s->keys, CHAIN, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    while (right < pins.blocks && weft_wait_block(&pins, right) == WEFT_OK) {
        assert_true(payload_right(pins.data[right], BLOCK_BYTES, s->keys[right].bytes));
        right++;
    }
    weft_pins_release(&pins);
    return right;
}

static uint32_t present(struct stage *s)
{
    size_t there = 0;
    assert_int_equal(weft_match_keys(s->f, s->keys, CHAIN, &there), WEFT_OK);
    return (uint32_t)there;
}

static uint32_t archive(struct stage *s)
{
    struct weft_archived got;
    struct weft_match match;
    assert_int_equal(weft_match(s->s, s->tokens, TOKENS + 1, &match), WEFT_OK);
    assert_int_equal(match.blocks, CHAIN);
    assert_int_equal(weft_archive(s->s, WAIT_MS, &got), WEFT_OK);
    assert_int_equal(got.blocks, CHAIN);
    return got.written;
}

/* A bit of a block below flips, and whoever reads the chain meets it: that block is lost there, and
 * with it all that extend it. */
static void damage(struct stage *s)
{
    int fd = open(s->tier, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(medium_flip(fd, s->keys[ROTTEN].bytes, 100) > 0);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    assert_int_equal(verify(s), ROTTEN);
    assert_int_equal(present(s), ROTTEN);
}

/* ---------------------------------------------------------------------------------------- tests */

/* What the others rely on: without an archive, what was demoted is lost. */
static void test_the_device_forgets(void **state)
{
    struct stage s;
    (void)state;
    stage_begin(&s);
    put(&s);
    demote(&s);
    assert_int_equal(verify(&s), CHAIN);
    power_fails(&s);
    assert_int_equal(present(&s), 0);
    stage_end(&s);
}

static void test_archived(void **state)
{
    struct stage s;
    (void)state;
    stage_begin(&s);
    put(&s);
    demote(&s);
    assert_int_equal(archive(&s), 0); /* written before, and flushed now */
    power_fails(&s);
    wait_said(&s, "archive " NAME, "\"state\":\"ok\"");
    assert_int_equal(verify(&s), CHAIN);
    stage_end(&s);
}

/* Damaged, put again, below again and not flushed, asked for again: it is whole, and not durable
 * before the answer.  `seen`: somebody looked at the archive while it was damaged. */
static void again(bool seen, bool restarted)
{
    struct stage s;
    stage_begin(&s);
    put(&s);
    assert_int_equal(archive(&s), CHAIN);
    demote(&s);
    if (restarted)
        power_fails(&s);
    damage(&s);
    if (seen)
        wait_said(&s, "archive " NAME, "\"state\":\"damaged\"");
    put(&s);
    demote(&s);
    if (seen)
        wait_said(&s, "archive " NAME, "\"state\":\"ok\"");
    assert_int_equal(archive(&s), 0);
    power_fails(&s);
    wait_said(&s, "archive " NAME, "\"state\":\"ok\"");
    assert_int_equal(verify(&s), CHAIN);
    stage_end(&s);
}

static void test_damaged_and_seen(void **state)
{
    (void)state;
    again(true, false);
}

/* Archives are looked at one after the other, now and then: it may be whole again before. */
static void test_damaged_and_not_seen(void **state)
{
    (void)state;
    again(false, false);
}

static void test_damaged_after_a_restart(void **state)
{
    (void)state;
    again(true, true);
    again(false, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_device_forgets),      cmocka_unit_test(test_archived),
        cmocka_unit_test(test_damaged_and_seen),        cmocka_unit_test(test_damaged_and_not_seen),
        cmocka_unit_test(test_damaged_after_a_restart),
    };
    return cmocka_run_group_tests_name("archive_lost", tests, NULL, NULL);
}
