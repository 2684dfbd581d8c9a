/* SPDX-License-Identifier: Apache-2.0
 *
 * One client of a replay: what an engine does with a request, without the model.
 *
 *   match the request's chain → pin what is there → check every byte of it → reserve, fill and
 * commit the rest → give the pins back
 *
 * Key i is made of key i - 1 and hash id i, so that it names all ids up to its own.  A full pool is
 * backpressure: the rest of the chain is not stored and the request goes on.  A node that goes away
 * is waited for, and the request begins again from its match; its counts are only added when it is
 * through.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/replay.h"

#define MODEL "weft-replay@1"
#define BATCH_BYTES ((size_t)64 << 20)

struct client {
    struct cli *cli;
    struct replay_shared *shared;
    struct trace_reader reader;
    struct weft_format *format;
    struct weft_session *session; /* NULL: the node has no room for one; goes on without */
    size_t block_bytes, batch;
    struct weft_key *keys;
    struct weft_pins pins;
    struct weft_slot slots[WEFT_BATCH_MAX];
};

struct outcome {
    uint64_t hit, below, wrong, put, existing, full, orphaned, vanished;
};

static void add(_Atomic uint64_t *counter, uint64_t value)
{
    if (value)
        atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

void wf_replay_say(struct replay_shared *shared, const char *sentence)
{
    uint32_t nobody = 0;
    if (!atomic_compare_exchange_strong_explicit(&shared->said, &nobody, 1, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    snprintf(shared->sentence, sizeof shared->sentence, "%s", sentence);
    atomic_store_explicit(&shared->said, 2, memory_order_release);
}

static bool node_is_lost(enum weft_status status)
{
    return status == WEFT_E_NODE || status == WEFT_E_PROTOCOL || status == WEFT_E_TIMEOUT;
}

/* ----------------------------------------------------------------------------------- a request */

static enum weft_status keys_make(struct client *client, const struct trace_request *request)
{
    uint8_t identity[40] = {0};
    for (size_t i = 0; i < request->hash_count; i++) {
        if (i)
            memcpy(identity, client->keys[i - 1].bytes, 32);
        memcpy(identity + 32, &request->hash_ids[i], 8);
        enum weft_status status = weft_key_from_bytes(client->format, identity, sizeof identity,
                                                      &client->keys[i]);
        if (status != WEFT_OK)
            return status;
    }
    return WEFT_OK;
}

/* Pin what is there and check every byte. */
static enum weft_status hits_read(struct client *client, size_t count, struct outcome *outcome)
{
    size_t present = 0;
    enum weft_status status = weft_match_keys(client->format, client->keys, count, &present);
    if (status == WEFT_MISS)
        status = WEFT_OK;
    if (status != WEFT_OK)
        return status;
    struct weft_pins pins;
    status = weft_get_keys(client->format, client->keys, present, WEFT_BLOCK_ORDER, &pins);
    if (status != WEFT_OK)
        return status;
    while (outcome->hit < pins.blocks &&
           weft_wait_block(&pins, (uint32_t)outcome->hit) == WEFT_OK) {
        const struct weft_pin *pin = &pins.pins[outcome->hit];
        if (pin->bytes != client->block_bytes)
            outcome->wrong += client->block_bytes;
        else
            outcome->wrong += wf_cli_payload_wrong(pin->data, pin->bytes,
                                                   &client->keys[outcome->hit], outcome->hit);
        outcome->hit++;
    }
    outcome->below += outcome->hit > pins.loading ? outcome->hit - pins.loading : 0;
    outcome->vanished += present - outcome->hit;
    weft_pins_release(&client->pins);
    client->pins = pins; /* held while the rest is put */
    return WEFT_OK;
}

/* How many of a batch are there now, from its first; a chain cannot go on behind one that is not.
 */
static size_t batch_count(struct client *client, size_t count, struct outcome *outcome)
{
    size_t done = 0;
    for (; done < count; done++) {
        enum weft_status status = client->slots[done].status;
        if (status != WEFT_OK && status != WEFT_EXISTS)
            break;
        outcome->put += status == WEFT_OK;
        outcome->existing += status == WEFT_EXISTS;
    }
    return done;
}

static enum weft_status batch_write(struct client *client, size_t first, size_t count)
{
    enum weft_status status = weft_reserve_keys(client->format,
                                                first ? &client->keys[first - 1] : NULL,
                                                &client->keys[first], count, WEFT_CHAINED,
                                                client->slots);
    if (status != WEFT_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        if (client->slots[i].status == WEFT_OK)
            wf_cli_payload_fill(client->slots[i].data, client->block_bytes,
                                &client->keys[first + i], first + i);
    return weft_commit_slots(client->format, client->slots, count);
}

/* Reserve, fill and commit the blocks from `first` on.  A batch that found room in part, as staging
 * memory may make it, is gone on with; one that found none is backpressure and ends the chain. */
static enum weft_status rest_write(struct client *client, size_t first, size_t count,
                                   struct outcome *outcome)
{
    for (size_t at = first, done = 1; at < count; at += done) {
        size_t part = count - at < client->batch ? count - at : client->batch;
        enum weft_status status = batch_write(client, at, part);
        if (status == WEFT_E_PARENT) {
            outcome->orphaned += count - at;
            return WEFT_OK;
        }
        bool refused = status == WEFT_FULL || status == WEFT_E_QUOTA || status == WEFT_E_LIMIT;
        if (status != WEFT_OK && !refused)
            return status;
        done = refused ? 0 : batch_count(client, part, outcome);
        if (!done) {
            bool orphan = !refused && client->slots[0].status == WEFT_E_PARENT;
            *(orphan ? &outcome->orphaned : &outcome->full) += count - at;
            return WEFT_OK;
        }
    }
    return WEFT_OK;
}

static void hint(struct client *client, enum weft_session_state state, const struct weft_hint *what)
{
    if (client->session && weft_session_hint(client->session, state, what) < 0)
        add(&client->shared->hint_failures, 1);
}

/* The request is over; what it made is known, and perhaps what its session will do. */
static void hint_end(struct client *client, const struct trace_request *request,
                     const struct weft_key *tip)
{
    enum weft_session_state state = WEFT_IDLE;
    const struct weft_hint what = {.output_tokens = request->output_length < UINT32_MAX
                                                        ? (uint32_t)request->output_length
                                                        : UINT32_MAX,
                                   .tip = tip};
    if (wf_replay_options.hinted && request->hint == TRACE_HINT_WANTED)
        state = WEFT_WAITING;
    else if (wf_replay_options.hinted && request->hint == TRACE_HINT_DONE)
        state = WEFT_DONE;
    hint(client, state, &what);
}

static enum weft_status request_try(struct client *client, const struct trace_request *request,
                                    struct outcome *outcome)
{
    *outcome = (struct outcome){0};
    enum weft_status status = keys_make(client, request);
    if (status == WEFT_OK)
        status = hits_read(client, request->hash_count, outcome);
    if (status == WEFT_OK && outcome->hit)
        hint(client, WEFT_PREFILL, &(struct weft_hint){.tip = &client->keys[outcome->hit - 1]});
    if (status == WEFT_OK)
        status = rest_write(client, outcome->hit, request->hash_count, outcome);
    size_t there = outcome->hit + outcome->put + outcome->existing;
    const struct weft_key *tip = there ? &client->keys[there - 1] : NULL;
    if (status == WEFT_OK && tip)
        hint(client, WEFT_DECODING, &(struct weft_hint){.tip = tip});
    weft_pins_release(&client->pins);
    if (tip)
        hint_end(client, request, tip);
    return status;
}

/* The request, again and again while the node is away, up to the patience. */
static int request_run(struct client *client, const struct trace_request *request)
{
    struct replay_shared *shared = client->shared;
    struct outcome outcome;
    enum weft_status status = request_try(client, request, &outcome);
    if (node_is_lost(status)) {
        add(&shared->node_losses, 1);
        char sentence[TRACE_ERROR_MAX];
        snprintf(sentence, sizeof sentence, "the node went away (%.150s); requests began again",
                 weft_last_error());
        wf_replay_say(shared, sentence);
        double until = wf_cli_now_s() + (double)wf_replay_options.patience_s;
        while (node_is_lost(status) && wf_cli_now_s() < until &&
               !atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
            usleep(50000);
            status = request_try(client, request, &outcome);
        }
    }
    if (status < 0) {
        char sentence[TRACE_ERROR_MAX];
        snprintf(sentence, sizeof sentence, "a client stopped at line %llu: %.180s",
                 (unsigned long long)client->reader.line_number, weft_last_error());
        wf_replay_say(shared, sentence);
        return (int)wf_cli_exit_of(status);
    }
    add(&shared->requests, 1);
    add(&shared->blocks_requested, request->hash_count);
    add(&shared->blocks_hit, outcome.hit);
    add(&shared->wrong_bytes, outcome.wrong);
    add(&shared->puts, outcome.put);
    add(&shared->existing, outcome.existing);
    add(&shared->full, outcome.full);
    add(&shared->orphaned, outcome.orphaned);
    add(&shared->vanished, outcome.vanished);
    add(&shared->below, outcome.below);
    return CLI_OK;
}

/* --------------------------------------------------------------------------- the trace's clock */

static void span_note(struct replay_shared *shared, const struct trace_request *request)
{
    uint64_t at_us = (uint64_t)(request->timestamp_s * 1e6), none = 0;
    uint64_t last = atomic_load_explicit(&shared->trace_us_last, memory_order_relaxed);
    atomic_compare_exchange_strong_explicit(&shared->trace_us_first, &none, at_us + 1,
                                            memory_order_relaxed, memory_order_relaxed);
    while (at_us > last &&
           !atomic_compare_exchange_weak_explicit(&shared->trace_us_last, &last, at_us,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

static void clock_wait(struct client *client, const struct trace_request *request)
{
    double factor = wf_replay_options.speed_factor;
    if (factor <= 0)
        return;
    double due_s = client->shared->start_s + request->timestamp_s / factor;
    double now_s = wf_cli_now_s();
    while (now_s < due_s && !atomic_load_explicit(&client->shared->stop, memory_order_relaxed)) {
        double wait_s = due_s - now_s < 0.1 ? due_s - now_s : 0.1;
        usleep((useconds_t)(wait_s * 1e6) + 1);
        now_s = wf_cli_now_s();
    }
    uint64_t late_us = now_s > due_s ? (uint64_t)((now_s - due_s) * 1e6) : 0;
    _Atomic uint64_t *most = &client->shared->late_us_max;
    uint64_t known = atomic_load_explicit(most, memory_order_relaxed);
    while (late_us > known &&
           !atomic_compare_exchange_weak_explicit(most, &known, late_us, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

/* Take the next line from the cursor and read up to it: TRACE_OK, TRACE_END or TRACE_FAILED. */
static enum trace_result line_take(struct client *client)
{
    struct replay_shared *shared = client->shared;
    uint64_t number = atomic_fetch_add_explicit(&shared->cursor, 1, memory_order_relaxed) + 1;
    enum trace_result result = TRACE_OK;
    while (result == TRACE_OK && client->reader.line_number < number)
        result = wf_trace_line(&client->reader);
    atomic_store_explicit(&shared->offset, client->reader.offset, memory_order_relaxed);
    return result;
}

static int lines_run(struct client *client)
{
    struct replay_shared *shared = client->shared;
    uint64_t most = wf_replay_options.requests_max;
    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        if (most && atomic_load_explicit(&shared->requests, memory_order_relaxed) >= most)
            return CLI_OK;
        enum trace_result result = line_take(client);
        if (result == TRACE_END)
            return CLI_OK;
        struct trace_request request = {0};
        if (result == TRACE_OK)
            result = wf_trace_parse(&client->reader, &request);
        if (result == TRACE_BLANK)
            continue;
        if (result == TRACE_BAD)
            add(&shared->malformed, 1);
        if (result != TRACE_OK)
            wf_replay_say(shared, client->reader.error);
        if (result == TRACE_FAILED || (result == TRACE_BAD && wf_replay_options.strict)) {
            atomic_store_explicit(&shared->stop, 1, memory_order_relaxed);
            return result == TRACE_FAILED ? CLI_SYSTEM : CLI_USAGE;
        }
        if (result == TRACE_BAD)
            continue;
        span_note(shared, &request);
        clock_wait(client, &request);
        int code = request_run(client, &request);
        if (code != CLI_OK) {
            atomic_store_explicit(&shared->stop, 1, memory_order_relaxed);
            return code;
        }
    }
    return CLI_OK;
}

static int client_open(struct client *client)
{
    struct cli *cli = client->cli;
    uint32_t block_tokens = wf_trace_block_tokens(wf_replay_options.trace_format);
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    struct weft_format_spec spec = {.model = MODEL,
                                    .layers = 1,
                                    .kv_heads = 1,
                                    .head_dim = 1,
                                    .dtype = WEFT_INT8,
                                    .block_tokens = block_tokens,
                                    .block_bytes = block_tokens *
                                                   wf_replay_options.bytes_per_token};
    enum weft_status status = weft_format_open(cli->weft, &spec, &client->format);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "the format is refused");
    if (weft_session_open(client->format,
                          &(struct weft_session_spec){.name = "replay", .priority = 5},
                          &client->session) != WEFT_OK)
        client->session = NULL;
    client->block_bytes = spec.block_bytes;
    client->batch = BATCH_BYTES / client->block_bytes;
    client->batch = client->batch < 1                ? 1
                    : client->batch > WEFT_BATCH_MAX ? WEFT_BATCH_MAX
                                                     : client->batch;
    client->keys = wf_cli_alloc(TRACE_HASH_IDS_MAX * sizeof *client->keys);
    if (!wf_trace_open(&client->reader, wf_replay_options.trace, wf_replay_options.trace_format))
        return wf_cli_fail(cli, CLI_SYSTEM, "%s", client->reader.error);
    return CLI_OK;
}

int wf_replay_client(struct cli *cli, struct replay_shared *shared)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct client *client = wf_cli_alloc(sizeof *client);
    client->cli = cli;
    client->shared = shared;
    int code = client_open(client);
    atomic_fetch_add_explicit(&shared->ready, 1, memory_order_release);
    if (code != CLI_OK)
        atomic_store_explicit(&shared->stop, 1, memory_order_relaxed);
    /* Paired with the parent's release of `go`, behind which start_s is set. */
    while (!atomic_load_explicit(&shared->go, memory_order_acquire))
        usleep(500);
    if (code == CLI_OK)
        code = lines_run(client);
    wf_trace_close(&client->reader);
    if (client->session)
        weft_session_close(client->session);
    if (client->format)
        weft_format_close(client->format);
    weft_close(cli->weft);
    free(client->keys);
    free(client);
    return code;
}
