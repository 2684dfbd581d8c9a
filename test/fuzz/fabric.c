/* SPDX-License-Identifier: Apache-2.0
 *
 * What other nodes may say to a fabric, once there is a link to them.
 *
 * The net and the registry are the fuzzer's: it brings links up and takes them down, says IDENT and
 * JOIN on them as who has the secrets of none, one or both of two domains (or has them come from
 * the input), and then any message: with a header from the input, or well put and a little wrong,
 * as an answer to what was asked.  The host has a few blocks and asks for others meanwhile, and
 * time goes by in steps that the input chooses.
 *
 * What holds whatever comes: a block that was fetched has its own bytes, nothing is given or told
 * of a domain to who has not proved it, what is kept of a push is right, everything that was asked
 * for ends once, and all that the host lent is given back.
 *
 * The first two bytes choose what kind of fabric it is and what the links prove; then come acts, a
 * byte each and what it takes.  An input that ends gives zeros.
 */
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "fabric/fabric.h"
#include "fabric_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACTS_MAX 160u
#define SLOTS 4u

static struct fetch_slot {
    struct wf_fabric_fetch fetch; /* first */
    bool busy;
} fetches[SLOTS];
static struct store_slot {
    struct wf_fabric_store store; /* first */
    bool busy;
} stores[SLOTS];
static struct wf_fabric_push push;
static bool pushing;

/* ------------------------------------------------------------------------------- this node asks */

static void fetch_done(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct fetch_slot *slot = (struct fetch_slot *)fetch;
    must(world.alive && slot->busy);
    slot->busy = false;
    if (status == WEFT_OK)
        may_hear(fetch->domain);
    must(status != WEFT_OK ||
         fetch->quality <= (fetch->accept > WEFT_LOSSLESS ? fetch->accept : 0));
    uint64_t from = (uint64_t)fetch->first_part * PART;
    uint64_t to = fetch->part_count ? from + (uint64_t)fetch->part_count * PART : fetch->bytes;
    to = to < fetch->bytes ? to : fetch->bytes;
    const uint8_t *data = fetch->data;
    for (uint64_t at = from; status == WEFT_OK && at < to; at++)
        must(data[at - from] == byte_of(fetch->key, at));
    free(fetch->data);
}

static void fetch_begin(struct input *in)
{
    struct fetch_slot *slot = &fetches[take8(in) % SLOTS];
    uint8_t which = take8(in), parts = take8(in);
    if (slot->busy) {
        wf_fabric_cancel(world.fabric, &slot->fetch);
        return;
    }
    struct block *b = &world.blocks[which % 2][which / 2 % BLOCKS];
    uint32_t all = (uint32_t)((b->bytes + PART - 1) / PART), first = parts % 16 % all;
    uint32_t count = parts / 16 <= all - first ? parts / 16u : 0;
    slot->fetch = (struct wf_fabric_fetch){.domain = which % 2,
                                           .bytes = b->bytes,
                                           .part_bytes = PART,
                                           .first_part = first,
                                           .part_count = count,
                                           .accept = which >> 4 & 3,
                                           .done = fetch_done};
    uint64_t to = count ? (uint64_t)(first + count) * PART : b->bytes;
    to = to < b->bytes ? to : b->bytes;
    slot->fetch.data = calloc(1, to - (uint64_t)first * PART);
    memcpy(slot->fetch.key, b->key, 32);
    must(slot->fetch.data != NULL);
    slot->busy = true;
    wf_fabric_fetch(world.fabric, &slot->fetch);
}

static void store_done(struct wf_fabric_store *store, enum weft_status status)
{
    struct store_slot *slot = (struct store_slot *)store;
    must(world.alive && slot->busy);
    /* Only who has proved the domain can have it, and say so. */
    if (status == WEFT_OK)
        may_hear(store->block.domain);
    must(status != WEFT_OK || (world.ever >> store->block.domain & 1));
    slot->busy = false;
}

static void store_begin(struct input *in)
{
    struct store_slot *slot = &stores[take8(in) % SLOTS];
    uint8_t which = take8(in);
    const struct block *b = &world.blocks[which % 2][which / 2 % BLOCKS];
    if (slot->busy)
        return;
    *slot = (struct store_slot){.busy = true,
                                .store = {.block = event_of(which % 2, which / 2 % BLOCKS),
                                          .profile = which,
                                          .part_bytes = PART,
                                          .data = b->data,
                                          .done = store_done}};
    wf_fabric_store(world.fabric, &slot->store);
}

