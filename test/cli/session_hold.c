/* SPDX-License-Identifier: Apache-2.0
 *
 * session_hold: sessions that stay open while a case of run.py looks at them.
 *
 * Lines on stdin, each answered by one on stdout, "ok …" or "failed …":
 *
 *     put NAME CHAIN       the session NAME (opened when it is new) stores chain number CHAIN
 *     hint NAME STATE RETURNS_IN_MS DEADLINE_MS
 *     priority NAME N      what NAME is opened with, when it is new
 *     demote NAME
 *     prefetch NAME CHAIN WITHIN_MS
 *     get NAME CHAIN       match, read all of it
 *     close NAME
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "weft/weft.h"

#define LAYERS 8u
#define BLOCKS 4u
#define BLOCK_TOKENS 16u
#define TOKENS (BLOCKS * BLOCK_TOKENS + 1)
#define SESSIONS 64

struct held {
    char name[65];
    uint32_t priority;
    struct weft_session *session;
};

static struct weft *weft;
static struct weft_format *format;
static struct held sessions[SESSIONS];

static struct held *held_of(const char *name)
{
    for (int i = 0; i < SESSIONS; i++) {
        if (!sessions[i].name[0])
            sessions[i].priority = 5;
        if (!sessions[i].name[0])
            snprintf(sessions[i].name, sizeof sessions[i].name, "%s", name);
        if (strcmp(sessions[i].name, name) == 0)
            return &sessions[i];
    }
    return NULL;
}

static enum weft_status session_of(struct held *held)
{
    const struct weft_session_spec spec = {.name = held->name, .priority = held->priority};
    return held->session ? WEFT_OK : weft_session_open(format, &spec, &held->session);
}

static void tokens_of(uint32_t chain, uint32_t tokens[TOKENS])
{
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = chain * 1000 + i;
}

static enum weft_status put(struct held *held, uint32_t chain)
{
    uint32_t tokens[TOKENS];
    struct weft_fill fill;
    tokens_of(chain, tokens);
    enum weft_status status = weft_reserve(held->session, tokens, 0, TOKENS, &fill);
    if (status != WEFT_OK)
        return status;
    for (uint32_t b = 0; b < BLOCKS; b++)
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            if (weft_fill_k(&fill, b, layer))
                memset(weft_fill_k(&fill, b, layer), (int)(chain + b), fill.layer_bytes);
    return weft_commit(&fill);
}

static enum weft_status get(struct held *held, uint32_t chain, uint32_t *out_blocks)
{
    uint32_t tokens[TOKENS];
    struct weft_match match;
    struct weft_pins pins;
    tokens_of(chain, tokens);
    enum weft_status status = weft_match(held->session, tokens, TOKENS, &match);
    if (status != WEFT_OK)
        return status;
    status = weft_get(held->session, &match, WEFT_BLOCK_ORDER, &pins);
    if (status != WEFT_OK)
        return status;
    for (uint32_t b = 0; status == WEFT_OK && b < pins.blocks; b++)
        status = weft_wait_block(&pins, b);
    *out_blocks = pins.blocks;
    weft_pins_release(&pins);
    return status;
}

static enum weft_status obey(const char *verb, struct held *held, const uint32_t n[3],
                             uint32_t *out_blocks)
{
    uint32_t tokens[TOKENS];
    if (strcmp(verb, "priority") == 0) {
        held->priority = n[0];
        return WEFT_OK;
    }
    enum weft_status status = session_of(held);
    if (status != WEFT_OK)
        return status;
    if (strcmp(verb, "put") == 0)
        return put(held, n[0]);
    if (strcmp(verb, "get") == 0)
        return get(held, n[0], out_blocks);
    if (strcmp(verb, "demote") == 0)
        return weft_demote(held->session);
    if (strcmp(verb, "hint") == 0)
        return weft_session_hint(held->session, (enum weft_session_state)n[0],
                                 &(struct weft_hint){.returns_in_ms = n[1], .deadline_ms = n[2]});
    if (strcmp(verb, "prefetch") == 0) {
        tokens_of(n[0], tokens);
        return weft_prefetch(held->session, tokens, TOKENS, n[1], out_blocks);
    }
    if (strcmp(verb, "close") == 0) {
        weft_session_close(held->session);
        held->session = NULL;
        return WEFT_OK;
    }
    return WEFT_E_INVALID;
}

int main(int count, char **arguments)
{
    const struct weft_format_spec spec = {.model = "held",
                                          .layers = LAYERS,
                                          .kv_heads = 4,
                                          .head_dim = 64,
                                          .dtype = WEFT_F32,
                                          .block_tokens = BLOCK_TOKENS};
    char line[256];
    const struct weft_connect_options options = {.socket = count > 1 ? arguments[1] : NULL};
    enum weft_status status = weft_connect(&options, &weft);
    if (status == WEFT_OK)
        status = weft_format_open(weft, &spec, &format);
    if (status != WEFT_OK) {
        printf("failed %s\n", weft_last_error());
        return 1;
    }
    puts("ok");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        char verb[16] = "", name[65] = "";
        uint32_t n[3] = {0}, blocks = 0;
        struct held *held;
        if (sscanf(line, "%15s %64s %u %u %u", verb, name, &n[0], &n[1], &n[2]) < 2 ||
            !(held = held_of(name)))
            status = WEFT_E_INVALID;
        else
            status = obey(verb, held, n, &blocks);
        if (status == WEFT_OK)
            printf("ok %llu %u\n",
                   held->session ? (unsigned long long)weft_session_id(held->session) : 0, blocks);
        else
            printf("failed %d %s\n", (int)status, weft_last_error());
        fflush(stdout);
    }
    for (int i = 0; i < SESSIONS; i++)
        if (sessions[i].session)
            weft_session_close(sessions[i].session);
    weft_format_close(format);
    weft_close(weft);
    return 0;
}
