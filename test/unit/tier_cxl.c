/* SPDX-License-Identifier: Apache-2.0
 *
 * The CXL tier beyond what the conformance suite asks: media and their mistakes, a device that goes
 * away, damage at each place of the medium, and several hosts on one device.  On mappings of a
 * file, which stand in for devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/cxl_medium.h"
#include "../support/random.h"
#include "sys/clock.h"
#include "sys/cxl.h"
#include "sys/guard.h"
#include "tier/cxl.h"
#include "tier/cxl_share.h"
#include "tier/cxl_volume.h"

#define BYTES 100000u
#define PART 10000u

static const struct wf_tier_ops *const ops = &wf_tier_cxl;
static char path[200];
static uint8_t *data, *room;

static int setup(void **state)
{
    (void)state;
    data = aligned_alloc(WF_TIER_ALIGN, 8u << 20);
    room = aligned_alloc(WF_TIER_ALIGN, 8u << 20);
    return !data || !room || !cxl_medium_name(path, sizeof path);
}

static int teardown(void **state)
{
    (void)state;
    free(data);
    free(room);
    return unlink(path + strlen(CXL_FILE_PREFIX));
}

static enum weft_status try_open(uint8_t host, struct wf_tier **out)
{
    struct wf_tier_options options = {.path = path,
                                      .capacity_bytes = CXL_MEDIUM_BYTES,
                                      .queue_depth = 8,
                                      .shared = host != 0,
                                      .host = host};
    return ops->open(&options, out);
}

static struct wf_tier *open_tier(uint8_t host)
{
    struct wf_tier *tier = NULL;
    enum weft_status status = try_open(host, &tier);
    if (status != WEFT_OK)
        fail_msg("open: %s", wf_last_error());
    return tier;
}

static enum weft_status perform(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    enum weft_status status = ops->submit(tier, r);
    for (int tries = 0; status == WEFT_OK && tries < 600; tries++)
        if (ops->reap(tier, &out, 1, 10) == 1)
            return out->status;
    return status;
}

static void fill(uint64_t number, uint64_t bytes)
{
    struct random_source r = {number * 31};
    for (uint64_t at = 0; at < bytes; at += 8) {
        uint64_t word = random_next(&r);
        memcpy(data + at, &word, 8);
    }
}

static enum weft_status write_sized(struct wf_tier *tier, uint64_t number, uint64_t bytes)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE,
                                .data = data,
                                .block = {.bytes = bytes,
                                          .part_bytes = (uint32_t)(bytes / 10 ? bytes / 10 : 1)}};
    random_key(number, r.block.key);
    fill(number, bytes);
    return perform(tier, &r);
}

static enum weft_status read_sized(struct wf_tier *tier, uint64_t number, uint64_t bytes)
{
    struct wf_tier_request r = {.op = WF_TIER_READ, .data = room};
    random_key(number, r.block.key);
    enum weft_status status = perform(tier, &r);
    fill(number, bytes);
    if (status == WEFT_OK)
        assert_memory_equal(room, data, bytes);
    return status;
}

static enum weft_status write_one(struct wf_tier *tier, uint64_t number)
{
    return write_sized(tier, number, BYTES);
}

static enum weft_status read_one(struct wf_tier *tier, uint64_t number)
{
    return read_sized(tier, number, BYTES);
}

static enum weft_status remove_one(struct wf_tier *tier, uint64_t number)
{
    uint8_t key[32];
    random_key(number, key);
    return ops->remove(tier, key);
}

static struct wf_tier_stats stats_of(struct wf_tier *tier)
{
    struct wf_tier_stats stats;
    ops->stats(tier, &stats);
    return stats;
}

/* ---- media */

static void refused(const char *what, bool shared, uint8_t host, uint64_t capacity)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {
        .path = what, .capacity_bytes = capacity, .queue_depth = 8, .shared = shared, .host = host};
    wf_fail_keep("%s", "");
    assert_true(ops->open(&options, &tier) < 0);
    assert_null(tier);
    assert_true(strlen(wf_last_error()) > 20);
}

