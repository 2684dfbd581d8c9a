/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults by a seed: one after the other, at random moments, of random length, some at once.
 *
 * A host has one fault at a time, so that each one's end is plain.
 */
#include <stdlib.h>

#include "net/sim_inner.h"

#define AT_ONCE_MAX 64u

struct fault {
    struct wf_vtime_event over;
    struct wf_net_sim_storm *storm;
    enum wf_net_sim_fault kind;
    uint32_t host, other; /* PARTITION: one of several, which have the same `over` */
    bool out;
    bool holds;
};

struct wf_net_sim_storm {
    struct wf_net_sim_world *world;
    struct wf_net_sim_storm_options options;
    uint64_t random, counts[WF_SIM_FAULTS];
    uint32_t weight, group, holding;
    struct wf_vtime_event next;
    struct fault faults[AT_ONCE_MAX];
    uint8_t *taken; /* [hosts] */
    uint32_t *groups;
};

static const char *const names[WF_SIM_FAULTS] = {
    "partition", "one-way", "mute",    "break", "delay", "thin",
    "slow",      "loss",    "corrupt", "pause", "kill",  "kill-dark",
};

const char *wf_net_sim_fault_name(enum wf_net_sim_fault fault)
{
    return fault < WF_SIM_FAULTS ? names[fault] : "?";
}

void wf_net_sim_storm_counts(const struct wf_net_sim_storm *storm, uint64_t out[WF_SIM_FAULTS])
{
    for (uint32_t i = 0; i < WF_SIM_FAULTS; i++)
        out[i] = storm->counts[i];
}

static uint64_t below(struct wf_net_sim_storm *s, uint64_t bound)
{
    return wf_random_below(&s->random, bound);
}

static const char *name(const struct wf_net_sim_storm *s, uint32_t host)
{
    return s->options.hosts[host];
}

/* Some hosts, this one among them, are by themselves; or again with all. */
static void part(struct wf_net_sim_storm *s, struct fault *f, bool on)
{
    uint32_t group = on ? ++s->group : 0, mark = f->other;
    if (on) {
        /* Anything from one host to half of them. */
        uint32_t others = (uint32_t)below(s, s->options.host_count / 2 + 1);
        f->other = mark = group;
        s->groups[f->host] = mark;
        while (others--) {
            uint32_t host = (uint32_t)below(s, s->options.host_count);
            if (!s->groups[host] && !s->taken[host])
                s->groups[host] = mark;
        }
    }
    for (uint32_t i = 0; i < s->options.host_count; i++) {
        if (s->groups[i] != mark)
            continue;
        s->groups[i] = on ? mark : 0;
        wf_net_sim_group(s->world, name(s, i), group);
    }
}

static void break_links(struct wf_net_sim_storm *s, const struct fault *f)
{
    uint32_t tries = 1 + (uint32_t)below(s, 8);
    while (tries--)
        (void)wf_net_sim_break(s->world, name(s, f->host),
                               name(s, (uint32_t)below(s, s->options.host_count)),
                               s->options.most_ns);
}

static void act(struct wf_net_sim_storm *s, struct fault *f, bool on)
{
    struct wf_net_sim_world *w = s->world;
    const char *host = name(s, f->host);
    uint64_t strength = on ? 1 + below(s, 1000) : 0;
    switch (f->kind) {
    case WF_SIM_PARTITION: part(s, f, on); break;
    case WF_SIM_ONE_WAY: wf_net_sim_block(w, host, name(s, f->other), on); break;
    case WF_SIM_MUTE: wf_net_sim_mute(w, host, on && f->out, on && !f->out); break;
    case WF_SIM_BREAK:
        if (on)
            break_links(s, f);
        break;
    case WF_SIM_DELAY: wf_net_sim_delay(w, host, strength * 100000); break;
    case WF_SIM_THIN:
        wf_net_sim_bandwidth(w, host, on ? w->options.bandwidth / 1000 + 1 : 0);
        break;
    case WF_SIM_SLOW: wf_net_sim_slow(w, host, strength * 100000); break;
    case WF_SIM_LOSS: wf_net_sim_loss(w, host, (uint32_t)strength * 100); break;
    case WF_SIM_CORRUPT: wf_net_sim_corrupt(w, host, (uint32_t)strength * 500); break;
    case WF_SIM_PAUSE: wf_net_sim_pause(w, host, on); break;
    default: break; /* KILL is the caller's */
    }
    if (f->kind >= WF_SIM_PAUSE && s->options.acts)
        s->options.acts(s->options.context, f->kind, f->host, on);
}

