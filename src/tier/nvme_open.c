/* SPDX-License-Identifier: Apache-2.0
 *
 * What the medium of the NVMe tier has, found again.
 *
 * All that is read is untrusted.  Many segments are read at a time, in three passes: the first
 * pages and the last of each, which say what it is; the entries of those that have a footer; and
 * all of those that have none, whose every record is verified and which get their footers now, so
 * that it is done once.  A segment that cannot be read, when others can, is tried again a few
 * times, for an archive with a block in it would be damaged; then it is left alone until the next
 * time.
 *
 * Nothing that was found is believed to be durable before the sync at the end: the device may have
 * answered from a cache.
 *
 * Memory beyond the index: WF_NVME_PIECES times one segment's entries (1 MiB at most),
 * 64 bytes a segment, 8 a block, and one whole segment when there is one without a footer.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"

#define HEADLESS UINT32_MAX /* the `number` of a footer whose segment has no first page */
#define SCAN_PIECE (1u << 20)
#define PREFETCH_AHEAD 8u
#define READ_TRIES 4u        /* of a segment that cannot be read, */
#define READ_REST_US 100000u /* with so long between the first two, and doubled each time */
#define FIRST_BYTES (WF_NVME_RECORDS_AT + WF_NVME_PAGE) /* with the first record's head */

enum pass { PROBING, ENTERING };

/* A piece of memory, and the segment that is read into it. */
struct piece {
    uint8_t *memory;
    uint32_t segment, pending;
    bool bad;
};

struct recovery {
    struct wf_nvme *t;
    struct piece piece[WF_NVME_PIECES];
    uint64_t piece_bytes;
    uint8_t *segment;              /* room for one; NULL: not needed yet */
    struct wf_nvme_footer *footer; /* of each segment; magic 0: it has none */
    uint64_t *sequence;            /* of each item */
    uint64_t last_sequence, scanned, dropped, unreadable, foreign;
    bool resuming, again; /* again: what could not be read is read once more */
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
           head.bytes == sizeof *out && out->epoch <= WF_NVME_EPOCH_MAX &&
           geometry_fits(out->segment_bytes, out->segments);
}

static enum weft_status make_volume(struct wf_nvme *t, uint64_t bytes, struct wf_nvme_super *out)
{
    static_assert(WF_TIER_NVME_BYTES_LEAST ==
                      WF_NVME_SEGMENTS_AT + WF_NVME_SEGMENTS_LEAST * WF_NVME_SEGMENT_MIN,
                  "tier.h says what the format needs");
    if (bytes < WF_TIER_NVME_BYTES_LEAST)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a capacity of %llu bytes is too small; give %u or more", t->path,
                       (unsigned long long)bytes, WF_TIER_NVME_BYTES_LEAST);
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

/* What the first two pages say.  *out_new: nothing, and `out` is not set. */
static enum weft_status super_choose(const char *path, const uint8_t *pages, uint64_t wanted,
                                     struct wf_nvme_super *out, bool *out_new, bool *out_both)
{
    struct wf_nvme_super super[2];
    bool first = super_valid(pages, &super[0]);
    bool second = super_valid(pages + WF_NVME_PAGE, &super[1]);
    *out_new = !first && !second;
    *out_both = first && second;
    if (first || second) {
        *out = first && (!second || super[0].epoch >= super[1].epoch) ? super[0] : super[1];
        uint64_t had = WF_NVME_SEGMENTS_AT + out->segments * out->segment_bytes;
        if (wanted < had)
            return wf_fail(WEFT_E_INVALID,
                           "tier %s: it was made with %llu bytes and cannot shrink to %llu; give "
                           "that much, or another path",
                           path, (unsigned long long)had, (unsigned long long)wanted);
        return WEFT_OK;
    }
    struct wf_nvme_head head;
    memcpy(&head, pages, sizeof head);
    if (head.magic == WF_NVME_SUPER_MAGIC && head.version != WF_NVME_VERSION)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: it was written in version %u of the format, and this node knows "
                       "version %u; give another path, or make it empty",
                       path, head.version, WF_NVME_VERSION);
    for (uint32_t i = 0; i < 2 * WF_NVME_PAGE; i++)
        if (pages[i])
            return wf_fail(WEFT_E_INVALID,
                           "tier %s: holds something else, which is left as it is; give another "
                           "path (nothing but a tier's own is ever overwritten: what you are sure "
                           "that nobody needs, first make empty)",
                           path);
    return WEFT_OK;
}

