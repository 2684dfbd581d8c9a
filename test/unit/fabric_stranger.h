/* SPDX-License-Identifier: Apache-2.0
 *
 * Somebody who has a net and says what the test says, to nodes of fabric_world.h: whatever name it
 * likes, and proofs of the domains whose secrets it was given.
 */
#ifndef WF_TEST_FABRIC_STRANGER_H
#define WF_TEST_FABRIC_STRANGER_H

#include <openssl/hmac.h>

#include "fabric/wire.h"
#include "fabric_world.h"

struct stranger {
    struct wf_net *net;
    struct wf_net_link *link;
    bool down, stays;                 /* stays: though it is refused */
    uint32_t probed, agains, refused; /* that it heard */
    uint8_t their_nonce[32];
};

static inline bool stranger_up(void *context, struct wf_net_link *link, const void *hello,
                               uint32_t bytes, const char *name)
{
    (void)hello, (void)bytes, (void)name;
    ((struct stranger *)context)->link = link;
    return true;
}

static inline void stranger_down(void *context, struct wf_net_link *link, enum weft_status status,
                                 const char *sentence)
{
    struct stranger *s = context;
    (void)link, (void)status, (void)sentence;
    s->link = NULL;
    s->down = true;
}

static inline uint32_t stranger_begun(void *context, struct wf_net_link *link, const void *header,
                                      uint32_t header_bytes, uint64_t payload_bytes,
                                      struct iovec *out, void **out_token)
{
    struct stranger *s = context;
    struct wf_fabric_head head; /* a net has it where it came to lie */
    (void)payload_bytes, (void)out, (void)out_token;
    assert_true(header_bytes >= sizeof head);
    memcpy(&head, header, sizeof head);
    s->probed += head.kind == WF_FABRIC_PROBED;
    s->agains += head.kind == WF_FABRIC_AGAIN;
    s->refused += head.kind == WF_FABRIC_REFUSED;
    if (head.kind == WF_FABRIC_REFUSED && !s->stays)
        wf_net_sim.close(link);
    if (head.kind == WF_FABRIC_IDENT && header_bytes == sizeof(struct wf_fabric_ident))
        memcpy(s->their_nonce, (const uint8_t *)header + offsetof(struct wf_fabric_ident, nonce),
               32);
    return 0;
}

static inline void stranger_arrived(void *context, struct wf_net_link *link, void *token,
                                    enum weft_status status)
{
    (void)context, (void)link, (void)token, (void)status;
}

static inline void stranger_waits(struct stranger *s, uint32_t ms)
{
    for (uint32_t i = 0; i < ms && !s->down; i++) {
        pass(1);
        assert_int_equal(wf_net_sim.poll(s->net, 0), WEFT_OK);
    }
}

/* `listen`: where it waits for a link; or NULL, and it begins one to `to`. */
static inline void stranger_begin(struct stranger *s, const char *listen, const char *to)
{
    const struct wf_net_options options = {.listen = listen,
                                           .hello = "weft",
                                           .hello_bytes = 5,
                                           .events = {s, stranger_up, stranger_down, stranger_begun,
                                                      NULL, stranger_arrived},
                                           .world = world};
    struct wf_net_link *link;
    *s = (struct stranger){0};
    if (wf_net_sim.create(&options, &s->net) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    if (!to)
        return;
    assert_int_equal(wf_net_sim.connect(s->net, to, NULL, &link), WEFT_OK);
    stranger_waits(s, 50);
    assert_non_null(s->link);
}

static inline void stranger_end(struct stranger *s)
{
    wf_net_sim.destroy(s->net);
    s->net = NULL;
}

static inline void stranger_said(struct wf_net_message *message, enum weft_status status)
{
    (void)status;
    free(message->user);
    free(message);
}

static inline void stranger_says(struct stranger *s, const void *header, uint32_t bytes)
{
    struct wf_net_message *message = calloc(1, sizeof *message);
    assert_non_null(message);
    message->user = malloc(bytes);
    assert_non_null(message->user);
    memcpy(message->user, header, bytes);
    message->header = message->user;
    message->header_bytes = bytes;
    message->sent = stranger_said;
    if (!s->link || wf_net_sim.send(s->link, message) != WEFT_OK)
        stranger_said(message, WEFT_E_NODE);
}

static inline struct wf_fabric_ident stranger_ident(const char *name)
{
    struct wf_fabric_ident ident = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_IDENT},
                                    .version = WF_FABRIC_VERSION,
                                    .nonce = "a number used once"};
    snprintf(ident.name, sizeof ident.name, "%s", name);
    return ident;
}

/* That it has this secret, of 32 bytes, said to who said that nonce. */
static inline void stranger_proves(const char *of, const uint8_t their_nonce[32], uint8_t out[32])
{
    static const char tag[] = "weft fabric domain 1";
    const struct wf_fabric_ident ident = stranger_ident("");
    uint8_t text[sizeof tag - 1 + 64], secret[32] = {0};
    memcpy(secret, of, strlen(of));
    memcpy(text, tag, sizeof tag - 1);
    memcpy(text + sizeof tag - 1, ident.nonce, 32);
    memcpy(text + sizeof tag - 1 + 32, their_nonce, 32);
    HMAC(EVP_sha256(), secret, 32, text, sizeof text, out, NULL);
}

/* With a proof of each of these secrets. */
static inline void stranger_joins(struct stranger *s, const char *const *secrets, uint32_t count)
{
    struct {
        struct wf_fabric_join join;
        uint8_t proof[4][32];
    } m = {.join = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_JOIN}, .count = count}};
    assert_true(count <= 4);
    for (uint32_t i = 0; i < count; i++)
        stranger_proves(secrets[i], s->their_nonce, m.proof[i]);
    stranger_says(s, &m, (uint32_t)(sizeof m.join + count * 32));
}

#endif
