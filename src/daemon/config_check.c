/* SPDX-License-Identifier: Apache-2.0
 *
 * What a configuration means on this host: each remark says the thing, the value and the mend.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/nearest.h"
#include "base/size.h"
#include "daemon/config_fields.h"
#include "daemon/secret.h"
#include "sys/host.h"

#define TOKEN_SHORT 16 /* fewer characters can be guessed in a night */

void wf_remark(struct wf_remarks *remarks, enum wf_remark_kind kind, const char *format, ...)
{
    char sentence[WF_ERROR_MAX + WF_PATH_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    remarks->say(remarks->context, kind, sentence);
    remarks->fatal |= kind == WF_REMARK_FATAL;
}

static void check_memory(struct wf_remarks *remarks, const struct wf_host *host)
{
    const struct wf_config *config = remarks->config;
    char pool[24], offered[24];
    wf_size_format(config->pool_bytes, pool, sizeof pool);
    if (host->memory_bytes && config->pool_bytes > host->memory_bytes)
        wf_remark(remarks, config->pool_prefault ? WF_REMARK_FATAL : WF_REMARK_RISK,
                  "pool.size %s is more than this %s has (%s), and weftd would be "
                  "killed when the pool fills; lower it",
                  pool, host->memory_is_cgroup ? "cgroup" : "host",
                  wf_size_format(host->memory_bytes, offered, sizeof offered));
    if (config->pool_huge == WF_HUGE_ON && !host->huge_page_bytes)
        wf_remark(remarks, WF_REMARK_FATAL,
                  "pool.huge is on and this kernel has no huge pages; set pool.huge to auto");
    else if (config->pool_huge == WF_HUGE_ON && host->huge_free_bytes < config->pool_bytes)
        wf_remark(
            remarks, WF_REMARK_FATAL,
            "pool.huge is on and the free huge pages hold %s of %s; set vm.nr_hugepages to %llu "
            "or more, or "
            "pool.huge to auto",
            wf_size_format(host->huge_free_bytes, offered, sizeof offered), pool,
            (unsigned long long)((config->pool_bytes + host->huge_page_bytes - 1) /
                                 host->huge_page_bytes));
    if (config->pool_prefault && host->memlock_bytes < config->pool_bytes)
        wf_remark(
            remarks, WF_REMARK_NOTE,
            "pool.prefault asks for resident memory and RLIMIT_MEMLOCK lets %s of %s be locked; "
            "raise it with "
            "`ulimit -l` or LimitMEMLOCK=, or the pool may be swapped out",
            wf_size_format(host->memlock_bytes, offered, sizeof offered), pool);
    if (config->pool_numa_node >= 0 && !wf_host_has_numa_node(config->pool_numa_node))
        wf_remark(remarks, WF_REMARK_FATAL,
                  "pool.numa_node is %d and this host has no such node; set one that `numactl -H` "
                  "lists, or any",
                  config->pool_numa_node);
}

static void check_socket(struct wf_remarks *remarks)
{
    const char *socket = remarks->config->socket;
    char directory[sizeof remarks->config->socket];
    memcpy(directory, socket, sizeof directory);
    char *slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return;
    *slash = '\0';
    struct stat found;
    if (stat(directory, &found) != 0) {
        char parent[sizeof directory];
        memcpy(parent, directory, sizeof parent);
        char *end = strrchr(parent, '/');
        if (end && end != parent)
            *end = '\0';
        if (errno != ENOENT || access(end == parent ? "/" : parent, W_OK) != 0)
            wf_remark(
                remarks, WF_REMARK_FATAL,
                "socket: '%s' lies in a directory that cannot be reached or made (%s); create "
                "'%s', or "
                "set socket elsewhere",
                socket, strerror(errno), directory);
        return; /* weftd makes the last directory itself */
    }
    if (access(directory, W_OK | X_OK) != 0)
        wf_remark(
            remarks, WF_REMARK_FATAL,
            "socket: '%s' cannot be made, the directory is not writable for uid %u; chown it, or "
            "set "
            "socket elsewhere",
            socket, (unsigned)geteuid());
    if ((found.st_mode & 0022) && !(found.st_mode & S_ISVTX))
        wf_remark(remarks, WF_REMARK_FATAL,
                  "socket: others may write to '%s' and put their own socket in place of weftd's; "
                  "chmod go-w it",
                  directory);
    else if (found.st_uid != geteuid() && found.st_uid != 0)
        wf_remark(
            remarks, WF_REMARK_FATAL,
            "socket: '%s' belongs to uid %u, who could replace weftd's socket; chown it, or set "
            "socket "
            "elsewhere",
            directory, (unsigned)found.st_uid);
}

const char *wf_config_unopened(int error, const char *make, char out[WF_UNOPENED_MAX])
{
    if (error == EACCES)
        snprintf(out, WF_UNOPENED_MAX, "make it and its folder readable for weftd's user, uid %u",
                 (unsigned)geteuid());
    else
        snprintf(out, WF_UNOPENED_MAX, "%s", make);
    return out;
}

/* Tokens and secrets are for weftd's user alone. */
static void check_private(struct wf_remarks *remarks, const char *path, const char *what)
{
    struct stat found;
    if (path[0] && stat(path, &found) == 0 && S_ISREG(found.st_mode) && (found.st_mode & 0004))
        wf_remark(remarks, WF_REMARK_NOTE,
                  "%s: every user of this host can read '%s' (mode %04o); chmod 0600 it", what,
                  path, (unsigned)(found.st_mode & 07777));
}

static void check_secret(struct wf_remarks *remarks, const struct wf_domain_config *domain)
{
    struct stat found;
    char mend[WF_UNOPENED_MAX];
    const char *path = domain->secret_file;
    if (!path[0])
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &found) != 0)
        wf_remark(remarks, WF_REMARK_FATAL, "domain '%s': secret_file: cannot open '%s': %s; %s",
                  domain->name, path, strerror(errno),
                  wf_config_unopened(errno, "make one with `head -c 32 /dev/urandom`", mend));
    else if (S_ISREG(found.st_mode) && found.st_size < WF_SECRET_BYTES_MIN)
        wf_remark(remarks, WF_REMARK_FATAL,
                  "domain '%s': secret_file: '%s' has %lld bytes and %d are needed; make one with "
                  "`head -c 32 /dev/urandom`",
                  domain->name, path, (long long)found.st_size, WF_SECRET_BYTES_MIN);
    if (fd >= 0)
        close(fd);
    check_private(remarks, path, "secret_file");
}