enum weft_status wf_tier_nvme_check(const char *path, uint64_t capacity)
{
    uint8_t pages[2 * WF_NVME_PAGE];
    struct wf_nvme_super super;
    bool is_new, both;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t bytes = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    memset(pages, 0, sizeof pages);
    ssize_t got = bytes >= 0 ? pread(fd, pages, sizeof pages, 0) : -1;
    if (fd >= 0)
        close(fd);
    if (got < 0) /* the one who opens it for writing has the better sentence */
        return WEFT_OK;
    return super_choose(path, pages, capacity ? capacity : (uint64_t)bytes, &super, &is_new, &both);
}

/* The volume's description, or a new one where there are nothing but zeros. */
static enum weft_status read_super(struct wf_nvme *t, uint64_t bytes, uint64_t capacity,
                                   uint8_t *pages, struct wf_nvme_super *out, bool *out_new,
                                   bool *out_both)
{
    uint64_t wanted = capacity ? capacity : bytes;
    memset(pages, 0, 2 * WF_NVME_PAGE);
    if (pread(t->fd_buffered, pages, 2 * WF_NVME_PAGE, 0) < 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: cannot be read: %s; look at the device", t->path,
                       strerror(errno));
    enum weft_status status = super_choose(t->path, pages, wanted, out, out_new, out_both);
    if (status != WEFT_OK)
        return status;
    if (!*out_new) {
        if (geometry_fits(out->segment_bytes, (wanted - WF_NVME_SEGMENTS_AT) / out->segment_bytes))
            out->segments = (wanted - WF_NVME_SEGMENTS_AT) / out->segment_bytes;
        return WEFT_OK;
    }
    if (wanted == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: a new file needs a capacity; give one", t->path);
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
    return status == WEFT_OK ? wf_nvme_sync(t) : status;
}

/* ------------------------------------------------------------------------------------ segments */

static bool is_dead(const struct wf_nvme *t, uint32_t segment, uint32_t page)
{
    uint32_t bit = page / (WF_NVME_RECORD_MIN / WF_NVME_PAGE);
    return t->dead[(uint64_t)segment * t->dead_words + bit / 64] >> bit % 64 & 1;
}

/* A record that is whole: of two with one key the one with the higher sequence stays.  Of a record
 * and its copy, the copy in the segment to go on in, whose victim is to become empty; it is synced
 * before any map can say that the other is dead. */
static void take_up(struct recovery *r, uint32_t segment, const struct wf_tier_block *block,
                    uint64_t sequence, uint32_t page)
{
    struct wf_nvme *t = r->t;
    if (sequence >> WF_NVME_EPOCH_SHIFT > WF_NVME_EPOCH_MAX)
        return;
    if (sequence > r->last_sequence)
        r->last_sequence = sequence;
    if (is_dead(t, segment, page))
        return;
    uint32_t item = wf_nvme_index_find(&t->index, block->key);
    bool copied = item != WF_NVME_NONE && r->resuming && r->sequence[item] == sequence;
    if (item != WF_NVME_NONE && r->sequence[item] >= sequence && !copied) {
        wf_nvme_kill(t, segment, page);
        return;
    }
    if (item != WF_NVME_NONE)
        wf_nvme_forget(t, item);
    item = wf_nvme_index_insert(&t->index, block, segment, page);
    if (item == WF_NVME_NONE) {
        r->dropped++;
        wf_nvme_kill(t, segment, page);
        return;
    }
    r->sequence[item] = sequence;
    t->segment[segment].live_bytes += wf_nvme_record_bytes(block);
    t->stats.used_bytes += wf_nvme_record_bytes(block);
}

static void take_entries(struct recovery *r, uint32_t segment, const uint8_t *memory)
{
    struct wf_nvme *t = r->t;
    const struct wf_nvme_footer *footer = &r->footer[segment];
    const struct wf_nvme_entry *entries = (const struct wf_nvme_entry *)(const void *)memory;
    for (uint64_t i = 0; i < footer->count; i++) {
        struct wf_tier_block block;
        if (i + PREFETCH_AHEAD < footer->count)
            wf_nvme_index_prefetch(&t->index, entries[i + PREFETCH_AHEAD].key);
        if (wf_nvme_entry_block(t, &entries[i], &block))
            take_up(r, segment, &block, entries[i].sequence, entries[i].page);
    }
    t->segment[segment].entries = (uint32_t)footer->count;
}

static void read_start(struct wf_nvme *t, uint32_t tag, uint8_t *into, uint64_t bytes,
                       uint64_t offset)
{
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_READ); /* there is one: see PIECES */
    io->segment = tag;
    io->offset = offset;
    io->vector[0] = (struct iovec){into, bytes};
    io->vectors = 1;
    wf_nvme_io_start(t, io);
}

