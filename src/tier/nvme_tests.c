/* SPDX-License-Identifier: Apache-2.0
 *
 * What tests can do to the I/O of the NVMe tier of a weftd that they started, by its environment:
 *
 *   WEFT_NVME_JOURNAL=FILE   FILE tells what of the medium no sync made durable yet: every write
 *                            with what was there before, its end, and every sync.  Who kills the
 *                            node can then undo what a device would have been free to forget.
 *   WEFT_NVME_HOLD=FILE      while FILE is there, every read, write and sync is held back for the
 *                            number of milliseconds in it: a device that stalls
 *   WEFT_NVME_REFUSE=FILE    while FILE is there, they end with the error number in it: one that
 *                            is gone; ENOSPC: the writes alone, as on a file system that is full
 *
 * A path behind the number has it count for the tier on that file alone, and two offsets behind
 * that, for what touches bytes from the one to before the other; the journal is of one tier of a
 * process.  Built without -Dtest_hooks=true there is nothing of it.
 */
#include "tier/nvme_tests.h"

#if WF_TEST_HOOKS
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tier/nvme_hooks.h"

static struct {
    const char *hold, *refuse;
    int journal;
} tests = {.journal = -1};

static void journal(enum wf_nvme_journal_what what, const struct wf_nvme_call *call,
                    const void *old)
{
    struct wf_nvme_journal entry = {what, call->offset, call->bytes};
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)(uintptr_t)old, call->bytes}};
    if (tests.journal >= 0 && writev(tests.journal, parts, old ? 2 : 1) < (ssize_t)sizeof entry)
        tests.journal = -1;
}

/* The number in a file, if it is meant for this call on this tier; 0: there is none. */
static int number_in(const char *path, const struct wf_nvme_call *call)
{
    char text[256] = "", link[64], name[256] = "", *end;
    int medium = call->fd;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    ssize_t bytes = read(fd, text, sizeof text - 1);
    close(fd);
    if (bytes <= 0)
        return 0;
    int number = (int)strtol(text, &end, 10);
    if (*end != ' ')
        return number;
    snprintf(link, sizeof link, "/proc/self/fd/%d", medium);
    bytes = readlink(link, name, sizeof name - 1);
    char *range = strchr(end + 1, ' ');
    if (range) {
        *range++ = '\0';
        uint64_t from = strtoull(range, &range, 10), to = strtoull(range, &range, 10);
        if (call->offset + call->bytes <= from || call->offset >= to)
            return 0;
    }
    return bytes > 0 && strcmp(name, end + 1) == 0 ? number : 0;
}

static int tests_before(void *context, const struct wf_nvme_call *call)
{
    (void)context;
    int error = number_in(tests.refuse, call);
    if (error && (error != ENOSPC || call->what == WF_NVME_CALL_WRITE))
        return -error;
    if (call->what == WF_NVME_CALL_SYNC)
        journal(WF_NVME_SYNC_BEGUN, call, NULL);
    if (call->what == WF_NVME_CALL_WRITE && tests.journal >= 0) {
        void *old = calloc(1, call->bytes);
        if (!old || pread(call->fd, old, call->bytes, (off_t)call->offset) < 0) {
            free(old);
            return -EIO;
        }
        journal(WF_NVME_WRITE_BEGUN, call, old);
        free(old);
    }
    return number_in(tests.hold, call) * 1000;
}

static int tests_after(void *context, const struct wf_nvme_call *call, int result)
{
    (void)context;
    if (call->what == WF_NVME_CALL_WRITE)
        journal(WF_NVME_WRITE_ENDED, call, NULL);
    else if (call->what == WF_NVME_CALL_SYNC)
        journal(result == 0 ? WF_NVME_SYNC_ENDED : WF_NVME_SYNC_FAILED, call, NULL);
    return result;
}

static void begin_once(void)
{
    static const struct wf_nvme_hooks hooks = {NULL, tests_before, tests_after};
    const char *path = getenv("WEFT_NVME_JOURNAL");
    tests.hold = getenv("WEFT_NVME_HOLD");
    tests.refuse = getenv("WEFT_NVME_REFUSE");
    if (!path && !tests.hold && !tests.refuse)
        return;
    if (path)
        tests.journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    wf_nvme_hooks = &hooks;
}

/* Tiers are opened by threads of their own. */
void wf_nvme_tests_begin(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, begin_once);
}
#else
void wf_nvme_tests_begin(void)
{
}
#endif
