/* SPDX-License-Identifier: Apache-2.0
 *
 * Members by a list, the epochs of who has no registry, and names.
 */
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "member/checks.h"
#include "member/member.h"
#include "member/roster.h"

#define JOINED_MAX 8

struct told {
    struct wf_member joined[JOINED_MAX];
    uint32_t joined_count;
    struct wf_standing standing;
    bool late; /* the standing was not the first thing told */
};

static char state_dir[64];

static void on_joined(void *context, const struct wf_member *member)
{
    struct told *told = context;
    assert_true(told->joined_count < JOINED_MAX);
    told->joined[told->joined_count++] = *member;
}

static void on_left(void *context, const struct wf_member *member)
{
    (void)context;
    fail_msg("%s left a list", member->name);
}

static void on_standing(void *context, const struct wf_standing *standing)
{
    struct told *told = context;
    told->late = told->joined_count > 0;
    told->standing = *standing;
}

static struct wf_member_options options_of(struct told *told, const char *registry)
{
    return (struct wf_member_options){.registry = registry,
                                      .name = "alpha",
                                      .addresses = "tcp:10.0.0.1:7411 unix:/run/weft/net",
                                      .details = "{\"bytes\":1}",
                                      .events = {told, on_joined, on_left, on_standing, NULL}};
}

static enum weft_status opened(const struct wf_member_options *options, struct wf_members **out)
{
    assert_ptr_equal(wf_member_by_registry(options->registry), &wf_member_static);
    return wf_member_static.open(options, out);
}

static void refused(const char *registry, enum weft_status status, const char *word)
{
    struct told told = {0};
    struct wf_members *members;
    struct wf_member_options options = options_of(&told, registry);
    assert_int_equal(wf_member_static.open(&options, &members), status);
    if (!strstr(wf_last_error(), word))
        fail_msg("'%s' has no '%s'", wf_last_error(), word);
}

static void test_forms(void **state)
{
    (void)state;
    assert_null(wf_member_by_registry(NULL));
    assert_null(wf_member_by_registry("zookeeper://host/cluster"));
    assert_ptr_equal(wf_member_by_registry(""), &wf_member_static);
    assert_ptr_equal(wf_member_by_registry("tcp:10.0.0.2:7411,unix:/x"), &wf_member_static);
}

static void test_who_is_listed_is_a_member(void **state)
{
    (void)state;
    struct told told = {0};
    struct wf_members *members;
    struct wf_member list[JOINED_MAX];
    struct wf_standing standing;
    struct wf_member_options options =
        options_of(&told, "tcp:[fd00::2]:7411, tcp:10.0.0.1:7411,,tcp:TEN:1,tcp:TEN:1");
    assert_int_equal(opened(&options, &members), WEFT_OK);
    wf_member_static.standing(members, &standing);
    assert_int_equal(standing.state, WF_STANDING_MEMBER);
    assert_true(standing.epoch > 0 && standing.until_ns == UINT64_MAX);
    assert_int_equal(told.joined_count, 0); /* nothing but from poll */

    wf_member_static.poll(members, 1000);
    assert_int_equal(told.joined_count, 3);
    assert_false(told.late);
    assert_int_equal(told.standing.state, WF_STANDING_MEMBER);
    assert_string_equal(told.joined[0].name, "alpha");
    assert_int_equal(told.joined[0].epoch, standing.epoch);
    assert_string_equal(told.joined[1].name, "tcp-fd00-2-7411");
    assert_string_equal(told.joined[1].addresses, "tcp:[fd00::2]:7411");
    assert_int_equal(told.joined[1].epoch, 0);
    assert_string_equal(told.joined[2].name, "tcp-ten-1");
    assert_int_equal(wf_member_static.list(members, list, JOINED_MAX), 3);
    assert_string_equal(list[0].name, "alpha");
    assert_int_equal(wf_member_static.list(members, list, 1), 3);

    wf_member_static.poll(members, 0);
    assert_int_equal(told.joined_count, 3);
    assert_int_equal(wf_member_static.publish(members, "tcp:10.0.0.1:9", "{}"), WEFT_OK);
    wf_member_static.poll(members, 1000);
    assert_int_equal(told.joined_count, 4);
    assert_string_equal(told.joined[3].addresses, "tcp:10.0.0.1:9");
    assert_int_equal(told.joined[3].epoch, standing.epoch);
    assert_int_equal(wf_member_static.publish(members, "tcp:10.0.0.1:9", "{}"), WEFT_OK);
    assert_int_equal(wf_member_static.publish(members, "a\x1b[2J", "{}"), WEFT_E_INVALID);
    wf_member_static.poll(members, 0);
    assert_int_equal(told.joined_count, 4);

    uint64_t revision;
    char value[8];
    assert_int_equal(wf_member_static.setting(members, "a", value, 8, &revision), WEFT_MISS);
    assert_int_equal(wf_member_static.set(members, "A", "{}", 0, NULL, NULL), WEFT_E_INVALID);
    wf_member_static.close(members, 100);
}

