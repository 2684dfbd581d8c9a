/* SPDX-License-Identifier: Apache-2.0
 *
 * Queues of blocks by number: what LRU, FIFO and their kin are made of.
 *
 * The links of all blocks are one array, which several queues share: a block is in one of them at
 * most.  Every operation is O(1).
 */
#ifndef WF_SIM_LIST_H
#define WF_SIM_LIST_H

#include <stdlib.h>

#include "sim/load.h"

struct wf_sim_link {
    uint32_t newer, older;
};

struct wf_sim_list {
    uint32_t newest, oldest, count;
};

#define WF_SIM_LIST_EMPTY ((struct wf_sim_list){WF_SIM_NONE, WF_SIM_NONE, 0})

static inline void wf_sim_list_push(struct wf_sim_list *list, struct wf_sim_link *links,
                                    uint32_t block)
{
    links[block] = (struct wf_sim_link){WF_SIM_NONE, list->newest};
    if (list->newest != WF_SIM_NONE)
        links[list->newest].newer = block;
    else
        list->oldest = block;
    list->newest = block;
    list->count++;
}

static inline void wf_sim_list_remove(struct wf_sim_list *list, struct wf_sim_link *links,
                                      uint32_t block)
{
    struct wf_sim_link link = links[block];
    if (link.newer != WF_SIM_NONE)
        links[link.newer].older = link.older;
    else
        list->newest = link.older;
    if (link.older != WF_SIM_NONE)
        links[link.older].newer = link.newer;
    else
        list->oldest = link.newer;
    list->count--;
}

#define WF_SIM_QUEUES 5u

/* Several queues, and which of them each block is in; 0: it is in none. */
struct wf_sim_queues {
    struct wf_sim_list in[WF_SIM_QUEUES];
    struct wf_sim_link *links; /* [blocks] */
    uint8_t *place;            /* [blocks] */
};

/* False: no memory; fini() is due all the same. */
static inline bool wf_sim_queues_init(struct wf_sim_queues *queues, uint32_t blocks)
{
    for (uint32_t i = 0; i < WF_SIM_QUEUES; i++)
        queues->in[i] = WF_SIM_LIST_EMPTY;
    queues->links = calloc(blocks, sizeof *queues->links);
    queues->place = calloc(blocks, sizeof *queues->place);
    return queues->links && queues->place;
}

static inline void wf_sim_queues_fini(struct wf_sim_queues *queues)
{
    free(queues->links);
    free(queues->place);
}

/* It becomes the newest of queue `to`; 0: it leaves. */
static inline void wf_sim_queues_move(struct wf_sim_queues *queues, uint32_t block, uint8_t to)
{
    uint8_t from = queues->place[block];
    if (from)
        wf_sim_list_remove(&queues->in[from], queues->links, block);
    if (to)
        wf_sim_list_push(&queues->in[to], queues->links, block);
    queues->place[block] = to;
}

#endif
