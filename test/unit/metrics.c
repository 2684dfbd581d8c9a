/* SPDX-License-Identifier: Apache-2.0
 *
 * What is counted is what is exposed, and what is exposed is Prometheus text: a small parser holds
 * it to the format (every sample after its own HELP and TYPE, families unbroken, no series twice,
 * histograms monotonic).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/metrics.h"

static struct wf_metrics *metrics;
static const char *const domains[] = {"alice", "bob.x"}, *const pools[] = {"dram0", "cxl0"};

static int create(void **state)
{
    (void)state;
    return wf_metrics_create(domains, 2, pools, 2, &metrics) == WEFT_OK ? 0 : -1;
}

static int destroy(void **state)
{
    (void)state;
    wf_metrics_destroy(metrics);
    return 0;
}

static void fill(void *context, struct wf_gauges *gauges)
{
    uint64_t base = *(uint64_t *)context;
    gauges->domains[0].clients = base;
    gauges->domains[1].block_bytes = base + 1;
    gauges->domains[1].sessions[WEFT_WAITING - WEFT_PREFILL] = base + 2;
    gauges->pools[1].largest_free_bytes = base + 3;
    gauges->draining = 1;
}

/* ---------------------------------------------------------------------------------- the parser */

enum { SERIES_MAX = 4096, FAMILIES_MAX = 128 };

struct exposition {
    char *text; /* cut into lines */
    struct {
        const char *series; /* name and labels */
        double value;
    } samples[SERIES_MAX];
    size_t sample_count;
    char families[FAMILIES_MAX][96], types[FAMILIES_MAX][16];
    size_t family_count;
};

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!(isalpha((unsigned char)text[i]) || text[i] == '_' || text[i] == ':' ||
              (i && isdigit((unsigned char)text[i]))))
            return false;
    return length > 0;
}

/* name{label="value",…}: returns what follows it. */
static const char *parse_series(const char *line)
{
    size_t length = strcspn(line, "{ ");
    if (!is_name(line, length))
        fail_msg("no metric name: %s", line);
    const char *p = line + length;
    if (*p != '{')
        return p;
    do {
        p++;
        length = strcspn(p, "=");
        if (!is_name(p, length) || p[length + 1] != '"')
            fail_msg("no label at '%s' of %s", p, line);
        for (p += length + 2; *p && *p != '"'; p++)
            if (*p == '\\')
                p++;
        if (*p != '"')
            fail_msg("a label's value has no end: %s", line);
        p++;
    } while (*p == ',');
    if (*p != '}')
        fail_msg("labels have no end: %s", line);
    return p + 1;
}

static void parse_comment(struct exposition *exposition, const char *line)
{
    char name[96], type[16];
    if (sscanf(line, "# HELP %95s", name) == 1) {
        for (size_t i = 0; i < exposition->family_count; i++)
            if (strcmp(exposition->families[i], name) == 0)
                fail_msg("%s is in two places", name);
        assert_true(exposition->family_count < FAMILIES_MAX);
        snprintf(exposition->families[exposition->family_count++], 96, "%s", name);
    } else if (sscanf(line, "# TYPE %95s %15s", name, type) == 2) {
        assert_true(exposition->family_count > 0);
        assert_string_equal(exposition->families[exposition->family_count - 1], name);
        assert_string_equal(exposition->types[exposition->family_count - 1], "");
        if (strcmp(type, "counter") != 0 && strcmp(type, "gauge") != 0 &&
            strcmp(type, "histogram") != 0)
            fail_msg("no type: %s", line);
        snprintf(exposition->types[exposition->family_count - 1], 16, "%s", type);
    } else {
        fail_msg("neither HELP nor TYPE: %s", line);
    }
}

