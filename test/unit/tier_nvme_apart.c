/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers of so many segments that what moves is kept apart, and of one less and one more: nearly
 * full, many requests in flight, the power failing at any instruction, against a model of what may
 * be found.
 */
#include "../support/nvme_world.h"
#include "../support/torn.h"

#include <stdio.h>

#include "tier/nvme_log.h"

#define SEGMENT (256u << 10)
#define KEYS 900u
#define SLOTS 12u
#define STEPS 2000u
#define BYTES_MAX 60000u
#define STALLED 100 /* reaps of 100 ms that give nothing */

struct key {
    bool found, durable, covered, may;
    uint32_t busy;
};

struct slot {
    struct wf_tier_request request;
    uint8_t *data;
    uint64_t n;
    bool used, removed;
};

static struct model {
    struct world *w;
    struct torn torn;
    struct key keys[KEYS];
    struct slot slots[SLOTS];
    uint64_t live, room; /* bytes of records; what the tier has for them */
    bool flushing, faulty;
    uint64_t writes, fulls, crashes, reads, flushes, errors;
} m;

/* Writes fail now and then, or some in a row as on a full file system. */
static int failing_before(void *context, const struct wf_nvme_call *call)
{
    static uint32_t burst;
    struct torn *torn = context;
    if (!torn->dead && call->what == WF_NVME_CALL_WRITE && call->kind) {
        uint32_t fate = random_below(&torn->random, 400);
        if (fate == 0)
            burst = random_below(&torn->random, 20);
        if (burst) {
            burst--;
            return -ENOSPC;
        }
        if (fate < 4)
            return -EIO;
    }
    return torn_before(context, call);
}

static struct wf_tier_block sized(uint64_t n)
{
    struct wf_tier_block block = block_of(n);
    block.bytes = block.bytes % BYTES_MAX + 1;
    block.part_bytes = (uint32_t)block.bytes / (uint32_t)(1 + n % 8) + 1;
    return block;
}

static uint64_t takes(uint64_t n)
{
    struct wf_tier_block block = sized(n);
    return wf_nvme_record_bytes(&block);
}

static void gone(struct key *key, uint64_t n)
{
    if (key->found)
        m.live -= takes(n);
    key->found = key->durable = key->covered = false;
}

static void ended(struct slot *s)
{
    static uint8_t right[ROOM];
    struct key *key = &m.keys[s->n];
    struct wf_tier_request *r = &s->request;
    s->used = false;
    /* A tier with too many errors, or one that it may not have, is out of use until it is opened
     * anew. */
    bool out = m.faulty && r->status == WEFT_E_SYSTEM && stats(m.w).failed;
    if (r->op == WF_TIER_FLUSH) {
        m.flushing = false;
        if (out)
            return;
        assert_int_equal(r->status, WEFT_OK);
        for (uint32_t n = 1; n < KEYS; n++)
            m.keys[n].durable |= m.keys[n].covered;
        m.flushes++;
        return;
    }
    key->busy--;
    if (r->op == WF_TIER_READ) {
        if (r->status == WEFT_OK) {
            fill(s->n, r->block.bytes, right);
            assert_memory_equal(s->data, right, r->block.bytes);
            m.reads++;
        } else if (!out) {
            assert_int_equal(r->status, WEFT_MISS);
            assert_true(s->removed);
        }
    } else if (r->status == WEFT_OK) {
        assert_false(key->found);
        key->found = key->may = true;
        m.live += takes(s->n);
        m.writes++;
    } else if (m.faulty && r->status == WEFT_E_SYSTEM) {
        key->may = true;
        m.errors++;
    } else {
        if (r->status != WEFT_FULL)
            fail_msg("write: %d %s", r->status, wf_last_error());
        key->may = true;
        m.fulls++;
        if (!m.faulty && m.live < m.room / 100 * 65)
            fail_msg("full with %llu of %llu live", (unsigned long long)m.live,
                     (unsigned long long)m.room);
    }
}

static uint32_t reap(uint32_t ms)
{
    struct wf_tier_request *done[SLOTS];
    uint32_t count = ops->reap(m.w->tier, done, SLOTS, ms);
    for (uint32_t i = 0; i < count; i++)
        ended(done[i]->user);
    return count;
}

static uint32_t busy(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SLOTS; i++)
        count += m.slots[i].used;
    return count;
}

static void drain(uint32_t most)
{
    for (int idle = 0; busy() > most; idle++) {
        if (reap(100))
            idle = 0;
        if (idle == STALLED)
            fail_msg("%u requests are not answered", busy());
    }
}

static void submit(enum wf_tier_op op, uint64_t n)
{
    struct slot *s = m.slots;
    while (s->used)
        s++;
    s->n = n;
    s->removed = false;
    s->request = (struct wf_tier_request){.op = op, .data = s->data, .user = s};
    if (op != WF_TIER_FLUSH) {
        s->request.block = sized(n);
        m.keys[n].busy++;
        if (op == WF_TIER_WRITE)
            fill(n, s->request.block.bytes, s->data);
    } else {
        m.flushing = true;
        for (uint32_t k = 1; k < KEYS; k++)
            m.keys[k].covered = m.keys[k].found;
    }
    s->used = true;
    if (ops->submit(m.w->tier, &s->request) != WEFT_OK)
        fail_msg("submit: %s", wf_last_error());
}

