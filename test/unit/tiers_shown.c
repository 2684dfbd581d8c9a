/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands show of a node's tiers, whatever the node says of them.
 *
 * The node here is a canned answer: this program has libweft's functions itself, so that tiers
 * which stall, fail, are emulated or were never measured can be shown without such tiers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

#define ROW                                                                                        \
    "\"capacity_bytes\":107374182400,\"used_bytes\":1610612736,\"blocks\":1536,"                   \
    "\"read_latency_us\":%s,\"read_mbps\":3210.5,\"write_mbps\":45.25,\"reads\":7,\"read_bytes\":" \
    "1000000,\"writes\":8,\"write_bytes\":2000000,\"errors\":0,\"corrupt\":0,\"queued\":0,"        \
    "\"device_write_bytes\":2100000,\"archived_bytes\":0,"

static const char *tiers_answer; /* NULL: the node does not tell */
static enum weft_status connects;
static char shown[16384];

/* ------------------------------------------------------------------------------ the canned node */

enum weft_status weft_connect(const struct weft_connect_options *options, struct weft **out)
{
    (void)options;
    static int place;
    *out = (struct weft *)(void *)&place;
    return connects;
}

enum weft_status weft_query(struct weft *w, const char *what, uint64_t cursor, char **out_json)
{
    (void)cursor;
    assert_non_null(w);
    const char *answer =
        strcmp(what, "status") == 0
            ? "{\"version\":\"1\",\"domains\":[{\"quality\":\"economy\"}],\"socket\":\"/s\"}"
            : tiers_answer;
    if (!answer)
        return WEFT_E_INVALID;
    *out_json = strdup(answer);
    return *out_json ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void weft_text_free(char *text)
{
    free(text);
}

const char *weft_last_error(void)
{
    return "query 'tiers': this node has no such thing";
}

const char *weft_status_name(enum weft_status status)
{
    (void)status;
    return "a status";
}

const char *weft_version(void)
{
    return "1";
}

enum weft_status weft_size_parse(const char *text, uint64_t *out_bytes)
{
    (void)text, (void)out_bytes;
    return WEFT_E_INVALID; /* no command line is read here */
}

/* ------------------------------------------------------------------------------------- commands */

/* Run `command` and keep what it writes to stdout in `shown`. */
static int run(const struct cli_command *command, bool json, const char *word)
{
    struct cli cli = {.command = command,
                      .json = json,
                      .words = {word},
                      .word_count = word != NULL};
    FILE *kept = tmpfile();
    assert_non_null(kept);
    fflush(stdout);
    int before = dup(STDOUT_FILENO);
    assert_true(before >= 0 && dup2(fileno(kept), STDOUT_FILENO) >= 0);
    int code = command->run(&cli);
    fflush(stdout);
    assert_true(dup2(before, STDOUT_FILENO) >= 0);
    close(before);
    rewind(kept);
    shown[fread(shown, 1, sizeof shown - 1, kept)] = '\0';
    fclose(kept);
    return code;
}

static void has(const char *text)
{
    if (!strstr(shown, text))
        fail_msg("without '%s':\n%s", text, shown);
}

static void has_not(const char *text)
{
    if (strstr(shown, text))
        fail_msg("with '%s':\n%s", text, shown);
}

/* The list of `tiers` in the JSON that was shown; borrowed from *out_root. */
static json_t *tiers_of(json_t **out_root)
{
    *out_root = json_loads(shown, 0, NULL);
    if (!*out_root)
        fail_msg("no JSON:\n%s", shown);
    return json_object_get(*out_root, "tiers");
}

static void says_of_no_tiers(void)
{
    json_t *root;
    const json_t *tiers = tiers_of(&root);
    assert_true(json_is_null(tiers));
    json_decref(root);
}

static const char *three(void)
{
    static char text[4096];
    snprintf(text, sizeof text,
             "{\"tiers\":["
             "{\"name\":\"dram0\",\"kind\":\"dram\",\"path\":null,\"state\":\"ok\",\"emulated\":"
             "false,\"durable\":false," ROW "\"reason\":\"\"},"
             "{\"name\":\"cxl0\",\"kind\":\"cxl\",\"path\":\"file-emulation:/x\",\"state\":\"ok\","
             "\"emulated\":true,\"durable\":false," ROW "\"reason\":\"\"},"
             "{\"name\":\"nvme0\",\"kind\":\"nvme\",\"path\":\"/mnt/kv\",\"state\":\"stalled\","
             "\"emulated\":false,\"durable\":true," ROW
             "\"reason\":\"a read takes longer than 5 s\"}],\"next\":0}",
             "0.125", "12.5", "null");
    return text;
}

static void the_matrix_shows_what_was_measured(void **state)
{
    (void)state;
    tiers_answer = three();
    assert_int_equal(run(&wf_cmd_ls, false, "tiers"), CLI_OK);
    has("  read us read MB/s write MB/s  emulated  path\n");
    has("dram0        dram  ok          1.5 GiB    100 GiB      1536      -      0.12      3210   "
        "    45.2  no        -\n");
    has("      12.5      3210       45.2  yes       file-emulation:/x\n");
    has("         -      3210       45.2  no        /mnt/kv\n"); /* not measured yet */
    has("nvme0 is stalled: a read takes longer than 5 s\n");
    has_not("dram0 is");
    has_not("corrupt");
    char *dram = strstr(shown, "dram0"), *cxl = strstr(shown, "cxl0"),
         *nvme = strstr(shown, "nvme0");
    assert_true(dram < cxl && cxl < nvme); /* the node's order is kept */
}

static void rot_is_shown_where_there_is_some(void **state)
{
    (void)state;
    tiers_answer = "{\"tiers\":[{\"name\":\"a\",\"corrupt\":2},{\"name\":\"b\",\"corrupt\":1},"
                   "{\"name\":\"c\",\"corrupt\":0}],\"next\":0}";
    assert_int_equal(run(&wf_cmd_ls, false, "tiers"), CLI_OK);
    has("a: 2 corrupt blocks were found there and dropped\n");
    has("b: 1 corrupt block was found there and dropped\n");
    has_not("c: ");
}

static void loss_is_shown_where_there_is_some(void **state)
{
    (void)state;
    tiers_answer =
        "{\"tiers\":[{\"name\":\"a\",\"codec\":{\"qualities\":{\"lossless\":{\"blocks\":9},"
        "\"transparent\":{\"blocks\":42,\"ratio\":7.91,"
        "\"encode_mbps\":301,\"decode_mbps\":null},\"economy\":{\"blocks\":1,"
        "\"ratio\":15.5}}}},{\"name\":\"b\",\"codec\":{\"qualities\":{\"lossless\":"
        "{\"blocks\":9},\"transparent\":{\"blocks\":0}}}}],\"next\":0}";
    assert_int_equal(run(&wf_cmd_ls, false, "tiers"), CLI_OK);
    has("a: 42 blocks with loss: transparent, 7.91 times smaller; a thread encodes 301 and "
        "decodes - MB/s\n"
        "a: 1 block with loss: economy, 15.5 times smaller; a thread encodes - and decodes - "
        "MB/s\n");
    has_not("b: ");
    assert_int_equal(run(&wf_cmd_status, false, NULL), CLI_OK);
    has("a: 42 blocks with loss");
    has("full  quality\n");
    has(" 0         0        0  economy\n");
}

static void every_command_gives_programs_the_nodes_own_words(void **state)
{
    (void)state;
    tiers_answer = three();
    static const struct cli_command *const commands[] = {&wf_cmd_ls, &wf_cmd_status,
                                                         &wf_cmd_doctor};
    json_t *told = json_loads(tiers_answer, 0, NULL), *root;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        run(commands[i], true, i == 0 ? "tiers" : NULL);
        assert_true(json_equal(tiers_of(&root), json_object_get(told, "tiers")));
        json_decref(root);
    }
    json_decref(told);
}

