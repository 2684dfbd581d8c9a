/* SPDX-License-Identifier: Apache-2.0
 *
 * The claim of a prefix, the index made from what the bucket lists, and the probes of a store that
 * failed.
 *
 * `owner` is an object of four lines: what this is, a random number of this opening, the process
 * for people, a digest of the host.  It is created only if there is none (If-None-Match), renewed
 * every 15 s, and deleted by a clean close.  Who finds one that another host renewed within a
 * minute, by the server's clock, is refused.  One that the same host left is taken over at once, so
 * that a node is back as soon as it is started again; of two nodes of one host on one prefix, the
 * first learns at its next renewal that it has lost it and fails.  It does not take the prefix
 * back: who had it open before
 * (`held`) waits until the other deletes its claim or renews it no more, wherever that one runs.
 * Until then both write, which harms neither: no two packs have one name.
 *
 * The index comes from a list of the prefix: index objects are read whole, then the footer of each
 * pack that none of them has.
 *
 * All of it together has a limit: so many seconds, and one more for each MiB that came, so that a
 * large index over a slow line is waited for, and a server that sends a byte now and then is not.
 */
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/s3_store.h"

#define LIST_BYTES (8u << 20) /* of one page; 1000 keys of 1 KiB and more, escaped */
#define TAIL_BYTES (16u << 10)
#define INDEX_BYTES_MAX (512ull << 20)
#define OPEN_MS 120000u         /* for credentials */
#define OPEN_BYTES_S (1u << 20) /* of what is opened; slower than that is too slow */
#define WHY_MAX 240             /* a sentence with who has the prefix */
#define PROBE_MS_MAX 30000u
#define PAGES_MAX (WF_S3_PACKS_MAX / 500)

/* ------------------------------------------------------------------ one at a time */

struct result {
    bool ended;
    enum wf_s3_outcome outcome;
    long status;
    uint64_t got;
    time_t date, modified;
    char error[160];
};

/* Let things go on.  When opening has taken too long, all that is under way ends, and so does all
 * that is begun from then on. */
static void run(struct wf_s3 *t)
{
    uint64_t seconds = t->open_seconds + t->http.got_bytes / OPEN_BYTES_S;
    bool over = wf_now_ms() - t->open_begun_ms > 1000 * seconds;
    wf_s3_http_run(&t->http, over ? 0 : 100);
    if (!over)
        return;
    char why[80];
    snprintf(why, sizeof why, "opening it took longer than %llu s, and was given up",
             (unsigned long long)seconds);
    wf_s3_http_cancel_all(&t->http, why);
}

static void waited(void *context, struct wf_s3_call *call)
{
    struct result *result = call->user;
    (void)context;
    *result = (struct result){true,      call->outcome, call->status,
                              call->got, call->date,    call->modified,
                              ""};
    snprintf(result->error, sizeof result->error, "%s", call->error);
}

static struct wf_s3_call *take(struct wf_s3 *t, enum wf_s3_method method, const char *name)
{
    struct wf_s3_call *call = wf_s3_http_take(&t->http); /* there are more than opening uses */
    call->method = method;
    snprintf(call->name, sizeof call->name, "%s", name);
    return call;
}

static struct result wait_for(struct wf_s3 *t, struct wf_s3_call *call)
{
    struct result result = {.ended = false};
    call->user = &result;
    call->done = waited;
    wf_s3_http_start(&t->http, call);
    while (!result.ended)
        run(t);
    return result;
}

static enum weft_status refused(const struct wf_s3 *t, const char *what, const char *error)
{
    return wf_fail(WEFT_E_SYSTEM,
                   "tier %s: %s: %s; look at the endpoint, the bucket and the credentials", t->path,
                   what, error);
}

/* ------------------------------------------------------------------------- the owner */

