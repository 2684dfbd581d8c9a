/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm overlap: the time to the first token of prompts whose KV lies in DRAM, on a tier below
 * it, or nowhere.
 *
 * A prompt fills most of the model's context.  A first chat leaves its KV in Weft; then another
 * asks a question behind it, which is shorter than a block, so that nothing new is stored and the
 * same turn can be taken again and again:
 *
 *   cold        without Weft: all of it is computed
 *   nvme        the chain is below; all of it is waited for, then the question is computed
 *   overlap     the chain is below; layer i is computed while layer i + 1 arrives
 *   prefetched  the chain is below; the session says when it comes back, and comes back then
 *   dram        the chain is in DRAM
 *
 * Each is preceded by the same pause, for which the session that waits is away, so that what is
 * measured starts from like caches.  All logits are compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command.h"
#include "llama/say.h"

#define PAUSE_MS 300
#define PATIENCE_MS 10000

enum way { COLD, NVME, OVERLAP, PREFETCHED, DRAM, WAYS };

struct bench {
    struct server cold, warm;
    struct chat owner; /* whose chain the prompt is */
    uint32_t *tokens;  /* of the prompt and, behind it, the question */
    uint32_t prompt_count, question_count;
    float *logits; /* of the first way, for the others to be compared with */
    double *ms[WAYS];
    uint32_t runs, in_time;
    uint64_t differing, misses;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Weft said no, where the measurement needs a yes. */
static bool refused(const char *what, enum weft_status status)
{
    return wf_say_failed("%s: %s", what, status < 0 ? weft_last_error() : weft_status_name(status));
}

/* Blocks of the prompt that are there, and whether all of them are in DRAM. */
static bool look(struct bench *bench, uint32_t *out_blocks, bool *out_near)
{
    struct weft_match match;
    enum weft_status status = weft_match(bench->owner.session, bench->tokens,
                                         bench->prompt_count + 1, &match);
    if (status != WEFT_OK && status != WEFT_MISS)
        return refused("match", status);
    *out_blocks = match.blocks;
    *out_near = true;
    for (uint32_t i = 0; i < match.blocks; i++)
        *out_near = *out_near && match.tier[i] == WEFT_TIER_DRAM;
    return true;
}

static bool bring_down(struct bench *bench)
{
    enum weft_status status = WEFT_PENDING;
    for (int waited = 0; status == WEFT_PENDING && waited < PATIENCE_MS; waited++) {
        status = weft_demote(bench->owner.session);
        if (status == WEFT_PENDING)
            sleep_ms(1);
    }
    return status == WEFT_OK || refused("demote", status);
}

static bool bring_up(struct bench *bench)
{
    uint32_t blocks;
    bool near = false;
    enum weft_status status = weft_prefetch(bench->owner.session, bench->tokens,
                                            bench->prompt_count, 0, NULL);
    if (status != WEFT_OK)
        return refused("prefetch", status);
    for (int waited = 0; !near && waited < PATIENCE_MS; waited++) {
        if (!look(bench, &blocks, &near))
            return false;
        if (!near)
            sleep_ms(1);
    }
    return near || wf_say_failed("the prompt does not come to DRAM within ten seconds");
}

/* What the first token was chosen from. */
struct heard {
    const struct bench *bench;
    float *keep;
    bool differs;
};

static bool listen(void *context, uint32_t token, const float *logits)
{
    struct heard *heard = context;
    size_t bytes = heard->bench->cold.model->shape.vocab * sizeof(float);
    (void)token;
    if (heard->keep)
        memcpy(heard->keep, logits, bytes);
    else
        heard->differs = memcmp(heard->bench->logits, logits, bytes) != 0;
    return false;
}

static bool ask(struct bench *bench, enum way way, double *out_ms)
{
    struct heard heard = {.bench = bench, .keep = way == COLD ? bench->logits : NULL};
    struct server *server = way == COLD ? &bench->cold : &bench->warm;
    struct turn_request request = {.prompt = bench->tokens,
                                   .prompt_count = bench->prompt_count + bench->question_count,
                                   .answer_max = 1,
                                   .choose = choose_greedy,
                                   .listen = listen,
                                   .context = &heard};
    struct turn_result result;
    struct chat chat;
    if (!chat_open(server, "asks", &chat))
        return false;
    server->waits_whole = way == NVME;
    bool ok = chat_turn(&chat, &request, &result);
    server->waits_whole = false;
    chat_close(&chat);
    if (!ok)
        return false;
    *out_ms = (double)result.ttft_us / 1e3;
    bench->differing += heard.differs;
    bench->misses += way != COLD && result.hit != bench->prompt_count;
    return true;
}

static bool measure(struct bench *bench, enum way way, double *out_ms)
{
    struct weft_hint hint = {.returns_in_ms = PAUSE_MS};
    uint32_t blocks;
    bool near = false;
    if (way == NVME || way == OVERLAP || way == PREFETCHED ? !bring_down(bench) : !bring_up(bench))
        return false;
    enum weft_status status = way == PREFETCHED
                                  ? weft_session_hint(bench->owner.session, WEFT_WAITING, &hint)
                                  : WEFT_OK;
    if (status != WEFT_OK)
        return refused("hint", status);
    sleep_ms(PAUSE_MS);
    if (command_interrupted)
        return wf_say_failed("interrupted");
    if (way == PREFETCHED) {
        if (!look(bench, &blocks, &near))
            return false;
        bench->in_time += near;
    }
    if (!ask(bench, way, out_ms))
        return false;
    status = weft_session_hint(bench->owner.session, WEFT_IDLE, NULL);
    return status == WEFT_OK || refused("hint", status);
}

/* A chat that says the prompt and nothing else, so that Weft has it. */
static bool leave(struct bench *bench, uint32_t run)
{
    struct turn_request request = {.prompt = bench->tokens,
                                   .prompt_count = bench->prompt_count,
                                   .answer_max = 1,
                                   .choose = choose_greedy};
    struct turn_result result;
    uint32_t vocab = bench->cold.model->shape.vocab;
    uint64_t state = run + 1;
    for (uint32_t i = 0; i < bench->prompt_count + bench->question_count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        bench->tokens[i] = (uint32_t)((state >> 33) % vocab);
    }
    return chat_open(&bench->warm, "prompt", &bench->owner) &&
           chat_turn(&bench->owner, &request, &result);
}

static bool run_all(struct bench *bench)
{
    for (uint32_t run = 0; run < bench->runs; run++) {
        bool ok = leave(bench, run);
        for (enum way way = COLD; ok && way < WAYS; way++)
            ok = measure(bench, way, &bench->ms[way][run]);
        chat_close(&bench->owner);
        if (!ok)
            return false;
    }
    return true;
}

/* --------------------------------------------------------------------------------------- report */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, by_size);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static enum exit_code report(const struct options *options, struct bench *bench)
{
    double ms[WAYS];
    const struct wf_model *m = bench->cold.model;
    uint64_t kv_bytes = 2ull * m->shape.layers * m->kv_dim * sizeof(float) * bench->prompt_count;
    for (enum way way = COLD; way < WAYS; way++)
        ms[way] = median(bench->ms[way], bench->runs);
    if (options->json) {
        printf("{\"ttft_cold_ms\": %.3f, \"ttft_nvme_ms\": %.3f, \"ttft_nvme_overlap_ms\": %.3f, "
               "\"ttft_prefetched_ms\": %.3f, \"ttft_dram_ms\": %.3f, ",
               ms[COLD], ms[NVME], ms[OVERLAP], ms[PREFETCHED], ms[DRAM]);
        printf("\"prefetched_of_dram\": %.4f, \"prefetched_in_time\": %u, \"runs\": %u, "
               "\"prompt_tokens\": %u, \"question_tokens\": %u, \"kv_bytes\": %llu, "
               "\"logits_identical\": %s, \"misses\": %llu}\n",
               ms[PREFETCHED] / ms[DRAM], bench->in_time, bench->runs, bench->prompt_count,
               bench->question_count, (unsigned long long)kv_bytes,
               bench->differing ? "false" : "true", (unsigned long long)bench->misses);
    } else {
        static const char *const names[] = {"cold", "from below, whole", "from below, by layer",
                                            "prefetched on hint", "in DRAM"};
        for (enum way way = COLD; way < WAYS; way++)
            printf("time to first token, %-20s %10.3f ms\n", names[way], ms[way]);
        printf("%u tokens of prompt with %.1f MB of KV, %u of question; %u runs; %u prefetched in "
               "time; logits identical: %s\n",
               bench->prompt_count, (double)kv_bytes / 1e6, bench->question_count, bench->runs,
               bench->in_time, bench->differing ? "NO" : "yes");
    }
    return bench->differing ? EXIT_DIFFERS : EXIT_DONE;
}

