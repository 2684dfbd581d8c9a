/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes on one CXL device that they share, whose domain asks for another quality on each, and
 * whose folders have other profiles.  What one has written with loss is to the other what it is:
 * not there for who asks for better, a miss without its profile, though another of the same model
 * is there, and else the same bytes, told as what they lost, wherever they are copied to.
 *
 * The device is a mapped file, which is an emulation (shared.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/profile.h"
#include "../support/weftd.h"

#define MODEL "small@1"
#define LINKS 3u
#define PATIENCE_MS 10000
#define SETTINGS 24u

struct host {
    struct weftd node;
    char room[SETTINGS][192];
    const char *settings[SETTINGS + 1];
    const char *variables[2];
    uint32_t count;
    struct weft *w;
    struct weft_format *f;
};

struct stage {
    struct host one, two;
    char file[2][128]; /* profiles */
    struct wf_profile *profile[2];
};

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

static void copy_file(const char *from, const char *to)
{
    static char bytes[1 << 20];
    FILE *in = fopen(from, "re"), *out = fopen(to, "we");
    assert_true(in && out);
    size_t count = fread(bytes, 1, sizeof bytes, in);
    assert_true(count > 0 && fwrite(bytes, 1, count, out) == count);
    assert_int_equal(fclose(in) | fclose(out), 0);
}

/* Profile number `which` into its folder. */
static void give(const struct stage *s, const struct host *h, uint32_t which)
{
    char to[128];
    snprintf(to, sizeof to, "%s/profiles/%u.wfprofile", h->node.directory, which);
    copy_file(s->file[which], to);
}

static void host_prepare(struct stage *s, struct host *h, int number)
{
    char folder[96];
    weftd_prepare(&h->node);
    snprintf(folder, sizeof folder, "%s/profiles", h->node.directory);
    assert_int_equal(mkdir(folder, 0700), 0);
    set(h, "pool.size=4MB");
    set(h, "pool.size_max=4MB");
    set(h, "profiles=%s", folder);
    set(h, "tiers=cxl0");
    set(h, "tier.cxl0.kind=cxl");
    set(h, "tier.cxl0.size=64MB");
    set(h, "tier.cxl0.shared=true");
    set(h, "tier.cxl0.admit=always");
    set(h, "tier.cxl0.host=%d", number);
    set(h, "tier.cxl0.path=file-emulation:%s/device", s->one.node.directory);
}

static void set_nvme(struct host *h)
{
    set(h, "tier.nvme0.path=%s/nvme0", h->node.directory);
    set(h, "tier.nvme0.size=16MB");
    set(h, "tier.nvme0.codec=none");
}

static void up(struct host *h, const char *quality)
{
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = PROFILE_LAYERS,
                                          .kv_heads = PROFILE_HEADS,
                                          .head_dim = PROFILE_DIM,
                                          .dtype = WEFT_BF16,
                                          .block_tokens = PROFILE_TOKENS};
    set(h, "domain.default.quality=%s", quality);
    if (!weftd_start(&h->node, h->settings, h->variables)) {
        weftd_show_log(&h->node);
        fail_msg("the node did not start");
    }
    h->settings[--h->count] = NULL;
    h->w = weftd_connect(&h->node, "default");
    assert_non_null(h->w);
    assert_int_equal(weft_format_open(h->w, &spec, &h->f), WEFT_OK);
}

static void down(struct host *h)
{
    weft_format_close(h->f);
    weft_close(h->w);
    assert_true(weftd_stop(&h->node));
}

static int before(void **state)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    host_prepare(&s, &s.one, 1);
    host_prepare(&s, &s.two, 2);
    copy_file(s.one.node.secret, s.two.node.secret); /* one domain: one secret */
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(s.file[i], sizeof s.file[i], "%s/profile%u", s.one.node.directory, i);
        profile_make(MODEL, (uint16_t)(9 * i), s.file[i]);
        s.profile[i] = profile_read(s.file[i]);
    }
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    weftd_clean(&s->two.node);
    weftd_clean(&s->one.node);
    for (uint32_t i = 0; i < 2; i++)
        wf_profile_destroy(s->profile[i]);
    return 0;
}

/* -------------------------------------------------------------------------------------- chains */

static void keys_of(struct host *h, uint64_t chain, struct weft_key keys[LINKS])
{
    for (uint64_t i = 0; i < LINKS; i++) {
        uint64_t name[2] = {chain, i};
        assert_int_equal(weft_key_from_bytes(h->f, name, sizeof name, &keys[i]), WEFT_OK);
    }
}

