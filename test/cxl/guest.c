/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs in the emulated machines of test/cxl/run.sh: a CXL tier on the real kernel's devices.
 *
 *   cxl_guest find                      the libraries and sysfs tell the same of this host
 *   cxl_guest write PATH COUNT          blocks 1 … COUNT, flushed; PATH loses what it had
 *   cxl_guest verify PATH COUNT         they are all there, whole
 *   cxl_guest node PATH                 memory of a node: blocks come and go, a flush is refused
 *   cxl_guest gone PATH DEVICE          the driver lets go of DEVICE while PATH is open and mapped
 *   cxl_guest erase PATH                nothing is there that a tier would find
 *   cxl_guest share PATH HOST HOSTS     blocks of our own are published, those of HOSTS others read
 *                                       where they lie, and as a tier
 *
 * Exit status 0, or 1 with a sentence.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/cxl_medium.h"
#include "../support/random.h"
#include "sys/clock.h"
#include "sys/cxl.h"
#include "sys/guard.h"
#include "tier/cxl.h"
#include "tier/cxl_share.h"

#define BLOCK_BYTES 262144u
#define PART_BYTES 32768u
#define PATIENCE_MS 150000u

#define MUST(condition, ...)                                \
    do {                                                    \
        if (!(condition)) {                                 \
            printf("%s:%d: ", __func__, __LINE__);          \
            printf(__VA_ARGS__);                            \
            printf(" (last error: %s)\n", wf_last_error()); \
            exit(1);                                        \
        }                                                   \
    } while (0)

static const struct wf_tier_ops *const ops = &wf_tier_cxl;
static uint8_t *payload, *room; /* BLOCK_BYTES each */

static void fill(uint8_t *memory, uint64_t number)
{
    struct random_source r = {number * 0x9e3779b97f4a7c15u};
    for (size_t at = 0; at < BLOCK_BYTES; at += 8) {
        uint64_t word = random_next(&r);
        memcpy(memory + at, &word, 8);
    }
}

static struct wf_tier *open_tier(const char *path, uint8_t host)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path,
                                      .queue_depth = 16,
                                      .shared = host != 0,
                                      .host = host,
                                      .capacity_bytes = (uint64_t)128 << 20};
    enum weft_status status = ops->open(&options, &tier);
    MUST(status == WEFT_OK, "open(%s) is %d", path, (int)status);
    return tier;
}

static enum weft_status perform(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    enum weft_status status = ops->submit(tier, r);
    if (status != WEFT_OK)
        return status;
    for (uint64_t until = wf_now_ms() + PATIENCE_MS; wf_now_ms() < until;)
        if (ops->reap(tier, &out, 1, 100) == 1)
            return out->status;
    MUST(false, "nothing was reaped");
    return WEFT_E_TIMEOUT;
}

static enum weft_status write_number(struct wf_tier *tier, uint64_t number)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE,
                                .data = payload,
                                .block = {.part_bytes = PART_BYTES, .bytes = BLOCK_BYTES}};
    random_key(number, r.block.key);
    fill(payload, number);
    return perform(tier, &r);
}

static enum weft_status read_number(struct wf_tier *tier, uint64_t number)
{
    struct wf_tier_request r = {.op = WF_TIER_READ, .data = room};
    random_key(number, r.block.key);
    enum weft_status status = perform(tier, &r);
    fill(payload, number);
    MUST(status != WEFT_OK || memcmp(room, payload, BLOCK_BYTES) == 0, "block %llu is wrong",
         (unsigned long long)number);
    return status;
}

static enum weft_status flush(struct wf_tier *tier)
{
    struct wf_tier_request r = {.op = WF_TIER_FLUSH};
    return perform(tier, &r);
}

/* ---- the subjects */

