/* SPDX-License-Identifier: Apache-2.0
 *
 * Certificates that are no good, and those that change while a node runs: who shows one that has
 * expired, is not good yet, or is of another CA has no link, and a sentence says why; one that was
 * renewed is used for the next link, and a link that there is goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/net.h"

#define WAIT_S 20
#define DAY 86400l

struct side {
    struct wf_net *net;
    struct wf_net_link *link;
    bool up, down;
    char why[512], name[64];
};

static struct side a, b;
static char place[64], files[6][96];
static const char *const ca_file = files[0];
static EVP_PKEY *ca_key, *other_key, *key_a, *key_b;
static X509 *ca, *other_ca;

/* -------------------------------------------------------------------------------- certificates */

static X509 *certificate(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key,
                         long from_s, long to_s)
{
    X509 *made = X509_new();
    assert_non_null(made);
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), issuer ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(made), from_s);
    X509_gmtime_adj(X509_getm_notAfter(made), to_s);
    X509_set_pubkey(made, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(made, X509_get_subject_name(issuer ? issuer : made));
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints,
                                                    issuer ? "CA:FALSE" : "critical,CA:TRUE");
    assert_non_null(extension);
    X509_add_ext(made, extension, -1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(made, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    return made;
}

/* As who renews it does: beside it, and then in its place. */
static void pem_write(const char *path, X509 *one, EVP_PKEY *key, const char *text)
{
    char beside[128];
    snprintf(beside, sizeof beside, "%s.new", path);
    FILE *file = fopen(beside, "we");
    assert_non_null(file);
    if (one)
        assert_int_equal(PEM_write_X509(file, one), 1);
    if (key)
        assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    if (text)
        fputs(text, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(beside, path), 0);
}

/* b shows this from now on. */
static void b_shows(X509 *issuer, EVP_PKEY *issuer_key, const char *name, long from_s, long to_s)
{
    X509 *one = certificate(key_b, name, issuer, issuer_key, from_s, to_s);
    pem_write(files[4], one, NULL, NULL);
    X509_free(one);
}

/* --------------------------------------------------------------------------------------- links */

static bool up(void *context, struct wf_net_link *link, const void *hello, uint32_t bytes,
               const char *name)
{
    struct side *s = context;
    (void)hello, (void)bytes;
    s->link = link;
    s->up = true;
    s->down = false;
    snprintf(s->name, sizeof s->name, "%s", name);
    return true;
}

static void down(void *context, struct wf_net_link *link, enum weft_status status,
                 const char *sentence)
{
    struct side *s = context;
    (void)link, (void)status;
    s->link = NULL;
    s->down = true;
    snprintf(s->why, sizeof s->why, "%s", sentence);
}

static uint32_t begun(void *context, struct wf_net_link *link, const void *header, uint32_t bytes,
                      uint64_t payload_bytes, struct iovec *out, void **out_token)
{
    (void)context, (void)link, (void)header, (void)bytes, (void)payload_bytes, (void)out;
    (void)out_token;
    return 0;
}

static void arrived(void *context, struct wf_net_link *link, void *token, enum weft_status status)
{
    (void)context, (void)link, (void)token, (void)status;
}

static void side_begin(struct side *s, const char *shows, const char *key)
{
    const struct wf_net_options options = {
        .listen = "tcp:127.0.0.1:0",
        .security = {.proof = WF_NET_PROOF_TLS, .certificate = shows, .key = key, .ca = ca_file},
        .events = {s, up, down, begun, NULL, arrived}};
    memset(s, 0, sizeof *s);
    if (wf_net_tcp.create(&options, &s->net) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

/* Has b a link to a? */
static bool meets(void)
{
    struct wf_net_link *link;
    a.up = b.up = b.down = false;
    assert_int_equal(wf_net_tcp.connect(b.net, wf_net_tcp.address(a.net), NULL, &link), WEFT_OK);
    for (time_t end = time(NULL) + WAIT_S; !(b.up && a.up) && !b.down;) {
        assert_int_equal(wf_net_tcp.poll(a.net, 1), WEFT_OK);
        assert_int_equal(wf_net_tcp.poll(b.net, 1), WEFT_OK);
        assert_true(time(NULL) <= end);
    }
    /* TLS 1.3: who is refused may be up for a moment, as it was the last to speak. */
    for (int i = 0; i < 20 && !b.down; i++) {
        assert_int_equal(wf_net_tcp.poll(a.net, 1), WEFT_OK);
        assert_int_equal(wf_net_tcp.poll(b.net, 1), WEFT_OK);
    }
    return b.up && a.up && !b.down;
}

static void refuses(const char *word)
{
    struct wf_net_stats before, after;
    wf_net_tcp.stats(a.net, &before);
    assert_false(meets());
    time_t end = time(NULL) + WAIT_S;
    do {
        assert_int_equal(wf_net_tcp.poll(a.net, 1), WEFT_OK);
        wf_net_tcp.stats(a.net, &after);
        assert_true(time(NULL) <= end);
    } while (after.refused == before.refused);
    if (!strstr(b.why, word))
        fail_msg("'%s' has no '%s'", b.why, word);
}

static int begin(void **state)
{
    (void)state;
    static const char *const names[] = {"ca", "a", "a.key", "other", "b", "b.key"};
    snprintf(place, sizeof place, "/tmp/weft-break-tls-XXXXXX");
    assert_non_null(mkdtemp(place));
    for (int i = 0; i < 6; i++)
        snprintf(files[i], sizeof files[i], "%s/%s.pem", place, names[i]);
    ca_key = EVP_EC_gen("P-256");
    other_key = EVP_EC_gen("P-256");
    key_a = EVP_EC_gen("P-256");
    key_b = EVP_EC_gen("P-256");
    ca = certificate(ca_key, "a CA", NULL, NULL, -DAY, DAY);
    other_ca = certificate(other_key, "another CA", NULL, NULL, -DAY, DAY);
    X509 *shown = certificate(key_a, "a", ca, ca_key, -DAY, DAY);
    pem_write(files[0], ca, NULL, NULL);
    pem_write(files[1], shown, NULL, NULL);
    pem_write(files[2], NULL, key_a, NULL);
    pem_write(files[3], other_ca, NULL, NULL);
    pem_write(files[5], NULL, key_b, NULL);
    X509_free(shown);
    b_shows(ca, ca_key, "b", -DAY, DAY);
    side_begin(&a, files[1], files[2]);
    side_begin(&b, files[4], files[5]);
    return 0;
}

static int end(void **state)
{
    (void)state;
    wf_net_tcp.destroy(a.net);
    wf_net_tcp.destroy(b.net);
    for (int i = 0; i < 6; i++)
        unlink(files[i]);
    rmdir(place);
    X509_free(ca);
    X509_free(other_ca);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(other_key);
    EVP_PKEY_free(key_a);
    EVP_PKEY_free(key_b);
    return 0;
}

/* --------------------------------------------------------------------------------------- tests */

static void what_is_no_good_is_refused(void **state)
{
    (void)state;
    assert_true(meets());
    assert_string_equal(a.name, "b");
    b_shows(ca, ca_key, "b", -2 * DAY, -DAY);
    refuses("expired");
    b_shows(ca, ca_key, "b", DAY / 2, DAY);
    refuses("certificate"); /* that it is not good yet is not among what TLS can tell it */
    b_shows(other_ca, other_key, "b", -DAY, DAY);
    refuses("unknown ca");
    b_shows(ca, ca_key, "renewed", -DAY, DAY);
    assert_true(meets());
    assert_string_equal(a.name, "renewed");
}

/* Of the other side's, by who looks at it: the reason, in words. */
static void who_refuses_says_why(void **state)
{
    (void)state;
    X509 *old = certificate(key_a, "a", ca, ca_key, -2 * DAY, -DAY);
    X509 *young = certificate(key_a, "a", ca, ca_key, DAY / 2, DAY);
    X509 *good = certificate(key_a, "a", ca, ca_key, -DAY, DAY);
    pem_write(files[1], old, NULL, NULL);
    assert_false(meets());
    assert_non_null(strstr(b.why, "has expired"));
    pem_write(files[1], young, NULL, NULL);
    assert_false(meets());
    assert_non_null(strstr(b.why, "not yet valid"));
    pem_write(files[1], good, NULL, NULL);
    assert_true(meets());
    X509_free(old);
    X509_free(young);
    X509_free(good);
}

/* Half of it is written, or it is no certificate: what there was goes on being used. */
static void what_cannot_be_used_changes_nothing(void **state)
{
    (void)state;
    EVP_PKEY *next = EVP_EC_gen("P-256");
    X509 *one = certificate(next, "next", ca, ca_key, -DAY, DAY);
    pem_write(files[4], NULL, NULL, "no certificate\n");
    assert_true(meets());
    assert_int_equal(unlink(files[4]), 0);
    assert_true(meets());
    assert_string_equal(a.name, "b");
    pem_write(files[4], one, NULL, NULL); /* its key is to come */
    assert_true(meets());
    assert_string_equal(a.name, "b");
    pem_write(files[5], NULL, next, NULL);
    assert_true(meets());
    assert_string_equal(a.name, "next");
    X509_free(one);
    EVP_PKEY_free(next);
}

/* A link that there is goes on, whatever is in the files. */
static void a_link_outlives_its_certificate(void **state)
{
    (void)state;
    assert_true(meets());
    const struct wf_net_link *first = a.link;
    b_shows(ca, ca_key, "b", -2 * DAY, -DAY);
    refuses("expired");
    assert_ptr_equal(a.link, first);
    assert_false(a.down);
}

/* The CA is another: who shows one of the old comes in no more, and who shows one of it does. */
static void another_ca(void **state)
{
    (void)state;
    assert_true(meets());
    b_shows(other_ca, other_key, "b", -DAY, DAY);
    X509 *shown = certificate(key_a, "a", other_ca, other_key, -DAY, DAY);
    pem_write(files[1], shown, NULL, NULL);
    refuses("ca");
    pem_write(files[0], other_ca, NULL, NULL);
    assert_true(meets());
    X509_free(shown);
}

/* One that is somebody else's is this side's own mistake: it does not begin with it, goes on with
 * what it had when it comes later, and says so itself. */
static void its_own_name_is_asked_for(void **state)
{
    (void)state;
    struct wf_net *none;
    struct wf_net_options options = {.security = {.proof = WF_NET_PROOF_TLS,
                                                  .certificate = files[4],
                                                  .key = files[5],
                                                  .ca = ca_file,
                                                  .name = "c"},
                                     .events = {&b, up, down, begun, NULL, arrived}};
    assert_int_equal(wf_net_tcp.create(&options, &none), WEFT_E_INVALID);
    if (!strstr(wf_last_error(), "is of 'b', and this node is 'c'"))
        fail_msg("%s", wf_last_error());
    options.security.name = "b";
    wf_net_tcp.destroy(b.net);
    assert_int_equal(wf_net_tcp.create(&options, &b.net), WEFT_OK);
    assert_true(meets());
    b_shows(ca, ca_key, "c", -DAY, DAY);
    assert_true(meets());
    assert_string_equal(a.name, "b");
    b_shows(ca, ca_key, "b", -DAY, DAY / 2);
    assert_true(meets());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_good_is_refused),
        TEST(who_refuses_says_why),
        TEST(what_cannot_be_used_changes_nothing),
        TEST(a_link_outlives_its_certificate),
        TEST(another_ca),
        TEST(its_own_name_is_asked_for),
    };
    return cmocka_run_group_tests_name("certificates", tests, NULL, NULL);
}
