/* SPDX-License-Identifier: Apache-2.0
 *
 * weft put: a file, cut into blocks, into the node.
 *
 * The blocks form one chain.  A batch at a time is reserved, filled from the input where it lies
 * and committed; what does not fit ends the chain there, since nothing can follow a block that is
 * missing.  What was there already is compared with the input: under a name of the user's making
 * there may lie something else.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"

#define STDIN_MAX ((size_t)4 << 30)
#define BATCH_BYTES ((size_t)64 << 20)
#define QUOTA_NEAR 16 /* a quota of which less than this part is left is what was run into */

static bool pad, partial, if_worth;

static const struct cli_option options[] = {
    {"pad", CLI_FLAG, NULL, &pad, "fill the last block up with zeros"},
    {"partial", CLI_FLAG, NULL, &partial,
     "store the first part of a chain that is larger than the pool or the quota"},
    {"if-worth", CLI_FLAG, NULL, &if_worth,
     "only if what has to go is worth less, as an engine's blocks are stored"},
    {NULL},
};

static const char *const examples[] = {
    "one block of any size, named by yourself",
    "weft put --key 'conversation 17' kv.bin",
    "a file as a chain of blocks of 2 MiB",
    "weft put --key prompt-4f2a --block-bytes 2MiB kv.bin",
    "from a pipe, the last block filled up",
    "zcat kv.gz | weft put --key nightly --block-bytes 1MiB --pad -",
    "a model's blocks, named by their tokens",
    ("weft put --model llama-3-8b@7f3c --layers 32 --kv-heads 8 --head-dim 128 --dtype bf16 "
     "--tokens @prompt.tokens kv.bin"),
    NULL,
};

struct input {
    uint8_t *data;
    size_t bytes;
    bool mapped;
};

struct tally {
    size_t stored, existing, differing, full;
    size_t first_differing;  /* its number in the chain */
    enum weft_quality worst; /* of those that were there */
    bool for_worth;          /* what is full was refused since others are worth more */
};

