/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/fabric.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/below.h"
#include "daemon/push.h"
#include "daemon/route.h"
#include "daemon/telemetry.h"
#include "fabric/peers.h"
#include "sys/clock.h"

#define PORT_DEFAULT "7420"
#define FORMAT "fabric" /* the model of formats that say nothing but a size */
#define SIZES_MAX 64u   /* of blocks that others ask for, a domain */
#define WALK_SLOTS 256u /* looked at in a step */
#define CONNECT_AGAIN_NS 1000000000u
#define COPY_BYTES 14u /* of the replica, a copy: half of them take as much again, being below */
#define LEAVE_MS 500u
#define SHOW_MS 100u

/* A domain, as the fabric's thread reads it. */
struct reader {
    struct wf_domain *domain;
    struct weft *weft;
    uint64_t again_ns;
    struct size {
        uint64_t bytes;
        struct weft_format *format;
    } sizes[SIZES_MAX];
    uint32_t size_count;
};

struct wf_node_fabric {
    struct wf_node *node;
    struct wf_fabric *fabric;
    struct wf_fabric_options options; /* for its begin */
    pthread_t thread;
    bool runs;
    _Atomic bool stopping;
    pthread_mutex_t lock; /* of the four below, until it has begun; of waking it for its end */
    pthread_cond_t changed;
    bool started;
    enum weft_status status;
    char sentence[WF_ERROR_MAX];
    struct reader readers[WF_DOMAINS_MAX];
    char listen[WF_PATH_MAX];
    struct wf_fabric_peer *peers; /* for QUERY */
    struct wf_wanted_chains *wanted;
    struct wf_served *served; /* what is below, for others */
    _Atomic uint32_t below_latency_us, below_mbps;
    struct wf_wire *wire;
    _Atomic uint64_t pool_bytes, free_bytes; /* as of the last tick, for others */
};

/* ------------------------------------------------------------- what the fabric sees of a domain */

static bool reader_connect(struct reader *reader)
{
    const struct wf_config *config = &reader->domain->node->config;
    uint64_t now_ns = wf_now_ns();
    if (reader->weft || now_ns < reader->again_ns)
        return reader->weft != NULL;
    const struct weft_connect_options options = {
        .socket = config->socket,
        .domain = reader->domain->config->name,
        .token = reader->domain->config->token[0] ? reader->domain->config->token : NULL,
        .timeout_ms = 1000,
    };
    if (weft_connect(&options, &reader->weft) == WEFT_OK)
        return true;
    wf_warn("fabric", "domain %s cannot be read for other nodes: %s", reader->domain->config->name,
            weft_last_error());
    reader->weft = NULL;
    reader->again_ns = now_ns + CONNECT_AGAIN_NS;
    return false;
}

static struct weft_format *format_known(const struct reader *reader, uint64_t bytes)
{
    for (uint32_t i = 0; i < reader->size_count; i++)
        if (reader->sizes[i].bytes == bytes)
            return reader->sizes[i].format;
    return NULL;
}

/* Is that a block's size here?  Sizes that others make up use up no format. */
static bool is_of_size(const struct reader *reader, const uint8_t key[32], uint64_t bytes)
{
    const struct wf_index *index = &reader->domain->store.index;
    struct wf_found found;
    return wf_index_find(index, key, &found) &&
           atomic_load_explicit(&index->desc[found.slot].bytes, memory_order_relaxed) == bytes;
}

