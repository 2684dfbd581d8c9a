/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of the UCX transport: what its files share.  Nobody else includes this.
 *
 *   ucx_lib.c       libucp by name
 *   ucx.c           the net: worker, poll, timers
 *   ucx_link.c      a link's life: meeting, beats, end
 *   ucx_drain.c     the end of an endpoint over UCX's TCP
 *   ucx_message.c   messages: frames out, frames in, order, credit
 *   ucx_access.c    what is exposed, and reading and writing it
 *
 * A link is a TCP connection and a UCX endpoint.  Over the connection goes the meeting of hello.h,
 * with the workers' addresses in the greetings, and then a word every now and then: it is the sign
 * of life.  Everything else goes over the endpoint, as active messages, each a frame:
 *
 *      0 token u64      the receiver's for this link: both sides have derived it from the secret
 *                       and the meeting, so that nobody else on the fabric can speak for a peer
 *      8 number u64     of frames that have an order, from 1; 0: it has none
 *     16 taken u64      how many of the receiver's frames with an order the sender has done with
 *     24 link u32       which link it is, the receiver's number
 *     28 kind u8 | 29 zero u8 | 30 body_bytes u16
 *     32 sum u64        XXH3 of the 32 bytes before and of the body
 *     40 body           then the active message's data, which no sum covers: the devices' do
 *
 *   kind      body                     data
 *   FIRST     nothing                  nothing: the way through the fabric works
 *   MESSAGE   the header, if short     the payload
 *   HEADER    its sum u64              a long header; the next frame is its MESSAGE, without one
 *   CREDIT    nothing                  nothing: `taken` alone
 *   ASK       struct wf_ucx_ask        what is to be written
 *   ANSWER    struct wf_ucx_answer     what was read
 *
 * Frames with an order are delivered in it, however they arrive; WINDOW of them may be on their way
 * or wait at the receiver, which is what bounds its memory.  Larger data goes by rendezvous, from
 * the memory where it lies to the memory where it belongs, with as few copies as the device needs
 * (none with RDMA, one with CMA, the kernel's with TCP).
 *
 * One-sided access is asked for, not taken: an ASK names a handle, a generation and a range, the
 * owner's net, inside its poll, compares them with its own table and moves the bytes by rendezvous.
 * UCX's own get and put would be given an address in the other side's memory with each request and
 * obey it; an ASK has none, and what is withdrawn is out of reach at once.
 *
 * Whom this trusts.  Below the frames UCX speaks its own protocol, without proof or encryption, and
 * believes it: whoever reaches a node's UCX devices (the ports of its TCP transport, its queue
 * pairs, its shared memory) can harm this process by speaking that, as they can any program on
 * UCX.  So UCX's TCP transport is used only when UCX_TLS names it (our own is better, and checks),
 * and the fabric has to be one that only nodes reach.
 *
 * UCX is configured by its own variables.  Several rails: UCX_MAX_RNDV_RAILS (2).  Devices:
 * UCX_NET_DEVICES.  GPU memory: UCX finds out where its CUDA or ROCm modules are installed, and
 * pieces may lie in it; a net that is told of some by memory() before it has links says in its
 * greetings that all data is to come by rendezvous, because only that UCX places by itself.
 *
 * One thread drives a net, all of this is on it; UCX's callbacks only note what happened, and what
 * a caller is told it is told by poll() afterwards.
 */
#ifndef WF_NET_UCX_H
#define WF_NET_UCX_H

#include <stdbool.h>

#include "base/hooks.h"
#include "base/log.h"
#include "net/address.h"
#include "net/hello.h"
#include "net/net.h"
#include "net/ucx_lib.h"

#define WF_UCX_WINDOW 128u      /* frames with an order, of a link, either way */
#define WF_UCX_BODY_MAX 856u    /* with its frame 896: UD has 955 on Ethernet of 1,500 bytes */
#define WF_UCX_EAGER_MAX 16384u /* data up to here goes without being asked for */
#define WF_UCX_RECEIVES 32u     /* payloads of a link that arrive at a time */
#define WF_UCX_ASKS 16u         /* ranges of a link that are asked for at a time */
/* More than asks: an answer may have arrived long before the answerer hears of it. */
#define WF_UCX_SERVES (4 * WF_UCX_ASKS)
#define WF_UCX_ASK_BYTES_MAX ((uint64_t)4 << 20) /* of one range: what withdraw may wait for */
#define WF_UCX_EXPOSED_MAX 1024u
#define WF_UCX_MEMORY_MAX 64u    /* memory that is registered ahead */
#define WF_UCX_STRANGERS_MAX 64u /* connections that have not proved anything yet */
#define WF_UCX_WITHDRAW_MS 200u  /* a link that holds up a withdrawal for longer ends */

