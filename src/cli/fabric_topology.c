/* SPDX-License-Identifier: Apache-2.0
 *
 * weft fabric topology: how the host is built, and where the nodes stand.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/fabric.h"

#define STANDS_MAX 4097 /* nodes, this one among them */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* ------------------------------------------------------------------------------------- the host */

static void nodes_print(const json_t *nodes)
{
    size_t index, which;
    json_t *rows = json_array(), *node, *distance;
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, node) {
        char distances[80] = "";
        json_t *row = json_object();
        json_array_foreach (json_object_get(node, "distances"), which, distance)
            snprintf(distances + strlen(distances), sizeof distances - strlen(distances), "%s%lld",
                     which ? " " : "", (long long)json_integer_value(distance));
        wf_cli_json_set(row, "numa_node", json_incref(json_object_get(node, "node")));
        wf_cli_json_set(row, "cpus",
                        json_string(text_of(node, "cpus")[0] ? text_of(node, "cpus") : "none"));
        wf_cli_json_set(row, "memory_bytes", json_incref(json_object_get(node, "memory_bytes")));
        wf_cli_json_set(row, "free_bytes", json_incref(json_object_get(node, "free_bytes")));
        wf_cli_json_set(row, "distances", json_string(distances));
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
}

/* "16 GT/s x8", and what it could be where that is more. */
static void link_write(const json_t *device, char *out, size_t capacity)
{
    double now = (double)number_of(device, "link_mts"),
           most = (double)number_of(device, "link_mts_max");
    long long width = number_of(device, "link_width"), widest = number_of(device, "link_width_max");
    bool less = most * (double)widest > now * (double)width;
    snprintf(out, capacity, "%s", "");
    if (now > 0 && less)
        snprintf(out, capacity, "%g GT/s x%lld, of %g x%lld", now / 1000, width, most / 1000,
                 widest);
    else if (now > 0)
        snprintf(out, capacity, "%g GT/s x%lld", now / 1000, width);
}