/* A format of blocks of that size, of which there is one; its other fields say nothing here. */
static struct weft_format *format_make(struct reader *reader, uint64_t bytes)
{
    if (reader->size_count == SIZES_MAX || !reader_connect(reader))
        return NULL;
    struct size *size = &reader->sizes[reader->size_count];
    const struct weft_format_spec spec = {
        .model = FORMAT,
        .layers = 1,
        .kv_heads = 1,
        .head_dim = 1,
        .dtype = WEFT_INT8,
        .block_tokens = 1,
        .block_bytes = bytes,
    };
    if (weft_format_open(reader->weft, &spec, &size->format) != WEFT_OK) {
        wf_warn("fabric", "blocks of %llu bytes cannot be read for other nodes: %s",
                (unsigned long long)bytes, weft_last_error());
        return NULL;
    }
    size->bytes = bytes;
    reader->size_count++;
    return size->format;
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct wf_node_fabric *nf = context;
    struct weft_key name;
    struct weft_pin pin;
    struct reader *reader = &nf->readers[domain];
    struct weft_format *format = format_known(reader, bytes);
    if (!format && !is_of_size(reader, key, bytes))
        return WEFT_MISS;
    if (!format)
        format = format_make(reader, bytes);
    if (!format)
        return WEFT_E_BUSY;
    memcpy(name.bytes, key, 32);
    enum weft_status status = weft_pin(format, &name, &pin);
    if (status != WEFT_OK)
        return status;
    static_assert(sizeof pin <= sizeof out->user, "a pin is kept there");
    *out = (struct wf_fabric_held){.data = pin.data, .bytes = pin.bytes};
    enum weft_quality quality = weft_pin_quality(&pin);
    if (quality > WEFT_LOSSLESS) {
        /* It was set before the block could be seen, and stays while it is pinned. */
        out->quality = (uint8_t)quality;
        out->profile = nf->readers[domain].domain->profile_of[pin.slot];
    }
    memcpy(out->user, &pin, sizeof pin);
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    struct weft_pin pin;
    (void)context;
    memcpy(&pin, held->user, sizeof pin);
    weft_unpin(&pin);
}

/* A block that is being evicted counts: it may stay, and if it goes that will be told. */
static bool is_there(uint64_t word)
{
    enum wf_slot_state state = wf_word_state(word);
    return state == WF_SLOT_COMMITTED || state == WF_SLOT_EVICTING;
}

/* What the slot has, as of one moment: while a block is there so is its parent. */
static bool slot_read(const struct wf_index *index, uint32_t slot, struct wf_fabric_event *out)
{
    const struct wf_desc *desc = &index->desc[slot];
    uint64_t word = atomic_load_explicit(&desc->word, memory_order_acquire);
    if (!is_there(word))
        return false;
    memset(out, 0, sizeof *out);
    out->depth = wf_word_depth(word);
    out->quality = wf_word_quality(word) > WEFT_LOSSLESS ? (uint8_t)wf_word_quality(word) : 0;
    out->bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    wf_desc_key_read(desc, out->key);
    uint32_t parent = atomic_load_explicit(&desc->parent, memory_order_relaxed);
    if (parent != WF_SLOT_NONE && parent < index->slots_max)
        wf_desc_key_read(&index->desc[parent], out->parent);
    atomic_thread_fence(memory_order_acquire);
    uint64_t again = atomic_load_explicit(&desc->word, memory_order_relaxed);
    return wf_word_generation(again) == wf_word_generation(word) && is_there(again) &&
           out->bytes > 0;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct wf_node_fabric *nf = context;
    const struct wf_store *store = &nf->readers[domain].domain->store;
    const struct wf_index *index = &store->index;
    if (*cursor > index->slots_max)
        return wf_served_each(nf->served, domain, cursor, found, to);
    /* What came to a slot that was never used before is told besides, as of any that comes. */
    uint64_t used = wf_arena_slots_used(&store->arena), end = *cursor + WALK_SLOTS;
    end = end < used ? end : used;
    for (uint64_t slot = *cursor; slot < end; slot++) {
        struct wf_fabric_event event;
        if (slot_read(index, (uint32_t)slot, &event))
            found(to, &event);
    }
    *cursor = end < used ? end : wf_served_walk(nf->served);
    return *cursor != 0;
}

static enum weft_status read_below(void *context, struct wf_fabric_read *read)
{
    struct wf_node_fabric *nf = context;
    return wf_served_read(nf->served, read);
}

static void read_free(void *context, struct wf_fabric_read *read)
{
    (void)context;
    wf_served_read_free(read);
}

static bool below(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality)
{
    struct wf_node_fabric *nf = context;
    return wf_served_below(nf->served, domain, key, out_quality);
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    struct wf_node_fabric *nf = context;
    return wf_peers_news(nf->node->peers, from, block);
}

static void say(void *context, struct wf_fabric_ping *out)
{
    struct wf_node_fabric *nf = context;
    out->pool_bytes = atomic_load_explicit(&nf->pool_bytes, memory_order_relaxed);
    out->free_bytes = atomic_load_explicit(&nf->free_bytes, memory_order_relaxed);
    out->below_latency_us = atomic_load_explicit(&nf->below_latency_us, memory_order_relaxed);
    out->below_mbps = atomic_load_explicit(&nf->below_mbps, memory_order_relaxed);
}

