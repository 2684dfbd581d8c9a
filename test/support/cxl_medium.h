/* SPDX-License-Identifier: Apache-2.0
 *
 * A file for a test to have a CXL tier on, an emulation of a device, and its bytes changed behind
 * the tier's back.
 */
#ifndef TEST_SUPPORT_CXL_MEDIUM_H
#define TEST_SUPPORT_CXL_MEDIUM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tier/cxl_format.h"

#define CXL_FILE_PREFIX "file-emulation:"

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

/* Where a block with that key has its header; 0: nowhere. */
static inline off_t cxl_medium_find(int fd, const uint8_t key[32], struct wf_cxl_header *out)
{
    struct stat there;
    if (fstat(fd, &there) != 0)
        return 0;
    for (off_t at = WF_CXL_TABLE_AT; at + (off_t)sizeof *out <= there.st_size; at += WF_CXL_GRANULE)
        if (pread(fd, out, sizeof *out, at) == sizeof *out && out->magic == WF_CXL_HEADER_MAGIC &&
            memcmp(out->key, key, 32) == 0)
            return at;
    return 0;
}

static inline bool cxl_medium_flip_at(int fd, off_t at)
{
    uint8_t byte;
    if (pread(fd, &byte, 1, at) != 1)
        return false;
    byte ^= 1;
    return pwrite(fd, &byte, 1, at) == 1;
}

/* Flip a bit of payload byte `at` of a block. */
static inline bool cxl_medium_flip(int fd, const uint8_t key[32], uint64_t at)
{
    struct wf_cxl_header header;
    off_t where = cxl_medium_find(fd, key, &header);
    uint64_t payload = wf_cxl_header_granules(header.parts) * WF_CXL_GRANULE;
    return where && cxl_medium_flip_at(fd, where + (off_t)(payload + at));
}

#endif
