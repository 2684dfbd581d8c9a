/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/secret.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/log.h"
#include "sys/paths.h"
#include "sys/whole.h"

#define NAME_MAX_BYTES (WF_DOMAIN_NAME_MAX + sizeof ".secret")
static_assert(WF_SECRET_PATH_MAX >= WF_PATH_MAX + NAME_MAX_BYTES, "a secret's path has room");

/* A file of the state directory, and how sentences call it. */
struct place {
    int directory; /* locked while this is open */
    char name[NAME_MAX_BYTES];
    char path[WF_SECRET_PATH_MAX];
    const char *domain;
};

static enum weft_status random_secret(uint8_t *out, size_t bytes)
{
    if (WF_FAILS("getrandom") || getrandom(out, bytes, 0) != (ssize_t)bytes)
        return wf_fail(WEFT_E_SYSTEM, "the kernel gives no random bytes for a secret: %s",
                       strerror(errno));
    return WEFT_OK;
}

/* Up to `capacity` bytes of the file; -1 with errno. */
static ssize_t read_up_to(int fd, uint8_t *out, size_t capacity)
{
    size_t used = 0;
    while (used < capacity) {
        ssize_t count = read(fd, out + used, capacity - used);
        if (count == 0)
            break;
        if (count > 0)
            used += (size_t)count;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)used;
}

static enum weft_status load_given(const struct wf_domain_config *domain, uint8_t *out,
                                   size_t *out_bytes)
{
    const char *path = domain->secret_file;
    int fd = WF_FAILS("open") ? (errno = EMFILE, -1) : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read_up_to(fd, out, WF_SECRET_BYTES_MAX);
    enum weft_status status = WEFT_OK;
    if (got < 0)
        status = wf_fail(WEFT_E_SYSTEM, "domain %s: secret_file %s: %s", domain->name, path,
                         strerror(errno));
    else if (got < WF_SECRET_BYTES_MIN)
        status = wf_fail(WEFT_E_INVALID,
                         "domain %s: secret_file %s has %zd bytes; put at least %d random "
                         "ones there (head -c %d /dev/urandom)",
                         domain->name, path, got, WF_SECRET_BYTES_MIN, WF_SECRET_BYTES_MIN);
    else
        *out_bytes = (size_t)got;
    if (fd >= 0)
        close(fd);
    return status;
}

/* ---------------------------------------------------------------------------- kept from before */

/* Whether the open file is one that this node made and nobody else could have read or written. */
static enum weft_status check_kept(const struct place *place, int fd)
{
    struct stat found;
    if (fstat(fd, &found) != 0)
        return wf_fail(WEFT_E_SYSTEM, "domain %s: cannot look at its secret '%s': %s",
                       place->domain, place->path, strerror(errno));
    if (!S_ISREG(found.st_mode))
        return wf_fail(WEFT_E_INVALID,
                       "domain %s: its secret '%s' is not a file; move it away, or set secret_file",
                       place->domain, place->path);
    if (found.st_uid != geteuid() && found.st_uid != 0)
        return wf_fail(WEFT_E_DENIED,
                       "domain %s: its secret '%s' belongs to uid %u, who may know it; chown it if "
                       "that is right, or remove it and lose what lies below",
                       place->domain, place->path, (unsigned)found.st_uid);
    if (found.st_mode & 0077)
        return wf_fail(WEFT_E_DENIED,
                       "domain %s: others may use its secret '%s' (mode %04o); chmod 0600 '%s'",
                       place->domain, place->path, (unsigned)(found.st_mode & 07777), place->path);
    if (found.st_size != WF_SECRET_BYTES_MIN)
        return wf_fail(
            WEFT_E_INVALID,
            "domain %s: its secret '%s' has %lld bytes and should have %d; restore it, or "
            "remove it and lose what lies below",
            place->domain, place->path, (long long)found.st_size, WF_SECRET_BYTES_MIN);
    return WEFT_OK;
}

