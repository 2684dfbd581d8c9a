/* SPDX-License-Identifier: Apache-2.0
 *
 * What this host offers to a pool, read from /proc, /sys and the process's limits.
 */
#ifndef WF_SYS_HOST_H
#define WF_SYS_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct wf_host {
    uint64_t memory_bytes;    /* RAM, or the cgroup's limit when that is less */
    bool memory_is_cgroup;    /* it was the cgroup's limit */
    uint64_t huge_page_bytes; /* size of the default huge page; 0: the kernel has none */
    uint64_t huge_free_bytes; /* in free, unreserved huge pages of that size */
    uint64_t memlock_bytes;   /* RLIMIT_MEMLOCK; UINT64_MAX: unlimited */
};

/* What cannot be read is 0. */
void wf_host_read(struct wf_host *out);

/* Whether a file system of the device with that number is mounted, and where. */
bool wf_host_mounted(dev_t device, char *out_where, size_t capacity);

/* Whether somebody has locked that file, as /proc/locks says, and who; 0: somebody whom this
 * process is not told of. */
bool wf_host_locked(dev_t device, ino_t file, pid_t *out_pid);

/* True when the kernel has a NUMA node of that number. */
bool wf_host_has_numa_node(int node);

#endif
