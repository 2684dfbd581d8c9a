/* SPDX-License-Identifier: Apache-2.0
 *
 * A network between network namespaces of one machine, with faults: an emulation, for tests where
 * the kernel has no netem.
 *
 *     wire --seed N [--mtu BYTES] NAME=NAMESPACE …        up to 32 hosts
 *
 * It makes a TAP device `weft0` in each namespace (/run/netns/NAMESPACE), holds them all, and
 * passes Ethernet frames between them as a switch would, each direction between two hosts being a
 * link with faults of its own (wire_link.h).  Host number n, from 1, has the hardware address
 * 02:77:65:66:74:n.  Addresses, routes and `up` are the caller's to set.  The devices go when it
 * ends.
 *
 * It says `ready` and then answers each line on its standard input with one line: `ok`, an answer
 * in JSON, or `error: ` and a sentence.  At the end of its input it ends.  A link is FROM>TO, both
 * directions are A<>B, and `*` is every host:
 *
 *     delay a>b 20ms 5ms      later by 20 to 25 ms, in order
 *     loss a<>b 5%            duplicate a>b 1%
 *     reorder a>b 5% 10ms     these come 10 ms later, behind others
 *     rate a>b 10MB 100ms     bytes a second, and the queue before them
 *     corrupt a>b 1% [sly]    sly: TCP's and UDP's checksums do not tell
 *     cut a<>*                nothing passes; what is on its way is lost, too
 *     heal a<>*               undoes cut
 *     clear *<>*              undoes everything
 *     stats                   {"links":[{"from":"a","to":"b","frames":…}]}
 *
 * One thread.  What is read is put into a heap by when it is due, and written when that is: a frame
 * without faults passes through it too, so nothing overtakes.  Up to FRAMES_MAX are held; beyond,
 * frames are lost and counted as `overflowed`.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire_link.h"

#define HOSTS_MAX 32
#define NAME_MAX_BYTES 32
#define FRAMES_MAX 32768u
#define BATCH 64 /* frames of one host before the others' turn */
#define MTU_MAX 9000
#define FRAME_EXTRA 18u /* Ethernet's header, with a VLAN's tag */
#define LINE_MAX_BYTES 256
#define WORDS_MAX 6

struct host {
    char name[NAME_MAX_BYTES];
    int tap;
};

struct wire {
    struct host hosts[HOSTS_MAX];
    int host_count;
    struct wire_link links[HOSTS_MAX][HOSTS_MAX]; /* [from][to] */
    struct wire_heap heap;
    uint8_t *frames; /* FRAMES_MAX of `stride` bytes; pages that were never used take no memory */
    size_t stride;
    uint32_t *free, free_count; /* the last that was given back goes first: fewer pages are used */
    uint16_t *lengths;
    char line[LINE_MAX_BYTES];
    size_t line_bytes;
    bool end;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void give_up(const char *what)
{
    fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ------------------------------------------------------------------------------------ devices */

static int open_tap(const char *namespace, int number)
{
    char path[128];
    snprintf(path, sizeof path, "/run/netns/%s", namespace);
    const int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET) != 0)
        give_up(path);
    close(space);
    /* A TAP is made where its descriptor was opened. */
    const int tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tap < 0)
        give_up("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(request.ifr_name, sizeof request.ifr_name, "weft0");
    if (ioctl(tap, TUNSETIFF, &request) != 0)
        give_up("weft0");
    const uint8_t address[6] = {0x02, 'w', 'e', 'f', 't', (uint8_t)number};
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request.ifr_hwaddr.sa_data, address, sizeof address);
    if (ioctl(tap, SIOCSIFHWADDR, &request) != 0)
        give_up("the address of weft0");
    return tap;
}

static void open_hosts(struct wire *wire, int count, char *const words[])
{
    const int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < count; i++) {
        struct host *host = &wire->hosts[i];
        const char *equals = strchr(words[i], '=');
        const size_t bytes = equals ? (size_t)(equals - words[i]) : 0;
        if (bytes == 0 || bytes >= sizeof host->name) {
            fprintf(stderr, "wire: '%s' is no host: NAME=NAMESPACE, the name up to %d bytes\n",
                    words[i], NAME_MAX_BYTES - 1);
            exit(2);
        }
        memcpy(host->name, words[i], bytes);
        host->tap = open_tap(equals + 1, i + 1);
        wire->host_count++;
    }
    if (home < 0 || setns(home, CLONE_NEWNET) != 0)
        give_up("the namespace that it began in");
    close(home);
}