static void push_done(struct wf_fabric_push *of, enum weft_status status)
{
    (void)status;
    must(world.alive && of == &push && pushing);
    pushing = false;
}

static void push_go_on(struct input *in)
{
    uint8_t what = take8(in);
    if (pushing) {
        if (what & 1)
            wf_fabric_push_written(world.fabric, &push, push.layers);
        push.keep[0] = what >> 4;
        if ((what & 3) == 3)
            wf_fabric_push_end(world.fabric, &push, what & 4);
        return;
    }
    memset(&push, 0, sizeof push);
    snprintf(push.to, sizeof push.to, "%s", peer_names[what / 16 % 4]);
    push.count = 2;
    push.layers = 4;
    push.done = push_done;
    for (uint32_t i = 0; i < 2; i++) {
        push.blocks[i] = event_of(what & 1, SAME_SIZE + i);
        push.data[i] = world.blocks[what & 1][SAME_SIZE + i].data;
    }
    pushing = true;
    if (wf_fabric_push(world.fabric, &push) != WEFT_OK)
        pushing = false;
}

static void order(struct input *in)
{
    uint8_t what = take8(in), which = take8(in);
    uint32_t domain = which % 2, i = which / 2 % BLOCKS;
    struct wf_fabric_event events[3];
    for (uint32_t k = 0; k < 3; k++)
        events[k] = event_of(domain, (i + k) % BLOCKS);
    const char *name = peer_names[which / 16 % 4];
    enum weft_status ignored = WEFT_OK;
    switch (what % 10) {
    case 0: ignored = wf_fabric_offer(world.fabric, name, events, 1 + what / 16 % 3); break;
    case 1: ignored = wf_fabric_forget(world.fabric, domain, events[0].key); break;
    case 2: wf_fabric_drop(world.fabric, events[0].key); break;
    case 3: ignored = wf_fabric_lend(world.fabric, what & 32 ? name : NULL, which * 256u); break;
    case 4: wf_fabric_drain(world.fabric, what & 16); break;
    case 5: ignored = wf_fabric_allot(world.fabric, NULL, name, which * 64u, what & 32); break;
    case 6: ignored = wf_fabric_look(world.fabric, events, 3); break;
    case 7: wf_fabric_room_again(world.fabric); break;
    case 8: world.deaf = what & 16, world.busy = what & 32, world.late = what & 64; break;
    default: { /* a block comes to this node, or goes */
        struct block *b = &world.blocks[domain][i];
        b->near = what & 16;
        b->below = what & 32;
        events[0].kind = b->near || b->below ? WF_FABRIC_HERE : WF_FABRIC_GONE;
        events[0].where = b->near ? WF_FABRIC_IN_POOL : WF_FABRIC_BELOW;
        wf_fabric_tell(world.fabric, &events[0]);
    }
    }
    (void)ignored;
}

/* ---------------------------------------------------------------------------- what others say */

/* As much of a message of each kind as is always there. */
static const uint16_t sizes[] = {
    [WF_FABRIC_IDENT] = sizeof(struct wf_fabric_ident),
    [WF_FABRIC_JOIN] = sizeof(struct wf_fabric_join),
    [WF_FABRIC_EVENTS] = sizeof(struct wf_fabric_events),
    [WF_FABRIC_AGAIN] = sizeof(struct wf_fabric_again),
    [WF_FABRIC_GET] = sizeof(struct wf_fabric_get),
    [WF_FABRIC_DATA] = sizeof(struct wf_fabric_data),
    [WF_FABRIC_PING] = sizeof(struct wf_fabric_ping),
    [WF_FABRIC_PONG] = sizeof(struct wf_fabric_ping),
    [WF_FABRIC_PUT] = sizeof(struct wf_fabric_put),
    [WF_FABRIC_PLACED] = sizeof(struct wf_fabric_placed),
    [WF_FABRIC_DROP] = sizeof(struct wf_fabric_drop),
    [WF_FABRIC_OFFER] = sizeof(struct wf_fabric_offer),
    [WF_FABRIC_FORGET] = sizeof(struct wf_fabric_forget),
    [WF_FABRIC_PUSH] = sizeof(struct wf_fabric_push_said),
    [WF_FABRIC_ROOM] = sizeof(struct wf_fabric_room),
    [WF_FABRIC_LAYER] = sizeof(struct wf_fabric_layer),
    [WF_FABRIC_PUSH_END] = sizeof(struct wf_fabric_push_end),
    [WF_FABRIC_PUSHED] = sizeof(struct wf_fabric_pushed_said),
    [WF_FABRIC_PROBE] = sizeof(struct wf_fabric_probe),
    [WF_FABRIC_PROBED] = sizeof(struct wf_fabric_probe),
    [WF_FABRIC_WANT] = sizeof(struct wf_fabric_want),
    [WF_FABRIC_LOOKUP] = sizeof(struct wf_fabric_lookup),
    [WF_FABRIC_FOUND] = sizeof(struct wf_fabric_found),
    [WF_FABRIC_COPIES] = sizeof(struct wf_fabric_copies),
    [WF_FABRIC_COPIED] = sizeof(struct wf_fabric_copied),
};
#define KINDS (sizeof sizes / sizeof sizes[0])

