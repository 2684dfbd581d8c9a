/* SPDX-License-Identifier: Apache-2.0
 *
 * What `weft codec` evaluates: a checkpoint and a text, or weights and tokens from a seed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/codec.h"
#include "codec/convert.h"
#include "llama/say.h"

/* Multiplications that a run without --tokens may take, and between how many tokens that leaves. */
#define TOKENS_WORK 6.0e11
#define TOKENS_FEWEST 16384
#define TOKENS_MOST 65536

#define BLOCK_TOKENS 64

/* What windows are shortened to for a short text: two blocks of 16, and one token more. */
#define WINDOW_LEAST 33u

/* Up to here a vocabulary may be one of bytes, with marks of its own besides. */
#define BYTES_VOCAB_MAX 384

#define MADE_UP_SEED 1
#define MADE_UP_WINDOWS 8
#define MADE_UP_WINDOW 513 /* 8 blocks of 64, and one token that is only predicted */

static const struct wf_model_shape made_up_shape = {
    .dim = 512,
    .hidden_dim = 1376,
    .layers = 4,
    .heads = 8,
    .kv_heads = 4,
    .vocab = 512,
    .context = 1024,
};

/* Multiplications a token, but for attention: every weight once. */
static double parameters(const struct wf_model *m)
{
    const struct wf_model_shape *s = &m->shape;
    double dim = s->dim, kv = m->kv_dim, hidden = s->hidden_dim;
    return (double)s->layers * (2 * dim * dim + 2 * dim * kv + 3 * dim * hidden) +
           (double)s->vocab * dim;
}

static uint32_t tokens_max(const struct codec_subject *subject)
{
    uint64_t given = wf_cli_codec_options.tokens;
    if (given)
        return given < WF_WINDOWS_TOKENS_MAX ? (uint32_t)given : WF_WINDOWS_TOKENS_MAX;
    double tokens = TOKENS_WORK / parameters(&subject->model);
    return tokens < TOKENS_FEWEST ? TOKENS_FEWEST
           : tokens > TOKENS_MOST ? TOKENS_MOST
                                  : (uint32_t)tokens;
}

static uint64_t window_length(const struct wf_model *model)
{
    uint64_t given = wf_cli_codec_options.window, context = model->shape.context;
    return given && given < context ? given : context;
}

static bool read_real(struct codec_subject *out)
{
    const struct codec_options *given = &wf_cli_codec_options;
    struct wf_tokenizer tokenizer;
    if (!wf_model_load(given->model, &out->model))
        return false;
    uint32_t vocab = out->model.shape.vocab;
    if (!given->tokenizer && vocab > BYTES_VOCAB_MAX)
        return wf_say_failed("%s has %u tokens, which without a tokenizer nobody can tell in a "
                             "text (a byte each would be 256); give --tokenizer FILE",
                             given->model, vocab);
    if (given->tokenizer ? !wf_tokenizer_load(given->tokenizer, vocab, &tokenizer)
                         : !wf_tokenizer_bytes(vocab, &tokenizer))
        return false;
    uint32_t length = (uint32_t)window_length(&out->model);
    uint32_t least = given->window || length < WINDOW_LEAST ? length : WINDOW_LEAST;
    bool ok = wf_windows_read(given->text, &tokenizer, length, least, tokens_max(out),
                              &out->windows);
    wf_tokenizer_free(&tokenizer);
    if (ok && out->windows.length < length)
        fprintf(stderr,
                "weft codec: %u tokens of %s are too few for %u windows of the model's context; "
                "windows are of %u tokens, and answers are those of shorter contexts\n",
                out->windows.count, given->text, WF_WINDOWS_MIN, out->windows.length);
    if (ok && !given->tokenizer)
        fprintf(stderr, "no --tokenizer: a token is a byte, which is for models that learned so\n");
    return ok;
}

static bool make_up(struct codec_subject *out)
{
    uint64_t given = wf_cli_codec_options.window, random = MADE_UP_SEED;
    uint64_t length = given && given < MADE_UP_WINDOW ? given : MADE_UP_WINDOW;
    uint64_t count = wf_cli_codec_options.tokens;
    out->made_up = true;
    if (count == 0 || count > MADE_UP_WINDOWS * (length - 1))
        count = MADE_UP_WINDOWS * (length - 1);
    if (!wf_model_random(&made_up_shape, MADE_UP_SEED, &out->model))
        return false;
    uint32_t *tokens = wf_cli_alloc(count * sizeof *tokens);
    for (uint64_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)(wf_cli_random(&random) % made_up_shape.vocab);
    if (wf_windows_of("the made-up text", tokens, (uint32_t)count, (uint32_t)length, &out->windows))
        return true;
    free(tokens);
    return false;
}

static int layout_set(struct cli *cli, struct codec_subject *out)
{
    const struct codec_options *given = &wf_cli_codec_options;
    uint64_t computed = out->windows.length - 1, tokens = given->block_tokens;
    if (tokens == 0)
        for (tokens = BLOCK_TOKENS; tokens > 1 && 2 * tokens > computed;)
            tokens /= 2;
    if (tokens > computed)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--block-tokens is %llu, and of a window of %u tokens %u are computed: "
                           "no block would be complete; give --block-tokens from 1 to %u",
                           (unsigned long long)tokens, out->windows.length, out->windows.length - 1,
                           out->windows.length - 1);
    if (!wf_layout_of(wf_cli_dtype(given->dtype, WEFT_BF16), out->model.shape.layers,
                      (uint32_t)tokens, out->model.shape.kv_heads, out->model.head_dim,
                      &out->layout))
        return wf_cli_fail(cli, CLI_USAGE,
                           "blocks of %llu tokens of this model are too large for a frame; give a "
                           "smaller --block-tokens",
                           (unsigned long long)tokens);
    return CLI_OK;
}

