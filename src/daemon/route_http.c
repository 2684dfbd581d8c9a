/* SPDX-License-Identifier: Apache-2.0
 *
 * POST /v1/route: a question in JSON, and its answer.
 *
 * A stranger's bytes: every member has its type and its bounds, what nobody knows is refused by its
 * name, and a mistake is answered with a sentence.  docs/CLUSTER.md has the members.
 * On the owner thread; what a crash leaves is nothing.
 */
#include <jansson.h>
#include <math.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "daemon/route.h"
#include "daemon/route_lists.h"
#include "sys/memory.h"

#define OK 200u
#define BAD 400u
#define FORBIDDEN 403u
#define NOT_FOUND 404u
#define UNAVAILABLE 503u
#define NUMBER_MAX 1e12
#define DERIVED 256u /* keys at a time */
#define SHOWN_MAX 60 /* bytes of a wrong value in a sentence */

/* One that is read; `status` is of HTTP, and what is no OK has left a sentence. */
struct reading {
    struct wf_node *node;
    const json_t *root;
    struct wf_domain *domain;
    const struct wf_format_entry *format; /* NULL: none was named */
    struct wf_route_lists lists;
    struct wf_routes_question question;
    unsigned status;
};

/* `value` is what was given, of which the sentence has the beginning; NULL: it shows nothing. */
static bool bad(struct reading *r, unsigned status, const char *member, const json_t *value,
                const char *mend)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII)
                       : NULL;
    r->status = status;
    if (text)
        (void)!wf_fail(WEFT_E_INVALID, "%s is %.*s%s: %s", member, SHOWN_MAX, text,
                       strlen(text) > SHOWN_MAX ? "..." : "", mend);
    else
        (void)!wf_fail(WEFT_E_INVALID, "%s: %s", member, mend);
    free(text);
    return false;
}

static bool members_known(struct reading *r, const json_t *object, const char *const *names)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key) != 0)
            i++;
        if (!names[i]) {
            json_t *name = json_string(key);
            (void)bad(r, BAD, "the name of a member", name,
                      "there is no such member; docs/CLUSTER.md lists them");
            json_decref(name);
            return false;
        }
    }
    return true;
}

/* A number that is not there is as it was. */
static bool number_read(struct reading *r, const json_t *object, const char *name, double *out)
{
    const json_t *value = json_object_get(object, name);
    if (!value)
        return true;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= 0 && number <= NUMBER_MAX))
        return bad(r, BAD, name, value, "give a number from 0 to 1e12");
    *out = number;
    return true;
}

static const char *text_read(struct reading *r, const json_t *object, const char *name,
                             const char *otherwise)
{
    const json_t *value = json_object_get(object, name);
    if (value && !json_is_string(value))
        (void)bad(r, BAD, name, value, "give a string");
    const char *text = json_string_value(value);
    return text ? text : otherwise;
}

/* --------------------------------------------------------------------- whose, and which format */

static bool domain_read(struct reading *r)
{
    const char *name = text_read(r, r->root, "domain", "default");
    const char *token = text_read(r, r->root, "token", "");
    if (r->status != OK)
        return false;
    r->domain = wf_node_domain(r->node, name);
    if (!r->domain)
        return bad(r, NOT_FOUND, "domain", json_object_get(r->root, "domain"),
                   "there is none of that name on this node; `weft ls domains` lists them");
    const char *right = r->domain->config->token;
    size_t length = strlen(right);
    if (length && (strlen(token) != length || CRYPTO_memcmp(token, right, length) != 0))
        return bad(r, FORBIDDEN, "token", NULL, "give that of the domain");
    if (!length && r->node->domain_count > 1 && !r->node->config.http_token[0])
        return bad(r, FORBIDDEN, "domain", NULL,
                   "of several, one without a token is not for every user of this host; set "
                   "http.token and send it, or give the domain a token");
    return true;
}

