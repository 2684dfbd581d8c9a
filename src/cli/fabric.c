/* SPDX-License-Identifier: Apache-2.0
 *
 * weft fabric: the cluster as this node sees it.
 */
#include <string.h>

#include "cli/commands.h"

static const char *const examples[] = {
    "who is there, and how far away",
    "weft fabric",
    "how long until others know what is here",
    "weft fabric --json | jq .self.lag_us_p99",
    NULL,
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void self_print(const json_t *self)
{
    char replica[32];
    long long bytes = number_of(self, "replica_bytes");
    printf("%s at %s is %s%s of %s, epoch %lld\n", text_of(self, "name"), text_of(self, "address"),
           strcmp(text_of(self, "standing"), "member") == 0 ? "a " : "", text_of(self, "standing"),
           text_of(self, "registry")[0] ? text_of(self, "registry") : "no registry",
           number_of(self, "epoch"));
    if (text_of(self, "why")[0])
        printf("  %s\n", text_of(self, "why"));
    printf("knows of %lld copies elsewhere, in %s; lag p50 %lld us, p99 %lld us\n",
           number_of(self, "replica_copies"),
           wf_cli_size(bytes > 0 ? (uint64_t)bytes : 0, replica, sizeof replica),
           number_of(self, "lag_us_p50"), number_of(self, "lag_us_p99"));
}

static void nodes_print(const json_t *nodes)
{
    static const char *const shown[] = {"name",   "state",        "rtt_us", "read_gbps",
                                        "blocks", "lag_us",       "reads",  "read_bytes",
                                        "serves", "served_bytes", "address"};
    json_t *rows = json_array(), *from;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from) {
        json_t *row = json_object();
        for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
            wf_cli_json_set(row, shown[i], json_incref(json_object_get(from, shown[i])));
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from)
        if (text_of(from, "why")[0])
            printf("%s: %s\n", text_of(from, "name"), text_of(from, "why"));
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    int code = wf_cli_connect(cli);
    json_t *answer;
    if (code == CLI_OK)
        code = wf_cli_query(cli, "fabric", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *self = json_object_get(answer, "self"), *nodes = json_object_get(answer, "nodes");
    if (cli->json) {
        wf_cli_json_print(answer);
        return CLI_OK;
    }
    if (json_is_object(self)) {
        self_print(self);
        if (json_array_size(nodes))
            nodes_print(nodes);
        else
            printf("no other node is known\n");
    } else {
        printf("this node is alone; weftd --join says to which cluster it belongs\n");
    }
    json_decref(answer);
    return CLI_OK;
}

const struct cli_command wf_cmd_fabric = {
    .name = "fabric",
    .summary = "the other nodes: who is there, how far, and what they have",
    .synopsis = "",
    .about =
        "A node is ok when there is a link to it, it is a member of the cluster, and it has told "
        "all that it has; telling, before it has told all; no member, when its lease is over or it "
        "speaks under an older one, so that nothing it says is believed; away, when there is no "
        "link, and then the reason stands below the table.\n\n"
        "blocks counts copies that it told of and that have not gone, of domains that both nodes "
        "have: those with the same name in one cluster, or with the same secret.  lag_us is how "
        "long it took of late from a change there until it was known here, and read_gbps, in 10^9 "
        "bits a second, what reads from it reached while there were some.",
    .examples = examples,
    .run = run,
};
