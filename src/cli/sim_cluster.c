/* SPDX-License-Identifier: Apache-2.0
 *
 * weft sim cluster: a trace on several nodes, as isolated ones and as one memory.
 */
#include "cli/sim.h"
#include "sim/cluster.h"

#define GBPS 1e9

static const char *const keys[WF_SIM_HOWS] = {"one_big_node", "isolated", "isolated_affinity",
                                              "fabric"};
static const char *const titles[WF_SIM_HOWS] = {"one big node", "isolated, in turns",
                                                "isolated, affinity", "fabric"};

static double hit_rate(const struct wf_sim_cluster_result *result)
{
    return result->blocks_requested ? (double)result->blocks_hit / (double)result->blocks_requested
                                    : 0;
}

static void json_print(const struct sim_plan *plan, const struct wf_sim_cluster_plan *cluster,
                       const struct wf_sim_cluster_result results[WF_SIM_HOWS])
{
    const struct wf_sim_cluster_result *fabric = &results[WF_SIM_FABRIC];
    json_t *out = json_object();
    char key[64];
    wf_cli_json_set(out, "simulated", json_true());
    wf_cli_json_set(out, "trace", json_string(plan->trace_name));
    wf_cli_json_set(out, "model", json_string(plan->model->name));
    wf_cli_json_set(out, "nodes", json_integer(cluster->nodes));
    wf_cli_json_set(out, "capacity_blocks", json_integer(cluster->capacity));
    wf_cli_json_set(out, "link_gbps", json_real(cluster->link_bytes_s * 8 / GBPS));
    wf_cli_json_set(out, "seed", json_integer((json_int_t)cluster->seed));
    wf_cli_json_set(out, "requests", json_integer((json_int_t)fabric->requests));
    wf_cli_json_set(out, "blocks_requested", json_integer((json_int_t)fabric->blocks_requested));
    for (int how = 0; how < WF_SIM_HOWS; how++) {
        snprintf(key, sizeof key, "hit_rate_%s", keys[how]);
        wf_cli_json_set(out, key, json_real(hit_rate(&results[how])));
        snprintf(key, sizeof key, "ttft_ms_mean_%s", keys[how]);
        wf_cli_json_set(out, key, json_real(results[how].ttft_ms_mean));
        snprintf(key, sizeof key, "ttft_ms_p99_%s", keys[how]);
        wf_cli_json_set(out, key, json_real(results[how].ttft_ms_p99));
    }
    wf_cli_json_set(out, "blocks_fetched", json_integer((json_int_t)fabric->blocks_fetched));
    wf_cli_json_set(out, "copies_mean", json_real(fabric->copies_mean));
    wf_cli_json_set(out, "busiest", json_real(fabric->busiest));
    wf_cli_json_set(out, "route_us_p50", json_real(fabric->route_us_p50));
    wf_cli_json_print(out);
}

static void table_print(const struct sim_plan *plan, const struct wf_sim_cluster_plan *cluster,
                        const struct wf_sim_cluster_result results[WF_SIM_HOWS])
{
    const struct wf_sim_cluster_result *fabric = &results[WF_SIM_FABRIC];
    printf("Simulated: %s on %u nodes with %u blocks together, %s, links of %g Gbit/s\n\n",
           plan->trace_name, cluster->nodes, cluster->capacity, plan->model->name,
           cluster->link_bytes_s * 8 / GBPS);
    printf("  %-20s %9s %13s %8s %8s %8s\n", "", "hit rate", "TTFT mean ms", "p50", "p99",
           "copies");
    for (int how = 0; how < WF_SIM_HOWS; how++)
        printf("  %-20s %7.2f %% %13.0f %8.0f %8.0f %8.3f\n", titles[how],
               100 * hit_rate(&results[how]), results[how].ttft_ms_mean, results[how].ttft_ms_p50,
               results[how].ttft_ms_p99, results[how].copies_mean);
    printf(
        "\n  %llu of the fabric's %llu hits were fetched from another node; a route took %.1f us "
        "(measured, p50)\n",
        (unsigned long long)fabric->blocks_fetched, (unsigned long long)fabric->blocks_hit,
        fabric->route_us_p50);
}

int wf_sim_cluster_print(struct cli *cli, const struct sim_plan *plan,
                         const struct wf_sim_trace *trace, const struct sim_cluster_given *given)
{
    struct wf_sim_cluster_result results[WF_SIM_HOWS];
    struct wf_sim_cluster_plan cluster = {
        .trace = trace,
        .model = plan->model,
        .nodes = (uint32_t)given->nodes,
        .capacity = plan->capacities[0],
        .warmup = (uint32_t)(plan->warmup * trace->request_count),
        .seed = given->seed,
        .speed = plan->speed,
        .link_bytes_s = given->link_gbps * GBPS / 8,
        .link_latency_s = 20e-6,
    };
    for (int how = 0; how < WF_SIM_HOWS; how++) {
        cluster.how = (enum wf_sim_cluster_how)how;
        enum weft_status status = wf_sim_cluster_run(&cluster, NULL, &results[how]);
        if (status != WEFT_OK)
            return wf_cli_fail(cli, status == WEFT_E_INVALID ? CLI_USAGE : CLI_SYSTEM, "%s",
                               wf_sim_error());
    }
    (cli->json ? json_print : table_print)(plan, &cluster, results);
    return CLI_OK;
}

int wf_sim_cluster_check(struct cli *cli, const struct sim_plan *plan,
                         const struct sim_cluster_given *given)
{
    if (!given->nodes || given->nodes > WF_SIM_NODES_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--nodes is %llu; give 1 to %u",
                           (unsigned long long)given->nodes, WF_SIM_NODES_MAX);
    if (plan->capacity_count != 1)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--capacity-blocks has %d numbers; cluster takes one, of all nodes "
                           "together",
                           plan->capacity_count);
    if (plan->capacities[0] < given->nodes)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--capacity-blocks is %u, which is less than a block for each of %llu "
                           "nodes",
                           plan->capacities[0], (unsigned long long)given->nodes);
    if (!(given->link_gbps > 0) || given->link_gbps > 1e6)
        return wf_cli_fail(cli, CLI_USAGE, "--link-gbps is %g; give Gbit/s, like 200",
                           given->link_gbps);
    return CLI_OK;
}
