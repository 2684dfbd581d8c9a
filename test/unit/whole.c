/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that is there whole or not at all: whoever dies, finds no room or meets another there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/whole.h"

#define OLD "what was there"
#define NEW "what comes in its place, and is longer"

static char folder[64], place[96], beside[128];

static int remove_entry(const char *path, const struct stat *found, int type, struct FTW *walk)
{
    (void)found, (void)type, (void)walk;
    return remove(path);
}

static int clear(void **state)
{
    (void)state;
    return nftw(folder, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

static int prepare(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/weft-whole-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(place, sizeof place, "%s/file", folder);
    snprintf(beside, sizeof beside, "%s" WF_WHOLE_SUFFIX, place);
    return 0;
}

static bool put(const char *text, unsigned how)
{
    return wf_whole_put(AT_FDCWD, place, 0640, text, strlen(text), how);
}

/* Its text; NULL: there is none. */
static const char *text_of(const char *path)
{
    static char text[256];
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    return text;
}

static int entries(void)
{
    int count = 0;
    DIR *open = opendir(folder);
    assert_non_null(open);
    while (readdir(open))
        count++;
    closedir(open);
    return count - 2;
}

static void what_was_there_stays_until_the_end(void **state)
{
    (void)state;
    struct wf_whole file;
    struct stat found;
    assert_true(put(OLD, WF_WHOLE_SYNC));
    assert_string_equal(text_of(place), OLD);
    assert_int_equal(entries(), 1);
    assert_true(wf_whole_begin(&file, AT_FDCWD, place, 0600));
    assert_true(wf_whole_write(&file, NEW, 10));
    assert_true(wf_whole_write(&file, &NEW[10], strlen(NEW) - 10));
    assert_string_equal(text_of(place), OLD);
    assert_true(wf_whole_end(&file, 0));
    assert_string_equal(text_of(place), NEW);
    assert_int_equal(stat(place, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    assert_int_equal(entries(), 1);
    wf_whole_drop(&file); /* there is nothing left to drop */
    assert_string_equal(text_of(place), NEW);
}

static void a_folder_that_is_open_will_do(void **state)
{
    (void)state;
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(directory >= 0);
    assert_true(wf_whole_put(directory, "file", 0600, OLD, strlen(OLD), WF_WHOLE_SYNC));
    assert_string_equal(text_of(place), OLD);
    assert_int_equal(close(directory), 0);
}

static void what_has_no_room_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = strlen(OLD) + 2; /* so that a part of the new one fits */
    assert_true(put(OLD, 0));
    for (unsigned how = 0; how <= WF_WHOLE_SYNC; how++) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        bool done = put(NEW, how);
        int error = errno;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_false(done);
        assert_int_equal(error, EFBIG);
        assert_string_equal(text_of(place), OLD);
        assert_int_equal(entries(), 1);
    }
}

static void who_came_first_is_not_replaced(void **state)
{
    (void)state;
    assert_true(put(OLD, WF_WHOLE_FIRST | WF_WHOLE_SYNC));
    assert_false(put(NEW, WF_WHOLE_FIRST));
    assert_int_equal(errno, EEXIST);
    assert_string_equal(text_of(place), OLD);
    assert_int_equal(entries(), 1);
}

/* Else one would clear up, or put into its place, what the other has half of. */
static void two_at_once_do_not_meet(void **state)
{
    (void)state;
    struct wf_whole first, second;
    assert_true(wf_whole_begin(&first, AT_FDCWD, place, 0600));
    assert_true(wf_whole_write(&first, OLD, 4));
    assert_false(wf_whole_begin(&second, AT_FDCWD, place, 0600));
    assert_int_equal(errno, EBUSY);
    wf_whole_drop(&second);
    assert_true(wf_whole_write(&first, &OLD[4], strlen(OLD) - 4));
    assert_true(wf_whole_end(&first, 0));
    assert_string_equal(text_of(place), OLD);
    assert_true(wf_whole_begin(&second, AT_FDCWD, place, 0600));
    assert_true(wf_whole_write(&second, NEW, 4));
    wf_whole_drop(&second);
    assert_string_equal(text_of(place), OLD);
    assert_int_equal(entries(), 1);
}

static void what_lies_beside_it_is_not_followed(void **state)
{
    (void)state;
    char other[96];
    snprintf(other, sizeof other, "%s/other", folder);
    assert_true(wf_whole_put(AT_FDCWD, other, 0600, OLD, strlen(OLD), 0));
    assert_int_equal(symlink("other", beside), 0);
    assert_true(put(NEW, 0));
    assert_string_equal(text_of(other), OLD);
    assert_string_equal(text_of(place), NEW);
    assert_int_equal(entries(), 2);
    assert_int_equal(mkdir(beside, 0700), 0);
    assert_false(put(OLD, 0));
    assert_int_equal(errno, EISDIR);
    assert_int_equal(rmdir(beside), 0); /* it stays, being nobody's leftover */
    assert_string_equal(text_of(place), NEW);
}

static void what_is_no_name_is_refused(void **state)
{
    (void)state;
    struct wf_whole file;
    char longest[NAME_MAX + 1], path[PATH_MAX];
    assert_false(wf_whole_begin(&file, AT_FDCWD, "", 0600));
    assert_false(wf_whole_begin(&file, AT_FDCWD, "/tmp/", 0600));
    assert_int_equal(errno, EISDIR);
    memset(longest, 'x', NAME_MAX);
    longest[NAME_MAX] = '\0'; /* a name, but none that may be longer */
    snprintf(path, sizeof path, "%s/%s", folder, longest);
    assert_false(wf_whole_begin(&file, AT_FDCWD, path, 0600));
    assert_int_equal(errno, ENAMETOOLONG);
    longest[NAME_MAX - strlen(WF_WHOLE_SUFFIX)] = '\0';
    snprintf(path, sizeof path, "%s/%s", folder, longest);
    assert_true(wf_whole_put(AT_FDCWD, path, 0600, OLD, strlen(OLD), 0));
    assert_string_equal(text_of(path), OLD);
    snprintf(path, sizeof path, "%s/none/file", folder);
    assert_false(wf_whole_begin(&file, AT_FDCWD, path, 0600));
    assert_int_equal(errno, ENOENT);
}

/* ----------------------------------------------------------------------------------- who dies */

/* This program once more, which puts NEW there, with a point to die at or a call to fail. */
static int child(const char *variable, const char *at)
{
    int how = -1;
    pid_t pid = fork();
    if (pid == 0) {
        setenv(variable, at, 1);
        execl("/proc/self/exe", "whole", "--put", place, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return how;
}

static void whoever_is_killed_leaves_one_or_the_other(void **state)
{
    (void)state;
    assert_true(put(OLD, WF_WHOLE_SYNC));
    int how = child("WEFT_CRASH_AT", "whole.written");
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_string_equal(text_of(place), OLD);
    assert_non_null(text_of(beside));
    assert_true(put(OLD OLD, 0)); /* the next one replaces what that left */
    assert_string_equal(text_of(place), OLD OLD);
    assert_int_equal(entries(), 1);
    how = child("WEFT_CRASH_AT", "whole.renamed");
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_string_equal(text_of(place), NEW);
    assert_int_equal(entries(), 1);
}

static void each_failure_leaves_one_or_the_other(void **state)
{
    (void)state;
    int failures = 0;
    for (;; failures++) {
        char at[16];
        assert_true(put(OLD, 0));
        snprintf(at, sizeof at, "%d", failures + 1);
        int how = child("WEFT_FAIL_AT", at);
        assert_true(WIFEXITED(how));
        bool done = WEXITSTATUS(how) == 0;
        assert_true(done || WEXITSTATUS(how) == 1);
        /* Its name was all that could not be synced: that is the last call that can fail. */
        const char *text = text_of(place);
        assert_non_null(text);
        assert_true(strcmp(text, NEW) == 0 || (!done && strcmp(text, OLD) == 0));
        assert_int_equal(entries(), 1);
        if (done)
            break;
    }
    assert_int_equal(failures, 5); /* open, write, fsync, rename, fsync */
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--put") == 0)
        return wf_whole_put(AT_FDCWD, argv[2], 0600, NEW, strlen(NEW), WF_WHOLE_SYNC) ? 0 : 1;
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, prepare, clear)
        TEST(what_was_there_stays_until_the_end),
        TEST(a_folder_that_is_open_will_do),
        TEST(what_has_no_room_leaves_nothing),
        TEST(who_came_first_is_not_replaced),
        TEST(two_at_once_do_not_meet),
        TEST(what_lies_beside_it_is_not_followed),
        TEST(what_is_no_name_is_refused),
        TEST(whoever_is_killed_leaves_one_or_the_other),
        TEST(each_failure_leaves_one_or_the_other),
    };
    (void)signal(SIGXFSZ, SIG_IGN); /* the limit is to be an error */
    (void)umask(022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
