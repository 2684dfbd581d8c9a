/* SPDX-License-Identifier: Apache-2.0
 *
 * What tier.h promises, asked of every backend (tier_backends.c).
 */
#include "tier_world.h"

#include <unistd.h>

static void test_what_is_written_is_read(void **state)
{
    struct world *w = *state;
    static const struct {
        uint32_t bytes, part_bytes;
    } shapes[] = {{1, 1},           {7, 100},      {512, 1},        {4095, 4095},
                  {4096, 4096},     {4097, 4096},  {65536, 8192},   {100000, 1000},
                  {131072, 131072}, {200000, 197}, {200000, 65536}, {204800, 1u << 30}};
    uint64_t count = sizeof shapes / sizeof shapes[0];
    for (uint64_t i = 0; i < count; i++) {
        struct wf_tier_block block = block_of(i + 1, i, shapes[i].bytes, shapes[i].part_bytes);
        /* 197 × 1024 is just enough for 200000; 1024 parts are the most. */
        if ((shapes[i].bytes + shapes[i].part_bytes - 1) / shapes[i].part_bytes > WF_TIER_PARTS_MAX)
            fail_msg("shape %llu is no valid one", (unsigned long long)i);
        assert_absent(w, &block);
        assert_int_equal(write_block(w, &block), WEFT_OK);
        assert_whole(w, &block);
    }
    for (uint64_t i = 0; i < count; i++) {
        struct wf_tier_block block = block_of(i + 1, i, shapes[i].bytes, shapes[i].part_bytes);
        assert_whole(w, &block);
    }
}

static void every_range(struct world *w, const struct wf_tier_block *block, uint32_t parts)
{
    assert_int_equal(write_block(w, block), WEFT_OK);
    for (uint32_t first = 0; first < parts; first++) {
        for (uint32_t count = 1; count <= parts - first; count++) {
            struct wf_tier_request *r = read_request(w, 1, block, first, count);
            assert_int_equal(outcome(w, r), WEFT_OK);
            assert_read_right(r, block);
        }
    }
}

static void test_parts_are_read_alone(void **state)
{
    struct world *w = *state;
    struct wf_tier_block aligned = block_of(1, 0, 7 * 8192, 8192);
    every_range(w, &aligned, 7);
    struct wf_tier_block shorter = block_of(2, 1, 6 * 8192 + 100, 8192);
    every_range(w, &shorter, 7);
    struct wf_tier_block odd = block_of(3, 2, 6 * 3001 + 1, 3001);
    every_range(w, &odd, 7);
}

static void test_wrong_requests_are_refused(void **state)
{
    struct world *w = *state;
    struct wf_tier_block good = block_of(1, 0, 40960, 4096), bad = good;
    struct wf_tier_request *r;
    bad.bytes = 0;
    assert_refused(w, write_request(w, 0, &bad));
    bad = good;
    bad.part_bytes = 0;
    assert_refused(w, write_request(w, 0, &bad));
    bad.part_bytes = (1u << 30) + 1;
    assert_refused(w, write_request(w, 0, &bad));
    bad.part_bytes = 39; /* 1051 parts */
    assert_refused(w, write_request(w, 0, &bad));
    r = write_request(w, 0, &good);
    r->data = NULL;
    assert_refused(w, r);
    r = write_request(w, 0, &good);
    r->data = (uint8_t *)r->data + 512;
    assert_refused(w, r);
    r = write_request(w, 0, &good);
    r->op = (enum wf_tier_op)99;
    assert_refused(w, r);
    assert_absent(w, &good);

    assert_int_equal(write_block(w, &good), WEFT_OK);
    assert_refused(w, read_request(w, 0, &good, 10, 1));
    assert_refused(w, read_request(w, 0, &good, 0, 11));
    assert_refused(w, read_request(w, 0, &good, 9, 2));
    assert_refused(w, read_request(w, 0, &good, 1, UINT32_MAX));
    assert_refused(w, read_request(w, 0, &good, 3, 0));
    r = read_request(w, 0, &good, 0, 0);
    r->data = NULL;
    assert_refused(w, r);
    assert_whole(w, &good);
    assert_int_equal(stats_of(w).in_flight, 0);
}

