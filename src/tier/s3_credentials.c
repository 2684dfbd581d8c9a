/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/s3_credentials.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "sys/memory.h"
#include "tier/tier.h"

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* The line without blanks around it. */
static void trim(const char **from, const char **end)
{
    while (*from < *end && blank(**from))
        (*from)++;
    while (*end > *from && blank((*end)[-1]))
        (*end)--;
}

static bool is(const char *from, const char *end, const char *word)
{
    return (size_t)(end - from) == strlen(word) && !memcmp(from, word, strlen(word));
}

bool wf_s3_ini_find(const char *text, size_t bytes, const char *section, const char *key, char *out,
                    size_t room)
{
    const char *at = text, *stop = text + bytes;
    bool inside = false;
    while (at < stop) {
        const char *end = memchr(at, '\n', (size_t)(stop - at));
        const char *from = at;
        if (!end)
            end = stop;
        at = end < stop ? end + 1 : stop;
        bool indented = from < end && blank(*from);
        trim(&from, &end);
        if (from == end || *from == '#' || *from == ';')
            continue;
        if (*from == '[' && end[-1] == ']') {
            from++, end--;
            trim(&from, &end);
            inside = is(from, end, section);
            continue;
        }
        const char *equals = inside && !indented ? memchr(from, '=', (size_t)(end - from)) : NULL;
        if (!equals)
            continue;
        const char *name_end = equals, *value = equals + 1;
        trim(&from, &name_end);
        trim(&value, &end);
        if (!is(from, name_end, key))
            continue;
        if (end == value || (size_t)(end - value) >= room)
            return false;
        memcpy(out, value, (size_t)(end - value));
        out[end - value] = '\0';
        return true;
    }
    return false;
}

bool wf_s3_time_read(const char *text, uint64_t *out)
{
    struct tm when = {0};
    int end = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &when.tm_year, &when.tm_mon, &when.tm_mday,
               &when.tm_hour, &when.tm_min, &when.tm_sec, &end) != 6)
        return false;
    text += end;
    if (*text == '.')
        text += 1 + strspn(text + 1, "0123456789");
    if (strcmp(text, "Z") != 0 || when.tm_year < 1970 || when.tm_mon < 1 || when.tm_mon > 12)
        return false;
    when.tm_year -= 1900;
    when.tm_mon--;
    time_t seconds = timegm(&when);
    if (seconds < 0)
        return false;
    *out = (uint64_t)seconds;
    return true;
}

static bool json_text(const json_t *object, const char *name, char *out, size_t room)
{
    const char *value = json_string_value(json_object_get(object, name));
    if (!value || !*value || strlen(value) >= room)
        return false;
    snprintf(out, room, "%s", value);
    return true;
}

