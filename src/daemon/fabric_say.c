/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of the fabric to a node: by operators, by clients that hand a chain over or want one
 * removed everywhere, and by the other node that does.
 *
 * A chain that is handed over to this node is wanted before the directory knows of all of its
 * blocks, since what is told of them comes through the tier `peers`: it is kept for a moment, until
 * its end is known, and then brought up like any that is prefetched.  It is looked at when it is
 * offered, and when that tier has news; the tick only lets go of what never came.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "daemon/below.h"
#include "daemon/fabric.h"
#include "daemon/push.h"
#include "daemon/telemetry.h"
#include "fabric/fabric.h"
#include "sys/clock.h"

#define WANTED_MAX 256u
#define UNWANTED_MAX 2048u
#define UNWANTED_NS 5000000000u /* so long a block may be in use that is to be removed */
#define WANTED_NS 2000000000u   /* until a chain that was handed over is known here, or is not */

struct wanted {
    uint8_t tip[32];
    uint32_t domain;
    uint64_t since_ns;
    char from[WF_MEMBER_NAME_MAX + 1];
};

struct wf_wanted_chains {
    _Atomic bool some; /* there are chains, or were a moment ago */
    pthread_mutex_t lock;
    struct wanted chains[WANTED_MAX], unwanted[UNWANTED_MAX];
    uint32_t count, unwanted_count;
};

struct wf_wanted_chains *wf_wanted_create(void)
{
    struct wf_wanted_chains *wanted = wf_calloc(1, sizeof *wanted, "chains that are handed over");
    if (wanted)
        pthread_mutex_init(&wanted->lock, NULL);
    return wanted;
}

void wf_wanted_destroy(struct wf_wanted_chains *wanted)
{
    if (wanted)
        pthread_mutex_destroy(&wanted->lock);
    free(wanted);
}

/* Nobody has more of them than are left for others.  False: it has, or there is no room. */
static bool wanted_add(struct wanted *all, uint32_t *count, uint32_t max, const char *from,
                       uint32_t domain, const uint8_t key[32])
{
    uint32_t its = 0;
    for (uint32_t i = 0; i < *count; i++)
        its += strcmp(all[i].from, from) == 0;
    if (its >= max - *count)
        return false;
    struct wanted *one = &all[(*count)++];
    *one = (struct wanted){.domain = domain, .since_ns = wf_now_ns()};
    memcpy(one->tip, key, 32);
    memcpy(one->from, from, strnlen(from, WF_MEMBER_NAME_MAX));
    return true;
}

bool wf_wanted_add(struct wf_wanted_chains *w, const char *from, uint32_t domain,
                   const uint8_t tip[32])
{
    pthread_mutex_lock(&w->lock);
    bool room = wanted_add(w->chains, &w->count, WANTED_MAX, from, domain, tip);
    if (room)
        atomic_store_explicit(&w->some, true, memory_order_relaxed);
    pthread_mutex_unlock(&w->lock);
    return room;
}

bool wf_unwanted_add(struct wf_wanted_chains *w, const char *from, uint32_t domain,
                     const uint8_t key[32])
{
    bool known = false;
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->unwanted_count && !known; i++)
        known = w->unwanted[i].domain == domain && memcmp(w->unwanted[i].tip, key, 32) == 0;
    known = known || wanted_add(w->unwanted, &w->unwanted_count, UNWANTED_MAX, from, domain, key);
    pthread_mutex_unlock(&w->lock);
    return known;
}

/* On the fabric's thread.  What is not kept is fetched when somebody asks for it. */
void wf_node_fabric_offered(void *cluster, const char *from, uint32_t domain, const uint8_t tip[32])
{
    if (wf_wanted_add(wf_wanted_of(cluster), from, domain, tip))
        wf_node_pushes_ring(wf_node_of(cluster));
}

/* On the fabric's thread.  Of what finds no room whoever asked sees that it is there, and asks
 * again. */
void wf_node_fabric_forget(void *cluster, const char *from, uint32_t domain, const uint8_t key[32])
{
    (void)wf_unwanted_add(wf_wanted_of(cluster), from, domain, key);
}

/* True: there is nothing more to do for it. */
static bool forget(struct wf_node *node, const struct wanted *block, uint64_t now_ns)
{
    struct wf_domain *domain = &node->domains[block->domain];
    uint64_t removed = 0;
    bool later;
    enum weft_status status = wf_domain_remove_lent(domain, block->tip, false, &removed, &later);
    if (status == WEFT_E_BUSY && later && now_ns - block->since_ns < UNWANTED_NS)
        return false;
    if (status == WEFT_OK)
        wf_telemetry_event(node, domain, "remove", "%s had %llu blocks removed everywhere",
                           block->from, (unsigned long long)removed);
    else if (status != WEFT_MISS)
        wf_telemetry_event(node, domain, "remove", "%s wanted a block removed, and it stays: %s",
                           block->from, wf_last_error());
    return true;
}

