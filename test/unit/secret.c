/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a domain's secret comes from, that one which is kept is the same after any death, and that
 * one which others could know is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/secret.h"

static struct wf_config config;
static char directory[64];
static char kept[WF_PATH_MAX + 32]; /* where the secret of domain `default` is */

static int remove_entry(const char *path, const struct stat *found, int type, struct FTW *walk)
{
    (void)found, (void)type, (void)walk;
    return remove(path);
}

static int remove_directory(void **state)
{
    (void)state;
    return nftw(directory, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

/* One tier and a state directory that is not there yet. */
static int prepare(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/weft-secret-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    wf_log_level_set(WF_LOG_ERROR);
    wf_config_defaults(&config);
    config.tier_count = 1;
    snprintf(config.state_dir, sizeof config.state_dir, "%s/state", directory);
    snprintf(kept, sizeof kept, "%s/default.secret", config.state_dir);
    return 0;
}

static enum weft_status load(uint8_t out[WF_SECRET_BYTES_MAX], size_t *out_bytes)
{
    memset(out, 0xa5, WF_SECRET_BYTES_MAX);
    *out_bytes = 0;
    return wf_secret_load(&config, &config.domains[0], out, out_bytes);
}

static void loaded(uint8_t out[WF_SECRET_BYTES_MAX])
{
    size_t bytes;
    if (load(out, &bytes) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(bytes, WF_SECRET_BYTES_MIN);
}

/* It is refused with a sentence that has `sentence` in it, and nothing was written to the output.
 */
static void refused(enum weft_status expected, const char *sentence)
{
    uint8_t out[WF_SECRET_BYTES_MAX];
    size_t bytes;
    assert_int_equal(load(out, &bytes), expected);
    if (!strstr(wf_last_error(), sentence))
        fail_msg("it says: %s\nwithout: %s", wf_last_error(), sentence);
    assert_int_equal(bytes, 0);
    assert_int_equal(out[0], 0xa5);
}

static void write_bytes(const char *path, const void *bytes, size_t count, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static int entries(void)
{
    int count = 0;
    DIR *folder = opendir(config.state_dir);
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    if (folder)
        closedir(folder);
    return count;
}

static void without_tiers_every_start_has_another(void **state)
{
    (void)state;
    uint8_t first[WF_SECRET_BYTES_MAX], second[WF_SECRET_BYTES_MAX];
    config.tier_count = 0;
    loaded(first);
    loaded(second);
    assert_memory_not_equal(first, second, WF_SECRET_BYTES_MIN);
    assert_int_equal(access(config.state_dir, F_OK), -1);
}

static void with_tiers_it_is_the_same_again(void **state)
{
    (void)state;
    uint8_t first[WF_SECRET_BYTES_MAX], second[WF_SECRET_BYTES_MAX];
    struct stat found;
    loaded(first);
    loaded(second);
    assert_memory_equal(first, second, WF_SECRET_BYTES_MIN);
    assert_int_equal(stat(kept, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0600);
    assert_int_equal(found.st_size, WF_SECRET_BYTES_MIN);
    assert_int_equal(stat(config.state_dir, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0700);
    assert_int_equal(entries(), 1);
    /* Each domain has its own, whatever its name looks like. */
    snprintf(config.domains[0].name, sizeof config.domains[0].name, "..");
    loaded(second);
    assert_memory_not_equal(first, second, WF_SECRET_BYTES_MIN);
    snprintf(kept, sizeof kept, "%s/...secret", config.state_dir);
    assert_int_equal(access(kept, F_OK), 0);
}

static void a_file_of_ones_own_comes_first(void **state)
{
    (void)state;
    char path[128];
    uint8_t given[80], out[WF_SECRET_BYTES_MAX];
    size_t bytes;
    snprintf(path, sizeof path, "%s/given", directory);
    snprintf(config.domains[0].secret_file, sizeof config.domains[0].secret_file, "%s", path);
    refused(WEFT_E_SYSTEM, "given");
    for (size_t i = 0; i < sizeof given; i++)
        given[i] = (uint8_t)(i + 1);
    write_bytes(path, given, 31, 0600);
    refused(WEFT_E_INVALID, "has 31 bytes");
    write_bytes(path, given, 40, 0600);
    assert_int_equal(load(out, &bytes), WEFT_OK);
    assert_int_equal(bytes, 40);
    assert_memory_equal(out, given, 40);
    write_bytes(path, given, 80, 0600); /* no more than HMAC takes as it is */
    assert_int_equal(load(out, &bytes), WEFT_OK);
    assert_int_equal(bytes, WF_SECRET_BYTES_MAX);
    assert_memory_equal(out, given, WF_SECRET_BYTES_MAX);
    assert_int_equal(access(config.state_dir, F_OK), -1);
}

static void one_that_others_could_know_is_refused(void **state)
{
    (void)state;
    uint8_t first[WF_SECRET_BYTES_MAX], again[WF_SECRET_BYTES_MAX];
    char elsewhere[128];
    loaded(first);
    assert_int_equal(chmod(kept, 0640), 0);
    refused(WEFT_E_DENIED, "chmod 0600");
    assert_int_equal(chmod(kept, 0602), 0);
    refused(WEFT_E_DENIED, "chmod 0600");
    assert_int_equal(chmod(kept, 0600), 0);
    loaded(again);
    assert_memory_equal(first, again, WF_SECRET_BYTES_MIN);
    assert_int_equal(chmod(config.state_dir, 0777), 0);
    refused(WEFT_E_DENIED, "chmod go-w");
    assert_int_equal(chmod(config.state_dir, 0700), 0);

    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", directory);
    write_bytes(elsewhere, first, WF_SECRET_BYTES_MIN, 0600);
    assert_int_equal(unlink(kept), 0);
    assert_int_equal(symlink(elsewhere, kept), 0);
    refused(WEFT_E_SYSTEM, "cannot open");
    assert_int_equal(unlink(kept), 0);
    assert_int_equal(mkfifo(kept, 0600), 0); /* would wait for a writer for ever */
    refused(WEFT_E_INVALID, "is not a file");
}

static void one_of_another_user_is_refused(void **state)
{
    (void)state;
    uint8_t first[WF_SECRET_BYTES_MAX];
    if (geteuid() != 0) {
        print_message("only root can give a file to another user\n");
        skip();
    }
    loaded(first);
    assert_int_equal(chown(kept, 12345, (gid_t)-1), 0);
    refused(WEFT_E_DENIED, "belongs to uid 12345");
}

static void one_of_the_wrong_size_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[64] = {1}, first[WF_SECRET_BYTES_MAX];
    loaded(first);
    static const size_t sizes[] = {0, 1, 31, 33, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        write_bytes(kept, bytes, sizes[i], 0600);
        refused(WEFT_E_INVALID, "and should have 32");
        struct stat found; /* never replaced: somebody may have the right one */
        assert_int_equal(stat(kept, &found), 0);
        assert_int_equal(found.st_size, sizes[i]);
    }
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    write_bytes(config.state_dir, "x", 1, 0600);
    refused(WEFT_E_SYSTEM, "is not a directory");
    assert_int_equal(unlink(config.state_dir), 0);
    snprintf(config.state_dir, sizeof config.state_dir, "/proc/weft/state");
    refused(WEFT_E_SYSTEM, "state_dir");
}

/* ----------------------------------------------------------------------------------- who dies */

/* This program once more, with a point to die at or an operation to fail; prints the secret. */
static int child(const char *variable, const char *at, uint8_t out[WF_SECRET_BYTES_MIN])
{
    int ends[2], how = -1;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (variable)
            setenv(variable, at, 1);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/proc/self/exe", "secret", "--load", config.state_dir, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], out, WF_SECRET_BYTES_MIN);
    close(ends[0]);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
        assert_int_equal(got, WF_SECRET_BYTES_MIN);
    return how;
}

static int load_in_child(const char *state_dir)
{
    uint8_t out[WF_SECRET_BYTES_MAX];
    size_t bytes;
    wf_log_level_set(WF_LOG_ERROR);
    wf_config_defaults(&config);
    config.tier_count = 1;
    snprintf(config.state_dir, sizeof config.state_dir, "%s", state_dir);
    if (load(out, &bytes) != WEFT_OK)
        return 1;
    return write(STDOUT_FILENO, out, bytes) == (ssize_t)bytes ? 0 : 2;
}

static void a_node_that_dies_leaves_none_or_a_whole_one(void **state)
{
    (void)state;
    uint8_t none[WF_SECRET_BYTES_MIN], first[WF_SECRET_BYTES_MAX], second[WF_SECRET_BYTES_MIN];
    int how = child("WEFT_CRASH_AT", "whole.written", none);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_int_equal(access(kept, F_OK), -1); /* written beside its place only */
    assert_int_equal(entries(), 1);
    how = child("WEFT_CRASH_AT", "whole.renamed", none);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_equal(entries(), 1); /* what the first one left is gone */
    loaded(first);
    assert_int_equal(child(NULL, NULL, second), 0);
    assert_memory_equal(first, second, WF_SECRET_BYTES_MIN);
}

/* Each operation fails in turn: no secret, or a whole one, and nothing beside it. */
static void each_failure_leaves_none_or_a_whole_one(void **state)
{
    (void)state;
    uint8_t out[WF_SECRET_BYTES_MIN];
    char at[16];
    int failures = 0;
    for (int n = 1;; n++) {
        snprintf(at, sizeof at, "%d", n);
        int how = child("WEFT_FAIL_AT", at, out);
        assert_true(WIFEXITED(how));
        struct stat found;
        bool there = stat(kept, &found) == 0;
        assert_int_equal(entries(), there);
        if (there)
            assert_int_equal(found.st_size, WF_SECRET_BYTES_MIN);
        (void)unlink(kept);
        if (WEXITSTATUS(how) == 0)
            break;
        failures++;
    }
    assert_true(failures >= 6);
}

/* Nodes that start at once agree. */
static void many_at_once_have_the_same(void **state)
{
    (void)state;
    enum { MANY = 8 };
    int ends[MANY][2];
    uint8_t first[WF_SECRET_BYTES_MIN], other[WF_SECRET_BYTES_MIN];
    pid_t pids[MANY];
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(pipe(ends[i]), 0);
        pids[i] = fork();
        if (pids[i] == 0) {
            dup2(ends[i][1], STDOUT_FILENO);
            execl("/proc/self/exe", "secret", "--load", config.state_dir, (char *)NULL);
            _exit(127);
        }
        close(ends[i][1]);
    }
    for (int i = 0; i < MANY; i++) {
        int how = -1;
        assert_int_equal(read(ends[i][0], i ? other : first, WF_SECRET_BYTES_MIN),
                         WF_SECRET_BYTES_MIN);
        close(ends[i][0]);
        assert_int_equal(waitpid(pids[i], &how, 0), pids[i]);
        assert_int_equal(how, 0);
        if (i)
            assert_memory_equal(first, other, WF_SECRET_BYTES_MIN);
    }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, prepare, remove_directory)

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--load") == 0)
        return load_in_child(argv[2]);
    const struct CMUnitTest tests[] = {
        TEST(without_tiers_every_start_has_another),
        TEST(with_tiers_it_is_the_same_again),
        TEST(a_file_of_ones_own_comes_first),
        TEST(one_that_others_could_know_is_refused),
        TEST(one_of_another_user_is_refused),
        TEST(one_of_the_wrong_size_is_refused),
        TEST(a_place_that_cannot_be_written_is_named),
        TEST(a_node_that_dies_leaves_none_or_a_whole_one),
        TEST(each_failure_leaves_none_or_a_whole_one),
        TEST(many_at_once_have_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
