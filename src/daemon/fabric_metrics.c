/* SPDX-License-Identifier: Apache-2.0
 *
 * The fabric's figures for Prometheus.  Labels are names of nodes, of which no more than
 * PEERS_SHOWN are shown.
 */
#include <stddef.h>

#include "daemon/fabric.h"
#include "daemon/metrics.h"
#include "fabric/fabric.h"

#define PEERS_SHOWN 256u

#define AT(member) offsetof(struct wf_fabric_figures, member)
static const struct {
    const char *name, *help;
    size_t at;
    bool counter;
} figures[] = {
    {"epoch", "Of the lease that this node has, or had last.", AT(standing.epoch), false},
    {"nodes_up", "Other nodes that are there, and believed.", AT(nodes_up), false},
    {"nodes_lost", "Ends of links to nodes that were there.", AT(nodes_lost), true},
    {"replica_copies", "Copies of blocks known of on other nodes.", AT(replica_copies), false},
    {"replica_below", "Of them, those on other nodes' tiers alone.", AT(replica_below), false},
    {"replica_copies_max", "How many there is room for.", AT(replica_copies_max), false},
    {"replica_bytes", "Memory that these take.", AT(replica_bytes), false},
    {"lookups", "Owners of shards that were asked who has a block.", AT(lookups), true},
    {"lookup_misses", "Blocks that no owner knew of.", AT(lookup_misses), true},
    {"lookups_full", "Chains that were not asked about, as too many others were.", AT(lookups_full),
     true},
    {"looked_up", "Times that other nodes asked this one.", AT(looked_up), true},
    {"events_told", "Changes told to other nodes, once each.", AT(told), true},
    {"events_heard", "Changes that other nodes told.", AT(heard), true},
    {"told_anew", "Times that all was told anew, as a node had fallen behind.", AT(told_anew),
     true},
    {"fetches", "Reads of blocks of other nodes.", AT(fetches), true},
    {"fetch_misses", "Of them, those that nobody had any more.", AT(fetch_misses), true},
    {"fetches_lossy", "Of them, those whose block came less exact than it was put.",
     AT(fetches_lossy), true},
    {"fetch_corrupt", "Of them, those that were wrong wherever they came from.", AT(fetch_corrupt),
     true},
    {"fetch_timeouts", "Of them, those that nobody answered in time, or whose node went.",
     AT(fetch_timeouts), true},
    {"fetched_bytes", "Payload read from other nodes.", AT(fetched_bytes), true},
    {"serves", "Reads of other nodes that were answered with bytes.", AT(serves), true},
    {"serves_lossy", "Of them, those of blocks that are less exact than they were put.",
     AT(serves_lossy), true},
    {"serve_misses", "Reads of other nodes for what was not here.", AT(serve_misses), true},
    {"served_bytes", "Payload sent to other nodes.", AT(served_bytes), true},
    {"serves_below", "Of the reads answered, those of what was on a tier.", AT(serves_below), true},
    {"served_below_bytes", "Their payload.", AT(served_below_bytes), true},
    {"serves_busy", "Reads of other nodes for what could not be given then.", AT(serves_busy),
     true},
    {"serves_limited",
     "Of other nodes' reads, those whose turn a bound on what is sent would make late.",
     AT(serves_limited), true},
    {"fetches_patient",
     "Reads that waited for as long as a bound on what another node sends takes.",
     AT(fetches_patient), true},
    {"stores", "Blocks put into memory of other nodes.", AT(stores), true},
    {"stored_bytes", "Their payload.", AT(stored_bytes), true},
    {"store_fulls", "Blocks that no other node had room for.", AT(store_fulls), true},
    {"lent_bytes", "Memory that this node lends.", AT(lent_bytes), false},
    {"lent_used_bytes", "Of it, what other nodes' blocks take.", AT(lent_used_bytes), false},
    {"lent_blocks", "Blocks of other nodes there.", AT(lent_blocks), false},
    {"lent_puts", "Blocks that other nodes put there.", AT(lent_puts), true},
    {"lent_refused", "Blocks that there was no room for.", AT(lent_refused), true},
    {"lent_evicted", "Blocks that went for others.", AT(lent_evicted), true},
    {"lent_reads", "Reads of blocks there by this node's own clients.", AT(lent_reads), true},
    {"lent_read_bytes", "Their payload.", AT(lent_read_bytes), true},
    {"frames_in", "Ranges of blocks that came encoded.", AT(frames_in), true},
    {"frames_in_bytes", "What of them crossed.", AT(frames_in_bytes), true},
    {"frames_in_plain_bytes", "What they are.", AT(frames_in_plain), true},
    {"frames_out", "Ranges of blocks that went encoded.", AT(frames_out), true},
    {"frames_out_bytes", "What of them crossed.", AT(frames_out_bytes), true},
    {"frames_out_plain_bytes", "What they are.", AT(frames_out_plain), true},
    {"frames_busy", "Those that went as they are for want of memory to encode into.",
     AT(frames_busy), true},
    {"cuts_in", "Ranges of blocks that came as they lie on a tier, encoded.", AT(cuts_in), true},
    {"cuts_in_bytes", "What of them crossed.", AT(cuts_in_bytes), true},
    {"cuts_in_plain_bytes", "What they are.", AT(cuts_in_plain), true},
    {"cuts_out", "Ranges of blocks that went as they lie on a tier, encoded.", AT(cuts_out), true},
    {"cuts_out_bytes", "What of them crossed.", AT(cuts_out_bytes), true},
    {"cuts_out_plain_bytes", "What they are.", AT(cuts_out_plain), true},
    {"cuts_unread", "Those that came for which the profile is not here, and came again decoded.",
     AT(cuts_unread), true},
    {"lent_given", "Blocks that went since another lender has them.", AT(lent_given), true},
    {"move_last_bytes", "What is to go to other nodes, and nobody else has.", AT(move_last_bytes),
     false},
    {"move_few_bytes", "What is to go there, as it has too few copies.", AT(move_few_bytes), false},
    {"move_share_bytes", "What is to go there, as it is beyond this node's share.",
     AT(move_share_bytes), false},
    {"moved", "Blocks that were handed to other nodes for that.", AT(moved), true},
    {"moved_bytes", "Their payload.", AT(moved_bytes), true},
    {"move_fails", "Blocks that no other node took.", AT(move_fails), true},
    {"handed_over", "Chains handed over to other nodes.", AT(offers), true},
    {"hand_overs_lost", "Chains for other nodes, of which these could not be told.",
     AT(offers_lost), true},
    {"taken_over", "Chains that other nodes handed over.", AT(offered), true},
    {"pushed", "Blocks that other nodes have by a push, layer by layer.", AT(pushed), true},
    {"pushed_bytes", "Payload of pushes that was sent.", AT(pushed_bytes), true},
    {"push_fails", "Pushes that did not come through whole.", AT(push_fails), true},
    {"taken", "Blocks that other nodes pushed here.", AT(taken), true},
    {"taken_bytes", "Their payload.", AT(taken_bytes), true},
    {"taken_lost", "Pushes to this node that did not come through whole.", AT(taken_lost), true},
    {"links_refused", "Links whose other side proved nothing, or the wrong thing.", AT(net.refused),
     true},
    {"links_nonsense", "Links that ended in nonsense.", AT(net.nonsense), true},
};

