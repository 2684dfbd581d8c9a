/* SPDX-License-Identifier: Apache-2.0
 *
 * One file a tier and path, "state_dir/NAME-HASH.tier": a line with the volume and whether it has
 * archives, and one with the path.  It is written beside and renamed; one that cannot be read
 * counts as none, and one that cannot be written is said once.
 */
#include "daemon/volumes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sum.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/node.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/paths.h"
#include "sys/whole.h"

#define TEXT_MAX (WF_PATH_MAX + 64u)
#define NONE_AFTER_NS 60000000000u /* that the last archive left is not written down sooner */

static bool counts(const struct wf_lower *lower)
{
    return lower->config->kind == WF_KIND_NVME;
}

bool wf_volume_place(const struct wf_lower *lower, const char *suffix, char out[WF_PATH_MAX])
{
    /* Nodes that share a state_dir may have tiers of one name. */
    uint32_t of_path = (uint32_t)wf_sum64(lower->path, strlen(lower->path));
    int length = snprintf(out, WF_PATH_MAX, "%s/%s-%08" PRIx32 "%s",
                          lower->below->node->config.state_dir, lower->config->name, of_path,
                          suffix);
    return length > 0 && length < (int)WF_PATH_MAX;
}

uint64_t wf_volume_recall(struct wf_lower *lower)
{
    char path[WF_PATH_MAX], text[TEXT_MAX], right[TEXT_MAX];
    struct wf_volume found = {0};
    int archives = 0;
    lower->volume = found;
    FILE *file = counts(lower) && wf_volume_place(lower, ".tier", path) ? fopen(path, "re") : NULL;
    if (!file)
        return 0;
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[bytes] = '\0';
    if (sscanf(text, "%16" SCNx64 " %d", &found.claim, &archives) != 2)
        return 0;
    found.archives = archives == 1;
    snprintf(right, sizeof right, "%016" PRIx64 " %d\n%s\n", found.claim, archives, lower->path);
    if (strcmp(text, right) != 0) /* of another path, or not ours */
        return 0;
    lower->volume = found;
    return found.archives ? found.claim : 0;
}

static void keep(struct wf_lower *lower, struct wf_volume volume)
{
    char path[WF_PATH_MAX], text[TEXT_MAX];
    int length = snprintf(text, sizeof text, "%016" PRIx64 " %d\n%s\n", volume.claim,
                          volume.archives, lower->path);
    /* Where all domains name their secrets, nobody else has made it. */
    bool good = wf_state_directory(lower->below->node->config.state_dir) == WEFT_OK &&
                wf_volume_place(lower, ".tier", path) && length > 0;
    volume.at_ns = wf_now_ns();
    lower->volume = volume; /* also if it fails: it is not tried all the time */
    good = good && wf_whole_put(AT_FDCWD, path, 0600, text, (size_t)length, WF_WHOLE_SYNC);
    if (!good)
        wf_warn("tier",
                "%s: what it is cannot be written down in '%s': %s; a file that is missing at the "
                "next start would be made anew",
                lower->config->name, lower->below->node->config.state_dir, strerror(errno));
}

/* A block of one lies there, or a manifest, whose blocks may all be elsewhere.  That there are none
 * is known when all manifests were read and no tier is away that may have some: until then it is as
 * it was. */
static bool has_archives(const struct wf_lower *lower)
{
    const struct wf_below *below = lower->below;
    struct wf_directory_sum sum;
    wf_directory_sum(below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    bool has = sum.archived_blocks > 0 || lower->manifests > 0;
    bool known = wf_archives_settled(below) && !wf_archives_waiting(below);
    return has || (!known && lower->volume.archives);
}

void wf_volume_opened(struct wf_lower *lower)
{
    struct wf_volume now = {.claim = lower->stats.tier.claim};
    const struct wf_volume was = lower->volume;
    if (!counts(lower) || (now.claim == was.claim && was.claim))
        return;
    if (was.claim) {
        wf_warn("tier",
                "%s: '%s' is not the volume that was there last, and what that had%s is not here; "
                "if it is on a file system that is not mounted, stop the node and mount it",
                lower->config->name, lower->path, was.archives ? ", archives too," : "");
        wf_telemetry_event(lower->below->node, NULL, "tier_state",
                           "tier %s is another volume than the last one at its path%s",
                           lower->config->name, was.archives ? ", which had archives" : "");
    }
    keep(lower, now);
}

void wf_volume_tick(struct wf_lower *lower)
{
    if (!counts(lower) || !lower->complete)
        return;
    struct wf_volume now = {.claim = lower->stats.tier.claim, .archives = has_archives(lower)};
    bool same = now.claim == lower->volume.claim;
    /* The first archive is remembered before anybody hears of it; that there are none costs the
     * owner a sync, and nobody waits for it. */
    if (same && !now.archives && wf_now_ns() - lower->volume.at_ns < NONE_AFTER_NS)
        return;
    if (now.claim && (!same || now.archives != lower->volume.archives))
        keep(lower, now);
}
