/* SPDX-License-Identifier: Apache-2.0
 *
 * What is hashed, for all names at once (docs/IDENTITY.md draws it and says why):
 *
 *   message  = tag (8 ASCII bytes) | field …
 *   field    = id (1 byte) | length (u32le) | bytes
 *
 *   "weftroot"  M L H D E B r s f c A S U O [Q] HMAC-SHA-256 with the domain's secret
 *   "weftfmt1"  M L H D E B r s f c A O [Q]    SHA-256
 *   "weftkey1"  T X P                          SHA-256: tokens, extra digest or nothing, parent
 *   "weftraw1"  R B                            SHA-256: root, the engine's own bytes
 *   "weftdom1"  N H                            SHA-256: label, HMAC-SHA-256 of it with the secret
 *
 * A message is read back in one way only, so that no two meanings share bytes.  In a key's message
 * the parent comes last: all that stands before it does not depend on the chain, and is hashed for
 * many blocks side by side (sha_lanes.h).  Only what holds the parent, one compression for the
 * usual block sizes, is serial.
 *
 * HMAC is written out because OpenSSL's allocates and can fail, and a root must not.
 */
#define OPENSSL_API_COMPAT 10101

#include "core/identity.h"

#include "base/text.h"
#include <math.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <string.h>

#define TAG_BYTES 8
#define FIELD_HEADER_BYTES 5
/* Tag and header of T: what stands before the tokens. */
#define KEY_HEAD_BYTES (TAG_BYTES + FIELD_HEADER_BYTES)
/* Less than a compression of tokens, then X and P at their longest, then the padding. */
#define KEY_TAIL_BYTES_MAX 192

_Static_assert(63 + 2 * (FIELD_HEADER_BYTES + WF_KEY_BYTES) + 9 <= KEY_TAIL_BYTES_MAX,
               "the tail has room");

/* -------------------------------------------------------------------------------------- fields */

