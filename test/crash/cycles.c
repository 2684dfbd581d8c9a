/* SPDX-License-Identifier: Apache-2.0
 *
 * `make crash N=200`: a node with a small pool and a tier below it is killed again and again.
 *
 * A cycle: the node starts, every block that can be matched is read and compared byte by byte, the
 * clients put, get, demote and prefetch, and after a random while the node gets SIGKILL; some of
 * them while they open their tier, and some clients with them.  Clients live on and use the next
 * node with the handles that they have.  Between kill and start the tier's file may be damaged
 * (cycles_damage.c).
 *
 *   cycles [N [none|both|only]]     how many cycles; with damage in none, two thirds or all of them
 *   WEFT_TEST_SEED                  the same choices again; which instruction a kill meets is
 * chance
 *
 * The last line on standard output is JSON.  The exit status is not 0 when a block was wrong, an
 * archive lost, or something else than what crashes explain happened.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cycles.h"
#include "cycles_damage.h"

#define CYCLE_S_MAX 120
#define REST_MS_MAX 30000
#define WORK_MS_MEAN 250.0
#define WORK_MS_MAX 1500.0
#define OPENING_MS_MEAN 15.0

enum damage { INTACT, TORN, FLIPPED };

struct run {
    struct weftd node;
    struct random_source r;
    struct client c;
    pid_t workers[PROCESSES];
    char settings[2][160], journal[160];
    bool none, only; /* of the cycles have damage */
    enum damage damage;
    struct archive_sum archives;
    uint64_t torn_cycles, torn_pieces, flipped_cycles, flipped_bits, missed_damaged;
    uint64_t kills_during[ACTIVITIES], kills_opening, client_deaths;
    uint64_t found, missed;
    double started_s;
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Exponential: short ones are the most likely, and none is impossible. */
static void sleep_random(struct random_source *r, double mean_ms, double max_ms)
{
    double u = ((double)random_below(r, 1u << 30) + 1) / (1u << 30), ms = -log(u) * mean_ms;
    double s = (ms < max_ms ? ms : max_ms) / 1e3;
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - floor(s)) * 1e9)},
              NULL);
}

static void give_up(struct run *run, const char *what)
{
    fprintf(stderr, "# cycles: %s\n", what);
    weftd_show_log(&run->node);
    for (int i = 0; i < PROCESSES; i++)
        if (run->workers[i] > 0)
            kill(run->workers[i], SIGKILL);
    weftd_clean(&run->node);
    exit(1);
}

static void too_long(int signal)
{
    static const char words[] = "# cycles: a cycle took more than two minutes: something hangs\n";
    ssize_t rc = write(2, words, sizeof words - 1);
    (void)rc, (void)signal;
    _exit(3);
}

/* ------------------------------------------------------------------------------------- the node */

static void begin_node(struct run *run)
{
    const char *const settings[] = {
        "pool.size=8MB",           "pool.size_max=8MB", "staging=1MB",    "drain=2s", "tiers=nvme0",
        "tier.nvme0.size=264MB", /* 64 segments */
        "tier.nvme0.admit=always", run->settings[0],    run->settings[1], NULL};
    const char *const variables[] = {run->journal, NULL};
    weftd_spawn(&run->node, settings, run->none ? NULL : variables);
}

static void start_node(struct run *run)
{
    begin_node(run);
    if (random_below(&run->r, 8) == 0) {
        sleep_random(&run->r, OPENING_MS_MEAN, 200);
        weftd_kill(&run->node);
        run->kills_opening++;
        if (!run->none)
            damage_node_died();
        begin_node(run);
    }
    if (!weftd_answers(&run->node))
        give_up(run, "a node does not start");
}

/* ---------------------------------------------------------------------------------- the clients */

static void begin_worker(struct run *run, uint32_t process)
{
    uint64_t seed = random_next(&run->r);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(work(&run->node, process, seed));
    if (pid < 0)
        give_up(run, "fork failed");
    run->workers[process] = pid;
}

static void one_client_dies(struct run *run)
{
    uint32_t victim = random_below(&run->r, PROCESSES);
    kill(run->workers[victim], SIGKILL);
    waitpid(run->workers[victim], NULL, 0);
    run->client_deaths++;
    archives_abandon(victim);
    begin_worker(run, victim);
}

/* Until every thread has ended what it was doing. */
static void clients_rest(struct run *run)
{
    uint32_t number = atomic_fetch_add(&tally->rest_number, 1) + 1;
    atomic_store(&tally->phase, REST);
    for (int waited = 0;; waited++) {
        uint32_t rested = 0;
        for (int i = 0; i < WORKERS; i++)
            rested += atomic_load(&tally->worker[i].rested) == number;
        if (rested == WORKERS)
            return;
        if (waited > REST_MS_MAX)
            give_up(run, "a client hangs since the node died");
        weftd_sleep_ms(1);
    }
}

/* ------------------------------------------------------------------------------------ all of it */

