/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs in the two emulated machines of test/rdma/run.sh: exposed memory of one host, read and
 * written by the other over verbs.
 *
 *   rdma_guest serve ADDRESS       listens, exposes memory to whoever comes, obeys orders; status 0
 *                                  when it is ordered to end
 *   rdma_guest rw ADDRESS          what is written is what is read, in every size
 *   rdma_guest withdrawn ADDRESS   a handle is worth nothing once its memory was withdrawn, and
 *                                  memory that is exposed in its place has another
 *   rdma_guest killed ADDRESS      the server dies while it is read and written
 *   rdma_guest down ADDRESS        the network goes (eth0) while memory is read and
 * written rdma_guest end ADDRESS         the server ends
 *
 * Exit status 0, or 1 with a sentence.
 */
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../support/random.h"
#include "net/net.h"
#include "sys/clock.h"

#define EXPOSED ((size_t)1 << 20)
#define ACCESSES 24u
#define PATIENCE_MS 100000u
#define DEAD_MS 12000u /* one call of UCX may take seconds here */

#define MUST(condition, ...)                                              \
    do {                                                                  \
        if (!(condition)) {                                               \
            printf("%s:%d: ", __func__, __LINE__);                        \
            printf(__VA_ARGS__);                                          \
            printf(" (%s; last error: %s)\n", sentence, wf_last_error()); \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

enum order { WITHDRAW = 1, DIE, END };

static const struct wf_net_ops *const ops = &wf_net_ucx;
static struct wf_net *net;
static struct wf_net_link *link_up;
static struct wf_net_handle handle; /* of the exposed memory: the server's own, or what it said */
static uint8_t *memory;             /* EXPOSED: exposed, or what is written from and read into */
static uint32_t ups, downs, done, missed, failed, sent, heard;
static bool ordered_to_end;
static char sentence[256] = "no link ended";

/* ---------------------------------------------------------------------------------- the server */

static void said(struct wf_net_message *message, enum weft_status status)
{
    (void)message, (void)status;
    sent++;
}

static void say(struct wf_net_link *link, const void *what, uint32_t bytes)
{
    static struct wf_net_message messages[64];
    static uint8_t headers[64][16];
    static uint32_t next;
    uint32_t i = next++ % 64;
    memcpy(headers[i], what, bytes);
    messages[i] =
        (struct wf_net_message){.header = headers[i], .header_bytes = bytes, .sent = said};
    MUST(ops->send(link, &messages[i]) == WEFT_OK, "send");
}

static void expose(void)
{
    MUST(ops->expose(net, memory, EXPOSED, WF_NET_READ | WF_NET_WRITE, &handle) == WEFT_OK,
         "expose");
}

/* ---------------------------------------------------------------------------------------- both */

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t bytes,
                  const char *name)
{
    (void)hello, (void)bytes, (void)name;
    ups++;
    link_up = link;
    if (context) { /* the server's: who comes may use it, and is told how */
        MUST(ops->grant(link, handle) == WEFT_OK, "grant");
        say(link, &handle, sizeof handle);
    }
    return true;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *why)
{
    (void)context, (void)link, (void)status;
    downs++;
    link_up = NULL;
    snprintf(sentence, sizeof sentence, "%s", why);
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *header,
                         uint32_t bytes, uint64_t payload_bytes, struct iovec *out, void **token)
{
    uint32_t order = 0;
    (void)payload_bytes, (void)out, (void)token;
    if (!context) {
        MUST(bytes == sizeof handle, "a message of %u bytes", bytes);
        memcpy(&handle, header, sizeof handle);
        heard++;
        return 0;
    }
    memcpy(&order, header, bytes < sizeof order ? bytes : sizeof order);
    if (order == DIE)
        kill(getpid(), SIGKILL);
    ordered_to_end = order == END;
    if (order == WITHDRAW) {
        ops->withdraw(net, handle);
        memset(memory, 0x5a, EXPOSED);
        expose();
        MUST(ops->grant(link, handle) == WEFT_OK, "grant");
        say(link, &handle, sizeof handle);
    }
    return 0;
}

static void on_arrived(void *context, struct wf_net_link *link, void *token,
                       enum weft_status status)
{
    (void)context, (void)link, (void)token, (void)status;
}

static void open_net(const char *listens)
{
    struct wf_net_options options = {
        .listen = listens,
        .security = {.proof = WF_NET_PROOF_SECRET, .secret = "a secret of tests"},
        .dead_ms = DEAD_MS,
        .connect_ms = PATIENCE_MS / 2,
        .events = {listens ? &ordered_to_end : NULL, on_up, on_down, on_begun, NULL, on_arrived},
    };
    memory = calloc(1, EXPOSED);
    MUST(memory, "memory");
    MUST(ops->create(&options, &net) == WEFT_OK, "create");
}

static int serve(const char *address)
{
    open_net(address);
    expose();
    while (!ordered_to_end)
        MUST(ops->poll(net, 500) == WEFT_OK, "poll");
    ops->destroy(net);
    return 0;
}

/* ----------------------------------------------------------------------------------- the asker */

static void until(const uint32_t *counter, uint32_t target)
{
    uint64_t end = wf_now_ms() + PATIENCE_MS;
    while (*counter < target && wf_now_ms() < end)
        MUST(ops->poll(net, 20) == WEFT_OK, "poll");
    MUST(*counter == target, "there were %u and not %u", *counter, target);
}

/* Whoever serves may have died just now, and be there again soon. */
static void meet(const char *address)
{
    uint64_t end = wf_now_ms() + PATIENCE_MS;
    uint32_t before = heard;
    for (uint32_t downs_before = downs; !link_up && wf_now_ms() < end;) {
        struct wf_net_link *link;
        MUST(ops->connect(net, address, NULL, &link) == WEFT_OK, "connect");
        for (; downs == downs_before && !link_up && wf_now_ms() < end;)
            MUST(ops->poll(net, 20) == WEFT_OK, "poll");
        for (uint64_t pause = wf_now_ms() + 500; downs > downs_before && wf_now_ms() < pause;)
            (void)ops->poll(net, 100);
        downs_before = downs;
    }
    until(&heard, before + 1);
}

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    (void)access;
    done++;
    missed += status == WEFT_MISS;
    failed += status != WEFT_OK && status != WEFT_MISS;
}