static void push_room(void *context, struct wf_fabric_pushed *pushed)
{
    struct wf_node_fabric *nf = context;
    wf_node_push_room(nf->node, pushed);
}

static void push_end(void *context, struct wf_fabric_pushed *pushed)
{
    struct wf_node_fabric *nf = context;
    wf_node_push_end(nf->node, pushed);
}

static void own(void *context, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                struct wf_routes_own *out)
{
    struct wf_node_fabric *nf = context;
    wf_node_own(nf->node, domain, keys, count, out);
}

/* -------------------------------------------------------------------------------- what is told */

void wf_node_fabric_sum(struct wf_node *node)
{
    uint64_t unused = node->budget_free;
    for (uint32_t i = 0; i < node->domain_count; i++)
        unused += node->domains[i].store.arena.backed.granules * WF_GRANULE;
    atomic_store_explicit(&node->cluster->pool_bytes, node->pool_bytes, memory_order_relaxed);
    atomic_store_explicit(&node->cluster->free_bytes, unused, memory_order_relaxed);
    uint32_t latency_us, mbps;
    wf_served_speed(node->cluster->served, &latency_us, &mbps);
    atomic_store_explicit(&node->cluster->below_latency_us, latency_us, memory_order_relaxed);
    atomic_store_explicit(&node->cluster->below_mbps, mbps, memory_order_relaxed);
}

void wf_node_fabric_here(struct wf_domain *domain, uint32_t slot)
{
    struct wf_fabric_event event;
    if (!domain->node->fabric || !slot_read(&domain->store.index, slot, &event) ||
        wf_served_better(domain->node->cluster->served, domain, event.key, event.quality))
        return; /* or it is told of as it is below */
    event.kind = WF_FABRIC_HERE;
    event.domain = (uint8_t)domain->id;
    wf_fabric_tell(domain->node->fabric, &event);
}

bool wf_node_fabric_event(const struct wf_domain *domain, uint32_t slot,
                          struct wf_fabric_event *out)
{
    bool there = slot_read(&domain->store.index, slot, out);
    out->kind = WF_FABRIC_HERE;
    out->domain = (uint8_t)domain->id;
    return there;
}

struct wf_wire *wf_wire_of(void *cluster)
{
    return ((struct wf_node_fabric *)cluster)->wire;
}

bool wf_node_fabric_reads(const struct wf_format_entry *format)
{
    return format->request->block_bytes && strcmp(format->request->model, FORMAT) == 0;
}

struct wf_wanted_chains *wf_wanted_of(void *cluster)
{
    return ((struct wf_node_fabric *)cluster)->wanted;
}

struct wf_served *wf_served_of(void *cluster)
{
    return ((struct wf_node_fabric *)cluster)->served;
}

struct wf_node *wf_node_of(void *cluster)
{
    return ((struct wf_node_fabric *)cluster)->node;
}

void wf_node_fabric_gone(struct wf_domain *domain, const uint8_t key[32])
{
    if (!domain->node->fabric)
        return;
    struct wf_fabric_event event = {.kind = WF_FABRIC_GONE,
                                    .domain = (uint8_t)domain->id,
                                    .bytes = 1};
    memcpy(event.key, key, 32);
    (void)wf_served_event(domain->node->cluster->served, domain, key, &event);
    wf_fabric_tell(domain->node->fabric, &event);
}

void wf_node_fabric_moved(struct wf_node *node, const struct wf_directory_moved *block)
{
    if (node->fabric)
        wf_served_moved(node->cluster->served, block);
}

int wf_node_fabric_fd(const struct wf_node *node)
{
    return node->cluster ? wf_served_fd(node->cluster->served) : -1;
}

void wf_node_fabric_run(struct wf_node *node)
{
    wf_served_run(node->cluster->served);
}

bool wf_node_fabric_figures(const struct wf_node *node, struct wf_fabric_figures *out,
                            const struct wf_fabric_peer **out_peers, uint32_t *out_count)
{
    struct wf_node_fabric *nf = node->cluster;
    if (!node->fabric)
        return false;
    wf_fabric_figures(node->fabric, out);
    *out_peers = nf->peers;
    *out_count = wf_fabric_peers(node->fabric, nf->peers, WF_FABRIC_PEERS_MAX);
    return true;
}

