/* SPDX-License-Identifier: Apache-2.0
 *
 * The journal that a test may have the NVMe tier write (nvme_tests.c): entries, one behind the
 * other, of which the last may be cut.  A write's entry is followed by the bytes that were there
 * before it.
 */
#ifndef WF_TIER_NVME_TESTS_H
#define WF_TIER_NVME_TESTS_H

#include <stdint.h>

enum wf_nvme_journal_what {
    WF_NVME_WRITE_BEGUN = 1,
    WF_NVME_WRITE_ENDED = 2,
    WF_NVME_SYNC_BEGUN = 3,
    WF_NVME_SYNC_ENDED = 4,
    WF_NVME_SYNC_FAILED = 5,
};

struct wf_nvme_journal {
    uint64_t what, offset, bytes;
};

/* Look at the environment; called when a tier is opened. */
void wf_nvme_tests_begin(void);

#endif
