/* SPDX-License-Identifier: Apache-2.0
 *
 * The handshake as a state machine: bytes in, bytes and a state out.  See hello.h for the exchange
 * and its bytes.
 *
 * Nothing of a greeting is looked at beyond its first 16 bytes before those were found to be of a
 * version that this side speaks, and no length is believed before it was found to be in bounds.
 *
 * HMAC is written out because OpenSSL's allocates and can fail, and a proof must not.
 */
#define OPENSSL_API_COMPAT 10101

#include "net/hello.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define PREFIX_BYTES 16u

struct greeting {
    char magic[8];
    uint16_t version_min, version_max;
    uint32_t bytes;
    uint8_t role, proof, streams, stream;
    char transport[4];
    uint8_t nonce[WF_NET_NONCE_BYTES];
    uint8_t link[WF_NET_LINK_ID_BYTES];
    uint16_t hello_bytes, transport_bytes;
    uint32_t dead_ms;
    uint32_t numbers[2];
};
_Static_assert(sizeof(struct greeting) == WF_NET_GREETING_BYTES, "as drawn");
_Static_assert(offsetof(struct greeting, role) == PREFIX_BYTES, "as drawn");
_Static_assert(offsetof(struct greeting, nonce) == 24, "as drawn");
_Static_assert(offsetof(struct greeting, dead_ms) == 76, "as drawn");

enum said_kind { SAID_PROOF = 1, SAID_REFUSED = 2, SAID_READY = 3 };

struct said {
    char magic[4];
    uint8_t kind, reason, streams, zero;
    uint8_t link[WF_NET_LINK_ID_BYTES];
    uint8_t zeros[8];
    uint8_t mac[32];
};
_Static_assert(sizeof(struct said) == WF_NET_PROOF_BYTES, "as drawn");
_Static_assert(offsetof(struct said, mac) == 32, "as drawn");

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "greetings are little-endian");

static const char greeting_magic[8] = {'w', 'e', 'f', 't', '-', 'n', 'e', 't'};
static const char said_magic[4] = {'w', 'f', 'p', 'r'};
static const uint8_t no_link[WF_NET_LINK_ID_BYTES];

static const char *const proof_names[] = {
    [WF_NET_PROOF_NONE] = "nothing",
    [WF_NET_PROOF_SECRET] = "a secret",
    [WF_NET_PROOF_TLS_SECRET] = "a secret under TLS",
    [WF_NET_PROOF_TLS] = "a certificate under TLS",
};

static const char *const refusals[WF_NET_REFUSALS] = {
    [WF_NET_REFUSED_SECRET] = "it knows another secret; give both nodes the same one",
    [WF_NET_REFUSED_LINKS] = "it has as many links as it may have",
    [WF_NET_REFUSED_STREAM] = "it knows no link that this could be a further stream of",
    [WF_NET_REFUSED_UNWANTED] = "it does not want this link",
};

/* ---------------------------------------------------------------------------------------- HMAC */

struct hmac {
    SHA256_CTX inner, outer;
};

static void hmac_begin(struct hmac *hmac, const uint8_t secret[32])
{
    uint8_t block[SHA256_CBLOCK];
    memset(block, 0x36, sizeof block);
    for (size_t i = 0; i < 32; i++)
        block[i] ^= secret[i];
    SHA256_Init(&hmac->inner);
    SHA256_Update(&hmac->inner, block, sizeof block);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    SHA256_Init(&hmac->outer);
    SHA256_Update(&hmac->outer, block, sizeof block);
    OPENSSL_cleanse(block, sizeof block);
}

static void hmac_add(struct hmac *hmac, const void *bytes, size_t count)
{
    SHA256_Update(&hmac->inner, bytes, count);
}

static void hmac_end(struct hmac *hmac, uint8_t out[32])
{
    uint8_t digest[32];
    SHA256_Final(digest, &hmac->inner);
    SHA256_Update(&hmac->outer, digest, sizeof digest);
    SHA256_Final(out, &hmac->outer);
    OPENSSL_cleanse(hmac, sizeof *hmac);
}

