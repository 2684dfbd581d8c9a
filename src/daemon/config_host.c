/* SPDX-License-Identifier: Apache-2.0
 *
 * What the paths and sizes of tiers mean on this host, in remarks.  Nothing here opens a tier or
 * writes anywhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/size.h"
#include "daemon/config_fields.h"
#include "sys/cxl.h"
#include "sys/host.h"
#include "sys/memory.h"
#include "sys/paths.h"
#include "tier/tier.h"

#define NVME_FILE "/nvme.weft" /* what the NVMe tier makes in a directory */
#define FILE_MAX (WF_PATH_MAX + sizeof NVME_FILE)

/* The directory that `path` lies in; `out` may be `path`. */
static void parent_of(const char *path, char *out, size_t capacity)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length && length < capacity) {
        memmove(out, path, length);
        out[length] = '\0';
    } else {
        snprintf(out, capacity, "%s", slash ? "/" : ".");
    }
}

/* `already`: what the file has taken up before. */
static void check_room(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *directory, uint64_t already)
{
    struct statvfs room;
    char size[24], offered[24];
    if (statvfs(directory, &room) != 0)
        return;
    uint64_t bytes = room.f_bavail * room.f_frsize + already;
    uint64_t most = geteuid() == 0 ? room.f_bfree * room.f_frsize + already : bytes;
    if (tier->size_bytes > bytes)
        wf_remark(
            remarks, tier->size_bytes > most ? WF_REMARK_TIER : WF_REMARK_NOTE,
            "tier '%s': size %s is more than '%s' has room for (%s%s); lower it, or make room",
            tier->name, wf_size_format(tier->size_bytes, size, sizeof size), directory,
            wf_size_format(bytes, offered, sizeof offered),
            tier->size_bytes > most ? "" : ", and the rest is kept for root alone");
}

static void check_block_device(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                               const struct stat *found)
{
    char mounted[WF_PATH_MAX];
    if (access(tier->path, R_OK | W_OK) != 0) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: uid %u may not read and write '%s'; give it the device's group, "
            "or chown it",
            tier->name, (unsigned)geteuid(), tier->path);
        return;
    }
    if (wf_host_mounted(found->st_rdev, mounted, sizeof mounted)) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: '%s' is mounted on '%s' and would be overwritten; unmount it, or "
            "name a file on it",
            tier->name, tier->path, mounted);
        return;
    }
    int fd = open(tier->path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == EBUSY)
        wf_remark(remarks, WF_REMARK_NOTE,
                  "tier '%s': path: '%s' is in use by the kernel, a mounted partition of it or a "
                  "volume on it; make sure that it is free",
                  tier->name, tier->path);
    if (fd >= 0)
        close(fd);
}

/* The file that a tier at `path` is kept in. */
static void file_of(const struct wf_tier_config *tier, const char *path, char out[FILE_MAX])
{
    struct stat found;
    bool inside = tier->kind == WF_KIND_NVME && stat(path, &found) == 0 && S_ISDIR(found.st_mode);
    snprintf(out, FILE_MAX, "%s%s", path, inside ? NVME_FILE : "");
}

/* How large it is to be must be said of a file that is new; what is there may go on as it is. */
static void check_size(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path, const char *directory, bool inside)
{
    uint64_t least = tier->kind == WF_KIND_NVME ? WF_TIER_NVME_BYTES_LEAST
                                                : WF_TIER_CXL_BYTES_LEAST;
    char file[FILE_MAX];
    struct stat found;
    file_of(tier, path, file);
    bool there = stat(file, &found) == 0;
    if (!tier->size_bytes) {
        if (!there || found.st_size == 0)
            wf_remark(
                remarks, WF_REMARK_FATAL,
                "tier '%s': size: '%s' is %s, which does not say how much of it to use; set size, "
                "like 100GB",
                tier->name, path,
                inside  ? "a directory"
                : there ? "an empty file"
                        : "not there yet and will be a file");
    } else if (tier->size_bytes < least) {
        wf_remark(
            remarks, WF_REMARK_FATAL,
            "tier '%s': size: %llu bytes is too little; %llu is the least that a tier can work "
            "with, and some hundred times a block's size is sensible",
            tier->name, (unsigned long long)tier->size_bytes, (unsigned long long)least);
    } else {
        check_room(remarks, tier, directory, there ? (uint64_t)found.st_blocks * 512 : 0);
    }
}

/* What lies there may be another's, or more than `size` holds. */
static void check_content(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                          const char *path)
{
    char file[FILE_MAX];
    file_of(tier, path, file);
    if ((tier->kind == WF_KIND_NVME ? wf_tier_nvme_check(file, tier->size_bytes)
                                    : wf_tier_cxl_check(file)) != WEFT_OK)
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s' cannot be opened: %s", tier->name,
                  wf_last_error());
}

