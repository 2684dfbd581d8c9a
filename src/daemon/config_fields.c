/* SPDX-License-Identifier: Apache-2.0
 *
 * The table.  A new setting is a member in config.h and a line here; YAML, environment, flags, JSON
 * and help follow.
 */
#include "daemon/config_fields.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(struct wf_config, member)
#define IN_LINK(member) offsetof(struct wf_link_config, member)
#define IN_DOMAIN(member) offsetof(struct wf_domain_config, member)
#define IN_TIER(member) offsetof(struct wf_tier_config, member)
#define IN_ENGINE(member) offsetof(struct wf_engine_config, member)
#define TEXT(type, member) 0, sizeof(((type *)0)->member) - 1 /* may be empty */
#define WORD(type, member) 1, sizeof(((type *)0)->member) - 1 /* may not */

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define EIB (1024 * 1024 * TIB)

static const char *const directory_choices[] = {"auto", "full", "parts", NULL};
static const char *const huge_choices[] = {"auto", "on", "off", NULL};
static const char *const policy_choices[] = {"weft", "lru", NULL};
static const char *const objective_choices[] = {"hits", "ttft", NULL};
static const char *const priority_choices[] = {"low", "normal", "high", NULL};
static const char *const writes_choices[] = {"direct", "copied", NULL};
static const char *const quality_choices[] = {"lossless", "transparent", "economy", NULL};
static const char *const kind_choices[] = {"nvme", "cxl", "s3", "dram", NULL};
static const char *const admit_choices[] = {"auto", "always", "reused", "never", NULL};
static const char *const codec_choices[] = {"auto", "none", "lossless", NULL};
static const char *const encoding_choices[] = {"map", "array", NULL};
static const char *const hash_choices[] = {"numbers", "bytes", NULL};
static const char *const log_choices[] = {"off", "error", "warn", "info", "debug", NULL};

