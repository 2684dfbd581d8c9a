/* SPDX-License-Identifier: Apache-2.0
 *
 * One node with a pool that is always too small, writers, readers and sessions in processes of
 * their own, and a hand that kills some of them at random.
 *
 * Every block's bytes follow from its key, so that a reader can check each byte of what it holds
 * while blocks are evicted around, and under, it.  A chain whose session is decoding must be there
 * in full, all the time.  In the end nobody has seen a wrong byte, and the node has nothing
 * reserved and no client left but the one that asks.
 *
 *   STRESS_SECONDS=10   how long
 *   STRESS_WRITES=      direct, copied: the kind of domain; below: direct, with an NVMe tier below
 * a pool that has room for a tenth of the data, so that most gets are loads
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 32768
#define BLOCK_TOKENS 4
#define DEPTH 12  /* blocks a chain */
#define CHAINS 48 /* together three times the pool */
#define CHAINS_BELOW 320
#define DECODING 4 /* blocks of a decoding session's chain */
#define WORKERS 7

enum role { WRITER, READER, DECODER };
static const enum role roles[WORKERS] = {WRITER, WRITER, READER, READER, READER, DECODER, DECODER};

/* What the processes tell the test; every field is written by many. */
struct tally {
    _Atomic bool stop;
    _Atomic uint64_t puts, full, duplicates, gets, misses, bytes_checked, decoded, deaths;
    _Atomic uint64_t loads, lost_on_the_way;
    _Atomic uint64_t wrong_bytes, lost_chains, errors;
    char error[256]; /* of the first */
};
static struct tally *tally;
static uint32_t chains = CHAINS;

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void error(const char *call, enum weft_status status)
{
    if (atomic_fetch_add(&tally->errors, 1) == 0)
        snprintf(tally->error, sizeof tally->error, "%s: %s: %s", call, weft_status_name(status),
                 weft_last_error());
}

static void chain_tokens(uint32_t chain, uint32_t blocks, uint32_t *tokens)
{
    for (uint32_t i = 0; i < blocks * BLOCK_TOKENS; i++)
        tokens[i] = i < BLOCK_TOKENS ? chain % 8 : chain * 1000 + i; /* some share a beginning */
}

static void fill(struct weft_format *f, const struct weft_fill *put, const uint32_t *tokens)
{
    struct weft_key keys[DEPTH];
    if (weft_keys_from_tokens(f, NULL, tokens,
                              ((size_t)put->first_block + put->blocks) * BLOCK_TOKENS, NULL,
                              keys) != WEFT_OK)
        return; /* what is committed then is found to be wrong */
    for (uint32_t i = 0; i < put->blocks; i++)
        if (put->slots[i].status == WEFT_OK)
            payload_fill(put->slots[i].data, BLOCK_BYTES, keys[put->first_block + i].bytes);
}

static void write_chain(struct weft_format *f, struct weft_session *s, struct random_source *r)
{
    uint32_t tokens[DEPTH * BLOCK_TOKENS + 1] = {0};
    uint32_t blocks = 1 + random_below(r, DEPTH);
    struct weft_match match;
    struct weft_fill put;
    chain_tokens(random_below(r, chains), blocks, tokens);
    enum weft_status status = weft_match(s, tokens, blocks * BLOCK_TOKENS + 1, &match);
    if (status == WEFT_OK)
        status = weft_reserve(s, tokens, match.tokens, blocks * BLOCK_TOKENS, &put);
    if (status == WEFT_E_PARENT)
        return; /* what was matched has gone meanwhile */
    if (status != WEFT_OK) {
        error("reserve", status);
        return;
    }
    add(&tally->full, put.full);
    add(&tally->duplicates, put.existing);
    add(&tally->puts, put.reserved);
    if (random_below(r, 10) == 0) {
        weft_abort(&put);
        return;
    }
    fill(f, &put, tokens);
    status = weft_commit(&put);
    if (status != WEFT_OK)
        error("commit", status);
}

