/* SPDX-License-Identifier: Apache-2.0
 *
 * What can happen to a tier under a node that lives: its device stalls, refuses, rots, shrinks, is
 * removed or full; and what a node may find changed when it starts again.
 *
 * In every case the node lives and says so in a sentence, what is in DRAM is served as before, what
 * cannot be had from below is a miss, and no byte is wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 524288
#define DEPTH 4
#define CHAINS 12u /* 24 MB: three times the pool */

/* One tier stalls: it holds back for HOLD_MS what it is asked for, and its timeout is TIMEOUT_MS.
 * All others have a timeout that no busy machine comes to. */
#define TIMEOUT_MS 1000
#define HOLD_MS 5000

struct world {
    struct weftd node;
    struct weft *w;
    struct weft_format *f;
    char path[128], tier[160], hold[128], hold_at[160], refuse[128], refuse_at[160];
    const char *more[3]; /* settings */
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ------------------------------------------------------------------------------------ the world */

static bool start(struct world *world)
{
    const char *const settings[] = {"pool.size=8MB",
                                    "pool.size_max=8MB",
                                    "staging=1MB",
                                    "tiers=nvme0",
                                    "tier.nvme0.size=64MB",
                                    "tier.nvme0.admit=always",
                                    world->tier,
                                    "tier.nvme0.timeout=60s",
                                    "tier.nvme0.scrub=0",
                                    world->more[0] ? world->more[0] : NULL,
                                    world->more[1] ? world->more[1] : NULL,
                                    NULL};
    const char *const variables[] = {world->hold_at, world->refuse_at, NULL};
    return weftd_start(&world->node, settings, variables);
}

static void attach(struct world *world)
{
    world->w = weftd_connect(&world->node, "default");
    world->f = world->w ? weftd_format(world->w, "faults", BLOCK_BYTES) : NULL;
    if (!world->f)
        weftd_show_log(&world->node);
    assert_non_null(world->f);
}

static void detach(struct world *world)
{
    weft_format_close(world->f);
    weft_close(world->w);
    world->f = NULL;
    world->w = NULL;
}

static void begin(struct world *world)
{
    memset(world, 0, sizeof *world);
    weftd_prepare(&world->node);
    const char *directory = world->node.directory;
    snprintf(world->path, sizeof world->path, "%s/tier", directory);
    snprintf(world->tier, sizeof world->tier, "tier.nvme0.path=%s", world->path);
    snprintf(world->hold, sizeof world->hold, "%s/hold", directory);
    snprintf(world->hold_at, sizeof world->hold_at, "WEFT_NVME_HOLD=%s", world->hold);
    snprintf(world->refuse, sizeof world->refuse, "%s/refuse", directory);
    snprintf(world->refuse_at, sizeof world->refuse_at, "WEFT_NVME_REFUSE=%s", world->refuse);
    assert_true(start(world));
    attach(world);
}

static void restart(struct world *world)
{
    detach(world);
    assert_true(weftd_stop(&world->node));
    assert_true(start(world));
    attach(world);
}

static void end(struct world *world)
{
    detach(world);
    bool well = weftd_stop(&world->node);
    if (!well)
        weftd_show_log(&world->node);
    assert_true(well);
    weftd_clean(&world->node);
}

static void say(const char *path, const char *number)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs(number, file);
    fclose(file);
}

/* Is a word in the node's events by and by? */
static bool told(const struct world *world, const char *word)
{
    return weftd_told(world->w, word, 30000);
}

/* ----------------------------------------------------------------------------------- the chains */

static void chain_keys(const struct world *world, uint64_t chain, uint32_t count,
                       struct weft_key *keys)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t name[2] = {chain, i};
        assert_int_equal(weft_key_from_bytes(world->f, name, sizeof name, &keys[i]), WEFT_OK);
    }
}

