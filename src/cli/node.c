/* SPDX-License-Identifier: Apache-2.0
 *
 * A node to talk to: the one that is asked for, the one that runs here, or one of the command's
 * own.
 *
 * A node of one's own lives in a folder under $TMPDIR with its socket, its log and an empty
 * configuration file; it is told everything by environment variables, so that no setting of the
 * user's node leaks into a measurement.  It ends with the command: normally by wf_cli_node_stop(),
 * after a signal by the handler here, and should the command be killed outright, by the
 * parent-death signal.  The folder is left then; it says whose it was, weft-PID-XXXXXX, and the
 * next command that starts a node removes it.
 *
 * A tier's file lies in a second folder of such a name, where the caller says that its device is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

#define START_S 60.0 /* taking all of a large pool's memory takes seconds */
#define QUERY_PAGES_MAX 65536
#define STALE_ENTRIES_MAX 4096 /* of $TMPDIR that are looked at for folders left behind */
#define STALE_FOLDERS_MAX 64   /* that one start removes */
#define FOLDER_BASE_MAX 40     /* a socket's path has 107 bytes at most */
#define ARGUMENTS_MAX 64
#define TIER_LEAST (2u << 20) /* what weftd can make a tier of, with some to spare */
#define HALTS 3000            /* of ten milliseconds */

static struct cli_node *started; /* for the signal handler; one a process */
static pid_t owner_pid;

static enum weft_status connect_to(struct cli *cli, const char *socket)
{
    return weft_connect(&(struct weft_connect_options){.socket = socket,
                                                       .domain = cli->domain,
                                                       .token = cli->token},
                        &cli->weft);
}

int wf_cli_connect(struct cli *cli)
{
    enum weft_status status = connect_to(cli, cli->socket);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_connect(cli, status);
}

/* Add the lists of `page` to those of `whole`; what is no list, like the cursor of a follower, is
 * the last page's. */
static void pages_join(json_t *whole, json_t *page)
{
    const char *key;
    json_t *value;
    json_object_foreach (page, key, value) {
        json_t *list = json_object_get(whole, key);
        if (json_is_array(list))
            json_array_extend(list, value);
        else
            json_object_set(whole, key, value);
    }
}

json_t *wf_cli_ask(struct cli *cli, const char *what)
{
    char *text = NULL;
    json_t *answer = weft_query(cli->weft, what, 0, &text) == WEFT_OK ? json_loads(text, 0, NULL)
                                                                      : NULL;
    weft_text_free(text);
    return answer;
}

json_t *wf_cli_domain_ask(struct cli *cli)
{
    const char *mine = cli->domain ? cli->domain : getenv("WEFT_DOMAIN");
    json_t *answer = wf_cli_ask(cli, "domains"), *domain, *found = NULL;
    size_t index;
    json_array_foreach (json_object_get(answer, "domains"), index, domain) {
        const char *name = json_string_value(json_object_get(domain, "name"));
        if (!found && name && strcmp(name, mine && *mine ? mine : "default") == 0)
            found = json_incref(domain);
    }
    json_decref(answer);
    return found;
}

int wf_cli_query(struct cli *cli, const char *what, uint64_t cursor, uint64_t rows_max,
                 json_t **out)
{
    json_t *whole = NULL;
    char list[32]; /* what is asked for, without the words that narrow it */
    snprintf(list, sizeof list, "%.*s", (int)strcspn(what, " "), what);
    for (int i = 0; i < QUERY_PAGES_MAX; i++) {
        char *text = NULL;
        enum weft_status status = weft_query(cli->weft, what, cursor, &text);
        if (status != WEFT_OK) {
            json_decref(whole);
            /* Of what is not there or not understood, the node's sentence says all. */
            bool says = status == WEFT_E_NOT_FOUND || status == WEFT_E_INVALID;
            return wf_cli_fail_status(cli, status, says ? NULL : "the node has no answer");
        }
        json_error_t error;
        json_t *page = json_loads(text, 0, &error);
        weft_text_free(text);
        if (!json_is_object(page)) {
            json_decref(page);
            json_decref(whole);
            return wf_cli_fail(cli, CLI_NODE,
                               "the node's answer to '%s' is not a JSON object (%s); is it a weftd "
                               "of version %s?",
                               what, error.text, weft_version());
        }
        cursor = (uint64_t)json_integer_value(json_object_get(page, "next"));
        if (!whole) {
            whole = page;
        } else {
            pages_join(whole, page);
            json_decref(page);
        }
        if (!cursor || (rows_max && json_array_size(json_object_get(whole, list)) >= rows_max))
            break;
    }
    json_object_del(whole, "next");
    *out = whole;
    return CLI_OK;
}

