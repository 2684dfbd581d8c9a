/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes of one cluster: what the left one's domain has on its tier with loss, and what a second
 * session there, forked from the first, puts behind it, is never an answer on the right one, whose
 * domain asks for what is exact: not when it is matched, fetched, handed over or drained, and not
 * after a restart of either.  What is put there anew is exact, and stays beside it.
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
#define TRUNK 3u  /* blocks that both sessions have */
#define BRANCH 2u /* and that each has of its own */
#define LINKS (TRUNK + BRANCH)
#define PATIENCE_MS 20000
#define SETTINGS 24u

enum { LEFT, RIGHT, NODES };
static const char *const names[NODES] = {"left", "right"};

struct host {
    struct weftd node;
    char room[SETTINGS][192];
    const char *settings[SETTINGS + 1];
    uint32_t count;
    struct weft *w;
    struct weft_format *f;
};

struct stage {
    struct host host[NODES];
    struct wf_profile *profile;
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

static void up(struct host *h, const char *quality)
{
    const struct weft_format_spec spec = {.model = MODEL,
                                          .layers = PROFILE_LAYERS,
                                          .kv_heads = PROFILE_HEADS,
                                          .head_dim = PROFILE_DIM,
                                          .dtype = WEFT_BF16,
                                          .block_tokens = PROFILE_TOKENS};
    set(h, "domain.default.quality=%s", quality);
    if (!weftd_start(&h->node, h->settings, NULL)) {
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
    h->f = NULL;
    h->w = NULL;
    assert_true(weftd_stop(&h->node));
}

static int before(void **state)
{
    static struct stage s;
    char file[160], folder[96];
    memset(&s, 0, sizeof s);
    for (int i = 0; i < NODES; i++)
        weftd_prepare(&s.host[i].node);
    for (int i = 0; i < NODES; i++) {
        struct host *h = &s.host[i];
        const char *at = h->node.directory, *first = s.host[LEFT].node.directory;
        snprintf(folder, sizeof folder, "%s/profiles", at);
        assert_int_equal(mkdir(folder, 0700), 0);
        snprintf(file, sizeof file, "%s/small.wfprofile", folder);
        profile_make(MODEL, 0, file);
        set(h, "pool.size=8MB");
        set(h, "pool.size_max=8MB");
        set(h, "drain=30s");
        set(h, "profiles=%s", folder);
        set(h, "tiers=nvme0");
        set(h, "tier.nvme0.path=%s/nvme0", at);
        set(h, "tier.nvme0.size=64MB");
        set(h, "tier.nvme0.admit=always");
        set(h, "fabric.name=%s", names[i]);
        set(h, "fabric.secret_file=%s", s.host[LEFT].node.secret);
        set(h, "fabric.listen=unix:%s/net", at);
        set(h, "fabric.join=unix:%s/net", i == LEFT ? s.host[RIGHT].node.directory : first);
        set(h, "domain.default.secret_file=%s", s.host[LEFT].node.secret);
    }
    s.profile = profile_read(file);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    for (int i = 0; i < NODES; i++) {
        weft_format_close(s->host[i].f);
        weft_close(s->host[i].w);
        weftd_clean(&s->host[i].node);
    }
    wf_profile_destroy(s->profile);
    return 0;
}

/* ------------------------------------------------------------------------------------ sessions */

/* One more than all blocks have, so that a match may say all of them. */
static size_t tokens_of(uint32_t branch, uint32_t tokens[LINKS * PROFILE_TOKENS + 1])
{
    for (uint32_t i = 0; i <= LINKS * PROFILE_TOKENS; i++)
        tokens[i] = i < TRUNK * PROFILE_TOKENS ? i : 1000 * branch + i;
    return LINKS * PROFILE_TOKENS + 1;
}

static uint32_t number_of(uint32_t branch, uint32_t block)
{
    return block < TRUNK ? block : 100 * branch + block;
}

/* Blocks first … end − 1 of the chain of `branch`. */
static void put(struct weft_session *s, uint32_t branch, uint32_t first, uint32_t end)
{
    uint32_t tokens[LINKS * PROFILE_TOKENS + 1];
    struct weft_fill fill;
    (void)tokens_of(branch, tokens);
    assert_int_equal(weft_reserve(s, tokens, (size_t)first * PROFILE_TOKENS,
                                  (size_t)end * PROFILE_TOKENS, &fill),
                     WEFT_OK);
    assert_int_equal(fill.reserved, end - first);
    for (uint32_t i = 0; i < fill.blocks; i++)
        profile_block(number_of(branch, first + i), fill.slots[i].data);
    assert_int_equal(weft_commit(&fill), WEFT_OK);
}

static uint32_t matched(struct weft_session *s, uint32_t branch, enum weft_quality *out)
{
    uint32_t tokens[LINKS * PROFILE_TOKENS + 1];
    struct weft_match match;
    size_t count = tokens_of(branch, tokens);
    assert_int_equal(weft_match(s, tokens, count, &match), WEFT_OK);
    *out = match.quality;
    return match.blocks;
}

/* How many come; each as it was put, or as `quality` has it. */
static uint32_t get(const struct stage *st, struct weft_session *s, uint32_t branch,
                    enum weft_quality quality)
{
    static uint8_t plain[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    uint32_t tokens[LINKS * PROFILE_TOKENS + 1], found = 0;
    struct weft_match match;
    struct weft_pins pins;
    size_t count = tokens_of(branch, tokens);
    assert_int_equal(weft_match(s, tokens, count, &match), WEFT_OK);
    assert_int_equal(weft_get(s, &match, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    for (; found < pins.blocks; found++) {
        enum weft_status status = weft_wait_block(&pins, found);
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        profile_block(number_of(branch, found), plain);
        if (quality > WEFT_LOSSLESS)
            profile_back(st->profile, quality, found, plain, back);
        assert_int_equal(weft_pin_quality(&pins.pins[found]), quality);
        assert_memory_equal(pins.data[found], quality > WEFT_LOSSLESS ? back : plain, sizeof plain);
    }
    weft_pins_release(&pins);
    return found;
}

static struct weft_session *session(struct host *h)
{
    struct weft_session *s;
    assert_int_equal(weft_session_open(h->f, NULL, &s), WEFT_OK);
    return s;
}

/* Wait until this is in what the node says of its cluster. */
static void until(const struct host *h, const char *words)
{
    bool found = false;
    char *text = NULL;
    for (int ms = 0; !found; ms += 10) {
        assert_int_equal(weft_query(h->w, "fabric", 0, &text), WEFT_OK);
        found = strstr(text, words) != NULL;
        if (!found && ms >= PATIENCE_MS)
            fail_msg("never: %s in %s", words, text);
        weft_text_free(text);
        if (!found)
            weftd_sleep_ms(10);
    }
}

/* Whatever is tried on the right one, it has nothing of either branch. */
static void right_has_none(const struct stage *st, struct host *right)
{
    struct weft_session *s = session(right);
    for (uint32_t branch = 1; branch <= 2; branch++) {
        uint32_t tokens[LINKS * PROFILE_TOKENS + 1], coming = 0;
        struct weft_key keys[LINKS];
        struct weft_pins pins;
        enum weft_quality quality;
        size_t count = tokens_of(branch, tokens);
        assert_int_equal(matched(s, branch, &quality), 0);
        assert_int_equal(weft_prefetch(s, tokens, count, 0, &coming), WEFT_OK);
        assert_int_equal(coming, 0);
        assert_int_equal(get(st, s, branch, WEFT_LOSSLESS), 0);
        assert_int_equal(weft_keys_from_tokens(right->f, NULL, tokens, count, NULL, keys), WEFT_OK);
        assert_int_equal(weft_get_keys(right->f, keys, LINKS, WEFT_LAYER_ORDER, &pins), WEFT_OK);
        assert_int_equal(pins.blocks, 0);
        weft_pins_release(&pins);
    }
    weft_session_close(s);
}

/* Trunk and both branches are on the left one's tier, each with its loss. */
static void grow(struct stage *st)
{
    struct host *left = &st->host[LEFT];
    struct weft_session *first, *second;
    enum weft_quality quality;
    up(left, "transparent");
    first = session(left);
    put(first, 1, 0, TRUNK);
    weft_session_close(first);
    down(left);

    up(left, "transparent");
    first = session(left);
    for (int ms = 0; matched(first, 1, &quality) < TRUNK && ms < PATIENCE_MS; ms += 10)
        weftd_sleep_ms(10);
    assert_int_equal(get(st, first, 1, WEFT_TRANSPARENT), TRUNK);
    assert_int_equal(weft_session_fork(first, NULL, &second), WEFT_OK);
    put(first, 1, TRUNK, LINKS);
    put(second, 2, TRUNK, LINKS);
    for (uint32_t branch = 1; branch <= 2; branch++) {
        assert_int_equal(matched(branch == 1 ? first : second, branch, &quality), LINKS);
        assert_int_equal(quality, WEFT_TRANSPARENT); /* the worst of it: the trunk */
    }
    weft_session_close(second);
    weft_session_close(first);
    down(left);
}

static void hand_over(struct host *left, uint32_t branch)
{
    uint32_t tokens[LINKS * PROFILE_TOKENS + 1];
    struct weft_key keys[LINKS];
    size_t count = tokens_of(branch, tokens);
    assert_int_equal(weft_keys_from_tokens(left->f, NULL, tokens, count, NULL, keys), WEFT_OK);
    if (weft_hand_over(left->w, &keys[LINKS - 1], names[RIGHT]) != WEFT_OK)
        fail_msg("it is not handed over: %s", weft_last_error());
}

/* Both branches on the left one are what they were put, but for what the tier's codec lost. */
static void left_has_both(struct stage *st, struct host *left)
{
    enum weft_quality quality;
    struct weft_session *s = session(left);
    for (uint32_t branch = 1; branch <= 2; branch++) {
        for (int ms = 0; matched(s, branch, &quality) < LINKS && ms < PATIENCE_MS; ms += 10)
            weftd_sleep_ms(10);
        assert_int_equal(get(st, s, branch, WEFT_TRANSPARENT), LINKS);
    }
    weft_session_close(s);
}

static void what_was_forked_of_lossy_blocks_is_never_taken_for_exact(void **state)
{
    struct stage *st = *state;
    struct host *left = &st->host[LEFT], *right = &st->host[RIGHT];
    struct weft_session *s;
    enum weft_quality quality;
    char words[32];
    grow(st);
    up(left, "transparent");
    up(right, "lossless");
    left_has_both(st, left);
    snprintf(words, sizeof words, "\"blocks\":%u,", TRUNK + 2 * BRANCH);
    until(right, words); /* it has been told of all of them */
    until(left, "\"name\":\"right\"");
    until(left, "\"state\":\"ok\"");
    right_has_none(st, right);

    for (uint32_t branch = 1; branch <= 2; branch++)
        hand_over(left, branch);
    until(right, "\"taken_over\":2,");
    right_has_none(st, right);
    until(left, "\"serves\":0,");

    /* It starts anew and has none still; what it is given is exact, and is so from its tier. */
    down(right);
    up(right, "lossless");
    until(right, words);
    right_has_none(st, right);
    s = session(right);
    put(s, 2, 0, LINKS);
    weft_session_close(s);
    down(right);
    assert_int_equal(weft_fabric_drain(left->w, 1), WEFT_OK); /* which hands on what it has alone */
    up(right, "lossless");
    until(right, words);
    s = session(right);
    for (int ms = 0; matched(s, 2, &quality) < LINKS && ms < PATIENCE_MS; ms += 10)
        weftd_sleep_ms(10);
    assert_int_equal(get(st, s, 2, WEFT_LOSSLESS), LINKS);
    assert_int_equal(matched(s, 1, &quality), TRUNK); /* of which the other chain has a part */
    assert_int_equal(quality, WEFT_LOSSLESS);
    assert_int_equal(get(st, s, 1, WEFT_LOSSLESS), TRUNK);
    weft_session_close(s);
    down(right);
    down(left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_forked_of_lossy_blocks_is_never_taken_for_exact,
                                        before, after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
