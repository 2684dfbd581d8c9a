/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is let in by an etcd that asks for a password or a certificate, and what comes of something
 * that answers as no etcd does.
 */
#include "../support/between.h"
#include "../support/etcd.h"
#include "base/log.h"
#include "member_world.h"
#include "sys/clock.h"

#define MEMBER_MS 20000u

/* An etcd of the test's own. */
static void start(struct etcd *etcd, bool tls)
{
    const char *missing = etcd_start(etcd, tls);
    if (missing) {
        print_message("# no etcd: %s\n", missing);
        skip();
    }
}

/* A node without a world: with what it needs to be let in, and what it is told of its standing. */
struct guest {
    struct wf_member_options options;
    struct wf_members *members;
    struct wf_standing standing;
    uint32_t left;
    char place[200];
};

static void guest_left(void *context, const struct wf_member *member)
{
    struct guest *guest = context;
    (void)member;
    guest->left++;
}

static void guest_joined(void *context, const struct wf_member *member)
{
    (void)context, (void)member;
}

static void guest_standing(void *context, const struct wf_standing *standing)
{
    struct guest *guest = context;
    guest->standing = *standing;
}

static void guest_open(struct guest *guest, const char *name, const char *scheme, const char *host,
                       uint16_t port)
{
    snprintf(guest->place, sizeof guest->place, "%s://%s:%u/%s", scheme, host, port, "guarded");
    guest->options.registry = guest->place;
    guest->options.name = name;
    guest->options.lease_ms = 2000;
    guest->options.events = (struct wf_member_events){guest, guest_joined, guest_left,
                                                      guest_standing, NULL};
    if (wf_member_etcd.open(&guest->options, &guest->members) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static void guest_close(struct guest *guest)
{
    wf_member_etcd.close(guest->members, MEMBER_MS);
    guest->members = NULL;
}

static bool guest_is(struct guest *guest, enum wf_standing_state state, uint32_t within_ms)
{
    for (uint64_t end = wf_now_ms() + within_ms; wf_now_ms() < end;) {
        wf_member_etcd.poll(guest->members, 20);
        wf_member_etcd.standing(guest->members, &guest->standing);
        if (guest->standing.state == state)
            return true;
    }
    return false;
}

/* It knows of such a member, or that there is none; itself it knows anyhow. */
static bool guest_knows(struct guest *guest, const char *name, bool there)
{
    struct wf_member list[4];
    for (uint64_t end = wf_now_ms() + MEMBER_MS; wf_now_ms() < end;) {
        uint32_t count = wf_member_etcd.list(guest->members, list, 4);
        bool itself = false, other = false;
        for (uint32_t i = 0; i < count && i < 4; i++) {
            itself = itself || strcmp(list[i].name, guest->options.name) == 0;
            other = other || strcmp(list[i].name, name) == 0;
        }
        if (itself && other == there)
            return true;
        wf_member_etcd.poll(guest->members, 20);
    }
    return false;
}

static void assert_why(const struct guest *guest, const char *word)
{
    if (!strstr(guest->standing.why, word))
        fail_msg("'%s' has no '%s'", guest->standing.why, word);
}

/* --------------------------------------------------------------------- users and passwords */

static void asked(const struct etcd *etcd, const char *token, const char *path, const char *body)
{
    char answer[1000];
    int code = etcd_ask(etcd, token, path, body, answer, sizeof answer);
    if (code != 200)
        fail_msg("%s: %d %s", path, code, answer);
}

static void enable_auth(const struct etcd *etcd)
{
    char body[300];
    asked(etcd, NULL, "/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"r\"}");
    asked(etcd, NULL, "/v3/auth/role/add", "{\"name\":\"root\"}");
    asked(etcd, NULL, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}");
    asked(etcd, NULL, "/v3/auth/role/add", "{\"name\":\"weft\"}");
    snprintf(body, sizeof body,
             "{\"name\":\"weft\",\"perm\":{\"permType\":\"READWRITE\",\"key\":\"%s\","
             "\"range_end\":\"%s\"}}",
             etcd_base64("/weft/guarded/"), etcd_base64("/weft/guarded0"));
    asked(etcd, NULL, "/v3/auth/role/grant", body);
    asked(etcd, NULL, "/v3/auth/user/add", "{\"name\":\"weft\",\"password\":\"sec\\\"ret\"}");
    asked(etcd, NULL, "/v3/auth/user/add", "{\"name\":\"other\",\"password\":\"o\"}");
    asked(etcd, NULL, "/v3/auth/user/grant", "{\"user\":\"weft\",\"role\":\"weft\"}");
    asked(etcd, NULL, "/v3/auth/enable", "{}");
}

void test_a_user_and_a_password(void **state)
{
    (void)state;
    struct etcd etcd;
    struct guest early = {.options = {.user = "weft", .password = "sec\"ret"}};
    struct guest right = early, wrong = {.options = {.user = "weft", .password = "guess"}};
    struct guest other = {.options = {.user = "other", .password = "o"}}, none = {.left = 0};
    start(&etcd, false);
    wf_log_level_set(WF_LOG_OFF);
    /* While etcd asks nobody, a password is no hindrance. */
    guest_open(&early, "early", "etcd", "127.0.0.1", etcd.port);
    assert_true(guest_is(&early, WF_STANDING_MEMBER, MEMBER_MS));
    uint64_t epoch = early.standing.epoch;
    enable_auth(&etcd);
    guest_open(&right, "right", "etcd", "127.0.0.1", etcd.port);
    guest_open(&wrong, "wrong", "etcd", "127.0.0.1", etcd.port);
    guest_open(&other, "other", "etcd", "127.0.0.1", etcd.port);
    guest_open(&none, "none", "etcd", "127.0.0.1", etcd.port);
    assert_true(guest_is(&right, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest_is(&wrong, WF_STANDING_REFUSED, MEMBER_MS));
    assert_true(guest_is(&other, WF_STANDING_REFUSED, MEMBER_MS));
    assert_true(guest_is(&none, WF_STANDING_REFUSED, MEMBER_MS));
    assert_why(&wrong, "does not know the user weft by this password");
    assert_why(&other, "permission denied");
    assert_why(&none, "asks for a user and a password");
    guest_close(&wrong);
    guest_close(&other);
    guest_close(&none);
    /* Its tokens are forgotten when it dies; who is in is in again. */
    etcd_kill(&etcd);
    assert_true(etcd_begin(&etcd));
    for (uint64_t end = wf_now_ms() + 2500; wf_now_ms() < end;) {
        wf_member_etcd.poll(early.members, 20);
        wf_member_etcd.poll(right.members, 20);
    }
    assert_true(guest_is(&early, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest_knows(&early, "right", true));
    assert_true(early.standing.epoch >= epoch); /* or is in again: a busy etcd may be slow */
    /* And hears of what changes. */
    assert_true(guest_is(&right, WF_STANDING_MEMBER, MEMBER_MS));
    guest_close(&right);
    assert_true(guest_knows(&early, "right", false));
    guest_close(&early);
    wf_log_level_set(WF_LOG_WARN);
    etcd_stop(&etcd);
}

/* --------------------------------------------------------------------------------- no room */

/* As if its quota was used up (etcdctl alarm), until that is over. */
static void full(const struct etcd *etcd, const char *action)
{
    char answer[1000], body[200];
    assert_int_equal(etcd_ask(etcd, NULL, "/v3/maintenance/status", "{}", answer, sizeof answer),
                     200);
    const char *member = strstr(answer, "\"member_id\":\"");
    assert_non_null(member);
    snprintf(body, sizeof body, "{\"action\":\"%s\",\"memberID\":\"%llu\",\"alarm\":\"NOSPACE\"}",
             action, strtoull(member + strlen("\"member_id\":\""), NULL, 10));
    asked(etcd, NULL, "/v3/maintenance/alarm", body);
}

struct change {
    bool ended;
    enum weft_status status;
    char sentence[WF_ERROR_MAX];
};

static void changed(void *context, enum weft_status status)
{
    struct change *change = context;
    change->ended = true;
    change->status = status;
    snprintf(change->sentence, sizeof change->sentence, "%s", wf_last_error());
}

static void change_setting(struct guest *guest, const char *name, struct change *change)
{
    *change = (struct change){.ended = false};
    assert_int_equal(wf_member_etcd.set(guest->members, name, "1", 0, changed, change), WEFT_OK);
    for (uint64_t end = wf_now_ms() + MEMBER_MS; !change->ended && wf_now_ms() < end;)
        wf_member_etcd.poll(guest->members, 20);
    assert_true(change->ended);
}

/* Whoever is in stays; who comes, and who wants something changed, hears why not. */
void test_an_etcd_that_is_full(void **state)
{
    (void)state;
    struct etcd etcd;
    struct guest early = {.left = 0}, late = {.left = 0};
    struct change change;
    start(&etcd, false);
    wf_log_level_set(WF_LOG_OFF);
    guest_open(&early, "early", "etcd", "127.0.0.1", etcd.port);
    assert_true(guest_is(&early, WF_STANDING_MEMBER, MEMBER_MS));
    uint64_t epoch = early.standing.epoch;
    full(&etcd, "ACTIVATE");
    guest_open(&late, "late", "etcd", "127.0.0.1", etcd.port);
    assert_true(guest_is(&late, WF_STANDING_REFUSED, MEMBER_MS));
    assert_why(&late, "is full (database space exceeded)");
    assert_why(&late, "etcdctl compact, defrag, alarm disarm");
    change_setting(&early, "s", &change);
    assert_int_equal(change.status, WEFT_E_DENIED);
    assert_non_null(strstr(change.sentence, "is full (database space exceeded)"));
    assert_int_equal(wf_member_etcd.publish(early.members, "elsewhere", "{}"), WEFT_OK);
    for (uint64_t end = wf_now_ms() + 3000; wf_now_ms() < end;) { /* longer than a lease */
        wf_member_etcd.poll(early.members, 20);
        wf_member_etcd.poll(late.members, 20);
        assert_int_equal(early.standing.epoch, epoch);
        assert_int_not_equal(late.standing.state, WF_STANDING_MEMBER);
    }
    full(&etcd, "DEACTIVATE");
    assert_true(guest_is(&late, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest_is(&early, WF_STANDING_MEMBER, MEMBER_MS));
    assert_int_equal(early.standing.epoch, epoch);
    assert_true(guest_knows(&early, "late", true));
    change_setting(&early, "s", &change);
    assert_int_equal(change.status, WEFT_OK);
    guest_close(&late);
    guest_close(&early);
    wf_log_level_set(WF_LOG_WARN);
    etcd_stop(&etcd);
}

/* ------------------------------------------------------------------------------ certificates */

void test_certificates(void **state)
{
    (void)state;
    struct etcd etcd;
    char ca[140], certificate[140], key[140], stranger[140];
    start(&etcd, true);
    wf_log_level_set(WF_LOG_OFF);
    snprintf(ca, sizeof ca, "%s/ca.pem", etcd.place);
    snprintf(certificate, sizeof certificate, "%s/client.pem", etcd.place);
    snprintf(key, sizeof key, "%s/client.key", etcd.place);
    snprintf(stranger, sizeof stranger, "%s/client.pem", etcd.place);
    struct guest right = {.options = {.ca = ca, .certificate = certificate, .key = key}};
    struct guest named = right, plain = {.left = 0};
    struct guest bare = {.options = {.ca = ca}};
    struct guest alone = {.options = {.ca = stranger, .certificate = certificate, .key = key}};
    guest_open(&right, "right", "etcds", "127.0.0.1", etcd.port);
    guest_open(&bare, "bare", "etcds", "127.0.0.1", etcd.port);   /* no certificate of its own */
    guest_open(&alone, "alone", "etcds", "127.0.0.1", etcd.port); /* another's CA */
    guest_open(&named, "named", "etcds", "localhost", etcd.port); /* who is not in it */
    guest_open(&plain, "plain", "etcd", "127.0.0.1", etcd.port);  /* without TLS */
    assert_true(guest_is(&right, WF_STANDING_MEMBER, MEMBER_MS));
    struct guest *others[] = {&bare, &alone, &named, &plain};
    static const char *const mends[] = {"see to fabric.certificate and fabric.key",
                                        "see to fabric.registry_ca",
                                        "that the certificate there names this host",
                                        "write etcds:// in fabric.join"};
    for (size_t i = 0; i < 4; i++) {
        assert_false(guest_is(others[i], WF_STANDING_MEMBER, 300));
        assert_int_equal(others[i]->standing.epoch, 0);
        assert_why(others[i], "etcd at ");
        assert_why(others[i], mends[i]);
        guest_close(others[i]);
    }
    assert_true(guest_is(&right, WF_STANDING_MEMBER, MEMBER_MS));
    guest_close(&right);
    wf_log_level_set(WF_LOG_WARN);
    etcd_stop(&etcd);
}

/* ----------------------------------------------------------------------------- hostile answers */

#define OK_JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
#define HEADER "\"header\":{\"cluster_id\":\"1\",\"revision\":\"5\"}"

static const char *const fakes[] = {
    "",
    "\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n<html><h1>502</h1></html>",
    "HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n{\"error\":\"\x1b[2J\",\"code\":14}",
    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>welcome to the hotel</html>",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    OK_JSON "",
    OK_JSON "{}",
    OK_JSON "[[[[",
    OK_JSON "{\"kvs\":[{\"key\":\"",
    OK_JSON "{" HEADER "}",
    OK_JSON "{" HEADER ",\"ID\":\"7\",\"TTL\":\"-5\"}",
    OK_JSON "{" HEADER ",\"ID\":\"0\",\"TTL\":\"5\"}",
    OK_JSON "{" HEADER ",\"ID\":\"7\",\"TTL\":\"9000000000000000000\"}",
    OK_JSON "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":7}]}}]}",
    OK_JSON "{" HEADER ",\"more\":true,\"kvs\":[{\"key\":\"L3dlZnQ=\",\"value\":\"\"}]}",
    OK_JSON "{\"error\":\"etcdserver: requested lease not found\"}",
    OK_JSON "{\"error\":\"etcdserver: mvcc: required revision has been compacted\"}",
    OK_JSON "{\"error\":\"etcdserver: invalid auth token\"}",
    OK_JSON "{\"error\":\"etcdserver: permission denied\"}",
};

