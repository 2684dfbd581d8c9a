/* SPDX-License-Identifier: Apache-2.0
 *
 * What fuzz/fabric.c has around the fabric: a net whose links are the fuzzer's, a registry of a few
 * nodes, a host with a few blocks, and a clock.  All of it is in `world`, made anew for each input.
 */
#ifndef WF_TEST_FUZZ_FABRIC_WORLD_H
#define WF_TEST_FUZZ_FABRIC_WORLD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/frame_cut.h"
#include "core/shard.h"
#include "fabric/fabric.h"

#define LINKS 8u
#define BLOCKS 8u    /* of each domain */
#define SAME_SIZE 4u /* these two are of one size, and can be pushed together */
#define PART 2048u
#define PARTS 16u
#define READS 4u
#define QUEUE_MAX 64u
#define PASS_MAX 20000u /* milliseconds in all, for one input */
#define MS 1000000ull

#define must(right)                                                             \
    do {                                                                        \
        if (!(right)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #right); \
            abort();                                                            \
        }                                                                       \
    } while (0)

struct input {
    const uint8_t *at, *end;
};

static void take(struct input *in, void *out, size_t bytes)
{
    size_t some = (size_t)(in->end - in->at) < bytes ? (size_t)(in->end - in->at) : bytes;
    memset(out, 0, bytes);
    if (some)
        memcpy(out, in->at, some);
    in->at += some;
}

static uint8_t take8(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static uint32_t take16(struct input *in)
{
    uint32_t low = take8(in);
    return low | (uint32_t)take8(in) << 8;
}

struct block {
    uint8_t key[32];
    uint8_t *data; /* exactly so many bytes */
    uint64_t bytes;
    bool near, below; /* this node has it in memory, on a tier */
    uint8_t quality;  /* of that copy */
};

struct wf_net {
    struct wf_net_options options;
};

struct wf_net_link {
    bool used, up, closed, named; /* closed: `down` is to be called; named: and wanted */
    bool connecting;              /* the fabric began it */
    void *user;
    uint32_t swap;           /* its number of domain d is d ^ swap */
    uint32_t proves, proven; /* which it will prove, and has: a bit a domain */
    uint8_t nonce[32];       /* of the fabric, on this link */
    struct wf_net_message *queue, **queue_end;
    uint32_t queued;
    /* A payload that comes: */
    void *token;
    uint8_t *said;
    struct iovec pieces[WF_NET_PIECES_MAX];
    uint32_t piece_count;
    uint64_t said_bytes, placed;
    /* What the fabric asked for last: */
    struct wf_fabric_get get;
    uint8_t
        accepts[256]; /* the worst that a request said it takes, by the low byte of its number */
    struct wf_fabric_probe probe;
    uint64_t put_request, push_request, look_request, ping_sent, handle, told;
    uint64_t copies_request;
    uint16_t copies_count;
    uint32_t pushed_domain;
};

struct wf_members {
    struct wf_member_options options;
    bool there[4];
    uint64_t epoch;
    /* Its one setting, and who waits for a change of it. */
    char setting_name[WF_SETTING_NAME_MAX + 1], setting[WF_SETTING_MAX + 1];
    uint64_t revision;
    void (*done)(void *context, enum weft_status status);
    void *done_context;
    enum weft_status done_status;
};

static struct {
    struct wf_fabric *fabric;
    bool alive;            /* … and may call its host */
    bool deaf, busy, late; /* the host */
    bool slow;             /* what is sent takes until the link is next told to finish */
    bool unproven;         /* nobody proves anything */
    uint32_t proves, ever; /* ever: which domains somebody has proved */
    struct wf_net *net;
    struct wf_net_link links[LINKS], *hearing; /* hearing: whose message is being taken */
    struct wf_members members;
    struct block blocks[2][BLOCKS];
    uint8_t secrets[2][32];
    uint64_t now_ns, passed_ms;
    uint8_t was_sent;       /* of all that was sent */
    uint32_t held, buffers; /* that the fabric has of the host */
    struct wf_fabric_read *reads[READS];
    struct wf_fabric_pushed *waits; /* for the host's answer, with `late` */
    uint8_t *rooms[WF_FABRIC_PUSHES_MAX][2];
} world;

/* What the domains ask for, as in struct wf_fabric_event. */
static const uint8_t demands[2] = {0, WEFT_TRANSPARENT};

static const char *const peer_names[4] = {"b", "c", "sim-b", "d"};

static uint64_t member_of(uint32_t i)
{
    return wf_shard_member(i == 3 ? "a" : peer_names[i]);
}

/* ------------------------------------------------------------------------------------- blocks */

static uint8_t byte_of(const uint8_t key[32], uint64_t at)
{
    return (uint8_t)(key[0] * 29 + at / 64);
}

static struct wf_fabric_event event_of(uint32_t domain, uint32_t i)
{
    const struct block *b = &world.blocks[domain][i];
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE,
                                    .quality = b->quality,
                                    .domain = (uint8_t)domain,
                                    .depth = i,
                                    .bytes = b->bytes};
    memcpy(event.key, b->key, 32);
    if (i)
        memcpy(event.parent, world.blocks[domain][i - 1].key, 32);
    return event;
}

