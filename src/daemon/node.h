/* SPDX-License-Identifier: Apache-2.0
 *
 * A node: its domains, clients, formats, sessions and regions, and the memory that they share.
 *
 * Everything here belongs to the owner thread.  Workers see only jobs.
 *
 * Memory is accounted in one budget: `pool_bytes` in all, of which `budget_free` is not given out.
 * Domains (backed ranges of their arenas), regions and staging segments take from it and give back
 * to it.  Memory changes its domain only by being punched out of one memfd and appearing, zeroed by
 * the kernel, in another.
 */
#ifndef WF_DAEMON_NODE_H
#define WF_DAEMON_NODE_H

#include "core/ahead.h"
#include "core/share.h"
#include "core/timers.h"
#include "daemon/config.h"
#include "daemon/dram.h"
#include "daemon/secret.h"
#include "daemon/store.h"
#include "daemon/workers.h"
#include "gateway/kvevents.h"
#include "gateway/resp.h"
#include "shm/control.h"
#include "shm/pins.h"
#include "sys/memory.h"
#include "sys/socket.h"

struct wf_node;

/* A memfd of the node with its mapping. */
struct wf_segment {
    int fd;
    void *memory;
    uint64_t bytes;
};
enum weft_status wf_segment_create(const char *name, uint64_t bytes, enum wf_pages pages,
                                   struct wf_segment *out);
void wf_segment_destroy(struct wf_segment *segment);

/* What clients say in their pin tables that they did. */
struct wf_use {
    uint64_t pins, misses, matches, asked, matched, matched_far, bytes_pinned;
};

/* Why a block that left DRAM was not written below. */
enum wf_not_below {
    WF_NOT_KEY = 0,  /* another domain has a block under its key there */
    WF_NOT_REUSED,   /* admit: reused, and it was not used again */
    WF_NOT_BUSY,     /* the tier is behind with writing */
    WF_NOT_USABLE,   /* no tier was well, */
    WF_NOT_ADMITTED, /* or takes what leaves DRAM, */
    WF_NOT_FULL,     /* or has room, */
    WF_NOT_LARGE,    /* or takes blocks of that size */
    WF_NOT_EXACT,    /* it has lost something, and could not be stored as what it is (coding.c) */
    /* By worth: core/placement.h, enum wf_admit_rule */
    WF_NOT_ONCE,
    WF_NOT_SLOWER,
    WF_NOT_WRITE,
    WF_NOT_WEAR, /* also where worth is not looked at */
    WF_NOT_ROOM,
    WF_NOT_BELOW_REASONS,
};

struct wf_domain {
    struct wf_node *node;
    const struct wf_domain_config *config;
    uint32_t id;
    uint8_t secret[WF_SECRET_BYTES_MAX];
    size_t secret_bytes;
    struct wf_segment index, pool;
    int index_readonly, pool_readonly; /* descriptors to hand out */
    struct wf_store store;
    uint32_t clients, sessions, regions;
    uint64_t staging_bytes; /* of its clients */
    uint64_t due_bytes;     /* of the pool: shares.c */
    double part;            /* of what all share below DRAM */
    uint64_t evicted[WF_EVICT_REASONS];
    uint64_t scrub_at; /* next slot that the scrubber looks at */
    struct wf_use use; /* of clients that are gone */
    uint64_t puts, put_bytes, deduplicated, deduplicated_bytes, fulls, corrupt;
    uint64_t fulls_for_worth; /* of fulls: what would have had to go is worth more */
    /* What lies below DRAM (below.h): */
    uint8_t tag[32];                 /* names the domain on a tier */
    struct wf_reservations arriving; /* slots that the node fills from below */
    uint8_t *used_again;             /* a bit a slot: read since it was put */
    uint8_t *key_taken;   /* a bit a slot: a tier has another domain's block under its key, or the
                             block has lost something that no tier could say */
    uint8_t *refused;     /* a bit a slot: no tier takes it, as of not long ago */
    uint16_t *format_of;  /* a slot: the number of the format that it was put or asked for with, and
                             1; 0: it came from below without one */
    uint64_t *profile_of; /* a slot: by which it was stored with loss where it came from; 0: none */
    uint64_t refused_ns;  /* when all of them were forgotten last */
    uint64_t not_below[WF_NOT_BELOW_REASONS]; /* left DRAM, and are lost */
    uint64_t left_dram;                       /* evicted there while a tier had it */
    uint64_t promoted, promoted_bytes, load_us, loads_lost;
    uint64_t unread; /* wf_below_unread(): 1 + the profiles then; 0: never */
    uint64_t hidden; /* below, but not in the far table: its place was full */
    struct wf_ahead ahead;
    uint32_t hurried; /* sessions whose deadline is near */
    bool weighed;     /* some session of it had another priority than the usual */
};

