/* SPDX-License-Identifier: Apache-2.0
 *
 * A node's talk with the simulated registry: what a backend's own thread would do, as events.
 *
 * A third of the lease apart it says a word on its lease: asks for one, or renews it.  Its standing
 * ends a lease after the word that was answered was said, which is before the registry's lease is
 * over, however long the word and the answer were on their way.  A word without an answer by the
 * next one makes the standing doubtful.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "member/sim_inner.h"

static void stand(struct wf_members *node, enum wf_standing_state state, const char *why)
{
    struct wf_standing *s = &node->standing;
    s->state = state;
    (void)snprintf(s->why, sizeof s->why, "%s", why);
    wf_msim_note(node->world, 20 + (uint64_t)state, node->instance, s->epoch);
    wf_msim_ready(node);
}

void wf_msim_look(struct wf_members *node)
{
    if (wf_msim_in(node->standing.state) && wf_msim_now(node->world) >= node->standing.until_ns)
        stand(node, WF_STANDING_LOST, "the lease was over before the registry answered");
}

/* ------------------------------------------------------------------------------------- requests */

static void request_happens(struct wf_vtime_event *event);

void wf_msim_request_free(struct wf_msim_request *q)
{
    *q->back = q->next;
    if (q->next)
        q->next->back = q->back;
    wf_vtime_clear(q->registry->world->time, &q->event);
    wf_msim_drop(q->record);
    free(q);
}

static uint64_t way(struct wf_member_sim_world *world)
{
    return world->options.latency_ns +
           wf_random_below(&world->random, world->options.jitter_ns + 1);
}

void wf_msim_say(struct wf_members *node, enum wf_msim_kind kind, struct wf_msim_set *set,
                 const char *name, struct wf_msim_record *record, uint64_t revision)
{
    struct wf_member_sim_world *world = node->world;
    struct wf_msim_request *q = wf_calloc(1, sizeof *q, "a word to a simulated registry");
    if (!q)
        return; /* it has no answer, then */
    q->event.happens = request_happens;
    q->registry = node->registry;
    q->place = node->place;
    q->kind = kind;
    q->set = set;
    q->record = wf_msim_hold(record);
    q->generation = world->generation;
    q->instance = node->instance;
    q->sent_ns = wf_msim_now(world);
    q->lease_ns = node->lease_ns;
    q->epoch = node->standing.epoch;
    q->revision = revision;
    q->join = kind == WF_MSIM_JOIN ? ++node->join : node->join;
    memcpy(q->name, name, strlen(name) + 1);
    q->node = kind == WF_MSIM_LEAVE ? NULL : node;
    q->next = world->requests;
    q->back = &world->requests;
    if (q->next)
        q->next->back = &q->next;
    world->requests = q;
    wf_vtime_at(world->time, &q->event, q->sent_ns + way(world));
}

static void answered_lease(struct wf_members *node, const struct wf_msim_request *q)
{
    struct wf_standing *s = &node->standing;
    if (q->kind == WF_MSIM_JOIN ? q->join != node->join || wf_msim_in(s->state)
                                : q->epoch != s->epoch || !wf_msim_in(s->state))
        return; /* not any more what it is about */
    node->waiting = false;
    uint64_t until = q->sent_ns + node->lease_ns;
    if (q->status == WEFT_OK && until <= wf_msim_now(node->world)) {
        return; /* too late for what it says */
    } else if (q->status == WEFT_OK) {
        if (q->kind == WF_MSIM_JOIN)
            s->until_ns = until;
        s->epoch = q->epoch;
        s->until_ns = until > s->until_ns ? until : s->until_ns;
        stand(node, WF_STANDING_MEMBER, "");
        if (q->kind == WF_MSIM_JOIN)
            node->published = q->record == node->said;
        wf_vtime_at(node->world->time, &node->beat, q->sent_ns + node->lease_ns / 3);
    } else if (q->kind == WF_MSIM_JOIN) {
        stand(node, s->state == WF_STANDING_LOST ? WF_STANDING_LOST : WF_STANDING_REFUSED, q->why);
    } else {
        stand(node, WF_STANDING_LOST, q->why);
        wf_msim_beat(node);
    }
}

