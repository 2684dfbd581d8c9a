/* SPDX-License-Identifier: Apache-2.0
 *
 * fio as the yardstick for a tier: io_uring, O_DIRECT, on a file beside the tier's, with the same
 * block size and depth.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench.h"

#define ANSWER_MAX ((size_t)1 << 20)
#define RUN_MS 120000

static void child_run(const char *program, const struct bench_fio_job *job, int out, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    char file[PATH_MAX], size[40], block[40], depth[40], mode[40], total[40];
    snprintf(file, sizeof file, "--filename=%s", job->path);
    snprintf(size, sizeof size, "--size=%llu", (unsigned long long)job->file_bytes);
    snprintf(total, sizeof total, "--io_size=%llu", (unsigned long long)job->bytes);
    snprintf(block, sizeof block, "--bs=%llu", (unsigned long long)job->block_bytes);
    snprintf(depth, sizeof depth, "--iodepth=%u", job->depth);
    if (job->write)
        snprintf(mode, sizeof mode, "--rw=write");
    else
        snprintf(mode, sizeof mode, "--rw=randread:%u", job->run);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(null, 2) < 0)
        _exit(1);
    execl(program, program, "--name=weft", file, size, total, block, depth, mode,
          "--ioengine=io_uring", "--direct=1", "--end_fsync=1", "--norandommap", "--randrepeat=0",
          "--thread", "--output-format=json", (char *)NULL);
    _exit(127);
}

/* All that comes until the other end is closed, as text; NULL when it takes too long. */
static char *read_all(int fd)
{
    char *text = wf_cli_alloc(ANSWER_MAX);
    size_t used = 0;
    double until = wf_cli_now_s() + RUN_MS / 1e3;
    ssize_t got = 1;
    while (got > 0 && used < ANSWER_MAX - 1 && wf_cli_now_s() < until) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, 1000) <= 0)
            continue;
        got = read(fd, text + used, ANSWER_MAX - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    }
    if (got == 0)
        return text;
    free(text);
    return NULL;
}

static bool understand(const char *text, const struct bench_fio_job *job, struct bench_fio *out)
{
    json_t *answer = json_loads(text, 0, NULL);
    const json_t *run = json_array_get(json_object_get(answer, "jobs"), 0);
    const json_t *way = json_object_get(run, job->write ? "write" : "read");
    const json_t *parts = json_object_get(json_object_get(way, "clat_ns"), "percentile");
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(way, "io_bytes"));
    bool right = way && json_integer_value(json_object_get(run, "error")) == 0 &&
                 bytes == job->bytes;
    /* Its own figure, which includes the fsync at the end, to the millisecond. */
    out->gbps = (double)json_integer_value(json_object_get(way, "bw_bytes")) / 1e9;
    out->us_p50 = json_number_value(json_object_get(parts, "50.000000")) / 1e3;
    out->us_p99 = json_number_value(json_object_get(parts, "99.000000")) / 1e3;
    json_decref(answer);
    return right && out->gbps > 0;
}

bool wf_bench_fio(const struct bench_fio_job *job, struct bench_fio *out)
{
    char program[PATH_MAX];
    int ends[2];
    memset(out, 0, sizeof *out);
    if (!wf_cli_program_find("fio", program, sizeof program) || pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_run(program, job, ends[1], parent);
    close(ends[1]);
    char *text = pid > 0 ? read_all(ends[0]) : NULL;
    close(ends[0]);
    if (pid > 0 && !text)
        kill(pid, SIGKILL);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    bool right = text && understand(text, job, out);
    free(text);
    return right;
}
