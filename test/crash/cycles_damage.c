/* SPDX-License-Identifier: Apache-2.0
 *
 * A device that lost its write cache, and one whose bits rot, played on the tier's file.
 *
 * A write may be undone as long as no sync that began after its end has ended well.  What was there
 * before it comes from the journal; a write that another overwrote is undone after that one.
 */
#include "cycles_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tier/nvme_format.h"
#include "tier/nvme_tests.h"

#define HITS_MAX 4096u
#define FLIPS_MAX 24u
#define MANIFEST_TIP_AT 80u /* in an archive's manifest (daemon/archive_format.h) */

struct pending {
    uint64_t offset, bytes;
    uint8_t *old;
    bool ended, covered;
};

static char tier_path[256], journal_path[256];
static struct pending *pending;
static uint32_t pending_count, pending_room;
static uint64_t segment_bytes;
static uint8_t hits[HITS_MAX][32];
static uint32_t hits_count;

static void broken(const char *what)
{
    fprintf(stderr, "# cycles: %s: %s\n", what, strerror(errno));
    exit(1);
}

void damage_begin(const char *tier, const char *journal)
{
    snprintf(tier_path, sizeof tier_path, "%s", tier);
    snprintf(journal_path, sizeof journal_path, "%s", journal);
}

/* ---------------------------------------------------------------------------------- torn writes */

static void write_begun(const struct wf_nvme_journal *entry, const uint8_t *old)
{
    if (pending_count == pending_room) {
        pending_room = pending_room ? 2 * pending_room : 1024;
        pending = realloc(pending, pending_room * sizeof *pending);
        if (!pending)
            broken("no memory");
    }
    struct pending *p = &pending[pending_count++];
    *p = (struct pending){.offset = entry->offset, .bytes = entry->bytes};
    p->old = malloc(entry->bytes);
    if (!p->old)
        broken("no memory");
    memcpy(p->old, old, entry->bytes);
}

static void sync_ended(void)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pending_count; i++) {
        if (pending[i].covered)
            free(pending[i].old);
        else
            pending[kept++] = pending[i];
    }
    pending_count = kept;
}

static void take_entry(const struct wf_nvme_journal *entry, const uint8_t *old)
{
    switch (entry->what) {
    case WF_NVME_WRITE_BEGUN: write_begun(entry, old); break;
    case WF_NVME_WRITE_ENDED:
        for (uint32_t i = 0; i < pending_count; i++)
            pending[i].ended |= pending[i].offset == entry->offset;
        break;
    case WF_NVME_SYNC_BEGUN:
        for (uint32_t i = 0; i < pending_count; i++)
            pending[i].covered = pending[i].ended;
        break;
    case WF_NVME_SYNC_ENDED: sync_ended(); break;
    default: break;
    }
}