/* ------------------------------------------------------------------------------ begin and end */

/* All of the fabric's calls are of this thread, from its first to its last. */
static void *run(void *context)
{
    struct wf_node_fabric *nf = context;
    pthread_mutex_lock(&nf->lock);
    nf->status = wf_fabric_create(&nf->options, &nf->fabric);
    nf->started = true;
    snprintf(nf->sentence, sizeof nf->sentence, "%s", wf_last_error());
    struct wf_fabric *fabric = nf->status == WEFT_OK ? nf->fabric : NULL;
    pthread_cond_signal(&nf->changed);
    pthread_mutex_unlock(&nf->lock);
    bool works = fabric != NULL;
    while (fabric && !atomic_load_explicit(&nf->stopping, memory_order_acquire)) {
        if (works && wf_fabric_poll(fabric, 100) == WEFT_OK)
            continue;
        if (works)
            wf_error("fabric", "%s; this node is alone from now on", wf_last_error());
        works = false;
        wf_nap(20000000);
    }
    /* A poll may have ended by itself: who says stop may be about to wake this one. */
    pthread_mutex_lock(&nf->lock);
    pthread_mutex_unlock(&nf->lock);
    wf_fabric_destroy(fabric, LEAVE_MS);
    return NULL;
}

/* The address of this host by which the first HOST:PORT in `registry` is reached. */
static bool local_address(const char *registry, char *out, size_t capacity)
{
    const char *host = strstr(registry, "://");
    host = host ? host + 3 : strchr(registry, ':') ? strchr(registry, ':') + 1 : registry;
    char name[256];
    size_t length = strcspn(host, ",/");
    if (length == 0 || length >= sizeof name)
        return false;
    memcpy(name, host, length);
    name[length] = 0;
    char *colon = strrchr(name, ':');
    if (colon)
        *colon = 0;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM}, *found = NULL;
    char *bare = name[0] == '[' ? name + 1 : name;
    bare[strcspn(bare, "]")] = 0;
    if (getaddrinfo(bare, colon ? colon + 1 : PORT_DEFAULT, &hints, &found) != 0)
        return false;
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage own;
    socklen_t bytes = sizeof own;
    bool known = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
                 getsockname(fd, (struct sockaddr *)&own, &bytes) == 0 &&
                 getnameinfo((struct sockaddr *)&own, bytes, out, (socklen_t)capacity, NULL, 0,
                             NI_NUMERICHOST) == 0;
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return known;
}

static enum weft_status listen_choose(struct wf_node_fabric *nf)
{
    const struct wf_config *config = &nf->node->config;
    char address[WF_ADDRESS_BYTES + 16];
    bool proof = config->fabric_secret_file[0] || config->fabric_certificate[0];
    if (config->fabric_listen[0]) {
        snprintf(nf->listen, sizeof nf->listen, "%s", config->fabric_listen);
        return WEFT_OK;
    }
    if (!proof || strncmp(config->fabric_join, "unix:", 5) == 0) {
        snprintf(nf->listen, sizeof nf->listen, "tcp:127.0.0.1:0");
        return WEFT_OK;
    }
    if (!local_address(config->fabric_join, address, sizeof address))
        return wf_fail(WEFT_E_INVALID,
                       "fabric.join: '%s': no way there is known from this host, so fabric.listen "
                       "cannot be chosen; set it, like tcp:10.0.0.1:" PORT_DEFAULT,
                       config->fabric_join);
    bool brackets = strchr(address, ':') != NULL;
    snprintf(nf->listen, sizeof nf->listen, "tcp:%s%s%s:" PORT_DEFAULT, brackets ? "[" : "",
             address, brackets ? "]" : "");
    return WEFT_OK;
}

static enum weft_status security_read(const struct wf_config *config, struct wf_net_security *out)
{
    *out = (struct wf_net_security){.proof = WF_NET_PROOF_NONE};
    if (config->fabric_certificate[0]) {
        out->proof = WF_NET_PROOF_TLS;
        out->certificate = config->fabric_certificate;
        out->key = config->fabric_key;
        out->ca = config->fabric_ca;
        out->name = config->fabric_name;
        return WEFT_OK;
    }
    if (!config->fabric_secret_file[0])
        return WEFT_OK;
    out->proof = config->fabric_encrypt ? WF_NET_PROOF_TLS_SECRET : WF_NET_PROOF_SECRET;
    return wf_secret_cluster(config, out->secret);
}

