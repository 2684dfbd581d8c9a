/* SPDX-License-Identifier: Apache-2.0
 *
 * A client of one node of a cluster, for chaos.py: puts chains, reads chains that any node may have
 * put, archives some, and checks every byte, which follows from the block's key.
 *
 *     client --socket PATH --name NAME --seed N [--chains N] [--timeout MS] [--bound MS]
 *            [--pause US] [--archives] [--lie] [--others NAME,NAME…]
 *     client --socket PATH --name NAME --check        lines "ARCHIVE CHAIN BLOCKS" on stdin
 *
 * Keys follow from a chain's number, so all clients of nodes whose domains have one secret speak of
 * the same blocks.  A node may be dead, stopped or cut off at any time: every status that says so
 * is counted and nothing more; but every call has to return within `bound`, which is longer than
 * `timeout`, the node's time to answer, as a call may have to ask more than once.  One that does
 * not is a hang, said when it is seen; after thrice the bound the process ends with status 3.
 *
 * With --others some of what it puts is pushed to one of these nodes, layer by layer, or handed
 * over to it when it is there.
 *
 * With --lie the last bytes of what it puts are not what they should be: others have to notice.
 *
 * It says what happens in lines of JSON: {"archived": …} when an archive was said to be durable,
 * {"wrong": …}, {"hang": …}, {"error": …}, {"tick": counts} each second and {"end": counts} when
 * its input ends.  With --check it says {"archive": …, "state": "right"|"lost"|"wrong"} of each
 * line.
 *
 * Threads: WORKERS, each with a connection of its own, and the main one, which looks after them.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../support/payload.h"
#include "weft/weft.h"

#define WORKERS 2
#define DEPTH 6
#define LAYERS 8
#define BLOCK_BYTES 65536u
#define CHECK_TRIES 50
#define OTHERS_MAX 16u

enum count {
    PUTS,
    EXISTING,
    FULL,
    GETS,
    MISSES,
    BLOCKS,
    MATCHES,
    ARCHIVES,
    REFUSED,
    PUSHES,
    NODE_LOST,
    TIMEOUTS,
    LOST_ON_THE_WAY,
    ERRORS,
    WRONG,
    HANGS,
    COUNTS
};
static const char *const count_names[COUNTS] = {
    "puts",     "existing", "full",   "gets",      "misses",   "blocks",          "matches",
    "archives", "refused",  "pushes", "node_lost", "timeouts", "lost_on_the_way", "errors",
    "wrong",    "hangs"};

static struct {
    const char *socket, *name;
    char others[OTHERS_MAX][64];
    uint32_t other_count;
    uint64_t seed;
    uint32_t chains, timeout_ms, bound_ms, pause_us;
    bool archives, check, lie;
} options = {.name = "client",
             .seed = 1,
             .chains = 200,
             .timeout_ms = 2000,
             .bound_ms = 10000,
             .pause_us = 2000};

static _Atomic uint64_t counts[COUNTS];
static _Atomic uint64_t slowest_ms;
static _Atomic bool ending;

struct worker {
    pthread_t thread;
    struct random_source r;
    struct weft *w;
    struct weft_format *f;
    uint32_t chain;
    struct weft_key keys[DEPTH];
    /* What it is in now, for the thread that looks after it. */
    const char *_Atomic call; /* NULL: nothing */
    _Atomic uint64_t began_ms;
    uint64_t told_ms; /* began_ms of the hang that was told */
};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void add(enum count which, uint64_t n)
{
    atomic_fetch_add_explicit(&counts[which], n, memory_order_relaxed);
}

static void rest_us(uint32_t us)
{
    nanosleep(&(struct timespec){.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L}, NULL);
}

/* ------------------------------------------------------------------------------- bounded calls */

static void begin(struct worker *k, const char *call)
{
    atomic_store(&k->began_ms, now_ms());
    atomic_store(&k->call, call);
}

static void say_hang(const char *call, uint64_t ms, const char *how)
{
    add(HANGS, 1);
    printf("{\"hang\":\"%s\",\"ms\":%llu,\"how\":\"%s\"}\n", call, (unsigned long long)ms, how);
    fflush(stdout);
}

/* The call has returned; true when its answer is one. */
static bool end(struct worker *k, enum weft_status status)
{
    const char *call = atomic_exchange(&k->call, NULL);
    const uint64_t ms = now_ms() - atomic_load(&k->began_ms);
    if (ms > options.bound_ms && k->told_ms != atomic_load(&k->began_ms))
        say_hang(call, ms, "it returned late");
    if (ms > atomic_load(&slowest_ms))
        atomic_store(&slowest_ms, ms);
    if (status == WEFT_E_NODE)
        add(NODE_LOST, 1);
    else if (status == WEFT_E_TIMEOUT)
        add(TIMEOUTS, 1);
    else if (status < 0 && status != WEFT_E_PARENT && status != WEFT_E_BUSY) {
        add(ERRORS, 1);
        printf("{\"error\":\"%s\",\"status\":\"%s\"}\n", call, weft_status_name(status));
        fprintf(stderr, "%s: %s: %s\n", call, weft_status_name(status), weft_last_error());
        fflush(stdout);
    }
    if (status < 0)
        rest_us(20000);
    return status >= 0;
}

