/* SPDX-License-Identifier: Apache-2.0
 *
 * weft doctor: memory.  Pages, NUMA, limits, and the slower tiers that this machine has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/doctor.h"

#define GIB ((uint64_t)1 << 30)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* A field of /proc/meminfo in bytes. */
static uint64_t meminfo(const char *field)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':') {
            kib = strtoull(line + strlen(field) + 1, NULL, 10);
            break;
        }
    if (file)
        fclose(file);
    return kib << 10;
}

static void memory_check(struct doctor *doctor)
{
    char total[32], available[32], limit_text[32], line[64];
    uint64_t bytes = meminfo("MemTotal"), free_bytes = meminfo("MemAvailable");
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "memory", free_bytes > GIB ? DOCTOR_OK : DOCTOR_BROKEN,
                      "%s, %s available", wf_cli_size(bytes, total, sizeof total),
                      wf_cli_size(free_bytes, available, sizeof available));
    if (free_bytes <= GIB) {
        snprintf(finding->why, sizeof finding->why, "less than 1 GiB is left for a pool");
        snprintf(finding->mend, sizeof finding->mend,
                 "ps aux --sort=-rss | head   # and stop what can go");
    }
    bool limited = wf_doctor_line("/sys/fs/cgroup/memory.max", line, sizeof line) &&
                   strcmp(line, "max") != 0;
    uint64_t limit = limited ? strtoull(line, NULL, 10) : 0;
    if (limited && limit < bytes) {
        finding = wf_doctor_add(doctor, "cgroup_memory", DOCTOR_BETTER, "limited to %s",
                                wf_cli_size(limit, limit_text, sizeof limit_text));
        snprintf(finding->why, sizeof finding->why,
                 "the kernel kills the node when pool and processes pass the limit together");
        snprintf(finding->mend, sizeof finding->mend,
                 "start weftd with pool.size=%lluMB, or raise the container's memory limit",
                 (unsigned long long)(limit / 2 >> 20));
    }
}

/* Try what the daemon would do: a memfd of one huge page, mapped and touched. */
static bool huge_page_works(void)
{
    size_t bytes = meminfo("Hugepagesize");
    int fd = bytes ? memfd_create("weft-doctor", MFD_CLOEXEC | MFD_HUGETLB) : -1;
    bool works = false;
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0) {
        void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        works = map != MAP_FAILED;
        if (works)
            munmap(map, bytes);
    }
    if (fd >= 0)
        close(fd);
    return works;
}

static void huge_pages_check(struct doctor *doctor)
{
    uint64_t page = meminfo("Hugepagesize"), total = meminfo("HugePages_Total") >> 10;
    uint64_t unused = meminfo("HugePages_Free") >> 10, memory = meminfo("MemTotal");
    char size[32];
    wf_cli_size(page, size, sizeof size);
    if (!page) {
        wf_doctor_add(doctor, "huge_pages", DOCTOR_ABSENT, "this kernel has none");
        return;
    }
    bool works = huge_page_works();
    struct doctor_finding *finding = wf_doctor_add(doctor, "huge_pages",
                                                   works ? DOCTOR_OK : DOCTOR_BETTER,
                                                   "%llu of %s reserved, %llu free",
                                                   (unsigned long long)total, size,
                                                   (unsigned long long)unused);
    if (!works) {
        snprintf(finding->why, sizeof finding->why,
                 "a pool in small pages costs more TLB misses and page faults");
        snprintf(finding->mend, sizeof finding->mend,
                 "sysctl -w vm.nr_hugepages=%llu   # a quarter of the memory",
                 (unsigned long long)(memory / 4 / page));
    }
}

/* The word in brackets of "always [never] madvise". */
static bool bracketed(const char *path, char *out, size_t capacity)
{
    char line[256];
    if (!wf_doctor_line(path, line, sizeof line))
        return false;
    char *open = strchr(line, '['), *close = open ? strchr(open, ']') : NULL;
    if (!close)
        return false;
    *close = '\0';
    snprintf(out, capacity, "%s", open + 1);
    return true;
}

/* Try what the daemon does where the kernel gives none to shared memory by itself. */
static bool collapse_works(void)
{
    size_t huge = (size_t)2 << 20, page = 4096;
    int fd = memfd_create("weft-doctor", MFD_CLOEXEC);
    bool works = false;
    char *room = mmap(NULL, 2 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room != MAP_FAILED && fd >= 0 && ftruncate(fd, (off_t)huge) == 0) {
        char *at = room + (huge - (uintptr_t)room % huge) % huge;
        works = mmap(at, huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
                    MAP_FAILED &&
                madvise(at, page, MADV_POPULATE_WRITE) == 0 &&
                madvise(at, huge, MADV_COLLAPSE) == 0;
    }
    if (room != MAP_FAILED)
        munmap(room, 2 * huge);
    if (fd >= 0)
        close(fd);
    return works;
}

static void transparent_check(struct doctor *doctor)
{
    char mode[64];
    if (!bracketed("/sys/kernel/mm/transparent_hugepage/shmem_enabled", mode, sizeof mode)) {
        wf_doctor_add(doctor, "thp_shmem", DOCTOR_ABSENT,
                      "this kernel has no transparent huge pages");
        return;
    }
    bool serves = strcmp(mode, "never") != 0 && strcmp(mode, "deny") != 0;
    bool made = !serves && collapse_works();
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "thp_shmem", serves || made ? DOCTOR_OK : DOCTOR_BETTER, "%s%s", mode,
                      made ? " at first touch; the node makes them as memory comes into use" : "");
    if (!serves && !made) {
        snprintf(finding->why, sizeof finding->why,
                 "without reserved huge pages, the pool cannot get transparent ones either; a "
                 "device below it gets a block in many pieces");
        snprintf(finding->mend, sizeof finding->mend,
                 "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled");
    }
}

