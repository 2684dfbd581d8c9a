/* SPDX-License-Identifier: Apache-2.0
 *
 * The four layers of the configuration, one over the other, and what binds fields together.
 */
#include "daemon/config.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/nearest.h"
#include "base/size.h"
#include "daemon/config_fields.h"
#include "sys/host.h"
#include "sys/paths.h"

#define MIB (1024ULL * 1024)
#define MEMORY_UNKNOWN (1024 * MIB) /* a host that does not say how much it has */

void wf_config_defaults(struct wf_config *config)
{
    struct wf_host host;
    wf_host_read(&host);
    /* Whole MiB, so that the value is readable and a multiple of any page size that a pool uses. */
    uint64_t memory = (host.memory_bytes ? host.memory_bytes : MEMORY_UNKNOWN) / MIB * MIB;
    *config = (struct wf_config){
        .socket_mode = 0600,
        .http_address = "127.0.0.1",
        .http_port = 9464,
        .resp_port = 6379,
        .resp_domain = "default",
        .resp_threads = 1,
        .resp_clients = 10000,
        .resp_keys = 1048576,
        .resp_small_bytes = 256 * MIB,
        .resp_stall_ms = 60000,
        .events_domain = "default",
        .events_memory = 256 * MIB,
        .events_replay_batches = 10000,
        .events_replay_bytes = 64 * MIB,
        .events_engine_memory = 64 * MIB,
        .fabric_lease_ms = 5000,
        .fabric_copies = 1,
        .fabric_move_rate = (uint64_t)120 << 20,
        .fabric_replica_bytes = 64 * MIB,
        .fabric_directory = 1,
        .pool_bytes = memory / 4 / MIB * MIB,
        .pool_bytes_max = memory,
        .pool_huge = WF_HUGE_AUTO,
        .pool_numa_node = -1,
        .block_bytes_min = 16 * 1024,
        .ahead_percent = 12,
        .clients_max = 256,
        .pins_max = 65536,
        .sessions_max = 65536,
        .formats_max = 1024,
        .regions_max = 4096,
        .reserved_max = 4096,
        .below_max = 4194304,
        .staging_bytes = 64 * MIB,
        .workers = 2,
        .drain_ms = 5000,
        .events_max = 65536,
        .log_level = WF_LOG_INFO,
        .domain_count = 1,
    };
    wf_config_fabric_name(config);
    wf_host_socket(config->socket);
    wf_host_state(config->state_dir, sizeof config->state_dir);
    wf_config_lists[WF_LIST_DOMAINS].defaults(&config->domains[0]);
    snprintf(config->domains[0].name, sizeof config->domains[0].name, "default");
}

/* ---------------------------------------------------------------------------------------- file */

static enum weft_status read_file(const char *path, char **out_text, size_t *out_length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return wf_fail(errno == ENOENT ? WEFT_E_NOT_FOUND : WEFT_E_SYSTEM,
                       "cannot open the configuration '%s': %s; check the path", path,
                       strerror(errno));
    enum weft_status status = WEFT_OK;
    size_t used = 0;
    char *text = malloc(WF_CONFIG_FILE_BYTES_MAX +
                        1); /* one more, to see that a file is too large */
    if (!text)
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory to read the configuration '%s'", path);
    while (status == WEFT_OK && used <= WF_CONFIG_FILE_BYTES_MAX) {
        ssize_t count = read(fd, text + used, WF_CONFIG_FILE_BYTES_MAX + 1 - used);
        if (count == 0)
            break;
        if (count > 0)
            used += (size_t)count;
        else if (errno != EINTR)
            status = wf_fail(WEFT_E_SYSTEM, "cannot read the configuration '%s': %s; give a file",
                             path, strerror(errno));
    }
    close(fd);
    if (status != WEFT_OK) {
        free(text);
        return status;
    }
    *out_text = text;
    *out_length = used;
    return WEFT_OK;
}

