/* SPDX-License-Identifier: Apache-2.0
 *
 * The registries under test.  A new one is one more line in `backends`.
 */
#include "../support/etcd.h"
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
};
const size_t backend_count = sizeof backends / sizeof backends[0];

const struct backend *backend_of(const char *name)
{
    for (size_t i = 0; i < backend_count; i++)
        if (strcmp(backends[i].name, name) == 0)
            return &backends[i];
    return NULL;
}
