/* SPDX-License-Identifier: Apache-2.0
 *
 * Thirty-two clients of two domains storm a node whose pool and tiers have room for a part of what
 * they put: put, get, prefetch, demote, wait for a tool, archive, remove; some are killed and some
 * are stopped in the middle of it.  Then the node is told to stop, every other time under that
 * load, which it must do in bounded time, and is started again on what it left.
 *
 * One of them writes into the pool, the other has its writes copied.  Both use the same tokens, and
 * each writes bytes of its own under them, so that a block of the other domain is told from one's
 * own.  No byte is wrong, ever; every archive that was said to be durable is there whole after each
 * start; and when the clients have gone, the node has as many descriptors as before, and nothing
 * reserved.
 *
 *   STORM_SECONDS=3   of a round
 *   STORM_ROUNDS=2
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 65536
#define DEPTH 8
#define CHAINS 160
#define WORKERS 32
#define DOMAINS 2
#define ARCHIVES 8 /* names a domain */
#define STOP_MS_MAX 20000

static const char *const names[DOMAINS] = {"default", "guest"};

/* What the processes tell the test; every field is written by many. */
struct tally {
    _Atomic bool stop, ending; /* ending: the node was told to */
    _Atomic uint64_t puts, gets, loads, lost, prefetched, demoted, archived, removed;
    _Atomic uint64_t wrong_bytes, errors;
    /* By domain and name: 1 + the chain that was said to be durable; 0: none, or it is not known.
     */
    _Atomic uint32_t durable[DOMAINS][ARCHIVES];
    char error[256]; /* of the first */
};
static struct tally *tally;

struct worker {
    struct weft *w;
    struct weft_format *f;
    struct weft_session *s;
    uint32_t domain;
    struct random_source r;
};

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* What a node under storm may say; everything else is an error. */
static bool good(const char *call, enum weft_status status)
{
    if (status >= 0 || status == WEFT_E_BUSY || status == WEFT_E_PARENT ||
        status == WEFT_E_NOT_FOUND || status == WEFT_E_NODE)
        return status == WEFT_OK;
    if (atomic_fetch_add(&tally->errors, 1) == 0)
        snprintf(tally->error, sizeof tally->error, "%s: %s: %s", call, weft_status_name(status),
                 weft_last_error());
    return false;
}

static enum weft_status keys_of(const struct worker *w, uint32_t chain, uint32_t count,
                                struct weft_key *keys)
{
    enum weft_status status = WEFT_OK;
    for (uint32_t i = 0; i < count && status == WEFT_OK; i++) {
        /* Some chains share a beginning. */
        uint64_t name[2] = {i < 2 ? chain % 16 : chain, i};
        status = weft_key_from_bytes(w->f, name, sizeof name, &keys[i]);
    }
    return status;
}

static void put(struct worker *w, uint32_t chain, uint32_t count)
{
    struct weft_key keys[DEPTH];
    struct weft_slot slots[DEPTH];
    if (!good("keys", keys_of(w, chain, count, keys)) ||
        !good("reserve", weft_reserve_keys(w->f, NULL, keys, count, WEFT_CHAINED, slots)))
        return;
    for (uint32_t i = 0; i < count; i++) {
        add(&tally->puts, slots[i].status == WEFT_OK);
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, BLOCK_BYTES, keys[i].bytes);
    }
    (void)good("commit", weft_commit_slots(w->f, slots, count));
}

/* How many blocks of the chain came, all bytes of them right. */
static uint32_t get(struct worker *w, uint32_t chain, uint32_t count)
{
    struct weft_key keys[DEPTH];
    struct weft_pins pins;
    enum weft_order order = random_below(&w->r, 2) ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER;
    if (!good("keys", keys_of(w, chain, count, keys)) ||
        !good("get", weft_get_keys(w->f, keys, count, order, &pins)))
        return 0;
    uint32_t there = 0;
    for (; there < pins.blocks; there++) {
        enum weft_status status = weft_wait_block(&pins, there);
        if (status != WEFT_OK) {
            add(&tally->lost, status == WEFT_MISS);
            (void)good("wait", status);
            break;
        }
        if (!payload_right(pins.data[there], BLOCK_BYTES, keys[there].bytes))
            add(&tally->wrong_bytes, 1);
    }
    add(&tally->gets, there > 0);
    add(&tally->loads, there > pins.loading ? there - pins.loading : 0);
    weft_pins_release(&pins);
    return there;
}

