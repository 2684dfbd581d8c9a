/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory beyond DRAM that this host has: DAX character devices and NUMA nodes without processors.
 *
 * DAX devices and CXL regions are asked of libdaxctl and libcxl where those are installed (they are
 * loaded when asked, never linked), and of sysfs otherwise; both ways must tell the same.  Nodes,
 * and what the firmware says of latency and bandwidth (ACPI HMAT), are in sysfs alone.  All text
 * that is read is bounded, and what cannot be read is left out or 0.
 */
#ifndef WF_SYS_CXL_H
#define WF_SYS_CXL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_CXL_DEVICES_MAX 64u

enum wf_cxl_kind {
    WF_CXL_DAX = 1,  /* a character device in devdax mode: contents stay as the medium does */
    WF_CXL_NODE = 2, /* a NUMA node without processors: gone at restart */
};

struct wf_cxl_device {
    enum wf_cxl_kind kind;
    char path[32]; /* "/dev/dax0.0", "node:3": what a tier takes as its path */
    uint64_t bytes;
    uint64_t align_bytes; /* of a mapping; DAX */
    uint64_t resource;    /* physical address; DAX; 0: not told (only root is) */
    int numa_node;        /* that it is, or would be; -1: not told */
    bool is_cxl;          /* it lies in a region of CXL memory; false: NVDIMM, e820 or not told */
    char region[32];      /* that region's name; "": none known */
    char uuid[37];        /* and UUID; "": none known */
    uint32_t interleave_ways;
    /* From the nearest processors; 0: the firmware does not tell. */
    uint32_t read_latency_ns, write_latency_ns;
    uint32_t read_mbps, write_mbps;
};

const char *wf_cxl_kind_name(enum wf_cxl_kind kind);

#define WF_CXL_REGIONS_MAX 64u

/* Memory of CXL devices that the kernel has mapped, whether a DAX device lies in it or not. */
struct wf_cxl_region {
    char name[32], uuid[37];
    uint64_t resource, bytes;
    uint32_t interleave_ways;
};

struct wf_cxl_search {
    const char *sysfs; /* NULL: /sys */
    bool no_libraries; /* sysfs alone; so does another sysfs than /sys */
};

/* Up to `max` devices, DAX devices first, each sort by number; *out_libraries: they were asked.
 * WEFT_E_LIMIT: there are more.  A host that has none is WEFT_OK and 0. */
enum weft_status wf_cxl_find(const struct wf_cxl_search *search, struct wf_cxl_device *out,
                             uint32_t max, uint32_t *out_count, bool *out_libraries);

/* CXL regions, by number; those beyond `max` are left out.  Returns how many. */
uint32_t wf_cxl_find_regions(const struct wf_cxl_search *search, struct wf_cxl_region *out,
                             uint32_t max);

/* Size and alignment of the DAX device that is open as `fd`; WEFT_E_INVALID when it is none. */
enum weft_status wf_cxl_dax_geometry(int fd, uint64_t *out_bytes, uint64_t *out_align);

/* Whether a NUMA node has processors, so that its memory is plain DRAM; sysfs NULL: /sys.  False,
 * too, where there is no such node or it does not tell. */
bool wf_cxl_node_has_processors(const char *sysfs, int node);

/* Memory that a node has free, in bytes; 0 when there is no such node or it does not tell. */
uint64_t wf_cxl_node_free_bytes(const char *sysfs, int node);

#endif