static void host_digest(char out[65])
{
    char text[300] = "";
    uint8_t digest[SHA256_DIGEST_LENGTH];
    FILE *file = fopen("/etc/machine-id", "re");
    size_t bytes = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    if (bytes < 32 && gethostname(text, sizeof text - 1) == 0)
        bytes = strlen(text);
    SHA256((const uint8_t *)text, bytes, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void owner_write(struct wf_s3 *t)
{
    char host[65], name[65] = "unknown host";
    host_digest(host);
    (void)gethostname(name, sizeof name - 1);
    snprintf(t->owner, sizeof t->owner,
             "weft object store tier, version %u\nid %016" PRIx64
             "\nnode process %ld on %s\nhost %s\n",
             WF_S3_VERSION, t->owner_id, (long)getpid(), name, host);
}

/* Who wrote `owner`, for people: what anyone could have written there, without what is not for a
 * terminal. */
static const char *owner_name(const char *owner, char out[96])
{
    const char *line = strstr(owner, "\nnode ");
    size_t length = 0;
    snprintf(out, 96, "another node");
    if (!line)
        return out;
    line += strlen("\nnode ");
    while (line[length] > ' ' - 1 && line[length] <= '~' && length < 80)
        length++;
    if (length)
        snprintf(out, 96, "another node (%.*s)", (int)length, line);
    return out;
}

static bool owner_has_id(const char *owner, uint64_t id)
{
    char line[32];
    snprintf(line, sizeof line, "\nid %016" PRIx64 "\n", id);
    return strstr(owner, line) != NULL;
}

/* Returns `out`. */
static const char *taken_over(const char *owner, char out[WHY_MAX])
{
    char name[96];
    snprintf(out, WHY_MAX,
             "%s took the prefix over; this one stays off it until that one stops, or this is "
             "started anew: give each a prefix of its own",
             owner_name(owner, name));
    return out;
}

/* The lines from "host" on are the same for every opening by one host. */
static bool same_host(const char *a, const char *b)
{
    const char *x = strstr(a, "\nhost "), *y = strstr(b, "\nhost ");
    return x && y && !strcmp(x, y);
}

static struct wf_s3_call *owner_get(struct wf_s3 *t)
{
    struct wf_s3_call *call = take(t, WF_S3_GET, "owner");
    call->room = (uint8_t *)t->owner_read;
    call->room_bytes = sizeof t->owner_read - 1;
    memset(t->owner_read, 0, sizeof t->owner_read);
    return call;
}

static struct wf_s3_call *owner_put(struct wf_s3 *t)
{
    struct wf_s3_call *call = take(t, WF_S3_PUT, "owner");
    call->body = t->owner;
    call->body_bytes = strlen(t->owner);
    return call;
}

static enum weft_status in_use(const struct wf_s3 *t, long seconds)
{
    char name[WHY_MAX];
    if (t->held)
        return wf_fail(WEFT_E_BUSY, "tier %s: %s", t->path, taken_over(t->owner_read, name));
    return wf_fail(
        WEFT_E_BUSY,
        "tier %s: %s uses this prefix (it said so %ld s ago); give this node a prefix of "
        "its own, or stop the other and wait a minute",
        t->path, owner_name(t->owner_read, name), seconds);
}

static enum weft_status claim(struct wf_s3 *t)
{
    struct result there = wait_for(t, owner_get(t)), put;
    t->owner_id = wf_s3_random(&t->http);
    owner_write(t);
    if (there.outcome != WF_S3_DONE && there.outcome != WF_S3_MISSING)
        return refused(t, "it cannot be opened", there.error);
    bool ours = t->held ? owner_has_id(t->owner_read, t->held) : same_host(t->owner, t->owner_read);
    if (there.outcome == WF_S3_DONE && there.got && !ours) {
        long age = (long)(there.date - there.modified);
        if (there.date <= 0 || there.modified <= 0 || age < WF_S3_CLAIM_SECONDS)
            return in_use(t, age);
    }
    struct wf_s3_call *call = owner_put(t);
    call->new = there.outcome == WF_S3_MISSING;
    put = wait_for(t, call);
    if (put.status == 501) /* a store without conditional writes */
        put = wait_for(t, owner_put(t));
    if (put.outcome == WF_S3_THERE)
        return in_use(t, 0);
    if (put.outcome != WF_S3_DONE)
        return refused(t, "it cannot be written", put.error);
    there = wait_for(t, owner_get(t));
    if (there.outcome != WF_S3_DONE)
        return refused(t, "what was written cannot be read", there.error);
    t->renew_ms = wf_now_ms() + WF_S3_RENEW_MS;
    return strcmp(t->owner, t->owner_read) == 0 ? WEFT_OK : in_use(t, 0);
}

static void let_go(void *context, struct wf_s3_call *call)
{
    (void)context, (void)call;
}

void wf_s3_owner_release(struct wf_s3 *t)
{
    if (t->failed || t->lost)
        return;
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return;
    call->method = WF_S3_DELETE;
    snprintf(call->name, sizeof call->name, "%s", "owner");
    call->impatient = true;
    call->done = let_go;
    uint32_t before = t->http.calls_used - 1;
    wf_s3_http_start(&t->http, call);
    (void)wf_s3_settle(t, before, wf_now_ms() + 2000);
}

/* -------------------------------------------------------------- renewals and probes */

static void back(struct wf_s3 *t)
{
    t->failed = false;
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++)
        t->buffers[i].again_ms = 0;
}

static void renewed(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    t->renewing = t->probing = false;
    t->renew_ms = wf_now_ms() + WF_S3_RENEW_MS;
    if (call->outcome == WF_S3_DONE && t->failed)
        back(t);
    else if (call->outcome != WF_S3_DONE)
        wf_s3_trouble(t, call, "the claim could not be renewed");
}

static void looked(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    char why[WHY_MAX];
    t->owner_read[sizeof t->owner_read - 1] = '\0';
    if (call->outcome == WF_S3_DONE && strcmp(t->owner, t->owner_read) != 0) {
        t->renewing = t->probing = false;
        t->lost = true;
        wf_s3_fail(t, taken_over(t->owner_read, why));
    } else if (call->outcome == WF_S3_DONE || call->outcome == WF_S3_MISSING) {
        struct wf_s3_call *put = wf_s3_http_take(&t->http);
        if (!put) {
            t->renewing = t->probing = false;
            return;
        }
        put->method = WF_S3_PUT;
        snprintf(put->name, sizeof put->name, "%s", "owner");
        put->body = t->owner;
        put->body_bytes = strlen(t->owner);
        put->done = renewed;
        wf_s3_http_start(&t->http, put);
    } else {
        t->renewing = t->probing = false;
        t->renew_ms = wf_now_ms() + WF_S3_RENEW_MS;
        wf_s3_trouble(t, call, "the claim could not be looked at");
    }
}

static void look(struct wf_s3 *t, bool impatient)
{
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return;
    t->renewing = true;
    memset(t->owner_read, 0, sizeof t->owner_read);
    call->method = WF_S3_GET;
    snprintf(call->name, sizeof call->name, "%s", "owner");
    call->room = (uint8_t *)t->owner_read;
    call->room_bytes = sizeof t->owner_read - 1;
    call->impatient = impatient;
    call->done = looked;
    wf_s3_http_start(&t->http, call);
}

void wf_s3_owner_step(struct wf_s3 *t, uint64_t now)
{
    if (t->lost || t->closing || t->renewing)
        return;
    if (t->failed && now >= t->probe_ms) {
        t->probe_wait_ms = t->probe_wait_ms * 2 < PROBE_MS_MAX ? t->probe_wait_ms * 2
                                                               : PROBE_MS_MAX;
        t->probe_ms = now + t->probe_wait_ms / 2 + wf_s3_random(&t->http) % t->probe_wait_ms;
        (void)wf_s3_credentials_begin(t); /* they may have been mended */
        look(t, true);
    } else if (!t->failed && now >= t->renew_ms) {
        look(t, false);
    }
}

uint64_t wf_s3_owner_wake(const struct wf_s3 *t)
{
    if (t->lost || t->closing || t->renewing)
        return 0;
    return t->failed ? t->probe_ms : t->renew_ms;
}

/* -------------------------------------------------------------------------- the list */

struct listing {
    struct wf_s3 *t;
    bool uploads, full;
};

static void listed(void *context, const struct wf_s3_found *found)
{
    struct listing *list = context;
    struct wf_s3 *t = list->t;
    const char *prefix = t->http.target.prefix;
    uint64_t number, tag;
    if (strncmp(found->key, prefix, strlen(prefix)) != 0)
        return;
    const char *name = found->key + strlen(prefix);
    if (wf_s3_name_read(name, 'p', &number, &tag)) {
        uint32_t at = wf_s3_slot_take(t);
        list->full = list->full || at == WF_TIER_NONE;
        if (at == WF_TIER_NONE)
            return;
        struct wf_s3_slot *s = &t->slots[at];
        s->number = number;
        s->tag = tag;
        s->object_bytes = found->bytes <= WF_S3_OBJECT_MAX ? (uint32_t)found->bytes : 0;
        s->state = WF_S3_SLOT_STORED;
    } else if (wf_s3_name_read(name, 'i', &number, &tag)) {
        uint32_t at = 1;
        while (at < WF_S3_INDEXES_MAX && t->reclaim.indexes[at].state != WF_S3_INDEX_FREE)
            at++;
        if (at == WF_S3_INDEXES_MAX)
            return; /* its packs' own footers are read */
        t->reclaim.indexes[at] = (struct wf_s3_index_object){.number = number,
                                                             .tag = tag,
                                                             .bytes = found->bytes,
                                                             .state = WF_S3_INDEX_STORED};
        if (at >= t->reclaim.indexes_used)
            t->reclaim.indexes_used = at + 1;
    } else {
        return;
    }
    if (number >= t->next_number && number < UINT64_MAX / 2)
        t->next_number = number + 1;
}

static void stale_upload(void *context, const struct wf_s3_found *found)
{
    struct listing *list = context;
    struct wf_s3 *t = list->t;
    char id[3 * WF_S3_UPLOAD_MAX];
    const char *prefix = t->http.target.prefix;
    if (strncmp(found->key, prefix, strlen(prefix)) != 0 ||
        strlen(found->key + strlen(prefix)) >= 64 ||
        !wf_s3_encode(found->upload, false, id, sizeof id))
        return;
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return; /* the next open sees it again */
    call->method = WF_S3_DELETE;
    snprintf(call->name, sizeof call->name, "%s", found->key + strlen(prefix));
    snprintf(call->query, sizeof call->query, "uploadId=%s", id);
    call->done = let_go;
    wf_s3_http_start(&t->http, call);
}

/* One page; *more says whether there is another, from `answer->next` on. */
static enum weft_status list_page(struct wf_s3 *t, uint8_t *room, const char *from,
                                  struct wf_s3_answer *answer)
{
    struct listing list = {.t = t};
    char prefix[3 * WF_S3_PREFIX_MAX], token[3 * WF_S3_KEY_MAX] = "";
    struct wf_s3_call *call = take(t, WF_S3_GET, "");
    (void)wf_s3_encode(t->http.target.prefix, false, prefix, sizeof prefix);
    (void)wf_s3_encode(from, false, token, sizeof token);
    snprintf(call->query, sizeof call->query, "%s%s%slist-type=2&prefix=%s",
             *from ? "continuation-token=" : "", token, *from ? "&" : "", prefix);
    call->room = room;
    call->room_bytes = LIST_BYTES;
    struct result result = wait_for(t, call);
    if (result.outcome != WF_S3_DONE)
        return refused(t, "its objects cannot be listed", result.error);
    if (!wf_s3_xml_read(room, result.got, answer, listed, &list) ||
        strcmp(answer->root, "ListBucketResult") != 0)
        return refused(t, "its objects cannot be listed", "the answer is no list");
    if (list.full)
        return wf_fail(WEFT_E_LIMIT, "tier %s: there are more than %u packs; use another prefix",
                       t->path, WF_S3_PACKS_MAX);
    return WEFT_OK;
}

static void abort_uploads(struct wf_s3 *t, uint8_t *room)
{
    struct listing list = {.t = t};
    struct wf_s3_answer answer;
    char prefix[3 * WF_S3_PREFIX_MAX];
    struct wf_s3_call *call = take(t, WF_S3_GET, "");
    (void)wf_s3_encode(t->http.target.prefix, false, prefix, sizeof prefix);
    snprintf(call->query, sizeof call->query, "prefix=%s&uploads=", prefix);
    call->room = room;
    call->room_bytes = LIST_BYTES;
    struct result result = wait_for(t, call);
    if (result.outcome == WF_S3_DONE)
        (void)wf_s3_xml_read(room, result.got, &answer, stale_upload, &list);
}

static int by_name(const void *a, const void *b)
{
    const struct wf_s3_slot *x = a, *y = b;
    return x->number != y->number ? (x->number < y->number ? -1 : 1)
           : x->tag != y->tag     ? (x->tag < y->tag ? -1 : 1)
                                  : 0;
}

/* --------------------------------------------------------------------- blocks of packs */

static void load_entry(struct wf_s3 *t, uint32_t slot, const struct wf_s3_entry *entry)
{
    struct wf_s3_slot *s = &t->slots[slot];
    struct wf_tier_block block;
    wf_s3_entry_block(entry, &block);
    uint32_t bytes = (uint32_t)wf_s3_record_bytes(&block);
    uint32_t there = wf_tier_index_find(&t->index, block.key);
    if (there != WF_TIER_NONE) {
        uint32_t other = t->index.items[there].group;
        if (other == slot || t->slots[other].number > s->number)
            return; /* the later one counts */
        wf_s3_forget(t, there);
    }
    if (wf_tier_index_insert(&t->index, &block, ++t->sequence, slot, (uint32_t)entry->offset) ==
        WF_TIER_NONE)
        return;
    s->live += bytes;
    s->dead -= bytes;
    s->count++;
    t->live_bytes += bytes;
    t->dead_bytes -= bytes;
}

/* Entries of one pack must not lie over each other, or its bytes would be counted twice. */
static bool entries_right(const struct wf_s3_footer *footer, const uint8_t *entries)
{
    uint64_t sum = sizeof(struct wf_s3_pack);
    for (uint32_t i = 0; i < footer->count; i++) {
        struct wf_s3_entry entry;
        struct wf_tier_block block;
        memcpy(&entry, entries + i * sizeof entry, sizeof entry);
        if (!wf_s3_entry_right(&entry, footer))
            return false;
        wf_s3_entry_block(&entry, &block);
        sum += wf_s3_record_bytes(&block);
    }
    return sum <= footer->records_bytes;
}

static bool load(struct wf_s3 *t, uint32_t slot, const struct wf_s3_footer *footer,
                 const uint8_t *entries)
{
    struct wf_s3_slot *s = &t->slots[slot];
    if (!entries_right(footer, entries))
        return false;
    s->loaded = true;
    s->dead = (uint32_t)(footer->records_bytes - sizeof(struct wf_s3_pack));
    t->dead_bytes += s->dead;
    for (uint32_t i = 0; i < footer->count; i++) {
        struct wf_s3_entry entry;
        memcpy(&entry, entries + i * sizeof entry, sizeof entry);
        load_entry(t, slot, &entry);
    }
    return true;
}

static void load_index(struct wf_s3 *t, uint32_t at, const uint8_t *data, uint64_t bytes)
{
    struct wf_s3_index_object *index = &t->reclaim.indexes[at];
    struct wf_s3_walk walk;
    if (!wf_s3_walk_begin(&walk, data, bytes)) {
        t->stats.corrupt++;
        return;
    }
    while (wf_s3_walk_next(&walk)) {
        struct wf_s3_slot key = {.number = walk.footer.number, .tag = walk.footer.tag};
        struct wf_s3_slot *s = bsearch(&key, t->slots, t->slots_used, sizeof *t->slots, by_name);
        if (!s || s->loaded || walk.footer.object_bytes != s->object_bytes)
            continue;
        if (!load(t, (uint32_t)(s - t->slots), &walk.footer, walk.entries))
            continue;
        s->index = (uint16_t)at;
        index->packs++;
    }
    t->stats.corrupt += walk.left != 0;
    index->large = index->packs >= WF_S3_GATHER * WF_S3_GATHER_MORE / 2;
    t->reclaim.small += !index->large && index->packs;
}

/* One call of several that are on their way while the index is made. */
struct loading {
    uint32_t next; /* of the free ones */
    uint32_t at;   /* slot, or index */
    uint64_t from, bytes;
    uint8_t *room;
    bool exact;
};

struct loader {
    struct loading *loading;
    uint32_t count, free, busy;
    enum weft_status status;
    char error[160];
};

static void loading_end(struct loader *l, struct loading *one)
{
    free(one->room);
    one->room = NULL;
    one->next = l->free;
    l->free = (uint32_t)(one - l->loading);
    l->busy--;
}

static void loaded_index(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct loader *l = t->loader;
    struct loading *one = call->user;
    if (call->outcome == WF_S3_DONE)
        load_index(t, one->at, one->room, call->got);
    else if (call->outcome != WF_S3_MISSING)
        t->stats.errors++; /* the packs' own footers are read instead */
    loading_end(l, one);
}

static void loaded_footer(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct loader *l = t->loader;
    struct loading *one = call->user;
    struct wf_s3_slot *s = &t->slots[one->at];
    struct wf_s3_footer footer;
    if (call->outcome == WF_S3_MISSING) {
        s->object_bytes = 0;
    } else if (call->outcome != WF_S3_DONE) {
        l->status = WEFT_E_SYSTEM;
        snprintf(l->error, sizeof l->error, "%s", call->error);
    } else {
        memcpy(&footer, one->room + one->bytes - sizeof footer, sizeof footer);
        uint64_t entries = (uint64_t)footer.count * sizeof(struct wf_s3_entry) + sizeof footer;
        if (!wf_s3_footer_heads(&footer, s->number, s->tag, s->object_bytes)) {
            s->object_bytes = 0;
        } else if (entries > one->bytes) { /* once more, all of them */
            uint8_t *room = wf_realloc(one->room, entries, "a footer");
            if (room) {
                one->room = room;
                one->bytes = entries;
                call->room = room;
                call->room_bytes = call->bytes = entries;
                call->from = s->object_bytes - entries;
                wf_s3_http_start(&t->http, call);
                return;
            }
            l->status = WEFT_E_NO_MEMORY;
        } else {
            const uint8_t *at = one->room + one->bytes - entries;
            if (!wf_s3_footer_right(&footer, at) || !load(t, one->at, &footer, at))
                s->object_bytes = 0;
        }
        t->stats.corrupt += s->object_bytes == 0;
    }
    loading_end(l, one);
}

static bool load_begin(struct wf_s3 *t, struct loader *l, const char *name, uint32_t at,
                       uint64_t from, uint64_t bytes, void (*done)(void *, struct wf_s3_call *))
{
    while (l->free == WF_TIER_NONE)
        run(t);
    struct loading *one = &l->loading[l->free];
    one->room = wf_calloc(bytes, 1, "a tier's index");
    if (!one->room)
        return false;
    l->free = one->next;
    l->busy++;
    one->at = at;
    one->bytes = bytes;
    struct wf_s3_call *call = take(t, WF_S3_GET, name);
    call->from = from;
    call->bytes = bytes;
    call->room = one->room;
    call->room_bytes = bytes;
    call->user = one;
    call->done = done;
    wf_s3_http_start(&t->http, call);
    return true;
}

static void load_wait(struct wf_s3 *t, const struct loader *l)
{
    while (l->busy)
        run(t);
}

static bool load_indexes(struct wf_s3 *t, struct loader *l)
{
    char name[WF_S3_NAME_MAX];
    for (uint32_t i = 1; i < t->reclaim.indexes_used; i++) {
        const struct wf_s3_index_object *index = &t->reclaim.indexes[i];
        if (index->bytes < sizeof(struct wf_s3_index) || index->bytes > INDEX_BYTES_MAX) {
            t->stats.corrupt++;
            continue;
        }
        wf_s3_name_write(name, 'i', index->number, index->tag);
        if (!load_begin(t, l, name, i, 0, index->bytes, loaded_index))
            return false;
    }
    load_wait(t, l);
    return true;
}

static bool load_footers(struct wf_s3 *t, struct loader *l)
{
    char name[WF_S3_NAME_MAX];
    for (uint32_t i = 0; i < t->slots_used && l->status == WEFT_OK; i++) {
        struct wf_s3_slot *s = &t->slots[i];
        uint64_t bytes = s->object_bytes < TAIL_BYTES ? s->object_bytes : TAIL_BYTES;
        if (s->loaded)
            continue;
        if (bytes < sizeof(struct wf_s3_pack) + sizeof(struct wf_s3_footer)) {
            s->object_bytes = 0;
            t->stats.corrupt++;
            continue;
        }
        wf_s3_name_write(name, 'p', s->number, s->tag);
        if (!load_begin(t, l, name, i, s->object_bytes - bytes, bytes, loaded_footer))
            return false;
    }
    load_wait(t, l);
    return true;
}

/* A pack whose footer cannot be read is left where it is, for someone to look at. */
static void sort_out(struct wf_s3 *t)
{
    for (uint32_t i = 0; i < t->slots_used; i++) {
        struct wf_s3_slot *s = &t->slots[i];
        if (!s->object_bytes || !s->loaded) {
            wf_s3_slot_give(t, i);
            continue;
        }
        t->reclaim.uncovered += s->index == 0;
        if (s->count == 0 && s->state == WF_S3_SLOT_STORED)
            wf_s3_leave(t, i);
    }
}

static enum weft_status make_index(struct wf_s3 *t)
{
    struct loader l = {.status = WEFT_OK, .free = WF_TIER_NONE};
    l.count = t->queue_depth < 64 ? t->queue_depth : 64;
    l.loading = wf_calloc(l.count, sizeof *l.loading, "a tier's index");
    if (!l.loading)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = l.count; i-- > 0;) {
        l.loading[i].next = l.free;
        l.free = i;
    }
    t->loader = &l;
    qsort(t->slots, t->slots_used, sizeof *t->slots, by_name);
    bool good = load_indexes(t, &l) && load_footers(t, &l);
    load_wait(t, &l);
    t->loader = NULL;
    free(l.loading);
    if (!good)
        return WEFT_E_NO_MEMORY;
    if (l.status == WEFT_E_SYSTEM)
        return refused(t, "a pack's footer cannot be read", l.error);
    if (l.status == WEFT_OK)
        sort_out(t);
    return l.status;
}

