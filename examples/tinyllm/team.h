/* SPDX-License-Identifier: Apache-2.0
 *
 * A few threads that split one loop at a time.  Which thread does which part changes nothing in the
 * result: parts write to different places.
 */
#ifndef TINYLLM_TEAM_H
#define TINYLLM_TEAM_H

#include <stddef.h>

#define TEAM_MAX 64

/* One part, `first` ≤ i < `end`, on thread number `member` (0 is the caller). */
typedef void team_work(void *context, unsigned member, size_t first, size_t end);

struct team;

/* NULL when threads cannot be started.  One caller at a time. */
struct team *team_create(unsigned members);
void team_destroy(struct team *team);

/* Do 0 ≤ i < count, and return when all of it is done.  Parts start at multiples of `grain`. */
void team_run(struct team *team, size_t count, size_t grain, team_work *work, void *context);

/* As many as this machine has processors for us, up to four: more only wait for memory. */
unsigned team_default_members(void);

#endif
