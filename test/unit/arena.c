/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: random alloc, free, back and trim against a map of granules.
 *
 * The model knows of each granule whose it is and whether it is backed.  From that follows what the
 * arena must answer: what it hands out is backed and nobody's, what it punches is backed and
 * nobody's, and when it says no, there is no piece of the size asked for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "shm/arena.h"

#define GRANULES 1000
#define SLOTS 600
#define NOBODY UINT32_MAX

struct ground {
    struct wf_arena arena;
    struct wf_slot *slots;
    uint32_t owner[GRANULES]; /* slot, or NOBODY */
    bool backed[GRANULES];
    uint32_t held[SLOTS], held_count;
};

static void ground_open(struct ground *g, uint64_t granules, uint32_t slots)
{
    memset(g, 0, sizeof *g);
    g->slots = calloc(slots, sizeof *g->slots);
    assert_non_null(g->slots);
    memset(g->owner, 0xff, sizeof g->owner);
    assert_int_equal(wf_arena_init(&g->arena, g->slots, slots, granules), WEFT_OK);
}

static void ground_close(struct ground *g)
{
    wf_arena_fini(&g->arena);
    free(g->slots);
}

/* The longest run of granules that are free and of this kind. */
static uint32_t longest(const struct ground *g, bool backed)
{
    uint32_t run = 0, best = 0;
    for (uint32_t i = 0; i < GRANULES; i++) {
        run = g->owner[i] == NOBODY && g->backed[i] == backed ? run + 1 : 0;
        best = run > best ? run : best;
    }
    return best;
}

static bool is_free(void *context, uint32_t slot)
{
    const struct ground *g = context;
    return g->owner[g->slots[slot].first] != slot;
}

static void alloc_one(struct ground *g, struct random_source *r)
{
    uint32_t granules = 1 + random_below(r, random_below(r, 4) ? 12 : 150);
    uint32_t slot = wf_arena_alloc(&g->arena, granules);
    if (slot == WF_SLOT_NONE) {
        /* The search looks through one size class for a little while; above it, it is exact. */
        assert_true(longest(g, true) < granules + granules / 8 + 1);
        return;
    }
    assert_int_equal(g->slots[slot].count, granules);
    for (uint32_t i = 0; i < granules; i++) {
        uint32_t at = g->slots[slot].first + i;
        assert_int_equal(g->owner[at], NOBODY);
        assert_true(g->backed[at]);
        g->owner[at] = slot;
    }
    g->held[g->held_count++] = slot;
}

static void free_one(struct ground *g, struct random_source *r)
{
    if (g->held_count == 0)
        return;
    uint32_t at = random_below(r, g->held_count), slot = g->held[at];
    const struct wf_slot *s = &g->slots[slot];
    for (uint32_t i = 0; i < s->count; i++)
        g->owner[s->first + i] = NOBODY;
    g->held[at] = g->held[--g->held_count];
    wf_arena_free(&g->arena, slot);
}

/* Where the arena says that memory became backed is where the model finds it by the lists. */
static void back_some(struct ground *g, struct random_source *r)
{
    uint32_t least = 1 + random_below(r, 40), wanted = least + random_below(r, 200);
    uint64_t before = g->arena.backed.granules;
    uint32_t first = 0, got = wf_arena_back(&g->arena, least, wanted, &first);
    if (got == 0) {
        assert_true(longest(g, false) < least + least / 8 + 1);
        return;
    }
    assert_in_range(got, least, wanted);
    assert_int_equal(g->arena.backed.granules, before + got);
    uint32_t became = 0;
    for (uint32_t slot = g->arena.first; slot != WF_SLOT_NONE; slot = g->slots[slot].address_next) {
        const struct wf_slot *s = &g->slots[slot];
        if (!is_free(g, slot) || !(g->arena.kind[slot / 8] >> (slot % 8) & 1))
            continue;
        for (uint32_t i = s->first; i < s->first + s->count; i++) {
            assert_int_equal(g->owner[i], NOBODY);
            if (!g->backed[i])
                assert_in_range(i, first, first + got - 1);
            became += !g->backed[i];
            g->backed[i] = true;
        }
    }
    assert_int_equal(became, got);
}

static void punched(void *context, uint64_t first, uint64_t count)
{
    struct ground *g = context;
    for (uint64_t i = first; i < first + count; i++) {
        assert_int_equal(g->owner[i], NOBODY);
        assert_true(g->backed[i]);
        g->backed[i] = false;
    }
}

