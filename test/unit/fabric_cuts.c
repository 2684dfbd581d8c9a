/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies encoded on a tier of one node crosses as it lies, as cuts of its frame, to who decodes
 * such, exact or not, and decoded to who does not.  Between nodes in virtual time (net/sim.h): a
 * has the blocks, b has the profile and c has not, though it says so, and d has no codec.
 */
#include "codec/convert.h"
#include "codec/frame_cut.h"
#include "lossy_profile.h"

#include "fabric_world.h"

#define NODES 4
#define PART 4096u
#define PARTS (BLOCK / PART)
#define BLOCKS 2u /* the first exact, the second not */

enum { A, B, C, D };

struct node {
    struct wf_fabric *fabric;
    const struct wf_profile *has;
    uint64_t says; /* which profiles it has */
    uint32_t buffers, cuts, plain;
    bool lies; /* in what it gives: one bit is another */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};
static struct wf_profile *profile;
static struct {
    struct wf_fabric_event event;
    uint8_t *frame, plain[BLOCK];
    uint64_t frame_bytes, profile;
} blocks[BLOCKS];

/* --------------------------------------------------------------------------------------- blocks */

static int make(void **state)
{
    static float rows[2 * LAYERS * TOKENS * ROW];
    static uint8_t payload[BLOCK];
    struct random_source random = {15};
    struct wf_layout layout;
    (void)state;
    profile = calibrated(LAYERS);
    assert_true(wf_layout_of(WEFT_BF16, LAYERS, TOKENS, HEADS, DIM, &layout));
    void *scratch = aligned_alloc(64, (wf_frame_scratch(&layout) + 63) / 64 * 64);
    assert_non_null(scratch);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        const struct wf_frame_plan plans[BLOCKS] = {{.all = {.codec = &wf_codec_lossless}},
                                                    {.all = {.codec = &wf_codec_transform,
                                                             .parameter = 1000},
                                                     .profile = profile,
                                                     .quality = WEFT_TRANSPARENT}};
        struct wf_frame frame;
        draw(&random, rows, 2 * LAYERS * TOKENS, ROW);
        wf_floats_to(WEFT_BF16, rows, sizeof rows / sizeof rows[0], payload);
        blocks[i].frame = malloc(wf_frame_bound(&layout));
        assert_non_null(blocks[i].frame);
        assert_int_equal(wf_frame_encode(&layout, &plans[i], 0, payload, blocks[i].frame,
                                         &blocks[i].frame_bytes, scratch),
                         WEFT_OK);
        assert_int_equal(wf_frame_open(blocks[i].frame, blocks[i].frame_bytes, &frame), WEFT_OK);
        assert_int_equal(wf_frame_decode(&frame, blocks[i].frame, 0, layout.planes, profile,
                                         blocks[i].plain, scratch),
                         WEFT_OK);
        blocks[i].profile = i ? profile->id : 0;
        blocks[i].event = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                   .where = WF_FABRIC_BELOW,
                                                   .quality = i ? WEFT_TRANSPARENT : 0,
                                                   .bytes = BLOCK};
        memset(blocks[i].event.key, (int)(7 + i), 32);
    }
    free(scratch);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BLOCKS; i++)
        free(blocks[i].frame);
    wf_profile_destroy(profile);
    return 0;
}

static int number_of(const uint8_t key[32])
{
    int i = 0;
    while (i < (int)BLOCKS && memcmp(blocks[i].event.key, key, 32) != 0)
        i++;
    return i;
}

/* ------------------------------------------------------------------------------------ the nodes */

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    (void)context, (void)domain, (void)key, (void)bytes, (void)out;
    return WEFT_MISS;
}

