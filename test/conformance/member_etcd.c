/* SPDX-License-Identifier: Apache-2.0
 *
 * What only etcd's registry can come across: its network, its keys, its guards, a process that was
 * stopped and a wall clock that jumps.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../support/between.h"
#include "../support/etcd.h"
#include "base/log.h"
#include "member/etcd_text.h"
#include "member_world.h"

/* This program's wall clock, for libraries too. */
static int64_t wall_added_s;

int clock_gettime(clockid_t clock, struct timespec *out)
{
    int status = (int)syscall(SYS_clock_gettime, clock, out);
    if (status == 0 && clock == CLOCK_REALTIME)
        out->tv_sec += __atomic_load_n(&wall_added_s, __ATOMIC_RELAXED);
    return status;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

static struct etcd *etcd_of(const struct world *w)
{
    return w->registry;
}

static const char *cluster_of(const struct world *w)
{
    return strrchr(w->place, '/') + 1;
}

static void key_of(const struct world *w, const char *part, const char *name, char out[200])
{
    snprintf(out, 200, "/weft/%s/%s/%s", cluster_of(w), part, name);
}

/* From now on nodes are opened with these endpoints. */
static void go_by(struct world *w, const char *scheme, const char *endpoints)
{
    char cluster[WF_MEMBER_NAME_MAX + 1];
    snprintf(cluster, sizeof cluster, "%s", cluster_of(w));
    snprintf(w->place, sizeof w->place, "%s://%.100s/%s", scheme, endpoints, cluster);
}

static void go_direct(struct world *w)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", etcd_of(w)->port);
    go_by(w, "etcd", endpoint);
}

/* The same, by way of what is between. */
static struct between *go_between(struct world *w)
{
    char endpoint[64];
    struct between *between = between_begin(etcd_of(w)->port);
    assert_non_null(between);
    snprintf(endpoint, sizeof endpoint, "127.0.0.1:%u", between_port(between));
    go_by(w, "etcd", endpoint);
    return between;
}

static bool knows(const struct node *node, const char *name, const struct node *other)
{
    const struct wf_member *member = known(node, name);
    return member && member->epoch == standing_of(other).epoch;
}

/* ---------------------------------------------------------------------------------- options */

static void refuse(struct world *w, const struct wf_member_options *options, const char *word)
{
    struct wf_members *members;
    assert_int_equal(w->ops->open(options, &members), WEFT_E_INVALID);
    if (!strstr(wf_last_error(), word))
        fail_msg("'%s' has no '%s'", wf_last_error(), word);
}

static void test_options_that_are_wrong(void **state)
{
    struct world *w = *state;
    const struct wf_member_options right = {.registry = w->place, .name = "alpha"};
    struct wf_member_options wrong = right;
    wrong.name = "Alpha";
    refuse(w, &wrong, "'Alpha'");
    wrong = right;
    wrong.registry = "etcd://one";
    refuse(w, &wrong, "names no cluster");
    wrong = right;
    wrong.lease_ms = 1999;
    refuse(w, &wrong, "2000");
    wrong = right;
    wrong.password = "p";
    refuse(w, &wrong, "no user");
    wrong = right;
    wrong.ca = "/etc/hosts";
    refuse(w, &wrong, "etcds://");
    wrong.registry = "etcds://one/c";
    wrong.ca = "/nowhere/ca.pem";
    refuse(w, &wrong, "/nowhere/ca.pem");
    wrong.ca = NULL;
    wrong.key = "/etc/hosts";
    refuse(w, &wrong, "certificate is missing");
}

/* ---------------------------------------------------------------------------------- network */

static void test_the_next_endpoint(void **state)
{
    struct world *w = *state;
    char endpoints[100];
    struct between *first = between_begin(etcd_of(w)->port);
    struct between *second = between_begin(etcd_of(w)->port);
    assert_true(first && second);
    snprintf(endpoints, sizeof endpoints, "127.0.0.1:1,127.0.0.1:%u,127.0.0.1:%u",
             between_port(first), between_port(second));
    struct node *b = node_open(w, 1, "beta");
    go_by(w, "etcd", endpoints);
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    /* One that refuses, then one that is deaf: within a lease the other has it. */
    between_set(first, BETWEEN_CUT);
    world_pass(w, w->lease_ms / 2);
    between_set(first, BETWEEN_PASS);
    between_set(second, BETWEEN_DEAF);
    world_pass(w, w->lease_ms + w->lease_ms / 4);
    assert_int_equal(standing_of(a).epoch, epoch);
    assert_true(is_in(a));
    node_close(b, PATIENCE);
    WAIT(w, PATIENCE, !known(a, "beta"));
    node_close(a, PATIENCE);
    between_end(first);
    between_end(second);
}

