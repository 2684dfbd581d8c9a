/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes on one CXL device that they share, each as a host of its own: what one has written
 * below is matched and read by the other where it lies, byte for byte, also when the one that wrote
 * it was killed; and nothing that one does takes anything from the other.
 *
 * The device is a mapped file, which is an emulation: the two are processes of one machine, whose
 * caches are coherent.  What that cannot show is test/model/cxl_model.c's and test/cxl's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCKS 4u
#define BLOCK_TOKENS 16u
#define LAYERS 4u
#define TOKENS (BLOCKS * BLOCK_TOKENS + 1) /* the last token is always computed */
#define CHAINS 5u
#define PATIENCE_MS 10000

struct host {
    struct weftd node;
    char number[32];
    const char *settings[16];
    struct weft *w;
    struct weft_format *f;
    struct weft_session *s;
};

struct stage {
    struct host one, two;
    char path[160];
};

static void attach(struct host *h)
{
    const struct weft_format_spec spec = {.model = "shared",
                                          .layers = LAYERS,
                                          .kv_heads = 4,
                                          .head_dim = 64,
                                          .dtype = WEFT_F32,
                                          .block_tokens = BLOCK_TOKENS};
    h->w = weftd_connect(&h->node, "default");
    assert_non_null(h->w);
    assert_int_equal(weft_format_open(h->w, &spec, &h->f), WEFT_OK);
    assert_int_equal(weft_session_open(h->f, NULL, &h->s), WEFT_OK);
}

static void detach(struct host *h)
{
    weft_session_close(h->s);
    weft_format_close(h->f);
    weft_close(h->w);
}

/* A field of the tier's row, as the node tells it; the caller's until json_decref(*out_root). */
static json_t *tier_field(struct host *h, const char *tier, const char *field, json_t **out_root)
{
    char *text = NULL;
    size_t i;
    json_t *row, *found = NULL;
    assert_int_equal(weft_query(h->w, "tiers", 0, &text), WEFT_OK);
    *out_root = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(*out_root, "tiers"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), tier) == 0)
            found = json_object_get(row, field);
    assert_non_null(found);
    return found;
}

static bool is_open(struct host *h, const char *tier)
{
    json_t *root;
    bool open = strcmp(json_string_value(tier_field(h, tier, "state", &root)), "ok") == 0;
    json_decref(root);
    return open;
}

static int64_t tier_number(struct host *h, const char *tier, const char *field)
{
    json_t *root;
    int64_t value = json_integer_value(tier_field(h, tier, field, &root));
    json_decref(root);
    return value;
}

static void up(struct host *h)
{
    if (!weftd_start(&h->node, h->settings, NULL)) {
        weftd_show_log(&h->node);
        fail_msg("the node did not start");
    }
    attach(h);
    for (int ms = 0; !is_open(h, "cxl0") || !is_open(h, "cxl0-hosts"); ms += 5) {
        assert_in_range(ms, 0, PATIENCE_MS);
        weftd_sleep_ms(5);
    }
}

static void host_prepare(struct stage *s, struct host *h, int number)
{
    weftd_prepare(&h->node);
    snprintf(h->number, sizeof h->number, "tier.cxl0.host=%d", number);
    const char *settings[] = {"pool.size=4MB",
                              "pool.size_max=4MB",
                              "pool.policy=lru",
                              "tiers=cxl0",
                              "tier.cxl0.kind=cxl",
                              "tier.cxl0.size=64MB",
                              "tier.cxl0.shared=true",
                              "tier.cxl0.admit=always",
                              h->number,
                              s->path,
                              NULL};
    memcpy(h->settings, settings, sizeof settings);
}

static void copy_file(const char *from, const char *to)
{
    char bytes[4096];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    assert_true(in && out);
    size_t count = fread(bytes, 1, sizeof bytes, in);
    assert_true(count > 0 && fwrite(bytes, 1, count, out) == count);
    assert_int_equal(fclose(in) | fclose(out), 0);
}

static int before(void **state)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    host_prepare(&s, &s.one, 1);
    host_prepare(&s, &s.two, 2);
    snprintf(s.path, sizeof s.path, "tier.cxl0.path=file-emulation:%s/device",
             s.one.node.directory);
    copy_file(s.one.node.secret, s.two.node.secret); /* one domain: one secret */
    up(&s.one);
    up(&s.two);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    detach(&s->two);
    detach(&s->one);
    assert_true(weftd_stop(&s->two.node));
    assert_true(weftd_stop(&s->one.node));
    weftd_clean(&s->two.node);
    weftd_clean(&s->one.node);
    return 0;
}

