/* SPDX-License-Identifier: Apache-2.0
 *
 * The mapping that a CXL tier lives on.
 *
 * A device or a file is locked for as long as it is open, by one byte a host (fcntl(2), open file
 * description locks), so that two programs of one machine cannot both be the same host.  Between
 * machines nothing can hinder that but whoever hands out the numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hooks.h"
#include "sys/cxl.h"
#include "sys/host.h"
#include "sys/lines.h"
#include "sys/memory.h"
#include "tier/cxl_volume.h"

#define FILE_PREFIX "file-emulation:"
#define NODE_PREFIX "node:"

static bool node_number(const char *path, int *out)
{
    const char *digits = path + strlen(NODE_PREFIX);
    size_t count = strspn(digits, "0123456789");
    if (count == 0 || count > 5 || digits[count] != '\0')
        return false;
    *out = (int)strtol(digits, NULL, 10);
    return true;
}

enum wf_cxl_medium wf_tier_cxl_medium(const char *path)
{
    int node;
    if (!strncmp(path, FILE_PREFIX, strlen(FILE_PREFIX)))
        return path[strlen(FILE_PREFIX)] ? WF_CXL_MEDIUM_FILE : (enum wf_cxl_medium)0;
    if (!strncmp(path, NODE_PREFIX, strlen(NODE_PREFIX)))
        return node_number(path, &node) ? WF_CXL_MEDIUM_NODE : (enum wf_cxl_medium)0;
    return path[0] == '/' ? WF_CXL_MEDIUM_DAX : (enum wf_cxl_medium)0;
}

const char *wf_tier_cxl_medium_name(enum wf_cxl_medium medium)
{
    return medium == WF_CXL_MEDIUM_DAX    ? "dax"
           : medium == WF_CXL_MEDIUM_NODE ? "node"
           : medium == WF_CXL_MEDIUM_FILE ? "file-emulation"
                                          : "unknown";
}

bool wf_tier_cxl_persistent(const char *path)
{
    enum wf_cxl_medium medium = wf_tier_cxl_medium(path);
    return medium == WF_CXL_MEDIUM_DAX || medium == WF_CXL_MEDIUM_FILE;
}

static enum weft_status lock_file(const struct wf_cxl *t)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = t->shared ? t->host : 0,
                         .l_len = t->shared ? 1 : WF_CXL_HOSTS};
    if (fcntl(t->fd, F_OFD_SETLK, &lock) == 0)
        return WEFT_OK;
    if (errno == EAGAIN || errno == EACCES)
        return wf_fail(WEFT_E_BUSY,
                       "tier %s: a program of this machine has it open as host %u; stop it",
                       t->path, t->host);
    return wf_fail(WEFT_E_SYSTEM, "tier %s: cannot be locked: %s", t->path, strerror(errno));
}

static enum weft_status open_path(struct wf_cxl *t, const char *path, int flags)
{
    t->fd = WF_FAILS("open") ? (errno = EMFILE, -1) : open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (t->fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: %s; it must be there, and readable and writable",
                       t->path, strerror(errno));
    return lock_file(t);
}

static enum weft_status map(struct wf_cxl *t, uint64_t bytes, int flags)
{
    void *memory = WF_FAILS("mmap") ? (errno = ENOMEM, MAP_FAILED)
                                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, t->fd, 0);
    if (memory == MAP_FAILED)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: %llu bytes cannot be mapped: %s; see ulimit -v",
                       t->path, (unsigned long long)bytes, strerror(errno));
    t->memory = memory;
    t->bytes = bytes;
    return WEFT_OK;
}

static enum weft_status open_dax(struct wf_cxl *t, uint64_t capacity)
{
    uint64_t bytes, align;
    if (!wf_lines_able())
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: this processor has no way to write a cache line back; use node:N",
                       t->path);
    enum weft_status status = open_path(t, t->path, 0);
    if (status == WEFT_OK)
        status = wf_cxl_dax_geometry(t->fd, &bytes, &align);
    if (status != WEFT_OK)
        return status;
    if (align < WF_CXL_GRANULE)
        align = WF_CXL_GRANULE;
    if (capacity && capacity < bytes)
        bytes = capacity;
    return map(t, bytes / align * align, MAP_SHARED);
}

static enum weft_status open_file(struct wf_cxl *t, uint64_t capacity)
{
    struct stat is;
    const char *path = t->path + strlen(FILE_PREFIX);
    if (capacity < WF_TIER_CXL_BYTES_LEAST && (stat(path, &is) != 0 || is.st_size == 0))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a new file needs a capacity of %u bytes or more, not %llu; give "
                       "one",
                       t->path, WF_TIER_CXL_BYTES_LEAST, (unsigned long long)capacity);
    enum weft_status status = open_path(t, path, O_CREAT);
    if (status != WEFT_OK)
        return status;
    if (fstat(t->fd, &is) != 0 || !S_ISREG(is.st_mode))
        return wf_fail(WEFT_E_INVALID, "tier %s: it is no regular file; name one", t->path);
    uint64_t bytes = (uint64_t)is.st_size;
    if (bytes < capacity) {
        /* Every byte is there before it is mapped: a full file system would be SIGBUS later. */
        int error = WF_FAILS("fallocate") ? ENOSPC : posix_fallocate(t->fd, 0, (off_t)capacity);
        if (error != 0)
            return wf_fail(WEFT_E_SYSTEM, "tier %s: %llu bytes cannot be had: %s; free some space",
                           t->path, (unsigned long long)capacity, strerror(error));
        bytes = capacity;
    }
    if (capacity && capacity < bytes)
        bytes = capacity;
    if (bytes < WF_CXL_GRANULE)
        return wf_fail(WEFT_E_INVALID, "tier %s: its file has %llu bytes; give it a capacity",
                       t->path, (unsigned long long)bytes);
    return map(t, bytes / WF_CXL_GRANULE * WF_CXL_GRANULE, MAP_SHARED);
}

