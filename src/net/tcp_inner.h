/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the tcp transport share.
 *
 *     tcp.c         the net: its options, listening, poll, stats
 *     tcp_link.c    links: how they come up and how they end
 *     tcp_stream.c  one connection of a link: TLS, handshake, and then bytes
 *     tcp_send.c    messages and accesses → frames → batches
 *     tcp_receive.c bytes → frames → messages
 *     tcp_access.c  what is exposed, and one-sided access, done by the net at the other side
 *     tcp_ring.c, tcp_epoll.c: engines, which do the I/O
 *     tcp_tls.c     TLS 1.3 between buffers
 *
 * A message that is to be sent becomes a MESSAGE frame on stream 0, so that headers keep their
 * order, with as much of its payload as fits; the rest becomes a job, and every stream of the link
 * takes chunks of the first job in the list.  A batch is what a stream gives to its engine at once:
 * frames, copied, and pieces of payload, where they lie.
 *
 * The receiver has a slot for each message that has begun and not arrived.  `arrived` is called in
 * order; a message without payload waits for those before it.  A stream whose next frame belongs to
 * a message that has not begun (stream 0 is behind) is not read until it has.
 *
 * Nothing but a completion (wf_tcp_received and its kind) calls into the user, and those come from
 * engine->wait() alone.  What a completion or a call leaves to be done on a link is done by
 * wf_tcp_attend(), for the links that were marked: so callbacks may call anything.
 */
#ifndef WF_NET_TCP_INNER_H
#define WF_NET_TCP_INNER_H

#include "net/address.h"
#include "net/hello.h"
#include "net/net.h"
#include "net/tcp_frame.h"

#define TCP_LINKS_DEFAULT 1024u
#define TCP_LINKS_MAX 16384u
#define TCP_QUEUE_DEFAULT 1024u
#define TCP_DEAD_MS_DEFAULT 5000u
#define TCP_CONNECT_MS_DEFAULT 5000u
#define TCP_HANDSHAKES_MAX 256u /* accepted and not yet a link's; the oldest makes room */
#define TCP_HANDLES_MAX 4096u
#define TCP_ACCESS_MAX 128u  /* of a link, under way, each way */
#define TCP_INCOMING_MAX 32u /* messages of a link that have begun and not arrived */
#define TCP_BATCHES 4u       /* of a stream; more than one only while zero-copy waits */
#define TCP_BATCH_PIECES 128u
#define TCP_BATCH_PARTS 64u
#define TCP_BATCH_COPY 16384u /* frames and small headers */
#define TCP_BATCH_BYTES (1u << 20)
#define TCP_HEADER_COPY 1024u           /* longer headers are sent from where they lie */
#define TCP_ZERO_COPY_BYTES (64u << 10) /* of payload in a batch, for it to be worth a try */
#define TCP_STRIPE_BYTES (256u << 10)   /* a chunk, where there are several streams */
#define TCP_INLINE_BYTES (64u << 10)    /* with several streams: larger payloads are striped */
#define TCP_SLICE_BYTES (256u << 10)    /* what is received at once of a payload, and told of */
#define TCP_LOW_WATER_MIN (64u << 10)   /* shorter ones are not waited for as a whole */
#define TCP_STAGE_BYTES (TCP_FRAME_BYTES + WF_NET_HEADER_MAX + 65536u)
#define TCP_READ_AHEAD_MIN 4096u
#define TCP_READ_AHEAD_MAX 65536u
#define TCP_RECEIVE_PIECES 64u
#define TCP_RANGES_MAX 16u
#define TCP_CIPHER_IN (128u << 10)
#define TCP_CIPHER_OUT (256u << 10)

struct tcp_net;
struct tcp_link;
struct tcp_stream;
struct tcp_tls;

/* Payload of which streams take chunks, in order of offset. */
enum tcp_job_kind { TCP_JOB_MESSAGE, TCP_JOB_WRITE, TCP_JOB_SERVE };
struct tcp_job {
    struct tcp_job *next;
    uint8_t kind;
    uint8_t done;      /* completed: nothing holds it */
    uint16_t id;       /* WRITE, SERVE */
    uint32_t piece;    /* of `assigned`: in which piece … */
    uint64_t piece_at; /* … and where in it */
    uint64_t assigned, total;
    uint32_t
        parts; /* who holds some of it: batches, and streams that have not batched all of theirs */
    uint32_t number; /* MESSAGE */
};
_Static_assert(sizeof(struct tcp_job) <= sizeof((struct wf_net_message *)0)->private, "room");
_Static_assert(sizeof(struct tcp_job) <= sizeof((struct wf_net_access *)0)->private, "room");

