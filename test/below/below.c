/* SPDX-License-Identifier: Apache-2.0
 *
 * A node with an NVMe tier, as an engine sees it: chains that do not fit DRAM go below and come
 * back, whole and in layer order, also after a restart; sessions that wait are brought back by
 * their hint.  Every byte is checked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define CHAINS 30u
#define BLOCKS 4u
#define BLOCK_TOKENS 16u
#define LAYERS 8u
#define TOKENS (BLOCKS * BLOCK_TOKENS + 1) /* the last token is always computed */

struct stage {
    struct weftd node;
    bool two; /* tiers */
    char path[160], near_path[160];
    const char *settings[16];
    struct weft *w;
    struct weft_format *f;
    struct weft_session *s;
};

static void attach(struct stage *s)
{
    const struct weft_format_spec spec = {.model = "below",
                                          .layers = LAYERS,
                                          .kv_heads = 4,
                                          .head_dim = 64,
                                          .dtype = WEFT_F32,
                                          .block_tokens = BLOCK_TOKENS};
    s->w = weftd_connect(&s->node, "default");
    assert_non_null(s->w);
    assert_int_equal(weft_format_open(s->w, &spec, &s->f), WEFT_OK);
    assert_int_equal(weft_session_open(s->f, NULL, &s->s), WEFT_OK);
}

static void detach(struct stage *s)
{
    weft_session_close(s->s);
    weft_format_close(s->f);
    weft_close(s->w);
}

/* `near`: between DRAM and the NVMe tier there is another, which holds a part of what is put. */
static int start(void **state, bool near)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    weftd_prepare(&s.node);
    s.two = near;
    snprintf(s.path, sizeof s.path, "tier.nvme0.path=%s/nvme0", s.node.directory);
    snprintf(s.near_path, sizeof s.near_path, "tier.cxl0.path=file-emulation:%s/cxl0",
             s.node.directory);
    const char *settings[] = {"pool.size=8MB",
                              "pool.size_max=8MB",
                              "pool.policy=lru",
                              near ? "tiers=cxl0,nvme0" : "tiers=nvme0",
                              s.path,
                              "tier.nvme0.size=256MB",
                              "tier.nvme0.admit=always",
                              near ? s.near_path : NULL,
                              "tier.cxl0.kind=cxl",
                              "tier.cxl0.size=16MB",
                              "tier.cxl0.admit=always",
                              NULL};
    memcpy(s.settings, settings, sizeof settings);
    if (!weftd_start(&s.node, s.settings, NULL)) {
        weftd_show_log(&s.node);
        fail_msg("the node did not start");
    }
    attach(&s);
    *state = &s;
    return 0;
}

static int before(void **state)
{
    return start(state, false);
}

static int before_two(void **state)
{
    return start(state, true);
}

static int after(void **state)
{
    struct stage *s = *state;
    assert_int_equal(weftd_number(s->w, "default", "blocks_reserved"), 0);
    detach(s);
    assert_true(weftd_stop(&s->node));
    weftd_clean(&s->node);
    return 0;
}

static void tokens_of(uint32_t chain, uint32_t tokens[TOKENS])
{
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = chain * 1000 + i;
}

/* What layer `layer` of a block holds: a key of its own for each half. */
static void part_key(uint32_t chain, uint32_t block, uint32_t layer, uint32_t half, uint8_t key[32])
{
    random_key(((uint64_t)chain << 32 | block << 16 | layer << 1 | half) + 1, key);
}

static void put(struct stage *s, uint32_t chain)
{
    uint32_t tokens[TOKENS];
    uint8_t key[32];
    struct weft_fill fill;
    tokens_of(chain, tokens);
    assert_int_equal(weft_reserve(s->s, tokens, 0, TOKENS, &fill), WEFT_OK);
    assert_int_equal(fill.reserved + fill.existing, BLOCKS);
    for (uint32_t b = 0; b < BLOCKS; b++)
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            part_key(chain, b, layer, 0, key);
            if (weft_fill_k(&fill, b, layer))
                payload_fill(weft_fill_k(&fill, b, layer), fill.layer_bytes, key);
            part_key(chain, b, layer, 1, key);
            if (weft_fill_v(&fill, b, layer))
                payload_fill(weft_fill_v(&fill, b, layer), fill.layer_bytes, key);
        }
    assert_int_equal(weft_commit(&fill), WEFT_OK);
}

static void match(struct stage *s, uint32_t chain, struct weft_match *m)
{
    uint32_t tokens[TOKENS];
    tokens_of(chain, tokens);
    assert_int_equal(weft_match(s->s, tokens, TOKENS, m), WEFT_OK);
}

