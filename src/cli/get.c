/* SPDX-License-Identifier: Apache-2.0
 *
 * weft get: blocks out of the node, into a file or a pipe.
 *
 * Each block is pinned while it is written.  With --verify it is first copied and the copy compared
 * with the block's checksum, so that no byte leaves here that is not what was committed.
 *
 * A file is made at the first block, beside the place that it is to have, and takes that place when
 * all that is there was written: a miss or a mistake half-way leaves what was in the file before.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/file.h"
#include "sys/clock.h"

#define WINDOW 16u   /* blocks held, and on their way up, at a time */
#define ASK_MS 1000u /* of others, where a directory is in parts */
#define WAIT_S 120   /* for one of them */

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

/* Where the blocks go. */
struct sink {
    enum weft_quality worst; /* of those that went */
    bool to_stdout;
    struct cli_file file; /* begun with the first block */
};

static int write_all(struct cli *cli, struct sink *sink, const uint8_t *data, size_t bytes)
{
    if (!sink->to_stdout) {
        int code = sink->file.begun ? CLI_OK : wf_cli_file_begin(cli, &sink->file);
        return code == CLI_OK ? wf_cli_file_write(cli, &sink->file, data, bytes) : code;
    }
    while (bytes) {
        ssize_t put = write(STDOUT_FILENO, data, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return wf_cli_fail(cli, CLI_SYSTEM, "cannot write to %s: %s", output, strerror(errno));
        data += put;
        bytes -= (size_t)put;
    }
    return CLI_OK;
}

/* The node ends what does not come; until then it is on its way, however slow a link may be. */
static enum weft_status wait_for(const struct weft_pins *pins, uint32_t block)
{
    double until_s = wf_cli_now_s() + WAIT_S;
    enum weft_status status;
    do
        status = weft_wait_block(pins, block);
    while (status == WEFT_E_TIMEOUT && wf_cli_now_s() < until_s);
    return status;
}

/* One held block; WEFT_MISS in *status ends the chain without being an error. */
static int block_get(struct cli *cli, const struct weft_pins *pins, uint32_t block,
                     struct sink *sink, uint8_t *copy, uint64_t most, enum weft_status *status)
{
    *status = wait_for(pins, block);
    if (*status == WEFT_MISS)
        return CLI_OK;
    if (*status != WEFT_OK)
        return wf_cli_fail_status(cli, *status, "cannot bring a block up");
    const struct weft_pin *pin = &pins->pins[block];
    const uint8_t *data = pin->data;
    size_t bytes = pin->bytes < most ? pin->bytes : most;
    if (verify) {
        *status = weft_pin_read(pin, copy, pin->bytes);
        data = copy;
        if (*status != WEFT_OK)
            return wf_cli_fail_status(cli, *status, "a block is not what was committed");
    }
    if (weft_pin_quality(pin) > sink->worst)
        sink->worst = weft_pin_quality(pin);
    return write_all(cli, sink, data, bytes);
}

/* Nothing was there: perhaps because it is called by another name, which its size is part of. */
static void miss_say(struct cli *cli, struct weft_format *format, const struct weft_key *key,
                     const json_t *missing)
{
    char opening[CLI_OPENING_MAX];
    const char *why = json_string_value(json_object_get(missing, "why"));
    if (strcmp(why, "absent") != 0 && strcmp(why, "opening") != 0 && strcmp(why, "failed") != 0) {
        fprintf(stderr, "weft get: %s\n", json_string_value(json_object_get(missing, "text")));
        return;
    }
    uint64_t other = wf_cli_other_size(cli, format, key);
    size_t failed = other ? 0 : wf_cli_failed_say(cli);
    if (other)
        fprintf(stderr,
                "weft get: there is no such block of %zu bytes, but one of %llu bytes is there; "
                "say --block-bytes %llu\n",
                weft_format_block_bytes(format), (unsigned long long)other,
                (unsigned long long)other);
    else if (wf_cli_opening(cli, opening, sizeof opening))
        fprintf(stderr,
                "weft get: no such block of %zu bytes is known yet: %s still being opened; get it "
                "again later, weft ls tiers shows when it is ok\n",
                weft_format_block_bytes(format), opening);
    else if (failed)
        fprintf(stderr,
                "weft get: no such block of %zu bytes is known; it may be on a tier that failed\n",
                weft_format_block_bytes(format));
    else
        fprintf(stderr,
                "weft get: there is no such block of %zu bytes; a key is of one model, layout, "
                "size and salt%s, and weft ls blocks shows what is there\n",
                weft_format_block_bytes(format),
                wf_cli_format_options.quality
                    ? ", and of a quality where that is more than its domain's "
                      "(--quality)"
                    : "");
}

/* Takes over `missing`, which is NULL when all was there. */
static int report(struct cli *cli, size_t got, size_t count, uint64_t bytes,
                  const struct sink *sink, json_t *missing)
{
    char size[32];
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)got));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)bytes));
        wf_cli_json_set(answer, "verified", json_boolean(verify));
        wf_cli_json_set(answer, "quality", json_string(weft_quality_name(sink->worst)));
        wf_cli_json_set(answer, "missing", missing ? missing : json_null());
        wf_cli_json_print(answer);
        missing = NULL;
    } else if (!sink->to_stdout || got < count) {
        fprintf(stderr, "%zu of %zu block%s, %s%s\n", got, count, wf_cli_s(count),
                wf_cli_size(bytes, size, sizeof size), verify ? ", checked" : "");
        if (got && missing)
            fprintf(stderr, "weft get: %s\n", json_string_value(json_object_get(missing, "text")));
    }
    if (!cli->json && sink->worst > WEFT_LOSSLESS)
        fprintf(stderr, "weft get: some of them were stored with loss: %s\n",
                weft_quality_name(sink->worst));
    json_decref(missing);
    return got == count ? CLI_OK : CLI_MISS;
}

