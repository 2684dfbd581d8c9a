/* SPDX-License-Identifier: Apache-2.0
 *
 * What is hashed (vLLM's hash_block_tokens() and generate_block_hash_extra_keys()):
 *
 *   root   = SHA-256(cbor(seed text))
 *   block  = SHA-256(cbor([parent (32 bytes), [token …], extras or null]))
 *   extras = [extra …], at least one
 *   extra  = ["lora", name, path] | ["mm", identifier, offset of its first token in the block]
 *          | ["cache_salt", salt], in a chain's first block | ["prompt_embeds", 32 bytes]
 *
 * CBOR is RFC 8949's, in the shortest form everywhere, with lengths in front.  Items go straight
 * into the hash, so nothing bounds them but their own lengths.
 */
#define OPENSSL_API_COMPAT 10101

#include "core/vllm_hash.h"

#include <openssl/sha.h>
#include <string.h>

#define HASH_BYTES 32
#define TEXT_BYTES_MAX (1u << 20)

/* ---------------------------------------------------------------------------------------- CBOR */

enum major { CBOR_UNSIGNED, CBOR_NEGATIVE, CBOR_BYTES, CBOR_TEXT, CBOR_ARRAY };

#define CBOR_HEAD_BYTES_MAX 9
#define CBOR_NULL 0xf6

/* An item's type and number, in the shortest form. */
static size_t head_write(uint8_t *out, enum major major, uint64_t number)
{
    unsigned log2_bytes = 0;
    if (number < 24) {
        out[0] = (uint8_t)(major << 5 | number);
        return 1;
    }
    while (log2_bytes < 3 && number >> (8u << log2_bytes))
        log2_bytes++;
    out[0] = (uint8_t)(major << 5 | (24 + log2_bytes));
    for (unsigned i = 0; i < 1u << log2_bytes; i++)
        out[1 + i] = (uint8_t)(number >> (8 * ((1u << log2_bytes) - 1 - i)));
    return 1 + ((size_t)1 << log2_bytes);
}

static void hash_head(SHA256_CTX *context, enum major major, uint64_t number)
{
    uint8_t bytes[CBOR_HEAD_BYTES_MAX];
    SHA256_Update(context, bytes, head_write(bytes, major, number));
}

static void hash_string(SHA256_CTX *context, enum major major, const void *bytes, size_t length)
{
    hash_head(context, major, length);
    if (length)
        SHA256_Update(context, bytes, length);
}

static void hash_name(SHA256_CTX *context, const char *text)
{
    hash_string(context, CBOR_TEXT, text, strlen(text));
}

static void hash_integer(SHA256_CTX *context, int64_t value)
{
    /* A negative number n is -1 - n, which is ~n. */
    hash_head(context, value < 0 ? CBOR_NEGATIVE : CBOR_UNSIGNED,
              (uint64_t)(value < 0 ? ~value : value));
}

static void hash_tokens(SHA256_CTX *context, const uint32_t *tokens, uint32_t count)
{
    uint8_t bytes[64 * CBOR_HEAD_BYTES_MAX];
    size_t length = 0;
    hash_head(context, CBOR_ARRAY, count);
    for (uint32_t i = 0; i < count; i++) {
        length += head_write(bytes + length, CBOR_UNSIGNED, tokens[i]);
        if (length > sizeof bytes - CBOR_HEAD_BYTES_MAX || i + 1 == count) {
            SHA256_Update(context, bytes, length);
            length = 0;
        }
    }
}

/* -------------------------------------------------------------------------------------- extras */

