/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening and closing what every command needs.
 */
#include "command.h"

#include <stdio.h>
#include <stdlib.h>

#include "llama/say.h"

volatile sig_atomic_t command_interrupted;

static bool model_open(const struct options *options, struct setting *setting)
{
    if (!options->model) {
        setting->random = true;
        return wf_model_random(&options->shape, options->seed, &setting->model);
    }
    return wf_model_load(options->model, &setting->model);
}

bool setting_open(const struct options *options, bool start_node, struct setting *out)
{
    struct setting setting = {0};
    if (!model_open(options, &setting))
        return false;
    uint32_t vocab = setting.model.shape.vocab;
    bool ok = options->tokenizer ? wf_tokenizer_load(options->tokenizer, vocab, &setting.tokenizer)
                                 : wf_tokenizer_bytes(vocab, &setting.tokenizer);
    ok = ok && (!start_node || node_start(options->program, &setting.node));
    *out = setting;
    out->connect = start_node ? (struct weft_connect_options){.socket = out->node.socket,
                                                              .domain = "default"}
                              : (struct weft_connect_options){.socket = options->socket};
    if (!ok)
        setting_close(out);
    return ok;
}

void setting_close(struct setting *setting)
{
    node_stop(&setting->node);
    wf_tokenizer_free(&setting->tokenizer);
    wf_model_free(&setting->model);
}

enum exit_code command_failed(enum exit_code code)
{
    if (command_interrupted)
        return EXIT_INTERRUPTED;
    fprintf(stderr, "tinyllm: %s%s\n", wf_say_last(),
            code == EXIT_NO_NODE ? "; or say --start-node for a private one" : "");
    return code;
}

void command_report_trouble(const struct server *server)
{
    if (server->trouble_count > 0)
        fprintf(stderr, "tinyllm: did without Weft %llu times; the last time: %s\n",
                (unsigned long long)server->trouble_count, server->trouble);
}
