/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the simulated registry share.
 *
 *     sim.c           worlds, and what goes wrong in them; a node as its user sees it
 *     sim_node.c      a node's talk with the registry: its lease, its standing
 *     sim_registry.c  the registry: leases, epochs, settings, and the log of what changed
 *
 * What is said of members and settings lies in records that never change, which the registry, its
 * log and all nodes that know of them hold together: a thousand nodes know a thousand members at
 * the cost of a pointer each.  A node's place in the log is what it has been told.
 */
#ifndef WF_MEMBER_SIM_INNER_H
#define WF_MEMBER_SIM_INNER_H

#include "base/random.h"
#include "member/checks.h"
#include "member/sim.h"
#include "sys/memory.h"

#define WF_MSIM_LOG 8192u /* changes that are remembered; a power of two */
#define WF_MSIM_NAMES (2 * WF_MEMBERS_MAX)
#define WF_MSIM_SETS_MAX 64u       /* of a node, without an answer */
#define WF_MSIM_SET_NS 2000000000u /* … which is given up then */

#define WF_MSIM_OF(type, member, pointer) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* What a member says, or a setting is; held by `refs`. */
struct wf_msim_record {
    uint32_t refs;
    bool setting, removed;
    uint64_t revision;
    struct wf_member member; /* of a setting only the name */
    char value[];            /* of a setting */
};

struct wf_msim_registry;

/* A name at the registry; it stays, since its epochs have to grow. */
struct wf_msim_slot {
    struct wf_msim_registry *registry;
    uint32_t number;
    char name[WF_MEMBER_NAME_MAX + 1];
    uint64_t epoch;                /* of the lease that it had last */
    struct wf_msim_record *record; /* NULL: no lease */
    uint64_t instance, lease_ns, end_ns;
    struct wf_vtime_event over;
};

struct wf_msim_change {
    uint32_t slot; /* of members or settings */
    bool setting;
    struct wf_msim_record *record; /* NULL: it left */
};

struct wf_msim_registry {
    struct wf_msim_registry *next;
    struct wf_member_sim_world *world;
    char name[WF_MEMBER_ADDRESSES_MAX];
    struct wf_msim_slot **slots;
    uint32_t slot_count;
    uint32_t *by_name; /* [WF_MSIM_NAMES] number + 1 */
    struct wf_msim_record *settings[WF_SETTINGS_MAX];
    uint32_t setting_count;
    uint64_t revision;
    struct wf_msim_change *log; /* [WF_MSIM_LOG] */
    uint64_t log_first, log_end;
    struct wf_members *nodes;
};

/* A host, as the registry's network has it. */
struct wf_msim_place {
    struct wf_msim_place *next;
    char name[WF_MEMBER_NAME_MAX + 1];
    bool cut, paused;
};

enum wf_msim_kind { WF_MSIM_JOIN, WF_MSIM_RENEW, WF_MSIM_PUBLISH, WF_MSIM_LEAVE, WF_MSIM_SET };

struct wf_msim_set {
    struct wf_msim_set *next;
    void (*done)(void *context, enum weft_status status);
    void *context;
    uint64_t sent_ns;
    bool answered;
    enum weft_status status;
};

/* On its way to the registry, or its answer back. */
struct wf_msim_request {
    struct wf_vtime_event event;
    struct wf_msim_request *next, **back; /* of the world's */
    struct wf_msim_registry *registry;
    struct wf_members *node; /* NULL: nobody waits for the answer */
    struct wf_msim_place *place;
    struct wf_msim_set *set;
    struct wf_msim_record *record; /* what is said; of SET: what is to be */
    enum wf_msim_kind kind;
    bool answer;
    uint32_t generation;
    uint64_t instance, join, sent_ns, lease_ns, epoch, revision;
    char name[WF_MEMBER_NAME_MAX + 1];
    enum weft_status status;
    char why[160];
};

