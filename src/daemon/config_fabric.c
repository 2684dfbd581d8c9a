/* SPDX-License-Identifier: Apache-2.0
 *
 * The fabric in the configuration: what nodes must prove before one listens beyond its host.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/locality.h"
#include "daemon/config_fields.h"
#include "net/address.h"

#define ADDRESSES_MAX 4u /* of a node: WF_FABRIC_NETS_MAX, WF_FABRIC_WAYS_MAX */

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

/* An address of a net, as the nets themselves read it; `key` is where it was said. */
static enum weft_status check_address(const struct wf_config *config, const char *key,
                                      const char *address)
{
    char where[WF_ORIGIN_TEXT_MAX], sentence[WF_ERROR_MAX];
    struct wf_net_address read;
    if (wf_net_address_parse(address, &read) == WEFT_OK && read.scheme != WF_NET_SCHEME_SIM)
        return WEFT_OK;
    snprintf(sentence, sizeof sentence, "%s", wf_last_error());
    return wf_fail(WEFT_E_INVALID, "%s: %s: %.300s",
                   wf_config_where(config, wf_config_field(key), where), key, sentence);
}

/* Addresses, divided by commas, `most` of them; *out_near: all are this host's own. */
static enum weft_status check_list(const struct wf_config *config, const char *key,
                                   const char *list, uint32_t most, bool *out_near)
{
    char where[WF_ORIGIN_TEXT_MAX], address[WF_NET_ADDRESS_MAX];
    enum weft_status status = WEFT_OK;
    bool near = true;
    uint32_t count = 0;
    for (const char *at = list; *at && status == WEFT_OK; count++) {
        size_t length = strcspn(at, ",");
        snprintf(address, sizeof address, "%.*s", (int)length, at);
        status = check_address(config, key, address);
        near = near && is_near(address);
        at += length + (at[length] == ',');
    }
    *out_near = near;
    if (status != WEFT_OK || count <= most)
        return status;
    return wf_fail(WEFT_E_INVALID, "%s: %s: '%s' has %u addresses; a node has up to %u",
                   wf_config_where(config, wf_config_field(key), where), key, list, count, most);
}

/* A registry, or a list of the other nodes' addresses. */
static enum weft_status check_join(const struct wf_config *config)
{
    bool near;
    if (strncmp(config->fabric_join, "etcd://", 7) == 0 ||
        strncmp(config->fabric_join, "etcds://", 8) == 0)
        return WEFT_OK;
    return check_list(config, "fabric.join", config->fabric_join, UINT32_MAX, &near);
}

enum weft_status wf_config_finish_fabric(struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX];
    bool certified = config->fabric_certificate[0] != 0;
    bool proof = config->fabric_secret_file[0] || certified;
    if (!wf_config_has_fabric(config))
        return WEFT_OK;
    if (strchr(config->fabric_name, '_'))
        return wf_fail(
            WEFT_E_INVALID,
            "%s: fabric.name: '%s' has an underscore; a node's name is made of a-z, 0-9, "
            "dot and hyphen",
            wf_config_where(config, wf_config_field("fabric.name"), where), config->fabric_name);
    if (wf_locality_check(config->fabric_place) != WEFT_OK) {
        char sentence[WF_ERROR_MAX];
        snprintf(sentence, sizeof sentence, "%s", wf_last_error());
        return wf_fail(WEFT_E_INVALID, "%s: fabric.place: %.300s",
                       wf_config_where(config, wf_config_field("fabric.place"), where), sentence);
    }
    bool near = true, advertised_near;
    enum weft_status status = check_join(config);
    if (status == WEFT_OK && config->fabric_listen[0])
        status = check_list(config, "fabric.listen", config->fabric_listen, ADDRESSES_MAX, &near);
    if (status == WEFT_OK && config->fabric_advertise[0])
        status = check_list(config, "fabric.advertise", config->fabric_advertise, ADDRESSES_MAX,
                            &advertised_near);
    if (status != WEFT_OK)
        return status;
    if (!near && !proof)
        return wf_fail(WEFT_E_INVALID,
                       "%s: fabric.listen: '%s' can be reached from other hosts; set "
                       "fabric.secret_file to a file that all nodes have, or fabric.certificate, "
                       "or listen on tcp:127.0.0.1:PORT",
                       wf_config_where(config, wf_config_field("fabric.listen"), where),
                       config->fabric_listen);
    if (certified && (!config->fabric_key[0] || !config->fabric_ca[0]))
        return wf_fail(WEFT_E_INVALID,
                       "%s: fabric.certificate: without %s it proves nothing; set that, too",
                       wf_config_where(config, wf_config_field("fabric.certificate"), where),
                       config->fabric_key[0] ? "fabric.ca" : "fabric.key");
    if (config->fabric_encrypt && !proof)
        return wf_fail(WEFT_E_INVALID,
                       "%s: fabric.encrypt: there is nothing to encrypt with; set "
                       "fabric.secret_file, or fabric.certificate",
                       wf_config_where(config, wf_config_field("fabric.encrypt"), where));
    return WEFT_OK;
}
