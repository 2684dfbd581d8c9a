/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the medium of the NVMe tier: opened, its blocks told of and read, written to until
 * it is full, removed from, closed and opened again.
 *
 * The input is a list of changes to a volume that a tier has made: 4 bytes of place, 8 of value.
 * Checksums are made right afterwards where the first byte says so, because who can write the
 * device can do so as well; what is left is what bounds checks must catch.
 *
 * Whatever the medium says, a read that is WEFT_OK gave bytes that match the checksums of a record
 * of that key on it, and what is written and flushed afterwards is found again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "../support/medium.h"
#include "../support/random.h"
#include "tier/nvme_log.h"

#define SEGMENTS 8u
#define SEGMENT_BYTES ((size_t)WF_NVME_SEGMENT_MIN)
#define MEDIUM_BYTES (WF_NVME_SEGMENTS_AT + SEGMENTS * SEGMENT_BYTES)
#define CHANGES_MAX 48u
#define BLOCKS 14u       /* that a good volume has */
#define BLOCKS_MAX 256u  /* looked at in a bad one */
#define WRITES_MAX 200u  /* until it must have said that it is full */
#define REAPS_MAX 20u    /* of a second each, and then it hangs */
#define OWN 500u         /* the first of the blocks written to a bad one */
#define BYTES_MAX 20000u /* of a block */

enum good { CLEAN, CRASHED, FULL, GOODS };
enum flag { SEALED = 4, LAYERS = 8 }; /* of the first byte; below them: enum good */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct wf_tier_ops *const ops = &wf_tier_nvme;
static char path[64];
static uint8_t *medium, *good[GOODS];

static struct wf_tier *open_it(uint64_t capacity)
{
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = path, .capacity_bytes = capacity, .queue_depth = 4};
    return ops->open(&options, &tier) == WEFT_OK ? tier : NULL;
}

static enum weft_status perform(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    enum weft_status status = ops->submit(tier, r);
    if (status != WEFT_OK)
        return status;
    for (uint32_t tries = 0; tries < REAPS_MAX; tries++)
        if (ops->reap(tier, &out, 1, 1000) == 1)
            return r->status;
    abort();
}

static struct wf_tier_block block_of(uint64_t number)
{
    struct random_source r = {number};
    struct wf_tier_block block = {.bytes = 1 + random_below(&r, BYTES_MAX), .depth = 1};
    block.part_bytes = (uint32_t)block.bytes / (1 + random_below(&r, 5)) + 1;
    random_key(number, block.key);
    if (number % 4)
        random_key(number - 1, block.parent);
    return block;
}

static enum weft_status write_one(struct wf_tier *tier, uint64_t number)
{
    static _Alignas(WF_TIER_ALIGN) uint8_t payload[BYTES_MAX];
    struct wf_tier_request r = {.op = WF_TIER_WRITE, .data = payload, .block = block_of(number)};
    for (uint32_t i = 0; i < r.block.bytes; i++)
        payload[i] = (uint8_t)(i + number);
    return perform(tier, &r);
}

static enum weft_status flush(struct wf_tier *tier)
{
    struct wf_tier_request r = {.op = WF_TIER_FLUSH};
    return perform(tier, &r);
}

/* --------------------------------------------------------------------------------- good volumes */

static void keep(enum good which)
{
    good[which] = malloc(MEDIUM_BYTES);
    assert(good[which]);
    memcpy(good[which], medium, MEDIUM_BYTES);
}

