/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier opened: numbers that are never used twice, and what a volume says of itself.
 *
 * Volumes are changed here as only who can write the device can change them: with right checksums.
 */
#include "../support/nvme_world.h"

#include <stdio.h>
#include <xxhash.h>

#include "base/log.h"
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

/* -------------------------------------------------- neither a first page nor a footer is whole */

/* Full, with every seventh block removed; returns the first that did not fit. */
static uint64_t fill_up(struct world *w)
{
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    for (uint64_t i = 3; i < n; i += 7)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    close_it(w);
    return n;
}

static void noise(struct world *w, uint64_t at, uint64_t bytes)
{
    uint8_t *memory = malloc(bytes);
    assert_non_null(memory);
    fill(random_next(&w->random), bytes, memory);
    change(w, memory, bytes, at);
    free(memory);
}

static uint64_t segment_at(const struct wf_nvme_super *super, uint64_t segment)
{
    return WF_NVME_SEGMENTS_AT + segment * super->segment_bytes;
}

/* The first and the last page of every segment rot, and the first record of one: the others say
 * what there was, and what was removed stays so. */
static void records_tell_whose_they_are(void **state)
{
    struct world *w = *state;
    uint64_t n = fill_up(w), lost = 0;
    struct wf_nvme_super super = super_of(w);
    struct wf_nvme_record first;
    for (uint64_t i = 0; i < super.segments; i++) {
        struct wf_nvme_segment header;
        uint64_t at = segment_at(&super, i);
        look(w, &header, sizeof header, at);
        if (header.head.magic != WF_NVME_SEGMENT_MAGIC)
            continue; /* never used */
        noise(w, at, WF_NVME_PAGE);
        noise(w, at + super.segment_bytes - WF_NVME_PAGE, WF_NVME_PAGE);
    }
    look(w, &first, sizeof first, segment_at(&super, 1) + WF_NVME_RECORDS_AT);
    assert_int_equal(first.head.magic, WF_NVME_RECORD_MAGIC);
    if (first.depth % 7 != 3)
        lost = first.depth; /* block_of() has its number there */
    first.bytes ^= 1;
    change(w, &first, sizeof first, segment_at(&super, 1) + WF_NVME_RECORDS_AT);
    for (int turn = 0; turn < 2; turn++) {
        open_at(w, w->path, CAPACITY);
        for (uint64_t i = 1; i < n; i++)
            assert_int_equal(get(w, i), i % 7 == 3 || i == lost ? WEFT_MISS : WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
        assert_told(w);
        close_it(w);
    }
}

/* Open and close, and what was said meanwhile. */
static void open_and_listen(struct world *w, char *said, size_t bytes, struct wf_tier_stats *out)
{
    int before = dup(STDERR_FILENO);
    FILE *log = tmpfile();
    assert_true(before >= 0 && log);
    assert_true(dup2(fileno(log), STDERR_FILENO) >= 0);
    wf_log_level_set(WF_LOG_INFO);
    open_at(w, w->path, CAPACITY);
    wf_log_level_set(WF_LOG_OFF);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    *out = stats(w);
    rewind(log);
    said[fread(said, 1, bytes - 1, log)] = '\0';
    fclose(log);
}

/* Nothing in a segment can be read any more, but that it is this volume's: it is taken back, which
 * is said and counted once, and used again.  Where not even that can be read, nobody knows that
 * there was anything. */
static void a_segment_that_says_nothing_is_taken_back(void **state)
{
    struct world *w = *state;
    static char said[8192];
    struct wf_tier_stats found;
    uint64_t n = fill_up(w), missing = 0, more = n;
    struct wf_nvme_super super = super_of(w);
    struct wf_nvme_segment header;
    look(w, &header, sizeof header, segment_at(&super, 1));
    assert_int_equal(header.head.magic, WF_NVME_SEGMENT_MAGIC);
    header.generation ^= 1;
    noise(w, segment_at(&super, 1), super.segment_bytes);
    change(w, &header, sizeof header, segment_at(&super, 1));
    noise(w, segment_at(&super, 2), super.segment_bytes);
    open_and_listen(w, said, sizeof said, &found);
    if (!strstr(said, "segment 1 has neither a first page, nor a footer, nor a record") ||
        !strstr(said, "1 segment holds something that is not the tier's"))
        fail_msg("it says: %s", said);
    assert_null(strstr(said, "segment 2"));
    assert_int_equal(found.corrupt, 1);
    for (uint64_t i = 1; i < n; i++)
        missing += get(w, i) == WEFT_MISS;
    assert_in_range(missing, n / 7 + 2, n - n / 5);
    assert_told(w);
    while (put(w, more) == WEFT_OK)
        more++;
    assert_true(more > n + 20);
    for (uint64_t i = n; i < more; i++)
        assert_int_equal(get(w, i), WEFT_OK);
    close_it(w);
    open_and_listen(w, said, sizeof said, &found);
    assert_null(strstr(said, "neither"));
    assert_int_equal(found.corrupt, 0);
    for (uint64_t i = n; i < more; i++)
        assert_int_equal(get(w, i), WEFT_OK);
}

/* What a restart would not find is not durable: a flush is refused, and the state says why. */
static void file_lost(struct world *w, void (*lose)(struct world *), const char *why)
{
    unlink(w->path);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(put(w, 1), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    lose(w);
    assert_int_equal(put(w, 2), WEFT_OK);
    assert_int_equal(flush(w), WEFT_E_SYSTEM);
    assert_true(stats(w).failed);
    if (!strstr(stats(w).why, why))
        fail_msg("it says: %s", stats(w).why);
    close_it(w);
}

static void deleted(struct world *w)
{
    assert_int_equal(unlink(w->path), 0);
}

static void replaced(struct world *w)
{
    copy_file(w->path, w->copy);
    assert_int_equal(rename(w->copy, w->path), 0);
}

static void cut(struct world *w)
{
    assert_int_equal(truncate(w->path, CAPACITY / 2), 0);
}

static void a_file_that_is_lost_is_seen(void **state)
{
    struct world *w = *state;
    file_lost(w, replaced, "another file");
    file_lost(w, deleted, "deleted");
    file_lost(w, cut, "shorter");
}

/* A node that had the tier makes no file in place of the one that is gone, and takes one that is
 * there. */
static void no_file_is_made_again(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH,
                                      .held = stats(w).claim};
    assert_int_not_equal(options.held, 0);
    close_it(w);
    assert_int_equal(unlink(w->path), 0);
    assert_int_equal(ops->open(&options, &w->tier), WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), "put it back"));
    assert_int_not_equal(access(w->path, F_OK), 0);
    int fd = open(w->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    assert_int_equal(ops->open(&options, &w->tier), WEFT_OK);
    assert_int_equal(put(w, 1), WEFT_OK);
    assert_int_equal(get(w, 1), WEFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_number_is_used_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_epoch_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(records_tell_whose_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(a_segment_that_says_nothing_is_taken_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_lost_is_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(no_file_is_made_again, setup, teardown),
    };
    return cmocka_run_group_tests_name("tier_nvme_open", tests, NULL, NULL);
}
