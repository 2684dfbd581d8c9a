/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands share: options, the model they run, the node they use, and how they end.
 */
#ifndef TINYLLM_COMMAND_H
#define TINYLLM_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "llama/model.h"
#include "llama/tokenizer.h"
#include "node.h"
#include "serve.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_DIFFERS = 3, /* logits with Weft are not the logits without it */
    EXIT_NO_NODE = 4,
    EXIT_INTERRUPTED = 130,
};

struct options {
    const char *program; /* argv[0] */
    const char *model, *tokenizer, *socket, *prompt;
    uint32_t tokens, users, turns, forks, runs, block_tokens;
    unsigned threads;
    double temperature;
    uint64_t seed;
    struct wf_model_shape shape; /* of the random model */
    bool no_weft, start_node, json;
};

/* Everything a command needs before it can begin. */
struct setting {
    struct wf_model model;
    struct wf_tokenizer tokenizer;
    struct node node;
    struct weft_connect_options connect;
    bool random; /* no checkpoint was given: the words will mean nothing */
};

/* Set by SIGINT and SIGTERM. */
extern volatile sig_atomic_t command_interrupted;

/* Load or make up the model; with `start_node`, start a node of our own.  When it fails, what was
 * made is gone. */
bool setting_open(const struct options *options, bool start_node, struct setting *out);
void setting_close(struct setting *setting);

/* Say on stderr why it ended, once, and give the code to exit with. */
enum exit_code command_failed(enum exit_code code);

/* On stderr, when Weft failed somewhere and was done without. */
void command_report_trouble(const struct server *server);

enum exit_code command_run(const struct options *options);
enum exit_code command_demo(const struct options *options);
enum exit_code command_bench(const struct options *options);
enum exit_code command_overlap(const struct options *options);

#endif