/* Hold a chain for a while and check all of it, before and after others have put more. */
static void read_chain(struct weft_format *f, struct weft_session *s, struct random_source *r)
{
    uint32_t tokens[DEPTH * BLOCK_TOKENS + 1] = {0};
    struct weft_key keys[DEPTH];
    struct weft_match match;
    struct weft_pins pins;
    chain_tokens(random_below(r, chains), DEPTH, tokens);
    enum weft_status status = weft_match(s, tokens, DEPTH * BLOCK_TOKENS + 1, &match);
    if (status == WEFT_OK)
        status = weft_keys_from_tokens(f, NULL, tokens, DEPTH * BLOCK_TOKENS, NULL, keys);
    if (status == WEFT_OK)
        status = weft_get(s, &match, random_below(r, 2) ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER,
                          &pins);
    if (status != WEFT_OK) {
        error("get", status);
        return;
    }
    add(pins.blocks ? &tally->gets : &tally->misses, 1);
    add(&tally->loads, pins.blocks - pins.loading);
    for (uint32_t i = pins.loading; i < pins.blocks && status == WEFT_OK; i++)
        status = weft_wait_block(&pins, i);
    if (status == WEFT_MISS)
        add(&tally->lost_on_the_way, 1);
    else if (status != WEFT_OK)
        error("wait", status);
    for (int look = 0; look < 2; look++) {
        for (uint32_t i = 0; i < (status == WEFT_OK ? pins.blocks : pins.loading); i++)
            if (!payload_right(pins.data[i], BLOCK_BYTES, keys[i].bytes))
                add(&tally->wrong_bytes, 1);
        add(&tally->bytes_checked, (uint64_t)pins.blocks * BLOCK_BYTES);
        if (look == 0 && random_below(r, 4) == 0)
            weftd_sleep_ms(5);
    }
    weft_pins_release(&pins);
}

/* A chain of our own: put it, decode on it, and look for it again and again. */
static void decode_chain(struct weft_format *f, struct weft_session *s, struct random_source *r)
{
    uint32_t tokens[DECODING * BLOCK_TOKENS + 1] = {0};
    struct weft_match match;
    struct weft_fill put;
    chain_tokens(100000 + (uint32_t)random_next(r) % 1000000, DECODING, tokens);
    enum weft_status status = weft_reserve(s, tokens, 0, DECODING * BLOCK_TOKENS, &put);
    if (status != WEFT_OK) {
        error("reserve", status);
        return;
    }
    bool all = put.full == 0;
    fill(f, &put, tokens);
    status = weft_session_hint(s, WEFT_DECODING, NULL);
    if (status == WEFT_OK)
        status = weft_commit(&put);
    else
        weft_abort(&put);
    for (int look = 0; status == WEFT_OK && all && look < 200; look++) {
        status = weft_match(s, tokens, DECODING * BLOCK_TOKENS + 1, &match);
        if (status == WEFT_OK && match.blocks != DECODING)
            add(&tally->lost_chains, 1);
        add(&tally->decoded, 1);
        if (look % 50 == 49)
            weftd_sleep_ms(1);
    }
    if (status == WEFT_OK)
        status = weft_session_hint(s, WEFT_DONE, NULL);
    if (status != WEFT_OK)
        error("decode", status);
}

static int work(const struct weftd *node, enum role role, uint64_t seed)
{
    struct random_source r = {seed};
    struct weft_session *s = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct weft *w = weftd_connect(node, "default");
    struct weft_format *f = w ? weftd_format(w, "stress", BLOCK_BYTES) : NULL;
    struct weft_session_spec spec = {.priority = random_below(&r, 10)};
    if (!f || weft_session_open(f, &spec, &s) != WEFT_OK) {
        error("start", WEFT_E_NODE);
        return 1;
    }
    while (!atomic_load_explicit(&tally->stop, memory_order_relaxed))
        switch (role) {
        case WRITER: write_chain(f, s, &r); break;
        case READER: read_chain(f, s, &r); break;
        case DECODER: decode_chain(f, s, &r); break;
        }
    weft_session_close(s);
    weft_format_close(f);
    weft_close(w);
    return 0;
}

