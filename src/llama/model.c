/* SPDX-License-Identifier: Apache-2.0
 *
 * The checkpoint is mapped, not read: two engines on one host share its pages as they share their
 * KV.
 */
#include "llama/model.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "llama/say.h"

#define HEADER_BYTES (7 * sizeof(int32_t))
#define MAGIC_OF_OTHERS 0x616b3432 /* "ak42": of llama2.c's later formats */

/* Caps keep every product below in 64 bits, whatever a broken file claims. */
static bool shape_check(const struct wf_model_shape *s)
{
    const struct {
        const char *name;
        uint32_t value, max;
    } fields[] = {
        {"dim", s->dim, 16384},
        {"hidden_dim", s->hidden_dim, 65536},
        {"layers", s->layers, 256},
        {"heads", s->heads, 256},
        {"kv_heads", s->kv_heads, 256},
        {"vocabulary", s->vocab, 1u << 20},
        {"context", s->context, 1u << 16},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (fields[i].value == 0 || fields[i].value > fields[i].max)
            return wf_say_failed("a model's %s of %u is not between 1 and %u", fields[i].name,
                                 fields[i].value, fields[i].max);
    if (s->dim % s->heads || s->dim / s->heads % 2)
        return wf_say_failed("dim %u does not divide into %u heads of an even size", s->dim,
                             s->heads);
    if (s->heads % s->kv_heads)
        return wf_say_failed("%u heads cannot share %u KV heads evenly", s->heads, s->kv_heads);
    return true;
}

/* Hand out the next `count` weights. */
static const float *take(const float **cursor, size_t count)
{
    const float *start = *cursor;
    *cursor += count;
    return start;
}

/* Point every matrix into `weights`; returns how many floats that takes. */
static size_t lay_out(struct wf_model *m, const float *weights, bool own_classifier)
{
    const struct wf_model_shape *s = &m->shape;
    size_t layers = s->layers, dim = s->dim, hidden = s->hidden_dim, kv = m->kv_dim;
    const float *cursor = weights;
    m->embedding = take(&cursor, (size_t)s->vocab * dim);
    m->attention_gain = take(&cursor, layers * dim);
    m->wq = take(&cursor, layers * dim * dim);
    m->wk = take(&cursor, layers * kv * dim);
    m->wv = take(&cursor, layers * kv * dim);
    m->wo = take(&cursor, layers * dim * dim);
    m->ffn_gain = take(&cursor, layers * dim);
    m->w1 = take(&cursor, layers * hidden * dim);
    m->w2 = take(&cursor, layers * dim * hidden);
    m->w3 = take(&cursor, layers * hidden * dim);
    m->final_gain = take(&cursor, dim);
    take(&cursor, (size_t)s->context * m->head_dim);
    m->classifier = own_classifier ? take(&cursor, (size_t)s->vocab * dim) : m->embedding;
    return (size_t)(cursor - weights);
}

static void digest_take(struct wf_model *m, const float *weights, size_t count)
{
    XXH128_hash_t shape = XXH3_128bits(&m->shape, sizeof(m->shape));
    XXH128_hash_t whole = XXH3_128bits_withSeed(weights, count * sizeof(float),
                                                shape.low64 ^ shape.high64);
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, whole);
    for (size_t i = 0; i < sizeof(bytes.digest); i++) {
        m->digest[2 * i] = "0123456789abcdef"[bytes.digest[i] >> 4];
        m->digest[2 * i + 1] = "0123456789abcdef"[bytes.digest[i] & 15];
    }
    m->digest[32] = '\0';
}

static bool rope_make(struct wf_model *m)
{
    size_t half = m->head_dim / 2, count = (size_t)m->shape.context * half;
    assert(count > 0);
    m->cosine = malloc(count * sizeof(float));
    m->sine = malloc(count * sizeof(float));
    if (!m->cosine || !m->sine)
        return wf_say_failed("no memory for %zu rotary angles", count);
    for (size_t i = 0; i < half; i++) {
        float frequency = 1.0f /
                          powf((float)WF_MODEL_ROPE_THETA, (float)(2 * i) / (float)m->head_dim);
        for (size_t position = 0; position < m->shape.context; position++) {
            float angle = (float)position * frequency;
            m->cosine[position * half + i] = cosf(angle);
            m->sine[position * half + i] = sinf(angle);
        }
    }
    return true;
}

static bool shape_set(struct wf_model *m, const struct wf_model_shape *shape)
{
    if (!shape_check(shape))
        return false;
    m->shape = *shape;
    m->head_dim = shape->dim / shape->heads;
    m->kv_dim = shape->kv_heads * m->head_dim;
    return true;
}

static bool map_file(const char *path, struct wf_model *m)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return wf_say_failed("cannot open the model %s: %s", path, strerror(errno));
    struct stat status;
    bool ok = fstat(fd, &status) == 0 && status.st_size >= (off_t)HEADER_BYTES;
    if (ok) {
        m->memory_bytes = (size_t)status.st_size;
        m->memory = mmap(NULL, m->memory_bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
        ok = m->memory != MAP_FAILED;
        if (!ok)
            m->memory = NULL;
    }
    close(fd);
    return ok ||
           wf_say_failed("%s is not a llama2.c checkpoint: it is too short for a header", path);
}

