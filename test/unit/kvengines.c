/* SPDX-License-Identifier: Apache-2.0
 *
 * What engines say that they hold: heard, replayed where it was missed, bounded, and forgotten as
 * soon as it is in doubt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../gateway/kvevents_vectors.h"
#include "../support/kvpublisher.h"
#include "gateway/kvengines.h"
#include "gateway/kvengines_table.h"

#define MIB ((uint64_t)1 << 20)
#define BLOCK_TOKENS 4

static void *context;
static struct kvpublisher engine;
static struct wf_kvengines *heard;
static struct wf_kvengine_figures now;

/* ------------------------------------------------------------------------------------- support */

static void look(void)
{
    static const struct timespec pause = {.tv_nsec = 2000000};
    kvpublisher_serve(&engine);
    wf_kvengines_figures(heard, 0, &now);
    nanosleep(&pause, NULL);
}

#define UNTIL(condition)                                                  \
    do {                                                                  \
        int looks = 0;                                                    \
        for (look(); !(condition); look())                                \
            if (++looks == 5000)                                          \
                fail_msg("not so after %d looks: %s", looks, #condition); \
        look(); /* figures that are no older than it */                   \
    } while (0)

static void listen_to(bool replay, uint64_t memory)
{
    static char endpoint[96], at[96]; /* borrowed until the end, when `engine` may be another */
    memcpy(endpoint, engine.endpoint, sizeof endpoint);
    memcpy(at, engine.replay, sizeof at);
    const struct wf_kvengine_options options = {.name = "one",
                                                .endpoint = endpoint,
                                                .replay = replay ? at : "",
                                                .topic = "kv",
                                                .patience_ms = 300};
    engine.topic = "kv@one";
    assert_int_equal(wf_kvengines_start(&options, 1, memory, &heard), WEFT_OK);
    assert_true(kvpublisher_subscribed(&engine));
    UNTIL(now.state == WF_KVENGINE_LIVE);
}

static void begin(bool replay)
{
    kvpublisher_open(&engine, context, NULL, NULL);
    listen_to(replay, MIB);
}

static void end(void)
{
    wf_kvengines_stop(heard);
    kvpublisher_close(&engine);
}

static struct wf_kv_block *block_of(uint32_t number, uint32_t parent)
{
    uint8_t hash[32] = {0}, before[32] = {0};
    uint32_t tokens[BLOCK_TOKENS] = {number, number, number, number};
    memcpy(hash + 28, &(uint32_t){__builtin_bswap32(number)}, 4);
    memcpy(before + 28, &(uint32_t){__builtin_bswap32(parent)}, 4);
    const struct wf_kv_meaning meaning = {.hash = hash,
                                          .hash_bytes = 32,
                                          .parent = before,
                                          .parent_bytes = parent ? 32 : 0,
                                          .tokens = tokens,
                                          .token_count = BLOCK_TOKENS};
    return wf_kv_block_create(&meaning);
}

static void say(enum wf_kv_kind kind, enum wf_kv_medium medium, uint32_t number, bool lost)
{
    struct wf_kv_block *block = kind == WF_KV_CLEARED ? NULL : block_of(number, number - 1);
    const struct wf_kv_said said = {kind, medium, block};
    kvpublisher_say(&engine, &said, 1, lost);
    wf_kv_block_put(block);
}

/* A mask of media; by all of the hash, and by its last 8 bytes. */
static uint32_t where(uint32_t number)
{
    struct wf_kv_block *block = block_of(number, 0);
    uint32_t all = wf_kvengines_where(heard, 0, wf_kv_block_hash(block), 32),
             part = wf_kvengines_where(heard, 0, wf_kv_block_hash(block) + 24, 8);
    assert_int_equal(all, part);
    wf_kv_block_put(block);
    return all;
}

#define GPU (1u << WF_KV_GPU)
#define CPU (1u << WF_KV_CPU)

/* --------------------------------------------------------------------------------------- tests */

static void hears_both_encodings(void **state)
{
    (void)state;
    static const struct {
        const uint8_t *data;
        size_t bytes;
    } vectors[] = {{map_bytes, sizeof map_bytes},
                   {map_numbers, sizeof map_numbers},
                   {array_bytes, sizeof array_bytes},
                   {array_numbers, sizeof array_numbers}};
    begin(false);
    for (size_t i = 0; i < 4; i++) {
        kvpublisher_publish(&engine, vectors[i].data, vectors[i].bytes, false);
        UNTIL(now.batches == i + 1);
        /* Three come, two go, and then all. */
        assert_int_equal(now.stored, 3 * (i + 1));
        assert_int_equal(now.removed, 2 * (i + 1));
        assert_int_equal(now.cleared, i + 1);
        assert_int_equal(now.blocks, 0);
        assert_int_equal(now.bytes, 0);
    }
    kvpublisher_publish(&engine, map_rich, sizeof map_rich, false);
    UNTIL(now.batches == 5);
    assert_int_equal(now.hbm_blocks, 2);
    assert_int_equal(now.gaps + now.forgotten + now.refused, 0);
    end();
}

static void knows_where(void **state)
{
    (void)state;
    begin(false);
    say(WF_KV_STORED, WF_KV_GPU, 1, false);
    say(WF_KV_STORED, WF_KV_CPU, 1, false);
    say(WF_KV_STORED, WF_KV_GPU, 2, false);
    say(WF_KV_STORED, WF_KV_GPU, 2, false); /* said twice is there once */
    UNTIL(now.batches == 4);
    assert_int_equal(now.blocks, 2);
    assert_int_equal(where(1), GPU | CPU);
    assert_int_equal(where(2), GPU);
    assert_int_equal(where(3), 0);
    struct wf_kv_block *one = block_of(2, 1),
                       *said = wf_kvengines_meaning(heard, 0, wf_kv_block_hash(one), 32);
    assert_non_null(said);
    assert_true(wf_kv_block_same(one, said) || said->hash_bytes == 32);
    assert_int_equal(said->token_count, BLOCK_TOKENS);
    wf_kv_block_put(said);
    wf_kv_block_put(one);
    say(WF_KV_REMOVED, WF_KV_GPU, 1, false);
    say(WF_KV_REMOVED, WF_KV_GPU, 2, false);
    say(WF_KV_REMOVED, WF_KV_GPU, 7, false); /* of which nothing is known */
    UNTIL(now.batches == 7);
    assert_int_equal(where(1), CPU);
    assert_int_equal(where(2), 0);
    assert_int_equal(now.blocks, 1);
    assert_int_equal(now.hbm_blocks, 0);
    end();
}

/* What was published before anybody listened. */
static void asks_for_what_was_before(void **state)
{
    (void)state;
    kvpublisher_open(&engine, context, NULL, NULL);
    engine.topic = "kv@one";
    for (uint32_t i = 1; i <= 5; i++)
        say(WF_KV_STORED, WF_KV_GPU, i, true);
    listen_to(true, MIB);
    assert_int_equal(now.replays, 1);
    assert_int_equal(now.replayed, 5);
    assert_int_equal(now.hbm_blocks, 5);
    say(WF_KV_STORED, WF_KV_GPU, 6, false);
    UNTIL(now.hbm_blocks == 6);
    assert_int_equal(now.gaps, 0);
    end();
}

static void fill_a_gap(bool topicless)
{
    begin(true);
    engine.topicless = topicless;
    say(WF_KV_STORED, WF_KV_GPU, 1, false);
    say(WF_KV_STORED, WF_KV_GPU, 2, false);
    UNTIL(now.hbm_blocks == 2);
    say(WF_KV_REMOVED, WF_KV_GPU, 1, true);
    say(WF_KV_STORED, WF_KV_GPU, 3, true);
    say(WF_KV_STORED, WF_KV_GPU, 4, false);
    say(WF_KV_STORED, WF_KV_GPU, 5, false); /* waits, or was replayed as well */
    UNTIL(now.state == WF_KVENGINE_LIVE && now.stored == 5);
    assert_int_equal(now.gaps, 1);
    assert_int_equal(now.missed, 2);
    assert_int_equal(now.forgotten, 0);
    assert_int_equal(where(1), 0);
    for (uint32_t i = 2; i <= 5; i++)
        assert_int_equal(where(i), GPU);
    end();
}

static void fills_a_gap(void **state)
{
    (void)state;
    fill_a_gap(false);
}

static void fills_a_gap_from_an_older_engine(void **state)
{
    (void)state;
    fill_a_gap(true);
}

/* A replay that has not all of it, or none, or answers nothing: what was known is in doubt. */
static void forgets_what_is_in_doubt(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        begin(way != 3);
        say(WF_KV_STORED, WF_KV_GPU, 1, false);
        UNTIL(where(1) == GPU);
        say(WF_KV_STORED, WF_KV_GPU, 2, true);
        say(WF_KV_STORED, WF_KV_GPU, 3, true);
        engine.kept_from = way == 0 ? 2 : 1000; /* 3 alone is kept, or nothing is */
        engine.silent = way == 2;
        say(WF_KV_STORED, WF_KV_GPU, 4, false);
        UNTIL(where(4) == GPU);
        UNTIL(now.state == WF_KVENGINE_LIVE);
        assert_int_equal(where(1), 0);
        assert_int_equal(where(2), 0);
        assert_int_equal(where(3), way == 0 ? GPU : 0);
        assert_int_equal(now.forgotten, 1);
        assert_int_equal(now.gaps, 1);
        say(WF_KV_STORED, WF_KV_GPU, 5, false); /* and goes on */
        UNTIL(where(5) == GPU);
        assert_int_equal(now.gaps, 1);
        end();
    }
}

