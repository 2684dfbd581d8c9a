/* SPDX-License-Identifier: Apache-2.0
 *
 * The configuration: four layers, one over the other, and a sentence for every mistake.
 */
#include "base/log.h"
#include "config_world.h"

/* -------------------------------------------------------------------------------------- layers */

static void defaults_need_no_file(void **state)
{
    (void)state;
    const char *path = write_file("empty.yaml", "", 0600);
    assert_int_equal(wf_config_load(path, NULL, 0, &config), WEFT_OK);
    assert_true(config.pool_bytes >= MIB);
    assert_true(config.pool_bytes <= config.pool_bytes_max);
    assert_int_equal(config.pool_bytes % MIB, 0);
    assert_int_equal(config.socket_mode, 0600);
    assert_string_equal(config.http_address, "127.0.0.1");
    assert_int_equal(config.http_port, 9464);
    assert_int_equal(config.pool_numa_node, -1);
    assert_int_equal(config.drain_ms, 5000);
    assert_int_equal(config.log_level, WF_LOG_INFO);
    assert_int_equal(config.domain_count, 1);
    assert_string_equal(config.domains[0].name, "default");
    assert_false(config.domains[0].allow_any_uid);
    assert_int_equal(config.tier_count, 0);
    assert_int_equal(config.below_max, 4194304);
    assert_int_equal(config.ahead_percent, 12);
    assert_int_equal(config.pool_policy, WF_POOL_POLICY_WEFT);
    assert_int_equal(config.objective, WF_OBJECTIVE_HITS);
    assert_int_equal(config.state_dir[0], '/');
}

static void each_layer_wins_over_the_one_below(void **state)
{
    (void)state;
    const char *path = write_file("layers.yaml", "workers: 3\nevents: 1000\nlimits: {pins: 100}\n",
                                  0600);
    setenv("WEFT_EVENTS", "2000", 1);
    setenv("WEFT_LIMITS_PINS", "200", 1);
    static const char *const flags[] = {"limits.pins=300"};
    assert_int_equal(wf_config_load(path, flags, 1, &config), WEFT_OK);
    assert_int_equal(config.workers, 3);
    assert_int_equal(config.events_max, 2000);
    assert_int_equal(config.pins_max, 300);
    assert_int_equal(config.sessions_max, 65536);

    char origin[WF_ORIGIN_TEXT_MAX], expected[160];
    snprintf(expected, sizeof expected, "%s:1", path);
    assert_string_equal(wf_config_where(&config, wf_config_field("workers"), origin), expected);
    assert_string_equal(wf_config_where(&config, wf_config_field("events"), origin),
                        "env WEFT_EVENTS");
    assert_string_equal(wf_config_where(&config, wf_config_field("limits.pins"), origin),
                        "flag limits.pins");
    assert_string_equal(wf_config_where(&config, wf_config_field("staging"), origin), "default");
}

static void the_file_can_be_named_by_a_variable(void **state)
{
    (void)state;
    setenv("WEFT_CONFIG", write_file("named.yaml", "workers: 5\n", 0600), 1);
    assert_int_equal(wf_config_load(NULL, NULL, 0, &config), WEFT_OK);
    assert_int_equal(config.workers, 5);
    setenv("WEFT_CONFIG", "/nowhere/weftd.yaml", 1);
    assert_int_equal(wf_config_load(NULL, NULL, 0, &config), WEFT_E_NOT_FOUND);
    assert_non_null(strstr(wf_last_error(), "/nowhere/weftd.yaml"));
}