/* Returns the tag of a read that has ended. */
static uint32_t read_end(struct wf_nvme *t, bool *out_good)
{
    struct io_uring_cqe *cqe;
    struct wf_nvme_io *io;
    int result;
    do {
        while (io_uring_wait_cqe(&t->ring, &cqe) != 0)
            ;
        io = io_uring_cqe_get_data(cqe);
        result = cqe->res;
        io_uring_cqe_seen(&t->ring, cqe);
    } while (!wf_nvme_io_ended(t, io, &result));
    *out_good = result >= 0 && (uint64_t)result == io->expected;
    wf_nvme_io_put(t, io);
    return io->segment;
}

static bool read_segment(struct recovery *r, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    uint64_t begun = 0, pending = 0;
    bool all = true, good;
    while (begun < t->segment_bytes || pending) {
        if (begun < t->segment_bytes && pending < WF_NVME_PIECES) {
            uint64_t left = t->segment_bytes - begun, bytes = left < SCAN_PIECE ? left : SCAN_PIECE;
            read_start(t, 0, r->segment + begun, bytes, wf_nvme_segment_at(t, segment) + begun);
            begun += bytes;
            pending++;
        } else {
            (void)read_end(t, &good);
            all &= good;
            pending--;
        }
    }
    return all;
}

static void unreadable(struct recovery *r, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    t->stats.errors++;
    t->segment[segment].state = WF_NVME_SEGMENT_BAD;
    r->unreadable++;
}

static void unreadable_say(const struct wf_nvme *t)
{
    for (uint32_t i = 0; i < t->segments; i++)
        if (t->segment[i].state == WF_NVME_SEGMENT_BAD)
            wf_warn("nvme",
                    "%s: segment %u cannot be read; its blocks are not found, and it is not used",
                    t->path, i);
}

/* The next record behind one whose header is not whole, so that its length is not known.  What was
 * torn by a crash has none that counts behind it, but a bit that flipped may have. */
static const struct wf_nvme_record *next_record(const struct wf_nvme *t, uint32_t segment,
                                                const uint8_t *memory, uint64_t *at,
                                                struct wf_tier_block *out)
{
    const struct wf_nvme_record *record = NULL;
    for (; !record && *at + WF_NVME_RECORD_MIN <= t->segment_bytes;
         *at += record ? 0 : WF_NVME_PAGE)
        record = wf_nvme_record_at(t, segment, *at, memory + *at, t->segment_bytes - *at, out);
    return record;
}

/* All whole records; returns how many entries there are, and where the last one ends. */
static uint32_t scan(struct recovery *r, uint32_t segment, struct wf_nvme_entry *entries,
                     uint64_t *out_end)
{
    struct wf_nvme *t = r->t;
    const struct wf_nvme_record *record;
    struct wf_tier_block block;
    uint64_t at = WF_NVME_RECORDS_AT;
    uint32_t count = 0;
    *out_end = at;
    while ((record = next_record(t, segment, r->segment, &at, &block))) {
        uint32_t page = (uint32_t)(at / WF_NVME_PAGE);
        const uint8_t *payload = r->segment + at + wf_nvme_header_bytes(wf_tier_parts(&block));
        at += wf_nvme_record_bytes(&block);
        if (!wf_nvme_payload_right(&block, record->sums, payload)) {
            r->dropped++;
            continue;
        }
        wf_nvme_entry_make(&entries[count++], &block, record->sequence, page);
        take_up(r, segment, &block, record->sequence, page);
        *out_end = at;
    }
    return count;
}