struct wf_client {
    struct wf_node *node;
    struct wf_domain *domain; /* NULL until HELLO */
    int fd;                   /* -1: this place is free */
    uint32_t id;              /* place + 1: what wf_slot.owner says */
    struct wf_peer peer;
    struct wf_segment pins_segment, staging;
    struct wf_pins pins;
    uint64_t touch_tail;
    uint32_t place_cursor;
    struct wf_reservations reserved;
    bool paused;               /* a job runs for it */
    struct wf_message *parked; /* a request that is to be handled again; owned */
    uint64_t parked_until_ns;
    uint64_t connected_ns;
    uint32_t pushes; /* of blocks that it has reserved, or had: push.h */
};

struct wf_format_entry {
    uint32_t domain;
    uint8_t root[32], digest[32];
    uint64_t block_bytes, layer_bytes;
    uint32_t block_tokens, layers;
    enum weft_quality quality; /* that its blocks have at least; no default */
    /* By what its blocks are stored with loss, as of that generation of profiles; coding.c. */
    const struct wf_profile *profile;
    uint64_t profile_generation;
    bool profile_missed; /* there was none, and that was told */
    /* Blocks that were to be stored with loss and lie exact all the same, and by which profile that
     * was told last. */
    uint64_t declined;
    const struct wf_profile *declined_by;
    struct wf_format_open *request; /* as it was asked for, but that its quality is what is part of
                                       its keys; owned */
};

/* Of a session that said when it comes back. */
enum wf_session_back {
    WF_BACK_NONE = 0, /* it said nothing, or is back */
    WF_BACK_SAID,
    WF_BACK_UP,      /* its chain is up for it, or on its way */
    WF_BACK_DECIDED, /* it will not be brought up */
    WF_BACK_LATE,    /* it did not keep its word */
};

struct wf_session_entry {
    uint64_t id; /* 0: free */
    uint32_t generation;
    uint32_t client, domain, format;
    uint32_t priority;
    enum weft_session_state state;
    uint32_t returns_in_ms, deadline_ms;
    uint64_t hinted_ns, opened_ns, due_ns; /* due: when it said that it comes back */
    enum wf_session_back back;
    bool crowded;           /* its chain found no room as yet */
    bool hurried;           /* its deadline is near */
    bool untold;            /* what it said is not known of its chain, whose end lies below */
    uint32_t output_tokens; /* which it said then */
    bool has_tip, held;     /* held: the store holds tip_slot on our behalf */
    uint32_t tip_slot;
    uint32_t tip_blocks; /* of its chain, when it was there last; 0: it never was */
    uint8_t tip[32];
    char name[65];
    uint32_t next_free;
};

struct wf_region_entry {
    uint64_t id; /* 0: free */
    uint32_t domain;
    char name[WF_NAME_BYTES];
    uint64_t bytes;
    enum weft_latency latency;
    enum weft_share share;
    int fd, fd_readonly;
    uint32_t creator; /* client id */
    uint32_t holders;
    uint32_t *holds; /* [clients_max] how often a client holds it */
};

struct wf_reclaim {
    uint32_t client; /* 0: none under way */
    bool stalled;    /* the last round found nothing that may go */
    uint64_t sequence, wanted, done, started_ns, deadline_ns;
};

struct wf_telemetry;
struct wf_below;
struct wf_profile;
struct wf_profiles;
struct wf_node_fabric;
struct wf_fabric;
struct wf_peers;
struct wf_node_routes;
struct wf_node_pushes;