static void answered(struct wf_members *node, struct wf_msim_request *q)
{
    wf_msim_look(node);
    if (q->kind == WF_MSIM_JOIN || q->kind == WF_MSIM_RENEW) {
        answered_lease(node, q);
    } else if (q->kind == WF_MSIM_SET && q->set) {
        q->set->answered = true;
        q->set->status = q->status;
        wf_msim_ready(node);
    } else if (q->kind == WF_MSIM_PUBLISH && q->status == WEFT_OK) {
        node->published |= q->record == node->said;
    } else if (q->kind == WF_MSIM_PUBLISH && q->status == WEFT_MISS &&
               wf_msim_in(node->standing.state) && q->epoch == node->standing.epoch) {
        stand(node, WF_STANDING_LOST, q->why);
        wf_msim_beat(node);
    }
}

static void request_happens(struct wf_vtime_event *event)
{
    struct wf_msim_request *q = WF_MSIM_OF(struct wf_msim_request, event, event);
    struct wf_member_sim_world *world = q->registry->world;
    bool lost = world->away || q->place->cut || q->generation != world->generation;
    if (!lost && !q->answer) {
        wf_msim_carry_out(q);
        if (q->node) {
            q->answer = true;
            wf_vtime_at(world->time, event, wf_msim_now(world) + way(world));
            return;
        }
    } else if (!lost && q->node && q->place->paused) {
        /* It lies in the node's kernel until somebody reads it. */
        wf_vtime_at(world->time, event, wf_msim_now(world) + 10000000);
        return;
    } else if (!lost && q->node) {
        answered(q->node, q);
    }
    wf_msim_request_free(q);
}

/* ----------------------------------------------------------------------------------------- beat */

static void give_up_sets(struct wf_members *node)
{
    uint64_t now = wf_msim_now(node->world);
    for (struct wf_msim_set *set = node->sets; set; set = set->next) {
        if (set->answered || now - set->sent_ns < WF_MSIM_SET_NS)
            continue;
        for (struct wf_msim_request *q = node->world->requests; q; q = q->next)
            if (q->set == set)
                q->set = NULL;
        set->answered = true;
        set->status = WEFT_E_NODE;
        wf_msim_ready(node);
    }
}

static void beat_happens(struct wf_vtime_event *event)
{
    struct wf_members *node = WF_MSIM_OF(struct wf_members, beat, event);
    struct wf_standing *s = &node->standing;
    uint64_t now = wf_msim_now(node->world), third = node->lease_ns / 3;
    if (node->place->paused) {
        node->stalled = true;
        return;
    }
    wf_msim_look(node);
    give_up_sets(node);
    if (node->waiting && s->state == WF_STANDING_MEMBER)
        stand(node, WF_STANDING_DOUBTFUL, "the registry does not answer");
    else if (node->waiting && s->state == WF_STANDING_JOINING && !s->why[0])
        stand(node, WF_STANDING_JOINING, "the registry does not answer");
    node->waiting = true;
    bool is_in = wf_msim_in(s->state);
    wf_msim_say(node, is_in ? WF_MSIM_RENEW : WF_MSIM_JOIN, NULL, node->said->member.name,
                is_in ? NULL : node->said, 0);
    if (is_in && !node->published)
        wf_msim_say(node, WF_MSIM_PUBLISH, NULL, node->said->member.name, node->said, 0);
    uint64_t next = now + third - wf_random_below(&node->world->random, third / 8 + 1);
    if (is_in && next > s->until_ns)
        next = s->until_ns > now ? s->until_ns : now + 1;
    wf_vtime_at(node->world->time, event, next);
}

void wf_msim_beat(struct wf_members *node)
{
    wf_vtime_at(node->world->time, &node->beat, wf_msim_now(node->world));
}

void wf_msim_begin(struct wf_members *node)
{
    node->beat.happens = beat_happens;
    node->watch.happens = wf_msim_watch_happens;
    (void)snprintf(node->standing.why, sizeof node->standing.why, "the registry was asked");
    node->told = node->standing;
    wf_msim_beat(node);
}
