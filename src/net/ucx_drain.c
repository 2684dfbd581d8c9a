/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of an endpoint over UCX's own TCP.
 *
 * Closed by force while its connection has something left to send, an endpoint of UCX 1.13 leaves
 * that connection behind, to send the rest and then a word of farewell; when the other side's
 * farewell comes in before that, UCX frees the connection and goes on using it.  And for that word
 * it waits in a loop, until there is room.  So no endpoint is closed while a connection of the
 * net's may be in the middle of sending:
 *
 *   - A connection is in the middle when UCX waits for it to be writable, or it is not writable.
 *     Where none is, an endpoint is closed at once.
 *   - Otherwise UCX is asked to flush the endpoint, with which a peer that is well is done soon:
 *     then this link's is none of them.
 *   - Meanwhile those that are stuck are shut down on this side, as if the peer had died, and that
 *     UCX does right: it fails the endpoint and completes what was begun.  Stuck is what has had
 *     something to send and did not get on for half of dead_ms.
 *   - After dead_ms, or when the net itself goes, all that are in the middle are shut down.  There
 *     may be other links' among them, which are made anew then; a link ends in bounded time.
 *
 * UCX tells nobody its connections, but waits for them with epoll, and the kernel tells what an
 * epoll waits for: /proc/self/fdinfo.  Where there is no /proc, endpoints are closed at once.
 *
 * On the net's thread, where UCX, too, sends and closes: what is seen here holds until UCX is
 * called again.
 */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/ucx.h"
#include "sys/clock.h"

#define LOOK_MS 10u
#define EPOLL_DEPTH 2 /* a worker's has its devices', which have connections */

enum cut { CUT_NONE, CUT_STUCK, CUT_ALL };

/* Something is to be sent, and does not get on: nothing was sent, or nothing acknowledged. */
static bool is_stuck(const struct tcp_info *info, uint32_t ms)
{
    return (info->tcpi_notsent_bytes || info->tcpi_unacked) &&
           (info->tcpi_last_data_sent > ms || info->tcpi_last_ack_recv > ms);
}

static bool in_the_middle(int fd, uint32_t waits_for)
{
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return (waits_for & EPOLLOUT) || poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT);
}

/* Whether any connection below this epoll is in the middle of sending; those are cut as said. */
static bool look(const struct wf_net *net, int epoll, enum cut cut, uint32_t depth)
{
    char path[64], line[256];
    bool middle = false;
    uint32_t waits_for;
    int fd;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epoll);
    FILE *file = fopen(path, "re");
    if (!file)
        return true; /* nobody knows */
    while (fgets(line, sizeof line, file)) {
        struct tcp_info info = {0};
        socklen_t bytes = sizeof info;
        if (sscanf(line, "tfd: %d events: %x", &fd, &waits_for) != 2)
            continue;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) {
            if (depth < EPOLL_DEPTH && errno == ENOTSOCK)
                middle |= look(net, fd, cut, depth + 1);
        } else if (in_the_middle(fd, waits_for)) {
            middle = true;
            if (cut == CUT_ALL || (cut == CUT_STUCK && is_stuck(&info, net->options.dead_ms / 2)))
                shutdown(fd, SHUT_RDWR);
        }
    }
    fclose(file);
    return middle;
}

bool wf_ucx_drain_works(void)
{
    return access("/proc/self/fdinfo", R_OK | X_OK) == 0;
}

static void flushed(void *request, ucs_status_t status, void *user)
{
    struct wf_net_link *link = user;
    (void)status;
    link->drained = true;
    wf_ucx_request_done(link, request);
}

static void flush(struct wf_net_link *link)
{
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.send = flushed,
        .user_data = link,
    };
    bool waits = UCS_PTR_IS_PTR(link->net->lib->ucp_ep_flush_nbx(link->endpoint, &param));
    link->drained = !waits;
    link->in_flight += waits;
    link->net->in_flight += waits;
}

bool wf_ucx_drained(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    uint64_t now_ms = wf_now_ms();
    if (!net->drains || !link->announced)
        return true;
    if (!link->drain_from_ms) {
        if (!look(net, net->ucx_event, CUT_NONE, 1))
            return true;
        link->drain_from_ms = now_ms;
        net->lingering++;
        flush(link);
    }
    if (link->drained)
        return true;
    uint64_t for_ms = now_ms - link->drain_from_ms;
    if (for_ms > 2ull * net->options.dead_ms) {
        wf_error("ucx", "UCX does not finish with %s, whose connections were shut down",
                 link->peer);
        return true;
    }
    if (now_ms - net->drain_looked_ms < LOOK_MS && !net->destroying)
        return false;
    net->drain_looked_ms = now_ms;
    bool all = net->destroying || for_ms > net->options.dead_ms;
    return !look(net, net->ucx_event, all ? CUT_ALL : CUT_STUCK, 1);
}
