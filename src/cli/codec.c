/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec: the options of its subcommands, and which is meant.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cli/codec.h"
#include "cli/commands.h"

/* Until parsing is done; then what was not given is 0. */
#define NOT_GIVEN UINT64_MAX
#define NO_REAL_GIVEN (-DBL_MAX)

struct codec_options wf_cli_codec_options = {.block_tokens = NOT_GIVEN,
                                             .window = NOT_GIVEN,
                                             .tokens = NOT_GIVEN,
                                             .threads = NOT_GIVEN,
                                             .kl = NO_REAL_GIVEN,
                                             .ppl_pct = NO_REAL_GIVEN,
                                             .rounds = 5,
                                             .working_set = CODEC_WORKING_SET};

static const struct cli_word words[] = {
    {"list", "the codecs that there are"},
    {"bench", "how small and how fast each codec is, on KV, beside zstd, lz4 and memcpy"},
    {"ppl", "what a codec does to a model's perplexity, and how much smaller it makes its KV"},
    {"calibrate", "find what KV of a model can lose, and write it to a profile"},
    {"show", "what a profile is for, what it costs and how many bits it gives to which layer"},
    {"install", "put a profile where this machine's node reads it, and see that it does"},
    {"kv", "write the KV blocks of a model and a text to a file"},
    {NULL},
};

static const struct cli_option options[] = {
    {"model", CLI_TEXT, "FILE", &wf_cli_codec_options.model, "a llama2.c checkpoint"},
    {"tokenizer", CLI_TEXT, "FILE", &wf_cli_codec_options.tokenizer,
     "its llama2.c tokenizer (a token a byte, for models of up to 384 tokens)"},
    {"text", CLI_TEXT, "FILE", &wf_cli_codec_options.text, "a text in UTF-8"},
    {"codec", CLI_TEXT, "NAME", &wf_cli_codec_options.codec,
     "ppl: a codec, or a quality: lossless, transparent, economy (lossless); bench: names, parted "
     "by commas (all, with zstd-1, zstd-3 and lz4)"},
    {"dtype", CLI_TEXT, "f32|f16|bf16|fp8_e4m3|fp8_e5m2", &wf_cli_codec_options.dtype,
     "the number type that the engine keeps KV in (bf16)"},
    {"block-tokens", CLI_NUMBER, "N", &wf_cli_codec_options.block_tokens,
     "tokens a block (64, or what two of fit into a window)"},
    {"window", CLI_NUMBER, "N", &wf_cli_codec_options.window,
     "tokens of the text that are seen together (the model's context)"},
    {"tokens", CLI_NUMBER, "N", &wf_cli_codec_options.tokens,
     "at most so many tokens of the text (what a few minutes allow)"},
    {"kl", CLI_REAL, "X", &wf_cli_codec_options.kl,
     "transparent: nats a token that it may cost (0.001)"},
    {"ppl-pct", CLI_REAL, "X", &wf_cli_codec_options.ppl_pct,
     "economy: percent of perplexity that it may cost (1)"},
    {"profile", CLI_TEXT, "FILE", &wf_cli_codec_options.profile,
     "a profile from an earlier calibration (calibrated on the first quarter of the text)"},
    {"output", CLI_TEXT, "FILE", &wf_cli_codec_options.output,
     "kv, calibrate: where the blocks go, or the profile"},
    {"name", CLI_TEXT, "NAME", &wf_cli_codec_options.name,
     "calibrate: what engines call the model in their formats (llama2.c@DIGEST)"},
    {"format-output", CLI_TEXT, "FILE", &wf_cli_codec_options.format_output,
     "kv: where their format goes, as JSON"},
    {"input", CLI_TEXT, "FILE", &wf_cli_codec_options.input,
     "bench: blocks of KV, one after the other"},
    {"format", CLI_TEXT, "FILE", &wf_cli_codec_options.format, "bench: what they are, as JSON"},
    {"rounds", CLI_NUMBER, "N", &wf_cli_codec_options.rounds,
     "bench: rounds, of which the best counts (5)"},
    {"working-set", CLI_SIZE, "SIZE", &wf_cli_codec_options.working_set,
     "bench: blocks are repeated until they are so many bytes (256 MiB)"},
    {"threads", CLI_NUMBER, "N", &wf_cli_codec_options.threads,
     "threads of the model (the processors, up to four)"},
    {NULL},
};

