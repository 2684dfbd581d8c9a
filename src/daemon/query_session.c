/* SPDX-License-Identifier: Apache-2.0
 *
 * QUERY "session WORD": one session, by its number or its name: what it said, where its chain is,
 * what the policy thinks of it, and what would be done next.
 *
 * The keys of its chain go along, by the digits that events have of keys, so that who asks can find
 * what happened to them.
 *
 * The owner looks at a part of a long chain in one answer, from its end on, and who asks goes on
 * where that stopped: the cursor is how many blocks were passed.  These are passed again by their
 * parents' numbers alone, for a block may have moved since, but not its place in the chain.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ahead.h"
#include "daemon/below.h"
#include "daemon/query.h"
#include "sys/clock.h"

#define CHAIN_BLOCKS_MAX 65536u /* a million tokens in blocks of 16 */
#define KEYS_MAX 2048u          /* from its end on */
#define LOOKS 1024u             /* blocks of it in one answer */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* What is no number to JSON is null. */
static json_t *real(double value)
{
    json_t *out = json_real(value);
    return out ? out : json_null();
}

/* ---------------------------------------------------------------------------------- which it is */

/* By number, or by name: of several of that name the one that was hinted last; *alike, how many. */
static const struct wf_session_entry *session_named(const struct wf_domain *domain,
                                                    const char *word, uint32_t *alike)
{
    const struct wf_node *node = domain->node;
    const struct wf_session_entry *found = NULL;
    char *end;
    unsigned long long id = strtoull(word, &end, 10);
    bool digits = end != word && !*end;
    *alike = 0;
    for (uint32_t i = 0; i < node->session_used; i++) {
        const struct wf_session_entry *s = &node->sessions[i];
        if (!s->id || s->domain != domain->id)
            continue;
        if (digits && s->id == id) {
            *alike = 1;
            return s;
        }
        if (strcmp(s->name, word) != 0)
            continue;
        ++*alike;
        if (!found || s->hinted_ns > found->hinted_ns)
            found = s;
    }
    return found;
}

static json_t *session_json(const struct wf_node *node, const struct wf_session_entry *s,
                            uint64_t now_ns)
{
    static const char *const words[] = {[WF_BACK_NONE] = "nothing",
                                        [WF_BACK_SAID] = "waited for",
                                        [WF_BACK_UP] = "up",
                                        [WF_BACK_DECIDED] = "decided",
                                        [WF_BACK_LATE] = "late"};
    json_t *out = json_object();
    bool due = s->back != WF_BACK_NONE;
    json_object_set_new(out, "session", number(s->id));
    json_object_set_new(out, "name", json_string(s->name));
    json_object_set_new(out, "domain", json_string(node->domains[s->domain].config->name));
    json_object_set_new(out, "state", json_string(wf_session_state_name(s->state)));
    json_object_set_new(out, "state_s", real((double)(now_ns - s->hinted_ns) / 1e9));
    json_object_set_new(out, "priority", number(s->priority));
    json_object_set_new(out, "pid", number((uint64_t)node->clients[s->client - 1].peer.pid));
    json_object_set_new(out, "held", json_boolean(s->held));
    json_object_set_new(out, "returns_in_ms", number(s->returns_in_ms));
    json_object_set_new(out, "due_in_ms",
                        due ? real(((double)s->due_ns - (double)now_ns) / 1e6) : json_null());
    json_object_set_new(out, "return", json_string(words[s->back]));
    json_object_set_new(out, "deadline_ms", number(s->deadline_ms));
    json_object_set_new(out, "hurried", json_boolean(s->hurried));
    return out;
}

/* --------------------------------------------------------------------------- where its chain is */

struct place { /* of a block of the chain */
    uint8_t key[32];
    uint32_t slot, entry;
};

static bool found(const struct wf_domain *domain, struct place *place)
{
    place->slot = wf_store_find(&domain->store, place->key);
    place->entry = domain->node->below ? wf_below_find(domain, place->key) : WF_DIRECTORY_NONE;
    return place->slot != WF_SLOT_NONE || place->entry != WF_DIRECTORY_NONE;
}

