/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers in the configuration: what a kind allows, the short form of weftd's --tier, and what their
 * paths mean on this host.  Nothing here opens a tier or writes anywhere.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/size.h"
#include "daemon/config_fields.h"
#include "sys/cxl.h"
#include "sys/host.h"
#include "sys/memory.h"
#include "sys/paths.h"
#include "tier/tier.h"

#define DRAM_NAME "dram0" /* what the pool itself is called among the tiers */
#define S3_SCHEME "s3://"
#define EMULATION "file-emulation:"
#define NVME_FILE "/nvme.weft" /* what the NVMe tier makes in a directory */
#define FILE_MAX (WF_PATH_MAX + sizeof NVME_FILE)
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

/* The number after `with`, or -1 when `path` is anything else. */
static int number_after(const char *path, const char *with)
{
    size_t length = strlen(with), digits;
    if (!starts(path, with))
        return -1;
    digits = strspn(path + length, "0123456789");
    return digits && digits <= 4 && !path[length + digits] ? (int)strtol(path + length, NULL, 10)
                                                           : -1;
}

static bool is_cxl(const char *path)
{
    int device, part, used = 0;
    if (strcmp(path, "auto") == 0)
        return true;
    if (number_after(path, "node:") >= 0 || (starts(path, EMULATION) && path[strlen(EMULATION)]))
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

void wf_config_add_others(struct wf_config *config)
{
    config->lower_count = config->tier_count;
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
    if (config->tier_count + shared > WF_TIERS_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "tiers: %u, and %u of them are shared, which count twice; %d is the most",
                       config->tier_count, shared, WF_TIERS_MAX);
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

/* -------------------------------------------------------------------------------- on this host */

/* The directory that `path` lies in; `out` may be `path`. */
static void parent_of(const char *path, char *out, size_t capacity)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length && length < capacity) {
        memmove(out, path, length);
        out[length] = '\0';
    } else {
        snprintf(out, capacity, "%s", slash ? "/" : ".");
    }
}

/* `already`: what the file has taken up before. */
static void check_room(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *directory, uint64_t already)
{
    struct statvfs room;
    char size[24], offered[24];
    if (statvfs(directory, &room) != 0)
        return;
    uint64_t bytes = room.f_bavail * room.f_frsize + already;
    uint64_t most = geteuid() == 0 ? room.f_bfree * room.f_frsize + already : bytes;
    if (tier->size_bytes > bytes)
        wf_remark(
            remarks, tier->size_bytes > most ? WF_REMARK_TIER : WF_REMARK_NOTE,
            "tier '%s': size %s is more than '%s' has room for (%s%s); lower it, or make room",
            tier->name, wf_size_format(tier->size_bytes, size, sizeof size), directory,
            wf_size_format(bytes, offered, sizeof offered),
            tier->size_bytes > most ? "" : ", and the rest is kept for root alone");
}

static void check_block_device(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                               const struct stat *found)
{
    char mounted[WF_PATH_MAX];
    if (access(tier->path, R_OK | W_OK) != 0) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: uid %u may not read and write '%s'; give it the device's group, "
            "or chown it",
            tier->name, (unsigned)geteuid(), tier->path);
        return;
    }
    if (wf_host_mounted(found->st_rdev, mounted, sizeof mounted)) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: '%s' is mounted on '%s' and would be overwritten; unmount it, or "
            "name a file on it",
            tier->name, tier->path, mounted);
        return;
    }
    int fd = open(tier->path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == EBUSY)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "tier '%s': path: '%s' is in use by the kernel, a mounted partition of it or a "
                  "volume on it; make sure that it is free",
                  tier->name, tier->path);
    if (fd >= 0)
        close(fd);
}

/* The file that a tier at `path` is kept in. */
static void file_of(const struct wf_tier_config *tier, const char *path, char out[FILE_MAX])
{
    struct stat found;
    bool inside = tier->kind == WF_KIND_NVME && stat(path, &found) == 0 && S_ISDIR(found.st_mode);
    snprintf(out, FILE_MAX, "%s%s", path, inside ? NVME_FILE : "");
}

/* How large it is to be must be said of a file that is new; what is there may go on as it is. */
static void check_size(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path, const char *directory, bool inside)
{
    uint64_t least = tier->kind == WF_KIND_NVME ? WF_TIER_NVME_BYTES_LEAST
                                                : WF_TIER_CXL_BYTES_LEAST;
    char file[FILE_MAX];
    struct stat found;
    file_of(tier, path, file);
    bool there = stat(file, &found) == 0;
    if (!tier->size_bytes) {
        if (!there || found.st_size == 0)
            wf_remark(
                remarks, WF_REMARK_FATAL,
                "tier '%s': size: '%s' is %s, which does not say how much of it to use; set size, "
                "like 100GB",
                tier->name, path,
                inside  ? "a directory"
                : there ? "an empty file"
                        : "not there yet and will be a file");
    } else if (tier->size_bytes < least) {
        wf_remark(
            remarks, WF_REMARK_FATAL,
            "tier '%s': size: %llu bytes is too little; %llu is the least that a tier can work "
            "with, and some hundred times a block's size is sensible",
            tier->name, (unsigned long long)tier->size_bytes, (unsigned long long)least);
    } else {
        check_room(remarks, tier, directory, there ? (uint64_t)found.st_blocks * 512 : 0);
    }
}

