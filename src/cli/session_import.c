/* SPDX-License-Identifier: Apache-2.0
 *
 * weft session import: a file that export wrote, into this node.
 *
 * All of the file is checked before any of it is put.  Then its blocks are put a window at a time,
 * each window held until the next one extends it, and the chain is archived.  Who is killed
 * half-way leaves ordinary blocks behind; importing again goes on from them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "cli/session.h"

struct in {
    const char *name;
    int fd;
    struct session_head head;
    size_t head_bytes;
    struct weft_key *keys;
    uint64_t *checksums;
    uint8_t *qualities;      /* enum weft_quality */
    enum weft_quality least; /* that the format here asks for */
    uint8_t *copy;           /* a block */
    uint32_t put;
};

static int read_at(struct cli *cli, const struct in *in, void *to, size_t bytes, uint64_t at)
{
    uint8_t *into = to;
    while (bytes) {
        ssize_t got = pread(in->fd, into, bytes, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return wf_cli_fail(cli, got ? CLI_SYSTEM : CLI_WRONG, "cannot read %s: %s", in->name,
                               got ? strerror(errno) : "it ends too early");
        into += got;
        bytes -= (size_t)got;
        at += (uint64_t)got;
    }
    return CLI_OK;
}

static uint64_t place_of(const struct in *in, uint32_t block)
{
    return in->head_bytes + block * (SESSION_BLOCK_BYTES + in->head.block_bytes);
}

/* Its header, and whether the file has the size that follows from it. */
static int in_open(struct cli *cli, struct in *in)
{
    uint8_t bytes[SESSION_HEAD_BYTES_MAX];
    const char *why = "";
    struct stat about;
    /* A pipe that nobody writes to is not waited for. */
    in->fd = open(in->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (in->fd < 0 || fstat(in->fd, &about) != 0)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", in->name, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return wf_cli_fail(cli, CLI_WRONG,
                           "%s cannot be imported: it is no file; name one that export wrote",
                           in->name);
    int code = read_at(cli, in, bytes, SESSION_HEAD_BYTES, 0);
    if (code != CLI_OK)
        return code;
    in->head_bytes = wf_session_head_length(bytes, &why);
    if (in->head_bytes)
        code = read_at(cli, in, bytes, in->head_bytes, 0);
    if (code != CLI_OK)
        return code;
    if (!in->head_bytes || !wf_session_head_read(bytes, in->head_bytes, &in->head, &why))
        return wf_cli_fail(cli, CLI_WRONG, "%s cannot be imported: %s", in->name, why);
    uint64_t expected = wf_session_file_bytes(&in->head, in->head_bytes);
    if ((uint64_t)about.st_size != expected)
        return wf_cli_fail(cli, CLI_WRONG,
                           "%s cannot be imported: it has %llu bytes, and by its header %llu; copy "
                           "or export it again",
                           in->name, (unsigned long long)about.st_size,
                           (unsigned long long)expected);
    in->keys = wf_cli_alloc(in->head.blocks * sizeof *in->keys);
    in->checksums = wf_cli_alloc(in->head.blocks * sizeof *in->checksums);
    in->qualities = wf_cli_alloc(in->head.blocks);
    in->copy = wf_cli_alloc(in->head.block_bytes);
    return CLI_OK;
}

/* What no archive could be called is said before anything is put. */
static int name_check(struct cli *cli, const char *name)
{
    size_t length = strlen(name);
    bool control = false;
    for (size_t i = 0; i < length; i++)
        control |= (unsigned char)name[i] < ' ' || name[i] == 0x7f;
    if (length >= 1 && length < sizeof((struct session_head *)0)->name && !control)
        return CLI_OK;
    return wf_cli_fail(cli, CLI_USAGE,
                       "an archive's name has 1 to 64 bytes, and no control characters; give "
                       "another with --as");
}

static int key_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct weft_key));
}

/* A chain has no key twice; the order of `keys` is lost. */
static bool keys_repeat(struct weft_key *keys, uint32_t count)
{
    qsort(keys, count, sizeof *keys, key_compare);
    for (uint32_t i = 1; i < count; i++)
        if (key_compare(&keys[i - 1], &keys[i]) == 0)
            return true;
    return false;
}

static int keys_check(struct cli *cli, const struct in *in)
{
    struct weft_key *sorted = wf_cli_alloc(in->head.blocks * sizeof *sorted);
    memcpy(sorted, in->keys, in->head.blocks * sizeof *sorted);
    bool twice = keys_repeat(sorted, in->head.blocks);
    free(sorted);
    return twice ? wf_cli_fail(cli, CLI_WRONG,
                               "%s cannot be imported: two of its blocks have one key; export it "
                               "again",
                               in->name)
                 : CLI_OK;
}

