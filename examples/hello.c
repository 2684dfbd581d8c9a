/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest program that puts a block, gets it back in place, and takes some raw memory.
 */
#include <stdio.h>
#include <string.h>

#include "weft/weft.h"

static int failed(void)
{
    fprintf(stderr, "hello: %s\n", weft_last_error());
    return 1;
}

int main(void)
{
    struct weft *w;
    if (weft_connect(NULL, &w) != WEFT_OK) /* this machine's node, or $WEFT_SOCKET */
        return failed();

    /* What a block is: 16 tokens of a model with 2 layers.  All of it is part of every key. */
    struct weft_format_spec spec = {.model = "hello@1",
                                    .layers = 2,
                                    .kv_heads = 2,
                                    .head_dim = 8,
                                    .dtype = WEFT_F32,
                                    .block_tokens = 16};
    struct weft_format *format;
    if (weft_format_open(w, &spec, &format) != WEFT_OK)
        return failed();

    /* The tokens name the block. */
    uint32_t tokens[16] = {1, 42, 7};
    struct weft_key key;
    if (weft_keys_from_tokens(format, NULL, tokens, 16, NULL, &key) != WEFT_OK)
        return failed();

    /* Put: reserve a slot of the pool, write into it, publish.  WEFT_EXISTS: somebody was here
     * before. */
    struct weft_slot slot;
    if (weft_reserve_keys(format, NULL, &key, 1, 0, &slot) != WEFT_OK)
        return failed();
    if (slot.status == WEFT_OK)
        memset(slot.data, 'w', weft_format_block_bytes(format));
    if (weft_commit_slots(format, &slot, 1) != WEFT_OK)
        return failed();

    /* Get: hold it, read it where it lies, let it go.  No system call, no copy. */
    struct weft_pin pin;
    if (weft_pin(format, &key, &pin) != WEFT_OK)
        return failed();
    printf("a block of %zu bytes, the first of them '%c'\n", (size_t)pin.bytes,
           *(const char *)pin.data);
    weft_unpin(&pin);

    /* Raw memory from the same pool: zeroed, and gone with its last holder. */
    struct weft_region *region;
    void *memory;
    if (weft_allocate(w, "1MB", WEFT_LATENCY_NORMAL, WEFT_SHARE_PRIVATE, NULL, &region, &memory) !=
        WEFT_OK)
        return failed();
    snprintf(memory, weft_region_bytes(region), "hello");
    printf("a region of %zu bytes that says %s\n", weft_region_bytes(region), (const char *)memory);
    weft_release(region);

    weft_format_close(format);
    weft_close(w);
    return 0;
}
