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
#define WF_LIST_NAME_MAX 63      /* of an entry, in any list */
#define WF_LIST_FIELDS_MAX 20    /* of an entry, in any list */
#define WF_CONFIG_VALUE_MAX 4096 /* bytes of one value's text, wherever it comes from */

enum wf_value_type {
    WF_VALUE_PATH,   /* char[max + 1], no control characters */
    WF_VALUE_TOKEN,  /* char[max + 1], printable ASCII without spaces; never shown */
    WF_VALUE_WORD,   /* the same, shown */
    WF_VALUE_NAME,   /* char[max + 1], [a-z0-9._-] */
    WF_VALUE_MEMBER, /* the same, without _, as a node of a cluster is called (member/checks.h) */
    WF_VALUE_ALLOW,  /* char[max + 1], "any" or a list with commas */
    WF_VALUE_LISTEN, /* char[WF_ADDRESS_BYTES], and a uint16_t port, of which `min` is the offset */
    WF_VALUE_SIZE,   /* uint64_t, "4GB" */
    WF_VALUE_COUNT,  /* uint32_t */
    WF_VALUE_DECIMAL,  /* double, "0.3" */
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

/* A list of entries that have a name and fields of their own.  The first field is the name, at the
 * start of the entry. */
struct wf_config_list {
    const char *key;               /* "domains": in the file, as a flag, and WEFT_DOMAINS */
    const char *one;               /* "domain": domain.NAME.FIELD */
    const struct wf_field *fields; /* offsets in an entry */
    size_t field_count;
    uint32_t max, name_max;
    size_t entries_at, entry_bytes, count_at, origin_at; /* in struct wf_config */
    size_t origins_at;                                   /* in an entry */
    void (*defaults)(void *entry); /* as it is before anything was said about it */
    const char *over;              /* the mend when there are more than `max` */
    const char *empty;             /* why it may not be empty; NULL: it may */
    const char *help;
    const char *example; /* the entry that the help shows, commented out, when there is none */
};

enum { WF_LIST_DOMAINS = 0, WF_LIST_TIERS, WF_LIST_ENGINES, WF_LIST_LINKS, WF_LIST_COUNT };
extern const struct wf_config_list wf_config_lists[WF_LIST_COUNT];

/* Index of the field named `key`, or -1. */
int wf_config_field(const char *key);
int wf_list_field(const struct wf_config_list *list, const char *key);

/* Entry `index`, up to list->max; how many there are. */
void *wf_list_entry(const struct wf_config_list *list, const struct wf_config *config,
                    uint32_t index);
uint32_t wf_list_count(const struct wf_config_list *list, const struct wf_config *config);
/* The entry of that name, or NULL. */
void *wf_list_find(const struct wf_config_list *list, const struct wf_config *config,
                   const char *name);
struct wf_config_origin *wf_list_origin(const struct wf_config_list *list, void *entry, int index);
/* The list has `count` entries from now on, and `origin` says so. */
void wf_list_resize(const struct wf_config_list *list, struct wf_config *config, uint32_t count,
                    struct wf_config_origin origin);
/* "quota, writes, token or allow": the fields from number `first` on. */
char *wf_list_words(const struct wf_config_list *list, size_t first, char *out, size_t capacity);

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
#define WF_ORIGIN_TEXT_MAX (WF_PATH_MAX + WF_CONFIG_KEY_MAX + WF_LIST_NAME_MAX + 32)

/* The same for field `index` of the config, or of an entry of a list. */
char *wf_config_where(const struct wf_config *config, int index, char *out);
char *wf_list_where(const struct wf_config_list *list, const struct wf_config *config,
                    const void *entry, int index, char *out);
/* "file:line: key", in `out`; a `where` that ends with the key, as of a flag, stays as it is. */
#define WF_NAMED_MAX (WF_ORIGIN_TEXT_MAX + WF_CONFIG_KEY_MAX + WF_LIST_NAME_MAX + 4)
const char *wf_value_named(const char *where, const char *shown, char out[WF_NAMED_MAX]);

/* The node of a CXL tier's path "node:N", or -1; the file of "file-emulation:FILE", or NULL. */
int wf_config_numa_node(const char *path);
const char *wf_config_emulated(const char *path);

/* wf_config_finish() for KV events, in and out. */
enum weft_status wf_config_finish_events(const struct wf_config *config);

/* What the node is called when nobody says. */
void wf_config_fabric_name(struct wf_config *config);
/* wf_config_finish() for the fabric. */
enum weft_status wf_config_finish_fabric(struct wf_config *config);

/* wf_config_finish() for the tiers. */
enum weft_status wf_config_finish_tiers(const struct wf_config *config);

/* wf_config_check() is given a remark: one sentence, passed on to who asked for the check. */
struct wf_remarks {
    const struct wf_config *config;
    void (*say)(void *context, enum wf_remark_kind kind, const char *sentence);
    void *context;
    bool fatal; /* one was */
};
void wf_remark(struct wf_remarks *remarks, enum wf_remark_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The mend for a file that could not be opened: `make` says how one is made; of one that this user
 * may not read, for whom it has to be readable.  Returns `out`. */
#define WF_UNOPENED_MAX 128
const char *wf_config_unopened(int error, const char *make, char out[WF_UNOPENED_MAX]);

/* wf_config_check() for the tiers and what is kept for them. */
void wf_config_check_tiers(struct wf_remarks *remarks);
void wf_config_check_fabric(struct wf_remarks *remarks);

#endif
