/* SPDX-License-Identifier: Apache-2.0
 *
 * What a command says: answers on stdout, everything else on stderr.
 *
 * With --json stdout carries exactly one line of JSON, errors included, so that a program that
 * reads it never has to guess.
 */
#include <langinfo.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define COLUMNS_MAX 16
#define CELL_MAX 80

double wf_cli_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void *wf_cli_alloc(size_t bytes)
{
    void *memory = calloc(1, bytes ? bytes : 1);
    if (memory)
        return memory;
    fprintf(stderr, "weft: this process cannot get %zu more bytes; free memory or ask for less\n",
            bytes);
    exit(CLI_SYSTEM);
}

enum cli_exit wf_cli_exit_of(enum weft_status status)
{
    switch (status) {
    case WEFT_OK:
    case WEFT_EXISTS: return CLI_OK;
    case WEFT_MISS:
    case WEFT_PENDING:
    case WEFT_E_NOT_FOUND: return CLI_MISS;
    case WEFT_E_INVALID: return CLI_USAGE;
    case WEFT_FULL:
    case WEFT_E_QUOTA:
    case WEFT_E_DENIED:
    case WEFT_E_LIMIT:
    case WEFT_E_BUSY:
    case WEFT_E_PARENT: return CLI_REFUSED;
    case WEFT_E_CORRUPT: return CLI_WRONG;
    case WEFT_E_TIMEOUT:
    case WEFT_E_PROTOCOL:
    case WEFT_E_FORKED:
    case WEFT_E_NODE: return CLI_NODE;
    case WEFT_E_NO_MEMORY:
    case WEFT_E_SYSTEM: return CLI_SYSTEM;
    }
    return CLI_SYSTEM;
}

/* A sentence may name what was on the command line, and that need not be UTF-8. */
static json_t *sentence_json(const char *sentence)
{
    char plain[1024];
    json_t *said = json_string(sentence);
    if (said)
        return said;
    snprintf(plain, sizeof plain, "%s", sentence);
    for (char *at = plain; *at; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    return json_string(plain);
}

static int fail(const struct cli *cli, enum cli_exit code, const char *status, const char *sentence)
{
    const char *name = cli->command ? cli->command->name : "";
    fprintf(stderr, "weft%s%s: %s\n", *name ? " " : "", name, sentence);
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "error", sentence_json(sentence));
        wf_cli_json_set(answer, "status", status ? json_string(status) : json_null());
        wf_cli_json_set(answer, "exit", json_integer(code));
        wf_cli_json_print(answer);
    }
    return (int)code;
}

int wf_cli_fail(const struct cli *cli, enum cli_exit code, const char *format, ...)
{
    char sentence[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    return fail(cli, code, NULL, sentence);
}

static int fail_status(const struct cli *cli, enum cli_exit code, enum weft_status status,
                       const char *what)
{
    char sentence[1024];
    const char *why = status < 0 || status == WEFT_FULL ? weft_last_error() : "";
    snprintf(sentence, sizeof sentence, "%s%s%s", what ? what : "", what ? ": " : "",
             *why ? why : weft_status_name(status));
    return fail(cli, code, weft_status_name(status), sentence);
}

int wf_cli_fail_status(const struct cli *cli, enum weft_status status, const char *what)
{
    return fail_status(cli, wf_cli_exit_of(status), status, what);
}

int wf_cli_fail_connect(const struct cli *cli, enum weft_status status)
{
    /* An unknown domain is not a missing block: nothing was looked for. */
    enum cli_exit code = status == WEFT_E_NOT_FOUND ? CLI_REFUSED : wf_cli_exit_of(status);
    return fail_status(cli, code, status, "no connection to a node");
}

/* ---------------------------------------------------------------------------------------- JSON */

void wf_cli_json_set(json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value) != 0) {
        fprintf(stderr, "weft: the value of \"%s\" is no UTF-8, or memory is short\n", key);
        exit(CLI_SYSTEM);
    }
}

