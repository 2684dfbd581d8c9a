/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire's decisions, with a seed and without a device: fates that depend on nothing but the seed
 * and a frame's number, order, the heap, damage that a checksum sees and damage that it does not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "wire_link.h"

#define FRAMES 20000
#define MS UINT64_C(1000000)

static struct random_source source;

static void change(struct wire_link *link, const char *text)
{
    char line[64], *words[6], *rest = NULL;
    int count = 0;
    snprintf(line, sizeof line, "%s", text);
    for (char *word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        words[count++] = word;
    const char *complaint = wire_faults_change(&link->faults, count, words);
    if (complaint)
        fail_msg("%s: %s", text, complaint);
}

/* The n-th frame is lost or not whatever else happens to the link. */
static void fates_depend_on_the_seed_alone(void **state)
{
    (void)state;
    const uint64_t seed = random_next(&source);
    struct wire_link plain, busy, back;
    uint32_t lost = 0, differ = 0;
    wire_link_init(&plain, seed, "a", "b");
    wire_link_init(&busy, seed, "a", "b");
    wire_link_init(&back, seed, "b", "a");
    change(&plain, "loss 10%");
    change(&busy, "delay 1ms 3ms");
    change(&busy, "duplicate 20%");
    change(&busy, "reorder 20% 4ms");
    change(&busy, "corrupt 5%");
    change(&busy, "loss 10%");
    change(&back, "loss 10%");
    for (uint64_t i = 0; i < FRAMES; i++) {
        const bool one = wire_link_decide(&plain, i * MS, 100).copies == 0;
        assert_int_equal(one, wire_link_decide(&busy, i * MS, 1000).copies == 0);
        differ += one != (wire_link_decide(&back, i * MS, 100).copies == 0);
        lost += one;
    }
    assert_in_range(lost, FRAMES / 10 - 300, FRAMES / 10 + 300);
    assert_true(differ > FRAMES / 10);
    assert_int_equal(plain.counts.lost, lost);
}

/* Whatever the delay does, only those that are reordered are overtaken. */
static void order_is_kept(void **state)
{
    (void)state;
    static const char *const changes[] = {"delay 5ms 5ms", "delay 0",       "delay 1ms 20ms",
                                          "rate 1MB 1s",   "rate 10MB 10s", "duplicate 10%"};
    struct wire_link link;
    uint64_t last = 0, now = 1;
    wire_link_init(&link, random_next(&source), "a", "b");
    for (int i = 0; i < FRAMES; i++) {
        if (random_below(&source, 100) == 0)
            change(&link, changes[random_below(&source, 6)]);
        now += random_below(&source, 1000000);
        const struct wire_fate fate = wire_link_decide(&link, now, 1 + random_below(&source, 1500));
        if (fate.copies) {
            assert_true(fate.due_ns >= last && fate.due_ns >= now + link.faults.delay_ns);
            last = fate.due_ns;
        }
    }
}

static void a_rate_is_exact(void **state)
{
    (void)state;
    struct wire_link link;
    uint64_t last = 0, passed = 0;
    wire_link_init(&link, 1, "a", "b");
    change(&link, "rate 1MB 50ms");
    for (int i = 0; i < 4096; i++) { /* 4 MB within a second: three of four find no place */
        const struct wire_fate fate = wire_link_decide(&link, (uint64_t)i * 1000 * MS / 4096, 1024);
        if (fate.copies) {
            passed++;
            last = fate.due_ns;
        }
    }
    assert_in_range(passed, 1024, 1024 + 52);
    assert_in_range(last, 999 * MS, 1051 * MS);
    assert_int_equal(link.counts.overflowed, 4096 - passed);
}

static void the_heap_has_the_order_of_time_and_arrival(void **state)
{
    (void)state;
    static struct wire_due entries[4096];
    struct wire_heap heap = {.entries = entries, .capacity = 4096};
    struct wire_due last = {.due_ns = 0};
    uint32_t added = 0;
    for (int i = 0; i < 100000; i++) {
        const bool add = heap.count == 0 || (heap.count < 4096 && random_below(&source, 5) < 3);
        if (add) {
            const uint64_t due_ns = last.due_ns + random_below(&source, 50);
            wire_heap_add(&heap, (struct wire_due){.due_ns = due_ns, .frame = added++});
            continue;
        }
        const struct wire_due next = wire_heap_take(&heap);
        assert_true(next.due_ns > last.due_ns ||
                    (next.due_ns == last.due_ns && (next.frame > last.frame || i == 1)));
        last = next;
    }
}

static uint32_t sum_of(const uint8_t *bytes, size_t count)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (uint32_t)bytes[i] << (i % 2 ? 0 : 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum % 0xffff;
}

/* Ethernet, IPv4 and TCP or UDP around random bytes; returns how many. */
static size_t make_frame(uint8_t *frame, bool tcp)
{
    const size_t headers = tcp ? 52 : 28, payload = 4 + random_below(&source, 1400);
    const size_t total = headers + payload;
    memset(frame, 0, 60);
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[16] = (uint8_t)(total >> 8);
    frame[17] = (uint8_t)total;
    frame[23] = tcp ? 6 : 17;
    frame[46] = tcp ? 0x80 : 0;
    for (size_t i = 14 + total - payload; i < 14 + total; i++)
        frame[i] = (uint8_t)random_next(&source);
    return 14 + total;
}

static void damage_is_seen_unless_it_is_sly(void **state)
{
    (void)state;
    for (int i = 0; i < FRAMES; i++) {
        uint8_t frame[1600], before[1600];
        const bool sly = random_below(&source, 2);
        const size_t bytes = make_frame(frame, random_below(&source, 2));
        memcpy(before, frame, bytes);
        assert_true(wire_frame_damage(frame, bytes, random_next(&source), sly));
        assert_memory_equal(frame, before, 14);
        assert_memory_not_equal(frame, before, bytes);
        assert_int_equal(sum_of(frame + 14, bytes - 14) == sum_of(before + 14, bytes - 14), sly);
    }
}

/* Whatever it is, nothing beyond the frame is read or written. */
static void damage_stays_in_the_frame(void **state)
{
    (void)state;
    for (int i = 0; i < FRAMES; i++) {
        const size_t bytes = 14 + random_below(&source, 100);
        uint8_t *frame = malloc(bytes);
        assert_non_null(frame);
        for (size_t at = 0; at < bytes; at++)
            frame[at] = (uint8_t)random_next(&source);
        if (random_below(&source, 4)) {
            frame[12] = 0x08;
            frame[13] = 0;
        }
        (void)wire_frame_damage(frame, bytes, random_next(&source), i % 2);
        free(frame);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fates_depend_on_the_seed_alone),
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(a_rate_is_exact),
        cmocka_unit_test(the_heap_has_the_order_of_time_and_arrival),
        cmocka_unit_test(damage_is_seen_unless_it_is_sly),
        cmocka_unit_test(damage_stays_in_the_frame),
    };
    source = random_seeded("wire");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