static void put_u32le(uint8_t *out, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static void put_u64le(uint8_t *out, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static void put_field_header(uint8_t *out, char id, size_t length)
{
    out[0] = (uint8_t)id;
    put_u32le(out + 1, (uint32_t)length);
}

static void hash_field(SHA256_CTX *context, char id, const void *bytes, size_t length)
{
    uint8_t header[FIELD_HEADER_BYTES];
    put_field_header(header, id, length);
    SHA256_Update(context, header, sizeof header);
    if (length)
        SHA256_Update(context, bytes, length);
}

static void hash_u32(SHA256_CTX *context, char id, uint32_t value)
{
    uint8_t bytes[4];
    put_u32le(bytes, value);
    hash_field(context, id, bytes, sizeof bytes);
}

static void hash_u64(SHA256_CTX *context, char id, uint64_t value)
{
    uint8_t bytes[8];
    put_u64le(bytes, value);
    hash_field(context, id, bytes, sizeof bytes);
}

static void hash_double(SHA256_CTX *context, char id, double value)
{
    uint64_t bits;
    value += 0.0; /* -0.0 and 0.0 mean the same and become the same */
    memcpy(&bits, &value, sizeof bits);
    hash_u64(context, id, bits);
}

static void hash_text(SHA256_CTX *context, char id, const char *text)
{
    hash_field(context, id, text, text ? strlen(text) : 0);
}

/* The fields of a layout that a digest and a root share. */
static void hash_layout(SHA256_CTX *context, const struct weft_format_spec *spec)
{
    hash_text(context, 'M', spec->model);
    hash_u32(context, 'L', spec->layers);
    hash_u32(context, 'H', spec->kv_heads);
    hash_u32(context, 'D', spec->head_dim);
    hash_u32(context, 'E', (uint32_t)spec->dtype);
    hash_u32(context, 'B', spec->block_tokens);
    hash_u32(context, 'r', spec->tp_rank);
    hash_u32(context, 's', spec->tp_size ? spec->tp_size : 1);
    hash_double(context, 'f', spec->rope_theta);
    hash_text(context, 'c', spec->rope_scaling);
    hash_field(context, 'A', spec->adapter, spec->adapter_bytes);
}

/* The end of both: Q is there only where blocks of that layout are to be kept apart by it. */
static void hash_end(SHA256_CTX *context, const struct weft_format_spec *spec)
{
    hash_u64(context, 'O', spec->block_bytes);
    if (spec->quality != WEFT_QUALITY_DEFAULT)
        hash_u32(context, 'Q', (uint32_t)spec->quality);
}

/* --------------------------------------------------------------------------------------- roots */

struct hmac {
    SHA256_CTX context;
    uint8_t key[64];
};

static void hmac_pad(struct hmac *hmac, uint8_t with)
{
    uint8_t pad[sizeof hmac->key];
    for (size_t i = 0; i < sizeof pad; i++)
        pad[i] = hmac->key[i] ^ with;
    SHA256_Init(&hmac->context);
    SHA256_Update(&hmac->context, pad, sizeof pad);
    OPENSSL_cleanse(pad, sizeof pad);
}

/* What is to be signed goes into hmac->context until hmac_end(). */
static void hmac_begin(struct hmac *hmac, const uint8_t *secret, size_t secret_bytes)
{
    memset(hmac->key, 0, sizeof hmac->key);
    if (secret_bytes > sizeof hmac->key) {
        SHA256_Init(&hmac->context);
        SHA256_Update(&hmac->context, secret, secret_bytes);
        SHA256_Final(hmac->key, &hmac->context);
    } else if (secret_bytes) {
        memcpy(hmac->key, secret, secret_bytes);
    }
    hmac_pad(hmac, 0x36);
}

static void hmac_end(struct hmac *hmac, uint8_t out[WF_KEY_BYTES])
{
    uint8_t inner[WF_KEY_BYTES];
    SHA256_Final(inner, &hmac->context);
    hmac_pad(hmac, 0x5c);
    SHA256_Update(&hmac->context, inner, sizeof inner);
    SHA256_Final(out, &hmac->context);
    OPENSSL_cleanse(hmac, sizeof *hmac);
}

void wf_identity_root(const uint8_t *secret, size_t secret_bytes,
                      const struct weft_format_spec *spec, const void *session_salt,
                      size_t session_salt_bytes, uint8_t out[WF_KEY_BYTES])
{
    struct hmac hmac;
    hmac_begin(&hmac, secret, secret_bytes);
    SHA256_Update(&hmac.context, "weftroot", TAG_BYTES);
    hash_layout(&hmac.context, spec);
    hash_field(&hmac.context, 'S', spec->salt, spec->salt_bytes);
    hash_field(&hmac.context, 'U', session_salt, session_salt_bytes);
    hash_end(&hmac.context, spec);
    hmac_end(&hmac, out);
}

void wf_domain_tag(const uint8_t *secret, size_t secret_bytes, uint8_t out[WF_KEY_BYTES])
{
    static const char label[] = "weft-domain-tag";
    struct hmac hmac;
    SHA256_CTX context;
    uint8_t code[WF_KEY_BYTES];
    hmac_begin(&hmac, secret, secret_bytes);
    SHA256_Update(&hmac.context, label, sizeof label - 1);
    hmac_end(&hmac, code);
    SHA256_Init(&context);
    SHA256_Update(&context, "weftdom1", TAG_BYTES);
    hash_text(&context, 'N', label);
    hash_field(&context, 'H', code, sizeof code);
    SHA256_Final(out, &context);
}

void wf_identity_format_digest(const struct weft_format_spec *spec, uint8_t out[WF_KEY_BYTES])
{
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, "weftfmt1", TAG_BYTES);
    hash_layout(&context, spec);
    hash_end(&context, spec);
    SHA256_Final(out, &context);
}

void wf_identity_bytes(const uint8_t root[WF_KEY_BYTES], const void *bytes, size_t length,
                       uint8_t out[WF_KEY_BYTES])
{
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, "weftraw1", TAG_BYTES);
    hash_field(&context, 'R', root, WF_KEY_BYTES);
    hash_field(&context, 'B', bytes, length);
    SHA256_Final(out, &context);
}

/* -------------------------------------------------------------------------------------- chains */

