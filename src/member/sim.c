/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated registries: worlds, what goes wrong in them, and a node as its user sees it.
 */
#include "member/sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "member/sim_inner.h"

/* -------------------------------------------------------------------------------------- worlds */

enum weft_status wf_member_sim_world_create(const struct wf_member_sim_options *options,
                                            struct wf_member_sim_world **out)
{
    struct wf_member_sim_world *world = wf_calloc(1, sizeof *world, "simulated registries");
    if (!world)
        return WEFT_E_NO_MEMORY;
    struct wf_member_sim_options *o = &world->options;
    *o = *options;
    o->latency_ns = o->latency_ns ? o->latency_ns : 500000;
    o->jitter_ns = o->jitter_ns ? o->jitter_ns : o->latency_ns;
    o->watch_ns = o->watch_ns ? o->watch_ns : 2000000;
    world->time = o->time;
    world->random = o->seed;
    world->ready_last = &world->ready_first;
    *out = world;
    return WEFT_OK;
}

void wf_member_sim_world_destroy(struct wf_member_sim_world *world)
{
    if (!world)
        return;
    while (world->requests)
        wf_msim_request_free(world->requests);
    while (world->registries) {
        struct wf_msim_registry *registry = world->registries;
        world->registries = registry->next;
        wf_msim_registry_free(registry);
    }
    while (world->places) {
        struct wf_msim_place *place = world->places;
        world->places = place->next;
        free(place);
    }
    free(world);
}

uint64_t wf_member_sim_digest(const struct wf_member_sim_world *world)
{
    return world->digest;
}

static struct wf_msim_registry *registry_of(const struct wf_member_sim_world *world,
                                            const char *cluster)
{
    struct wf_msim_registry *r = world->registries;
    while (r && strcmp(r->name, cluster) != 0)
        r = r->next;
    return r;
}

uint64_t wf_member_sim_epoch(const struct wf_member_sim_world *world, const char *cluster,
                             const char *name)
{
    struct wf_msim_registry *registry = registry_of(world, cluster);
    const struct wf_msim_slot *slot = registry ? wf_msim_slot(registry, name, false) : NULL;
    return slot && slot->record ? slot->epoch : 0;
}

/* -------------------------------------------------------------------------------------- faults */

static struct wf_msim_place *place_get(struct wf_member_sim_world *world, const char *name)
{
    struct wf_msim_place *place = world->places;
    while (place && strcmp(place->name, name) != 0)
        place = place->next;
    if (place)
        return place;
    place = wf_calloc(1, sizeof *place, "a simulated host");
    if (!place)
        return NULL;
    (void)snprintf(place->name, sizeof place->name, "%s", name);
    place->next = world->places;
    world->places = place;
    return place;
}

void wf_member_sim_away(struct wf_member_sim_world *world, bool away)
{
    if (world->away == away)
        return;
    world->away = away;
    wf_msim_note(world, 40, away, 0);
    for (struct wf_msim_registry *r = world->registries; r && !away; r = r->next)
        wf_msim_is_back(r);
}

void wf_member_sim_restart(struct wf_member_sim_world *world)
{
    world->generation++;
    wf_msim_note(world, 41, world->generation, 0);
    for (struct wf_msim_registry *r = world->registries; r; r = r->next) {
        for (struct wf_members *node = r->nodes; node; node = node->next)
            node->compare = true;
        if (!world->away)
            wf_msim_is_back(r);
    }
}

void wf_member_sim_forget(struct wf_member_sim_world *world)
{
    for (struct wf_msim_registry *r = world->registries; r; r = r->next)
        wf_msim_forget(r);
}

/* What holds for a place does for whoever is there. */
static void each_at(struct wf_member_sim_world *world, const struct wf_msim_place *place,
                    void (*call)(struct wf_members *node))
{
    for (struct wf_msim_registry *r = world->registries; r; r = r->next)
        for (struct wf_members *node = r->nodes; node; node = node->next)
            if (node->place == place)
                call(node);
}

static void heard_again(struct wf_members *node)
{
    if (node->behind)
        wf_msim_watch(node);
}

void wf_member_sim_cut(struct wf_member_sim_world *world, const char *name, bool cut)
{
    struct wf_msim_place *place = place_get(world, name);
    if (!place || place->cut == cut)
        return;
    place->cut = cut;
    wf_msim_note(world, 42, cut, 0);
    if (!cut)
        each_at(world, place, heard_again);
}

static void has_work(struct wf_members *node)
{
    if (node->stalled && !node->dead)
        wf_msim_beat(node);
    node->stalled = false;
    wf_msim_ready(node);
}

static void unlist(struct wf_members *node);