const struct wf_field wf_config_fields[] = {
    {"socket", WF_VALUE_PATH, AT(socket), WORD(struct wf_config, socket), NULL,
     "$XDG_RUNTIME_DIR/weft/weftd.sock, else /run/weft/weftd.sock for root, else "
     "/tmp/weft-<uid>/weftd.sock",
     "The Unix socket that clients connect to."},
    {"socket_mode", WF_VALUE_MODE, AT(socket_mode), 0, 0777, NULL, NULL,
     "Permissions of the socket, octal. 0666 lets every user of the host knock; `allow` and "
     "`token` of each "
     "domain then decide."},
    {"state_dir", WF_VALUE_PATH, AT(state_dir), WORD(struct wf_config, state_dir), NULL,
     "$XDG_STATE_HOME/weft, else /var/lib/weft for root, else ~/.local/state/weft",
     "Where the node keeps what it needs at its next start to find what lies below DRAM. Made when "
     "there is something to keep, for its own user alone."},
    {"profiles", WF_VALUE_PATH, AT(profiles), TEXT(struct wf_config, profiles), NULL,
     "`profiles` in state_dir",
     "Folder of the profiles (*.wfprofile, from `weft codec calibrate`) by which blocks of domains "
     "that allow it are stored with loss. A profile that something was stored by stays there: "
     "without it that cannot be read."},
    {"http.listen", WF_VALUE_LISTEN, AT(http_address), AT(http_port), 0, NULL, NULL,
     "Address and port of /metrics, /healthz and /v1; `off` for none. An address that is not "
     "loopback needs "
     "http.token. Port 0 takes any free one."},
    {"http.token", WF_VALUE_TOKEN, AT(http_token), TEXT(struct wf_config, http_token), NULL, NULL,
     "Asked of HTTP clients as `Authorization: Bearer`."},
    {"http.token_file", WF_VALUE_PATH, AT(http_token_file), TEXT(struct wf_config, http_token_file),
     NULL, NULL, "A file whose first line is http.token."},
    {"resp.listen", WF_VALUE_LISTEN, AT(resp_address), AT(resp_port), 0, NULL, NULL,
     "Address and port where clients of Redis are served, like 127.0.0.1:6379; `off` for none. An "
     "address that is not loopback needs resp.password."},
    {"resp.password", WF_VALUE_TOKEN, AT(resp_password), TEXT(struct wf_config, resp_password),
     NULL, NULL, "Asked of RESP clients by AUTH."},
    {"resp.password_file", WF_VALUE_PATH, AT(resp_password_file),
     TEXT(struct wf_config, resp_password_file), NULL, NULL,
     "A file whose first line is resp.password."},
    {"resp.domain", WF_VALUE_NAME, AT(resp_domain), WORD(struct wf_config, resp_domain), NULL, NULL,
     "The trust domain of RESP clients that name none. AUTH with a domain's name and token takes "
     "that one."},
    {"resp.threads", WF_VALUE_COUNT, AT(resp_threads), 1, 32, NULL, NULL,
     "Threads that serve RESP clients."},
    {"resp.clients", WF_VALUE_COUNT, AT(resp_clients), 1, 65536, NULL, NULL,
     "RESP clients connected at once."},
    {"resp.keys", WF_VALUE_COUNT, AT(resp_keys), 1024, 1 << 28, NULL, NULL,
     "Keys that the gateway knows of in a domain; beyond it the oldest goes."},
    {"resp.small", WF_VALUE_SIZE, AT(resp_small_bytes), MIB, TIB, NULL, NULL,
     "Memory of weftd, beside the pool, for the keys of a domain and for values up to 4 KiB; "
     "beyond it the oldest goes."},
    {"resp.stall", WF_VALUE_DURATION, AT(resp_stall_ms), 0, 86400000, NULL, NULL,
     "A RESP client that sends half a command, or does not read its answer, is closed after so "
     "long without a byte; 0 for never."},
    {"resp.idle", WF_VALUE_DURATION, AT(resp_idle_ms), 0, 86400000, NULL, NULL,
     "A RESP client that asks nothing is closed after so long; 0 for never."},
    {"resp.strict", WF_VALUE_BOOL, AT(resp_strict), 0, 0, NULL, NULL,
     "Whether a SET that the pool has no room for, and a GET whose load from below failed, are "
     "errors. Else they are answered with OK and nil, as by a cache, which LMCache's own client "
     "needs."},
    {"kv_events.listen", WF_VALUE_LISTEN, AT(events_address), AT(events_port), 0, NULL, NULL,
     "Address and port where KV events are published as vLLM publishes them (ZeroMQ PUB), like "
     "127.0.0.1:5557; `off` for none. One that is not loopback needs kv_events.public."},
    {"kv_events.replay", WF_VALUE_LISTEN, AT(events_replay_address), AT(events_replay_port), 0,
     NULL, NULL, "Where missed KV events are asked for (ZeroMQ ROUTER); `off` for nowhere."},
    {"kv_events.public", WF_VALUE_BOOL, AT(events_public), 0, 0, NULL, NULL,
     "Whether addresses of KV events may be other than loopback. Whoever reaches them reads the "
     "tokens of prompts: ZeroMQ asks for no password."},
    {"kv_events.topic", WF_VALUE_WORD, AT(events_topic), TEXT(struct wf_config, events_topic), NULL,
     NULL, "Topic of KV events; llm-d wants kv@HOST@MODEL."},
    {"kv_events.domain", WF_VALUE_NAME, AT(events_domain), WORD(struct wf_config, events_domain),
     NULL, NULL, "The trust domain whose blocks are told of, and no other's."},
    {"kv_events.encoding", WF_VALUE_CHOICE, AT(events_encoding), 0, 0, encoding_choices, NULL,
     "How an event is written: `map` as by vLLM since mid-2026, `array` as before."},
    {"kv_events.hashes", WF_VALUE_CHOICE, AT(events_hashes), 0, 0, hash_choices, NULL,
     "How a block's hash is written: `numbers` of its last 8 bytes, as vLLM does by default, or "
     "all of its `bytes`."},
    {"kv_events.memory", WF_VALUE_SIZE, AT(events_memory), MIB, TIB, NULL, NULL,
     "Memory of weftd, beside the pool, for what clients said that blocks stand for."},
    {"kv_events.replay_batches", WF_VALUE_COUNT, AT(events_replay_batches), 1, 1 << 20, NULL, NULL,
     "Batches of events that are kept to be asked for again."},
    {"kv_events.replay_bytes", WF_VALUE_SIZE, AT(events_replay_bytes), MIB, TIB, NULL, NULL,
     "And no more of them than so many bytes."},
    {"kv_events.engine_memory", WF_VALUE_SIZE, AT(events_engine_memory), MIB, TIB, NULL, NULL,
     "Memory of weftd, beside the pool, for what each of kv_events.engines says that it holds; "
     "beyond it, blocks are not taken up."},
    {"fabric.join", WF_VALUE_WORD, AT(fabric_join), TEXT(struct wf_config, fabric_join), NULL, NULL,
     "The cluster that this node belongs to: etcd://HOST:PORT/CLUSTER (etcds:// with TLS; more "
     "HOST:PORT with commas), or, without etcd, the other nodes' addresses, like "
     "tcp:10.0.0.2:7420 or tcp:10.0.0.2:7420,tcp:10.0.0.3:7420. Nothing: none."},
    {"fabric.name", WF_VALUE_MEMBER, AT(fabric_name), TEXT(struct wf_config, fabric_name), NULL,
     "the host's name", "What this node is called in the cluster; no two have one name."},
    {"fabric.place", WF_VALUE_WORD, AT(fabric_place), TEXT(struct wf_config, fabric_place), NULL,
     NULL,
     "Where this node stands: the switches above it from the top down, and itself, like "
     "rack12/switch3/host7; up to 8 levels. Of nodes that are equal otherwise the one with more "
     "levels in common is read from and lent to."},
    {"fabric.listen", WF_VALUE_WORD, AT(fabric_listen), TEXT(struct wf_config, fabric_listen), NULL,
     "with fabric.secret_file or fabric.certificate port 7420 of the address by which fabric.join "
     "is reached, else a free port of 127.0.0.1",
     "Where other nodes connect to: tcp:ADDRESS:PORT, ucx:ADDRESS:PORT or unix:PATH, or up to 4 of "
     "them with commas, of which others use the one that they measure to be the best. An address "
     "that is not loopback needs fabric.secret_file or fabric.certificate."},
    {"fabric.advertise", WF_VALUE_WORD, AT(fabric_advertise),
     TEXT(struct wf_config, fabric_advertise), NULL, "fabric.listen",
     "The address that other nodes are told, where it is another."},
    {"fabric.secret_file", WF_VALUE_PATH, AT(fabric_secret_file),
     TEXT(struct wf_config, fabric_secret_file), NULL, NULL,
     "A file of 32 bytes or more that every node of the cluster has, and nobody else: nodes prove "
     "to each other that they know it. Domains without a secret_file have secrets that are made of "
     "it, so that the same name means the same domain on every node."},
    {"fabric.encrypt", WF_VALUE_BOOL, AT(fabric_encrypt), 0, 0, NULL, NULL,
     "Whether what nodes say and send is encrypted (TLS 1.3, keyed by fabric.secret_file). Without "
     "it they prove who they are, and blocks cross in the clear, with checksums."},
    {"fabric.certificate", WF_VALUE_PATH, AT(fabric_certificate),
     TEXT(struct wf_config, fabric_certificate), NULL, NULL,
     "This node's certificate (PEM), whose common name is fabric.name: TLS 1.3, in both "
     "directions, instead of the secret. With fabric.key and fabric.ca."},
    {"fabric.key", WF_VALUE_PATH, AT(fabric_key), TEXT(struct wf_config, fabric_key), NULL, NULL,
     "The key of fabric.certificate (PEM)."},
    {"fabric.ca", WF_VALUE_PATH, AT(fabric_ca), TEXT(struct wf_config, fabric_ca), NULL, NULL,
     "Who signed the certificates of all nodes (PEM)."},
    {"fabric.registry_user", WF_VALUE_WORD, AT(fabric_user), TEXT(struct wf_config, fabric_user),
     NULL, NULL, "User of etcd, where it asks for one."},
    {"fabric.registry_password", WF_VALUE_TOKEN, AT(fabric_password),
     TEXT(struct wf_config, fabric_password), NULL, NULL, "The password of fabric.registry_user."},
    {"fabric.registry_ca", WF_VALUE_PATH, AT(fabric_registry_ca),
     TEXT(struct wf_config, fabric_registry_ca), NULL, "the system's",
     "Who signed etcd's certificate (PEM), for etcds://."},
    {"fabric.lease", WF_VALUE_DURATION, AT(fabric_lease_ms), 2000, 600000, NULL, NULL,
     "How long a node that says nothing stays a member of the cluster."},
    {"fabric.lend", WF_VALUE_SIZE, AT(fabric_lend_bytes), 0, 1024 * TIB, NULL, NULL,
     "Memory of this host, beside the pool, that other nodes may put blocks into; 0 for none. A "
     "node that only has memory has a small pool and lends the rest."},
    {"fabric.push_max", WF_VALUE_SIZE, AT(fabric_push_max), 0, 1024 * TIB, NULL, NULL,
     "Room in the pool that blocks which other nodes push here, layer by layer, may take before "
     "they are complete; 0 for an eighth of it."},
    {"fabric.codec", WF_VALUE_CHOICE, AT(fabric_codec), 0, 0, codec_choices, NULL,
     "Whether blocks cross between this node and others encoded, without loss: `auto` where they "
     "are there sooner so, by the link's measured speed and the codec's on both nodes; `lossless` "
     "all that become smaller; `none` not at all, in either direction."},
    {"fabric.copies", WF_VALUE_COUNT, AT(fabric_copies), 1, 8, NULL, NULL,
     "How many copies there are to be of a block of this node's in memory that others lend, each "
     "on another node, as far as there is room. When one of these nodes is gone, the others see to "
     "it that there are as many again."},
    {"fabric.move_rate", WF_VALUE_SIZE, AT(fabric_move_rate), MIB, 1024 * GIB, NULL, NULL,
     "Bytes a second at which this node hands blocks to others that lend memory: when it drains, "
     "when one is gone that had a copy of them, and when it has more than its share."},
    {"fabric.link_max", WF_VALUE_SIZE, AT(fabric_link_max), 0, 1024 * TIB, NULL, NULL,
     "The most that is sent to each other node that is not in fabric.links, in bytes a second; 0 "
     "for no bound."},
    {"fabric.replica", WF_VALUE_SIZE, AT(fabric_replica_bytes), MIB, 64 * GIB, NULL, NULL,
     "Memory of weftd, beside the pool, for where other nodes' blocks are: 14 bytes a copy."},
    {"fabric.directory", WF_VALUE_CHOICE, AT(fabric_directory), 0, 0, directory_choices, NULL,
     "How much of that a node knows: `full`, all of it, as far as fabric.replica has room; "
     "`parts`, its share, and for the rest it asks the nodes that have that as theirs, which needs "
     "etcd; `auto`, all until nine tenths of fabric.replica are used, and its share from then on. "
     "In parts a match finds what a prefetch or a route asked for before."},
    {"pool.size", WF_VALUE_SIZE, AT(pool_bytes), MIB, 64 * TIB, NULL,
     "a quarter of the host's memory", "Bytes of the DRAM pool."},
    {"pool.size_max", WF_VALUE_SIZE, AT(pool_bytes_max), MIB, 64 * TIB, NULL,
     "the host's memory, or pool.size when that is more",
     "How far memory that is lent later may grow the pool."},
    {"pool.huge", WF_VALUE_CHOICE, AT(pool_huge), 0, 0, huge_choices, NULL,
     "Huge pages: `auto` takes reserved ones when there are enough, and transparent ones "
     "otherwise, `on` does not start without reserved ones, `off` uses none."},
    {"pool.numa_node", WF_VALUE_NODE, AT(pool_numa_node), 0, 1023, NULL, NULL,
     "NUMA node that the pool's memory comes from; `any` leaves it to the kernel."},
    {"pool.prefault", WF_VALUE_BOOL, AT(pool_prefault), 0, 0, NULL, NULL,
     "Take all memory at start, so that no page fault comes later."},
    {"pool.block_bytes_min", WF_VALUE_SIZE, AT(block_bytes_min), 4 * KIB, 64 * MIB, NULL, NULL,
     "The smallest block that is expected: the index has room for pool.size_max divided by this."},
    {"pool.policy", WF_VALUE_CHOICE, AT(pool_policy), 0, 0, policy_choices, NULL,
     "Which block goes when room is needed: `weft` judges what each is worth from what was used "
     "again before, `lru` takes the least recently used."},
    {"pool.objective", WF_VALUE_CHOICE, AT(objective), 0, 0, objective_choices, NULL,
     "What policy `weft` keeps blocks for: `hits` alone, or `ttft`: each counts by what it takes "
     "to have it again, by `prefill_tokens_per_second`, or by its tier where a copy lies below."},
    {"pool.ahead", WF_VALUE_COUNT, AT(ahead_percent), 0, 50, NULL, NULL,
     "Percent of the pool that is kept written below ahead of need, so that a put which needs room "
     "waits for no device. Means nothing without tiers."},
    {"pool.prefill_tokens_per_second", WF_VALUE_COUNT, AT(prefill_tokens_s), 0, 1000000000, NULL,
     NULL,
     "How many tokens of a prompt the engines behind one request compute in a second: what a hit "
     "saves, so that tiers with `admit: auto` know what is sooner computed than read. 0 for not "
     "known: nothing is refused for being slow then."},
    {"limits.clients", WF_VALUE_COUNT, AT(clients_max), 1, 4096, NULL, NULL,
     "Clients connected at once."},
    {"limits.pins", WF_VALUE_COUNT, AT(pins_max), 64, 1 << 22, NULL, NULL,
     "Pins that one client may hold."},
    {"limits.sessions", WF_VALUE_COUNT, AT(sessions_max), 1, 1 << 22, NULL, NULL,
     "Sessions open at once."},
    {"limits.formats", WF_VALUE_COUNT, AT(formats_max), 1, 1 << 16, NULL, NULL,
     "Formats known at once."},
    {"limits.regions", WF_VALUE_COUNT, AT(regions_max), 1, 1 << 20, NULL, NULL,
     "Regions allocated at once."},
    {"limits.reserved", WF_VALUE_COUNT, AT(reserved_max), 1, 1 << 20, NULL, NULL,
     "Blocks that one client may hold reserved and uncommitted."},
    {"limits.below", WF_VALUE_COUNT, AT(below_max), 1024, 1 << 28, NULL, NULL,
     "Blocks known below DRAM at once."},
    {"staging", WF_VALUE_SIZE, AT(staging_bytes), MIB, 64 * GIB, NULL, NULL,
     "Staging memory of each client in a domain with `writes: copied`."},
    {"workers", WF_VALUE_COUNT, AT(workers), 1, 64, NULL, NULL,
     "Threads that move and check data."},
    {"drain", WF_VALUE_DURATION, AT(drain_ms), 0, 3600000, NULL, NULL,
     "How long SIGTERM waits for clients to finish: 500ms, 5s, 2m, or milliseconds."},
    {"events", WF_VALUE_COUNT, AT(events_max), 16, 1 << 22, NULL, NULL,
     "Entries of the event ring; the oldest are overwritten."},
    {"log.level", WF_VALUE_CHOICE, AT(log_level), 0, 0, log_choices, NULL,
     "How much weftd says on stderr."},
};
const size_t wf_config_field_count = sizeof wf_config_fields / sizeof wf_config_fields[0];

