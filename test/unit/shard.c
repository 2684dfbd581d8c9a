/* SPDX-License-Identifier: Apache-2.0
 *
 * Who keeps which shard: evenly, from the members alone, and with little moved when they change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../support/random.h"
#include "core/places.h"
#include "core/shard.h"

#define MANY 100u

static uint64_t members[MANY + 1];

static int name_them(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "node-%u", i);
        members[i] = wf_shard_member(name);
        for (unsigned k = 0; k < i; k++)
            assert_true(members[k] != members[i]);
    }
    return 0;
}

static struct wf_shards *map_of(const uint64_t *who, uint32_t count, uint32_t owners)
{
    struct wf_shards *shards;
    assert_int_equal(wf_shards_create(owners, &shards), WEFT_OK);
    assert_int_equal(wf_shards_set(shards, who, count), WEFT_OK);
    return shards;
}

static void all_are_kept_and_evenly(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 3, 16, MANY};
    for (unsigned c = 0; c < 5; c++) {
        uint32_t kept[MANY] = {0}, each = counts[c] < 2 ? 1 : 2;
        struct wf_shards *shards = map_of(members, counts[c], 0);
        for (uint32_t s = 0; s < WF_SHARDS; s++) {
            uint64_t who[WF_SHARD_OWNERS_MAX];
            assert_int_equal(wf_shards_owners(shards, s, who), each);
            assert_true(each < 2 || who[0] != who[1]);
            for (uint32_t m = 0; m < counts[c]; m++)
                kept[m] += wf_shards_owns(shards, s, members[m]);
        }
        double mean = (double)WF_SHARDS * each / counts[c];
        for (uint32_t m = 0; m < counts[c]; m++)
            assert_true(kept[m] > 0.6 * mean && kept[m] < 1.5 * mean);
        wf_shards_destroy(shards);
    }
    struct wf_shards *nobody = map_of(members, 0, 3);
    uint64_t who[WF_SHARD_OWNERS_MAX];
    assert_int_equal(wf_shards_owners(nobody, 5, who), 0);
    assert_false(wf_shards_owns(nobody, 5, 0));
    wf_shards_destroy(nobody);
    wf_shards_destroy(NULL);
}

/* Whoever has the list, in whatever order, has the same map; and it is the same on each build. */
static void it_follows_from_the_members_alone(void **state)
{
    (void)state;
    struct random_source r = {5};
    uint64_t shuffled[MANY], a[WF_SHARD_OWNERS_MAX], b[WF_SHARD_OWNERS_MAX], sum = 0;
    memcpy(shuffled, members, sizeof shuffled);
    for (uint32_t i = MANY; i > 1; i--) {
        uint32_t other = random_below(&r, i);
        uint64_t swap = shuffled[i - 1];
        shuffled[i - 1] = shuffled[other];
        shuffled[other] = swap;
    }
    struct wf_shards *one = map_of(members, MANY, 3), *two = map_of(shuffled, MANY, 3);
    for (uint32_t s = 0; s < WF_SHARDS; s++) {
        assert_int_equal(wf_shards_owners(one, s, a), 3);
        assert_int_equal(wf_shards_owners(two, s, b), 3);
        assert_memory_equal(a, b, 3 * sizeof *a);
        sum = sum * 31 + a[0];
    }
    /* Builds of other versions must agree. */
    assert_int_equal(wf_shard_member("node-0"), 0x39d57125ce554e2bu);
    assert_int_equal(sum, 0xe50be309e7aeedceu);
    wf_shards_destroy(one);
    wf_shards_destroy(two);
}

/* One comes: it gets its part, from all, and nothing moves between the others. */
static void little_moves(void **state)
{
    (void)state;
    struct wf_shards *before = map_of(members, MANY, 2), *after = map_of(members, MANY + 1, 2);
    struct wf_shards_moved moved;
    uint32_t lost = 0, mean = 2 * WF_SHARDS / (MANY + 1);
    wf_shards_moved(before, after, members[MANY], &moved);
    assert_int_equal(moved.lost_count, 0);
    assert_in_range(moved.gained_count, mean / 2, 2 * mean);
    uint32_t gained = moved.gained_count;
    for (uint32_t m = 0; m < MANY; m++) {
        struct wf_shards_moved its;
        wf_shards_moved(before, after, members[m], &its);
        assert_int_equal(its.gained_count, 0);
        lost += its.lost_count;
        /* What it lost the new one has. */
        for (unsigned w = 0; w < WF_SHARD_WORDS; w++)
            assert_true((its.lost[w] & ~moved.gained[w]) == 0);
    }
    assert_int_equal(lost, gained);
    /* It goes: the other way round. */
    wf_shards_moved(after, before, members[MANY], &moved);
    assert_true(moved.gained_count == 0 && moved.lost_count == gained);
    wf_shards_moved(NULL, before, members[0], &moved);
    for (uint32_t s = 0; s < WF_SHARDS; s++)
        assert_int_equal(moved.gained[s / 64] >> s % 64 & 1, wf_shards_owns(before, s, members[0]));
    wf_shards_destroy(before);
    wf_shards_destroy(after);
}

