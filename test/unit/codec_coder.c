/* SPDX-License-Identifier: Apache-2.0
 *
 * The transform codec's coder: tables that are the same on every machine, and kernels of all
 * widths, which write the same words and read them back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../support/random.h"
#include "base/sum.h"
#include "codec/coder.h"
#include "codec/laplace.h"
#include "codec/transform_lanes.h"

static void tables_are_whole_and_the_same_everywhere(void **state)
{
    (void)state;
    struct wf_laplace *tables = calloc(1, sizeof *tables);
    wf_laplace_init(tables);
    uint64_t sum = 0;
    for (unsigned class = 0; class < WF_LAPLACE_CLASSES; class ++) {
        const struct wf_laplace_table *t = &tables->table[class];
        uint32_t at = 0;
        assert_true(t->last >= 2 && t->last < WF_LAPLACE_SYMBOLS);
        for (unsigned s = 0; s <= t->last; s++) {
            assert_int_equal(t->start[s], at);
            assert_int_equal(t->symbol[at], s);
            at += t->frequency[s];
            assert_int_equal(t->symbol[at - 1], s);
            assert_true(
                t->frequency[s] > 0 &&
                t->reciprocal[s] ==
                    (t->frequency[s] > 1 ? (UINT64_C(1) << 32) / t->frequency[s] : UINT32_MAX));
        }
        assert_int_equal(at, WF_LAPLACE_TOTAL);
        for (unsigned s = t->last + 1; s < WF_LAPLACE_SYMBOLS; s++)
            assert_int_equal(t->start[s], WF_LAPLACE_TOTAL);
        sum = wf_sum64_seeded(t->start, sizeof t->start, sum);
        assert_true(tables->toward_zero[class] >= 0 && tables->toward_zero[class] < 0.5f);
    }
    /* What was encoded on one machine is decoded on another. */
    if (sum != UINT64_C(0x70209907dbbc4add))
        fail_msg("the tables are others: %016llx", (unsigned long long)sum);
    free(tables);
}

static void classes_follow_the_width(void **state)
{
    (void)state;
    uint8_t class, shift, before = 0;
    wf_laplace_class(0, &class, &shift);
    assert_true(class == 0 && shift == 0);
    float rho = 0.01f;
    while (rho < 3.9f) {
        wf_laplace_class(rho, &class, &shift);
        assert_true(class >= before && class < WF_LAPLACE_CLASSES && shift == 0);
        before = class;
        rho *= 1.1f;
    }
    wf_laplace_class(4, &class, &shift);
    assert_true(class == WF_LAPLACE_CLASSES - 4 && shift == 1);
    wf_laplace_class(1e30f, &class, &shift);
    assert_true(class == WF_LAPLACE_CLASSES - 1 && shift == WF_LAPLACE_SHIFT_MAX);
}

static void quotients_are_exact(void **state)
{
    (void)state;
    struct wf_laplace *tables = calloc(1, sizeof *tables);
    wf_laplace_init(tables);
    struct random_source random = {11};
    for (unsigned class = 0; class < WF_LAPLACE_CLASSES; class ++) {
        const struct wf_laplace_table *t = &tables->table[class];
        for (unsigned s = 0; s <= t->last; s++) {
            uint32_t f = t->frequency[s], end = f << 20;
            for (int i = 0; i < 3000; i++) {
                uint32_t x = random_below(&random, end);
                x = i < 100 ? (uint32_t)i * f : i < 200 ? end - 1 - (uint32_t)(i - 100) * f : x;
                if (x >= WF_CODER_LOW && x < end)
                    assert_int_equal(wf_coder_push(x, t, s),
                                     (x / f << WF_LAPLACE_BITS) + x % f + t->start[s]);
            }
        }
    }
    free(tables);
}

#define STEPS 700u

struct coded {
    uint8_t classes[STEPS], symbols[STEPS * WF_CODER_LANES], words[STEPS * WF_CODER_LANES * 2];
    uint32_t state[WF_CODER_STATES_MAX];
};

/* As likely as the coder thinks, or not at all. */
static void draw_symbols(struct random_source *r, struct coded *c, const struct wf_laplace *tables,
                         unsigned lanes)
{
    for (unsigned i = 0; i < STEPS; i++) {
        c->classes[i] = (uint8_t)random_below(r, WF_LAPLACE_CLASSES);
        const struct wf_laplace_table *t = &tables->table[c->classes[i]];
        for (unsigned l = 0; l < WF_CODER_LANES; l++) {
            uint32_t slot = random_below(r, WF_LAPLACE_TOTAL);
            uint32_t symbol = i % 3 ? t->symbol[slot] : random_below(r, t->last + 1);
            c->symbols[i * WF_CODER_LANES + l] = (uint8_t)(l < lanes ? symbol : 0);
        }
    }
}