static void status_shows_the_matrix(void **state)
{
    (void)state;
    tiers_answer = three();
    assert_int_equal(run(&wf_cmd_status, false, NULL), CLI_OK);
    has("nvme0        nvme  stalled");
    tiers_answer = "{\"tiers\":[],\"next\":0}";
    assert_int_equal(run(&wf_cmd_status, false, NULL), CLI_OK);
    has_not("emulated");
}

static void doctor_finds_what_is_not_well(void **state)
{
    (void)state;
    tiers_answer = three();
    assert_int_equal(run(&wf_cmd_doctor, false, NULL), CLI_MISS); /* something is broken */
    has("! BROKEN  tier             nvme0 is stalled\n");
    has("a read takes longer than 5 s");
    has("cxl0         cxl   ok");
    tiers_answer = "{\"tiers\":[{\"name\":\"n\",\"state\":\"opening\"}],\"next\":0}";
    run(&wf_cmd_doctor, false, NULL);
    has("  ok      tiers            1\n");
    has("n            -     opening");
}

static void who_is_not_told_sees_none(void **state)
{
    (void)state;
    tiers_answer = NULL;
    assert_int_equal(run(&wf_cmd_status, true, NULL), CLI_OK);
    says_of_no_tiers();
    assert_int_equal(run(&wf_cmd_status, false, NULL), CLI_OK);
    has_not("emulated");
    assert_int_equal(run(&wf_cmd_ls, false, "tiers"), CLI_USAGE);
    run(&wf_cmd_doctor, false, NULL);
    has("is measured by a node: query 'tiers': this node has no such thing\n");
    tiers_answer = "{\"next\":0}"; /* a node that says something else */
    assert_int_equal(run(&wf_cmd_status, true, NULL), CLI_OK);
    says_of_no_tiers();
    tiers_answer = "[";
    assert_int_equal(run(&wf_cmd_status, true, NULL), CLI_OK);
    says_of_no_tiers();
}

