/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations on a directory, against a model that obeys the same rules with an array and
 * loops.
 *
 * The keys form a forest, fixed beforehand.  The model plays DRAM as well, as the store keeps it: a
 * block there has its parent there.  What the callbacks say is followed as they come, and what they
 * may never say is checked then; what they must have said, after each operation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/directory.h"

#define KEYS 60
#define BLOCKS_MAX 50 /* fewer than keys, so that it fills */
#define TIERS 3
#define DOMAINS 3
#define GHOSTS 16
#define NOBODY (-1)
#define ALL WF_DIRECTORY_DOMAINS_ALL

struct item {
    bool there, in_dram, promoted;
    bool linked; /* to its parent; a bridge's is not known */
    uint8_t tiers;
    uint32_t entry, holds, archives_here; /* archives whose tip it is */
    uint64_t used;
};

/* Gone while it was held. */
struct ghost {
    uint32_t entry, holds;
    int key;
};

struct model {
    struct wf_directory *directory;
    struct random_source random;
    int parent[KEYS];
    uint32_t depth[KEYS], bytes[KEYS];
    uint16_t domain[KEYS];
    bool dram[KEYS]; /* is it in DRAM, entry or not? */
    struct item items[KEYS];
    struct ghost ghosts[GHOSTS];
    uint64_t clock;
    int displayed[KEYS];                                /* what shown() said last, */
    enum weft_quality displayed_quality[KEYS];          /* and of which quality */
    enum weft_quality quality[KEYS][TIERS];             /* of the copy there */
    uint8_t dropped_said[KEYS], dropped_expected[KEYS]; /* by this operation: bits of tiers */
    uint64_t operations, victims, spares, refusals,
        falls; /* falls: entries that went with others */
};

static void key_of(int k, uint8_t key[32])
{
    random_key((uint64_t)k + 1, key);
}

static int number_of(const uint8_t key[32])
{
    uint8_t other[32];
    for (int k = 0; k < KEYS; k++) {
        key_of(k, other);
        if (!memcmp(key, other, 32))
            return k;
    }
    fail_msg("a key that nobody gave");
    return NOBODY;
}

static bool extends(const struct model *m, int child, int k)
{
    const struct item *c = &m->items[child];
    return c->there && c->linked && m->parent[child] == k;
}

static int nearest(uint8_t tiers)
{
    for (int t = 0; t < TIERS; t++)
        if (tiers >> t & 1)
            return t;
    return -1;
}

/* ------------------------------------------------------------------------------- callbacks */

static void shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality)
{
    struct model *m = context;
    int k = number_of(key), parent = m->parent[k];
    assert_int_equal(domain, m->domain[k]);
    assert_true(tier != m->displayed[k] || quality != m->displayed_quality[k]);
    if (tier >= 0 && parent != NOBODY) /* parents come before their children */
        assert_true(m->displayed[parent] >= 0 || m->dram[parent]);
    for (int c = 0; tier < 0 && !m->dram[k] && c < KEYS; c++) /* and go after them */
        assert_false(m->parent[c] == k && m->displayed[c] >= 0);
    m->displayed[k] = tier;
    m->displayed_quality[k] = quality;
}

static void dropped(void *context, const struct wf_directory_dropped *block)
{
    struct model *m = context;
    int k = number_of(block->key);
    assert_int_equal(block->domain, m->domain[k]);
    assert_int_equal(block->bytes, m->bytes[k]);
    assert_int_equal(m->displayed[k], -1);
    assert_int_equal(block->parent ? number_of(block->parent) : NOBODY, m->parent[k]);
    assert_false(m->dropped_said[k] >> block->tier & 1);
    m->dropped_said[k] |= (uint8_t)(1u << block->tier);
}

/* ----------------------------------------------------------------------------- the model */

static bool has_children(const struct model *m, int k)
{
    for (int c = 0; c < KEYS; c++)
        if (extends(m, c, k))
            return true;
    return false;
}

