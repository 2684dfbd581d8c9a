/* SPDX-License-Identifier: Apache-2.0
 *
 * Members by name: a sorted array of them, WF_MEMBERS_MAX at most.  One thread, or under its
 * user's lock.
 */
#ifndef WF_MEMBER_ROSTER_H
#define WF_MEMBER_ROSTER_H

#include "member/member.h"

struct wf_roster {
    struct wf_member **members; /* by name; each on the heap, so that none ever moves */
    uint32_t count, room;
};

void wf_roster_fini(struct wf_roster *roster);

/* NULL: there is none of that name. */
struct wf_member *wf_roster_find(const struct wf_roster *roster, const char *name);

/* A copy of it is in, in the place of the one of that name.  WEFT_E_LIMIT, WEFT_E_NO_MEMORY. */
enum weft_status wf_roster_put(struct wf_roster *roster, const struct wf_member *member);

/* It is in no more; NULL: it was not.  The caller frees it. */
struct wf_member *wf_roster_take(struct wf_roster *roster, const char *name);

/* As wf_member_ops has it. */
uint32_t wf_roster_list(const struct wf_roster *roster, struct wf_member *out, uint32_t max);

#endif