static void open_refused(struct world *w, const struct wf_tier_options *options)
{
    struct wf_tier *untouched = w->tier;
    wf_fail_keep("%s", "");
    assert_int_equal(w->ops->open(options, &untouched), WEFT_E_INVALID);
    assert_ptr_equal(untouched, w->tier);
    assert_true(strlen(wf_last_error()) > 20);
}

static void test_wrong_options_are_refused(void **state)
{
    struct world *w = *state;
    struct wf_tier_options options = w->options;
    options.queue_depth = 0;
    open_refused(w, &options);
    options.queue_depth = 1025;
    open_refused(w, &options);
    options = w->options;
    options.path = NULL;
    open_refused(w, &options);
    options.path = "";
    open_refused(w, &options);
}

/* Keys are as good as random, and still a neighbour that differs in one bit is another block. */
static void test_keys_are_compared_in_full(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 1000, 500), other = block;
    assert_int_equal(write_block(w, &block), WEFT_OK);
    for (uint32_t i = 0; i < 32; i++) {
        other = block;
        other.key[i] ^= (uint8_t)(1u << random_below(&w->random, 8));
        assert_absent(w, &other);
        assert_int_equal(w->ops->remove(w->tier, other.key), WEFT_MISS);
    }
    assert_int_equal(write_block(w, &other), WEFT_OK);
    other.key[0] ^= 1;
    assert_int_equal(write_block(w, &other), WEFT_OK);
    assert_whole(w, &other);
    assert_whole(w, &block);
}

static void test_found_when_reaped_and_not_before(void **state)
{
    struct world *w = *state;
    struct wf_tier_block blocks[8], found;
    for (uint32_t i = 0; i < 8; i++) {
        blocks[i] = block_of(i + 1, i, 50000, 10000);
        assert_int_equal(w->ops->submit(w->tier, write_request(w, i, &blocks[i])), WEFT_OK);
    }
    bool reaped[8] = {false};
    for (uint32_t left = 8; left; left--) {
        usleep(2000); /* time enough to be written, and nobody has asked yet */
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(w->ops->find(w->tier, blocks[i].key, &found), reaped[i]);
        assert_int_equal(stats_of(w).blocks, 8 - left);
        struct wf_tier_request *r = reap_one(w);
        assert_int_equal(r->status, WEFT_OK);
        assert_false(reaped[r - w->requests]);
        reaped[r - w->requests] = true;
    }
    for (uint32_t i = 0; i < 8; i++)
        assert_whole(w, &blocks[i]);
}

static void test_a_key_is_written_once(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 30000, 10000), second = block;
    assert_int_equal(write_block(w, &block), WEFT_OK);
    uint64_t used = stats_of(w).used_bytes;
    second.bytes = 20000;
    second.depth = 77;
    assert_int_equal(write_block(w, &second), WEFT_EXISTS);
    assert_whole(w, &block);
    assert_int_equal(stats_of(w).used_bytes, used);

    struct wf_tier_block both = block_of(2, 0, 30000, 10000);
    uint32_t ok = 0, exists = 0, under_way = 0;
    for (uint32_t i = 0; i < 4; i++) {
        enum weft_status status = w->ops->submit(w->tier, write_request(w, i, &both));
        assert_true(status == WEFT_OK || status == WEFT_EXISTS);
        under_way += status == WEFT_OK;
        exists += status == WEFT_EXISTS;
    }
    while (under_way--) {
        struct wf_tier_request *r = reap_one(w);
        ok += r->status == WEFT_OK;
        exists += r->status == WEFT_EXISTS;
    }
    assert_int_equal(ok, 1);
    assert_int_equal(exists, 3);
    assert_int_equal(stats_of(w).blocks, 2);
    assert_whole(w, &both);
}

/* Memory: it has nothing when it is opened anew, and says so before anyone relies on it. */
static void nothing_is_found_again(struct world *w)
{
    struct wf_tier_block block = block_of(1, 0, 50000, 10000);
    uint64_t base = stats_of(w).used_bytes;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(write_block(w, &block), WEFT_OK);
        assert_refused(w, flush_request(w, 0));
        assert_whole(w, &block);
        if (round)
            world_crash(w);
        else
            world_reopen(w);
        assert_true(stats_of(w).forgets);
        assert_absent(w, &block);
        assert_int_equal(stats_of(w).blocks, 0);
        assert_int_equal(stats_of(w).used_bytes, base);
    }
}

