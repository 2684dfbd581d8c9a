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
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

#define START_S 60.0 /* taking all of a large pool's memory takes seconds */
#define QUERY_PAGES_MAX 65536
#define STALE_ENTRIES_MAX 4096 /* of $TMPDIR that are looked at for folders left behind */
#define STALE_FOLDERS_MAX 64   /* that one start removes */
#define FOLDER_BASE_MAX 40     /* a socket's path has 107 bytes at most */

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

int wf_cli_query(struct cli *cli, const char *what, uint64_t cursor, uint64_t rows_max,
                 json_t **out)
{
    json_t *whole = NULL;
    for (int i = 0; i < QUERY_PAGES_MAX; i++) {
        char *text = NULL;
        enum weft_status status = weft_query(cli->weft, what, cursor, &text);
        if (status != WEFT_OK) {
            json_decref(whole);
            return wf_cli_fail_status(cli, status, what);
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
        if (!cursor || (rows_max && json_array_size(json_object_get(whole, what)) >= rows_max))
            break;
    }
    json_object_del(whole, "next");
    *out = whole;
    return CLI_OK;
}

/* `folder of program`/`beside`/`name`. */
static bool beside(const char *program, const char *where, const char *name, char *path,
                   size_t capacity)
{
    const char *slash = strrchr(program, '/');
    return slash &&
           snprintf(path, capacity, "%.*s%s%s", (int)(slash + 1 - program), program, where, name) <
               (int)capacity &&
           access(path, X_OK) == 0;
}

bool wf_cli_program_find(const char *name, char *path, size_t capacity)
{
    /* As it was called, so that build/bin with its links works, then where it lies, then bin's
     * sbin. */
    const char *called = (const char *)getauxval(AT_EXECFN);
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    if ((called && beside(called, "", name, path, capacity)) ||
        beside(self, "", name, path, capacity) || beside(self, "../sbin/", name, path, capacity))
        return true;
    const char *search = getenv("PATH");
    for (const char *p = search ? search : "/usr/local/bin:/usr/bin:/bin"; *p;) {
        size_t part = strcspn(p, ":");
        if (part && snprintf(path, capacity, "%.*s/%s", (int)part, p, name) < (int)capacity &&
            access(path, X_OK) == 0)
            return true;
        p += part + (p[part] == ':');
    }
    return false;
}

/* ------------------------------------------------------------------------- a node of one's own */

/* Unlinks by names in the folder, with nothing to format: this also runs in a signal handler. */
static void folder_remove(const struct cli_node *node)
{
    static const char *const files[] = {"weftd.sock", "weftd.sock.lock", "weftd.yaml", "weftd.log"};
    int folder = open(node->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; folder >= 0 && i < sizeof files / sizeof files[0]; i++)
        unlinkat(folder, files[i], 0);
    if (folder >= 0)
        close(folder);
    rmdir(node->folder);
}

static void on_signal(int number)
{
    if (started && started->pid > 0 && getpid() == owner_pid) {
        kill(started->pid, SIGTERM);
        waitpid(started->pid, NULL, 0);
        folder_remove(started);
    }
    _exit(128 + number);
}

static void variables_set(const struct cli_node *node, uint64_t pool_bytes)
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
    snprintf(text, sizeof text, "%llu", (unsigned long long)pool_bytes);
    setenv("WEFT_POOL_SIZE", text, 1);
    setenv("WEFT_POOL_SIZE_MAX", text, 1);
}

static void child_run(const struct cli_node *node, const char *program, uint64_t pool_bytes,
                      pid_t parent)
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
    variables_set(node, pool_bytes);
    execl(program, program, (char *)NULL);
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

/* The lock of a weftd that runs says so, also where its maker is in another container and this one
 * cannot see the process. */
static bool folder_serves(const struct cli_node *node)
{
    char path[128];
    snprintf(path, sizeof path, "%s/weftd.sock.lock", node->folder);
    int lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    bool serves = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) != 0;
    if (lock >= 0)
        close(lock);
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
        struct cli_node left = {0};
        struct stat about;
        snprintf(left.folder, sizeof left.folder, "%.40s/%.30s", base, entry->d_name);
        if (lstat(left.folder, &about) != 0 || !S_ISDIR(about.st_mode) ||
            about.st_uid != geteuid() || folder_serves(&left))
            continue;
        folder_remove(&left);
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

static int node_start(struct cli *cli, uint64_t pool_bytes, struct cli_node *node)
{
    char program[PATH_MAX];
    if (!wf_cli_program_find("weftd", program, sizeof program))
        return wf_cli_fail(
            cli, CLI_NODE,
            "there is no weftd beside this program or in PATH to start one; build or install it, "
            "or name a node that runs with --socket");
    if (cli->domain && strcmp(cli->domain, "default") != 0)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--domain is '%s', and a node that is started for this has only "
                           "'default'; name the node that has it with --socket",
                           cli->domain);
    cli->domain = "default"; /* $WEFT_DOMAIN and $WEFT_TOKEN are of the user's node */
    cli->token = NULL;
    unsetenv("WEFT_TOKEN");
    int code = folder_make(cli, node);
    if (code != CLI_OK)
        return code;
    fflush(NULL);
    pid_t parent = getpid();
    owner_pid = parent;
    started = node;
    for (int i = 0; i < 3; i++)
        signal((int[]){SIGINT, SIGTERM, SIGHUP}[i], on_signal);
    node->pid = fork();
    if (node->pid == 0)
        child_run(node, program, pool_bytes, parent);
    if (node->pid < 0) {
        node->pid = 0;
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot start weftd: %s", strerror(errno));
    } else {
        code = node_wait(cli, node);
    }
    if (code != CLI_OK)
        wf_cli_node_stop(node);
    else
        cli->socket = node->socket;
    cli->own_pool_bytes = code == CLI_OK ? pool_bytes : 0;
    return code;
}

int wf_cli_node_reach(struct cli *cli, bool sized, uint64_t pool_bytes, struct cli_node *node)
{
    memset(node, 0, sizeof *node);
    if (cli->socket && sized)
        return wf_cli_fail(
            cli, CLI_USAGE,
            "--pool starts a node of its own and --socket names one that runs; leave one of them "
            "out");
    return cli->socket ? wf_cli_connect(cli) : node_start(cli, pool_bytes, node);
}

void wf_cli_node_print(const struct cli *cli, FILE *to)
{
    char size[32];
    if (cli->own_pool_bytes)
        fprintf(to, "against a weftd of its own with a pool of %s\n",
                wf_cli_size(cli->own_pool_bytes, size, sizeof size));
    else
        fprintf(to, "against the node on %s\n", cli->socket);
#if WF_TEST_HOOKS
    fputs("this build has test hooks and is not made for speed; `make bench` measures one that "
          "is\n",
          to);
#endif
}

void wf_cli_node_stop(struct cli_node *node)
{
    if (!node->folder[0])
        return;
    if (node->pid > 0) {
        kill(node->pid, SIGTERM);
        /* A node that does not drain in ten seconds has nobody left to wait for. */
        for (int i = 0; i < 1000 && waitpid(node->pid, NULL, WNOHANG) == 0; i++) {
            if (i == 999)
                kill(node->pid, SIGKILL);
            usleep(10000);
        }
    }
    node->pid = 0;
    folder_remove(node);
    node->folder[0] = '\0';
}
