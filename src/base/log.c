/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static _Atomic int current_level = WF_LOG_OFF;
static const char *const level_names[] = {"off", "error", "warn", "info", "debug"};

void wf_log_level_set(enum wf_log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum wf_log_level wf_log_level_get(void)
{
    return (enum wf_log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

int wf_log_level_parse(const char *name)
{
    for (int level = WF_LOG_OFF; level <= WF_LOG_DEBUG; level++)
        if (strcmp(name, level_names[level]) == 0)
            return level;
    return -1;
}

void wf_log(enum wf_log_level level, const char *module, const char *format, ...)
{
    if (level == WF_LOG_OFF || level > wf_log_level_get())
        return;
    int saved_errno = errno;
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    char when[32], line[1024];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &parts);
    int head = snprintf(line, sizeof line, "%s.%03ldZ %-5s %s: ", when, now.tv_nsec / 1000000,
                        level_names[level], module);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line + head, sizeof line - (size_t)head, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s\n", line); /* one call a line: lines of several threads do not mix */
    errno = saved_errno;
}
