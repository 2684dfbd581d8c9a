/* SPDX-License-Identifier: Apache-2.0
 *
 * Once a second a worker glances at the folder: a digest of what its files are called, how large
 * they are and when they changed says whether there is anything to look at, be it a file that was
 * written over where it lies, of which the folder itself knows nothing.  No file is opened for
 * that.
 *
 * A look at the folder takes up what it has not seen yet, a file at a time.  One is known by name,
 * inode, size and time of its last change; what was written to just now is left for the next look,
 * so that a copy under way is not taken for a damaged file.  One look at a time, by the thread that
 * made the node or by a worker; it alone adds to the table, whose entries are published with its
 * count.
 */
#include "daemon/profiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sum.h"
#include "daemon/events.h"
#include "daemon/node.h"
#include "daemon/query.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "sys/paths.h"

#define FILES_MAX 256u       /* of which something is remembered */
#define LOOK_NS 1000000000u  /* between two glances */
#define FRESH_NS 1000000000u /* a file that was changed so lately may not be whole */
#define NAME_BYTES 256u
#define REFUSALS_MAX 16u /* that are told of a look; the log has all */

struct file {
    char name[NAME_BYTES];
    uint64_t changed_ns, bytes, inode, touched_ns; /* touched: the inode's own time */
    uint32_t profile;                              /* in the table; NONE: it was refused */
    bool seen;                                     /* in this look */
};
#define NONE UINT32_MAX

struct kept {
    struct wf_profile *profile;
    char name[NAME_BYTES];     /* of the file that it was read from first */
    _Atomic uint64_t there_ns; /* when its file was changed last; 0: it is not there now */
    bool gone;                 /* that was told; the owner's */
};

struct wf_profiles {
    struct wf_job job; /* first member: a glance by a worker, and a look */
    struct wf_node *node;
    char folder[WF_PATH_MAX + 16];
    /* Of whoever looks: */
    struct file *files; /* [FILES_MAX] */
    uint32_t file_count;
    uint64_t bytes;  /* of all profiles */
    uint32_t unseen; /* files of this look that there was no room to remember */
    uint64_t digest; /* of the folder as it was before the last look */
    bool unsettled;  /* there is to be another look in any case */
    bool looked;     /* by the last job */
    bool starting;
    char refusals[REFUSALS_MAX][WF_EVENT_TEXT_MAX + 1]; /* of this look */
    uint32_t refused;
    /* Published: */
    struct kept kept[WF_PROFILES_MAX];
    _Atomic uint32_t count;
    _Atomic uint64_t generation;
    /* The owner's: */
    bool looking;
    uint32_t told; /* of the table */
    uint64_t glanced_ns;
};

void wf_profiles_folder(const struct wf_node *node, char *out, size_t capacity)
{
    const struct wf_config *config = &node->config;
    if (config->profiles[0])
        snprintf(out, capacity, "%s", config->profiles);
    else if (config->state_dir[0])
        snprintf(out, capacity, "%s/profiles", config->state_dir);
    else
        out[0] = '\0';
}

/* ------------------------------------------------------------------------------------ a look */

