/* SPDX-License-Identifier: Apache-2.0
 *
 * Allotments: what a lender lends, and how much of it each node may have at most and is due at
 * least.  They are settings of the cluster (member/member.h), one a lender, so that any node may
 * say them, and the lender has them again after a restart:
 *
 *     lend.NAME   {"most": 17179869184, "lend": 8589934592,
 *                  "nodes": {"host-7": {"max": 4294967296, "min": 1073741824}}}
 *
 * `most` is the lender's own word, its fabric.lend, which it says when it is a member and the
 * setting says otherwise; the rest is operators', and missing where nobody said it.  A change is
 * one transaction on the revision that was read: who was overtaken reads it again, CHANGE_TRIES
 * times.  What the setting says takes effect at the lender when its watch brings it.
 *
 * A change is asked for by any thread, again and again until it is done (wf_fabric_allot); the
 * fabric's carries it out.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define CHANGE_TRIES 8u
#define CHANGE_NS 5000000000u  /* until it is done, or has failed */
#define FORGET_NS 60000000000u /* a result that nobody asked for */
#define PUBLISH_AGAIN_NS 2000000000u
#define NODES_MAX 512u /* with an allotment, of a lender */
#define WENT_MAX 64u

/* ------------------------------------------------------------------------------------ the text */

static enum weft_status setting_name(const char *lender, char out[WF_SETTING_NAME_MAX + 1])
{
    if (strlen(lender) + strlen("lend.") > WF_SETTING_NAME_MAX)
        return wf_fail(WEFT_E_LIMIT,
                       "'%s' is too long a name for a lender whose allotments are kept: %zu bytes "
                       "are the most",
                       lender, WF_SETTING_NAME_MAX - strlen("lend."));
    snprintf(out, WF_SETTING_NAME_MAX + 1, "lend.%s", lender);
    return WEFT_OK;
}

