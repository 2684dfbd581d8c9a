/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as the manifest of an archive: what is taken is in its bounds, and is written again as
 * it was read.
 */
#include <assert.h>
#include <string.h>

#include "daemon/archive_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct wf_manifest manifest;
    uint8_t again[WF_ARCHIVE_BYTES_MAX], key[32];
    if (wf_manifest_read(data, size, &manifest) != WEFT_OK)
        return 0;
    assert(strlen(manifest.name) >= 1 && strlen(manifest.name) <= WF_ARCHIVE_NAME_MAX);
    assert(manifest.blocks >= 1 && manifest.blocks <= WF_ARCHIVE_BLOCKS_MAX);
    assert(strlen(manifest.format.model) == manifest.format.model_bytes);
    assert(wf_manifest_write(&manifest, again) == size);
    wf_manifest_key(manifest.domain, manifest.name, manifest.tip, key);
    return 0;
}