static int remove_entry(const char *path, const struct stat *entry, int kind, struct FTW *walk)
{
    (void)entry, (void)kind, (void)walk;
    return remove(path);
}

static struct {
    uint32_t told, done;
    char name[WF_SETTING_NAME_MAX + 1], value[64];
    uint64_t revision;
    enum weft_status status;
} heard;

static void on_setting(void *context, const char *name, const char *value, uint64_t revision)
{
    (void)context;
    heard.told++;
    heard.revision = revision;
    snprintf(heard.name, sizeof heard.name, "%s", name);
    snprintf(heard.value, sizeof heard.value, "%s", value ? value : "none");
}

static void on_set(void *context, enum weft_status status)
{
    assert_ptr_equal(context, &heard);
    heard.done++;
    heard.status = status;
}

static enum weft_status set(struct wf_members *members, const char *value, uint64_t revision)
{
    heard.done = 0;
    assert_int_equal(wf_member_static.set(members, "lend.alpha", value, revision, on_set, &heard),
                     WEFT_OK);
    assert_int_equal(heard.done, 0); /* from poll alone */
    wf_member_static.poll(members, 0);
    assert_int_equal(heard.done, 1);
    return heard.status;
}

/* A node's own settings: changed by who knows the revision, and there again after a restart. */
static void test_settings_are_kept(void **state)
{
    (void)state;
    char folder[] = "/tmp/weft-settings-XXXXXX", file[64], value[64];
    struct told told = {0};
    struct wf_members *members;
    struct rlimit all;
    uint64_t revision;
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit is to be an error */
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
    assert_non_null(mkdtemp(folder));
    struct wf_member_options options = options_of(&told, "tcp:10.0.0.2:7411");
    options.state_dir = folder;
    options.events.setting = on_setting;
    memset(&heard, 0, sizeof heard);
    assert_int_equal(opened(&options, &members), WEFT_OK);
    wf_member_static.poll(members, 0);
    assert_int_equal(heard.told, 0);
    assert_int_equal(set(members, NULL, 0), WEFT_E_BUSY);
    assert_int_equal(set(members, "{\"a\": 1}", 7), WEFT_E_BUSY);
    assert_int_equal(set(members, "{\"a\": 1}", 0), WEFT_OK);
    assert_int_equal(heard.told, 1);
    uint64_t first = heard.revision;
    assert_int_equal(set(members, "{}", 0), WEFT_E_BUSY);
    assert_int_equal(set(members, "{\"a\": 2}", first), WEFT_OK);
    assert_true(heard.revision > first);
    wf_member_static.close(members, 0);

    memset(&heard, 0, sizeof heard);
    assert_int_equal(opened(&options, &members), WEFT_OK);
    wf_member_static.poll(members, 0);
    assert_int_equal(heard.told, 1);
    assert_string_equal(heard.name, "lend.alpha");
    assert_string_equal(heard.value, "{\"a\": 2}");
    assert_int_equal(wf_member_static.setting(members, "lend.alpha", value, 4, &revision),
                     WEFT_E_LIMIT);
    assert_int_equal(wf_member_static.setting(members, "lend.alpha", value, 64, &revision),
                     WEFT_OK);
    assert_string_equal(value, "{\"a\": 2}");
    /* What cannot be kept has not changed. */
    snprintf(file, sizeof file, "%s/alpha.settings.new", folder);
    assert_int_equal(mkdir(file, 0700), 0);
    assert_int_equal(set(members, "{}", revision), WEFT_E_SYSTEM);
    assert_int_equal(rmdir(file), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(const struct rlimit){8, all.rlim_max}), 0);
    enum weft_status status = set(members, "{\"a\": 3}", revision);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
    assert_int_equal(status, WEFT_E_SYSTEM);
    assert_int_equal(access(file, F_OK), -1); /* and no part of it is left */
    assert_int_equal(wf_member_static.setting(members, "lend.alpha", value, 64, &first), WEFT_OK);
    assert_string_equal(value, "{\"a\": 2}");
    assert_int_equal(first, revision);
    assert_int_equal(set(members, NULL, revision), WEFT_OK);
    assert_string_equal(heard.value, "none");
    wf_member_static.close(members, 0);

    /* A file that is none says nothing. */
    snprintf(file, sizeof file, "%s/alpha.settings", folder);
    FILE *to = fopen(file, "w");
    assert_non_null(to);
    assert_true(fputs("{\"lend.alpha\": ", to) >= 0);
    assert_int_equal(fclose(to), 0);
    memset(&heard, 0, sizeof heard);
    assert_int_equal(opened(&options, &members), WEFT_OK);
    wf_member_static.poll(members, 0);
    assert_int_equal(heard.told, 0);
    assert_int_equal(set(members, "{}", 0), WEFT_OK);
    wf_member_static.close(members, 0);
    assert_int_equal(nftw(folder, remove_entry, 4, FTW_DEPTH | FTW_PHYS), 0);
}