static uint64_t number_of(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

/* What is lent, as the setting says: no more than there is. */
static uint64_t lent_of(const json_t *setting)
{
    uint64_t most = number_of(setting, "most");
    const json_t *said = json_object_get(setting, "lend");
    return json_is_integer(said) && number_of(setting, "lend") < most ? number_of(setting, "lend")
                                                                      : most;
}

static uint64_t least_of(const json_t *setting)
{
    const char *name;
    json_t *node;
    uint64_t sum = 0;
    json_object_foreach (json_object_get(setting, "nodes"), name, node)
        sum += number_of(node, "min");
    return sum;
}

/* Of a lender; new reference, an empty object where there is none.  *out_revision: 0 then. */
static json_t *setting_read(struct wf_fabric *f, const char *name, uint64_t *out_revision)
{
    json_t *setting = NULL;
    *out_revision = 0;
    if (f->member_ops->setting(f->members, name, f->setting_text, WF_SETTING_MAX + 1,
                               out_revision) == WEFT_OK)
        setting = json_loads(f->setting_text, 0, NULL);
    if (json_is_object(setting))
        return setting;
    json_decref(setting);
    return json_object();
}

/* ------------------------------------------------------------------------------------- changes */

static enum weft_status allot_change(json_t *setting, const struct wf_change *change)
{
    json_t *nodes = json_object_get(setting, "nodes");
    if (!json_is_object(nodes)) {
        nodes = json_object();
        json_object_set_new(setting, "nodes", nodes);
    }
    json_object_del(nodes, change->node);
    if (change->most || change->least)
        json_object_set_new(nodes, change->node,
                            json_pack("{s:I, s:I}", "max", (json_int_t)change->most, "min",
                                      (json_int_t)change->least));
    if (json_object_size(nodes) > NODES_MAX)
        return wf_fail(WEFT_E_LIMIT, "%u nodes have an allotment of %s already", NODES_MAX,
                       change->lender);
    return WEFT_OK;
}

/* What the change makes of the setting. */
static enum weft_status setting_change(json_t *setting, const struct wf_change *change)
{
    uint64_t most = number_of(setting, "most");
    char wanted[16], there[16];
    if (change->kind == WF_CHANGE_PUBLISH) {
        json_object_set_new(setting, "most", json_integer((json_int_t)change->most));
        return WEFT_OK;
    }
    if (most == 0)
        return wf_fail(WEFT_E_INVALID,
                       "no node called '%s' lends memory, as far as is known (weft fabric lists "
                       "them); set fabric.lend there",
                       change->lender);
    if (change->kind == WF_CHANGE_LEND) {
        if (change->most > most)
            return wf_fail(WEFT_E_INVALID, "%s are more than fabric.lend of %s, which is %s",
                           wf_size_format(change->most, wanted, sizeof wanted), change->lender,
                           wf_size_format(most, there, sizeof there));
        json_object_set_new(setting, "lend", json_integer((json_int_t)change->most));
    } else {
        enum weft_status status = allot_change(setting, change);
        if (status != WEFT_OK)
            return status;
    }
    if (least_of(setting) > lent_of(setting))
        return wf_fail(WEFT_E_INVALID,
                       "%s are due at least to all nodes together then, and %s lends %s; give "
                       "some of them less (--min)",
                       wf_size_format(least_of(setting), wanted, sizeof wanted), change->lender,
                       wf_size_format(lent_of(setting), there, sizeof there));
    return WEFT_OK;
}

static void change_end(struct wf_change *change, enum weft_status status)
{
    change->state = WF_CHANGE_DONE;
    change->status = status;
    snprintf(change->sentence, sizeof change->sentence, "%s", status < 0 ? wf_last_error() : "");
}

/* Of what this node lends, as it says of itself: who looks after the cluster hears of it once. */
static bool is_to_be_told(struct wf_fabric *f, const struct wf_change *change)
{
    if (change->kind != WF_CHANGE_PUBLISH || change->state != WF_CHANGE_DONE)
        return false;
    bool before = f->publish_fails;
    f->publish_fails = change->status < 0;
    return f->publish_fails && !before;
}

/* From the registry. */
static void was_set(void *context, enum weft_status status)
{
    struct wf_change *change = context;
    struct wf_fabric *f = change->fabric;
    char why[WF_ERROR_MAX];
    snprintf(why, sizeof why, "%s", wf_last_error());
    pthread_mutex_lock(&f->lock);
    if (status == WEFT_E_BUSY && ++change->tries < CHANGE_TRIES)
        change->state = WF_CHANGE_NEW; /* somebody was faster: on what there is now */
    else if (status == WEFT_OK || (!f->strict && status != WEFT_E_BUSY))
        change_end(change, status); /* a list says why its file cannot be written */
    else if (status == WEFT_E_BUSY)
        change_end(change, wf_fail(status, "others change the allotments of %s all the time",
                                   change->lender));
    else
        change_end(change, wf_fail(status, "nothing is changed for %s: %s", change->lender, why));
    bool told = is_to_be_told(f, change);
    pthread_mutex_unlock(&f->lock);
    if (told)
        wf_fabric_say(f, "what this node lends is not known to the others: %.180s",
                      wf_last_error());
}

/* The lock is not held, but for what is said of its end. */
static void change_begin(struct wf_fabric *f, struct wf_change *change)
{
    char name[WF_SETTING_NAME_MAX + 1], *text = NULL;
    uint64_t revision = 0;
    json_t *setting = NULL;
    enum weft_status status = setting_name(change->lender, name);
    if (status == WEFT_OK && !f->strict && strcmp(change->lender, f->name) != 0)
        status =
            wf_fail(WEFT_E_INVALID,
                    "these nodes have a list of each other and no registry: say it on %s itself",
                    change->lender);
    if (status == WEFT_OK && (change->most || change->least) && change->node[0] &&
        strcmp(change->node, f->name) != 0 && !wf_peer_find(f, change->node))
        status = wf_fail(WEFT_E_NOT_FOUND,
                         "no node is called '%s', of those that are there; weft fabric lists them",
                         change->node);
    if (status == WEFT_OK) {
        setting = setting_read(f, name, &revision);
        if (change->tries && revision == change->revision) { /* not heard of it yet */
            json_decref(setting);
            return;
        }
        status = setting_change(setting, change);
    }
    if (status == WEFT_OK && !(text = json_dumps(setting, JSON_COMPACT | JSON_SORT_KEYS)))
        status = WEFT_E_NO_MEMORY;
    change->revision = revision;
    pthread_mutex_lock(&f->lock);
    change->state = WF_CHANGE_SETTING;
    pthread_mutex_unlock(&f->lock);
    if (status == WEFT_OK)
        status = f->member_ops->set(f->members, name, text, revision, was_set, change);
    if (status != WEFT_OK) {
        pthread_mutex_lock(&f->lock);
        change_end(change, status);
        pthread_mutex_unlock(&f->lock);
    }
    free(text);
    json_decref(setting);
}

/* ---------------------------------------------------------------------------------- any thread */

static bool same(const struct wf_change *a, const struct wf_change *b)
{
    return a->kind == b->kind && a->most == b->most && a->least == b->least &&
           strcmp(a->lender, b->lender) == 0 && strcmp(a->node, b->node) == 0;
}

static enum weft_status ask(struct wf_fabric *f, const struct wf_change *wanted)
{
    struct wf_change *unused = NULL, *found = NULL;
    enum weft_status status = WEFT_PENDING;
    char sentence[WF_ERROR_MAX] = "";
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < WF_CHANGES_MAX && !found; i++) {
        struct wf_change *change = &f->changes[i];
        if (change->state == WF_CHANGE_FREE)
            unused = unused ? unused : change;
        else if (same(change, wanted))
            found = change;
    }
    if (found && found->state == WF_CHANGE_DONE) {
        status = found->status;
        snprintf(sentence, sizeof sentence, "%s", found->sentence);
        found->state = WF_CHANGE_FREE;
    } else if (!found && unused) {
        *unused = *wanted;
        unused->fabric = f;
        unused->since_ns = wf_fabric_now(f);
        unused->state = WF_CHANGE_NEW;
    } else if (!found) {
        status = WEFT_E_BUSY;
        snprintf(sentence, sizeof sentence, "%u allotments are being changed; try again",
                 WF_CHANGES_MAX);
    }
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
    return status < 0 ? wf_fail(status, "%s", sentence) : status;
}

