/* SPDX-License-Identifier: Apache-2.0
 *
 * Lend, reclaim, fence, query.
 */
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "client/client.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define KEEP_TRIES 600u /* of KEEP_NAP_NS: longer than the node tries itself */
#define KEEP_NAP_NS 10000000u
#define NEWS_NAP_NS 20000000u /* far longer than news is on its way */

#define FENCE_MS 10000u /* the node answers within that */

static enum weft_status lend_or_reclaim(struct weft *w, enum wf_op op, const char *size,
                                        uint32_t within_ms, uint64_t *out)
{
    uint64_t bytes = 0;
    enum weft_status status = wf_size_parse(size, &bytes);
    struct attachment *a = status == WEFT_OK ? wf_client_attach(w, &status) : NULL;
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_lend *request = (struct wf_lend *)(void *)w->request;
    memset(request, 0, sizeof *request);
    request->size = bytes;
    request->within_ms = within_ms;
    /* The node answers when it is done, at the latest after within_ms. */
    wf_socket_timeout(a->fd, within_ms + w->timeout_ms);
    status = wf_client_exchange(w, a, op, sizeof *request, sizeof(struct wf_count_answer), NULL,
                                NULL);
    if (a->fd >= 0)
        wf_socket_timeout(a->fd, w->timeout_ms);
    if (status >= 0 && out)
        *out = ((const struct wf_count_answer *)(const void *)w->answer)->count;
    pthread_mutex_unlock(&w->lock);
    return status;
}

enum weft_status weft_lend(struct weft *w, const char *size, uint64_t *out_pool_bytes)
{
    return lend_or_reclaim(w, WF_OP_LEND, size, 0, out_pool_bytes);
}

enum weft_status weft_reclaim(struct weft *w, const char *size, uint32_t within_ms,
                              uint64_t *out_reclaimed)
{
    return lend_or_reclaim(w, WF_OP_RECLAIM, size, within_ms, out_reclaimed);
}

enum weft_status weft_fence(struct weft *w, const char *tier, uint32_t host, int force)
{
    enum weft_status status = WEFT_OK;
    if (!tier || !*tier || strlen(tier) >= sizeof((struct wf_fence *)0)->tier)
        return wf_fail(WEFT_E_INVALID, "a fence needs the name of a tier, like \"cxl0\"");
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_fence *request = (struct wf_fence *)(void *)w->request;
    memset(request, 0, sizeof *request);
    memcpy(request->tier, tier, strlen(tier));
    request->host = host;
    request->flags = force ? WF_FENCE_FORCE : 0;
    wf_socket_timeout(a->fd, FENCE_MS + w->timeout_ms);
    status = wf_client_exchange(w, a, WF_OP_FENCE, sizeof *request, sizeof(struct wf_message), NULL,
                                NULL);
    if (a->fd >= 0)
        wf_socket_timeout(a->fd, w->timeout_ms);
    pthread_mutex_unlock(&w->lock);
    return status;
}

/* What is said of the fabric: its message is that, but for its head. */
static enum weft_status fabric_say(struct weft *w, const struct wf_fabric_say_message *say)
{
    enum weft_status status = WEFT_OK;
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_fabric_say_message *request = (struct wf_fabric_say_message *)(void *)w->request;
    *request = *say;
    status = wf_client_exchange(w, a, WF_OP_FABRIC, sizeof *request, sizeof(struct wf_message),
                                NULL, NULL);
    pthread_mutex_unlock(&w->lock);
    return status;
}

static enum weft_status name_set(const char *name, char out[WF_NAME_BYTES])
{
    if (!*name || strlen(name) >= WF_NAME_BYTES)
        return wf_fail(WEFT_E_INVALID,
                       "a name has 1 to %d characters, not %zu; weft fabric and weft ls domains "
                       "have them",
                       WF_NAME_BYTES - 1, strlen(name));
    memcpy(out, name, strlen(name) + 1);
    return WEFT_OK;
}

/* What a registry keeps takes a moment. */
static enum weft_status fabric_say_until(struct weft *w, const struct wf_fabric_say_message *say)
{
    enum weft_status status = fabric_say(w, say);
    for (uint32_t i = 0; status == WEFT_PENDING && i < KEEP_TRIES; i++) {
        wf_nap(KEEP_NAP_NS);
        status = fabric_say(w, say);
    }
    return status != WEFT_PENDING
               ? status
               : wf_fail(WEFT_E_TIMEOUT, "the node cannot say whether it was kept");
}