static enum weft_status find_credentials(struct wf_s3 *t)
{
    uint64_t until = wf_now_ms() + OPEN_MS;
    enum weft_status status = wf_s3_credentials_begin(t);
    while (status == WEFT_PENDING && t->fetch.busy && wf_now_ms() < until)
        wf_s3_http_run(&t->http, 100);
    if (status == WEFT_PENDING)
        status = t->http.credentials.access[0] ? WEFT_OK : WEFT_MISS;
    if (status == WEFT_MISS)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: no credentials in the environment, in ~/.aws or from this "
                       "machine's service; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                       t->path);
    return status;
}

enum weft_status wf_s3_recover(struct wf_s3 *t)
{
    struct wf_s3_answer answer;
    char from[WF_S3_KEY_MAX] = "";
    enum weft_status status = find_credentials(t);
    t->open_begun_ms = wf_now_ms();
    if (status == WEFT_OK)
        status = claim(t);
    if (status != WEFT_OK)
        return status;
    t->next_number = 1;
    uint8_t *room = malloc(LIST_BYTES);
    if (!room)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for the list of tier %s", t->path);
    for (uint32_t page = 0; page < PAGES_MAX && status == WEFT_OK; page++) {
        status = list_page(t, room, from, &answer);
        if (status != WEFT_OK || !answer.truncated || !answer.next[0])
            break;
        snprintf(from, sizeof from, "%s", answer.next);
    }
    if (status == WEFT_OK)
        abort_uploads(t, room);
    free(room);
    if (status == WEFT_OK)
        status = make_index(t);
    t->reclaim.indexes_used = t->reclaim.indexes_used ? t->reclaim.indexes_used : 1;
    return status;
}