/* Bytes [from, from + length) of the tokens as u32le. */
static void token_bytes(const uint32_t *tokens, size_t from, size_t length, uint8_t *out)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(out, (const uint8_t *)tokens + from, length);
#else
    for (size_t i = from; i < from + length; i++)
        *out++ = (uint8_t)(tokens[i / 4] >> (8 * (i % 4)));
#endif
}

/* The end of a message: tokens that fill no compression, X, P and the padding of FIPS 180-4.  All
 * but the tokens, the extra digest and the parent is the same for every block, and stands ready. */
struct key_tail {
    size_t bytes; /* a multiple of 64 */
    size_t extra_at, parent_at;
    uint8_t block[KEY_TAIL_BYTES_MAX];
};

struct key_shape {
    uint32_t block_tokens;
    size_t compressions; /* of 64 bytes that hold nothing but head and tokens */
    size_t tail_token_at, tail_token_from, tail_token_bytes;
    uint8_t head[KEY_HEAD_BYTES];
    struct key_tail plain, extra; /* without and with an extra digest */
};

static void tail_init(struct key_tail *tail, size_t absorbed, size_t at, bool has_extra)
{
    put_field_header(tail->block + at, 'X', has_extra ? WF_KEY_BYTES : 0);
    tail->extra_at = at + FIELD_HEADER_BYTES;
    at = tail->extra_at + (has_extra ? WF_KEY_BYTES : 0);
    put_field_header(tail->block + at, 'P', WF_KEY_BYTES);
    tail->parent_at = at + FIELD_HEADER_BYTES;
    at = tail->parent_at + WF_KEY_BYTES;
    tail->bytes = (at + 9 + 63) / 64 * 64;
    tail->block[at] = 0x80;
    memset(tail->block + at + 1, 0, tail->bytes - at - 1);
    uint64_t bits = 8 * (uint64_t)(absorbed + at);
    for (unsigned i = 0; i < 8; i++)
        tail->block[tail->bytes - 1 - i] = (uint8_t)(bits >> (8 * i));
}

static void shape_init(struct key_shape *shape, uint32_t block_tokens)
{
    size_t head_bytes = KEY_HEAD_BYTES + 4 * (size_t)block_tokens;
    shape->block_tokens = block_tokens;
    shape->compressions = head_bytes / 64;
    memcpy(shape->head, "weftkey1", TAG_BYTES);
    put_field_header(shape->head + TAG_BYTES, 'T', 4 * (size_t)block_tokens);

    size_t absorbed = 64 * shape->compressions;
    shape->tail_token_at = absorbed ? 0 : KEY_HEAD_BYTES;
    shape->tail_token_from = absorbed ? absorbed - KEY_HEAD_BYTES : 0;
    shape->tail_token_bytes = head_bytes - absorbed - shape->tail_token_at;
    tail_init(&shape->plain, absorbed, head_bytes - absorbed, false);
    tail_init(&shape->extra, absorbed, head_bytes - absorbed, true);
    if (!absorbed) {
        memcpy(shape->plain.block, shape->head, KEY_HEAD_BYTES);
        memcpy(shape->extra.block, shape->head, KEY_HEAD_BYTES);
    }
}

/* The first 64 bytes of a block's message; only when it has that many before X. */
static void first_bytes(const struct key_shape *shape, const uint32_t *tokens, uint8_t out[64])
{
    memcpy(out, shape->head, KEY_HEAD_BYTES);
    token_bytes(tokens, 0, 64 - KEY_HEAD_BYTES, out + KEY_HEAD_BYTES);
}

/* The states of `count` blocks after their shape->compressions, one at a time. */
static void absorb_scalar(const struct key_shape *shape, const uint32_t *tokens, size_t count,
                          uint32_t states[][8])
{
    for (size_t i = 0; i < count; i++, tokens += shape->block_tokens) {
        memcpy(states[i], wf_sha_initial, sizeof wf_sha_initial);
        uint8_t block[64];
        for (size_t k = 0; k < shape->compressions; k++) {
            if (k == 0)
                first_bytes(shape, tokens, block);
            else
                token_bytes(tokens, 64 * k - KEY_HEAD_BYTES, 64, block);
            wf_sha_compress(states[i], block);
        }
    }
}

