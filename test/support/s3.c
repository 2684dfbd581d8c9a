/* SPDX-License-Identifier: Apache-2.0 */
#include "s3.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    pid_t pid;
    int hold; /* its standard input: it ends with us */
    char place[200];
    uint16_t port;
    bool tried;
} server;

static char why[400];

/* Start a program with these for its standard input and output (-1: as ours), silent otherwise. */
static pid_t spawn(char *const *words, int in, int out)
{
    pid_t pid = 0;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (in >= 0)
        posix_spawn_file_actions_adddup2(&actions, in, 0);
    if (out >= 0)
        posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    if (posix_spawn(&pid, words[0], &actions, NULL, words, environ) != 0)
        pid = 0;
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

static bool ended_well(pid_t pid)
{
    int status = 0;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/* The first line that it says. */
static void read_line(int fd, char *line, size_t room)
{
    FILE *said = fdopen(fd, "re");
    if (!said || !fgets(line, (int)room, said))
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (said)
        fclose(said);
}

static bool get_server(void)
{
    static char script[] = WEFT_SOURCE "/scripts/s3-server", build[] = WEFT_BUILD;
    char *words[] = {script, build, NULL};
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0)
        return false;
    pid_t pid = spawn(words, -1, out[1]);
    close(out[1]);
    read_line(out[0], why, sizeof why);
    return ended_well(pid);
}

static bool start(void)
{
    static char python[] = WEFT_BUILD "/s3-server/venv/bin/python", no[] = "-W",
                warnings[] = "ignore";
    static char script[] = WEFT_SOURCE "/test/s3/server.py";
    char *words[] = {python, no, warnings, script, server.place, NULL};
    int in[2], out[2];
    char line[64];
    unsigned port = 0;
    const char *temporary = getenv("TMPDIR");
    if (!get_server())
        return false;
    snprintf(why, sizeof why, "the S3 server did not start; see %s/s3-server", WEFT_BUILD);
    snprintf(server.place, sizeof server.place, "%s/weft-s3-XXXXXX",
             temporary ? temporary : "/var/tmp");
    if (!mkdtemp(server.place) || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        return false;
    server.pid = spawn(words, in[0], out[1]);
    server.hold = in[1];
    close(in[0]);
    close(out[1]);
    read_line(out[0], line, sizeof line);
    if (sscanf(line, "ready %u", &port) == 1)
        server.port = (uint16_t)port;
    return server.port != 0;
}

static void set_environment(void)
{
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", server.port);
    setenv("AWS_ENDPOINT_URL_S3", endpoint, 1);
    setenv("AWS_ACCESS_KEY_ID", S3_KEY, 1);
    setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    setenv("AWS_REGION", "us-east-1", 1);
    unsetenv("AWS_SESSION_TOKEN");
    unsetenv("AWS_PROFILE");
}

const char *s3_server(uint16_t *port)
{
    if (!server.tried) {
        server.tried = true;
        if (start()) {
            why[0] = '\0';
            atexit(s3_server_stop);
        } else if (!why[0]) {
            snprintf(why, sizeof why, "the S3 server could not be had");
        }
    }
    if (why[0])
        return why;
    set_environment();
    *port = server.port;
    return NULL;
}

void s3_server_stop(void)
{
    static char rm[] = "/bin/rm", how[] = "-rf";
    char *words[] = {rm, how, server.place, NULL};
    if (!server.pid)
        return;
    close(server.hold);
    kill(server.pid, SIGKILL);
    waitpid(server.pid, NULL, 0);
    server.pid = 0;
    if (!ended_well(spawn(words, -1, -1)))
        fprintf(stderr, "# %s stayed behind\n", server.place);
}

struct asked {
    bool ended;
    long status;
    size_t got;
};

static void answered(void *context, struct wf_s3_call *call)
{
    struct asked *asked = call->user;
    (void)context;
    *asked = (struct asked){true, call->status, (size_t)call->got};
}

long s3_ask(const char *path, enum wf_s3_method method, const char *name, const char *query,
            const void *body, size_t bytes, void *room, size_t room_bytes, size_t *got)
{
    static uint8_t nowhere[1 << 20];
    struct wf_s3_http http = {.epoll = -1, .timer = -1, .stall_seconds = 10};
    struct wf_tier_options options = {.path = path};
    struct asked asked = {.ended = false};
    if (wf_s3_target_read(&options, &http.target) == WEFT_OK &&
        wf_s3_http_open(&http, 1, NULL) == WEFT_OK &&
        wf_s3_credentials_local(&http.credentials) == WEFT_OK) {
        struct wf_s3_call *call = wf_s3_http_take(&http);
        call->method = method;
        snprintf(call->name, sizeof call->name, "%s", name);
        snprintf(call->query, sizeof call->query, "%s", query ? query : "");
        call->body = body;
        call->body_bytes = bytes;
        call->room = room ? room : nowhere;
        call->room_bytes = room ? room_bytes : sizeof nowhere;
        call->user = &asked;
        call->done = answered;
        wf_s3_http_start(&http, call);
        while (!asked.ended)
            wf_s3_http_run(&http, 100);
    }
    wf_s3_http_close(&http);
    if (got)
        *got = asked.got;
    return asked.status;
}

struct counting {
    const char *prefix;
    char kind, *first;
    unsigned count;
};

static void count_one(void *context, const struct wf_s3_found *found)
{
    struct counting *c = context;
    const char *name = found->key + strlen(c->prefix);
    if (name[0] != c->kind || name[1] != '/')
        return;
    if (c->count++ == 0 && c->first)
        snprintf(c->first, 64, "%s", name);
}

unsigned s3_count(const char *path, char kind, char *first)
{
    static char room[4 << 20];
    struct wf_s3_target target;
    struct wf_tier_options options = {.path = path};
    struct wf_s3_answer answer;
    char query[WF_S3_QUERY_MAX], prefix[3 * WF_S3_PREFIX_MAX];
    size_t got;
    if (wf_s3_target_read(&options, &target) != WEFT_OK ||
        !wf_s3_encode(target.prefix, false, prefix, sizeof prefix))
        return 0;
    struct counting counting = {.prefix = target.prefix, .kind = kind, .first = first};
    snprintf(query, sizeof query, "list-type=2&prefix=%s", prefix);
    if (s3_ask(path, WF_S3_GET, "", query, NULL, 0, room, sizeof room, &got) != 200 ||
        !wf_s3_xml_read(room, got, &answer, count_one, &counting))
        return 0;
    return counting.count;
}

bool s3_flip(struct wf_tier *tier, const char *path, const uint8_t key[32], uint64_t at)
{
    struct wf_s3 *t = (struct wf_s3 *)(void *)tier;
    uint32_t item = wf_tier_index_find(&t->index, key);
    char name[WF_S3_NAME_MAX];
    size_t got = 0, room_bytes = 32 << 20;
    if (item == WF_TIER_NONE)
        return false;
    const struct wf_s3_slot *slot = &t->slots[t->index.items[item].group];
    uint8_t *room = malloc(room_bytes);
    wf_s3_name_write(name, 'p', slot->number, slot->tag);
    bool good = slot->state == WF_S3_SLOT_STORED && room &&
                s3_ask(path, WF_S3_GET, name, NULL, NULL, 0, room, room_bytes, &got) == 200;
    uint64_t byte = t->index.items[item].offset + sizeof(struct wf_s3_part) + at;
    if (good && byte < got) {
        room[byte] ^= 1;
        good = s3_ask(path, WF_S3_PUT, name, NULL, room, got, NULL, 0, NULL) == 200;
    }
    free(room);
    return good;
}