/* Of another kind of model file, what it is; NULL: it is none of those. */
static const char *other_kind(const void *head)
{
    const char *bytes = head;
    if (memcmp(bytes, "GGUF", 4) == 0)
        return "a GGUF file";
    if (bytes[8] == '{' && memcmp(bytes + 4, "\0\0\0", 4) == 0) /* behind the header's length */
        return "a file of safetensors";
    return NULL;
}

bool wf_model_load(const char *path, struct wf_model *out)
{
    struct wf_model m = {0};
    if (!map_file(path, &m))
        return false;

    int32_t header[7];
    memcpy(header, m.memory, sizeof(header));
    if (header[0] == MAGIC_OF_OTHERS) {
        wf_say_keep("%s is a llama2.c checkpoint of version %d: export it with --version 0", path,
                    header[1]);
        goto fail;
    }
    bool own_classifier = header[5] < 0;
    struct wf_model_shape shape = {
        .dim = (uint32_t)header[0],
        .hidden_dim = (uint32_t)header[1],
        .layers = (uint32_t)header[2],
        .heads = (uint32_t)header[3],
        .kv_heads = (uint32_t)header[4],
        .vocab = own_classifier ? 0u - (uint32_t)header[5] : (uint32_t)header[5],
        .context = (uint32_t)header[6],
    };
    const char *other = other_kind(m.memory);
    if (other) {
        wf_say_keep("%s is not a llama2.c checkpoint: it is %s, which is not read here", path,
                    other);
        goto fail;
    }
    if (!shape_set(&m, &shape)) {
        char why[256];
        snprintf(why, sizeof(why), "%s", wf_say_last());
        wf_say_keep("%s is not a llama2.c checkpoint: %s", path, why);
        goto fail;
    }
    const float *weights = (const float *)((const char *)m.memory + HEADER_BYTES);
    size_t count = lay_out(&m, weights, own_classifier);
    if (m.memory_bytes != HEADER_BYTES + count * sizeof(float)) {
        wf_say_keep("%s has %zu bytes, and its header asks for %zu: fetch it again", path,
                    m.memory_bytes, HEADER_BYTES + count * sizeof(float));
        goto fail;
    }
    if (!rope_make(&m))
        goto fail;
    digest_take(&m, weights, count);
    *out = m;
    return true;

fail:
    wf_model_free(&m);
    return false;
}

/* splitmix64 (Steele, Lea, Flood 2014), to a float in [-1, 1). */
static float draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (float)((z ^ (z >> 31)) >> 40) * 0x1p-23f - 1.0f;
}

/* Uniform weights whose sum over `inputs` keeps the variance of what goes in. */
static void fill_matrix(const float *matrix, size_t rows, size_t inputs, uint64_t *state)
{
    float *weights = (float *)matrix;
    float scale = sqrtf(3.0f / (float)inputs);
    for (size_t i = 0; i < rows * inputs; i++)
        weights[i] = scale * draw(state);
}

static void fill_gain(const float *gain, size_t count)
{
    float *weights = (float *)gain;
    for (size_t i = 0; i < count; i++)
        weights[i] = 1.0f;
}

bool wf_model_random(const struct wf_model_shape *shape, uint64_t seed, struct wf_model *out)
{
    struct wf_model m = {0};
    if (!shape_set(&m, shape))
        return false;
    size_t count = lay_out(&m, NULL, false);
    m.memory_bytes = count * sizeof(float);
    m.memory = mmap(NULL, m.memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                    0);
    if (m.memory == MAP_FAILED) {
        m.memory = NULL;
        return wf_say_failed("no memory for a random model of %zu bytes", count * sizeof(float));
    }
    lay_out(&m, m.memory, false);

    size_t layers = shape->layers, dim = shape->dim, hidden = shape->hidden_dim;
    uint64_t state = seed;
    fill_matrix(m.embedding, shape->vocab, dim, &state);
    fill_matrix(m.wq, layers * dim, dim, &state);
    fill_matrix(m.wk, layers * m.kv_dim, dim, &state);
    fill_matrix(m.wv, layers * m.kv_dim, dim, &state);
    fill_matrix(m.wo, layers * dim, dim, &state);
    fill_matrix(m.w1, layers * hidden, dim, &state);
    fill_matrix(m.w2, layers * dim, hidden, &state);
    fill_matrix(m.w3, layers * hidden, dim, &state);
    fill_gain(m.attention_gain, layers * dim);
    fill_gain(m.ffn_gain, layers * dim);
    fill_gain(m.final_gain, dim);

    if (!rope_make(&m)) {
        wf_model_free(&m);
        return false;
    }
    digest_take(&m, m.memory, count);
    *out = m;
    return true;
}

void wf_model_free(struct wf_model *model)
{
    if (model->memory)
        munmap(model->memory, model->memory_bytes);
    free(model->cosine);
    free(model->sine);
    *model = (struct wf_model){0};
}
