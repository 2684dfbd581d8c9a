/* SPDX-License-Identifier: Apache-2.0
 *
 * Strangers and what lies below DRAM: LOAD, DEMOTE and ARCHIVE with nonsense in every field, keys
 * of other domains, chains that contradict themselves, clients that leave while they wait.
 *
 * Two domains share a node, its pool and a tier.  What one of them does, or is, the other must not
 * notice: its blocks stay where they are, come back with its own bytes, and go below when it asks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/raw.h"

#define BLOCK_BYTES 65536
#define KEYS_MAX 512
#define WAIT_MS 10000

struct stage {
    struct weftd node;
    char secret[128], guest[192], tier[160];
    const char *settings[16];
    struct weft *good;
};

/* A client by hand, with its domain's pool mapped. */
struct side {
    struct raw raw;
    uint8_t *pool;
    uint32_t format;
};

union request {
    struct wf_message message;
    struct wf_reserve reserve;
    struct wf_commit commit;
    struct wf_load load;
    struct wf_demote demote;
    struct wf_archive archive;
    struct wf_remove remove;
    uint8_t bytes[WF_MESSAGE_MAX];
};

static void settings_make(struct stage *s, bool with_guest)
{
    const char *all[] = {"pool.size=8MB",
                         "pool.size_max=8MB",
                         "tiers=nvme0",
                         s->tier,
                         "tier.nvme0.size=24MB",
                         "tier.nvme0.admit=always",
                         "tier.nvme0.archive=true",
                         "limits.pins=4096",
                         "drain=1s",
                         with_guest ? "domains=guest,default" : "domains=default",
                         with_guest ? s->guest : NULL,
                         NULL};
    memcpy(s->settings, all, sizeof all);
}

static void open_node(struct stage *s)
{
    bool open = false;
    if (!weftd_start(&s->node, s->settings, NULL)) {
        weftd_show_log(&s->node);
        fail_msg("the node did not start");
    }
    s->good = weftd_connect(&s->node, "default");
    assert_non_null(s->good);
    for (int waited = 0; !open && waited < WAIT_MS; waited += 5) {
        char *text;
        assert_int_equal(weft_query(s->good, "events", 0, &text), WEFT_OK);
        open = strstr(text, "tier_open") != NULL;
        weft_text_free(text);
        weftd_sleep_ms(5);
    }
    assert_true(open);
}

static int before(void **state)
{
    static struct stage s;
    memset(&s, 0, sizeof s);
    weftd_prepare(&s.node);
    snprintf(s.secret, sizeof s.secret, "%s/guest", s.node.directory);
    snprintf(s.guest, sizeof s.guest, "domain.guest.secret_file=%s", s.secret);
    snprintf(s.tier, sizeof s.tier, "tier.nvme0.path=%s/nvme0", s.node.directory);
    FILE *secret = fopen(s.secret, "wxe");
    assert_non_null(secret);
    assert_int_equal(fchmod(fileno(secret), 0600), 0);
    fputs("another secret of more than thirty-two bytes, for tests alone", secret);
    assert_int_equal(fclose(secret), 0);
    settings_make(&s, true);
    open_node(&s);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    assert_true(weftd_settles(s->good, NULL, "clients", 1));
    assert_true(weftd_settles(s->good, "default", "blocks_reserved", 0));
    weft_close(s->good);
    bool ended = weftd_stop(&s->node);
    if (!ended)
        weftd_show_log(&s->node);
    weftd_clean(&s->node);
    return ended ? 0 : 1;
}

static void side_open(struct side *side, const struct stage *s, const char *domain)
{
    assert_int_equal(raw_hello(&side->raw, &s->node, domain), WEFT_OK);
    side->pool = mmap(NULL, side->raw.pool_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                      side->raw.segments[1], 0);
    assert_ptr_not_equal(side->pool, MAP_FAILED);
    side->format = raw_format(&side->raw, "below", BLOCK_BYTES);
    assert_int_not_equal(side->format, UINT32_MAX);
}

