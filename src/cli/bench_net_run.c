/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench net: a requester and a responder, each a process with a net of its own.
 *
 * Blocks lie in memory of many times the caches' size, as they do in a pool, and their sums beside
 * them, as a node has them since the block was committed.  A block that is got or put is summed
 * where it arrives, slice by slice, as the net tells of them; the time of a figure ends when the
 * last one was found right.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>
#if WF_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#include "cli/bench_net.h"

#define SMALL_BYTES 65536u
#define PINGS_AT_MOST 20000
#define PATIENCE_S 20.0

enum op { OP_GET, OP_DATA, OP_PUT, OP_DONE };

struct header {
    uint32_t op;
    uint32_t slot; /* of the requester's window */
    uint64_t block, bytes, sum;
};

/* A message on its way out, and the block that is on its way in for a slot. */
struct slot {
    struct wf_net_message message;
    struct header header;
    struct iovec piece;
    bool sending;
};
struct arriving {
    uint8_t *memory;
    uint64_t bytes, summed, expected, block;
    uint32_t number;
    bool put;
    XXH3_state_t *sum;
};

struct side {
    const struct bench_net_job *job;
    struct wf_net *net;
    struct wf_net_link *link;
    bool up, down;
    uint8_t *memory;
    uint64_t *sums, *small_sums;
    struct slot slots[2 * BENCH_NET_WINDOW];
    struct arriving arriving[2 * BENCH_NET_WINDOW];
    /* Of the requester, for the figure that is being measured. */
    enum op op;
    uint32_t out;
    uint64_t bytes, next, done;
    double until_s, finished_s;
    struct bench_series *latencies;
    char why[256];
};

static void fails(struct side *side, const char *why)
{
    if (!side->why[0])
        snprintf(side->why, sizeof side->why, "%s", why);
}

static uint64_t blocks_of(const struct side *side, uint64_t bytes)
{
    return side->job->block_bytes * side->job->blocks / bytes;
}

/* ----------------------------------------------------------------------------------- messages */

static void on_sent(struct wf_net_message *message, enum weft_status status)
{
    (void)status;
    ((struct slot *)message->user)->sending = false;
}

static struct slot *slot_free(struct side *side)
{
    for (uint32_t i = 0; i < 2 * BENCH_NET_WINDOW; i++)
        if (!side->slots[i].sending)
            return &side->slots[i];
    return NULL;
}

static void say(struct side *side, enum op op, uint32_t number, uint64_t block, uint64_t bytes)
{
    struct slot *slot = slot_free(side);
    bool payload = op == OP_DATA || op == OP_PUT;
    if (!slot) {
        fails(side, "more messages are out than were asked for");
        return;
    }
    slot->header = (struct header){.op = op, .slot = number, .block = block, .bytes = bytes};
    if (payload && bytes)
        slot->header.sum = (bytes == SMALL_BYTES ? side->small_sums : side->sums)[block];
    slot->piece = (struct iovec){side->memory + block * bytes, bytes};
    slot->message = (struct wf_net_message){.header = &slot->header,
                                            .header_bytes = sizeof slot->header,
                                            .piece_count = payload && bytes,
                                            .pieces = &slot->piece,
                                            .sent = on_sent,
                                            .user = slot};
    slot->sending = side->job->ops->send(side->link, &slot->message) == WEFT_OK;
    if (!slot->sending)
        fails(side, "a message was not taken");
}

static double asked_s[BENCH_NET_WINDOW];

/* The requester's next, as long as there is time. */
static void ask(struct side *side, uint32_t number, double now_s)
{
    uint64_t blocks = side->bytes ? blocks_of(side, side->bytes) : 1;
    if (now_s >= side->until_s || (side->latencies && side->latencies->count > PINGS_AT_MOST))
        return;
    asked_s[number] = now_s;
    side->out++;
    say(side, side->op, number, side->next++ % blocks, side->bytes);
}

static void answered(struct side *side, uint32_t number)
{
    double now_s = wf_cli_now_s();
    side->out--;
    side->done++;
    side->finished_s = now_s;
    if (side->latencies)
        wf_bench_add(side->latencies, (now_s - asked_s[number]) * 1e6);
    ask(side, number, now_s);
}

