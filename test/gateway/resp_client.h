/* SPDX-License-Identifier: Apache-2.0
 *
 * A RESP client that knows every byte of the answer, and the weftd that it asks.  What is not as it
 * is expected fails the test.
 */
#ifndef WEFT_TEST_RESP_CLIENT_H
#define WEFT_TEST_RESP_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "../support/weftd.h"

extern struct weftd node;
extern uint16_t port;

/* Starts `node` with 64 MB, the gateway and `more` settings. */
void node_run(const char *const *more);
void node_run_with(const char *const *more, const char *const *variables);
void node_end(void);
/* Nothing is reserved for anybody once all is quiet. */
void nothing_reserved(void);

int dial(void);
void say_bytes(int fd, const void *bytes, size_t length);
void say(int fd, const char *text);
/* As many bytes as that; fewer when the other side hangs up. */
size_t hear(int fd, void *out, size_t length);
void expect(int fd, const char *answer);
void ask(int fd, const char *request, const char *answer);
/* The other side says this and hangs up. */
void expect_end(int fd, const char *answer);

/* The caller's, with free(). */
uint8_t *value_make(size_t length, unsigned seed);
void set_say(int fd, const char *key, const uint8_t *value, size_t length);
void get_expect(int fd, const uint8_t *value, size_t length);

#endif
