/* SPDX-License-Identifier: Apache-2.0
 *
 * Findings about this machine, and the groups of checks that make them.
 */
#ifndef WF_CLI_DOCTOR_H
#define WF_CLI_DOCTOR_H

#include "cli/cli.h"

#define DOCTOR_FINDINGS_MAX 64

enum doctor_state {
    DOCTOR_OK,     /* as it should be */
    DOCTOR_ABSENT, /* not on this machine, and not needed */
    DOCTOR_BETTER, /* works; the mend makes it faster */
    DOCTOR_BROKEN, /* in the way; needs the mend */
};

struct doctor_finding {
    const char *name; /* a stable word for programs */
    enum doctor_state state;
    char value[160];
    char why[200];  /* what it means; "" when OK says all */
    char mend[200]; /* the exact command; "" when there is nothing to mend */
};

struct doctor {
    struct doctor_finding findings[DOCTOR_FINDINGS_MAX];
    int count;
    json_t *tiers;       /* as the node tells them; NULL: it does not */
    char tiers_why[200]; /* why not */
    json_t *fabric;      /* of the cluster's nodes, as the node tells; NULL: it does not */
    json_t *devices;     /* memory beyond DRAM, as the node or weftd tells it; NULL: neither does */
    char devices_why[200];
};

/* Add a finding; the caller sets why and mend. */
struct doctor_finding *wf_doctor_add(struct doctor *doctor, const char *name,
                                     enum doctor_state state, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* First line of a small file without its newline; false when it cannot be read. */
bool wf_doctor_line(const char *path, char *out, size_t capacity);
/* Entries of a folder that begin with `prefix`. */
int wf_doctor_entries(const char *folder, const char *prefix);

void wf_doctor_memory(struct doctor *doctor); /* doctor_memory.c: pages, NUMA, limits, tiers */
void wf_doctor_kernel(
    struct doctor *doctor); /* doctor_kernel.c: processor, kernel services, devices */

/* doctor_devices.c: CXL and other memory beyond DRAM.  Asked of the node that answers, because it
 * knows which tier is on which; else, or for another `sysfs` than this machine's, of weftd. */
void wf_doctor_devices(struct cli *cli, struct doctor *doctor, const char *sysfs);
void wf_doctor_devices_print(const struct doctor *doctor);

#endif
