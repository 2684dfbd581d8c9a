/* SPDX-License-Identifier: Apache-2.0
 *
 * A few threads that split one loop at a time.  Which thread does which part changes nothing in the
 * result: parts write to different places.
 */
#ifndef WF_LLAMA_TEAM_H
#define WF_LLAMA_TEAM_H

#include <stddef.h>

#define WF_TEAM_MAX 64

/* One part, `first` ≤ i < `end`, on thread number `member` (0 is the caller). */
typedef void wf_team_work(void *context, unsigned member, size_t first, size_t end);

struct wf_team;

/* NULL when threads cannot be started.  One caller at a time. */
struct wf_team *wf_team_create(unsigned members);
void wf_team_destroy(struct wf_team *team);

/* Do 0 ≤ i < count, and return when all of it is done.  Parts start at multiples of `grain`. */
void wf_team_run(struct wf_team *team, size_t count, size_t grain, wf_team_work *work,
                 void *context);

/* As many as this machine has processors for us, up to four: more only wait for memory. */
unsigned wf_team_default_members(void);

#endif
