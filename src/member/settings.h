/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings by name, WF_SETTINGS_MAX at most.  One thread, or under its user's lock.
 */
#ifndef WF_MEMBER_SETTINGS_H
#define WF_MEMBER_SETTINGS_H

#include "member/member.h"

struct wf_setting {
    char name[WF_SETTING_NAME_MAX + 1];
    char *value;
    uint64_t revision;
};

struct wf_settings {
    struct wf_setting *items; /* WF_SETTINGS_MAX of them, once there was one */
    uint32_t count;
};

void wf_settings_fini(struct wf_settings *settings);

/* NULL: there is none such. */
struct wf_setting *wf_settings_find(const struct wf_settings *settings, const char *name);

/* Its value to `out`, and its revision.  WEFT_MISS: there is none such; WEFT_E_LIMIT. */
enum weft_status wf_settings_read(const struct wf_settings *settings, const char *name, char *out,
                                  size_t out_bytes, uint64_t *out_revision);

/* A copy is kept.  WEFT_E_LIMIT, WEFT_E_NO_MEMORY. */
enum weft_status wf_settings_put(struct wf_settings *settings, const char *name, const char *value,
                                 uint64_t revision);

void wf_settings_remove(struct wf_settings *settings, const char *name);

#endif