static uint64_t ns_of(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

static void refuse(struct wf_profiles *p, const char *name, const char *why)
{
    if (p->refused < REFUSALS_MAX)
        snprintf(p->refusals[p->refused++], sizeof p->refusals[0],
                 "profile %.60s is not used: %.100s", name, why);
    wf_warn("profiles", "%s/%s is not used: %s", p->folder, name, why);
}

static bool read_all(int fd, uint8_t *to, uint64_t bytes)
{
    while (bytes) {
        ssize_t got = read(fd, to, bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        bytes -= (uint64_t)got;
    }
    return true;
}

static uint32_t keep(struct wf_profiles *p, const char *name, struct wf_profile *profile)
{
    uint32_t count = atomic_load_explicit(&p->count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (p->kept[i].profile->id == profile->id) {
            wf_profile_destroy(profile);
            return i;
        }
    if (count == WF_PROFILES_MAX) {
        refuse(p, name, "there are 64 already, counting those whose files went since the start");
        wf_profile_destroy(profile);
        return NONE;
    }
    p->kept[count].profile = profile;
    snprintf(p->kept[count].name, NAME_BYTES, "%s", name);
    p->bytes += profile->head.bytes;
    /* Release: pairs with the acquire in wf_profiles_by_id(). */
    atomic_store_explicit(&p->count, count + 1, memory_order_release);
    return count;
}

/* Only what its head says it must be is read whole. */
static uint32_t take(struct wf_profiles *p, const char *name, int fd, uint64_t bytes)
{
    struct wf_profile *profile = NULL;
    uint8_t head[sizeof(struct wf_profile_head)];
    uint64_t first = bytes < sizeof head ? bytes : sizeof head;
    if (!read_all(fd, head, first)) {
        refuse(p, name, "it cannot be read to its end");
        return NONE;
    }
    if (wf_profile_begins(head, bytes) != WEFT_OK) {
        refuse(p, name, wf_last_error());
        return NONE;
    }
    if (bytes > WF_PROFILES_BYTES_MAX - p->bytes) {
        refuse(p, name, "with those that were read before it is more than 1 GiB");
        return NONE;
    }
    uint8_t *file = malloc(bytes);
    if (file)
        memcpy(file, head, first);
    if (!file || !read_all(fd, file + first, bytes - first))
        refuse(p, name, file ? "it cannot be read to its end" : "there is no memory for it");
    else if (wf_profile_parse(file, bytes, &profile) != WEFT_OK)
        refuse(p, name, wf_last_error());
    free(file);
    return profile ? keep(p, name, profile) : NONE;
}

static struct file *known(struct wf_profiles *p, const char *name)
{
    for (uint32_t i = 0; i < p->file_count; i++)
        if (strcmp(p->files[i].name, name) == 0)
            return &p->files[i];
    if (p->file_count == FILES_MAX)
        return NULL;
    struct file *file = &p->files[p->file_count++];
    *file = (struct file){.profile = NONE};
    snprintf(file->name, sizeof file->name, "%s", name);
    return file;
}

/* One file of the folder. */
static void look_at(struct wf_profiles *p, int folder, const char *name)
{
    struct stat about;
    struct timespec now;
    /* A pipe that nobody writes to is not waited for. */
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
        wf_debug("profiles", "%s/%s is no file that can be read", p->folder, name);
        if (fd >= 0)
            close(fd);
        return;
    }
    struct file *file = known(p, name);
    uint64_t changed_ns = ns_of(&about.st_mtim), bytes = (uint64_t)about.st_size;
    bool same = file && file->changed_ns == changed_ns && file->bytes == bytes &&
                file->inode == (uint64_t)about.st_ino && file->touched_ns == ns_of(&about.st_ctim);
    clock_gettime(CLOCK_REALTIME, &now);
    bool fresh = !p->starting && ns_of(&now) - changed_ns < FRESH_NS;
    if (file)
        file->seen = true;
    else
        p->unseen++;
    if (file && !same && fresh) {
        p->unsettled = true;
    } else if (file && !same) {
        file->changed_ns = changed_ns;
        file->bytes = bytes;
        file->inode = (uint64_t)about.st_ino;
        file->touched_ns = ns_of(&about.st_ctim);
        file->profile = take(p, name, fd, bytes);
    }
    close(fd);
}

/* Files that are not there any more are forgotten, and what is there now is what is written by. */
static void settle(struct wf_profiles *p)
{
    uint64_t there_ns[WF_PROFILES_MAX] = {0};
    uint32_t left = 0;
    for (uint32_t i = 0; i < p->file_count; i++) {
        const struct file *file = &p->files[i];
        if (!file->seen)
            continue;
        /* Who unpacks files may give them no time at all: there they are all the same. */
        if (file->profile != NONE && file->changed_ns >= there_ns[file->profile])
            there_ns[file->profile] = file->changed_ns ? file->changed_ns : 1;
        p->files[left++] = *file;
    }
    p->file_count = left;
    uint32_t count = atomic_load_explicit(&p->count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        atomic_store_explicit(&p->kept[i].there_ns, there_ns[i], memory_order_relaxed);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_release);
}

/* The next file that may be a profile; NULL: that was all. */
static const char *next_name(DIR *folder)
{
    size_t suffix = strlen(WF_PROFILES_SUFFIX);
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        size_t length = strlen(entry->d_name);
        if (entry->d_name[0] != '.' && length > suffix && length < NAME_BYTES &&
            strcmp(entry->d_name + length - suffix, WF_PROFILES_SUFFIX) == 0)
            return entry->d_name;
    }
    return NULL;
}

/* Of the files' names and of what the folder knows about each, in no order: a sum. */
static uint64_t glance(const struct wf_profiles *p)
{
    uint64_t digest = 0;
    struct stat about;
    const char *name;
    DIR *folder = opendir(p->folder);
    while (folder && (name = next_name(folder))) {
        if (fstatat(dirfd(folder), name, &about, 0) != 0)
            memset(&about, 0, sizeof about);
        const uint64_t known[] = {(uint64_t)about.st_dev, (uint64_t)about.st_ino,
                                  about.st_mode,          (uint64_t)about.st_size,
                                  ns_of(&about.st_mtim),  ns_of(&about.st_ctim)};
        digest += wf_sum64_seeded(known, sizeof known, wf_sum64(name, strlen(name)));
    }
    if (folder)
        closedir(folder);
    return digest;
}

static void look(struct wf_profiles *p)
{
    DIR *folder = opendir(p->folder);
    const char *name;
    p->refused = 0;
    p->unsettled = false;
    p->unseen = 0;
    for (uint32_t i = 0; i < p->file_count; i++)
        p->files[i].seen = false;
    while (folder && (name = next_name(folder)))
        look_at(p, dirfd(folder), name);
    if (folder)
        closedir(folder);
    settle(p);
    if (p->unseen)
        wf_warn("profiles",
                "%s has %u files more than the %u that are looked at; leave only profiles",
                p->folder, p->unseen, FILES_MAX);
}

/* ---------------------------------------------------------------------------- the owner thread */

/* A file that was taken went, was replaced, or is back. */
static void tell_change(struct wf_profiles *p, struct kept *kept)
{
    bool gone = atomic_load_explicit(&kept->there_ns, memory_order_relaxed) == 0;
    if (gone == kept->gone)
        return;
    kept->gone = gone;
    if (gone)
        wf_warn("profiles",
                "%s/%s, of model %s: that profile is not there any more; nothing is stored by it "
                "now, and what was can be read until the node stops, and after that when its file "
                "is back, under any name",
                p->folder, kept->name, kept->profile->head.model);
    else
        wf_info("profiles", "%s/%s, of model %s: it is there again", p->folder, kept->name,
                kept->profile->head.model);
    if (gone)
        wf_telemetry_event(p->node, NULL, "codec",
                           "profile %.60s is gone, or another now: what was stored by it is read "
                           "until the node stops, and then with its file again",
                           kept->name);
    else
        wf_telemetry_event(p->node, NULL, "codec", "profile %.60s is there again", kept->name);
}

static void tell(struct wf_profiles *p)
{
    for (uint32_t i = 0; i < p->told; i++)
        tell_change(p, &p->kept[i]);
    uint32_t count = atomic_load_explicit(&p->count, memory_order_relaxed);
    for (; p->told < count; p->told++) {
        const struct kept *kept = &p->kept[p->told];
        const struct wf_profile_head *head = &kept->profile->head;
        wf_info("profiles", "%s/%s: of model %s, %u layers of %u heads of %u", p->folder,
                kept->name, head->model, head->layers, head->heads, head->head_dim);
        /* Whether a format is so, weft ls formats says. */
        wf_telemetry_event(p->node, NULL, "codec",
                           "profile %.64s was read, for KV of %.48s: %u layers, %u KV heads of %u",
                           kept->name, head->model, head->layers, head->heads, head->head_dim);
    }
    for (uint32_t i = 0; i < p->refused; i++)
        wf_telemetry_event(p->node, NULL, "codec", "%s", p->refusals[i]);
    if (p->unseen)
        wf_telemetry_event(p->node, NULL, "codec",
                           "%u files in the folder of profiles are not looked at: %u are all that "
                           "may be there",
                           p->unseen, FILES_MAX);
}

static void look_run(struct wf_job *job)
{
    struct wf_profiles *p = (struct wf_profiles *)job;
    /* Before the look: what changes during it is seen by the next. */
    uint64_t digest = glance(p);
    p->looked = digest != p->digest || p->unsettled;
    p->digest = digest;
    if (p->looked)
        look(p);
}

static void look_done(struct wf_job *job)
{
    struct wf_profiles *p = (struct wf_profiles *)job;
    p->looking = false;
    if (p->looked)
        tell(p);
}

void wf_profiles_tick(struct wf_profiles *p)
{
    uint64_t now_ns = wf_now_ns();
    if (p->looking || !p->folder[0] || now_ns - p->glanced_ns < LOOK_NS)
        return;
    p->glanced_ns = now_ns;
    p->job.run = look_run;
    p->job.done = look_done;
    p->looking = wf_workers_submit(p->node->workers, &p->job);
}

/* Who asks for a loss and has no profile at all learns it before the first block is written. */
static void tell_none(const struct wf_profiles *p)
{
    const struct wf_node *node = p->node;
    for (uint32_t i = 0; i < node->config.domain_count; i++) {
        const struct wf_domain_config *config = &node->config.domains[i];
        enum weft_quality quality = wf_domain_quality(config);
        if (quality == WEFT_LOSSLESS || p->told)
            continue;
        wf_info("profiles",
                "domain %s asks for %s, and %s%s; until one is there (weft codec calibrate, weft "
                "codec install) its blocks are stored losslessly",
                config->name, weft_quality_name(quality),
                p->folder[0] ? "there is no profile in "
                             : "there is no folder of profiles: "
                               "set state_dir or profiles",
                p->folder);
        return;
    }
}

/* So that whoever brings a profile finds a folder of the node's own to put it in. */
static void folder_ready(const struct wf_node *node)
{
    bool wanted = false;
    for (uint32_t i = 0; i < node->config.domain_count; i++)
        wanted |= wf_domain_quality(&node->config.domains[i]) != WEFT_LOSSLESS;
    if (wanted && !node->config.profiles[0] && node->config.state_dir[0] &&
        wf_state_directory(node->config.state_dir) != WEFT_OK)
        wf_warn("profiles", "%s", wf_last_error());
}

enum weft_status wf_profiles_create(struct wf_node *node, struct wf_profiles **out)
{
    struct wf_profiles *p = wf_calloc(1, sizeof *p, "the table of profiles");
    struct file *files = wf_calloc(FILES_MAX, sizeof *files, "the table of profiles");
    if (!p || !files) {
        free(p);
        free(files);
        return WEFT_E_NO_MEMORY;
    }
    p->node = node;
    p->files = files;
    folder_ready(node);
    wf_profiles_folder(node, p->folder, sizeof p->folder);
    p->glanced_ns = wf_now_ns();
    if (p->folder[0]) {
        p->digest = glance(p);
        p->starting = true;
        look(p);
        p->starting = false;
        tell(p);
    }
    tell_none(p);
    *out = p;
    return WEFT_OK;
}

void wf_profiles_destroy(struct wf_profiles *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->count; i++)
        wf_profile_destroy(p->kept[i].profile);
    free(p->files);
    free(p);
}

