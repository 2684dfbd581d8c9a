/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a device that another host has written: opened, read, written to, and its blocks
 * looked at as those of other hosts.
 *
 * The input is a list of changes to a good device of three hosts: 4 bytes of place, 8 of value.
 * Checksums are made right afterwards where the first byte says so, because who can write the
 * device can do so as well; what is left is what bounds checks must catch.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "../support/random.h"
#include "tier/cxl.h"
#include "tier/cxl_format.h"
#include "tier/cxl_share.h"

#define MEDIUM_BYTES ((size_t)16 << 20)
#define CHANGES_MAX 64u
#define BLOCK_BYTES 9000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];
static uint8_t *medium, *good;
static _Alignas(4096) uint8_t room[1 << 20];

static struct wf_tier *open_host(uint8_t host)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path, .queue_depth = 4, .shared = true, .host = host};
    return wf_tier_cxl.open(&options, &tier) == WEFT_OK ? tier : NULL;
}

static void perform(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    if (wf_tier_cxl.submit(tier, r) != WEFT_OK)
        return;
    for (int tries = 0; tries < 20; tries++)
        if (wf_tier_cxl.reap(tier, &out, 1, 0) == 1)
            return;
    wf_tier_cxl.cancel(tier, r);
    while (wf_tier_cxl.reap(tier, &out, 1, 0) == 0)
        ;
}

static void write_one(struct wf_tier *tier, uint64_t number)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE,
                                .data = room,
                                .block = {.bytes = BLOCK_BYTES, .part_bytes = 1000}};
    random_key(number, r.block.key);
    perform(tier, &r);
}

/* Hosts 1 and 2 have blocks each. */
static void make_good(void)
{
    snprintf(path, sizeof path, "file-emulation:/tmp/weft-fuzz-cxl-XXXXXX");
    int fd = mkstemp(path + strlen("file-emulation:"));
    assert(fd >= 0 && ftruncate(fd, (off_t)MEDIUM_BYTES) == 0);
    medium = mmap(NULL, MEDIUM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    good = malloc(MEDIUM_BYTES);
    assert(medium != MAP_FAILED && good);
    for (uint8_t host = 1; host <= 2; host++) {
        struct wf_tier *tier = open_host(host);
        assert(tier);
        for (uint64_t i = 0; i < 12; i++)
            write_one(tier, host * 100u + i);
        wf_tier_cxl.close(tier);
    }
    memcpy(good, medium, MEDIUM_BYTES);
    unlink(path + strlen("file-emulation:"));
    snprintf(path, sizeof path, "file-emulation:/proc/self/fd/%d", fd);
}

/* Where a change goes: most of the medium is payload, which is nothing to hit. */
static size_t place_of(uint32_t where)
{
    struct wf_cxl_super super;
    memcpy(&super, good, sizeof super);
    size_t at = where >> 3;
    switch (where & 7) {
    case 0: return at % (2 * WF_CXL_GRANULE);
    case 1: return WF_CXL_ROWS_AT + at % (4 * 4096);
    case 2: return WF_CXL_TABLE_AT + at % (super.extents * sizeof(struct wf_cxl_extent));
    case 3: return wf_cxl_directories_at(super.extents) + at % (3 * WF_CXL_GRANULE);
    case 4: return super.data_at + at % (64 * WF_CXL_GRANULE);
    default: return super.data_at + (at / 168 % 64) * WF_CXL_GRANULE + at % 168;
    }
}

/* Headers whose checksum is right again, and words that commit them. */
static void seal(void)
{
    struct wf_cxl_super super;
    memcpy(&super, good, sizeof super);
    struct wf_cxl_directory *directories =
        (struct wf_cxl_directory *)(void *)(medium + wf_cxl_directories_at(super.extents));
    for (uint64_t g = 0; g < 2 * WF_CXL_EXTENT_GRANULES; g++) {
        uint64_t *word = &directories[g / WF_CXL_EXTENT_GRANULES].words[g % WF_CXL_EXTENT_GRANULES];
        struct wf_cxl_header *h = (struct wf_cxl_header *)(void *)(medium + super.data_at +
                                                                   g * WF_CXL_GRANULE);
        if (*word == 0 || h->parts > WF_TIER_PARTS_MAX)
            continue;
        size_t from = offsetof(struct wf_cxl_header, sequence);
        h->checksum = XXH3_64bits_withSeed((uint8_t *)h + from,
                                           wf_cxl_header_bytes(h->parts) - from, super.volume);
        *word = h->sequence << 16 | (h->checksum & 0xffff);
    }
}

static void count(void *context, const struct wf_tier_block *block)
{
    assert(block->bytes > 0 && block->part_bytes > 0);
    ++*(uint64_t *)context;
}

static void use(struct wf_tier *tier)
{
    struct wf_cxl_share *share = NULL;
    struct wf_tier_stats stats;
    uint64_t told = 0;
    wf_tier_cxl.each(tier, count, &told);
    wf_tier_cxl.stats(tier, &stats);
    assert(told == stats.blocks && stats.used_bytes <= MEDIUM_BYTES);
    for (uint64_t i = 0; i < 12; i++) {
        struct wf_tier_request r = {.op = WF_TIER_READ, .data = room};
        struct wf_tier_block block;
        random_key(100 + i, r.block.key);
        if (!wf_tier_cxl.find(tier, r.block.key, &block) || block.bytes > sizeof room)
            continue;
        perform(tier, &r);
        assert(r.status != WEFT_OK || r.bytes == block.bytes);
        if (i % 2)
            (void)!wf_tier_cxl.remove(tier, r.block.key);
    }
    write_one(tier, 500);
    if (wf_cxl_share_create(tier, &share) != WEFT_OK)
        return;
    (void)!wf_cxl_share_refresh(share, 0);
    for (uint64_t i = 0; i < 12; i++) {
        struct wf_cxl_view view;
        uint8_t key[32];
        random_key(200 + i, key);
        if (wf_cxl_share_find(share, key, &view) == WEFT_OK)
            assert(memcmp(view.block.key, key, 32) == 0 && view.block.bytes <= MEDIUM_BYTES &&
                   wf_cxl_share_check(share, &view) == WEFT_OK);
    }
    wf_cxl_share_destroy(share);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!medium)
        make_good();
    if (size < 1 || size > 1 + CHANGES_MAX * 12)
        return 0;
    memcpy(medium, good, MEDIUM_BYTES);
    for (size_t at = 1; at + 12 <= size; at += 12) {
        uint32_t where;
        memcpy(&where, data + at, 4);
        memcpy(medium + place_of(where) / 8 * 8, data + at + 4, 8);
    }
    if (data[0] & 1)
        seal();
    struct wf_tier *tier = open_host(1);
    if (tier) {
        use(tier);
        if (data[0] & 2)
            (void)!wf_tier_cxl_fence(tier, 2, 0);
        wf_tier_cxl.close(tier);
    }
    return 0;
}