json_t *wf_cli_json_real(double value, int decimals)
{
    char text[512]; /* the largest double has 309 digits before its point */
    if (!isfinite(value))
        return json_null();
    snprintf(text, sizeof text, "%.*f", decimals, value);
    return json_real(strtod(text, NULL));
}

void wf_cli_json_print(json_t *value)
{
    char *text = json_dumps(value, JSON_REAL_PRECISION(10) | JSON_ENCODE_ANY);
    if (text)
        puts(text);
    free(text);
    json_decref(value);
}

/* -------------------------------------------------------------------------------------- people */

const char *wf_cli_s(uint64_t count)
{
    return count == 1 ? "" : "s";
}

const char *wf_cli_clock(int64_t time_ms, char *buffer, size_t capacity)
{
    time_t seconds = (time_t)(time_ms / 1000), today = time(NULL);
    struct tm local, now;
    size_t used = 0;
    if (localtime_r(&seconds, &local) && localtime_r(&today, &now)) {
        bool same = local.tm_yday == now.tm_yday && local.tm_year == now.tm_year;
        used = strftime(buffer, capacity, same ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &local);
    }
    snprintf(buffer + used, capacity - used, ".%03d", (int)(time_ms % 1000));
    return buffer;
}

const char *wf_cli_size(uint64_t bytes, char *buffer, size_t capacity)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    bool whole = value >= 100 || value == (double)(uint64_t)value;
    snprintf(buffer, capacity, whole ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}

