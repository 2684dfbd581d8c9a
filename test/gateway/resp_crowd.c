/* SPDX-License-Identifier: Apache-2.0
 *
 * Many clients of several lanes write, read and delete the same few keys: who reads gets nothing,
 * or one of the values that were written under that key, whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "resp_client.h"

#define CLIENTS 6
#define KEYS 12
#define STEPS 1500
#define LONGEST ((size_t)1300000)

struct client {
    pthread_t thread;
    uint64_t dice;
    uint64_t hits, wrong;
    uint8_t *value;
};

static uint32_t roll(struct client *client, uint32_t sides)
{
    client->dice = client->dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(client->dice >> 33) % sides;
}

/* A value says in its first bytes which one it is; all the others follow from them. */
static void value_write(uint8_t *value, size_t length, uint32_t key, uint32_t number)
{
    for (size_t i = 8; i < length; i++)
        value[i] = (uint8_t)((i ^ i >> 8) * 31 + number + key * 7);
    memcpy(value, &key, 4);
    memcpy(value + 4, &number, 4);
}

static bool value_is_whole(const uint8_t *value, size_t length, uint32_t key)
{
    uint32_t said[2];
    if (length < sizeof said)
        return false;
    memcpy(said, value, sizeof said);
    if (said[0] != key)
        return false;
    for (size_t i = 8; i < length; i++)
        if (value[i] != (uint8_t)((i ^ i >> 8) * 31 + said[1] + key * 7))
            return false;
    return true;
}

static void put(struct client *client, int fd, uint32_t key)
{
    static const size_t lengths[] = {100, 5000, 20000, 70000, LONGEST};
    /* Most of them alike, so that they are guessed. */
    size_t length = roll(client, 3) ? 20000 : lengths[roll(client, 5)];
    char name[16];
    snprintf(name, sizeof name, "key-%02u", key);
    value_write(client->value, length, key, roll(client, UINT32_MAX));
    set_say(fd, name, client->value, length);
    expect(fd, "+OK\r\n");
}

static void take(struct client *client, int fd, uint32_t key)
{
    char request[64], head[32] = "";
    size_t at = 0;
    snprintf(request, sizeof request, "*2\r\n$3\r\nGET\r\n$6\r\nkey-%02u\r\n", key);
    say(fd, request);
    while (at < 2 || head[at - 1] != '\n') {
        assert_true(at + 1 < sizeof head);
        assert_int_equal(hear(fd, head + at++, 1), 1);
    }
    if (head[1] == '-')
        return;
    size_t length = strtoul(head + 1, NULL, 10);
    assert_true(head[0] == '$' && length <= LONGEST);
    assert_int_equal(hear(fd, client->value, length + 2), length + 2);
    client->hits++;
    client->wrong += !value_is_whole(client->value, length, key);
}

static void *client_run(void *context)
{
    struct client *client = context;
    int fd = dial();
    for (unsigned i = 0; i < STEPS; i++) {
        uint32_t key = roll(client, KEYS), what = roll(client, 16);
        if (what < 8) {
            put(client, fd, key);
        } else if (what < 15) {
            take(client, fd, key);
        } else {
            char request[64], answer[2];
            snprintf(request, sizeof request, "*2\r\n$3\r\nDEL\r\n$6\r\nkey-%02u\r\n", key);
            say(fd, request);
            assert_int_equal(hear(fd, answer, 2), 2);
            expect(fd, "\r\n");
        }
        if (roll(client, 200) == 0) { /* some come anew */
            close(fd);
            fd = dial();
        }
    }
    close(fd);
    return NULL;
}

static void a_crowd_reads_whole_values(void **state)
{
    (void)state;
    static struct client clients[CLIENTS];
    const char *const settings[] = {"resp.threads=3", NULL};
    uint64_t hits = 0, wrong = 0;
    node_run(settings);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.dice = 77 + i, .value = malloc(LONGEST + 2)};
        assert_non_null(clients[i].value);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, client_run, &clients[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        hits += clients[i].hits;
        wrong += clients[i].wrong;
        free(clients[i].value);
    }
    assert_int_equal(wrong, 0);
    assert_true(hits > CLIENTS * STEPS / 8);
    nothing_reserved();
    node_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crowd_reads_whole_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
