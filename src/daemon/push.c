/* SPDX-License-Identifier: Apache-2.0
 *
 * What clients of this node push to another node while they write it.
 *
 * A client names blocks that it has reserved, and says how many layers of them are written; when it
 * has committed or aborted all of them, that is their push's end.  Blocks of the chain before them
 * that the other node is not known to have go along, complete, in pushes of their own.  What did
 * not come through is handed over like any chain (fabric_say.c) once it is committed.
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/fabric.h"
#include "daemon/push.h"
#include "sys/memory.h"

#define ANCESTORS_MAX (4 * WF_FABRIC_PUSH_BLOCKS_MAX)

struct outgoing {
    struct wf_push_event event; /* first */
    struct wf_fabric_push push;
    struct wf_node *node;
    struct wf_domain *domain;
    uint32_t client; /* 0: nobody's: ancestors, or its client is gone */
    uint32_t generation;
    bool used, ended; /* ended: the fabric is done with it */
    bool lossy;       /* some of its blocks lost something, by push.profile */
    enum weft_status status;
    uint32_t open; /* blocks that are neither committed nor aborted */
    uint32_t hint; /* where the next that is settled is looked for first */
    uint32_t slots[WF_FABRIC_PUSH_BLOCKS_MAX];
    uint64_t settled[WF_FABRIC_PUSH_WORDS];
    uint32_t slot_generations[WF_FABRIC_PUSH_BLOCKS_MAX];
};

struct wf_node_pushes {
    struct outgoing all[WF_FABRIC_PUSHES_MAX];
    struct wf_pushed_rooms *rooms;
    int event;
    pthread_mutex_t lock; /* of the queue */
    struct wf_push_event *first, **end;
};

/* --------------------------------------------------------------------------------------- queue */

enum weft_status wf_node_pushes_create(struct wf_node *node)
{
    struct wf_node_pushes *pushes = wf_calloc(1, sizeof *pushes, "blocks that go to one node");
    if (!pushes)
        return WEFT_E_NO_MEMORY;
    node->pushes = pushes;
    pthread_mutex_init(&pushes->lock, NULL);
    pushes->end = &pushes->first;
    pushes->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pushes->event < 0)
        return wf_fail(WEFT_E_SYSTEM, "no descriptor for the fabric: %s", strerror(errno));
    return wf_pushed_rooms_create(&pushes->rooms);
}

void wf_node_pushes_destroy(struct wf_node *node)
{
    struct wf_node_pushes *pushes = node->pushes;
    if (!pushes)
        return;
    if (pushes->event >= 0)
        close(pushes->event);
    pthread_mutex_destroy(&pushes->lock);
    wf_pushed_rooms_destroy(pushes->rooms);
    free(pushes);
    node->pushes = NULL;
}

struct wf_pushed_rooms *wf_pushed_rooms_of(struct wf_node *node)
{
    return node->pushes->rooms;
}

int wf_node_pushes_fd(const struct wf_node *node)
{
    return node->pushes ? node->pushes->event : -1;
}

void wf_node_pushes_leave(struct wf_node *node, struct wf_push_event *event)
{
    struct wf_node_pushes *pushes = node->pushes;
    event->next = NULL;
    pthread_mutex_lock(&pushes->lock);
    *pushes->end = event;
    pushes->end = &event->next;
    pthread_mutex_unlock(&pushes->lock);
    (void)!eventfd_write(pushes->event, 1);
}

void wf_node_pushes_ring(struct wf_node *node)
{
    (void)!eventfd_write(node->pushes->event, 1);
}

static struct wf_push_event *queue_take(struct wf_node_pushes *pushes)
{
    pthread_mutex_lock(&pushes->lock);
    struct wf_push_event *event = pushes->first;
    pushes->first = NULL;
    pushes->end = &pushes->first;
    pthread_mutex_unlock(&pushes->lock);
    return event;
}

void wf_node_pushes_run(struct wf_node *node)
{
    eventfd_t ignored;
    (void)!eventfd_read(node->pushes->event, &ignored);
    struct wf_push_event *event = queue_take(node->pushes);
    while (event) {
        struct wf_push_event *next = event->next;
        event->run(node, event);
        event = next;
    }
    wf_node_fabric_wanted(node);
}

