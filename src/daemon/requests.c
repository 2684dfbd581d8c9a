/* SPDX-License-Identifier: Apache-2.0
 *
 * From a message to its handler; HELLO, FORMAT_OPEN, REMOVE, LEND, RECLAIM, CORRUPT.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/size.h"
#include "core/identity.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/described.h"
#include "daemon/fabric.h"
#include "daemon/node.h"
#include "daemon/push.h"
#include "daemon/route.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define REMOVE_WAIT_NS 2000000000u
#define HELLO_WAIT_NS 3000000000u

/* Is there a terminating zero?  Strings in messages are fixed arrays of a stranger's bytes. */
static bool terminated(const char *text, size_t capacity)
{
    return memchr(text, 0, capacity) != NULL;
}

static bool is_owner(const struct wf_client *client)
{
    return client->peer.uid == 0 || client->peer.uid == client->node->owner_uid;
}

/* --------------------------------------------------------------------------------------- hello */

static enum weft_status admit(struct wf_client *client, const struct wf_hello *request,
                              struct wf_domain **out)
{
    if (!terminated(request->domain, sizeof request->domain) ||
        !terminated(request->token, sizeof request->token))
        return wf_fail(WEFT_E_PROTOCOL, "HELLO: a name or token without an end");
    struct wf_domain *domain = wf_node_domain(client->node, request->domain);
    if (!domain)
        return wf_fail(WEFT_E_NOT_FOUND,
                       "there is no domain '%s' on this node; `domains` in its "
                       "configuration lists them",
                       request->domain);
    const struct wf_domain_config *config = domain->config;
    bool allowed = config->allow_any_uid || is_owner(client);
    for (uint32_t i = 0; i < config->allow_uid_count; i++)
        allowed |= config->allow_uid[i] == client->peer.uid;
    if (!allowed)
        return wf_fail(WEFT_E_DENIED,
                       "user %u may not use domain '%s'; add it to the domain's `allow`",
                       client->peer.uid, config->name);
    size_t length = strlen(config->token);
    if (length && (strlen(request->token) != length ||
                   CRYPTO_memcmp(request->token, config->token, length) != 0))
        return wf_fail(WEFT_E_DENIED,
                       request->token[0]
                           ? "the token given is not that of domain '%s'; see its `token` in the "
                             "node's configuration"
                           : "domain '%s' asks for its token; give it by --token or WEFT_TOKEN",
                       config->name);
    *out = domain;
    return WEFT_OK;
}

/* Has the domain a right to one more, so that whoever has what it takes will give it back? */
static bool may_stage(const struct wf_domain *domain)
{
    uint64_t bytes = domain->staging_bytes + domain->store.other_bytes;
    return bytes + domain->node->config.staging_bytes <= domain->due_bytes;
}

static enum weft_status equip_staging(struct wf_client *client, struct wf_domain *domain)
{
    uint64_t bytes = client->node->config.staging_bytes;
    if (!wf_node_budget(client->node, domain, bytes))
        return wf_fail(
            WEFT_FULL,
            "no room for a staging segment of %llu bytes; lower `staging` or raise pool.size",
            (unsigned long long)bytes);
    struct wf_segment staging = {.fd = -1};
    enum weft_status status = wf_segment_create("weft-staging", bytes, WF_PAGES_NORMAL, &staging);
    if (status != WEFT_OK) {
        wf_node_budget_give(client->node, bytes);
        return status;
    }
    client->staging = staging;
    domain->staging_bytes += bytes;
    return WEFT_OK;
}

static enum weft_status equip(struct wf_client *client, struct wf_domain *domain)
{
    const struct wf_config *config = &client->node->config;
    uint32_t pins = config->pins_max, placed = config->reserved_max;
    enum weft_status status = wf_segment_create("weft-pins", wf_pins_bytes(pins + placed),
                                                WF_PAGES_NORMAL, &client->pins_segment);
    if (status != WEFT_OK)
        return status;
    wf_pins_format(client->pins_segment.memory, pins, placed, &client->pins);
    if (domain->config->writes == WF_WRITES_COPIED)
        status = equip_staging(client, domain);
    if (status != WEFT_OK) /* it may try again, as often as it likes */
        wf_segment_destroy(&client->pins_segment);
    return status;
}

