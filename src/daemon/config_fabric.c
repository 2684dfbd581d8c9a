/* SPDX-License-Identifier: Apache-2.0
 *
 * The fabric in the configuration: what nodes must prove before one listens beyond its host.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "core/locality.h"
#include "daemon/config_fields.h"
#include "daemon/secret.h"
#include "fabric/fabric.h"
#include "member/etcd_target.h"
#include "net/address.h"
#include "net/net.h"
#include "sys/host.h"

#define ADDRESSES_MAX 4u /* of a node: WF_FABRIC_NETS_MAX, WF_FABRIC_WAYS_MAX */
#define LEND_BYTES_LEAST ((uint64_t)1 << 20)

/* The host's name as a node's: what is no letter or digit is a hyphen. */
void wf_config_fabric_name(struct wf_config *config)
{
    char host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    snprintf(config->fabric_name, sizeof config->fabric_name, "%.63s", host[0] ? host : "node");
    for (char *at = config->fabric_name; *at; at++)
        *at = isalnum((unsigned char)*at) || *at == '.' ? (char)tolower((unsigned char)*at) : '-';
}

/* "tcp:ADDRESS:PORT" and the like: is ADDRESS this host's own, or the address a file? */
static bool is_near(const char *address)
{
    const char *at = strchr(address, ':'), *colon = at ? strrchr(at + 1, ':') : NULL;
    char host[WF_ADDRESS_BYTES];
    if (strncmp(address, "unix:", 5) == 0)
        return true;
    if (!colon || (size_t)(colon - at) > sizeof host)
        return false;
    bool brackets = at[1] == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - at - 1 - 2 * brackets), at + 1 + brackets);
    return wf_config_is_loopback(host);
}

