/* SPDX-License-Identifier: Apache-2.0
 *
 * weft session export: an archive into one file.
 *
 * Blocks come up a window at a time, on memory that nothing else needs; the window before is held
 * until the next one is, because it extends it.  The file is there when all of it is on the disk.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "cli/file.h"
#include "cli/session.h"
#include "sys/clock.h"

#define ASK_US 20000

struct out {
    struct cli_file file;
    XXH3_state_t *sum;
    enum weft_quality worst; /* of the blocks that were written */
};

/* A rename would put a file in the place of a device or a pipe, so only a file is replaced. */
static int out_check(struct cli *cli, const char *name)
{
    struct stat about;
    if (strcmp(name, "-") == 0 || (stat(name, &about) == 0 && !S_ISREG(about.st_mode)))
        return wf_cli_fail(cli, CLI_USAGE,
                           "--output '%s' is no file; an archive is exported to one, which is "
                           "replaced only when all is written: --output FILE",
                           name);
    return CLI_OK;
}

/* The archive's keys, in all pages of the node's answer; its format goes to `head`. */
static int ask(struct cli *cli, const char *name, struct session_head *head, struct weft_key **out)
{
    char what[104];
    json_t *answer = NULL;
    uint64_t cursor = 0, count = 0;
    struct weft_key *keys = NULL;
    int code = CLI_OK;
    if (snprintf(what, sizeof what, "archive %s", name) >= (int)sizeof what)
        return wf_cli_fail(cli, CLI_USAGE, "an archive's name has up to 64 bytes");
    do {
        enum weft_status status;
        char *text = NULL;
        double until_s = wf_cli_now_s() + CLI_OPENING_S; /* archives are being read at a start */
        while ((status = weft_query(cli->weft, what, cursor, &text)) == WEFT_PENDING &&
               wf_cli_now_s() < until_s)
            usleep(ASK_US);
        if (status != WEFT_OK) {
            if (status == WEFT_E_NOT_FOUND)
                wf_cli_failed_say(cli);
            code = wf_cli_fail_status(cli, status, "cannot export");
            break;
        }
        json_decref(answer);
        answer = json_loads(text, 0, NULL);
        weft_text_free(text);
        const json_t *page = json_object_get(answer, "keys");
        uint64_t blocks = (uint64_t)json_integer_value(json_object_get(answer, "blocks"));
        if (!keys && blocks && blocks <= SESSION_BLOCKS_MAX) {
            head->blocks = (uint32_t)blocks;
            keys = wf_cli_alloc(blocks * sizeof *keys);
        }
        for (size_t i = 0; keys && i < json_array_size(page) && count < head->blocks; i++)
            count += wf_session_key_take(json_array_get(page, i), &keys[count]);
        cursor = (uint64_t)json_integer_value(json_object_get(answer, "next"));
    } while (cursor);
    const char *state = json_string_value(json_object_get(answer, "state"));
    const json_t *waits = json_array_get(json_object_get(answer, "waits_for"), 0);
    if (code == CLI_OK && waits)
        code = wf_cli_fail(cli, CLI_MISS,
                           "archive '%s' is not whole as long as tier %s does not work; `weft ls "
                           "tiers` says what is wrong with it",
                           name, json_string_value(waits));
    /* Of one that is whole but unreadable the load says why. */
    bool whole = state && (strcmp(state, "ok") == 0 || strcmp(state, "unreadable") == 0);
    if (code == CLI_OK && (!keys || count != head->blocks || !whole))
        code = wf_cli_fail(cli, CLI_WRONG,
                           "archive '%s' is damaged: not all of its blocks are there; archive its "
                           "session again, or import a file of it",
                           name);
    if (code == CLI_OK && !wf_session_format_take(json_object_get(answer, "format"), head))
        code = wf_cli_fail(cli, CLI_NODE, "the node's answer to '%s' is not one", what);
    if (code == CLI_OK && keys) {
        snprintf(head->name, sizeof head->name, "%s", name);
        head->tip = keys[count - 1];
        head->created_ms = (uint64_t)json_integer_value(json_object_get(answer, "created_ms"));
    }
    json_decref(answer);
    *out = keys;
    return code;
}

