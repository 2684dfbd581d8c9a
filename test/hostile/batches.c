/* SPDX-License-Identifier: Apache-2.0
 *
 * What strangers may reserve: long batches that name a key twice, keys that are there in the
 * middle, reservations as their own parents, commits out of order and twice, and reservations that
 * nobody ever commits; many clients at once, in a pool that holds only a few such batches.
 *
 * No slot is two clients' at once, a chain has no hole, a good client is served throughout, and
 * when the strangers have gone nothing of theirs is reserved.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "../support/raw.h"

#define BLOCK_BYTES 16384
#define SLOTS 16384u /* more than the pool ever numbers: it is asserted */
#define STRANGERS 12u
#define TURNS 4000u
#define KEYS 700u /* that strangers share, some more than the pool holds */
#define MINE_MAX 600u
#define FREE UINT32_MAX

static const char *const settings[] = {
    "pool.size=8MB",         "pool.size_max=8MB",          "staging=1MB",
    "limits.clients=32",     "limits.pins=1024",           "limits.reserved=600",
    "domains=default,guest", "domain.guest.writes=copied", NULL};

struct mine {
    uint32_t slot, generation;
};

struct stranger {
    struct raw *raw;
    uint32_t format, domain;
    struct mine mine[MINE_MAX];
    uint32_t count;
};

struct scene {
    struct weftd node;
    struct weft *good;
    struct weft_format *format;
    struct stranger strangers[STRANGERS];
    uint32_t owner[2][SLOTS]; /* whose reservation a slot of a domain is */
    uint64_t fulls, given, new_keys;
    struct random_source random;
};

static const char *const domains[] = {"default", "guest"};

static void arrive(struct scene *s, uint32_t i)
{
    struct stranger *one = &s->strangers[i];
    one->domain = i % 2;
    one->count = 0;
    assert_int_equal(raw_hello(one->raw, &s->node, domains[one->domain]), WEFT_OK);
    one->format = raw_format(one->raw, "batches", BLOCK_BYTES);
    assert_int_not_equal(one->format, UINT32_MAX);
}

static void leave(struct scene *s, uint32_t i)
{
    struct stranger *one = &s->strangers[i];
    raw_close(one->raw);
    while (one->count > 0)
        s->owner[one->domain][one->mine[--one->count].slot] = FREE;
}

static void key_make(struct scene *s, uint8_t key[32])
{
    bool known = random_below(&s->random, 3) > 0;
    random_key(known ? random_below(&s->random, KEYS) : 1000000 + s->new_keys++, key);
}

/* Statuses of a chain: nothing comes after what found no room. */
static void chain_right(const struct raw *raw, uint32_t count)
{
    bool full = false;
    for (uint32_t i = 0; i < count; i++) {
        int32_t status = raw->answer.reserve.blocks[i].status;
        assert_true(status == WEFT_OK || status == WEFT_EXISTS || status == WEFT_FULL);
        assert_true(!full || status == WEFT_FULL);
        full |= status == WEFT_FULL;
    }
}

static void reserve(struct scene *s, uint32_t i)
{
    static union {
        struct wf_reserve head;
        uint8_t bytes[WF_MESSAGE_MAX];
    } message;
    struct stranger *one = &s->strangers[i];
    struct wf_reserve *request = &message.head;
    uint32_t count = 1 + random_below(&s->random, random_below(&s->random, 2) ? 40 : 512);
    memset(request, 0, sizeof *request);
    request->format = one->format;
    request->count = count;
    request->flags = random_below(&s->random, 8) ? WEFT_CHAINED : 0;
    request->parent_kind = random_below(&s->random, 3);
    if (one->count && request->parent_kind == WF_PARENT_SLOT) {
        const struct mine *mine = &one->mine[random_below(&s->random, one->count)];
        request->parent_slot = mine->slot;
        request->parent_generation = mine->generation + (random_below(&s->random, 8) == 0);
    }
    random_key(random_below(&s->random, KEYS), request->parent);
    for (uint32_t k = 0; k < count; k++) {
        if (k > 0 && random_below(&s->random, 8) == 0)
            memcpy(request->keys[k], request->keys[random_below(&s->random, k)], 32);
        else
            key_make(s, request->keys[k]);
    }
    int32_t status = raw_ask(one->raw, request, WF_OP_RESERVE,
                             sizeof *request + count * sizeof request->keys[0]);
    if (status != WEFT_OK) {
        assert_true(status == WEFT_E_LIMIT || status == WEFT_E_PARENT);
        return;
    }
    if (request->flags & WEFT_CHAINED)
        chain_right(one->raw, count);
    for (uint32_t k = 0; k < count; k++) {
        const struct wf_reserved *block = &one->raw->answer.reserve.blocks[k];
        s->fulls += block->status == WEFT_FULL;
        if (block->status != WEFT_OK)
            continue;
        s->given++;
        assert_true(block->slot < SLOTS && one->count < MINE_MAX);
        assert_int_equal(s->owner[one->domain][block->slot], FREE);
        s->owner[one->domain][block->slot] = i;
        one->mine[one->count++] = (struct mine){block->slot, block->generation};
    }
}

