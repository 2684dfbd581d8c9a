/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes wrong: in the network by its storm, which stops and starts nodes here, and in the
 * registry by turns of its own.
 */
#include "cluster.h"

static void acts(void *context, enum wf_net_sim_fault fault, uint32_t host, bool begins)
{
    struct cluster *c = context;
    struct node *node = &c->nodes[host];
    if (fault == WF_SIM_PAUSE) {
        node->paused = begins;
        node->resumed_ns = now(c);
        wf_member_sim_pause(c->registry, node->name, begins);
        if (!begins)
            node_wake(node);
    } else if (begins) {
        node_stop(node, fault == WF_SIM_KILL_DARK, chance(c, 4) == 0);
    } else {
        node_start(node);
    }
}

static void registry_fault(struct wf_vtime_event *event)
{
    struct cluster *c = (struct cluster *)((char *)event -
                                           offsetof(struct cluster, registry_fault));
    struct node *node = &c->nodes[chance(c, c->config.nodes)];
    wf_vtime_at(c->time, event, now(c) + 1 + chance(c, 6 * c->config.gap_ns));
    switch (chance(c, 12)) {
    case 8: /* what is here goes to others that lend, and comes half-way */
    case 9:
        if (node->fabric)
            wf_fabric_drain(node->fabric, chance(c, 2));
        break;
    case 10:
        if (node->fabric && node->number % 5 == 0)
            (void)wf_fabric_lend(node->fabric, NULL, (64 + 64ull * chance(c, 4)) << 10);
        break;
    case 0:
        c->registry_away = !c->registry_away && chance(c, 2);
        wf_member_sim_away(c->registry, c->registry_away);
        break;
    case 1: wf_member_sim_restart(c->registry); break;
    case 2: wf_member_sim_forget(c->registry); break;
    case 3: wf_member_sim_delay(c->registry, chance(c, 500) * MS); break;
    case 4:
    case 5: wf_member_sim_cut(c->registry, node->name, true); break;
    default:
        c->registry_away = false;
        wf_member_sim_away(c->registry, false);
        for (uint32_t i = 0; i < c->config.nodes; i++)
            if (chance(c, 4))
                wf_member_sim_cut(c->registry, c->nodes[i].name, false);
    }
}

void faults_begin(struct cluster *c)
{
    struct wf_net_sim_storm_options options = {.seed = c->config.seed,
                                               .gap_ns = c->config.gap_ns,
                                               .least_ns = 20 * MS,
                                               .most_ns = 4 * SECOND,
                                               .hosts = c->names,
                                               .host_count = c->config.nodes,
                                               .at_once_max = 12,
                                               .acts = acts,
                                               .context = c};
    for (uint32_t i = 0; i < WF_SIM_FAULTS; i++)
        options.weights[i] = i == WF_SIM_CORRUPT && !c->config.corrupt ? 0 : 1;
    if (wf_net_sim_storm_begin(c->net, &options, &c->storm) != WEFT_OK)
        failed(c, "%s", wf_last_error());
    c->registry_fault.happens = registry_fault;
    wf_vtime_at(c->time, &c->registry_fault, now(c) + c->config.gap_ns);
}

void faults_end(struct cluster *c)
{
    uint64_t counts[WF_SIM_FAULTS];
    wf_net_sim_storm_counts(c->storm, counts);
    wf_net_sim_storm_end(c->storm);
    c->storm = NULL;
    wf_vtime_clear(c->time, &c->registry_fault);
    wf_member_sim_away(c->registry, false);
    wf_member_sim_delay(c->registry, 0);
    for (uint32_t i = 0; i < c->config.nodes; i++)
        if (c->nodes[i].fabric)
            wf_fabric_drain(c->nodes[i].fabric, false);
    for (uint32_t i = 0; i < c->config.nodes; i++)
        wf_member_sim_cut(c->registry, c->nodes[i].name, false);
    for (uint32_t i = 0; i < WF_SIM_FAULTS && !c->config.quiet; i++)
        printf("%s%s %llu",
               i ? ", " : "# faults: ", wf_net_sim_fault_name((enum wf_net_sim_fault)i),
               (unsigned long long)counts[i]);
    if (!c->config.quiet)
        printf("\n");
}
