/* SPDX-License-Identifier: Apache-2.0
 *
 * Which blocks a node writes below, and where, from figures that are given: the rules one by one,
 * and that it is what core/placement.h decides from the same figures, as the simulator does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../support/random.h"
#include "daemon/below.h"
#include "sys/clock.h"

#define MIB ((uint64_t)1 << 20)
#define BLOCK_BYTES (2 * MIB)
#define TIER_BYTES (64 * MIB)
#define MOST (wf_lower_most_bytes(&s->below.tiers[0]) / BLOCK_BYTES) /* blocks that fit a tier */

struct stage {
    struct wf_node node;
    struct wf_domain domain;
    struct wf_below below;
    struct wf_tier_config tiers[2];
    struct wf_format_entry format;
    uint8_t used_again[8];
    uint32_t keys;
};

static struct wf_policy_reason told;

static void explain(struct wf_policy *policy, uint32_t slot, struct wf_policy_reason *out)
{
    (void)policy, (void)slot;
    *out = told;
}

static void shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality)
{
    (void)quality;
    (void)context, (void)domain, (void)key, (void)tier;
}

static void dropped(void *context, const struct wf_directory_dropped *block)
{
    (void)context, (void)block;
}

/* Two tiers: 1 and 0.5 GB/s, 100 µs and 1 ms. */
static int before(void **state)
{
    static struct stage s;
    static const struct wf_policy_ops policy = {.name = "told", .explain = explain};
    const struct wf_directory_env env = {.context = &s, .shown = shown, .dropped = dropped};
    memset(&s, 0, sizeof s);
    assert_int_equal(wf_directory_create(4096, 7, &env, &s.below.directory), WEFT_OK);
    s.below.node = &s.node;
    assert_int_equal(wf_demotes_create(&s.below), WEFT_OK);
    s.node.below = &s.below;
    s.node.domains = &s.domain;
    s.node.domain_count = 1;
    s.node.config.below_max = 4096;
    s.node.formats = &s.format;
    s.node.format_count = 1;
    s.format = (struct wf_format_entry){.block_bytes = BLOCK_BYTES, .block_tokens = 16};
    s.domain.node = &s.node;
    s.domain.used_again = s.used_again;
    s.domain.store.policy_ops = &policy;
    for (uint32_t i = 0; i < 2; i++) {
        struct wf_lower *lower = &s.below.tiers[i];
        *lower = (struct wf_lower){
            .below = &s.below, .config = &s.tiers[i], .number = i, .opened = true, .expansion = 1};
        lower->stats.state = WF_MOVER_OK;
        lower->stats.tier.capacity_bytes = TIER_BYTES;
        lower->stats.read_latency_us = i ? 1000 : 100;
        lower->stats.read_mbps = lower->stats.write_mbps = i ? 500 : 1000;
        s.below.order[i] = i;
    }
    s.below.count = 1;
    told = (struct wf_policy_reason){.rule = "told", .knows = true, .value = 0.01, .chance = 0.5};
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    wf_demotes_destroy(&s->below);
    wf_directory_destroy(s->below.directory);
    return 0;
}

static struct wf_below_ask asking(void)
{
    return (struct wf_below_ask){.slot = 3, .depth = 2, .bytes = BLOCK_BYTES};
}

/* The number of the tier that takes it; -1: none does. */
static int chosen(struct stage *s, const struct wf_below_ask *ask, struct wf_refusal *refusal)
{
    struct wf_lower *to = wf_below_choose(&s->domain, ask, refusal);
    return to ? (int)to->number : -1;
}

static float filled_weight; /* 0: 1 */

/* Blocks on a tier, of which so much was expected so long ago. */
static void fill(struct stage *s, unsigned tier, uint64_t blocks, uint32_t age_s, float chance,
                 float rate)
{
    wf_directory_clock(s->below.directory, (uint32_t)(wf_now_ns() / 100000000) - 10 * age_s);
    for (uint64_t i = 0; i < blocks; i++) {
        struct wf_directory_add add = {.bytes = BLOCK_BYTES, .tier = tier};
        uint32_t entry;
        add.chance = chance;
        add.rate = rate;
        add.weight = filled_weight;
        random_key(++s->keys, add.key);
        assert_int_equal(wf_directory_add(s->below.directory, &add, &entry), WEFT_OK);
    }
}