static void test_media_by_name(void **state)
{
    (void)state;
    assert_int_equal(wf_tier_cxl_medium("/dev/dax0.0"), WF_CXL_MEDIUM_DAX);
    assert_int_equal(wf_tier_cxl_medium("node:12"), WF_CXL_MEDIUM_NODE);
    assert_int_equal(wf_tier_cxl_medium("file-emulation:/a"), WF_CXL_MEDIUM_FILE);
    static const char *const none[] = {"dax0.0",      "node:",           "node:x", "node:1x",
                                       "node:123456", "file-emulation:", "file:/a"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(wf_tier_cxl_medium(none[i]), 0);
        refused(none[i], false, 0, 32 << 20);
    }
    assert_string_equal(wf_tier_cxl_medium_name(WF_CXL_MEDIUM_FILE), "file-emulation");
    assert_true(wf_tier_cxl_persistent("/dev/dax0.0"));
    assert_false(wf_tier_cxl_persistent("node:1"));
    refused("/dev/null", false, 0, 0);
    refused("/dev/dax999.999", false, 0, 0);
    refused("/etc/passwd", false, 0, 0);
    refused("node:9999", false, 0, 32 << 20);
    if (wf_cxl_node_has_processors(NULL, 0)) { /* plain DRAM, unless that is wanted */
        refused("node:0", false, 0, 32 << 20);
        assert_non_null(strstr(wf_last_error(), "dram_node: true"));
        struct wf_tier_options wanted = {.path = "node:0",
                                         .capacity_bytes = 32 << 20,
                                         .queue_depth = 8,
                                         .dram_node = true};
        struct wf_tier *tier = NULL;
        if (ops->open(&wanted, &tier) == WEFT_OK)
            ops->close(tier);
        else /* where the host does not let memory be bound */
            assert_null(strstr(wf_last_error(), "processors"));
    }
    refused(path, false, 0, 0);       /* a new file needs a capacity */
    refused(path, false, 0, 8 << 20); /* too small */
    refused(path, true, 0, 32 << 20); /* which host? */
    char longer[400] = CXL_FILE_PREFIX "/";
    memset(longer + strlen(longer), 'a', 300);
    refused(longer, false, 0, 32 << 20);
}

static void test_it_is_locked_and_not_overwritten(void **state)
{
    (void)state;
    struct wf_tier *tier = open_tier(0), *other = NULL;
    assert_int_equal(try_open(0, &other), WEFT_E_BUSY);
    assert_int_equal(try_open(3, &other), WEFT_E_BUSY);
    ops->close(tier);
    assert_int_equal(try_open(1, &other), WEFT_E_INVALID); /* it is not shared */
    uint8_t *memory = cxl_medium_map(path);
    memset(memory, 'x', 2 * WF_CXL_GRANULE); /* somebody else's */
    assert_int_equal(try_open(0, &other), WEFT_E_INVALID);
    assert_int_equal(memory[100], 'x');
    munmap(memory, CXL_MEDIUM_BYTES);
}

static void test_blocks_larger_than_an_extent(void **state)
{
    (void)state;
    struct wf_tier *tier = open_tier(0);
    assert_int_equal(write_sized(tier, 1, 5u << 20), WEFT_OK);
    assert_int_equal(write_sized(tier, 2, (7u << 20) + 12345), WEFT_OK);
    assert_int_equal(write_one(tier, 3), WEFT_OK);
    wf_tier_cxl_crash(tier);
    tier = open_tier(0);
    assert_int_equal(read_sized(tier, 1, 5u << 20), WEFT_OK);
    assert_int_equal(read_sized(tier, 2, (7u << 20) + 12345), WEFT_OK);
    assert_int_equal(read_one(tier, 3), WEFT_OK);
    ops->close(tier);
}

/* The first superblock is damaged; then both. */
static void test_the_superblock_is_there_twice(void **state)
{
    (void)state;
    struct wf_tier *tier = open_tier(0);
    assert_int_equal(write_one(tier, 1), WEFT_OK);
    ops->close(tier);
    uint8_t *memory = cxl_medium_map(path);
    memory[20] ^= 1;
    tier = open_tier(0);
    assert_int_equal(read_one(tier, 1), WEFT_OK);
    ops->close(tier);
    memory[WF_CXL_GRANULE + 20] ^= 1;
    assert_int_equal(try_open(0, &tier), WEFT_E_INVALID);
    munmap(memory, CXL_MEDIUM_BYTES);
}