static void side_close(struct side *side)
{
    munmap(side->pool, side->raw.pool_bytes);
    raw_close(&side->raw);
}

/* What a domain writes under a key: its own, so that the other's is told from it. */
static void content_of(uint64_t number, bool guest, uint8_t out[32])
{
    random_key(number + (guest ? 1000000 : 0), out);
}

/* Put a chain of keys `first` …, on the block `parent` unless that is 0; how many are there. */
static uint32_t put(struct side *side, uint64_t parent, uint64_t first, uint32_t count, bool guest)
{
    static union request request;
    static struct wf_reserve_answer *answer;
    union raw_commit commit = {.head = {.count = 1}};
    memset(&request.reserve, 0, sizeof request.reserve);
    request.reserve.format = side->format;
    request.reserve.count = count;
    request.reserve.flags = WEFT_CHAINED;
    request.reserve.parent_kind = parent ? WF_PARENT_KEY : WF_PARENT_NONE;
    random_key(parent, request.reserve.parent);
    for (uint32_t i = 0; i < count; i++)
        random_key(first + i, request.reserve.keys[i]);
    assert_int_equal(raw_ask(&side->raw, &request, WF_OP_RESERVE,
                             sizeof request.reserve + count * 32),
                     WEFT_OK);
    answer = malloc(side->raw.answer_bytes);
    assert_non_null(answer);
    memcpy(answer, &side->raw.answer, side->raw.answer_bytes);
    uint32_t there = 0;
    for (; there < count && answer->blocks[there].status >= 0; there++) {
        const struct wf_reserved *block = &answer->blocks[there];
        uint8_t content[32];
        if (block->status == WEFT_EXISTS)
            continue;
        if (block->status != WEFT_OK)
            break;
        content_of(first + there, guest, content);
        payload_fill(side->pool + block->offset, BLOCK_BYTES, content);
        commit.head.blocks[0] = (struct wf_commit_block){.slot = block->slot,
                                                         .generation = block->generation};
        assert_int_equal(raw_ask(&side->raw, &commit, WF_OP_COMMIT, RAW_COMMIT_BYTES(1)), WEFT_OK);
        assert_in_range(side->raw.answer.commit.status[0], WEFT_OK, WEFT_EXISTS);
    }
    free(answer);
    return there;
}

/* The node's word on the chain's way down: WEFT_OK when none of it is in DRAM any more. */
static int32_t demote(struct side *side, uint64_t tip)
{
    struct wf_demote request;
    random_key(tip, request.tip);
    return raw_ask(&side->raw, &request, WF_OP_DEMOTE, sizeof request);
}

/* How many of the keys come up, with the bytes of their domain.  Waits for what is on its way. */
static uint32_t load(struct side *side, uint64_t first, uint32_t count, bool guest)
{
    static union request request;
    uint32_t there = 0;
    for (int waited = 0; waited < WAIT_MS; waited += 5) {
        memset(&request.load, 0, sizeof request.load);
        request.load.count = count;
        request.load.flags = WF_LOAD_BLOCKS | WF_LOAD_PREFETCH;
        for (uint32_t i = 0; i < count; i++)
            random_key(first + i, request.load.keys[i]);
        assert_int_equal(raw_ask(&side->raw, &request, WF_OP_LOAD,
                                 sizeof request.load + count * 32),
                         WEFT_OK);
        const struct wf_load_answer *answer = (const void *)&side->raw.answer;
        bool pending = false;
        for (there = 0; there < count && answer->blocks[there].status != WEFT_MISS; there++)
            pending |= answer->blocks[there].status == WEFT_PENDING;
        for (uint32_t i = 0; i < there && !pending; i++) {
            uint8_t content[32];
            content_of(first + i, guest, content);
            assert_true(payload_right(side->pool + answer->blocks[i].offset, BLOCK_BYTES, content));
        }
        if (!pending)
            return there;
        weftd_sleep_ms(5);
    }
    fail_msg("what was loaded did not come");
    return there;
}

