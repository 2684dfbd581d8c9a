/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fabric says of itself: copied now and then by its thread, for others to read.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/inner.h"

#define SHOW_NS 50000000u

static uint64_t mask_of(const struct wf_fabric *f, const struct wf_link *link)
{
    uint64_t mask = 0;
    for (uint32_t i = 0; link && i < f->domain_count && i < WF_FABRIC_DOMAINS_MAX; i++)
        mask |= (uint64_t)(link->theirs_of[i] != WF_DOMAIN_NONE) << i;
    return mask;
}

static double ratio(uint64_t plain_bytes, uint64_t frame_bytes)
{
    return frame_bytes ? (double)plain_bytes / (double)frame_bytes : 0;
}

static struct wf_fabric_sent sent_of(const struct wf_send_meter *meter)
{
    return (struct wf_fabric_sent){.bytes = meter->bytes,
                                   .bytes_s = meter->bytes_s,
                                   .waits = meter->waits,
                                   .wait_us = meter->wait_us,
                                   .late = meter->late};
}

static void peer_show(const struct wf_fabric *f, const struct wf_peer_node *peer,
                      struct wf_fabric_peer *out)
{
    const struct wf_link *link = peer->link;
    *out = (struct wf_fabric_peer){
        .epoch = peer->epoch,
        .up = link != NULL,
        .believed = wf_peer_believed(f, peer),
        .complete = link && link->complete,
        .draining = peer->draining,
        .distance = peer->distance,
        .domains = link ? link->shared : 0,
        .domain_mask = mask_of(f, link),
        .number = peer->number,
        .blocks = peer->place != WF_PLACE_NONE ? wf_places_of(f->places, (uint16_t)peer->place) : 0,
        .below_blocks = peer->place != WF_PLACE_NONE ? wf_places_of(f->below, (uint16_t)peer->place)
                                                     : 0,
        .rtt_us = peer->rtt_us,
        .lag_us = peer->lag_us,
        .read_bytes = peer->read_bytes,
        .reads = peer->reads,
        .read_misses = peer->read_misses,
        .read_corrupt = peer->read_corrupt,
        .read_gbps = peer->read_ns ? (double)peer->read_bytes / (double)peer->read_ns : 0,
        .assumed_gbps = peer->distance < WF_LOCALITY_UNKNOWN && !wf_peer_measured(peer)
                            ? wf_peer_rate(f, peer) / 1e9
                            : 0,
        .served_bytes = peer->served_bytes,
        .serves = peer->serves,
        .pool_bytes = peer->said.pool_bytes,
        .free_bytes = peer->said.free_bytes,
        .lent_bytes = peer->said.lent_bytes,
        .lent_free_bytes = peer->said.lent_free_bytes,
        .left_bytes = peer->said.left_bytes,
        .below_latency_us = peer->said.below_latency_us,
        .below_mbps = peer->said.below_mbps,
        .codec_in = peer->choice_in.on,
        .codec_out = peer->choice_out.on || peer->serves_framed,
        .link_mbps = peer->line.mbps,
        .frames_in = peer->choice_in.frames,
        .frames_out = peer->choice_out.frames + peer->served_frames,
    };
    uint64_t plain = peer->choice_out.plain_bytes + peer->served_plain;
    uint64_t encoded = peer->choice_out.frame_bytes + peer->served_encoded;
    out->ratio_in = ratio(peer->choice_in.plain_bytes, peer->choice_in.frame_bytes);
    out->ratio_out = ratio(plain, encoded);
    if (f->lent) {
        struct wf_lent_owner owner;
        wf_lent_owner(f->lent, peer->number, &owner);
        out->held_bytes = owner.bytes;
        out->due_bytes = owner.due_bytes;
        out->least_bytes = owner.least_bytes;
        out->limit_bytes = owner.limit_bytes;
    }
    bool left = !f->strict && peer->was[0]; /* known by its address alone, and by who was there */
    memcpy(out->name, left ? peer->was : peer->name, sizeof out->name);
    memcpy(out->locality, peer->locality, sizeof out->locality);
    memcpy(out->address, peer->ways[peer->way].address, sizeof out->address);
    memcpy(out->ways, peer->ways, sizeof out->ways);
    out->way_count = peer->way_count;
    out->way = link && link->ours ? link->way : WF_FABRIC_WAYS_MAX;
    out->way_measured = peer->way_measured;
    if (link) {
        out->max_bytes_s = link->sends.bucket.bytes_s;
        out->waiting = link->sends.waiting;
        out->sent = sent_of(&link->sends.meter);
    }
    if (link)
        snprintf(out->address, sizeof out->address, "%s", wf_way_shown(f, peer, link));
    if (!link)
        memcpy(out->why, peer->why, sizeof out->why);
    bool alone = f->strict && f->standing.state != WF_STANDING_MEMBER &&
                 f->standing.state != WF_STANDING_DOUBTFUL;
    if (!link && alone)
        snprintf(out->why, sizeof out->why, "this node is no member, and begins no link");
}

/* A node of a static registry that has an address alone until it answers, under its own name. */
static bool is_shown(struct wf_fabric *f, const struct wf_peer_node *peer)
{
    bool stands_for = !f->strict && peer->answered >= 0 &&
                      (uint32_t)peer->answered != peer->number && f->peers[peer->answered].used;
    bool here = !f->strict && peer->was[0] && wf_peer_find(f, peer->was);
    return peer->used && !stands_for && !here;
}

