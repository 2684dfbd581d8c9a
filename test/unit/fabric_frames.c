/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that cross encoded: when that is chosen, what goes over the link then, and that what comes
 * is the block or a miss, whatever came.  Between nodes in virtual time (net/sim.h), whose codec is
 * as fast as they say.
 */
#include <semaphore.h>

#include "base/sum.h"
#include "fabric/coder.h"

#include "fabric_world.h"

#define NODES 3
#define BLOCKS_MAX 512u
#define PART 65536u
#define GBIT ((uint64_t)125000000)
/* K and V of 16 layers: 32 KiB a plane, 1 MiB in all. */
#define LAYERS 16u
#define TOKENS 16u
#define HEADS 8u
#define HEAD_DIM 128u
#define BLOCK ((uint64_t)2 * LAYERS * TOKENS * HEADS * HEAD_DIM * 2)

struct block {
    struct wf_fabric_event event;
    uint8_t *data;
    bool noise;
};

struct node {
    struct wf_fabric *fabric;
    struct block blocks[BLOCKS_MAX];
    uint32_t count, held, choices;
};

struct spec {
    enum wf_fabric_codec codec;
    uint64_t lend, memory;
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Numbers as KV has them: about as large as their channel's.  Stored, not copied in:
 * each copy would be a call under TSan. */
static void fill(uint64_t seed, void *out, uint64_t bytes, bool noise)
{
    uint16_t *halves = out;
    uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
    for (uint64_t i = 0; i < bytes / 2; i++) {
        uint64_t bits = draw(&state);
        float value = ((float)(bits & 0xffff) + (float)(bits >> 16 & 0xffff) - 65536.0f) / 30000.0f;
        uint32_t word;
        value *= (float)(1 + i % HEAD_DIM % 5);
        memcpy(&word, &value, sizeof word);
        halves[i] = noise ? (uint16_t)(bits >> 40) : (uint16_t)(word >> 16);
    }
}

/* ------------------------------------------------------------------------------------ the nodes */

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    (void)domain;
    for (uint32_t i = 0; i < n->count; i++) {
        struct block *b = &n->blocks[i];
        if (memcmp(b->event.key, key, 32) != 0 || b->event.bytes != bytes)
            continue;
        *out = (struct wf_fabric_held){.data = b->data, .bytes = bytes};
        n->held++;
        return WEFT_OK;
    }
    return WEFT_MISS;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)held;
    ((struct node *)context)->held--;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    (void)domain;
    for (; *cursor < n->count; (*cursor)++)
        found(to, &n->blocks[*cursor].event);
    return false;
}

static bool layout(void *context, uint32_t domain, uint64_t bytes, struct wf_layout *out)
{
    (void)context, (void)domain;
    return bytes == BLOCK && wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, HEAD_DIM, out);
}

static void chose(void *context, const char *sentence)
{
    assert_non_null(strstr(sentence, "blocks"));
    ((struct node *)context)->choices++;
}

static void node_begin(int i, const struct spec *spec)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.each = each;
    options.host.layout = layout;
    options.host.chose = chose;
    options.lend_bytes = spec->lend;
    options.codec = spec->codec;
    options.codec_speed = (struct wf_codec_speed){.encode_mbps = 1500, .decode_mbps = 2000};
    options.codec_bytes = spec->memory;
    options.fetch_ms = 20000;
    world_node(i, &options);
}

static void begin(const struct spec specs[NODES], uint64_t bandwidth)
{
    const struct wf_net_sim_options net = {.seed = 11,
                                           .bandwidth = bandwidth,
                                           .piece_bytes = 16384};
    world_begin(nodes, sizeof nodes[0], NODES, &net);
    for (int i = 0; i < NODES; i++)
        node_begin(i, &specs[i]);
    pass(1500);
}

static void end(void)
{
    world_end();
    for (int i = 0; i < NODES; i++) {
        assert_int_equal(nodes[i].held, 0);
        for (uint32_t b = 0; b < nodes[i].count; b++)
            free(nodes[i].blocks[b].data);
    }
}

