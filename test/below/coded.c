/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that lie encoded below: they come back as they were put, layer by layer, from another
 * process and from another node than the one that wrote them, whatever that one is told of codecs;
 * the room that they take is what they are there; and what does not become smaller lies as it is.
 */
#include <jansson.h>

#include "corners_world.h"

#define LAYERS 4u
#define CHAINS 24u

static const char *const settings[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "pool.policy=lru",
                                       "drain=30s",
                                       "workers=2",
                                       "tiers=nvme0,nvme1",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=64MB",
                                       "tier.nvme0.admit=always",
                                       "tier.nvme0.codec=lossless",
                                       "tier.nvme1.path=%d/nvme1",
                                       "tier.nvme1.size=64MB",
                                       "tier.nvme1.admit=never",
                                       NULL};

/* Of blocks that are laid out as a model's: 2 × 4 × 64 × 16 × 8 × 2 bytes are BLOCK_BYTES. */
static struct weft_format *kv_format(const struct world *w)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = "coded",
                                    .layers = LAYERS,
                                    .kv_heads = 8,
                                    .head_dim = 16,
                                    .dtype = WEFT_F16,
                                    .block_tokens = 64};
    assert_int_equal(weft_format_open(w->w, &spec, &f), WEFT_OK);
    assert_int_equal(weft_format_block_bytes(f), BLOCK_BYTES);
    return f;
}

static double codec_of(const struct world *w, const char *tier, const char *name)
{
    char *text;
    size_t i;
    double number = -1;
    const json_t *row;
    assert_int_equal(weft_query(w->w, "tiers", 0, &text), WEFT_OK);
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(all, "tiers"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), tier) == 0)
            number = json_number_value(json_object_get(json_object_get(row, "codec"), name));
    json_decref(all);
    assert_true(number >= 0);
    return number;
}

static void put_chains(struct weft_format *f)
{
    for (uint64_t chain = 1; chain <= CHAINS; chain++)
        assert_int_equal(chain_put(f, chain, DEPTH), DEPTH);
}

/* Every chain is had from below, by blocks and by layers. */
static void get_chains(struct weft_format *f)
{
    for (uint64_t chain = 1; chain <= CHAINS; chain++) {
        struct weft_key keys[DEPTH];
        struct weft_pins pins;
        keys_of(f, chain, DEPTH, keys);
        if (chain % 2) {
            assert_int_equal(chain_get(f, chain, DEPTH), DEPTH);
            continue;
        }
        assert_int_equal(weft_get_keys(f, keys, DEPTH, WEFT_LAYER_ORDER, &pins), WEFT_OK);
        assert_int_equal(pins.blocks, DEPTH);
        size_t plane = weft_format_layer_bytes(f);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            assert_int_equal(weft_wait_layer(&pins, layer), WEFT_OK);
            for (uint32_t b = 0; b < DEPTH; b++)
                assert_true(payload_right_from((const uint8_t *)pins.data[b] + 2 * layer * plane,
                                               2 * layer * plane, 2 * plane, keys[b].bytes));
        }
        weft_pins_release(&pins);
    }
}

static void test_what_lies_encoded_comes_back(void **state)
{
    (void)state;
    struct world w;
    begin(&w, settings);
    start(&w, NULL);
    struct weft_format *f = kv_format(&w);
    put_chains(f);
    get_chains(f);
    weft_format_close(f);
    stop(&w); /* all of it goes below */

    start(&w, NULL);
    f = kv_format(&w);
    double blocks = codec_of(&w, "nvme0", "blocks");
    assert_true(blocks >= CHAINS * DEPTH - 64 && blocks <= CHAINS * DEPTH);
    assert_true(codec_of(&w, "nvme0", "ratio") > 1.2);
    assert_true(codec_of(&w, "nvme0", "plain_bytes") == blocks * BLOCK_BYTES);
    assert_true((double)tier_number_of(w.w, "nvme0", "used_bytes") < blocks * BLOCK_BYTES);
    get_chains(f);
    weft_format_close(f);
    stop(&w);

    /* Nothing is encoded any more: what is there still is. */
    set(&w, "tier.nvme0.codec=none");
    start(&w, NULL);
    f = kv_format(&w);
    get_chains(f);
    assert_true(codec_of(&w, "nvme0", "written_encoded") == 0);
    weft_format_close(f);
    end(&w);
}

static void test_what_would_not_shrink_lies_as_it_is(void **state)
{
    (void)state;
    struct world w;
    begin(&w, settings);
    start(&w, NULL);
    struct weft_format *f = kv_format(&w);
    struct weft_key keys[DEPTH];
    struct weft_slot slots[DEPTH];
    struct random_source r = random_seeded("coded");
    uint64_t seed = r.state;
    keys_of(f, 1, DEPTH, keys);
    assert_int_equal(weft_reserve_keys(f, NULL, keys, DEPTH, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t b = 0; b < DEPTH; b++)
        for (size_t at = 0; at < BLOCK_BYTES; at += 8) {
            uint64_t word = random_next(&r);
            memcpy((uint8_t *)slots[b].data + at, &word, 8);
        }
    assert_int_equal(weft_commit_slots(f, slots, DEPTH), WEFT_OK);
    weft_format_close(f);
    stop(&w);
    start(&w, NULL);
    f = kv_format(&w);
    assert_true(codec_of(&w, "nvme0", "blocks") == 0);
    assert_true(tier_number_of(w.w, "nvme0", "blocks") == DEPTH);
    struct weft_pins pins;
    assert_int_equal(weft_get_keys(f, keys, DEPTH, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, DEPTH);
    r.state = seed;
    for (uint32_t b = 0; b < DEPTH; b++) {
        assert_int_equal(weft_wait_block(&pins, b), WEFT_OK);
        for (size_t at = 0; at < BLOCK_BYTES; at += 8) {
            uint64_t word = random_next(&r);
            assert_memory_equal((const uint8_t *)pins.data[b] + at, &word, 8);
        }
    }
    weft_pins_release(&pins);
    weft_format_close(f);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_lies_encoded_comes_back),
        cmocka_unit_test(test_what_would_not_shrink_lies_as_it_is),
    };
    return cmocka_run_group_tests_name("coded", tests, NULL, NULL);
}
