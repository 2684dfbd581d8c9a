/* SPDX-License-Identifier: Apache-2.0
 *
 * The RESP gateway of a real weftd, asked over TCP by a client that knows every byte of the answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "resp_client.h"

static void commands_answer_to_the_byte(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    static const char *const pairs[][2] = {
        {"PING\r\n", "+PONG\r\n"},
        {"*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n", "$2\r\nhi\r\n"},
        {"ECHO hi\r\n", "$2\r\nhi\r\n"},
        {"GET a\r\n", "$-1\r\n"},
        {"EXISTS a\r\n", ":0\r\n"},
        {"SET a 1\r\n", "+OK\r\n"},
        {"GET a\r\n", "$1\r\n1\r\n"},
        {"EXISTS a a b\r\n", ":2\r\n"},
        {"STRLEN a\r\n", ":1\r\n"},
        {"TYPE a\r\n", "+string\r\n"},
        {"TYPE b\r\n", "+none\r\n"},
        {"SET a 2 NX\r\n", "$-1\r\n"},
        {"SET a 2 XX\r\n", "+OK\r\n"},
        {"SET b 2 XX\r\n", "$-1\r\n"},
        {"SET a 3 GET\r\n", "$1\r\n2\r\n"},
        {"SETNX a 4\r\n", ":0\r\n"},
        {"SETNX c 4\r\n", ":1\r\n"},
        {"GETSET a 5\r\n", "$1\r\n3\r\n"},
        {"MSET d 1 e 2\r\n", "+OK\r\n"},
        {"MGET d x e\r\n", "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n"},
        {"GETDEL d\r\n", "$1\r\n1\r\n"},
        {"GETDEL d\r\n", "$-1\r\n"},
        {"TTL a\r\n", ":-1\r\n"},
        {"TTL d\r\n", ":-2\r\n"},
        {"SET a 1 EX 100\r\n", "+OK\r\n"},
        {"TTL a\r\n", ":100\r\n"},
        {"SET a 1 KEEPTTL\r\n", "+OK\r\n"},
        {"TTL a\r\n", ":100\r\n"},
        {"PERSIST a\r\n", ":1\r\n"},
        {"PERSIST a\r\n", ":0\r\n"},
        {"EXPIRE a 50\r\n", ":1\r\n"},
        {"EXPIRE a 60 NX\r\n", ":0\r\n"},
        {"EXPIRE a 40 GT\r\n", ":0\r\n"},
        {"EXPIRE a 40 LT\r\n", ":1\r\n"},
        {"EXPIRE nobody 40\r\n", ":0\r\n"},
        {"EXPIRE a -1\r\n", ":1\r\n"},
        {"GET a\r\n", "$-1\r\n"},
        {"SELECT 1\r\n", "+OK\r\n"},
        {"GET c\r\n", "$-1\r\n"},
        {"SET c other\r\n", "+OK\r\n"},
        {"DBSIZE\r\n", ":1\r\n"},
        {"FLUSHDB\r\n", "+OK\r\n"},
        {"DBSIZE\r\n", ":0\r\n"},
        {"SELECT 0\r\n", "+OK\r\n"},
        {"GET c\r\n", "$1\r\n4\r\n"},
        {"SELECT 16\r\n", "-ERR DB index is out of range\r\n"},
        {"DEL c c nobody\r\n", ":1\r\n"},
        {"UNLINK e\r\n", ":1\r\n"},
        {"DBSIZE\r\n", ":0\r\n"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        ask(fd, pairs[i][0], pairs[i][1]);
    static const char *const wrong[][2] = {
        {"NOSUCH a b\r\n", "-ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' \r\n"},
        {"multi\r\n", "-ERR unknown command 'MULTI': there are no transactions here; send the "
                      "commands without it, as redis-py's pipeline(transaction=False) does\r\n"},
        {"GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n"},
        {"COMMAND INFO get nosuch\r\n",
         "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
         "*0\r\n*0\r\n*0\r\n*0\r\n*-1\r\n"},
        {"SET a 1 EX 0\r\n", "-ERR invalid expire time in 'set' command\r\n"},
        {"SET a 1 EX x\r\n", "-ERR value is not an integer or out of range\r\n"},
        {"SET a 1 NX XX\r\n", "-ERR syntax error\r\n"},
        {"SET a 1 EX 10 KEEPTTL\r\n", "-ERR syntax error\r\n"},
        {"SCAN x\r\n", "-ERR invalid cursor\r\n"},
        {"AUTH secret\r\n",
         "-ERR AUTH <password> called without any password configured for the default user. Are "
         "you sure your configuration is correct?\r\n"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        ask(fd, wrong[i][0], wrong[i][1]);
    say(fd, "QUIT\r\n");
    expect_end(fd, "+OK\r\n");
    node_end();
}

static void a_third_protocol_has_nulls_and_maps(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    ask(fd, "HELLO 4\r\n", "-NOPROTO unsupported protocol version\r\n");
    ask(fd, "HELLO 3 SETNAME me\r\n",
        "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n"
        "$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        "$7\r\nmodules\r\n*0\r\n");
    ask(fd, "GET nobody\r\n", "_\r\n");
    ask(fd, "CLIENT GETNAME\r\n", "$2\r\nme\r\n");
    ask(fd, "CONFIG GET databases\r\n", "%1\r\n$9\r\ndatabases\r\n$2\r\n16\r\n");
    ask(fd, "CLIENT SETINFO LIB-NAME redis-py\r\n", "+OK\r\n");
    ask(fd, "RESET\r\n", "+RESET\r\n");
    ask(fd, "GET nobody\r\n", "$-1\r\n");
    close(fd);
    node_end();
}

/* Sizes around every border that there is: small or not, one piece or several. */
static void values_of_all_sizes_come_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {
        1,     63,    4095,    4096,          4097,    5000,          65535,
        65536, 65537, 1 << 20, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (6 << 20) + 5};
    node_run(NULL);
    int fd = dial();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *value = value_make(sizes[i], (unsigned)i);
        char key[16];
        snprintf(key, sizeof key, "k%zu", sizes[i]);
        set_say(fd, key, value, sizes[i]);
        expect(fd, "+OK\r\n");
        /* At once, and after it was committed. */
        char get[64];
        snprintf(get, sizeof get, "GET %s\r\n", key);
        say(fd, get);
        get_expect(fd, value, sizes[i]);
        say(fd, get);
        get_expect(fd, value, sizes[i]);
        free(value);
    }
    close(fd);
    nothing_reserved();
    node_end();
}

