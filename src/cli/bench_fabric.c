/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench_fabric.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

int wf_bench_fabric_make(struct cli *cli, struct bench_fabric *fabric)
{
    char path[128];
    uint8_t secret[32];
    snprintf(fabric->folder, sizeof fabric->folder, "/tmp/weft-fabric-XXXXXX");
    if (!mkdtemp(fabric->folder)) {
        fabric->folder[0] = '\0';
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot make a folder in /tmp: %s", strerror(errno));
    }
    snprintf(path, sizeof path, "%s/secret", fabric->folder);
    bool made = getrandom(secret, sizeof secret, 0) == sizeof secret;
    FILE *file = made ? fopen(path, "we") : NULL;
    made = file && fchmod(fileno(file), 0600) == 0 && fwrite(secret, sizeof secret, 1, file) == 1;
    if (file)
        made &= fclose(file) == 0;
    return made ? CLI_OK
                : wf_cli_fail(cli, CLI_SYSTEM, "cannot make %s: %s", path, strerror(errno));
}

void wf_bench_fabric_remove(struct bench_fabric *fabric)
{
    char path[128];
    if (!fabric->folder[0])
        return;
    snprintf(path, sizeof path, "%s/secret", fabric->folder);
    unlink(path);
    for (uint32_t i = 0; i < BENCH_FABRIC_NODES_MAX; i++) {
        snprintf(path, sizeof path, "%s/n%u", fabric->folder, i);
        unlink(path);
    }
    rmdir(fabric->folder);
    fabric->folder[0] = '\0';
}

int wf_bench_fabric_join(struct cli *cli, struct cli *const *nodes, uint32_t count, double limit_s)
{
    double until = wf_cli_now_s() + limit_s;
    for (uint32_t i = 0; i < count;) {
        json_t *answer, *row;
        size_t index;
        uint32_t ok = 0;
        int code = wf_cli_query(nodes[i], "fabric", 0, 0, &answer);
        if (code != CLI_OK)
            return code;
        json_array_foreach (json_object_get(answer, "nodes"), index, row) {
            const char *state = json_string_value(json_object_get(row, "state"));
            ok += state && strcmp(state, "ok") == 0;
        }
        json_decref(answer);
        if (ok == count - 1) {
            i++;
            continue;
        }
        if (wf_cli_now_s() > until)
            return wf_cli_fail(cli, CLI_NODE, "node %u sees %u of %u others after %.0f s", i, ok,
                               count - 1, limit_s);
        usleep(20000);
    }
    return CLI_OK;
}
