/* SPDX-License-Identifier: Apache-2.0
 *
 * This node in a cluster: the fabric on a thread of its own, and what it sees of the node.
 *
 * The fabric's thread reads blocks as any client does: it is one, of libweft, so that what it sends
 * is pinned, and the owner thread has nothing to do for it.  What there is it reads in the index,
 * and what changes the owner tells.  Blocks of other nodes are the tier `peers` (fabric/peers.h).
 *
 * What is in no memory of the node's but on one of its own tiers is told as that, and read for who
 * asks (fabric_below.c): the directory and the movers are the owner thread's, which is asked.
 *
 * Of a block that is here twice, in DRAM and below, the more exact copy is told of, and DRAM's of
 * equals.  A copy that is worse than its domain asks for is found by nobody here, and not told of.
 */
#ifndef WF_DAEMON_FABRIC_H
#define WF_DAEMON_FABRIC_H

#include <jansson.h>

#include "daemon/node.h"

struct wf_directory_moved;
struct wf_fabric_event;
struct wf_fabric_read;
struct wf_fabric_options;
struct wf_format_entry;
struct wf_layout;
struct wf_profile;
struct wf_wanted_chains;
struct wf_wanted_chains *wf_wanted_create(void);
void wf_wanted_destroy(struct wf_wanted_chains *wanted);
/* A chain that a node hands over is to be fetched.  False: there is no room, or it has as many as
 * are left for others. */
bool wf_wanted_add(struct wf_wanted_chains *wanted, const char *from, uint32_t domain,
                   const uint8_t tip[32]);
/* The same of a block that is to be removed; one that is kept already is kept once. */
bool wf_unwanted_add(struct wf_wanted_chains *wanted, const char *from, uint32_t domain,
                     const uint8_t key[32]);
/* Of a struct wf_node_fabric. */
struct wf_wanted_chains *wf_wanted_of(void *cluster);
struct wf_served *wf_served_of(void *cluster);
struct wf_node *wf_node_of(void *cluster);

/* fabric_codec.c: how blocks cross to other nodes. */
struct wf_wire;
struct wf_wire *wf_wire_create(void);
void wf_wire_destroy(struct wf_wire *wire);
/* Of a struct wf_node_fabric. */
struct wf_wire *wf_wire_of(void *cluster);
void wf_wire_options(const struct wf_node *node, struct wf_fabric_options *out);
/* A format was opened. */
void wf_wire_format(struct wf_node *node, const struct wf_format_entry *format);
/* wf_fabric_host.profiles, .profile, .layout and .chose. */
uint64_t wf_wire_profiles(void *cluster);
const struct wf_profile *wf_wire_profile(void *cluster, uint64_t id);
bool wf_wire_layout(void *cluster, uint32_t domain, uint64_t bytes, struct wf_layout *out);
void wf_wire_chose(void *cluster, const char *sentence);
void wf_wire_told(void *cluster, const char *sentence);
void wf_wire_tick(struct wf_node *node);
/* Is that a format by which the fabric's thread reads blocks, whatever they are? */
bool wf_node_fabric_reads(const struct wf_format_entry *format);

/* Before the tiers are made: nothing, when the configuration names no cluster. */
enum weft_status wf_node_fabric_create(struct wf_node *node);
/* When the node listens on its socket. */
enum weft_status wf_node_fabric_start(struct wf_node *node);
/* Leaves the cluster; what is being read ends. */
void wf_node_fabric_stop(struct wf_node *node);
/* Behind the tiers. */
void wf_node_fabric_destroy(struct wf_node *node);

/* A block of this slot was committed; the block of this key left DRAM, and may be below. */
void wf_node_fabric_here(struct wf_domain *domain, uint32_t slot);
void wf_node_fabric_gone(struct wf_domain *domain, const uint8_t key[32]);

/* A block came to a tier, or left one. */
void wf_node_fabric_moved(struct wf_node *node, const struct wf_directory_moved *block);
/* Readable when the fabric wants something of the owner thread (-1: there is none), which run()
 * does then. */
int wf_node_fabric_fd(const struct wf_node *node);
void wf_node_fabric_run(struct wf_node *node);

