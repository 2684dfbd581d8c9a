/* SPDX-License-Identifier: Apache-2.0
 *
 * What is not stored with loss, though its domain would have it so, and how that is said, to whom
 * and how often: in events, in answers and in the log.
 */
#include <unistd.h>

#include "lossy_world.h"

/* A block too small to be encoded cannot say below that it has lost something: so it is not there,
 * and nobody takes it for exact later. */
static void what_cannot_say_that_it_lost_is_not_stored(void **state)
{
    struct lossy *l = *state;
    struct weft_key keys[2];
    struct weft_slot slots[2];
    size_t present;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = 1};
    for (int i = 0; i < 2; i++) {
        start(&l->w, NULL);
        assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
        keys_of(l->f, 1, 2, keys);
        assert_int_equal(weft_match_keys(l->f, keys, 2, &present), WEFT_OK);
        assert_int_equal(present, i); /* what was put exactly is there, and exact */
        for (uint32_t j = 0; i == 0 && j < 2; j++) {
            uint32_t lost = j == 1 ? WEFT_LOST_TRANSPARENT : 0;
            assert_int_equal(weft_reserve_keys(l->f, j ? &keys[0] : NULL, &keys[j], 1,
                                               WEFT_CHAINED | lost, &slots[j]),
                             WEFT_OK);
            memset(slots[j].data, 1, weft_format_block_bytes(l->f));
            assert_int_equal(weft_commit_slots(l->f, &slots[j], 1), WEFT_OK);
        }
        if (i == 0)
            down(l);
        set(&l->w, "domain.default.quality=lossless");
    }
}

/* And that is why, in words, when it goes from DRAM. */
static void why_it_is_not_stored_is_said(void **state)
{
    struct lossy *l = *state;
    struct weft_key key;
    struct weft_slot slot;
    struct weft_format *small;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = 1};
    up(l);
    assert_int_equal(weft_format_open(l->w.w, &spec, &small), WEFT_OK);
    keys_of(small, 1000, 1, &key);
    assert_int_equal(weft_reserve_keys(small, NULL, &key, 1, WEFT_CHAINED | WEFT_LOST_TRANSPARENT,
                                       &slot),
                     WEFT_OK);
    memset(slot.data, 1, weft_format_block_bytes(small));
    assert_int_equal(weft_commit_slots(small, &slot, 1), WEFT_OK);
    for (uint64_t c = 1; c <= 60; c++) /* more than DRAM has room for */
        assert_int_equal(put_chain(l, c), LINKS);
    assert_true(told(&l->w, "events", "\"not_below\":\"lossy before\""));
    assert_false(weftd_told(l->w.w, "\"not_below\":\"key taken\"", 0));
    weft_format_close(small);
}

static uint32_t times_in(const char *text, const char *word)
{
    uint32_t times = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        times++;
    return times;
}

/* Lines of a level that have the word. */
static uint32_t logged_at(const struct lossy *l, const char *level, const char *word)
{
    char line[2048];
    uint32_t times = 0;
    FILE *log = fopen(l->w.node.log, "re");
    assert_non_null(log);
    while (fgets(line, sizeof line, log))
        times += strstr(line, level) && strstr(line, word);
    fclose(log);
    return times;
}

/* What was made for the model and is not used, and what is gone, is more than something to know. */
static void a_profile_that_is_not_used_is_warned_of(void **state)
{
    struct lossy *l = *state;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS,
                                    .rope_theta = 4321};
    start(&l->w, NULL);
    assert_true(told(&l->w, "events", "profile small.wfprofile was read, for KV of " MODEL ": "));
    assert_false(weftd_told(l->w.w, "is used for", 0));
    assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
    assert_int_equal(put_chain(l, 1), LINKS);
    assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
    assert_true(told(&l->w, "tiers", "\"lossy\":\"transform\""));
    assert_true(told(&l->w, "events", "no profile for " MODEL ": small.wfprofile is for"));
    assert_int_equal(logged_at(l, "warn", "no profile fits this format of model " MODEL), 1);
    assert_int_equal(unlink(l->file), 0);
    assert_true(told(&l->w, "events", "profile small.wfprofile is gone"));
    assert_int_equal(logged_at(l, "warn", "that profile is not there any more"), 1);
}