static const struct wf_field domain_fields[] = {
    {"name", WF_VALUE_NAME, IN_DOMAIN(name), WORD(struct wf_domain_config, name), NULL, NULL,
     "What clients ask for: 1 to 63 of a-z, 0-9, dot, underscore, hyphen."},
    {"quota", WF_VALUE_SIZE, IN_DOMAIN(quota_bytes), 0, 64 * TIB, NULL, NULL,
     "Bytes of blocks and regions that it may hold; 0 for the whole pool."},
    {"share", WF_VALUE_COUNT, IN_DOMAIN(share), 0, 1000000, NULL, NULL,
     "Its weight when all domains want more than there is, in DRAM and below; 0 for the quota as "
     "the weight. All domains have one, or none has."},
    {"floor", WF_VALUE_SIZE, IN_DOMAIN(floor_bytes), 0, 64 * TIB, NULL, NULL,
     "Bytes of DRAM that no other domain takes from it. All floors together fit pool.size."},
    {"fabric_share", WF_VALUE_COUNT, IN_DOMAIN(fabric_share), 0, 1000000, NULL, NULL,
     "Its weight when several domains want more of a link to another node than there is; 0 for 1."},
    {"fabric_max", WF_VALUE_SIZE, IN_DOMAIN(fabric_max), 0, 1024 * TIB, NULL, NULL,
     "The most that is sent of it to other nodes, all together, in bytes a second; 0 for no "
     "bound."},
    {"priority", WF_VALUE_CHOICE, IN_DOMAIN(priority), 0, 0, priority_choices, NULL,
     "What domains hold beyond their due is given back when it is wanted: by those of `low` first, "
     "by those of `high` last."},
    {"writes", WF_VALUE_CHOICE, IN_DOMAIN(writes), 0, 0, writes_choices, NULL,
     "`direct`: clients fill blocks in the pool. `copied`: they see it read-only and weftd "
     "copies, for "
     "clients that are not trusted to write only where they were told."},
    {"quality", WF_VALUE_CHOICE, IN_DOMAIN(quality), 0, 0, quality_choices, NULL,
     "How exactly its blocks come back from tiers with a codec: `lossless` bit for bit, "
     "`transparent` and `economy` as the profile of the format's model bounds it; without a "
     "profile, bit for bit."},
    {"token", WF_VALUE_TOKEN, IN_DOMAIN(token), TEXT(struct wf_domain_config, token), NULL, NULL,
     "Asked of every client that attaches."},
    {"token_file", WF_VALUE_PATH, IN_DOMAIN(token_file), TEXT(struct wf_domain_config, token_file),
     NULL, NULL, "A file whose first line is the token."},
    {"secret_file", WF_VALUE_PATH, IN_DOMAIN(secret_file),
     TEXT(struct wf_domain_config, secret_file), NULL, NULL,
     "32 bytes or more that the domain's keys derive from, from `head -c 32 /dev/urandom`. Without "
     "it a random secret is made at every start; with tiers at the first one, and kept in "
     "state_dir, so that what lies below is found again."},
    {"allow", WF_VALUE_ALLOW, IN_DOMAIN(allow), TEXT(struct wf_domain_config, allow), NULL, NULL,
     "Who may attach: `any`, or a list of uids and user names. weftd's own user and root always "
     "may."},
};