/* Get a chain and check it layer by layer as it arrives. */
static void get(struct stage *s, uint32_t chain, enum weft_order order)
{
    struct weft_match m;
    struct weft_pins pins;
    uint8_t key[32];
    match(s, chain, &m);
    assert_int_equal(m.blocks, BLOCKS);
    assert_int_equal(weft_get(s->s, &m, order, &pins), WEFT_OK);
    if (pins.blocks != BLOCKS)
        print_message("# chain %u: %u blocks; %s\n", chain, pins.blocks, weft_last_error());
    assert_int_equal(pins.blocks, BLOCKS);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        assert_int_equal(weft_wait_layer(&pins, layer), WEFT_OK);
        for (uint32_t b = 0; b < BLOCKS; b++) {
            part_key(chain, b, layer, 0, key);
            assert_true(payload_right(weft_k(&pins, b, layer), pins.layer_bytes, key));
            part_key(chain, b, layer, 1, key);
            assert_true(payload_right(weft_v(&pins, b, layer), pins.layer_bytes, key));
        }
    }
    weft_pins_release(&pins);
}

static uint32_t in_dram(struct stage *s, uint32_t chain)
{
    struct weft_match m;
    uint32_t count = 0;
    match(s, chain, &m);
    assert_int_equal(m.blocks, BLOCKS);
    for (uint32_t b = 0; b < m.blocks; b++)
        count += m.tier[b] == WEFT_TIER_DRAM;
    assert_int_equal(m.load_us == 0, count == BLOCKS);
    return count;
}

/* What has arrived is readable a moment before it is found in DRAM. */
static bool comes_to_dram(struct stage *s, uint32_t chain)
{
    for (int wait = 0; wait < 1000 && in_dram(s, chain) < BLOCKS; wait++)
        weftd_sleep_ms(5);
    return in_dram(s, chain) == BLOCKS;
}

static void test_what_does_not_fit_goes_below_and_comes_back(void **state)
{
    struct stage *s = *state;
    uint32_t near = 0;
    for (uint32_t chain = 0; chain < CHAINS; chain++)
        put(s, chain);
    for (uint32_t chain = 0; chain < CHAINS; chain++)
        near += in_dram(s, chain);
    assert_in_range(near, 1, 32); /* of 120 blocks of 256 KiB, 8 MiB have room for 32 */
    for (uint32_t chain = 0; chain < CHAINS; chain++)
        get(s, chain, chain % 2 ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER);
    for (uint32_t chain = CHAINS; chain-- > 0;)
        get(s, chain, chain % 2 ? WEFT_BLOCK_ORDER : WEFT_LAYER_ORDER);
}

static void test_a_restart_finds_all(void **state)
{
    struct stage *s = *state;
    for (int way = 0; way < 2; way++) {
        detach(s);
        /* What was only in DRAM is written below; after that nothing is lost to a kill, unless a
         * full tier had let go of what was in DRAM as well. */
        if (way == 0 || s->two)
            assert_true(weftd_stop(&s->node));
        else
            weftd_kill(&s->node);
        assert_true(weftd_start(&s->node, s->settings, NULL));
        attach(s);
        for (uint32_t chain = 0; chain < CHAINS; chain++) {
            struct weft_match m = {.blocks = 0};
            for (int wait = 0; wait < 1000 && m.blocks < BLOCKS; wait++) {
                match(s, chain, &m);
                if (m.blocks < BLOCKS) /* tiers open after the socket */
                    weftd_sleep_ms(5);
            }
            get(s, chain, WEFT_LAYER_ORDER);
        }
    }
}

static void test_a_session_that_waits_is_brought_back(void **state)
{
    struct stage *s = *state;
    struct weft_hint hint = {.returns_in_ms = 600};
    get(s, 3, WEFT_LAYER_ORDER);
    assert_true(comes_to_dram(s, 3));
    assert_int_equal(weft_demote(s->s), WEFT_OK);
    assert_int_equal(in_dram(s, 3), 0);
    assert_int_equal(weft_session_hint(s->s, WEFT_WAITING, &hint), WEFT_OK);
    assert_int_equal(in_dram(s, 3), 0);
    assert_true(comes_to_dram(s, 3)); /* asked for by nobody but the hint */
    get(s, 3, WEFT_LAYER_ORDER);
}

/* What the node says of the stage's session. */
static int64_t session_number(struct stage *s, const char *name)
{
    char *text;
    int64_t value = INT64_MIN;
    size_t i;
    json_t *row;
    assert_int_equal(weft_query(s->w, "sessions", 0, &text), WEFT_OK);
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(all, "sessions"), i, row)
        if (json_integer_value(json_object_get(row, "session")) ==
            (json_int_t)weft_session_id(s->s))
            value = json_integer_value(json_object_get(row, name));
    json_decref(all);
    return value;
}

static void test_a_session_has_its_blocks_below_too(void **state)
{
    struct stage *s = *state;
    put(s, 99);
    assert_int_equal(session_number(s, "blocks"), BLOCKS);
    assert_int_equal(session_number(s, "in_dram"), BLOCKS);
    assert_int_equal(weft_demote(s->s), WEFT_OK);
    assert_int_equal(session_number(s, "blocks"), BLOCKS);
    assert_int_equal(session_number(s, "in_dram"), 0);
}