/* ------------------------------------------------------------------------------------- choosing */

const struct wf_profile *wf_profiles_by_id(void *profiles, uint64_t id)
{
    struct wf_profiles *p = profiles;
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (p->kept[i].profile->id == id)
            return p->kept[i].profile;
    return NULL;
}

uint64_t wf_profiles_bits(void *profiles)
{
    const struct wf_profiles *p = profiles;
    uint64_t bits = 0;
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        bits |= 1ull << (p->kept[i].profile->id % 64);
    return bits;
}

uint64_t wf_profiles_generation(const struct wf_profiles *p)
{
    return atomic_load_explicit(&p->generation, memory_order_acquire);
}

/* Are keys turned as the profile takes them to be?  Scaled positions are the model's affair, which
 * its name says. */
static bool turns_alike(const struct wf_profile *profile, const struct wf_format_open *format)
{
    const struct wf_rope *rope = &profile->rope;
    if (!rope->dims || !(format->rope_theta > 0))
        return !rope->dims && !(format->rope_theta > 0);
    if (format->scaling_bytes || rope->dims < 4)
        return true;
    double expected = pow(format->rope_theta, -2.0 / rope->dims);
    return fabs(rope->frequencies[1] - expected) <= 1e-4 * expected;
}

/* Why there can be no profile of such a format; NULL: there can.  A rank of several has some of the
 * model's heads, and an adapter makes other KV; a profile says of neither whose it is. */
