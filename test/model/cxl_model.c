/* SPDX-License-Identifier: Apache-2.0
 *
 * The CXL tier's own code on memory whose caches nobody keeps coherent (test/support/caches.h): two
 * hosts publish, take back, claim extents, and read each other's blocks, each in the middle of what
 * the other does; and the power fails in the middle of either.  Real hardware and emulators are too
 * kind to show a missing write-back, fence or invalidation.  Here each of them is left out in turn,
 * and something must be found wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/caches.h"
#include "sys/lines.h"
#include "tier/cxl.h"
#include "tier/cxl_share.h"
#include "tier/cxl_volume.h"

#define HOSTS 2u
#define KEYS 24u /* of each host */
#define BYTES_MAX (400u << 10)
#define STEPS 120u
#define IMAGES_MAX 6u

static const struct wf_tier_ops *const ops = &wf_tier_cxl;

struct key {
    bool there;    /* found by its owner */
    bool in_doubt; /* being written or removed: a crash may leave it either way */
};

static struct world {
    struct wf_tier *tier[HOSTS + 1];
    struct wf_cxl_share *share[HOSTS + 1];
    struct key keys[HOSTS + 1][KEYS];
    struct random_source random;
    bool busy[HOSTS + 1]; /* in the middle of something */
    bool unchecked;       /* a mutation of ours: views are used without a second look */
    uint32_t images;
    const char *wrong; /* what was found first */
    uint64_t claims, reads, overtaken, crashes, verified;
} w;

static uint8_t *payload, *image;
/* What a host reads comes into: its own, as the other reads in the middle of that; and 0 is for
 * what is read after a power failure, in the middle of either. */
static uint8_t *room[HOSTS + 1];
static char image_path[80]; /* what `image` is a mapping of */

static void wrong(const char *what)
{
    if (!w.wrong)
        w.wrong = what;
}

static struct wf_tier_block block_of(uint32_t host, uint32_t key)
{
    struct wf_tier_block block = {.part_bytes = 20000};
    struct random_source r = {host * 1000ull + key};
    block.bytes = 1 + random_below(&r, key % 4 ? 30000 : BYTES_MAX);
    random_key(host * 1000ull + key, block.key);
    return block;
}

static uint8_t *payload_of(uint32_t host, uint32_t key)
{
    struct random_source r = {host * 77777ull + key};
    for (size_t at = 0; at < BYTES_MAX; at += 8) {
        uint64_t word = random_next(&r);
        memcpy(payload + at, &word, 8);
    }
    return payload;
}

static void open_host(uint32_t host)
{
    char path[100];
    caches_path(host, path, sizeof path);
    struct wf_tier_options options = {.path = path,
                                      .queue_depth = 4,
                                      .shared = true,
                                      .host = (uint8_t)host};
    w.tier[host] = NULL;
    enum weft_status status = ops->open(&options, &w.tier[host]);
    if (status == WEFT_OK)
        status = wf_cxl_share_create(w.tier[host], &w.share[host]);
    if (status != WEFT_OK) {
        print_message("%s\n", wf_last_error());
        wrong("a host cannot open the device");
    }
    for (uint32_t k = 0; k < KEYS && status == WEFT_OK; k++) {
        struct wf_tier_block block = block_of(host, k);
        bool found = ops->find(w.tier[host], block.key, NULL);
        if (w.keys[host][k].there && !w.keys[host][k].in_doubt && !found)
            wrong("a published block is lost by a crash");
        w.keys[host][k] = (struct key){.there = found};
    }
}

static enum weft_status perform(uint32_t host, struct wf_tier_request *r)
{
    struct wf_tier_request *out;
    enum weft_status status = ops->submit(w.tier[host], r);
    /* Where the other holds the lock and we are called in the middle of that, waiting is no use. */
    for (int tries = 0; status == WEFT_OK; tries++) {
        if (ops->reap(w.tier[host], &out, 1, 0) == 1)
            return out->status;
        if (tries == 3)
            ops->cancel(w.tier[host], r);
    }
    return status;
}

/* The extents that a host believes to be its own are nobody else's. */
static void look_at_owners(void)
{
    const struct wf_cxl *one = (const struct wf_cxl *)(uintptr_t)w.tier[1];
    const struct wf_cxl *other = (const struct wf_cxl *)(uintptr_t)w.tier[2];
    for (uint64_t e = 0; one && other && e < one->extents && e < other->extents; e++)
        if (one->words[e] && other->words[e])
            wrong("two hosts own one extent");
}

