/* SPDX-License-Identifier: Apache-2.0
 *
 * What people are shown of this node's cluster: itself, and the nodes that it knows, with how each
 * is reached.  Owner thread; what it shows is as of not long ago (wf_fabric_figures).
 */
#include <stddef.h>
#include <string.h>

#include "daemon/fabric.h"
#include "fabric/fabric.h"

#define PAGE_NODES 64u /* in an answer */
#define SETTLE_MS 50u

static const char *standing_name(enum wf_standing_state state)
{
    static const char *const names[] = {"joining", "member", "doubtful", "lost", "refused"};
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

/* Over which transport, why that one, and what each of the node's addresses was measured to be. */
static void ways_json(const struct wf_fabric_peer *p, json_t *out)
{
    json_t *ways = json_array();
    bool ours = p->way < p->way_count;
    const char *why = !p->up             ? ""
                      : p->way_count < 2 ? "it has no other address that this node can use"
                      : !ours            ? "the other node began the link, and chose"
                      : p->way_measured
                          ? "the best of those measured, or not much worse than it"
                          : "the first that answered; measured when nothing is fetched";
    for (uint32_t i = 0; i < p->way_count; i++) {
        const struct wf_fabric_way *way = &p->ways[i];
        json_array_append_new(ways, json_pack("{s:s, s:b, s:I, s:f, s:s}", "address", way->address,
                                              "used", (int)(p->up && ours && i == p->way),
                                              "ping_us", (json_int_t)way->ping_us, "gbps",
                                              way->gbps, "why", way->why));
    }
    const char *address = p->up && ours ? p->ways[p->way].address : p->address;
    json_object_set_new(out, "transport",
                        p->up ? json_stringn(address, strcspn(address, ":")) : json_string(""));
    json_object_set_new(out, "transport_why", json_string(why));
    json_object_set_new(out, "ways", ways);
}

/* Of what crosses between this node and that one, each way. */
static void codec_json(const struct wf_fabric_peer *p, json_t *out)
{
    json_object_set_new(out, "codec_in", json_string(p->codec_in ? "lossless" : "none"));
    json_object_set_new(out, "codec_out", json_string(p->codec_out ? "lossless" : "none"));
    json_object_set_new(out, "ratio_in", json_real(p->ratio_in));
    json_object_set_new(out, "ratio_out", json_real(p->ratio_out));
    json_object_set_new(out, "link_mbps", json_real(p->link_mbps));
}

static json_t *sent_json(const struct wf_fabric_sent *sent)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)sent->bytes, "bytes_s",
                     (json_int_t)sent->bytes_s, "waits", (json_int_t)sent->waits, "wait_us",
                     (json_int_t)sent->wait_us, "late", (json_int_t)sent->late);
}

static json_t *peer_json(const struct wf_fabric_peer *p)
{
    const char *state = !p->up         ? "away"
                        : !p->believed ? "no member"
                        : p->draining  ? "draining"
                        : p->complete  ? "ok"
                                       : "telling";
    const char *why = p->up && !p->domains
                          ? "it has none of this node's domains, so that neither reads what the "
                            "other has; give both the same fabric.secret_file and a domain of one "
                            "name, or a domain of both the same secret_file"
                          : p->why;
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "name",
                            p->name, "address", p->address, "state", state, "why", why, "epoch",
                            (json_int_t)p->epoch, "domains", (json_int_t)p->domains, "blocks",
                            (json_int_t)p->blocks, "below_blocks", (json_int_t)p->below_blocks,
                            "rtt_us", (json_int_t)p->rtt_us, "lag_us", (json_int_t)p->lag_us,
                            "read_gbps", p->read_gbps);
    codec_json(p, out);
    const struct {
        const char *name;
        uint64_t value;
    } more[] = {{"reads", p->reads},
                {"read_bytes", p->read_bytes},
                {"read_misses", p->read_misses},
                {"read_corrupt", p->read_corrupt},
                {"frames_in", p->frames_in},
                {"frames_out", p->frames_out},
                {"serves", p->serves},
                {"served_bytes", p->served_bytes},
                {"pool_bytes", p->pool_bytes},
                {"free_bytes", p->free_bytes},
                {"lent_bytes", p->lent_bytes},
                {"lent_free_bytes", p->lent_free_bytes},
                {"below_latency_us", p->below_latency_us},
                {"below_mbps", p->below_mbps},
                {"held_bytes", p->held_bytes},
                {"due_bytes", p->due_bytes},
                {"least_bytes", p->least_bytes},
                {"limit_bytes", p->limit_bytes},
                {"max_bytes_s", p->max_bytes_s},
                {"waiting", p->waiting},
                {"left_bytes", p->left_bytes}};
    json_object_set_new(out, "sent", sent_json(&p->sent));
    json_object_set_new(out, "place", json_string(p->locality));
    json_object_set_new(out, "distance",
                        p->distance < WF_LOCALITY_UNKNOWN ? json_integer(p->distance)
                                                          : json_null());
    ways_json(p, out);
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        json_object_set_new(out, more[i].name, json_integer((json_int_t)more[i].value));
    return out;
}

