/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events are written to the byte as vLLM's own classes write them, read back from either of its
 * encodings, and nothing is believed of a batch that is torn or lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../gateway/kvevents_vectors.h"
#include "gateway/kvevents_codec.h"

static const struct vector {
    const uint8_t *data;
    size_t bytes;
    struct wf_kv_style style;
} vectors[] = {
    {map_bytes, sizeof map_bytes, {.arrays = false, .numbers = false}},
    {map_numbers, sizeof map_numbers, {.arrays = false, .numbers = true}},
    {array_bytes, sizeof array_bytes, {.arrays = true, .numbers = false}},
    {array_numbers, sizeof array_numbers, {.arrays = true, .numbers = true}},
};
#define VECTORS (sizeof vectors / sizeof vectors[0])

static const char name[] = "a name that is longer than thirty-one bytes";

static void digest(unsigned number, uint8_t out[32])
{
    for (unsigned i = 0; i < 32; i++)
        out[i] = (uint8_t)(number * 7 + i);
}

static struct wf_kv_block *block_of(unsigned number, int parent, const uint32_t *tokens,
                                    size_t count, const char *lora)
{
    uint8_t hash[32], before[32];
    digest(number, hash);
    digest((unsigned)parent, before);
    const struct wf_kv_meaning meaning = {.hash = hash,
                                          .hash_bytes = 32,
                                          .parent = before,
                                          .parent_bytes = parent < 0 ? 0 : 32,
                                          .lora = lora,
                                          .lora_bytes = lora ? strlen(lora) : 0,
                                          .tokens = tokens,
                                          .token_count = count};
    struct wf_kv_block *block = wf_kv_block_create(&meaning);
    assert_non_null(block);
    return block;
}

static void writes_as_vllm(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX};
    uint32_t nines[20];
    for (int i = 0; i < 20; i++)
        nines[i] = 9;
    struct wf_kv_block *one = block_of(1, 0, tokens, 4, NULL),
                       *two = block_of(2, 1, tokens + 4, 4, NULL),
                       *three = block_of(3, -1, nines, 20, name);
    const struct wf_kv_said said[] = {{WF_KV_STORED, WF_KV_CPU, one},
                                      {WF_KV_STORED, WF_KV_CPU, two},
                                      {WF_KV_STORED, WF_KV_STORAGE, three},
                                      {WF_KV_REMOVED, WF_KV_CPU, two},
                                      {WF_KV_REMOVED, WF_KV_CPU, one},
                                      {WF_KV_CLEARED, WF_KV_NOWHERE, NULL}};
    for (size_t i = 0; i < VECTORS; i++) {
        struct wf_kv_bytes out = {0};
        assert_int_equal(wf_kv_encode(&vectors[i].style, 1.5, said, 6, &out), WEFT_OK);
        assert_int_equal(out.bytes, vectors[i].bytes);
        assert_memory_equal(out.data, vectors[i].data, out.bytes);
        free(out.data);
    }
    assert_true(wf_kv_block_same(one, one));
    assert_false(wf_kv_block_same(one, two));
    wf_kv_block_put(one);
    wf_kv_block_put(two);
    wf_kv_block_put(three);
}

struct heard {
    unsigned events, stored, removed, cleared, plain;
    uint64_t tokens, numbers[16], parents[16];
    enum wf_kv_medium medium[16];
};

static void hear(void *context, const struct wf_kv_heard *event)
{
    struct heard *heard = context;
    const struct wf_kv_meaning *meaning = &event->meaning;
    if (heard->events < 16) {
        heard->numbers[heard->events] = wf_kv_hash_number(meaning->hash, meaning->hash_bytes);
        heard->parents[heard->events] = wf_kv_hash_number(meaning->parent, meaning->parent_bytes);
        heard->medium[heard->events] = event->medium;
    }
    heard->events++;
    heard->stored += event->kind == WF_KV_STORED;
    heard->removed += event->kind == WF_KV_REMOVED;
    heard->cleared += event->kind == WF_KV_CLEARED;
    heard->plain += event->plain;
    for (size_t i = 0; event->kind == WF_KV_STORED && i < meaning->token_count; i++)
        heard->tokens += meaning->tokens[i];
}

static uint64_t number(unsigned of)
{
    uint8_t hash[32];
    digest(of, hash);
    return wf_kv_hash_number(hash, 32);
}

static void reads_both_encodings(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTORS; i++) {
        struct heard heard = {0};
        assert_int_equal(wf_kv_decode(vectors[i].data, vectors[i].bytes, hear, &heard), WEFT_OK);
        assert_int_equal(heard.stored, 3);
        assert_int_equal(heard.removed, 2);
        assert_int_equal(heard.cleared, 1);
        assert_int_equal(heard.tokens,
                         127 + 128 + 255 + 256 + 65535 + 65536 + UINT64_C(4294967295) + 180);
        assert_true(heard.numbers[0] == number(1) && heard.parents[0] == number(0));
        assert_true(heard.numbers[1] == number(2) && heard.parents[1] == number(1));
        assert_true(heard.numbers[2] == number(3) && heard.parents[2] == 0);
        assert_true(heard.numbers[3] == number(2) && heard.numbers[4] == number(1));
        assert_true(heard.medium[0] == WF_KV_CPU && heard.medium[2] == WF_KV_STORAGE);
    }
    struct heard heard = {0};
    assert_int_equal(wf_kv_decode(map_rich, sizeof map_rich, hear, &heard), WEFT_OK);
    assert_int_equal(heard.stored, 2);
    assert_true(heard.numbers[1] == (UINT64_C(1) << 63) + 1 && heard.parents[0] == number(4));
    assert_int_equal(heard.medium[0], WF_KV_GPU);
}

