/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client can do to memory that it shares with the node, and what it can learn of others.
 *
 * A client of a `writes: copied` domain maps pool and index, and may harm neither; it writes into
 * its staging memory and its pin table, and may write there whatever it likes, whenever it likes.
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
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/raw.h"

#define BLOCK_BYTES 65536
#define NOBODY_UID 65534

static const char *const settings[] = {
    "pool.size=8MB",          "pool.size_max=8MB",     "staging=1MB",
    "limits.pins=1024",       "domains=default,guest", "domain.guest.writes=copied",
    "domain.guest.allow=any", "socket_mode=0666",      NULL,
};

struct stage {
    struct weftd node;
    struct weft *w, *guest;
    struct weft_format *f, *guest_format;
};

static int before(void **state)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    weftd_run(&s.node, settings);
    s.w = weftd_connect(&s.node, "default");
    s.guest = weftd_connect(&s.node, "guest");
    assert_non_null(s.w);
    assert_non_null(s.guest);
    s.f = weftd_format(s.w, "isolation", BLOCK_BYTES);
    s.guest_format = weftd_format(s.guest, "isolation", BLOCK_BYTES);
    assert_non_null(s.f);
    assert_non_null(s.guest_format);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    assert_true(weftd_settles(s->w, NULL, "clients", 2));
    assert_int_equal(weftd_number(s->w, "guest", "blocks_reserved"), 0);
    assert_int_equal(weftd_number(s->w, "default", "blocks_reserved"), 0);
    weft_format_close(s->f);
    weft_format_close(s->guest_format);
    weft_close(s->w);
    weft_close(s->guest);
    bool ended = weftd_stop(&s->node);
    if (!ended)
        weftd_show_log(&s->node);
    weftd_clean(&s->node);
    return ended ? 0 : 1;
}

static enum weft_status put(struct weft_format *f, uint64_t number)
{
    struct weft_key key;
    struct weft_slot slot;
    random_key(number, key.bytes);
    enum weft_status status = weft_reserve_keys(f, NULL, &key, 1, 0, &slot);
    if (status != WEFT_OK || slot.status != WEFT_OK)
        return status == WEFT_OK ? slot.status : status;
    payload_fill(slot.data, BLOCK_BYTES, key.bytes);
    status = weft_commit_slots(f, &slot, 1);
    return status == WEFT_OK ? slot.status : status;
}

/* -------------------------------------------------------------------------------------- staging */

struct staged {
    uint8_t *memory;
    uint32_t format;
    struct raw raw;
};

static void staged_open(struct staged *g, struct stage *s)
{
    assert_int_equal(raw_hello(&g->raw, &s->node, "guest"), WEFT_OK);
    assert_int_equal(g->raw.segment_count, 4);
    g->memory = mmap(NULL, g->raw.staging_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                     g->raw.segments[3], 0);
    assert_ptr_not_equal(g->memory, MAP_FAILED);
    g->format = raw_format(&g->raw, "isolation", BLOCK_BYTES);
}

static void staged_close(struct staged *g)
{
    munmap(g->memory, g->raw.staging_bytes);
    raw_close(&g->raw);
}

/* Reserve one block and commit it with this place and checksum; the block's status. */
static int32_t commit_from(struct staged *g, uint64_t number, uint64_t place, uint64_t checksum)
{
    union raw_commit commit = {.head = {.count = 1}};
    assert_int_equal(raw_reserve(&g->raw, g->format, number, 1), WEFT_OK);
    struct wf_reserved slot = g->raw.answer.reserve.blocks[0];
    assert_int_equal(slot.status, WEFT_OK);
    commit.head.blocks[0] = (struct wf_commit_block){.slot = slot.slot,
                                                     .generation = slot.generation,
                                                     .staging = place,
                                                     .checksum = checksum};
    assert_int_equal(raw_ask(&g->raw, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)), WEFT_OK);
    return g->raw.answer.commit.status[0];
}

static bool present(struct stage *s, uint64_t number)
{
    struct weft_key key;
    struct weft_pin pin;
    random_key(number, key.bytes);
    enum weft_status status = weft_pin(s->guest_format, &key, &pin);
    if (status == WEFT_OK)
        weft_unpin(&pin);
    return status == WEFT_OK;
}

