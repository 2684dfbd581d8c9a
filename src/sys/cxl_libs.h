/* SPDX-License-Identifier: Apache-2.0
 *
 * What libdaxctl and libcxl tell, for cxl.c alone.
 */
#ifndef WF_SYS_CXL_LIBS_H
#define WF_SYS_CXL_LIBS_H

#include "sys/cxl.h"

/* -1: libdaxctl is not installed or refused.  Devices have no attributes and no region yet. */
int wf_cxl_libs_devices(struct wf_cxl_device *out, uint32_t max);

/* -1: libcxl is not installed or refused. */
int wf_cxl_libs_regions(struct wf_cxl_region *out, uint32_t max);

#endif