/* Numbers begin anew where the connection does not: a proxy between, or a socket that lives on. */
static void sees_numbers_go_back(void **state)
{
    (void)state;
    for (int replay = 0; replay < 2; replay++) {
        begin(replay);
        for (uint32_t i = 1; i <= 3; i++)
            say(WF_KV_STORED, WF_KV_GPU, i, false);
        UNTIL(now.hbm_blocks == 3);
        for (int i = 0; i < 3; i++) {
            free(engine.kept[i].data);
            engine.kept[i].data = NULL;
        }
        engine.number = 0;
        say(WF_KV_STORED, WF_KV_GPU, 9, false);
        UNTIL(where(9) == GPU);
        assert_int_equal(now.restarts, 1);
        assert_int_equal(now.forgotten, 1);
        assert_int_equal(now.blocks, 1);
        assert_int_equal(where(1), 0);
        end();
    }
}

/* A new life at the same place, that is further with its numbers than the old one when it is first
 * heard: nothing of the old one may stay. */
static void sees_a_lost_connection(void **state)
{
    (void)state;
    for (int replay = 0; replay < 2; replay++) {
        char endpoint[96], at[96];
        begin(replay);
        say(WF_KV_STORED, WF_KV_GPU, 1, false);
        UNTIL(where(1) == GPU);
        memcpy(endpoint, engine.endpoint, sizeof endpoint);
        memcpy(at, engine.replay, sizeof at);
        kvpublisher_close(&engine);
        for (int looks = 0; now.state != WF_KVENGINE_AWAY && looks < 5000; looks++) {
            static const struct timespec pause = {.tv_nsec = 2000000};
            wf_kvengines_figures(heard, 0, &now);
            nanosleep(&pause, NULL);
        }
        assert_int_equal(now.state, WF_KVENGINE_AWAY);
        assert_int_equal(now.blocks, 0);
        assert_int_equal(where(1), 0);
        kvpublisher_open(&engine, context, endpoint, at);
        engine.topic = "kv@one";
        for (uint32_t i = 10; i < 20; i++)
            say(WF_KV_STORED, WF_KV_GPU, i, true);
        assert_true(kvpublisher_subscribed(&engine));
        UNTIL(now.state == WF_KVENGINE_LIVE);
        say(WF_KV_STORED, WF_KV_GPU, 20, false);
        UNTIL(where(20) == GPU);
        assert_int_equal(where(1), 0);
        assert_int_equal(now.hbm_blocks, replay ? 11 : 1);
        assert_int_equal(now.connections, 2);
        end();
    }
}

