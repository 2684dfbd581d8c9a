/* SPDX-License-Identifier: Apache-2.0 */
#include "raw.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "random.h"

bool raw_connect(struct raw *raw, const struct weftd *node)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = 10};
    memset(raw, 0, sizeof *raw);
    snprintf(name.sun_path, sizeof name.sun_path, "%s", node->socket);
    raw->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (raw->fd < 0)
        return false;
    setsockopt(raw->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(raw->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(raw->fd, (struct sockaddr *)&name, sizeof name) == 0)
        return true;
    raw_close(raw);
    return false;
}

static void close_received(struct raw *raw)
{
    for (size_t i = 0; i < raw->received_count; i++)
        close(raw->received[i]);
    raw->received_count = 0;
}

void raw_close(struct raw *raw)
{
    close_received(raw);
    for (size_t i = 0; i < raw->segment_count; i++)
        close(raw->segments[i]);
    raw->segment_count = 0;
    if (raw->fd >= 0)
        close(raw->fd);
    raw->fd = -1;
}

bool raw_send(struct raw *raw, const void *bytes, size_t count)
{
    return send(raw->fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

bool raw_receive(struct raw *raw)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * RAW_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = raw->answer.bytes, .iov_len = sizeof raw->answer.bytes};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    close_received(raw);
    ssize_t got = recvmsg(raw->fd, &header, MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return false;
    raw->answer_bytes = (size_t)got;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        raw->received_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(raw->received, CMSG_DATA(c), raw->received_count * sizeof(int));
    }
    return true;
}

int32_t raw_ask(struct raw *raw, void *message, uint16_t op, size_t bytes)
{
    *(struct wf_message *)message = (struct wf_message){
        .magic = WF_CONTROL_MAGIC,
        .op = op,
        .version = WF_CONTROL_VERSION,
        .bytes = (uint32_t)bytes,
        .sequence = ++raw->sequence,
    };
    if (!raw_send(raw, message, bytes) || !raw_receive(raw))
        return INT32_MIN;
    return raw->answer.head.status;
}

int32_t raw_hello(struct raw *raw, const struct weftd *node, const char *domain)
{
    struct wf_hello hello = {.domain = ""};
    if (!raw_connect(raw, node))
        return INT32_MIN;
    snprintf(hello.domain, sizeof hello.domain, "%s", domain);
    int32_t status = raw_ask(raw, &hello, WF_OP_HELLO, sizeof hello);
    if (status == WEFT_OK) {
        memcpy(raw->segments, raw->received, sizeof raw->segments);
        raw->segment_count = raw->received_count;
        raw->received_count = 0;
        raw->index_bytes = raw->answer.hello.index_bytes;
        raw->pool_bytes = raw->answer.hello.pool_bytes;
        raw->pins_bytes = raw->answer.hello.pins_bytes;
        raw->staging_bytes = raw->answer.hello.staging_bytes;
    }
    return status;
}

uint32_t raw_format(struct raw *raw, const char *model, uint64_t block_bytes)
{
    struct wf_format_open open = {.layers = 2,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .dtype = WEFT_F16,
                                  .block_tokens = 4,
                                  .block_bytes = block_bytes,
                                  .model_bytes = (uint32_t)strlen(model)};
    memcpy(open.model, model, strlen(model));
    return raw_ask(raw, &open, WF_OP_FORMAT_OPEN, sizeof open) == WEFT_OK
               ? raw->answer.format.format
               : UINT32_MAX;
}

int32_t raw_reserve(struct raw *raw, uint32_t format, uint64_t number, uint32_t count)
{
    union {
        struct wf_reserve head;
        uint8_t bytes[WF_MESSAGE_MAX];
    } request;
    memset(&request.head, 0, sizeof request.head);
    request.head.format = format;
    request.head.count = count;
    for (uint32_t i = 0; i < count; i++)
        random_key(number + i, request.head.keys[i]);
    return raw_ask(raw, &request, WF_OP_RESERVE,
                   sizeof request.head + count * sizeof request.head.keys[0]);
}
