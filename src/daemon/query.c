/* SPDX-License-Identifier: Apache-2.0
 *
 * QUERY: what is there, as JSON.  Lists come in pages that fit one message; "next" says where to go
 * on.
 *
 * A client sees its own domain.  The node's own user, in any domain, sees the node's sums as well,
 * because they are that user's memory.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/devices.h"
#include "daemon/engines.h"
#include "daemon/fabric.h"
#include "daemon/gateway.h"
#include "daemon/huge.h"
#include "daemon/node.h"
#include "daemon/profiles.h"
#include "daemon/query.h"
#include "daemon/telemetry.h"
#include "daemon/topology.h"
#include "sys/clock.h"

void wf_query_hex(const uint8_t *bytes, size_t count, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * count] = 0;
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* The share of blocks that were there when an engine asked.  Engines match before they pin, so
 * their pins hit nearly always and say nothing; who never matches is judged by the pins. */
static double hit_rate(const struct wf_use *use)
{
    uint64_t asked = use->asked ? use->asked : use->pins + use->misses;
    uint64_t there = use->asked ? use->matched : use->pins;
    return asked ? (double)there / (double)asked : 0.0;
}

/* What of the domain lies below DRAM, and what came and went; null: the node has no tiers. */
static json_t *below_json(const struct wf_domain *domain, const struct wf_use *use)
{
    const struct wf_below *below = domain->node->below;
    uint64_t blocks = 0, bytes = 0, archived_bytes = 0;
    if (!below)
        return json_null();
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_directory_sum sum;
        wf_directory_sum(below->directory, i, (uint16_t)domain->id, &sum);
        blocks += sum.blocks;
        bytes += sum.bytes;
        archived_bytes += sum.archived_bytes;
    }
    uint64_t far = use->matched_far < use->matched ? use->matched_far : use->matched;
    json_t *opening = json_array(), *failed = json_array();
    for (uint32_t i = 0; i < below->count; i++) {
        const struct wf_lower *lower = &below->tiers[i];
        if (wf_lower_opening(lower))
            json_array_append_new(opening, json_string(lower->config->name));
        else if (lower->stats.state == WF_MOVER_FAILED && !lower->others)
            json_array_append_new(failed, json_string(lower->config->name));
    }
    double load_us = domain->promoted ? (double)domain->load_us / (double)domain->promoted : 0;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:f, s:I, s:o, s:o}", "copies",
                     (json_int_t)blocks, "bytes", (json_int_t)bytes, "archived_bytes",
                     (json_int_t)archived_bytes, "left_dram", (json_int_t)domain->left_dram,
                     "promoted", (json_int_t)domain->promoted, "promoted_bytes",
                     (json_int_t)domain->promoted_bytes, "loads_lost",
                     (json_int_t)domain->loads_lost, "load_us_mean", load_us, "blocks_matched",
                     (json_int_t)far, "hit_rate",
                     use->asked ? (double)far / (double)use->asked : 0.0, "hidden",
                     (json_int_t)domain->hidden, "opening", opening, "failed", failed);
}

