/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the segments that a node hands to its client: an index that is attached, searched
 * and matched, and a pin table that is attached, taken from, scanned and drained.
 *
 * The first byte says which.  The checksum of an index header is made right, because who can write
 * the header can do so as well; what is left is what bounds checks must catch.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "shm/index.h"
#include "shm/pins.h"

#define BYTES_MAX (1u << 18)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_index(void *memory, size_t bytes, const uint8_t *input, size_t input_bytes)
{
    struct wf_index index;
    uint8_t keys[8][32];
    if (bytes >= sizeof(struct wf_index_header)) {
        struct wf_index_header *header = memory;
        header->checksum = XXH3_64bits(header, offsetof(struct wf_index_header, checksum));
    }
    if (wf_index_attach(memory, bytes, &index) != WEFT_OK)
        return;
    for (size_t i = 0; i < sizeof keys; i++)
        keys[i / 32][i % 32] = input_bytes ? input[i * 7 % input_bytes] : 0;
    assert(wf_index_match(&index, keys[0], 8) <= 8);
    for (size_t i = 0; i < 8; i++) {
        struct wf_found found;
        if (wf_index_find(&index, keys[i], &found))
            assert(found.slot < index.slots_max);
    }
    wf_index_alive(&index);
}

static void seen(void *context, uint32_t slot)
{
    *(uint64_t *)context += slot;
}

static void fuzz_pins(void *memory, size_t bytes)
{
    struct wf_pins pins;
    uint32_t cursor = 0, entry;
    uint64_t sum = 0, tail = 0;
    if (wf_pins_attach(memory, bytes, &pins) != WEFT_OK)
        return;
    for (uint32_t i = 0; i < 70; i++)
        if (wf_pins_take(&pins, &cursor, i, 1, &entry)) {
            assert(entry < pins.node_first);
            if (i % 2)
                wf_pins_clear(&pins, entry);
        }
    pins.node_mark = pins.entries_max - pins.node_first; /* as a client looks at its own table */
    wf_pins_scan(&pins, seen, &sum);
    cursor = 0;
    if (wf_pins_place(&pins, &cursor, 5, 1, &entry))
        assert(entry >= pins.node_first && entry < pins.entries_max);
    wf_pins_drain(&pins, &tail, seen, &sum);
    wf_pins_touch(&pins, 3);
    wf_pins_drain(&pins, &tail, seen, &sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > BYTES_MAX)
        return 0;
    /* As long as a valid segment may be, with the input laid over a good one. */
    size_t bytes = size - 1;
    bool whole = data[0] & 2;
    if (whole)
        bytes = (data[0] & 1) ? wf_pins_bytes(96) : wf_index_bytes(64, 0);
    void *memory = aligned_alloc(WF_PAGE, (bytes + WF_PAGE) / WF_PAGE * WF_PAGE);
    assert(memory);
    memset(memory, 0, (bytes + WF_PAGE) / WF_PAGE * WF_PAGE);
    struct wf_index index;
    struct wf_pins pins;
    bool formatted = false;
    if (whole && (data[0] & 1))
        wf_pins_format(memory, 64, 32, &pins);
    else if (whole)
        formatted = wf_index_format(memory, bytes,
                                    &(struct wf_index_shape){.slots_max = 64,
                                                             .pool_bytes = 1 << 20,
                                                             .epoch = 1},
                                    &index) == WEFT_OK;
    if (formatted)
        wf_index_retire(&index);
    /* Pairs of (offset, byte) change a good segment; otherwise the input is the segment. */
    if (whole)
        for (size_t at = 1; at + 4 <= size; at += 4) {
            size_t place = (size_t)data[at] | (size_t)data[at + 1] << 8 |
                           (size_t)data[at + 2] << 16;
            ((uint8_t *)memory)[place % bytes] = data[at + 3];
        }
    else
        memcpy(memory, data + 1, bytes);
    if (data[0] & 1)
        fuzz_pins(memory, bytes);
    else
        fuzz_index(memory, bytes, data, size);
    free(memory);
    return 0;
}