static void archive(struct worker *w, uint32_t chain, uint32_t name)
{
    char text[32];
    struct weft_key keys[DEPTH];
    struct weft_archived archived;
    _Atomic uint32_t *durable = &tally->durable[w->domain][name];
    snprintf(text, sizeof text, "archive %u", name);
    if (!good("keys", keys_of(w, chain, DEPTH, keys)))
        return;
    atomic_store(durable, 0);
    if (random_below(&w->r, 4) == 0) {
        (void)good("archive remove", weft_archive_remove(w->w, text));
        return;
    }
    enum weft_status status = weft_archive_keys(w->f, text, &keys[DEPTH - 1], 1500, &archived);
    if (good("archive", status)) {
        atomic_store(durable, chain + 1);
        add(&tally->archived, 1);
    }
}

static void away(struct worker *w, uint32_t chain)
{
    uint32_t tokens[DEPTH * 4 + 1] = {0}, blocks = 0;
    struct weft_fill fill;
    struct weft_key keys[DEPTH];
    struct weft_hint hint = {.returns_in_ms = 30};
    for (uint32_t i = 0; i < DEPTH * 4; i++)
        tokens[i] = chain * 100 + i;
    if (!good("session reserve", weft_reserve(w->s, tokens, 0, DEPTH * 4, &fill)) ||
        !good("session keys", weft_keys_from_tokens(w->f, NULL, tokens, DEPTH * 4, NULL, keys)))
        return;
    for (uint32_t i = 0; i < fill.blocks; i++)
        if (fill.slots[i].status == WEFT_OK)
            payload_fill(fill.slots[i].data, BLOCK_BYTES, keys[fill.first_block + i].bytes);
    if (!good("session commit", weft_commit(&fill)))
        return;
    if (random_below(&w->r, 2) ? good("hint", weft_session_hint(w->s, WEFT_WAITING, &hint))
                               : good("demote", weft_demote(w->s)))
        add(&tally->demoted, 1);
    if (good("prefetch", weft_prefetch(w->s, tokens, DEPTH * 4, 5, &blocks)))
        add(&tally->prefetched, blocks);
    (void)good("done", weft_session_hint(w->s, WEFT_DONE, NULL));
}

static void step(struct worker *w)
{
    uint32_t chain = random_below(&w->r, CHAINS), dice = random_below(&w->r, 100);
    struct weft_key keys[DEPTH];
    uint32_t begun;
    size_t removed;
    if (dice < 35) {
        put(w, chain, 1 + random_below(&w->r, DEPTH));
    } else if (dice < 75) {
        (void)get(w, chain, DEPTH);
    } else if (dice < 83) {
        if (good("keys", keys_of(w, chain, DEPTH, keys)) &&
            good("prefetch", weft_prefetch_keys(w->f, keys, DEPTH, 20, &begun)))
            add(&tally->prefetched, begun);
    } else if (dice < 95) {
        away(w, chain);
    } else if (dice < 97) {
        if (good("keys", keys_of(w, chain, DEPTH, keys)) &&
            good("remove", weft_remove(w->f, &keys[random_below(&w->r, DEPTH)], &removed)))
            add(&tally->removed, removed);
    }
}

static bool attach(struct worker *w, const struct weftd *node)
{
    w->w = weftd_connect(node, names[w->domain]);
    w->f = w->w ? weftd_format(w->w, "storm", BLOCK_BYTES) : NULL;
    return w->f && weft_session_open(w->f, NULL, &w->s) == WEFT_OK;
}

static void detach(struct worker *w)
{
    weft_session_close(w->s);
    weft_format_close(w->f);
    weft_close(w->w);
}