static void render_peers(FILE *out, const struct wf_fabric_peer *peers, uint32_t count)
{
    static const struct {
        const char *name, *help;
        bool counter;
    } rows[] = {
        {"up", "Whether it is there, is believed, and has told all that it has.", false},
        {"blocks", "Copies that it told of and that have not gone.", false},
        {"below_blocks", "Of them, those on its tiers alone.", false},
        {"rtt_seconds", "There and back, a fading mean.", false},
        {"lag_seconds", "From a change there until it is known here, a fading mean.", false},
        {"read_bytes", "Payload read from it.", true},
        {"served_bytes", "Payload sent to it.", true},
        {"codec_in", "Whether what is asked of it is to come encoded.", false},
        {"codec_out", "Whether what goes there goes encoded.", false},
        {"link_bytes_per_second", "How fast bytes come from it while they do, a fading mean.",
         false},
    };
    char name[64];
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        snprintf(name, sizeof name, "weft_fabric_peer_%s%s", rows[r].name,
                 rows[r].counter ? "_total" : "");
        wf_metrics_head(out, name, rows[r].counter ? "counter" : "gauge", rows[r].help);
        for (uint32_t i = 0; i < count && i < PEERS_SHOWN; i++) {
            const struct wf_fabric_peer *p = &peers[i];
            const double values[] = {p->up && p->believed && p->complete,
                                     (double)p->blocks,
                                     (double)p->below_blocks,
                                     (double)p->rtt_us * 1e-6,
                                     (double)p->lag_us * 1e-6,
                                     (double)p->read_bytes,
                                     (double)p->served_bytes,
                                     p->codec_in,
                                     p->codec_out,
                                     p->link_mbps * 1e6};
            fprintf(out, "%s{node=\"%s\"} %.15g\n", name, p->name, values[r]);
        }
    }
}

void wf_node_fabric_render(FILE *out, const struct wf_fabric_figures *now,
                           const struct wf_fabric_peer *peers, uint32_t count)
{
    char name[64];
    wf_metrics_head(out, "weft_fabric_member", "gauge",
                    "Whether this node is a member of its cluster now.");
    fprintf(out, "weft_fabric_member %d\n", now->standing.state == WF_STANDING_MEMBER);
    wf_metrics_head(out, "weft_fabric_lag_seconds", "gauge",
                    "From a change on another node until it is known here.");
    fprintf(out, "weft_fabric_lag_seconds{quantile=\"0.5\"} %.15g\n",
            (double)now->lag_us_p50 * 1e-6);
    fprintf(out, "weft_fabric_lag_seconds{quantile=\"0.99\"} %.15g\n",
            (double)now->lag_us_p99 * 1e-6);
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        snprintf(name, sizeof name, "weft_fabric_%s%s", figures[i].name,
                 figures[i].counter ? "_total" : "");
        wf_metrics_head(out, name, figures[i].counter ? "counter" : "gauge", figures[i].help);
        fprintf(out, "%s %llu\n", name,
                (unsigned long long)*(const uint64_t *)(const void *)((const char *)now +
                                                                      figures[i].at));
    }
    render_peers(out, peers, count);
}
