/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGKILL at every named point, on either side of the socket.
 *
 * The points are read from the sources, so that a new one without a line here fails.  A point that
 * is never reached fails, too: each must really have killed someone.
 *
 *   a client dies   its pins and reserved blocks are given back, others are served, and what can be
 *                   matched afterwards is right byte for byte
 *   the node dies   clients get WEFT_E_NODE, what they had pinned stays readable with the bytes
 * that it had, nothing is matched any more; with a new node on the same socket the same handles
 * work again, and what only the old one had is a miss; with a tier below, whatever the new one
 * finds there is right, and no match of it has a hole
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 65536
#define CHAIN 4

enum side {
    CLIENT,
    COPYING_CLIENT,
    NODE,
    COPYING_NODE,
    BELOW_CLIENT,
    BELOW_NODE,
    BELOW_TIER,
    UNIT
};

/* `passage`: the first ones belong to what is put before the fault is wanted. */
static const struct point {
    const char *name;
    enum side side;
    int passage;
    const char *unit; /* side UNIT: the test in test/unit that kills there */
} points[] = {
    {"client.hello.answered", CLIENT, 1},
    {"client.reserved", CLIENT, 1},
    {"client.commit.before_send", CLIENT, 1},
    {"client.commit.answered", CLIENT, 1},
    {"client.pin.taken", CLIENT, 3},
    {"client.pin.held", CLIENT, 3},
    {"client.region.answered", CLIENT, 1},
    {"hello.before_answer", NODE, 2},
    {"put.reserve.before_answer", NODE, 2},
    {"put.commit.received", NODE, 2},
    {"put.copied", COPYING_NODE, 2},
    {"put.commit.before_answer", NODE, 2},
    {"region.before_answer", NODE, 1},
    {"server.client_gone", NODE, 2},
    {"store.commit.before_publish", NODE, CHAIN + 3},
    {"store.commit.published", NODE, CHAIN + 3},
    {"store.evict.marked", NODE, 1},
    {"store.evict.unindexed", NODE, 3},
    {"store.remove.marked", NODE, 1},
    {"node.punched", NODE, 1},
    {"client.load.answered", BELOW_CLIENT, 1},
    {"client.load.held", BELOW_CLIENT, 1},
    {"demote.written", BELOW_NODE, 9},
    {"demote.entered", BELOW_NODE, 9},
    {"below.let_go", BELOW_NODE, 1},
    {"below.removed", BELOW_NODE, 1},
    {"load.before_answer", BELOW_NODE, 2},
    {"load.progress", BELOW_NODE, 2},
    {"load.before_arrival", BELOW_NODE, 2},
    {"load.arrived", BELOW_NODE, 2},
    {"mover.found", BELOW_TIER, 1},
    {"mover.probing", BELOW_TIER, 1},
    {"mover.flushed", BELOW_TIER, 1},
    {"watch.format.before_magic", UNIT, 1, "watch.c"},
    {"watch.publish.torn", UNIT, 1, "watch.c"},
    {"watch.publish.before_newest", UNIT, 1, "watch.c"},
    {"watch.publish.before_wake", UNIT, 1, "watch.c"},
    {"whole.written", UNIT, 1, "whole.c"},
    {"whole.renamed", UNIT, 1, "whole.c"},
    {"archive.written", UNIT, 1, "../below/archive.c"},
    {"archive.flushed", UNIT, 1, "../below/archive.c"},
    {"archive.manifest", UNIT, 1, "../below/archive.c"},
    {"archive.removed", UNIT, 1, "../below/archive.c"},
};
#define POINTS (sizeof points / sizeof points[0])

static const char *const direct[] = {"pool.size=4MB", "pool.size_max=4MB", "staging=1MB", NULL};
static const char *const copied[] = {"pool.size=4MB", "pool.size_max=4MB", "staging=1MB",
                                     "domain.default.writes=copied", NULL};

static enum weft_status key_ask(struct weft_format *f, uint64_t chain, uint32_t block,
                                struct weft_key *out)
{
    uint64_t name[2] = {chain, block};
    return weft_key_from_bytes(f, name, sizeof name, out);
}

static void key_of(struct weft_format *f, uint64_t chain, uint32_t block, struct weft_key *out)
{
    assert_int_equal(key_ask(f, chain, block, out), WEFT_OK);
}

