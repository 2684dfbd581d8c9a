/* SPDX-License-Identifier: Apache-2.0
 *
 * How two nets meet: version, proof and hello, over bytes that somebody else carries.
 *
 * The connector and the acceptor each say a greeting, with a nonce, and then prove that they know
 * the secret: HMAC-SHA-256 over what the prover is and the digests of both greetings.  So a proof
 * is of this meeting, of this side, and of everything that both have said; said back to whoever
 * gave it, it proves nothing.  The connector goes first: who can not prove anything is told nothing
 * but the acceptor's greeting.
 *
 *     connector                                   acceptor
 *     greeting          ------------------------>
 *                       <------------------------ greeting
 *     proof             ------------------------>            WF_NET_HELLO_DECIDE
 *                       <------------------------ proof      (wf_net_hello_admit)
 *     WF_NET_HELLO_PROVEN
 *     (wf_net_hello_ready)
 *     ready             ------------------------>
 *     WF_NET_HELLO_DONE                           WF_NET_HELLO_DONE
 *
 * A greeting: 88 bytes, then the hello, then what the transport says (little-endian):
 *
 *      0 magic "weft-net" | 8 version_min u16 | 10 version_max u16 | 12 bytes u32, all of it
 *     16 role u8 | 17 proof u8 | 18 streams u8 | 19 stream u8 | 20 transport, 4 letters
 *     24 nonce, 32 bytes
 *     56 link, 16 bytes: which one this is a further stream of; zero: a new one
 *     72 hello_bytes u16 | 74 transport_bytes u16 | 76 dead_ms u32 | 80 two numbers, u32, of the
 *     transport
 *
 * The first 16 bytes mean the same in every version.  A proof, a refusal and ready are 64 bytes:
 *
 *      0 "wfpr" | 4 kind u8 | 5 reason u8 | 6 streams u8 | 7 zero | 8 link, 16 bytes | 24 zero, 8
 *     32 HMAC, 32 bytes; zero in a refusal, which only says what to write into a log
 *
 * With WF_NET_PROOF_NONE the same is done with a secret of zeros, which proves nothing; under TLS
 * too, where it binds the streams of a link together.
 *
 * It allocates nothing and does no I/O.  One thread at a time.
 */
#ifndef WF_NET_HELLO_H
#define WF_NET_HELLO_H

#include "net/net.h"

#define WF_NET_VERSION_MIN 1u
#define WF_NET_VERSION_MAX 1u
#define WF_NET_NONCE_BYTES 32u
#define WF_NET_LINK_ID_BYTES 16u
#define WF_NET_STREAMS_MAX 16u
#define WF_NET_TRANSPORT_MAX 8192u /* bytes that a transport says for itself in a greeting */

#define WF_NET_GREETING_BYTES 88u
#define WF_NET_PROOF_BYTES 64u
#define WF_NET_GREETING_MAX (WF_NET_GREETING_BYTES + WF_NET_HELLO_MAX + WF_NET_TRANSPORT_MAX)

enum wf_net_hello_role { WF_NET_CONNECTOR = 1, WF_NET_ACCEPTOR = 2 };

enum wf_net_hello_state {
    WF_NET_HELLO_GREETING = 0, /* waits for the other side's greeting */
    WF_NET_HELLO_PROOF,        /* … proof */
    WF_NET_HELLO_DECIDE,       /* acceptor: the other side has proved itself; admit or refuse it */
    WF_NET_HELLO_PROVEN,       /* connector: both have; say ready when the link is whole */
    WF_NET_HELLO_READY,        /* acceptor: waits for ready */
    WF_NET_HELLO_DONE,
    WF_NET_HELLO_FAILED,
};

/* Why an acceptor does not want a connector. */
enum wf_net_refusal {
    WF_NET_REFUSED_SECRET = 1, /* it does not know the secret */
    WF_NET_REFUSED_LINKS,      /* there are links_max links already */
    WF_NET_REFUSED_STREAM,     /* there is no such link, or it has this stream already */
    WF_NET_REFUSED_UNWANTED,   /* for a reason of the acceptor's own */
    WF_NET_REFUSALS,
};

