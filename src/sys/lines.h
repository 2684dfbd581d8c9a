/* SPDX-License-Identifier: Apache-2.0
 *
 * Cache lines of memory that outlives the cache, or that another host reads past it.
 *
 * On persistent memory and on CXL memory that several hosts share without hardware coherence, a
 * store is where it belongs only after its line was written back and a fence has passed, and a load
 * sees what another host wrote only after the line was invalidated here.  These calls are the whole
 * vocabulary for that:
 *
 *   publish:  wf_lines_stream(body); wf_lines_fence(); store of the word;
 * wf_lines_write_back(word); wf_lines_fence() look:     wf_lines_invalidate(word); load
 *
 * Which instruction writes a line back (clwb, clflushopt, clflush) is asked of the processor once.
 * Where there is none of them wf_lines_able() is false, and only memory that is coherent and that
 * nobody wants back may be used.
 *
 * Test builds can watch every call, and so simulate memory whose caches lose, reorder and keep what
 * no call forced (test/support/lines.h): no machine at hand would ever show a missing one.
 */
#ifndef WF_SYS_LINES_H
#define WF_SYS_LINES_H

#include <stdbool.h>
#include <stddef.h>

#define WF_LINE 64u

bool wf_lines_able(void);

/* "clwb", "clflushopt", "clflush", or "none". */
const char *wf_lines_instruction(void);

/* Copy past the cache; complete after the next fence.  `to` lies at a multiple of WF_LINE; bytes
 * beyond the last whole 16 go through the cache and are written back. */
void wf_lines_stream(void *to, const void *from, size_t bytes);

/* Write lines back; complete after the next fence. */
void wf_lines_write_back(const void *memory, size_t bytes);

/* Drop lines from the caches of this host, written back first where they were stored to: loads
 * after it see memory. */
void wf_lines_invalidate(const void *memory, size_t bytes);

/* All that was streamed and written back before is in memory before any store after it. */
void wf_lines_fence(void);

#if WF_TEST_HOOKS
/* Told after each call above has had its effect.  Set before any thread uses lines. */
struct wf_lines_watch {
    void (*streamed)(const void *memory, size_t bytes);
    void (*written_back)(const void *memory, size_t bytes);
    void (*invalidated)(const void *memory, size_t bytes);
    void (*fenced)(void);
};
extern const struct wf_lines_watch *wf_lines_watch;
#endif

#endif
