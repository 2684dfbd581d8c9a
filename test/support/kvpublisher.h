/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine's publisher of KV events, as far as its subscribers see it: batches in MessagePack with
 * numbers, kept for replay, which is served while somebody waits.  What it says and what it keeps
 * silent about is the test's.
 */
#ifndef TEST_SUPPORT_KVPUBLISHER_H
#define TEST_SUPPORT_KVPUBLISHER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "gateway/kvevents_codec.h"

#define KEPT_MAX 256

struct kvpublisher {
    void *context, *pub, *router;
    char endpoint[96], replay[96];
    const char *topic;
    uint64_t number;
    uint64_t kept_from; /* what is before is not replayed */
    bool silent;        /* asked for a replay, it answers nothing */
    bool topicless;     /* replays as vLLM did before 0.32 */
    struct {
        void *data;
        size_t bytes;
    } kept[KEPT_MAX];
    struct wf_kv_style style;
};

static inline void kvpublisher_bind(void *socket, const char *at, char *out, size_t capacity)
{
    int none = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    if (zmq_bind(socket, at) != 0 || zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, out, &capacity)) {
        fprintf(stderr, "publisher: %s: %s\n", at, zmq_strerror(zmq_errno()));
        abort();
    }
}

/* NULL endpoints: any free port. */
static inline void kvpublisher_open(struct kvpublisher *p, void *context, const char *endpoint,
                                    const char *replay)
{
    *p = (struct kvpublisher){.context = context, .topic = ""};
    p->pub = zmq_socket(context, ZMQ_XPUB);
    p->router = zmq_socket(context, ZMQ_ROUTER);
    kvpublisher_bind(p->pub, endpoint ? endpoint : "tcp://127.0.0.1:*", p->endpoint,
                     sizeof p->endpoint);
    kvpublisher_bind(p->router, replay ? replay : "tcp://127.0.0.1:*", p->replay, sizeof p->replay);
}

/* Its process ends: the sockets with it. */
static inline void kvpublisher_close(struct kvpublisher *p)
{
    zmq_close(p->pub);
    zmq_close(p->router);
    for (int i = 0; i < KEPT_MAX; i++)
        free(p->kept[i].data);
    p->pub = p->router = NULL;
}

/* A subscriber came, within 10 s. */
static inline bool kvpublisher_subscribed(struct kvpublisher *p)
{
    uint8_t frame[64];
    int wait = 10000;
    zmq_setsockopt(p->pub, ZMQ_RCVTIMEO, &wait, sizeof wait);
    return zmq_recv(p->pub, frame, sizeof frame, 0) >= 1 && frame[0] == 1;
}

static inline void kvpublisher_frames(struct kvpublisher *p, void *socket, const char *topic,
                                      uint64_t number, const void *data, size_t bytes)
{
    uint8_t frame[8];
    for (int i = 8; i-- > 0; number >>= 8)
        frame[i] = (uint8_t)number;
    if (socket != p->router || !p->topicless)
        zmq_send(socket, topic, strlen(topic), ZMQ_SNDMORE);
    zmq_send(socket, frame, 8, ZMQ_SNDMORE);
    zmq_send(socket, data, bytes, 0);
}

/* As the next batch; not told but kept only, when `lost`. */
static inline void kvpublisher_publish(struct kvpublisher *p, const void *data, size_t bytes,
                                       bool lost)
{
    uint64_t number = p->number++;
    if (number < KEPT_MAX) {
        p->kept[number].data = malloc(bytes + 1);
        memcpy(p->kept[number].data, data, bytes);
        p->kept[number].bytes = bytes;
    }
    if (!lost)
        kvpublisher_frames(p, p->pub, p->topic, number, data, bytes);
}

static inline void kvpublisher_say(struct kvpublisher *p, const struct wf_kv_said *said,
                                   size_t count, bool lost)
{
    struct wf_kv_bytes out = {0};
    if (wf_kv_encode(&p->style, 1.5, said, count, &out) != WEFT_OK)
        abort();
    kvpublisher_publish(p, out.data, out.bytes, lost);
    free(out.data);
}

/* Answer who asks for a replay. */
static inline void kvpublisher_serve(struct kvpublisher *p)
{
    uint8_t who[64], empty[8], from[8];
    for (;;) {
        int length = zmq_recv(p->router, who, sizeof who, ZMQ_DONTWAIT);
        if (length < 0)
            return;
        zmq_recv(p->router, empty, sizeof empty, 0);
        zmq_recv(p->router, from, sizeof from, 0);
        uint64_t first = wf_kv_hash_number(from, 8);
        for (uint64_t i = first; !p->silent && i <= p->number; i++) {
            bool end = i == p->number;
            if (!end && i < p->kept_from)
                continue;
            zmq_send(p->router, who, (size_t)length, ZMQ_SNDMORE);
            zmq_send(p->router, "", 0, ZMQ_SNDMORE);
            kvpublisher_frames(p, p->router, end ? "" : p->topic, end ? UINT64_MAX : i,
                               end ? NULL : p->kept[i].data, end ? 0 : p->kept[i].bytes);
        }
    }
}

#endif