/* The connector's greeting comes first, whoever computes. */
static void hmac_greetings(struct hmac *hmac, const struct wf_net_hello *hello)
{
    bool mine_first = hello->role == WF_NET_CONNECTOR;
    hmac_add(hmac, mine_first ? hello->mine : hello->theirs, 32);
    hmac_add(hmac, mine_first ? hello->theirs : hello->mine, 32);
}

static void said_mac(const struct wf_net_hello *hello, enum wf_net_hello_role prover,
                     const struct said *said, uint8_t out[32])
{
    static const char tag[16] = "weft-net-proof-1";
    uint8_t role = (uint8_t)prover;
    struct hmac hmac;
    hmac_begin(&hmac, hello->secret);
    hmac_add(&hmac, tag, sizeof tag);
    hmac_add(&hmac, &role, sizeof role);
    hmac_greetings(&hmac, hello);
    hmac_add(&hmac, said, offsetof(struct said, mac));
    hmac_end(&hmac, out);
}

void wf_net_hello_key(const struct wf_net_hello *hello, uint8_t out[32])
{
    static const char tag[16] = "weft-net-key---1";
    struct hmac hmac;
    hmac_begin(&hmac, hello->secret);
    hmac_add(&hmac, tag, sizeof tag);
    hmac_greetings(&hmac, hello);
    hmac_end(&hmac, out);
}

/* ------------------------------------------------------------------------------------- out */

static enum weft_status randomness(void *out, size_t bytes)
{
    ssize_t got;
    do
        got = getrandom(out, bytes, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)bytes)
        return wf_fail(WEFT_E_SYSTEM, "the system gives no randomness: %s", strerror(errno));
    return WEFT_OK;
}

enum weft_status wf_net_hello_link_id(uint8_t out[WF_NET_LINK_ID_BYTES])
{
    return randomness(out, WF_NET_LINK_ID_BYTES);
}

static void out_add(struct wf_net_hello *hello, const void *bytes, size_t count)
{
    if (hello->out_at == hello->out_bytes)
        hello->out_at = hello->out_bytes = 0;
    memcpy(hello->out + hello->out_bytes, bytes, count);
    hello->out_bytes += (uint32_t)count;
}

enum weft_status wf_net_hello_begin(struct wf_net_hello *hello,
                                    const struct wf_net_hello_self *self)
{
    struct greeting greeting = {
        .version_min = WF_NET_VERSION_MIN,
        .version_max = WF_NET_VERSION_MAX,
        .bytes = WF_NET_GREETING_BYTES + self->hello_bytes + self->byte_count,
        .role = (uint8_t)self->role,
        .proof = (uint8_t)self->proof,
        .streams = self->streams,
        .stream = self->stream,
        .hello_bytes = (uint16_t)self->hello_bytes,
        .transport_bytes = (uint16_t)self->byte_count,
        .dead_ms = self->dead_ms,
        .numbers = {self->numbers[0], self->numbers[1]},
    };
    memset(hello, 0, sizeof *hello);
    if (self->hello_bytes > WF_NET_HELLO_MAX || self->byte_count > WF_NET_TRANSPORT_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "a hello of %u bytes and %u of the transport; up to %u and %u may be said",
                       self->hello_bytes, self->byte_count, WF_NET_HELLO_MAX, WF_NET_TRANSPORT_MAX);
    enum weft_status status = randomness(hello->nonce, sizeof hello->nonce);
    if (status != WEFT_OK)
        return status;
    hello->role = self->role;
    hello->proof = self->proof;
    if (self->proof == WF_NET_PROOF_SECRET)
        memcpy(hello->secret, self->secret, sizeof hello->secret);
    memcpy(greeting.magic, greeting_magic, sizeof greeting.magic);
    memcpy(greeting.transport, self->transport, sizeof greeting.transport);
    memcpy(greeting.nonce, hello->nonce, sizeof greeting.nonce);
    memcpy(greeting.link, self->link, sizeof greeting.link);
    out_add(hello, &greeting, sizeof greeting);
    if (self->hello_bytes)
        out_add(hello, self->hello, self->hello_bytes);
    if (self->byte_count)
        out_add(hello, self->bytes, self->byte_count);
    SHA256(hello->out, hello->out_bytes, hello->mine);
    /* An acceptor's waits until it has heard something that can be a connector's. */
    if (self->role == WF_NET_ACCEPTOR)
        hello->out_at = hello->out_bytes;
    return WEFT_OK;
}

