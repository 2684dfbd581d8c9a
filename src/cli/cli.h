/* SPDX-License-Identifier: Apache-2.0
 *
 * What every command of `weft` shares: the table of commands, the option table that parsing,
 * --help, the manual pages and the shell completion are all made from, output for people and for
 * programs, a node to talk to, and the formats and keys that a command line can name.
 *
 * The program sees libweft as any other user does: include/weft/weft.h and nothing else of the
 * house. Each process runs one command; its options live in static variables of the command's file,
 * which is why an option table holds addresses.
 */
#ifndef WF_CLI_CLI_H
#define WF_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "weft/weft.h"

#define CLI_WORDS_MAX 32 /* words after a command that are not options */

/* What the program exits with; the manual page of every command has this table. */
enum cli_exit {
    CLI_OK = 0,
    CLI_MISS = 1,    /* not there, or only in part */
    CLI_USAGE = 2,   /* the command line is wrong */
    CLI_NODE = 3,    /* no node answers, or it went away */
    CLI_REFUSED = 4, /* the node refused: rights, quota, limits, no room */
    CLI_WRONG = 5,   /* wrong bytes were found */
    CLI_SYSTEM = 6,  /* this machine refused: files, memory, processes */
};

/* ------------------------------------------------------------------------------- command table */

enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_NUMBER, CLI_SIZE, CLI_REAL, CLI_LIST };

/* What an option has that may be given several times, in the order of the command line. */
#define CLI_LIST_MAX 64
struct cli_list {
    const char *items[CLI_LIST_MAX];
    int count;
};

struct cli_option {
    const char *name; /* without the dashes; NULL ends the table */
    enum cli_kind kind;
    const char *value; /* how --help calls the value; "a|b|c" lists all that are allowed */
    void *to;          /* bool, const char *, uint64_t, uint64_t, double, struct cli_list by kind */
    const char *help;
};

/* A first word that chooses between the things one command does: `weft ls blocks`. */
struct cli_word {
    const char *name; /* NULL ends the table */
    const char *help;
};

struct cli {
    const struct cli_command *command;
    const char *words[CLI_WORDS_MAX]; /* the rest of the command line, in order */
    int word_count;
    bool json, help;
    const char *socket, *domain, *token;
    struct weft *weft;                    /* set by wf_cli_connect */
    const struct cli_node_plan *own_node; /* that this command started; NULL: it started none */
};

struct cli_command {
    const char *name;
    const char *summary;  /* one line, no full stop */
    const char *synopsis; /* what follows the name, besides options */
    const char *about;    /* paragraphs, parted by "\n\n" */
    const struct cli_word *words;
    const struct cli_option *options;   /* its own */
    const struct cli_option *groups[3]; /* those that it shares with others; NULL ends */
    const char *const *examples;        /* what it does, the command, …, NULL */
    int (*run)(struct cli *cli);
};

/* Every command, in the order of the map; the entry after the last has no name. */
extern const struct cli_command *const wf_cli_commands[];

/* The options that every command has, with the addresses in `cli`. */
#define CLI_COMMON_COUNT 5
void wf_cli_common_options(struct cli *cli, struct cli_option out[CLI_COMMON_COUNT + 1]);

/* Parse what follows the command's name.  CLI_OK, or CLI_USAGE after a sentence on stderr. */
int wf_cli_parse(struct cli *cli, int count, char **arguments);

/* The known word nearest to `typed`, or NULL when none is near.  `next` walks the candidates. */
const char *wf_cli_nearest(const char *typed, const char *(*next)(void *context, int index),
                           void *context);

/* The first word as one of the command's words: its index, or -1 after a sentence. */
int wf_cli_choose(struct cli *cli);
/* Run what the only word chooses: one function for each of the command's words. */
int wf_cli_run_word(struct cli *cli, int (*const runs[])(struct cli *));

/* help.c: texts made from the tables. */
void wf_cli_map_print(FILE *to);
void wf_cli_help_print(const struct cli_command *command, FILE *to);
void wf_cli_man_print(const struct cli_command *command, FILE *to);
void wf_cli_completion_print(FILE *to);

/* -------------------------------------------------------------------------------------- output */