void wf_member_sim_pause(struct wf_member_sim_world *world, const char *name, bool paused)
{
    struct wf_msim_place *place = place_get(world, name);
    if (!place || place->paused == paused)
        return;
    place->paused = paused;
    wf_msim_note(world, 43, paused, 0);
    each_at(world, place, paused ? unlist : has_work);
}

static void die(struct wf_members *node)
{
    node->dead = true;
    wf_vtime_clear(node->world->time, &node->beat);
    wf_vtime_clear(node->world->time, &node->watch);
    for (struct wf_msim_request *q = node->world->requests; q; q = q->next)
        if (q->node == node)
            q->node = NULL;
    unlist(node);
}

void wf_member_sim_kill(struct wf_member_sim_world *world, const char *name)
{
    struct wf_msim_place *place = place_get(world, name);
    wf_msim_note(world, 44, 0, 0);
    if (place)
        each_at(world, place, die);
}

void wf_member_sim_delay(struct wf_member_sim_world *world, uint64_t watch_ns)
{
    world->options.watch_ns = watch_ns ? watch_ns : 2000000;
}

/* --------------------------------------------------------------------------------------- ready */

void wf_msim_ready(struct wf_members *node)
{
    struct wf_member_sim_world *world = node->world;
    if (node->ready || node->dead || node->place->paused)
        return;
    node->ready = true;
    node->ready_next = NULL;
    node->ready_back = world->ready_last;
    *world->ready_last = node;
    world->ready_last = &node->ready_next;
    if (node->event >= 0)
        (void)eventfd_write(node->event, 1);
}

static void unlist(struct wf_members *node)
{
    if (!node->ready)
        return;
    *node->ready_back = node->ready_next;
    if (node->ready_next)
        node->ready_next->ready_back = node->ready_back;
    else
        node->world->ready_last = node->ready_back;
    node->ready = false;
    uint64_t count;
    if (node->event >= 0)
        (void)eventfd_read(node->event, &count);
}

struct wf_members *wf_member_sim_next(struct wf_member_sim_world *world, void **out_context)
{
    struct wf_members *node = world->ready_first;
    if (!node)
        return NULL;
    unlist(node);
    *out_context = node->events.context;
    return node;
}

/* ---------------------------------------------------------------------------------------- nodes */

static enum weft_status record_new(const char *name, const char *addresses, const char *details,
                                   struct wf_msim_record **out)
{
    struct wf_msim_record *record = wf_calloc(1, sizeof *record, "a member in simulation");
    if (!record)
        return WEFT_E_NO_MEMORY;
    record->refs = 1;
    enum weft_status status = wf_member_make(name, addresses, details, &record->member);
    if (status != WEFT_OK)
        free(record);
    else
        *out = record;
    return status;
}

static enum weft_status sim_open(const struct wf_member_options *options, struct wf_members **out)
{
    struct wf_member_sim_world *world = options->world;
    const char *cluster = options->registry ? options->registry : "";
    cluster += strncmp(cluster, "sim:", 4) ? 0 : 4;
    if (!world || !cluster[0] || strlen(cluster) >= WF_MEMBER_ADDRESSES_MAX)
        return wf_fail(WEFT_E_INVALID, "a simulated registry needs a world, and a name as in "
                                       "sim:CLUSTER");
    struct wf_msim_record *said;
    enum weft_status status = record_new(options->name, options->addresses, options->details,
                                         &said);
    if (status != WEFT_OK)
        return status;
    struct wf_members *node = wf_calloc(1, sizeof *node, "a node of a simulated registry");
    struct wf_msim_place *place = node ? place_get(world, options->name) : NULL;
    status = place ? wf_msim_registry_get(world, cluster, &node->registry) : WEFT_E_NO_MEMORY;
    if (status != WEFT_OK) {
        wf_msim_drop(said);
        free(node);
        return status;
    }
    node->world = world;
    node->place = place;
    node->events = options->events;
    node->said = said;
    node->instance = ++world->instances;
    node->lease_ns = (options->lease_ms ? options->lease_ms : 5000) * UINT64_C(1000000);
    node->event = -1;
    node->compare = true;
    node->next = node->registry->nodes;
    node->back = &node->registry->nodes;
    if (node->next)
        node->next->back = &node->next;
    node->registry->nodes = node;
    wf_msim_begin(node);
    wf_msim_watch(node);
    *out = node;
    return WEFT_OK;
}

