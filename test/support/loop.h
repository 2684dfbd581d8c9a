/* SPDX-License-Identifier: Apache-2.0
 *
 * A loop device for a test to have a tier on: a block device as far as anyone can tell, whose
 * blocks lie in a file.  Only root may make one.
 */
#ifndef TEST_SUPPORT_LOOP_H
#define TEST_SUPPORT_LOOP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOOP_TRIES 20 /* the free one that was named may be another's by then */

struct loop {
    char path[32];
    int fd; /* -1: none */
};

/* NULL, or why there is none. */
static inline const char *loop_attach(struct loop *loop, const char *file, uint64_t bytes)
{
    struct loop_config config = {.fd = (uint32_t)open(file, O_RDWR | O_CLOEXEC)};
    const char *missing = "no loop device can be made: /dev/loop-control is missing or root's";
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    loop->fd = -1;
    if ((int)config.fd >= 0 && ftruncate((int)config.fd, (off_t)bytes) == 0)
        for (int tries = 0; control >= 0 && loop->fd < 0 && tries < LOOP_TRIES; tries++) {
            int number = ioctl(control, LOOP_CTL_GET_FREE);
            if (number < 0)
                break;
            snprintf(loop->path, sizeof loop->path, "/dev/loop%d", number);
            loop->fd = open(loop->path, O_RDWR | O_CLOEXEC);
            if (loop->fd < 0 || ioctl(loop->fd, LOOP_CONFIGURE, &config) == 0)
                break;
            missing = "no loop device can be set up (LOOP_CONFIGURE)";
            close(loop->fd);
            loop->fd = -1;
            usleep(10000);
        }
    if (control >= 0)
        close(control);
    if ((int)config.fd >= 0)
        close((int)config.fd);
    return loop->fd >= 0 ? NULL : missing;
}

static inline void loop_detach(struct loop *loop)
{
    if (loop->fd < 0)
        return;
    (void)ioctl(loop->fd, LOOP_CLR_FD);
    close(loop->fd);
    loop->fd = -1;
}

#endif