static json_t *domain_json(const struct wf_domain *domain)
{
    static const char *const priorities[] = {"low", "normal", "high"};
    const struct wf_store *store = &domain->store;
    struct wf_use use = wf_node_use(domain);
    json_t *evicted = json_object();
    for (int reason = 0; reason < WF_EVICT_REASONS; reason++)
        json_object_set_new(evicted, wf_evict_reason_name((enum wf_evict_reason)reason),
                            number(domain->evicted[reason]));
    json_t *out = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
                            "s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}",
                            "name", domain->config->name, "writes",
                            domain->config->writes == WF_WRITES_COPIED ? "copied" : "direct",
                            "quota_bytes", (json_int_t)wf_node_quota(domain), "used_bytes",
                            (json_int_t)(store->used_bytes + store->other_bytes), "backed_bytes",
                            (json_int_t)store->backed_bytes, "blocks", (json_int_t)store->blocks,
                            "blocks_reserved", (json_int_t)store->reserved_blocks, "clients",
                            (json_int_t)domain->clients, "sessions", (json_int_t)domain->sessions,
                            "regions", (json_int_t)domain->regions, "puts",
                            (json_int_t)domain->puts, "put_bytes", (json_int_t)domain->put_bytes,
                            "deduplicated", (json_int_t)domain->deduplicated, "full",
                            (json_int_t)domain->fulls, "corrupt", (json_int_t)domain->corrupt,
                            "pins", (json_int_t)use.pins, "misses", (json_int_t)use.misses,
                            "matches", (json_int_t)use.matches, "blocks_asked",
                            (json_int_t)use.asked, "blocks_matched", (json_int_t)use.matched,
                            "bytes_pinned", (json_int_t)use.bytes_pinned, "hit_rate",
                            hit_rate(&use));
    json_object_set_new(out, "quality",
                        json_string(weft_quality_name(wf_domain_quality(domain->config))));
    json_object_set_new(out, "full_for_worth", number(domain->fulls_for_worth));
    json_object_set_new(out, "share",
                        domain->config->share ? number(domain->config->share) : json_null());
    json_object_set_new(out, "priority", json_string(priorities[domain->config->priority]));
    json_object_set_new(out, "due_bytes", number(wf_shares_shown(domain)));
    json_object_set_new(out, "floor_bytes", number(domain->config->floor_bytes));
    json_object_set_new(out, "lent_bytes", number(wf_shares_lent(domain)));
    json_object_set_new(out, "hurried", number(domain->hurried));
    json_object_set_new(out, "evicted", evicted);
    json_object_set_new(out, "below", below_json(domain, &use));
    return out;
}

char *wf_query_status(struct wf_node *node, const struct wf_domain *only)
{
    static const char *const pages[] = {"normal", "thp", "huge"};
    json_t *domains = json_array();
    uint64_t used = node->region_bytes;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        used += node->domains[i].store.used_bytes;
        if (!only || only == &node->domains[i])
            json_array_append_new(domains, domain_json(&node->domains[i]));
    }
    json_t *out = json_pack("{s:s, s:i, s:f, s:s, s:b}", "version", WF_VERSION, "pid",
                            (int)getpid(), "uptime_s",
                            (double)(wf_now_ns() - node->started_ns) / 1e9, "socket",
                            node->config.socket, "draining", node->draining);
    uint64_t made = 0, refused = 0;
    if (node->huge)
        wf_huge_counts(node->huge, &made, &refused);
    /* How full the whole pool is would tell one tenant about the others. */
    if (!only)
        json_object_set_new(out, "pool",
                            json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:I, s:I}", "name", "dram0",
                                      "bytes", (json_int_t)node->pool_bytes, "used_bytes",
                                      (json_int_t)used, "unassigned_bytes",
                                      (json_int_t)node->budget_free, "region_bytes",
                                      (json_int_t)node->region_bytes, "pages", pages[node->pages],
                                      "huge_made_bytes", (json_int_t)made, "huge_refused_bytes",
                                      (json_int_t)refused));
    json_object_set_new(out, "clients", number(only ? only->clients : node->client_count));
    json_object_set_new(out, "sessions", number(only ? only->sessions : node->session_count));
    json_object_set_new(out, "domains", domains);
    if (!only) {
        json_object_set_new(out, "resp", wf_gateway_json(node));
        json_object_set_new(out, "kv_events", wf_gateway_events_json(node));
    }
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}

/* --------------------------------------------------------------------------------------- lists */

bool wf_query_row(json_t *rows, size_t *room, json_t *row)
{
    size_t bytes = json_dumpb(row, NULL, 0, JSON_COMPACT) + 1;
    if (bytes > *room) {
        json_decref(row);
        return false;
    }
    *room -= bytes;
    json_array_append_new(rows, row);
    return true;
}

char *wf_query_page(const char *name, json_t *rows, uint64_t next)
{
    json_t *out = json_pack("{s:o, s:I}", name, rows, "next", (json_int_t)next);
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}