static enum weft_status named(const char *lender, const char *own, char *out)
{
    const char *name = lender && lender[0] ? lender : own;
    if (strlen(name) > WF_MEMBER_NAME_MAX)
        return wf_fail(WEFT_E_INVALID, "'%.80s' is no node's name", name);
    snprintf(out, WF_MEMBER_NAME_MAX + 1, "%s", name);
    return WEFT_OK;
}

enum weft_status wf_fabric_allot(struct wf_fabric *f, const char *lender, const char *node,
                                 uint64_t most, uint64_t least)
{
    struct wf_change change = {.kind = WF_CHANGE_ALLOT, .most = most, .least = least};
    char due[16], may[16];
    if (most && least > most)
        return wf_fail(WEFT_E_INVALID,
                       "what is due at least, %s, is more than what there may be at most, %s",
                       wf_size_format(least, due, sizeof due),
                       wf_size_format(most, may, sizeof may));
    if (most > INT64_MAX || least > INT64_MAX)
        return wf_fail(WEFT_E_INVALID, "no node has so much memory");
    enum weft_status status = named(lender, f->name, change.lender);
    if (status == WEFT_OK)
        status = named(node, "", change.node);
    if (status == WEFT_OK && (most || least) && strcmp(change.lender, change.node) == 0)
        status = wf_fail(WEFT_E_INVALID, "%s lends to the others, and nothing to itself",
                         change.node);
    return status == WEFT_OK ? ask(f, &change) : status;
}

enum weft_status wf_fabric_lend(struct wf_fabric *f, const char *lender, uint64_t bytes)
{
    struct wf_change change = {.kind = WF_CHANGE_LEND, .most = bytes};
    if (bytes > INT64_MAX)
        return wf_fail(WEFT_E_INVALID, "no node has so much memory");
    enum weft_status status = named(lender, f->name, change.lender);
    return status == WEFT_OK ? ask(f, &change) : status;
}

/* ------------------------------------------------------------------------------- at the lender */

/* What went since `before`, as the end of a sentence; false: nothing did. */
static bool went_since(const struct wf_fabric *f, const struct wf_lent_stats *before,
                       char out[WENT_MAX])
{
    struct wf_lent_stats lent;
    char size[16];
    wf_lent_stats(f->lent, &lent);
    uint64_t blocks = lent.evicted - before->evicted;
    out[0] = '\0';
    if (blocks)
        snprintf(out, WENT_MAX, "; %llu block%s, %s, went for it", (unsigned long long)blocks,
                 blocks == 1 ? "" : "s",
                 wf_size_format(lent.evicted_bytes - before->evicted_bytes, size, sizeof size));
    return blocks > 0;
}

void wf_allot_resize(struct wf_fabric *f, uint64_t bytes)
{
    struct wf_lent_stats before;
    char went[WENT_MAX], size[16];
    wf_lent_stats(f->lent, &before);
    wf_lent_resize(f->lent, bytes);
    if (went_since(f, &before, went))
        wf_fabric_say(f, "this node lends %s, and no other lender took all that is beyond%s",
                      wf_size_format(bytes, size, sizeof size), went);
}

/* What is beyond goes elsewhere first, where there is an elsewhere.  An order is told of; what the
 * setting says when this node starts is none. */
static void lend_so_much(struct wf_fabric *f, uint64_t bytes, bool order)
{
    struct wf_lent_stats before, lent;
    char went[WENT_MAX], size[16];
    wf_lent_stats(f->lent, &before);
    bool draining = atomic_load_explicit(&f->draining, memory_order_relaxed);
    bool later = before.used_bytes > bytes && f->lenders_free_bytes > 0 && !draining;
    if (later)
        wf_lent_shrink(f->lent, bytes);
    else
        wf_lent_resize(f->lent, bytes);
    wf_lent_stats(f->lent, &lent);
    bool some = went_since(f, &before, went);
    if (some || (order && lent.bytes != before.bytes))
        wf_fabric_say(f, "this node lends %s from now on%s%s",
                      wf_size_format(bytes, size, sizeof size),
                      later ? "; what is beyond goes to other lenders, as far as they have room"
                            : "",
                      went);
    wf_moves_soon(f);
}

