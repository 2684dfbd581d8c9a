/* SPDX-License-Identifier: Apache-2.0
 *
 * A fuzz target without a fuzzer: every file of a corpus directory, once, one TAP line each.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The whole file in memory of exactly its size, so that a sanitizer sees the first byte beyond. */
static uint8_t *read_whole(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    uint8_t *data = NULL;
    long size = -1;
    if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0) {
        rewind(file);
        data = malloc(size ? (size_t)size : 1);
        if (data && fread(data, 1, (size_t)size, file) != (size_t)size) {
            free(data);
            data = NULL;
        }
    }
    fclose(file);
    *out_size = (size_t)size;
    return data;
}

int main(int argc, char **argv)
{
    DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
    if (!directory) {
        fprintf(stderr, "usage: %s DIRECTORY, of inputs; it must exist\n", argv[0]);
        return 2;
    }
    int count = 0, failed = 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], entry->d_name);
        size_t size;
        uint8_t *data = read_whole(path, &size);
        if (data)
            LLVMFuzzerTestOneInput(data, size);
        else
            failed++;
        printf("%s %d - %s\n", data ? "ok" : "not ok", ++count, entry->d_name);
        fflush(stdout);
        free(data);
    }
    closedir(directory);
    printf("1..%d\n", count);
    if (count == 0)
        fprintf(stderr, "%s holds no input; add at least one\n", argv[1]);
    return failed || count == 0;
}