/* How many blocks of it were stored. */
static uint32_t put(const struct world *world, uint64_t chain)
{
    struct weft_key keys[DEPTH];
    struct weft_slot slots[DEPTH];
    uint32_t stored = 0;
    chain_keys(world, chain, DEPTH, keys);
    assert_int_equal(weft_reserve_keys(world->f, NULL, keys, DEPTH, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < DEPTH; i++)
        if (slots[i].status == WEFT_OK)
            payload_fill(slots[i].data, BLOCK_BYTES, keys[i].bytes);
    assert_int_equal(weft_commit_slots(world->f, slots, DEPTH), WEFT_OK);
    for (uint32_t i = 0; i < DEPTH; i++)
        stored += slots[i].status == WEFT_OK || slots[i].status == WEFT_EXISTS;
    return stored;
}

static void put_all(const struct world *world)
{
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(world, chain), DEPTH);
}

/* How many blocks of it there are; each is right. */
static uint32_t get(const struct world *world, uint64_t chain)
{
    struct weft_key keys[DEPTH];
    struct weft_pins pins;
    uint32_t found = 0;
    chain_keys(world, chain, DEPTH, keys);
    assert_int_equal(weft_get_keys(world->f, keys, DEPTH, WEFT_LAYER_ORDER, &pins), WEFT_OK);
    enum weft_status status = WEFT_OK;
    for (; found < pins.blocks && status == WEFT_OK; found += status == WEFT_OK) {
        status = weft_wait_block(&pins, found);
        assert_true(status == WEFT_OK || status == WEFT_MISS);
        if (status == WEFT_OK)
            assert_true(payload_right(pins.data[found], BLOCK_BYTES, keys[found].bytes));
    }
    weft_pins_release(&pins);
    return found;
}

static uint32_t get_all(const struct world *world)
{
    uint32_t found = 0;
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        found += get(world, chain);
    return found;
}

/* All that is only in DRAM goes below; then only the last chains are in DRAM. */
static void all_below(const struct world *world)
{
    put_all(world);
    assert_int_equal(get_all(world), CHAINS * DEPTH);
    assert_int_equal(get_all(world), CHAINS * DEPTH);
}

/* The node serves what it has, and stores what is put. */
static void lives_on(const struct world *world)
{
    assert_int_equal(put(world, 1000), DEPTH);
    assert_int_equal(get(world, 1000), DEPTH);
}

/* ----------------------------------------------------------------------------------- the device */

struct bystander {
    const struct world *world;
    _Atomic bool stop;
    uint64_t gets, slowest_ms;
};

/* Another client, of a chain that is in DRAM. */
static void *look_on(void *context)
{
    struct bystander *b = context;
    struct world own = *b->world;
    attach(&own);
    while (!atomic_load(&b->stop)) {
        uint64_t begun = now_ms();
        assert_int_equal(get(&own, 1000), DEPTH);
        uint64_t took = now_ms() - begun;
        b->slowest_ms = took > b->slowest_ms ? took : b->slowest_ms;
        b->gets++;
    }
    detach(&own);
    return NULL;
}

static void test_stalled(void **state)
{
    (void)state;
    struct world world;
    struct weft_key keys[DEPTH];
    struct weft_pins pins;
    pthread_t thread;
    char number[16];
    begin(&world);
    all_below(&world);
    world.more[0] = "tier.nvme0.timeout=1s"; /* TIMEOUT_MS */
    restart(&world);
    assert_true(told(&world, "tier_open"));
    lives_on(&world);
    struct bystander bystander = {.world = &world};
    assert_int_equal(pthread_create(&thread, NULL, look_on, &bystander), 0);
    snprintf(number, sizeof number, "%d", HOLD_MS);
    say(world.hold, number);
    chain_keys(&world, 0, DEPTH, keys);
    uint64_t begun = now_ms();
    assert_int_equal(weft_get_keys(world.f, keys, DEPTH, WEFT_LAYER_ORDER, &pins), WEFT_OK);
    assert_true(pins.loading < pins.blocks);
    assert_int_equal(weft_wait_layer(&pins, 0), WEFT_MISS);
    uint64_t took = now_ms() - begun;
    weft_pins_release(&pins);
    assert_true(took >= TIMEOUT_MS && took < HOLD_MS);
    assert_true(told(&world, "is stalled"));
    assert_true(told(&world, "\"late\""));
    /* Nor does anyone else wait for the device. */
    begun = now_ms();
    uint32_t found = get(&world, 1);
    assert_true(found < DEPTH && now_ms() - begun < HOLD_MS);
    assert_int_equal(unlink(world.hold), 0);
    for (int waited = 0; found < DEPTH && waited < 10000; waited += 50) {
        weftd_sleep_ms(50);
        found = get(&world, 1);
    }
    assert_int_equal(found, DEPTH);
    atomic_store(&bystander.stop, true);
    pthread_join(thread, NULL);
    print_message(
        "# a miss after %llu ms; %llu gets from DRAM meanwhile, the slowest took %llu ms\n",
        (unsigned long long)took, (unsigned long long)bystander.gets,
        (unsigned long long)bystander.slowest_ms);
    assert_true(bystander.gets > 10 && bystander.slowest_ms < TIMEOUT_MS);
    for (int waited = 0; found < CHAINS * DEPTH && waited < 10000; waited += 50) {
        found = get_all(&world); /* more than once, if the machine is as slow as such a device */
        weftd_sleep_ms(50);
    }
    assert_int_equal(found, CHAINS * DEPTH);
    assert_true(weftd_settles(world.w, "default", "blocks_reserved", 0));
    end(&world);
}

