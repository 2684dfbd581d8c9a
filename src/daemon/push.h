/* SPDX-License-Identifier: Apache-2.0
 *
 * Pushes (fabric/wire.h), as the owner thread has them: blocks that a client of this node still
 * writes, on their way to another node, and room for those that others push here.
 *
 *     push.c     what clients push, and the queue from the fabric's thread to the owner
 *     pushed.c   what others push here
 *
 * A block that is pushed is held by the store until nothing reads it any more, whatever its client
 * does: aborted, its memory waits; committed, it does not leave.
 */
#ifndef WF_DAEMON_PUSH_H
#define WF_DAEMON_PUSH_H

#include "daemon/node.h"
#include "fabric/fabric.h"

/* Something that the fabric's thread leaves for the owner, which calls `run`. */
struct wf_push_event {
    struct wf_push_event *next;
    void (*run)(struct wf_node *node, struct wf_push_event *event);
};

struct wf_node_pushes;
struct wf_pushed_rooms;

enum weft_status wf_node_pushes_create(struct wf_node *node);
/* The fabric is gone: what was pushed, here and there, is let go of. */
void wf_node_pushes_end(struct wf_node *node);
void wf_node_pushes_destroy(struct wf_node *node);
/* Readable when there is something to run; -1: this node is alone. */
int wf_node_pushes_fd(const struct wf_node *node);
void wf_node_pushes_run(struct wf_node *node);
/* Any thread: have it run. */
void wf_node_pushes_ring(struct wf_node *node);
/* The fabric's thread; any event is in the queue once. */
void wf_node_pushes_leave(struct wf_node *node, struct wf_push_event *event);

void wf_handle_push(struct wf_client *client, const struct wf_push_message *request);
/* A block that this client had reserved was committed, or will not be. */
void wf_push_settled(struct wf_client *client, uint32_t slot, uint32_t generation, bool committed);
/* None that it has still reserved will be. */
void wf_push_client_gone(struct wf_client *client);

/* pushed.c */
enum weft_status wf_pushed_rooms_create(struct wf_pushed_rooms **out);
void wf_pushed_rooms_end(struct wf_node *node);
/* Those that have waited for others for too long end. */
void wf_pushed_rooms_tick(struct wf_node *node);
void wf_pushed_rooms_destroy(struct wf_pushed_rooms *rooms);
struct wf_pushed_rooms *wf_pushed_rooms_of(struct wf_node *node);
/* wf_fabric_host.push_room and push_end, whose context is the struct wf_node. */
void wf_node_push_room(struct wf_node *node, struct wf_fabric_pushed *pushed);
void wf_node_push_end(struct wf_node *node, struct wf_fabric_pushed *pushed);

/* fabric_say.c: the other node is told of the chain that ends in `tip`, and fetches it. */
enum weft_status wf_node_hand_over(struct wf_domain *domain, const char *name,
                                   const uint8_t tip[32]);

#endif
