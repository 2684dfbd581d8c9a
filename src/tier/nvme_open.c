/* SPDX-License-Identifier: Apache-2.0
 *
 * What the medium of the NVMe tier has, found again.
 *
 * All that is read is untrusted.  A segment with a footer costs one read of its first pages, one of
 * its last and one of its entries; of one without, every record is read and verified, and it gets
 * its footer now, so that it is done once.
 *
 * Nothing that was found is believed to be durable before the sync at the end: the device may have
 * answered from a cache.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"

#define PROBE_BYTES (4 * WF_NVME_PAGE) /* of a segment: header, dead maps, footer */
#define PROBES_AT_A_TIME 64u

struct recovery {
    struct wf_nvme *t;
    uint8_t *probes;
    uint8_t *segment; /* room for one */
    uint64_t last_sequence, scanned, dropped;
};

static bool geometry_fits(uint64_t segment_bytes, uint64_t segments)
{
    return segment_bytes >= WF_NVME_SEGMENT_MIN && segment_bytes <= WF_NVME_SEGMENT_MAX &&
           segment_bytes % WF_NVME_PAGE == 0 && segments >= WF_NVME_SEGMENTS_LEAST &&
           segments < UINT32_MAX && segments <= (UINT64_MAX >> 1) / segment_bytes;
}

static bool super_valid(const uint8_t *page, struct wf_nvme_super *out)
{
    struct wf_nvme_head head;
    memcpy(&head, page, sizeof head);
    memcpy(out, page, sizeof *out);
    return wf_nvme_sealed(page, WF_NVME_SUPER_MAGIC, sizeof *out, head.volume) &&
           head.bytes == sizeof *out && geometry_fits(out->segment_bytes, out->segments);
}

static enum weft_status make_volume(struct wf_nvme *t, uint64_t bytes, struct wf_nvme_super *out)
{
    if (bytes < WF_NVME_SEGMENTS_AT + WF_NVME_SEGMENTS_LEAST * (uint64_t)WF_NVME_SEGMENT_MIN)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a capacity of %llu bytes is too small; give %u or more", t->path,
                       (unsigned long long)bytes,
                       WF_NVME_SEGMENTS_AT + WF_NVME_SEGMENTS_LEAST * WF_NVME_SEGMENT_MIN);
    uint64_t room = bytes - WF_NVME_SEGMENTS_AT, segment = room / 64;
    if (segment < 4u << 20)
        segment = 4u << 20;
    if (segment > WF_NVME_SEGMENT_MAX)
        segment = WF_NVME_SEGMENT_MAX;
    if (segment > room / WF_NVME_SEGMENTS_LEAST)
        segment = room / WF_NVME_SEGMENTS_LEAST;
    segment -= segment % WF_NVME_PAGE;
    uint64_t volume;
    if (getrandom(&volume, sizeof volume, 0) != sizeof volume)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    *out = (struct wf_nvme_super){.head.volume = volume,
                                  .segment_bytes = segment,
                                  .segments = room / segment};
    return WEFT_OK;
}