/* As much of the context as is whole blocks, with a question that fills no block behind it. */
static bool size(const struct options *options, const struct wf_model_shape *shape,
                 struct bench *bench)
{
    uint32_t block = options->block_tokens;
    bench->question_count = block > 1 ? block - 1 : 1;
    if (block < 2 || shape->context < 2 * block + 1)
        return wf_say_failed("blocks of %u tokens leave no room for a prompt and a question in a "
                             "context of %u; give other --block-tokens",
                             block, shape->context);
    bench->prompt_count = (shape->context - bench->question_count - 1) / block * block;
    bench->tokens = calloc(shape->context, sizeof *bench->tokens);
    bench->logits = calloc(shape->vocab, sizeof *bench->logits);
    bool ok = bench->tokens && bench->logits;
    for (enum way way = COLD; way < WAYS; way++) {
        bench->ms[way] = calloc(bench->runs, sizeof(double));
        ok = ok && bench->ms[way];
    }
    return ok || wf_say_failed("no memory for %u runs", bench->runs);
}

enum exit_code command_overlap(const struct options *options)
{
    struct setting setting;
    struct bench bench = {.runs = options->runs};
    if (!setting_open(options, options->start_node, &setting))
        return command_failed(EXIT_FAILED);
    enum exit_code code = EXIT_FAILED;
    const struct wf_model *model = &setting.model;
    if (size(options, &model->shape, &bench) &&
        server_open(model, options->block_tokens, options->threads, &bench.cold) &&
        server_open(model, options->block_tokens, options->threads, &bench.warm)) {
        if (!server_attach(&bench.warm, &setting.connect))
            code = EXIT_NO_NODE;
        else if (run_all(&bench))
            code = report(options, &bench);
    }
    if (code == EXIT_FAILED || code == EXIT_NO_NODE)
        code = command_failed(code);
    command_report_trouble(&bench.warm);
    server_close(&bench.warm);
    server_close(&bench.cold);
    for (enum way way = COLD; way < WAYS; way++)
        free(bench.ms[way]);
    free(bench.tokens);
    free(bench.logits);
    setting_close(&setting);
    return code;
}
