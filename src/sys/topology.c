/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/topology.h"

#include <ctype.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sys/cxl.h"
#include "sys/sysfs.h"

#define ENTRIES_MAX 4096u /* of a folder of sysfs */

/* ---------------------------------------------------------------------------- one file of sysfs */

/* A name of sysfs, cut where it does not fit. */
static void copy(char *out, const char *text, size_t bytes)
{
    size_t length = strnlen(text, bytes - 1);
    memcpy(out, text, length);
    out[length] = '\0';
}

static uint64_t number_of(const char *folder, const char *name)
{
    uint64_t value;
    return wf_sysfs_number(folder, name, &value) ? value : 0;
}

/* "16.0 GT/s PCIe" → 16000. */
static uint32_t read_mts(const char *folder, const char *name)
{
    char text[64], *end;
    if (!wf_sysfs_line(folder, name, text, sizeof text) || !isdigit((unsigned char)text[0]))
        return 0;
    double gts = strtod(text, &end);
    return strncmp(end, " GT/s", 5) == 0 && gts < 1000 ? (uint32_t)(gts * 1000 + .5) : 0;
}

/* --------------------------------------------------------------------------------- NUMA nodes */

static int by_number(const void *a, const void *b)
{
    const struct wf_topology_node *one = a, *other = b;
    return one->number < other->number ? -1 : one->number > other->number;
}

static void node_read(const char *folder, struct wf_topology_node *node)
{
    char line[1024];
    (void)wf_sysfs_line(folder, "cpulist", node->cpus, sizeof node->cpus);
    node->memory_bytes = wf_sysfs_memory(folder, "MemTotal");
    node->free_bytes = wf_sysfs_memory(folder, "MemFree");
    if (!wf_sysfs_line(folder, "distance", line, sizeof line))
        return;
    char *at = line, *end;
    for (; node->distance_count < WF_TOPOLOGY_NODES_MAX; at = end) {
        unsigned long distance = strtoul(at, &end, 10);
        if (end == at || distance > UINT32_MAX)
            return;
        node->distances[node->distance_count++] = (uint32_t)distance;
    }
}

static void nodes_read(const char *sysfs, struct wf_topology *t)
{
    char bus[WF_SYSFS_PATH_BYTES / 2], folder[WF_SYSFS_PATH_BYTES];
    snprintf(bus, sizeof bus, "%s/devices/system/node", sysfs);
    DIR *directory = opendir(bus);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const char *digits = entry->d_name + 4;
        if (strncmp(entry->d_name, "node", 4) != 0 || !*digits || strlen(digits) > 6 ||
            digits[strspn(digits, "0123456789")] != '\0' || t->node_count == WF_TOPOLOGY_NODES_MAX)
            continue;
        struct wf_topology_node *node = &t->nodes[t->node_count++];
        node->number = (uint32_t)strtoul(digits, NULL, 10);
        snprintf(folder, sizeof folder, "%s/node%u", bus, node->number);
        node_read(folder, node);
    }
    if (directory)
        closedir(directory);
    qsort(t->nodes, t->node_count, sizeof t->nodes[0], by_number);
}

/* ----------------------------------------------------------------------------------------- PCI */

/* "0000:17:00.0" */
static bool is_pci(const char *word, size_t length)
{
    size_t colon = strcspn(word, ":");
    if (length < 12 || length > 15 || colon + 8 != length)
        return false;
    for (size_t i = 0; i < length; i++) {
        bool mark = i == colon || i == colon + 3;
        if (mark             ? word[i] != ':'
            : i == colon + 6 ? word[i] != '.'
                             : !isxdigit((unsigned char)word[i]))
            return false;
    }
    return true;
}

/* Where `path` really is, cut behind the last PCI device on the way there, which is where it hangs.
 * False: there is none. */
static bool pci_find(const char *sysfs, const char *path, char out[PATH_MAX],
                     struct wf_topology_device *device)
{
    char root[PATH_MAX];
    if (!realpath(path, out) || !realpath(sysfs, root))
        return false;
    size_t length = strlen(root);
    char *under = out + length + strlen("/devices/"), *last = NULL;
    if (strncmp(out, root, length) != 0 || strncmp(out + length, "/devices/", 9) != 0)
        return false;
    for (char *word = under; *word; word += strspn(word, "/")) {
        size_t bytes = strcspn(word, "/");
        if (is_pci(word, bytes))
            last = word;
        word += bytes;
    }
    if (!last)
        return false;
    last[strcspn(last, "/")] = '\0';
    copy(device->pci, last, sizeof device->pci);
    snprintf(device->under, sizeof device->under, "%.*s",
             last > under ? (int)(last - under - 1) : 0, under);
    return true;
}

