/* SPDX-License-Identifier: Apache-2.0
 *
 * Watched records: one writer publishes, any number of readers in other processes see each record
 * whole or not at all.  A slow reader gets the newest record and not every one.
 *
 *     0       +--------------------------------------------------------------------+
 *             | struct wf_watch_header: magic, version, geometry (never changes)   |
 *     64      +--------------------------------------------------------------------+
 *             | struct wf_watch_line: newest sequence number, the word to sleep on |
 *     128     +--------------------------------------------------------------------+
 *             | WF_WATCH_SLOTS slots of slot_bytes each, a multiple of 64:         |
 *             |   struct wf_watch_slot: sequence, bytes; then the record, padded   |
 *             +--------------------------------------------------------------------+
 *
 * Record n (from 1) lies in slot n % WF_WATCH_SLOTS.  The writer marks that slot as torn, writes
 * the record, gives the slot its number n, and then says that n is the newest.  So:
 *
 *   - what `newest` names is whole, and stays whole while the next WF_WATCH_SLOTS - 1 records are
 *     written.  A reader that is even slower finds the slot's number changed and looks again.
 *   - a writer that dies at any instruction has torn only the slot of the record after the newest,
 *     which no reader looks at.  The next writer goes on from the newest.
 *
 * Memory order.  Words of a record are stored with release and loaded with acquire, which costs
 * nothing on x86.  It takes the place of the two fences that a sequence lock with relaxed words
 * needs (Boehm, "Can seqlocks get along with programming language memory models?", 2012), because
 * ThreadSanitizer does not know fences:
 *
 *     writer                                       reader
 *     slot.sequence = TORN      relaxed            n = newest                acquire (b)
 *     words                     release (a)        slot.sequence == n ?      acquire (c)
 *     slot.sequence = n         release (c)        words                     acquire (a)
 *     newest = n                release (b)        slot.sequence == n ?      relaxed
 *     wake = n (low half)       release
 *
 * A reader that loads a word of a later record by (a) also sees the TORN before it, or a later
 * value, and its second look at the number fails.
 *
 * Sleeping.  Readers may have a read-only mapping, on which FUTEX_WAIT works, but a count of
 * sleepers does not: they could not write it, and on a shared line it would be theirs to corrupt.
 * So the writer makes the wake-up call after every record.  With nobody asleep it costs a fraction
 * of a microsecond, and it comes after `newest` is published, so that spinning readers never wait
 * for it.
 *
 * Readers trust nothing that they read: the geometry is checked once against the size of their own
 * mapping and kept in their own memory, and a record's length is checked every time.  A writer that
 * lies can make them see garbage as a record, but not read outside the mapping nor wait longer than
 * they asked.
 */
#ifndef WF_SHM_WATCH_H
#define WF_SHM_WATCH_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_WATCH_MAGIC 0x3148435457544657u /* "WFTWTCH1", little-endian */
#define WF_WATCH_VERSION 1u
#define WF_WATCH_SLOTS 8u
#define WF_WATCH_LINE 64u
#define WF_WATCH_TORN UINT64_MAX

struct wf_watch_header {
    _Atomic uint64_t magic; /* stored last */
    _Atomic uint32_t version;
    _Atomic uint32_t slots;
    _Atomic uint64_t record_bytes; /* the most that a record may have */
    _Atomic uint64_t slot_bytes;
    uint64_t reserved[4];
};
static_assert(sizeof(struct wf_watch_header) == 64, "the header is one cache line");

/* Readers that spin look at this line alone. */
struct wf_watch_line {
    _Atomic uint64_t newest; /* 0: no record yet */
    _Atomic uint32_t wake;
    uint32_t reserved[13];
};
static_assert(sizeof(struct wf_watch_line) == 64, "the line is one cache line");
static_assert(offsetof(struct wf_watch_line, wake) == 8, "the word to sleep on is at 8");

struct wf_watch_slot {
    _Atomic uint64_t sequence; /* 0: never written; WF_WATCH_TORN: being written */
    _Atomic uint64_t bytes;
    _Atomic uint64_t words[];
};
static_assert(sizeof(struct wf_watch_slot) == 16, "the record follows at 16");

/* One side's view.  Geometry is this process's own copy. */
struct wf_watch {
    struct wf_watch_header *header;
    struct wf_watch_line *line;
    uint8_t *slots;
    uint64_t record_bytes;
    uint64_t slot_bytes;
    uint64_t last; /* writer: the number of the record that it published last */
};

/* Bytes that a region needs for records of up to `record_bytes`. */
uint64_t wf_watch_bytes(uint64_t record_bytes);

/* Writer: lay out `memory`, which is zero, or go on where another writer stopped.  One writer at a
 * time.  WEFT_E_INVALID: the region is too small, or laid out for records of another size. */
enum weft_status wf_watch_format(void *memory, size_t bytes, size_t record_bytes,
                                 struct wf_watch *out);

/* Reader: WEFT_PENDING when nobody has laid it out; WEFT_E_PROTOCOL when it holds something else.
 */
enum weft_status wf_watch_attach(const void *memory, size_t bytes, struct wf_watch *out);

/* Writer.  WEFT_E_INVALID: too long.  WEFT_E_BUSY: another writer has published in between. */
enum weft_status wf_watch_publish(struct wf_watch *watch, const void *record, size_t bytes);

/* Reader: the newest record with a number above *sequence, whole, into `record`.  Spins for
 * spin_us, then sleeps until timeout_ms have passed since the call.  WEFT_PENDING when none came.
 * WEFT_E_INVALID: it has more than `capacity` bytes; *sequence stays. */
enum weft_status wf_watch_next(const struct wf_watch *watch, uint64_t *sequence, void *record,
                               size_t capacity, size_t *out_bytes, uint32_t spin_us,
                               uint32_t timeout_ms);

#endif
