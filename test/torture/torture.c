/* SPDX-License-Identifier: Apache-2.0
 *
 * The Nth allocation or system call fails, for every N: first in the client, then in the node.
 *
 * Whoever it hits neither dies nor hangs, says what was wrong in a sentence, and leaves a node that
 * serves the next client as if nothing had been.  The counting ends with the first N that is never
 * reached.
 *
 *   torture            every N; TORTURE_STEP=7 takes every seventh, beginning anywhere
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define N_MAX 3000
#define BLOCK_TOKENS 4
#define TOKENS (12 * BLOCK_TOKENS)
#define SCENARIO_S 60

/* Exit statuses of the scenario. */
enum { ALL_WELL = 0, FAILED_POLITELY = 10, NO_SENTENCE = 11, WRONG_BYTES = 12 };

static const char *const direct[] = {"pool.size=4MB",   "pool.size_max=4MB",       "staging=1MB",
                                     "limits.pins=256", "http.listen=127.0.0.1:0", NULL};
static const char *const copied[] = {"pool.size=4MB",
                                     "pool.size_max=4MB",
                                     "staging=1MB",
                                     "limits.pins=256",
                                     "pool.prefault=true",
                                     "domain.default.writes=copied",
                                     NULL};

/* --------------------------------------------------------------------------------- the scenario */

static int verdict;

/* Note how a call ended; true when it did what was asked. */
static bool went_well(enum weft_status status)
{
    if (status >= 0)
        return status == WEFT_OK;
    verdict = weft_last_error()[0] ? FAILED_POLITELY : NO_SENTENCE;
    return false;
}

static void fill(struct weft_fill *fill)
{
    size_t bytes = 2 * fill->layer_bytes * 2;
    for (uint32_t i = 0; i < fill->blocks; i++) {
        uint8_t key[32];
        random_key(fill->first_block + i, key);
        if (fill->slots[i].status == WEFT_OK)
            payload_fill(fill->slots[i].data, bytes, key);
    }
}

static void converse(struct weft_format *f)
{
    struct weft_session *session, *fork;
    struct weft_match match;
    struct weft_pins pins;
    struct weft_fill put;
    uint32_t tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = i * 7;
    if (!went_well(weft_session_open(f, NULL, &session)))
        return;
    for (int turn = 0; turn < 2; turn++) {
        size_t count = TOKENS / 2 * ((size_t)turn + 1);
        if (went_well(weft_reserve(session, tokens, 0, count, &put))) {
            fill(&put);
            went_well(weft_commit(&put));
        }
        if (!went_well(weft_match(session, tokens, count, &match)) ||
            !went_well(weft_get(session, &match, WEFT_LAYER_ORDER, &pins)))
            continue;
        for (uint32_t i = 0; i < pins.blocks; i++) {
            uint8_t key[32];
            random_key(i, key);
            if (!payload_right(pins.data[i], 2 * pins.layer_bytes * 2, key))
                verdict = WRONG_BYTES;
        }
        weft_pins_release(&pins);
    }
    went_well(weft_session_hint(session, WEFT_DECODING, NULL));
    if (went_well(weft_session_fork(session, NULL, &fork)))
        weft_session_close(fork);
    if (went_well(weft_reserve(session, tokens, 0, TOKENS, &put)))
        weft_abort(&put);
    weft_session_close(session);
}

static void share_region(struct weft *w)
{
    struct weft_region *region, *again;
    struct weft_watch *watch;
    void *memory;
    char *text;
    if (went_well(
            weft_allocate(w, "64K", WEFT_LATENCY_LOW, WEFT_SHARE_READ, "r", &region, &memory))) {
        if (went_well(weft_watch_create(region, 100, &watch))) {
            went_well(weft_watch_publish(watch, "hello", 5));
            weft_watch_close(watch);
        }
        if (went_well(weft_region_open(w, "r", &again, &memory, NULL)))
            weft_release(again);
        weft_release(region);
    }
    if (went_well(weft_query(w, "status", 0, &text)))
        weft_text_free(text);
}

static int scenario(const char *socket)
{
    struct weft *w;
    struct weft_format *f;
    struct weft_connect_options options = {.socket = socket, .timeout_ms = 20000};
    struct weft_format_spec spec = {.model = "torture",
                                    .layers = 2,
                                    .kv_heads = 4,
                                    .head_dim = 128,
                                    .dtype = WEFT_F32,
                                    .block_tokens = BLOCK_TOKENS};
    alarm(SCENARIO_S); /* a hang is an end by SIGALRM */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!went_well(weft_connect(&options, &w)))
        return verdict;
    if (went_well(weft_format_open(w, &spec, &f))) {
        converse(f);
        share_region(w);
        weft_format_close(f);
    }
    weft_close(w);
    return verdict;
}

