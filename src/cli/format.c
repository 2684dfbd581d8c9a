/* SPDX-License-Identifier: Apache-2.0
 *
 * The formats and keys that a command line can name.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define TOKENS_MAX (16u << 20)
#define OTHER_SIZES_MAX 256
#define IDENTITY_MAX 4092 /* weft_key_from_bytes takes 4096; four are for the block's number */

struct cli_format_options wf_cli_format_options;

const struct cli_option wf_cli_format_group[] = {
    {"model", CLI_TEXT, "NAME", &wf_cli_format_options.model,
     "model and revision, part of every key (opaque)"},
    {"block-bytes", CLI_SIZE, "SIZE", &wf_cli_format_options.block_bytes,
     "payload of one block, for opaque payloads"},
    {"block-tokens", CLI_NUMBER, "N", &wf_cli_format_options.block_tokens,
     "tokens a block (16 with --tokens, else 1)"},
    {"layers", CLI_NUMBER, "N", &wf_cli_format_options.layers, "layers (1)"},
    {"kv-heads", CLI_NUMBER, "N", &wf_cli_format_options.kv_heads, "KV heads of this rank (1)"},
    {"head-dim", CLI_NUMBER, "N", &wf_cli_format_options.head_dim, "elements of a head (1)"},
    {"dtype", CLI_TEXT, "f32|f16|bf16|fp8_e4m3|fp8_e5m2|int8", &wf_cli_format_options.dtype,
     "element type (int8)"},
    {"tp-rank", CLI_NUMBER, "N", &wf_cli_format_options.tp_rank, "tensor-parallel rank (0)"},
    {"tp-size", CLI_NUMBER, "N", &wf_cli_format_options.tp_size, "tensor-parallel size (1)"},
    {"rope-theta", CLI_REAL, "X", &wf_cli_format_options.rope_theta, "rotary base (0: none)"},
    {"rope-scaling", CLI_TEXT, "TEXT", &wf_cli_format_options.rope_scaling,
     "rotary scaling, as the model describes it"},
    {"salt", CLI_TEXT, "TEXT", &wf_cli_format_options.salt, "share only with who gives the same"},
    {"quality", CLI_TEXT, "lossless|transparent|economy", &wf_cli_format_options.quality,
     "at least so exactly, where that is more than the domain has"},
    {NULL},
};

const struct cli_option wf_cli_key_group[] = {
    {"key", CLI_TEXT, "TEXT", &wf_cli_format_options.key,
     "opaque identity of the first block; hex:0a1b… for bytes"},
    {"raw-key", CLI_TEXT, "HEX", &wf_cli_format_options.raw_key,
     "a key itself: 64 hex digits, as weft ls blocks shows them"},
    {"tokens", CLI_TEXT, "LIST", &wf_cli_format_options.tokens,
     "token numbers: 1,2,3 or @FILE; one key a full block"},
    {NULL},
};

static const char *const dtypes[] = {
    [WEFT_F32] = "f32",           [WEFT_F16] = "f16",           [WEFT_BF16] = "bf16",
    [WEFT_FP8_E4M3] = "fp8_e4m3", [WEFT_FP8_E5M2] = "fp8_e5m2", [WEFT_INT8] = "int8"};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

enum weft_dtype wf_cli_dtype(const char *name, enum weft_dtype otherwise)
{
    for (size_t i = 0; name && i < DTYPES; i++)
        if (dtypes[i] && strcmp(dtypes[i], name) == 0)
            return (enum weft_dtype)i;
    return otherwise;
}

const char *wf_cli_dtype_name(enum weft_dtype dtype)
{
    return (size_t)dtype < DTYPES && dtypes[dtype] ? dtypes[dtype] : "?";
}

enum weft_quality wf_cli_quality(const char *name)
{
    if (!name)
        return WEFT_QUALITY_DEFAULT;
    for (int i = WEFT_LOSSLESS; i <= WEFT_ECONOMY; i++)
        if (strcmp(weft_quality_name((enum weft_quality)i), name) == 0)
            return (enum weft_quality)i;
    return CLI_NO_QUALITY;
}

