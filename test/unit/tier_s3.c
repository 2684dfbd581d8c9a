/* SPDX-License-Identifier: Apache-2.0
 *
 * The object store tier's parts that need no server: URLs, credentials, XML, the format, and what
 * answers amount to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tier/s3_store.h"

/* ------------------------------------------------------------------------------ URLs */

static void no_environment(void)
{
    static const char *const names[] = {"AWS_ENDPOINT_URL_S3",
                                        "AWS_ENDPOINT_URL",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_PROFILE",
                                        "AWS_CONFIG_FILE",
                                        "AWS_ACCESS_KEY_ID",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_SHARED_CREDENTIALS_FILE",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "HOME"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
}

static void url_is(const struct wf_tier_options *options, const char *name, const char *query,
                   const char *expected)
{
    struct wf_s3_target target;
    char url[WF_S3_URL_MAX];
    assert_int_equal(wf_s3_target_read(options, &target), WEFT_OK);
    assert_true(wf_s3_target_url(&target, name, query, url, sizeof url));
    assert_string_equal(url, expected);
    assert_false(wf_s3_target_url(&target, name, query, url, strlen(expected)));
}

static void test_urls(void **state)
{
    (void)state;
    no_environment();
    struct wf_tier_options o = {.path = "s3://my-bucket/a/b c+d/"};
    url_is(&o, "p/1", NULL, "https://my-bucket.s3.us-east-1.amazonaws.com/a/b%20c%2Bd/p/1");
    url_is(&o, NULL, "uploads=", "https://my-bucket.s3.us-east-1.amazonaws.com/?uploads=");
    o.region = "eu-west-3";
    o.path = "s3://dots.in.it";
    url_is(&o, "owner", NULL, "https://s3.eu-west-3.amazonaws.com/dots.in.it/owner");
    o.endpoint = "http://127.0.0.1:9000/";
    url_is(&o, "owner", NULL, "http://127.0.0.1:9000/dots.in.it/owner");
    o.endpoint = "http://[::1]:9000";
    url_is(&o, "owner", NULL, "http://[::1]:9000/dots.in.it/owner");
    o.endpoint = "http://store:9000";
    o.plain_http = true;
    url_is(&o, "owner", NULL, "http://store:9000/dots.in.it/owner");
    o.endpoint = NULL;
    setenv("AWS_ENDPOINT_URL", "https://general", 1);
    url_is(&o, "owner", NULL, "https://general/dots.in.it/owner");
    setenv("AWS_ENDPOINT_URL_S3", "https://special/under", 1);
    url_is(&o, "owner", NULL, "https://special/under/dots.in.it/owner");
}

static void test_wrong_targets_are_refused(void **state)
{
    static const char *const paths[] = {"bucket/prefix",  "s3://",        "s3:///prefix",
                                        "s3://ab",        "s3://UPPER",   "s3://-dash",
                                        "s3://a..b",      "s3://under_s", "s3://buck/a//b",
                                        "s3://buck/../b", "s3://buck/.",  "s3://buck/a\nb",
                                        "http://buck/et"};
    static const char *const endpoints[] = {"store",
                                            "ftp://store",
                                            "https://",
                                            "https://u@store",
                                            "https://store?q",
                                            "http://store",
                                            "http://127.0.0.1.evil",
                                            "http://localhost.evil"};
    struct wf_s3_target target;
    (void)state;
    no_environment();
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        wf_fail_keep("%s", "");
        struct wf_tier_options o = {.path = paths[i]};
        assert_int_equal(wf_s3_target_read(&o, &target), WEFT_E_INVALID);
        assert_non_null(strstr(wf_last_error(), paths[i]));
    }
    for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) {
        wf_fail_keep("%s", "");
        struct wf_tier_options o = {.path = "s3://bucket", .endpoint = endpoints[i]};
        if (wf_s3_target_read(&o, &target) != WEFT_E_INVALID)
            fail_msg("%s was taken", endpoints[i]);
        assert_non_null(strstr(wf_last_error(), endpoints[i]));
    }
    struct wf_tier_options o = {.path = "s3://bucket", .region = "us/east"};
    assert_int_equal(wf_s3_target_read(&o, &target), WEFT_E_INVALID);
}

/* ----------------------------------------------------------------------- credentials */

