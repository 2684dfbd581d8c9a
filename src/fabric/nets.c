/* SPDX-License-Identifier: Apache-2.0
 *
 * The nets of a fabric: one for each address that this node listens on, all on the fabric's thread.
 *
 * What they call names the net (struct wf_fabric_net), and each link remembers whose it is.  The
 * first address must work; so must the others, since who wrote them wants them.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/inner.h"

static enum weft_status net_open(struct wf_fabric *f, const char *listen,
                                 const struct wf_net_events *events)
{
    static const char hello[] = "weft";
    const struct wf_fabric_options *o = &f->options;
    struct wf_fabric_net *over = &f->nets[f->net_count];
    const char *kind = listen ? listen : "tcp:";
    over->fabric = f;
    over->ops = o->net ? o->net : wf_net_by_address(kind);
    if (!over->ops)
        return wf_fail(WEFT_E_INVALID,
                       "fabric.listen: '%s' is no address of a kind that this build has; write "
                       "tcp:ADDRESS:PORT or unix:PATH",
                       kind);
    struct wf_net_options options = {
        .listen = listen,
        .security = o->security,
        .hello = hello,
        .hello_bytes = sizeof hello,
        .links_max = WF_LINKS_MAX,
        .dead_ms = o->dead_ms,
        .events = *events,
        .world = o->net_world,
    };
    options.events.context = over;
    enum weft_status status = over->ops->create(&options, &over->net);
    f->net_count += status == WEFT_OK;
    return status;
}

enum weft_status wf_nets_open(struct wf_fabric *f, const struct wf_net_events *events)
{
    const char *at = f->options.listen;
    enum weft_status status = WEFT_OK;
    if (!at)
        return net_open(f, NULL, events);
    while (*at && status == WEFT_OK) {
        char one[WF_NET_ADDRESS_MAX];
        size_t length = strcspn(at, ",");
        if (f->net_count == WF_FABRIC_NETS_MAX)
            return wf_fail(WEFT_E_LIMIT, "fabric.listen: a node listens on %u addresses at most",
                           WF_FABRIC_NETS_MAX);
        snprintf(one, sizeof one, "%.*s", (int)(length < sizeof one ? length : sizeof one - 1), at);
        status = net_open(f, one, events);
        at += length + (at[length] == ',');
    }
    return status;
}

void wf_nets_close(struct wf_fabric *f)
{
    while (f->net_count) {
        struct wf_fabric_net *over = &f->nets[--f->net_count];
        over->ops->destroy(over->net);
    }
}

struct wf_fabric_net *wf_nets_for(struct wf_fabric *f, const char *address)
{
    const struct wf_net_ops *ops = wf_net_by_address(address);
    for (uint32_t i = 0; i < f->net_count; i++)
        if (f->nets[i].ops == ops)
            return &f->nets[i];
    return NULL;
}

void wf_nets_address(const struct wf_fabric *f, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < f->net_count; i++) {
        const char *address = f->nets[i].ops->address(f->nets[i].net);
        if (address[0] && used + strlen(address) + 2 <= bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? " " : "", address);
    }
}

enum weft_status wf_nets_poll(struct wf_fabric *f)
{
    enum weft_status worst = WEFT_OK;
    for (uint32_t i = 0; i < f->net_count; i++) {
        enum weft_status status = f->nets[i].ops->poll(f->nets[i].net, 0);
        worst = status == WEFT_OK ? worst : status;
    }
    return worst;
}

void wf_nets_stats(const struct wf_fabric *f, struct wf_net_stats *out)
{
    struct wf_net_stats one;
    *out = (struct wf_net_stats){.nonsense = f->nonsense};
    for (uint32_t i = 0; i < f->net_count; i++) {
        f->nets[i].ops->stats(f->nets[i].net, &one);
        out->links += one.links;
        out->sent += one.sent;
        out->sent_bytes += one.sent_bytes;
        out->received += one.received;
        out->received_bytes += one.received_bytes;
        out->refused += one.refused;
        out->nonsense += one.nonsense;
        out->zero_copy += one.zero_copy;
    }
}
