/* SPDX-License-Identifier: Apache-2.0
 *
 * The check of a directory's invariants, by counting all anew.
 */
#include "core/directory_state.h"

#include <stdlib.h>
#include <string.h>

/* What the entries add up to. */
struct recount {
    struct wf_directory_sum sum[WF_DIRECTORY_TIERS_MAX][WF_DIRECTORY_DOMAINS_MAX];
    uint32_t spare[WF_DIRECTORY_TIERS_MAX][WF_DIRECTORY_DOMAINS_MAX];
    uint32_t live, gone_and_held, unused, queued;
};

static void verify_tree(const struct wf_directory *d, uint32_t at)
{
    const struct entry *e = &d->entries[at];
    uint64_t archives = 0;
    if (e->parent != WF_DIRECTORY_NONE) {
        const struct entry *p = &d->entries[e->parent];
        assert(e->parent < d->entries_used && p->live);
        assert(p->tiers || p->in_dram);
        assert(p->domain == e->domain && p->depth + 1u == e->depth);
        if (e->younger == WF_DIRECTORY_NONE)
            assert(p->child == at);
        else
            assert(d->entries[e->younger].elder == at &&
                   d->entries[e->younger].parent == e->parent);
    }
    for (uint32_t c = e->child; c != WF_DIRECTORY_NONE; c = d->entries[c].elder) {
        assert(d->entries[c].live && d->entries[c].parent == at);
        archives += d->entries[c].archives;
    }
    assert(archives <= e->archives);
}

static void count(const struct entry *e, struct recount *r)
{
    for (unsigned t = 0; t < WF_DIRECTORY_TIERS_MAX; t++) {
        if (!(e->tiers >> t & 1))
            continue;
        struct wf_directory_sum *sum = &r->sum[t][e->domain];
        sum->blocks++;
        sum->bytes += e->bytes;
        sum->archived_blocks += e->archives != 0;
        sum->archived_bytes += e->archives ? e->bytes : 0;
        if (t != nearest_tier(e) && e->archives == 0 && e->holds == 0)
            r->spare[t][e->domain]++;
    }
}

static void verify_queue(struct wf_directory *d, struct queue *q, struct recount *r)
{
    uint32_t colder = WF_DIRECTORY_NONE;
    for (uint32_t at = q->coldest; at != WF_DIRECTORY_NONE; at = d->entries[at].warmer) {
        assert(at < d->entries_used && d->entries[at].live);
        assert(queue_of(d, &d->entries[at]) == q);
        assert(d->entries[at].colder == colder);
        assert(r->queued > 0);
        r->queued--;
        colder = at;
    }
    assert(q->warmest == colder);
}

void wf_directory_verify(const struct wf_directory *directory)
{
    struct wf_directory *d =
        (struct wf_directory *)(uintptr_t)directory; /* queue_of() is for writers */
    struct recount *r = calloc(1, sizeof *r);
    assert(r);
    for (uint32_t at = 0; at < d->entries_used; at++) {
        const struct entry *e = &d->entries[at];
        if (!e->live) {
            assert(!e->tiers && !e->in_dram && !e->archives);
            *(e->holds ? &r->gone_and_held : &r->unused) += 1;
            continue;
        }
        r->live++;
        assert(wf_table_find(&d->table, e->key) == at);
        assert(e->tiers || e->in_dram);
        assert(e->tiers || e->child != WF_DIRECTORY_NONE); /* a bridge leads somewhere */
        assert(e->in_dram || !e->promoted);
        assert(e->domain < d->domains);
        verify_tree(d, at);
        count(e, r);
        r->queued += queue_of(d, e) != NULL;
    }
    assert(r->live == d->table.count && r->live + r->gone_and_held == d->taken);
    assert(d->entries_used <= d->entries_max);
    for (uint32_t at = d->unused; at != WF_DIRECTORY_NONE; at = d->entries[at].hash_next) {
        assert(!d->entries[at].live && !d->entries[at].holds && r->unused > 0);
        r->unused--;
    }
    assert(r->unused == 0);
    for (unsigned t = 0; t < WF_DIRECTORY_TIERS_MAX; t++) {
        assert(memcmp(d->tiers[t].sum, r->sum[t], sizeof r->sum[t]) == 0);
        assert(memcmp(d->tiers[t].spare, r->spare[t], sizeof r->spare[t]) == 0);
        for (uint32_t i = 0; i < WF_DIRECTORY_DOMAINS_MAX; i++)
            for (int kind = 0; kind < QUEUE_KINDS; kind++)
                verify_queue(d, &d->tiers[t].queue[kind][i], r);
    }
    assert(r->queued == 0); /* who may go is in the queue that it belongs to */
    free(r);
}
