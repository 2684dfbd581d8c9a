/* SPDX-License-Identifier: Apache-2.0 */
#include "member/checks.h"

#include <string.h>

#include "base/text.h"

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

enum weft_status wf_member_name_check(const char *what, const char *name)
{
    size_t length = name ? strnlen(name, WF_MEMBER_NAME_MAX + 1) : 0;
    if (length == 0)
        return wf_fail(WEFT_E_INVALID, "%s is empty; give it a name of a-z, 0-9, '.' and '-'",
                       what);
    if (length > WF_MEMBER_NAME_MAX)
        return wf_fail(WEFT_E_INVALID, "%s '%.*s…' is too long; it can have %u characters", what,
                       (int)WF_MEMBER_NAME_MAX, name, WF_MEMBER_NAME_MAX);
    bool good = is_plain(name[0]) && is_plain(name[length - 1]);
    for (size_t i = 0; i < length; i++)
        good = good && (is_plain(name[i]) || name[i] == '.' || name[i] == '-');
    /* It may not be fit to be shown. */
    if (!good && wf_text_check(what, name, WF_MEMBER_NAME_MAX, false) != WEFT_OK)
        return WEFT_E_INVALID;
    if (!good)
        return wf_fail(WEFT_E_INVALID,
                       "%s '%s' is none; it is made of a-z, 0-9, '.' and '-', with a letter or a "
                       "digit first and last",
                       what, name);
    return WEFT_OK;
}

enum weft_status wf_member_make(const char *name, const char *addresses, const char *details,
                                struct wf_member *out)
{
    addresses = addresses ? addresses : "";
    details = details ? details : "";
    enum weft_status status = wf_member_name_check("the node's name", name);
    if (status == WEFT_OK)
        status = wf_text_check("the node's addresses", addresses, WF_MEMBER_ADDRESSES_MAX - 1,
                               false);
    if (status == WEFT_OK)
        status = wf_text_check("the node's details", details, WF_MEMBER_DETAILS_MAX - 1, true);
    if (status != WEFT_OK)
        return status;
    memset(out, 0, sizeof *out);
    memcpy(out->name, name, strlen(name));
    memcpy(out->addresses, addresses, strlen(addresses));
    memcpy(out->details, details, strlen(details));
    return WEFT_OK;
}

enum weft_status wf_setting_check(const char *name, const char *value)
{
    enum weft_status status = wf_member_name_check("the setting's name", name);
    if (status == WEFT_OK && value)
        status = wf_text_check("the setting's value", value, WF_SETTING_MAX, true);
    return status;
}

bool wf_member_same(const struct wf_member *a, const struct wf_member *b)
{
    return a->epoch == b->epoch && strcmp(a->addresses, b->addresses) == 0 &&
           strcmp(a->details, b->details) == 0;
}