/* The volume's description, or a new one where there are nothing but zeros. */
static enum weft_status read_super(struct wf_nvme *t, uint64_t bytes, uint64_t capacity,
                                   uint8_t *pages, struct wf_nvme_super *out, bool *out_new)
{
    struct wf_nvme_super super[2];
    uint64_t wanted = capacity ? capacity : bytes;
    memset(pages, 0, 2 * WF_NVME_PAGE);
    if (pread(t->fd_buffered, pages, 2 * WF_NVME_PAGE, 0) < 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: cannot be read: %s; look at the device", t->path,
                       strerror(errno));
    bool first = super_valid(pages, &super[0]);
    bool second = super_valid(pages + WF_NVME_PAGE, &super[1]);
    *out_new = false;
    if (first || second) {
        *out = first && (!second || super[0].epoch >= super[1].epoch) ? super[0] : super[1];
        uint64_t had = WF_NVME_SEGMENTS_AT + out->segments * out->segment_bytes;
        if (wanted >= had + out->segment_bytes)
            out->segments = (wanted - WF_NVME_SEGMENTS_AT) / out->segment_bytes;
        else if (wanted < had && capacity)
            return wf_fail(WEFT_E_INVALID,
                           "tier %s: it was made with %llu bytes and cannot shrink to %llu; give "
                           "that much, or another path",
                           t->path, (unsigned long long)had, (unsigned long long)capacity);
        return WEFT_OK;
    }
    for (uint32_t i = 0; i < 2 * WF_NVME_PAGE; i++)
        if (pages[i])
            return wf_fail(WEFT_E_INVALID,
                           "tier %s: holds something else; erase its first 8 KiB to have it "
                           "overwritten, or give another path",
                           t->path);
    if (wanted == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: a new file needs a capacity; give one", t->path);
    *out_new = true;
    return make_volume(t, wanted, out);
}

static enum weft_status write_super(struct wf_nvme *t, const struct wf_nvme_super *super,
                                    uint8_t *page)
{
    struct wf_nvme_super sealed = *super;
    sealed.epoch = t->epoch;
    wf_nvme_seal(&sealed, WF_NVME_SUPER_MAGIC, sizeof sealed, super->head.volume);
    memset(page, 0, WF_NVME_PAGE);
    memcpy(page, &sealed, sizeof sealed);
    enum weft_status status = wf_nvme_pwrite(t, page, WF_NVME_PAGE, (t->epoch & 1) * WF_NVME_PAGE);
    if (status == WEFT_OK && fdatasync(t->fd) != 0)
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: fdatasync: %s; look at the device", t->path,
                         strerror(errno));
    return status;
}

/* ------------------------------------------------------------------------------------ segments */

static bool is_dead(const struct wf_nvme *t, uint32_t segment, uint32_t page)
{
    uint32_t bit = page / (WF_NVME_RECORD_MIN / WF_NVME_PAGE);
    return t->dead[(uint64_t)segment * t->dead_words + bit / 64] >> bit % 64 & 1;
}

/* A record that is whole: of two with one key the one with the higher sequence stays. */
static void take_up(struct recovery *r, uint32_t segment, const struct wf_tier_block *block,
                    uint64_t sequence, uint32_t page)
{
    struct wf_nvme *t = r->t;
    if (sequence > r->last_sequence)
        r->last_sequence = sequence;
    if (is_dead(t, segment, page))
        return;
    uint32_t other = wf_nvme_index_find(&t->index, block->key);
    if (other != WF_NVME_NONE && t->index.items[other].sequence >= sequence) {
        wf_nvme_kill(t, segment, page);
        return;
    }
    if (other != WF_NVME_NONE)
        wf_nvme_forget(t, other);
    if (wf_nvme_index_insert(&t->index, block, sequence, segment, page) == WF_NVME_NONE) {
        r->dropped++;
        wf_nvme_kill(t, segment, page);
        return;
    }
    t->segment[segment].live_bytes += wf_nvme_record_bytes(block);
    t->stats.used_bytes += wf_nvme_record_bytes(block);
}

/* May a block of that shape lie at `page`?  Bounds before use. */
static bool shape_fits(const struct wf_nvme *t, const struct wf_tier_block *block, uint64_t page)
{
    if (block->bytes == 0 || block->bytes > t->segment_bytes || block->part_bytes == 0 ||
        block->part_bytes > WF_TIER_PART_BYTES_MAX ||
        (block->bytes - 1) / block->part_bytes >= WF_TIER_PARTS_MAX)
        return false;
    uint64_t at = page * WF_NVME_PAGE;
    return at >= WF_NVME_RECORDS_AT && at < t->segment_bytes &&
           wf_nvme_record_bytes(block) <= t->segment_bytes - at;
}

