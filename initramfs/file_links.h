/* SPDX-License-Identifier: Apache-2.0 */
/* Which files with several names a tar stream has had already, in bounded memory. */
#ifndef MSB_INITRAMFS_FILE_LINKS_H
#define MSB_INITRAMFS_FILE_LINKS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Beyond either, further files are not remembered. */
#define FILE_LINKS_MAX 65536u
#define FILE_LINKS_NAMES (8u * 1024u * 1024u) /* bytes of all first names */

/* Starts as all zeros; its memory is mapped when the first file comes. */
struct file_links {
  struct file_link* slots;
  char* names;
  uint32_t count;
  size_t names_used;
};

/*
 * The name with which the file of `status` came before, or NULL if it has not: then `name` is
 * remembered, if there is room, unless it is NULL.
 */
const char* file_links_find(struct file_links* links, const struct stat* status, const char* name);

void file_links_free(struct file_links* links);

#endif