static bool format_read(struct reading *r)
{
    const json_t *number = json_object_get(r->root, "format");
    const char *model = text_read(r, r->root, "model", NULL);
    uint32_t found = 0;
    if (r->status != OK)
        return false;
    if (number && !json_is_integer(number))
        return bad(r, BAD, "format", number, "give its number, as `weft ls formats` lists it");
    for (uint32_t i = 0; (number || model) && i < r->node->format_count; i++) {
        const struct wf_format_entry *entry = &r->node->formats[i];
        if (entry->domain != r->domain->id ||
            (number && json_integer_value(number) != (json_int_t)i) ||
            (model && strcmp(entry->request->model, model) != 0))
            continue;
        r->format = entry;
        found++;
    }
    if ((number || model) && !found)
        return bad(r, NOT_FOUND, number ? "format" : "model",
                   json_object_get(r->root, number ? "format" : "model"),
                   "no client has opened such a format in this domain of this node; `weft ls "
                   "formats` lists those that there are");
    if (found > 1)
        return bad(r, BAD, "model", json_object_get(r->root, "model"),
                   "several formats are of that model; name one by `format`, its number in `weft "
                   "ls formats`");
    double tokens = r->format ? r->format->block_tokens : 0;
    if (!number_read(r, r->root, "block_tokens", &tokens))
        return false;
    if (r->format && tokens != r->format->block_tokens)
        return bad(r, BAD, "block_tokens", json_object_get(r->root, "block_tokens"),
                   "the format has another number of them; leave it out");
    return true;
}

/* ------------------------------------------------------------------------------------ the chain */

/* A power of two, so that longer and shorter chains are asked for by the same keys. */
static uint32_t stride_of(size_t count)
{
    uint32_t stride = 1;
    while (count / stride > WF_ROUTES_KEYS_MAX)
        stride *= 2;
    return stride;
}

static bool keys_read(struct reading *r)
{
    uint8_t(*keys)[32] = wf_node_route_keys(r->node);
    size_t count = r->lists.key_count;
    uint32_t stride = stride_of(count);
    for (size_t i = stride - 1; i < count; i += stride)
        memcpy(keys[i / stride], r->lists.keys[i], 32);
    r->question.count = (uint32_t)(count / stride);
    r->question.stride = stride;
    double block_tokens = r->format ? r->format->block_tokens : 1;
    (void)number_read(r, r->root, "block_tokens", &block_tokens);
    if (block_tokens < 1)
        return bad(r, BAD, "block_tokens", json_object_get(r->root, "block_tokens"),
                   "give at least 1");
    r->question.request.tokens = (double)count * block_tokens;
    r->question.request.block_tokens = block_tokens;
    return true;
}

/* Keys of its full blocks, from one to the next. */
static void derive(struct reading *r, const uint32_t *tokens, size_t blocks, uint32_t stride)
{
    uint8_t(*keys)[32] = wf_node_route_keys(r->node), some[DERIVED][32], parent[32];
    uint32_t each = r->format->block_tokens;
    memcpy(parent, r->format->root, 32);
    for (size_t from = 0; from < blocks; from += DERIVED) {
        size_t count = blocks - from < DERIVED ? blocks - from : DERIVED;
        wf_identity_chain(parent, tokens + from * each, count, each, NULL, some[0]);
        memcpy(parent, some[count - 1], 32);
        for (size_t i = 0; i < count; i++)
            if ((from + i + 1) % stride == 0)
                memcpy(keys[(from + i) / stride], some[i], 32);
    }
}

static bool tokens_read(struct reading *r)
{
    size_t count = r->lists.token_count;
    if (!r->format)
        return bad(r, BAD, "tokens", NULL, "they say nothing without `format` or `model`");
    size_t blocks = count / r->format->block_tokens;
    uint32_t stride = stride_of(blocks);
    derive(r, r->lists.tokens, blocks, stride);
    r->question.count = (uint32_t)(blocks / stride);
    r->question.stride = stride;
    r->question.request.tokens = (double)count;
    return true;
}