/* What one side is and says. */
struct wf_net_hello_self {
    enum wf_net_hello_role role;
    enum wf_net_proof proof;
    const uint8_t *secret; /* 32 bytes, for SECRET; else it may be NULL.  Copied */
    char transport[4];     /* "tcp", "ucx": both sides say the same */
    uint8_t streams;       /* connector: how many it would like; acceptor: how many it allows */
    uint8_t stream;        /* connector: which this is; 0 begins a link */
    uint8_t link[WF_NET_LINK_ID_BYTES]; /* connector, stream > 0: of which link */
    uint32_t dead_ms;
    uint32_t numbers[2]; /* the transport's */
    const void *hello;
    uint32_t hello_bytes;
    const void *bytes; /* the transport's, up to WF_NET_TRANSPORT_MAX */
    uint32_t byte_count;
};

struct wf_net_hello {
    enum wf_net_hello_state state;
    enum wf_net_hello_role role;
    enum wf_net_proof proof;

    /* The other side, from WF_NET_HELLO_PROOF on; nothing of it is proved before DECIDE or PROVEN.
     * Pointers are into this struct. */
    struct wf_net_hello_self peer;
    uint16_t version; /* the one both speak */

    /* Of the link, from WF_NET_HELLO_PROVEN (connector) and wf_net_hello_admit (acceptor) on. */
    uint8_t link[WF_NET_LINK_ID_BYTES];
    uint8_t streams;

    /* Its own. */
    uint8_t secret[32];
    uint8_t mine[32], theirs[32]; /* digests of the greetings */
    uint8_t nonce[WF_NET_NONCE_BYTES];
    uint32_t in_bytes, out_bytes, out_at;
    uint8_t in[WF_NET_GREETING_MAX];  /* the greeting */
    uint8_t said[WF_NET_PROOF_BYTES]; /* what comes after it */
    uint8_t out[WF_NET_GREETING_MAX + 2 * WF_NET_PROOF_BYTES];
};

/* Begin.  `self` is not needed afterwards.  WEFT_E_SYSTEM: there is no randomness. */
enum weft_status wf_net_hello_begin(struct wf_net_hello *hello,
                                    const struct wf_net_hello_self *self);

/* Nothing secret stays in it. */
void wf_net_hello_end(struct wf_net_hello *hello);

/* What is to be sent, and how much of it was.  After a failure too: the other side is to know. */
const void *wf_net_hello_out(const struct wf_net_hello *hello, size_t *out_bytes);
void wf_net_hello_sent(struct wf_net_hello *hello, size_t bytes);

/* How many bytes it waits for: exactly, so that none of what follows is read.  0: for none. */
size_t wf_net_hello_wants(const struct wf_net_hello *hello);

/* Up to as many bytes as it wants have come.  WEFT_PENDING: go on.  WEFT_OK: the state is now
 * DECIDE, PROVEN or DONE.  WEFT_E_PROTOCOL, WEFT_E_DENIED: send what there is to send and close;
 * wf_last_error() says why. */
enum weft_status wf_net_hello_take(struct wf_net_hello *hello, const void *bytes, size_t count);

/* Acceptor, at DECIDE: let it in, into the link of this id (wf_net_hello_link_id) with this many
 * streams; or not. */
void wf_net_hello_admit(struct wf_net_hello *hello, const uint8_t link[WF_NET_LINK_ID_BYTES],
                        uint8_t streams);
void wf_net_hello_refuse(struct wf_net_hello *hello, enum wf_net_refusal refusal);

/* Connector, at PROVEN. */
void wf_net_hello_ready(struct wf_net_hello *hello);

/* An id that nobody guesses. */
enum weft_status wf_net_hello_link_id(uint8_t out[WF_NET_LINK_ID_BYTES]);

/* 32 bytes that both sides of this meeting derive and nobody else can who lacks the secret: from
 * PROVEN and DECIDE on. */
void wf_net_hello_key(const struct wf_net_hello *hello, uint8_t out[32]);

#endif