/* ------------------------------------------------------------------------------------- events */

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    struct side *side = context;
    (void)hello, (void)hello_bytes, (void)name;
    side->link = link;
    side->up = true;
    return true;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    struct side *side = context;
    (void)link, (void)status;
    side->down = true;
    fails(side, sentence);
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *bytes,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    struct side *side = context;
    struct header header;
    (void)link;
    if (header_bytes != sizeof header)
        return 0;
    memcpy(&header, bytes, sizeof header);
    if (header.slot >= BENCH_NET_WINDOW)
        return 0;
    if (header.op == OP_GET)
        say(side, OP_DATA, header.slot, header.block, header.bytes);
    else if (!payload_bytes && header.op == OP_PUT)
        say(side, OP_DONE, header.slot, header.block, 0);
    else if (!payload_bytes)
        answered(side, header.slot);
    if (!payload_bytes ||
        (header.block + 1) * header.bytes > side->job->block_bytes * side->job->blocks)
        return 0;
    struct arriving *arriving = &side->arriving[header.slot];
    arriving->memory = side->memory + header.block * header.bytes;
    arriving->bytes = payload_bytes;
    arriving->summed = 0;
    arriving->expected = header.sum;
    arriving->block = header.block;
    arriving->number = header.slot;
    arriving->put = header.op == OP_PUT;
    XXH3_64bits_reset(arriving->sum);
    out[0] = (struct iovec){arriving->memory, payload_bytes};
    *out_token = arriving;
    return 1;
}

static void on_progress(void *context, struct wf_net_link *link, void *token, uint64_t bytes)
{
    const struct side *side = context;
    struct arriving *arriving = token;
    (void)link;
    if (!side->job->bare)
        XXH3_64bits_update(arriving->sum, arriving->memory + arriving->summed,
                           bytes - arriving->summed);
    arriving->summed = bytes;
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    struct side *side = context;
    struct arriving *arriving = token;
    if (status != WEFT_OK)
        return;
    if (arriving->summed < arriving->bytes)
        on_progress(context, link, token, arriving->bytes);
    if (!side->job->bare && XXH3_64bits_digest(arriving->sum) != arriving->expected)
        fails(side, "a block arrived that is not what was sent");
    else if (arriving->put)
        say(side, OP_DONE, arriving->number, arriving->block, 0);
    else
        answered(side, arriving->number);
}

/* -------------------------------------------------------------------------------------- sides */

static bool side_begin(struct side *side, const char *listen, bool fill)
{
    const struct bench_net_job *job = side->job;
    uint64_t bytes = job->block_bytes * job->blocks, small = blocks_of(side, SMALL_BYTES);
    struct wf_net_options options = {
        .listen = listen,
        .security = {.proof = WF_NET_PROOF_SECRET, .secret = "weft bench net"},
        .streams = job->streams,
        .events = {side, on_up, on_down, on_begun, on_progress, on_arrived},
    };
    side->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (side->memory == MAP_FAILED || job->ops->create(&options, &side->net) != WEFT_OK)
        return false;
    madvise(side->memory, bytes, MADV_HUGEPAGE); /* as a pool has them */
    job->ops->memory(side->net, side->memory, bytes);
    for (uint64_t i = 0; i < bytes / 8; i++)
        ((uint64_t *)(void *)side->memory)[i] = (i + 1) * 0x9e3779b97f4a7c15u ^ fill;
    for (uint32_t i = 0; i < BENCH_NET_WINDOW; i++)
        if (!(side->arriving[i].sum = XXH3_createState()))
            return false;
    side->sums = wf_cli_alloc(job->blocks * sizeof *side->sums);
    side->small_sums = wf_cli_alloc((small + 1) * sizeof *side->small_sums);
    for (uint64_t i = 0; i < job->blocks; i++)
        side->sums[i] = XXH3_64bits(side->memory + i * job->block_bytes, job->block_bytes);
    for (uint64_t i = 0; i < small; i++)
        side->small_sums[i] = XXH3_64bits(side->memory + i * SMALL_BYTES, SMALL_BYTES);
    return true;
}

/* Serves until it is killed. */
static void responder(const struct bench_net_bed *bed, const struct bench_net_job *job, int out)
{
    struct side side = {.job = job};
    char listen[WF_NET_ADDRESS_MAX] = "";
    wf_bench_net_enter(bed, 1);
    snprintf(listen, sizeof listen, "%s:%s:0", job->scheme, bed->addresses[1]);
    if (side_begin(&side, listen, true))
        snprintf(listen, sizeof listen, "%s", job->ops->address(side.net));
    else
        snprintf(listen, sizeof listen, "!%s", wf_last_error());
    if (write(out, listen, sizeof listen) != (ssize_t)sizeof listen || listen[0] == '!')
        _exit(1);
    while (job->ops->poll(side.net, 1000) == WEFT_OK && !side.down)
        ;
    _exit(0);
}

