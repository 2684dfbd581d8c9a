/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct guard {
    sigjmp_buf back;
    uintptr_t from, end;
    struct guard *outer;
};

/* ThreadSanitizer puts a handler of its own before ours, which blocks all signals. */
#ifdef __SANITIZE_THREAD__
#define SAVES_MASK 1
#else
#define SAVES_MASK 0
#endif

static _Thread_local struct guard *innermost;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before; /* whose SIGBUS it was */

static void pass_on(int number, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        /* The instruction runs again and dies of it, as it would have without us. */
        struct sigaction deadly = {.sa_handler = SIG_DFL};
        sigaction(number, &deadly, NULL);
    }
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    struct guard *g = innermost;
    while (g && (at < g->from || at >= g->end))
        g = g->outer;
    if (!g || info->si_code <= 0) { /* sent by a process, not by a load */
        pass_on(number, info, context);
        return;
    }
    innermost = g->outer;
    siglongjmp(g->back, info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO
                            ? WF_FAULT_POISON
                            : WF_FAULT_GONE);
}

/* SA_NODEFER: SIGBUS is not blocked while the handler runs, so that the jump need not restore the
 * signal mask, which would cost a system call a guard. */
enum weft_status wf_guard_install(void)
{
    enum weft_status status = WEFT_OK;
    struct sigaction ours = {.sa_sigaction = on_bus,
                             .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    pthread_mutex_lock(&install_lock);
    struct sigaction is;
    bool asked = sigaction(SIGBUS, NULL, &is) == 0;
    if (asked && (is.sa_flags & SA_SIGINFO) && is.sa_sigaction == on_bus)
        goto unlock;
    before = is;
    if (!asked || sigaction(SIGBUS, &ours, NULL) != 0)
        status = wf_fail(WEFT_E_SYSTEM, "sigaction(SIGBUS): %s; it must be allowed",
                         strerror(errno));
unlock:
    pthread_mutex_unlock(&install_lock);
    return status;
}

enum wf_fault wf_guard_run(const void *memory, size_t bytes, void (*work)(void *context),
                           void *context)
{
    struct guard g = {.from = (uintptr_t)memory, .end = (uintptr_t)memory + bytes};
    g.outer = innermost;
    int fault = sigsetjmp(g.back, SAVES_MASK);
    if (fault != WF_FAULT_NONE)
        return (enum wf_fault)fault;
    innermost = &g;
    /* The compiler must not move a load of the memory out of the guarded stretch. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    work(context);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    innermost = g.outer;
    return WF_FAULT_NONE;
}
