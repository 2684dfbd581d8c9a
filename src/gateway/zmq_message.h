/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages of ZeroMQ, which come in frames: taken whole, whatever somebody sends.
 */
#ifndef WF_GATEWAY_ZMQ_MESSAGE_H
#define WF_GATEWAY_ZMQ_MESSAGE_H

#include <zmq.h>

/* The next one, without waiting: its first `frames` frames go to `out`, which is for
 * wf_zmq_release() in any case.  Returns how many it had, where more than that is one more; 0:
 * there is none. */
static inline int wf_zmq_receive(void *socket, zmq_msg_t *out, int frames)
{
    int had = 0, more = 1;
    for (int i = 0; i < frames; i++)
        zmq_msg_init(&out[i]);
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            break;
        }
        more = zmq_msg_more(&frame);
        if (had < frames)
            zmq_msg_move(&out[had], &frame);
        zmq_msg_close(&frame);
        had += had <= frames;
    }
    return had;
}

static inline void wf_zmq_release(zmq_msg_t *frames, int count)
{
    for (int i = 0; i < count; i++)
        zmq_msg_close(&frames[i]);
}

#endif
