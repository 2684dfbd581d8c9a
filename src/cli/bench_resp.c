/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench resp: the RESP gateway beside Redis.
 *
 * Both servers run at once; in each round every figure is taken from one and then from the other,
 * so that noise hits both.  Beside them a server that keeps nothing says how fast this client can
 * be served on this machine at all.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/bench.h"

#define WORKING_SET ((uint64_t)256 << 20)
#define ROUND_BYTES ((uint64_t)512 << 20) /* of one figure */
#define SMALL_KEYS 10000
#define SMALL_COMMANDS 100000

static const struct shape {
    const char *name;
    size_t value_bytes;
    uint32_t connections, depth;
} shapes[] = {
    {"64KiB", 64 << 10, 4, 1}, {"1MiB", 1 << 20, 4, 1},       {"16MiB", 16 << 20, 4, 1},
    {"64B", 64, 50, 1},        {"64B pipelined", 64, 50, 16},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])
#define VALUE_SHAPES 3 /* told in GB/s; the others in commands a second */

enum server { REDIS, WEFT, LIMIT, SERVERS };

static const struct {
    const char *said, *set, *get;
} names[SERVERS] = {
    [REDIS] = {"redis-server", "redis_set", "redis_get"},
    [WEFT] = {"weftd", "weft_set", "weft_get"},
    [LIMIT] = {"the server that keeps nothing", "limit_set", "limit_get"},
};

struct bench {
    struct cli *cli;
    uint16_t ports[SERVERS]; /* 0: there is none */
    struct bench_series series[SHAPES][SERVERS][2];
};

/* One that is free now. */
static uint16_t port_find(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool got = fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 &&
               getsockname(fd, (struct sockaddr *)&address, &length) == 0;
    if (fd >= 0)
        close(fd);
    return got ? ntohs(address.sin_port) : 0;
}

static double median(struct bench *bench, size_t shape, enum server server, bool get)
{
    return wf_bench_at(&bench->series[shape][server][get], 0.5);
}

static int measure(struct bench *bench, size_t number, enum server server, bool get, bool counts)
{
    const struct shape *shape = &shapes[number];
    bool small = number >= VALUE_SHAPES;
    char why[160];
    if (!bench->ports[server])
        return CLI_OK;
    struct bench_load load = {
        .port = bench->ports[server],
        .get = get,
        .value_bytes = shape->value_bytes,
        .keys = small ? SMALL_KEYS : WORKING_SET / shape->value_bytes,
        .commands = small ? SMALL_COMMANDS * shape->depth / (shape->depth > 1 ? 4 : 1)
                          : ROUND_BYTES / shape->value_bytes,
        .connections = shape->connections,
        .depth = shape->depth,
    };
    double took_s = wf_bench_load(&load, why, sizeof why);
    if (took_s < 0)
        return wf_cli_fail(bench->cli, CLI_SYSTEM, "%s of %s, %s: %s", get ? "GET" : "SET",
                           shape->name, names[server].said, why);
    double done = small ? (double)load.commands
                        : (double)load.commands * (double)shape->value_bytes / 1e9;
    if (counts)
        wf_bench_add(&bench->series[number][server][get], done / took_s);
    return CLI_OK;
}

/* A round that is not timed first, so that no page of either is touched for the first time. */
static int rounds(struct bench *bench)
{
    int code = CLI_OK;
    for (size_t shape = 0; shape < SHAPES; shape++) {
        struct bench_limit limit = {.pid = -1};
        if (shape < VALUE_SHAPES)
            wf_bench_limit_start(&limit, shapes[shape].value_bytes, WORKING_SET);
        bench->ports[LIMIT] = limit.port;
        for (uint64_t round = 0; round <= wf_bench_options.rounds; round++)
            for (int get = 0; get < 2; get++)
                for (int i = 0; i < SERVERS && code == CLI_OK; i++)
                    code = measure(bench, shape, (enum server)(((uint64_t)i + round) % SERVERS),
                                   get, round > 0);
        wf_bench_limit_stop(&limit);
    }
    return code;
}

