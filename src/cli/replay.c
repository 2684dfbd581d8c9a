/* SPDX-License-Identifier: Apache-2.0
 *
 * weft replay: a request trace against a live node, every byte of every hit checked.
 *
 * The parent connects to nobody while clients run: each client is a process of its own, forked
 * before it connects, so that the node sees what it sees from as many engines.
 */
#include "cli/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/commands.h"

#define NOT_GIVEN UINT64_MAX

struct replay_options wf_replay_options = {.trace_format = TRACE_UNSAID,
                                           .speed = "max",
                                           .bytes_per_token = 256,
                                           .capacity_blocks = NOT_GIVEN,
                                           .clients = 1,
                                           .patience_s = 30,
                                           .dir = "/var/tmp"};

static const struct cli_option options[] = {
    {"trace", CLI_TEXT, "FILE", &wf_replay_options.trace, "the trace, JSON lines, plain or gzip"},
    {"format", CLI_TEXT, "mooncake|qwen", &wf_replay_options.format,
     "what its lines are (what they look like)"},
    {"pool", CLI_SIZE, "SIZE", &wf_replay_options.pool_bytes,
     "the pool of the node that it starts (1 GiB)"},
    {"capacity-blocks", CLI_NUMBER, "N", &wf_replay_options.capacity_blocks,
     "a pool that holds so many blocks and no more, instead of --pool"},
    {"policy", CLI_TEXT, "weft|lru", &wf_replay_options.policy,
     "which blocks its node lets go (weft)"},
    {"tier-size", CLI_SIZE, "SIZE", &wf_replay_options.tier_bytes,
     "NVMe that this node has below its pool (none)"},
    {"dir", CLI_TEXT, "DIR", &wf_replay_options.dir, "where the file for it is made (/var/tmp)"},
    {"bytes-per-token", CLI_NUMBER, "N", &wf_replay_options.bytes_per_token,
     "KV bytes of a token; a block is 512 tokens (qwen: 16) of them (256)"},
    {"speed", CLI_TEXT, "SPEED", &wf_replay_options.speed,
     "max, realtime, or a factor like 10x on the trace's clock (max)"},
    {"hints", CLI_TEXT, "trace", &wf_replay_options.hints,
     "say to the node what lines say that their sessions will do"},
    {"clients", CLI_NUMBER, "N", &wf_replay_options.clients, "client processes (1)"},
    {"requests", CLI_NUMBER, "N", &wf_replay_options.requests_max,
     "stop after about so many (all)"},
    {"strict", CLI_FLAG, NULL, &wf_replay_options.strict, "stop at the first malformed line"},
    {"patience", CLI_NUMBER, "SECONDS", &wf_replay_options.patience_s,
     "how long to wait for a node that went away (30)"},
    {"details", CLI_FLAG, NULL, &wf_replay_options.details, "more figures, under \"details\""},
    {NULL},
};

static const char *const examples[] = {
    "a production trace through a node of 512 MiB, by two clients, as fast as it goes",
    ("weft replay --trace mooncake_conversation.jsonl --pool 512MB --bytes-per-token 256 --clients "
     "2 --json"),
    "against a node that serves, ten times as fast as it was",
    "weft replay --trace trace.jsonl --speed 10x --clients 8 --socket /run/weft/weftd.sock",
    "the same with a tenth of the room in DRAM and the rest on NVMe",
    "weft replay --trace mooncake_conversation.jsonl --pool 50MB --tier-size 500MB --details",
    "what weft sim says of a node with room for 6,000 blocks, on a node",
    ("weft replay --trace trace.jsonl --capacity-blocks 6000 --speed 60x && weft sim --trace "
     "trace.jsonl --capacity-blocks 6000 --policy weft --speed 60x"),
    "a trace with short blocks, where no line may be malformed",
    "weft replay --trace qwen.jsonl --format qwen --strict --pool 4GB",
    NULL,
};

