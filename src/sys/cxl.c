/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/cxl.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sys/cxl_libs.h"
#include "sys/sysfs.h"

/* Entries of `folder` that `wanted` takes, as numbers to sort by and to find them again. */
static uint32_t list(const char *folder, bool (*wanted)(const char *name, uint64_t *out_number),
                     uint64_t *out, uint32_t max)
{
    DIR *directory = opendir(folder);
    uint32_t count = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        uint64_t number;
        if (!wanted(entry->d_name, &number) || count == max)
            continue;
        uint32_t at = count++;
        for (; at > 0 && out[at - 1] > number; at--)
            out[at] = out[at - 1];
        out[at] = number;
    }
    if (directory)
        closedir(directory);
    return count;
}

/* Digits alone, at most 9 of them; *rest is what follows. */
static bool number_at(const char *text, uint64_t *out, const char **rest)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 9)
        return false;
    *out = strtoull(text, NULL, 10);
    *rest = text + digits;
    return true;
}

static bool is_dax(const char *name, uint64_t *out_number)
{
    uint64_t region, device;
    const char *rest;
    if (strncmp(name, "dax", 3) != 0 || !number_at(name + 3, &region, &rest) || *rest != '.' ||
        !number_at(rest + 1, &device, &rest) || *rest != '\0')
        return false;
    *out_number = region << 32 | device;
    return true;
}

static bool is_numbered(const char *name, const char *before, uint64_t *out_number)
{
    size_t length = strlen(before);
    const char *rest;
    return strncmp(name, before, length) == 0 && number_at(name + length, out_number, &rest) &&
           *rest == '\0';
}

static bool is_node(const char *name, uint64_t *out_number)
{
    return is_numbered(name, "node", out_number);
}

static bool is_region(const char *name, uint64_t *out_number)
{
    return is_numbered(name, "region", out_number);
}

/* DAX devices */

static uint32_t sysfs_devices(const char *sysfs, struct wf_cxl_device *out, uint32_t max)
{
    char bus[WF_SYSFS_PATH_BYTES], folder[WF_SYSFS_PATH_BYTES + 64], link[WF_SYSFS_PATH_BYTES + 80],
        driver[WF_SYSFS_PATH_BYTES];
    uint64_t numbers[WF_CXL_DEVICES_MAX];
    uint32_t count = 0;
    snprintf(bus, sizeof bus, "%s/bus/dax/devices", sysfs);
    uint32_t found = list(bus, is_dax, numbers, WF_CXL_DEVICES_MAX);
    for (uint32_t i = 0; i < found && count < max; i++) {
        struct wf_cxl_device *d = &out[count];
        unsigned region = (unsigned)(numbers[i] >> 32), device = (unsigned)numbers[i];
        *d = (struct wf_cxl_device){.kind = WF_CXL_DAX};
        snprintf(d->path, sizeof d->path, "/dev/dax%u.%u", region, device);
        snprintf(folder, sizeof folder, "%s/dax%u.%u", bus, region, device);
        snprintf(link, sizeof link, "%s/driver", folder);
        ssize_t length = readlink(link, driver, sizeof driver - 1);
        driver[length > 0 ? length : 0] = '\0';
        const char *name = strrchr(driver, '/');
        name = name ? name + 1 : driver;
        /* kmem: it is system RAM, and found as a node; none: disabled. */
        if (strcmp(name, "device_dax") != 0 || !wf_sysfs_number(folder, "size", &d->bytes) ||
            d->bytes == 0)
            continue;
        if (!wf_sysfs_number(folder, "align", &d->align_bytes))
            d->align_bytes = 2u << 20;
        if (!wf_sysfs_number(folder, "resource", &d->resource))
            d->resource = 0;
        d->numa_node = wf_sysfs_node(folder, "target_node");
        count++;
    }
    return count;
}

