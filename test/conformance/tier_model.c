/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations on a tier, many in flight at once, against a model of what may be found; with
 * crashes in between, and for the simulated tier with every fault that a medium can have.
 */
#include "tier_world.h"

#include "tier/sim.h"

#define KEYS 64
#define STEPS 10000

struct key {
    struct wf_tier_block block;
    bool found;             /* it is, and must be */
    bool durable;           /* and must be after a crash */
    bool covered;           /* by the flush under way */
    bool may;               /* be found after a crash: it was written once */
    uint32_t reads, writes; /* under way */
    uint32_t removals;
};

/* What was asked in a slot. */
struct asked {
    bool used, cancelled, found;
    uint32_t key, removals;
};

struct model {
    struct world *w;
    struct key keys[KEYS];
    struct asked asked[16];
    bool flushing, faulty;
    uint64_t counts[8]; /* by what came of it */
};

enum { OK, MISSED, TIMED_OUT, CORRUPTED, ERRED, EXISTED, SUBMITTED, CRASHED };

static void judge_read(struct model *m, const struct wf_tier_request *r, const struct asked *a)
{
    struct key *k = &m->keys[a->key];
    bool removed = k->removals != a->removals;
    if (r->status == WEFT_OK) {
        assert_true(a->found);
        assert_read_right(r, &k->block);
        m->counts[OK]++;
    } else if (r->status == WEFT_E_CORRUPT) {
        assert_true(m->faulty && a->found);
        m->counts[CORRUPTED]++;
        /* Gone, unless it was gone already and this was said of the one before. */
        struct wf_tier_block found;
        assert_false(m->w->ops->find(m->w->tier, k->block.key, &found));
        k->found = k->durable = k->covered = false;
        k->removals++;
    } else {
        assert_int_equal(r->status, WEFT_MISS);
        assert_true(!a->found || removed);
        m->counts[MISSED]++;
    }
}

static void judge(struct model *m, const struct wf_tier_request *r)
{
    struct asked *a = &m->asked[r - m->w->requests];
    struct key *k = &m->keys[a->key];
    assert_true(a->used);
    a->used = false;
    k->reads -= r->op == WF_TIER_READ;
    k->writes -= r->op == WF_TIER_WRITE;
    m->flushing = m->flushing && r->op != WF_TIER_FLUSH;
    if (r->status == WEFT_E_TIMEOUT) {
        assert_true(a->cancelled);
        m->counts[TIMED_OUT]++;
    } else if (r->status == WEFT_E_SYSTEM) {
        assert_true(m->faulty);
        m->counts[ERRED]++;
    } else if (r->op == WF_TIER_READ) {
        judge_read(m, r, a);
    } else if (r->op == WF_TIER_FLUSH) {
        assert_int_equal(r->status, WEFT_OK);
        for (uint32_t i = 0; i < KEYS; i++)
            m->keys[i].durable |= m->keys[i].covered;
    } else if (r->status == WEFT_EXISTS) {
        assert_true(a->found);
        m->counts[EXISTED]++;
    } else if (r->status == WEFT_FULL) {
        assert_true(m->faulty);
    } else {
        assert_int_equal(r->status, WEFT_OK);
        /* A rotten block that a read took away may have made room for it meanwhile. */
        assert_true(!a->found || k->removals != a->removals);
        k->found = true;
        m->counts[OK]++;
    }
}

static void reap_some(struct model *m, uint32_t timeout_ms)
{
    struct wf_tier_request *out[5];
    uint32_t count = m->w->ops->reap(m->w->tier, out, 5, timeout_ms);
    assert_in_range(count, 0, 5);
    for (uint32_t i = 0; i < count; i++)
        judge(m, out[i]);
}

