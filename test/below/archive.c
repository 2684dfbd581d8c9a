/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives, with a real node on a real file: what was said to be durable is there, byte for byte,
 * after a SIGKILL at any point, under pressure from above and below, until it is removed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chains.h"
#include "../support/raw.h"

#define BLOCK_BYTES 65536
#define CHAIN 12
#define WAIT_MS 30000

struct stage {
    struct weftd node;
    char tier[128], secret[128], pool[64], pool_max[64], guest[192];
    const char *settings[24];
    struct weft *w;
    struct weft_format *f;
};

/* The next stage's: so that a test finds on the medium what it put, or knows what that takes. */
static bool as_it_is;

static void stage_settings(struct stage *s, const char *pool, const char *size, bool archive)
{
    static const char admit[] = "tier.nvme0.admit=always";
    static char path[160], bytes[64];
    snprintf(path, sizeof path, "tier.nvme0.path=%s", s->tier);
    snprintf(bytes, sizeof bytes, "tier.nvme0.size=%s", size);
    snprintf(s->pool, sizeof s->pool, "pool.size=%s", pool);
    snprintf(s->pool_max, sizeof s->pool_max, "pool.size_max=%s", pool);
    snprintf(s->guest, sizeof s->guest, "domain.guest.secret_file=%s", s->secret);
    const char *const all[] = {s->pool,
                               s->pool_max,
                               "pool.policy=lru", /* what is pushed out is known */
                               "tiers=nvme0",
                               "tier.nvme0.kind=nvme",
                               path,
                               bytes,
                               admit,
                               as_it_is ? "tier.nvme0.codec=none" : "tier.nvme0.codec=auto",
                               archive ? "tier.nvme0.archive=true" : "tier.nvme0.archive=false",
                               "staging=1MB",
                               "drain=1s",
                               "domains=default,guest",
                               s->guest,
                               NULL};
    memcpy(s->settings, all, sizeof all);
}

static void wait_event(struct weft *w, const char *what)
{
    assert_true(weftd_told(w, what, 10000));
}

static void stage_open(struct stage *s, const char *const *variables)
{
    if (!weftd_start(&s->node, s->settings, variables)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not start");
    }
    s->w = weftd_connect(&s->node, "default");
    s->f = s->w ? weftd_format(s->w, "archive", BLOCK_BYTES) : NULL;
    assert_non_null(s->f);
    wait_event(s->w, "tier_open"); /* before, nothing is written there or found */
}

static void stage_begin(struct stage *s, const char *pool, const char *size, bool archive,
                        const char *crash_at)
{
    memset(s, 0, sizeof *s);
    weftd_prepare(&s->node);
    snprintf(s->tier, sizeof s->tier, "%s/tier", s->node.directory);
    snprintf(s->secret, sizeof s->secret, "%s/guest", s->node.directory);
    FILE *secret = fopen(s->secret, "wxe");
    assert_non_null(secret);
    assert_int_equal(fchmod(fileno(secret), 0600), 0);
    fputs("another secret of more than thirty-two bytes, for tests alone", secret);
    assert_int_equal(fclose(secret), 0);
    stage_settings(s, pool, size, archive);
    as_it_is = false;
    stage_open(s, (const char *const[]){crash_at, NULL});
}

static void stage_close(struct stage *s)
{
    weft_format_close(s->f);
    weft_close(s->w);
    s->f = NULL;
    s->w = NULL;
}

/* SIGKILL, and another node in its place. */
static void stage_again(struct stage *s)
{
    weftd_kill(&s->node);
    stage_close(s);
    stage_open(s, NULL);
}

static void stage_end(struct stage *s)
{
    stage_close(s);
    if (!weftd_stop(&s->node)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not end well");
    }
    unlink(s->tier);
    unlink(s->secret);
    weftd_clean(&s->node);
}