enum weft_status weft_hand_over(struct weft *w, const struct weft_key *tip, const char *node)
{
    struct wf_fabric_say_message say = {.what = WF_SAY_HAND_OVER};
    memcpy(say.tip, tip->bytes, sizeof say.tip);
    enum weft_status status = name_set(node ? node : "", say.name);
    return status == WEFT_OK ? fabric_say(w, &say) : status;
}

enum weft_status weft_remove_everywhere(struct weft_format *f, const struct weft_key *key,
                                        int timeout_ms, size_t *out_removed)
{
    uint64_t until_ns = wf_now_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000;
    struct wf_fabric_say_message say = {.what = WF_SAY_FORGET};
    memcpy(say.tip, key->bytes, sizeof say.tip);
    bool nowhere = false;
    enum weft_status here = wf_client_remove(f, key, WF_OP_REMOVE_EVERYWHERE, out_removed);
    if (here != WEFT_OK && here != WEFT_MISS)
        return here;
    for (uint64_t pause_ns = 1000000;; pause_ns = pause_ns < 100000000 ? 2 * pause_ns : pause_ns) {
        enum weft_status status = fabric_say(f->weft, &say);
        /* Said twice: of a copy that was just made the word may have been on its way. */
        bool sure = nowhere || status != WEFT_OK;
        nowhere = status == WEFT_OK;
        if ((status != WEFT_E_BUSY && sure) || wf_now_ns() >= until_ns)
            return status == WEFT_OK ? here : status;
        wf_nap(nowhere ? NEWS_NAP_NS : (uint32_t)pause_ns);
    }
}

enum weft_status weft_fabric_allot(struct weft *w, const char *lender, const char *name,
                                   uint64_t most, uint64_t least)
{
    struct wf_fabric_say_message say = {.what = WF_SAY_ALLOT, .bytes = most, .least = least};
    enum weft_status status = name_set(name ? name : "", say.name);
    if (status == WEFT_OK && lender)
        status = name_set(lender, say.lender);
    return status == WEFT_OK ? fabric_say_until(w, &say) : status;
}

enum weft_status weft_fabric_lend(struct weft *w, const char *lender, uint64_t bytes)
{
    struct wf_fabric_say_message say = {.what = WF_SAY_LEND, .bytes = bytes};
    enum weft_status status = lender ? name_set(lender, say.lender) : WEFT_OK;
    return status == WEFT_OK ? fabric_say_until(w, &say) : status;
}

enum weft_status weft_fabric_drain(struct weft *w, int on)
{
    return fabric_say(w, &(struct wf_fabric_say_message){.what = WF_SAY_DRAIN, .bytes = on != 0});
}

enum weft_status weft_fabric_limit(struct weft *w, enum weft_limit what, const char *name,
                                   uint64_t value)
{
    struct wf_fabric_say_message say = {.what = WF_SAY_LIMIT, .limit = what, .bytes = value};
    enum weft_status status = name || what != WEFT_LIMIT_LINK ? name_set(name ? name : "", say.name)
                                                              : WEFT_OK;
    return status == WEFT_OK ? fabric_say(w, &say) : status;
}

enum weft_status weft_query(struct weft *w, const char *what, uint64_t cursor, char **out_json)
{
    enum weft_status status = WEFT_OK;
    if (!what || strlen(what) >= sizeof((struct wf_query *)0)->what)
        return wf_fail(WEFT_E_INVALID, "a query needs a word, like \"status\"");
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    char *text = NULL;
    pthread_mutex_lock(&w->lock);
    struct wf_query *request = (struct wf_query *)(void *)w->request;
    memset(request, 0, sizeof *request);
    memcpy(request->what, what, strlen(what));
    request->cursor = cursor;
    status = wf_client_exchange(w, a, WF_OP_QUERY, sizeof *request, sizeof(struct wf_message), NULL,
                                NULL);
    if (status == WEFT_OK) {
        size_t length = w->answer->bytes - sizeof *w->answer;
        text = wf_calloc(length + 1, 1, "the node's answer");
        if (text)
            memcpy(text, ((const struct wf_text_answer *)(const void *)w->answer)->text, length);
        else
            status = WEFT_E_NO_MEMORY;
    } else if (status > 0) {
        status = wf_fail(status, "%.*s", (int)(w->answer->bytes - sizeof *w->answer),
                         ((const struct wf_text_answer *)(const void *)w->answer)->text);
    }
    pthread_mutex_unlock(&w->lock);
    if (status == WEFT_OK)
        *out_json = text;
    return status;
}

void weft_text_free(char *text)
{
    free(text);
}
