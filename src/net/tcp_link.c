/* SPDX-License-Identifier: Apache-2.0
 *
 * Links: how they come up, that they are alive, and how they end.
 *
 * A link is up when each of its streams has shaken hands; `up` is called once then.  It ends in
 * steps: what is under way is cancelled, its completions come, its sockets are closed, what the
 * user lent is given back, and then `down` is called and the link is freed.  Nothing outside of
 * this file frees one.
 */
#include "net/tcp_inner.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/clock.h"
#include "sys/memory.h"

#define TICK_MS_MAX 250u
#define SAY_MS_MIN 5u
/* What has begun to come has to come: in SLOW_TURNS times dead_ms so much, or all of it; and of
 * what is sent the other side has to take some in STALL_TURNS times dead_ms.  Words now and then
 * are no sign that it serves: it would hold our memory for as long as it likes. */
#define SLOW_TURNS 2u
#define SLOW_BYTES (512u << 10)
#define STALL_TURNS 3u
#define SLOW_STEP_MS 1000u /* of a time in which this side did not look, so much counts */
#define DESTROY_WAITS 2000 /* of 10 ms at most: a cancelled operation completes at once */

enum weft_status wf_tcp_link_create(struct tcp_net *net, struct tcp_link **out)
{
    uint32_t index = 0;
    while (index < net->options.links_max && net->links[index])
        index++;
    if (index == net->options.links_max)
        return wf_fail(WEFT_E_LIMIT, "this net has %u links, as many as it may",
                       net->options.links_max);
    struct tcp_link *link = wf_calloc(1, sizeof *link, "a link");
    if (!link)
        return WEFT_E_NO_MEMORY;
    link->incoming = wf_calloc(TCP_INCOMING_MAX, sizeof *link->incoming, "a link's messages");
    link->asked = wf_calloc(TCP_ACCESS_MAX, sizeof *link->asked, "a link's accesses");
    link->serves = wf_calloc(TCP_ACCESS_MAX, sizeof *link->serves, "a link's accesses");
    if (!link->incoming || !link->asked || !link->serves) {
        free(link->incoming);
        free(link->asked);
        free(link->serves);
        free(link);
        return WEFT_E_NO_MEMORY;
    }
    link->net = net;
    link->index = index;
    link->stream_count = 1;
    link->zero_copy = true;
    link->deadline_ms = wf_now_ms() + net->options.connect_ms; /* not since the last poll */
    net->links[index] = link;
    net->link_count++;
    *out = link;
    return WEFT_OK;
}

enum weft_status wf_tcp_link_connect(struct tcp_link *link)
{
    struct tcp_stream *stream;
    enum weft_status status = wf_tcp_stream_create(link->net, link, 0, &stream);
    return status == WEFT_OK ? wf_tcp_stream_connect(stream) : status;
}

void wf_tcp_link_mark(struct tcp_link *link, bool pump)
{
    link->pump |= pump;
    if (link->marked)
        return;
    link->marked = true;
    link->mark_next = link->net->marked;
    link->net->marked = link;
}

void wf_tcp_link_end(struct tcp_link *link, enum weft_status status, const char *sentence)
{
    if (link->state == TCP_LINK_ENDS)
        return;
    if (link->state == TCP_LINK_UP && status == WEFT_E_PROTOCOL)
        link->net->stats.nonsense++;
    snprintf(link->sentence, sizeof link->sentence, "%s", sentence ? sentence : wf_last_error());
    if (link->state == TCP_LINK_BEGINS && !link->connector) {
        link->net->stats.refused++;
        wf_tcp_warn(link->net, link->peer, link->sentence);
    }
    link->state = TCP_LINK_ENDS;
    link->status = status;
    wf_tcp_link_mark(link, false);
}

/* --------------------------------------------------------------------------------- coming up */

