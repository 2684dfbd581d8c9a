/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands, each in the file of its name.
 */
#ifndef WF_CLI_COMMANDS_H
#define WF_CLI_COMMANDS_H

#include "cli/cli.h"

extern const struct cli_command wf_cmd_bench, wf_cmd_codec, wf_cmd_config, wf_cmd_demote,
    wf_cmd_doctor, wf_cmd_events, wf_cmd_explain, wf_cmd_fabric, wf_cmd_get, wf_cmd_lend, wf_cmd_ls,
    wf_cmd_match, wf_cmd_prefetch, wf_cmd_put, wf_cmd_reclaim, wf_cmd_region, wf_cmd_replay,
    wf_cmd_rm, wf_cmd_route, wf_cmd_session, wf_cmd_sim, wf_cmd_status, wf_cmd_tier, wf_cmd_top,
    wf_cmd_version;

#endif
