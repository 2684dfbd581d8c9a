/* SPDX-License-Identifier: Apache-2.0
 *
 * The words matter little: a system prompt that is long and the same for all, questions that are
 * short and are not.
 */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llama/say.h"

#define SYSTEM_TOKENS_MAX 256
#define QUESTION_TOKENS_MAX 32
#define ANSWER_TOKENS_MAX 12

static const char system_text[] =
    "Once upon a time, in a small town by the sea, there was a library with a very old "
    "librarian. She knew every book on every shelf, and she never told a story that was not "
    "true. When a child came in and asked a question, she listened to the whole of it before "
    "she answered. If she knew the answer, she gave it in plain words, and she said which "
    "book it came from. If she did not know, she said so, and they looked for it together. "
    "She was kind to everyone, to the loud and to the shy, and she was never in a hurry. On "
    "rainy days the children sat around the stove, and she read to them about ships and "
    "storms, about gardens and bees, about the moon and the tides. She did not like it when "
    "people shouted. She liked tea, and cats, and letters from far away. You are the "
    "librarian. The children of the town are about to come in, one after the other, and each "
    "of them will ask you something. Answer the way she would. Keep it short, be gentle, and "
    "do not make anything up. The door opens, the little bell rings, and the first child is "
    "already there. ";

static const char *const question_texts[SCRIPT_USERS_MAX][SCRIPT_TURNS_MAX + 1] = {
    {"Lily asked: why is the sea salty?", " Then she asked: can fish get thirsty?",
     " And she said: tell me about a big fish.", " And she said: tell me about a tiny boat."},
    {"Tom asked: how do bees find their way home?", " He thought and asked: do they ever get lost?",
     " Then he said: I saw a bee today.", " Then he said: I like honey on bread."},
    {"Mia had a red ball and asked: why is it round?",
     " She bounced it and asked: why does it jump?", " Mia laughed and said: look, it is gone!",
     " Mia smiled and said: you may have it."},
    {"Ben whispered: is the moon far away?", " He looked up: could I walk there?",
     " Ben yawned and asked: where does it sleep?", " Ben jumped and asked: who lives on it?"},
    {"Anna asked: who wrote the first book?", " She wondered: what was it about?",
     " Then Anna asked: may I write one too?", " Then Anna asked: may I draw one too?"},
    {"Sam came in wet and asked: where does rain come from?",
     " He shook his coat: and where does it go?", " Sam said: my dog does not like it.",
     " Sam said: my duck likes it a lot."},
    {"Zoe asked: why do cats purr?", " She held her cat and asked: is she happy?",
     " Zoe said: she wants to play now.", " Zoe said: she wants some milk now."},
    {"Max asked: what is the oldest tree?", " Then he asked: how do you know its age?",
     " Max said: I planted a seed once.", " Max said: I fell from a tree once."},
};

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static bool encode(const struct wf_tokenizer *tokenizer, const char *text, bool begin, uint32_t max,
                   uint32_t **out, uint32_t *out_count)
{
    *out = malloc(max * sizeof(**out));
    if (!*out)
        return wf_say_failed("no memory for a prompt of %u tokens", max);
    *out_count = (uint32_t)wf_tokenizer_encode(tokenizer, text, begin, *out, max);
    return *out_count > 0 || wf_say_failed("no memory to encode a prompt");
}

bool script_make(const struct wf_tokenizer *tokenizer, const struct wf_model_shape *shape,
                 uint32_t users, uint32_t turns, uint32_t forks, struct script *out)
{
    struct script s = {.users = users, .turns = turns, .forks = forks};
    uint32_t context = shape->context;
    uint32_t system_max = smaller(SYSTEM_TOKENS_MAX, context / 2);
    uint32_t round_max = (context - system_max) / turns;
    if (round_max < 8)
        return wf_say_failed("a context of %u is too short for %u turns: give a model with more",
                             context, turns);
    uint32_t question_max = smaller(QUESTION_TOKENS_MAX, round_max * 2 / 3);
    s.answer_max = smaller(ANSWER_TOKENS_MAX, round_max - question_max);

    bool ok = encode(tokenizer, system_text, true, system_max, &s.system, &s.system_count);
    for (uint32_t user = 0; user < users; user++)
        for (uint32_t turn = 0; turn <= turns && ok; turn++) {
            uint32_t text = turn < turns ? turn : SCRIPT_TURNS_MAX;
            ok = encode(tokenizer, question_texts[user][text], false, question_max,
                        &s.questions[user][turn].tokens, &s.questions[user][turn].count);
        }
    if (ok)
        *out = s;
    else
        script_free(&s);
    return ok;
}