static const struct wf_field tier_fields[] = {
    {"name", WF_VALUE_NAME, IN_TIER(name), WORD(struct wf_tier_config, name), NULL, NULL,
     "What it is called: 1 to 31 of a-z, 0-9, dot, underscore, hyphen."},
    {"kind", WF_VALUE_CHOICE, IN_TIER(kind), 0, 0, kind_choices, NULL,
     "nvme, cxl, s3 or dram. In which order tiers are asked is measured, whatever their kind."},
    {"path", WF_VALUE_PATH, IN_TIER(path), WORD(struct wf_tier_config, path), NULL, NULL,
     "nvme: a file, a directory to make one in, or a block device. cxl: auto, /dev/daxX.Y, "
     "node:N, or file-emulation:PATH, which is no CXL and is shown as such. "
     "s3: s3://BUCKET/PREFIX. dram: none is needed, and what it says is but shown."},
    {"size", WF_VALUE_SIZE, IN_TIER(size_bytes), 0, EIB, NULL, NULL,
     "How much of it is used; 0 for all that the medium has. A new file needs a size, and so does "
     "dram."},
    {"queue_depth", WF_VALUE_COUNT, IN_TIER(queue_depth), 1, 1024, NULL, NULL,
     "Requests in flight."},
    {"admit", WF_VALUE_CHOICE, IN_TIER(admit), 0, 0, admit_choices, NULL,
     "What is written to it when it leaves DRAM: `auto` goes by what it is worth there, `always` "
     "takes all, `reused` what was read at least once, `never` leaves archives alone."},
    {"codec", WF_VALUE_CHOICE, IN_TIER(codec), 0, 0, codec_choices, NULL,
     "How blocks lie there: `lossless` encodes them, and they come back as they were, `none` "
     "writes them as they are, and `auto` encodes on nvme and s3, unless the medium is faster than "
     "the codec, and everywhere with the loss that the domain allows (quality), if there is a "
     "profile."},
    {"archive", WF_VALUE_BOOL, IN_TIER(archive), 0, 0, NULL, NULL,
     "Whether archives may lie there."},
    {"dwpd", WF_VALUE_DECIMAL, IN_TIER(drive_writes), 0, 10000, NULL, NULL,
     "Drive writes a day: how often its size may be written in a day, as the data sheets of drives "
     "have it, like 0.3 or 1; 0 for no limit. It is earned by the second, an hour's at most."},
    {"endpoint", WF_VALUE_WORD, IN_TIER(endpoint), TEXT(struct wf_tier_config, endpoint), NULL,
     NULL, "s3: URL of the server, for one that is not Amazon's."},
    {"region", WF_VALUE_WORD, IN_TIER(region), TEXT(struct wf_tier_config, region), NULL, NULL,
     "s3: the bucket's region."},
    {"host", WF_VALUE_COUNT, IN_TIER(host), 0, 255, NULL, NULL,
     "cxl: this host's number on a device that several hosts share, from 1; no two have the same."},
    {"shared", WF_VALUE_BOOL, IN_TIER(shared), 0, 0, NULL, NULL,
     "cxl: whether several hosts share the device."},
    {"dram_node", WF_VALUE_BOOL, IN_TIER(dram_node), 0, 0, NULL, NULL,
     "cxl: whether node:N may have processors, though its memory is plain DRAM then."},
    {"discard", WF_VALUE_BOOL, IN_TIER(discard), 0, 0, NULL, NULL,
     "nvme: whether a block device is told of what is not used any more, if it wants to know."},
    {"timeout", WF_VALUE_DURATION, IN_TIER(timeout_ms), 10, 3600000, NULL, NULL,
     "A request that takes longer counts as a miss, and the tier as stalled."},
    {"scrub", WF_VALUE_SIZE, IN_TIER(scrub_bytes_per_s), 0, TIB, NULL,
     "32MB, but an hour at least to read all of the tier; s3: 30 days, from 64MB to 1GB a day",
     "Bytes a second that the background check reads; 0 for none."},
};