static uint32_t sysfs_regions(const char *sysfs, struct wf_cxl_region *out, uint32_t max)
{
    char bus[WF_SYSFS_PATH_BYTES], folder[WF_SYSFS_PATH_BYTES + 64];
    uint64_t numbers[WF_CXL_REGIONS_MAX];
    uint32_t count = 0;
    snprintf(bus, sizeof bus, "%s/bus/cxl/devices", sysfs);
    uint32_t found = list(bus, is_region, numbers, WF_CXL_REGIONS_MAX);
    for (uint32_t i = 0; i < found && count < max; i++) {
        struct wf_cxl_region *r = &out[count];
        *r = (struct wf_cxl_region){0};
        snprintf(r->name, sizeof r->name, "region%u", (unsigned)numbers[i]);
        snprintf(folder, sizeof folder, "%s/%s", bus, r->name);
        if (!wf_sysfs_number(folder, "resource", &r->resource) ||
            !wf_sysfs_number(folder, "size", &r->bytes))
            continue;
        r->interleave_ways = wf_sysfs_u32(folder, "interleave_ways");
        char uuid[64] = "";
        if (wf_sysfs_line(folder, "uuid", uuid, sizeof uuid) && strlen(uuid) == 36 &&
            strspn(uuid, "0123456789abcdefABCDEF-") == 36)
            memcpy(r->uuid, uuid, sizeof r->uuid);
        count++;
    }
    return count;
}

/* A device lies in the region that its first byte lies in: a namespace's own description may come
 * before it. */
static void place(struct wf_cxl_device *d, const struct wf_cxl_region *regions, uint32_t count)
{
    for (uint32_t i = 0; i < count && d->resource != 0; i++) {
        const struct wf_cxl_region *r = &regions[i];
        if (d->resource < r->resource || d->resource - r->resource >= r->bytes)
            continue;
        d->is_cxl = true;
        memcpy(d->region, r->name, sizeof d->region);
        memcpy(d->uuid, r->uuid, sizeof d->uuid);
        d->interleave_ways = r->interleave_ways;
        return;
    }
}

/* ---------------------------------------------------------------------------------------- nodes */

/* Documentation/admin-guide/mm/numaperf.rst: access class 0 is the nearest initiators of any kind;
 * nanoseconds and MB/s. */
static void attributes(const char *sysfs, struct wf_cxl_device *d)
{
    char folder[WF_SYSFS_PATH_BYTES];
    if (d->numa_node < 0)
        return;
    snprintf(folder, sizeof folder, "%s/devices/system/node/node%d/access0/initiators", sysfs,
             d->numa_node);
    d->read_latency_ns = wf_sysfs_u32(folder, "read_latency");
    d->write_latency_ns = wf_sysfs_u32(folder, "write_latency");
    d->read_mbps = wf_sysfs_u32(folder, "read_bandwidth");
    d->write_mbps = wf_sysfs_u32(folder, "write_bandwidth");
}

/* A node without processors has an empty line there; one without the file is no answer. */
static bool lists_processors(const char *folder, bool *out_any)
{
    char processors[256];
    if (!wf_sysfs_line(folder, "cpulist", processors, sizeof processors))
        return false;
    *out_any = processors[strspn(processors, " \t")] != '\0';
    return true;
}