static void parse_sample(struct exposition *exposition, char *line)
{
    const char *family = exposition->families[exposition->family_count - 1];
    const char *type = exposition->types[exposition->family_count - 1];
    size_t length = strlen(family);
    const char *value = parse_series(line);
    char *end;
    if (strncmp(line, family, length) != 0)
        fail_msg("a sample outside its family %s: %s", family, line);
    size_t suffix = strcspn(line, "{ ") - length;
    if (strcmp(type, "histogram") == 0 ? suffix == 0 : suffix != 0)
        fail_msg("not of family %s: %s", family, line);
    if (strcmp(type, "counter") == 0 && strcmp(family + length - 6, "_total") != 0)
        fail_msg("a counter without _total: %s", line);
    if (*value != ' ')
        fail_msg("no blank before the value: %s", line);
    double number = strtod(value + 1, &end);
    if (end == value + 1 || *end)
        fail_msg("no value: %s", line);
    line[value - line] = '\0';
    for (size_t i = 0; i < exposition->sample_count; i++)
        if (strcmp(exposition->samples[i].series, line) == 0)
            fail_msg("twice: %s", line);
    assert_true(exposition->sample_count < SERIES_MAX);
    exposition->samples[exposition->sample_count].series = line;
    exposition->samples[exposition->sample_count++].value = number;
}

static struct exposition *parse(char *text)
{
    assert_non_null(text);
    size_t length = strlen(text);
    assert_true(length > 0 && text[length - 1] == '\n');
    struct exposition *exposition = calloc(1, sizeof *exposition);
    assert_non_null(exposition);
    exposition->text = text;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#')
            parse_comment(exposition, line);
        else
            parse_sample(exposition, line);
    }
    return exposition;
}

static void drop(struct exposition *exposition)
{
    free(exposition->text);
    free(exposition);
}

static double value_of(const struct exposition *exposition, const char *series)
{
    for (size_t i = 0; i < exposition->sample_count; i++)
        if (strcmp(exposition->samples[i].series, series) == 0)
            return exposition->samples[i].value;
    return NAN;
}

static void has(const struct exposition *exposition, const char *series, double expected)
{
    double value = value_of(exposition, series);
    if (!(fabs(value - expected) < 1e-9))
        fail_msg("%s is %g and should be %g", series, value, expected);
}

/* --------------------------------------------------------------------------------------- tests */

static void what_is_counted_is_exposed(void **state)
{
    (void)state;
    uint64_t base = 100;
    wf_metrics_add(metrics, 0, WF_M_BLOCKS_PUT, 3);
    wf_metrics_add(metrics, 0, WF_M_BLOCKS_PUT, 4);
    wf_metrics_add_in(metrics, 1, 1, WF_M_BYTES_EVICTED, 4096);
    wf_metrics_add(metrics, WF_NO_DOMAIN, WF_M_PROTOCOL_ERRORS, 2);
    wf_metrics_op(metrics, 1, WF_OP_RESERVE, WEFT_OK, 1500);
    wf_metrics_op(metrics, 1, WF_OP_RESERVE, WEFT_E_QUOTA, 900);
    wf_metrics_op(metrics, 1, WF_OP_RESERVE, (enum weft_status)12345, 1);
    struct exposition *seen = parse(wf_metrics_render(metrics, fill, &base));
    has(seen, "weft_blocks_put_total{domain=\"alice\",pool=\"dram0\"}", 7);
    has(seen, "weft_blocks_put_total{domain=\"alice\",pool=\"cxl0\"}", 0);
    has(seen, "weft_evicted_bytes_total{domain=\"bob.x\",pool=\"cxl0\"}", 4096);
    has(seen, "weft_protocol_errors_total{domain=\"\"}", 2);
    has(seen, "weft_protocol_errors_total{domain=\"alice\"}", 0);
    has(seen, "weft_operations_total{domain=\"bob.x\",op=\"reserve\",outcome=\"ok\"}", 1);
    has(seen, "weft_operations_total{domain=\"bob.x\",op=\"reserve\",outcome=\"quota\"}", 1);
    has(seen, "weft_operations_total{domain=\"bob.x\",op=\"reserve\",outcome=\"system\"}", 1);
    has(seen, "weft_operations_total{domain=\"alice\",op=\"reserve\",outcome=\"ok\"}", 0);
    has(seen, "weft_clients{domain=\"alice\"}", 100);
    has(seen, "weft_block_bytes{domain=\"bob.x\"}", 101);
    has(seen, "weft_sessions{domain=\"bob.x\",state=\"waiting\"}", 102);
    has(seen, "weft_pool_largest_free_bytes{pool=\"cxl0\"}", 103);
    has(seen, "weft_draining", 1);
    has(seen, "weft_build_info{version=\"" WF_VERSION "\"}", 1);
    assert_true(isnan(value_of(seen, "weft_blocks_put_total{domain=\"\",pool=\"dram0\"}")));
    drop(seen);
    assert_int_equal(wf_metrics_total(metrics, 0, WF_M_BLOCKS_PUT), 7);
    assert_int_equal(wf_metrics_total(metrics, WF_NO_DOMAIN, WF_M_BYTES_EVICTED), 4096);
    assert_int_equal(wf_metrics_op_total(metrics, 1, WF_OP_RESERVE), 3);
    assert_int_equal(wf_metrics_op_total(metrics, 0, WF_OP_RESERVE), 0);
}