static void drop(uint64_t n)
{
    assert_int_equal(ops->remove(m.w->tier, sized(n).key), WEFT_OK);
    gone(&m.keys[n], n);
    for (uint32_t i = 0; i < SLOTS; i++)
        if (m.slots[i].used && m.slots[i].request.op == WF_TIER_READ && m.slots[i].n == n)
            m.slots[i].removed = true;
}

static void open_again(uint64_t capacity)
{
    open_at(m.w, m.w->path, capacity);
    struct wf_tier_stats s = stats(m.w);
    m.room = s.capacity_bytes;
    m.live = 0;
    for (uint32_t n = 1; n < KEYS; n++) {
        struct key *key = &m.keys[n];
        bool found = ops->find(m.w->tier, sized(n).key, NULL);
        if (key->durable && !found)
            fail_msg("block %u was flushed and is lost", n);
        assert_true(!found || key->may);
        key->found = found;
        key->covered = false;
        key->durable &= found;
        m.live += found ? takes(n) : 0;
        if (found)
            submit(WF_TIER_READ, n);
        drain(SLOTS - 1);
    }
    drain(0);
    assert_int_equal(stats(m.w).corrupt, 0);
}

static void power_fails(void)
{
    m.torn.dead = true;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (m.slots[i].used && m.slots[i].request.op == WF_TIER_WRITE)
            m.keys[m.slots[i].n].may = true;
        m.keys[m.slots[i].n].busy = 0;
        m.slots[i].used = false;
    }
    m.flushing = false;
    close_it(m.w);
    torn_lose(&m.torn);
    m.crashes++;
    open_again(0);
}

/* What is there goes when the tier would be fuller than so many percent. */
static void step(struct random_source *r, uint32_t percent)
{
    uint64_t n = 1 + random_below(r, KEYS - 1);
    struct key *key = &m.keys[n];
    drain(SLOTS - 1);
    if (stats(m.w).failed) {
        power_fails();
        return;
    }
    if (m.live + SLOTS * BYTES_MAX / 2 > m.room / 100 * percent) {
        while (!m.keys[n].found)
            n = n % (KEYS - 1) + 1;
        drop(n);
    } else if (random_below(r, 60) == 0 && !m.flushing) {
        submit(WF_TIER_FLUSH, 0);
    } else if (!key->found && !key->busy) {
        submit(WF_TIER_WRITE, n);
    } else if (key->found && random_below(r, 3)) {
        submit(WF_TIER_READ, n);
    } else if (key->found && random_below(r, 20) == 0) {
        drop(n);
    } else if (random_below(r, 4) == 0) {
        (void)reap(random_below(r, 3));
    }
}

static void life(struct world *w, uint32_t segments, uint32_t percent, bool faulty)
{
    uint64_t seed = random_next(&w->random);
    struct random_source r = {seed};
    memset(&m, 0, sizeof m);
    m.w = w;
    for (uint32_t i = 0; i < SLOTS; i++)
        m.slots[i].data = aligned_alloc(WF_TIER_ALIGN, 64 << 10);
    uint64_t bytes = format(w->path, segments, SEGMENT);
    torn_begin(&m.torn, w->path, seed);
    wf_nvme_hooks = &m.torn.hooks;
    if (faulty)
        m.torn.hooks.before = failing_before;
    m.faulty = faulty;
    open_again(bytes);
    for (uint32_t i = 0; i < STEPS; i++) {
        step(&r, percent);
        uint32_t fate = random_below(&r, 1500);
        if (fate == 0) {
            power_fails();
        } else if (fate == 1) {
            drain(0);
            close_it(w);
            for (uint32_t n = 1; n < KEYS; n++)
                m.keys[n].durable |= m.keys[n].found && !m.faulty;
            open_again(0);
        }
    }
    drain(0);
    power_fails();
    print_message(
        "# %u segments, %u %%%s: %llu writes, %llu read, %llu full, %llu flushes, %llu crashes\n",
        segments, percent, faulty ? ", failing" : "", (unsigned long long)m.writes,
        (unsigned long long)m.reads, (unsigned long long)m.fulls, (unsigned long long)m.flushes,
        (unsigned long long)m.crashes);
    close_it(w);
    torn_end(&m.torn);
    wf_nvme_hooks = NULL;
    for (uint32_t i = 0; i < SLOTS; i++)
        free(m.slots[i].data);
    assert_int_equal(unlink(w->path), 0);
}

/* All of them, once a value of the variable; without it those that had the most trouble. */
static void lives(void **state)
{
    struct world *w = *state;
    const char *many = getenv("WEFT_TEST_LIVES");
    uint32_t count = many ? (uint32_t)strtoul(many, NULL, 0) : 0;
    const uint32_t apart = WF_NVME_APART_LEAST;
    if (!w->path[0]) {
        print_message("# io_uring is missing\n");
        skip();
    }
    if (!count) {
        life(w, apart - 1, 106, false);
        life(w, apart, 106, false);
        life(w, apart + 1, 94, false);
        life(w, apart, 82, true);
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t segments = apart - 1; segments <= apart + 1; segments++)
            for (uint32_t percent = 70; percent <= 106; percent += 12)
                life(w, segments, percent, i % 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lives, setup, teardown),
    };
    return cmocka_run_group_tests_name("tier_nvme_apart", tests, NULL, NULL);
}