static void test_flushed_is_found_again(void **state)
{
    struct world *w = *state;
    if (w->forgets) {
        nothing_is_found_again(w);
        return;
    }
    enum { COUNT = 60 };
    struct wf_tier_block blocks[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        blocks[i] = block_of(i + 1, i, 1 + random_below(&w->random, 60000), 4096);
        assert_int_equal(write_block(w, &blocks[i]), WEFT_OK);
    }
    assert_int_equal(flush(w), WEFT_OK);
    struct wf_tier_stats before = stats_of(w);
    for (int round = 0; round < 3; round++) {
        world_reopen(w);
        struct wf_tier_stats after = stats_of(w);
        assert_int_equal(after.blocks, COUNT);
        assert_int_equal(after.used_bytes, before.used_bytes);
        assert_int_equal(after.capacity_bytes, before.capacity_bytes);
        for (uint32_t i = 0; i < COUNT; i++)
            assert_whole(w, &blocks[i]);
        world_crash(w);
        for (uint32_t i = 0; i < COUNT; i++)
            assert_whole(w, &blocks[i]);
    }
}

/* Three kinds at a crash: flushed, found but not flushed, in flight. */
static void test_unflushed_is_whole_or_absent(void **state)
{
    struct world *w = *state;
    enum { EACH = 10, ROUNDS = 8 };
    struct wf_tier_block blocks[ROUNDS][3 * EACH], found;
    uint32_t survived[3] = {0};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < 3 * EACH; i++)
            blocks[round][i] = block_of(1 + round * 100 + i, 0, 1 + random_below(&w->random, 50000),
                                        5000);
        for (uint32_t i = 0; i < EACH; i++)
            assert_int_equal(write_block(w, &blocks[round][i]), WEFT_OK);
        assert_int_equal(flush(w), WEFT_OK);
        for (uint32_t i = EACH; i < 2 * EACH; i++)
            assert_int_equal(write_block(w, &blocks[round][i]), WEFT_OK);
        for (uint32_t i = 2 * EACH; i < 3 * EACH; i++) {
            struct wf_tier_request *r = write_request(w, i, &blocks[round][i]);
            assert_int_equal(w->ops->submit(w->tier, r), WEFT_OK);
        }
        world_crash(w);
        for (uint32_t old = 0; old <= round; old++) {
            for (uint32_t i = 0; i < 3 * EACH; i++) {
                if (w->ops->find(w->tier, blocks[old][i].key, &found)) {
                    assert_whole(w, &blocks[old][i]);
                    survived[i / EACH]++;
                } else {
                    assert_true(i >= EACH || w->forgets);
                    assert_absent(w, &blocks[old][i]);
                }
            }
        }
    }
    assert_int_equal(survived[0], w->forgets ? 0 : EACH * ROUNDS * (ROUNDS + 1) / 2);
    assert_true(!w->forgets || survived[1] + survived[2] == 0);
}

static void test_full_keeps_what_it_has(void **state)
{
    struct world *w = *state;
    enum { MOST = 4096 };
    const uint32_t bytes = 100000;
    uint32_t count = 0;
    enum weft_status status = WEFT_OK;
    while (count < MOST) {
        struct wf_tier_block block = block_of(count + 1, count, bytes, 25000);
        status = write_block(w, &block);
        if (status != WEFT_OK)
            break;
        count++;
    }
    assert_int_equal(status, WEFT_FULL);
    struct wf_tier_stats stats = stats_of(w);
    uint64_t takes = shrinks(w) ? stats.coded.all.stored_bytes : (uint64_t)count * bytes;
    assert_in_range(takes, w->options.capacity_bytes / 2, w->options.capacity_bytes);
    assert_int_equal(stats.blocks, count);
    assert_true(stats.used_bytes <= stats.capacity_bytes);
    assert_int_equal(flush(w), WEFT_OK);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < count; i++) {
            struct wf_tier_block block = block_of(i + 1, i, bytes, 25000);
            assert_whole(w, &block);
        }
        if (!w->forgets)
            world_reopen(w);
    }

    /* Room comes back, if not at once: a log has to move what lives on. */
    for (uint32_t i = 0; i < count; i += 2) {
        struct wf_tier_block block = block_of(i + 1, i, bytes, 25000);
        assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_OK);
    }
    struct wf_tier_block more = block_of(MOST + 1, 0, bytes, 25000);
    for (int tries = 0; tries < 100; tries++) {
        status = write_block(w, &more);
        if (status != WEFT_FULL)
            break;
        assert_int_equal(flush(w), WEFT_OK);
    }
    assert_int_equal(status, WEFT_OK);
    assert_whole(w, &more);
    for (uint32_t i = 1; i < count; i += 2) {
        struct wf_tier_block block = block_of(i + 1, i, bytes, 25000);
        assert_whole(w, &block);
    }
}

