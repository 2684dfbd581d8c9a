/* SPDX-License-Identifier: Apache-2.0
 *
 * The object store tier against a real S3 server, with an emulation of a bad way to it between
 * them: each fault ends as a success that took more than one try, as a miss or as an error that
 * says what was the matter, and never as a wrong byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/random.h"
#include "../support/s3.h"
#include "../support/s3_faults.h"
#include "sys/clock.h"

#define MEMORY_BYTES (24u << 20)
#define SMALL 100000u
#define LARGE (20u << 20) /* more than one upload may have: multipart */

static const char bucket[] = "s3://weft-faults";
static const char *missing;
static char endpoint[64];
static uint8_t *memory;

struct world {
    struct wf_tier *tier;
    struct wf_tier_options options;
    char path[100];
};

static struct wf_s3 *inside(struct world *w)
{
    return (struct wf_s3 *)(void *)w->tier;
}

static int setup(void **state)
{
    static unsigned count;
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    *state = w;
    if (missing)
        return 0;
    s3_faults_clear();
    snprintf(w->path, sizeof w->path, "%s/faults/%u", bucket, count++);
    w->options = (struct wf_tier_options){.path = w->path,
                                          .capacity_bytes = 256 << 20,
                                          .queue_depth = 16,
                                          .endpoint = endpoint,
                                          .stall_seconds = 1};
    return wf_tier_s3.open(&w->options, &w->tier) != WEFT_OK;
}

static int teardown(void **state)
{
    struct world *w = *state;
    s3_faults_clear();
    if (w->tier)
        wf_tier_s3.close(w->tier);
    free(w);
    return 0;
}

static struct world *world(void **state)
{
    if (missing) {
        print_message("# no S3 server: %s\n", missing);
        skip();
    }
    return *state;
}

static void reopen(struct world *w)
{
    wf_tier_s3.close(w->tier);
    w->tier = NULL;
    assert_int_equal(wf_tier_s3.open(&w->options, &w->tier), WEFT_OK);
}

static struct wf_tier_block block_of(uint64_t number, uint64_t bytes)
{
    struct wf_tier_block block = {.bytes = bytes, .part_bytes = (uint32_t)(bytes / 7 + 1)};
    random_key(number, block.key);
    return block;
}

static void fill(const struct wf_tier_block *block)
{
    struct random_source r = {block->key[0] | (uint64_t)block->key[1] << 8};
    for (uint64_t i = 0; i < block->bytes; i += 8) {
        uint64_t word = random_next(&r);
        memcpy(memory + i, &word, block->bytes - i < 8 ? block->bytes - i : 8);
    }
}

static bool right(const struct wf_tier_block *block)
{
    struct random_source r = {block->key[0] | (uint64_t)block->key[1] << 8};
    for (uint64_t i = 0; i < block->bytes; i += 8) {
        uint64_t word = random_next(&r);
        if (memcmp(memory + i, &word, block->bytes - i < 8 ? block->bytes - i : 8) != 0)
            return false;
    }
    return true;
}

static enum weft_status ask(struct world *w, enum wf_tier_op op, const struct wf_tier_block *block)
{
    struct wf_tier_request request = {.op = op, .data = memory}, *out = NULL;
    if (block)
        request.block = *block;
    if (op == WF_TIER_WRITE)
        fill(block);
    if (op == WF_TIER_READ)
        memset(memory, 0x5a, block->bytes);
    enum weft_status status = wf_tier_s3.submit(w->tier, &request);
    if (status != WEFT_OK)
        return status;
    for (uint64_t until = wf_now_ms() + 30000; wf_now_ms() < until;)
        if (wf_tier_s3.reap(w->tier, &out, 1, 100) == 1)
            break;
    assert_ptr_equal(out, &request);
    if (op == WF_TIER_READ && request.status == WEFT_OK)
        assert_true(right(block));
    return request.status;
}

static struct wf_tier_stats stats_of(struct world *w)
{
    struct wf_tier_stats stats;
    wf_tier_s3.stats(w->tier, &stats);
    return stats;
}

/* A block that is in the bucket, and in no buffer any more. */
static struct wf_tier_block stored(struct world *w, uint64_t number, uint64_t bytes)
{
    struct wf_tier_block block = block_of(number, bytes);
    assert_int_equal(ask(w, WF_TIER_WRITE, &block), WEFT_OK);
    assert_int_equal(ask(w, WF_TIER_FLUSH, NULL), WEFT_OK);
    return block;
}