/* An event for each format that has no profile, and one line of the log for all of them. */
static void formats_without_profiles_are_told_once(void **state)
{
    static const char *const models[] = {"one@1", "two@1", "three@1"};
    struct lossy *l = *state;
    start(&l->w, NULL);
    for (size_t i = 0; i < 3; i++) {
        struct weft_format_spec spec = {.model = models[i],
                                        .layers = PROFILE_LAYERS,
                                        .kv_heads = PROFILE_HEADS,
                                        .head_dim = PROFILE_DIM,
                                        .dtype = WEFT_BF16,
                                        .block_tokens = PROFILE_TOKENS};
        assert_int_equal(weft_format_open(l->w.w, &spec, &l->f), WEFT_OK);
        assert_int_equal(put_chain(l, 1), LINKS);
        assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
        assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
        weft_format_close(l->f);
        l->f = NULL;
        char word[64], *events;
        snprintf(word, sizeof word, "no profile for %s", models[i]);
        assert_true(told(&l->w, "events", word));
        assert_int_equal(weft_query(l->w.w, "events", 0, &events), WEFT_OK);
        assert_int_equal(times_in(events, models[i]), 1);
        weft_text_free(events);
    }
    assert_int_equal(logged_at(l, "info", "no profile fits this format"), 1);
}

/* KV that no profile is made for: by it, it would not become small. */
static void put_noise(const struct lossy *l, uint64_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    uint32_t state = 12345;
    keys_of(l->f, chain, LINKS, keys);
    assert_int_equal(weft_reserve_keys(l->f, NULL, keys, LINKS, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < LINKS; i++) {
        uint16_t *numbers = slots[i].data;
        assert_int_equal(slots[i].status, WEFT_OK);
        for (size_t at = 0; at < PROFILE_BLOCK_BYTES / sizeof *numbers; at++) {
            uint32_t bits;
            state = state * 1664525 + 1013904223;
            float number = 1e4f * ((float)(state >> 8) / (float)(1u << 23) - 1);
            memcpy(&bits, &number, sizeof bits);
            numbers[at] = (uint16_t)(bits >> 16);
        }
    }
    assert_int_equal(weft_commit_slots(l->f, slots, LINKS), WEFT_OK);
}

/* It is stored exactly, which is counted, and told once. */
static void what_its_profile_is_not_for_is_told(void **state)
{
    struct lossy *l = *state;
    char word[64], *events;
    up(l);
    assert_false(told(&l->w, "formats", "\"declined\":1"));
    put_noise(l, 1);
    assert_int_equal(archive_chain(l, 1), WEFT_OK); /* it is written now */
    snprintf(word, sizeof word, "\"declined\":%d}", LINKS);
    assert_true(told(&l->w, "formats", word));
    assert_int_equal(weft_query(l->w.w, "events", 0, &events), WEFT_OK);
    assert_int_equal(times_in(events, "small.wfprofile, for " MODEL ": a block is stored exactly"),
                     1);
    weft_text_free(events);
    assert_int_equal(logged_at(l, "info", "is stored exactly: its frame"), 1);
    put_chain(l, 2); /* its own goes as ever */
    assert_int_equal(weft_archive_remove(l->w.w, "lossy"), WEFT_OK);
    assert_int_equal(archive_chain(l, 2), WEFT_OK);
    assert_true(told(&l->w, "formats", word));
}

/* Who asks for a loss and has no profile hears of it before a block is written, and where. */
static void a_folder_without_profiles_is_told_at_the_start(void **state)
{
    struct lossy *l = *state;
    assert_int_equal(unlink(l->file), 0);
    up(l);
    assert_int_equal(logged_at(l, "info", "asks for transparent, and there is no profile in "), 1);
    assert_true(told(&l->w, "profiles", "\"profiles\":[]"));
    assert_true(told(&l->w, "formats", "\"profile_why\":\"none names that model\""));
    profile_make(MODEL, 0, l->file);
    assert_true(told(&l->w, "profiles", "\"file\":\"small.wfprofile\",\"model\":\"" MODEL "\""));
    assert_true(told(&l->w, "formats", "\"profile_why\":null"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_cannot_say_that_it_lost_is_not_stored, one_tier),
        TEST(why_it_is_not_stored_is_said, one_tier),
        TEST(formats_without_profiles_are_told_once, one_tier),
        TEST(a_profile_that_is_not_used_is_warned_of, one_tier),
        TEST(what_its_profile_is_not_for_is_told, one_tier),
        TEST(a_folder_without_profiles_is_told_at_the_start, one_tier),
    };
    return cmocka_run_group_tests_name("lossy_told", tests, NULL, NULL);
}
