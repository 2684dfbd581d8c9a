/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as messages of a client: a node without a loop, a client at one end of a socket pair,
 * and the handler that the loop would call.
 *
 *     input: | op (1 byte) | length of the body (2 bytes) | body … | op | …
 *
 * The body is laid over zeros, so that short inputs reach what lies behind long fixed parts.  After
 * each input every store obeys its invariants, and when the client has gone nothing of it is left.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/node.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct wf_node *node;

static void node_make(void)
{
    static struct wf_config config;
    wf_config_defaults(&config);
    config.pool_bytes = config.pool_bytes_max = 4 << 20;
    config.pool_huge = WF_HUGE_OFF;
    config.http_address[0] = '\0';
    config.clients_max = 4;
    config.pins_max = 64;
    config.sessions_max = config.formats_max = config.regions_max = 16;
    config.reserved_max = 64;
    config.staging_bytes = 1 << 20;
    config.workers = 1;
    config.domain_count = 2;
    config.domains[1] = config.domains[0];
    memcpy(config.domains[1].name, "copied", sizeof "copied");
    config.domains[1].writes = WF_WRITES_COPIED;
    enum weft_status status = wf_node_create(&config, &node);
    assert(status == WEFT_OK);
}

/* Answers are thrown away; descriptors in them, too. */
static void swallow(int fd)
{
    static uint8_t answer[WF_MESSAGE_MAX];
    int fds[WF_SOCKET_FDS_MAX];
    size_t bytes, fd_count = 0;
    while (wf_socket_receive(fd, answer, sizeof answer, &bytes, fds, &fd_count) == WEFT_OK) {
        const struct wf_message *head = (const struct wf_message *)(const void *)answer;
        assert(bytes >= sizeof *head && head->bytes == bytes && head->magic == WF_CONTROL_MAGIC);
        assert(head->status >= 0 || bytes > sizeof *head);
        wf_close_all(fds, fd_count);
        fd_count = 0;
    }
}

static struct wf_client *client_make(int fd)
{
    struct wf_client *client = &node->clients[0];
    *client = (struct wf_client){
        .node = node,
        .fd = fd,
        .id = 1,
        .peer = {.uid = geteuid()},
        .pins_segment.fd = -1,
        .staging.fd = -1,
        .reserved.head = WF_SLOT_NONE,
    };
    node->client_count = 1;
    return client;
}

static void say_hello(struct wf_client *client, const char *domain)
{
    static struct wf_hello hello;
    hello = (struct wf_hello){.message = {.magic = WF_CONTROL_MAGIC,
                                          .op = WF_OP_HELLO,
                                          .version = WF_CONTROL_VERSION,
                                          .bytes = sizeof hello}};
    memcpy(hello.domain, domain, strlen(domain));
    wf_request(client, &hello.message);
}

static void say_format(struct wf_client *client)
{
    static struct wf_format_open open;
    open = (struct wf_format_open){.message = {.magic = WF_CONTROL_MAGIC,
                                               .op = WF_OP_FORMAT_OPEN,
                                               .version = WF_CONTROL_VERSION,
                                               .bytes = sizeof open},
                                   .layers = 1,
                                   .kv_heads = 1,
                                   .head_dim = 8,
                                   .dtype = WEFT_F16,
                                   .block_tokens = 4,
                                   .block_bytes = 4096,
                                   .model = "m",
                                   .model_bytes = 1};
    wf_request(client, &open.message);
}

/* What the loop does besides: results of workers, a reclaim that is under way. */
static void settle(struct wf_client *client)
{
    while (client->paused)
        wf_workers_reap(node->workers);
    for (int i = 0; node->reclaim.client && i < 100000; i++) {
        node->reclaim.deadline_ns = 0;
        wf_node_reclaim_step(node);
    }
}

static size_t say(struct wf_client *client, const uint8_t *data, size_t size)
{
    static _Alignas(8) uint8_t message[WF_MESSAGE_MAX];
    size_t body = (size_t)data[1] | (size_t)data[2] << 8, given = size - 3;
    if (given > body)
        given = body;
    memset(message, 0, sizeof message);
    size_t bytes = sizeof(struct wf_message) + body;
    if (bytes > sizeof message)
        bytes = sizeof message;
    if (given > bytes - sizeof(struct wf_message))
        given = bytes - sizeof(struct wf_message);
    memcpy(message + sizeof(struct wf_message), data + 3, given);
    *(struct wf_message *)(void *)message = (struct wf_message){
        .magic = WF_CONTROL_MAGIC,
        .op = data[0],
        .version = WF_CONTROL_VERSION,
        .bytes = (uint32_t)bytes,
    };
    wf_request(client, (const struct wf_message *)(const void *)message);
    settle(client);
    return 3 + given;
}

/* Check what must hold when the client has gone, and make the node as it was before. */
static void restore(void)
{
    for (uint32_t i = 0; i < node->domain_count; i++) {
        struct wf_domain *domain = &node->domains[i];
        wf_store_bury(&domain->store);
        wf_store_verify(&domain->store);
        wf_store_make_free(&domain->store, node->config.pool_bytes, WF_EVICT_RECLAIM);
        assert(domain->store.blocks == 0 && domain->store.used_bytes == 0);
        assert(domain->clients == 0 && domain->sessions == 0 && domain->regions == 0);
        assert(domain->store.reserved_blocks == 0 && domain->store.other_bytes == 0);
    }
    assert(node->client_count == 0 && node->session_count == 0 && node->region_count == 0);
    uint64_t lacks = node->config.pool_bytes - node->pool_bytes;
    node->pool_bytes += lacks;
    node->budget_free += lacks;
    uint64_t backed = 0;
    for (uint32_t i = 0; i < node->domain_count; i++)
        backed += node->domains[i].store.backed_bytes;
    assert(node->budget_free + backed == node->pool_bytes);
    while (node->format_count)
        free(node->formats[--node->format_count].request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int pair[2];
    if (!node)
        node_make();
    if (size < 1 || size > 16384)
        return 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        return 0;
    struct wf_client *client = client_make(pair[0]);
    if (data[0] & 1) {
        say_hello(client, data[0] & 2 ? "copied" : "default");
        say_format(client);
    }
    size_t at = 1;
    for (int messages = 0; messages < 32 && client->fd >= 0 && size - at >= 3; messages++) {
        at += say(client, data + at, size - at);
        swallow(pair[1]);
    }
    wf_client_close(client, "the input ends");
    close(pair[1]);
    restore();
    return 0;
}
