/* SPDX-License-Identifier: Apache-2.0
 *
 * libdaxctl and libcxl, loaded when they are asked for something.
 *
 * A node that has no CXL memory needs neither of them, so they are no dependency of the program;
 * their headers give the types of what dlsym() finds, and nothing else is taken from them.
 */
#include "sys/cxl_libs.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <cxl/libcxl.h>
#include <daxctl/libdaxctl.h>

#include "base/hooks.h"

/* The loaded function `name` in a variable of that name with a _ behind; clears `whole` when it is
 * not there. */
#define LOADED(name)                            \
    __typeof__(&(name)) name##_ = NULL;         \
    do {                                        \
        void *found = dlsym(library, #name);    \
        memcpy(&name##_, &found, sizeof found); \
        whole = whole && found;                 \
    } while (0)

static void *load(const char *name)
{
    return WF_FAILS("dlopen") ? NULL : dlopen(name, RTLD_NOW | RTLD_LOCAL);
}

int wf_cxl_libs_devices(struct wf_cxl_device *out, uint32_t max)
{
    struct daxctl_ctx *context = NULL;
    bool whole = true;
    void *library = load("libdaxctl.so.1");
    if (!library)
        return -1;
    LOADED(daxctl_new);
    LOADED(daxctl_unref);
    LOADED(daxctl_region_get_first);
    LOADED(daxctl_region_get_next);
    LOADED(daxctl_dev_get_first);
    LOADED(daxctl_dev_get_next);
    LOADED(daxctl_dev_get_devname);
    LOADED(daxctl_dev_get_size);
    LOADED(daxctl_dev_get_align);
    LOADED(daxctl_dev_get_resource);
    LOADED(daxctl_dev_get_target_node);
    LOADED(daxctl_dev_is_enabled);
    LOADED(daxctl_dev_get_memory);
    int count = -1;
    if (whole && daxctl_new_(&context) == 0) {
        count = 0;
        for (struct daxctl_region *region = daxctl_region_get_first_(context); region;
             region = daxctl_region_get_next_(region)) {
            for (struct daxctl_dev *dev = daxctl_dev_get_first_(region);
                 dev && (uint32_t)count < max; dev = daxctl_dev_get_next_(dev)) {
                /* One that is system RAM is a node, and found as such. */
                if (!daxctl_dev_is_enabled_(dev) || daxctl_dev_get_memory_(dev))
                    continue;
                struct wf_cxl_device *d = &out[count++];
                *d = (struct wf_cxl_device){.kind = WF_CXL_DAX,
                                            .bytes = daxctl_dev_get_size_(dev),
                                            .align_bytes = daxctl_dev_get_align_(dev),
                                            .resource = daxctl_dev_get_resource_(dev),
                                            .numa_node = daxctl_dev_get_target_node_(dev)};
                snprintf(d->path, sizeof d->path, "/dev/%.20s", daxctl_dev_get_devname_(dev));
                if (d->resource == UINT64_MAX)
                    d->resource = 0;
            }
        }
        daxctl_unref_(context);
    }
    dlclose(library);
    return count;
}

static void uuid_text(const unsigned char uuid[16], char out[37])
{
    static const unsigned char none[16];
    char *at = out;
    out[0] = '\0';
    if (!memcmp(uuid, none, sizeof none))
        return;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        snprintf(at, 3, "%02x", uuid[i]);
        at += 2;
    }
}

int wf_cxl_libs_regions(struct wf_cxl_region *out, uint32_t max)
{
    struct cxl_ctx *context = NULL;
    bool whole = true;
    void *library = load("libcxl.so.1");
    if (!library)
        return -1;
    LOADED(cxl_new);
    LOADED(cxl_unref);
    LOADED(cxl_bus_get_first);
    LOADED(cxl_bus_get_next);
    LOADED(cxl_bus_get_port);
    LOADED(cxl_decoder_get_first);
    LOADED(cxl_decoder_get_next);
    LOADED(cxl_region_get_first);
    LOADED(cxl_region_get_next);
    LOADED(cxl_region_get_devname);
    LOADED(cxl_region_get_uuid);
    LOADED(cxl_region_get_size);
    LOADED(cxl_region_get_resource);
    LOADED(cxl_region_get_interleave_ways);
    int count = -1;
    if (!whole || cxl_new_(&context) != 0)
        goto close;
    count = 0;
    for (struct cxl_bus *bus = cxl_bus_get_first_(context); bus; bus = cxl_bus_get_next_(bus)) {
        struct cxl_port *port = cxl_bus_get_port_(bus);
        for (struct cxl_decoder *decoder = cxl_decoder_get_first_(port); decoder;
             decoder = cxl_decoder_get_next_(decoder)) {
            for (struct cxl_region *region = cxl_region_get_first_(decoder);
                 region && (uint32_t)count < max; region = cxl_region_get_next_(region)) {
                unsigned char uuid[16] = {0};
                struct wf_cxl_region *r = &out[count++];
                *r = (struct wf_cxl_region){.resource = cxl_region_get_resource_(region),
                                            .bytes = cxl_region_get_size_(region),
                                            .interleave_ways = cxl_region_get_interleave_ways_(
                                                region)};
                snprintf(r->name, sizeof r->name, "%s", cxl_region_get_devname_(region));
                cxl_region_get_uuid_(region, uuid);
                uuid_text(uuid, r->uuid);
            }
        }
    }
    cxl_unref_(context);
close:
    dlclose(library);
    return count;
}