/* The same, side by side.  Vector paths exist on little-endian machines only, where tokens lie in
 * memory as they are hashed. */
static void absorb_lanes(enum wf_sha_isa isa, const struct key_shape *shape, const uint32_t *tokens,
                         size_t count, uint32_t states[][8])
{
    uint8_t first[WF_SHA_LANES_MAX][64];
    const uint8_t *firsts[WF_SHA_LANES_MAX], *rests[WF_SHA_LANES_MAX];
    for (size_t i = 0; i < count; i++, tokens += shape->block_tokens) {
        first_bytes(shape, tokens, first[i]);
        firsts[i] = first[i];
        rests[i] = (const uint8_t *)tokens + (64 - KEY_HEAD_BYTES);
    }
    wf_sha_lanes(isa, count, firsts, rests, shape->compressions - 1, states);
}

static void put_state(const uint32_t state[8], uint8_t out[WF_KEY_BYTES])
{
    for (unsigned i = 0; i < 8; i++) {
        uint32_t big_endian = state[i];
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        big_endian = __builtin_bswap32(big_endian);
#endif
        memcpy(out + 4 * i, &big_endian, 4);
    }
}

/* From the state before the tail to the key: the one part that waits for the parent. */
static void finish_key(struct key_shape *shape, const uint32_t *tokens, const uint8_t *extra,
                       const uint8_t *parent, uint32_t state[8], uint8_t out[WF_KEY_BYTES])
{
    static const uint8_t none[WF_KEY_BYTES];
    bool has_extra = extra && memcmp(extra, none, WF_KEY_BYTES) != 0;
    struct key_tail *tail = has_extra ? &shape->extra : &shape->plain;
    token_bytes(tokens, shape->tail_token_from, shape->tail_token_bytes,
                tail->block + shape->tail_token_at);
    if (has_extra)
        memcpy(tail->block + tail->extra_at, extra, WF_KEY_BYTES);
    memcpy(tail->block + tail->parent_at, parent, WF_KEY_BYTES);
    for (size_t at = 0; at < tail->bytes; at += 64)
        wf_sha_compress(state, tail->block + at);
    put_state(state, out);
}

void wf_identity_chain_by(enum wf_sha_isa isa, const uint8_t parent[WF_KEY_BYTES],
                          const uint32_t *tokens, size_t blocks, uint32_t block_tokens,
                          const uint8_t *extra, uint8_t *out_keys)
{
    struct key_shape shape;
    shape_init(&shape, block_tokens);
    size_t lanes = wf_sha_isa_lanes(isa);
    while (blocks) {
        uint32_t states[WF_SHA_LANES_MAX][8];
        size_t count = blocks < lanes ? blocks : lanes;
        /* A vector costs the same with one lane in use as with all: about a quarter of them one by
         * one. */
        if (shape.compressions && 4 * count > lanes && lanes > 1)
            absorb_lanes(isa, &shape, tokens, count, states);
        else
            absorb_scalar(&shape, tokens, count, states);
        for (size_t i = 0; i < count; i++) {
            finish_key(&shape, tokens, extra, parent, states[i], out_keys);
            parent = out_keys;
            out_keys += WF_KEY_BYTES;
            tokens += block_tokens;
            if (extra)
                extra += WF_KEY_BYTES;
        }
        blocks -= count;
    }
}

void wf_identity_chain(const uint8_t parent[WF_KEY_BYTES], const uint32_t *tokens, size_t blocks,
                       uint32_t block_tokens, const uint8_t *extra, uint8_t *out_keys)
{
    wf_identity_chain_by(wf_sha_isa_best(), parent, tokens, blocks, block_tokens, extra, out_keys);
}

/* ------------------------------------------------------------------------------------- layouts */

static enum weft_status check_range(const char *field, uint32_t value, uint32_t most)
{
    if (value >= 1 && value <= most)
        return WEFT_OK;
    return wf_fail(WEFT_E_INVALID, "the format's %s is %u; give 1 to %u", field, value, most);
}

