/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies on the medium of the NVMe tier.
 *
 *     0        +----------------------------------------------------------------------------+
 *              | struct wf_nvme_super, copy 0                                               |
 *     4 Ki     +----------------------------------------------------------------------------+
 *              | struct wf_nvme_super, copy 1: the valid one with the higher epoch counts   |
 *     1 Mi     +----------------------------------------------------------------------------+
 *              | segment 0 | segment 1 | …            segment_bytes each                    |
 *              +----------------------------------------------------------------------------+
 *
 *     a segment
 *     0        +----------------------------------------------------------------------------+
 *              | struct wf_nvme_segment: free, or in use as this generation                 |
 *     4 Ki     +----------------------------------------------------------------------------+
 *              | struct wf_nvme_dead, copy 0: a bit for each record that was removed        |
 *     8 Ki     +----------------------------------------------------------------------------+
 *              | struct wf_nvme_dead, copy 1: the valid one with the higher serial counts   |
 *     12 Ki    +----------------------------------------------------------------------------+
 *              | record | record | …                                                        |
 *              +----------------------------------------------------------------------------+
 *              | struct wf_nvme_entry [count], padded to 4 Ki                               |
 *     end-4 Ki +----------------------------------------------------------------------------+
 *              | struct wf_nvme_footer: this segment is closed, its records are those       |
 *     end      +----------------------------------------------------------------------------+
 *
 *     a record: a block
 *     0        +----------------------------------------------------------------------------+
 *              | struct wf_nvme_record; u64 checksum of each part; padded to 4 Ki           |
 *     header_bytes  +-----------------------------------------------------------------------+
 *              | payload, padded to 4 Ki                                                    |
 *              +----------------------------------------------------------------------------+
 *
 * All numbers are little-endian and every structure starts at a multiple of 4 KiB, so that each can
 * be written in place without its neighbours.  A checksum is XXH3-64; those of structures go over
 * the head with its checksum as zero, seeded with the volume's number, and then over the rest,
 * seeded with that.
 *
 * Generations and sequences come from one counter that starts at epoch << 40 whenever a volume is
 * opened: none is ever used twice, so that what an earlier use of a segment left behind is told
 * from what belongs there.  A block that is moved keeps its sequence.
 *
 * The bit of a record in a dead map is its offset in the segment / 8 KiB: a record has 8 KiB at
 * least, so no two share one.
 */
#ifndef WF_TIER_NVME_FORMAT_H
#define WF_TIER_NVME_FORMAT_H

#include <assert.h>
#include <stdint.h>

#define WF_NVME_PAGE 4096u
#define WF_NVME_VERSION 2u
#define WF_NVME_SEGMENTS_AT (1u << 20) /* offset of segment 0 */
#define WF_NVME_RECORDS_AT (3 * WF_NVME_PAGE)
#define WF_NVME_RECORD_MIN (2 * WF_NVME_PAGE)
#define WF_NVME_SEGMENT_MIN (64u << 10)
#define WF_NVME_SEGMENT_MAX (64u << 20)
#define WF_NVME_SEGMENTS_LEAST 4u
#define WF_NVME_EPOCH_SHIFT 40
#define WF_NVME_EPOCH_MAX ((1u << 23) - 1) /* so many openings; a higher one is not believed */

#define WF_NVME_SUPER_MAGIC 0x3152505553464557ull   /* "WEFSUPR1" */
#define WF_NVME_SEGMENT_MAGIC 0x3147455353464557ull /* "WEFSSEG1" */
#define WF_NVME_DEAD_MAGIC 0x3144414544464557ull    /* "WEFDEAD1" */
#define WF_NVME_RECORD_MAGIC 0x314b4c4242464557ull  /* "WEFBBLK1" */
#define WF_NVME_FOOTER_MAGIC 0x31544f4f46464557ull  /* "WEFFOOT1" */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "written as it lies in memory");

/* Every structure begins so. */
struct wf_nvme_head {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /* of the structure, for the checksum */
    uint64_t volume;
    uint64_t checksum;
};
static_assert(sizeof(struct wf_nvme_head) == 32, "disk format");

struct wf_nvme_super {
    struct wf_nvme_head head;
    uint64_t epoch;
    uint64_t segment_bytes;
    uint64_t segments;
    uint64_t reserved;
};
static_assert(sizeof(struct wf_nvme_super) == 64, "disk format");

enum wf_nvme_segment_use { WF_NVME_FREE = 0, WF_NVME_USED = 1 };

struct wf_nvme_segment {
    struct wf_nvme_head head;
    uint64_t number;
    uint64_t generation;
    uint32_t use;
    uint32_t reserved;
};
static_assert(sizeof(struct wf_nvme_segment) == 56, "disk format");

#define WF_NVME_DEAD_BITS (WF_NVME_SEGMENT_MAX / WF_NVME_RECORD_MIN)

struct wf_nvme_dead {
    struct wf_nvme_head head;
    uint64_t number;
    uint64_t generation;
    uint64_t serial;
    uint64_t bits[WF_NVME_DEAD_BITS / 64];
};
static_assert(sizeof(struct wf_nvme_dead) == 56 + 1024, "disk format");
static_assert(sizeof(struct wf_nvme_dead) <= WF_NVME_PAGE, "disk format");

struct wf_nvme_record {
    struct wf_nvme_head head; /* .bytes: with the parts' checksums, not padded */
    uint64_t generation;      /* of the segment */
    uint64_t offset;          /* on the medium, so that a misplaced write is seen */
    uint64_t sequence;
    uint64_t bytes; /* of the payload */
    uint8_t key[32];
    uint8_t parent[32];
    uint8_t format[32];
    uint32_t depth;
    uint32_t part_bytes;
    uint64_t plain_bytes;      /* of a payload that is a frame: what it decodes to; else 0 */
    uint32_t plain_part_bytes; /* likewise */
    uint32_t plain_quality;
    uint64_t sums[]; /* one a part */
};
static_assert(sizeof(struct wf_nvme_record) == 184, "disk format");

struct wf_nvme_entry {
    uint8_t key[32];
    uint8_t parent[32];
    uint8_t format[32];
    uint64_t sequence;
    uint64_t bytes;
    uint32_t depth;
    uint32_t part_bytes;
    uint32_t page; /* offset of the record in the segment, in pages */
    uint32_t plain_part_bytes;
    uint32_t plain_bytes;
    uint32_t plain_quality;
};
static_assert(sizeof(struct wf_nvme_entry) == 136, "disk format");

struct wf_nvme_footer {
    struct wf_nvme_head head;
    uint64_t number;
    uint64_t generation;
    uint64_t count;
    uint64_t entries_checksum; /* over entry [count] */
};
static_assert(sizeof(struct wf_nvme_footer) == 64, "disk format");

static inline uint64_t wf_nvme_padded(uint64_t bytes)
{
    return (bytes + WF_NVME_PAGE - 1) / WF_NVME_PAGE * WF_NVME_PAGE;
}

/* Fill in head and checksum of a structure that begins with its head. */
void wf_nvme_seal(void *structure, uint64_t magic, uint32_t bytes, uint64_t volume);

/* Is this such a structure, whole?  `room` is how many bytes may be looked at. */
int wf_nvme_sealed(const void *structure, uint64_t magic, uint64_t room, uint64_t volume);

#endif