static void with_room_all_is_taken(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    told.chance = 1e-4; /* a one-hit wonder costs nothing */
    told.value = 1e-9;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    s->below.tiers[0].stats.read_mbps = 0.1; /* slow, and nobody said how dear prefill is */
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    s->node.config.prefill_tokens_s = 1000; /* 16 ms for what takes 20 s to read */
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_SLOWER);
    s->format.block_tokens = 0; /* a block of no format that is known */
    assert_int_equal(chosen(s, &ask, &refusal), 0);
}

/* The tier is full of what is expected back. */
static void a_one_hit_wonder_is_refused_where_room_is_short(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    fill(s, 0, MOST, 100, 0.2f, 1e-4f);
    told.chance = 0.05;
    told.value = 1e-4;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_ONCE);
    assert_true(refusal.by_worth && refusal.by_tier);
    assert_true(fabs(refusal.reuse.chance - 0.05) < 1e-9);
    assert_true(refusal.said.room_s > 0);
}

/* What waiting for a session counts, counts below as it does in DRAM: of what comes, and of what
 * would go for it. */
static void priorities_count_below(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    s->used_again[0] |= 1u << 3;
    fill(s, 0, MOST, 100, 0.5f, 5e-3f);
    told.chance = 0.5;
    told.value = 1e-4;
    told.weight = 1;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_ROOM);
    double gain_s = refusal.said.gain_s, room_s = refusal.said.room_s;
    told.weight = 16;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(fabs(refusal.said.gain_s / gain_s - 16) < 1e-9);
    assert_true(gain_s < room_s && refusal.said.gain_s < room_s);
    /* Where costs are told of, it is in these: half as much again of one that counts twice. */
    struct wf_policy_reason why = told;
    struct wf_reuse reuse;
    const struct wf_directory_block block = {.bytes = BLOCK_BYTES, .depth = 2};
    s->node.config.prefill_tokens_s = 1000; /* 16 ms a block, and attending to 40 before */
    double own = 0.016 * (1 + WF_PREFILL_ATTENDED * 40) / BLOCK_BYTES * 0x1p30;
    why.cost_s_gib = 3 * own;
    why.weight = 7;
    assert_true(wf_below_reuse(&s->domain, &why, &block, &reuse) && reuse.weight == 0);
    s->domain.weighed = true;
    assert_true(wf_below_reuse(&s->domain, &why, &block, &reuse));
    assert_true(fabs(reuse.weight - 3) < 0.01);
    why.cost_s_gib = 1e9;
    assert_true(wf_below_reuse(&s->domain, &why, &block, &reuse) && reuse.weight == 16);
    s->domain.weighed = false;
}

static void what_lies_below_counts_by_its_weight(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    double room_s[2];
    s->used_again[0] |= 1u << 3;
    s->below.count = 2;
    told.chance = 0.5;
    told.value = 1e-5;
    for (unsigned i = 0; i < 2; i++) {
        filled_weight = i ? 8.3f : 0; /* about */
        fill(s, i, MOST, 100, 0.5f, 5e-3f);
        s->below.tiers[1].stats = s->below.tiers[0].stats;
        s->below.tiers[!i].full_until_ns = UINT64_MAX;
        s->below.tiers[i].full_until_ns = 0;
        assert_int_equal(chosen(s, &ask, &refusal), -1);
        assert_int_equal(refusal.why, WF_NOT_ROOM);
        room_s[i] = refusal.said.room_s;
    }
    filled_weight = 0;
    assert_true(fabs(room_s[1] / room_s[0] - 8) < 0.1);
}

static void what_was_used_twice_is_weighed(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    wf_wear_init(&s->below.tiers[0].wear, 1e9, 86400, 0); /* 1 GB a second, and full */
    told.chance = 0.05;
    told.value = 0.01;
    for (int i = 0; i < 3; i++) /* something to compare with */
        wf_wear_offer(&s->below.tiers[0].wear, 1e-12);
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_ONCE);
    s->used_again[0] |= 1u << 3;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
}

