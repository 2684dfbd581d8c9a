/* SPDX-License-Identifier: Apache-2.0
 *
 * CLIENT LIST: a line a connection, of every lane.
 *
 * Nobody but its lane looks at a connection.  So a list goes from lane to lane, each adds the lines
 * of its own when it comes round to it, and the last one hands it back to where it was asked for;
 * the connection that asked waits meanwhile, as for blocks from below.  One that ends forgets its
 * list, which is let go of when it is back; what is under way when the gateway stops, the lane that
 * has it lets go of.  A connection has one list at a time, and that has no more lines than there
 * may be clients (resp.clients).
 */
#include <stdio.h>
#include <stdlib.h>

#include "gateway/resp_inner.h"
#include "sys/memory.h"

#define LINE_BYTES ((size_t)512)

struct wf_resp_list {
    struct wf_resp_list *next;
    struct wf_resp_lane *home;
    struct wf_resp_conn *conn; /* home's; NULL: it has ended */
    uint32_t lanes;            /* that added theirs, from home on */
    bool failed;               /* no memory */
    char *text;
    size_t used, room;
};

int wf_resp_client_line(const struct wf_resp_conn *conn, char *out, size_t room)
{
    int length = snprintf(
        out, room,
        "id=%llu addr=%s fd=%d name=%s age=%llu idle=%llu flags=N db=%u qbuf=%zu obl=%zu resp=%u "
        "lib-name=%s user=default\n",
        (unsigned long long)conn->id, conn->peer, conn->fd, conn->name,
        (unsigned long long)(conn->lane->now_ms - conn->born_ms) / 1000,
        (unsigned long long)(conn->lane->now_ms - conn->active_ms) / 1000, conn->database,
        conn->head_bytes, conn->out.used, conn->protocol, conn->library);
    return length > 0 && (size_t)length < room ? length : 0;
}

static void list_free(struct wf_resp_list *list)
{
    free(list->text);
    free(list);
}

/* Lane's thread: its connections. */
static void list_add(struct wf_resp_list *list, const struct wf_resp_lane *lane)
{
    for (struct wf_resp_conn *c = lane->conns; c && !list->failed; c = c->next) {
        if (list->room - list->used < LINE_BYTES) {
            size_t room = list->room ? 2 * list->room : 8 * LINE_BYTES;
            char *more = wf_realloc(list->text, room, "a list of clients");
            list->failed = more == NULL;
            if (!more)
                return;
            list->text = more;
            list->room = room;
        }
        list->used += (size_t)wf_resp_client_line(c, list->text + list->used, LINE_BYTES);
    }
}

/* To the next lane, or home. */
static void list_hand_on(struct wf_resp_list *list)
{
    struct wf_resp *resp = list->home->resp;
    struct wf_resp_lane *to = &resp->lanes[(list->home->number + ++list->lanes) % resp->lane_count];
    pthread_mutex_lock(&to->lock);
    list->next = to->lists;
    to->lists = list;
    pthread_mutex_unlock(&to->lock);
    wf_resp_lane_wake(to);
}

void wf_resp_lane_listed(struct wf_resp_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    struct wf_resp_list *list = lane->lists;
    lane->lists = NULL;
    pthread_mutex_unlock(&lane->lock);
    for (struct wf_resp_list *next; list; list = next) {
        next = list->next;
        if (list->lanes < lane->resp->lane_count) {
            list_add(list, lane);
            list_hand_on(list);
        } else if (list->conn) {
            wf_resp_conn_loaded(list->conn);
        } else {
            list_free(list);
        }
    }
}

void wf_resp_lists_drop(struct wf_resp_lane *lane)
{
    while (lane->lists) {
        struct wf_resp_list *list = lane->lists;
        lane->lists = list->next;
        list_free(list);
    }
}

/* While it is under way it is left to whoever has it. */
void wf_resp_list_forget(struct wf_resp_conn *conn)
{
    if (!conn->list)
        return;
    if (conn->waiting)
        conn->list->conn = NULL;
    else
        list_free(conn->list);
    conn->list = NULL;
}

enum wf_resp_done wf_resp_client_list(struct wf_resp_conn *conn)
{
    if (!conn->list) {
        struct wf_resp_list *list = wf_calloc(1, sizeof *list, "a list of clients");
        if (!list) {
            wf_resp_error(conn, "OOM no memory for the list of clients now");
            return WF_RESP_DONE;
        }
        list->home = conn->lane;
        list->conn = conn;
        conn->list = list;
        list_add(list, conn->lane);
        if (conn->lane->resp->lane_count > 1) {
            conn->progress = 1;
            list_hand_on(list);
            return WF_RESP_WAIT;
        }
    }
    if (conn->list->failed)
        wf_resp_error(conn, "OOM no memory for the list of clients now");
    else
        wf_resp_bulk(conn, conn->list->text, conn->list->used);
    list_free(conn->list);
    conn->list = NULL;
    return WF_RESP_DONE;
}