static void begin(uint32_t *state)
{
    static const uint8_t bits[3] = {0xfe, 0xdc, 0xba};
    wf_coder_begin(WF_CODER_STATES_MAX, state, bits, sizeof bits);
    assert_int_equal(state[0], 0x1fedc);
    assert_int_equal(state[1], 0x1ba00);
    assert_int_equal(state[2], WF_CODER_LOW);
}

static void what_is_coded_comes_back(void **state)
{
    (void)state;
    struct wf_laplace *tables = calloc(1, sizeof *tables);
    struct coded *c = calloc(1, sizeof *c);
    static uint8_t back[STEPS * WF_CODER_LANES], first[sizeof c->words];
    wf_laplace_init(tables);
    for (unsigned states = 4; states <= WF_CODER_STATES_MAX; states += 12) {
        for (unsigned lanes = 1; lanes <= WF_CODER_LANES; lanes++) {
            uint32_t one[WF_CODER_STATES_MAX], bytes = 0;
            struct random_source random = {lanes + states};
            draw_symbols(&random, c, tables, lanes);
            for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
                if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
                    continue;
                const struct wf_lanes_kernels *k = wf_lanes_kernels_of((enum wf_codec_isa)isa);
                begin(c->state);
                uint8_t *end = c->words + sizeof c->words;
                uint8_t *word = k->encode(tables, c->classes, STEPS, lanes, c->symbols, states,
                                          c->state, end, c->words);
                assert_non_null(word);
                if (isa == 0) {
                    bytes = (uint32_t)(end - word);
                    memcpy(first, word, bytes);
                    memcpy(one, c->state, sizeof one);
                }
                assert_int_equal(end - word, bytes);
                assert_memory_equal(word, first, bytes);
                assert_memory_equal(one, c->state, sizeof one);
                uint32_t kept[WF_CODER_STATES_MAX];
                begin(kept);
                assert_null(k->encode(tables, c->classes, STEPS, lanes, c->symbols, states, kept,
                                      end, word + 1));
                memset(back, 0xff, sizeof back);
                memcpy(kept, one, sizeof kept);
                assert_ptr_equal(k->decode(tables, c->classes, STEPS, lanes, back, states, kept,
                                           word, end),
                                 end);
                assert_memory_equal(back, c->symbols, sizeof back);
                begin(c->state);
                assert_memory_equal(kept, c->state, states * sizeof *kept);
                memcpy(kept, one, sizeof kept);
                assert_null(
                    k->decode(tables, c->classes, STEPS, lanes, back, states, kept, word, end - 1));
            }
        }
    }
    free(tables);
    free(c);
}

static void states_are_sent_as_long_as_they_are(void **state)
{
    (void)state;
    uint32_t in[WF_CODER_STATES_MAX], out[WF_CODER_STATES_MAX];
    uint8_t bytes[WF_CODER_STATES_MAX * 5 + WF_BITS_SLACK] = {0}, payload[WF_CODER_PAYLOAD_MAX];
    struct random_source random = {5};
    for (int round = 0; round < 100; round++) {
        struct wf_bit_writer w = {.at = bytes, .end = bytes + sizeof bytes - WF_BITS_SLACK};
        for (unsigned i = 0; i < WF_CODER_STATES_MAX; i++)
            in[i] = WF_CODER_LOW << i | ((uint32_t)random_next(&random) | 3) >> (16 - i);
        for (unsigned i = 0; i < WF_CODER_STATES_MAX; i++)
            in[i] &= 2 * (WF_CODER_LOW << i) - 1;
        wf_coder_put_states(&w, WF_CODER_STATES_MAX, in);
        wf_bits_flush(&w);
        assert_false(w.full);
        assert_int_equal(w.at - bytes, WF_CODER_STATES_MAX * (4 + 16 + 7.5) / 8);
        struct wf_bit_reader r = {.bytes = bytes, .end = 8 * (size_t)(w.at - bytes)};
        wf_coder_take_states(&r, WF_CODER_STATES_MAX, out);
        assert_memory_equal(in, out, sizeof in);
        assert_false(r.broken);
        assert_false(wf_coder_ended(WF_CODER_STATES_MAX, in, payload));
        wf_bits_take(&r, 8);
        assert_true(r.broken);
        w = (struct wf_bit_writer){.at = bytes, .end = bytes + 20};
        wf_coder_put_states(&w, WF_CODER_STATES_MAX, in);
        assert_true(w.full);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_are_whole_and_the_same_everywhere),
        cmocka_unit_test(classes_follow_the_width),
        cmocka_unit_test(what_is_coded_comes_back),
        cmocka_unit_test(quotients_are_exact),
        cmocka_unit_test(states_are_sent_as_long_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