static void trim_some(struct ground *g, struct random_source *r)
{
    uint64_t granules = 1 + random_below(r, 200), there = g->arena.backed.granules;
    uint64_t done = wf_arena_trim(&g->arena, granules, punched, g);
    assert_int_equal(done, granules < there ? granules : there);
    assert_int_equal(g->arena.backed.granules, there - done);
}

static void test_random(void **state)
{
    (void)state;
    struct ground *g = calloc(1, sizeof *g);
    struct random_source r = random_seeded("arena");
    assert_non_null(g);
    ground_open(g, GRANULES, SLOTS);
    for (uint32_t i = 0; i < 60000; i++) {
        /* Phases that fill up and phases that empty, so that both ends are met. */
        uint32_t grow = i / 2000 % 2 ? 35 : 55, what = random_below(&r, 100);
        if (what < grow && g->held_count < SLOTS)
            alloc_one(g, &r);
        else if (what < 85)
            free_one(g, &r);
        else if (what < 94)
            back_some(g, &r);
        else
            trim_some(g, &r);
        if (i % 16 == 0)
            wf_arena_verify(&g->arena, is_free, g);
    }
    while (g->held_count)
        free_one(g, &r);
    wf_arena_trim(&g->arena, GRANULES, punched, g);
    wf_arena_verify(&g->arena, is_free, g);
    assert_int_equal(g->arena.unbacked.granules, GRANULES);
    assert_int_equal(g->slots[g->arena.first].count, GRANULES); /* one piece again */
    ground_close(g);
    free(g);
}

/* Few slots: ranges come whole or not at all, and no granule is lost or given twice. */
static void test_few_slots(void **state)
{
    (void)state;
    struct ground *g = calloc(1, sizeof *g);
    struct random_source r = random_seeded("arena, few slots");
    assert_non_null(g);
    ground_open(g, GRANULES, 24);
    uint32_t first = 1;
    assert_int_equal(wf_arena_back(&g->arena, GRANULES, GRANULES, &first), GRANULES);
    assert_int_equal(first, 0);
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t granules = 1 + random_below(&r, 30), slot = WF_SLOT_NONE;
        if (random_below(&r, 100) < 55 && g->held_count < 24)
            slot = wf_arena_alloc(&g->arena, granules);
        if (slot != WF_SLOT_NONE) {
            assert_in_range(g->slots[slot].count, granules, 2 * granules + 1);
            g->held[g->held_count++] = slot;
        } else if (g->held_count) {
            uint32_t at = random_below(&r, g->held_count);
            wf_arena_free(&g->arena, g->held[at]);
            g->held[at] = g->held[--g->held_count];
        }
        wf_arena_verify(&g->arena, NULL, NULL);
    }
    ground_close(g);
    free(g);
}

static void test_sizes_that_no_pool_has(void **state)
{
    (void)state;
    struct wf_arena arena;
    struct wf_slot slots[4] = {{.count = 0}};
    assert_int_equal(wf_arena_init(&arena, slots, 4, 0), WEFT_E_INVALID);
    assert_int_equal(wf_arena_init(&arena, slots, 4, UINT32_MAX), WEFT_E_INVALID);
    assert_int_equal(wf_arena_init(&arena, slots, 4, UINT32_MAX - 1), WEFT_OK);
    assert_int_equal(wf_arena_alloc(&arena, 1), WF_SLOT_NONE); /* nothing is backed yet */
    uint32_t first;
    assert_int_equal(wf_arena_back(&arena, UINT32_MAX - 1, UINT32_MAX - 1, &first), UINT32_MAX - 1);
    assert_int_equal(wf_arena_largest(&arena), UINT32_MAX - 1);
    uint32_t slot = wf_arena_alloc(&arena, UINT32_MAX - 1);
    assert_int_not_equal(slot, WF_SLOT_NONE);
    assert_int_equal(wf_arena_largest(&arena), 0);
    assert_int_equal(wf_arena_alloc(&arena, 1), WF_SLOT_NONE);
    wf_arena_free(&arena, slot);
    wf_arena_verify(&arena, NULL, NULL);
    wf_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_few_slots),
        cmocka_unit_test(test_sizes_that_no_pool_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