/* --------------------------------------------------------------------------------------- begin */

static struct outgoing *outgoing_take(struct wf_client *client, const char *name)
{
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++) {
        struct outgoing *o = &client->node->pushes->all[i];
        if (o->used)
            continue;
        uint32_t generation = o->generation + 1;
        memset(o, 0, offsetof(struct outgoing, slots));
        memset(o->settled, 0, sizeof o->settled);
        o->node = client->node;
        o->domain = client->domain;
        o->generation = generation;
        memcpy(o->push.to, name, strnlen(name, WF_MEMBER_NAME_MAX));
        return o;
    }
    return NULL;
}

/* What a slot has or will have.  False: it was stored by another profile than those before it. */
static bool block_add(struct outgoing *o, uint32_t slot)
{
    const struct wf_index *index = &o->domain->store.index;
    const struct wf_desc *desc = &index->desc[slot];
    uint64_t word = atomic_load_explicit(&desc->word, memory_order_relaxed);
    uint32_t parent = atomic_load_explicit(&desc->parent, memory_order_relaxed);
    struct wf_fabric_event *event = &o->push.blocks[o->push.count];
    enum weft_quality quality = wf_word_quality(word);
    bool lossy = quality > WEFT_LOSSLESS;
    uint64_t profile = lossy ? o->domain->profile_of[slot] : 0;
    if (lossy && o->lossy && profile != o->push.profile)
        return false;
    o->lossy |= lossy;
    o->push.profile = lossy ? profile : o->push.profile;
    *event = (struct wf_fabric_event){
        .kind = WF_FABRIC_HERE,
        .quality = lossy ? (uint8_t)quality : 0,
        .domain = (uint8_t)o->domain->id,
        .depth = wf_word_depth(word),
        .bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed),
    };
    wf_desc_key_read(desc, event->key);
    if (parent != WF_SLOT_NONE)
        wf_desc_key_read(&index->desc[parent], event->parent);
    o->slots[o->push.count] = slot;
    o->slot_generations[o->push.count] = wf_word_generation(word);
    o->push.data[o->push.count] = (const uint8_t *)o->domain->pool.memory +
                                  atomic_load_explicit(&desc->offset, memory_order_relaxed);
    o->push.count++;
    return true;
}

static void slots_let_go(struct outgoing *o)
{
    struct wf_store *store = &o->domain->store;
    for (uint32_t i = 0; i < o->push.count; i++)
        wf_store_unhold(store, o->slots[i]);
    wf_store_bury(store);
}

/* The last of its blocks that was committed is the end of a chain that the other node is to have.
 */
static void conclude(struct outgoing *o)
{
    uint32_t last = o->push.count;
    while (last > 0 && !wf_bit(o->push.keep, last - 1))
        last--;
    o->used = false;
    if (o->status == WEFT_OK || last == 0 || !o->node->fabric)
        return;
    if (wf_node_hand_over(o->domain, o->push.to, o->push.blocks[last - 1].key) != WEFT_OK)
        wf_debug("push", "what could not be pushed to %s is not handed over: %s", o->push.to,
                 wf_last_error());
}

/* On the owner: nothing reads it any more. */
static void ended(struct wf_node *node, struct wf_push_event *event)
{
    struct outgoing *o = (struct outgoing *)event;
    slots_let_go(o);
    o->ended = true;
    if (o->status != WEFT_OK)
        wf_debug("push", "%u blocks did not come to %s by a push: %s", o->push.count, o->push.to,
                 weft_status_name(o->status));
    if (o->open == 0)
        conclude(o);
    wf_clients_unpark(node);
}

/* On the fabric's thread. */
static void done(struct wf_fabric_push *push, enum weft_status status)
{
    struct outgoing *o = push->user;
    o->status = status;
    wf_node_pushes_leave(o->node, &o->event);
}