static uint32_t sysfs_nodes(const char *sysfs, struct wf_cxl_device *out, uint32_t max)
{
    char bus[WF_SYSFS_PATH_BYTES], folder[WF_SYSFS_PATH_BYTES + 64];
    uint64_t numbers[WF_CXL_DEVICES_MAX];
    uint32_t count = 0;
    snprintf(bus, sizeof bus, "%s/devices/system/node", sysfs);
    uint32_t found = list(bus, is_node, numbers, WF_CXL_DEVICES_MAX);
    for (uint32_t i = 0; i < found && count < max; i++) {
        struct wf_cxl_device *d = &out[count];
        int node = (int)numbers[i];
        snprintf(folder, sizeof folder, "%s/node%d", bus, node);
        uint64_t bytes = wf_sysfs_memory(folder, "MemTotal");
        bool processors;
        if (bytes == 0 || !lists_processors(folder, &processors) || processors)
            continue;
        *d = (struct wf_cxl_device){.kind = WF_CXL_NODE, .bytes = bytes, .numa_node = node};
        snprintf(d->path, sizeof d->path, "node:%d", node);
        count++;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------ all */

const char *wf_cxl_kind_name(enum wf_cxl_kind kind)
{
    return kind == WF_CXL_DAX ? "dax" : kind == WF_CXL_NODE ? "node" : "unknown";
}

static int by_number(const void *a, const void *b)
{
    const struct wf_cxl_device *one = a, *other = b;
    uint64_t n = 0, m = 0;
    (void)is_dax(one->path + strlen("/dev/"), &n);
    (void)is_dax(other->path + strlen("/dev/"), &m);
    return n < m ? -1 : n > m;
}

static const char *root_of(const struct wf_cxl_search *search)
{
    return search && search->sysfs ? search->sysfs : "/sys";
}

/* The libraries know one sysfs alone. */
static bool may_ask(const struct wf_cxl_search *search)
{
    return !(search && search->no_libraries) && strcmp(root_of(search), "/sys") == 0;
}

static uint32_t find_regions(const struct wf_cxl_search *search, struct wf_cxl_region *out,
                             uint32_t max, bool *out_libraries)
{
    int count = may_ask(search) ? wf_cxl_libs_regions(out, max) : -1;
    *out_libraries = count >= 0;
    return count >= 0 ? (uint32_t)count : sysfs_regions(root_of(search), out, max);
}

uint32_t wf_cxl_find_regions(const struct wf_cxl_search *search, struct wf_cxl_region *out,
                             uint32_t max)
{
    bool libraries;
    return find_regions(search, out, max, &libraries);
}

enum weft_status wf_cxl_find(const struct wf_cxl_search *search, struct wf_cxl_device *out,
                             uint32_t max, uint32_t *out_count, bool *out_libraries)
{
    const char *sysfs = root_of(search);
    bool ask = may_ask(search);
    struct wf_cxl_device devices[2 * WF_CXL_DEVICES_MAX];
    struct wf_cxl_region regions[WF_CXL_REGIONS_MAX];
    bool asked = false;
    int count = ask ? wf_cxl_libs_devices(devices, WF_CXL_DEVICES_MAX) : -1;
    bool libraries = count >= 0;
    if (count < 0)
        count = (int)sysfs_devices(sysfs, devices, WF_CXL_DEVICES_MAX);
    qsort(devices, (size_t)count, sizeof devices[0], by_number);
    uint32_t region_count = find_regions(search, regions, WF_CXL_REGIONS_MAX, &asked);
    libraries = libraries && asked;
    for (int i = 0; i < count; i++)
        place(&devices[i], regions, region_count);
    count += (int)sysfs_nodes(sysfs, devices + count, WF_CXL_DEVICES_MAX);
    for (int i = 0; i < count; i++)
        attributes(sysfs, &devices[i]);
    if ((uint32_t)count > max)
        return wf_fail(WEFT_E_LIMIT, "this host has %d devices of memory; there is room for %u",
                       count, max);
    memcpy(out, devices, (size_t)count * sizeof devices[0]);
    *out_count = (uint32_t)count;
    *out_libraries = libraries;
    return WEFT_OK;
}

enum weft_status wf_cxl_dax_geometry(int fd, uint64_t *out_bytes, uint64_t *out_align)
{
    struct stat is;
    char folder[WF_SYSFS_PATH_BYTES];
    uint64_t bytes, align;
    if (fstat(fd, &is) != 0 || !S_ISCHR(is.st_mode))
        return wf_fail(WEFT_E_INVALID, "it is no character device; name one such as /dev/dax0.0");
    snprintf(folder, sizeof folder, "/sys/dev/char/%u:%u", major(is.st_rdev), minor(is.st_rdev));
    if (!wf_sysfs_number(folder, "size", &bytes) || !wf_sysfs_number(folder, "align", &align) ||
        align == 0 || (align & (align - 1)) != 0)
        return wf_fail(WEFT_E_INVALID,
                       "character device %u:%u has no size and alignment in sysfs; name a DAX "
                       "device such as /dev/dax0.0",
                       major(is.st_rdev), minor(is.st_rdev));
    *out_bytes = bytes;
    *out_align = align;
    return WEFT_OK;
}

uint64_t wf_cxl_node_free_bytes(const char *sysfs, int node)
{
    char folder[WF_SYSFS_PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/devices/system/node/node%d", sysfs ? sysfs : "/sys", node);
    return node < 0 ? 0 : wf_sysfs_memory(folder, "MemFree");
}

bool wf_cxl_node_has_processors(const char *sysfs, int node)
{
    char folder[WF_SYSFS_PATH_BYTES];
    bool any = false;
    snprintf(folder, sizeof folder, "%s/devices/system/node/node%d", sysfs ? sysfs : "/sys", node);
    return node >= 0 && lists_processors(folder, &any) && any;
}