/* An old value is never read for a new one, nor a long one for a short one. */
static void what_was_set_last_is_read(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    for (unsigned i = 0; i < 200; i++) {
        size_t length = i % 3 == 0 ? 10 : i % 3 == 1 ? 70000 : 3000000;
        uint8_t *value = value_make(length, i);
        set_say(fd, "key", value, length);
        if (i % 2)
            say(fd, "GET key\r\n"); /* without waiting */
        expect(fd, "+OK\r\n");
        if (i % 2)
            get_expect(fd, value, length);
        free(value);
    }
    ask(fd, "DEL key\r\n", ":1\r\n");
    ask(fd, "GET key\r\n", "$-1\r\n");
    close(fd);
    nothing_reserved();
    node_end();
}

static void many_commands_at_once_are_answered_in_order(void **state)
{
    (void)state;
    enum { COMMANDS = 5000 };
    node_run(NULL);
    int fd = dial();
    char *all = malloc(COMMANDS * 64), *answers = malloc(COMMANDS * 32);
    assert_non_null(all);
    assert_non_null(answers);
    size_t used = 0, expected = 0;
    for (int i = 0; i < COMMANDS; i++) {
        used += (size_t)snprintf(all + used, 64, "SET k%d v%d\r\nGET k%d\r\n", i, i, i);
        char value[16];
        int length = snprintf(value, sizeof value, "v%d", i);
        expected += (size_t)snprintf(answers + expected, 32, "+OK\r\n$%d\r\n%s\r\n", length, value);
    }
    say_bytes(fd, all, used);
    char *got = malloc(expected);
    assert_non_null(got);
    assert_int_equal(hear(fd, got, expected), expected);
    assert_memory_equal(got, answers, expected);
    free(got);
    free(all);
    free(answers);
    close(fd);
    node_end();
}

static void a_command_may_be_torn_anywhere(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    uint8_t *value = value_make(5000, 3);
    char command[6000];
    int head = snprintf(command, sizeof command, "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000\r\n");
    memcpy(command + head, value, 5000);
    size_t length = (size_t)head + 5000;
    memcpy(command + length, "\r\n$2\r\nEX\r\n$3\r\n100\r\n", 19);
    length += 19;
    for (size_t at = 1; at < length; at += at < 60 || at > length - 40 ? 1 : 611) {
        say_bytes(fd, command, at);
        weftd_sleep_ms(1);
        say_bytes(fd, command + at, length - at);
        expect(fd, "+OK\r\n");
    }
    say(fd, "GET k\r\n");
    get_expect(fd, value, 5000);
    ask(fd, "TTL k\r\n", ":100\r\n");
    free(value);
    close(fd);
    node_end();
}