static void check_domain(struct wf_remarks *remarks, const struct wf_domain_config *domain)
{
    const struct wf_config *config = remarks->config;
    char quota[24], pool[24];
    if (domain->quota_bytes > config->pool_bytes)
        wf_remark(
            remarks, WF_REMARK_NOTE,
            "domain '%s': quota %s is more than pool.size %s, so it counts only once memory is "
            "lent",
            domain->name, wf_size_format(domain->quota_bytes, quota, sizeof quota),
            wf_size_format(config->pool_bytes, pool, sizeof pool));
    if (domain->token[0] && strlen(domain->token) < TOKEN_SHORT)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "domain '%s': its token has %zu characters and can be guessed; use %d or more",
                  domain->name, strlen(domain->token), TOKEN_SHORT);
    if (domain->allow_any_uid && !domain->token[0] && (config->socket_mode & 0066))
        wf_remark(
            remarks, WF_REMARK_NOTE,
            "domain '%s': every user of this host may attach and no token is asked; set a token, "
            "or "
            "allow: [users]",
            domain->name);
    if ((domain->allow_any_uid || domain->allow_uid_count) && !(config->socket_mode & 0066))
        wf_remark(
            remarks, WF_REMARK_NOTE,
            "domain '%s' allows other users, but socket_mode %04o keeps them from connecting; "
            "set it to "
            "0660 or 0666",
            domain->name, config->socket_mode);
    check_private(remarks, domain->token_file, "token_file");
    check_secret(remarks, domain);
}

/* WEFT_POOL_SZIE is nobody's variable: say so before somebody wonders why it does nothing. */
static void check_variables(struct wf_remarks *remarks)
{
    static const char *const others[] = {"WEFT_CONFIG", "WEFT_DOMAIN", "WEFT_TOKEN",
                                         "WEFT_CRASH_AT", "WEFT_FAIL_AT"};
    char known[WF_CONFIG_FIELDS_MAX][WF_CONFIG_KEY_MAX + 6];
    char lists[WF_LIST_COUNT][WF_CONFIG_KEY_MAX + 6], name[WF_NEAREST_WORD_MAX + 1];
    for (char **entry = environ; entry && *entry; entry++) {
        size_t length = strcspn(*entry, "=");
        if (strncmp(*entry, "WEFT_", 5) != 0 || length >= sizeof name)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length, *entry);
        struct wf_nearest nearest;
        wf_nearest_init(&nearest, name);
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            wf_nearest_offer(&nearest, others[i]);
        for (size_t i = 0; i < WF_LIST_COUNT; i++)
            wf_nearest_offer(&nearest, wf_config_variable(wf_config_lists[i].key, lists[i]));
        for (size_t i = 0; i < wf_config_field_count; i++)
            wf_nearest_offer(&nearest, wf_config_variable(wf_config_fields[i].key, known[i]));
        if (nearest.best && nearest.distance > 0)
            wf_remark(remarks, WF_REMARK_NOTE,
                      "the variable %s means nothing to weftd; did you mean %s?", name,
                      nearest.best);
    }
}