static uint32_t present(struct weft_format *f, uint64_t chain, uint32_t count)
{
    struct weft_key keys[CHAIN];
    size_t there = 0;
    keys_of(f, chain, count, keys);
    assert_int_equal(weft_match_keys(f, keys, count, &there), WEFT_OK);
    return (uint32_t)there;
}

static enum weft_status archive(struct weft_format *f, uint64_t chain, uint32_t count,
                                const char *name, struct weft_archived *out)
{
    struct weft_key keys[CHAIN];
    keys_of(f, chain, count, keys);
    return weft_archive_keys(f, name, &keys[count - 1], WAIT_MS, out);
}

/* Wait until the node has read its tiers: `count` archives are listed; returns the list. */
static json_t *archives(struct weft *w, size_t count)
{
    for (int waited = 0; waited < 10000; waited += 20) {
        char *text;
        assert_int_equal(weft_query(w, "archives", 0, &text), WEFT_OK);
        json_t *all = json_loads(text, 0, NULL), *rows = json_object_get(all, "archives");
        weft_text_free(text);
        if (json_array_size(rows) == count) {
            json_incref(rows);
            json_decref(all);
            return rows;
        }
        json_decref(all);
        weftd_sleep_ms(20);
    }
    fail_msg("there are not %zu archives", count);
    return NULL;
}

static const char *text_of(const json_t *rows, size_t at, const char *name)
{
    return json_string_value(json_object_get(json_array_get(rows, at), name));
}

static void check_listed(struct stage *s, const char *name, const char *state, uint32_t blocks)
{
    json_t *rows = archives(s->w, 1);
    assert_string_equal(text_of(rows, 0, "name"), name);
    assert_string_equal(text_of(rows, 0, "state"), state);
    assert_string_equal(text_of(rows, 0, "tier"), "nvme0");
    assert_string_equal(text_of(rows, 0, "model"), "archive");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, 0), "blocks")),
                     blocks);
    json_decref(rows);
}

/* ---------------------------------------------------------------------------------------- tests */

static void test_survives(void **state)
{
    struct stage s;
    struct weft_archived got;
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
    assert_int_equal(got.blocks, CHAIN);
    assert_int_equal(got.written, CHAIN);
    assert_int_equal(got.bytes, CHAIN * BLOCK_BYTES);
    assert_string_equal(got.name, "one");
    assert_string_equal(got.tier, "nvme0");
    stage_again(&s); /* killed right after it was said */
    check_listed(&s, "one", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    /* Again costs nothing; a block of it cannot be dropped before the archive is. */
    assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
    assert_int_equal(got.written, 0);
    assert_int_equal(got.blocks, CHAIN);
    struct weft_key first;
    size_t removed;
    keys_of(s.f, 1, 1, &first);
    assert_int_equal(weft_remove(s.f, &first, &removed), WEFT_E_BUSY);
    assert_non_null(strstr(weft_last_error(), "archive"));
    assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_OK);
    assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_E_NOT_FOUND);
    json_decref(archives(s.w, 0));
    assert_int_equal(weft_remove(s.f, &first, &removed), WEFT_OK);
    assert_int_equal(removed, CHAIN);
    stage_end(&s);
}

/* A start whose limits.below is too low for what is there leaves all of it for one that is not. */
/* Killed right after it was said: what was let go of is not found again. */
static void test_removed_for_good(void **state)
{
    struct stage s;
    struct weft_archived got;
    enum weft_status status;
    char *text;
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
        assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_OK);
        stage_again(&s);
        while ((status = weft_query(s.w, "archive one", 0, &text)) == WEFT_PENDING) {
            assert_non_null(strstr(weft_last_error(), "still reads which archives"));
            weftd_sleep_ms(2);
        }
        assert_int_equal(status, WEFT_E_NOT_FOUND);
        assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_E_NOT_FOUND);
        json_decref(archives(s.w, 0));
        (void)chain_put(s.f, 1, CHAIN);
    }
    stage_end(&s);
    /* Killed half-way it is there, and whole, or not. */
    stage_begin(&s, "8MB", "64MB", true, "WEFT_CRASH_AT=archive.removed:1");
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
    assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_E_NODE);
    stage_again(&s);
    while ((status = weft_query(s.w, "archive one", 0, &text)) == WEFT_PENDING)
        weftd_sleep_ms(2);
    if (status == WEFT_OK) {
        assert_non_null(strstr(text, "\"state\":\"ok\""));
        weft_text_free(text);
        assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_OK);
    }
    assert_int_equal(weft_archive_remove(s.w, "one"), WEFT_E_NOT_FOUND);
    stage_end(&s);
}