static void handle_hello(struct wf_client *client, const struct wf_hello *request)
{
    const struct wf_message *to = &request->message;
    struct wf_domain *domain = NULL;
    enum weft_status status = client->domain ? wf_fail(WEFT_E_PROTOCOL, "HELLO was said already")
                                             : admit(client, request, &domain);
    if (status == WEFT_OK)
        status = equip(client, domain);
    /* What is to make room for its staging segment may have to be written below first, or be read
     * by somebody just now. */
    if (status == WEFT_FULL && may_stage(domain) && wf_client_park(client, to, HELLO_WAIT_NS))
        return;
    if (status != WEFT_OK) {
        wf_warn("server", "pid %u of user %u refused: %s", client->peer.pid, client->peer.uid,
                wf_last_error());
        wf_answer_failure(client, to, status < 0 ? status : WEFT_E_QUOTA);
        return;
    }
    client->domain = domain;
    domain->clients++;
    WF_CRASH("hello.before_answer");
    bool copied = domain->config->writes == WF_WRITES_COPIED;
    struct wf_hello_answer *answer = (struct wf_hello_answer *)(void *)client->node->answer;
    answer->epoch = client->node->epoch;
    answer->client = client->id;
    answer->flags = (copied ? WF_HELLO_COPIED : 0) |
                    (client->node->pages == WF_PAGES_HUGE ? WF_HELLO_HUGE : 0) |
                    (client->node->pages == WF_PAGES_THP ? WF_HELLO_THP : 0);
    answer->index_bytes = domain->index.bytes;
    answer->pool_bytes = domain->pool.bytes;
    answer->pins_bytes = client->pins_segment.bytes;
    answer->staging_bytes = client->staging.bytes;
    int fds[WF_SOCKET_FDS_MAX] = {domain->index_readonly,
                                  copied ? domain->pool_readonly : domain->pool.fd,
                                  client->pins_segment.fd, client->staging.fd};
    wf_answer(client, to, WEFT_OK, sizeof *answer, fds, copied ? 4 : 3);
}

/* -------------------------------------------------------------------------------------- format */

enum weft_status wf_format_read(const struct wf_format_open *request, struct weft_format_spec *spec)
{
    if (request->model_bytes >= sizeof request->model ||
        request->scaling_bytes >= sizeof request->scaling ||
        request->adapter_bytes > sizeof request->adapter ||
        request->salt_bytes > sizeof request->salt || request->model[request->model_bytes] != 0 ||
        request->scaling[request->scaling_bytes] != 0 ||
        strlen(request->model) != request->model_bytes ||
        strlen(request->scaling) != request->scaling_bytes)
        return wf_fail(WEFT_E_PROTOCOL, "FORMAT_OPEN: a field is longer than its room");
    *spec = (struct weft_format_spec){
        .model = request->model,
        .layers = request->layers,
        .kv_heads = request->kv_heads,
        .head_dim = request->head_dim,
        .dtype = (enum weft_dtype)request->dtype,
        .block_tokens = request->block_tokens,
        .tp_rank = request->tp_rank,
        .tp_size = request->tp_size,
        .rope_theta = request->rope_theta,
        .rope_scaling = request->scaling_bytes ? request->scaling : NULL,
        .adapter = request->adapter_bytes ? request->adapter : NULL,
        .adapter_bytes = request->adapter_bytes,
        .salt = request->salt_bytes ? request->salt : NULL,
        .salt_bytes = request->salt_bytes,
        .block_bytes = request->block_bytes,
        .quality = (enum weft_quality)request->quality,
    };
    enum weft_status status = wf_identity_spec_check(spec);
    if (status == WEFT_OK && wf_identity_block_bytes(spec) > UINT32_MAX)
        status = wf_fail(WEFT_E_INVALID,
                         "block_bytes %llu is above 4 GiB; lower it, or block_tokens",
                         (unsigned long long)wf_identity_block_bytes(spec));
    return status;
}