void script_free(struct script *script)
{
    free(script->system);
    for (uint32_t user = 0; user < SCRIPT_USERS_MAX; user++)
        for (uint32_t turn = 0; turn <= SCRIPT_TURNS_MAX; turn++)
            free(script->questions[user][turn].tokens);
    *script = (struct script){0};
}

/* ------------------------------------------------------------------------------------- playing */

struct listener {
    const struct play *play;
    struct record *record;
    const struct record *expected; /* NULL: nothing to compare with */
};

static const struct record *record_find(const struct play *play, uint32_t user, uint32_t turn)
{
    for (uint32_t i = 0; play && i < play->count; i++)
        if (play->records[i].user == user && play->records[i].turn == turn)
            return &play->records[i];
    return NULL;
}

static bool listen(void *context, uint32_t token, const float *logits)
{
    struct listener *listener = context;
    struct record *record = listener->record;
    const struct record *expected = listener->expected;
    size_t vocab = listener->play->server->model->shape.vocab, row = record->count;
    memcpy(record->logits + row * vocab, logits, vocab * sizeof(*logits));
    record->chosen[row] = token;
    record->count++;
    if (expected && (row >= expected->count || expected->chosen[row] != token ||
                     memcmp(expected->logits + row * vocab, logits, vocab * sizeof(*logits)) != 0))
        record->differing++;
    return !*listener->play->interrupted;
}

/* One turn of one user; turn 0 brings the system prompt along. */
static bool play_turn(struct play *play, struct chat *chat, uint32_t user, uint32_t turn)
{
    const struct script *script = play->script;
    uint32_t vocab = play->server->model->shape.vocab;
    uint32_t before = turn == 0 ? script->system_count : 0;
    uint32_t count = before + script->questions[user][turn].count;
    struct record record = {.user = user, .turn = turn};
    struct listener listener = {play, &record, record_find(play->compare, user, turn)};
    uint32_t *prompt = malloc(count * sizeof(*prompt));
    record.chosen = calloc(script->answer_max, sizeof(*record.chosen));
    record.logits = calloc((size_t)script->answer_max * vocab, sizeof(*record.logits));
    bool ok = prompt && record.chosen && record.logits;
    if (ok) {
        memcpy(prompt, script->system, before * sizeof(*prompt));
        memcpy(prompt + before, script->questions[user][turn].tokens,
               (count - before) * sizeof(*prompt));
        struct turn_request request = {prompt,        count,  script->answer_max,
                                       choose_greedy, listen, &listener};
        ok = chat_turn(chat, &request, &record.result);
        if (listener.expected && record.count != listener.expected->count)
            record.differing++;
    } else {
        wf_say_keep("no memory to record %u answers of %u logits", script->answer_max, vocab);
    }
    free(prompt);
    play->records[play->count++] = record;
    if (ok && play->progress)
        play->progress(play->context, &record, play->count, play->total);
    return ok && (!*play->interrupted || wf_say_failed("interrupted"));
}

/* Bring a chat to where `compare` had it after `turns` turns. */
static void catch_up(const struct play *play, struct chat *chat, uint32_t user, uint32_t turns)
{
    const struct script *script = play->script;
    for (uint32_t turn = 0; turn < turns; turn++) {
        const struct record *said = record_find(play->compare, user, turn);
        if (turn == 0) {
            memcpy(chat->tokens, script->system, script->system_count * sizeof(uint32_t));
            chat->count = script->system_count;
        }
        uint32_t asked = script->questions[user][turn].count;
        memcpy(chat->tokens + chat->count, script->questions[user][turn].tokens,
               asked * sizeof(uint32_t));
        chat->count += asked;
        memcpy(chat->tokens + chat->count, said->chosen, said->result.answered * sizeof(uint32_t));
        chat->count += said->result.answered;
    }
}

static bool open_chats(struct play *play)
{
    char name[32];
    for (uint32_t user = 0; user < play->script->users; user++) {
        snprintf(name, sizeof(name), "user%u", user + 1);
        if (!chat_open(play->server, name, &play->chats[user]))
            return false;
        catch_up(play, &play->chats[user], user, play->turn_first);
    }
    return true;
}

