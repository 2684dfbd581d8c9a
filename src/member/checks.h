/* SPDX-License-Identifier: Apache-2.0
 *
 * What every registry asks of names and texts before it takes them, from this node's own
 * configuration or from a stranger.  Each leaves a sentence.  Any thread.
 */
#ifndef WF_MEMBER_CHECKS_H
#define WF_MEMBER_CHECKS_H

#include "member/member.h"

/* 1 to WF_MEMBER_NAME_MAX of a-z, 0-9, dot and hyphen, a letter or digit first and last: what is
 * a host's name, a file's name and a part of a key alike.  The sentence starts with `what`. */
enum weft_status wf_member_name_check(const char *what, const char *name);

/* What a node says of itself, NULL being "", into `out`; its epoch is 0. */
enum weft_status wf_member_make(const char *name, const char *addresses, const char *details,
                                struct wf_member *out);

/* A setting's name is as a member's; its value, NULL or at most WF_SETTING_MAX bytes without the
 * NUL, is text. */
enum weft_status wf_setting_check(const char *name, const char *value);

/* Epoch, addresses and details are the same. */
bool wf_member_same(const struct wf_member *a, const struct wf_member *b);

#endif
