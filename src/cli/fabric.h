/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of `weft fabric` share.
 */
#ifndef WF_CLI_FABRIC_H
#define WF_CLI_FABRIC_H

#include "cli/cli.h"

/* fabric_topology.c */
int wf_cli_fabric_topology(struct cli *cli);

#endif