/* All of them; a prefetch that finds no room in DRAM at once is not begun. */
static bool comes(struct side *side, uint64_t first, uint32_t count, bool guest)
{
    uint32_t there = 0;
    for (int waited = 0; there < count && waited < WAIT_MS; waited += 50) {
        there = load(side, first, count, guest);
        if (there < count)
            weftd_sleep_ms(50);
    }
    return there == count;
}

static bool goes_down(struct side *side, uint64_t tip)
{
    int32_t status = WEFT_PENDING;
    for (int i = 0; i < 3 && status == WEFT_PENDING; i++) /* the node waits 3 s for it */
        status = demote(side, tip);
    return status == WEFT_OK;
}

/* ---------------------------------------------------------------------------------------- tests */

/* A chain that contradicts what the node knows of its keys cannot be below; but that is its own
 * misfortune: a tier that others use is not taken for full because of it. */
static void test_a_contradiction_stops_nobody_else(void **state)
{
    struct stage *s = *state;
    struct side bad, good;
    side_open(&bad, s, "guest");
    side_open(&good, s, "default");
    assert_int_equal(put(&bad, 0, 100, 3, true), 3);
    assert_true(goes_down(&bad, 102));
    /* The second of the chain once more, as the first of another, and one behind it. */
    assert_int_equal(put(&bad, 0, 101, 1, true), 1);
    assert_int_equal(put(&bad, 101, 110, 1, true), 1);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(demote(&bad, 110), WEFT_PENDING);
        assert_int_equal(put(&good, 0, 200 + 10 * i, 4, false), 4);
        assert_int_equal(demote(&good, 200 + 10 * i + 3), WEFT_OK);
        assert_true(comes(&good, 200 + 10 * i, 4, false));
    }
    side_close(&bad);
    side_close(&good);
}

/* Keys are secrets of a domain as good as any, but a client may send what it likes: also a key that
 * it has heard of.  It finds nothing under it but what its own domain put there, and whatever it
 * does with it, the other domain has its own as before. */
static void test_the_same_key_in_two_domains(void **state)
{
    struct stage *s = *state;
    struct side guest, thief;
    union request request;
    side_open(&guest, s, "guest");
    side_open(&thief, s, "default");
    assert_int_equal(put(&guest, 0, 1000, 4, true), 4);
    assert_true(goes_down(&guest, 1003));
    assert_int_equal(load(&thief, 1000, 4, false), 0);
    assert_int_equal(put(&thief, 0, 1000, 4, false), 4);
    assert_true(comes(&thief, 1000, 4, false));
    assert_true(comes(&guest, 1000, 4, true));
    assert_true(goes_down(&guest, 1003));
    /* There is no room below for a second block of that key, and so it stays in DRAM, or goes. */
    assert_int_equal(demote(&thief, 1003), WEFT_PENDING);
    random_key(1000, request.remove.key);
    assert_int_equal(raw_ask(&thief.raw, &request, WF_OP_REMOVE, sizeof request.remove), WEFT_OK);
    assert_int_equal(raw_ask(&thief.raw, &request, WF_OP_REMOVE, sizeof request.remove), WEFT_MISS);
    assert_int_equal(load(&thief, 1000, 4, false), 0);
    assert_true(comes(&guest, 1000, 4, true));
    assert_true(goes_down(&guest, 1003));
    /* One that extends the other's block, in its own domain, and is no more than its own. */
    assert_int_equal(put(&thief, 0, 1000, 1, false), 1);
    assert_int_equal(put(&thief, 1000, 1100, 1, false), 1);
    assert_int_equal(demote(&thief, 1100), WEFT_PENDING);
    assert_int_equal(raw_ask(&thief.raw, &request, WF_OP_REMOVE, sizeof request.remove), WEFT_OK);
    assert_true(comes(&guest, 1000, 4, true));
    assert_true(goes_down(&guest, 1003));
    side_close(&guest);
    side_close(&thief);
}

static void restart(struct stage *s, bool with_guest)
{
    weft_close(s->good);
    assert_true(weftd_stop(&s->node));
    settings_make(s, with_guest);
    open_node(s);
}

