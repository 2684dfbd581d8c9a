/* SPDX-License-Identifier: Apache-2.0
 *
 * Values from tiers below: libweft waits for devices, and a lane must not, so that it has others do
 * it.  A load is handed to a thread, and back to its lane; a connection that ends meanwhile forgets
 * it, and its lane lets go what it holds.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/resp_inner.h"
#include "sys/memory.h"

#define LOADER_THREADS 4

struct wf_resp_load {
    struct wf_resp_load *next;
    struct wf_resp_lane *lane;
    struct wf_resp_conn *conn; /* the lane's to read; NULL: it is gone */
    struct wf_resp_pool *pool;
    enum weft_status status;
    bool taken;
    uint32_t count;
    uint8_t chunk, tail;
    struct weft_pin *pins;
    struct weft_key keys[];
};

struct wf_resp_loader {
    pthread_mutex_t lock;
    pthread_cond_t some;
    pthread_t threads[LOADER_THREADS];
    uint32_t thread_count;
    struct wf_resp_load *first, **last;
    bool stopping;
};

static void load_free(struct wf_resp_load *load)
{
    if (load->status == WEFT_OK && !load->taken)
        for (uint32_t i = 0; i < load->count; i++)
            weft_unpin(&load->pins[i]);
    free(load->pins);
    free(load);
}

static void *loads_run(void *context)
{
    struct wf_resp_loader *loader = context;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->first && !loader->stopping)
            pthread_cond_wait(&loader->some, &loader->lock);
        struct wf_resp_load *load = loader->first;
        if (!load)
            break;
        loader->first = load->next;
        if (!loader->first)
            loader->last = &loader->first;
        bool stopping = loader->stopping;
        pthread_mutex_unlock(&loader->lock);
        if (!stopping)
            load->status = wf_resp_pool_load(load->pool, load->keys, load->count, load->chunk,
                                             load->tail, load->pins);
        struct wf_resp_lane *lane = load->lane;
        pthread_mutex_lock(&lane->lock);
        load->next = lane->loaded;
        lane->loaded = load;
        pthread_mutex_unlock(&lane->lock);
        wf_resp_lane_wake(lane);
        pthread_mutex_lock(&loader->lock);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

enum weft_status wf_resp_loader_start(struct wf_resp *resp)
{
    struct wf_resp_loader *loader = wf_calloc(1, sizeof *loader, "the RESP gateway's loader");
    if (!loader)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->some, NULL);
    loader->last = &loader->first;
    resp->loader = loader;
    for (; loader->thread_count < LOADER_THREADS; loader->thread_count++)
        if (pthread_create(&loader->threads[loader->thread_count], NULL, loads_run, loader) != 0)
            return wf_fail(WEFT_E_SYSTEM, "no thread can be started for the RESP gateway");
    return WEFT_OK;
}

void wf_resp_loader_stop(struct wf_resp *resp)
{
    struct wf_resp_loader *loader = resp->loader;
    if (!loader)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->stopping = true;
    pthread_cond_broadcast(&loader->some);
    pthread_mutex_unlock(&loader->lock);
    for (uint32_t i = 0; i < loader->thread_count; i++)
        pthread_join(loader->threads[i], NULL);
    for (uint32_t i = 0; i < resp->lane_count; i++)
        while (resp->lanes[i].loaded) {
            struct wf_resp_load *load = resp->lanes[i].loaded;
            resp->lanes[i].loaded = load->next;
            load_free(load);
        }
    pthread_cond_destroy(&loader->some);
    pthread_mutex_destroy(&loader->lock);
    free(loader);
    resp->loader = NULL;
}

/* The caller holds the store's lock, so that the blob stays as it is. */
bool wf_resp_load_submit(struct wf_resp_conn *conn, const struct wf_resp_blob *blob)
{
    struct wf_resp_loader *loader = conn->lane->resp->loader;
    struct wf_resp_load *load = wf_calloc(1, sizeof *load + blob->count * sizeof load->keys[0],
                                          "a load");
    if (!load)
        return false;
    *load = (struct wf_resp_load){.lane = conn->lane,
                                  .conn = conn,
                                  .pool = conn->store->pool,
                                  .status = WEFT_MISS,
                                  .count = blob->count,
                                  .chunk = blob->chunk,
                                  .tail = blob->tail};
    load->pins = wf_calloc(blob->count, sizeof *load->pins, "a load");
    if (!load->pins) {
        free(load);
        return false;
    }
    for (uint32_t i = 0; i < blob->count; i++)
        load->keys[i] = blob->pieces[i].key;
    wf_resp_load_forget(conn);
    conn->load = load;
    pthread_mutex_lock(&loader->lock);
    *loader->last = load;
    loader->last = &load->next;
    pthread_cond_signal(&loader->some);
    pthread_mutex_unlock(&loader->lock);
    return true;
}

static bool is_of(const struct wf_resp_load *load, const struct wf_resp_blob *blob)
{
    return load && memcmp(&load->keys[0], &blob->pieces[0].key, sizeof load->keys[0]) == 0;
}

struct weft_pin *wf_resp_load_take(struct wf_resp_conn *conn, const struct wf_resp_blob *blob)
{
    struct wf_resp_load *load = conn->load;
    if (!is_of(load, blob) || conn->waiting || load->status != WEFT_OK || load->taken)
        return NULL;
    load->taken = true;
    return load->pins;
}

bool wf_resp_load_failed(const struct wf_resp_conn *conn, const struct wf_resp_blob *blob)
{
    return is_of(conn->load, blob) && conn->load->status != WEFT_OK;
}

/* While it runs it is left to its lane, which finds that nobody waits for it. */
void wf_resp_load_forget(struct wf_resp_conn *conn)
{
    if (!conn->load)
        return;
    if (conn->waiting)
        conn->load->conn = NULL;
    else
        load_free(conn->load);
    conn->load = NULL;
}

void wf_resp_lane_loaded(struct wf_resp_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    struct wf_resp_load *load = lane->loaded;
    lane->loaded = NULL;
    pthread_mutex_unlock(&lane->lock);
    while (load) {
        struct wf_resp_load *next = load->next;
        if (load->conn)
            wf_resp_conn_loaded(load->conn);
        else
            load_free(load);
        load = next;
    }
}