static char *list_blocks(const struct wf_domain *domain, uint64_t cursor)
{
    const struct wf_store *store = &domain->store;
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint64_t slot = cursor;
    for (; slot < wf_arena_slots_used(&store->arena) && json_array_size(rows) < WF_PAGE_ROWS;
         slot++) {
        const struct wf_desc *desc = &store->index.desc[slot];
        uint64_t word = atomic_load_explicit(&desc->word, memory_order_relaxed);
        enum wf_slot_state state = wf_word_state(word);
        if (state != WF_SLOT_COMMITTED && state != WF_SLOT_RESERVED)
            continue;
        uint8_t key[32];
        char text[65];
        wf_desc_key_read(desc, key);
        wf_query_hex(key, sizeof key, text);
        uint32_t parent = atomic_load_explicit(&desc->parent, memory_order_relaxed);
        if (!wf_query_row(
                rows, &room,
                json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:I, s:b, s:s}", "key", text, "state",
                          state == WF_SLOT_COMMITTED ? "committed" : "reserved", "bytes",
                          (json_int_t)atomic_load_explicit(&desc->bytes, memory_order_relaxed),
                          "depth", (json_int_t)wf_word_depth(word), "parent_slot",
                          parent == WF_SLOT_NONE ? (json_int_t)-1 : (json_int_t)parent, "leaf",
                          state == WF_SLOT_COMMITTED && store->slots[slot].child == WF_SLOT_NONE,
                          "age_uses",
                          (json_int_t)store->policy_ops->age(store->policy, (uint32_t)slot),
                          "checked",
                          atomic_load_explicit(&desc->checksum, memory_order_relaxed) != 0,
                          "quality", weft_quality_name(wf_store_quality(store, (uint32_t)slot)))))
            break;
    }
    return wf_query_page("blocks", rows, slot < wf_arena_slots_used(&store->arena) ? slot : 0);
}

/* Blocks below DRAM that one page of sessions looks at; a chain that has more has null for what of
 * it is in DRAM. */
#define SESSION_LOOKS (1u << 16)
#define MARKS 256u
#define MARK_BLOCKS 256u

/* What is looked at for a page.  Many sessions may go on from one chain: every so many blocks one
 * is marked with the walk that came by, and whoever comes there next has what that found. */
struct looks {
    uint32_t left, walk; /* looks; walks before this one */
    struct {
        uint32_t entry, walk; /* walk 0: nobody came by */
    } marks[MARKS];
    uint64_t dram[WF_PAGE_ROWS + 2]; /* by walk, from 1 on */
};

/* Blocks of the chain that ends with `tip`, and how many of these are in DRAM: eviction takes the
 * ends of chains only, so that is its beginning.  Goes up from the tip, a look a block that is
 * below alone.  False: there are more than may be looked at. */
static bool chain_count(const struct wf_domain *domain, const uint8_t tip[32], struct looks *looks,
                        uint64_t *out_blocks, uint64_t *out_dram)
{
    const struct wf_below *below = domain->node->below;
    const struct wf_store *store = &domain->store;
    uint32_t slot = wf_store_find(store, tip);
    uint32_t entry = slot == WF_SLOT_NONE && below ? wf_below_find(domain, tip) : WF_DIRECTORY_NONE;
    struct wf_directory_block block;
    *out_blocks = *out_dram = 0;
    if (slot != WF_SLOT_NONE) {
        uint64_t word = atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed);
        *out_blocks = *out_dram = (uint64_t)wf_word_depth(word) + 1;
        return true;
    }
    uint32_t walk = ++looks->walk;
    while (entry != WF_DIRECTORY_NONE) {
        if (!looks->left)
            return false;
        looks->left--;
        wf_directory_read(below->directory, entry, &block);
        uint32_t at = block.depth / MARK_BLOCKS % MARKS;
        uint64_t blocks = (uint64_t)block.depth + 1;
        *out_blocks = *out_blocks ? *out_blocks : blocks;
        *out_dram = block.in_dram ? blocks : 0;
        if (block.in_dram)
            break;
        if (looks->marks[at].walk && looks->marks[at].entry == entry) {
            *out_dram = looks->dram[looks->marks[at].walk];
            break;
        }
        if (block.depth % MARK_BLOCKS == 0) {
            looks->marks[at].entry = entry;
            looks->marks[at].walk = walk;
        }
        entry = block.parent;
    }
    looks->dram[walk] = *out_dram;
    return true;
}

