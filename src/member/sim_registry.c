/* SPDX-License-Identifier: Apache-2.0
 *
 * The registry itself: who has a lease, what is set, and what changed.
 *
 * Its log holds the last WF_MSIM_LOG changes.  A node is told them one by one, up to where the log
 * was when word of it left; who is too far behind compares what it knows with what there is.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "member/sim_inner.h"

void wf_msim_drop(struct wf_msim_record *record)
{
    if (record && --record->refs == 0)
        free(record);
}

/* ---------------------------------------------------------------------------------------- slots */

static uint32_t *name_place(const struct wf_msim_registry *r, const char *name)
{
    uint32_t at = (uint32_t)wf_sum64(name, strlen(name)) % WF_MSIM_NAMES;
    while (r->by_name[at] && strcmp(r->slots[r->by_name[at] - 1]->name, name) != 0)
        at = (at + 1) % WF_MSIM_NAMES;
    return &r->by_name[at];
}

static void lease_over(struct wf_vtime_event *event);

struct wf_msim_slot *wf_msim_slot(struct wf_msim_registry *r, const char *name, bool make)
{
    uint32_t *place = name_place(r, name);
    if (*place)
        return r->slots[*place - 1];
    if (!make || r->slot_count == WF_MEMBERS_MAX)
        return NULL;
    struct wf_msim_slot *slot = wf_calloc(1, sizeof *slot, "a member in simulation");
    if (!slot)
        return NULL;
    slot->registry = r;
    slot->number = r->slot_count;
    slot->over.happens = lease_over;
    memcpy(slot->name, name, strlen(name) + 1);
    r->slots[r->slot_count++] = slot;
    *place = r->slot_count;
    return slot;
}

enum weft_status wf_msim_registry_get(struct wf_member_sim_world *world, const char *name,
                                      struct wf_msim_registry **out)
{
    for (struct wf_msim_registry *r = world->registries; r; r = r->next) {
        if (!strcmp(r->name, name)) {
            *out = r;
            return WEFT_OK;
        }
    }
    struct wf_msim_registry *r = wf_calloc(1, sizeof *r, "a simulated registry");
    if (!r)
        return WEFT_E_NO_MEMORY;
    r->world = world;
    r->slots = wf_calloc(WF_MEMBERS_MAX, sizeof *r->slots, "a simulated registry");
    r->by_name = wf_calloc(WF_MSIM_NAMES, sizeof *r->by_name, "a simulated registry");
    r->log = wf_calloc(WF_MSIM_LOG, sizeof *r->log, "a simulated registry");
    if (!r->slots || !r->by_name || !r->log) {
        wf_msim_registry_free(r);
        return WEFT_E_NO_MEMORY;
    }
    (void)snprintf(r->name, sizeof r->name, "%s", name);
    r->next = world->registries;
    world->registries = r;
    *out = r;
    return WEFT_OK;
}

void wf_msim_registry_free(struct wf_msim_registry *r)
{
    assert(!r->nodes && "a node is still there");
    if (r->log)
        wf_msim_forget(r);
    for (uint32_t i = 0; i < r->slot_count; i++) {
        wf_vtime_clear(r->world->time, &r->slots[i]->over); /* NOLINT: never NULL */
        wf_msim_drop(r->slots[i]->record);
        free(r->slots[i]);
    }
    for (uint32_t i = 0; i < r->setting_count; i++)
        wf_msim_drop(r->settings[i]);
    free(r->slots);
    free(r->by_name);
    free(r->log);
    free(r);
}

/* ------------------------------------------------------------------------------------------ log */

void wf_msim_forget(struct wf_msim_registry *r)
{
    for (; r->log_first < r->log_end; r->log_first++)
        wf_msim_drop(r->log[r->log_first % WF_MSIM_LOG].record);
}

void wf_msim_watch(struct wf_members *node)
{
    struct wf_member_sim_world *world = node->world;
    if (node->watch.place || node->dead)
        return;
    uint64_t ns = world->options.latency_ns +
                  wf_random_below(&world->random, world->options.watch_ns + 1);
    wf_vtime_at(world->time, &node->watch, wf_msim_now(world) + ns);
}

void wf_msim_watch_happens(struct wf_vtime_event *event)
{
    struct wf_members *node = WF_MSIM_OF(struct wf_members, watch, event);
    if (!wf_msim_hears(node)) {
        node->behind = true;
        return;
    }
    node->behind = false;
    node->word = true;
    node->tip = node->registry->log_end;
    wf_msim_ready(node);
}

static void change(struct wf_msim_registry *r, uint32_t slot, bool setting,
                   struct wf_msim_record *record)
{
    if (r->log_end - r->log_first == WF_MSIM_LOG)
        wf_msim_drop(r->log[r->log_first++ % WF_MSIM_LOG].record);
    r->log[r->log_end++ % WF_MSIM_LOG] = (struct wf_msim_change){slot, setting,
                                                                 wf_msim_hold(record)};
    wf_msim_note(r->world, setting ? 1 : 2, slot, record ? record->revision : 0);
    for (struct wf_members *node = r->nodes; node; node = node->next)
        wf_msim_watch(node);
}

