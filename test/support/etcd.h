/* SPDX-License-Identifier: Apache-2.0
 *
 * A real etcd that a test starts: on loopback, on ports that are free, with a directory that goes
 * with it.  It is killed when the test dies.
 */
#ifndef TEST_SUPPORT_ETCD_H
#define TEST_SUPPORT_ETCD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct etcd {
    pid_t pid; /* 0: it does not run */
    uint16_t port, peer_port;
    char place[100]; /* data/, log, and with TLS ca.pem, server.pem, client.pem and their keys */
    bool tls;        /* and it asks for a client's certificate */
};

/* NULL: it runs and answers.  Else a sentence of why it cannot be had here. */
const char *etcd_start(struct etcd *etcd, bool tls);
void etcd_stop(struct etcd *etcd); /* and its directory goes */

void etcd_pause(struct etcd *etcd, bool stopped); /* SIGSTOP, SIGCONT */
/* SIGKILL, and the same again on the same ports with the same data, when it is begun. */
void etcd_kill(struct etcd *etcd);
bool etcd_begin(struct etcd *etcd);

/* POST to its gateway, as a test does it that is no node (not for TLS).  Returns HTTP's code, 0:
 * none; what it answers is in `out`. */
int etcd_ask(const struct etcd *etcd, const char *token, const char *path, const char *body,
             char *out, size_t out_bytes);

/* The same for a key: put (value NULL: delete it). */
bool etcd_put(const struct etcd *etcd, const char *key, const char *value);
/* Whatever is past is forgotten. */
bool etcd_compact(const struct etcd *etcd);

/* In base64, in place of itself; static memory for the last few. */
const char *etcd_base64(const char *text);

#endif