/* ------------------------------------------------------------------------- a node of one's own */

#define STATE_ROUNDS_MAX 8 /* of a page of entries: a node without more tiers has a few */

/* What the node keeps for its next start has names of its own making.  readdir() allocates, which a
 * signal handler may not. */
static void state_remove(int folder)
{
    _Alignas(struct dirent64) char page[4096];
    int state = openat(folder, "state", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (state < 0)
        return;
    for (int round = 0; round < STATE_ROUNDS_MAX; round++) {
        /* Nothing but the system call. NOLINTNEXTLINE(bugprone-signal-handler,cert-sig30-c) */
        long bytes = syscall(SYS_getdents64, state, page, sizeof page);
        bool some = false;
        for (long at = 0; at < bytes;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(page + at);
            some |= unlinkat(state, entry->d_name, 0) == 0;
            at += entry->d_reclen;
        }
        if (!some || lseek(state, 0, SEEK_SET) != 0)
            break;
    }
    close(state);
    unlinkat(folder, "state", AT_REMOVEDIR);
}

/* Unlinks by names in the folder, with nothing to format: this also runs in a signal handler. */
static void folder_remove(const char *path)
{
    static const char *const files[] = {"weftd.sock", "weftd.sock.lock", "weftd.yaml",
                                        "weftd.log",  "nvme.weft",       CLI_YARDSTICK};
    if (!path[0])
        return;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; folder >= 0 && i < sizeof files / sizeof files[0]; i++)
        unlinkat(folder, files[i], 0);
    if (folder >= 0) {
        state_remove(folder);
        close(folder);
    }
    rmdir(path);
}

static void on_signal(int number)
{
    if (started && started->pid > 0 && getpid() == owner_pid) {
        kill(started->pid, SIGTERM);
        waitpid(started->pid, NULL, 0);
        folder_remove(started->folder);
        folder_remove(started->below);
    }
    _exit(128 + number);
}

static void variables_set(const struct cli_node *node)
{
    char *names[256];
    int count = 0;
    for (char **entry = environ; *entry && count < 256; entry++)
        if (strncmp(*entry, "WEFT_", 5) == 0)
            names[count++] = strndup(*entry, strcspn(*entry, "="));
    for (int i = 0; i < count; i++)
        unsetenv(names[i]);
    char text[128];
    snprintf(text, sizeof text, "%s/weftd.yaml", node->folder);
    setenv("WEFT_CONFIG", text, 1);
    setenv("WEFT_SOCKET", node->socket, 1);
    setenv("WEFT_HTTP_LISTEN", "off", 1);
    setenv("WEFT_LOG_LEVEL", "warn", 1);
    snprintf(text, sizeof text, "%s/state", node->folder);
    setenv("WEFT_STATE_DIR", text, 1);
    snprintf(text, sizeof text, "%llu", (unsigned long long)node->plan.pool_bytes);
    setenv("WEFT_POOL_SIZE", text, 1);
    setenv("WEFT_POOL_SIZE_MAX", text, 1);
}

