/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the socket and the state are when nobody said, and which directories are fit for them; the
 * nearest known word.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/nearest.h"
#include "sys/host.h"
#include "sys/paths.h"

static void the_socket_is_where_the_environment_says(void **state)
{
    (void)state;
    char path[WF_SOCKET_PATH_MAX + 1], expected[64];
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    setenv("WEFT_SOCKET", "/x/y.sock", 1);
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    assert_string_equal(path, "/x/y.sock");
    unsetenv("WEFT_SOCKET");
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    assert_string_equal(path, "/run/user/7/weft/weftd.sock");
    unsetenv("XDG_RUNTIME_DIR");
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    if (geteuid() == 0)
        snprintf(expected, sizeof expected, "/run/weft/weftd.sock");
    else
        snprintf(expected, sizeof expected, "/tmp/weft-%u/weftd.sock", (unsigned)geteuid());
    assert_string_equal(path, expected);
    assert_int_equal(wf_default_socket(path, 5), WEFT_E_INVALID);
}

static void a_path_too_long_is_refused_or_passed_over(void **state)
{
    (void)state;
    char path[WF_SOCKET_PATH_MAX + 1], longer[WF_SOCKET_PATH_MAX + 2];
    memset(longer, 'a', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    setenv("XDG_RUNTIME_DIR", longer, 1);
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    assert_int_not_equal(path[1], 'a');
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    assert_int_equal(path[0], '/');
    setenv("WEFT_SOCKET", longer, 1);
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "107"));
    longer[WF_SOCKET_PATH_MAX] = '\0';
    setenv("WEFT_SOCKET", longer, 1);
    assert_int_equal(wf_default_socket(path, sizeof path), WEFT_OK);
    unsetenv("WEFT_SOCKET");
    unsetenv("XDG_RUNTIME_DIR");
}

static void only_a_safe_directory_holds_a_socket(void **state)
{
    (void)state;
    char base[] = "/tmp/weft-paths-XXXXXX", path[128], made[64];
    assert_non_null(mkdtemp(base));
    snprintf(made, sizeof made, "%s/made", base);
    snprintf(path, sizeof path, "%s/weftd.sock", made);
    assert_int_equal(wf_socket_directory(path), WEFT_OK);
    struct stat found;
    assert_int_equal(stat(made, &found), 0);
    assert_int_equal(found.st_mode & 0022, 0);
    assert_int_equal(wf_socket_directory(path), WEFT_OK); /* it is there already */
    assert_int_equal(chmod(made, 0777), 0);
    assert_int_equal(wf_socket_directory(path), WEFT_E_DENIED);
    assert_int_equal(chmod(made, 01777), 0);
    assert_int_equal(wf_socket_directory(path), WEFT_OK);
    snprintf(path, sizeof path, "%s/not/there/weftd.sock", base);
    assert_int_equal(wf_socket_directory(path), WEFT_E_SYSTEM);
    assert_int_equal(rmdir(made), 0);
    FILE *file = fopen(made, "w");
    assert_non_null(file);
    fclose(file);
    snprintf(path, sizeof path, "%s/weftd.sock", made);
    assert_int_equal(wf_socket_directory(path), WEFT_E_SYSTEM);
    unlink(made);
    rmdir(base);
}

