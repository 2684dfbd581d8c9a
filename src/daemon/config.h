/* SPDX-License-Identifier: Apache-2.0
 *
 * What weftd can be told, and where it is told: embedded defaults < YAML file < environment <
 * flags.
 *
 * One table of fields (config_fields.c) drives all four, the JSON and the help.  wf_config_load()
 * is pure but for reading files: it never starts anything, so that `weftd --check` and `weft config
 * check` can run it on any machine.
 */
#ifndef WF_DAEMON_CONFIG_H
#define WF_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/locality.h"

#define WF_DOMAINS_MAX 64
#define WF_DOMAIN_NAME_MAX 63
#define WF_TOPIC_MAX 255
#define WF_ENGINES_MAX 16
#define WF_ENGINE_NAME_MAX 31
#define WF_MODEL_MAX 511
#define WF_ALLOW_MAX 32
#define WF_ALLOW_TEXT_MAX 1023
#define WF_TIERS_MAX 8
#define WF_FABRIC_NAME_MAX 63
#define WF_PEERS_NAME "peers"     /* what the tier of other nodes' blocks is called, */
#define WF_REMOTE_NAME "remote"   /* and that of the memory that they lend */
#define WF_OTHERS_SUFFIX "-hosts" /* of a shared tier's name: what other hosts have there */
#define WF_TIER_NAME_MAX 31
#define WF_PATH_MAX 256
#define WF_TOKEN_MAX 128
#define WF_ADDRESS_BYTES 64 /* of a numeric address, with its end */
#define WF_CONFIG_FILE_BYTES_MAX (1u << 20)
#define WF_CONFIG_FIELDS_MAX 96 /* static_assert'ed beside the tables */
#define WF_DOMAIN_FIELDS_MAX 13
#define WF_TIER_FIELDS_MAX 20
#define WF_ENGINE_FIELDS_MAX 5
#define WF_LINK_FIELDS_MAX 2
#define WF_LINKS_MAX_NAMED 64

#define WF_CONFIG_FILE_DEFAULT "/etc/weft/weftd.yaml"

enum wf_huge { WF_HUGE_AUTO = 0, WF_HUGE_ON, WF_HUGE_OFF };
enum wf_pool_policy { WF_POOL_POLICY_WEFT = 0, WF_POOL_POLICY_LRU };
enum wf_objective { WF_OBJECTIVE_HITS = 0, WF_OBJECTIVE_TTFT };
enum wf_events_encoding { WF_EVENTS_MAP = 0, WF_EVENTS_ARRAY };
enum wf_events_hashes { WF_EVENTS_NUMBERS = 0, WF_EVENTS_BYTES };
enum wf_writes { WF_WRITES_DIRECT = 0, WF_WRITES_COPIED };
/* Among domains that hold more than they are due, who keeps it longer. */
enum wf_priority { WF_PRIORITY_LOW = 0, WF_PRIORITY_NORMAL, WF_PRIORITY_HIGH };
/* enum weft_quality less 1, as a choice counts from 0. */
enum wf_quality_choice { WF_CHOICE_LOSSLESS = 0, WF_CHOICE_TRANSPARENT, WF_CHOICE_ECONOMY };
enum wf_tier_kind { WF_KIND_NVME = 0, WF_KIND_CXL, WF_KIND_S3, WF_KIND_DRAM };
#define WF_KINDS (WF_KIND_DRAM + 1)

/* What is written to a tier when it leaves DRAM. */
enum wf_tier_admit {
    WF_ADMIT_AUTO = 0, /* what is likely to be read again, by what the node sees */
    WF_ADMIT_ALWAYS,
    WF_ADMIT_REUSED, /* what was read at least once since it was put */
    WF_ADMIT_NEVER,  /* archives only */
};

/* How blocks lie there: coding.c. */
enum wf_tier_codec {
    WF_CODE_AUTO = 0, /* encoded where the codec is no slower than the medium */
    WF_CODE_NONE,
    WF_CODE_LOSSLESS,
};

/* Who said so.  Later layers win. */
enum wf_config_layer { WF_FROM_DEFAULT = 0, WF_FROM_FILE, WF_FROM_ENVIRONMENT, WF_FROM_FLAG };

struct wf_config_origin {
    enum wf_config_layer layer;
    uint32_t line; /* WF_FROM_FILE: line in wf_config.file */
};

