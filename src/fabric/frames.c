/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that cross encoded, where that is sooner (choice.h) or the configuration says so.
 *
 * Who asks for a block, or puts one, chooses: it sees how fast the link brings it what it asked
 * for, or is told with PLACED how fast what it put came there.  How fast the other side's codec is
 * its IDENT says.
 *
 * What lies on a tier encoded crosses as it lies there, as a cut of its frame, to whoever decodes
 * such: the bytes are fewer, and where they are decoded makes no difference to the work.  Only who
 * has no codec, or not the profile, has it decoded before it crosses.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define MEMORY_DEFAULT (64u << 20)

static void wake(void *fabric)
{
    wf_fabric_wake(fabric);
}

enum weft_status wf_frames_create(struct wf_fabric *f)
{
    uint32_t threads = f->options.codec_speed.decode_threads;
    f->frameless_end = &f->frameless;
    f->figures.codec = f->options.codec;
    if (f->options.codec == WF_FABRIC_CODEC_NONE)
        return WEFT_OK;
    f->unframings = wf_calloc(WF_FETCHES_MAX, sizeof *f->unframings, "blocks from other nodes");
    if (!f->unframings)
        return WEFT_E_NO_MEMORY;
    const struct wf_coder_options options = {
        .threads = threads < WF_CODER_THREADS_MAX ? threads : WF_CODER_THREADS_MAX,
        .memory_bytes = f->options.codec_bytes ? f->options.codec_bytes : MEMORY_DEFAULT,
        .profile = f->options.host.profile,
        .profiles = f->options.host.context,
        .wake = wake,
        .context = f,
    };
    return wf_coder_create(&options, &f->coder);
}

void wf_frames_destroy(struct wf_fabric *f)
{
    wf_coder_destroy(f->coder);
    free(f->unframings);
    f->coder = NULL;
    f->unframings = NULL;
}

/* ---------------------------------------------------------------------------------------- said */

static uint32_t whole(double mbps)
{
    return mbps > 0 && mbps < 1e9 ? (uint32_t)mbps + 1 : 0;
}

void wf_frames_say(const struct wf_fabric *f, struct wf_fabric_ident *ident)
{
    const struct wf_codec_speed *speed = &f->options.codec_speed;
    if (!f->coder)
        return;
    ident->codecs = WF_FABRIC_FRAMES;
    ident->encode_mbps = whole(speed->encode_mbps);
    ident->decode_mbps = whole(speed->decode_mbps);
    ident->threads = speed->decode_threads;
}

void wf_frames_heard(struct wf_peer_node *peer, const struct wf_fabric_ident *ident)
{
    peer->codecs = ident->codecs;
    peer->codec = (struct wf_codec_speed){.encode_mbps = ident->encode_mbps,
                                          .decode_mbps = ident->decode_mbps,
                                          .encode_threads = ident->threads,
                                          .decode_threads = ident->threads};
}

/* ------------------------------------------------------------------------------------- choices */

static void say_choice(struct wf_fabric *f, const struct wf_peer_node *peer,
                       const struct wf_choice *choice, double link_mbps, bool in)
{
    char sentence[256];
    snprintf(sentence, sizeof sentence,
             "blocks %s %s cross %s: the link carries %.0f MB/s, and %.3g at a time are there %.2f "
             "times as soon encoded",
             in ? "from" : "to", peer->name, choice->on ? "encoded" : "as they are", link_mbps,
             choice->waiting, choice->gain);
    wf_info("fabric", "%s", sentence);
    if (f->options.host.chose)
        f->options.host.chose(f->options.host.context, sentence);
}

static bool next(struct wf_fabric *f, struct wf_peer_node *peer, struct wf_choice *choice,
                 const struct wf_codec_speed *speed, double link_mbps, uint32_t waiting)
{
    bool before = choice->on;
    bool framed = wf_choice_next(choice, f->options.codec, speed, link_mbps, waiting);
    if (choice->on != before && f->options.codec == WF_FABRIC_CODEC_AUTO)
        say_choice(f, peer, choice, link_mbps, choice == &peer->choice_in);
    return framed;
}

bool wf_frames_ask(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes)
{
    if (!f->coder || !(peer->codecs & WF_FABRIC_FRAMES) || bytes < WF_CODER_BYTES_LEAST)
        return false;
    const struct wf_codec_speed speed = {.encode_mbps = peer->codec.encode_mbps,
                                         .encode_threads = peer->codec.encode_threads,
                                         .decode_mbps = f->options.codec_speed.decode_mbps,
                                         .decode_threads = f->options.codec_speed.decode_threads};
    return next(f, peer, &peer->choice_in, &speed, peer->line.mbps, peer->asked + 1);
}

bool wf_frames_push(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes,
                    uint32_t waiting)
{
    if (!f->coder || !(peer->codecs & WF_FABRIC_FRAMES) || bytes < WF_CODER_BYTES_LEAST)
        return false;
    const struct wf_codec_speed speed = {.encode_mbps = f->options.codec_speed.encode_mbps,
                                         .encode_threads = f->options.codec_speed.encode_threads,
                                         .decode_mbps = peer->codec.decode_mbps,
                                         .decode_threads = peer->codec.decode_threads};
    return next(f, peer, &peer->choice_out, &speed, peer->arrives_mbps, waiting);
}

bool wf_frames_put(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes)
{
    return wf_frames_push(f, peer, bytes, peer->putting + 1);
}

bool wf_frames_cuts(const struct wf_fabric *f, const struct wf_peer_node *peer, uint64_t bytes)
{
    return f->coder && peer->codecs & WF_FABRIC_FRAMES && bytes >= WF_CODER_BYTES_LEAST;
}

bool wf_frames_layout(struct wf_fabric *f, uint32_t domain, uint64_t block_bytes, uint64_t from,
                      uint64_t bytes, struct wf_layout *out)
{
    struct wf_layout block;
    return f->coder && f->options.host.layout &&
           f->options.host.layout(f->options.host.context, domain, block_bytes, &block) &&
           block.bytes == block_bytes && wf_coder_layout(&block, from, bytes, out) &&
           wf_coder_memory_can(f->coder, out);
}
