/* SPDX-License-Identifier: Apache-2.0
 *
 * A file for a test to have a tier on, and its bytes changed behind the tier's back.
 */
#ifndef TEST_SUPPORT_MEDIUM_H
#define TEST_SUPPORT_MEDIUM_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tier/nvme_format.h"

/* A kernel may have io_uring switched off (kernel.io_uring_disabled, seccomp). */
static inline bool medium_has_ring(void)
{
    struct io_uring ring;
    if (io_uring_queue_init(2, &ring, 0) != 0)
        return false;
    io_uring_queue_exit(&ring);
    return true;
}

/* The name of a file that is there and empty. */
static inline bool medium_name(char *path, size_t path_bytes)
{
    const char *directory = getenv("TMPDIR");
    snprintf(path, path_bytes, "%s/weft-nvme-XXXXXX", directory ? directory : "/var/tmp");
    int fd = mkstemp(path);
    return fd >= 0 && close(fd) == 0;
}

/* Flip a bit of payload byte `at` in every record of `key` that the file has; returns how many. */
static inline unsigned medium_flip(int fd, const uint8_t key[32], uint64_t at)
{
    struct stat there;
    struct wf_nvme_record record;
    unsigned flipped = 0;
    if (fstat(fd, &there) != 0)
        return 0;
    for (off_t page = 0; page + (off_t)sizeof record <= there.st_size; page += WF_NVME_PAGE) {
        uint8_t byte;
        if (pread(fd, &record, sizeof record, page) != sizeof record ||
            record.head.magic != WF_NVME_RECORD_MAGIC || memcmp(record.key, key, 32) != 0)
            continue;
        off_t byte_at = page + (off_t)(wf_nvme_padded(record.head.bytes) + at);
        if (pread(fd, &byte, 1, byte_at) != 1)
            continue;
        byte ^= 1;
        flipped += pwrite(fd, &byte, 1, byte_at) == 1;
    }
    return flipped;
}

#endif
