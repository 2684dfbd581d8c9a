/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: who is generating on which chain.
 *
 * A session's chain is named by its last block, the tip.  While the session is in prefill or
 * decodes, the store holds the tip; since eviction takes leaves only, that keeps every block of the
 * chain, at the cost of one counter.  A fork is a second session with the same tip.
 */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "daemon/ahead.h"
#include "daemon/below.h"
#include "daemon/node.h"
#include "sys/clock.h"

const char *wf_session_state_name(enum weft_session_state state)
{
    switch (state) {
    case WEFT_PREFILL: return "prefill";
    case WEFT_DECODING: return "decoding";
    case WEFT_IDLE: return "idle";
    case WEFT_WAITING: return "waiting";
    case WEFT_DONE: return "done";
    }
    return "unknown";
}

/* An id is place + 1 below a generation, so that an old one never means a new session. */
static struct wf_session_entry *session_of(const struct wf_client *client, uint64_t id)
{
    struct wf_node *node = client->node;
    uint32_t place = (uint32_t)id - 1;
    if (id == 0 || place >= node->session_used || node->sessions[place].id != id ||
        node->sessions[place].client != client->id)
        return NULL;
    return &node->sessions[place];
}

static void tip_unhold(struct wf_node *node, struct wf_session_entry *session)
{
    if (session->held)
        wf_store_unhold(&node->domains[session->domain].store, session->tip_slot);
    session->held = false;
}

/* Hold the tip if the state asks for it and the block is still there. */
static void tip_hold(struct wf_node *node, struct wf_session_entry *session)
{
    struct wf_store *store = &node->domains[session->domain].store;
    bool active = session->state == WEFT_PREFILL || session->state == WEFT_DECODING;
    if (!active || !session->has_tip || session->held)
        return;
    uint32_t slot = wf_store_find(store, session->tip);
    if (slot == WF_SLOT_NONE)
        return;
    session->tip_slot = slot;
    session->held = true;
    wf_store_hold(store, slot);
}

static void tip_set(struct wf_node *node, struct wf_session_entry *session, const uint8_t tip[32])
{
    tip_unhold(node, session);
    const struct wf_store *store = &node->domains[session->domain].store;
    uint32_t slot = wf_store_find(store, tip);
    session->tip_blocks = slot == WF_SLOT_NONE ? 0 : wf_store_depth(store, slot) + 1;
    memcpy(session->tip, tip, sizeof session->tip);
    session->has_tip = true;
    tip_hold(node, session);
}

#define TELL_LOOKS 4096u /* sessions a tick */
#define USED_S 0.5       /* how fine the policy's clock is taken to be */
#define URGENCY_US 2000u /* what a step of priority counts for, when no deadline is given */
#define PRIORITY_MOST 9u
#define PRIORITY_USUAL 5u

bool wf_session_is_of(const struct wf_client *client, uint64_t id)
{
    return session_of(client, id) != NULL;
}

uint64_t wf_session_due_us(struct wf_client *client, uint64_t id)
{
    const struct wf_session_entry *session = session_of(client, id);
    uint64_t now_us = wf_now_ns() / 1000;
    if (session && session->deadline_ms)
        return session->hinted_ns / 1000 + session->deadline_ms * 1000ull;
    return now_us + (PRIORITY_MOST - (session ? session->priority : PRIORITY_USUAL)) * URGENCY_US;
}

/* The session is away for a while, or not: its chain goes down when it may, and is brought back so
 * that it is there when the session is. */
static void away(struct wf_node *node, struct wf_session_entry *session)
{
    if (session->state == WEFT_WAITING && node->below && session->has_tip)
        wf_chain_cool(&node->domains[session->domain], session->tip);
    wf_session_says(node, session);
}

void wf_session_back(struct wf_client *client, uint64_t id)
{
    struct wf_session_entry *session = session_of(client, id);
    if (session)
        wf_session_returns(client->node, session);
}

/* ------------------------------------------------------------------------------------ deadlines */

