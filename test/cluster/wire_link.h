/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a frame on its way from one host of the test bed to another: the decisions of
 * wire.c without its devices, so that they can be tested with a seed and a clock of the test's own.
 *
 * A link is one direction between two hosts.  Every frame takes the same number of throws of the
 * link's own dice, whatever its faults are, so the fate of the n-th frame of a link depends on the
 * seed, the two names and n alone.
 *
 * Frames leave a link in the order in which they came, also when its delay varies or shrinks; only
 * `reorder` lets later ones overtake.
 */
#ifndef TEST_CLUSTER_WIRE_LINK_H
#define TEST_CLUSTER_WIRE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../support/random.h"

#define WIRE_MILLION 1000000u

struct wire_faults {
    uint64_t delay_ns, jitter_ns; /* later by delay … delay + jitter */
    uint64_t reorder_ns;          /* so much later are those that others overtake */
    uint64_t rate;                /* bytes a second; 0: as fast as they come */
    uint64_t queue_ns;            /* with a rate: who would wait longer than this is lost */
    uint32_t loss, duplicate, reorder, corrupt; /* of a million frames */
    bool sly; /* what is corrupted keeps its checksums: no network stack sees it */
    bool cut;
};

struct wire_counts {
    uint64_t frames, bytes; /* that came */
    uint64_t delivered, lost, cut, overflowed, duplicated, reordered, corrupted;
    uint64_t late_us_max; /* behind when it was due: how exact this run was */
};

struct wire_link {
    struct wire_faults faults;
    struct wire_counts counts;
    struct random_source dice;
    uint64_t line_free_ns; /* when a rate lets the next frame begin */
    uint64_t last_due_ns;  /* of a frame that kept its place */
};

struct wire_fate {
    uint32_t copies; /* 0: it is lost; 2: another follows it at once */
    uint64_t due_ns;
    bool corrupt;
    uint64_t where; /* a throw for who damages it */
};

void wire_link_init(struct wire_link *link, uint64_t seed, const char *from, const char *to);
/* What becomes of a frame of so many bytes that came at `now_ns`.  Counts it. */
struct wire_fate wire_link_decide(struct wire_link *link, uint64_t now_ns, size_t bytes);

/* Change an Ethernet frame by one throw: a bit behind the Ethernet header, which IP's, TCP's or
 * UDP's checksum tells; or, when sly, two 16-bit words of what TCP or UDP carries change places,
 * which their sum does not.  False: there was nothing to change. */
bool wire_frame_damage(uint8_t *frame, size_t bytes, uint64_t where, bool sly);

/* Frames by when they are due; of the same time, in the order in which they were added. */
struct wire_due {
    uint64_t due_ns, sequence;
    uint32_t frame; /* the caller's number for it */
    uint16_t from, to;
};

struct wire_heap {
    struct wire_due *entries; /* [capacity], the caller's */
    uint32_t count, capacity;
    uint64_t sequence;
};

/* There must be room. */
void wire_heap_add(struct wire_heap *heap, struct wire_due entry);
/* There must be one. */
struct wire_due wire_heap_take(struct wire_heap *heap);

/* One change of faults, "loss 5%", to be applied to any number of links: NULL, or a sentence. */
const char *wire_faults_change(struct wire_faults *faults, int count, char *const words[]);

#endif
