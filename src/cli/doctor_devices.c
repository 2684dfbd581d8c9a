/* SPDX-License-Identifier: Apache-2.0
 *
 * weft doctor: memory beyond DRAM.  CXL regions, DAX devices, and NUMA nodes without processors,
 * with what the firmware says of their speed and the tier that uses them.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/doctor.h"

static json_t *ask_node(struct weft *weft)
{
    char *text = NULL;
    if (weft_query(weft, "devices", 0, &text) != WEFT_OK)
        return NULL;
    json_t *answer = json_loads(text, 0, NULL);
    weft_text_free(text);
    return answer;
}

static json_t *ask_weftd(const char *sysfs, char *why, size_t capacity)
{
    char program[PATH_MAX], flag[PATH_MAX + 16], *text = NULL;
    const char *arguments[] = {program, flag, NULL};
    if (!wf_cli_program_find("weftd", program, sizeof program)) {
        snprintf(why, capacity, "no node answers, and there is no weftd that could look");
        return NULL;
    }
    snprintf(flag, sizeof flag, sysfs ? "--devices=%s" : "--devices", sysfs);
    fflush(NULL);
    int code = wf_cli_program_read(program, arguments, &text);
    json_t *answer = code == CLI_OK && text ? json_loads(text, 0, NULL) : NULL;
    if (!answer)
        snprintf(why, capacity, "weftd --devices exited with %d and told nothing", code);
    free(text);
    return answer;
}

static json_t *rows(const struct doctor *doctor, const char *what)
{
    return json_object_get(doctor->devices, what);
}

void wf_doctor_devices(struct cli *cli, struct doctor *doctor, const char *sysfs)
{
    if (cli->weft && !sysfs)
        doctor->devices = ask_node(cli->weft);
    if (!doctor->devices)
        doctor->devices = ask_weftd(sysfs, doctor->devices_why, sizeof doctor->devices_why);
    size_t index, devices = json_array_size(rows(doctor, "devices")), used = 0;
    json_t *row;
    json_array_foreach (rows(doctor, "devices"), index, row)
        used += json_is_string(json_object_get(row, "tier"));
    if (doctor->devices)
        wf_doctor_add(doctor, "far_memory", devices ? DOCTOR_OK : DOCTOR_ABSENT,
                      "%zu devices and nodes without processors, %zu of them in use by a tier",
                      devices, used);
    json_array_foreach (rows(doctor, "regions"), index, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (json_is_true(json_object_get(row, "has_device")) || !name)
            continue;
        struct doctor_finding *finding = wf_doctor_add(doctor, "cxl_region", DOCTOR_BETTER,
                                                       "%.40s has no device in devdax mode", name);
        snprintf(finding->why, sizeof finding->why,
                 "a tier needs one, or a NUMA node that the region was made into");
        snprintf(finding->mend, sizeof finding->mend,
                 "ndctl create-namespace -m devdax -f -a 2M -M mem   # a volatile region: daxctl "
                 "list");
    }
}

static const char *word(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    return value ? value : "-";
}

/* 0 or null: the firmware does not tell. */
static const char *number(const json_t *row, const char *key, bool zero_counts, char out[24])
{
    const json_t *value = json_object_get(row, key);
    if (json_is_integer(value) && (zero_counts || json_integer_value(value) > 0))
        snprintf(out, 24, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, 24, "-");
    return out;
}

static const char *size(const json_t *row, char *out, size_t capacity)
{
    json_int_t bytes = json_integer_value(json_object_get(row, "bytes"));
    return wf_cli_size(bytes > 0 ? (uint64_t)bytes : 0, out, capacity);
}

void wf_doctor_devices_print(const struct doctor *doctor)
{
    char bytes[32], node[24], ns[2][24], mbps[2][24];
    size_t index;
    json_t *row;
    if (!doctor->devices) {
        printf("memory beyond DRAM: not known: %s\n", doctor->devices_why);
        return;
    }
    if (!json_array_size(rows(doctor, "devices")) && !json_array_size(rows(doctor, "regions"))) {
        printf("memory beyond DRAM (CXL regions, DAX devices, NUMA nodes without processors): none "
               "found\n");
        return;
    }
    printf("%-14s %-6s %10s %4s %8s %8s %9s %10s  %-12s %s\n", "memory", "kind", "size", "numa",
           "read ns", "write ns", "read MB/s", "write MB/s", "CXL region", "tier");
    json_array_foreach (rows(doctor, "regions"), index, row)
        printf("%-14s %-6s %10s %4s %8s %8s %9s %10s  %-12s %s\n", word(row, "name"), "region",
               size(row, bytes, sizeof bytes), "-", "-", "-", "-", "-", "-", "-");
    json_array_foreach (rows(doctor, "devices"), index, row)
        printf("%-14s %-6s %10s %4s %8s %8s %9s %10s  %-12s %s\n", word(row, "path"),
               word(row, "kind"), size(row, bytes, sizeof bytes),
               number(row, "numa_node", true, node), number(row, "read_latency_ns", false, ns[0]),
               number(row, "write_latency_ns", false, ns[1]),
               number(row, "read_mbps", false, mbps[0]), number(row, "write_mbps", false, mbps[1]),
               word(row, "region"), word(row, "tier"));
}
