/* SPDX-License-Identifier: Apache-2.0
 *
 * See watch.h for the layout, the memory order and what a crash leaves.
 */
#include "shm/watch.h"

#include <string.h>

#include "base/hooks.h"
#include "sys/clock.h"
#include "sys/futex.h"

/* How often a reader that was overtaken looks again before it counts that as nothing yet. */
#define OVERTAKEN_MAX 16
/* Looks at the line between two looks at the clock. */
#define SPINS_A_CLOCK 32

static uint64_t slot_bytes_for(uint64_t record_bytes)
{
    uint64_t bytes = sizeof(struct wf_watch_slot) + record_bytes;
    return (bytes + WF_WATCH_LINE - 1) / WF_WATCH_LINE * WF_WATCH_LINE;
}

uint64_t wf_watch_bytes(uint64_t record_bytes)
{
    if (record_bytes > UINT64_MAX / (2 * WF_WATCH_SLOTS))
        return UINT64_MAX;
    return sizeof(struct wf_watch_header) + sizeof(struct wf_watch_line) +
           WF_WATCH_SLOTS * slot_bytes_for(record_bytes);
}

static struct wf_watch_slot *slot_of(const struct wf_watch *watch, uint64_t sequence)
{
    size_t at = (size_t)(sequence % WF_WATCH_SLOTS * watch->slot_bytes);
    return (struct wf_watch_slot *)(void *)(watch->slots + at);
}

static struct wf_watch view(void *memory, uint64_t record_bytes)
{
    uint8_t *start = memory;
    return (struct wf_watch){
        .header = (struct wf_watch_header *)(void *)start,
        .line = (struct wf_watch_line *)(void *)(start + sizeof(struct wf_watch_header)),
        .slots = start + sizeof(struct wf_watch_header) + sizeof(struct wf_watch_line),
        .record_bytes = record_bytes,
        .slot_bytes = slot_bytes_for(record_bytes),
    };
}

/* ----------------------------------------------------------------------------- lay out, attach */

enum weft_status wf_watch_attach(const void *memory, size_t bytes, struct wf_watch *out)
{
    if ((uintptr_t)memory % WF_WATCH_LINE || bytes < wf_watch_bytes(1))
        return wf_fail(WEFT_E_INVALID,
                       "a region of %zu bytes is too small to be watched; allocate at least %llu",
                       bytes, (unsigned long long)wf_watch_bytes(1));
    /* The cast drops const for the view; a reader stores nothing. */
    struct wf_watch watch = view((void *)(uintptr_t)memory, 0);
    struct wf_watch_header *header = watch.header;
    /* Acquire: pairs with the release in wf_watch_format. */
    uint64_t magic = atomic_load_explicit(&header->magic, memory_order_acquire);
    if (magic == 0)
        return WEFT_PENDING;
    uint32_t version = atomic_load_explicit(&header->version, memory_order_relaxed);
    if (magic != WF_WATCH_MAGIC || version != WF_WATCH_VERSION ||
        atomic_load_explicit(&header->slots, memory_order_relaxed) != WF_WATCH_SLOTS)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the region holds no records of version %u; its writer must call "
                       "weft_watch_create, of the same libweft",
                       WF_WATCH_VERSION);
    uint64_t record_bytes = atomic_load_explicit(&header->record_bytes, memory_order_relaxed);
    uint64_t slot_bytes = atomic_load_explicit(&header->slot_bytes, memory_order_relaxed);
    if (record_bytes == 0 || wf_watch_bytes(record_bytes) > bytes ||
        slot_bytes != slot_bytes_for(record_bytes))
        return wf_fail(WEFT_E_PROTOCOL,
                       "the region of %zu bytes claims records of %llu bytes, which do not fit; "
                       "its writer is broken",
                       bytes, (unsigned long long)record_bytes);
    *out = view((void *)(uintptr_t)memory, record_bytes);
    return WEFT_OK;
}

enum weft_status wf_watch_format(void *memory, size_t bytes, size_t record_bytes,
                                 struct wf_watch *out)
{
    if (record_bytes == 0)
        return wf_fail(WEFT_E_INVALID, "records of 0 bytes say nothing; give at least 1");
    if (wf_watch_bytes(record_bytes) > bytes)
        return wf_fail(WEFT_E_INVALID,
                       "records of %zu bytes do not fit a region of %zu; allocate at least %llu",
                       record_bytes, bytes, (unsigned long long)wf_watch_bytes(record_bytes));
    enum weft_status status = wf_watch_attach(memory, bytes, out);
    if (status == WEFT_OK) {
        if (out->record_bytes != record_bytes)
            return wf_fail(WEFT_E_INVALID,
                           "the region is laid out for records of %llu bytes, not %zu; give that "
                           "size or allocate another region",
                           (unsigned long long)out->record_bytes, record_bytes);
        out->last = atomic_load_explicit(&out->line->newest, memory_order_acquire);
        return WEFT_OK;
    }
    if (status != WEFT_PENDING)
        return status;
    *out = view(memory, record_bytes);
    atomic_store_explicit(&out->header->version, WF_WATCH_VERSION, memory_order_relaxed);
    atomic_store_explicit(&out->header->slots, WF_WATCH_SLOTS, memory_order_relaxed);
    atomic_store_explicit(&out->header->record_bytes, record_bytes, memory_order_relaxed);
    atomic_store_explicit(&out->header->slot_bytes, out->slot_bytes, memory_order_relaxed);
    WF_CRASH("watch.format.before_magic");
    /* Release: pairs with the acquire in wf_watch_attach. */
    atomic_store_explicit(&out->header->magic, WF_WATCH_MAGIC, memory_order_release);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------- publish */

static void store_words(struct wf_watch_slot *slot, const uint8_t *from, size_t bytes)
{
    size_t words = bytes / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word;
        memcpy(&word, from + 8 * i, 8);
        atomic_store_explicit(&slot->words[i], word, memory_order_release);
    }
    if (bytes % 8) {
        uint64_t word = 0;
        memcpy(&word, from + 8 * words, bytes % 8);
        atomic_store_explicit(&slot->words[words], word, memory_order_release);
    }
}

