/* SPDX-License-Identifier: Apache-2.0
 *
 * The secret of a domain: from its own file, from the state directory, or made at random.
 *
 * Keys derive from it (docs/IDENTITY.md), so what lies below DRAM is found after a restart only
 * with the secret that it was put with.  A node with tiers therefore keeps the secret of a domain
 * that has no secret_file in STATE_DIR/DOMAIN.secret, 32 bytes that its user alone may read.  A
 * node without tiers forgets it at its end.  In a cluster with a secret it is made of that and the
 * domain's name, so that it is the same on every node.
 *
 * The file is written beside its place, made durable and renamed under a lock on the directory:
 * whoever dies in between leaves no secret or a whole one, and of two nodes that start at once both
 * have the same.  One that is there is never changed.
 */
#ifndef WF_DAEMON_SECRET_H
#define WF_DAEMON_SECRET_H

#include "daemon/config.h"

#define WF_SECRET_BYTES_MIN 32
#define WF_SECRET_BYTES_MAX 64

/* `out` holds WF_SECRET_BYTES_MAX bytes, of which *out_bytes are the secret.  WEFT_E_INVALID,
 * WEFT_E_DENIED or WEFT_E_SYSTEM name the file and the mend. */
enum weft_status wf_secret_load(const struct wf_config *config,
                                const struct wf_domain_config *domain,
                                uint8_t out[WF_SECRET_BYTES_MAX], size_t *out_bytes);

/* Where the secret of a domain without a secret_file is kept, whether one is there or not. */
#define WF_SECRET_PATH_MAX (WF_PATH_MAX + WF_DOMAIN_NAME_MAX + 16)
void wf_secret_path(const struct wf_config *config, const struct wf_domain_config *domain,
                    char out[WF_SECRET_PATH_MAX]);

/* What nodes of one cluster prove to each other that they know, of fabric.secret_file. */
enum weft_status wf_secret_cluster(const struct wf_config *config,
                                   uint8_t out[WF_SECRET_BYTES_MIN]);

#endif
