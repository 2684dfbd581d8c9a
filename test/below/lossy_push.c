/* SPDX-License-Identifier: Apache-2.0
 *
 * Three nodes of one cluster, whose domain allows a loss on two of them and none on the third.  A
 * chain that came back from a tier with loss is extended on the first, and pushed while it is
 * written, encoded on the way: who allows the loss has it as the codec gives it back, to the bit,
 * told as what it lost, and what was written since exactly; who allows none has nothing of it, nor
 * has a stricter reader on a node that does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "../support/profile.h"
#include "../support/weftd.h"

#define MODEL "small@1"
#define OLD 3u   /* blocks of a chain that lost something */
#define LINKS 6u /* with those that are pushed */
#define NODES 3u
#define PATIENCE_MS 20000
#define SETTINGS 16u

struct host {
    struct weftd node;
    char room[SETTINGS][256];
    const char *settings[SETTINGS + 1];
    uint32_t count;
    struct weft *w;
    struct weft_format *f;
};

struct stage {
    struct host hosts[NODES];
    struct wf_profile *profile;
};

static const char *const names[NODES] = {"left", "right", "strict"};
static const char *const qualities[NODES] = {"economy", "economy", "lossless"};

static void __attribute__((format(printf, 2, 3))) set(struct host *h, const char *format, ...)
{
    va_list args;
    assert_true(h->count < SETTINGS);
    va_start(args, format);
    vsnprintf(h->room[h->count], sizeof h->room[0], format, args);
    va_end(args);
    h->settings[h->count] = h->room[h->count];
    h->settings[++h->count] = NULL;
}

static void up(struct host *h)
{
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = PROFILE_LAYERS,
                                          .kv_heads = PROFILE_HEADS,
                                          .head_dim = PROFILE_DIM,
                                          .dtype = WEFT_BF16,
                                          .block_tokens = PROFILE_TOKENS};
    if (!weftd_start(&h->node, h->settings, NULL)) {
        weftd_show_log(&h->node);
        fail_msg("the node did not start");
    }
    h->w = weftd_connect(&h->node, "default");
    assert_non_null(h->w);
    assert_int_equal(weft_format_open(h->w, &spec, &h->f), WEFT_OK);
}

static void down(struct host *h)
{
    weft_format_close(h->f);
    weft_close(h->w);
    h->f = NULL;
    h->w = NULL;
    assert_true(weftd_stop(&h->node));
}

/* Nobody runs yet. */
static int before(void **state)
{
    static struct stage s;
    char file[128];
    memset(&s, 0, sizeof s);
    for (uint32_t i = 0; i < NODES; i++) {
        struct host *h = &s.hosts[i];
        weftd_prepare(&h->node); /* one domain: all have one secret */
        snprintf(file, sizeof file, "%s/profiles", h->node.directory);
        assert_int_equal(mkdir(file, 0700), 0);
        set(h, "profiles=%s", file);
        set(h, "log.level=info");
        set(h, "fabric.name=%s", names[i]);
        set(h, "fabric.codec=lossless");
        set(h, "fabric.secret_file=%s", h->node.secret);
        set(h, "fabric.listen=unix:%s/net", h->node.directory);
        set(h, "domain.default.quality=%s", qualities[i]);
    }
    /* Of two one joins the other: no link takes another's place, and sends what was on it anew. */
    set(&s.hosts[1], "fabric.join=unix:%s/net", s.hosts[0].node.directory);
    set(&s.hosts[2], "fabric.join=unix:%s/net,unix:%s/net", s.hosts[0].node.directory,
        s.hosts[1].node.directory);
    struct host *left = &s.hosts[0];
    set(left, "tiers=nvme0");
    set(left, "tier.nvme0.path=%s/nvme0", left->node.directory);
    set(left, "tier.nvme0.size=16MB");
    set(left, "tier.nvme0.admit=always");
    for (uint32_t i = 0; i < 2; i++) { /* the third takes nothing that it would want one for */
        snprintf(file, sizeof file, "%s/profiles/small.wfprofile", s.hosts[i].node.directory);
        profile_make(MODEL, 0, file);
    }
    s.profile = profile_read(file);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    for (uint32_t i = 0; i < NODES; i++) {
        if (s->hosts[i].w) {
            weft_format_close(s->hosts[i].f);
            weft_close(s->hosts[i].w);
        }
        weftd_clean(&s->hosts[i].node);
    }
    wf_profile_destroy(s->profile);
    return 0;
}

/* ------------------------------------------------------------------------------ what nodes say */