static int input_pipe(struct cli *cli, struct input *in)
{
    size_t capacity = 1 << 20;
    in->data = wf_cli_alloc(capacity);
    for (;;) {
        ssize_t got = read(STDIN_FILENO, in->data + in->bytes, capacity - in->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return wf_cli_fail(cli, CLI_SYSTEM, "cannot read from stdin: %s", strerror(errno));
        if (got == 0)
            return CLI_OK;
        in->bytes += (size_t)got;
        if (in->bytes < capacity)
            continue;
        capacity *= 2;
        uint8_t *larger = capacity <= STDIN_MAX ? realloc(in->data, capacity) : NULL;
        if (!larger)
            return wf_cli_fail(
                cli, CLI_SYSTEM,
                "stdin has more than %zu bytes, which is all that is kept of a pipe; put it in a "
                "file",
                in->bytes);
        in->data = larger;
    }
}

static int input_open(struct cli *cli, const char *path, struct input *in)
{
    if (strcmp(path, "-") == 0)
        return input_pipe(cli, in);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        const char *why = fd < 0 ? strerror(errno) : "it is not a regular file; pipe it in with -";
        if (fd >= 0)
            close(fd);
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", path, why);
    }
    in->bytes = (size_t)about.st_size;
    if (in->bytes) {
        void *map = mmap(NULL, in->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        in->mapped = map != MAP_FAILED;
        in->data = in->mapped ? map : NULL;
    }
    int saved = errno;
    close(fd);
    if (in->bytes && !in->data)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot map %s: %s", path, strerror(saved));
    return CLI_OK;
}

static void input_close(struct input *in)
{
    if (in->mapped)
        munmap(in->data, in->bytes);
    else
        free(in->data);
}

/* The payload of block `index`: *out_part bytes of the input, then zeros. */
static const uint8_t *payload_of(const struct input *in, size_t index, size_t block_bytes,
                                 size_t *out_part)
{
    size_t at = index * block_bytes;
    *out_part = in->bytes - at < block_bytes ? in->bytes - at : block_bytes;
    return in->data + at;
}

/* Does a block that is there hold what was to be put?  One that went since is no difference, and
 * one that came back with loss is not to be compared: it is what its domain asks for. */
static bool is_same(struct weft_format *format, const struct weft_key *key, const uint8_t *payload,
                    size_t part, enum weft_quality *worst)
{
    struct weft_pins pins;
    if (weft_get_keys(format, key, 1, WEFT_BLOCK_ORDER, &pins) != WEFT_OK)
        return true;
    bool same = true;
    if (pins.blocks && weft_wait_block(&pins, 0) == WEFT_OK) {
        const struct weft_pin *pin = &pins.pins[0];
        const uint8_t *there = pin->data;
        enum weft_quality quality = weft_pin_quality(pin);
        *worst = quality > *worst ? quality : *worst;
        same = quality > WEFT_LOSSLESS || memcmp(there, payload, part) == 0;
        for (size_t i = part; i < pin->bytes && same && quality <= WEFT_LOSSLESS; i++)
            same = there[i] == 0;
    }
    weft_pins_release(&pins);
    return same;
}

/* Up to `count` blocks from `first`; *out_done of them are there afterwards.  Fewer than asked for
 * is no reason to stop, since staging memory may hold less than a batch; none at all is. */
static int batch_put(struct cli *cli, struct weft_format *format, const struct input *in,
                     const struct weft_key *keys, size_t first, size_t count, struct tally *tally,
                     size_t *out_done)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    size_t block_bytes = weft_format_block_bytes(format), done = 0;
    *out_done = 0;
    enum weft_status status = weft_reserve_keys(format, first ? &keys[first - 1] : NULL,
                                                &keys[first], count,
                                                WEFT_CHAINED | (if_worth ? 0 : WEFT_INSIST), slots);
    if (status == WEFT_FULL || (status == WEFT_E_PARENT && first))
        return CLI_OK;
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "cannot reserve");
    for (size_t i = 0; i < count; i++) {
        if (slots[i].status != WEFT_OK)
            continue;
        size_t part;
        const uint8_t *payload = payload_of(in, first + i, block_bytes, &part);
        memcpy(slots[i].data, payload, part);
        memset((uint8_t *)slots[i].data + part, 0, block_bytes - part);
    }
    status = weft_commit_slots(format, slots, count);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "cannot commit");
    for (; done < count; done++) {
        if (slots[done].status != WEFT_OK && slots[done].status != WEFT_EXISTS)
            break;
        tally->stored += slots[done].status == WEFT_OK;
        if (slots[done].status != WEFT_EXISTS)
            continue;
        size_t part;
        const uint8_t *payload = payload_of(in, first + done, block_bytes, &part);
        tally->existing++;
        if (is_same(format, &keys[first + done], payload, part, &tally->worst))
            continue;
        tally->first_differing = tally->differing ? tally->first_differing : first + done;
        tally->differing++;
    }
    *out_done = done;
    return CLI_OK;
}

/* The DRAM that the caller's domain may use, as far as it is told. */
struct room {
    const char *domain;
    uint64_t used_bytes, quota_bytes; /* the quota is the pool when there is none */
    uint64_t pool_bytes;              /* 0: not known, as somebody else than the node's user asks */
    uint64_t pool_used_bytes;
    uint64_t due_bytes;
    /* At most so much can be its own now, as others keep what they have of their due.  Who sees
     * only his own domain does not know the others: then, and without any, it is the quota. */
    uint64_t most_bytes;
};

static uint64_t bytes_of(const json_t *domain, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(domain, key));
}

static void pool_ask(struct cli *cli, struct room *room)
{
    json_t *answer = NULL;
    if (wf_cli_query(cli, "status", 0, 0, &answer) != CLI_OK)
        return;
    room->pool_bytes = bytes_of(json_object_get(answer, "pool"), "bytes");
    room->pool_used_bytes = bytes_of(json_object_get(answer, "pool"), "used_bytes");
    json_decref(answer);
}