static enum weft_status lay_file(const char *path, struct wf_config *config)
{
    if (!path) {
        path = getenv("WEFT_CONFIG");
        if (!path || !*path) {
            if (access(WF_CONFIG_FILE_DEFAULT, F_OK) != 0)
                return WEFT_OK;
            path = WF_CONFIG_FILE_DEFAULT;
        }
    }
    char *text = NULL;
    size_t length = 0;
    enum weft_status status = read_file(path, &text, &length);
    if (status != WEFT_OK)
        return status;
    status = wf_config_parse_yaml(text, length, path, config);
    free(text);
    return status;
}

/* ----------------------------------------------------------------------- environment and flags */

/* "a,b" names the entries that there are: those that exist keep what was said about them. */
static enum weft_status name_entries(const struct wf_config_list *list, struct wf_config *config,
                                     const char *text, enum wf_config_layer layer,
                                     const char *where)
{
    char *named = calloc(list->max, list->entry_bytes);
    if (!named)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for %u %s", list->max, list->key);
    enum weft_status status = WEFT_OK;
    char shown[WF_NAMED_MAX];
    uint32_t count = 0;
    for (const char *p = text; status == WEFT_OK && (*text || list->empty); p++) {
        size_t length = strcspn(p, ",");
        char name[WF_LIST_NAME_MAX + 2], *entry = named + count * list->entry_bytes;
        snprintf(name, sizeof name, "%.*s",
                 (int)(length > WF_LIST_NAME_MAX + 1 ? WF_LIST_NAME_MAX + 1 : length), p);
        if (count == list->max) {
            status = wf_fail(WEFT_E_INVALID, "%s: there are more than %u; %s",
                             wf_value_named(where, list->key, shown), list->max, list->over);
            break;
        }
        for (uint32_t i = 0; i < count; i++)
            if (strcmp(named + i * list->entry_bytes, name) == 0)
                status = wf_fail(WEFT_E_INVALID, "%s: '%s' is there twice; remove one",
                                 wf_value_named(where, list->key, shown), name);
        const void *known = wf_list_find(list, config, name);
        if (known)
            memcpy(entry, known, list->entry_bytes);
        else
            list->defaults(entry);
        if (status == WEFT_OK)
            status = wf_value_set(&list->fields[0], entry, name, where, list->key);
        *wf_list_origin(list, entry, 0) = (struct wf_config_origin){.layer = layer};
        count++;
        p += length;
        if (!*p)
            break;
    }
    if (status == WEFT_OK) {
        memcpy(wf_list_entry(list, config, 0), named, list->max * list->entry_bytes);
        wf_list_resize(list, config, count, (struct wf_config_origin){.layer = layer});
    }
    free(named);
    return status;
}

static enum weft_status set_field(struct wf_config *config, int index, const char *text,
                                  enum wf_config_layer layer, const char *where)
{
    enum weft_status status = wf_value_set(&wf_config_fields[index], config, text, where,
                                           wf_config_fields[index].key);
    config->origin[index] = (struct wf_config_origin){.layer = layer};
    return status;
}

static enum weft_status lay_environment(struct wf_config *config)
{
    char variable[WF_CONFIG_KEY_MAX + 6], where[WF_ORIGIN_TEXT_MAX];
    enum weft_status status = WEFT_OK;
    /* Set to nothing is the usual way to unset in a unit file or a compose file. */
    for (size_t i = 0; status == WEFT_OK && i < WF_LIST_COUNT; i++) {
        const char *text = getenv(wf_config_variable(wf_config_lists[i].key, variable));
        snprintf(where, sizeof where, "env %s", variable);
        if (text && *text)
            status = name_entries(&wf_config_lists[i], config, text, WF_FROM_ENVIRONMENT, where);
    }
    for (size_t i = 0; status == WEFT_OK && i < wf_config_field_count; i++) {
        const char *text = getenv(wf_config_variable(wf_config_fields[i].key, variable));
        snprintf(where, sizeof where, "env %s", variable);
        if (text && *text)
            status = set_field(config, (int)i, text, WF_FROM_ENVIRONMENT, where);
    }
    return status;
}