static enum weft_status archive_of(struct stage *s, uint64_t chain, uint32_t count,
                                   const char *name, struct weft_archived *out)
{
    assert_int_equal(chain_put(s->f, chain, count), count);
    return archive(s->f, chain, count, name, out);
}

/* An archive's state and what it waits for; chain 1 is told of among `count` archives. */
static void wait_state(struct stage *s, size_t count, const char *state, const char *tier)
{
    const char *is = NULL, *waits = NULL;
    for (int waited = 0; waited < 20000; waited += 20) {
        json_t *rows = archives(s->w, count), *row;
        size_t i;
        json_array_foreach (rows, i, row)
            if (strcmp(text_of(rows, i, "name"), "split") == 0) {
                json_t *names = json_object_get(row, "waits_for");
                is = text_of(rows, i, "state");
                waits = json_string_value(json_array_get(names, 0));
            }
        bool right = is && strcmp(is, state) == 0 &&
                     (tier ? waits && strcmp(waits, tier) == 0 : !waits);
        json_decref(rows);
        if (right)
            return;
        weftd_sleep_ms(20);
    }
    fail_msg("the archive never was %s", state);
}

/* The chain's begin is on one tier and its end on another: while the first is failed it is said to
 * be unavailable, and whole again when that is back. */
static void test_split(void **state)
{
    struct stage s;
    struct weft_archived got;
    char second[160], refuse[160], hold[160], name[16], refuses[192], holds[192];
    size_t count = 1;
    (void)state;
    as_it_is = true; /* what is full stays full */
    stage_begin(&s, "8MB", "32MB", true, NULL);
    stage_close(&s);
    assert_true(weftd_stop(&s.node));
    snprintf(second, sizeof second, "tier.nvme1.path=%s.second", s.tier);
    snprintf(refuse, sizeof refuse, "%s.refuse", s.tier);
    snprintf(hold, sizeof hold, "%s.hold", s.tier);
    snprintf(refuses, sizeof refuses, "WEFT_NVME_REFUSE=%s", refuse);
    snprintf(holds, sizeof holds, "WEFT_NVME_HOLD=%s", hold);
    const char *const variables[] = {refuses, holds, NULL};
    FILE *file = fopen(hold, "we"); /* so that the other is the nearer one */
    assert_non_null(file);
    fprintf(file, "10 %s.second", s.tier);
    fclose(file);
    const char *const more[] = {second, "tier.nvme1.size=64MB", "tier.nvme1.admit=never", NULL};
    size_t at = 0;
    while (strcmp(s.settings[at], "tiers=nvme0") != 0)
        at++;
    s.settings[at] = "tiers=nvme0,nvme1";
    while (s.settings[at])
        at++;
    memcpy(&s.settings[at], more, sizeof more);
    stage_open(&s, variables);
    assert_int_equal(archive_of(&s, 1, CHAIN / 2, "begin", &got), WEFT_OK);
    assert_string_equal(got.tier, "nvme0");
    do { /* until there is no more room there */
        snprintf(name, sizeof name, "fill%zu", count);
        assert_int_equal(archive_of(&s, 1 + count++, CHAIN / 2, name, &got), WEFT_OK);
    } while (strcmp(got.tier, "nvme0") == 0 && count < 60);
    assert_string_equal(got.tier, "nvme1");
    assert_int_equal(archive_of(&s, 1, CHAIN, "split", &got), WEFT_OK);
    assert_string_equal(got.tier, "nvme1");
    assert_int_equal(got.written, CHAIN / 2);
    wait_state(&s, count + 1, "ok", NULL);
    stage_close(&s);
    assert_true(weftd_stop(&s.node));
    stage_open(&s, variables); /* nothing in DRAM keeps it */
    wait_state(&s, count + 1, "ok", NULL);

    file = fopen(refuse, "we");
    assert_non_null(file);
    fprintf(file, "5 %s", s.tier);
    fclose(file);
    while (present(s.f, 1, CHAIN)) { /* until it is seen to be failed */
        struct weft_key keys[CHAIN];
        struct weft_pins pins;
        keys_of(s.f, 1, CHAIN, keys);
        if (weft_get_keys(s.f, keys, CHAIN, WEFT_BLOCK_ORDER, &pins) == WEFT_OK) {
            if (pins.blocks && weft_wait_block(&pins, 0) == WEFT_OK)
                assert_true(payload_right(pins.data[0], BLOCK_BYTES, keys[0].bytes));
            weft_pins_release(&pins);
        }
        weftd_sleep_ms(10);
    }
    wait_state(&s, count + 1, "unavailable", "nvme0");
    unlink(refuse);
    wait_state(&s, count + 1, "ok", NULL);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    snprintf(second, sizeof second, "%s.second", s.tier);
    unlink(hold);
    stage_end(&s);
    unlink(second);
}

