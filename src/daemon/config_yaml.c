/* SPDX-License-Identifier: Apache-2.0
 *
 * A YAML text laid over a configuration, event by event.
 *
 * The walk follows the table of fields and goes down only where a key leads, so its depth is that
 * of the table whatever the text does; the first thing that does not fit ends it with the line it
 * stands on.  Anchors and aliases are refused: a small text with them can stand for a huge one.
 */
#include <assert.h>
#include <string.h>
#include <yaml.h>

#include "base/nearest.h"
#include "daemon/config_fields.h"

struct walk {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; owned */
    struct wf_config *config;
    unsigned list_line[WF_LIST_COUNT]; /* 0: not yet */
    unsigned seen_line[WF_CONFIG_FIELDS_MAX];
};

/* "file:line" of the current event. */
static const char *here(const struct walk *walk, char *out)
{
    snprintf(out, WF_ORIGIN_TEXT_MAX, "%s:%zu", walk->config->file,
             walk->event.start_mark.line + 1);
    return out;
}

static unsigned line_of(const struct walk *walk)
{
    return (unsigned)walk->event.start_mark.line + 1;
}

static enum weft_status advance(struct walk *walk)
{
    yaml_event_delete(&walk->event);
    if (!yaml_parser_parse(&walk->parser, &walk->event)) {
        const yaml_parser_t *parser = &walk->parser;
        memset(&walk->event, 0, sizeof walk->event);
        if (parser->error == YAML_MEMORY_ERROR)
            return wf_fail(WEFT_E_NO_MEMORY, "no memory to read %s", walk->config->file);
        return wf_fail(WEFT_E_INVALID,
                       "%s:%zu: this is not YAML: %s; look at indentation, colons and quotes",
                       walk->config->file, parser->problem_mark.line + 1,
                       parser->problem ? parser->problem : "unreadable");
    }
    char where[WF_ORIGIN_TEXT_MAX];
    const yaml_event_t *event = &walk->event;
    bool anchored = event->type == YAML_ALIAS_EVENT ||
                    (event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor) ||
                    (event->type == YAML_MAPPING_START_EVENT && event->data.mapping_start.anchor) ||
                    (event->type == YAML_SEQUENCE_START_EVENT && event->data.sequence_start.anchor);
    if (anchored)
        return wf_fail(WEFT_E_INVALID,
                       "%s: anchors (&) and aliases (*) are not read here; write the value out",
                       here(walk, where));
    return WEFT_OK;
}

/* The current scalar as a string; `what` is the key it belongs to. */
static enum weft_status scalar_text(const struct walk *walk, const char *what, const char **out)
{
    char where[WF_ORIGIN_TEXT_MAX];
    const yaml_event_t *event = &walk->event;
    if (event->type != YAML_SCALAR_EVENT)
        return wf_fail(WEFT_E_INVALID, "%s: %s wants one value, not a %s; write `%s: VALUE`",
                       here(walk, where), what,
                       event->type == YAML_SEQUENCE_START_EVENT ? "list" : "section", what);
    const char *text = (const char *)event->data.scalar.value;
    size_t length = event->data.scalar.length;
    if (strlen(text) != length)
        return wf_fail(WEFT_E_INVALID, "%s: %s has a zero byte in its value; leave it out",
                       here(walk, where), what);
    if (length > WF_CONFIG_VALUE_MAX)
        return wf_fail(WEFT_E_INVALID, "%s: %s has a value of %zu bytes; %d is the most",
                       here(walk, where), what, length, WF_CONFIG_VALUE_MAX);
    *out = text;
    return WEFT_OK;
}