enum weft_status wf_vllm_extras_check(const struct weft_vllm_extra *extras, size_t count,
                                      size_t blocks)
{
    for (size_t i = 0; i < count; i++) {
        const struct weft_vllm_extra *extra = &extras[i];
        if (extra->kind < WEFT_VLLM_LORA || extra->kind > WEFT_VLLM_EMBEDS)
            return wf_fail(WEFT_E_INVALID, "extra %zu is of kind %d; there are kinds 1 to 4", i,
                           (int)extra->kind);
        if (extra->block >= blocks)
            return wf_fail(WEFT_E_INVALID, "extra %zu is of block %u; there are %zu full blocks", i,
                           extra->block, blocks);
        if (i && extra->block < extras[i - 1].block)
            return wf_fail(WEFT_E_INVALID,
                           "extra %zu is of block %u and comes after one of block %u; give them in "
                           "the order of their blocks",
                           i, extra->block, extras[i - 1].block);
        if (extra->bytes > TEXT_BYTES_MAX || extra->path_bytes > TEXT_BYTES_MAX)
            return wf_fail(WEFT_E_INVALID, "extra %zu has a text of %zu bytes; up to %u are taken",
                           i, extra->bytes > extra->path_bytes ? extra->bytes : extra->path_bytes,
                           TEXT_BYTES_MAX);
        if ((extra->bytes && !extra->text) || (extra->path_bytes && !extra->path))
            return wf_fail(WEFT_E_INVALID, "extra %zu has a length without bytes", i);
        if (extra->kind == WEFT_VLLM_EMBEDS && extra->bytes != HASH_BYTES)
            return wf_fail(WEFT_E_INVALID,
                           "extra %zu has %zu bytes of prompt embeddings' digest; it has %d", i,
                           extra->bytes, HASH_BYTES);
    }
    return WEFT_OK;
}

static void hash_extra(SHA256_CTX *context, const struct weft_vllm_extra *extra)
{
    switch (extra->kind) {
    case WEFT_VLLM_LORA:
        hash_head(context, CBOR_ARRAY, 3);
        hash_name(context, "lora");
        hash_string(context, CBOR_TEXT, extra->text, extra->bytes);
        hash_string(context, CBOR_TEXT, extra->path, extra->path_bytes);
        break;
    case WEFT_VLLM_MM:
        hash_head(context, CBOR_ARRAY, 3);
        hash_name(context, "mm");
        hash_string(context, CBOR_TEXT, extra->text, extra->bytes);
        hash_integer(context, extra->offset);
        break;
    case WEFT_VLLM_SALT:
        hash_head(context, CBOR_ARRAY, 2);
        hash_name(context, "cache_salt");
        hash_string(context, CBOR_TEXT, extra->text, extra->bytes);
        break;
    case WEFT_VLLM_EMBEDS:
        hash_head(context, CBOR_ARRAY, 2);
        hash_name(context, "prompt_embeds");
        hash_string(context, CBOR_BYTES, extra->text, extra->bytes);
        break;
    }
}

/* -------------------------------------------------------------------------------------- hashes */

void wf_vllm_root(const char *seed, uint8_t out[HASH_BYTES])
{
    SHA256_CTX context;
    SHA256_Init(&context);
    hash_name(&context, seed);
    SHA256_Final(out, &context);
}

void wf_vllm_chain(const uint8_t parent[HASH_BYTES], const uint32_t *tokens, size_t blocks,
                   uint32_t block_tokens, const struct weft_vllm_extra *extras, size_t extra_count,
                   uint8_t *out)
{
    size_t next = 0;
    for (size_t i = 0; i < blocks; i++, tokens += block_tokens, out += HASH_BYTES) {
        size_t end = next;
        while (end < extra_count && extras[end].block == i)
            end++;
        SHA256_CTX context;
        SHA256_Init(&context);
        hash_head(&context, CBOR_ARRAY, 3);
        hash_string(&context, CBOR_BYTES, parent, HASH_BYTES);
        hash_tokens(&context, tokens, block_tokens);
        if (end == next)
            SHA256_Update(&context, &(uint8_t){CBOR_NULL}, 1);
        else
            hash_head(&context, CBOR_ARRAY, end - next);
        for (; next < end; next++)
            hash_extra(&context, &extras[next]);
        SHA256_Final(out, &context);
        parent = out;
    }
}