static uint32_t archives_of(const struct model *m, int k)
{
    uint32_t archives = m->items[k].archives_here;
    for (int c = 0; c < KEYS; c++)
        if (extends(m, c, k))
            archives += archives_of(m, c);
    return archives;
}

static void goes(struct model *m, int k)
{
    struct item *item = &m->items[k];
    m->dropped_expected[k] |= item->tiers;
    for (int g = 0; item->holds && g < GHOSTS; g++)
        if (!m->ghosts[g].holds) {
            m->ghosts[g] = (struct ghost){item->entry, item->holds, k};
            item->holds = 0;
        }
    assert_int_equal(item->holds, 0);
    *item = (struct item){0};
}

/* Whatever breaks the rules goes, until nothing does. */
static void settle(struct model *m)
{
    for (bool again = true; again;) {
        again = false;
        for (int k = 0; k < KEYS; k++) {
            const struct item *item = &m->items[k];
            if (!item->there)
                continue;
            bool orphan = item->linked && !m->items[m->parent[k]].there;
            bool nowhere = !item->tiers && (!item->in_dram || !has_children(m, k));
            if (!orphan && !nowhere)
                continue;
            m->falls += orphan;
            goes(m, k);
            again = true;
        }
    }
}

static bool may_leave(const struct model *m, int k)
{
    const struct item *item = &m->items[k];
    bool elsewhere = item->in_dram || (item->tiers & (item->tiers - 1)) != 0;
    return item->holds == 0 && archives_of(m, k) == 0 && (elsewhere || !has_children(m, k));
}

/* 0: promoted, 1: the others whose nearest tier this is, 2: second copies, 3: no victim. */
static int class_of(const struct model *m, int k, unsigned tier, uint16_t domain)
{
    const struct item *item = &m->items[k];
    if (!item->there || !(item->tiers >> tier & 1) || !may_leave(m, k) ||
        (domain != ALL && domain != m->domain[k]))
        return 3;
    if (nearest(item->tiers) != (int)tier)
        return 2;
    return item->in_dram && item->promoted ? 0 : 1;
}

static int pick_there(struct model *m)
{
    int from = (int)random_below(&m->random, KEYS);
    for (int i = 0; i < KEYS; i++)
        if (m->items[(from + i) % KEYS].there)
            return (from + i) % KEYS;
    return NOBODY;
}

/* ---------------------------------------------------------------------------- operations */

/* One in twenty lies about something that is known. */
static bool lie(struct model *m, struct wf_directory_add *add, int k)
{
    int p = m->parent[k];
    bool known = m->items[k].there, parent_known = p != NOBODY && m->items[p].there;
    if (random_below(&m->random, 20) || (!known && !parent_known))
        return false;
    switch (random_below(&m->random, 3)) {
    case 0: add->domain++; break;
    case 1: add->depth++; break;
    default:
        if (!known)
            return false;
        add->bytes++;
    }
    return true;
}

static void op_add(struct model *m, int k)
{
    int p = m->parent[k];
    struct item *item = &m->items[k];
    struct wf_directory_add add = {
        .has_parent = p != NOBODY,
        .in_dram = m->dram[k],
        .parent_in_dram = p != NOBODY && m->dram[p],
        .domain = m->domain[k],
        .bytes = m->bytes[k],
        .parent_bytes = p != NOBODY ? m->bytes[p] : 0,
        .depth = m->depth[k],
        .tier = random_below(&m->random, TIERS),
        .quality = (enum weft_quality)random_below(&m->random, WEFT_ECONOMY + 1),
    };
    key_of(k, add.key);
    key_of(p, add.parent);
    uint32_t taken = 0, entry;
    for (int i = 0; i < KEYS; i++)
        taken += m->items[i].there;
    for (int g = 0; g < GHOSTS; g++)
        taken += m->ghosts[g].holds != 0;
    bool bridge = p != NOBODY && !m->items[p].there;
    enum weft_status expected = WEFT_OK;
    if (lie(m, &add, k))
        expected = WEFT_E_INVALID;
    else if (bridge && !m->dram[p])
        expected = WEFT_E_PARENT;
    else if (taken + !item->there + bridge > BLOCKS_MAX)
        expected = WEFT_E_LIMIT;
    assert_int_equal(wf_directory_add(m->directory, &add, &entry), expected);
    m->refusals += expected != WEFT_OK;
    if (expected != WEFT_OK)
        return;
    if (bridge) {
        m->items[p] = (struct item){.there = true, .in_dram = true};
        m->items[p].entry = wf_directory_find(m->directory, add.parent);
    }
    if (!item->there)
        *item = (struct item){.there = true, .in_dram = m->dram[k], .entry = entry};
    assert_int_equal(item->entry, entry);
    item->linked = p != NOBODY;
    item->tiers |= (uint8_t)(1u << add.tier);
    m->quality[k][add.tier] = add.quality ? add.quality : WEFT_LOSSLESS;
    item->used = ++m->clock;
}

