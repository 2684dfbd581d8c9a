/* SPDX-License-Identifier: Apache-2.0 */
#include "caches.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sys/lines.h"
#include "tier/cxl_format.h"

struct caches caches;
static char names[CACHES_HOSTS + 1][64];

static size_t lines(void)
{
    return CACHES_BYTES / WF_LINE;
}

static enum caches_part part_of(size_t line)
{
    size_t at = line * WF_LINE, extents = 0;
    struct wf_cxl_super super;
    memcpy(&super, caches.memory, sizeof super);
    extents = super.magic == WF_CXL_SUPER_MAGIC ? super.extents : 1;
    return at < WF_CXL_ROWS_AT                   ? PART_SUPER
           : at < WF_CXL_TABLE_AT                ? PART_ROWS
           : at < wf_cxl_directories_at(extents) ? PART_TABLE
           : at < wf_cxl_data_at(extents)        ? PART_DIRECTORIES
                                                 : PART_DATA;
}

static void arrive(uint32_t host, size_t line)
{
    size_t at = line * WF_LINE;
    memcpy(caches.memory + at, caches.host[host].view + at, WF_LINE);
    memcpy(caches.host[host].base + at, caches.host[host].view + at, WF_LINE);
    caches.host[host].on_way[line] = 0;
}

static bool dirty(uint32_t host, size_t line)
{
    size_t at = line * WF_LINE;
    return memcmp(caches.host[host].view + at, caches.host[host].base + at, WF_LINE) != 0;
}

static void reload(uint32_t host, size_t line)
{
    size_t at = line * WF_LINE;
    if (dirty(host, line) || caches.host[host].on_way[line])
        arrive(host, line);
    memcpy(caches.host[host].view + at, caches.memory + at, WF_LINE);
    memcpy(caches.host[host].base + at, caches.memory + at, WF_LINE);
}

/* Whose memory is that, and which lines?  A host that has just been opened is found by the name of
 * what is mapped there. */
static uint32_t host_of(const void *memory)
{
    uintptr_t at = (uintptr_t)memory;
    for (int again = 0; again < 2; again++) {
        for (uint32_t h = 1; h <= CACHES_HOSTS; h++) {
            uintptr_t from = (uintptr_t)caches.host[h].view;
            if (from && at >= from && at < from + CACHES_BYTES)
                return h;
        }
        char line[512];
        FILE *maps = fopen("/proc/self/maps", "re");
        while (maps && fgets(line, sizeof line, maps))
            for (uint32_t h = 1; h <= CACHES_HOSTS; h++)
                if (!caches.host[h].view && strstr(line, names[h])) {
                    caches.host[h].view = (uint8_t *)strtoull(line, NULL, 16);
                    memcpy(caches.host[h].view, caches.memory, CACHES_BYTES);
                    memcpy(caches.host[h].base, caches.memory, CACHES_BYTES);
                    memset(caches.host[h].on_way, 0, lines());
                }
        if (maps)
            fclose(maps);
    }
    return 0;
}

/* By themselves: a few of the lines on their way arrive, a few clean ones are loaded anew. */
static void by_itself(uint32_t host)
{
    for (int i = 0; i < 4; i++) {
        size_t line = random_below(&caches.random, (uint32_t)lines());
        if (!dirty(host, line) && !caches.host[host].on_way[line])
            reload(host, line);
    }
}

/* A fence is of the host that forced something last, but for what others did in the middle of that.
 */
static uint32_t last_host;

static void tell(void)
{
    uint32_t host = last_host;
    caches.forces++;
    if (!caches.event || caches.inside)
        return;
    caches.inside = true;
    caches.event();
    caches.inside = false;
    last_host = host;
}

static void each_line(const void *memory, size_t bytes, void (*what)(uint32_t, size_t),
                      enum caches_force force)
{
    uint32_t host = host_of(memory);
    if (!host || !bytes)
        return;
    uintptr_t from = (uintptr_t)memory - (uintptr_t)caches.host[host].view;
    for (size_t line = from / WF_LINE; line <= (from + bytes - 1) / WF_LINE; line++)
        if (caches.deaf != force || part_of(line) != caches.deaf_part)
            what(host, line);
    by_itself(host);
}

