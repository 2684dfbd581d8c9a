/* SPDX-License-Identifier: Apache-2.0
 *
 * The CXL tier's medium, byte by byte: memory that outlives the program and that several hosts may
 * map at once, whose caches nobody keeps coherent.  Little-endian, as every host that can share it.
 *
 *      0        4 KiB     8 KiB …   1 MiB             2 MiB
 *      ┌────────┬─────────┬ ─ ─ ─ ─ ┬─────────────────┬──────────────┬──────────────┬ ─ ─ ─ ┬ ─ ─ ─
 *      │ super  │ again   │         │ 256 host rows   │ extent table │ directories  │       │
 * extents │        │         │         │ 4 KiB each      │ 64 B each    │ 4 KiB each   │       │ 2
 * MiB └────────┴─────────┴ ─ ─ ─ ─ ┴─────────────────┴──────────────┴──────────────┴ ─ ─ ─ ┴ ─ ─ ─
 *                                                     every part on a page, extents on 2 MiB of the
 *                                                     medium
 *
 *      A block lies in granules of 4 KiB, in one extent or in several that follow each other and
 *      have one owner; payload is on a page of its own:
 *
 *      ┌─────────────────────────────┬──────────────────────────────────┐
 *      │ header, sums of its parts   │ payload, padded                  │
 *      └─────────────────────────────┴──────────────────────────────────┘
 *      ▲ directory word of the first granule: sequence « 16 | check
 *
 * A block is there when its directory word says so: that is the commit.  It is written last, after
 * a fence behind header and payload, and taken back first, with a fence before anything of the
 * block is written over.  So whoever reads the same word before and after has read one block and
 * nothing else, and a crash at any instruction leaves a block whole or absent.  The word carries a
 * check of the header, the header a checksum of itself, the generations of the extents under it and
 * the checksums of its parts: what lies there from another time is not believed.
 *
 * Every word has one writer.  A host's row is written by that host; an extent's line and directory
 * by its owner; a line without owner by whoever holds the lock, which is L. Lamport's bakery ("A
 * new solution of Dijkstra's concurrent programming problem", CACM 1974) over the rows: it needs no
 * atomic operation, and stands reads that meet a write half-way.  Words are 8 bytes and aligned, so
 * that no store of one is ever torn.
 */
#ifndef WF_TIER_CXL_FORMAT_H
#define WF_TIER_CXL_FORMAT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "tier/cxl.h"

#define WF_CXL_SUPER_MAGIC UINT64_C(0x7265707573787877)  /* "wxxsuper" */
#define WF_CXL_HEADER_MAGIC UINT64_C(0x6b636f6c62787877) /* "wxxblock" */
#define WF_CXL_ROW_MAGIC UINT64_C(0x74736f6868787877)    /* "wxxhhost" */
#define WF_CXL_VERSION 2u

#define WF_CXL_GRANULE 4096u
#define WF_CXL_EXTENT WF_TIER_CXL_EXTENT_BYTES
#define WF_CXL_EXTENT_GRANULES (WF_CXL_EXTENT / WF_CXL_GRANULE)
#define WF_CXL_EXTENTS_MAX (1u << 22) /* 8 TiB */
#define WF_CXL_EXTENTS_LEAST 4u
#define WF_CXL_HOSTS 256u /* numbered from 1 */
#define WF_CXL_ROWS_AT (1u << 20)
#define WF_CXL_TABLE_AT (2u << 20)

struct wf_cxl_super {
    uint64_t magic;
    uint64_t checksum; /* XXH3-64 of the rest, seed WF_CXL_SUPER_MAGIC */
    uint32_t version;
    uint32_t shared; /* 1: several hosts, by the rules above; 0: all extents are host 1's */
    uint64_t volume; /* random: tells what was written before it was formatted anew */
    uint64_t extents;
    uint64_t data_at;
};
static_assert(sizeof(struct wf_cxl_super) == 48, "format");

