/* SPDX-License-Identifier: Apache-2.0 */
#include "member_world.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *entry, int kind, struct FTW *walk)
{
    (void)entry, (void)kind, (void)walk;
    return remove(path);
}

/* How much longer leases are where so much else runs that a short one is over before its renewal
 * is answered. */
static uint32_t busy(void)
{
    double load = 0;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return getloadavg(&load, 1) == 1 && load > 3 * (double)processors ? 2 : 1;
}

int world_setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->backend = *state; /* its initial one */
    w->ops = w->backend->ops;
    w->lease_ms = w->backend->lease_ms * (w->backend->pass ? 1 : busy());
    snprintf(w->state_dir, sizeof w->state_dir, "/tmp/weft-member-XXXXXX");
    assert_non_null(mkdtemp(w->state_dir));
    *state = w;
    w->backend->begin(w);
    return 0;
}

int world_teardown(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < NODES_MAX; i++)
        if (w->nodes[i].members)
            node_close(&w->nodes[i], 0);
    w->backend->end(w);
    int left = nftw(w->state_dir, remove_entry, 4, FTW_DEPTH | FTW_PHYS);
    free(w);
    return left;
}

/* ----------------------------------------------------------------------- what a node is told */

static struct heard *hear(struct node *node, enum heard_kind kind, const char *name)
{
    assert_true(node->heard_count < HEARD_MAX);
    struct heard *heard = &node->heard[node->heard_count++];
    *heard = (struct heard){.kind = kind, .at_ns = world_now(node->world)};
    snprintf(heard->name, sizeof heard->name, "%s", name);
    return heard;
}

static struct wf_member *find(struct node *node, const char *name)
{
    for (uint32_t i = 0; i < node->known_count; i++)
        if (strcmp(node->known[i].name, name) == 0)
            return &node->known[i];
    return NULL;
}

/* The epoch that this name had when it was told last; 0: never. */
static uint64_t epoch_before(const struct node *node, const char *name)
{
    for (uint32_t i = node->heard_count; i-- > 0;)
        if (node->heard[i].kind == HEARD_JOINED && strcmp(node->heard[i].name, name) == 0)
            return node->heard[i].epoch;
    return 0;
}

static void on_joined(void *context, const struct wf_member *member)
{
    struct node *node = context;
    struct wf_member *same = find(node, member->name);
    uint64_t before = epoch_before(node, member->name);
    if (same && same->epoch != member->epoch)
        fail_msg("%s: %s has another epoch and has not left", node->name, member->name);
    if (!same && before && member->epoch <= before && node->world->backend->leases)
        fail_msg("%s: %s is back with epoch %llu after %llu", node->name, member->name,
                 (unsigned long long)member->epoch, (unsigned long long)before);
    hear(node, HEARD_JOINED, member->name)->epoch = member->epoch;
    if (!same) {
        assert_true(node->known_count < KNOWN_MAX);
        same = &node->known[node->known_count++];
    }
    *same = *member;
}

/* Of whom others say that it left: does it believe itself a member? */
static void check_fenced(const struct node *node, const struct wf_member *member)
{
    struct world *w = node->world;
    for (uint32_t i = 0; !w->by_hand && i < NODES_MAX; i++) {
        const struct node *other = &w->nodes[i];
        struct wf_standing standing;
        if (!other->members || strcmp(other->name, member->name) != 0)
            continue;
        w->ops->standing(other->members, &standing);
        bool in = standing.state == WF_STANDING_MEMBER || standing.state == WF_STANDING_DOUBTFUL;
        if (in && standing.epoch == member->epoch)
            fail_msg("%s is told that %s left, and that one is a member by its own clock for "
                     "another %lld ms",
                     node->name, member->name,
                     (long long)(standing.until_ns - world_now(w)) / 1000000);
    }
}

static void on_left(void *context, const struct wf_member *member)
{
    struct node *node = context;
    struct wf_member *same = find(node, member->name);
    if (!same)
        fail_msg("%s: %s left, and was not there", node->name, member->name);
    assert_int_equal(same->epoch, member->epoch); /* NOLINT: fail_msg() does not return */
    assert_string_equal(same->addresses, member->addresses);
    check_fenced(node, member);
    hear(node, HEARD_LEFT, member->name)->epoch = member->epoch;
    *same = node->known[--node->known_count];
}

static void on_standing(void *context, const struct wf_standing *standing)
{
    struct node *node = context;
    const struct wf_standing *before = &node->standing;
    bool in = standing->state == WF_STANDING_MEMBER || standing->state == WF_STANDING_DOUBTFUL;
    bool was_in = before->state == WF_STANDING_MEMBER || before->state == WF_STANDING_DOUBTFUL;
    if (standing->epoch < before->epoch)
        fail_msg("%s: its epoch went back", node->name);
    if (standing->epoch == before->epoch && standing->until_ns < before->until_ns)
        fail_msg("%s: the end of its lease came nearer", node->name);
    if (was_in && standing->epoch != before->epoch)
        fail_msg("%s: it has another epoch and was not told that it lost the one before",
                 node->name);
    if (in && before->state == WF_STANDING_LOST && standing->epoch == before->epoch)
        fail_msg("%s: it is back in with the epoch that it lost", node->name);
    if (in && standing->epoch == 0)
        fail_msg("%s: it is in without an epoch", node->name);
    if (standing->state != WF_STANDING_MEMBER && !standing->why[0])
        fail_msg("%s: no sentence for state %d", node->name, (int)standing->state);
    struct heard *heard = hear(node, HEARD_STANDING, "");
    heard->state = standing->state;
    heard->epoch = standing->epoch;
    node->standing = *standing;
}

