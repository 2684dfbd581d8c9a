/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/sysfs.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wf_sysfs_line(const char *folder, const char *name, char *out, size_t bytes)
{
    char path[WF_SYSFS_PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return false;
    FILE *file = fopen(path, "re");
    bool read = file && fgets(out, (int)bytes, file);
    if (file)
        fclose(file);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    return read;
}

bool wf_sysfs_number(const char *folder, const char *name, uint64_t *out)
{
    char text[64], *end;
    if (!wf_sysfs_line(folder, name, text, sizeof text) || !isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno != 0 || end[strspn(end, " \t")] != '\0')
        return false;
    *out = value;
    return true;
}

uint32_t wf_sysfs_u32(const char *folder, const char *name)
{
    uint64_t value;
    return wf_sysfs_number(folder, name, &value) && value <= UINT32_MAX ? (uint32_t)value : 0;
}

int wf_sysfs_node(const char *folder, const char *name)
{
    uint64_t value;
    return wf_sysfs_number(folder, name, &value) && value <= INT_MAX ? (int)value : -1;
}

uint64_t wf_sysfs_memory(const char *folder, const char *field)
{
    char path[WF_SYSFS_PATH_BYTES], line[256];
    uint64_t bytes = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/meminfo", folder) >= sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    for (int lines = 0; file && lines < 256 && fgets(line, sizeof line, file); lines++) {
        const char *at = strstr(line, field);
        if (!at || at[strlen(field)] != ':')
            continue;
        uint64_t kb = strtoull(at + strlen(field) + 1, NULL, 10);
        bytes = kb <= UINT64_MAX / 1024 ? kb * 1024 : 0;
        break;
    }
    if (file)
        fclose(file);
    return bytes;
}