static bool by_footer(struct recovery *r, uint32_t segment, const uint8_t *page)
{
    struct wf_nvme *t = r->t;
    struct wf_nvme_footer footer;
    memcpy(&footer, page, sizeof footer);
    if (!wf_nvme_sealed(page, WF_NVME_FOOTER_MAGIC, sizeof footer, t->volume) ||
        footer.head.bytes != sizeof footer || footer.number != segment ||
        footer.generation != t->segment[segment].generation ||
        footer.count > t->segment_bytes / WF_NVME_RECORD_MIN)
        return false;
    uint64_t bytes = wf_nvme_footer_bytes(footer.count) - WF_NVME_PAGE;
    uint64_t at = wf_nvme_segment_at(t, segment) + t->segment_bytes - WF_NVME_PAGE - bytes;
    if (bytes > t->segment_bytes - WF_NVME_PAGE - WF_NVME_RECORDS_AT ||
        (bytes && wf_nvme_pread(t, r->segment, bytes, at) != WEFT_OK) ||
        XXH3_64bits_withSeed(r->segment, footer.count * sizeof(struct wf_nvme_entry), t->volume) !=
            footer.entries_checksum)
        return false;
    const struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)r->segment;
    for (uint64_t i = 0; i < footer.count; i++) {
        const struct wf_nvme_entry *e = &entries[i];
        struct wf_tier_block block = {.depth = e->depth,
                                      .part_bytes = e->part_bytes,
                                      .bytes = e->bytes};
        memcpy(block.key, e->key, 32);
        memcpy(block.parent, e->parent, 32);
        memcpy(block.format, e->format, 32);
        if (shape_fits(t, &block, e->page))
            take_up(r, segment, &block, e->sequence, e->page);
    }
    return true;
}

/* Returns the record's bytes; 0 when there is none.  *out_good: its payload is whole too. */
static uint64_t scan_record(const struct wf_nvme *t, uint32_t segment, const uint8_t *memory,
                            uint64_t at, struct wf_tier_block *out, uint64_t *out_sequence,
                            bool *out_good)
{
    const struct wf_nvme_record *record = (const struct wf_nvme_record *)(const void *)(memory +
                                                                                        at);
    uint64_t left = t->segment_bytes - at;
    if (left < WF_NVME_RECORD_MIN ||
        !wf_nvme_sealed(record, WF_NVME_RECORD_MAGIC,
                        left < WF_NVME_HEADER_MAX ? left : WF_NVME_HEADER_MAX, t->volume) ||
        record->head.bytes < sizeof *record ||
        record->generation != t->segment[segment].generation ||
        record->offset != wf_nvme_segment_at(t, segment) + at)
        return 0;
    *out = (struct wf_tier_block){.depth = record->depth,
                                  .part_bytes = record->part_bytes,
                                  .bytes = record->bytes};
    memcpy(out->key, record->key, 32);
    memcpy(out->parent, record->parent, 32);
    memcpy(out->format, record->format, 32);
    if (!shape_fits(t, out, at / WF_NVME_PAGE) ||
        record->head.bytes != sizeof *record + wf_tier_parts(out) * 8ull)
        return 0;
    *out_sequence = record->sequence;
    *out_good = true;
    const uint8_t *payload = memory + at + wf_nvme_header_bytes(wf_tier_parts(out));
    for (uint32_t i = 0; *out_good && i < wf_tier_parts(out); i++)
        *out_good = XXH3_64bits(payload + (uint64_t)i * out->part_bytes,
                                wf_tier_part_bytes(out, i)) == record->sums[i];
    return wf_nvme_record_bytes(out);
}

/* Whole records up to the first that is not one; then the footer that is missing. */
static enum weft_status by_scan(struct recovery *r, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    uint8_t *footer = t->writer[0].footer;
    struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)footer;
    enum weft_status status = wf_nvme_pread(t, r->segment, t->segment_bytes,
                                            wf_nvme_segment_at(t, segment));
    uint64_t at = WF_NVME_RECORDS_AT, bytes, sequence;
    uint32_t count = 0;
    struct wf_tier_block block;
    bool good;
    r->scanned++;
    while (status == WEFT_OK &&
           (bytes = scan_record(t, segment, r->segment, at, &block, &sequence, &good))) {
        uint32_t page = (uint32_t)(at / WF_NVME_PAGE);
        if (good) {
            entries[count] = (struct wf_nvme_entry){.sequence = sequence,
                                                    .bytes = block.bytes,
                                                    .depth = block.depth,
                                                    .part_bytes = block.part_bytes,
                                                    .page = page};
            memcpy(entries[count].key, block.key, 32);
            memcpy(entries[count].parent, block.parent, 32);
            memcpy(entries[count].format, block.format, 32);
            count++;
            take_up(r, segment, &block, sequence, page);
        } else {
            r->dropped++;
        }
        at += bytes;
    }
    if (at + wf_nvme_footer_bytes(count) > t->segment_bytes || status != WEFT_OK)
        return WEFT_OK; /* as it is; it will be scanned again */
    if (fdatasync(t->fd) != 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: fdatasync: %s; look at the device", t->path,
                       strerror(errno));
    uint64_t offset = wf_nvme_footer_make(t, footer, segment, count, &bytes);
    return wf_nvme_pwrite(t, footer, bytes, offset);
}

