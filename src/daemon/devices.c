/* SPDX-License-Identifier: Apache-2.0
 *
 * What was found is told whether a tier uses it or not: a region without a device on it, or a
 * device without a tier, is memory that somebody has paid for.
 */
#include "daemon/devices.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "sys/cxl.h"
#include "sys/memory.h"

struct found {
    struct wf_cxl_region regions[WF_CXL_REGIONS_MAX];
    struct wf_cxl_device devices[2 * WF_CXL_DEVICES_MAX];
    uint32_t region_count, device_count;
    bool libraries;
};

/* Not told: null. */
static json_t *told(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *region_json(const struct found *found, const struct wf_cxl_region *region)
{
    json_t *out = json_object();
    bool used = false;
    for (uint32_t i = 0; i < found->device_count; i++)
        used |= strcmp(found->devices[i].region, region->name) == 0;
    set(out, "name", json_string(region->name));
    set(out, "bytes", number(region->bytes));
    set(out, "interleave_ways", number(region->interleave_ways));
    set(out, "uuid", told(region->uuid));
    set(out, "has_device", json_boolean(used));
    return out;
}

static const char *tier_on(const struct wf_below *below, const char *path)
{
    for (uint32_t i = 0; below && i < below->count; i++)
        if (below->tiers[i].kind == WEFT_TIER_CXL && strcmp(below->tiers[i].path, path) == 0)
            return below->tiers[i].config->name;
    return "";
}

static json_t *device_json(const struct wf_below *below, const struct wf_cxl_device *device)
{
    json_t *out = json_object();
    set(out, "path", json_string(device->path));
    set(out, "kind", json_string(wf_cxl_kind_name(device->kind)));
    set(out, "bytes", number(device->bytes));
    set(out, "numa_node", device->numa_node >= 0 ? json_integer(device->numa_node) : json_null());
    set(out, "cxl", json_boolean(device->is_cxl));
    set(out, "region", told(device->region));
    set(out, "uuid", told(device->uuid));
    set(out, "interleave_ways", number(device->interleave_ways));
    set(out, "read_latency_ns", number(device->read_latency_ns));
    set(out, "write_latency_ns", number(device->write_latency_ns));
    set(out, "read_mbps", number(device->read_mbps));
    set(out, "write_mbps", number(device->write_mbps));
    set(out, "tier", told(tier_on(below, device->path)));
    return out;
}

char *wf_devices_json(const struct wf_below *below, const char *sysfs)
{
    struct wf_cxl_search search = {.sysfs = sysfs};
    struct found *found = wf_calloc(1, sizeof *found, "a list of devices");
    char *text = NULL;
    if (!found)
        return NULL;
    found->region_count = wf_cxl_find_regions(&search, found->regions, WF_CXL_REGIONS_MAX);
    if (wf_cxl_find(&search, found->devices, 2 * WF_CXL_DEVICES_MAX, &found->device_count,
                    &found->libraries) == WEFT_OK) {
        json_t *out = json_object(), *regions = json_array(), *devices = json_array();
        for (uint32_t i = 0; i < found->region_count; i++)
            json_array_append_new(regions, region_json(found, &found->regions[i]));
        for (uint32_t i = 0; i < found->device_count; i++)
            json_array_append_new(devices, device_json(below, &found->devices[i]));
        set(out, "regions", regions);
        set(out, "devices", devices);
        set(out, "libraries", json_boolean(found->libraries));
        text = json_dumps(out, JSON_COMPACT);
        json_decref(out);
        if (!text)
            (void)wf_fail(WEFT_E_NO_MEMORY, "out of memory for the list of devices");
    }
    free(found);
    return text;
}