static int64_t figure(const struct host *h, const char *name)
{
    char *text;
    assert_int_equal(weft_query(h->w, "fabric", 0, &text), WEFT_OK);
    json_t *said = json_loads(text, 0, NULL);
    weft_text_free(text);
    int64_t value = json_integer_value(json_object_get(json_object_get(said, "self"), name));
    json_decref(said);
    return value;
}

static uint32_t linked(const struct host *h)
{
    char *text;
    size_t i;
    const json_t *node;
    uint32_t count = 0;
    assert_int_equal(weft_query(h->w, "fabric", 0, &text), WEFT_OK);
    json_t *said = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(said, "nodes"), i, node)
        count += strcmp(json_string_value(json_object_get(node, "state")), "ok") == 0;
    json_decref(said);
    return count;
}

static void all_are_linked(const struct stage *s)
{
    for (uint32_t i = 0; i < NODES; i++) {
        int ms = 0;
        for (; ms < PATIENCE_MS && linked(&s->hosts[i]) != NODES - 1; ms += 5)
            weftd_sleep_ms(5);
        if (ms >= PATIENCE_MS)
            fail_msg("%s sees %u others", names[i], linked(&s->hosts[i]));
    }
}

static void comes_to_be(const struct host *h, const char *name, int64_t least)
{
    for (int ms = 0; ms < PATIENCE_MS && figure(h, name) < least; ms += 5)
        weftd_sleep_ms(5);
    if (figure(h, name) < least)
        fail_msg("%s is %lld, and never %lld", name, (long long)figure(h, name), (long long)least);
}

/* -------------------------------------------------------------------------------------- chains */

static void keys_of(const struct host *h, uint64_t chain, struct weft_key keys[LINKS])
{
    for (uint64_t i = 0; i < LINKS; i++) {
        uint64_t name[2] = {chain, i};
        assert_int_equal(weft_key_from_bytes(h->f, name, sizeof name, &keys[i]), WEFT_OK);
    }
}

static void put(const struct host *h, uint32_t chain, uint32_t count)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    keys_of(h, chain, keys);
    assert_int_equal(weft_reserve_keys(h->f, NULL, keys, count, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(slots[i].status, WEFT_OK);
        profile_block(chain * LINKS + i, slots[i].data);
    }
    assert_int_equal(weft_commit_slots(h->f, slots, count), WEFT_OK);
}

/* How many of the first `count` are there to be read: the old ones as `old` has them, the others as
 * they were written. */
static uint32_t get(const struct stage *s, const struct host *h, uint32_t chain, uint32_t count,
                    enum weft_quality old)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    keys_of(h, chain, keys);
    assert_int_equal(weft_get_keys(h->f, keys, count, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    for (; found < pins.blocks; found++) {
        enum weft_status status = weft_wait_block(&pins, found);
        bool lost = found < OLD && old > WEFT_LOSSLESS;
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        profile_block(chain * LINKS + found, plain);
        if (lost) {
            profile_back(s->profile, old, found, plain, back);
            assert_memory_not_equal(back, plain, sizeof plain);
        }
        assert_memory_equal(pins.data[found], lost ? back : plain, sizeof plain);
        assert_int_equal(weft_pin_quality(&pins.pins[found]), lost ? old : WEFT_LOSSLESS);
    }
    weft_pins_release(&pins);
    return found;
}

/* In this node's DRAM; without a word that would have it fetched. */
static uint32_t in_memory(const struct host *h, struct weft_format *f, uint32_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_pin pin;
    uint32_t count = 0;
    keys_of(h, chain, keys);
    while (count < LINKS && weft_pin(f, &keys[count], &pin) == WEFT_OK) {
        weft_unpin(&pin);
        count++;
    }
    return count;
}

/* The rest of the chain, a layer of all blocks after the other. */
static void push(const struct host *h, uint32_t chain, const char *to)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES];
    const size_t layer = sizeof plain / PROFILE_LAYERS;
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS - OLD];
    struct weft_push pushed;
    keys_of(h, chain, keys);
    assert_int_equal(weft_reserve_keys(h->f, &keys[OLD - 1], keys + OLD, LINKS - OLD, WEFT_CHAINED,
                                       slots),
                     WEFT_OK);
    assert_int_equal(weft_push_begin(h->f, slots, LINKS - OLD, to, &pushed), WEFT_OK);
    for (uint32_t n = 0; n < PROFILE_LAYERS; n++) {
        for (uint32_t i = 0; i < LINKS - OLD; i++) {
            assert_int_equal(slots[i].status, WEFT_OK);
            profile_block(chain * LINKS + OLD + i, plain);
            memcpy((uint8_t *)slots[i].data + n * layer, plain + n * layer, layer);
        }
        enum weft_status status = weft_push_layers(&pushed, n + 1);
        assert_true(status == WEFT_OK || status == WEFT_MISS);
    }
    assert_int_equal(weft_commit_slots(h->f, slots, LINKS - OLD), WEFT_OK);
}