static void a_budget_that_is_used_up_refuses(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    struct wf_lower *lower = &s->below.tiers[0];
    s->tiers[0].drive_writes = 0.001;
    wf_lower_meter(lower, 0);
    assert_true(wf_lower_worn(lower, BLOCK_BYTES));
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_WEAR);
    assert_true(refusal.by_worth && isinf(refusal.said.wear_s));
    assert_string_equal(wf_not_below_name(refusal.why), "wear");
    /* So it does where worth is not looked at, as the tier says, or the policy knows nothing; */
    s->tiers[0].admit = WF_ADMIT_ALWAYS;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_WEAR && !refusal.by_worth);
    s->tiers[0].admit = WF_ADMIT_AUTO;
    told.knows = false;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_WEAR && !refusal.by_worth);
    ask.hinted = true; /* that a session waits is no reason to owe */
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_WEAR && refusal.by_tier);
    double budget, day;
    assert_true(wf_lower_budget(lower, &budget, &day));
    assert_true(day > 0 && budget < BLOCK_BYTES);
    /* and what must be below is owed. */
    ask.must = true;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    told.knows = true;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    double left = lower->wear.bytes;
    wf_lower_written(lower, BLOCK_BYTES);
    assert_true(lower->wear.bytes < left - BLOCK_BYTES / 2.0);
}

/* A chain is begun if the budget has all of its way, which is its own from then on; what leads to
 * it is written until the budget owes what it may. */
static void a_budget_pays_for_whole_chains(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    struct wf_lower *lower = &s->below.tiers[0];
    const enum wf_tier_admit admits[] = {WF_ADMIT_AUTO, WF_ADMIT_ALWAYS};
    for (int i = 0; i < 4; i++) {
        s->tiers[0].admit = admits[i % 2];
        ask = asking();
        ask.hinted = i > 1; /* as well where a session waits */
        wf_wear_init(&lower->wear, 1e9, 1, 0);
        lower->wear.bytes = 10.5 * BLOCK_BYTES;
        lower->wear.at_s = 1e12;
        ask.way_bytes = 11 * BLOCK_BYTES;
        assert_int_equal(chosen(s, &ask, &refusal), -1);
        assert_int_equal(refusal.why, WF_NOT_WEAR);
        ask.way_bytes = 10 * BLOCK_BYTES;
        lower->expansion = 1.1; /* as much as that is written */
        assert_int_equal(chosen(s, &ask, &refusal), -1);
        lower->expansion = 1;
        assert_int_equal(chosen(s, &ask, &refusal), 0);
        wf_lower_written(lower, ask.bytes);
        wf_lower_begun(lower, &ask);
        assert_true(fabs(lower->wear.promised - 9.0 * BLOCK_BYTES) < 1);
        ask.way_bytes = BLOCK_BYTES;
        assert_int_equal(chosen(s, &ask, &refusal), -1); /* that is another's */
        ask.extended = true;
        ask.way_bytes = 0;
        assert_int_equal(chosen(s, &ask, &refusal), 0);
        wf_lower_written(lower, ask.bytes);
        wf_lower_begun(lower, &ask);
        assert_true(fabs(lower->wear.promised - 8.0 * BLOCK_BYTES) < 1);
        ask.leads = 1u << 1; /* to what lies elsewhere: it was promised nothing here */
        ask.way_bytes = 3 * BLOCK_BYTES;
        if (s->tiers[0].admit == WF_ADMIT_AUTO && !ask.hinted)
            assert_int_equal(chosen(s, &ask, &refusal), -1);
        double promised = lower->wear.promised;
        wf_lower_begun(lower, &ask);
        assert_true(fabs(lower->wear.promised - promised - 2.0 * BLOCK_BYTES) < 1);
        ask.leads = 1u << 0;
        ask.way_bytes = 0;
        lower->wear.bytes = (1 - WF_WEAR_OWED) * lower->wear.most_bytes - lower->wear.most_bytes;
        assert_int_equal(chosen(s, &ask, &refusal), -1);
        assert_int_equal(refusal.why, WF_NOT_WEAR);
        ask.must = true;
        assert_int_equal(chosen(s, &ask, &refusal), 0);
    }
}