void wf_net_hello_end(struct wf_net_hello *hello)
{
    OPENSSL_cleanse(hello, sizeof *hello);
}

const void *wf_net_hello_out(const struct wf_net_hello *hello, size_t *out_bytes)
{
    *out_bytes = hello->out_bytes - hello->out_at;
    return hello->out + hello->out_at;
}

void wf_net_hello_sent(struct wf_net_hello *hello, size_t bytes)
{
    hello->out_at += (uint32_t)bytes;
}

static void say(struct wf_net_hello *hello, enum said_kind kind, enum wf_net_refusal reason)
{
    struct said said = {.kind = (uint8_t)kind,
                        .reason = (uint8_t)reason,
                        .streams = kind == SAID_PROOF ? hello->streams : 0};
    memcpy(said.magic, said_magic, sizeof said.magic);
    if (hello->role == WF_NET_ACCEPTOR)
        memcpy(said.link, hello->link, sizeof said.link);
    if (kind != SAID_REFUSED)
        said_mac(hello, hello->role, &said, said.mac);
    out_add(hello, &said, sizeof said);
}

void wf_net_hello_admit(struct wf_net_hello *hello, const uint8_t link[WF_NET_LINK_ID_BYTES],
                        uint8_t streams)
{
    memcpy(hello->link, link, sizeof hello->link);
    hello->streams = streams;
    hello->state = WF_NET_HELLO_READY;
    say(hello, SAID_PROOF, 0);
}

void wf_net_hello_refuse(struct wf_net_hello *hello, enum wf_net_refusal refusal)
{
    hello->state = WF_NET_HELLO_FAILED;
    say(hello, SAID_REFUSED, refusal);
}

void wf_net_hello_ready(struct wf_net_hello *hello)
{
    hello->state = WF_NET_HELLO_DONE;
    say(hello, SAID_READY, 0);
}

/* -------------------------------------------------------------------------------------- in */

size_t wf_net_hello_wants(const struct wf_net_hello *hello)
{
    const struct greeting *greeting = (const struct greeting *)hello->in;
    switch (hello->state) {
    case WF_NET_HELLO_GREETING:
        return (hello->in_bytes < PREFIX_BYTES ? PREFIX_BYTES : greeting->bytes) - hello->in_bytes;
    case WF_NET_HELLO_PROOF:
    case WF_NET_HELLO_READY: return WF_NET_PROOF_BYTES - hello->in_bytes;
    default: return 0;
    }
}

/* The first 16 bytes: whether the rest is worth reading.  Bytes of another version are not ours to
 * read, but its speaker is to know which this side speaks. */