bool wf_s3_credentials_json(const void *data, size_t bytes, struct wf_s3_credentials *out)
{
    struct wf_s3_credentials found = {0};
    char until[64];
    json_t *object = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    bool whole = json_text(object, "AccessKeyId", found.access, sizeof found.access) &&
                 json_text(object, "SecretAccessKey", found.secret, sizeof found.secret);
    if (json_object_get(object, "Token"))
        whole = whole && json_text(object, "Token", found.token, sizeof found.token);
    if (json_object_get(object, "Expiration"))
        whole = whole && json_text(object, "Expiration", until, sizeof until) &&
                wf_s3_time_read(until, &found.expires);
    json_decref(object);
    if (whole)
        *out = found;
    return whole;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* The text of a file that a variable names, or that lies in the home directory; NULL: none. */
static char *read_file(const char *variable, const char *at_home, char *path, size_t path_room,
                       size_t *out_bytes)
{
    const char *named = environment(variable), *home = environment("HOME");
    if (!named && !home)
        return NULL;
    int length = named ? snprintf(path, path_room, "%s", named)
                       : snprintf(path, path_room, "%s/%s", home, at_home);
    if (length < 0 || (size_t)length >= path_room)
        return NULL;
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    char *text = wf_calloc(WF_S3_INI_BYTES_MAX, 1, "a credentials file");
    if (text)
        *out_bytes = fread(text, 1, WF_S3_INI_BYTES_MAX, file);
    fclose(file);
    return text;
}

static const char *profile(void)
{
    const char *name = environment("AWS_PROFILE");
    return name ? name : "default";
}

/* Sections of the config file are called [profile NAME], but for [default]. */
static void config_section(char *out, size_t room)
{
    const char *name = profile();
    snprintf(out, room, "%s%s", strcmp(name, "default") != 0 ? "profile " : "", name);
}

bool wf_s3_profile_setting(const char *key, char *out, size_t room)
{
    char path[4096], section[300];
    size_t bytes = 0;
    char *text = read_file("AWS_CONFIG_FILE", ".aws/config", path, sizeof path, &bytes);
    config_section(section, sizeof section);
    bool found = text && wf_s3_ini_find(text, bytes, section, key, out, room);
    free(text);
    return found;
}

static enum weft_status from_file(const char *variable, const char *at_home, const char *section,
                                  struct wf_s3_credentials *out)
{
    char path[4096];
    size_t bytes = 0;
    char *text = read_file(variable, at_home, path, sizeof path, &bytes);
    if (!text)
        return WEFT_MISS;
    bool access = wf_s3_ini_find(text, bytes, section, "aws_access_key_id", out->access,
                                 sizeof out->access);
    bool secret = wf_s3_ini_find(text, bytes, section, "aws_secret_access_key", out->secret,
                                 sizeof out->secret);
    if (!wf_s3_ini_find(text, bytes, section, "aws_session_token", out->token, sizeof out->token))
        out->token[0] = '\0';
    explicit_bzero(text, WF_S3_INI_BYTES_MAX);
    free(text);
    if (access != secret)
        return wf_fail(WEFT_E_INVALID, "%s: section [%s] has no usable %s; give both keys", path,
                       section, access ? "aws_secret_access_key" : "aws_access_key_id");
    return access ? WEFT_OK : WEFT_MISS;
}

enum weft_status wf_s3_credentials_local(struct wf_s3_credentials *out)
{
    const char *access = environment("AWS_ACCESS_KEY_ID");
    const char *secret = environment("AWS_SECRET_ACCESS_KEY");
    const char *token = environment("AWS_SESSION_TOKEN");
    char section[300];
    memset(out, 0, sizeof *out);
    if (access || secret) {
        if (!access || !secret)
            return wf_fail(WEFT_E_INVALID, "%s is set without %s; set both, or neither",
                           access ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                           access ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
        if (strlen(access) >= sizeof out->access || strlen(secret) >= sizeof out->secret ||
            (token && strlen(token) >= sizeof out->token))
            return wf_fail(WEFT_E_INVALID,
                           "AWS_ACCESS_KEY_ID, its secret or its token is longer than any is; look "
                           "at the environment");
        snprintf(out->access, sizeof out->access, "%s", access);
        snprintf(out->secret, sizeof out->secret, "%s", secret);
        snprintf(out->token, sizeof out->token, "%s", token ? token : "");
        return WEFT_OK;
    }
    enum weft_status status = from_file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials",
                                        profile(), out);
    if (status != WEFT_MISS)
        return status;
    config_section(section, sizeof section);
    return from_file("AWS_CONFIG_FILE", ".aws/config", section, out);
}

enum weft_status wf_tier_s3_check(void)
{
    static const char places[] = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for weftd, or "
                                 "write ~/.aws/credentials";
    struct wf_s3_credentials found;
    const char *off = environment("AWS_EC2_METADATA_DISABLED");
    enum weft_status status = wf_s3_credentials_local(&found);
    explicit_bzero(&found, sizeof found);
    if (status != WEFT_MISS || environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") ||
        environment("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        return status == WEFT_MISS ? WEFT_OK : status;
    if (off && strcasecmp(off, "true") == 0)
        return wf_fail(WEFT_E_INVALID, "there are no credentials for an object store; %s", places);
    return wf_fail(WEFT_MISS,
                   "there are no credentials in the environment or in files, so the instance's "
                   "metadata service is asked, which only a cloud's machine has; %s",
                   places);
}
