/* SPDX-License-Identifier: Apache-2.0
 *
 * What the processes of a replay share.
 *
 * Clients take lines from a shared cursor, so that requests start in the trace's order while none
 * waits for a slow neighbour; a client that dies takes only its own request along.  Every field is
 * a counter that clients add to, relaxed: the parent reads them for the progress bar, and for the
 * report after waitpid().
 */
#ifndef WF_CLI_REPLAY_H
#define WF_CLI_REPLAY_H

#include <stdatomic.h>

#include "cli/cli.h"
#include "sim/trace.h"

#define REPLAY_CLIENTS_MAX 256

struct replay_options {
    const char *trace, *format, *speed, *dir, *policy, *hints;
    uint64_t pool_bytes, capacity_blocks, tier_bytes, bytes_per_token, clients, requests_max,
        patience_s;
    bool strict, details, hinted;
    enum trace_format trace_format;
    double speed_factor; /* 0: as fast as it goes */
};
extern struct replay_options wf_replay_options;

struct replay_shared {
    _Atomic uint64_t cursor; /* lines handed out */
    _Atomic uint64_t offset; /* bytes of the trace handed out, about */
    _Atomic uint64_t ready;  /* clients that are connected */
    _Atomic uint32_t go, stop;
    double start_s; /* written before go is released, read after it is acquired */

    _Atomic uint64_t requests, blocks_requested, blocks_hit, wrong_bytes, puts;
    _Atomic uint64_t existing;  /* another client stored it between match and reserve */
    _Atomic uint64_t full;      /* blocks not stored: no room */
    _Atomic uint64_t orphaned;  /* blocks not stored: the parent went meanwhile */
    _Atomic uint64_t below;     /* hits that came up from a tier below DRAM */
    _Atomic uint64_t vanished;  /* matched, and gone before the pin */
    _Atomic uint64_t malformed; /* lines */
    _Atomic uint64_t node_losses;
    _Atomic uint64_t hint_failures;
    _Atomic uint64_t trace_us_first,
        trace_us_last;            /* of the requests' times; first: + 1, 0: none */
    _Atomic uint64_t late_us_max; /* how far behind the trace's clock a request began */

    _Atomic uint32_t said; /* 1: `sentence` is being written, 2: it is there */
    char sentence[TRACE_ERROR_MAX];
};

/* One client process, from connection to its last request: an enum cli_exit. */
int wf_replay_client(struct cli *cli, struct replay_shared *shared);

/* Keep the first sentence that a client has for the report. */
void wf_replay_say(struct replay_shared *shared, const char *sentence);

#endif