static struct room room_ask(struct cli *cli)
{
    const char *mine = cli->domain ? cli->domain : getenv("WEFT_DOMAIN");
    struct room room = {.domain = mine ? mine : "default"};
    json_t *answer = NULL, *domain;
    size_t index;
    pool_ask(cli, &room);
    if (wf_cli_query(cli, "domains", 0, 0, &answer) != CLI_OK)
        answer = NULL;
    uint64_t others = 0;
    json_array_foreach (json_object_get(answer, "domains"), index, domain) {
        const char *name = json_string_value(json_object_get(domain, "name"));
        uint64_t used = bytes_of(domain, "used_bytes"), due = bytes_of(domain, "due_bytes");
        if (!name || strcmp(name, room.domain) != 0) {
            others += used < due ? used : due;
            continue;
        }
        room.used_bytes = used;
        room.due_bytes = due;
        room.quota_bytes = bytes_of(domain, "quota_bytes");
    }
    json_decref(answer);
    room.most_bytes = room.quota_bytes;
    if (room.pool_bytes > others && room.pool_bytes - others < room.most_bytes)
        room.most_bytes = room.pool_bytes - others;
    if (room.most_bytes < room.due_bytes)
        room.most_bytes = room.due_bytes;
    return room;
}

/* Blocks of the caller's domain that found no room since what would have to go is worth more. */
static uint64_t worth_refused(struct cli *cli)
{
    const char *mine = cli->domain ? cli->domain : getenv("WEFT_DOMAIN");
    json_t *answer = NULL, *domain;
    uint64_t refused = 0;
    size_t index;
    if (wf_cli_query(cli, "domains", 0, 0, &answer) != CLI_OK)
        return 0;
    json_array_foreach (json_object_get(answer, "domains"), index, domain) {
        const char *name = json_string_value(json_object_get(domain, "name"));
        if (name && strcmp(name, mine ? mine : "default") == 0)
            refused = bytes_of(domain, "full_for_worth");
    }
    json_decref(answer);
    return refused;
}

static const char *too_long(const struct room *room, uint64_t chain_bytes, char *out,
                            size_t capacity)
{
    char quota[32], chain[32], due[32];
    bool pool = room->quota_bytes == room->pool_bytes;
    if (chain_bytes <= room->quota_bytes && room->most_bytes < room->quota_bytes) {
        snprintf(out, capacity,
                 "a chain must fit in DRAM as a whole, also when tiers lie below; this one has %s, "
                 "and domain '%s' can have %s of the pool now: it is due %s, and other domains "
                 "hold what they are due; raise its share or floor, enlarge the pool (weft lend "
                 "SIZE), or put it as several chains, each with a key of its own",
                 wf_cli_size(chain_bytes, chain, sizeof chain), room->domain,
                 wf_cli_size(room->most_bytes, quota, sizeof quota),
                 wf_cli_size(room->due_bytes, due, sizeof due));
        return out;
    }
    snprintf(out, capacity,
             "a chain must fit in DRAM as a whole, also when tiers lie below; this one has %s, and "
             "%s%s%s has %s%s; %s, or put it as several chains, each with a key of its own",
             wf_cli_size(chain_bytes, chain, sizeof chain), pool ? "the DRAM pool" : "domain '",
             pool ? "" : room->domain, pool ? "" : "'", pool ? "" : "a quota of ",
             wf_cli_size(room->quota_bytes, quota, sizeof quota),
             pool ? "enlarge the pool (pool.size in the configuration, or weft lend SIZE)"
                  : "raise the domain's quota");
    return out;
}