static void write_one(uint32_t host, uint32_t k)
{
    struct wf_tier_request r = {.op = WF_TIER_WRITE, .block = block_of(host, k)};
    uint64_t before = ((struct wf_cxl *)(uintptr_t)w.tier[host])->owned;
    uint8_t *copy = aligned_alloc(WF_TIER_ALIGN, BYTES_MAX);
    memcpy(copy, payload_of(host, k), BYTES_MAX);
    r.data = copy;
    w.keys[host][k].in_doubt = true;
    enum weft_status status = perform(host, &r);
    w.claims += ((struct wf_cxl *)(uintptr_t)w.tier[host])->owned != before;
    w.keys[host][k] = (struct key){.there = status == WEFT_OK};
    if (status != WEFT_OK && status != WEFT_FULL && status != WEFT_E_TIMEOUT)
        wrong("a write failed");
    free(copy);
    look_at_owners();
}

static void remove_one(uint32_t host, uint32_t k)
{
    struct wf_tier_block block = block_of(host, k);
    w.keys[host][k].in_doubt = true;
    if (ops->remove(w.tier[host], block.key) != WEFT_OK)
        wrong("a block is not found by its owner");
    w.keys[host][k] = (struct key){0};
}

static void change_one(uint32_t host)
{
    uint32_t k = random_below(&w.random, KEYS);
    if (w.busy[host] || !w.tier[host])
        return;
    w.busy[host] = true;
    if (w.keys[host][k].there)
        remove_one(host, k);
    else
        write_one(host, k);
    w.busy[host] = false;
}

/* Find a block of the other, let the other go on, use it, look again. */
static void read_one(uint32_t host, bool disturbed)
{
    uint32_t other = HOSTS + 1 - host, k = random_below(&w.random, KEYS);
    struct wf_tier_block block = block_of(other, k);
    struct wf_cxl_view view;
    if (w.busy[host] || !w.tier[host])
        return;
    w.busy[host] = true;
    if (wf_cxl_share_refresh(w.share[host], 0) != WEFT_OK)
        wrong("a refresh failed");
    enum weft_status status = wf_cxl_share_find(w.share[host], block.key, &view);
    if (status != WEFT_OK && status != WEFT_MISS)
        wrong("a sound block is said to be corrupt");
    if (!disturbed && (status == WEFT_OK) != w.keys[other][k].there)
        wrong(status == WEFT_OK ? "a block that was taken back is found"
                                : "a published block is not found by the other host");
    if (status == WEFT_OK) {
        for (int i = 0; disturbed && i < 6; i++)
            change_one(other);
        caches_evict_some(view.data, block.bytes);
        memcpy(room[host], view.data, block.bytes);
        status = w.unchecked ? WEFT_OK : wf_cxl_share_check(w.share[host], &view);
        w.overtaken += status == WEFT_MISS;
        w.reads += status == WEFT_OK;
        if (status == WEFT_OK && memcmp(room[host], payload_of(other, k), block.bytes) != 0)
            wrong("bytes were accepted that are not the block's");
    }
    w.busy[host] = false;
}

static void read_own(uint32_t host, struct wf_tier *tier, uint32_t k)
{
    struct wf_tier_block block = block_of(host, k);
    struct wf_tier_request r = {.op = WF_TIER_READ, .data = room[0], .block = block}, *out;
    bool found = ops->find(tier, block.key, NULL);
    if (w.keys[host][k].there && !w.keys[host][k].in_doubt && !found)
        wrong("a published block is lost when the power fails");
    if (!found || ops->submit(tier, &r) != WEFT_OK)
        return;
    while (ops->reap(tier, &out, 1, 0) == 0)
        ;
    if (r.status != WEFT_OK || memcmp(r.data, payload_of(host, k), block.bytes) != 0)
        wrong("a torn block is found after the power failed");
    w.verified++;
}

/* The power fails now: what would each host find, one after the other? */
static void fail_power(void)
{
    caches_image(image);
    w.images++;
    for (uint32_t host = 1; host <= HOSTS; host++) {
        struct wf_tier_options options = {.path = image_path,
                                          .queue_depth = 4,
                                          .shared = true,
                                          .host = (uint8_t)host};
        struct wf_tier *tier = NULL;
        if (ops->open(&options, &tier) != WEFT_OK) {
            wrong("the device cannot be opened after the power failed");
            return;
        }
        for (uint32_t k = 0; k < KEYS; k++)
            read_own(host, tier, k);
        ops->close(tier);
    }
}

/* In the middle of something, after a line was forced. */
static void event(void)
{
    if (w.wrong)
        return;
    uint32_t chance = random_below(&w.random, 4096);
    if (chance < 24)
        change_one(1 + random_below(&w.random, HOSTS));
    else if (chance < 30)
        read_one(1 + random_below(&w.random, HOSTS), true);
    else if (w.images < IMAGES_MAX && chance < (caches.is_commit ? 1000u : 34u))
        fail_power();
}

static void crash_one(uint32_t host)
{
    w.crashes++;
    caches_lose(host);
    wf_cxl_share_destroy(w.share[host]);
    wf_tier_cxl_crash(w.tier[host]);
    w.tier[host] = NULL;
    open_host(host);
}

