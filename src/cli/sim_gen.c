/* SPDX-License-Identifier: Apache-2.0
 *
 * weft sim gen: a workload by stated distributions, as a trace.
 */
#include <errno.h>
#include <string.h>

#include "cli/file.h"
#include "cli/sim.h"

static int gen_read(struct cli *cli, const struct sim_gen_given *given,
                    struct wf_sim_tenant *tenants, struct wf_sim_gen *out)
{
    *out = (struct wf_sim_gen){.format = TRACE_MOONCAKE, .seed = given->seed};
    if (given->format)
        wf_trace_format_of(given->format, &out->format);
    out->workload = given->workload ? wf_sim_workload_find(given->workload) : NULL;
    if (!out->workload)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say what to make with --workload chat, agentic, rag, batch or api");
    if (!given->requests || given->requests > WF_SIM_GEN_REQUESTS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--requests is %llu; give 1 to %u",
                           (unsigned long long)given->requests, WF_SIM_GEN_REQUESTS_MAX);
    if (cli->json)
        return wf_cli_fail(cli, CLI_USAGE,
                           "gen writes a trace, which is JSON lines without --json");
    out->requests = (uint32_t)given->requests;
    out->hinted = given->hints != NULL;
    int code = wf_sim_tenants_read(cli, given->tenants, tenants, &out->tenant_count);
    out->tenants = tenants;
    if (code != CLI_OK)
        return code;
    return given->hints ? wf_sim_hints_read(cli, given->hints, &out->hints) : CLI_OK;
}

static void missed_say(const char *kind, const char *others, const struct wf_sim_gen_said *said)
{
    if (said->precision_missed)
        fprintf(stderr,
                "weft sim: too few turns are left that %s for such a precision of \"%s\": %llu "
                "say it, and %.1f %% of them rightly\n",
                others, kind, (unsigned long long)said->hints,
                said->hints ? 100 * (double)said->right / (double)said->hints : 0);
}

int wf_sim_gen_run(struct cli *cli, const struct sim_gen_given *given)
{
    struct wf_sim_tenant tenants[WF_SIM_DOMAINS_MAX];
    struct wf_sim_gen gen;
    struct wf_sim_gen_made made;
    int code = gen_read(cli, given, tenants, &gen);
    if (code != CLI_OK)
        return code;
    struct cli_file output = {.path = given->output, .in_place = true};
    FILE *file = given->output ? wf_cli_file_open(cli, &output) : stdout;
    if (!file)
        return CLI_SYSTEM;
    enum weft_status status = wf_sim_gen_write(&gen, file, &made);
    if (given->output)
        code = wf_cli_file_close(cli, &output, file, status == WEFT_OK);
    else if (fflush(file) != 0 || ferror(file))
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot write stdout: %s", strerror(errno));
    if (code == CLI_OK && status != WEFT_OK)
        code = wf_cli_fail(cli, CLI_SYSTEM, "%s", wf_sim_error());
    if (code != CLI_OK)
        return code;
    missed_say("wanted", "end", &made.wanted);
    missed_say("done", "go on", &made.done);
    return CLI_OK;
}