/* What weftd is told of its tier, and what the caller adds. */
static void arguments_make(const struct cli_node *node, const char *program,
                           char *out[ARGUMENTS_MAX])
{
    const struct cli_node_plan *plan = &node->plan;
    static char path[PATH_MAX + 32], size[64];
    int count = 0;
    out[count++] = (char *)(uintptr_t)program;
    if (node->below[0]) {
        snprintf(path, sizeof path, "tier.nvme0.path=%s", node->below);
        snprintf(size, sizeof size, "tier.nvme0.size=%llu", (unsigned long long)plan->tier_bytes);
        char *tier[] = {"--set", "tiers=nvme0", "--set", path, "--set", size};
        for (size_t i = 0; i < sizeof tier / sizeof tier[0]; i++)
            out[count++] = tier[i];
    }
    for (int i = 0; plan->settings && plan->settings[i] && count < ARGUMENTS_MAX - 2; i++) {
        out[count++] = "--set";
        out[count++] = (char *)(uintptr_t)plan->settings[i];
    }
    out[count] = NULL;
}

static void child_run(const struct cli_node *node, const char *program, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    char path[128];
    snprintf(path, sizeof path, "%s/weftd.log", node->folder);
    int log = open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(1);
    setpgid(0, 0); /* Ctrl-C is for the command, which then stops the node in order */
    variables_set(node);
    char *arguments[ARGUMENTS_MAX];
    arguments_make(node, program, arguments);
    execv(program, arguments);
    fprintf(stderr, "cannot run %s: %s\n", program, strerror(errno));
    _exit(127);
}

/* The last line of what the node said. */
static void log_tail(const struct cli_node *node, char *out, size_t capacity)
{
    char path[128], line[512];
    snprintf(path, sizeof path, "%s/weftd.log", node->folder);
    snprintf(out, capacity, "it said nothing");
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0])
            snprintf(out, capacity, "%s", line);
    }
    if (file)
        fclose(file);
}

/* The process that made a folder of this name; 0 when it is no such name. */
static pid_t folder_owner(const char *name)
{
    int end = 0;
    unsigned int pid = 0;
    if (sscanf(name, "weft-%7u-%*6[A-Za-z0-9]%n", &pid, &end) != 1 || !end || name[end])
        return 0;
    return (pid_t)pid;
}

/* The locks of a weftd that runs say so, also where its maker is in another container and this one
 * cannot see the process. */
static bool folder_serves(const char *folder)
{
    static const char *const locks[] = {"weftd.sock.lock", "nvme.weft"};
    char path[PATH_MAX + 32];
    bool serves = false;
    for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, locks[i]);
        int lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        serves |= lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0;
        if (lock >= 0)
            close(lock);
    }
    return serves;
}

/* Remove what commands that were killed outright have left. */
static void stale_remove(const char *base)
{
    DIR *directory = opendir(base);
    int removed = 0;
    for (int i = 0; directory && i < STALE_ENTRIES_MAX && removed < STALE_FOLDERS_MAX; i++) {
        const struct dirent *entry = readdir(directory);
        if (!entry)
            break;
        pid_t owner = folder_owner(entry->d_name);
        if (!owner || kill(owner, 0) == 0 || errno != ESRCH)
            continue;
        char left[PATH_MAX];
        struct stat about;
        snprintf(left, sizeof left, "%.3000s/%.30s", base, entry->d_name);
        if (lstat(left, &about) != 0 || !S_ISDIR(about.st_mode) || about.st_uid != geteuid() ||
            folder_serves(left))
            continue;
        folder_remove(left);
        removed++;
    }
    if (directory)
        closedir(directory);
}

static int folder_make(struct cli *cli, struct cli_node *node)
{
    const char *base = getenv("TMPDIR");
    if (!base || strlen(base) > FOLDER_BASE_MAX)
        base = "/tmp";
    stale_remove(base);
    snprintf(node->folder, sizeof node->folder, "%.40s/weft-%d-XXXXXX", base, getpid());
    if (!mkdtemp(node->folder))
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot make a folder in %s: %s; set TMPDIR", base,
                           strerror(errno));
    snprintf(node->socket, sizeof node->socket, "%s/weftd.sock", node->folder);
    char path[128];
    snprintf(path, sizeof path, "%s/weftd.yaml", node->folder);
    FILE *file = fopen(path, "w");
    if (!file || fputs("# told by environment variables\n", file) == EOF || fclose(file) != 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    return CLI_OK;
}