/* Put `count` blocks of a chain; the first status that is not good. */
static enum weft_status put(struct weft_format *f, uint64_t chain, uint32_t count)
{
    struct weft_key keys[CHAIN];
    struct weft_slot slots[CHAIN];
    for (uint32_t i = 0; i < count; i++) {
        enum weft_status status = key_ask(f, chain, i, &keys[i]);
        if (status != WEFT_OK)
            return status;
    }
    enum weft_status status = weft_reserve_keys(f, NULL, keys, count, WEFT_CHAINED, slots);
    if (status != WEFT_OK)
        return status;
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, BLOCK_BYTES, keys[i].bytes);
    return weft_commit_slots(f, slots, count);
}

static bool right(const struct weft_pin *pin, const struct weft_key *key)
{
    return pin->bytes == BLOCK_BYTES && payload_right(pin->data, BLOCK_BYTES, key->bytes);
}

/* How many blocks of a chain there are; each is right. */
static uint32_t verify_chain(struct weft_format *f, uint64_t chain)
{
    uint32_t found = 0;
    for (; found < CHAIN; found++) {
        struct weft_key key;
        struct weft_pin pin;
        key_of(f, chain, found, &key);
        enum weft_status status = weft_pin(f, &key, &pin);
        if (status == WEFT_MISS)
            break;
        assert_int_equal(status, WEFT_OK);
        assert_true(right(&pin, &key));
        weft_unpin(&pin);
    }
    return found;
}

/* ------------------------------------------------------------------------------- a client dies */

/* All that a client does, in the child that is to die.  Chain 1 is there already. */
static int work(const char *socket)
{
    struct weft *w;
    struct weft_connect_options options = {.socket = socket};
    if (weft_connect(&options, &w) != WEFT_OK)
        return 1;
    struct weft_format *f = weftd_format(w, "crash", BLOCK_BYTES);
    struct weft_region *region;
    void *memory;
    if (!f || put(f, 2, CHAIN) != WEFT_OK || verify_chain(f, 1) != CHAIN ||
        verify_chain(f, 2) != CHAIN ||
        weft_allocate(w, "256K", WEFT_LATENCY_LOW, WEFT_SHARE_READ, "crash", &region, &memory) !=
            WEFT_OK)
        return 1;
    weft_release(region);
    weft_format_close(f);
    weft_close(w);
    return 0;
}

