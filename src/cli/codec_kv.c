/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec kv: the KV of a model and a text, as a file of blocks and one that says what they are.
 * Whoever dies, or finds no room, leaves what was there of both, and no part of one.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/codec.h"
#include "cli/file.h"
#include "llama/say.h"

struct writing {
    struct cli *cli;
    struct cli_file *file;
    struct cli_progress progress;
    uint64_t bytes, blocks, total;
    int code;
};

static bool write_block(void *context, const struct codec_block *block)
{
    struct writing *w = context;
    w->code = wf_cli_file_write(w->cli, w->file, block->data, w->bytes);
    w->blocks++;
    wf_cli_progress_step(&w->progress, (double)w->blocks / (double)w->total, "");
    return w->code == CLI_OK;
}

static int write_blocks(struct cli *cli, const struct codec_subject *subject, struct cli_file *file,
                        uint64_t *out_blocks)
{
    struct writing w = {
        .cli = cli,
        .file = file,
        .bytes = subject->layout.bytes,
        .total = wf_cli_codec_block_count(subject),
    };
    wf_cli_progress_init(&w.progress, "codec kv");
    bool ok = wf_cli_codec_blocks(subject, 0, write_block, &w);
    wf_cli_progress_fini(&w.progress);
    *out_blocks = w.blocks;
    return ok || w.code != CLI_OK ? w.code : wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_say_last());
}

static json_t *format_of(const struct codec_subject *subject, uint64_t blocks)
{
    const struct wf_layout *layout = &subject->layout;
    const struct wf_windows *windows = &subject->windows;
    char name[64];
    wf_cli_codec_name(subject, name, sizeof name);
    json_t *f = json_object();
    wf_cli_json_set(f, "model", json_string(name));
    wf_cli_json_set(f, "layers", json_integer(layout->planes / 2));
    wf_cli_json_set(f, "kv_heads", json_integer(layout->heads));
    wf_cli_json_set(f, "head_dim", json_integer(layout->head_dim));
    wf_cli_json_set(f, "dtype", json_string(wf_cli_codec_options.dtype));
    wf_cli_json_set(f, "block_tokens", json_integer(layout->tokens));
    wf_cli_json_set(f, "rope_theta", json_real(WF_MODEL_ROPE_THETA));
    wf_cli_json_set(f, "rope_pairing", json_string("interleaved"));
    wf_cli_json_set(f, "block_bytes", json_integer((json_int_t)layout->bytes));
    wf_cli_json_set(f, "blocks", json_integer((json_int_t)blocks));
    wf_cli_json_set(f, "blocks_per_sequence", json_integer((windows->length - 1) / layout->tokens));
    wf_cli_json_set(f, "made_up", json_boolean(subject->made_up));
    return f;
}

static int write_format(struct cli *cli, const json_t *format, struct cli_file *file)
{
    char *text = json_dumps(format, JSON_INDENT(2));
    if (!text)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: out of memory", file->path);
    int code = wf_cli_file_write(cli, file, text, strlen(text));
    free(text);
    return code == CLI_OK ? wf_cli_file_write(cli, file, "\n", 1) : code;
}

static void report(struct cli *cli, const struct codec_subject *subject, json_t *format,
                   uint64_t blocks)
{
    char size[32];
    if (cli->json) {
        wf_cli_json_print(json_incref(format));
        return;
    }
    printf("%llu blocks of %u tokens, %s each%s\n", (unsigned long long)blocks,
           subject->layout.tokens, wf_cli_size(subject->layout.bytes, size, sizeof size),
           subject->made_up ? "; of made-up weights and tokens: give --model and --text for real "
                              "ones"
                            : "");
}

int wf_cli_codec_kv(struct cli *cli)
{
    const struct codec_options *given = &wf_cli_codec_options;
    struct codec_subject subject;
    uint64_t blocks = 0;
    if (!given->output || !given->format_output)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say where the blocks go, and where their format: "
                           "--output FILE --format-output FILE");
    int code = wf_cli_codec_open(cli, true, &subject);
    if (code != CLI_OK)
        return code;
    /* Both are begun before minutes are spent in vain, and neither is there without the other
     * having been written. */
    struct cli_file kv = {.path = given->output, .sync = true, .in_place = true};
    struct cli_file form = {.path = given->format_output, .sync = true, .in_place = true};
    json_t *format = NULL;
    code = wf_cli_file_begin(cli, &kv);
    if (code == CLI_OK)
        code = wf_cli_file_begin(cli, &form);
    if (code == CLI_OK)
        code = write_blocks(cli, &subject, &kv, &blocks);
    if (code == CLI_OK) {
        format = format_of(&subject, blocks);
        code = write_format(cli, format, &form);
    }
    if (code == CLI_OK)
        code = wf_cli_file_end(cli, &kv);
    if (code == CLI_OK)
        code = wf_cli_file_end(cli, &form);
    if (code == CLI_OK)
        report(cli, &subject, format, blocks);
    wf_cli_file_drop(&kv);
    wf_cli_file_drop(&form);
    json_decref(format);
    wf_cli_codec_close(&subject);
    return code;
}
