/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch of KV events, read where it lies.
 *
 * Twice: once to see that all of it is in order, then to tell of it.  Nothing is allocated but one
 * block's tokens, on the stack; nesting is bounded; a length is believed as far as bytes are there.
 */
#include <string.h>

#include "gateway/kvevents_codec.h"

#define DEPTH_MAX 8

enum type { NIL, BOOL, POSITIVE, NEGATIVE, FLOAT, TEXT, BYTES, ARRAY, MAP, EXTENSION };

struct cursor {
    const uint8_t *at, *end;
    bool broken;
};

struct item {
    enum type type;
    uint64_t number;     /* or how many elements or bytes */
    const uint8_t *data; /* of TEXT, BYTES and EXTENSION */
};

static uint64_t number_of(struct cursor *c, size_t width)
{
    uint64_t number = 0;
    if ((size_t)(c->end - c->at) < width) {
        c->broken = true;
        return 0;
    }
    for (size_t i = 0; i < width; i++)
        number = number << 8 | *c->at++;
    return number;
}

/* A number of `width` bytes that may be negative. */
static struct item integer(struct cursor *c, size_t width)
{
    uint64_t number = number_of(c, width), sign = UINT64_C(1) << (8 * width - 1);
    if (!(number & sign))
        return (struct item){.type = POSITIVE, .number = number};
    return (struct item){.type = NEGATIVE, .number = (number ^ sign) - sign};
}

/* What `length` bytes follow it; nothing, whose bytes nobody looks at, where they are not there. */
static struct item data(struct cursor *c, enum type type, uint64_t length)
{
    struct item item = {.type = type, .number = length, .data = c->at};
    c->broken |= length > (uint64_t)(c->end - c->at);
    if (c->broken)
        return (struct item){.type = NIL};
    c->at += length;
    return item;
}

/* Elements take a byte each at the least. */
static struct item container(struct cursor *c, enum type type, uint64_t count)
{
    uint64_t least = type == MAP ? 2 * count : count;
    c->broken |= least > (uint64_t)(c->end - c->at);
    if (c->broken)
        return (struct item){.type = NIL};
    return (struct item){.type = type, .number = count};
}