/* Closed; as a crash leaves it, with removals and a segment without a footer; and full. */
static void make_good(void)
{
    int fd = memfd_create("weft-fuzz-nvme", MFD_CLOEXEC);
    assert(fd >= 0 && ftruncate(fd, (off_t)MEDIUM_BYTES) == 0);
    medium = mmap(NULL, MEDIUM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert(medium != MAP_FAILED);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    /* The smallest volume has four segments and can grow. */
    struct wf_tier *tier = open_it(WF_NVME_SEGMENTS_AT + 4 * SEGMENT_BYTES);
    assert(tier);
    ops->close(tier);
    tier = open_it(MEDIUM_BYTES);
    assert(tier);
    for (uint64_t i = 0; i < BLOCKS; i++)
        if (write_one(tier, i) != WEFT_OK)
            abort();
    for (uint64_t i = 0; i < BLOCKS; i += 5)
        (void)!ops->remove(tier, block_of(i).key);
    if (flush(tier) != WEFT_OK)
        abort();
    keep(CRASHED);
    ops->close(tier);
    keep(CLEAN);
    tier = open_it(MEDIUM_BYTES);
    assert(tier);
    for (uint64_t i = 100; write_one(tier, i) == WEFT_OK; i++)
        ;
    ops->close(tier);
    keep(FULL);
}

/* ---------------------------------------------------------------------------------- the changes */

static uint8_t *segment_at(uint32_t segment)
{
    return medium + WF_NVME_SEGMENTS_AT + segment * SEGMENT_BYTES;
}

/* Where a change goes: most of the medium is payload, which is little to hit. */
static uint8_t *place_of(uint32_t where)
{
    uint8_t *segment = segment_at(where % SEGMENTS);
    size_t at = where >> 16;
    switch (where >> 3 & 7) {
    case 0: return medium + at % 2 * WF_NVME_PAGE + at / 2 % 64;
    case 1: return segment + at % sizeof(struct wf_nvme_segment);
    case 2: return segment + (1 + at % 2) * WF_NVME_PAGE + at / 2 % 128;
    case 3: return segment + SEGMENT_BYTES - WF_NVME_PAGE + at % sizeof(struct wf_nvme_footer);
    case 4: return segment + SEGMENT_BYTES - 2 * WF_NVME_PAGE + at % WF_NVME_PAGE;
    case 5:
    case 6: /* a record's header, the checksums with it */
        return segment + (3 + at % 12) * WF_NVME_PAGE + at / 12 % 224;
    default: return medium + (at * 64 + (where & 0xff)) % MEDIUM_BYTES;
    }
}

static void change(uint32_t where, uint64_t value)
{
    uint8_t *to = medium + (size_t)(place_of(where) - medium) / 4 * 4;
    uint64_t word;
    switch (where >> 6 & 3) {
    case 0:
        if (to + 8 <= medium + MEDIUM_BYTES)
            memcpy(to, &value, 8);
        break;
    case 1: memcpy(to, &value, 4); break;
    case 2:
        memcpy(&word, to, 4);
        word += value;
        memcpy(to, &word, 4);
        break;
    default: { /* another page of the medium */
        size_t pages = MEDIUM_BYTES / WF_NVME_PAGE;
        uint8_t *page = medium + (size_t)(to - medium) / WF_NVME_PAGE * WF_NVME_PAGE;
        memcpy(page, medium + (WF_NVME_SEGMENTS_AT / WF_NVME_PAGE + value) % pages * WF_NVME_PAGE,
               WF_NVME_PAGE);
    }
    }
}

static bool has_magic(const uint8_t *at, uint64_t magic)
{
    return memcmp(at, &magic, sizeof magic) == 0;
}

static void seal_footer(uint8_t *page, uint64_t volume)
{
    struct wf_nvme_footer footer;
    memcpy(&footer, page, sizeof footer);
    uint64_t bytes = footer.count * sizeof(struct wf_nvme_entry);
    if (footer.count < SEGMENT_BYTES / sizeof(struct wf_nvme_entry) &&
        wf_nvme_padded(bytes) <= SEGMENT_BYTES - WF_NVME_PAGE)
        footer.entries_checksum = XXH3_64bits_withSeed(page - wf_nvme_padded(bytes), bytes, volume);
    wf_nvme_seal(&footer, WF_NVME_FOOTER_MAGIC, sizeof footer, volume);
    memcpy(page, &footer, sizeof footer);
}

static void seal_record(uint8_t *page, uint64_t volume)
{
    struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)page;
    if (record->head.bytes >= sizeof *record &&
        record->head.bytes <= (size_t)(medium + MEDIUM_BYTES - page))
        wf_nvme_seal(record, WF_NVME_RECORD_MAGIC, record->head.bytes, volume);
}

/* Whatever begins like a structure has a right checksum then. */
static void seal(void)
{
    struct wf_nvme_super super;
    memcpy(&super, medium, sizeof super);
    uint64_t volume = super.head.volume;
    for (uint8_t *page = medium; page < medium + MEDIUM_BYTES; page += WF_NVME_PAGE) {
        if (has_magic(page, WF_NVME_SUPER_MAGIC))
            wf_nvme_seal(page, WF_NVME_SUPER_MAGIC, sizeof super, volume);
        else if (has_magic(page, WF_NVME_SEGMENT_MAGIC))
            wf_nvme_seal(page, WF_NVME_SEGMENT_MAGIC, sizeof(struct wf_nvme_segment), volume);
        else if (has_magic(page, WF_NVME_DEAD_MAGIC))
            wf_nvme_seal(page, WF_NVME_DEAD_MAGIC, sizeof(struct wf_nvme_dead), volume);
        else if (has_magic(page, WF_NVME_FOOTER_MAGIC) && page >= medium + SEGMENT_BYTES)
            seal_footer(page, volume);
        else if (has_magic(page, WF_NVME_RECORD_MAGIC))
            seal_record(page, volume);
    }
}

/* ----------------------------------------------------------------------------------- what it is */

struct told {
    struct wf_tier_block blocks[BLOCKS_MAX];
    uint32_t count, all;
};

static void tell(void *context, const struct wf_tier_block *block)
{
    struct told *told = context;
    assert(block->bytes > 0 && block->bytes <= MEDIUM_BYTES && block->part_bytes > 0);
    if (told->count < BLOCKS_MAX)
        told->blocks[told->count++] = *block;
    told->all++;
}