/* WEFT_MISS: there is none yet. */
static enum weft_status load_kept(const struct place *place, uint8_t *out)
{
    int fd = WF_FAILS("open") ? (errno = EMFILE, -1)
                              : openat(place->directory, place->name,
                                       O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? WEFT_MISS
                               : wf_fail(WEFT_E_SYSTEM,
                                         "domain %s: cannot open its secret '%s': %s; it must be a "
                                         "file that this user may read",
                                         place->domain, place->path, strerror(errno));
    enum weft_status status = check_kept(place, fd);
    if (status == WEFT_OK &&
        read_up_to(fd, out, WF_SECRET_BYTES_MIN) != (ssize_t)WF_SECRET_BYTES_MIN)
        status = wf_fail(WEFT_E_SYSTEM, "domain %s: cannot read its secret '%s': %s", place->domain,
                         place->path, strerror(errno));
    close(fd);
    return status;
}

static enum weft_status keep(const struct place *place, const uint8_t *secret)
{
    if (wf_whole_put(place->directory, place->name, 0600, secret, WF_SECRET_BYTES_MIN,
                     WF_WHOLE_SYNC))
        return WEFT_OK;
    return wf_fail(WEFT_E_SYSTEM,
                   "domain %s: cannot keep its secret in '%s': %s; make room there, set state_dir "
                   "elsewhere, or give it a secret_file",
                   place->domain, place->path, strerror(errno));
}

void wf_secret_path(const struct wf_config *config, const struct wf_domain_config *domain,
                    char out[WF_SECRET_PATH_MAX])
{
    snprintf(out, WF_SECRET_PATH_MAX, "%s/%s.secret", config->state_dir, domain->name);
}

static enum weft_status place_open(const struct wf_config *config,
                                   const struct wf_domain_config *domain, struct place *out)
{
    enum weft_status status = wf_state_directory(config->state_dir);
    if (status != WEFT_OK)
        return status;
    out->domain = domain->name;
    snprintf(out->name, sizeof out->name, "%s.secret", domain->name);
    wf_secret_path(config, domain, out->path);
    out->directory = WF_FAILS("open") ? (errno = EMFILE, -1)
                                      : open(config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->directory >= 0 && flock(out->directory, LOCK_EX) == 0)
        return WEFT_OK;
    status = wf_fail(WEFT_E_SYSTEM,
                     "cannot lock the state directory '%s': %s; set state_dir elsewhere",
                     config->state_dir, strerror(errno));
    if (out->directory >= 0)
        close(out->directory);
    return status;
}

/* The file as it is; WF_SECRET_BYTES_MAX of it count. */
static enum weft_status read_cluster(const struct wf_config *config, uint8_t *out,
                                     size_t *out_bytes)
{
    const char *path = config->fabric_secret_file;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, out, WF_SECRET_BYTES_MAX) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (bytes < 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "fabric.secret_file: cannot read '%s': %s; make one with `head -c 32 "
                       "/dev/urandom >FILE`, and give the same to every node",
                       path, strerror(error));
    if (bytes < WF_SECRET_BYTES_MIN)
        return wf_fail(WEFT_E_INVALID,
                       "fabric.secret_file: '%s' has %zd bytes; %d are needed: make one with `head "
                       "-c 32 /dev/urandom >FILE`, and give the same to every node",
                       path, bytes, WF_SECRET_BYTES_MIN);
    *out_bytes = (size_t)bytes;
    return WEFT_OK;
}

static enum weft_status derive(const struct wf_config *config, const char *tag, const char *name,
                               uint8_t out[WF_SECRET_BYTES_MIN])
{
    uint8_t secret[WF_SECRET_BYTES_MAX];
    char text[WF_DOMAIN_NAME_MAX + 64];
    size_t bytes = 0;
    unsigned length = WF_SECRET_BYTES_MIN;
    enum weft_status status = read_cluster(config, secret, &bytes);
    if (status == WEFT_OK) {
        int count = snprintf(text, sizeof text, "%s %s", tag, name);
        HMAC(EVP_sha256(), secret, (int)bytes, (const uint8_t *)text, (size_t)count, out, &length);
    }
    explicit_bzero(secret, sizeof secret);
    return status;
}

enum weft_status wf_secret_cluster(const struct wf_config *config, uint8_t out[WF_SECRET_BYTES_MIN])
{
    return derive(config, "weft cluster 1", "", out);
}

static enum weft_status of_cluster(const struct wf_config *config,
                                   const struct wf_domain_config *domain,
                                   uint8_t out[WF_SECRET_BYTES_MIN])
{
    return derive(config, "weft cluster domain 1", domain->name, out);
}

enum weft_status wf_secret_load(const struct wf_config *config,
                                const struct wf_domain_config *domain,
                                uint8_t out[WF_SECRET_BYTES_MAX], size_t *out_bytes)
{
    struct place place;
    uint8_t secret[WF_SECRET_BYTES_MAX];
    size_t bytes = WF_SECRET_BYTES_MIN;
    enum weft_status status;
    if (domain->secret_file[0]) {
        status = load_given(domain, secret, &bytes);
    } else if (config->fabric_secret_file[0]) {
        status = of_cluster(config, domain, secret);
    } else if (!config->tier_count) {
        status = random_secret(secret, bytes);
    } else {
        status = place_open(config, domain, &place);
        if (status != WEFT_OK)
            return status;
        status = load_kept(&place, secret);
        if (status == WEFT_MISS) {
            status = random_secret(secret, bytes);
            if (status == WEFT_OK)
                status = keep(&place, secret);
            if (status == WEFT_OK)
                wf_info("secret",
                        "domain %s: a new secret is in %s; without it what lies below is "
                        "lost",
                        domain->name, place.path);
        }
        close(place.directory);
    }
    if (status == WEFT_OK) {
        memcpy(out, secret, bytes);
        *out_bytes = bytes;
    }
    explicit_bzero(secret, sizeof secret);
    return status;
}