static void make_room(struct wire *wire, size_t mtu)
{
    wire->stride = (mtu + FRAME_EXTRA + 63) / 64 * 64;
    wire->frames = mmap(NULL, FRAMES_MAX * wire->stride, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    wire->free = calloc(FRAMES_MAX, sizeof *wire->free);
    wire->lengths = calloc(FRAMES_MAX, sizeof *wire->lengths);
    wire->heap.entries = calloc(FRAMES_MAX, sizeof *wire->heap.entries);
    wire->heap.capacity = FRAMES_MAX;
    if (wire->frames == MAP_FAILED || !wire->free || !wire->lengths || !wire->heap.entries)
        give_up("memory for frames");
    for (uint32_t i = 0; i < FRAMES_MAX; i++)
        wire->free[wire->free_count++] = FRAMES_MAX - 1 - i;
}

/* ------------------------------------------------------------------------------------- frames */

static uint8_t *frame_at(struct wire *wire, uint32_t frame)
{
    return wire->frames + frame * wire->stride;
}

/* A copy of the frame for one link, as its faults have it. */
static void send_one(struct wire *wire, int from, int to, const uint8_t *bytes, size_t length,
                     uint64_t now)
{
    struct wire_link *link = &wire->links[from][to];
    const struct wire_fate fate = wire_link_decide(link, now, length);
    for (uint32_t i = 0; i < fate.copies; i++) {
        if (wire->free_count == 0) {
            link->counts.overflowed++;
            return;
        }
        const uint32_t frame = wire->free[--wire->free_count];
        memcpy(frame_at(wire, frame), bytes, length);
        wire->lengths[frame] = (uint16_t)length;
        if (fate.corrupt &&
            wire_frame_damage(frame_at(wire, frame), length, fate.where, link->faults.sly))
            link->counts.corrupted++;
        wire_heap_add(&wire->heap, (struct wire_due){.due_ns = fate.due_ns,
                                                     .frame = frame,
                                                     .from = (uint16_t)from,
                                                     .to = (uint16_t)to});
    }
}

static void send_to_all(struct wire *wire, int from, const uint8_t *bytes, size_t length,
                        uint64_t now)
{
    const bool everybody = bytes[0] & 1;
    for (int to = 0; to < wire->host_count; to++)
        if (to != from && (everybody || bytes[5] == to + 1))
            send_one(wire, from, to, bytes, length, now);
}

static void read_frames(struct wire *wire, int from)
{
    uint8_t bytes[MTU_MAX + FRAME_EXTRA];
    const uint64_t now = now_ns();
    for (int i = 0; i < BATCH; i++) {
        const ssize_t length = read(wire->hosts[from].tap, bytes, wire->stride);
        if (length < 14)
            return; /* none is left; or the device is down, as it is in the beginning */
        send_to_all(wire, from, bytes, (size_t)length, now);
    }
}

static void deliver_due(struct wire *wire)
{
    const uint64_t now = now_ns();
    while (wire->heap.count && wire->heap.entries[0].due_ns <= now) {
        const struct wire_due due = wire_heap_take(&wire->heap);
        struct wire_link *link = &wire->links[due.from][due.to];
        const uint64_t late_us = (now - due.due_ns) / 1000;
        const size_t length = wire->lengths[due.frame];
        if (link->faults.cut)
            link->counts.cut++;
        else if (write(wire->hosts[due.to].tap, frame_at(wire, due.frame), length) < 0)
            link->counts.overflowed++; /* the device is down, or has no room */
        else
            link->counts.delivered++;
        if (late_us > link->counts.late_us_max)
            link->counts.late_us_max = late_us;
        wire->free[wire->free_count++] = due.frame;
    }
}

/* ----------------------------------------------------------------------------------- commands */

static void say_stats(const struct wire *wire)
{
    const char *comma = "";
    printf("{\"links\":[");
    for (int from = 0; from < wire->host_count; from++)
        for (int to = 0; to < wire->host_count; to++) {
            const struct wire_counts *c = &wire->links[from][to].counts;
            if (from == to)
                continue;
            printf(
                "%s{\"from\":\"%s\",\"to\":\"%s\",\"frames\":%llu,\"bytes\":%llu,"
                "\"delivered\":%llu,\"lost\":%llu,\"cut\":%llu,\"overflowed\":%llu,"
                "\"duplicated\":%llu,\"reordered\":%llu,\"corrupted\":%llu,\"late_us_max\":%llu}",
                comma, wire->hosts[from].name, wire->hosts[to].name, (unsigned long long)c->frames,
                (unsigned long long)c->bytes, (unsigned long long)c->delivered,
                (unsigned long long)c->lost, (unsigned long long)c->cut,
                (unsigned long long)c->overflowed, (unsigned long long)c->duplicated,
                (unsigned long long)c->reordered, (unsigned long long)c->corrupted,
                (unsigned long long)c->late_us_max);
            comma = ",";
        }
    printf("],\"waiting\":%u}\n", wire->heap.count);
}

static bool is_host(const struct wire *wire, int number, const char *name)
{
    return strcmp(name, "*") == 0 || strcmp(name, wire->hosts[number].name) == 0;
}

/* Apply to every link that `from` and `to` name; how many these are. */
static int change_links(struct wire *wire, const char *from, const char *to, int count,
                        char *const words[])
{
    int links = 0;
    for (int a = 0; a < wire->host_count; a++)
        for (int b = 0; b < wire->host_count; b++)
            if (a != b && is_host(wire, a, from) && is_host(wire, b, to)) {
                (void)wire_faults_change(&wire->links[a][b].faults, count, words);
                links++;
            }
    return links;
}

/* WORD LINK [WORD …]: NULL, or a sentence. */
static const char *change(struct wire *wire, int count, char *words[])
{
    struct wire_faults tried = {.cut = false};
    char *from = count >= 2 ? words[1] : NULL;
    char *arrow = from ? strpbrk(from, "<>") : NULL;
    if (!arrow)
        return "say which link: FROM>TO, or A<>B for both directions, `*` for every host";
    const bool both = arrow[0] == '<';
    const char *to = arrow + 1 + both;
    if (both && arrow[1] != '>')
        return "a link is FROM>TO or A<>B";
    *arrow = '\0';
    char *rest[WORDS_MAX] = {words[0]};
    for (int i = 2; i < count; i++)
        rest[i - 1] = words[i];
    const char *complaint = wire_faults_change(&tried, count - 1, rest);
    if (complaint)
        return complaint;
    const int links = change_links(wire, from, to, count - 1, rest) +
                      (both ? change_links(wire, to, from, count - 1, rest) : 0);
    return links ? NULL : "no two hosts have these names";
}

static void obey(struct wire *wire, char *line)
{
    char *words[WORDS_MAX], *rest = NULL;
    int count = 0;
    for (char *word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (count == WORDS_MAX) {
            count = 0;
            break;
        }
        words[count++] = word;
    }
    const char *complaint = NULL;
    if (count == 1 && strcmp(words[0], "stats") == 0) {
        say_stats(wire);
        return;
    }
    complaint = count ? change(wire, count, words) : "a line has one to six words";
    if (complaint)
        printf("error: %s\n", complaint);
    else
        printf("ok\n");
}

static void read_commands(struct wire *wire)
{
    const ssize_t got = read(STDIN_FILENO, wire->line + wire->line_bytes,
                             sizeof wire->line - 1 - wire->line_bytes);
    if (got <= 0) {
        wire->end = true;
        return;
    }
    wire->line_bytes += (size_t)got;
    wire->line[wire->line_bytes] = '\0';
    char *line = wire->line, *newline;
    while ((newline = strchr(line, '\n'))) {
        *newline = '\0';
        obey(wire, line);
        line = newline + 1;
    }
    wire->line_bytes = strlen(line);
    memmove(wire->line, line, wire->line_bytes + 1);
    if (wire->line_bytes == sizeof wire->line - 1) {
        printf("error: a line has up to %d bytes\n", LINE_MAX_BYTES - 2);
        wire->line_bytes = 0;
    }
    fflush(stdout);
}

/* --------------------------------------------------------------------------------------- main */

static void run(struct wire *wire)
{
    struct pollfd waits[HOSTS_MAX + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
    for (int i = 0; i < wire->host_count; i++)
        waits[i + 1] = (struct pollfd){.fd = wire->hosts[i].tap, .events = POLLIN};
    while (!wire->end) {
        struct timespec timeout = {.tv_sec = 0};
        if (wire->heap.count) {
            const uint64_t now = now_ns(), due = wire->heap.entries[0].due_ns;
            const uint64_t wait = due > now ? due - now : 0;
            timeout.tv_sec = (time_t)(wait / 1000000000u);
            timeout.tv_nsec = (long)(wait % 1000000000u);
        }
        const nfds_t count = (nfds_t)wire->host_count + 1;
        if (ppoll(waits, count, wire->heap.count ? &timeout : NULL, NULL) < 0) {
            if (errno != EINTR)
                give_up("ppoll");
            continue;
        }
        for (int i = 0; i < wire->host_count; i++)
            if (waits[i + 1].revents & POLLIN)
                read_frames(wire, i);
        deliver_due(wire);
        if (waits[0].revents)
            read_commands(wire);
    }
}

int main(int count, char *words[])
{
    static struct wire wire;
    uint64_t seed = 1;
    unsigned long mtu = 1500;
    int at = 1;
    for (; at + 1 < count && strncmp(words[at], "--", 2) == 0; at += 2) {
        if (strcmp(words[at], "--seed") == 0)
            seed = strtoull(words[at + 1], NULL, 0);
        else if (strcmp(words[at], "--mtu") == 0)
            mtu = strtoul(words[at + 1], NULL, 0);
        else
            break;
    }
    const int hosts = count - at;
    if (hosts < 1 || hosts > HOSTS_MAX || mtu < 576 || mtu > MTU_MAX) {
        fprintf(stderr, "wire --seed N [--mtu 576…%d] NAME=NAMESPACE … (1 to %d hosts)\n", MTU_MAX,
                HOSTS_MAX);
        return 2;
    }
    make_room(&wire, mtu);
    open_hosts(&wire, hosts, words + at);
    for (int a = 0; a < hosts; a++)
        for (int b = 0; b < hosts; b++)
            wire_link_init(&wire.links[a][b], seed, wire.hosts[a].name, wire.hosts[b].name);
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* the kernel would wake us up to 50 us late */
    printf("ready\n");
    fflush(stdout);
    run(&wire);
    return 0;
}