/* "weft put: sentence" on stderr; with --json also {"error": …} on stdout.  Returns `code`. */
int wf_cli_fail(const struct cli *cli, enum cli_exit code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a call of libweft that did not succeed: `what` was being done; NULL: its sentence
 * alone. */
int wf_cli_fail_status(const struct cli *cli, enum weft_status status, const char *what);
/* The same for weft_connect(). */
int wf_cli_fail_connect(const struct cli *cli, enum weft_status status);
enum cli_exit wf_cli_exit_of(enum weft_status status);

/* Write and release `value`, one line on stdout. */
void wf_cli_json_print(json_t *value);
/* Like json_object_set_new, but out of memory ends the program with a sentence. */
void wf_cli_json_set(json_t *object, const char *key, json_t *value);
/* null where it is no number, or an infinite one. */
json_t *wf_cli_json_real(double value, int decimals);

/* "s" where it is not one: "%llu block%s". */
const char *wf_cli_s(uint64_t count);
/* Bytes as "1.5 GiB"; `buffer` of 16 or more. */
const char *wf_cli_size(uint64_t bytes, char *buffer, size_t capacity);
/* A time since 1970 as "14:03:59.120", with the date before it when that is not today's; `buffer`
 * of 40. */
const char *wf_cli_clock(int64_t time_ms, char *buffer, size_t capacity);
void wf_cli_hex(const uint8_t *bytes, size_t count, char *out); /* 2 × count + 1 */

/* A JSON answer of the node for people: nested objects indented, lists of objects as a table. */
void wf_cli_tree_print(const json_t *value, int indent, FILE *to);
void wf_cli_table_print(const json_t *rows, FILE *to);

/* A bar of `width` cells, `part` of 1 filled; and values as one line of growing bars.  ASCII where
 * the terminal's character set has no blocks.  `out` of 4 × width + 1. */
void wf_cli_bar(double part, int width, char *out);
void wf_cli_spark(const double *values, int count, char *out);

/* Is this build none to measure speeds with?  And a sentence where it is so. */
bool wf_cli_build_is_slow(void);
void wf_cli_build_print(FILE *to);

/* A progress bar on stderr, only when that is a terminal; at most ten times a second. */
struct cli_progress {
    const char *what;
    double started_s, drawn_s;
    bool shown;
};
void wf_cli_progress_init(struct cli_progress *progress, const char *what);
void wf_cli_progress_step(struct cli_progress *progress, double part, const char *note);
/* A line instead, where stderr is no terminal: for what takes minutes, some ten of them at most. */
void wf_cli_progress_line(const struct cli_progress *progress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void wf_cli_progress_fini(struct cli_progress *progress);

/* A number type by its name; `otherwise` for none of that name, or NULL. */
enum weft_dtype wf_cli_dtype(const char *name, enum weft_dtype otherwise);
const char *wf_cli_dtype_name(enum weft_dtype dtype); /* "?" for none */
/* A quality by its name; WEFT_QUALITY_DEFAULT for NULL. */
#define CLI_NO_QUALITY ((enum weft_quality)0x7f) /* there is none of that name */
enum weft_quality wf_cli_quality(const char *name);

double wf_cli_now_s(void);        /* CLOCK_MONOTONIC */
void *wf_cli_alloc(size_t bytes); /* zeroed; out of memory ends the program with a sentence */

/* ---------------------------------------------------------------------------------------- node */

/* Connect as the options say.  CLI_OK, or an exit code after a sentence. */
int wf_cli_connect(struct cli *cli);

/* The first page of an answer, without a sentence when there is none (NULL), as for who may not
 * ask. */
json_t *wf_cli_ask(struct cli *cli, const char *what);
/* What the node says of the domain that this command is of; NULL: nothing. */
json_t *wf_cli_domain_ask(struct cli *cli);
/* Ask the node, following "next" until the lists have `rows_max` rows (0: to the end) and joining
 * them; the answer is for json_decref(). */
int wf_cli_query(struct cli *cli, const char *what, uint64_t cursor, uint64_t rows_max,
                 json_t **out);

/* opening.c: tiers that the node is still opening, so that not all that lies there is found yet.
 * Their names as a list for json_decref(); as "tier nvme0 is" or "tiers nvme0 and s3 are", NULL:
 * none. */
#define CLI_OPENING_MAX 320
#define CLI_OPENING_S 5
json_t *wf_cli_opening_list(struct cli *cli);
const char *wf_cli_opening(struct cli *cli, char *out, size_t capacity);
/* Wait for them, for CLI_OPENING_S at most, and say so.  False: there was none to wait for. */
bool wf_cli_opening_wait(struct cli *cli);

/* Tiers that failed, so that what they hold is not known: a list of {"tier", "reason"} for
 * json_decref(); the reason "": the node tells it to its own user only. */
json_t *wf_cli_failed_list(struct cli *cli);
/* A sentence on stderr for each; how many. */
size_t wf_cli_failed_say(struct cli *cli);

/* missing.c: why `block` of a chain, called `key`, did not come when it was asked for at `since_ms`
 * (of 1970) or later: {"block", "why", "tier", "text"} for json_decref().  why: "absent"; "tier",
 * which has it and did not give it in time; "quality", a tier has it with more loss than its
 * domain allows; "opening"; "failed", a tier that may have it; or the
 * reason of the event of the read that failed. */
json_t *wf_cli_missing(struct cli *cli, const struct weft_key *key, uint64_t block,
                       int64_t since_ms);

/* The node's tiers, in the order of their measured latency: a list for json_decref(), or NULL and
 * in `why` a sentence.  A node tells them to its own user only. */
json_t *wf_cli_tiers_ask(struct weft *weft, char *why, size_t capacity);
/* Blocks that lie on it with loss. */
uint64_t wf_cli_tier_lossy(const json_t *tier);
/* As a table, with a line for each that is not well, or has blocks with loss. */
void wf_cli_tiers_print(const json_t *tiers, FILE *to);

/* What a weftd of this command's own is to have. */
struct cli_node_plan {
    uint64_t pool_bytes;
    const char *tier_dir; /* where an NVMe tier's file is made; NULL: no tier */
    uint64_t tier_bytes;
    uint64_t room_bytes;         /* that must be free there besides */
    const char *const *settings; /* "KEY=VALUE" for weftd --set, NULL at the end; may be NULL */
};

/* It is on a socket in a temporary folder, and gone when the command ends. */
struct cli_node {
    pid_t pid; /* 0: none runs */
    char folder[80];
    char socket[100];
    char below[4096 - 64]; /* folder of the tier's file, nvme.weft; "": it has none */
    struct cli_node_plan plan;
    double started_s; /* when the process was made */
};
/* What else may lie in node->below, and goes with it. */
#define CLI_YARDSTICK "yardstick"

/* Start one, whatever --socket says, and connect to it. */
int wf_cli_node_start(struct cli *cli, const struct cli_node_plan *plan, struct cli_node *node);
/* End it with a signal and keep all that it has; start it again there, and connect. */
void wf_cli_node_halt(struct cli_node *node, int number);
int wf_cli_node_again(struct cli *cli, struct cli_node *node);

/* Connect to the node of --socket, and without it to one that is started by plan: a load on a node
 * that serves must be asked for by name.  `sized`: --pool was given, which is not for a node that
 * runs. */
int wf_cli_node_reach(struct cli *cli, bool sized, const struct cli_node_plan *plan,
                      struct cli_node *node);
void wf_cli_node_stop(struct cli_node *node);
/* Which node it was, and what of this build makes it slower than it need be; lines for people. */
void wf_cli_node_print(const struct cli *cli, FILE *to);

/* `name` beside this executable, else in PATH; false when neither has it. */
bool wf_cli_program_find(const char *name, char *path, size_t capacity);
/* Run it and read what it says; stderr stays the user's.  Its exit code, or 127 when it cannot be
 * run.  *out_text is for free(), or NULL when it said nothing. */
int wf_cli_program_read(const char *program, const char *const *arguments, char **out_text);

/* ---------------------------------------------------------------------------- formats and keys */

/* The options that name a format and a chain of keys; commands put CLI_FORMAT_OPTIONS in their
 * table. */
struct cli_format_options {
    const char *model, *dtype, *rope_scaling, *salt, *quality;
    uint64_t layers, kv_heads, head_dim, block_tokens, block_bytes, tp_rank, tp_size;
    double rope_theta;
    const char *key, *raw_key, *tokens;
};
extern struct cli_format_options wf_cli_format_options;

/* The option groups for them, for a command's `groups`. */
extern const struct cli_option wf_cli_format_group[];
extern const struct cli_option wf_cli_key_group[];

/* Open the format that the options name.  `payload_bytes` is the size of a block when neither
 * --block-bytes nor a layout says it; 0: then that is a usage error. */
int wf_cli_format_open(struct cli *cli, uint64_t payload_bytes, struct weft_format **out);

/* The keys that --key, --raw-key or --tokens name.  With --key, `count` of them: block 0 is the
 * identity itself, block i the identity followed by i as four little-endian bytes.  With --tokens
 * all full blocks. *out is for free(). */
int wf_cli_keys(struct cli *cli, struct weft_format *format, size_t count, struct weft_key **out,
                size_t *out_count);

/* A chain of blocks that the options name, and what of it is there. */
struct cli_chain {
    struct weft_format *format;
    struct weft_key *keys;
    size_t count, present, dram; /* of those present, from the first on, so many are in DRAM */
};
/* Connect and open it, of `blocks` blocks where --key names it.  What is open is closed by
 * wf_cli_chain_close(), also after a failure. */
int wf_cli_chain_open(struct cli *cli, uint64_t blocks, struct cli_chain *out);
/* Where nodes keep a directory in parts: ask others about what of it is not known here.  True: more
 * than `known` of its blocks are there. */
bool wf_cli_chain_ask(struct weft_format *format, const struct weft_key *keys, size_t count,
                      size_t known, uint32_t within_ms);
/* Set `present` and `dram`. */
int wf_cli_chain_look(struct cli *cli, struct cli_chain *chain);
void wf_cli_chain_close(struct cli_chain *chain);

/* The size at which the block that the options name is there, when it is at another than
 * `format`'s, whose key is `key`; 0: at none that the node knows. */
uint64_t wf_cli_other_size(struct cli *cli, struct weft_format *format, const struct weft_key *key);

/* ----------------------------------------------------------------------- payloads, percentiles */

/* Payload that says what it is: key, position, then a stream seeded by both.  Checked at memory
 * speed. */
void wf_cli_payload_fill(void *payload, size_t bytes, const struct weft_key *key,
                         uint64_t position);
/* How many bytes differ from what fill would write. */
uint64_t wf_cli_payload_wrong(const void *payload, size_t bytes, const struct weft_key *key,
                              uint64_t position);

/* `part` of 1 of `values`, which are sorted by this; 0 for none. */
double wf_cli_percentile(double *values, size_t count, double part);

/* A pseudo-random sequence (splitmix64); the same for the same seed. */
uint64_t wf_cli_random(uint64_t *state);

#endif
