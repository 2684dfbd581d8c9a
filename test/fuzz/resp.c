/* SPDX-License-Identifier: Apache-2.0
 *
 * RESP requests: no bytes make the parser look beyond them, and torn anywhere they mean the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/resp_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heard {
    uint64_t commands, sum;
    bool broken;
};

/* All commands of `size` bytes, of which `first` are there at once and the rest later.  Long values
 * are taken away when `away`. */
static struct heard hear(const uint8_t *data, size_t size, size_t first, bool away)
{
    struct heard heard = {0};
    struct wf_resp_parser parser;
    uint8_t *bytes = malloc(size + 1), *at = bytes;
    if (!bytes)
        return heard;
    memcpy(bytes, data, size);
    wf_resp_parser_init(&parser, 16);
    size_t there = first;
    for (;;) {
        size_t length = (size_t)(bytes + there - at);
        enum wf_resp_parsed parsed = wf_resp_parse(&parser, at, length);
        if (parser.at > length || parser.count > WF_RESP_ARGUMENTS_MAX)
            abort();
        if (parsed == WF_RESP_MORE && there < size) {
            there = size;
            continue;
        }
        if (parsed == WF_RESP_MORE || parsed == WF_RESP_BROKEN) {
            heard.broken = parsed == WF_RESP_BROKEN;
            break;
        }
        if (parsed == WF_RESP_LONG) {
            if (away)
                wf_resp_long_away(&parser);
            else
                wf_resp_long_inline(&parser);
            continue;
        }
        heard.commands++;
        for (uint32_t i = 0; i < parser.count; i++) {
            const struct wf_resp_argument *argument = &parser.arguments[i];
            heard.sum = heard.sum * 31 + argument->length + argument->away;
            for (uint32_t k = 0; !argument->away && k < argument->length; k++)
                heard.sum = heard.sum * 31 + at[argument->at + k];
        }
        at += parser.at;
        wf_resp_parser_next(&parser);
    }
    wf_resp_parser_fini(&parser);
    free(bytes);
    return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int away = 0; away < 2; away++) {
        struct heard whole = hear(data, size, size, away);
        size_t step = size / 16 + 1;
        for (size_t first = 0; first < size; first += step) {
            struct heard torn = hear(data, size, first, away);
            if (torn.commands != whole.commands || torn.sum != whole.sum ||
                torn.broken != whole.broken)
                abort();
        }
    }
    return 0;
}