/* A tier says what it takes at most, takes that, and refuses what is larger before any of it is
 * read. */
static void test_the_largest_block(void **state)
{
    struct world *w = *state;
    uint64_t most = stats_of(w).block_bytes_max;
    assert_in_range(most, 64 << 10, w->options.capacity_bytes);
    struct wf_tier_block block =
        block_of(1, 0, most, (uint32_t)((most + WF_TIER_PARTS_MAX - 1) / WF_TIER_PARTS_MAX));
    uint64_t room = (most + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    uint8_t *written = aligned_alloc(WF_TIER_ALIGN, room);
    uint8_t *read = aligned_alloc(WF_TIER_ALIGN, room);
    assert_true(written && read);
    for (uint64_t i = 0; i < most; i++)
        written[i] = (uint8_t)(i * 7 + (i >> 12));
    struct wf_tier_request *r = &w->requests[0];
    *r = (struct wf_tier_request){.op = WF_TIER_WRITE, .block = block, .data = written};
    assert_int_equal(outcome(w, r), WEFT_OK);
    *r = (struct wf_tier_request){.op = WF_TIER_READ, .block = block, .data = read};
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_memory_equal(written, read, most);
    struct wf_tier_block larger = block_of(2, 0, most + (1 << 20), block.part_bytes + 1024);
    *r = (struct wf_tier_request){.op = WF_TIER_WRITE, .block = larger, .data = written};
    assert_refused(w, r);
    free(written);
    free(read);
}

static void test_removed_is_gone(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 150000, 15000), other = block_of(2, 1, 999, 999);
    assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_MISS);
    assert_int_equal(write_block(w, &other), WEFT_OK);
    struct wf_tier_stats before = stats_of(w);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(write_block(w, &block), WEFT_OK);
        assert_whole(w, &block);
        assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_OK);
        assert_absent(w, &block);
        assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_MISS);
        assert_int_equal(stats_of(w).blocks, before.blocks);
    }
    assert_whole(w, &other);
}

/* And written anew with other parts meanwhile, so that the room asked for would not do. */
static void test_remove_while_reading(void **state)
{
    struct world *w = *state;
    for (uint32_t round = 0; round < 20; round++) {
        struct wf_tier_block block = block_of(1 + round, 0, 100000, 1000);
        assert_int_equal(write_block(w, &block), WEFT_OK);
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(w->ops->submit(w->tier, read_request(w, i, &block, i, 1 + i)),
                             WEFT_OK);
        assert_int_equal(w->ops->remove(w->tier, block.key), WEFT_OK);
        if (round % 2) {
            struct wf_tier_block again = block;
            again.part_bytes = 50000;
            assert_int_equal(w->ops->submit(w->tier, write_request(w, 8, &again)), WEFT_OK);
        }
        for (uint32_t left = 8 + round % 2; left; left--) {
            struct wf_tier_request *r = reap_one(w);
            if (r->op == WF_TIER_WRITE)
                assert_int_equal(r->status, WEFT_OK);
            else if (r->status == WEFT_OK)
                assert_read_right(r, &block);
            else
                assert_int_equal(r->status, WEFT_MISS);
        }
    }
}

