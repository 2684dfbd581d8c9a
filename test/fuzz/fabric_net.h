/* SPDX-License-Identifier: Apache-2.0
 *
 * The net of fuzz/fabric.c: links that come up, go down and carry what the fuzzer says.  A part of
 * fabric_world.h.
 */
#ifndef WF_TEST_FUZZ_FABRIC_NET_H
#define WF_TEST_FUZZ_FABRIC_NET_H

static enum weft_status net_create(const struct wf_net_options *options, struct wf_net **out)
{
    must(!world.net);
    *out = world.net = calloc(1, sizeof **out);
    must(*out != NULL);
    (*out)->options = *options;
    return WEFT_OK;
}

static const char *net_address(const struct wf_net *net)
{
    (void)net;
    return "sim:a";
}

static void link_make(struct wf_net_link *link, void *user)
{
    uint32_t slot = (uint32_t)(link - world.links);
    memset(link, 0, sizeof *link);
    link->used = true;
    link->user = user;
    link->queue_end = &link->queue;
    link->swap = slot & 1;
    link->proves = world.proves >> 2 * (slot & 3) & 3;
}

static enum weft_status net_connect(struct wf_net *net, const char *address, void *user,
                                    struct wf_net_link **out)
{
    (void)net, (void)address;
    for (uint32_t i = 0; i < LINKS; i++) {
        struct wf_net_link *link = &world.links[i];
        if (link->used)
            continue;
        link_make(link, user);
        link->connecting = link->named = true;
        *out = link;
        return WEFT_OK;
    }
    return wf_fail(WEFT_E_LIMIT, "there are %u links already", LINKS);
}

static void net_close(struct wf_net_link *link)
{
    must(link->used);
    link->closed = true;
}

static void net_set_user(struct wf_net_link *link, void *user)
{
    must(link->used);
    link->user = user;
}

static void *net_user(const struct wf_net_link *link)
{
    must(link->used);
    return link->user;
}

static const char *net_peer(const struct wf_net_link *link)
{
    (void)link;
    return "sim:somebody";
}

static void may_say(const struct wf_net_link *link, uint32_t domain)
{
    must(domain < 2 && (link->proven >> domain & 1));
}

/* What is said of a domain is said to who has proved it. */
static void heard(struct wf_net_link *link, const struct wf_net_message *message)
{
    union {
        struct wf_fabric_head head;
        struct wf_fabric_ident ident;
        struct wf_fabric_events events;
        struct wf_fabric_offer offer;
        struct wf_fabric_get get;
        struct wf_fabric_data data;
        struct wf_fabric_put put;
        struct wf_fabric_push_said push;
        struct wf_fabric_room room;
        struct wf_fabric_forget forget;
        struct wf_fabric_lookup lookup;
        struct wf_fabric_copies copies;
        struct wf_fabric_ping ping;
        struct wf_fabric_probe probe;
        uint8_t bytes[WF_NET_HEADER_MAX];
    } const *m = message->header;
    const struct wf_fabric_event *events = NULL;
    uint32_t count = 0;
    switch (m->head.kind) {
    case WF_FABRIC_IDENT: memcpy(link->nonce, m->ident.nonce, 32); break;
    case WF_FABRIC_GET:
        link->get = m->get;
        may_say(link, m->get.domain);
        break;
    case WF_FABRIC_DATA: /* nothing worse than what was asked for; of what is not sent it is said */
        must(m->data.status == WEFT_MISS ||
             m->data.quality <= link->accepts[m->data.request & 255]);
        must(m->data.status == WEFT_OK || message->piece_count == 0);
        break;
    case WF_FABRIC_PUT:
        link->put_request = m->put.request;
        may_say(link, m->put.block.domain);
        break;
    case WF_FABRIC_LOOKUP:
        link->look_request = m->lookup.request;
        may_say(link, m->lookup.domain);
        break;
    case WF_FABRIC_COPIES:
        link->copies_request = m->copies.request;
        link->copies_count = m->copies.count;
        may_say(link, m->copies.domain);
        break;
    case WF_FABRIC_FORGET: may_say(link, m->forget.domain); break;
    case WF_FABRIC_EVENTS: events = m->events.events, count = m->events.count; break;
    case WF_FABRIC_OFFER: events = m->offer.events, count = m->offer.count; break;
    case WF_FABRIC_PUSH:
        link->push_request = m->push.request;
        events = m->push.blocks, count = m->push.count;
        break;
    case WF_FABRIC_ROOM: link->handle = m->room.handle; break;
    case WF_FABRIC_PING: link->ping_sent = m->ping.sent_ns; break;
    case WF_FABRIC_PROBE: link->probe = m->probe; break;
    default: break;
    }
    for (uint32_t i = 0; i < count; i++)
        may_say(link, events[i].domain);
}

static enum weft_status net_send(struct wf_net_link *link, struct wf_net_message *message)
{
    must(link->used && message->header_bytes && message->header_bytes <= WF_NET_HEADER_MAX);
    if (!link->up || link->closed)
        return WEFT_E_NODE;
    if (link->queued == QUEUE_MAX)
        return WEFT_PENDING;
    heard(link, message);
    message->next = NULL;
    *link->queue_end = message;
    link->queue_end = &message->next;
    link->queued++;
    return WEFT_OK;
}

/* What is asked of the fabric may be answered so. */
static void asked(struct wf_net_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric_get get;
    if (bytes != sizeof get)
        return;
    memcpy(&get, header, sizeof get);
    uint8_t *accepts = &link->accepts[get.request & 255];
    if (get.head.kind == WF_FABRIC_GET && get.quality > *accepts)
        *accepts = get.quality > WEFT_ECONOMY ? WEFT_ECONOMY : (uint8_t)get.quality;
}