static enum weft_status send_off(struct outgoing *o)
{
    struct wf_store *store = &o->domain->store;
    o->event.run = ended;
    o->push.done = done;
    o->push.user = o;
    enum weft_status status = wf_fabric_push(o->node->fabric, &o->push);
    if (status != WEFT_OK)
        return status;
    o->used = true;
    for (uint32_t i = 0; i < o->push.count; i++)
        wf_store_hold(store, o->slots[i]);
    return WEFT_OK;
}

/* Blocks before `slot` that the other node is not known to have, and that it could not do without:
 * whole ones.  What is not sent here is fetched there. */
static void ancestors_push(struct wf_client *client, const char *name, uint32_t slot)
{
    static uint32_t found[ANCESTORS_MAX]; /* the last of the chain first */
    const struct wf_store *store = &client->domain->store;
    uint32_t count = 0;
    struct wf_fabric_event event;
    for (;;) {
        slot = atomic_load_explicit(&store->index.desc[slot].parent, memory_order_relaxed);
        if (slot == WF_SLOT_NONE || !wf_node_fabric_event(client->domain, slot, &event) ||
            wf_fabric_has(client->node->fabric, name, event.key))
            break;
        if (count == ANCESTORS_MAX)
            return;
        found[count++] = slot;
    }
    while (count > 0) {
        struct outgoing *o = outgoing_take(client, name);
        uint64_t bytes = 0;
        if (!o)
            return;
        o->push.layers = 1;
        for (; count > 0 && o->push.count < WF_FABRIC_PUSH_BLOCKS_MAX; count--) {
            const struct wf_desc *desc = &store->index.desc[found[count - 1]];
            uint64_t its = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
            if ((bytes && its != bytes) || !block_add(o, found[count - 1]))
                break;
            bytes = its;
            wf_bit_set(o->push.keep, o->push.count - 1);
        }
        if (o->push.count == 0 || send_off(o) != WEFT_OK)
            return;
        wf_fabric_push_end(client->node->fabric, &o->push, true);
    }
}

/* Is that what may be pushed, and how many of it? */
static enum weft_status begin_check(struct wf_client *client, const struct wf_push_message *request)
{
    const struct wf_store *store = &client->domain->store;
    uint32_t count = request->count;
    if (!client->node->fabric)
        return wf_fail(WEFT_E_INVALID,
                       "this node is alone; weftd --join says to which cluster it belongs");
    if (memchr(request->name, 0, sizeof request->name) == NULL)
        return wf_fail(WEFT_E_PROTOCOL, "a node's name does not end");
    if (client->domain->config->writes == WF_WRITES_COPIED)
        return wf_fail(WEFT_E_INVALID,
                       "in a domain of `writes: copied` a layer is in the pool when its block is "
                       "committed, not before; hand the chain over then");
    if (count == 0 || count > WF_FABRIC_PUSH_BLOCKS_MAX ||
        request->message.bytes != sizeof *request + count * sizeof request->slots[0])
        return wf_fail(WEFT_E_INVALID, "a push of %u blocks; 1 to %u", count,
                       WF_FABRIC_PUSH_BLOCKS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = request->slots[i].slot;
        if (!wf_store_is_reserved(store, client->id, slot, request->slots[i].generation))
            return wf_fail(WEFT_E_INVALID, "slot %u is not reserved by this client", slot);
        for (uint32_t before = 0; before < i; before++)
            if (request->slots[before].slot == slot)
                return wf_fail(WEFT_E_INVALID, "slot %u is named twice", slot);
    }
    return WEFT_OK;
}

static enum weft_status begin(struct wf_client *client, const struct wf_push_message *request,
                              uint64_t *out_handle)
{
    enum weft_status status = begin_check(client, request);
    if (status != WEFT_OK)
        return status;
    ancestors_push(client, request->name, request->slots[0].slot);
    struct outgoing *o = outgoing_take(client, request->name);
    if (!o)
        return wf_fail(WEFT_E_BUSY,
                       "%u pushes are on their way to other nodes; try again, or hand "
                       "the chain over when it is committed",
                       WF_FABRIC_PUSHES_MAX);
    o->push.layers = request->layers;
    for (uint32_t i = 0; i < request->count; i++)
        if (!block_add(o, request->slots[i].slot) ||
            o->push.blocks[i].bytes != o->push.blocks[0].bytes)
            return wf_fail(WEFT_E_INVALID,
                           "blocks of one push are of one size, and those that lost something of "
                           "one profile");
    status = send_off(o);
    if (status != WEFT_OK)
        return status;
    o->client = client->id;
    o->open = o->push.count;
    client->pushes++;
    *out_handle = (uint64_t)o->generation << 32 | (uint32_t)(o - client->node->pushes->all);
    return WEFT_OK;
}