static void op_lose(struct model *m, int k, unsigned tier)
{
    uint32_t entry = m->items[k].entry;
    m->items[k].tiers &= (uint8_t) ~(1u << tier);
    settle(m);
    wf_directory_lose(m->directory, entry, tier);
}

static void op_lose_tier(struct model *m)
{
    unsigned tier = random_below(&m->random, TIERS);
    for (int k = 0; k < KEYS; k++)
        m->items[k].tiers &= (uint8_t) ~(1u << tier);
    settle(m);
    wf_directory_lose_tier(m->directory, tier);
}

static void op_evict(struct model *m)
{
    unsigned tier = random_below(&m->random, TIERS);
    uint16_t domain = random_below(&m->random, 2) ? ALL
                                                  : (uint16_t)random_below(&m->random, DOMAINS);
    int best = NOBODY, best_class = 3;
    for (int k = 0; k < KEYS; k++) {
        int class = class_of(m, k, tier, domain);
        if (class < best_class ||
            (class == best_class && class < 2 && m->items[k].used < m->items[best].used)) {
            best = k;
            best_class = class;
        }
    }
    uint32_t entry = wf_directory_victim(m->directory, tier, domain);
    if (best == NOBODY) {
        assert_int_equal(entry, WF_DIRECTORY_NONE);
        return;
    }
    assert_int_not_equal(entry, WF_DIRECTORY_NONE);
    struct wf_directory_block block;
    wf_directory_read(m->directory, entry, &block);
    int k = number_of(block.key);
    if (best_class < 2)
        assert_int_equal(k, best);
    assert_int_equal(class_of(m, k, tier, domain), best_class);
    m->victims++;
    m->spares += best_class == 2;
    if (random_below(&m->random, 4))
        op_lose(m, k, tier);
}

/* A block and what it extends come into DRAM, parents first. */
static void op_enter(struct model *m, int k, bool promoted)
{
    if (m->parent[k] != NOBODY && !m->dram[m->parent[k]])
        op_enter(m, m->parent[k], promoted);
    m->dram[k] = true;
    struct item *item = &m->items[k];
    if (!item->there)
        return;
    item->in_dram = true;
    item->promoted |= promoted;
    if (promoted)
        item->used = ++m->clock;
    wf_directory_enter_dram(m->directory, item->entry, promoted);
}

/* A block and what extends it leave DRAM, children first. */
static void op_leave(struct model *m, int k)
{
    for (int c = 0; c < KEYS; c++)
        if (m->parent[c] == k && m->dram[c])
            op_leave(m, c);
    struct item *item = &m->items[k];
    bool was = m->dram[k];
    m->dram[k] = false;
    if (!item->there)
        return;
    uint32_t entry = item->entry;
    item->in_dram = item->promoted = false;
    if (item->tiers && was)
        item->used = ++m->clock;
    settle(m);
    wf_directory_leave_dram(m->directory, entry);
}

static void op_remove(struct model *m, int k)
{
    uint32_t entry = m->items[k].entry;
    goes(m, k);
    settle(m);
    wf_directory_remove(m->directory, entry);
}