static void every_field_is_set_by_every_layer(void **state)
{
    (void)state;
    static const char *const values[] = {
        [WF_VALUE_PATH] = "/p",   [WF_VALUE_TOKEN] = "secretsecret", [WF_VALUE_LISTEN] = "[::1]:17",
        [WF_VALUE_SIZE] = "32MB", [WF_VALUE_MODE] = "0640",          [WF_VALUE_DURATION] = "7s",
        [WF_VALUE_NODE] = "1",    [WF_VALUE_BOOL] = "true",          [WF_VALUE_NAME] = "default",
        [WF_VALUE_WORD] = "word", [WF_VALUE_MEMBER] = "node-1.a"};
    for (size_t i = 0; i < wf_config_field_count; i++) {
        const struct wf_field *field = &wf_config_fields[i];
        char number[24];
        snprintf(number, sizeof number, "%llu", (unsigned long long)field->min + 1);
        const char *value = field->type == WF_VALUE_CHOICE  ? field->choices[1]
                            : field->type == WF_VALUE_COUNT ? number
                                                            : values[field->type];
        const char *dot = strchr(field->key, '.');
        char yaml[256], variable[WF_CONFIG_KEY_MAX + 6], got[WF_CONFIG_VALUE_MAX];
        if (dot)
            snprintf(yaml, sizeof yaml, "%.*s:\n  %s: \"%s\"\n", (int)(dot - field->key),
                     field->key, dot + 1, value);
        else
            snprintf(yaml, sizeof yaml, "%s: \"%s\"\n", field->key, value);
        wf_config_defaults(&config);
        if (wf_config_parse_yaml(yaml, strlen(yaml), "c.yaml", &config) != WEFT_OK)
            fail_msg("%s", wf_last_error());
        assert_string_equal(wf_value_text(field, &config, got, sizeof got), value);
        assert_int_equal(config.origin[i].layer, WF_FROM_FILE);
        assert_int_equal(config.origin[i].line, dot ? 2 : 1);

        if (strstr(field->key, "token_file") || strstr(field->key, "password_file"))
            continue; /* a load reads the file, which is another test's matter */
        static const char *const bound[] = {"fabric.join", "fabric.listen", "fabric.advertise",
                                            "fabric.encrypt", "fabric.certificate"};
        bool alone = true;
        for (size_t b = 0; b < sizeof bound / sizeof bound[0]; b++)
            alone &= strcmp(field->key, bound[b]) != 0;
        if (!alone)
            continue; /* addresses, or nothing without others */
        setenv(wf_config_variable(field->key, variable), value, 1);
        bool shrinks = strcmp(field->key, "pool.size_max") == 0;
        const char *const flags[] = {shrinks ? "pool.size=1MB"
                                     : strcmp(field->key, "kv_events.replay") == 0
                                         ? "kv_events.listen=[::1]:16" /* it needs that */
                                         : "pool.size_max=64TB"};
        if (wf_config_load("/dev/null", flags, 1, &config) != WEFT_OK)
            fail_msg("%s", wf_last_error());
        unsetenv(variable);
        assert_int_equal(config.origin[i].layer, shrinks || strcmp(field->key, "pool.size_max") != 0
                                                     ? WF_FROM_ENVIRONMENT
                                                     : WF_FROM_FLAG);
        assert_string_equal(wf_value_text(field, &config, got, sizeof got), value);
    }
}

static void a_cluster_is_named_in_a_way_that_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *said[3], *sentence;
    } wrong[] = {
        {{"fabric.join=foo"}, "fabric.join: 'foo'"},
        {{"fabric.join=tcp:127.0.0.1"}, "has no port"},
        {{"fabric.join=tcp:127.0.0.1:7420,sim:x"}, "fabric.join"},
        {{"fabric.listen=tcp:127.0.0.1:99999"}, "fabric.listen"},
        {{"fabric.listen=tcp:0.0.0.0:7420"}, "fabric.secret_file"},
        {{"fabric.name=a_b"}, "'a_b' has a character that may not be there; use a-z, 0-9, dot, h"},
        {{"fabric.name=C_1"}, "'C_1' has a character that may not be there; use a-z, 0-9, dot, h"},
        {{"fabric.name=-a"}, "'-a' is no node's name; let a letter or a digit be first and last"},
        {{"fabric.name=a."}, "'a.' is no node's name; let a letter or a digit be first and last"},
        {{"fabric.links=a_b"}, "fabric.links"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.encrypt=true"}, "nothing to encrypt with"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.certificate=/c"}, "fabric.key"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.advertise=here"}, "fabric.advertise"},
        {{"fabric.join=http://h/c"}, "etcd://HOST:PORT/CLUSTER"},
        {{"fabric.join=tcp:127.0.0.1:99999"}, "beyond 65535"},
        {{"fabric.join=etcd://h"}, "fabric.join: the registry 'etcd://h' names no cluster"},
        {{"fabric.join=etcd://h/UPPER"}, "fabric.join: the cluster's name 'UPPER'"},
        {{"fabric.join=etcds://h:0/c"}, "fabric.join: 'h:0'"},
        {{"fabric.listen=tcp:127.0.0.1:7,unix:/x,tcp:127.0.0.1:7"}, "there twice"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.ca=/c"}, "without fabric.certificate"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.key=/c"}, "without fabric.certificate"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.lend=1000"}, "1MB or more"},
        {{"fabric.join=tcp:127.0.0.1:9", "fabric.directory=parts"}, "needs a registry"},
    };
    static const char *const right[][3] = {
        {"fabric.join=etcd://127.0.0.1:2379/prod"},
        {"fabric.join=tcp:127.0.0.1:7420,tcp:[::1]:7421", "fabric.name=a-1.b"},
        {"fabric.listen=unix:/tmp/x"},
        {"fabric.listen=tcp:127.0.0.1:0,tcp:127.0.0.1:0"},
        {"fabric.join=etcds://h/c", "fabric.directory=parts", "fabric.lend=1MB"},
        {"fabric.listen=tcp:0.0.0.0:7420", "fabric.secret_file=/s", "fabric.encrypt=true"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        size_t count = wrong[i].said[1] ? 2 : 1;
        assert_int_equal(wf_config_load("/dev/null", wrong[i].said, count, &config),
                         WEFT_E_INVALID);
        if (!strstr(wf_last_error(), wrong[i].sentence))
            fail_msg("%s: %s", wrong[i].said[0], wf_last_error());
    }
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        size_t count = right[i][2] ? 3 : right[i][1] ? 2 : 1;
        if (wf_config_load("/dev/null", right[i], count, &config) != WEFT_OK)
            fail_msg("%s: %s", right[i][0], wf_last_error());
    }
}

