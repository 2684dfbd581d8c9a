/* SPDX-License-Identifier: Apache-2.0
 *
 * A registry that is a list: two hosts, or a few, that know each other's addresses.
 *
 * Members are this node and whoever is listed, all the time: nobody watches them here, so who does
 * not answer is found out by the links alone.  A name is not known until the node speaks: a listed
 * one is told of with a name made of its address, and with epoch 0, and its hello has the real
 * ones. The list may be the same on every host: this node's own addresses in it are passed over.
 *
 * Standing is MEMBER from the first poll, without an end; its epoch is epoch.h's.
 *
 * Settings are this node's alone: no other is told of them.  They are in STATE_DIR/NAME.settings,
 * one JSON object of texts, which is written beside, made durable and renamed; a crash leaves the
 * one before or the one after.  Without a state directory they end with the node.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "member/checks.h"
#include "member/epoch.h"
#include "member/roster.h"
#include "member/settings.h"
#include "sys/memory.h"
#include "sys/whole.h"

#define ADDRESS_MAX 255u
#define LISTED_MAX 64u /* more hosts than that want a registry */

/* A setting that was changed, or could not be: to be told by the next poll. */
struct set {
    struct set *next;
    char name[WF_SETTING_NAME_MAX + 1];
    enum weft_status status;
    char why[WF_ERROR_MAX]; /* the sentence of an error */
    void (*done)(void *context, enum weft_status status);
    void *context;
};

struct wf_members {
    struct wf_member_events events;
    struct wf_roster roster;
    struct wf_member self; /* as it is to be told of */
    struct wf_standing standing;
    int event, locked;
    struct wf_settings settings;
    uint64_t revision; /* of the last that changed */
    char *state_dir;   /* NULL: none */
    struct set *sets, **sets_end;
    bool begun;   /* the list was told */
    bool changed; /* self was not */
};

static bool among(const char *addresses, const char *address)
{
    size_t length = strlen(address);
    for (const char *word = addresses; *word;) {
        size_t bytes = strcspn(word, " ");
        if (bytes == length && memcmp(word, address, length) == 0)
            return true;
        word += bytes;
        word += strspn(word, " ");
    }
    return false;
}

/* "tcp:[fd00::2]:7411" → "tcp-fd00-2-7411"; what does not fit ends in a hash of the whole. */
static void make_name(const char *address, char out[WF_MEMBER_NAME_MAX + 1])
{
    const size_t hashed_max = WF_MEMBER_NAME_MAX - 17; /* a hyphen and 16 digits */
    uint64_t hash = 0xcbf29ce484222325u;               /* FNV-1a */
    size_t length = 0;
    bool fits = true;
    for (const char *c = address; *c; c++) {
        char low = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        bool letter = (low >= 'a' && low <= 'z') || (low >= '0' && low <= '9');
        bool kept = letter || (length && (low == '.' || out[length - 1] != '-'));
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
        fits = fits && (!kept || length < WF_MEMBER_NAME_MAX);
        if (fits && kept)
            out[length++] = letter || low == '.' ? low : '-';
    }
    if (!fits)
        length = hashed_max;
    while (length && (out[length - 1] == '-' || out[length - 1] == '.'))
        length--;
    out[length] = '\0';
    if (!fits || !length)
        snprintf(out + length, 18, "%s%016llx", length ? "-" : "", (unsigned long long)hash);
}

static enum weft_status take_address(struct wf_members *members, const char *address)
{
    struct wf_member member;
    char name[WF_MEMBER_NAME_MAX + 1];
    if (strpbrk(address, " \t"))
        return wf_fail(WEFT_E_INVALID,
                       "the address '%s' in the list of nodes has a space in it; divide addresses "
                       "by commas",
                       address);
    if (among(members->self.addresses, address))
        return WEFT_OK;
    make_name(address, name);
    enum weft_status status = wf_member_make(name, address, "", &member);
    if (status != WEFT_OK)
        return status;
    const struct wf_member *same = wf_roster_find(&members->roster, name);
    if (same && strcmp(same->addresses, address) == 0)
        return WEFT_OK;
    if (same || strcmp(name, members->self.name) == 0)
        return wf_fail(WEFT_E_INVALID,
                       "the addresses '%s' and '%s' in the list of nodes are too much alike; write "
                       "one differently",
                       address, same ? same->addresses : members->self.name);
    if (members->roster.count == LISTED_MAX)
        return wf_fail(WEFT_E_LIMIT,
                       "more than %u nodes are listed; so many want a registry (etcd://…)",
                       LISTED_MAX);
    return wf_roster_put(&members->roster, &member);
}

