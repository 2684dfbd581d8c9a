/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <numa.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/size.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGE_BYTES ((size_t)4096)

enum weft_status wf_memfd_create(const char *name, size_t bytes, enum wf_pages pages, int *out_fd)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (pages == WF_PAGES_HUGE)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    int fd = WF_FAILS("memfd_create") ? (errno = EMFILE, -1) : memfd_create(name, flags);
    if (fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "memfd_create(%s): %s; %s", name, strerror(errno),
                       errno == EMFILE ? "raise the open-file limit (ulimit -n)"
                                       : "see weft doctor");
    char size[16];
    if ((WF_FAILS("ftruncate") ? (errno = ENOSPC, -1) : ftruncate(fd, (off_t)bytes)) != 0) {
        enum weft_status status =
            wf_fail(WEFT_E_SYSTEM, "cannot size shared memory %s to %s: %s; lower the pool's size",
                    name, wf_size_format(bytes, size, sizeof size), strerror(errno));
        close(fd);
        return status;
    }
    /* A memfd is born with mode 0777, and whoever has a descriptor of it, for reading only even,
     * may open it again through /proc with the rights of its mode. */
    if (fchmod(fd, 0600) != 0) {
        enum weft_status status = wf_fail(WEFT_E_SYSTEM, "cannot restrict %s: %s", name,
                                          strerror(errno));
        close(fd);
        return status;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        enum weft_status status = wf_fail(WEFT_E_SYSTEM, "cannot seal %s: %s", name,
                                          strerror(errno));
        close(fd);
        return status;
    }
    *out_fd = fd;
    return WEFT_OK;
}

enum weft_status wf_memfd_reopen_readonly(int fd, int *out_fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int copy = WF_FAILS("open") ? (errno = EMFILE, -1) : open(path, O_RDONLY | O_CLOEXEC);
    if (copy < 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "%s: %s; /proc must be mounted and the open-file limit not reached", path,
                       strerror(errno));
    *out_fd = copy;
    return WEFT_OK;
}

size_t wf_file_bytes(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && info.st_size > 0 ? (size_t)info.st_size : 0;
}

/* As mmap(), at a multiple of WF_HUGE_BYTES if the address space has room to look for one: where it
 * has not (ulimit -v), the memory is as good without, but for huge pages. */
static void *map_aligned(size_t bytes, int protection, int flags, int fd)
{
    size_t whole = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    char *room = mmap(NULL, whole + WF_HUGE_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return mmap(NULL, bytes, protection, flags, fd, 0);
    size_t before = (WF_HUGE_BYTES - (uintptr_t)room % WF_HUGE_BYTES) % WF_HUGE_BYTES;
    void *memory = mmap(room + before, bytes, protection, flags | MAP_FIXED, fd, 0);
    int error = errno;
    if (memory == MAP_FAILED) {
        munmap(room, whole + WF_HUGE_BYTES);
        errno = error;
        return MAP_FAILED;
    }
    if (before)
        munmap(room, before);
    munmap(room + before + whole, WF_HUGE_BYTES - before);
    return memory;
}

enum weft_status wf_map(int fd, size_t bytes, bool writable, void **out)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_SHARED | MAP_NORESERVE;
    void *memory;
    if (WF_FAILS("mmap")) {
        memory = MAP_FAILED;
        errno = ENOMEM;
    } else {
        memory = bytes >= WF_HUGE_BYTES ? map_aligned(bytes, protection, flags, fd)
                                        : mmap(NULL, bytes, protection, flags, fd, 0);
    }
    if (memory == MAP_FAILED) {
        char size[16];
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot map %s of shared memory: %s; see ulimit -v and vm.max_map_count",
                       wf_size_format(bytes, size, sizeof size), strerror(errno));
    }
    *out = memory;
    return WEFT_OK;
}

enum weft_status wf_map_huge(int fd, size_t bytes, void **out)
{
    void *memory = WF_FAILS("mmap") ? (errno = ENOMEM, MAP_FAILED)
                                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        char wanted[16], there[16];
        return wf_fail(
            WEFT_E_SYSTEM,
            "pool.huge: %s of huge pages are needed and %s are free; reserve them (sysctl "
            "-w vm.nr_hugepages=%zu), or set pool.huge to auto or off",
            wf_size_format(bytes, wanted, sizeof wanted),
            wf_size_format(wf_huge_free_bytes(), there, sizeof there), bytes / WF_HUGE_BYTES);
    }
    *out = memory;
    return WEFT_OK;
}