static struct item next(struct cursor *c)
{
    uint8_t byte = (uint8_t)number_of(c, 1);
    if (c->broken)
        return (struct item){.type = NIL};
    if (byte < 0x80)
        return (struct item){.type = POSITIVE, .number = byte};
    if (byte >= 0xe0)
        return (struct item){.type = NEGATIVE, .number = (uint64_t)(int64_t)(int8_t)byte};
    if (byte < 0x90)
        return container(c, MAP, byte & 0x0f);
    if (byte < 0xa0)
        return container(c, ARRAY, byte & 0x0f);
    if (byte < 0xc0)
        return data(c, TEXT, byte & 0x1f);
    switch (byte) {
    case 0xc0: return (struct item){.type = NIL};
    case 0xc2:
    case 0xc3: return (struct item){.type = BOOL, .number = byte & 1};
    case 0xc4:
    case 0xc5:
    case 0xc6: return data(c, BYTES, number_of(c, (size_t)1 << (byte - 0xc4)));
    case 0xc7:
    case 0xc8:
    case 0xc9: return data(c, EXTENSION, number_of(c, (size_t)1 << (byte - 0xc7)) + 1);
    case 0xca: return data(c, FLOAT, 4);
    case 0xcb: return data(c, FLOAT, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return (struct item){.type = POSITIVE, .number = number_of(c, (size_t)1 << (byte - 0xcc))};
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: return integer(c, (size_t)1 << (byte - 0xd0));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return data(c, EXTENSION, ((uint64_t)1 << (byte - 0xd4)) + 1);
    case 0xd9:
    case 0xda:
    case 0xdb: return data(c, TEXT, number_of(c, (size_t)1 << (byte - 0xd9)));
    case 0xdc:
    case 0xdd: return container(c, ARRAY, number_of(c, (size_t)2 << (byte - 0xdc)));
    case 0xde:
    case 0xdf: return container(c, MAP, number_of(c, (size_t)2 << (byte - 0xde)));
    default: c->broken = true; return (struct item){.type = NIL};
    }
}

/* Pass over the elements of `item`, whose head was read. */
static void pass(struct cursor *c, struct item item, int depth)
{
    if (item.type != ARRAY && item.type != MAP)
        return;
    if (depth == 0)
        c->broken = true;
    uint64_t count = item.type == MAP ? 2 * item.number : item.number;
    for (uint64_t i = 0; i < count && !c->broken; i++)
        pass(c, next(c), depth - 1);
}

/* -------------------------------------------------------------------------------------- events */

struct hash {
    size_t bytes;
    uint8_t data[WF_KV_HASH_MAX];
};

struct event {
    enum wf_kv_kind kind; /* 0: another */
    enum wf_kv_medium medium;
    struct cursor hashes, tokens; /* at the first element */
    uint64_t hash_count, token_count, block_size;
    uint32_t group;
    bool has_hashes, remote, rich; /* rich: images, a salt and the like are in the hashes */
    struct hash parent;
    const uint8_t *lora, *extra; /* extra: the text that is the only extra key of blocks */
    size_t lora_bytes, extra_bytes;
};

static void hash_of(struct cursor *c, struct item item, struct hash *out)
{
    if (item.type == POSITIVE || item.type == NEGATIVE) {
        out->bytes = 8;
        for (size_t i = 0; i < 8; i++)
            out->data[i] = (uint8_t)(item.number >> (56 - 8 * i));
    } else if (item.type == BYTES && item.number && item.number <= WF_KV_HASH_MAX) {
        out->bytes = (size_t)item.number;
        memcpy(out->data, item.data, out->bytes);
    } else {
        c->broken = true;
    }
}

static void take_hashes(struct cursor *c, struct item item, struct event *event)
{
    event->has_hashes = item.type == ARRAY && item.number <= WF_KV_HASHES_MAX;
    c->broken |= !event->has_hashes;
    event->hashes = *c;
    event->hash_count = item.number;
    struct hash hash;
    for (uint64_t i = 0; i < item.number && !c->broken; i++)
        hash_of(c, next(c), &hash);
}

static void take_tokens(struct cursor *c, struct item item, struct event *event)
{
    c->broken |= item.type != ARRAY;
    event->tokens = *c;
    event->token_count = item.number;
    for (uint64_t i = 0; i < item.number && !c->broken; i++) {
        struct item token = next(c);
        c->broken |= token.type != POSITIVE || token.number > UINT32_MAX;
    }
}

static bool is_text(struct item item, const char *text)
{
    return item.type == TEXT && item.number == strlen(text) &&
           memcmp(item.data, text, strlen(text)) == 0;
}

static enum wf_kv_medium medium_of(struct item item)
{
    if (item.type == NIL)
        return WF_KV_NOWHERE;
    for (enum wf_kv_medium medium = WF_KV_GPU; medium <= WF_KV_STORAGE; medium++)
        if (is_text(item, wf_kv_medium_name(medium)))
            return medium;
    return is_text(item, "CPU_PINNED") ? WF_KV_CPU /* SGLang's names */
           : is_text(item, "DISK")     ? WF_KV_STORAGE
                                       : WF_KV_ELSEWHERE;
}

/* A block's extra keys begin with its adapter's name, if it has one; what is more goes into its
 * hash and is said nowhere else. */
static void take_extras(struct cursor *c, struct item item, struct event *event)
{
    if (item.type != ARRAY) {
        event->rich |= item.type != NIL;
        pass(c, item, DEPTH_MAX);
        return;
    }
    for (uint64_t i = 0; i < item.number && !c->broken; i++) {
        struct item keys = next(c);
        struct cursor inside = *c;
        pass(c, keys, DEPTH_MAX - 1);
        if (keys.type == NIL || (keys.type == ARRAY && keys.number == 0) || c->broken)
            continue;
        struct item first = keys.type == ARRAY && keys.number == 1 ? next(&inside) : keys;
        /* A number has no bytes to compare. */
        bool text = first.type == TEXT && first.number > 0;
        bool same = text &&
                    (!event->extra || (event->extra_bytes == first.number &&
                                       memcmp(event->extra, first.data, first.number) == 0));
        event->rich |= !same;
        /* Compared when all fields were read: the adapter's name may stand behind. */
        event->extra = event->rich ? NULL : first.data;
        event->extra_bytes = event->rich ? 0 : (size_t)first.number;
    }
}

enum field {
    HASHES,
    PARENT,
    TOKENS,
    SIZE,
    MEDIUM,
    LORA,
    GROUP,
    EXTRAS,
    LOCALITY,
    SALT,
    LOOKAHEAD,
    OTHER
};

static void take_field(struct cursor *c, enum field field, struct event *event)
{
    struct item item = next(c);
    if (field == HASHES) {
        take_hashes(c, item, event);
        return;
    }
    if (field == TOKENS) {
        take_tokens(c, item, event);
        return;
    }
    if (field == EXTRAS) {
        take_extras(c, item, event);
        return;
    }
    if (field == GROUP && item.type == POSITIVE)
        event->group = item.number < UINT32_MAX ? (uint32_t)item.number : UINT32_MAX;
    if (field == LOCALITY)
        event->remote = is_text(item, "REMOTE");
    if (field == SALT || field == LOOKAHEAD)
        event->rich |= item.type != NIL;
    if (field == PARENT && item.type != NIL)
        hash_of(c, item, &event->parent);
    if (field == SIZE) {
        c->broken |= item.type != POSITIVE;
        event->block_size = item.number;
    }
    if (field == MEDIUM)
        event->medium = medium_of(item);
    if (field == LORA && item.type != NIL) {
        c->broken |= item.type != TEXT || item.number > WF_KV_LORA_MAX;
        event->lora = item.data;
        event->lora_bytes = (size_t)item.number;
    }
    pass(c, item, DEPTH_MAX);
}

static enum wf_kv_kind kind_of(struct item tag)
{
    return is_text(tag, "BlockStored")        ? WF_KV_STORED
           : is_text(tag, "BlockRemoved")     ? WF_KV_REMOVED
           : is_text(tag, "AllBlocksCleared") ? WF_KV_CLEARED
                                              : 0;
}

static void event_array(struct cursor *c, uint64_t count, struct event *event)
{
    static const enum field stored[] = {HASHES, PARENT, TOKENS, SIZE,  OTHER, MEDIUM,
                                        LORA,   EXTRAS, GROUP,  OTHER, OTHER, LOCALITY},
                            removed[] = {HASHES, MEDIUM, GROUP, LOCALITY};
    struct item tag = next(c);
    c->broken |= count == 0 || tag.type != TEXT;
    event->kind = kind_of(tag);
    for (uint64_t i = 0; i + 1 < count && !c->broken; i++) {
        enum field field = OTHER;
        if (event->kind == WF_KV_STORED && i < sizeof stored / sizeof stored[0])
            field = stored[i];
        if (event->kind == WF_KV_REMOVED && i < sizeof removed / sizeof removed[0])
            field = removed[i];
        take_field(c, field, event);
    }
}

static void event_map(struct cursor *c, uint64_t count, struct event *event)
{
    static const char *const names[] = {[HASHES] = "block_hashes",
                                        [PARENT] = "parent_block_hash",
                                        [TOKENS] = "token_ids",
                                        [SIZE] = "block_size",
                                        [MEDIUM] = "medium",
                                        [LORA] = "lora_name",
                                        [GROUP] = "group_idx",
                                        [EXTRAS] = "extra_keys",
                                        [LOCALITY] = "locality",
                                        [SALT] = "cache_salt",
                                        [LOOKAHEAD] = "lookahead_token_ids"};
    const struct cursor start = *c;
    /* Its kind may stand anywhere, and says what the other names mean. */
    for (uint64_t i = 0; i < count && !c->broken; i++) {
        struct item name = next(c), value = next(c);
        c->broken |= name.type != TEXT;
        if (is_text(name, "type"))
            event->kind = kind_of(value);
        pass(c, value, DEPTH_MAX);
    }
    if (c->broken || !event->kind)
        return;
    *c = start;
    for (uint64_t i = 0; i < count && !c->broken; i++) {
        struct item name = next(c);
        enum field field = HASHES;
        while (field < OTHER && !is_text(name, names[field]))
            field++;
        take_field(c, field, event);
    }
}

static void event_of(struct cursor *c, struct event *event)
{
    *event = (struct event){.kind = 0};
    struct item item = next(c);
    if (item.type == ARRAY)
        event_array(c, item.number, event);
    else if (item.type == MAP)
        event_map(c, item.number, event);
    else
        c->broken = true;
    if (event->kind && event->kind != WF_KV_CLEARED && !event->has_hashes)
        c->broken = true;
}

/* ------------------------------------------------------------------------------------- telling */

static void tell(const struct event *event, void (*hear)(void *, const struct wf_kv_heard *),
                 void *context)
{
    uint32_t tokens[WF_KV_TOKENS_MAX];
    struct cursor hashes = event->hashes, token = event->tokens;
    struct hash hash, parent = event->parent;
    bool named = !event->extra || (event->extra_bytes == event->lora_bytes &&
                                   memcmp(event->extra, event->lora, event->lora_bytes) == 0);
    struct wf_kv_heard heard = {.kind = event->kind,
                                .medium = event->remote ? WF_KV_ELSEWHERE : event->medium,
                                .group = event->group,
                                .plain = event->kind == WF_KV_STORED && named && !event->rich};
    if (event->kind == WF_KV_CLEARED) {
        hear(context, &heard);
        return;
    }
    bool has_tokens = event->block_size && event->block_size <= WF_KV_TOKENS_MAX &&
                      event->token_count == event->block_size * event->hash_count;
    for (uint64_t i = 0; i < event->hash_count; i++) {
        hash_of(&hashes, next(&hashes), &hash);
        for (uint64_t t = 0; has_tokens && t < event->block_size; t++)
            tokens[t] = (uint32_t)next(&token).number;
        heard.meaning = (struct wf_kv_meaning){.hash = hash.data,
                                               .hash_bytes = hash.bytes,
                                               .parent = parent.data,
                                               .parent_bytes = parent.bytes,
                                               .lora = event->lora,
                                               .lora_bytes = event->lora_bytes,
                                               .tokens = tokens,
                                               .token_count = has_tokens ? event->block_size : 0};
        hear(context, &heard);
        parent = hash;
    }
}

enum weft_status wf_kv_decode(const void *bytes, size_t size,
                              void (*hear)(void *, const struct wf_kv_heard *), void *context)
{
    struct cursor c = {.at = bytes, .end = (const uint8_t *)bytes + size};
    struct event event;
    struct item batch = next(&c);
    c.broken |= batch.type != ARRAY || batch.number < 2;
    if (!c.broken) {
        struct item ts = next(&c);
        c.broken |= ts.type != FLOAT && ts.type != POSITIVE;
    }
    struct item events = next(&c);
    c.broken |= events.type != ARRAY;
    const struct cursor first = c;
    for (uint64_t i = 0; i < events.number && !c.broken; i++)
        event_of(&c, &event);
    for (uint64_t i = 2; i < batch.number && !c.broken; i++)
        pass(&c, next(&c), DEPTH_MAX);
    if (c.broken || c.at != c.end)
        return wf_fail(WEFT_E_PROTOCOL, "%zu bytes are no batch of KV events, at byte %zu", size,
                       (size_t)(c.at - (const uint8_t *)bytes));
    c = first;
    for (uint64_t i = 0; i < events.number; i++) {
        event_of(&c, &event);
        if (event.kind)
            tell(&event, hear, context);
    }
    return WEFT_OK;
}