/* One node is cut off for longer than its lease; the history that it missed is compacted. */
static void test_a_node_that_is_cut_off(void **state)
{
    struct world *w = *state;
    uint64_t revision;
    struct node *b = node_open(w, 1, "beta"), *c = node_open(w, 2, "gamma");
    struct between *between = go_between(w);
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(set(b, "stays", "1", 0), WEFT_OK);
    assert_int_equal(set(b, "goes", "1", 0), WEFT_OK);
    WAIT(w, PATIENCE, setting_of(a, "stays", &revision)[0] && setting_of(a, "goes", &revision)[0]);
    uint64_t old_c = standing_of(c).epoch, old_a = standing_of(a).epoch;
    uint32_t told_b = heard_count(a, HEARD_JOINED, "beta");

    between_set(between, BETWEEN_DEAF);
    WAIT(w, PATIENCE, !known(b, "alpha")); /* and it knew before: the world looks */
    assert_int_equal(standing_of(a).state, WF_STANDING_LOST);
    setting_of(b, "goes", &revision);
    assert_int_equal(set(b, "goes", NULL, revision), WEFT_OK);
    setting_of(b, "stays", &revision);
    assert_int_equal(set(b, "stays", "2", revision), WEFT_OK);
    assert_int_equal(set(b, "new", "3", 0), WEFT_OK);
    node_close(c, PATIENCE);
    go_direct(w);
    c = node_open(w, 2, "delta");
    WAIT(w, PATIENCE, knows(b, "delta", c));
    assert_true(etcd_compact(etcd_of(w)));
    assert_int_equal(known(a, "gamma")->epoch, old_c);

    between_set(between, BETWEEN_PASS);
    WAIT(w, PATIENCE, knows(a, "alpha", a) && knows(b, "alpha", a) && knows(a, "delta", c));
    assert_null(known(a, "gamma"));
    assert_int_equal(heard_count(a, HEARD_LEFT, "gamma"), 1);
    assert_int_equal(heard_count(a, HEARD_LEFT, "alpha"), 1);
    assert_int_equal(heard_count(a, HEARD_JOINED, "beta"), told_b); /* nothing new of that one */
    assert_true(standing_of(a).epoch > old_a);
    assert_string_equal(setting_of(a, "stays", &revision), "2");
    assert_string_equal(setting_of(a, "goes", &revision), "");
    assert_string_equal(setting_of(a, "new", &revision), "3");
    node_close(a, PATIENCE);
    between_end(between);
}

static void test_a_watch_that_breaks(void **state)
{
    struct world *w = *state;
    uint64_t revision;
    struct node *b = node_open(w, 1, "beta");
    struct between *between = go_between(w);
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "round-%d", i);
        between_set(between, BETWEEN_CUT);
        world_pass(w, 100);
        assert_int_equal(set(b, name, "{}", 0), WEFT_OK);
        between_set(between, BETWEEN_PASS);
        WAIT(w, PATIENCE, setting_of(a, name, &revision)[0]);
        assert_int_equal(heard_count(a, HEARD_SETTING, name), 1);
    }
    assert_int_equal(standing_of(a).epoch, epoch);
    assert_int_equal(heard_count(a, HEARD_LEFT, "beta"), 0);
    assert_int_equal(heard_count(a, HEARD_JOINED, "beta"), 1);
    node_close(a, PATIENCE);
    between_end(between);
}

/* Whatever is asked is answered, but the watch brings nothing: neither what is new in one cluster
 * nor what is gone in another. */
static void test_a_watch_that_is_silent(void **state)
{
    struct world *w = *state;
    uint64_t revision;
    struct node *b = node_open(w, 1, "beta");
    struct between *between = go_between(w);
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    snprintf(w->place + strlen(w->place), sizeof w->place - strlen(w->place), "-other");
    struct node *c = node_open(w, 2, "gamma");
    go_direct(w);
    struct node *d = node_open(w, 3, "delta");
    WAIT(w, PATIENCE, is_in(c) && is_in(d) && knows(c, "delta", d));
    uint64_t epochs[] = {standing_of(a).epoch, standing_of(c).epoch};
    between_set(between, BETWEEN_NO_STREAM);
    assert_int_equal(set(b, "one", "1", 0), WEFT_OK);
    node_close(d, PATIENCE);
    WAIT(w, PATIENCE, setting_of(a, "one", &revision)[0] && !known(c, "delta"));
    assert_int_equal(standing_of(a).epoch, epochs[0]);
    assert_int_equal(standing_of(c).epoch, epochs[1]);
    node_close(a, PATIENCE);
    node_close(c, PATIENCE);
    between_end(between);
}