static bool found(struct world *w, const struct wf_tier_block *block)
{
    struct wf_tier_block out;
    return wf_tier_s3.find(w->tier, block->key, &out);
}

/* ------------------------------------------------------------------ what passes */

static void passes(struct world *w, struct s3_rule rule)
{
    struct wf_tier_block block = stored(w, 1, SMALL);
    uint64_t retries = inside(w)->http.retries;
    s3_faults_add(rule);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
    assert_int_equal(s3_faults_met(), rule.times);
    /* libcurl itself tries again when a connection that it had kept is reset. */
    retries = inside(w)->http.retries - retries;
    assert_in_range(retries, rule.fault == S3_RESET ? 1 : rule.times, rule.times);
    assert_int_equal(stats_of(w).errors + stats_of(w).corrupt, 0);
    assert_false(stats_of(w).failed);
}

static void test_slow_down_is_obeyed(void **state)
{
    passes(world(state), (struct s3_rule){S3_ANSWER, "GET ", "/p/", 2, 503,
                                          "<Error><Code>SlowDown</Code></Error>"});
}

static void test_500_is_tried_again(void **state)
{
    passes(world(state), (struct s3_rule){S3_ANSWER, "GET ", "/p/", 3, 500, "no XML at all <"});
}

static void test_a_reset_connection_is_another_one(void **state)
{
    passes(world(state), (struct s3_rule){S3_RESET, "GET ", "/p/", 2});
}

static void test_a_body_cut_short_is_asked_for_again(void **state)
{
    passes(world(state), (struct s3_rule){S3_CUT, "GET ", "/p/", 2});
}

static void test_a_wrong_byte_on_the_way_is_no_rot(void **state)
{
    passes(world(state), (struct s3_rule){S3_FLIP, "GET ", "/p/", 1});
}

static void test_a_stall_is_given_up(void **state)
{
    uint64_t from = wf_now_ms();
    passes(world(state), (struct s3_rule){S3_STALL, "GET ", "/p/", 1});
    assert_in_range(wf_now_ms() - from, 900, 8000);
}

static void test_uploads_are_tried_again(void **state)
{
    struct world *w = world(state);
    s3_faults_add((struct s3_rule){S3_ANSWER, "PUT ", "/p/", 1, 500, NULL});
    s3_faults_add((struct s3_rule){S3_RESET, "PUT ", "/p/", 1});
    s3_faults_add((struct s3_rule){S3_ANSWER, "PUT ", "/p/", 1, 429, NULL});
    struct wf_tier_block block = stored(w, 1, SMALL);
    assert_int_equal(s3_faults_met(), 3);
    reopen(w);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
}

static void test_large_objects_go_in_parts(void **state)
{
    struct world *w = world(state);
    static const char error[] = "<Error><Code>InternalError</Code></Error>";
    s3_faults_add((struct s3_rule){S3_ANSWER, "PUT ", "partNumber=2", 1, 500, NULL});
    s3_faults_add((struct s3_rule){S3_ANSWER, "POST ", "?uploadId=", 2, 200, error});
    struct wf_tier_block block = stored(w, 1, LARGE);
    assert_int_equal(s3_faults_met(), 3);
    assert_int_equal(s3_count(w->path, 'p', NULL), 1);
    reopen(w);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
    assert_int_equal(stats_of(w).corrupt + stats_of(w).errors, 0);
}

/* ------------------------------------------------------------ what is a miss, or error */

static void test_wrong_bytes_are_corrupt(void **state)
{
    struct world *w = world(state);
    struct wf_tier_block block = stored(w, 1, SMALL);
    s3_faults_add((struct s3_rule){S3_FLIP, "GET ", "/p/", 100});
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_E_CORRUPT);
    assert_int_equal(stats_of(w).corrupt, 1);
    assert_false(found(w, &block));
}

static void test_a_server_that_overlooks_ranges(void **state)
{
    struct world *w = world(state);
    struct wf_tier_block block = stored(w, 1, SMALL);
    s3_faults_add((struct s3_rule){S3_UNRANGED, "GET ", "/p/", 100});
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_E_SYSTEM);
    assert_int_equal(stats_of(w).errors, 1);
}