static void stands_nonsense(void **state)
{
    (void)state;
    begin(true);
    say(WF_KV_STORED, WF_KV_GPU, 1, false);
    UNTIL(where(1) == GPU);
    /* Not three frames, a number that is none, and the one that ends replays. */
    zmq_send(engine.pub, "kv", 2, 0);
    zmq_send(engine.pub, "kv", 2, ZMQ_SNDMORE);
    zmq_send(engine.pub, "seven b", 7, ZMQ_SNDMORE);
    zmq_send(engine.pub, map_bytes, sizeof map_bytes, 0);
    kvpublisher_frames(&engine, engine.pub, "kv", UINT64_MAX, map_bytes, sizeof map_bytes);
    for (int i = 0; i < 40; i++)
        zmq_send(engine.pub, "kv", 2, i < 39 ? ZMQ_SNDMORE : 0);
    UNTIL(now.refused == 4);
    assert_int_equal(where(1), GPU); /* nothing of what is known is in doubt by it */
    /* A batch that is torn: what it said is not known. */
    kvpublisher_publish(&engine, map_bytes, sizeof map_bytes - 1, false);
    UNTIL(now.refused == 5 && now.state == WF_KVENGINE_LIVE);
    assert_int_equal(now.forgotten, 1);
    assert_int_equal(where(1), 0);
    say(WF_KV_STORED, WF_KV_GPU, 3, false);
    UNTIL(where(3) == GPU);
    /* One that is larger than any is let be: libzmq hangs up, and what was known goes with it. */
    uint8_t *large = calloc(1, WF_KVENGINES_MESSAGE_MAX + 1);
    assert_non_null(large);
    kvpublisher_publish(&engine, large, WF_KVENGINES_MESSAGE_MAX + 1, false);
    free(large);
    engine.kept_from = engine.number;
    UNTIL(now.connections == 2 && now.state == WF_KVENGINE_LIVE);
    assert_int_equal(where(3), 0);
    end();
}