/* A domain that is not configured for a while keeps what it has below, and nobody reads it. */
static void test_a_domain_that_is_away(void **state)
{
    struct stage *s = *state;
    struct side guest, thief;
    side_open(&guest, s, "guest");
    assert_int_equal(put(&guest, 0, 2000, 4, true), 4);
    assert_true(goes_down(&guest, 2003));
    side_close(&guest);
    restart(s, false);
    side_open(&thief, s, "default");
    assert_int_equal(load(&thief, 2000, 4, false), 0);
    assert_int_equal(put(&thief, 0, 2000, 4, false), 4);
    (void)demote(&thief, 2003);
    for (uint64_t i = 0; i < 40; i++) /* and out of DRAM by pressure, if not so */
        assert_int_equal(put(&thief, 0, 3000 + 10 * i, 4, false), 4);
    (void)load(&thief, 2000, 4, false); /* its own bytes, if any */
    side_close(&thief);
    restart(s, true);
    side_open(&guest, s, "guest");
    assert_true(comes(&guest, 2000, 4, true));
    side_close(&guest);
}

/* A request of one of the three ops whose every field is right, or nearly, or anything. */
static size_t request_any(struct random_source *r, const struct side *side, union request *out,
                          uint16_t *out_op)
{
    static const uint32_t odd[] = {0, 1, 2, 511, 512, 513, 0x7fffffff, 0x80000000, UINT32_MAX};
    static const uint16_t ops[] = {WF_OP_LOAD, WF_OP_DEMOTE, WF_OP_ARCHIVE};
    uint32_t count = 1 + random_below(r, 40), first = 5000 + 10 * random_below(r, 12);
    size_t bytes = 0;
    memset(out->bytes, 0, sizeof out->bytes);
    *out_op = ops[random_below(r, 3)];
    switch (*out_op) {
    case WF_OP_LOAD:
        bytes = sizeof out->load + count * 32u;
        out->load.count = random_below(r, 4) ? count : odd[random_below(r, 9)];
        out->load.flags = random_below(r, 4) ? random_below(r, 4) : odd[random_below(r, 9)];
        out->load.within_ms = odd[random_below(r, 9)];
        out->load.session = random_below(r, 2) ? 0 : random_next(r) >> random_below(r, 64);
        for (uint32_t i = 0; i < count; i++) /* also one key many times, and chains backwards */
            random_key(first + (random_below(r, 8) ? i : random_below(r, 4)), out->load.keys[i]);
        break;
    case WF_OP_DEMOTE:
        bytes = sizeof out->demote;
        random_key(first + random_below(r, 4), out->demote.tip);
        break;
    default:
        bytes = sizeof out->archive;
        out->archive.format = random_below(r, 4) ? side->format : odd[random_below(r, 9)];
        out->archive.flags = random_below(r, 4) ? random_below(r, 2) : odd[random_below(r, 9)];
        random_key(first + random_below(r, 4), out->archive.tip);
        memset(out->archive.name, 'a' + (int)random_below(r, 4), 1 + random_below(r, 3));
        if (random_below(r, 6) == 0)
            memset(out->archive.name, (int)random_below(r, 256), sizeof out->archive.name);
        break;
    }
    if (random_below(r, 10) == 0) /* shorter than what it says that it has */
        bytes = sizeof out->message + random_below(r, (uint32_t)(bytes - sizeof out->message) + 1);
    out->message = (struct wf_message){.magic = WF_CONTROL_MAGIC,
                                       .op = *out_op,
                                       .version = WF_CONTROL_VERSION,
                                       .bytes = (uint32_t)bytes,
                                       .sequence = random_next(r)};
    return bytes;
}

/* What became an archive, or still becomes one with nobody who waits for it, is one no more. */
static void archives_remove(const struct stage *s)
{
    struct weft *w = weftd_connect(&s->node, "guest");
    assert_non_null(w);
    for (int letter = 'a'; letter < 'e'; letter++)
        for (size_t length = 1; length < 4; length++) {
            char name[4] = "";
            enum weft_status status = WEFT_E_BUSY;
            memset(name, letter, length);
            for (int waited = 0; status == WEFT_E_BUSY && waited < 2 * WAIT_MS; waited += 20) {
                status = weft_archive_remove(w, name);
                if (status == WEFT_E_BUSY)
                    weftd_sleep_ms(20);
            }
            assert_true(status == WEFT_OK || status == WEFT_E_NOT_FOUND);
        }
    weft_close(w);
}

