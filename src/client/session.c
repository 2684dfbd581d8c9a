/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: match, get, reserve and commit by tokens.
 *
 * A session remembers the tokens that it saw last and their keys, so that a conversation's next
 * turn hashes its new tokens alone.  Remembered tokens are compared, not assumed.
 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/identity.h"
#include "sys/memory.h"

struct weft_session {
    struct weft_format *format;
    struct wf_session_open request;
    _Atomic(struct binding *) binding;
    const struct binding *keyed; /* whose root `keys` start from */
    uint32_t *tokens;            /* [blocks × block_tokens] */
    struct weft_key *keys;       /* [blocks] */
    size_t blocks, capacity;
    uint64_t chain; /* another number whenever `keys` stop being of the tokens that they were of */
    uint8_t *tiers;
    size_t tiers_capacity;
    bool has_tip;
    struct weft_key tip;
};

static enum weft_status session_ask(void *context, struct attachment *a, struct binding *out)
{
    struct weft_session *s = context;
    struct weft *w = s->format->weft;
    struct binding *format = atomic_load_explicit(&s->format->binding, memory_order_acquire);
    if (!format || format->attachment != a)
        return wf_fail(WEFT_E_NODE, "the node was lost while a session was registered; try again");
    s->request.format = (uint32_t)format->id;
    memcpy(w->request, &s->request, sizeof s->request);
    enum weft_status status = wf_client_exchange(w, a, WF_OP_SESSION_OPEN, sizeof s->request,
                                                 sizeof(struct wf_session_answer), NULL, NULL);
    if (status != WEFT_OK)
        return status;
    const struct wf_session_answer *answer =
        (const struct wf_session_answer *)(const void *)w->answer;
    out->id = answer->session;
    memcpy(out->root, answer->root, sizeof out->root);
    s->request.fork_of = 0; /* a later node knows nothing of the origin */
    return WEFT_OK;
}

/* The session on the node that is there now. */
static const struct binding *bind(struct weft_session *s, struct attachment **out,
                                  enum weft_status *status)
{
    struct attachment *a = wf_client_attach(s->format->weft, status);
    if (!a || !wf_format_bind(s->format, a, status))
        return NULL;
    *out = a;
    return wf_binding_get(s->format->weft, &s->binding, a, session_ask, s, status);
}

static enum weft_status session_make(struct weft_format *f, const struct weft_session_spec *spec,
                                     uint64_t fork_of, struct weft_session **out)
{
    struct weft_session_spec usual = {.priority = 5};
    if (!spec)
        spec = &usual;
    if (spec->name && strlen(spec->name) > 64)
        return wf_fail(WEFT_E_INVALID, "a session's name '%.32s…' has %zu bytes; give up to 64",
                       spec->name, strlen(spec->name));
    if (spec->salt && spec->salt_bytes > 256)
        return wf_fail(WEFT_E_INVALID, "a session's salt has %zu bytes; give up to 256",
                       spec->salt_bytes);
    struct weft_session *s = wf_calloc(1, sizeof *s, "a session");
    if (!s)
        return WEFT_E_NO_MEMORY;
    s->format = f;
    s->request.priority = spec->priority;
    s->request.fork_of = fork_of;
    if (spec->name)
        memcpy(s->request.name, spec->name, strlen(spec->name));
    if (spec->salt && spec->salt_bytes) {
        s->request.salt_bytes = (uint32_t)spec->salt_bytes;
        memcpy(s->request.salt, spec->salt, spec->salt_bytes);
    }
    enum weft_status status;
    struct attachment *a;
    if (!bind(s, &a, &status)) {
        free(s);
        return status;
    }
    *out = s;
    return WEFT_OK;
}

enum weft_status weft_session_open(struct weft_format *f, const struct weft_session_spec *spec,
                                   struct weft_session **out)
{
    return session_make(f, spec, 0, out);
}

void weft_session_close(struct weft_session *s)
{
    if (!s)
        return;
    struct weft *w = s->format->weft;
    struct binding *newest = atomic_load_explicit(&s->binding, memory_order_acquire);
    if (newest && !wf_client_forked(w)) {
        pthread_mutex_lock(&w->lock);
        struct attachment *a = atomic_load_explicit(&w->current, memory_order_relaxed);
        if (a == newest->attachment) {
            struct wf_session_close *request = (struct wf_session_close *)(void *)w->request;
            request->session = newest->id;
            enum weft_status told = wf_client_exchange(w, a, WF_OP_SESSION_CLOSE, sizeof *request,
                                                       sizeof(struct wf_message), NULL, NULL);
            (void)told; /* a node that is gone has forgotten it anyway */
        }
        pthread_mutex_unlock(&w->lock);
    }
    wf_bindings_free(newest);
    free(s->tokens);
    free(s->keys);
    free(s->tiers);
    free(s);
}