static void op_hold(struct model *m, int k)
{
    uint32_t held = 0;
    for (int i = 0; i < KEYS; i++)
        held += m->items[i].holds != 0;
    for (int g = 0; g < GHOSTS; g++)
        held += m->ghosts[g].holds != 0;
    if (held >= GHOSTS && !m->items[k].holds)
        return;
    m->items[k].holds++;
    wf_directory_hold(m->directory, m->items[k].entry);
}

static void op_unhold(struct model *m)
{
    struct ghost *ghost = &m->ghosts[random_below(&m->random, GHOSTS)];
    if (ghost->holds) {
        struct wf_directory_block block;
        wf_directory_read(m->directory, ghost->entry, &block);
        assert_int_equal(number_of(block.key), ghost->key);
        assert_true(block.tiers == 0 && !block.in_dram);
        ghost->holds--;
        wf_directory_unhold(m->directory, ghost->entry);
        return;
    }
    for (int k = 0; k < KEYS; k++)
        if (m->items[k].holds && random_below(&m->random, 2)) {
            m->items[k].holds--;
            wf_directory_unhold(m->directory, m->items[k].entry);
        }
}

static void op_archive(struct model *m, int k)
{
    bool add = random_below(&m->random, 3) == 0;
    if (!add && !m->items[k].archives_here)
        return;
    m->items[k].archives_here = add ? m->items[k].archives_here + 1 : m->items[k].archives_here - 1;
    wf_directory_archive(m->directory, m->items[k].entry, add);
}

static void operate(struct model *m)
{
    uint32_t choice = random_below(&m->random, 1000);
    int any = (int)random_below(&m->random, KEYS), k = pick_there(m);
    if (choice < 350)
        op_add(m, any);
    else if (choice < 420)
        op_enter(m, any, random_below(&m->random, 2));
    else if (choice < 500)
        op_leave(m, any);
    else if (choice < 650)
        op_evict(m);
    else if (choice < 652)
        op_lose_tier(m);
    else if (choice < 700)
        op_unhold(m);
    else if (k == NOBODY)
        return;
    else if (choice < 760)
        op_lose(m, k, random_below(&m->random, TIERS));
    else if (choice < 770)
        op_remove(m, k);
    else if (choice < 800)
        op_hold(m, k);
    else if (choice < 860)
        op_archive(m, k);
    else {
        m->items[k].used = ++m->clock;
        wf_directory_touch(m->directory, m->items[k].entry);
    }
}

/* --------------------------------------------------------------------------- comparison */

static void compare_item(const struct model *m, int k)
{
    const struct item *item = &m->items[k];
    struct wf_directory_block block;
    uint8_t key[32];
    key_of(k, key);
    uint32_t entry = wf_directory_find(m->directory, key);
    assert_int_equal(m->dropped_said[k], m->dropped_expected[k]);
    assert_int_equal(m->displayed[k], item->there ? nearest(item->tiers) : -1);
    enum weft_quality worst = WEFT_LOSSLESS;
    for (unsigned t = 0; t < TIERS; t++)
        if (item->there && item->tiers >> t & 1)
            worst = m->quality[k][t] > worst ? m->quality[k][t] : worst;
    assert_int_equal(m->displayed_quality[k], worst);
    /* Invariant 2 of the product: what is shown has its whole chain shown, or in DRAM. */
    for (int a = m->parent[k]; a != NOBODY && m->displayed[k] >= 0; a = m->parent[a])
        assert_true(m->displayed[a] >= 0 || m->dram[a]);
    if (!item->there) {
        assert_int_equal(entry, WF_DIRECTORY_NONE);
        return;
    }
    assert_int_equal(entry, item->entry);
    wf_directory_read(m->directory, entry, &block);
    assert_memory_equal(block.key, key, 32);
    assert_int_equal(block.parent, item->linked ? m->items[m->parent[k]].entry : WF_DIRECTORY_NONE);
    assert_int_equal(block.bytes, m->bytes[k]);
    assert_int_equal(block.depth, m->depth[k]);
    assert_int_equal(block.domain, m->domain[k]);
    assert_int_equal(block.tiers, item->tiers);
    assert_int_equal(block.in_dram, item->in_dram);
    assert_int_equal(block.in_dram, m->dram[k]);
    assert_int_equal(block.archives, archives_of(m, k));
}