static struct block *block_find(const uint8_t key[32], uint32_t *domain)
{
    for (*domain = 0; *domain < 2; (*domain)++)
        for (uint32_t i = 0; i < BLOCKS; i++)
            if (memcmp(world.blocks[*domain][i].key, key, 32) == 0)
                return &world.blocks[*domain][i];
    return NULL;
}

static void blocks_make(void)
{
    static const uint32_t sizes[BLOCKS] = {100, 5000, 20480, 32768, 4096, 4096, 2048, 1};
    for (uint32_t domain = 0; domain < 2; domain++)
        for (uint32_t i = 0; i < BLOCKS; i++) {
            struct block *b = &world.blocks[domain][i];
            for (uint32_t k = 0; k < 32; k++)
                b->key[k] = (uint8_t)(domain * 128 + i * 11 + k * 7 + 1);
            b->bytes = sizes[i];
            b->data = malloc(b->bytes);
            must(b->data != NULL);
            for (uint64_t at = 0; at < b->bytes; at++)
                b->data[at] = byte_of(b->key, at);
            b->near = i % 4 == 0 || i == 3;
            b->below = i % 4 == 1;
            b->quality = i == 4 ? WEFT_ECONOMY : i == 5 ? WEFT_TRANSPARENT : 0;
        }
}

/* The same as a frame, and how long that is. */
static uint64_t frame_of(uint8_t **plain, uint64_t bytes)
{
    struct wf_layout layout;
    const struct wf_frame_plan plan = {.all.codec = &wf_codec_lossless};
    uint64_t out_bytes = 0;
    must(wf_layout_opaque(WEFT_BF16, bytes, &layout));
    size_t scratch_bytes = (wf_frame_scratch(&layout) + 63) / 64 * 64 + 64;
    uint8_t *frame = malloc(wf_frame_bound(&layout));
    void *scratch = aligned_alloc(64, scratch_bytes);
    must(frame && scratch);
    must(wf_frame_encode(&layout, &plan, 0, *plain, frame, &out_bytes, scratch) == WEFT_OK);
    free(scratch);
    free(*plain);
    *plain = frame;
    return out_bytes;
}

/* A cut for that range of a block of such bytes, if there is one; else *cut is as it was. */
static uint64_t cut_of(const uint8_t key[32], uint8_t twist, uint64_t all, uint64_t from,
                       uint64_t to, uint8_t **cut)
{
    struct wf_frame frame;
    struct wf_frame_cut is;
    uint8_t *block = malloc(all);
    must(block != NULL);
    for (uint64_t at = 0; at < all; at++)
        block[at] = (uint8_t)(byte_of(key, at) ^ twist);
    uint64_t bytes = frame_of(&block, all), given = 0;
    must(wf_frame_open(block, bytes, &frame) == WEFT_OK);
    if (wf_frame_cut_of(&frame, from, to, &is)) {
        memcpy(*cut, block, is.lead);
        memcpy(*cut + is.lead, block + is.at, is.bytes - is.lead);
        given = is.bytes;
    }
    free(block);
    return given;
}

/* --------------------------------------------------------------------------------------- host */

/* Nothing of a domain for who has not proved it. */
static void may_hear(uint32_t domain)
{
    must(world.alive && domain < 2);
    must(!world.hearing || (world.hearing->proven >> domain & 1));
}

static enum weft_status host_hold(void *context, uint32_t domain, const uint8_t key[32],
                                  uint64_t bytes, struct wf_fabric_held *out)
{
    uint32_t of;
    const struct block *b = block_find(key, &of);
    (void)context;
    may_hear(domain);
    if (!b || !b->near || of != domain || b->bytes != bytes)
        return WEFT_MISS;
    if (world.busy)
        return WEFT_E_BUSY;
    *out = (struct wf_fabric_held){.data = b->data, .bytes = bytes, .quality = b->quality};
    world.held++;
    return WEFT_OK;
}

