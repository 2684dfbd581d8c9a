/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that processes share: anonymous files (memfd), their mappings, huge pages, NUMA, and
 * giving pages back.  Every function leaves a sentence on failure.
 */
#ifndef WF_SYS_MEMORY_H
#define WF_SYS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum wf_pages {
    WF_PAGES_NORMAL = 0,
    WF_PAGES_THP,  /* transparent: 2 MiB where the kernel has them, by itself or when asked to */
    WF_PAGES_HUGE, /* reserved ones (vm.nr_hugepages), 2 MiB */
};

#define WF_HUGE_BYTES ((size_t)2 << 20)

/* A sparse anonymous file of `bytes`, which nobody can shrink or grow afterwards: a peer that holds
 * it can not make our mapping fault by truncating it. */
enum weft_status wf_memfd_create(const char *name, size_t bytes, enum wf_pages pages, int *out_fd);

/* The same file through a descriptor that allows no writing, to be handed to whoever may only read.
 * It binds every user but our own and root, who could open the file again, as they could read and
 * write our memory. */
enum weft_status wf_memfd_reopen_readonly(int fd, int *out_fd);

/* The size of the file behind `fd`; 0 when it has none. */
size_t wf_file_bytes(int fd);

/* What has room for huge pages is mapped at a border of one, so that it can have them. */
enum weft_status wf_map(int fd, size_t bytes, bool writable, void **out);

/* The same for reserved huge pages, all of them set aside now: without that, the first touch of a
 * page that another took meanwhile would be SIGBUS, here or in a client. */
enum weft_status wf_map_huge(int fd, size_t bytes, void **out);

void wf_unmap(void *memory, size_t bytes);

/* Ask for transparent huge pages; a hint, never an error. */
void wf_advise_huge(void *memory, size_t bytes);

/* Whether the kernel would give transparent huge pages to shared memory that asks for them. */
bool wf_huge_shared_allowed(void);

/* Whether wf_huge_make() works here, whatever transparent huge pages are set to for first touches:
 * found out by making one.  Linux has it since 6.1. */
bool wf_huge_make_works(void);

/* Have the huge page at `memory`, a border of one, present, with what is in there; others may read
 * and write it meanwhile.  False: there is no such page free, or someone holds part of it for a
 * device; then it stays as it is. */
bool wf_huge_make(void *memory);

/* Place pages of this range, when first touched, on NUMA node `node`. */
enum weft_status wf_bind_node(void *memory, size_t bytes, int node);

/* Have pages present and mapped now. */
enum weft_status wf_populate(void *memory, size_t bytes);

/* Give a range's pages back to the system.  Reading it afterwards gives zeros. */
enum weft_status wf_punch(int fd, uint64_t offset, uint64_t bytes);

/* Free reserved huge pages on this host, in bytes. */
uint64_t wf_huge_free_bytes(void);

/* Physical memory of this host, in bytes. */
uint64_t wf_host_bytes(void);

/* calloc, realloc and strdup that a test can make fail; `what` names it in the sentence. */
void *wf_calloc(size_t count, size_t bytes, const char *what);
void *wf_realloc(void *memory, size_t bytes, const char *what);
char *wf_strdup(const char *text, const char *what);

#endif
