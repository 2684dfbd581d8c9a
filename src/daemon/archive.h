/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives: chains that are durable below DRAM, and that no eviction takes from there.
 *
 *   archive_begin.c one is asked for
 *   archive_run.c   one is made: blocks written, flushed, read back; the manifest; the answer
 *   archive.c       those that are kept: found again at a start, watched, replaced
 *   archive_leave.c one is let go of
 *   archive_spare.c copies that archives can do without
 *   archive_list.c  what queries say of them
 *
 * An archive is its manifest (archive_format.h) and a chain whose every block is on a tier that is
 * durable and may hold archives.  The directory counts it on every entry of the chain, and its
 * tip's entry is held, so that its number says whether the chain is still there.
 *
 * A crash leaves either no manifest, and the chain is ordinary blocks; or one, and then all of the
 * chain was durable before.  Two manifests of one name are both kept until it is known which of
 * them are whole; then the newer of these counts, and the other is removed.
 *
 * Owner thread only; movers do the I/O.
 */
#ifndef WF_DAEMON_ARCHIVE_H
#define WF_DAEMON_ARCHIVE_H

#include "daemon/archive_format.h"
#include "daemon/below.h"

#define WF_ARCHIVES_MAX 4096u  /* of a node */
#define WF_ARCHIVE_RUNS_MAX 4u /* being made at a time */
#define WF_ARCHIVE_UNDONE_MAX 64u
#define WF_ARCHIVE_JOBS_MAX 16u /* in flight for one of them; and manifests read at a start */

/* One that is kept. */
struct wf_archive_kept {
    struct wf_lower *lower; /* where its manifest lies */
    uint8_t key[32];        /* of the manifest */
    uint8_t *raw;           /* the manifest; owned */
    uint32_t raw_bytes, blocks;
    uint64_t bytes, created_ms;
    struct wf_domain *domain;
    char name[WF_ARCHIVE_NAME_MAX + 1];
    uint8_t tip[32];
    uint32_t entry; /* of the tip, held and counted; WF_DIRECTORY_NONE: the tip is not there */
    uint8_t on;     /* tiers that its blocks were on when it was whole; 0: not known */
    bool whole;     /* every block is on a tier that may hold archives, */
    bool unread;    /* but what some were stored by is not here: they cannot be read now */
    bool durable;   /* and this node flushed them all, and no tier lost one of the domain since */
    bool told;      /* that it is damaged; */
    bool missed;    /* that it waits for tiers */
    bool unseen;    /* its manifest's tier failed and has not told of it again; */
    bool gone;      /* and never will: it was opened without */
};

/* The manifest of a run that failed: its tier is to forget it, whenever it can. */
struct wf_archive_undone {
    struct wf_lower *lower; /* NULL: this place is free */
    uint8_t key[32];
};

struct wf_archive_run;
struct wf_archive_reads;
struct wf_archive_leaves;
struct wf_archive_spares;

struct wf_archives {
    struct wf_below *below;
    uint8_t tag[32];
    struct wf_archive_kept *kept[WF_ARCHIVES_MAX + 1]; /* one more is about to be replaced */
    uint32_t count, check_at;
    uint64_t lost, checked_ns; /* lost: times that an archive was found not to be whole */
    bool waiting;              /* see wf_archives_waiting() */
    bool stuck;                /* and not because a tier is only being opened */
    bool doubles;              /* there are two of one name */
    struct wf_archive_undone undone[WF_ARCHIVE_UNDONE_MAX];
    uint32_t undone_next;
    struct wf_archive_run *runs;
    struct wf_archive_reads *reads;
    struct wf_archive_leaves *leaves;
    struct wf_archive_spares *spares;
};

/* archive.c */
enum weft_status wf_archives_create(struct wf_below *below);
void wf_archives_destroy(struct wf_below *below);
/* True: what was found on a tier is a manifest, and was kept aside. */
bool wf_archives_found(struct wf_lower *lower, const struct wf_tier_block *block);
/* A tier is open, or cannot be opened. */
void wf_archives_opened(struct wf_below *below);
/* A tier that was open works no more, and the directory knows it. */
void wf_archives_failed(struct wf_lower *lower);
/* Is what a tier that does not work has a part of some archive, as far as can be known?  Then what
 * lies on the other tiers for archives may be the rest of it, and stays: nothing there is evicted,
 * and nothing is removed. */
bool wf_archives_waiting(const struct wf_below *below);
/* A tier is about to fail: it is so until somebody has looked. */
void wf_archives_wait(struct wf_below *below);
/* The manifest of a run that failed lies there, or may; or is written anew. */
void wf_archive_undo(struct wf_archives *archives, struct wf_lower *lower, const uint8_t key[32]);
void wf_archive_redo(struct wf_archives *archives, const struct wf_lower *lower,
                     const uint8_t key[32]);
