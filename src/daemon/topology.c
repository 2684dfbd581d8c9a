/* SPDX-License-Identifier: Apache-2.0
 *
 * The host as people ask for it: read anew each time, since cables are pulled and drives added.
 */
#include "daemon/topology.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/below.h"
#include "daemon/fabric.h"
#include "fabric/fabric.h"
#include "net/address.h"
#include "sys/memory.h"
#include "sys/topology.h"

#define INTERFACES_MAX 8u /* that the fabric listens on */

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *node_json(const struct wf_topology_node *node, int32_t pool_node)
{
    json_t *out = json_object(), *distances = json_array();
    for (uint32_t i = 0; i < node->distance_count; i++)
        json_array_append_new(distances, number(node->distances[i]));
    set(out, "node", number(node->number));
    set(out, "cpus", json_string(node->cpus));
    set(out, "memory_bytes", number(node->memory_bytes));
    set(out, "free_bytes", number(node->free_bytes));
    set(out, "distances", distances);
    set(out, "pool", json_boolean(pool_node == (int32_t)node->number));
    return out;
}

/* The drive that a tier's path, or what it will be made in, is on. */
static bool tier_drive(const char *sysfs, const char *path, char out[WF_TOPOLOGY_NAME_MAX + 1])
{
    struct stat is;
    char folder[WF_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (stat(folder, &is) != 0) {
        if (!slash || slash == folder)
            return false;
        *slash = '\0';
        if (stat(folder, &is) != 0)
            return false;
    }
    return wf_topology_drive(sysfs, S_ISBLK(is.st_mode) ? is.st_rdev : is.st_dev, out);
}

/* Names of what uses the device. */
static json_t *used_by(const struct wf_node *node, const char *sysfs,
                       char interfaces[][WF_TOPOLOGY_NAME_MAX + 1],
                       const struct wf_topology_device *device)
{
    json_t *out = json_array();
    char drive[WF_TOPOLOGY_NAME_MAX + 1];
    bool carries = false;
    for (uint32_t i = 0; i < INTERFACES_MAX && device->kind == WF_TOPOLOGY_NIC; i++)
        carries |= strcmp(device->name, interfaces[i]) == 0;
    if (carries)
        json_array_append_new(out, json_string("fabric"));
    for (uint32_t i = 0; node->below && i < node->below->count; i++) {
        const struct wf_lower *tier = &node->below->tiers[i];
        const char *file = strrchr(tier->path, '/');
        bool is_it = false;
        if (device->kind == WF_TOPOLOGY_DRIVE && tier->kind == WEFT_TIER_NVME)
            is_it = tier_drive(sysfs, tier->path, drive) && strcmp(drive, device->name) == 0;
        else if (device->kind == WF_TOPOLOGY_MEMORY && tier->kind == WEFT_TIER_CXL)
            is_it = strcmp(file ? file + 1 : tier->path, device->name) == 0;
        if (is_it)
            json_array_append_new(out, json_string(tier->config->name));
    }
    return out;
}

static json_t *device_json(const struct wf_topology_device *device)
{
    json_t *out = json_object();
    set(out, "kind", json_string(wf_topology_kind_name(device->kind)));
    set(out, "name", json_string(device->name));
    set(out, "numa_node", device->numa_node >= 0 ? json_integer(device->numa_node) : json_null());
    set(out, "pci", device->pci[0] ? json_string(device->pci) : json_null());
    set(out, "under", device->pci[0] ? json_string(device->under) : json_null());
    set(out, "vendor", number(device->vendor));
    set(out, "product", number(device->product));
    set(out, "link_mts", number(device->link_mts));
    set(out, "link_mts_max", number(device->link_mts_max));
    set(out, "link_width", number(device->link_width));
    set(out, "link_width_max", number(device->link_width_max));
    set(out, "port_mbps", number(device->port_mbps));
    set(out, "bytes", number(device->bytes));
    return out;
}

/* The network devices that the fabric's addresses are of; "": none, or it is not known. */
static void interfaces_find(const struct wf_node *node, char out[][WF_TOPOLOGY_NAME_MAX + 1])
{
    struct wf_fabric_figures figures;
    struct wf_net_address address;
    uint32_t count = 0;
    memset(out, 0, INTERFACES_MAX * sizeof out[0]);
    if (!node->fabric)
        return;
    wf_fabric_figures(node->fabric, &figures);
    const char *advertise = node->config.fabric_advertise;
    const char *at = advertise[0] ? advertise : figures.address;
    while (*at && count < INTERFACES_MAX) {
        char one[WF_NET_ADDRESS_MAX];
        size_t length = strcspn(at, " ,");
        snprintf(one, sizeof one, "%.*s", (int)length, at);
        if (length && wf_net_address_parse(one, &address) == WEFT_OK &&
            wf_topology_interface(&address.socket, out[count]))
            count++;
        at += length + (at[length] != '\0');
    }
}

char *wf_topology_json(const struct wf_node *node, const char *sysfs)
{
    char interfaces[INTERFACES_MAX][WF_TOPOLOGY_NAME_MAX + 1];
    struct wf_topology *host = wf_calloc(1, sizeof *host, "what the host is built of");
    if (!host)
        return NULL;
    json_t *out = json_object(), *nodes = json_array(), *devices = json_array();
    wf_topology_read(sysfs, host);
    interfaces_find(node, interfaces);
    for (uint32_t i = 0; i < host->node_count; i++)
        json_array_append_new(nodes, node_json(&host->nodes[i], node->config.pool_numa_node));
    for (uint32_t i = 0; i < host->device_count; i++) {
        json_t *device = device_json(&host->devices[i]);
        set(device, "used_by", used_by(node, sysfs, interfaces, &host->devices[i]));
        json_array_append_new(devices, device);
    }
    set(out, "place", json_string(node->config.fabric_place));
    set(out, "nodes", nodes);
    set(out, "devices", devices);
    set(out, "left_out", number(host->left_out));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    free(host);
    if (!text)
        (void)wf_fail(WEFT_E_NO_MEMORY, "out of memory for what the host is built of");
    return text;
}
