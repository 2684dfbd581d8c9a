/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes between nodes: the interface that every transport has behind it.
 *
 * A net makes links to other nodes' nets.  Over a link go messages, each a header, which is copied,
 * and a payload, which goes from the sender's memory into memory that the receiver names when it
 * has seen the header: no copy in between that the transport does not need.  A transport with
 * one-sided access also reads and writes memory that the other side has exposed to this link.
 *
 * One thread drives a net: every call and every callback is on it, callbacks from poll() alone
 * unless it says otherwise.  Nothing waits but poll(), and that only as long as it is told.
 *
 * What a net promises, and the conformance suite (test/conformance/net.c) breaks on purpose:
 *
 *   - Messages of a link arrive in the order in which they were sent, each once, whole and as it
 * was sent, or the link goes down.  What was on its way then may have arrived or not.
 *   - `sent` of a message is called exactly once: its memory is the caller's again, and nothing
 * reads it any more.  WEFT_OK does not say that it arrived.
 *   - For a message with a payload `arrived` is called exactly once after `begun`; from then on
 * nothing writes to the memory that `begun` named, and before it any byte there may be anything.
 *   - A link that is up hears something every `dead_ms`, or goes down: nets say a word by
 * themselves when there is nothing to say.  Over tcp it goes down, too, when a payload has begun
 * to arrive and hardly any of it comes for twice as long, or the other side takes nothing of what
 * is sent for thrice as long, whatever it says.
 *   - After `down` no callback names the link.  Every `sent`, `arrived` and `done` of its has been
 * called before it.
 *   - Whatever the other side sends, nothing is written but what `begun` named and what was exposed
 * to it for writing; nothing grows beyond the caps in the options; what is nonsense ends the link
 * with a sentence.
 *   - Both sides have proved what `security` asks for before anybody's `up` is called.
 *
 * No address in memory ever crosses a link: what is exposed has a handle, which is a number that
 * the net that gave it out looks up, with a generation, and a list of links that may use it.
 */
#ifndef WF_NET_NET_H
#define WF_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/status.h"

#define WF_NET_HEADER_MAX 65536u
#define WF_NET_HELLO_MAX 1024u
#define WF_NET_PIECES_MAX 1024u                /* of one payload, on either side */
#define WF_NET_PAYLOAD_MAX ((uint64_t)1 << 32) /* bytes */
#define WF_NET_ADDRESS_MAX 256u
#define WF_NET_NAME_MAX 64u

struct wf_net;
struct wf_net_link;

/* What both sides must prove of themselves. */
enum wf_net_proof {
    WF_NET_PROOF_NONE = 0,   /* nothing: for loopback, Unix sockets and tests */
    WF_NET_PROOF_SECRET = 1, /* that they know the secret; what follows crosses in the clear, each
                                header with a checksum */
    WF_NET_PROOF_TLS_SECRET = 2, /* the same, as the pre-shared key of TLS 1.3 */
    WF_NET_PROOF_TLS = 3,        /* TLS 1.3 with a certificate that `ca` signed, on both sides */
};

struct wf_net_security {
    enum wf_net_proof proof;
    uint8_t secret[32];                 /* SECRET, TLS_SECRET */
    const char *certificate, *key, *ca; /* TLS: PEM files */
    const char *name; /* TLS: that the certificate has to say, if it says one; NULL: any */
};

/* Whom a certificate (PEM) names; "": nobody, or it cannot be read. */
void wf_net_certificate_name(const char *path, char out[WF_NET_NAME_MAX]);

/* A message to be sent: the caller's, and unchanged, until `sent`. */
struct wf_net_message {
    const void *header;
    uint32_t header_bytes; /* 1 … WF_NET_HEADER_MAX */
    uint32_t piece_count;
    const struct iovec *pieces; /* the payload */
    void (*sent)(struct wf_net_message *message, enum weft_status status);
    void *user;
    /* The net's: */
    struct wf_net_message *next;
    uint64_t payload_bytes;
    uint64_t private[6];
};

/* What is exposed; a number that says nothing to anybody but the net that gave it out. */
struct wf_net_handle {
    uint32_t number, generation;
};
enum wf_net_rights { WF_NET_READ = 1, WF_NET_WRITE = 2 };

/* One-sided: bytes of what the other side exposed, read into or written from `pieces`. */
struct wf_net_access {
    struct wf_net_handle handle;
    bool write;
    uint32_t piece_count;
    const struct iovec *pieces;
    uint64_t offset; /* in what is exposed; as many bytes as the pieces have */
    /* WEFT_OK: they are all there (read), or have all been placed (write).  WEFT_MISS: the handle
     * is none, any more, or not this link's, or the range is not in it; nothing was moved. */
    void (*done)(struct wf_net_access *access, enum weft_status status);
    void *user;
    struct wf_net_access *next;
    uint64_t private[8];
};