/* Number 0 and 1 are the ones that archive, so that it is known what is durable. */
static int work(const struct weftd *node, uint32_t number, uint64_t seed)
{
    struct worker w = {.domain = number % DOMAINS, .r = {seed}};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!attach(&w, node)) {
        if (!atomic_load(&tally->ending))
            (void)good("start", WEFT_E_SYSTEM);
        return 1;
    }
    while (!atomic_load_explicit(&tally->stop, memory_order_relaxed)) {
        if (number < DOMAINS) {
            uint32_t chain = random_below(&w.r, CHAINS);
            put(&w, chain, DEPTH);
            archive(&w, chain, random_below(&w.r, ARCHIVES));
        } else {
            step(&w);
        }
    }
    detach(&w);
    return 0;
}

static pid_t spawn(const struct weftd *node, uint32_t number, uint64_t seed)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(work(node, number, seed));
    assert_true(pid > 0);
    return pid;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int descriptors_of(const struct weftd *node)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)node->pid);
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

static void end_all(const pid_t pids[WORKERS])
{
    atomic_store(&tally->stop, true);
    for (uint32_t i = 0; i < WORKERS; i++) {
        kill(pids[i], SIGKILL);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    }
}

/* Everybody has gone: nothing is left of them. */
static void check_empty(const struct weftd *node, int descriptors)
{
    struct weft *w = weftd_connect(node, "default");
    assert_non_null(w);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    assert_int_equal(descriptors_of(node), descriptors);
    for (uint32_t d = 0; d < DOMAINS; d++) {
        assert_true(weftd_settles(w, names[d], "blocks_reserved", 0));
        assert_int_equal(weftd_number(w, names[d], "sessions"), 0);
    }
    weft_close(w);
}

/* The storm, and then the node is told to stop; how long that took.  `under_load`: in the middle of
 * it. */
static double storm(struct weftd *node, struct random_source *r, double seconds, int descriptors,
                    bool under_load)
{
    pid_t pids[WORKERS];
    double end = now_s() + seconds;
    atomic_store(&tally->stop, false);
    atomic_store(&tally->ending, false);
    for (uint32_t i = 0; i < WORKERS; i++)
        pids[i] = spawn(node, i, random_next(r));
    while (now_s() < end) {
        uint32_t victim = DOMAINS + random_below(r, WORKERS - DOMAINS);
        weftd_sleep_ms(10 + (int)random_below(r, 50));
        if (random_below(r, 3) == 0) {
            kill(pids[victim], SIGSTOP);
            weftd_sleep_ms(100);
            kill(pids[victim], SIGCONT);
            continue;
        }
        kill(pids[victim], SIGKILL);
        assert_int_equal(waitpid(pids[victim], NULL, 0), pids[victim]);
        pids[victim] = spawn(node, victim, random_next(r));
    }
    atomic_store(&tally->ending, true);
    if (!under_load) {
        end_all(pids);
        check_empty(node, descriptors);
    }
    double asked = now_s();
    if (under_load)
        kill(pids[WORKERS - 1], SIGSTOP); /* one that answers nobody when the node stops */
    kill(node->pid, SIGTERM);
    int status = weftd_wait(node, STOP_MS_MAX);
    double took = now_s() - asked;
    if (under_load)
        end_all(pids);
    if (status != 0)
        weftd_show_log(node);
    assert_int_equal(status, 0);
    return took;
}

/* All that was said to be durable is there, and nothing else is wrong. */
static void check(const struct weftd *node)
{
    for (uint32_t d = 0; d < DOMAINS; d++) {
        struct worker w = {.domain = d, .r = {1}};
        assert_true(attach(&w, node));
        uint32_t whole = 0, expected = 0;
        for (uint32_t n = 0; n < ARCHIVES; n++) {
            uint32_t chain = atomic_load(&tally->durable[d][n]);
            if (!chain)
                continue;
            uint32_t there = 0;
            for (int waited = 0; there < DEPTH && waited < 10000; waited += 20) {
                there = get(&w, chain - 1, DEPTH);
                if (there < DEPTH) /* tiers open after the socket */
                    weftd_sleep_ms(20);
            }
            expected++;
            whole += there == DEPTH;
            if (there != DEPTH)
                print_message("# %s: archive %u, chain %u: %u blocks\n", names[d], n, chain - 1,
                              there);
        }
        assert_int_equal(whole, expected);
        for (uint32_t chain = 0; chain < CHAINS; chain++)
            (void)get(&w, chain, DEPTH);
        assert_true(weftd_settles(w.w, names[d], "blocks_reserved", 0));
        assert_int_equal(weftd_number(w.w, names[d], "corrupt"), 0);
        detach(&w);
    }
}