static void without_a_node_the_matrix_is_said_to_need_one(void **state)
{
    (void)state;
    connects = WEFT_E_NODE;
    run(&wf_cmd_doctor, false, NULL);
    has("is measured by a node: no node answers\n");
    run(&wf_cmd_doctor, true, NULL);
    says_of_no_tiers();
    connects = WEFT_OK;
}

/* A row that lacks everything, or has other types, is shown without harm. */
static void odd_rows_do_no_harm(void **state)
{
    (void)state;
    tiers_answer = "{\"tiers\":[{},7,null,{\"name\":3,\"used_bytes\":-5,\"read_latency_us\":\"x\","
                   "\"reason\":[]}],\"next\":0}";
    assert_int_equal(run(&wf_cmd_ls, false, "tiers"), CLI_OK);
    has("-            -     -               0 B          -         0      -         -         -    "
        "      -  no        -\n");
    run(&wf_cmd_doctor, false, NULL);
    assert_int_equal(run(&wf_cmd_status, false, NULL), CLI_OK);
}

/* On a narrow screen top has no room for one. */
static void a_bar_of_no_cells_is_empty(void **state)
{
    (void)state;
    char bar[] = "of another row";
    wf_cli_bar(0.5, 0, bar);
    assert_string_equal(bar, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_matrix_shows_what_was_measured),
        cmocka_unit_test(rot_is_shown_where_there_is_some),
        cmocka_unit_test(loss_is_shown_where_there_is_some),
        cmocka_unit_test(every_command_gives_programs_the_nodes_own_words),
        cmocka_unit_test(status_shows_the_matrix),
        cmocka_unit_test(doctor_finds_what_is_not_well),
        cmocka_unit_test(who_is_not_told_sees_none),
        cmocka_unit_test(without_a_node_the_matrix_is_said_to_need_one),
        cmocka_unit_test(odd_rows_do_no_harm),
        cmocka_unit_test(a_bar_of_no_cells_is_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