/* What a stream sends at once. */
struct tcp_batch {
    struct tcp_stream *stream;
    bool zero_copy, copied_anyway;
    uint32_t waits;       /* for the kernel to be done with the memory */
    uint32_t head, count; /* of pieces; those before head are sent */
    uint32_t part_count, copied;
    uint32_t bytes;
    struct iovec pieces[TCP_BATCH_PIECES];
    uint16_t serves[TCP_BATCH_PIECES]; /* of which serve slot a piece is, plus 1; 0: of none */
    struct tcp_job *parts[TCP_BATCH_PARTS];
    uint8_t copy[TCP_BATCH_COPY];
};

/* Where bytes of a body go. */
struct tcp_cursor {
    const struct iovec *pieces; /* NULL: nowhere, they are dropped */
    uint32_t count, piece;
    uint64_t at; /* in that piece */
};

enum tcp_phase {
    TCP_LISTENS,
    TCP_CONNECTS, /* waits for the system to connect it */
    TCP_SHAKES,   /* TLS, and then the handshake */
    TCP_CARRIES,  /* frames; its link may still wait for others of its streams */
    TCP_ENDS,
};

enum tcp_body { TCP_BODY_NONE, TCP_BODY_MESSAGE, TCP_BODY_DATA, TCP_BODY_WRITE };

struct tcp_stream {
    struct tcp_net *net;
    struct tcp_link *link;              /* NULL: accepted, and not yet of a link, or listening */
    struct tcp_stream *next, *previous; /* of the net's handshakes */
    enum tcp_phase phase;
    uint32_t index;
    int fd;
    bool accepted, cancelled;
    uint64_t deadline_ms; /* of the handshake, where there is no link yet */
    uint64_t heard_ms, said_ms;
    struct wf_net_hello *hello; /* until its link is up */
    struct tcp_tls *tls;
    bool tls_done;
    char peer[WF_NET_ADDRESS_MAX], name[WF_NET_NAME_MAX];
    uint8_t shake_in[1024];

    /* The engine's. */
    uint32_t operations; /* begun and not completed; zero-copy ones until the kernel let go */
    bool receiving, sending, watching;
    bool receive_all, sending_hello;
    uint32_t receive_least; /* of what is received next, so much is of a body, and comes */
    uint32_t low_water;     /* ring: SO_RCVLOWAT of the socket; 0: it has none */
    struct iovec out_bytes;
    struct msghdr in, out;
    struct iovec in_pieces[TCP_RECEIVE_PIECES + 1];
    struct tcp_stream *ready_next; /* epoll */
    bool readable, writable, on_ready, in_epoll, settled;
    bool kernel_receives, kernel_sends; /* ring: what was begun has not come back */
    uint32_t watch_events;

    /* In. */
    uint8_t *stage; /* TCP_STAGE_BYTES: what was read and is not yet consumed */
    uint32_t stage_at, stage_end, read_ahead;
    bool paused;
    uint64_t in_sequence;
    enum tcp_body body;
    uint32_t body_left, body_bytes;
    uint64_t body_offset; /* where in the payload this body ends */
    uint32_t body_id;     /* number of the message; id of the access */
    struct tcp_cursor cursor;
    struct iovec cursor_piece; /* WRITE: the one that there is */

    /* Out. */
    bool word_due, job_turn;
    uint64_t out_sequence;
    struct tcp_job *out_job; /* of which a chunk has begun and is not all in batches */
    uint32_t out_left;
    uint32_t out_piece;
    uint64_t out_piece_at;
    struct tcp_batch *current; /* being filled or sent */
    struct tcp_batch *batches; /* TCP_BATCHES */
};

/* A message that has begun and not arrived. */
struct tcp_incoming {
    uint32_t number;
    bool dropped;
    void *token;
    uint64_t total, claimed, done, told;
    uint32_t range_count;
    struct {
        uint64_t from, to;
    } ranges[TCP_RANGES_MAX]; /* there, beyond `told` */
    uint32_t piece_count;
    struct iovec pieces[WF_NET_PIECES_MAX];
};