/* Read what is there of a chain, in as many gets as that takes. */
static void verify_chain(struct run *run, enum size size, uint32_t chain)
{
    struct weft_key keys[DEPTH_MAX];
    struct weft_pins pins;
    size_t present = 0;
    uint32_t done = 0;
    if (!chain_keys(&run->c, size, chain, keys))
        give_up(run, weft_last_error());
    enum weft_status status = weft_match_keys(run->c.f[size], keys, shapes[size].depth, &present);
    if (status == WEFT_OK)
        status = weft_get_keys(run->c.f[size], keys, present, WEFT_BLOCK_ORDER, &pins);
    if (status != WEFT_OK)
        give_up(run, weft_last_error());
    run->found += present;
    for (; done < pins.blocks && status == WEFT_OK; done++) {
        status = weft_wait_block(&pins, done);
        if (status != WEFT_OK)
            break;
        add(&tally->blocks_verified, 1);
        add(&tally->bytes_verified, shapes[size].block_bytes);
        if (!payload_right(pins.data[done], shapes[size].block_bytes, keys[done].bytes))
            wrong_block("found after a restart", size, chain, done);
    }
    if (status < 0)
        give_up(run, weft_last_error());
    bool intact = run->damage == INTACT && run->flipped_cycles == 0;
    *(intact ? &run->missed : &run->missed_damaged) += present - done;
    weft_pins_release(&pins);
}

/* The handles are those of the node that died. */
static void verify_all(struct run *run)
{
    struct weft_key key;
    size_t present;
    enum weft_status status = WEFT_E_NODE;
    memset(&key, 0, sizeof key);
    for (int waited = 0; status == WEFT_E_NODE && waited < 10000; waited += 5) {
        status = weft_match_keys(run->c.f[SMALL], &key, 1, &present);
        if (status == WEFT_E_NODE)
            weftd_sleep_ms(5);
    }
    if (status != WEFT_OK)
        give_up(run, weft_last_error());
    /* Until the tier is open nothing is found. */
    for (int waited = 0; waited < 10000; waited += 5) {
        char *text;
        status = weft_query(run->c.w, "events", 0, &text);
        bool open = status == WEFT_OK && strstr(text, "tier_open");
        if (status == WEFT_OK)
            weft_text_free(text);
        if (open)
            break;
        weftd_sleep_ms(5);
    }
    archives_verify(&run->c, &run->archives); /* first, so that they come from below */
    for (int size = 0; size < SIZES; size++)
        for (uint32_t chain = 0; chain < shapes[size].chains; chain++)
            verify_chain(run, (enum size)size, chain);
}

static void kill_node(struct run *run)
{
    bool during[ACTIVITIES] = {false};
    if (weftd_wait(&run->node, 0) != -1)
        give_up(run, "the node died of itself");
    for (int i = 0; i < WORKERS; i++)
        during[atomic_load_explicit(&tally->worker[i].activity, memory_order_relaxed)] = true;
    weftd_kill(&run->node);
    for (int i = 0; i < ACTIVITIES; i++)
        run->kills_during[i] += during[i];
}

/* What the device does to the tier before the next node sees it. */
static void damage(struct run *run)
{
    run->damage = INTACT;
    if (run->none)
        return;
    damage_node_died();
    uint32_t what = random_below(&run->r, run->only ? 2 : 3);
    if (what == 0) {
        run->damage = TORN;
        run->torn_pieces += damage_tear(&run->r);
        run->torn_cycles++;
    } else if (what == 1) {
        run->damage = FLIPPED;
        run->flipped_bits += damage_flip(&run->r);
        run->flipped_cycles++;
    }
}

static void cycle(struct run *run)
{
    start_node(run);
    verify_all(run);
    if (run->archives.lost)
        return;
    atomic_store(&tally->phase, WORK);
    if (random_below(&run->r, 4) == 0) {
        sleep_random(&run->r, WORK_MS_MEAN / 2, WORK_MS_MAX);
        one_client_dies(run);
    }
    sleep_random(&run->r, WORK_MS_MEAN, WORK_MS_MAX);
    kill_node(run);
    weftd_sleep_ms(5); /* in which everybody meets the end of the node */
    clients_rest(run);
    damage(run);
}

static const char *damage_name(enum damage damage)
{
    static const char *const names[] = {"none", "lost writes", "flipped bits"};
    return names[damage];
}

#define N(counter) (unsigned long long)(counter)

