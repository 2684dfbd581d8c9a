/* SPDX-License-Identifier: Apache-2.0
 *
 * What engines hold, as they say: which of them has a block of ours in its HBM, and what a hash
 * stands for that somebody gave a key without its tokens.
 *
 * An engine's hash is of tokens and the like and not of the model, so an engine is asked only about
 * blocks of the formats whose model its `model` names.
 *
 * Owner thread, and only after wf_engines_start(); without `kv_events.engines` all of this is there
 * and says nothing.
 */
#ifndef WF_DAEMON_ENGINES_H
#define WF_DAEMON_ENGINES_H

#include <stdio.h>

#include "daemon/gateway_figures.h"
#include "daemon/node.h"

enum weft_status wf_engines_start(struct wf_node *node);
void wf_engines_stop(struct wf_node *node);
/* Now and then: what became of them becomes an event. */
void wf_engines_tick(struct wf_node *node);

/* What an engine of that format's model said of the hash, with `tokens` tokens; a reference that
 * the caller has.  NULL: none did. */
struct wf_kv_block *wf_engines_meaning(const struct wf_node *node,
                                       const struct wf_format_entry *format, const uint8_t *hash,
                                       size_t hash_bytes);

/* Does `model` of the configuration name the format's? */
bool wf_engines_model(const char *model, const char *of_format);

/* QUERY "engines", and with `key`, its digits, "engines key=…": text for free(). */
char *wf_engines_list(const struct wf_domain *domain, bool owner);
char *wf_engines_key(const struct wf_domain *domain, const char *digits,
                     enum weft_status *out_status);

void wf_engines_figures(const struct wf_node *node, struct wf_engines_figures *out);
void wf_engines_render(FILE *out, const struct wf_engines_figures *now);

#endif