static void over(struct wf_vtime_event *event)
{
    struct fault *f = WF_SIM_OF(struct fault, over, event);
    struct wf_net_sim_storm *s = f->storm;
    f->holds = false;
    s->holding--;
    s->taken[f->host] = 0;
    act(s, f, false);
}

static enum wf_net_sim_fault choose(struct wf_net_sim_storm *s)
{
    uint32_t kind = 0, left = (uint32_t)below(s, s->weight);
    while (left >= s->options.weights[kind])
        left -= s->options.weights[kind++];
    return (enum wf_net_sim_fault)kind;
}

static void again(struct wf_net_sim_storm *s)
{
    uint64_t gap = 1 + below(s, 2 * s->options.gap_ns);
    wf_vtime_at(s->world->time, &s->next, wf_sim_now(s->world) + gap);
}

static void begin(struct wf_vtime_event *event)
{
    struct wf_net_sim_storm *s = WF_SIM_OF(struct wf_net_sim_storm, next, event);
    uint32_t host = (uint32_t)below(s, s->options.host_count), at = 0;
    enum wf_net_sim_fault kind = choose(s);
    again(s);
    if (s->taken[host] || s->groups[host] || s->holding >= s->options.at_once_max)
        return;
    while (s->faults[at].holds)
        at++;
    struct fault *f = &s->faults[at];
    f->kind = kind;
    f->host = host;
    f->other = (uint32_t)below(s, s->options.host_count);
    f->out = below(s, 2);
    f->holds = true;
    s->taken[host] = 1;
    s->holding++;
    s->counts[kind]++;
    uint64_t lasts = s->options.least_ns + below(s, s->options.most_ns - s->options.least_ns + 1);
    wf_vtime_at(s->world->time, &f->over, wf_sim_now(s->world) + lasts);
    act(s, f, true);
}

enum weft_status wf_net_sim_storm_begin(struct wf_net_sim_world *world,
                                        const struct wf_net_sim_storm_options *options,
                                        struct wf_net_sim_storm **out)
{
    uint32_t weight = 0;
    for (uint32_t i = 0; i < WF_SIM_FAULTS; i++)
        weight += options->weights[i];
    if (!weight || !options->host_count || !options->gap_ns ||
        options->most_ns < options->least_ns || options->at_once_max > AT_ONCE_MAX)
        return wf_fail(
            WEFT_E_INVALID,
            "a storm needs hosts, weights, gap_ns, least_ns up to most_ns, and %u faults "
            "at once or fewer",
            AT_ONCE_MAX);
    struct wf_net_sim_storm *s = wf_calloc(1, sizeof *s, "a storm");
    if (!s)
        return WEFT_E_NO_MEMORY;
    s->world = world;
    s->options = *options;
    s->options.at_once_max = options->at_once_max ? options->at_once_max : 8;
    s->random = options->seed;
    s->weight = weight;
    s->next.happens = begin;
    s->taken = wf_calloc(options->host_count, 1, "a storm");
    s->groups = wf_calloc(options->host_count, sizeof *s->groups, "a storm");
    if (!s->taken || !s->groups) {
        free(s->taken);
        free(s->groups);
        free(s);
        return WEFT_E_NO_MEMORY;
    }
    for (uint32_t i = 0; i < AT_ONCE_MAX; i++) {
        s->faults[i].storm = s;
        s->faults[i].over.happens = over;
    }
    again(s);
    *out = s;
    return WEFT_OK;
}

void wf_net_sim_storm_end(struct wf_net_sim_storm *s)
{
    if (!s)
        return;
    wf_vtime_clear(s->world->time, &s->next);
    for (uint32_t i = 0; i < AT_ONCE_MAX; i++) {
        if (!s->faults[i].holds)
            continue;
        wf_vtime_clear(s->world->time, &s->faults[i].over);
        over(&s->faults[i].over);
    }
    free(s->taken);
    free(s->groups);
    free(s);
}