static bool say(const struct run *run, uint32_t cycles, uint64_t seed)
{
    bool bad = tally->wrong_blocks || tally->errors || run->archives.lost;
    if (tally->errors)
        fprintf(stderr, "# %llu calls failed as no crash explains, the first: %s\n",
                (unsigned long long)tally->errors, tally->error);
    if (run->archives.lost)
        fprintf(stderr, "# archives were lost after damage of this kind: %s\n",
                damage_name(run->damage));
    if (run->missed) {
        fprintf(stderr, "# %llu blocks were matched on an undamaged tier and not to be had\n",
                (unsigned long long)run->missed);
        bad = true;
    }
    if (!tally->loads || !tally->blocks_verified || !tally->node_losses || !run->found ||
        !run->archives.verified) {
        fprintf(stderr, "# nothing was put to the test\n");
        bad = true;
    }
    printf("{\"cycles\": %u, \"wrong_blocks\": %llu, \"lost_archives\": %llu, "
           "\"errors\": %llu, ",
           cycles, N(tally->wrong_blocks), N(run->archives.lost), N(tally->errors));
    printf("\"blocks_verified\": %llu, \"layers_verified\": %llu, \"bytes_verified\": %llu, "
           "\"blocks_found_after_restart\": %llu, \"missed_after_match\": %llu, "
           "\"missed_when_damaged\": %llu, ",
           N(tally->blocks_verified), N(tally->layers_verified), N(tally->bytes_verified),
           N(run->found), N(run->missed), N(run->missed_damaged));
    printf("\"archives_made\": %llu, \"archives_removed\": %llu, \"archives_verified\": %llu, "
           "\"archives_rotten\": %llu, ",
           N(tally->archived), N(tally->archives_removed), N(run->archives.verified),
           N(run->archives.rotten));
    printf("\"puts\": %llu, \"gets\": %llu, \"loads\": %llu, \"lost_on_the_way\": %llu, "
           "\"demotes\": %llu, \"node_losses_seen\": %llu, \"client_deaths\": %llu, ",
           N(tally->puts), N(tally->gets), N(tally->loads), N(tally->lost_on_the_way),
           N(tally->demotes), N(tally->node_losses), N(run->client_deaths));
    printf("\"kills_during\": {\"put\": %llu, \"load\": %llu, \"demote\": %llu, "
           "\"archive\": %llu, \"opening\": %llu}, ",
           N(run->kills_during[PUTTING]), N(run->kills_during[LOADING]),
           N(run->kills_during[DEMOTING]), N(run->kills_during[ARCHIVING]), N(run->kills_opening));
    printf("\"torn\": {\"cycles\": %llu, \"pieces\": %llu}, \"flipped\": {\"cycles\": %llu, "
           "\"bits\": %llu}, \"elapsed_s\": %.1f, \"seed\": \"0x%llx\"}\n",
           N(run->torn_cycles), N(run->torn_pieces), N(run->flipped_cycles), N(run->flipped_bits),
           now_s() - run->started_s, N(seed));
    return !bad;
}

int main(int argc, char **argv)
{
    static struct run run;
    uint32_t cycles = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 8;
    const char *faults = argc > 2 ? argv[2] : "both";
    run.none = strcmp(faults, "none") == 0 || strcmp(faults, "0") == 0;
    run.only = strcmp(faults, "only") == 0 || strcmp(faults, "1") == 0;
    run.r = random_seeded("cycles");
    uint64_t seed = run.r.state;
    run.started_s = now_s();
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED)
        return 1;
    signal(SIGALRM, too_long);
    weftd_prepare(&run.node);
    snprintf(run.settings[0], sizeof run.settings[0], "tier.nvme0.path=%s/tier",
             run.node.directory);
    snprintf(run.settings[1], sizeof run.settings[1], "state_dir=%s/state", run.node.directory);
    char tier[128], journal[128];
    snprintf(tier, sizeof tier, "%s/tier", run.node.directory);
    snprintf(journal, sizeof journal, "%s/journal", run.node.directory);
    snprintf(run.journal, sizeof run.journal, "WEFT_NVME_JOURNAL=%s", journal);
    damage_begin(tier, journal);
    atomic_store(&tally->phase, REST);
    for (uint32_t i = 0; i < PROCESSES; i++)
        begin_worker(&run, i);
    start_node(&run);
    if (!client_open(&run.c, &run.node))
        give_up(&run, weft_last_error());
    weftd_kill(&run.node);
    for (uint32_t i = 0; i < cycles && !tally->wrong_blocks && !run.archives.lost; i++) {
        alarm(CYCLE_S_MAX);
        cycle(&run);
        if (cycles <= 10 || i % 10 == 9)
            fprintf(stderr, "# cycle %u of %u: %llu blocks verified, %llu wrong, %.0f s\n", i + 1,
                    cycles, (unsigned long long)tally->blocks_verified,
                    (unsigned long long)tally->wrong_blocks, now_s() - run.started_s);
    }
    if (tally->wrong_blocks || run.archives.lost) { /* now, with the log of what came before */
        (void)say(&run, cycles, seed);
        give_up(&run, "a block was wrong, or an archive lost");
    }
    /* What was left behind is whole, and a node that ends well keeps it. */
    alarm(CYCLE_S_MAX);
    start_node(&run);
    verify_all(&run);
    if (!weftd_stop(&run.node))
        give_up(&run, "the last node did not end well");
    start_node(&run);
    verify_all(&run);
    atomic_store(&tally->phase, END);
    for (int i = 0; i < PROCESSES; i++) {
        int status = -1;
        waitpid(run.workers[i], &status, 0);
        if (status != 0)
            note_error("a client", WEFT_E_NODE);
    }
    client_close(&run.c);
    bool good = say(&run, cycles, seed);
    if (!good)
        weftd_show_log(&run.node);
    if (!weftd_stop(&run.node))
        good = false;
    weftd_clean(&run.node);
    return good ? 0 : 1;
}
