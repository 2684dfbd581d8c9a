/* SPDX-License-Identifier: Apache-2.0 */
#include "member/roster.h"

#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

#define ROOM_FIRST 16u

/* Where it is, or would be. */
static uint32_t place_of(const struct wf_roster *roster, const char *name, bool *out_there)
{
    uint32_t low = 0, high = roster->count;
    *out_there = false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(roster->members[middle]->name, name);
        if (order == 0)
            *out_there = true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void wf_roster_fini(struct wf_roster *roster)
{
    for (uint32_t i = 0; i < roster->count; i++)
        free(roster->members[i]);
    free(roster->members);
    memset(roster, 0, sizeof *roster);
}

struct wf_member *wf_roster_find(const struct wf_roster *roster, const char *name)
{
    bool there;
    uint32_t place = place_of(roster, name, &there);
    return there ? roster->members[place] : NULL;
}

static enum weft_status make_room(struct wf_roster *roster)
{
    if (roster->count == WF_MEMBERS_MAX)
        return wf_fail(WEFT_E_LIMIT, "the cluster has more than %u members; that is all one can be",
                       WF_MEMBERS_MAX);
    if (roster->count < roster->room)
        return WEFT_OK;
    uint32_t room = roster->room ? roster->room * 2 : ROOM_FIRST;
    void *moved = wf_realloc(roster->members, room * sizeof *roster->members, "members");
    if (!moved)
        return WEFT_E_NO_MEMORY;
    roster->members = moved;
    roster->room = room;
    return WEFT_OK;
}

enum weft_status wf_roster_put(struct wf_roster *roster, const struct wf_member *member)
{
    bool there;
    uint32_t place = place_of(roster, member->name, &there);
    if (there) {
        *roster->members[place] = *member;
        return WEFT_OK;
    }
    enum weft_status status = make_room(roster);
    if (status != WEFT_OK)
        return status;
    struct wf_member *copy = wf_calloc(1, sizeof *copy, "a member");
    if (!copy)
        return WEFT_E_NO_MEMORY;
    *copy = *member;
    memmove(roster->members + place + 1, roster->members + place,
            (roster->count - place) * sizeof *roster->members);
    roster->members[place] = copy;
    roster->count++;
    return WEFT_OK;
}

struct wf_member *wf_roster_take(struct wf_roster *roster, const char *name)
{
    bool there;
    uint32_t place = place_of(roster, name, &there);
    if (!there)
        return NULL;
    struct wf_member *taken = roster->members[place];
    roster->count--;
    memmove(roster->members + place, roster->members + place + 1,
            (roster->count - place) * sizeof *roster->members);
    return taken;
}

uint32_t wf_roster_list(const struct wf_roster *roster, struct wf_member *out, uint32_t max)
{
    for (uint32_t i = 0; i < roster->count && i < max; i++)
        out[i] = *roster->members[i];
    return roster->count;
}
