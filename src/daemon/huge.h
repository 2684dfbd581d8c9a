/* SPDX-License-Identifier: Apache-2.0
 *
 * Huge pages for memory that a domain takes into use, made ahead of those who fill it.
 *
 * A first touch finds pages of 4 KiB unless the kernel is set to give transparent huge pages to
 * shared memory, which it rarely is.  So each range that becomes backed is made present in pages of
 * 2 MiB by the workers, step by step, while its first blocks are already being filled: fewer page
 * faults and TLB misses, and a block below DRAM is one piece for the device instead of hundreds.
 * It is help and no more: a page that cannot be made stays as it is, a range for which there is no
 * place in the list as well.
 *
 * Owner thread only, but for the step under way.  What is given back (punched) is out of the list
 * first, and no step is at it any more: otherwise it would come back, counted by nobody.
 */
#ifndef WF_DAEMON_HUGE_H
#define WF_DAEMON_HUGE_H

#include "base/status.h"

struct wf_domain;
struct wf_huge_pages;
struct wf_workers;

/* `workers` are borrowed. */
enum weft_status wf_huge_create(struct wf_workers *workers, struct wf_huge_pages **out);

/* No more steps.  The one under way ends with the workers, which go before wf_huge_destroy(). */
void wf_huge_stop(struct wf_huge_pages *huge);
void wf_huge_destroy(struct wf_huge_pages *huge);

/* This range of a segment has become backed: its whole huge pages are to be made. */
void wf_huge_backed(struct wf_huge_pages *huge, char *segment, uint64_t offset, uint64_t bytes);

/* It is about to be given back. */
void wf_huge_punching(struct wf_huge_pages *huge, char *segment, uint64_t offset, uint64_t bytes);

/* Bytes that were made and bytes that could not be, since the start. */
void wf_huge_counts(const struct wf_huge_pages *huge, uint64_t *made, uint64_t *refused);

#endif