/* A tier of a node that begins; what it has of its budget. */
static double begun(struct stage *s, double has_been_bytes)
{
    struct wf_lower *lower = &s->below.tiers[0];
    s->tiers[0].drive_writes = 1350; /* 1 MB a second */
    lower->wear = (struct wf_wear){.bytes_s = 0};
    lower->meter.wear_capacity = 0;
    wf_lower_meter(lower, 0);
    if (has_been_bytes != 0) {
        lower->wear.bytes = has_been_bytes;
        wf_budget_end(lower);
        lower->wear = (struct wf_wear){.bytes_s = 0};
        lower->meter.wear_capacity = 0;
        wf_lower_meter(lower, 0);
    }
    return lower->wear.bytes;
}

static void wear_file(const struct stage *s, char path[WF_PATH_MAX])
{
    assert_true(wf_volume_place(&s->below.tiers[0], ".wear", path));
}

/* The budget goes on across starts; who is killed again and again gets no more of it. */
static void a_budget_outlives_its_node(void **state)
{
    struct stage *s = *state;
    struct wf_lower *lower = &s->below.tiers[0];
    char path[WF_PATH_MAX], text[512];
    const double minute = 60e6; /* this test takes less */
    snprintf(s->node.config.state_dir, sizeof s->node.config.state_dir, "/tmp/weft-admit-XXXXXX");
    assert_non_null(mkdtemp(s->node.config.state_dir));
    snprintf(s->tiers[0].name, sizeof s->tiers[0].name, "a");
    snprintf(lower->path, sizeof lower->path, "/a/path");
    wear_file(s, path);
    assert_true(begun(s, 0) < minute); /* nothing is known */
    double has = begun(s, 1e9);
    assert_true(has >= 1e9 && has < 1e9 + minute);
    double owes = begun(s, -2e9);
    assert_true(owes >= -2e9 && owes < -2e9 + minute);
    /* Killed: nothing is written but what was when it was begun, or spent. */
    (void)begun(s, 1e9);
    double written = 0, most = lower->wear.most_bytes;
    for (int kills = 0; kills < 30; kills++) {
        for (int i = 0; i < 50 && !wf_lower_worn(lower, BLOCK_BYTES); i++) {
            wf_lower_written(lower, BLOCK_BYTES);
            written += BLOCK_BYTES;
        }
        lower->wear = (struct wf_wear){.bytes_s = 0};
        lower->meter.wear_capacity = 0;
        wf_lower_meter(lower, 0);
    }
    assert_true(written > 0.5e9 && written <= 1e9 + minute);
    (void)begun(s, 1e9); /* and none goes by being killed, but for a part, once */
    for (int kills = 0; kills < 200; kills++) {
        lower->wear = (struct wf_wear){.bytes_s = 0};
        lower->meter.wear_capacity = 0;
        wf_lower_meter(lower, 0);
    }
    assert_true(lower->wear.bytes >= 0);
    (void)begun(s, 1e9);
    lower->wear.bytes = -1e6; /* what was asked for is owed, and stays so */
    wf_lower_written(lower, BLOCK_BYTES);
    lower->wear = (struct wf_wear){.bytes_s = 0};
    lower->meter.wear_capacity = 0;
    wf_lower_meter(lower, 0);
    assert_true(lower->wear.bytes < -1e6);
    assert_true(lower->wear.bytes > -1e6 - most / 32);
    /* An hour away is an hour's; a file that somebody wrote into, or of another path, is none. */
    (void)begun(s, 1e9);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    size_t bytes = fread(text, 1, sizeof text, file);
    assert_true(bytes > 20);
    rewind(file);
    assert_int_equal(fputc(text[0] == '1' ? '2' : '1', file), text[0] == '1' ? '2' : '1');
    fclose(file);
    assert_true(begun(s, 0) < minute);
    (void)begun(s, 1e9);
    snprintf(lower->path, sizeof lower->path, "/another");
    assert_true(begun(s, 0) < minute);
    wear_file(s, path);
    unlink(path);
    snprintf(lower->path, sizeof lower->path, "/a/path");
    wear_file(s, path);
    unlink(path);
    /* Where it cannot be written again it is not believed. */
    (void)begun(s, 1e9);
    chmod(s->node.config.state_dir, 0777);
    assert_true(begun(s, 0) < minute);
    unlink(path);
    assert_int_equal(rmdir(s->node.config.state_dir), 0);
}