/* 0 stands for "not given"; what does not fit in 32 bits becomes a number that the library refuses.
 */
static uint32_t narrow(uint64_t value, uint32_t otherwise)
{
    return !value ? otherwise : value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static bool layout_given(void)
{
    const struct cli_format_options *given = &wf_cli_format_options;
    return given->layers || given->kv_heads || given->head_dim || given->dtype;
}

static struct weft_format_spec spec_of(uint64_t bytes)
{
    const struct cli_format_options *given = &wf_cli_format_options;
    return (struct weft_format_spec){
        .model = given->model ? given->model : "opaque",
        .layers = narrow(given->layers, 1),
        .kv_heads = narrow(given->kv_heads, 1),
        .head_dim = narrow(given->head_dim, 1),
        .dtype = wf_cli_dtype(given->dtype, WEFT_INT8),
        .block_tokens = narrow(given->block_tokens, given->tokens ? 16 : 1),
        .tp_rank = narrow(given->tp_rank, 0),
        .tp_size = narrow(given->tp_size, 0),
        .rope_theta = given->rope_theta,
        .rope_scaling = given->rope_scaling,
        .salt = given->salt,
        .salt_bytes = given->salt ? strlen(given->salt) : 0,
        .block_bytes = bytes,
        .quality = wf_cli_quality(given->quality),
    };
}

int wf_cli_format_open(struct cli *cli, uint64_t payload_bytes, struct weft_format **out)
{
    uint64_t given = wf_cli_format_options.block_bytes;
    uint64_t bytes = given ? given : layout_given() ? 0 : payload_bytes;
    if (!bytes && !layout_given())
        return wf_cli_fail(cli, CLI_USAGE,
                           "how large is a block?  Say --block-bytes, or the layout with "
                           "--layers, --kv-heads, --head-dim and --dtype");
    struct weft_format_spec spec = spec_of(bytes);
    if (spec.quality == CLI_NO_QUALITY)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--quality %.32s is none; write lossless, transparent or economy",
                           wf_cli_format_options.quality);
    enum weft_status status = weft_format_open(cli->weft, &spec, out);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the format is refused");
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
                                        : -1;
}

