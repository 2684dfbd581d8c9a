/* SPDX-License-Identifier: Apache-2.0
 *
 * A client that says the same again and again is read by a guess (src/gateway/resp_stream.c): what
 * becomes of it when it says something else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "resp_client.h"

#define ALIKE 20000 /* bytes of the values that come one after the other */

struct text {
    uint8_t bytes[4 * ALIKE];
    size_t length;
};

static void text_add(struct text *text, const void *bytes, size_t length)
{
    assert_true(text->length + length <= sizeof text->bytes);
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

/* `head` is all that is before the value, `tail` what is behind it. */
static void text_set(struct text *text, const char *head, unsigned seed, size_t length,
                     const char *tail)
{
    uint8_t *value = value_make(length, seed);
    text_add(text, head, strlen(head));
    text_add(text, value, length);
    text_add(text, tail, strlen(tail));
    free(value);
}

#define HEAD_ALIKE "*3\r\n$3\r\nSET\r\n$1\r\ng\r\n$20000\r\n"

/* A client whose next command is expected to be such a SET as its last ones were. */
static int dial_alike(void)
{
    int fd = dial();
    for (unsigned i = 0; i < 5; i++) {
        struct text text = {.length = 0};
        text_set(&text, HEAD_ALIKE, 100 + i, ALIKE, "\r\n");
        say_bytes(fd, text.bytes, text.length);
        expect(fd, "+OK\r\n");
    }
    return fd;
}

static void value_is(int fd, const char *key, unsigned seed, size_t length)
{
    char head[64];
    uint8_t *value = value_make(length, seed);
    snprintf(head, sizeof head, "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", strlen(key), key);
    say(fd, head);
    get_expect(fd, value, length);
    free(value);
}

static void what_is_not_like_the_last_is_read_right(void **state)
{
    (void)state;
    static const struct {
        const char *head, *tail, *answer, *key;
        size_t length;
    } cases[] = {
        {HEAD_ALIKE, "\r\n", "+OK\r\n", "g", ALIKE},
        {"*3\r\n$3\r\nSET\r\n$1\r\ng\r\n$19999\r\n", "\r\n", "+OK\r\n", "g", ALIKE - 1},
        {"*3\r\n$3\r\nSET\r\n$1\r\ng\r\n$20001\r\n", "\r\n", "+OK\r\n", "g", ALIKE + 1},
        {"*3\r\n$3\r\nSET\r\n$1\r\ng\r\n$5\r\n", "\r\n", "+OK\r\n", "g", 5},
        {"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$20000\r\n", "\r\n", "+OK\r\n", "large", ALIKE},
        {"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$20000\r\n", "\r\n", "+OK\r\n", "", ALIKE},
        /* the empty key stays: what is named here is a long one */
        {"*3\r\n$3\r\nDEL\r\n$1\r\ng\r\n$20000\r\n", "\r\n", ":1\r\n", NULL, ALIKE},
        {"*3\r\n$5\r\nSETNX\r\n$1\r\ng\r\n$20000\r\n", "\r\n", ":0\r\n", NULL, ALIKE},
        {"*3\r\n$3\r\nFOO\r\n$1\r\ng\r\n$20000\r\n", "\r\n*1\r\n$4\r\nPING\r\n", NULL, NULL, ALIKE},
        {"*5\r\n$3\r\nSET\r\n$1\r\ng\r\n$20000\r\n", "\r\n$2\r\nEX\r\n$3\r\n900\r\n", "+OK\r\n",
         "g", ALIKE},
        {HEAD_ALIKE, "\r\nPING\r\n", "+OK\r\n+PONG\r\n", "g", ALIKE},
        {HEAD_ALIKE, "\r\n" HEAD_ALIKE, "+OK\r\n", NULL, ALIKE},
        {"PING\r\n" HEAD_ALIKE, "\r\n", "+PONG\r\n+OK\r\n", "g", ALIKE},
        {"ECHO \"two words\"\r\n" HEAD_ALIKE, "\r\n", "$9\r\ntwo words\r\n+OK\r\n", "g", ALIKE},
        {"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n" HEAD_ALIKE, "\r\n", "$2\r\nhi\r\n+OK\r\n", "g", ALIKE},
        {"*5\r\n$4\r\nMSET\r\n$1\r\nh\r\n$1\r\n1\r\n$1\r\ng\r\n$20000\r\n", "\r\n", "+OK\r\n", "g",
         ALIKE},
    };
    node_run(NULL);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = dial_alike();
        struct text text = {.length = 0};
        text_set(&text, cases[i].head, i, cases[i].length, cases[i].tail);
        say_bytes(fd, text.bytes, text.length);
        if (cases[i].answer)
            expect(fd, cases[i].answer);
        else
            expect(fd, "-ERR unknown command");
        if (cases[i].key)
            value_is(fd, cases[i].key, i, cases[i].length);
        close(fd);
    }
    int fd = dial_alike();
    struct text text = {.length = 0};
    text_set(&text, HEAD_ALIKE, 7, ALIKE, "xxPING\r\n");
    say_bytes(fd, text.bytes, text.length);
    expect_end(fd, "-ERR Protocol error: expected CRLF behind a bulk string\r\n");
    fd = dial();
    value_is(fd, "g", 104, ALIKE); /* what broke off has set nothing */
    close(fd);
    node_end();
}

static void what_is_like_the_last_may_be_torn_anywhere(void **state)
{
    (void)state;
    static const size_t head = sizeof HEAD_ALIKE - 1;
    size_t places[] = {1,
                       4,
                       head - 1,
                       head,
                       head + 1,
                       ALIKE,
                       head + 4096,
                       head + ALIKE - 1,
                       head + ALIKE,
                       head + ALIKE + 1,
                       head + 9,
                       head - 9,
                       head + ALIKE + 2,
                       head + ALIKE + 5};
    node_run(NULL);
    int fd = dial_alike();
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct text text = {.length = 0};
        text_set(&text, HEAD_ALIKE, i, ALIKE, "\r\n*1\r\n$4\r\nPING\r\n");
        say_bytes(fd, text.bytes, places[i]);
        usleep(2000); /* so that it is read by itself, mostly */
        say_bytes(fd, text.bytes + places[i], text.length - places[i]);
        expect(fd, "+OK\r\n+PONG\r\n");
        value_is(fd, "g", i, ALIKE);
        close(fd);
        fd = dial_alike();
    }
    /* One that ends in the middle leaves what was there, and no room behind. */
    say_bytes(fd, HEAD_ALIKE "begun", head + 5);
    close(fd);
    fd = dial();
    value_is(fd, "g", 104, ALIKE);
    close(fd);
    nothing_reserved();
    node_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_like_the_last_is_read_right),
        cmocka_unit_test(what_is_like_the_last_may_be_torn_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