/* What the setting says of this node's own memory. */
void wf_allot_heard(void *fabric, const char *name, const char *value, uint64_t revision)
{
    struct wf_fabric *f = fabric;
    char own[WF_SETTING_NAME_MAX + 1];
    (void)revision;
    if (!f->lent || setting_name(f->name, own) != WEFT_OK || strcmp(name, own) != 0)
        return;
    json_t *setting = value ? json_loads(value, 0, NULL) : NULL;
    bool order = f->allotments != NULL;
    json_decref(f->allotments);
    f->allotments = setting;
    uint64_t most = f->options.lend_bytes;
    const json_t *said = json_object_get(setting, "lend");
    uint64_t lend = json_is_integer(said) ? number_of(setting, "lend") : most;
    lend_so_much(f, lend < most ? lend : most, order);
    for (uint32_t i = 0; i < f->peer_count; i++) {
        f->peers[i].ordered |= order && f->peers[i].allotted;
        f->peers[i].allotted = false;
    }
    f->publish_ns = 0;
    wf_figures_change(f);
}

void wf_allot_peer(struct wf_fabric *f, struct wf_peer_node *peer)
{
    struct wf_lent_owner was;
    struct wf_lent_stats before;
    char went[WENT_MAX], due[64] = "", may[16], size[16];
    if (peer->allotted)
        return;
    const json_t *node = json_object_get(json_object_get(f->allotments, "nodes"), peer->name);
    uint64_t most = number_of(node, "max"), least = number_of(node, "min");
    wf_lent_owner(f->lent, peer->number, &was);
    wf_lent_stats(f->lent, &before);
    wf_lent_least(f->lent, peer->number, least);
    wf_lent_limit(f->lent, peer->number, most);
    if (least)
        snprintf(due, sizeof due, ", and is due %s at least",
                 wf_size_format(least, size, sizeof size));
    bool changed = most != was.limit_bytes || least != was.least_bytes;
    if (went_since(f, &before, went) || (changed && peer->ordered))
        wf_fabric_say(f, "%s may have %s of what this node lends%s%s", peer->name,
                      most ? wf_size_format(most, may, sizeof may) : "its part", due, went);
    peer->ordered = false;
    peer->allotted = true;
}

/* Its own word is said when the setting has another. */
static void publish(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_change change = {.kind = WF_CHANGE_PUBLISH, .most = f->options.lend_bytes};
    char name[WF_SETTING_NAME_MAX + 1];
    uint64_t revision;
    if (f->standing.state != WF_STANDING_MEMBER || now_ns < f->publish_ns ||
        setting_name(f->name, name) != WEFT_OK)
        return;
    f->publish_ns = now_ns + PUBLISH_AGAIN_NS;
    json_t *setting = setting_read(f, name, &revision);
    bool right = number_of(setting, "most") == change.most;
    json_decref(setting);
    snprintf(change.lender, sizeof change.lender, "%s", f->name);
    if (!right && (f->lent || revision))
        (void)ask(f, &change);
    else
        f->publish_ns = UINT64_MAX; /* until it is heard of */
}

void wf_allots_run(struct wf_fabric *f, uint64_t now_ns)
{
    publish(f, now_ns);
    for (uint32_t i = 0; i < WF_CHANGES_MAX; i++) {
        struct wf_change *change = &f->changes[i];
        pthread_mutex_lock(&f->lock);
        enum wf_change_state state = change->state;
        bool old = now_ns > change->since_ns + FORGET_NS;
        bool own = change->kind == WF_CHANGE_PUBLISH;
        if (state == WF_CHANGE_DONE && (old || own))
            change->state = WF_CHANGE_FREE;
        if (state == WF_CHANGE_NEW && now_ns > change->since_ns + CHANGE_NS) {
            change_end(change, wf_fail(WEFT_E_NODE,
                                       "the registry does not answer, so nothing is changed for %s",
                                       change->lender));
            state = WF_CHANGE_DONE;
        }
        pthread_mutex_unlock(&f->lock);
        if (state == WF_CHANGE_NEW)
            change_begin(f, change);
    }
}

void wf_allots_destroy(struct wf_fabric *f)
{
    json_decref(f->allotments);
    free(f->setting_text);
    f->allotments = NULL;
    f->setting_text = NULL;
}
