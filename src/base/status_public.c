/* SPDX-License-Identifier: Apache-2.0
 *
 * What the public header promises of status codes, and what leaves a sentence without a node.  A
 * file of its own, so that a program which uses libweft.so and also keeps sentences of its own
 * (status.c) does not stand in the library's way.
 */
#include "base/size.h"
#include "base/status.h"

const char *weft_last_error(void)
{
    return wf_last_error();
}

enum weft_status weft_size_parse(const char *text, uint64_t *out_bytes)
{
    return wf_size_parse(text, out_bytes);
}

const char *weft_status_name(enum weft_status status)
{
    switch (status) {
    case WEFT_OK: return "WEFT_OK";
    case WEFT_MISS: return "WEFT_MISS";
    case WEFT_PENDING: return "WEFT_PENDING";
    case WEFT_EXISTS: return "WEFT_EXISTS";
    case WEFT_FULL: return "WEFT_FULL";
    case WEFT_E_INVALID: return "WEFT_E_INVALID";
    case WEFT_E_NOT_FOUND: return "WEFT_E_NOT_FOUND";
    case WEFT_E_QUOTA: return "WEFT_E_QUOTA";
    case WEFT_E_DENIED: return "WEFT_E_DENIED";
    case WEFT_E_LIMIT: return "WEFT_E_LIMIT";
    case WEFT_E_TIMEOUT: return "WEFT_E_TIMEOUT";
    case WEFT_E_NO_MEMORY: return "WEFT_E_NO_MEMORY";
    case WEFT_E_BUSY: return "WEFT_E_BUSY";
    case WEFT_E_CORRUPT: return "WEFT_E_CORRUPT";
    case WEFT_E_PARENT: return "WEFT_E_PARENT";
    case WEFT_E_PROTOCOL: return "WEFT_E_PROTOCOL";
    case WEFT_E_NODE: return "WEFT_E_NODE";
    case WEFT_E_SYSTEM: return "WEFT_E_SYSTEM";
    case WEFT_E_FORKED: return "WEFT_E_FORKED";
    }
    return "unknown status";
}