uint64_t weft_session_id(const struct weft_session *s)
{
    return atomic_load_explicit(&s->binding, memory_order_acquire)->id;
}

bool wf_session_tip(const struct weft_session *s, struct weft_key *out)
{
    if (s->has_tip)
        *out = s->tip;
    return s->has_tip;
}

const char *wf_session_name(const struct weft_session *s)
{
    return s->request.name;
}

struct weft_format *wf_session_format(const struct weft_session *s)
{
    return s->format;
}

/* ---------------------------------------------------------------------------------------- keys */

static enum weft_status room_for(struct weft_session *s, size_t blocks)
{
    size_t block_tokens = s->format->request.block_tokens;
    if (blocks <= s->capacity)
        return WEFT_OK;
    size_t capacity = blocks + blocks / 2 + 16;
    uint32_t *tokens = wf_realloc(s->tokens, capacity * block_tokens * sizeof *tokens, "a chain");
    if (tokens)
        s->tokens = tokens;
    struct weft_key *keys = wf_realloc(s->keys, capacity * sizeof *keys, "a chain");
    if (keys)
        s->keys = keys;
    if (!tokens || !keys)
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for the keys of %zu blocks", blocks);
    s->capacity = capacity;
    return WEFT_OK;
}

/* What was matched before is no part of s->keys any more. */
static void forget(struct weft_session *s, size_t blocks)
{
    static atomic_uint_fast64_t chains = 1;
    s->blocks = blocks;
    s->chain = atomic_fetch_add_explicit(&chains, 1, memory_order_relaxed);
}

/* Have s->keys[0 … blocks) name the first blocks of `tokens`. */
static enum weft_status keys_for(struct weft_session *s, const struct binding *binding,
                                 const uint32_t *tokens, size_t blocks)
{
    size_t block_tokens = s->format->request.block_tokens;
    if (s->keyed != binding || !s->chain)
        forget(s, 0);
    size_t known = s->blocks < blocks ? s->blocks : blocks;
    if (memcmp(s->tokens ? (const void *)s->tokens : (const void *)"", tokens,
               known * block_tokens * sizeof *tokens) != 0) {
        size_t same = 0;
        while (same < known && memcmp(s->tokens + same * block_tokens, tokens + same * block_tokens,
                                      block_tokens * sizeof *tokens) == 0)
            same++;
        forget(s, known = same);
    }
    if (known == blocks)
        return WEFT_OK;
    enum weft_status status = room_for(s, blocks);
    if (status != WEFT_OK)
        return status;
    memcpy(s->tokens + known * block_tokens, tokens + known * block_tokens,
           (blocks - known) * block_tokens * sizeof *tokens);
    wf_identity_chain(known ? s->keys[known - 1].bytes : binding->root,
                      tokens + known * block_tokens, blocks - known, (uint32_t)block_tokens, NULL,
                      s->keys[known].bytes);
    s->blocks = blocks;
    s->keyed = binding;
    return WEFT_OK;
}

/* ---------------------------------------------------------------------------------- match, get */

enum weft_status weft_match(struct weft_session *s, const uint32_t *tokens, size_t token_count,
                            struct weft_match *out)
{
    enum weft_status status;
    struct attachment *a;
    const struct binding *binding = bind(s, &a, &status);
    if (!binding)
        return status;
    size_t block_tokens = s->format->request.block_tokens;
    size_t blocks = token_count ? (token_count - 1) / block_tokens : 0;
    if (token_count > UINT32_MAX)
        return wf_fail(WEFT_E_INVALID, "%zu tokens; a match takes up to 2^32 - 1", token_count);
    status = keys_for(s, binding, tokens, blocks);
    size_t present = 0;
    uint32_t load_us = 0;
    enum weft_quality worst = WEFT_LOSSLESS;
    if (status == WEFT_OK && blocks)
        status = wf_client_match(s->format, s->keys, blocks, &present, &worst);
    if (status != WEFT_OK)
        return status;
    if (present > s->tiers_capacity) {
        uint8_t *tiers = wf_realloc(s->tiers, s->capacity, "a match");
        if (!tiers)
            return wf_fail(WEFT_E_NO_MEMORY, "out of memory for a match of %zu blocks", present);
        s->tiers = tiers;
        s->tiers_capacity = s->capacity;
    }
    if (present) {
        present = wf_client_tiers(s->format, a, s->keys, present, s->tiers, &load_us);
    }
    if (present) {
        s->has_tip = true;
        s->tip = s->keys[present - 1];
    }
    *out = (struct weft_match){
        .blocks = (uint32_t)present,
        .tokens = (uint32_t)(present * block_tokens),
        .load_us = load_us,
        .tier = s->tiers,
        .epoch = s->chain,
        .quality = worst,
    };
    return WEFT_OK;
}