static enum weft_status prefix_check(struct wf_net_hello *hello)
{
    const struct greeting *greeting = (const struct greeting *)hello->in;
    if (hello->in[0] == 0x16 && hello->in[1] == 3)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side speaks TLS and this one asks for %s; set the same on both",
                       proof_names[hello->proof]);
    if (memcmp(greeting->magic, greeting_magic, sizeof greeting_magic) != 0)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side does not speak Weft's network protocol; is the port right?");
    if (hello->role == WF_NET_ACCEPTOR)
        hello->out_at = 0;
    if (greeting->version_min > greeting->version_max || greeting->version_min == 0)
        return wf_fail(WEFT_E_PROTOCOL, "the other side says that it speaks versions %u to %u",
                       greeting->version_min, greeting->version_max);
    if (greeting->version_min > WF_NET_VERSION_MAX || greeting->version_max < WF_NET_VERSION_MIN)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side speaks versions %u to %u of Weft's network protocol and "
                       "this one %u to %u; upgrade the older node",
                       greeting->version_min, greeting->version_max, WF_NET_VERSION_MIN,
                       WF_NET_VERSION_MAX);
    if (greeting->bytes < WF_NET_GREETING_BYTES || greeting->bytes > WF_NET_GREETING_MAX)
        return wf_fail(WEFT_E_PROTOCOL, "the other side's greeting has %u bytes; %u to %u can be",
                       greeting->bytes, WF_NET_GREETING_BYTES, WF_NET_GREETING_MAX);
    hello->version = greeting->version_max < WF_NET_VERSION_MAX ? greeting->version_max
                                                                : (uint16_t)WF_NET_VERSION_MAX;
    return WEFT_PENDING;
}

static enum weft_status greeting_check(const struct wf_net_hello *hello,
                                       const struct greeting *theirs)
{
    const struct greeting *mine = (const struct greeting *)hello->out;
    if (theirs->hello_bytes > WF_NET_HELLO_MAX || theirs->transport_bytes > WF_NET_TRANSPORT_MAX ||
        theirs->bytes !=
            WF_NET_GREETING_BYTES + (uint32_t)theirs->hello_bytes + theirs->transport_bytes)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side's greeting of %u bytes has a hello of %u and %u of its "
                       "transport; they do not add up",
                       theirs->bytes, theirs->hello_bytes, theirs->transport_bytes);
    if (theirs->role + hello->role != WF_NET_CONNECTOR + WF_NET_ACCEPTOR ||
        !memcmp(theirs->nonce, hello->nonce, sizeof hello->nonce))
        return wf_fail(WEFT_E_PROTOCOL, "the other side says back what this one said");
    if (memcmp(theirs->transport, mine->transport, sizeof mine->transport) != 0)
        return wf_fail(WEFT_E_PROTOCOL, "there is another transport than %.4s on the other side",
                       mine->transport);
    if (theirs->proof >= sizeof proof_names / sizeof proof_names[0])
        return wf_fail(WEFT_E_PROTOCOL, "the other side asks for proof %u, which is none",
                       theirs->proof);
    if (theirs->proof != (uint8_t)hello->proof)
        return wf_fail(WEFT_E_DENIED,
                       "the other side proves itself by %s and this one by %s; set the same on "
                       "both",
                       proof_names[theirs->proof], proof_names[hello->proof]);
    if (theirs->streams == 0 || theirs->streams > WF_NET_STREAMS_MAX ||
        theirs->stream >= theirs->streams ||
        (theirs->stream == 0) != !memcmp(theirs->link, no_link, sizeof no_link) ||
        (theirs->stream > 0 && theirs->role == WF_NET_ACCEPTOR))
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side says that this is stream %u of %u, which can not be",
                       theirs->stream, theirs->streams);
    return WEFT_OK;
}

static enum weft_status greeting_take(struct wf_net_hello *hello)
{
    const struct greeting *theirs = (const struct greeting *)hello->in;
    enum weft_status status = greeting_check(hello, theirs);
    if (status != WEFT_OK)
        return status;
    SHA256(hello->in, hello->in_bytes, hello->theirs);
    hello->peer = (struct wf_net_hello_self){
        .role = (enum wf_net_hello_role)theirs->role,
        .proof = (enum wf_net_proof)theirs->proof,
        .streams = theirs->streams,
        .stream = theirs->stream,
        .dead_ms = theirs->dead_ms,
        .numbers = {theirs->numbers[0], theirs->numbers[1]},
        .hello = hello->in + WF_NET_GREETING_BYTES,
        .hello_bytes = theirs->hello_bytes,
        .bytes = hello->in + WF_NET_GREETING_BYTES + theirs->hello_bytes,
        .byte_count = theirs->transport_bytes,
    };
    memcpy(hello->peer.transport, theirs->transport, sizeof theirs->transport);
    memcpy(hello->peer.link, theirs->link, sizeof theirs->link);
    hello->state = WF_NET_HELLO_PROOF;
    hello->in_bytes = 0;
    if (hello->role == WF_NET_CONNECTOR)
        say(hello, SAID_PROOF, 0);
    return WEFT_PENDING;
}

