/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a trace: no line makes the reader leave its buffers, and every bad one gets a
 * sentence.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("trace", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct trace_reader reader;
    if (!wf_trace_open(&reader, path, size % 2 ? TRACE_MOONCAKE : TRACE_QWEN))
        abort();
    uint64_t lines = 0, sum = 0;
    enum trace_result result;
    while ((result = wf_trace_line(&reader)) == TRACE_OK) {
        struct trace_request request;
        lines++;
        result = wf_trace_parse(&reader, &request);
        if (result == TRACE_BAD && !strchr(reader.error, ':'))
            abort();
        for (size_t i = 0; result == TRACE_OK && i < request.hash_count; i++)
            sum += request.hash_ids[i];
    }
    if (result != TRACE_END || lines != reader.line_number || reader.offset < size ||
        reader.offset > size + 1)
        abort();
    wf_trace_close(&reader);
    close(fd);
    return sum == UINT64_MAX ? 1 : 0;
}
