/* SPDX-License-Identifier: Apache-2.0
 *
 * One file of sysfs, read: a line, a number, a NUMA node, a field of a node's meminfo.
 *
 * The caller says where sysfs is, so that tests have one of their own.  What is not there, is too
 * long or is not what was asked for is told as such, never guessed.
 */
#ifndef WF_SYS_SYSFS_H
#define WF_SYS_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_SYSFS_PATH_BYTES 512u /* longer paths are not there */

/* The first line of folder/name, without its end. */
bool wf_sysfs_line(const char *folder, const char *name, char *out, size_t bytes);

/* A number, decimal or with 0x before it; nothing but spaces may follow. */
bool wf_sysfs_number(const char *folder, const char *name, uint64_t *out);

/* The same; 0: there is none, or it is too large or negative. */
uint32_t wf_sysfs_u32(const char *folder, const char *name);

/* -1: none. */
int wf_sysfs_node(const char *folder, const char *name);

/* "MemTotal" or another field of a node's meminfo, in bytes; 0: it is not there. */
uint64_t wf_sysfs_memory(const char *folder, const char *field);

#endif