static void histograms_are_cumulative_and_in_seconds(void **state)
{
    (void)state;
    wf_metrics_op(metrics, 0, WF_OP_COMMIT, WEFT_OK, 1023);
    wf_metrics_op(metrics, 0, WF_OP_COMMIT, WEFT_OK, 1024);
    wf_metrics_op(metrics, 0, WF_OP_COMMIT, WEFT_OK, 20000000000ULL);
    struct exposition *seen = parse(wf_metrics_render(metrics, NULL, NULL));
    const char *prefix =
        "weft_operation_duration_seconds_bucket{domain=\"alice\",op=\"commit\",le=\"";
    double bound = 0, count = 0;
    size_t buckets = 0;
    for (size_t i = 0; i < seen->sample_count; i++) {
        if (strncmp(seen->samples[i].series, prefix, strlen(prefix)) != 0)
            continue;
        double next = strtod(seen->samples[i].series + strlen(prefix), NULL);
        assert_true(next > bound);
        assert_true(seen->samples[i].value >= count);
        bound = next;
        count = seen->samples[i].value;
        buckets++;
    }
    assert_int_equal(buckets, 14);
    assert_true(isinf(bound));
    assert_true(count == 3);
    has(seen,
        "weft_operation_duration_seconds_bucket{domain=\"alice\",op=\"commit\",le=\"1.024e-06\"}",
        1);
    has(seen,
        "weft_operation_duration_seconds_bucket{domain=\"alice\",op=\"commit\",le=\"4.096e-06\"}",
        2);
    has(seen,
        "weft_operation_duration_seconds_bucket"
        "{domain=\"alice\",op=\"commit\",le=\"17.179869184\"}",
        2);
    has(seen, "weft_operation_duration_seconds_count{domain=\"alice\",op=\"commit\"}", 3);
    double sum = value_of(seen,
                          "weft_operation_duration_seconds_sum{domain=\"alice\",op=\"commit\"}");
    assert_true(fabs(sum - 20.000002047) < 1e-8);
    drop(seen);
    uint64_t median = wf_metrics_op_quantile_ns(metrics, 0, WF_OP_COMMIT, 0.5);
    assert_in_range(median, 1024 - 16, 1024 + 16);
    assert_int_equal(wf_metrics_op_quantile_ns(metrics, 1, WF_OP_COMMIT, 0.5), 0);
    median = wf_metrics_op_quantile_ns(metrics, WF_NO_DOMAIN, WF_OP_COMMIT, 0.5);
    assert_in_range(median, 1024 - 16, 1024 + 16);
}

static void every_operation_and_counter_has_a_name(void **state)
{
    (void)state;
    for (unsigned op = 1; op < WF_OP_COUNT; op++) {
        assert_non_null(wf_op_name((enum wf_op)op));
        wf_metrics_op(metrics, 0, (enum wf_op)op, WEFT_OK, op + 1);
    }
    for (unsigned m = 0; m < WF_M_COUNT; m++)
        wf_metrics_add(metrics, 0, (enum wf_metric)m, m + 1);
    struct exposition *seen = parse(wf_metrics_render(metrics, NULL, NULL));
    bool value_seen[WF_M_COUNT + 1] = {false};
    for (size_t i = 0; i < seen->sample_count; i++)
        if (strstr(seen->samples[i].series, "_total{domain=\"alice\"") &&
            !strstr(seen->samples[i].series, "operations"))
            if (seen->samples[i].value > 0)
                value_seen[(size_t)seen->samples[i].value] = true;
    for (unsigned m = 0; m < WF_M_COUNT; m++)
        if (!value_seen[m + 1])
            fail_msg("counter %u is not exposed", m);
    drop(seen);
}