#define CAPACITY_BLOCKS_MAX (1u << 26)
#define POOL_BYTES_LEAST ((uint64_t)1 << 20) /* of pool.size */

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static int options_check(struct cli *cli)
{
    struct replay_options *given = &wf_replay_options;
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE,
                           "'%s' is one word too many; the trace goes after --trace",
                           cli->words[0]);
    if (!given->trace)
        return wf_cli_fail(cli, CLI_USAGE, "name the trace with --trace FILE");
    struct stat about;
    if (stat(given->trace, &about) != 0 || !S_ISREG(about.st_mode))
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot read %s: %s", given->trace,
                           errno ? strerror(errno) : "every client reads it, so it must be a file");
    if (given->format)
        wf_trace_format_of(given->format, &given->trace_format);
    if (!given->clients || given->clients > REPLAY_CLIENTS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--clients is %llu; give 1 to %d",
                           (unsigned long long)given->clients, REPLAY_CLIENTS_MAX);
    if (!given->bytes_per_token || given->bytes_per_token > (1u << 22))
        return wf_cli_fail(cli, CLI_USAGE, "--bytes-per-token is %llu; give 1 to 4194304",
                           (unsigned long long)given->bytes_per_token);
    if (!given->capacity_blocks)
        return wf_cli_fail(cli, CLI_USAGE, "--capacity-blocks is 0; give 1 to %u",
                           CAPACITY_BLOCKS_MAX);
    if (given->capacity_blocks == NOT_GIVEN)
        given->capacity_blocks = 0;
    if (cli->socket && (given->capacity_blocks || given->policy))
        return wf_cli_fail(cli, CLI_USAGE,
                           "--capacity-blocks and --policy start a node, and --socket names one "
                           "that runs; leave one of them out");
    if (given->capacity_blocks && given->pool_bytes)
        return wf_cli_fail(cli, CLI_USAGE, "give --capacity-blocks or --pool, not both");
    if (given->capacity_blocks > CAPACITY_BLOCKS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--capacity-blocks is %llu; give 1 to %u",
                           (unsigned long long)given->capacity_blocks, CAPACITY_BLOCKS_MAX);
    char least[32];
    if (given->pool_bytes && given->pool_bytes < POOL_BYTES_LEAST)
        return wf_cli_fail(cli, CLI_USAGE, "--pool is %llu bytes; give %s or more",
                           (unsigned long long)given->pool_bytes,
                           wf_cli_size(POOL_BYTES_LEAST, least, sizeof least));
    if (given->policy && strcmp(given->policy, "weft") != 0 && strcmp(given->policy, "lru") != 0)
        return wf_cli_fail(cli, CLI_USAGE, "--policy is '%s'; it is weft or lru", given->policy);
    if (given->hints && strcmp(given->hints, "trace") != 0)
        return wf_cli_fail(cli, CLI_USAGE, "--hints is '%s'; only trace is known", given->hints);
    given->hinted = given->hints != NULL;
    char *end;
    given->speed_factor = strtod(given->speed, &end);
    if (strcmp(given->speed, "max") == 0)
        given->speed_factor = 0;
    else if (strcmp(given->speed, "realtime") == 0)
        given->speed_factor = 1;
    else if (end == given->speed || strcmp(end, "x") != 0 || !(given->speed_factor > 0))
        return wf_cli_fail(cli, CLI_USAGE,
                           "--speed is '%s'; it is max, realtime, or a factor like 10x",
                           given->speed);
    return CLI_OK;
}

static double hit_rate(const struct replay_shared *shared)
{
    uint64_t asked = read_counter(&shared->blocks_requested);
    return asked ? (double)read_counter(&shared->blocks_hit) / (double)asked : 0;
}

/* Wait for all clients, drawing how far they are.  The worst of their exit codes. */
static int clients_wait(struct cli *cli, struct replay_shared *shared, const pid_t *clients,
                        uint64_t count)
{
    struct stat about;
    double size = stat(wf_replay_options.trace, &about) == 0 && about.st_size
                      ? (double)about.st_size
                      : 1;
    struct cli_progress progress;
    wf_cli_progress_init(&progress, "replay");
    bool ended[REPLAY_CLIENTS_MAX] = {false};
    int worst = CLI_OK;
    for (uint64_t left = count; left;) {
        for (uint64_t i = 0; i < count; i++) {
            int how;
            if (ended[i] || waitpid(clients[i], &how, WNOHANG) != clients[i])
                continue;
            ended[i] = true;
            left--;
            int code = WIFEXITED(how) ? WEXITSTATUS(how) : CLI_SYSTEM;
            if (WIFSIGNALED(how)) {
                wf_cli_progress_fini(&progress);
                fprintf(stderr, "weft %s: client %llu died of signal %d; its request is lost\n",
                        cli->command->name, (unsigned long long)i, WTERMSIG(how));
            }
            worst = code > worst ? code : worst;
        }
        char note[96];
        snprintf(note, sizeof note, "%llu requests, %.1f %% of blocks hit",
                 (unsigned long long)read_counter(&shared->requests), 100 * hit_rate(shared));
        wf_cli_progress_step(&progress, (double)read_counter(&shared->offset) / size, note);
        if (left)
            usleep(5000);
    }
    wf_cli_progress_fini(&progress);
    return worst;
}

