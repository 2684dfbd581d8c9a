/* SPDX-License-Identifier: Apache-2.0
 *
 * The clients of `make crash`.
 *
 * Every thread has a connection of its own, which it keeps over the deaths of all nodes.  Any call
 * may end in WEFT_E_NODE; then it is tried again until a node is there.  What was held when the
 * node died has the right bytes still.
 */
#include "cycles.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

const struct shape shapes[SIZES] = {
    [SMALL] = {"small", 2, 64, 400, 6, 2 * LAYERS * 2 * 64 * 2 * BLOCK_TOKENS},
    [LARGE] = {"large", 8, 128, 150, 2, 2 * LAYERS * 8 * 128 * 2 * BLOCK_TOKENS},
};
struct tally *tally;

void note_error(const char *call, enum weft_status status)
{
    if (atomic_fetch_add(&tally->errors, 1) == 0)
        snprintf(tally->error, sizeof tally->error, "%s: %s: %s", call, weft_status_name(status),
                 weft_last_error());
}

void wrong_block(const char *where, enum size size, uint32_t chain, uint32_t block)
{
    add(&tally->wrong_blocks, 1);
    fprintf(stderr, "# WRONG: %s, chain %u, block %u: %s\n", shapes[size].model, chain, block,
            where);
}

static struct weft_format *open_format(struct weft *w, const struct shape *shape)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = shape->model,
                                    .layers = LAYERS,
                                    .kv_heads = shape->kv_heads,
                                    .head_dim = shape->head_dim,
                                    .dtype = WEFT_F16,
                                    .block_tokens = BLOCK_TOKENS};
    return weft_format_open(w, &spec, &f) == WEFT_OK ? f : NULL;
}

bool client_open(struct client *c, const struct weftd *node)
{
    *c = (struct client){.w = weftd_connect(node, "default")};
    for (int i = 0; c->w && i < SIZES; i++) {
        struct weft_session_spec spec = {.name = shapes[i].model, .priority = 5};
        c->f[i] = open_format(c->w, &shapes[i]);
        if (!c->f[i] || weft_session_open(c->f[i], &spec, &c->s[i]) != WEFT_OK ||
            weft_format_block_bytes(c->f[i]) != shapes[i].block_bytes) {
            client_close(c);
            return false;
        }
    }
    return c->w != NULL;
}

void client_close(struct client *c)
{
    for (int i = 0; i < SIZES; i++) {
        weft_session_close(c->s[i]);
        weft_format_close(c->f[i]);
    }
    weft_close(c->w);
    *c = (struct client){.w = NULL};
}

void chain_tokens(enum size size, uint32_t chain, uint32_t tokens[DEPTH_MAX * BLOCK_TOKENS])
{
    /* Some share a beginning. */
    for (uint32_t i = 0; i < DEPTH_MAX * BLOCK_TOKENS; i++)
        tokens[i] = i < BLOCK_TOKENS ? 1000 * size + chain / 4 : 1000000 * size + 1000 * chain + i;
}

bool chain_keys(const struct client *c, enum size size, uint32_t chain,
                struct weft_key keys[DEPTH_MAX])
{
    uint32_t tokens[DEPTH_MAX * BLOCK_TOKENS];
    chain_tokens(size, chain, tokens);
    return weft_keys_from_tokens(c->f[size], NULL, tokens,
                                 (size_t)shapes[size].depth * BLOCK_TOKENS, NULL, keys) == WEFT_OK;
}

/* --------------------------------------------------------------------------------- what they do */

void doing(const struct worker *k, enum activity activity)
{
    atomic_store_explicit(&tally->worker[k->number].activity, activity, memory_order_relaxed);
}

bool went_well(const char *call, enum weft_status status)
{
    if (status == WEFT_E_NODE) {
        add(&tally->node_losses, 1);
        weftd_sleep_ms(2);
    } else if (status == WEFT_E_BUSY) {
        add(&tally->busy, 1);
    } else if (status < 0 && status != WEFT_E_PARENT) {
        note_error(call, status);
    }
    return status >= 0;
}

static void fill(const struct worker *k, struct weft_fill *put)
{
    for (uint32_t i = 0; i < put->blocks; i++)
        if (put->slots[i].status == WEFT_OK)
            payload_fill(put->slots[i].data, shapes[k->size].block_bytes,
                         k->keys[put->first_block + i].bytes);
}

/* How many blocks of the chain are the session's. */
static uint32_t put_chain(struct worker *k)
{
    uint32_t tokens[DEPTH_MAX * BLOCK_TOKENS + 1] = {0};
    const struct shape *shape = &shapes[k->size];
    uint32_t blocks = 1 + random_below(&k->r, shape->depth);
    struct weft_session *s = k->c.s[k->size];
    struct weft_match match;
    struct weft_fill put;
    doing(k, PUTTING);
    chain_tokens(k->size, k->chain, tokens);
    enum weft_status status = weft_match(s, tokens, (size_t)blocks * BLOCK_TOKENS + 1, &match);
    if (status == WEFT_OK)
        status = weft_reserve(s, tokens, random_below(&k->r, 2) ? match.tokens : 0,
                              (size_t)blocks * BLOCK_TOKENS, &put);
    if (!went_well("reserve", status) || status != WEFT_OK)
        return 0;
    add(&tally->full, put.full);
    bool all = put.full == 0;
    if (random_below(&k->r, 20) == 0) {
        weft_abort(&put);
        return 0;
    }
    fill(k, &put);
    add(&tally->puts, put.reserved);
    return went_well("commit", weft_commit(&put)) && all ? blocks : 0;
}

