/* SPDX-License-Identifier: Apache-2.0
 *
 * The folder of profiles: what is in it is used for the formats that it fits and no others, the
 * newest first; what is none, or lies, is refused and does no harm; what goes is used no more to
 * write, and stays for who reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../support/profile.h"
#include "daemon/node.h"
#include "daemon/profiles.h"

#define JOBS 8u

static char folder[] = "/tmp/weft-profiles.XXXXXX";
static struct wf_node node;

static const char *path_of(const char *name)
{
    static char path[2][320];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* So that nobody takes it for a copy under way, and in the order of `age`. */
static void aged(const char *name, time_t age)
{
    struct timespec times[2] = {{time(NULL) - age, 0}, {time(NULL) - age, 0}};
    assert_int_equal(utimensat(AT_FDCWD, path_of(name), times, 0), 0);
}

static void make(const char *name, const char *model, uint16_t finer, time_t age)
{
    profile_make(model, finer, path_of(name));
    aged(name, age);
}

static void write_file(const char *name, const void *bytes, size_t count)
{
    FILE *file = fopen(path_of(name), "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
    aged(name, 10);
}

static struct wf_format_open format_of(const char *model)
{
    struct wf_format_open format = {.layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS,
                                    .model_bytes = (uint32_t)strlen(model)};
    snprintf(format.model, sizeof format.model, "%s", model);
    return format;
}

static const char *chosen(const struct wf_profiles *p, const struct wf_format_open *format)
{
    const struct wf_profile *profile = wf_profiles_for(p, format);
    return profile ? wf_profiles_name(p, profile) : NULL;
}

static struct wf_profiles *open_all(void)
{
    struct wf_profiles *p;
    assert_int_equal(wf_profiles_create(&node, &p), WEFT_OK);
    return p;
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/weft-profiles.XXXXXX");
    memset(&node, 0, sizeof node);
    assert_non_null(mkdtemp(folder));
    snprintf(node.config.profiles, sizeof node.config.profiles, "%s", folder);
    return wf_workers_create(1, JOBS, &node.workers) != WEFT_OK;
}

static int teardown(void **state)
{
    (void)state;
    wf_workers_destroy(node.workers);
    DIR *all = opendir(folder);
    const struct dirent *entry;
    while (all && (entry = readdir(all)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)remove(path_of(entry->d_name));
    if (all)
        closedir(all);
    return rmdir(folder);
}

static void the_newest_that_fits_is_used(void **state)
{
    (void)state;
    make("a.wfprofile", "one", 0, 100);
    make("b.wfprofile", "one", 8, 50);
    make("c.wfprofile", "two", 0, 10);
    make("d.profile", "three", 0, 10);
    make(".e.wfprofile", "three", 0, 10);
    struct wf_profiles *p = open_all();
    struct wf_format_open one = format_of("one"), two = format_of("two");
    struct wf_format_open three = format_of("three");
    assert_string_equal(chosen(p, &one), "b.wfprofile");
    assert_string_equal(chosen(p, &two), "c.wfprofile");
    assert_null(chosen(p, &three));
    wf_profiles_destroy(p);
}

/* As some archivers unpack files. */
static void what_has_no_time_is_used(void **state)
{
    (void)state;
    static const struct timespec none[2] = {{0, 0}, {0, 0}};
    make("a.wfprofile", "one", 0, 100);
    assert_int_equal(utimensat(AT_FDCWD, path_of("a.wfprofile"), none, 0), 0);
    struct wf_profiles *p = open_all();
    struct wf_format_open one = format_of("one");
    assert_string_equal(chosen(p, &one), "a.wfprofile");
    wf_profiles_destroy(p);
}

static void what_does_not_fit_is_not_used(void **state)
{
    (void)state;
    make("a.wfprofile", "one", 0, 100);
    struct wf_profiles *p = open_all();
    struct wf_format_open format = format_of("one");
    assert_non_null(chosen(p, &format));
#define WITHOUT(change)                                 \
    do {                                                \
        struct wf_format_open other = format_of("one"); \
        change;                                         \
        assert_null(chosen(p, &other));                 \
    } while (0)
    WITHOUT(other.layers++);
    WITHOUT(other.kv_heads++);
    WITHOUT(other.head_dim++);
    WITHOUT(other.dtype = WEFT_INT8);
    WITHOUT(other.dtype = WEFT_FP8_E4M3);
    WITHOUT(other.tp_size = 2);
    WITHOUT(other.adapter_bytes = 1);
    WITHOUT(other.block_bytes = PROFILE_BLOCK_BYTES);
    WITHOUT(other.rope_theta = 10000); /* its keys are not turned */
    WITHOUT(other.model[0] = 'O');
#undef WITHOUT
    format.dtype = WEFT_F16;
    format.tp_size = 1;
    assert_non_null(chosen(p, &format));
    wf_profiles_destroy(p);
}

static void what_differs_is_said(void **state)
{
    (void)state;
    char why[256];
    make("a.wfprofile", "one", 0, 100);
    struct wf_profiles *p = open_all();
#define SAYS(change, can_be, sentence)                                         \
    do {                                                                       \
        struct wf_format_open other = format_of("one");                        \
        change;                                                                \
        assert_int_equal(wf_profiles_why(p, &other, why, sizeof why), can_be); \
        assert_string_equal(why, sentence);                                    \
    } while (0)
    SAYS(other.model[0] = 'O', true, "none names that model");
    SAYS(other.layers++, true, "a.wfprofile is for 2 layers, not 3");
    SAYS(other.dtype = WEFT_FP8_E5M2, true, "a.wfprofile is for bf16, not fp8_e5m2");
    SAYS((other.kv_heads++, other.rope_theta = 5e5), true,
         "a.wfprofile is for 4 KV heads, not 5; keys that are not turned, not 500000");
    SAYS(other.block_bytes = 4096, false, "there can be none where blocks are opaque");
#undef SAYS
    wf_profiles_destroy(p);
}

static void what_is_none_does_no_harm(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 20];
    make("good.wfprofile", "one", 0, 100);
    FILE *file = fopen(path_of("good.wfprofile"), "rbe");
    size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    write_file("short.wfprofile", bytes, count - 1);
    write_file("empty.wfprofile", bytes, 0);
    write_file("head.wfprofile", bytes, sizeof(struct wf_profile_head));
    bytes[count - 3] ^= 1;
    write_file("flipped.wfprofile", bytes, count);
    write_file("text.wfprofile", "no profile at all", 17);
    assert_int_equal(mkdir(path_of("folder.wfprofile"), 0700), 0);
    assert_int_equal(mkfifo(path_of("pipe.wfprofile"), 0600), 0);
    assert_int_equal(symlink("/dev/zero", path_of("zero.wfprofile")), 0);
    assert_int_equal(symlink("nowhere", path_of("dangling.wfprofile")), 0);
    struct wf_profiles *p = open_all();
    struct wf_format_open one = format_of("one");
    assert_string_equal(chosen(p, &one), "good.wfprofile");
    assert_null(wf_profiles_by_id(p, 0));
    wf_profiles_destroy(p);
}

/* Its first bytes say what it is; so large a file would have been too much to read. */
static void what_cannot_be_one_is_not_read(void **state)
{
    (void)state;
    static const char *const why[] = {"its shape needs", "its first bytes are another file's"};
    for (size_t i = 0; i < 2; i++) {
        make("large.wfprofile", "one", 0, 100);
        int fd = open(path_of("large.wfprofile"), O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        if (i == 1)
            assert_int_equal(pwrite(fd, "no profile", 10, 0), 10);
        assert_int_equal(ftruncate(fd, 2 * (off_t)WF_PROFILES_BYTES_MAX), 0);
        assert_int_equal(close(fd), 0);
        aged("large.wfprofile", 10);
        struct wf_profiles *p = open_all();
        assert_non_null(strstr(wf_last_error(), why[i]));
        struct wf_format_open one = format_of("one");
        assert_null(chosen(p, &one));
        wf_profiles_destroy(p);
    }
}

static void there_are_no_more_than_there_may_be(void **state)
{
    (void)state;
    for (uint16_t i = 0; i < WF_PROFILES_MAX + 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "p%02u.wfprofile", i);
        make(name, "one", i, 100);
    }
    struct wf_profiles *p = open_all();
    struct wf_format_open one = format_of("one");
    assert_non_null(chosen(p, &one));
    wf_profiles_destroy(p);
}

/* As the owner thread does, until that format has another profile than `was`. */
static const char *by_and_by(struct wf_profiles *p, const struct wf_format_open *format,
                             const char *was)
{
    const char *is = chosen(p, format);
    for (int waited = 0; waited < 20000 && (was ? is && strcmp(is, was) == 0 : !is); waited += 20) {
        wf_profiles_tick(p);
        sleep_ms(20);
        wf_workers_reap(node.workers);
        is = chosen(p, format);
    }
    return is;
}

static void what_comes_later_is_found_and_what_goes_is_kept_for_readers(void **state)
{
    (void)state;
    struct wf_format_open one = format_of("one");
    struct wf_profiles *p = open_all();
    assert_null(chosen(p, &one));
    make("a.wfprofile", "one", 0, 100);
    assert_string_equal(by_and_by(p, &one, NULL), "a.wfprofile");
    const struct wf_profile *first = wf_profiles_for(p, &one);
    uint64_t id = first->id;
    make("b.wfprofile", "one", 8, 50);
    assert_string_equal(by_and_by(p, &one, "a.wfprofile"), "b.wfprofile");
    assert_int_equal(unlink(path_of("b.wfprofile")), 0);
    assert_string_equal(by_and_by(p, &one, "b.wfprofile"), "a.wfprofile");
    assert_int_equal(unlink(path_of("a.wfprofile")), 0);
    assert_null(by_and_by(p, &one, "a.wfprofile"));
    assert_ptr_equal(wf_profiles_by_id(p, id), first);
    /* One that is being written is not looked at before that is over. */
    profile_make("one", 0, path_of("c.wfprofile"));
    assert_string_equal(by_and_by(p, &one, NULL), "a.wfprofile"); /* it is the same */
    assert_int_equal(wf_profiles_for(p, &one)->id, id);
    wf_profiles_destroy(p);
}

/* The folder knows nothing of that: neither names nor its own time change. */
static void what_is_written_over_in_place_is_read_again(void **state)
{
    (void)state;
    static const struct timespec then[2] = {{1000000000, 0}, {1000000000, 0}};
    struct stat before, after;
    struct wf_format_open one = format_of("one"), two = format_of("two");
    make("a.wfprofile", "one", 0, 100);
    assert_int_equal(stat(path_of("a.wfprofile"), &before), 0);
    assert_int_equal(utimensat(AT_FDCWD, folder, then, 0), 0);
    struct wf_profiles *p = open_all();
    uint64_t id = wf_profiles_for(p, &one)->id;
    make("a.wfprofile", "two", 0, 50);
    assert_string_equal(by_and_by(p, &two, NULL), "a.wfprofile");
    assert_null(chosen(p, &one));
    assert_non_null(wf_profiles_by_id(p, id)); /* for who reads */

    /* Of one size, at one time. */
    make("a.wfprofile", "one", 0, 0);
    assert_int_equal(utimensat(AT_FDCWD, path_of("a.wfprofile"),
                               (struct timespec[2]){before.st_atim, before.st_mtim}, 0),
                     0);
    assert_string_equal(by_and_by(p, &one, NULL), "a.wfprofile");
    assert_int_equal(wf_profiles_for(p, &one)->id, id);
    assert_null(chosen(p, &two));

    /* What is none any more is used no more. */
    write_file("a.wfprofile", "no profile at all", 17);
    assert_null(by_and_by(p, &one, "a.wfprofile"));
    assert_int_equal(stat(folder, &after), 0);
    assert_int_equal(after.st_mtim.tv_sec, then[1].tv_sec);
    wf_profiles_destroy(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_newest_that_fits_is_used),
        TEST(what_has_no_time_is_used),
        TEST(what_does_not_fit_is_not_used),
        TEST(what_differs_is_said),
        TEST(what_is_none_does_no_harm),
        TEST(what_cannot_be_one_is_not_read),
        TEST(there_are_no_more_than_there_may_be),
        TEST(what_comes_later_is_found_and_what_goes_is_kept_for_readers),
        TEST(what_is_written_over_in_place_is_read_again),
    };
    return cmocka_run_group_tests_name("profiles", tests, NULL, NULL);
}
