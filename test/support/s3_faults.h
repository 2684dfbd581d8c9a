/* SPDX-License-Identifier: Apache-2.0
 *
 * An emulation of what goes wrong between a client and an S3 server: a proxy on loopback that
 * passes requests on to a real server, but for those that a rule matches.  Each connection has a
 * thread; rules are changed from the test's.
 */
#ifndef TEST_SUPPORT_S3_FAULTS_H
#define TEST_SUPPORT_S3_FAULTS_H

#include <stdint.h>

enum s3_fault {
    S3_ANSWER,   /* with `status` and `body`, and the server is not asked */
    S3_RESET,    /* the connection, after the request was read */
    S3_STALL,    /* no answer, until the client gives up */
    S3_DRIP,     /* an answer with `status` that never ends, a little at a time */
    S3_CUT,      /* the connection ends amid the answer's body */
    S3_FLIP,     /* a bit in the middle of the answer's body */
    S3_UNRANGED, /* the server is not told of the range */
};

struct s3_rule {
    enum s3_fault fault;
    const char *begins;   /* of the request's first line: "GET ", "PUT " … */
    const char *contains; /* further on in that line; NULL: anything */
    unsigned times;       /* that it matches before it is used up */
    int status;
    const char *body; /* of S3_ANSWER; NULL: none */
};

/* Start the proxy before a server's port; returns its own. */
uint16_t s3_faults_start(uint16_t server);
void s3_faults_stop(void);

/* Add a rule (8 at most), or forget all. */
void s3_faults_add(struct s3_rule rule);
void s3_faults_clear(void);
unsigned s3_faults_met(void); /* how often rules matched since they were last cleared */

#endif
