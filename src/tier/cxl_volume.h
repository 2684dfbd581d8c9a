/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the CXL tier share.  One thread, as tier.h says.
 *
 *   cxl.c          requests: a queue whose head is copied in slices
 *   cxl_medium.c   the mapping: device, node, file
 *   cxl_volume.c   superblock, extents, space, and what an open finds
 *   cxl_hosts.c    rows, the lock, extents claimed and taken over
 *   cxl_share.c    blocks of other hosts, read where they lie
 *   cxl_others.c   those blocks as a tier, on a mapping that cannot be written
 *
 * Functions marked "touches the medium" may be left in the middle by a fault (sys/guard.h): they
 * are called from inside wf_cxl_guarded() alone, own nothing while they are in there, and have the
 * index and the maps of space whole at each access.
 */
#ifndef WF_TIER_CXL_VOLUME_H
#define WF_TIER_CXL_VOLUME_H

#include "sys/guard.h"
#include "tier/check.h"
#include "tier/cxl.h"
#include "tier/cxl_format.h"
#include "tier/index.h"

#define WF_CXL_PATH_BYTES 256u

enum wf_cxl_lock_phase { WF_CXL_LOCK_NONE = 0, WF_CXL_LOCK_WAITING, WF_CXL_LOCK_HELD };

struct wf_cxl {
    char path[WF_CXL_PATH_BYTES]; /* as it was given */
    enum wf_cxl_medium medium;
    int fd;
    uint8_t *memory; /* the mapping */
    uint64_t bytes;  /* of it */

    uint64_t volume, extents;
    struct wf_cxl_row *rows;
    struct wf_cxl_extent *table;
    struct wf_cxl_directory *directories;
    uint8_t *data;

    uint8_t host;
    bool shared, failed;
    uint64_t session, sequence;

    struct wf_tier_index index;     /* of our blocks; by extent */
    uint64_t *vacant;               /* a bit a granule: ours and free */
    uint16_t *vacant_count;         /* of each extent */
    uint64_t *words;                /* of each extent that is ours, as we wrote it; 0: not ours */
    uint64_t owned, empty, foreign; /* extents: ours, ours and without a block, others' */
    uint64_t hint;                  /* extent to look for space first */
    uint64_t too_many; /* so many granules in a row were not found since space came back */
    uint64_t used_granules;

    enum wf_cxl_lock_phase lock;
    uint32_t lock_next; /* host to wait for */
    uint64_t lock_since_ms, beat_ms, claim_hint;

    uint64_t corrupt_at_open, dropped;            /* what an open found and did not believe */
    uint64_t header[(WF_CXL_HEADER_MAX + 7) / 8]; /* one, copied out before it is believed */
};

static inline struct wf_cxl_header *wf_cxl_header_copy(struct wf_cxl *t)
{
    return (struct wf_cxl_header *)(void *)t->header;
}

static inline uint8_t *wf_cxl_granule(const struct wf_cxl *t, uint64_t granule)
{
    return t->data + granule * WF_CXL_GRANULE;
}

static inline uint64_t wf_cxl_granules(const struct wf_cxl *t)
{
    return t->extents * WF_CXL_EXTENT_GRANULES;
}

static inline uint64_t *wf_cxl_word(const struct wf_cxl *t, uint64_t granule)
{
    return &t->directories[granule / WF_CXL_EXTENT_GRANULES]
                .words[granule % WF_CXL_EXTENT_GRANULES];
}

/* ---- cxl_medium.c */

/* Map it; t->path, t->medium, t->fd, t->memory, t->bytes. */
enum weft_status wf_cxl_medium_open(struct wf_cxl *t, const struct wf_tier_options *options);
/* The same for who only reads: a mapping that cannot be written, of a medium that nobody locks. */
enum weft_status wf_cxl_medium_watch(struct wf_cxl *t, const struct wf_tier_options *options);
void wf_cxl_medium_close(struct wf_cxl *t);
/* What was published is durable. */
enum weft_status wf_cxl_medium_flush(struct wf_cxl *t);

/* Run work(context); a fault makes the tier failed.  Poison does not: it is returned. */
enum wf_fault wf_cxl_guarded(struct wf_cxl *t, void (*work)(void *context), void *context);