enum weft_status wf_node_fabric_create(struct wf_node *node)
{
    uint8_t tags[WF_DOMAINS_MAX][32], accept[WF_DOMAINS_MAX];
    if (!wf_config_has_fabric(&node->config))
        return WEFT_OK;
    struct wf_node_fabric *nf = wf_calloc(1, sizeof *nf, "the fabric");
    if (!nf)
        return WEFT_E_NO_MEMORY;
    node->cluster = nf;
    nf->node = node;
    pthread_mutex_init(&nf->lock, NULL);
    pthread_cond_init(&nf->changed, NULL);
    for (uint32_t i = 0; i < node->domain_count; i++) {
        nf->readers[i].domain = &node->domains[i];
        memcpy(tags[i], node->domains[i].tag, 32);
        accept[i] = (uint8_t)wf_domain_quality(node->domains[i].config);
    }
    nf->peers = wf_calloc(WF_FABRIC_PEERS_MAX, sizeof *nf->peers, "other nodes");
    nf->wanted = wf_wanted_create();
    nf->wire = wf_wire_create();
    if (!nf->peers || !nf->wanted || !nf->wire)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = wf_served_create(node, &nf->served);
    if (status == WEFT_OK)
        status = wf_node_pushes_create(node);
    if (status != WEFT_OK)
        return status;
    return wf_peers_create(tags, accept, node->domain_count, wf_below_part_bytes, &node->peers);
}

static_assert(WF_LINKS_MAX_NAMED <= WF_FABRIC_LINKS_NAMED, "every link that is named has a bound");

static void options_make(struct wf_node_fabric *nf, struct wf_fabric_domain *domains,
                         struct wf_fabric_link_limit *links)
{
    const struct wf_node *node = nf->node;
    const struct wf_config *config = &node->config;
    bool tls = strncmp(config->fabric_join, "etcds://", strlen("etcds://")) == 0;
    bool shown = tls && config->fabric_certificate[0]; /* to an etcd that asks for one */
    nf->options = (struct wf_fabric_options){
        .name = config->fabric_name,
        .locality = config->fabric_place,
        .listen = nf->listen,
        .advertise = config->fabric_advertise[0] ? config->fabric_advertise : NULL,
        .registry = config->fabric_join,
        .user = config->fabric_user[0] ? config->fabric_user : NULL,
        .password = config->fabric_password[0] ? config->fabric_password : NULL,
        .ca = config->fabric_registry_ca[0] ? config->fabric_registry_ca : NULL,
        .certificate = shown ? config->fabric_certificate : NULL,
        .key = shown ? config->fabric_key : NULL,
        .state_dir = config->state_dir,
        .host = {.context = nf,
                 .hold = hold,
                 .let_go = let_go,
                 .read = read_below,
                 .read_free = read_free,
                 .below = below,
                 .each = each,
                 .news = news,
                 .offered = wf_node_fabric_offered,
                 .forget = wf_node_fabric_forget,
                 .push_room = push_room,
                 .push_end = push_end,
                 .part_bytes = wf_below_part_bytes,
                 .say = say,
                 .layout = wf_wire_layout,
                 .chose = wf_wire_chose,
                 .profiles = wf_wire_profiles,
                 .profile = wf_wire_profile,
                 .told = wf_wire_told,
                 .own = own},
        .domains = domains,
        .domain_count = node->domain_count,
        .replica_copies = config->fabric_replica_bytes / COPY_BYTES,
        .directory = (enum wf_fabric_directory)config->fabric_directory,
        .lend_bytes = config->fabric_lend_bytes,
        .copies = config->fabric_copies,
        .move_bytes_s = config->fabric_move_rate,
        .link_bytes_s = config->fabric_link_max,
        .links = links,
        .link_count = config->link_count,
        .seed = node->epoch,
        .show_ms = SHOW_MS,
        .lease_ms = config->fabric_lease_ms,
    };
    wf_wire_options(node, &nf->options);
    for (uint32_t i = 0; i < config->link_count; i++) {
        memcpy(links[i].name, config->links[i].name, sizeof links[i].name);
        links[i].bytes_s = config->links[i].max_bytes_s;
    }
    for (uint32_t i = 0; i < node->domain_count; i++) {
        memcpy(domains[i].secret, node->domains[i].secret, sizeof domains[i].secret);
        domains[i].secret_bytes = (uint32_t)node->domains[i].secret_bytes;
        domains[i].quality = (uint8_t)wf_domain_quality(node->domains[i].config);
        domains[i].share = node->domains[i].config->fabric_share;
        domains[i].max_bytes_s = node->domains[i].config->fabric_max;
    }
}

