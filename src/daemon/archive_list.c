/* SPDX-License-Identifier: Apache-2.0
 *
 * What queries say of archives: all of a domain's, or one with its keys and its format.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/archive.h"
#include "daemon/metrics.h"
#include "daemon/query.h"

#define CHECK_BLOCKS 65536u /* looked at anew for one page */
#define KEY_ROWS 512u       /* keys in one answer: 64 digits each, beside a format of up to 5 KiB */

static json_t *names_of(const struct wf_below *below, uint8_t tiers)
{
    json_t *names = json_array();
    for (; tiers; tiers &= (uint8_t)(tiers - 1))
        json_array_append_new(names, json_string(below->tiers[__builtin_ctz(tiers)].config->name));
    return names;
}

/* "tier" has the manifest, and "tiers" are all that hold some of the archive.  "unreadable": all
 * of it is there, and a profile is not that some was stored by; "unavailable": the tiers that it
 * waits for may have what is not there; "damaged": none has. */
static json_t *row_of(const struct wf_archives *archives, const struct wf_archive_kept *kept,
                      const struct wf_manifest *manifest)
{
    char tip[65];
    uint8_t waits = wf_archive_waits(archives, kept);
    const char *state = kept->gone     ? "damaged"
                        : kept->unread ? "unreadable"
                        : kept->whole  ? "ok"
                        : waits        ? "unavailable"
                                       : "damaged";
    json_t *on = names_of(archives->below, wf_archive_on(kept));
    json_t *names = names_of(archives->below, waits);
    wf_query_hex(kept->tip, sizeof kept->tip, tip);
    return json_pack("{s:s, s:s, s:I, s:I, s:s, s:o, s:s, s:I, s:s, s:o}", "name", kept->name,
                     "tip", tip, "blocks", (json_int_t)kept->blocks, "bytes",
                     (json_int_t)kept->bytes, "tier", kept->lower->config->name, "tiers", on,
                     "model", manifest->format.model, "created_ms", (json_int_t)kept->created_ms,
                     "state", state, "waits_for", names);
}

void wf_archives_gauge(const struct wf_domain *domain, struct wf_domain_gauges *out)
{
    const struct wf_archives *archives = domain->node->below->archives;
    for (uint32_t i = 0; i < archives->count; i++) {
        const struct wf_archive_kept *kept = archives->kept[i];
        if (kept->domain != domain)
            continue;
        out->archives++;
        out->archive_bytes += kept->bytes;
        out->archives_not_whole += !kept->whole || kept->gone;
    }
}

char *wf_archives_list(const struct wf_domain *domain, uint64_t cursor)
{
    const struct wf_below *below = domain->node->below;
    struct wf_archives *archives = below ? below->archives : NULL;
    uint64_t looked = 0;
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint64_t i = cursor, count = archives ? archives->count : 0;
    for (; i < count && json_array_size(rows) < WF_PAGE_ROWS; i++) {
        struct wf_archive_kept *kept = archives->kept[i];
        struct wf_manifest manifest;
        if (kept->domain != domain ||
            wf_manifest_read(kept->raw, kept->raw_bytes, &manifest) != WEFT_OK)
            continue;
        if ((looked += kept->blocks) <= CHECK_BLOCKS)
            wf_archive_check(archives, kept);
        if (!wf_query_row(rows, &room, row_of(archives, kept, &manifest)))
            break;
    }
    return wf_query_page("archives", rows, i < count ? i : 0);
}

json_t *wf_query_format(const struct wf_format_open *f)
{
    char adapter[2 * sizeof f->adapter + 1], salt[2 * sizeof f->salt + 1];
    wf_query_hex(f->adapter, f->adapter_bytes, adapter);
    wf_query_hex(f->salt, f->salt_bytes, salt);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s, s:s, s:I, s:I}",
                     "model", f->model, "layers", (json_int_t)f->layers, "kv_heads",
                     (json_int_t)f->kv_heads, "head_dim", (json_int_t)f->head_dim, "dtype",
                     (json_int_t)f->dtype, "block_tokens", (json_int_t)f->block_tokens, "tp_rank",
                     (json_int_t)f->tp_rank, "tp_size", (json_int_t)f->tp_size, "rope_theta",
                     f->rope_theta, "rope_scaling", f->scaling, "adapter", adapter, "salt", salt,
                     "block_bytes", (json_int_t)f->block_bytes, "quality", (json_int_t)f->quality);
}

/* The keys first … of a chain, root first. */
static json_t *keys_of(const struct wf_directory *directory, const struct wf_archive_kept *kept,
                       uint64_t first, uint64_t *next)
{
    json_t *keys = json_array();
    uint32_t *entries = kept->entry != WF_DIRECTORY_NONE ? calloc(kept->blocks, sizeof *entries)
                                                         : NULL;
    uint32_t count = entries ? wf_directory_chain(directory, kept->entry, entries, kept->blocks)
                             : 0;
    uint64_t i = first;
    for (; i < count && i < first + KEY_ROWS; i++) {
        struct wf_directory_block block;
        char key[65];
        wf_directory_read(directory, entries[count - 1 - i], &block);
        wf_query_hex(block.key, sizeof block.key, key);
        json_array_append_new(keys, json_string(key));
    }
    *next = i < count ? i : 0;
    free(entries);
    return keys;
}

char *wf_archive_show(const struct wf_domain *domain, const char *name, uint64_t cursor)
{
    struct wf_archives *archives = domain->node->below->archives;
    struct wf_archive_kept *kept = wf_archive_find(archives, domain, name);
    struct wf_manifest manifest;
    uint64_t next = 0;
    if (!kept || wf_manifest_read(kept->raw, kept->raw_bytes, &manifest) != WEFT_OK)
        return NULL;
    wf_archive_check(archives, kept);
    json_t *out = row_of(archives, kept, &manifest);
    json_object_set_new(out, "format", wf_query_format(&manifest.format));
    json_t *keys = keys_of(archives->below->directory, kept, cursor, &next);
    json_object_set_new(out, "keys", keys);
    json_object_set_new(out, "next", json_integer((json_int_t)next));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}
