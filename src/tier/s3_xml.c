/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/s3_xml.h"

#include <expat.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 8
#define TEXT_MAX 1100

struct reader {
    XML_Parser parser;
    struct wf_s3_answer *answer;
    struct wf_s3_found item;
    void (*found)(void *context, const struct wf_s3_found *found);
    void *context;
    size_t text_bytes;
    unsigned depth;
    bool in_item, bad, long_text;
    char text[TEXT_MAX];
};

static void refuse(struct reader *r)
{
    r->bad = true;
    (void)XML_StopParser(r->parser, XML_FALSE);
}

static void doctype(void *user, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
                    int internal)
{
    (void)name, (void)sysid, (void)pubid, (void)internal;
    refuse(user);
}

static void begin(void *user, const XML_Char *name, const XML_Char **attributes)
{
    struct reader *r = user;
    (void)attributes;
    r->text_bytes = 0;
    r->long_text = false;
    if (++r->depth > DEPTH_MAX) {
        refuse(r);
    } else if (r->depth == 1) {
        if (strlen(name) >= sizeof r->answer->root)
            refuse(r);
        else
            snprintf(r->answer->root, sizeof r->answer->root, "%s", name);
    } else if (r->depth == 2 && (!strcmp(name, "Contents") || !strcmp(name, "Upload"))) {
        memset(&r->item, 0, sizeof r->item);
        r->in_item = true;
    }
}

static void text(void *user, const XML_Char *data, int bytes)
{
    struct reader *r = user;
    if ((size_t)bytes >= sizeof r->text - r->text_bytes) {
        r->long_text = true; /* matters only where the field does */
        return;
    }
    memcpy(r->text + r->text_bytes, data, (size_t)bytes);
    r->text_bytes += (size_t)bytes;
}

static void keep(struct reader *r, char *field, size_t room, bool may_cut)
{
    size_t bytes = strlen(r->text);
    if (may_cut && bytes >= room)
        bytes = room - 1;
    if (bytes >= room || (r->long_text && !may_cut)) {
        refuse(r);
        return;
    }
    memcpy(field, r->text, bytes);
    field[bytes] = '\0';
}

static void item_field(struct reader *r, const char *name)
{
    if (!strcmp(name, "Key")) {
        keep(r, r->item.key, sizeof r->item.key, false);
    } else if (!strcmp(name, "UploadId")) {
        keep(r, r->item.upload, sizeof r->item.upload, false);
    } else if (!strcmp(name, "Size")) {
        char *end;
        r->item.bytes = strtoull(r->text, &end, 10);
        if (*end || end == r->text || r->text[0] == '-')
            refuse(r);
    }
}

static void answer_field(struct reader *r, const char *name)
{
    struct wf_s3_answer *a = r->answer;
    if (!strcmp(name, "IsTruncated"))
        a->truncated = !strcmp(r->text, "true");
    else if (!strcmp(name, "NextContinuationToken") || !strcmp(name, "NextKeyMarker"))
        keep(r, a->next, sizeof a->next, false);
    else if (!strcmp(name, "NextUploadIdMarker"))
        keep(r, a->next_upload, sizeof a->next_upload, false);
    else if (!strcmp(name, "UploadId"))
        keep(r, a->upload, sizeof a->upload, false);
    else if (!strcmp(name, "Code"))
        keep(r, a->code, sizeof a->code, true);
    else if (!strcmp(name, "Message"))
        keep(r, a->message, sizeof a->message, true);
}

static void end(void *user, const XML_Char *name)
{
    struct reader *r = user;
    r->text[r->text_bytes] = '\0';
    if (r->depth == 3 && r->in_item) {
        item_field(r, name);
    } else if (r->depth == 2 && r->in_item) {
        r->in_item = false;
        if (r->found && !r->bad)
            r->found(r->context, &r->item);
    } else if (r->depth == 2) {
        answer_field(r, name);
    }
    r->depth--;
    r->text_bytes = 0;
    r->long_text = false;
}

bool wf_s3_xml_read(const void *data, size_t bytes, struct wf_s3_answer *out,
                    void (*found)(void *context, const struct wf_s3_found *found), void *context)
{
    struct reader r = {.answer = out, .found = found, .context = context};
    memset(out, 0, sizeof *out);
    if (bytes > INT_MAX || !(r.parser = XML_ParserCreate(NULL)))
        return false;
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, begin, end);
    XML_SetCharacterDataHandler(r.parser, text);
    XML_SetStartDoctypeDeclHandler(r.parser, doctype);
    bool whole = XML_Parse(r.parser, data, (int)bytes, 1) == XML_STATUS_OK && !r.bad;
    XML_ParserFree(r.parser);
    return whole;
}