/* The folder of the tier's file, on the device that it is to be on. */
static int below_make(struct cli *cli, struct cli_node *node)
{
    const char *base = node->plan.tier_dir;
    struct statvfs room;
    char size[32], offered[32];
    if (node->plan.tier_bytes < TIER_LEAST)
        return wf_cli_fail(
            cli, CLI_USAGE,
            "--tier-size is %s; a tier needs %s at the least, and some hundred times "
            "a block's size to be of use: say --tier-size 64MB",
            wf_cli_size(node->plan.tier_bytes, size, sizeof size),
            wf_cli_size(TIER_LEAST, offered, sizeof offered));
    if (strlen(base) > sizeof node->below - 32)
        return wf_cli_fail(cli, CLI_USAGE, "the path of --dir has %zu letters; give a shorter one",
                           strlen(base));
    stale_remove(base);
    if (statvfs(base, &room) != 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "--dir %s: %s; give a directory that is there", base,
                           strerror(errno));
    uint64_t needed = node->plan.tier_bytes + node->plan.room_bytes;
    if ((uint64_t)room.f_bavail * room.f_frsize < needed)
        return wf_cli_fail(cli, CLI_SYSTEM,
                           "%s is needed in %s and %s is free; give another --dir, or a smaller "
                           "--tier-size",
                           wf_cli_size(needed, size, sizeof size), base,
                           wf_cli_size((uint64_t)room.f_bavail * room.f_frsize, offered,
                                       sizeof offered));
    snprintf(node->below, sizeof node->below, "%s/weft-%d-XXXXXX", base, getpid());
    if (mkdtemp(node->below))
        return CLI_OK;
    node->below[0] = '\0';
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot make a folder in %s: %s; give another --dir", base,
                       strerror(errno));
}

static int node_wait(struct cli *cli, struct cli_node *node)
{
    double until = wf_cli_now_s() + START_S;
    char said[512];
    for (;;) {
        enum weft_status status = connect_to(cli, node->socket);
        if (status == WEFT_OK)
            return CLI_OK;
        int how;
        if (waitpid(node->pid, &how, WNOHANG) == node->pid) {
            node->pid = 0;
            log_tail(node, said, sizeof said);
            return wf_cli_fail(cli, CLI_NODE, "the weftd that was started for this ended: %s",
                               said);
        }
        if (wf_cli_now_s() > until || status != WEFT_E_NODE) {
            char why[512];
            snprintf(why, sizeof why, "%s", weft_last_error());
            log_tail(node, said, sizeof said);
            return wf_cli_fail(cli, CLI_NODE,
                               "the weftd that was started for this does not answer: %s (%s)", why,
                               said);
        }
        usleep(5000);
    }
}

/* Blocks that leave DRAM before the tier is open are lost, which is not what is to be measured. */
static int below_wait(struct cli *cli)
{
    double until = wf_cli_now_s() + START_S;
    for (;;) {
        json_t *answer;
        const json_t *event;
        size_t index;
        bool open = false, failed = false;
        int code = wf_cli_query(cli, "events", 0, 0, &answer);
        if (code != CLI_OK)
            return code;
        json_array_foreach (json_object_get(answer, "events"), index, event) {
            const char *what = json_string_value(json_object_get(event, "what"));
            open |= what && strcmp(what, "tier_open") == 0;
            failed |= what && strcmp(what, "tier_failed") == 0;
        }
        json_decref(answer);
        if (open)
            return CLI_OK;
        if (failed || wf_cli_now_s() > until)
            return wf_cli_fail(cli, CLI_NODE,
                               "the tier of the weftd that was started for this does not open; "
                               "give another --dir");
        usleep(5000);
    }
}