static void sim_close(struct wf_members *node, uint32_t leave_ms)
{
    if (!node)
        return;
    assert(!node->polling && "a node is not closed from its own callbacks");
    wf_msim_look(node);
    if (!node->dead && leave_ms && wf_msim_in(node->standing.state))
        wf_msim_say(node, WF_MSIM_LEAVE, NULL, node->said->member.name, NULL, 0);
    die(node);
    *node->back = node->next;
    if (node->next)
        node->next->back = node->back;
    for (uint32_t i = 0; i < node->member_room; i++)
        wf_msim_drop(node->members[i]);
    for (uint32_t i = 0; i < WF_SETTINGS_MAX; i++)
        wf_msim_drop(node->settings[i]);
    while (node->sets) {
        struct wf_msim_set *set = node->sets;
        node->sets = set->next;
        free(set);
    }
    if (node->event >= 0)
        close(node->event);
    wf_msim_drop(node->said);
    free(node->members);
    free(node);
}

static enum weft_status sim_publish(struct wf_members *node, const char *addresses,
                                    const char *details)
{
    struct wf_msim_record *said;
    enum weft_status status = record_new(node->said->member.name, addresses, details, &said);
    if (status != WEFT_OK)
        return status;
    wf_msim_drop(node->said);
    node->said = said;
    node->published = false;
    wf_msim_look(node);
    if (wf_msim_in(node->standing.state))
        wf_msim_say(node, WF_MSIM_PUBLISH, NULL, said->member.name, said, 0);
    return WEFT_OK;
}

static void sim_standing(const struct wf_members *node, struct wf_standing *out)
{
    struct wf_members *mine = (struct wf_members *)(uintptr_t)node;
    if (!node->dead)
        wf_msim_look(mine);
    *out = node->standing;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct wf_member *)a)->name, ((const struct wf_member *)b)->name);
}

static int record_by_name(const void *a, const void *b)
{
    return by_name(&(*(struct wf_msim_record *const *)a)->member,
                   &(*(struct wf_msim_record *const *)b)->member);
}

static uint32_t sim_list(const struct wf_members *node, struct wf_member *out, uint32_t max)
{
    uint32_t count = 0;
    struct wf_msim_record *known[WF_MEMBERS_MAX];
    for (uint32_t i = 0; i < node->member_room; i++)
        if (node->members[i])
            known[count++] = node->members[i];
    if (max)
        qsort(known, count, sizeof known[0], record_by_name);
    for (uint32_t i = 0; i < count && i < max; i++)
        out[i] = known[i]->member;
    return count;
}

static enum weft_status sim_setting(const struct wf_members *node, const char *name, char *out,
                                    size_t out_bytes, uint64_t *out_revision)
{
    for (uint32_t i = 0; i < WF_SETTINGS_MAX; i++) {
        const struct wf_msim_record *s = node->settings[i];
        if (!s || s->removed || strcmp(s->member.name, name) != 0)
            continue;
        size_t bytes = strlen(s->value) + 1;
        if (bytes > out_bytes)
            return wf_fail(WEFT_E_LIMIT, "the setting %s has %zu bytes; there is room for %zu",
                           name, bytes, out_bytes);
        memcpy(out, s->value, bytes);
        *out_revision = s->revision;
        return WEFT_OK;
    }
    return WEFT_MISS;
}

static enum weft_status sim_set(struct wf_members *node, const char *name, const char *value,
                                uint64_t revision,
                                void (*done)(void *context, enum weft_status status), void *context)
{
    enum weft_status status = wf_setting_check(name, value);
    if (status != WEFT_OK)
        return status;
    if (node->set_count == WF_MSIM_SETS_MAX)
        return wf_fail(WEFT_E_LIMIT, "%u settings are being changed already", node->set_count);
    size_t bytes = value ? strlen(value) + 1 : 1;
    struct wf_msim_record *record = wf_calloc(1, sizeof *record + bytes, "a setting");
    struct wf_msim_set *set = record ? wf_calloc(1, sizeof *set, "a setting") : NULL;
    if (!set) {
        free(record);
        return WEFT_E_NO_MEMORY;
    }
    record->refs = 1;
    record->setting = true;
    record->removed = !value;
    memcpy(record->member.name, name, strlen(name) + 1);
    memcpy(record->value, value ? value : "", bytes);
    *set =
        (struct wf_msim_set){.done = done, .context = context, .sent_ns = wf_msim_now(node->world)};
    struct wf_msim_set **last = &node->sets;
    while (*last)
        last = &(*last)->next;
    *last = set;
    node->set_count++;
    wf_msim_say(node, WF_MSIM_SET, set, name, record, revision);
    wf_msim_drop(record);
    return WEFT_OK;
}

