/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm demo: the same conversations without Weft and with it, and what the difference was.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "llama/say.h"
#include "script.h"

#define BAR_CELLS 28

struct stage {
    const char *name;
    const struct script *script;
    bool terminal;
};

static void show_turn(void *context, const struct record *record, uint32_t done, uint32_t total)
{
    const struct stage *stage = context;
    char turn[32], bar[BAR_CELLS + 1];
    if (record->turn < stage->script->turns)
        snprintf(turn, sizeof(turn), "turn %u", record->turn + 1);
    else
        snprintf(turn, sizeof(turn), "fork  ");
    if (!stage->terminal) {
        printf("%s %2u/%u  user %u %s: %u tokens, %u from Weft, first answer after %.1f ms\n",
               stage->name, done, total, record->user + 1, turn, record->result.history,
               record->result.hit, (double)record->result.ttft_us / 1000.0);
        fflush(stdout);
        return;
    }
    memset(bar, '.', BAR_CELLS);
    memset(bar, '#', (size_t)done * BAR_CELLS / total);
    bar[BAR_CELLS] = '\0';
    printf("\r%s [%s] %2u/%u  user %u %s: first answer after %.1f ms\033[K", stage->name, bar, done,
           total, record->user + 1, turn, (double)record->result.ttft_us / 1000.0);
    if (done == total)
        printf("\n");
    fflush(stdout);
}

static void describe(const struct options *options, const struct setting *setting,
                     const struct script *script)
{
    const struct wf_model_shape *s = &setting->model.shape;
    printf("%s: dim %u, %u layers, %u heads, %u KV heads, vocabulary %u, context %u\n",
           options->model ? options->model : "a random model", s->dim, s->layers, s->heads,
           s->kv_heads, s->vocab, s->context);
    printf("%u users with %u turns each, of whom %u go two ways at the last; all share a system "
           "prompt of %u tokens\n\n",
           script->users, script->turns, script->forks, script->system_count);
}

static void report(const struct play *cold, const struct play *warm)
{
    double cold_ms = play_ttft_ms_median(cold, cold), warm_ms = play_ttft_ms_median(warm, warm);
    struct storage storage;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < warm->count; i++)
        rows += warm->records[i].count;

    printf("\ntime to first token, median   %9.1f ms without Weft\n", cold_ms);
    printf("                              %9.1f ms with Weft, %.1f times as fast\n", warm_ms,
           cold_ms / warm_ms);
    printf("hit rate                      %9.1f %% of the tokens that had to be known\n",
           100.0 * play_hit_rate(warm));
    if (play_storage(warm, &storage) && storage.stored_blocks > 0) {
        double saved = (double)((storage.logical_blocks - storage.stored_blocks) *
                                storage.block_bytes);
        printf(
            "dedup ratio                   %9.2f    %llu blocks in use by the chats, %llu stored\n",
            (double)storage.logical_blocks / (double)storage.stored_blocks,
            (unsigned long long)storage.logical_blocks, (unsigned long long)storage.stored_blocks);
        printf("bytes saved                   %9.1f MiB\n", saved / 1048576.0);
    } else {
        printf("dedup ratio                     unknown: nothing is stored any more\n");
    }
    printf("logits identical: %s (%llu times %u, compared bit for bit)\n",
           play_differing(warm) == 0 ? "yes" : "NO", (unsigned long long)rows,
           warm->server->model->shape.vocab);
}

/* Both plays; false with a sentence, or interrupted. */
static enum exit_code play_both(const struct options *options, const struct setting *setting,
                                const struct script *script, struct server *cold_server,
                                struct server *warm_server)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    struct stage without = {"without Weft", script, terminal},
                 with = {"with Weft   ", script, terminal};
    struct play cold = {.script = script,
                        .server = cold_server,
                        .turn_end = script->turns,
                        .progress = show_turn,
                        .context = &without,
                        .interrupted = &command_interrupted};
    struct play warm = cold;
    warm.server = warm_server;
    warm.compare = &cold;
    warm.context = &with;

    describe(options, setting, script);
    enum exit_code code = EXIT_DONE;
    if (!play_run(&cold) || !play_run(&warm)) {
        if (terminal)
            printf("\n");
        code = command_failed(EXIT_FAILED);
    } else {
        report(&cold, &warm);
        code = play_differing(&warm) == 0 ? EXIT_DONE : EXIT_DIFFERS;
    }
    play_free(&warm);
    play_free(&cold);
    return code;
}

enum exit_code command_demo(const struct options *options)
{
    struct setting setting;
    struct script script = {0};
    struct server cold = {0}, warm = {0};
    enum exit_code code;
    if (!setting_open(options, options->start_node, &setting))
        return command_failed(EXIT_FAILED);
    if (!script_make(&setting.tokenizer, &setting.model.shape, options->users, options->turns,
                     options->forks, &script) ||
        !server_open(&setting.model, options->block_tokens, options->threads, &cold) ||
        !server_open(&setting.model, options->block_tokens, options->threads, &warm))
        code = command_failed(EXIT_FAILED);
    else if (!server_attach(&warm, &setting.connect))
        code = command_failed(EXIT_NO_NODE);
    else
        code = play_both(options, &setting, &script, &cold, &warm);
    command_report_trouble(&warm);
    server_close(&warm);
    server_close(&cold);
    script_free(&script);
    setting_close(&setting);
    return code;
}
