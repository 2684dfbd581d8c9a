/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory beyond DRAM that this host has, as JSON: for QUERY "devices" and `weftd --devices`.
 */
#ifndef WF_DAEMON_DEVICES_H
#define WF_DAEMON_DEVICES_H

#include "daemon/below.h"

/* {"regions": […], "devices": […], "libraries": bool} as text, for free(); each device with the
 * tier of `below` that is on it (NULL: none is).  `sysfs` NULL: /sys.  NULL, with a sentence: there
 * are more devices than can be told, or no memory. */
char *wf_devices_json(const struct wf_below *below, const char *sysfs);

#endif
