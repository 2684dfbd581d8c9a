/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm run: continue a prompt, the text on stdout, what it took on stderr.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "llama/say.h"

struct writer {
    const struct wf_tokenizer *tokenizer;
    uint32_t previous;
    float temperature;
    uint64_t random; /* xorshift64* state */
    float *weights;  /* [vocab] */
};

/* Marsaglia's xorshift64* to [0, 1). */
static float draw(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (float)((*state * 0x2545f4914f6cdd1d) >> 40) * 0x1p-24f;
}

/* Each token as often as its probability says; at temperature 0 the most likely one. */
static uint32_t choose(void *context, const float *logits, uint32_t vocab)
{
    struct writer *writer = context;
    if (writer->temperature <= 0.0f)
        return choose_greedy(NULL, logits, vocab);
    memcpy(writer->weights, logits, vocab * sizeof(*logits));
    wf_kernel_softmax(writer->weights, 1.0f / writer->temperature, vocab);
    float rest = draw(&writer->random);
    for (uint32_t i = 0; i < vocab; i++) {
        rest -= writer->weights[i];
        if (rest < 0.0f)
            return i;
    }
    return vocab - 1;
}

static void put(struct writer *writer, uint32_t token)
{
    size_t length;
    const char *bytes = wf_tokenizer_decode(writer->tokenizer, writer->previous, token, &length);
    fwrite(bytes, 1, length, stdout);
    writer->previous = token;
}

static bool listen(void *context, uint32_t token, const float *logits)
{
    (void)logits;
    put(context, token);
    fflush(stdout);
    return !command_interrupted && !ferror(stdout);
}

static bool generate(struct server *server, const struct options *options, struct writer *writer)
{
    struct chat chat;
    struct turn_result result;
    uint32_t context = server->model->shape.context;
    uint32_t *prompt = malloc(context * sizeof(*prompt));
    if (!prompt || !chat_open(server, "run", &chat)) {
        free(prompt);
        return prompt != NULL || wf_say_failed("no memory for a prompt of %u tokens", context);
    }
    size_t count = wf_tokenizer_encode(writer->tokenizer, options->prompt, true, prompt, context);
    uint32_t answer_max = options->tokens;
    if (count < context && answer_max > context - count)
        answer_max = context - (uint32_t)count;
    writer->previous = WF_TOKEN_BEGIN;
    for (size_t i = 1; i < count; i++)
        put(writer, prompt[i]);
    struct turn_request request = {prompt, (uint32_t)count, answer_max, choose, listen, writer};
    bool ok = chat_turn(&chat, &request, &result);
    if (ok) {
        printf("\n");
        fprintf(stderr,
                "tinyllm: %u tokens after %u, of which Weft had %u; first token after %.1f ms\n",
                result.answered, result.history, result.hit, (double)result.ttft_us / 1000.0);
    }
    chat_close(&chat);
    free(prompt);
    return ok && (!ferror(stdout) || wf_say_failed("cannot write to stdout"));
}

enum exit_code command_run(const struct options *options)
{
    struct setting setting;
    struct server server;
    enum exit_code code = EXIT_DONE;
    if (!setting_open(options, options->start_node && !options->no_weft, &setting))
        return command_failed(EXIT_FAILED);
    if (setting.random)
        fprintf(stderr,
                "tinyllm: no --model was given, so a random one speaks: its words mean nothing\n");
    if (!server_open(&setting.model, options->block_tokens, options->threads, &server)) {
        setting_close(&setting);
        return command_failed(EXIT_FAILED);
    }
    if (!options->no_weft && !server_attach(&server, &setting.connect)) {
        server_close(&server);
        setting_close(&setting);
        return command_failed(EXIT_NO_NODE);
    }
    struct writer writer = {
        .tokenizer = &setting.tokenizer,
        .temperature = (float)options->temperature,
        .random = options->seed ? options->seed : 1,
        .weights = malloc(setting.model.shape.vocab * sizeof(float)),
    };
    bool ok = writer.weights ? generate(&server, options, &writer)
                             : wf_say_failed("no memory for %u weights", setting.model.shape.vocab);
    if (!ok || command_interrupted)
        code = command_failed(EXIT_FAILED);
    command_report_trouble(&server);
    free(writer.weights);
    server_close(&server);
    setting_close(&setting);
    return code;
}
