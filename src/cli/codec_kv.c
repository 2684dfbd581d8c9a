/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec kv: the KV of a model and a text, as a file of blocks and one that says what they are.
 */
#include <errno.h>
#include <string.h>

#include "cli/codec.h"
#include "llama/say.h"

struct writing {
    FILE *file;
    struct cli_progress progress;
    uint64_t bytes, blocks, total;
    bool failed;
};

static bool write_block(void *context, const struct codec_block *block)
{
    struct writing *w = context;
    w->failed = fwrite(block->data, 1, w->bytes, w->file) != w->bytes;
    w->blocks++;
    wf_cli_progress_step(&w->progress, (double)w->blocks / (double)w->total, "");
    return !w->failed;
}

static int write_blocks(struct cli *cli, const struct codec_subject *subject, struct writing *w)
{
    const char *path = wf_cli_codec_options.output;
    *w = (struct writing){
        .bytes = subject->layout.bytes,
        .total = wf_cli_codec_block_count(subject),
        .file = fopen(path, "wbe"),
    };
    if (!w->file)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
    wf_cli_progress_init(&w->progress, "codec kv");
    bool ok = wf_cli_codec_blocks(subject, 0, write_block, w);
    int why = errno;
    wf_cli_progress_fini(&w->progress);
    if (fclose(w->file) != 0 && !w->failed) {
        w->failed = true;
        why = errno;
    }
    if (w->failed)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", path, strerror(why));
    return ok ? CLI_OK : wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_say_last());
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

/* False, with errno: it is not there whole. */
static bool write_format(const json_t *format, const char *path)
{
    FILE *file = fopen(path, "we");
    bool written = file && json_dumpf(format, file, JSON_INDENT(2)) == 0 &&
                   fputc('\n', file) != EOF;
    return (!file || fclose(file) == 0) && written;
}

int wf_cli_codec_kv(struct cli *cli)
{
    const struct codec_options *given = &wf_cli_codec_options;
    struct codec_subject subject;
    struct writing writing;
    if (!given->output || !given->format_output)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say where the blocks go, and where their format: "
                           "--output FILE --format-output FILE");
    int code = wf_cli_codec_open(cli, true, &subject);
    if (code != CLI_OK)
        return code;
    code = write_blocks(cli, &subject, &writing);
    json_t *format = code == CLI_OK ? format_of(&subject, writing.blocks) : NULL;
    if (format && !write_format(format, given->format_output))
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", given->format_output,
                           strerror(errno));
    if (code == CLI_OK && cli->json) {
        wf_cli_json_print(json_incref(format));
    } else if (code == CLI_OK) {
        char size[32];
        printf("%llu blocks of %u tokens, %s each%s\n", (unsigned long long)writing.blocks,
               subject.layout.tokens, wf_cli_size(subject.layout.bytes, size, sizeof size),
               subject.made_up
                   ? "; of made-up weights and tokens: give --model and --text for real "
                     "ones"
                   : "");
    }
    json_decref(format);
    wf_cli_codec_close(&subject);
    return code;
}