static void look_after(struct worker *k)
{
    const char *call = atomic_load(&k->call);
    const uint64_t began_ms = atomic_load(&k->began_ms), now = now_ms();
    if (!call || now < began_ms + options.bound_ms)
        return;
    if (k->told_ms != began_ms)
        say_hang(call, now - began_ms, "it has not returned yet");
    k->told_ms = began_ms;
    if (now > began_ms + 3 * (uint64_t)options.bound_ms)
        _exit(3);
}

/* --------------------------------------------------------------------------------- connections */

static bool open_node(struct worker *k)
{
    const struct weft_connect_options how = {.socket = options.socket,
                                             .timeout_ms = options.timeout_ms};
    const struct weft_format_spec spec = {.model = "chaos",
                                          .layers = LAYERS,
                                          .kv_heads = 2,
                                          .head_dim = 64,
                                          .dtype = WEFT_F16,
                                          .block_tokens = 16};
    if (!k->w) {
        begin(k, "connect");
        if (!end(k, weft_connect(&how, &k->w))) {
            k->w = NULL;
            return false;
        }
    }
    if (!k->f) {
        begin(k, "format_open");
        if (!end(k, weft_format_open(k->w, &spec, &k->f))) {
            k->f = NULL;
            return false;
        }
    }
    return true;
}

static bool take_chain(struct worker *k, uint32_t chain)
{
    k->chain = chain;
    for (uint64_t i = 0; i < DEPTH; i++) {
        const uint64_t name[2] = {chain, i};
        if (weft_key_from_bytes(k->f, name, sizeof name, &k->keys[i]) != WEFT_OK)
            return false;
    }
    return true;
}

static void verify(const struct worker *k, const uint8_t *data, uint32_t block, const char *where)
{
    add(BLOCKS, 1);
    if (payload_right(data, BLOCK_BYTES, k->keys[block].bytes))
        return;
    add(WRONG, 1);
    printf("{\"wrong\":\"%s\",\"chain\":%u,\"block\":%u}\n", where, k->chain, block);
    fflush(stdout);
}

/* ------------------------------------------------------------------------------- what they do */

static void archive(struct worker *k, uint32_t blocks)
{
    char name[65];
    struct weft_archived out;
    snprintf(name, sizeof name, "%s-%u-%u", options.name, k->chain, blocks);
    begin(k, "archive");
    const enum weft_status status = weft_archive_keys(k->f, name, &k->keys[blocks - 1],
                                                      options.timeout_ms, &out);
    if (status == WEFT_E_NOT_FOUND || status == WEFT_E_LIMIT || status == WEFT_E_SYSTEM ||
        status == WEFT_E_QUOTA) {
        (void)end(k, WEFT_E_BUSY); /* it went meanwhile; the disk is full or broken */
        add(REFUSED, 1);
        return;
    }
    if (!end(k, status) || status != WEFT_OK) {
        add(REFUSED, 1);
        return;
    }
    add(ARCHIVES, 1);
    printf("{\"archived\":\"%s\",\"chain\":%u,\"blocks\":%u}\n", name, k->chain, blocks);
    fflush(stdout);
}

/* A status that says what the other node, or the number of pushes, is like now. */
static enum weft_status of_another(enum weft_status status)
{
    return status == WEFT_E_NOT_FOUND || status == WEFT_E_INVALID ? WEFT_E_BUSY : status;
}

static const char *another(struct worker *k)
{
    return options.others[random_below(&k->r, options.other_count)];
}

/* A layer of all blocks after the other, told of each, with a rest in which somebody may die.  The
 * blocks are committed whatever becomes of it. */
static void fill_pushed(struct worker *k, const struct weft_slot *slots, uint32_t blocks)
{
    static _Thread_local uint8_t plain[BLOCK_BYTES];
    const size_t layer = BLOCK_BYTES / LAYERS;
    struct weft_push push;
    begin(k, "push_begin");
    const enum weft_status begun = weft_push_begin(k->f, slots, blocks, another(k), &push);
    bool goes = end(k, of_another(begun)) && begun == WEFT_OK;
    add(PUSHES, goes);
    for (uint32_t n = 0; n < LAYERS; n++) {
        for (uint32_t i = 0; i < blocks; i++) {
            if (slots[i].status != WEFT_OK)
                continue;
            payload_fill(plain, BLOCK_BYTES - 8 * options.lie, k->keys[i].bytes);
            memcpy((uint8_t *)slots[i].data + n * layer, plain + n * layer, layer);
        }
        if (!goes)
            continue;
        begin(k, "push_layers");
        const enum weft_status status = weft_push_layers(&push, n + 1);
        goes = end(k, of_another(status)) && status == WEFT_OK;
        rest_us(random_below(&k->r, 20000));
    }
}

