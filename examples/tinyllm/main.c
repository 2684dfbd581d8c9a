/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm: a small Llama whose prefill comes from Weft when somebody has computed it before.
 */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "script.h"

static const char help[] =
    "tinyllm - a small Llama that keeps its KV cache in Weft\n"
    "\n"
    "usage: tinyllm run   [--prompt TEXT] [--tokens N] [--temperature X]\n"
    "       tinyllm demo  [--users N] [--turns N] [--forks N]\n"
    "       tinyllm bench [--users N] [--turns N] [--json]\n"
    "       tinyllm overlap [--runs N] [--json]\n"
    "\n"
    "  run     continue a prompt\n"
    "  demo    hold the same conversations without Weft and with it; report the difference\n"
    "  bench   measure the time to the first token, cold and warm, on a private node unless\n"
    "          --socket is given; needs two turns or more\n"
    "  overlap measure the time to the first token with the prompt's KV in DRAM, and below it;\n"
    "          the node needs a tier, as the one has that weft bench overlap starts\n"
    "\n"
    "  --model FILE        a llama2.c checkpoint; without one, a random model\n"
    "  --shape LIST        the random model's dim, hidden dim, layers, heads, KV heads,\n"
    "                      vocabulary and context (512,1024,6,8,4,2048,2048)\n"
    "  --tokenizer FILE    its tokenizer; without one, a token is a byte\n"
    "  --socket PATH       the node to use; else $WEFT_SOCKET, else this machine's\n"
    "  --start-node        use a private weftd, found beside this program, stopped at the end\n"
    "  --no-weft           compute everything (run only)\n"
    "  --block-tokens N    tokens in a block (16)\n"
    "  --threads N         threads to compute with (the processors there are, up to 4)\n"
    "  --seed N            of the random model, and of what --temperature draws (1)\n"
    "  --prompt TEXT       run: what to continue (nothing)\n"
    "  --tokens N          run: how many tokens to add (200)\n"
    "  --temperature X     run: 0 takes the most likely token, 1 draws as the model says (0)\n"
    "  --users N           demo, bench: conversations (8)\n"
    "  --turns N           demo, bench: questions in each (3)\n"
    "  --forks N           demo: conversations that go two ways at the last question (4)\n"
    "  --runs N            overlap: prompts, each taken in every way (5)\n"
    "  --json              bench, overlap: one JSON object on stdout\n"
    "  --help, --version\n"
    "\n"
    "exit status: 0 done; 1 failed; 2 wrong usage; 3 logits with Weft differ from those without;\n"
    "             4 no node answers; 130 interrupted\n";

enum option_number {
    OPTION_MODEL = 256,
    OPTION_SHAPE,
    OPTION_TOKENIZER,
    OPTION_SOCKET,
    OPTION_START_NODE,
    OPTION_NO_WEFT,
    OPTION_BLOCK_TOKENS,
    OPTION_THREADS,
    OPTION_SEED,
    OPTION_PROMPT,
    OPTION_TOKENS,
    OPTION_TEMPERATURE,
    OPTION_USERS,
    OPTION_TURNS,
    OPTION_FORKS,
    OPTION_RUNS,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, OPTION_MODEL},
    {"shape", required_argument, NULL, OPTION_SHAPE},
    {"tokenizer", required_argument, NULL, OPTION_TOKENIZER},
    {"socket", required_argument, NULL, OPTION_SOCKET},
    {"start-node", no_argument, NULL, OPTION_START_NODE},
    {"no-weft", no_argument, NULL, OPTION_NO_WEFT},
    {"block-tokens", required_argument, NULL, OPTION_BLOCK_TOKENS},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"prompt", required_argument, NULL, OPTION_PROMPT},
    {"tokens", required_argument, NULL, OPTION_TOKENS},
    {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
    {"users", required_argument, NULL, OPTION_USERS},
    {"turns", required_argument, NULL, OPTION_TURNS},
    {"forks", required_argument, NULL, OPTION_FORKS},
    {"runs", required_argument, NULL, OPTION_RUNS},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

static void interrupt(int signal)
{
    (void)signal;
    command_interrupted = 1;
}

/* No SA_RESTART: who waits is to notice. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static bool refuse(const char *name, const char *text, const char *mend)
{
    fprintf(stderr, "tinyllm: --%s%s%s: %s\n", name, *text ? " " : "", text, mend);
    return false;
}

/* `text` as a number from `low` to `high`. */
static bool number(const char *name, const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
    char mend[96], *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-' || value < low || value > high) {
        snprintf(mend, sizeof(mend), "give a whole number from %llu to %llu",
                 (unsigned long long)low, (unsigned long long)high);
        return refuse(name, text, mend);
    }
    *out = value;
    return true;
}

static bool count(const char *name, const char *text, uint32_t low, uint32_t high, uint32_t *out)
{
    uint64_t value;
    if (!number(name, text, low, high, &value))
        return false;
    *out = (uint32_t)value;
    return true;
}

static bool temperature(const char *name, const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || value < 0 || value > 100)
        return refuse(name, text, "give a number from 0 to 100");
    *out = value;
    return true;
}

/* Seven numbers; whether they make a model is for wf_model_random() to say. */
static bool shape(const char *name, const char *text, struct wf_model_shape *out)
{
    struct wf_model_shape s;
    int end = 0;
    int found = sscanf(text, "%u,%u,%u,%u,%u,%u,%u%n", &s.dim, &s.hidden_dim, &s.layers, &s.heads,
                       &s.kv_heads, &s.vocab, &s.context, &end);
    if (found != 7 || text[end])
        return refuse(name, text, "give seven numbers, as in 512,1024,6,8,4,2048,2048");
    *out = s;
    return true;
}