/* --------------------------------------------------------------------------------------- leases */

static void end_lease(struct wf_msim_slot *slot)
{
    struct wf_msim_registry *r = slot->registry;
    wf_vtime_clear(r->world->time, &slot->over);
    wf_msim_drop(slot->record);
    slot->record = NULL;
    r->revision++;
    change(r, slot->number, false, NULL);
}

static void lease_over(struct wf_vtime_event *event)
{
    struct wf_msim_slot *slot = WF_MSIM_OF(struct wf_msim_slot, over, event);
    if (!slot->registry->world->away) /* else when it is back */
        end_lease(slot);
}

static void lease_until(struct wf_msim_slot *slot, uint64_t end_ns)
{
    slot->end_ns = end_ns;
    wf_vtime_at(slot->registry->world->time, &slot->over, end_ns);
}

/* A registry that comes back begins all leases anew, or goes on with them. */
void wf_msim_is_back(struct wf_msim_registry *r)
{
    uint64_t now = wf_msim_now(r->world);
    bool anew = wf_random_below(&r->world->random, 2);
    for (uint32_t i = 0; i < r->slot_count; i++) {
        struct wf_msim_slot *slot = r->slots[i];
        if (!slot->record)
            continue;
        if (anew)
            lease_until(slot, now + slot->lease_ns);
        else if (slot->end_ns <= now)
            end_lease(slot);
    }
    for (struct wf_members *node = r->nodes; node; node = node->next)
        wf_msim_watch(node);
}

/* The record's copy with this epoch and the next revision is what the member says. */
static enum weft_status say(struct wf_msim_slot *slot, const struct wf_msim_record *said)
{
    struct wf_msim_record *record = wf_calloc(1, sizeof *record, "a member in simulation");
    if (!record)
        return WEFT_E_NO_MEMORY;
    record->refs = 1;
    record->member = said->member;
    record->member.epoch = slot->epoch;
    record->revision = ++slot->registry->revision;
    wf_msim_drop(slot->record);
    slot->record = record;
    change(slot->registry, slot->number, false, record);
    return WEFT_OK;
}

static void join(struct wf_msim_request *q)
{
    struct wf_msim_slot *slot = wf_msim_slot(q->registry, q->name, true);
    if (!slot) {
        q->status = WEFT_E_LIMIT;
        (void)snprintf(q->why, sizeof q->why, "the cluster knows %u names, as many as it may",
                       q->registry->slot_count);
        return;
    }
    if (slot->record && slot->instance != q->instance) {
        q->status = WEFT_E_BUSY;
        (void)snprintf(q->why, sizeof q->why, "another node is '%s', with epoch %llu", q->name,
                       (unsigned long long)slot->epoch);
        return;
    }
    if (slot->record)
        end_lease(slot);
    slot->epoch++;
    slot->instance = q->instance;
    slot->lease_ns = q->lease_ns;
    q->status = say(slot, q->record);
    q->epoch = slot->epoch;
    lease_until(slot, wf_msim_now(q->registry->world) + q->lease_ns);
}

static void of_lease(struct wf_msim_request *q)
{
    struct wf_msim_slot *slot = wf_msim_slot(q->registry, q->name, false);
    if (!slot || !slot->record || slot->instance != q->instance || slot->epoch != q->epoch) {
        q->status = WEFT_MISS;
        (void)snprintf(q->why, sizeof q->why, "the registry knows of no lease of '%s'", q->name);
        return;
    }
    q->status = WEFT_OK;
    if (q->kind == WF_MSIM_RENEW)
        lease_until(slot, wf_msim_now(q->registry->world) + slot->lease_ns);
    else if (q->kind == WF_MSIM_PUBLISH)
        q->status = say(slot, q->record);
    else
        end_lease(slot);
}

static void set(struct wf_msim_request *q)
{
    struct wf_msim_registry *r = q->registry;
    uint32_t at = 0;
    while (at < r->setting_count && strcmp(r->settings[at]->member.name, q->name) != 0)
        at++;
    struct wf_msim_record *now = at < r->setting_count ? r->settings[at] : NULL;
    if ((now && !now->removed ? now->revision : 0) != q->revision) {
        q->status = WEFT_E_BUSY;
    } else if (q->record->removed && (!now || now->removed)) {
        q->status = WEFT_OK; /* there is none, and there is to be none */
    } else if (at == WF_SETTINGS_MAX) {
        q->status = WEFT_E_LIMIT;
    } else {
        q->status = WEFT_OK;
        q->record->revision = ++r->revision;
        r->setting_count += at == r->setting_count;
        wf_msim_drop(now);
        r->settings[at] = wf_msim_hold(q->record);
        change(r, at, true, q->record);
    }
}

void wf_msim_carry_out(struct wf_msim_request *q)
{
    switch (q->kind) {
    case WF_MSIM_JOIN: join(q); break;
    case WF_MSIM_SET: set(q); break;
    default: of_lease(q);
    }
    wf_msim_note(q->registry->world, 3 + (uint64_t)q->kind, q->instance, (uint64_t)q->status);
}
