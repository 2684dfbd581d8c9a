/* SPDX-License-Identifier: Apache-2.0
 *
 * Text to tokens and back: byte-pair encoding by score, as sentencepiece and llama2.c have it.
 *
 * The file is  int32 longest | per token: float32 score, int32 length, bytes  with as many tokens
 * as the model has.  Tokens 0, 1, 2 are unknown, begin and end; 3 … 258 are the bytes.  Without a
 * file a tokenizer knows only those: text costs a token a byte, and any model with 259 tokens can
 * read it.
 */
#ifndef WF_LLAMA_TOKENIZER_H
#define WF_LLAMA_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WF_TOKEN_UNKNOWN = 0,
    WF_TOKEN_BEGIN = 1,
    WF_TOKEN_END = 2,
    WF_TOKEN_BYTES = 3,
    WF_TOKEN_SPECIAL = 259
};

struct wf_token_text {
    const char *bytes; /* zero-terminated for printing; `length` is what counts */
    uint32_t length;
    float score;
};

struct wf_tokenizer {
    struct wf_token_text *tokens; /* [vocab], by number */
    uint32_t *sorted; /* [vocab - WF_TOKEN_SPECIAL], numbers in the order of their bytes */
    uint32_t vocab;
    char *memory;
};

bool wf_tokenizer_load(const char *path, uint32_t vocab, struct wf_tokenizer *out);

/* Bytes only; `vocab` ≥ 259.  Tokens above those print as nothing. */
bool wf_tokenizer_bytes(uint32_t vocab, struct wf_tokenizer *out);

void wf_tokenizer_free(struct wf_tokenizer *t);

/* Encode `text` after a WF_TOKEN_BEGIN when `begin`.  Leaves at most `capacity` tokens in `out`
 * (strlen(text) + 2 is always enough) and returns how many; 0 when memory ran out. */
size_t wf_tokenizer_encode(const struct wf_tokenizer *t, const char *text, bool begin,
                           uint32_t *out, size_t capacity);

/* The bytes of `token` after `previous` (its leading space goes after WF_TOKEN_BEGIN).  Borrowed
 * from `t`. */
const char *wf_tokenizer_decode(const struct wf_tokenizer *t, uint32_t previous, uint32_t token,
                                size_t *out_length);

#endif
