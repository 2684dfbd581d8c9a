/* SPDX-License-Identifier: Apache-2.0
 *
 * Roots and keys: against the published vectors, and every instruction set against plain SHA-256 of
 * the documented message, which is put together here once more, naively.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <math.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/identity.h"

#define BLOCKS_MAX 70
#define TOKENS_MAX 300

static const struct weft_format_spec plain = {
    .model = "llama-3-8b@1",
    .layers = 32,
    .kv_heads = 8,
    .head_dim = 128,
    .dtype = WEFT_BF16,
    .block_tokens = 16,
};

/* xorshift64*: the same run every time. */
static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t random_u32(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1d) >> 32);
}

static void random_bytes(uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (uint8_t)random_u32();
}

/* ---------------------------------------------------------------------------- naive derivation */

struct message {
    size_t length;
    uint8_t bytes[8192];
};

static void add(struct message *m, const void *bytes, size_t length)
{
    assert_true(m->length + length <= sizeof m->bytes);
    if (length)
        memcpy(m->bytes + m->length, bytes, length);
    m->length += length;
}

static void add_number(struct message *m, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        add(m, &(uint8_t){(uint8_t)(value >> (8 * i))}, 1);
}

static void add_field(struct message *m, char id, const void *bytes, size_t length)
{
    add(m, &id, 1);
    add_number(m, length, 4);
    add(m, bytes, length);
}

static void naive_key(const uint8_t *parent, const uint32_t *tokens, uint32_t block_tokens,
                      const uint8_t *extra, uint8_t out[32])
{
    static const uint8_t none[32];
    struct message m = {0};
    add(&m, "weftkey1T", 9);
    add_number(&m, 4 * (uint64_t)block_tokens, 4);
    for (uint32_t i = 0; i < block_tokens; i++)
        add_number(&m, tokens[i], 4);
    add_field(&m, 'X', extra, extra && memcmp(extra, none, 32) != 0 ? 32 : 0);
    add_field(&m, 'P', parent, 32);
    assert_int_equal(EVP_Digest(m.bytes, m.length, out, NULL, EVP_sha256(), NULL), 1);
}

/* -------------------------------------------------------------------------------------- chains */

static void check_chain(enum wf_sha_isa isa, uint32_t block_tokens, size_t blocks, bool with_extra)
{
    static uint32_t tokens[BLOCKS_MAX * TOKENS_MAX];
    static uint8_t extra[BLOCKS_MAX * 32], keys[BLOCKS_MAX * 32 + 1];
    uint8_t root[32], expected[32];
    random_bytes(root, sizeof root);
    for (size_t i = 0; i < blocks * block_tokens; i++)
        tokens[i] = random_u32();
    for (size_t i = 0; i < blocks; i++) {
        if (random_u32() % 3)
            random_bytes(extra + 32 * i, 32);
        else
            memset(extra + 32 * i, 0, 32);
    }
    keys[32 * blocks] = 0xa5;
    wf_identity_chain_by(isa, root, tokens, blocks, block_tokens, with_extra ? extra : NULL, keys);
    assert_int_equal(keys[32 * blocks], 0xa5);
    const uint8_t *parent = root;
    for (size_t i = 0; i < blocks; i++) {
        naive_key(parent, tokens + i * block_tokens, block_tokens,
                  with_extra ? extra + 32 * i : NULL, expected);
        assert_memory_equal(keys + 32 * i, expected, 32);
        parent = keys + 32 * i;
    }
}

static void check_all_sizes(enum wf_sha_isa isa)
{
    if (!wf_sha_isa_usable(isa)) {
        print_message("this CPU has no %s\n", wf_sha_isa_name(isa));
        skip();
    }
    size_t lanes = wf_sha_isa_lanes(isa);
    for (uint32_t block_tokens = 1; block_tokens <= TOKENS_MAX; block_tokens++) {
        check_chain(isa, block_tokens, lanes + 1, false);
        check_chain(isa, block_tokens, lanes, true);
    }
    for (size_t blocks = 0; blocks <= BLOCKS_MAX; blocks++) {
        check_chain(isa, 16, blocks, blocks & 1);
        check_chain(isa, 1 + random_u32() % TOKENS_MAX, blocks, !(blocks & 1));
    }
}