static void read_dead(struct wf_nvme *t, uint32_t segment, const uint8_t *pages)
{
    struct wf_nvme_seg *s = &t->segment[segment];
    struct wf_nvme_dead dead;
    for (uint32_t i = 0; i < 2; i++) {
        const uint8_t *page = pages + i * WF_NVME_PAGE;
        memcpy(&dead, page, sizeof dead);
        if (!wf_nvme_sealed(page, WF_NVME_DEAD_MAGIC, sizeof dead, t->volume) ||
            dead.head.bytes != sizeof dead || dead.number != segment ||
            dead.generation != s->generation || dead.serial <= s->dead_serial ||
            (dead.serial & 1) != i)
            continue;
        s->dead_serial = dead.serial;
        memcpy(t->dead + (uint64_t)segment * t->dead_words, dead.bits, t->dead_words * 8);
    }
}

static enum weft_status recover_segment(struct recovery *r, uint32_t segment, const uint8_t *probe)
{
    struct wf_nvme *t = r->t;
    struct wf_nvme_segment header;
    memcpy(&header, probe, sizeof header);
    struct wf_nvme_seg *s = &t->segment[segment];
    if (!wf_nvme_sealed(probe, WF_NVME_SEGMENT_MAGIC, sizeof header, t->volume) ||
        header.head.bytes != sizeof header || header.number != segment ||
        header.use != WF_NVME_USED) {
        t->free_count++;
        return WEFT_OK;
    }
    s->generation = header.generation;
    s->state = WF_NVME_SEGMENT_CLOSED;
    if (header.generation > r->last_sequence)
        r->last_sequence = header.generation;
    read_dead(t, segment, probe + WF_NVME_PAGE);
    return by_footer(r, segment, probe + 3 * WF_NVME_PAGE) ? WEFT_OK : by_scan(r, segment);
}

/* First and last pages of `count` segments, all at once. */
static enum weft_status probe(struct recovery *r, uint32_t first, uint32_t count)
{
    struct wf_nvme *t = r->t;
    uint32_t pending = 0;
    bool bad = false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = wf_nvme_segment_at(t, first + i);
        uint8_t *into = r->probes + (uint64_t)i * PROBE_BYTES;
        for (uint32_t last = 0; last < 2; last++) {
            struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_READ);
            if (!io)
                return wf_fail(WEFT_E_SYSTEM, "tier %s: no I/O left at open; raise queue_depth",
                               t->path);
            io->vector[0] = (struct iovec){into + (last ? 3 * WF_NVME_PAGE : 0),
                                           last ? WF_NVME_PAGE : 3 * WF_NVME_PAGE};
            io->vectors = 1;
            io->offset = last ? at + t->segment_bytes - WF_NVME_PAGE : at;
            pending++;
            wf_nvme_io_start(t, io);
        }
    }
    while (pending > 0) {
        struct io_uring_cqe *cqe;
        if (io_uring_wait_cqe(&t->ring, &cqe) != 0)
            continue;
        struct wf_nvme_io *io = io_uring_cqe_get_data(cqe);
        bad |= cqe->res < 0 || (uint64_t)cqe->res != io->expected;
        io_uring_cqe_seen(&t->ring, cqe);
        wf_nvme_io_put(t, io);
        pending--;
    }
    return bad ? wf_fail(WEFT_E_SYSTEM, "tier %s: cannot be read; look at the device", t->path)
               : WEFT_OK;
}