static struct wf_fabric_event event_of(uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = BLOCK};
    for (int i = 0; i < 32; i++)
        event.key[i] = (uint8_t)((number * 2654435761u) >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    return event;
}

static void have(struct node *n, uint32_t from, uint32_t to, bool noise)
{
    for (uint32_t i = from; i < to; i++) {
        struct block *b = &n->blocks[n->count++];
        *b = (struct block){.event = event_of(i), .data = malloc(BLOCK), .noise = noise};
        assert_non_null(b->data);
        fill(i, b->data, BLOCK, noise);
        wf_fabric_tell(n->fabric, &b->event);
    }
    pass(100);
}

/* -------------------------------------------------------------------------------------- fetches */

struct asked {
    struct wf_fabric_fetch fetch;
    uint32_t number;
    enum weft_status status;
    bool ended;
};

static void asked_over(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct asked *a = fetch->user;
    assert_false(a->ended);
    a->ended = true;
    a->status = status;
}

static void ask(struct node *n, struct asked *a, uint32_t number, uint32_t first, uint32_t count)
{
    struct wf_fabric_event event = event_of(number);
    *a = (struct asked){.number = number,
                        .fetch = {.bytes = BLOCK,
                                  .part_bytes = PART,
                                  .first_part = first,
                                  .part_count = count,
                                  .data = calloc(1, BLOCK),
                                  .done = asked_over}};
    assert_non_null(a->fetch.data);
    a->fetch.user = a;
    memcpy(a->fetch.key, event.key, 32);
    wf_fabric_fetch(n->fabric, &a->fetch);
}

/* It came, and is right; or did not, and only by that status. */
static bool take(struct asked *a, bool noise, enum weft_status otherwise)
{
    uint8_t *right = malloc(BLOCK);
    assert_non_null(right);
    for (int i = 0; i < 400 && !a->ended; i++)
        pass(50);
    assert_true(a->ended);
    fill(a->number, right, BLOCK, noise);
    uint64_t from = (uint64_t)a->fetch.first_part * PART;
    uint64_t bytes = a->fetch.part_count ? (uint64_t)a->fetch.part_count * PART : BLOCK;
    if (a->status == WEFT_OK)
        assert_memory_equal(a->fetch.data, right + from, bytes);
    else
        assert_int_equal(a->status, otherwise);
    free(right);
    free(a->fetch.data);
    return a->status == WEFT_OK;
}

/* Blocks from … to, `depth` at a time.  How many came. */
static uint32_t fetch_all(struct node *n, uint32_t from, uint32_t to, uint32_t depth, bool noise,
                          enum weft_status otherwise)
{
    struct asked *all = calloc(depth, sizeof *all);
    uint32_t right = 0;
    assert_non_null(all);
    for (uint32_t at = from; at < to; at += depth) {
        uint32_t count = to - at < depth ? to - at : depth;
        for (uint32_t i = 0; i < count; i++)
            ask(n, &all[i], at + i, 0, 0);
        for (uint32_t i = 0; i < count; i++)
            right += take(&all[i], noise, otherwise);
    }
    free(all);
    return right;
}

static uint64_t crossed(void)
{
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(world, &stats);
    return stats.bytes;
}

static const struct spec all_auto[NODES] = {{.codec = WF_FABRIC_CODEC_AUTO},
                                            {.codec = WF_FABRIC_CODEC_AUTO},
                                            {.codec = WF_FABRIC_CODEC_AUTO}};
static const struct spec all_lossless[NODES] = {{.codec = WF_FABRIC_CODEC_LOSSLESS},
                                                {.codec = WF_FABRIC_CODEC_LOSSLESS},
                                                {.codec = WF_FABRIC_CODEC_LOSSLESS}};

/* -------------------------------------------------------------------------------------- choices */