struct wf_net_events {
    void *context;
    /* A link is up, whoever began it.  `hello` is the other side's; `name` what its certificate
     * says (common name), "" where there is none.  False: it is not wanted, and closed; `down`
     * follows, as it does once for every link that `up` or a connect that went well has named. */
    bool (*up)(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
               const char *name);
    /* It is not up any more, or never came up (after connect).  `sentence` says why. */
    void (*down)(void *context, struct wf_net_link *link, enum weft_status status,
                 const char *sentence);
    /* A message begins to arrive.  The header is readable during the call.  With a payload: fill
     * `out` (WF_NET_PIECES_MAX) with pieces of payload_bytes together and return how many, and what
     * `arrived` is to be told in *out_token; 0: it is read and dropped, and `arrived` is not
     * called.  Without one (payload_bytes 0) it has arrived, and the return value says nothing. */
    uint32_t (*begun)(void *context, struct wf_net_link *link, const void *header,
                      uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                      void **out_token);
    /* The first `bytes` of it are there for good.  NULL: nobody asks.  Called as often as the
     * transport likes, and not necessarily at all. */
    void (*progress)(void *context, struct wf_net_link *link, void *token, uint64_t bytes);
    void (*arrived)(void *context, struct wf_net_link *link, void *token, enum weft_status status);
};

struct wf_net_sim_world; /* sim.h */

struct wf_net_options {
    /* "tcp:ADDRESS:PORT" (numeric address, [::1] for IPv6; port 0: any), "unix:PATH",
     * "ucx:ADDRESS:PORT", "sim:NAME".  NULL: it listens nowhere. */
    const char *listen;
    struct wf_net_security security;
    const void *hello; /* said to everybody it meets; copied by create */
    uint32_t hello_bytes;
    uint32_t links_max;  /* 0: 1024 */
    uint32_t queue_max;  /* messages of a link that are to be sent; 0: 1024 */
    uint32_t streams;    /* connections a link; 0: 1, up to 16.  Both sides use the fewer */
    uint32_t dead_ms;    /* 0: 5000 */
    uint32_t connect_ms; /* a link that is not up by then is down; 0: 5000 */
    struct wf_net_events events;
    struct wf_net_sim_world *world; /* sim */
};

struct wf_net_stats {
    uint64_t links, sent, sent_bytes, received, received_bytes; /* messages; payload and headers */
    uint64_t refused;   /* who proved nothing, or the wrong thing */
    uint64_t nonsense;  /* links that ended in it */
    uint64_t zero_copy; /* messages whose payload the kernel or the device read where it lay */
};

struct wf_net_ops {
    const char *name; /* "tcp", "ucx", "sim" */
    bool one_sided;   /* access() does not need the other side's processor */

    enum weft_status (*create)(const struct wf_net_options *options, struct wf_net **out);
    /* Links go without `down`; messages and accesses end first. */
    void (*destroy)(struct wf_net *net);
    /* Where it listens, with the port that it got; "" when it does not. */
    const char *(*address)(const struct wf_net *net);

    /* Begin a link; `up` or `down` follows.  WEFT_E_INVALID: no address of this transport. */
    enum weft_status (*connect)(struct wf_net *net, const char *address, void *user,
                                struct wf_net_link **out);
    /* It ends; `down` follows, from poll, as it does for links that end by themselves. */
    void (*close)(struct wf_net_link *link);
    void (*set_user)(struct wf_net_link *link, void *user);
    void *(*user)(const struct wf_net_link *link);
    /* The other side, for people: an address. */
    const char *(*peer)(const struct wf_net_link *link);

    /* WEFT_OK: `sent` follows.  WEFT_PENDING: queue_max are waiting; try after some were sent.
     * WEFT_E_INVALID: it is wrongly put.  WEFT_E_NODE: the link is not up. */
    enum weft_status (*send)(struct wf_net_link *link, struct wf_net_message *message);

    /* Memory that payloads will come from and go to, so that it can be registered with a device
     * before it is used; best effort, and nothing has to be. */
    void (*memory)(struct wf_net *net, void *base, size_t bytes);

    /* Expose memory, to nobody yet. */
    enum weft_status (*expose)(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out);
    /* From now on this link may use it. */
    enum weft_status (*grant)(struct wf_net_link *link, struct wf_net_handle handle);
    /* Nobody may any more, and when it returns nobody does. */
    void (*withdraw)(struct wf_net *net, struct wf_net_handle handle);
    /* As send. */
    enum weft_status (*access)(struct wf_net_link *link, struct wf_net_access *access);

    /* Readable when poll has something to do. */
    int (*event)(const struct wf_net *net);
    /* Do what there is to do; wait up to timeout_ms for it.  WEFT_E_SYSTEM: the net cannot go on.
     */
    enum weft_status (*poll)(struct wf_net *net, uint32_t timeout_ms);
    /* From another thread: have a poll that waits return.  The one call that is not the thread's.
     */
    void (*wake)(struct wf_net *net);
    void (*stats)(const struct wf_net *net, struct wf_net_stats *out);
};

extern const struct wf_net_ops wf_net_tcp; /* TCP and Unix sockets, io_uring, TLS 1.3 */
extern const struct wf_net_ops wf_net_ucx; /* RDMA, shared memory and TCP through UCX */
extern const struct wf_net_ops wf_net_sim; /* links with a seed, in virtual time: late, lost, cut */

/* By the scheme of an address ("tcp:…"); NULL: there is none such in this build. */
const struct wf_net_ops *wf_net_by_address(const char *address);

#endif