static void nonsense_is_told_and_ends(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    say(fd, "*1\r\n$-5\r\n");
    expect_end(fd, "-ERR Protocol error: invalid bulk length\r\n");
    fd = dial();
    say(fd, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n");
    expect_end(fd, "-ERR Protocol error: invalid bulk length\r\n");
    /* A long value that does not end where it said. */
    fd = dial();
    uint8_t *value = value_make(10000, 0);
    say(fd, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10000\r\n");
    say_bytes(fd, value, 10000);
    say(fd, "xx");
    expect_end(fd, "-ERR Protocol error: expected CRLF behind a bulk string\r\n");
    free(value);
    fd = dial();
    ask(fd, "GET k\r\n", "$-1\r\n");
    close(fd);
    nothing_reserved();
    node_end();
}

static void half_a_set_leaves_nothing_behind(void **state)
{
    (void)state;
    node_run(NULL);
    uint8_t *value = value_make(3000000, 1);
    for (int i = 0; i < 20; i++) {
        int fd = dial();
        say(fd, "*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$6000000\r\n");
        say_bytes(fd, value, 3000000);
        close(fd);
    }
    int fd = dial();
    ask(fd, "GET half\r\n", "$-1\r\n");
    free(value);
    close(fd);
    nothing_reserved();
    node_end();
}

static void who_does_not_read_is_closed_and_others_go_on(void **state)
{
    (void)state;
    static const char *const settings[] = {"resp.stall=500ms", NULL};
    node_run(settings);
    int fd = dial(), slow = dial(), half = dial();
    uint8_t *value = value_make(8 << 20, 1);
    set_say(fd, "k", value, 8 << 20);
    expect(fd, "+OK\r\n");
    for (int i = 0; i < 20; i++)
        say(slow, "GET k\r\n"); /* and reads nothing */
    say(half, "*3\r\n$3\r\nSET\r\n");
    for (int i = 0; i < 10; i++) {
        ask(fd, "PING\r\n", "+PONG\r\n");
        weftd_sleep_ms(100);
    }
    char byte;
    assert_int_equal(hear(half, &byte, 1), 0);
    bool closed = false;
    for (int i = 0; i < 100 && !closed; i++) {
        char *text = malloc(8192);
        assert_non_null(text);
        say(fd, "INFO stats\r\n");
        char head[8] = "";
        hear(fd, head, 1);
        size_t at = 0;
        do
            hear(fd, head + at, 1);
        while (head[at++] != '\n');
        size_t length = strtoul(head, NULL, 10);
        assert_true(length < 8000);
        assert_int_equal(hear(fd, text, length + 2), length + 2);
        text[length] = '\0';
        closed = strstr(text, "weft_clients_stalled:2") != NULL;
        free(text);
        weftd_sleep_ms(50);
    }
    assert_true(closed);
    free(value);
    close(slow);
    close(half);
    close(fd);
    node_end();
}

/* More than the pool has: every SET is answered with OK, and what is read is right or nil. */
/* As many long values in one command as nobody would have thought of. */
static void one_command_sets_many_values(void **state)
{
    (void)state;
    enum { KEYS = 300, BYTES = 5000 };
    char text[64];
    node_run(NULL);
    int fd = dial();
    snprintf(text, sizeof text, "*%d\r\n$4\r\nMSET\r\n", 1 + 2 * KEYS);
    say(fd, text);
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t *value = value_make(BYTES, i);
        snprintf(text, sizeof text, "$4\r\nm%03u\r\n$%d\r\n", i, BYTES);
        say(fd, text);
        say_bytes(fd, value, BYTES);
        say(fd, "\r\n");
        free(value);
    }
    expect(fd, "+OK\r\n");
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t *value = value_make(BYTES, i);
        snprintf(text, sizeof text, "GET m%03u\r\n", i);
        say(fd, text);
        get_expect(fd, value, BYTES);
        free(value);
    }
    close(fd);
    node_end();
}