static void link_up(struct tcp_link *link)
{
    struct tcp_net *net = link->net;
    struct wf_net_hello *hello = link->streams[0]->hello;
    uint8_t key[32];
    uint32_t theirs = hello->peer.dead_ms, mine = net->options.dead_ms;
    wf_net_hello_key(hello, key);
    memcpy(&link->seed, key, sizeof link->seed);
    OPENSSL_cleanse(key, sizeof key);
    link->dead_ms = mine;
    link->say_ms = (theirs < mine ? theirs : mine) / 4;
    if (link->say_ms < SAY_MS_MIN)
        link->say_ms = SAY_MS_MIN;
    if (net->tick_ms > net->now_ms + link->say_ms / 2)
        net->tick_ms = net->now_ms + link->say_ms / 2;
    link->state = TCP_LINK_UP;
    link->named = true;
    net->stats.links++;
    for (uint32_t i = 0; i < link->stream_count; i++)
        link->streams[i]->heard_ms = link->streams[i]->said_ms = net->now_ms;
    wf_tcp_link_mark(link, true);
    if (!net->options.events.up(net->options.events.context, (struct wf_net_link *)link,
                                hello->peer.hello, hello->peer.hello_bytes, link->name))
        wf_tcp_link_end(link, WEFT_OK, "not wanted by this side");
}

static void link_count_whole(struct tcp_link *link)
{
    if (++link->streams_whole == link->stream_count)
        link_up(link);
}

/* Connector: both sides of this stream have proved themselves. */
enum weft_status wf_tcp_link_proven(struct tcp_stream *stream)
{
    struct tcp_link *link = stream->link;
    enum weft_status status = WEFT_OK;
    if (stream->index == 0) {
        memcpy(link->id, stream->hello->link, sizeof link->id);
        if (stream->hello->streams > link->net->options.streams)
            return wf_fail(WEFT_E_PROTOCOL, "the other side wants %u streams of %u",
                           stream->hello->streams, link->net->options.streams);
        link->stream_count = stream->hello->streams;
        for (uint32_t i = 1; i < link->stream_count && status == WEFT_OK; i++) {
            struct tcp_stream *further;
            status = wf_tcp_stream_create(link->net, link, i, &further);
            if (status == WEFT_OK)
                status = wf_tcp_stream_connect(further);
        }
        if (link->stream_count > 1)
            return status;
    } else {
        if (CRYPTO_memcmp(stream->hello->link, link->id, sizeof link->id) != 0)
            return wf_fail(WEFT_E_PROTOCOL, "the other side took a stream for another link's");
        wf_net_hello_ready(stream->hello);
        link->streams_whole++;
        if (link->streams_whole + 1 < link->stream_count)
            return WEFT_OK;
    }
    wf_net_hello_ready(link->streams[0]->hello);
    link->streams[0]->phase = TCP_CARRIES;
    link_count_whole(link);
    return WEFT_OK;
}

static enum weft_status stream_join(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    const struct wf_net_hello_self *peer = &stream->hello->peer;
    struct tcp_link *link = NULL;
    for (uint32_t i = 0; i < net->options.links_max; i++)
        if (net->links[i] && net->links[i]->state == TCP_LINK_BEGINS && !net->links[i]->connector &&
            !CRYPTO_memcmp(net->links[i]->id, peer->link, sizeof peer->link))
            link = net->links[i];
    if (!link || peer->stream >= link->stream_count || link->streams[peer->stream] ||
        (net->tls && strcmp(link->name, stream->name) != 0)) {
        wf_net_hello_refuse(stream->hello, WF_NET_REFUSED_STREAM);
        return wf_fail(WEFT_E_DENIED, "it asks for stream %u of a link that is none", peer->stream);
    }
    stream->link = link;
    stream->index = peer->stream;
    link->streams[stream->index] = stream;
    wf_net_hello_admit(stream->hello, link->id, (uint8_t)link->stream_count);
    return WEFT_OK;
}

