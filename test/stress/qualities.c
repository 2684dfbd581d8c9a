/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients of two domains storm a node that is started again and again, each time with other
 * qualities, tiers and codecs, while the files of two profiles of their model come, go, and are
 * damaged; half of the time it is killed.
 *
 * Both domains use the same tokens and write bytes of their own under them.  A block is checked
 * plane by plane: each is what was put, or what coding it by one of the profiles makes of that,
 * computed here.  No other byte comes, ever; no plane is less exact than its block is said to be;
 * and no block is said to be less exact than its format asks.
 *
 * A block is longer than a part of a tier, so that one get reads it in pieces, from several tiers
 * when one of them loses it.
 *
 *   QUALITIES_SECONDS=20
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PROFILE_LAYERS 5u
#include "../support/profile.h"
#include "../support/random.h"
#include "../support/weftd.h"
#include "base/sum.h"

#define MODEL "small@1"
#define DOMAINS 2u
#define CHAINS 24u
#define LINKS 5u
#define CLIENTS 4u
#define ASKED 3u /* formats of a client */
#define ARCHIVES 5u
#define PLANES (2u * PROFILE_LAYERS)
#define PLANE_BYTES (PROFILE_BLOCK_BYTES / PLANES)
#define PROFILES 2u
#define TIMES 12u /* at most that a block is coded before it stays the same */
#define VERSIONS (1 + PROFILES * 2 * TIMES)
#define SETTINGS 40u

static const char *const names[DOMAINS] = {"default", "guest"};
static const enum weft_quality asked[ASKED] = {WEFT_QUALITY_DEFAULT, WEFT_LOSSLESS,
                                               WEFT_TRANSPARENT};

/* What a block may come back as, and how exact that is; the first is what was put. */
struct truth {
    bool coded;                                            /* what is lossy of it is known */
    _Alignas(uint16_t) uint8_t block[PROFILE_BLOCK_BYTES]; /* halves are written there */
    uint32_t versions;
    enum weft_quality quality[VERSIONS];
    uint64_t sums[VERSIONS][PLANES];
};

/* Of the test and its clients, which are processes. */
struct storm {
    char folder[96], file[PROFILES][96]; /* where the node looks, and what is copied to there */
    struct wf_profile *profile[PROFILES];
    char round[256]; /* its settings, for who reads of a failure */
    char room[SETTINGS][192];
    const char *settings[SETTINGS + 1];
    uint32_t count;
    pthread_mutex_t lock; /* guards truths, and the error */
    struct truth truths[DOMAINS * CHAINS * LINKS];
    char error[512]; /* of the first */
    _Atomic bool stop, ending;
    _Atomic uint64_t errors, gets, blocks, lossy, archived;
};
static struct storm *all;
static struct weftd node;

struct client {
    struct random_source r;
    uint32_t domain;
    struct weft *w;
    struct weft_format *f[ASKED];
};

static void __attribute__((format(printf, 1, 2))) failed(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&all->lock);
    if (atomic_fetch_add(&all->errors, 1) == 0)
        vsnprintf(all->error, sizeof all->error, format, args);
    pthread_mutex_unlock(&all->lock);
    va_end(args);
    atomic_store(&all->stop, true);
}

/* What a node under storm may say; everything else is an error. */
static bool good(const char *call, enum weft_status status)
{
    if (status < 0 && status != WEFT_E_BUSY && status != WEFT_E_PARENT &&
        status != WEFT_E_NOT_FOUND && status != WEFT_E_NODE)
        failed("%s: %s: %s", call, weft_status_name(status), weft_last_error());
    return status == WEFT_OK;
}

/* --------------------------------------------------------------------------------------- bytes */

static struct truth *truth_of(uint32_t domain, uint32_t chain, uint32_t link)
{
    return &all->truths[(domain * CHAINS + chain) * LINKS + link];
}