static void limits_check(struct doctor *doctor)
{
    struct rlimit limit;
    char size[32];
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
        bool wide = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= 64 << 20 || geteuid() == 0;
        struct doctor_finding *finding =
            wf_doctor_add(doctor, "memlock", wide ? DOCTOR_OK : DOCTOR_BETTER, "%s",
                          limit.rlim_cur == RLIM_INFINITY
                              ? "unlimited"
                              : wf_cli_size(limit.rlim_cur, size, sizeof size));
        if (!wide) {
            snprintf(finding->why, sizeof finding->why,
                     "io_uring buffers and RDMA want locked memory");
            snprintf(finding->mend, sizeof finding->mend,
                     "systemctl edit weftd   # [Service] LimitMEMLOCK=infinity; in a shell: "
                     "ulimit -l unlimited");
        }
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        bool wide = limit.rlim_cur >= 1024;
        struct doctor_finding *finding = wf_doctor_add(doctor, "open_files",
                                                       wide ? DOCTOR_OK : DOCTOR_BETTER, "%llu",
                                                       (unsigned long long)limit.rlim_cur);
        if (!wide) {
            snprintf(finding->why, sizeof finding->why,
                     "each client takes a handful of descriptors");
            snprintf(finding->mend, sizeof finding->mend, "ulimit -n 65536");
        }
    }
}

/* Segments are memfds and need no /dev/shm, but engines beside the node do, and containers have 64
 * MiB. */
static void shm_check(struct doctor *doctor)
{
    struct statvfs about;
    if (statvfs("/dev/shm", &about) != 0) {
        wf_doctor_add(doctor, "dev_shm", DOCTOR_ABSENT, "not mounted; the pool does not need it");
        return;
    }
    uint64_t bytes = (uint64_t)about.f_blocks * about.f_frsize;
    char size[32];
    struct doctor_finding *finding = wf_doctor_add(doctor, "dev_shm",
                                                   bytes >= GIB ? DOCTOR_OK : DOCTOR_BETTER, "%s",
                                                   wf_cli_size(bytes, size, sizeof size));
    if (bytes < GIB) {
        snprintf(finding->why, sizeof finding->why,
                 "the pool does not need it, but PyTorch and NCCL workers beside it do");
        snprintf(finding->mend, sizeof finding->mend,
                 "mount -o remount,size=50%% /dev/shm   # docker: --shm-size=16g");
    }
}

/* Nodes with memory and no processor are slower memory: CXL, HBM in flat mode. */
static void numa_check(struct doctor *doctor)
{
    int nodes = 0, far = 0;
    for (int i = 0; i < 1024; i++) {
        char path[96], line[256];
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", i);
        if (access(path, R_OK) != 0)
            continue;
        nodes++;
        far += !wf_doctor_line(path, line, sizeof line) || !line[0];
    }
    wf_doctor_add(doctor, "numa", DOCTOR_OK, "%d node%s, %d without processors", nodes,
                  nodes == 1 ? "" : "s", far);
    char line[16];
    if (nodes > 1 && wf_doctor_line("/proc/sys/kernel/numa_balancing", line, sizeof line) &&
        line[0] != '0') {
        struct doctor_finding *finding = wf_doctor_add(doctor, "numa_balancing", DOCTOR_BETTER,
                                                       "on");
        snprintf(finding->why, sizeof finding->why,
                 "the kernel unmaps pool pages to see who touches them");
        snprintf(finding->mend, sizeof finding->mend, "sysctl -w kernel.numa_balancing=0");
    }
}

static void tiers_check(struct doctor *doctor)
{
    int memories = wf_doctor_entries("/sys/bus/cxl/devices", "mem");
    wf_doctor_add(doctor, "cxl", memories ? DOCTOR_OK : DOCTOR_ABSENT, "%d memory devices",
                  memories);
    int daxes = wf_doctor_entries("/sys/bus/dax/devices", "dax");
    wf_doctor_add(doctor, "dax", daxes ? DOCTOR_OK : DOCTOR_ABSENT, "%d devices", daxes);
    int disks = wf_doctor_entries("/sys/class/nvme", "nvme");
    wf_doctor_add(doctor, "nvme", disks ? DOCTOR_OK : DOCTOR_ABSENT, "%d controllers", disks);
    uint64_t swap = meminfo("SwapTotal");
    char line[16] = "", size[32];
    bool swaps = swap && wf_doctor_line("/proc/sys/vm/swappiness", line, sizeof line) &&
                 strtol(line, NULL, 10) > 10;
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "swap", swaps ? DOCTOR_BETTER : DOCTOR_OK, "%s%s%s",
                      swap ? wf_cli_size(swap, size, sizeof size) : "none",
                      line[0] ? ", swappiness " : "", line);
    if (swaps) {
        snprintf(finding->why, sizeof finding->why,
                 "a pool that is swapped out is slower than computing anew");
        snprintf(finding->mend, sizeof finding->mend, "sysctl -w vm.swappiness=1");
    }
}

void wf_doctor_memory(struct doctor *doctor)
{
    memory_check(doctor);
    numa_check(doctor);
    huge_pages_check(doctor);
    transparent_check(doctor);
    limits_check(doctor);
    shm_check(doctor);
    tiers_check(doctor);
}