/* Acceptor: the other side of this stream has proved itself. */
enum weft_status wf_tcp_link_decide(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    uint32_t wanted = stream->hello->peer.streams;
    struct tcp_link *link;
    if (stream->hello->peer.stream > 0)
        return stream_join(stream);
    enum weft_status status = wf_tcp_link_create(net, &link);
    if (status != WEFT_OK) {
        wf_net_hello_refuse(stream->hello, WF_NET_REFUSED_LINKS);
        return status;
    }
    link->deadline_ms = stream->deadline_ms;
    memcpy(link->peer, stream->peer, sizeof link->peer);
    memcpy(link->name, stream->name, sizeof link->name);
    link->stream_count = wanted < net->options.streams ? wanted : net->options.streams;
    link->streams[0] = stream;
    stream->link = link;
    status = wf_net_hello_link_id(link->id);
    if (status == WEFT_OK)
        wf_net_hello_admit(stream->hello, link->id, (uint8_t)link->stream_count);
    return status;
}

/* Either: nothing is to be said any more before frames. */
void wf_tcp_link_whole(struct tcp_stream *stream)
{
    link_count_whole(stream->link);
}

/* ------------------------------------------------------------------------------------- ending */

static void link_finish(struct tcp_link *link)
{
    struct tcp_net *net = link->net;
    wf_tcp_access_link_gone(link);
    wf_tcp_send_fail_all(link);
    wf_tcp_receive_fail_all(link);
    wf_tcp_access_fail_all(link);
    if (link->named)
        net->options.events.down(net->options.events.context, (struct wf_net_link *)link,
                                 link->status, link->sentence);
    net->links[link->index] = NULL;
    net->link_count--;
    net->completed = true;
    free(link->incoming);
    free(link->asked);
    free(link->serves);
    free(link);
}

static bool link_streams_end(struct tcp_link *link)
{
    bool gone = true;
    for (uint32_t i = 0; i < WF_NET_STREAMS_MAX; i++)
        if (link->streams[i] && wf_tcp_stream_end(link->streams[i]))
            link->streams[i] = NULL;
        else
            gone &= !link->streams[i];
    return gone;
}

static void link_attend(struct tcp_link *link)
{
    bool pump = link->pump;
    link->pump = false;
    if (link->state == TCP_LINK_UP && pump)
        for (uint32_t i = 0; i < link->stream_count && link->state == TCP_LINK_UP; i++)
            wf_tcp_stream_pump(link->streams[i]);
    if (link->state == TCP_LINK_ENDS && link_streams_end(link))
        link_finish(link);
}

/* Only outside of completions and callbacks: it frees links. */
void wf_tcp_attend(struct tcp_net *net)
{
    while (net->marked) {
        struct tcp_link *link = net->marked;
        net->marked = link->mark_next;
        link->marked = false;
        link_attend(link);
    }
    if (net->reap)
        wf_tcp_handshakes_reap(net);
}

void wf_tcp_leave(struct tcp_net *net)
{
    bool rest = false;
    if (net->polling)
        return;
    for (struct tcp_link *link = net->marked; link; link = link->mark_next) {
        if (link->state != TCP_LINK_UP || net->tls) {
            rest = true;
            continue;
        }
        for (uint32_t i = 0; i < link->stream_count; i++)
            if (wf_tcp_stream_pump_out(link->streams[i]) != WEFT_OK)
                wf_tcp_link_end(link, WEFT_E_SYSTEM, NULL);
    }
    if (rest)
        wf_tcp_wake(net);
    net->engine->flush(net);
}

/* --------------------------------------------------------------------------------------- time */

/* Payloads that come, and do not come on. */
static bool link_crawls(struct tcp_link *link, uint64_t asked_ms)
{
    uint64_t passed_ms = asked_ms > link->slow_at_ms ? asked_ms - link->slow_at_ms : 0;
    link->slow_at_ms = asked_ms;
    if (link->in_first == link->in_next || link->slow_bytes >= SLOW_BYTES) {
        link->slow_ms = link->slow_bytes = 0;
        return false;
    }
    link->slow_ms += passed_ms < SLOW_STEP_MS ? passed_ms : SLOW_STEP_MS;
    return link->slow_ms > SLOW_TURNS * (uint64_t)link->dead_ms;
}

