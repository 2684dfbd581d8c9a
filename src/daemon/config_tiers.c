/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers in the configuration: what a kind allows, and the short form of weftd's --tier.  What they
 * mean on this host is config_host.c's.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "daemon/config_fields.h"

#define DRAM_NAME "dram0" /* what the pool itself is called among the tiers */
#define S3_SCHEME "s3://"
#define EMULATION "file-emulation:"
#define FABRIC_DEPTH 256u  /* requests to other nodes at a time */
#define SIZE_LETTERS_MAX 4 /* no unit has more */

static const struct wf_config_list *const list = &wf_config_lists[WF_LIST_TIERS];

static const char *kind_name(const struct wf_tier_config *tier)
{
    return list->fields[wf_list_field(list, "kind")].choices[tier->kind];
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* --------------------------------------------------------------------------- what a kind allows */

/* s3://BUCKET or s3://BUCKET/PREFIX, with a bucket's name as every S3 server takes it. */
static bool is_bucket(const char *path)
{
    if (!starts(path, S3_SCHEME))
        return false;
    const char *bucket = path + strlen(S3_SCHEME);
    size_t length = strcspn(bucket, "/");
    return length >= 3 && length <= 63 &&
           strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") == length &&
           isalnum((unsigned char)bucket[0]) && isalnum((unsigned char)bucket[length - 1]);
}

int wf_config_numa_node(const char *path)
{
    static const char with[] = "node:";
    const char *number = starts(path, with) ? path + strlen(with) : "";
    size_t digits = strspn(number, "0123456789");
    return digits && digits <= 4 && !number[digits] ? (int)strtol(number, NULL, 10) : -1;
}

const char *wf_config_emulated(const char *path)
{
    const char *file = starts(path, EMULATION) ? path + strlen(EMULATION) : "";
    return *file ? file : NULL;
}

static bool is_cxl(const char *path)
{
    int device, part, used = 0;
    if (strcmp(path, "auto") == 0)
        return true;
    if (wf_config_numa_node(path) >= 0 || wf_config_emulated(path))
        return true;
    return sscanf(path, "/dev/dax%4d.%4d%n", &device, &part, &used) == 2 && !path[used];
}

/* A path of the wrong form, in a sentence; NULL: it is right. */
static const char *path_mend(const struct wf_tier_config *tier)
{
    switch (tier->kind) {
    case WF_KIND_NVME:
        if (strstr(tier->path, "://"))
            return "is no file, directory or block device; write kind: s3 for a bucket";
        return tier->path[0] ? NULL : "is empty; name a file, a directory or a block device";
    case WF_KIND_CXL:
        return is_cxl(tier->path) ? NULL
                                  : "is no CXL memory; write auto, /dev/daxX.Y, node:N, or "
                                    "file-emulation:PATH to try it without";
    case WF_KIND_S3:
        return is_bucket(tier->path) ? NULL
                                     : "is no bucket; write s3://BUCKET/PREFIX, where BUCKET has 3 "
                                       "to 63 of a-z, 0-9, dot and hyphen";
    case WF_KIND_DRAM: return NULL;
    }
    return NULL;
}

/* http:// or https:// and a host; the rest is for the tier to say when it opens. */
static bool is_endpoint(const char *url)
{
    size_t scheme = starts(url, "https://") ? strlen("https://") : strlen("http://");
    return (starts(url, "https://") || starts(url, "http://")) && url[scheme] &&
           url[scheme] != '/' && url[scheme] != ':';
}

/* A setting that only another kind has is a mistake, not a wish. */
static enum weft_status finish_kind(const struct wf_config *config,
                                    const struct wf_tier_config *tier)
{
    static const struct {
        const char *key;
        enum wf_tier_kind kind;
    } only[] = {{"endpoint", WF_KIND_S3}, {"region", WF_KIND_S3},     {"host", WF_KIND_CXL},
                {"shared", WF_KIND_CXL},  {"dram_node", WF_KIND_CXL}, {"discard", WF_KIND_NVME}};
    char where[WF_ORIGIN_TEXT_MAX], text[WF_CONFIG_VALUE_MAX], defaults[WF_CONFIG_VALUE_MAX];
    struct wf_tier_config unsaid;
    list->defaults(&unsaid);
    for (size_t i = 0; i < sizeof only / sizeof only[0]; i++) {
        int index = wf_list_field(list, only[i].key);
        const struct wf_field *field = &list->fields[index];
        if (tier->kind == only[i].kind ||
            strcmp(wf_value_text(field, tier, text, sizeof text),
                   wf_value_text(field, &unsaid, defaults, sizeof defaults)) == 0)
            continue;
        return wf_fail(WEFT_E_INVALID,
                       "%s: tier '%s': %s means nothing to kind %s; remove it, or correct kind",
                       wf_list_where(list, config, tier, index, where), tier->name, only[i].key,
                       kind_name(tier));
    }
    if (tier->kind == WF_KIND_DRAM && !tier->size_bytes)
        return wf_fail(WEFT_E_INVALID,
                       "%s: tier '%s': memory has no size of its own; set size, like 4GB",
                       wf_list_where(list, config, tier, 0, where), tier->name);
    if (tier->endpoint[0] && !is_endpoint(tier->endpoint))
        return wf_fail(WEFT_E_INVALID,
                       "%s: tier '%s': endpoint: '%s' is no URL of a server; write https://host or "
                       "http://host:port",
                       wf_list_where(list, config, tier, wf_list_field(list, "endpoint"), where),
                       tier->name, tier->endpoint);
    bool numbered = tier->host != 0;
    if (tier->shared != numbered)
        return wf_fail(WEFT_E_INVALID,
                       "%s: tier '%s': %s; set `shared: true` and `host` from 1 to 255, or neither",
                       wf_list_where(list, config, tier,
                                     wf_list_field(list, numbered ? "host" : "shared"), where),
                       tier->name,
                       numbered ? "a host number means nothing on a device that is not shared"
                                : "hosts that share a device need a number each");
    return WEFT_OK;
}

/* Other hosts' blocks are a tier of their own inside the node, with a name of its own. */
static enum weft_status finish_shared(const struct wf_config *config,
                                      const struct wf_tier_config *tier)
{
    char where[WF_ORIGIN_TEXT_MAX], name[sizeof tier->name + sizeof WF_OTHERS_SUFFIX];
    if (!tier->shared)
        return WEFT_OK;
    snprintf(name, sizeof name, "%s%s", tier->name, WF_OTHERS_SUFFIX);
    if (strlen(name) > WF_TIER_NAME_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "%s: tier '%s': a shared tier's name has %zu characters at "
                       "most; shorten it",
                       wf_list_where(list, config, tier, 0, where), tier->name,
                       WF_TIER_NAME_MAX - strlen(WF_OTHERS_SUFFIX));
    for (uint32_t i = 0; i < config->tier_count; i++)
        if (strcmp(config->tiers[i].name, name) == 0)
            return wf_fail(WEFT_E_INVALID,
                           "%s: tier '%s': that name is kept for what other hosts have on '%s'; "
                           "choose another",
                           wf_list_where(list, config, &config->tiers[i], 0, where), name,
                           tier->name);
    return WEFT_OK;
}

/* What other nodes have, and what they lend, are tiers inside the node, too. */
static void add_fabric(struct wf_config *config, const char *name, bool peers)
{
    struct wf_tier_config *tier = &config->tiers[config->lower_count++];
    list->defaults(tier);
    snprintf(tier->name, sizeof tier->name, "%s", name);
    tier->kind = WF_KIND_DRAM;
    tier->peers = peers;
    tier->remote = !peers;
    tier->queue_depth = FABRIC_DEPTH;
    tier->admit = peers ? WF_ADMIT_NEVER : WF_ADMIT_AUTO;
    tier->codec = WF_CODE_NONE;
    tier->archive = false;
    tier->scrub_bytes_per_s = 0; /* their owners do that */
}

void wf_config_add_others(struct wf_config *config)
{
    config->lower_count = config->tier_count;
    if (wf_config_has_fabric(config) && config->lower_count + 2 <= WF_TIERS_MAX) {
        add_fabric(config, WF_PEERS_NAME, true);
        add_fabric(config, WF_REMOTE_NAME, false);
    }
    for (uint32_t i = 0; i < config->tier_count && config->lower_count < WF_TIERS_MAX; i++) {
        const struct wf_tier_config *tier = &config->tiers[i];
        if (!tier->shared)
            continue;
        struct wf_tier_config *others = &config->tiers[config->lower_count++];
        size_t length = strnlen(tier->name, WF_TIER_NAME_MAX - strlen(WF_OTHERS_SUFFIX));
        *others = *tier;
        memcpy(others->name + length, WF_OTHERS_SUFFIX, sizeof WF_OTHERS_SUFFIX);
        others->others_of = i + 1;
        others->admit = WF_ADMIT_NEVER;
        others->archive = false;
        others->scrub_bytes_per_s = 0; /* their owners do that */
    }
}

enum weft_status wf_config_finish_tiers(const struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX];
    int path_index = wf_list_field(list, "path");
    uint32_t shared = 0;
    for (uint32_t i = 0; i < config->tier_count; i++) {
        const struct wf_tier_config *tier = &config->tiers[i];
        if (strcmp(tier->name, DRAM_NAME) == 0)
            return wf_fail(WEFT_E_INVALID,
                           "%s: tier '%s': that is the pool's own name; choose another",
                           wf_list_where(list, config, tier, 0, where), tier->name);
        if ((strcmp(tier->name, WF_PEERS_NAME) == 0 || strcmp(tier->name, WF_REMOTE_NAME) == 0) &&
            wf_config_has_fabric(config))
            return wf_fail(WEFT_E_INVALID,
                           "%s: tier '%s': that name is kept for what other nodes have, or lend; "
                           "choose another",
                           wf_list_where(list, config, tier, 0, where), tier->name);
        bool placed = tier->kind != WF_KIND_DRAM;
        if (placed && tier->origin[path_index].layer == WF_FROM_DEFAULT)
            return wf_fail(WEFT_E_INVALID,
                           "%s: tier '%s' has no path; add `path:`, or --set tier.%s.path=PATH",
                           wf_list_where(list, config, tier, 0, where), tier->name, tier->name);
        const char *mend = path_mend(tier);
        if (mend)
            return wf_fail(WEFT_E_INVALID, "%s: tier '%s': path: '%s' %s",
                           wf_list_where(list, config, tier, path_index, where), tier->name,
                           tier->path, mend);
        enum weft_status status = finish_kind(config, tier);
        if (status == WEFT_OK)
            status = finish_shared(config, tier);
        if (status != WEFT_OK)
            return status;
        shared += tier->shared;
        for (uint32_t k = 0; placed && k < i; k++)
            if (strcmp(config->tiers[k].path, tier->path) == 0)
                return wf_fail(WEFT_E_INVALID,
                               "%s: tier '%s': path '%s' is that of tier '%s', too; keep one",
                               wf_list_where(list, config, tier, path_index, where), tier->name,
                               tier->path, config->tiers[k].name);
    }
    bool fabric = wf_config_has_fabric(config);
    if (config->tier_count + shared + 2 * fabric > WF_TIERS_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "tiers: %u, and %u of them are shared, which count twice%s; %d is the most",
                       config->tier_count, shared,
                       fabric ? ", and two for what other nodes have and lend" : "", WF_TIERS_MAX);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------ the short form */

#define OPTIONS_MAX (WF_TIER_FLAG_SETTINGS - 4) /* beside kind, path, size and shared */

struct short_tier {
    enum wf_tier_kind kind;
    char name[16], path[WF_PATH_MAX], size[32]; /* size "": not said */
    char options[256];                          /* KEY=VALUE, each with its end */
    uint32_t option_count;
};

/* The field that `text` sets, as "KEY=VALUE"; -1: none, or one that has its own place there. */
static int option_field(const char *text)
{
    char key[32];
    size_t length = strcspn(text, "=,");
    if (text[length] != '=' || length >= sizeof key)
        return -1;
    memcpy(key, text, length);
    key[length] = '\0';
    int field = wf_list_field(list, key);
    bool placed = field == 0 || strcmp(key, "kind") == 0 || strcmp(key, "path") == 0 ||
                  strcmp(key, "size") == 0;
    return placed ? -1 : field;
}

/* What `text` sets nothing with, and which keys there are. */
static enum weft_status unknown_option(const char *flag, const char *text)
{
    char keys[256] = "", pair[64];
    size_t used = 0, length = strcspn(text, ",");
    for (size_t i = 0; i < list->field_count; i++) {
        snprintf(pair, sizeof pair, "%s=", list->fields[i].key);
        if (option_field(pair) < 0 || used + strlen(pair) + 2 > sizeof keys)
            continue;
        used += (size_t)snprintf(keys + used, sizeof keys - used, "%s%s", used ? ", " : "",
                                 list->fields[i].key);
    }
    return wf_fail(WEFT_E_INVALID,
                   "--tier '%.96s': '%.*s' sets nothing; write KEY=VALUE, with one of these keys: "
                   "%s; or --set tier.NAME.path=PATH for a path with a comma",
                   flag, length < 32 ? (int)length : 32, text, keys);
}

/* Where ",KEY=VALUE,…" begins; a comma that no key follows is part of a path. */
static size_t options_at(const char *flag)
{
    const char *comma = strchr(flag, ',');
    while (comma && option_field(comma + 1) < 0)
        comma = strchr(comma + 1, ',');
    return comma ? (size_t)(comma - flag) : strlen(flag);
}

static enum weft_status read_options(const char *flag, const char *text, struct short_tier *out)
{
    char *at = out->options, *end = out->options + sizeof out->options;
    out->option_count = 0;
    while (*text == ',') {
        size_t length = strcspn(++text, ",");
        if (option_field(text) < 0)
            return unknown_option(flag, text);
        if (out->option_count == OPTIONS_MAX || length >= (size_t)(end - at))
            return wf_fail(WEFT_E_INVALID,
                           "--tier '%.96s': there is room for %d settings of %zu bytes; use --set "
                           "for the others",
                           flag, OPTIONS_MAX, sizeof out->options);
        memcpy(at, text, length);
        at[length] = '\0';
        at += length + 1;
        text += length;
        out->option_count++;
    }
    return WEFT_OK;
}

/* What follows the last colon was meant as a size and is none: a number and letters, like 64XB.
 * Paths of devices have colons, too, with more behind them: 01:00.0-nvme-1. */
static bool is_bad_size(const char *text)
{
    size_t digits = strspn(text, "0123456789.");
    size_t letters = strspn(text + digits, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return digits && letters && letters <= SIZE_LETTERS_MAX && !text[digits + letters];
}

/* "PATH", "PATH:SIZE" or for memory "SIZE".  `node:1` is a path, not a size of 1 after one; and so
 * is what names something that is there, whatever it looks like.  False: it is neither; `bad` is
 * what was meant as a size, or NULL. */
static bool split_size(const char *text, struct short_tier *out, const char **bad)
{
    const char *colon = strrchr(text, ':');
    size_t length = strlen(text);
    uint64_t bytes;
    out->size[0] = out->path[0] = '\0';
    *bad = NULL;
    if (out->kind == WF_KIND_DRAM && !colon && isdigit((unsigned char)text[0])) {
        *bad = wf_size_parse(text, &bytes) != WEFT_OK || length >= sizeof out->size ? text : NULL;
        snprintf(out->size, sizeof out->size, "%s", *bad ? "" : text);
        return !*bad;
    }
    if (colon && isdigit((unsigned char)colon[1]) && access(text, F_OK) != 0 &&
        !(out->kind == WF_KIND_CXL && colon - text == 4 && starts(text, "node"))) {
        if (wf_size_parse(colon + 1, &bytes) == WEFT_OK && strlen(colon + 1) < sizeof out->size) {
            length = (size_t)(colon - text);
            snprintf(out->size, sizeof out->size, "%s", colon + 1);
        } else if (is_bad_size(colon + 1)) {
            *bad = colon + 1;
            return false;
        }
    }
    if (!length || length >= sizeof out->path)
        return false;
    memcpy(out->path, text, length);
    out->path[length] = '\0';
    return true;
}

/* Does a tier's path, with or without a size, end at `end`, so that what follows is none of it? */
static bool ends_place(enum wf_tier_kind kind, const char *text, const char *end)
{
    char place[WF_PATH_MAX + 64];
    uint64_t bytes;
    snprintf(place, sizeof place, "%.*s", (int)(end - text), text);
    const char *colon = strrchr(place, ':');
    if (kind == WF_KIND_CXL && !starts(place, EMULATION) && is_cxl(place))
        return true;
    if (colon || kind == WF_KIND_DRAM) /* a size after it */
        return wf_size_parse(colon ? colon + 1 : place, &bytes) == WEFT_OK;
    return access(place, F_OK) == 0;
}

/* The first of what was meant to set something behind a comma of `text`, by a key that there is
 * not; NULL: none, and each comma is the path's.  What names something that is there is a path. */
static const char *stray_option(enum wf_tier_kind kind, const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    const char *colon = strrchr(text, ':'), *comma;
    uint64_t bytes;
    bool sized = colon && wf_size_parse(colon + 1, &bytes) == WEFT_OK;
    if (kind != WF_KIND_S3 && (sized || access(text, F_OK) == 0))
        return NULL;
    for (comma = strchr(text, ','); comma; comma = strchr(comma + 1, ',')) {
        size_t length = strspn(comma + 1, letters);
        if (length && comma[1 + length] == '=' &&
            (kind == WF_KIND_S3 || ends_place(kind, text, comma)))
            return comma + 1;
    }
    return NULL;
}

static enum weft_status read_short(const char *flag, uint32_t *made, struct short_tier *out)
{
    const char *const *kinds = list->fields[wf_list_field(list, "kind")].choices;
    char place[WF_PATH_MAX + 64]; /* all but its options */
    size_t place_bytes = options_at(flag);
    enum weft_status status = read_options(flag, flag + place_bytes, out);
    if (status != WEFT_OK)
        return status;
    bool good = place_bytes < sizeof place;
    snprintf(place, sizeof place, "%.*s", good ? (int)place_bytes : 0, flag);
    const char *path = place;
    out->kind = WF_KIND_S3;
    good = good && starts(place, S3_SCHEME);
    for (int i = 0; kinds[i] && !good; i++) {
        size_t length = strlen(kinds[i]);
        if (i == WF_KIND_S3 || !starts(place, kinds[i]) || place[length] != ':')
            continue;
        good = true;
        out->kind = (enum wf_tier_kind)i;
        path = place + length + 1;
    }
    const char *bad = NULL, *stray = good ? stray_option(out->kind, path) : NULL;
    if (stray)
        return unknown_option(flag, stray);
    good = good && split_size(path, out, &bad);
    if (bad)
        return wf_fail(WEFT_E_INVALID,
                       "--tier '%.96s': '%.32s' is no size; write a number with K, M, G or T, like "
                       "100GB",
                       flag, bad);
    if (!good)
        return wf_fail(WEFT_E_INVALID,
                       "--tier '%.96s' is no tier; write nvme:PATH:SIZE, cxl:/dev/daxX.Y, "
                       "dram:SIZE or s3://BUCKET/PREFIX",
                       flag);
    uint32_t number = made[out->kind]++ + (out->kind == WF_KIND_DRAM); /* dram0 is the pool */
    if (out->kind != WF_KIND_S3)
        snprintf(out->name, sizeof out->name, "%s%u", kinds[out->kind], number);
    else if (number)
        snprintf(out->name, sizeof out->name, "s3-%u", number);
    else
        snprintf(out->name, sizeof out->name, "s3");
    return WEFT_OK;
}

static void tell_short(const struct short_tier *tier,
                       void (*set)(void *context, const char *key, const char *value),
                       void *context)
{
    const char *kind = list->fields[wf_list_field(list, "kind")].choices[tier->kind];
    const struct {
        const char *field, *value;
    } told[] = {{"kind", kind}, {"path", tier->path}, {"size", tier->size}};
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s.%s.%s", list->one, tier->name, told[i].field);
        if (told[i].value[0])
            set(context, key, told[i].value);
    }
    /* Who has a number shares; an option may still say otherwise, which is then refused. */
    const char *option = tier->options;
    bool shared = false;
    for (uint32_t i = 0; i < tier->option_count; i++, option += strlen(option) + 1) {
        char key[64];
        size_t length = strcspn(option, "=");
        if (starts(option, "host=") && !shared) {
            snprintf(key, sizeof key, "%s.%s.shared", list->one, tier->name);
            set(context, key, "true");
            shared = true;
        }
        snprintf(key, sizeof key, "%s.%s.%.*s", list->one, tier->name, (int)length, option);
        set(context, key, option + length + 1);
    }
}

enum weft_status
wf_config_tier_flags(const char *const *flags, size_t flag_count,
                     void (*set)(void *context, const char *key, const char *value), void *context)
{
    struct short_tier tiers[WF_TIERS_MAX];
    char names[WF_TIERS_MAX * sizeof tiers[0].name] = "";
    uint32_t made[WF_KINDS] = {0};
    size_t used = 0;
    if (flag_count > WF_TIERS_MAX)
        return wf_fail(WEFT_E_INVALID, "--tier is given %zu times and a node has %d at most; %s",
                       flag_count, WF_TIERS_MAX, list->over);
    for (size_t i = 0; i < flag_count; i++) {
        enum weft_status status = read_short(flags[i], made, &tiers[i]);
        if (status != WEFT_OK)
            return status;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? "," : "",
                                 tiers[i].name);
    }
    if (flag_count)
        set(context, list->key, names);
    for (size_t i = 0; i < flag_count; i++)
        tell_short(&tiers[i], set, context);
    return WEFT_OK;
}