/* A bit that flips in a header, a directory or the table of extents costs that block, or those of
 * that extent, and no other. */
static void test_damage_is_contained(void **state)
{
    (void)state;
    struct wf_tier *tier = open_tier(0);
    for (uint64_t i = 1; i <= 100; i++)
        assert_int_equal(write_one(tier, i), WEFT_OK);
    ops->close(tier);
    uint8_t *memory = cxl_medium_map(path);
    struct wf_cxl_super super;
    memcpy(&super, memory, sizeof super);
    struct random_source random = random_seeded("tier_cxl");
    struct wf_cxl_directory *directory =
        (struct wf_cxl_directory *)(void *)(memory + wf_cxl_directories_at(super.extents));
    uint32_t damaged = 0;
    for (uint32_t i = 0; i < WF_CXL_EXTENT_GRANULES && damaged < 6; i++) {
        if (!directory->words[i])
            continue;
        uint8_t *header = memory + super.data_at + i * WF_CXL_GRANULE;
        if (damaged++ % 2)
            directory->words[i] ^= UINT64_C(1) << random_below(&random, 64);
        else
            header[random_below(&random, sizeof(struct wf_cxl_header))] ^= 4;
    }
    tier = open_tier(0);
    assert_int_equal(stats_of(tier).blocks, 94);
    uint32_t left = 0;
    for (uint64_t i = 1; i <= 100; i++)
        left += read_one(tier, i) == WEFT_OK;
    assert_int_equal(left, 94);
    ops->close(tier);
    struct wf_cxl_extent *table = (struct wf_cxl_extent *)(void *)(memory + WF_CXL_TABLE_AT);
    table[1].word ^= UINT64_C(1) << 30;
    tier = open_tier(0);
    left = (uint32_t)stats_of(tier).blocks;
    assert_in_range(left, 94 - 22, 93);
    for (uint64_t i = 201; i <= 206; i++)
        assert_int_equal(write_one(tier, i), WEFT_OK); /* the extent is usable */
    ops->close(tier);
    tier = open_tier(0);
    assert_int_equal(stats_of(tier).blocks, left + 6);
    ops->close(tier);
    munmap(memory, CXL_MEDIUM_BYTES);
}

/* The file is cut under the mapping, as a device is unplugged. */
static void test_the_medium_goes_away(void **state)
{
    (void)state;
    struct wf_tier *tier = open_tier(0), *again = NULL;
    for (uint64_t i = 1; i <= 8; i++)
        assert_int_equal(write_one(tier, i), WEFT_OK);
    assert_int_equal(wf_guard_install(), WEFT_OK); /* cmocka has a handler of its own */
    assert_int_equal(truncate(path + strlen(CXL_FILE_PREFIX), WF_CXL_GRANULE), 0);
    assert_int_equal(read_one(tier, 1), WEFT_E_SYSTEM);
    assert_int_equal(read_one(tier, 2), WEFT_E_SYSTEM);
    assert_int_equal(write_one(tier, 9), WEFT_E_SYSTEM);
    assert_int_equal(remove_one(tier, 3), WEFT_OK);
    struct wf_tier_stats stats = stats_of(tier);
    assert_true(stats.failed);
    assert_int_equal(stats.errors, 3);
    assert_int_equal(stats.in_flight, 0);
    ops->close(tier);
    tier = open_tier(0); /* grown again: nothing is left of it */
    assert_int_equal(read_one(tier, 1), WEFT_MISS);
    ops->close(tier);
    (void)again;
}

/* ---- several hosts */

static enum weft_status find_other(struct wf_cxl_share *share, uint64_t number,
                                   struct wf_cxl_view *out)
{
    uint8_t key[32];
    random_key(number, key);
    assert_int_equal(wf_cxl_share_refresh(share, 0), WEFT_OK);
    return wf_cxl_share_find(share, key, out);
}