/* What was found wrong with a key's value, with where it was said. */
static enum weft_status wrong(const struct wf_config *config, const char *key, const char *format,
                              ...)
{
    char where[WF_ORIGIN_TEXT_MAX], sentence[WF_ERROR_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    wf_config_where(config, wf_config_field(key), where);
    if (strncmp(where, "flag ", 5) == 0) /* which names the key */
        return wf_fail(WEFT_E_INVALID, "%s: %.400s", where, sentence);
    return wf_fail(WEFT_E_INVALID, "%s: %s: %.400s", where, key, sentence);
}

/* The same, in the words of who looked at it. */
static enum weft_status wrong_as_told(const struct wf_config *config, const char *key)
{
    char sentence[WF_ERROR_MAX];
    snprintf(sentence, sizeof sentence, "%s", wf_last_error());
    return wrong(config, key, "%s", sentence);
}

/* An address of a net, as the nets themselves read it; `key` is where it was said. */
static enum weft_status check_address(const struct wf_config *config, const char *key,
                                      const char *address)
{
    struct wf_net_address read;
    if (wf_net_address_parse(address, &read) == WEFT_OK && read.scheme != WF_NET_SCHEME_SIM)
        return WEFT_OK;
    return wrong_as_told(config, key);
}

/* A free port may be asked for more than once. */
static bool said_before(const char *list, const char *address, size_t length)
{
    bool free_port = length > 2 && memcmp(address + length - 2, ":0", 2) == 0;
    for (const char *at = list; at < address && !free_port; at += strcspn(at, ",") + 1)
        if (strcspn(at, ",") == length && memcmp(at, address, length) == 0)
            return true;
    return false;
}

/* Addresses, divided by commas, `most` of them; *out_near: all are this host's own. */
static enum weft_status check_list(const struct wf_config *config, const char *key,
                                   const char *list, uint32_t most, bool *out_near)
{
    char address[WF_NET_ADDRESS_MAX];
    enum weft_status status = WEFT_OK;
    bool near = true;
    uint32_t count = 0;
    for (const char *at = list; *at && status == WEFT_OK; count++) {
        size_t length = strcspn(at, ",");
        snprintf(address, sizeof address, "%.*s", (int)length, at);
        status = check_address(config, key, address);
        near = near && is_near(address);
        if (status == WEFT_OK && said_before(list, at, length))
            status = wrong(config, key, "'%s' is there twice; say it once", address);
        at += length + (at[length] == ',');
    }
    *out_near = near;
    if (status != WEFT_OK || count <= most)
        return status;
    return wrong(config, key, "'%s' has %u addresses; a node has up to %u", list, count, most);
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool is_etcd(const struct wf_config *config)
{
    return begins(config->fabric_join, "etcd://") || begins(config->fabric_join, "etcds://");
}

/* A registry, or a list of the other nodes' addresses. */
static enum weft_status check_join(const struct wf_config *config)
{
    struct wf_etcd_target target;
    const char *join = config->fabric_join;
    bool near;
    if (is_etcd(config))
        return wf_etcd_target_read(join, &target) == WEFT_OK ? WEFT_OK
                                                             : wrong_as_told(config, "fabric.join");
    if (join[0] && !begins(join, "tcp:") && !begins(join, "unix:") && !begins(join, "ucx:"))
        return wrong(config, "fabric.join",
                     "'%.200s' is no registry; write etcd://HOST:PORT/CLUSTER, or the other "
                     "nodes' addresses, like tcp:192.0.2.1:7420",
                     join);
    return check_list(config, "fabric.join", join, UINT32_MAX, &near);
}

/* What cannot be read is found out where it is loaded. */
static bool is_certified(const struct wf_config *config, char theirs[WF_NET_NAME_MAX])
{
    wf_net_certificate_name(config->fabric_certificate, theirs);
    return !theirs[0] || strcmp(theirs, config->fabric_name) == 0;
}

/* Who may listen where, and what it proves to others. */
static enum weft_status check_proof(const struct wf_config *config, bool near)
{
    char theirs[WF_NET_NAME_MAX];
    bool certified = config->fabric_certificate[0] != 0;
    bool proof = config->fabric_secret_file[0] || certified;
    if (!near && !proof)
        return wrong(config, "fabric.listen",
                     "'%s' can be reached from other hosts; set fabric.secret_file to a file that "
                     "all nodes have, or fabric.certificate, or listen on tcp:127.0.0.1:PORT",
                     config->fabric_listen);
    if (certified && (!config->fabric_key[0] || !config->fabric_ca[0]))
        return wrong(config, "fabric.certificate", "without %s it proves nothing; set that, too",
                     config->fabric_key[0] ? "fabric.ca" : "fabric.key");
    if (certified && !is_certified(config, theirs))
        return wrong(config, "fabric.certificate",
                     "'%.200s' is of a node called '%s', and this one is '%s', which no other "
                     "would believe; set fabric.name, or name this node's own",
                     config->fabric_certificate, theirs, config->fabric_name);
    if (!certified && (config->fabric_key[0] || config->fabric_ca[0]))
        return wrong(config, config->fabric_key[0] ? "fabric.key" : "fabric.ca",
                     "without fabric.certificate nobody is asked for one; set that, too, or "
                     "fabric.secret_file instead");
    if (config->fabric_encrypt && !proof)
        return wrong(config, "fabric.encrypt",
                     "there is nothing to encrypt with; set fabric.secret_file, or "
                     "fabric.certificate");
    return WEFT_OK;
}

static enum weft_status check_rest(const struct wf_config *config)
{
    if (config->fabric_lend_bytes && config->fabric_lend_bytes < LEND_BYTES_LEAST)
        return wrong(config, "fabric.lend", "%llu bytes are too few to be lent; write 1MB or more",
                     (unsigned long long)config->fabric_lend_bytes);
    if (config->fabric_directory == WF_FABRIC_DIRECTORY_PARTS && !is_etcd(config))
        return wrong(config, "fabric.directory",
                     "'parts' needs a registry that says who is a member; set fabric.join to "
                     "etcd://HOST:PORT/CLUSTER, or this to full");
    return WEFT_OK;
}

enum weft_status wf_config_finish_fabric(struct wf_config *config)
{
    if (!wf_config_has_fabric(config))
        return WEFT_OK;
    if (!config->fabric_name[0])
        return wrong(config, "fabric.name", "'' is no name; write one of a-z, 0-9, dot and hyphen");
    if (wf_locality_check(config->fabric_place) != WEFT_OK)
        return wrong_as_told(config, "fabric.place");
    bool near = true, advertised_near;
    enum weft_status status = check_join(config);
    if (status == WEFT_OK && config->fabric_listen[0])
        status = check_list(config, "fabric.listen", config->fabric_listen, ADDRESSES_MAX, &near);
    if (status == WEFT_OK && config->fabric_advertise[0])
        status = check_list(config, "fabric.advertise", config->fabric_advertise, ADDRESSES_MAX,
                            &advertised_near);
    if (status == WEFT_OK)
        status = check_proof(config, near);
    return status == WEFT_OK ? check_rest(config) : status;
}

/* A file that the fabric cannot begin without. */
static void check_file(struct wf_remarks *remarks, const char *key, const char *path, off_t least)
{
    struct stat found;
    char mend[WF_UNOPENED_MAX];
    const char *make = least > 1 ? "make one with `head -c 32 /dev/urandom >FILE`, and give the "
                                   "same to every node"
                                 : "name a file that is there, in PEM";
    if (!path[0])
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &found) != 0)
        wf_remark(remarks, WF_REMARK_FATAL, "%s: cannot open '%s': %s; %s", key, path,
                  strerror(errno), wf_config_unopened(errno, make, mend));
    else if (S_ISDIR(found.st_mode))
        wf_remark(remarks, WF_REMARK_FATAL, "%s: '%s' is a directory; %s", key, path, make);
    else if (S_ISREG(found.st_mode) && found.st_size < least)
        wf_remark(remarks, WF_REMARK_FATAL, "%s: '%s' has %lld bytes and %d are needed; %s", key,
                  path, (long long)found.st_size, (int)least, make);
    if (fd >= 0)
        close(fd);
}