struct wf_node {
    struct wf_config config;
    uint64_t epoch, started_ns;
    uint64_t pool_bytes, budget_free;
    enum wf_pages pages;
    struct wf_dram_speed dram;
    struct wf_domain *domains;
    uint32_t domain_count;
    struct wf_client *clients; /* [clients_max] */
    uint32_t client_count;
    struct wf_format_entry *formats; /* [formats_max] */
    uint32_t format_count;
    struct wf_session_entry *sessions; /* [sessions_max] */
    uint32_t session_first_free, session_used, session_count;
    uint32_t session_untold, session_telling; /* how many are; which is looked at next */
    struct wf_timers
        wakes; /* sessions by number, when they that come back are looked at: ahead.c */
    struct wf_timers deadlines; /* sessions by number, when theirs is near, and when it is over */
    struct wf_region_entry *regions; /* [regions_max] */
    uint32_t region_count;
    uint64_t region_bytes, region_serial;
    struct wf_reclaim reclaim;
    struct wf_workers *workers;
    struct wf_huge_pages *huge; /* NULL: the pool's pages are what they are */
    struct wf_telemetry *telemetry;
    struct wf_kvevents *events;     /* who is told of blocks; NULL: nobody */
    struct wf_described *described; /* what they stand for; NULL: nobody is told, or heard */
    struct wf_kvengines *engines;   /* who is heard; NULL: nobody */
    struct wf_kvengine_figures *engines_told; /* a kv_events.engines each */
    struct wf_resp *resp;                     /* the RESP gateway; NULL: off */
    struct wf_resp_figures resp_told;
    uint64_t resp_told_ns;
    struct wf_node_fabric *cluster; /* fabric.h; NULL: this node is alone */
    struct wf_fabric *fabric;       /* its fabric, once it runs */
    struct wf_peers *peers;
    struct wf_node_pushes *pushes; /* push.h; NULL: this node is alone */
    struct wf_node_routes *routes; /* route.h; NULL: nobody asked yet */
    struct wf_below *below;        /* NULL: no tiers */
    struct wf_profiles *profiles;
    uint32_t scrubs;      /* blocks of DRAM that are being checked, and held meanwhile */
    bool device_lives_on; /* it may write to the pools: they stay mapped until the process ends */
    bool unpark;          /* something came free that a parked request may wait for */
    int epoll, listener, lock, signals, timer;
    int spare; /* given up for a moment to turn someone away when no other descriptor is left */
    bool draining, stopping, hurried; /* by a second signal */
    uint64_t profile_logged_ns;       /* when the log told of a format's profile last; coding.c */
    uint64_t drain_until_ns, busy_ns; /* last time that a client moved data */
    uint32_t owner_uid;
    _Alignas(8) uint8_t message[WF_MESSAGE_MAX], answer[WF_MESSAGE_MAX];
};

/* node.c */
enum weft_status wf_node_create(const struct wf_config *config, struct wf_node **out);
void wf_node_destroy(struct wf_node *node);
struct wf_domain *wf_node_domain(struct wf_node *node, const char *name);
/* Take `bytes` from the budget for something that is not a block; makes room in the stores when
 * needed. */
bool wf_node_budget(struct wf_node *node, struct wf_domain *domain, uint64_t bytes);
void wf_node_budget_give(struct wf_node *node, uint64_t bytes);
/* Go on with a reclaim that is under way; answers its client when it ends. */
void wf_node_reclaim_step(struct wf_node *node);
/* Will room in DRAM come of what the node itself is doing? */
bool wf_node_busy(const struct wf_node *node);
/* What the domain may hold now: its quota, as far as the pool has so much. */
uint64_t wf_node_quota(const struct wf_domain *domain);
/* Of all clients that the domain has and had. */
struct wf_use wf_node_use(const struct wf_domain *domain);
void wf_use_add(struct wf_use *use, const struct wf_client *client);
/* Tell the store what clients have pinned since; one client's come in their order. */
void wf_client_touches_drain(struct wf_client *client);
void wf_node_touches_drain(struct wf_node *node, struct wf_domain *domain);

/* shares.c */
/* Once the domains are there, and when pool_bytes has changed: what each is due of it. */
void wf_shares_settle(struct wf_node *node);
/* The same for when the host wants so many bytes of it; it leaves what floors hold. */
void wf_shares_settle_less(struct wf_node *node, uint64_t bytes);
/* Of the budget, what it holds; of that, what no other takes from it, and what is lent to it. */
uint64_t wf_shares_used(const struct wf_domain *domain);
uint64_t wf_shares_floor(const struct wf_domain *domain);
uint64_t wf_shares_lent(const struct wf_domain *domain);
/* What it is due, without what the pool has beyond all quotas. */
uint64_t wf_shares_shown(const struct wf_domain *domain);
/* In words: why it found no room for so much. */
#define WF_SHARES_WHY_MAX 128
const char *wf_shares_why(const struct wf_domain *domain, uint64_t bytes,
                          char out[WF_SHARES_WHY_MAX]);
/* Whose blocks go so that `wanting` (NULL: the host) gets so many bytes more; of those whose bit is
 * in `but`, none. */
void wf_shares_decide(const struct wf_node *node, const struct wf_domain *wanting, uint64_t bytes,
                      uint64_t but, struct wf_share_verdict *out);