static void devices_print(const json_t *devices)
{
    size_t index, which;
    json_t *rows = json_array(), *device, *user;
    json_array_foreach ((json_t *)(uintptr_t)devices, index, device) {
        char link[48], has[32] = "", users[80] = "", node[16] = "";
        json_t *row = json_object();
        link_write(device, link, sizeof link);
        if (number_of(device, "port_mbps") > 0)
            snprintf(has, sizeof has, "%g Gbit/s", (double)number_of(device, "port_mbps") / 1000);
        else if (number_of(device, "bytes") > 0)
            (void)wf_cli_size((uint64_t)number_of(device, "bytes"), has, sizeof has);
        if (json_is_integer(json_object_get(device, "numa_node")))
            snprintf(node, sizeof node, "%lld", number_of(device, "numa_node"));
        json_array_foreach (json_object_get(device, "used_by"), which, user)
            snprintf(users + strlen(users), sizeof users - strlen(users), "%s%s", which ? ", " : "",
                     json_string_value(user));
        wf_cli_json_set(row, "kind", json_string(text_of(device, "kind")));
        wf_cli_json_set(row, "name", json_string(text_of(device, "name")));
        wf_cli_json_set(row, "numa_node", json_string(node));
        wf_cli_json_set(row, "pci", json_string(text_of(device, "pci")));
        wf_cli_json_set(row, "under", json_string(text_of(device, "under")));
        wf_cli_json_set(row, "link", json_string(link));
        wf_cli_json_set(row, "has", json_string(has));
        wf_cli_json_set(row, "used_by", json_string(users));
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
}

/* ------------------------------------------------------------------------------------- the tree */

struct stand {
    const char *place;
    char line[200];
};

static int by_place(const void *a, const void *b)
{
    const struct stand *one = a, *other = b;
    int order = strcmp(one->place, other->place);
    return order ? order : strcmp(one->line, other->line);
}

/* Levels of `place` that `before` does not have are a line each; the last one is the node's own. */
static void stand_print(const struct stand *stand, const char *before)
{
    size_t from = 0, level = 0;
    const char *place = stand->place;
    for (;; level++) { /* what both have */
        size_t length = strcspn(place + from, "/");
        bool same = strncmp(place + from, before + from, length + 1) == 0 && place[from + length];
        if (!same)
            break;
        from += length + 1;
    }
    for (; place[from]; level++) {
        size_t length = strcspn(place + from, "/");
        bool last = place[from + length] == '\0';
        printf("%*s%.*s%s%s\n", (int)(2 * level), "", (int)length, place + from, last ? "  " : "",
               last ? stand->line : "");
        from += length + !last;
    }
}

static void line_write(const json_t *node, char *out, size_t capacity)
{
    size_t used = (size_t)snprintf(out, capacity, "%.63s", text_of(node, "name"));
    double gbps = json_number_value(json_object_get(node, "read_gbps"));
    if (used < capacity)
        used += (size_t)snprintf(out + used, capacity - used, ": %s", text_of(node, "state"));
    if (used < capacity && number_of(node, "rtt_us") > 0)
        used += (size_t)snprintf(out + used, capacity - used, ", %lld us away",
                                 number_of(node, "rtt_us"));
    if (used < capacity && gbps > 0)
        snprintf(out + used, capacity - used, ", %.3g GB/s", gbps);
}

static void tree_print(const json_t *self, const json_t *nodes)
{
    struct stand *stands = wf_cli_alloc(STANDS_MAX * sizeof *stands);
    size_t index, count = 0, without = 0;
    json_t *node;
    stands[0].place = text_of(self, "place");
    snprintf(stands[0].line, sizeof stands[0].line, "%.63s: this node", text_of(self, "name"));
    count += stands[0].place[0] != '\0';
    without += count == 0;
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, node) {
        if (!text_of(node, "place")[0]) {
            without++;
        } else if (count < STANDS_MAX) {
            stands[count].place = text_of(node, "place");
            line_write(node, stands[count].line, sizeof stands[count].line);
            count++;
        }
    }
    qsort(stands, count, sizeof *stands, by_place);
    for (size_t i = 0; i < count; i++)
        stand_print(&stands[i], i ? stands[i - 1].place : "");
    if (without)
        printf("%zu node%s not said where %s (fabric.place)\n", without,
               without == 1 ? " has" : "s have", without == 1 ? "it stands" : "they stand");
    free(stands);
}

/* ----------------------------------------------------------------------------------------- both */

/* Of a node what says where it stands, and how far that is. */
static json_t *nodes_short(const json_t *nodes)
{
    static const char *const kept[] = {"name", "place", "distance", "state", "rtt_us", "read_gbps"};
    json_t *out = json_array(), *node;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, node) {
        json_t *row = json_object();
        for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
            wf_cli_json_set(row, kept[i], json_incref(json_object_get(node, kept[i])));
        json_array_append_new(out, row);
    }
    return out;
}

int wf_cli_fabric_topology(struct cli *cli)
{
    json_t *host = NULL, *fabric = NULL;
    int code = cli->word_count == 1
                   ? wf_cli_connect(cli)
                   : wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    if (code == CLI_OK)
        code = wf_cli_query(cli, "topology", 0, 0, &host);
    if (code == CLI_OK)
        code = wf_cli_query(cli, "fabric", 0, 0, &fabric);
    if (code != CLI_OK) {
        json_decref(host);
        return code;
    }
    const json_t *self = json_object_get(fabric, "self"), *nodes = json_object_get(fabric, "nodes");
    if (cli->json) {
        json_t *answer = json_object();
        json_object_del(host, "next");
        wf_cli_json_set(answer, "name",
                        json_is_object(self) ? json_incref(json_object_get(self, "name"))
                                             : json_null());
        wf_cli_json_set(answer, "host", json_incref(host));
        wf_cli_json_set(answer, "nodes", nodes_short(nodes));
        wf_cli_json_print(answer);
    } else {
        nodes_print(json_object_get(host, "nodes"));
        if (json_array_size(json_object_get(host, "devices")))
            devices_print(json_object_get(host, "devices"));
        if (json_is_object(self))
            tree_print(self, nodes);
    }
    json_decref(host);
    json_decref(fabric);
    return CLI_OK;
}
