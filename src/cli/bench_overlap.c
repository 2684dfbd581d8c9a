/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench overlap: the time to the first token of an engine whose KV is below DRAM.
 *
 * The engine is tinyllm, an example that sees no more of the house than any other engine: its
 * command `overlap` does the measuring, against a node with an NVMe tier that is started here.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench.h"

#define POOL_BYTES ((uint64_t)512 << 20)

static void child_run(struct cli *cli, const char *program, pid_t parent)
{
    const struct bench_options *given = &wf_bench_options;
    char runs[32];
    const char *words[16] = {program, "overlap", "--socket", cli->socket, "--runs", runs};
    int count = 6;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CLI_SYSTEM);
    snprintf(runs, sizeof runs, "%llu", (unsigned long long)given->rounds);
    if (given->model) {
        words[count++] = "--model";
        words[count++] = given->model;
    }
    if (given->shape) {
        words[count++] = "--shape";
        words[count++] = given->shape;
    }
    if (cli->json)
        words[count++] = "--json";
    setenv("WEFT_DOMAIN", "default", 1); /* the user's own is of another node */
    execv(program, (char *const *)(uintptr_t)words);
    _exit(CLI_SYSTEM);
}

static int engine_run(struct cli *cli, const char *program)
{
    int how;
    /* How far it is, the engine alone knows; that nothing is wrong should be known here, too. */
    if (isatty(STDERR_FILENO))
        fprintf(stderr,
                "%llu rounds, in each of which the engine computes its whole prompt once: minutes "
                "without a word\n",
                (unsigned long long)wf_bench_options.rounds);
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_run(cli, program, parent);
    if (pid < 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot start %s: %s", program, strerror(errno));
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
        return CLI_OK;
    /* Its own 3: logits differ. */
    enum cli_exit code = WIFEXITED(how) && WEXITSTATUS(how) == 3 ? CLI_WRONG : CLI_SYSTEM;
    return wf_cli_fail(cli, code, "tinyllm did not end well; what it said stands above");
}

int wf_bench_overlap(struct cli *cli)
{
    struct bench_options *given = &wf_bench_options;
    char program[PATH_MAX];
    struct cli_node node;
    wf_bench_default(&given->tier_bytes, (uint64_t)2 << 30);
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE,
                           "bench overlap measures a node of its own; leave --socket out, or run "
                           "tinyllm overlap --socket yourself");
    if (!given->rounds || given->rounds > 1000)
        return wf_cli_fail(cli, CLI_USAGE, "there are 1 to 1000 rounds");
    if (!wf_cli_program_find("tinyllm", program, sizeof program))
        return wf_cli_fail(cli, CLI_SYSTEM,
                           "there is no tinyllm beside this program or in PATH to measure with; "
                           "build or install it");
    static const char *const settings[] = {"tier.nvme0.admit=always", NULL};
    struct cli_node_plan plan = {
        .pool_bytes = given->pool_bytes ? given->pool_bytes : POOL_BYTES,
        .tier_dir = given->dir,
        .tier_bytes = given->tier_bytes,
        .settings = settings,
    };
    int code = wf_cli_node_start(cli, &plan, &node);
    if (code != CLI_OK)
        return code;
    code = engine_run(cli, program);
    if (code == CLI_OK && !cli->json)
        wf_cli_node_print(cli, stdout);
    weft_close(cli->weft);
    cli->weft = NULL;
    wf_cli_node_stop(&node);
    return code;
}