/* requests.c: drop what `key` names, and what extends it, and of that what others put into memory
 * that this node lends, or that anybody does.  *out_later: what is in the way is worth waiting for.
 */
enum weft_status wf_domain_remove_lent(struct wf_domain *domain, const uint8_t *key,
                                       bool everywhere, uint64_t *out_removed, bool *out_later);

/* server.c */
/* Takes over the descriptors of wf_socket_listen(), also when it fails. */
enum weft_status wf_server_start(struct wf_node *node, int listener, int lock);
enum weft_status wf_server_run(struct wf_node *node);
void wf_server_stop(struct wf_node *node);
void wf_client_close(struct wf_client *client, const char *why);
/* Leave a client's messages, and its end, unread while a job runs for it. */
void wf_client_pause(struct wf_client *client);
void wf_client_resume(struct wf_client *client);
/* There is no room for this request, but soon will be: keep it, and handle it again when
 * wf_clients_unpark() says so, or wait_ns after it was parked first.  False: that time is over. */
bool wf_client_park(struct wf_client *client, const struct wf_message *message, uint64_t wait_ns);
void wf_clients_unpark(struct wf_node *node);
/* Send node->answer, completing its header; closes the client when it does not take it. */
void wf_answer(struct wf_client *client, const struct wf_message *to, enum weft_status status,
               size_t bytes, const int *fds, size_t fd_count);
/* The last sentence, as the answer to `to`. */
void wf_answer_failure(struct wf_client *client, const struct wf_message *to,
                       enum weft_status status);

/* requests.c, sessions.c, regions.c, query.c: one handler an op.  `message` has at least the op's
 * fixed size. */
void wf_request(struct wf_client *client, const struct wf_message *message);
/* The root of a registered format, further restricted by `salt`. */
void wf_format_root(const struct wf_client *client, uint32_t format, const void *salt,
                    size_t salt_bytes, uint8_t root[32]);
/* The layout that a message asks for, in its bounds, with the quality as it was asked for; it
 * points into the message.  WEFT_E_PROTOCOL, WEFT_E_INVALID. */
enum weft_status wf_format_read(const struct wf_format_open *request,
                                struct weft_format_spec *spec);
void wf_handle_session_open(struct wf_client *client, const struct wf_session_open *request);
void wf_handle_session_close(struct wf_client *client, const struct wf_session_close *request);
void wf_handle_session_hint(struct wf_client *client, const struct wf_session_hint *request);
/* Is that the number of a session that this client has open? */
bool wf_session_is_of(const struct wf_client *client, uint64_t session);
/* When a read that this session waits for should be done, on the clock of wf_now_ns() / 1000. */
uint64_t wf_session_due_us(struct wf_client *client, uint64_t session);
/* Whose deadline is near from now on, and whose is over. */
void wf_sessions_hurry(struct wf_node *node);
/* What sessions said of chains that were below, and are up now, is told to the policy. */
void wf_sessions_tell(struct wf_node *node);
/* ahead.c: bring up what sessions that come back soon will need. */
void wf_sessions_wake(struct wf_node *node);
/* It is back, if it said that it would be. */
void wf_session_back(struct wf_client *client, uint64_t session);
void wf_session_advance(struct wf_client *client, uint64_t session, const uint8_t tip[32]);
void wf_sessions_drop(struct wf_client *client);
const char *wf_session_state_name(enum weft_session_state state);
void wf_handle_region_create(struct wf_client *client, const struct wf_region_create *request);
void wf_handle_region_open(struct wf_client *client, const struct wf_region_open *request);
void wf_handle_region_release(struct wf_client *client, const struct wf_region_release *request);
void wf_regions_drop(struct wf_client *client);
void wf_handle_query(struct wf_client *client, const struct wf_query *request);
char *wf_query_status(struct wf_node *node, const struct wf_domain *only);

/* put.c */
void wf_handle_reserve(struct wf_client *client, const struct wf_reserve *request);
void wf_handle_commit(struct wf_client *client, const struct wf_commit *request);
void wf_handle_abort(struct wf_client *client, const struct wf_commit *request);

/* scrub.c: take and check checksums of what is committed, when nothing else is to do */
/* Have one committed block checked by a worker, also when the node is busy; what is wrong is
 * dropped.  False: it is not there, or the workers are full. */
bool wf_scrub_soon(struct wf_domain *domain, uint32_t slot, uint32_t generation);
void wf_scrub_step(struct wf_node *node);

#endif