/* ------------------------------------------------------------------------------------- keys */

static void test_a_key_that_is_removed_by_hand(void **state)
{
    struct world *w = *state;
    char key[200], value[100];
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    w->by_hand = true;
    key_of(w, "nodes", "alpha", key);
    assert_true(etcd_put(etcd_of(w), key, NULL));
    WAIT(w, PATIENCE, heard_count(b, HEARD_LEFT, "alpha") == 1);
    WAIT(w, PATIENCE, standing_of(a).epoch > epoch && all_know_all(w));
    /* Or written over by somebody who is not it. */
    epoch = standing_of(a).epoch;
    snprintf(value, sizeof value, "{\"epoch\":%llu,\"addresses\":\"\",\"details\":\"\"}",
             (unsigned long long)epoch);
    assert_true(etcd_put(etcd_of(w), key, value));
    WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_REFUSED);
    assert_non_null(strstr(standing_of(a).why, "etcdctl del"));
    assert_true(etcd_put(etcd_of(w), key, NULL));
    WAIT(w, PATIENCE, is_in(a));
    assert_true(standing_of(a).epoch > epoch);
}

static void test_an_epoch_that_is_none(void **state)
{
    struct world *w = *state;
    char key[200];
    key_of(w, "epochs", "alpha", key);
    assert_true(etcd_put(etcd_of(w), key, "seven"));
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_REFUSED);
    assert_non_null(strstr(standing_of(a).why, key));
    assert_true(etcd_put(etcd_of(w), key, "7"));
    WAIT(w, PATIENCE, is_in(a));
    assert_int_equal(standing_of(a).epoch, 8);
}

/* etcd is restored from a backup, and knows less than its nodes: epochs grow all the same. */
static void test_an_epoch_that_goes_back(void **state)
{
    struct world *w = *state;
    char node[200], key[200];
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    key_of(w, "nodes", "alpha", node);
    key_of(w, "epochs", "alpha", key);
    WAIT(w, PATIENCE, all_know_all(w));
    w->by_hand = true;
    for (int round = 0; round < 3; round++) {
        uint64_t epoch = standing_of(a).epoch;
        if (round)
            assert_true(etcd_put(etcd_of(w), key, round == 1 ? "1" : NULL));
        assert_true(etcd_put(etcd_of(w), node, NULL));
        WAIT(w, PATIENCE, is_in(a) && standing_of(a).epoch != epoch && all_know_all(w));
        assert_true(standing_of(a).epoch > epoch);
        assert_int_equal(known(b, "alpha")->epoch, standing_of(a).epoch);
    }
}

/* Between its look and its join another of that name has come and gone: that one's epoch is not
 * given out again. */
static void test_an_epoch_that_another_got_meanwhile(void **state)
{
    struct world *w = *state;
    char answer[2000];
    struct wf_member self = {.name = "alpha", .epoch = 2, .addresses = "x", .details = "{}"};
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, is_in(a));
    node_close(a,
               PATIENCE); /* epoch 1; the key has a revision now, that who looked before has not */
    for (int late = 1; late >= 0; late--) {
        char *look = wf_etcd_say_look(cluster_of(w), "alpha");
        assert_int_equal(etcd_ask(etcd_of(w), NULL, "/v3/kv/txn", look, answer, sizeof answer),
                         200);
        const char *mod = strstr(answer, "\"mod_revision\":\"");
        assert_non_null(mod);
        uint64_t revision = strtoull(mod + strlen("\"mod_revision\":\""), NULL, 10);
        char *join = wf_etcd_say_join(cluster_of(w), &self, 0, late ? 0 : revision);
        assert_int_equal(etcd_ask(etcd_of(w), NULL, "/v3/kv/txn", join, answer, sizeof answer),
                         200);
        assert_int_equal(strstr(answer, "\"succeeded\":true") != NULL, !late);
        free(look);
        free(join);
    }
}