static void test_gone_and_back(void **state)
{
    (void)state;
    struct world world;
    begin(&world);
    all_below(&world);
    lives_on(&world);
    char number[16];
    snprintf(number, sizeof number, "%d", ENODEV);
    say(world.refuse, number);
    uint32_t found = get_all(&world);
    assert_true(found < CHAINS * DEPTH);
    for (int i = 0; i < 8; i++)
        (void)get(&world, (uint64_t)i);
    assert_true(told(&world, "is failed"));
    lives_on(&world);
    assert_int_equal(unlink(world.refuse), 0);
    for (int waited = 0; found < CHAINS * DEPTH && waited < 20000; waited += 100) {
        weftd_sleep_ms(100);
        found = get_all(&world);
    }
    assert_int_equal(found, CHAINS * DEPTH);
    end(&world);
}

/* A bit of every 4 KiB of what blocks lie in. */
static void rot(const struct world *world)
{
    struct stat info = {.st_size = 0};
    uint8_t page[4096];
    int fd = open(world->path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &info) == 0);
    for (off_t at = 1 << 20; at + 4096 <= info.st_size; at += 4096) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            break;
        at = data / 4096 * 4096;
        assert_int_equal(pread(fd, page, sizeof page, at), sizeof page);
        page[at / 4096 % 4096] ^= 4;
        assert_int_equal(pwrite(fd, page, sizeof page, at), sizeof page);
    }
    fsync(fd);
    close(fd);
}

static void test_rot(void **state)
{
    (void)state;
    struct world world;
    begin(&world);
    all_below(&world);
    rot(&world);
    uint32_t found = get_all(&world);
    print_message("# %u of %u blocks after every page had rotted\n", found, CHAINS * DEPTH);
    assert_true(found <= 8388608 / BLOCK_BYTES); /* what was in DRAM */
    assert_true(told(&world, "\"corrupt\""));
    /* What is put again is stored again; that a copy of what was in DRAM has rotted shows later. */
    for (int tries = 0; found < CHAINS * DEPTH && tries < 3; tries++) {
        put_all(&world);
        (void)get_all(&world);
        found = get_all(&world);
    }
    assert_int_equal(found, CHAINS * DEPTH);
    end(&world);
}

static void test_file_damaged(void **state)
{
    (void)state;
    struct world world;
    begin(&world);
    all_below(&world);
    lives_on(&world);
    assert_int_equal(chmod(world.path, 0), 0);
    assert_int_equal(get_all(&world), CHAINS * DEPTH);
    assert_int_equal(truncate(world.path, 3 << 20), 0);
    assert_true(get_all(&world) < CHAINS * DEPTH);
    lives_on(&world);
    assert_int_equal(unlink(world.path), 0);
    (void)get_all(&world);
    lives_on(&world);
    end(&world);
}

