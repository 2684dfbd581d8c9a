/* SPDX-License-Identifier: Apache-2.0
 *
 * What a link may ask for before it has said who is there, and how often it may begin anew.
 *
 * Who has a link and does not say who it is has it for YOUNG_TURNS times dead_ms, so that a node
 * that is up and mute is tried again, at another of its addresses if it has one.  Of links on which
 * nobody has proved anything there are few, whoever may begin them: they have places, messages and
 * names of nodes that others want.  And what a node told is forgotten and told anew at a price for
 * all of this one, so it may not happen without end.
 */
#include "fabric/inner.h"

/* Links that others began and that are not joined; the oldest makes room.  Who has proved that it
 * is of the cluster may come with all the others at once. */
#define YOUNG_MAX 256u
#define YOUNG_MAX_PROVED WF_FABRIC_PEERS_MAX
#define YOUNG_TURNS 2u       /* of dead_ms: so long one may take to be joined */
#define UNPROVEN_MAX 64u     /* links of who proved nothing */
#define ANEW_MAX 128u        /* so often all may be told anew, unasked, */
#define ANEW_NS 10000000000u /* in so long */

static uint64_t young_ns(const struct wf_fabric *f)
{
    return YOUNG_TURNS * (uint64_t)f->options.dead_ms * 1000000;
}

static bool is_young(const struct wf_link *link)
{
    return (link->state == WF_LINK_UP || link->state == WF_LINK_KNOWN) && !link->closing;
}

/* It is to be joined in time, and is one of not too many. */
void wf_link_begun(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    struct wf_link *oldest = NULL;
    uint32_t count = 0;
    uint64_t until_ns = link->since_ns + young_ns(f);
    f->young_ns = f->young_ns && f->young_ns < until_ns ? f->young_ns : until_ns;
    for (struct wf_link *other = f->links; other && !link->ours; other = other->next)
        if (other != link && !other->ours && is_young(other)) {
            count++;
            oldest = oldest && oldest->since_ns <= other->since_ns ? oldest : other;
        }
    bool proved = f->options.security.proof != WF_NET_PROOF_NONE;
    if (count >= (proved ? YOUNG_MAX_PROVED : YOUNG_MAX))
        wf_link_close(oldest, "too many others have not said who they are yet");
}

void wf_links_young(struct wf_fabric *f, uint64_t now_ns)
{
    if (!f->young_ns || now_ns < f->young_ns)
        return;
    f->young_ns = 0;
    for (struct wf_link *link = f->links; link; link = link->next) {
        uint64_t until_ns = link->since_ns + young_ns(f);
        if (!is_young(link))
            continue;
        if (now_ns >= until_ns)
            wf_link_close(link, link->refused ? "its name is that of another node"
                                              : "the node there does not say who it is");
        else if (!f->young_ns || until_ns < f->young_ns)
            f->young_ns = until_ns;
    }
}

bool wf_link_anew(struct wf_link *link)
{
    uint64_t now_ns = wf_fabric_now(link->fabric);
    if (!link->anew || now_ns - link->anew_ns > ANEW_NS) {
        link->anew = 0;
        link->anew_ns = now_ns;
    }
    if (++link->anew <= ANEW_MAX)
        return false;
    wf_link_close(link, "it tells all that it has anew, again and again");
    return true;
}

bool wf_link_one_too_many(struct wf_link *link)
{
    uint32_t count = 0;
    for (const struct wf_link *other = link->fabric->links; other; other = other->next)
        count += other->state == WF_LINK_JOINED && !wf_link_proven(other);
    if (count < UNPROVEN_MAX)
        return false;
    wf_link_close(link, "%u others that proved nothing have links already", UNPROVEN_MAX);
    return true;
}