static void test_hosts_read_each_other_in_place(void **state)
{
    (void)state;
    struct wf_tier *one = NULL, *two = NULL;
    struct wf_cxl_share *share = NULL;
    struct wf_cxl_view view;
    assert_int_equal(try_open(2, &two), WEFT_E_SYSTEM); /* host 1 formats */
    one = open_tier(1);
    two = open_tier(2);
    assert_int_equal(try_open(2, &one), WEFT_E_BUSY);
    assert_int_equal(wf_cxl_share_create(two, &share), WEFT_OK);
    assert_int_equal(find_other(share, 1, &view), WEFT_MISS);
    assert_int_equal(write_one(one, 1), WEFT_OK);
    assert_int_equal(write_sized(one, 2, 3u << 20), WEFT_OK);
    assert_int_equal(read_one(two, 1), WEFT_MISS); /* the tier shows its own */

    assert_int_equal(find_other(share, 2, &view), WEFT_OK);
    assert_int_equal(view.host, 1);
    fill(2, 3u << 20);
    assert_memory_equal(view.data, data, 3u << 20);
    assert_int_equal((uintptr_t)view.data % 4096, 0);
    assert_int_equal(wf_cxl_share_check(share, &view), WEFT_OK);
    assert_int_equal(remove_one(one, 2), WEFT_OK);
    assert_int_equal(wf_cxl_share_check(share, &view), WEFT_MISS);
    assert_int_equal(write_sized(one, 2, 3u << 20), WEFT_OK); /* the same again is another block */
    assert_int_equal(wf_cxl_share_check(share, &view), WEFT_MISS);
    assert_int_equal(find_other(share, 2, &view), WEFT_OK);
    assert_int_equal(find_other(share, 1, &view), WEFT_OK);

    /* Rot is found out, and the rest is well. */
    assert_true(cxl_medium_flip(path, view.block.key, 99));
    assert_int_equal(find_other(share, 1, &view), WEFT_E_CORRUPT);
    assert_int_equal(find_other(share, 2, &view), WEFT_OK);
    struct wf_cxl_share_stats stats;
    wf_cxl_share_stats(share, &stats);
    assert_int_equal(stats.corrupt, 1);
    assert_int_equal(stats.stale, 2);
    wf_cxl_share_destroy(share);
    ops->close(one);
    ops->close(two);
}

/* Taken back and published anew, a block may lie in an extent that is read before the one where it
 * was known, and is in two places by then as far as the reader knows. */
static void test_a_block_that_moves_is_found(void **state)
{
    (void)state;
    struct wf_tier *one = open_tier(1), *two = open_tier(2);
    struct wf_cxl_share *share = NULL;
    struct wf_cxl_view view;
    assert_int_equal(wf_cxl_share_create(two, &share), WEFT_OK);
    assert_int_equal(write_sized(one, 1, 1u << 20), WEFT_OK);
    /* Behind it to the end of the extent, which is kept for that. */
    assert_int_equal(write_sized(one, 3, (1u << 20) - 2 * WF_CXL_GRANULE), WEFT_OK);
    assert_int_equal(write_sized(one, 2, 1u << 20), WEFT_OK);
    assert_int_equal(find_other(share, 2, &view), WEFT_OK);
    uint64_t was = view.granule / WF_CXL_EXTENT_GRANULES;
    assert_int_equal(remove_one(one, 2), WEFT_OK);
    assert_int_equal(remove_one(one, 1), WEFT_OK); /* its place is the next to be taken */
    assert_int_equal(write_sized(one, 2, 1u << 20), WEFT_OK);
    assert_int_equal(find_other(share, 2, &view), WEFT_OK);
    assert_true(view.granule / WF_CXL_EXTENT_GRANULES < was);
    wf_cxl_share_destroy(share);
    ops->close(one);
    ops->close(two);
}

/* Whichever of two hosts lets go first: the other's is found, and not only when something else of
 * its extent changes. */
