/* SPDX-License-Identifier: Apache-2.0
 *
 * Two nodes of one name, which nothing keeps apart where the registry is a list.
 *
 * Which of them has the name is links.c's to say.  The other hears that, and by whom its name is
 * taken, in REFUSED, and ends the link itself: what is closed on this side may take back what was
 * said last.  Until it does, or has taken too long (strangers.c), nothing else is heard on it.
 *
 * Who comes under a later epoch may be the same node after a restart, before the end of its old
 * link was noticed here; a link that is dead is down after dead_ms.  So people are told of two
 * nodes when one is refused for longer than that, and once of each.
 */
#include <stdio.h>
#include <string.h>

#include "fabric/inner.h"

#define SAY_NS 60000000000u

static bool is_sure(const struct wf_link *link, uint64_t now_ns)
{
    const struct wf_peer_node *peer = link->peer;
    return link->epoch < peer->link->epoch ||
           now_ns - peer->twin_since_ns > (uint64_t)link->fabric->options.dead_ms * 1000000;
}

static void twin_say(const struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    struct wf_peer_node *peer = link->peer;
    uint64_t now_ns = wf_fabric_now(f);
    if (peer->twin_epoch != link->epoch) {
        peer->twin_epoch = link->epoch;
        peer->twin_since_ns = now_ns;
        peer->twin_said = false;
    }
    if (peer->twin_said || now_ns < f->twin_ns || !is_sure(link, now_ns))
        return;
    peer->twin_said = true;
    f->twin_ns = now_ns + SAY_NS;
    wf_fabric_say(f,
                  "two nodes call themselves %s: the one at %.70s has the name, and %s %.70s is "
                  "refused; give it another fabric.name",
                  peer->name, wf_way_shown(f, peer, peer->link),
                  link->at[0] ? "the one at" : "one that calls from",
                  link->at[0] ? link->at : link->ops->peer(link->net));
}

static void refuse(struct wf_link *link)
{
    struct wf_fabric_refused refused = {.head = {.magic = WF_FABRIC_MAGIC,
                                                 .kind = WF_FABRIC_REFUSED},
                                        .reason = WF_FABRIC_NAME_TAKEN};
    twin_say(link);
    snprintf(refused.address, sizeof refused.address, "%s",
             wf_way_shown(link->fabric, link->peer, link->peer->link));
    link->refused = wf_link_say(link, &refused, sizeof refused);
    if (!link->refused)
        wf_link_close(link, "the name %s is another node's", link->peer->name);
}

void wf_link_in_the_way(struct wf_link *link, const char *what)
{
    const struct wf_link *there = link->peer->link;
    /* A registry keeps names apart: with one a later epoch is the same node's. */
    bool other = link->epoch < there->epoch ||
                 (link->epoch > there->epoch && !link->fabric->strict);
    if (other && wf_link_proven(link))
        refuse(link);
    else
        wf_link_close(link, "there is %s to %s already", what, link->peer->name);
}

static bool is_text(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return length < capacity;
}

bool wf_link_refused(struct wf_link *link, const void *header, uint32_t bytes)
{
    const struct wf_fabric_refused *refused = header;
    if (bytes != sizeof *refused || !is_text(refused->address, sizeof refused->address) ||
        (link->state != WF_LINK_KNOWN && link->state != WF_LINK_JOINED))
        return false;
    if (refused->reason == WF_FABRIC_NAME_TAKEN)
        wf_link_close(link,
                      "the name '%s' is taken by a node at '%s'; give this one another "
                      "fabric.name",
                      link->fabric->name, refused->address);
    else
        wf_link_close(link, "%s refuses this node, and says no reason that this one knows",
                      link->peer->name);
    return true;
}
