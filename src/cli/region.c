/* SPDX-License-Identifier: Apache-2.0
 *
 * weft region: raw pooled memory by name.
 *
 * A region lives until its last holder lets go, so a command that creates one must stay: `create`
 * and `hold` keep it until a signal, --seconds, or `weft region release NAME`.  With --background a
 * child holds it.  A holder listens on an abstract Unix socket named for user, node, domain and
 * region: it is gone with the holder, whatever kills that, and `release` needs neither a file nor
 * the node to find it.  Only the holder's own user and root may ask.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "cli/commands.h"
#include "cli/file.h"
#include "sys/paths.h"

static const char *latency = "normal", *share = "coherent", *file;
static uint64_t seconds;
static bool background;

static const struct cli_word words[] = {
    {"create", "NAME SIZE: allocate, fill from --file, and hold it"},
    {"hold", "NAME: keep it alive, though its creator may go"},
    {"release", "NAME: let the holders that this program left behind go"},
    {"open", "NAME: say how large it is and whether it may be written"},
    {"ls", "all regions of the domain"},
    {"dump", "NAME: copy its bytes to --file or stdout"},
    {"load", "NAME: copy --file or stdin into it, from its beginning"},
    {NULL},
};

static const struct cli_option options[] = {
    {"latency", CLI_TEXT, "low|normal|high", &latency, "low is populated at once (normal)"},
    {"share", CLI_TEXT, "read|coherent", &share,
     "read: only the creator writes; coherent: everyone does (coherent)"},
    {"file", CLI_TEXT, "FILE", &file, "create, load: read from it; dump: write to it"},
    {"seconds", CLI_NUMBER, "N", &seconds, "create, hold: let go after so long (never)"},
    {"background", CLI_FLAG, NULL, &background,
     "create, hold: leave a process behind that holds it"},
    {NULL},
};

static const char *const examples[] = {
    "model weights that several engines map read-only",
    "weft region create llama-3-8b 16GB --share read --file model.safetensors --background",
    "who holds what",
    "weft region ls",
    "a copy of what is in it, and then let it go",
    "weft region dump scratch --file scratch.bin && weft region release scratch",
    NULL,
};

struct open_region {
    struct weft_region *region;
    uint8_t *memory;
    size_t bytes;
    int writable;
};

static int region_open(struct cli *cli, const char *name, struct open_region *out)
{
    void *memory;
    enum weft_status status = weft_region_open(cli->weft, name, &out->region, &memory,
                                               &out->writable);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "the region cannot be opened");
    out->memory = memory;
    out->bytes = weft_region_bytes(out->region);
    return CLI_OK;
}

static int region_say(struct cli *cli, const char *name, const struct open_region *region)
{
    char size[32];
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "name", json_string(name));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)region->bytes));
        wf_cli_json_set(answer, "writable", json_boolean(region->writable));
        wf_cli_json_print(answer);
    } else {
        printf("%s: %s, %s\n", name, wf_cli_size(region->bytes, size, sizeof size),
               region->writable ? "read and write" : "read only");
    }
    fflush(stdout);
    return CLI_OK;
}

/* ------------------------------------------------------------------------------------- copying */

static int copy_in(struct cli *cli, const struct open_region *region)
{
    bool from_stdin = !file || strcmp(file, "-") == 0;
    int fd = from_stdin ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", file, strerror(errno));
    size_t at = 0;
    ssize_t got = 1;
    int code = CLI_OK;
    while (got > 0 && at < region->bytes) {
        got = read(fd, region->memory + at, region->bytes - at);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            at += (size_t)got;
    }
    char more;
    if (got < 0)
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", from_stdin ? "stdin" : file,
                           strerror(errno));
    else if (at == region->bytes && read(fd, &more, 1) == 1)
        code = wf_cli_fail(cli, CLI_MISS,
                           "the region's %zu bytes are full and there is more to read; make a "
                           "larger one",
                           region->bytes);
    if (!from_stdin)
        close(fd);
    return code;
}

static int to_stdout_write(struct cli *cli, const struct open_region *region)
{
    for (size_t at = 0; at < region->bytes;) {
        ssize_t put = write(STDOUT_FILENO, region->memory + at, region->bytes - at);
        if (put > 0)
            at += (size_t)put;
        else if (errno != EINTR)
            return wf_cli_fail(cli, CLI_SYSTEM, "cannot write stdout: %s", strerror(errno));
    }
    return CLI_OK;
}

static int copy_out(struct cli *cli, const struct open_region *region)
{
    bool to_stdout = !file || strcmp(file, "-") == 0;
    if (to_stdout && (isatty(STDOUT_FILENO) || cli->json))
        return wf_cli_fail(cli, CLI_USAGE, "say --file FILE: stdout is %s",
                           cli->json ? "for the JSON answer" : "a terminal");
    if (to_stdout)
        return to_stdout_write(cli, region);
    struct cli_file output = {.path = file, .in_place = true};
    int code = wf_cli_file_begin(cli, &output);
    if (code == CLI_OK)
        code = wf_cli_file_write(cli, &output, region->memory, region->bytes);
    if (code == CLI_OK)
        code = wf_cli_file_end(cli, &output);
    wf_cli_file_drop(&output);
    return code;
}

