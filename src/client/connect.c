/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hooks.h"
#include "client/client.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "sys/paths.h"

#define TIMEOUT_MS_DEFAULT 5000
#define RETRY_MS 50 /* a node that did not answer is not asked again at once */

_Atomic uint32_t wf_client_forks;

static void in_child(void)
{
    atomic_fetch_add_explicit(&wf_client_forks, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;

/* --------------------------------------------------------------------------------- attachments */

static void attachment_unmap_pool(struct attachment *a)
{
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
    wf_unmap(a->pool, a->pool_bytes);
    wf_unmap(a->staging, a->staging_bytes);
    a->pool = a->staging = NULL;
    a->drained = true;
}

static void attachment_destroy(struct attachment *a)
{
    if (!a->drained)
        attachment_unmap_pool(a);
    wf_unmap(a->index_memory, a->index_bytes);
    wf_unmap(a->pins_memory, a->pins_bytes);
    free(a->staged);
    free(a);
}

static void slot_seen(void *context, uint32_t slot)
{
    (void)slot;
    *(bool *)context = true;
}

void wf_client_drain_locked(struct weft *w)
{
    for (struct attachment *a = w->attachments; a; a = a->next) {
        bool held = false;
        if (a->drained || !atomic_load_explicit(&a->poisoned, memory_order_seq_cst))
            continue;
        /* Poisoned first, then scanned: a thread that takes a pin looks at `poisoned` after it. */
        a->pins.node_mark = a->pins.entries_max - a->pins.node_first;
        wf_pins_scan(&a->pins, slot_seen, &held);
        if (!held && atomic_load_explicit(&a->busy, memory_order_seq_cst) == 0)
            attachment_unmap_pool(a);
    }
}

void wf_client_drain(struct weft *w)
{
    pthread_mutex_lock(&w->lock);
    wf_client_drain_locked(w);
    pthread_mutex_unlock(&w->lock);
}

/* Nothing new happens on it from here on.  The caller holds the lock. */
static void poison(struct weft *w, struct attachment *a)
{
    atomic_store_explicit(&a->poisoned, true, memory_order_seq_cst);
    if (atomic_load_explicit(&w->current, memory_order_relaxed) == a)
        atomic_store_explicit(&w->current, NULL, memory_order_release);
    wf_client_drain_locked(w);
}

/* Map what HELLO's answer brought.  Sizes come from the descriptors themselves. */
static enum weft_status attachment_map(struct attachment *a, const struct wf_hello_answer *hello,
                                       const int *fds, size_t fd_count)
{
    a->copied = (hello->flags & WF_HELLO_COPIED) != 0;
    if (fd_count != (a->copied ? 4u : 3u))
        return wf_fail(WEFT_E_PROTOCOL, "the node sent %zu segments instead of %d", fd_count,
                       a->copied ? 4 : 3);
    a->index_bytes = wf_file_bytes(fds[0]);
    a->pool_bytes = wf_file_bytes(fds[1]);
    a->pins_bytes = wf_file_bytes(fds[2]);
    enum weft_status status = wf_map(fds[0], a->index_bytes, false, &a->index_memory);
    if (status == WEFT_OK)
        status = wf_index_attach(a->index_memory, a->index_bytes, &a->index);
    if (status == WEFT_OK && a->index.pool_bytes > a->pool_bytes)
        status = wf_fail(WEFT_E_PROTOCOL, "the node's pool segment is shorter than its index says");
    if (status == WEFT_OK)
        status = wf_map(fds[1], a->pool_bytes, !a->copied, (void **)&a->pool);
    if (status == WEFT_OK)
        status = wf_map(fds[2], a->pins_bytes, true, &a->pins_memory);
    if (status == WEFT_OK)
        status = wf_pins_attach(a->pins_memory, a->pins_bytes, &a->pins);
    if (status == WEFT_OK && a->copied) {
        a->staging_bytes = wf_file_bytes(fds[3]);
        status = wf_map(fds[3], a->staging_bytes, true, (void **)&a->staging);
        if (status == WEFT_OK) {
            a->staged = wf_calloc(a->staging_bytes / WF_GRANULE + 1, 1, "the staging map");
            status = a->staged ? WEFT_OK : WEFT_E_NO_MEMORY;
        }
    }
    if (status == WEFT_OK && (hello->flags & WF_HELLO_THP))
        wf_advise_huge(a->pool, a->pool_bytes);
    return status;
}

/* Who listens where nobody told us to look must be us or root: anyone may make a directory in /tmp.
 */
static enum weft_status listener_check(const struct weft *w, int fd)
{
    struct wf_peer peer;
    enum weft_status status = wf_socket_peer(fd, &peer);
    if (status == WEFT_OK && peer.uid != geteuid() && peer.uid != 0)
        status = wf_fail(WEFT_E_DENIED,
                         "the node at %s runs as user %u, who is neither you nor root; name it by "
                         "--socket or WEFT_SOCKET if you trust it",
                         w->socket, peer.uid);
    return status;
}

/* Connect to the node that was named, or else to this user's, or else to the host's. */
static enum weft_status reach(struct weft *w, int *out_fd)
{
    int fd = -1;
    enum weft_status status = wf_socket_connect(w->socket, w->timeout_ms, &fd);
    bool of_host = strcmp(w->socket, WF_SOCKET_OF_HOST) == 0;
    if (w->search && !of_host && status == WEFT_OK) {
        status = listener_check(w, fd);
        if (status != WEFT_OK)
            close(fd);
    } else if (w->search && !of_host && status == WEFT_E_NODE) {
        status = wf_socket_connect(WF_SOCKET_OF_HOST, w->timeout_ms, &fd);
        if (status == WEFT_E_NODE)
            status = wf_fail(WEFT_E_NODE,
                             "no node at %s, nor at %s; start weftd, or name its socket by "
                             "--socket or WEFT_SOCKET",
                             w->socket, WF_SOCKET_OF_HOST);
    }
    if (status == WEFT_OK)
        *out_fd = fd;
    return status;
}

/* The caller holds the lock. */
static enum weft_status attachment_create(struct weft *w, struct attachment **out)
{
    struct attachment *a = wf_calloc(1, sizeof *a, "a connection");
    if (!a)
        return WEFT_E_NO_MEMORY;
    a->fd = -1;
    a->epoch = ++w->epochs;
    int fds[WF_SOCKET_FDS_MAX];
    size_t fd_count = 0;
    enum weft_status status = reach(w, &a->fd);
    if (status == WEFT_OK) {
        struct wf_hello *hello = (struct wf_hello *)(void *)w->request;
        memset(hello, 0, sizeof *hello);
        memcpy(hello->domain, w->domain, strlen(w->domain));
        memcpy(hello->token, w->token, strlen(w->token));
        status = wf_client_exchange(w, a, WF_OP_HELLO, sizeof *hello,
                                    sizeof(struct wf_hello_answer), fds, &fd_count);
    }
    if (status == WEFT_OK) {
        WF_CRASH("client.hello.answered");
        status = attachment_map(a, (const struct wf_hello_answer *)(const void *)w->answer, fds,
                                fd_count);
        wf_close_all(fds, fd_count);
    }
    if (status != WEFT_OK) {
        attachment_destroy(a);
        return status;
    }
    a->next = w->attachments;
    w->attachments = a;
    *out = a;
    return WEFT_OK;
}

struct attachment *wf_client_attach_anew(struct weft *w, enum weft_status *status)
{
    *status = WEFT_OK;
    if (wf_client_forked(w)) {
        *status =
            wf_fail(WEFT_E_FORKED,
                    "this handle was made before fork(); the child calls weft_connect() itself");
        return NULL;
    }
    pthread_mutex_lock(&w->lock);
    struct attachment *a = atomic_load_explicit(&w->current, memory_order_relaxed);
    if (a && !wf_attachment_good(a)) {
        poison(w, a);
        a = NULL;
    }
    if (!a && w->last_silence_ms && wf_now_ms() - w->last_silence_ms < RETRY_MS) {
        *status = wf_fail(WEFT_E_NODE, "the node at %s did not answer a moment ago", w->socket);
    } else if (!a) {
        /* One that is missing is found missing at once, so that each call may look. */
        w->silent = false;
        *status = attachment_create(w, &a);
        w->last_silence_ms = w->silent ? wf_now_ms() : 0;
        if (*status == WEFT_OK) {
            if (w->epochs > 1)
                atomic_fetch_add_explicit(&w->reconnects, 1, memory_order_relaxed);
            /* Release: who loads `current` sees the attachment's fields. */
            atomic_store_explicit(&w->current, a, memory_order_release);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return *status == WEFT_OK ? a : NULL;
}

/* ------------------------------------------------------------------------------------ exchange */

static enum weft_status answer_check(struct weft *w, enum wf_op op, size_t bytes, size_t least)
{
    const struct wf_message *answer = w->answer;
    if (bytes < sizeof *answer || answer->magic != WF_CONTROL_MAGIC || answer->bytes != bytes ||
        answer->version != WF_CONTROL_VERSION)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the node at %s answers in another protocol; use the libweft that came "
                       "with weftd",
                       w->socket);
    /* op 0 is the node's last word to a client that it does not understand. */
    if (answer->op != op && !(answer->op == 0 && answer->status < 0) &&
        !(answer->op == WF_OP_HELLO && answer->status < 0))
        return wf_fail(WEFT_E_PROTOCOL, "the node at %s answers op %u with op %u", w->socket, op,
                       answer->op);
    if (answer->status >= 0 && (answer->sequence != w->sequence || bytes < least))
        return wf_fail(WEFT_E_PROTOCOL, "the node at %s answers op %u with %zu bytes out of turn",
                       w->socket, op, bytes);
    return WEFT_OK;
}

enum weft_status wf_client_exchange(struct weft *w, struct attachment *a, enum wf_op op,
                                    size_t bytes, size_t answer_least, int *fds, size_t *fd_count)
{
    size_t got = 0, count = 0;
    int received[WF_SOCKET_FDS_MAX];
    if (atomic_load_explicit(&a->poisoned, memory_order_relaxed))
        return wf_fail(WEFT_E_NODE, "the connection to the node at %s was lost", w->socket);
    *w->request = (struct wf_message){
        .magic = WF_CONTROL_MAGIC,
        .op = (uint16_t)op,
        .version = WF_CONTROL_VERSION,
        .bytes = (uint32_t)bytes,
        .sequence = ++w->sequence,
    };
    enum weft_status status = wf_socket_send(a->fd, w->request, bytes, NULL, 0);
    /* A node that has hung up may have said why before. */
    if (status == WEFT_OK || (status == WEFT_E_NODE && wf_socket_readable(a->fd)))
        status = wf_socket_receive(a->fd, w->answer, WF_MESSAGE_MAX, &got, received, &count);
    w->silent = status == WEFT_PENDING;
    if (w->silent)
        status = wf_fail(WEFT_E_NODE, "the node at %s did not answer within %u ms", w->socket,
                         w->timeout_ms);
    if (status == WEFT_OK)
        status = answer_check(w, op, got, answer_least);
    if (status != WEFT_OK) {
        wf_close_all(received, count);
        poison(w, a);
        return status;
    }
    if (w->answer->status < 0) {
        wf_close_all(received, count);
        const struct wf_text_answer *text = (const struct wf_text_answer *)(const void *)w->answer;
        return wf_fail((enum weft_status)w->answer->status, "%.*s", (int)(got - sizeof *text),
                       text->text);
    }
    if (fds) {
        memcpy(fds, received, count * sizeof *fds);
        *fd_count = count;
    } else {
        wf_close_all(received, count);
    }
    return (enum weft_status)w->answer->status;
}

/* -------------------------------------------------------------------------------------- public */

static const char *choose(const char *given, const char *variable, const char *otherwise)
{
    if (!given)
        given = getenv(variable);
    return given && *given ? given : otherwise;
}

static enum weft_status weft_fill_in(struct weft *w, const struct weft_connect_options *options)
{
    struct weft_connect_options none = {.timeout_ms = 0};
    const struct weft_connect_options *o = options ? options : &none;
    char path[WF_SOCKET_PATH_MAX + 1];
    enum weft_status status = WEFT_OK;
    if (!o->socket)
        status = wf_default_socket(path, sizeof path);
    if (status != WEFT_OK)
        return status;
    const char *domain = choose(o->domain, "WEFT_DOMAIN", "default");
    const char *token = choose(o->token, "WEFT_TOKEN", "");
    if (strlen(domain) >= WF_NAME_BYTES || strlen(token) >= WF_TOKEN_BYTES)
        return wf_fail(WEFT_E_INVALID, "a domain's name has up to %d bytes, a token up to %d",
                       WF_NAME_BYTES - 1, WF_TOKEN_BYTES - 1);
    const char *named = getenv("WEFT_SOCKET");
    w->search = !o->socket && !(named && *named);
    w->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS_DEFAULT;
    w->socket = wf_strdup(o->socket ? o->socket : path, "a connection");
    w->domain = wf_strdup(domain, "a connection");
    w->token = wf_strdup(token, "a connection");
    w->request = wf_calloc(1, WF_MESSAGE_MAX, "a message");
    w->answer = wf_calloc(1, WF_MESSAGE_MAX, "a message");
    if (!w->socket || !w->domain || !w->token || !w->request || !w->answer)
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for a connection");
    return WEFT_OK;
}

enum weft_status weft_connect(const struct weft_connect_options *options, struct weft **out)
{
    pthread_once(&forks_watched, watch_forks);
    struct weft *w = wf_calloc(1, sizeof *w, "a connection");
    if (!w)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&w->lock, NULL);
    w->fork_generation = atomic_load_explicit(&wf_client_forks, memory_order_relaxed);
    enum weft_status status = weft_fill_in(w, options);
    if (status == WEFT_OK)
        wf_client_attach(w, &status);
    if (status != WEFT_OK) {
        weft_close(w);
        return status;
    }
    *out = w;
    return WEFT_OK;
}

void weft_close(struct weft *w)
{
    if (!w)
        return;
    while (w->attachments) {
        struct attachment *a = w->attachments;
        w->attachments = a->next;
        attachment_destroy(a);
    }
    pthread_mutex_destroy(&w->lock);
    free(w->socket);
    free(w->domain);
    free(w->token);
    free(w->request);
    free(w->answer);
    free(w);
}

const char *weft_version(void)
{
    return WF_VERSION;
}