void wf_unmap(void *memory, size_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

void wf_advise_huge(void *memory, size_t bytes)
{
    madvise(memory, bytes, MADV_HUGEPAGE);
}

bool wf_huge_shared_allowed(void)
{
    char modes[128] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
    if (!file)
        return false;
    bool read = fgets(modes, sizeof modes, file) != NULL;
    fclose(file);
    return read && !strstr(modes, "[never]") && !strstr(modes, "[deny]");
}

bool wf_huge_make(void *memory)
{
    /* A range without a single page has nothing to collapse; this touch changes no byte. */
    return !WF_FAILS("collapse") && madvise(memory, PAGE_BYTES, MADV_POPULATE_WRITE) == 0 &&
           madvise(memory, WF_HUGE_BYTES, MADV_COLLAPSE) == 0;
}

bool wf_huge_make_works(void)
{
    int fd = memfd_create("weft-huge", MFD_CLOEXEC);
    bool works = false;
    if (fd >= 0 && ftruncate(fd, (off_t)WF_HUGE_BYTES) == 0) {
        void *memory = map_aligned(WF_HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
        works = memory != MAP_FAILED && wf_huge_make(memory);
        if (memory != MAP_FAILED)
            munmap(memory, WF_HUGE_BYTES);
    }
    if (fd >= 0)
        close(fd);
    return works;
}

enum weft_status wf_bind_node(void *memory, size_t bytes, int node)
{
    if (numa_available() < 0 || node > numa_max_node())
        return wf_fail(WEFT_E_INVALID,
                       "pool.numa_node %d: this host has nodes 0 to %d; choose one of them", node,
                       numa_available() < 0 ? 0 : numa_max_node());
    struct bitmask *nodes = numa_allocate_nodemask();
    if (!nodes)
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for a NUMA mask");
    numa_bitmask_setbit(nodes, (unsigned)node);
    long rc = mbind(memory, bytes, MPOL_BIND, nodes->maskp, nodes->size + 1, 0);
    numa_free_nodemask(nodes);
    if (rc != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot place the pool on NUMA node %d: %s", node,
                       strerror(errno));
    return WEFT_OK;
}

enum weft_status wf_populate(void *memory, size_t bytes)
{
    if (!WF_FAILS("populate") && madvise(memory, bytes, MADV_POPULATE_WRITE) == 0)
        return WEFT_OK;
    if (errno == EINVAL) { /* before Linux 5.14: the first touch does it */
        for (size_t at = 0; at < bytes; at += 4096)
            ((volatile char *)memory)[at] = ((volatile char *)memory)[at];
        return WEFT_OK;
    }
    char size[16];
    return wf_fail(WEFT_E_NO_MEMORY,
                   "cannot populate %s: %s; lower the size or free memory on this host",
                   wf_size_format(bytes, size, sizeof size), strerror(errno));
}

enum weft_status wf_punch(int fd, uint64_t offset, uint64_t bytes)
{
    int rc = WF_FAILS("fallocate") ? (errno = EIO, -1)
                                   : fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                               (off_t)offset, (off_t)bytes);
    if (rc != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot give memory back to the system: %s", strerror(errno));
    return WEFT_OK;
}

uint64_t wf_huge_free_bytes(void)
{
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    unsigned long long pages = 0;
    if (file) {
        if (fscanf(file, "%llu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return (uint64_t)pages * WF_HUGE_BYTES;
}

uint64_t wf_host_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

void *wf_calloc(size_t count, size_t bytes, const char *what)
{
    void *memory = WF_FAILS("calloc") ? NULL : calloc(count, bytes);
    if (!memory)
        wf_fail(WEFT_E_NO_MEMORY, "out of memory for %s", what);
    return memory;
}

void *wf_realloc(void *memory, size_t bytes, const char *what)
{
    void *larger = WF_FAILS("realloc") ? NULL : realloc(memory, bytes);
    if (!larger)
        wf_fail(WEFT_E_NO_MEMORY, "out of memory for %s", what);
    return larger;
}

char *wf_strdup(const char *text, const char *what)
{
    size_t bytes = strlen(text) + 1;
    char *copy = wf_calloc(bytes, 1, what);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}