/* Another that runs has it, which the check of a changed configuration is usually asked beside. */
static void check_held(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path)
{
    char file[FILE_MAX], who[32] = "";
    struct stat found;
    pid_t pid = 0;
    file_of(tier, path, file);
    if (stat(file, &found) != 0 || !wf_host_locked(found.st_dev, found.st_ino, &pid))
        return;
    if (pid)
        snprintf(who, sizeof who, ", pid %d", (int)pid);
    wf_remark(remarks, WF_REMARK_NOTE,
              "tier '%s': path: '%s' is in use by a running node%s; only one can have it at a time",
              tier->name, file, who);
}

/* `path` is a file that is there or would be made, or for NVMe a directory or a device. */
static void check_file(struct wf_remarks *remarks, const struct wf_tier_config *tier,
                       const char *path)
{
    struct stat found;
    char directory[WF_PATH_MAX];
    bool there = stat(path, &found) == 0;
    if (there && S_ISBLK(found.st_mode) && tier->kind == WF_KIND_NVME) {
        check_block_device(remarks, tier, &found);
        check_held(remarks, tier, path);
        check_content(remarks, tier, path);
        return;
    }
    bool inside = there && S_ISDIR(found.st_mode) && tier->kind == WF_KIND_NVME;
    if (there && !inside && !S_ISREG(found.st_mode)) {
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s': path: '%s' is no file%s; name another",
                  tier->name, path,
                  tier->kind == WF_KIND_NVME ? ", directory or block device" : "");
        return;
    }
    if (inside)
        snprintf(directory, sizeof directory, "%s", path);
    else
        parent_of(path, directory, sizeof directory);
    if (there ? access(path, inside ? W_OK | X_OK : R_OK | W_OK) != 0
              : access(directory, W_OK | X_OK) != 0 &&
                    strcmp(directory, remarks->config->state_dir) != 0) /* which is made before */
        wf_remark(remarks, WF_REMARK_TIER, "tier '%s': path: '%s' cannot be %s by uid %u: %s; %s",
                  tier->name, path, there ? "written" : "made", (unsigned)geteuid(),
                  strerror(errno),
                  there ? "chown it" : "create its directory, or name another path");
    check_size(remarks, tier, path, directory, inside);
    check_held(remarks, tier, path);
    check_content(remarks, tier, path);
}

static void check_cxl(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    int node = wf_config_numa_node(tier->path);
    if (strcmp(tier->path, "auto") == 0) {
        struct wf_cxl_device device;
        uint32_t count = 0;
        bool libraries;
        enum weft_status status = wf_cxl_find(&(struct wf_cxl_search){0}, &device, 1, &count,
                                              &libraries);
        if (count == 0 && status != WEFT_E_LIMIT)
            wf_remark(remarks, WF_REMARK_FATAL,
                      "tier '%s': path: auto finds no DAX device and no NUMA node without "
                      "processors on this host; name one, or drop the tier",
                      tier->name);
    } else if (wf_config_emulated(tier->path)) {
        check_file(remarks, tier, wf_config_emulated(tier->path));
        wf_remark(remarks, WF_REMARK_NOTE,
                  "tier '%s': '%s' is a file in this host's memory or on its disk, not CXL; it is "
                  "shown as emulated",
                  tier->name, tier->path);
    } else if (node >= 0 && !wf_host_has_numa_node(node)) {
        wf_remark(
            remarks, WF_REMARK_TIER,
            "tier '%s': path: this host has no NUMA node %d; name one that `numactl -H` lists",
            tier->name, node);
    } else if (node >= 0 && wf_cxl_node_has_processors(NULL, node)) {
        wf_remark(remarks, tier->dram_node ? WF_REMARK_NOTE : WF_REMARK_FATAL,
                  "tier '%s': path: NUMA node %d has processors, so its memory is plain DRAM, not "
                  "CXL; name a node without (weft doctor lists them), give the memory to the pool "
                  "(pool.size), or set dram_node: true",
                  tier->name, node);
    } else if (node < 0 && access(tier->path, R_OK | W_OK) != 0) {
        wf_remark(remarks, WF_REMARK_TIER,
                  "tier '%s': path: uid %u may not use '%s': %s; `daxctl list` names the devices",
                  tier->name, (unsigned)geteuid(), tier->path, strerror(errno));
    }
}

/* What the pool has is not for it; pages of both come when they are first written to. */
static void check_dram(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    struct wf_host host;
    char size[24], pool[24], offered[24];
    uint64_t pool_bytes = remarks->config->pool_bytes;
    wf_host_read(&host);
    if (!host.memory_bytes || tier->size_bytes + pool_bytes <= host.memory_bytes)
        return;
    wf_remark(remarks, tier->size_bytes > wf_host_bytes() ? WF_REMARK_FATAL : WF_REMARK_NOTE,
              "tier '%s': size %s and the pool's %s are more than this %s has (%s); lower one",
              tier->name, wf_size_format(tier->size_bytes, size, sizeof size),
              wf_size_format(pool_bytes, pool, sizeof pool),
              host.memory_is_cgroup ? "cgroup" : "host",
              wf_size_format(host.memory_bytes, offered, sizeof offered));
}

