/* SPDX-License-Identifier: Apache-2.0
 *
 * A medium for a test to have a CXL tier on, a file that emulates a device or a device, and its
 * bytes changed behind the tier's back.
 */
#ifndef TEST_SUPPORT_CXL_MEDIUM_H
#define TEST_SUPPORT_CXL_MEDIUM_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/lines.h"
#include "tier/cxl_format.h"

#define CXL_FILE_PREFIX "file-emulation:"
#define CXL_MEDIUM_BYTES \
    ((size_t)32 << 20) /* as much of it as is looked at, and as there must be */

/* The path of a file that is there and empty, in memory where the system has a file system there.
 */
static inline bool cxl_medium_name(char *path, size_t path_bytes)
{
    const char *directory = getenv("TMPDIR");
    if (!directory)
        directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp";
    snprintf(path, path_bytes, CXL_FILE_PREFIX "%s/weft-cxl-XXXXXX", directory);
    int fd = mkstemp(path + strlen(CXL_FILE_PREFIX));
    return fd >= 0 && close(fd) == 0;
}

static inline uint8_t *cxl_medium_map(const char *path)
{
    size_t prefix = strlen(CXL_FILE_PREFIX);
    int fd = open(strncmp(path, CXL_FILE_PREFIX, prefix) != 0 ? path : path + prefix,
                  O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *memory = mmap(NULL, CXL_MEDIUM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Nothing that a tier would find. */
static inline bool cxl_medium_erase(const char *path)
{
    uint8_t *memory = cxl_medium_map(path);
    if (!memory)
        return false;
    memset(memory, 0, 2 * WF_CXL_GRANULE);
    wf_lines_write_back(memory, 2 * WF_CXL_GRANULE);
    wf_lines_fence();
    return munmap(memory, CXL_MEDIUM_BYTES) == 0;
}

/* Flip a bit of payload byte `at` of the block with that key; the file has CXL_MEDIUM_BYTES. */
static inline bool cxl_medium_flip(const char *path, const uint8_t key[32], uint64_t at)
{
    uint8_t *memory = cxl_medium_map(path);
    bool flipped = false;
    for (size_t page = WF_CXL_TABLE_AT; memory && !flipped && page < CXL_MEDIUM_BYTES;
         page += WF_CXL_GRANULE) {
        struct wf_cxl_header header;
        memcpy(&header, memory + page, sizeof header);
        if (header.magic != WF_CXL_HEADER_MAGIC || memcmp(header.key, key, 32) != 0)
            continue;
        memory[page + wf_cxl_header_granules(header.parts) * WF_CXL_GRANULE + at] ^= 1;
        flipped = true;
    }
    if (memory)
        munmap(memory, CXL_MEDIUM_BYTES);
    return flipped;
}

#endif