static enum weft_status said_check(struct wf_net_hello *hello, const struct said *said)
{
    uint8_t mac[32];
    bool acceptor = hello->role == WF_NET_ACCEPTOR;
    if (memcmp(said->magic, said_magic, sizeof said_magic) != 0)
        return wf_fail(WEFT_E_PROTOCOL, "the other side's proof is none");
    if (said->kind == SAID_REFUSED && !acceptor)
        return wf_fail(WEFT_E_DENIED, "the other side refuses: %s",
                       said->reason < WF_NET_REFUSALS && refusals[said->reason]
                           ? refusals[said->reason]
                           : "it says no reason that this side knows");
    if (said->kind != (hello->state == WF_NET_HELLO_READY ? SAID_READY : SAID_PROOF))
        return wf_fail(WEFT_E_PROTOCOL, "the other side said %u out of turn", said->kind);
    said_mac(hello, acceptor ? WF_NET_CONNECTOR : WF_NET_ACCEPTOR, said, mac);
    if (CRYPTO_memcmp(mac, said->mac, sizeof mac) != 0) {
        if (acceptor)
            wf_net_hello_refuse(hello, WF_NET_REFUSED_SECRET);
        return wf_fail(WEFT_E_DENIED,
                       "the other side does not prove that it knows the secret; give both nodes "
                       "the same one");
    }
    return WEFT_OK;
}

static enum weft_status said_take(struct wf_net_hello *hello)
{
    const struct said *said = (const struct said *)hello->said;
    enum weft_status status = said_check(hello, said);
    if (status != WEFT_OK)
        return status;
    hello->in_bytes = 0;
    if (hello->state == WF_NET_HELLO_READY) {
        hello->state = WF_NET_HELLO_DONE;
    } else if (hello->role == WF_NET_ACCEPTOR) {
        hello->state = WF_NET_HELLO_DECIDE;
    } else {
        if (said->streams == 0 || said->streams > WF_NET_STREAMS_MAX)
            return wf_fail(WEFT_E_PROTOCOL, "the other side admits this link with %u streams",
                           said->streams);
        memcpy(hello->link, said->link, sizeof hello->link);
        hello->streams = said->streams;
        hello->state = WF_NET_HELLO_PROVEN;
    }
    return WEFT_OK;
}

enum weft_status wf_net_hello_take(struct wf_net_hello *hello, const void *bytes, size_t count)
{
    enum weft_status status = WEFT_PENDING;
    const uint8_t *from = bytes;
    while (count && status == WEFT_PENDING) {
        size_t wants = wf_net_hello_wants(hello), taken = count < wants ? count : wants;
        if (!wants)
            return wf_fail(WEFT_E_PROTOCOL, "the other side said more than its turn");
        memcpy((hello->state == WF_NET_HELLO_GREETING ? hello->in : hello->said) + hello->in_bytes,
               from, taken);
        hello->in_bytes += (uint32_t)taken;
        from += taken;
        count -= taken;
        if (taken < wants)
            break;
        if (hello->state != WF_NET_HELLO_GREETING)
            status = said_take(hello);
        else if (hello->in_bytes == PREFIX_BYTES)
            status = prefix_check(hello);
        else
            status = greeting_take(hello);
    }
    if (status < 0)
        hello->state = WF_NET_HELLO_FAILED;
    return status;
}