static int64_t begun_ms; /* of 1970 */

/* Block `at` was there and cannot be had. */
static int block_fail(struct cli *cli, enum weft_status status, const struct session_head *head,
                      uint32_t at, const struct weft_key *key)
{
    char what[192];
    json_t *missing = status == WEFT_MISS ? wf_cli_missing(cli, key, at, begun_ms) : NULL;
    const char *why = json_string_value(json_object_get(missing, "why"));
    if (why && (strcmp(why, "profile") == 0 || strcmp(why, "quality") == 0)) {
        int code = wf_cli_fail(cli, CLI_MISS, "archive '%s' is whole, but %s%s", head->name,
                               json_string_value(json_object_get(missing, "text")),
                               *why == 'p' ? "; put its file back into the folder of profiles"
                                           : "");
        json_decref(missing);
        return code;
    }
    json_decref(missing);
    if (status == WEFT_MISS || status == WEFT_E_CORRUPT)
        return wf_cli_fail(cli, CLI_WRONG,
                           "archive '%s' is damaged: block %u of %u, counted from 0, is not what "
                           "was stored, or its tier cannot read it; archive its session again, or "
                           "import a file of it",
                           head->name, at, head->blocks);
    snprintf(what, sizeof what, "archive '%.64s': block %u of %u, counted from 0, cannot be read",
             head->name, at, head->blocks);
    return wf_cli_fail_status(cli, status, what);
}

static int block_write(struct cli *cli, struct out *out, const struct weft_pins *pins, uint32_t i,
                       const struct session_head *head, uint32_t at, const struct weft_key *key,
                       uint8_t *copy)
{
    uint8_t bytes[SESSION_BLOCK_BYTES];
    enum weft_status status = weft_wait_block(pins, i);
    size_t length = (size_t)pins->pins[i].bytes;
    if (status == WEFT_OK)
        status = weft_pin_read(&pins->pins[i], copy, length);
    if (status != WEFT_OK)
        return block_fail(cli, status, head, at, key);
    struct session_block block = {.key = *key,
                                  .bytes = length,
                                  .quality = weft_pin_quality(&pins->pins[i])};
    if (block.quality > out->worst)
        out->worst = block.quality;
    block.checksum = XXH3_64bits(copy, length);
    wf_session_block_write(&block, bytes);
    XXH3_64bits_update(out->sum, bytes, sizeof bytes);
    int code = wf_cli_file_write(cli, &out->file, bytes, sizeof bytes);
    return code == CLI_OK ? wf_cli_file_write(cli, &out->file, copy, length) : code;
}

static int blocks_write(struct cli *cli, struct out *out, struct weft_format *format,
                        const struct session_head *head, const struct weft_key *keys)
{
    struct weft_pins pins, behind = {.blocks = 0};
    struct cli_progress progress;
    uint8_t *copy = wf_cli_alloc(head->block_bytes);
    size_t window = session_window(head->block_bytes);
    int code = CLI_OK;
    begun_ms = wf_unix_ms();
    wf_cli_progress_init(&progress, "export");
    for (uint32_t at = 0; code == CLI_OK && at < head->blocks;) {
        size_t count = head->blocks - at < window ? head->blocks - at : window;
        enum weft_status status = weft_get_keys(format, keys + at, count, WEFT_BLOCK_ORDER, &pins);
        if (status != WEFT_OK) {
            code = wf_cli_fail_status(cli, status, "blocks cannot be brought up");
            break;
        }
        weft_pins_release(&behind);
        behind = pins;
        json_t *missing = pins.blocks ? NULL : wf_cli_missing(cli, &keys[at], at, begun_ms);
        const char *why = json_string_value(json_object_get(missing, "why"));
        if (why && strcmp(why, "quality") == 0)
            code = block_fail(cli, WEFT_MISS, head, at, &keys[at]);
        else if (pins.blocks == 0)
            code = wf_cli_fail(cli, CLI_REFUSED,
                               "archive '%s': block %u of %u, counted from 0, cannot be brought "
                               "up: the pool has no room for the chain, or the block is damaged",
                               head->name, at, head->blocks);
        json_decref(missing);
        for (uint32_t i = 0; code == CLI_OK && i < pins.blocks; i++) {
            code = block_write(cli, out, &pins, i, head, at + i, &keys[at + i], copy);
            wf_cli_progress_step(&progress, (double)(at + i + 1) / head->blocks, "");
        }
        at += pins.blocks;
    }
    weft_pins_release(&behind);
    wf_cli_progress_fini(&progress);
    free(copy);
    return code;
}