/* ---------------------------------------------------------------------------------------- goes */

static enum weft_status written(struct wf_client *client, const struct wf_push_message *request)
{
    uint32_t number = (uint32_t)request->push;
    struct outgoing *o = number < WF_FABRIC_PUSHES_MAX && client->node->pushes
                             ? &client->node->pushes->all[number]
                             : NULL;
    if (!o || o->client != client->id || o->generation != request->push >> 32)
        return wf_fail(WEFT_E_NOT_FOUND, "there is no such push; its blocks have been committed, "
                                         "or aborted");
    if (request->layers == 0 || request->layers > o->push.layers)
        return wf_fail(WEFT_E_INVALID, "%u layers are written of %u", request->layers,
                       o->push.layers);
    if (o->ended || !client->node->fabric)
        return WEFT_MISS;
    wf_fabric_push_written(client->node->fabric, &o->push, request->layers);
    return WEFT_OK;
}

void wf_handle_push(struct wf_client *client, const struct wf_push_message *request)
{
    uint64_t handle = request->push;
    enum weft_status status = WEFT_OK;
    if (request->what == WF_PUSH_BEGIN)
        status = begin(client, request, &handle);
    else if (request->what == WF_PUSH_WRITTEN)
        status = written(client, request);
    else
        status = wf_fail(WEFT_E_INVALID, "%u is nothing that a push does", request->what);
    if (status < 0) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)client->node->answer;
    answer->count = handle;
    wf_answer(client, &request->message, status, sizeof *answer, NULL, 0);
}

/* No block of it is open any more. */
static void close_it(struct outgoing *o)
{
    bool some = false;
    for (uint32_t i = 0; i < WF_FABRIC_PUSH_WORDS; i++)
        some |= o->push.keep[i] != 0;
    if (o->client)
        o->node->clients[o->client - 1].pushes--;
    o->client = 0;
    if (o->ended)
        conclude(o);
    else if (o->node->fabric)
        wf_fabric_push_end(o->node->fabric, &o->push, some);
}

void wf_push_settled(struct wf_client *client, uint32_t slot, uint32_t generation, bool committed)
{
    for (uint32_t p = 0; client->pushes > 0 && p < WF_FABRIC_PUSHES_MAX; p++) {
        struct outgoing *o = &client->node->pushes->all[p];
        if (!o->used || o->client != client->id)
            continue;
        for (uint32_t n = 0; n < o->push.count; n++) {
            uint32_t i = (o->hint + n) % o->push.count;
            if (o->slots[i] != slot || o->slot_generations[i] != generation ||
                wf_bit(o->settled, i))
                continue;
            wf_bit_set(o->settled, i);
            if (committed)
                wf_bit_set(o->push.keep, i);
            o->hint = i + 1;
            if (--o->open == 0)
                close_it(o);
            break;
        }
    }
}

void wf_push_client_gone(struct wf_client *client)
{
    for (uint32_t p = 0; client->pushes > 0 && p < WF_FABRIC_PUSHES_MAX; p++) {
        struct outgoing *o = &client->node->pushes->all[p];
        if (!o->used || o->client != client->id)
            continue;
        o->open = 0;
        close_it(o);
    }
}

void wf_node_pushes_end(struct wf_node *node)
{
    if (!node->pushes)
        return;
    (void)queue_take(node->pushes);
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++) {
        struct outgoing *o = &node->pushes->all[i];
        if (o->used && !o->ended)
            slots_let_go(o);
        if (o->used && o->client)
            node->clients[o->client - 1].pushes--;
        o->used = false;
    }
    wf_pushed_rooms_end(node);
}
