/* SPDX-License-Identifier: Apache-2.0
 *
 * weft get: blocks out of the node, into a file or a pipe.
 *
 * Each block is pinned while it is written.  With --verify it is first copied and the copy compared
 * with the block's checksum, so that no byte leaves here that is not what was committed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

static bool verify;
static const char *output = "-";
static uint64_t blocks = 1, bytes_wanted;

static const struct cli_option options[] = {
    {"output", CLI_TEXT, "FILE", &output, "where to write; - for stdout (-)"},
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"bytes", CLI_SIZE, "SIZE", &bytes_wanted, "stop after so many bytes, to cut padding off"},
    {"verify", CLI_FLAG, NULL, &verify, "check every block against its checksum before writing it"},
    {NULL},
};

static const char *const examples[] = {
    "one block back into a file",
    "weft get --key 'conversation 17' --block-bytes 3407872 --output kv.bin",
    "a chain of 40 blocks, each checked, through a pipe",
    "weft get --key prompt-4f2a --block-bytes 2MiB --blocks 40 --verify | gzip > kv.gz",
    "what is there of a prompt",
    ("weft get --model llama-3-8b@7f3c --layers 32 --kv-heads 8 --head-dim 128 --dtype bf16 "
     "--tokens @prompt.tokens --output kv.bin"),
    NULL,
};

static int write_all(struct cli *cli, int fd, const uint8_t *data, size_t bytes)
{
    while (bytes) {
        ssize_t put = write(fd, data, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return wf_cli_fail(cli, CLI_SYSTEM, "cannot write to %s: %s", output, strerror(errno));
        data += put;
        bytes -= (size_t)put;
    }
    return CLI_OK;
}

/* One block; WEFT_MISS in *status ends the chain without being an error. */
static int block_get(struct cli *cli, struct weft_format *format, const struct weft_key *key,
                     int fd, uint8_t *copy, uint64_t most, enum weft_status *status)
{
    struct weft_pin pin;
    *status = weft_pin(format, key, &pin);
    if (*status == WEFT_MISS)
        return CLI_OK;
    if (*status != WEFT_OK)
        return wf_cli_fail_status(cli, *status, "cannot pin");
    const uint8_t *data = pin.data;
    size_t bytes = pin.bytes < most ? pin.bytes : most;
    int code = CLI_OK;
    if (verify) {
        *status = weft_pin_read(&pin, copy, pin.bytes);
        data = copy;
        if (*status != WEFT_OK)
            code = wf_cli_fail_status(cli, *status, "a block is not what was committed");
    }
    if (code == CLI_OK)
        code = write_all(cli, fd, data, bytes);
    weft_unpin(&pin);
    return code;
}

static int report(struct cli *cli, size_t got, size_t count, uint64_t bytes, int fd)
{
    char size[32];
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)got));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)bytes));
        wf_cli_json_set(answer, "verified", json_boolean(verify));
        wf_cli_json_print(answer);
    } else if (fd != STDOUT_FILENO || got < count) {
        fprintf(stderr, "%zu of %zu blocks, %s%s\n", got, count,
                wf_cli_size(bytes, size, sizeof size), verify ? ", checked" : "");
    }
    return got == count ? CLI_OK : CLI_MISS;
}

static int get_chain(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                     size_t count, int fd)
{
    size_t block_bytes = weft_format_block_bytes(format), got = 0;
    uint8_t *copy = verify ? wf_cli_alloc(block_bytes) : NULL;
    uint64_t left = bytes_wanted ? bytes_wanted : UINT64_MAX, before = left;
    enum weft_status status = WEFT_OK;
    int code = CLI_OK;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "get");
    while (code == CLI_OK && status == WEFT_OK && got < count && left) {
        code = block_get(cli, format, &keys[got], fd, copy, left, &status);
        if (code == CLI_OK && status == WEFT_OK) {
            got++;
            left -= block_bytes < left ? block_bytes : left;
        }
        wf_cli_progress_step(&progress, (double)got / (double)count, "");
    }
    wf_cli_progress_fini(&progress);
    free(copy);
    return code == CLI_OK ? report(cli, got, left ? count : got, before - left, fd) : code;
}

static int run(struct cli *cli)
{
    bool to_stdout = strcmp(output, "-") == 0;
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE,
                           "'%s' is one word too many; the file goes after --output",
                           cli->words[0]);
    if (to_stdout && cli->json)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the answer and the blocks cannot both go to stdout; say --output FILE");
    if (to_stdout && isatty(STDOUT_FILENO))
        return wf_cli_fail(cli, CLI_USAGE, "a terminal is no place for blocks; say --output FILE");
    if (!blocks || blocks > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to 4294967295",
                           (unsigned long long)blocks);
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    struct weft_format *format;
    code = wf_cli_format_open(cli, 0, &format);
    if (code != CLI_OK)
        return code;
    struct weft_key *keys = NULL;
    size_t count = 0;
    code = wf_cli_keys(cli, format, blocks, &keys, &count);
    int fd = STDOUT_FILENO;
    if (code == CLI_OK && !to_stdout) {
        fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            code = wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", output, strerror(errno));
    }
    if (code == CLI_OK)
        code = get_chain(cli, format, keys, count, fd);
    if (!to_stdout && fd >= 0 && close(fd) != 0 && code == CLI_OK)
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", output, strerror(errno));
    free(keys);
    weft_format_close(format);
    return code;
}

const struct cli_command wf_cmd_get = {
    .name = "get",
    .summary = "copy blocks out to a file or a pipe",
    .synopsis = "",
    .about =
        "Writes the blocks of a chain, from the first, as far as they are there.  The size of a "
        "block is part of its format, so say the same --block-bytes or layout as when it was "
        "put.\n\n"
        "Exits with 1 when blocks were missing (the first part is written), and with 5 when "
        "--verify found bytes that are not what was committed (nothing of that block is written).",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