static void link_tick(struct tcp_link *link, uint64_t asked_ms)
{
    char sentence[128];
    if (link->state == TCP_LINK_UP && link_crawls(link, asked_ms)) {
        snprintf(sentence, sizeof sentence,
                 "of a payload that it sends there came less than %u KiB in %u ms",
                 SLOW_BYTES >> 10, SLOW_TURNS * link->dead_ms);
        wf_tcp_link_end(link, WEFT_E_NODE, sentence);
    }
    if (link->state == TCP_LINK_BEGINS && asked_ms > link->deadline_ms) {
        snprintf(sentence, sizeof sentence,
                 "nobody said within %u ms that a node is there; is it the port of its fabric, "
                 "and open to this host?",
                 link->net->options.connect_ms);
        wf_tcp_link_end(link, WEFT_E_TIMEOUT, sentence);
    }
    for (uint32_t i = 0; link->state == TCP_LINK_UP && i < link->stream_count; i++) {
        struct tcp_stream *stream = link->streams[i];
        /* What this side does not read says nothing about the other. */
        if (!stream->paused && asked_ms > stream->heard_ms + link->dead_ms) {
            snprintf(sentence, sizeof sentence, "the other side has said nothing for %u ms",
                     link->dead_ms);
            wf_tcp_link_end(link, WEFT_E_NODE, sentence);
        } else if (stream->sending &&
                   asked_ms > stream->said_ms + STALL_TURNS * (uint64_t)link->dead_ms) {
            snprintf(sentence, sizeof sentence,
                     "the other side has taken nothing of what is sent for %u ms",
                     STALL_TURNS * link->dead_ms);
            wf_tcp_link_end(link, WEFT_E_NODE, sentence);
        } else if (!stream->sending && link->net->now_ms >= stream->said_ms + link->say_ms) {
            stream->word_due = true;
            wf_tcp_link_mark(link, true);
        }
    }
}

void wf_tcp_tick(struct tcp_net *net, uint64_t asked_ms)
{
    const struct wf_net_options *options = &net->options;
    uint32_t every =
        (options->dead_ms < options->connect_ms ? options->dead_ms : options->connect_ms) / 8;
    for (uint32_t i = 0, seen = 0; i < options->links_max && seen < net->link_count; i++)
        if (net->links[i]) {
            uint32_t say = net->links[i]->say_ms / 2;
            seen++;
            if (net->links[i]->state == TCP_LINK_UP && say < every)
                every = say;
            link_tick(net->links[i], asked_ms);
        }
    wf_tcp_handshakes_tick(net, asked_ms);
    every = every > TICK_MS_MAX ? TICK_MS_MAX : every;
    net->tick_ms = net->now_ms + (every ? every : 1);
}

void wf_tcp_links_destroy(struct tcp_net *net)
{
    net->polling = true;
    for (uint32_t i = 0; i < net->options.links_max; i++)
        if (net->links[i]) {
            net->links[i]->named = false;
            wf_tcp_link_end(net->links[i], WEFT_OK, "its net is destroyed");
        }
    wf_tcp_attend(net);
    for (int waits = 0; waits < DESTROY_WAITS; waits++) {
        while (net->handshakes && wf_tcp_stream_end(net->handshakes))
            ;
        if (net->listener && wf_tcp_stream_end(net->listener))
            net->listener = NULL;
        if (!net->link_count && !net->handshakes && !net->listener)
            break;
        net->now_ms = wf_now_ms();
        if (net->engine->wait(net, 10) != WEFT_OK)
            break;
        wf_tcp_attend(net);
    }
}