/* The header is the input's; with `kind`, but for its head. */
static void say_any(struct input *in, struct wf_net_link *link, bool kind)
{
    static _Alignas(8) uint8_t header[4096];
    struct wf_fabric_head head = {.magic = WF_FABRIC_MAGIC};
    uint32_t bytes, payload;
    if (kind) {
        head.kind = (uint16_t)(take8(in) % KINDS);
        bytes = sizes[head.kind] + take8(in) % 32 * 8u;
    } else {
        bytes = take16(in) % sizeof header;
    }
    payload = take8(in) * 16u;
    take(in, header, bytes);
    if (kind && bytes >= sizeof head)
        memcpy(header, &head, sizeof head);
    if (!bytes)
        return;
    /* It says something about the header, so that no sum in there can be learnt to match it. */
    uint8_t *said = malloc(payload + 1);
    must(said != NULL);
    for (uint32_t i = 0; i < payload; i++)
        said[i] = (uint8_t)(wf_sum64(header, bytes) >> i % 57);
    deliver(link, header, bytes, said, payload, false);
}

static void say_events(struct input *in, struct wf_net_link *link, bool offer)
{
    union {
        struct wf_fabric_events said;
        struct wf_fabric_offer offer;
        uint8_t bytes[sizeof(struct wf_fabric_events) + 8 * sizeof(struct wf_fabric_event)];
    } m = {0};
    uint8_t flags = take8(in);
    uint32_t count = flags / 4 % 9, head = offer ? sizeof m.offer : sizeof m.said;
    if (offer) {
        m.offer = (struct wf_fabric_offer){.head = {WF_FABRIC_MAGIC, WF_FABRIC_OFFER, 0},
                                           .count = count,
                                           .flags = flags & 1};
    } else {
        m.said = (struct wf_fabric_events){.head = {WF_FABRIC_MAGIC, WF_FABRIC_EVENTS, 0},
                                           .count = count,
                                           .flags = flags & 3,
                                           .from = link->told,
                                           .to = link->told + count};
        link->told += count;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t what = take8(in), which = take8(in);
        struct wf_fabric_event event = event_of(which % 2, which / 2 % BLOCKS);
        event.kind = (uint8_t)(1 + (what & 1));
        event.where = what >> 1 & 3;
        event.domain = (uint8_t)(which % 2 ^ link->swap ^ (what >> 3 & 1));
        event.quality = which >> 4 & 7;
        event.bytes = what & 16 ? event.bytes + take8(in) : event.bytes;
        memcpy(m.bytes + head + i * sizeof event, &event, sizeof event);
    }
    deliver(link, &m, head + count * (uint32_t)sizeof(struct wf_fabric_event), NULL, 0, false);
}