/* What there is no room in: the domain's quota, when the domain has used it up, else the pool. */
static void full_say(struct cli *cli, const struct tally *tally, size_t count, size_t block_bytes)
{
    const struct room room = room_ask(cli);
    const char *mine = room.domain;
    uint64_t quota_bytes = room.quota_bytes, pool_bytes = room.pool_bytes;
    uint64_t used_bytes = room.used_bytes, chain_bytes = (uint64_t)count * block_bytes;
    char used[32], quota[32], text[512];
    fprintf(stderr, "weft put: no room for the last %zu block%s: ", tally->full,
            wf_cli_s(tally->full));
    if (tally->for_worth)
        fputs("what would have to go was wanted again before, and is worth more (weft explain); "
              "without --if-worth it goes, or enlarge the pool (pool.size in the configuration, or "
              "weft lend SIZE)\n",
              stderr);
    else if (quota_bytes && chain_bytes > room.most_bytes - room.most_bytes / QUOTA_NEAR)
        fprintf(stderr, "%s\n", too_long(&room, chain_bytes, text, sizeof text));
    else if (room.due_bytes && room.due_bytes < quota_bytes &&
             used_bytes + block_bytes + room.due_bytes / QUOTA_NEAR > room.due_bytes)
        fprintf(stderr,
                "domain '%s' uses %s and is due %s of the pool; the rest other domains are due, or "
                "it is pinned or in use; drop some with weft rm, raise the domain's share or "
                "floor, or enlarge the pool (pool.size in the configuration, or weft lend SIZE)\n",
                mine, wf_cli_size(used_bytes, used, sizeof used),
                wf_cli_size(room.due_bytes, quota, sizeof quota));
    else if (room.pool_bytes && room.pool_used_bytes + block_bytes < room.pool_bytes / 2)
        fprintf(stderr,
                "%s of %s are used, but the pool has room for no more blocks: it is laid out for "
                "larger ones; lower pool.block_bytes_min, or raise pool.size_max, in the "
                "configuration\n",
                wf_cli_size(room.pool_used_bytes, used, sizeof used),
                wf_cli_size(room.pool_bytes, quota, sizeof quota));
    else if (quota_bytes == pool_bytes && pool_bytes)
        fprintf(stderr,
                "the DRAM pool of %s is used, and what could go is pinned, in use or worth more "
                "(weft explain); drop some with weft rm, or enlarge it (pool.size in the "
                "configuration, or weft lend SIZE)\n",
                wf_cli_size(pool_bytes, quota, sizeof quota));
    else if (quota_bytes && used_bytes + block_bytes + quota_bytes / QUOTA_NEAR > quota_bytes)
        fprintf(stderr,
                "domain '%s' uses %s of its quota of %s, and what could go is pinned, in use or "
                "worth more (weft explain); drop some with weft rm, or raise the domain's quota\n",
                mine, wf_cli_size(used_bytes, used, sizeof used),
                wf_cli_size(quota_bytes, quota, sizeof quota));
    else
        fputs("what could go is pinned, in use or worth more (weft explain); free some or enlarge "
              "the pool\n",
              stderr);
}

static int report(struct cli *cli, const struct tally *tally, const struct weft_key *keys,
                  size_t count, size_t block_bytes)
{
    char first[65], last[65], size[32];
    wf_cli_hex(keys[0].bytes, 32, first);
    wf_cli_hex(keys[count - 1].bytes, 32, last);
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "stored", json_integer((json_int_t)tally->stored));
        wf_cli_json_set(answer, "existing", json_integer((json_int_t)tally->existing));
        wf_cli_json_set(answer, "differing", json_integer((json_int_t)tally->differing));
        wf_cli_json_set(answer, "quality",
                        json_string(weft_quality_name(
                            tally->worst > WEFT_LOSSLESS ? tally->worst : WEFT_LOSSLESS)));
        wf_cli_json_set(answer, "full", json_integer((json_int_t)tally->full));
        wf_cli_json_set(answer, "block_bytes", json_integer((json_int_t)block_bytes));
        wf_cli_json_set(answer, "first_key", json_string(first));
        wf_cli_json_set(answer, "last_key", json_string(last));
        wf_cli_json_print(answer);
    } else {
        printf("%zu of %zu block%s of %s stored, %zu %s there already%s%s\n"
               "first key %s\nlast key  %s\n",
               tally->stored, count, wf_cli_s(count), wf_cli_size(block_bytes, size, sizeof size),
               tally->existing, tally->existing == 1 ? "was" : "were",
               tally->worst > WEFT_LOSSLESS ? ", at quality " : "",
               tally->worst > WEFT_LOSSLESS ? weft_quality_name(tally->worst) : "", first, last);
    }
    if (tally->differing)
        fprintf(stderr,
                "weft put: %zu block%s there already with other bytes, which stay (the first is "
                "block %zu): a key names one content for good; give these another key, or drop "
                "those with weft rm\n",
                tally->differing, tally->differing == 1 ? " is" : "s are", tally->first_differing);
    if (tally->full)
        full_say(cli, tally, count, block_bytes);
    if (tally->differing)
        return CLI_WRONG;
    if (!tally->full)
        return CLI_OK;
    return tally->stored || tally->existing ? CLI_MISS : CLI_REFUSED;
}

/* What cannot be stored whole evicts much and is of little use, so it is asked for by name. */
static int fit_check(struct cli *cli, size_t count, size_t block_bytes)
{
    char text[512];
    uint64_t chain_bytes = (uint64_t)count * block_bytes;
    if (partial)
        return CLI_OK;
    const struct room room = room_ask(cli);
    if (!room.quota_bytes || chain_bytes <= room.most_bytes)
        return CLI_OK;
    return wf_cli_fail(cli, CLI_REFUSED, "%s; --partial stores the first part that fits",
                       too_long(&room, chain_bytes, text, sizeof text));
}