static int file_write(struct cli *cli, struct out *out, struct weft_format *format,
                      const struct session_head *head, const struct weft_key *keys)
{
    uint8_t bytes[SESSION_HEAD_BYTES_MAX], foot[SESSION_FOOT_BYTES];
    size_t length = wf_session_head_write(head, bytes);
    int code = wf_cli_file_begin(cli, &out->file);
    if (code != CLI_OK)
        return code;
    XXH3_64bits_reset(out->sum);
    XXH3_64bits_update(out->sum, bytes, length);
    code = wf_cli_file_write(cli, &out->file, bytes, length);
    if (code == CLI_OK)
        code = blocks_write(cli, out, format, head, keys);
    if (code == CLI_OK) {
        wf_session_foot_write(head->blocks, XXH3_64bits_digest(out->sum), foot);
        code = wf_cli_file_write(cli, &out->file, foot, sizeof foot);
    }
    if (code == CLI_OK)
        code = wf_cli_file_end(cli, &out->file);
    wf_cli_file_drop(&out->file);
    return code;
}

static void say(const struct cli *cli, const struct session_head *head, const struct out *out)
{
    uint64_t bytes = head->blocks * head->block_bytes;
    char size[32];
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "name", json_string(head->name));
        wf_cli_json_set(answer, "file", json_string(out->file.path));
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)head->blocks));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)bytes));
        wf_cli_json_set(answer, "quality", json_string(weft_quality_name(out->worst)));
        wf_cli_json_print(answer);
        return;
    }
    printf("%s: %u block%s, %s, in %s\n", head->name, head->blocks, wf_cli_s(head->blocks),
           wf_cli_size(bytes, size, sizeof size), out->file.path);
    if (out->worst > WEFT_LOSSLESS)
        printf("some of them were stored with loss: %s\n", weft_quality_name(out->worst));
}

int wf_session_export(struct cli *cli, const char *name, const char *output)
{
    static struct session_head head;
    struct out out = {.file = {.path = output, .sync = true, .private = true},
                      .sum = XXH3_createState(),
                      .worst = WEFT_LOSSLESS};
    struct weft_key *keys = NULL;
    struct weft_format *format = NULL;
    int code = out.sum ? out_check(cli, output)
                       : wf_cli_fail(cli, CLI_SYSTEM, "out of memory for a checksum");
    if (code == CLI_OK)
        code = ask(cli, name, &head, &keys);
    if (code == CLI_OK) {
        enum weft_status status = weft_format_open(cli->weft, &head.spec, &format);
        if (status != WEFT_OK)
            code = wf_cli_fail_status(cli, status, "the archive's format is refused");
    }
    if (code == CLI_OK) {
        head.block_bytes = weft_format_block_bytes(format);
        code = wf_session_root(cli, format, &head.root);
    }
    if (code == CLI_OK && keys)
        code = file_write(cli, &out, format, &head, keys);
    if (code == CLI_OK)
        say(cli, &head, &out);
    weft_format_close(format);
    free(keys);
    XXH3_freeState(out.sum);
    return code;
}