/* ---- cxl_volume.c */

enum weft_status wf_cxl_volume_open(struct wf_cxl *t, const struct wf_tier_options *options);
/* For who only reads, of a medium that is mapped: its description, if it has one.  WEFT_E_SYSTEM:
 * not (yet), or not one that hosts share. */
enum weft_status wf_cxl_volume_watch(struct wf_cxl *t);
/* Is it still the volume that was opened?  Touches the medium. */
bool wf_cxl_volume_same(const struct wf_cxl *t);
void wf_cxl_volume_close(struct wf_cxl *t);

/* Store one word that others read, and have it in memory before anything after.  Touches the
 * medium. */
void wf_cxl_publish(uint64_t *word, uint64_t value);

/* A word as memory has it.  Touches the medium. */
uint64_t wf_cxl_look(const struct wf_cxl *t, const uint64_t *word);

/* An extent's word, as memory has it; 0 when its check is wrong.  Touches the medium. */
uint64_t wf_cxl_extent_word(const struct wf_cxl *t, uint64_t extent);
uint64_t wf_cxl_extent_word_make(const struct wf_cxl *t, uint64_t extent, uint64_t generation,
                                 uint8_t owner);

/* The word that commits a block with that header. */
uint64_t wf_cxl_commit_word(const struct wf_cxl_header *header);

/* The header at `granule`, copied out and believed: it is what `word` commits, in bounds, and all
 * of its extents are `owner`'s and of its generations.  Touches the medium. */
bool wf_cxl_header_read(const struct wf_cxl *t, uint64_t granule, uint64_t word, uint8_t owner,
                        struct wf_cxl_header *copy);
void wf_cxl_header_block(const struct wf_cxl_header *header, struct wf_tier_block *out);
/* Checksum and generations set; extents are ours.  Touches nothing. */
void wf_cxl_header_seal(const struct wf_cxl *t, struct wf_cxl_header *header);

/* `granules` in a row, taken; false: there are none. */
bool wf_cxl_space_take(struct wf_cxl *t, uint64_t granules, uint64_t *out_first);
void wf_cxl_space_give(struct wf_cxl *t, uint64_t first, uint64_t granules);

/* An extent is ours, with nothing in it that we know of, or, empty, not ours any more. */
void wf_cxl_extent_take(struct wf_cxl *t, uint64_t extent, uint64_t word);
void wf_cxl_extent_drop(struct wf_cxl *t, uint64_t extent);

/* Blocks in an extent that has become ours go into the index.  Touches the medium. */
void wf_cxl_extent_scan(struct wf_cxl *t, uint64_t extent);

/* Block `item` is not there any more, and its space may be written over. */
void wf_cxl_forget(struct wf_cxl *t, uint32_t item);

/* Tell other hosts that the directory of `granule` has changed.  Touches the medium. */
void wf_cxl_changed(struct wf_cxl *t, uint64_t granule);

/* ---- cxl_hosts.c */

/* Our row and a new session.  Touches the medium. */
void wf_cxl_join(struct wf_cxl *t);
void wf_cxl_leave(struct wf_cxl *t);

/* Once a second: a sign of life, and a look whether anyone has fenced us. */
void wf_cxl_beat(struct wf_cxl *t);

/* Get extents for a block of so many granules: WEFT_PENDING until the lock is ours, then WEFT_OK or
 * WEFT_FULL. */
enum weft_status wf_cxl_claim_step(struct wf_cxl *t, uint64_t granules);

/* Nobody waits for an extent any more: a number that was drawn would hold up the other hosts. */
void wf_cxl_claim_abandon(struct wf_cxl *t);

/* Every host that was ever there; `extents`: how many each has.  Touches the medium. */
uint32_t wf_cxl_census(const struct wf_cxl *t, const uint64_t extents[WF_CXL_HOSTS],
                       struct wf_tier_host *out, uint32_t max);

/* Extents that have become empty, beyond a few, are anybody's again. */
void wf_cxl_extents_release(struct wf_cxl *t, uint64_t first, uint64_t granules);

#endif
