/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a checkpoint, as a tokenizer and as a text: what is taken can be run, and what is
 * not has a sentence.
 *
 *     0: a checkpoint, of which two tokens are computed
 *     1: a tokenizer of 259 + the next byte tokens, which then encodes its own file
 *     2: a text, in windows of 2 + the next byte tokens
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "llama/engine.h"
#include "llama/eval.h"
#include "llama/say.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Pins never come into this program, so the library is not linked. */
enum weft_status weft_wait_layer(const struct weft_pins *pins, uint32_t layer)
{
    (void)pins, (void)layer;
    return WEFT_E_INVALID;
}

static void refused(void)
{
    if (!*wf_say_last())
        abort();
}

static void as_model(const char *path)
{
    struct wf_model model;
    struct wf_kv kv;
    uint32_t tokens[2] = {0, 1};
    if (!wf_model_load(path, &model)) {
        refused();
        return;
    }
    uint32_t count = model.shape.context < 2 || model.shape.vocab < 2 ? 1 : 2;
    struct wf_engine *engine = wf_engine_create(&model, 1);
    float *logits = calloc(model.shape.vocab, sizeof(*logits));
    if (!engine || !logits || !wf_kv_init(&kv, &model, 1) ||
        !wf_kv_use_private(&kv, 0, count, true) ||
        wf_engine_forward(engine, &kv, NULL, tokens, 0, count, logits) != WEFT_OK)
        abort();
    wf_kv_fini(&kv);
    free(logits);
    wf_engine_destroy(engine);
    wf_model_free(&model);
}

static void as_tokenizer(const char *path, const uint8_t *data, size_t size, uint32_t vocab)
{
    struct wf_tokenizer tokenizer;
    char text[512];
    uint32_t tokens[sizeof text + 2];
    if (!wf_tokenizer_load(path, vocab, &tokenizer)) {
        refused();
        return;
    }
    size_t length = size < sizeof text ? size : sizeof text - 1, bytes = 0, previous = 0, one;
    memcpy(text, data, length);
    text[length] = '\0';
    size_t count = wf_tokenizer_encode(&tokenizer, text, true, tokens, sizeof text + 2);
    for (size_t i = 0; i < count; previous = tokens[i++]) {
        if (tokens[i] >= vocab)
            abort();
        wf_tokenizer_decode(&tokenizer, (uint32_t)previous, tokens[i], &one);
        bytes += i ? one : 0;
    }
    if (bytes != strlen(text)) /* nothing of a text is lost */
        abort();
    wf_tokenizer_free(&tokenizer);
}

static void as_text(const char *path, uint32_t length)
{
    struct wf_tokenizer tokenizer;
    struct wf_windows windows;
    uint32_t tokens[2 + 255];
    if (!wf_tokenizer_bytes(300, &tokenizer))
        abort();
    if (!wf_windows_read(path, &tokenizer, length, length / 2, 1000, &windows)) {
        refused();
    } else {
        uint64_t sum = 0;
        for (uint32_t w = 0; w < windows.windows; w++)
            sum += wf_windows_get(&windows, w, tokens) - 1;
        if (sum != windows.count || windows.calibration == 0)
            abort();
        wf_windows_free(&windows);
    }
    wf_tokenizer_free(&tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    if (size < 2)
        return 0;
    int fd = memfd_create("llama", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 2, size - 2) != (ssize_t)(size - 2))
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    wf_say_keep("%s", "");
    if (data[0] % 3 == 0)
        as_model(path);
    else if (data[0] % 3 == 1)
        as_tokenizer(path, data + 2, size - 2, 259u + data[1]);
    else
        as_text(path, 2u + data[1]);
    close(fd);
    return 0;
}
