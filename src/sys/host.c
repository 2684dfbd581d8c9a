/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/host.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The limit of the cgroup that this process's own namespace shows as its root: what a container is
 * given. 0 when there is none ("max") or no cgroup v2. */
static uint64_t cgroup_limit(void)
{
    uint64_t bytes = 0;
    FILE *file = fopen("/sys/fs/cgroup/memory.max", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%" SCNu64, &bytes) != 1)
        bytes = 0;
    fclose(file);
    return bytes;
}

static void read_huge_pages(struct wf_host *host)
{
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return;
    char line[128];
    uint64_t available = 0, reserved = 0, kib = 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "HugePages_Free: %" SCNu64, &available) == 1)
            continue;
        if (sscanf(line, "HugePages_Rsvd: %" SCNu64, &reserved) == 1)
            continue;
        (void)sscanf(line, "Hugepagesize: %" SCNu64, &kib);
    }
    fclose(file);
    host->huge_page_bytes = kib * 1024;
    host->huge_free_bytes = available > reserved ? (available - reserved) * kib * 1024 : 0;
}

void wf_host_read(struct wf_host *out)
{
    *out = (struct wf_host){0};
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page_bytes > 0)
        out->memory_bytes = (uint64_t)pages * (uint64_t)page_bytes;
    uint64_t limit = cgroup_limit();
    if (limit && limit < out->memory_bytes) {
        out->memory_bytes = limit;
        out->memory_is_cgroup = true;
    }
    read_huge_pages(out);
    struct rlimit memlock;
    if (getrlimit(RLIMIT_MEMLOCK, &memlock) == 0)
        out->memlock_bytes = memlock.rlim_cur == RLIM_INFINITY ? UINT64_MAX : memlock.rlim_cur;
}

bool wf_host_mounted(dev_t device, char *out_where, size_t capacity)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, where[4096];
    size_t room = 0;
    bool found = false;
    while (file && !found && getline(&line, &room, file) > 0) {
        unsigned major_number, minor_number;
        /* ID PARENT MAJOR:MINOR ROOT WHERE …; spaces in a path are written as \040. */
        found = sscanf(line, "%*d %*d %u:%u %*s %4095s", &major_number, &minor_number, where) ==
                    3 &&
                makedev(major_number, minor_number) == device;
    }
    if (found)
        snprintf(out_where, capacity, "%s", where);
    free(line);
    if (file)
        fclose(file);
    return found;
}

bool wf_host_locked(dev_t device, ino_t file, pid_t *out_pid)
{
    FILE *locks = fopen("/proc/locks", "re");
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    while (locks && !found && getline(&line, &room, locks) > 0) {
        unsigned major_number, minor_number;
        unsigned long long number;
        int pid;
        /* "1: FLOCK  ADVISORY  WRITE PID MAJOR:MINOR:INODE …"; who waits for one has "->". */
        found = sscanf(line, "%*d: %*s %*s WRITE %d %x:%x:%llu", &pid, &major_number, &minor_number,
                       &number) == 4 &&
                makedev(major_number, minor_number) == device && number == file;
        if (found)
            *out_pid = pid > 0 ? pid : 0;
    }
    free(line);
    if (locks)
        fclose(locks);
    return found;
}

bool wf_host_has_numa_node(int node)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d", node);
    return access(path, F_OK) == 0;
}