static void test_limited(void **state)
{
    enum { CHAINS = 100 }; /* x CHAIN are more than the least limit, 1024 */
    struct stage s;
    struct weft_archived got;
    char name[32];
    size_t at = 0;
    (void)state;
    stage_begin(&s, "8MB", "256MB", true, NULL);
    for (uint64_t chain = 0; chain < CHAINS; chain++) {
        snprintf(name, sizeof name, "limited%llu", (unsigned long long)chain);
        assert_int_equal(chain_put(s.f, chain, CHAIN), CHAIN);
        assert_int_equal(archive(s.f, chain, CHAIN, name, &got), WEFT_OK);
    }
    while (s.settings[at])
        at++;
    s.settings[at] = "limits.below=1024";
    stage_again(&s);
    json_decref(archives(s.w, CHAINS));
    uint32_t there = 0;
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        there += chain_get(s.f, chain, CHAIN);
    assert_in_range(there, 1, 1024);
    s.settings[at] = NULL;
    stage_close(&s);
    assert_true(weftd_stop(&s.node)); /* what it removed, it removed for good */
    stage_open(&s, NULL);
    json_decref(archives(s.w, CHAINS));
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(chain_get(s.f, chain, CHAIN), CHAIN);
    stage_end(&s);
}

/* What lies on a tier that may not hold archives, and is in DRAM no more, is copied to one that
 * may. */