static bool chain_read(struct reading *r)
{
    const struct wf_route_lists *lists = &r->lists;
    bool odd = !json_object_get(r->root, "tokens") != !lists->tokens ||
               !json_object_get(r->root, "keys") != !lists->keys;
    wf_node_route_request(r->format, 0, 0, 0, &r->question.request);
    if (odd || !lists->tokens == !lists->keys)
        return bad(r, BAD, "tokens", NULL,
                   "give a list of them, or of keys as `keys`, and one of both");
    r->question.keys = (const uint8_t(*)[32])wf_node_route_keys(r->node);
    return lists->tokens ? tokens_read(r) : keys_read(r);
}

/* ----------------------------------------------------------------------------------- candidates */

static bool candidate_read(struct reading *r, const json_t *from, struct wf_routes_candidate *out)
{
    static const char *const known[] = {"node",      "queued_tokens", "running",
                                        "batch_max", "tokens_s",      "decode_s",
                                        "age_s",     "closed",        NULL};
    const char *name = json_is_string(from) ? json_string_value(from)
                                            : text_read(r, from, "node", NULL);
    const json_t *closed = json_object_get(from, "closed");
    double running = 0, batch_max = 0;
    *out = (struct wf_routes_candidate){.loaded = json_object_size(from) > 1};
    if (!name || !name[0] || strlen(name) >= sizeof out->name)
        return bad(r, BAD, "a candidate", from, "each has a `node`, its name of 1 to 63 bytes");
    memcpy(out->name, name, strlen(name));
    if (json_is_string(from))
        return true;
    if (!members_known(r, from, known) ||
        !number_read(r, from, "queued_tokens", &out->load.queued_tokens) ||
        !number_read(r, from, "tokens_s", &out->load.tokens_s) ||
        !number_read(r, from, "decode_s", &out->load.decode_s) ||
        !number_read(r, from, "age_s", &out->age_s) || !number_read(r, from, "running", &running) ||
        !number_read(r, from, "batch_max", &batch_max))
        return false;
    if (running > UINT32_MAX || batch_max > UINT32_MAX || (closed && !json_is_boolean(closed)))
        return bad(r, BAD, "a candidate", from,
                   "`running` and `batch_max` are below 2^32, and `closed` is true or false");
    out->load.running = (uint32_t)running;
    out->load.batch_max = (uint32_t)batch_max;
    out->load.closed = json_is_true(closed);
    return true;
}

static bool candidates_read(struct reading *r)
{
    const json_t *list = json_object_get(r->root, "candidates");
    struct wf_routes_candidate *candidates = wf_node_route_candidates(r->node);
    size_t count = json_array_size(list);
    if (list && (!json_is_array(list) || count > WF_ROUTES_CANDIDATES_MAX))
        return bad(r, BAD, "candidates", NULL, "give a list of up to 256");
    for (size_t i = 0; i < count; i++)
        if (!candidate_read(r, json_array_get(list, i), &candidates[i]))
            return false;
    r->question.candidates = candidates;
    r->question.candidate_count = (uint32_t)count;
    return true;
}

static bool rest_read(struct reading *r)
{
    const json_t *id = json_object_get(r->root, "id"), *ask = json_object_get(r->root, "ask");
    if (id && !json_is_integer(id) && !json_is_string(id))
        return bad(r, BAD, "id", id, "give a whole number or a string");
    if (ask && !json_is_boolean(ask))
        return bad(r, BAD, "ask", ask, "give true or false");
    uint64_t number = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *at = json_string_value(id); at && *at; at++)
        number = (number ^ (uint8_t)*at) * 0x100000001b3u;
    r->question.request.id = json_is_integer(id) ? (uint64_t)json_integer_value(id) : number;
    r->question.asks_only = json_is_true(ask);
    return number_read(r, r->root, "output_tokens", &r->question.request.output_tokens);
}

/* ----------------------------------------------------------------------------------- the answer */