void wf_format_root(const struct wf_client *client, uint32_t format, const void *salt,
                    size_t salt_bytes, uint8_t root[32])
{
    const struct wf_format_entry *entry = &client->node->formats[format];
    struct weft_format_spec spec;
    enum weft_status status = wf_format_read(entry->request, &spec);
    assert(status == WEFT_OK); /* it was when it was registered */
    wf_identity_root(client->domain->secret, client->domain->secret_bytes, &spec, salt, salt_bytes,
                     root);
}

static enum weft_status format_register(struct wf_client *client,
                                        const struct wf_format_open *request,
                                        struct weft_format_spec *spec, uint32_t *out)
{
    struct wf_node *node = client->node;
    struct wf_domain *domain = client->domain;
    uint8_t root[32];
    enum weft_quality quality = wf_identity_quality(spec, wf_domain_quality(domain->config));
    wf_identity_root(domain->secret, domain->secret_bytes, spec, NULL, 0, root);
    for (uint32_t i = 0; i < node->format_count; i++)
        if (node->formats[i].domain == domain->id && memcmp(node->formats[i].root, root, 32) == 0) {
            *out = i;
            return WEFT_OK;
        }
    if (node->format_count == node->config.formats_max)
        return wf_fail(
            WEFT_E_LIMIT,
            "%u formats are registered, which is all that limits.formats allows; raise it",
            node->format_count);
    struct wf_format_entry *entry = &node->formats[node->format_count];
    entry->domain = domain->id;
    memcpy(entry->root, root, 32);
    wf_identity_format_digest(spec, entry->digest);
    entry->block_bytes = wf_identity_block_bytes(spec);
    entry->layer_bytes = wf_identity_layer_bytes(spec);
    entry->block_tokens = spec->block_tokens;
    entry->layers = spec->layers;
    entry->quality = quality;
    entry->request = wf_calloc(1, sizeof *request, "a format");
    if (!entry->request)
        return WEFT_E_NO_MEMORY;
    memcpy(entry->request, request, sizeof *request);
    entry->request->quality = (uint32_t)spec->quality;
    *out = node->format_count++;
    wf_wire_format(node, entry);
    return WEFT_OK;
}

static void handle_format_open(struct wf_client *client, const struct wf_format_open *request)
{
    struct weft_format_spec spec;
    uint32_t format = 0;
    enum weft_status status = wf_format_read(request, &spec);
    if (status == WEFT_OK)
        status = format_register(client, request, &spec, &format);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    const struct wf_format_entry *entry = &client->node->formats[format];
    struct wf_format_answer *answer = (struct wf_format_answer *)(void *)client->node->answer;
    answer->format = format;
    answer->quality = (uint32_t)entry->quality;
    answer->block_bytes = entry->block_bytes;
    answer->layer_bytes = entry->layer_bytes;
    memcpy(answer->root, entry->root, 32);
    wf_answer(client, &request->message, WEFT_OK, sizeof *answer, NULL, 0);
}

/* --------------------------------------------------------------------- remove, corrupt, lend … */

static void answer_count(struct wf_client *client, const struct wf_message *to,
                         enum weft_status status, uint64_t count)
{
    if (status < 0) {
        wf_answer_failure(client, to, status);
        return;
    }
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)client->node->answer;
    answer->count = count;
    wf_answer(client, to, status, sizeof *answer, NULL, 0);
}

/* A tier that has to forget so much already that nobody begins to let go of more there; NULL: none.
 * What extends a block may be on any of them. */
static const struct wf_lower *crowded(struct wf_below *below)
{
    for (uint32_t i = 0; below && i < below->count; i++)
        if (!wf_lower_may_remove(&below->tiers[i]))
            return &below->tiers[i];
    return NULL;
}