/* An access of ours that the other side has been asked for. */
struct tcp_asked {
    struct wf_net_access *access; /* NULL: free */
    uint64_t arrived, claimed, expected;
    bool answered, missed;
};

/* An access of the other side's. */
enum tcp_serve_state { TCP_SERVE_FREE, TCP_SERVE_READ, TCP_SERVE_WRITE, TCP_SERVE_ANSWER };
struct tcp_serve {
    enum tcp_serve_state state;
    bool write, missed;
    struct tcp_range range;
    uint64_t claimed, placed; /* WRITE */
    struct iovec piece;
    struct tcp_job job;
    struct tcp_serve *next; /* of those that are to be answered */
};

enum tcp_link_state { TCP_LINK_BEGINS, TCP_LINK_UP, TCP_LINK_ENDS };

struct tcp_link {
    struct tcp_net *net;
    enum tcp_link_state state;
    uint32_t index;
    void *user;
    bool connector, named; /* named: the user knows it, and is told when it is down */
    bool marked, pump;
    struct tcp_link *mark_next;
    uint8_t id[WF_NET_LINK_ID_BYTES];
    uint32_t stream_count, streams_whole;
    struct tcp_stream *streams[WF_NET_STREAMS_MAX];
    struct wf_net_address address; /* connector */
    char peer[WF_NET_ADDRESS_MAX], name[WF_NET_NAME_MAX];
    uint64_t seed, deadline_ms;
    uint32_t dead_ms, say_ms;
    enum weft_status status;
    char sentence[WF_ERROR_MAX];

    /* Out. */
    struct wf_net_message *messages, *last_message; /* until `sent` */
    struct wf_net_message *fresh;                   /* the first that is in no frame */
    uint32_t message_count, out_number, striped;    /* striped: messages among the jobs */
    struct tcp_job *jobs, *last_job;
    bool zero_copy;
    uint32_t zero_copy_sent, zero_copy_copied;

    /* In. */
    struct tcp_incoming *incoming; /* TCP_INCOMING_MAX, by number */
    uint32_t in_first, in_next;
    /* While some have begun and not arrived: bytes of them that came in so long; the last look. */
    uint64_t slow_bytes, slow_ms, slow_at_ms;

    /* One-sided. */
    struct wf_net_access *accesses, *last_access, *fresh_access;
    uint32_t access_count, asked_count;
    struct tcp_asked *asked;  /* TCP_ACCESS_MAX */
    struct tcp_serve *serves; /* TCP_ACCESS_MAX */
    struct tcp_serve *answers, *last_answer;
};

struct tcp_exposed {
    uint32_t generation;
    bool used;
    enum wf_net_rights rights;
    uint8_t *base;
    size_t bytes;
    uint64_t *links; /* a bit each */
};

struct tcp_engine {
    const char *name;
    /* WEFT_E_SYSTEM: it can not be had here. */
    enum weft_status (*start)(struct tcp_net *net);
    void (*stop)(struct tcp_net *net);
    /* A socket is to be worked on, and not any more. */
    void (*adopt)(struct tcp_stream *stream);
    void (*forget)(struct tcp_stream *stream);
    /* Begin; one of each kind at a time a stream.  wf_tcp_watched, _received, _sent follow. */
    void (*watch)(struct tcp_stream *stream, uint32_t events);
    void (*receive)(struct tcp_stream *stream); /* into `in`; receive_all: rather all of it */
    void (*send)(struct tcp_stream *stream, struct tcp_batch *batch); /* `out`; batch: zero-copy */
    /* Whatever was begun on it completes soon. */
    void (*cancel)(struct tcp_stream *stream);
    /* After it, and until wait, nothing reads or writes memory that was named to receive or send
     * on this stream.  May be called from a completion. */
    void (*settle)(struct tcp_stream *stream);
    /* Called outside of wait: begin what was asked for, or see that wait is called. */
    void (*flush)(struct tcp_net *net);
    enum weft_status (*wait)(struct tcp_net *net, uint32_t timeout_ms);
    int (*event)(struct tcp_net *net);
};
extern const struct tcp_engine wf_tcp_ring, wf_tcp_epoll;