/* What is looked at ahead of need over and over is one offer, when it is taken or goes. */
static void a_look_ahead_is_no_offer(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    struct wf_wear *wear = &s->below.tiers[0].wear;
    s->tiers[0].drive_writes = 0.001;
    wf_lower_meter(&s->below.tiers[0], 0);
    ask.ahead = true;
    for (int i = 0; i < 5; i++)
        assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(wear->offers == 0);
    ask.ahead = false;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(wear->offers == 1);
}

static void it_goes_where_most_is_left(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    s->below.count = 2;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    fill(s, 0, MOST, 10, 0.9f, 0.1f); /* of what is worth more */
    assert_int_equal(chosen(s, &ask, &refusal), 1);
    s->below.tiers[1].full_until_ns = UINT64_MAX;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.by_worth);
}

/* A tier that does not look at worth takes what those before it do not, and none behind it is asked
 * before it. */
static void tiers_that_take_all_have_their_place(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    s->below.count = 2;
    s->tiers[1].admit = WF_ADMIT_ALWAYS;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    s->tiers[0].drive_writes = 0.001;
    wf_lower_meter(&s->below.tiers[0], 0);
    assert_int_equal(chosen(s, &ask, &refusal), 1);
    s->tiers[1].admit = WF_ADMIT_REUSED;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_WEAR && refusal.by_worth); /* the nearer one's word stands */
    s->tiers[1].admit = WF_ADMIT_NEVER;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_int_equal(refusal.why, WF_NOT_WEAR);
    s->tiers[0].admit = WF_ADMIT_NEVER;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_ADMITTED && !refusal.by_tier);
    s->tiers[0].admit = s->tiers[1].admit = WF_ADMIT_ALWAYS;
    s->tiers[0].drive_writes = 0;
    s->below.tiers[0].wear = (struct wf_wear){0};
    assert_int_equal(chosen(s, &ask, &refusal), 0);
}

/* Without an estimate of the policy's: what was used again, and the rest while the tier keeps up.
 */
static void without_an_estimate_it_is_by_use(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    told.knows = false;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    s->below.tiers[0].stats.queued = WF_WRITES_MAX;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_BUSY && !refusal.by_worth);
    s->used_again[0] |= 1u << 3;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
}

/* What one tier lets go is worth its way to the next, or is lost. */
static void what_is_let_go_is_weighed_too(void **state)
{
    struct stage *s = *state;
    struct wf_lower *lower = &s->below.tiers[0];
    struct wf_directory_block block = {.bytes = BLOCK_BYTES,
                                       .chance = 0.5f,
                                       .rate = 0.01f,
                                       .idle_ds = 100};
    assert_true(wf_lower_wants(lower, &block));
    fill(s, 0, MOST, 100, 0.9f, 1e-3f);
    assert_false(wf_lower_wants(
        lower, &(struct wf_directory_block){.bytes = BLOCK_BYTES, .chance = 0.1f, .rate = 1e-6f}));
    block.chance = 0; /* nothing is known of it */
    assert_true(wf_lower_wants(lower, &block));
    s->tiers[0].drive_writes = 0.001;
    wf_lower_meter(lower, 0);
    assert_false(wf_lower_wants(lower, &block));
}

/* A tier that is behind gets what is likely to be wanted again, which waits for it. */
static void what_is_unlikely_does_not_wait(void **state)
{
    struct stage *s = *state;
    struct wf_refusal refusal;
    struct wf_below_ask ask = asking();
    s->below.tiers[0].stats.queued = WF_WRITES_MAX;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
    told.chance = 0.05;
    assert_int_equal(chosen(s, &ask, &refusal), -1);
    assert_true(refusal.why == WF_NOT_BUSY && refusal.by_tier && !refusal.by_worth);
    s->used_again[0] |= 1u << 3;
    assert_int_equal(chosen(s, &ask, &refusal), 0);
}

static double some(struct random_source *random, double least, double most)
{
    return least * pow(most / least, (double)(random_next(random) >> 11) * 0x1p-53);
}