static void send(uint32_t host, size_t line)
{
    caches.host[host].on_way[line] = 1;
    if (random_below(&caches.random, 8) == 0)
        arrive(host, line);
}

static void streamed(const void *memory, size_t bytes)
{
    each_line(memory, bytes, send, FORCE_STREAM);
    last_host = host_of(memory);
    caches.host[last_host].only_streams = true;
    tell();
}

static void written_back(const void *memory, size_t bytes)
{
    each_line(memory, bytes, send, FORCE_WRITE_BACK);
    last_host = host_of(memory);
    caches.host[last_host].only_streams = false;
    uintptr_t from = (uintptr_t)memory - (uintptr_t)caches.host[last_host].view;
    caches.is_commit = last_host && part_of(from / WF_LINE) == PART_DIRECTORIES;
    tell();
    caches.is_commit = false;
}

static void invalidated(const void *memory, size_t bytes)
{
    each_line(memory, bytes, reload, FORCE_INVALIDATE);
    tell();
}

static void fenced(void)
{
    uint32_t host = last_host;
    bool streams = caches.host[host].only_streams;
    caches.host[host].only_streams = false;
    if (caches.host[host].view && caches.deaf != FORCE_FENCE &&
        !(caches.deaf == FORCE_STREAM_FENCE && streams))
        for (const uint8_t *from = caches.host[host].on_way, *end = from + lines(), *at = from;
             (at = memchr(at, 1, (size_t)(end - at)));)
            arrive(host, (size_t)(at - from));
    tell();
}

static const struct wf_lines_watch watch = {streamed, written_back, invalidated, fenced};

void caches_start(uint64_t seed)
{
    caches = (struct caches){.random = {seed}};
    caches.memory = calloc(1, CACHES_BYTES);
    for (uint32_t h = 1; h <= CACHES_HOSTS; h++) {
        caches.host[h].base = calloc(1, CACHES_BYTES);
        caches.host[h].on_way = calloc(1, lines());
        snprintf(names[h], sizeof names[h], "%s/weft-caches-%d-%u",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp", (int)getpid(), h);
    }
    wf_lines_watch = &watch;
}

void caches_end(void)
{
    wf_lines_watch = NULL;
    for (uint32_t h = 1; h <= CACHES_HOSTS; h++) {
        free(caches.host[h].base);
        free(caches.host[h].on_way);
        (void)unlink(names[h]);
    }
    free(caches.memory);
    caches = (struct caches){0};
}

/* The file has what memory has, so that the first look, before the first force, is right too. */
void caches_path(uint32_t host, char *path, size_t bytes)
{
    int fd = open(names[host], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, caches.memory, CACHES_BYTES, 0) != (ssize_t)CACHES_BYTES)
        abort();
    close(fd);
    caches.host[host].view = NULL;
    snprintf(path, bytes, "file-emulation:%s", names[host]);
}

/* Most lines arrive whole or not at all; the processor promises no more than that for 8 bytes. */
static void settle(uint32_t host, uint8_t *memory)
{
    const uint8_t *view = caches.host[host].view;
    for (size_t line = 0; view && line < lines(); line++) {
        if (!caches.host[host].on_way[line] && !dirty(host, line))
            continue;
        uint32_t fate = random_below(&caches.random, 16);
        for (size_t word = 0; word < WF_LINE; word += 8)
            if (fate < 8 || (fate == 15 && random_below(&caches.random, 2)))
                memcpy(memory + line * WF_LINE + word, view + line * WF_LINE + word, 8);
    }
}

void caches_lose(uint32_t host)
{
    settle(host, caches.memory);
    caches.host[host].view = NULL;
}

void caches_closed(uint32_t host)
{
    caches.host[host].view = NULL;
}

void caches_evict_some(const void *memory, size_t bytes)
{
    uint32_t host = host_of(memory);
    uintptr_t from = (uintptr_t)memory - (uintptr_t)caches.host[host].view;
    for (size_t line = from / WF_LINE; host && line <= (from + bytes - 1) / WF_LINE; line++)
        if (random_below(&caches.random, 2))
            reload(host, line);
}

void caches_image(uint8_t *out)
{
    memcpy(out, caches.memory, CACHES_BYTES);
    for (uint32_t h = 1; h <= CACHES_HOSTS; h++)
        settle(h, out);
}