/* The segment takes records again from `end` on.  Those that were removed there are no more. */
static void resume_at(struct wf_nvme *t, uint32_t segment, uint32_t count, uint64_t end)
{
    struct wf_nvme_seg *s = &t->segment[segment];
    uint64_t *dead = t->dead + (uint64_t)segment * t->dead_words;
    for (uint64_t bit = end / WF_NVME_RECORD_MIN; bit < t->dead_words * 64ull; bit++) {
        if (!(dead[bit / 64] >> bit % 64 & 1))
            continue;
        dead[bit / 64] &= ~(1ull << bit % 64);
        t->dirty_count += !s->dirty;
        s->dirty = true;
    }
    s->state = WF_NVME_SEGMENT_OPEN;
    t->writer[0].segment = segment;
    t->writer[0].used = end;
    t->writer[0].count = count;
    t->writer[0].ready = true;
    t->writer[0].held = WF_NVME_NONE;
    t->active[wf_nvme_stream_of(t, true)] = 0;
}

static void read_dead(struct wf_nvme *t, uint32_t segment, const uint8_t *pages);

/* Whose use of a segment its records are, where neither its first page nor its footer tells: the
 * last one has the highest number.  False: there are none. */
static bool generation_find(struct recovery *r, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    uint64_t found = 0;
    for (uint64_t at = WF_NVME_RECORDS_AT; at + WF_NVME_RECORD_MIN <= t->segment_bytes;
         at += WF_NVME_PAGE) {
        uint64_t room = t->segment_bytes - at;
        struct wf_nvme_record record;
        memcpy(&record, r->segment + at, sizeof record);
        if (record.generation > found &&
            record.generation >> WF_NVME_EPOCH_SHIFT <= WF_NVME_EPOCH_MAX &&
            record.head.bytes >= sizeof record &&
            record.offset == wf_nvme_segment_at(t, segment) + at &&
            wf_nvme_sealed(r->segment + at, WF_NVME_RECORD_MAGIC,
                           room < WF_NVME_HEADER_MAX ? room : WF_NVME_HEADER_MAX, t->volume))
            found = record.generation;
    }
    t->segment[segment].generation = found;
    if (found > r->last_sequence)
        r->last_sequence = found;
    if (found)
        read_dead(t, segment, r->segment + WF_NVME_PAGE);
    return found != 0;
}

/* Nothing of it can be told from what an earlier use left there. */
static void taken_back(struct recovery *r, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    wf_warn("nvme",
            "%s: segment %u has neither a first page, nor a footer, nor a record that can be read; "
            "what was in it, if anything, is lost, and it is used anew",
            t->path, segment);
    t->stats.corrupt++;
    t->segment[segment].state = WF_NVME_SEGMENT_FREE;
    t->free_count++;
}

