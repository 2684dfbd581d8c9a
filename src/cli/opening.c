/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers that the node is still opening: what lies there is found while it does, so what is not
 * there yet may be in a moment.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define LOOK_US 50000

json_t *wf_cli_opening_list(struct cli *cli)
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
            json_array_foreach (json_object_get(json_object_get(domain, "below"), "opening"), i,
                                name)
                json_array_append(list, name);
    json_decref(status);
    return list;
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
    fprintf(stderr, "weft %s: %s still being opened, and it may be there: waiting for up to %d s\n",
            cli->command->name, names, CLI_OPENING_S);
    while (wf_cli_opening(cli, names, sizeof names) && wf_cli_now_s() < until_s)
        usleep(LOOK_US);
    return true;
}
