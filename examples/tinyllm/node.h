/* SPDX-License-Identifier: Apache-2.0
 *
 * A weftd of our own, on a socket that nobody else knows, for as long as one command runs.
 */
#ifndef TINYLLM_NODE_H
#define TINYLLM_NODE_H

#include <stdbool.h>
#include <sys/types.h>

struct node {
    pid_t pid; /* 0: none was started */
    char directory[128];
    char socket[160];
};

/* Start the weftd that lies beside this program (`program` is argv[0]), or else the one in $PATH,
 * and wait until it answers.  Its messages go to a file, and into the sentence when it fails. */
bool node_start(const char *program, struct node *out);

/* Stop it and remove what it left.  A node that was never started is allowed. */
void node_stop(struct node *node);

#endif
