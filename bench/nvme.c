/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier beside its medium.
 *
 *     bench_nvme [--json] [--dir D] [--block-bytes N] [--total-bytes N] [--depth N] [--blocks N]
 *
 * Blocks of N bytes are written one after the other and read in random order, by the tier and by
 * plain io_uring with O_DIRECT on a file in the same directory, of the same size, with the same
 * depth.  Writes go to preallocated extents and end with fdatasync on both sides.  restart: the
 * seconds to open a tier with so many blocks of 512 bytes, and the memory that a block takes then.
 */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "sys/clock.h"
#include "tier/tier.h"

struct bench {
    const char *directory;
    char path[500], raw[520];
    uint64_t block_bytes, total_bytes, blocks, restart_blocks;
    uint32_t depth;
    uint8_t *memory;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_nvme: %s: %s\n", what, wf_last_error());
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static struct wf_tier_block block_of(uint64_t n, uint64_t bytes)
{
    struct wf_tier_block block = {.bytes = bytes, .part_bytes = (uint32_t)((bytes + 31) / 32)};
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t word = mix(n * 4 + i + 1);
        memcpy(block.key + 8 * i, &word, 8);
    }
    return block;
}

static struct wf_tier *open_tier(const struct bench *b, uint64_t capacity)
{
    struct wf_tier *tier;
    struct wf_tier_options options = {.path = b->path,
                                      .capacity_bytes = capacity,
                                      .queue_depth = b->depth,
                                      .buffers = b->memory,
                                      .buffers_bytes = b->depth * b->block_bytes};
    if (wf_tier_nvme.open(&options, &tier) != WEFT_OK)
        die("open");
    return tier;
}

/* `count` requests, `depth` at a time, then a flush after writes; returns GB/s. */
static double drive(const struct bench *b, struct wf_tier *tier, enum wf_tier_op op, uint64_t count,
                    uint64_t bytes)
{
    struct wf_tier_request *requests = calloc(b->depth + 1, sizeof *requests), *done[64];
    uint32_t *free_list = calloc(b->depth, sizeof *free_list), spare = b->depth;
    uint64_t begun = 0, ended = 0, start = wf_now_ns();
    for (uint32_t i = 0; i < b->depth; i++)
        free_list[i] = i;
    while (ended < count) {
        while (spare && begun < count) {
            uint32_t slot = free_list[--spare];
            uint64_t n = op == WF_TIER_READ ? mix(begun) % count : begun;
            requests[slot] = (struct wf_tier_request){.op = op,
                                                      .block = block_of(n, bytes),
                                                      .data = b->memory + slot * b->block_bytes};
            if (wf_tier_nvme.submit(tier, &requests[slot]) != WEFT_OK)
                die("submit");
            begun++;
        }
        uint32_t got = wf_tier_nvme.reap(tier, done, 64, 10000);
        for (uint32_t i = 0; i < got; i++) {
            if (done[i]->status != WEFT_OK)
                die(op == WF_TIER_READ ? "read" : "write");
            free_list[spare++] = (uint32_t)(done[i] - requests);
        }
        ended += got;
    }
    struct wf_tier_request *flush = &requests[b->depth];
    *flush = (struct wf_tier_request){.op = WF_TIER_FLUSH};
    if (op == WF_TIER_WRITE && (wf_tier_nvme.submit(tier, flush) != WEFT_OK ||
                                wf_tier_nvme.reap(tier, done, 1, 60000) != 1))
        die("flush");
    double seconds = (double)(wf_now_ns() - start) / 1e9;
    free(requests);
    free(free_list);
    return (double)(count * bytes) / seconds / 1e9;
}

static double raw(const struct bench *b, int fd, bool reading)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    if (io_uring_queue_init(b->depth * 2, &ring, 0) != 0)
        die("io_uring");
    uint32_t *slots = calloc(b->depth, sizeof *slots), spare = b->depth;
    for (uint32_t i = 0; i < b->depth; i++)
        slots[i] = i;
    uint64_t begun = 0, ended = 0, start = wf_now_ns();
    while (ended < b->blocks) {
        while (spare && begun < b->blocks) {
            uint32_t slot = slots[--spare];
            uint64_t n = reading ? mix(begun) % b->blocks : begun;
            struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
            uint8_t *data = b->memory + slot * b->block_bytes;
            if (reading)
                io_uring_prep_read(sqe, fd, data, (unsigned)b->block_bytes, n * b->block_bytes);
            else
                io_uring_prep_write(sqe, fd, data, (unsigned)b->block_bytes, n * b->block_bytes);
            io_uring_sqe_set_data64(sqe, slot);
            io_uring_submit(&ring);
            begun++;
        }
        if (io_uring_wait_cqe(&ring, &cqe) != 0)
            continue;
        if (cqe->res != (int)b->block_bytes)
            die("raw I/O");
        slots[spare++] = (uint32_t)cqe->user_data;
        io_uring_cqe_seen(&ring, cqe);
        ended++;
    }
    if (!reading && fdatasync(fd) != 0)
        die("fdatasync");
    double seconds = (double)(wf_now_ns() - start) / 1e9;
    io_uring_queue_exit(&ring);
    free(slots);
    return (double)(b->blocks * b->block_bytes) / seconds / 1e9;
}

