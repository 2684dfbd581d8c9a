/* SPDX-License-Identifier: Apache-2.0
 *
 * weftd: flags, configuration, start, loop, end.
 */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/nearest.h"
#include "base/size.h"
#include "daemon/config_fields.h"
#include "daemon/devices.h"
#include "daemon/fabric.h"
#include "daemon/gateway.h"
#include "daemon/node.h"

enum { EXIT_STARTED = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_RUNNING = 3 };

#define SETTINGS_MAX 64
#define OVERRIDES_MAX (SETTINGS_MAX + 1 + WF_TIER_FLAG_SETTINGS * WF_TIERS_MAX)

struct setting {
    const char *key, *value; /* key "": `value` is the whole KEY=VALUE */
};

struct arguments {
    const char *config_file;
    struct setting settings[SETTINGS_MAX];
    size_t setting_count;
    const char *tiers[SETTINGS_MAX];
    size_t tier_count;
    const char *overrides[OVERRIDES_MAX]; /* what all of them come to */
    size_t override_count;
    char room[OVERRIDES_MAX][384]; /* what overrides point to */
    bool check, json;
};

static const char usage_text[] =
    "weftd: the node of a Weft memory fabric\n"
    "\n"
    "usage: weftd [--config FILE] [--socket PATH] [--pool SIZE] [--http ADDRESS:PORT|off]\n"
    "             [--tier nvme:PATH:SIZE|cxl:DEVICE|s3://BUCKET/PREFIX[,KEY=VALUE]...]...\n"
    "             [--join etcd://HOST:PORT/CLUSTER|tcp:ADDRESS:PORT] [--set KEY=VALUE]...\n"
    "             [--log LEVEL]\n"
    "       weftd --check-config [--json]      say what is wrong with the configuration; no start\n"
    "       weftd --devices[=SYSFS]            CXL and other memory beyond DRAM, as JSON\n"
    "       weftd --help-config                every key with its default and meaning\n"
    "       weftd --version | --help\n"
    "\n"
    "Without any of these it serves this user on the default socket with a quarter of the host's\n"
    "memory.\n"
    "Later sources win: built-in defaults, the file, WEFT_* variables, flags.\n"
    "SIGTERM lets running puts finish (`drain`), then stops; a second one stops at once.\n"
    "\n"
    "exit status: 0 stopped as asked; 1 could not start or go on; 2 wrong usage or configuration;\n"
    "             3 a weftd is running on that socket already\n";

static void usage_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void usage_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("weftd: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_USAGE);
}

static void setting_add(struct arguments *arguments, const char *key, const char *value)
{
    if (arguments->setting_count == SETTINGS_MAX)
        usage_fail("more than %d settings on the command line; put them into a file", SETTINGS_MAX);
    arguments->settings[arguments->setting_count++] = (struct setting){key, value};
}

static void override_add(void *context, const char *key, const char *value)
{
    struct arguments *arguments = context;
    size_t index = arguments->override_count++;
    assert(index < OVERRIDES_MAX);
    arguments->overrides[index] = value;
    if (!*key)
        return;
    char *room = arguments->room[index];
    int length = snprintf(room, sizeof arguments->room[0], "%s=%s", key, value);
    if (length < 0 || (size_t)length >= sizeof arguments->room[0])
        usage_fail("the value '%.64s…' of %s is too long; shorten it", value, key);
    arguments->overrides[index] = room;
}

/* The tiers come before all other settings, wherever they stand, so that --set can say more about
 * them. */
static void overrides_make(struct arguments *arguments)
{
    if (wf_config_tier_flags(arguments->tiers, arguments->tier_count, override_add, arguments) !=
        WEFT_OK)
        usage_fail("%s", wf_last_error());
    for (size_t i = 0; i < arguments->setting_count; i++)
        override_add(arguments, arguments->settings[i].key, arguments->settings[i].value);
}

static void config_help(void)
{
    char *text = wf_config_help();
    if (text)
        fputs(text, stdout);
    free(text);
}

