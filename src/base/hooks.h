/* SPDX-License-Identifier: Apache-2.0
 *
 * Named places where tests let a process die or an operation fail.
 *
 *   WF_CRASH("store.commit.before_publish")   SIGKILL here when WEFT_CRASH_AT names it
 *                                             ("name" or "name:N" for the Nth passage)
 *   if (WF_FAILS("mmap")) { errno = …; }      true when it is this passage's turn to fail:
 *                                             WEFT_FAIL_AT=N fails the Nth passage of any of them,
 *                                             WEFT_FAIL_AT=name:N the Nth of that name; its name
 *                                             is written to the file WEFT_FAIL_LOG
 *
 * Built without -Dtest_hooks=true both are nothing at all.
 */
#ifndef WF_BASE_HOOKS_H
#define WF_BASE_HOOKS_H

#include <stdbool.h>

#if WF_TEST_HOOKS
extern bool wf_hooks_armed; /* set once, before main, from the environment */
void wf_hook_crash(const char *name);
bool wf_hook_fails(const char *name);
#define WF_CRASH(name)                           \
    do {                                         \
        if (__builtin_expect(wf_hooks_armed, 0)) \
            wf_hook_crash(name);                 \
    } while (0)
#define WF_FAILS(name) (__builtin_expect(wf_hooks_armed, 0) && wf_hook_fails(name))
#else
#define WF_CRASH(name) ((void)0)
#define WF_FAILS(name) (false)
#endif

#endif