/* Nonsense, several requests at once without waiting for an answer, and gone in the middle of it:
 * while they are parked, while loads write into their slots, while an archive is made. */
static void test_nonsense_and_gone(void **state)
{
    struct stage *s = *state;
    struct random_source r = random_seeded("strangers below");
    struct side good;
    side_open(&good, s, "default");
    for (int round = 0; round < 60; round++) {
        union request request;
        struct side bad;
        uint16_t op;
        side_open(&bad, s, "guest");
        for (uint32_t i = 0; i < 3; i++)
            (void)put(&bad, 0, 5000 + 10 * random_below(&r, 12), 1 + random_below(&r, 8), true);
        for (uint32_t i = 0; i < 20; i++) {
            size_t bytes = request_any(&r, &bad, &request, &op);
            if (!raw_send(&bad.raw, request.bytes, bytes))
                break;
            if (random_below(&r, 2) && !raw_receive(&bad.raw))
                break;
        }
        side_close(&bad);
        if (round % 10 == 0) {
            assert_int_equal(put(&good, 0, 6000 + 10 * (uint64_t)round, 4, false), 4);
            assert_true(goes_down(&good, 6000 + 10 * (uint64_t)round + 3));
            assert_true(comes(&good, 6000 + 10 * (uint64_t)round, 4, false));
        }
    }
    side_close(&good);
    assert_true(weftd_settles(s->good, NULL, "clients", 1));
    assert_true(weftd_settles(s->good, "guest", "blocks_reserved", 0));
    assert_true(weftd_settles(s->good, "default", "blocks_reserved", 0));
    archives_remove(s);
}

/* What is only in DRAM goes below when the node stops, whatever a client that is stuck in the
 * middle of a put does not do meanwhile. */
static void test_a_stop_with_a_put_that_never_ends(void **state)
{
    struct stage *s = *state;
    struct side stuck, good;
    side_open(&stuck, s, "guest");
    side_open(&good, s, "default");
    assert_int_equal(put(&good, 0, 4000, 4, false), 4);
    assert_int_equal(raw_reserve(&stuck.raw, stuck.format, 4100, 1), WEFT_OK);
    side_close(&good);
    weft_close(s->good);
    assert_true(weftd_stop(&s->node));
    side_close(&stuck);
    open_node(s);
    side_open(&good, s, "default");
    assert_true(comes(&good, 4000, 4, false));
    side_close(&good);
}

/* Ask for a chain that is below, in a session's name, until some of it is on its way. */
static void prefetch_as(struct side *side, uint64_t session, uint64_t first, uint32_t count)
{
    static union request request;
    const struct wf_load_answer *answer = (const void *)&side->raw.answer;
    for (int waited = 0; waited < WAIT_MS; waited += 5) {
        memset(&request.load, 0, sizeof request.load);
        request.load.count = count;
        request.load.flags = WF_LOAD_BLOCKS | WF_LOAD_PREFETCH;
        request.load.session = session;
        for (uint32_t i = 0; i < count; i++)
            random_key(first + i, request.load.keys[i]);
        assert_int_equal(raw_ask(&side->raw, &request, WF_OP_LOAD,
                                 sizeof request.load + count * 32),
                         WEFT_OK);
        if (answer->blocks[0].status == WEFT_PENDING)
            return;
        weftd_sleep_ms(5);
    }
    fail_msg("what was asked for is not on its way");
}

static bool events_name(const struct stage *s, uint64_t session)
{
    char *text, word[64];
    assert_int_equal(weft_query(s->good, "events", 0, &text), WEFT_OK);
    snprintf(word, sizeof word, "\"session\":%llu,", (unsigned long long)session);
    bool named = strstr(text, word) != NULL;
    weft_text_free(text);
    return named;
}