static enum weft_status recover_all(struct wf_nvme *t)
{
    struct recovery r = {.t = t};
    uint32_t batch = WF_NVME_INNER / 2 < PROBES_AT_A_TIME ? WF_NVME_INNER / 2 : PROBES_AT_A_TIME;
    r.probes = wf_nvme_pages((uint64_t)batch * PROBE_BYTES, "opening a tier");
    r.segment = wf_nvme_pages(t->segment_bytes, "opening a tier");
    enum weft_status status = r.probes && r.segment ? WEFT_OK : WEFT_E_NO_MEMORY;
    for (uint32_t first = 0; status == WEFT_OK && first < t->segments; first += batch) {
        uint32_t count = t->segments - first < batch ? t->segments - first : batch;
        status = probe(&r, first, count);
        for (uint32_t i = 0; status == WEFT_OK && i < count; i++)
            status = recover_segment(&r, first + i, r.probes + (uint64_t)i * PROBE_BYTES);
    }
    if (r.last_sequence >> WF_NVME_EPOCH_SHIFT > t->epoch)
        t->epoch = r.last_sequence >> WF_NVME_EPOCH_SHIFT;
    if (status == WEFT_OK && (r.scanned || r.dropped))
        wf_info("nvme", "%s: %llu segments were not closed; %llu torn records cut", t->path,
                (unsigned long long)r.scanned, (unsigned long long)r.dropped);
    if (r.probes)
        munmap(r.probes, (uint64_t)batch * PROBE_BYTES);
    if (r.segment)
        munmap(r.segment, t->segment_bytes);
    return status;
}

static enum weft_status make_tables(struct wf_nvme *t)
{
    uint64_t records = t->segment_bytes / WF_NVME_RECORD_MIN;
    t->dead_words = (uint32_t)((records + 63) / 64);
    t->segment = wf_nvme_pages((uint64_t)t->segments * sizeof *t->segment, "segments");
    t->dead = wf_nvme_pages((uint64_t)t->segments * t->dead_words * 8, "dead maps");
    t->reclaim.moved = wf_nvme_pages((records + 1) * sizeof *t->reclaim.moved, "moves");
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++) {
        t->writer[i].segment = WF_NVME_NONE;
        t->writer[i].footer = wf_nvme_pages(wf_nvme_footer_bytes(records + 1), "footers");
        if (!t->writer[i].footer)
            return WEFT_E_NO_MEMORY;
    }
    uint64_t lines = 256;
    while (lines < 65536 && lines < t->segments * t->segment_bytes >> 20)
        lines *= 2;
    t->sums_count = (uint32_t)lines;
    t->sums = wf_nvme_pages(lines * sizeof *t->sums, "checksums");
    if (!t->segment || !t->dead || !t->reclaim.moved || !t->sums)
        return WEFT_E_NO_MEMORY;
    return wf_nvme_index_init(&t->index, t->segments * records, t->segments);
}

/* `bytes`: what the medium has; `capacity`: what was asked for, 0: that. */
enum weft_status wf_nvme_recover(struct wf_nvme *t, uint64_t bytes, uint64_t capacity)
{
    struct wf_nvme_super super;
    bool fresh;
    uint8_t *pages = wf_nvme_pages(2 * WF_NVME_PAGE, "opening a tier");
    if (!pages)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = read_super(t, bytes, capacity, pages, &super, &fresh);
    if (status == WEFT_OK) {
        t->volume = super.head.volume;
        t->segment_bytes = super.segment_bytes;
        t->segments = (uint32_t)super.segments;
        t->epoch = super.epoch;
        status = wf_nvme_medium_extend(t,
                                       WF_NVME_SEGMENTS_AT + super.segments * super.segment_bytes);
    }
    if (status == WEFT_OK)
        status = make_tables(t);
    if (status == WEFT_OK && fresh)
        t->free_count = t->segments;
    else if (status == WEFT_OK)
        status = recover_all(t);
    t->epoch++;
    if (status == WEFT_OK)
        status = write_super(t, &super, pages);
    if (status == WEFT_OK && fresh) { /* the other copy too */
        t->epoch++;
        status = write_super(t, &super, pages);
    }
    t->next_sequence = t->epoch << WF_NVME_EPOCH_SHIFT;
    munmap(pages, 2 * WF_NVME_PAGE);
    return status;
}