static void over_a_slow_link_blocks_cross_encoded(void **state)
{
    (void)state;
    begin(all_auto, GBIT);
    have(&nodes[0], 0, 96, false);
    assert_int_equal(fetch_all(&nodes[1], 0, 32, 8, false, WEFT_OK), 32); /* to learn by */
    uint64_t before = crossed();
    assert_int_equal(fetch_all(&nodes[1], 32, 96, 8, false, WEFT_OK), 64);
    double ratio = (double)(64 * BLOCK) / (double)(crossed() - before);
    struct wf_fabric_peer peer = peer_of(1, "a");
    print_message("link %.0f MB/s, ratio %.3f, on the wire %.3f\n", peer.link_mbps, peer.ratio_in,
                  ratio);
    assert_true(peer.codec_in);
    assert_true(peer.link_mbps > 100 && peer.link_mbps < 140);
    assert_true(peer.ratio_in > 1.2);
    assert_true(ratio > peer.ratio_in * .93 && ratio < peer.ratio_in * 1.01);
    assert_int_equal(nodes[1].choices, 1);
    struct wf_fabric_figures out = figures_of(0), in = figures_of(1);
    assert_true(in.frames_in >= 60);
    assert_int_equal(in.frames_in, out.frames_out);
    assert_int_equal(in.frames_in_bytes, out.frames_out_bytes);
    assert_int_equal(in.fetched_bytes, 96 * BLOCK);
    end();
}

static void over_a_fast_link_they_cross_as_they_are(void **state)
{
    (void)state;
    begin(all_auto, 12500000000u);
    have(&nodes[0], 0, 64, false);
    assert_int_equal(fetch_all(&nodes[1], 0, 64, 8, false, WEFT_OK), 64);
    struct wf_fabric_peer peer = peer_of(1, "a");
    assert_false(peer.codec_in);
    assert_true(peer.link_mbps > 4000);
    assert_int_equal(peer.frames_in, 0);
    assert_int_equal(nodes[1].choices, 0);
    end();
}

/* What a link is like is seen through the codec, too; and a link that becomes another is. */
static void a_link_that_becomes_faster_is_judged_anew(void **state)
{
    (void)state;
    begin(all_auto, GBIT);
    have(&nodes[0], 0, 300, false);
    assert_int_equal(fetch_all(&nodes[1], 0, 48, 8, false, WEFT_OK), 48);
    assert_true(peer_of(1, "a").codec_in);
    wf_net_sim_bandwidth(world, "a", 12500000000u);
    wf_net_sim_bandwidth(world, "b", 12500000000u);
    assert_int_equal(fetch_all(&nodes[1], 48, 250, 8, false, WEFT_OK), 202);
    assert_false(peer_of(1, "a").codec_in);
    assert_int_equal(nodes[1].choices, 2);
    uint64_t frames = figures_of(1).frames_in;
    assert_int_equal(fetch_all(&nodes[1], 250, 300, 8, false, WEFT_OK), 50);
    assert_int_equal(figures_of(1).frames_in, frames);
    end();
}

static void what_does_not_become_smaller_is_left_alone(void **state)
{
    (void)state;
    begin(all_auto, GBIT);
    have(&nodes[0], 0, 64, true);
    assert_int_equal(fetch_all(&nodes[1], 0, 64, 8, true, WEFT_OK), 64);
    struct wf_fabric_peer peer = peer_of(1, "a");
    assert_false(peer.codec_in);
    assert_int_equal(peer.frames_in, 0);
    end();
}

static void the_configuration_has_the_last_word(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, all_lossless, sizeof specs);
    specs[2].codec = WF_FABRIC_CODEC_NONE;
    begin(specs, 12500000000u);
    have(&nodes[0], 0, 8, false);
    have(&nodes[2], 8, 16, false);
    assert_int_equal(fetch_all(&nodes[1], 0, 16, 4, false, WEFT_OK), 16);
    assert_int_equal(peer_of(1, "a").frames_in, 8);
    assert_int_equal(peer_of(1, "c").frames_in, 0);
    assert_int_equal(fetch_all(&nodes[2], 0, 8, 4, false, WEFT_OK), 8);
    assert_int_equal(figures_of(2).frames_in, 0);
    end();
}