static void sum_planes(const uint8_t *block, uint64_t sums[PLANES])
{
    for (uint32_t i = 0; i < PLANES; i++)
        sums[i] = wf_sum64(block + (size_t)i * PLANE_BYTES, PLANE_BYTES);
}

static void make_truths(void)
{
    for (uint32_t i = 0; i < DOMAINS * CHAINS * LINKS; i++) {
        struct truth *truth = &all->truths[i];
        profile_block(i, truth->block);
        sum_planes(truth->block, truth->sums[0]);
        truth->quality[0] = WEFT_LOSSLESS;
        truth->versions = 1;
    }
}

static void code(struct truth *truth, uint32_t link)
{
    static uint8_t block[PROFILE_BLOCK_BYTES], back[PROFILE_BLOCK_BYTES];
    pthread_mutex_lock(&all->lock);
    for (uint32_t way = 0; way < 2 * PROFILES && !truth->coded; way++) {
        enum weft_quality quality = way < PROFILES ? WEFT_TRANSPARENT : WEFT_ECONOMY;
        memcpy(block, truth->block, sizeof block);
        for (uint32_t time = 0; time < TIMES; time++) {
            profile_back(all->profile[way % PROFILES], quality, link, block, back);
            if (memcmp(block, back, sizeof block) == 0)
                break;
            memcpy(block, back, sizeof block);
            sum_planes(block, truth->sums[truth->versions]);
            truth->quality[truth->versions++] = quality;
        }
    }
    truth->coded = true;
    pthread_mutex_unlock(&all->lock);
}

/* How exact it is: WEFT_QUALITY_DEFAULT when some of it is no byte of that block. */
static enum weft_quality quality_of(struct truth *truth, uint32_t link, const uint8_t *block)
{
    uint64_t sums[PLANES];
    enum weft_quality worst = WEFT_LOSSLESS;
    sum_planes(block, sums);
    if (memcmp(sums, truth->sums[0], sizeof sums) == 0)
        return WEFT_LOSSLESS;
    code(truth, link);
    for (uint32_t i = 0; i < PLANES; i++) {
        uint32_t version = 0;
        while (version < truth->versions && truth->sums[version][i] != sums[i])
            version++;
        if (version == truth->versions)
            return WEFT_QUALITY_DEFAULT;
        if (truth->quality[version] > worst)
            worst = truth->quality[version];
    }
    return worst;
}

/* ------------------------------------------------------------------------------------- clients */

static bool keys_of(struct weft_format *f, uint64_t chain, struct weft_key keys[LINKS])
{
    enum weft_status status = WEFT_OK;
    for (uint64_t i = 0; i < LINKS && status == WEFT_OK; i++) {
        uint64_t name[2] = {chain, i};
        status = weft_key_from_bytes(f, name, sizeof name, &keys[i]);
    }
    return good("keys", status);
}

static void put(struct client *c, struct weft_format *f, uint32_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_slot slots[LINKS];
    uint32_t flags = WEFT_CHAINED | (random_below(&c->r, 2) ? WEFT_INSIST : 0);
    if (!keys_of(f, chain, keys) ||
        !good("reserve", weft_reserve_keys(f, NULL, keys, LINKS, flags, slots)))
        return;
    for (uint32_t i = 0; i < LINKS; i++)
        if (slots[i].status == WEFT_OK)
            memcpy(slots[i].data, truth_of(c->domain, chain, i)->block, PROFILE_BLOCK_BYTES);
    (void)good("commit", weft_commit_slots(f, slots, LINKS));
}

static void check(const struct client *c, const struct weft_format *f, uint32_t chain,
                  uint32_t link, const struct weft_pins *pins)
{
    enum weft_quality told = weft_pin_quality(&pins->pins[link]), most = weft_format_quality(f);
    enum weft_quality is = quality_of(truth_of(c->domain, chain, link), link, pins->data[link]);
    all->blocks++;
    all->lossy += is > WEFT_LOSSLESS;
    if (is == WEFT_QUALITY_DEFAULT)
        failed("%s: wrong bytes in block %u of chain %u, which is told to be %s", names[c->domain],
               link, chain, weft_quality_name(told));
    else if (is > told || told > most)
        failed("%s: block %u of chain %u is %s, is told to be %s, and is to be %s",
               names[c->domain], link, chain, weft_quality_name(is), weft_quality_name(told),
               weft_quality_name(most));
}