/* Status of the child as of waitpid(2). */
static int run_child(const struct weftd *node, const char *crash_at, const char *what)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (crash_at)
            setenv("WEFT_CRASH_AT", crash_at, 1);
        execl("/proc/self/exe", "crash", what, node->socket, (char *)NULL);
        _exit(127);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void client_dies(const struct point *point, const char *const *settings)
{
    struct weftd node;
    char crash_at[96];
    uint64_t removed_all = 0;
    weftd_run(&node, settings);
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = weftd_format(w, "crash", BLOCK_BYTES);
    assert_int_equal(put(f, 1, CHAIN), WEFT_OK);
    int64_t free_before = weftd_number(w, NULL, "pool.unassigned_bytes");
    snprintf(crash_at, sizeof crash_at, "%s:%d", point->name, point->passage);
    int status = run_child(&node, crash_at, "work");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s killed nobody: status %d", crash_at, status);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    assert_int_equal(weftd_number(w, "default", "blocks_reserved"), 0);
    assert_int_equal(weftd_number(w, "default", "regions"), 0);
    assert_int_equal(verify_chain(f, 1), CHAIN);
    print_message("# %s: %u of %d blocks of the dead were published\n", crash_at,
                  verify_chain(f, 2), CHAIN);
    /* No pin is left: all can be removed. */
    for (uint64_t chain = 1; chain <= 2; chain++) {
        struct weft_key key;
        size_t removed = 0;
        key_of(f, chain, 0, &key);
        enum weft_status gone = weft_remove(f, &key, &removed);
        assert_true(gone == WEFT_OK || (chain == 2 && gone == WEFT_MISS));
        removed_all += removed;
    }
    assert_true(removed_all >= CHAIN);
    assert_int_equal(weftd_number(w, "default", "blocks"), 0);
    assert_int_equal(weftd_number(w, "default", "used_bytes"), 0);
    assert_int_equal(weftd_number(w, NULL, "pool.unassigned_bytes") >= free_before, 1);
    /* Others are served as if nothing had been. */
    assert_int_equal(put(f, 1, CHAIN), WEFT_OK);
    assert_int_equal(run_child(&node, NULL, "work"), 0);
    assert_int_equal(verify_chain(f, 2), CHAIN);
    weft_format_close(f);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* ------------------------------------------------------------------------------- the node dies */

/* Everything that can make the node pass its points, until it has. */
static enum weft_status provoke(struct weft *w, struct weft_format *f, const struct weftd *node)
{
    enum weft_status status = put(f, 2, CHAIN);
    struct weft_region *region;
    void *memory;
    struct weft_key key;
    struct weft_slot slot;
    size_t removed;
    struct weft *other = status == WEFT_OK ? weftd_connect(node, "default") : NULL;
    struct weft_format *theirs = other ? weftd_format(other, "crash", BLOCK_BYTES) : NULL;
    if (theirs) { /* leaves with a reserved block */
        status = key_ask(theirs, 9, 0, &key);
        if (status == WEFT_OK)
            status = weft_reserve_keys(theirs, NULL, &key, 1, 0, &slot);
    }
    weft_format_close(theirs);
    weft_close(other);
    if (status == WEFT_OK)
        status = weft_allocate(w, "512K", WEFT_LATENCY_NORMAL, WEFT_SHARE_PRIVATE, NULL, &region,
                               &memory);
    if (status == WEFT_OK)
        weft_release(region);
    for (uint64_t chain = 3; status >= 0 && chain < 60; chain++)
        status = put(f, chain, 1);
    for (uint64_t chain = 3; status >= 0 && chain < 60; chain++) {
        status = key_ask(f, chain, 0, &key);
        if (status == WEFT_OK)
            status = weft_remove(f, &key, &removed);
    }
    if (status >= 0) /* what lies free in the store now is punched out for this */
        status = weft_allocate(w, "3M", WEFT_LATENCY_NORMAL, WEFT_SHARE_PRIVATE, NULL, &region,
                               &memory);
    return status;
}

/* The new node knows nothing, and the old handles find that out by themselves. */
static void check_reconnected(struct weft *w, struct weft_format *f)
{
    size_t present = 99;
    struct weft_key key;
    struct weft_pin pin;
    enum weft_status status = WEFT_E_NODE;
    for (int waited = 0; status == WEFT_E_NODE && waited < 10000; waited += 20) {
        status = key_ask(f, 1, 0, &key);
        weftd_sleep_ms(20);
    }
    assert_int_equal(status, WEFT_OK);
    assert_int_equal(weft_match_keys(f, &key, 1, &present), WEFT_OK);
    assert_int_equal(present, 0);
    assert_int_equal(weft_pin(f, &key, &pin), WEFT_MISS);
    assert_int_equal(put(f, 1, CHAIN), WEFT_OK);
    assert_int_equal(verify_chain(f, 1), CHAIN);
    assert_int_equal(verify_chain(f, 2), 0);
    assert_int_equal(weftd_number(w, "default", "blocks"), CHAIN);
    assert_int_equal(weftd_number(w, "default", "blocks_reserved"), 0);
}

static void node_dies(const struct point *point, const char *const *settings)
{
    struct weftd node;
    char crash_at[128];
    struct weft_key keys[CHAIN];
    struct weft_pin pins[CHAIN], pin;
    size_t present;
    snprintf(crash_at, sizeof crash_at, "WEFT_CRASH_AT=%s:%d", point->name, point->passage);
    weftd_prepare(&node);
    if (!weftd_start(&node, settings, (const char *const[]){crash_at, NULL}))
        fail_msg("%s: the node did not start", crash_at);
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = w ? weftd_format(w, "crash", BLOCK_BYTES) : NULL;
    if (!f || put(f, 1, CHAIN) != WEFT_OK)
        fail_msg("%s: the node died too early", crash_at);
    for (uint32_t i = 0; i < CHAIN; i++) {
        key_of(f, 1, i, &keys[i]);
        assert_int_equal(weft_pin(f, &keys[i], &pins[i]), WEFT_OK);
    }
    enum weft_status status = provoke(w, f, &node);
    int end = weftd_wait(&node, 2000);
    if (end == -1 || !WIFSIGNALED(end) || WTERMSIG(end) != SIGKILL)
        fail_msg("%s killed nobody: status %d, provoke %d", crash_at, end, status);
    assert_true(status == WEFT_E_NODE);
    assert_string_not_equal(weft_last_error(), "");

    assert_int_equal(weft_pin(f, &keys[0], &pin), WEFT_E_NODE);
    assert_int_equal(weft_match_keys(f, keys, CHAIN, &present), WEFT_E_NODE);
    for (uint32_t i = 0; i < CHAIN; i++)
        assert_true(right(&pins[i], &keys[i]));

    if (!weftd_start(&node, settings, NULL))
        fail_msg("%s: no new node starts in its place", crash_at);
    check_reconnected(w, f);
    for (uint32_t i = 0; i < CHAIN; i++) { /* of the old node's memory, still */
        assert_true(right(&pins[i], &keys[i]));
        weft_unpin(&pins[i]);
    }
    weft_format_close(f);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* ------------------------------------------------------------------- with a tier below the pool */

#define LARGE_BYTES 1048576 /* comes up in several ranges */
#define BELOW_CHAINS 24u    /* of four: more than the pool and its tier have room for */

static char tier_path[128];
static const char *const below[] = {"pool.size=8MB",
                                    "pool.size_max=8MB",
                                    "staging=1MB",
                                    "tiers=nvme0",
                                    tier_path,
                                    "tier.nvme0.size=64MB",
                                    "tier.nvme0.admit=always",
                                    "tier.nvme0.timeout=20s",
                                    NULL};

static enum weft_status put_below(struct weft_format *f, uint64_t chain)
{
    struct weft_key keys[CHAIN];
    struct weft_slot slots[CHAIN];
    enum weft_status status = WEFT_OK;
    for (uint32_t i = 0; i < CHAIN && status == WEFT_OK; i++)
        status = key_ask(f, chain, i, &keys[i]);
    if (status == WEFT_OK)
        status = weft_reserve_keys(f, NULL, keys, CHAIN, WEFT_CHAINED, slots);
    for (uint32_t i = 0; i < CHAIN && status == WEFT_OK; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, LARGE_BYTES, keys[i].bytes);
    return status == WEFT_OK ? weft_commit_slots(f, slots, CHAIN) : status;
}

/* Get a chain; what is said to be there is right.  *out_found: how many blocks. */
static enum weft_status get_below(struct weft_format *f, uint64_t chain, uint32_t *out_found)
{
    struct weft_key keys[CHAIN];
    struct weft_pins pins;
    enum weft_status status = WEFT_OK;
    *out_found = 0;
    for (uint32_t i = 0; i < CHAIN && status == WEFT_OK; i++)
        status = key_ask(f, chain, i, &keys[i]);
    if (status == WEFT_OK)
        status = weft_get_keys(f, keys, CHAIN, WEFT_LAYER_ORDER, &pins);
    if (status != WEFT_OK)
        return status;
    for (uint32_t i = 0; i < pins.blocks && status == WEFT_OK; i++) {
        status = weft_wait_block(&pins, i);
        if (status == WEFT_OK)
            assert_true(payload_right(pins.data[i], LARGE_BYTES, keys[i].bytes));
        *out_found += status == WEFT_OK;
    }
    weft_pins_release(&pins);
    return status;
}

static enum weft_status put_all_below(struct weft_format *f)
{
    enum weft_status status = WEFT_OK;
    for (uint64_t chain = 1; chain <= BELOW_CHAINS && status >= 0; chain++)
        status = put_below(f, chain);
    return status;
}

/* How many blocks there are of all chains. */
static enum weft_status get_all_below(struct weft_format *f, uint32_t *out_found)
{
    enum weft_status status = WEFT_OK;
    uint32_t found;
    *out_found = 0;
    for (uint64_t chain = 1; chain <= BELOW_CHAINS && status >= 0; chain++) {
        status = get_below(f, chain, &found);
        *out_found += found;
    }
    return status;
}

/* The child that is to die. */
static int work_below(const char *socket)
{
    struct weft *w;
    struct weft_connect_options options = {.socket = socket};
    uint32_t found;
    if (weft_connect(&options, &w) != WEFT_OK)
        return 1;
    struct weft_format *f = weftd_format(w, "below", LARGE_BYTES);
    if (!f || get_all_below(f, &found) != WEFT_OK || found == 0)
        return 1;
    weft_format_close(f);
    weft_close(w);
    return 0;
}

static void prepare_below(struct weftd *node)
{
    weftd_prepare(node);
    snprintf(tier_path, sizeof tier_path, "tier.nvme0.path=%s/tier", node->directory);
}

static void client_dies_below(const struct point *point)
{
    struct weftd node;
    char crash_at[96];
    uint32_t before, after;
    size_t removed;
    prepare_below(&node);
    assert_true(weftd_start(&node, below, NULL));
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = weftd_format(w, "below", LARGE_BYTES);
    assert_int_equal(put_all_below(f), WEFT_OK);
    assert_int_equal(get_all_below(f, &before), WEFT_OK);
    snprintf(crash_at, sizeof crash_at, "%s:%d", point->name, point->passage);
    int status = run_child(&node, crash_at, "work-below");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail_msg("%s killed nobody: status %d", crash_at, status);
    assert_true(weftd_settles(w, NULL, "clients", 1));
    assert_true(weftd_settles(w, "default", "blocks_reserved", 0)); /* what it asked for arrives */
    assert_int_equal(get_all_below(f, &after), WEFT_OK);
    assert_true(after > 0); /* making room for some may cost others, in a tier that is full */
    assert_int_equal(run_child(&node, NULL, "work-below"), 0);
    for (uint64_t chain = 1; chain <= BELOW_CHAINS; chain++) { /* no pin is left */
        struct weft_key key;
        key_of(f, chain, 0, &key);
        enum weft_status gone = weft_remove(f, &key, &removed);
        assert_true(gone == WEFT_OK || gone == WEFT_MISS);
    }
    assert_true(weftd_settles(w, "default", "used_bytes", 0));
    weft_format_close(f);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

static void node_dies_below(const struct point *point)
{
    struct weftd node;
    char crash_at[128];
    struct weft_key key;
    uint32_t found = 0;
    size_t removed;
    prepare_below(&node);
    snprintf(crash_at, sizeof crash_at, "WEFT_CRASH_AT=%s:%d", point->name, point->passage);
    assert_true(weftd_start(&node, below, (const char *const[]){crash_at, NULL}));
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = w ? weftd_format(w, "below", LARGE_BYTES) : NULL;
    assert_non_null(f);
    enum weft_status status = put_all_below(f);
    if (status >= 0)
        status = get_all_below(f, &found);
    for (uint64_t chain = 1; chain <= BELOW_CHAINS && status >= 0; chain++) {
        status = key_ask(f, chain, 0, &key);
        if (status >= 0)
            status = weft_remove(f, &key, &removed);
    }
    int end = weftd_wait(&node, 2000);
    if (end == -1 || !WIFSIGNALED(end) || WTERMSIG(end) != SIGKILL)
        fail_msg("%s killed nobody: status %d, %s", crash_at, end, weft_status_name(status));
    assert_int_equal(status, WEFT_E_NODE);
    if (!weftd_start(&node, below, NULL))
        fail_msg("%s: no new node starts in its place", crash_at);
    for (int waited = 0; status == WEFT_E_NODE && waited < 10000; waited += 20) {
        status = get_below(f, 1, &found);
        weftd_sleep_ms(20);
    }
    assert_int_equal(status, WEFT_OK);
    for (int waited = 0; found == 0 && waited < 10000; waited += 20) { /* until the tier is open */
        assert_int_equal(get_all_below(f, &found), WEFT_OK);
        weftd_sleep_ms(20);
    }
    print_message("# %s: %u blocks were below\n", crash_at, found);
    assert_true(found > 0);
    assert_true(put_all_below(f) == WEFT_OK && get_all_below(f, &found) == WEFT_OK && found > 0);
    assert_true(weftd_settles(w, "default", "blocks_reserved", 0));
    weft_format_close(f);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* The node dies while it opens or closes a tier that had been closed well: all of it is there. */
static void tier_dies(const struct point *point)
{
    struct weftd node;
    char crash_at[128];
    uint32_t before, found = 0;
    prepare_below(&node);
    assert_true(weftd_start(&node, below, NULL));
    struct weft *w = weftd_connect(&node, "default");
    struct weft_format *f = w ? weftd_format(w, "below", LARGE_BYTES) : NULL;
    assert_non_null(f);
    for (uint64_t chain = 1; chain <= 4; chain++) /* what the tier has room for */
        assert_int_equal(put_below(f, chain), WEFT_OK);
    assert_int_equal(get_all_below(f, &before), WEFT_OK);
    assert_int_equal(before, 4 * CHAIN);
    assert_true(weftd_stop(&node));
    snprintf(crash_at, sizeof crash_at, "WEFT_CRASH_AT=%s:%d", point->name, point->passage);
    weftd_spawn(&node, below, (const char *const[]){crash_at, NULL});
    int end = weftd_answers(&node) ? weftd_wait(&node, 1000) : SIGKILL;
    if (end == -1) {
        kill(node.pid, SIGTERM);
        end = weftd_wait(&node, 10000);
    }
    if (end == -1 || !WIFSIGNALED(end) || WTERMSIG(end) != SIGKILL)
        fail_msg("%s killed nobody: status %d", crash_at, end);
    if (!weftd_start(&node, below, NULL))
        fail_msg("%s: no new node starts in its place", crash_at);
    for (int waited = 0; found < before && waited < 10000; waited += 20) {
        (void)get_all_below(f, &found); /* WEFT_E_NODE at first, for the node is another */
        weftd_sleep_ms(20);
    }
    assert_int_equal(found, before);
    weft_format_close(f);
    weft_close(w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

/* --------------------------------------------------------------------------------------- tests */

static void test_point(void **state)
{
    const struct point *point = *state;
    switch (point->side) {
    case CLIENT:
        client_dies(point, direct);
        client_dies(point, copied);
        break;
    case COPYING_CLIENT: client_dies(point, copied); break;
    case NODE:
        node_dies(point, direct);
        node_dies(point, copied);
        break;
    case COPYING_NODE: node_dies(point, copied); break;
    case BELOW_CLIENT: client_dies_below(point); break;
    case BELOW_NODE: node_dies_below(point); break;
    case BELOW_TIER: tier_dies(point); break;
    case UNIT: break;
    }
}

static bool file_has(const char *path, const char *word)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file))
        found = strstr(line, word) != NULL;
    if (file)
        fclose(file);
    return found;
}

/* Is `name` in the table, and, if other tests see to it, in theirs? */
static bool is_tested(const char *name)
{
    for (size_t i = 0; i < POINTS; i++)
        if (strcmp(points[i].name, name) == 0) {
            char path[4096];
            snprintf(path, sizeof path, WEFT_SOURCE "/test/unit/%s",
                     points[i].unit ? points[i].unit : "");
            return points[i].side != UNIT || file_has(path, name);
        }
    return false;
}

static uint32_t scan_file(const char *path)
{
    static const char mark[] = "WF_CRASH(\"";
    char line[512];
    uint32_t count = 0;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        char *name = strstr(line, mark);
        if (!name || strstr(path, "hooks"))
            continue;
        name += sizeof mark - 1;
        name[strcspn(name, "\"")] = '\0';
        if (!is_tested(name))
            fail_msg("%s: crash point %s has no test; add it to points[] in test/crash/crash.c",
                     path, name);
        count++;
    }
    if (file)
        fclose(file);
    return count;
}

static void test_every_point_is_known(void **state)
{
    (void)state;
    static const char *const folders[] = {"base", "sys",     "shm",    "core",   "codec",
                                          "tier", "net",     "member", "client", "daemon",
                                          "gpu",  "gateway", "cli",    "fabric"};
    uint32_t found = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[4096];
        snprintf(path, sizeof path, WEFT_SOURCE "/src/%s", folders[i]);
        DIR *folder = opendir(path);
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            snprintf(path, sizeof path, WEFT_SOURCE "/src/%s/%s", folders[i], entry->d_name);
            found += scan_file(path);
        }
        if (folder)
            closedir(folder);
    }
    assert_int_equal(found, POINTS);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[POINTS + 1];
    size_t count = 0;
    if (argc == 3 && strcmp(argv[1], "work") == 0)
        return work(argv[2]);
    if (argc == 3 && strcmp(argv[1], "work-below") == 0)
        return work_below(argv[2]);
    const char *only = argc > 1 ? argv[1] : NULL;
    if (!only)
        tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_every_point_is_known);
    for (size_t i = 0; i < POINTS; i++)
        if (points[i].side != UNIT && (!only || strstr(points[i].name, only)))
            tests[count++] = (struct CMUnitTest){.name = points[i].name,
                                                 .test_func = test_point,
                                                 .initial_state = (void *)(uintptr_t)&points[i]};
    return _cmocka_run_group_tests("crash", tests, count, NULL, NULL);
}