static const char ini[] = "# a comment\n[default]\naws_access_key_id=AK\n"
                          "aws_secret_access_key = S=E C \r\n\n"
                          "[ other ]\n;aws_access_key_id = no\naws_access_key_id = OK\n"
                          "s3 =\n  aws_secret_access_key = nested\nregion = eu-north-1\n"
                          "[profile other]\nregion = eu-south-1";

static void ini_is(const char *section, const char *key, const char *expected)
{
    char out[32];
    bool found = wf_s3_ini_find(ini, sizeof ini - 1, section, key, out, sizeof out);
    assert_int_equal(found, expected != NULL);
    if (expected)
        assert_string_equal(out, expected);
}

static void test_ini(void **state)
{
    char tiny[2];
    (void)state;
    ini_is("default", "aws_access_key_id", "AK");
    ini_is("default", "aws_secret_access_key", "S=E C");
    ini_is("default", "aws_access_key", NULL);
    ini_is("other", "aws_access_key_id", "OK");
    ini_is("other", "aws_secret_access_key", NULL);
    ini_is("other", "region", "eu-north-1");
    ini_is("profile other", "region", "eu-south-1");
    ini_is("absent", "region", NULL);
    assert_false(wf_s3_ini_find(ini, sizeof ini - 1, "default", "aws_access_key_id", tiny, 2));
}

static void write_file(char *path, const char *text)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void test_credentials_in_their_order(void **state)
{
    struct wf_s3_credentials c;
    char keys[] = "/tmp/weft-s3-keys-XXXXXX", config[] = "/tmp/weft-s3-config-XXXXXX", out[64];
    (void)state;
    no_environment();
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_MISS);
    write_file(config, "[default]\naws_access_key_id=C\naws_secret_access_key=CS\nregion=here\n");
    setenv("AWS_CONFIG_FILE", config, 1);
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_OK);
    assert_string_equal(c.access, "C");
    assert_true(wf_s3_profile_setting("region", out, sizeof out));
    assert_string_equal(out, "here");
    write_file(keys, "[default]\naws_access_key_id=K\naws_secret_access_key=KS\n"
                     "aws_session_token=KT\n[half]\naws_access_key_id=H\n");
    setenv("AWS_SHARED_CREDENTIALS_FILE", keys, 1);
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_OK);
    assert_string_equal(c.access, "K");
    assert_string_equal(c.token, "KT");
    setenv("AWS_PROFILE", "half", 1);
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "[half]"));
    setenv("AWS_ACCESS_KEY_ID", "E", 1);
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_E_INVALID);
    setenv("AWS_SECRET_ACCESS_KEY", "ES", 1);
    assert_int_equal(wf_s3_credentials_local(&c), WEFT_OK);
    assert_string_equal(c.access, "E");
    assert_string_equal(c.secret, "ES");
    assert_string_equal(c.token, "");
    unlink(keys);
    unlink(config);
}

static bool json(const char *text, struct wf_s3_credentials *c)
{
    return wf_s3_credentials_json(text, strlen(text), c);
}

