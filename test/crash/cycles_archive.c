/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives in `make crash`: what weft_archive_keys() said is durable must be there after every
 * kill.
 *
 * An archive is named by its chain and its depth.  One worker at a time makes or removes it; from
 * the moment that a removal begins it is not asked for any more.
 */
#include <stdio.h>
#include <string.h>

#include "cycles.h"
#include "cycles_damage.h"

#define ARCHIVE_MS 5000
#define MANIFEST_MS 2000

static const char *name_of(enum size size, uint32_t chain, uint32_t depth, char name[65])
{
    snprintf(name, 65, "%s-%u-%u", shapes[size].model, chain, depth);
    return name;
}

static bool take(struct archive *archive, const struct worker *k)
{
    uint32_t nobody = 0;
    return atomic_compare_exchange_strong(&archive->busy, &nobody, k->number + 1);
}

void archive_chain(struct worker *k, uint32_t depth)
{
    struct archive *archive = &tally->archive[k->size][k->chain][depth - 1];
    struct weft_archived done;
    char name[65];
    if (!take(archive, k))
        return;
    doing(k, ARCHIVING);
    enum weft_status status = weft_archive_keys(k->c.f[k->size],
                                                name_of(k->size, k->chain, depth, name),
                                                &k->keys[depth - 1], ARCHIVE_MS, &done);
    if (status == WEFT_OK) {
        atomic_store(&archive->kept, true);
        add(&tally->archived, 1);
        if (done.blocks != depth)
            note_error("an archive of another length", WEFT_E_CORRUPT);
    } else if (status == WEFT_E_NOT_FOUND || status == WEFT_E_CORRUPT || status == WEFT_E_LIMIT) {
        add(&tally->archives_refused, 1); /* it went meanwhile; its copy below had rotted */
    } else {
        (void)went_well("archive", status);
    }
    atomic_store(&archive->busy, 0);
}

/* One of those that are kept. */
void archive_drop(struct worker *k)
{
    char name[65];
    for (uint32_t depth = shapes[k->size].depth; depth > 0; depth--) {
        struct archive *archive = &tally->archive[k->size][k->chain][depth - 1];
        if (!atomic_load(&archive->kept) || !take(archive, k))
            continue;
        doing(k, OTHER);
        atomic_store(&archive->kept, false);
        enum weft_status status = weft_archive_remove(k->c.w,
                                                      name_of(k->size, k->chain, depth, name));
        if (status == WEFT_E_NOT_FOUND || went_well("archive remove", status))
            add(&tally->archives_removed, 1);
        atomic_store(&archive->busy, 0);
    }
}

void archives_abandon(uint32_t process)
{
    for (int size = 0; size < SIZES; size++)
        for (uint32_t chain = 0; chain < shapes[size].chains; chain++)
            for (uint32_t depth = 0; depth < shapes[size].depth; depth++) {
                struct archive *archive = &tally->archive[size][chain][depth];
                uint32_t busy = atomic_load(&archive->busy);
                if (busy && (busy - 1) / THREADS == process)
                    atomic_store(&archive->busy, 0);
            }
}

/* All of it must be readable and right, and known by its name. */
static bool verify_one(const struct client *c, enum size size, uint32_t chain, uint32_t depth,
                       const struct weft_key *keys, int *patience_ms)
{
    struct weft_pins pins;
    char name[65], what[80], *text;
    uint32_t right = 0;
    snprintf(what, sizeof what, "archive %s", name_of(size, chain, depth, name));
    /* Manifests are read when the tier is open. */
    enum weft_status status = weft_query(c->w, what, 0, &text);
    for (; (status == WEFT_E_NOT_FOUND || status == WEFT_PENDING) && *patience_ms > 0;
         *patience_ms -= 5) {
        weftd_sleep_ms(5);
        status = weft_query(c->w, what, 0, &text);
    }
    if (status != WEFT_OK) {
        fprintf(stderr, "# archive %s: %s\n", name, weft_last_error());
        return false;
    }
    weft_text_free(text);
    if (weft_get_keys(c->f[size], keys, depth, WEFT_BLOCK_ORDER, &pins) != WEFT_OK) {
        fprintf(stderr, "# archive %s: %s\n", name, weft_last_error());
        return false;
    }
    for (; right < pins.blocks && weft_wait_block(&pins, right) == WEFT_OK; right++) {
        add(&tally->blocks_verified, 1);
        add(&tally->bytes_verified, shapes[size].block_bytes);
        if (!payload_right(pins.data[right], shapes[size].block_bytes, keys[right].bytes))
            wrong_block("of an archive", size, chain, right);
        damage_healed(keys[right].bytes);
    }
    if (right < depth)
        fprintf(stderr, "# archive %s: %u of %u blocks (%u held): %s\n", name, right, depth,
                pins.blocks, weft_last_error());
    weft_pins_release(&pins);
    return right == depth;
}

void archives_verify(const struct client *c, struct archive_sum *sum)
{
    struct weft_key keys[DEPTH_MAX];
    int patience_ms = MANIFEST_MS; /* for all of them together */
    for (int size = 0; size < SIZES; size++)
        for (uint32_t chain = 0; chain < shapes[size].chains; chain++)
            for (uint32_t depth = 1; depth <= shapes[size].depth; depth++) {
                struct archive *archive = &tally->archive[size][chain][depth - 1];
                bool hit;
                if (!atomic_load(&archive->kept) || !chain_keys(c, (enum size)size, chain, keys))
                    continue;
                hit = damage_hit_manifest(keys[depth - 1].bytes);
                for (uint32_t i = 0; i < depth; i++)
                    hit |= damage_hit(keys[i].bytes);
                if (verify_one(c, (enum size)size, chain, depth, keys, &patience_ms)) {
                    sum->verified++;
                    continue;
                }
                *(hit ? &sum->rotten : &sum->lost) += 1;
                if (!hit)
                    fprintf(stderr, "# LOST: archive %s-%u-%u\n", shapes[size].model, chain, depth);
                atomic_store(&archive->kept, false);
            }
}