static const struct wf_field engine_fields[] = {
    {"name", WF_VALUE_NAME, IN_ENGINE(name), WORD(struct wf_engine_config, name), NULL, NULL,
     "What it is called: 1 to 31 of a-z, 0-9, dot, underscore, hyphen."},
    {"endpoint", WF_VALUE_WORD, IN_ENGINE(endpoint), WORD(struct wf_engine_config, endpoint), NULL,
     NULL,
     "Where it publishes (ZeroMQ PUB): tcp://127.0.0.1:5557 or ipc:///PATH. One that is not on "
     "this host needs kv_events.public."},
    {"replay", WF_VALUE_WORD, IN_ENGINE(replay), TEXT(struct wf_engine_config, replay), NULL, NULL,
     "Where it is asked for batches that were missed, its replay_endpoint; empty for nowhere: then "
     "all that is known of it is forgotten when one is."},
    {"topic", WF_VALUE_WORD, IN_ENGINE(topic), TEXT(struct wf_engine_config, topic), NULL, NULL,
     "What the topics of its batches begin with."},
    {"model", WF_VALUE_WORD, IN_ENGINE(model), TEXT(struct wf_engine_config, model), NULL, NULL,
     "Whose blocks its hashes name: a format's model as `weft ls formats` shows it, or the part "
     "before the last @, with or without what is before a colon. Empty: of no format here."},
};