/* `key` is what stands between "domain." and "=": a name, which may have dots, and a field. */
static enum weft_status override_entry(const struct wf_config_list *list, struct wf_config *config,
                                       const char *key, const char *text, const char *where)
{
    const char *dot = strrchr(key, '.');
    char name[WF_LIST_NAME_MAX + 1], words[256], names[512];
    int index = dot ? wf_list_field(list, dot + 1) : -1;
    if (index < 1 || dot - key > (ptrdiff_t)list->name_max)
        return wf_fail(WEFT_E_INVALID,
                       "%s: there is no such key of a %s; write %s.NAME.FIELD with %s", where,
                       list->one, list->one, wf_list_words(list, 1, words, sizeof words));
    snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
    void *entry = wf_list_find(list, config, name);
    if (!entry) {
        struct wf_nearest nearest;
        size_t used = 0;
        wf_nearest_init(&nearest, name);
        names[0] = '\0';
        for (uint32_t i = 0; i < wf_list_count(list, config); i++) {
            const char *there = wf_list_entry(list, config, i);
            wf_nearest_offer(&nearest, there);
            if (used < sizeof names)
                used += (size_t)snprintf(names + used, sizeof names - used, "%s,", there);
        }
        if (nearest.best)
            return wf_fail(WEFT_E_INVALID, "%s: there is no %s '%s'; did you mean '%s'?", where,
                           list->one, name, nearest.best);
        return wf_fail(WEFT_E_INVALID,
                       "%s: there is no %s '%s'; name all of them first, as %s=%s%s", where,
                       list->one, name, list->key, names, name);
    }
    *wf_list_origin(list, entry, index) = (struct wf_config_origin){.layer = WF_FROM_FLAG};
    return wf_value_set(&list->fields[index], entry, text, where, list->fields[index].key);
}

/* Whether `key` names a list or an entry of one; if so, *out says how that went. */
static bool override_list(struct wf_config *config, const char *key, const char *text,
                          const char *where, enum weft_status *out)
{
    for (size_t i = 0; i < WF_LIST_COUNT; i++) {
        const struct wf_config_list *list = &wf_config_lists[i];
        size_t length = strlen(list->one);
        if (strcmp(key, list->key) == 0)
            *out = name_entries(list, config, text, WF_FROM_FLAG, where);
        else if (strncmp(key, list->one, length) == 0 && key[length] == '.')
            *out = override_entry(list, config, key + length + 1, text, where);
        else
            continue;
        return true;
    }
    return false;
}

static enum weft_status lay_override(struct wf_config *config, const char *override)
{
    char key[WF_CONFIG_KEY_MAX + WF_LIST_NAME_MAX + 2], where[WF_ORIGIN_TEXT_MAX];
    const char *equals = strchr(override, '=');
    enum weft_status status;
    size_t length = equals ? (size_t)(equals - override) : 0;
    if (!length || length >= sizeof key)
        return wf_fail(WEFT_E_INVALID,
                       "the flag '%.64s' is not KEY=VALUE; write it like pool.size=4GB", override);
    if (strlen(equals + 1) > WF_CONFIG_VALUE_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "the flag '%.64s…' has a value of more than %d bytes; shorten it", override,
                       WF_CONFIG_VALUE_MAX);
    snprintf(key, sizeof key, "%.*s", (int)length, override);
    snprintf(where, sizeof where, "flag %s", key);
    if (override_list(config, key, equals + 1, where, &status))
        return status;
    int index = wf_config_field(key);
    if (index >= 0)
        return set_field(config, index, equals + 1, WF_FROM_FLAG, where);
    struct wf_nearest nearest;
    wf_nearest_init(&nearest, key);
    for (size_t i = 0; i < WF_LIST_COUNT; i++)
        wf_nearest_offer(&nearest, wf_config_lists[i].key);
    for (size_t i = 0; i < wf_config_field_count; i++)
        wf_nearest_offer(&nearest, wf_config_fields[i].key);
    if (nearest.best)
        return wf_fail(WEFT_E_INVALID, "%s: there is no key '%s'; did you mean '%s'?", where, key,
                       nearest.best);
    return wf_fail(WEFT_E_INVALID, "%s: there is no key '%s'; `weftd --help-config` lists them",
                   where, key);
}