static void hurry(struct wf_node *node, struct wf_session_entry *session, bool near)
{
    struct wf_domain *domain = &node->domains[session->domain];
    domain->hurried = domain->hurried + near - session->hurried;
    session->hurried = near;
}

/* A deadline is near when there would be no time to have the chain again, and while it is being
 * worked for; over when the first token is there, or too late. */
static void hurry_plan(struct wf_node *node, struct wf_session_entry *session)
{
    uint32_t number = (uint32_t)(session - node->sessions);
    bool made = session->state == WEFT_DECODING || session->state == WEFT_DONE;
    uint64_t now_ns = wf_now_ns(), due_ns = session->hinted_ns + session->deadline_ms * 1000000ull;
    struct wf_chain chain = {.there = 0};
    wf_timers_cancel(&node->deadlines, number);
    hurry(node, session, false);
    if (!session->deadline_ms || made || now_ns >= due_ns)
        return;
    if (session->has_tip)
        wf_chain_look(&node->domains[session->domain], session->tip, &chain);
    uint64_t again_ns = (uint64_t)(wf_chain_again_s(&chain) * 1e9);
    bool near = session->state == WEFT_PREFILL || due_ns - now_ns <= again_ns;
    hurry(node, session, near);
    wf_timers_set(&node->deadlines, number, near ? due_ns : due_ns - again_ns);
}

void wf_sessions_hurry(struct wf_node *node)
{
    for (;;) {
        uint32_t number = wf_timers_pop(&node->deadlines, wf_now_ns());
        if (number == WF_TIMERS_NONE)
            return;
        struct wf_session_entry *session = &node->sessions[number];
        hurry(node, session, !session->hurried);
        if (session->hurried)
            wf_timers_set(&node->deadlines, number,
                          session->hinted_ns + session->deadline_ms * 1000000ull);
    }
}

/* ----------------------------------------------------------------------- opened, hinted, closed */

static struct wf_session_entry *session_take(struct wf_node *node)
{
    uint32_t place = node->session_first_free;
    if (place != UINT32_MAX)
        node->session_first_free = node->sessions[place].next_free;
    else if (node->session_used < node->config.sessions_max)
        place = node->session_used++;
    else
        return NULL;
    struct wf_session_entry *session = &node->sessions[place];
    uint32_t generation = session->generation + 1;
    *session = (struct wf_session_entry){
        .id = (uint64_t)generation << 32 | (place + 1),
        .generation = generation,
        .state = WEFT_IDLE,
        .opened_ns = wf_now_ns(),
        .hinted_ns = wf_now_ns(),
    };
    node->session_count++;
    return session;
}

static void untold_set(struct wf_node *node, struct wf_session_entry *session, bool untold)
{
    node->session_untold = node->session_untold + untold - session->untold;
    session->untold = untold;
}

static void session_free(struct wf_node *node, struct wf_session_entry *session)
{
    tip_unhold(node, session);
    untold_set(node, session, false);
    wf_session_ends(node, session);
    wf_timers_cancel(&node->deadlines, (uint32_t)(session - node->sessions));
    hurry(node, session, false);
    node->domains[session->domain].sessions--;
    session->id = 0;
    session->next_free = node->session_first_free;
    node->session_first_free = (uint32_t)(session - node->sessions);
    node->session_count--;
}