static void test_a_block_of_two_hosts_outlives_one(void **state)
{
    (void)state;
    for (uint32_t first = 1; first <= 2; first++) {
        struct wf_tier *hosts[] = {NULL, open_tier(1), open_tier(2)}, *three = open_tier(3);
        struct wf_cxl_share *share = NULL;
        struct wf_cxl_share_stats stats;
        struct wf_cxl_view view;
        assert_int_equal(wf_cxl_share_create(three, &share), WEFT_OK);
        assert_int_equal(write_one(hosts[first], 1), WEFT_OK);
        assert_int_equal(find_other(share, 1, &view), WEFT_OK);
        assert_int_equal(write_one(hosts[3 - first], 1), WEFT_OK);
        assert_int_equal(find_other(share, 1, &view), WEFT_OK);
        assert_int_equal(view.host, first);
        wf_cxl_share_stats(share, &stats);
        assert_int_equal(stats.blocks, 1);
        assert_int_equal(stats.bytes, BYTES);
        assert_int_equal(remove_one(hosts[first], 1), WEFT_OK);
        assert_int_equal(find_other(share, 1, &view), WEFT_OK);
        assert_int_equal(view.host, 3 - first);
        /* The reader finds it wrong before it hears that it went. */
        assert_int_equal(write_one(hosts[first], 1), WEFT_OK);
        assert_int_equal(find_other(share, 1, &view), WEFT_OK);
        assert_int_equal(remove_one(hosts[3 - first], 1), WEFT_OK);
        assert_int_equal(wf_cxl_share_find(share, view.block.key, &view), WEFT_MISS);
        assert_int_equal(find_other(share, 1, &view), WEFT_OK);
        assert_int_equal(view.host, first);
        assert_int_equal(remove_one(hosts[first], 1), WEFT_OK);
        assert_int_equal(find_other(share, 1, &view), WEFT_MISS);
        wf_cxl_share_stats(share, &stats);
        assert_int_equal(stats.blocks + stats.bytes, 0);
        wf_cxl_share_destroy(share);
        ops->close(hosts[1]);
        ops->close(hosts[2]);
        ops->close(three);
    }
}

/* One that publishes before each look has none of the extents looked at forever again. */
static void test_a_busy_host_hides_nothing(void **state)
{
    (void)state;
    struct wf_tier *one = open_tier(1), *two = open_tier(2);
    struct wf_cxl_share *share = NULL;
    struct wf_cxl_view view;
    uint8_t key[32];
    assert_int_equal(wf_cxl_share_create(two, &share), WEFT_OK);
    assert_int_equal(write_sized(one, 1, 5u << 20), WEFT_OK);
    assert_int_equal(write_sized(one, 2, 5u << 20), WEFT_OK);
    random_key(2, key);
    enum weft_status status = WEFT_MISS;
    for (uint32_t looks = 0; looks < 40 && status == WEFT_MISS; looks++) {
        assert_int_equal(looks % 2 ? remove_one(one, 3) : write_one(one, 3), WEFT_OK);
        assert_true(wf_cxl_share_refresh(share, 1) >= WEFT_OK);
        status = wf_cxl_share_find(share, key, &view);
    }
    assert_int_equal(status, WEFT_OK);
    wf_cxl_share_destroy(share);
    ops->close(one);
    ops->close(two);
}

struct heard {
    uint32_t came, went;
    struct wf_tier_block last;
};

static void hear(void *context, const struct wf_tier_block *block, bool there)
{
    struct heard *heard = context;
    heard->came += there;
    heard->went += !there;
    heard->last = *block;
}

static struct heard news_of(struct wf_tier *others)
{
    struct heard heard = {0};
    assert_int_equal(wf_tier_cxl_others.news(others, hear, &heard), WEFT_OK);
    return heard;
}

static struct wf_tier *open_others(uint8_t host)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path, .queue_depth = 8, .shared = true, .host = host};
    assert_int_equal(wf_tier_cxl_others.open(&options, &tier), WEFT_OK);
    return tier;
}