/* Whose number a client gives when it asks for blocks is its own business only when it is its own:
 * of another's session nothing is told that this did not do. */
static void test_a_prefetch_in_the_name_of_another(void **state)
{
    struct stage *s = *state;
    struct side its, other;
    struct wf_session_open open = {.priority = 5};
    side_open(&its, s, "default");
    side_open(&other, s, "default");
    open.format = its.format;
    assert_int_equal(raw_ask(&its.raw, &open, WF_OP_SESSION_OPEN, sizeof open), WEFT_OK);
    uint64_t session = its.raw.answer.session.session;
    for (uint64_t chain = 0; chain < 2; chain++) {
        assert_int_equal(put(&its, 0, 7000 + 10 * chain, 4, false), 4);
        assert_true(goes_down(&its, 7000 + 10 * chain + 3));
    }
    prefetch_as(&other, session, 7000, 4);
    assert_false(events_name(s, session));
    prefetch_as(&its, session, 7010, 4);
    assert_true(events_name(s, session));
    side_close(&its);
    side_close(&other);
}

/* As the client's library asks for it: again, as long as it goes on. */
static int32_t archive(struct side *side, uint64_t tip, uint32_t name)
{
    struct wf_archive request = {.format = side->format};
    int32_t status = WEFT_PENDING;
    random_key(tip, request.tip);
    snprintf(request.name, sizeof request.name, "archive %u", name);
    for (int i = 0; i < 300 && status == WEFT_PENDING; i++)
        status = raw_ask(&side->raw, &request, WF_OP_ARCHIVE, sizeof request);
    return status;
}

/* An archive is never pushed out, and so a domain cannot archive what would push out another's
 * blocks: its part of a tier is as large as its part of the pool. */
static void test_nobody_archives_more_than_a_part(void **state)
{
    enum { CHAINS = 10, LONG = 32, GOOD = 1 };
    struct stage *s = *state;
    struct side greedy, good;
    uint32_t archived = 0;
    side_open(&greedy, s, "guest");
    side_open(&good, s, "default");
    for (uint64_t i = 0; i < GOOD; i++) {
        assert_int_equal(put(&good, 0, 20000 + 100 * i, LONG, false), LONG);
        assert_true(goes_down(&good, 20000 + 100 * i + LONG - 1));
    }
    int32_t status = WEFT_OK;
    for (uint64_t i = 0; i < CHAINS && status == WEFT_OK; i++) {
        uint64_t first = 30000 + 100 * i;
        assert_int_equal(put(&greedy, 0, first, LONG, true), LONG);
        status = archive(&greedy, first + LONG - 1, (uint32_t)i);
        archived += status == WEFT_OK;
    }
    assert_int_equal(status, WEFT_FULL);
    assert_non_null(strstr(((const struct wf_archive_answer *)&greedy.raw.answer)->sentence,
                           "others have a part"));
    assert_in_range(archived, 1, 4); /* of 19 MiB that may be filled, a half has 4.8 of 2 MiB */
    for (uint64_t i = 0; i < CHAINS; i++) /* and what it does not archive, goes before */
        (void)(put(&greedy, 0, 40000 + 100 * i, LONG, true) &&
               demote(&greedy, 40000 + 100 * i + LONG - 1));
    for (uint64_t i = 0; i < GOOD; i++)
        assert_true(comes(&good, 20000 + 100 * i, LONG, false));
    side_close(&greedy);
    side_close(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prefetch_in_the_name_of_another),
        cmocka_unit_test(test_a_stop_with_a_put_that_never_ends),
        cmocka_unit_test(test_a_contradiction_stops_nobody_else),
        cmocka_unit_test(test_the_same_key_in_two_domains),
        cmocka_unit_test(test_a_domain_that_is_away),
        cmocka_unit_test(test_nonsense_and_gone),
        cmocka_unit_test(test_nobody_archives_more_than_a_part),
    };
    return cmocka_run_group_tests_name("strangers below", tests, before, after);
}