static void host_let_go(void *context, struct wf_fabric_held *held)
{
    (void)context;
    must(world.alive && held->data && world.held > 0);
    world.held--;
}

static enum weft_status host_read(void *context, struct wf_fabric_read *read)
{
    uint32_t of, i = 0;
    const struct block *b = block_find(read->key, &of);
    (void)context;
    may_hear(read->domain);
    if (!b || !b->below || of != read->domain || b->bytes != read->bytes)
        return WEFT_MISS;
    while (i < READS && world.reads[i])
        i++;
    if (i == READS)
        return WEFT_E_BUSY;
    world.reads[i] = read;
    return WEFT_PENDING;
}

static void host_read_free(void *context, struct wf_fabric_read *read)
{
    (void)context;
    must(world.alive && world.buffers > 0);
    world.buffers--;
    free(read->user[0]);
}

static void reads_end(uint8_t how)
{
    struct wf_fabric_read *read = world.reads[how % READS];
    static const enum weft_status statuses[] = {WEFT_OK, WEFT_OK, WEFT_MISS, WEFT_E_CORRUPT,
                                                WEFT_EXISTS};
    enum weft_status status = statuses[how / 8 % 5];
    if (!read)
        return;
    world.reads[how % READS] = NULL;
    if (status == WEFT_OK) {
        uint64_t from = (uint64_t)read->first_part * read->part_bytes;
        uint64_t to = from + (uint64_t)read->part_count * read->part_bytes;
        to = to < read->bytes ? to : read->bytes;
        must(from < to);
        read->user[0] = malloc(to - from);
        must(read->user[0] != NULL);
        for (uint64_t at = from; at < to; at++)
            ((uint8_t *)read->user[0])[at - from] = byte_of(read->key, at);
        if (read->cut)
            read->cut_bytes = cut_of(read->key, 0, read->bytes, from, to,
                                     (uint8_t **)&read->user[0]);
        read->data = read->user[0];
        read->quality = how / 64; /* whatever was asked for */
        world.buffers++;
    }
    wf_fabric_read_done(world.fabric, read, status);
}

static bool host_below(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality)
{
    uint32_t of;
    const struct block *b = block_find(key, &of);
    (void)context;
    may_hear(domain);
    if (out_quality && b)
        *out_quality = b->quality;
    return b && b->below && of == domain;
}

static bool host_each(void *context, uint32_t domain, uint64_t *cursor,
                      void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    (void)context;
    must(world.alive && domain < 2);
    for (int i = 0; i < 3 && *cursor < BLOCKS; i++, (*cursor)++) {
        const struct block *b = &world.blocks[domain][*cursor];
        struct wf_fabric_event event = event_of(domain, (uint32_t)*cursor);
        event.where = b->near ? WF_FABRIC_IN_POOL : WF_FABRIC_BELOW;
        if (b->near || b->below)
            found(to, &event);
    }
    return *cursor < BLOCKS;
}

static bool host_news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    (void)context, (void)from;
    must(world.alive && block->domain < 2 && (world.ever >> block->domain & 1));
    must(block->kind == WF_FABRIC_GONE || block->quality <= demands[block->domain]);
    return !world.deaf;
}

static void host_chain(void *context, const char *from, uint32_t domain, const uint8_t key[32])
{
    (void)context;
    must(from[0] && key);
    may_hear(domain);
}

static void room_answer(struct wf_fabric_pushed *pushed)
{
    uint8_t **rooms = world.rooms[pushed->number];
    pushed->status = pushed->count <= 2 && pushed->bytes <= 65536 ? WEFT_OK : WEFT_FULL;
    for (uint32_t i = 0; i < pushed->count && pushed->status == WEFT_OK; i++) {
        uint32_t of;
        if (block_find(pushed->blocks[i].key, &of)) {
            must(!rooms[i]);
            rooms[i] = malloc(pushed->bytes);
            must(rooms[i] != NULL);
        }
        pushed->data[i] = rooms[i];
    }
    wf_fabric_pushed_answer(world.fabric, pushed);
}

static void host_push_room(void *context, struct wf_fabric_pushed *pushed)
{
    (void)context;
    may_hear(pushed->domain);
    for (uint32_t i = 0; i < pushed->count; i++)
        must(pushed->blocks[i].quality <= demands[pushed->domain]);
    if (world.late && !world.waits)
        world.waits = pushed;
    else
        room_answer(pushed);
}