/* Have all manifests been read?  Before, it is not known which blocks may be let go. */
bool wf_archives_settled(const struct wf_below *below);
void wf_archives_tick(struct wf_below *below);
/* Does the block belong to an archive? */
bool wf_archived(const struct wf_domain *domain, const uint8_t key[32]);
/* Tiers that may hold archives, a bit each. */
uint8_t wf_archive_tiers(const struct wf_below *below);
struct wf_archive_kept *wf_archive_find(struct wf_archives *archives,
                                        const struct wf_domain *domain, const char *name);
/* Tiers that it waits for, a bit each: they may have what is not there now.  0: it is whole, or
 * damaged. */
uint8_t wf_archive_waits(const struct wf_archives *archives, const struct wf_archive_kept *kept);
/* Tiers that hold some of it, a bit each, as it was last found; which is once in a while, and at
 * wf_archive_check(). */
uint8_t wf_archive_on(const struct wf_archive_kept *kept);
/* A tier does not have a block of that entry any more, or not as it was: what is put in its place
 * is not durable before it was flushed, however soon the chain is whole again. */
void wf_archive_missed(struct wf_below *below, const struct wf_domain *domain, uint32_t entry);
/* Look whether it is whole, and count it on its chain if it can be. */
void wf_archive_check(struct wf_archives *archives, struct wf_archive_kept *kept);
/* The manifest that lies on `lower` is durable: it counts from now on, beside others of its name.
 * `raw` is copied. */
enum weft_status wf_archive_keep(struct wf_archives *archives, struct wf_lower *lower,
                                 const void *raw, size_t raw_bytes);
/* It is the only one of its name from now on. */
void wf_archive_alone(struct wf_archives *archives, const struct wf_archive_kept *kept);
/* It is none any more; its manifest stays where it is. */
void wf_archive_forget(struct wf_archives *archives, struct wf_archive_kept *kept);
/* The same, and its manifest goes by and by. */
void wf_archive_drop(struct wf_archives *archives, struct wf_archive_kept *kept);

/* archive_leave.c */
struct wf_archive_left {
    uint32_t blocks;
    uint64_t bytes;
    const char *tier; /* where its manifest lay; NULL: not known */
};
enum weft_status wf_archive_leaves_create(struct wf_archives *archives);
void wf_archive_leaves_destroy(struct wf_archives *archives);
void wf_archive_leaves_tick(struct wf_archives *archives);
/* How many are not durably gone yet. */
uint32_t wf_archive_leaves_busy(const struct wf_archives *archives);
/* Is one of that name on its way out? */
bool wf_archive_leaving(struct wf_archives *archives, const struct wf_domain *domain,
                        const char *name);
/* The same, or gone, and nobody has heard of it. */
bool wf_archive_leaves(struct wf_archives *archives, const struct wf_domain *domain,
                       const char *name);
/* Let go of an archive, or see how far that is: WEFT_PENDING until it is durably gone; then its
 * result, once.  WEFT_E_NOT_FOUND. */
enum weft_status wf_archive_leave(struct wf_archives *archives, const struct wf_domain *domain,
                                  const char *name, struct wf_archive_left *out);

/* archive_spare.c */
enum weft_status wf_archive_spares_create(struct wf_archives *archives);
void wf_archive_spares_destroy(struct wf_archives *archives);
/* An entry whose copy on `lower` an archive can do without, because another tier has it durably.
 * WF_DIRECTORY_NONE: none was found, or it must be made sure first; ask again. */
uint32_t wf_archive_spare(const struct wf_lower *lower);
/* A tier lost something. */
void wf_archive_spares_forget(struct wf_archives *archives);

/* archive_run.c, archive_begin.c */
enum weft_status wf_archive_runs_create(struct wf_archives *archives);
void wf_archive_runs_destroy(struct wf_archives *archives);
uint32_t wf_archive_runs_busy(const struct wf_archives *archives);
/* Is the block part of a chain that becomes an archive now?  O(blocks of all such). */
bool wf_archive_takes(const struct wf_domain *domain, const uint8_t key[32]);
void wf_archive_runs_tick(struct wf_archives *archives);
void wf_handle_archive(struct wf_client *client, const struct wf_archive *request);

/* archive_list.c: JSON, for free(); NULL: no memory.  wf_archive_show: of one that there is, with
 * its keys from root to tip, from the cursor's on. */
struct wf_domain_gauges;
void wf_archives_gauge(const struct wf_domain *domain, struct wf_domain_gauges *out);
char *wf_archives_list(const struct wf_domain *domain, uint64_t cursor);
char *wf_archive_show(const struct wf_domain *domain, const char *name, uint64_t cursor);

#endif
