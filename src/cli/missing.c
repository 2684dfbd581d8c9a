/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a block that was asked for did not come: it is nowhere, or a tier has it and did not give it.
 *
 * A tier that is away is told of by the node's list of tiers, which is for the node's own user; by
 * the directory, which still says that the block is there; and by the event of a read that failed.
 */
#include <string.h>

#include "cli/cli.h"

#define EVENT_DIGITS 16 /* of a key, that an event says */

static const char *word(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

static json_t *missing_make(uint64_t block, const char *why, const char *tier, const char *text)
{
    json_t *out = json_object();
    wf_cli_json_set(out, "block", json_integer((json_int_t)block));
    wf_cli_json_set(out, "why", json_string(why));
    wf_cli_json_set(out, "tier", *tier ? json_string(tier) : json_null());
    wf_cli_json_set(out, "text", json_string(text));
    return out;
}

/* ": stalled: a read takes longer than 5000 ms", or "" when it is well or not for us to know. */
static void state_say(struct cli *cli, const char *name, char *out, size_t capacity)
{
    char why[256];
    size_t index;
    json_t *tier, *tiers = wf_cli_tiers_ask(cli->weft, why, sizeof why);
    out[0] = '\0';
    json_array_foreach (tiers, index, tier) {
        const char *state = word(tier, "state"), *reason = word(tier, "reason");
        if (strcmp(word(tier, "name"), name) == 0 && strcmp(state, "ok") != 0)
            snprintf(out, capacity, ", which is %s%s%s", state, *reason ? ": " : "", reason);
    }
    json_decref(tiers);
}

/* How many blocks of a chain, which has to be in DRAM from its beginning on, the domain may have
 * there; UINT64_MAX: that is not known. */
static uint64_t blocks_in_dram(struct cli *cli, uint64_t block_bytes)
{
    json_t *domain = wf_cli_domain_ask(cli);
    uint64_t quota = (uint64_t)json_integer_value(json_object_get(domain, "quota_bytes"));
    json_decref(domain);
    return quota && block_bytes ? quota / block_bytes : UINT64_MAX;
}

/* The block lies on a tier still: it did not come in time, or is not exact enough. */
static json_t *on_tier(struct cli *cli, const char *hex, uint64_t block)
{
    char question[96], state[300], text[600];
    json_t *answer = NULL, *out = NULL;
    snprintf(question, sizeof question, "below key=%s", hex);
    if (wf_cli_query(cli, question, 0, 0, &answer) != CLI_OK)
        return NULL;
    const json_t *row = json_array_get(json_object_get(answer, "below"), 0);
    const char *tier = json_string_value(json_array_get(json_object_get(row, "tiers"), 0));
    const char *lossy = word(row, "too_lossy");
    uint64_t most = blocks_in_dram(cli,
                                   (uint64_t)json_integer_value(json_object_get(row, "bytes")));
    if (tier && *lossy) {
        snprintf(text, sizeof text,
                 "block %llu is on tier %s at quality %s only, and its domain asks for better: it "
                 "counts as missing until it is put again",
                 (unsigned long long)block, tier, lossy);
        out = missing_make(block, "quality", tier, text);
    } else if (tier && most <= block) {
        snprintf(text, sizeof text,
                 "block %llu is on tier %s, and DRAM has room for no more than %llu blocks of that "
                 "size, with those that it extends; enlarge the pool or the domain's quota",
                 (unsigned long long)block, tier, (unsigned long long)most);
        out = missing_make(block, "room", tier, text);
    } else if (tier) {
        state_say(cli, tier, state, sizeof state);
        snprintf(text, sizeof text, "block %llu is on tier %s%s%s", (unsigned long long)block, tier,
                 state,
                 *state
                     ? ""
                     : ", which did not give it in time, or has it since a moment; get it again");
        out = missing_make(block, "tier", tier, text);
    }
    json_decref(answer);
    return out;
}

static const char *reason_say(const char *reason)
{
    return strcmp(reason, "lender") == 0 ? "who lent the memory went, or let it go"
           : strcmp(reason, "node") == 0 ? "the node that had it went"
                                         : reason;
}

/* It was there, and could not be read: the newest event says so. */
static json_t *not_read(struct cli *cli, const char *hex, uint64_t block, int64_t since_ms)
{
    char text[256];
    size_t index;
    json_t *answer = NULL, *event, *out = NULL;
    if (wf_cli_query(cli, "events", 0, 0, &answer) != CLI_OK)
        return NULL;
    json_array_foreach (json_object_get(answer, "events"), index, event) {
        const char *kind = word(event, "what");
        if (json_integer_value(json_object_get(event, "time_ms")) < since_ms ||
            strncmp(word(event, "key"), hex, EVENT_DIGITS) != 0 ||
            (strcmp(kind, "load_failed") != 0 && strcmp(kind, "missing") != 0 &&
             strcmp(kind, "corrupt") != 0))
            continue;
        json_decref(out);
        if (strcmp(word(event, "reason"), "profile") == 0)
            snprintf(text, sizeof text,
                     "block %llu lies on tier %s with loss, and the profile that it was stored by "
                     "is not here; the node's log names it",
                     (unsigned long long)block, word(event, "tier"));
        else if (strcmp(word(event, "reason"), "limit") == 0)
            snprintf(text, sizeof text,
                     "block %llu is on a node that may send too little for it to be waited for "
                     "(weft fabric limit, fabric.link_max, fabric_max); this node's log has the "
                     "figures",
                     (unsigned long long)block);
        else
            snprintf(
                text, sizeof text,
                "block %llu could not be read from tier %s: %s; weft explain %.16s has its story",
                (unsigned long long)block, word(event, "tier"), reason_say(word(event, "reason")),
                hex);
        out = missing_make(block, word(event, "reason"), word(event, "tier"), text);
    }
    json_decref(answer);
    return out;
}

json_t *wf_cli_missing(struct cli *cli, const struct weft_key *key, uint64_t block,
                       int64_t since_ms)
{
    char hex[2 * sizeof key->bytes + 1], opening[CLI_OPENING_MAX], text[CLI_OPENING_MAX + 128];
    wf_cli_hex(key->bytes, sizeof key->bytes, hex);
    json_t *out = not_read(cli, hex, block, since_ms);
    if (!out)
        out = on_tier(cli, hex, block);
    if (out)
        return out;
    if (wf_cli_opening(cli, opening, sizeof opening)) {
        snprintf(text, sizeof text,
                 "block %llu is not known yet: %s still being opened; get it again later",
                 (unsigned long long)block, opening);
        return missing_make(block, "opening", "", text);
    }
    json_t *failed = wf_cli_failed_list(cli);
    const char *tier = word(json_array_get(failed, 0), "tier");
    if (*tier)
        snprintf(text, sizeof text,
                 "block %llu is not known; it may be on tier %.64s, which is failed",
                 (unsigned long long)block, tier);
    else
        snprintf(text, sizeof text, "block %llu is not there", (unsigned long long)block);
    out = missing_make(block, *tier ? "failed" : "absent", tier, text);
    json_decref(failed);
    return out;
}