/* DATA for what was asked of some link: as it should be, or not. */
static void say_data(struct input *in, struct wf_net_link *link)
{
    union {
        struct wf_fabric_data data;
        uint64_t words[sizeof(struct wf_fabric_data) / 8 + PARTS];
    } m = {.data = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_DATA, 0}}};
    uint8_t who = take8(in), how = take8(in);
    const struct wf_fabric_get *get = &world.links[who % LINKS].get;
    uint64_t from = (uint64_t)get->first_part * PART, to = from + (uint64_t)get->part_count * PART;
    bool proven = link->proven >> get->domain & 1;
    if (get->part_bytes != PART || get->part_count > PARTS || get->first_part >= PARTS)
        return;
    to = to < get->bytes ? to : get->bytes;
    m.data.request = get->request + (how & 1 ? take8(in) : 0);
    m.data.part_count = get->part_count;
    m.data.form = how >> 1 & 3;
    m.data.quality = who >> 3 & 7;
    m.data.profile = who;
    if (how & 8) {
        m.data.status = how & 16 ? WEFT_MISS : WEFT_E_BUSY;
        deliver(link, &m, sizeof m.data + 8 * get->part_count, NULL, 0, false);
        return;
    }
    uint8_t *said = malloc(to - from);
    must(said != NULL);
    for (uint64_t at = from; at < to; at++)
        /* Who has not proved the domain may say anything, and is not to be heard. */
        said[at - from] = (uint8_t)(byte_of(get->key, at) ^ !proven);
    uint64_t bytes = to - from, cut = 0;
    if (m.data.form == WF_FABRIC_CUT)
        cut = cut_of(get->key, !proven, get->bytes, from, to, &said);
    bytes = cut ? cut : bytes;
    m.data.part_count = (uint32_t)((bytes + PART - 1) / PART);
    for (uint32_t i = 0; i < m.data.part_count; i++)
        m.data.sums[i] = wf_sum64(said + i * PART,
                                  bytes - i * PART < PART ? bytes - i * PART : PART);
    if (m.data.form == WF_FABRIC_FRAME)
        bytes = frame_of(&said, bytes);
    if (how & 32)
        said[take16(in) % bytes] ^= (uint8_t)(1 + take8(in) % 255);
    if (how & 64)
        m.data.sums[take8(in) % m.data.part_count] ^= 1;
    deliver(link, &m, sizeof m.data + 8 * m.data.part_count, said, (uint32_t)bytes, how & 128);
}

static void say_get(struct input *in, struct wf_net_link *link)
{
    uint8_t which = take8(in), parts = take8(in), how = take8(in);
    const struct block *b = &world.blocks[which % 2][which / 2 % BLOCKS];
    uint32_t all = (uint32_t)((b->bytes + PART - 1) / PART);
    struct wf_fabric_get get = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_GET, 0},
                                .request = parts,
                                .domain = (uint16_t)((which % 2 ^ link->swap) ^ (how & 1u)),
                                .flags = how >> 3 & 1,
                                .first_part = parts % 16 % all,
                                .part_bytes = PART,
                                .bytes = b->bytes + (how & 2),
                                .codecs = (how >> 2 & 1u) | (how >> 4 & 2u),
                                .profiles = how >> 6,
                                .quality = which >> 4 & 7};
    get.part_count = parts / 16 ? parts / 16u : all - get.first_part;
    memcpy(get.key, b->key, 32);
    deliver(link, &get, sizeof get, NULL, 0, false);
}

static void say_put(struct input *in, struct wf_net_link *link)
{
    union {
        struct wf_fabric_put put;
        uint64_t words[sizeof(struct wf_fabric_put) / 8 + PARTS];
    } m = {.put = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PUT, 0}, .part_bytes = PART, .copies = 1}};
    uint8_t which = take8(in), how = take8(in);
    const struct block *b = &world.blocks[which % 2][which / 2 % BLOCKS];
    m.put.request = which;
    m.put.part_count = (uint32_t)((b->bytes + PART - 1) / PART);
    m.put.copies = 1 + (how >> 1 & 1);
    m.put.form = how >> 2 & 3;
    m.put.block = event_of(which % 2, which / 2 % BLOCKS);
    m.put.block.domain = (uint8_t)(which % 2 ^ link->swap ^ (how & 1));
    m.put.block.quality = which >> 4 & 7;
    if (how & 16)
        snprintf(m.put.owner, sizeof m.put.owner, "%s", peer_names[take8(in) % 4]);
    uint8_t *said = malloc(b->bytes);
    must(said != NULL);
    memcpy(said, b->data, b->bytes);
    for (uint32_t i = 0; i < m.put.part_count; i++) {
        uint64_t left = b->bytes - i * PART;
        m.put.sums[i] = wf_sum64(said + i * PART, left < PART ? left : PART);
    }
    uint64_t bytes = b->bytes;
    if (m.put.form == WF_FABRIC_FRAME)
        bytes = frame_of(&said, bytes);
    if (how & 32)
        said[take16(in) % bytes] ^= 1;
    deliver(link, &m, sizeof m.put + 8 * m.put.part_count, said, (uint32_t)bytes, how & 128);
}

