/* SPDX-License-Identifier: Apache-2.0
 *
 * The table.  A new setting is a member in config.h and a line here; YAML, environment, flags, JSON
 * and help follow.
 */
#include "daemon/config_fields.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(struct wf_config, member)
#define IN_DOMAIN(member) offsetof(struct wf_domain_config, member)
#define TEXT(type, member) 0, sizeof(((type *)0)->member) - 1 /* may be empty */
#define WORD(type, member) 1, sizeof(((type *)0)->member) - 1 /* may not */

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

static const char *const huge_choices[] = {"auto", "on", "off", NULL};
static const char *const writes_choices[] = {"direct", "copied", NULL};
static const char *const log_choices[] = {"off", "error", "warn", "info", "debug", NULL};

const struct wf_field wf_config_fields[] = {
    {"socket", WF_VALUE_PATH, AT(socket), WORD(struct wf_config, socket), NULL,
     "$XDG_RUNTIME_DIR/weft/weftd.sock, else /run/weft/weftd.sock for root, else "
     "/tmp/weft-<uid>/weftd.sock",
     "The Unix socket that clients connect to."},
    {"socket_mode", WF_VALUE_MODE, AT(socket_mode), 0, 0777, NULL, NULL,
     "Permissions of the socket, octal. 0666 lets every user of the host knock; `allow` and "
     "`token` of each "
     "domain then decide."},
    {"http.listen", WF_VALUE_LISTEN, 0, 0, 0, NULL, NULL,
     "Address and port of /metrics, /healthz and /v1; `off` for none. An address that is not "
     "loopback needs "
     "http.token. Port 0 takes any free one."},
    {"http.token", WF_VALUE_TOKEN, AT(http_token), TEXT(struct wf_config, http_token), NULL, NULL,
     "Asked of HTTP clients as `Authorization: Bearer`."},
    {"http.token_file", WF_VALUE_PATH, AT(http_token_file), TEXT(struct wf_config, http_token_file),
     NULL, NULL, "A file whose first line is http.token."},
    {"pool.size", WF_VALUE_SIZE, AT(pool_bytes), MIB, 64 * TIB, NULL,
     "a quarter of the host's memory", "Bytes of the DRAM pool."},
    {"pool.size_max", WF_VALUE_SIZE, AT(pool_bytes_max), MIB, 64 * TIB, NULL,
     "the host's memory, or pool.size when that is more",
     "How far memory that is lent later may grow the pool."},
    {"pool.huge", WF_VALUE_CHOICE, AT(pool_huge), 0, 0, huge_choices, NULL,
     "Huge pages: `auto` takes them when there are enough, `on` does not start without, `off` "
     "uses none."},
    {"pool.numa_node", WF_VALUE_NODE, AT(pool_numa_node), 0, 1023, NULL, NULL,
     "NUMA node that the pool's memory comes from; `any` leaves it to the kernel."},
    {"pool.prefault", WF_VALUE_BOOL, AT(pool_prefault), 0, 0, NULL, NULL,
     "Take all memory at start, so that no page fault comes later."},
    {"pool.block_bytes_min", WF_VALUE_SIZE, AT(block_bytes_min), 4 * KIB, 64 * MIB, NULL, NULL,
     "The smallest block that is expected: the index has room for pool.size_max divided by this."},
    {"limits.clients", WF_VALUE_COUNT, AT(clients_max), 1, 4096, NULL, NULL,
     "Clients connected at once."},
    {"limits.pins", WF_VALUE_COUNT, AT(pins_max), 64, 1 << 22, NULL, NULL,
     "Pins that one client may hold."},
    {"limits.sessions", WF_VALUE_COUNT, AT(sessions_max), 1, 1 << 22, NULL, NULL,
     "Sessions open at once."},
    {"limits.formats", WF_VALUE_COUNT, AT(formats_max), 1, 1 << 16, NULL, NULL,
     "Formats known at once."},
    {"limits.regions", WF_VALUE_COUNT, AT(regions_max), 1, 1 << 20, NULL, NULL,
     "Regions allocated at once."},
    {"limits.reserved", WF_VALUE_COUNT, AT(reserved_max), 1, 1 << 20, NULL, NULL,
     "Blocks that one client may hold reserved and uncommitted."},
    {"staging", WF_VALUE_SIZE, AT(staging_bytes), MIB, 64 * GIB, NULL, NULL,
     "Staging memory of each client in a domain with `writes: copied`."},
    {"workers", WF_VALUE_COUNT, AT(workers), 1, 64, NULL, NULL,
     "Threads that move and check data."},
    {"drain", WF_VALUE_DURATION, AT(drain_ms), 0, 3600000, NULL, NULL,
     "How long SIGTERM waits for clients to finish: 500ms, 5s, 2m, or milliseconds."},
    {"events", WF_VALUE_COUNT, AT(events_max), 16, 1 << 22, NULL, NULL,
     "Entries of the event ring; the oldest are overwritten."},
    {"log.level", WF_VALUE_CHOICE, AT(log_level), 0, 0, log_choices, NULL,
     "How much weftd says on stderr."},
};
const size_t wf_config_field_count = sizeof wf_config_fields / sizeof wf_config_fields[0];