static void host_push_end(void *context, struct wf_fabric_pushed *pushed)
{
    uint8_t **rooms = world.rooms[pushed->number];
    (void)context;
    must(world.alive && pushed->count <= 2);
    for (uint32_t i = 0; i < pushed->count; i++) {
        bool keep = wf_bit(pushed->keep, i);
        must(!keep || (rooms[i] && wf_bit(pushed->committed, i)));
        for (uint64_t at = 0; keep && at < pushed->bytes; at++)
            must(rooms[i][at] == byte_of(pushed->blocks[i].key, at));
        pushed->published += keep;
        pushed->missing += !keep && wf_bit(pushed->committed, i);
        free(rooms[i]);
        rooms[i] = NULL;
    }
    wf_fabric_pushed_answer(world.fabric, pushed);
}

static uint32_t host_part_bytes(uint64_t bytes)
{
    (void)bytes;
    return PART;
}

static void host_say(void *context, struct wf_fabric_ping *out)
{
    (void)context;
    must(world.alive);
    out->pool_bytes = 1 << 20;
    out->below_mbps = 100;
}

static bool host_layout(void *context, uint32_t domain, uint64_t bytes, struct wf_layout *out)
{
    (void)context;
    must(world.alive && domain < 2);
    return wf_layout_opaque(WEFT_BF16, bytes, out);
}

#include "fabric_net.h"

/* ----------------------------------------------------------------------------------- registry */

static enum weft_status members_open(const struct wf_member_options *options,
                                     struct wf_members **out)
{
    world.members = (struct wf_members){.options = *options, .epoch = 1};
    *out = &world.members;
    return WEFT_OK;
}

static void members_close(struct wf_members *members, uint32_t leave_ms)
{
    (void)members, (void)leave_ms;
}

static void members_standing(const struct wf_members *members, struct wf_standing *out)
{
    *out = (struct wf_standing){.state = WF_STANDING_MEMBER,
                                .epoch = members->epoch,
                                .until_ns = UINT64_MAX};
}

static enum weft_status members_setting(const struct wf_members *members, const char *name,
                                        char *out, size_t out_bytes, uint64_t *out_revision)
{
    *out_revision = 0;
    if (!members->revision || strcmp(name, members->setting_name) != 0)
        return WEFT_MISS;
    must(strlen(members->setting) < out_bytes);
    snprintf(out, out_bytes, "%s", members->setting);
    *out_revision = members->revision;
    return WEFT_OK;
}

static enum weft_status members_set(struct wf_members *members, const char *name, const char *value,
                                    uint64_t revision,
                                    void (*done)(void *context, enum weft_status status),
                                    void *context)
{
    bool same = members->revision && strcmp(name, members->setting_name) == 0;
    if (members->done)
        return WEFT_E_BUSY;
    members->done = done;
    members->done_context = context;
    members->done_status = revision == (same ? members->revision : 0) ? WEFT_OK : WEFT_E_BUSY;
    if (members->done_status != WEFT_OK)
        return WEFT_OK;
    must(strlen(name) <= WF_SETTING_NAME_MAX && (!value || strlen(value) <= WF_SETTING_MAX));
    snprintf(members->setting_name, sizeof members->setting_name, "%s", name);
    snprintf(members->setting, sizeof members->setting, "%s", value ? value : "{}");
    members->revision++;
    return WEFT_OK;
}

static int members_event(const struct wf_members *members)
{
    (void)members;
    return -1;
}

static void members_poll(struct wf_members *members, uint32_t timeout_ms)
{
    const struct wf_member_events *events = &members->options.events;
    void (*done)(void *context, enum weft_status status) = members->done;
    (void)timeout_ms;
    members->done = NULL;
    if (!done)
        return;
    if (members->done_status == WEFT_OK && events->setting)
        events->setting(events->context, members->setting_name, members->setting,
                        members->revision);
    done(members->done_context, members->done_status);
}

static const struct wf_member_ops fake_members = {.name = "fuzz",
                                                  .open = members_open,
                                                  .close = members_close,
                                                  .standing = members_standing,
                                                  .setting = members_setting,
                                                  .set = members_set,
                                                  .event = members_event,
                                                  .poll = members_poll};