struct wf_members {
    struct wf_member_sim_world *world;
    struct wf_msim_registry *registry;
    struct wf_msim_place *place;
    struct wf_members *next, **back; /* of the registry's */
    struct wf_members *ready_next, **ready_back;
    struct wf_member_events events;
    struct wf_msim_record *said; /* of this node */
    uint64_t instance, lease_ns;
    bool dead, ready, polling, waiting; /* waiting: the last word on the lease has no answer */
    int event;

    struct wf_standing standing, told;
    struct wf_vtime_event beat, watch;
    bool stalled; /* a beat fell due while it was paused */
    uint64_t beat_ns, join;
    bool published; /* the registry has what it says */
    struct wf_msim_set *sets;
    uint32_t set_count;

    /* What it knows: */
    struct wf_msim_record **members, *settings[WF_SETTINGS_MAX]; /* by slot */
    uint32_t member_room;
    uint64_t at, tip; /* of the log: told to; may be told to */
    bool word;        /* of changes has come */
    bool compare;     /* the log has not all that it missed */
    bool behind;      /* nobody could tell it when there was something to tell */
};

struct wf_member_sim_world {
    struct wf_member_sim_options options;
    struct wf_vtime *time;
    uint64_t random, digest, instances;
    uint32_t generation; /* of the registries' processes */
    bool away;
    struct wf_msim_registry *registries;
    struct wf_msim_place *places;
    struct wf_msim_request *requests;
    struct wf_members *ready_first, **ready_last;
};

static inline uint64_t wf_msim_now(const struct wf_member_sim_world *world)
{
    return wf_vtime_now(world->time);
}

/* Into the history. */
static inline void wf_msim_note(struct wf_member_sim_world *world, uint64_t what, uint64_t where,
                                uint64_t value)
{
    uint64_t x = world->digest ^ (wf_msim_now(world) + what * 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 29) ^ where) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 32) ^ value) * 0x94d049bb133111ebu;
    world->digest = x ^ (x >> 31);
}

static inline bool wf_msim_hears(const struct wf_members *node)
{
    return !node->world->away && !node->place->cut;
}

static inline bool wf_msim_in(enum wf_standing_state state)
{
    return state == WF_STANDING_MEMBER || state == WF_STANDING_DOUBTFUL;
}

static inline struct wf_msim_record *wf_msim_hold(struct wf_msim_record *record)
{
    if (record)
        record->refs++;
    return record;
}
void wf_msim_drop(struct wf_msim_record *record);

/* sim.c */
void wf_msim_ready(struct wf_members *node);

/* sim_node.c */
void wf_msim_begin(struct wf_members *node);
void wf_msim_beat(struct wf_members *node); /* now, and not when it would be next */
/* What its standing is at this moment. */
void wf_msim_look(struct wf_members *node);
void wf_msim_say(struct wf_members *node, enum wf_msim_kind kind, struct wf_msim_set *set,
                 const char *name, struct wf_msim_record *record, uint64_t revision);
void wf_msim_request_free(struct wf_msim_request *request);

/* sim_registry.c */
enum weft_status wf_msim_registry_get(struct wf_member_sim_world *world, const char *name,
                                      struct wf_msim_registry **out);
void wf_msim_registry_free(struct wf_msim_registry *registry);
/* The slot of a name; NULL: there is none, and no room when it was to be made. */
struct wf_msim_slot *wf_msim_slot(struct wf_msim_registry *registry, const char *name, bool make);
/* Carry it out, and write the answer into it. */
void wf_msim_carry_out(struct wf_msim_request *request);
/* The node is to be told of what changed, a while from now. */
void wf_msim_watch(struct wf_members *node);
void wf_msim_watch_happens(struct wf_vtime_event *event);
/* It is there again after a while. */
void wf_msim_is_back(struct wf_msim_registry *registry);
void wf_msim_forget(struct wf_msim_registry *registry);

#endif