static const char *const examples[] = {
    "which codecs there are",
    "weft codec list",
    "ratio and speed of all of them on KV of a model",
    "weft codec bench --model m.bin --tokenizer tok.bin --text t.txt",
    "on blocks of one's own, as JSON",
    "weft codec bench --json --input kv.bin --format kv.json",
    "what 8 bits cost a model on a text",
    "weft codec ppl --model m.bin --tokenizer tok.bin --text t.txt --codec int8",
    "the smallest KV that costs next to nothing, as JSON",
    "weft codec ppl --model m.bin --tokenizer tok.bin --text t.txt --codec transparent --json",
    "a profile for a model, to be used wherever its KV is stored",
    "weft codec calibrate --model m.bin --tokenizer tok.bin --text t.txt --output m.wfprofile "
    "--name tinyllm-1@7c3d9e2a6b0f41c8",
    "what is in it, as JSON",
    "weft codec show m.wfprofile --json",
    "and to the node",
    "weft codec install m.wfprofile",
    "real KV for a benchmark",
    "weft codec kv --model m.bin --tokenizer tok.bin --text t.txt --output kv.bin --format-output "
    "kv.json",
    NULL,
};

/* A 0 that was given is no way to say "as it is without". */
static int zeros_refuse(struct cli *cli)
{
    struct codec_options *given = &wf_cli_codec_options;
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"block-tokens", &given->block_tokens},
                   {"window", &given->window},
                   {"tokens", &given->tokens},
                   {"threads", &given->threads}};
    const struct {
        const char *name, *loses;
        double *to;
    } reals[] = {{"kl", "nats a token", &given->kl}, {"ppl-pct", "percent", &given->ppl_pct}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (*numbers[i].to == 0)
            return wf_cli_fail(cli, CLI_USAGE, "--%s is 0; give 1 or more, or leave it out",
                               numbers[i].name);
        *numbers[i].to = *numbers[i].to == NOT_GIVEN ? 0 : *numbers[i].to;
    }
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        double value = *reals[i].to;
        if (value > NO_REAL_GIVEN && value < HUGE_VAL && value > 0)
            continue;
        if (!(value <= NO_REAL_GIVEN))
            return wf_cli_fail(cli, CLI_USAGE,
                               "--%s is %g; give the %s that may be lost, above 0, like 0.01, or "
                               "leave it out; lossless is what loses nothing",
                               reals[i].name, value, reals[i].loses);
        *reals[i].to = 0;
    }
    given->dtype_given = given->dtype != NULL;
    if (!given->dtype)
        given->dtype = "bf16";
    return CLI_OK;
}

static int run(struct cli *cli)
{
    static int (*const runs[])(struct cli *) = {wf_cli_codec_list, wf_cli_codec_bench,
                                                wf_cli_codec_ppl,  wf_cli_codec_calibrate,
                                                wf_cli_codec_show, wf_cli_codec_install,
                                                wf_cli_codec_kv};
    int code = zeros_refuse(cli);
    if (code != CLI_OK)
        return code;
    if (cli->word_count && strcmp(cli->words[0], "show") == 0)
        return wf_cli_codec_show(cli); /* it has a word of its own, as install */
    if (cli->word_count && strcmp(cli->words[0], "install") == 0)
        return wf_cli_codec_install(cli);
    return wf_cli_run_word(cli, runs);
}

