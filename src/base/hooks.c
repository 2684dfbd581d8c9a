/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hooks.h"

#if WF_TEST_HOOKS
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One armed point of each kind: "name:N", "name" (N = 1) or "N" (any name). */
struct armed {
    char name[64];
    _Atomic long left; /* passages until it fires; 0: not armed */
};

bool wf_hooks_armed;
static struct armed crash, failure;

static void arm(struct armed *a, const char *text)
{
    if (!text || !*text)
        return;
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    bool number_only = !colon && strspn(text, "0123456789") == strlen(text);
    if (!number_only && length < sizeof a->name)
        memcpy(a->name, text, length);
    long n = number_only ? strtol(text, NULL, 10) : colon ? strtol(colon + 1, NULL, 10) : 1;
    atomic_store(&a->left, n > 0 ? n : 1);
    wf_hooks_armed = true;
}

__attribute__((constructor)) static void arm_from_environment(void)
{
    arm(&crash, getenv("WEFT_CRASH_AT"));
    arm(&failure, getenv("WEFT_FAIL_AT"));
}

static bool fires(struct armed *a, const char *name)
{
    if (atomic_load(&a->left) <= 0 || (a->name[0] && strcmp(a->name, name) != 0))
        return false;
    return atomic_fetch_sub(&a->left, 1) == 1;
}

void wf_hook_crash(const char *name)
{
    if (fires(&crash, name))
        raise(SIGKILL);
}

/* $WEFT_FAIL_LOG learns which failure was made, so that a test knows that there was one. */
static void note(const char *name)
{
    const char *path = getenv("WEFT_FAIL_LOG");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd < 0)
        return;
    ssize_t rc = write(fd, name, strlen(name));
    rc += write(fd, "\n", 1);
    (void)rc;
    close(fd);
}

bool wf_hook_fails(const char *name)
{
    bool now = fires(&failure, name);
    if (now)
        note(name);
    return now;
}
#endif