static void test_staging_places(void **state)
{
    struct stage *s = *state;
    struct staged g;
    staged_open(&g, s);
    uint64_t end = g.raw.staging_bytes;
    const uint64_t outside[] = {
        end - BLOCK_BYTES + 1, end, end + 1, UINT64_MAX, UINT64_MAX - BLOCK_BYTES + 1,
        (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        assert_int_equal(commit_from(&g, 100 + i, outside[i], 0), WEFT_E_INVALID);
        assert_false(present(s, 100 + i));
    }
    memset(g.memory, 7, end);
    uint64_t checksum = XXH3_64bits(g.memory, BLOCK_BYTES);
    assert_int_equal(commit_from(&g, 200, end - BLOCK_BYTES, checksum), WEFT_OK);
    assert_int_equal(commit_from(&g, 201, 0, checksum), WEFT_OK);
    assert_int_equal(commit_from(&g, 202, 1, checksum), WEFT_OK); /* any place will do */
    assert_int_equal(commit_from(&g, 203, 0, checksum + 1), WEFT_E_CORRUPT);
    assert_int_equal(commit_from(&g, 204, 0, 0), WEFT_E_CORRUPT);
    assert_true(present(s, 200) && present(s, 201) && present(s, 202));
    assert_false(present(s, 203) || present(s, 204));
    assert_int_equal(weftd_number(s->w, "guest", "blocks_reserved"), 0);
    staged_close(&g);
}

/* The same slot twice in one commit, with two contents: it must not end as one block with the bytes
 * of one and the checksum of the other. */
static void test_slot_named_twice(void **state)
{
    struct stage *s = *state;
    struct staged g;
    union raw_commit commit = {.head = {.count = 2}};
    staged_open(&g, s);
    memset(g.memory, 1, BLOCK_BYTES);
    memset(g.memory + BLOCK_BYTES, 2, BLOCK_BYTES);
    assert_int_equal(raw_reserve(&g.raw, g.format, 1, 1), WEFT_OK);
    struct wf_reserved slot = g.raw.answer.reserve.blocks[0];
    for (uint32_t i = 0; i < 2; i++)
        commit.head.blocks[i] = (struct wf_commit_block){
            .slot = slot.slot,
            .generation = slot.generation,
            .staging = i * (uint64_t)BLOCK_BYTES,
            .checksum = XXH3_64bits(g.memory + i * (size_t)BLOCK_BYTES, BLOCK_BYTES)};
    assert_int_equal(raw_ask(&g.raw, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(2)), WEFT_OK);
    struct weft_key key;
    struct weft_pin pin;
    static uint8_t copy[BLOCK_BYTES];
    random_key(1, key.bytes);
    if (weft_pin(s->guest_format, &key, &pin) == WEFT_OK) {
        assert_int_equal(weft_pin_read(&pin, copy, sizeof copy), WEFT_OK);
        weft_unpin(&pin);
    }
    staged_close(&g);
}

struct scribbler {
    uint8_t *memory;
    _Atomic bool stop;
};

static void *scribble(void *context)
{
    struct scribbler *scribbler = context;
    struct random_source r = {1};
    while (!atomic_load(&scribbler->stop))
        __atomic_fetch_xor(&scribbler->memory[random_below(&r, BLOCK_BYTES)], 0x55,
                           __ATOMIC_RELAXED);
    return NULL;
}

/* Bytes that change while they are copied: what is stored is what its checksum says, or nothing. */
static void test_staging_changes_under_the_copy(void **state)
{
    struct stage *s = *state;
    struct staged g;
    static uint8_t copy[BLOCK_BYTES];
    pthread_t thread;
    staged_open(&g, s);
    struct scribbler scribbler = {.memory = g.memory};
    uint32_t stored = 0, refused = 0;
    assert_int_equal(pthread_create(&thread, NULL, scribble, &scribbler), 0);
    for (uint64_t number = 1; number <= 150 || (refused == 0 && number < 20000); number++) {
        for (size_t at = 0; at < BLOCK_BYTES; at++)
            copy[at] = __atomic_load_n(&g.memory[at], __ATOMIC_RELAXED);
        int32_t status = commit_from(&g, number, 0, XXH3_64bits(copy, BLOCK_BYTES));
        assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
        assert_int_equal(present(s, number), status == WEFT_OK);
        stored += status == WEFT_OK;
        refused += status == WEFT_E_CORRUPT;
        struct weft_key key;
        struct weft_pin pin;
        random_key(number, key.bytes);
        if (status == WEFT_OK && weft_pin(s->guest_format, &key, &pin) == WEFT_OK) {
            assert_int_equal(XXH3_64bits(pin.data, BLOCK_BYTES), pin.checksum);
            weft_unpin(&pin);
        }
    }
    atomic_store(&scribbler.stop, true);
    pthread_join(thread, NULL);
    print_message("# %u stored, %u refused\n", stored, refused);
    assert_true(refused > 0);
    staged_close(&g);
}

/* ----------------------------------------------------------------------------------------- pins */

/* A client that fills its pin table with noise harms its own pins at most: others put, evict and
 * read on, and with it goes all that the noise happened to hold. */
static void test_scribbled_pins(void **state)
{
    struct stage *s = *state;
    struct random_source r = random_seeded("scribbled pins");
    struct raw raw;
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    uint64_t *table = mmap(NULL, raw.pins_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                           raw.segments[2], 0);
    assert_ptr_not_equal(table, MAP_FAILED);
    for (uint64_t round = 0; round < 30; round++) {
        for (uint64_t i = 0; i < raw.pins_bytes / 8; i++)
            __atomic_store_n(&table[i], random_next(&r) & (round % 2 ? 0x1ff : UINT64_MAX),
                             __ATOMIC_RELAXED);
        for (uint64_t n = 0; n < 10; n++) {
            enum weft_status status = put(s->f, 1000 * round + n);
            assert_true(status == WEFT_OK || status == WEFT_FULL);
        }
        assert_true(weftd_number(s->w, "default", "blocks") >= 0);
    }
    munmap(table, raw.pins_bytes);
    raw_close(&raw);
    assert_true(weftd_settles(s->w, NULL, "clients", 2));
    for (uint64_t n = 0; n < 300; n++)
        assert_int_equal(put(s->f, 100000 + n), WEFT_OK);
}

/* ------------------------------------------------------------------------------------- mappings */

static bool writable(int fd, uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return false;
    munmap(memory, bytes);
    return true;
}

static bool can_be_made_writable(int fd, uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return true; /* not what was promised */
    bool made = mprotect(memory, bytes, PROT_READ | PROT_WRITE) == 0;
    munmap(memory, bytes);
    return made;
}

/* Through /proc a descriptor can be opened again, with the rights that the file gives. */
static bool can_be_reopened(int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0)
        close(again);
    return again >= 0;
}