static char *list_sessions(const struct wf_node *node, const struct wf_domain *domain,
                           uint64_t cursor)
{
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint64_t i = cursor, now_ns = wf_now_ns(), blocks = 0, dram = 0;
    struct looks looks = {.left = SESSION_LOOKS};
    for (; i < node->session_used && json_array_size(rows) < WF_PAGE_ROWS; i++) {
        const struct wf_session_entry *s = &node->sessions[i];
        if (!s->id || s->domain != domain->id)
            continue;
        char tip[65] = "";
        blocks = dram = 0;
        if (s->has_tip)
            wf_query_hex(s->tip, sizeof s->tip, tip);
        bool whole = !s->has_tip || chain_count(domain, s->tip, &looks, &blocks, &dram);
        if (!whole && json_array_size(rows))
            break; /* the next page has looks of its own */
        if (!wf_query_row(rows, &room,
                          json_pack("{s:I, s:o, s:s, s:I, s:s, s:I, s:o, s:I, s:b, s:f, s:I, s:I}",
                                    "session", (json_int_t)s->id, "name", json_string(s->name),
                                    "state", wf_session_state_name(s->state), "priority",
                                    (json_int_t)s->priority, "tip", tip, "blocks",
                                    (json_int_t)blocks, "in_dram",
                                    whole ? json_integer((json_int_t)dram) : json_null(), "pid",
                                    (json_int_t)node->clients[s->client - 1].peer.pid, "held",
                                    s->held, "state_s", (double)(now_ns - s->hinted_ns) / 1e9,
                                    "returns_in_ms", (json_int_t)s->returns_in_ms, "format",
                                    (json_int_t)s->format)))
            break;
    }
    return wf_query_page("sessions", rows, i < node->session_used ? i : 0);
}

static char *list_regions(const struct wf_node *node, const struct wf_domain *domain,
                          uint64_t cursor)
{
    static const char *const shares[] = {"private", "read", "coherent"};
    static const char *const latencies[] = {"normal", "low", "high"};
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint64_t i = cursor;
    for (; i < node->config.regions_max && json_array_size(rows) < WF_PAGE_ROWS; i++) {
        const struct wf_region_entry *r = &node->regions[i];
        if (!r->id || r->domain != domain->id)
            continue;
        if (!wf_query_row(rows, &room,
                          json_pack("{s:I, s:o, s:I, s:s, s:s, s:I}", "region", (json_int_t)r->id,
                                    "name", json_string(r->name), "bytes", (json_int_t)r->bytes,
                                    "share", shares[r->share], "latency", latencies[r->latency],
                                    "holders", (json_int_t)r->holders)))
            break;
    }
    return wf_query_page("regions", rows, i < node->config.regions_max ? i : 0);
}

static char *list_domains(struct wf_node *node, const struct wf_domain *only)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; i < node->domain_count; i++)
        if (!only || only == &node->domains[i])
            json_array_append_new(rows, domain_json(&node->domains[i]));
    return wf_query_page("domains", rows, 0);
}

/* By what its blocks are stored with loss; NULL: they are not, and where its domain would allow it
 * *out_why says why. */
static const char *profile_of(struct wf_node *node, struct wf_format_entry *format,
                              char out_why[256])
{
    const struct wf_profile *profile = wf_coding_profile(node, format);
    out_why[0] = '\0';
    if (!profile && format->quality > WEFT_LOSSLESS)
        (void)wf_profiles_why(node->profiles, format->request, out_why, 256);
    return profile ? wf_profiles_name(node->profiles, profile) : NULL;
}