struct wf_domain_config {
    char name[WF_DOMAIN_NAME_MAX + 1]; /* [a-z0-9._-], 1 to 63 */
    uint64_t quota_bytes;              /* 0: the whole pool */
    uint32_t share;                    /* a weight, in all domains or in none; 0: by the quota */
    uint32_t fabric_share;             /* a weight on links to other nodes; 0: 1 */
    uint64_t fabric_max;               /* bytes a second to other nodes; 0: no bound */
    uint64_t floor_bytes;              /* of DRAM, that no other domain takes from it */
    enum wf_priority priority;         /* normal */
    enum wf_writes writes;
    enum wf_quality_choice quality; /* lossless: wf_domain_quality() */
    char token[WF_TOKEN_MAX + 1];   /* "": none asked; also what token_file held */
    char token_file[WF_PATH_MAX];
    char secret_file[WF_PATH_MAX]; /* ≥ 32 bytes; "": random at every start */
    char allow[WF_ALLOW_TEXT_MAX +
               1]; /* as given: "any", or uids and user names with commas between */
    uint32_t allow_uid[WF_ALLOW_MAX]; /* who may attach; none: the node's own user and root */
    uint32_t allow_uid_count;
    bool allow_any_uid;                                   /* allow: any */
    struct wf_config_origin origin[WF_DOMAIN_FIELDS_MAX]; /* a field of the table each */
};

/* At least so exactly its blocks come back. */
static inline enum weft_quality wf_domain_quality(const struct wf_domain_config *domain)
{
    return (enum weft_quality)(domain->quality + WEFT_LOSSLESS);
}

struct wf_tier_config {
    char name[WF_TIER_NAME_MAX + 1]; /* [a-z0-9._-], 1 to 31; not "dram0" */
    enum wf_tier_kind kind;
    char path[WF_PATH_MAX];   /* nvme: file, directory or block device; cxl: /dev/daxX.Y, node:N or
                                 file-emulation:PATH; s3: s3://bucket/prefix */
    uint64_t size_bytes;      /* capacity; 0: what the medium has */
    uint32_t queue_depth;     /* requests in flight; 32 */
    enum wf_tier_admit admit; /* auto */
    enum wf_tier_codec codec; /* auto */
    bool archive;             /* may hold archives; true */
    char endpoint[WF_PATH_MAX]; /* s3: URL of the server; "": Amazon's of the region */
    char region[64];            /* s3 */
    uint32_t host;              /* cxl: this host's number on a device that several share; 0 */
    bool shared;                /* cxl: several hosts share the device */
    bool discard;               /* nvme: a block device is told of what is unused; true */
    bool dram_node;             /* cxl: node:N may have processors */
    double drive_writes;        /* its capacity, a day, that may be written to it; 0: any */
    uint32_t timeout_ms;        /* a request that takes longer is a miss, and the tier stalled */
    uint64_t scrub_bytes_per_s; /* read by the background check; 0: it is off; when nothing is said
                                   of it, less may be read (below_scrub.c) */
    /* 0, or the number + 1 of the shared tier whose other hosts' blocks this is: read only */
    uint32_t others_of;
    bool peers;  /* what other nodes of the fabric have: read only */
    bool remote; /* what they lend */
    struct wf_config_origin origin[WF_TIER_FIELDS_MAX]; /* a field of the table each */
};

/* An engine whose KV events are heard. */
struct wf_engine_config {
    char name[WF_ENGINE_NAME_MAX + 1]; /* [a-z0-9._-], 1 to 31 */
    char endpoint[WF_PATH_MAX];        /* tcp://HOST:PORT or ipc://PATH */
    char replay[WF_PATH_MAX];          /* the same; "": it is not asked for what was missed */
    char topic[WF_TOPIC_MAX + 1];      /* "": whatever it is */
    char model[WF_MODEL_MAX + 1];      /* whose blocks its hashes name; "": of no format here */
    struct wf_config_origin origin[WF_ENGINE_FIELDS_MAX]; /* a field of the table each */
};

/* A node to which no more is sent than that. */
struct wf_link_config {
    char name[WF_FABRIC_NAME_MAX + 1];
    uint64_t max_bytes_s; /* 0: no bound */
    struct wf_config_origin origin[WF_LINK_FIELDS_MAX];
};

struct wf_config {
    char socket[108];                    /* Unix socket path */
    char state_dir[WF_PATH_MAX];         /* what the node keeps for its next start */
    char profiles[WF_PATH_MAX];          /* folder of profiles; "": `profiles` in state_dir */
    uint32_t socket_mode;                /* 0600; 0666 with domains that ask for tokens */
    char http_address[WF_ADDRESS_BYTES]; /* numeric: "127.0.0.1", "::1"; "": no HTTP */
    uint16_t http_port;                  /* 9464; 0: any free one */
    char http_token[WF_TOKEN_MAX +
                    1]; /* asked as Bearer; never "" when the address is not loopback */
    char http_token_file[WF_PATH_MAX];

