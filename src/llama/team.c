/* SPDX-License-Identifier: Apache-2.0
 *
 * A round begins when `round` changes and ends when `busy` is back at 0.  Helpers spin for a
 * moment, since the next loop usually follows at once, and then sleep.
 *
 * Order: the caller writes the job and then releases `round`, which a helper acquires before it
 * reads the job; a helper releases its decrement of `busy` after its part, which the caller
 * acquires.  `round` only changes under `lock`, so that a helper that looks once more before it
 * sleeps cannot miss it.
 */
#include "llama/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define SPINS 4000

struct helper {
    struct wf_team *team;
    unsigned member;
    pthread_t thread;
};

struct wf_team {
    unsigned members;
    struct helper helpers[WF_TEAM_MAX];

    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_uint round;
    atomic_uint busy;
    bool stop; /* written before the last round */

    wf_team_work *work;
    void *context;
    size_t count, grain;
};

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void run_part(struct wf_team *team, unsigned member)
{
    size_t grains = (team->count + team->grain - 1) / team->grain;
    size_t first = grains * member / team->members * team->grain;
    size_t end = grains * (member + 1) / team->members * team->grain;
    if (end > team->count)
        end = team->count;
    if (first < end)
        team->work(team->context, member, first, end);
}

static unsigned wait_round(struct wf_team *team, unsigned seen)
{
    for (unsigned i = 0; i < SPINS; i++) {
        unsigned round = atomic_load_explicit(&team->round, memory_order_acquire);
        if (round != seen)
            return round;
        pause_briefly();
    }
    pthread_mutex_lock(&team->lock);
    unsigned round;
    while ((round = atomic_load_explicit(&team->round, memory_order_acquire)) == seen)
        pthread_cond_wait(&team->wake, &team->lock);
    pthread_mutex_unlock(&team->lock);
    return round;
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    struct wf_team *team = helper->team;
    unsigned seen = 0;
    for (;;) {
        seen = wait_round(team, seen);
        if (team->stop)
            return NULL;
        run_part(team, helper->member);
        atomic_fetch_sub_explicit(&team->busy, 1, memory_order_release);
    }
}

static void begin_round(struct wf_team *team)
{
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add_explicit(&team->round, 1, memory_order_release);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

struct wf_team *wf_team_create(unsigned members)
{
    struct wf_team *team = calloc(1, sizeof(*team));
    if (!team)
        return NULL;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    for (team->members = 1; team->members < members && team->members < WF_TEAM_MAX;
         team->members++) {
        struct helper *helper = &team->helpers[team->members];
        *helper = (struct helper){.team = team, .member = team->members};
        if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0)
            break; /* fewer threads are slower, not wrong */
    }
    return team;
}

void wf_team_destroy(struct wf_team *team)
{
    if (!team)
        return;
    team->stop = true;
    begin_round(team);
    for (unsigned i = 1; i < team->members; i++)
        pthread_join(team->helpers[i].thread, NULL);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->lock);
    free(team);
}

void wf_team_run(struct wf_team *team, size_t count, size_t grain, wf_team_work *work,
                 void *context)
{
    if (team->members == 1 || count <= grain) {
        if (count)
            work(context, 0, 0, count);
        return;
    }
    team->work = work;
    team->context = context;
    team->count = count;
    team->grain = grain;
    atomic_store_explicit(&team->busy, team->members - 1, memory_order_relaxed);
    begin_round(team);
    run_part(team, 0);
    for (unsigned i = 0; atomic_load_explicit(&team->busy, memory_order_acquire) > 0; i++) {
        if (i < SPINS)
            pause_briefly();
        else
            sched_yield();
    }
}

unsigned wf_team_default_members(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return 1;
    int count = CPU_COUNT(&allowed);
    return count > 4 ? 4 : (unsigned)count;
}