static json_t *figure(struct bench *bench, size_t shape, enum server server, bool get, int digits)
{
    return bench->series[shape][server][get].count
               ? wf_cli_json_real(median(bench, shape, server, get), digits)
               : json_null();
}

static void report_json(struct bench *bench)
{
    json_t *out = json_object();
    char key[32];
    for (int server = 0; server < SERVERS; server++)
        for (int get = 0; get < 2; get++) {
            const char *name = get ? names[server].get : names[server].set;
            json_t *values = json_object(), *small = json_object();
            for (size_t i = 0; i < VALUE_SHAPES; i++)
                wf_cli_json_set(values, shapes[i].name,
                                figure(bench, i, (enum server)server, get, 3));
            wf_cli_json_set(small, "one", figure(bench, VALUE_SHAPES, (enum server)server, get, 0));
            wf_cli_json_set(small, "pipelined",
                            figure(bench, VALUE_SHAPES + 1, (enum server)server, get, 0));
            snprintf(key, sizeof key, "%s_gbps", name);
            wf_cli_json_set(out, key, values);
            snprintf(key, sizeof key, "%s_ops_per_s", name);
            if (server != LIMIT)
                wf_cli_json_set(out, key, small);
            else
                json_decref(small);
        }
    wf_cli_json_print(out);
}

static void report(struct bench *bench)
{
    bool redis = bench->ports[REDIS] != 0;
    printf("                          redis      weft                         limit\n");
    for (size_t i = 0; i < SHAPES; i++)
        for (int get = 0; get < 2; get++) {
            double a = median(bench, i, REDIS, get), b = median(bench, i, WEFT, get);
            bool small = i >= VALUE_SHAPES;
            printf("%s %-14s", get ? "GET" : "SET", shapes[i].name);
            if (redis)
                printf(small ? " %12.0f" : " %12.3f", a);
            else
                printf(" %12s", "-");
            printf(small ? " %9.0f a second" : " %9.3f GB/s", b);
            if (redis)
                printf("  %5.2f x", b / a);
            if (!small)
                printf("  %s%9.3f GB/s", redis ? "" : "         ", median(bench, i, LIMIT, get));
            printf("\n");
        }
    if (!redis)
        printf("\nno redis-server is installed; install it (Debian: apt-get install redis-server) "
               "to have its figures beside these\n");
    printf("\nlimit: a server that keeps nothing, for the same client\n");
    wf_cli_node_print(bench->cli, stdout);
}

int wf_bench_resp(struct cli *cli)
{
    struct bench bench = {.cli = cli};
    struct cli_node node;
    struct bench_redis redis;
    char listen[64];
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE,
                           "bench resp starts a node of its own; leave --socket out");
    bench.ports[WEFT] = port_find();
    snprintf(listen, sizeof listen, "resp.listen=127.0.0.1:%u", bench.ports[WEFT]);
    const char *const settings[] = {listen, NULL};
    struct cli_node_plan plan = {
        .pool_bytes = wf_bench_options.pool_bytes != BENCH_UNSAID && wf_bench_options.pool_bytes
                          ? wf_bench_options.pool_bytes
                          : 4 * WORKING_SET,
        .settings = settings,
    };
    int code = wf_cli_node_start(cli, &plan, &node);
    if (code != CLI_OK)
        return code;
    bench.ports[REDIS] = port_find();
    wf_bench_redis_start(&redis, 4 * WORKING_SET, bench.ports[REDIS]);
    if (redis.fd < 0)
        bench.ports[REDIS] = 0;
    code = rounds(&bench);
    if (code == CLI_OK && cli->json)
        report_json(&bench);
    else if (code == CLI_OK)
        report(&bench);
    for (size_t i = 0; i < SHAPES; i++)
        for (int server = 0; server < SERVERS; server++)
            for (int get = 0; get < 2; get++)
                wf_bench_forget(&bench.series[i][server][get]);
    wf_bench_redis_stop(&redis);
    wf_cli_node_stop(&node);
    return code;
}
