/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users and groups by name, as the sandbox's /etc/passwd and /etc/group have them. Those files are
 * the sandbox's: whatever they are, it is the child that reads them, and its memory is bounded.
 */
#ifndef MSB_INITRAMFS_USER_H
#define MSB_INITRAMFS_USER_H

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 1024

struct user_files {
  const char* passwd;
  const char* group;
};

/* What a process becomes. */
struct user {
  uid_t id;
  gid_t group;
  size_t group_count;
  gid_t groups[USER_GROUPS_MAX]; /* the supplementary ones; `group` is the first */
  char home[PATH_MAX];
};

/* Which of the names a lookup failed at. */
enum user_part { USER_PART_USER = 0, USER_PART_GROUP = 1, USER_PART_GROUPS = 2 /* + index */ };

/*
 * Looks up `name` (empty, NAME, NUMBER, or either with :GROUP) and the supplementary `groups`,
 * which end with NULL. Digits alone are a number. Returns 0, or an errno (ENOENT: there is no such
 * name) with *part saying of what.
 */
int user_find(const struct user_files* files, const char* name, char* const* groups,
              struct user* user, unsigned* part);

#endif
