/* SPDX-License-Identifier: Apache-2.0
 *
 * A client without libweft: messages as somebody else might write them.
 */
#ifndef TEST_SUPPORT_RAW_H
#define TEST_SUPPORT_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/control.h"
#include "weftd.h"

#define RAW_FDS_MAX 4

struct raw {
    int fd; /* -1: none */
    uint64_t sequence;
    int segments[RAW_FDS_MAX]; /* index, pool, pins, staging: as HELLO's answer brought them */
    size_t segment_count;
    uint64_t staging_bytes, pins_bytes, index_bytes, pool_bytes;
    int received[RAW_FDS_MAX]; /* descriptors of the last answer, for the caller to close */
    size_t received_count;
    size_t answer_bytes;
    union { /* what was answered last; at the end, for some answers are of any length */
        struct wf_message head;
        struct wf_hello_answer hello;
        struct wf_format_answer format;
        struct wf_session_answer session;
        struct wf_reserve_answer reserve;
        struct wf_commit_answer commit;
        struct wf_count_answer count;
        struct wf_region_answer region;
        struct wf_text_answer text;
        uint8_t bytes[WF_MESSAGE_MAX + 1];
    } answer;
};

/* Messages with what follows their fixed part. */
union raw_commit {
    struct wf_commit head;
    uint8_t bytes[sizeof(struct wf_commit) + 2 * sizeof(struct wf_commit_block)];
};
#define RAW_COMMIT_BYTES(count) \
    (sizeof(struct wf_commit) + (count) * sizeof(struct wf_commit_block))
union raw_reserve {
    struct wf_reserve head;
    uint8_t bytes[sizeof(struct wf_reserve) + 32];
};

/* Connected, nothing said.  False: refused. */
bool raw_connect(struct raw *raw, const struct weftd *node);
void raw_close(struct raw *raw);

/* Send bytes as they are; false when the node has cut us off. */
bool raw_send(struct raw *raw, const void *bytes, size_t count);

/* The next answer within 10 s; false: cut off. */
bool raw_receive(struct raw *raw);

/* Complete the header of `message` for `op` and `bytes`, send it, take the answer.  Returns its
 * status; INT32_MIN when there was none. */
int32_t raw_ask(struct raw *raw, void *message, uint16_t op, size_t bytes);

/* Connect and say HELLO; the status. */
int32_t raw_hello(struct raw *raw, const struct weftd *node, const char *domain);

/* An opaque format; its number, or UINT32_MAX. */
uint32_t raw_format(struct raw *raw, const char *model, uint64_t block_bytes);

/* Reserve `count` keys made from `number`, `number` + 1 …; statuses are in answer.reserve. */
int32_t raw_reserve(struct raw *raw, uint32_t format, uint64_t number, uint32_t count);

#endif