static void get(struct client *c, struct weft_format *f, uint32_t chain)
{
    struct weft_key keys[LINKS];
    struct weft_pins pins;
    enum weft_quality worst;
    enum weft_order order = random_below(&c->r, 2) ? WEFT_LAYER_ORDER : WEFT_BLOCK_ORDER;
    if (!keys_of(f, chain, keys))
        return;
    if (good("quality", weft_quality_keys(f, keys, LINKS, &worst)) &&
        worst > weft_format_quality(f))
        failed("%s: chain %u is matched as %s and is to be %s", names[c->domain], chain,
               weft_quality_name(worst), weft_quality_name(weft_format_quality(f)));
    if (!good("get", weft_get_keys(f, keys, LINKS, order, &pins)))
        return;
    all->gets++;
    for (uint32_t i = 0; i < pins.blocks && good("wait", weft_wait_block(&pins, i)); i++)
        check(c, f, chain, i, &pins);
    weft_pins_release(&pins);
}

static void archive(struct client *c, struct weft_format *f, uint32_t chain)
{
    char name[16];
    struct weft_key keys[LINKS];
    struct weft_archived archived;
    snprintf(name, sizeof name, "archive %u", random_below(&c->r, ARCHIVES));
    if (random_below(&c->r, 2))
        (void)good("archive remove", weft_archive_remove(c->w, name));
    else if (keys_of(f, chain, keys) &&
             good("archive", weft_archive_keys(f, name, &keys[LINKS - 1], 500, &archived)))
        all->archived++;
}

static void step(struct client *c)
{
    struct weft_format *f = c->f[random_below(&c->r, ASKED)];
    uint32_t chain = random_below(&c->r, CHAINS), dice = random_below(&c->r, 100), begun;
    struct weft_key keys[LINKS];
    size_t removed;
    if (dice < 40)
        put(c, f, chain);
    else if (dice < 88)
        get(c, f, chain);
    else if (dice < 92 && keys_of(f, chain, keys))
        (void)good("prefetch", weft_prefetch_keys(f, keys, LINKS, 0, &begun));
    else if (dice < 95 && keys_of(f, chain, keys))
        (void)good("remove", weft_remove(f, &keys[random_below(&c->r, LINKS)], &removed));
    else
        archive(c, f, chain);
}

static void work(struct client *c)
{
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = PROFILE_LAYERS,
                                    .kv_heads = PROFILE_HEADS,
                                    .head_dim = PROFILE_DIM,
                                    .dtype = WEFT_BF16,
                                    .block_tokens = PROFILE_TOKENS};
    c->w = weftd_connect(&node, names[c->domain]);
    bool open = c->w != NULL;
    for (uint32_t i = 0; i < ASKED; i++) {
        c->f[i] = NULL;
        spec.quality = asked[i];
        open = open && good("format", weft_format_open(c->w, &spec, &c->f[i]));
    }
    if (!open && !all->ending)
        failed("a client cannot begin: %s", weft_last_error());
    while (open && !all->stop)
        step(c);
    for (uint32_t i = 0; i < ASKED; i++)
        weft_format_close(c->f[i]);
    weft_close(c->w);
}

static pid_t spawn(uint32_t domain, uint64_t seed)
{
    struct client c = {.r = {seed}, .domain = domain};
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(&c);
        _exit(0);
    }
    assert_true(pid > 0);
    return pid;
}

/* ------------------------------------------------------------------------------------ profiles */