    char resp_address[WF_ADDRESS_BYTES];  /* numeric; "": no RESP gateway, as by default */
    uint16_t resp_port;                   /* 6379; 0: any free one */
    char resp_password[WF_TOKEN_MAX + 1]; /* never "" when the address is not loopback */
    char resp_password_file[WF_PATH_MAX];
    char resp_domain[WF_DOMAIN_NAME_MAX + 1]; /* "default" */
    uint32_t resp_threads, resp_clients;      /* 1, 10000 */
    uint32_t resp_keys;                       /* a domain; 1048576 */
    uint64_t resp_small_bytes;                /* a domain; 256 MiB */
    uint32_t resp_stall_ms, resp_idle_ms;     /* 60000, 0: never */
    bool resp_strict;
    char events_address[WF_ADDRESS_BYTES]; /* numeric; "": no KV events, as by default */
    uint16_t events_port;                  /* 5557; 0: any free one */
    char events_replay_address[WF_ADDRESS_BYTES];
    uint16_t events_replay_port;
    bool events_public;                         /* the addresses may be other than loopback */
    char events_topic[WF_TOPIC_MAX + 1];        /* "" */
    char events_domain[WF_DOMAIN_NAME_MAX + 1]; /* "default" */
    enum wf_events_encoding events_encoding;
    enum wf_events_hashes events_hashes;
    uint64_t events_memory;         /* of what is described; 256 MiB */
    uint32_t events_replay_batches; /* 10000 */
    uint64_t events_replay_bytes;   /* 64 MiB */
    uint64_t events_engine_memory;  /* of what one engine says that it holds; 64 MiB */

    char fabric_join[WF_PATH_MAX]; /* registry; "": no fabric, unless it listens */
    char fabric_name[WF_FABRIC_NAME_MAX + 1];
    char fabric_place[WF_LOCALITY_MAX + 1];                         /* "": not said */
    char fabric_listen[WF_PATH_MAX], fabric_advertise[WF_PATH_MAX]; /* "": by what is known */
    char fabric_secret_file[WF_PATH_MAX];
    bool fabric_encrypt;
    char fabric_certificate[WF_PATH_MAX], fabric_key[WF_PATH_MAX], fabric_ca[WF_PATH_MAX];
    char fabric_user[WF_TOKEN_MAX + 1], fabric_password[WF_TOKEN_MAX + 1]; /* of the registry */
    char fabric_registry_ca[WF_PATH_MAX];
    uint32_t fabric_lease_ms;        /* 5000 */
    uint64_t fabric_lend_bytes;      /* 0 */
    uint64_t fabric_push_max;        /* 0: an eighth of the pool */
    uint32_t fabric_copies;          /* 1 */
    uint64_t fabric_move_rate;       /* 120 MiB, a second */
    uint64_t fabric_replica_bytes;   /* of what is known of others' blocks; 64 MiB */
    enum wf_tier_codec fabric_codec; /* auto: where the link is slower than the codec */
    uint32_t fabric_directory;       /* enum wf_fabric_directory; full */
    uint64_t fabric_link_max;        /* bytes a second to a node that is not in fabric.links; 0 */

    uint64_t pool_bytes;     /* dram0; default: a quarter of the host's memory */
    uint64_t pool_bytes_max; /* how far weft_lend may grow it; default: the host's memory */
    enum wf_huge pool_huge;
    int32_t pool_numa_node;   /* -1: wherever the kernel finds room */
    bool pool_prefault;       /* populate at start: no page faults later, memory taken at once */
    uint64_t block_bytes_min; /* sizes the index: pool_bytes_max / block_bytes_min blocks; 16 KiB */
    enum wf_pool_policy pool_policy; /* what goes next when room is needed */
    enum wf_objective objective;     /* what blocks are kept for */
    uint32_t ahead_percent;          /* of the pool, kept written below ahead of need; 12 */
    uint32_t prefill_tokens_s;       /* that engines compute; 0: nobody said */

    uint32_t clients_max;   /* 256 */
    uint32_t pins_max;      /* a client; 65536 */
    uint32_t sessions_max;  /* 65536 */
    uint32_t formats_max;   /* 1024 */
    uint32_t regions_max;   /* 4096 */
    uint32_t reserved_max;  /* blocks a client may hold reserved; 4096 */
    uint32_t below_max;     /* blocks known below DRAM at once; 4194304 */
    uint64_t staging_bytes; /* a client of a `writes: copied` domain; 64 MiB */
    uint32_t workers;       /* data threads; 2 */
    uint32_t drain_ms;      /* SIGTERM: wait this long for clients to finish; 5000 */
    uint32_t events_max;    /* event ring entries; 65536 */
    int32_t log_level;      /* enum wf_log_level; info */

    struct wf_domain_config domains[WF_DOMAINS_MAX];
    uint32_t domain_count; /* default: one, "default" */