static void test_an_object_that_vanished_is_a_miss(void **state)
{
    struct world *w = world(state);
    char name[64];
    struct wf_tier_block one = block_of(1, SMALL), two;
    assert_int_equal(ask(w, WF_TIER_WRITE, &one), WEFT_OK);
    two = stored(w, 2, SMALL); /* in the same pack */
    assert_int_equal(s3_count(w->path, 'p', name), 1);
    assert_int_equal(s3_ask(w->path, WF_S3_DELETE, name, NULL, NULL, 0, NULL, 0, NULL), 204);
    assert_int_equal(ask(w, WF_TIER_READ, &one), WEFT_MISS);
    assert_false(found(w, &two));
    assert_int_equal(stats_of(w).blocks, 0);
    stored(w, 2, SMALL);
    assert_int_equal(ask(w, WF_TIER_READ, &two), WEFT_OK);
}

static void comes_back(struct world *w, struct s3_rule rule, const char *says)
{
    struct wf_tier_block block = stored(w, 1, SMALL), held = block_of(2, SMALL);
    struct wf_tier_request *out;
    assert_int_equal(ask(w, WF_TIER_WRITE, &held), WEFT_OK);
    s3_faults_add(rule);
    rule.begins = "PUT ";
    s3_faults_add(rule);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), says));
    assert_true(stats_of(w).failed);
    assert_true(found(w, &block));
    assert_int_equal(ask(w, WF_TIER_FLUSH, NULL), WEFT_E_SYSTEM);
    s3_faults_clear();
    for (uint64_t until = wf_now_ms() + 10000; stats_of(w).failed && wf_now_ms() < until;) {
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(10000);
    }
    assert_false(stats_of(w).failed);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
    assert_int_equal(ask(w, WF_TIER_FLUSH, NULL), WEFT_OK);
    reopen(w);
    assert_int_equal(ask(w, WF_TIER_READ, &held), WEFT_OK);
}

static void test_a_bucket_that_comes_back(void **state)
{
    comes_back(world(state),
               (struct s3_rule){S3_ANSWER, "GET ", NULL, 1000, 404,
                                "<Error><Code>NoSuchBucket</Code></Error>"},
               "NoSuchBucket");
}

static void test_rights_that_come_back(void **state)
{
    comes_back(world(state),
               (struct s3_rule){S3_ANSWER, "GET ", NULL, 1000, 403,
                                "<Error><Code>AccessDenied</Code></Error>"},
               "AccessDenied");
}

/* -------------------------------------------------------------------- opening and owners */

static void test_the_wrong_secret_opens_nothing(void **state)
{
    struct world *w = world(state);
    struct wf_tier *other = NULL;
    setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
    enum weft_status status = wf_tier_s3.open(&w->options, &other);
    setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET, 1);
    assert_int_equal(status, WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), "SignatureDoesNotMatch"));
    assert_null(other);
}

static void test_a_prefix_has_one_owner(void **state)
{
    static const char stranger[] = "weft object store tier, version 1\nid 1\nhost another\n";
    struct world *w = world(state);
    struct wf_tier *other = NULL;
    assert_int_equal(s3_ask(w->path, WF_S3_PUT, "owner", NULL, stranger, strlen(stranger), NULL, 0,
                            NULL),
                     200);
    assert_int_equal(wf_tier_s3.open(&w->options, &other), WEFT_E_BUSY);
    assert_non_null(strstr(wf_last_error(), "another node uses this prefix"));
    inside(w)->renew_ms = 0; /* it is due */
    struct wf_tier_request *out;
    for (uint64_t until = wf_now_ms() + 10000; !stats_of(w).failed && wf_now_ms() < until;) {
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(10000);
    }
    assert_true(stats_of(w).failed);
    struct wf_tier_block block = block_of(1, SMALL);
    assert_int_equal(ask(w, WF_TIER_WRITE, &block), WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), "another node took the prefix over"));
}