static void fill_tiers(void *context, struct wf_gauges *gauges)
{
    struct wf_hist *hist = context;
    gauges->tier_count = 2;
    gauges->domains[0].archives = 20;
    gauges->domains[0].archive_bytes = 21;
    gauges->domains[0].archives_not_whole = 22;
    gauges->archives_made = 23;
    gauges->archives_lost = 24;
    gauges->tiers[0] = (struct wf_tier_gauges){.name = "nvme0",
                                               .kind = "nvme",
                                               .state = "stalled",
                                               .durable = true,
                                               .read_latency_us = 12.5,
                                               .read_mbps = 3000,
                                               .write_mbps = 2000,
                                               .write_amplification = 1.25,
                                               .capacity_bytes = 1,
                                               .used_bytes = 2,
                                               .blocks = 3,
                                               .archived_bytes = 4,
                                               .queued = 5,
                                               .reads = 6,
                                               .read_bytes = 7,
                                               .writes = 8,
                                               .write_bytes = 9,
                                               .device_write_bytes = 10,
                                               .errors = 11,
                                               .corrupt = 12,
                                               .demoted = 13,
                                               .promoted = 14,
                                               .moved = 15,
                                               .evicted = 16,
                                               .lost = 17,
                                               .left_alone = 18,
                                               .foreign_bytes = 19,
                                               .as_is_blocks = 25,
                                               .first_range = {&hist[0], &hist[1]},
                                               .whole = {&hist[2], &hist[3]}};
    gauges->tiers[1] =
        (struct wf_tier_gauges){.name = "cxl0", .kind = "cxl", .state = "ok", .emulated = true};
    for (unsigned i = 0; i < gauges->tier_count; i++)
        for (unsigned q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++)
            gauges->tiers[i].quality[q].codec = q > WEFT_LOSSLESS ? "transform" : "lossless";
    gauges->tiers[0].quality[WEFT_LOSSLESS].encoded = 19;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].encoded = 20;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].plain_bytes = 21;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].stored_bytes = 22;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].encode_bytes = 23;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].decode_bytes = 24;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].encode_seconds = 2.5;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].decode_seconds = 3.5;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].written = 26;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].written_bytes = 27;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].read = 28;
    gauges->tiers[0].quality[WEFT_TRANSPARENT].read_bytes = 29;
}

struct told {
    const char *name;
    double value;
};