uint32_t wf_fabric_peers(struct wf_fabric *f, struct wf_fabric_peer *out, uint32_t max)
{
    pthread_mutex_lock(&f->lock);
    f->figures_wanted = true;
    uint32_t count = f->shown_count;
    memcpy(out, f->shown, (count < max ? count : max) * sizeof *out);
    pthread_mutex_unlock(&f->lock);
    return count;
}

void wf_fabric_figures(struct wf_fabric *f, struct wf_fabric_figures *out)
{
    pthread_mutex_lock(&f->lock);
    f->figures_wanted = true;
    *out = f->shown_figures;
    pthread_mutex_unlock(&f->lock);
}

void wf_fabric_limits(struct wf_fabric *f, struct wf_fabric_limits *out)
{
    pthread_mutex_lock(&f->lock);
    out->all_bytes_s = f->limits.link_bytes_s;
    out->count = f->limits.link_count;
    memcpy(out->links, f->limits.links, out->count * sizeof out->links[0]);
    pthread_mutex_unlock(&f->lock);
}

void wf_figures_change(struct wf_fabric *f)
{
    atomic_fetch_add_explicit(&f->show_changes, 1, memory_order_release);
}

void wf_fabric_settle(struct wf_fabric *f, uint32_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&f->lock);
    uint64_t changes = atomic_load_explicit(&f->show_changes, memory_order_acquire);
    bool late = f->shown_changes >= changes || f->settle_late >= changes;
    if (!late) {
        atomic_store_explicit(&f->settling, true, memory_order_relaxed);
        wf_fabric_wake(f);
    }
    while (!late && f->shown_changes < changes)
        late = pthread_cond_timedwait(&f->shown_anew, &f->lock, &until) != 0;
    if (f->shown_changes < changes) /* a thread that stands still holds up its caller once */
        f->settle_late = changes;
    pthread_mutex_unlock(&f->lock);
}

void wf_figures_tick(struct wf_fabric *f, uint64_t now_ns, uint64_t changes, bool settles)
{
    struct wf_places_stats places;
    pthread_mutex_lock(&f->lock);
    bool wanted = f->figures_wanted || f->shown_ns == 0;
    wanted |= f->options.show_ms && now_ns - f->shown_ns >= f->options.show_ms * 1000000ull;
    pthread_mutex_unlock(&f->lock);
    if (!settles && (!wanted || (f->shown_ns && now_ns - f->shown_ns < SHOW_NS)))
        return;
    f->shown_ns = now_ns;
    f->figures.standing = f->standing;
    f->figures.nodes_up = 0;
    for (uint32_t i = 0; i < f->peer_count; i++)
        f->figures.nodes_up += f->peers[i].used && wf_peer_believed(f, &f->peers[i]);
    f->figures.draining = atomic_load_explicit(&f->draining, memory_order_relaxed);
    if (f->lent) {
        struct wf_lent_stats lent;
        wf_lent_stats(f->lent, &lent);
        f->figures.lent_bytes = lent.bytes;
        f->figures.lent_used_bytes = lent.used_bytes;
        f->figures.lent_blocks = lent.blocks;
        f->figures.lent_puts = lent.puts;
        f->figures.lent_refused = lent.refused;
        f->figures.lent_evicted = lent.evicted;
        f->figures.lent_given = lent.given;
    }
    uint64_t left = wf_moves_left(f), full = f->figures.move_full_bytes;
    f->figures.move_left_ms = (left - (full < left ? full : left)) * 1000 / f->options.move_bytes_s;
    f->figures.lag_us_p50 = wf_hist_quantile(&f->lag_us, .5);
    f->figures.lag_us_p99 = wf_hist_quantile(&f->lag_us, .99);
    wf_nets_stats(f, &f->figures.net);
    for (uint32_t d = 0; d < f->domain_count; d++)
        f->figures.sends[d] =
            (struct wf_fabric_sends){.share = f->send_domains[d].share ? f->send_domains[d].share
                                                                       : 1,
                                     .max_bytes_s = f->send_domains[d].bucket.bytes_s,
                                     .sent = sent_of(&f->send_domains[d].meter)};
    snprintf(f->figures.name, sizeof f->figures.name, "%s", f->name);
    memcpy(f->figures.locality, f->locality, sizeof f->figures.locality);
    wf_nets_address(f, f->figures.address, sizeof f->figures.address);
    pthread_mutex_lock(&f->lock);
    wf_places_stats(f->places, &places);
    uint64_t own = wf_stream_own_count(f); /* the rest is what others have */
    f->figures.replica_copies = places.copies - own;
    f->figures.replica_copies_max = places.copies_max - own;
    f->figures.replica_bytes = places.bytes;
    wf_places_stats(f->below, &places);
    f->figures.replica_below = places.copies;
    f->figures.replica_bytes += places.bytes;
    f->shown_figures = f->figures;
    f->shown_figures.drained &= f->figures.draining && !f->put_since;
    f->shown_changes = changes;
    f->shown_count = 0;
    for (uint32_t i = 0; i < f->peer_count; i++)
        if (is_shown(f, &f->peers[i]))
            peer_show(f, &f->peers[i], &f->shown[f->shown_count++]);
    f->shown_serial++;
    if (changes == atomic_load_explicit(&f->show_changes, memory_order_relaxed))
        atomic_store_explicit(&f->settling, false, memory_order_relaxed);
    pthread_cond_broadcast(&f->shown_anew);
    pthread_mutex_unlock(&f->lock);
}