static void domains_come_from_file_and_flags(void **state)
{
    (void)state;
    const char *path =
        write_file("domains.yaml",
                   "pool: {size: 64MB}\n"
                   "domains:\n"
                   "  - name: alice.prod\n"
                   "    quota: 1MB\n"
                   "    share: 3\n"
                   "    floor: 512KB\n"
                   "    priority: high\n"
                   "    writes: copied\n"
                   "    allow: [1000, root]\n"
                   "  - {name: bob, allow: any, share: 1, token: bobbobbobbobbobbob}\n",
                   0600);
    static const char *const flags[] = {"domain.alice.prod.quota=2MB", "domain.bob.allow=7,8"};
    if (wf_config_load(path, flags, 2, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(config.domain_count, 2);
    const struct wf_domain_config *alice = &config.domains[0], *bob = &config.domains[1];
    assert_string_equal(alice->name, "alice.prod");
    assert_int_equal(alice->quota_bytes, 2 * MIB);
    assert_int_equal(alice->share, 3);
    assert_int_equal(alice->floor_bytes, MIB / 2);
    assert_int_equal(alice->priority, WF_PRIORITY_HIGH);
    assert_int_equal(bob->floor_bytes, 0);
    assert_int_equal(bob->priority, WF_PRIORITY_NORMAL);
    assert_int_equal(alice->writes, WF_WRITES_COPIED);
    assert_int_equal(alice->allow_uid_count, 2);
    assert_int_equal(alice->allow_uid[0], 1000);
    assert_int_equal(alice->allow_uid[1], 0);
    assert_false(bob->allow_any_uid);
    assert_int_equal(bob->allow_uid_count, 2);
    assert_string_equal(bob->token, "bobbobbobbobbobbob");

    static const char *const renamed[] = {"domains=bob,carol", "domain.carol.quota=3MB",
                                          "domain.carol.share=1"};
    assert_int_equal(wf_config_load(path, renamed, 3, &config), WEFT_OK);
    assert_int_equal(config.domain_count, 2);
    assert_string_equal(config.domains[0].name, "bob");
    assert_string_equal(config.domains[0].token, "bobbobbobbobbobbob");
    assert_string_equal(config.domains[1].name, "carol");
    assert_int_equal(config.domains[1].quota_bytes, 3 * MIB);
}

static void bounds_of_links_come_from_file_and_flags(void **state)
{
    (void)state;
    const char *path = write_file("links.yaml",
                                  "fabric:\n"
                                  "  link_max: 1GB\n"
                                  "  links:\n"
                                  "    - {name: host-9, max: 2MB}\n"
                                  "    - name: host-8\n"
                                  "domains:\n"
                                  "  - {name: default, fabric_share: 3, fabric_max: 5MB}\n",
                                  0600);
    const char *const flags[] = {"fabric.link.host-8.max=3MB"};
    if (wf_config_load(path, flags, 1, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(config.fabric_link_max, 1u << 30);
    assert_int_equal(config.link_count, 2);
    assert_string_equal(config.links[0].name, "host-9");
    assert_int_equal(config.links[0].max_bytes_s, 2u << 20);
    assert_int_equal(config.links[1].max_bytes_s, 3u << 20);
    assert_int_equal(config.domains[0].fabric_share, 3);
    assert_int_equal(config.domains[0].fabric_max, 5u << 20);
    static const char *const wrong[] = {"fabric.link.host-7.max=3MB", "fabric.link.host-8.max=much",
                                        "domain.default.fabric_share=1000001",
                                        "fabric.place=rack//host"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *const flag[] = {wrong[i], "fabric.join=unix:/tmp/x"};
        assert_int_equal(wf_config_load(path, flag, 2, &config), WEFT_E_INVALID);
    }
}

/* Engines are a list inside a section, by file, variable and flag. */
static void engines_come_from_file_and_flags(void **state)
{
    (void)state;
    const char *path = write_file("engines.yaml",
                                  "kv_events:\n"
                                  "  topic: kv@here\n"
                                  "  engines:\n"
                                  "    - name: vllm0\n"
                                  "      endpoint: tcp://127.0.0.1:5557\n"
                                  "      replay: \"tcp://[::1]:5558\"\n"
                                  "      model: meta-llama/Llama-3.1-8B\n"
                                  "    - {name: sglang, endpoint: \"ipc:///run/sglang/events\"}\n"
                                  "  memory: 1MB\n",
                                  0600);
    const char *const flags[] = {"kv_events.engine.sglang.topic=kv@"};
    if (wf_config_load(path, flags, 1, &config) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    assert_int_equal(config.engine_count, 2);
    assert_string_equal(config.engines[0].replay, "tcp://[::1]:5558");
    assert_string_equal(config.engines[0].model, "meta-llama/Llama-3.1-8B");
    assert_string_equal(config.engines[1].topic, "kv@");
    assert_int_equal(config.events_memory, 1 << 20);
    static const struct {
        const char *flags[2], *sentence;
    } wrong[] = {
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=tcp://10.0.0.7:5557"},
         "is not on this host"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=tcp://gpu7:5557"},
         "set kv_events.public"},
        {{"kv_events.engines=a", "kv_events.engine.a.replay=tcp://10.0.0.7:5558"},
         "engine 'a': replay:"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=127.0.0.1:5557"},
         "write tcp://HOST:PORT"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=tcp://127.0.0.1"}, "is no place"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=tcp://::1:5557"}, "is no place"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=tcp://127.0.0.1:70000"},
         "is no place"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpoint=inproc://x"}, "is no place"},
        {{"kv_events.engines=a,b"}, "is that of engine 'a', too"},
        {{"kv_events.engines=a", "kv_events.listen=127.0.0.1:5557"},
         "where this node itself tells"},
        {{"kv_events.engines=a", "kv_events.engine.a.endpiont=x"}, "kv_events.engine.NAME.FIELD"},
        {{"kv_events.engines=a", "kv_events.domain=nobody"}, "there is no domain 'nobody'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        size_t count = wrong[i].flags[1] ? 2 : 1;
        assert_true(wf_config_load("/dev/null", wrong[i].flags, count, &config) < 0);
        if (!strstr(wf_last_error(), wrong[i].sentence))
            fail_msg("'%s' instead of '%s'", wf_last_error(), wrong[i].sentence);
    }
    const char *const public[] = {"kv_events.engines=a", "kv_events.public=true",
                                  "kv_events.engine.a.endpoint=tcp://gpu7:5557"};
    assert_int_equal(wf_config_load("/dev/null", public, 3, &config), WEFT_OK);
}

static void flags_that_are_wrong_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *flag, *sentence;
    } wrong[] = {
        {"pool.size", "is not KEY=VALUE"},
        {"=4GB", "is not KEY=VALUE"},
        {"pool.sizes=4GB", "did you mean 'pool.size'?"},
        {"nothing.like.that=1", "--help-config"},
        {"pool.size=4XB", "flag pool.size: '4XB' is not a size"},
        {"domain.defualt.quota=1GB", "did you mean 'default'?"},
        {"domain.stranger.quota=1GB", "domains=default,stranger"},
        {"domain.default.name=x", "no such key of a domain"},
        {"domain.default.colour=x", "no such key of a domain"},
        {"domain.=x", "no such key of a domain"},
        {"domains=a,,b", "domains: '' is empty"},
        {"domains=a,a", "is there twice"},
        {"domains=", "is empty"},
        {"domains=UPPER", "a-z"},
        {"tiers=a,a", "tiers: 'a' is there twice"},
        {"tiers=nvme0", "flag tiers: tier 'nvme0' has no path"},
        {"tiers=a,b,c,d,e,f,g,h,i", "more than 8"},
        {"tier.nvme0.path=/x", "name all of them first, as tiers=nvme0"},
        {"tier.nvme0.paht=/x", "no such key of a tier; write tier.NAME.FIELD with kind, path"},
        {"tier.nvme0.name=x", "no such key of a tier"},
        {"tires=a", "did you mean 'tiers'?"},
        {"tiers=abcdefghijklmnopqrstuvwxyz0123456", "is 33 bytes long; at most 31"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        memset(&config, 0x5a, sizeof config);
        if (wf_config_load("/dev/null", &wrong[i].flag, 1, &config) == WEFT_OK)
            fail_msg("accepted: %s", wrong[i].flag);
        if (!strstr(wf_last_error(), wrong[i].sentence))
            fail_msg("of %s it says: %s", wrong[i].flag, wf_last_error());
        assert_int_equal(config.workers, 0x5a5a5a5a); /* outputs are set only on success */
    }
    char many[WF_DOMAINS_MAX * 4 + 32] = "domains=d0";
    for (int i = 1; i <= WF_DOMAINS_MAX; i++)
        append(many, sizeof many, ",d%d", i);
    const char *flag = many;
    assert_int_equal(wf_config_load("/dev/null", &flag, 1, &config), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "more than 64"));
}

/* ------------------------------------------------------------------------------------ mistakes */

static void mistakes_get_a_sentence(void **state)
{
    (void)state;
    refused("pool:\n  sise: 4GB\n",
            "c.yaml:2: there is no key 'pool.sise'; did you mean 'pool.size'?");
    refused("pol:\n  size: 4GB\n", "c.yaml:1: there is no key 'pol'; did you mean 'pool'?");
    refused("domain: []\n", "did you mean 'domains'?");
    refused("quite_something_else: 1\n",
            "c.yaml:1: there is no key 'quite_something_else'; `weftd --help-config`");
    refused("\n\npool:\n  size: 4XB\n", "c.yaml:4: pool.size: '4XB' is not a size");
    refused("pool: {size: 1KB}\n", "pool.size: '1KB' is out of range; write a size from 1 MiB");
    refused("workers: many\n", "c.yaml:1: workers: 'many' is not a whole number from 1 to 64");
    refused("workers: 0\n", "workers: '0'");
    refused("workers: -1\n", "workers: '-1'");
    refused("workers: 18446744073709551618\n", "not a whole number");
    refused("socket_mode: 0999\n", "octal");
    refused("socket: ''\n", "socket: '' is empty");
    refused("drain: soon\n", "drain: 'soon' is not a time");
    refused("drain: 5 weeks\n", "not a time");
    refused("drain: 2h\n", "at most 3600 s");
    refused("log: {level: loud}\n", "one of off, error, warn, info, debug");
    refused("pool: {huge: yes}\n",
            "pool.huge: 'yes' is none of its values; write one of auto, on, off");
    refused("pool: {policy: arc}\n",
            "pool.policy: 'arc' is none of its values; write one of weft, lru");
    refused("pool: {prefault: maybe}\n", "neither true nor false");
    refused("pool: {numa_node: first}\n", "not a NUMA node");
    refused("pool: {size: 8MB, size_max: 4MB}\n",
            "pool.size_max 4 MiB is less than pool.size 8 MiB");
    refused("workers: 1\nworkers: 2\n", "c.yaml:2: workers is set twice, first on line 1");
    refused("pool: {size: 4MB}\npool: {size: 4MB}\n", "c.yaml:2: pool.size is set twice");
    refused("workers:\n", "c.yaml:1: workers has no value");
    refused("workers: [1]\n", "workers wants one value, not a list");
    refused("workers: {a: 1}\n", "workers wants one value, not a section");
    refused("pool: 4GB\n", "pool is not a mapping");
    refused("- pool\n", "the configuration is not a mapping");
    refused("[[[[[[[[[[[[[[", "not a mapping");
    refused("? [a]\n: b\n", "a key must be one word");
    refused("a: &x 1\n", "there is no key 'a'");
    refused("workers: &x 1\n", "anchors");
    refused("workers: *x\n", "c.yaml:1: anchors (&) and aliases (*)");
    refused("workers: 1\n---\nworkers: 1\n", "a second document begins");
    refused("workers: \"1\n", "c.yaml:2: this is not YAML");
    refused("socket: b: c\n", "c.yaml:1: this is not YAML");
    refused("\tworkers: 1\n", "this is not YAML");
    refused("socket: \"a\\0b\"\n", "zero byte");
    refused("socket: \"a\\nb\"\n", "control characters");
    refused("http: {token: 'two words'}\n", "http.token: the token has a character");
}

static void a_token_is_never_repeated_in_a_sentence(void **state)
{
    (void)state;
    refused("http: {token: 'hush hush'}\n", "http.token");
    assert_null(strstr(wf_last_error(), "hush"));
}

static void domain_mistakes_get_a_sentence(void **state)
{
    (void)state;
    refused("domains: []\n", "domains is empty");
    refused("domains: {a: b}\n", "domains is a list");
    refused("domains: [a]\n", "an entry is not a mapping");
    refused("domains:\n  - quota: 1GB\n", "c.yaml:2: a domain has no name");
    refused("domains:\n  - name: A\n", "c.yaml:2: name: 'A'");
    refused("domains:\n  - name: ''\n", "name: '' is empty");
    refused("domains:\n  - name: a\n  - name: a\n",
            "c.yaml:3: domains: 'a' is there twice, first on line 2");
    refused("domains:\n  - name: a\n    qouta: 1GB\n",
            "c.yaml:3: a domain has no key 'qouta'; did you mean 'quota'?");
    refused("domains:\n  - name: a\n    zzzzzzzz: 1GB\n", "write name, quota");
    refused("domains:\n  - name: a\n    quota: 60TB\n",
            "c.yaml:3: domain 'a': quota 60 TiB is more than the pool");
    refused("domains:\n  - name: a\n    priority: urgent\n", "one of low, normal, high");
    refused("domains:\n  - name: a\n    share: 1000001\n", "a whole number from 0 to 1000000");
    refused("domains:\n  - name: a\n    share: 2\n  - name: b\n",
            "c.yaml:3: domain 'a' has share 2, and domain 'b' has none; give every domain one");
    refused("domains:\n  - name: a\n    quota: 1MB\n    floor: 2MB\n",
            "c.yaml:4: domain 'a': floor 2 MiB is more than its quota 1 MiB; lower it");
    refused("pool: {size: 4MB}\ndomains:\n  - {name: a, floor: 3MB}\n  - {name: b, floor: 2MB}\n",
            "c.yaml:4: domain 'b': floor 2 MiB is more than is left of pool.size 4 MiB beside the "
            "floors before it, 1 MiB; lower floors, or raise pool.size");
    refused("domains:\n  - name: a\n    allow: [no-such-user-here]\n",
            "c.yaml:3: allow: this host has no user");
    refused("domains:\n  - name: a\n    allow: [4294967295]\n", "is not a uid");
    refused("domains:\n  - name: a\n    allow: ['a,b']\n", "neither a uid nor a user name");
    refused("domains:\n  - name: a\n    allow: [[a]]\n", "each entry of allow wants one value");
    refused("domains:\n  - name: a\n    allow: 1,,2\n", "empty entry");
    refused("domains:\n  - name: a\n    writes: sideways\n", "one of direct, copied");
    refused("domains:\n  - name: a\n    token: x\n    token_file: y\n",
            "both token and token_file");
    refused("domains:\n  - name: a\n    token_file: /nowhere/t\n",
            "c.yaml:3: token_file: cannot open '/nowhere/t'");
    refused("domains:\n  - name: a\n    name: b\n", "name is set twice, first on line 2");
    char many[8192] = "domains:\n";
    for (int i = 0; i <= WF_DOMAINS_MAX; i++)
        append(many, sizeof many, "  - name: d%d\n", i);
    refused(many, "c.yaml:66: domains: there are more than 64");
    many[0] = '\0';
    append(many, sizeof many, "domains:\n  - name: a\n    allow: [0");
    for (int i = 1; i <= WF_ALLOW_MAX; i++)
        append(many, sizeof many, ",%d", i);
    append(many, sizeof many, "]\n");
    refused(many, "33 entries; at most 32");
}

static void a_file_that_is_none_is_refused(void **state)
{
    (void)state;
    assert_int_equal(wf_config_load(directory, NULL, 0, &config), WEFT_E_SYSTEM);
    assert_int_equal(wf_config_load("/dev/zero", NULL, 0, &config), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "larger than 1048576 bytes"));
}

/* ----------------------------------------------------------------------------------- listeners */

static void a_listener_that_others_reach_asks_for_a_token(void **state)
{
    (void)state;
    refused("http: {listen: '0.0.0.0:9464'}\n",
            "c.yaml:1: http.listen: '0.0.0.0' can be reached from other hosts");
    refused("http: {listen: '[::]:9464'}\n", "can be reached");
    refused("http: {listen: '10.0.0.1:1'}\n", "can be reached");
    assert_int_equal(parse("http: {listen: '0.0.0.0:9464', token: long-enough-to-matter}\n"),
                     WEFT_OK);
    assert_int_equal(parse("http: {listen: '127.8.9.1:1'}\n"), WEFT_OK);
    assert_int_equal(parse("http: {listen: '[::1]:1'}\n"), WEFT_OK);
    assert_string_equal(config.http_address, "::1");
    assert_int_equal(parse("http: {listen: 'localhost:0'}\n"), WEFT_OK);
    assert_string_equal(config.http_address, "127.0.0.1");
    assert_int_equal(config.http_port, 0);
    assert_int_equal(parse("http: {listen: off}\n"), WEFT_OK);
    assert_string_equal(config.http_address, "");
    refused("http: {listen: '9464'}\n", "write it like 127.0.0.1:9464");
    refused("http: {listen: ':9464'}\n", "write it like 127.0.0.1:9464");
    refused("http: {listen: '127.0.0.1:65536'}\n", "has no port");
    refused("http: {listen: '127.0.0.1:80x'}\n", "has no port");
    refused("http: {listen: 'example.org:80'}\n", "numeric address");
    refused("http: {listen: '::1:80'}\n", "numeric address");
}

static void tokens_come_from_files(void **state)
{
    (void)state;
    char yaml[256];
    snprintf(yaml, sizeof yaml, "http:\n  listen: 0.0.0.0:1\n  token_file: %s\n",
             write_file("token", "open-sesame-open-sesame \nmore\n", 0600));
    assert_int_equal(parse(yaml), WEFT_OK);
    assert_string_equal(config.http_token, "open-sesame-open-sesame");
    write_file("token", "\n", 0600);
    refused(yaml, "no token in its first line");
    char longer[WF_TOKEN_MAX + 2];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    write_file("token", longer, 0600);
    refused(yaml, "c.yaml:3: token_file: the token is 129 bytes long");

    /* The later layer wins, whichever of the two it sets. */
    const char *path = write_file("both.yaml", "http: {token_file: /nowhere}\n", 0600);
    static const char *const flag[] = {"http.token=from-the-flag-it-came"};
    assert_int_equal(wf_config_load(path, flag, 1, &config), WEFT_OK);
    assert_string_equal(config.http_token, "from-the-flag-it-came");
    assert_string_equal(config.http_token_file, "");
}

/* --------------------------------------------------------------------------------------- check */

static void check_remarks_on_this_host(void **state)
{
    (void)state;
    struct heard quiet = remarks_on("pool: {size: 1MB}\n");
    if (quiet.count)
        fail_msg("a plain configuration is remarked upon: %s", quiet.all);
    said(remarks_on("pool: {size: 60TB, prefault: true}\n"), true,
         "pool.size 60 TiB is more than this");
    said(remarks_on("pool: {size: 60TB}\n"), false, "pool.size 60 TiB is more than this");
    said(remarks_on("pool: {size: 60TB, huge: on}\n"), true, "pool.huge is on");
    said(remarks_on("pool: {numa_node: 1000}\n"), true, "no such node");
    said(remarks_on("socket: /nowhere/deep/weftd.sock\n"), true, "create '/nowhere/deep'");
    said(remarks_on("socket_mode: 0666\ndomains: [{name: a, allow: any}]\n"), false,
         "every user of this host may attach");
    said(remarks_on("domains: [{name: a, allow: [1]}]\n"), false, "socket_mode 0600 keeps them");
    said(remarks_on("domains: [{name: a, token: short}]\n"), false, "can be guessed");
    said(remarks_on("domains: [{name: a, token: abcdefghijklmnopqrs}]\n"), false,
         "every user of this host can read");
    said(remarks_on("domains: [{name: a, secret_file: /nowhere/s}]\n"), true,
         "cannot open '/nowhere/s'");
    said(remarks_on("pool: {size: 1MB, size_max: 4MB}\ndomains: [{name: a, quota: 2MB}]\n"), false,
         "once memory is lent");
    said(remarks_on(
             "pool: {size: 4MB, size_max: 4MB}\ndomains: [{name: a, quota: 3MB}, {name: b, quota: "
             "3MB}]\n"),
         false, "add up to more");
    said(remarks_on("domains: [{name: a}, {name: b}]\n"), false, "only /healthz answers");
    said(remarks_on("pool: {size: 1MB}\ntiers: [{name: a, kind: dram, size: 1GB, dwpd: 0.1}]\n"),
         false, "dwpd: 0.1 of 1 GiB lets 102 MiB be written in a day, and no block");
    struct heard enough = remarks_on(
        "pool: {size: 1MB}\ntiers: [{name: a, kind: dram, size: 1GB, dwpd: 1}]\n");
    if (strstr(enough.all, "dwpd"))
        fail_msg("a budget that is large enough is remarked upon: %s", enough.all);
    said(remarks_on("http: {listen: '0.0.0.0:1', token: abcdefghijklmnopqrs}\n"), false,
         "clear text");
    char yaml[256];
    snprintf(yaml, sizeof yaml, "domains: [{name: a, secret_file: %s}]\n",
             write_file("secret", "short", 0644));
    said(remarks_on(yaml), true, "has 5 bytes and 32 are needed");
    snprintf(yaml, sizeof yaml, "fabric: {join: 'tcp:127.0.0.1:1', secret_file: %s}\n",
             write_file("secret", "short", 0600));
    said(remarks_on(yaml), true, "fabric.secret_file");
    said(remarks_on("fabric: {join: 'tcp:127.0.0.1:1', secret_file: /nowhere/s}\n"), true,
         "fabric.secret_file: cannot open '/nowhere/s': No such file or directory; make one");
    said(remarks_on("fabric: {join: 'tcp:127.0.0.1:1', certificate: /nowhere/c, key: /nowhere/k, "
                    "ca: /nowhere/a}\n"),
         true, "fabric.certificate: cannot open '/nowhere/c'");
    said(remarks_on("fabric: {join: 'etcds://h/c', registry_ca: /nowhere/a}\n"), true,
         "fabric.registry_ca: cannot open '/nowhere/a'");
    said(remarks_on("fabric: {join: 'tcp:127.0.0.1:1', registry_user: me}\n"), false,
         "a list of nodes has no etcd");
    said(remarks_on("fabric: {lend: 1GB}\n"), false, "fabric.lend: this node is alone");
    said(remarks_on("pool: {size: 1MB}\nfabric: {join: 'tcp:127.0.0.1:9', lend: 900TB}\n"), false,
         "fabric.lend 900 TiB and the pool's 1 MiB are more than this");
    said(remarks_on("fabric: {join: 'etcd://h/c'}\n"), false, "where no other host reaches it");
    said(remarks_on("fabric: {join: 'tcp:192.0.2.1:7420'}\n"), false, "no other host reaches it");
    struct heard near = remarks_on("fabric: {join: 'tcp:127.0.0.1:7420'}\n");
    if (strstr(near.all, "reaches it"))
        fail_msg("all are on this host: %s", near.all);
    setenv("WEFT_POOL_SZIE", "1GB", 1);
    said(remarks_on("pool: {size: 1MB}\n"), false, "did you mean WEFT_POOL_SIZE?");
}

static void check_says_who_has_to_be_able_to_read_a_file(void **state)
{
    (void)state;
    uid_t user = geteuid();
    char yaml[512];
    struct heard heard = {0};
    write_file("closed", "0123456789abcdef0123456789abcdef", 0);
    snprintf(yaml, sizeof yaml,
             "fabric: {join: 'tcp:127.0.0.1:1', secret_file: %s/closed}\n"
             "domains: [{name: a, secret_file: %s/closed}]\n",
             directory, directory);
    assert_int_equal(wf_config_load(write_file("c.yaml", yaml, 0644), NULL, 0, &config), WEFT_OK);
    if (user == 0) /* whom no mode keeps out */
        assert_int_equal(seteuid(65534), 0);
    enum weft_status status = wf_config_check(&config, hear, &heard);
    assert_int_equal(seteuid(user), 0);
    assert_int_equal(status, WEFT_E_INVALID);
    said(heard, true, "fabric.secret_file: cannot open");
    said(heard, true, "domain 'a': secret_file: cannot open");
    said(heard, true, "Permission denied; make it and its folder readable for weftd's user, uid");
    if (strstr(heard.all, "/dev/urandom"))
        fail_msg("a file that is there is to be made: %s", heard.all);
}

static struct heard remarks_on_a_member(const char *more)
{
    char yaml[512];
    snprintf(yaml, sizeof yaml,
             "state_dir: %s\nfabric: {join: 'tcp:127.0.0.1:1', secret_file: %s/secret}\n"
             "tiers: [{name: a, kind: dram, size: 1MB}]\ndomains: [{name: d%s}]\n",
             directory, directory, more);
    return remarks_on(yaml);
}

static void check_warns_of_a_secret_that_counts_no_more(void **state)
{
    (void)state;
    char own[160];
    write_file("secret", "0123456789abcdef0123456789abcdef", 0600);
    struct heard heard = remarks_on_a_member("");
    if (strstr(heard.all, "another secret"))
        fail_msg("there was none before: %s", heard.all);
    write_file("d.secret", "fedcba9876543210fedcba9876543210", 0600);
    said(remarks_on_a_member(""), false, "d.secret', and what was stored on tiers by that is not");
    snprintf(own, sizeof own, ", secret_file: %s/d.secret", directory);
    heard = remarks_on_a_member(own);
    if (strstr(heard.all, "another secret"))
        fail_msg("the domain has it: %s", heard.all);
}

static void check_remarks_on_a_shared_socket_directory(void **state)
{
    (void)state;
    char open_directory[64], yaml[128];
    snprintf(open_directory, sizeof open_directory, "%s/open", directory);
    assert_int_equal(mkdir(open_directory, 0700), 0);
    snprintf(yaml, sizeof yaml, "socket: %s/weftd.sock\n", open_directory);
    assert_int_equal(remarks_on(yaml).count, 0);
    assert_int_equal(chmod(open_directory, 0777), 0);
    said(remarks_on(yaml), true, "chmod go-w");
    assert_int_equal(chmod(open_directory, 01777), 0);
    assert_int_equal(remarks_on(yaml).count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(defaults_need_no_file, clean_environment),
        cmocka_unit_test_setup(each_layer_wins_over_the_one_below, clean_environment),
        cmocka_unit_test_setup(the_file_can_be_named_by_a_variable, clean_environment),
        cmocka_unit_test_setup(every_field_is_set_by_every_layer, clean_environment),
        cmocka_unit_test_setup(a_cluster_is_named_in_a_way_that_is_known, clean_environment),
        cmocka_unit_test_setup(domains_come_from_file_and_flags, clean_environment),
        cmocka_unit_test_setup(flags_that_are_wrong_are_refused, clean_environment),
        cmocka_unit_test_setup(mistakes_get_a_sentence, clean_environment),
        cmocka_unit_test_setup(a_token_is_never_repeated_in_a_sentence, clean_environment),
        cmocka_unit_test_setup(domain_mistakes_get_a_sentence, clean_environment),
        cmocka_unit_test_setup(a_file_that_is_none_is_refused, clean_environment),
        cmocka_unit_test_setup(a_listener_that_others_reach_asks_for_a_token, clean_environment),
        cmocka_unit_test_setup(tokens_come_from_files, clean_environment),
        cmocka_unit_test_setup(engines_come_from_file_and_flags, clean_environment),
        cmocka_unit_test_setup(bounds_of_links_come_from_file_and_flags, clean_environment),
        cmocka_unit_test_setup(check_remarks_on_this_host, clean_environment),
        cmocka_unit_test_setup(check_says_who_has_to_be_able_to_read_a_file, clean_environment),
        cmocka_unit_test_setup(check_warns_of_a_secret_that_counts_no_more, clean_environment),
        cmocka_unit_test_setup(check_remarks_on_a_shared_socket_directory, clean_environment),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
