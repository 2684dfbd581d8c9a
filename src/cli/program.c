/* SPDX-License-Identifier: Apache-2.0
 *
 * Other programs of Weft: where they are, and what they say.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"

/* `folder of program`/`beside`/`name`. */
static bool beside(const char *program, const char *where, const char *name, char *path,
                   size_t capacity)
{
    const char *slash = strrchr(program, '/');
    return slash &&
           snprintf(path, capacity, "%.*s%s%s", (int)(slash + 1 - program), program, where, name) <
               (int)capacity &&
           access(path, X_OK) == 0;
}

bool wf_cli_program_find(const char *name, char *path, size_t capacity)
{
    /* As it was called, so that build/bin with its links works, then where it lies, then bin's
     * sbin. */
    const char *called = (const char *)getauxval(AT_EXECFN);
    char self[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = '\0';
    if ((called && beside(called, "", name, path, capacity)) ||
        beside(self, "", name, path, capacity) || beside(self, "../sbin/", name, path, capacity))
        return true;
    const char *search = getenv("PATH");
    for (const char *p = search ? search : "/usr/local/bin:/usr/bin:/bin"; *p;) {
        size_t part = strcspn(p, ":");
        if (part && snprintf(path, capacity, "%.*s/%s", (int)part, p, name) < (int)capacity &&
            access(path, X_OK) == 0)
            return true;
        p += part + (p[part] == ':');
    }
    return false;
}

int wf_cli_program_read(const char *program, const char *const *arguments, char **out_text)
{
    int ends[2], how = 0;
    char *text = NULL;
    size_t capacity = 0;
    *out_text = NULL;
    if (pipe(ends) != 0)
        return CLI_SYSTEM;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execv(program, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    close(ends[1]);
    FILE *from = fdopen(ends[0], "r");
    ssize_t length = from ? getdelim(&text, &capacity, '\0', from) : -1;
    if (from)
        fclose(from);
    else
        close(ends[0]);
    if (child < 0 || waitpid(child, &how, 0) != child)
        how = 127 << 8;
    if (length > 0)
        *out_text = text;
    else
        free(text);
    return WIFEXITED(how) ? WEXITSTATUS(how) : CLI_SYSTEM;
}