static const struct wf_field link_fields[] = {
    {"name", WF_VALUE_MEMBER, IN_LINK(name), WORD(struct wf_link_config, name), NULL, NULL,
     "The node, as its fabric.name is."},
    {"max", WF_VALUE_SIZE, IN_LINK(max_bytes_s), 0, 1024 * TIB, NULL, NULL,
     "The most that is sent to it, in bytes a second; 0 for no bound."},
};

static void domain_defaults(void *entry)
{
    struct wf_domain_config *domain = entry;
    *domain = (struct wf_domain_config){.writes = WF_WRITES_DIRECT, .priority = WF_PRIORITY_NORMAL};
}

static void tier_defaults(void *entry)
{
    struct wf_tier_config *tier = entry;
    *tier = (struct wf_tier_config){
        .kind = WF_KIND_NVME,
        .queue_depth = 32,
        .admit = WF_ADMIT_AUTO,
        .codec = WF_CODE_AUTO,
        .archive = true,
        .discard = true,
        .timeout_ms = 5000,
        .scrub_bytes_per_s = 32 * MIB,
    };
}

static void engine_defaults(void *entry)
{
    struct wf_engine_config *engine = entry;
    *engine = (struct wf_engine_config){.endpoint = "tcp://127.0.0.1:5557"};
}

static void link_defaults(void *entry)
{
    struct wf_link_config *link = entry;
    *link = (struct wf_link_config){.max_bytes_s = 0};
}