static void tokens_of(uint32_t chain, uint32_t tokens[TOKENS])
{
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = chain * 1000 + i;
}

static void part_key(uint32_t chain, uint32_t block, uint32_t layer, uint8_t key[32])
{
    random_key(((uint64_t)chain << 32 | block << 16 | layer) + 1, key);
}

static void put(struct host *h, uint32_t chain)
{
    uint32_t tokens[TOKENS];
    uint8_t key[32];
    struct weft_fill fill;
    tokens_of(chain, tokens);
    assert_int_equal(weft_reserve(h->s, tokens, 0, TOKENS, &fill), WEFT_OK);
    for (uint32_t b = 0; b < BLOCKS; b++)
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            part_key(chain, b, layer, key);
            if (!weft_fill_k(&fill, b, layer))
                continue;
            payload_fill(weft_fill_k(&fill, b, layer), fill.layer_bytes, key);
            payload_fill(weft_fill_v(&fill, b, layer), fill.layer_bytes, key);
        }
    assert_int_equal(weft_commit(&fill), WEFT_OK);
}

/* How many blocks match; *out_far: of those, on CXL memory. */
static uint32_t matches(struct host *h, uint32_t chain, uint32_t *out_far)
{
    uint32_t tokens[TOKENS], far = 0;
    struct weft_match m;
    tokens_of(chain, tokens);
    assert_int_equal(weft_match(h->s, tokens, TOKENS, &m), WEFT_OK);
    for (uint32_t b = 0; b < m.blocks; b++)
        far += m.tier[b] == WEFT_TIER_CXL;
    if (out_far)
        *out_far = far;
    return m.blocks;
}

/* Another host's blocks are found by looking: a moment later. */
static bool comes_to(struct host *h, uint32_t chain, uint32_t blocks)
{
    for (int ms = 0; ms < PATIENCE_MS && matches(h, chain, NULL) != blocks; ms += 5)
        weftd_sleep_ms(5);
    return matches(h, chain, NULL) == blocks;
}

static void get(struct host *h, uint32_t chain)
{
    uint32_t tokens[TOKENS];
    uint8_t key[32];
    struct weft_match m;
    struct weft_pins pins;
    tokens_of(chain, tokens);
    assert_int_equal(weft_match(h->s, tokens, TOKENS, &m), WEFT_OK);
    assert_int_equal(m.blocks, BLOCKS);
    assert_int_equal(weft_get(h->s, &m, WEFT_LAYER_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, BLOCKS);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        assert_int_equal(weft_wait_layer(&pins, layer), WEFT_OK);
        for (uint32_t b = 0; b < BLOCKS; b++) {
            part_key(chain, b, layer, key);
            assert_true(payload_right(weft_k(&pins, b, layer), pins.layer_bytes, key));
            assert_true(payload_right(weft_v(&pins, b, layer), pins.layer_bytes, key));
        }
    }
    weft_pins_release(&pins);
}

static void put_below(struct host *h, uint32_t chain)
{
    put(h, chain);
    assert_int_equal(weft_demote(h->s), WEFT_OK);
}

static void test_what_one_writes_the_other_reads(void **state)
{
    struct stage *s = *state;
    uint32_t far;
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        assert_int_equal(matches(&s->two, chain, NULL), 0);
        put_below(&s->one, chain);
    }
    for (uint32_t chain = 0; chain < CHAINS; chain++) {
        assert_true(comes_to(&s->two, chain, BLOCKS));
        assert_int_equal(matches(&s->two, chain, &far), BLOCKS);
        assert_int_equal(far, BLOCKS);
        get(&s->two, chain);
    }
    assert_int_equal(tier_number(&s->two, "cxl0-hosts", "blocks"), CHAINS * BLOCKS);
    assert_in_range(tier_number(&s->two, "cxl0-hosts", "read_bytes"), 1, INT64_MAX);
    assert_int_equal(tier_number(&s->two, "cxl0", "blocks"), 0);
    put_below(&s->two, 50); /* and the other way */
    assert_true(comes_to(&s->one, 50, BLOCKS));
    get(&s->one, 50);
    /* What the other has is not written a second time when it leaves DRAM. */
    get(&s->two, 0);
    assert_int_equal(weft_demote(s->two.s), WEFT_OK);
    assert_int_equal(tier_number(&s->two, "cxl0", "blocks"), BLOCKS);
}

