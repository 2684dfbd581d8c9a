/* SPDX-License-Identifier: Apache-2.0
 *
 * weft top: the node, live.
 *
 * Asks for "status" once an interval and shows differences: what the node did since the last look,
 * not since it began.  A node that goes away is shown as such and asked again.  With --json, or
 * with --count where there is no terminal, a sample is a line instead of a screen.
 */
#include <ncurses.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"

#define HISTORY 120
#define DOMAINS_MAX 64
#define TIERS_MAX 16

static double interval_s = 1;
static uint64_t count;

static const struct cli_option options[] = {
    {"interval", CLI_REAL, "SECONDS", &interval_s, "time between two looks (1)"},
    {"count", CLI_NUMBER, "N", &count, "end after so many samples (never)"},
    {NULL},
};

static const char *const examples[] = {
    "watch the node; q ends it, space stops the picture, + and - change the interval",
    "weft top",
    "a sample a second as JSON lines, for a graph",
    "weft top --json --interval 1",
    NULL,
};

/* Counters of one domain, or of their sum, at one look. */
struct counters {
    char name[64];
    uint64_t used_bytes, quota_bytes, blocks, clients, sessions;
    uint64_t pins, matches, asked, matched, puts, put_bytes, bytes_pinned, evicted, full;
};

/* One tier below DRAM at one look. */
struct below {
    char name[32], state[16];
    uint64_t used_bytes, capacity_bytes, read_bytes, write_bytes;
    double ratio;   /* of the blocks that lie there encoded; 0: there are none */
    uint64_t lossy; /* blocks that lie there with loss */
};

struct look {
    double at_s;
    bool answers, has_pool;
    char version[32], socket[108], why[256], pages[16];
    uint64_t pid, uptime_s, pool_bytes, pool_used;
    struct counters sum, domains[DOMAINS_MAX];
    int domain_count;
    struct below tiers[TIERS_MAX];
    int tier_count;
};

struct rates {
    double pins, puts, matches, evicted, read_gbps, written_gbps, hit_rate;
    bool looked; /* hit_rate means something: there were matches */
};

static uint64_t number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void text(const json_t *object, const char *key, char *out, size_t capacity)
{
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(out, capacity, "%s", value ? value : "");
}

static void domain_read(const json_t *from, struct counters *to)
{
    text(from, "name", to->name, sizeof to->name);
    to->used_bytes = number(from, "used_bytes");
    to->quota_bytes = number(from, "quota_bytes");
    to->blocks = number(from, "blocks");
    to->clients = number(from, "clients");
    to->sessions = number(from, "sessions");
    to->pins = number(from, "pins");
    to->matches = number(from, "matches");
    to->asked = number(from, "blocks_asked");
    to->matched = number(from, "blocks_matched");
    to->puts = number(from, "puts");
    to->put_bytes = number(from, "put_bytes");
    to->bytes_pinned = number(from, "bytes_pinned");
    to->full = number(from, "full");
    const char *reason;
    json_t *value;
    json_object_foreach (json_object_get(from, "evicted"), reason, value)
        to->evicted += (uint64_t)json_integer_value(value);
}

static void sum_add(struct counters *sum, const struct counters *part)
{
    sum->used_bytes += part->used_bytes;
    sum->blocks += part->blocks;
    sum->clients += part->clients;
    sum->sessions += part->sessions;
    sum->pins += part->pins;
    sum->matches += part->matches;
    sum->asked += part->asked;
    sum->matched += part->matched;
    sum->puts += part->puts;
    sum->put_bytes += part->put_bytes;
    sum->bytes_pinned += part->bytes_pinned;
    sum->evicted += part->evicted;
    sum->full += part->full;
}

