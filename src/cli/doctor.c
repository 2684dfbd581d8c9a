/* SPDX-License-Identifier: Apache-2.0
 *
 * weft doctor: what this machine offers, what is in the way, and the command that mends it.
 *
 * It only looks: every check reads a file or tries a system call whose effect ends with the
 * process.
 */
#include "cli/doctor.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

static bool all;
static const char *sysfs;

static const struct cli_option options[] = {
    {"all", CLI_FLAG, NULL, &all, "also what this machine does not have and need not have"},
    {"sysfs", CLI_TEXT, "DIR", &sysfs, "look for memory beyond DRAM in this copy of a /sys"},
    {NULL},
};

static const char *const examples[] = {
    "before the first start on a host",
    "weft doctor",
    "only what must be mended, for a script",
    "weft doctor --json | jq '.findings[] | select(.state == \"broken\")'",
    NULL,
};

static const char *const states[] = {"ok", "absent", "better", "broken"};

struct doctor_finding *wf_doctor_add(struct doctor *doctor, const char *name,
                                     enum doctor_state state, const char *format, ...)
{
    static struct doctor_finding lost; /* beyond the cap: kept nowhere, but written somewhere */
    struct doctor_finding *finding = doctor->count < DOCTOR_FINDINGS_MAX
                                         ? &doctor->findings[doctor->count++]
                                         : &lost;
    *finding = (struct doctor_finding){.name = name, .state = state};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->value, sizeof finding->value, format, arguments);
    va_end(arguments);
    return finding;
}

bool wf_doctor_line(const char *path, char *out, size_t capacity)
{
    FILE *file = fopen(path, "re");
    bool read = file && fgets(out, (int)capacity, file);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    if (file)
        fclose(file);
    return read;
}

int wf_doctor_entries(const char *folder, const char *prefix)
{
    DIR *directory = opendir(folder);
    int count = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        count += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (directory)
        closedir(directory);
    return count;
}

/* Whether a node answers, and whether one could be started. */
static void node_check(struct cli *cli, struct doctor *doctor)
{
    char path[512];
    bool found = wf_cli_program_find("weftd", path, sizeof path);
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "weftd", found ? DOCTOR_OK : DOCTOR_BROKEN, "%.150s",
                      found ? path : "not beside this program nor in PATH");
    if (!found)
        snprintf(finding->mend, sizeof finding->mend, "make install");
    struct weft_connect_options how = {cli->socket, cli->domain, cli->token, 2000};
    enum weft_status status = weft_connect(&how, &cli->weft);
    if (status == WEFT_OK) {
        wf_doctor_add(doctor, "node", DOCTOR_OK, "answers");
        doctor->tiers = wf_cli_tiers_ask(cli->weft, doctor->tiers_why, sizeof doctor->tiers_why);
        (void)wf_cli_query(cli, "fabric", 0, 0, &doctor->fabric);
        return;
    }
    snprintf(doctor->tiers_why, sizeof doctor->tiers_why, "no node answers");
    finding = wf_doctor_add(doctor, "node", status == WEFT_E_NODE ? DOCTOR_BETTER : DOCTOR_BROKEN,
                            "no connection (%s)", weft_status_name(status));
    snprintf(finding->why, sizeof finding->why, "%.199s", weft_last_error());
    snprintf(finding->mend, sizeof finding->mend, "%s",
             status == WEFT_E_NODE ? "systemctl start weftd   # or: weftd &" : "weft config check");
}