/* The engine that nets created from now on use; NULL: ring, or epoll where there is none.  For
 * tests. */
extern const struct tcp_engine *wf_tcp_engine_forced;

struct tcp_net {
    const struct tcp_engine *engine;
    void *engine_state;
    struct wf_net_options options;
    struct wf_net_hello_self self;
    uint8_t hello[WF_NET_HELLO_MAX];
    struct tcp_tls_context *tls;
    struct wf_net_address listen;
    char address[WF_NET_ADDRESS_MAX];
    int wake_fd;
    struct tcp_stream *listener;
    struct tcp_stream *handshakes, *last_handshake;
    uint32_t handshake_count;
    struct tcp_link **links; /* links_max */
    uint32_t link_count;
    struct tcp_link *marked;
    struct tcp_exposed *exposed; /* TCP_HANDLES_MAX */
    uint64_t *exposed_links;
    uint32_t exposed_next;
    uint8_t *scratch; /* where what is dropped goes */
    uint8_t *zeros;   /* what stands for memory that was withdrawn while it was sent */
    uint64_t now_ms, tick_ms, warned_ms;
    char warned_of[WF_NET_ADDRESS_MAX], warned_why[64];
    bool polling, failed, completed, reap;
    struct wf_net_stats stats;
};

/* tcp.c */
void wf_tcp_wake(struct tcp_net *net);
void wf_tcp_warn(struct tcp_net *net, const char *peer, const char *sentence); /* not too often */

/* tcp_link.c */
enum weft_status wf_tcp_link_create(struct tcp_net *net, struct tcp_link **out);
enum weft_status wf_tcp_link_connect(struct tcp_link *link);
void wf_tcp_link_mark(struct tcp_link *link, bool pump);
/* It ends; the first reason counts.  NULL: wf_last_error(). */
void wf_tcp_link_end(struct tcp_link *link, enum weft_status status, const char *sentence);
/* A stream of it has been proved: connector, PROVEN; acceptor, DECIDE; either, DONE. */
enum weft_status wf_tcp_link_proven(struct tcp_stream *stream);
enum weft_status wf_tcp_link_decide(struct tcp_stream *stream);
void wf_tcp_link_whole(struct tcp_stream *stream);
void wf_tcp_attend(struct tcp_net *net);
/* After a call from outside of poll: begin what can be begun without calling back. */
void wf_tcp_leave(struct tcp_net *net);
void wf_tcp_tick(struct tcp_net *net, uint64_t asked_ms);
/* Now, whatever is under way: for destroy. */
void wf_tcp_links_destroy(struct tcp_net *net);

/* tcp_stream.c */
enum weft_status wf_tcp_stream_create(struct tcp_net *net, struct tcp_link *link, uint32_t index,
                                      struct tcp_stream **out);
void wf_tcp_stream_accept(struct tcp_net *net, int fd);
enum weft_status wf_tcp_stream_connect(struct tcp_stream *stream);
/* An error on it: its link ends, or it alone where it has none. */
void wf_tcp_stream_fail(struct tcp_stream *stream, enum weft_status status, const char *sentence);
/* Send what there is to send; receive what there is to receive. */
void wf_tcp_stream_pump(struct tcp_stream *stream);
enum weft_status wf_tcp_stream_pump_out(struct tcp_stream *stream);
void wf_tcp_stream_listen(struct tcp_stream *stream);
/* One step towards its end; true when nothing is left of it and it was freed. */
bool wf_tcp_stream_end(struct tcp_stream *stream);
void wf_tcp_handshakes_tick(struct tcp_net *net, uint64_t asked_ms);
void wf_tcp_handshakes_reap(struct tcp_net *net);
/* What engines call. */
void wf_tcp_watched(struct tcp_stream *stream, int result);
void wf_tcp_received(struct tcp_stream *stream, ssize_t result);
void wf_tcp_sent(struct tcp_stream *stream, ssize_t result);
void wf_tcp_released(struct tcp_batch *batch, bool copied);

