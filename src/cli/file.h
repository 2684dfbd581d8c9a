/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that a command makes, which is there whole or not at all (file.c).
 */
#ifndef WF_CLI_FILE_H
#define WF_CLI_FILE_H

#include "cli/cli.h"
#include "sys/whole.h"

struct cli_file {
    /* The caller's, before begin(): */
    const char *path;
    bool sync;     /* it is on the disk before it is there; what may not be written to stays */
    bool private;  /* its owner's alone, whatever was there; else as that was, or by the umask */
    bool in_place; /* where no file can be made beside it, it is written where it lies */
    /* Its own: */
    bool begun, there; /* there: it is written where it lies, and has no name beside it */
    struct wf_whole whole;
    mode_t mode; /* of what was there; 0: nothing */
};

/* All CLI_OK, or CLI_SYSTEM after a sentence.  After begin() comes end(), or drop(), which may also
 * come after end() and without begin(). */
int wf_cli_file_begin(struct cli *cli, struct cli_file *file);
int wf_cli_file_write(struct cli *cli, struct cli_file *file, const void *bytes, size_t count);
int wf_cli_file_end(struct cli *cli, struct cli_file *file);
void wf_cli_file_drop(struct cli_file *file);

/* For what is printed: begin(), and a stream to print to; NULL after a sentence.  Then close(),
 * which is end() if `good` and all was written, and else drop(). */
FILE *wf_cli_file_open(struct cli *cli, struct cli_file *file);
int wf_cli_file_close(struct cli *cli, struct cli_file *file, FILE *stream, bool good);

#endif