/* The node's tiers that are not well.  One that is being opened may still be. */
static void tiers_check(struct doctor *doctor)
{
    size_t index, wrong = 0, count = json_array_size(doctor->tiers);
    json_t *tier;
    json_array_foreach (doctor->tiers, index, tier) {
        const char *name = json_string_value(json_object_get(tier, "name"));
        const char *state = json_string_value(json_object_get(tier, "state"));
        const char *reason = json_string_value(json_object_get(tier, "reason"));
        if (!name || !state || strcmp(state, "ok") == 0 || strcmp(state, "opening") == 0)
            continue;
        wrong++;
        struct doctor_finding *finding = wf_doctor_add(doctor, "tier", DOCTOR_BROKEN,
                                                       "%.40s is %.40s", name, state);
        snprintf(finding->why, sizeof finding->why, "%.199s", reason ? reason : "");
        snprintf(
            finding->mend, sizeof finding->mend,
            "weft ls tiers   # look after its medium; a tier that is well again is taken up by "
            "itself");
    }
    if (doctor->tiers && !wrong)
        wf_doctor_add(doctor, "tiers", DOCTOR_OK, "%zu", count);
}

/* Of a node of a cluster: what its registry says of it, and who of the others it has no link to. */
static void cluster_check(struct doctor *doctor)
{
    const json_t *self = json_object_get(doctor->fabric, "self"), *node;
    json_t *nodes = json_object_get(doctor->fabric, "nodes");
    size_t index, away = 0, strange = 0, count = json_array_size(nodes);
    const char *first = "", *why = "";
    if (!json_is_object(self))
        return;
    const char *standing = json_string_value(json_object_get(self, "standing"));
    const char *because = json_string_value(json_object_get(self, "why"));
    bool refused = because && because[0]; /* something, though the lease goes on */
    bool member = standing && strcmp(standing, "member") == 0 && !refused;
    bool alone = standing && strcmp(standing, "member") != 0 && strcmp(standing, "doubtful") != 0;
    struct doctor_finding *finding =
        wf_doctor_add(doctor, "cluster", member ? DOCTOR_OK : DOCTOR_BROKEN, "%.20s%s %.120s",
                      standing ? standing : "", member ? " of" : ":",
                      json_string_value(json_object_get(self, "registry")));
    if (!member) {
        snprintf(finding->why, sizeof finding->why, "%.199s", because ? because : "");
        snprintf(finding->mend, sizeof finding->mend,
                 "weft fabric   # look after the registry, fabric.join and fabric.name");
    }
    json_array_foreach (nodes, index, node) {
        const char *state = json_string_value(json_object_get(node, "state"));
        strange += state && strcmp(state, "away") != 0 &&
                   json_integer_value(json_object_get(node, "domains")) == 0;
        if (!state || (strcmp(state, "away") != 0 && strcmp(state, "no member") != 0))
            continue;
        if (!away++) {
            first = json_string_value(json_object_get(node, "name"));
            why = json_string_value(json_object_get(node, "why"));
        }
    }
    if (!away && strange) {
        finding = wf_doctor_add(doctor, "nodes", DOCTOR_BROKEN,
                                "%zu of %zu others have none of this node's domains", strange,
                                count);
        snprintf(finding->why, sizeof finding->why, "nothing is shared with them");
        snprintf(finding->mend, sizeof finding->mend,
                 "weft fabric   # says of which; give all nodes the same fabric.secret_file, and "
                 "domains of one name");
        return;
    }
    if (!away) {
        wf_doctor_add(doctor, "nodes", DOCTOR_OK, "%zu other%s, none away", count,
                      count == 1 ? "" : "s");
        return;
    }
    finding = wf_doctor_add(doctor, "nodes", DOCTOR_BROKEN, "%zu of %zu others can not be reached",
                            away, count);
    snprintf(finding->why, sizeof finding->why, "%.63s: %.130s", first ? first : "",
             why && why[0] ? why : "no answer yet");
    if (!alone)
        snprintf(finding->mend, sizeof finding->mend,
                 "weft fabric   # says it of each: is weftd up there, its port open, its secret "
                 "this?");
}