static void test_lists_that_are_none(void **state)
{
    (void)state;
    char list[1024] = "", one[600];
    refused("tcp:a:1 tcp:b:1", WEFT_E_INVALID, "commas");
    refused("tcp:a:1,tcp-a:1", WEFT_E_INVALID, "'tcp:a:1'");
    refused("al/pha,alpha", WEFT_E_INVALID, "'alpha'");
    refused("tcp:\x01:1", WEFT_E_INVALID, "control");
    memset(one, 'x', 300);
    one[300] = '\0';
    refused(one, WEFT_E_INVALID, "255");
    for (uint32_t i = 0; i < 66; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "t:%u,", i);
    refused(list, WEFT_E_LIMIT, "64");
}

static void test_long_addresses_stay_apart(void **state)
{
    (void)state;
    struct told told = {0};
    struct wf_members *members;
    char list[600], one[201];
    memset(one, 'q', 200);
    one[200] = '\0';
    snprintf(list, sizeof list, "tcp:%s:1,tcp:%s:2,.../", one, one);
    struct wf_member_options options = options_of(&told, list);
    assert_int_equal(opened(&options, &members), WEFT_OK);
    wf_member_static.poll(members, 0);
    assert_int_equal(told.joined_count, 4);
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(wf_member_name_check("it", told.joined[i].name), WEFT_OK);
        assert_string_not_equal(told.joined[i].name, told.joined[i % 3 + 1].name);
    }
    wf_member_static.close(members, 0);
}