/* fabric_below.c: what is below, for others.  Of the owner thread, but for what says otherwise. */
struct wf_served;
enum weft_status wf_served_create(struct wf_node *node, struct wf_served **out);
/* Behind the tiers. */
void wf_served_destroy(struct wf_served *served);
/* Whom to tell that a read has ended; NULL, when the fabric has gone: nobody. */
void wf_served_attach(struct wf_served *served, struct wf_fabric *fabric);
int wf_served_fd(const struct wf_served *served);
void wf_served_run(struct wf_served *served);
/* A block that is on a tier of the node's own, as others are told of it.  False: it is on none. */
bool wf_served_event(const struct wf_served *served, const struct wf_domain *domain,
                     const uint8_t key[32], struct wf_fabric_event *out);
void wf_served_moved(const struct wf_served *served, const struct wf_directory_moved *moved);
/* What a read of what lies there takes on average; 0: nothing does, or that is not measured. */
void wf_served_speed(const struct wf_served *served, uint32_t *out_latency_us, uint32_t *out_mbps);
/* Has one of these a more exact copy than that (as in struct wf_fabric_event)? */
bool wf_served_better(const struct wf_served *served, const struct wf_domain *domain,
                      const uint8_t key[32], uint8_t quality);
/* On any thread, as clients see it. */
bool wf_served_below(const struct wf_served *served, uint32_t domain, const uint8_t key[32],
                     uint8_t *out_quality);
/* On the fabric's thread: wf_fabric_host.read, read_free, and each, of which walk() gives the first
 * cursor (0: there is nothing to walk over). */
enum weft_status wf_served_read(struct wf_served *served, struct wf_fabric_read *read);
void wf_served_read_free(struct wf_fabric_read *read);
uint64_t wf_served_walk(struct wf_served *served);
bool wf_served_each(struct wf_served *served, uint32_t domain, uint64_t *cursor,
                    void (*found)(void *to, const struct wf_fabric_event *block), void *to);

/* fabric_say.c: a prefetch found nothing of its keys from `first` on.  Where this node keeps a part
 * of the directory, owners are asked; what somebody has is on the tier `peers` then, for the next
 * match or prefetch. */
struct wf_load_answer;
void wf_node_fabric_look(const struct wf_client *client, const struct wf_load *request,
                         uint32_t first);
/* Likewise, for who waits for that and asks again; its answer's statuses are written. */
void wf_node_fabric_find(const struct wf_client *client, const struct wf_load *request,
                         struct wf_load_answer *answer);

/* What others are told of this node's memory. */
void wf_node_fabric_sum(struct wf_node *node);
/* What is due by the clock. */
void wf_node_fabric_tick(struct wf_node *node);
/* Chains that were handed over to this node are fetched, as far as they are known. */
void wf_node_fabric_wanted(struct wf_node *node);
void wf_handle_fabric(struct wf_client *client, const struct wf_fabric_say_message *request);
/* fabric_say.c, on the fabric's thread: such a chain. */
void wf_node_fabric_offered(void *cluster, const char *from, uint32_t domain,
                            const uint8_t tip[32]);

/* The same: another node has it removed. */
void wf_node_fabric_forget(void *cluster, const char *from, uint32_t domain, const uint8_t key[32]);

/* A block of DRAM as others are told of it.  False: there is none. */
bool wf_node_fabric_event(const struct wf_domain *domain, uint32_t slot,
                          struct wf_fabric_event *out);

/* False: there is no fabric.  *out_peers is good until the next call of this or of
 * wf_query_fabric(). */
struct wf_fabric_figures;
struct wf_fabric_peer;
bool wf_node_fabric_figures(const struct wf_node *node, struct wf_fabric_figures *out,
                            const struct wf_fabric_peer **out_peers, uint32_t *out_count);
/* fabric_metrics.c */
void wf_node_fabric_render(FILE *out, const struct wf_fabric_figures *now,
                           const struct wf_fabric_peer *peers, uint32_t count);

/* fabric_show.c: for QUERY "fabric"; caller frees. */
char *wf_query_fabric(struct wf_node *node, uint64_t cursor);

#endif