/* Whether what is not there is worth another try, now that others were asked about it, or tiers
 * waited for; each once. */
struct tries {
    bool asked, waited;
};

static bool again(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                  size_t count, struct tries *tries)
{
    size_t known = 0;
    if (!tries->asked) {
        tries->asked = true;
        if (weft_match_keys(format, keys, count, &known) == WEFT_OK && known < count &&
            wf_cli_chain_ask(format, keys, count, known, ASK_MS))
            return true;
    }
    bool first = !tries->waited;
    tries->waited = true;
    return first && wf_cli_opening_wait(cli);
}

static int get_chain(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                     size_t count, struct sink *sink)
{
    size_t block_bytes = weft_format_block_bytes(format), got = 0;
    uint8_t *copy = verify ? wf_cli_alloc(block_bytes) : NULL;
    uint64_t left = bytes_wanted ? bytes_wanted : UINT64_MAX, before = left;
    enum weft_status status = WEFT_OK;
    struct tries tries = {0};
    int code = CLI_OK;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "get");
    struct weft_pins pins, behind = {.blocks = 0};
    int64_t begun_ms = wf_unix_ms(); /* as events tell the time */
    while (code == CLI_OK && status == WEFT_OK && got < count && left) {
        size_t window = count - got < WINDOW ? count - got : WINDOW;
        status = weft_get_keys(format, keys + got, window, WEFT_BLOCK_ORDER, &pins);
        if (status != WEFT_OK) {
            code = wf_cli_fail_status(cli, status, "cannot get");
            break;
        }
        weft_pins_release(&behind); /* held until here: what follows extends it */
        behind = pins;
        for (uint32_t i = 0; code == CLI_OK && status == WEFT_OK && i < pins.blocks && left; i++) {
            code = block_get(cli, &pins, i, sink, copy, left, &status);
            if (code == CLI_OK && status == WEFT_OK) {
                got++;
                left -= block_bytes < left ? block_bytes : left;
            }
            wf_cli_progress_step(&progress, (double)got / (double)count, "");
        }
        if (code == CLI_OK && left && got < count &&
            (pins.blocks < window || status == WEFT_MISS)) {
            if (!again(cli, format, keys, count, &tries))
                break;
            status = WEFT_OK;
        }
    }
    weft_pins_release(&behind);
    wf_cli_progress_fini(&progress);
    free(copy);
    if (code == CLI_OK && sink->file.begun)
        code = wf_cli_file_end(cli, &sink->file);
    wf_cli_file_drop(&sink->file);
    if (code != CLI_OK)
        return code;
    json_t *missing = got < count && left ? wf_cli_missing(cli, &keys[got], got, begun_ms) : NULL;
    if (missing && !got)
        miss_say(cli, format, keys, missing);
    else if (missing)
        wf_cli_failed_say(cli);
    return report(cli, got, left ? count : got, before - left, sink, missing);
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
    struct cli_chain chain;
    int code = wf_cli_chain_open(cli, blocks, &chain);
    struct sink sink = {.worst = WEFT_LOSSLESS,
                        .to_stdout = to_stdout,
                        .file = {.path = output, .in_place = true}};
    if (code == CLI_OK)
        code = get_chain(cli, chain.format, chain.keys, chain.count, &sink);
    wf_cli_chain_close(&chain);
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
        "While the node still opens a tier (after its start), what is not found is waited for, "
        "for up to 5 s.  Where nodes keep a directory in parts, what this one does not know of is "
        "asked of the others, for up to a second.\n\n"
        "A file that is there is replaced when all is written, and not touched when no block is "
        "there or something fails.\n\n"
        "What tiers stored with loss, in a domain whose quality allows that, is told: the worst "
        "quality of the blocks that came (`quality`).\n\n"
        "Of the first block that did not come it says why: it is not there; a tier has it and did "
        "not give it within its timeout; a tier that may have it is still being opened, or "
        "failed; or reading it failed.  With --json that is `missing`: its place in the chain, "
        "`why` (absent, tier, room, opening, failed, or the event's reason), the tier and a "
        "sentence; null when nothing is missing.\n\n"
        "Exits with 1 when blocks were missing (the first part is written), and with 5 when "
        "--verify found bytes that are not what was committed (nothing of that block is written).",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
