/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's tiers for people: one matrix that `weft ls tiers`, `weft status` and `weft doctor`
 * show, in the node's own order, which is that of measured latency.
 */
#include <string.h>

#include "cli/cli.h"

json_t *wf_cli_tiers_ask(struct weft *weft, char *why, size_t capacity)
{
    char *text = NULL;
    json_error_t error = {.text = "the answer has no list of tiers"};
    enum weft_status status = weft_query(weft, "tiers", 0, &text);
    if (status != WEFT_OK) {
        snprintf(why, capacity, "%s", status < 0 ? weft_last_error() : weft_status_name(status));
        return NULL;
    }
    json_t *answer = json_loads(text, 0, &error);
    weft_text_free(text);
    json_t *list = json_object_get(answer, "tiers");
    if (json_is_array(list))
        json_incref(list);
    else
        snprintf(why, capacity, "%.80s", error.text);
    json_decref(answer);
    return json_is_array(list) ? list : NULL;
}

static const char *word(const json_t *tier, const char *key)
{
    const char *value = json_string_value(json_object_get(tier, key));
    return value ? value : "-";
}

static const char *size(const json_t *tier, const char *key, char *out, size_t capacity)
{
    json_int_t bytes = json_integer_value(json_object_get(tier, key));
    return wf_cli_size(bytes > 0 ? (uint64_t)bytes : 0, out, capacity);
}

/* What was not measured yet is 0 or null. */
static const char *measured(const json_t *tier, const char *key, char *out, size_t capacity)
{
    double value = json_number_value(json_object_get(tier, key));
    if (value > 0)
        snprintf(out, capacity, value < 10 ? "%.2f" : value < 100 ? "%.1f" : "%.0f", value);
    else
        snprintf(out, capacity, "-");
    return out;
}

/* Who shares the device, and what part of it each has. */
static void hosts_print(const json_t *tier, FILE *to)
{
    char bytes[32];
    size_t index;
    json_t *host;
    json_array_foreach (json_object_get(tier, "hosts"), index, host) {
        double silent_ms = json_number_value(json_object_get(host, "silent_ms"));
        fprintf(to, "%s: host %lld%s has %lld extents, %s; %s", word(tier, "name"),
                (long long)json_integer_value(json_object_get(host, "host")),
                json_is_true(json_object_get(host, "self")) ? " (this node)" : "",
                (long long)json_integer_value(json_object_get(host, "extents")),
                size(host, "bytes", bytes, sizeof bytes), word(host, "state"));
        if (silent_ms >= 5000 && strcmp(word(host, "state"), "here") == 0)
            fprintf(to, ", but silent for %.0f s", silent_ms / 1000);
        fputc('\n', to);
    }
}

static const char *const lossy[] = {"transparent", "economy"};

/* Blocks that lie there at one of these qualities. */
static uint64_t blocks_of(const json_t *tier, size_t quality, json_t **out)
{
    const json_t *all = json_object_get(json_object_get(tier, "codec"), "qualities");
    *out = json_object_get(all, lossy[quality]);
    json_int_t blocks = json_integer_value(json_object_get(*out, "blocks"));
    return blocks > 0 ? (uint64_t)blocks : 0;
}

uint64_t wf_cli_tier_lossy(const json_t *tier)
{
    json_t *one;
    return blocks_of(tier, 0, &one) + blocks_of(tier, 1, &one);
}

/* What lies there with loss, how much smaller, and how fast that went so far. */
static void qualities_print(const json_t *tier, FILE *to)
{
    char ratio[32], encode[32], decode[32];
    for (size_t q = 0; q < sizeof lossy / sizeof lossy[0]; q++) {
        json_t *one;
        uint64_t blocks = blocks_of(tier, q, &one);
        if (blocks)
            fprintf(to,
                    "%s: %llu block%s with loss: %s, %s times smaller; a thread encodes %s and "
                    "decodes %s MB/s\n",
                    word(tier, "name"), (unsigned long long)blocks, wf_cli_s(blocks), lossy[q],
                    measured(one, "ratio", ratio, sizeof ratio),
                    measured(one, "encode_mbps", encode, sizeof encode),
                    measured(one, "decode_mbps", decode, sizeof decode));
    }
}

void wf_cli_tiers_print(const json_t *tiers, FILE *to)
{
    char capacity[32], used[32], latency[32], read[32], write[32], ratio[32];
    size_t index;
    json_t *tier;
    fprintf(to, "%-12s %-5s %-8s %10s %10s %9s %6s %9s %9s %10s  %-8s  %s\n", "tier", "kind",
            "state", "used", "capacity", "blocks", "ratio", "read us", "read MB/s", "write MB/s",
            "emulated", "path");
    json_array_foreach ((json_t *)(uintptr_t)tiers, index, tier)
        fprintf(to, "%-12s %-5s %-8s %10s %10s %9lld %6s %9s %9s %10s  %-8s  %s\n",
                word(tier, "name"), word(tier, "kind"), word(tier, "state"),
                size(tier, "used_bytes", used, sizeof used),
                json_integer_value(json_object_get(tier, "capacity_bytes")) > 0
                    ? size(tier, "capacity_bytes", capacity, sizeof capacity)
                    : "-",
                (long long)json_integer_value(json_object_get(tier, "blocks")),
                measured(json_object_get(tier, "codec"), "ratio", ratio, sizeof ratio),
                measured(tier, "read_latency_us", latency, sizeof latency),
                measured(tier, "read_mbps", read, sizeof read),
                measured(tier, "write_mbps", write, sizeof write),
                json_is_true(json_object_get(tier, "emulated")) ? "yes" : "no", word(tier, "path"));
    json_array_foreach ((json_t *)(uintptr_t)tiers, index, tier) {
        const char *reason = json_string_value(json_object_get(tier, "reason"));
        if (reason && *reason)
            fprintf(to, "%s is %s: %s\n", word(tier, "name"), word(tier, "state"), reason);
        qualities_print(tier, to);
        json_int_t corrupt = json_integer_value(json_object_get(tier, "corrupt"));
        if (corrupt > 0)
            fprintf(to, "%s: %lld corrupt block%s found there and dropped\n", word(tier, "name"),
                    (long long)corrupt, corrupt == 1 ? " was" : "s were");
        json_int_t alone = json_integer_value(json_object_get(tier, "left_alone"));
        if (alone > 0)
            fprintf(to,
                    "%s: %lld more block%s there %s left alone and take%s up room: %s of domains "
                    "that this node does not have, by their secrets, and what limits.below left no "
                    "entry for\n",
                    word(tier, "name"), (long long)alone, wf_cli_s((uint64_t)alone),
                    alone == 1 ? "is" : "are", alone == 1 ? "s" : "",
                    size(tier, "foreign_bytes", used, sizeof used));
        hosts_print(tier, to);
    }
}