/* A node that tells its tiers to its own user only shows others none. */
static void tiers_read(struct cli *cli, struct look *look)
{
    char why[256];
    size_t index;
    json_t *tier, *tiers = wf_cli_tiers_ask(cli->weft, why, sizeof why);
    json_array_foreach (tiers, index, tier) {
        if (look->tier_count == TIERS_MAX || index == 0)
            continue; /* the pool, which has its line */
        struct below *to = &look->tiers[look->tier_count++];
        text(tier, "name", to->name, sizeof to->name);
        text(tier, "state", to->state, sizeof to->state);
        to->used_bytes = number(tier, "used_bytes");
        to->capacity_bytes = number(tier, "capacity_bytes");
        to->read_bytes = number(tier, "read_bytes");
        to->write_bytes = number(tier, "write_bytes");
        to->ratio = json_number_value(json_object_get(json_object_get(tier, "codec"), "ratio"));
        to->lossy = wf_cli_tier_lossy(tier);
    }
    json_decref(tiers);
}

/* Ask once.  Errors become part of the picture: top outlives its node. */
static void look_take(struct cli *cli, struct look *look)
{
    memset(look, 0, sizeof *look);
    look->at_s = wf_cli_now_s();
    char *answer = NULL;
    enum weft_status status = WEFT_OK;
    if (!cli->weft)
        status = weft_connect(&(struct weft_connect_options){cli->socket, cli->domain, cli->token,
                                                             1000},
                              &cli->weft);
    if (status == WEFT_OK)
        status = weft_query(cli->weft, "status", 0, &answer);
    json_t *root = status == WEFT_OK ? json_loads(answer, 0, NULL) : NULL;
    weft_text_free(answer);
    if (!root) {
        snprintf(look->why, sizeof look->why, "%s",
                 status < 0 ? weft_last_error() : "no JSON came");
        return;
    }
    look->answers = true;
    text(root, "version", look->version, sizeof look->version);
    text(root, "socket", look->socket, sizeof look->socket);
    look->pid = number(root, "pid");
    look->uptime_s = (uint64_t)json_number_value(json_object_get(root, "uptime_s"));
    const json_t *pool = json_object_get(root, "pool");
    look->has_pool = json_is_object(pool);
    look->pool_bytes = number(pool, "bytes");
    look->pool_used = number(pool, "used_bytes");
    text(pool, "pages", look->pages, sizeof look->pages);
    size_t index;
    json_t *domain;
    json_array_foreach (json_object_get(root, "domains"), index, domain) {
        if (look->domain_count == DOMAINS_MAX)
            break;
        domain_read(domain, &look->domains[look->domain_count]);
        sum_add(&look->sum, &look->domains[look->domain_count++]);
    }
    json_decref(root);
    tiers_read(cli, look);
}