static void on_setting(void *context, const char *name, const char *value, uint64_t revision)
{
    struct node *node = context;
    if (value && !revision)
        fail_msg("%s: the setting %s has no revision", node->name, name);
    hear(node, HEARD_SETTING, name)->epoch = revision;
}

/* --------------------------------------------------------------------------------- its doings */

struct node *node_open(struct world *w, uint32_t number, const char *name)
{
    assert_true(number < NODES_MAX && !w->nodes[number].members);
    struct node *node = &w->nodes[number];
    memset(node, 0, sizeof *node);
    node->world = w;
    snprintf(node->name, sizeof node->name, "%s", name);
    node->options = (struct wf_member_options){
        .registry = w->place,
        .name = node->name,
        .addresses = "tcp:127.0.0.1:1",
        .details = "{\"what\":\"\\\"test\\\"\"}",
        .lease_ms = w->lease_ms,
        .state_dir = w->state_dir,
        .events = {node, on_joined, on_left, on_standing, on_setting},
    };
    w->backend->options(w, &node->options);
    if (w->ops->open(&node->options, &node->members) != WEFT_OK)
        fail_msg("%s: %s", name, wf_last_error());
    return node;
}

void node_close(struct node *node, uint32_t leave_ms)
{
    node->world->ops->close(node->members, leave_ms);
    node->members = NULL;
}

uint64_t world_now(struct world *w)
{
    return w->backend->now_ns(w);
}

static void check_names(struct world *w)
{
    for (uint32_t i = 0; i < NODES_MAX; i++)
        for (uint32_t j = 0; j < i; j++)
            if (w->nodes[i].members && w->nodes[j].members && is_in(&w->nodes[i]) &&
                is_in(&w->nodes[j]) && strcmp(w->nodes[i].name, w->nodes[j].name) == 0)
                fail_msg("two are %s", w->nodes[i].name);
}

void world_turn(struct world *w)
{
    for (uint32_t i = 0; i < NODES_MAX; i++)
        if (w->nodes[i].members)
            w->ops->poll(w->nodes[i].members, 2);
    check_names(w);
    if (w->backend->pass)
        w->backend->pass(w, 2);
    else
        usleep(1000);
}

void world_pass(struct world *w, uint32_t ms)
{
    uint64_t end = world_now(w) + (uint64_t)ms * 1000000u;
    while (world_now(w) < end)
        world_turn(w);
}

const struct wf_member *known(const struct node *node, const char *name)
{
    return find((struct node *)(uintptr_t)node, name);
}

struct wf_standing standing_of(const struct node *node)
{
    struct wf_standing standing;
    node->world->ops->standing(node->members, &standing);
    return standing;
}

bool is_in(const struct node *node)
{
    struct wf_standing standing = standing_of(node);
    return standing.state == WF_STANDING_MEMBER || standing.state == WF_STANDING_DOUBTFUL;
}

bool all_know_all(struct world *w)
{
    for (uint32_t i = 0; i < NODES_MAX; i++)
        for (uint32_t j = 0; j < NODES_MAX; j++) {
            if (!w->nodes[i].members || !w->nodes[j].members)
                continue;
            const struct wf_member *member = known(&w->nodes[i], w->nodes[j].name);
            struct wf_standing standing = standing_of(&w->nodes[j]);
            if (!member || member->epoch != standing.epoch || standing.state != WF_STANDING_MEMBER)
                return false;
        }
    return true;
}

uint32_t heard_count(const struct node *node, enum heard_kind kind, const char *name)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->heard_count; i++)
        count += node->heard[i].kind == kind && strcmp(node->heard[i].name, name) == 0;
    return count;
}

static void on_done(void *context, enum weft_status status)
{
    struct node *node = context;
    node->answers++;
    node->answer = status;
}

enum weft_status set(struct node *node, const char *name, const char *value, uint64_t revision)
{
    uint32_t answers = node->answers;
    enum weft_status status = node->world->ops->set(node->members, name, value, revision, on_done,
                                                    node);
    if (status != WEFT_OK)
        return status;
    WAIT(node->world, PATIENCE, node->answers > answers);
    assert_int_equal(node->answers, answers + 1);
    return node->answer;
}

const char *setting_of(const struct node *node, const char *name, uint64_t *out_revision)
{
    static char value[WF_SETTING_MAX + 1];
    enum weft_status status = node->world->ops->setting(node->members, name, value, sizeof value,
                                                        out_revision);
    if (status == WEFT_OK)
        return value;
    assert_int_equal(status, WEFT_MISS);
    return "";
}