static void compare_sums(const struct model *m, unsigned tier, uint16_t domain)
{
    struct wf_directory_sum is, sum = {0};
    for (int k = 0; k < KEYS; k++) {
        if (!(m->items[k].tiers >> tier & 1) || (domain != ALL && domain != m->domain[k]))
            continue;
        bool archived = archives_of(m, k) > 0;
        sum.blocks++;
        sum.bytes += m->bytes[k];
        sum.archived_blocks += archived;
        sum.archived_bytes += archived ? m->bytes[k] : 0;
    }
    wf_directory_sum(m->directory, tier, domain, &is);
    assert_memory_equal(&is, &sum, sizeof sum);
}

static void compare(const struct model *m)
{
    uint32_t there = 0;
    for (int k = 0; k < KEYS; k++) {
        compare_item(m, k);
        there += m->items[k].there;
    }
    assert_int_equal(wf_directory_entries(m->directory), there);
    for (unsigned t = 0; t < TIERS; t++) {
        struct wf_directory_sum sum;
        uint32_t cursor = 0, seen = 0;
        compare_sums(m, t, ALL);
        for (uint16_t i = 0; i < DOMAINS; i++)
            compare_sums(m, t, i);
        wf_directory_sum(m->directory, t, ALL, &sum);
        while (wf_directory_next(m->directory, t, &cursor) != WF_DIRECTORY_NONE)
            seen++;
        assert_int_equal(seen, sum.blocks);
    }
    wf_directory_verify(m->directory);
}

static void plant(struct model *m)
{
    for (int k = 0; k < KEYS; k++) {
        bool root = k < DOMAINS || random_below(&m->random, 12) == 0;
        int p = root ? NOBODY : (int)random_below(&m->random, (uint32_t)k);
        if (!root && random_below(&m->random, 2)) /* half of them long chains */
            p = k - 1;
        m->parent[k] = p;
        m->depth[k] = root ? 0 : m->depth[p] + 1;
        m->domain[k] = (uint16_t)(root ? k % DOMAINS : m->domain[p]);
        m->bytes[k] = 1 + random_below(&m->random, 1u << 20);
        m->displayed[k] = -1;
        m->displayed_quality[k] = WEFT_LOSSLESS;
    }
}

static void test_model(void **state)
{
    (void)state;
    static struct model m;
    m.random = random_seeded("directory_model");
    for (int forest = 0; forest < 20; forest++) {
        uint64_t sums[] = {m.operations, m.victims, m.spares, m.refusals, m.falls};
        m = (struct model){.random = m.random};
        m.operations = sums[0], m.victims = sums[1], m.spares = sums[2], m.refusals = sums[3];
        m.falls = sums[4];
        plant(&m);
        struct wf_directory_env env = {.context = &m, .shown = shown, .dropped = dropped};
        assert_int_equal(wf_directory_create(BLOCKS_MAX, random_next(&m.random), &env,
                                             &m.directory),
                         WEFT_OK);
        for (uint16_t domain = 0; domain < DOMAINS; domain++) /* what is worse is not shown */
            wf_directory_demand(m.directory, domain, WEFT_ECONOMY);
        for (int i = 0; i < 1000; i++, m.operations++) {
            memset(m.dropped_said, 0, sizeof m.dropped_said);
            memset(m.dropped_expected, 0, sizeof m.dropped_expected);
            operate(&m);
            compare(&m);
        }
        wf_directory_destroy(m.directory);
    }
    print_message("# %llu operations, %llu victims, %llu of them second copies, %llu refusals, "
                  "%llu went with what they extend\n",
                  (unsigned long long)m.operations, (unsigned long long)m.victims,
                  (unsigned long long)m.spares, (unsigned long long)m.refusals,
                  (unsigned long long)m.falls);
    assert_true(m.victims > 500 && m.spares > 20 && m.refusals > 200 && m.falls > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    return cmocka_run_group_tests_name("directory model", tests, NULL, NULL);
}