/* A chain whose beginning only the one's DRAM has: it waits for that to come. */
static void test_a_chain_that_the_two_have_in_halves(void **state)
{
    struct stage *s = *state;
    uint32_t tokens[TOKENS];
    struct weft_key keys[BLOCKS];
    put(&s->one, 60);
    put_below(&s->one, 61);
    assert_true(comes_to(&s->two, 61, BLOCKS)); /* so all before was looked at */
    assert_int_equal(matches(&s->two, 60, NULL), 0);
    tokens_of(60, tokens);
    assert_int_equal(weft_keys_from_tokens(s->two.f, NULL, tokens, TOKENS, NULL, keys), WEFT_OK);
    put(&s->two, 60);
    get(&s->two, 60);
    put_below(&s->one, 60);
    get(&s->two, 60);
}

static void test_neither_takes_from_the_other(void **state)
{
    struct stage *s = *state;
    uint32_t tokens[TOKENS];
    struct weft_key keys[BLOCKS];
    size_t removed = 0;
    tokens_of(1, tokens);
    assert_int_equal(weft_keys_from_tokens(s->two.f, NULL, tokens, TOKENS, NULL, keys), WEFT_OK);
    assert_int_equal(weft_remove(s->two.f, &keys[0], &removed), WEFT_OK);
    assert_int_equal(removed, BLOCKS); /* of its own: from its DRAM */
    assert_int_equal(matches(&s->one, 1, NULL), BLOCKS);
    get(&s->one, 1);
    assert_true(comes_to(&s->two, 1, BLOCKS)); /* the other's are there as before */
    get(&s->two, 1);
    /* Its owner takes it back: what the other has of it in DRAM stays, and its copy below is not
     * found any more. */
    assert_int_equal(weft_remove(s->one.f, &keys[2], &removed), WEFT_OK);
    assert_int_equal(removed, 2);
    assert_int_equal(matches(&s->one, 1, NULL), 2);
    assert_int_equal(weft_remove(s->two.f, &keys[0], &removed), WEFT_OK);
    assert_true(comes_to(&s->two, 1, 2));
}

static void test_a_dead_host_is_read_still(void **state)
{
    struct stage *s = *state;
    uint32_t far;
    detach(&s->one);
    weftd_kill(&s->one.node);
    for (uint32_t chain = 2; chain < CHAINS; chain++) {
        for (uint32_t fill = 70; fill < 90; fill++) /* out of DRAM with it */
            put(&s->two, 100 * chain + fill);
        assert_int_equal(matches(&s->two, chain, &far), BLOCKS);
        assert_int_equal(far, BLOCKS);
        get(&s->two, chain);
    }
    /* It comes back as who it was, with all that it had. */
    up(&s->one);
    for (uint32_t chain = 2; chain < CHAINS; chain++)
        get(&s->one, chain);
}

/* The other node starts when all is there, and finds it. */
static void test_a_start_finds_what_others_have(void **state)
{
    struct stage *s = *state;
    detach(&s->two);
    assert_true(weftd_stop(&s->two.node));
    up(&s->two);
    for (uint32_t chain = 2; chain < CHAINS; chain++) {
        assert_true(comes_to(&s->two, chain, BLOCKS));
        get(&s->two, chain);
    }
}

/* Blocks of it that came; all that came is right. */
static uint32_t get_what_comes(struct host *h, struct stage *s, uint32_t chain, uint32_t next)
{
    uint32_t tokens[TOKENS], came = 0;
    uint8_t key[32];
    struct weft_match m;
    struct weft_pins pins;
    tokens_of(chain, tokens);
    assert_int_equal(weft_match(h->s, tokens, TOKENS, &m), WEFT_OK);
    enum weft_status status = weft_get(h->s, &m, WEFT_BLOCK_ORDER, &pins);
    put_below(&s->one, next); /* while it is on its way */
    if (status != WEFT_OK)
        return 0;
    for (uint32_t b = 0; b < pins.blocks && weft_wait_block(&pins, b) == WEFT_OK; b++, came++)
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            part_key(chain, b, layer, key);
            assert_true(payload_right(weft_k(&pins, b, layer), pins.layer_bytes, key));
            assert_true(payload_right(weft_v(&pins, b, layer), pins.layer_bytes, key));
        }
    weft_pins_release(&pins);
    return came;
}

/* The one writes more than the device holds, so that what the other reads is taken back and written
 * over all the time. */