static int find(void)
{
    struct wf_cxl_device with[WF_CXL_DEVICES_MAX], without[WF_CXL_DEVICES_MAX];
    uint32_t count, again;
    bool libraries;
    MUST(wf_cxl_find(NULL, with, WF_CXL_DEVICES_MAX, &count, &libraries) == WEFT_OK, "find");
    MUST(libraries, "libdaxctl and libcxl were not asked");
    struct wf_cxl_search search = {.no_libraries = true};
    MUST(wf_cxl_find(&search, without, WF_CXL_DEVICES_MAX, &again, &libraries) == WEFT_OK, "find");
    MUST(count == again && count > 0, "%u devices by the libraries, %u by sysfs", count, again);
    for (uint32_t i = 0; i < count; i++) {
        const struct wf_cxl_device *d = &with[i], *e = &without[i];
        printf("%s %s: %llu bytes, node %d, region '%s' %s, %u ways, read %u ns %u MB/s\n",
               wf_cxl_kind_name(d->kind), d->path, (unsigned long long)d->bytes, d->numa_node,
               d->region, d->uuid, d->interleave_ways, d->read_latency_ns, d->read_mbps);
        MUST(d->kind == e->kind && !strcmp(d->path, e->path) && d->bytes == e->bytes &&
                 d->align_bytes == e->align_bytes && d->resource == e->resource &&
                 d->numa_node == e->numa_node && d->is_cxl == e->is_cxl &&
                 !strcmp(d->region, e->region) && !strcmp(d->uuid, e->uuid) &&
                 d->interleave_ways == e->interleave_ways,
             "%s differs: sysfs says %s, %llu bytes, node %d, region '%s' %s", d->path, e->path,
             (unsigned long long)e->bytes, e->numa_node, e->region, e->uuid);
    }
    return 0;
}

static int write_all(const char *path, uint64_t count)
{
    MUST(cxl_medium_erase(path), "%s cannot be erased", path);
    struct wf_tier *tier = open_tier(path, 0);
    for (uint64_t i = 1; i <= count; i++)
        MUST(write_number(tier, i) == WEFT_OK, "block %llu", (unsigned long long)i);
    MUST(flush(tier) == WEFT_OK, "flush");
    wf_tier_cxl_crash(tier); /* what was flushed needs no goodbye */
    return 0;
}

static int verify_all(const char *path, uint64_t count)
{
    struct wf_tier *tier = open_tier(path, 0);
    struct wf_tier_stats stats;
    ops->stats(tier, &stats);
    MUST(stats.blocks == count, "%llu blocks are there", (unsigned long long)stats.blocks);
    for (uint64_t i = 1; i <= count; i++)
        MUST(read_number(tier, i) == WEFT_OK, "block %llu", (unsigned long long)i);
    ops->close(tier);
    return 0;
}

static int node(const char *path)
{
    for (int round = 0; round < 2; round++) { /* nothing stays */
        struct wf_tier_options options = {.path = path,
                                          .queue_depth = 16,
                                          .capacity_bytes = (uint64_t)16 << 20};
        struct wf_tier *tier = NULL;
        MUST(ops->open(&options, &tier) == WEFT_OK, "open(%s)", path);
        MUST(!wf_tier_cxl_persistent(path), "a node's memory is said to persist");
        MUST(read_number(tier, 1) == WEFT_MISS, "something is there already");
        for (uint64_t i = 1; i <= 10; i++)
            MUST(write_number(tier, i) == WEFT_OK, "block %llu", (unsigned long long)i);
        for (uint64_t i = 1; i <= 10; i++)
            MUST(read_number(tier, i) == WEFT_OK, "block %llu", (unsigned long long)i);
        MUST(flush(tier) == WEFT_E_INVALID, "a flush is not refused");
        ops->close(tier);
    }
    return 0;
}