static void parts_of_a_block_cross_encoded_too(void **state)
{
    (void)state;
    struct asked a;
    begin(all_lossless, GBIT);
    have(&nodes[0], 0, 1, false);
    static const struct {
        uint32_t first, count;
    } ranges[] = {{0, 1}, {1, 4}, {5, 4}, {15, 1}, {0, 16}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        ask(&nodes[1], &a, 0, ranges[i].first, ranges[i].count);
        assert_true(take(&a, false, WEFT_OK));
    }
    assert_int_equal(figures_of(1).frames_in, 5);
    end();
}

/* --------------------------------------------------------------------------- bounds, and faults */

static void more_than_there_is_memory_for_waits_or_goes_as_it_is(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, all_lossless, sizeof specs);
    specs[0].memory = 3 * BLOCK;
    specs[2].memory = BLOCK / 2; /* less than a frame may take */
    begin(specs, GBIT);
    have(&nodes[0], 0, 64, false);
    have(&nodes[2], 64, 72, false);
    assert_int_equal(fetch_all(&nodes[1], 0, 72, 72, false, WEFT_OK), 72);
    assert_int_equal(figures_of(0).frames_out, 64);
    assert_int_equal(figures_of(2).frames_out, 0);
    end();
}

static void a_link_that_breaks_leaves_nothing_held(void **state)
{
    (void)state;
    struct asked all[24];
    struct spec specs[NODES];
    memcpy(specs, all_lossless, sizeof specs);
    specs[0].memory = 2 * BLOCK;
    begin(specs, GBIT);
    have(&nodes[0], 0, 24, false);
    for (uint32_t i = 0; i < 24; i++)
        ask(&nodes[1], &all[i], i, 0, 0);
    pass(40);
    assert_true(nodes[0].held > 4); /* some are sent, and some wait for memory */
    assert_true(wf_net_sim_break(world, "a", "b", 2 * MS) > 0);
    uint32_t right = 0;
    for (uint32_t i = 0; i < 24; i++)
        right += take(&all[i], false, all[i].ended ? all[i].status : WEFT_E_NODE);
    assert_true(right < 24);
    pass(3000);
    assert_int_equal(nodes[0].held, 0);
    assert_int_equal(fetch_all(&nodes[1], 0, 24, 24, false, WEFT_OK), 24);
    end();
}

static void what_comes_wrong_is_had_elsewhere_or_is_a_miss(void **state)
{
    (void)state;
    begin(all_lossless, GBIT);
    have(&nodes[0], 0, 40, false);
    have(&nodes[2], 0, 40, false);
    wf_net_sim_corrupt(world, "b", 10000); /* of pieces of 16 KiB, of which a frame has 50 */
    uint32_t right = fetch_all(&nodes[1], 0, 40, 4, false, WEFT_E_CORRUPT);
    uint64_t corrupt = peer_of(1, "a").read_corrupt + peer_of(1, "c").read_corrupt;
    print_message("%u of 40 right, %llu answers wrong\n", right, (unsigned long long)corrupt);
    assert_in_range(corrupt, 5, 60);
    assert_true(right > 40 - corrupt); /* some were right at the next holder */
    wf_net_sim_corrupt(world, "b", 1000000);
    assert_int_equal(fetch_all(&nodes[1], 0, 4, 4, false, WEFT_E_CORRUPT), 0);
    wf_net_sim_corrupt(world, "b", 0);
    for (uint32_t i = 0; i < 40; i++) {
        wf_fabric_tell(nodes[0].fabric, &nodes[0].blocks[i].event);
        wf_fabric_tell(nodes[2].fabric, &nodes[2].blocks[i].event);
    }
    pass(200);
    assert_int_equal(fetch_all(&nodes[1], 0, 40, 4, false, WEFT_OK), 40);
    end();
}

/* ----------------------------------------------------------------------------------------- lent */

static uint32_t stores_ended, stores_right;

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    stores_ended++;
    stores_right += status == WEFT_OK;
}