/* What lies there may be another's, or more than `size` holds. */
static void check_content(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                          const char *path)
{
    char file[FILE_MAX];
    file_of(tier, path, file);
    if ((tier->kind == WF_KIND_NVME ? wf_tier_nvme_check(file, tier->size_bytes)
                                    : wf_tier_cxl_check(file)) != WEFT_OK)
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s' cannot be opened: %s", tier->name,
                  wf_last_error());
}

/* Another that runs has it, which the check of a changed configuration is usually asked beside. */
static void check_held(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path)
{
    char file[FILE_MAX], who[32] = "";
    struct stat found;
    pid_t pid = 0;
    file_of(tier, path, file);
    if (stat(file, &found) != 0 || !wf_host_locked(found.st_dev, found.st_ino, &pid))
        return;
    if (pid)
        snprintf(who, sizeof who, ", pid %d", (int)pid);
    wf_remark(remarks, WF_REMARK_NOTE,
              "tier '%s': path: '%s' is in use by a running node%s; only one can have it at a time",
              tier->name, file, who);
}

/* `path` is a file that is there or would be made, or for NVMe a directory or a device. */
static void check_file(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path)
{
    struct stat found;
    char directory[WF_PATH_MAX];
    bool there = stat(path, &found) == 0;
    if (there && S_ISBLK(found.st_mode) && tier->kind == WF_KIND_NVME) {
        check_block_device(remarks, tier, &found);
        check_held(remarks, tier, path);
        check_content(remarks, tier, path);
        return;
    }
    bool inside = there && S_ISDIR(found.st_mode) && tier->kind == WF_KIND_NVME;
    if (there && !inside && !S_ISREG(found.st_mode)) {
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s': path: '%s' is no file%s; name another",
                  tier->name, path,
                  tier->kind == WF_KIND_NVME ? ", directory or block device" : "");
        return;
    }
    if (inside)
        snprintf(directory, sizeof directory, "%s", path);
    else
        parent_of(path, directory, sizeof directory);
    if (there ? access(path, inside ? W_OK | X_OK : R_OK | W_OK) != 0
              : access(directory, W_OK | X_OK) != 0 &&
                    strcmp(directory, remarks->config->state_dir) != 0) /* which is made before */
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s': path: '%s' cannot be %s by uid %u: %s; %s",
                  tier->name, path, there ? "written" : "made", (unsigned)geteuid(),
                  strerror(errno),
                  there ? "chown it" : "create its directory, or name another path");
    check_size(remarks, tier, path, directory, inside);
    check_held(remarks, tier, path);
    check_content(remarks, tier, path);
}

static void check_cxl(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    int node = number_after(tier->path, "node:");
    if (strcmp(tier->path, "auto") == 0) {
        struct wf_cxl_device device;
        uint32_t count = 0;
        bool libraries;
        enum weft_status status = wf_cxl_find(&(struct wf_cxl_search){0}, &device, 1, &count,
                                              &libraries);
        if (count == 0 && status != WEFT_E_LIMIT)
            wf_remark(remarks, WF_REMARK_FATAL,
                      "tier '%s': path: auto finds no DAX device and no NUMA node without "
                      "processors on this host; name one, or drop the tier",
                      tier->name);
    } else if (starts(tier->path, EMULATION)) {
        check_file(remarks, tier, tier->path + strlen(EMULATION));
        wf_remark(remarks, WF_REMARK_NOTE,
                  "tier '%s': '%s' is a file in this host's memory or on its disk, not CXL; it is "
                  "shown as emulated",
                  tier->name, tier->path);
    } else if (node >= 0 && !wf_host_has_numa_node(node)) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: this host has no NUMA node %d; name one that `numactl -H` lists",
            tier->name, node);
    } else if (node >= 0 && wf_cxl_node_has_processors(NULL, node)) {
        wf_remark(remarks, tier->dram_node ? WF_REMARK_NOTE : WF_REMARK_FATAL,
                  "tier '%s': path: NUMA node %d has processors, so its memory is plain DRAM, not "
                  "CXL; name a node without (weft doctor lists them), give the memory to the pool "
                  "(pool.size), or set dram_node: true",
                  tier->name, node);
    } else if (node < 0 && access(tier->path, R_OK | W_OK) != 0) {
        wf_remark(remarks, WF_REMARK_TIER,
                  "tier '%s': path: uid %u may not use '%s': %s; `daxctl list` names the devices",
                  tier->name, (unsigned)geteuid(), tier->path, strerror(errno));
    }
}