/* Who we are to the store; weftd may have another environment than who checks. */
static void check_s3(struct wf_remarks *remarks, const struct wf_tier_config *tier)
{
    enum weft_status status = wf_tier_s3_check();
    if (status != WEFT_OK)
        wf_remark(remarks, status == WEFT_MISS ? WF_REMARK_NOTE : WF_REMARK_TIER, "tier '%s': %s",
                  tier->name, wf_last_error());
}

/* What a tier is kept in, told from anything else: by device and number when it is there, else by
 * its directory's and its own name. */
struct place {
    bool known, there;
    dev_t device;
    ino_t number;
    char name[NAME_MAX + 1];
};

static void place_find(const struct wf_tier_config *tier, struct place *out)
{
    const char *emulated = wf_config_emulated(tier->path);
    const char *path = emulated ? emulated : tier->path;
    char file[FILE_MAX], directory[FILE_MAX];
    struct stat found;
    *out = (struct place){0};
    if (tier->kind == WF_KIND_S3 || tier->kind == WF_KIND_DRAM)
        return;
    file_of(tier, path, file);
    out->there = stat(file, &found) == 0;
    if (!out->there) {
        const char *slash = strrchr(file, '/');
        snprintf(out->name, sizeof out->name, "%.*s", NAME_MAX, slash ? slash + 1 : file);
        parent_of(file, directory, sizeof directory);
        if (stat(directory, &found) != 0)
            return;
    }
    bool device = out->there && (S_ISBLK(found.st_mode) || S_ISCHR(found.st_mode));
    out->known = true;
    out->device = device ? found.st_rdev : found.st_dev;
    out->number = device ? 0 : found.st_ino; /* a device has many names */
}

/* Two names of one file would have two tiers write over each other. */
static void check_same(struct wf_remarks *remarks, uint32_t index)
{
    const struct wf_tier_config *tier = &remarks->config->tiers[index], *other;
    struct place mine, others;
    place_find(tier, &mine);
    for (uint32_t i = 0; i < index && mine.known; i++) {
        other = &remarks->config->tiers[i];
        place_find(other, &others);
        if (others.known && mine.there == others.there && mine.device == others.device &&
            mine.number == others.number && strcmp(mine.name, others.name) == 0)
            wf_remark(remarks, WF_REMARK_FATAL,
                      "tier '%s': path '%s' is the same file as '%s' of tier '%s'; keep one",
                      tier->name, tier->path, other->path, other->name);
    }
}

static void check_state(struct wf_remarks *remarks)
{
    const char *path = remarks->config->state_dir;
    char above[WF_PATH_MAX];
    struct stat found;
    if (stat(path, &found) == 0) {
        if (wf_state_directory(path) != WEFT_OK)
            wf_remark(remarks, WF_REMARK_FATAL, "%s", wf_last_error());
        return;
    }
    snprintf(above, sizeof above, "%s", path);
    do
        parent_of(above, above, sizeof above);
    while (access(above, F_OK) != 0 && strcmp(above, "/") != 0 && strcmp(above, ".") != 0);
    if (access(above, W_OK | X_OK) != 0)
        wf_remark(remarks, WF_REMARK_FATAL,
                  "state_dir: '%s' cannot be made by uid %u, because '%s' is not writable; create "
                  "it, or set state_dir elsewhere",
                  path, (unsigned)geteuid(), above);
}

/* Of the folder that was named; the one in state_dir need not be there. */
static void check_profiles(struct wf_remarks *remarks)
{
    const char *path = remarks->config->profiles;
    struct stat found;
    if (!path[0] || (stat(path, &found) == 0 && S_ISDIR(found.st_mode)))
        return;
    wf_remark(remarks, WF_REMARK_NOTE,
              "profiles: '%s' is no folder, so no block is stored with loss, and none that was is "
              "read; make it, or name the one where the profiles are",
              path);
}

void wf_config_check_tiers(struct wf_remarks *remarks)
{
    const struct wf_config *config = remarks->config;
    for (uint32_t i = 0; i < config->tier_count; i++) {
        const struct wf_tier_config *tier = &config->tiers[i];
        if (tier->kind == WF_KIND_NVME)
            check_file(remarks, tier, tier->path);
        else if (tier->kind == WF_KIND_CXL)
            check_cxl(remarks, tier);
        else if (tier->kind == WF_KIND_DRAM)
            check_dram(remarks, tier);
        else if (tier->kind == WF_KIND_S3)
            check_s3(remarks, tier);
        check_same(remarks, i);
        if (tier->admit == WF_ADMIT_NEVER && !tier->archive)
            wf_remark(remarks, WF_REMARK_NOTE,
                      "tier '%s': with admit: never and archive: false nothing is ever written to "
                      "it; set one of them otherwise, or remove the tier",
                      tier->name);
    }
    if (config->tier_count) {
        check_state(remarks);
        check_profiles(remarks);
    }
}