static void load_words(const struct wf_watch_slot *slot, uint8_t *to, size_t bytes)
{
    size_t words = bytes / 8;
    for (size_t i = 0; i < words; i++) {
        uint64_t word = atomic_load_explicit(&slot->words[i], memory_order_acquire);
        memcpy(to + 8 * i, &word, 8);
    }
    if (bytes % 8) {
        uint64_t word = atomic_load_explicit(&slot->words[words], memory_order_acquire);
        memcpy(to + 8 * words, &word, bytes % 8);
    }
}

enum weft_status wf_watch_publish(struct wf_watch *watch, const void *record, size_t bytes)
{
    if (bytes > watch->record_bytes)
        return wf_fail(WEFT_E_INVALID,
                       "a record of %zu bytes is longer than the %llu that the region is laid out "
                       "for; shorten it or lay out another region",
                       bytes, (unsigned long long)watch->record_bytes);
    if (atomic_load_explicit(&watch->line->newest, memory_order_relaxed) != watch->last)
        return wf_fail(WEFT_E_BUSY,
                       "another writer has published to this region; a region has one writer");
    uint64_t sequence = watch->last + 1;
    struct wf_watch_slot *slot = slot_of(watch, sequence);
    atomic_store_explicit(&slot->sequence, WF_WATCH_TORN, memory_order_relaxed);
    atomic_store_explicit(&slot->bytes, bytes, memory_order_release);
    WF_CRASH("watch.publish.torn");
    store_words(slot, record, bytes);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
    WF_CRASH("watch.publish.before_newest");
    atomic_store_explicit(&watch->line->newest, sequence, memory_order_release);
    watch->last = sequence;
    WF_CRASH("watch.publish.before_wake");
    atomic_store_explicit(&watch->line->wake, (uint32_t)sequence, memory_order_release);
    wf_futex_wake_all(&watch->line->wake);
    return WEFT_OK;
}

/* ---------------------------------------------------------------------------------------- next */

/* One look.  WEFT_PENDING also when the writer overtook every try. */
static enum weft_status look(const struct wf_watch *watch, uint64_t *sequence, void *record,
                             size_t capacity, size_t *out_bytes)
{
    for (int tries = 0; tries < OVERTAKEN_MAX; tries++) {
        uint64_t newest = atomic_load_explicit(&watch->line->newest, memory_order_acquire);
        if (newest <= *sequence)
            return WEFT_PENDING;
        const struct wf_watch_slot *slot = slot_of(watch, newest);
        if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != newest)
            continue;
        uint64_t bytes = atomic_load_explicit(&slot->bytes, memory_order_acquire);
        size_t fitting = bytes <= watch->record_bytes && bytes <= capacity ? (size_t)bytes : 0;
        load_words(slot, record, fitting);
        /* The second look; watch.h says why relaxed is enough. */
        if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != newest)
            continue;
        if (bytes > watch->record_bytes)
            return wf_fail(WEFT_E_PROTOCOL,
                           "a watched record claims %llu bytes of at most %llu; its writer is "
                           "broken",
                           (unsigned long long)bytes, (unsigned long long)watch->record_bytes);
        if (bytes > capacity)
            return wf_fail(WEFT_E_INVALID,
                           "the record has %llu bytes and there is room for %zu; give a larger "
                           "buffer",
                           (unsigned long long)bytes, capacity);
        *sequence = newest;
        *out_bytes = fitting;
        return WEFT_OK;
    }
    return WEFT_PENDING;
}

enum weft_status wf_watch_next(const struct wf_watch *watch, uint64_t *sequence, void *record,
                               size_t capacity, size_t *out_bytes, uint32_t spin_us,
                               uint32_t timeout_ms)
{
    enum weft_status status = look(watch, sequence, record, capacity, out_bytes);
    if (status != WEFT_PENDING || (spin_us == 0 && timeout_ms == 0))
        return status;
    uint64_t start = wf_now_ns();
    for (unsigned spins = 1; spin_us; spins++) {
        if (atomic_load_explicit(&watch->line->newest, memory_order_relaxed) > *sequence) {
            status = look(watch, sequence, record, capacity, out_bytes);
            if (status != WEFT_PENDING)
                return status;
        }
        wf_cpu_relax();
        if (spins % SPINS_A_CLOCK == 0 && wf_now_ns() - start >= (uint64_t)spin_us * 1000)
            break;
    }
    for (;;) {
        /* The word first, the record second: a record published in between changes the word, and
         * the kernel then refuses to put us to sleep. */
        uint32_t wake = atomic_load_explicit(&watch->line->wake, memory_order_acquire);
        status = look(watch, sequence, record, capacity, out_bytes);
        uint64_t passed = wf_now_ns() - start, limit = (uint64_t)timeout_ms * 1000000;
        if (status != WEFT_PENDING || passed >= limit)
            return status;
        wf_futex_wait(&watch->line->wake, wake, limit - passed);
    }
}