static void put(struct worker *k)
{
    struct weft_slot slots[DEPTH];
    const uint32_t blocks = 1 + random_below(&k->r, DEPTH);
    const bool pushed = options.other_count && random_below(&k->r, 3) == 0;
    uint32_t there = 0;
    begin(k, "reserve");
    if (!end(k, weft_reserve_keys(k->f, NULL, k->keys, blocks, WEFT_CHAINED, slots)))
        return;
    if (pushed)
        fill_pushed(k, slots, blocks);
    for (uint32_t i = 0; i < blocks; i++) {
        if (slots[i].status == WEFT_OK && !pushed)
            payload_fill(slots[i].data, BLOCK_BYTES - 8 * options.lie, k->keys[i].bytes);
        add(slots[i].status == WEFT_OK       ? PUTS
            : slots[i].status == WEFT_EXISTS ? EXISTING
                                             : FULL,
            1);
    }
    if (random_below(&k->r, 20) == 0) {
        begin(k, "abort");
        weft_abort_slots(k->f, slots, blocks);
        (void)end(k, WEFT_OK);
        return;
    }
    begin(k, "commit");
    if (!end(k, weft_commit_slots(k->f, slots, blocks)))
        return;
    while (there < blocks && (slots[there].status == WEFT_OK || slots[there].status == WEFT_EXISTS))
        there++;
    if (options.other_count && there && random_below(&k->r, 6) == 0) {
        begin(k, "hand_over");
        (void)end(k, of_another(weft_hand_over(k->w, &k->keys[there - 1], another(k))));
    }
    if (options.archives && there && random_below(&k->r, 12) == 0)
        archive(k, there);
}

/* Hold what is there of the chain, and look at it now, and sometimes again later, when its node may
 * have died: what is held keeps its bytes. */
static void get(struct worker *k)
{
    struct weft_pins pins;
    const enum weft_order order = random_below(&k->r, 2) ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER;
    uint32_t right = 0;
    begin(k, "get");
    if (!end(k, weft_get_keys(k->f, k->keys, DEPTH, order, &pins)))
        return;
    add(pins.blocks ? GETS : MISSES, 1);
    enum weft_status status = WEFT_OK;
    while (right < pins.blocks && status == WEFT_OK) {
        begin(k, "wait");
        status = weft_wait_block(&pins, right);
        if (!end(k, status) || status != WEFT_OK) {
            add(LOST_ON_THE_WAY, 1);
            break;
        }
        verify(k, pins.data[right], right, "read");
        right++;
    }
    if (random_below(&k->r, 8) == 0) {
        rest_us(random_below(&k->r, 200000));
        for (uint32_t i = 0; i < right; i++)
            verify(k, pins.data[i], i, "held");
    }
    begin(k, "release");
    weft_pins_release(&pins);
    (void)end(k, WEFT_OK);
}

static void match(struct worker *k)
{
    size_t present;
    begin(k, "match");
    if (end(k, weft_match_keys(k->f, k->keys, DEPTH, &present)))
        add(MATCHES, 1);
    if (random_below(&k->r, 4) == 0) {
        uint32_t blocks;
        begin(k, "prefetch");
        (void)end(k, weft_prefetch_keys(k->f, k->keys, DEPTH, 0, &blocks));
    }
}

static void *work(void *user)
{
    struct worker *k = user;
    while (!atomic_load(&ending)) {
        if (!open_node(k))
            continue;
        /* The smaller of two: some chains are asked for more than others. */
        const uint32_t one = random_below(&k->r, options.chains);
        const uint32_t other = random_below(&k->r, options.chains);
        if (!take_chain(k, one < other ? one : other))
            continue;
        const uint32_t what = random_below(&k->r, 100);
        if (what < 30)
            put(k);
        else if (what < 90)
            get(k);
        else
            match(k);
        rest_us(random_below(&k->r, 2 * options.pause_us + 1));
    }
    weft_format_close(k->f);
    weft_close(k->w);
    return NULL;
}

/* ------------------------------------------------------------------------------------- archives */

/* "right", "lost" or "wrong"; asked until it is there, as a tier may be being opened: `tries` is
 * how often that is believed of all archives together. */
