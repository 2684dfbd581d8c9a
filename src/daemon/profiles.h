/* SPDX-License-Identifier: Apache-2.0
 *
 * The profiles that this node has: by which blocks are stored with loss, and read again.
 *
 * They are files in one folder (weftd.yaml(5), `profiles`).  All of it is read before the node
 * serves, and looked at again when something changed in it, by a worker.  What is in a file is a
 * stranger's until wf_profile_parse() has seen all of it; one that is refused is told of once, and
 * does no harm.
 *
 * A profile that was read stays in memory until the node ends, its file or not, since blocks may be
 * stored by it.  By which blocks are written is the owner thread's to ask; by which they are read,
 * any thread's.
 */
#ifndef WF_DAEMON_PROFILES_H
#define WF_DAEMON_PROFILES_H

#include "codec/profile.h"
#include "shm/control.h"

#define WF_PROFILES_MAX 64u
#define WF_PROFILES_BYTES_MAX (UINT64_C(1) << 30) /* of all files together */
#define WF_PROFILES_SUFFIX ".wfprofile"

struct wf_node;
struct wf_profiles;

/* Reads what is in the folder, which need not be there.  WEFT_E_NO_MEMORY. */
enum weft_status wf_profiles_create(struct wf_node *node, struct wf_profiles **out);
/* Nobody works by one any more. */
void wf_profiles_destroy(struct wf_profiles *profiles);

/* See now and then whether something is new in the folder. */
void wf_profiles_tick(struct wf_profiles *profiles);

/* By its id; NULL: it is not here.  Any thread, without waiting. */
const struct wf_profile *wf_profiles_by_id(void *profiles, uint64_t id);

/* Of each that is here the bit id % 64, as the fabric says which there are; likewise. */
uint64_t wf_profiles_bits(void *profiles);

/* Changes with what wf_profiles_for() may answer. */
uint64_t wf_profiles_generation(const struct wf_profiles *profiles);
/* The newest that is made for blocks of such a format; NULL: there is none. */
const struct wf_profile *wf_profiles_for(const struct wf_profiles *profiles,
                                         const struct wf_format_open *format);
/* Is it made for blocks of such a format? */
bool wf_profiles_fit(const struct wf_profile *profile, const struct wf_format_open *format);
/* Why there is none, for people: what the newest that names its model is not made for.  Whether
 * another could be made that is: not of an opaque format, say. */
bool wf_profiles_why(const struct wf_profiles *profiles, const struct wf_format_open *format,
                     char *out, size_t capacity);
/* Is there one that names this model, made for such a format or not? */
bool wf_profiles_named(const struct wf_profiles *profiles, const char *model);
/* Its file's name, for people; "": none of these. */
const char *wf_profiles_name(const struct wf_profiles *profiles, const struct wf_profile *profile);

/* QUERY "profiles": the folder, and what was read from it; text for free(). */
char *wf_profiles_list(const struct wf_profiles *profiles, uint64_t cursor);

/* Where they are read from; "": nowhere, since the node keeps no state. */
void wf_profiles_folder(const struct wf_node *node, char *out, size_t capacity);

#endif
