/* SPDX-License-Identifier: Apache-2.0
 *
 * Sleeping on a word of shared memory until another process changes it (futex(2), not the private
 * kind).
 */
#ifndef WF_SYS_FUTEX_H
#define WF_SYS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* Sleep while *word is `expected`, at most `timeout_ns`.  Returns early for no reason at times, so
 * the caller looks again.  The word may lie in a mapping that is read-only here. */
void wf_futex_wait(const _Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);

/* Wake everyone who sleeps on `word`, in any process. */
void wf_futex_wake_all(_Atomic uint32_t *word);

#endif