static const char *none_can_be(const struct wf_format_open *format)
{
    return format->block_bytes          ? "blocks are opaque"
           : format->dtype == WEFT_INT8 ? "numbers are int8"
           : format->tp_size > 1        ? "ranks are several"
           : format->adapter_bytes      ? "there is an adapter"
                                        : NULL;
}

bool wf_profiles_fit(const struct wf_profile *profile, const struct wf_format_open *format)
{
    const struct wf_profile_head *head = &profile->head;
    return strcmp(head->model, format->model) == 0 && !none_can_be(format) &&
           head->layers == format->layers && head->heads == format->kv_heads &&
           head->head_dim == format->head_dim && wf_profile_rounds_alike(head, format->dtype) &&
           turns_alike(profile, format);
}

const struct wf_profile *wf_profiles_for(const struct wf_profiles *p,
                                         const struct wf_format_open *format)
{
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    const struct wf_profile *best = NULL;
    uint64_t best_ns = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t there_ns = atomic_load_explicit(&p->kept[i].there_ns, memory_order_relaxed);
        if (there_ns > best_ns && wf_profiles_fit(p->kept[i].profile, format)) {
            best = p->kept[i].profile;
            best_ns = there_ns;
        }
    }
    return best;
}

bool wf_profiles_named(const struct wf_profiles *p, const char *model)
{
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (atomic_load_explicit(&p->kept[i].there_ns, memory_order_relaxed) &&
            strcmp(p->kept[i].profile->head.model, model) == 0)
            return true;
    return false;
}