/* `bytes_most` of it, and one bit of it turned, at `turned`; -1: none. */
static void copy(const char *from, const char *to, size_t bytes_most, long turned)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(from, "rbe");
    assert_non_null(file);
    size_t count = fread(bytes, 1, bytes_most < sizeof bytes ? bytes_most : sizeof bytes, file);
    assert_int_equal(fclose(file), 0);
    if (turned >= 0)
        bytes[(size_t)turned % count] ^= 4;
    (void)unlink(to);
    file = fopen(to, "wbe"); /* in place, so that the node may see half of it */
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* How the files of profiles lie there: some ways are more frequent. */
enum { NONE, SHORT, DAMAGED, BOTH, ONE, WAYS = ONE + 4 };

static void shuffle_profiles(struct random_source *r, uint32_t way)
{
    char at[PROFILES][128];
    uint32_t first = random_below(r, PROFILES);
    snprintf(at[0], sizeof at[0], "%s/a.wfprofile", all->folder);
    snprintf(at[1], sizeof at[1], "%s/b.wfprofile", all->folder);
    for (uint32_t i = 0; i < PROFILES; i++)
        (void)unlink(at[i]);
    if (way == NONE)
        return;
    copy(all->file[first], at[0], way == SHORT ? 1 + random_below(r, 5000) : SIZE_MAX,
         way == DAMAGED ? (long)random_below(r, 60000) : -1);
    if (way < ONE)
        copy(all->file[!first], at[1], SIZE_MAX, -1);
}

static void make_profiles(void)
{
    snprintf(all->folder, sizeof all->folder, "%s/profiles", node.directory);
    assert_int_equal(mkdir(all->folder, 0700), 0);
    for (uint32_t i = 0; i < PROFILES; i++) {
        snprintf(all->file[i], sizeof all->file[i], "%s/profile%u", node.directory, i);
        profile_make(MODEL, (uint16_t)(i * 9), all->file[i]);
        all->profile[i] = profile_read(all->file[i]);
    }
}

/* ---------------------------------------------------------------------------------------- node */

static void __attribute__((format(printf, 1, 2))) set(const char *format, ...)
{
    va_list args;
    assert_true(all->count < SETTINGS);
    va_start(args, format);
    vsnprintf(all->room[all->count], sizeof all->room[0], format, args);
    va_end(args);
    all->settings[all->count] = all->room[all->count];
    all->settings[++all->count] = NULL;
}

static void set_tier(const char *name, const char *codec)
{
    if (strcmp(name, "mem0") == 0)
        set("tier.mem0.kind=dram");
    else
        set("tier.%s.path=%s/%s", name, node.directory, name);
    set("tier.%s.size=%s", name, strcmp(name, "nvme1") == 0 ? "24MB" : "16MB");
    set("tier.%s.admit=always", name);
    set("tier.%s.codec=%s", name, codec);
    if (strcmp(name, "nvme0") == 0)
        set("tier.nvme0.archive=true");
}

/* The first round has what there is to be seen in all-> */
static void choose_settings(struct random_source *r, bool first)
{
    static const char *const qualities[] = {"economy", "transparent", "lossless", "economy"};
    static const char *const codecs[] = {"auto", "none", "lossless"};
    static const char *const tiers[][2] = {{"nvme0", NULL},
                                           {"nvme0", "nvme1"},
                                           {"mem0", "nvme0"},
                                           {"cxl0", "nvme0"},
                                           {"nvme0", "mem0"}};
    const char *const *tier = tiers[first ? 0 : random_below(r, 5)];
    size_t said = 0;
    all->count = 0;
    set("pool.size=8MB");
    set("pool.size_max=8MB");
    set("drain=10s");
    set("workers=2");
    set("pool.policy=%s", random_below(r, 2) ? "lru" : "weft");
    set("profiles=%s", all->folder);
    set("domains=default,guest");
    set("domain.guest.secret_file=%s/guest", node.directory);
    for (uint32_t i = 0; i < DOMAINS; i++)
        set("domain.%s.quality=%s", names[i], qualities[first ? i : random_below(r, 4)]);
    set("tiers=%s%s%s", tier[0], tier[1] ? "," : "", tier[1] ? tier[1] : "");
    for (uint32_t i = 0; i < 2 && tier[i]; i++)
        set_tier(tier[i], codecs[first ? 0 : random_below(r, 3)]);
    all->round[0] = 0;
    for (uint32_t i = 0; i < all->count; i++)
        if (strstr(all->room[i], "quality") || strstr(all->room[i], "codec"))
            said += (size_t)snprintf(all->round + said, sizeof all->round - said, " %s",
                                     all->room[i]);
}

