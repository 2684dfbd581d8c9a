/* SPDX-License-Identifier: Apache-2.0
 *
 * One file a tier and path, "state_dir/NAME-HASH.wear": a line with the bytes that are left (below
 * 0: owed), those that the bucket holds and the time of day in milliseconds, one with the path, and
 * one with a checksum of both.
 *
 * What the file says, and what came in since, is never more than what the budget has: it is written
 * with a part less (KEPT_LESS), and again as soon as more than that part is spent.  So whoever
 * kills the node loses that part, and gains nothing, however often.  It is written beside and
 * renamed, without a sync: a file that the system lost with its power is of an older time, or
 * cannot be read, which counts as none, and then the budget begins with nothing.  So it does where
 * the file cannot be written again, for it would be read twice.
 */
#include "daemon/budget.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sum.h"
#include "daemon/below.h"
#include "sys/clock.h"
#include "sys/paths.h"
#include "sys/whole.h"

#define TEXT_MAX (WF_PATH_MAX + 128u)
#define KEPT_LESS (1.0 / 64) /* of the bucket: a minute's */
#define OWED_WRITES 16.0     /* or so many writes, of what is owed anyway */
#define BYTES_MOST 1e17      /* of either sign: 18 digits */
#define MS_MOST (INT64_C(1) << 50)

static double now_s(void)
{
    return (double)wf_now_ns() * 1e-9;
}

static bool place(const struct wf_lower *lower, const char *suffix, char out[WF_PATH_MAX])
{
    return lower->below->node->config.state_dir[0] && wf_volume_place(lower, suffix, out);
}

/* Its length; 0: it does not fit. */
static size_t text_of(const struct wf_lower *lower, int64_t bytes, int64_t most, int64_t at_ms,
                      char out[TEXT_MAX])
{
    int length = snprintf(out, TEXT_MAX, "%" PRId64 " %" PRId64 " %" PRId64 "\n%s\n", bytes, most,
                          at_ms, lower->path);
    if (length <= 0 || length >= (int)TEXT_MAX)
        return 0;
    uint64_t sum = wf_sum64(out, (size_t)length);
    int more = snprintf(out + length, TEXT_MAX - (size_t)length, "%016" PRIx64 "\n", sum);
    return more == 17 && length + more < (int)TEXT_MAX ? (size_t)(length + more) : 0;
}

static bool write_down(const struct wf_lower *lower, double bytes)
{
    char path[WF_PATH_MAX], text[TEXT_MAX];
    double bounded = fmax(-BYTES_MOST, fmin(bytes, BYTES_MOST));
    size_t length = text_of(lower, (int64_t)floor(bounded),
                            (int64_t)fmin(lower->wear.most_bytes, BYTES_MOST), wf_unix_ms(), text);
    if (!length || !place(lower, ".wear", path) ||
        wf_state_directory(lower->below->node->config.state_dir) != WEFT_OK)
        return false;
    if (wf_whole_put(AT_FDCWD, path, 0600, text, length, 0))
        return true;
    int error = errno;
    unlink(path); /* what it says is more than there is */
    errno = error;
    return false;
}

/* `less` is kept back, to be spent before the file is written again. */
static void keep(struct wf_lower *lower, double less)
{
    struct wf_budget_kept *kept = &lower->kept;
    if (kept->failed)
        return;
    double bytes = lower->wear.bytes - less;
    *kept = (struct wf_budget_kept){.bytes = bytes, .at_s = now_s()};
    if (write_down(lower, bytes))
        return;
    kept->failed = true;
    if (lower->below->node->config.state_dir[0])
        wf_warn("tier",
                "%s: what its budget of writes has left cannot be written down in '%s': %s; it "
                "begins with nothing at the next start",
                lower->config->name, lower->below->node->config.state_dir, strerror(errno));
}

static bool recall(struct wf_lower *lower)
{
    char path[WF_PATH_MAX], text[TEXT_MAX], right[TEXT_MAX];
    int64_t bytes, most, at_ms;
    FILE *file = place(lower, ".wear", path) ? fopen(path, "re") : NULL;
    if (!file)
        return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    if (sscanf(text, "%19" SCNd64 " %19" SCNd64 " %19" SCNd64, &bytes, &most, &at_ms) != 3 ||
        at_ms < 0 || at_ms > MS_MOST || text_of(lower, bytes, most, at_ms, right) != length ||
        memcmp(text, right, length) != 0)
        return false;
    double away_s = (double)(wf_unix_ms() - at_ms) *
                    1e-3; /* below 0: somebody set the clock back */
    wf_wear_resume(&lower->wear, (double)bytes, (double)most, away_s);
    return true;
}

/* Who is killed again and again without a write owes nothing for it. */
static double less(const struct wf_lower *lower)
{
    return fmax(0, fmin(KEPT_LESS * lower->wear.most_bytes, lower->wear.bytes));
}

void wf_budget_begin(struct wf_lower *lower)
{
    struct wf_wear empty = lower->wear;
    lower->kept = (struct wf_budget_kept){0};
    bool known = recall(lower);
    keep(lower, less(lower));
    if (known && lower->kept.failed)
        lower->wear = empty;
}

void wf_budget_spent(struct wf_lower *lower, double bytes)
{
    const struct wf_budget_kept *kept = &lower->kept;
    double says = kept->bytes + lower->wear.bytes_s * (now_s() - kept->at_s);
    double owed = fmax(KEPT_LESS * lower->wear.most_bytes, OWED_WRITES * bytes);
    if (!kept->failed && lower->wear.bytes < fmin(says, lower->wear.most_bytes))
        keep(lower, lower->wear.bytes > 0 ? less(lower) : owed);
}

void wf_budget_end(struct wf_lower *lower)
{
    if (!(lower->wear.bytes_s > 0))
        return;
    (void)wf_wear_price(&lower->wear, 0, 0, now_s()); /* what has come in since */
    keep(lower, 0);
}
