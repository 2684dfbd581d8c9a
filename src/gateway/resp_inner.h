/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the RESP gateway.
 *
 * A *lane* is a thread with an epoll set and the connections that were given to it; nobody else
 * touches them.  Lanes share the stores, one a trust domain, each behind its lock.
 *
 * One command of a connection runs at a time.  It ends in one turn, or it stays where it is: until
 * what it has answered so far was read (AGAIN), or until blocks have come up from below, or other
 * lanes have said what they know (WAIT).
 * Meanwhile nothing more is read from that connection, so that what one client makes us hold is
 * bounded: its command's short arguments (COMMAND_BYTES_MAX), one answer's piece (OUT_BYTES) and
 * the pins of it.
 */
#ifndef WF_GATEWAY_RESP_INNER_H
#define WF_GATEWAY_RESP_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "gateway/resp.h"
#include "gateway/resp_parse.h"
#include "gateway/resp_store.h"

#define WF_RESP_COMMAND_BYTES_MAX ((size_t)8 << 20) /* of a command but for its long values */
#define WF_RESP_AWAYS_MAX 512u                      /* long values of one command */
#define WF_RESP_OUT_BYTES ((size_t)256 << 10)       /* answers waiting, before they must be read */
#define WF_RESP_OUT_PINS 1024u
#define WF_RESP_READ_BYTES ((size_t)64 << 10)
#define WF_RESP_NAME_MAX 64u
#define WF_RESP_LATE_MAX 64u

enum wf_resp_done { WF_RESP_DONE, WF_RESP_AGAIN, WF_RESP_WAIT, WF_RESP_CLOSE };

/* A pinned block, or part of it, behind the first `at` bytes of the answer. */
struct wf_resp_segment {
    size_t at;
    const uint8_t *data;
    uint64_t length;
    struct weft_pin pin;
};

struct wf_resp_out {
    uint8_t *bytes;
    size_t used, room;
    struct wf_resp_segment *segments;
    uint32_t segment_count, segment_room;
    /* What was sent. */
    size_t bytes_sent;
    uint32_t segments_sent;
    uint64_t segment_sent; /* of the one that is sent now */
    bool failed;           /* no memory: the connection ends */
};

/* A value that is being received. */
struct wf_resp_stream {
    bool on;
    struct wf_resp_blob *blob; /* NULL: it is thrown away */
    uint64_t bytes, offset;
    uint8_t end; /* of "\r\n", how many were read */
};

/* What the next command looks like if it is as the last ones were: where its long value begins, and
 * how long that is. */
struct wf_resp_guess {
    size_t head;
    uint64_t bytes;
    uint32_t times; /* that it would have come true, one behind the other */
};

struct wf_resp_load;
struct wf_resp_list;

struct wf_resp_conn {
    struct wf_resp_lane *lane;
    struct wf_resp_conn *previous, *next;
    struct wf_resp_store *store; /* NULL: who it is has not been said */
    int fd;
    uint32_t events; /* that epoll watches */
    uint64_t id;
    uint64_t active_ms; /* monotonic; when bytes went in or out last */
    uint64_t born_ms;
    uint8_t database, protocol;
    bool closing;      /* when all is sent */
    bool whole;        /* `head` begins with a command that is parsed, and runs */
    bool waiting;      /* for blocks from below, or for other lanes' lines */
    bool held_up;      /* `head` has commands that wait until answers were sent */
    bool long_last;    /* its last command had a long value: the next one has, too */
    uint32_t late;     /* its place among the lane's late ones, from 1 on; 0: it is none */
    uint32_t progress; /* of a command that goes on */
    struct wf_resp_parser parser;
    uint8_t *head; /* what was read and not done */
    size_t head_bytes, head_room;
    struct wf_resp_stream stream;
    struct wf_resp_guess guess;
    struct wf_resp_blob *aways[WF_RESP_AWAYS_MAX];
    uint32_t away_count;
    struct wf_resp_out out;
    struct wf_resp_load *load;
    struct wf_resp_list *list;
    char name[WF_RESP_NAME_MAX + 1], library[2 * WF_RESP_NAME_MAX + 2];
    char peer[64];
};

struct wf_resp_lane {
    struct wf_resp *resp;
    pthread_t thread;
    bool runs;
    uint32_t number;
    int epoll, wake;
    uint64_t now_ms, unix_ms; /* of this turn */
    struct wf_resp_conn *conns;
    pthread_mutex_t lock; /* of what others hand over */
    int *inbox;           /* accepted descriptors */
    uint32_t inbox_count;
    struct wf_resp_load *loaded;
    struct wf_resp_list *lists;
    uint8_t *buffer;
    /* Connections whose answers go out with others': a client that is woken once for several of
     * them asks its next questions together, too.  NULL: it has ended. */
    struct wf_resp_conn *late[WF_RESP_LATE_MAX];
    uint32_t late_count;
    int64_t late_bytes; /* read since the first of them */
};