static enum weft_status check_bytes(const char *field, const void *bytes, size_t length,
                                    size_t most)
{
    if (length > most)
        return wf_fail(WEFT_E_INVALID,
                       "the format's %s has %zu bytes; give at most %zu, such as a digest", field,
                       length, most);
    if (length && !bytes)
        return wf_fail(WEFT_E_INVALID,
                       "the format's %s is NULL but has %zu bytes; give both or neither", field,
                       length);
    return WEFT_OK;
}

enum weft_status wf_identity_spec_check(const struct weft_format_spec *spec)
{
    enum weft_status status;
    if (!spec)
        return wf_fail(WEFT_E_INVALID, "the format is NULL; give a weft_format_spec");
    if (!spec->model || !*spec->model)
        return wf_fail(
            WEFT_E_INVALID,
            "the format's model is empty; name it and its revision, like \"llama-3-8b@1f2e\"");
    if ((status = wf_text_check("the format's model", spec->model, WF_MODEL_BYTES_MAX, true)) ||
        (status = check_range("layers", spec->layers, 1024)) ||
        (status = check_range("kv_heads", spec->kv_heads, 4096)) ||
        (status = check_range("head_dim", spec->head_dim, 4096)) ||
        (status = check_range("block_tokens", spec->block_tokens, 65536)))
        return status;
    if (!weft_dtype_bytes(spec->dtype))
        return wf_fail(
            WEFT_E_INVALID,
            "the format's dtype is %d, which is none; give WEFT_F32 to WEFT_INT8 (1 to 6)",
            (int)spec->dtype);
    if (spec->tp_rank >= (spec->tp_size ? spec->tp_size : 1))
        return wf_fail(WEFT_E_INVALID,
                       "the format's tp_rank is %u of tp_size %u; give a rank below the size",
                       spec->tp_rank, spec->tp_size);
    if (!isfinite(spec->rope_theta) || spec->rope_theta < 0)
        return wf_fail(
            WEFT_E_INVALID,
            "the format's rope_theta is %g; give a positive number, or WEFT_ROPE_THETA_NONE",
            spec->rope_theta);
    if (spec->rope_scaling &&
        (status = wf_text_check("the format's rope_scaling", spec->rope_scaling,
                                WF_ROPE_SCALING_BYTES_MAX, true)))
        return status;
    if ((status = check_bytes("adapter", spec->adapter, spec->adapter_bytes,
                              WF_ADAPTER_BYTES_MAX)) ||
        (status = check_bytes("salt", spec->salt, spec->salt_bytes, WF_SALT_BYTES_MAX)))
        return status;
    if (spec->block_bytes > WF_OPAQUE_BLOCK_BYTES_MAX)
        return wf_fail(
            WEFT_E_INVALID,
            "the format's block_bytes is %llu; give at most 1 TiB, or 0 to have it computed",
            (unsigned long long)spec->block_bytes);
    if ((unsigned)spec->quality > WEFT_ECONOMY)
        return wf_fail(WEFT_E_INVALID,
                       "the format's quality is %d, which is none; give WEFT_QUALITY_DEFAULT to "
                       "WEFT_ECONOMY (0 to 3)",
                       (int)spec->quality);
    return WEFT_OK;
}

enum weft_quality wf_identity_quality(struct weft_format_spec *spec, enum weft_quality domain)
{
    if (spec->quality == WEFT_QUALITY_DEFAULT || spec->quality >= domain) {
        spec->quality = WEFT_QUALITY_DEFAULT;
        return domain;
    }
    return spec->quality;
}

uint64_t wf_identity_layer_bytes(const struct weft_format_spec *spec)
{
    if (spec->block_bytes)
        return 0;
    return (uint64_t)spec->block_tokens * spec->kv_heads * spec->head_dim *
           weft_dtype_bytes(spec->dtype);
}

uint64_t wf_identity_block_bytes(const struct weft_format_spec *spec)
{
    return spec->block_bytes ? spec->block_bytes
                             : 2 * (uint64_t)spec->layers * wf_identity_layer_bytes(spec);
}
