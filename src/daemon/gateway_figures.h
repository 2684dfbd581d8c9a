/* SPDX-License-Identifier: Apache-2.0
 *
 * What is counted of KV events, by the publisher, by the table of what blocks stand for, and of
 * engines that are heard.
 */
#ifndef WF_DAEMON_GATEWAY_FIGURES_H
#define WF_DAEMON_GATEWAY_FIGURES_H

#include "gateway/kvengines.h"
#include "gateway/kvevents.h"

struct wf_described_figures {
    uint64_t blocks, bytes, held, filled, refused;
};

struct wf_gateway_events {
    struct wf_kvevents_figures out;
    struct wf_described_figures described;
};

struct wf_engines_figures {
    uint32_t count;
    const char *names[WF_KVENGINES_MAX]; /* the configuration's */
    struct wf_kvengine_figures engines[WF_KVENGINES_MAX];
};

#endif
