/* SPDX-License-Identifier: Apache-2.0 */
#include "etcd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEGIN_MS 20000

static int remove_entry(const char *path, const struct stat *entry, int kind, struct FTW *walk)
{
    (void)entry, (void)kind, (void)walk;
    return remove(path);
}

static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0 &&
                getsockname(fd, (struct sockaddr *)&address, &bytes) == 0;
    if (fd >= 0)
        close(fd);
    return good ? ntohs(address.sin_port) : 0;
}

/* fork, for the one thing that posix_spawn cannot do: let it die with us. */
static pid_t run(char *const *words, const char *place)
{
    char log[140];
    pid_t parent = getpid();
    snprintf(log, sizeof log, "%s/log", place);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent || fd < 0 || dup2(fd, 1) < 0 ||
        dup2(fd, 2) < 0)
        _exit(127);
    execvp(words[0], words);
    _exit(127);
}

static bool ran_well(char *const *words, const char *place)
{
    int status = 0;
    pid_t pid = run(words, place);
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

/* ------------------------------------------------------------------------------ talking to it */

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int etcd_ask(const struct etcd *etcd, const char *token, const char *path, const char *body,
             char *out, size_t out_bytes)
{
    char head[1024], answer[16384];
    size_t used = 0;
    int code = 0, fd = connect_to(etcd->port);
    if (fd < 0)
        return 0;
    int length = snprintf(head, sizeof head,
                          "POST %s HTTP/1.0\r\nHost: etcd\r\n%s%s%sContent-Length: %zu\r\n\r\n",
                          path, token ? "Authorization: " : "", token ? token : "",
                          token ? "\r\n" : "", strlen(body));
    bool good = send(fd, head, (size_t)length, MSG_NOSIGNAL) == length &&
                send(fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body);
    while (good && used < sizeof answer - 1) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t got = poll(&wait, 1, 5000) == 1
                          ? recv(fd, answer + used, sizeof answer - 1 - used, 0)
                          : -1;
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    close(fd);
    answer[used] = '\0';
    if (sscanf(answer, "HTTP/%*s %d", &code) != 1)
        return 0;
    const char *begins = strstr(answer, "\r\n\r\n");
    if (out)
        snprintf(out, out_bytes, "%s", begins ? begins + 4 : "");
    return code;
}

const char *etcd_base64(const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char kept[4][2048];
    static unsigned next;
    char *out = kept[next++ % 4];
    size_t used = 0, count = strlen(text);
    for (size_t i = 0; i < count && used + 5 < sizeof kept[0]; i += 3) {
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (i + j < count ? (uint8_t)text[i + j] : 0);
        for (size_t j = 0; j < 4; j++)
            out[used++] = i + j <= count ? digits[bits >> (18 - 6 * j) & 63] : '=';
    }
    out[used] = '\0';
    return out;
}

bool etcd_put(const struct etcd *etcd, const char *key, const char *value)
{
    char body[4096];
    if (!value) {
        snprintf(body, sizeof body, "{\"key\":\"%s\"}", etcd_base64(key));
        return etcd_ask(etcd, NULL, "/v3/kv/deleterange", body, NULL, 0) == 200;
    }
    snprintf(body, sizeof body, "{\"key\":\"%s\",\"value\":\"%s\"}", etcd_base64(key),
             etcd_base64(value));
    return etcd_ask(etcd, NULL, "/v3/kv/put", body, NULL, 0) == 200;
}

bool etcd_compact(const struct etcd *etcd)
{
    char body[4096], answer[4096];
    snprintf(body, sizeof body, "{\"key\":\"%s\"}", etcd_base64("/nobody"));
    if (etcd_ask(etcd, NULL, "/v3/kv/range", body, answer, sizeof answer) != 200)
        return false;
    const char *revision = strstr(answer, "\"revision\":\"");
    snprintf(body, sizeof body, "{\"revision\":\"%lld\"}",
             revision ? strtoll(revision + strlen("\"revision\":\""), NULL, 10) : 0);
    return etcd_ask(etcd, NULL, "/v3/kv/compaction", body, NULL, 0) == 200;
}

/* -------------------------------------------------------------------------- its life and end */

/* With TLS it is asked over its own port for plain HTTP's metrics: whether it is well. */
static bool is_well(const struct etcd *etcd)
{
    char answer[1024];
    if (etcd->tls) {
        int fd = connect_to(etcd->port);
        if (fd >= 0)
            close(fd);
        return fd >= 0;
    }
    return etcd_ask(etcd, NULL, "/v3/maintenance/status", "{}", answer, sizeof answer) == 200 &&
           strstr(answer, "\"leader\":");
}

bool etcd_begin(struct etcd *etcd)
{
    char data[140], client[64], peer[64], cluster[80], certificate[140], key[140], ca[140];
    snprintf(data, sizeof data, "%s/data", etcd->place);
    snprintf(client, sizeof client, "http%s://127.0.0.1:%u", etcd->tls ? "s" : "", etcd->port);
    snprintf(peer, sizeof peer, "http://127.0.0.1:%u", etcd->peer_port);
    snprintf(cluster, sizeof cluster, "default=%s", peer);
    snprintf(certificate, sizeof certificate, "%s/server.pem", etcd->place);
    snprintf(key, sizeof key, "%s/server.key", etcd->place);
    snprintf(ca, sizeof ca, "%s/ca.pem", etcd->place);
    const char *words[] = {"etcd",      "--data-dir",
                           data,        "--listen-client-urls",
                           client,      "--advertise-client-urls",
                           client,      "--listen-peer-urls",
                           peer,        "--initial-advertise-peer-urls",
                           peer,        "--initial-cluster",
                           cluster,     "--log-level",
                           "error",     "--heartbeat-interval",
                           "10",        "--election-timeout",
                           "100",       etcd->tls ? "--cert-file" : NULL,
                           certificate, "--key-file",
                           key,         "--trusted-ca-file",
                           ca,          "--client-cert-auth",
                           NULL};
    char *copies[sizeof words / sizeof words[0]] = {NULL};
    for (size_t i = 0; words[i]; i++)
        copies[i] = (char *)(uintptr_t)words[i];
    etcd->pid = run(copies, etcd->place);
    for (int ms = 0; etcd->pid > 0 && ms < BEGIN_MS; ms += 20) {
        int status;
        if (waitpid(etcd->pid, &status, WNOHANG) == etcd->pid)
            break;
        if (is_well(etcd))
            return true;
        (void)poll(NULL, 0, 20);
    }
    if (etcd->pid > 0 && kill(etcd->pid, 0) == 0)
        etcd_kill(etcd);
    etcd->pid = 0;
    return false;
}

/* A CA, and certificates of it for 127.0.0.1 and for a client. */
static bool make_certificates(const struct etcd *etcd)
{
    char script[1200];
    snprintf(
        script, sizeof script,
        "cd '%s' && ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2' &&\n"
        "openssl req -x509 $ec -subj /CN=weft-test-ca -keyout ca.key -out ca.pem &&\n"
        "for who in server client; do\n"
        "  openssl req $ec -subj /CN=$who -keyout $who.key -out $who.csr &&\n"
        "  echo 'subjectAltName=IP:127.0.0.1' >$who.ext &&\n"
        "  openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\\n"
        "    -extfile $who.ext -out $who.pem || exit 1\n"
        "done",
        etcd->place);
    static char shell[] = "/bin/sh", c[] = "-c";
    char *words[] = {shell, c, script, NULL};
    return ran_well(words, etcd->place);
}

const char *etcd_start(struct etcd *etcd, bool tls)
{
    static char why[300], program[] = "etcd", version[] = "--version";
    const char *temporary = getenv("TMPDIR");
    char *words[] = {program, version, NULL};
    *etcd = (struct etcd){.tls = tls};
    snprintf(etcd->place, sizeof etcd->place, "%s/weft-etcd-XXXXXX",
             temporary && strlen(temporary) < 60 ? temporary
             : access("/dev/shm", W_OK) == 0     ? "/dev/shm"
                                                 : "/tmp");
    if (!mkdtemp(etcd->place)) {
        etcd->place[0] = '\0';
        return "no directory for etcd can be made";
    }
    snprintf(why, sizeof why, "etcd did not start; its words are in %s/log", etcd->place);
    if (!ran_well(words, etcd->place)) {
        etcd_stop(etcd);
        return "there is no etcd on this machine (Debian: etcd-server)";
    }
    if (tls && !make_certificates(etcd)) {
        etcd_stop(etcd);
        return "openssl makes no certificates here";
    }
    for (int i = 0; i < 3; i++) { /* somebody else may take a port meanwhile */
        etcd->port = free_port();
        etcd->peer_port = free_port();
        if (etcd->port && etcd->peer_port && etcd_begin(etcd))
            return NULL;
    }
    return why;
}

void etcd_pause(struct etcd *etcd, bool stopped)
{
    (void)kill(etcd->pid, stopped ? SIGSTOP : SIGCONT);
}

void etcd_kill(struct etcd *etcd)
{
    if (etcd->pid <= 0)
        return;
    (void)kill(etcd->pid, SIGKILL);
    (void)waitpid(etcd->pid, NULL, 0);
    etcd->pid = 0;
}

void etcd_stop(struct etcd *etcd)
{
    etcd_kill(etcd);
    if (etcd->place[0] && nftw(etcd->place, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0)
        fprintf(stderr, "# %s stayed behind\n", etcd->place);
    etcd->place[0] = '\0';
}