static bool take_option(enum option_number option, const char *name, struct options *out)
{
    switch (option) {
    case OPTION_MODEL: out->model = optarg; return true;
    case OPTION_SHAPE: return shape(name, optarg, &out->shape);
    case OPTION_TOKENIZER: out->tokenizer = optarg; return true;
    case OPTION_SOCKET: out->socket = optarg; return true;
    case OPTION_START_NODE: out->start_node = true; return true;
    case OPTION_NO_WEFT: out->no_weft = true; return true;
    case OPTION_BLOCK_TOKENS: return count(name, optarg, 1, 4096, &out->block_tokens);
    case OPTION_THREADS: return count(name, optarg, 1, 64, &out->threads);
    case OPTION_SEED: return number(name, optarg, 0, UINT64_MAX, &out->seed);
    case OPTION_PROMPT: out->prompt = optarg; return true;
    case OPTION_TOKENS: return count(name, optarg, 1, 1u << 16, &out->tokens);
    case OPTION_TEMPERATURE: return temperature(name, optarg, &out->temperature);
    case OPTION_USERS: return count(name, optarg, 1, SCRIPT_USERS_MAX, &out->users);
    case OPTION_TURNS: return count(name, optarg, 1, SCRIPT_TURNS_MAX, &out->turns);
    case OPTION_FORKS: return count(name, optarg, 0, SCRIPT_USERS_MAX, &out->forks);
    case OPTION_RUNS: return count(name, optarg, 1, 1000, &out->runs);
    case OPTION_JSON: out->json = true; return true;
    default: return false;
    }
}

/* How many letters at the beginning and the end two words have in common: what a slip of the
 * finger leaves. */
static size_t likeness(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b), start = 0, end = 0;
    while (start < a_length && start < b_length && a[start] == b[start])
        start++;
    while (start + end < a_length && start + end < b_length &&
           a[a_length - 1 - end] == b[b_length - 1 - end])
        end++;
    return start + end;
}

/* What getopt found wrong with `word`; `found` is ':' where a value is missing. */
static void option_refuse(const char *word, int found)
{
    const char *name = word + strspn(word, "-"), *nearest = NULL;
    char typed[64];
    snprintf(typed, sizeof(typed), "%.*s", (int)strcspn(name, "="), name);
    size_t best = strlen(typed) / 2; /* less in common is a guess, not a help */
    for (const struct option *option = long_options; option->name; option++) {
        if (strcmp(option->name, typed) == 0) {
            fprintf(stderr, "tinyllm: --%s %s\n", typed,
                    found == ':' ? "needs a value; tinyllm --help says which" : "takes no value");
            return;
        }
        if (likeness(option->name, typed) > best) {
            best = likeness(option->name, typed);
            nearest = option->name;
        }
    }
    if (nearest)
        fprintf(stderr, "tinyllm: there is no option --%s; did you mean --%s?\n", typed, nearest);
    else
        fprintf(stderr, "tinyllm: there is no option %s; tinyllm --help lists them\n", word);
}

int main(int argc, char **argv)
{
    struct options options = {
        .program = argv[0],
        /* large enough that its prefill is felt, small enough to be made up in a moment */
        .shape = {512, 1024, 6, 8, 4, 2048, 2048},
        .prompt = "",
        .tokens = 200,
        .users = SCRIPT_USERS_MAX,
        .turns = SCRIPT_TURNS_MAX,
        .forks = SCRIPT_USERS_MAX / 2,
        .runs = 5,
        .block_tokens = 16,
        .seed = 1,
    };
    int option, index = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, &index)) != -1) {
        if (option == OPTION_HELP || option == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (option == OPTION_VERSION) {
            printf("tinyllm %d.%d.%d, libweft %s\n", WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR,
                   WEFT_VERSION_PATCH, weft_version());
            return EXIT_DONE;
        }
        if (option == '?' || option == ':') {
            option_refuse(argv[optind - 1], option);
            return EXIT_USAGE;
        }
        if (!take_option((enum option_number)option, long_options[index].name, &options))
            return EXIT_USAGE;
    }
    if (options.forks > options.users)
        options.forks = options.users;

    const char *command = optind < argc ? argv[optind] : "";
    if (options.no_weft && strcmp(command, "run") != 0) {
        refuse("no-weft", "", "only run goes without; the others compare");
        return EXIT_USAGE;
    }
    if (options.turns < 2 && strcmp(command, "bench") == 0) {
        refuse("turns", "1", "bench measures the last turn, so there must be one before it");
        return EXIT_USAGE;
    }
    catch_signals();
    if (optind + 1 == argc && strcmp(command, "run") == 0)
        return (int)command_run(&options);
    if (optind + 1 == argc && strcmp(command, "demo") == 0)
        return (int)command_demo(&options);
    if (optind + 1 == argc && strcmp(command, "bench") == 0)
        return (int)command_bench(&options);
    if (optind + 1 == argc && strcmp(command, "overlap") == 0)
        return (int)command_overlap(&options);
    fprintf(stderr, "tinyllm: say one of run, demo, bench, overlap; tinyllm --help tells more\n");
    return EXIT_USAGE;
}