/* To its parent; false: it has none that is known. */
static bool up(const struct wf_domain *domain, struct place *place)
{
    const struct wf_store *store = &domain->store;
    if (place->slot != WF_SLOT_NONE) {
        uint32_t parent = atomic_load_explicit(&store->index.desc[place->slot].parent,
                                               memory_order_relaxed);
        if (parent == WF_SLOT_NONE)
            return false;
        wf_desc_key_read(&store->index.desc[parent], place->key);
        return found(domain, place);
    }
    struct wf_directory_block block;
    wf_directory_read(domain->node->below->directory, place->entry, &block);
    if (block.parent == WF_DIRECTORY_NONE)
        return false;
    wf_directory_read(domain->node->below->directory, block.parent, &block);
    memcpy(place->key, block.key, sizeof place->key);
    return found(domain, place);
}

/* So many blocks further up. */
static bool up_by(const struct wf_domain *domain, struct place *place, uint64_t count)
{
    const struct wf_directory *directory = domain->node->below ? domain->node->below->directory
                                                               : NULL;
    const struct wf_store *store = &domain->store;
    struct wf_directory_block block;
    bool more = true;
    for (; more && count && place->slot == WF_SLOT_NONE; count--) {
        wf_directory_read(directory, place->entry, &block);
        place->entry = block.parent;
        more = place->entry != WF_DIRECTORY_NONE;
        if (!more)
            break;
        wf_directory_read(directory, place->entry, &block);
        memcpy(place->key, block.key, sizeof place->key);
        if (block.in_dram)
            place->slot = wf_store_find(store, place->key);
    }
    for (; more && count; count--) {
        place->slot = atomic_load_explicit(&store->index.desc[place->slot].parent,
                                           memory_order_relaxed);
        more = place->slot != WF_SLOT_NONE;
    }
    if (more && place->slot != WF_SLOT_NONE)
        wf_desc_key_read(&store->index.desc[place->slot], place->key);
    return more && found(domain, place);
}

/* Blocks from the root to this one. */
static uint32_t length(const struct wf_domain *domain, const struct place *place)
{
    struct wf_directory_block block;
    if (place->slot != WF_SLOT_NONE)
        return wf_store_depth(&domain->store, place->slot) + 1;
    wf_directory_read(domain->node->below->directory, place->entry, &block);
    return block.depth + 1;
}

struct sums {
    uint32_t blocks, dram, archived, on[WF_DIRECTORY_TIERS_MAX];
    uint64_t bytes;
};

static void count_in(const struct wf_domain *domain, const struct place *place, struct sums *sums)
{
    struct wf_directory_block block = {.tiers = 0};
    sums->blocks++;
    if (place->entry != WF_DIRECTORY_NONE)
        wf_directory_read(domain->node->below->directory, place->entry, &block);
    if (place->slot != WF_SLOT_NONE) {
        const struct wf_desc *desc = &domain->store.index.desc[place->slot];
        block.bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
        sums->dram++;
    }
    sums->bytes += block.bytes;
    sums->archived += block.archives > 0;
    for (unsigned i = 0; i < WF_DIRECTORY_TIERS_MAX; i++)
        sums->on[i] += block.tiers >> i & 1;
}

/* {"chain": …, "keys": […], "next": …} of it into `out`. */
static void chain_put(const struct wf_domain *domain, const struct wf_session_entry *s,
                      uint64_t cursor, json_t *out)
{
    const struct wf_below *below = domain->node->below;
    struct sums sums = {.blocks = 0};
    struct place place;
    json_t *keys = json_array(), *tiers = json_object();
    char hex[65] = "";
    uint32_t blocks = s->tip_blocks;
    memcpy(place.key, s->tip, sizeof place.key);
    bool more = s->has_tip && found(domain, &place);
    if (more)
        blocks = length(domain, &place);
    if (s->has_tip)
        wf_query_hex(s->tip, sizeof s->tip, hex);
    json_object_set_new(out, "tip", json_string(hex));
    more = more && cursor < CHAIN_BLOCKS_MAX && up_by(domain, &place, cursor);
    while (more && sums.blocks < LOOKS) {
        if (cursor + sums.blocks < KEYS_MAX) {
            wf_query_hex(place.key, WF_EVENT_KEY_BYTES, hex);
            json_array_append_new(keys, json_string(hex));
        }
        count_in(domain, &place, &sums);
        more = up(domain, &place);
    }
    for (uint32_t i = 0; below && i < below->count; i++) {
        const struct wf_lower *lower = &below->tiers[below->order[i]];
        if (sums.on[lower->number])
            json_object_set_new(tiers, lower->config->name, number(sums.on[lower->number]));
    }
    json_object_set_new(out, "chain",
                        json_pack("{s:I, s:I, s:I, s:I, s:I, s:o}", "blocks", (json_int_t)blocks,
                                  "found", (json_int_t)sums.blocks, "bytes", (json_int_t)sums.bytes,
                                  "dram", (json_int_t)sums.dram, "archived",
                                  (json_int_t)sums.archived, "tiers", tiers));
    json_object_set_new(out, "keys", keys);
    uint64_t passed = cursor + sums.blocks;
    json_object_set_new(out, "next", number(more && passed < CHAIN_BLOCKS_MAX ? passed : 0));
}