/* A node comes or goes, or this one's standing is another. */
static void member_turn(uint8_t how)
{
    const struct wf_member_events *events = &world.members.options.events;
    struct wf_member member = {.epoch = 1 + (how >> 4 & 1), .details = "{}"};
    struct wf_standing standing;
    uint32_t i = how & 3;
    if (!events->joined)
        return; /* the registry is a list */
    snprintf(member.name, sizeof member.name, "%s", peer_names[i]);
    snprintf(member.addresses, sizeof member.addresses, "%s",
             how & 32   ? ""
             : how & 64 ? "sim:x"
                        : "sim:x sim:y");
    if (how & 8) {
        members_standing(&world.members, &standing);
        standing.epoch = world.members.epoch += how >> 4 & 1;
        standing.state = how & 32 ? WF_STANDING_LOST : WF_STANDING_MEMBER;
        standing.until_ns = how & 32 ? 0 : UINT64_MAX;
        events->standing(events->context, &standing);
    } else if (how & 4) {
        world.members.there[i] = true;
        events->joined(events->context, &member);
    } else if (world.members.there[i]) {
        world.members.there[i] = false;
        events->left(events->context, &member);
    }
}

/* --------------------------------------------------------------------------------------- time */

static uint64_t fuzz_now(void *context)
{
    (void)context;
    return ++world.now_ns; /* it moves while a node does something, as clocks do */
}

/* Up to 20 steps of what is a tick, or a long while. */
static void pass(uint8_t how)
{
    uint32_t steps = 1 + how % 16, ms = how / 16 ? how / 16 * 25u : 1;
    for (uint32_t i = 0; i < steps && world.passed_ms < PASS_MAX; i++) {
        world.now_ns += ms * MS;
        world.passed_ms += ms;
        if (world.waits) {
            struct wf_fabric_pushed *pushed = world.waits;
            world.waits = NULL;
            room_answer(pushed);
        }
        must(wf_fabric_poll(world.fabric, 0) == WEFT_OK);
    }
}

/* ------------------------------------------------------------------------------- begin and end */

static void world_begin(uint8_t mode, uint8_t proves)
{
    struct wf_fabric_domain domains[2] = {{.secret_bytes = 32}, {.secret_bytes = 32}};
    memset(&world, 0, sizeof world);
    world.now_ns = 1000 * MS;
    world.slow = mode & 16;
    world.unproven = mode & 32;
    world.proves = proves;
    for (uint32_t i = 0; i < 2; i++) {
        memset(world.secrets[i], (int)(i + 1), 32);
        memcpy(domains[i].secret, world.secrets[i], 32);
        domains[i].quality = demands[i];
    }
    blocks_make();
    bool strict = mode & 1;
    const struct wf_fabric_options options = {
        .name = "a",
        .listen = "sim:a",
        .registry = "sim:b",
        .locality = "z/r/h",
        .member = strict ? &fake_members : &wf_member_static,
        .host = {.hold = host_hold,
                 .let_go = host_let_go,
                 .read = host_read,
                 .read_free = host_read_free,
                 .below = host_below,
                 .each = host_each,
                 .news = host_news,
                 .offered = host_chain,
                 .forget = host_chain,
                 .push_room = host_push_room,
                 .push_end = host_push_end,
                 .part_bytes = host_part_bytes,
                 .say = host_say,
                 .layout = host_layout},
        .domains = domains,
        .domain_count = 2,
        .lend_bytes = mode & 2 ? 65536 : 0,
        .replica_copies = 256,
        .copies = mode & 64 ? 2 : 1,
        .directory = strict && mode & 8 ? WF_FABRIC_DIRECTORY_PARTS : WF_FABRIC_DIRECTORY_AUTO,
        .codec = mode & 4 ? WF_FABRIC_CODEC_LOSSLESS : WF_FABRIC_CODEC_NONE,
        .codec_speed = {.encode_mbps = 1500, .decode_mbps = 2000},
        .codec_bytes = 65536,
        .show_ms = 50,
        .now_ns = fuzz_now,
    };
    world.alive = true;
    if (wf_fabric_create(&options, &world.fabric) != WEFT_OK) {
        fprintf(stderr, "%s\n", wf_last_error());
        abort();
    }
    if (!strict)
        world.members.options.events.joined = NULL;
}

static void world_end(void)
{
    wf_fabric_destroy(world.fabric, 0);
    world.alive = false;
    must(world.held == 0 && world.buffers == 0);
    for (uint32_t i = 0; i < 2 * BLOCKS; i++)
        free(world.blocks[i / BLOCKS][i % BLOCKS].data);
    for (uint32_t i = 0; i < 2 * WF_FABRIC_PUSHES_MAX; i++)
        free(world.rooms[i / 2][i % 2]);
}

#endif