static enum weft_status domain_remove(struct wf_domain *domain, const uint8_t *key,
                                      uint64_t *out_removed, bool *out_later)
{
    struct wf_below *below = domain->node->below;
    struct wf_store *store = &domain->store;
    uint32_t slot = wf_store_find(store, key);
    *out_later = false;
    if (wf_archived(domain, key))
        return wf_fail(WEFT_E_BUSY, "the block belongs to an archive; let that go first "
                                    "(weft session rm)");
    *out_later = true;
    const struct wf_lower *lower = crowded(below);
    if (lower)
        return wf_fail(WEFT_E_BUSY,
                       "tier %s has not forgotten yet what was removed before; ask again "
                       "in a moment",
                       lower->config->name);
    bool waits = below && wf_archives_waiting(below);
    if (waits || wf_archive_takes(domain, key))
        return wf_fail(WEFT_E_BUSY,
                       waits ? "the block may be part of an archive, of which a tier has "
                               "the rest that does not work; mend that tier, or take it "
                               "out of `tiers`"
                             : "the block is being archived; wait for that");
    uint64_t removed = 0;
    enum weft_status status = slot == WF_SLOT_NONE ? WEFT_MISS
                                                   : wf_store_remove(store, slot, false, &removed);
    /* It may be in use only because it is being written below. */
    *out_later = status == WEFT_E_BUSY && store->leaving;
    if (status == WEFT_OK || status == WEFT_MISS) {
        uint64_t far = wf_below_remove(domain, key);
        removed = removed > far ? removed : far; /* most are in both */
        status = removed ? WEFT_OK : WEFT_MISS;
        *out_removed = removed;
    }
    return status;
}

enum weft_status wf_domain_remove_lent(struct wf_domain *domain, const uint8_t *key,
                                       bool everywhere, uint64_t *out_removed, bool *out_later)
{
    struct wf_node *node = domain->node;
    struct wf_removed_far far = {.count = 0};
    if (node->below && node->fabric)
        node->below->removed_far = &far;
    enum weft_status status = domain_remove(domain, key, out_removed, out_later);
    if (node->below)
        node->below->removed_far = NULL;
    for (uint32_t at = 0; at < far.count; at += WF_FABRIC_OFFER_MAX) {
        uint32_t most = far.count - at;
        if (wf_fabric_forget_lent(node->fabric, (uint32_t)(domain - node->domains), &far.keys[at],
                                  most < WF_FABRIC_OFFER_MAX ? most : WF_FABRIC_OFFER_MAX,
                                  everywhere) != WEFT_OK)
            wf_warn("fabric",
                    "what lies in memory that is lent of blocks that were removed stays "
                    "until it is full: %s",
                    wf_last_error());
    }
    free(far.keys);
    return status;
}

static void remove_many(struct wf_client *client, const struct wf_remove *request, uint32_t count)
{
    struct wf_commit_answer *answer = (struct wf_commit_answer *)(void *)client->node->answer;
    uint64_t removed;
    bool later;
    memset(answer, 0, sizeof *answer);
    for (uint32_t i = 0; i < count; i++)
        answer->status[i] = domain_remove(client->domain, i ? request->more[i - 1] : request->key,
                                          &removed, &later);
    answer->count = count;
    wf_answer(client, &request->message, WEFT_OK, sizeof *answer + count * sizeof answer->status[0],
              NULL, 0);
}

static void handle_remove(struct wf_client *client, const struct wf_remove *request)
{
    uint64_t removed = 0, more = (request->message.bytes - sizeof *request) / 32;
    bool later;
    if (more >= WEFT_BATCH_MAX) {
        answer_count(client, &request->message,
                     wf_fail(WEFT_E_INVALID, "a remove of %llu keys; give 1 to %u",
                             (unsigned long long)more + 1, WEFT_BATCH_MAX),
                     0);
        return;
    }
    if (more && request->message.op == WF_OP_REMOVE) {
        remove_many(client, request, (uint32_t)more + 1);
        return;
    }
    bool everywhere = request->message.op == WF_OP_REMOVE_EVERYWHERE;
    enum weft_status status = everywhere
                                  ? wf_domain_remove_lent(client->domain, request->key, true,
                                                          &removed, &later)
                                  : domain_remove(client->domain, request->key, &removed, &later);
    if (status == WEFT_E_BUSY && later && wf_client_park(client, &request->message, REMOVE_WAIT_NS))
        return;
    answer_count(client, &request->message, status, removed);
}

/* A client says that a block's bytes are wrong.  It is believed only after a worker looked. */
static void handle_corrupt(struct wf_client *client, const struct wf_corrupt *request)
{
    bool looking = wf_scrub_soon(client->domain, request->slot, request->generation);
    answer_count(client, &request->message, looking ? WEFT_OK : WEFT_MISS, looking);
}

