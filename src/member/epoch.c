/* SPDX-License-Identifier: Apache-2.0 */
#include "member/epoch.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "member/member.h"
#include "sys/paths.h"
#include "sys/whole.h"

#define FILE_BYTES 42
#define EPOCH_MAX ((uint64_t)1 << 62) /* nobody's clock gets there */
#define FILE_NAME_MAX (WF_MEMBER_NAME_MAX + sizeof ".epoch.lock")

static uint64_t by_the_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec < 1 || (uint64_t)now.tv_sec > EPOCH_MAX / 1000000000u)
        return 1;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void write_text(char text[FILE_BYTES + 1], uint64_t epoch)
{
    snprintf(text, FILE_BYTES + 1, "%020" PRIu64 " %020" PRIu64 "\n", epoch, ~epoch);
}

/* What the file says; 0: nothing that counts. */
static uint64_t read_kept(int directory, const char *file, const char *state_dir)
{
    char text[FILE_BYTES + 1] = "", right[FILE_BYTES + 1];
    uint64_t epoch = 0;
    int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return 0;
    ssize_t got = fd < 0 ? -1 : read(fd, text, FILE_BYTES);
    if (fd >= 0)
        close(fd);
    if (got == FILE_BYTES && sscanf(text, "%20" SCNu64, &epoch) == 1 && epoch < EPOCH_MAX) {
        write_text(right, epoch);
        if (memcmp(text, right, FILE_BYTES) == 0)
            return epoch;
    }
    wf_warn("member", "'%s/%s' holds no epoch that can be read; the clock makes a new one",
            state_dir, file);
    return 0;
}

static enum weft_status keep(int directory, const char *file, const char *state_dir, uint64_t epoch)
{
    char text[FILE_BYTES + 1];
    write_text(text, epoch);
    bool good = wf_whole_put(directory, file, 0600, text, FILE_BYTES, WF_WHOLE_SYNC);
    return good ? WEFT_OK
                : wf_fail(WEFT_E_SYSTEM,
                          "cannot keep the node's epoch in '%s/%s': %s; make room there or set "
                          "state_dir elsewhere",
                          state_dir, file, strerror(errno));
}

static enum weft_status lock(int directory, const char *name, const char *state_dir, int *out)
{
    char file[FILE_NAME_MAX];
    snprintf(file, sizeof file, "%s.epoch.lock", name);
    int fd = openat(directory, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *out = fd;
        return WEFT_OK;
    }
    enum weft_status status =
        fd >= 0 && errno == EWOULDBLOCK
            ? wf_fail(WEFT_E_BUSY,
                      "a node named '%s' runs already with the state directory '%s'; give this one "
                      "another name",
                      name, state_dir)
            : wf_fail(WEFT_E_SYSTEM, "cannot lock '%s/%s': %s; set state_dir elsewhere", state_dir,
                      file, strerror(errno));
    if (fd >= 0)
        close(fd);
    return status;
}

enum weft_status wf_epoch_next(const char *state_dir, const char *name, uint64_t *out_epoch,
                               int *out_lock)
{
    uint64_t epoch = by_the_clock();
    int locked = -1;
    if (state_dir) {
        char file[FILE_NAME_MAX];
        snprintf(file, sizeof file, "%s.epoch", name);
        enum weft_status status = wf_state_directory(state_dir);
        if (status != WEFT_OK)
            return status;
        int directory = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
            return wf_fail(WEFT_E_SYSTEM, "cannot open the state directory '%s': %s", state_dir,
                           strerror(errno));
        status = lock(directory, name, state_dir, &locked);
        if (status == WEFT_OK) {
            uint64_t kept = read_kept(directory, file, state_dir);
            epoch = epoch > kept ? epoch : kept + 1;
            status = keep(directory, file, state_dir, epoch);
        }
        close(directory);
        if (status != WEFT_OK) {
            if (locked >= 0)
                close(locked);
            return status;
        }
    }
    *out_epoch = epoch;
    *out_lock = locked;
    return WEFT_OK;
}
