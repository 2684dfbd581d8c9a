/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes over the wires and what the registry tells, seen by somebody who is neither side.
 *
 * A node that takes a block to keep (PUT) has to be a member at that moment by its own standing,
 * and whoever sends it has to be one, as far as the registry told the taker, under the epoch that
 * the sender said over that link.
 */
#include "cluster.h"

static struct node *node_of(struct cluster *c, const char *name)
{
    uint32_t number = (uint32_t)strtoul(name + 1, NULL, 10);
    return name[0] == 'n' && number < c->config.nodes ? &c->nodes[number] : NULL;
}

/* What the sender said over this lane. */
static uint64_t *said_over(struct cluster *c, uint64_t lane)
{
    if (lane >= c->lane_max) {
        uint64_t max = 2 * lane + 1024;
        uint64_t *more = realloc(c->said_epochs, max * sizeof *more);
        if (!more)
            failed(c, "out of memory");
        memset(more + c->lane_max, 0, (max - c->lane_max) * sizeof *more);
        c->said_epochs = more;
        c->lane_max = max;
    }
    return &c->said_epochs[lane];
}

static void saw_put(struct cluster *c, const struct node *from, const struct node *to,
                    uint64_t said)
{
    struct wf_standing standing;
    c->counts.puts_taken++;
    wf_member_sim.standing(to->members, &standing);
    bool in = standing.state == WF_STANDING_MEMBER || standing.state == WF_STANDING_DOUBTFUL;
    uint64_t told = to->told_epochs[from->number];
    if (in && standing.until_ns > now(c) && told && told == said)
        return;
    c->counts.fenced++;
    failed(c,
           "%s, whose standing is %d, took a block from %s, which speaks under epoch %llu; the "
           "registry told of %llu",
           to->name, (int)standing.state, from->name, (unsigned long long)said,
           (unsigned long long)told);
}

/* How long ago each change was, that one node is told of by another just now. */
static void saw_events(struct cluster *c, const struct node *from,
                       const struct wf_fabric_events *events)
{
    for (uint32_t i = 0; c->measuring && i < events->count; i++) {
        uint32_t index = index_of(c, events->events[i].key);
        if (index < c->indices && from->changed_ns[index] >= c->measured_from_ns &&
            events->events[i].where != WF_FABRIC_IN_LENT)
            wf_hist_record(&c->lag_us, (now(c) - from->changed_ns[index]) / 1000);
    }
}

static void handed(void *context, const struct wf_net_sim_handed *m)
{
    static _Alignas(8) uint8_t header[WF_NET_HEADER_MAX]; /* it may lie askew where it is */
    struct cluster *c = context;
    struct node *from = node_of(c, m->from), *to = node_of(c, m->to);
    const struct wf_fabric_head *head = memcpy(header, m->header, m->header_bytes);
    c->messages++;
    if (!from || !to || m->header_bytes < sizeof *head)
        failed(c, "a message that is none, from %s to %s", m->from, m->to);
    switch (head->kind) {
    case WF_FABRIC_IDENT:
        *said_over(c, m->lane) = ((const struct wf_fabric_ident *)(const void *)header)->epoch;
        break;
    case WF_FABRIC_PUT:
        if (m->pieces)
            saw_put(c, from, to, *said_over(c, m->lane));
        break;
    case WF_FABRIC_EVENTS:
        c->event_bytes += m->header_bytes;
        saw_events(c, from, (const void *)header);
        break;
    default: break;
    }
}

/* ------------------------------------------------------------------------------------- registry */

/* Who the events were for: one of these a node, which lives as long as the cluster. */
static struct wf_member_events *inner;
static struct wf_member_ops watched;

static uint32_t number(const void *context)
{
    return ((const struct node *)context)->number;
}

static void joined(void *context, const struct wf_member *member)
{
    struct node *node = context, *other = node_of(node->cluster, member->name);
    node->told_epochs[other->number] = member->epoch;
    inner[number(context)].joined(inner[number(context)].context, member);
}

static void left(void *context, const struct wf_member *member)
{
    struct node *node = context, *other = node_of(node->cluster, member->name);
    node->told_epochs[other->number] = 0;
    inner[number(context)].left(inner[number(context)].context, member);
}

static void standing(void *context, const struct wf_standing *s)
{
    inner[number(context)].standing(inner[number(context)].context, s);
}

static void setting(void *context, const char *name, const char *value, uint64_t revision)
{
    inner[number(context)].setting(inner[number(context)].context, name, value, revision);
}

static struct cluster *watched_cluster;

static enum weft_status open_watched(const struct wf_member_options *options,
                                     struct wf_members **out)
{
    struct node *node = node_of(watched_cluster, options->name);
    struct wf_member_options mine = *options;
    memset(node->told_epochs, 0, watched_cluster->config.nodes * sizeof *node->told_epochs);
    inner[node->number] = options->events;
    mine.events = (struct wf_member_events){node, joined, left, standing,
                                            options->events.setting ? setting : NULL};
    enum weft_status status = wf_member_sim.open(&mine, out);
    if (status == WEFT_OK)
        node->members = *out;
    return status;
}

const struct wf_member_ops *watched_member(void)
{
    return &watched;
}

void watch_begin(struct cluster *c)
{
    struct wf_net_sim_tap tap = {c, handed};
    wf_net_sim_tap(c->net, &tap);
    watched_cluster = c;
    inner = calloc(c->config.nodes, sizeof *inner);
    if (!inner)
        failed(c, "out of memory");
    watched = wf_member_sim;
    watched.open = open_watched;
}

void watch_end(void)
{
    free(inner);
    inner = NULL;
}