/* A counter that went back belongs to a node that began anew, and says nothing. */
static double rate(uint64_t before, uint64_t now, double seconds)
{
    return now >= before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

static struct rates rates_of(const struct counters *before, const struct counters *now,
                             double seconds)
{
    struct rates rates = {
        .pins = rate(before->pins, now->pins, seconds),
        .puts = rate(before->puts, now->puts, seconds),
        .matches = rate(before->matches, now->matches, seconds),
        .evicted = rate(before->evicted, now->evicted, seconds),
        .read_gbps = rate(before->bytes_pinned, now->bytes_pinned, seconds) / 1e9,
        .written_gbps = rate(before->put_bytes, now->put_bytes, seconds) / 1e9,
    };
    double asked = rate(before->asked, now->asked, seconds);
    rates.looked = asked > 0;
    rates.hit_rate = rates.looked ? rate(before->matched, now->matched, seconds) / asked : 0;
    return rates;
}

static const struct counters *same_domain(const struct look *look, const char *name)
{
    for (int i = 0; i < look->domain_count; i++)
        if (strcmp(look->domains[i].name, name) == 0)
            return &look->domains[i];
    return NULL;
}

static const struct below *same_tier(const struct look *look, const struct below *tier)
{
    for (int i = 0; i < look->tier_count; i++)
        if (strcmp(look->tiers[i].name, tier->name) == 0)
            return &look->tiers[i];
    return tier;
}

/* --------------------------------------------------------------------------------------- lines */

static json_t *tiers_json(const struct look *before, const struct look *look)
{
    double seconds = look->at_s - before->at_s;
    json_t *list = json_array();
    for (int i = 0; i < look->tier_count; i++) {
        const struct below *tier = &look->tiers[i], *earlier = same_tier(before, tier);
        json_t *out = json_object();
        wf_cli_json_set(out, "name", json_string(tier->name));
        wf_cli_json_set(out, "state", json_string(tier->state));
        wf_cli_json_set(out, "used_bytes", json_integer((json_int_t)tier->used_bytes));
        wf_cli_json_set(out, "read_bytes_per_s",
                        wf_cli_json_real(rate(earlier->read_bytes, tier->read_bytes, seconds), 1));
        wf_cli_json_set(out, "write_bytes_per_s",
                        wf_cli_json_real(rate(earlier->write_bytes, tier->write_bytes, seconds),
                                         1));
        wf_cli_json_set(out, "ratio", wf_cli_json_real(tier->ratio, 3));
        wf_cli_json_set(out, "lossy_blocks", json_integer((json_int_t)tier->lossy));
        json_array_append_new(list, out);
    }
    return list;
}

static void sample_json(const struct look *before, const struct look *look,
                        const struct rates *rates)
{
    json_t *out = json_object();
    wf_cli_json_set(out, "answers", json_boolean(look->answers));
    wf_cli_json_set(out, "pool_bytes", json_integer((json_int_t)look->pool_bytes));
    wf_cli_json_set(out, "pool_used_bytes", json_integer((json_int_t)look->pool_used));
    wf_cli_json_set(out, "blocks", json_integer((json_int_t)look->sum.blocks));
    wf_cli_json_set(out, "clients", json_integer((json_int_t)look->sum.clients));
    wf_cli_json_set(out, "sessions", json_integer((json_int_t)look->sum.sessions));
    wf_cli_json_set(out, "hit_rate",
                    rates->looked ? wf_cli_json_real(rates->hit_rate, 4) : json_null());
    wf_cli_json_set(out, "pins_per_s", wf_cli_json_real(rates->pins, 1));
    wf_cli_json_set(out, "puts_per_s", wf_cli_json_real(rates->puts, 1));
    wf_cli_json_set(out, "matches_per_s", wf_cli_json_real(rates->matches, 1));
    wf_cli_json_set(out, "evicted_per_s", wf_cli_json_real(rates->evicted, 1));
    wf_cli_json_set(out, "tiers", tiers_json(before, look));
    wf_cli_json_print(out);
    fflush(stdout);
}

static void sample_line(const struct look *before, const struct look *look,
                        const struct rates *rates)
{
    (void)before;
    char used[32], hit[16] = "-", loss[48] = "";
    uint64_t lossy = 0;
    for (int i = 0; i < look->tier_count; i++)
        lossy += look->tiers[i].lossy;
    if (lossy)
        snprintf(loss, sizeof loss, "  %llu below with loss", (unsigned long long)lossy);
    if (rates->looked)
        snprintf(hit, sizeof hit, "%.1f %%", 100 * rates->hit_rate);
    if (look->answers)
        printf("%-8s %7llu blocks  hit %7s %7.0f pins/s %6.0f puts/s %5.0f evict/s%s\n",
               wf_cli_size(look->has_pool ? look->pool_used : look->sum.used_bytes, used,
                           sizeof used),
               (unsigned long long)look->sum.blocks, hit, rates->pins, rates->puts, rates->evicted,
               loss);
    else
        printf("no answer: %s\n", look->why);
    fflush(stdout);
}

static int lines_run(struct cli *cli)
{
    static struct look looks[2];
    look_take(cli, &looks[0]);
    if (!looks[0].answers)
        return wf_cli_connect(cli);
    for (uint64_t i = 1; !ferror(stdout) && (!count || i <= count); i++) {
        usleep((useconds_t)(interval_s * 1e6));
        struct look *now = &looks[i % 2], *before = &looks[(i + 1) % 2];
        look_take(cli, now);
        struct rates rates = rates_of(&before->sum, &now->sum, now->at_s - before->at_s);
        (cli->json ? sample_json : sample_line)(before, now, &rates);
    }
    return CLI_OK;
}

/* -------------------------------------------------------------------------------------- screen */

struct history {
    double pins[HISTORY], puts[HISTORY], hits[HISTORY];
    int filled;
};

static void history_add(struct history *history, const struct rates *rates)
{
    if (history->filled == HISTORY) {
        memmove(history->pins, history->pins + 1, (HISTORY - 1) * sizeof(double));
        memmove(history->puts, history->puts + 1, (HISTORY - 1) * sizeof(double));
        memmove(history->hits, history->hits + 1, (HISTORY - 1) * sizeof(double));
        history->filled--;
    }
    history->pins[history->filled] = rates->pins;
    history->puts[history->filled] = rates->puts;
    history->hits[history->filled++] = 100 * rates->hit_rate;
}

static void spark_draw(int line, const char *what, const double *values, int filled,
                       const char *unit)
{
    int width = COLS - 30 < HISTORY ? COLS - 30 : HISTORY;
    if (width < 1)
        return;
    int shown = filled < width ? filled : width;
    char spark[4 * HISTORY + 1];
    wf_cli_spark(values + filled - shown, shown, spark);
    mvprintw(line, 0, "%-8s %10.4g %-7s ", what, filled ? values[filled - 1] : 0, unit);
    addstr(spark);
}

/* The table of domains, with the most telling columns of those that fit the terminal. */
enum column {
    COLUMN_DOMAIN,
    COLUMN_USED,
    COLUMN_QUOTA,
    COLUMN_BLOCKS,
    COLUMN_CLIENTS,
    COLUMN_HIT,
    COLUMN_PINS,
    COLUMN_PUTS,
    COLUMN_READ,
    COLUMN_EVICT,
    COLUMNS_COUNT
};

static const struct {
    const char *title;
    int width; /* negative: to the left */
    int rank;  /* the highest goes first */
} columns[COLUMNS_COUNT] = {
    [COLUMN_DOMAIN] = {"domain", -16, 0}, [COLUMN_USED] = {"used", 10, 2},
    [COLUMN_QUOTA] = {"quota", 10, 7},    [COLUMN_BLOCKS] = {"blocks", 8, 5},
    [COLUMN_CLIENTS] = {"clients", 7, 9}, [COLUMN_HIT] = {"hit", 7, 1},
    [COLUMN_PINS] = {"pins/s", 10, 3},    [COLUMN_PUTS] = {"puts/s", 9, 4},
    [COLUMN_READ] = {"read GB/s", 9, 8},  [COLUMN_EVICT] = {"evict/s", 8, 6},
};

/* Columns of a rank below this fit. */
static int columns_fit(int width)
{
    int rank = COLUMNS_COUNT, needed;
    do {
        needed = -1;
        for (int i = 0; i < COLUMNS_COUNT; i++)
            needed += columns[i].rank < rank ? abs(columns[i].width) + 1 : 0;
    } while (needed > width && --rank > 1);
    return rank;
}

static void row_draw(int line, char cells[COLUMNS_COUNT][32])
{
    int rank = columns_fit(COLS);
    move(line, 0);
    for (int i = 0; i < COLUMNS_COUNT; i++)
        if (columns[i].rank < rank)
            printw("%*.16s ", columns[i].width, cells[i]);
}

static void domains_draw(int line, const struct look *before, const struct look *now)
{
    char cells[COLUMNS_COUNT][32];
    for (int i = 0; i < COLUMNS_COUNT; i++)
        snprintf(cells[i], sizeof cells[i], "%s", columns[i].title);
    attron(A_BOLD);
    row_draw(line++, cells);
    attroff(A_BOLD);
    for (int i = 0; i < now->domain_count && line < LINES - 1; i++) {
        const struct counters *domain = &now->domains[i],
                              *earlier = same_domain(before, domain->name);
        struct rates rates = rates_of(earlier ? earlier : domain, domain, now->at_s - before->at_s);
        snprintf(cells[COLUMN_DOMAIN], 32, "%.31s", domain->name);
        wf_cli_size(domain->used_bytes, cells[COLUMN_USED], 32);
        snprintf(cells[COLUMN_QUOTA], 32, "-");
        if (domain->quota_bytes)
            wf_cli_size(domain->quota_bytes, cells[COLUMN_QUOTA], 32);
        snprintf(cells[COLUMN_BLOCKS], 32, "%llu", (unsigned long long)domain->blocks);
        snprintf(cells[COLUMN_CLIENTS], 32, "%llu", (unsigned long long)domain->clients);
        snprintf(cells[COLUMN_HIT], 32, "-");
        if (rates.looked)
            snprintf(cells[COLUMN_HIT], 32, "%.1f %%", 100 * rates.hit_rate);
        snprintf(cells[COLUMN_PINS], 32, "%.0f", rates.pins);
        snprintf(cells[COLUMN_PUTS], 32, "%.0f", rates.puts);
        snprintf(cells[COLUMN_READ], 32, "%.2f", rates.read_gbps);
        snprintf(cells[COLUMN_EVICT], 32, "%.0f", rates.evicted);
        row_draw(line++, cells);
    }
}

/* A line of text, cut at the terminal's edge. */
static void line_draw(int line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line_draw(int line, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mvaddnstr(line, 0, text, COLS);
}

/* A sentence, broken between words; the line after it. */
static int sentence_draw(int line, const char *text)
{
    while (*text && line < LINES) {
        size_t length = strlen(text), width = (size_t)(COLS > 1 ? COLS : 1);
        if (length > width) {
            for (length = width; length && text[length] != ' ';)
                length--;
            length = length ? length : width;
        }
        mvaddnstr(line++, 0, text, (int)length);
        text += length;
        text += strspn(text, " ");
    }
    return line;
}

static void pool_draw(int line, const struct look *now)
{
    char bar[4 * 40 + 1], used[32], all[32], text[128];
    snprintf(text, sizeof text, "  %s of %s, %s pages",
             wf_cli_size(now->pool_used, used, sizeof used),
             wf_cli_size(now->pool_bytes, all, sizeof all), now->pages);
    int width = COLS - 9 - (int)strlen(text);
    width = width < 0 ? 0 : width > 40 ? 40 : width;
    wf_cli_bar(now->pool_bytes ? (double)now->pool_used / (double)now->pool_bytes : 0, width, bar);
    mvaddstr(line, 0, "dram0    ");
    addstr(width ? bar : "");
    addnstr(text, COLS - 9 - width > 0 ? COLS - 9 - width : 0);
}

static void tier_draw(int line, const struct below *earlier, const struct below *tier,
                      double seconds)
{
    char bar[4 * 20 + 1], used[32], all[32] = "-";
    bool well = strcmp(tier->state, "ok") == 0;
    if (tier->capacity_bytes)
        wf_cli_size(tier->capacity_bytes, all, sizeof all);
    wf_cli_bar(tier->capacity_bytes ? (double)tier->used_bytes / (double)tier->capacity_bytes : 0,
               COLS > 90 ? 20 : 0, bar);
    if (!well)
        attron(A_BOLD);
    /* A tier that is not well says so first, where no edge cuts it off. */
    mvprintw(line, 0, "%-8.8s ", tier->name);
    addstr(bar);
    char text[160];
    snprintf(text, sizeof text, "%s%s  %s of %s  read %.2f GB/s  write %.2f GB/s", well ? "" : "  ",
             well ? "" : tier->state, wf_cli_size(tier->used_bytes, used, sizeof used), all,
             rate(earlier->read_bytes, tier->read_bytes, seconds) / 1e9,
             rate(earlier->write_bytes, tier->write_bytes, seconds) / 1e9);
    if (tier->ratio > 0)
        snprintf(text + strlen(text), sizeof text - strlen(text), "  ratio %.2f%s", tier->ratio,
                 tier->lossy ? ", lossy" : "");
    int room = COLS - 9 - (COLS > 90 ? 20 : 0);
    addnstr(text, room > 0 ? room : 0);
    if (!well)
        attroff(A_BOLD);
}

static void screen_draw(const struct look *before, const struct look *now,
                        const struct history *history, bool paused)
{
    erase();
    if (!now->answers) {
        char text[320];
        snprintf(text, sizeof text, "no node answers: %s", now->why);
        line_draw(sentence_draw(0, text) + 1, "asked again every %.1f s; q ends this", interval_s);
        refresh();
        return;
    }
    line_draw(0, "weftd %s  pid %llu  up %llu:%02llu:%02llu%s  %s", now->version,
              (unsigned long long)now->pid, (unsigned long long)now->uptime_s / 3600,
              (unsigned long long)now->uptime_s / 60 % 60, (unsigned long long)now->uptime_s % 60,
              paused ? "  [stopped]" : "", now->socket);
    int line = 2;
    if (now->has_pool)
        pool_draw(line++, now);
    for (int i = 0; i < now->tier_count && line < LINES - 2; i++)
        tier_draw(line++, same_tier(before, &now->tiers[i]), &now->tiers[i],
                  now->at_s - before->at_s);
    line_draw(line++, "%llu client%s  %llu session%s  %llu block%s",
              (unsigned long long)now->sum.clients, wf_cli_s(now->sum.clients),
              (unsigned long long)now->sum.sessions, wf_cli_s(now->sum.sessions),
              (unsigned long long)now->sum.blocks, wf_cli_s(now->sum.blocks));
    line++;
    spark_draw(line++, "pins", history->pins, history->filled, "/s");
    spark_draw(line++, "puts", history->puts, history->filled, "/s");
    spark_draw(line++, "hit rate", history->hits, history->filled, "%");
    domains_draw(line + 1, before, now);
    line_draw(LINES - 1, "q end   space stop   + - interval (%.1f s)", interval_s);
    refresh();
}

/* Wait for the interval's end or a key; false when it is time to go. */
static bool keys_wait(double until_s, bool *paused)
{
    while (wf_cli_now_s() < until_s) {
        timeout((int)((until_s - wf_cli_now_s()) * 1000) + 1);
        int key = getch();
        if (key == 'q' || key == 'Q' || key == 3)
            return false;
        if (key == ' ')
            *paused = !*paused;
        if (key == '+' && interval_s < 60)
            interval_s *= 2;
        if (key == '-' && interval_s > 0.1)
            interval_s /= 2;
        if (key == KEY_RESIZE)
            return true;
    }
    return true;
}

static int screen_run(struct cli *cli)
{
    static struct look looks[2];
    static struct history history;
    look_take(cli, &looks[0]);
    if (!looks[0].answers)
        return wf_cli_connect(cli);
    if (!initscr())
        return wf_cli_fail(cli, CLI_SYSTEM, "this terminal cannot be drawn on; use --json");
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    bool paused = false;
    uint64_t i = 1;
    screen_draw(&looks[0], &looks[0], &history, paused);
    while (keys_wait(wf_cli_now_s() + interval_s, &paused) && (!count || i <= count)) {
        if (paused)
            continue;
        struct look *now = &looks[i % 2], *before = &looks[(i + 1) % 2];
        look_take(cli, now);
        struct rates rates = rates_of(&before->sum, &now->sum, now->at_s - before->at_s);
        if (now->answers && before->answers)
            history_add(&history, &rates);
        screen_draw(before, now, &history, paused);
        i++;
    }
    endwin();
    return CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    if (!(interval_s >= 0.05 && interval_s <= 3600))
        return wf_cli_fail(cli, CLI_USAGE, "--interval is %g; give 0.05 to 3600 seconds",
                           interval_s);
    bool screen = !cli->json && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
    return screen ? screen_run(cli) : lines_run(cli);
}

const struct cli_command wf_cmd_top = {
    .name = "top",
    .summary = "the node, live",
    .synopsis = "",
    .about =
        "Shows the pool, each tier below it, each domain's hit rate and operations a second, and "
        "their course.  Rates are of the last interval.  hit is the share of blocks that were "
        "there when an engine matched.  A tier is lossy where blocks lie with loss.\n\n"
        "Without a terminal, or with --json, every sample is a line; hit_rate is null in an "
        "interval in which nothing was matched.",
    .options = options,
    .examples = examples,
    .run = run,
};