    struct wf_tier_config tiers[WF_TIERS_MAX];
    uint32_t tier_count; /* default: none; their order is measured, not this one */
    /* With those that wf_config_add_others() made behind them, for the node alone. */
    uint32_t lower_count;

    struct wf_engine_config engines[WF_ENGINES_MAX];
    uint32_t engine_count; /* default: none */

    struct wf_link_config links[WF_LINKS_MAX_NAMED];
    uint32_t link_count; /* default: none */

    char file[WF_PATH_MAX];                               /* where it was read from; "": no file */
    struct wf_config_origin origin[WF_CONFIG_FIELDS_MAX]; /* a field of the table each */
    struct wf_config_origin domains_origin, tiers_origin, engines_origin, links_origin;
};

/* Does it belong to a cluster, or let others belong to it? */
static inline bool wf_config_has_fabric(const struct wf_config *config)
{
    return config->fabric_join[0] || config->fabric_listen[0];
}

/* Defaults for this host. */
void wf_config_defaults(struct wf_config *config);

/* defaults, then `path` (NULL: $WEFT_CONFIG, else /etc/weft/weftd.yaml when it exists, else none),
 * then WEFT_* variables, then `overrides`: flags as "pool.size=4GB", "domain.default.quota=1GB",
 * "domains=default,guest". Reads token files and looks users up.  A failure's sentence names where,
 * key, value and mend; *out is written only on success. */
enum weft_status wf_config_load(const char *path, const char *const *overrides,
                                size_t override_count, struct wf_config *out);

/* Lay one YAML text over `config`, which wf_config_defaults() has set; `name` stands for it in
 * sentences and becomes config->file.  No I/O: what goes beyond one field is left to
 * wf_config_finish(). */
enum weft_status wf_config_parse_yaml(const void *buffer, size_t length, const char *name,
                                      struct wf_config *config);

/* `--tier`'s short form, "KIND:PATH[:SIZE]" or "s3://BUCKET/PREFIX[:SIZE]" and then any
 * ",KEY=VALUE", told to `set` as the overrides that it stands for: "tiers", then up to
 * WF_TIER_FLAG_SETTINGS of each.  Tiers are named after their kind: nvme0, nvme1, cxl0, s3, s3-1.
 */
#define WF_TIER_FLAG_SETTINGS 12
enum weft_status
wf_config_tier_flags(const char *const *flags, size_t flag_count,
                     void (*set)(void *context, const char *key, const char *value), void *context);

/* What binds fields together: token files, users, domains against the pool, listeners against
 * tokens, tiers against their kinds. */
enum weft_status wf_config_finish(struct wf_config *config);

/* What a remark is about. */
/* Behind the tiers, one for each that is shared, by which other hosts' blocks there are read. */
void wf_config_add_others(struct wf_config *config);

enum wf_remark_kind {
    WF_REMARK_NOTE,
    WF_REMARK_RISK, /* weftd starts, and the system may end it */
    WF_REMARK_TIER, /* weftd starts, and the tier is failed until the host is otherwise */
    WF_REMARK_FATAL /* weftd does not start */
};

/* Checks that go beyond the text: paths, permissions, memory and huge pages of this host, variables
 * that look like mistyped keys.  Makes nothing.  Calls `say` once a remark; WEFT_E_INVALID: one was
 * fatal. */
enum weft_status wf_config_check(const struct wf_config *config,
                                 void (*say)(void *context, enum wf_remark_kind kind,
                                             const char *sentence),
                                 void *context);

/* The configuration in force as JSON (tokens masked), with each value's origin; caller frees. NULL:
 * no memory.
 *   {"file": "/etc/weft/weftd.yaml" | null,
 *    "settings": {"pool.size": {"value": 4294967296, "origin": "/etc/weft/weftd.yaml:3"}, …},
 *    "domains": {"default": {"quota": {"value": 0, "origin": "default"}, …}, …},
 *    "tiers": {"nvme0": {"kind": {"value": "nvme", "origin": "flag tier.nvme0.kind"}, …}, …}}
 * An origin is "default", "<file>:<line>", "env WEFT_POOL_SIZE" or "flag pool.size". */
char *wf_config_json(const struct wf_config *config);

/* Whether nobody said anything about `key`, so that a failure with it is no failure of the user's.
 */
bool wf_config_is_default(const struct wf_config *config, const char *key);

/* Whether only this host can open a connection to the numeric `address`. */
bool wf_config_is_loopback(const char *address);

/* Every key with its default, its meaning and its environment variable, as a YAML file that is
 * itself a valid configuration and says the defaults; caller frees.  NULL: no memory. */
char *wf_config_help(void);

#endif