#define AT(member) offsetof(struct wf_fabric_figures, member)
static const struct {
    const char *name;
    size_t at; /* of a uint64_t, or of a bool */
    bool flag;
} figures[] = {
    {"epoch", AT(standing.epoch)},
    {"nodes_up", AT(nodes_up)},
    {"nodes_lost", AT(nodes_lost)},
    {"replica_copies", AT(replica_copies)},
    {"replica_below", AT(replica_below)},
    {"replica_copies_max", AT(replica_copies_max)},
    {"replica_bytes", AT(replica_bytes)},
    {"directory_parts", AT(in_parts), .flag = true},
    {"lookups", AT(lookups)},
    {"lookup_misses", AT(lookup_misses)},
    {"lookups_full", AT(lookups_full)},
    {"looked_up", AT(looked_up)},
    {"lag_us_p50", AT(lag_us_p50)},
    {"lag_us_p99", AT(lag_us_p99)},
    {"events_told", AT(told)},
    {"events_heard", AT(heard)},
    {"told_anew", AT(told_anew)},
    {"fetches", AT(fetches)},
    {"fetch_misses", AT(fetch_misses)},
    {"fetches_lossy", AT(fetches_lossy)},
    {"fetch_corrupt", AT(fetch_corrupt)},
    {"fetch_timeouts", AT(fetch_timeouts)},
    {"fetched_bytes", AT(fetched_bytes)},
    {"serves", AT(serves)},
    {"serves_lossy", AT(serves_lossy)},
    {"serve_misses", AT(serve_misses)},
    {"served_bytes", AT(served_bytes)},
    {"serves_below", AT(serves_below)},
    {"served_below_bytes", AT(served_below_bytes)},
    {"serves_busy", AT(serves_busy)},
    {"serves_limited", AT(serves_limited)},
    {"fetches_patient", AT(fetches_patient)},
    {"stores", AT(stores)},
    {"stored_bytes", AT(stored_bytes)},
    {"store_fulls", AT(store_fulls)},
    {"lent_bytes", AT(lent_bytes)},
    {"lent_used_bytes", AT(lent_used_bytes)},
    {"lent_blocks", AT(lent_blocks)},
    {"lent_puts", AT(lent_puts)},
    {"lent_refused", AT(lent_refused)},
    {"lent_evicted", AT(lent_evicted)},
    {"lent_reads", AT(lent_reads)},
    {"lent_read_bytes", AT(lent_read_bytes)},
    {"frames_in", AT(frames_in)},
    {"frames_in_bytes", AT(frames_in_bytes)},
    {"frames_in_plain_bytes", AT(frames_in_plain)},
    {"frames_out", AT(frames_out)},
    {"frames_out_bytes", AT(frames_out_bytes)},
    {"frames_out_plain_bytes", AT(frames_out_plain)},
    {"frames_busy", AT(frames_busy)},
    {"cuts_in", AT(cuts_in)},
    {"cuts_in_bytes", AT(cuts_in_bytes)},
    {"cuts_in_plain_bytes", AT(cuts_in_plain)},
    {"cuts_out", AT(cuts_out)},
    {"cuts_out_bytes", AT(cuts_out_bytes)},
    {"cuts_out_plain_bytes", AT(cuts_out_plain)},
    {"cuts_unread", AT(cuts_unread)},
    {"lent_given", AT(lent_given)},
    {"move_last_bytes", AT(move_last_bytes)},
    {"move_few_bytes", AT(move_few_bytes)},
    {"move_share_bytes", AT(move_share_bytes)},
    {"move_full_bytes", AT(move_full_bytes)},
    {"move_left_ms", AT(move_left_ms)},
    {"moved", AT(moved)},
    {"moved_bytes", AT(moved_bytes)},
    {"move_fails", AT(move_fails)},
    {"handed_over", AT(offers)},
    {"hand_overs_lost", AT(offers_lost)},
    {"taken_over", AT(offered)},
    {"pushed", AT(pushed)},
    {"pushed_bytes", AT(pushed_bytes)},
    {"push_fails", AT(push_fails)},
    {"taken", AT(taken)},
    {"taken_bytes", AT(taken_bytes)},
    {"taken_lost", AT(taken_lost)},
    {"links_refused", AT(net.refused)},
    {"links_nonsense", AT(net.nonsense)},
};

