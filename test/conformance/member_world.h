/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes under test around one registry, and what each has been told.
 *
 * Whatever a test does, every callback checks what holds always: nobody leaves who was not told as
 * joined, with the epoch that was told; nobody comes back with an epoch that is not higher; a
 * standing's epochs grow and its end comes no nearer; and nobody is told as left whose own standing
 * says at that moment that it is in.
 */
#ifndef TEST_CONFORMANCE_MEMBER_WORLD_H
#define TEST_CONFORMANCE_MEMBER_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "member/member.h"

#define NODES_MAX 6
#define KNOWN_MAX 16
#define HEARD_MAX 512

struct world;

struct backend {
    const char *name;
    const struct wf_member_ops *ops;
    uint32_t lease_ms;
    bool leases;   /* nodes see each other, and one that dies leaves when its lease is over */
    bool settings; /* are the cluster's; else each node keeps its own */
    /* Make a registry that is empty; may skip() with a sentence. */
    void (*begin)(struct world *w);
    void (*end)(struct world *w);
    void (*options)(struct world *w, struct wf_member_options *options);
    /* It does not answer any more, or does again. */
    void (*away)(struct world *w, bool away);
    /* It dies and is there again with what it had. */
    void (*restart)(struct world *w);
    /* It forgets all that is past, as far as it may. */
    void (*forget)(struct world *w);
    /* The time that nodes go by. */
    uint64_t (*now_ns)(struct world *w);
    /* Some of it goes by; NULL: it does so by itself. */
    void (*pass)(struct world *w, uint32_t ms);
};

enum heard_kind { HEARD_JOINED, HEARD_LEFT, HEARD_STANDING, HEARD_SETTING };

struct heard {
    enum heard_kind kind;
    char name[WF_MEMBER_NAME_MAX + 1];
    uint64_t epoch; /* of a standing: its epoch; of a setting: its revision */
    enum wf_standing_state state;
    uint64_t at_ns;
};

struct node {
    struct world *world;
    struct wf_members *members; /* NULL: it is not there */
    char name[WF_MEMBER_NAME_MAX + 1];
    struct wf_member_options options;
    struct wf_standing standing; /* as told last */
    struct wf_member known[KNOWN_MAX];
    uint32_t known_count;
    struct heard heard[HEARD_MAX];
    uint32_t heard_count;
    uint32_t answers; /* to settings that it set */
    enum weft_status answer;
};

struct world {
    const struct backend *backend;
    const struct wf_member_ops *ops;
    uint32_t lease_ms; /* of its nodes */
    struct node nodes[NODES_MAX];
    void *registry;  /* the backend's */
    char place[200]; /* what `registry` of the options is */
    char state_dir[100];
    bool by_hand; /* the test removes keys itself: who is told as left may not know yet */
};

int world_setup(void **state);
int world_teardown(void **state);

/* Open node `number` under that name. */
struct node *node_open(struct world *w, uint32_t number, const char *name);
void node_close(struct node *node, uint32_t leave_ms);

uint64_t world_now(struct world *w);
/* Let all nodes do what there is to do, and a little time go by. */
void world_turn(struct world *w);
void world_pass(struct world *w, uint32_t ms);

#define WAIT(w, ms, condition)                                                \
    do {                                                                      \
        uint64_t end_of_wait = world_now(w) + (uint64_t)(ms)*1000000u;        \
        while (!(condition)) {                                                \
            if (world_now(w) > end_of_wait)                                   \
                fail_msg("not within %u ms: %s", (unsigned)(ms), #condition); \
            world_turn(w);                                                    \
        }                                                                     \
    } while (0)

#define PATIENCE 20000 /* ms: for what takes no time but that of a busy machine */

/* As told; NULL: it is not a member as far as this node knows. */
const struct wf_member *known(const struct node *node, const char *name);
struct wf_standing standing_of(const struct node *node);
bool is_in(const struct node *node);
/* Every node that there is knows every other, and itself. */
bool all_know_all(struct world *w);
uint32_t heard_count(const struct node *node, enum heard_kind kind, const char *name);
/* Set a setting and wait for the answer. */
enum weft_status set(struct node *node, const char *name, const char *value, uint64_t revision);
/* "": there is none. */
const char *setting_of(const struct node *node, const char *name, uint64_t *out_revision);

#define TEST(name)                                     \
    {                                                  \
#name, name, world_setup, world_teardown, NULL \
    }

/* member_backends.c */
extern const struct backend backends[];
extern const size_t backend_count;
/* One of them by its name. */
const struct backend *backend_of(const char *name);
/* member_etcd.c: of etcd alone */
extern const struct CMUnitTest etcd_tests[];
extern const size_t etcd_test_count;
/* member_guards.c */
void test_a_user_and_a_password(void **state);
void test_certificates(void **state);
void test_an_etcd_that_is_full(void **state);
void test_answers_that_are_hostile(void **state);
void test_a_member_among_hostile_answers(void **state);
/* This program again, as a node that stops itself: see there. */
int stopped_node(const char *registry);

#endif