/* ------------------------------------------------------------------------------------- holding */

/* Where the node listens, whichever way there it was named; it need not be there any more. */
static void node_path(const struct cli *cli, char *out, size_t bytes)
{
    char found[WF_SOCKET_PATH_MAX + 1], folder[PATH_MAX];
    const char *named = getenv("WEFT_SOCKET"), *path = cli->socket;
    if (!path && wf_default_socket(found, sizeof found) == WEFT_OK)
        path = found;
    if (!path || (!cli->socket && !(named && *named) && access(path, F_OK) != 0))
        path = WF_SOCKET_OF_HOST;
    const char *slash = strrchr(path, '/');
    const char *file_name = slash ? slash + 1 : path;
    char above[WF_SOCKET_PATH_MAX + 1] = ".";
    if (slash)
        snprintf(above, sizeof above, "%.*s/", (int)(slash - path), path);
    bool real = realpath(above, folder);
    snprintf(out, bytes, "%s/%s", real ? folder : above, file_name);
}

/* The holders' abstract name; `number` tells several holders of one region apart. */
static socklen_t holder_address(const struct cli *cli, const char *name, int number,
                                struct sockaddr_un *out)
{
    const char *domain = cli->domain ? cli->domain : getenv("WEFT_DOMAIN");
    char node[PATH_MAX + WF_SOCKET_PATH_MAX + 2], of[sizeof node + 1024];
    node_path(cli, node, sizeof node);
    int length = snprintf(of, sizeof of, "%s%c%s%c%s", node, 0,
                          domain && *domain ? domain : "default", 0, name);
    XXH128_hash_t sum = XXH3_128bits(of, (size_t)length < sizeof of ? (size_t)length : sizeof of);
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    length = snprintf(out->sun_path + 1, sizeof out->sun_path - 1,
                      "weft-region/%u/%016llx%016llx/%d", geteuid(), (unsigned long long)sum.high64,
                      (unsigned long long)sum.low64, number);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

#define HOLDERS_MAX 64

static int holder_listen(const struct cli *cli, const char *name)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int number = 0; fd >= 0 && number < HOLDERS_MAX; number++) {
        struct sockaddr_un address;
        socklen_t length = holder_address(cli, name, number, &address);
        if (bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 4) == 0)
            return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool release_asked(int listener)
{
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct ucred who = {0};
    socklen_t length = sizeof who;
    bool asked = peer >= 0 && getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 &&
                 (who.uid == geteuid() || who.uid == 0);
    if (peer >= 0)
        close(peer);
    return asked;
}

static int hold(struct cli *cli, int listener)
{
    sigset_t stops;
    sigemptyset(&stops);
    for (int i = 0; i < 3; i++)
        sigaddset(&stops, (int[]){SIGINT, SIGTERM, SIGHUP}[i]);
    sigprocmask(SIG_BLOCK, &stops, NULL);
    int signals = signalfd(-1, &stops, SFD_CLOEXEC);
    if (signals < 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot wait for signals: %s", strerror(errno));
    double until = wf_cli_now_s() + (double)seconds;
    struct pollfd waits[2] = {{.fd = signals, .events = POLLIN},
                              {.fd = listener, .events = POLLIN}};
    for (;;) {
        double left_s = seconds ? until - wf_cli_now_s() : 3600;
        if (left_s <= 0)
            break;
        int ready = poll(waits, 2, left_s > 3600 ? 3600000 : (int)(left_s * 1000) + 1);
        if (ready < 0 && errno != EINTR)
            break;
        if (ready > 0 && waits[0].revents)
            break;
        if (ready > 0 && waits[1].revents && release_asked(listener))
            break;
    }
    close(signals);
    return CLI_OK;
}

/* Allocate or open, say so, and stay.  In the background, the child says so through the pipe that
 * its parent waits on: the handle must be made by the process that holds it. */
static int create_or_hold(struct cli *cli, const char *name, const char *size)
{
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    struct open_region region = {0};
    if (size) {
        enum weft_latency how = strcmp(latency, "low") == 0    ? WEFT_LATENCY_LOW
                                : strcmp(latency, "high") == 0 ? WEFT_LATENCY_HIGH
                                                               : WEFT_LATENCY_NORMAL;
        void *memory;
        enum weft_status status = weft_allocate(cli->weft, size, how,
                                                strcmp(share, "read") == 0 ? WEFT_SHARE_READ
                                                                           : WEFT_SHARE_COHERENT,
                                                name, &region.region, &memory);
        if (status != WEFT_OK)
            return wf_cli_fail_status(cli, status, "the region cannot be allocated");
        region.memory = memory;
        region.bytes = weft_region_bytes(region.region);
        region.writable = 1;
        code = file ? copy_in(cli, &region) : CLI_OK;
    } else {
        code = region_open(cli, name, &region);
    }
    int listener = code == CLI_OK ? holder_listen(cli, name) : -1;
    if (code == CLI_OK && listener < 0)
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot listen for a release: %s", strerror(errno));
    if (code == CLI_OK)
        code = region_say(cli, name, &region);
    if (code == CLI_OK && background) {
        putchar('\0'); /* the parent waits for this, and takes it off the answer */
        fflush(stdout);
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (int fd = 0; null >= 0 && fd < 3; fd++)
            dup2(null, fd);
    }
    if (code == CLI_OK)
        code = hold(cli, listener);
    if (listener >= 0)
        close(listener);
    if (region.region)
        weft_release(region.region);
    return code;
}

static int in_background(struct cli *cli, const char *name, const char *size)
{
    int ends[2];
    if (pipe(ends) != 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "no pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setsid();
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(create_or_hold(cli, name, size));
    }
    close(ends[1]);
    char answer[1024];
    size_t length = 0;
    ssize_t got = 0;
    while (child > 0 && length < sizeof answer &&
           (got = read(ends[0], answer + length, sizeof answer - length)) > 0)
        length += (size_t)got;
    close(ends[0]);
    bool holds = length && answer[length - 1] == '\0';
    fwrite(answer, 1, length - holds, stdout);
    if (child < 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "no process to hold it: %s", strerror(errno));
    int how = 0;
    if (!holds && waitpid(child, &how, 0) == child)
        return WIFEXITED(how) ? WEXITSTATUS(how) : CLI_SYSTEM;
    return CLI_OK;
}

static int release_holders(struct cli *cli, const char *name)
{
    int told = 0;
    for (int number = 0; number < HOLDERS_MAX; number++) {
        struct sockaddr_un address;
        socklen_t length = holder_address(cli, name, number, &address);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char end;
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, length) == 0) {
            told++;
            /* The holder closes its end when it has heard. */
            if (read(fd, &end, 1) < 0 && errno != ECONNRESET)
                told--;
        }
        if (fd >= 0)
            close(fd);
    }
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "released", json_integer(told));
        wf_cli_json_print(answer);
    } else if (told) {
        printf("%d holder%s of %s let go\n", told, wf_cli_s((uint64_t)told), name);
    }
    if (!told && !cli->json)
        return wf_cli_fail(cli, CLI_MISS,
                           "no `weft region create` or `hold` of this user holds '%s'; other "
                           "programs let go by weft_release() or by ending",
                           name);
    return told ? CLI_OK : CLI_MISS;
}