static void begin(bool write, size_t offset, size_t bytes)
{
    static struct wf_net_access accesses[ACCESSES + 1];
    static struct iovec pieces[ACCESSES + 1];
    static uint32_t next;
    uint32_t i = next++ % (ACCESSES + 1);
    pieces[i] = (struct iovec){memory + offset, bytes};
    accesses[i] = (struct wf_net_access){.handle = handle,
                                         .write = write,
                                         .piece_count = 1,
                                         .pieces = &pieces[i],
                                         .offset = offset,
                                         .done = on_done};
    MUST(ops->access(link_up, &accesses[i]) == WEFT_OK, "access");
}

static void fill(uint64_t number)
{
    struct random_source r = {number * RANDOM_STEP};
    for (size_t at = 0; at < EXPOSED; at += 8) {
        uint64_t word = random_next(&r);
        memcpy(memory + at, &word, 8);
    }
}

static int rw(const char *address)
{
    static const size_t sizes[] = {1, 100, 4096, 16384, 16385, 65536, 300001, EXPOSED};
    uint32_t count = sizeof sizes / sizeof sizes[0];
    uint8_t *wrote = malloc(EXPOSED);
    MUST(wrote, "memory");
    meet(address);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t seed = (uint64_t)wf_now_ms();
        size_t at = (EXPOSED - sizes[i]) / 2;
        fill(seed);
        memcpy(wrote, memory, EXPOSED);
        begin(true, at, sizes[i]);
        until(&done, 2 * i + 1);
        memset(memory, 0, EXPOSED);
        begin(false, at, sizes[i]);
        until(&done, 2 * i + 2);
        MUST(failed + missed == 0, "%u failed, %u missed", failed, missed);
        MUST(!memcmp(memory + at, wrote + at, sizes[i]), "%zu bytes came back as others", sizes[i]);
    }
    free(wrote);
    ops->destroy(net);
    return 0;
}

static int withdrawn(const char *address)
{
    uint32_t order = WITHDRAW;
    meet(address);
    struct wf_net_handle old = handle;
    begin(false, 0, EXPOSED);
    until(&done, 1);
    MUST(failed + missed == 0, "it can not be read");
    say(link_up, &order, sizeof order);
    until(&heard, 2);
    MUST(handle.number != old.number || handle.generation != old.generation, "the same handle");
    struct wf_net_handle young = handle;
    handle = old;
    memset(memory, 1, EXPOSED);
    begin(false, 0, 4096);
    begin(true, 0, EXPOSED);
    until(&done, 3);
    MUST(missed == 2 && failed == 0, "%u missed, %u failed", missed, failed);
    MUST(memory[0] == 1 && memory[4095] == 1, "a read that missed wrote");
    handle = young;
    begin(false, 0, EXPOSED);
    until(&done, 4);
    MUST(missed == 2 && failed == 0, "what is exposed anew can not be read");
    for (size_t i = 0; i < EXPOSED; i++)
        MUST(memory[i] == 0x5a, "byte %zu was written after the withdrawal", i);
    ops->destroy(net);
    return 0;
}

static void network(bool up)
{
    struct ifreq request = {.ifr_name = "eth0"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0, "the flags of eth0");
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    MUST(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "eth0 is not switched");
    close(fd);
}

/* Many accesses are on their way when it happens; all of them end, and then the link is down. */
static void broken(const char *what)
{
    uint32_t before = downs; /* whoever was refused at first has had some */
    for (uint32_t i = 0; i < ACCESSES; i++)
        begin(i % 2, 0, EXPOSED);
    until(&done, 1);
    if (!strcmp(what, "killed")) {
        uint32_t order = DIE;
        say(link_up, &order, sizeof order);
    } else {
        network(false);
    }
    uint64_t began = wf_now_ms();
    until(&downs, before + 1);
    printf("down after %u ms, %u of %u were done: %s\n", (unsigned)(wf_now_ms() - began),
           done - failed, ACCESSES, sentence);
    MUST(done == ACCESSES, "only %u ended", done);
    MUST(missed == 0, "%u are told to be none", missed);
    memset(memory, 0x5a, EXPOSED);
    for (int i = 0; i < 20; i++)
        MUST(ops->poll(net, 10) == WEFT_OK, "poll");
    for (size_t i = 0; i < EXPOSED; i++)
        MUST(memory[i] == 0x5a, "byte %zu was written after all was over", i);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 3)
        return 2;
    const char *what = argv[1];
    if (!strcmp(what, "serve"))
        return serve(argv[2]);
    open_net(NULL);
    if (!strcmp(what, "rw"))
        return rw(argv[2]);
    if (!strcmp(what, "withdrawn"))
        return withdrawn(argv[2]);
    meet(argv[2]);
    if (!strcmp(what, "killed") || !strcmp(what, "down")) {
        broken(what);
        if (!strcmp(what, "down"))
            network(true);
    } else if (!strcmp(what, "end")) {
        uint32_t order = END, before = downs;
        say(link_up, &order, sizeof order);
        until(&downs, before + 1);
    } else {
        return 2;
    }
    ops->destroy(net);
    return 0;
}
