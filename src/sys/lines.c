/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/lines.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#if WF_TEST_HOOKS
const struct wf_lines_watch *wf_lines_watch;
#define TELL(call, ...)                        \
    do {                                       \
        if (wf_lines_watch)                    \
            wf_lines_watch->call(__VA_ARGS__); \
    } while (0)
#else
#define TELL(call, ...) ((void)0)
#endif

#if defined(__x86_64__)

enum way { UNKNOWN = 0, CLFLUSH, CLFLUSHOPT, CLWB };

/* CPUID leaf 7, EBX: bit 23 clflushopt, bit 24 clwb (Intel SDM, volume 2A).  Every x86-64 has
 * clflush. */
static enum way way(void)
{
    static int known; /* the same whoever asks first */
    int is = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (is == UNKNOWN) {
        unsigned a, b = 0, c, d;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
            b = 0;
        is = b >> 24 & 1 ? CLWB : b >> 23 & 1 ? CLFLUSHOPT : CLFLUSH;
        __atomic_store_n(&known, is, __ATOMIC_RELAXED);
    }
    return (enum way)is;
}

__attribute__((target("clwb"))) static void clwb(uintptr_t from, uintptr_t end)
{
    for (uintptr_t at = from; at < end; at += WF_LINE)
        _mm_clwb((void *)at);
}

__attribute__((target("clflushopt"))) static void clflushopt(uintptr_t from, uintptr_t end)
{
    for (uintptr_t at = from; at < end; at += WF_LINE)
        _mm_clflushopt((void *)at);
}

static void clflush(uintptr_t from, uintptr_t end)
{
    for (uintptr_t at = from; at < end; at += WF_LINE)
        _mm_clflush((void *)at);
}

static void evict(const void *memory, size_t bytes, bool may_stay)
{
    uintptr_t from = (uintptr_t)memory / WF_LINE * WF_LINE, end = (uintptr_t)memory + bytes;
    enum way how = way();
    if (how == CLWB && may_stay)
        clwb(from, end);
    else if (how == CLFLUSH)
        clflush(from, end);
    else /* whoever has clwb has clflushopt */
        clflushopt(from, end);
}

bool wf_lines_able(void)
{
    return true;
}

const char *wf_lines_instruction(void)
{
    enum way how = way();
    return how == CLWB ? "clwb" : how == CLFLUSHOPT ? "clflushopt" : "clflush";
}

static void stream(void *to, const void *from, size_t bytes)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    size_t whole = bytes / 16 * 16, at = 0;
    for (; at + 64 <= whole; at += 64) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(f + at));
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(f + at + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(f + at + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(f + at + 48));
        _mm_stream_si128((__m128i *)(void *)(t + at), a);
        _mm_stream_si128((__m128i *)(void *)(t + at + 16), b);
        _mm_stream_si128((__m128i *)(void *)(t + at + 32), c);
        _mm_stream_si128((__m128i *)(void *)(t + at + 48), d);
    }
    for (; at < whole; at += 16)
        _mm_stream_si128((__m128i *)(void *)(t + at),
                         _mm_loadu_si128((const __m128i *)(const void *)(f + at)));
    if (whole < bytes) {
        memcpy(t + whole, f + whole, bytes - whole);
        evict(t + whole, bytes - whole, true);
    }
}

/* On both sides of the flush (Intel SDM, volume 2A, CLFLUSHOPT): what was loaded and stored before
 * is over before the lines go, so that a line which comes back too early is not taken for news; and
 * no load after is answered before they are gone. */
static void full_fence(void)
{
    _mm_mfence();
}

static void fence(void)
{
    _mm_sfence();
}

#else

bool wf_lines_able(void)
{
    return false;
}

const char *wf_lines_instruction(void)
{
    return "none";
}

static void evict(const void *memory, size_t bytes, bool may_stay)
{
    (void)memory, (void)bytes, (void)may_stay;
}

static void stream(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static void full_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

#endif

void wf_lines_stream(void *to, const void *from, size_t bytes)
{
    stream(to, from, bytes);
    TELL(streamed, to, bytes);
}

void wf_lines_write_back(const void *memory, size_t bytes)
{
    evict(memory, bytes, true);
    TELL(written_back, memory, bytes);
}

void wf_lines_invalidate(const void *memory, size_t bytes)
{
    full_fence();
    evict(memory, bytes, false);
    full_fence();
    TELL(invalidated, memory, bytes);
}

void wf_lines_fence(void)
{
    fence();
    TELL(fenced);
}
