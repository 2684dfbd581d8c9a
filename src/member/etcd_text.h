/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said to etcd's JSON gateway, and what it answers, as text: no I/O.  Any thread.
 *
 * The gateway writes 64-bit numbers as strings of digits, leaves out what is 0, empty or false, and
 * writes keys and values in base64.  A stream (watch, keepalive) is a line of JSON a message,
 * inside "result".  Answers are a stranger's bytes: whatever they are, reading them ends in WEFT_OK
 * or WEFT_E_PROTOCOL with a sentence.
 *
 * Keys of a cluster:
 *
 *     /weft/CLUSTER/nodes/NAME       leased: {"epoch": 7, "addresses": "…", "details": "…"}
 *     /weft/CLUSTER/epochs/NAME      the last epoch of that name, in digits; outlives the node
 *     /weft/CLUSTER/settings/NAME    a setting
 */
#ifndef WF_MEMBER_ETCD_TEXT_H
#define WF_MEMBER_ETCD_TEXT_H

#include "member/member.h"

#define WF_ETCD_KEY_MAX 255u /* longer ones are nobody's here */
#define WF_ETCD_VALUE_MAX WF_SETTING_MAX
#define WF_ETCD_TOKEN_MAX 4095u

enum wf_etcd_part { WF_ETCD_NODES, WF_ETCD_EPOCHS, WF_ETCD_SETTINGS, WF_ETCD_OTHER };

/* A key and its value, as long as the call that has it. */
struct wf_etcd_kv {
    const char *key;   /* terminated, and without a NUL inside */
    const char *value; /* the same; NULL: it is too long for us, or no text */
    uint64_t mod, lease;
    uint32_t response; /* of a transaction: the number of the response that it is in */
    bool deleted;      /* an event of a watch */
};

struct wf_etcd_answer {
    uint64_t cluster, revision; /* of its header */
    uint64_t lease, ttl_s;
    uint64_t count;            /* of a range: all that there are */
    uint64_t counts[2];        /* of a transaction's first two ranges */
    uint64_t compact_revision; /* of a watch */
    bool succeeded, more, created, cancelled, fragment;
    char token[WF_ETCD_TOKEN_MAX + 1];
    char error[256]; /* what etcd says is wrong; "": nothing */
};

typedef void wf_etcd_take(void *context, const struct wf_etcd_kv *kv);

/* Any answer or line.  `take` is called for each key that is in it, in order; NULL: nobody asks. */
enum weft_status wf_etcd_read(const char *text, size_t bytes, struct wf_etcd_answer *out,
                              wf_etcd_take *take, void *context);

/* Whose key it is: *out_name is where the name begins, in `key`. */
enum wf_etcd_part wf_etcd_part_of(const char *cluster, const char *key, const char **out_name);

/* A node's value.  WEFT_E_PROTOCOL, with a sentence. */
enum weft_status wf_etcd_node_read(const char *name, const char *value, struct wf_member *out);
/* An epoch's value: from 1.  The same. */
enum weft_status wf_etcd_epoch_read(const char *value, uint64_t *out);

/* Requests' bodies, for free(); NULL, with a sentence: no memory. */
char *wf_etcd_say_login(const char *user, const char *password);
char *wf_etcd_say_grant(uint32_t ttl_s);
char *wf_etcd_say_lease(uint64_t lease); /* keepalive, revoke */
/* The node's key (response 0) and its epoch's (1). */
char *wf_etcd_say_look(const char *cluster, const char *name);
/* Both at once, if there is no such node and the epoch's key has that revision (0: is not there).
 */
char *wf_etcd_say_join(const char *cluster, const struct wf_member *self, uint64_t lease,
                       uint64_t epoch_mod);
/* Replace what a node says, if its key is held by that lease. */
char *wf_etcd_say_publish(const char *cluster, const struct wf_member *self, uint64_t lease);
/* Change a setting that has that revision; the response of a failure has what there is. */
char *wf_etcd_say_set(const char *cluster, const char *name, const char *value, uint64_t revision);
/* A page of a part: what comes after the key `after` (NULL: from the first), at a revision (0: the
 * newest). */
char *wf_etcd_say_page(const char *cluster, enum wf_etcd_part part, const char *after,
                       uint32_t limit, uint64_t revision);
/* The newest key of the nodes (response 0) and of the settings (1), with their counts. */
char *wf_etcd_say_newest(const char *cluster);
/* All that changes in the cluster from that revision on. */
char *wf_etcd_say_watch(const char *cluster, uint64_t revision);

#endif
