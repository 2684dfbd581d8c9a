/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives: asking for one, as often as it takes, and letting go.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/client.h"
#include "sys/clock.h"

#define NAP_NS 1000000 /* between two questions, beside the time that the node takes for one */

static void answer_take(const struct wf_archive_answer *answer, struct weft_archived *out)
{
    *out = (struct weft_archived){.blocks = answer->blocks,
                                  .written = answer->written,
                                  .bytes = answer->bytes};
    memcpy(out->name, answer->name, strnlen(answer->name, sizeof out->name - 1));
    memcpy(out->tier, answer->tier, strnlen(answer->tier, sizeof out->tier - 1));
}

static enum weft_status exchange(struct weft *w, struct attachment *a, uint32_t format,
                                 uint32_t flags, const char *name, const struct weft_key *tip,
                                 struct weft_archived *out)
{
    pthread_mutex_lock(&w->lock);
    struct wf_archive *request = (struct wf_archive *)(void *)w->request;
    const struct wf_archive_answer *answer =
        (const struct wf_archive_answer *)(const void *)w->answer;
    memset(request, 0, sizeof *request);
    request->format = format;
    request->flags = flags;
    if (tip)
        memcpy(request->tip, tip->bytes, sizeof request->tip);
    memcpy(request->name, name, strlen(name));
    enum weft_status status = wf_client_exchange(w, a, WF_OP_ARCHIVE, sizeof *request,
                                                 sizeof *answer, NULL, NULL);
    if (status >= 0)
        answer_take(answer, out);
    if (status == WEFT_FULL)
        status = wf_fail(WEFT_FULL, "%.*s", (int)strnlen(answer->sentence, sizeof answer->sentence),
                         answer->sentence);
    pthread_mutex_unlock(&w->lock);
    return status;
}

static enum weft_status name_check(const char *name)
{
    if (!name || !name[0] || strlen(name) > 64)
        return wf_fail(WEFT_E_INVALID, "an archive's name has %zu bytes; give 1 to 64",
                       name ? strlen(name) : (size_t)0);
    return WEFT_OK;
}

enum weft_status weft_archive_keys(struct weft_format *f, const char *name,
                                   const struct weft_key *tip, uint32_t timeout_ms,
                                   struct weft_archived *out)
{
    uint64_t until_ns = wf_now_ns() + (uint64_t)timeout_ms * 1000000u;
    enum weft_status status = name_check(name);
    struct weft_archived archived = {.blocks = 0};
    if (status != WEFT_OK)
        return status;
    for (;;) {
        struct attachment *a = wf_client_attach(f->weft, &status);
        const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
        if (!binding)
            return status;
        status = exchange(f->weft, a, (uint32_t)binding->id, 0, name, tip, &archived);
        if (status != WEFT_PENDING || wf_now_ns() >= until_ns)
            break;
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
    if (status >= 0 && out)
        *out = archived;
    return status;
}

enum weft_status weft_archive(struct weft_session *s, uint32_t timeout_ms,
                              struct weft_archived *out)
{
    struct weft_key tip;
    char name[72];
    if (!wf_session_tip(s, &tip))
        return wf_fail(WEFT_E_INVALID, "the session has no chain yet: nothing was matched or "
                                       "committed");
    snprintf(name, sizeof name, "%s", wf_session_name(s));
    if (!name[0]) {
        size_t at = (size_t)snprintf(name, sizeof name, "session-");
        for (size_t i = 0; i < 8; i++)
            at += (size_t)snprintf(name + at, sizeof name - at, "%02x", tip.bytes[i]);
    }
    return weft_archive_keys(wf_session_format(s), name, &tip, timeout_ms, out);
}

enum weft_status weft_archive_remove(struct weft *w, const char *name)
{
    struct weft_archived archived;
    enum weft_status status = name_check(name);
    uint64_t until_ns = wf_now_ns() + (uint64_t)w->timeout_ms * 1000000u;
    while (status >= 0) {
        struct attachment *a = wf_client_attach(w, &status);
        if (!a)
            return status;
        status = exchange(w, a, 0, WF_ARCHIVE_REMOVE, name, NULL, &archived);
        if (status != WEFT_PENDING)
            break;
        if (wf_now_ns() >= until_ns)
            return wf_fail(WEFT_PENDING,
                           "archive '%s' is not durably gone after %u ms: its tier has not flushed "
                           "yet, or the node still reads which archives it has; call again to hear "
                           "how it ends",
                           name, w->timeout_ms);
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
    return status;
}