static void handle_lend(struct wf_client *client, const struct wf_lend *request)
{
    struct wf_node *node = client->node;
    enum weft_status status = WEFT_OK;
    char has[16], most[16], asked[16];
    if (!is_owner(client))
        status = wf_fail(WEFT_E_DENIED, "only the node's own user may lend memory to it");
    else if (request->size < WF_GRANULE)
        status = wf_fail(WEFT_E_INVALID, "%llu bytes are less than can be lent; give %u or more",
                         (unsigned long long)request->size, WF_GRANULE);
    else if (request->size > node->config.pool_bytes_max - node->pool_bytes)
        status = wf_fail(WEFT_E_LIMIT,
                         "the pool has %s and may grow to pool.size_max, %s; %s more are too many",
                         wf_size_format(node->pool_bytes, has, sizeof has),
                         wf_size_format(node->config.pool_bytes_max, most, sizeof most),
                         wf_size_format(request->size, asked, sizeof asked));
    if (status == WEFT_OK) {
        uint64_t bytes = request->size / WF_GRANULE * WF_GRANULE;
        node->pool_bytes += bytes;
        wf_shares_settle(node);
        node->budget_free += bytes;
        wf_telemetry_event(node, NULL, "lend", "the host lent %s",
                           wf_size_format(bytes, asked, sizeof asked));
    }
    answer_count(client, &request->message, status, node->pool_bytes);
}

static void handle_reclaim(struct wf_client *client, const struct wf_lend *request)
{
    struct wf_node *node = client->node;
    enum weft_status status = WEFT_OK;
    char has[16], asked[16];
    if (!is_owner(client))
        status = wf_fail(WEFT_E_DENIED, "only the node's own user may take memory back from it");
    else if (node->pages == WF_PAGES_HUGE)
        status = wf_fail(WEFT_E_INVALID,
                         "the pool is in reserved huge pages, which the host cannot use otherwise; "
                         "set pool.huge to off to lend and reclaim");
    else if (node->reclaim.client)
        status = wf_fail(WEFT_E_BUSY, "another reclaim is under way; try again when it is done");
    else if (request->size > node->pool_bytes)
        status = wf_fail(WEFT_E_INVALID, "the pool has %s; %s cannot be taken from it",
                         wf_size_format(node->pool_bytes, has, sizeof has),
                         wf_size_format(request->size, asked, sizeof asked));
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    node->reclaim = (struct wf_reclaim){
        .client = client->id,
        .sequence = request->message.sequence,
        .wanted = request->size / WF_GRANULE * WF_GRANULE,
        .started_ns = wf_now_ns(),
        .deadline_ns = wf_now_ns() + (uint64_t)request->within_ms * 1000000u,
    };
}

/* ------------------------------------------------------------------------------------ dispatch */

/* The fixed part that a message of each op must at least have. */
static const uint16_t sizes[WF_OP_COUNT] = {
    [WF_OP_HELLO] = sizeof(struct wf_hello),
    [WF_OP_FORMAT_OPEN] = sizeof(struct wf_format_open),
    [WF_OP_SESSION_OPEN] = sizeof(struct wf_session_open),
    [WF_OP_SESSION_CLOSE] = sizeof(struct wf_session_close),
    [WF_OP_SESSION_HINT] = sizeof(struct wf_session_hint),
    [WF_OP_RESERVE] = sizeof(struct wf_reserve),
    [WF_OP_COMMIT] = sizeof(struct wf_commit),
    [WF_OP_ABORT] = sizeof(struct wf_commit),
    [WF_OP_REMOVE] = sizeof(struct wf_remove),
    [WF_OP_REGION_CREATE] = sizeof(struct wf_region_create),
    [WF_OP_REGION_OPEN] = sizeof(struct wf_region_open),
    [WF_OP_REGION_RELEASE] = sizeof(struct wf_region_release),
    [WF_OP_LEND] = sizeof(struct wf_lend),
    [WF_OP_RECLAIM] = sizeof(struct wf_lend),
    [WF_OP_QUERY] = sizeof(struct wf_query),
    [WF_OP_CORRUPT] = sizeof(struct wf_corrupt),
    [WF_OP_LOAD] = sizeof(struct wf_load),
    [WF_OP_DEMOTE] = sizeof(struct wf_demote),
    [WF_OP_ARCHIVE] = sizeof(struct wf_archive),
    [WF_OP_FENCE] = sizeof(struct wf_fence),
    [WF_OP_DESCRIBE] = sizeof(struct wf_describe),
    [WF_OP_FABRIC] = sizeof(struct wf_fabric_say_message),
    [WF_OP_ROUTE] = sizeof(struct wf_routing),
    [WF_OP_PUSH] = sizeof(struct wf_push_message),
    [WF_OP_REMOVE_EVERYWHERE] = sizeof(struct wf_remove),
};