static void verify_block(const struct worker *k, const struct weft_pins *pins, uint32_t block,
                         const char *where)
{
    add(&tally->blocks_verified, 1);
    add(&tally->bytes_verified, shapes[k->size].block_bytes);
    if (!payload_right(pins->data[block], shapes[k->size].block_bytes, k->keys[block].bytes))
        wrong_block(where, k->size, k->chain, block);
}

/* Layer by layer, as an engine would; each is looked at as soon as it is said to be there. */
static enum weft_status read_layers(const struct worker *k, const struct weft_pins *pins)
{
    enum weft_status status = WEFT_OK;
    size_t bytes = 2 * pins->layer_bytes;
    for (uint32_t layer = 0; status == WEFT_OK && layer < LAYERS; layer++) {
        status = weft_wait_layer(pins, layer);
        for (uint32_t i = 0; status == WEFT_OK && i < pins->blocks; i++) {
            add(&tally->layers_verified, 1);
            if (!payload_right_from(weft_k(pins, i, layer), layer * bytes, bytes, k->keys[i].bytes))
                wrong_block("a layer that was waited for", k->size, k->chain, i);
        }
    }
    return status;
}

static enum weft_status read_blocks(const struct worker *k, const struct weft_pins *pins)
{
    enum weft_status status = WEFT_OK;
    for (uint32_t i = 0; status == WEFT_OK && i < pins->blocks; i++) {
        status = weft_wait_block(pins, i);
        if (status == WEFT_OK)
            verify_block(k, pins, i, "a block that was waited for");
    }
    return status;
}

static void get_chain(struct worker *k)
{
    struct weft_pins pins;
    bool layers = random_below(&k->r, 2);
    doing(k, HOLDING);
    if (!went_well("get", weft_get_keys(k->c.f[k->size], k->keys, shapes[k->size].depth,
                                        layers ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER, &pins)))
        return;
    add(pins.blocks ? &tally->gets : &tally->misses, 1);
    if (pins.loading < pins.blocks) {
        doing(k, LOADING);
        add(&tally->loads, 1);
    }
    uint32_t held = pins.loading;
    /* Now and then nobody waits for what was asked for. */
    enum weft_status status = random_below(&k->r, 8) ? WEFT_OK : WEFT_PENDING;
    if (status == WEFT_OK)
        status = layers ? read_layers(k, &pins) : read_blocks(k, &pins);
    if (status == WEFT_OK) {
        held = pins.blocks;
        if (random_below(&k->r, 4) == 0)
            weftd_sleep_ms((int)random_below(&k->r, 10));
    } else if (status == WEFT_MISS) {
        add(&tally->lost_on_the_way, 1);
    } else if (status != WEFT_PENDING) {
        (void)went_well("wait", status);
    }
    /* Whatever became of the node: what was readable is. */
    for (uint32_t i = 0; i < held; i++)
        verify_block(k, &pins, i, "held");
    weft_pins_release(&pins);
}

static void prefetch_chain(struct worker *k)
{
    uint32_t within_ms = random_below(&k->r, 3) ? random_below(&k->r, 200) : 0;
    doing(k, LOADING);
    if (went_well("prefetch", weft_prefetch_keys(k->c.f[k->size], k->keys, shapes[k->size].depth,
                                                 within_ms, NULL)))
        add(&tally->prefetches, 1);
}

static void demote_chain(struct worker *k)
{
    doing(k, DEMOTING);
    if (went_well("demote", weft_demote(k->c.s[k->size])))
        add(&tally->demotes, 1);
}

static void remove_some(struct worker *k)
{
    size_t removed;
    doing(k, OTHER);
    if (went_well("remove",
                  weft_remove(k->c.f[k->size], &k->keys[random_below(&k->r, shapes[k->size].depth)],
                              &removed)))
        add(&tally->removes, 1);
}

static void one(struct worker *k)
{
    uint32_t what = random_below(&k->r, 100);
    k->size = random_below(&k->r, 4) ? SMALL : LARGE;
    k->chain = random_below(&k->r, shapes[k->size].chains);
    if (!chain_keys(&k->c, k->size, k->chain, k->keys))
        return;
    if (what < 40) {
        uint32_t blocks = put_chain(k), then = random_below(&k->r, 16);
        if (blocks && then < 4)
            demote_chain(k);
        else if (blocks && then < 6)
            archive_chain(k, blocks);
    } else if (what < 88) {
        get_chain(k);
    } else if (what < 95) {
        prefetch_chain(k);
    } else if (what < 98) {
        archive_drop(k);
    } else {
        remove_some(k);
    }
    doing(k, RESTING);
}

/* ------------------------------------------------------------------------------------ processes */

static void rest(const struct worker *k)
{
    uint32_t number = atomic_load(&tally->rest_number);
    atomic_store(&tally->worker[k->number].rested, number);
    weftd_sleep_ms(1);
}

static void *worker_run(void *context)
{
    struct worker *k = context;
    for (int tries = 0; !client_open(&k->c, k->node); tries++) {
        if (atomic_load(&tally->phase) == END)
            return NULL;
        rest(k);
        weftd_sleep_ms(5);
    }
    for (;;) {
        uint32_t phase = atomic_load(&tally->phase);
        atomic_fetch_add_explicit(&tally->worker[k->number].beats, 1, memory_order_relaxed);
        if (phase == END)
            break;
        if (phase == REST)
            rest(k);
        else
            one(k);
    }
    client_close(&k->c);
    return NULL;
}

int work(const struct weftd *node, uint32_t process, uint64_t seed)
{
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct random_source r = {seed};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.node = node, .number = process * THREADS + i};
        workers[i].r.state = random_next(&r);
        if (pthread_create(&threads[i], NULL, worker_run, &workers[i]) != 0)
            return 1;
    }
    for (uint32_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
