/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains whose every key and byte follow from their number, as tests of archives and tiers put them
 * and read them back.
 */
#ifndef TEST_SUPPORT_CHAINS_H
#define TEST_SUPPORT_CHAINS_H

#include <stdint.h>

#include "payload.h"
#include "weft/weft.h"

#define CHAIN_BLOCKS_MAX 64u

static inline void keys_of(struct weft_format *f, uint64_t chain, uint32_t count,
                           struct weft_key *out)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t name[2] = {chain, i};
        assert_int_equal(weft_key_from_bytes(f, name, sizeof name, &out[i]), WEFT_OK);
    }
}

/* As many of the chain's first `count` blocks as there is room for; returns how many are there. */
static inline uint32_t chain_put(struct weft_format *f, uint64_t chain, uint32_t count)
{
    struct weft_key keys[CHAIN_BLOCKS_MAX];
    struct weft_slot slots[CHAIN_BLOCKS_MAX];
    uint32_t there = 0;
    assert_in_range(count, 1, CHAIN_BLOCKS_MAX);
    keys_of(f, chain, count, keys);
    assert_int_equal(weft_reserve_keys(f, NULL, keys, count, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, weft_format_block_bytes(f), keys[i].bytes);
    assert_int_equal(weft_commit_slots(f, slots, count), WEFT_OK);
    while (there < count && (slots[there].status == WEFT_OK || slots[there].status == WEFT_EXISTS))
        there++;
    return there;
}

/* How many of them come, from the first on; each is right. */
static inline uint32_t chain_get(struct weft_format *f, uint64_t chain, uint32_t count)
{
    struct weft_key keys[CHAIN_BLOCKS_MAX];
    struct weft_pins pins;
    uint32_t found = 0;
    assert_in_range(count, 1, CHAIN_BLOCKS_MAX);
    keys_of(f, chain, count, keys);
    assert_int_equal(weft_get_keys(f, keys, count, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    enum weft_status status = WEFT_OK;
    while (found < pins.blocks && status == WEFT_OK) {
        status = weft_wait_block(&pins, found);
        assert_true(status == WEFT_OK || status == WEFT_MISS);
        if (status == WEFT_OK &&
            !payload_right(pins.data[found], weft_format_block_bytes(f), keys[found].bytes))
            fail_msg("block %u of chain %llu has wrong bytes", found, (unsigned long long)chain);
        found += status == WEFT_OK;
    }
    weft_pins_release(&pins);
    return found;
}

#endif