static void test_cancelled_is_reaped_once(void **state)
{
    struct world *w = *state;
    struct wf_tier_block there = block_of(1, 0, 100000, 10000), found;
    assert_int_equal(write_block(w, &there), WEFT_OK);
    for (uint32_t round = 0; round < 30; round++) {
        struct wf_tier_block written[16];
        bool cancelled[16] = {false}, reaped[16] = {false};
        for (uint32_t i = 0; i < 16; i++) {
            written[i] = block_of(100 + round * 16 + i, 0, 20000, 20000);
            struct wf_tier_request *r = i % 3                   ? read_request(w, i, &there, 0, 0)
                                        : i == 9 && !w->forgets ? flush_request(w, i)
                                                                : write_request(w, i, &written[i]);
            assert_int_equal(w->ops->submit(w->tier, r), WEFT_OK);
        }
        for (uint32_t i = 0; i < 8; i++) {
            uint32_t chosen = random_below(&w->random, 16);
            w->ops->cancel(w->tier, &w->requests[chosen]); /* some of them twice */
            cancelled[chosen] = true;
        }
        for (uint32_t left = 16; left; left--) {
            struct wf_tier_request *r = reap_one(w);
            uint32_t i = (uint32_t)(r - w->requests);
            assert_false(reaped[i]);
            reaped[i] = true;
            if (r->status == WEFT_E_TIMEOUT)
                assert_true(cancelled[i]);
            else
                assert_int_equal(r->status, WEFT_OK);
            if (r->op == WF_TIER_READ && r->status == WEFT_OK)
                assert_read_right(r, &there);
            if (r->op == WF_TIER_WRITE)
                assert_int_equal(w->ops->find(w->tier, written[i].key, &found),
                                 r->status == WEFT_OK);
            w->ops->remove(w->tier, written[i].key) /* room for the next round */;
        }
        struct wf_tier_request *none;
        assert_int_equal(w->ops->reap(w->tier, &none, 1, 0), 0);
        assert_int_equal(stats_of(w).in_flight, 0);
    }
    assert_whole(w, &there);
}

static void test_a_full_queue_is_pending(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 10000, 10000);
    w->options.queue_depth = 4;
    world_reopen(w);
    assert_int_equal(stats_of(w).queue_depth, 4);
    assert_int_equal(write_block(w, &block), WEFT_OK);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(stats_of(w).in_flight, i);
            assert_int_equal(w->ops->submit(w->tier, read_request(w, i, &block, 0, 0)), WEFT_OK);
        }
        struct wf_tier_request *fifth = read_request(w, 4, &block, 0, 0), *out[8];
        assert_int_equal(w->ops->submit(w->tier, fifth), WEFT_PENDING);
        usleep(1000);
        assert_int_equal(w->ops->submit(w->tier, fifth), WEFT_PENDING); /* until one is reaped */
        assert_read_right(reap_one(w), &block);
        assert_int_equal(w->ops->submit(w->tier, fifth), WEFT_OK);
        uint32_t count = 0;
        for (int tries = 0; tries < 1000 && count < 4; tries++) {
            uint32_t reaped = w->ops->reap(w->tier, out, 2, 100);
            assert_in_range(reaped, 0, 2);
            for (uint32_t i = 0; i < reaped; i++)
                assert_read_right(out[i], &block);
            count += reaped;
        }
        assert_int_equal(count, 4);
    }
}

/* Nothing in flight: it must not wait for what cannot come for longer than it was told. */
static void test_reap_of_nothing(void **state)
{
    struct world *w = *state;
    struct wf_tier_request *out;
    assert_int_equal(w->ops->reap(w->tier, &out, 1, 0), 0);
    assert_int_equal(w->ops->reap(w->tier, &out, 1, 5), 0);
    assert_int_equal(w->ops->reap(w->tier, &out, 0, 0), 0);
}

#define TREE 150

struct told {
    struct wf_tier_block blocks[TREE];
    bool there[TREE], seen[TREE];
    uint32_t parent[TREE], count;
};

static void tell(void *context, const struct wf_tier_block *block)
{
    struct told *told = context;
    uint32_t i = 0;
    while (i < TREE && memcmp(told->blocks[i].key, block->key, 32) != 0)
        i++;
    assert_true(i < TREE && told->there[i] && !told->seen[i]);
    assert_same_block(block, &told->blocks[i]);
    if (told->blocks[i].depth && told->there[told->parent[i]])
        assert_true(told->seen[told->parent[i]]);
    told->seen[i] = true;
    told->count++;
}

