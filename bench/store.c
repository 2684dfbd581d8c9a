/* SPDX-License-Identifier: Apache-2.0
 *
 * What the owner thread can decide a second, and what a block costs in metadata.
 *
 *     bench_store [--json] [--blocks N] [--policy weft|lru]
 *
 * The store runs as in the node, on plain memory and without clients: the decisions alone.
 *   decisions  the eviction policy by itself, full of N blocks: a use, then a victim, then a new
 * block churn      the whole store when it is full: every reserve evicts, every commit publishes;
 * one event each for reserve, evict and commit used       uses that clients report For several N,
 * because the claim is O(log n).  Chains of 32 blocks; medians of five rounds.
 *
 *   metadata   bytes a block of everything that grows with the number of blocks, from what is
 * allocated
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/store.h"
#include "sys/clock.h"

#define ROUNDS 5
#define CHAIN 32

static uint64_t budget_take(void *context, uint64_t least, uint64_t wanted)
{
    uint64_t *left = context;
    uint64_t take = wanted < *left ? wanted : *left;
    if (take < least)
        return 0;
    *left -= take;
    return take;
}

static void budget_give(void *context, uint64_t bytes)
{
    *(uint64_t *)context += bytes;
}

static void scan_pins(void *context, void (*seen)(void *context, uint32_t slot), void *seen_context)
{
    (void)context, (void)seen, (void)seen_context;
}

static void gone(void *context, const uint8_t key[32], const struct wf_gone *gone)
{
    (void)context, (void)key, (void)gone;
}

static uint64_t now_us(void *context)
{
    (void)context;
    return wf_now_ns() / 1000;
}

static const struct wf_policy_ops *policy = &wf_policy_value;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void key_make(uint64_t number, uint8_t key[32])
{
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t part = mix(number * 4 + i + 1);
        memcpy(key + 8 * i, &part, 8);
    }
}

struct bench {
    struct wf_store store;
    struct wf_reservations list;
    uint64_t budget, next;
    void *index_memory;
    uint64_t index_bytes;
    uint32_t slots;
};

/* Put the next block; a new chain begins every CHAIN blocks. */
static void put(struct bench *bench)
{
    uint8_t key[32];
    uint32_t slot;
    struct wf_parent parent = {.slot = WF_SLOT_NONE};
    if (bench->next % CHAIN) {
        key_make(bench->next - 1, key);
        if (wf_store_parent_by_key(&bench->store, key, &parent) != WEFT_OK)
            abort();
    }
    key_make(bench->next++, key);
    if (wf_store_reserve(&bench->store, 1, &bench->list, key, WF_GRANULE, &parent, WF_POLICY_ANY,
                         &slot) != WEFT_OK ||
        wf_store_commit(&bench->store, &bench->list, &slot) != WEFT_OK)
        abort();
}

static void bench_init(struct bench *bench, uint32_t blocks)
{
    memset(bench, 0, sizeof *bench);
    bench->list.head = WF_SLOT_NONE;
    bench->slots = blocks + 1024;
    bench->budget = (uint64_t)blocks * WF_GRANULE;
    bench->index_bytes = wf_index_bytes(bench->slots, 0);
    bench->index_memory = mmap(NULL, bench->index_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct wf_store_options options = {
        .index_memory = bench->index_memory,
        .index_bytes = bench->index_bytes,
        .slots_max = bench->slots,
        .pool_bytes = (uint64_t)blocks * WF_GRANULE,
        .quota_bytes = UINT64_MAX / 2,
        .policy = policy,
        .env = {.context = &bench->budget,
                .budget_take = budget_take,
                .budget_give = budget_give,
                .scan_pins = scan_pins,
                .now_us = now_us,
                .gone = gone},
    };
    if (bench->index_memory == MAP_FAILED || wf_store_init(&bench->store, &options) != WEFT_OK) {
        fprintf(stderr, "bench_store: %s\n", wf_last_error());
        exit(1);
    }
    for (uint32_t i = 0; i < blocks; i++)
        put(bench);
}

static void bench_fini(struct bench *bench)
{
    wf_store_fini(&bench->store);
    munmap(bench->index_memory, bench->index_bytes);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof *values, ascending);
    return values[ROUNDS / 2];
}