static void check_readonly(const struct raw *raw, size_t segment, uint64_t bytes)
{
    int fd = raw->segments[segment];
    assert_false(writable(fd, bytes));
    assert_false(can_be_made_writable(fd, bytes));
    assert_int_not_equal(ftruncate(fd, 4096), 0);
    assert_int_not_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    assert_int_equal(write(fd, "x", 1), -1);
}

static void test_what_cannot_be_written(void **state)
{
    struct stage *s = *state;
    struct raw raw;
    assert_int_equal(raw_hello(&raw, &s->node, "guest"), WEFT_OK);
    check_readonly(&raw, 0, raw.index_bytes);
    check_readonly(&raw, 1, raw.pool_bytes);
    raw_close(&raw);
    assert_int_equal(raw_hello(&raw, &s->node, "default"), WEFT_OK);
    check_readonly(&raw, 0, raw.index_bytes);
    assert_true(writable(raw.segments[1], raw.pool_bytes)); /* `writes: direct` */
    for (size_t i = 0; i < raw.segment_count; i++) {        /* and nobody cuts anything off */
        assert_int_not_equal(ftruncate(raw.segments[i], 0), 0);
        assert_int_not_equal(ftruncate(raw.segments[i], (off_t)1 << 40), 0);
    }
    raw_close(&raw);
}

/* --------------------------------------------------------------------------------- another user */