static void a_full_pool_drops_and_never_lies(void **state)
{
    (void)state;
    enum { KEYS = 200, BYTES = 1 << 20 };
    node_run(NULL);
    int fd = dial(), there = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        uint8_t *value = value_make(BYTES, i);
        snprintf(key, sizeof key, "k%u", i);
        set_say(fd, key, value, BYTES);
        expect(fd, "+OK\r\n");
        free(value);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        char text[64], head[5] = "";
        snprintf(text, sizeof text, "EXISTS k%u\r\n", i);
        say(fd, text);
        hear(fd, head, 4);
        bool exists = head[1] == '1';
        snprintf(text, sizeof text, "GET k%u\r\n", i);
        say(fd, text);
        if (exists) {
            uint8_t *value = value_make(BYTES, i);
            get_expect(fd, value, BYTES);
            free(value);
            there++;
        } else {
            expect(fd, "$-1\r\n");
        }
    }
    assert_true(there > 10 && there <= 64);
    /* A value that never fits, and for which nothing goes. */
    uint8_t *kept = value_make(BYTES, 7);
    set_say(fd, "kept", kept, BYTES);
    expect(fd, "+OK\r\n");
    uint8_t *value = value_make(100 << 20, 0);
    set_say(fd, "k0", value, 100 << 20);
    expect(fd, "+OK\r\n");
    ask(fd, "GET k0\r\n", "$-1\r\n");
    free(value);
    say(fd, "GET kept\r\n");
    get_expect(fd, kept, BYTES);
    free(kept);
    close(fd);
    nothing_reserved();
    node_end();
}

static void strict_says_that_there_is_no_room(void **state)
{
    (void)state;
    static const char *const settings[] = {"resp.strict=true", NULL};
    node_run(settings);
    int fd = dial();
    uint8_t *value = value_make(100 << 20, 0);
    set_say(fd, "k", value, 100 << 20);
    expect(fd, "-OOM command not allowed: the pool has no room for this value now\r\n");
    free(value);
    ask(fd, "PING\r\n", "+PONG\r\n");
    close(fd);
    node_end();
}