static int sim_event(const struct wf_members *node)
{
    if (node->event < 0) {
        struct wf_members *mine = (struct wf_members *)(uintptr_t)node;
        mine->event = eventfd(node->ready, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return node->event;
}

/* ----------------------------------------------------------------------------------------- poll */

static void tell_standing(struct wf_members *node)
{
    struct wf_standing now = node->standing, lost = node->told;
    bool was_in = wf_msim_in(lost.state);
    if (now.state == lost.state && now.epoch == lost.epoch && now.until_ns == lost.until_ns &&
        !strcmp(now.why, lost.why))
        return;
    node->told = now;
    if (was_in && now.state != WF_STANDING_LOST &&
        (now.epoch != lost.epoch || !wf_msim_in(now.state))) {
        lost.state = WF_STANDING_LOST;
        (void)snprintf(lost.why, sizeof lost.why, "the lease was over");
        node->events.standing(node->events.context, &lost);
    }
    node->events.standing(node->events.context, &now);
}

static bool room_for(struct wf_members *node, uint32_t slot)
{
    if (slot < node->member_room)
        return true;
    uint32_t room = slot + 64;
    struct wf_msim_record **more = wf_realloc(node->members, room * sizeof *more, "members");
    if (!more)
        return false;
    memset(more + node->member_room, 0, (room - node->member_room) * sizeof *more);
    node->members = more;
    node->member_room = room;
    return true;
}

/* What it knows of a member is this from now on; NULL: it left. */
static void know_member(struct wf_members *node, uint32_t slot, struct wf_msim_record *record)
{
    if (!room_for(node, slot))
        return;
    struct wf_msim_record *before = node->members[slot];
    if (before == record || (before && record && wf_member_same(&before->member, &record->member)))
        return;
    if (before && (!record || before->member.epoch != record->member.epoch)) {
        node->members[slot] = NULL;
        wf_msim_note(node->world, 51, node->instance, slot);
        node->events.left(node->events.context, &before->member);
    }
    node->members[slot] = wf_msim_hold(record);
    if (record) {
        wf_msim_note(node->world, 50, node->instance, slot);
        node->events.joined(node->events.context, &record->member);
    }
    wf_msim_drop(before);
}

static void know_setting(struct wf_members *node, uint32_t slot, struct wf_msim_record *record)
{
    struct wf_msim_record *before = node->settings[slot];
    bool news = before != record && record && (!record->removed || (before && !before->removed));
    node->settings[slot] = wf_msim_hold(record);
    wf_msim_drop(before);
    if (news && node->events.setting)
        node->events.setting(node->events.context, record->member.name,
                             record->removed ? NULL : record->value, record->revision);
}

static void compare(struct wf_members *node)
{
    struct wf_msim_registry *r = node->registry;
    node->compare = false;
    node->at = node->tip = r->log_end;
    for (uint32_t i = 0; i < r->slot_count; i++)
        know_member(node, i, r->slots[i]->record);
    for (uint32_t i = 0; i < r->setting_count; i++)
        know_setting(node, i, r->settings[i]);
}

static void tell_changes(struct wf_members *node)
{
    struct wf_msim_registry *r = node->registry;
    if (!node->word)
        return;
    node->word = false;
    if (node->compare || node->at < r->log_first) {
        if (wf_msim_hears(node))
            compare(node);
        else
            node->behind = node->compare = true;
        return;
    }
    while (node->at < node->tip) {
        struct wf_msim_change change = r->log[node->at++ % WF_MSIM_LOG];
        if (change.setting)
            know_setting(node, change.slot, change.record);
        else
            know_member(node, change.slot, change.record);
    }
    if (node->at < r->log_end)
        wf_msim_watch(node);
}

static void tell_sets(struct wf_members *node)
{
    struct wf_msim_set **at = &node->sets;
    while (*at) {
        struct wf_msim_set *set = *at;
        if (!set->answered) {
            at = &set->next;
            continue;
        }
        *at = set->next;
        node->set_count--;
        struct wf_msim_set told = *set;
        free(set);
        if (told.status == WEFT_E_NODE)
            wf_fail_keep("the registry does not answer");
        if (told.done)
            told.done(told.context, told.status);
    }
}

static void sim_poll(struct wf_members *node, uint32_t timeout_ms)
{
    struct wf_member_sim_world *world = node->world;
    assert(!node->polling && "poll is not called from callbacks");
    uint64_t until = wf_msim_now(world) + timeout_ms * UINT64_C(1000000);
    while (timeout_ms && !node->ready && !node->dead)
        if (!wf_vtime_step(world->time, until))
            break;
    if (node->dead || node->place->paused)
        return;
    unlist(node);
    node->polling = true;
    wf_msim_look(node);
    tell_standing(node);
    tell_changes(node);
    tell_sets(node);
    node->polling = false;
}

const struct wf_member_ops wf_member_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .publish = sim_publish,
    .standing = sim_standing,
    .list = sim_list,
    .setting = sim_setting,
    .set = sim_set,
    .event = sim_event,
    .poll = sim_poll,
};