/* What the pool has is not for it; pages of both come when they are first written to. */
static void check_dram(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    struct wf_host host;
    char size[24], pool[24], offered[24];
    uint64_t pool_bytes = remarks->config->pool_bytes;
    wf_host_read(&host);
    if (!host.memory_bytes || tier->size_bytes + pool_bytes <= host.memory_bytes)
        return;
    wf_remark(remarks, tier->size_bytes > wf_host_bytes() ? WF_REMARK_FATAL : WF_REMARK_NOTE,
              "tier '%s': size %s and the pool's %s are more than this %s has (%s); lower one",
              tier->name, wf_size_format(tier->size_bytes, size, sizeof size),
              wf_size_format(pool_bytes, pool, sizeof pool),
              host.memory_is_cgroup ? "cgroup" : "host",
              wf_size_format(host.memory_bytes, offered, sizeof offered));
}

/* Who we are to the store; weftd may have another environment than who checks. */
static void check_s3(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    enum weft_status status = wf_tier_s3_check();
    if (status != WEFT_OK)
        wf_remark(remarks, status == WEFT_MISS ? WF_REMARK_NOTE : WF_REMARK_TIER, "tier '%s': %s",
                  tier->name, wf_last_error());
}

/* What a tier is kept in, told from anything else: by device and number when it is there, else by
 * its directory's and its own name. */
struct place {
    bool known, there;
    dev_t device;
    ino_t number;
    char name[NAME_MAX + 1];
};

static void place_find(const struct wf_tier_config *tier, struct place *out)
{
    const char *path = starts(tier->path, EMULATION) ? tier->path + strlen(EMULATION) : tier->path;
    char file[FILE_MAX], directory[FILE_MAX];
    struct stat found;
    *out = (struct place){0};
    if (tier->kind == WF_KIND_S3 || tier->kind == WF_KIND_DRAM)
        return;
    file_of(tier, path, file);
    out->there = stat(file, &found) == 0;
    if (!out->there) {
        const char *slash = strrchr(file, '/');
        snprintf(out->name, sizeof out->name, "%.*s", NAME_MAX, slash ? slash + 1 : file);
        parent_of(file, directory, sizeof directory);
        if (stat(directory, &found) != 0)
            return;
    }
    bool device = out->there && (S_ISBLK(found.st_mode) || S_ISCHR(found.st_mode));
    out->known = true;
    out->device = device ? found.st_rdev : found.st_dev;
    out->number = device ? 0 : found.st_ino; /* a device has many names */
}

/* Two names of one file would have two tiers write over each other. */
static void check_same(struct wf_remarks *remarks, uint32_t index)
{
    const struct wf_tier_config *tier = &remarks->config->tiers[index], *other;
    struct place mine, others;
    place_find(tier, &mine);
    for (uint32_t i = 0; i < index && mine.known; i++) {
        other = &remarks->config->tiers[i];
        place_find(other, &others);
        if (others.known && mine.there == others.there && mine.device == others.device &&
            mine.number == others.number && strcmp(mine.name, others.name) == 0)
            wf_remark(remarks, WF_REMARK_FATAL,
                      "tier '%s': path '%s' is the same file as '%s' of tier '%s'; keep one",
                      tier->name, tier->path, other->path, other->name);
    }
}

static void check_state(struct wf_remarks *remarks)
{
    const char *path = remarks->config->state_dir;
    char above[WF_PATH_MAX];
    struct stat found;
    if (stat(path, &found) == 0) {
        if (wf_state_directory(path) != WEFT_OK)
            wf_remark(remarks, WF_REMARK_FATAL, "%s", wf_last_error());
        return;
    }
    snprintf(above, sizeof above, "%s", path);
    do
        parent_of(above, above, sizeof above);
    while (access(above, F_OK) != 0 && strcmp(above, "/") != 0 && strcmp(above, ".") != 0);
    if (access(above, W_OK | X_OK) != 0)
        wf_remark(remarks, WF_REMARK_FATAL,
                  "state_dir: '%s' cannot be made by uid %u, because '%s' is not writable; create "
                  "it, or set state_dir elsewhere",
                  path, (unsigned)geteuid(), above);
}

void wf_config_check_tiers(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    for (uint32_t i = 0; i < config->tier_count; i++) {
        const struct wf_tier_config *tier = &config->tiers[i];
        if (tier->kind == WF_KIND_NVME)
            check_file(remarks, tier, tier->path);
        else if (tier->kind == WF_KIND_CXL)
            check_cxl(remarks, tier);
        else if (tier->kind == WF_KIND_DRAM)
            check_dram(remarks, tier);
        else if (tier->kind == WF_KIND_S3)
            check_s3(remarks, tier);
        check_same(remarks, i);
        if (tier->admit == WF_ADMIT_NEVER && !tier->archive)
            wf_remark(remarks, WF_REMARK_NOTE,
                      "tier '%s': with admit: never and archive: false nothing is ever written to "
                      "it; set one of them otherwise, or remove the tier",
                      tier->name);
    }
    if (config->tier_count)
        check_state(remarks);
}