/* Of two nodes of one host the later has it; the earlier says who that is, and waits. */
static void test_a_prefix_is_not_taken_back(void **state)
{
    struct world *w = world(state);
    struct wf_tier *other = NULL, *again = NULL;
    struct wf_tier_request *out;
    char who[64];
    snprintf(who, sizeof who, "another node (process %ld on ", (long)getpid());
    assert_int_equal(wf_tier_s3.open(&w->options, &other), WEFT_OK);
    inside(w)->renew_ms = 0; /* it is due */
    for (uint64_t until = wf_now_ms() + 10000; !stats_of(w).failed && wf_now_ms() < until;) {
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(10000);
    }
    struct wf_tier_stats lost = stats_of(w);
    assert_true(lost.failed);
    assert_non_null(strstr(lost.why, who));
    assert_non_null(strstr(lost.why, "took the prefix over"));
    wf_tier_s3.close(w->tier);
    w->tier = NULL;
    struct wf_tier_options options = w->options;
    options.held = lost.claim;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wf_tier_s3.open(&options, &again), WEFT_E_BUSY);
        assert_non_null(strstr(wf_last_error(), who));
    }
    ((struct wf_s3 *)other)->renew_ms = 0;
    for (int i = 0; i < 50; i++) {
        (void)wf_tier_s3.reap(other, &out, 1, 0);
        usleep(2000);
    }
    struct wf_tier_stats kept;
    wf_tier_s3.stats(other, &kept);
    assert_false(kept.failed);
    wf_tier_s3.close(other); /* it gives up */
    assert_int_equal(wf_tier_s3.open(&options, &w->tier), WEFT_OK);
    options.held = stats_of(w).claim;
    wf_s3_abandon(w->tier); /* what it left itself is its own */
    w->tier = NULL;
    assert_int_equal(wf_tier_s3.open(&options, &w->tier), WEFT_OK);
}

/* A server that drips keeps every request going, and is waited for no longer than said; whatever it
 * drips on: who has the prefix, the list, or what a pack has.  Once it serves again, so does the
 * tier. */
static void test_opening_comes_to_an_end(void **state)
{
    static const char *const drips[] = {"/owner", "list-type=2", "/p/"};
    static const int status[] = {404, 200, 404}; /* what has a length takes no more than that */
    struct world *w = world(state);
    struct wf_tier_block block = stored(w, 1, SMALL);
    w->options.open_seconds = 1;
    for (size_t i = 0; i < sizeof drips / sizeof drips[0]; i++) {
        struct wf_tier *other = NULL;
        wf_tier_s3.close(w->tier);
        w->tier = NULL;
        s3_faults_add((struct s3_rule){S3_DRIP, "GET ", drips[i], 1000, status[i]});
        uint64_t from = wf_now_ms();
        assert_int_equal(wf_tier_s3.open(&w->options, &other), WEFT_E_SYSTEM);
        assert_in_range(wf_now_ms() - from, 1000, 20000);
        assert_non_null(strstr(wf_last_error(), "opening it took longer than 1 s"));
        s3_faults_clear();
        w->options.open_seconds = 0;
        assert_int_equal(wf_tier_s3.open(&w->options, &w->tier), WEFT_OK);
        w->options.open_seconds = 1;
        assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
    }
}

static void test_stale_uploads_are_aborted(void **state)
{
    struct world *w = world(state);
    char room[4096];
    static const char name[] = "p/0000000000000001-0000000000000001";
    assert_int_equal(s3_ask(w->path, WF_S3_POST, name, "uploads=", NULL, 0, NULL, 0, NULL), 200);
    reopen(w);
    size_t got = 0;
    for (int tries = 0; tries < 100; tries++) {
        struct wf_tier_request *out;
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(20000);
        assert_int_equal(s3_ask(bucket, WF_S3_GET, "", "uploads=", NULL, 0, room, sizeof room,
                                &got),
                         200);
        if (!memmem(room, got, name, strlen(name)))
            return;
    }
    fail_msg("the upload is still there");
}

/* Many packs are found through an index, and without it when it is rotten; all go when they are
 * dead. */
static void test_indexes_gather_footers(void **state)
{
    enum { PACKS = WF_S3_GATHER + 6 };
    struct world *w = world(state);
    struct wf_tier_block blocks[PACKS];
    struct wf_tier_request *out;
    char name[64];
    for (uint32_t i = 0; i < PACKS; i++)
        blocks[i] = stored(w, i + 1, 1000);
    for (int tries = 0; tries < 200 && !s3_count(w->path, 'i', name); tries++) {
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(10000);
    }
    assert_int_equal(s3_count(w->path, 'i', name), 1);
    for (int round = 0; round < 2; round++) {
        reopen(w);
        assert_int_equal(stats_of(w).blocks, PACKS);
        assert_int_equal(stats_of(w).corrupt, round);
        for (uint32_t i = 0; i < PACKS; i += 9)
            assert_int_equal(ask(w, WF_TIER_READ, &blocks[i]), WEFT_OK);
        assert_int_equal(s3_ask(w->path, WF_S3_PUT, name, NULL, "rot", 3, NULL, 0, NULL), 200);
        inside(w)->closing = true; /* no new index meanwhile */
    }
    reopen(w);
    for (uint32_t i = 0; i < PACKS; i++)
        assert_int_equal(wf_tier_s3.remove(w->tier, blocks[i].key), WEFT_OK);
    for (int tries = 0; tries < 500 && s3_count(w->path, 'p', NULL); tries++) {
        (void)wf_tier_s3.reap(w->tier, &out, 1, 0);
        usleep(5000);
    }
    assert_int_equal(s3_count(w->path, 'p', NULL), 0);
}

