/* SPDX-License-Identifier: Apache-2.0
 *
 * Redis as the yardstick for a get: GET over a Unix socket, RESP2, one connection.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench.h"

#define START_S 5.0

static bool send_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    while (bytes) {
        ssize_t sent = send(fd, p, bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        p += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t bytes)
{
    uint8_t *p = data;
    while (bytes) {
        ssize_t got = recv(fd, p, bytes, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        bytes -= (size_t)got;
    }
    return true;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void child_run(const char *program, const char *socket, const char *folder, uint64_t memory,
                      uint16_t port, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    char maximum[32], number[8];
    snprintf(number, sizeof number, "%u", port);
    snprintf(maximum, sizeof maximum, "%llu", (unsigned long long)memory);
    if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
        _exit(1);
    execl(program, program, "--port", number, "--bind", "127.0.0.1", "--unixsocket", socket,
          "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", folder, "--maxmemory",
          maximum, (char *)NULL);
    _exit(127);
}

void wf_bench_redis_start(struct bench_redis *redis, uint64_t memory_bytes, uint16_t port)
{
    *redis = (struct bench_redis){.fd = -1};
    char program[PATH_MAX], socket[100];
    if (!wf_cli_program_find("redis-server", program, sizeof program))
        return;
    snprintf(redis->folder, sizeof redis->folder, "/tmp/weft-redis-XXXXXX");
    if (!mkdtemp(redis->folder)) {
        redis->folder[0] = '\0';
        return;
    }
    snprintf(socket, sizeof socket, "%s/redis.sock", redis->folder);
    fflush(NULL);
    pid_t parent = getpid();
    redis->pid = fork();
    if (redis->pid == 0)
        child_run(program, socket, redis->folder, memory_bytes, port, parent);
    double until = wf_cli_now_s() + START_S;
    while (redis->pid > 0 && redis->fd < 0 && wf_cli_now_s() < until) {
        redis->fd = connect_to(socket);
        if (redis->fd < 0 && waitpid(redis->pid, NULL, WNOHANG) == redis->pid)
            redis->pid = 0;
        usleep(2000);
    }
    if (redis->fd < 0)
        wf_bench_redis_stop(redis);
}

bool wf_bench_redis_set(struct bench_redis *redis, uint64_t key, const void *value, size_t bytes)
{
    char head[128], answer[5];
    int length = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$16\r\n%016llx\r\n$%zu\r\n",
                          (unsigned long long)key, bytes);
    return send_all(redis->fd, head, (size_t)length) && send_all(redis->fd, value, bytes) &&
           send_all(redis->fd, "\r\n", 2) && receive_all(redis->fd, answer, 5) &&
           memcmp(answer, "+OK\r\n", 5) == 0;
}

bool wf_bench_redis_get(struct bench_redis *redis, uint64_t key, void *value, size_t bytes)
{
    char head[64], expected[32], answer[32];
    int length = snprintf(head, sizeof head, "*2\r\n$3\r\nGET\r\n$16\r\n%016llx\r\n",
                          (unsigned long long)key);
    int expected_length = snprintf(expected, sizeof expected, "$%zu\r\n", bytes);
    return send_all(redis->fd, head, (size_t)length) &&
           receive_all(redis->fd, answer, (size_t)expected_length) &&
           memcmp(answer, expected, (size_t)expected_length) == 0 &&
           receive_all(redis->fd, value, bytes) && receive_all(redis->fd, answer, 2);
}

void wf_bench_redis_stop(struct bench_redis *redis)
{
    if (redis->fd >= 0)
        close(redis->fd);
    redis->fd = -1;
    if (redis->pid > 0) {
        kill(redis->pid, SIGKILL); /* it holds nothing that is worth a shutdown */
        waitpid(redis->pid, NULL, 0);
    }
    redis->pid = 0;
    if (redis->folder[0]) {
        char socket[100];
        snprintf(socket, sizeof socket, "%s/redis.sock", redis->folder);
        unlink(socket);
        rmdir(redis->folder);
    }
    redis->folder[0] = '\0';
}