/* As a tier that codes gives it. */
static enum weft_status begin_read(void *context, struct wf_fabric_read *read)
{
    struct node *n = context;
    int i = number_of(read->key);
    uint64_t from = (uint64_t)read->first_part * PART,
             to = from + (uint64_t)read->part_count * PART;
    bool may = read->cut && (!blocks[i].profile || read->profiles >> (blocks[i].profile % 64) & 1);
    struct wf_frame frame;
    struct wf_frame_cut cut;
    uint8_t *data = malloc(BLOCK);
    assert_non_null(data);
    assert_int_equal(wf_frame_open(blocks[i].frame, blocks[i].frame_bytes, &frame), WEFT_OK);
    if (may && wf_frame_cut_of(&frame, from, to, &cut)) {
        memcpy(data, blocks[i].frame, cut.lead);
        memcpy(data + cut.lead, blocks[i].frame + cut.at, cut.bytes - cut.lead);
        read->cut_bytes = cut.bytes;
        data[cut.bytes / 2] ^= n->lies;
        n->cuts++;
    } else {
        memcpy(data, blocks[i].plain + from, to - from);
        n->plain++;
    }
    read->data = data;
    read->quality = blocks[i].event.quality;
    read->profile = blocks[i].profile;
    n->buffers++;
    wf_fabric_read_done(n->fabric, read, WEFT_OK);
    return WEFT_PENDING;
}

static void free_read(void *context, struct wf_fabric_read *read)
{
    free((void *)(uintptr_t)read->data);
    ((struct node *)context)->buffers--;
}

static bool is_below(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality)
{
    (void)domain;
    if (out_quality)
        *out_quality = 0;
    return context == &nodes[A] && number_of(key) < (int)BLOCKS;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    (void)domain, (void)cursor;
    for (uint32_t i = 0; context == &nodes[A] && i < BLOCKS; i++)
        found(to, &blocks[i].event);
    return false;
}

static uint64_t profiles(void *context)
{
    return ((struct node *)context)->says;
}

static const struct wf_profile *profile_by(void *context, uint64_t id)
{
    const struct node *n = context;
    return n->has && n->has->id == id ? n->has : NULL;
}

static int begin(void **state)
{
    static const struct wf_fabric_domain domain = {.secret = "one for all",
                                                   .secret_bytes = 32,
                                                   .quality = WEFT_TRANSPARENT};
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES,
                &(struct wf_net_sim_options){.seed = 5, .bandwidth = 1250000000});
    for (int i = 0; i < NODES; i++) {
        struct wf_fabric_options options = world_options(names, NODES, i);
        options.host.hold = hold;
        options.host.read = begin_read;
        options.host.read_free = free_read;
        options.host.below = is_below;
        options.host.each = each;
        options.host.profiles = profiles;
        options.host.profile = profile_by;
        options.domains = &domain;
        options.codec = i == D ? WF_FABRIC_CODEC_NONE : WF_FABRIC_CODEC_AUTO;
        options.codec_speed = (struct wf_codec_speed){.encode_mbps = 1500, .decode_mbps = 2000};
        nodes[i].has = i == B ? profile : NULL;
        nodes[i].says = i == B || i == C ? 1ull << (profile->id % 64) : 0;
        world_node(i, &options);
    }
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    assert_int_equal(nodes[A].buffers, 0);
    return 0;
}

static struct wf_fabric_fetch got;

static enum weft_status fetch(int node, int number, uint32_t first, uint32_t count)
{
    static uint8_t data[BLOCK];
    uint64_t from = (uint64_t)first * PART, bytes = (count ? count : PARTS - first) * PART;
    got = (struct wf_fabric_fetch){.bytes = BLOCK,
                                   .part_bytes = PART,
                                   .first_part = first,
                                   .part_count = count,
                                   .data = data,
                                   .accept = WEFT_TRANSPARENT,
                                   .done = fetched};
    memcpy(got.key, blocks[number].event.key, 32);
    ended = false;
    memset(data, 0, sizeof data);
    wf_fabric_fetch(nodes[node].fabric, &got);
    if (until_over(20000, 10) != WEFT_OK)
        return outcome;
    assert_memory_equal(data, blocks[number].plain + from, bytes);
    for (uint64_t i = bytes; i < BLOCK; i++)
        assert_int_equal(data[i], 0);
    assert_int_equal(got.quality, blocks[number].event.quality);
    assert_true(got.profile == blocks[number].profile);
    return WEFT_OK;
}

/* --------------------------------------------------------------------------------------- tests */