struct wf_resp_tally {
    _Atomic uint64_t clients, connections, refused, commands, gets, hits, sets, dropped,
        protocol_errors, auth_failures, stalled, bytes_in, bytes_out;
    _Atomic uint64_t keys, memory_bytes, value_bytes; /* as of the last tick */
    struct wf_resp_counters store;
};

#define WF_RESP_DOMAINS_MAX 64u

struct wf_resp_place {
    char name[64], token[129];
    struct wf_resp_pool *pool; /* NULL: nobody asked for it */
    struct wf_resp_store store;
};

struct wf_resp {
    struct wf_resp_options options;
    char address[64], socket[108], password[129];
    struct wf_resp_place places[WF_RESP_DOMAINS_MAX];
    uint32_t place_count, place_default;
    pthread_mutex_t places_lock; /* of opening one */
    int listener;
    uint16_t port;
    _Atomic bool stopping, draining;
    struct wf_resp_lane lanes[WF_RESP_THREADS_MAX];
    uint32_t lane_count;
    uint64_t started_ms;
    _Atomic uint64_t ids;
    struct wf_resp_tally tally;
    struct wf_resp_loader *loader;
};

static inline void wf_resp_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* resp.c: the store of a domain, opened when it is asked for first; NULL leaves a sentence. */
struct wf_resp_store *wf_resp_store_of(struct wf_resp *resp, uint32_t place);
void wf_resp_lane_wake(struct wf_resp_lane *lane);

/* resp_conn.c */
/* `bytes` behind what is kept already. */
bool wf_resp_head_add(struct wf_resp_conn *conn, const uint8_t *bytes, size_t length);
struct wf_resp_conn *wf_resp_conn_create(struct wf_resp_lane *lane, int fd);
void wf_resp_conn_close(struct wf_resp_conn *conn);
/* What epoll said of it; the connection may be gone afterwards. */
void wf_resp_conn_run(struct wf_resp_conn *conn, uint32_t events);
/* Send what was left to be sent together. */
void wf_resp_lane_answer(struct wf_resp_lane *lane);
/* What it waited for is there, or is not to be had. */
void wf_resp_conn_loaded(struct wf_resp_conn *conn);

/* resp_stream.c */
bool wf_resp_stream_begin(struct wf_resp_conn *conn, const uint8_t *command);
/* Takes what of `bytes` is the value's, and its end; *out_broken: it does not end as it must. */
size_t wf_resp_stream_take(struct wf_resp_conn *conn, const uint8_t *bytes, size_t length,
                           bool *out_broken);
/* Reads from the socket, and into `rest` what lies behind the value.  As recv(). */
int64_t wf_resp_stream_read(struct wf_resp_conn *conn, uint8_t *rest, size_t room,
                            size_t *out_rest);
void wf_resp_stream_end(struct wf_resp_conn *conn);
bool wf_resp_guess_is_good(const struct wf_resp_conn *conn);
/* Reads as if the guess were true.  Where it was, the stream is on and *out_rest bytes that lie
 * behind its value are in the lane's buffer, at guess.head; else what was read is at the end of
 * the connection's head, in order.  As recv(). */
int64_t wf_resp_guess_read(struct wf_resp_conn *conn, size_t *out_rest);
void wf_resp_aways_drop(struct wf_resp_conn *conn);