void wf_cli_hex(const uint8_t *bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    out[2 * count] = '\0';
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A value as people read it: bytes as sizes, keys cut short in tables. */
static void cell_text(const char *key, const json_t *value, char *out, size_t capacity)
{
    char size[32];
    if (json_is_string(value)) {
        snprintf(out, capacity, "%s", json_string_value(value));
    } else if (json_is_integer(value) && (ends_with(key, "bytes") || ends_with(key, "bytes_s")) &&
               json_integer_value(value) >= 0) {
        snprintf(out, capacity, "%s",
                 wf_cli_size((uint64_t)json_integer_value(value), size, sizeof size));
    } else if (json_is_integer(value)) {
        snprintf(out, capacity, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        double real = json_real_value(value);
        snprintf(out, capacity, real >= 1000 || real <= -1000 ? "%.0f" : "%.4g", real);
    } else if (json_is_boolean(value)) {
        snprintf(out, capacity, "%s", json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value) && json_is_string(json_array_get(value, 0))) {
        size_t index, used = 0;
        json_t *word;
        out[0] = '\0';
        json_array_foreach ((json_t *)(uintptr_t)value, index, word)
            if (used < capacity)
                used += (size_t)snprintf(out + used, capacity - used, "%s%s", index ? "," : "",
                                         json_string_value(word));
    } else if (json_is_null(value)) {
        snprintf(out, capacity, "-");
    } else {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        snprintf(out, capacity, "%s", text ? text : "");
        free(text);
    }
}

void wf_cli_table_print(const json_t *rows, FILE *to)
{
    const char *names[COLUMNS_MAX];
    int widths[COLUMNS_MAX], columns = 0;
    char cell[CELL_MAX];
    size_t index;
    json_t *row;
    const char *key;
    json_t *value;
    json_object_foreach (json_array_get(rows, 0), key, value) {
        if (columns == COLUMNS_MAX)
            break;
        widths[columns] = (int)strlen(key);
        names[columns++] = key;
    }
    json_array_foreach (rows, index, row) {
        for (int i = 0; i < columns; i++) {
            cell_text(names[i], json_object_get(row, names[i]), cell, sizeof cell);
            if ((int)strlen(cell) > widths[i])
                widths[i] = (int)strlen(cell);
        }
    }
    for (int i = 0; i < columns; i++)
        fprintf(to, "%-*s%s", i + 1 < columns ? widths[i] : 0, names[i],
                i + 1 < columns ? "  " : "\n");
    json_array_foreach (rows, index, row) {
        for (int i = 0; i < columns; i++) {
            const json_t *field = json_object_get(row, names[i]);
            if (field)
                cell_text(names[i], field, cell, sizeof cell);
            else
                cell[0] = '\0';
            bool number = json_is_number(field);
            bool last = i + 1 == columns;
            fprintf(to, number ? "%*s%s" : "%-*s%s", last && !number ? 0 : widths[i], cell,
                    last ? "\n" : "  ");
        }
    }
}

void wf_cli_tree_print(const json_t *value, int indent, FILE *to)
{
    const char *key;
    json_t *field;
    int width = 0;
    char cell[256];
    json_object_foreach ((json_t *)(uintptr_t)value, key, field)
        if ((int)strlen(key) > width)
            width = (int)strlen(key);
    json_object_foreach ((json_t *)(uintptr_t)value, key, field) {
        if (json_is_object(field)) {
            fprintf(to, "%*s%s\n", indent, "", key);
            wf_cli_tree_print(field, indent + 2, to);
        } else if (json_is_array(field) && json_is_object(json_array_get(field, 0))) {
            fprintf(to, "%*s%s\n", indent, "", key);
            wf_cli_table_print(field, to);
        } else {
            cell_text(key, field, cell, sizeof cell);
            fprintf(to, "%*s%-*s  %s\n", indent, "", width, key, cell);
        }
    }
}

bool wf_cli_build_is_slow(void)
{
#if WF_TEST_HOOKS || !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || \
    defined(__SANITIZE_THREAD__)
    return true;
#else
    return false;
#endif
}

void wf_cli_build_print(FILE *to)
{
    if (wf_cli_build_is_slow())
        fputs("this build has test hooks, or is one to look for errors with, and is not made for "
              "speed: its speeds mean nothing; `make bench` measures one that is\n",
              to);
}

/* ------------------------------------------------------------------------------ bars and lines */

static bool draws_blocks(void)
{
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void wf_cli_bar(double part, int width, char *out)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    bool blocks = draws_blocks();
    double cells = (part < 0 ? 0 : part > 1 ? 1 : part) * width;
    int full = (int)cells;
    char *p = out;
    *p = '\0';
    for (int i = 0; i < full; i++)
        p = stpcpy(p, blocks ? "█" : "#");
    int drawn = full;
    if (blocks && full < width && (int)((cells - full) * 8) > 0) {
        p = stpcpy(p, eighths[(int)((cells - full) * 8)]);
        drawn++;
    }
    for (; drawn < width; drawn++)
        p = stpcpy(p, blocks ? "·" : ".");
}

void wf_cli_spark(const double *values, int count, char *out)
{
    static const char *const fine[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const plain[] = {"_", ".", ".", "-", "-", "=", "=", "#"};
    double most = 0;
    for (int i = 0; i < count; i++)
        if (values[i] > most)
            most = values[i];
    char *p = out;
    *p = '\0';
    for (int i = 0; i < count; i++) {
        int level = most > 0 ? (int)(values[i] / most * 7.999) : 0;
        p = stpcpy(p, (draws_blocks() ? fine : plain)[level < 0 ? 0 : level]);
    }
}

void wf_cli_progress_init(struct cli_progress *progress, const char *what)
{
    double now = wf_cli_now_s();
    *progress = (struct cli_progress){what, now, now, false};
}

void wf_cli_progress_step(struct cli_progress *progress, double part, const char *note)
{
    double now = wf_cli_now_s();
    if (now - progress->drawn_s < 0.1 || !isatty(STDERR_FILENO))
        return;
    char bar[4 * 30 + 1];
    wf_cli_bar(part, 30, bar);
    char left[32] = ""; /* until there is something to tell it from */
    if (part > 0.01)
        snprintf(left, sizeof left, "%4.0f s left  ",
                 (now - progress->started_s) * (1 - part) / part);
    fprintf(stderr, "\r%s %s %3.0f %%  %s%s\033[K", progress->what, bar, 100 * part, left, note);
    progress->drawn_s = now;
    progress->shown = true;
}

void wf_cli_progress_line(const struct cli_progress *progress, const char *format, ...)
{
    char line[160];
    va_list arguments;
    if (isatty(STDERR_FILENO))
        return;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s\n", progress->what, line);
}

void wf_cli_progress_fini(struct cli_progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
    progress->shown = false;
}
