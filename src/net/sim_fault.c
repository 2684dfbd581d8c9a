/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes wrong in a simulated network, by call.
 */
#include <stdlib.h>
#include <string.h>

#include "net/sim_inner.h"

/* NULL: there is no room for one more, and then nothing goes wrong there. */
static struct wf_sim_host *find(struct wf_net_sim_world *world, const char *name)
{
    struct wf_sim_host *host = NULL;
    return wf_sim_host_get(world, name, &host) == WEFT_OK ? host : NULL;
}

/* Who hears whom has changed around a host. */
static void look_around(struct wf_sim_host *host)
{
    for (struct wf_net_link *end = host->ends; end; end = end->host_next) {
        wf_sim_lane_look(wf_sim_wire_of(end), 0);
        wf_sim_lane_look(wf_sim_wire_of(end), 1);
    }
}

void wf_net_sim_group(struct wf_net_sim_world *world, const char *host, uint32_t group)
{
    struct wf_sim_host *h = find(world, host);
    if (!h || h->group == group)
        return;
    wf_sim_note(world, 110, h->number, group);
    h->group = group;
    look_around(h);
}

void wf_net_sim_block(struct wf_net_sim_world *world, const char *from, const char *to, bool on)
{
    struct wf_sim_host *f = find(world, from), *t = find(world, to);
    if (!f || !t)
        return;
    uint32_t at = 0;
    while (at < world->blocked_count &&
           (world->blocked[at].from != f->number || world->blocked[at].to != t->number))
        at++;
    if (!on && at < world->blocked_count) {
        world->blocked[at] = world->blocked[--world->blocked_count];
    } else if (on && at == world->blocked_count) {
        if (at == world->blocked_max) {
            uint32_t max = at ? 2 * at : 16;
            struct wf_sim_pair *more = wf_realloc(world->blocked, max * sizeof *more,
                                                  "blocked pairs");
            if (!more)
                return;
            world->blocked = more;
            world->blocked_max = max;
        }
        world->blocked[world->blocked_count++] = (struct wf_sim_pair){f->number, t->number};
    }
    wf_sim_note(world, 111, f->number, t->number);
    look_around(f);
}

void wf_net_sim_mute(struct wf_net_sim_world *world, const char *host, bool out, bool in)
{
    struct wf_sim_host *h = find(world, host);
    if (!h)
        return;
    h->mute_out = out;
    h->mute_in = in;
    wf_sim_note(world, 112, h->number, (uint64_t)out * 2 + in);
    look_around(h);
}

void wf_net_sim_delay(struct wf_net_sim_world *world, const char *host, uint64_t ns)
{
    struct wf_sim_host *h = find(world, host);
    if (h)
        h->delay_ns = ns;
}

void wf_net_sim_bandwidth(struct wf_net_sim_world *world, const char *host, uint64_t bandwidth)
{
    struct wf_sim_host *h = find(world, host);
    if (h)
        h->bandwidth = bandwidth ? bandwidth : world->options.bandwidth;
}

void wf_net_sim_slow(struct wf_net_sim_world *world, const char *host, uint64_t ns)
{
    struct wf_sim_host *h = find(world, host);
    if (h)
        h->slow_ns = ns;
}

void wf_net_sim_loss(struct wf_net_sim_world *world, const char *host, uint32_t ppm)
{
    struct wf_sim_host *h = find(world, host);
    if (h)
        h->loss_ppm = ppm;
}

void wf_net_sim_corrupt(struct wf_net_sim_world *world, const char *host, uint32_t ppm)
{
    struct wf_sim_host *h = find(world, host);
    if (h)
        h->corrupt_ppm = ppm;
}

void wf_net_sim_pause(struct wf_net_sim_world *world, const char *host, bool on)
{
    struct wf_sim_host *h = find(world, host);
    if (!h || h->paused == on)
        return;
    h->paused = on;
    wf_sim_note(world, 113, h->number, on);
    if (h->net && on)
        wf_sim_unlist_net(h->net);
    else if (h->net && wf_sim_has_work(h->net))
        wf_sim_wake(h->net);
}

void wf_net_sim_kill(struct wf_net_sim_world *world, const char *host, bool dark)
{
    struct wf_sim_host *h = find(world, host);
    if (!h)
        return;
    wf_sim_note(world, 114, h->number, dark);
    h->dark = dark;
    if (!h->net || h->net->dead)
        return;
    for (struct wf_net_link *end = h->ends; end; end = end->host_next) {
        struct wf_sim_wire *wire = wf_sim_wire_of(end);
        if (end->net != h->net)
            continue;
        wf_sim_queue_drop(end);
        for (struct wf_sim_parcel *p = end->own; p; p = p->own_next) {
            if (p->kind == WF_SIM_ACCESS && !p->severed)
                wf_sim_tear(p);
            p->severed = true;
        }
        if (!dark)
            wf_sim_reset(wire, end->side, WEFT_E_NODE, "the process at the other side died", 0);
    }
    h->net->dead = true;
    wf_sim_unlist_net(h->net);
}

uint32_t wf_net_sim_break(struct wf_net_sim_world *world, const char *a, const char *b,
                          uint64_t late_ns)
{
    struct wf_sim_host *h = find(world, a), *other = find(world, b);
    uint32_t count = 0;
    if (!h || !other)
        return 0;
    for (struct wf_net_link *end = h->ends; end; end = end->host_next) {
        struct wf_sim_wire *wire = wf_sim_wire_of(end);
        if (wire->host[!end->side] != other || end->state != WF_SIM_UP || end->net->dead)
            continue;
        struct wf_net_link *first = wf_random_below(&world->random, 2) ? end
                                                                       : &wire->end[!end->side];
        if (first->state != WF_SIM_UP || first->net->dead)
            first = end;
        world->stats.broken++;
        count++;
        wf_sim_reset(wire, first->side, WEFT_E_NODE, "it was reset",
                     wf_random_below(&world->random, late_ns + 1));
        wf_sim_end(first, WEFT_E_NODE, "it was reset");
    }
    return count;
}
