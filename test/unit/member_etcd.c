/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of the etcd registry that need no etcd: how a registry is written, what a lease is worth by
 * which clock, and the texts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "member/etcd_lease.h"
#include "member/etcd_target.h"
#include "member/etcd_text.h"
#include "member/settings.h"

#define SECOND UINT64_C(1000000000)

static void test_registries(void **state)
{
    (void)state;
    struct wf_etcd_target target;
    assert_int_equal(wf_etcd_target_read("etcd://one/c", &target), WEFT_OK);
    assert_false(target.tls);
    assert_int_equal(target.count, 1);
    assert_string_equal(target.endpoints[0], "one:2379");
    assert_string_equal(target.cluster, "c");
    assert_int_equal(wf_etcd_target_read("etcds://10.0.0.1:1,[fd00::1]:65535,[::1]/c-1.x", &target),
                     WEFT_OK);
    assert_true(target.tls);
    assert_int_equal(target.count, 3);
    assert_string_equal(target.endpoints[1], "[fd00::1]:65535");
    assert_string_equal(target.endpoints[2], "[::1]:2379");
    assert_string_equal(target.cluster, "c-1.x");
}

static void test_registries_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *registry, *word;
    } wrong[] = {{NULL, "etcd://HOST"},
                 {"", "etcd://HOST"},
                 {"http://a/b", "http://a/b"},
                 {"etcd://a:1", "no cluster"},
                 {"etcd:///c", "no etcd"},
                 {"etcd://a:1/", "cluster's name"},
                 {"etcd://a:1/A", "'A'"},
                 {"etcd://a:1/c/d", "'c/d'"},
                 {"etcd://a:0/c", "'a:0'"},
                 {"etcd://a:65536/c", "'a:65536'"},
                 {"etcd://a:1x/c", "'a:1x'"},
                 {"etcd://a,,b/c", "''"},
                 {"etcd://user@a/c", "'user@a'"},
                 {"etcd://a b/c", "'a b'"},
                 {"etcd://[::1/c", "'[::1'"},
                 {"etcd://a\n/c", "registry"},
                 {"etcd://a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a/c", "16"}};
    struct wf_etcd_target target = {.count = 77};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_true(wf_etcd_target_read(wrong[i].registry, &target) < 0);
        if (!strstr(wf_last_error(), wrong[i].word))
            fail_msg("'%s' has no '%s'", wf_last_error(), wrong[i].word);
    }
    assert_int_equal(target.count, 77);
}

static enum wf_standing_state state_at(const struct wf_lease *lease, uint64_t ns, uint64_t boot_ns)
{
    struct wf_standing standing;
    wf_lease_standing(lease, (struct wf_moment){ns, boot_ns}, &standing);
    assert_int_equal(standing.epoch, lease->epoch);
    assert_true(standing.state == WF_STANDING_MEMBER || standing.why[0]);
    bool good = wf_lease_good(lease, (struct wf_moment){ns, boot_ns});
    assert_int_equal(good, standing.state == WF_STANDING_MEMBER ||
                               standing.state == WF_STANDING_DOUBTFUL);
    return standing.state;
}

static void test_what_a_lease_is_worth(void **state)
{
    (void)state;
    struct wf_lease lease = {.held = true, .epoch = 3};
    struct wf_moment asked = {100 * SECOND, 500 * SECOND};
    wf_lease_count(&lease, asked, 10 * SECOND);
    assert_true(lease.until.ns < 110 * SECOND); /* earlier than the registry's */
    assert_int_equal(state_at(&lease, 100 * SECOND, 500 * SECOND), WF_STANDING_MEMBER);
    assert_int_equal(state_at(&lease, 104 * SECOND, 504 * SECOND), WF_STANDING_MEMBER);
    assert_int_equal(state_at(&lease, 106 * SECOND, 506 * SECOND), WF_STANDING_DOUBTFUL);
    assert_int_equal(state_at(&lease, lease.until.ns - 1, lease.until.boot_ns - 1),
                     WF_STANDING_DOUBTFUL);
    assert_int_equal(state_at(&lease, lease.until.ns, lease.until.boot_ns), WF_STANDING_LOST);
    assert_int_equal(state_at(&lease, 200 * SECOND, 600 * SECOND), WF_STANDING_LOST);
    /* The edges are where it changes, to the nanosecond. */
    struct wf_moment now = asked;
    uint64_t edge = wf_lease_edge(&lease, now);
    assert_int_equal(state_at(&lease, edge - 1, edge - 1 + 400 * SECOND), WF_STANDING_MEMBER);
    assert_int_equal(state_at(&lease, edge, edge + 400 * SECOND), WF_STANDING_DOUBTFUL);
    now = (struct wf_moment){edge, edge + 400 * SECOND};
    assert_int_equal(wf_lease_edge(&lease, now), lease.until.ns);
    now = (struct wf_moment){lease.until.ns, lease.until.boot_ns};
    assert_true(wf_lease_edge(&lease, now) == UINT64_MAX);
    lease.held = false;
    lease.otherwise = WF_STANDING_REFUSED;
    assert_int_equal(state_at(&lease, 100 * SECOND, 500 * SECOND), WF_STANDING_REFUSED);
    assert_true(wf_lease_edge(&lease, asked) == UINT64_MAX);
}

