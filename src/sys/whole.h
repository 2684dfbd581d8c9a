/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that is there whole or not at all.
 *
 * It is written beside its place, as NAME.new in the same folder, and takes that place when all of
 * it is written.  Until then what was there stays as it was: whoever finds no room leaves nothing
 * beside it, and whoever is killed leaves NAME.new, which the next one to write there replaces.
 * While somebody writes it NAME.new is locked (flock), so that no other takes it for what a dead
 * one left: who comes second is refused with EBUSY.
 *
 * All of these are false with errno where something failed, and have then undone what can be; the
 * caller makes the sentence.  One thread at a time for each struct wf_whole.
 */
#ifndef WF_SYS_WHOLE_H
#define WF_SYS_WHOLE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define WF_WHOLE_SUFFIX ".new"

enum wf_whole_how {
    /* It is on the disk before it takes its place, and so is its name before end() returns: it
     * outlives a loss of power.  Without this it outlives only the process. */
    WF_WHOLE_SYNC = 1,
    WF_WHOLE_FIRST = 2, /* what is there already stays: EEXIST */
};

struct wf_whole {
    int fd;        /* NAME.new, to be written to; -1: nothing is begun */
    int directory; /* that both names lie in */
    char name[NAME_MAX + 1], beside[NAME_MAX + 1];
};

/* `path` is relative to the open folder `directory`, or to the working directory with AT_FDCWD. A
 * link in its last part is replaced, not followed.  `mode` as for open(): the umask counts.  The
 * file stays locked, and the folder open, until end() or drop(). */
bool wf_whole_begin(struct wf_whole *out, int directory, const char *path, mode_t mode);
/* What comes next in it. */
bool wf_whole_write(struct wf_whole *file, const void *bytes, size_t count);
/* It is whole.  `how`: of enum wf_whole_how.  False: nothing was replaced, unless it was only that
 * its name could not be synced. */
bool wf_whole_end(struct wf_whole *file, unsigned how);
/* Leave nothing of it; nothing where nothing is begun.  errno stays. */
void wf_whole_drop(struct wf_whole *file);

/* All of it at once. */
bool wf_whole_put(int directory, const char *path, mode_t mode, const void *bytes, size_t count,
                  unsigned how);

#endif