/* Is there a record of that key with checksums that are those of what was read? */
static bool on_medium(const struct wf_tier_request *r, const struct wf_tier_block *block)
{
    for (const uint8_t *page = medium; page < medium + MEDIUM_BYTES; page += WF_NVME_PAGE) {
        const struct wf_nvme_record *record = (const struct wf_nvme_record *)(const void *)page;
        if (!has_magic(page, WF_NVME_RECORD_MAGIC) || memcmp(record->key, block->key, 32) != 0 ||
            record->bytes != block->bytes || record->part_bytes != block->part_bytes)
            continue;
        const uint8_t *data = r->data;
        uint64_t done = 0;
        uint32_t part = r->first_part;
        while (done < r->bytes) {
            uint32_t bytes = wf_tier_part_bytes(block, part);
            if (XXH3_64bits(data + done, bytes) != record->sums[part])
                break;
            done += bytes;
            part++;
        }
        if (done == r->bytes)
            return true;
    }
    return false;
}

/* Memory of just the size, so that a sanitizer sees the first byte beyond. */
static enum weft_status read_parts(struct wf_tier *tier, const struct wf_tier_block *block,
                                   uint32_t first, uint32_t count)
{
    uint64_t bytes = block->bytes;
    if (count)
        bytes = first + count < wf_tier_parts(block)
                    ? (uint64_t)count * block->part_bytes
                    : block->bytes - (uint64_t)first * block->part_bytes;
    struct wf_tier_request r = {.op = WF_TIER_READ, .first_part = first, .part_count = count};
    memcpy(r.block.key, block->key, 32);
    if (posix_memalign(&r.data, WF_TIER_ALIGN, bytes) != 0)
        abort();
    enum weft_status status = perform(tier, &r);
    assert(status != WEFT_OK || (r.bytes == bytes && on_medium(&r, block)));
    free(r.data);
    return status;
}

static void read_all(struct wf_tier *tier, const struct told *told, bool layers)
{
    for (uint32_t i = 0; i < told->count; i++) {
        struct wf_tier_block there;
        uint32_t parts = wf_tier_parts(&told->blocks[i]);
        if (layers)
            for (uint32_t part = parts < 8 ? parts : 8; part-- > 0;)
                if (ops->find(tier, told->blocks[i].key, &there))
                    (void)read_parts(tier, &told->blocks[i], part, 1);
        if (ops->find(tier, told->blocks[i].key, &there)) {
            assert(there.bytes == told->blocks[i].bytes &&
                   there.part_bytes == told->blocks[i].part_bytes);
            (void)read_parts(tier, &told->blocks[i], 0, 0);
        }
    }
}

static void tell_all(struct wf_tier *tier, struct told *told)
{
    struct wf_tier_stats stats;
    told->count = told->all = 0;
    ops->each(tier, tell, told);
    ops->stats(tier, &stats);
    assert(told->all == stats.blocks && stats.used_bytes <= UINT32_MAX);
}

/* Returns how many blocks were written and flushed.  Some of the others are removed for them. */
static uint32_t fill_up(struct wf_tier *tier, const struct told *told)
{
    uint32_t written = 0, removed = 0;
    enum weft_status status = WEFT_OK;
    while (written < WRITES_MAX && (status = write_one(tier, OWN + written)) != WEFT_E_SYSTEM) {
        if (status == WEFT_OK)
            written++;
        else if (removed < told->count)
            (void)!ops->remove(tier, told->blocks[removed++].key);
        else
            break;
    }
    assert(written < WRITES_MAX);
    return flush(tier) == WEFT_OK ? written : 0;
}

static void use(bool layers)
{
    static struct told told;
    struct wf_tier *tier = open_it(MEDIUM_BYTES);
    if (!tier)
        return;
    tell_all(tier, &told);
    read_all(tier, &told, layers);
    uint32_t written = fill_up(tier, &told);
    tell_all(tier, &told);
    read_all(tier, &told, layers);
    ops->close(tier);
    tier = open_it(MEDIUM_BYTES);
    assert(tier);
    for (uint32_t i = 0; i < written; i++) {
        struct wf_tier_block block = block_of(OWN + i);
        if (read_parts(tier, &block, 0, 0) != WEFT_OK)
            abort();
    }
    tell_all(tier, &told);
    read_all(tier, &told, layers);
    ops->close(tier);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ring;
    if (!medium && (ring = medium_has_ring()))
        make_good();
    if (!ring || size < 1 || size > 1 + CHANGES_MAX * 12)
        return 0;
    memcpy(medium, good[(data[0] & 3) % GOODS], MEDIUM_BYTES);
    for (size_t at = 1; at + 12 <= size; at += 12) {
        uint32_t where;
        uint64_t value;
        memcpy(&where, data + at, 4);
        memcpy(&value, data + at + 4, 8);
        change(where, value);
    }
    if (data[0] & SEALED)
        seal();
    use(data[0] & LAYERS);
    return 0;
}