static enum weft_status read_others(struct wf_tier *others, uint64_t number, uint32_t first_part,
                                    uint32_t parts, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    *r = (struct wf_tier_request){.op = WF_TIER_READ,
                                  .data = room,
                                  .first_part = first_part,
                                  .part_count = parts};
    random_key(number, r->block.key);
    enum weft_status status = wf_tier_cxl_others.submit(others, r);
    if (status != WEFT_OK)
        return status;
    assert_int_equal(wf_tier_cxl_others.reap(others, &out, 1, 1000), 1);
    return r->status;
}

static void test_other_hosts_are_a_tier(void **state)
{
    (void)state;
    const uint64_t large = 3u << 20;
    struct wf_tier_request r, *out;
    uint8_t key[32];
    struct wf_tier *one = open_tier(1), *two = open_tier(2), *others = open_others(2);
    assert_int_equal(news_of(others).came, 0);
    assert_int_equal(write_one(one, 1), WEFT_OK);
    assert_int_equal(write_sized(one, 2, large), WEFT_OK);
    assert_int_equal(write_one(two, 3), WEFT_OK);                  /* its own are no news */
    assert_int_equal(read_others(others, 1, 0, 0, &r), WEFT_MISS); /* not looked at yet */
    assert_int_equal(news_of(others).came, 2);
    assert_int_equal(news_of(others).came, 0);
    assert_int_equal(read_others(others, 3, 0, 0, &r), WEFT_MISS);

    uint64_t part = large / 10;
    assert_int_equal(read_others(others, 2, 0, 0, &r), WEFT_OK);
    fill(2, large);
    assert_int_equal(r.bytes, large);
    assert_memory_equal(room, data, large);
    assert_int_equal(read_others(others, 2, 3, 5, &r), WEFT_OK);
    assert_int_equal(r.bytes, 5 * part);
    assert_memory_equal(room, data + 3 * part, 5 * part);
    assert_int_equal(read_others(others, 2, 9, 99, &r), WEFT_E_INVALID);
    r = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                 .data = data,
                                 .block = {.bytes = 10, .part_bytes = 10}};
    assert_int_equal(wf_tier_cxl_others.submit(others, &r), WEFT_E_INVALID);

    /* Forgotten here, it is told again; there it stays. */
    random_key(1, key);
    assert_int_equal(wf_tier_cxl_others.remove(others, key), WEFT_OK);
    struct heard heard = news_of(others);
    assert_int_equal(heard.came, 1);
    assert_memory_equal(heard.last.key, key, 32);
    assert_int_equal(read_one(one, 1), WEFT_OK);

    /* Taken back, and written over by another, while it is being read. */
    r = (struct wf_tier_request){.op = WF_TIER_READ, .data = room};
    random_key(2, r.block.key);
    assert_int_equal(wf_tier_cxl_others.submit(others, &r), WEFT_OK);
    assert_int_equal(wf_tier_cxl_others.reap(others, &out, 1, 0), 0); /* a slice of it */
    assert_int_equal(remove_one(one, 2), WEFT_OK);
    assert_int_equal(write_sized(one, 4, large), WEFT_OK);
    assert_int_equal(wf_tier_cxl_others.reap(others, &out, 1, 1000), 1);
    assert_int_equal(r.status, WEFT_MISS);
    heard = news_of(others);
    assert_true(heard.came == 1 && heard.went == 1);

    random_key(4, key);
    assert_true(cxl_medium_flip(path, key, 99));
    assert_int_equal(read_others(others, 4, 0, 0, &r), WEFT_E_CORRUPT);
    struct wf_tier_host hosts[4];
    assert_int_equal(wf_tier_cxl_others.hosts(others, hosts, 4), 2);
    assert_true(hosts[0].extents >= 3 && hosts[1].extents >= 1 && hosts[0].here);
    struct wf_tier_stats stats;
    wf_tier_cxl_others.stats(others, &stats);
    assert_int_equal(stats.corrupt, 1);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.writes, 0);
    wf_tier_cxl_others.close(others);
    ops->close(one);
    ops->close(two);
}