static int devices_show(const char *sysfs)
{
    char *text = wf_devices_json(NULL, sysfs);
    if (!text) {
        fprintf(stderr, "weftd: %s\n", wf_last_error());
        return EXIT_FAILED;
    }
    puts(text);
    free(text);
    return EXIT_STARTED;
}

/* What getopt found wrong with `word`: `found` is '?' or, where a value is missing, ':'. */
static void flag_refuse(const struct option *options, const char *word, int found)
{
    const char *name = word + strspn(word, "-");
    char typed[WF_NEAREST_WORD_MAX + 1];
    snprintf(typed, sizeof typed, "%.*s", (int)strcspn(name, "="), name);
    struct wf_nearest nearest;
    wf_nearest_init(&nearest, typed);
    bool known = false;
    for (const struct option *option = options; option->name; option++) {
        known = known || strcmp(option->name, typed) == 0;
        wf_nearest_offer(&nearest, option->name);
    }
    if (found == ':')
        usage_fail("%s needs a value; see weftd --help", word);
    if (known)
        usage_fail("--%s takes no value; leave out '%s'", typed, name + strcspn(name, "="));
    if (nearest.best && strncmp(word, "--", 2) == 0)
        usage_fail("there is no flag --%s; did you mean --%s?", typed, nearest.best);
    usage_fail("there is no flag %s; see weftd --help", word);
}

static void arguments_read(int argc, char **argv, struct arguments *out)
{
    enum { CHECK = 1000, DEVICES, HELP_CONFIG, JSON, VERSION };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"socket", required_argument, NULL, 's'},
        {"pool", required_argument, NULL, 'p'},
        {"http", required_argument, NULL, 'w'},
        {"set", required_argument, NULL, 'o'},
        {"tier", required_argument, NULL, 't'},
        {"join", required_argument, NULL, 'j'},
        {"log", required_argument, NULL, 'l'},
        {"check-config", no_argument, NULL, CHECK},
        {"devices", optional_argument, NULL, DEVICES},
        {"help-config", no_argument, NULL, HELP_CONFIG},
        {"json", no_argument, NULL, JSON},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    for (int flag; (flag = getopt_long(argc, argv, ":c:s:p:o:h", options, NULL)) != -1;) {
        switch (flag) {
        case 'c': out->config_file = optarg; break;
        case 's': setting_add(out, "socket", optarg); break;
        case 'p': setting_add(out, "pool.size", optarg); break;
        case 'w': setting_add(out, "http.listen", optarg); break;
        case 'l': setting_add(out, "log.level", optarg); break;
        case 'j': setting_add(out, "fabric.join", optarg); break;
        case 'o': setting_add(out, "", optarg); break;
        case 't':
            if (out->tier_count < SETTINGS_MAX)
                out->tiers[out->tier_count++] = optarg;
            break;
        case CHECK: out->check = true; break;
        case JSON: out->json = true; break;
        case DEVICES: exit(devices_show(optarg));
        case HELP_CONFIG: config_help(); exit(EXIT_STARTED);
        case VERSION: printf("weftd %s\n", WF_VERSION); exit(EXIT_STARTED);
        case 'h': fputs(usage_text, stdout); exit(EXIT_STARTED);
        default: flag_refuse(options, argv[optind - 1], flag);
        }
    }
    if (optind < argc)
        usage_fail("'%s' is not a flag; see weftd --help", argv[optind]);
    overrides_make(out);
}

/* What --check-config heard. */
struct findings {
    int risks, tiers, fatal;
};

static void remark(void *context, enum wf_remark_kind kind, const char *sentence)
{
    struct findings *findings = context;
    findings->risks += kind == WF_REMARK_RISK;
    findings->tiers += kind == WF_REMARK_TIER;
    findings->fatal += kind == WF_REMARK_FATAL;
    fprintf(stderr, "weftd: %s%s\n", kind == WF_REMARK_NOTE ? "note: " : "", sentence);
}