const struct cli_command wf_cmd_codec = {
    .name = "codec",
    .summary = "measure what codecs make of KV, by themselves and by a model's answers",
    .synopsis = "list|bench|ppl|calibrate|show FILE|install FILE|kv",
    .about =
        "Works without a node, but for install.\n\n"
        "bench puts KV through each codec on one core, beside zstd -1, zstd -3, lz4 and memcpy on "
        "the same bytes.  The KV is that of --input, of --model and --text, or of made-up weights, "
        "which it then says; blocks are repeated until they fill --working-set, of which each "
        "counts as 256 bytes at least, so that none is in a cache when its turn comes.  Each "
        "round copies, encodes and decodes all blocks, a part "
        "of them at a time and by turns, so that noise hits all three alike; of each part the best "
        "round counts.  GB are 10^9 plain bytes.  A build that is not made for speed has "
        "\"test_build\": true in each row.  The percents are of memcpy, on one core too and "
        "of the same blocks in the same rounds: 40 % says that it takes two and a half times "
        "as long as copying (encode_of_memcpy and decode_of_memcpy have it as parts of 1).  Codecs "
        "work on each plane (the K, or the "
        "V, of a layer) by itself, so that a layer decodes alone; zstd and lz4 get the whole "
        "block.  All take a checksum of the plain bytes (codecs that are not lossless of the "
        "encoded ones) and verify it when they decode, in the time that is told.  ratio is of "
        "frames with heads and tables; ratio_k and ratio_v of the planes without them.  "
        "max_abs_err and mean_abs_err are of elements, rms_rel_err is the root of the squared "
        "errors over that of the squares.  What must be calibrated is left out where --codec does "
        "not name it.\n\n"
        "The format file is JSON: {\"layers\": 6, \"kv_heads\": 2, \"head_dim\": 64, \"dtype\": "
        "\"bf16\", \"block_tokens\": 64}, and \"model\", a name, where there is one; kv writes "
        "such; kv's others (rope_theta, rope_pairing, block_bytes, blocks, blocks_per_sequence, "
        "made_up) may be there too, and no more; where block_bytes or blocks contradict the rest, "
        "or the blocks, the file is refused.  A block has for each layer K, then V, each "
        "[block_tokens][kv_heads][head_dim], "
        "little-endian.\n\n"
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
        "and ratio_v have it for each layer's K and V, without them.  With --profile its tokens "
        "are told: a profile flatters the text that it was made from, which ppl cannot know; take "
        "another.\n\n"
        "calibrate finds what KV of a model can lose and writes a profile to --output.  Of the "
        "text's windows most make a basis for each layer's K and V, in which an error of any "
        "direction costs the model's answers as much as any other; the others tell what each "
        "layer's K and V costs alone, in KL and perplexity, and what all of them together cost at "
        "a range of settings.  From that the settings for the qualities follow: transparent (KL "
        "up to --kl, 0.001 nats a token unless given) and economy (perplexity up to --ppl-pct, 1 "
        "% unless given), with room for texts that are not this one; what is told of them has its "
        "standard errors.  A quality that even the finest setting does not reach (\"met\": false), "
        "or by which KV is no smaller than lossless makes it, is left out of the profile, with a "
        "warning and \"parameter\": 0: a node stores such blocks at the next better quality that "
        "the profile has, or losslessly, and ppl tells the figures of that (stored_as).  --json "
        "has what was predicted beside what was measured.  A node uses the profile for "
        "formats of model --name when it lies in its folder of profiles (weftd.yaml(5)) under a "
        "name that ends in .wfprofile: say --name as the engine calls the model, which is "
        "tinyllm-1@DIGEST for tinyllm(1), with the DIGEST of the name that calibrate takes by "
        "itself.  ppl --codec transparent does the same with the first quarter of its text, or "
        "takes --profile.\n\n"
        "show says what the profile in FILE is for: its model and format, its id, which frames "
        "name, how many tokens it was made from (first_tokens_exact of a sequence are stored "
        "exactly), and for each quality its setting and what that cost in the calibration.  A "
        "quality with \"met\": false has none, and blocks are stored as stored_as says.  planes "
        "has the bits an element that the profile predicts for each layer's K and V, by the "
        "entropy of what it expects, without tables and first tokens.  A file that is no profile, "
        "or not a whole one, is refused with a sentence.\n\n"
        "install copies the profile in FILE into the folder that the node reads (weft ls profiles "
        "names it), under the same name, and waits until the node has read it.  It takes the right "
        "to write there: be the node's user, or root.  No profile is replaced, since blocks may "
        "be stored by it: one of that name that is another stays, and the new one has its id in "
        "its name.  Of several for a format the newest counts, which is this one then.\n\n"
        "kv writes the blocks themselves, one after the other, each as engines give it to Weft: "
        "for each layer K, then V, [tokens][kv_heads][head_dim] of --dtype, K rotated.  "
        "Each window of "
        "the text is a sequence of its own, which begins at position 0: the first "
        "blocks_per_sequence blocks are the first window's, the next ones the next window's; the "
        "last may have fewer.  The format file says that, and what the blocks are.  Files that "
        "are there are replaced when all is written.  Without "
        "--model, weights and tokens are drawn from a seed: KV "
        "of such a model is no model's, and says little about one.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