/* tcp_send.c */
void wf_tcp_send_fill(struct tcp_stream *stream); /* into stream->current */
void wf_tcp_send_advance(struct tcp_batch *batch, size_t bytes);
void wf_tcp_batch_finish(struct tcp_batch *batch);
void wf_tcp_job_add(struct tcp_link *link, struct tcp_job *job);
void wf_tcp_job_remove(struct tcp_link *link, struct tcp_job *job);
void wf_tcp_job_settle(struct tcp_link *link, struct tcp_job *job);
void wf_tcp_send_fail_all(struct tcp_link *link);
enum weft_status wf_tcp_send(struct tcp_link *link, struct wf_net_message *message);
bool wf_tcp_pieces_total(const struct iovec *pieces, uint32_t count, uint64_t *out);

/* tcp_receive.c */
/* What there is room for: fills in_pieces, at most so many; whether it is better to have all. */
uint32_t wf_tcp_receive_room(struct tcp_stream *stream, bool *out_all);
/* So many bytes have come into what wf_tcp_receive_room named. */
enum weft_status wf_tcp_receive_consume(struct tcp_stream *stream, size_t bytes);
enum weft_status wf_tcp_receive_parse(struct tcp_stream *stream);
void wf_tcp_receive_fail_all(struct tcp_link *link);
void wf_tcp_cursor_skip(struct tcp_cursor *cursor, uint64_t bytes);

/* tcp_access.c */
enum weft_status wf_tcp_expose(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out);
enum weft_status wf_tcp_grant(struct wf_net_link *link, struct wf_net_handle handle);
void wf_tcp_withdraw(struct wf_net *net, struct wf_net_handle handle);
enum weft_status wf_tcp_access(struct tcp_link *link, struct wf_net_access *access);
void wf_tcp_access_job_done(struct tcp_link *link, struct tcp_job *job);
void wf_tcp_access_link_gone(struct tcp_link *link);
void wf_tcp_access_fail_all(struct tcp_link *link);
/* A frame of its kinds; sets up the stream's body.  WEFT_PENDING: not now. */
enum weft_status wf_tcp_access_frame(struct tcp_stream *stream, const struct tcp_frame *frame,
                                     const void *header);
/* So many bytes of the stream's body have been placed; `end`: that was all of it. */
enum weft_status wf_tcp_access_body(struct tcp_stream *stream, uint32_t bytes, bool end);
/* Whether the stream's body, of a WRITE, may still be written where its cursor says. */
void wf_tcp_access_body_check(struct tcp_stream *stream);
/* Something of accesses for stream 0 to say, with room for a frame in the batch; false: nothing. */
bool wf_tcp_access_fill(struct tcp_stream *stream, struct tcp_batch *batch);
const struct iovec *wf_tcp_job_pieces(struct tcp_link *link, const struct tcp_job *job,
                                      uint32_t *out_count);
void wf_tcp_batch_frame(struct tcp_stream *stream, struct tcp_batch *batch, struct tcp_frame *frame,
                        const void *header);

/* tcp_tls.c */
struct tcp_tls_context;
enum weft_status wf_tcp_tls_context(const struct wf_net_security *security,
                                    struct tcp_tls_context **out);
void wf_tcp_tls_context_free(struct tcp_tls_context *context);
enum weft_status wf_tcp_tls_open(struct tcp_tls_context *context, bool connector,
                                 struct tcp_tls **out);
void wf_tcp_tls_close(struct tcp_tls *tls);
/* Room for what comes from the wire, and so much has come. */
void *wf_tcp_tls_room(struct tcp_tls *tls, size_t *out_bytes);
void wf_tcp_tls_came(struct tcp_tls *tls, size_t bytes);
/* What is to go to the wire, and so much has gone. */
const void *wf_tcp_tls_out(const struct tcp_tls *tls, size_t *out_bytes);
void wf_tcp_tls_went(struct tcp_tls *tls, size_t bytes);
/* WEFT_PENDING: go on.  WEFT_OK: the other side has proved itself. */
enum weft_status wf_tcp_tls_shake(struct tcp_tls *tls, char *out_name);
/* WEFT_PENDING: there is nothing to read, or no room to write. */
enum weft_status wf_tcp_tls_read(struct tcp_tls *tls, void *to, size_t bytes, size_t *out_bytes);
enum weft_status wf_tcp_tls_write(struct tcp_tls *tls, const void *from, size_t bytes,
                                  size_t *out_bytes);

#endif