/* A node is started, stormed and stopped, and had nothing wrong. */
static void one_round(struct weftd *node, const char *const *settings, struct random_source *r,
                      long round, double seconds)
{
    if (!weftd_start(node, settings, NULL)) {
        weftd_show_log(node);
        fail_msg("the node did not start");
    }
    struct weft *w = weftd_connect(node, "default");
    assert_non_null(w);
    check(node);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    int descriptors = descriptors_of(node);
    weft_close(w);
    double took = storm(node, r, seconds, descriptors, round % 2 == 0);
    print_message("# round %ld: %d descriptors before, the stop took %.2f s; %llu blocks put, "
                  "%llu gets, %llu loads, %llu lost, %llu prefetched, %llu demoted, %llu "
                  "archived, %llu removed\n",
                  round, descriptors, took, (unsigned long long)tally->puts,
                  (unsigned long long)tally->gets, (unsigned long long)tally->loads,
                  (unsigned long long)tally->lost, (unsigned long long)tally->prefetched,
                  (unsigned long long)tally->demoted, (unsigned long long)tally->archived,
                  (unsigned long long)tally->removed);
    assert_true(took < STOP_MS_MAX / 1000.0);
    if (tally->errors)
        fail_msg("%llu errors, the first: %s", (unsigned long long)tally->errors, tally->error);
    assert_int_equal(tally->wrong_bytes, 0);
}

static void test_storm(void **state)
{
    (void)state;
    const char *given = getenv("STORM_SECONDS"), *times = getenv("STORM_ROUNDS");
    double seconds = given ? strtod(given, NULL) : 3;
    long rounds = times ? strtol(times, NULL, 10) : 2;
    char nvme[128], cxl[128], secret[128], guest[192];
    struct weftd node;
    struct random_source r = random_seeded("storm");
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(tally, MAP_FAILED);
    weftd_prepare(&node);
    snprintf(secret, sizeof secret, "%s/guest", node.directory);
    snprintf(guest, sizeof guest, "domain.guest.secret_file=%s", secret);
    snprintf(nvme, sizeof nvme, "tier.nvme0.path=%s/nvme0", node.directory);
    snprintf(cxl, sizeof cxl, "tier.cxl0.path=file-emulation:%s/cxl0", node.directory);
    FILE *file = fopen(secret, "wxe");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    fputs("another secret of more than thirty-two bytes, for tests alone", file);
    assert_int_equal(fclose(file), 0);
    /* Of a domain's half, 16 clients' staging segments leave as much as they can all hold at once.
     */
    const char *const settings[] = {"pool.size=48MB",
                                    "pool.size_max=48MB",
                                    "staging=1MB",
                                    "drain=1s",
                                    "limits.clients=64",
                                    "domains=default,guest",
                                    guest,
                                    "domain.guest.writes=copied",
                                    "tiers=cxl0,nvme0",
                                    cxl,
                                    "tier.cxl0.kind=cxl",
                                    "tier.cxl0.size=16MB",
                                    nvme,
                                    "tier.nvme0.size=64MB",
                                    "tier.nvme0.admit=always",
                                    "tier.nvme0.archive=true",
                                    NULL};
    for (long round = 0; round < rounds; round++)
        one_round(&node, settings, &r, round, seconds);
    assert_true(weftd_start(&node, settings, NULL));
    check(&node);
    assert_true(weftd_stop(&node));
    assert_int_equal(tally->wrong_bytes, 0);
    assert_true(tally->loads > 0 && tally->archived > 0 && tally->demoted > 0);
    weftd_clean(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_storm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