/* Answers of more bytes than any may have: one long line, and one head without an end. */
static char *huge(const char *begins, char filler, size_t *out_bytes)
{
    size_t bytes = (size_t)9 << 20;
    char *text = malloc(bytes);
    assert_non_null(text);
    memset(text, filler, bytes);
    memcpy(text, begins, strlen(begins));
    *out_bytes = bytes;
    return text;
}

/* It is not let in by such an answer, has a sentence that can be shown, and does not ask without a
 * pause. */
static void endure(struct guest *guest, struct between *between, const char *text, size_t bytes)
{
    between_fake(between, text, bytes);
    uint64_t before = between_answered(between), begun = wf_now_ms();
    while (between_answered(between) < before + 4 && wf_now_ms() < begun + MEMBER_MS) {
        wf_member_etcd.poll(guest->members, 10);
        wf_member_etcd.standing(guest->members, &guest->standing);
        if (guest->standing.state == WF_STANDING_MEMBER)
            fail_msg("a member by '%.60s'", text);
    }
    if (between_answered(between) < before + 4)
        fail_msg("it does not ask again after '%.60s'", text);
    uint64_t asked_in = between_answered(between) - before, ms = wf_now_ms() - begun + 1;
    if (asked_in * 1000 / ms > 400 && asked_in > 20)
        fail_msg("%llu requests in %llu ms after '%.60s'", (unsigned long long)asked_in,
                 (unsigned long long)ms, text);
    for (const char *c = guest->standing.why; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            fail_msg("what is shown after '%.60s' is not fit for it", text);
    if (!guest->standing.why[0])
        fail_msg("no sentence after '%.60s'", text);
}

/* Returns what is to be freed when nobody answers with it any more. */
static char *endure_all(struct guest *guest, struct between *between)
{
    size_t bytes;
    for (size_t i = 0; i < sizeof fakes / sizeof fakes[0]; i++)
        endure(guest, between, fakes[i], strlen(fakes[i]));
    char *text = huge(OK_JSON "{\"a\":\"", 'a', &bytes);
    endure(guest, between, text, bytes);
    return text;
}

void test_answers_that_are_hostile(void **state)
{
    (void)state;
    struct etcd etcd;
    struct guest guest = {.left = 0};
    char hosts[100];
    start(&etcd, false);
    wf_log_level_set(WF_LOG_OFF);
    struct between *between = between_begin(etcd.port);
    between_fake(between, "", 0);
    /* Several endpoints, so that it pauses only after so many. */
    unsigned port = between_port(between);
    snprintf(hosts, sizeof hosts, "127.0.0.1:%u,127.0.0.1:%u,127.0.0.1:%u,127.0.0.1", port, port,
             port);
    guest_open(&guest, "guest", "etcd", hosts, between_port(between));
    char *text = endure_all(&guest, between);
    between_set(between, BETWEEN_PASS);
    assert_true(guest_is(&guest, WF_STANDING_MEMBER, MEMBER_MS));
    guest_close(&guest);
    between_end(between);
    free(text);
    etcd_stop(&etcd);
    wf_log_level_set(WF_LOG_WARN);
}

/* The same to one who is a member: it is that until its lease is over, and whom it knew it knows.
 */
void test_a_member_among_hostile_answers(void **state)
{
    (void)state;
    struct etcd etcd;
    struct guest guest = {.left = 0}, other = {.left = 0};
    struct wf_member list[2];
    start(&etcd, false);
    wf_log_level_set(WF_LOG_OFF);
    struct between *between = between_begin(etcd.port);
    guest_open(&guest, "guest", "etcd", "127.0.0.1", between_port(between));
    guest_open(&other, "other", "etcd", "127.0.0.1", etcd.port);
    assert_true(guest_is(&other, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest_is(&guest, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest_knows(&guest, "other", true));
    uint64_t epoch = guest.standing.epoch;
    static const char html[] = OK_JSON "<html>";
    between_fake(between, html, sizeof html - 1);
    /* The stream that there is goes on by the fake, too: cut, it is asked for anew. */
    between_set(between, BETWEEN_CUT);
    between_set(between, BETWEEN_FAKE);
    assert_true(guest_is(&guest, WF_STANDING_LOST, MEMBER_MS));
    assert_why(&guest, "not JSON");
    assert_int_equal(guest.left, 0);
    assert_int_equal(wf_member_etcd.list(guest.members, list, 2), 2);
    between_set(between, BETWEEN_PASS);
    assert_true(guest_is(&guest, WF_STANDING_MEMBER, MEMBER_MS));
    assert_true(guest.standing.epoch > epoch);
    guest_close(&guest);
    guest_close(&other);
    between_end(between);
    etcd_stop(&etcd);
    wf_log_level_set(WF_LOG_WARN);
}