/* ------------------------------------------------------------------ what binds fields together */

/* "token" of "http.token". */
static const char *last_word(const struct wf_field *field)
{
    const char *dot = strrchr(field->key, '.');
    return dot ? dot + 1 : field->key;
}

/* The first line of `path` into the token field; trailing white space is dropped, because editors
 * add it. */
static enum weft_status read_token_file(const struct wf_field *field, void *base, const char *path,
                                        const char *where)
{
    char line[WF_TOKEN_MAX + 64], shown[WF_CONFIG_KEY_MAX + 6];
    const char *word = last_word(field);
    snprintf(shown, sizeof shown, "%s_file", word);
    FILE *file = fopen(path, "re");
    if (!file)
        return wf_fail(WEFT_E_SYSTEM,
                       "%s: %s_file: cannot open '%s': %s; create it, or correct the path", where,
                       word, path, strerror(errno));
    bool got = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    if (got)
        line[strcspn(line, " \t\r\n")] = '\0';
    if (!got || !line[0])
        return wf_fail(WEFT_E_INVALID,
                       "%s: %s_file: '%s' has no %s in its first line; write one there", where,
                       word, path, word);
    return wf_value_set(field, base, line, where, shown);
}

/* Of token and token_file the one that was said in the later layer counts; in one layer both are a
 * doubt. */
static enum weft_status settle_token(const struct wf_field *token_field, void *base, char *token,
                                     char *token_file, struct wf_config_origin *token_origin,
                                     const struct wf_config_origin *file_origin, const char *where)
{
    if (!token_file[0])
        return WEFT_OK;
    if (token[0] && token_origin->layer == file_origin->layer)
        return wf_fail(WEFT_E_INVALID, "%s: both %s and %s_file are set; keep one of them", where,
                       last_word(token_field), last_word(token_field));
    if (token_origin->layer > file_origin->layer) {
        token_file[0] = '\0';
        return WEFT_OK;
    }
    *token_origin = *file_origin;
    return read_token_file(token_field, base, token_file, where);
}

static enum weft_status find_user(const char *entry, const char *where, uint32_t *out_uid)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(entry, &end, 10);
    if (entry[0] >= '0' && entry[0] <= '9' && !*end) {
        if (errno || number >= UINT32_MAX) /* the last one is (uid_t)-1: nobody */
            return wf_fail(WEFT_E_INVALID, "%s: allow: '%s' is not a uid; write one below %u",
                           where, entry, UINT32_MAX);
        *out_uid = (uint32_t)number;
        return WEFT_OK;
    }
    struct passwd entry_of, *found = NULL;
    char buffer[4096];
    if (getpwnam_r(entry, &entry_of, buffer, sizeof buffer, &found) != 0 || !found)
        return wf_fail(WEFT_E_INVALID,
                       "%s: allow: this host has no user '%.64s'; write a uid, or add the user",
                       where, entry);
    *out_uid = found->pw_uid;
    return WEFT_OK;
}