static int put_input(struct cli *cli, const struct input *in)
{
    if (!in->bytes)
        return wf_cli_fail(cli, CLI_USAGE, "the input is empty; a block has at least one byte");
    struct weft_format *format;
    int code = wf_cli_format_open(cli, in->bytes, &format);
    if (code != CLI_OK)
        return code;
    size_t block_bytes = weft_format_block_bytes(format);
    size_t count = (in->bytes + block_bytes - 1) / block_bytes, key_count = 0;
    struct weft_key *keys = NULL;
    struct tally tally = {0};
    if (in->bytes % block_bytes && !pad)
        code = wf_cli_fail(
            cli, CLI_USAGE,
            "the input has %zu bytes, which is no multiple of the block's %zu; cut it, or say "
            "--pad",
            in->bytes, block_bytes);
    else
        code = wf_cli_keys(cli, format, count, &keys, &key_count);
    if (code == CLI_OK && key_count != count)
        code = wf_cli_fail(cli, CLI_USAGE,
                           "the input is %zu blocks, the tokens name %zu; give both the same "
                           "length",
                           count, key_count);
    if (code == CLI_OK)
        code = fit_check(cli, count, block_bytes);
    size_t batch = BATCH_BYTES / block_bytes;
    batch = batch < 1 ? 1 : batch > WEFT_BATCH_MAX ? WEFT_BATCH_MAX : batch;
    uint64_t refused = if_worth && code == CLI_OK ? worth_refused(cli) : 0;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "put");
    for (size_t at = 0, done = 1; code == CLI_OK && at < count; at += done) {
        size_t part = count - at < batch ? count - at : batch;
        code = batch_put(cli, format, in, keys, at, part, &tally, &done);
        /* Staging memory may have room again when the batch is asked for once more; worth is what
         * it was. */
        tally.for_worth = if_worth && done < part && worth_refused(cli) > refused;
        if (!done || tally.for_worth) {
            tally.full = count - at - done;
            break;
        }
        wf_cli_progress_step(&progress, (double)at / (double)count, "");
    }
    wf_cli_progress_fini(&progress);
    if (code == CLI_OK)
        code = report(cli, &tally, keys, count, block_bytes);
    free(keys);
    weft_format_close(format);
    return code;
}

static int run(struct cli *cli)
{
    if (cli->word_count != 1)
        return wf_cli_fail(cli, CLI_USAGE, "name one file, or - for stdin");
    struct input in = {0};
    int code = input_open(cli, cli->words[0], &in);
    if (code == CLI_OK)
        code = wf_cli_connect(cli);
    if (code == CLI_OK)
        code = put_input(cli, &in);
    input_close(&in);
    return code;
}

const struct cli_command wf_cmd_put = {
    .name = "put",
    .summary = "store a file or stdin as blocks",
    .synopsis = "FILE|-",
    .about =
        "Cuts the input into blocks and stores them as one chain.  A block that is there "
        "already is not sent again, only compared; one that came back from below with loss, as "
        "its domain's quality allows, is not, and the quality is told.\n\n"
        "With --key, block 0 is named by the identity that you give, block i by the identity "
        "followed by i as four little-endian bytes.  With --tokens, each block is named by "
        "its tokens and all before them, as an engine names it.  Without --block-bytes or a "
        "layout the whole input is one block.\n\n"
        "A chain must fit in DRAM as a whole, also when tiers lie below: it is the pool's "
        "size, or the domain's quota, that bounds it, and where other domains share the pool, "
        "what they hold of their due.  A larger one is refused before anything is stored, unless "
        "with --partial.  What others hold only the node's own user sees, so in somebody else's "
        "domain a chain that is larger than what the domain is due may be stored in part.\n\n"
        "What goes for it goes in the policy's order, whatever it is worth.  With --if-worth a "
        "long chain does not push out what was wanted again before and is worth more.\n\n"
        "Exits with 1 when only a first part of the chain found room, and with 5 when blocks "
        "were there already with other bytes; those stay as they are.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