int wf_cli_codec_readable(struct cli *cli, const char *option, const char *path)
{
    if (!path || access(path, R_OK) == 0)
        return CLI_OK;
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot read --%s %s: %s", option, path, strerror(errno));
}

int wf_cli_codec_open(struct cli *cli, bool made_up, struct codec_subject *out)
{
    const struct codec_options *given = &wf_cli_codec_options;
    *out = (struct codec_subject){.threads = (unsigned)(given->threads < 64 ? given->threads : 64)};
    if (!given->model && !made_up)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say whose answers: --model FILE, a llama2.c checkpoint, "
                           "and --text FILE");
    if (given->model && !given->text)
        return wf_cli_fail(cli, CLI_USAGE, "say what the model is to read: --text FILE");
    if (!given->model && (given->text || given->tokenizer))
        return wf_cli_fail(cli, CLI_USAGE, "a text needs somebody who reads it: --model FILE");
    if (given->window == 1)
        return wf_cli_fail(cli, CLI_USAGE, "a window of 1 token predicts nothing; 2 is the least");
    int code = wf_cli_codec_readable(cli, "model", given->model);
    if (code == CLI_OK)
        code = wf_cli_codec_readable(cli, "tokenizer", given->tokenizer);
    if (code == CLI_OK)
        code = wf_cli_codec_readable(cli, "text", given->text);
    if (code != CLI_OK)
        return code;
    if (!(given->model ? read_real(out) : make_up(out))) {
        wf_cli_codec_close(out);
        return wf_cli_fail(cli, CLI_USAGE, "%s", wf_say_last());
    }
    code = layout_set(cli, out);
    if (code != CLI_OK)
        wf_cli_codec_close(out);
    return code;
}

void wf_cli_codec_close(struct codec_subject *subject)
{
    wf_windows_free(&subject->windows);
    wf_model_free(&subject->model);
}

void wf_cli_codec_name(const struct codec_subject *subject, char *out, size_t capacity)
{
    snprintf(out, capacity, "%s@%s", subject->made_up ? "made-up" : "llama2.c",
             subject->model.digest);
}

json_t *wf_cli_codec_shape(const struct codec_subject *subject)
{
    const struct wf_model_shape *s = &subject->model.shape;
    json_t *shape = json_object();
    wf_cli_json_set(shape, "made_up", json_boolean(subject->made_up));
    wf_cli_json_set(shape, "parameters", json_integer((json_int_t)parameters(&subject->model)));
    wf_cli_json_set(shape, "dim", json_integer(s->dim));
    wf_cli_json_set(shape, "layers", json_integer(s->layers));
    wf_cli_json_set(shape, "heads", json_integer(s->heads));
    wf_cli_json_set(shape, "kv_heads", json_integer(s->kv_heads));
    wf_cli_json_set(shape, "head_dim", json_integer(subject->model.head_dim));
    wf_cli_json_set(shape, "vocabulary", json_integer(s->vocab));
    wf_cli_json_set(shape, "context", json_integer(s->context));
    return shape;
}

/* ------------------------------------------------------------------------- blocks in memory */

static void round_values(void *context, float *values, size_t count)
{
    const struct wf_layout *layout = context;
    uint16_t kept[64]; /* wide enough for every type that is rounded to */
    for (size_t i = 0; i < count; i += 64) {
        size_t some = count - i < 64 ? count - i : 64;
        wf_floats_to(layout->dtype, values + i, some, kept);
        wf_floats_of(layout->dtype, kept, some, values + i);
    }
}

void wf_cli_codec_evaluation(const struct codec_subject *subject, struct wf_eval_plan *out)
{
    *out = (struct wf_eval_plan){
        .model = &subject->model,
        .block_tokens = subject->layout.tokens,
        .threads = subject->threads,
        .round = subject->layout.dtype == WEFT_F32 ? NULL : round_values,
        .round_context = (void *)(uintptr_t)&subject->layout,
    };
}

struct taking {
    const struct wf_layout *layout;
    bool (*take)(void *context, const struct codec_block *block);
    void *context;
    void *data;
    uint32_t count, most;
    bool ended; /* by the caller, or all that it wanted are there */
};

static bool take_block(void *context, const float *block, uint32_t position)
{
    struct taking *t = context;
    size_t elements = t->layout->bytes / weft_dtype_bytes(t->layout->dtype);
    wf_floats_to(t->layout->dtype, block, elements, t->data);
    struct codec_block given = {t->data, t->count++, position};
    t->ended = !t->take(t->context, &given) || t->count == t->most;
    return !t->ended || wf_say_failed("no more blocks are wanted");
}

bool wf_cli_codec_blocks(const struct codec_subject *subject, uint32_t blocks_max,
                         bool (*take)(void *context, const struct codec_block *block),
                         void *context)
{
    struct taking t = {
        .layout = &subject->layout,
        .take = take,
        .context = context,
        .data = wf_cli_alloc(subject->layout.bytes),
        .most = blocks_max,
    };
    struct wf_eval_plan plan;
    wf_cli_codec_evaluation(subject, &plan);
    plan.block = take_block;
    plan.context = &t;
    bool ok = wf_eval_run(&plan, &subject->windows, 0, subject->windows.windows, NULL, 0, NULL);
    free(t.data);
    return ok || t.ended;
}

uint64_t wf_cli_codec_block_count(const struct codec_subject *subject)
{
    const struct wf_windows *w = &subject->windows;
    uint64_t each = (w->length - 1) / subject->layout.tokens;
    uint64_t last = (w->count - (w->windows - 1) * (w->length - 1)) / subject->layout.tokens;
    return (w->windows - 1) * each + last;
}