static bool open_forks(struct play *play)
{
    char name[32];
    for (uint32_t user = 0; user < play->script->forks; user++) {
        snprintf(name, sizeof(name), "user%u-fork", user + 1);
        if (!chat_fork(&play->chats[user], name, &play->chats[SCRIPT_USERS_MAX + user]))
            return false;
    }
    return true;
}

bool play_run(struct play *play)
{
    const struct script *script = play->script;
    bool forks = play->turn_end == script->turns;
    play->total = script->users * (play->turn_end - play->turn_first) + (forks ? script->forks : 0);
    play->records = calloc(play->total, sizeof(*play->records));
    if (!play->records)
        return wf_say_failed("no memory for %u records", play->total);
    if (!open_chats(play))
        return false;
    for (uint32_t turn = play->turn_first; turn < play->turn_end; turn++) {
        if (turn + 1 == script->turns && !open_forks(play))
            return false;
        for (uint32_t user = 0; user < script->users; user++)
            if (!play_turn(play, &play->chats[user], user, turn))
                return false;
    }
    for (uint32_t user = 0; forks && user < script->forks; user++)
        if (!play_turn(play, &play->chats[SCRIPT_USERS_MAX + user], user, script->turns))
            return false;
    return true;
}

void play_free(struct play *play)
{
    for (uint32_t i = 0; i < play->count; i++) {
        free(play->records[i].chosen);
        free(play->records[i].logits);
    }
    free(play->records);
    for (uint32_t i = 0; i < 2 * SCRIPT_USERS_MAX; i++)
        chat_close(&play->chats[i]);
    play->records = NULL;
    play->count = 0;
}

/* ----------------------------------------------------------------------------- what came of it */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double play_ttft_ms_median(const struct play *play, const struct play *as)
{
    double times[SCRIPT_USERS_MAX * (SCRIPT_TURNS_MAX + 1)];
    uint32_t count = 0;
    for (uint32_t i = 0; i < play->count; i++)
        if (record_find(as, play->records[i].user, play->records[i].turn))
            times[count++] = (double)play->records[i].result.ttft_us / 1000.0;
    if (count == 0)
        return 0.0;
    qsort(times, count, sizeof(*times), compare_doubles);
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

double play_hit_rate(const struct play *play)
{
    uint64_t hit = 0, history = 0;
    for (uint32_t i = 0; i < play->count; i++) {
        hit += play->records[i].result.hit;
        history += play->records[i].result.history;
    }
    return history ? (double)hit / (double)history : 0.0;
}

uint64_t play_differing(const struct play *play)
{
    uint64_t differing = 0;
    for (uint32_t i = 0; i < play->count; i++)
        differing += play->records[i].differing;
    return differing;
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct weft_key));
}

bool play_storage(const struct play *play, struct storage *out)
{
    const struct server *server = play->server;
    uint32_t block_tokens = server->kv.block_tokens;
    size_t count = 0;
    struct weft_key *keys = malloc(sizeof(*keys) * 2 * SCRIPT_USERS_MAX * server->kv.blocks_max);
    if (!keys)
        return wf_say_failed("no memory for the keys of %d chats", 2 * SCRIPT_USERS_MAX);
    for (uint32_t i = 0; i < 2 * SCRIPT_USERS_MAX; i++) {
        const struct chat *chat = &play->chats[i];
        size_t present, blocks = chat->count / block_tokens;
        if (blocks == 0)
            continue;
        if (weft_keys_from_tokens(server->format, NULL, chat->tokens, chat->count, NULL,
                                  keys + count) != WEFT_OK ||
            weft_match_keys(server->format, keys + count, blocks, &present) != WEFT_OK) {
            free(keys);
            return wf_say_failed("%s", weft_last_error());
        }
        count += present;
    }
    *out = (struct storage){.logical_blocks = count,
                            .block_bytes = weft_format_block_bytes(server->format)};
    qsort(keys, count, sizeof(*keys), compare_keys);
    for (size_t i = 0; i < count; i++)
        out->stored_blocks += i == 0 || compare_keys(&keys[i - 1], &keys[i]) != 0;
    free(keys);
    return true;
}