struct sentence {
    char *text;
    size_t capacity, length;
};

__attribute__((format(printf, 2, 3))) static void say(struct sentence *s, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(s->text + s->length, s->capacity - s->length, format, arguments);
    va_end(arguments);
    size_t left = s->capacity - s->length - 1;
    s->length += more < 0 ? 0 : (size_t)more < left ? (size_t)more : left;
}

static void say_rope(struct sentence *s, const struct wf_rope *rope, double theta)
{
    if (rope->dims >= 4)
        say(s, " rotary base %.6g,", pow(rope->frequencies[1], -0.5 * rope->dims));
    else
        say(s, rope->dims ? " rotary keys," : " keys that are not turned,");
    if (theta > 0)
        say(s, " not %.6g", theta);
    else
        say(s, " not ones that are not turned");
}

static const char *dtype_name(uint32_t dtype)
{
    static const char *const names[] = {"?", "f32", "f16", "bf16", "fp8_e4m3", "fp8_e5m2", "int8"};
    return names[dtype <= WEFT_INT8 ? dtype : 0];
}

static void say_differences(struct sentence *s, const struct kept *kept,
                            const struct wf_format_open *format)
{
    const struct wf_profile_head *head = &kept->profile->head;
    const struct {
        const char *name;
        uint32_t is, wanted;
    } counts[] = {{"layers", head->layers, format->layers},
                  {"KV heads", head->heads, format->kv_heads},
                  {"channels a head", head->head_dim, format->head_dim}};
    const char *separator = "";
    say(s, "%.64s is for", kept->name);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].is != counts[i].wanted) {
            say(s, "%s %u %s, not %u", separator, counts[i].is, counts[i].name, counts[i].wanted);
            separator = ";";
        }
    if (!turns_alike(kept->profile, format)) {
        say(s, "%s", separator);
        say_rope(s, &kept->profile->rope, format->rope_theta);
        separator = ";";
    }
    if (!wf_profile_rounds_alike(head, format->dtype))
        say(s, "%s %s, not %s", separator, dtype_name(head->dtype), dtype_name(format->dtype));
}

bool wf_profiles_why(const struct wf_profiles *p, const struct wf_format_open *format, char *out,
                     size_t capacity)
{
    struct sentence sentence = {.text = out, .capacity = capacity};
    const char *never = none_can_be(format);
    const struct kept *newest = NULL;
    uint64_t newest_ns = 0;
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t there_ns = atomic_load_explicit(&p->kept[i].there_ns, memory_order_relaxed);
        if (there_ns > newest_ns && strcmp(p->kept[i].profile->head.model, format->model) == 0) {
            newest = &p->kept[i];
            newest_ns = there_ns;
        }
    }
    if (never)
        say(&sentence, "there can be none where %s", never);
    else if (newest)
        say_differences(&sentence, newest, format);
    else
        say(&sentence, "none names that model");
    return !never;
}

const char *wf_profiles_name(const struct wf_profiles *p, const struct wf_profile *profile)
{
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++)
        if (p->kept[i].profile == profile)
            return p->kept[i].name;
    return "";
}

char *wf_profiles_list(const struct wf_profiles *p, uint64_t cursor)
{
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire);
    uint64_t i = cursor;
    for (; i < count; i++) {
        const struct kept *kept = &p->kept[i];
        const struct wf_profile_head *head = &kept->profile->head;
        bool there = atomic_load_explicit(&kept->there_ns, memory_order_relaxed) != 0;
        char id[20];
        snprintf(id, sizeof id, "%016llx", (unsigned long long)kept->profile->id);
        if (!wf_query_row(rows, &room,
                          json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:b}", "file",
                                    json_string(kept->name), "model", head->model, "id", id,
                                    "layers", (json_int_t)head->layers, "kv_heads",
                                    (json_int_t)head->heads, "head_dim", (json_int_t)head->head_dim,
                                    "dtype", dtype_name(head->dtype), "bytes",
                                    (json_int_t)head->bytes, "there", there)))
            break;
    }
    json_t *out = json_pack("{s:o, s:o, s:I}", "folder",
                            p->folder[0] ? json_string(p->folder) : json_null(), "profiles", rows,
                            "next", (json_int_t)(i < count ? i : 0));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return text;
}
