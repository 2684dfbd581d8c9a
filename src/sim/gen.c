/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions are made one after the other, each with all of its turns; then all requests are sorted
 * by time and the first of them written.  A block's id is a hash of all that stands before and in
 * it, so that two requests share ids exactly as far as they share tokens.
 */
#include "sim/gen.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

#define PIECES_MAX 512 /* of a session's input; it ends there */
#define TOKENS_MAX 131072
#define GROUP_MAX 5000
#define RETURNS_SIGMA 0.3 /* of the logarithm: how far off a session is about its return */

const struct wf_sim_workload wf_sim_workloads[] = {
    {.name = "chat",
     .sessions_per_s = 1,
     .prompts = 20,
     .prompt_zipf = 1,
     .prompt_tokens = {600, 0.8},
     .first_tokens = {500, 1.5},
     .more_tokens = {120, 1.2},
     .output_tokens = {280, 0.8},
     .goes_on = 0.72,
     .gap_s = {60, 1.2},
     .pauses = 0.05,
     .pause_s = {1800, 1}},
    {.name = "agentic",
     .sessions_per_s = 0.25,
     .prompts = 8,
     .prompt_zipf = 1,
     .prompt_tokens = {8000, 0.5},
     .first_tokens = {800, 1.2},
     .more_tokens = {700, 1.3},
     .output_tokens = {150, 0.9},
     .goes_on = 0.93,
     .gap_s = {5, 1.3},
     .pauses = 0.06,
     .pause_s = {180, 1.2}},
    {.name = "rag",
     .sessions_per_s = 3,
     .prompts = 4,
     .prompt_zipf = 0.8,
     .prompt_tokens = {700, 0.4},
     .documents = 20000,
     .documents_each = 3,
     .document_zipf = 1,
     .document_tokens = {1800, 0.7},
     .first_tokens = {60, 0.7},
     .more_tokens = {60, 0.7},
     .output_tokens = {220, 0.7},
     .goes_on = 0.15,
     .gap_s = {45, 1}},
    {.name = "batch",
     .sessions_per_s = 0.02,
     .prompt_tokens = {2500, 0.7},
     .group = {150, 0.8},
     .group_gap_s = {0.2, 0.5},
     .first_tokens = {1200, 0.9},
     .more_tokens = {100, 0.5},
     .output_tokens = {180, 0.8}},
    {.name = "api",
     .sessions_per_s = 4,
     .swing = 0.7,
     .swing_s = 1200,
     .prompts = 300,
     .prompt_zipf = 1.1,
     .prompt_own = 0.35,
     .drift_s = 300,
     .prompt_tokens = {1200, 0.9},
     .first_tokens = {250, 1.3},
     .more_tokens = {80, 1},
     .output_tokens = {150, 1},
     .goes_on = 0.08,
     .gap_s = {15, 1.2}},
    {NULL},
};

const struct wf_sim_workload *wf_sim_workload_find(const char *name)
{
    for (const struct wf_sim_workload *one = wf_sim_workloads; one->name; one++)
        if (strcmp(one->name, name) == 0)
            return one;
    return NULL;
}

/* A part of the input: so many tokens of a text that has a number. */
struct piece {
    uint64_t text;
    uint32_t tokens;
};

struct request {
    double at_s;
    uint64_t first; /* of its ids */
    uint32_t ids, input, output, tenant;
    double gap_s;
    bool goes_on;
    enum trace_hint hint;
};

struct maker {
    const struct wf_sim_gen *gen;
    uint64_t random, text; /* text: the last number given out */
    double *prompt_sums, *document_sums;
    struct request *requests;
    uint64_t *ids;
    uint64_t count, room, id_count, id_room;
    struct piece pieces[PIECES_MAX];
    uint32_t piece_count, tokens;
    uint64_t tenant_random, return_random; /* their own: who adds them changes nothing else */
    uint32_t tenant;
};

