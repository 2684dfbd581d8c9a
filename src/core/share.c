/* SPDX-License-Identifier: Apache-2.0 */
#include "core/share.h"

/* One round of water: what is left is dealt by weight.  Who would exceed its ceiling gets that and
 * is out: then it is dealt anew, and the others' parts have only grown.  Weight 0 in all that are
 * in: evenly.  False: nobody was cut, and it is done. */
static bool deal(const struct wf_share *shares, uint32_t count, double left, uint64_t *out)
{
    double weights = 0, open = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (out[i] < shares[i].ceiling) {
            weights += shares[i].weight;
            open++;
        }
    }
    if (open < 1 || left < 1)
        return false;
    bool cut = false;
    for (uint32_t i = 0; i < count; i++) {
        double part = weights > 0 ? shares[i].weight / weights : 1 / open;
        if (out[i] < shares[i].ceiling && part * left > (double)(shares[i].ceiling - out[i])) {
            out[i] = shares[i].ceiling;
            cut = true;
        }
    }
    if (cut)
        return true;
    for (uint32_t i = 0; i < count; i++) {
        double part = weights > 0 ? shares[i].weight / weights : 1 / open;
        if (out[i] < shares[i].ceiling)
            out[i] += (uint64_t)(part * left);
    }
    return false;
}

void wf_share_due(const struct wf_share *shares, uint32_t count, uint64_t total, uint64_t *out)
{
    double floors = 0;
    for (uint32_t i = 0; i < count; i++)
        floors += (double)shares[i].floor;
    double keep = floors > (double)total ? (double)total / floors : 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t floor = keep < 1 ? (uint64_t)(keep * (double)shares[i].floor) : shares[i].floor;
        out[i] = floor < shares[i].ceiling ? floor : shares[i].ceiling;
    }
    for (uint32_t round = 0; round <= count; round++) {
        double given = 0;
        for (uint32_t i = 0; i < count; i++)
            given += (double)out[i];
        if (!deal(shares, count, (double)total - given, out))
            return;
    }
}

static uint32_t class_of(const struct wf_share *share)
{
    return share->class + (share->hurried && share->class < UINT32_MAX);
}

/* What it has beyond what it is due, with what it wants. */
static uint64_t borrowed(const struct wf_share *share, uint64_t due, uint64_t wants)
{
    uint64_t has = share->used + wants;
    return has > due ? has - due : 0;
}

static void gives(const struct wf_share *shares, const uint64_t *due, uint32_t who, uint64_t keeps,
                  enum wf_share_rule rule, struct wf_share_verdict *out)
{
    const struct wf_share *share = &shares[who];
    *out = (struct wf_share_verdict){
        .rule = rule,
        .who = who,
        .most = share->used > keeps ? share->used - keeps : 0,
        .due = due[who],
        .used = share->used,
        .class = class_of(share),
    };
}

/* Who gives back what it has borrowed; the one that wants counts with what it wants. */
static uint32_t borrower(const struct wf_share *shares, const uint64_t *due, uint32_t count,
                         uint32_t wanting, uint64_t wanted)
{
    uint32_t who = WF_SHARE_NONE, class = 0;
    uint64_t most = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t over = borrowed(&shares[i], due[i], i == wanting ? wanted : 0);
        uint32_t its = class_of(&shares[i]);
        if (!over || (!shares[i].gives && i != wanting))
            continue;
        if (who == WF_SHARE_NONE || its < class || (its == class && over > most)) {
            who = i;
            class = its;
            most = over;
        }
    }
    return who;
}

void wf_share_decide(const struct wf_share *shares, const uint64_t *due, uint32_t count,
                     uint64_t total, uint32_t wanting, uint64_t wanted,
                     struct wf_share_verdict *out)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < count; i++)
        used += shares[i].used;
    *out = (struct wf_share_verdict){.rule = WF_SHARE_REFUSED, .who = WF_SHARE_NONE};
    if (wanting != WF_SHARE_NONE) {
        const struct wf_share *own = &shares[wanting];
        if (wanted > own->ceiling || own->used > own->ceiling - wanted) {
            if (own->gives && wanted <= own->ceiling)
                gives(shares, due, wanting, 0, WF_SHARE_CEILING, out);
            return;
        }
    }
    if (used <= total && wanted <= total - used) {
        out->rule = WF_SHARE_FREE;
        return;
    }
    uint32_t who = borrower(shares, due, count, wanting, wanted);
    if (who != WF_SHARE_NONE && who != wanting) {
        gives(shares, due, who, due[who], WF_SHARE_BORROWED, out);
        return;
    }
    if (wanting != WF_SHARE_NONE) {
        if (shares[wanting].gives)
            gives(shares, due, wanting, 0, WF_SHARE_OWN, out);
        return;
    }
    /* The host: the lowest class, then who is farthest above its floor. */
    for (uint32_t i = 0; i < count; i++) {
        uint64_t floor = shares[i].floor < due[i] ? shares[i].floor : due[i];
        if (!shares[i].gives || shares[i].used <= floor)
            continue;
        uint64_t above = shares[i].used - floor;
        uint32_t its = class_of(&shares[i]);
        if (out->who == WF_SHARE_NONE || its < out->class ||
            (its == out->class && above > out->most))
            gives(shares, due, i, floor, WF_SHARE_ABOVE, out);
    }
}

const char *wf_share_rule_name(enum wf_share_rule rule)
{
    static const char *const names[] = {"free", "ceiling", "own", "borrowed", "above", "refused"};
    return names[rule];
}
