/* SPDX-License-Identifier: Apache-2.0
 *
 * Queues of blocks by number: what LRU, FIFO and their kin are made of.
 *
 * The links of all blocks are one array, which several queues share: a block is in one of them at
 * most.  Every operation is O(1).
 */
#ifndef WF_SIM_LIST_H
#define WF_SIM_LIST_H

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

/* The oldest, taken out; the list is not empty. */
static inline uint32_t wf_sim_list_pop(struct wf_sim_list *list, struct wf_sim_link *links)
{
    uint32_t block = list->oldest;
    wf_sim_list_remove(list, links, block);
    return block;
}

/* A block goes to queue `to` of several, from the one that place[block] says; 0: it is in none. */
static inline void wf_sim_list_move(struct wf_sim_list *lists, struct wf_sim_link *links,
                                    uint8_t *place, uint32_t block, uint8_t to)
{
    if (place[block])
        wf_sim_list_remove(&lists[place[block]], links, block);
    if (to)
        wf_sim_list_push(&lists[to], links, block);
    place[block] = to;
}

#endif
