/* SPDX-License-Identifier: Apache-2.0 */
#include "member/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

void wf_settings_fini(struct wf_settings *settings)
{
    for (uint32_t i = 0; i < settings->count; i++)
        free(settings->items[i].value);
    free(settings->items);
    *settings = (struct wf_settings){0};
}

struct wf_setting *wf_settings_find(const struct wf_settings *settings, const char *name)
{
    for (uint32_t i = 0; i < settings->count; i++)
        if (strcmp(settings->items[i].name, name) == 0)
            return &settings->items[i];
    return NULL;
}

enum weft_status wf_settings_read(const struct wf_settings *settings, const char *name, char *out,
                                  size_t out_bytes, uint64_t *out_revision)
{
    const struct wf_setting *setting = wf_settings_find(settings, name);
    if (!setting)
        return WEFT_MISS;
    size_t bytes = strlen(setting->value) + 1;
    if (bytes > out_bytes)
        return wf_fail(WEFT_E_LIMIT, "the setting '%s' has %zu bytes, and there is room for %zu",
                       name, bytes, out_bytes);
    memcpy(out, setting->value, bytes);
    *out_revision = setting->revision;
    return WEFT_OK;
}

enum weft_status wf_settings_put(struct wf_settings *settings, const char *name, const char *value,
                                 uint64_t revision)
{
    struct wf_setting *setting = wf_settings_find(settings, name);
    if (!setting && settings->count == WF_SETTINGS_MAX)
        return wf_fail(WEFT_E_LIMIT,
                       "there is no room for the setting '%s': %u is all there can "
                       "be",
                       name, WF_SETTINGS_MAX);
    if (!settings->items)
        settings->items = wf_calloc(WF_SETTINGS_MAX, sizeof *settings->items, "settings");
    char *copy = settings->items ? wf_strdup(value, "a setting") : NULL;
    if (!copy)
        return WEFT_E_NO_MEMORY;
    if (!setting) {
        setting = &settings->items[settings->count++];
        *setting = (struct wf_setting){0};
        snprintf(setting->name, sizeof setting->name, "%s", name);
    }
    free(setting->value);
    setting->value = copy;
    setting->revision = revision;
    return WEFT_OK;
}

void wf_settings_remove(struct wf_settings *settings, const char *name)
{
    struct wf_setting *setting = wf_settings_find(settings, name);
    if (!setting)
        return;
    free(setting->value);
    *setting = settings->items[--settings->count];
}