/* Bytes of `text`; SIZE_MAX when it is not hex in pairs or does not fit. */
static size_t hex_read(const char *text, uint8_t *out, size_t capacity)
{
    size_t length = strlen(text);
    if (length % 2 || length / 2 > capacity)
        return SIZE_MAX;
    for (size_t i = 0; i < length / 2; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return SIZE_MAX;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return length / 2;
}

static int keys_opaque(struct cli *cli, struct weft_format *format, size_t count,
                       struct weft_key *keys)
{
    const char *text = wf_cli_format_options.key;
    uint8_t identity[IDENTITY_MAX + 4];
    size_t length = strlen(text);
    if (strncmp(text, "hex:", 4) == 0) {
        length = hex_read(text + 4, identity, IDENTITY_MAX);
        if (length == SIZE_MAX || !length)
            return wf_cli_fail(cli, CLI_USAGE,
                               "--key %.64s: write an even number of hex digits, 1 to %d bytes",
                               text, IDENTITY_MAX);
    } else if (!length || length > IDENTITY_MAX) {
        return wf_cli_fail(cli, CLI_USAGE, "--key has %zu bytes; give 1 to %d", length,
                           IDENTITY_MAX);
    } else {
        memcpy(identity, text, length);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t number[4] = {(uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), (uint8_t)(i >> 24)};
        memcpy(identity + length, number, 4);
        enum weft_status status = weft_key_from_bytes(format, identity, i ? length + 4 : length,
                                                      &keys[i]);
        if (status != WEFT_OK)
            return wf_cli_fail_status(cli, status, "the key is refused");
    }
    return CLI_OK;
}

static int tokens_read(struct cli *cli, uint32_t **out, size_t *out_count)
{
    const char *list = wf_cli_format_options.tokens;
    char *text = NULL;
    size_t capacity = 0, count = 0;
    if (list[0] == '@') {
        FILE *file = fopen(list + 1, "r");
        ssize_t length = file ? getdelim(&text, &capacity, '\0', file) : -1;
        if (file)
            fclose(file);
        if (length < 0) {
            free(text);
            return wf_cli_fail(cli, CLI_SYSTEM, "cannot read tokens from %s: %s", list + 1,
                               errno ? strerror(errno) : "it is empty");
        }
    } else {
        text = strdup(list);
    }
    size_t most = text ? strlen(text) / 2 + 1 : 0;
    uint32_t *tokens = wf_cli_alloc(most * sizeof *tokens);
    int code = CLI_OK;
    for (char *p = text; p && *p && code == CLI_OK;) {
        while (isspace((unsigned char)*p) || *p == ',')
            p++;
        if (!*p)
            break;
        char *end;
        errno = 0;
        unsigned long long value = strtoull(p, &end, 10);
        if (end == p || errno || value > UINT32_MAX || *p == '-' || count == TOKENS_MAX)
            code =
                wf_cli_fail(cli, CLI_USAGE,
                            "token %zu is '%.20s'; write numbers of 32 bits, parted by commas or "
                            "blanks, at most %u",
                            count, p, TOKENS_MAX);
        else
            tokens[count++] = (uint32_t)value;
        p = end;
    }
    free(text);
    if (code != CLI_OK) {
        free(tokens);
        return code;
    }
    *out = tokens;
    *out_count = count;
    return CLI_OK;
}

static int keys_of_tokens(struct cli *cli, struct weft_format *format, struct weft_key **out,
                          size_t *out_count)
{
    uint32_t *tokens = NULL;
    size_t token_count = 0;
    int code = tokens_read(cli, &tokens, &token_count);
    if (code != CLI_OK)
        return code;
    size_t block_tokens = narrow(wf_cli_format_options.block_tokens, 16);
    size_t count = token_count / block_tokens;
    if (!count) {
        code = wf_cli_fail(cli, CLI_USAGE, "%zu tokens are less than one block of %zu", token_count,
                           block_tokens);
    } else {
        *out = wf_cli_alloc(count * sizeof **out);
        *out_count = count;
        enum weft_status status = weft_keys_from_tokens(format, NULL, tokens, token_count, NULL,
                                                        *out);
        if (status != WEFT_OK) {
            free(*out);
            *out = NULL;
            code = wf_cli_fail_status(cli, status, "the tokens are refused");
        }
    }
    free(tokens);
    return code;
}

int wf_cli_keys(struct cli *cli, struct weft_format *format, size_t count, struct weft_key **out,
                size_t *out_count)
{
    const struct cli_format_options *given = &wf_cli_format_options;
    if (!!given->key + !!given->raw_key + !!given->tokens != 1)
        return wf_cli_fail(cli, CLI_USAGE, "say which block with %s of --key, --raw-key, --tokens",
                           given->key || given->raw_key || given->tokens ? "only one" : "one");
    if (given->tokens)
        return keys_of_tokens(cli, format, out, out_count);
    struct weft_key *keys = wf_cli_alloc(count * sizeof *keys);
    int code = CLI_OK;
    if (given->key)
        code = keys_opaque(cli, format, count, keys);
    else if (count != 1 || hex_read(given->raw_key, keys->bytes, sizeof keys->bytes) != 32)
        code = wf_cli_fail(cli, CLI_USAGE,
                           "--raw-key names one block with 64 hex digits; it has %zu%s",
                           strlen(given->raw_key), count != 1 ? ", and more blocks are meant" : "");
    if (code != CLI_OK) {
        free(keys);
        return code;
    }
    *out = keys;
    *out_count = count;
    return CLI_OK;
}

/* -------------------------------------------------------------------------------------- a chain */

int wf_cli_chain_open(struct cli *cli, uint64_t blocks, struct cli_chain *out)
{
    *out = (struct cli_chain){.count = 0};
    if (!blocks || blocks > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to 4294967295",
                           (unsigned long long)blocks);
    int code = wf_cli_connect(cli);
    if (code == CLI_OK)
        code = wf_cli_format_open(cli, 0, &out->format);
    if (code == CLI_OK)
        code = wf_cli_keys(cli, out->format, blocks, &out->keys, &out->count);
    return code;
}

bool wf_cli_chain_ask(struct weft_format *format, const struct weft_key *keys, size_t count,
                      size_t known, uint32_t within_ms)
{
    size_t present = 0;
    enum weft_status status = weft_find_keys(format, keys, count, within_ms, &present);
    return status >= 0 && present > known;
}

int wf_cli_chain_look(struct cli *cli, struct cli_chain *chain)
{
    uint8_t *tiers = wf_cli_alloc(chain->count + 1);
    uint32_t load_us;
    enum weft_status status = weft_locate_keys(chain->format, chain->keys, chain->count, tiers,
                                               &chain->present, &load_us);
    chain->dram = 0;
    for (size_t i = 0; status >= 0 && i < chain->present; i++)
        chain->dram += tiers[i] == WEFT_TIER_DRAM;
    free(tiers);
    return status < 0 ? wf_cli_fail_status(cli, status, "cannot see what is there") : CLI_OK;
}

void wf_cli_chain_close(struct cli_chain *chain)
{
    free(chain->keys);
    weft_format_close(chain->format);
}

/* ------------------------------------------------------------------------------- another's size */

/* Is the first block that the options name there, were its size `bytes`? */
static bool there_at_size(struct cli *cli, uint64_t bytes)
{
    struct weft_format_spec spec = spec_of(bytes);
    struct weft_format *format;
    if (weft_format_open(cli->weft, &spec, &format) != WEFT_OK)
        return false;
    struct weft_key *keys = NULL;
    size_t count = 0, present = 0;
    bool there = wf_cli_keys(cli, format, 1, &keys, &count) == CLI_OK &&
                 weft_match_keys(format, keys, 1, &present) == WEFT_OK && present;
    free(keys);
    weft_format_close(format);
    return there;
}

/* The size of the block with this very key. */
static uint64_t size_of_key(struct cli *cli, const struct weft_key *key)
{
    char hex[65];
    wf_cli_hex(key->bytes, sizeof key->bytes, hex);
    json_t *answer, *block;
    if (wf_cli_query(cli, "blocks", 0, 0, &answer) != CLI_OK)
        return 0;
    uint64_t bytes = 0;
    size_t index;
    json_array_foreach (json_object_get(answer, "blocks"), index, block) {
        const char *of = json_string_value(json_object_get(block, "key"));
        if (of && strcmp(of, hex) == 0)
            bytes = (uint64_t)json_integer_value(json_object_get(block, "bytes"));
    }
    json_decref(answer);
    return bytes;
}

uint64_t wf_cli_other_size(struct cli *cli, struct weft_format *format, const struct weft_key *key)
{
    if (wf_cli_format_options.raw_key)
        return size_of_key(cli, key);
    json_t *answer, *row;
    if (layout_given() || wf_cli_query(cli, "formats", 0, 0, &answer) != CLI_OK)
        return 0;
    /* Every size that someone has stored blocks of this model in is tried; a key is made from the
     * size, so there is nothing to look for in the list of blocks. */
    struct weft_format_spec spec = spec_of(0);
    uint64_t tried[OTHER_SIZES_MAX], found = 0;
    int count = 0;
    size_t index;
    json_array_foreach (json_object_get(answer, "formats"), index, row) {
        const char *model = json_string_value(json_object_get(row, "model"));
        uint64_t bytes = (uint64_t)json_integer_value(json_object_get(row, "block_bytes"));
        bool known = bytes == weft_format_block_bytes(format);
        for (int i = 0; i < count; i++)
            known = known || tried[i] == bytes;
        if (known || found || count == OTHER_SIZES_MAX || !model || strcmp(model, spec.model) != 0)
            continue;
        tried[count++] = bytes;
        found = there_at_size(cli, bytes) ? bytes : 0;
    }
    json_decref(answer);
    return found;
}