/* All of it is read until then. */
static void sent_all(struct wf_net_link *link, enum weft_status status)
{
    while (link->queue) {
        struct wf_net_message *message = link->queue;
        link->queue = message->next;
        link->queued--;
        if (!link->queue)
            link->queue_end = &link->queue;
        for (uint32_t i = 0; i < message->header_bytes; i++)
            world.was_sent ^= ((const uint8_t *)message->header)[i];
        for (uint32_t p = 0; p < message->piece_count; p++)
            for (size_t i = 0; i < message->pieces[p].iov_len; i++)
                world.was_sent ^= ((const uint8_t *)message->pieces[p].iov_base)[i];
        message->sent(message, status);
    }
}

/* Place what is to come up to there. */
static void place(struct wf_net_link *link, uint64_t until)
{
    uint64_t at = 0;
    for (uint32_t p = 0; p < link->piece_count; p++) {
        for (uint64_t i = 0; i < link->pieces[p].iov_len && at < until; i++, at++)
            if (at >= link->placed)
                ((uint8_t *)link->pieces[p].iov_base)[i] = link->said[at]; /* NOLINT: it was said */
    }
    link->placed = until;
}

/* What comes has come, or does not. */
static void finish(struct wf_net_link *link, enum weft_status status)
{
    void *token = link->token;
    if (!link->used)
        return;
    if (link->said && status == WEFT_OK)
        place(link, link->said_bytes);
    free(link->said);
    link->said = NULL;
    link->token = NULL;
    world.hearing = link;
    if (token)
        world.net->options.events.arrived(world.net->options.events.context, link, token, status);
    world.hearing = NULL;
    if (world.slow)
        sent_all(link, status);
}

static void net_destroy(struct wf_net *net)
{
    for (uint32_t i = 0; i < LINKS; i++) {
        finish(&world.links[i], WEFT_E_NODE);
        if (world.links[i].used)
            sent_all(&world.links[i], WEFT_E_NODE);
        world.links[i].used = false;
    }
    world.net = NULL;
    free(net);
}

static enum weft_status net_poll(struct wf_net *net, uint32_t timeout_ms)
{
    (void)timeout_ms;
    for (uint32_t i = 0; i < LINKS; i++) {
        struct wf_net_link *link = &world.links[i];
        if (link->used && !world.slow)
            sent_all(link, WEFT_OK);
        if (!link->used || !link->closed)
            continue;
        finish(link, WEFT_E_NODE);
        sent_all(link, WEFT_E_NODE);
        net->options.events.down(net->options.events.context, link, WEFT_E_NODE, "it is gone");
        link->used = link->up = false;
    }
    return WEFT_OK;
}

static int net_event(const struct wf_net *net)
{
    (void)net;
    return -1;
}

static void net_stats(const struct wf_net *net, struct wf_net_stats *out)
{
    (void)net;
    *out = (struct wf_net_stats){0};
}

static const struct wf_net_ops fake_net = {.name = "sim",
                                           .create = net_create,
                                           .destroy = net_destroy,
                                           .address = net_address,
                                           .connect = net_connect,
                                           .close = net_close,
                                           .set_user = net_set_user,
                                           .user = net_user,
                                           .peer = net_peer,
                                           .send = net_send,
                                           .event = net_event,
                                           .poll = net_poll,
                                           .stats = net_stats};

/* The linker gives it for wf_net_by_address(), so that what the fabric begins comes here, too. */
const struct wf_net_ops *__wrap_wf_net_by_address(const char *address);
const struct wf_net_ops *__wrap_wf_net_by_address(const char *address)
{
    return strncmp(address, "sim:", 4) == 0 ? &fake_net : NULL;
}

/* A message over that link; `said` is freed.  `later`: the rest of it comes with finish(). */
static void deliver(struct wf_net_link *link, const void *header, uint32_t header_bytes,
                    uint8_t *said, uint32_t bytes, bool later)
{
    const struct wf_net_events *events = &world.net->options.events;
    if (link->used && link->said)
        finish(link, WEFT_OK);
    if (!link->up || link->closed) {
        free(said);
        return;
    }
    uint32_t askew = header_bytes % 8; /* nets have headers where they came to lie */
    uint8_t *copy = malloc(askew + header_bytes);
    void *token = NULL;
    must(copy != NULL);
    memcpy(copy + askew, header, header_bytes);
    asked(link, header, header_bytes);
    world.hearing = link;
    uint32_t count = events->begun(events->context, link, copy + askew, header_bytes, bytes,
                                   link->pieces, &token);
    world.hearing = NULL;
    free(copy);
    if (!bytes || !count) {
        free(said);
        return;
    }
    uint64_t room = 0;
    must(count <= WF_NET_PIECES_MAX && token);
    for (uint32_t i = 0; i < count; i++)
        room += link->pieces[i].iov_len;
    must(room == bytes);
    link->piece_count = count;
    link->said = said;
    link->said_bytes = bytes;
    link->placed = 0;
    link->token = token;
    place(link, bytes / 2);
    if (events->progress)
        events->progress(events->context, link, token, bytes / 2);
    if (!later)
        finish(link, WEFT_OK);
}

/* It comes up, or goes down. */
static void link_turn(struct wf_net_link *link, uint8_t how)
{
    const struct wf_net_events *events = &world.net->options.events;
    if (how % 4 == 1) {
        link->closed = link->used;
        return;
    }
    if (!link->used)
        link_make(link, NULL);
    else if (!link->connecting)
        return;
    if (link->closed)
        return;
    link->connecting = false;
    link->up = true;
    if (!events->up(events->context, link, "weft", 5, how % 4 == 2 ? "b" : ""))
        link->closed = true;
}

#endif