static void weather(struct random_source *r, uint32_t ms)
{
    for (uint32_t past = 0; past < ms && !all->stop; past += 100) {
        weftd_sleep_ms(100);
        if (random_below(r, 6) == 0)
            shuffle_profiles(r, random_below(r, WAYS));
        if (weftd_wait(&node, 0) != -1)
            failed("the node ended");
    }
}

static void one_round(struct random_source *r, bool first)
{
    pid_t clients[CLIENTS];
    choose_settings(r, first);
    shuffle_profiles(r, first ? BOTH : random_below(r, WAYS));
    if (!weftd_start(&node, all->settings, NULL)) {
        weftd_show_log(&node);
        fail_msg("the node did not start:%s", all->round);
    }
    all->stop = all->ending = false;
    for (uint32_t i = 0; i < CLIENTS; i++)
        clients[i] = spawn(i % DOMAINS, random_next(r));
    weather(r, first ? 2000 : 300 + random_below(r, 1200));
    bool kill_it = random_below(r, 2);
    all->ending = true;
    if (kill_it)
        weftd_kill(&node);
    all->stop = true;
    for (uint32_t i = 0; i < CLIENTS; i++) {
        int status = -1;
        assert_int_equal(waitpid(clients[i], &status, 0), clients[i]);
        if (status != 0)
            failed("a client ended with status %d", status);
    }
    if (all->errors || (!kill_it && !weftd_stop(&node)))
        weftd_show_log(&node);
    else
        return;
    fail_msg("%llu errors in a round of%s, the first: %s", (unsigned long long)all->errors,
             all->round, all->errors ? all->error : "the node did not end well");
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void share_lock(void)
{
    pthread_mutexattr_t shared;
    assert_int_equal(pthread_mutexattr_init(&shared), 0);
    assert_int_equal(pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED), 0);
    assert_int_equal(pthread_mutex_init(&all->lock, &shared), 0);
    pthread_mutexattr_destroy(&shared);
}

static void test_qualities(void **state)
{
    (void)state;
    const char *given = getenv("QUALITIES_SECONDS");
    double end = now_s() + (given ? strtod(given, NULL) : 20);
    struct random_source r = random_seeded("qualities");
    char secret[96];
    uint32_t rounds = 0;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(all, MAP_FAILED);
    share_lock();
    weftd_prepare(&node);
    snprintf(secret, sizeof secret, "%s/guest", node.directory);
    FILE *file = fopen(secret, "wxe");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    fputs("another secret of more than thirty-two bytes, for tests alone", file);
    assert_int_equal(fclose(file), 0);
    make_profiles();
    make_truths();
    do
        one_round(&r, rounds++ == 0);
    while (now_s() < end);
    print_message("# %u rounds: %llu gets, %llu blocks, %llu of them lossy, %llu archives\n",
                  rounds, (unsigned long long)all->gets, (unsigned long long)all->blocks,
                  (unsigned long long)all->lossy, (unsigned long long)all->archived);
    assert_true(all->lossy > 0 && all->lossy < all->blocks);
    for (uint32_t i = 0; i < PROFILES; i++)
        wf_profile_destroy(all->profile[i]);
    weftd_clean(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_qualities)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
