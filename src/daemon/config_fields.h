/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of everything that weftd can be told, and how a value is read from text and written
 * back. Only the config*.c files include this.
 */
#ifndef WF_DAEMON_CONFIG_FIELDS_H
#define WF_DAEMON_CONFIG_FIELDS_H

#include <jansson.h>

#include "daemon/config.h"

#define WF_CONFIG_KEY_MAX 63
#define WF_CONFIG_VALUE_MAX 4096 /* bytes of one value's text, wherever it comes from */

enum wf_value_type {
    WF_VALUE_PATH,     /* char[max + 1], no control characters */
    WF_VALUE_TOKEN,    /* char[max + 1], printable ASCII without spaces */
    WF_VALUE_NAME,     /* char[max + 1], [a-z0-9._-] */
    WF_VALUE_ALLOW,    /* char[max + 1], "any" or a list with commas */
    WF_VALUE_LISTEN,   /* http_address and http_port of a struct wf_config */
    WF_VALUE_SIZE,     /* uint64_t, "4GB" */
    WF_VALUE_COUNT,    /* uint32_t */
    WF_VALUE_MODE,     /* uint32_t, octal */
    WF_VALUE_DURATION, /* uint32_t milliseconds, "5s" */
    WF_VALUE_NODE,     /* int32_t, -1 is "any" */
    WF_VALUE_BOOL,     /* bool */
    WF_VALUE_CHOICE,   /* an enum (int) whose values count up from 0, named by `choices` */
};

struct wf_field {
    const char *key; /* dots part the levels of the YAML file */
    enum wf_value_type type;
    size_t offset;
    uint64_t min, max;          /* inclusive; for text: its longest length */
    const char *const *choices; /* WF_VALUE_CHOICE, NULL at the end */
    const char *host_default;   /* what the default is, in words, when it depends on the host */
    const char *help;           /* a sentence or two; no newline */
};

extern const struct wf_field wf_config_fields[];
extern const size_t wf_config_field_count;
extern const struct wf_field wf_domain_fields[]; /* offsets in struct wf_domain_config */
extern const size_t wf_domain_field_count;

/* Index of the field named `key`, or -1. */
int wf_config_field(const char *key);
int wf_domain_field(const char *key);

/* "pool.size" → "WEFT_POOL_SIZE"; `out` holds WF_CONFIG_KEY_MAX + 6 bytes. */
char *wf_config_variable(const char *key, char *out);

/* Reads `text` into the field.  `where` (file:line, "env WEFT_X", "flag x") and `shown` (the key as
 * the user wrote it) open the sentence when it is wrong. */
enum weft_status wf_value_set(const struct wf_field *field, void *base, const char *text,
                              const char *where, const char *shown);

/* The value as a user would write it, so that wf_value_set() reads it back.  Tokens are shown as
 * they are. */
char *wf_value_text(const struct wf_field *field, const void *base, char *out, size_t capacity);

/* The value for a program: sizes in bytes, durations in ms; a token is null or "***".  New
 * reference. */
json_t *wf_value_json(const struct wf_field *field, const void *base);

/* Where the value came from: "default", "/etc/weft/weftd.yaml:7", "env WEFT_X", "flag x". */
char *wf_origin_text(const struct wf_config *config, const struct wf_config_origin *origin,
                     const char *key, char *out, size_t capacity);
#define WF_ORIGIN_TEXT_MAX (WF_PATH_MAX + WF_CONFIG_KEY_MAX + WF_DOMAIN_NAME_MAX + 32)

/* The same for field `index` of the config, or of its domain `domain`. */
char *wf_config_where(const struct wf_config *config, int index, char *out);
char *wf_domain_where(const struct wf_config *config, const struct wf_domain_config *domain,
                      int index, char *out);

/* A domain as it is before anything was said about it. */
void wf_domain_defaults(struct wf_domain_config *domain);

/* The domain of that name, or NULL. */
struct wf_domain_config *wf_config_domain(struct wf_config *config, const char *name);

#endif