static uint64_t epoch_of_a_start(void)
{
    struct told told = {0};
    struct wf_members *members;
    struct wf_standing standing;
    struct wf_member_options options = options_of(&told, "");
    options.state_dir = state_dir;
    if (opened(&options, &members) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    wf_member_static.standing(members, &standing);
    wf_member_static.close(members, 0);
    return standing.epoch;
}

static void write_epoch(const char *text)
{
    char path[100];
    snprintf(path, sizeof path, "%s/alpha.epoch", state_dir);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_epochs_grow(void **state)
{
    (void)state;
    char text[64];
    uint64_t clock = (uint64_t)time(NULL) * 1000000000u;
    uint64_t last = epoch_of_a_start();
    assert_true(last >= clock);
    for (int i = 0; i < 5; i++) {
        uint64_t next = epoch_of_a_start();
        assert_true(next > last);
        last = next;
    }
    /* The clock is far behind what was given out. */
    uint64_t ahead = last + ((uint64_t)1 << 60);
    snprintf(text, sizeof text, "%020llu %020llu\n", (unsigned long long)ahead,
             (unsigned long long)~ahead);
    write_epoch(text);
    assert_int_equal(epoch_of_a_start(), ahead + 1);
    assert_int_equal(epoch_of_a_start(), ahead + 2);
    /* Damaged: by the clock, and from there on. */
    static const char *const damaged[] = {"", "7\n", "99999999999999999999 00000000000000000000\n",
                                          "00000000000000000007 00000000000000000007\n", NULL};
    wf_log_level_set(WF_LOG_OFF);
    for (int i = 0; damaged[i]; i++) {
        write_epoch(damaged[i]);
        uint64_t next = epoch_of_a_start();
        assert_true(next > last && next < ahead);
        last = next;
    }
    wf_log_level_set(WF_LOG_WARN);
}

/* A start that dies at `point`, which this program is once more. */
static void die_at(const char *point)
{
    int how = -1;
    pid_t pid = fork();
    if (pid == 0) {
        setenv("WEFT_CRASH_AT", point, 1);
        execl("/proc/self/exe", "member_static", "--start", state_dir, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

/* What was given out before is never given out again, whoever died in between. */
static void test_a_start_that_dies(void **state)
{
    (void)state;
    char text[64];
    uint64_t ahead = epoch_of_a_start() + ((uint64_t)1 << 60);
    snprintf(text, sizeof text, "%020llu %020llu\n", (unsigned long long)ahead,
             (unsigned long long)~ahead);
    write_epoch(text);
    die_at("whole.written"); /* beside its place only: nobody heard of it */
    assert_int_equal(epoch_of_a_start(), ahead + 1);
    die_at("whole.renamed"); /* ahead + 2, of which nobody can be sure */
    assert_int_equal(epoch_of_a_start(), ahead + 3);
    write_epoch("");
    wf_log_level_set(WF_LOG_OFF);
    (void)epoch_of_a_start(); /* by the clock again, for the others */
    wf_log_level_set(WF_LOG_WARN);
}

static void test_two_of_one_name(void **state)
{
    (void)state;
    struct told told = {0};
    struct wf_members *first, *second;
    struct wf_member_options options = options_of(&told, "");
    options.state_dir = state_dir;
    assert_int_equal(opened(&options, &first), WEFT_OK);
    assert_int_equal(opened(&options, &second), WEFT_E_BUSY);
    assert_non_null(strstr(wf_last_error(), "'alpha'"));
    options.name = "beta";
    assert_int_equal(opened(&options, &second), WEFT_OK);
    wf_member_static.close(second, 0);
    wf_member_static.close(first, 0);
    assert_true(epoch_of_a_start() > 0);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "7", "node-1.rack-2.example", NULL};
    static const char *const bad[] = {"",
                                      "A",
                                      "-a",
                                      "a-",
                                      "a_b",
                                      "..",
                                      "/a",
                                      "a\nb",
                                      "a\xff"
                                      "b",
                                      NULL};
    char name[WF_MEMBER_NAME_MAX + 2];
    for (int i = 0; good[i]; i++)
        assert_int_equal(wf_member_name_check("the name", good[i]), WEFT_OK);
    for (int i = 0; bad[i]; i++) {
        assert_int_equal(wf_member_name_check("the name", bad[i]), WEFT_E_INVALID);
        assert_int_equal(strncmp(wf_last_error(), "the name", 8), 0);
    }
    memset(name, 'n', sizeof name);
    name[WF_MEMBER_NAME_MAX + 1] = '\0';
    assert_int_equal(wf_member_name_check("the name", name), WEFT_E_INVALID);
    name[WF_MEMBER_NAME_MAX] = '\0';
    assert_int_equal(wf_member_name_check("the name", name), WEFT_OK);
    assert_int_equal(wf_setting_check("limits", "{}"), WEFT_OK);
    assert_int_equal(wf_setting_check("limits", NULL), WEFT_OK);
    assert_int_equal(wf_setting_check("limits", "\x1b"), WEFT_E_INVALID);
}

static void test_roster(void **state)
{
    (void)state;
    struct wf_roster roster = {0};
    struct wf_member member = {.epoch = 1};
    for (uint32_t i = 0; i < WF_MEMBERS_MAX; i++) {
        snprintf(member.name, sizeof member.name, "n%u", (i * 2654435761u) % WF_MEMBERS_MAX);
        assert_int_equal(wf_roster_put(&roster, &member), WEFT_OK);
    }
    assert_int_equal(roster.count, WF_MEMBERS_MAX);
    for (uint32_t i = 1; i < roster.count; i++)
        assert_true(strcmp(roster.members[i - 1]->name, roster.members[i]->name) < 0);
    snprintf(member.name, sizeof member.name, "one-more");
    assert_int_equal(wf_roster_put(&roster, &member), WEFT_E_LIMIT);
    assert_null(wf_roster_take(&roster, "one-more"));
    struct wf_member *taken = wf_roster_take(&roster, "n17");
    assert_string_equal(taken->name, "n17");
    free(taken);
    assert_null(wf_roster_find(&roster, "n17"));
    assert_non_null(wf_roster_find(&roster, "n18"));
    assert_int_equal(wf_roster_put(&roster, &member), WEFT_OK);
    wf_roster_fini(&roster);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--start") == 0) {
        snprintf(state_dir, sizeof state_dir, "%s", argv[2]);
        return epoch_of_a_start() == 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_roster),
        cmocka_unit_test(test_who_is_listed_is_a_member),
        cmocka_unit_test(test_settings_are_kept),
        cmocka_unit_test(test_lists_that_are_none),
        cmocka_unit_test(test_long_addresses_stay_apart),
        cmocka_unit_test(test_epochs_grow),
        cmocka_unit_test(test_a_start_that_dies),
        cmocka_unit_test(test_two_of_one_name),
    };
    snprintf(state_dir, sizeof state_dir, "/tmp/weft-member-XXXXXX");
    if (!mkdtemp(state_dir))
        return 1;
    int failed = cmocka_run_group_tests_name("member_static", tests, NULL, NULL);
    return nftw(state_dir, remove_entry, 4, FTW_DEPTH | FTW_PHYS) == 0 ? failed : 1;
}
