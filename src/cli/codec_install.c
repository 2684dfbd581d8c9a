/* SPDX-License-Identifier: Apache-2.0
 *
 * weft codec install: a profile into the folder that the node reads.
 *
 * It is written under a name that the node does not look at, and is there when it is whole and on
 * the disk (sys/whole.h).  No file that is there is written over: blocks may be stored by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/codec.h"
#include "sys/whole.h"

#define SUFFIX ".wfprofile"
#define NAME_MAX_BYTES 200u /* of a file's name, with its suffix */
#define WAIT_S 15           /* a node looks once a second at what is a second old */

struct place {
    char folder[1024], name[256], path[1400], id[20];
    bool there; /* it is there already, the same */
};

/* What the node's list says of a profile by its id; NULL: it is not in it. */
static json_t *listed(const json_t *answer, const char *id)
{
    size_t index;
    json_t *row;
    json_array_foreach (json_object_get(answer, "profiles"), index, row)
        if (strcmp(json_string_value(json_object_get(row, "id")), id) == 0 &&
            json_is_true(json_object_get(row, "there")))
            return row;
    return NULL;
}

/* Is the file that is there this one? */
static bool same(const char *path, const struct codec_profile *made)
{
    struct stat about;
    FILE *file = fopen(path, "rbe");
    bool equal = file && fstat(fileno(file), &about) == 0 &&
                 (uint64_t)about.st_size == (uint64_t)made->bytes;
    char *bytes = wf_cli_alloc(made->bytes + 1);
    equal = equal && fread(bytes, 1, made->bytes, file) == made->bytes &&
            memcmp(bytes, made->file, made->bytes) == 0;
    if (file)
        (void)fclose(file);
    free(bytes);
    return equal;
}

/* Under its own name, unless another has that. */
static int place_choose(struct cli *cli, const char *from, const struct codec_profile *made,
                        struct place *to)
{
    const char *slash = strrchr(from, '/'), *name = slash ? slash + 1 : from;
    size_t stem = strlen(name), suffix = strlen(SUFFIX);
    if (stem > suffix && strcmp(name + stem - suffix, SUFFIX) == 0)
        stem -= suffix;
    if (!stem || name[0] == '.' || stem + suffix > NAME_MAX_BYTES)
        return wf_cli_fail(cli, CLI_USAGE,
                           "%.64s cannot be its name there: up to %u bytes, and no dot at first",
                           name, NAME_MAX_BYTES);
    snprintf(to->name, sizeof to->name, "%.*s%s", (int)stem, name, SUFFIX);
    snprintf(to->path, sizeof to->path, "%s/%s", to->folder, to->name);
    to->there = same(to->path, made);
    if (to->there || access(to->path, F_OK) != 0)
        return CLI_OK;
    snprintf(to->name, sizeof to->name, "%.*s-%s%s", (int)stem, name, to->id, SUFFIX);
    snprintf(to->path, sizeof to->path, "%s/%s", to->folder, to->name);
    to->there = same(to->path, made);
    return CLI_OK;
}

static int write_there(struct cli *cli, const struct codec_profile *made, const struct place *to)
{
    bool folder = mkdir(to->folder, 0755) == 0 ? chmod(to->folder, 0755) == 0 : errno == EEXIST;
    if (!folder && errno == ENOENT)
        return wf_cli_fail(
            cli, CLI_SYSTEM,
            "cannot make %s, where the node reads profiles: the folder that it is to "
            "lie in is not there; make that, as the node's user, or give a domain "
            "of the node a quality, for which it makes it when it starts",
            to->folder);
    if (!folder)
        return wf_cli_fail(cli, CLI_SYSTEM,
                           "cannot make %s, where the node reads profiles: %s; be its user or root",
                           to->folder, strerror(errno));
    struct wf_whole file;
    bool written = wf_whole_begin(&file, AT_FDCWD, to->path, 0644);
    /* The node's user reads it, whatever the umask is here; what came there meanwhile stays. */
    if (written && wf_whole_write(&file, made->file, made->bytes) && fchmod(file.fd, 0644) == 0)
        written = wf_whole_end(&file, WF_WHOLE_SYNC | WF_WHOLE_FIRST);
    else
        written = false;
    if (written)
        return CLI_OK;
    wf_whole_drop(&file);
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot write %s: %s; be the node's user, or root",
                       to->path, strerror(errno));
}

/* Until the node says that it has it. */
static int wait_read(struct cli *cli, const struct place *to)
{
    double until = wf_cli_now_s() + WAIT_S;
    for (;;) {
        json_t *answer;
        int code = wf_cli_query(cli, "profiles", 0, 0, &answer);
        if (code != CLI_OK)
            return code;
        bool read = listed(answer, to->id);
        json_decref(answer);
        if (read)
            return CLI_OK;
        if (wf_cli_now_s() > until)
            return wf_cli_fail(cli, CLI_MISS,
                               "%s is there, and the node did not read it within %d s; its log, or "
                               "weft events --what codec, says why",
                               to->path, WAIT_S);
        usleep(50000);
    }
}

static void report(const struct cli *cli, const struct codec_profile *made, const struct place *to)
{
    const char *model = made->profile->head.model;
    if (cli->json) {
        json_t *a = json_object();
        wf_cli_json_set(a, "file", json_string(to->path));
        wf_cli_json_set(a, "model", json_string(model));
        wf_cli_json_set(a, "id", json_string(to->id));
        wf_cli_json_set(a, "installed", json_boolean(!to->there));
        wf_cli_json_print(a);
        return;
    }
    printf("%s%s; the node has read it\n", to->path, to->there ? " was there already" : "");
    printf("for KV of model %s, in domains whose quality is transparent or economy; weft ls "
           "formats says who uses it\n",
           model);
}

int wf_cli_codec_install(struct cli *cli)
{
    struct codec_profile made;
    struct place to = {.there = false};
    json_t *answer = NULL;
    if (cli->word_count < 2)
        return wf_cli_fail(cli, CLI_USAGE, "say which profile: weft codec install FILE");
    if (cli->word_count > 2)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[2]);
    int code = wf_cli_codec_profile_load(cli, cli->words[1], &made);
    if (code != CLI_OK || !made.profile)
        return code;
    code = wf_cli_connect(cli);
    if (code == CLI_OK)
        code = wf_cli_query(cli, "profiles", 0, 0, &answer);
    if (code != CLI_OK)
        goto out;
    const char *folder = json_string_value(json_object_get(answer, "folder"));
    if (!folder || strlen(folder) >= sizeof to.folder) {
        code = wf_cli_fail(cli, CLI_REFUSED,
                           "the node has no folder of profiles; set profiles, or state_dir, in its "
                           "configuration");
        goto out;
    }
    snprintf(to.folder, sizeof to.folder, "%s", folder);
    snprintf(to.id, sizeof to.id, "%016llx", (unsigned long long)made.profile->id);
    code = place_choose(cli, cli->words[1], &made, &to);
    if (code == CLI_OK && !to.there)
        code = write_there(cli, &made, &to);
    if (code == CLI_OK)
        code = wait_read(cli, &to);
    if (code == CLI_OK)
        report(cli, &made, &to);
out:
    json_decref(answer);
    wf_cli_codec_profile_free(&made);
    return code;
}
