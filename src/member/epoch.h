/* SPDX-License-Identifier: Apache-2.0
 *
 * Epochs of a node that has no registry to count them.
 *
 * The epoch is the wall clock's nanoseconds, or one more than the last, whichever is more; the last
 * is kept in STATE_DIR/NAME.epoch:
 *
 *     20 digits: the epoch │ space │ 20 digits: its complement │ line end        (42 bytes)
 *
 * So it grows though the clock was set back, as long as the file is there, and though the file is
 * lost, as long as the clock is right.  A file that is not as above counts as lost.  The new one is
 * written beside it, forced, and renamed before the epoch is used: who dies in between has used
 * none.  STATE_DIR/NAME.epoch.lock is locked as long as the node lives, so that no two of one name
 * run from one directory.
 */
#ifndef WF_MEMBER_EPOCH_H
#define WF_MEMBER_EPOCH_H

#include <stdint.h>

#include "base/status.h"

/* state_dir NULL: by the clock alone, and *out_lock is -1.  Else *out_lock is for close() when the
 * node ends.  WEFT_E_BUSY: another node of that name runs; WEFT_E_SYSTEM; WEFT_E_DENIED. */
enum weft_status wf_epoch_next(const char *state_dir, const char *name, uint64_t *out_epoch,
                               int *out_lock);

#endif
