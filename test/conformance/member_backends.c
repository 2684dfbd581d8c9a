/* SPDX-License-Identifier: Apache-2.0
 *
 * The registries under test.  A new one is one more line in `backends`.
 */
#include "../support/etcd.h"
#include "member/sim.h"
#include "member_world.h"
#include "sys/clock.h"

static uint64_t real_now_ns(struct world *w)
{
    (void)w;
    return wf_now_ns();
}

/* ------------------------------------------------------------------------------------ static */

static void static_begin(struct world *w)
{
    snprintf(w->place, sizeof w->place, "tcp:127.0.0.1:9,tcp:127.0.0.2:9");
}

static void static_end(struct world *w)
{
    (void)w;
}

/* As they are. */
static void plain_options(struct world *w, struct wf_member_options *options)
{
    (void)w, (void)options;
}

/* -------------------------------------------------------------------------------------- etcd */

/* One etcd for all tests, a cluster each. */
static struct etcd etcd;

static void etcd_end_of_all(void)
{
    etcd_stop(&etcd);
}

static void etcd_world_begin(struct world *w)
{
    static bool tried;
    static const char *missing;
    static unsigned count;
    if (!tried) {
        missing = etcd_start(&etcd, false);
        tried = true;
        if (!missing)
            atexit(etcd_end_of_all);
    }
    if (missing) {
        print_message("# no etcd: %s\n", missing);
        skip();
    }
    w->registry = &etcd;
    snprintf(w->place, sizeof w->place, "etcd://127.0.0.1:%u/test-%u", etcd.port, count++);
}

static void etcd_world_end(struct world *w)
{
    if (w->registry && !etcd.pid)
        assert_true(etcd_begin(&etcd));
    if (w->registry)
        etcd_pause(&etcd, false);
}

static void etcd_away(struct world *w, bool away)
{
    etcd_pause(w->registry, away);
}

static void etcd_restart(struct world *w)
{
    etcd_kill(w->registry);
    assert_true(etcd_begin(w->registry));
}

static void etcd_forget(struct world *w)
{
    assert_true(etcd_compact(w->registry));
}

/* --------------------------------------------------------------------------------------- sim */

struct sim {
    struct wf_vtime *time;
    struct wf_member_sim_world *world;
};

static void sim_begin(struct world *w)
{
    static struct sim sim;
    assert_int_equal(wf_vtime_create(&sim.time), WEFT_OK);
    struct wf_member_sim_options options = {.time = sim.time, .seed = 7};
    assert_int_equal(wf_member_sim_world_create(&options, &sim.world), WEFT_OK);
    w->registry = &sim;
    snprintf(w->place, sizeof w->place, "sim:test");
}

static void sim_end(struct world *w)
{
    struct sim *sim = w->registry;
    wf_member_sim_world_destroy(sim->world);
    wf_vtime_destroy(sim->time);
}

static void sim_options(struct world *w, struct wf_member_options *options)
{
    options->world = ((struct sim *)w->registry)->world;
}

static void sim_away(struct world *w, bool away)
{
    wf_member_sim_away(((struct sim *)w->registry)->world, away);
}

static void sim_restart(struct world *w)
{
    wf_member_sim_restart(((struct sim *)w->registry)->world);
}

static void sim_forget(struct world *w)
{
    wf_member_sim_forget(((struct sim *)w->registry)->world);
}

static uint64_t sim_now_ns(struct world *w)
{
    return wf_vtime_now(((struct sim *)w->registry)->time);
}

static void sim_pass(struct world *w, uint32_t ms)
{
    struct wf_vtime *time = ((struct sim *)w->registry)->time;
    uint64_t until = wf_vtime_now(time) + ms * UINT64_C(1000000);
    while (wf_vtime_step(time, until))
        ;
}

const struct backend backends[] = {
    {
        .name = "static",
        .ops = &wf_member_static,
        .begin = static_begin,
        .end = static_end,
        .options = plain_options,
        .now_ns = real_now_ns,
    },
    {
        .name = "etcd",
        .ops = &wf_member_etcd,
        .lease_ms = 2000,
        .leases = true,
        .settings = true,
        .begin = etcd_world_begin,
        .end = etcd_world_end,
        .options = plain_options,
        .away = etcd_away,
        .restart = etcd_restart,
        .forget = etcd_forget,
        .now_ns = real_now_ns,
    },
    {
        .name = "sim",
        .ops = &wf_member_sim,
        .lease_ms = 2000,
        .leases = true,
        .settings = true,
        .begin = sim_begin,
        .end = sim_end,
        .options = sim_options,
        .away = sim_away,
        .restart = sim_restart,
        .forget = sim_forget,
        .now_ns = sim_now_ns,
        .pass = sim_pass,
    },
};
const size_t backend_count = sizeof backends / sizeof backends[0];

const struct backend *backend_of(const char *name)
{
    for (size_t i = 0; i < backend_count; i++)
        if (strcmp(backends[i].name, name) == 0)
            return &backends[i];
    return NULL;
}