static json_t *figures_json(const struct wf_fabric_figures *f)
{
    json_t *out = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b}", "name", f->name, "place",
                            f->locality, "address", f->address, "registry", f->registry, "standing",
                            standing_name(f->standing.state), "why", f->standing.why, "draining",
                            (int)f->draining, "drained", (int)f->drained);
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        const void *at = (const char *)f + figures[i].at;
        uint64_t value = figures[i].flag ? *(const bool *)at : *(const uint64_t *)at;
        json_object_set_new(out, figures[i].name, json_integer((json_int_t)value));
    }
    return out;
}

/* What each domain is due of a link, and what it got of all. */
static json_t *domains_json(const struct wf_node *node, const struct wf_fabric_figures *f)
{
    json_t *out = json_array();
    for (uint32_t d = 0; d < node->domain_count; d++)
        json_array_append_new(out, json_pack("{s:s, s:I, s:I, s:o}", "name",
                                             node->domains[d].config->name, "share",
                                             (json_int_t)f->sends[d].share, "max_bytes_s",
                                             (json_int_t)f->sends[d].max_bytes_s, "sent",
                                             sent_json(&f->sends[d].sent)));
    return out;
}

/* Of what is sent to nodes, wherever they are. */
static json_t *limits_json(struct wf_fabric *fabric)
{
    struct wf_fabric_limits limits;
    json_t *links = json_array();
    wf_fabric_limits(fabric, &limits);
    for (uint32_t i = 0; i < limits.count; i++)
        json_array_append_new(links, json_pack("{s:s, s:I}", "name", limits.links[i].name,
                                               "max_bytes_s", (json_int_t)limits.links[i].bytes_s));
    return json_pack("{s:I, s:o}", "max_bytes_s", (json_int_t)limits.all_bytes_s, "nodes", links);
}

char *wf_query_fabric(struct wf_node *node, uint64_t cursor)
{
    json_t *nodes = json_array(), *self = json_null();
    struct wf_fabric_figures now;
    const struct wf_fabric_peer *peers;
    uint32_t count;
    uint64_t next = 0;
    if (node->fabric && cursor == 0)
        wf_fabric_settle(node->fabric, SETTLE_MS);
    if (wf_node_fabric_figures(node, &now, &peers, &count)) {
        self = figures_json(&now);
        json_object_set_new(self, "domains", domains_json(node, &now));
        json_object_set_new(self, "link_limits", limits_json(node->fabric));
        next = cursor + PAGE_NODES < count ? cursor + PAGE_NODES : 0;
        for (uint64_t i = cursor; i < count && i < cursor + PAGE_NODES; i++)
            json_array_append_new(nodes, peer_json(&peers[i]));
    }
    json_t *out = json_pack("{s:o, s:o, s:I}", "self", self, "nodes", nodes, "next",
                            (json_int_t)next);
    char *answer = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return answer;
}