static uint64_t resident_bytes(void)
{
    unsigned long long all, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file || fscanf(file, "%llu %llu", &all, &resident) != 2)
        die("/proc/self/statm");
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void count_block(void *context, const struct wf_tier_block *block)
{
    *(uint64_t *)context += block->bytes != 0;
}

static double restart_seconds(struct bench *b, double *out_bytes_per_block)
{
    unlink(b->path);
    uint64_t capacity = b->restart_blocks * 8192 * 3 / 2 + (64u << 20);
    struct wf_tier *tier = open_tier(b, capacity);
    drive(b, tier, WF_TIER_WRITE, b->restart_blocks, 512);
    wf_tier_nvme.close(tier);
    uint64_t resident = resident_bytes(), start = wf_now_ns();
    tier = open_tier(b, capacity);
    double seconds = (double)(wf_now_ns() - start) / 1e9;
    struct wf_tier_stats stats;
    wf_tier_nvme.stats(tier, &stats);
    uint64_t told = 0;
    wf_tier_nvme.each(tier, count_block, &told);
    if (stats.blocks != b->restart_blocks || told != b->restart_blocks)
        die("restart lost blocks");
    *out_bytes_per_block = (double)(int64_t)(resident_bytes() - resident) / (double)told;
    wf_tier_nvme.close(tier);
    return seconds;
}

static void options_of(struct bench *b, int argc, char **argv, bool *json)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--json")) {
            *json = true;
            continue;
        }
        if (value && !strcmp(argv[i], "--dir"))
            b->directory = value;
        else if (value && !strcmp(argv[i], "--block-bytes"))
            b->block_bytes = strtoull(value, NULL, 10);
        else if (value && !strcmp(argv[i], "--total-bytes"))
            b->total_bytes = strtoull(value, NULL, 10);
        else if (value && !strcmp(argv[i], "--depth"))
            b->depth = (uint32_t)strtoul(value, NULL, 10);
        else if (value && !strcmp(argv[i], "--blocks"))
            b->restart_blocks = strtoull(value, NULL, 10);
        else
            argc = 0;
        i++;
    }
    if (!argc || b->block_bytes < 4096 || b->block_bytes % 4096 || !b->depth || b->depth > 512 ||
        b->total_bytes < b->block_bytes) {
        fprintf(stderr, "usage: bench_nvme [--json] [--dir D] [--block-bytes N] [--total-bytes N] "
                        "[--depth N] [--blocks N]\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct bench b = {.directory = "/var/tmp",
                      .block_bytes = 1u << 20,
                      .total_bytes = 1u << 30,
                      .depth = 16,
                      .restart_blocks = 100000};
    bool json = false;
    options_of(&b, argc, argv, &json);
    b.blocks = b.total_bytes / b.block_bytes;
    snprintf(b.path, sizeof b.path, "%s/bench-nvme-%d", b.directory, (int)getpid());
    snprintf(b.raw, sizeof b.raw, "%s.raw", b.path);
    b.memory = aligned_alloc(WF_TIER_ALIGN, b.depth * b.block_bytes);
    int fd = open(b.raw, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
    if (!b.memory || fd < 0)
        die("the directory refuses O_DIRECT, or memory is short");
    memset(b.memory, 0x5a, b.depth * b.block_bytes);
    uint64_t bytes = b.blocks * b.block_bytes;
    if (posix_fallocate(fd, 0, (off_t)bytes) != 0)
        die("no space");
    struct wf_tier *tier = open_tier(&b, bytes + bytes / 4 + (64u << 20));
    /* In turn, so that both see the medium in the same minute. */
    double raw_write = raw(&b, fd, false);
    double write = drive(&b, tier, WF_TIER_WRITE, b.blocks, b.block_bytes);
    double raw_read = raw(&b, fd, true);
    double read = drive(&b, tier, WF_TIER_READ, b.blocks, b.block_bytes);
    struct wf_tier_stats stats;
    wf_tier_nvme.stats(tier, &stats);
    wf_tier_nvme.close(tier);
    close(fd);
    unlink(b.raw);
    double bytes_per_block = 0;
    double restart = b.restart_blocks ? restart_seconds(&b, &bytes_per_block) : 0;
    unlink(b.path);
    double amplification = (double)stats.device_write_bytes / (double)stats.write_bytes;
    printf(json ? "{\"write_gbps\": %.3f, \"raw_write_gbps\": %.3f, \"read_gbps\": %.3f, "
                  "\"raw_read_gbps\": %.3f, \"write_amplification\": %.4f, "
                  "\"restart_blocks\": %llu, \"restart_seconds\": %.3f, "
                  "\"bytes_per_block\": %.1f}\n"
                : "write %.3f GB/s (raw %.3f), read %.3f GB/s (raw %.3f), write amplification "
                  "%.4f, %llu blocks back in %.3f s, %.1f bytes of memory each\n",
           write, raw_write, read, raw_read, amplification, (unsigned long long)b.restart_blocks,
           restart, bytes_per_block);
    free(b.memory);
    return 0;
}