static void test_copied(void **state)
{
    struct stage s;
    struct weft_archived got;
    struct weft_key keys[CHAIN];
    struct weft_pin pin;
    char cxl[160];
    size_t at = 0;
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    snprintf(cxl, sizeof cxl, "tier.cxl0.path=file-emulation:%s/cxl0", s.node.directory);
    /* Tiers are ranked by what they measured of themselves, and in a slow build cxl0, whose work is
     * the processor's, is the slower one: so nvme0 takes nothing but archives. */
    const char *const near[] = {"tiers=cxl0,nvme0",        "tier.cxl0.kind=cxl",
                                "tier.cxl0.size=16MB",     cxl,
                                "tier.cxl0.archive=false", "tier.cxl0.admit=always",
                                "tier.nvme0.admit=never"};
    while (s.settings[at])
        at++;
    memcpy(&s.settings[at], near, sizeof near);
    stage_again(&s);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    for (uint64_t chain = 2; chain < 14; chain++) /* more than DRAM holds, less than both do */
        assert_int_equal(chain_put(s.f, chain, CHAIN), CHAIN);
    keys_of(s.f, 1, CHAIN, keys);
    assert_int_equal(present(s.f, 1, CHAIN), CHAIN);
    for (uint32_t i = 0; i < CHAIN; i++) /* all below */
        assert_int_equal(weft_pin(s.f, &keys[i], &pin), WEFT_MISS);
    assert_int_equal(archive(s.f, 1, CHAIN, "copied", &got), WEFT_OK);
    assert_int_equal(got.written, CHAIN);
    assert_string_equal(got.tier, "nvme0");
    /* Nothing of it is needed of the other: without that tier it is whole. */
    s.settings[at] = "tiers=nvme0";
    s.settings[at + 1] = NULL;
    stage_again(&s);
    check_listed(&s, "copied", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    /* And with it again, nothing has changed. */
    memcpy(&s.settings[at], near, sizeof near);
    stage_again(&s);
    check_listed(&s, "copied", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    stage_end(&s);
}

static void test_replaced(void **state)
{
    struct stage s;
    struct weft_archived got;
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, 5, "grows", &got), WEFT_OK);
    assert_int_equal(got.written, 5);
    check_listed(&s, "grows", "ok", 5);
    assert_int_equal(archive(s.f, 1, CHAIN, "grows", &got), WEFT_OK);
    assert_int_equal(got.written, CHAIN - 5);
    assert_int_equal(got.blocks, CHAIN);
    check_listed(&s, "grows", "ok", CHAIN);
    stage_again(&s);
    check_listed(&s, "grows", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    stage_end(&s);
}

/* Other chains push it out of DRAM, and then fill the tier several times over. */
static void test_pressure(void **state)
{
    struct stage s;
    struct weft_archived got;
    uint32_t others = 0;
    (void)state;
    stage_begin(&s, "2MB", "24MB", true, NULL);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    for (uint64_t chain = 2; chain < 4; chain++) /* now some of it may be below already */
        chain_put(s.f, chain, CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "kept", &got), WEFT_OK);
    for (uint64_t chain = 10; chain < 90; chain++) {
        chain_put(s.f, chain, CHAIN);
        weftd_sleep_ms(2);
    }
    for (uint64_t chain = 10; chain < 90; chain++)
        others += present(s.f, chain, CHAIN) == CHAIN;
    print_message("# of 80 chains that came later, %u are there\n", others);
    assert_true(others < 60); /* or there was no pressure */
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    check_listed(&s, "kept", "ok", CHAIN);
    stage_again(&s);
    check_listed(&s, "kept", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    stage_end(&s);
}

/* Half of the chain is below and half is not; what is there already is not written again. */
static void test_partly_below(void **state)
{
    struct stage s;
    struct weft_archived got;
    struct weft_session *session;
    struct weft_match match;
    struct weft_fill fill;
    uint32_t tokens[CHAIN * 4 + 1];
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    for (uint32_t i = 0; i < CHAIN * 4 + 1; i++)
        tokens[i] = i;
    struct weft_session_spec spec = {.name = "talk", .priority = 5};
    assert_int_equal(weft_session_open(s.f, &spec, &session), WEFT_OK);
    assert_int_equal(weft_archive(session, 0, &got), WEFT_E_INVALID); /* no chain */
    for (uint32_t half = 0; half < 2; half++) {
        size_t from = half * CHAIN / 2 * 4, upto = (half + 1) * CHAIN / 2 * 4;
        assert_int_equal(weft_reserve(session, tokens, from, upto, &fill), WEFT_OK);
        for (uint32_t i = 0; i < fill.blocks; i++)
            memset(fill.slots[i].data, (int)(1 + half * CHAIN / 2 + i), BLOCK_BYTES);
        assert_int_equal(weft_commit(&fill), WEFT_OK);
        if (half == 0)
            assert_int_equal(weft_demote(session), WEFT_OK);
        if (half == 0) /* it is below; its next block needs its parent */
            assert_int_equal(weft_match(session, tokens, CHAIN / 2 * 4 + 1, &match), WEFT_OK);
        if (half == 0) {
            struct weft_pins pins;
            assert_int_equal(weft_get(session, &match, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
            assert_int_equal(pins.blocks, CHAIN / 2);
            assert_int_equal(weft_wait_block(&pins, CHAIN / 2 - 1), WEFT_OK);
            weft_pins_release(&pins);
        }
    }
    assert_int_equal(weft_archive(session, WAIT_MS, &got), WEFT_OK);
    assert_int_equal(got.blocks, CHAIN);
    assert_int_equal(got.written, CHAIN / 2);
    assert_string_equal(got.name, "talk");
    weft_session_close(session);
    /* All of it below only, and archived under another name: nothing is written. */
    assert_int_equal(weft_session_open(s.f, NULL, &session), WEFT_OK);
    assert_int_equal(weft_match(session, tokens, CHAIN * 4 + 1, &match), WEFT_OK);
    assert_int_equal(match.blocks, CHAIN);
    assert_int_equal(weft_demote(session), WEFT_OK);
    assert_int_equal(weft_archive(session, WAIT_MS, &got), WEFT_OK);
    assert_int_equal(got.written, 0);
    assert_memory_equal(got.name, "session-", 8);
    assert_int_equal(strlen(got.name), 24);
    weft_session_close(session);
    json_decref(archives(s.w, 2));
    stage_again(&s);
    json_decref(archives(s.w, 2));
    assert_int_equal(weft_session_open(s.f, &spec, &session), WEFT_OK);
    assert_int_equal(weft_match(session, tokens, CHAIN * 4 + 1, &match), WEFT_OK);
    assert_int_equal(match.blocks, CHAIN);
    struct weft_pins pins;
    assert_int_equal(weft_get(session, &match, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, CHAIN);
    for (uint32_t i = 0; i < CHAIN; i++) {
        assert_int_equal(weft_wait_block(&pins, i), WEFT_OK);
        for (uint32_t at = 0; at < BLOCK_BYTES; at += 97)
            assert_int_equal(pins.data[i][at], 1 + i);
    }
    weft_pins_release(&pins);
    weft_session_close(session);
    stage_end(&s);
}

static void test_refused(void **state)
{
    struct stage s;
    struct weft_archived got;
    (void)state;
    stage_begin(&s, "8MB", "64MB", false, NULL);
    assert_int_equal(chain_put(s.f, 1, 2), 2);
    assert_int_equal(archive(s.f, 1, 2, "one", &got), WEFT_E_INVALID);
    assert_non_null(strstr(weft_last_error(), "no tier that may hold archives"));
    assert_int_equal(archive(s.f, 1, 2, "", &got), WEFT_E_INVALID);
    assert_int_equal(archive(s.f, 1, 2, "a\nb", &got), WEFT_E_INVALID);
    stage_end(&s);

    stage_begin(&s, "64MB", "24MB", true, NULL);
    for (uint64_t chain = 1; chain < 40; chain++) /* the last ones find no room for archives */
        assert_int_equal(chain_put(s.f, chain, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 99, 2, "one", &got), WEFT_E_NOT_FOUND);
    uint32_t made = 0;
    enum weft_status status = WEFT_OK;
    for (uint64_t chain = 1; chain < 40 && status == WEFT_OK; chain++) {
        char name[16];
        snprintf(name, sizeof name, "chain%u", (unsigned)chain);
        status = archive(s.f, chain, CHAIN, name, &got);
        made += status == WEFT_OK;
    }
    print_message("# %u archives of %d bytes fit a tier of 24 MiB: %s\n", made, CHAIN * BLOCK_BYTES,
                  weft_last_error());
    assert_int_equal(status, WEFT_FULL);
    assert_true(made > 5); /* two domains: a half of it is for either */
    assert_non_null(strstr(weft_last_error(), "nvme0"));
    /* What was said to be durable is not worse for it. */
    stage_again(&s);
    json_t *rows = archives(s.w, made);
    for (uint32_t i = 0; i < made; i++)
        assert_string_equal(text_of(rows, i, "state"), "ok");
    json_decref(rows);
    for (uint64_t chain = 1; chain <= made; chain++)
        assert_int_equal(chain_get(s.f, chain, CHAIN), CHAIN);
    assert_int_equal(weft_archive_remove(s.w, "chain1"), WEFT_OK);
    assert_int_equal(chain_put(s.f, 50, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 50, CHAIN, "later", &got), WEFT_OK);
    stage_end(&s);
}

/* The node dies at one of its points: no archive, or a whole one; asked again, it is made. */
static void test_killed(void **state)
{
    static const char *const points[] = {"archive.written", "archive.flushed", "archive.manifest"};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct stage s;
        struct weft_archived got;
        char crash_at[64];
        snprintf(crash_at, sizeof crash_at, "WEFT_CRASH_AT=%s:1", points[i]);
        stage_begin(&s, "8MB", "64MB", true, crash_at);
        assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
        assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_E_NODE);
        int end = weftd_wait(&s.node, 2000);
        if (end == -1 || !WIFSIGNALED(end) || WTERMSIG(end) != SIGKILL)
            fail_msg("%s killed nobody: status %d", crash_at, end);
        stage_again(&s);
        json_decref(archives(s.w, i == 2));
        uint32_t there = present(s.f, 1, CHAIN);
        print_message("# after %s %u of %d blocks were found\n", points[i], there, CHAIN);
        assert_int_equal(chain_get(s.f, 1, CHAIN), there);
        assert_true(i == 0 || there == CHAIN);
        assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
        assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
        assert_int_equal(got.written, i == 2 ? 0 : CHAIN - there);
        check_listed(&s, "one", "ok", CHAIN);
        stage_end(&s);
    }
}

/* Flip bytes of the medium under a stopped node, wherever `needle` is found. */
static uint32_t damage(const char *path, const void *needle, size_t length, size_t at)
{
    uint32_t hits = 0;
    FILE *file = fopen(path, "r+be");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    size_t bytes = (size_t)ftell(file);
    uint8_t *all = malloc(bytes);
    assert_non_null(all);
    rewind(file);
    assert_int_equal(fread(all, 1, bytes, file), bytes);
    for (size_t i = 0; i + length + at < bytes; i += 8) {
        if (memcmp(all + i, needle, length) != 0)
            continue;
        uint8_t wrong = (uint8_t)~all[i + at];
        fseek(file, (long)(i + at), SEEK_SET);
        fwrite(&wrong, 1, 1, file);
        hits++;
    }
    free(all);
    fclose(file);
    return hits;
}

/* A manifest, or a block, that rotted is told of and does no harm; what is whole stays. */
static void test_damaged(void **state)
{
    struct stage s;
    struct weft_archived got;
    uint8_t payload[BLOCK_BYTES];
    struct weft_key keys[CHAIN];
    (void)state;
    as_it_is = true;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    for (uint64_t chain = 1; chain <= 2; chain++)
        assert_int_equal(chain_put(s.f, chain, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
    assert_int_equal(archive(s.f, 2, CHAIN, "two", &got), WEFT_OK);
    keys_of(s.f, 2, CHAIN, keys);
    stage_close(&s);
    weftd_kill(&s.node);
    payload_fill(payload, BLOCK_BYTES, keys[4].bytes);
    assert_true(damage(s.tier, payload, 512, 100) >= 1);
    stage_open(&s, NULL);
    json_decref(archives(s.w, 2));
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    struct weft_pins pins;
    assert_int_equal(weft_get_keys(s.f, keys, CHAIN, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    if (pins.blocks > 4) /* found when it is read, unless the tier looked when it was opened */
        assert_int_equal(weft_wait_block(&pins, 4), WEFT_MISS);
    assert_true(pins.blocks >= 4);
    weft_pins_release(&pins);
    json_t *rows = archives(s.w, 2);
    char *text;
    assert_int_equal(weft_query(s.w, "archive two", 0, &text), WEFT_OK); /* looks at it */
    weft_text_free(text);
    json_decref(rows);
    rows = archives(s.w, 2);
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(text_of(rows, i, "state"),
                            strcmp(text_of(rows, i, "name"), "one") == 0 ? "ok" : "damaged");
    json_decref(rows);
    /* Put and archived again, it is whole. */
    assert_int_equal(chain_put(s.f, 2, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 2, CHAIN, "two", &got), WEFT_OK);
    assert_true(got.written >= 1);
    stage_close(&s);
    weftd_kill(&s.node);
    assert_true(damage(s.tier, "WFARCHIV", 8, 60) >= 1);
    stage_open(&s, NULL);
    json_decref(archives(s.w, 0));
    wait_event(s.w, "archive_lost");
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "one", &got), WEFT_OK);
    stage_again(&s);
    check_listed(&s, "one", "ok", CHAIN);
    stage_end(&s);
}

/* Fields that lie, and another domain's chain and archive: refused, and nobody else notices. */
static void test_strangers(void **state)
{
    struct stage s;
    struct weft_archived got;
    struct weft_key keys[CHAIN];
    struct raw raw;
    char *text;
    (void)state;
    stage_begin(&s, "8MB", "64MB", true, NULL);
    assert_int_equal(chain_put(s.f, 1, CHAIN), CHAIN);
    assert_int_equal(archive(s.f, 1, CHAIN, "ours", &got), WEFT_OK);
    keys_of(s.f, 1, CHAIN, keys);

    assert_int_equal(raw_hello(&raw, &s.node, "guest"), WEFT_OK);
    uint32_t format = raw_format(&raw, "archive", BLOCK_BYTES);
    struct wf_archive request = {.format = format, .name = "theirs"};
    memcpy(request.tip, keys[CHAIN - 1].bytes, 32);
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_NOT_FOUND);
    request.format = UINT32_MAX;
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_INVALID);
    request.format = format;
    memset(request.name, 'x', sizeof request.name);
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_PROTOCOL);
    request.name[65] = '\0';
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_INVALID);
    memset(request.name, 0xff, 32);
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_INVALID);
    memset(&request, 0, sizeof request);
    request.flags = WF_ARCHIVE_REMOVE;
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_INVALID);
    memcpy(request.name, "ours", 5);
    assert_int_equal(raw_ask(&raw, &request, WF_OP_ARCHIVE, sizeof request), WEFT_E_NOT_FOUND);
    raw_close(&raw);

    struct weft *guest = weftd_connect(&s.node, "guest");
    assert_non_null(guest);
    json_decref(archives(guest, 0));
    assert_int_equal(weft_query(guest, "archive ours", 0, &text), WEFT_E_NOT_FOUND);
    weft_close(guest);
    check_listed(&s, "ours", "ok", CHAIN);
    assert_int_equal(chain_get(s.f, 1, CHAIN), CHAIN);
    stage_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_survives), cmocka_unit_test(test_limited),
        cmocka_unit_test(test_copied),   cmocka_unit_test(test_split),
        cmocka_unit_test(test_replaced), cmocka_unit_test(test_removed_for_good),
        cmocka_unit_test(test_pressure), cmocka_unit_test(test_partly_below),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_killed),
        cmocka_unit_test(test_damaged),  cmocka_unit_test(test_strangers),
    };
    return cmocka_run_group_tests_name("archive", tests, NULL, NULL);
}