static char *list_formats(struct wf_node *node, const struct wf_domain *domain, uint64_t cursor)
{
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint64_t i = cursor;
    for (; i < node->format_count && json_array_size(rows) < WF_PAGE_ROWS; i++) {
        struct wf_format_entry *f = &node->formats[i];
        if (f->domain != domain->id)
            continue;
        char digest[65], why[256];
        const char *profile = profile_of(node, f, why);
        wf_query_hex(f->digest, sizeof f->digest, digest);
        if (!wf_query_row(rows, &room,
                          json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:s, s:s?, s:o, s:I}", "format",
                                    (json_int_t)i, "model", f->request->model, "digest", digest,
                                    "block_bytes", (json_int_t)f->block_bytes, "block_tokens",
                                    (json_int_t)f->block_tokens, "layers", (json_int_t)f->layers,
                                    "quality", weft_quality_name(f->quality), "profile", profile,
                                    "profile_why", why[0] ? json_string(why) : json_null(),
                                    "declined", (json_int_t)f->declined)))
            break;
    }
    return wf_query_page("formats", rows, i < node->format_count ? i : 0);
}

/* One by its number, in full. */
static char *format_show(const struct wf_node *node, const struct wf_domain *domain,
                         const char *number, enum weft_status *status)
{
    char *end;
    unsigned long i = strtoul(number, &end, 10);
    if (end == number || *end || i >= node->format_count || node->formats[i].domain != domain->id) {
        *status = WEFT_E_NOT_FOUND;
        return NULL;
    }
    json_t *out = json_object();
    json_object_set_new(out, "format", wf_query_format(node->formats[i].request));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}

static char *archive_show(const struct wf_domain *domain, const char *name, uint64_t cursor,
                          enum weft_status *status)
{
    struct wf_below *below = domain->node->below;
    if (below && wf_archive_find(below->archives, domain, name))
        return wf_archive_show(domain, name, cursor);
    *status = !below || wf_archives_settled(below) ? WEFT_E_NOT_FOUND : WEFT_PENDING;
    return NULL;
}

static enum weft_status not_found(const char *what)
{
    const char *space = strchr(what, ' '), *name = space ? space + 1 : what;
    if (strncmp(what, "archive ", 8) == 0)
        return wf_fail(WEFT_E_NOT_FOUND,
                       "there is no archive '%.96s' in this domain; `weft session ls` lists those "
                       "that there are",
                       name);
    if (strncmp(what, "session ", 8) == 0)
        return wf_fail(WEFT_E_NOT_FOUND,
                       "there is no session '%.96s' in this domain; `weft ls sessions` lists those "
                       "that there are",
                       name);
    if (strncmp(what, "below tier=", 11) == 0)
        return wf_fail(WEFT_E_NOT_FOUND, "there is no tier '%.96s'; `weft ls tiers` lists them",
                       what + 11);
    return wf_fail(WEFT_E_NOT_FOUND,
                   "there is no %.96s in this domain; `weft ls` lists what there is", what);
}

/* Why there is no answer, in words. */
static enum weft_status refused(const struct wf_node *node, const char *what,
                                enum weft_status status)
{
    if (status == WEFT_E_NOT_FOUND)
        return not_found(what);
    if (status == WEFT_E_DENIED)
        return wf_fail(status, "'%s' is only for the node's own user, uid %u, and root", what,
                       (unsigned)node->owner_uid);
    if (status == WEFT_PENDING)
        return wf_fail(status,
                       "'%.96s' is not known yet: the node still reads which archives its tiers "
                       "have; ask again",
                       what);
    return wf_fail(
        status,
        "query '%.31s': ask for status, blocks, below [tier=NAME] [key=DIGITS], "
        "sessions, session WORD, regions, domains, formats, archives, archive NAME, engines "
        "[key=DIGITS], "
        "events or, as the node's user, tiers, profiles, devices, fabric, topology and config",
        what);
}