static double measure(struct side *side, enum op op, uint64_t bytes, uint32_t window,
                      struct bench_series *latencies)
{
    double began_s = wf_cli_now_s();
    side->op = op;
    side->bytes = bytes;
    side->latencies = latencies;
    side->done = 0;
    side->until_s = began_s + side->job->seconds;
    for (uint32_t i = 0; i < window; i++)
        ask(side, i, began_s);
    while (side->out && !side->why[0]) {
        if (side->job->ops->poll(side->net, 100) != WEFT_OK)
            fails(side, "the net failed");
        if (wf_cli_now_s() > side->until_s + PATIENCE_S)
            fails(side, "an answer did not come");
    }
    side->latencies = NULL;
    return (double)(side->done * bytes) / (side->finished_s - began_s) / 1e9;
}

static void requester_run(struct side *side, struct bench_net_figures *out)
{
    struct bench_series series = {0};
    uint64_t bytes = side->job->block_bytes;
    /* Untimed first: no page and no buffer is touched for the first time later. */
    measure(side, OP_GET, bytes, BENCH_NET_WINDOW, NULL);
    out->get_gbps = measure(side, OP_GET, bytes, BENCH_NET_WINDOW, NULL);
    if (side->job->get_alone)
        return;
    out->put_gbps = measure(side, OP_PUT, bytes, BENCH_NET_WINDOW, NULL);
    measure(side, OP_GET, SMALL_BYTES, 1, &series);
    out->get_64k_us_p50 = wf_bench_at(&series, 0.5);
    out->get_64k_us_p99 = wf_bench_at(&series, 0.99);
    series.count = 0;
    measure(side, OP_PUT, 0, 1, &series);
    out->ping_us_p50 = wf_bench_at(&series, 0.5);
    wf_bench_forget(&series);
}

static void requester(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      const char *to, int out)
{
    static struct side side;
    struct bench_net_figures figures = {0};
    struct wf_net_stats stats;
    double until_s = wf_cli_now_s() + PATIENCE_S;
    side.job = job;
    wf_bench_net_enter(bed, 0);
    if (!side_begin(&side, NULL, true) ||
        job->ops->connect(side.net, to, NULL, &side.link) != WEFT_OK)
        fails(&side, wf_last_error());
    while (!side.why[0] && !side.up && wf_cli_now_s() < until_s)
        if (job->ops->poll(side.net, 100) != WEFT_OK)
            fails(&side, "the net failed");
    if (!side.why[0] && side.up) {
        requester_run(&side, &figures);
        job->ops->stats(side.net, &stats);
        figures.zero_copy = stats.zero_copy;
    }
    snprintf(figures.why, sizeof figures.why, "%s", side.why);
    if (write(out, &figures, sizeof figures) != (ssize_t)sizeof figures)
        _exit(1);
    _exit(0);
}

static bool read_whole(int fd, void *to, size_t bytes)
{
    size_t got = 0;
    while (got < bytes) {
        ssize_t some = read(fd, (char *)to + got, bytes - got);
        if (some <= 0 && errno != EINTR)
            return false;
        got += some > 0 ? (size_t)some : 0;
    }
    return true;
}

static pid_t side_fork(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

void wf_bench_net_run(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      struct bench_net_figures *out)
{
    char to[WF_NET_ADDRESS_MAX];
    int listens[2], measured[2];
    memset(out, 0, sizeof *out);
    snprintf(out->why, sizeof out->why, "its processes could not be started");
    if (pipe2(listens, O_CLOEXEC) != 0)
        return;
    if (pipe2(measured, O_CLOEXEC) != 0) {
        close(listens[0]);
        close(listens[1]);
        return;
    }
    fflush(NULL);
    pid_t serving = side_fork(), asking = -1;
    if (serving == 0)
        responder(bed, job, listens[1]);
    close(listens[1]);
    if (serving > 0 && read_whole(listens[0], to, sizeof to)) {
        if (to[0] == '!')
            snprintf(out->why, sizeof out->why, "%s", to + 1);
        else if ((asking = side_fork()) == 0)
            requester(bed, job, to, measured[1]);
    }
    close(measured[1]);
    if (asking > 0 && !read_whole(measured[0], out, sizeof *out))
        snprintf(out->why, sizeof out->why, "the requester died");
    close(listens[0]);
    close(measured[0]);
    wf_bench_net_end(asking);
    wf_bench_net_end(serving);
}