static void store_all(struct node *n, uint32_t from, uint32_t to, bool noise)
{
    struct wf_fabric_store *all = calloc(to - from, sizeof *all);
    assert_non_null(all);
    stores_ended = stores_right = 0;
    for (uint32_t i = 0; i < to - from; i++) {
        uint8_t *data = malloc(BLOCK);
        assert_non_null(data);
        fill(from + i, data, BLOCK, noise);
        all[i] = (struct wf_fabric_store){.block = event_of(from + i),
                                          .part_bytes = PART,
                                          .data = data,
                                          .done = stored};
        wf_fabric_store(n->fabric, &all[i]);
    }
    for (int i = 0; i < 400 && stores_ended < to - from; i++)
        pass(50);
    assert_int_equal(stores_ended, to - from);
    for (uint32_t i = 0; i < to - from; i++)
        free((void *)(uintptr_t)all[i].data);
    free(all);
}

static void what_is_put_elsewhere_crosses_encoded(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, all_auto, sizeof specs);
    specs[1].lend = (uint64_t)128 << 20;
    specs[0].memory = 4 * BLOCK;
    begin(specs, GBIT);
    store_all(&nodes[0], 0, 24, false);
    assert_int_equal(stores_right, 24);
    uint64_t before = crossed();
    store_all(&nodes[0], 24, 72, false);
    assert_int_equal(stores_right, 48);
    double ratio = (double)(48 * BLOCK) / (double)(crossed() - before);
    struct wf_fabric_peer peer = peer_of(0, "b");
    struct wf_fabric_figures shown = figures_of(0);
    print_message("ratio %.3f, on the wire %.3f; %llu frames, %llu without memory\n",
                  peer.ratio_out, ratio, (unsigned long long)shown.frames_out,
                  (unsigned long long)shown.frames_busy);
    assert_true(peer.codec_out);
    assert_true(ratio > 1.15 && ratio > peer.ratio_out * .85);
    assert_int_equal(figures_of(0).frames_out, figures_of(1).frames_in);
    assert_int_equal(fetch_all(&nodes[2], 0, 72, 8, false, WEFT_OK), 72);
    end();
}

/* Of memory that the frames before it were made in, nothing goes with it. */
static void what_does_not_become_smaller_is_put_as_it_is(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, all_lossless, sizeof specs);
    specs[1].lend = (uint64_t)64 << 20;
    begin(specs, GBIT);
    for (uint32_t round = 0; round < 3; round++) {
        bool noise = round != 1;
        store_all(&nodes[0], 8 * round, 8 * round + 8, noise);
        assert_int_equal(stores_right, 8);
        assert_int_equal(fetch_all(&nodes[2], 8 * round, 8 * round + 8, 8, noise, WEFT_OK), 8);
    }
    end();
}

static void what_is_put_wrong_is_not_kept(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, all_lossless, sizeof specs);
    specs[1].lend = (uint64_t)64 << 20;
    begin(specs, GBIT);
    wf_net_sim_corrupt(world, "b", 1000000);
    store_all(&nodes[0], 0, 8, false);
    assert_int_equal(stores_right, 0);
    wf_net_sim_corrupt(world, "b", 0);
    assert_int_equal(figures_of(1).lent_blocks, 0);
    store_all(&nodes[0], 0, 8, false);
    assert_int_equal(stores_right, 8);
    assert_int_equal(fetch_all(&nodes[2], 0, 8, 8, false, WEFT_OK), 8);
    end();
}

/* ------------------------------------------------------------------------------------ the coder */

static uint32_t jobs_done;

static void job_done(struct wf_coder_job *job)
{
    (void)job;
    jobs_done++;
}

static sem_t something;

static void wake(void *context)
{
    (void)context;
    assert_int_equal(sem_post(&something), 0);
}

/* Who asks again and again keeps the worker from the coder's lock. */
static void work(struct wf_coder *coder, struct wf_coder_job *job)
{
    uint32_t before = jobs_done;
    job->done = job_done;
    wf_coder_submit(coder, job);
    while (jobs_done == before) {
        (void)sem_wait(&something); /* a signal is no harm */
        wf_coder_reap(coder);
    }
}