static void pci_read(const char *folder, struct wf_topology_device *device)
{
    device->numa_node = wf_sysfs_node(folder, "numa_node");
    device->vendor = wf_sysfs_u32(folder, "vendor");
    device->product = wf_sysfs_u32(folder, "device");
    device->link_mts = read_mts(folder, "current_link_speed");
    device->link_mts_max = read_mts(folder, "max_link_speed");
    device->link_width = wf_sysfs_u32(folder, "current_link_width");
    device->link_width_max = wf_sysfs_u32(folder, "max_link_width");
}

static struct wf_topology_device *device_add(struct wf_topology *t,
                                             const struct wf_topology_device *device)
{
    if (t->device_count == WF_TOPOLOGY_DEVICES_MAX) {
        t->left_out++;
        return NULL;
    }
    t->devices[t->device_count] = *device;
    return &t->devices[t->device_count++];
}

/* ------------------------------------------------------------------------------------- devices */

/* A folder of links to devices: each that hangs behind PCI is one of `kind`. */
static void class_read(const char *sysfs, const char *class, enum wf_topology_kind kind,
                       struct wf_topology *t)
{
    char bus[WF_SYSFS_PATH_BYTES / 2], link[WF_SYSFS_PATH_BYTES], folder[PATH_MAX];
    snprintf(bus, sizeof bus, "%s/%s", sysfs, class);
    DIR *directory = opendir(bus);
    uint32_t entries = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct wf_topology_device device = {.kind = kind, .numa_node = -1};
        if (entry->d_name[0] == '.' || strlen(entry->d_name) > WF_TOPOLOGY_NAME_MAX ||
            entries++ == ENTRIES_MAX)
            continue;
        if (kind == WF_TOPOLOGY_MEMORY && strncmp(entry->d_name, "mem", 3) != 0)
            continue;
        snprintf(link, sizeof link, "%s/%s", bus, entry->d_name);
        if (!pci_find(sysfs, link, folder, &device))
            continue;
        copy(device.name, entry->d_name, sizeof device.name);
        pci_read(folder, &device);
        if (kind == WF_TOPOLOGY_NIC)
            device.port_mbps = wf_sysfs_u32(link, "speed");
        else if (kind == WF_TOPOLOGY_DRIVE)
            device.bytes = number_of(link, "size") * 512;
        else
            device.bytes = number_of(link, "ram/size") + number_of(link, "pmem/size");
        (void)device_add(t, &device);
    }
    if (directory)
        closedir(directory);
}

/* Of the classes of PCI: 3D and processing accelerators, and displays of who makes GPUs that
 * compute; a server's console is a display, too. */
static bool is_gpu(uint32_t class, uint32_t vendor)
{
    uint32_t kind = class >> 8;
    return kind == 0x0302 || kind == 0x1200 ||
           (kind == 0x0300 && (vendor == 0x10de || vendor == 0x1002 || vendor == 0x8086));
}

static int by_pci(const void *a, const void *b)
{
    const struct wf_topology_device *one = a, *other = b;
    return strcmp(one->pci, other->pci);
}

/* They have no name that does not depend on their driver, so they are counted. */
static void gpus_read(const char *sysfs, struct wf_topology *t)
{
    char bus[WF_SYSFS_PATH_BYTES / 2], link[WF_SYSFS_PATH_BYTES], folder[PATH_MAX];
    uint32_t first = t->device_count, entries = 0;
    snprintf(bus, sizeof bus, "%s/bus/pci/devices", sysfs);
    DIR *directory = opendir(bus);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct wf_topology_device device = {.kind = WF_TOPOLOGY_GPU, .numa_node = -1};
        if (!is_pci(entry->d_name, strlen(entry->d_name)) || entries++ == ENTRIES_MAX)
            continue;
        snprintf(link, sizeof link, "%s/%s", bus, entry->d_name);
        if (!is_gpu(wf_sysfs_u32(link, "class"), wf_sysfs_u32(link, "vendor")) ||
            !pci_find(sysfs, link, folder, &device))
            continue;
        pci_read(folder, &device);
        (void)device_add(t, &device);
    }
    if (directory)
        closedir(directory);
    qsort(&t->devices[first], t->device_count - first, sizeof t->devices[0], by_pci);
    for (uint32_t i = first; i < t->device_count; i++)
        snprintf(t->devices[i].name, sizeof t->devices[i].name, "gpu%u", i - first);
}