/* Run `body` as another user in a process of its own; 0 when all was well, else the line. */
static int as_nobody(int (*body)(const struct stage *s), const struct stage *s)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (setresgid(NOBODY_UID, NOBODY_UID, NOBODY_UID) != 0 ||
            setresuid(NOBODY_UID, NOBODY_UID, NOBODY_UID) != 0)
            _exit(255);
        _exit(body(s) & 0xff);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define DEMAND(condition)                                             \
    do {                                                              \
        if (!(condition)) {                                           \
            fprintf(stderr, "# line %d: %s\n", __LINE__, #condition); \
            return 1;                                                 \
        }                                                             \
    } while (0)

static int reopen_as_nobody(const struct stage *s)
{
    struct raw raw;
    struct wf_region_open open = {.name = "shared"};
    DEMAND(raw_hello(&raw, &s->node, "guest") == WEFT_OK);
    DEMAND(!can_be_reopened(raw.segments[0]));
    DEMAND(!can_be_reopened(raw.segments[1]));
    DEMAND(raw_ask(&raw, &open, WF_OP_REGION_OPEN, sizeof open) == WEFT_OK);
    DEMAND(raw.received_count == 1 && !raw.answer.region.writable);
    DEMAND(!writable(raw.received[0], 4096));
    DEMAND(!can_be_reopened(raw.received[0]));
    raw_close(&raw);
    return 0;
}

static bool says(struct weft *w, const char *what, const char *word)
{
    char *text;
    if (weft_query(w, what, 0, &text) != WEFT_OK)
        return false;
    bool found = strstr(text, word) != NULL;
    weft_text_free(text);
    return found;
}

static int look_as_nobody(const struct stage *s)
{
    struct weft *w, *none;
    char *text;
    uint64_t bytes;
    struct weft_connect_options options = {.socket = s->node.socket, .domain = "guest"};
    DEMAND(weft_connect(&options, &w) == WEFT_OK);
    options.domain = "default"; /* of the node's own user */
    DEMAND(weft_connect(&options, &none) == WEFT_E_DENIED);
    static const char *const all[] = {"status",  "domains", "blocks", "sessions",
                                      "regions", "formats", "events"};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        DEMAND(weft_query(w, all[i], 0, &text) == WEFT_OK);
        weft_text_free(text);
        DEMAND(!says(w, all[i], "secret-of-default"));
        DEMAND(!says(w, all[i], "\"default\""));
    }
    DEMAND(says(w, "domains", "\"guest\""));
    DEMAND(!says(w, "status", "unassigned_bytes")); /* how full the pool is tells of others */
    DEMAND(weft_query(w, "config", 0, &text) == WEFT_E_DENIED);
    DEMAND(strstr(weft_last_error(), "'config' is only for the node's own user"));
    DEMAND(weft_lend(w, "1MB", &bytes) == WEFT_E_DENIED);
    DEMAND(weft_reclaim(w, "1MB", 10, &bytes) == WEFT_E_DENIED);
    weft_close(w);
    return 0;
}

static void test_another_user(void **state)
{
    struct stage *s = *state;
    struct weft_region *shared, *region;
    struct weft_session *session;
    void *memory;
    if (geteuid() != 0) {
        print_message("# only root can become somebody else\n");
        skip();
    }
    struct weft_session_spec spec = {.name = "secret-of-default", .priority = 5};
    assert_int_equal(weft_session_open(s->f, &spec, &session), WEFT_OK);
    assert_int_equal(weft_allocate(s->w, "64K", WEFT_LATENCY_NORMAL, WEFT_SHARE_READ,
                                   "secret-of-default", &region, &memory),
                     WEFT_OK);
    assert_int_equal(weft_allocate(s->guest, "64K", WEFT_LATENCY_NORMAL, WEFT_SHARE_READ, "shared",
                                   &shared, &memory),
                     WEFT_OK);
    assert_int_equal(put(s->f, 1), WEFT_OK);
    assert_int_equal(as_nobody(reopen_as_nobody, s), 0);
    assert_int_equal(as_nobody(look_as_nobody, s), 0);
    weft_release(region);
    weft_release(shared);
    weft_session_close(session);
}

/* ---------------------------------------------------------------------------------- two domains */

/* The same model and the same tokens have other names in another domain, and what one stored under
 * any name is not there for the other. */
static void test_keys_differ_by_domain(void **state)
{
    struct stage *s = *state;
    uint32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct weft_key mine[2], theirs[2];
    struct weft_pin pin;
    size_t found;
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, tokens, 8, NULL, mine), WEFT_OK);
    assert_int_equal(weft_keys_from_tokens(s->guest_format, NULL, tokens, 8, NULL, theirs),
                     WEFT_OK);
    assert_memory_not_equal(&mine[0], &theirs[0], sizeof mine[0]);
    assert_int_equal(put(s->f, 77), WEFT_OK);
    random_key(77, theirs[0].bytes);
    assert_int_equal(weft_pin(s->guest_format, &theirs[0], &pin), WEFT_MISS);
    assert_int_equal(weft_match_keys(s->guest_format, theirs, 1, &found), WEFT_OK);
    assert_int_equal(found, 0);
    assert_int_equal(weft_remove(s->guest_format, &theirs[0], &found), WEFT_MISS);
}