static void is_bounded(void **state)
{
    (void)state;
    enum { MANY = 40000, EACH = 500 };
    static struct wf_kv_said said[EACH];
    kvpublisher_open(&engine, context, NULL, NULL);
    listen_to(false, MIB);
    for (uint32_t from = 1; from <= MANY; from += EACH) {
        for (uint32_t i = 0; i < EACH; i++)
            said[i] = (struct wf_kv_said){WF_KV_STORED, WF_KV_GPU, block_of(from + i, 0)};
        kvpublisher_say(&engine, said, EACH, false);
        for (uint32_t i = 0; i < EACH; i++)
            wf_kv_block_put(said[i].block);
        UNTIL(now.batches == 1 + from / EACH);
    }
    assert_true(now.bytes <= MIB && now.blocks > 1000);
    assert_int_equal(now.blocks + now.dropped, MANY);
    assert_true(where(1) == GPU && where(MANY) == 0);
    /* What goes makes room. */
    say(WF_KV_REMOVED, WF_KV_GPU, 1, false);
    say(WF_KV_STORED, WF_KV_GPU, MANY + 1, false);
    UNTIL(now.batches == MANY / EACH + 2);
    assert_true(where(1) == 0 && where(MANY + 1) == GPU);
    say(WF_KV_CLEARED, WF_KV_NOWHERE, 0, false);
    UNTIL(now.cleared == 1);
    assert_int_equal(now.blocks, 0);
    assert_int_equal(now.bytes, 0);
    end();
}

/* Groups of layers, other hosts, and what tokens alone do not make a hash of. */
static void table_knows_places(void **state)
{
    (void)state;
    struct wf_kv_table table;
    assert_int_equal(wf_kv_table_init(&table, MIB, 1), WEFT_OK);
    uint8_t hash[32] = {[31] = 1}, next[32] = {[31] = 2}, other[32] = {[0] = 1, [31] = 1};
    uint32_t tokens[2] = {1, 2};
    struct wf_kv_heard in = {
        .kind = WF_KV_STORED,
        .medium = WF_KV_NOWHERE,
        .group = 3,
        .plain = true,
        .meaning = {.hash = hash, .hash_bytes = 32, .tokens = tokens, .token_count = 2}};
    wf_kv_table_hear(&table, &in); /* nowhere is its HBM */
    in.group = 100;
    wf_kv_table_hear(&table, &in);
    assert_int_equal(table.table.count, 1);
    assert_int_equal(table.on_gpu, 1);
    in.kind = WF_KV_REMOVED;
    in.group = 3;
    wf_kv_table_hear(&table, &in);
    assert_int_equal(table.on_gpu, 1); /* the other group's is there still */
    const struct wf_kv_place *place = wf_kv_table_find(&table, hash, 32);
    assert_true(place && place->plain && wf_kv_place_on(place, WF_KV_GPU));
    assert_false(wf_kv_place_on(place, WF_KV_CPU));
    assert_null(wf_kv_table_find(&table, other, 32)); /* the same number, and not the same */
    assert_non_null(wf_kv_table_find(&table, hash + 24, 8));
    /* A child of a plain one is; one of an unknown parent, or with an image, is not. */
    in.kind = WF_KV_STORED;
    in.meaning.hash = next;
    in.meaning.parent = hash;
    in.meaning.parent_bytes = 32;
    wf_kv_table_hear(&table, &in);
    assert_true(wf_kv_table_find(&table, next, 32)->plain);
    uint8_t third[32] = {[31] = 3}, fourth[32] = {[31] = 4}, fifth[32] = {[31] = 5};
    in.meaning.hash = fourth;
    in.meaning.parent = third;
    wf_kv_table_hear(&table, &in);
    assert_false(wf_kv_table_find(&table, fourth, 32)->plain);
    in.meaning.hash = fifth;
    in.meaning.parent = next;
    in.plain = false;
    wf_kv_table_hear(&table, &in);
    place = wf_kv_table_find(&table, fifth, 32);
    assert_true(place && !place->plain && place->block->token_count == 0);
    assert_false(wf_kv_table_clear(&table, 1000));
    assert_int_equal(table.bytes, 0);
    wf_kv_table_fini(&table);
}

static int all_start(void **state)
{
    (void)state;
    context = zmq_ctx_new();
    return context ? 0 : -1;
}

static int all_stop(void **state)
{
    (void)state;
    zmq_ctx_term(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_knows_places),
        cmocka_unit_test(hears_both_encodings),
        cmocka_unit_test(knows_where),
        cmocka_unit_test(asks_for_what_was_before),
        cmocka_unit_test(fills_a_gap),
        cmocka_unit_test(fills_a_gap_from_an_older_engine),
        cmocka_unit_test(forgets_what_is_in_doubt),
        cmocka_unit_test(sees_numbers_go_back),
        cmocka_unit_test(sees_a_lost_connection),
        cmocka_unit_test(stands_nonsense),
        cmocka_unit_test(is_bounded),
    };
    return cmocka_run_group_tests(tests, all_start, all_stop);
}