/* The thread begins, and has or has not a fabric. */
static enum weft_status begin(struct wf_node_fabric *nf)
{
    int error = pthread_create(&nf->thread, NULL, run, nf);
    if (error != 0)
        return wf_fail(WEFT_E_SYSTEM, "no thread for the fabric: %s", strerror(error));
    nf->runs = true;
    pthread_mutex_lock(&nf->lock);
    while (!nf->started)
        pthread_cond_wait(&nf->changed, &nf->lock);
    pthread_mutex_unlock(&nf->lock);
    return nf->status == WEFT_OK ? WEFT_OK : wf_fail(nf->status, "%s", nf->sentence);
}

enum weft_status wf_node_fabric_start(struct wf_node *node)
{
    struct wf_node_fabric *nf = node->cluster;
    const struct wf_config *config = &node->config;
    struct wf_fabric_domain domains[WF_DOMAINS_MAX];
    struct wf_fabric_link_limit links[WF_LINKS_MAX_NAMED];
    if (!nf)
        return WEFT_OK;
    enum weft_status status = listen_choose(nf);
    options_make(nf, domains, links);
    if (status == WEFT_OK)
        status = security_read(config, &nf->options.security);
    if (status == WEFT_OK)
        status = begin(nf);
    explicit_bzero(domains, sizeof domains);
    explicit_bzero(&nf->options.security, sizeof nf->options.security);
    nf->options.domains = NULL;
    nf->options.links = NULL;
    if (status != WEFT_OK)
        return status;
    node->fabric = nf->fabric;
    wf_peers_attach(node->peers, nf->fabric);
    wf_served_attach(nf->served, nf->fabric);
    wf_info("fabric", "%s listens on %s, and joins %s", config->fabric_name, nf->listen,
            config->fabric_join[0] ? config->fabric_join : "whoever comes");
    return WEFT_OK;
}

void wf_node_fabric_stop(struct wf_node *node)
{
    struct wf_node_fabric *nf = node->cluster;
    if (!nf || !nf->runs)
        return;
    wf_peers_attach(node->peers, NULL);
    node->fabric = NULL;
    /* It is not destroyed before the lock is free. */
    pthread_mutex_lock(&nf->lock);
    atomic_store_explicit(&nf->stopping, true, memory_order_release);
    if (nf->fabric)
        wf_fabric_wake(nf->fabric);
    pthread_mutex_unlock(&nf->lock);
    pthread_join(nf->thread, NULL);
    nf->runs = false;
    nf->fabric = NULL;
    wf_served_attach(nf->served, NULL);
    wf_node_pushes_end(node);
    for (uint32_t i = 0; i < node->domain_count; i++) {
        struct reader *reader = &nf->readers[i];
        for (uint32_t s = 0; s < reader->size_count; s++)
            weft_format_close(reader->sizes[s].format);
        weft_close(reader->weft);
        reader->weft = NULL;
        reader->size_count = 0;
    }
}

void wf_node_fabric_destroy(struct wf_node *node)
{
    struct wf_node_fabric *nf = node->cluster;
    wf_node_fabric_stop(node);
    wf_peers_destroy(node->peers);
    node->peers = NULL;
    wf_node_pushes_destroy(node);
    if (nf) {
        pthread_mutex_destroy(&nf->lock);
        pthread_cond_destroy(&nf->changed);
        free(nf->peers);
        wf_wanted_destroy(nf->wanted);
        wf_served_destroy(nf->served);
        wf_wire_destroy(nf->wire);
    }
    free(nf);
    node->cluster = NULL;
}
