/* SPDX-License-Identifier: Apache-2.0
 *
 * How this host is built, as sysfs tells: NUMA nodes, and where network cards, drives, GPUs and
 * memory beyond DRAM hang.
 *
 * All text that is read is bounded, and what cannot be read is left out, "" or 0.  Any thread;
 * nothing is kept.  Some of it the kernel asks of the devices themselves, so that it is not for
 * where anybody waits.
 */
#ifndef WF_SYS_TOPOLOGY_H
#define WF_SYS_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define WF_TOPOLOGY_NODES_MAX 64u
#define WF_TOPOLOGY_DEVICES_MAX 256u
#define WF_TOPOLOGY_NAME_MAX 31u

struct wf_topology_node {
    uint32_t number;
    char cpus[128]; /* "0-15,32-47"; "": memory alone */
    uint64_t memory_bytes, free_bytes;
    uint32_t distance_count, distances[WF_TOPOLOGY_NODES_MAX]; /* to each node, as they come */
};

enum wf_topology_kind {
    WF_TOPOLOGY_NIC = 1,
    WF_TOPOLOGY_DRIVE,
    WF_TOPOLOGY_GPU,
    WF_TOPOLOGY_MEMORY, /* of CXL, a DAX device, or a node without processors */
};

struct wf_topology_device {
    enum wf_topology_kind kind;
    char name[WF_TOPOLOGY_NAME_MAX + 1]; /* "eth0", "nvme0n1", "gpu0", "mem0", "node:2" */
    char pci[16];                        /* "0000:17:00.0"; "": it is behind no PCI */
    char under[112];          /* what it hangs under, from the root on: "pci0000:16/0000:16:01.0" */
    int numa_node;            /* -1: not told */
    uint32_t vendor, product; /* of PCI */
    uint32_t link_mts, link_mts_max;     /* a lane's, millions of transfers a second */
    uint32_t link_width, link_width_max; /* lanes */
    uint32_t port_mbps;                  /* NIC: of its cable */
    uint64_t bytes;                      /* DRIVE, MEMORY */
};

struct wf_topology {
    struct wf_topology_node nodes[WF_TOPOLOGY_NODES_MAX]; /* by number */
    uint32_t node_count;
    struct wf_topology_device devices[WF_TOPOLOGY_DEVICES_MAX]; /* by kind and name */
    uint32_t device_count;
    uint32_t left_out; /* devices for which there is no room here */
};

/* sysfs NULL: /sys.  Network devices, drives and GPUs that are behind no PCI are left out. */
void wf_topology_read(const char *sysfs, struct wf_topology *out);

const char *wf_topology_kind_name(enum wf_topology_kind kind);

/* The whole drive on which a file system, or a partition, with that number is.  False: sysfs does
 * not tell, as of volumes that are made of several. */
bool wf_topology_drive(const char *sysfs, dev_t number, char out[WF_TOPOLOGY_NAME_MAX + 1]);

/* The network device of this host that has that address; false: none has. */
bool wf_topology_interface(const struct sockaddr_storage *address,
                           char out[WF_TOPOLOGY_NAME_MAX + 1]);

#endif