/* ------------------------------------------------------------------------------------- command */

static int opened(struct cli *cli, const char *what, const char *name)
{
    struct open_region region = {0};
    int code = wf_cli_connect(cli);
    if (code == CLI_OK)
        code = region_open(cli, name, &region);
    if (code != CLI_OK)
        return code;
    if (strcmp(what, "load") == 0) {
        if (!region.writable)
            code = wf_cli_fail(cli, CLI_REFUSED,
                               "'%s' is shared for reading; only its creator writes", name);
        else
            code = copy_in(cli, &region);
    } else if (strcmp(what, "dump") == 0) {
        code = copy_out(cli, &region);
    }
    bool quiet = strcmp(what, "dump") == 0 && !cli->json;
    if (code == CLI_OK && !quiet)
        code = region_say(cli, name, &region);
    weft_release(region.region);
    return code;
}

static int list(struct cli *cli)
{
    int code = wf_cli_connect(cli);
    json_t *answer = NULL;
    if (code == CLI_OK)
        code = wf_cli_query(cli, "regions", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *regions = json_object_get(answer, "regions");
    if (cli->json) {
        wf_cli_json_print(answer);
        return CLI_OK;
    }
    if (json_array_size(regions))
        wf_cli_table_print(regions, stdout);
    else
        puts("no regions");
    json_decref(answer);
    return CLI_OK;
}

static int run(struct cli *cli)
{
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    const char *what = words[which].name;
    int wanted = strcmp(what, "ls") == 0 ? 1 : strcmp(what, "create") == 0 ? 3 : 2;
    if (cli->word_count != wanted)
        return wf_cli_fail(cli, CLI_USAGE, "it is: weft region %s%s", what,
                           wanted == 1   ? ""
                           : wanted == 2 ? " NAME"
                                         : " NAME SIZE");
    if (strcmp(what, "ls") == 0)
        return list(cli);
    if (strcmp(what, "release") == 0)
        return release_holders(cli, cli->words[1]);
    bool stays = strcmp(what, "create") == 0 || strcmp(what, "hold") == 0;
    if (!stays)
        return opened(cli, what, cli->words[1]);
    const char *size = wanted == 3 ? cli->words[2] : NULL;
    return background ? in_background(cli, cli->words[1], size)
                      : create_or_hold(cli, cli->words[1], size);
}

const struct cli_command wf_cmd_region = {
    .name = "region",
    .summary = "raw pooled memory by name",
    .synopsis = "create|hold|release|open|ls|dump|load [NAME] [SIZE]",
    .about = "Allocates, fills, copies and keeps regions: zeroed memory that any program of the "
             "domain maps by name.  A region lives until its last holder lets go, so create and "
             "hold stay in the foreground until a signal, --seconds or weft region release; "
             "--background leaves a process behind instead.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