static void test_keys_that_nobody_understands(void **state)
{
    struct world *w = *state;
    char key[200];
    uint64_t revision;
    static const char *const strange[][2] = {{"garbage", "not JSON"},
                                             {"Capital", "{}"},
                                             {"", "{}"},
                                             {"a/b", "{}"},
                                             {"none", "{\"epoch\":1}"}};
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    wf_log_level_set(WF_LOG_OFF);
    for (int round = 0; round < 2; round++) { /* as events, then as what there is */
        for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
            key_of(w, "nodes", strange[i][0], key);
            assert_true(etcd_put(etcd_of(w), key, strange[i][1]));
        }
        key_of(w, "settings", "strange", key);
        assert_true(etcd_put(etcd_of(w), key, "\x1b[2J"));
        key_of(w, "settings", "good", key);
        assert_true(etcd_put(etcd_of(w), key, round ? "2" : "1"));
        struct node *b = node_open(w, 1, "beta");
        WAIT(w, PATIENCE, all_know_all(w) && setting_of(b, "good", &revision)[0]);
        assert_int_equal(b->known_count, 2);
        assert_int_equal(a->known_count, 2);
        assert_string_equal(setting_of(a, "good", &revision), round ? "2" : "1");
        assert_string_equal(setting_of(a, "strange", &revision), "");
        node_close(b, PATIENCE);
    }
    wf_log_level_set(WF_LOG_WARN);
}

/* More than fit on a page, with a node that counts itself in. */
static void test_many_members(void **state)
{
    struct world *w = *state;
    enum { NODES = 300, SETTINGS = 70 };
    char key[200], name[40];
    struct wf_members *m;
    static struct wf_member list[NODES + 2];
    uint64_t revision;
    for (int i = 0; i < NODES; i++) {
        snprintf(name, sizeof name, "n-%d", i);
        key_of(w, "nodes", name, key);
        assert_true(
            etcd_put(etcd_of(w), key, "{\"epoch\":1,\"addresses\":\"x\",\"details\":\"{}\"}"));
    }
    for (int i = 0; i < SETTINGS; i++) {
        snprintf(name, sizeof name, "s-%d", i);
        key_of(w, "settings", name, key);
        assert_true(etcd_put(etcd_of(w), key, name));
    }
    struct wf_member_options options = {.registry = w->place,
                                        .name = "alpha",
                                        .lease_ms = w->lease_ms};
    assert_int_equal(w->ops->open(&options, &m), WEFT_OK);
    uint64_t end = world_now(w) + PATIENCE * UINT64_C(1000000);
    while (w->ops->list(m, list, 0) <= NODES && world_now(w) < end)
        w->ops->poll(m, 20);
    assert_int_equal(w->ops->list(m, list, NODES + 2), NODES + 1);
    for (int i = 1; i <= NODES; i++)
        assert_true(strcmp(list[i - 1].name, list[i].name) < 0);
    for (int i = 0; i < SETTINGS; i++) {
        char value[40];
        snprintf(name, sizeof name, "s-%d", i);
        assert_int_equal(w->ops->setting(m, name, value, sizeof value, &revision), WEFT_OK);
        assert_string_equal(value, name);
    }
    w->ops->close(m, 0);
}

/* ------------------------------------------------------------------------------------ clocks */

static void test_a_wall_clock_that_jumps(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    for (int i = 0; i < 2; i++) {
        __atomic_store_n(&wall_added_s, i ? -86400 : 86400, __ATOMIC_RELAXED);
        uint64_t until = standing_of(a).until_ns;
        world_pass(w, w->lease_ms * 3 / 4);
        assert_true(standing_of(a).until_ns > until);
        assert_true(standing_of(a).until_ns <= world_now(w) + w->lease_ms * UINT64_C(1000000));
    }
    __atomic_store_n(&wall_added_s, 0, __ATOMIC_RELAXED);
    assert_int_equal(standing_of(a).epoch, epoch);
    assert_int_equal(heard_count(b, HEARD_LEFT, "alpha"), 0);
}

struct stopped {
    struct wf_standing first; /* of what was told since it went on */
    bool going_on, others_first, any;
};

static void stopped_joined(void *context, const struct wf_member *member)
{
    struct stopped *stopped = context;
    (void)member;
    if (stopped->going_on && !stopped->any)
        stopped->others_first = true;
}

static void stopped_standing(void *context, const struct wf_standing *standing)
{
    struct stopped *stopped = context;
    if (stopped->going_on && !stopped->any)
        stopped->first = *standing;
    stopped->any = stopped->going_on;
}

/* In a process of its own: a member, which stops until somebody has it go on.  Status 0: the first
 * that it hears of then is that it is lost, whatever has become of it since.  It stops once more
 * when it is in again, for whoever has to see that. */