static json_t *ms_json(double seconds)
{
    double ms = round(seconds * 1e6) / 1e3;
    return isfinite(ms) ? json_real(ms) : json_null(); /* a finite time may be too many of them */
}

static json_t *term_json(const struct wf_routes_answer *a, uint32_t i)
{
    const struct wf_route_term *t = &a->terms[i].term;
    char why[WEFT_ROUTE_WHY_MAX];
    (void)wf_routes_say(a, i, why, sizeof why);
    bool fetches = t->action == WF_ROUTE_FETCH && t->source < a->count + a->others;
    return json_pack("{s:o, s:I, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "node",
                     json_string(a->terms[i].name), "hit_tokens", (json_int_t)t->hit_tokens,
                     "action", wf_route_action_name(t->action), "source",
                     fetches ? json_string(a->terms[t->source].name) : json_null(), "held_blocks",
                     (json_int_t)a->terms[i].held_blocks, "load_blocks", (json_int_t)t->load_blocks,
                     "fetch_blocks", (json_int_t)t->fetch_blocks, "queue_ms",
                     ms_json(t->queue_s + t->slot_s), "transfer_ms",
                     ms_json(t->latency_s + t->data_s), "compute_ms", ms_json(t->prefill_s),
                     "ttft_ms", ms_json(t->ttft_s), "why", json_string(why));
}

static char *answer_json(const struct wf_routes_answer *a, uint32_t stride)
{
    bool serves = a->chosen < a->count;
    json_t *out = serves ? term_json(a, a->chosen) : json_pack("{s:n}", "node");
    json_t *rows = json_array();
    for (uint32_t i = 0; i < a->count; i++)
        json_array_append_new(rows, term_json(a, i));
    json_object_set_new(out, "stride", json_integer((json_int_t)stride));
    json_object_set_new(out, "took_us", json_integer((json_int_t)((a->took_ns + 500) / 1000)));
    json_object_set_new(out, "candidates", rows);
    char *text = json_dumps(out, JSON_COMPACT | JSON_REAL_PRECISION(12));
    json_decref(out);
    return text;
}

char *wf_route_http(void *context, const char *body, size_t bytes, unsigned *out_status)
{
    static const char *const known[] = {"domain",        "token", "format",       "model",
                                        "tokens",        "keys",  "block_tokens", "candidates",
                                        "output_tokens", "id",    "ask",          NULL};
    struct reading r = {.node = context, .status = OK};
    json_error_t error;
    json_t *root = NULL;
    char *text = NULL;
    enum weft_status listed = wf_route_lists_read(body, bytes, &r.lists);
    if (listed == WEFT_OK)
        r.root = root = json_loadb(r.lists.rest, r.lists.rest_bytes, JSON_REJECT_DUPLICATES,
                                   &error);
    if (listed != WEFT_OK) {
        r.status = listed == WEFT_E_NO_MEMORY ? UNAVAILABLE : BAD;
    } else if (!json_is_object(root)) {
        (void)bad(&r, BAD, "the body", NULL, root ? "give one JSON object" : error.text);
    } else if (!wf_node_route_answer(r.node)) {
        r.status = UNAVAILABLE;
    } else if (members_known(&r, root, known) && domain_read(&r) && format_read(&r) &&
               chain_read(&r) && candidates_read(&r) && rest_read(&r)) {
        r.question.domain = r.domain->id;
        enum weft_status status = wf_node_route(r.node, &r.question);
        if (status == WEFT_OK)
            text = answer_json(wf_node_route_answer(r.node), r.question.stride);
        else
            r.status = status == WEFT_E_NO_MEMORY ? UNAVAILABLE : BAD;
    }
    if (r.status != OK) {
        json_t *refusal = json_pack("{s:o}", "error", json_string(wf_last_error()));
        text = refusal ? json_dumps(refusal, JSON_COMPACT) : NULL;
        json_decref(refusal);
    }
    json_decref(root);
    wf_route_lists_free(&r.lists);
    *out_status = r.status;
    return text;
}
