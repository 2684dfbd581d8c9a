/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that is there whole or not at all: what takes minutes to make may replace what a node
 * works by.
 *
 * It is written beside its place, as NAME.part, and takes that when all of it is on the disk.
 * Whoever dies or finds no room before that leaves what was there as it was; after a death
 * NAME.part stays, which no node looks at, and the next one writes over.  What is no file (a pipe,
 * a device) is written as it comes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/codec.h"

static int fail(struct cli *cli, const char *path)
{
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s", path, strerror(errno));
}

void wf_cli_codec_file_drop(struct codec_file *file)
{
    if (file->stream)
        (void)fclose(file->stream);
    if (file->part)
        (void)unlink(file->part);
    free(file->part);
    free(file->place);
    memset(file, 0, sizeof *file);
}

int wf_cli_codec_file_begin(struct cli *cli, const char *path, struct codec_file *out)
{
    struct codec_file file = {.path = path};
    struct stat about;
    bool there = stat(path, &about) == 0;
    bool whole = there ? S_ISREG(about.st_mode) : errno == ENOENT;
    if (there && whole && access(path, W_OK) != 0)
        return fail(cli, path);
    file.place = there ? realpath(path, NULL) : strdup(path); /* not the link to it */
    if (!file.place || (whole && asprintf(&file.part, "%s.part", file.place) < 0)) {
        file.part = NULL;
        wf_cli_codec_file_drop(&file);
        return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: out of memory", path);
    }
    file.stream = fopen(whole ? file.part : file.place, "wbe");
    if (!file.stream) {
        int code = fail(cli, path);
        wf_cli_codec_file_drop(&file);
        return code;
    }
    if (there && whole)
        (void)fchmod(fileno(file.stream), about.st_mode & 0777);
    *out = file;
    return CLI_OK;
}

int wf_cli_codec_file_end(struct cli *cli, struct codec_file *file, const void *bytes, size_t count)
{
    bool written = fwrite(bytes, 1, count, file->stream) == count && fflush(file->stream) == 0 &&
                   (!file->part || fsync(fileno(file->stream)) == 0);
    written = fclose(file->stream) == 0 && written;
    file->stream = NULL;
    if (written && file->part && rename(file->part, file->place) == 0) {
        free(file->part);
        file->part = NULL;
    }
    int code = written && !file->part ? CLI_OK : fail(cli, file->path);
    wf_cli_codec_file_drop(file);
    return code;
}