/* A segment without a footer: what is whole in it, and then the footer that is missing. */
static enum weft_status by_scan(struct recovery *r, uint32_t segment, bool resume)
{
    struct wf_nvme *t = r->t;
    uint8_t *footer = t->writer[0].footer;
    uint64_t end, bytes;
    if (!r->segment)
        r->segment = wf_nvme_pages(t->segment_bytes, "opening a tier");
    if (!r->segment)
        return WEFT_E_NO_MEMORY;
    r->scanned++;
    bool read = read_segment(r, segment);
    for (uint32_t tries = 1; !read && tries < READ_TRIES; tries++) {
        usleep(READ_REST_US << (tries - 1));
        read = read_segment(r, segment);
    }
    if (!read) {
        unreadable(r, segment);
        return WEFT_OK;
    }
    if (t->segment[segment].generation == 0 && !generation_find(r, segment)) {
        taken_back(r, segment);
        return WEFT_OK;
    }
    r->resuming = resume;
    uint32_t count = scan(r, segment, (struct wf_nvme_entry *)(void *)footer, &end);
    if (resume) {
        resume_at(t, segment, count, end);
        return WEFT_OK;
    }
    if (end + wf_nvme_footer_bytes(count) > t->segment_bytes)
        return WEFT_OK; /* as it is; it will be scanned again */
    enum weft_status status = wf_nvme_sync(t);
    if (status != WEFT_OK)
        return status;
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

/* Does any of the structures that are looked at first name this volume, whole or not? */
static bool is_ours(const struct wf_nvme *t, const uint8_t *memory)
{
    struct wf_nvme_head head;
    for (uint32_t at = 0; at <= FIRST_BYTES; at += WF_NVME_PAGE) {
        memcpy(&head, memory + at, sizeof head);
        if (head.volume == t->volume)
            return true;
    }
    return false;
}

/* Never used, or used by an earlier volume, whose whole header it may have. */
static bool is_blank(const uint8_t *memory)
{
    struct wf_nvme_head head;
    memcpy(&head, memory, sizeof head);
    if (wf_nvme_sealed(memory, WF_NVME_SEGMENT_MAGIC, sizeof(struct wf_nvme_segment), head.volume))
        return true;
    for (uint32_t i = 0; i < WF_NVME_PAGE; i++)
        if (memory[i])
            return false;
    return true;
}

/* A segment whose first page says nothing, though its footer does: it was closed, and that page has
 * rotted, or was torn when the segment was about to be used anew.  Or the footer says nothing
 * either: its records tell whose they are.  They are verified one by one, after those of all other
 * segments: what was moved or written over since is not taken. */
static bool headless(struct recovery *r, uint32_t segment, const uint8_t *memory)
{
    struct wf_nvme *t = r->t;
    struct wf_nvme_seg *s = &t->segment[segment];
    struct wf_nvme_footer footer;
    memcpy(&footer, memory + FIRST_BYTES, sizeof footer);
    s->generation = footer.generation;
    bool told = footer.generation >> WF_NVME_EPOCH_SHIFT <= WF_NVME_EPOCH_MAX &&
                wf_nvme_footer_right(t, &footer, segment);
    if (!told) {
        s->generation = 0;
        if (is_blank(memory))
            return false;
        if (!is_ours(t, memory)) {
            r->foreign++;
            return false;
        }
    }
    wf_warn("nvme", "%s: the first page of segment %u is damaged%s; its blocks are looked for",
            t->path, segment, told ? "" : ", and its footer is missing or damaged");
    if (s->generation > r->last_sequence)
        r->last_sequence = s->generation;
    s->state = WF_NVME_SEGMENT_CLOSED;
    if (told)
        read_dead(t, segment, memory + WF_NVME_PAGE);
    r->footer[segment].head.magic = 0;
    r->footer[segment].number = HEADLESS;
    return true;
}

/* The first pages of a segment, and behind them its last. */
static void probed(struct recovery *r, uint32_t segment, const uint8_t *memory)
{
    struct wf_nvme *t = r->t;
    struct wf_nvme_seg *s = &t->segment[segment];
    struct wf_nvme_segment header;
    memcpy(&header, memory, sizeof header);
    bool right = wf_nvme_sealed(memory, WF_NVME_SEGMENT_MAGIC, sizeof header, t->volume) &&
                 header.head.bytes == sizeof header && header.number == segment &&
                 header.generation >> WF_NVME_EPOCH_SHIFT <= WF_NVME_EPOCH_MAX;
    if (right && header.generation > r->last_sequence)
        r->last_sequence = header.generation;
    if (!right && headless(r, segment, memory))
        return;
    if (!right || header.use != WF_NVME_USED) {
        t->free_count++;
        if (right && header.use == WF_NVME_FREE)
            wf_nvme_discard_mark(t, segment);
        return;
    }
    s->generation = header.generation;
    s->state = WF_NVME_SEGMENT_CLOSED;
    read_dead(t, segment, memory + WF_NVME_PAGE);
    memcpy(&r->footer[segment], memory + FIRST_BYTES, sizeof r->footer[segment]);
    if (!wf_nvme_footer_right(t, &r->footer[segment], segment))
        r->footer[segment] = (struct wf_nvme_footer){.head.magic = 0};
}

static void entered(struct recovery *r, uint32_t segment, const uint8_t *memory)
{
    if (wf_nvme_entries_right(r->t, &r->footer[segment], memory))
        take_entries(r, segment, memory);
    else
        r->footer[segment].head.magic = 0;
}

/* Begin to read what the pass wants of a segment; false: nothing. */
static bool piece_start(struct recovery *r, enum pass pass, uint32_t index, uint32_t segment)
{
    struct wf_nvme *t = r->t;
    struct piece *p = &r->piece[index];
    uint64_t at = wf_nvme_segment_at(t, segment), end = at + t->segment_bytes;
    uint64_t bytes = wf_nvme_footer_bytes(r->footer[segment].count) - WF_NVME_PAGE;
    if (pass == ENTERING && (!r->footer[segment].head.magic || !bytes))
        return false;
    if (r->again && t->segment[segment].state != WF_NVME_SEGMENT_BAD)
        return false;
    if (r->again) {
        t->segment[segment].state = WF_NVME_SEGMENT_FREE;
        r->unreadable--;
    }
    *p = (struct piece){.memory = p->memory, .segment = segment, .pending = 1};
    if (pass == ENTERING) {
        read_start(t, index, p->memory, bytes, end - WF_NVME_PAGE - bytes);
        return true;
    }
    p->pending = 2;
    read_start(t, index, p->memory, FIRST_BYTES, at);
    read_start(t, index, p->memory + FIRST_BYTES, WF_NVME_PAGE, end - WF_NVME_PAGE);
    return true;
}

static void piece_end(struct recovery *r, enum pass pass, const struct piece *p)
{
    if (p->bad && pass == ENTERING)
        r->footer[p->segment].head.magic = 0;
    else if (p->bad)
        unreadable(r, p->segment);
    else if (pass == PROBING)
        probed(r, p->segment, p->memory);
    else
        entered(r, p->segment, p->memory);
}

static void read_all(struct recovery *r, enum pass pass)
{
    struct wf_nvme *t = r->t;
    uint32_t next = 0, busy = 0, idle[WF_NVME_PIECES], idle_count = WF_NVME_PIECES;
    bool good;
    for (uint32_t i = 0; i < WF_NVME_PIECES; i++)
        idle[i] = i;
    while (next < t->segments || busy) {
        if (next < t->segments && idle_count) {
            if (piece_start(r, pass, idle[idle_count - 1], next++)) {
                idle_count--;
                busy++;
            }
            continue;
        }
        uint32_t index = read_end(t, &good);
        struct piece *p = &r->piece[index];
        p->bad |= !good;
        if (--p->pending == 0) {
            piece_end(r, pass, p);
            idle[idle_count++] = index;
            busy--;
        }
    }
}

static enum weft_status read_passes(struct recovery *r)
{
    struct wf_nvme *t = r->t;
    enum weft_status status = WEFT_OK;
    uint64_t blocks = 0;
    read_all(r, PROBING);
    if (r->unreadable == t->segments)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: cannot be read; look at the device", t->path);
    r->again = true;
    for (uint32_t tries = 1; r->unreadable && tries < READ_TRIES; tries++) {
        usleep(READ_REST_US << (tries - 1));
        read_all(r, PROBING);
    }
    r->again = false;
    for (uint32_t i = 0; i < t->segments; i++)
        blocks += r->footer[i].head.magic ? r->footer[i].count : 0;
    wf_nvme_index_expect(&t->index, blocks);
    read_all(r, ENTERING);
    uint32_t last = WF_NVME_NONE;
    for (uint32_t i = 0; status == WEFT_OK && i < t->segments; i++) {
        if (t->segment[i].state != WF_NVME_SEGMENT_CLOSED || r->footer[i].head.magic ||
            r->footer[i].number == HEADLESS)
            continue;
        /* The youngest comes last: it may be the one to go on in. */
        uint32_t now = last;
        if (last == WF_NVME_NONE || t->segment[i].generation > t->segment[last].generation)
            last = i;
        else
            now = i;
        if (now != WF_NVME_NONE)
            status = by_scan(r, now, false);
    }
    for (uint32_t i = 0; status == WEFT_OK && i < t->segments; i++)
        if (r->footer[i].number == HEADLESS)
            status = by_scan(r, i, false);
    if (status == WEFT_OK && last != WF_NVME_NONE)
        status = by_scan(r, last, t->free_count == 0);
    unreadable_say(t);
    return status;
}

static enum weft_status recover_all(struct wf_nvme *t)
{
    struct recovery r = {.t = t};
    enum weft_status status = WEFT_E_NO_MEMORY;
    uint64_t footers = t->segments * sizeof *r.footer;
    uint64_t sequences = t->index.items_max * sizeof *r.sequence;
    r.piece_bytes = wf_nvme_footer_bytes(t->segment_bytes / WF_NVME_RECORD_MIN);
    if (r.piece_bytes < FIRST_BYTES + WF_NVME_PAGE)
        r.piece_bytes = FIRST_BYTES + WF_NVME_PAGE;
    uint8_t *pieces = wf_nvme_pages(WF_NVME_PIECES * r.piece_bytes, "opening a tier");
    r.footer = wf_nvme_pages(footers, "opening a tier");
    r.sequence = wf_nvme_pages(sequences, "opening a tier");
    for (uint32_t i = 0; pieces && i < WF_NVME_PIECES; i++)
        r.piece[i].memory = pieces + i * r.piece_bytes;
    if (pieces && r.footer && r.sequence)
        status = read_passes(&r);
    if (r.last_sequence >> WF_NVME_EPOCH_SHIFT > t->epoch)
        t->epoch = r.last_sequence >> WF_NVME_EPOCH_SHIFT;
    if (status == WEFT_OK && (r.scanned || r.dropped))
        wf_info("nvme", "%s: %llu segment%s not closed; %llu torn record%s cut", t->path,
                (unsigned long long)r.scanned, r.scanned == 1 ? " was" : "s were",
                (unsigned long long)r.dropped, r.dropped == 1 ? "" : "s");
    if (status == WEFT_OK && r.foreign)
        wf_info("nvme", "%s: %llu segment%s something that is not the tier's; it is overwritten",
                t->path, (unsigned long long)r.foreign, r.foreign == 1 ? " holds" : "s hold");
    if (pieces)
        munmap(pieces, WF_NVME_PIECES * r.piece_bytes);
    if (r.footer)
        munmap(r.footer, footers);
    if (r.sequence)
        munmap(r.sequence, sequences);
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
    t->reclaim.origins = wf_nvme_pages((records + 1) * sizeof *t->reclaim.origins, "moves");
    t->reclaim.footer = wf_nvme_pages(wf_nvme_footer_bytes(records + 1), "moves");
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
    if (!t->segment || !t->dead || !t->reclaim.origins || !t->reclaim.footer || !t->sums)
        return WEFT_E_NO_MEMORY;
    return wf_nvme_index_init(&t->index, t->segments * records);
}

/* `bytes`: what the medium has; `capacity`: what was asked for, 0: that. */
enum weft_status wf_nvme_recover(struct wf_nvme *t, uint64_t bytes, uint64_t capacity)
{
    struct wf_nvme_super super;
    bool fresh, both;
    uint8_t *pages = wf_nvme_pages(2 * WF_NVME_PAGE, "opening a tier");
    if (!pages)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = read_super(t, bytes, capacity, pages, &super, &fresh, &both);
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
    if (status == WEFT_OK && fresh) {
        for (uint32_t i = 0; i < t->segments; i++)
            wf_nvme_discard_mark(t, i);
        t->free_count = t->segments;
    } else if (status == WEFT_OK)
        status = recover_all(t);
    /* A higher one would not be believed at the next open, and all would be lost. */
    if (status == WEFT_OK && t->epoch + 2 > WF_NVME_EPOCH_MAX)
        status = wf_fail(WEFT_E_INVALID,
                         "tier %s: it was opened %llu times, which is the most; erase its first 8 "
                         "KiB to have it made anew",
                         t->path, (unsigned long long)t->epoch);
    t->epoch++;
    if (status == WEFT_OK)
        status = write_super(t, &super, pages);
    if (status == WEFT_OK && !both) { /* there are two again, before the next bit flips */
        t->epoch++;
        status = write_super(t, &super, pages);
    }
    t->next_sequence = t->epoch << WF_NVME_EPOCH_SHIFT;
    t->reclaim.look = true;
    munmap(pages, 2 * WF_NVME_PAGE);
    return status;
}