struct wf_ucx_frame {
    uint64_t token, number, taken;
    uint32_t link;
    uint8_t kind, zero;
    uint16_t body_bytes;
    uint64_t sum;
};
_Static_assert(sizeof(struct wf_ucx_frame) == 40, "as drawn");
_Static_assert(offsetof(struct wf_ucx_frame, kind) == 28, "as drawn");
_Static_assert(offsetof(struct wf_ucx_frame, sum) == 32, "as drawn");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

enum wf_ucx_kind {
    WF_UCX_FIRST = 1,
    WF_UCX_MESSAGE,
    WF_UCX_HEADER,
    WF_UCX_CREDIT,
    WF_UCX_ASK,
    WF_UCX_ANSWER,
};

/* One part of an access, up to WF_UCX_ASK_BYTES_MAX. */
struct wf_ucx_ask {
    uint32_t handle, generation;
    uint64_t whole_offset,
        whole_bytes; /* of the access: refused as a whole when it is not inside */
    uint64_t offset, bytes;
    uint32_t id; /* the asker's, for the answer */
    uint32_t write;
};
_Static_assert(sizeof(struct wf_ucx_ask) == 48, "eight to a row");

struct wf_ucx_answer {
    uint32_t id;
    uint32_t miss; /* 0: it was done */
};
_Static_assert(sizeof(struct wf_ucx_answer) == 8, "two words");

/* A frame to be sent lies still until UCX has done with it. */
struct wf_ucx_out {
    struct wf_ucx_frame frame;
    union {
        uint8_t body[WF_UCX_BODY_MAX];
        struct wf_ucx_ask ask;
        struct wf_ucx_answer answer;
        uint64_t sum;
    };
    struct wf_net_link *link;
    void *user;
    struct wf_ucx_out *next; /* free ones */
};

/* Data that came with a frame: UCX's, ours to receive or to drop. */
struct wf_ucx_data {
    void *data; /* NULL: none, any more */
    uint64_t bytes;
    bool rendezvous; /* it still is where it was sent from */
};

/* A frame that arrived and was not delivered yet. */
struct wf_ucx_in {
    bool here;
    uint8_t kind;
    uint16_t body_bytes;
    struct wf_ucx_data data;
    uint8_t body[WF_UCX_BODY_MAX];
};

/* A payload on its way into the receiver's memory. */
struct wf_ucx_receive {
    struct wf_net_link *link;
    void *token;
    uint64_t bytes;
    bool done;
    ucs_status_t status;
    struct iovec pieces[WF_NET_PIECES_MAX];
};

/* Our range of what the other side exposed. */
struct wf_ucx_asked {
    struct wf_net_link *link;
    struct wf_net_access *access; /* NULL: free */
    uint32_t id;
    uint32_t piece_count;
    uint64_t bytes;
    bool sending, answered, receiving, miss, failed;
    struct wf_ucx_data data; /* the answer's, until it is received */
    struct wf_ucx_out out;
    struct iovec pieces[WF_NET_PIECES_MAX];
};

/* The other side's range of what we exposed. */
struct wf_ucx_serve {
    struct wf_net_link *link;
    bool used, started, waits; /* waits: for UCX to read or write the exposed memory */
    uint32_t exposed;          /* its index, while it waits */
    struct wf_ucx_ask ask;
    struct wf_ucx_data data; /* what is to be written, until it is received */
    struct wf_ucx_out out;
};

enum wf_ucx_state {
    WF_UCX_CONNECTING = 0, /* the TCP connection */
    WF_UCX_MEETING,        /* hello.h */
    WF_UCX_WIRING,         /* the endpoint is made; the first frame has to arrive */
    WF_UCX_UP,
    WF_UCX_ENDING, /* waits for UCX to let go of everything, then says `down` */
};

struct wf_ucx_fifo {
    struct wf_net_message *head, **tail;
};
struct wf_ucx_accesses {
    struct wf_net_access *head, **tail;
};