static double churn(struct bench *bench, uint32_t n)
{
    double rates[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = wf_now_ns();
        for (uint32_t i = 0; i < n; i++)
            put(bench);
        rates[round] = 3.0 * n * 1e3 / (double)(wf_now_ns() - start);
    }
    return median(rates);
}

static double used(struct bench *bench, uint32_t n)
{
    double rates[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = wf_now_ns();
        for (uint32_t i = 0; i < n; i++)
            wf_store_used(&bench->store, (uint32_t)(mix(i) % bench->slots), 0);
        rates[round] = n * 1e3 / (double)(wf_now_ns() - start);
    }
    return median(rates);
}

static void use(const struct wf_policy_ops *ops, struct wf_policy *one, uint32_t slot,
                uint64_t at_us)
{
    const struct wf_policy_use given = {.slot = slot,
                                        .parent = WF_POLICY_NONE,
                                        .key = mix(slot),
                                        .now_us = at_us};
    ops->used(one, &given);
}

/* The policy alone: `blocks` candidates; each turn is three events. */
static double decisions(const struct wf_policy_ops *ops, uint32_t blocks, uint32_t n)
{
    struct wf_policy *one;
    double rates[ROUNDS];
    uint64_t at_us = 0;
    if (ops->create(blocks, &one) != WEFT_OK)
        exit(1);
    for (uint32_t i = 0; i < blocks; i++) {
        use(ops, one, i, at_us += 10);
        ops->enter(one, i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = wf_now_ns();
        for (uint32_t i = 0; i < n; i++) {
            use(ops, one, (uint32_t)(mix(i) % blocks), at_us += 10);
            uint32_t victim = ops->victim(one, at_us, WF_POLICY_ANY);
            ops->gone(one, victim, mix(victim));
            use(ops, one, victim, at_us);
            ops->enter(one, victim);
        }
        rates[round] = 3.0 * n * 1e3 / (double)(wf_now_ns() - start);
    }
    ops->destroy(one);
    return median(rates);
}

/* Index segment, slot table, arena's bit, policy (core/lru.c and core/value.c say how much). */
static double metadata_bytes(const struct bench *bench)
{
    return (double)bench->index_bytes / bench->slots + sizeof(struct wf_slot) + 1.0 / 8 +
           (policy == &wf_policy_lru ? 16 : 60);
}

int main(int argc, char **argv)
{
    uint32_t only = 0;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            json = true;
        } else if (!strcmp(argv[i], "--blocks") && i + 1 < argc) {
            only = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--policy") && i + 1 < argc) {
            policy = strcmp(argv[++i], "lru") == 0 ? &wf_policy_lru : &wf_policy_value;
        } else {
            fprintf(stderr, "usage: %s [--json] [--blocks N] [--policy weft|lru]\n", argv[0]);
            return 2;
        }
    }
    static const uint32_t sizes[] = {1u << 14, 1u << 17, 1u << 20};
    size_t count = only ? 1 : sizeof sizes / sizeof sizes[0];
    if (!json)
        printf("%10s %18s %18s %18s %14s\n", "blocks", "decisions M/s", "churn M events/s",
               "used M/s", "metadata B");
    for (size_t i = 0; i < count; i++) {
        uint32_t blocks = only ? only : sizes[i];
        static struct bench bench;
        bench_init(&bench, blocks);
        double decided = decisions(policy, blocks, 200000), churned = churn(&bench, 100000),
               uses = used(&bench, 400000);
        if (json)
            printf("%s\"%u\": {\"decisions_m_per_s\": %.2f, "
                   "\"churn_m_events_per_s\": %.2f, \"used_m_per_s\": %.2f, "
                   "\"metadata_bytes_a_block\": %.1f}%s",
                   i ? ", " : "{", blocks, decided, churned, uses, metadata_bytes(&bench),
                   i + 1 == count ? "}\n" : "");
        else
            printf("%10u %18.2f %18.2f %18.2f %14.1f\n", blocks, decided, churned, uses,
                   metadata_bytes(&bench));
        bench_fini(&bench);
    }
    return 0;
}