/* The answer, or NULL and why in *status, which is WEFT_OK before. */
static char *answer_to(const struct wf_client *client, const struct wf_query *request,
                       enum weft_status *status)
{
    struct wf_node *node = client->node;
    struct wf_domain *domain = client->domain;
    bool owner = client->peer.uid == 0 || client->peer.uid == node->owner_uid;
    const struct wf_domain *only = owner ? NULL : domain;
    const char *what = request->what;
    uint64_t cursor = request->cursor;
    if (strcmp(what, "status") == 0)
        return wf_query_status(node, only);
    if (strcmp(what, "blocks") == 0)
        return list_blocks(domain, cursor);
    if (strcmp(what, "sessions") == 0)
        return list_sessions(node, domain, cursor);
    if (strncmp(what, "session ", 8) == 0)
        return wf_query_session(domain, what + 8, cursor, status);
    if (strcmp(what, "regions") == 0)
        return list_regions(node, domain, cursor);
    if (strcmp(what, "domains") == 0)
        return list_domains(node, only);
    if (strcmp(what, "formats") == 0)
        return list_formats(node, domain, cursor);
    if (strncmp(what, "format ", 7) == 0)
        return format_show(node, domain, what + 7, status);
    if (strcmp(what, "engines") == 0)
        return wf_engines_list(domain, owner);
    if (strncmp(what, "engines key=", 12) == 0)
        return wf_engines_key(domain, what + 12, status);
    if (strcmp(what, "archives") == 0)
        return wf_archives_list(domain, cursor);
    if (strncmp(what, "archive ", 8) == 0)
        return archive_show(domain, what + 8, cursor, status);
    if (strcmp(what, "events") == 0)
        return wf_telemetry_events(node, only, cursor);
    if (strcmp(what, "below") == 0 || strncmp(what, "below ", 6) == 0)
        return wf_query_below(domain, what + strlen("below"), cursor, status);
    if (strcmp(what, "fabric") == 0 && owner)
        return wf_query_fabric(node, cursor);
    bool tiers = strcmp(what, "tiers") == 0, devices = strcmp(what, "devices") == 0;
    bool topology = strcmp(what, "topology") == 0, profiles = strcmp(what, "profiles") == 0;
    if (!tiers && !devices && !topology && !profiles && strcmp(what, "config") != 0 &&
        strcmp(what, "fabric") != 0)
        *status = WEFT_E_INVALID;
    else if (!owner)
        *status = WEFT_E_DENIED;
    if (*status != WEFT_OK)
        return NULL;
    return tiers      ? wf_query_tiers(node)
           : devices  ? wf_devices_json(node->below, NULL)
           : topology ? wf_topology_json(node, NULL)
           : profiles ? wf_profiles_list(node->profiles, cursor)
                      : wf_config_json(&node->config);
}

void wf_handle_query(struct wf_client *client, const struct wf_query *request)
{
    struct wf_node *node = client->node;
    const char *what = request->what;
    bool ends = memchr(what, 0, sizeof request->what);
    enum weft_status status = ends ? WEFT_OK : WEFT_E_INVALID;
    char *text = ends ? answer_to(client, request, &status) : NULL;
    struct wf_text_answer *answer = (struct wf_text_answer *)(void *)node->answer;
    size_t length = text ? strlen(text) : 0;
    if (status != WEFT_OK)
        status = refused(node, what, status);
    else if (!text)
        status = wf_fail(WEFT_E_NO_MEMORY, "out of memory for the answer to '%s'", what);
    else if (length > sizeof node->answer - sizeof *answer)
        status = wf_fail(WEFT_E_LIMIT, "the answer to '%s' has %zu bytes, more than a message",
                         what, length);
    if (status == WEFT_OK) {
        memcpy(answer->text, text, length);
        wf_answer(client, &request->message, WEFT_OK, sizeof *answer + length, NULL, 0);
    } else {
        wf_answer_failure(client, &request->message, status);
    }
    free(text);
}
