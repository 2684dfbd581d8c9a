/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers in the configuration: file, variables, flags and the short form of --tier, a sentence for
 * every mistake, and what they come to on this host.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "config_world.h"
#include "sys/cxl.h"

static void tiers_come_from_file_and_flags(void **state)
{
    (void)state;
    const char *path =
        write_file("tiers.yaml",
                   "tiers:\n"
                   "  - name: nvme.fast\n"
                   "    path: /mnt/fast\n"
                   "    size: 100GB\n"
                   "    queue_depth: 64\n"
                   "    admit: reused\n"
                   "    archive: false\n"
                   "    timeout: 250ms\n"
                   "    scrub: 0\n"
                   "  - {name: far, kind: s3, path: 's3://kv-cache/n1', region: eu-1,\n"
                   "     endpoint: 'http://127.0.0.1:9000'}\n"
                   "  - {name: cxl0, kind: cxl, path: /dev/dax0.0, shared: true, host: 3}\n",
                   0600);
    static const char *const flags[] = {"tier.nvme.fast.size=200GB", "tier.far.admit=never"};
    if (wf_config_load(path, flags, 2, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(config.tier_count, 3);
    const struct wf_tier_config *fast = &config.tiers[0], *far = &config.tiers[1],
                                *cxl = &config.tiers[2];
    assert_string_equal(fast->name, "nvme.fast");
    assert_int_equal(fast->kind, WF_KIND_NVME);
    assert_string_equal(fast->path, "/mnt/fast");
    assert_int_equal(fast->size_bytes, 200 * GIB);
    assert_int_equal(fast->queue_depth, 64);
    assert_int_equal(fast->admit, WF_ADMIT_REUSED);
    assert_false(fast->archive);
    assert_int_equal(fast->timeout_ms, 250);
    assert_int_equal(fast->scrub_bytes_per_s, 0);
    assert_int_equal(far->kind, WF_KIND_S3);
    assert_string_equal(far->endpoint, "http://127.0.0.1:9000");
    assert_string_equal(far->region, "eu-1");
    assert_int_equal(far->admit, WF_ADMIT_NEVER);
    assert_int_equal(far->size_bytes, 0);
    assert_int_equal(far->queue_depth, 32);
    assert_true(far->archive);
    assert_int_equal(far->timeout_ms, 5000);
    assert_int_equal(far->scrub_bytes_per_s, 32 * MIB);
    assert_int_equal(cxl->kind, WF_KIND_CXL);
    assert_true(cxl->shared);
    assert_int_equal(cxl->host, 3);
    char origin[WF_ORIGIN_TEXT_MAX], expected[160];
    snprintf(expected, sizeof expected, "%s:5", path);
    assert_string_equal(wf_list_where(TIERS, &config, fast, wf_list_field(TIERS, "queue_depth"),
                                      origin),
                        expected);
    assert_string_equal(wf_list_where(TIERS, &config, far, wf_list_field(TIERS, "admit"), origin),
                        "flag tier.far.admit");

    setenv("WEFT_TIERS", "far,nvme.fast", 1); /* those that stay, in this order */
    assert_int_equal(wf_config_load(path, NULL, 0, &config), WEFT_OK);
    assert_int_equal(config.tier_count, 2);
    assert_string_equal(config.tiers[0].region, "eu-1");
    assert_string_equal(config.tiers[1].path, "/mnt/fast");
    static const char *const none[] = {"tiers="};
    assert_int_equal(wf_config_load(path, none, 1, &config), WEFT_OK);
    assert_int_equal(config.tier_count, 0);
    unsetenv("WEFT_TIERS");
    static const char *const fresh[] = {"tiers=nvme0", "tier.nvme0.path=/x", "tier.nvme0.size=1GB"};
    assert_int_equal(wf_config_load("/dev/null", fresh, 3, &config), WEFT_OK);
    assert_int_equal(config.tier_count, 1);
    assert_string_equal(config.tiers[0].name, "nvme0");
    assert_int_equal(config.tiers[0].size_bytes, GIB);
    assert_int_equal(parse("tiers: []\n"), WEFT_OK);
    assert_int_equal(config.tier_count, 0);
}

struct overrides {
    char text[64][320];
    const char *list[64];
    size_t count;
};

static void collect(void *context, const char *key, const char *value)
{
    struct overrides *overrides = context;
    assert_true(overrides->count < 64);
    char *text = overrides->text[overrides->count];
    snprintf(text, sizeof overrides->text[0], "%s=%s", key, value);
    overrides->list[overrides->count++] = text;
}

static void short_forms_stand_for_overrides(void **state)
{
    (void)state;
    static const char *const given[] = {"nvme:/mnt/a:100GB", "s3://kv-cache/n1",
                                        "cxl:node:1",        "cxl:node:2:4GB",
                                        "nvme:/dev/nvme1n1", "s3://kv-cache/n2:1.5 TiB",
                                        "nvme:dir/b:c",      "nvme:/dev/x-01:00.0-nvme-1"};
    static const struct {
        const char *name, *path;
        enum wf_tier_kind kind;
        uint64_t bytes;
    } expected[] = {
        {"nvme0", "/mnt/a", WF_KIND_NVME, 100 * GIB},
        {"s3", "s3://kv-cache/n1", WF_KIND_S3, 0},
        {"cxl0", "node:1", WF_KIND_CXL, 0},
        {"cxl1", "node:2", WF_KIND_CXL, 4 * GIB},
        {"nvme1", "/dev/nvme1n1", WF_KIND_NVME, 0},
        {"s3-1", "s3://kv-cache/n2", WF_KIND_S3, 1536 * GIB},
        {"nvme2", "dir/b:c", WF_KIND_NVME, 0},
        {"nvme3", "/dev/x-01:00.0-nvme-1", WF_KIND_NVME, 0},
    };
    static struct overrides overrides;
    size_t count = sizeof given / sizeof given[0];
    if (wf_config_tier_flags(given, count, collect, &overrides) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_string_equal(overrides.list[0], "tiers=nvme0,s3,cxl0,cxl1,nvme1,s3-1,nvme2,nvme3");
    if (wf_config_load("/dev/null", overrides.list, overrides.count, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(config.tier_count, count);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(config.tiers[i].name, expected[i].name);
        assert_string_equal(config.tiers[i].path, expected[i].path);
        assert_int_equal(config.tiers[i].kind, expected[i].kind);
        assert_int_equal(config.tiers[i].size_bytes, expected[i].bytes);
    }
    overrides.count = 0;
    assert_int_equal(wf_config_tier_flags(given, 0, collect, &overrides), WEFT_OK);
    assert_int_equal(overrides.count, 0); /* no --tier says nothing about the file's */

    static const char *const wrong[] = {"",           "nvme",  "nvme:",       "/mnt/a:100GB",
                                        "sim:/x:1GB", "s3:/x", "nvme::100GB", "floppy:/dev/fd0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (wf_config_tier_flags(&wrong[i], 1, collect, &overrides) != WEFT_E_INVALID)
            fail_msg("accepted: --tier '%s'", wrong[i]);
        assert_non_null(strstr(wf_last_error(), "write nvme:PATH:SIZE"));
    }
    static const char *const units[] = {"nvme:/x:64XB", "s3://abc/x:1.5GBB", "cxl:node:1:4Q"};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        char sentence[64];
        snprintf(sentence, sizeof sentence, "'%s' is no size", strrchr(units[i], ':') + 1);
        if (wf_config_tier_flags(&units[i], 1, collect, &overrides) != WEFT_E_INVALID)
            fail_msg("accepted: --tier '%s'", units[i]);
        assert_non_null(strstr(wf_last_error(), sentence));
    }
    static const char *const many[WF_TIERS_MAX + 1] = {"s3://abc", "s3://abc", "s3://abc",
                                                       "s3://abc", "s3://abc", "s3://abc",
                                                       "s3://abc", "s3://abc", "s3://abc"};
    assert_int_equal(wf_config_tier_flags(many, WF_TIERS_MAX + 1, collect, &overrides),
                     WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "9 times"));
}

/* What else a tier has may follow, after a comma; a comma that no key follows is the path's. */
static void short_forms_have_options(void **state)
{
    (void)state;
    static struct overrides overrides;
    static const char *const given[] = {"cxl:/dev/dax0.0,host=3",
                                        "nvme:/mnt/a,b=c,d:2GB,admit=reused,queue_depth=7",
                                        "s3://abc/x,region=eu-1,scrub=0,dwpd=0.3",
                                        "cxl:file-emulation:/x:1GB,shared=true,host=1"};
    overrides.count = 0;
    if (wf_config_tier_flags(given, 4, collect, &overrides) != WEFT_OK ||
        wf_config_load("/dev/null", overrides.list, overrides.count, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    const struct wf_tier_config *t = config.tiers;
    assert_string_equal(t[0].path, "/dev/dax0.0");
    assert_true(t[0].shared && t[3].shared && !t[1].shared);
    assert_int_equal(t[0].host, 3);
    assert_int_equal(t[3].host, 1);
    assert_string_equal(t[1].path, "/mnt/a,b=c,d");
    assert_int_equal(t[1].size_bytes, 2 * GIB);
    assert_int_equal(t[1].admit, WF_ADMIT_REUSED);
    assert_int_equal(t[1].queue_depth, 7);
    assert_string_equal(t[2].path, "s3://abc/x");
    assert_string_equal(t[2].region, "eu-1");
    assert_int_equal(t[2].scrub_bytes_per_s, 0);
    assert_true(t[2].drive_writes == 0.3 && t[1].drive_writes == 0);
    static const char *const no_numbers[] = {"-1", "1e3", "0.3x", "10001", "", ".", "nan"};
    for (size_t i = 0; i < sizeof no_numbers / sizeof no_numbers[0]; i++) {
        char setting[64];
        const char *const list[] = {"tiers=a", "tier.a.path=/a", setting};
        snprintf(setting, sizeof setting, "tier.a.dwpd=%s", no_numbers[i]);
        assert_int_equal(wf_config_load("/dev/null", list, 3, &config), WEFT_E_INVALID);
        assert_non_null(strstr(wf_last_error(), "is not a number from 0 to 10000"));
    }
    static const struct {
        const char *flag, *why;
    } wrong[] = {
        {"cxl:/dev/dax0.0,host=3,hots=4", "'hots=4' sets nothing"},
        {"cxl:/dev/dax0.0,host=3,", "sets nothing"},
        {"s3://abc/x,endpiont=http://a", "'endpiont=http://a' sets nothing"},
        {"cxl:/dev/dax0.0,host=3,path=/x", "'path=/x' sets nothing"},
        {"nvme:/f:64MB,nope=1", "'nope=1' sets nothing; write KEY=VALUE, with one of these keys: "},
        {"nvme:/f:64MB,nope=1", "queue_depth, admit, codec, archive,"},
        {"nvme:/f:64MB,nope=1,scrub=0", "'nope=1' sets nothing"},
        {"nvme:/tmp,sise=2GB", "'sise=2GB' sets nothing"}, /* what is before the comma is there */
        {"cxl:node:1,hots=4", "'hots=4' sets nothing"},
        {"dram:4GB,nope=1", "'nope=1' sets nothing"},
        {"nvme:/x,scrub=1,scrub=2,scrub=3,scrub=4,scrub=5,scrub=6,scrub=7,scrub=8,scrub=9",
         "room for 8 settings"},
        {",host=1", "write nvme:PATH:SIZE"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        overrides.count = 0;
        assert_int_equal(wf_config_tier_flags(&wrong[i].flag, 1, collect, &overrides),
                         WEFT_E_INVALID);
        if (!strstr(wf_last_error(), wrong[i].why))
            fail_msg("%s: %s", wrong[i].flag, wf_last_error());
    }
    /* As many as there may be are no more than the flag's part of the overrides. */
    static const char *const most = "cxl:/x:1GB,host=1,host=2,host=3,host=4,host=5,host=6,host=7,"
                                    "host=8";
    overrides.count = 0;
    assert_int_equal(wf_config_tier_flags(&most, 1, collect, &overrides), WEFT_OK);
    assert_in_range(overrides.count, 1, 1 + WF_TIER_FLAG_SETTINGS);
    static const char *const no[] = {"nvme:/x:1GB,host=1"};
    overrides.count = 0;
    assert_int_equal(wf_config_tier_flags(no, 1, collect, &overrides), WEFT_OK);
    assert_int_equal(wf_config_load("/dev/null", overrides.list, overrides.count, &config),
                     WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "means nothing to kind nvme"));
}

static void memory_needs_a_size_and_no_path(void **state)
{
    (void)state;
    static struct overrides overrides;
    overrides.count = 0;
    static const char *const memory[] = {"dram:4GB", "dram:far:1.5GB"};
    assert_int_equal(wf_config_tier_flags(memory, 2, collect, &overrides), WEFT_OK);
    assert_string_equal(overrides.list[0], "tiers=dram1,dram2"); /* dram0 is the pool */
    if (wf_config_load("/dev/null", overrides.list, overrides.count, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(config.tiers[i].kind, WF_KIND_DRAM);
        assert_int_equal(config.tiers[i].size_bytes, i ? 1536 * MIB : 4 * GIB);
        assert_string_equal(config.tiers[i].path, i ? "far" : "");
    }
}

static void an_endpoint_is_a_url(void **state)
{
    (void)state;
    char yaml[128];
    static const char *const endpoints[] = {"127.0.0.1:9000", "ftp://a", "https://", "http:///x",
                                            "http://:9000"};
    for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) {
        snprintf(yaml, sizeof yaml,
                 "tiers: [{name: a, kind: s3, path: 's3://abc/x', endpoint: '%s'}]\n",
                 endpoints[i]);
        refused(yaml, "is no URL of a server; write https://host");
    }
    assert_int_equal(parse("tiers: [{name: a, kind: s3, path: 's3://abc/x', endpoint: "
                           "'http://[::1]:9000'}]\n"),
                     WEFT_OK);
}

static void tier_mistakes_get_a_sentence(void **state)
{
    (void)state;
    refused("tier: []\n", "did you mean 'tiers'?");
    refused("tiers: {a: b}\n", "tiers is a list");
    refused("tiers: []\ntiers: []\n", "c.yaml:2: tiers is set twice, first on line 1");
    refused("tiers:\n  - path: /x\n", "c.yaml:2: a tier has no name");
    refused("tiers:\n  - name: a\n", "c.yaml:2: tier 'a' has no path");
    refused("tiers:\n  - name: dram0\n    path: /x\n",
            "c.yaml:2: tier 'dram0': that is the pool's");
    refused("tiers:\n  - name: a\n    path: ''\n", "c.yaml:3: path: '' is empty");
    refused("tiers:\n  - name: a\n    pfad: x\n", "c.yaml:3: a tier has no key 'pfad'");
    refused("tiers:\n  - name: a\n    kind: tape\n", "one of nvme, cxl, s3, dram");
    refused("tiers:\n  - name: a\n    kind: sim\n", "one of nvme, cxl, s3, dram");
    refused("tiers:\n  - name: a\n    queue_depth: 0\n", "from 1 to 1024");
    refused("tiers:\n  - name: a\n    timeout: 1ms\n", "not a time from 10 ms to 3600 s");
    refused("tiers:\n  - {name: a, path: /x}\n  - {name: b, path: /x}\n",
            "c.yaml:3: tier 'b': path '/x' is that of tier 'a', too");
    refused("tiers:\n  - {name: a, path: 's3://bucket/x'}\n", "write kind: s3");
    static const char *const buckets[] = {"/x",          "s3://",         "s3:///x",
                                          "s3://ab/x",   "s3://Bucket/x", "s3://-abc/x",
                                          "s3://abc./x", "s3:/abc/x"};
    static const char *const cxl[] = {"/dev/dax",     "/dev/dax0.",      "/dev/dax0.0x",
                                      "node:",        "node:x",          "node:1x",
                                      "/dev/nvme0n1", "file-emulation:", "node:99999"};
    char yaml[128];
    for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
        snprintf(yaml, sizeof yaml, "tiers: [{name: a, kind: s3, path: '%s'}]\n", buckets[i]);
        refused(yaml, "is no bucket");
    }
    for (size_t i = 0; i < sizeof cxl / sizeof cxl[0]; i++) {
        snprintf(yaml, sizeof yaml, "tiers: [{name: a, kind: cxl, path: '%s'}]\n", cxl[i]);
        refused(yaml, "is no CXL memory");
    }
    assert_int_equal(parse("tiers: [{name: a, kind: cxl, path: 'file-emulation:/x', size: 1GB}]\n"),
                     WEFT_OK);
    refused("tiers:\n  - name: a\n    path: /x\n    region: eu\n",
            "c.yaml:4: tier 'a': region means nothing to kind nvme");
    refused("tiers: [{name: a, kind: s3, path: 's3://abc', shared: true}]\n",
            "shared means nothing to kind s3");
    refused("tiers: [{name: a, kind: cxl, path: /dev/dax0.0, shared: true}]\n",
            "hosts that share a device need a number each");
    refused("tiers: [{name: a, kind: cxl, path: /dev/dax0.0, host: 2}]\n",
            "means nothing on a device that is not shared");
    refused("tiers: [{name: a, kind: cxl, path: /dev/dax0.0, shared: true, host: 256}]\n",
            "from 0 to 255");
    refused("tiers:\n"
            "  - {name: a, kind: cxl, path: /dev/dax0.0, shared: true, host: 1}\n"
            "  - {name: a-hosts, path: /x}\n",
            "that name is kept for what other hosts have on 'a'");
    refused(
        "tiers: [{name: abcdefghijklmnopqrstuvwxyz, kind: cxl, path: /dev/dax0.0, shared: true, "
        "host: 1}]\n",
        "has 25 characters at most");
    char many[1024] = "tiers:\n";
    for (size_t i = 0; i < 5; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many),
                 "  - {name: t%zu, kind: cxl, path: /dev/dax%zu.0, shared: true, host: 1}\n", i, i);
    refused(many, "which count twice; 8 is the most");
    refused("tiers: [{name: a, path: /x, dram_node: true}]\n",
            "dram_node means nothing to kind nvme");
    refused("tiers:\n  - {name: a, kind: dram}\n", "c.yaml:2: tier 'a': memory has no size");
    assert_int_equal(parse("tiers: [{name: a, kind: dram, size: 1MB}, "
                           "{name: b, kind: dram, size: 1MB}]\n"),
                     WEFT_OK);
    refused("limits: {below: 1023}\n", "from 1024 to 268435456");
    refused("pool: {ahead: 51}\n", "from 0 to 50");
    refused("state_dir: ''\n", "state_dir: '' is empty");
}

/* What a tier at `path` in the test's own directory comes to; `more` follows the path. */
static struct heard remarks_on_tier(const char *path, const char *more)
{
    char yaml[512];
    snprintf(yaml, sizeof yaml, "state_dir: %s/state\ntiers: [{name: t, path: %s/%s%s}]\n",
             directory, directory, path, more);
    return remarks_on(yaml);
}

/* One of a tier that does not keep the node from starting. */
static void tier_said(struct heard heard, const char *sentence)
{
    said(heard, false, sentence);
    assert_int_equal(heard.tiers, 1);
}

/* As a tier is before its first start. */
static void write_zeros(const char *name)
{
    char path[512];
    write_file(name, "", 0600);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_int_equal(truncate(path, 10), 0);
}

static void check_remarks_on_tiers(void **state)
{
    (void)state;
    char yaml[512];
    write_file("there", "some bytes", 0600);
    tier_said(remarks_on_tier("there", ", size: 2MB"), "holds something else");
    write_zeros("there");
    assert_int_equal(remarks_on_tier("made-later", ", size: 2MB").count, 0);
    assert_int_equal(remarks_on_tier("there", ", size: 2MB").count, 0);
    assert_int_equal(remarks_on_tier("there", "").count, 0);       /* it may be one already */
    assert_int_equal(remarks_on_tier("", ", size: 2MB").count, 0); /* the directory itself */
    assert_int_equal(access(config.state_dir, F_OK), -1);          /* a check makes nothing */
    said(remarks_on_tier("made-later", ""), true,
         "made-later' is not there yet and will be a file, which does");
    said(remarks_on_tier("", ""), true, "is a directory, which does not say");
    said(remarks_on_tier("made-later", ", size: 1MB"), true,
         "1048576 bytes is too little; 1310720 is the least");
    tier_said(remarks_on_tier("no/such/place", ", size: 2MB"), "cannot be made by uid");
    assert_int_equal(remarks_on_tier("state/tier", ", size: 2MB").count, 0); /* it will be made */
    tier_said(remarks_on_tier("made-later", ", size: 1048576TB"), "has room for");
    said(remarks_on_tier("there", ", size: 2MB, admit: never, archive: false"), false,
         "nothing is ever written to it");
    tier_said(remarks_on("tiers: [{name: t, path: /dev/null, size: 2MB}]\n"),
              "'/dev/null' is no file, directory or block device");
    said(remarks_on("tiers: [{name: t, kind: dram, size: 1048576TB}]\n"), true,
         "tier 't': size 1048576 TiB and the pool's");
    assert_int_equal(remarks_on("tiers: [{name: t, kind: dram, size: 16KB}]\n").count, 0);
    tier_said(remarks_on("tiers: [{name: t, kind: cxl, path: 'node:9999'}]\n"),
              "no NUMA node 9999");
    tier_said(remarks_on("tiers: [{name: t, kind: cxl, path: /dev/dax99.99}]\n"),
              "may not use '/dev/dax99.99'");
    if (wf_cxl_node_has_processors(NULL, 0)) {
        said(remarks_on("tiers: [{name: t, kind: cxl, path: 'node:0'}]\n"), true,
             "NUMA node 0 has processors, so its memory is plain DRAM");
        said(remarks_on("tiers: [{name: t, kind: cxl, path: 'node:0', dram_node: true}]\n"), false,
             "plain DRAM");
    }
    snprintf(yaml, sizeof yaml,
             "state_dir: %s/state\n"
             "tiers: [{name: t, kind: cxl, path: 'file-emulation:%s/c', size: 16MB}]\n",
             directory, directory);
    said(remarks_on(yaml), false, "shown as emulated");
    snprintf(yaml, sizeof yaml, "%s/open-state", directory);
    assert_int_equal(mkdir(yaml, 0700), 0);
    assert_int_equal(chmod(yaml, 0777), 0);
    snprintf(yaml, sizeof yaml,
             "state_dir: %s/open-state\ntiers: [{name: t, path: %s/there, size: 2MB}]\n", directory,
             directory);
    said(remarks_on(yaml), true, "chmod go-w");
}

/* Two tiers, by paths in the test's own directory. */
static struct heard remarks_on_two(const char *first, const char *second)
{
    char yaml[1024];
    snprintf(yaml, sizeof yaml,
             "state_dir: %s/state\n"
             "tiers: [{name: t, path: %s/%s, size: 2MB}, {name: u, path: %s/%s, size: 2MB}]\n",
             directory, directory, first, directory, second);
    return remarks_on(yaml);
}

static void one_file_by_two_names_is_refused(void **state)
{
    (void)state;
    char link[64];
    write_zeros("there");
    snprintf(link, sizeof link, "%s/link", directory);
    assert_int_equal(symlink("there", link), 0);
    said(remarks_on_two("there", "link"), true, "is the same file as");
    said(remarks_on_two("not-there", "./not-there"), true, "is the same file as");
    said(remarks_on_two("not-there", "not//../not-there"), false, "cannot be made by uid");
    said(remarks_on_two(".", "nvme.weft"), true, "is the same file as");
    said(remarks_on_two("", "./"), true, "is the same file as");
    assert_int_equal(remarks_on_two("not-there", "nor-this").count, 0);
    assert_int_equal(remarks_on_two("there", "nvme.weft").count, 0);
    assert_int_equal(unlink(link), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(tiers_come_from_file_and_flags, clean_environment),
        cmocka_unit_test_setup(short_forms_stand_for_overrides, clean_environment),
        cmocka_unit_test_setup(short_forms_have_options, clean_environment),
        cmocka_unit_test_setup(memory_needs_a_size_and_no_path, clean_environment),
        cmocka_unit_test_setup(an_endpoint_is_a_url, clean_environment),
        cmocka_unit_test_setup(tier_mistakes_get_a_sentence, clean_environment),
        cmocka_unit_test_setup(check_remarks_on_tiers, clean_environment),
        cmocka_unit_test_setup(one_file_by_two_names_is_refused, clean_environment),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