/* ------------------------------------------------------------------ fetched credentials */

#define KEYS                                                                                      \
    "{\"Code\":\"Success\",\"AccessKeyId\":\"" S3_KEY "\",\"SecretAccessKey\":\"" S3_SECRET "\"," \
    "\"Expiration\":\"2999-01-01T00:00:00Z\"}"

static void with_fetched_keys(struct world *w)
{
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    unsetenv("HOME");
    wf_tier_s3.close(w->tier);
    w->tier = NULL;
    enum weft_status status = wf_tier_s3.open(&w->options, &w->tier);
    setenv("AWS_ACCESS_KEY_ID", S3_KEY, 1);
    setenv("AWS_SECRET_ACCESS_KEY", S3_SECRET, 1);
    unsetenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    assert_int_equal(status, WEFT_OK);
    assert_true(inside(w)->http.credentials.expires > 30000000000ull);
    struct wf_tier_block block = stored(w, 1, SMALL);
    assert_int_equal(ask(w, WF_TIER_READ, &block), WEFT_OK);
}

static void test_keys_from_a_container(void **state)
{
    struct world *w = world(state);
    char url[100];
    snprintf(url, sizeof url, "%s/container-keys", endpoint);
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
    s3_faults_add((struct s3_rule){S3_ANSWER, "GET /container-keys", NULL, 1, 200, KEYS});
    with_fetched_keys(w);
    assert_int_equal(s3_faults_met(), 1);
}

static void test_keys_from_an_instance(void **state)
{
    struct world *w = world(state);
    static const char at[] = "GET /latest/meta-data/iam/security-credentials/";
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "false", 1);
    s3_faults_add((struct s3_rule){S3_ANSWER, "PUT /latest/api/token", NULL, 1, 200, "token=="});
    s3_faults_add((struct s3_rule){S3_ANSWER, at, "/the-role HTTP", 1, 200, KEYS});
    s3_faults_add((struct s3_rule){S3_ANSWER, at, "/ HTTP", 1, 200, "the-role"});
    with_fetched_keys(w);
    assert_int_equal(s3_faults_met(), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_slow_down_is_obeyed),
        TEST(test_500_is_tried_again),
        TEST(test_a_reset_connection_is_another_one),
        TEST(test_a_body_cut_short_is_asked_for_again),
        TEST(test_a_wrong_byte_on_the_way_is_no_rot),
        TEST(test_a_stall_is_given_up),
        TEST(test_uploads_are_tried_again),
        TEST(test_large_objects_go_in_parts),
        TEST(test_wrong_bytes_are_corrupt),
        TEST(test_a_server_that_overlooks_ranges),
        TEST(test_an_object_that_vanished_is_a_miss),
        TEST(test_a_bucket_that_comes_back),
        TEST(test_rights_that_come_back),
        TEST(test_the_wrong_secret_opens_nothing),
        TEST(test_a_prefix_has_one_owner),
        TEST(test_a_prefix_is_not_taken_back),
        TEST(test_opening_comes_to_an_end),
        TEST(test_stale_uploads_are_aborted),
        TEST(test_indexes_gather_footers),
        TEST(test_keys_from_a_container),
        TEST(test_keys_from_an_instance),
    };
    uint16_t port = 0;
    memory = aligned_alloc(WF_TIER_ALIGN, MEMORY_BYTES);
    missing = s3_server(&port);
    if (!missing) {
        uint16_t mine = s3_faults_start(port);
        if (!memory || !mine || s3_ask(bucket, WF_S3_PUT, "", NULL, NULL, 0, NULL, 0, NULL) != 200)
            return 1;
        snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%u", mine);
    }
    int failed = cmocka_run_group_tests_name("tier_s3_faults", tests, NULL, NULL);
    if (!missing)
        s3_faults_stop();
    free(memory);
    return failed;
}