/* The host slept: one clock stood still, and the registry's did not. */
static void test_a_host_that_slept(void **state)
{
    (void)state;
    struct wf_lease lease = {.held = true, .epoch = 3};
    struct wf_standing standing;
    wf_lease_count(&lease, (struct wf_moment){100 * SECOND, 100 * SECOND}, 10 * SECOND);
    assert_int_equal(state_at(&lease, 101 * SECOND, 102 * SECOND), WF_STANDING_MEMBER);
    assert_int_equal(state_at(&lease, 101 * SECOND, 107 * SECOND), WF_STANDING_DOUBTFUL);
    assert_int_equal(state_at(&lease, 101 * SECOND, 111 * SECOND), WF_STANDING_LOST);
    /* What it says of its end is right for who looks at the other clock only. */
    wf_lease_standing(&lease, (struct wf_moment){101 * SECOND, 107 * SECOND}, &standing);
    assert_true(standing.until_ns <= 101 * SECOND + 3 * SECOND);
    assert_true(standing.until_ns > 101 * SECOND);
    wf_lease_standing(&lease, (struct wf_moment){101 * SECOND, 101 * SECOND}, &standing);
    assert_true(standing.until_ns == lease.until.ns);
}

struct seen {
    uint32_t count;
    char keys[8][64], values[8][WF_MEMBER_DETAILS_MAX];
    bool null[8], deleted[8];
    uint32_t response[8];
};

static void take(void *context, const struct wf_etcd_kv *kv)
{
    struct seen *seen = context;
    assert_true(seen->count < 8);
    snprintf(seen->keys[seen->count], sizeof seen->keys[0], "%s", kv->key);
    snprintf(seen->values[seen->count], sizeof seen->values[0], "%s", kv->value ? kv->value : "");
    seen->null[seen->count] = !kv->value;
    seen->response[seen->count] = kv->response;
    seen->deleted[seen->count++] = kv->deleted;
}

static enum weft_status reads(const char *text, struct wf_etcd_answer *out, struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    return wf_etcd_read(text, strlen(text), out, take, seen);
}

static void test_answers(void **state)
{
    (void)state;
    static struct wf_etcd_answer out;
    static struct seen seen;
    assert_int_equal(
        reads("{\"header\":{\"cluster_id\":\"18446744073709551615\",\"revision\":\"7\"},"
              "\"ID\":\"9223372036854775807\",\"TTL\":5}",
              &out, &seen),
        WEFT_OK);
    assert_true(out.cluster == UINT64_MAX);
    assert_int_equal(out.revision, 7);
    assert_true(out.lease == (uint64_t)INT64_MAX);
    assert_int_equal(out.ttl_s, 5);
    assert_int_equal(
        reads("{\"result\":{\"events\":[{\"kv\":{\"key\":\"YQ==\",\"value\":\"YWI=\","
              "\"mod_revision\":\"8\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"YWJj\"}}]}}",
              &out, &seen),
        WEFT_OK);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.keys[0], "a");
    assert_string_equal(seen.values[0], "ab");
    assert_string_equal(seen.keys[1], "abc");
    assert_true(seen.deleted[1] && !seen.deleted[0]);
    /* Keys that are not ours to understand: shown as none. */
    assert_int_equal(reads("{\"kvs\":[{\"key\":\"YQBi\",\"value\":\"YQBi\"},{\"key\":\"!!!!\","
                           "\"value\":\"a\"}]}",
                           &out, &seen),
                     WEFT_OK);
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.keys[0], "");
    assert_true(seen.null[0] && seen.null[1]);
    assert_int_equal(reads("{\"error\":{\"message\":\"a\\u001bb\"}}", &out, &seen), WEFT_OK);
    assert_string_equal(out.error, "a?b");
}

static void test_answers_that_are_none(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",
                                        "<html></html>",
                                        "[]",
                                        "7",
                                        "{\"kvs\":",
                                        "{\"a\":1,\"a\":2}",
                                        "{\"kvs\":{}}",
                                        "{\"kvs\":[7]}",
                                        "{\"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"-1\"}]}",
                                        "{\"responses\":7}",
                                        "{\"events\":\"\"}",
                                        "{\"ID\":\"\"}",
                                        "{\"TTL\":\"5s\"}",
                                        "{\"TTL\":\"99999999999999999999\"}",
                                        "{\"header\":{\"revision\":\"9223372036854775808\"}}",
                                        "{\"token\":\"a\\r\\nHost: b\"}",
                                        NULL};
    static struct wf_etcd_answer out;
    static struct seen seen;
    for (int i = 0; wrong[i]; i++)
        if (reads(wrong[i], &out, &seen) != WEFT_E_PROTOCOL)
            fail_msg("'%s' was read", wrong[i]);
    char *deep = malloc(200001); /* brackets within brackets */
    assert_non_null(deep);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    assert_int_equal(reads(deep, &out, &seen), WEFT_E_PROTOCOL);
    free(deep);
}