static void assert_same(const struct wf_shards *a, const struct wf_shards *b, uint32_t step)
{
    for (uint32_t s = 0; s < WF_SHARDS; s++) {
        uint64_t of_a[WF_SHARD_OWNERS_MAX] = {0}, of_b[WF_SHARD_OWNERS_MAX] = {0};
        uint32_t count = wf_shards_owners(a, s, of_a);
        if (count != wf_shards_owners(b, s, of_b) || memcmp(of_a, of_b, sizeof of_a) != 0)
            fail_msg("step %u: shard %u has other owners than a map that began with these", step,
                     s);
    }
}

/* A map that has been through many lists is the one that a new one of the last list is. */
static void what_was_before_leaves_no_trace(void **state)
{
    (void)state;
    struct random_source r = {11};
    for (uint32_t owners = 1; owners <= WF_SHARD_OWNERS_MAX; owners++) {
        struct wf_shards *map = map_of(members, 0, owners);
        bool in[MANY] = {false};
        for (uint32_t step = 0; step < 60; step++) {
            uint64_t who[MANY] = {0};
            uint32_t count = 0, changes = random_below(&r, step % 10 ? 4 : MANY);
            for (uint32_t i = 0; i < changes; i++)
                in[random_below(&r, step % 7 ? MANY : 5)] ^= true;
            for (uint32_t m = 0; m < MANY; m++)
                if (in[m])
                    who[count++] = members[m];
            assert_int_equal(wf_shards_set(map, who, count), WEFT_OK);
            struct wf_shards *fresh = map_of(who, count, owners);
            assert_same(map, fresh, step);
            wf_shards_destroy(fresh);
        }
        wf_shards_destroy(map);
    }
}

static void what_can_not_be_is_said(void **state)
{
    (void)state;
    static uint64_t many[WF_SHARD_MEMBERS_MAX + 1];
    struct wf_shards *shards;
    assert_int_equal(wf_shards_create(5, &shards), WEFT_E_INVALID);
    shards = map_of(members, 3, 2);
    const uint64_t twice[] = {members[0], members[1], members[0]};
    assert_int_equal(wf_shards_set(shards, twice, 3), WEFT_E_INVALID);
    assert_int_equal(wf_shards_set(shards, many, WF_SHARD_MEMBERS_MAX + 1), WEFT_E_LIMIT);
    uint32_t kept = 0;
    for (uint32_t s = 0; s < WF_SHARDS; s++)
        kept += wf_shards_owns(shards, s, members[2]);
    assert_true(kept > 0);
    wf_shards_destroy(shards);
}

static void keys_spread_over_shards(void **state)
{
    (void)state;
    static uint32_t in[WF_SHARDS];
    uint8_t key[32];
    for (uint64_t k = 0; k < 100 * WF_SHARDS; k++) {
        random_key(k, key);
        in[wf_shard_of(key)]++;
    }
    for (uint32_t s = 0; s < WF_SHARDS; s++)
        assert_in_range(in[s], 50, 160);
}

static void the_size_decides(void **state)
{
    (void)state;
    struct wf_shard_need need = {.copies = 1000000,
                                 .changes_s = 10000,
                                 .members = 10,
                                 .owners = 2,
                                 .budget_bytes = 64 << 20};
    struct wf_shard_size size;
    char said[256];
    wf_shard_decide(&need, &size);
    assert_int_equal(size.rule, WF_SHARD_FULL);
    assert_int_equal(size.full_bytes, wf_places_bytes(1000000));
    assert_in_range(size.copies_max, 7500000, 7600000);
    assert_in_range(size.part_bytes, size.full_bytes / 5, size.full_bytes / 5 + 100);
    wf_shard_say(&need, &size, said, sizeof said);
    assert_string_equal(said, "each node knows all copies: 1000000 copies take 8.5 MiB and 0.40 "
                              "MB/s on each of 10 nodes whole, 1.7 MiB and 0.08 MB/s in parts; "
                              "whole is within 64.0 MiB");
    need.budget_bytes_s = 1e5;
    wf_shard_decide(&need, &size);
    assert_int_equal(size.rule, WF_SHARD_NETWORK);
    need.budget_bytes_s = 0;
    need.copies = 20000000;
    wf_shard_decide(&need, &size);
    assert_int_equal(size.rule, WF_SHARD_MEMORY);
    wf_shard_say(&need, &size, said, sizeof said);
    assert_non_null(strstr(said, "a part of all copies: 20000000 copies take 169.5 MiB"));
    assert_non_null(strstr(said, "whole is more than 64.0 MiB"));
    need.copies = 100000000;
    wf_shard_decide(&need, &size);
    assert_int_equal(size.rule, WF_SHARD_TOO_MUCH);
    need.members = 1; /* one node's part is all */
    wf_shard_decide(&need, &size);
    assert_int_equal(size.part_bytes, size.full_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_kept_and_evenly),
        cmocka_unit_test(it_follows_from_the_members_alone),
        cmocka_unit_test(little_moves),
        cmocka_unit_test(what_was_before_leaves_no_trace),
        cmocka_unit_test(what_can_not_be_is_said),
        cmocka_unit_test(keys_spread_over_shards),
        cmocka_unit_test(the_size_decides),
    };
    return cmocka_run_group_tests(tests, name_them, NULL);
}