/* A frame in which any byte is another decodes to the block or to nothing, and writes nowhere
 * else. */
static void a_frame_that_was_changed_gives_the_block_or_nothing(void **state)
{
    (void)state;
    enum { BYTES = 131072, AROUND = 64 };
    static uint64_t sums[BYTES / 4096];
    const struct wf_coder_options options = {.threads = 2, .memory_bytes = 1 << 20, .wake = wake};
    struct wf_coder *coder;
    uint8_t *plain = malloc(BYTES), *into = malloc(BYTES + 2 * AROUND);
    uint64_t random = 20261122;
    assert_non_null(plain);
    assert_non_null(into);
    assert_int_equal(sem_init(&something, 0, 0), 0);
    assert_int_equal(wf_coder_create(&options, &coder), WEFT_OK);
    fill(1, plain, BYTES, false);
    struct wf_coder_job out = {.encode = true,
                               .plain = plain,
                               .plain_bytes = BYTES,
                               .part_bytes = 4096,
                               .part_count = BYTES / 4096,
                               .sums = sums};
    assert_true(wf_layout_of(WEFT_BF16, 2, TOKENS, HEADS, HEAD_DIM, &out.layout));
    assert_true(wf_coder_memory_take(coder, &out));
    work(coder, &out);
    assert_int_equal(out.result, WEFT_OK);
    assert_true(out.frame_bytes < BYTES * 9 / 10);
    uint32_t right = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        uint64_t bytes = out.frame_bytes;
        if (round % 16 == 15)
            bytes = 1 + draw(&random) % (BYTES - 1);
        uint8_t *frame = into + AROUND + BYTES - bytes;
        memset(into, 0xa5, BYTES + 2 * AROUND);
        memcpy(frame, out.frame, bytes < out.frame_bytes ? bytes : out.frame_bytes);
        for (uint32_t k = round % 4; k > 0; k--) /* the head and the table most of all */
            frame[draw(&random) % (round % 2 && bytes > 128 ? 128 : bytes)] ^=
                (uint8_t)(1u << draw(&random) % 8);
        struct wf_coder_job in = {.plain = into + AROUND,
                                  .plain_bytes = BYTES,
                                  .part_bytes = 4096,
                                  .part_count = BYTES / 4096,
                                  .sums = sums,
                                  .frame_bytes = bytes};
        work(coder, &in);
        right += in.result == WEFT_OK;
        if (in.result == WEFT_OK)
            assert_memory_equal(into + AROUND, plain, BYTES);
        else
            assert_int_equal(in.result, WEFT_E_CORRUPT);
        for (uint32_t k = 0; k < AROUND; k++)
            assert_true(into[k] == 0xa5 && into[AROUND + BYTES + k] == 0xa5);
    }
    assert_in_range(right, 700, 800); /* those that were not changed */
    wf_coder_memory_give(coder, &out);
    wf_coder_destroy(coder);
    free(plain);
    free(into);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_a_slow_link_blocks_cross_encoded),
        cmocka_unit_test(over_a_fast_link_they_cross_as_they_are),
        cmocka_unit_test(a_link_that_becomes_faster_is_judged_anew),
        cmocka_unit_test(what_does_not_become_smaller_is_left_alone),
        cmocka_unit_test(the_configuration_has_the_last_word),
        cmocka_unit_test(parts_of_a_block_cross_encoded_too),
        cmocka_unit_test(more_than_there_is_memory_for_waits_or_goes_as_it_is),
        cmocka_unit_test(a_link_that_breaks_leaves_nothing_held),
        cmocka_unit_test(what_comes_wrong_is_had_elsewhere_or_is_a_miss),
        cmocka_unit_test(what_is_put_elsewhere_crosses_encoded),
        cmocka_unit_test(what_does_not_become_smaller_is_put_as_it_is),
        cmocka_unit_test(what_is_put_wrong_is_not_kept),
        cmocka_unit_test(a_frame_that_was_changed_gives_the_block_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