/* What is written in base64 is read as it was, whatever its length. */
static void test_base64(void **state)
{
    (void)state;
    char text[40] = "";
    for (size_t length = 0; length < 30; length++) {
        static struct wf_etcd_answer out;
        static struct seen seen;
        char *said = wf_etcd_say_set("c", "name", text, 5);
        assert_non_null(said);
        const char *value = strstr(said, "\"value\"");
        assert_non_null(value);
        const char *begins = strchr(value + 7, '"') + 1;
        char answer[200];
        snprintf(answer, sizeof answer, "{\"kvs\":[{\"key\":\"YQ==\",\"value\":\"%.*s\"}]}",
                 (int)strcspn(begins, "\""), begins);
        assert_int_equal(reads(answer, &out, &seen), WEFT_OK);
        assert_string_equal(seen.values[0], text);
        free(said);
        text[length] = (char)(0x21 + length * 3);
    }
}

static void test_keys(void **state)
{
    (void)state;
    const char *name = NULL;
    assert_int_equal(wf_etcd_part_of("c", "/weft/c/nodes/a", &name), WF_ETCD_NODES);
    assert_string_equal(name, "a");
    assert_int_equal(wf_etcd_part_of("c", "/weft/c/settings/", &name), WF_ETCD_SETTINGS);
    assert_string_equal(name, "");
    assert_int_equal(wf_etcd_part_of("c", "/weft/c/epochs/a/b", &name), WF_ETCD_EPOCHS);
    static const char *const others[] = {
        "",  "/weft/c", "/weft/c/nodes", "/weft/cc/nodes/a", "/weft/d/nodes/a", "/weft/c/other/a",
        NULL};
    for (int i = 0; others[i]; i++)
        assert_int_equal(wf_etcd_part_of("c", others[i], &name), WF_ETCD_OTHER);
}

static void test_values(void **state)
{
    (void)state;
    struct wf_member member;
    uint64_t epoch = 0;
    assert_int_equal(wf_etcd_node_read("a",
                                       "{\"epoch\":3,\"addresses\":\"x\",\"details\":\"{}\","
                                       "\"of a later version\":[]}",
                                       &member),
                     WEFT_OK);
    assert_int_equal(member.epoch, 3);
    static const char *const wrong[] = {
        "",
        "{}",
        "{\"epoch\":0,\"addresses\":\"x\",\"details\":\"{}\"}",
        "{\"epoch\":\"3\",\"addresses\":\"x\",\"details\":\"{}\"}",
        "{\"epoch\":3,\"addresses\":7,\"details\":\"{}\"}",
        "{\"epoch\":3,\"addresses\":\"\\u001b[2J\",\"details\":\"{}\"}",
        NULL};
    for (int i = 0; wrong[i]; i++)
        assert_int_equal(wf_etcd_node_read("a", wrong[i], &member), WEFT_E_PROTOCOL);
    assert_int_equal(wf_etcd_epoch_read("17", &epoch), WEFT_OK);
    assert_int_equal(epoch, 17);
    static const char *const none[] = {"", "0", "-1", "1x", " 1", "9999999999999999999", NULL};
    for (int i = 0; none[i]; i++)
        assert_int_equal(wf_etcd_epoch_read(none[i], &epoch), WEFT_E_PROTOCOL);
    assert_int_equal(wf_etcd_epoch_read(NULL, &epoch), WEFT_E_PROTOCOL);
}

static void test_as_many_settings_as_there_may_be(void **state)
{
    (void)state;
    struct wf_settings settings = {0};
    char name[16];
    for (uint32_t i = 0; i < WF_SETTINGS_MAX; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(wf_settings_put(&settings, name, name, i + 1), WEFT_OK);
    }
    assert_int_equal(wf_settings_put(&settings, "more", "", 1), WEFT_E_LIMIT);
    assert_int_equal(wf_settings_put(&settings, "s7", "other", 9), WEFT_OK);
    assert_string_equal(wf_settings_find(&settings, "s7")->value, "other");
    wf_settings_remove(&settings, "s0");
    assert_null(wf_settings_find(&settings, "s0"));
    assert_string_equal(wf_settings_find(&settings, "s255")->value, "s255");
    wf_settings_fini(&settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registries),
        cmocka_unit_test(test_registries_that_are_none),
        cmocka_unit_test(test_what_a_lease_is_worth),
        cmocka_unit_test(test_a_host_that_slept),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_answers_that_are_none),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_as_many_settings_as_there_may_be),
    };
    return cmocka_run_group_tests_name("member_etcd", tests, NULL, NULL);
}