/* Chains 1 and 2 have a beginning on the left that lost something, and is in its DRAM; nobody else
 * has heard of them. */
static void the_left_has_read_back(struct stage *s)
{
    struct host *left = &s->hosts[0];
    up(left);
    for (uint32_t chain = 1; chain <= 2; chain++)
        put(left, chain, OLD);
    down(left);
    up(left);
    for (uint32_t chain = 1; chain <= 2; chain++) {
        bool back = false;
        for (int ms = 0; ms < PATIENCE_MS && !back; ms += 20) { /* its tier opens */
            back = get(s, left, chain, OLD, WEFT_ECONOMY) == OLD &&
                   in_memory(left, left->f, chain) == OLD;
            if (!back)
                weftd_sleep_ms(20);
        }
        assert_true(back);
    }
}

/* --------------------------------------------------------------------------------------- tests */

static void what_lost_something_is_pushed_to_who_takes_it(void **state)
{
    struct stage *s = *state;
    struct host *left = &s->hosts[0], *right = &s->hosts[1], *strict = &s->hosts[2];
    struct weft_key keys[LINKS];
    size_t present;
    the_left_has_read_back(s);
    up(right);
    up(strict);
    all_are_linked(s);

    push(left, 1, "right");
    comes_to_be(right, "taken", LINKS);
    comes_to_be(left, "pushed", LINKS);
    assert_int_equal(in_memory(right, right->f, 1), LINKS);
    assert_int_equal(figure(right, "fetches"), 0);
    assert_true(figure(right, "frames_in") > 0);
    assert_true(figure(right, "frames_in_bytes") < figure(right, "frames_in_plain_bytes"));
    assert_int_equal(get(s, right, 1, LINKS, WEFT_ECONOMY), LINKS);

    /* Who asks for better there, by whatever key, has none that lost something. */
    struct weft_format *stricter;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS,
                                    .quality = WEFT_LOSSLESS};
    assert_int_equal(weft_format_open(right->w, &spec, &stricter), WEFT_OK);
    assert_int_equal(in_memory(right, stricter, 1), 0);
    weft_format_close(stricter);

    /* The third is told of both copies, and of neither as one. */
    keys_of(strict, 1, keys);
    comes_to_be(strict, "replica_copies", LINKS);
    assert_int_equal(weft_match_keys(strict->f, keys, LINKS, &present), WEFT_OK);
    assert_int_equal(present, 0);
    assert_int_equal(get(s, strict, 1, LINKS, WEFT_LOSSLESS), 0);
    for (uint32_t i = NODES; i-- > 0;)
        down(&s->hosts[i]);
}

/* Neither by the push nor by what is handed over in its place; and what it computes itself is exact
 * there, whatever the others have. */
static void who_takes_no_loss_has_nothing_of_it(void **state)
{
    struct stage *s = *state;
    struct host *left = &s->hosts[0], *right = &s->hosts[1], *strict = &s->hosts[2];
    struct weft_key keys[LINKS];
    size_t present;
    the_left_has_read_back(s);
    up(right);
    up(strict);
    all_are_linked(s);

    push(left, 2, "strict");
    comes_to_be(left, "push_fails", 2); /* of what was there, and of what was written */
    push(left, 1, "right");             /* after it, and told to all */
    comes_to_be(right, "taken", LINKS);
    assert_int_equal(figure(strict, "taken"), 0);
    keys_of(strict, 2, keys);
    assert_int_equal(weft_match_keys(strict->f, keys, LINKS, &present), WEFT_OK);
    assert_int_equal(present, 0);
    assert_int_equal(get(s, strict, 2, LINKS, WEFT_LOSSLESS), 0);
    assert_int_equal(in_memory(strict, strict->f, 2), 0);

    put(strict, 2, LINKS);
    assert_int_equal(get(s, strict, 2, LINKS, WEFT_LOSSLESS), LINKS);
    assert_int_equal(get(s, left, 2, LINKS, WEFT_ECONOMY), LINKS);
    assert_int_equal(figure(strict, "fetches_lossy"), 0);
    for (uint32_t i = NODES; i-- > 0;)
        down(&s->hosts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_lost_something_is_pushed_to_who_takes_it, before,
                                        after),
        cmocka_unit_test_setup_teardown(who_takes_no_loss_has_nothing_of_it, before, after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