/* The kernel takes the mapping away under us, as it does when a device is unplugged. */
static int gone(const char *path, const char *device)
{
    struct wf_tier *tier = open_tier(path, 0);
    struct wf_tier_stats stats;
    MUST(read_number(tier, 1) == WEFT_OK, "block 1");
    FILE *unbind = fopen("/sys/bus/dax/drivers/device_dax/unbind", "w");
    MUST(unbind && fputs(device, unbind) >= 0 && fclose(unbind) == 0, "unbind");
    enum weft_status status = read_number(tier, 2);
    MUST(status == WEFT_E_SYSTEM, "a read of a device that is gone is %d", (int)status);
    MUST(read_number(tier, 1) == WEFT_E_SYSTEM, "the next one is not an error");
    MUST(write_number(tier, 1000) == WEFT_E_SYSTEM, "a write is not an error");
    ops->stats(tier, &stats);
    MUST(stats.failed && stats.errors >= 3, "the tier does not say that it has failed");
    ops->close(tier);
    struct wf_tier_options options = {.path = path, .queue_depth = 4};
    MUST(ops->open(&options, &tier) != WEFT_OK, "it can be opened");
    return 0;
}

/* ---- several hosts */

#define OWN 60u /* blocks that a host publishes */

static uint64_t number_of(uint32_t host, uint32_t block)
{
    return host * 1000ull + block;
}

struct using
{
    const uint8_t *data;
    bool right;
};

static void use(void *context)
{
    struct using *u = context;
    u->right = memcmp(u->data, payload, BLOCK_BYTES) == 0;
}

/* Every block of that host, found and compared where it lies. */
static void read_other(struct wf_tier *tier, struct wf_cxl_share *share, uint32_t host)
{
    struct wf_tier_request *out;
    for (uint32_t i = 1; i <= OWN; i++) {
        uint8_t key[32];
        struct wf_cxl_view view;
        enum weft_status status = WEFT_MISS;
        random_key(number_of(host, i), key);
        for (uint64_t until = wf_now_ms() + PATIENCE_MS; wf_now_ms() < until;) {
            MUST(wf_cxl_share_refresh(share, 0) == WEFT_OK, "refresh");
            status = wf_cxl_share_find(share, key, &view);
            MUST(status == WEFT_OK || status == WEFT_MISS, "block %u of host %u is %d", i, host,
                 (int)status);
            if (status == WEFT_OK)
                break;
            (void)ops->reap(tier, &out, 1, 20); /* a sign of life */
        }
        MUST(status == WEFT_OK, "block %u of host %u never came", i, host);
        fill(payload, number_of(host, i));
        struct using u = {.data = view.data};
        MUST(wf_guard_run(view.data, BLOCK_BYTES, use, &u) == WF_FAULT_NONE, "a fault");
        MUST(wf_cxl_share_check(share, &view) == WEFT_OK, "block %u of host %u went", i, host);
        MUST(u.right && view.host == host && view.block.bytes == BLOCK_BYTES,
             "block %u of host %u is wrong", i, host);
    }
}

static void hear(void *context, const struct wf_tier_block *block, bool there)
{
    uint32_t *came = context;
    (void)block;
    *came += there;
}

/* The same blocks by the tier that a node has of other hosts, whose mapping cannot be written. */
static void read_as_tier(const char *path, uint8_t host, uint8_t other)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path,
                                      .queue_depth = 16,
                                      .shared = true,
                                      .host = host};
    MUST(wf_tier_cxl_others.open(&options, &tier) == WEFT_OK, "open");
    uint32_t came = 0;
    enum weft_status status = WEFT_PENDING;
    while (status == WEFT_PENDING)
        status = wf_tier_cxl_others.news(tier, hear, &came);
    MUST(status == WEFT_OK && came >= OWN, "%u blocks are told", came);
    for (uint32_t i = 1; i <= OWN; i++) {
        struct wf_tier_request r = {.op = WF_TIER_READ, .data = room}, *out;
        random_key(number_of(other, i), r.block.key);
        MUST(wf_tier_cxl_others.submit(tier, &r) == WEFT_OK, "submit");
        MUST(wf_tier_cxl_others.reap(tier, &out, 1, 1000) == 1 && r.status == WEFT_OK,
             "block %u of host %u is %d", i, other, (int)r.status);
        fill(payload, number_of(other, i));
        MUST(memcmp(room, payload, BLOCK_BYTES) == 0, "block %u of host %u is wrong", i, other);
    }
    wf_tier_cxl_others.close(tier);
}

