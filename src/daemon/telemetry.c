/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/telemetry.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum weft_status wf_telemetry_create(struct wf_node *node)
{
    (void)node;
    return WEFT_OK;
}
void wf_telemetry_destroy(struct wf_node *node)
{
    (void)node;
}
int wf_telemetry_fd(const struct wf_node *node)
{
    (void)node;
    return -1;
}
void wf_telemetry_run(struct wf_node *node)
{
    (void)node;
}
int wf_telemetry_wait_ms(const struct wf_node *node, int limit_ms)
{
    (void)node;
    return limit_ms;
}
void wf_telemetry_op(struct wf_node *node, const struct wf_domain *domain, unsigned op,
                     enum weft_status status, uint64_t ns)
{
    (void)node, (void)domain, (void)op, (void)status, (void)ns;
}
void wf_telemetry_gone(struct wf_domain *domain, const uint8_t key[32], uint64_t bytes,
                       uint64_t age, enum wf_evict_reason reason)
{
    (void)domain, (void)key, (void)bytes, (void)age, (void)reason;
}
void wf_telemetry_event(struct wf_node *node, const struct wf_domain *domain, const char *kind,
                        const char *format, ...)
{
    (void)node, (void)domain, (void)kind, (void)format;
}
char *wf_telemetry_events(struct wf_node *node, const struct wf_domain *only, uint64_t cursor)
{
    (void)node, (void)only, (void)cursor;
    return strdup("{\"events\":[],\"next\":0}");
}