/* Every checksum of the file; its keys are known then. */
static int in_check(struct cli *cli, struct in *in)
{
    uint8_t bytes[SESSION_HEAD_BYTES_MAX], foot[SESSION_FOOT_BYTES];
    struct cli_progress progress;
    XXH3_state_t *sum = XXH3_createState();
    int code = sum ? read_at(cli, in, bytes, in->head_bytes, 0)
                   : wf_cli_fail(cli, CLI_SYSTEM, "out of memory for a checksum");
    if (code == CLI_OK) {
        XXH3_64bits_reset(sum);
        XXH3_64bits_update(sum, bytes, in->head_bytes);
    }
    wf_cli_progress_init(&progress, "check");
    for (uint32_t i = 0; code == CLI_OK && i < in->head.blocks; i++) {
        struct session_block block;
        code = read_at(cli, in, bytes, SESSION_BLOCK_BYTES, place_of(in, i));
        if (code == CLI_OK)
            code = read_at(cli, in, in->copy, in->head.block_bytes,
                           place_of(in, i) + SESSION_BLOCK_BYTES);
        if (code != CLI_OK)
            break;
        wf_session_block_read(bytes, &block);
        XXH3_64bits_update(sum, bytes, SESSION_BLOCK_BYTES);
        if (block.bytes != in->head.block_bytes ||
            block.checksum != XXH3_64bits(in->copy, in->head.block_bytes))
            code =
                wf_cli_fail(cli, CLI_WRONG,
                            "%s cannot be imported: block %u is damaged; copy or export it again",
                            in->name, i);
        in->keys[i] = block.key;
        in->checksums[i] = block.checksum;
        in->qualities[i] = (uint8_t)block.quality;
        if (code == CLI_OK && block.quality > in->least)
            code = wf_cli_fail(cli, CLI_REFUSED,
                               "%s cannot be imported: its block %u was stored at quality %s, and "
                               "here %s is asked for; let the domain's `quality` allow it, or "
                               "import it where that does",
                               in->name, i, weft_quality_name(block.quality),
                               weft_quality_name(in->least));
        wf_cli_progress_step(&progress, (double)(i + 1) / in->head.blocks, "");
    }
    wf_cli_progress_fini(&progress);
    if (code == CLI_OK)
        code = read_at(cli, in, foot, sizeof foot, place_of(in, in->head.blocks));
    if (code == CLI_OK &&
        (!wf_session_foot_right(foot, in->head.blocks, XXH3_64bits_digest(sum)) ||
         memcmp(&in->keys[in->head.blocks - 1], &in->head.tip, sizeof in->head.tip) != 0))
        code =
            wf_cli_fail(cli, CLI_WRONG,
                        "%s cannot be imported: its end does not fit the rest; copy or export it "
                        "again",
                        in->name);
    XXH3_freeState(sum);
    return code;
}

/* The format on this node, if its domain has the secret that the file's had. */
static int format_open(struct cli *cli, struct in *in, struct weft_format **out)
{
    struct weft_key root;
    enum weft_status status = weft_format_open(cli->weft, &in->head.spec, out);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "the file's format is refused");
    in->least = weft_format_quality(*out);
    int code = wf_session_root(cli, *out, &root);
    if (code == CLI_OK && memcmp(&root, &in->head.root, sizeof root) != 0)
        code = wf_cli_fail(cli, CLI_REFUSED,
                           "%s was exported in a domain with another secret, so its keys name "
                           "nothing here; give both nodes' domains the same secret_file",
                           in->name);
    if (code == CLI_OK && weft_format_block_bytes(*out) != in->head.block_bytes)
        code = wf_cli_fail(cli, CLI_WRONG,
                           "%s cannot be imported: its blocks have %llu bytes, and by its format "
                           "%zu",
                           in->name, (unsigned long long)in->head.block_bytes,
                           weft_format_block_bytes(*out));
    return code;
}

/* What is there already, from `at` on, is brought up and held; how many of `count`. */
static int window_hold(struct cli *cli, const struct in *in, struct weft_format *format,
                       uint32_t at, size_t count, struct weft_pins *behind)
{
    struct weft_pins pins;
    enum weft_status status = weft_get_keys(format, in->keys + at, count, WEFT_BLOCK_ORDER, &pins);
    for (uint32_t i = 0; status == WEFT_OK && i < pins.blocks; i++) {
        status = weft_wait_block(&pins, i);
        if (status != WEFT_OK)
            weft_pins_release(&pins);
    }
    if (status == WEFT_MISS) { /* damaged below: put again */
        pins = (struct weft_pins){.blocks = 0};
    } else if (status != WEFT_OK) {
        return wf_cli_fail_status(cli, status, "blocks cannot be brought up");
    }
    if (pins.blocks) {
        weft_pins_release(behind);
        *behind = pins;
    }
    return CLI_OK;
}