static double normal(uint64_t *random)
{
    double u = 1 - wf_random_part(random), v = wf_random_part(random);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

static double draw(uint64_t *random, struct wf_sim_spread spread)
{
    return spread.median * exp(spread.sigma * normal(random));
}

static uint32_t tokens_of(uint64_t *random, struct wf_sim_spread spread)
{
    double tokens = draw(random, spread);
    return tokens < 1 ? 1 : tokens > TOKENS_MAX ? TOKENS_MAX : (uint32_t)tokens;
}

/* Sums of 1 ÷ rank ^ s. */
static double *zipf_sums(uint32_t count, double s)
{
    double *sums = malloc(((size_t)count + 1) * sizeof *sums), sum = 0;
    for (uint32_t i = 0; sums && i < count; i++)
        sums[i] = sum += pow(i + 1.0, -s);
    return sums;
}

static uint32_t zipf(uint64_t *random, const double *sums, uint32_t count)
{
    double wanted = wf_random_part(random) * sums[count - 1];
    uint32_t low = 0, high = count - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sums[middle] > wanted)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void piece_add(struct maker *maker, uint64_t text, uint32_t tokens)
{
    if (maker->piece_count == PIECES_MAX)
        return;
    maker->pieces[maker->piece_count++] = (struct piece){text, tokens};
    maker->tokens += tokens;
}

/* A text that many share: its length is always the same. */
static void shared_add(struct maker *maker, uint64_t text, struct wf_sim_spread spread)
{
    uint64_t own = text ^ maker->gen->seed << 20;
    piece_add(maker, text, tokens_of(&own, spread));
}

static uint64_t prompt_draw(struct maker *maker, double at_s, uint64_t group_text)
{
    const struct wf_sim_workload *work = maker->gen->workload;
    if (!work->prompts ||
        (work->prompt_own > 0 && wf_random_part(&maker->random) < work->prompt_own))
        return group_text;
    uint64_t rank = zipf(&maker->random, maker->prompt_sums, work->prompts);
    uint64_t drifted = work->drift_s > 0 ? (uint64_t)(at_s / work->drift_s) % work->prompts : 0;
    return ((uint64_t)1 << 40) + (rank + work->prompts - drifted) % work->prompts;
}

static void session_begin(struct maker *maker, double at_s, uint64_t group_text)
{
    const struct wf_sim_workload *work = maker->gen->workload;
    maker->piece_count = 0;
    maker->tokens = 0;
    uint64_t prompt = prompt_draw(maker, at_s, group_text);
    shared_add(maker, prompt, work->prompt_tokens);
    for (uint32_t i = 0; i < work->documents_each; i++)
        shared_add(maker,
                   ((uint64_t)2 << 40) +
                       zipf(&maker->random, maker->document_sums, work->documents),
                   work->document_tokens);
    piece_add(maker, ++maker->text, tokens_of(&maker->random, work->first_tokens));
}

static uint64_t hash(uint64_t before, uint64_t word)
{
    uint64_t state = before ^ (word * 0x9e3779b97f4a7c15u);
    return wf_random(&state);
}

static bool room(struct maker *maker, uint64_t ids)
{
    if (maker->count == maker->room) {
        uint64_t more = maker->room ? 2 * maker->room : 1024;
        struct request *moved = realloc(maker->requests, more * sizeof *moved);
        if (!moved)
            return false;
        maker->requests = moved;
        maker->room = more;
    }
    if (maker->id_count + ids > maker->id_room) {
        uint64_t more = 2 * maker->id_room + ids;
        uint64_t *moved = realloc(maker->ids, more * sizeof *moved);
        if (!moved)
            return false;
        maker->ids = moved;
        maker->id_room = more;
    }
    return true;
}

/* The ids of what the input is now; the last block may not be full. */
static uint32_t ids_add(struct maker *maker)
{
    uint32_t block = wf_trace_block_tokens(maker->gen->format), filled = 0, count = 0;
    uint64_t id = maker->gen->seed;
    for (uint32_t i = 0; i < maker->piece_count; i++) {
        for (uint32_t done = 0; done < maker->pieces[i].tokens;) {
            uint32_t part = maker->pieces[i].tokens - done;
            part = part < block - filled ? part : block - filled;
            id = hash(hash(hash(id, maker->pieces[i].text), done), part);
            done += part;
            filled += part;
            if (filled == block) {
                maker->ids[maker->id_count + count++] = id >> 11;
                filled = 0;
            }
        }
    }
    if (filled)
        maker->ids[maker->id_count + count++] = id >> 11;
    maker->id_count += count;
    return count;
}

/* All turns of a session. */
static bool session_make(struct maker *maker, double at_s, uint64_t group_text)
{
    const struct wf_sim_workload *work = maker->gen->workload;
    uint32_t block = wf_trace_block_tokens(maker->gen->format);
    session_begin(maker, at_s, group_text);
    for (bool goes_on = true; goes_on;) {
        if (!room(maker, maker->tokens / block + 1))
            return false;
        struct request *request = &maker->requests[maker->count++];
        *request = (struct request){.at_s = at_s,
                                    .first = maker->id_count,
                                    .input = maker->tokens,
                                    .tenant = maker->tenant};
        request->ids = ids_add(maker);
        request->output = tokens_of(&maker->random, work->output_tokens);
        uint32_t more = tokens_of(&maker->random, work->more_tokens);
        goes_on = wf_random_part(&maker->random) < work->goes_on &&
                  maker->piece_count + 2 <= PIECES_MAX &&
                  (uint64_t)maker->tokens + request->output + more <= TOKENS_MAX;
        request->goes_on = goes_on;
        bool pause = wf_random_part(&maker->random) < work->pauses;
        request->gap_s = draw(&maker->random, pause ? work->pause_s : work->gap_s);
        at_s += request->gap_s;
        piece_add(maker, ++maker->text, request->output);
        piece_add(maker, ++maker->text, more);
    }
    return true;
}

static int earlier(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->at_s != y->at_s)
        return x->at_s > y->at_s ? 1 : -1;
    return (x->first > y->first) - (x->first < y->first);
}