static void passwords_and_domains(void **state)
{
    (void)state;
    static const char *const settings[] = {"resp.password=0123456789abcdef",
                                           "domains=default,guest",
                                           "domain.guest.token=guest-0123456789", NULL};
    node_run(settings);
    int fd = dial();
    ask(fd, "GET a\r\n", "-NOAUTH Authentication required.\r\n");
    ask(fd, "PING\r\n", "-NOAUTH Authentication required.\r\n");
    ask(fd, "AUTH wrong\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    ask(fd, "AUTH 0123456789abcde\r\n",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    ask(fd, "AUTH guest 0123456789abcdef\r\n",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    ask(fd, "AUTH 0123456789abcdef\r\n", "+OK\r\n");
    ask(fd, "SET a 1\r\n", "+OK\r\n");
    ask(fd, "AUTH guest guest-0123456789\r\n", "+OK\r\n");
    ask(fd, "GET a\r\n", "$-1\r\n");
    ask(fd, "AUTH default 0123456789abcdef\r\n", "+OK\r\n");
    ask(fd, "GET a\r\n", "$1\r\n1\r\n");
    ask(fd, "RESET\r\n", "+RESET\r\n");
    ask(fd, "GET a\r\n", "-NOAUTH Authentication required.\r\n");
    say(fd, "*2\r\n$4\r\nAUTH\r\n$20000\r\n");
    expect_end(fd, "-ERR Protocol error: unauthenticated bulk length\r\n");
    node_end();
}

static void time_takes_keys(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    uint8_t *value = value_make(100000, 0);
    ask(fd, "SET a 1 PX 100\r\n", "+OK\r\n");
    set_say(fd, "b", value, 100000);
    expect(fd, "+OK\r\n");
    ask(fd, "PEXPIRE b 100\r\n", ":1\r\n");
    weftd_sleep_ms(300);
    ask(fd, "GET a\r\n", "$-1\r\n");
    ask(fd, "EXISTS b\r\n", ":0\r\n");
    free(value);
    close(fd);
    struct weft *w = weftd_connect(&node, "default");
    assert_non_null(w);
    assert_true(weftd_settles(w, "default", "blocks", 0)); /* its block was removed, too */
    weft_close(w);
    node_end();
}

static void a_scan_meets_every_key_once(void **state)
{
    (void)state;
    enum { KEYS = 300 };
    static const char *const settings[] = {"resp.keys=1024", NULL};
    bool seen[KEYS] = {false};
    node_run(settings);
    int fd = dial(), found = 0;
    for (int i = 0; i < KEYS; i++) {
        char text[32];
        snprintf(text, sizeof text, "SET key:%d x\r\n", i);
        ask(fd, text, "+OK\r\n");
    }
    ask(fd, "SET other x\r\n", "+OK\r\n");
    char cursor[24] = "0";
    do {
        char text[64], line[64];
        snprintf(text, sizeof text, "SCAN %s MATCH key:[0-9]* COUNT 20\r\n", cursor);
        say(fd, text);
        int lines = 3, bulks = 0;
        for (int n = 0; n < lines; n++) {
            size_t at = 0;
            do
                assert_int_equal(hear(fd, line + at, 1), 1);
            while (line[at++] != '\n');
            line[at - 2] = '\0';
            if (n == 2)
                snprintf(cursor, sizeof cursor, "%.20s", line);
            if (n == 2)
                lines = 4;
            if (n == 3) {
                bulks = (int)strtol(line + 1, NULL, 10);
                lines = 4 + 2 * bulks;
            }
            if (n > 3 && n % 2) {
                int number = (int)strtol(line + 4, NULL, 10);
                assert_true(number < KEYS && !seen[number]);
                seen[number] = true;
                found++;
            }
        }
    } while (strcmp(cursor, "0") != 0);
    assert_int_equal(found, KEYS);
    close(fd);
    node_end();
}

static void a_killed_node_begins_empty(void **state)
{
    (void)state;
    node_run(NULL);
    int fd = dial();
    uint8_t *value = value_make(5 << 20, 0);
    set_say(fd, "k", value, 5 << 20);
    expect(fd, "+OK\r\n");
    say(fd, "*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$6000000\r\n");
    say_bytes(fd, value, 3000000);
    weftd_kill(&node);
    char byte;
    assert_int_equal(hear(fd, &byte, 1), 0);
    close(fd);
    char listen[64];
    snprintf(listen, sizeof listen, "resp.listen=127.0.0.1:%u", port);
    const char *const settings[] = {listen, "pool.size=64MB", "pool.size_max=64MB", NULL};
    assert_true(weftd_start(&node, settings, NULL));
    fd = dial();
    ask(fd, "GET k\r\n", "$-1\r\n");
    ask(fd, "GET half\r\n", "$-1\r\n");
    set_say(fd, "k", value, 5 << 20);
    expect(fd, "+OK\r\n");
    say(fd, "GET k\r\n");
    get_expect(fd, value, 5 << 20);
    free(value);
    close(fd);
    node_end();
}

/* A value that went below comes up again, while others are served; and one that did not come up is
 * told of, and comes the next time. */
static void come_back_from_below(bool strict)
{
    enum { KEYS = 100, BYTES = 1 << 20 };
    char path[160];
    const char *const settings[] = {"tiers=nvme0",
                                    path,
                                    "tier.nvme0.size=1GB",
                                    "tier.nvme0.admit=always",
                                    strict ? "resp.strict=true" : "resp.strict=false",
                                    NULL};
    char directory[] = "/var/tmp/weft-resp-XXXXXX";
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "tier.nvme0.path=%s/tier", directory);
    static const char *const variables[] = {"WEFT_FAIL_AT=resp.load:1", NULL};
    static const char not_now[] = "-ERR the value is there, but could not be read from the tiers "
                                  "below now; ask again\r\n";
    node_run_with(settings, variables);
    int fd = dial(), there = 0, told = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        uint8_t *value = value_make(BYTES, i);
        snprintf(key, sizeof key, "k%u", i);
        set_say(fd, key, value, BYTES);
        expect(fd, "+OK\r\n");
        free(value);
        weftd_sleep_ms(10);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        char text[64], head[3] = "";
        snprintf(text, sizeof text, "GET k%u\r\n", i);
        say(fd, text);
        hear(fd, head, 2);
        bool not_there = strcmp(head, "$-") == 0, error = strcmp(head, "-E") == 0;
        assert_true(strict || !error);
        if (not_there || error) {
            expect(fd, error ? not_now + 2 : "1\r\n");
            say(fd, text);
            hear(fd, head, 2);
            not_there = strcmp(head, "$-") == 0;
            told += !not_there;
        }
        if (not_there) {
            expect(fd, "1\r\n");
            continue;
        }
        there++;
        uint8_t *value = value_make(BYTES, i), *got = malloc(BYTES);
        assert_non_null(got);
        expect(fd, "048576\r\n");
        assert_int_equal(hear(fd, got, BYTES), BYTES);
        assert_memory_equal(got, value, BYTES);
        expect(fd, "\r\n");
        free(got);
        free(value);
    }
    assert_true(there > 70); /* 64 MB of DRAM hold fewer */
