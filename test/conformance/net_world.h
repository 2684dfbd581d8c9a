/* SPDX-License-Identifier: Apache-2.0
 *
 * What the suite of transports is run in: nodes, each with a net, that check by themselves that
 * every callback is called as often as net.h promises, and a table of backends.
 *
 * A test makes nodes (world_node), has them meet, and says with UNTIL() what it waits for; that
 * polls all nodes in turn, so everything is on one thread and nothing sleeps.
 */
#ifndef TEST_CONFORMANCE_NET_WORLD_H
#define TEST_CONFORMANCE_NET_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "net/net.h"

#define NODES_MAX 8u
#define LINKS_MAX 128u
#define PATIENCE_MS 30000u /* until a test that waits has failed; fourfold where all is slow */
#define SLOWER 8u          /* how much less is sent there */

struct world;
struct node;

struct backend {
    const char *name;
    const struct wf_net_ops *ops;
    /* Whatever is the backend's own in a node's options: listen, streams, security, world. */
    void (*prepare)(struct world *world, uint32_t number, struct wf_net_options *options);
    void (*dispose)(struct world *world);
    /* Whether strangers can connect to it by a socket, and bytes between nodes can be seen: the
     * tests of net_wire.c. */
    bool wire;
    bool simulated; /* so is its time, which waits for nobody */
    bool clear;     /* … and what crosses it is not encrypted */
    bool slow;      /* a processor emulates it in one that another emulates */
    bool proves;    /* both sides know a secret, or have certificates */
};
extern const struct backend backends[];
extern const uint32_t backend_count;

/* A link, as one of its ends sees it. */
struct end {
    struct node *node;
    struct wf_net_link *link; /* NULL: there is none, or it is down */
    bool connector, up, down, close_in_up;
    enum weft_status status;
    char sentence[512], hello[64], name[WF_NET_NAME_MAX];
    uint64_t begun, arrived, failed, progressed; /* messages; arrived: and those without payload */
    uint64_t expected;                           /* of the plan: the next one to come */
    uint64_t open;                               /* begun, and not arrived */
};

/* A message of a plan: its number and the plan's seed say all of it. */
struct plan {
    uint64_t seed;
    uint32_t header_max, pieces_max;
    uint64_t payload_max;
    uint32_t drop_one_in; /* payloads that the receiver does not want; 0: none */
};

/* A message on its way out. */
struct parcel {
    struct wf_net_message message;
    struct end *end;
    uint8_t *header, *payload;
    struct iovec pieces[WF_NET_PIECES_MAX];
    bool out; /* sent has not been called */
    enum weft_status status;
    struct parcel *next; /* all of a world */
};

/* One that begins to arrive. */
struct arriving {
    struct end *end;
    uint64_t number, bytes, told;
    uint8_t *payload;
    bool over;
};

struct node {
    struct world *world;
    uint32_t number;
    struct wf_net *net;
    struct end ends[LINKS_MAX];
    uint32_t end_count, ups, downs;
    bool unwanted; /* up says no */
    /* What a callback is to do besides, once; NULL: nothing. */
    void (*in_begun)(struct end *end), (*in_arrived)(struct end *end), (*in_sent)(struct end *end),
        (*in_progress)(struct end *end);
    bool hold; /* is not polled */
};

struct world {
    const struct backend *backend;
    void *state; /* the backend's */
    struct random_source random;
    struct node nodes[NODES_MAX];
    uint32_t node_count;
    struct plan plan;
    struct parcel *parcels;
    uint64_t out;                 /* parcels whose `sent` has not been called */
    void (*each)(struct world *); /* called between polls: a proxy */
    void *each_context;
};

int world_setup(void **state);
int world_teardown(void **state);

/* A node; `change` may alter its options. */
struct node *world_node(struct world *world, void (*change)(struct wf_net_options *options));
/* From `a` to `b`, until it is up on both sides; ends of it. */
void world_meet(struct node *a, struct node *b, struct end **out_a, struct end **out_b);
struct end *world_connect(struct node *node, const char *address);
/* Poll until that holds; fails after world_patience_ms(). */
#define UNTIL(world, condition)                                          \
    do {                                                                 \
        uint64_t until_began_ = world_now_ms();                          \
        uint32_t until_ms_ = world_patience_ms(world);                   \
        while (!(condition)) {                                           \
            world_step(world);                                           \
            if (world_now_ms() - until_began_ > until_ms_)               \
                fail_msg("%s: not within %u ms", #condition, until_ms_); \
        }                                                                \
    } while (0)
uint64_t world_now_ms(void);
uint32_t world_patience_ms(const struct world *world);
void world_step(struct world *world);
/* Some rounds more, in which nothing more should happen. */
void world_settle(struct world *world);

/* The plan's message of that number, to be sent over an end.  False: the queue is full. */
bool world_send(struct end *end, uint64_t number);
/* A message of these sizes (where all is slow its payload is less), whose bytes are those of the
 * plan's `number`; what send says. */
enum weft_status world_send_sized(struct end *end, uint64_t number, uint32_t header_bytes,
                                  uint64_t payload_bytes, uint32_t pieces);

/* More tests of a backend: how many were put at `out`, with names. */
size_t net_wire_tests(const struct backend *backend, struct CMUnitTest *out, char (*names)[80]);
size_t net_access_tests(const struct backend *backend, struct CMUnitTest *out, char (*names)[80]);
/* A CA that signed nobody's certificate, where there are some. */
const char *pki_stranger(void);

#endif
