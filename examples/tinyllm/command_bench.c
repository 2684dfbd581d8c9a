/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm bench: the last turn of several conversations, computed whole, and then on KV that
 * another process left in Weft.  Both are measured in one run, on the same prompts, and every logit
 * is compared.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "llama/say.h"
#include "script.h"

/* The other process: it holds the conversations up to their last turn, and leaves. */
static enum exit_code fill(const struct options *options, const struct setting *setting,
                           const struct script *script)
{
    struct server server;
    enum exit_code code = EXIT_DONE;
    if (!server_open(&setting->model, options->block_tokens, options->threads, &server))
        return command_failed(EXIT_FAILED);
    struct play play = {.script = script,
                        .server = &server,
                        .turn_end = script->turns - 1,
                        .interrupted = &command_interrupted};
    if (!server_attach(&server, &setting->connect))
        code = command_failed(EXIT_NO_NODE);
    else if (!play_run(&play))
        code = command_failed(EXIT_FAILED);
    command_report_trouble(&server);
    play_free(&play);
    server_close(&server);
    return code;
}

/* It must be forked before there are threads, and it makes its own connection. */
static enum exit_code fill_elsewhere(const struct options *options, const struct setting *setting,
                                     const struct script *script)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        _exit((int)fill(options, setting, script));
    if (child < 0) {
        wf_say_keep("cannot start a process");
        return command_failed(EXIT_FAILED);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        if (command_interrupted)
            kill(child, SIGTERM);
    if (command_interrupted)
        return EXIT_INTERRUPTED;
    return WIFEXITED(status) ? (enum exit_code)WEXITSTATUS(status) : EXIT_FAILED;
}

static enum exit_code report(const struct options *options, const struct play *cold,
                             const struct play *warm)
{
    double cold_ms = play_ttft_ms_median(cold, warm), warm_ms = play_ttft_ms_median(warm, warm);
    double hit_rate = play_hit_rate(warm);
    bool identical = play_differing(warm) == 0;
    struct storage storage = {0};
    bool known = play_storage(warm, &storage) && storage.stored_blocks > 0;
    double dedup = known ? (double)storage.logical_blocks / (double)storage.stored_blocks : 0.0;
    if (options->json) {
        printf("{\"ttft_cold_ms\": %.3f, \"ttft_warm_ms\": %.3f, \"logits_identical\": %s, "
               "\"hit_rate\": %.4f, \"dedup_ratio\": ",
               cold_ms, warm_ms, identical ? "true" : "false", hit_rate);
        if (known)
            printf("%.4f}\n", dedup);
        else
            printf("null}\n");
    } else {
        printf("time to first token, cold   %10.3f ms\n", cold_ms);
        printf("time to first token, warm   %10.3f ms\n", warm_ms);
        printf("logits identical            %10s\n", identical ? "yes" : "NO");
        printf("hit rate                    %10.1f %%\n", 100.0 * hit_rate);
        if (known)
            printf("dedup ratio                 %10.2f\n", dedup);
        else
            printf("dedup ratio                 %10s\n", "unknown");
    }
    return identical ? EXIT_DONE : EXIT_DIFFERS;
}

static enum exit_code measure(const struct options *options, const struct setting *setting,
                              const struct script *script)
{
    struct server cold_server = {0}, warm_server = {0};
    struct play cold = {.script = script,
                        .server = &cold_server,
                        .turn_end = script->turns,
                        .interrupted = &command_interrupted};
    struct play warm = cold;
    warm.server = &warm_server;
    warm.turn_first = script->turns - 1;
    warm.compare = &cold;

    enum exit_code code;
    if (!server_open(&setting->model, options->block_tokens, options->threads, &cold_server) ||
        !server_open(&setting->model, options->block_tokens, options->threads, &warm_server))
        code = command_failed(EXIT_FAILED);
    else if (!server_attach(&warm_server, &setting->connect))
        code = command_failed(EXIT_NO_NODE);
    else if (!play_run(&cold) || !play_run(&warm))
        code = command_failed(EXIT_FAILED);
    else
        code = report(options, &cold, &warm);
    command_report_trouble(&warm_server);
    play_free(&warm);
    play_free(&cold);
    server_close(&warm_server);
    server_close(&cold_server);
    return code;
}

enum exit_code command_bench(const struct options *options)
{
    struct setting setting;
    struct script script;
    /* A benchmark leaves nothing in a node that others use, unless it is told to use that one. */
    if (!setting_open(options, options->start_node || !options->socket, &setting))
        return command_failed(EXIT_FAILED);
    enum exit_code code;
    if (!script_make(&setting.tokenizer, &setting.model.shape, options->users, options->turns, 0,
                     &script)) {
        code = command_failed(EXIT_FAILED);
    } else {
        code = fill_elsewhere(options, &setting, &script);
        if (code == EXIT_DONE)
            code = measure(options, &setting, &script);
        script_free(&script);
    }
    setting_close(&setting);
    return code;
}