/* resp_reply.c */
void wf_resp_out_fini(struct wf_resp_out *out);
bool wf_resp_out_full(const struct wf_resp_out *out);
bool wf_resp_out_empty(const struct wf_resp_out *out);
/* Send what can be sent: > 0 all of it, 0 not all, < 0 the connection is lost. */
int wf_resp_out_flush(struct wf_resp_conn *conn);
void wf_resp_raw(struct wf_resp_conn *conn, const void *bytes, size_t length);
void wf_resp_text(struct wf_resp_conn *conn, const char *line); /* with type, without end */
void wf_resp_format(struct wf_resp_conn *conn, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wf_resp_error(struct wf_resp_conn *conn, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wf_resp_ok(struct wf_resp_conn *conn);
void wf_resp_nil(struct wf_resp_conn *conn);
void wf_resp_integer(struct wf_resp_conn *conn, int64_t value);
void wf_resp_bulk(struct wf_resp_conn *conn, const void *bytes, size_t length);
void wf_resp_word(struct wf_resp_conn *conn, const char *word); /* as a bulk */
void wf_resp_array(struct wf_resp_conn *conn, uint64_t count);
void wf_resp_map(struct wf_resp_conn *conn, uint64_t pairs);
/* A value of which every piece is held; the pins are the answer's from then on. */
void wf_resp_pinned(struct wf_resp_conn *conn, const struct wf_resp_blob *blob,
                    const struct wf_resp_pool *pool, const struct weft_pin *pins);

/* resp_load.c: values from tiers below. */
enum weft_status wf_resp_loader_start(struct wf_resp *resp);
void wf_resp_loader_stop(struct wf_resp *resp);
bool wf_resp_load_submit(struct wf_resp_conn *conn, const struct wf_resp_blob *blob);
/* The pins of `blob` if it is what was loaded; else NULL.  They are the caller's then. */
struct weft_pin *wf_resp_load_take(struct wf_resp_conn *conn, const struct wf_resp_blob *blob);
bool wf_resp_load_failed(const struct wf_resp_conn *conn, const struct wf_resp_blob *blob);
void wf_resp_load_forget(struct wf_resp_conn *conn);
/* What was handed back to a lane. */
void wf_resp_lane_loaded(struct wf_resp_lane *lane);

/* resp_clients.c: CLIENT LIST and INFO. */
int wf_resp_client_line(const struct wf_resp_conn *conn, char *out, size_t room);
enum wf_resp_done wf_resp_client_list(struct wf_resp_conn *conn);
void wf_resp_list_forget(struct wf_resp_conn *conn);
/* Lists that came to a lane: it adds its lines, or answers. */
void wf_resp_lane_listed(struct wf_resp_lane *lane);
/* Those that are left when no lane runs any more. */
void wf_resp_lists_drop(struct wf_resp_lane *lane);

/* A command that runs. */
struct wf_resp_call {
    struct wf_resp_conn *conn;
    struct wf_resp_store *store;
    const uint8_t *bytes;
    uint32_t count;
    const struct wf_resp_argument *arguments;
};

static inline const uint8_t *wf_resp_argument(const struct wf_resp_call *call, uint32_t index)
{
    return call->bytes + call->arguments[index].at;
}

static inline uint32_t wf_resp_argument_bytes(const struct wf_resp_call *call, uint32_t index)
{
    return call->arguments[index].away ? 0 : call->arguments[index].length;
}

static inline struct wf_resp_key wf_resp_key(const struct wf_resp_call *call, uint32_t index)
{
    return (struct wf_resp_key){.bytes = wf_resp_argument(call, index),
                                .length = wf_resp_argument_bytes(call, index),
                                .database = call->conn->database};
}

bool wf_resp_argument_is(const struct wf_resp_call *call, uint32_t index, const char *word);
bool wf_resp_argument_number(const struct wf_resp_call *call, uint32_t index, int64_t *out);

/* resp_commands.c */
enum wf_resp_done wf_resp_execute(struct wf_resp_conn *conn, const uint8_t *bytes);
/* Is argument `index` of the command at `bytes` a value that may be long? */
bool wf_resp_takes_long(const struct wf_resp_conn *conn, const uint8_t *bytes, uint32_t index);

typedef enum wf_resp_done wf_resp_run(struct wf_resp_call *call);

enum wf_resp_needs { WF_RESP_ANYBODY = 1, WF_RESP_STORE = 2 };

struct wf_resp_command {
    const char *name;
    wf_resp_run *run;
    int32_t arity;                         /* with the name; < 0: at least so many */
    uint32_t needs;                        /* enum wf_resp_needs */
    int32_t long_first;                    /* the first argument that may be long; 0: none */
    int32_t long_step;                     /* and then every so many; 0: no more */
    int32_t key_first, key_last, key_step; /* for COMMAND */
    const char *flags;
};
extern const struct wf_resp_command wf_resp_commands[];
extern const size_t wf_resp_command_count;
const struct wf_resp_command *wf_resp_command_find(const uint8_t *name, size_t length);

/* resp_values.c, resp_keys.c, resp_admin.c */
wf_resp_run wf_resp_get, wf_resp_set, wf_resp_setex, wf_resp_psetex, wf_resp_setnx, wf_resp_getset,
    wf_resp_getdel, wf_resp_mget, wf_resp_mset, wf_resp_strlen;
wf_resp_run wf_resp_exists, wf_resp_del, wf_resp_ttl, wf_resp_pttl, wf_resp_expire_in,
    wf_resp_pexpire_in, wf_resp_expire_at, wf_resp_pexpire_at, wf_resp_persist, wf_resp_scan_run,
    wf_resp_keys, wf_resp_dbsize, wf_resp_flushdb, wf_resp_flushall, wf_resp_type, wf_resp_memory,
    wf_resp_touch, wf_resp_object;
wf_resp_run wf_resp_ping, wf_resp_echo, wf_resp_quit, wf_resp_reset, wf_resp_hello, wf_resp_auth,
    wf_resp_select, wf_resp_info, wf_resp_client, wf_resp_command_run, wf_resp_config, wf_resp_time;

#endif