static void test_credentials_from_services(void **state)
{
    struct wf_s3_credentials c = {.access = "before"};
    (void)state;
    assert_false(json("", &c));
    assert_false(json("[]", &c));
    assert_false(json("{\"AccessKeyId\":\"A\"}", &c));
    assert_false(json("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":7}", &c));
    assert_false(
        json("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Expiration\":\"x\"}", &c));
    assert_string_equal(c.access, "before");
    assert_true(json("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
                     "\"Expiration\":\"2026-11-21T03:01:02Z\"}",
                     &c));
    assert_string_equal(c.token, "T");
    assert_int_equal(c.expires, 1795230062);
    uint64_t when;
    assert_true(wf_s3_time_read("1970-01-01T00:00:09.123Z", &when));
    assert_int_equal(when, 9);
    assert_false(wf_s3_time_read("1970-01-01T00:00:09", &when));
    assert_false(wf_s3_time_read("1970-13-01T00:00:09Z", &when));
    assert_false(wf_s3_time_read("1970-01-01 00:00:09Z", &when));
}

/* ------------------------------------------------------------------------------- XML */

struct seen {
    unsigned count;
    struct wf_s3_found last;
};

static void see(void *context, const struct wf_s3_found *found)
{
    struct seen *seen = context;
    seen->count++;
    seen->last = *found;
}

static bool read_xml(const char *text, struct wf_s3_answer *answer, struct seen *seen)
{
    memset(seen, 0, sizeof *seen);
    return wf_s3_xml_read(text, strlen(text), answer, see, seen);
}

static void test_xml(void **state)
{
    struct wf_s3_answer a;
    struct seen seen;
    (void)state;
    assert_true(read_xml("<?xml version='1.0'?><ListBucketResult xmlns='x'><Name>n</Name>"
                         "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;u"
                         "</NextContinuationToken><Contents><Key>a/&lt;b</Key><Size>17</Size>"
                         "<Owner><ID>no</ID></Owner></Contents><Contents><Key>z</Key><Size>1</Size>"
                         "</Contents></ListBucketResult>",
                         &a, &seen));
    assert_string_equal(a.root, "ListBucketResult");
    assert_true(a.truncated);
    assert_string_equal(a.next, "t&u");
    assert_int_equal(seen.count, 2);
    assert_string_equal(seen.last.key, "z");
    assert_true(read_xml("<R><Upload><Key>k</Key><UploadId>u</UploadId></Upload></R>", &a, &seen));
    assert_string_equal(seen.last.upload, "u");
    assert_true(read_xml("<Error><Code>SlowDown</Code><Message>m</Message></Error>", &a, &seen));
    assert_string_equal(a.code, "SlowDown");

    assert_false(read_xml("", &a, &seen));
    assert_false(read_xml("<R><Contents>", &a, &seen));
    assert_false(read_xml("<R><Contents><Size>-1</Size></Contents></R>", &a, &seen));
    assert_false(read_xml("<R><Contents><Size>1x</Size></Contents></R>", &a, &seen));
    assert_false(read_xml("<!DOCTYPE R [<!ENTITY e 'e'>]><R>&e;</R>", &a, &seen));
    assert_false(
        read_xml("<a><b><c><d><e><f><g><h><i/></h></g></f></e></d></c></b></a>", &a, &seen));
    char text[3000] = "<R><Contents><Key>";
    memset(text + strlen(text), 'k', 1090);
    snprintf(text + strlen(text), 100, "</Key></Contents></R>");
    assert_false(read_xml(text, &a, &seen));
}

/* ---------------------------------------------------------------------------- format */

static void test_a_part_is_all_of_itself(void **state)
{
    struct wf_tier_block block = {.bytes = 100, .part_bytes = 60, .key = {1, 2, 3}};
    uint8_t payload[100], record[100 + 2 * sizeof(struct wf_s3_part)];
    (void)state;
    for (uint8_t i = 0; i < sizeof payload; i++)
        payload[i] = i;
    wf_s3_record_write(record, &block, payload);
    assert_int_equal(wf_s3_record_bytes(&block), sizeof record);
    for (size_t i = 0; i <= sizeof record; i++) {
        if (i < sizeof record)
            record[i] ^= 0x10;
        unsigned good = 0;
        for (uint32_t part = 0; part < 2; part++) {
            struct wf_s3_part head;
            const uint8_t *at = record + wf_s3_part_at(&block, part);
            memcpy(&head, at, sizeof head);
            good += wf_s3_part_heads(&head, &block, part) &&
                    wf_s3_part_right(&head, at + sizeof head);
        }
        assert_int_equal(good, i < sizeof record ? 1 : 2);
        if (i < sizeof record)
            record[i] ^= 0x10;
    }
    struct wf_s3_part head;
    memcpy(&head, record, sizeof head);
    assert_true(wf_s3_part_heads(&head, &block, 0));
    assert_false(wf_s3_part_heads(&head, &block, 1));
    block.key[31] ^= 1;
    assert_false(wf_s3_part_heads(&head, &block, 0));
}

static void test_an_index_is_read_as_far_as_it_is_right(void **state)
{
    uint8_t data[sizeof(struct wf_s3_index) +
                 2 * (sizeof(struct wf_s3_footer) + sizeof(struct wf_s3_entry))];
    struct wf_tier_block block = {.bytes = 100, .part_bytes = 60};
    struct wf_s3_walk walk;
    struct wf_s3_index head;
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct wf_s3_entry entry;
        struct wf_s3_footer footer = {
            .count = 1, .number = i, .tag = 9, .object_bytes = 1000, .records_bytes = 300};
        uint8_t *at = data + sizeof head + i * (sizeof footer + sizeof entry);
        wf_s3_entry_of(&entry, &block, 64);
        assert_true(wf_s3_entry_right(&entry, &footer));
        wf_s3_footer_seal(&footer, &entry);
        memcpy(at, &footer, sizeof footer);
        memcpy(at + sizeof footer, &entry, sizeof entry);
        entry.offset = 300 - 227;
        assert_false(wf_s3_entry_right(&entry, &footer));
        entry.offset = UINT64_MAX;
        assert_false(wf_s3_entry_right(&entry, &footer));
        entry.offset = 63;
        assert_false(wf_s3_entry_right(&entry, &footer));
        entry.offset = 64;
        entry.part_bytes = 0;
        assert_false(wf_s3_entry_right(&entry, &footer));
    }
    wf_s3_index_seal(&head, 2, sizeof data);
    memcpy(data, &head, sizeof head);
    for (size_t i = 0; i <= sizeof data; i++) {
        unsigned packs = 0;
        if (i < sizeof data)
            data[i] ^= 1;
        if (wf_s3_walk_begin(&walk, data, sizeof data))
            while (wf_s3_walk_next(&walk))
                packs++;
        unsigned most = i < sizeof head ? 0 : i < sizeof data - 200 ? 0 : i < sizeof data ? 1 : 2;
        assert_int_equal(packs, most);
        if (i < sizeof data)
            data[i] ^= 1;
    }
    assert_false(wf_s3_walk_begin(&walk, data, sizeof data - 1));
    assert_false(wf_s3_walk_begin(&walk, data, 3));
}