static void test_what_is_taken_back_is_never_read(void **state)
{
    struct stage *s = *state;
    struct random_source r = {7};
    uint64_t came = 0;
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t back = (uint32_t)(random_next(&r) % 40);
        weftd_sleep_ms(5); /* others are looked at ten times a second */
        came += get_what_comes(&s->two, s, 1000 + (i > back ? i - back : 0), 1000 + i);
    }
    print_message("# %llu blocks of %u came\n", (unsigned long long)came, 300 * BLOCKS);
    assert_in_range(came, 100, 300 * BLOCKS);
    assert_in_range(tier_number(&s->two, "cxl0-hosts", "reads"), 100, INT64_MAX);
    assert_int_equal(tier_number(&s->two, "cxl0-hosts", "corrupt"), 0);
}

/* Its number's row as the other tells it. */
static int64_t host_extents(struct host *h, int64_t number, const char *state)
{
    json_t *root, *row, *rows = tier_field(h, "cxl0-hosts", "hosts", &root);
    size_t i;
    int64_t extents = -1;
    json_array_foreach (rows, i, row)
        if (json_integer_value(json_object_get(row, "host")) == number &&
            strcmp(json_string_value(json_object_get(row, "state")), state) == 0)
            extents = json_integer_value(json_object_get(row, "extents"));
    json_decref(root);
    return extents;
}

static bool has_archive(struct host *h, const char *name)
{
    char *text = NULL;
    assert_int_equal(weft_query(h->w, "archives", 0, &text), WEFT_OK);
    bool has = strstr(text, name) != NULL;
    weft_text_free(text);
    return has;
}

static void test_a_dead_host_is_fenced(void **state)
{
    struct stage *s = *state;
    struct weft_archived archived;
    put(&s->one, 300);
    assert_int_equal(weft_archive(s->one.s, PATIENCE_MS, &archived), WEFT_OK);
    assert_true(has_archive(&s->one, archived.name));
    assert_false(has_archive(&s->two, archived.name));
    assert_int_equal(weft_fence(s->two.w, "cxl0", 2, 0), WEFT_E_INVALID);
    assert_int_equal(weft_fence(s->two.w, "cxl0", 3, 0), WEFT_E_NOT_FOUND);
    assert_int_equal(weft_fence(s->two.w, "cxl1", 1, 0), WEFT_E_NOT_FOUND);
    assert_in_range(host_extents(&s->two, 1, "here"), 1, INT64_MAX);
    detach(&s->one);
    weftd_kill(&s->one.node);
    assert_int_equal(weft_fence(s->two.w, "cxl0", 1, 0), WEFT_E_BUSY); /* it lived a moment ago */
    assert_int_equal(weft_fence(s->two.w, "cxl0", 1, 1), WEFT_OK);
    for (uint32_t chain = 2; chain < CHAINS; chain++) {
        assert_int_equal(matches(&s->two, chain, NULL), BLOCKS); /* at every moment */
        get(&s->two, chain);
    }
    for (int ms = 0; host_extents(&s->two, 1, "fenced") != 0; ms += 20) {
        assert_in_range(ms, 0, PATIENCE_MS);
        weftd_sleep_ms(20);
    }
    for (int ms = 0; tier_number(&s->two, "cxl0-hosts", "blocks") != 0; ms += 20) {
        assert_in_range(ms, 0, PATIENCE_MS);
        weftd_sleep_ms(20);
    }
    for (int ms = 0; !has_archive(&s->two, archived.name); ms += 20) { /* that, too */
        assert_in_range(ms, 0, PATIENCE_MS);
        weftd_sleep_ms(20);
    }
    get(&s->two, 300);
    /* Its own now: they are found after a restart, and by the dead one when it is back. */
    detach(&s->two);
    weftd_kill(&s->two.node);
    up(&s->two);
    for (uint32_t chain = 2; chain < CHAINS; chain++) {
        assert_true(comes_to(&s->two, chain, BLOCKS));
        get(&s->two, chain);
    }
    up(&s->one);
    assert_int_equal(tier_number(&s->one, "cxl0", "blocks"), 0);
    for (uint32_t chain = 2; chain < CHAINS; chain++) {
        assert_true(comes_to(&s->one, chain, BLOCKS));
        get(&s->one, chain);
    }
    put_below(&s->one, 200); /* and goes on */
    assert_true(comes_to(&s->two, 200, BLOCKS));
    get(&s->two, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_one_writes_the_other_reads),
        cmocka_unit_test(test_a_chain_that_the_two_have_in_halves),
        cmocka_unit_test(test_neither_takes_from_the_other),
        cmocka_unit_test(test_a_dead_host_is_read_still),
        cmocka_unit_test(test_a_start_finds_what_others_have),
        cmocka_unit_test(test_a_dead_host_is_fenced),
        cmocka_unit_test(test_what_is_taken_back_is_never_read),
    };
    return cmocka_run_group_tests_name("shared", tests, before, after);
}