/* The same figures as the simulator would have of such tiers, and the same decision. */
static void it_is_what_the_simulator_decides(void **state)
{
    struct stage *s = *state;
    struct random_source random = {5};
    uint32_t rules[WF_ADMIT_RULES] = {0}, taken[2] = {0};
    s->below.count = 2;
    s->node.config.prefill_tokens_s = 20000;
    for (int round = 0; round < 4000; round++) {
        struct wf_below_ask ask = asking();
        struct wf_place places[2];
        struct wf_wear wears[2], *budgets[2] = {&wears[0], &wears[1]};
        double tokens_s = s->node.config.prefill_tokens_s, tokens = s->format.block_tokens;
        struct wf_prefill prefill = {1 / tokens_s, WF_PREFILL_ATTENDED / tokens_s};
        told.chance = some(&random, 0.01, 1);
        told.value = some(&random, 1e-6, 1);
        s->used_again[0] = (uint8_t)random_next(&random);
        ask.depth = (uint32_t)(random_next(&random) % 100);
        for (int i = 0; i < 2; i++) {
            struct wf_lower *lower = &s->below.tiers[i];
            lower->stats.read_latency_us = some(&random, 1, 1e5);
            lower->stats.read_mbps = some(&random, 10, 1e5);
            lower->stats.write_mbps = some(&random, 10, 1e5);
            lower->meter.busy_s = some(&random, 1e-3, 60);
            lower->meter.read_s = BLOCK_BYTES / (lower->stats.read_mbps * 1e6);
            double write_s = BLOCK_BYTES / (lower->stats.write_mbps * 1e6);
            wears[i] = lower->wear;
            places[i] = (struct wf_place){.latency_s = lower->stats.read_latency_us * 1e-6,
                                          .read_bytes_s = lower->stats.read_mbps * 1e6,
                                          .write_bytes_s = lower->stats.write_mbps * 1e6,
                                          .busy = wf_place_busy(lower->meter.busy_s / 60,
                                                                lower->meter.read_s, write_s),
                                          .stay_s = INFINITY,
                                          .open = true};
        }
        struct wf_candidate block = {.reuse = {told.chance, told.value},
                                     .uses = s->used_again[0] >> 3 & 1 ? 2 : 1,
                                     .bytes = BLOCK_BYTES,
                                     .recompute_s = wf_prefill_s(prefill, ask.depth * tokens,
                                                                 tokens),
                                     .run_blocks = ask.depth + 1};
        struct wf_admission want;
        struct wf_refusal refusal;
        wf_place_offer(&block, places, budgets, 2, 0, &want);
        int tier = chosen(s, &ask, &refusal);
        assert_int_equal(tier, want.place);
        rules[want.rule]++;
        if (tier >= 0) {
            taken[tier]++;
            continue;
        }
        assert_int_equal(refusal.said.rule, want.rule);
        assert_true(refusal.said.hits == want.hits && refusal.said.saved_s == want.saved_s &&
                    refusal.said.write_s == want.write_s && refusal.said.net_s == want.net_s);
    }
    assert_true(taken[0] > 100 && taken[1] > 100);
    assert_true(rules[WF_REFUSED_SLOWER] > 10 && rules[WF_REFUSED_WRITE] > 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(with_room_all_is_taken),
        TEST(a_one_hit_wonder_is_refused_where_room_is_short),
        TEST(priorities_count_below),
        TEST(what_lies_below_counts_by_its_weight),
        TEST(what_was_used_twice_is_weighed),
        TEST(a_budget_that_is_used_up_refuses),
        TEST(a_budget_pays_for_whole_chains),
        TEST(a_budget_outlives_its_node),
        TEST(a_look_ahead_is_no_offer),
        TEST(it_goes_where_most_is_left),
        TEST(tiers_that_take_all_have_their_place),
        TEST(without_an_estimate_it_is_by_use),
        TEST(what_is_let_go_is_weighed_too),
        TEST(what_is_unlikely_does_not_wait),
        TEST(it_is_what_the_simulator_decides),
    };
    return cmocka_run_group_tests_name("admit", tests, NULL, NULL);
}
