/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as what an object store answers: XML, an index, a footer, a credentials file, a
 * service's JSON.  The first byte chooses.
 */
#include <stdlib.h>
#include <string.h>

#include "tier/check.h"
#include "tier/s3_credentials.h"
#include "tier/s3_format.h"
#include "tier/s3_xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void found(void *context, const struct wf_s3_found *item)
{
    size_t *sum = context;
    *sum += strlen(item->key) + strlen(item->upload);
}

static void footer(const struct wf_s3_footer *f, const uint8_t *entries)
{
    for (uint32_t i = 0; i < f->count; i++) {
        struct wf_s3_entry entry;
        struct wf_tier_block block;
        memcpy(&entry, entries + i * sizeof entry, sizeof entry);
        if (!wf_s3_entry_right(&entry, f))
            continue;
        wf_s3_entry_block(&entry, &block);
        if (entry.offset + wf_s3_record_bytes(&block) > f->records_bytes ||
            wf_tier_parts(&block) > WF_TIER_PARTS_MAX)
            abort();
    }
}

static void xml(const uint8_t *data, size_t size)
{
    struct wf_s3_answer answer;
    size_t sum = 0;
    if (wf_s3_xml_read(data, size, &answer, found, &sum) && strlen(answer.root) > size)
        abort();
}

/* With the checksums made right, or no input would ever get past them. */
static void index_object(const uint8_t *data, size_t size)
{
    struct wf_s3_index head;
    struct wf_s3_footer f;
    struct wf_s3_walk walk;
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        return;
    memcpy(copy, data, size);
    if (size >= sizeof head + sizeof f) {
        wf_s3_index_seal(&head, copy[0], size);
        memcpy(copy, &head, sizeof head);
        memcpy(&f, copy + sizeof head, sizeof f);
        if (f.count <= (size - sizeof head - sizeof f) / sizeof(struct wf_s3_entry)) {
            wf_s3_footer_seal(&f, copy + sizeof head + sizeof f);
            memcpy(copy + sizeof head, &f, sizeof f);
        }
    }
    if (wf_s3_walk_begin(&walk, copy, size))
        while (wf_s3_walk_next(&walk))
            footer(&walk.footer, walk.entries);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char out[64];
    struct wf_s3_credentials credentials;
    if (size == 0)
        return 0;
    uint8_t kind = data[0];
    data++, size--;
    switch (kind % 4) {
    case 0: xml(data, size); break;
    case 1: index_object(data, size); break;
    case 2:
        if (wf_s3_ini_find((const char *)data, size, "default", "region", out, sizeof out) &&
            strlen(out) >= sizeof out)
            abort();
        break;
    default: (void)wf_s3_credentials_json(data, size, &credentials); break;
    }
    return 0;
}
