/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec: the options of its subcommands, and which is meant.
 */
#include "cli/codec.h"
#include "cli/commands.h"

struct codec_options wf_cli_codec_options = {.codec = "lossless", .dtype = "bf16"};

static const struct cli_word words[] = {
    {"ppl", "what a codec does to a model's perplexity, and how much smaller it makes its KV"},
    {"kv", "write the KV blocks of a model and a text to a file"},
    {NULL},
};

static const struct cli_option options[] = {
    {"model", CLI_TEXT, "FILE", &wf_cli_codec_options.model, "a llama2.c checkpoint"},
    {"tokenizer", CLI_TEXT, "FILE", &wf_cli_codec_options.tokenizer,
     "its llama2.c tokenizer (a token a byte)"},
    {"text", CLI_TEXT, "FILE", &wf_cli_codec_options.text, "a text in UTF-8"},
    {"codec", CLI_TEXT, "NAME", &wf_cli_codec_options.codec,
     "a codec, or a quality: lossless, transparent, economy (lossless)"},
    {"dtype", CLI_TEXT, "f32|f16|bf16|fp8_e4m3|fp8_e5m2", &wf_cli_codec_options.dtype,
     "the number type that the engine keeps KV in (bf16)"},
    {"block-tokens", CLI_NUMBER, "N", &wf_cli_codec_options.block_tokens,
     "tokens a block (64, or what two of fit into a window)"},
    {"window", CLI_NUMBER, "N", &wf_cli_codec_options.window,
     "tokens of the text that are seen together (the model's context)"},
    {"tokens", CLI_NUMBER, "N", &wf_cli_codec_options.tokens,
     "at most so many tokens of the text (what a few minutes allow)"},
    {"kl", CLI_REAL, "X", &wf_cli_codec_options.kl, "transparent: nats a token that it may cost"},
    {"ppl-pct", CLI_REAL, "X", &wf_cli_codec_options.ppl_pct,
     "economy: percent of perplexity that it may cost"},
    {"profile", CLI_TEXT, "FILE", &wf_cli_codec_options.profile,
     "a profile from an earlier calibration (calibrated on the first quarter of the text)"},
    {"output", CLI_TEXT, "FILE", &wf_cli_codec_options.output, "kv: where the blocks go"},
    {"format-output", CLI_TEXT, "FILE", &wf_cli_codec_options.format_output,
     "kv: where their format goes, as JSON"},
    {"threads", CLI_NUMBER, "N", &wf_cli_codec_options.threads,
     "threads of the model (the processors, up to four)"},
    {NULL},
};

static const char *const examples[] = {
    "what 8 bits cost a model on a text",
    "weft codec ppl --model m.bin --tokenizer tok.bin --text t.txt --codec int8",
    "the smallest KV that costs next to nothing, as JSON",
    "weft codec ppl --model m.bin --tokenizer tok.bin --text t.txt --codec transparent --json",
    "real KV for a benchmark",
    "weft codec kv --model m.bin --tokenizer tok.bin --text t.txt --output kv.bin --format-output "
    "kv.json",
    NULL,
};

static int run(struct cli *cli)
{
    static int (*const runs[])(struct cli *) = {wf_cli_codec_ppl, wf_cli_codec_kv};
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    return runs[which](cli);
}

const struct cli_command wf_cmd_codec = {
    .name = "codec",
    .summary = "measure what codecs make of KV, by themselves and by a model's answers",
    .synopsis = "ppl|kv",
    .about =
        "Works without a node.\n\n"
        "ppl runs a model over a text twice and compares.  The text is cut into windows, each "
        "computed from nothing: a begin mark and the next tokens.  The exact run keeps its KV in "
        "--dtype, each number rounded as it is computed, as an engine of that type does.  In the "
        "codec's run each block of --block-tokens tokens, once it is complete, goes through a "
        "frame of that codec and back, and all later tokens attend to what came back; the block's "
        "own tokens saw it exact, as in an engine whose full blocks go to a store.  The first "
        "quarter of the windows is for calibration, for codecs and qualities that need it, and "
        "never counted; the figures are of the rest, for all codecs alike.\n\n"
        "ppl_exact and ppl are perplexities, ppl_delta_pct how much larger the second is, and "
        "ppl_delta_pct_error the standard error of that, a window taken as one observation: what "
        "is within two of it is noise.  kl_mean is the KL divergence of the exact model's next "
        "token to the other's, in nats, mean over all tokens.  ratio is the bytes of all complete "
        "blocks in --dtype, divided by those of their frames, heads and tables counted; ratio_k "
        "and ratio_v have it for each layer's K and V, without them.\n\n"
        "kv writes the blocks themselves, one after the other, each as engines give it to Weft: "
        "for each layer K, then V, [tokens][kv_heads][head_dim] of --dtype, K rotated.  The format "
        "file says what they are.  Without --model, weights and tokens are drawn from a seed: KV "
        "of such a model is no model's, and says little about one.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