/* In the folders that are there. */
static int node_run(struct cli *cli, struct cli_node *node)
{
    char program[PATH_MAX];
    if (!wf_cli_program_find("weftd", program, sizeof program))
        return wf_cli_fail(
            cli, CLI_NODE,
            "there is no weftd beside this program or in PATH to start one; build or install it, "
            "or name a node that runs with --socket");
    fflush(NULL);
    pid_t parent = getpid();
    node->started_s = wf_cli_now_s();
    node->pid = fork();
    if (node->pid == 0)
        child_run(node, program, parent);
    if (node->pid > 0)
        return node_wait(cli, node);
    node->pid = 0;
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot start weftd: %s", strerror(errno));
}

int wf_cli_node_start(struct cli *cli, const struct cli_node_plan *plan, struct cli_node *node)
{
    memset(node, 0, sizeof *node);
    node->plan = *plan;
    if (cli->domain && strcmp(cli->domain, "default") != 0)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--domain is '%s', and a node that is started for this has only "
                           "'default'; name the node that has it with --socket",
                           cli->domain);
    cli->domain = "default"; /* $WEFT_DOMAIN and $WEFT_TOKEN are of the user's node */
    cli->token = NULL;
    unsetenv("WEFT_TOKEN");
    int code = folder_make(cli, node);
    owner_pid = getpid();
    started = node;
    for (int i = 0; i < 3; i++)
        signal((int[]){SIGINT, SIGTERM, SIGHUP}[i], on_signal);
    if (code == CLI_OK && plan->tier_dir)
        code = below_make(cli, node);
    if (code == CLI_OK)
        code = node_run(cli, node);
    if (code == CLI_OK && plan->tier_dir)
        code = below_wait(cli);
    if (code != CLI_OK)
        wf_cli_node_stop(node);
    else
        cli->socket = node->socket;
    cli->own_node = code == CLI_OK ? &node->plan : NULL;
    return code;
}

int wf_cli_node_again(struct cli *cli, struct cli_node *node)
{
    return node_run(cli, node);
}

int wf_cli_node_reach(struct cli *cli, bool sized, const struct cli_node_plan *plan,
                      struct cli_node *node)
{
    memset(node, 0, sizeof *node);
    if (cli->socket && sized)
        return wf_cli_fail(
            cli, CLI_USAGE,
            "--pool starts a node of its own and --socket names one that runs; leave one of them "
            "out");
    return cli->socket ? wf_cli_connect(cli) : wf_cli_node_start(cli, plan, node);
}

void wf_cli_node_print(const struct cli *cli, FILE *to)
{
    char size[32], tier[32];
    const struct cli_node_plan *plan = cli->own_node;
    if (plan && plan->tier_dir)
        fprintf(to, "against a weftd of its own with a pool of %s and %s of NVMe in %s\n",
                wf_cli_size(plan->pool_bytes, size, sizeof size),
                wf_cli_size(plan->tier_bytes, tier, sizeof tier), plan->tier_dir);
    else if (plan)
        fprintf(to, "against a weftd of its own with a pool of %s\n",
                wf_cli_size(plan->pool_bytes, size, sizeof size));
    else
        fprintf(to, "against the node on %s\n", cli->socket);
    wf_cli_build_print(to);
}

void wf_cli_node_halt(struct cli_node *node, int number)
{
    if (node->pid <= 0)
        return;
    kill(node->pid, number);
    /* A node that does not drain in half a minute has nobody left to wait for. */
    for (int i = 0; i < HALTS && waitpid(node->pid, NULL, WNOHANG) == 0; i++) {
        if (i == HALTS - 1)
            kill(node->pid, SIGKILL);
        usleep(10000);
    }
    node->pid = 0;
}

void wf_cli_node_stop(struct cli_node *node)
{
    if (!node->folder[0])
        return;
    wf_cli_node_halt(node, SIGTERM);
    folder_remove(node->folder);
    folder_remove(node->below);
    node->folder[0] = node->below[0] = '\0';
}
