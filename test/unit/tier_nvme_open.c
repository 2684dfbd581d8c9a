/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier opened: numbers that are never used twice, and what a volume says of itself.
 *
 * Volumes are changed here as only who can write the device can change them: with right checksums.
 */
#include "../support/nvme_world.h"

#include <xxhash.h>

#include "tier/nvme_log.h"

static void look(const struct world *w, void *out, size_t bytes, uint64_t at)
{
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, out, bytes, (off_t)at), bytes);
    close(fd);
}

static void change(const struct world *w, const void *from, size_t bytes, uint64_t at)
{
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, from, bytes, (off_t)at), bytes);
    close(fd);
}

static struct wf_nvme_super super_of(const struct world *w)
{
    struct wf_nvme_super super;
    look(w, &super, sizeof super, 0);
    return super;
}

/* The sequence of block n's record, as it lies there; 0: there is none. */
static uint64_t sequence_of(const struct world *w, uint64_t n)
{
    struct wf_tier_block block = block_of(n);
    struct wf_nvme_record record;
    for (uint64_t at = WF_NVME_SEGMENTS_AT; at < CAPACITY; at += WF_NVME_PAGE) {
        look(w, &record, sizeof record, at);
        if (record.head.magic == WF_NVME_RECORD_MAGIC && !memcmp(record.key, block.key, 32))
            return record.sequence;
    }
    return 0;
}

/* Block n of segment 0 gets another sequence, in its footer, which is what is believed. */
static void entry_sequence(const struct world *w, uint64_t n, uint64_t sequence)
{
    struct wf_tier_block block = block_of(n);
    static _Alignas(8) uint8_t memory[1 << 20];
    struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)memory;
    struct wf_nvme_footer footer;
    struct wf_nvme_super super = super_of(w);
    uint64_t end = WF_NVME_SEGMENTS_AT + super.segment_bytes, volume = super.head.volume;
    look(w, &footer, sizeof footer, end - WF_NVME_PAGE);
    assert_int_equal(footer.head.magic, WF_NVME_FOOTER_MAGIC);
    uint64_t bytes = footer.count * sizeof *entries, at = end - wf_nvme_footer_bytes(footer.count);
    look(w, memory, bytes, at);
    uint32_t changed = 0;
    for (uint64_t i = 0; i < footer.count; i++) {
        if (memcmp(entries[i].key, block.key, 32) != 0)
            continue;
        entries[i].sequence = sequence;
        changed++;
    }
    assert_int_equal(changed, 1);
    footer.entries_checksum = XXH3_64bits_withSeed(memory, bytes, volume);
    wf_nvme_seal(&footer, WF_NVME_FOOTER_MAGIC, sizeof footer, volume);
    change(w, memory, bytes, at);
    change(w, &footer, sizeof footer, end - WF_NVME_PAGE);
}

/* Also what is dead, or in a segment that was given back, has used its number. */
static void no_number_is_used_twice(void **state)
{
    struct world *w = *state;
    const uint64_t dead = (UINT64_C(7) << WF_NVME_EPOCH_SHIFT) + 3;
    const uint64_t freed = (UINT64_C(12) << WF_NVME_EPOCH_SHIFT) + 5;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= 5; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    assert_int_equal(ops->remove(w->tier, block_of(3).key), WEFT_OK);
    close_it(w);
    assert_true(sequence_of(w, 3) < dead);
    entry_sequence(w, 3, dead);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(get(w, 3), WEFT_MISS);
    assert_int_equal(put(w, 10), WEFT_OK);
    assert_true(sequence_of(w, 10) > dead);
    assert_true(sequence_of(w, 10) < freed);
    close_it(w);

    struct wf_nvme_super super = super_of(w);
    struct wf_nvme_segment header = {.number = 3, .generation = freed, .use = WF_NVME_FREE};
    wf_nvme_seal(&header, WF_NVME_SEGMENT_MAGIC, sizeof header, super.head.volume);
    change(w, &header, sizeof header, WF_NVME_SEGMENTS_AT + 3 * super.segment_bytes);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(put(w, 11), WEFT_OK);
    assert_true(sequence_of(w, 11) > freed);
    assert_int_equal(get(w, 1), WEFT_OK);
    assert_int_equal(get(w, 10), WEFT_OK);
}

static void set_epoch(const struct world *w, uint64_t epoch)
{
    struct wf_nvme_super super;
    for (uint32_t copy = 0; copy < 2; copy++) {
        look(w, &super, sizeof super, copy * WF_NVME_PAGE);
        super.epoch = epoch - (epoch % 2 != copy);
        wf_nvme_seal(&super, WF_NVME_SUPER_MAGIC, sizeof super, super.head.volume);
        change(w, &super, sizeof super, copy * WF_NVME_PAGE);
    }
}

/* At the end of its numbers a volume says so, and stays what it is: a description with a number
 * that nobody believes would be the end of all that is on it. */
static void the_last_epoch_is_refused(void **state)
{
    struct world *w = *state;
    struct wf_tier *tier = NULL;
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH};
    static uint8_t before[2 * WF_NVME_PAGE], after[2 * WF_NVME_PAGE];
    open_at(w, w->path, CAPACITY);
    assert_int_equal(put(w, 1), WEFT_OK);
    close_it(w);
    set_epoch(w, WF_NVME_EPOCH_MAX - 2);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(get(w, 1), WEFT_OK);
    close_it(w);
    look(w, before, sizeof before, 0);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(ops->open(&options, &tier), WEFT_E_INVALID);
        assert_null(tier);
        assert_non_null(strstr(wf_last_error(), "which is the most"));
        look(w, after, sizeof after, 0);
        assert_memory_equal(before, after, sizeof before);
    }
    /* As the sentence says. */
    memset(before, 0, sizeof before);
    change(w, before, sizeof before, 0);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(get(w, 1), WEFT_MISS);
    assert_int_equal(put(w, 1), WEFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_number_is_used_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_epoch_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests_name("tier_nvme_open", tests, NULL, NULL);
}
