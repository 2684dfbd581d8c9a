/* SPDX-License-Identifier: Apache-2.0
 *
 * What weftd can be told, and where: embedded defaults < YAML file < environment < flags.
 *
 * wf_config_load() is pure but for reading the file: it never starts anything, so that
 * `weftd --check` and `weft config check` can run it on any machine.
 */
#ifndef WF_DAEMON_CONFIG_H
#define WF_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_DOMAINS_MAX 64
#define WF_DOMAIN_NAME_MAX 63
#define WF_ALLOW_MAX 32
#define WF_PATH_MAX 256
#define WF_TOKEN_MAX 128

enum wf_huge { WF_HUGE_AUTO = 0, WF_HUGE_ON, WF_HUGE_OFF };
enum wf_writes { WF_WRITES_DIRECT = 0, WF_WRITES_COPIED };

struct wf_domain_config {
    char name[WF_DOMAIN_NAME_MAX + 1]; /* [a-z0-9._-], 1 to 63 */
    uint64_t quota_bytes;              /* 0: the whole pool */
    enum wf_writes writes;
    char token[WF_TOKEN_MAX + 1];     /* "" : none asked */
    char secret_file[WF_PATH_MAX];    /* ≥ 32 bytes; "": random at every start */
    uint32_t allow_uid[WF_ALLOW_MAX]; /* who may attach; none: the node's own user and root */
    uint32_t allow_uid_count;
    bool allow_any_uid; /* allow: any */
};

struct wf_config {
    char socket[108];                  /* Unix socket path */
    uint32_t socket_mode;              /* 0600; 0666 with domains that ask for tokens */
    char http_address[64];             /* "127.0.0.1" */
    uint16_t http_port;                /* 9464; 0: off */
    char http_token[WF_TOKEN_MAX + 1]; /* asked as Bearer when the address is not loopback */

    uint64_t pool_bytes;     /* dram0; default: a quarter of the host's memory */
    uint64_t pool_bytes_max; /* how far weft_lend may grow it; default: the host's memory */
    enum wf_huge pool_huge;
    int pool_numa_node;       /* -1: wherever the kernel finds room */
    bool pool_prefault;       /* populate at start: no page faults later, memory taken at once */
    uint64_t block_bytes_min; /* sizes the index: pool_bytes_max / block_bytes_min blocks; 16 KiB */

    uint32_t clients_max;   /* 256 */
    uint32_t pins_max;      /* a client; 65536 */
    uint32_t sessions_max;  /* 65536 */
    uint32_t formats_max;   /* 1024 */
    uint32_t regions_max;   /* 4096 */
    uint32_t reserved_max;  /* blocks a client may hold reserved; 4096 */
    uint64_t staging_bytes; /* a client of a `writes: copied` domain; 64 MiB */
    uint32_t workers;       /* data threads; 2 */
    uint32_t drain_ms;      /* SIGTERM: wait this long for clients to finish; 5000 */
    uint32_t events_max;    /* event ring entries; 65536 */
    int log_level;          /* enum wf_log_level; info */

    struct wf_domain_config domains[WF_DOMAINS_MAX];
    uint32_t domain_count; /* default: one, "default" */

    char file[WF_PATH_MAX]; /* where it was read from; "": embedded defaults */
};

/* Defaults for this host. */
void wf_config_defaults(struct wf_config *config);

/* defaults, then `path` (NULL: $WEFT_CONFIG, else /etc/weft/weftd.yaml when it exists, else none),
 * then WEFT_* variables, then `overrides`: flags as "pool.size=4GB".  A failure's sentence names
 * file, line, field, value and mend. */
enum weft_status wf_config_load(const char *path, const char *const *overrides,
                                size_t override_count, struct wf_config *out);

/* Checks that go beyond one field (sum of floors, paths, memory of this host).  Calls `say` once a
 * remark; `fatal` ones mean that weftd would not start. */
enum weft_status wf_config_check(const struct wf_config *config,
                                 void (*say)(void *context, bool fatal, const char *sentence),
                                 void *context);

/* The configuration in force as JSON (tokens and secrets masked), with each value's origin; caller
 * frees. */
char *wf_config_json(const struct wf_config *config);

#endif