/* True: there is nothing more to do for it. */
static bool fetch(struct wf_node *node, const struct wanted *chain, uint64_t now_ns)
{
    struct wf_domain *domain = &node->domains[chain->domain];
    struct wf_fetched fetched;
    if (wf_store_find(&domain->store, chain->tip) != WF_SLOT_NONE)
        return true;
    if (wf_below_find(domain, chain->tip) == WF_DIRECTORY_NONE)
        return now_ns - chain->since_ns > WANTED_NS;
    wf_prefetch_chain(domain, chain->tip, 0, "handed over", &fetched);
    char rest[64] = "";
    if (fetched.begun < fetched.blocks)
        snprintf(rest, sizeof rest,
                 fetched.status == WEFT_FULL ? ", %u have no room in DRAM"
                                             : ", %u could not be had",
                 fetched.blocks - fetched.begun);
    wf_telemetry_event(node, domain, "handed_over",
                       "%s handed over a chain: %u blocks of it are on their way%s", chain->from,
                       fetched.begun, rest);
    return true;
}

void wf_node_fabric_wanted(struct wf_node *node)
{
    struct wf_wanted_chains *w = node->fabric ? wf_wanted_of(node->cluster) : NULL;
    if (!w || !atomic_load_explicit(&w->some, memory_order_relaxed))
        return;
    uint64_t now_ns = wf_now_ns();
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->count;) {
        if (fetch(node, &w->chains[i], now_ns))
            w->chains[i] = w->chains[--w->count];
        else
            i++;
    }
    atomic_store_explicit(&w->some, w->count > 0, memory_order_relaxed);
    pthread_mutex_unlock(&w->lock);
}

void wf_node_fabric_tick(struct wf_node *node)
{
    if (!node->fabric)
        return;
    wf_node_fabric_sum(node);
    wf_pushed_rooms_tick(node);
    wf_wire_tick(node);
    wf_node_fabric_wanted(node);
    struct wf_wanted_chains *w = wf_wanted_of(node->cluster);
    uint64_t now_ns = wf_now_ns();
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->unwanted_count;) {
        if (forget(node, &w->unwanted[i], now_ns))
            w->unwanted[i] = w->unwanted[--w->unwanted_count];
        else
            i++;
    }
    pthread_mutex_unlock(&w->lock);
}

/* ------------------------------------------------------------------------------- looked for */

static bool is_known(const struct wf_domain *domain, const uint8_t key[32])
{
    return wf_store_find(&domain->store, key) != WF_SLOT_NONE ||
           wf_below_find(domain, key) != WF_DIRECTORY_NONE;
}

/* In its chain, of a block that is here or below. */
static uint32_t depth_of(const struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_directory_block block;
    uint32_t slot = wf_store_find(&domain->store, key);
    if (slot != WF_SLOT_NONE)
        return wf_word_depth(
            atomic_load_explicit(&domain->store.index.desc[slot].word, memory_order_relaxed));
    wf_directory_read(domain->node->below->directory, wf_below_find(domain, key), &block);
    return block.depth;
}

/* The request's keys from `first` on, as others would be told of them; 0: how deep they are is not
 * known here, or how large, or nobody is to be asked. */
static uint32_t sought(const struct wf_client *client, const struct wf_load *request,
                       uint32_t first, struct wf_fabric_event events[WEFT_BATCH_MAX])
{
    const struct wf_node *node = client->node;
    const struct wf_domain *domain = client->domain;
    uint32_t depth = 0, count = 0;
    if (!node->fabric || !wf_fabric_in_parts(node->fabric) || request->format >= node->format_count)
        return 0;
    if (first > 0 && is_known(domain, request->keys[first - 1]))
        depth = depth_of(domain, request->keys[first - 1]) + 1;
    else if (first > 0 || !(request->flags & WF_LOAD_ROOT))
        return 0;
    memset(events, 0, (request->count - first) * sizeof *events);
    for (uint32_t i = first; i < request->count; i++, count++) {
        events[count].kind = WF_FABRIC_HERE;
        events[count].domain = (uint8_t)domain->id;
        events[count].depth = depth + count;
        events[count].bytes = node->formats[request->format].block_bytes;
        memcpy(events[count].key, request->keys[i], 32);
        if (i > 0)
            memcpy(events[count].parent, request->keys[i - 1], 32);
    }
    return count;
}