const struct wf_field wf_domain_fields[] = {
    {"name", WF_VALUE_NAME, IN_DOMAIN(name), WORD(struct wf_domain_config, name), NULL, NULL,
     "What clients ask for: 1 to 63 of a-z, 0-9, dot, underscore, hyphen."},
    {"quota", WF_VALUE_SIZE, IN_DOMAIN(quota_bytes), 0, 64 * TIB, NULL, NULL,
     "Bytes of blocks and regions that it may hold; 0 for the whole pool."},
    {"writes", WF_VALUE_CHOICE, IN_DOMAIN(writes), 0, 0, writes_choices, NULL,
     "`direct`: clients fill blocks in the pool. `copied`: they see it read-only and weftd "
     "copies, for "
     "clients that are not trusted to write only where they were told."},
    {"token", WF_VALUE_TOKEN, IN_DOMAIN(token), TEXT(struct wf_domain_config, token), NULL, NULL,
     "Asked of every client that attaches."},
    {"token_file", WF_VALUE_PATH, IN_DOMAIN(token_file), TEXT(struct wf_domain_config, token_file),
     NULL, NULL, "A file whose first line is the token."},
    {"secret_file", WF_VALUE_PATH, IN_DOMAIN(secret_file),
     TEXT(struct wf_domain_config, secret_file), NULL, NULL,
     "32 bytes or more that the domain's keys derive from; without it a random secret is made at "
     "every start."},
    {"allow", WF_VALUE_ALLOW, IN_DOMAIN(allow), TEXT(struct wf_domain_config, allow), NULL, NULL,
     "Who may attach: `any`, or a list of uids and user names. weftd's own user and root always "
     "may."},
};
const size_t wf_domain_field_count = sizeof wf_domain_fields / sizeof wf_domain_fields[0];

static_assert(sizeof wf_config_fields / sizeof wf_config_fields[0] <= WF_CONFIG_FIELDS_MAX,
              "every field has its origin in struct wf_config");
static_assert(sizeof wf_domain_fields / sizeof wf_domain_fields[0] <= WF_DOMAIN_FIELDS_MAX,
              "every field has its origin in struct wf_domain_config");
static_assert(sizeof(enum wf_huge) == sizeof(int) && sizeof(enum wf_writes) == sizeof(int),
              "WF_VALUE_CHOICE reads and writes an int");

static int find(const struct wf_field *fields, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].key, key) == 0)
            return (int)i;
    return -1;
}

int wf_config_field(const char *key)
{
    return find(wf_config_fields, wf_config_field_count, key);
}

int wf_domain_field(const char *key)
{
    return find(wf_domain_fields, wf_domain_field_count, key);
}

bool wf_config_is_default(const struct wf_config *config, const char *key)
{
    int index = wf_config_field(key);
    assert(index >= 0);
    return config->origin[index].layer == WF_FROM_DEFAULT;
}

char *wf_config_variable(const char *key, char *out)
{
    memcpy(out, "WEFT_", 5);
    char *p = out + 5;
    for (; *key && p < out + WF_CONFIG_KEY_MAX + 5; key++)
        *p++ = *key == '.' ? '_' : (char)toupper((unsigned char)*key);
    *p = '\0';
    return out;
}

char *wf_origin_text(const struct wf_config *config, const struct wf_config_origin *origin,
                     const char *key, char *out, size_t capacity)
{
    char variable[WF_CONFIG_KEY_MAX + 6];
    switch (origin->layer) {
    case WF_FROM_DEFAULT: snprintf(out, capacity, "default"); break;
    case WF_FROM_FILE: snprintf(out, capacity, "%s:%u", config->file, origin->line); break;
    case WF_FROM_ENVIRONMENT:
        snprintf(out, capacity, "env %s", wf_config_variable(key, variable));
        break;
    case WF_FROM_FLAG: snprintf(out, capacity, "flag %s", key); break;
    }
    return out;
}

char *wf_config_where(const struct wf_config *config, int index, char *out)
{
    return wf_origin_text(config, &config->origin[index], wf_config_fields[index].key, out,
                          WF_ORIGIN_TEXT_MAX);
}

char *wf_domain_where(const struct wf_config *config, const struct wf_domain_config *domain,
                      int index, char *out)
{
    char key[WF_CONFIG_KEY_MAX + WF_DOMAIN_NAME_MAX + 16];
    snprintf(key, sizeof key, "domain.%s.%s", domain->name, wf_domain_fields[index].key);
    return wf_origin_text(config, &domain->origin[index], key, out, WF_ORIGIN_TEXT_MAX);
}

void wf_domain_defaults(struct wf_domain_config *domain)
{
    *domain = (struct wf_domain_config){.writes = WF_WRITES_DIRECT};
}

struct wf_domain_config *wf_config_domain(struct wf_config *config, const char *name)
{
    for (uint32_t i = 0; i < config->domain_count; i++)
        if (strcmp(config->domains[i].name, name) == 0)
            return &config->domains[i];
    return NULL;
}