static void memory_read(const char *sysfs, struct wf_topology *t)
{
    struct wf_cxl_device found[2 * WF_CXL_DEVICES_MAX];
    struct wf_cxl_search search = {.sysfs = sysfs, .no_libraries = true};
    uint32_t count = 0;
    bool libraries;
    if (wf_cxl_find(&search, found, 2 * WF_CXL_DEVICES_MAX, &count, &libraries) != WEFT_OK)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct wf_topology_device device = {.kind = WF_TOPOLOGY_MEMORY,
                                            .numa_node = found[i].numa_node,
                                            .bytes = found[i].bytes};
        const char *name = strrchr(found[i].path, '/');
        copy(device.name, name ? name + 1 : found[i].path, sizeof device.name);
        (void)device_add(t, &device);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct wf_topology_device *one = a, *other = b;
    return one->kind != other->kind ? (one->kind < other->kind ? -1 : 1)
                                    : strverscmp(one->name, other->name);
}

void wf_topology_read(const char *sysfs, struct wf_topology *out)
{
    const char *root = sysfs ? sysfs : "/sys";
    memset(out, 0, sizeof *out);
    nodes_read(root, out);
    class_read(root, "class/net", WF_TOPOLOGY_NIC, out);
    class_read(root, "block", WF_TOPOLOGY_DRIVE, out);
    gpus_read(root, out);
    class_read(root, "bus/cxl/devices", WF_TOPOLOGY_MEMORY, out);
    memory_read(root, out);
    qsort(out->devices, out->device_count, sizeof out->devices[0], by_name);
}

const char *wf_topology_kind_name(enum wf_topology_kind kind)
{
    static const char *const names[] = {"", "nic", "drive", "gpu", "memory"};
    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : "";
}

bool wf_topology_drive(const char *sysfs, dev_t number, char out[WF_TOPOLOGY_NAME_MAX + 1])
{
    char link[WF_SYSFS_PATH_BYTES], path[PATH_MAX], partition[PATH_MAX + 16];
    snprintf(link, sizeof link, "%s/dev/block/%u:%u", sysfs ? sysfs : "/sys", major(number),
             minor(number));
    if (!realpath(link, path))
        return false;
    snprintf(partition, sizeof partition, "%s/partition", path);
    char *name = strrchr(path, '/');
    if (name && access(partition, F_OK) == 0) {
        *name = '\0';
        name = strrchr(path, '/');
    }
    if (!name || strlen(name + 1) > WF_TOPOLOGY_NAME_MAX)
        return false;
    copy(out, name + 1, WF_TOPOLOGY_NAME_MAX + 1);
    return true;
}

bool wf_topology_interface(const struct sockaddr_storage *address,
                           char out[WF_TOPOLOGY_NAME_MAX + 1])
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
    struct ifaddrs *all = NULL;
    bool found = false;
    if ((address->ss_family != AF_INET && address->ss_family != AF_INET6) || getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *at = all; at && !found; at = at->ifa_next) {
        struct sockaddr_in6 has;
        if (!at->ifa_addr || at->ifa_addr->sa_family != address->ss_family)
            continue;
        if (address->ss_family == AF_INET) {
            struct sockaddr_in has_four;
            memcpy(&has_four, at->ifa_addr, sizeof has_four);
            found = has_four.sin_addr.s_addr == four->sin_addr.s_addr;
        } else {
            memcpy(&has, at->ifa_addr, sizeof has);
            found = memcmp(&has.sin6_addr, &six->sin6_addr, sizeof has.sin6_addr) == 0;
        }
        if (found)
            copy(out, at->ifa_name, WF_TOPOLOGY_NAME_MAX + 1);
    }
    freeifaddrs(all);
    return found;
}