/* A push of two blocks: its beginning, a layer, its end. */
static void say_push(struct input *in, struct wf_net_link *link)
{
    union {
        struct wf_fabric_push_said push;
        struct wf_fabric_layer layer;
        struct wf_fabric_push_end end;
        uint8_t bytes[sizeof(struct wf_fabric_push_said) + 2 * sizeof(struct wf_fabric_event)];
    } m = {0};
    uint8_t what = take8(in), how = take8(in);
    uint32_t domain = what & 1, block = how & 1, layer = how >> 1 & 3;
    if (what % 8 < 2) {
        m.push = (struct wf_fabric_push_said){.head = {WF_FABRIC_MAGIC, WF_FABRIC_PUSH, 0},
                                              .request = how,
                                              .count = 2,
                                              .layers = 4,
                                              .profile = how};
        link->pushed_domain = domain;
        for (uint32_t i = 0; i < 2; i++) {
            m.push.blocks[i] = event_of(domain, SAME_SIZE + i);
            m.push.blocks[i].domain = (uint8_t)(domain ^ link->swap ^ (how >> 7));
            m.push.blocks[i].quality = what >> 5; /* some that there are not */
        }
        deliver(link, &m, sizeof m, NULL, 0, false);
    } else if (what % 8 < 6) {
        const struct block *b = &world.blocks[link->pushed_domain][SAME_SIZE + block];
        uint64_t each = b->bytes / 4;
        uint8_t *said = malloc(each);
        must(said != NULL);
        memcpy(said, b->data + layer * each, each);
        m.layer = (struct wf_fabric_layer){.head = {WF_FABRIC_MAGIC, WF_FABRIC_LAYER, 0},
                                           .handle = link->handle,
                                           .layer = layer,
                                           .count = 1};
        m.layer.pieces[0].block = block;
        m.layer.pieces[0].sum = wf_sum64(said, each);
        if (how & 32)
            each = frame_of(&said, each); /* or as much as that would be */
        m.layer.pieces[0].bytes = (uint32_t)each;
        said[take16(in) % each] ^= how >> 4 & 1;
        deliver(link, &m, sizeof m.layer + sizeof m.layer.pieces[0], said, (uint32_t)each,
                how & 128);
    } else {
        m.end = (struct wf_fabric_push_end){.head = {WF_FABRIC_MAGIC, WF_FABRIC_PUSH_END, 0},
                                            .handle = link->handle,
                                            .keep = {how}};
        deliver(link, &m, sizeof m.end, NULL, 0, false);
    }
}

/* To what was asked last of a kind that is answered in a few words. */
static void say_answer(struct input *in, struct wf_net_link *link)
{
    uint8_t what = take8(in), how = take8(in);
    struct wf_net_link *asked = &world.links[how >> 5 & 7];
    static const int32_t statuses[] = {WEFT_OK,   WEFT_OK,     WEFT_EXISTS,    WEFT_FULL,
                                       WEFT_MISS, WEFT_E_BUSY, WEFT_E_CORRUPT, 77};
    int32_t status = statuses[how & 7];
    struct wf_fabric_placed placed = {{WF_FABRIC_MAGIC, WF_FABRIC_PLACED, 0},
                                      asked->put_request,
                                      status,
                                      how};
    struct wf_fabric_room room = {{WF_FABRIC_MAGIC, WF_FABRIC_ROOM, 0},
                                  asked->push_request,
                                  status == WEFT_OK,
                                  status,
                                  0,
                                  {how >> 3}};
    struct wf_fabric_pushed_said pushed = {
        {WF_FABRIC_MAGIC, WF_FABRIC_PUSHED, 0}, asked->push_request, status, how >> 3 & 3, 0, 0};
    struct {
        struct wf_fabric_found found;
        uint64_t members[4];
    } found = {
        {{WF_FABRIC_MAGIC, WF_FABRIC_FOUND, 0}, asked->look_request, how >> 3 & 3, how & 7, 0},
        {0}};
    for (uint32_t i = 0; i < 4; i++)
        found.members[i] = member_of((how + i) % 4);
    struct wf_fabric_ping pong = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_PONG, 0},
                                  .sent_ns = asked->ping_sent,
                                  .lent_bytes = how * 1024u,
                                  .lent_free_bytes = how * 512u,
                                  .lends_bytes = how * 2048u,
                                  .flags = how & 1};
    static struct {
        struct wf_fabric_copied copied;
        struct wf_fabric_copied_key keys[WF_FABRIC_COPIES_MAX];
    } copied;
    copied.copied = (struct wf_fabric_copied){.head = {WF_FABRIC_MAGIC, WF_FABRIC_COPIED, 0},
                                              .request = asked->copies_request,
                                              .count = asked->copies_count,
                                              .flags = how & 1};
    for (uint32_t i = 0; i < asked->copies_count; i++)
        copied.keys[i].members[how >> 1 & 3] = member_of((how + i) % 4);
    switch (what % 7) {
    case 6:
        deliver(link, &copied,
                (uint32_t)(sizeof copied.copied + asked->copies_count * sizeof copied.keys[0]),
                NULL, 0, false);
        break;
    case 0: deliver(link, &placed, sizeof placed, NULL, 0, false); break;
    case 1: deliver(link, &room, sizeof room, NULL, 0, false); break;
    case 2: deliver(link, &pushed, sizeof pushed, NULL, 0, false); break;
    case 3: deliver(link, &found, 24 + 8u * found.found.count, NULL, 0, false); break;
    case 4: deliver(link, &pong, sizeof pong, NULL, 0, false); break;
    default: {
        struct wf_fabric_probe probed = asked->probe;
        probed.head.kind = WF_FABRIC_PROBED;
        deliver(link, &probed, sizeof probed, probed.bytes ? calloc(1, probed.bytes) : NULL,
                probed.bytes, how & 128);
    }
    }
}

