/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the configuration share: an environment that says nothing, a directory of their
 * own, and a configuration that is parsed, refused or remarked upon.
 */
#ifndef TEST_UNIT_CONFIG_WORLD_H
#define TEST_UNIT_CONFIG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/config_fields.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static struct wf_config config;
#define DOMAINS (&wf_config_lists[WF_LIST_DOMAINS])
#define TIERS (&wf_config_lists[WF_LIST_TIERS])
#define ENGINES (&wf_config_lists[WF_LIST_ENGINES])
static char directory[] = "/tmp/weft-config-XXXXXX";

/* Every test starts in an environment that says nothing about Weft. */
static inline int clean_environment(void **state)
{
    (void)state;
    for (char **entry = environ; *entry;) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*entry, "="), *entry);
        if (strncmp(name, "WEFT_", 5) == 0) {
            unsetenv(name);
            entry = environ; /* unsetenv moved the rest */
        } else {
            entry++;
        }
    }
    return 0;
}

static inline int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static inline int remove_entry(const char *path, const struct stat *found, int type,
                               struct FTW *walk)
{
    (void)found, (void)type, (void)walk;
    return remove(path);
}

static inline int remove_directory(void **state)
{
    (void)state;
    return nftw(directory, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
}

/* printf() at the end of what is in `text`. */
static inline void append(char *text, size_t capacity, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline void append(char *text, size_t capacity, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text + used, capacity - used, format, arguments);
    va_end(arguments);
    assert_true(length >= 0 && (size_t)length < capacity - used);
}

static inline const char *write_file(const char *name, const char *text, mode_t mode)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    unlink(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

static inline enum weft_status parse(const char *yaml)
{
    wf_config_defaults(&config);
    enum weft_status status = wf_config_parse_yaml(yaml, strlen(yaml), "c.yaml", &config);
    return status == WEFT_OK ? wf_config_finish(&config) : status;
}

/* `yaml` is refused, with a sentence that has `sentence` in it. */
static inline void refused(const char *yaml, const char *sentence)
{
    if (parse(yaml) == WEFT_OK)
        fail_msg("accepted:\n%s", yaml);
    if (!strstr(wf_last_error(), sentence))
        fail_msg("of:\n%s\nit says: %s\nwithout: %s", yaml, wf_last_error(), sentence);
}

struct heard {
    char all[4096];
    int fatal, tiers, count;
};

static inline void hear(void *context, enum wf_remark_kind kind, const char *sentence)
{
    struct heard *heard = context;
    heard->count++;
    heard->fatal += kind == WF_REMARK_FATAL;
    heard->tiers += kind == WF_REMARK_TIER;
    append(heard->all, sizeof heard->all, "%s\n", sentence);
}

static inline struct heard remarks_on(const char *yaml)
{
    char path[160], socket[200], full[2048];
    snprintf(socket, sizeof socket, "%s/weftd.sock", directory);
    snprintf(full, sizeof full, "%s%s%s\n%s",
             strstr(yaml, "socket:") ? "" : "socket: ", strstr(yaml, "socket:") ? "" : socket, "",
             yaml);
    snprintf(path, sizeof path, "%s", write_file("check.yaml", full, 0644));
    if (wf_config_load(path, NULL, 0, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    struct heard heard = {0};
    enum weft_status status = wf_config_check(&config, hear, &heard);
    assert_int_equal(status, heard.fatal ? WEFT_E_INVALID : WEFT_OK);
    return heard;
}

static inline void said(struct heard heard, bool fatal, const char *sentence)
{
    if (!strstr(heard.all, sentence) || (heard.fatal > 0) != fatal)
        fail_msg("expected (fatal %d): %s\nheard (fatal %d): %s", fatal, sentence, heard.fatal,
                 heard.all);
}

#endif