void wf_node_fabric_look(const struct wf_client *client, const struct wf_load *request,
                         uint32_t first)
{
    struct wf_fabric_event events[WEFT_BATCH_MAX];
    uint32_t count = sought(client, request, first, events);
    if (count && wf_fabric_look(client->node->fabric, events, count) != WEFT_OK)
        wf_debug("fabric", "nobody is asked who has a chain: %s", wf_last_error());
}

void wf_node_fabric_find(const struct wf_client *client, const struct wf_load *request,
                         struct wf_load_answer *answer)
{
    struct wf_fabric_event events[WEFT_BATCH_MAX];
    uint32_t first = 0;
    while (first < request->count && is_known(client->domain, request->keys[first]))
        answer->blocks[first++].status = WEFT_OK;
    uint32_t count = first < request->count ? sought(client, request, first, events) : 0;
    enum weft_status status = count ? wf_fabric_find(client->node->fabric, events, count)
                                    : WEFT_MISS;
    if (status < 0)
        wf_debug("fabric", "nobody is asked who has a chain: %s", wf_last_error());
    for (uint32_t i = first; i < request->count; i++)
        answer->blocks[i].status = status == WEFT_PENDING ? WEFT_PENDING : WEFT_MISS;
}

/* --------------------------------------------------------------------------------------- said */

/* The block as the other node is to know it: in DRAM, or on a tier of this node's own.  False: it
 * is on neither. */
static bool block_tell(struct wf_domain *domain, const uint8_t key[32], struct wf_fabric_event *out)
{
    uint32_t slot = wf_store_find(&domain->store, key);
    if (slot != WF_SLOT_NONE && wf_node_fabric_event(domain, slot, out))
        return true;
    return wf_served_event(wf_served_of(domain->node->cluster), domain, key, out);
}

enum weft_status wf_node_hand_over(struct wf_domain *domain, const char *name,
                                   const uint8_t tip[32])
{
    static struct wf_fabric_event events[WF_FABRIC_OFFER_MAX];
    static const uint8_t none[32];
    const uint8_t *key = tip;
    uint32_t first = WF_FABRIC_OFFER_MAX;
    while (memcmp(key, none, 32) != 0) {
        if (first == 0)
            return wf_fail(WEFT_E_LIMIT, "the chain has more than %u blocks", WF_FABRIC_OFFER_MAX);
        if (!block_tell(domain, key, &events[first - 1]))
            return wf_fail(
                WEFT_E_NOT_FOUND,
                "%s is neither in this node's DRAM nor on a tier of its own; prefetch the "
                "chain, or hand over what is here",
                key == tip ? "the chain's end" : "a block of the chain");
        key = events[--first].parent;
    }
    return wf_fabric_offer(domain->node->fabric, name, &events[first], WF_FABRIC_OFFER_MAX - first);
}

/* Would a client of this node find it on another?  News take their way to what clients see. */
static bool is_found_elsewhere(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_below *below = domain->node->below;
    uint32_t entry = below ? wf_below_find(domain, key) : WF_DIRECTORY_NONE;
    struct wf_directory_block block;
    if (entry == WF_DIRECTORY_NONE)
        return false;
    wf_directory_read(below->directory, entry, &block);
    return block.tiers & wf_below_peers(below);
}

/* What was told of it is forgotten when it goes there. */
static enum weft_status forget_elsewhere(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_node *node = domain->node;
    if (!node->fabric)
        return WEFT_OK;
    enum weft_status status = wf_fabric_forget(node->fabric, (uint32_t)(domain - node->domains),
                                               key);
    if (status == WEFT_OK &&
        (wf_fabric_elsewhere(node->fabric, key) || is_found_elsewhere(domain, key)))
        status = wf_fail(WEFT_E_BUSY, "another node has the block still: it is in use or archived "
                                      "there, or has not been removed yet");
    return status;
}