static enum weft_status take_list(struct wf_members *members, const char *list)
{
    while (*list) {
        char address[ADDRESS_MAX + 1];
        size_t bytes = strcspn(list, ",");
        if (bytes > ADDRESS_MAX)
            return wf_fail(WEFT_E_INVALID,
                           "the address '%.40s…' in the list of nodes is longer than %u bytes",
                           list, ADDRESS_MAX);
        memcpy(address, list, bytes);
        address[bytes] = '\0';
        list += bytes;
        list += *list == ',';
        char *word = address + strspn(address, " ");
        while (*word && word[strlen(word) - 1] == ' ')
            word[strlen(word) - 1] = '\0';
        enum weft_status status = *word ? take_address(members, word) : WEFT_OK;
        if (status != WEFT_OK)
            return status;
    }
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------ settings */

static void settings_path(const struct wf_members *members, char *out, size_t capacity)
{
    snprintf(out, capacity, "%s/%s.settings", members->state_dir, members->self.name);
}

static enum weft_status settings_read(struct wf_members *members)
{
    char path[PATH_MAX];
    const char *name;
    json_t *value;
    settings_path(members, path, sizeof path);
    json_error_t why;
    FILE *from = fopen(path, "re");
    json_t *all = from ? json_loadf(from, JSON_REJECT_DUPLICATES, &why) : NULL;
    enum weft_status status = WEFT_OK;
    if (from && !json_is_object(all))
        wf_warn("member", "'%s' holds no settings that can be read (%s); there are none now", path,
                all ? "it is no object" : why.text);
    json_object_foreach (all, name, value) {
        const char *text = json_string_value(value);
        if (status != WEFT_OK || !text || wf_setting_check(name, text) != WEFT_OK)
            continue;
        status = wf_settings_put(&members->settings, name, text, ++members->revision);
    }
    json_decref(all);
    if (from)
        fclose(from);
    return status;
}

/* Durable, when it returns WEFT_OK. */
static enum weft_status settings_write(const struct wf_members *members)
{
    char path[PATH_MAX];
    if (!members->state_dir)
        return WEFT_OK;
    json_t *all = json_object();
    for (uint32_t i = 0; i < members->settings.count; i++)
        json_object_set_new(all, members->settings.items[i].name,
                            json_string(members->settings.items[i].value));
    char *text = json_dumps(all, JSON_INDENT(1));
    json_decref(all);
    settings_path(members, path, sizeof path);
    bool good = text && wf_whole_put(AT_FDCWD, path, 0600, text, strlen(text), WF_WHOLE_SYNC);
    free(text);
    return good ? WEFT_OK
                : wf_fail(WEFT_E_SYSTEM,
                          "cannot keep the node's settings in '%s': %s; make room there or set "
                          "state_dir elsewhere",
                          path, strerror(errno));
}

/* It is changed here and on disk, or in neither. */
static enum weft_status settings_change(struct wf_members *members, const char *name,
                                        const char *value)
{
    const struct wf_setting *setting = wf_settings_find(&members->settings, name);
    char *before = setting ? wf_strdup(setting->value, "a setting") : NULL;
    uint64_t revision = setting ? setting->revision : 0;
    if (setting && !before)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = WEFT_OK;
    if (value)
        status = wf_settings_put(&members->settings, name, value, members->revision + 1);
    else
        wf_settings_remove(&members->settings, name);
    if (status == WEFT_OK)
        status = settings_write(members);
    if (status == WEFT_OK)
        members->revision++;
    else if (before)
        (void)wf_settings_put(&members->settings, name, before, revision);
    else
        wf_settings_remove(&members->settings, name);
    free(before);
    return status;
}

static void static_close(struct wf_members *members, uint32_t leave_ms)
{
    (void)leave_ms;
    if (!members)
        return;
    if (members->event >= 0)
        close(members->event);
    if (members->locked >= 0)
        close(members->locked);
    while (members->sets) {
        struct set *set = members->sets;
        members->sets = set->next;
        free(set);
    }
    wf_settings_fini(&members->settings);
    free(members->state_dir);
    wf_roster_fini(&members->roster);
    free(members);
}

static enum weft_status static_open(const struct wf_member_options *options,
                                    struct wf_members **out)
{
    struct wf_members *members = wf_calloc(1, sizeof *members, "the list of nodes");
    if (!members)
        return WEFT_E_NO_MEMORY;
    members->events = options->events;
    members->locked = -1;
    members->sets_end = &members->sets;
    members->event = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    enum weft_status status =
        members->event >= 0
            ? WEFT_OK
            : wf_fail(WEFT_E_SYSTEM, "no descriptor for the list of nodes: %s", strerror(errno));
    if (status == WEFT_OK)
        status = wf_member_make(options->name, options->addresses, options->details,
                                &members->self);
    if (status == WEFT_OK)
        status = take_list(members, options->registry ? options->registry : "");
    if (status == WEFT_OK)
        status = wf_epoch_next(options->state_dir, options->name, &members->self.epoch,
                               &members->locked);
    if (status == WEFT_OK && options->state_dir) {
        members->state_dir = wf_strdup(options->state_dir, "a folder's name");
        status = members->state_dir ? settings_read(members) : WEFT_E_NO_MEMORY;
    }
    if (status == WEFT_OK)
        status = wf_roster_put(&members->roster, &members->self);
    if (status != WEFT_OK) {
        static_close(members, 0);
        return status;
    }
    members->changed = true;
    members->standing = (struct wf_standing){.state = WF_STANDING_MEMBER,
                                             .epoch = members->self.epoch,
                                             .until_ns = UINT64_MAX};
    *out = members;
    return WEFT_OK;
}

static enum weft_status static_publish(struct wf_members *members, const char *addresses,
                                       const char *details)
{
    struct wf_member made;
    enum weft_status status = wf_member_make(members->self.name, addresses, details, &made);
    if (status != WEFT_OK)
        return status;
    made.epoch = members->self.epoch;
    if (wf_member_same(&made, &members->self))
        return WEFT_OK;
    members->self = made;
    members->changed = true;
    (void)eventfd_write(members->event, 1);
    return wf_roster_put(&members->roster, &made);
}

static void static_standing(const struct wf_members *members, struct wf_standing *out)
{
    *out = members->standing;
}

static uint32_t static_list(const struct wf_members *members, struct wf_member *out, uint32_t max)
{
    return wf_roster_list(&members->roster, out, max);
}

/* As it is known here. */
static enum weft_status static_setting(const struct wf_members *members, const char *name,
                                       char *out, size_t out_bytes, uint64_t *out_revision)
{
    return wf_settings_read(&members->settings, name, out, out_bytes, out_revision);
}

static enum weft_status static_set(struct wf_members *members, const char *name, const char *value,
                                   uint64_t revision,
                                   void (*done)(void *context, enum weft_status status),
                                   void *context)
{
    enum weft_status status = wf_setting_check(name, value);
    if (status != WEFT_OK)
        return status;
    const struct wf_setting *old = wf_settings_find(&members->settings, name);
    if (value && !old && members->settings.count == WF_SETTINGS_MAX)
        return wf_fail(WEFT_E_LIMIT, "there are %u settings already", WF_SETTINGS_MAX);
    struct set *set = wf_calloc(1, sizeof *set, "a setting");
    if (!set)
        return WEFT_E_NO_MEMORY;
    set->done = done;
    set->context = context;
    snprintf(set->name, sizeof set->name, "%s", name);
    set->status = (old ? old->revision : 0) == revision && (old || value)
                      ? settings_change(members, name, value)
                      : WEFT_E_BUSY;
    if (set->status < 0 && set->status != WEFT_E_BUSY)
        snprintf(set->why, sizeof set->why, "%s", wf_last_error());
    *members->sets_end = set;
    members->sets_end = &set->next;
    (void)eventfd_write(members->event, 1);
    return WEFT_OK;
}

static int static_event(const struct wf_members *members)
{
    return members->event;
}

static void tell_joined(const struct wf_members *members, const struct wf_member *member)
{
    if (members->events.joined)
        members->events.joined(members->events.context, member);
}

static void tell_setting(const struct wf_members *members, const char *name)
{
    const struct wf_setting *setting = wf_settings_find(&members->settings, name);
    if (members->events.setting)
        members->events.setting(members->events.context, name, setting ? setting->value : NULL,
                                setting ? setting->revision : 0);
}

static void static_poll(struct wf_members *members, uint32_t timeout_ms)
{
    eventfd_t rung;
    struct pollfd wait = {.fd = members->event, .events = POLLIN};
    (void)poll(&wait, 1, timeout_ms > INT32_MAX ? INT32_MAX : (int)timeout_ms);
    (void)eventfd_read(members->event, &rung);
    bool first = !members->begun;
    members->begun = true;
    if (first && members->events.standing)
        members->events.standing(members->events.context, &members->standing);
    if (members->changed) {
        members->changed = false;
        tell_joined(members, &members->self);
    }
    for (uint32_t i = 0; first && i < members->roster.count; i++)
        if (strcmp(members->roster.members[i]->name, members->self.name) != 0)
            tell_joined(members, members->roster.members[i]);
    for (uint32_t i = 0; first && i < members->settings.count; i++)
        tell_setting(members, members->settings.items[i].name);
    while (members->sets) {
        struct set *set = members->sets;
        members->sets = set->next;
        if (!members->sets)
            members->sets_end = &members->sets;
        if (!first && set->status == WEFT_OK)
            tell_setting(members, set->name);
        if (set->why[0])
            (void)wf_fail(set->status, "%s", set->why);
        if (set->done)
            set->done(set->context, set->status);
        free(set);
    }
}

const struct wf_member_ops wf_member_static = {
    .name = "static",
    .open = static_open,
    .close = static_close,
    .publish = static_publish,
    .standing = static_standing,
    .list = static_list,
    .setting = static_setting,
    .set = static_set,
    .event = static_event,
    .poll = static_poll,
};
