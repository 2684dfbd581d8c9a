/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WF_CLIENT_REGION_H
#define WF_CLIENT_REGION_H

#include <stdbool.h>

#include "weft/weft.h"

void *wf_region_memory(const struct weft_region *region);
bool wf_region_writable(const struct weft_region *region);

#endif