static json_t *details_json(const struct replay_shared *shared, double elapsed_s)
{
    json_t *out = json_object();
    const struct {
        const char *name;
        const _Atomic uint64_t *counter;
    } all[] = {{"blocks_put", &shared->puts},
               {"blocks_existing", &shared->existing},
               {"blocks_full", &shared->full},
               {"blocks_orphaned", &shared->orphaned},
               {"blocks_from_below", &shared->below},
               {"blocks_vanished", &shared->vanished},
               {"lines_malformed", &shared->malformed},
               {"node_losses", &shared->node_losses},
               {"hint_failures", &shared->hint_failures},
               {"late_us_max", &shared->late_us_max}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        wf_cli_json_set(out, all[i].name, json_integer((json_int_t)read_counter(all[i].counter)));
    double block = wf_trace_block_tokens(wf_replay_options.trace_format) *
                   (double)wf_replay_options.bytes_per_token;
    wf_cli_json_set(out, "elapsed_s", wf_cli_json_real(elapsed_s, 3));
    wf_cli_json_set(
        out, "read_gbps",
        wf_cli_json_real((double)read_counter(&shared->blocks_hit) * block / elapsed_s / 1e9, 3));
    wf_cli_json_set(out, "written_gbps",
                    wf_cli_json_real((double)read_counter(&shared->puts) * block / elapsed_s / 1e9,
                                     3));
    return out;
}

/* Of the node that is started. */
static const char *policy_of(const struct replay_options *given)
{
    return given->policy ? given->policy : "weft";
}

/* At full speed ages are not the trace's, and what goes by ages is another policy there. */
static void clock_print(const struct cli *cli, const struct replay_shared *shared, double elapsed_s)
{
    uint64_t first = read_counter(&shared->trace_us_first),
             last = read_counter(&shared->trace_us_last);
    double span_s = first && last > first ? (double)(last - first + 1) * 1e-6 : 0;
    if (wf_replay_options.speed_factor > 0 || !cli->own_node || span_s <= elapsed_s ||
        strcmp(policy_of(&wf_replay_options), "weft") != 0)
        return;
    printf("%.0f s of the trace went by in that, %.0f times as fast: weft, which goes by ages, "
           "saw another trace; --speed 60x or the like is for hit rates to compare\n",
           span_s, span_s / elapsed_s);
}

static void report(struct cli *cli, const struct replay_shared *shared, double elapsed_s)
{
    uint64_t requests = read_counter(&shared->requests),
             asked = read_counter(&shared->blocks_requested);
    uint64_t hit = read_counter(&shared->blocks_hit), wrong = read_counter(&shared->wrong_bytes);
    double gets_per_s = (double)hit / elapsed_s;
    double puts_per_s = (double)read_counter(&shared->puts) / elapsed_s;
    if (cli->json) {
        json_t *out = json_object();
        wf_cli_json_set(out, "requests", json_integer((json_int_t)requests));
        wf_cli_json_set(out, "blocks_requested", json_integer((json_int_t)asked));
        wf_cli_json_set(out, "blocks_hit", json_integer((json_int_t)hit));
        wf_cli_json_set(out, "hit_rate", wf_cli_json_real(hit_rate(shared), 6));
        wf_cli_json_set(out, "wrong_bytes", json_integer((json_int_t)wrong));
        wf_cli_json_set(out, "gets_per_s", wf_cli_json_real(gets_per_s, 1));
        wf_cli_json_set(out, "puts_per_s", wf_cli_json_real(puts_per_s, 1));
        wf_cli_json_set(out, "policy",
                        cli->own_node ? json_string(policy_of(&wf_replay_options)) : json_null());
        if (wf_replay_options.details)
            wf_cli_json_set(out, "details", details_json(shared, elapsed_s));
        wf_cli_json_print(out);
        return;
    }
    char bar[4 * 40 + 1];
    wf_cli_bar(hit_rate(shared), 40, bar);
    printf("%s  %.2f %% of blocks hit\n\n", bar, 100 * hit_rate(shared));
    wf_cli_node_print(cli, stdout);
    if (cli->own_node)
        printf("which lets blocks go by %s (--policy)\n", policy_of(&wf_replay_options));
    printf("%llu request%s in %.2f s by %llu client%s\n", (unsigned long long)requests,
           wf_cli_s(requests), elapsed_s, (unsigned long long)wf_replay_options.clients,
           wf_cli_s(wf_replay_options.clients));
    clock_print(cli, shared, elapsed_s);
    printf("%llu block%s asked for, %llu read and checked, %llu wrong byte%s\n",
           (unsigned long long)asked, wf_cli_s(asked), (unsigned long long)hit,
           (unsigned long long)wrong, wf_cli_s(wrong));
    printf("%.0f gets/s, %.0f puts/s\n", gets_per_s, puts_per_s);
    if (wf_replay_options.details) {
        json_t *details = details_json(shared, elapsed_s);
        putchar('\n');
        wf_cli_tree_print(details, 0, stdout);
        json_decref(details);
    }
}

/* What the user should know besides the figures. */
static void remarks(const struct replay_shared *shared)
{
    if (atomic_load_explicit(&shared->said, memory_order_acquire) == 2)
        fprintf(stderr, "weft replay: %s\n", shared->sentence);
    uint64_t malformed = read_counter(&shared->malformed),
             losses = read_counter(&shared->node_losses);
    if (malformed)
        fprintf(stderr, "weft replay: %llu malformed line%s %s\n", (unsigned long long)malformed,
                malformed == 1 ? " was" : "s were",
                wf_replay_options.strict ? "found; --strict stops there" : "skipped");
    if (losses)
        fprintf(stderr, "weft replay: the node was lost %llu time%s and found again\n",
                (unsigned long long)losses, wf_cli_s(losses));
    uint64_t full = read_counter(&shared->full);
    if (full)
        fprintf(stderr,
                "weft replay: %llu block%s found no room and %s not stored; a larger --pool keeps "
                "more\n",
                (unsigned long long)full, wf_cli_s(full), full == 1 ? "was" : "were");
    uint64_t wrong = read_counter(&shared->wrong_bytes);
    if (wrong)
        fprintf(stderr, "weft replay: %llu byte%s not what was stored\n", (unsigned long long)wrong,
                wrong == 1 ? " was" : "s were");
}

static int clients_run(struct cli *cli, struct replay_shared *shared)
{
    pid_t clients[REPLAY_CLIENTS_MAX];
    uint64_t count = 0;
    int code = CLI_OK;
    fflush(NULL);
    while (count < wf_replay_options.clients && code == CLI_OK) {
        clients[count] = fork();
        if (clients[count] == 0)
            _exit(wf_replay_client(cli, shared));
        if (clients[count] < 0)
            code = wf_cli_fail(cli, CLI_SYSTEM,
                               "no process for client %llu: %s; ask for fewer --clients",
                               (unsigned long long)count, strerror(errno));
        else
            count++;
    }
    if (code != CLI_OK)
        atomic_store_explicit(&shared->stop, 1, memory_order_relaxed);
    siginfo_t ended = {0};
    while (atomic_load_explicit(&shared->ready, memory_order_acquire) < count && !ended.si_pid) {
        usleep(500);
        waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT);
    }
    shared->start_s = wf_cli_now_s();
    atomic_store_explicit(&shared->go, 1, memory_order_release);
    int worst = clients_wait(cli, shared, clients, count);
    double elapsed_s = wf_cli_now_s() - shared->start_s;
    if (code != CLI_OK)
        return code;
    if (worst == CLI_OK || read_counter(&shared->requests))
        report(cli, shared, elapsed_s > 0 ? elapsed_s : 1e-9);
    remarks(shared);
    return read_counter(&shared->wrong_bytes) ? CLI_WRONG : worst;
}

