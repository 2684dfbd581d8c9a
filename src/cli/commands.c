/* SPDX-License-Identifier: Apache-2.0
 *
 * The table that dispatch, the map, suggestions and completion go by.
 */
#include "cli/commands.h"

const struct cli_command *const wf_cli_commands[] = {
    &wf_cmd_status, &wf_cmd_top,    &wf_cmd_doctor,   &wf_cmd_put,     &wf_cmd_get,
    &wf_cmd_match,  &wf_cmd_route,  &wf_cmd_prefetch, &wf_cmd_demote,  &wf_cmd_rm,
    &wf_cmd_ls,     &wf_cmd_fabric, &wf_cmd_events,   &wf_cmd_explain, &wf_cmd_session,
    &wf_cmd_region, &wf_cmd_tier,   &wf_cmd_lend,     &wf_cmd_reclaim, &wf_cmd_bench,
    &wf_cmd_replay, &wf_cmd_sim,    &wf_cmd_codec,    &wf_cmd_config,  &wf_cmd_version,
    NULL,
};