/* Each beginning of it is none, and so is it with something behind. */
static void torn_is_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTORS; i++) {
        for (size_t bytes = 0; bytes < vectors[i].bytes; bytes++) {
            struct heard heard = {0};
            uint8_t *copy = malloc(bytes + 1); /* so that ASan sees who reads on */
            assert_non_null(copy);
            memcpy(copy, vectors[i].data, bytes);
            assert_int_equal(wf_kv_decode(copy, bytes, hear, &heard), WEFT_E_PROTOCOL);
            assert_int_equal(heard.events, 0);
            free(copy);
        }
        struct heard heard = {0};
        uint8_t *more = calloc(1, vectors[i].bytes + 1);
        assert_non_null(more);
        memcpy(more, vectors[i].data, vectors[i].bytes);
        assert_int_equal(wf_kv_decode(more, vectors[i].bytes + 1, hear, &heard), WEFT_E_PROTOCOL);
        assert_int_equal(heard.events, 0);
        free(more);
    }
}

#define REFUSED(...)                                                                    \
    do {                                                                                \
        static const uint8_t lie[] = {__VA_ARGS__};                                     \
        struct heard heard = {0};                                                       \
        assert_int_equal(wf_kv_decode(lie, sizeof lie, hear, &heard), WEFT_E_PROTOCOL); \
        assert_int_equal(heard.events, 0);                                              \
    } while (0)

#define CLEAR 0xb0, 'A', 'l', 'l', 'B', 'l', 'o', 'c', 'k', 's', 'C', 'l', 'e', 'a', 'r', 'e', 'd'
#define REMOVE 0xac, 'B', 'l', 'o', 'c', 'k', 'R', 'e', 'm', 'o', 'v', 'e', 'd'

static void lies_are_nothing(void **state)
{
    (void)state;
    REFUSED(0x93, 0x01, 0xdd, 0xff, 0xff, 0xff, 0xff);             /* 4 G events */
    REFUSED(0x92, 0x01, 0xdf, 0xff, 0xff, 0xff, 0xff, 0, 0);       /* a map is none */
    REFUSED(0x92, 0x01, 0x91, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff); /* a tag of 4 GiB */
    REFUSED(0x92, 0x01, 0x91, 0x90);                               /* an event of nothing */
    REFUSED(0x92, 0x01, 0x91, 0x91, REMOVE);                       /* what was removed? */
    REFUSED(0x92, 0x01, 0x91, 0x92, REMOVE, 0x91, 0xc0);           /* a hash of nil */
    REFUSED(0x92, 0x01, 0x91, 0x92, REMOVE, 0x91, 0xc4, 0x00);     /* and of no bytes */
    REFUSED(0x92, 0x01, 0x92, 0x91, CLEAR, 0xc1);                  /* one good, then nonsense */
    REFUSED(0x92, 0xc0, 0x90);                                     /* no time */
    REFUSED(0x91, 0x01);
    REFUSED(0xc1);
    /* Nesting that would take the stack. */
    static uint8_t deep[1 << 20];
    memset(deep, 0x91, sizeof deep);
    struct heard heard = {0};
    assert_int_equal(wf_kv_decode(deep, sizeof deep, hear, &heard), WEFT_E_PROTOCOL);
    /* A kind of tomorrow is passed over, and what stands beside it is heard. */
    static const uint8_t other[] = {0x92, 0x01, 0x92, 0x92, 0xa3, 'N', 'e', 'w', 0x01, 0x91, CLEAR};
    assert_int_equal(wf_kv_decode(other, sizeof other, hear, &heard), WEFT_OK);
    assert_int_equal(heard.events, 1);
    assert_int_equal(heard.cleared, 1);
}

/* Whose extra keys are no text: it says nothing of a block but its hash, whatever came before.
 * [0, [["BlockStored", [1], nil, [1], 1, nil, "GPU", "abc", [["abc"], X]]]] */
static void extra_keys_of_any_type(void **state)
{
    (void)state;
#define ABC 0xa3, 'a', 'b', 'c'
    static const uint8_t before[] = {0x92, 0x00, 0x91, 0x99, 0xab, 'B',  'l',  'o',
                                     'c',  'k',  'S',  't',  'o',  'r',  'e',  'd',
                                     0x91, 0x01, 0xc0, 0x91, 0x01, 0x01, 0xc0, 0xa3,
                                     'G',  'P',  'U',  ABC,  0x92, 0x91, ABC};
    static const uint8_t threes[][7] = {{0x03},       /* a number as large as it is long */
                                        {0x91, 0x03}, /* … in a list */
                                        {0x93, 0x01, 0x01, 0x01}, /* as many elements */
                                        {0x83, 1, 1, 2, 2, 3, 3}};
    static const size_t lengths[] = {1, 2, 4, 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t batch[sizeof before + 7] = {0};
        struct heard heard = {0};
        memcpy(batch, before, sizeof before);
        memcpy(batch + sizeof before, threes[i], lengths[i]);
        size_t bytes = sizeof before + lengths[i];
        assert_int_equal(wf_kv_decode(batch, bytes, hear, &heard), WEFT_OK);
        assert_true(heard.stored == 1 && heard.plain == 0);
    }
    struct heard heard = {0};
    uint8_t named[sizeof before + 5] = {0};
    static const uint8_t same[] = {0x91, ABC};
    memcpy(named, before, sizeof before);
    memcpy(named + sizeof before, same, sizeof same);
    assert_int_equal(wf_kv_decode(named, sizeof named, hear, &heard), WEFT_OK);
    assert_true(heard.stored == 1 && heard.plain == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_as_vllm),         cmocka_unit_test(reads_both_encodings),
        cmocka_unit_test(torn_is_nothing),        cmocka_unit_test(lies_are_nothing),
        cmocka_unit_test(extra_keys_of_any_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