/* A pool in blocks: each takes whole granules, and the node's index has as many slots for one as
 * the simulator's (SLOTS_A_BLOCK in sim/weft_cache.c), since they are what the policy remembers by;
 * a node adds 1,024. */
static void capacity_settings(const struct replay_options *given, struct cli_node_plan *plan,
                              char *out, size_t out_bytes)
{
    const uint64_t granule = 4096, blocks = given->capacity_blocks;
    uint64_t block = wf_trace_block_tokens(given->trace_format) * given->bytes_per_token;
    uint64_t slots = 4 * blocks > 1024 ? 4 * blocks - 1024 : 1;
    plan->pool_bytes = blocks * ((block + granule - 1) / granule * granule);
    uint64_t least = plan->pool_bytes / slots;
    snprintf(out, out_bytes, "pool.block_bytes_min=%llu",
             (unsigned long long)(least < granule      ? granule
                                  : least > (64 << 20) ? 64 << 20
                                                       : least));
}

/* What lines are: one reader looks at the first ones, before all clients read. */
static int format_settle(struct cli *cli, struct replay_options *given)
{
    struct trace_reader reader = {0};
    int code = CLI_OK;
    if (!wf_trace_open(&reader, given->trace, given->trace_format))
        code = wf_cli_fail(cli, CLI_SYSTEM, "%s", reader.error);
    else if (!wf_trace_settle(&reader))
        code = wf_cli_fail(cli, CLI_USAGE, "%s", reader.error);
    given->trace_format = reader.format;
    wf_trace_close(&reader);
    return code;
}