static void *release_later(void *context)
{
    weftd_sleep_ms(150);
    weft_pins_release(context);
    return NULL;
}

/* Whoever comes while all of the pool is being read waits for it, and needs not ask again. */
static void test_a_start_waits_for_what_is_read(void **state)
{
    struct stage *s = *state;
    enum { COUNT = 112 }; /* beside the staging segment of the client that is there */
    struct weft_key keys[COUNT];
    struct weft_pins pins;
    pthread_t thread;
    for (uint64_t i = 0; i < COUNT; i++) {
        assert_int_equal(put(s->f, i), WEFT_OK);
        random_key(i, keys[i].bytes);
    }
    assert_int_equal(weft_get_keys(s->f, keys, COUNT, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, COUNT);
    assert_int_equal(pthread_create(&thread, NULL, release_later, &pins), 0);
    struct weft *third = weftd_connect(&s->node, "guest");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_non_null(third);
    weft_close(third);
}

/* Memory that one domain gave up, by eviction for the other, comes to that one as zeros. */
static void test_memory_changes_hands_as_zeros(void **state)
{
    struct stage *s = *state;
    static const char *const two[] = {"pool.size=8MB", "pool.size_max=8MB", "domains=default,other",
                                      NULL};
    static const uint8_t zeros[BLOCK_BYTES];
    struct weftd node;
    (void)s;
    weftd_run(&node, two);
    struct weft *a = weftd_connect(&node, "default"), *b = weftd_connect(&node, "other");
    struct weft_format *fa = weftd_format(a, "zero", BLOCK_BYTES);
    struct weft_format *fb = weftd_format(b, "zero", BLOCK_BYTES);
    for (uint64_t turn = 0; turn < 4; turn++) {
        struct weft_format *f = turn % 2 ? fb : fa;
        for (uint64_t n = 0; n < 100; n++) {
            struct weft_key key;
            struct weft_slot slot;
            random_key(1000 * turn + n, key.bytes);
            assert_int_equal(weft_reserve_keys(f, NULL, &key, 1, 0, &slot), WEFT_OK);
            assert_int_equal(slot.status, WEFT_OK);
            /* Its own old bytes it may see; the other's never. */
            if (memcmp(slot.data, zeros, BLOCK_BYTES) != 0)
                assert_int_equal(((const uint8_t *)slot.data)[0], 0xa0 + turn % 2);
            for (size_t at = 1; at < BLOCK_BYTES; at++)
                if (((const uint8_t *)slot.data)[at])
                    assert_int_equal(((const uint8_t *)slot.data)[at], 0xa0 + turn % 2);
            memset(slot.data, (int)(0xa0 + turn % 2), BLOCK_BYTES);
            assert_int_equal(weft_commit_slots(f, &slot, 1), WEFT_OK);
        }
    }
    /* Memory did change hands. */
    assert_true(weftd_number(a, "default", "evicted.lent") > 0);
    struct weft_region *region;
    void *memory;
    assert_int_equal(weft_allocate(b, "3MB", WEFT_LATENCY_NORMAL, WEFT_SHARE_PRIVATE, NULL, &region,
                                   &memory),
                     WEFT_OK);
    for (size_t at = 0; at < (size_t)3 << 20; at += BLOCK_BYTES)
        assert_memory_equal((const uint8_t *)memory + at, zeros, BLOCK_BYTES);
    weft_release(region);
    weft_format_close(fa);
    weft_format_close(fb);
    weft_close(a);
    weft_close(b);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_staging_places),
        TEST(test_slot_named_twice),
        TEST(test_staging_changes_under_the_copy),
        TEST(test_scribbled_pins),
        TEST(test_what_cannot_be_written),
        TEST(test_another_user),
        TEST(test_keys_differ_by_domain),
        TEST(test_a_start_waits_for_what_is_read),
        TEST(test_memory_changes_hands_as_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