static uint32_t tenant_draw(struct maker *maker)
{
    double all = 0, sum = 0;
    int count = maker->gen->tenant_count;
    for (int i = 0; i < count; i++)
        all += maker->gen->tenants[i].part;
    double wanted = count ? all * wf_random_part(&maker->tenant_random) : 0;
    for (int i = 0; i < count; i++) {
        sum += maker->gen->tenants[i].part;
        if (wanted < sum)
            return (uint32_t)i;
    }
    return 0;
}

/* Sessions arrive until there are enough requests before the arrival that came last. */
static bool sessions_make(struct maker *maker)
{
    const struct wf_sim_workload *work = maker->gen->workload;
    double at_s = 0;
    uint64_t before = 0, look_at = maker->gen->requests;
    while (before < maker->gen->requests) {
        double rate = work->sessions_per_s;
        if (work->swing > 0)
            rate *= 1 + work->swing * sin(2 * M_PI * at_s / work->swing_s);
        at_s -= log(1 - wf_random_part(&maker->random)) / rate;
        uint64_t group_text = ++maker->text;
        maker->tenant = tenant_draw(maker);
        double sessions = work->group.median > 0 ? ceil(draw(&maker->random, work->group)) : 1;
        double start_s = at_s;
        for (double i = 0; i < sessions && i < GROUP_MAX; i++) {
            if (!session_make(maker, start_s, group_text))
                return false;
            start_s += work->group.median > 0 ? draw(&maker->random, work->group_gap_s) : 0;
        }
        if (maker->count < look_at)
            continue;
        look_at = maker->count + maker->count / 8 + 1;
        before = 0;
        for (uint64_t i = 0; i < maker->count; i++)
            before += maker->requests[i].at_s <= at_s;
    }
    qsort(maker->requests, maker->count, sizeof *maker->requests, earlier);
    return true;
}

/* How likely one of `wrong` is to be taken for one of `right`, when it is not known for what it is:
 * that is all that there is for mistakes. */