static int window_put(struct cli *cli, struct in *in, struct weft_format *format, uint32_t at,
                      size_t count)
{
    static const uint32_t lost[] = {
        [WEFT_TRANSPARENT] = WEFT_LOST_TRANSPARENT, [WEFT_ECONOMY] = WEFT_LOST_ECONOMY};
    struct weft_slot slots[SESSION_WINDOW_MAX];
    uint32_t flags = WEFT_CHAINED | WEFT_INSIST | lost[in->qualities[at]];
    enum weft_status status = weft_reserve_keys(format, at ? &in->keys[at - 1] : NULL,
                                                in->keys + at, count, flags, slots);
    int code = status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "blocks cannot be put");
    for (size_t i = 0; code == CLI_OK && i < count; i++) {
        uint64_t from = place_of(in, at + (uint32_t)i) + SESSION_BLOCK_BYTES;
        if (slots[i].status == WEFT_FULL)
            code = wf_cli_fail(cli, CLI_REFUSED,
                               "the pool has no room for block %llu of %u; a chain must fit it",
                               (unsigned long long)(at + i), in->head.blocks);
        if (code != CLI_OK || slots[i].status != WEFT_OK)
            continue;
        code = read_at(cli, in, slots[i].data, in->head.block_bytes, from);
        /* The file may have changed since it was checked. */
        if (code == CLI_OK &&
            XXH3_64bits(slots[i].data, in->head.block_bytes) != in->checksums[at + i])
            code = wf_cli_fail(cli, CLI_WRONG, "%s changed while it was imported", in->name);
        in->put += code == CLI_OK;
    }
    if (status == WEFT_OK && code != CLI_OK)
        weft_abort_slots(format, slots, count);
    if (code != CLI_OK)
        return code;
    status = weft_commit_slots(format, slots, count);
    for (size_t i = 0; status == WEFT_OK && i < count; i++)
        if (slots[i].status != WEFT_OK && slots[i].status != WEFT_EXISTS)
            status = slots[i].status;
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "blocks cannot be put");
}

static int blocks_put(struct cli *cli, struct in *in, struct weft_format *format)
{
    struct weft_pins behind = {.blocks = 0};
    struct cli_progress progress;
    size_t window = session_window(in->head.block_bytes);
    int code = CLI_OK;
    wf_cli_progress_init(&progress, "import");
    for (uint32_t at = 0; code == CLI_OK && at < in->head.blocks;) {
        size_t count = in->head.blocks - at < window ? in->head.blocks - at : window;
        size_t there = 0, alike = 1;
        while (alike < count && in->qualities[at + alike] == in->qualities[at])
            alike++;
        count = alike; /* what is put together is of one quality */
        enum weft_status status = weft_match_keys(format, in->keys + at, count, &there);
        if (status != WEFT_OK)
            code = wf_cli_fail_status(cli, status, "the node cannot be asked");
        else if (there < count)
            code = window_put(cli, in, format, at, count);
        if (code == CLI_OK)
            code = window_hold(cli, in, format, at, count, &behind);
        at += (uint32_t)count;
        wf_cli_progress_step(&progress, (double)at / in->head.blocks, "");
    }
    wf_cli_progress_fini(&progress);
    weft_pins_release(&behind);
    return code;
}

static int say(struct cli *cli, const struct in *in, const struct weft_archived *archived)
{
    char size[32], names[SESSION_TIERS_TEXT];
    json_t *tiers = wf_session_tiers(cli, archived);
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "name", json_string(archived->name));
        wf_cli_json_set(answer, "file", json_string(in->name));
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)archived->blocks));
        wf_cli_json_set(answer, "put", json_integer((json_int_t)in->put));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)archived->bytes));
        wf_cli_json_set(answer, "tier", json_string(archived->tier));
        wf_cli_json_set(answer, "tiers", json_incref(tiers));
        wf_cli_json_print(answer);
    } else {
        printf("%s: %u block%s, %s, durable on %s; %u put now, %u here before\n", archived->name,
               archived->blocks, wf_cli_s(archived->blocks),
               wf_cli_size(archived->bytes, size, sizeof size),
               wf_session_tiers_text(tiers, names, sizeof names), in->put,
               archived->blocks - in->put);
    }
    json_decref(tiers);
    return CLI_OK;
}

int wf_session_import(struct cli *cli, const char *file, const char *name)
{
    static struct in in;
    struct weft_archived archived;
    struct weft_format *format = NULL;
    in = (struct in){.name = file, .fd = -1};
    int code = in_open(cli, &in);
    if (code == CLI_OK)
        code = name_check(cli, name ? name : in.head.name);
    if (code == CLI_OK)
        code = format_open(cli, &in, &format);
    if (code == CLI_OK)
        code = in_check(cli, &in);
    if (code == CLI_OK)
        code = keys_check(cli, &in);
    if (code == CLI_OK)
        code = blocks_put(cli, &in, format);
    if (code == CLI_OK)
        code = wf_session_archive(cli, format, name ? name : in.head.name, &in.head.tip, &archived);
    if (code == CLI_OK)
        code = say(cli, &in, &archived);
    weft_format_close(format);
    free(in.keys);
    free(in.checksums);
    free(in.qualities);
    free(in.copy);
    if (in.fd >= 0)
        close(in.fd);
    return code;
}