static void test_scalar(void **state)
{
    (void)state;
    check_all_sizes(WF_SHA_SCALAR);
}

static void test_avx2(void **state)
{
    (void)state;
    check_all_sizes(WF_SHA_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_all_sizes(WF_SHA_AVX512);
}

static void test_chosen(void **state)
{
    (void)state;
    enum wf_sha_isa isa = wf_sha_isa_best();
    assert_true(wf_sha_isa_usable(isa));
    assert_int_equal(isa, wf_sha_isa_best());
    uint32_t tokens[160];
    uint8_t root[32], by_choice[320], by_name[320];
    random_bytes(root, sizeof root);
    for (size_t i = 0; i < 160; i++)
        tokens[i] = random_u32();
    wf_identity_chain(root, tokens, 10, 16, NULL, by_choice);
    wf_identity_chain_by(isa, root, tokens, 10, 16, NULL, by_name);
    assert_memory_equal(by_choice, by_name, sizeof by_name);
    assert_string_equal(wf_sha_isa_name(WF_SHA_ISA_COUNT), "unknown");
    assert_false(wf_sha_isa_usable(WF_SHA_ISA_COUNT));
}

/* A chain derived in pieces is the chain derived at once. */
static void test_chain_continues(void **state)
{
    (void)state;
    uint32_t tokens[16 * 40];
    uint8_t root[32], whole[40 * 32], pieces[40 * 32];
    random_bytes(root, sizeof root);
    for (size_t i = 0; i < 16 * 40; i++)
        tokens[i] = random_u32();
    wf_identity_chain(root, tokens, 40, 16, NULL, whole);
    const uint8_t *parent = root;
    for (size_t at = 0, step = 1; at < 40; at += step, step++) {
        if (step > 40 - at)
            step = 40 - at;
        wf_identity_chain(parent, tokens + 16 * at, step, 16, NULL, pieces + 32 * at);
        parent = pieces + 32 * (at + step - 1);
    }
    assert_memory_equal(whole, pieces, sizeof whole);
}

/* --------------------------------------------------------------------------------------- roots */

static void test_root_is_hmac(void **state)
{
    (void)state;
    for (size_t secret_bytes = 0; secret_bytes <= 130; secret_bytes++) {
        uint8_t secret[130], got[32], expected[32];
        random_bytes(secret, sizeof secret);
        struct message m = {0};
        add(&m, "weftroot", 8);
        add_field(&m, 'M', "llama-3-8b@1", 12);
        add(&m,
            "L\4\0\0\0\x20\0\0\0"
            "H\4\0\0\0\x08\0\0\0"
            "D\4\0\0\0\x80\0\0\0",
            27);
        add(&m,
            "E\4\0\0\0\3\0\0\0"
            "B\4\0\0\0\x10\0\0\0"
            "r\4\0\0\0\0\0\0\0"
            "s\4\0\0\0\1\0\0\0",
            36);
        add(&m,
            "f\x08\0\0\0\0\0\0\0\0\0\0\0"
            "c\0\0\0\0"
            "A\0\0\0\0"
            "S\0\0\0\0",
            28);
        add_field(&m, 'U', secret, secret_bytes);
        add(&m, "O\x08\0\0\0\0\0\0\0\0\0\0\0", 13);
        wf_identity_root(secret, secret_bytes, &plain, secret, secret_bytes, got);
        assert_non_null(
            HMAC(EVP_sha256(), secret, (int)secret_bytes, m.bytes, m.length, expected, NULL));
        assert_memory_equal(got, expected, 32);
    }
}

static void test_digest_ignores_secrets_only(void **state)
{
    (void)state;
    uint8_t base[32], other[32];
    wf_identity_format_digest(&plain, base);
    struct weft_format_spec spec = plain;
    spec.salt = "salt";
    spec.salt_bytes = 4;
    wf_identity_format_digest(&spec, other);
    assert_memory_equal(base, other, 32);
    spec.adapter = "lora";
    spec.adapter_bytes = 4;
    wf_identity_format_digest(&spec, other);
    assert_memory_not_equal(base, other, 32);
}

/* ------------------------------------------------------------------------------------- vectors */

static size_t from_hex(const json_t *value, uint8_t *out, size_t capacity)
{
    const char *text = json_string_value(value);
    assert_non_null(text);
    size_t length = strlen(text) / 2;
    assert_true(length <= capacity);
    for (size_t i = 0; i < length; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return length;
}

static void assert_hex(const json_t *value, const uint8_t got[32])
{
    uint8_t expected[32];
    assert_int_equal(from_hex(value, expected, sizeof expected), 32);
    assert_memory_equal(got, expected, 32);
}

static uint64_t number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static enum weft_dtype dtype_named(const char *name)
{
    static const char *const names[] = {"", "f32", "f16", "bf16", "fp8_e4m3", "fp8_e5m2", "int8"};
    for (int i = 1; i <= 6; i++) {
        if (!strcmp(name, names[i]))
            return (enum weft_dtype)i;
    }
    fail_msg("no dtype %s", name);
    return WEFT_F32;
}

static enum weft_quality quality_named(const char *name)
{
    for (int i = WEFT_LOSSLESS; name && i <= WEFT_ECONOMY; i++)
        if (!strcmp(name, weft_quality_name((enum weft_quality)i)))
            return (enum weft_quality)i;
    assert_null(name);
    return WEFT_QUALITY_DEFAULT;
}

static void check_root_vector(const json_t *vector)
{
    const json_t *format = json_object_get(vector, "format");
    uint8_t secret[256], salt[256], adapter[256], session_salt[256], got[32];
    size_t secret_bytes = from_hex(json_object_get(vector, "secret"), secret, sizeof secret);
    size_t session_salt_bytes = from_hex(json_object_get(vector, "session_salt"), session_salt,
                                         sizeof session_salt);
    struct weft_format_spec spec = {
        .model = json_string_value(json_object_get(format, "model")),
        .layers = (uint32_t)number(format, "layers"),
        .kv_heads = (uint32_t)number(format, "kv_heads"),
        .head_dim = (uint32_t)number(format, "head_dim"),
        .dtype = dtype_named(json_string_value(json_object_get(format, "dtype"))),
        .block_tokens = (uint32_t)number(format, "block_tokens"),
        .tp_rank = (uint32_t)number(format, "tp_rank"),
        .tp_size = (uint32_t)number(format, "tp_size"),
        .rope_theta = json_number_value(json_object_get(format, "rope_theta")),
        .rope_scaling = json_string_value(json_object_get(format, "rope_scaling")),
        .adapter = adapter,
        .adapter_bytes = from_hex(json_object_get(format, "adapter"), adapter, sizeof adapter),
        .salt = salt,
        .salt_bytes = from_hex(json_object_get(format, "salt"), salt, sizeof salt),
        .block_bytes = number(format, "block_bytes"),
        .quality = quality_named(json_string_value(json_object_get(format, "quality"))),
    };
    assert_int_equal(wf_identity_spec_check(&spec), WEFT_OK);
    wf_identity_root(secret, secret_bytes, &spec, session_salt, session_salt_bytes, got);
    assert_hex(json_object_get(vector, "root"), got);
    wf_identity_format_digest(&spec, got);
    assert_hex(json_object_get(vector, "format_digest"), got);
}

static void check_chain_vector(const json_t *vector)
{
    static uint32_t tokens[4096];
    static uint8_t extra[256 * 32], keys[256 * 32];
    uint8_t parent[32];
    const json_t *list = json_object_get(vector, "tokens"),
                 *extras = json_object_get(vector, "extra");
    const json_t *expected = json_object_get(vector, "keys");
    uint32_t block_tokens = (uint32_t)number(vector, "block_tokens");
    size_t blocks = json_array_size(list) / block_tokens;
    assert_true(json_array_size(list) <= 4096 && blocks <= 256 &&
                blocks == json_array_size(expected) && blocks > 0);
    for (size_t i = 0; i < json_array_size(list); i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    for (size_t i = 0; i < json_array_size(extras); i++)
        from_hex(json_array_get(extras, i), extra + 32 * i, 32);
    from_hex(json_object_get(vector, "parent"), parent, 32);
    for (int isa = 0; isa < WF_SHA_ISA_COUNT; isa++) {
        if (!wf_sha_isa_usable((enum wf_sha_isa)isa))
            continue;
        wf_identity_chain_by((enum wf_sha_isa)isa, parent, tokens, blocks, block_tokens,
                             json_is_array(extras) ? extra : NULL, keys);
        for (size_t i = 0; i < blocks; i++)
            assert_hex(json_array_get(expected, i), keys + 32 * i);
    }
}

static void test_vectors(void **state)
{
    (void)state;
    json_error_t error;
    json_t *file = json_load_file(WF_IDENTITY_VECTORS, 0, &error), *vector;
    if (!file)
        fail_msg("%s: %s", WF_IDENTITY_VECTORS, error.text);
    size_t i, opaque_count = 0;
    assert_true(json_array_size(json_object_get(file, "roots")) >= 10);
    json_array_foreach (json_object_get(file, "roots"), i, vector)
        check_root_vector(vector);
    assert_true(json_array_size(json_object_get(file, "chains")) >= 5);
    json_array_foreach (json_object_get(file, "chains"), i, vector)
        check_chain_vector(vector);
    json_array_foreach (json_object_get(file, "opaque"), i, vector) {
        uint8_t root[32], bytes[4096], got[32];
        from_hex(json_object_get(vector, "root"), root, 32);
        wf_identity_bytes(root, bytes,
                          from_hex(json_object_get(vector, "bytes"), bytes, sizeof bytes), got);
        assert_hex(json_object_get(vector, "key"), got);
        opaque_count++;
    }
    assert_true(opaque_count >= 3);
    assert_true(json_array_size(json_object_get(file, "domain_tags")) >= 4);
    json_array_foreach (json_object_get(file, "domain_tags"), i, vector) {
        uint8_t secret[128] = {0}, got[32];
        size_t bytes = from_hex(json_object_get(vector, "secret"), secret, sizeof secret);
        wf_domain_tag(secret, bytes, got);
        assert_hex(json_object_get(vector, "tag"), got);
        secret[0] ^= 1; /* another secret, another tag */
        uint8_t other[32];
        wf_domain_tag(secret, bytes, other);
        assert_memory_not_equal(got, other, sizeof got);
    }
    json_decref(file);
}

/* ------------------------------------------------------------------------------------- layouts */

/* The spec is refused, and the sentence names the field. */
static void refused(struct weft_format_spec spec, const char *field)
{
    assert_int_equal(wf_identity_spec_check(&spec), WEFT_E_INVALID);
    if (!strstr(wf_last_error(), field))
        fail_msg("'%s' does not name %s", wf_last_error(), field);
}

#define WITH(...)                             \
    ({                                        \
        struct weft_format_spec with = plain; \
        __VA_ARGS__;                          \
        with;                                 \
    })

static void test_spec_check(void **state)
{
    (void)state;
    static char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    assert_int_equal(wf_identity_spec_check(&plain), WEFT_OK);
    assert_int_equal(wf_identity_spec_check(NULL), WEFT_E_INVALID);
    refused(WITH(with.model = NULL), "model");
    refused(WITH(with.model = ""), "model");
    refused(WITH(with.model = long_text + sizeof long_text - 1 - 513), "model");
    refused(WITH(with.model = "a\x1b[2J"), "model");
    refused(WITH(with.model = "a\xc0\x80"), "model");         /* a NUL in two bytes */
    refused(WITH(with.model = "a\xed\xa0\x80"), "model");     /* half a surrogate pair */
    refused(WITH(with.model = "a\xf4\x90\x80\x80"), "model"); /* beyond U+10FFFF */
    refused(WITH(with.model = "a\xe2\x82"), "model");         /* cut off */
    refused(WITH(with.model = "\x80"), "model");
    refused(WITH(with.layers = 0), "layers");
    refused(WITH(with.layers = 1025), "layers");
    refused(WITH(with.kv_heads = 0), "kv_heads");
    refused(WITH(with.kv_heads = 4097), "kv_heads");
    refused(WITH(with.head_dim = 0), "head_dim");
    refused(WITH(with.head_dim = 4097), "head_dim");
    refused(WITH(with.dtype = (enum weft_dtype)0), "dtype");
    refused(WITH(with.quality = (enum weft_quality)4), "quality");
    refused(WITH(with.quality = (enum weft_quality) - 1), "quality");
    refused(WITH(with.dtype = (enum weft_dtype)7), "dtype");
    refused(WITH(with.block_tokens = 0), "block_tokens");
    refused(WITH(with.block_tokens = 65537), "block_tokens");
    refused(WITH(with.tp_rank = 1), "tp_rank");
    refused(WITH(with.tp_rank = 4, with.tp_size = 4), "tp_rank");
    refused(WITH(with.rope_theta = -1), "rope_theta");
    refused(WITH(with.rope_theta = NAN), "rope_theta");
    refused(WITH(with.rope_theta = INFINITY), "rope_theta");
    refused(WITH(with.rope_scaling = long_text), "rope_scaling");
    refused(WITH(with.adapter = long_text, with.adapter_bytes = 257), "adapter");
    refused(WITH(with.adapter_bytes = 1), "adapter");
    refused(WITH(with.salt = long_text, with.salt_bytes = 257), "salt");
    refused(WITH(with.salt_bytes = 1), "salt");
    refused(WITH(with.block_bytes = UINT64_MAX), "block_bytes");
    struct weft_format_spec text = plain;
    text.model = "mod\xc3\xa8le \xf0\x9f\xa7\xb5";
    text.rope_scaling = "{\n\t\"factor\": 8\n}";
    assert_int_equal(wf_identity_spec_check(&text), WEFT_OK);
}

/* What is better than the domain's is a part of the keys, and nothing else is. */
static void test_quality(void **state)
{
    (void)state;
    uint8_t base[32], got[32];
    wf_identity_root((const uint8_t *)"k", 1, &plain, NULL, 0, base);
    for (int domain = WEFT_LOSSLESS; domain <= WEFT_ECONOMY; domain++)
        for (int asked = WEFT_QUALITY_DEFAULT; asked <= WEFT_ECONOMY; asked++) {
            struct weft_format_spec spec = WITH(with.quality = (enum weft_quality)asked);
            bool better = asked != WEFT_QUALITY_DEFAULT && asked < domain;
            assert_int_equal(wf_identity_quality(&spec, (enum weft_quality)domain),
                             better ? asked : domain);
            assert_int_equal(spec.quality, better ? asked : WEFT_QUALITY_DEFAULT);
            wf_identity_root((const uint8_t *)"k", 1, &spec, NULL, 0, got);
            assert_int_equal(memcmp(base, got, 32) != 0, better);
        }
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(wf_identity_layer_bytes(&plain), 16 * 8 * 128 * 2);
    assert_int_equal(wf_identity_block_bytes(&plain), 2 * 32 * 16 * 8 * 128 * 2);
    struct weft_format_spec most = WITH(with.layers = 1024, with.kv_heads = 4096,
                                        with.head_dim = 4096, with.dtype = WEFT_F32,
                                        with.block_tokens = 65536);
    assert_int_equal(wf_identity_spec_check(&most), WEFT_OK);
    assert_int_equal(wf_identity_block_bytes(&most), UINT64_C(1) << 53);
    struct weft_format_spec opaque = WITH(with.block_bytes = 12345);
    assert_int_equal(wf_identity_layer_bytes(&opaque), 0);
    assert_int_equal(wf_identity_block_bytes(&opaque), 12345);
    assert_int_equal(weft_dtype_bytes((enum weft_dtype)99), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quality),      cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_avx2),         cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_chosen),       cmocka_unit_test(test_chain_continues),
        cmocka_unit_test(test_root_is_hmac), cmocka_unit_test(test_digest_ignores_secrets_only),
        cmocka_unit_test(test_vectors),      cmocka_unit_test(test_spec_check),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