/* Its blocks are written one by one, and the last of them may be done first. */
static void test_what_is_demoted_is_below_whole(void **state)
{
    struct stage *s = *state;
    for (uint32_t chain = 100; chain < 110; chain++) {
        put(s, chain);
        assert_int_equal(weft_demote(s->s), WEFT_OK);
        assert_int_equal(in_dram(s, chain), 0);
        get(s, chain, WEFT_LAYER_ORDER);
    }
}

static void test_what_cannot_go_down_is_said(void **state)
{
    struct stage *s = *state;
    put(s, 110);
    assert_int_equal(weft_session_hint(s->s, WEFT_DECODING, NULL), WEFT_OK);
    assert_int_equal(weft_demote(s->s), WEFT_PENDING);
    assert_non_null(strstr(weft_last_error(), "4 blocks of the chain are still in DRAM"));
    assert_int_equal(in_dram(s, 110), BLOCKS);
    assert_int_equal(weft_session_hint(s->s, WEFT_IDLE, NULL), WEFT_OK);
    assert_int_equal(weft_demote(s->s), WEFT_OK);
    get(s, 110, WEFT_LAYER_ORDER);
}

static void test_a_prefetch_brings_it_up(void **state)
{
    struct stage *s = *state;
    uint32_t tokens[TOKENS], blocks = 0;
    get(s, 5, WEFT_BLOCK_ORDER);
    assert_int_equal(weft_demote(s->s), WEFT_OK);
    assert_int_equal(in_dram(s, 5), 0);
    tokens_of(5, tokens);
    assert_int_equal(weft_prefetch(s->s, tokens, TOKENS, 0, &blocks), WEFT_OK);
    assert_int_equal(blocks, BLOCKS);
    assert_true(comes_to_dram(s, 5));
}

static void test_what_is_removed_is_gone_from_everywhere(void **state)
{
    struct stage *s = *state;
    uint32_t tokens[TOKENS];
    struct weft_key keys[BLOCKS];
    struct weft_match m;
    size_t removed = 0;
    get(s, 7, WEFT_BLOCK_ORDER);
    assert_int_equal(weft_demote(s->s), WEFT_OK);
    tokens_of(7, tokens);
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, tokens, TOKENS, NULL, keys), WEFT_OK);
    assert_int_equal(weft_remove(s->f, &keys[1], &removed), WEFT_OK);
    assert_int_equal(removed, BLOCKS - 1);
    match(s, 7, &m);
    assert_int_equal(m.blocks, 1);
    put(s, 7);
    get(s, 7, WEFT_LAYER_ORDER);
}

/* A chain larger than the pool is a shorter hit, and nothing is stuck. */
static void test_more_than_the_pool_holds(void **state)
{
    struct stage *s = *state;
    struct weft_pins held[16];
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < 10; i++) { /* 40 blocks, where 32 have room */
        struct weft_match m;
        match(s, 10 + i, &m);
        assert_int_equal(m.blocks, BLOCKS);
        assert_int_equal(weft_get(s->s, &m, WEFT_LAYER_ORDER, &held[i]), WEFT_OK);
        blocks += held[i].blocks;
        for (uint32_t b = 0; b < held[i].blocks; b++)
            assert_int_equal(weft_wait_block(&held[i], b), WEFT_OK);
    }
    assert_in_range(blocks, 24, 32);
    for (uint32_t i = 0; i < 10; i++)
        weft_pins_release(&held[i]);
    get(s, 19, WEFT_LAYER_ORDER);
}

/* Memory for something else than blocks: what is to make room for it is written below first. */
static void test_a_region_makes_room(void **state)
{
    struct stage *s = *state;
    struct weft_region *region;
    void *memory;
    for (uint32_t chain = 200; chain < 208; chain++) /* as much as the pool holds */
        put(s, chain);
    assert_int_equal(weft_allocate(s->w, "6MB", WEFT_LATENCY_LOW, WEFT_SHARE_PRIVATE, NULL, &region,
                                   &memory),
                     WEFT_OK);
    memset(memory, 1, 6 << 20);
    weft_release(region);
    for (uint32_t chain = 200; chain < 208; chain++)
        get(s, chain, WEFT_LAYER_ORDER);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_does_not_fit_goes_below_and_comes_back),
        cmocka_unit_test(test_a_restart_finds_all),
        cmocka_unit_test(test_a_session_that_waits_is_brought_back),
        cmocka_unit_test(test_a_session_has_its_blocks_below_too),
        cmocka_unit_test(test_what_is_demoted_is_below_whole),
        cmocka_unit_test(test_what_cannot_go_down_is_said),
        cmocka_unit_test(test_a_prefetch_brings_it_up),
        cmocka_unit_test(test_what_is_removed_is_gone_from_everywhere),
        cmocka_unit_test(test_more_than_the_pool_holds),
        cmocka_unit_test(test_a_region_makes_room),
    };
    if (argc > 1 && strcmp(argv[1], "two") == 0)
        return cmocka_run_group_tests_name("below, two tiers", tests, before_two, after);
    return cmocka_run_group_tests_name("below", tests, before, after);
}