static void submit_one(struct model *m, uint32_t slot)
{
    struct world *w = m->w;
    struct asked *a = &m->asked[slot];
    uint32_t at = random_below(&w->random, KEYS), kind = random_below(&w->random, 20);
    struct key *k = &m->keys[at];
    struct wf_tier_request *r;
    *a = (struct asked){.key = at, .found = k->found, .removals = k->removals};
    if (kind == 0 && !m->flushing && !w->forgets) {
        r = flush_request(w, slot);
        for (uint32_t i = 0; i < KEYS; i++)
            m->keys[i].covered = m->keys[i].found;
    } else if (k->writes) {
        return; /* what a read beside it gives, either way, is another test's matter */
    } else if (kind < 8 && !k->reads) {
        r = write_request(w, slot, &k->block);
    } else {
        uint32_t parts = (uint32_t)((k->block.bytes - 1) / k->block.part_bytes + 1);
        uint32_t first = random_below(&w->random, parts);
        uint32_t count = 1 + random_below(&w->random, parts - first);
        bool whole = random_below(&w->random, 3) == 0;
        r = read_request(w, slot, &k->block, whole ? 0 : first, whole ? 0 : count);
    }
    enum weft_status status = w->ops->submit(w->tier, r);
    a->used = true;
    k->reads += r->op == WF_TIER_READ;
    k->writes += r->op == WF_TIER_WRITE;
    k->may |= r->op == WF_TIER_WRITE;
    m->flushing |= r->op == WF_TIER_FLUSH;
    m->counts[SUBMITTED]++;
    if (status != WEFT_OK) { /* a result at once */
        r->status = status;
        judge(m, r);
    }
}

static void remove_one(struct model *m)
{
    struct key *k = &m->keys[random_below(&m->w->random, KEYS)];
    if (k->writes)
        return;
    assert_int_equal(m->w->ops->remove(m->w->tier, k->block.key), k->found ? WEFT_OK : WEFT_MISS);
    k->found = k->durable = k->covered = false;
    k->removals++;
}

static void look_around(struct model *m)
{
    struct wf_tier_block found;
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        struct key *k = &m->keys[i];
        assert_int_equal(m->w->ops->find(m->w->tier, k->block.key, &found), k->found);
        if (k->found)
            assert_found(&found, &k->block);
        blocks += k->found;
    }
    assert_int_equal(stats_of(m->w).blocks, blocks);
}

static void crash(struct model *m)
{
    struct wf_tier_block found;
    if (random_below(&m->w->random, 2))
        world_crash(m->w);
    else
        world_reopen(m->w);
    m->flushing = false;
    memset(m->asked, 0, sizeof m->asked);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct key *k = &m->keys[i];
        k->found = m->w->ops->find(m->w->tier, k->block.key, &found);
        assert_true(k->found || !k->durable);
        assert_true(k->may || !k->found);
        k->may = k->found;
        k->covered = false;
        k->reads = k->writes = 0;
        k->removals++;
    }
    m->counts[CRASHED]++;
    look_around(m);
}

static void run(struct model *m)
{
    struct world *w = m->w;
    uint32_t steps = w->backend->steps ? w->backend->steps : STEPS;
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t bytes = 1 + random_below(&w->random, 1u << random_below(&w->random, 17));
        uint32_t part_bytes = 1 + bytes / (1 + random_below(&w->random, 40));
        m->keys[i].block = block_of(i + 1, i / 2, bytes, part_bytes);
    }
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t slot = random_below(&w->random, 16), what = random_below(&w->random, 200);
        if (what == 0) {
            crash(m);
        } else if (what < 20) {
            remove_one(m);
        } else if (what < 30) {
            look_around(m);
        } else if (what < 40 && m->asked[slot].used) {
            m->asked[slot].cancelled = true;
            w->ops->cancel(w->tier, &w->requests[slot]);
        } else if (what < 90 || m->asked[slot].used) {
            reap_some(m, what < 60 ? 5 : 0);
        } else {
            submit_one(m, slot);
        }
    }
    for (int tries = 0; tries < 1000 && stats_of(w).in_flight; tries++)
        reap_some(m, 1000);
    look_around(m);
    for (uint32_t i = 0; i < 16; i++)
        assert_false(m->asked[i].used);
    assert_true(m->counts[OK] > steps / (w->backend->steps ? 50 : 20));
    assert_true(m->counts[MISSED] && m->counts[EXISTED] && m->counts[CRASHED]);
}

void test_random_operations(void **state)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->w = *state;
    run(m);
    assert_int_equal(stats_of(m->w).corrupt + stats_of(m->w).errors, 0);
    free(m);
}

void test_random_operations_with_faults(void **state)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->w = *state;
    m->faulty = true;
    wf_tier_sim_faults(m->w->tier, &(struct wf_tier_sim_faults){
                                       .latency_us_max = 200,
                                       .bytes_per_us = 2000,
                                       .slow = 0.01,
                                       .slow_us = 20000,
                                       .read_error = 0.02,
                                       .write_error = 0.02,
                                       .flush_error = 0.2,
                                       .rot = 0.08,
                                       .full = 0.02,
                                       .lost = 0.4,
                                       .torn = 0.4,
                                   });
    run(m);
    assert_true(m->counts[CORRUPTED] && m->counts[ERRED]);
    free(m);
}