static double mistaken_of(const struct wf_sim_hints *hints, double right, double wrong,
                          bool *missed)
{
    double wanted = wf_sim_hints_mistaken(hints, right, wrong), most = 1 - hints->recall;
    *missed = hints->precision < 1 && right > 0 && (wrong <= 0 || wanted > most + 1e-9);
    return wanted < most ? wanted : most;
}

static void said_count(struct wf_sim_gen_said *said, bool right)
{
    said->hints++;
    said->right += right;
}

static void hints_make(struct maker *maker, struct wf_sim_gen_made *made)
{
    const struct wf_sim_hints *hints = &maker->gen->hints;
    double go_on = 0;
    for (uint64_t i = 0; i < maker->gen->requests; i++)
        go_on += maker->requests[i].goes_on;
    double end = (double)maker->gen->requests - go_on;
    double end_wanted = mistaken_of(hints, go_on, end, &made->wanted.precision_missed);
    double go_on_done = mistaken_of(hints, end, go_on, &made->done.precision_missed);
    for (uint64_t i = 0; i < maker->gen->requests; i++) {
        struct request *request = &maker->requests[i];
        double chance = wf_random_part(&maker->random);
        bool right = chance < hints->recall;
        if (!right && chance - hints->recall >= (request->goes_on ? go_on_done : end_wanted))
            continue;
        bool wanted = request->goes_on == right;
        request->hint = wanted ? TRACE_HINT_WANTED : TRACE_HINT_DONE;
        said_count(wanted ? &made->wanted : &made->done, right);
    }
}

static void request_write(struct maker *maker, const struct request *request, FILE *to)
{
    if (maker->gen->format == TRACE_MOONCAKE)
        fprintf(to, "{\"timestamp\": %.0f", 1e3 * request->at_s);
    else
        fprintf(to, "{\"timestamp\": %.3f", request->at_s);
    fprintf(to, ", \"input_length\": %u, \"output_length\": %u, \"hash_ids\": [", request->input,
            request->output);
    for (uint32_t i = 0; i < request->ids; i++)
        fprintf(to, "%s%llu", i ? ", " : "", (unsigned long long)maker->ids[request->first + i]);
    fputs("]", to);
    if (request->hint != TRACE_HINT_NONE)
        fprintf(to, ", \"hint\": \"%s\"", request->hint == TRACE_HINT_WANTED ? "wanted" : "done");
    if (request->hint == TRACE_HINT_WANTED)
        fprintf(to, ", \"returns_in\": %.3f",
                request->gap_s * exp(RETURNS_SIGMA * normal(&maker->return_random)));
    if (maker->gen->tenant_count) {
        const struct wf_sim_tenant *tenant = &maker->gen->tenants[request->tenant];
        fprintf(to, ", \"domain\": \"%s\", \"priority\": %u", tenant->name, tenant->priority);
    }
    fputs("}\n", to);
}

enum weft_status wf_sim_gen_write(const struct wf_sim_gen *gen, FILE *to,
                                  struct wf_sim_gen_made *made)
{
    struct wf_sim_gen_made said = {0};
    const struct wf_sim_workload *work = gen->workload;
    struct maker *maker = calloc(1, sizeof *maker);
    enum weft_status status = WEFT_OK;
    if (maker) {
        maker->gen = gen;
        maker->random = gen->seed;
        maker->tenant_random = gen->seed ^ 0x74656e616e7473u;
        maker->return_random = gen->seed ^ 0x72657475726e73u;
        maker->prompt_sums = zipf_sums(work->prompts, work->prompt_zipf);
        maker->document_sums = zipf_sums(work->documents, work->document_zipf);
    }
    if (maker && maker->prompt_sums && maker->document_sums && sessions_make(maker)) {
        if (gen->hinted)
            hints_make(maker, &said);
        for (uint64_t i = 0; i < gen->requests; i++)
            request_write(maker, &maker->requests[i], to);
    } else {
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory to make %u requests; ask for fewer",
                         gen->requests);
    }
    if (maker) {
        free(maker->prompt_sums);
        free(maker->document_sums);
        free(maker->requests);
        free(maker->ids);
    }
    free(maker);
    if (made)
        *made = said;
    return status;
}