struct wf_net_link {
    struct wf_net *net;
    uint32_t number, generation; /* index in net->links; which link of that index */
    void *user;
    bool connector, announced, in_todo, closing_endpoint;
    enum wf_ucx_state state;
    char peer[WF_NET_ADDRESS_MAX];

    int fd;
    uint32_t fd_events;
    struct wf_net_hello *hello; /* until it is wired */
    uint8_t said[8];            /* part of a word */
    uint32_t said_bytes;
    uint8_t peer_hello[WF_NET_HELLO_MAX];
    uint32_t peer_hello_bytes;
    uint64_t began_ms, heard_ms, beat_ms;
    uint64_t linger_until_ms; /* ENDING, because the other side closed */
    uint64_t drain_from_ms;   /* ENDING, and its endpoint may be in the middle of sending */
    bool drained;             /* no, it is not */
    uint32_t beat_every_ms;

    enum weft_status why; /* from ENDING on */
    char sentence[WF_ERROR_MAX];

    ucp_ep_h endpoint;
    uint32_t in_flight; /* requests that UCX has; ENDING ends at 0 */
    uint64_t token_in, token_out;
    uint32_t peer_number, eager_max;
    bool token_known, first_heard;

    /* Messages out. */
    uint32_t queued;             /* given to send, `sent` not called */
    struct wf_ucx_fifo waiting;  /* not given to UCX yet */
    struct wf_ucx_fifo finished; /* `sent` is to be called */
    uint64_t number_out;         /* of the last frame */
    uint64_t taken_out;          /* how many of ours they have done with */
    struct wf_ucx_out *outs_free;

    /* Messages in. */
    uint64_t taken_in, taken_said; /* how many of theirs we have; and what they were told of it */
    bool credit_busy, first_busy;
    struct wf_ucx_out credit, first;
    uint32_t receive_head, receive_count; /* a ring, in order */

    /* Access. */
    uint32_t accesses; /* given to access, `done` not called */
    uint32_t asks_id;
    struct wf_ucx_accesses asking;   /* not wholly asked for yet */
    struct wf_ucx_accesses answered; /* `done` is to be called */

    struct wf_net_link *next; /* of those that have something to do */

    struct wf_ucx_out outs[WF_UCX_WINDOW];
    struct wf_ucx_in ins[WF_UCX_WINDOW];
    struct wf_ucx_receive receives[WF_UCX_RECEIVES];
    struct wf_ucx_asked asked[WF_UCX_ASKS];
    struct wf_ucx_serve serves[WF_UCX_SERVES];
};

struct wf_ucx_exposed {
    uint8_t *base; /* NULL: free */
    uint64_t bytes;
    enum wf_net_rights rights;
    uint32_t generation;
    uint32_t busy;    /* serves that wait for UCX */
    uint64_t *grants; /* a bit a link */
    ucp_mem_h registered;
};

struct wf_net {
    const struct wf_ucx_lib *lib;
    struct wf_net_options options;
    uint8_t hello[WF_NET_HELLO_MAX];
    char address[WF_NET_ADDRESS_MAX];

    ucp_context_h context;
    ucp_worker_h worker;
    void *worker_address;
    size_t worker_address_bytes;

    int epoll, wake, timer, listener, ucx_event;
    bool watched;    /* somebody waits for event() */
    bool polling;    /* what is noted is for this poll */
    bool again;      /* it has woken who waits for event(), to be polled soon */
    bool destroying; /* no `down` */
    uint64_t now_ms, tick_ms, looked_ms;
    uint64_t fruitful_ns; /* when UCX last had something to do */
    uint32_t tick_every_ms, timer_ms;
    uint64_t drain_looked_ms; /* when its connections were last looked at */
    uint64_t in_flight;       /* requests that UCX has, of all links */

    struct wf_net_link **links;
    uint32_t link_slots;  /* links_max and strangers */
    uint32_t link_count;  /* begun by us, or proved */
    uint32_t strangers;   /* accepted, nothing proved */
    uint32_t generations; /* of links */
    uint32_t lingering;   /* links that are not let go yet, counted by reason */
    struct wf_net_link *todo_head, **todo_tail;

    struct wf_ucx_exposed exposed[WF_UCX_EXPOSED_MAX];
    ucp_mem_h memory[WF_UCX_MEMORY_MAX];
    uint32_t memory_count;
    bool device_memory; /* some of it is no processor's */
    bool drains;        /* UCX's TCP may be used, and is watched by ucx_drain.c */
    struct wf_net_stats stats;
};