void wf_handle_session_open(struct wf_client *client, const struct wf_session_open *request)
{
    struct wf_node *node = client->node;
    enum weft_status status = WEFT_OK;
    const struct wf_session_entry *origin = NULL;
    if (request->format >= node->format_count ||
        node->formats[request->format].domain != client->domain->id)
        status = wf_fail(WEFT_E_INVALID, "format %u is not registered in this domain",
                         request->format);
    else if (request->priority > 9)
        status = wf_fail(WEFT_E_INVALID, "priority %u; give 0 (background) to 9 (most urgent)",
                         request->priority);
    else if (request->salt_bytes > sizeof request->salt)
        status = wf_fail(WEFT_E_INVALID, "a session's salt of %u bytes; give up to 256",
                         request->salt_bytes);
    else if (wf_text_check("a session's name", request->name, 64, false) != WEFT_OK)
        status = WEFT_E_INVALID;
    else if (request->fork_of && !(origin = session_of(client, request->fork_of)))
        status = wf_fail(WEFT_E_NOT_FOUND, "session %llu to fork from is not this client's",
                         (unsigned long long)request->fork_of);
    struct wf_session_entry *session = status == WEFT_OK ? session_take(node) : NULL;
    if (status == WEFT_OK && !session)
        status =
            wf_fail(WEFT_E_LIMIT,
                    "%u sessions are open, which is all that limits.sessions allows; close some "
                    "or raise it",
                    node->session_count);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    session->client = client->id;
    session->domain = client->domain->id;
    session->format = request->format;
    session->priority = request->priority;
    memcpy(session->name, request->name, 64);
    client->domain->sessions++;
    if (origin && origin->has_tip)
        tip_set(node, session, origin->tip);
    struct wf_session_answer *answer = (struct wf_session_answer *)(void *)node->answer;
    answer->session = session->id;
    wf_format_root(client, request->format, request->salt, request->salt_bytes, answer->root);
    wf_answer(client, &request->message, WEFT_OK, sizeof *answer, NULL, 0);
}

static void answer_done(struct wf_client *client, const struct wf_message *to, bool found,
                        uint64_t id)
{
    if (!found) {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_NOT_FOUND, "session %llu is not this client's",
                                  (unsigned long long)id));
        return;
    }
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)client->node->answer;
    answer->count = 1;
    wf_answer(client, to, WEFT_OK, sizeof *answer, NULL, 0);
}

void wf_handle_session_close(struct wf_client *client, const struct wf_session_close *request)
{
    struct wf_session_entry *session = session_of(client, request->session);
    if (session)
        session_free(client->node, session);
    answer_done(client, &request->message, session != NULL, request->session);
}

/* What waiting for a session counts, for what is evicted: twice as much a step of priority. */
static float weight_of(const struct wf_session_entry *session)
{
    return ldexpf(1, (int)session->priority - (int)PRIORITY_USUAL);
}

/* The last `blocks` of its chain.  Where all are of the usual priority, there is nothing to say. */
static void weigh(struct wf_domain *domain, const struct wf_session_entry *session, uint32_t tip,
                  uint32_t blocks)
{
    domain->weighed |= session->priority != PRIORITY_USUAL;
    if (domain->weighed)
        wf_store_weigh(&domain->store, tip, blocks, weight_of(session));
}

/* Of its chain up to `slot`. */
static void tell(struct wf_node *node, const struct wf_session_entry *session, uint32_t slot)
{
    struct wf_domain *domain = &node->domains[session->domain];
    bool back = session->state == WEFT_WAITING ||
                (session->state == WEFT_IDLE && (session->returns_in_ms || session->deadline_ms));
    if (session->state != WEFT_PREFILL && session->state != WEFT_DECODING)
        weigh(domain, session, slot, UINT32_MAX); /* it may go from now on */
    if (session->output_tokens)
        wf_store_made(&domain->store, slot, session->output_tokens);
    if (back || session->state == WEFT_DONE)
        wf_store_said(&domain->store, slot, back);
}

/* What the policy makes of a hint.  That a session decodes is no opinion: its chain is held.  Of
 * what lies below it knows nothing: it is told when it is up. */
static void policy_tell(struct wf_node *node, struct wf_session_entry *session,
                        uint32_t output_tokens)
{
    struct wf_store *store = &node->domains[session->domain].store;
    uint32_t slot = session->has_tip ? wf_store_find(store, session->tip) : WF_SLOT_NONE;
    struct wf_chain chain = {.end = WF_SLOT_NONE};
    bool below = session->has_tip && slot == WF_SLOT_NONE && node->below;
    session->output_tokens = output_tokens;
    if (below)
        wf_chain_look(&node->domains[session->domain], session->tip, &chain);
    untold_set(node, session, chain.absent > 0);
    if (slot != WF_SLOT_NONE)
        tell(node, session, slot);
    else if (chain.end != WF_SLOT_NONE) {
        session->output_tokens = 0; /* of the end, and of nothing before it */
        tell(node, session, chain.end);
        session->output_tokens = output_tokens;
    }
}

