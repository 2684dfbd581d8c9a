/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "cli/explain.h"

/* What was decided; where it was, what speaks for it is said behind. */
static bool decision_print(const json_t *said)
{
    const char *rule = word(said, "reason");
    unsigned long long blocks = number(said, "blocks"), begun = number(said, "begun");
    double ready_ms = real(said, "ready_in_ms"), look_ms = real(said, "looked_at_in_ms");
    if (strcmp(rule, "now") == 0 && json_object_get(said, "looked_at_in_ms"))
        printf("looked at now, its chain would be brought up");
    else if (strcmp(rule, "now") == 0)
        printf("its chain is brought up, %llu block%s, ready in about %.0f ms", begun,
               wf_cli_s(begun), ready_ms);
    else if (strcmp(rule, "late") == 0)
        printf("its chain is brought up, %llu block%s, but reading takes about %.0f ms, and it is "
               "not ready in time",
               begun, wf_cli_s(begun), ready_ms);
    else if (strcmp(rule, "later") == 0 && look_ms > real(said, "begin_in_ms"))
        printf("its chain is brought up when it is looked at, in %.1f s, if it is as now",
               look_ms / 1e3); /* nothing is begun before */
    else if (strcmp(rule, "later") == 0)
        printf("its chain is brought up in %.1f s", real(said, "begin_in_ms") / 1e3);
    else if (strcmp(rule, "kept") == 0)
        printf("its chain is in DRAM, and is kept there");
    else if (strcmp(rule, "room") == 0)
        printf("%llu of %llu block%s are brought up; there is no room for the rest, where others "
               "are in use or on their way",
               begun, blocks, wf_cli_s(blocks));
    else if (strcmp(rule, "not worth") == 0)
        printf("its chain is not brought up: what would have to go for it is worth more");
    else if (strcmp(rule, "gone") == 0)
        printf("nothing is left of its chain that could be brought up");
    else if (strcmp(rule, "asked") == 0 && begun < blocks)
        printf("%llu of %llu blocks are brought up, because weft_prefetch() asked for it, and "
               "room for the others is made",
               begun, blocks);
    else if (strcmp(rule, "asked") == 0)
        printf("%llu block%s brought up, because weft_prefetch() asked for it", begun,
               begun == 1 ? " is" : "s are");
    else
        printf("its chain is not brought up: nobody would wait less for it");
    return strcmp(rule, "now") == 0 || strcmp(rule, "later") == 0 || strcmp(rule, "late") == 0 ||
           strcmp(rule, "kept") == 0 || strcmp(rule, "not worth") == 0;
}

void wf_explain_prefetch(const json_t *said)
{
    char size[32];
    bool weighed = decision_print(said);
    uint64_t pushed = number(said, "pushed_bytes");
    if (!weighed)
        return;
    printf("; that saves %.3g ms of waiting", real(said, "saved_ms"));
    if (json_object_get(said, "room_ms")) /* one of several domains is not told */
        printf(", and its room costs others %.3g ms", real(said, "room_ms"));
    if (pushed)
        printf(" (%s of theirs has to go)", wf_cli_size(pushed, size, sizeof size));
    else if (json_object_get(said, "pushed_bytes"))
        printf(" (room is free)");
    printf("; it comes back with %.0f %% chance, give or take %.2g s, and is waited for at the "
           "quantile %.2g",
           100 * real(said, "chance"), real(said, "spread_ms") / 1e3, real(said, "quantile"));
}