/* All of it is asked for now: memory that is bound to a node and not there when it is touched would
 * have the kernel end a process to find some. */
static enum weft_status open_node(struct wf_cxl *t, uint64_t capacity, bool dram_too)
{
    int node = -1;
    (void)node_number(t->path, &node);
    if (!wf_host_has_numa_node(node))
        return wf_fail(WEFT_E_INVALID, "tier %s: this host has no such node; see numactl -H",
                       t->path);
    if (!dram_too && wf_cxl_node_has_processors(NULL, node))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: that node has processors, so its memory is plain DRAM; name one "
                       "without, give the memory to the pool (pool.size), or set dram_node: true",
                       t->path);
    if (t->shared)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a node's memory is this host's own; share a DAX device", t->path);
    uint64_t there = wf_cxl_node_free_bytes(NULL, node);
    uint64_t bytes = capacity ? capacity : there / 10 * 9;
    bytes -= bytes % WF_HUGE_BYTES;
    if (bytes > there)
        return wf_fail(
            WEFT_E_INVALID,
            "tier %s: a capacity of %llu bytes is more than the %llu that are free; give "
            "less",
            t->path, (unsigned long long)capacity, (unsigned long long)there);
    if (bytes == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: the node has no memory left; free some", t->path);
    enum weft_status status = map(t, bytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (status != WEFT_OK)
        return status;
    wf_advise_huge(t->memory, bytes);
    status = wf_bind_node(t->memory, bytes, node);
    return status == WEFT_OK ? wf_populate(t->memory, bytes) : status;
}

enum weft_status wf_cxl_medium_open(struct wf_cxl *t, const struct wf_tier_options *options)
{
    if (strlen(options->path) >= sizeof t->path)
        return wf_fail(WEFT_E_INVALID, "tier %.40s…: its path has %zu bytes; %u are the most",
                       options->path, strlen(options->path), WF_CXL_PATH_BYTES - 1);
    snprintf(t->path, sizeof t->path, "%s", options->path);
    t->medium = wf_tier_cxl_medium(t->path);
    switch (t->medium) {
    case WF_CXL_MEDIUM_DAX: return open_dax(t, options->capacity_bytes);
    case WF_CXL_MEDIUM_NODE: return open_node(t, options->capacity_bytes, options->dram_node);
    case WF_CXL_MEDIUM_FILE: return open_file(t, options->capacity_bytes);
    }
    return wf_fail(WEFT_E_INVALID,
                   "tier %s: it is none of /dev/daxX.Y, node:N and file-emulation:PATH; name one",
                   t->path);
}

/* The size is that of the file or device: how much of it is used, the superblock says. */
enum weft_status wf_cxl_medium_watch(struct wf_cxl *t, const struct wf_tier_options *options)
{
    struct stat is;
    uint64_t bytes = 0, align;
    enum weft_status status = WEFT_OK;
    snprintf(t->path, sizeof t->path, "%s", options->path);
    t->medium = wf_tier_cxl_medium(t->path);
    const char *path = t->path;
    if (t->medium == WF_CXL_MEDIUM_FILE)
        path += strlen(FILE_PREFIX);
    else if (t->medium != WF_CXL_MEDIUM_DAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: only a device or a file can be shared; name one",
                       t->path);
    t->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (t->fd < 0 || fstat(t->fd, &is) != 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: %s; it must be there, and readable", t->path,
                       strerror(errno));
    if (t->medium == WF_CXL_MEDIUM_DAX)
        status = wf_cxl_dax_geometry(t->fd, &bytes, &align);
    else
        bytes = (uint64_t)is.st_size;
    if (status == WEFT_OK && bytes < WF_CXL_TABLE_AT)
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: nothing is formatted there yet", t->path);
    if (status != WEFT_OK)
        return status;
    void *memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, t->fd, 0);
    if (memory == MAP_FAILED)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: %llu bytes cannot be mapped: %s; see ulimit -v",
                       t->path, (unsigned long long)bytes, strerror(errno));
    t->memory = memory;
    t->bytes = bytes;
    return WEFT_OK;
}

void wf_cxl_medium_close(struct wf_cxl *t)
{
    if (t->memory)
        munmap(t->memory, t->bytes);
    if (t->fd >= 0)
        close(t->fd);
    t->memory = NULL;
    t->fd = -1;
}

enum weft_status wf_cxl_medium_flush(struct wf_cxl *t)
{
    /* Every line was written back when it was published; what is left is to wait for that. */
    wf_lines_fence();
    if (t->medium == WF_CXL_MEDIUM_FILE && msync(t->memory, t->bytes, MS_SYNC) != 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: msync: %s; look at the file system", t->path,
                       strerror(errno));
    return WEFT_OK;
}

enum wf_fault wf_cxl_guarded(struct wf_cxl *t, void (*work)(void *context), void *context)
{
    enum wf_fault fault = wf_guard_run(t->memory, t->bytes, work, context);
    if (fault == WF_FAULT_GONE)
        t->failed = true;
    return fault;
}