struct wf_cxl_row {
    uint64_t magic;     /* 0: that host was never here */
    uint64_t session;   /* grows with every start of that host; its blocks' sequences too */
    uint64_t heartbeat; /* grows while it runs */
    uint64_t published; /* grows when any of its directories has changed */
    uint64_t left;      /* the session that said goodbye */
    uint64_t pad0[3];
    uint64_t choosing; /* the bakery's words */
    uint64_t number;
    uint64_t pad1[6];
    uint64_t
        fenced[WF_CXL_HOSTS]; /* sessions up to this one of that host are dead, says this one */
    uint64_t pad2[240];
};
static_assert(sizeof(struct wf_cxl_row) == 4096, "format");
static_assert(offsetof(struct wf_cxl_row, choosing) == 64, "a line of its own");
static_assert(offsetof(struct wf_cxl_row, fenced) == 128, "format");
static_assert(WF_CXL_ROWS_AT + WF_CXL_HOSTS * sizeof(struct wf_cxl_row) == WF_CXL_TABLE_AT,
              "format");

/* word: generation « 24 | owner « 16 | check.  Owner 0: free.  The generation grows when an extent
 * gets an owner that may write it anew. */
struct wf_cxl_extent {
    uint64_t word;
    uint64_t changes; /* grows when its directory has changed */
    uint64_t pad[6];
};
static_assert(sizeof(struct wf_cxl_extent) == 64, "format");

struct wf_cxl_directory {
    uint64_t words[WF_CXL_EXTENT_GRANULES];
};
static_assert(sizeof(struct wf_cxl_directory) == WF_CXL_GRANULE, "format");

struct wf_cxl_header {
    uint64_t magic;
    uint64_t checksum;    /* XXH3-64 of the rest with its sums, seed: the volume */
    uint64_t sequence;    /* session « 28, and counted from there */
    uint64_t granule;     /* where it lies, counted over all extents */
    uint64_t generations; /* of its extents, folded */
    uint64_t bytes;
    uint32_t part_bytes;
    uint32_t parts;
    uint32_t depth;
    uint32_t host; /* that wrote it */
    uint8_t key[32];
    uint8_t parent[32];
    uint8_t format[32];
    uint64_t plain_bytes; /* of a payload that is a frame: what it decodes to; else 0 */
    uint32_t plain_part_bytes;
    uint32_t plain_quality;
    uint64_t sums[]; /* XXH3-64 of each part */
};
static_assert(sizeof(struct wf_cxl_header) == 176, "format");

#define WF_CXL_HEADER_MAX (sizeof(struct wf_cxl_header) + 8u * WF_TIER_PARTS_MAX)
#define WF_CXL_SEQUENCE_BITS 48u
#define WF_CXL_SESSION_SHIFT 28u
#define WF_CXL_GENERATION_MAX ((UINT64_C(1) << 40) - 1)

static inline uint64_t wf_cxl_padded(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

static inline uint64_t wf_cxl_header_bytes(uint32_t parts)
{
    return sizeof(struct wf_cxl_header) + 8ull * parts;
}

/* Granules of a block's header, and of all of it; of a valid block. */
static inline uint64_t wf_cxl_header_granules(uint32_t parts)
{
    return (wf_cxl_header_bytes(parts) + WF_CXL_GRANULE - 1) / WF_CXL_GRANULE;
}

static inline uint64_t wf_cxl_block_granules(uint32_t parts, uint64_t bytes)
{
    return wf_cxl_header_granules(parts) + (bytes - 1) / WF_CXL_GRANULE + 1;
}

static inline uint64_t wf_cxl_directories_at(uint64_t extents)
{
    return WF_CXL_TABLE_AT + wf_cxl_padded(extents * sizeof(struct wf_cxl_extent), WF_CXL_GRANULE);
}

static inline uint64_t wf_cxl_data_at(uint64_t extents)
{
    return wf_cxl_padded(wf_cxl_directories_at(extents) + extents * WF_CXL_GRANULE, WF_CXL_EXTENT);
}

static inline uint8_t wf_cxl_owner(uint64_t word)
{
    return (uint8_t)(word >> 16);
}

static inline uint64_t wf_cxl_generation(uint64_t word)
{
    return word >> 24;
}

#endif
