/* SPDX-License-Identifier: Apache-2.0 */
#include "weftd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS_MAX 60000
#define STOP_MS_MAX 60000
#define ARGUMENTS_MAX 64

static void give_up(const char *what)
{
    fprintf(stderr, "# weftd for a test: %s: %s\n", what, strerror(errno));
    exit(1);
}

void weftd_sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

void weftd_prepare(struct weftd *node)
{
    static const char bytes[] = "a secret of more than thirty-two bytes, for tests alone";
    *node = (struct weftd){.pid = 0};
    snprintf(node->directory, sizeof node->directory, "/tmp/weft-test.XXXXXX");
    if (!mkdtemp(node->directory))
        give_up("mkdtemp");
    chmod(node->directory, 0755); /* tests become other users */
    snprintf(node->socket, sizeof node->socket, "%s/weftd.sock", node->directory);
    snprintf(node->secret, sizeof node->secret, "%s/secret", node->directory);
    snprintf(node->log, sizeof node->log, "%s/log", node->directory);
    int fd = open(node->secret, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes)
        give_up(node->secret);
    close(fd);
}

static void become_weftd(const struct weftd *node, const char *const *settings,
                         const char *const *variables, pid_t parent)
{
    const char *arguments[ARGUMENTS_MAX] = {WEFTD_PATH, "--set"};
    char socket[128], secret[160];
    size_t count = 2;
    snprintf(socket, sizeof socket, "socket=%s", node->socket);
    snprintf(secret, sizeof secret, "domain.default.secret_file=%s", node->secret);
    const char *const usual[] = {socket,
                                 secret,
                                 "http.listen=off",
                                 "pool.size=64MB",
                                 "pool.huge=off",
                                 "pool.size_max=64MB",
                                 "limits.clients=32",
                                 "log.level=warn",
                                 NULL};
    for (size_t i = 0; usual[i]; i++) {
        if (i)
            arguments[count++] = "--set";
        arguments[count++] = usual[i];
    }
    for (size_t i = 0; settings && settings[i] && count + 3 < ARGUMENTS_MAX; i++) {
        arguments[count++] = "--set";
        arguments[count++] = settings[i];
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    int fd = open(node->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(127);
    struct rlimit limit = {node->open_files, node->open_files};
    if (node->open_files && setrlimit(RLIMIT_NOFILE, &limit) != 0)
        _exit(127);
    char state[sizeof node->directory + 8];
    snprintf(state, sizeof state, "%s/state", node->directory);
    setenv("WEFT_CONFIG", "/dev/null", 1);
    setenv("WEFT_STATE_DIR", state, 1);
    unsetenv("WEFT_CRASH_AT");
    unsetenv("WEFT_FAIL_AT");
    for (size_t i = 0; variables && variables[i]; i++)
        putenv((char *)(uintptr_t)variables[i]);
    execv(WEFTD_PATH, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

void weftd_spawn(struct weftd *node, const char *const *settings, const char *const *variables)
{
    pid_t parent = getpid();
    node->pid = fork();
    if (node->pid < 0)
        give_up("fork");
    if (node->pid == 0)
        become_weftd(node, settings, variables, parent);
}

bool weftd_start(struct weftd *node, const char *const *settings, const char *const *variables)
{
    weftd_spawn(node, settings, variables);
    return weftd_answers(node);
}

bool weftd_answers(struct weftd *node)
{
    struct stat info;
    for (int waited = 0; waited < START_MS_MAX; waited += 5) {
        /* A socket that a dead node left behind is there too: only who answers has started. */
        struct weft_connect_options options = {.socket = node->socket, .domain = "none at all"};
        struct weft *w;
        if (stat(node->socket, &info) == 0) {
            enum weft_status status = weft_connect(&options, &w);
            if (status == WEFT_E_NOT_FOUND || status == WEFT_E_LIMIT)
                return true;
        }
        if (weftd_wait(node, 0) != -1)
            return false;
        weftd_sleep_ms(5);
    }
    weftd_kill(node);
    return false;
}

void weftd_run(struct weftd *node, const char *const *settings)
{
    weftd_prepare(node);
    if (weftd_start(node, settings, NULL))
        return;
    weftd_show_log(node);
    weftd_clean(node);
    errno = ECHILD;
    give_up(WEFTD_PATH);
}

int weftd_wait(struct weftd *node, int ms)
{
    int status = 0;
    for (int waited = 0;; waited += 5) {
        pid_t got = node->pid ? waitpid(node->pid, &status, WNOHANG) : -1;
        if (got == node->pid || got < 0) {
            node->pid = 0;
            return status;
        }
        if (waited >= ms)
            return -1;
        weftd_sleep_ms(5);
    }
}

bool weftd_stop(struct weftd *node)
{
    if (!node->pid)
        return false;
    kill(node->pid, SIGTERM);
    int status = weftd_wait(node, STOP_MS_MAX);
    if (status == -1)
        weftd_kill(node);
    return status == 0;
}

void weftd_kill(struct weftd *node)
{
    if (node->pid) {
        kill(node->pid, SIGKILL);
        waitpid(node->pid, NULL, 0);
    }
    node->pid = 0;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

void weftd_clean(struct weftd *node)
{
    weftd_kill(node);
    if (node->directory[0])
        (void)nftw(node->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void weftd_show_log(const struct weftd *node)
{
    char line[512];
    FILE *file = fopen(node->log, "re");
    while (file && fgets(line, sizeof line, file))
        fprintf(stderr, "# weftd: %s", line);
    if (file)
        fclose(file);
}

struct weft *weftd_connect(const struct weftd *node, const char *domain)
{
    struct weft *w;
    struct weft_connect_options options = {.socket = node->socket,
                                           .domain = domain,
                                           .timeout_ms = 20000};
    return weft_connect(&options, &w) == WEFT_OK ? w : NULL;
}

/* "a.b" inside `object`; takes the reference. */
static int64_t number_in(json_t *object, const char *name)
{
    const json_t *at = object;
    char word[64];
    for (const char *from = name; at && *from;) {
        size_t length = strcspn(from, ".");
        snprintf(word, sizeof word, "%.*s", (int)length, from);
        at = json_object_get(at, word);
        from += length + (from[length] == '.');
    }
    int64_t value = json_is_integer(at) ? json_integer_value(at) : INT64_MIN;
    json_decref(object);
    return value;
}

int64_t weftd_number(struct weft *w, const char *domain, const char *name)
{
    char *text;
    if (weft_query(w, domain ? "domains" : "status", 0, &text) != WEFT_OK)
        return INT64_MIN;
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    if (!domain)
        return number_in(all, name);
    size_t i;
    json_t *row, *found = NULL;
    json_array_foreach (json_object_get(all, "domains"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), domain) == 0)
            found = row;
    if (found)
        json_incref(found);
    json_decref(all);
    return found ? number_in(found, name) : INT64_MIN;
}

/* Events come in pages, the oldest first: what is new is on the last. */
bool weftd_told(struct weft *w, const char *word, int wait_ms)
{
    bool found = false;
    uint64_t cursor = 0;
    for (int waited = 0; !found && waited <= wait_ms;) {
        char *text;
        if (weft_query(w, "events", cursor, &text) != WEFT_OK)
            return false;
        found = strstr(text, word) != NULL;
        json_t *page = json_loads(text, 0, NULL);
        weft_text_free(text);
        cursor = (uint64_t)json_integer_value(json_object_get(page, "last"));
        bool more = json_integer_value(json_object_get(page, "next")) != 0;
        json_decref(page);
        if (!found && !more) {
            weftd_sleep_ms(5);
            waited += 5;
        }
    }
    return found;
}

bool weftd_settles(struct weft *w, const char *domain, const char *name, int64_t value)
{
    int64_t is = INT64_MIN;
    for (int waited = 0; waited < 10000; waited += 10) {
        is = weftd_number(w, domain, name);
        if (is == value)
            return true;
        weftd_sleep_ms(10);
    }
    fprintf(stderr, "# %s %s is %lld and not %lld (%s)\n", domain ? domain : "node", name,
            (long long)is, (long long)value, weft_last_error());
    return false;
}

struct weft_format *weftd_format(struct weft *w, const char *model, uint64_t block_bytes)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = model,
                                    .layers = 2,
                                    .kv_heads = 2,
                                    .head_dim = 8,
                                    .dtype = WEFT_F16,
                                    .block_tokens = 4,
                                    .block_bytes = block_bytes};
    return weft_format_open(w, &spec, &f) == WEFT_OK ? f : NULL;
}