static struct wf_tier *open_shared(const char *path, uint8_t host)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path,
                                      .queue_depth = 16,
                                      .shared = true,
                                      .host = host,
                                      .capacity_bytes = (uint64_t)128 << 20};
    enum weft_status status = WEFT_E_SYSTEM;
    for (uint64_t until = wf_now_ms() + PATIENCE_MS; status != WEFT_OK && wf_now_ms() < until;) {
        status = ops->open(&options, &tier); /* host 1 may be formatting it */
        if (status != WEFT_OK)
            usleep(100000);
    }
    MUST(status == WEFT_OK, "open(%s) as host %u is %d", path, host, (int)status);
    return tier;
}

/* Blocks are written and removed while the others read, so that extents are claimed by all at the
 * same time; those that stay are what the others look for. */
static int share(const char *path, uint8_t host, uint32_t hosts)
{
    struct wf_tier *tier = open_shared(path, host);
    struct wf_cxl_share *others;
    MUST(wf_cxl_share_create(tier, &others) == WEFT_OK, "create");
    for (uint32_t i = 1; i <= OWN; i++) {
        uint8_t key[32];
        MUST(write_number(tier, number_of(host, 500 + i)) == WEFT_OK, "block %u", 500 + i);
        MUST(write_number(tier, number_of(host, i)) == WEFT_OK, "block %u", i);
        random_key(number_of(host, 500 + i), key);
        MUST(i % 3 == 0 || ops->remove(tier, key) == WEFT_OK, "remove");
    }
    for (uint32_t other = 1; other <= hosts; other++)
        if (other != host) {
            read_other(tier, others, other);
            read_as_tier(path, host, (uint8_t)other);
        }
    for (uint32_t i = 1; i <= OWN; i++)
        MUST(read_number(tier, number_of(host, i)) == WEFT_OK, "own block %u", i);

    struct wf_tier_host census[8];
    uint32_t count = wf_tier_cxl_hosts(tier, census, 8);
    MUST(count == hosts, "%u hosts", count);
    for (uint32_t i = 0; i < count; i++)
        printf("host %u: session %llu, heartbeat %llu, %llu extents\n", census[i].host,
               (unsigned long long)census[i].session, (unsigned long long)census[i].heartbeat,
               (unsigned long long)census[i].extents);
    wf_cxl_share_destroy(others);
    ops->close(tier);
    return 0;
}

int main(int argc, char **argv)
{
    payload = aligned_alloc(WF_TIER_ALIGN, BLOCK_BYTES);
    room = aligned_alloc(WF_TIER_ALIGN, BLOCK_BYTES);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!payload || !room || argc < 2)
        return 2;
    const char *what = argv[1];
    if (!strcmp(what, "find"))
        return find();
    if (!strcmp(what, "write") && argc == 4)
        return write_all(argv[2], strtoull(argv[3], NULL, 10));
    if (!strcmp(what, "verify") && argc == 4)
        return verify_all(argv[2], strtoull(argv[3], NULL, 10));
    if (!strcmp(what, "node") && argc == 3)
        return node(argv[2]);
    if (!strcmp(what, "gone") && argc == 4)
        return gone(argv[2], argv[3]);
    if (!strcmp(what, "share") && argc == 5)
        return share(argv[2], (uint8_t)strtoul(argv[3], NULL, 10),
                     (uint32_t)strtoul(argv[4], NULL, 10));
    if (!strcmp(what, "erase") && argc == 3)
        return !cxl_medium_erase(argv[2]);
    return 2;
}