/* --hints of a trace that has none would be a run without hints that says it had some.  It reads
 * up to the first that there is, among the requests that may be played. */
static int hints_check(struct cli *cli, const struct replay_options *given)
{
    struct trace_reader reader = {0};
    struct trace_request request = {0};
    uint64_t requests = 0;
    bool hinted = false, failed = !wf_trace_open(&reader, given->trace, given->trace_format);
    while (!failed && !hinted && (!given->requests_max || requests < given->requests_max)) {
        enum trace_result result = wf_trace_line(&reader);
        failed = result == TRACE_FAILED;
        if (result == TRACE_END || failed)
            break;
        if (wf_trace_parse(&reader, &request) != TRACE_OK)
            continue;
        requests++;
        hinted = request.hint != TRACE_HINT_NONE;
    }
    int code = failed    ? wf_cli_fail(cli, CLI_SYSTEM, "%s", reader.error)
               : !hinted ? wf_cli_fail(cli, CLI_USAGE,
                                       "--hints trace: no line of %s has a hint; leave it out",
                                       given->trace)
                         : CLI_OK;
    wf_trace_close(&reader);
    return code;
}

static int run(struct cli *cli)
{
    errno = 0;
    int code = options_check(cli);
    if (code == CLI_OK)
        code = format_settle(cli, &wf_replay_options);
    if (code == CLI_OK && wf_replay_options.hinted)
        code = hints_check(cli, &wf_replay_options);
    if (code != CLI_OK)
        return code;
    struct cli_node node;
    const struct replay_options *given = &wf_replay_options;
    const char *settings[3];
    char policy[32], least[64];
    int count = 0;
    struct cli_node_plan plan = {
        .pool_bytes = given->pool_bytes ? given->pool_bytes : (uint64_t)1 << 30,
        .settings = settings,
        .tier_dir = given->tier_bytes ? given->dir : NULL,
        .tier_bytes = given->tier_bytes,
    };
    snprintf(policy, sizeof policy, "pool.policy=%s", policy_of(given));
    settings[count++] = policy;
    if (given->capacity_blocks) {
        capacity_settings(given, &plan, least, sizeof least);
        settings[count++] = least;
    }
    settings[count] = NULL;
    bool own = given->pool_bytes || given->tier_bytes || given->capacity_blocks || given->policy;
    code = wf_cli_node_reach(cli, own, &plan, &node);
    if (code != CLI_OK)
        return code;
    weft_close(cli->weft); /* it was the proof that a node answers; the clients make their own */
    cli->weft = NULL;
    struct replay_shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        code = wf_cli_fail(cli, CLI_SYSTEM, "no shared memory for the counters: %s",
                           strerror(errno));
    else
        code = clients_run(cli, shared);
    wf_cli_node_stop(&node);
    return code;
}

const struct cli_command wf_cmd_replay = {
    .name = "replay",
    .summary = "drive a node with a request trace and check every byte",
    .synopsis = "--trace FILE",
    .about =
        "Plays the requests of a trace against a node: of each prompt, what is there is "
        "pinned and every byte of it checked, the rest is reserved, filled and committed.  A "
        "payload is made from its key and its place in the chain, so a block that is torn, "
        "stale or another's is found out.  Clients are processes; they take requests in the "
        "trace's order.\n\n"
        "It starts a weftd of its own and stops it at the end, unless --socket names one that "
        "runs; $WEFT_SOCKET does not, and no other WEFT_ variable counts for a node of its own: "
        "its options say what that is, and the rest has its defaults.  A full pool is no mistake: "
        "what finds no room is counted "
        "and the request goes on.  When the node goes away, requests begin again once it is back, "
        "up to --patience.\n\n"
        "At the end of each request the node is told how many tokens it made, and with --hints "
        "trace what its line says of the session: wanted, it waits and will be back; done, it will "
        "not.  With one client, --capacity-blocks and the same --speed, weft sim has the same hit "
        "rate (its policy weft, or lru_leaf for --policy lru).  With --speed max, which is for "
        "speed, the policy weft sees an hour of ages in seconds, and its hit rate is not that of "
        "the trace: compare it at --speed 60x or the like, as far as the machine keeps up "
        "(late_us_max, among the --details).\n\n"
        "hit_rate is blocks_hit / blocks_requested; gets and puts are blocks; policy is that of "
        "a node that it started.  Exits with 5 "
        "when wrong bytes were found.",
    .options = options,
    .examples = examples,
    .run = run,
};
