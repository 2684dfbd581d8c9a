/* SPDX-License-Identifier: Apache-2.0 */
#include "wire_link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ETHERNET_BYTES 14u
#define IPV4_BYTES_MIN 20u
#define SECOND_NS UINT64_C(1000000000)

static uint64_t hash_name(const char *name, uint64_t seed)
{
    struct random_source r = {seed};
    for (; *name; name++)
        r.state = random_next(&r) ^ (uint8_t)*name;
    return random_next(&r);
}

void wire_link_init(struct wire_link *link, uint64_t seed, const char *from, const char *to)
{
    *link = (struct wire_link){.dice = {hash_name(to, hash_name(from, seed))}};
}

static bool throws(struct random_source *dice, uint32_t of_a_million)
{
    return random_below(dice, WIRE_MILLION) < of_a_million;
}

struct wire_fate wire_link_decide(struct wire_link *link, uint64_t now_ns, size_t bytes)
{
    const struct wire_faults *faults = &link->faults;
    struct wire_counts *counts = &link->counts;
    const bool lost = throws(&link->dice, faults->loss);
    const bool twice = throws(&link->dice, faults->duplicate);
    const bool overtaken = throws(&link->dice, faults->reorder);
    const bool corrupt = throws(&link->dice, faults->corrupt);
    const uint64_t spread = random_next(&link->dice);
    struct wire_fate fate = {.copies = 1, .corrupt = corrupt, .where = random_next(&link->dice)};

    counts->frames++;
    counts->bytes += bytes;
    if (faults->cut || lost) {
        *(faults->cut ? &counts->cut : &counts->lost) += 1;
        fate.copies = 0;
        return fate;
    }
    uint64_t away_ns = now_ns;
    if (faults->rate) {
        if (link->line_free_ns > away_ns)
            away_ns = link->line_free_ns;
        if (away_ns - now_ns > faults->queue_ns) {
            counts->overflowed++;
            fate.copies = 0;
            return fate;
        }
        away_ns += bytes * SECOND_NS / faults->rate;
        link->line_free_ns = away_ns;
    }
    fate.due_ns = away_ns + faults->delay_ns + spread % (faults->jitter_ns + 1);
    if (fate.due_ns < link->last_due_ns)
        fate.due_ns = link->last_due_ns;
    if (overtaken) {
        fate.due_ns += faults->reorder_ns;
        counts->reordered++;
    } else {
        link->last_due_ns = fate.due_ns;
    }
    if (twice) {
        fate.copies = 2;
        counts->duplicated++;
    }
    return fate;
}

/* Where the payload of TCP or UDP over IPv4 begins and ends; false: it is no such frame, or has
 * none. */
static bool find_payload(const uint8_t *frame, size_t bytes, size_t *from, size_t *end)
{
    if (bytes < ETHERNET_BYTES + IPV4_BYTES_MIN || frame[12] != 0x08 || frame[13] != 0x00)
        return false;
    const uint8_t *ip = frame + ETHERNET_BYTES;
    const size_t ip_bytes = (size_t)(ip[0] & 15) * 4, total = (size_t)ip[2] << 8 | ip[3];
    *end = ETHERNET_BYTES + total;
    *from = ETHERNET_BYTES + ip_bytes;
    if (*end > bytes)
        return false;
    if (ip[9] == 6 && *from + 20 <= *end)
        *from += (size_t)(frame[*from + 12] >> 4) * 4;
    else if (ip[9] == 17)
        *from += 8;
    else
        return false;
    return *from < *end;
}

static bool swap_words(uint8_t *frame, size_t bytes, uint64_t where)
{
    size_t from, end;
    if (!find_payload(frame, bytes, &from, &end) || end - from < 4)
        return false;
    /* Headers have whole words, so words of the payload are words of the sum. */
    const size_t words = (end - from) / 2;
    uint8_t *a = frame + from + 2 * (where % words);
    for (size_t i = 1; i < words; i++) {
        uint8_t *b = frame + from + 2 * ((where + i) % words);
        if (memcmp(a, b, 2) != 0) {
            uint8_t kept[2] = {a[0], a[1]};
            memcpy(a, b, 2);
            memcpy(b, kept, 2);
            return true;
        }
    }
    return false;
}

bool wire_frame_damage(uint8_t *frame, size_t bytes, uint64_t where, bool sly)
{
    if (sly)
        return swap_words(frame, bytes, where);
    if (bytes <= ETHERNET_BYTES)
        return false;
    /* Behind IP's header when there is more: what its checksum tells would not reach TCP's. */
    size_t from = ETHERNET_BYTES, end = bytes;
    if (!find_payload(frame, bytes, &from, &end)) {
        from = ETHERNET_BYTES;
        end = bytes;
    }
    frame[from + (where >> 3) % (end - from)] ^= (uint8_t)(1u << (where & 7));
    return true;
}

static bool before(const struct wire_due *a, const struct wire_due *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->sequence < b->sequence;
}

