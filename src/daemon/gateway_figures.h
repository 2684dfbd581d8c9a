/* SPDX-License-Identifier: Apache-2.0
 *
 * What is counted of KV events, by the publisher and by the table of what blocks stand for.
 */
#ifndef WF_DAEMON_GATEWAY_FIGURES_H
#define WF_DAEMON_GATEWAY_FIGURES_H

#include "gateway/kvevents.h"

struct wf_described_figures {
    uint64_t blocks, bytes, held, refused;
};

struct wf_gateway_events {
    struct wf_kvevents_figures out;
    struct wf_described_figures described;
};

#endif