static const char *state_of(struct worker *k, uint32_t blocks, int *tries)
{
    do {
        struct weft_pins pins;
        uint32_t right = 0;
        begin(k, "get");
        if (!end(k, weft_get_keys(k->f, k->keys, blocks, WEFT_BLOCK_ORDER, &pins)))
            continue; /* end() has waited */
        for (; right < pins.blocks; right++) {
            begin(k, "wait");
            const enum weft_status status = weft_wait_block(&pins, right);
            if (!end(k, status) || status != WEFT_OK)
                break;
            if (!payload_right(pins.data[right], BLOCK_BYTES, k->keys[right].bytes)) {
                weft_pins_release(&pins);
                return "wrong";
            }
        }
        weft_pins_release(&pins);
        if (right == blocks)
            return "right";
        rest_us(100000);
    } while (--*tries > 0);
    return "lost";
}

static int check_archives(void)
{
    struct worker k = {.r = {options.seed}};
    char line[160], name[65];
    uint32_t chain, blocks;
    int tries = CHECK_TRIES;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%64s %u %u", name, &chain, &blocks) != 3 || blocks == 0 || blocks > DEPTH)
            return 2;
        const char *state = "lost";
        for (int i = 0; i < CHECK_TRIES && !(open_node(&k) && take_chain(&k, chain)); i++)
            rest_us(100000);
        if (k.f)
            state = state_of(&k, blocks, &tries);
        printf("{\"archive\":\"%s\",\"state\":\"%s\"}\n", name, state);
        fflush(stdout);
    }
    weft_format_close(k.f);
    weft_close(k.w);
    return 0;
}

/* ----------------------------------------------------------------------------------------- main */

static void say_counts(const char *what)
{
    printf("{\"%s\":{", what);
    for (int i = 0; i < COUNTS; i++)
        printf("\"%s\":%llu,", count_names[i], (unsigned long long)atomic_load(&counts[i]));
    printf("\"slowest_ms\":%llu}}\n", (unsigned long long)atomic_load(&slowest_ms));
    fflush(stdout);
}

static int run(void)
{
    static struct worker workers[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++) {
        workers[i].r.state = options.seed * 1000003 + i;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            return 1;
    }
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    uint64_t tick_ms = now_ms();
    for (char byte; poll(&input, 1, 100) == 0 || read(STDIN_FILENO, &byte, 1) > 0;) {
        for (int i = 0; i < WORKERS; i++)
            look_after(&workers[i]);
        if (now_ms() >= tick_ms + 1000) {
            tick_ms = now_ms();
            say_counts("tick");
        }
    }
    atomic_store(&ending, true);
    for (int i = 0; i < WORKERS; i++)
        while (pthread_tryjoin_np(workers[i].thread, NULL) != 0) {
            look_after(&workers[i]);
            rest_us(10000);
        }
    say_counts("end");
    return 0;
}

static bool read_others(const char *list)
{
    while (*list && options.other_count < OTHERS_MAX) {
        const size_t length = strcspn(list, ",");
        if (length == 0 || length >= sizeof options.others[0])
            return false;
        memcpy(options.others[options.other_count++], list, length);
        list += length + (list[length] == ',');
    }
    return *list == '\0';
}

static bool read_options(int count, char *words[])
{
    for (int i = 1; i < count; i++) {
        const char *word = words[i];
        if (strcmp(word, "--archives") == 0)
            options.archives = true;
        else if (strcmp(word, "--check") == 0)
            options.check = true;
        else if (strcmp(word, "--lie") == 0)
            options.lie = true;
        else if (++i == count)
            return false;
        else if (strcmp(word, "--socket") == 0)
            options.socket = words[i];
        else if (strcmp(word, "--name") == 0)
            options.name = words[i];
        else if (strcmp(word, "--others") == 0) {
            if (!read_others(words[i]))
                return false;
        } else if (strcmp(word, "--seed") == 0)
            options.seed = strtoull(words[i], NULL, 0);
        else if (strcmp(word, "--chains") == 0)
            options.chains = (uint32_t)strtoul(words[i], NULL, 0);
        else if (strcmp(word, "--timeout") == 0)
            options.timeout_ms = (uint32_t)strtoul(words[i], NULL, 0);
        else if (strcmp(word, "--bound") == 0)
            options.bound_ms = (uint32_t)strtoul(words[i], NULL, 0);
        else if (strcmp(word, "--pause") == 0)
            options.pause_us = (uint32_t)strtoul(words[i], NULL, 0);
        else
            return false;
    }
    return options.socket && options.chains;
}

int main(int count, char *words[])
{
    if (!read_options(count, words)) {
        fprintf(stderr, "client --socket PATH --name NAME [--seed N] [--chains N] [--timeout MS] "
                        "[--bound MS] [--pause US] [--archives] [--lie] [--others NAME,NAME] "
                        "[--check]\n");
        return 2;
    }
    return options.check ? check_archives() : run();
}