static void step(void)
{
    uint32_t host = 1 + random_below(&w.random, HOSTS), what = random_below(&w.random, 40);
    caches.event = event;
    if (what < 22) {
        change_one(host);
    } else if (what < 28) {
        read_one(host, true);
    } else if (what < 39) {
        caches.event = NULL;
        read_one(host, false);
    } else {
        caches.event = NULL;
        crash_one(host);
    }
}

struct mutation {
    const char *name;
    enum caches_force deaf;
    enum caches_part part;
    bool unchecked;
};

/* What was found wrong; NULL: nothing. */
static const char *run(uint64_t seed, const struct mutation *m)
{
    memset(&w, 0, sizeof w);
    w.random.state = seed;
    w.unchecked = m->unchecked;
    caches_start(seed);
    for (uint32_t host = 1; host <= HOSTS; host++)
        open_host(host);
    caches.deaf = m->deaf;
    caches.deaf_part = m->part;
    for (uint32_t i = 0; i < STEPS && !w.wrong; i++)
        step();
    caches.event = NULL;
    for (uint32_t host = 1; host <= HOSTS; host++) {
        wf_cxl_share_destroy(w.share[host]);
        if (w.tier[host])
            ops->close(w.tier[host]);
        caches_closed(host);
    }
    caches_end();
    return w.wrong;
}

/* ---- tests */

static void test_the_rules_hold(void **state)
{
    (void)state;
    struct random_source seeds = random_seeded("cxl_model");
    static const struct mutation none = {"none", FORCE_NONE, PARTS, false};
    uint64_t claims = 0, reads = 0, overtaken = 0, crashes = 0, verified = 0, images = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t seed = random_next(&seeds);
        const char *what = run(seed, &none);
        if (what)
            fail_msg("%s (run %d, seed 0x%llx)", what, i, (unsigned long long)seed);
        claims += w.claims, reads += w.reads, overtaken += w.overtaken;
        crashes += w.crashes, verified += w.verified, images += w.images;
    }
    print_message(
        "%llu claims, %llu blocks read in place, %llu overtaken, %llu crashes, %llu power "
        "failures, %llu blocks verified after them\n",
        (unsigned long long)claims, (unsigned long long)reads, (unsigned long long)overtaken,
        (unsigned long long)crashes, (unsigned long long)images, (unsigned long long)verified);
    /* A model that meets nothing shows nothing. */
    assert_true(claims > 10 && reads > 80 && overtaken > 3 && crashes > 3 && verified > 80);
}

static const struct mutation mutations[] = {
    {"a view is used without a second look", FORCE_NONE, PARTS, true},
    {"fences are left out", FORCE_FENCE, PARTS, false},
    {"no fence between a block and its word", FORCE_STREAM_FENCE, PARTS, false},
    {"directory words are not written back", FORCE_WRITE_BACK, PART_DIRECTORIES, false},
    {"lines of extents are not written back", FORCE_WRITE_BACK, PART_TABLE, false},
    {"rows of hosts are not written back", FORCE_WRITE_BACK, PART_ROWS, false},
    {"directory words are not invalidated", FORCE_INVALIDATE, PART_DIRECTORIES, false},
    {"lines of extents are not invalidated", FORCE_INVALIDATE, PART_TABLE, false},
    {"rows of hosts are not invalidated", FORCE_INVALIDATE, PART_ROWS, false},
    {"headers and payload are not invalidated", FORCE_INVALIDATE, PART_DATA, false},
};

static void test_every_rule_is_needed(void **state)
{
    (void)state;
    struct random_source seeds = random_seeded("cxl_model");
    for (size_t i = 0; i < sizeof mutations / sizeof mutations[0]; i++) {
        const char *what = NULL;
        int runs = 0;
        while (!what && runs++ < 60)
            what = run(random_next(&seeds), &mutations[i]);
        print_message("%-44s run %2d: %s\n", mutations[i].name, runs, what ? what : "not caught");
        if (!what)
            fail_msg("'%s' is not caught", mutations[i].name);
    }
}

static int setup(void **state)
{
    (void)state;
    payload = malloc(BYTES_MAX + 8);
    bool rooms = true;
    for (uint32_t host = 0; host <= HOSTS; host++) {
        room[host] = aligned_alloc(WF_TIER_ALIGN, (BYTES_MAX + 4096u) / 4096u * 4096u);
        rooms &= room[host] != NULL;
    }
    snprintf(image_path, sizeof image_path, "file-emulation:%s/weft-image-%d",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp", (int)getpid());
    int fd = open(image_path + strlen("file-emulation:"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)CACHES_BYTES) != 0)
        return 1;
    image = mmap(NULL, CACHES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return !payload || !rooms || image == MAP_FAILED;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(image_path + strlen("file-emulation:"));
    free(payload);
    for (uint32_t host = 0; host <= HOSTS; host++)
        free(room[host]);
    munmap(image, CACHES_BYTES);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_rules_hold),
        cmocka_unit_test(test_every_rule_is_needed),
    };
    return cmocka_run_group_tests_name("cxl_model", tests, setup, teardown);
}