static void test_full(void **state)
{
    (void)state;
    struct world world;
    char mount_at[128];
    memset(&world, 0, sizeof world);
    weftd_prepare(&world.node);
    snprintf(mount_at, sizeof mount_at, "%s/small", world.node.directory);
    assert_int_equal(mkdir(mount_at, 0700), 0);
    if (mount("none", mount_at, "tmpfs", 0, "size=20m") != 0) {
        print_message("# no right to mount a small file system: a full one was not tried\n");
        weftd_clean(&world.node);
        skip();
    }
    snprintf(world.tier, sizeof world.tier, "tier.nvme0.path=%s/tier", mount_at);
    snprintf(world.hold_at, sizeof world.hold_at, "WEFT_NVME_HOLD=%s/hold", world.node.directory);
    snprintf(world.refuse_at, sizeof world.refuse_at, "WEFT_NVME_REFUSE=%s/refuse",
             world.node.directory);
    bool started = start(&world);
    if (started) {
        attach(&world);
        for (uint64_t chain = 0; chain < 2 * CHAINS; chain++)
            (void)put(&world, chain);
        (void)get_all(&world);
        lives_on(&world);
        detach(&world);
    }
    bool well = started && weftd_stop(&world.node);
    umount2(mount_at, MNT_DETACH);
    if (!well)
        weftd_show_log(&world.node);
    assert_true(well);
    weftd_clean(&world.node);
}

/* ------------------------------------------------------------------------------- the next start */

static void test_long_chain(void **state)
{
    (void)state;
    struct world world;
    struct weft_key keys[40];
    struct weft_pins pins;
    begin(&world);
    chain_keys(&world, 7, 40, keys); /* 20 MB: more than the pool */
    for (uint32_t i = 0; i < 40; i++) {
        struct weft_slot slot;
        assert_int_equal(weft_reserve_keys(world.f, i ? &keys[i - 1] : NULL, &keys[i], 1, 0, &slot),
                         WEFT_OK);
        assert_true(slot.status == WEFT_OK || (slot.status == WEFT_FULL && i > 8));
        if (slot.status == WEFT_FULL)
            break; /* what a block extends is in DRAM as long as it is: so much, and no more */
        payload_fill(slot.data, BLOCK_BYTES, keys[i].bytes);
        assert_int_equal(weft_commit_slots(world.f, &slot, 1), WEFT_OK);
    }
    for (int look = 0; look < 3; look++) {
        size_t present = 0;
        assert_int_equal(weft_match_keys(world.f, keys, 40, &present), WEFT_OK);
        assert_true(present > 0);
        assert_int_equal(weft_get_keys(world.f, keys, present, WEFT_LAYER_ORDER, &pins), WEFT_OK);
        assert_true(pins.blocks > 0 && pins.blocks <= 16);
        for (uint32_t i = 0; i < pins.blocks; i++) {
            assert_int_equal(weft_wait_block(&pins, i), WEFT_OK);
            assert_true(payload_right(pins.data[i], BLOCK_BYTES, keys[i].bytes));
        }
        weft_pins_release(&pins);
    }
    lives_on(&world);
    end(&world);
}

static void test_starts_otherwise(void **state)
{
    (void)state;
    struct world world;
    begin(&world);
    all_below(&world);
    world.more[0] = "limits.below=1024"; /* fewer than it may be, as many as there are */
    restart(&world);
    assert_true(told(&world, "tier_open"));
    assert_int_equal(get_all(&world), CHAINS * DEPTH);
    world.more[0] = "tier.nvme0.size=16MB"; /* it cannot shrink: out of use, and said so */
    restart(&world);
    assert_true(told(&world, "cannot shrink"));
    assert_int_equal(get_all(&world), 0);
    lives_on(&world);
    world.more[0] = NULL;
    detach(&world);
    assert_true(weftd_stop(&world.node));
    FILE *secret = fopen(world.node.secret, "we");
    assert_non_null(secret);
    fputs("another secret, of more than thirty-two bytes, for tests alone", secret);
    fclose(secret);
    assert_true(start(&world));
    attach(&world);
    assert_true(told(&world, "tier_open"));
    assert_int_equal(get_all(&world), 0);
    lives_on(&world);
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stalled),
        cmocka_unit_test(test_gone_and_back),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_file_damaged),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_long_chain),
        cmocka_unit_test(test_starts_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
