/* SPDX-License-Identifier: Apache-2.0
 *
 * What is said of the configuration, to programs and to people: JSON, the packaged file, the manual
 * page and --help name every key, and say its default.
 */
#include <jansson.h>

#include "config_world.h"

static void json_tells_values_and_origins_but_no_token(void **state)
{
    (void)state;
    const char *path = write_file("json.yaml",
                                  "pool: {size: 4MB}\nhttp: {token: do-not-tell-anyone}\n"
                                  "domains: [{name: a, token: do-not-tell-either}]\n"
                                  "tiers: [{name: n, path: /x, size: 1GB}]\n",
                                  0600);
    setenv("WEFT_DRAIN", "2s", 1);
    assert_int_equal(wf_config_load(path, NULL, 0, &config), WEFT_OK);
    char *text = wf_config_json(&config);
    assert_non_null(text);
    assert_null(strstr(text, "do-not-tell"));
    json_t *root = json_loads(text, 0, NULL), *settings = json_object_get(root, "settings");
    assert_non_null(root);
    assert_int_equal(json_object_size(settings), wf_config_field_count);
    const char *origin, *file;
    json_int_t value;
    assert_int_equal(json_unpack(root, "{s:s, s:{s:{s:I, s:s}}}", "file", &file, "settings",
                                 "pool.size", "value", &value, "origin", &origin),
                     0);
    assert_string_equal(file, path);
    assert_int_equal(value, 4 * MIB);
    assert_non_null(strstr(origin, "json.yaml:1"));
    assert_int_equal(json_unpack(settings, "{s:{s:I, s:s}}", "drain", "value", &value, "origin",
                                 &origin),
                     0);
    assert_int_equal(value, 2000);
    assert_string_equal(origin, "env WEFT_DRAIN");
    const char *token;
    assert_int_equal(json_unpack(root, "{s:{s:{s:{s:s, s:s}}}}", "domains", "a", "token", "value",
                                 &token, "origin", &origin),
                     0);
    assert_string_equal(token, "***");
    assert_non_null(strstr(origin, "json.yaml:3"));
    assert_int_equal(json_object_size(json_object_get(root, "tiers")), 1);
    assert_int_equal(json_unpack(root, "{s:{s:{s:{s:I, s:s}}}}", "tiers", "n", "size", "value",
                                 &value, "origin", &origin),
                     0);
    assert_int_equal(value, GIB);
    assert_non_null(strstr(origin, "json.yaml:4"));
    json_t *tier = json_object_get(json_object_get(root, "tiers"), "n");
    assert_int_equal(json_object_size(tier), TIERS->field_count - 1);
    json_decref(root);
    free(text);
}

/* `config` was read from a file: it says every default that does not depend on the host, and no
 * other. */
static void says_the_defaults(void)
{
    struct wf_config *defaults = malloc(sizeof *defaults);
    assert_non_null(defaults);
    wf_config_defaults(defaults);
    for (size_t i = 0; i < wf_config_field_count; i++) {
        const struct wf_field *field = &wf_config_fields[i];
        char expected[WF_CONFIG_VALUE_MAX], got[WF_CONFIG_VALUE_MAX];
        wf_value_text(field, defaults, expected, sizeof expected);
        assert_string_equal(wf_value_text(field, &config, got, sizeof got), expected);
        bool said = config.origin[i].layer == WF_FROM_FILE;
        if (said == (field->host_default != NULL))
            fail_msg("%s: %s", field->key, said ? "this host's value is there" : "is missing");
    }
    assert_int_equal(config.domain_count, 1);
    assert_int_equal(config.tier_count, 0);
    assert_int_equal(config.engine_count, 0);
    for (size_t i = 0; i < DOMAINS->field_count; i++) {
        const struct wf_field *field = &DOMAINS->fields[i];
        char expected[WF_CONFIG_VALUE_MAX], got[WF_CONFIG_VALUE_MAX];
        wf_value_text(field, &defaults->domains[0], expected, sizeof expected);
        assert_string_equal(wf_value_text(field, &config.domains[0], got, sizeof got), expected);
        if (config.domains[0].origin[i].layer != WF_FROM_FILE)
            fail_msg("domain: %s is missing", field->key);
    }
    free(defaults);
}