static void tiers_are_exposed(void **state)
{
    (void)state;
    static struct wf_hist hist[4];
    static const struct told by_quality[] = {{"encoded_blocks", 20},
                                             {"encoded_plain_bytes", 21},
                                             {"encoded_stored_bytes", 22},
                                             {"encode_bytes_total", 23},
                                             {"decode_bytes_total", 24},
                                             {"encode_seconds_total", 2.5},
                                             {"decode_seconds_total", 3.5},
                                             {"written_blocks_total", 26},
                                             {"written_payload_bytes_total", 27},
                                             {"loaded_blocks_total", 28},
                                             {"loaded_payload_bytes_total", 29}};
    static const struct told series[] = {{"capacity_bytes", 1},
                                         {"used_bytes", 2},
                                         {"blocks", 3},
                                         {"archived_bytes", 4},
                                         {"queued", 5},
                                         {"reads_total", 6},
                                         {"read_bytes_total", 7},
                                         {"writes_total", 8},
                                         {"write_bytes_total", 9},
                                         {"device_write_bytes_total", 10},
                                         {"errors_total", 11},
                                         {"corrupt_total", 12},
                                         {"demoted_total", 13},
                                         {"promoted_total", 14},
                                         {"moved_total", 15},
                                         {"evicted_total", 16},
                                         {"lost_total", 17},
                                         {"left_alone_blocks", 18},
                                         {"foreign_bytes", 19},
                                         {"as_is_blocks_total", 25},
                                         {"read_latency_us", 12.5},
                                         {"read_mbps", 3000},
                                         {"write_mbps", 2000},
                                         {"write_amplification", 1.25}};
    wf_hist_record(&hist[0], 1000);
    wf_hist_record(&hist[3], 2000000);
    wf_hist_record(&hist[3], 3000000);
    struct exposition *seen = parse(wf_metrics_render(metrics, fill_tiers, hist));
    for (size_t i = 0; i < sizeof series / sizeof series[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "weft_tier_%s{tier=\"nvme0\"}", series[i].name);
        has(seen, name, series[i].value);
        snprintf(name, sizeof name, "weft_tier_%s{tier=\"cxl0\"}", series[i].name);
        has(seen, name, 0);
    }
    for (size_t i = 0; i < sizeof by_quality / sizeof by_quality[0]; i++) {
        char name[128];
        const char *labels = "codec=\"transform\",quality=\"transparent\"";
        snprintf(name, sizeof name, "weft_tier_%s{tier=\"nvme0\",%s}", by_quality[i].name, labels);
        has(seen, name, by_quality[i].value);
        snprintf(name, sizeof name, "weft_tier_%s{tier=\"cxl0\",%s}", by_quality[i].name, labels);
        has(seen, name, 0);
    }
    has(seen, "weft_tier_encoded_blocks{tier=\"nvme0\",codec=\"lossless\",quality=\"lossless\"}",
        19);
    has(seen, "weft_tier_state{tier=\"nvme0\",state=\"stalled\"}", 1);
    has(seen, "weft_tier_state{tier=\"nvme0\",state=\"ok\"}", 0);
    has(seen, "weft_tier_state{tier=\"cxl0\",state=\"ok\"}", 1);
    has(seen, "weft_tier_info{tier=\"cxl0\",kind=\"cxl\",emulated=\"yes\",durable=\"no\"}", 1);
    has(seen, "weft_archive_count{domain=\"alice\"}", 20);
    has(seen, "weft_archive_bytes{domain=\"alice\"}", 21);
    has(seen, "weft_archive_not_whole{domain=\"alice\"}", 22);
    has(seen, "weft_archive_not_whole{domain=\"bob.x\"}", 0);
    has(seen, "weft_archive_in_progress", 23);
    has(seen, "weft_archive_lost_total", 24);
    has(seen, "weft_load_first_range_seconds_count{tier=\"nvme0\",why=\"waited\"}", 1);
    has(seen, "weft_load_first_range_seconds_count{tier=\"nvme0\",why=\"prefetched\"}", 0);
    has(seen, "weft_load_duration_seconds_count{tier=\"nvme0\",why=\"prefetched\"}", 2);
    has(seen, "weft_load_duration_seconds_sum{tier=\"nvme0\",why=\"prefetched\"}", 0.005);
    has(seen, "weft_load_duration_seconds_count{tier=\"nvme0\",why=\"waited\"}", 0);
    drop(seen);
    /* A node without tiers does not speak of them. */
    char *text = wf_metrics_render(metrics, NULL, NULL);
    assert_null(strstr(text, "weft_tier_"));
    free(text);
}

static void a_counter_never_goes_back(void **state)
{
    (void)state;
    wf_metrics_set(metrics, 0, WF_M_PINS, 10);
    wf_metrics_set(metrics, 0, WF_M_PINS, 4);
    assert_int_equal(wf_metrics_total(metrics, 0, WF_M_PINS), 10);
    wf_metrics_set(metrics, 0, WF_M_PINS, 11);
    assert_int_equal(wf_metrics_total(metrics, 0, WF_M_PINS), 11);
}

static void caps_are_kept(void **state)
{
    (void)state;
    struct wf_metrics *none = NULL;
    assert_int_equal(wf_metrics_create(NULL, WF_DOMAINS_MAX + 1, pools, 1, &none), WEFT_E_LIMIT);
    assert_int_equal(wf_metrics_create(domains, 1, pools, 0, &none), WEFT_E_LIMIT);
    assert_int_equal(wf_metrics_create(domains, 1, pools, WF_POOLS_MAX + 1, &none), WEFT_E_LIMIT);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_counted_is_exposed, create, destroy),
        cmocka_unit_test_setup_teardown(histograms_are_cumulative_and_in_seconds, create, destroy),
        cmocka_unit_test_setup_teardown(every_operation_and_counter_has_a_name, create, destroy),
        cmocka_unit_test_setup_teardown(tiers_are_exposed, create, destroy),
        cmocka_unit_test_setup_teardown(a_counter_never_goes_back, create, destroy),
        cmocka_unit_test(caps_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