static void handle(struct wf_client *client, const struct wf_message *m)
{
    const void *request = m;
    switch ((enum wf_op)m->op) {
    case WF_OP_HELLO: handle_hello(client, request); break;
    case WF_OP_FORMAT_OPEN: handle_format_open(client, request); break;
    case WF_OP_SESSION_OPEN: wf_handle_session_open(client, request); break;
    case WF_OP_SESSION_CLOSE: wf_handle_session_close(client, request); break;
    case WF_OP_SESSION_HINT: wf_handle_session_hint(client, request); break;
    case WF_OP_RESERVE: wf_handle_reserve(client, request); break;
    case WF_OP_COMMIT: wf_handle_commit(client, request); break;
    case WF_OP_ABORT: wf_handle_abort(client, request); break;
    case WF_OP_REMOVE:
    case WF_OP_REMOVE_EVERYWHERE: handle_remove(client, request); break;
    case WF_OP_REGION_CREATE: wf_handle_region_create(client, request); break;
    case WF_OP_REGION_OPEN: wf_handle_region_open(client, request); break;
    case WF_OP_REGION_RELEASE: wf_handle_region_release(client, request); break;
    case WF_OP_LEND: handle_lend(client, request); break;
    case WF_OP_RECLAIM: handle_reclaim(client, request); break;
    case WF_OP_QUERY: wf_handle_query(client, request); break;
    case WF_OP_CORRUPT: handle_corrupt(client, request); break;
    case WF_OP_LOAD: wf_handle_load(client, request); break;
    case WF_OP_DEMOTE: wf_handle_demote(client, request); break;
    case WF_OP_ARCHIVE: wf_handle_archive(client, request); break;
    case WF_OP_FENCE: wf_handle_fence(client, request); break;
    case WF_OP_DESCRIBE: wf_handle_describe(client, request); break;
    case WF_OP_FABRIC: wf_handle_fabric(client, request); break;
    case WF_OP_ROUTE: wf_handle_route(client, request); break;
    case WF_OP_PUSH: wf_handle_push(client, request); break;
    case WF_OP_COUNT: break;
    }
}

void wf_request(struct wf_client *client, const struct wf_message *message)
{
    struct wf_node *node = client->node;
    enum weft_status status = WEFT_OK;
    uint64_t started_ns = wf_now_ns();
    if (message->op == 0 || message->op >= WF_OP_COUNT)
        status = wf_fail(WEFT_E_PROTOCOL, "there is no op %u", message->op);
    else if (message->bytes < sizes[message->op])
        status = wf_fail(WEFT_E_PROTOCOL, "op %u in %u bytes: it has at least %u", message->op,
                         message->bytes, sizes[message->op]);
    else if (!client->domain && message->op != WF_OP_HELLO)
        status = wf_fail(WEFT_E_PROTOCOL, "op %u before HELLO", message->op);
    if (status != WEFT_OK) {
        wf_telemetry_op(node, client->domain, 0, status, 0);
        wf_answer_failure(client, message, status);
        wf_client_close(client, wf_last_error());
        return;
    }
    uint16_t op = message->op;
    struct wf_message *answer = (struct wf_message *)(void *)node->answer;
    wf_telemetry_serve(node, client->domain);
    handle(client, message);
    /* Who answers later counts then: copy_done(), wf_node_reclaim_step(). */
    bool later = client->paused || node->reclaim.client == client->id;
    if (later)
        wf_telemetry_serve(node, NULL);
    else
        wf_telemetry_op(node, client->domain, op, answer->status, wf_now_ns() - started_ns);
}