static void limit_tell(struct wf_node *node, const struct wf_fabric_say_message *request)
{
    bool link = request->limit == WEFT_LIMIT_LINK;
    const char *name = link && !request->name[0] ? "each node without a bound of its own"
                                                 : request->name;
    char sentence[192], size[16];
    if (request->limit == WEFT_LIMIT_SHARE)
        snprintf(sentence, sizeof sentence, "the share of %.63s is %llu from now on", name,
                 (unsigned long long)request->bytes);
    else if (request->bytes == WEFT_LIMIT_AS_ALL)
        snprintf(sentence, sizeof sentence, "%.63s has no bound of its own any more", name);
    else if (request->bytes)
        snprintf(sentence, sizeof sentence, "%s a second at most %s %.63s from now on",
                 wf_size_format(request->bytes, size, sizeof size),
                 link ? "is sent to" : "is sent of", name);
    else
        snprintf(sentence, sizeof sentence, "what is sent %s %.63s has no bound from now on",
                 link ? "to" : "of", name);
    wf_info("fabric", "%s", sentence);
    wf_telemetry_event(node, NULL, "fabric", "%s", sentence);
}

static enum weft_status limit(struct wf_node *node, const struct wf_fabric_say_message *request)
{
    uint32_t domain = 0;
    bool of_node = request->limit == WEFT_LIMIT_LINK && request->name[0];
    if (request->bytes == WEFT_LIMIT_AS_ALL && request->limit != WEFT_LIMIT_SHARE && !of_node)
        return wf_fail(WEFT_E_INVALID, "only a node has the bound of all; give 0 for no bound");
    if (request->limit == WEFT_LIMIT_LINK)
        return wf_fabric_limit(node->fabric, WF_FABRIC_LIMIT_LINK, request->name, 0,
                               request->bytes);
    if (request->limit != WEFT_LIMIT_DOMAIN && request->limit != WEFT_LIMIT_SHARE)
        return wf_fail(WEFT_E_INVALID, "%u is nothing of which there could be less",
                       request->limit);
    while (domain < node->domain_count &&
           strcmp(node->domains[domain].config->name, request->name) != 0)
        domain++;
    if (domain == node->domain_count)
        return wf_fail(WEFT_E_NOT_FOUND, "no domain is called '%.63s'; weft ls domains has them",
                       request->name);
    if (request->limit == WEFT_LIMIT_SHARE && (request->bytes == 0 || request->bytes > 1000000))
        return wf_fail(WEFT_E_INVALID, "a share is 1 to 1000000, not %llu",
                       (unsigned long long)request->bytes);
    return wf_fabric_limit(node->fabric,
                           request->limit == WEFT_LIMIT_SHARE ? WF_FABRIC_LIMIT_SHARE
                                                              : WF_FABRIC_LIMIT_DOMAIN,
                           "", domain, request->bytes);
}

static enum weft_status operator_says(struct wf_node *node,
                                      const struct wf_fabric_say_message *request)
{
    enum weft_status status;
    switch ((enum wf_fabric_say)request->what) {
    case WF_SAY_ALLOT:
        return wf_fabric_allot(node->fabric, request->lender, request->name, request->bytes,
                               request->least);
    case WF_SAY_LEND: return wf_fabric_lend(node->fabric, request->lender, request->bytes);
    case WF_SAY_DRAIN:
        wf_fabric_drain(node->fabric, request->bytes != 0);
        wf_telemetry_event(node, NULL, "fabric", "this node %s",
                           request->bytes ? "drains: nothing is put here or routed here any more"
                                          : "drains no more");
        return WEFT_OK;
    case WF_SAY_LIMIT:
        status = limit(node, request);
        if (status == WEFT_OK)
            limit_tell(node, request);
        return status;
    case WF_SAY_HAND_OVER:
    case WF_SAY_FORGET: break;
    }
    return wf_fail(WEFT_E_INVALID, "%u is nothing that can be said of the fabric", request->what);
}

void wf_handle_fabric(struct wf_client *client, const struct wf_fabric_say_message *request)
{
    struct wf_node *node = client->node;
    bool owner = client->peer.uid == 0 || client->peer.uid == node->owner_uid;
    enum weft_status status;
    if (request->what == WF_SAY_FORGET)
        status = forget_elsewhere(client->domain, request->tip);
    else if (!node->fabric)
        status = wf_fail(WEFT_E_INVALID,
                         "this node is alone; weftd --join says to which cluster it belongs");
    else if (!memchr(request->name, 0, sizeof request->name) ||
             !memchr(request->lender, 0, sizeof request->lender))
        status = wf_fail(WEFT_E_PROTOCOL, "a node's name does not end");
    else if (request->what == WF_SAY_HAND_OVER)
        status = wf_node_hand_over(client->domain, request->name, request->tip);
    else if (!owner)
        status = wf_fail(WEFT_E_DENIED, "only the node's own user may say that of the fabric");
    else
        status = operator_says(node, request);
    if (status >= 0)
        wf_answer(client, &request->message, status, sizeof(struct wf_message), NULL, 0);
    else
        wf_answer_failure(client, &request->message, status);
}