static void test_extents_go_from_host_to_host(void **state)
{
    (void)state;
    struct wf_tier *one = open_tier(1), *two = open_tier(2);
    uint64_t count = 0, other = 0;
    while (write_one(one, 1000 + count) == WEFT_OK)
        count++;
    assert_true(count > 200);
    assert_int_equal(write_one(two, 1), WEFT_FULL);
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(remove_one(one, 1000 + i), WEFT_OK);
    while (write_one(two, 5000 + other) == WEFT_OK)
        other++;
    assert_in_range(other, count * 9 / 10, count);
    for (uint64_t i = 0; i < other; i++)
        assert_int_equal(read_one(two, 5000 + i), WEFT_OK);
    struct wf_tier_host hosts[4];
    assert_int_equal(wf_tier_cxl_hosts(one, hosts, 4), 2);
    assert_int_equal(hosts[0].host, 1);
    assert_true(hosts[0].here && hosts[1].here && hosts[1].extents > hosts[0].extents);
    ops->close(two);
    assert_int_equal(wf_tier_cxl_hosts(one, hosts, 4), 2);
    assert_false(hosts[1].here);
    ops->close(one);
}

/* It dies with blocks, and with the lock: its number is drawn and never given back. */
static void test_a_dead_host_is_fenced(void **state)
{
    (void)state;
    struct wf_tier *one = open_tier(1), *two = open_tier(2), *three = NULL;
    for (uint64_t i = 1; i <= 40; i++)
        assert_int_equal(write_one(two, i), WEFT_OK);
    struct wf_cxl *dead = (struct wf_cxl *)(uintptr_t)two;
    wf_cxl_publish(&dead->rows[2].number, 1);
    uint64_t extents = dead->owned;
    wf_tier_cxl_crash(two);

    assert_int_equal(wf_tier_cxl_fence(one, 1, 100), WEFT_E_INVALID);
    assert_int_equal(wf_tier_cxl_fence(one, 9, 100), WEFT_E_NOT_FOUND);
    three = open_tier(3);
    uint64_t from = wf_now_ms();
    assert_int_equal(write_one(three, 300), WEFT_FULL); /* the lock; after some patience */
    assert_non_null(strstr(wf_last_error(), "host 2"));
    assert_in_range(wf_now_ms() - from, 1000, 8000);

    assert_int_equal(wf_tier_cxl_fence(one, 2, 1000), WEFT_OK);
    struct wf_tier_host hosts[4];
    assert_int_equal(wf_tier_cxl_hosts(one, hosts, 4), 3);
    assert_true(hosts[1].fenced && hosts[1].extents == 0);
    assert_true(hosts[0].extents >= extents);
    for (uint64_t i = 1; i <= 40; i++)
        assert_int_equal(read_one(one, i), WEFT_OK);
    assert_int_equal(write_one(three, 300), WEFT_OK);

    /* It comes back as another session, with nothing. */
    two = open_tier(2);
    assert_int_equal(stats_of(two).blocks, 0);
    assert_int_equal(write_one(two, 77), WEFT_OK);
    assert_int_equal(wf_tier_cxl_hosts(one, hosts, 4), 3);
    assert_false(hosts[1].fenced);

    /* One that was not dead at all finds out. */
    assert_int_equal(wf_tier_cxl_fence(one, 3, 1000), WEFT_OK);
    struct wf_tier_request *out;
    usleep(1100000);
    (void)ops->reap(three, &out, 1, 0);
    assert_true(stats_of(three).failed);
    assert_int_equal(write_one(three, 301), WEFT_E_SYSTEM);
    ops->close(one);
    ops->close(two);
    ops->close(three);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_media_by_name),
        TEST(test_it_is_locked_and_not_overwritten),
        TEST(test_blocks_larger_than_an_extent),
        TEST(test_the_superblock_is_there_twice),
        TEST(test_damage_is_contained),
        TEST(test_the_medium_goes_away),
        TEST(test_hosts_read_each_other_in_place),
        TEST(test_a_block_that_moves_is_found),
        TEST(test_a_block_of_two_hosts_outlives_one),
        TEST(test_a_busy_host_hides_nothing),
        TEST(test_other_hosts_are_a_tier),
        TEST(test_extents_go_from_host_to_host),
        TEST(test_a_dead_host_is_fenced),
    };
    return cmocka_run_group_tests_name("tier_cxl", tests, NULL, NULL);
}