static pid_t spawn(const struct weftd *node, enum role role, uint64_t seed)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(work(node, role, seed));
    assert_true(pid > 0);
    return pid;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void torment(struct weftd *node, struct random_source *r, double seconds)
{
    pid_t pids[WORKERS];
    double end = now_s() + seconds;
    for (int i = 0; i < WORKERS; i++)
        pids[i] = spawn(node, roles[i], random_next(r));
    while (now_s() < end) {
        weftd_sleep_ms(20 + (int)random_below(r, 150));
        uint32_t victim = random_below(r, WORKERS);
        kill(pids[victim], SIGKILL);
        assert_int_equal(waitpid(pids[victim], NULL, 0), pids[victim]);
        add(&tally->deaths, 1);
        pids[victim] = spawn(node, roles[victim], random_next(r));
    }
    atomic_store(&tally->stop, true);
    for (int i = 0; i < WORKERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

static void test_stress(void **state)
{
    (void)state;
    const char *given = getenv("STRESS_SECONDS"), *writes = getenv("STRESS_WRITES");
    double seconds = given ? strtod(given, NULL) : 10;
    char kind[64], tier[128];
    struct weftd node;
    struct random_source r = random_seeded("stress");
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(tally, MAP_FAILED);
    bool below = writes && strcmp(writes, "below") == 0;
    snprintf(kind, sizeof kind, "domain.default.writes=%s", writes && !below ? writes : "direct");
    weftd_prepare(&node);
    snprintf(tier, sizeof tier, "tier.nvme0.path=%s/tier", node.directory);
    chains = below ? CHAINS_BELOW : CHAINS;
    const char *const settings[] = {"pool.size=12MB",
                                    "pool.size_max=12MB",
                                    "staging=1MB",
                                    "limits.pins=256",
                                    kind,
                                    below ? "tiers=nvme0" : NULL,
                                    tier,
                                    "tier.nvme0.size=128MB",
                                    NULL};
    assert_true(weftd_start(&node, settings, NULL));
    torment(&node, &r, seconds);
    struct weft *w = weftd_connect(&node, "default");
    assert_non_null(w);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    int64_t evicted = weftd_number(w, "default", "evicted.room") +
                      weftd_number(w, "default", "evicted.quota");
    print_message("# %llu blocks put, %llu evicted, %llu duplicates, %llu full; %llu gets, %llu "
                  "misses, %.1f MB checked; %llu looks while decoding; %llu deaths\n",
                  (unsigned long long)tally->puts, (unsigned long long)evicted,
                  (unsigned long long)tally->duplicates, (unsigned long long)tally->full,
                  (unsigned long long)tally->gets, (unsigned long long)tally->misses,
                  (double)tally->bytes_checked / 1e6, (unsigned long long)tally->decoded,
                  (unsigned long long)tally->deaths);
    if (below)
        print_message("# %llu blocks were loaded, %llu loads were lost\n",
                      (unsigned long long)tally->loads, (unsigned long long)tally->lost_on_the_way);
    if (tally->errors)
        fail_msg("%llu errors, the first: %s", (unsigned long long)tally->errors, tally->error);
    assert_int_equal(tally->wrong_bytes, 0);
    assert_int_equal(tally->lost_chains, 0);
    assert_true(weftd_settles(w, "default", "blocks_reserved", 0)); /* loads arrive */
    assert_int_equal(weftd_number(w, "default", "sessions"), 0);
    assert_int_equal(weftd_number(w, "default", "corrupt"), 0);
    /* It was a stress: blocks went, hits came, chains were looked at. */
    assert_true(!below || tally->loads > 0);
    assert_true(evicted > 0 && tally->gets > 0 && tally->decoded > 0 && tally->deaths > 0);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stress)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