/* Some of what is reserved, in any order, some of it twice.  Copied writes: of nothing, so that
 * their checksums are wrong. */
static void end(struct scene *s, uint32_t i, uint16_t op)
{
    static union {
        struct wf_commit head;
        uint8_t bytes[WF_MESSAGE_MAX];
    } message;
    struct stranger *one = &s->strangers[i];
    uint32_t count = 0;
    memset(&message.head, 0, sizeof message.head);
    while (one->count > 0 && count < 500 && random_below(&s->random, 400)) {
        bool first = random_below(&s->random, 4) > 0; /* mostly in the order of the chain */
        uint32_t at = first ? 0 : random_below(&s->random, one->count);
        const struct wf_commit_block block = {.slot = one->mine[at].slot,
                                              .generation = one->mine[at].generation};
        message.head.blocks[count++] = block;
        if (random_below(&s->random, 10) == 0)
            message.head.blocks[count++] = block;
        s->owner[one->domain][block.slot] = FREE;
        memmove(&one->mine[at], &one->mine[at + 1], (one->count - at - 1) * sizeof one->mine[0]);
        one->count--;
    }
    message.head.count = count;
    assert_int_equal(raw_ask(one->raw, &message, op, RAW_COMMIT_BYTES(count)), WEFT_OK);
}

static void served(struct scene *s, uint64_t name)
{
    struct weft_key key;
    struct weft_slot slot;
    struct weft_pin pin;
    assert_int_equal(weft_key_from_bytes(s->format, &name, sizeof name, &key), WEFT_OK);
    assert_int_equal(weft_reserve_keys(s->format, NULL, &key, 1, 0, &slot), WEFT_OK);
    if (slot.status == WEFT_FULL)
        return; /* strangers hold all of it by reservations */
    assert_int_equal(slot.status, WEFT_OK);
    payload_fill(slot.data, BLOCK_BYTES, key.bytes);
    assert_int_equal(weft_commit_slots(s->format, &slot, 1), WEFT_OK);
    assert_int_equal(weft_pin(s->format, &key, &pin), WEFT_OK);
    assert_true(payload_right(pin.data, BLOCK_BYTES, key.bytes));
    weft_unpin(&pin);
}

static void test_hostile_batches(void **state)
{
    (void)state;
    static struct scene scene;
    static struct raw raws[STRANGERS];
    struct scene *s = &scene;
    s->random = random_seeded("batches");
    memset(s->owner, 0xff, sizeof s->owner);
    weftd_run(&s->node, settings);
    s->good = weftd_connect(&s->node, "default");
    assert_non_null(s->good);
    s->format = weftd_format(s->good, "good", BLOCK_BYTES);
    assert_non_null(s->format);
    for (uint32_t i = 0; i < STRANGERS; i++) {
        s->strangers[i].raw = &raws[i];
        arrive(s, i);
    }
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        uint32_t i = random_below(&s->random, STRANGERS), what = random_below(&s->random, 20);
        if (what < 8) {
            reserve(s, i);
        } else if (what < 16) {
            end(s, i, WF_OP_COMMIT);
        } else if (what < 19) {
            end(s, i, WF_OP_ABORT);
        } else {
            leave(s, i);
            arrive(s, i);
        }
        if (turn % 50 == 0)
            served(s, turn);
    }
    /* How many were refused for worth is chance: it goes by who asks when. */
    print_message("%llu blocks given, %llu found no room, %lld of them for worth\n",
                  (unsigned long long)s->given, (unsigned long long)s->fulls,
                  (long long)weftd_number(s->good, "default", "full_for_worth"));
    assert_true(s->given > TURNS && s->fulls > 0);
    for (uint32_t i = 0; i < STRANGERS; i++)
        leave(s, i);
    assert_true(weftd_settles(s->good, NULL, "clients", 1));
    for (int d = 0; d < 2; d++)
        assert_int_equal(weftd_number(s->good, domains[d], "blocks_reserved"), 0);
    served(s, TURNS);
    weft_format_close(s->format);
    weft_close(s->good);
    assert_true(weftd_stop(&s->node));
    weftd_clean(&s->node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
