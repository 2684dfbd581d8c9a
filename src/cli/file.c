/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that is there whole or not at all: what takes minutes to make may replace what somebody
 * works by.
 *
 * It is written beside its place and takes that when all of it is written (sys/whole.h).  A link
 * keeps pointing where it does, and the file at its end is replaced, which keeps its rights.  What
 * is no file (a pipe, a device) is written as it comes.
 */
#include "cli/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct cli *cli, const struct cli_file *file)
{
    if (errno == EBUSY)
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: another process is writing it",
                           file->path);
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", file->path, strerror(errno));
}

static bool begin_beside(struct cli_file *file, bool exists)
{
    char *place = exists ? realpath(file->path, NULL) : strdup(file->path);
    mode_t mode = file->private ? 0600 : exists ? (file->mode & 0666) | 0200 : 0666;
    bool begun = place && wf_whole_begin(&file->whole, AT_FDCWD, place, mode);
    free(place);
    return begun;
}

int wf_cli_file_begin(struct cli *cli, struct cli_file *file)
{
    struct stat about;
    bool exists = stat(file->path, &about) == 0;
    file->mode = exists ? about.st_mode & 07777 : 0;
    if (!exists && errno != ENOENT)
        return fail(cli, file);
    if (!exists || S_ISREG(about.st_mode)) {
        if (exists && file->sync && access(file->path, W_OK) != 0)
            return fail(cli, file);
        file->begun = begin_beside(file, exists);
        if (file->begun)
            return CLI_OK;
        if (!file->in_place || errno == EBUSY)
            return fail(cli, file);
    }
    file->there = true;
    file->whole.fd = open(file->path, O_WRONLY | (exists ? O_TRUNC : O_CREAT) | O_CLOEXEC, 0666);
    file->begun = file->whole.fd >= 0;
    return file->begun ? CLI_OK : fail(cli, file);
}

int wf_cli_file_write(struct cli *cli, struct cli_file *file, const void *bytes, size_t count)
{
    return wf_whole_write(&file->whole, bytes, count) ? CLI_OK : fail(cli, file);
}

int wf_cli_file_end(struct cli *cli, struct cli_file *file)
{
    bool good;
    file->begun = false;
    if (file->there) {
        good = close(file->whole.fd) == 0;
    } else {
        /* The bytes matter more than who may read them besides. */
        if (file->mode && !file->private)
            (void)fchmod(file->whole.fd, file->mode);
        good = wf_whole_end(&file->whole, file->sync ? WF_WHOLE_SYNC : 0);
    }
    return good ? CLI_OK : fail(cli, file);
}

void wf_cli_file_drop(struct cli_file *file)
{
    if (!file->begun)
        return;
    file->begun = false;
    if (file->there)
        (void)close(file->whole.fd);
    else
        wf_whole_drop(&file->whole);
}

FILE *wf_cli_file_open(struct cli *cli, struct cli_file *file)
{
    if (wf_cli_file_begin(cli, file) != CLI_OK)
        return NULL;
    int fd = fcntl(file->whole.fd, F_DUPFD_CLOEXEC, 0);
    FILE *stream = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (stream)
        return stream;
    (void)fail(cli, file);
    if (fd >= 0)
        (void)close(fd);
    wf_cli_file_drop(file);
    return NULL;
}

int wf_cli_file_close(struct cli *cli, struct cli_file *file, FILE *stream, bool good)
{
    bool written = fflush(stream) == 0 && !ferror(stream);
    int code = written ? CLI_OK : fail(cli, file); /* before errno is another's */
    if (fclose(stream) != 0 && written)
        code = fail(cli, file);
    if (good && code == CLI_OK)
        return wf_cli_file_end(cli, file);
    wf_cli_file_drop(file);
    return code;
}
