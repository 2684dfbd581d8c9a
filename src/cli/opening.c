/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers that the node is still opening: what lies there is found while it does, so what is not
 * there yet may be in a moment.  And tiers that failed: whether something lies there is not known.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define LOOK_US 50000

/* Names of tiers, of those that the domain is told: "opening" or "failed". */
static json_t *names_ask(struct cli *cli, const char *which)
{
    char *text = NULL;
    json_t *list = json_array(), *status, *domain, *name;
    size_t index, i;
    if (weft_query(cli->weft, "domains", 0, &text) != WEFT_OK)
        return list;
    status = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(status, "domains"), index, domain)
        if (index == 0) /* they have the same tiers */
            json_array_foreach (json_object_get(json_object_get(domain, "below"), which), i, name)
                if (json_is_string(name))
                    json_array_append(list, name);
    json_decref(status);
    return list;
}

json_t *wf_cli_opening_list(struct cli *cli)
{
    return names_ask(cli, "opening");
}

json_t *wf_cli_failed_list(struct cli *cli)
{
    json_t *names = names_ask(cli, "failed"), *out = json_array(), *tiers = NULL, *name, *tier;
    size_t index, i;
    char why[256];
    if (json_array_size(names))
        tiers = wf_cli_tiers_ask(cli->weft, why, sizeof why);
    json_array_foreach (names, index, name) {
        const char *reason = "";
        json_array_foreach (tiers, i, tier)
            if (json_equal(json_object_get(tier, "name"), name))
                reason = json_string_value(json_object_get(tier, "reason"));
        json_t *row = json_object();
        wf_cli_json_set(row, "tier", json_incref(name));
        wf_cli_json_set(row, "reason", json_string(reason ? reason : ""));
        json_array_append_new(out, row);
    }
    json_decref(tiers);
    json_decref(names);
    return out;
}

size_t wf_cli_failed_say(struct cli *cli)
{
    json_t *list = wf_cli_failed_list(cli), *row;
    size_t index, count = json_array_size(list);
    json_array_foreach (list, index, row) {
        const char *reason = json_string_value(json_object_get(row, "reason"));
        fprintf(stderr, "weft %s: tier %s is failed%s%s; what it holds is not known%s\n",
                cli->command->name, json_string_value(json_object_get(row, "tier")),
                *reason ? ": " : "", reason,
                *reason ? "" : " (weft ls tiers says why, to the node's own user)");
    }
    json_decref(list);
    return count;
}

const char *wf_cli_opening(struct cli *cli, char *out, size_t capacity)
{
    json_t *list = wf_cli_opening_list(cli), *name;
    size_t index, used = 0;
    out[0] = '\0';
    json_array_foreach (list, index, name)
        if (used < capacity && json_is_string(name))
            used += (size_t)snprintf(out + used, capacity - used, "%s%s",
                                     index                       ? " and "
                                     : json_array_size(list) > 1 ? "tiers "
                                                                 : "tier ",
                                     json_string_value(name));
    if (used && used < capacity)
        snprintf(out + used, capacity - used, " %s", json_array_size(list) > 1 ? "are" : "is");
    json_decref(list);
    return out[0] ? out : NULL;
}

bool wf_cli_opening_wait(struct cli *cli)
{
    char names[CLI_OPENING_MAX];
    double until_s = wf_cli_now_s() + CLI_OPENING_S;
    if (!wf_cli_opening(cli, names, sizeof names))
        return false;
    fprintf(stderr,
            "weft %s: %s still being opened, and more may be there: waiting for up to %d s\n",
            cli->command->name, names, CLI_OPENING_S);
    while (wf_cli_opening(cli, names, sizeof names) && wf_cli_now_s() < until_s)
        usleep(LOOK_US);
    return true;
}