void damage_node_died(void)
{
    struct stat info;
    int fd = open(journal_path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    uint64_t size = (uint64_t)info.st_size;
    const uint8_t *all = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (all == MAP_FAILED)
        broken(journal_path);
    for (uint32_t i = 0; i < pending_count; i++)
        pending[i].covered = false; /* by a sync of the node before, that nobody saw end */
    for (uint64_t at = 0; size - at >= sizeof(struct wf_nvme_journal);) {
        struct wf_nvme_journal entry;
        memcpy(&entry, all + at, sizeof entry);
        at += sizeof entry;
        uint64_t bytes = entry.what == WF_NVME_WRITE_BEGUN ? entry.bytes : 0;
        if (bytes > size - at)
            break; /* cut by the kill, before the write itself */
        take_entry(&entry, all + at);
        at += bytes;
    }
    /* With its process a write has ended, one way or the other: the next node's sync covers it. */
    for (uint32_t i = 0; i < pending_count; i++)
        pending[i].ended = true;
    munmap((void *)(uintptr_t)all, size);
    if (ftruncate(fd, 0) != 0)
        broken(journal_path);
    close(fd);
}

uint64_t damage_lose(void)
{
    uint64_t lost = pending_count;
    int fd = open(tier_path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        broken(tier_path);
    for (; pending_count > 0; pending_count--) {
        struct pending *p = &pending[pending_count - 1];
        if (pwrite(fd, p->old, p->bytes, (off_t)p->offset) != (ssize_t)p->bytes)
            broken(tier_path);
        free(p->old);
    }
    fsync(fd);
    close(fd);
    return lost;
}

enum fate { KEPT, LOST, PIECES_LOST, PIECES_ZERO };

uint64_t damage_tear(struct random_source *r)
{
    uint64_t torn = 0;
    int fd = open(tier_path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        broken(tier_path);
    /* Sometimes all that came after some point is lost, sometimes here and there a piece. */
    uint32_t from = random_below(r, 2) ? random_below(r, pending_count + 1) : UINT32_MAX;
    for (uint32_t i = pending_count; i-- > 0;) {
        struct pending *p = &pending[i];
        uint64_t piece = random_below(r, 2) ? 512 : 4096;
        enum fate fate = i >= from ? LOST : (enum fate)random_below(r, 3);
        if (fate == PIECES_LOST && random_below(r, 4) == 0)
            fate = PIECES_ZERO;
        for (uint64_t at = 0; fate != KEPT && at < p->bytes; at += piece) {
            uint64_t bytes = p->bytes - at < piece ? p->bytes - at : piece;
            if (fate != LOST && random_below(r, 2))
                continue;
            if (fate == PIECES_ZERO)
                memset(p->old + at, 0, bytes);
            if (pwrite(fd, p->old + at, bytes, (off_t)(p->offset + at)) != (ssize_t)bytes)
                broken(tier_path);
            torn++;
        }
        free(p->old);
    }
    pending_count = 0;
    fsync(fd);
    close(fd);
    return torn;
}

/* ------------------------------------------------------------------------------------ bit flips */

struct record {
    uint64_t at, header, bytes;
};

struct medium {
    uint8_t *bytes;
    uint64_t size;
    struct record *records;
    uint32_t count, room;
};

/* A name for the manifests of archives that end with a block. */
static struct name {
    uint8_t bytes[32];
} manifest_of(const uint8_t tip[32])
{
    struct name name;
    for (int i = 0; i < 32; i++)
        name.bytes[i] = (uint8_t)~tip[i];
    return name;
}

static void hit(const uint8_t key[32])
{
    if (damage_hit(key))
        return;
    if (hits_count == HITS_MAX)
        broken("more blocks with flipped bits than there is room for");
    memcpy(hits[hits_count++], key, 32);
}

bool damage_hit(const uint8_t key[32])
{
    for (uint32_t i = 0; i < hits_count; i++)
        if (memcmp(hits[i], key, 32) == 0)
            return true;
    return false;
}

void damage_healed(const uint8_t key[32])
{
    for (uint32_t i = 0; i < hits_count; i++)
        if (memcmp(hits[i], key, 32) == 0)
            memcpy(hits[i--], hits[--hits_count], 32);
}

bool damage_hit_manifest(const uint8_t tip[32])
{
    return damage_hit(manifest_of(tip).bytes);
}

/* Whatever looks like a record where it lies: also what is dead, which may be believed again when
 * the bit that says so flips. */
static void find_records(struct medium *m)
{
    for (uint64_t at = WF_NVME_SEGMENTS_AT; at + WF_NVME_PAGE <= m->size; at += WF_NVME_PAGE) {
        struct wf_nvme_record record;
        memcpy(&record, m->bytes + at, sizeof record);
        if (record.head.magic != WF_NVME_RECORD_MAGIC || record.offset != at ||
            record.bytes > m->size - at || record.head.bytes > m->size - at)
            continue;
        if (m->count == m->room) {
            m->room = m->room ? 2 * m->room : 1024;
            m->records = realloc(m->records, m->room * sizeof *m->records);
            if (!m->records)
                broken("no memory");
        }
        m->records[m->count++] = (struct record){at, wf_nvme_padded(record.head.bytes),
                                                 wf_nvme_padded(record.bytes)};
    }
}

static void hit_record(const struct medium *m, const struct record *record)
{
    const struct wf_nvme_record *head = (const void *)(m->bytes + record->at);
    const uint8_t *payload = m->bytes + record->at + record->header;
    hit(head->key);
    if (record->bytes >= WF_NVME_PAGE && memcmp(payload, "WFARCHIV", 8) == 0)
        hit(manifest_of(payload + MANIFEST_TIP_AT).bytes);
}

/* Which blocks are no worse off for being lost, when the byte at `at` goes? */
static void hit_byte(const struct medium *m, uint64_t at)
{
    uint64_t segment = at < WF_NVME_SEGMENTS_AT ? 0 : (at - WF_NVME_SEGMENTS_AT) / segment_bytes;
    uint64_t start = WF_NVME_SEGMENTS_AT + segment * segment_bytes;
    bool all = at >= start && at - start < WF_NVME_PAGE; /* its header */
    for (uint32_t i = 0; i < m->count; i++) {
        const struct record *record = &m->records[i];
        bool in = at >= record->at && at - record->at < record->header + record->bytes;
        bool there = record->at >= start && record->at - start < segment_bytes;
        if (in || (all && there))
            hit_record(m, record);
    }
}

static void flip(const struct medium *m, uint64_t at, uint32_t bit)
{
    hit_byte(m, at);
    m->bytes[at] ^= (uint8_t)(1u << bit);
}

static uint64_t place(const struct medium *m, struct random_source *r)
{
    uint32_t what = m->count ? random_below(r, 100) : 99;
    const struct record *record = m->count ? &m->records[random_below(r, m->count)] : NULL;
    if (what < 65)
        return record->at + record->header + random_next(r) % record->bytes;
    if (what < 80)
        return record->at + random_below(r, (uint32_t)sizeof(struct wf_nvme_record));
    if (what < 85) /* header and maps of a segment that is in use */
        return WF_NVME_SEGMENTS_AT +
               (record->at - WF_NVME_SEGMENTS_AT) / segment_bytes * segment_bytes +
               random_below(r, WF_NVME_RECORDS_AT);
    if (what < 90) /* footer */
        return WF_NVME_SEGMENTS_AT +
               ((record->at - WF_NVME_SEGMENTS_AT) / segment_bytes + 1) * segment_bytes - 1 -
               random_below(r, 2 * WF_NVME_PAGE);
    return WF_NVME_SEGMENTS_AT + random_next(r) % (m->size - WF_NVME_SEGMENTS_AT);
}

uint32_t damage_flip(struct random_source *r)
{
    struct medium m = {.bytes = NULL};
    struct wf_nvme_super super;
    struct stat info;
    int fd = open(tier_path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0)
        broken(tier_path);
    m.size = (uint64_t)info.st_size;
    if (m.size <= WF_NVME_SEGMENTS_AT + WF_NVME_SEGMENT_MIN) {
        close(fd);
        return 0; /* killed before it was made */
    }
    m.bytes = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m.bytes == MAP_FAILED)
        broken(tier_path);
    if (segment_bytes == 0) { /* no bit was flipped yet */
        memcpy(&super, m.bytes, sizeof super);
        if (super.head.magic != WF_NVME_SUPER_MAGIC)
            memcpy(&super, m.bytes + WF_NVME_PAGE, sizeof super);
        segment_bytes = super.head.magic == WF_NVME_SUPER_MAGIC ? super.segment_bytes : 0;
    }
    uint32_t flips = segment_bytes ? 1 + random_below(r, FLIPS_MAX) : 0;
    if (flips)
        find_records(&m);
    for (uint32_t i = 0; i < flips; i++)
        flip(&m, place(&m, r), random_below(r, 8));
    if (flips && random_below(r, 8) == 0) { /* one of the two that say what the volume is */
        flip(&m, random_below(r, 2) * WF_NVME_PAGE + random_below(r, sizeof super),
             random_below(r, 8));
        flips++;
    }
    msync(m.bytes, m.size, MS_SYNC);
    munmap(m.bytes, m.size);
    free(m.records);
    close(fd);
    return flips;
}