int stopped_node(const char *registry)
{
    struct stopped stopped = {0};
    struct wf_standing standing = {0};
    struct wf_members *m;
    struct wf_member_options options = {.registry = registry,
                                        .name = "stopped",
                                        .lease_ms = 2000,
                                        .events = {&stopped, stopped_joined, stopped_joined,
                                                   stopped_standing, NULL}};
    if (wf_member_etcd.open(&options, &m) != WEFT_OK)
        return 2;
    for (int i = 0; i < 500 && standing.state != WF_STANDING_MEMBER; i++) {
        wf_member_etcd.poll(m, 20);
        wf_member_etcd.standing(m, &standing);
    }
    uint64_t epoch = standing.epoch;
    if (raise(SIGSTOP) != 0 || epoch == 0)
        return 3;
    stopped.going_on = true;
    wf_member_etcd.standing(m, &standing);
    if (standing.epoch == epoch && standing.state != WF_STANDING_LOST)
        return 4;
    for (int i = 0; i < 500 && !(stopped.any && standing.epoch > epoch); i++) {
        wf_member_etcd.poll(m, 20);
        wf_member_etcd.standing(m, &standing);
    }
    if (stopped.others_first || stopped.first.state != WF_STANDING_LOST ||
        stopped.first.epoch != epoch)
        return 5;
    if (standing.epoch <= epoch || raise(SIGSTOP) != 0)
        return 6;
    wf_member_etcd.close(m, 2000);
    return 0;
}

static pid_t run_stopped(const char *registry)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent)
            execl("/proc/self/exe", "test_member", "--stopped", registry, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Its owner does not look while the lease ends and another begins: it is told of both all the same,
 * and first (the world looks after that). */
static void test_an_owner_that_does_not_look(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    uint32_t heard = a->heard_count;
    etcd_pause(etcd_of(w), true);
    for (uint64_t end = world_now(w) + PATIENCE * UINT64_C(1000000);
         standing_of(a).epoch == epoch && world_now(w) < end;) {
        if (standing_of(a).state == WF_STANDING_LOST)
            etcd_pause(etcd_of(w), false);
        usleep(5000);
    }
    assert_true(standing_of(a).epoch > epoch);
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(a->heard[heard].kind, HEARD_STANDING);
    assert_int_equal(a->heard[heard].state, WF_STANDING_LOST);
    assert_int_equal(a->heard[heard].epoch, epoch);
    assert_int_equal(heard_count(a, HEARD_LEFT, "alpha"), 1);
}

static void wait_stopped(struct world *w, pid_t pid)
{
    int status = 0;
    WAIT(w, PATIENCE, waitpid(pid, &status, WUNTRACED | WNOHANG) == pid);
    if (!WIFSTOPPED(status))
        fail_msg("the node that was to stop ended with %d", WEXITSTATUS(status));
}

static void test_a_process_that_is_stopped(void **state)
{
    struct world *w = *state;
    int status = 0;
    struct node *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, is_in(b));
    pid_t pid = run_stopped(w->place);
    assert_true(pid > 0);
    wait_stopped(w, pid);
    WAIT(w, PATIENCE, known(b, "stopped"));
    uint64_t epoch = known(b, "stopped")->epoch;
    WAIT(w, PATIENCE, !known(b, "stopped"));
    assert_int_equal(kill(pid, SIGCONT), 0);
    wait_stopped(w, pid);
    WAIT(w, PATIENCE, known(b, "stopped"));
    assert_true(known(b, "stopped")->epoch > epoch);
    assert_int_equal(kill(pid, SIGCONT), 0);
    WAIT(w, PATIENCE, waitpid(pid, &status, WNOHANG) == pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    WAIT(w, PATIENCE, !known(b, "stopped"));
}

const struct CMUnitTest etcd_tests[] = {
    TEST(test_a_user_and_a_password),
    TEST(test_certificates),
    TEST(test_an_etcd_that_is_full),
    TEST(test_answers_that_are_hostile),
    TEST(test_a_member_among_hostile_answers),
    TEST(test_options_that_are_wrong),
    TEST(test_the_next_endpoint),
    TEST(test_a_node_that_is_cut_off),
    TEST(test_a_watch_that_breaks),
    TEST(test_a_watch_that_is_silent),
    TEST(test_a_key_that_is_removed_by_hand),
    TEST(test_an_epoch_that_is_none),
    TEST(test_an_epoch_that_another_got_meanwhile),
    TEST(test_an_epoch_that_goes_back),
    TEST(test_keys_that_nobody_understands),
    TEST(test_many_members),
    TEST(test_a_wall_clock_that_jumps),
    TEST(test_a_process_that_is_stopped),
    TEST(test_an_owner_that_does_not_look),
};
const size_t etcd_test_count = sizeof etcd_tests / sizeof etcd_tests[0];
