/* SPDX-License-Identifier: Apache-2.0
 *
 * The child is asked to end with us, however we end (PR_SET_PDEATHSIG), and has a session of its
 * own, so that an interrupt from the keyboard reaches us first and it is stopped in order.
 */
#include "node.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llama/say.h"
#include "weft/weft.h"

#define START_MS_MAX 20000
#define STOP_MS_MAX 10000
#define PATH_BYTES 4096

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* The weftd in the directory of `path`, or in its sbin, where an installed one lies. */
static bool beside(const char *path, char *out, size_t capacity)
{
    static const char *const places[] = {"weftd", "../sbin/weftd"};
    const char *slash = strrchr(path, '/');
    for (size_t i = 0; slash && i < sizeof(places) / sizeof(*places); i++) {
        int length = snprintf(out, capacity, "%.*s/%s", (int)(slash - path), path, places[i]);
        if (length > 0 && (size_t)length < capacity && access(out, X_OK) == 0)
            return true;
    }
    return false;
}

/* As we were called first: build/bin holds links, and the program itself lies elsewhere. */
static bool find_weftd(const char *program, char *out, size_t capacity)
{
    char self[PATH_BYTES];
    if (beside(program, out, capacity))
        return true;
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (length > 0) {
        self[length] = '\0';
        if (beside(self, out, capacity))
            return true;
    }
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t part = strcspn(path, ":");
        if (part > 0 && part < sizeof(self) - 2) {
            memcpy(self, path, part);
            self[part] = '/';
            self[part + 1] = '\0';
            if (beside(self, out, capacity))
                return true;
        }
        path += part + (path[part] == ':');
    }
    return wf_say_failed(
        "no weftd beside %s nor in $PATH: build it (make), or start one and give its "
        "--socket",
        program);
}

/* In the child: nothing of the user's own node is touched, neither its file nor its ports. */
static void become_weftd(const char *weftd, const struct node *node, pid_t parent)
{
    char log[sizeof(node->directory) + 8];
    snprintf(log, sizeof(log), "%s/log", node->directory);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(127);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(127);
    setenv("WEFT_CONFIG", "/dev/null", 1);
    setenv("WEFT_SOCKET", node->socket, 1);
    setenv("WEFT_HTTP_LISTEN", "off", 1);
    execl(weftd, weftd, (char *)NULL);
    _exit(127);
}

/* The last line it wrote. */
static void read_log(const struct node *node, char *out, size_t capacity)
{
    char path[sizeof(node->directory) + 8], line[256];
    snprintf(path, sizeof(path), "%s/log", node->directory);
    snprintf(out, capacity, "it said nothing");
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, capacity, "it said: %s", line);
    }
    if (file)
        fclose(file);
}

static bool answers(const struct node *node)
{
    struct weft *w;
    struct weft_connect_options options = {.socket = node->socket,
                                           .domain = "default",
                                           .timeout_ms = 1000};
    if (weft_connect(&options, &w) != WEFT_OK)
        return false;
    weft_close(w);
    return true;
}

bool node_start(const char *program, struct node *out)
{
    char weftd[PATH_BYTES], said[300];
    if (!find_weftd(program, weftd, sizeof(weftd)))
        return false;

    struct node node = {0};
    const char *place = getenv("TMPDIR");
    if (!place || strlen(place) > 64)
        place = "/tmp"; /* a socket's path must be short */
    snprintf(node.directory, sizeof(node.directory), "%s/tinyllm.XXXXXX", place);
    if (!mkdtemp(node.directory))
        return wf_say_failed("cannot make %s: %s", node.directory, strerror(errno));
    snprintf(node.socket, sizeof(node.socket), "%s/weftd.sock", node.directory);

    pid_t parent = getpid();
    node.pid = fork();
    if (node.pid == 0)
        become_weftd(weftd, &node, parent);
    if (node.pid < 0) {
        node.pid = 0;
        node_stop(&node);
        return wf_say_failed("cannot start %s: %s", weftd, strerror(errno));
    }
    for (int waited = 0; waited < START_MS_MAX; waited += 20) {
        if (answers(&node)) {
            *out = node;
            return true;
        }
        if (waitpid(node.pid, NULL, WNOHANG) == node.pid) {
            node.pid = 0;
            break;
        }
        sleep_ms(20);
    }
    read_log(&node, said, sizeof(said));
    node_stop(&node);
    return wf_say_failed("%s did not start; %s", weftd, said);
}

/* The directory is ours alone, and holds only files: the socket, the log, what weftd keeps beside
 * them. */
static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        if (entry->d_type != DT_DIR)
            unlinkat(dirfd(directory), entry->d_name, 0);
    if (directory)
        closedir(directory);
    rmdir(path);
}

void node_stop(struct node *node)
{
    if (node->pid) {
        kill(node->pid, SIGTERM);
        for (int waited = 0; waitpid(node->pid, NULL, WNOHANG) == 0; waited += 10) {
            if (waited >= STOP_MS_MAX)
                kill(node->pid, SIGKILL);
            sleep_ms(10);
        }
    }
    if (node->directory[0])
        remove_directory(node->directory);
    *node = (struct node){0};
}
