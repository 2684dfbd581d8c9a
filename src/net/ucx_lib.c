/* SPDX-License-Identifier: Apache-2.0
 *
 * libucp by name; ucx_lib.h says why.
 */
#include "net/ucx_lib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/log_def.h>

#include "base/hooks.h"
#include "base/log.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct wf_ucx_lib loaded;
static char missing[256];

static const int kept_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
#define KEPT (sizeof kept_signals / sizeof kept_signals[0])

/* What the library says on its own.  Links that break are its daily business, and told by `down`;
 * so its errors are for who looks closely. */
static ucs_log_func_rc_t say(const char *file, unsigned line, const char *function,
                             ucs_log_level_t level, const ucs_log_component_config_t *component,
                             const char *message, va_list arguments)
{
    char text[512];
    (void)file, (void)line, (void)function, (void)component;
    if (level <= UCS_LOG_LEVEL_WARN) {
        vsnprintf(text, sizeof text, message, arguments);
        if (level == UCS_LOG_LEVEL_FATAL)
            wf_error("ucx", "%s", text);
        else
            wf_debug("ucx", "%s", text);
    }
    return UCS_LOG_FUNC_RC_STOP;
}

static void *find(void *library, const char *name)
{
    void *found = library ? dlsym(library, name) : NULL;
    if (!found && !missing[0])
        snprintf(missing, sizeof missing, "libucp has no %s; version 1.12 or newer is needed",
                 name);
    return found;
}

static void load(void)
{
    struct sigaction kept[KEPT];
    void *found, *ucs = NULL;
    for (size_t i = 0; i < KEPT; i++)
        sigaction(kept_signals[i], NULL, &kept[i]);
    void *ucp = WF_FAILS("dlopen") ? NULL : dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
    if (ucp)
        ucs = dlopen("libucs.so.0", RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; i < KEPT; i++)
        sigaction(kept_signals[i], &kept[i], NULL);
    if (!ucp || !ucs) {
        const char *why = dlerror();
        snprintf(missing, sizeof missing, "libucp.so.0 can not be loaded (%s); install libucx0",
                 why ? why : "it is not there");
        return;
    }
#define LOADED(name)          \
    found = find(ucp, #name); \
    memcpy(&loaded.name, &found, sizeof found);
    WF_UCX_FUNCTIONS(LOADED)
#undef LOADED
    found = find(ucs, "ucs_status_string");
    memcpy(&loaded.ucs_status_string, &found, sizeof found);
    __typeof__(&ucs_log_push_handler) push_handler;
    found = find(ucs, "ucs_log_push_handler");
    memcpy(&push_handler, &found, sizeof found);
    if (push_handler)
        push_handler(say);
}

enum weft_status wf_ucx_lib_load(const struct wf_ucx_lib **out)
{
    pthread_once(&once, load);
    if (missing[0])
        return wf_fail(WEFT_E_SYSTEM, "%s", missing);
    *out = &loaded;
    return WEFT_OK;
}