/* Was it used after the session spoke of it?  Then another knows better that it is over. */
static bool used_since(const struct wf_store *store, const struct wf_session_entry *session,
                       uint32_t slot)
{
    struct wf_policy_reason why;
    store->policy_ops->explain(store->policy, slot, &why);
    double said_s = (double)(wf_now_ns() - session->hinted_ns) * 1e-9;
    return !why.knows || why.age_s + USED_S < said_s; /* it is being used, or was */
}

void wf_sessions_tell(struct wf_node *node)
{
    for (uint32_t looked = 0; node->session_untold && looked < TELL_LOOKS; looked++) {
        if (node->session_telling >= node->session_used)
            node->session_telling = 0;
        struct wf_session_entry *session = &node->sessions[node->session_telling++];
        if (!session->id || !session->untold)
            continue;
        const struct wf_store *store = &node->domains[session->domain].store;
        uint32_t slot = wf_store_find(store, session->tip);
        if (slot == WF_SLOT_NONE)
            continue;
        untold_set(node, session, false);
        if (session->state != WEFT_DONE || !used_since(store, session, slot))
            tell(node, session, slot);
    }
}

/* It goes on, it ends, or it says of the same wait what it knows better now. */
static void back_note(struct wf_node *node, struct wf_session_entry *session,
                      const struct wf_session_hint *request)
{
    bool active = request->state == WEFT_PREFILL || request->state == WEFT_DECODING;
    bool longer = request->has_tip &&
                  (!session->has_tip || memcmp(session->tip, request->tip, 32) != 0);
    if (active || longer)
        wf_session_returns(node, session);
    else if (request->state == WEFT_DONE)
        wf_session_ends(node, session);
}

void wf_handle_session_hint(struct wf_client *client, const struct wf_session_hint *request)
{
    struct wf_session_entry *session = session_of(client, request->session);
    if (request->state < WEFT_PREFILL || request->state > WEFT_DONE) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_INVALID,
                                  "session state %u is none of WEFT_PREFILL to WEFT_DONE",
                                  request->state));
        return;
    }
    if (session) {
        wf_client_touches_drain(
            client); /* what it says is about the request that these belong to */
        back_note(client->node, session, request);
        tip_unhold(client->node, session);
        session->state = (enum weft_session_state)request->state;
        session->returns_in_ms = request->returns_in_ms;
        session->deadline_ms = request->deadline_ms;
        session->hinted_ns = wf_now_ns();
        if (request->has_tip)
            tip_set(client->node, session, request->tip);
        else
            tip_hold(client->node, session);
        policy_tell(client->node, session, request->output_tokens);
        away(client->node, session);
        hurry_plan(client->node, session);
    }
    answer_done(client, &request->message, session != NULL, request->session);
}

void wf_session_advance(struct wf_client *client, uint64_t id, const uint8_t tip[32])
{
    struct wf_session_entry *session = session_of(client, id);
    if (session)
        wf_session_returns(client->node, session);
    /* A tip that was not stored leaves the session with the chain that it has. */
    uint32_t slot = session ? wf_store_find(&client->domain->store, tip) : WF_SLOT_NONE;
    if (slot == WF_SLOT_NONE)
        return;
    uint32_t before = session->tip_blocks;
    untold_set(client->node, session, false);
    tip_set(client->node, session, tip);
    uint32_t blocks = session->tip_blocks;
    weigh(client->domain, session, slot, blocks > before ? blocks - before : blocks);
}

void wf_sessions_drop(struct wf_client *client)
{
    struct wf_node *node = client->node;
    if (client->domain->sessions == 0)
        return;
    for (uint32_t i = 0; i < node->session_used; i++)
        if (node->sessions[i].id && node->sessions[i].client == client->id)
            session_free(node, &node->sessions[i]);
}
