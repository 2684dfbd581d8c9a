/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration for people and for programs: JSON with origins, and the help, both out of the
 * table.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_fields.h"

/* {"value": …, "origin": "…"}; takes the reference to `value`. */
static json_t *with_origin(json_t *value, const char *origin)
{
    json_t *text = json_string(origin);
    if (!text)
        text = json_string("(not UTF-8)");
    return json_pack("{s:o, s:o}", "value", value, "origin", text);
}

static json_t *entry_json(const struct wf_config_list *list, const struct wf_config *config,
                          const void *entry)
{
    char where[WF_ORIGIN_TEXT_MAX];
    json_t *object = json_object();
    for (size_t i = 1; object && i < list->field_count; i++) {
        json_t *value = with_origin(wf_value_json(&list->fields[i], entry),
                                    wf_list_where(list, config, entry, (int)i, where));
        if (json_object_set_new(object, list->fields[i].key, value) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* {"NAME": {…}, …} */
static json_t *list_json(const struct wf_config_list *list, const struct wf_config *config)
{
    json_t *object = json_object();
    for (uint32_t i = 0; object && i < wf_list_count(list, config); i++) {
        const char *entry = wf_list_entry(list, config, i);
        if (json_object_set_new(object, entry, entry_json(list, config, entry)) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

char *wf_config_json(const struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX], *text = NULL;
    json_t *settings = json_object();
    json_t *file = config->file[0] ? json_string(config->file) : json_null();
    bool good = settings != NULL;
    for (size_t i = 0; good && i < wf_config_field_count; i++) {
        json_t *value = wf_value_json(&wf_config_fields[i], config);
        bool empty = json_is_string(value) && json_string_length(value) == 0;
        json_t *entry = with_origin(value, wf_config_where(config, (int)i, where));
        /* What is found where nothing is said. */
        if (empty && wf_config_fields[i].host_default)
            json_object_set_new(entry, "default", json_string(wf_config_fields[i].host_default));
        good = json_object_set_new(settings, wf_config_fields[i].key, entry) == 0;
    }
    json_t *root = json_pack("{s:o, s:o}", "file", file ? file : json_string("(not UTF-8)"),
                             "settings", settings);
    for (size_t i = 0; good && root && i < WF_LIST_COUNT; i++)
        good = json_object_set_new(root, wf_config_lists[i].key,
                                   list_json(&wf_config_lists[i], config)) == 0;
    if (good && root)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}

/* ---------------------------------------------------------------------------------------- help */

#define HELP_WIDTH 92

/* The help sentence as comment lines of at most HELP_WIDTH columns. */
static void print_comment(FILE *out, int indent, const char *text)
{
    while (*text) {
        size_t room = HELP_WIDTH - (size_t)indent - 2, length = strlen(text);
        if (length > room) {
            length = room;
            while (length && text[length] != ' ')
                length--;
            if (!length)
                length = strcspn(text, " "); /* one word wider than the line stands alone */
        }
        fprintf(out, "%*s# %.*s\n", indent, "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

/* Text that YAML would read as something else is quoted; table defaults hold no quotes themselves.
 */
static void print_value(FILE *out, const struct wf_field *field, const char *text)
{
    bool plain = field->type != WF_VALUE_PATH && field->type != WF_VALUE_TOKEN &&
                 field->type != WF_VALUE_WORD && field->type != WF_VALUE_ALLOW;
    fprintf(out, plain ? " %s\n" : " \"%s\"\n", text);
}

static void print_field(FILE *out, const struct wf_field *field, const void *base)
{
    char text[WF_CONFIG_VALUE_MAX], variable[WF_CONFIG_KEY_MAX + 6];
    const char *dot = strchr(field->key, '.');
    int indent = dot ? 2 : 0;
    print_comment(out, indent, field->help);
    char source[WF_CONFIG_VALUE_MAX];
    snprintf(source, sizeof source, "%s%s%s", wf_config_variable(field->key, variable),
             field->host_default ? "; default: " : "",
             field->host_default ? field->host_default : "");
    print_comment(out, indent, source);
    fprintf(out, "%*s%s%s:", indent, "", field->host_default ? "# " : "",
            dot ? dot + 1 : field->key);
    print_value(out, field, wf_value_text(field, base, text, sizeof text));
}

/* The list with the one entry that it has from the start, or one commented out to begin with. */
static void print_list(FILE *out, const struct wf_config_list *list, struct wf_config *config)
{
    char text[WF_CONFIG_VALUE_MAX], variable[WF_CONFIG_KEY_MAX + 6];
    bool commented = wf_list_count(list, config) == 0;
    char *entry = wf_list_entry(list, config, 0);
    const char *dot = strchr(list->key, '.');
    int in = dot ? 2 : 0;
    if (commented) {
        list->defaults(entry);
        snprintf(entry, list->name_max + 1, "%s", list->example);
    }
    snprintf(text, sizeof text, "%s Flags: %s=NAME,NAME and %s.NAME.FIELD=VALUE; %s=NAME,NAME.",
             list->help, list->key, list->one, wf_config_variable(list->key, variable));
    fprintf(out, "\n");
    print_comment(out, in, text);
    fprintf(out, "%*s%s%s:\n", in, "", commented ? "# " : "", dot ? dot + 1 : list->key);
    for (size_t i = 0; i < list->field_count; i++) {
        const struct wf_field *field = &list->fields[i];
        print_comment(out, in + 4, field->help);
        fprintf(out, "%*s%s%s:", in, "",
                i ? (commented ? "    # " : "    ") : (commented ? "#   - " : "  - "), field->key);
        print_value(out, field, wf_value_text(field, entry, text, sizeof text));
    }
}

/* Those that belong to the section `section` of `width` bytes; with 0 of them: to none. */
static void print_lists(FILE *out, const char *section, size_t width, struct wf_config *config)
{
    for (size_t i = 0; i < WF_LIST_COUNT; i++) {
        const char *key = wf_config_lists[i].key, *dot = strchr(key, '.');
        if ((dot ? (size_t)(dot - key) : 0) == width && strncmp(key, section, width) == 0)
            print_list(out, &wf_config_lists[i], config);
    }
}

char *wf_config_help(void)
{
    char *text = NULL;
    size_t length = 0;
    struct wf_config *config = malloc(sizeof *config);
    FILE *out = config ? open_memstream(&text, &length) : NULL;
    if (out) {
        wf_config_defaults(config);
        fprintf(
            out,
            "# weftd's configuration: every key with its default. Environment variables override "
            "this "
            "file,\n# and flags (--set pool.size=4GB) override both.\n");
        const char *section = "";
        for (size_t i = 0; i < wf_config_field_count; i++) {
            const struct wf_field *field = &wf_config_fields[i];
            size_t width = strcspn(field->key, "."), before = strcspn(section, ".");
            bool nested = field->key[width] == '.';
            bool begins = width != before || strncmp(section, field->key, width) != 0;
            if (begins && *section)
                print_lists(out, section, before, config);
            fprintf(out, "\n");
            if (nested && begins)
                fprintf(out, "%.*s:\n", (int)width, field->key);
            section = nested ? field->key : "";
            print_field(out, field, config);
        }
        print_lists(out, "", 0, config);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    free(config);
    return text;
}