const struct wf_config_list wf_config_lists[WF_LIST_COUNT] = {
    [WF_LIST_DOMAINS] =
        {
            .key = "domains",
            .one = "domain",
            .fields = domain_fields,
            .field_count = sizeof domain_fields / sizeof domain_fields[0],
            .max = WF_DOMAINS_MAX,
            .name_max = WF_DOMAIN_NAME_MAX,
            .entries_at = AT(domains),
            .entry_bytes = sizeof(struct wf_domain_config),
            .count_at = AT(domain_count),
            .origin_at = AT(domains_origin),
            .origins_at = IN_DOMAIN(origin),
            .defaults = domain_defaults,
            .over = "run a second node for the others",
            .empty = "nobody could attach; add `- name: default`",
            .help = "Trust domains: each has its own secret, quota and segments, and no sight of "
                    "another.",
        },
    [WF_LIST_TIERS] =
        {
            .key = "tiers",
            .one = "tier",
            .fields = tier_fields,
            .field_count = sizeof tier_fields / sizeof tier_fields[0],
            .max = WF_TIERS_MAX,
            .name_max = WF_TIER_NAME_MAX,
            .entries_at = AT(tiers),
            .entry_bytes = sizeof(struct wf_tier_config),
            .count_at = AT(tier_count),
            .origin_at = AT(tiers_origin),
            .origins_at = IN_TIER(origin),
            .defaults = tier_defaults,
            .over = "join some, or leave them out",
            .help = "Tiers: where blocks go that DRAM has no room for, and archives. None unless "
                    "said.",
            .example = "nvme0",
        },
    [WF_LIST_ENGINES] =
        {
            .key = "kv_events.engines",
            .one = "kv_events.engine",
            .fields = engine_fields,
            .field_count = sizeof engine_fields / sizeof engine_fields[0],
            .max = WF_ENGINES_MAX,
            .name_max = WF_ENGINE_NAME_MAX,
            .entries_at = AT(engines),
            .entry_bytes = sizeof(struct wf_engine_config),
            .count_at = AT(engine_count),
            .origin_at = AT(engines_origin),
            .origins_at = IN_ENGINE(origin),
            .defaults = engine_defaults,
            .over = "run a second node for the others",
            .help = "Engines whose KV events are heard, so that the node knows what they hold. "
                    "None unless said.",
            .example = "vllm0",
        },
    [WF_LIST_LINKS] =
        {
            .key = "fabric.links",
            .one = "fabric.link",
            .fields = link_fields,
            .field_count = sizeof link_fields / sizeof link_fields[0],
            .max = WF_LINKS_MAX_NAMED,
            .name_max = WF_FABRIC_NAME_MAX,
            .entries_at = AT(links),
            .entry_bytes = sizeof(struct wf_link_config),
            .count_at = AT(link_count),
            .origin_at = AT(links_origin),
            .origins_at = IN_LINK(origin),
            .defaults = link_defaults,
            .over = "set fabric.link_max for the others",
            .help = "Nodes to which no more than so much is sent. None unless said.",
            .example = "host-9",
        },
};

static_assert(sizeof wf_config_fields / sizeof wf_config_fields[0] <= WF_CONFIG_FIELDS_MAX,
              "every field has its origin in struct wf_config");
static_assert(sizeof domain_fields / sizeof domain_fields[0] <= WF_DOMAIN_FIELDS_MAX,
              "every field has its origin in struct wf_domain_config");
static_assert(sizeof tier_fields / sizeof tier_fields[0] <= WF_TIER_FIELDS_MAX,
              "every field has its origin in struct wf_tier_config");
static_assert(sizeof engine_fields / sizeof engine_fields[0] <= WF_ENGINE_FIELDS_MAX,
              "every field has its origin in struct wf_engine_config");
static_assert(sizeof link_fields / sizeof link_fields[0] <= WF_LINK_FIELDS_MAX,
              "every field has its origin in struct wf_link_config");
static_assert(WF_FABRIC_NAME_MAX <= WF_LIST_NAME_MAX && IN_LINK(name) == 0,
              "an entry begins with its name, for which keys and origins have room");
static_assert(WF_TIER_FIELDS_MAX <= WF_LIST_FIELDS_MAX &&
                  WF_DOMAIN_FIELDS_MAX <= WF_LIST_FIELDS_MAX &&
                  WF_ENGINE_FIELDS_MAX <= WF_LIST_FIELDS_MAX,
              "the walk over a file has room for the fields of any list");
static_assert(WF_TIER_NAME_MAX <= WF_LIST_NAME_MAX, "keys and origins have room for tiers' names");
static_assert(WF_DOMAIN_NAME_MAX <= WF_LIST_NAME_MAX, "… and for domains'");
static_assert(WF_ENGINE_NAME_MAX <= WF_LIST_NAME_MAX, "… and for engines'");
static_assert(IN_DOMAIN(name) == 0 && IN_TIER(name) == 0 && IN_ENGINE(name) == 0,
              "an entry begins with its name");