static enum weft_status settle_allow(struct wf_domain_config *domain, const char *where)
{
    char list[WF_ALLOW_TEXT_MAX + 1], *rest = NULL;
    domain->allow_uid_count = 0;
    domain->allow_any_uid = strcmp(domain->allow, "any") == 0;
    if (domain->allow_any_uid)
        return WEFT_OK;
    memcpy(list, domain->allow, sizeof list);
    for (char *entry = strtok_r(list, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
        uint32_t uid = 0;
        if (domain->allow_uid_count ==
            WF_ALLOW_MAX) /* read_allow() has counted, but not what finish is given */
            return wf_fail(WEFT_E_INVALID,
                           "%s: allow: more than %d entries; write any and ask for a token", where,
                           WF_ALLOW_MAX);
        enum weft_status status = find_user(entry, where, &uid);
        if (status != WEFT_OK)
            return status;
        domain->allow_uid[domain->allow_uid_count++] = uid;
    }
    return WEFT_OK;
}

static enum weft_status finish_domain(const struct wf_config *config,
                                      struct wf_domain_config *domain)
{
    const struct wf_config_list *list = &wf_config_lists[WF_LIST_DOMAINS];
    int quota_index = wf_list_field(list, "quota"), token_index = wf_list_field(list, "token");
    int file_index = wf_list_field(list, "token_file"), allow_index = wf_list_field(list, "allow");
    char where[WF_ORIGIN_TEXT_MAX], quota[24], pool[24], floor[24];
    if (domain->quota_bytes > config->pool_bytes_max)
        return wf_fail(
            WEFT_E_INVALID,
            "%s: domain '%s': quota %s is more than the pool can ever have (%s); lower it, or "
            "raise pool.size_max",
            wf_list_where(list, config, domain, quota_index, where), domain->name,
            wf_size_format(domain->quota_bytes, quota, sizeof quota),
            wf_size_format(config->pool_bytes_max, pool, sizeof pool));
    if (domain->quota_bytes && domain->floor_bytes > domain->quota_bytes)
        return wf_fail(
            WEFT_E_INVALID,
            "%s: domain '%s': floor %s is more than its quota %s; lower it, or raise the quota",
            wf_list_where(list, config, domain, wf_list_field(list, "floor"), where), domain->name,
            wf_size_format(domain->floor_bytes, floor, sizeof floor),
            wf_size_format(domain->quota_bytes, quota, sizeof quota));
    enum weft_status status = settle_token(&list->fields[token_index], domain, domain->token,
                                           domain->token_file, &domain->origin[token_index],
                                           &domain->origin[file_index],
                                           wf_list_where(list, config, domain, file_index, where));
    if (status == WEFT_OK)
        status = settle_allow(domain, wf_list_where(list, config, domain, allow_index, where));
    return status;
}

/* Floors that the pool cannot keep, and weights beside none, are promises that mean nothing. */
static enum weft_status finish_shares(const struct wf_config *config)
{
    const struct wf_config_list *list = &wf_config_lists[WF_LIST_DOMAINS];
    char where[WF_ORIGIN_TEXT_MAX], floor[24], pool[24], rest[24];
    const struct wf_domain_config *weighed = NULL, *bare = NULL;
    uint64_t left = config->pool_bytes;
    for (uint32_t i = 0; i < config->domain_count; i++) {
        const struct wf_domain_config *domain = &config->domains[i];
        if (domain->floor_bytes > left)
            return wf_fail(
                WEFT_E_INVALID,
                "%s: domain '%s': floor %s is more than is left of pool.size %s beside the floors "
                "before it, %s; lower floors, or raise pool.size",
                wf_list_where(list, config, domain, wf_list_field(list, "floor"), where),
                domain->name, wf_size_format(domain->floor_bytes, floor, sizeof floor),
                wf_size_format(config->pool_bytes, pool, sizeof pool),
                wf_size_format(left, rest, sizeof rest));
        left -= domain->floor_bytes;
        weighed = domain->share && !weighed ? domain : weighed;
        bare = !domain->share && !bare ? domain : bare;
    }
    if (weighed && bare)
        return wf_fail(WEFT_E_INVALID,
                       "%s: domain '%s' has share %u, and domain '%s' has none; give every domain "
                       "one, or none",
                       wf_list_where(list, config, weighed, wf_list_field(list, "share"), where),
                       weighed->name, weighed->share, bare->name);
    return WEFT_OK;
}

static enum weft_status finish_pool(struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX], size[24], most[24];
    int most_index = wf_config_field("pool.size_max");
    if (config->pool_bytes_max >= config->pool_bytes)
        return WEFT_OK;
    if (config->origin[most_index].layer == WF_FROM_DEFAULT) {
        config->pool_bytes_max = config->pool_bytes;
        return WEFT_OK;
    }
    return wf_fail(WEFT_E_INVALID,
                   "%s: pool.size_max %s is less than pool.size %s; raise it, or lower pool.size",
                   wf_config_where(config, most_index, where),
                   wf_size_format(config->pool_bytes_max, most, sizeof most),
                   wf_size_format(config->pool_bytes, size, sizeof size));
}

