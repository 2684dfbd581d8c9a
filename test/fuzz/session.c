/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as an exported session: what the header says is in its bounds, the file's size follows
 * from it without overflow, and it is written again as it was read.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cli/session_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct session_head head;
    uint8_t again[SESSION_HEAD_BYTES_MAX];
    const char *why = NULL;
    if (size < SESSION_HEAD_BYTES)
        return 0;
    size_t length = wf_session_head_length(data, &why);
    assert(length || why);
    if (!length || length > size)
        return 0;
    assert(length <= SESSION_HEAD_BYTES_MAX);
    if (!wf_session_head_read(data, length, &head, &why)) {
        assert(why);
        return 0;
    }
    assert(strlen(head.name) >= 1 && head.blocks >= 1 && head.blocks <= SESSION_BLOCKS_MAX);
    assert(wf_session_file_bytes(&head, length) > head.blocks * head.block_bytes);
    assert(wf_session_head_write(&head, again) == length);
    return 0;
}