enum weft_status weft_get(struct weft_session *s, const struct weft_match *m, enum weft_order order,
                          struct weft_pins *out)
{
    /* Keys of other tokens may be where the match's were: their blocks are not what was matched. */
    if (m->blocks && (m->epoch != s->chain || m->blocks > s->blocks))
        return wf_fail(WEFT_E_INVALID,
                       "the match is of another session, or this one was asked about other tokens "
                       "since; match again");
    const struct binding *binding = atomic_load_explicit(&s->binding, memory_order_acquire);
    return wf_client_get(s->format, binding, s->keys, m->blocks, order, out);
}

enum weft_status weft_prefetch(struct weft_session *s, const uint32_t *tokens, size_t token_count,
                               uint32_t within_ms, uint32_t *out_blocks)
{
    enum weft_status status;
    struct attachment *a;
    const struct binding *binding = bind(s, &a, &status);
    size_t blocks = token_count / s->format->request.block_tokens;
    if (!binding)
        return status;
    if (token_count > UINT32_MAX)
        return wf_fail(WEFT_E_INVALID, "%zu tokens; a prefetch takes up to 2^32 - 1", token_count);
    status = keys_for(s, binding, tokens, blocks);
    return status == WEFT_OK ? weft_prefetch_keys(s->format, s->keys, blocks, within_ms, out_blocks)
                             : status;
}

enum weft_status weft_demote(struct weft_session *s)
{
    struct weft *w = s->format->weft;
    enum weft_status status;
    struct attachment *a;
    if (!bind(s, &a, &status))
        return status;
    if (!s->has_tip)
        return WEFT_OK;
    pthread_mutex_lock(&w->lock);
    struct wf_demote *request = (struct wf_demote *)(void *)w->request;
    memcpy(request->tip, s->tip.bytes, sizeof request->tip);
    status = wf_client_exchange(w, a, WF_OP_DEMOTE, sizeof *request, sizeof(struct wf_count_answer),
                                NULL, NULL);
    if (status == WEFT_PENDING)
        status = wf_fail(
            WEFT_PENDING,
            "%llu blocks of the chain are still in DRAM: a session that is in prefill or decoding "
            "holds them (hint another state), others pin or extend them, or the tier has not taken "
            "them yet; call again",
            (unsigned long long)((const struct wf_count_answer *)(const void *)w->answer)->count);
    pthread_mutex_unlock(&w->lock);
    return status;
}

/* ----------------------------------------------------------------------------- reserve, commit */

/* Of its blocks, behind its slots: the session's own may be of other tokens by the time of the
 * commit.
 */
static struct weft_key *fill_keys(const struct weft_fill *fill)
{
    return (struct weft_key *)(void *)(fill->slots + fill->blocks + 1);
}

/* Reserve in messages of WEFT_BATCH_MAX; each goes on from the last block of the one before. */
static enum weft_status reserve_chain(struct weft_session *s, struct weft_fill *fill)
{
    enum weft_status status = WEFT_OK;
    const struct weft_key *keys = s->keys + fill->first_block;
    bool full = false;
    for (uint32_t from = 0; from < fill->blocks; from += WEFT_BATCH_MAX) {
        uint32_t n = fill->blocks - from < WEFT_BATCH_MAX ? fill->blocks - from : WEFT_BATCH_MAX;
        const struct weft_key *parent = fill->first_block + from ? keys + from - 1 : NULL;
        if (!full) {
            status = wf_client_reserve(s->format, parent, from ? &fill->slots[from - 1] : NULL,
                                       keys + from, n, WEFT_CHAINED, fill->slots + from);
            if (status != WEFT_OK && from == 0)
                return status;
            full = status != WEFT_OK; /* the cap on reserved blocks: what follows is not stored */
        }
        for (uint32_t i = from; i < from + n; i++) {
            if (full)
                fill->slots[i] = (struct weft_slot){.status = WEFT_FULL};
            fill->reserved += fill->slots[i].status == WEFT_OK;
            fill->existing += fill->slots[i].status == WEFT_EXISTS;
            fill->full += fill->slots[i].status == WEFT_FULL;
        }
        full |= fill->full > 0;
    }
    return WEFT_OK;
}