/* A listener: who may come from elsewhere is asked for something. */
static enum weft_status finish_listener(struct wf_config *config, const char *listen,
                                        const char *token, const char *token_file)
{
    char where[WF_ORIGIN_TEXT_MAX], named[WF_NAMED_MAX];
    int listen_index = wf_config_field(listen), token_index = wf_config_field(token),
        file_index = wf_config_field(token_file);
    const struct wf_field *fields = wf_config_fields;
    const char *address = (const char *)config + fields[listen_index].offset;
    char *secret = (char *)config + fields[token_index].offset;
    enum weft_status status = settle_token(&fields[token_index], config, secret,
                                           (char *)config + fields[file_index].offset,
                                           &config->origin[token_index],
                                           &config->origin[file_index],
                                           wf_config_where(config, file_index, where));
    if (status == WEFT_OK && address[0] && !wf_config_is_loopback(address) && !secret[0])
        return wf_fail(WEFT_E_INVALID,
                       "%s: '%s' can be reached from other hosts and asks for nothing; set "
                       "%s or %s, or listen on 127.0.0.1",
                       wf_value_named(wf_config_where(config, listen_index, where), listen, named),
                       address, token, token_file);
    return status;
}

enum weft_status wf_config_finish(struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX];
    enum weft_status status = finish_pool(config);
    if (status == WEFT_OK)
        status = finish_listener(config, "http.listen", "http.token", "http.token_file");
    if (status == WEFT_OK)
        status = finish_listener(config, "resp.listen", "resp.password", "resp.password_file");
    for (uint32_t i = 0; status == WEFT_OK && i < config->domain_count; i++)
        status = finish_domain(config, &config->domains[i]);
    if (status == WEFT_OK)
        status = finish_shares(config);
    if (status == WEFT_OK && config->resp_address[0] &&
        !wf_list_find(&wf_config_lists[WF_LIST_DOMAINS], config, config->resp_domain))
        return wf_fail(WEFT_E_INVALID,
                       "%s: resp.domain: there is no domain '%s'; name one of `domains`",
                       wf_config_where(config, wf_config_field("resp.domain"), where),
                       config->resp_domain);
    if (status == WEFT_OK)
        status = wf_config_finish_events(config);
    if (status == WEFT_OK)
        status = wf_config_finish_fabric(config);
    return status == WEFT_OK ? wf_config_finish_tiers(config) : status;
}

enum weft_status wf_config_load(const char *path, const char *const *overrides,
                                size_t override_count, struct wf_config *out)
{
    struct wf_config *config = malloc(sizeof *config); /* too large for a stack */
    if (!config)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for the configuration");
    wf_config_defaults(config);
    enum weft_status status = lay_file(path, config);
    if (status == WEFT_OK)
        status = lay_environment(config);
    for (size_t i = 0; status == WEFT_OK && i < override_count; i++)
        status = lay_override(config, overrides[i]);
    if (status == WEFT_OK)
        status = wf_config_finish(config);
    if (status == WEFT_OK)
        *out = *config;
    free(config);
    return status;
}