/* IDENT, and JOIN with proof of what this link is to prove. */
static void say_who(struct input *in, struct wf_net_link *link)
{
    uint8_t how = take8(in);
    struct wf_fabric_ident ident = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_IDENT, 0},
                                    .version = WF_FABRIC_VERSION,
                                    .flags = how >> 4 & 3,
                                    .epoch = 1 + (how >> 6 & 1),
                                    .codecs = 1,
                                    .encode_mbps = 1000,
                                    .decode_mbps = 1000,
                                    .threads = 1};
    struct {
        struct wf_fabric_join join;
        uint8_t proofs[2][32];
    } m = {.join = {.head = {WF_FABRIC_MAGIC, WF_FABRIC_JOIN, 0}, .count = 2}};
    memset(ident.nonce, 7, sizeof ident.nonce);
    memcpy(ident.name, peer_names[how & 3], strlen(peer_names[how & 3]));
    deliver(link, &ident, sizeof ident, NULL, 0, false);
    if (how & 4 || !link->up || world.unproven)
        return;
    for (uint32_t domain = 0; domain < 2; domain++) {
        uint8_t text[20 + 64] = "weft fabric domain 1";
        unsigned bytes = 32;
        memcpy(text + 20, ident.nonce, 32);
        memcpy(text + 52, link->nonce, 32);
        if (link->proves >> domain & 1)
            HMAC(EVP_sha256(), world.secrets[domain], 32, text, sizeof text,
                 m.proofs[domain ^ link->swap], &bytes);
    }
    link->proven = link->proves;
    world.ever |= link->proves;
    deliver(link, &m, sizeof m, NULL, 0, false);
}

/* -------------------------------------------------------------------------------------------- */

static void act(struct input *in)
{
    uint8_t what = take8(in);
    struct wf_net_link *link = &world.links[what >> 5 & 7];
    switch (what & 31) {
    case 0: say_any(in, link, false); break;
    case 1:
    case 2: say_any(in, link, true); break;
    case 3: say_events(in, link, false); break;
    case 4: say_events(in, link, true); break;
    case 5: fetch_begin(in); break;
    case 6: say_data(in, link); break;
    case 7: pass(take8(in)); break;
    case 8: pass(1); break;
    case 9: link_turn(link, take8(in)); break;
    case 10: say_get(in, link); break;
    case 11: say_put(in, link); break;
    case 12: store_begin(in); break;
    case 13: say_answer(in, link); break;
    case 14: push_go_on(in); break;
    case 15: say_push(in, link); break;
    case 16: order(in); break;
    case 17: say_who(in, link); break;
    case 18: reads_end(take8(in)); break;
    case 19: finish(link, WEFT_OK); break;
    case 20: member_turn(take8(in)); break;
    case 21: /* both, as most links begin */
        link_turn(link, 0);
        say_who(in, link);
        pass(30);
        break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 16)
        return 0;
    struct input in = {.at = data, .end = data + size};
    uint8_t mode = take8(&in), proves = take8(&in);
    world_begin(mode, proves);
    pass(1);
    for (uint32_t i = 0; i < ACTS_MAX && in.at < in.end; i++)
        act(&in);
    world_end();
    for (uint32_t i = 0; i < SLOTS; i++)
        must(!fetches[i].busy && !stores[i].busy);
    must(!pushing);
    return 0;
}