/* Run the scenario in a process of its own; its status as of waitpid(2). */
static int run_scenario(const struct weftd *node, const char *fail_at, const char *fail_log)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (fail_at) {
            setenv("WEFT_FAIL_AT", fail_at, 1);
            setenv("WEFT_FAIL_LOG", fail_log, 1);
        }
        execl("/proc/self/exe", "torture", "scenario", node->socket, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* ------------------------------------------------------------------------------------ the count */

/* What failed, from the log; "" when nothing did.  The log is removed. */
static void read_failure(const char *path, char *out, size_t capacity)
{
    FILE *file = fopen(path, "re");
    out[0] = '\0';
    if (file && fgets(out, (int)capacity, file))
        out[strcspn(out, "\n")] = '\0';
    if (file)
        fclose(file);
    unlink(path);
}

static int first_n(int *step)
{
    const char *given = getenv("TORTURE_STEP");
    *step = given ? (int)strtol(given, NULL, 10) : 1;
    if (*step <= 1) {
        *step = 1;
        return 1;
    }
    struct random_source r = random_seeded("torture");
    return 1 + (int)random_below(&r, (uint32_t)*step);
}

static void check_polite(int status, int n, const char *what, const char *who)
{
    bool polite = WIFEXITED(status) &&
                  (WEXITSTATUS(status) == ALL_WELL || WEXITSTATUS(status) == FAILED_POLITELY);
    if (!polite)
        fail_msg("N = %d, %s failed in the %s: the client ended with status 0x%x", n, what, who,
                 (unsigned)status);
}

static void torture_client(const char *const *settings)
{
    struct weftd node;
    char log[128], fail_at[32], what[64];
    int step, n;
    weftd_run(&node, settings);
    snprintf(log, sizeof log, "%s.failure", node.socket);
    struct weft *w = weftd_connect(&node, "default");
    assert_non_null(w);
    for (n = first_n(&step); n < N_MAX; n += step) {
        snprintf(fail_at, sizeof fail_at, "%d", n);
        int status = run_scenario(&node, fail_at, log);
        read_failure(log, what, sizeof what);
        if (!what[0])
            break;
        check_polite(status, n, what, "client");
        status = run_scenario(&node, NULL, NULL);
        if (status != 0)
            fail_msg("N = %d, %s failed in a client: the next one got 0x%x", n, what,
                     (unsigned)status);
        assert_int_equal(weftd_number(w, "default", "blocks_reserved"), 0);
    }
    print_message("# client: %d passages, every %d\n", n, step);
    assert_in_range(n, 20, N_MAX - 1);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    assert_int_equal(weftd_number(w, NULL, "sessions"), 0);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* A node that does not start says why in its last line. */
static bool log_has_a_sentence(const struct weftd *node)
{
    char line[1024] = "";
    FILE *file = fopen(node->log, "re");
    while (file && fgets(line, sizeof line, file)) {}
    if (file)
        fclose(file);
    return strlen(line) > 10;
}

static bool torture_node_once(struct weftd *node, const char *const *settings, int n)
{
    char log[128], fail_at[64], fail_log[160], what[64];
    snprintf(log, sizeof log, "%s.failure", node->socket);
    snprintf(fail_at, sizeof fail_at, "WEFT_FAIL_AT=%d", n);
    snprintf(fail_log, sizeof fail_log, "WEFT_FAIL_LOG=%s", log);
    unlink(node->log);
    int status = 0, end = 0;
    if (weftd_start(node, settings, (const char *const[]){fail_at, fail_log, NULL})) {
        status = run_scenario(node, NULL, NULL);
        int second = run_scenario(node, NULL, NULL);
        int third = second ? run_scenario(node, NULL, NULL) : 0; /* the failure hit the second */
        kill(node->pid, SIGTERM);
        end = weftd_wait(node, SCENARIO_S * 1000);
        read_failure(log, what, sizeof what);
        check_polite(status, n, what, "node");
        check_polite(second, n, what, "node");
        if (third != 0)
            fail_msg("N = %d, %s failed in the node: a later client got 0x%x", n, what,
                     (unsigned)third);
        if (end != 0)
            weftd_show_log(node);
    } else {
        read_failure(log, what, sizeof what);
        end = log_has_a_sentence(node) ? 0 : -1;
    }
    if (end != 0)
        fail_msg("N = %d, %s failed in the node: it ended with status 0x%x", n, what,
                 (unsigned)end);
    return what[0] != '\0';
}

static void torture_node(const char *const *settings)
{
    struct weftd node;
    int step, n;
    weftd_prepare(&node);
    for (n = first_n(&step); n < N_MAX && torture_node_once(&node, settings, n); n += step) {}
    print_message("# node: %d passages, every %d\n", n, step);
    assert_in_range(n, 20, N_MAX - 1);
    weftd_clean(&node);
}

static void test_client(void **state)
{
    torture_client(*state);
}

static void test_node(void **state)
{
    torture_node(*state);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "scenario") == 0)
        return scenario(argv[2]);
    const struct CMUnitTest tests[] = {
        {"client_direct", test_client, NULL, NULL, (void *)(uintptr_t)direct},
        {"client_copied", test_client, NULL, NULL, (void *)(uintptr_t)copied},
        {"node_direct", test_node, NULL, NULL, (void *)(uintptr_t)direct},
        {"node_copied", test_node, NULL, NULL, (void *)(uintptr_t)copied},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