void wire_heap_add(struct wire_heap *heap, struct wire_due entry)
{
    assert(heap->count < heap->capacity);
    entry.sequence = heap->sequence++;
    uint32_t at = heap->count++;
    while (at > 0 && before(&entry, &heap->entries[(at - 1) / 2])) {
        heap->entries[at] = heap->entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->entries[at] = entry;
}

struct wire_due wire_heap_take(struct wire_heap *heap)
{
    assert(heap->count > 0);
    const struct wire_due first = heap->entries[0], last = heap->entries[--heap->count];
    uint32_t at = 0;
    for (uint32_t next = 1; next < heap->count; next = 2 * at + 1) {
        if (next + 1 < heap->count && before(&heap->entries[next + 1], &heap->entries[next]))
            next++;
        if (!before(&heap->entries[next], &last))
            break;
        heap->entries[at] = heap->entries[next];
        at = next;
    }
    heap->entries[at] = last;
    return first;
}

/* A number and its unit, which is one of `units` ("us", "ms", …) with its factor; 0 needs none. */
struct unit {
    const char *name;
    double factor;
};

static bool read_amount(const char *word, const struct unit *units, double max, uint64_t *out)
{
    char *end;
    const double number = strtod(word, &end);
    if (end == word || !(number >= 0) || number > max)
        return false;
    double factor = number > 0 ? 0 : 1;
    for (const struct unit *unit = units; unit->name && *end; unit++)
        if (strcmp(unit->name, end) == 0)
            factor = unit->factor;
    if (factor == 0 || number * factor > max)
        return false;
    *out = (uint64_t)(number * factor + 0.5);
    return true;
}

static bool read_time(const char *word, uint64_t *out)
{
    static const struct unit units[] = {{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
    return read_amount(word, units, 60e9, out);
}

static bool read_share(const char *word, uint32_t *out)
{
    static const struct unit units[] = {{"%", 1e4}, {NULL, 0}};
    uint64_t share;
    if (!read_amount(word, units, 1e6, &share))
        return false;
    *out = (uint32_t)share;
    return true;
}

static bool read_rate(const char *word, uint64_t *out)
{
    static const struct unit units[] = {{"KB", 1024.0},
                                        {"MB", 1048576.0},
                                        {"GB", 1073741824.0},
                                        {NULL, 0}};
    return read_amount(word, units, 1e12, out);
}

/* "rate 10MB [QUEUE]": so long a queue in front of it, 100 ms unless said. */
static const char *change_rate(struct wire_faults *faults, int count, char *const words[])
{
    faults->queue_ns = 100 * SECOND_NS / 1000;
    return count <= 3 && read_rate(words[1], &faults->rate) &&
                   (count == 2 || read_time(words[2], &faults->queue_ns))
               ? NULL
               : "a rate is bytes a second like 10MB, 0 for none, and how long its queue may get, "
                 "like 100ms";
}

static const char *change_times(struct wire_faults *faults, int count, char *const words[])
{
    if (strcmp(words[0], "reorder") == 0) {
        faults->reorder_ns = 10 * SECOND_NS / 1000;
        return count <= 3 && read_share(words[1], &faults->reorder) &&
                       (count == 2 || read_time(words[2], &faults->reorder_ns))
                   ? NULL
                   : "reorder takes a share like 5%, and how much later these are, like 10ms";
    }
    faults->jitter_ns = 0;
    return count <= 3 && read_time(words[1], &faults->delay_ns) &&
                   (count == 2 || read_time(words[2], &faults->jitter_ns))
               ? NULL
               : "a delay is a time like 20ms or 150us, and how much more it may be, up to 60s";
}

const char *wire_faults_change(struct wire_faults *faults, int count, char *const words[])
{
    const char *what = words[0];
    if (count == 1 && strcmp(what, "cut") == 0)
        faults->cut = true;
    else if (count == 1 && strcmp(what, "heal") == 0)
        faults->cut = false;
    else if (count == 1 && strcmp(what, "clear") == 0)
        *faults = (struct wire_faults){.cut = false};
    else if (count >= 2 && (strcmp(what, "delay") == 0 || strcmp(what, "reorder") == 0))
        return change_times(faults, count, words);
    else if (count >= 2 && strcmp(what, "rate") == 0)
        return change_rate(faults, count, words);
    else if (count == 2 && strcmp(what, "loss") == 0)
        return read_share(words[1], &faults->loss) ? NULL : "a loss is a share like 5%";
    else if (count == 2 && strcmp(what, "duplicate") == 0)
        return read_share(words[1], &faults->duplicate) ? NULL : "duplicate takes a share like 5%";
    else if (count >= 2 && strcmp(what, "corrupt") == 0) {
        faults->sly = count == 3 && strcmp(words[2], "sly") == 0;
        return count == 2 + faults->sly && read_share(words[1], &faults->corrupt)
                   ? NULL
                   : "corrupt takes a share like 1%, and `sly` where checksums shall not tell";
    } else
        return "there are cut, heal, clear, delay, loss, duplicate, reorder, rate, corrupt, stats";
    return NULL;
}
