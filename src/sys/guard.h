/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that may go away while it is read: a device that is unplugged, a file that is cut.
 *
 * A load from such a mapping is answered with SIGBUS.  Work that touches it runs inside
 * wf_guard_run(), which returns what happened instead of letting the process die.  The signal
 * handler acts only on addresses inside the range that its own thread guards; every other SIGBUS
 * goes to whoever had the handler before, or kills the process as it would have.
 *
 * `work` is left in the middle: it must hold no lock, own no memory and leave nothing half done
 * that anyone believes afterwards.  Variables that it shares with its caller live in memory, not on
 * its stack.  Guards nest; the inner one answers for its own range.
 */
#ifndef WF_SYS_GUARD_H
#define WF_SYS_GUARD_H

#include <stddef.h>

#include "base/status.h"

enum wf_fault {
    WF_FAULT_NONE = 0,
    WF_FAULT_GONE = 1,   /* the mapping has nothing behind it */
    WF_FAULT_POISON = 2, /* the hardware lost this line; the rest may be well */
};

/* Install the handler where it is not; any thread, as often as one likes. */
enum weft_status wf_guard_install(void);

/* Run work(context); memory and bytes are the range in which a SIGBUS is an answer. */
enum wf_fault wf_guard_run(const void *memory, size_t bytes, void (*work)(void *context),
                           void *context);

#endif