static void the_state_is_where_the_environment_says(void **state)
{
    (void)state;
    char path[64], expected[64], longer[128], *home = getenv("HOME");
    setenv("XDG_STATE_HOME", "/home/x/.state", 1);
    wf_host_state(path, sizeof path);
    assert_string_equal(path, "/home/x/.state/weft");
    unsetenv("XDG_STATE_HOME");
    setenv("HOME", "/home/x", 1);
    wf_host_state(path, sizeof path);
    assert_string_equal(path, geteuid() == 0 ? "/var/lib/weft" : "/home/x/.local/state/weft");
    memset(longer, 'a', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    setenv("XDG_STATE_HOME", longer, 1);
    wf_host_state(path, sizeof path);
    snprintf(expected, sizeof expected, "/var/tmp/weft-%u", (unsigned)geteuid());
    assert_string_equal(path, geteuid() == 0 ? "/var/lib/weft" : expected);
    setenv("XDG_STATE_HOME", "relative", 1);
    wf_host_state(path, sizeof path);
    assert_int_equal(path[0], '/');
    unsetenv("XDG_STATE_HOME");
    if (home)
        setenv("HOME", home, 1);
}

static void the_state_is_made_for_one_user_alone(void **state)
{
    (void)state;
    char base[] = "/tmp/weft-paths-XXXXXX", above[64], path[64];
    struct stat found;
    assert_non_null(mkdtemp(base));
    snprintf(above, sizeof above, "%s/a", base);
    snprintf(path, sizeof path, "%s/a/weft", base);
    assert_int_equal(wf_state_directory(path), WEFT_OK);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0700);
    assert_int_equal(stat(above, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0700);
    assert_int_equal(wf_state_directory(path), WEFT_OK); /* it is there already */
    assert_int_equal(chmod(path, 01777), 0);             /* no stranger's file among the secrets */
    assert_int_equal(wf_state_directory(path), WEFT_E_DENIED);
    assert_non_null(strstr(wf_last_error(), "chmod go-w"));
    assert_int_equal(rmdir(path), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(wf_state_directory(path), WEFT_E_SYSTEM);
    snprintf(path, sizeof path, "%s/a/weft/under", base);
    assert_int_equal(wf_state_directory(path), WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), "state_dir"));
    snprintf(path, sizeof path, "%s/a/weft", base);
    unlink(path);
    rmdir(above);
    rmdir(base);
}

static void distances_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        unsigned distance;
    } cases[] = {{"", "", 0},         {"size", "size", 0},      {"size", "sise", 1},
                 {"size", "szie", 1}, {"size", "sizes", 1},     {"", "abc", 3},
                 {"abc", "", 3},      {"kitten", "sitting", 3}, {"ca", "abc", 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(wf_nearest_distance(cases[i].a, cases[i].b), cases[i].distance);
    char longer[WF_NEAREST_WORD_MAX + 2];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(wf_nearest_distance(longer, longer), WF_NEAREST_WORD_MAX + 1);
    longer[WF_NEAREST_WORD_MAX] = '\0';
    assert_int_equal(wf_nearest_distance(longer, longer), 0);
    assert_int_equal(wf_nearest_distance(longer, ""), WF_NEAREST_WORD_MAX);

    struct wf_nearest nearest;
    wf_nearest_init(&nearest, "quta");
    wf_nearest_offer(&nearest, "token");
    assert_null(nearest.best);
    wf_nearest_offer(&nearest, "quota");
    wf_nearest_offer(&nearest, "quotas");
    assert_string_equal(nearest.best, "quota");
}

static void the_host_is_read(void **state)
{
    (void)state;
    struct wf_host host;
    wf_host_read(&host);
    assert_true(host.memory_bytes >= 1 << 20);
    assert_true(host.memlock_bytes > 0);
    assert_false(wf_host_has_numa_node(100000));
    struct stat found;
    char where[256];
    assert_int_equal(stat("/proc", &found), 0);
    assert_true(wf_host_mounted(found.st_dev, where, sizeof where));
    assert_string_equal(where, "/proc");
    assert_false(wf_host_mounted((dev_t)0, where, sizeof where));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_socket_is_where_the_environment_says),
        cmocka_unit_test(a_path_too_long_is_refused_or_passed_over),
        cmocka_unit_test(only_a_safe_directory_holds_a_socket),
        cmocka_unit_test(the_state_is_where_the_environment_says),
        cmocka_unit_test(the_state_is_made_for_one_user_alone),
        cmocka_unit_test(distances_are_counted),
        cmocka_unit_test(the_host_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