static_assert(sizeof(enum wf_huge) == sizeof(int) && sizeof(enum wf_pool_policy) == sizeof(int) &&
                  sizeof(enum wf_objective) == sizeof(int) &&
                  sizeof(enum wf_writes) == sizeof(int) &&
                  sizeof(enum wf_priority) == sizeof(int) &&
                  sizeof(enum wf_quality_choice) == sizeof(int) &&
                  sizeof(enum wf_tier_kind) == sizeof(int) &&
                  sizeof(enum wf_tier_codec) == sizeof(int) &&
                  sizeof(enum wf_tier_admit) == sizeof(int),
              "WF_VALUE_CHOICE reads and writes an int");

static int find(const struct wf_field *fields, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].key, key) == 0)
            return (int)i;
    return -1;
}

int wf_config_field(const char *key)
{
    return find(wf_config_fields, wf_config_field_count, key);
}

int wf_list_field(const struct wf_config_list *list, const char *key)
{
    return find(list->fields, list->field_count, key);
}

/* The member of a configuration that may be written to when the caller's may. */
static void *member(const struct wf_config *config, size_t offset)
{
    return (char *)(uintptr_t)config + offset;
}

void *wf_list_entry(const struct wf_config_list *list, const struct wf_config *config,
                    uint32_t index)
{
    assert(index < list->max);
    return member(config, list->entries_at + index * list->entry_bytes);
}

uint32_t wf_list_count(const struct wf_config_list *list, const struct wf_config *config)
{
    return *(const uint32_t *)member(config, list->count_at);
}

void *wf_list_find(const struct wf_config_list *list, const struct wf_config *config,
                   const char *name)
{
    for (uint32_t i = 0; i < wf_list_count(list, config); i++)
        if (strcmp(wf_list_entry(list, config, i), name) == 0)
            return wf_list_entry(list, config, i);
    return NULL;
}

struct wf_config_origin *wf_list_origin(const struct wf_config_list *list, void *entry, int index)
{
    return (struct wf_config_origin *)(void *)((char *)entry + list->origins_at) + index;
}

void wf_list_resize(const struct wf_config_list *list, struct wf_config *config, uint32_t count,
                    struct wf_config_origin origin)
{
    assert(count <= list->max);
    *(uint32_t *)member(config, list->count_at) = count;
    *(struct wf_config_origin *)member(config, list->origin_at) = origin;
}

char *wf_list_words(const struct wf_config_list *list, size_t first, char *out, size_t capacity)
{
    size_t used = 0;
    for (size_t i = first; i < list->field_count && used < capacity; i++)
        used += (size_t)snprintf(out + used, capacity - used, "%s%s",
                                 i == first                   ? ""
                                 : i + 1 == list->field_count ? " or "
                                                              : ", ",
                                 list->fields[i].key);
    return out;
}

bool wf_config_is_default(const struct wf_config *config, const char *key)
{
    int index = wf_config_field(key);
    assert(index >= 0);
    return config->origin[index].layer == WF_FROM_DEFAULT;
}

char *wf_config_variable(const char *key, char *out)
{
    memcpy(out, "WEFT_", 5);
    char *p = out + 5;
    for (; *key && p < out + WF_CONFIG_KEY_MAX + 5; key++)
        *p++ = *key == '.' ? '_' : (char)toupper((unsigned char)*key);
    *p = '\0';
    return out;
}

char *wf_origin_text(const struct wf_config *config, const struct wf_config_origin *origin,
                     const char *key, char *out, size_t capacity)
{
    char variable[WF_CONFIG_KEY_MAX + 6];
    switch (origin->layer) {
    case WF_FROM_DEFAULT: snprintf(out, capacity, "default"); break;
    case WF_FROM_FILE: snprintf(out, capacity, "%s:%u", config->file, origin->line); break;
    case WF_FROM_ENVIRONMENT:
        snprintf(out, capacity, "env %s", wf_config_variable(key, variable));
        break;
    case WF_FROM_FLAG: snprintf(out, capacity, "flag %s", key); break;
    }
    return out;
}

char *wf_config_where(const struct wf_config *config, int index, char *out)
{
    return wf_origin_text(config, &config->origin[index], wf_config_fields[index].key, out,
                          WF_ORIGIN_TEXT_MAX);
}

char *wf_list_where(const struct wf_config_list *list, const struct wf_config *config,
                    const void *entry, int index, char *out)
{
    char key[WF_CONFIG_KEY_MAX + WF_LIST_NAME_MAX + 16];
    if (index == 0) /* variables and flags name entries in the list alone */
        snprintf(key, sizeof key, "%s", list->key);
    else
        snprintf(key, sizeof key, "%s.%s.%s", list->one, (const char *)entry,
                 list->fields[index].key);
    return wf_origin_text(config, wf_list_origin(list, (void *)(uintptr_t)entry, index), key, out,
                          WF_ORIGIN_TEXT_MAX);
}
