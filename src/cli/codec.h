/* SPDX-License-Identifier: Apache-2.0
 *
 * What the subcommands of `weft codec` share: options, a model with a text, how a codec or a
 * quality becomes a plan for frames, and KV blocks in memory.
 */
#ifndef WF_CLI_CODEC_H
#define WF_CLI_CODEC_H

#include "cli/cli.h"
#include "codec/frame.h"
#include "codec/profile.h"
#include "llama/eval.h"

#define CODEC_WORKING_SET (256u << 20) /* of bench, where nothing else is said */

struct codec_options {
    const char *model, *tokenizer, *text, *codec, *dtype, *profile, *output, *format_output;
    const char *input, *format, *name;
    uint64_t block_tokens, window, tokens, threads, rounds, working_set;
    double kl, ppl_pct;
    bool dtype_given; /* else it is the default */
};                    /* numbers: 0 where they were not given */
extern struct codec_options wf_cli_codec_options;

int wf_cli_codec_list(struct cli *cli);
int wf_cli_codec_bench(struct cli *cli);
int wf_cli_codec_ppl(struct cli *cli);
int wf_cli_codec_kv(struct cli *cli);
int wf_cli_codec_calibrate(struct cli *cli);
int wf_cli_codec_show(struct cli *cli);
int wf_cli_codec_install(struct cli *cli);

/* ----------------------------------------------------------------------------- the subject */

/* A model, the windows of a text, and the blocks that it fills. */
struct codec_subject {
    struct wf_model model;
    struct wf_windows windows;
    struct wf_layout layout; /* of a block, in the number type that the model keeps its KV in */
    bool made_up; /* weights and tokens are drawn from a seed: no figure of it means much */
    unsigned threads;
};

/* As the options say; without --model made-up weights and tokens, when `made_up` allows it. CLI_OK,
 * or an exit code after a sentence. */
int wf_cli_codec_open(struct cli *cli, bool made_up, struct codec_subject *out);
void wf_cli_codec_close(struct codec_subject *subject);
/* A file of the user's that is not there is no mistake in what it says: CLI_SYSTEM, before it is
 * read.  NULL is none. */
int wf_cli_codec_readable(struct cli *cli, const char *option, const char *path);
/* A standard error for JSON: null where what has a cost has none, being of one window. */
json_t *wf_cli_codec_error(double error, double kl, int decimals);
/* The name that goes into formats: what the model is, and a digest of it.  `out` of 64. */
void wf_cli_codec_name(const struct codec_subject *subject, char *out, size_t capacity);
/* {"parameters", "layers", …}: the model's shape. */
json_t *wf_cli_codec_shape(const struct codec_subject *subject);

/* A plan for wf_eval_run(), with KV rounded to the layout's dtype as an engine has it; the caller
 * adds what it looks at (`context` is the layout's). */
void wf_cli_codec_evaluation(const struct codec_subject *subject, struct wf_eval_plan *out);

/* `block` [layout.bytes] is the KV of the exact run, cut as engines give it to Weft.  False ends
 * it.
 */
struct codec_block {
    const void *data;
    uint32_t number, position; /* of all, from 0; of its first token in its window */
};
bool wf_cli_codec_blocks(const struct codec_subject *subject, uint32_t blocks_max,
                         bool (*take)(void *context, const struct codec_block *block),
                         void *context);
/* How many of them there are. */
uint64_t wf_cli_codec_block_count(const struct codec_subject *subject);

/* ---------------------------------------------------------------------------------- the plan */

/* A profile, and where it is from. */
struct codec_profile {
    struct wf_profile *profile;
    void *file; /* its bytes */
    size_t bytes;
    json_t *says; /* what calibration found; NULL: it was read */
};

/* Calibrate on windows 0 … windows − 1 of the subject, or read a file that is of its shape. CLI_OK,
 * or an exit code after a sentence. */
int wf_cli_codec_calibration(struct cli *cli, const struct codec_subject *subject, uint32_t windows,
                             struct codec_profile *out);
int wf_cli_codec_profile_read(struct cli *cli, const char *path, const struct wf_layout *layout,
                              struct codec_profile *out);
/* Any profile, whatever it is for. */
int wf_cli_codec_profile_load(struct cli *cli, const char *path, struct codec_profile *out);
void wf_cli_codec_profile_free(struct codec_profile *profile);

struct codec_plan {
    struct wf_frame_plan frame;
    struct codec_profile profile; /* frame.profile, and what calibration says; or nothing */
    enum weft_quality instead;    /* the better one, of a quality that was not calibrated; or 0 */
};

/* What a codec's name, or a quality, means for blocks of such a layout.  What must be calibrated
 * works from --profile, or looks at windows 0 … windows.calibration - 1 of the subject and no
 * others (NULL: the KV is of no model that is here).  CLI_OK, or an exit code after a sentence. */
int wf_cli_codec_plan(struct cli *cli, const struct codec_subject *subject,
                      const struct wf_layout *layout, const char *name, struct codec_plan *out);
void wf_cli_codec_plan_free(struct codec_plan *plan);

/* ------------------------------------------------------------------------------- the passage */

/* Blocks on their way through frames and back: a variant for wf_eval_run(). */
struct codec_passage {
    const struct wf_layout *layout;
    const struct wf_frame_plan *plan;
    uint8_t *block, *frame, *back; /* [layout.bytes], [wf_frame_bound], [layout.bytes] */
    void *scratch;
    uint64_t blocks, bytes, encoded; /* that went through: plain, and of frames, heads counted */
    uint64_t *plane_bytes;           /* [layout.planes], encoded, without heads */
};

/* CLI_OK, or an exit code after a sentence; what is made is for fini() in any case. */
int wf_cli_codec_passage_init(struct cli *cli, const struct wf_layout *layout,
                              const struct wf_frame_plan *plan, struct codec_passage *out);
void wf_cli_codec_passage_fini(struct codec_passage *passage);
/* For struct wf_eval_variant; the context is the passage. */
bool wf_cli_codec_pass(void *context, float *block, uint32_t position);

#endif