/* Of 512 tokens of llama-3-70b: few blocks that are in use are larger. */
#define BLOCK_COMMON ((uint64_t)160 << 20)

/* How large blocks are is not known here; of a budget that some would not fit into, say so. */
static void check_budgets(struct wf_remarks *remarks)
{
    char size[16], day[16], common[16];
    for (uint32_t i = 0; i < remarks->config->tier_count; i++) {
        const struct wf_tier_config *tier = &remarks->config->tiers[i];
        double day_bytes = tier->drive_writes * (double)tier->size_bytes;
        if (day_bytes > 0 && day_bytes < (double)BLOCK_COMMON)
            wf_remark(remarks, WF_REMARK_NOTE,
                      "tier '%s': dwpd: %g of %s lets %s be written in a day, and no block that is "
                      "larger ever (%s is common); raise dwpd, if the device's data sheet has "
                      "more, or size",
                      tier->name, tier->drive_writes,
                      wf_size_format(tier->size_bytes, size, sizeof size),
                      wf_size_format((uint64_t)day_bytes, day, sizeof day),
                      wf_size_format(BLOCK_COMMON, common, sizeof common));
    }
}

static void check_resp(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    if (!config->resp_address[0])
        return;
    if (config->resp_password[0] && strlen(config->resp_password) < TOKEN_SHORT)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "resp.password has %zu characters and can be guessed; use %d or more",
                  strlen(config->resp_password), TOKEN_SHORT);
    if (!wf_config_is_loopback(config->resp_address))
        wf_remark(remarks, WF_REMARK_NOTE,
                  "resp.listen: '%s' sends resp.password and all values in clear text; put a TLS "
                  "proxy before it",
                  config->resp_address);
    if (!config->resp_password[0])
        wf_remark(remarks, WF_REMARK_NOTE,
                  "resp.listen: every user of this host reads and writes domain '%s' over %s:%u, "
                  "whatever its `allow` says; set resp.password",
                  config->resp_domain, config->resp_address, config->resp_port);
    check_private(remarks, config->resp_password_file, "resp.password_file");
}

enum weft_status wf_config_check(const struct wf_config *config,
                                 void (*say)(void *context, enum wf_remark_kind kind,
                                             const char *sentence),
                                 void *context)
{
    struct wf_remarks remarks = {.config = config, .say = say, .context = context};
    struct wf_host host;
    wf_host_read(&host);
    check_memory(&remarks, &host);
    check_socket(&remarks);
    uint64_t promised = 0;
    bool tokens_inside = (config->http_token[0] && !config->http_token_file[0]) ||
                         (config->resp_password[0] && !config->resp_password_file[0]);
    for (uint32_t i = 0; i < config->domain_count; i++) {
        check_domain(&remarks, &config->domains[i]);
        promised += config->domains[i].quota_bytes;
        tokens_inside |= config->domains[i].token[0] && !config->domains[i].token_file[0];
    }
    wf_config_check_tiers(&remarks);
    if (config->objective == WF_OBJECTIVE_TTFT && config->pool_policy == WF_POOL_POLICY_LRU)
        wf_remark(&remarks, WF_REMARK_NOTE,
                  "pool.objective: 'ttft' has no effect with pool.policy: lru, which knows no "
                  "worth; take weft");
    if (config->domain_count > 1 && promised > config->pool_bytes_max)
        wf_remark(
            &remarks, WF_REMARK_NOTE,
            "the domains' quotas add up to more than pool.size_max; the last to fill will find "
            "it full");
    if (config->http_token[0] && strlen(config->http_token) < TOKEN_SHORT)
        wf_remark(&remarks, WF_REMARK_NOTE,
                  "http.token has %zu characters and can be guessed; use %d or more",
                  strlen(config->http_token), TOKEN_SHORT);
    if (config->http_address[0] && !wf_config_is_loopback(config->http_address))
        wf_remark(&remarks, WF_REMARK_NOTE,
                  "http.listen: '%s' sends http.token in clear text; put a TLS proxy before it",
                  config->http_address);
    if (config->http_address[0] && !config->http_token[0] && config->domain_count > 1)
        wf_remark(
            &remarks, WF_REMARK_NOTE,
            "http.listen: with several domains and no http.token only /healthz answers; set a "
            "token, "
            "so that no domain's users read another's figures");
    check_private(&remarks, config->http_token_file, "http.token_file");
    check_resp(&remarks);
    wf_config_check_fabric(&remarks);
    check_private(&remarks, config->fabric_secret_file, "fabric.secret_file");
    check_private(&remarks, config->fabric_key, "fabric.key");
    if (tokens_inside)
        check_private(&remarks, config->file, "a token");
    check_budgets(&remarks);
    check_variables(&remarks);
    if (remarks.fatal)
        return wf_fail(WEFT_E_INVALID,
                       "weftd does not start with this configuration; see the remarks");
    return WEFT_OK;
}