/* ucx.c */

/* Something is to be done for this link by the next poll. */
void wf_ucx_todo(struct wf_net_link *link);

/* ucx_link.c */

enum weft_status wf_ucx_listen(struct wf_net *net);
enum weft_status wf_ucx_connect(struct wf_net *net, const char *address, void *user,
                                struct wf_net_link **out);
void wf_ucx_close(struct wf_net_link *link);
void wf_ucx_accept(struct wf_net *net);
/* Its connection is readable, writable or broken. */
void wf_ucx_link_ready(struct wf_net_link *link, uint32_t events);
/* Time has passed. */
void wf_ucx_link_tick(struct wf_net_link *link);
/* The frame that shows that the fabric carries has arrived. */
void wf_ucx_link_first(struct wf_net_link *link);
/* WIRING: the other side's has, and this side's is on its way. */
bool wf_ucx_link_wired(struct wf_net_link *link);
/* It ends, for this reason; the first one counts.  Safe in UCX's callbacks: nothing is called. */
void wf_ucx_link_fail(struct wf_net_link *link, enum weft_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Have UCX let go of what has failed; called again until it has no endpoint. */
void wf_ucx_link_let_go(struct wf_net_link *link);
/* When UCX has: the last callbacks, and it is gone (true). */
bool wf_ucx_link_end(struct wf_net_link *link);

/* ucx_drain.c */

/* Whether this host tells of connections, and lets them be ended. */
bool wf_ucx_drain_works(void);
/* Nothing of an ending link is in the middle: its endpoint may be closed by force, at once.  False:
 * it is to be asked again. */
bool wf_ucx_drained(struct wf_net_link *link);

/* ucx_message.c */

/* Give UCX a frame with data, `count` pieces or none.  `done` is called with `user` when UCX has
 * done with all of it, but not when this returns something else than UCS_INPROGRESS. */
ucs_status_t wf_ucx_put_out(struct wf_net_link *link, struct wf_ucx_out *out, enum wf_ucx_kind kind,
                            uint32_t body_bytes, const struct iovec *pieces, uint32_t piece_count,
                            uint64_t bytes, ucp_send_nbx_callback_t done, void *user);
/* Receive `data`, which is none then, into as many bytes of pieces; `done` as above. */
ucs_status_t wf_ucx_take_in(struct wf_net_link *link, struct wf_ucx_data *data,
                            const struct iovec *pieces, uint32_t piece_count,
                            ucp_am_recv_data_nbx_callback_t done, void *user);
void wf_ucx_drop(struct wf_net *net, struct wf_ucx_data *data);
/* UCX has done with a request: of all callbacks the first line. */
void wf_ucx_request_done(struct wf_net_link *link, void *request);
/* UCX's callback for whatever arrives. */
ucs_status_t wf_ucx_arrived(void *net, const void *header, size_t header_bytes, void *data,
                            size_t data_bytes, const ucp_am_recv_param_t *param);
void wf_ucx_message_begin(struct wf_net_link *link);
enum weft_status wf_ucx_send(struct wf_net_link *link, struct wf_net_message *message);
void wf_ucx_message_work(struct wf_net_link *link);
/* Nothing of it is in UCX any more: end what is left with `status`. */
void wf_ucx_message_end(struct wf_net_link *link, enum weft_status status);

/* ucx_access.c */

enum weft_status wf_ucx_expose(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out);
enum weft_status wf_ucx_grant(struct wf_net_link *link, struct wf_net_handle handle);
void wf_ucx_withdraw(struct wf_net *net, struct wf_net_handle handle);
enum weft_status wf_ucx_access(struct wf_net_link *link, struct wf_net_access *access);
void wf_ucx_memory(struct wf_net *net, void *base, size_t bytes);
/* An ASK or an ANSWER has arrived; true: its data is kept. */
bool wf_ucx_ask_arrived(struct wf_net_link *link, const void *ask, const struct wf_ucx_data *data);
bool wf_ucx_answer_arrived(struct wf_net_link *link, const void *answer,
                           const struct wf_ucx_data *data);
void wf_ucx_access_begin(struct wf_net_link *link);
void wf_ucx_access_work(struct wf_net_link *link);
void wf_ucx_access_end(struct wf_net_link *link, enum weft_status status);
/* The net ends: nothing is exposed. */
void wf_ucx_access_fini(struct wf_net *net);

#endif