enum weft_status weft_reserve(struct weft_session *s, const uint32_t *tokens, size_t from_token,
                              size_t token_count, struct weft_fill *out)
{
    size_t block_tokens = s->format->request.block_tokens;
    size_t blocks = token_count / block_tokens, first = from_token / block_tokens;
    if (from_token % block_tokens || from_token > token_count || token_count > UINT32_MAX)
        return wf_fail(
            WEFT_E_INVALID,
            "tokens %zu to %zu: the first must be a multiple of block_tokens, %zu, and not "
            "above the second",
            from_token, token_count, block_tokens);
    enum weft_status status;
    struct attachment *a;
    const struct binding *binding = bind(s, &a, &status);
    if (!binding)
        return status;
    status = keys_for(s, binding, tokens, blocks);
    if (status != WEFT_OK)
        return status;
    struct weft_fill fill = {.blocks = (uint32_t)(blocks - first),
                             .first_block = (uint32_t)first,
                             .layer_bytes = s->format->layer_bytes,
                             .session = s};
    fill.slots = wf_calloc((size_t)fill.blocks + 1, sizeof *fill.slots + sizeof(struct weft_key),
                           "reserved blocks");
    if (!fill.slots)
        return WEFT_E_NO_MEMORY;
    memcpy(fill_keys(&fill), s->keys + first, fill.blocks * sizeof(struct weft_key));
    status = reserve_chain(s, &fill);
    if (status != WEFT_OK) {
        free(fill.slots);
        return status;
    }
    *out = fill;
    return WEFT_OK;
}

enum weft_status weft_commit(struct weft_fill *fill)
{
    if (!fill || !fill->session)
        return wf_fail(WEFT_E_INVALID, "this fill was not reserved, or was committed or aborted "
                                       "already; reserve first");
    struct weft_session *s = fill->session;
    enum weft_status status = WEFT_OK;
    struct binding *binding = atomic_load_explicit(&s->binding, memory_order_acquire);
    uint32_t stored = 0; /* blocks from the first that are there, or are to be */
    while (stored < fill->blocks && fill->slots[stored].status != WEFT_FULL)
        stored++;
    for (uint32_t from = 0; from < fill->blocks; from += WEFT_BATCH_MAX) {
        uint32_t n = fill->blocks - from < WEFT_BATCH_MAX ? fill->blocks - from : WEFT_BATCH_MAX;
        uint32_t upto = stored < from + n ? stored : from + n;
        const struct weft_key *tip = upto > from ? &fill_keys(fill)[upto - 1] : NULL;
        enum weft_status part = wf_client_commit(s->format, fill->slots + from, n, binding, tip);
        if (part == WEFT_OK && tip) {
            s->has_tip = true;
            s->tip = *tip;
        }
        if (status == WEFT_OK)
            status = part;
    }
    free(fill->slots);
    memset(fill, 0, sizeof *fill);
    return status;
}

void weft_abort(struct weft_fill *fill)
{
    if (!fill)
        return;
    if (fill->session)
        weft_abort_slots(fill->session->format, fill->slots, fill->blocks);
    free(fill->slots);
    memset(fill, 0, sizeof *fill);
}

/* ------------------------------------------------------------------------------- hint and fork */

enum weft_status weft_session_hint(struct weft_session *s, enum weft_session_state state,
                                   const struct weft_hint *hint)
{
    struct weft *w = s->format->weft;
    enum weft_status status;
    struct attachment *a;
    const struct binding *binding = bind(s, &a, &status);
    if (!binding)
        return status;
    if (hint && hint->tip) {
        s->has_tip = true;
        s->tip = *hint->tip;
    }
    pthread_mutex_lock(&w->lock);
    struct wf_session_hint *request = (struct wf_session_hint *)(void *)w->request;
    memset(request, 0, sizeof *request);
    request->session = binding->id;
    request->state = (uint32_t)state;
    request->returns_in_ms = hint ? hint->returns_in_ms : 0;
    request->deadline_ms = hint ? hint->deadline_ms : 0;
    request->output_tokens = hint ? hint->output_tokens : 0;
    request->has_tip = s->has_tip;
    memcpy(request->tip, s->tip.bytes, sizeof request->tip);
    status = wf_client_exchange(w, a, WF_OP_SESSION_HINT, sizeof *request,
                                sizeof(struct wf_message), NULL, NULL);
    pthread_mutex_unlock(&w->lock);
    return status;
}

enum weft_status weft_session_fork(struct weft_session *s, const struct weft_session_spec *spec,
                                   struct weft_session **out)
{
    enum weft_status status;
    struct attachment *a;
    const struct binding *binding = bind(s, &a, &status);
    if (!binding)
        return status;
    /* The salt is part of every key of the chain, so a fork has the same. */
    struct weft_session_spec same = spec ? *spec : (struct weft_session_spec){.priority = 5};
    same.salt = s->request.salt_bytes ? s->request.salt : NULL;
    same.salt_bytes = s->request.salt_bytes;
    struct weft_session *made = NULL;
    status = session_make(s->format, &same, binding->id, &made);
    if (status != WEFT_OK || !made)
        return status;
    made->has_tip = s->has_tip; /* NOLINT: made whenever status is OK */
    made->tip = s->tip;
    *out = made;
    return WEFT_OK;
}