/* ------------------------------------------------------------------------ what is thought of it */

static json_t *policy_json(const struct wf_domain *domain, const struct wf_session_entry *s,
                           uint32_t slot)
{
    static const char *const hints[] = {
        [WF_POLICY_OUTPUT] = NULL, [WF_POLICY_WANTED] = "wanted", [WF_POLICY_DONE] = "done"};
    const struct wf_store *store = &domain->store;
    struct wf_policy_reason why;
    if (slot == WF_SLOT_NONE)
        return json_null();
    store->policy_ops->explain(store->policy, slot, &why);
    uint32_t before = store->policy_ops->before(store->policy, slot);
    const char *hint = why.hint > 0 && why.hint <= WF_POLICY_DONE ? hints[why.hint] : NULL;
    const char *stays = s->held || store->slots[slot].holds        ? "held"
                        : store->slots[slot].child != WF_SLOT_NONE ? "extended"
                        : before == WF_POLICY_NONE                 ? "used now"
                                                                   : NULL;
    json_t *out = json_object();
    json_object_set_new(out, "rule", json_string(why.rule));
    if (why.knows) {
        json_object_set_new(out, "value", real(why.value));
        json_object_set_new(out, "chance", real(why.chance));
        json_object_set_new(out, "age_s", real(why.age_s));
        json_object_set_new(out, "turn", number((uint64_t)why.turn + 1));
        json_object_set_new(out, "hint", hint ? json_string(hint) : json_null());
        json_object_set_new(out, "weight", real(why.weight));
    }
    json_object_set_new(out, "aside",
                        json_string(why.aside < 0 ? "first"
                                    : why.aside   ? "last"
                                                  : "no"));
    json_object_set_new(out, "stays", stays ? json_string(stays) : json_null());
    json_object_set_new(out, "before", stays ? json_null() : number(before));
    json_object_set_new(out, "candidates", number(store->policy_ops->candidates(store->policy)));
    return out;
}

/* null: nothing is to be decided of it. */
static json_t *next_json(struct wf_node *node, const struct wf_session_entry *s, uint64_t now_ns,
                         uint32_t *out_end)
{
    struct wf_ahead_decision decision;
    if (!s->has_tip || !node->below || s->back != WF_BACK_SAID) {
        struct wf_chain chain = {.end = WF_SLOT_NONE};
        if (s->has_tip)
            wf_chain_look(&node->domains[s->domain], s->tip, &chain);
        *out_end = chain.end;
        return json_null();
    }
    wf_ahead_decide(node, s, now_ns, &decision);
    *out_end = decision.chain.end;
    json_t *out = json_object();
    wf_event_prefetch_put(out, &decision.told, node->domain_count == 1);
    uint64_t look_ns = node->wakes.due[s - node->sessions];
    json_object_set_new(out, "looked_at_in_ms", real(((double)look_ns - (double)now_ns) / 1e6));
    return out;
}

char *wf_query_session(const struct wf_domain *domain, const char *word, uint64_t cursor,
                       enum weft_status *status)
{
    struct wf_node *node = domain->node;
    uint64_t now_ns = wf_now_ns();
    uint32_t alike, end;
    const struct wf_session_entry *s = session_named(domain, word, &alike);
    if (!s) {
        *status = WEFT_E_NOT_FOUND;
        return NULL;
    }
    const struct wf_ahead *known = &domain->ahead;
    json_t *out = json_object();
    json_object_set_new(out, "session", session_json(node, s, now_ns));
    json_object_set_new(out, "of_that_name", number(alike));
    chain_put(domain, s, cursor, out);
    if (!cursor) { /* of the rest, once is enough */
        json_object_set_new(out, "next_fetch", next_json(node, s, now_ns, &end));
        json_object_set_new(out, "policy", policy_json(domain, s, end));
        json_object_set_new(out, "returns",
                            json_pack("{s:f, s:f, s:f}", "said", known->said, "came", known->came,
                                      "spread", wf_ahead_return(known, 0, 1).spread_s));
    }
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}