/* Pages of both come when they are first written to, as those of the pool alone do. */
static void check_lend(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    char lend[24], pool[24], offered[24];
    struct wf_host host;
    wf_host_read(&host);
    if (!host.memory_bytes || !config->fabric_lend_bytes ||
        config->fabric_lend_bytes + config->pool_bytes <= host.memory_bytes)
        return;
    wf_remark(remarks, WF_REMARK_RISK,
              "fabric.lend %s and the pool's %s are more than this %s has (%s), and weftd would be "
              "killed when they fill; lower one",
              wf_size_format(config->fabric_lend_bytes, lend, sizeof lend),
              wf_size_format(config->pool_bytes, pool, sizeof pool),
              host.memory_is_cgroup ? "cgroup" : "host",
              wf_size_format(host.memory_bytes, offered, sizeof offered));
}

/* Blocks that a node stored before it had the cluster's secret are below under another one. */
static void check_kept_secrets(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    char path[WF_SECRET_PATH_MAX];
    for (uint32_t i = 0; config->tier_count && i < config->domain_count; i++) {
        const struct wf_domain_config *domain = &config->domains[i];
        wf_secret_path(config, domain, path);
        if (!domain->secret_file[0] && access(path, F_OK) == 0)
            wf_remark(remarks, WF_REMARK_NOTE,
                      "domain '%s': fabric.secret_file gives it another secret than '%s', and what "
                      "was stored on tiers by that is not found; give that file to all nodes as "
                      "the domain's secret_file, or move it away",
                      domain->name, path);
    }
}

/* Other hosts are named, and none of them can reach this node or share a domain with it. */
static void check_reached(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    const char *join = config->fabric_join;
    bool near = begins(join, "etcd://127.") || begins(join, "etcd://localhost") || !join[0];
    if (config->fabric_secret_file[0] || config->fabric_certificate[0] || config->fabric_listen[0])
        return;
    if (!near && !is_etcd(config))
        near = check_list(config, "fabric.join", join, UINT32_MAX, &near) != WEFT_OK || near;
    if (!near)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "fabric.join: without fabric.secret_file this node listens on loopback, where no "
                  "other host reaches it, and shares no domain; make one with `head -c 32 "
                  "/dev/urandom >FILE`, and give the same to every node");
}

void wf_config_check_fabric(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    if (!wf_config_has_fabric(config)) {
        if (config->fabric_lend_bytes || config->fabric_secret_file[0])
            wf_remark(remarks, WF_REMARK_NOTE,
                      "%s: this node is alone, and it has no effect; set fabric.join",
                      config->fabric_lend_bytes ? "fabric.lend" : "fabric.secret_file");
        return;
    }
    check_file(remarks, "fabric.secret_file", config->fabric_secret_file, WF_SECRET_BYTES_MIN);
    if (config->fabric_secret_file[0])
        check_kept_secrets(remarks);
    check_reached(remarks);
    check_file(remarks, "fabric.certificate", config->fabric_certificate, 1);
    check_file(remarks, "fabric.key", config->fabric_key, 1);
    check_file(remarks, "fabric.ca", config->fabric_ca, 1);
    check_file(remarks, "fabric.registry_ca", config->fabric_registry_ca, 1);
    check_lend(remarks);
    if (strcmp(config->fabric_join, config->fabric_listen) == 0)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "fabric.join: '%.200s' is this node's own fabric.listen, so that it looks for "
                  "nobody; name the other nodes' addresses",
                  config->fabric_join);
    if (!is_etcd(config) && (config->fabric_user[0] || config->fabric_registry_ca[0]))
        wf_remark(remarks, WF_REMARK_NOTE,
                  "%s: a list of nodes has no etcd that would ask for it; it has no effect",
                  config->fabric_user[0] ? "fabric.registry_user" : "fabric.registry_ca");
}