static void report_json(const struct doctor *doctor, int broken)
{
    json_t *answer = json_object(), *list = json_array();
    wf_cli_json_set(answer, "broken", json_integer(broken));
    for (int i = 0; i < doctor->count; i++) {
        const struct doctor_finding *finding = &doctor->findings[i];
        json_t *entry = json_object();
        wf_cli_json_set(entry, "name", json_string(finding->name));
        wf_cli_json_set(entry, "state", json_string(states[finding->state]));
        wf_cli_json_set(entry, "value", json_string(finding->value));
        wf_cli_json_set(entry, "why", json_string(finding->why));
        wf_cli_json_set(entry, "mend", json_string(finding->mend));
        json_array_append_new(list, entry);
    }
    wf_cli_json_set(answer, "findings", list);
    wf_cli_json_set(answer, "memory", doctor->devices ? json_incref(doctor->devices) : json_null());
    wf_cli_json_set(answer, "tiers", doctor->tiers ? json_incref(doctor->tiers) : json_null());
    wf_cli_json_print(answer);
}

static void report_people(const struct doctor *doctor)
{
    static const char *const marks[] = {"  ok    ", "  -     ", "  better", "! BROKEN"};
    int absent = 0;
    for (int i = 0; i < doctor->count; i++) {
        const struct doctor_finding *finding = &doctor->findings[i];
        absent += finding->state == DOCTOR_ABSENT;
        if (finding->state == DOCTOR_ABSENT && !all)
            continue;
        printf("%s  %-16s %s\n", marks[finding->state], finding->name, finding->value);
        if (finding->state != DOCTOR_OK && finding->why[0])
            printf("%28s%s\n", "", finding->why);
        if (finding->mend[0])
            printf("%28smend: %s\n", "", finding->mend);
    }
    if (absent && !all)
        printf("\n%d things that this machine does not have and need not have: weft doctor --all\n",
               absent);
    printf("\n");
    wf_doctor_devices_print(doctor);
    printf("\n");
    if (doctor->tiers)
        wf_cli_tiers_print(doctor->tiers, stdout);
    else
        printf("tiers: how fast each is, and in which order they are asked, is measured by a node: "
               "%s\n",
               doctor->tiers_why);
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    struct doctor *doctor = wf_cli_alloc(sizeof *doctor);
    node_check(cli, doctor);
    wf_doctor_memory(doctor);
    wf_doctor_devices(cli, doctor, sysfs);
    wf_doctor_kernel(doctor);
    tiers_check(doctor);
    cluster_check(doctor);
    int broken = 0;
    for (int i = 0; i < doctor->count; i++)
        broken += doctor->findings[i].state == DOCTOR_BROKEN;
    if (cli->json)
        report_json(doctor, broken);
    else
        report_people(doctor);
    json_decref(doctor->devices);
    json_decref(doctor->tiers);
    json_decref(doctor->fabric);
    free(doctor);
    return broken ? CLI_MISS : CLI_OK;
}

const struct cli_command wf_cmd_doctor = {
    .name = "doctor",
    .summary = "what this machine offers, what is in the way, how to mend it",
    .synopsis = "",
    .about =
        "Looks at memory, kernel, processor and devices, and says for each whether it serves "
        "Weft: ok; better, when it works and the command beside it makes it faster; broken, "
        "when it is in the way.  It changes nothing.\n\n"
        "Memory beyond DRAM follows: CXL regions, DAX devices and NUMA nodes without processors, "
        "with their sizes, the latency and bandwidth that the firmware tells the kernel (ACPI "
        "HMAT), and the tier of the node that uses them.  Where no node answers, weftd looks.\n\n"
        "When a node answers, its tiers follow in the order in which it asks them: by how long "
        "a mebibyte takes to read, by the latency, a median of small reads, and the rate that it "
        "measures, whatever they are called.  What is emulated, like CXL memory by a file, says "
        "so.\n\n"
        "Of a node that belongs to a cluster: whether it is a member, and who of the others it has "
        "no link to, with the first's reason.\n\n"
        "Exits with 0, or with 1 when something is broken.",
    .options = options,
    .examples = examples,
    .run = run,
};