static int check(const struct wf_config *config, bool json)
{
    struct findings findings = {0};
    enum weft_status status = wf_config_check(config, remark, &findings);
    assert((status != WEFT_OK) == (findings.fatal > 0));
    if (json) {
        char *text = wf_config_json(config);
        if (text)
            puts(text);
        free(text);
    } else {
        printf("configuration %s: %s\n", config->file[0] ? config->file : "(built-in defaults)",
               findings.fatal ? "weftd would not start"
               : findings.tiers
                   ? "weftd would start, with a tier that is failed until that is mended"
               : findings.risks ? "weftd would start, and be killed when its pool fills"
                                : "ok");
    }
    return findings.fatal ? EXIT_USAGE : EXIT_STARTED;
}

/* At a start: what is not fatal goes to the log, and then what is ends the program. */
static void log_remark(void *context, enum wf_remark_kind kind, const char *sentence)
{
    const bool *fatal = context;
    if (*fatal && kind == WF_REMARK_FATAL)
        fprintf(stderr, "weftd: %s\n", sentence);
    else if (!*fatal && kind != WF_REMARK_FATAL)
        wf_warn("config", "%s", sentence);
}

static int serve(const struct wf_config *config)
{
    struct wf_node *node = NULL;
    char size[16];
    int result = EXIT_FAILED;
    int listener = -1, lock = -1;
    bool refused = false;
    /* The socket first: who finds a node running there leaves it alone in every other way. */
    enum weft_status status = wf_socket_listen(config->socket, config->socket_mode, &listener,
                                               &lock);
    if (status == WEFT_OK) {
        status = wf_config_check(config, log_remark, &refused);
        refused = status != WEFT_OK;
        if (refused) /* once more for the sentences; what the first look said counts */
            (void)!wf_config_check(config, log_remark, &refused);
        else
            status = wf_node_create(config, &node);
        if (status != WEFT_OK) {
            unlink(config->socket);
            close(listener);
            close(lock);
        }
    }
    if (status == WEFT_OK)
        status = wf_server_start(node, listener, lock);
    if (status == WEFT_OK)
        status = wf_gateway_start(node);
    if (status == WEFT_OK)
        status = wf_node_fabric_start(node);
    if (status == WEFT_OK) {
        wf_info("weftd", "version %s, pid %d, socket %s, pool dram0 %s in %s pages, %u domain%s",
                WF_VERSION, (int)getpid(), config->socket,
                wf_size_format(node->pool_bytes, size, sizeof size),
                node->pages == WF_PAGES_HUGE  ? "huge"
                : node->pages == WF_PAGES_THP ? "transparent huge"
                                              : "normal",
                node->domain_count, node->domain_count == 1 ? "" : "s");
        status = wf_server_run(node);
    }
    if (status == WEFT_OK) {
        wf_info("weftd", "stopped");
        result = EXIT_STARTED;
    } else if (refused) {
        result = EXIT_USAGE;
    } else {
        /* A WEFT_SOCKET that is meant for clients counts for weftd, too, and before the file. */
        char where[WF_ORIGIN_TEXT_MAX + 32] = "", origin[WF_ORIGIN_TEXT_MAX];
        int field = wf_config_field("socket");
        bool running = status == WEFT_E_BUSY && strstr(wf_last_error(), config->socket);
        if (running && config->origin[field].layer != WF_FROM_DEFAULT)
            snprintf(where, sizeof where, " (the path is from: %s)",
                     wf_config_where(config, field, origin));
        fprintf(stderr, "weftd: %s%s\n", wf_last_error(), where);
        result = running ? EXIT_RUNNING : EXIT_FAILED;
    }
    if (node) {
        wf_server_stop(node);
        wf_node_fabric_stop(node);
        wf_gateway_stop(node); /* which are clients, and wait for no answer any more */
    }
    wf_node_destroy(node);
    return result;
}

int main(int argc, char **argv)
{
    static struct arguments arguments;
    static struct wf_config config;
    arguments_read(argc, argv, &arguments);
    if (wf_config_load(arguments.config_file, arguments.overrides, arguments.override_count,
                       &config) != WEFT_OK) {
        fprintf(stderr, "weftd: %s\n", wf_last_error());
        return EXIT_USAGE;
    }
    if (arguments.check)
        return check(&config, arguments.json);
    wf_log_level_set((enum wf_log_level)config.log_level);
    return serve(&config);
}