#if WF_TEST_HOOKS
    assert_int_equal(told, 1); /* the one load that failed */
#else
    assert_int_equal(told, 0);
#endif
    close(fd);
    node_end();
    snprintf(path, sizeof path, "%s/tier", directory);
    unlink(path);
    rmdir(directory);
}

static void values_come_back_from_below(void **state)
{
    (void)state;
    come_back_from_below(false);
}

static void strict_says_that_a_load_failed(void **state)
{
    (void)state;
    come_back_from_below(true);
}

/* Asks for the list and counts its lines; *out_named: how many of c0 … c7 it names. */
static int clients_listed(int fd, int *out_named)
{
    char head[16] = "", *text;
    size_t at = 0;
    say(fd, "CLIENT LIST\r\n");
    hear(fd, head, 1);
    assert_int_equal(head[0], '$');
    do
        assert_int_equal(hear(fd, head + at, 1), 1);
    while (head[at++] != '\n' && at < sizeof head - 1);
    size_t length = strtoul(head, NULL, 10);
    assert_true(length > 0 && length < 100000);
    text = calloc(1, length + 3);
    assert_non_null(text);
    assert_int_equal(hear(fd, text, length + 2), length + 2);
    int lines = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    *out_named = 0;
    for (int i = 0; i < 8; i++) {
        char name[16];
        snprintf(name, sizeof name, " name=c%d ", i);
        *out_named += strstr(text, name) != NULL;
    }
    free(text);
    return lines - 1; /* but for the answer's end */
}

static void a_list_of_clients_has_every_lanes(void **state)
{
    (void)state;
    static const char *const settings[] = {"resp.threads=3", NULL};
    node_run(settings);
    int fds[8], named;
    for (int i = 0; i < 8; i++) {
        char text[32];
        fds[i] = dial();
        snprintf(text, sizeof text, "CLIENT SETNAME c%d\r\n", i);
        ask(fds[i], text, "+OK\r\n");
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(clients_listed(fds[i], &named), 8);
        assert_int_equal(named, 8);
    }
    /* Commands behind it wait for it; and who ends while it is under way is missed by nobody. */
    say(fds[0], "PING\r\nCLIENT LIST\r\nPING\r\nCLIENT SETNAME ");
    say(fds[0], "c0\r\nECHO end\r\n");
    expect(fds[0], "+PONG\r\n$");
    char byte;
    do
        assert_int_equal(hear(fds[0], &byte, 1), 1);
    while (byte != '+');
    expect(fds[0], "PONG\r\n+OK\r\n$3\r\nend\r\n");
    for (int i = 0; i < 100; i++) {
        int fd = dial();
        say(fd, "CLIENT LIST\r\nCLIENT LIST\r\n");
        close(fd);
    }
    close(fds[7]);
    while (clients_listed(fds[0], &named) != 7 || named != 7)
        weftd_sleep_ms(5);
    for (int i = 0; i < 7; i++) {
        say(fds[i], "CLIENT LIST\r\n"); /* and the node stops */
        close(fds[i]);
    }
    node_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_answer_to_the_byte),
        cmocka_unit_test(a_third_protocol_has_nulls_and_maps),
        cmocka_unit_test(values_of_all_sizes_come_back),
        cmocka_unit_test(what_was_set_last_is_read),
        cmocka_unit_test(many_commands_at_once_are_answered_in_order),
        cmocka_unit_test(a_command_may_be_torn_anywhere),
        cmocka_unit_test(nonsense_is_told_and_ends),
        cmocka_unit_test(half_a_set_leaves_nothing_behind),
        cmocka_unit_test(who_does_not_read_is_closed_and_others_go_on),
        cmocka_unit_test(one_command_sets_many_values),
        cmocka_unit_test(a_full_pool_drops_and_never_lies),
        cmocka_unit_test(strict_says_that_there_is_no_room),
        cmocka_unit_test(passwords_and_domains),
        cmocka_unit_test(time_takes_keys),
        cmocka_unit_test(a_scan_meets_every_key_once),
        cmocka_unit_test(a_killed_node_begins_empty),
        cmocka_unit_test(values_come_back_from_below),
        cmocka_unit_test(strict_says_that_a_load_failed),
        cmocka_unit_test(a_list_of_clients_has_every_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