static uint64_t crossed(void)
{
    struct wf_net_sim_stats stats;
    wf_net_sim_world_stats(world, &stats);
    return stats.bytes;
}

static void it_crosses_as_it_lies(void **state)
{
    (void)state;
    for (int i = 0; i < (int)BLOCKS; i++) {
        uint64_t before = crossed();
        assert_int_equal(fetch(B, i, 0, 0), WEFT_OK);
        uint64_t bytes = crossed() - before;
        print_message("%s: %u bytes lie there in %llu, %llu crossed\n", i ? "lossy" : "exact",
                      BLOCK, (unsigned long long)blocks[i].frame_bytes, (unsigned long long)bytes);
        assert_true(bytes < blocks[i].frame_bytes + 2048);
    }
    struct wf_fabric_figures in = figures_of(B), out = figures_of(A);
    assert_true(in.cuts_in == 2 && out.cuts_out == 2);
    assert_int_equal(in.cuts_in_plain, 2 * BLOCK);
    assert_int_equal(in.cuts_in_bytes, out.cuts_out_bytes);
    assert_int_equal(in.cuts_in_bytes, blocks[0].frame_bytes + blocks[1].frame_bytes);
    assert_int_equal(in.fetched_bytes, 2 * BLOCK);
    assert_int_equal(out.frames_out, 0);
    assert_int_equal(nodes[A].plain, 0);
}

static void ranges_cross_so_too(void **state)
{
    (void)state;
    uint32_t before = nodes[A].cuts;
    for (int i = 0; i < (int)BLOCKS; i++)
        for (uint32_t first = 0; first < PARTS; first++)
            for (uint32_t count = 1; first + count <= PARTS; count++)
                assert_int_equal(fetch(B, i, first, count), WEFT_OK);
    assert_true(nodes[A].cuts - before > 20);
    assert_int_equal(figures_of(B).cuts_in, nodes[A].cuts - before);
}

static void who_cannot_decode_it_has_it_decoded(void **state)
{
    (void)state;
    for (int i = 0; i < (int)BLOCKS; i++)
        assert_int_equal(fetch(D, i, 0, 0), WEFT_OK);
    assert_int_equal(nodes[A].cuts, 0);
    assert_int_equal(figures_of(D).cuts_in, 0);
    /* c takes what is exact so; and asks again for what it has no profile for after all. */
    assert_int_equal(fetch(C, 0, 0, 0), WEFT_OK);
    assert_int_equal(fetch(C, 1, 0, 0), WEFT_OK);
    assert_int_equal(nodes[A].cuts, 2);
    assert_int_equal(nodes[A].plain, 3);
    assert_int_equal(figures_of(C).cuts_in, 1);
    assert_int_equal(figures_of(C).cuts_unread, 1);
    assert_int_equal(figures_of(C).fetch_corrupt, 0);
    nodes[C].says = 0; /* and is not sent it at all when it does not say so */
    assert_int_equal(fetch(C, 1, 0, 0), WEFT_OK);
    assert_int_equal(nodes[A].cuts, 2);
    assert_int_equal(figures_of(C).cuts_unread, 1);
}

/* Whether the bytes were wrong before they were sent, or became so on their way. */
static void what_is_wrong_is_no_hit(void **state)
{
    (void)state;
    for (int i = 0; i < (int)BLOCKS; i++) {
        nodes[A].lies = true;
        assert_int_equal(fetch(B, i, 0, 0), WEFT_E_CORRUPT);
        nodes[A].lies = false;
        wf_net_sim_corrupt(world, "b", 1000000);
        assert_int_equal(fetch(B, i, 0, 0), WEFT_E_CORRUPT);
        wf_net_sim_corrupt(world, "b", 0);
        assert_int_equal(fetch(B, i, 0, 0), WEFT_OK);
    }
    assert_int_equal(peer_of(B, "a").read_corrupt, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_crosses_as_it_lies, begin, end),
        cmocka_unit_test_setup_teardown(ranges_cross_so_too, begin, end),
        cmocka_unit_test_setup_teardown(who_cannot_decode_it_has_it_decoded, begin, end),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_no_hit, begin, end),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