static void put(struct host *h, uint32_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    keys_of(h, chain, keys);
    assert_int_equal(weft_reserve_keys(h->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        assert_int_equal(slots[i].status, WEFT_OK);
        profile_block(chain * LINKS + i, slots[i].data);
    }
    assert_int_equal(weft_commit_slots(h->f, slots, LINKS), WEFT_OK);
}

/* How many come, each as `profile` has it for `quality`; NULL: as it was put. */
static uint32_t get(struct host *h, uint32_t chain, const struct wf_profile *profile,
                    enum weft_quality quality)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    uint32_t found = 0;
    keys_of(h, chain, keys);
    assert_int_equal(weft_get_keys(h->f, keys, LINKS, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    for (; found < pins.blocks; found++) {
        enum weft_status status = weft_wait_block(&pins, found);
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        profile_block(chain * LINKS + found, plain);
        if (profile)
            profile_back(profile, quality, found, plain, back);
        assert_memory_equal(pins.data[found], profile ? back : plain, sizeof plain);
        assert_int_equal(weft_pin_quality(&pins.pins[found]), quality);
    }
    weft_pins_release(&pins);
    return found;
}

static size_t matched(struct host *h, uint32_t chain)
{
    struct weft_key keys[LINKS];
    size_t present;
    keys_of(h, chain, keys);
    assert_int_equal(weft_match_keys(h->f, keys, LINKS, &present), WEFT_OK);
    return present;
}

/* Another host's blocks are found by looking: a moment later. */
static bool comes_to(struct host *h, uint32_t chain)
{
    for (int ms = 0; ms < PATIENCE_MS && matched(h, chain) != LINKS; ms += 5)
        weftd_sleep_ms(5);
    return matched(h, chain) == LINKS;
}

static bool gets_in_the_end(struct host *h, uint32_t chain, const struct wf_profile *profile,
                            enum weft_quality quality)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 20) {
        if (get(h, chain, profile, quality) == LINKS)
            return true;
        weftd_sleep_ms(20);
    }
    return false;
}

static enum weft_status archive(struct host *h, uint32_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_archived out;
    keys_of(h, chain, keys);
    return weft_archive_keys(h->f, "shared", &keys[LINKS - 1], PATIENCE_MS, &out);
}

/* Chain 1 by the first profile, on the device that the two share; what is put is written there when
 * the node ends. */
static void one_has_written(struct stage *s)
{
    give(s, &s->one, 0);
    up(&s->one, "economy");
    put(&s->one, 1);
    down(&s->one);
    up(&s->one, "economy");
    assert_true(comes_to(&s->one, 1));
}

/* --------------------------------------------------------------------------------------- tests */

static void who_asks_for_better_does_not_find_it(void **state)
{
    struct stage *s = *state;
    one_has_written(s);
    give(s, &s->two, 0);
    up(&s->two, "transparent");
    weftd_sleep_ms(300); /* in which it would be found */
    assert_int_equal(matched(&s->two, 1), 0);
    assert_int_equal(get(&s->two, 1, NULL, WEFT_LOSSLESS), 0);
    put(&s->two, 1);
    assert_int_equal(get(&s->two, 1, NULL, WEFT_LOSSLESS), LINKS);
    down(&s->two);
    up(&s->two, "transparent");
    assert_true(gets_in_the_end(&s->two, 1, s->profile[0], WEFT_TRANSPARENT));
    assert_int_equal(get(&s->one, 1, s->profile[0], WEFT_ECONOMY), LINKS);
    down(&s->two);
    down(&s->one);
}

static void another_profile_is_none(void **state)
{
    struct stage *s = *state;
    one_has_written(s);
    give(s, &s->two, 1); /* of the same model */
    up(&s->two, "economy");
    assert_true(comes_to(&s->two, 1));
    assert_int_equal(get(&s->two, 1, NULL, WEFT_LOSSLESS), 0);
    assert_true(weftd_told(s->two.w, "\"profile\"", PATIENCE_MS));
    give(s, &s->two, 0);
    assert_true(gets_in_the_end(&s->two, 1, s->profile[0], WEFT_ECONOMY));
    down(&s->two);
    down(&s->one);
}

/* From the other's memory to a tier of one's own that encodes nothing. */
static void copy_of_it(struct stage *s)
{
    one_has_written(s);
    give(s, &s->two, 0);
    set(&s->two, "tiers=cxl0,nvme0");
    set(&s->two, "tier.cxl0.archive=false");
    set_nvme(&s->two);
    up(&s->two, "economy");
    assert_true(comes_to(&s->two, 1));
    assert_int_equal(archive(&s->two, 1), WEFT_OK);
    down(&s->one);
    down(&s->two);
    s->two.count = 3; /* without the device */
    set(&s->two, "tiers=nvme0");
    set_nvme(&s->two);
    up(&s->two, "economy");
    assert_true(comes_to(&s->two, 1));
    assert_int_equal(get(&s->two, 1, s->profile[0], WEFT_ECONOMY), LINKS);
    down(&s->two);
    up(&s->two, "lossless");
    weftd_sleep_ms(300);
    assert_int_equal(get(&s->two, 1, NULL, WEFT_LOSSLESS), 0);
    down(&s->two);
}

static void a_copy_of_it_is_no_better(void **state)
{
    copy_of_it(*state);
}

/* Who copies it takes it for exact, as it was until the other replaced it, and is not told yet. */
static void a_copy_of_what_has_changed_is_no_better(void **state)
{
    struct stage *s = *state;
    s->two.variables[0] = "WEFT_FAIL_AT=move.unaware:1";
    copy_of_it(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_asks_for_better_does_not_find_it, before, after),
        cmocka_unit_test_setup_teardown(another_profile_is_none, before, after),
        cmocka_unit_test_setup_teardown(a_copy_of_it_is_no_better, before, after),
#if WF_TEST_HOOKS
        cmocka_unit_test_setup_teardown(a_copy_of_what_has_changed_is_no_better, before, after),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