static bool is_null_scalar(const yaml_event_t *event)
{
    if (event->type != YAML_SCALAR_EVENT || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)event->data.scalar.value;
    return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

static enum weft_status key_text(const struct walk *walk, const char *section, char *out)
{
    char where[WF_ORIGIN_TEXT_MAX];
    const char *key;
    if (walk->event.type != YAML_SCALAR_EVENT)
        return wf_fail(WEFT_E_INVALID, "%s: a key must be one word; write `key: value`",
                       here(walk, where));
    enum weft_status status = scalar_text(walk, "a key", &key);
    if (status != WEFT_OK)
        return status;
    int length = snprintf(out, WF_CONFIG_KEY_MAX + 1, "%s%s%s", section, *section ? "." : "", key);
    if (length < 0 || length > WF_CONFIG_KEY_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "%s: there is no key '%.64s…'; `weftd --help-config` lists them",
                       here(walk, where), key);
    return WEFT_OK;
}

/* -------------------------------------------------------------------------- keys that are none */

static bool is_section(const char *key)
{
    size_t length = strlen(key);
    for (size_t i = 0; i < wf_config_field_count; i++)
        if (strncmp(wf_config_fields[i].key, key, length) == 0 &&
            wf_config_fields[i].key[length] == '.')
            return true;
    return false;
}

static enum weft_status unknown_key(const struct walk *walk, const char *key)
{
    char where[WF_ORIGIN_TEXT_MAX];
    char sections[WF_CONFIG_FIELDS_MAX][WF_CONFIG_KEY_MAX + 1];
    struct wf_nearest nearest;
    wf_nearest_init(&nearest, key);
    for (size_t i = 0; i < WF_LIST_COUNT; i++)
        wf_nearest_offer(&nearest, wf_config_lists[i].key);
    for (size_t i = 0; i < wf_config_field_count; i++) {
        const char *known = wf_config_fields[i].key, *dot = strchr(known, '.');
        wf_nearest_offer(&nearest, known);
        if (dot && !strchr(key, '.')) {
            snprintf(sections[i], sizeof sections[i], "%.*s", (int)(dot - known), known);
            wf_nearest_offer(&nearest, sections[i]);
        }
    }
    if (nearest.best)
        return wf_fail(WEFT_E_INVALID, "%s: there is no key '%s'; did you mean '%s'?",
                       here(walk, where), key, nearest.best);
    return wf_fail(WEFT_E_INVALID, "%s: there is no key '%s'; `weftd --help-config` lists them",
                   here(walk, where), key);
}

static enum weft_status unknown_entry_key(const struct walk *walk,
                                          const struct wf_config_list *list, const char *key)
{
    char where[WF_ORIGIN_TEXT_MAX], words[256];
    struct wf_nearest nearest;
    wf_nearest_init(&nearest, key);
    for (size_t i = 0; i < list->field_count; i++)
        wf_nearest_offer(&nearest, list->fields[i].key);
    if (nearest.best)
        return wf_fail(WEFT_E_INVALID, "%s: a %s has no key '%s'; did you mean '%s'?",
                       here(walk, where), list->one, key, nearest.best);
    return wf_fail(WEFT_E_INVALID, "%s: a %s has no key '%s'; write %s", here(walk, where),
                   list->one, key, wf_list_words(list, 0, words, sizeof words));
}

static enum weft_status set_twice(const struct walk *walk, const char *key, unsigned first_line)
{
    char where[WF_ORIGIN_TEXT_MAX];
    return wf_fail(WEFT_E_INVALID, "%s: %s is set twice, first on line %u; keep one",
                   here(walk, where), key, first_line);
}

static enum weft_status no_value(const struct walk *walk, const char *key)
{
    char where[WF_ORIGIN_TEXT_MAX];
    return wf_fail(WEFT_E_INVALID, "%s: %s has no value; write one, or leave the line out",
                   here(walk, where), key);
}

/* --------------------------------------------------------------------------------------- lists */

/* `allow: [1000, alice]` becomes "1000,alice", the form that flags use. */
static enum weft_status allow_list(struct walk *walk, char *out, size_t capacity)
{
    char where[WF_ORIGIN_TEXT_MAX];
    const char *entry;
    size_t used = 0;
    out[0] = '\0';
    for (;;) {
        enum weft_status status = advance(walk);
        if (status != WEFT_OK)
            return status;
        if (walk->event.type == YAML_SEQUENCE_END_EVENT)
            return WEFT_OK;
        status = scalar_text(walk, "each entry of allow", &entry);
        if (status != WEFT_OK)
            return status;
        if (!*entry || strchr(entry, ','))
            return wf_fail(
                WEFT_E_INVALID,
                "%s: allow: '%.64s' is neither a uid nor a user name; write one a list entry",
                here(walk, where), entry);
        if (strlen(entry) + 2 > capacity - used)
            return wf_fail(
                WEFT_E_INVALID,
                "%s: allow: the list is longer than %zu bytes; write any and ask for a token",
                here(walk, where), capacity - 1);
        used += (size_t)snprintf(out + used, capacity - used, "%s%s", used ? "," : "", entry);
    }
}

static enum weft_status entry_value(struct walk *walk, const struct wf_config_list *list,
                                    void *entry, int index)
{
    const struct wf_field *field = &list->fields[index];
    char allow[WF_ALLOW_TEXT_MAX + 1], where[WF_ORIGIN_TEXT_MAX];
    const char *text = allow;
    if (is_null_scalar(&walk->event))
        return no_value(walk, field->key);
    *wf_list_origin(list, entry, index) = (struct wf_config_origin){WF_FROM_FILE, line_of(walk)};
    here(walk, where);
    enum weft_status status;
    if (field->type == WF_VALUE_ALLOW && walk->event.type == YAML_SEQUENCE_START_EVENT)
        status = allow_list(walk, allow, sizeof allow);
    else
        status = scalar_text(walk, field->key, &text);
    return status == WEFT_OK ? wf_value_set(field, entry, text, where, field->key) : status;
}

/* The current event opens the mapping of one entry. */
static enum weft_status entry_mapping(struct walk *walk, const struct wf_config_list *list,
                                      void *entry)
{
    char key[WF_CONFIG_KEY_MAX + 1];
    unsigned seen_line[WF_LIST_FIELDS_MAX] = {0};
    unsigned first_line = line_of(walk);
    const char *name = entry;
    list->defaults(entry);
    for (;;) {
        enum weft_status status = advance(walk);
        if (status != WEFT_OK)
            return status;
        if (walk->event.type == YAML_MAPPING_END_EVENT)
            break;
        status = key_text(walk, "", key);
        if (status != WEFT_OK)
            return status;
        int index = wf_list_field(list, key);
        if (index < 0)
            return unknown_entry_key(walk, list, key);
        if (seen_line[index])
            return set_twice(walk, key, seen_line[index]);
        seen_line[index] = line_of(walk);
        status = advance(walk);
        if (status == WEFT_OK)
            status = entry_value(walk, list, entry, index);
        if (status != WEFT_OK)
            return status;
    }
    if (!name[0])
        return wf_fail(WEFT_E_INVALID, "%s:%u: a %s has no name; add `name: NAME`",
                       walk->config->file, first_line, list->one);
    void *other = wf_list_find(list, walk->config, name);
    if (other)
        return wf_fail(WEFT_E_INVALID,
                       "%s:%u: %s: '%s' is there twice, first on line %u; rename or remove one",
                       walk->config->file, wf_list_origin(list, entry, 0)->line, list->key, name,
                       wf_list_origin(list, other, 0)->line);
    return WEFT_OK;
}

static enum weft_status whole_list(struct walk *walk, int which)
{
    char where[WF_ORIGIN_TEXT_MAX];
    struct wf_config *config = walk->config;
    const struct wf_config_list *list = &wf_config_lists[which];
    if (walk->list_line[which])
        return set_twice(walk, list->key, walk->list_line[which]);
    if (walk->event.type != YAML_SEQUENCE_START_EVENT)
        return wf_fail(WEFT_E_INVALID, "%s: %s is a list; write each as `- name: NAME`",
                       here(walk, where), list->key);
    walk->list_line[which] = line_of(walk);
    struct wf_config_origin origin = {WF_FROM_FILE, line_of(walk)};
    uint32_t count = 0;
    wf_list_resize(list, config, count, origin); /* the list replaces the embedded one */
    for (;;) {
        enum weft_status status = advance(walk);
        if (status != WEFT_OK)
            return status;
        if (walk->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (walk->event.type != YAML_MAPPING_START_EVENT)
            return wf_fail(WEFT_E_INVALID,
                           "%s: %s: an entry is not a mapping; write `- name: NAME`",
                           here(walk, where), list->key);
        if (count == list->max)
            return wf_fail(WEFT_E_INVALID, "%s: %s: there are more than %u; %s", here(walk, where),
                           list->key, list->max, list->over);
        status = entry_mapping(walk, list, wf_list_entry(list, config, count));
        if (status != WEFT_OK)
            return status;
        wf_list_resize(list, config, ++count, origin);
    }
    if (!count && list->empty)
        return wf_fail(WEFT_E_INVALID, "%s: %s is empty, so %s", here(walk, where), list->key,
                       list->empty);
    return WEFT_OK;
}

/* Which list `key` is, or -1. */
static int list_of(const char *key)
{
    for (int i = 0; i < WF_LIST_COUNT; i++)
        if (strcmp(wf_config_lists[i].key, key) == 0)
            return i;
    return -1;
}

/* ------------------------------------------------------------------------------------ the walk */

static enum weft_status field_value(struct walk *walk, int index)
{
    const struct wf_field *field = &wf_config_fields[index];
    char where[WF_ORIGIN_TEXT_MAX];
    const char *text;
    if (walk->seen_line[index])
        return set_twice(walk, field->key, walk->seen_line[index]);
    if (is_null_scalar(&walk->event))
        return no_value(walk, field->key);
    enum weft_status status = scalar_text(walk, field->key, &text);
    if (status == WEFT_OK)
        status = wf_value_set(field, walk->config, text, here(walk, where), field->key);
    walk->seen_line[index] = line_of(walk);
    walk->config->origin[index] = (struct wf_config_origin){WF_FROM_FILE, line_of(walk)};
    return status;
}

/* The current event opens the mapping `section`, "" for the whole document.  Recursion ends at the
 * depth of the table, because is_section() must hold for each level. */
static enum weft_status section_mapping(struct walk *walk, const char *section)
{
    char where[WF_ORIGIN_TEXT_MAX], key[WF_CONFIG_KEY_MAX + 1];
    if (walk->event.type != YAML_MAPPING_START_EVENT)
        return wf_fail(WEFT_E_INVALID, "%s: %s is not a mapping; write `key: value` lines",
                       here(walk, where), *section ? section : "the configuration");
    for (;;) {
        enum weft_status status = advance(walk);
        if (status != WEFT_OK || walk->event.type == YAML_MAPPING_END_EVENT)
            return status;
        status = key_text(walk, section, key);
        if (status != WEFT_OK)
            return status;
        int index = wf_config_field(key);
        int list = list_of(key);
        if (index < 0 && list < 0 && !is_section(key))
            return unknown_key(walk, key);
        status = advance(walk);
        if (status != WEFT_OK)
            return status;
        if (index >= 0)
            status = field_value(walk, index);
        else if (list >= 0)
            status = whole_list(walk, list);
        else if (!is_null_scalar(
                     &walk->event)) /* a section whose lines are all commented out is fine */
            status = section_mapping(walk, key);
        if (status != WEFT_OK)
            return status;
    }
}

static enum weft_status document(struct walk *walk)
{
    char where[WF_ORIGIN_TEXT_MAX];
    enum weft_status status = advance(walk); /* stream start */
    if (status == WEFT_OK)
        status = advance(walk);
    if (status != WEFT_OK || walk->event.type == YAML_STREAM_END_EVENT)
        return status; /* an empty file says nothing */
    status = advance(walk);
    if (status == WEFT_OK && !is_null_scalar(&walk->event))
        status = section_mapping(walk, "");
    if (status == WEFT_OK)
        status = advance(walk); /* document end */
    if (status == WEFT_OK)
        status = advance(walk);
    if (status == WEFT_OK && walk->event.type != YAML_STREAM_END_EVENT)
        return wf_fail(WEFT_E_INVALID,
                       "%s: a second document begins; keep one, without `---` after it",
                       here(walk, where));
    return status;
}

enum weft_status wf_config_parse_yaml(const void *buffer, size_t length, const char *name,
                                      struct wf_config *config)
{
    struct walk walk = {.config = config};
    if (strlen(name) >= sizeof config->file)
        return wf_fail(
            WEFT_E_INVALID,
            "the configuration's path '%.64s…' is longer than %zu bytes; use a shorter one", name,
            sizeof config->file - 1);
    if (length > WF_CONFIG_FILE_BYTES_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "%s is larger than %u bytes; that is no configuration of weftd", name,
                       WF_CONFIG_FILE_BYTES_MAX);
    snprintf(config->file, sizeof config->file, "%s", name);
    if (!yaml_parser_initialize(&walk.parser))
        return wf_fail(WEFT_E_NO_MEMORY, "no memory to read %s", name);
    yaml_parser_set_input_string(&walk.parser, buffer, length);
    enum weft_status status = document(&walk);
    yaml_event_delete(&walk.event);
    yaml_parser_delete(&walk.parser);
    return status;
}