static void test_parents_are_told_first(void **state)
{
    struct world *w = *state;
    static struct told told;
    memset(&told, 0, sizeof told);
    uint32_t order[TREE], there = 0;
    for (uint32_t i = 0; i < TREE; i++) {
        told.parent[i] = i ? random_below(&w->random, i) : 0;
        told.blocks[i] = block_of(i + 1, i ? told.parent[i] + 1 : 0, 3000, 1000);
        told.blocks[i].depth = i ? told.blocks[told.parent[i]].depth + 1 : 0;
        uint32_t at = random_below(&w->random, i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    for (uint32_t i = 0; i < TREE; i++)
        assert_int_equal(write_block(w, &told.blocks[order[i]]), WEFT_OK);
    for (uint32_t i = 0; i < TREE; i++) {
        told.there[i] = random_below(&w->random, 5) != 0;
        there += told.there[i];
        if (!told.there[i])
            assert_int_equal(w->ops->remove(w->tier, told.blocks[i].key), WEFT_OK);
    }
    w->ops->each(w->tier, tell, &told);
    assert_int_equal(told.count, there);
    memset(told.seen, 0, sizeof told.seen);
    told.count = 0;
    w->ops->each(w->tier, tell, &told); /* what it said once it can say again */
    assert_int_equal(told.count, there);

    if (w->forgets)
        return;

    /* As whoever opens it hears them, some of those that were removed among them. */
    assert_int_equal(flush(w), WEFT_OK);
    world_reopen(w);
    struct wf_tier_block found;
    uint32_t again = 0;
    memset(told.seen, 0, sizeof told.seen);
    for (uint32_t i = 0; i < TREE; i++) {
        bool is = w->ops->find(w->tier, told.blocks[i].key, &found);
        assert_true(is || !told.there[i]);
        told.there[i] = is;
        again += is;
    }
    told.count = 0;
    w->ops->each(w->tier, tell, &told);
    assert_int_equal(told.count, again);
    memset(told.seen, 0, sizeof told.seen);
    told.count = 0;
    w->ops->each(w->tier, tell, &told);
    assert_int_equal(told.count, again);
}

static void test_stats_add_up(void **state)
{
    struct world *w = *state;
    struct wf_tier_stats stats = stats_of(w);
    assert_int_equal(stats.blocks, 0);
    assert_int_equal(stats.reads + stats.read_bytes + stats.writes + stats.write_bytes, 0);
    assert_int_equal(stats.corrupt + stats.errors, 0);
    assert_int_equal(stats.queue_depth, w->options.queue_depth);
    assert_false(stats.failed);
    assert_in_range(stats.capacity_bytes, 1, w->options.capacity_bytes);
    uint64_t payload = 0, base = stats.used_bytes;
    for (uint32_t i = 0; i < 20; i++) {
        struct wf_tier_block block = block_of(i + 1, i, 10000 + i, 5000);
        payload += block.bytes;
        assert_int_equal(write_block(w, &block), WEFT_OK);
    }
    struct wf_tier_block first = block_of(1, 0, 10000, 5000);
    assert_int_equal(outcome(w, read_request(w, 0, &first, 1, 1)), WEFT_OK);
    assert_whole(w, &first);
    assert_int_equal(flush(w), WEFT_OK);
    stats = stats_of(w);
    assert_int_equal(stats.blocks, 20);
    assert_int_equal(stats.writes, 20);
    assert_int_equal(stats.write_bytes, payload);
    if (shrinks(w)) {
        assert_int_equal(stats.coded.all.encoded_bytes + stats.coded.as_is_bytes, payload);
        assert_true(stats.coded.all.encoded >= 10); /* those of whole numbers */
        assert_true(stats.coded.all.encoded_to_bytes < stats.coded.all.encoded_bytes / 4 * 3);
        payload = stats.coded.all.encoded_to_bytes + stats.coded.as_is_bytes;
    }
    assert_true(stats.device_write_bytes >= payload);
    assert_true(stats.used_bytes >= base + payload);
    assert_true(stats.used_bytes <= stats.capacity_bytes);
    assert_int_equal(stats.reads, 2);
    assert_int_equal(stats.read_bytes, 15000);
    assert_int_equal(stats.corrupt + stats.errors, 0);
    assert_int_equal(stats.in_flight, 0);
}

/* A rotten block is never handed out, is told of once, and its parts elsewhere do not suffer. */
static void test_rot_is_found_out(void **state)
{
    struct world *w = *state;
    if (!w->backend->rot)
        skip();
    struct wf_tier_block rotten = block_of(1, 0, 100000, 10000), sound = block_of(2, 1, 50000, 9);
    sound.part_bytes = 9000;
    assert_int_equal(write_block(w, &rotten), WEFT_OK);
    assert_int_equal(write_block(w, &sound), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    w->backend->rot(w->tier, w->path, &rotten); /* in part 0 */
    struct wf_tier_request *r = read_request(w, 0, &rotten, 4, 3);
    assert_int_equal(outcome(w, r), WEFT_OK);
    assert_read_right(r, &rotten);
    assert_int_equal(outcome(w, read_request(w, 0, &rotten, 0, 0)), WEFT_E_CORRUPT);
    assert_int_equal(stats_of(w).corrupt, 1);
    assert_absent(w, &rotten);
    assert_int_equal(stats_of(w).blocks, 1);
    assert_whole(w, &sound);
    assert_int_equal(stats_of(w).corrupt, 1);
    assert_int_equal(write_block(w, &rotten), WEFT_OK); /* from elsewhere, whole */
    assert_whole(w, &rotten);
}

static const struct CMUnitTest tests[] = {
    TEST(test_what_is_written_is_read),
    TEST(test_parts_are_read_alone),
    TEST(test_wrong_requests_are_refused),
    TEST(test_wrong_options_are_refused),
    TEST(test_keys_are_compared_in_full),
    TEST(test_found_when_reaped_and_not_before),
    TEST(test_a_key_is_written_once),
    TEST(test_flushed_is_found_again),
    TEST(test_unflushed_is_whole_or_absent),
    TEST(test_full_keeps_what_it_has),
    TEST(test_the_largest_block),
    TEST(test_removed_is_gone),
    TEST(test_remove_while_reading),
    TEST(test_cancelled_is_reaped_once),
    TEST(test_a_full_queue_is_pending),
    TEST(test_reap_of_nothing),
    TEST(test_parents_are_told_first),
    TEST(test_stats_add_up),
    TEST(test_rot_is_found_out),
    TEST(test_what_it_decodes_to_is_kept),
    TEST(test_what_is_stored_can_be_moved),
    TEST(test_a_codec_is_not_tried_in_vain),
    TEST(test_random_operations),
};

#define TESTS (sizeof tests / sizeof tests[0])

/* One list, because TAP knows one plan: every test of every backend, then the faults of the
 * simulated one. */
int main(void)
{
    size_t count = backend_count * TESTS + sim_test_count;
    struct CMUnitTest *all = calloc(count, sizeof *all);
    char(*names)[100] = calloc(count, sizeof *names);
    static struct backend small;
    if (!all || !names)
        abort();
    backends_begin();
    for (size_t i = 0; i < count; i++) {
        bool common = i < backend_count * TESTS;
        const struct backend *backend = &backends[common ? i / TESTS : 0];
        all[i] = common ? tests[i % TESTS] : sim_tests[i - backend_count * TESTS];
        snprintf(names[i], sizeof names[i], "%s: %s", backend->name, all[i].name);
        all[i].name = names[i];
        all[i].initial_state = (void *)(uintptr_t)backend;
        if (getenv("WEFT_TEST_CXL") && backend->ops == &wf_tier_cxl) {
            small = *backend; /* emulated devices are slow, and so is filling one */
            small.capacity_bytes = 16 << 20;
            all[i].initial_state = &small;
        }
    }
    if (getenv("WEFT_TEST_CXL"))
        cmocka_set_test_filter("cxl: *");
    int failed = _cmocka_run_group_tests("tier", all, count, NULL, NULL);
    free(names);
    free(all);
    return failed;
}
