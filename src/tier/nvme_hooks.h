/* SPDX-License-Identifier: Apache-2.0
 *
 * What a test can do to the I/O of the NVMe tier: see it, hold it back, have it fail.  Built
 * without -Dtest_hooks=true there is nothing of it.
 */
#ifndef WF_TIER_NVME_HOOKS_H
#define WF_TIER_NVME_HOOKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct wf_nvme_call {
    enum {
        WF_NVME_CALL_READ,
        WF_NVME_CALL_WRITE,
        WF_NVME_CALL_SYNC,
        WF_NVME_CALL_DISCARD /* at once; it cannot be held back */
    } what;
    int kind; /* enum wf_nvme_io_kind; 0: while it is being opened */
    int fd;   /* of the medium, through the page cache */
    uint64_t offset, bytes;
    const struct iovec *vector;
    uint32_t vectors;
};

struct wf_nvme_hooks {
    void *context;
    /* Before the kernel has it.  0: it goes on; < 0: it ends with that, and nothing is done; > 0:
     * it is held back for so many microseconds (not while opening). */
    int (*before)(void *context, const struct wf_nvme_call *call);
    /* It has ended; returns the result that the tier is to see. */
    int (*after)(void *context, const struct wf_nvme_call *call, int result);
};

#if WF_TEST_HOOKS
extern const struct wf_nvme_hooks *wf_nvme_hooks; /* of all tiers of the process; NULL: none */
#endif

#endif