static void test_names(void **state)
{
    char name[WF_S3_NAME_MAX];
    uint64_t number, tag;
    (void)state;
    wf_s3_name_write(name, 'p', 255, UINT64_MAX);
    assert_string_equal(name, "p/00000000000000ff-ffffffffffffffff");
    assert_true(wf_s3_name_read(name, 'p', &number, &tag));
    assert_int_equal(number, 255);
    assert_true(tag == UINT64_MAX);
    assert_false(wf_s3_name_read(name, 'i', &number, &tag));
    name[5] = 'G';
    assert_false(wf_s3_name_read(name, 'p', &number, &tag));
    assert_false(wf_s3_name_read("p/", 'p', &number, &tag));
}

/* --------------------------------------------------------------------------- answers */

static void test_what_answers_amount_to(void **state)
{
    static const struct {
        long status;
        const char *code;
        enum wf_s3_outcome outcome;
        bool again;
    } answers[] = {
        {200, "", WF_S3_DONE, false},
        {206, "", WF_S3_DONE, false},
        {204, "", WF_S3_DONE, false},
        {404, "NoSuchKey", WF_S3_MISSING, false},
        {404, "", WF_S3_MISSING, false},
        {404, "NoSuchBucket", WF_S3_GONE, false},
        {403, "AccessDenied", WF_S3_GONE, false},
        {403, "SignatureDoesNotMatch", WF_S3_GONE, false},
        {400, "ExpiredToken", WF_S3_GONE, true},
        {400, "RequestTimeout", WF_S3_BROKEN, true},
        {400, "XAmzContentSHA256Mismatch", WF_S3_BROKEN, true},
        {400, "InvalidArgument", WF_S3_BROKEN, false},
        {409, "OperationAborted", WF_S3_BROKEN, true},
        {412, "PreconditionFailed", WF_S3_THERE, false},
        {416, "InvalidRange", WF_S3_BROKEN, false},
        {429, "", WF_S3_BROKEN, true},
        {500, "InternalError", WF_S3_BROKEN, true},
        {501, "NotImplemented", WF_S3_BROKEN, false},
        {503, "SlowDown", WF_S3_BROKEN, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        bool again = !answers[i].again;
        assert_int_equal(wf_s3_judge(answers[i].status, answers[i].code, &again),
                         answers[i].outcome);
        assert_int_equal(again, answers[i].again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_wrong_targets_are_refused),
        cmocka_unit_test(test_ini),
        cmocka_unit_test(test_credentials_in_their_order),
        cmocka_unit_test(test_credentials_from_services),
        cmocka_unit_test(test_xml),
        cmocka_unit_test(test_a_part_is_all_of_itself),
        cmocka_unit_test(test_an_index_is_read_as_far_as_it_is_right),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_answers_amount_to),
    };
    return cmocka_run_group_tests_name("tier_s3", tests, NULL, NULL);
}