static void the_packaged_file_says_the_defaults(void **state)
{
    (void)state;
    if (wf_config_load(PACKAGED_CONFIG, NULL, 0, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    says_the_defaults();
}

/* Whether a line of `text`, a comment or not, starts with the last word of `key` and a colon. */
static bool documents(const char *text, const char *key)
{
    const char *dot = strrchr(key, '.');
    const char *word = dot ? dot + 1 : key;
    size_t length = strlen(word);
    for (const char *line = text; *line;
         line += strcspn(line, "\n") + (strchr(line, '\n') != NULL)) {
        const char *at = line + strspn(line, " #-");
        if (strncmp(at, word, length) == 0 && at[length] == ':')
            return true;
    }
    return false;
}

static void the_packaged_file_documents_every_key(void **state)
{
    (void)state;
    static char text[64 * 1024];
    FILE *file = fopen(PACKAGED_CONFIG, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_false(documents(text, "pool.no_such_key"));
    for (size_t i = 0; i < wf_config_field_count; i++)
        if (!documents(text, wf_config_fields[i].key))
            fail_msg("packaging/weftd.yaml does not name %s", wf_config_fields[i].key);
    for (size_t k = 0; k < WF_LIST_COUNT; k++) {
        const struct wf_config_list *list = &wf_config_lists[k];
        char head[64];
        const char *dot = strchr(list->key, '.');
        snprintf(head, sizeof head, "\n%s:", list->key);
        const char *from = strstr(text, head);
        snprintf(head, sizeof head, "\n%s# %s:", dot ? "  " : "", dot ? dot + 1 : list->key);
        from = from ? from : strstr(text, head);
        if (!from)
            fail_msg("packaging/weftd.yaml does not name %s", list->key);
        for (size_t i = 0; from && i < list->field_count; i++)
            if (!documents(from, list->fields[i].key))
                fail_msg("packaging/weftd.yaml does not name %s[].%s", list->key,
                         list->fields[i].key);
    }
}

/* Every ".It Cm key :" of the page is a field, and every field has one. */
static void the_man_page_lists_every_key(void **state)
{
    (void)state;
    FILE *page = fopen(CONFIG_MAN_PAGE, "r");
    assert_non_null(page);
    char line[256], key[WF_CONFIG_KEY_MAX + 1], text[65536] = "";
    const struct wf_config_list *list = NULL;
    size_t listed = 0, expected = wf_config_field_count;
    while (fgets(line, sizeof line, page)) {
        append(text, sizeof text, "%s", line);
        if (strcmp(line, ".Sh DOMAINS\n") == 0)
            list = DOMAINS;
        if (strcmp(line, ".Sh TIERS\n") == 0)
            list = TIERS;
        if (strcmp(line, ".Sh ENGINES\n") == 0)
            list = ENGINES;
        if (strcmp(line, ".Sh LINKS\n") == 0)
            list = &wf_config_lists[WF_LIST_LINKS];
        if (sscanf(line, ".It Cm %63s :", key) != 1)
            continue;
        listed++;
        if ((list ? wf_list_field(list, key) : wf_config_field(key)) < 0)
            fail_msg("the page has %s, which weftd has not", key);
    }
    fclose(page);
    for (size_t i = 0; i < WF_LIST_COUNT; i++)
        expected += wf_config_lists[i].field_count;
    assert_int_equal(listed, expected);
    for (size_t i = 0; i < wf_config_field_count; i++) {
        char variable[WF_CONFIG_KEY_MAX + 6];
        snprintf(line, sizeof line, ".Pq Ev %s\n",
                 wf_config_variable(wf_config_fields[i].key, variable));
        if (!strstr(text, line))
            fail_msg("the page does not name %s", variable);
    }
}

static void help_is_a_configuration_that_says_the_defaults(void **state)
{
    (void)state;
    char *help = wf_config_help();
    assert_non_null(help);
    if (parse(help) != WEFT_OK)
        fail_msg("%s in:\n%s", wf_last_error(), help);
    says_the_defaults();
    for (size_t i = 0; i < wf_config_field_count; i++) {
        char variable[WF_CONFIG_KEY_MAX + 6];
        if (!strstr(help, wf_config_variable(wf_config_fields[i].key, variable)))
            fail_msg("the help does not name %s", variable);
    }
    for (const char *line = help; *line; line += strcspn(line, "\n") + 1)
        if (strcspn(line, "\n") > 120)
            fail_msg("too long: %.130s", line);
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(json_tells_values_and_origins_but_no_token, clean_environment),
        cmocka_unit_test_setup(the_packaged_file_says_the_defaults, clean_environment),
        cmocka_unit_test(the_packaged_file_documents_every_key),
        cmocka_unit_test(the_man_page_lists_every_key),
        cmocka_unit_test_setup(help_is_a_configuration_that_says_the_defaults, clean_environment),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
